use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use podwire_process::{ChildCommand, run};

use super::deb::Package;
use crate::bundle::Bundle;
use crate::oci::{NET_BIND_SERVICE, OciFile, OciImage, Program};
use crate::{Error, Workshop};

/// The registry whose names kubeadm's images have.
const REGISTRY: &str = "registry.k8s.io";

/// The sandbox image by kubeadm's name; its program is ours and has no version of its own.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// etcd's image has a revision of its own behind etcd's version.
const ETCD_REVISION: &str = "0";

const KUBELET_SERVICE: &str = include_str!("../../recipes/kubelet.service");
const KUBEADM_DROP_IN: &str = include_str!("../../recipes/10-kubeadm.conf");

/// How long kubeadm may take to list its images.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// What a node's image gets of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Container images, imported into containerd.
    pub images: Vec<OciImage>,
    /// Packages, installed and held.
    pub packages: Vec<Package>,
    /// Programs that no package has: what each is, and its path without the leading slash.
    pub programs: Vec<(Program, String)>,
}

fn bundled(path: &str) -> Program {
    Program::Bundle(path.to_owned())
}

impl Contents {
    /// What is made of a bundle.
    ///
    /// # Errors
    /// [`Error::UnfitBundle`] when a module that a version is taken from is not in it.
    pub(super) fn of(bundle: &Bundle) -> Result<Self, Error> {
        let programs = [
            "etcd",
            "etcdctl",
            "etcdutl",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
        ];
        let programs = programs.map(|name| {
            (
                bundled(&format!("bin/{name}")),
                format!("usr/local/bin/{name}"),
            )
        });
        let versions = Versions::of(bundle)?;
        Ok(Self {
            images: images(&versions),
            packages: packages(&versions),
            programs: programs.to_vec(),
        })
    }

    /// The images' names.
    pub(super) fn references(&self) -> Vec<String> {
        self.images
            .iter()
            .map(|image| image.reference.clone())
            .collect()
    }

    /// Every program of the bundle that is used, by its path there; some more than once.
    fn used(&self) -> impl Iterator<Item = &str> {
        let of_images = self.images.iter().flat_map(|image| &image.files);
        let of_packages = self.packages.iter().flat_map(|package| &package.programs);
        of_images
            .map(|file| &file.program)
            .chain(
                of_packages
                    .chain(&self.programs)
                    .map(|(program, _)| program),
            )
            .filter_map(|program| match program {
                Program::Bundle(path) => Some(path.as_str()),
                Program::Probe => None,
            })
    }
}

/// Versions as the names of images and packages have them: without `v`.
struct Versions<'a> {
    kubernetes: &'a str,
    etcd: &'a str,
    coredns: &'a str,
    flannel: &'a str,
    cni: &'a str,
    crictl: &'a str,
}

impl<'a> Versions<'a> {
    fn of(bundle: &'a Bundle) -> Result<Self, Error> {
        let module = |name: &str| {
            let version = bundle.manifest.modules.get(name);
            let version = version.and_then(|version| version.strip_prefix('v'));
            version.ok_or_else(|| unfit(bundle, format!("nothing of it comes from {name}")))
        };
        Ok(Self {
            kubernetes: &bundle.manifest.kubernetes,
            etcd: module("go.etcd.io/etcd/server/v3")?,
            coredns: module("github.com/coredns/coredns")?,
            flannel: module("github.com/flannel-io/flannel")?,
            cni: module("github.com/containernetworking/plugins")?,
            crictl: module("sigs.k8s.io/cri-tools")?,
        })
    }
}

fn unfit(bundle: &Bundle, reason: String) -> Error {
    Error::UnfitBundle {
        dir: bundle.dir.clone(),
        version: bundle.manifest.kubernetes.clone(),
        reason,
    }
}

