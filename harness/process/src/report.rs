//! What a long job tells whoever watches it.

/// Where progress is told to.
pub trait Report {
    /// A step begins: a short sentence in the present tense.
    fn step(&self, text: &str);
    /// What the running step waits for just now; replaces what was said before.
    fn waiting(&self, text: &str);
}
