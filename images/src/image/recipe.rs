use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// The small image: for the harness's own tests and for judging accelerators.
pub const BASE: &str = "base";

/// The image of a Kubernetes node.
pub const NODE: &str = "node";

/// Stands in a recipe's files for the name of the image that containerd runs for each Pod: that of
/// the bundle.
pub(super) const SANDBOX_IMAGE: &str = "@SANDBOX_IMAGE@";

/// A file that an image gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Absolute path in the guest, below /etc, /usr, /opt, /root or /var.
    pub path: String,
    /// Its text; a line break right after the opening quotes is not part of it.
    pub text: String,
}

/// What an image is made of: `images/recipes/NAME.toml`, with what it extends merged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// The suite of its packages.
    pub suite: String,
    /// Debian's suite: also of an image of another system, whose kube-proxy has Debian's tools.
    pub debian_suite: String,
    /// The device with the root file system, as the kernel names it.
    pub root: String,
    /// Size of the root file system, which is all of the disk; of a cloud image, what its file system
    /// gets more.
    pub disk_mib: u64,
    /// What the kernel is started with, beside the root device.
    pub kernel_command_line: String,
    /// Packages asked for; what they depend on comes too, what they recommend does not.
    pub packages: Vec<String>,
    /// Kernel modules that the initrd loads.
    pub initrd_modules: Vec<String>,
    /// systemd units to enable.
    pub enable: Vec<String>,
    /// systemd units to disable.
    pub disable: Vec<String>,
    /// systemd units to mask.
    pub mask: Vec<String>,
    /// Packages to remove.
    pub purge: Vec<String>,
    /// Files that must be there before the first package is installed.
    pub before: Vec<RecipeFile>,
    /// Files added after the last one.
    pub files: Vec<RecipeFile>,
    /// Whether the bundle and the OCI images go in.
    pub with_bundle: bool,
    /// The texts that it was read from, for the digest of the image's inputs.
    pub texts: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    extends: Option<String>,
    suite: Option<String>,
    disk_mib: Option<u64>,
    kernel_command_line: Option<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    initrd_modules: Vec<String>,
    #[serde(default)]
    enable: Vec<String>,
    #[serde(default)]
    disable: Vec<String>,
    #[serde(default)]
    mask: Vec<String>,
    #[serde(default)]
    before: Vec<RecipeFile>,
    #[serde(default)]
    files: Vec<RecipeFile>,
    #[serde(default)]
    with_bundle: bool,
}

impl Recipe {
    /// Where a recipe's own file is; its lock is beside it.
    pub fn path(source: &Path, name: &str, extension: &str) -> PathBuf {
        source
            .join("images/recipes")
            .join(format!("{name}.{extension}"))
    }

    /// Reads a recipe and what it extends.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Malformed`] with the place of the mistake.
    pub fn read(source: &Path, name: &str) -> Result<Self, Error> {
        let path = Self::path(source, name, "toml");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let malformed = |reason: String| Error::Malformed {
            path: path.clone(),
            reason,
        };
        let written: Written = toml::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        let missing = |what: &str| malformed(format!("{what} is missing"));
        let extended = match &written.extends {
            Some(base) if base == name => return Err(malformed("it extends itself".to_owned())),
            Some(base) => Some(Self::read(source, base)?),
            None => None,
        };
        let recipe = match extended {
            Some(base) => Self {
                name: name.to_owned(),
                suite: written.suite.clone().unwrap_or(base.suite),
                debian_suite: written.suite.unwrap_or(base.debian_suite),
                root: base.root,
                disk_mib: written.disk_mib.unwrap_or(base.disk_mib),
                kernel_command_line: written
                    .kernel_command_line
                    .unwrap_or(base.kernel_command_line),
                packages: joined(base.packages, written.packages),
                initrd_modules: joined(base.initrd_modules, written.initrd_modules),
                enable: joined(base.enable, written.enable),
                disable: joined(base.disable, written.disable),
                mask: joined(base.mask, written.mask),
                purge: base.purge,
                before: joined(base.before, written.before),
                files: joined(base.files, written.files),
                with_bundle: written.with_bundle || base.with_bundle,
                texts: joined(base.texts, vec![text]),
            },
            None => Self {
                name: name.to_owned(),
                suite: written.suite.clone().ok_or_else(|| missing("suite"))?,
                debian_suite: written.suite.ok_or_else(|| missing("suite"))?,
                root: "/dev/vda".to_owned(),
                disk_mib: written.disk_mib.ok_or_else(|| missing("disk_mib"))?,
                kernel_command_line: written
                    .kernel_command_line
                    .ok_or_else(|| missing("kernel_command_line"))?,
                packages: written.packages,
                initrd_modules: written.initrd_modules,
                enable: written.enable,
                disable: written.disable,
                mask: written.mask,
                purge: Vec::new(),
                before: written.before,
                files: written.files,
                with_bundle: written.with_bundle,
                texts: vec![text],
            },
        };
        recipe.check().map_err(malformed)?;
        Ok(recipe)
    }

