//! Where things come from: `images/sources.toml`, and a file of the user's that replaces single
//! settings of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::address::{Address, hidden_lines};
use crate::bundle::BundleFrom;
use crate::files::read_text;
use crate::image::ImageFrom;

/// Something with an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKey {
    /// Kubernetes' own programs.
    Kubernetes,
    /// The CNI project's plugins.
    CniPlugins,
    /// crictl.
    Crictl,
    /// etcd.
    Etcd,
    /// The registry of the images that kubeadm names: no URL, but a host with a path or none.
    Images,
    /// Ubuntu's cloud images.
    Ubuntu,
    /// Ubuntu's packages.
    UbuntuArchive,
    /// Its security updates.
    UbuntuSecurity,
}

impl SourceKey {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Kubernetes,
        Self::CniPlugins,
        Self::Crictl,
        Self::Etcd,
        Self::Images,
        Self::Ubuntu,
        Self::UbuntuArchive,
        Self::UbuntuSecurity,
    ];
}

impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubernetes => "kubernetes",
            Self::CniPlugins => "cni-plugins",
            Self::Crictl => "crictl",
            Self::Etcd => "etcd",
            Self::Images => "images",
            Self::Ubuntu => "ubuntu",
            Self::UbuntuArchive => "ubuntu-archive",
            Self::UbuntuSecurity => "ubuntu-security",
        })
    }
}

/// Where things come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// What `--bundle-from` takes where it is not given.
    pub bundle_from: BundleFrom,
    /// What `--from` takes where it is not given.
    pub image_from: ImageFrom,
    addresses: BTreeMap<SourceKey, Address>,
    registry: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    sources: BTreeMap<SourceKey, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    #[serde(default, deserialize_with = "bundle_from")]
    bundle_from: Option<BundleFrom>,
    #[serde(default, deserialize_with = "image_from")]
    image_from: Option<ImageFrom>,
}

fn bundle_from<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<BundleFrom>, D::Error> {
    let text = String::deserialize(from)?;
    if text.contains("://") {
        let reason = "it is modules, release or a folder, and no address";
        return Err(serde::de::Error::custom(reason));
    }
    Ok(Some(BundleFrom::named(&text)))
}

fn image_from<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ImageFrom>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Sources {
    /// Reads the project's settings (`source` is its root) and those of the user that replace them.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not there, [`Error::Malformed`] for a key that does not
    /// exist (with its line) or an address that is none.
    pub fn read(source: &Path, config: Option<&Path>) -> Result<Self, Error> {
        let path = source.join("images/sources.toml");
        let own = Written::read(&path)?;
        let given = config.map(Written::read).transpose()?.unwrap_or_default();
        let missing = |what: &dyn fmt::Display| Error::Malformed {
            path: path.clone(),
            reason: format!("`{what}` is missing"),
        };
        let there =
            |key: &&SourceKey| own.sources.contains_key(key) || given.sources.contains_key(key);
        if let Some(key) = SourceKey::ALL.iter().find(|key| !there(key)) {
            return Err(missing(key));
        }
        let bundle_from = given
            .defaults
            .bundle_from
            .as_ref()
            .or(own.defaults.bundle_from.as_ref());
        let image_from = given.defaults.image_from.or(own.defaults.image_from);
        let mut sources = Self {
            image_from: image_from.ok_or_else(|| missing(&"image-from"))?,
            bundle_from: bundle_from.ok_or_else(|| missing(&"bundle-from"))?.clone(),
            addresses: BTreeMap::new(),
            registry: String::new(),
        };
        own.replace(&path, &mut sources)?;
        given.replace(config.unwrap_or(&path), &mut sources)?;
        Ok(sources)
    }

    /// The registry: a host, and a path on it if any.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The address of a source, of any but the registry.
    pub(crate) fn address(&self, key: SourceKey) -> &Address {
        // All are there: `read` has looked.
        &self.addresses[&key]
    }

    /// The address of what is at `path` below a source's.
    pub(crate) fn url(&self, key: SourceKey, path: &str) -> Address {
        self.address(key).below(path)
    }

    /// A source as it is told.
    pub fn shown(&self, key: SourceKey) -> String {
        match key {
            SourceKey::Images => self.registry.clone(),
            web => self.address(web).to_string(),
        }
    }
}

