//! `imagePullPolicy`, where a manifest would have nodes ask a registry.

use std::collections::BTreeMap;
use std::ops::Range;

use super::yaml::Node;

/// What is written anew in a text: by the first byte, what is there and what comes in its place. What several
/// aliases stand for is there once.
#[derive(Debug, Default)]
pub(super) struct Edits(BTreeMap<usize, (Range<usize>, String)>);

impl Edits {
    /// `IfNotPresent` in the place of a container's `Always`. Nothing where that is not one word that this container
    /// has to itself.
    pub(super) fn replace(&mut self, text: &str, policy: &Node) -> Option<()> {
        let bytes = policy.bytes.clone()?;
        let word = text.get(bytes.clone())?;
        if !["Always", "'Always'", "\"Always\""].contains(&word) {
            return None;
        }
        // What has an anchor may be the value of other fields as well.
        let before = text.get(..bytes.start)?.split_whitespace().next_back()?;
        let before = before.rsplit(['[', '{', ',']).next()?;
        if before.starts_with('&') {
            return None;
        }
        let word = word.replace("Always", "IfNotPresent");
        self.0.insert(bytes.start, (bytes, word));
        Some(())
    }

    /// A policy before all else that a container has, as its style wants it: JSON is flow style.
    pub(super) fn add(&mut self, text: &str, container: &Node) -> Option<()> {
        let begin = container.bytes.as_ref()?.start;
        let before = text.get(..begin)?;
        let (at, policy) = if text.get(begin..)?.starts_with('{') {
            let policy = "\"imagePullPolicy\": \"IfNotPresent\", ".to_owned();
            (begin + 1, policy)
        } else {
            let line = before.rsplit('\n').next().unwrap_or_default();
            let indent = " ".repeat(line.chars().count());
            (begin, format!("imagePullPolicy: IfNotPresent\n{indent}"))
        };
        self.0.insert(at, (at..at, policy));
        Some(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text that they were found in, with all of them.
    pub(super) fn written(&self, mut text: String) -> String {
        for (bytes, word) in self.0.values().rev() {
            text.replace_range(bytes.clone(), word);
        }
        text
    }
}
