//! What a scenario can show, as an entry of a catalogue.

/// Something that can be seen of a cluster, and that a scenario covers when it asserts the effect, on
/// real components, and has a sabotage that proves that the assertion can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its name in results, and for `--filter`: `E35`.
    pub id: &'static str,
    /// Where it is shown or reported; empty for what is only implied.
    pub sources: &'static [&'static str],
    /// Whether it is a failure, shown on purpose.
    pub failure: bool,
    /// What is done, and what is then seen.
    pub sentence: &'static str,
    /// How today's Kubernetes differs from the sources.
    pub today: Option<&'static str>,
}
