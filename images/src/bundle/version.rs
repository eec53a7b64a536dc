use std::fs;
use std::path::Path;

use crate::Error;

/// The oldest minor version that clusters are made of: kube-proxy's nftables mode is stable since.
const OLDEST_MINOR: u32 = 33;

/// The versions that there are pins for, oldest first.
///
/// # Errors
/// [`Error::File`] when images/bundle/ cannot be read.
pub fn versions(source: &Path) -> Result<Vec<String>, Error> {
    let dir = source.join("images/bundle");
    let entries = fs::read_dir(&dir).map_err(Error::file("list", &dir))?;
    let mut versions: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| numbers(name).len() == 3)
        .collect();
    versions.sort_by_key(|version| numbers(version));
    Ok(versions)
}

pub(super) fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .unwrap_or_default()
}

/// Whether kubeadm upgrades a cluster so: to a newer patch, or to the next minor version ("Upgrading kubeadm
/// clusters" of the Kubernetes documentation: skipping minor versions is unsupported).
pub(super) fn can_be_upgraded(from: &str, to: &str) -> bool {
    match (numbers(from).as_slice(), numbers(to).as_slice()) {
        ([major, minor, patch], [to_major, to_minor, to_patch]) if major == to_major => {
            *to_minor == minor + 1 || (to_minor == minor && to_patch > patch)
        }
        _ => false,
    }
}

/// The pinned version that is meant: the newest when none is asked for, `1.36` or `v1.36.4`
/// otherwise.
///
/// # Errors
/// [`Error::UnknownVersion`] with the list of those there are.
pub fn resolve(known: &[String], asked: Option<&str>) -> Result<String, Error> {
    let unknown = || Error::UnknownVersion {
        asked: asked.unwrap_or("(any)").to_owned(),
        known: known.to_vec(),
    };
    let wanted = asked.map(|asked| asked.strip_prefix('v').unwrap_or(asked));
    let fits = |version: &&String| {
        wanted.is_none_or(|wanted| {
            *version == wanted
                || version
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    known.iter().rfind(fits).cloned().ok_or_else(unknown)
}

/// The released version that is meant: any whole one that is not too old, or what [`resolve`] makes
/// of it, so that what is tested does not change with what is published meanwhile.
///
/// # Errors
/// [`Error::UnknownRelease`] for what is too old, no version, or a minor version whose newest patch
/// is not known here.
pub(super) fn of_release(known: &[String], asked: Option<&str>) -> Result<String, Error> {
    let Some(asked) = asked else {
        return resolve(known, None);
    };
    let refused = |reason: String| Error::UnknownRelease {
        asked: asked.to_owned(),
        reason,
    };
    let wanted = asked.strip_prefix('v').unwrap_or(asked);
    let (minor, whole) = match numbers(wanted).as_slice() {
        [1, minor] => (*minor, false),
        [1, minor, _] => (*minor, true),
        _ => return Err(refused("it is no version like 1.36.4".to_owned())),
    };
    if minor < OLDEST_MINOR {
        return Err(refused(format!(
            "1.{OLDEST_MINOR} is the oldest that runs here"
        )));
    }
    match whole {
        true => Ok(wanted.to_owned()),
        false => resolve(known, Some(wanted)).map_err(|_| {
            refused(format!(
                "which of its patches is meant is not pinned here: say it, like {wanted}.1"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known() -> Vec<String> {
        ["1.35.9", "1.35.10", "1.36.4"].map(str::to_owned).to_vec()
    }

    #[test]
    fn clusters_are_upgraded_to_a_newer_patch_or_to_the_next_minor_version() {
        assert!(can_be_upgraded("1.35.4", "1.36.0"));
        assert!(can_be_upgraded("1.35.4", "1.35.10"));
        for to in ["1.35.4", "1.35.3", "1.37.0", "1.34.9", "2.36.0", "next"] {
            assert!(!can_be_upgraded("1.35.4", to), "{to}");
        }
    }

    #[test]
    fn a_version_is_found_by_any_of_its_spellings() {
        let resolved = |asked| resolve(&known(), asked).unwrap();
        assert_eq!(resolved(None), "1.36.4");
        assert_eq!(resolved(Some("1.36")), "1.36.4");
        assert_eq!(resolved(Some("v1.36.4")), "1.36.4");
        assert_eq!(resolved(Some("1.35")), "1.35.10");
        for unknown in ["1.3", "1.37", "1.36.40", "", "latest"] {
            let error = resolve(&known(), Some(unknown)).unwrap_err().to_string();
            assert!(
                error.contains("there is: 1.35.9, 1.35.10, 1.36.4"),
                "{error}"
            );
        }
    }

    #[test]
    fn versions_are_the_folders_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.36.4", "1.35.10", "1.35.9", "notes", "1.36"] {
            fs::create_dir_all(dir.path().join("images/bundle").join(name)).unwrap();
        }
        assert_eq!(versions(dir.path()).unwrap(), known());
    }

    #[test]
    fn any_release_is_meant_by_its_whole_version() {
        let release = |asked| of_release(&known(), asked).map_err(|error| error.to_string());
        assert_eq!(release(None).unwrap(), "1.36.4");
        assert_eq!(release(Some("v1.34.7")).unwrap(), "1.34.7");
        assert_eq!(release(Some("1.35")).unwrap(), "1.35.10");
        insta::assert_snapshot!(release(Some("1.32.9")).unwrap_err(), @"no release of Kubernetes 1.32.9: 1.33 is the oldest that runs here");
        insta::assert_snapshot!(release(Some("1.37")).unwrap_err(), @"no release of Kubernetes 1.37: which of its patches is meant is not pinned here: say it, like 1.37.1");
        insta::assert_snapshot!(release(Some("stable")).unwrap_err(), @"no release of Kubernetes stable: it is no version like 1.36.4");
    }

    proptest! {
        #[test]
        fn resolving_never_gives_another_minor_version(minor in 0_u32..60, patch in 0_u32..20) {
            let asked = format!("1.{minor}.{patch}");
            match resolve(&known(), Some(&asked)) {
                Ok(version) => prop_assert_eq!(version, asked),
                Err(_) => prop_assert!(!known().contains(&asked)),
            }
        }
    }
}
