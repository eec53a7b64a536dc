use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// One program of a bundle that has a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component {
    /// Its path in a bundle: `bin/kubelet`, `cni/bridge`.
    pub(crate) path: &'static str,
    /// Whether a container image of it holds nothing else: then it must be linked statically.
    alone: bool,
}

const fn beside_others(path: &'static str) -> Component {
    Component { path, alone: false }
}

const fn alone(path: &'static str) -> Component {
    Component { path, alone: true }
}

/// What a cluster is made of.
pub(crate) const COMPONENTS: [Component; 17] = [
    alone("bin/coredns"),
    beside_others("bin/crictl"),
    alone("bin/etcd"),
    alone("bin/etcdctl"),
    alone("bin/etcdutl"),
    beside_others("bin/flanneld"),
    alone("bin/kube-apiserver"),
    alone("bin/kube-controller-manager"),
    beside_others("bin/kube-proxy"),
    alone("bin/kube-scheduler"),
    beside_others("bin/kubeadm"),
    beside_others("bin/kubectl"),
    beside_others("bin/kubelet"),
    beside_others("cni/bridge"),
    beside_others("cni/host-local"),
    beside_others("cni/loopback"),
    beside_others("cni/portmap"),
];

/// Why a file of the user's cannot be a part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct OwnFileError {
    /// The file or folder, as the user wrote it.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

impl OwnFileError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

impl Component {
    /// The component of a name: `kube-proxy`, `bin/kube-proxy`, `bridge` or `cni/bridge`.
    pub fn named(name: &str) -> Option<Self> {
        COMPONENTS
            .into_iter()
            .find(|it| it.path == name || it.file_name() == name)
    }

    /// All names there are, for messages.
    pub fn names() -> String {
        COMPONENTS.map(|it| it.to_string()).join(", ")
    }

    fn file_name(self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// Finds out whether a file can be this component on a node.
    ///
    /// # Errors
    /// [`OwnFileError`] when it is no executable file, for another machine, or needs libraries
    /// that are not there.
    pub(super) fn check(self, path: &Path) -> Result<(), OwnFileError> {
        let wrong = |reason: String| Err(OwnFileError::new(path, reason));
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return wrong("there is no such file".to_owned());
            }
            Err(error) => return wrong(format!("it cannot be looked at: {error}")),
        };
        if !metadata.is_file() {
            return wrong("it is no file".to_owned());
        }
        let head = match head(path) {
            Ok(head) => head,
            Err(error) => return wrong(format!("it cannot be read: {error}")),
        };
        if let Some(unfit) = not_for_nodes(&head) {
            return wrong(format!("it {unfit}"));
        }
        if metadata.permissions().mode() & 0o111 == 0 {
            return wrong("it is not executable: `chmod +x` it".to_owned());
        }
        if self.alone && is_dynamic(&head) {
            return wrong(format!(
                "it needs shared libraries, and {self}'s container image holds nothing else: \
                 build it with CGO_ENABLED=0"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.strip_prefix("bin/").unwrap_or(self.path))
    }
}

/// As much of a program as its program headers take.
pub(crate) fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

/// What is wrong with a program's first bytes (elf(5)), if anything.
pub(crate) fn not_for_nodes(head: &[u8]) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', class, data, ..] = head else {
        return Some("is no ELF program".to_owned());
    };
    let Some([low, high]) = head.get(18..20) else {
        return Some("is cut short".to_owned());
    };
    match (class, data, u16::from_le_bytes([*low, *high])) {
        (2, 1, 62) => None,
        (2, 1, 183) => Some("is a program for arm64, and nodes are x86-64".to_owned()),
        (_, _, machine) => Some(format!(
            "is a program for another machine (ELF class {class}, machine {machine}), and nodes are x86-64"
        )),
    }
}

/// Whether the kernel starts another program to load its libraries (elf(5), `PT_INTERP`).
fn is_dynamic(head: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize| {
        let bytes = head.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    };
    let (Some(first), Some(size), Some(count)) = (number(32), number(54), number(56)) else {
        return false;
    };
    (0..count).any(|index| {
        let kind = head.get(first + index * size..first + index * size + 4);
        kind == Some(&PT_INTERP.to_le_bytes())
    })
}