fn images(versions: &Versions<'_>) -> Vec<OciImage> {
    let file = |path, program| OciFile {
        path,
        program,
        capability: None,
    };
    let image = |reference, files: Vec<OciFile>| OciImage {
        reference,
        entrypoint: files.iter().take(1).map(|file| file.path).collect(),
        files,
        debian: false,
        user: None,
    };
    let probe = |reference, args: &[&'static str]| {
        let mut image = image(reference, vec![file("/probe", Program::Probe)]);
        image.entrypoint.extend(args);
        image
    };
    let kubernetes = |name: &str| format!("{REGISTRY}/{name}:v{}", versions.kubernetes);
    let server = |name: &str, path| {
        let program = bundled(&format!("bin/{name}"));
        image(kubernetes(name), vec![file(path, program)])
    };
    let dns = OciImage {
        files: vec![OciFile {
            path: "/coredns",
            program: bundled("bin/coredns"),
            // The Pod allows it, but only a file's capability reaches a user who is not root.
            capability: Some(NET_BIND_SERVICE),
        }],
        entrypoint: vec!["/coredns"],
        user: Some("65532:65532"),
        ..image(
            format!("{REGISTRY}/coredns/coredns:v{}", versions.coredns),
            Vec::new(),
        )
    };
    let etcd = ["etcd", "etcdctl", "etcdutl"].map(|name| bundled(&format!("bin/{name}")));
    let paths = [
        "/usr/local/bin/etcd",
        "/usr/local/bin/etcdctl",
        "/usr/local/bin/etcdutl",
    ];
    let etcd_files = paths
        .into_iter()
        .zip(etcd)
        .map(|(path, from)| file(path, from));
    vec![
        server("kube-apiserver", "/usr/local/bin/kube-apiserver"),
        server(
            "kube-controller-manager",
            "/usr/local/bin/kube-controller-manager",
        ),
        server("kube-scheduler", "/usr/local/bin/kube-scheduler"),
        OciImage {
            debian: true,
            ..server("kube-proxy", "/usr/local/bin/kube-proxy")
        },
        dns,
        probe(PAUSE.to_owned(), &["pause"]),
        image(
            format!("{REGISTRY}/etcd:{}-{ETCD_REVISION}", versions.etcd),
            etcd_files.collect(),
        ),
        probe(
            "podwire.invalid/probe:1".to_owned(),
            &["serve", "--port", "80"],
        ),
        OciImage {
            debian: true,
            ..image(
                format!("podwire.invalid/flannel:{}", versions.flannel),
                vec![file("/usr/local/bin/flanneld", bundled("bin/flanneld"))],
            )
        },
    ]
}

/// The packages that Kubernetes itself publishes, with the dependencies that those have. Theirs of
/// the kubelet also names ebtables, which Debian has as a part of iptables.
fn packages(versions: &Versions<'_>) -> Vec<Package> {
    let package = |name: &'static str, version: &str, about| Package {
        name,
        version: format!("{version}-1.1"),
        depends: &[],
        about,
        programs: vec![(bundled(&format!("bin/{name}")), format!("usr/bin/{name}"))],
        texts: Vec::new(),
    };
    let plugins = ["bridge", "host-local", "loopback", "portmap"];
    let plugin = |name| {
        (
            bundled(&format!("cni/{name}")),
            format!("opt/cni/bin/{name}"),
        )
    };
    vec![
        Package {
            programs: vec![(bundled("bin/crictl"), "usr/bin/crictl".to_owned())],
            ..package(
                "cri-tools",
                versions.crictl,
                "Command-line utility for interacting with a container runtime",
            )
        },
        Package {
            depends: &["cri-tools (>= 1.30.0)"],
            texts: vec![(
                "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
                KUBEADM_DROP_IN,
            )],
            ..package(
                "kubeadm",
                versions.kubernetes,
                "Command-line utility for administering a Kubernetes cluster",
            )
        },
        package(
            "kubectl",
            versions.kubernetes,
            "Command-line utility for interacting with a Kubernetes cluster",
        ),
        Package {
            depends: &[
                "conntrack",
                "ethtool",
                "iproute2",
                "iptables (>= 1.4.21)",
                "kubernetes-cni (>= 1.2.0)",
                "mount",
                "socat",
                "util-linux",
            ],
            texts: vec![("usr/lib/systemd/system/kubelet.service", KUBELET_SERVICE)],
            ..package(
                "kubelet",
                versions.kubernetes,
                "Node agent for Kubernetes clusters",
            )
        },
        Package {
            programs: plugins.map(plugin).to_vec(),
            ..package(
                "kubernetes-cni",
                versions.cni,
                "Binaries required to provision container networking",
            )
        },
    ]
}

/// Finds out whether a node can be made of a bundle, before anything is built from it.
///
/// # Errors
/// [`Error::UnfitBundle`] with the name of a program that is missing or that is not for x86-64, or
/// with the images that the bundle's kubeadm wants and the bundle does not give.
pub(super) fn check(
    workshop: &Workshop<'_>,
    bundle: &Bundle,
    contents: &Contents,
) -> Result<(), Error> {
    for path in contents.used() {
        let program = bundle.dir.join(path);
        let head = File::open(&program).and_then(|file| {
            let mut head = Vec::new();
            file.take(20).read_to_end(&mut head)?;
            Ok(head)
        });
        let wrong = match head {
            Ok(head) => not_for_nodes(&head),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".to_owned()),
            Err(error) => return Err(Error::file("read", program)(error)),
        };
        if let Some(wrong) = wrong {
            return Err(unfit(bundle, format!("{path} {wrong}")));
        }
    }
    let wanted = wanted(workshop, &bundle.dir, &bundle.manifest.kubernetes)?;
    compare(&wanted, &contents.references()).map_err(|reason| unfit(bundle, reason))
}

