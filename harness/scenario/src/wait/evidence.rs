//! Why what is waited for is not on its way.

/// Why what is waited for is not on its way.
///
/// That a state stays as it is proves nothing on a slow machine. Evidence names what would have to
/// act and does not, or has acted already: a process that does not run, rules that are complete, an
/// answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    why: String,
    looks: u32,
    look: Option<String>,
}

impl Evidence {
    /// One look that finds this is enough: nothing can change it.
    pub fn certain(why: impl Into<String>) -> Self {
        Self::unchanged_for(1, why)
    }

    /// So many looks in a row must find this: something might still act in between.
    pub fn unchanged_for(looks: u32, why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            looks,
            look: None,
        }
    }

    /// The same, saying where to look first.
    #[must_use]
    pub fn look(mut self, at: impl Into<String>) -> Self {
        self.look = Some(at.into());
        self
    }

    /// Why, in words.
    pub fn why(&self) -> &str {
        &self.why
    }

    pub(crate) fn looks(&self) -> u32 {
        self.looks
    }

    pub(crate) fn place(&self) -> Option<&String> {
        self.look.as_ref()
    }
}
