//! What a port is called.

use std::fmt;

/// A port's name, and its segment where the switch keeps several apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) segment: Option<SegmentNumber>,
}

impl From<&str> for Label {
    fn from(name: &str) -> Self {
        Label {
            name: name.to_owned(),
            segment: None,
        }
    }
}

/// Which of a switch's segments, as people count: the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(usize);

impl SegmentNumber {
    /// The one with this index in its [`NetworkPlan`](crate::NetworkPlan).
    #[must_use]
    pub fn of_index(index: usize) -> Self {
        SegmentNumber(index + 1)
    }
}

/// `segment 2`.
impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.0)
    }
}