/// What is wrong with a program's first 20 bytes (elf(5)), if anything.
fn not_for_nodes(head: &[u8]) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', class, data, ..] = head else {
        return Some("is no ELF program".to_owned());
    };
    let [.., low, high] = head else { return None };
    let machine = u16::from_le_bytes([*low, *high]);
    match (head.len(), class, data, machine) {
        (20, 2, 1, 62) => None,
        (20, 2, 1, 183) => Some("is a program for arm64, and nodes are x86-64".to_owned()),
        (20, _, _, _) => Some(format!(
            "is a program for another machine (ELF class {class}, machine {machine}), and nodes are x86-64"
        )),
        _ => Some("is cut short".to_owned()),
    }
}

/// The images that kubeadm wants.
fn wanted(workshop: &Workshop<'_>, bundle: &Path, version: &str) -> Result<Vec<String>, Error> {
    // A version that is given is not asked for on the network.
    let command = ChildCommand::new(bundle.join("bin/kubeadm")).args([
        "config",
        "images",
        "list",
        "--kubernetes-version",
        &format!("v{version}"),
    ]);
    let shown = command.display();
    let listed = run(workshop.spawner, command, LIST_LIMIT)?.success(&shown)?;
    Ok(listed.stdout.lines().map(str::to_owned).collect())
}

