use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Package versions: `images/recipes/RECIPE.lock`, one `name=version` a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock(pub BTreeMap<String, String>);

/// One package that differs between a lock and what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDifference {
    /// The package.
    pub package: String,
    /// Its version in the lock; none when the lock does not have it.
    pub locked: Option<String>,
    /// Its version now; none when it is no longer installed.
    pub installed: Option<String>,
}

impl fmt::Display for LockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            package,
            locked,
            installed,
        } = self;
        match (locked, installed) {
            (Some(locked), Some(installed)) => write!(f, "{package} {locked} -> {installed}"),
            (None, Some(installed)) => write!(f, "{package} {installed} (not in the lock)"),
            (Some(locked), None) => write!(f, "{package} {locked} (no longer installed)"),
            (None, None) => write!(f, "{package}"),
        }
    }
}

impl Lock {
    /// Reads a lock; one that does not exist yet is empty.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Malformed`] naming the line otherwise.
    pub fn read(path: &Path) -> Result<Self, Error> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|reason| Error::Malformed {
                path: path.to_owned(),
                reason,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// Reads `name=version` lines; empty ones and comments (`#`) are skipped.
    ///
    /// # Errors
    /// Which line is none of these, or names a package twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut versions = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words = line.split_once('=').filter(|(name, version)| {
                let good = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
                good(name) && good(version)
            });
            let Some((name, version)) = words else {
                return Err(format!("line {}: {line:?} is not name=version", number + 1));
            };
            if versions
                .insert(name.to_owned(), version.to_owned())
                .is_some()
            {
                return Err(format!("line {}: {name} is there twice", number + 1));
            }
        }
        Ok(Self(versions))
    }

    /// The lock's text: sorted, the same for the same versions.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}={version}");
        }
        text
    }

    /// apt's preferences that make it take these versions where the archive has them, even below
    /// newer ones (apt_preferences(5): above 1000 means "even if this is a downgrade").
    pub fn preferences(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.0 {
            let _ = writeln!(
                text,
                "Package: {name}\nPin: version {version}\nPin-Priority: 1001\n"
            );
        }
        text
    }

    /// What differs in `installed`, by package.
    pub fn differences(&self, installed: &Self) -> Vec<LockDifference> {
        let names: BTreeSet<&String> = self.0.keys().chain(installed.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != installed.0.get(*name))
            .map(|name| LockDifference {
                package: name.clone(),
                locked: self.0.get(name).cloned(),
                installed: installed.0.get(name).cloned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn differences_are_told_by_package() {
        let locked = Lock::parse("# packages\na=1\nb=2\nc=1:3-4+deb13u1\n").unwrap();
        let installed = Lock::parse("a=1\nc=1:3-4+deb13u2\nd=5\n").unwrap();
        let shown: Vec<String> = locked
            .differences(&installed)
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        b 2 (no longer installed)
        c 1:3-4+deb13u1 -> 1:3-4+deb13u2
        d 5 (not in the lock)
        ");
        assert_eq!(locked.differences(&locked), []);
    }

    #[test]
    fn every_locked_version_is_pinned() {
        insta::assert_snapshot!(Lock::parse("runc=1.1.15+ds1-2").unwrap().preferences().trim(), @r"
        Package: runc
        Pin: version 1.1.15+ds1-2
        Pin-Priority: 1001
        ");
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let refused = |text| Lock::parse(text).unwrap_err();
        insta::assert_snapshot!(refused("a=1\n\nb 2\n"), @r#"line 3: "b 2" is not name=version"#);
        insta::assert_snapshot!(refused("a=1\na=2\n"), @"line 2: a is there twice");
        insta::assert_snapshot!(refused("a=\n"), @r#"line 1: "a=" is not name=version"#);
        assert_eq!(
            Lock::read(Path::new("/no/such.lock")).unwrap(),
            Lock::default()
        );
    }

    proptest! {
        #[test]
        fn a_lock_is_read_back_as_written(
            versions in proptest::collection::btree_map("[a-z0-9.+-]{1,9}", "[0-9][0-9a-z:.+~=-]{0,9}", 0..9)
        ) {
            let lock = Lock(versions);
            prop_assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
        }
    }
}