impl Written {
    fn read(path: &Path) -> Result<Self, Error> {
        let doing = "read the settings in";
        let text = read_text(path).map_err(Error::file(doing, path))?;
        // What is quoted may have a password in it.
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason: hidden_lines(&reason),
        };
        let mut written: Self = toml::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        // Whoever writes a file means what is beside it, wherever the command is run.
        if let (Some(BundleFrom::Directory(own)), Some(dir)) =
            (&mut written.defaults.bundle_from, path.parent())
        {
            *own = dir.join(&*own);
        }
        Ok(written)
    }

    /// Puts its sources, which stand in `path`, into the place of others.
    fn replace(&self, path: &Path, sources: &mut Sources) -> Result<(), Error> {
        for (key, text) in &self.sources {
            let malformed = |reason: String| Error::Malformed {
                path: path.to_owned(),
                reason: format!("{}: {reason}", hidden_lines(&format!("`{key} = {text:?}`"))),
            };
            match key {
                SourceKey::Images => {
                    let registry = registry(text).ok_or_else(|| malformed(NO_REGISTRY.into()))?;
                    sources.registry = registry;
                }
                web => {
                    let address = text.parse::<Address>();
                    let address = address.map_err(|error| malformed(error.to_string()))?;
                    sources.addresses.insert(*web, address);
                }
            }
        }
        Ok(())
    }
}

const NO_REGISTRY: &str = "it is no registry: a host, and a path on it if any, without https://";