fn compare(wanted: &[String], made: &[String]) -> Result<(), String> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|reference| !made.contains(reference))
        .map(String::as_str)
        .collect();
    if wanted.is_empty() {
        return Err("its kubeadm lists no images".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "its kubeadm wants the images {}, and those that are made of it are {}",
        missing.join(", "),
        made.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::bundle::BundleManifest;
    use crate::cache::tests_support::Silent;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn bundle(dir: &Path) -> Bundle {
        let modules = [
            ("github.com/containernetworking/plugins", "v1.9.1"),
            ("github.com/coredns/coredns", "v1.14.2"),
            ("github.com/flannel-io/flannel", "v0.28.9"),
            ("go.etcd.io/etcd/server/v3", "v3.6.8"),
            ("sigs.k8s.io/cri-tools", "v1.36.0"),
        ];
        Bundle {
            name: "b".to_owned(),
            dir: dir.to_owned(),
            manifest: BundleManifest {
                kubernetes: "1.36.4".to_owned(),
                go: "1.26.8".to_owned(),
                modules: modules.map(|(m, v)| (m.to_owned(), v.to_owned())).into(),
                files: std::collections::BTreeMap::new(),
            },
        }
    }

    const AMD64: [u8; 20] = [
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0,
    ];

    /// What a kubeadm of Kubernetes 1.36.4 prints.
    const LIST: &str = "registry.k8s.io/kube-apiserver:v1.36.4
registry.k8s.io/kube-controller-manager:v1.36.4
registry.k8s.io/kube-scheduler:v1.36.4
registry.k8s.io/kube-proxy:v1.36.4
registry.k8s.io/coredns/coredns:v1.14.2
registry.k8s.io/pause:3.10.2
registry.k8s.io/etcd:3.6.8-0
";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_images_have_kubeadms_names_and_their_programs_where_its_manifests_call_them() {
        let contents = Contents::of(&bundle(Path::new("/b"))).unwrap();
        let shown: Vec<String> = contents
            .images
            .iter()
            .map(|image| {
                let files: Vec<&str> = image.files.iter().map(|file| file.path).collect();
                format!(
                    "{} {:?}{}{}\n  {}",
                    image.reference,
                    image.entrypoint,
                    if image.debian { " on Debian" } else { "" },
                    image
                        .user
                        .map(|user| format!(" as {user}"))
                        .unwrap_or_default(),
                    files.join(" ")
                )
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        registry.k8s.io/kube-apiserver:v1.36.4 ["/usr/local/bin/kube-apiserver"]
          /usr/local/bin/kube-apiserver
        registry.k8s.io/kube-controller-manager:v1.36.4 ["/usr/local/bin/kube-controller-manager"]
          /usr/local/bin/kube-controller-manager
        registry.k8s.io/kube-scheduler:v1.36.4 ["/usr/local/bin/kube-scheduler"]
          /usr/local/bin/kube-scheduler
        registry.k8s.io/kube-proxy:v1.36.4 ["/usr/local/bin/kube-proxy"] on Debian
          /usr/local/bin/kube-proxy
        registry.k8s.io/coredns/coredns:v1.14.2 ["/coredns"] as 65532:65532
          /coredns
        registry.k8s.io/pause:3.10.2 ["/probe", "pause"]
          /probe
        registry.k8s.io/etcd:3.6.8-0 ["/usr/local/bin/etcd"]
          /usr/local/bin/etcd /usr/local/bin/etcdctl /usr/local/bin/etcdutl
        podwire.invalid/probe:1 ["/probe", "serve", "--port", "80"]
          /probe
        podwire.invalid/flannel:0.28.9 ["/usr/local/bin/flanneld"] on Debian
          /usr/local/bin/flanneld
        "#);
        compare(&lines(LIST), &contents.references()).unwrap();
    }

    #[test]
    fn only_a_user_who_is_not_root_needs_a_capability_in_the_file() {
        for image in Contents::of(&bundle(Path::new("/b"))).unwrap().images {
            let has = image.files.iter().any(|file| file.capability.is_some());
            assert_eq!(has, image.user.is_some(), "{}", image.reference);
        }
    }

    #[test]
    fn the_packages_are_those_of_kubernetes() {
        let contents = Contents::of(&bundle(Path::new("/b"))).unwrap();
        let shown: Vec<String> = contents
            .packages
            .iter()
            .map(|package| {
                let programs = package.programs.iter().map(|(_, to)| to.as_str());
                let texts = package.texts.iter().map(|(to, _)| *to);
                let files: Vec<&str> = programs.chain(texts).collect();
                format!("{}  {}\n", package.control(), files.join("\n  "))
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        Package: cri-tools
        Version: 1.36.0-1.1
        Architecture: amd64
        Maintainer: podwire <podwire@podwire.invalid>
        Section: admin
        Priority: optional
        Description: Command-line utility for interacting with a container runtime
          usr/bin/crictl

        Package: kubeadm
        Version: 1.36.4-1.1
        Architecture: amd64
        Maintainer: podwire <podwire@podwire.invalid>
        Section: admin
        Priority: optional
        Depends: cri-tools (>= 1.30.0)
        Description: Command-line utility for administering a Kubernetes cluster
          usr/bin/kubeadm
          usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf

        Package: kubectl
        Version: 1.36.4-1.1
        Architecture: amd64
        Maintainer: podwire <podwire@podwire.invalid>
        Section: admin
        Priority: optional
        Description: Command-line utility for interacting with a Kubernetes cluster
          usr/bin/kubectl

        Package: kubelet
        Version: 1.36.4-1.1
        Architecture: amd64
        Maintainer: podwire <podwire@podwire.invalid>
        Section: admin
        Priority: optional
        Depends: conntrack, ethtool, iproute2, iptables (>= 1.4.21), kubernetes-cni (>= 1.2.0), mount, socat, util-linux
        Description: Node agent for Kubernetes clusters
          usr/bin/kubelet
          usr/lib/systemd/system/kubelet.service

        Package: kubernetes-cni
        Version: 1.9.1-1.1
        Architecture: amd64
        Maintainer: podwire <podwire@podwire.invalid>
        Section: admin
        Priority: optional
        Description: Binaries required to provision container networking
          opt/cni/bin/bridge
          opt/cni/bin/host-local
          opt/cni/bin/loopback
          opt/cni/bin/portmap
        ");
        // dpkg gives a file to one package only, and customise.sh compares names in this order.
        assert!(contents.packages.is_sorted_by_key(|package| package.name));
    }

    #[test]
    fn the_kubelets_packages_depend_only_on_what_a_node_has() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let lock = crate::image::Recipe::path(source, crate::image::NODE, "lock");
        let lock = crate::image::Lock::read(&lock).unwrap();
        let contents = Contents::of(&bundle(Path::new("/b"))).unwrap();
        let made: Vec<&str> = contents.packages.iter().map(|p| p.name).collect();
        for depends in contents.packages.iter().flat_map(|p| p.depends) {
            let name = depends.split(' ').next().unwrap();
            assert!(lock.0.contains_key(name) || made.contains(&name), "{name}");
        }
    }

    #[test]
    fn an_image_that_is_not_made_is_named() {
        let made = lines("registry.k8s.io/etcd:3.6.8-0\nregistry.k8s.io/pause:3.10.2");
        let refused = |wanted: &str| compare(&lines(wanted), &made).unwrap_err();
        insta::assert_snapshot!(refused("registry.k8s.io/pause:3.10.2\nregistry.k8s.io/etcd:3.6.9-0"), @"its kubeadm wants the images registry.k8s.io/etcd:3.6.9-0, and those that are made of it are registry.k8s.io/etcd:3.6.8-0, registry.k8s.io/pause:3.10.2");
        insta::assert_snapshot!(refused(""), @"its kubeadm lists no images");
    }

    #[test]
    fn a_program_for_another_machine_is_told() {
        let with = |at: usize, byte| {
            let mut head = AMD64;
            head[at] = byte;
            not_for_nodes(&head).unwrap()
        };
        assert_eq!(not_for_nodes(&AMD64), None);
        insta::assert_snapshot!(with(18, 183), @"is a program for arm64, and nodes are x86-64");
        insta::assert_snapshot!(with(18, 243), @"is a program for another machine (ELF class 2, machine 243), and nodes are x86-64");
        insta::assert_snapshot!(with(4, 1), @"is a program for another machine (ELF class 1, machine 62), and nodes are x86-64");
        insta::assert_snapshot!(not_for_nodes(&AMD64[..19]).unwrap(), @"is cut short");
        insta::assert_snapshot!(not_for_nodes(b"#!/bin/sh\n").unwrap(), @"is no ELF program");
        insta::assert_snapshot!(not_for_nodes(b"").unwrap(), @"is no ELF program");
    }

    /// A bundle folder whose programs are only heads, and whose kubeadm is a script.
    struct Folder {
        dir: tempfile::TempDir,
        cache: Cache,
        spawner: podwire_process::Spawner,
    }

    impl Folder {
        fn new(kubeadm: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let contents = Contents::of(&bundle(dir.path())).unwrap();
            for path in contents.used() {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, AMD64).unwrap();
            }
            let folder = Self {
                cache: Cache::at(&dir.path().join("cache")).unwrap(),
                spawner: podwire_process::Spawner::start().unwrap(),
                dir,
            };
            let path = folder.dir.path().join("bin/kubeadm");
            fs::write(&path, format!("#!/bin/sh\n{kubeadm}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            folder
        }

        fn workshop(&self) -> Workshop<'_> {
            Workshop {
                cache: &self.cache,
                spawner: &self.spawner,
                report: &Silent,
                source: self.dir.path(),
            }
        }
    }

    #[test]
    fn a_bundle_with_a_missing_or_foreign_program_is_refused_by_the_programs_name() {
        let folder = Folder::new("");
        let bundle = bundle(folder.dir.path());
        let contents = Contents::of(&bundle).unwrap();
        let refused = || {
            let error = check(&folder.workshop(), &bundle, &contents).unwrap_err();
            error
                .to_string()
                .replace(&folder.dir.path().display().to_string(), "DIR")
        };
        let plugin = folder.dir.path().join("cni/bridge");
        let mut head = AMD64;
        head[18] = 183;
        fs::write(folder.dir.path().join("bin/kubeadm"), AMD64).unwrap();
        fs::write(&plugin, head).unwrap();
        insta::assert_snapshot!(refused(), @r#"no node can be made of the bundle "DIR": cni/bridge is a program for arm64, and nodes are x86-64; what it holds comes from images/bundle/1.36.4/*/go.mod"#);
        fs::remove_file(&plugin).unwrap();
        insta::assert_snapshot!(refused(), @r#"no node can be made of the bundle "DIR": cni/bridge is missing; what it holds comes from images/bundle/1.36.4/*/go.mod"#);
    }

    #[test]
    fn kubeadm_is_asked_for_the_images_of_the_version() {
        let folder = Folder::new(&format!("echo \"$@\" >&2; cat <<END\n{LIST}END"));
        let version = "1.36.4";
        assert_eq!(
            wanted(&folder.workshop(), folder.dir.path(), version).unwrap(),
            lines(LIST)
        );
        let failing = Folder::new("echo \"no: $@\" >&2; exit 1");
        let error = wanted(&failing.workshop(), failing.dir.path(), version).unwrap_err();
        let error = error.to_string();
        let said = "no: config images list --kubernetes-version v1.36.4";
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn a_bundle_without_a_module_that_gives_a_tag_is_refused() {
        let mut bundle = bundle(Path::new("/b"));
        bundle.manifest.modules.remove("github.com/coredns/coredns");
        insta::assert_snapshot!(Contents::of(&bundle).unwrap_err(), @r#"no node can be made of the bundle "/b": nothing of it comes from github.com/coredns/coredns; what it holds comes from images/bundle/1.36.4/*/go.mod"#);
    }
}