    /// Finds what would reach a wrong place, or a shell as more than a word.
    pub(super) fn check(&self) -> Result<(), String> {
        for file in self.before.iter().chain(&self.files) {
            if !is_good_path(&file.path) {
                return Err(format!(
                    "{:?} is no absolute path below /etc, /usr, /opt, /root or /var",
                    file.path
                ));
            }
        }
        for word in self.shell_words() {
            if !is_good_word(word) {
                return Err(format!("{word:?} is no name of a package, unit or module"));
            }
        }
        Ok(())
    }

    /// Everything that reaches a shell script unquoted.
    fn shell_words(&self) -> impl Iterator<Item = &String> {
        [
            &self.packages,
            &self.initrd_modules,
            &self.enable,
            &self.disable,
            &self.mask,
            &self.purge,
        ]
        .into_iter()
        .flatten()
    }
}

fn joined<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
    first.extend(second);
    first
}

/// Top-level folders that are no links in a merged-/usr system.
fn is_good_path(path: &str) -> bool {
    ["/etc/", "/usr/", "/opt/", "/root/", "/var/"]
        .iter()
        .any(|dir| path.starts_with(dir))
        && path
            .split('/')
            .skip(1)
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_good_word(word: &str) -> bool {
    !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "@._+:-".contains(c))
        && !word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn write(name_and_text: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("images/recipes")).unwrap();
        for (name, text) in name_and_text {
            fs::write(Recipe::path(dir.path(), name, "toml"), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_node_is_the_base_image_and_more() {
        let base = Recipe::read(source(), BASE).unwrap();
        let node = Recipe::read(source(), NODE).unwrap();
        assert!(!base.with_bundle && node.with_bundle);
        assert!(node.packages.starts_with(&base.packages));
        assert!(node.files.starts_with(&base.files));
        assert_eq!(node.kernel_command_line, base.kernel_command_line);
        assert_eq!(node.texts.len(), 2);
    }

    #[test]
    fn containerd_and_the_oci_images_agree_on_names_and_folders() {
        let node = Recipe::read(source(), NODE).unwrap();
        let file = |path: &str| {
            &node
                .files
                .iter()
                .find(|file| file.path == path)
                .unwrap()
                .text
        };
        let containerd = file("/etc/containerd/config.toml");
        assert!(containerd.contains(&format!("sandbox_image = \"{SANDBOX_IMAGE}\"")));
        assert!(containerd.contains("bin_dir = \"/opt/cni/bin\""));
        assert!(containerd.contains("SystemdCgroup = true"));
        // Emulated, nothing but the runtime is another.
        let emulated = file("/etc/containerd/emulated.toml");
        let crun = "BinaryName = \"/usr/bin/crun\"\n";
        assert!(emulated.contains(crun));
        assert_eq!(&emulated.replace(crun, ""), containerd);
        assert!(node.packages.iter().any(|package| package == "crun"));
        assert!(
            !node
                .packages
                .iter()
                .any(|package| package == "containernetworking-plugins")
        );
        assert!(node.disable.iter().any(|unit| unit == "containerd.service"));
    }

    #[test]
    fn a_recipe_with_a_mistake_is_refused_by_name() {
        let head = "suite='x'\ndisk_mib=1\nkernel_command_line=''\n";
        let refused = |text: &str| {
            let dir = write(&[("r", &format!("{head}{text}"))]);
            let error = Recipe::read(dir.path(), "r").unwrap_err().to_string();
            error.split_once("understood: ").unwrap().1.to_owned()
        };
        insta::assert_snapshot!(refused("[[files]]\npath='/bin/x'\ntext=''"), @r#""/bin/x" is no absolute path below /etc, /usr, /opt, /root or /var"#);
        insta::assert_snapshot!(refused("[[files]]\npath='/etc/../x'\ntext=''"), @r#""/etc/../x" is no absolute path below /etc, /usr, /opt, /root or /var"#);
        insta::assert_snapshot!(refused("mask=['a; b']"), @r#""a; b" is no name of a package, unit or module"#);
        insta::assert_snapshot!(refused("extends='r'"), @"it extends itself");
        assert!(refused("masks=['a']").contains("unknown field `masks`"));
        let dir = write(&[("r", "suite='x'")]);
        let error = Recipe::read(dir.path(), "r").unwrap_err().to_string();
        assert!(error.ends_with("disk_mib is missing"), "{error}");
    }
}