fn registry(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let named = format!("{text}/name:tag");
    let reference = named.parse::<Reference>().ok()?;
    (reference.whole() == named).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn with(text: &str) -> Result<Sources, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        fs::write(&path, text).unwrap();
        Sources::read(root(), Some(&path)).map_err(|error| {
            let place = dir.path().display().to_string();
            error.to_string().replace(&place, "DIR")
        })
    }

    #[test]
    fn the_projects_own_file_has_every_key() {
        let sources = Sources::read(root(), None).unwrap();
        assert_eq!(sources.bundle_from, BundleFrom::Modules);
        assert_eq!(sources.image_from, ImageFrom::Debian);
        for key in SourceKey::ALL {
            assert!(!sources.shown(key).is_empty(), "{key}");
            let written = toml::Value::try_from(key).unwrap();
            assert_eq!(written.as_str(), Some(key.to_string().as_str()));
        }
    }

    #[test]
    fn a_file_of_the_users_replaces_single_keys() {
        let own = Sources::read(root(), None).unwrap();
        let sources = with(
            "[sources]\nkubernetes = 'http://mirror.example/k8s/'\nimages = 'mirror.example:5000/k8s'\n",
        )
        .unwrap();
        let url = sources.url(SourceKey::Kubernetes, "v1.36.4/bin");
        assert_eq!(url.to_string(), "http://mirror.example/k8s/v1.36.4/bin");
        assert_eq!(sources.shown(SourceKey::Images), "mirror.example:5000/k8s");
        assert_eq!(sources.shown(SourceKey::Etcd), own.shown(SourceKey::Etcd));
        assert_eq!(sources.bundle_from, BundleFrom::Modules);
        assert_eq!(
            with("[defaults]\nbundle-from = 'release'")
                .unwrap()
                .bundle_from,
            BundleFrom::Release
        );
        let from = |text| with(text).map(|sources| sources.image_from);
        assert_eq!(
            from("[defaults]\nimage-from = 'ubuntu:24.04'"),
            Ok(ImageFrom::Ubuntu2404)
        );
        let error = from("[defaults]\nimage-from = 'arch'").unwrap_err();
        assert!(error.contains("there are: debian, ubuntu:24.04"), "{error}");
        // A folder is one beside the file, whatever the working directory is.
        let beside = with("[defaults]\nbundle-from = 'out'").unwrap().bundle_from;
        assert!(
            matches!(&beside, BundleFrom::Directory(path) if path.is_absolute() && path.ends_with("out")),
            "{beside:?}"
        );
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_line() {
        let refused = |text| with(text).unwrap_err();
        insta::assert_snapshot!(refused("[sources]\netcd = 'https://a.example'\nkubernets = 'https://a.example'\n"), @r#"
        "DIR/mine.toml" is not understood: TOML parse error at line 3, column 1
          |
        3 | kubernets = 'https://a.example'
          | ^^^^^^^^^
        unknown variant `kubernets`, expected one of `kubernetes`, `cni-plugins`, `crictl`, `etcd`, `images`, `ubuntu`, `ubuntu-archive`, `ubuntu-security`
        "#);
        insta::assert_snapshot!(refused("\n[default]\n"), @r#"
        "DIR/mine.toml" is not understood: TOML parse error at line 2, column 2
          |
        2 | [default]
          |  ^^^^^^^
        unknown field `default`, expected `defaults` or `sources`
        "#);
        insta::assert_snapshot!(refused("[defaults]\nimage = 'x'\n"), @r#"
        "DIR/mine.toml" is not understood: TOML parse error at line 2, column 1
          |
        2 | image = 'x'
          | ^^^^^
        unknown field `image`, expected `bundle-from` or `image-from`
        "#);
        insta::assert_snapshot!(refused("[sources]\netcd = 'ftp://a.example'\n"), @r#""DIR/mine.toml" is not understood: `etcd = "ftp://a.example"`: it begins with neither https:// nor http://"#);
        insta::assert_snapshot!(refused("[sources]\netcd = 'a.example'\n"), @r#""DIR/mine.toml" is not understood: `etcd = "a.example"`: it is no URL: relative URL without a base"#);
        insta::assert_snapshot!(refused("[sources]\netcd = 'https://a.example/?x'\n"), @r#""DIR/mine.toml" is not understood: `etcd = "https://a.example/?x"`: paths are put behind it: it cannot end with ?... or #..."#);
        insta::assert_snapshot!(refused("[sources]\nimages = 'https://a.example'\n"), @r#""DIR/mine.toml" is not understood: `images = "https://a.example"`: it is no registry: a host, and a path on it if any, without https://"#);
        insta::assert_snapshot!(refused("[sources]\nubuntu-archive = \"http://a.example/ubuntu noble main\\ndeb [trusted=yes] http://evil.example\""), @r#""DIR/mine.toml" is not understood: `ubuntu-archive = "http://a.example/ubuntu noble main\ndeb [trusted=yes] http://evil.example"`: it has a blank, a line break or a bracket in it"#);
        let absent = Sources::read(root(), Some(Path::new("/none.toml"))).unwrap_err();
        insta::assert_snapshot!(absent, @r#"cannot read the settings in "/none.toml""#);
    }

    #[test]
    fn a_password_is_in_no_error() {
        for text in [
            "[sources]\netcd = 'ftp://u:s3cret@a.example'",
            "[sources]\netcd = 'https://u:s3cret@a.example/?x'",
            "[sources]\netcd = 'https://u:s3cret@:x'",
            "[sources]\nimages = 'u:s3cret@a.example'",
            "[sources]\nkubernets = 'https://u:s3cret@a.example'",
            "[sources]\netcd = 'https://u:s3cret@a.example",
            "sources = 'https://u:s3cret@a.example'",
            "[defaults]\nimage-from = 'https://u:s3cret@a.example'",
            "[defaults]\nbundle-from = 'https://u:s3cret@a.example'",
        ] {
            let refused = with(text).unwrap_err();
            assert!(
                !refused.contains("s3cret") && refused.contains("***@"),
                "{refused}"
            );
        }
        let sources = with("[sources]\netcd = 'https://u:s3cret@a.example'").unwrap();
        assert!(!format!("{sources:?}").contains("s3cret"));
        assert_eq!(sources.shown(SourceKey::Etcd), "https://***@a.example");
    }
}
