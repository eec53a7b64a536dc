use std::io;

use super::deb::Package;
use crate::Error;
use crate::bundle::{Bundle, not_for_nodes, program_head};
use crate::oci::{NET_BIND_SERVICE, OciFile, OciImage, Program};

const KUBELET_SERVICE: &str = include_str!("../../recipes/kubelet.service");
const KUBEADM_DROP_IN: &str = include_str!("../../recipes/10-kubeadm.conf");

/// What a node's image gets of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Container images that are made of programs, imported into containerd.
    pub images: Vec<OciImage>,
    /// Those that the bundle has as they were published, imported too.
    pub published: Vec<Published>,
    /// The image that containerd runs for each Pod, by its name.
    pub sandbox: String,
    /// Packages, installed and held.
    pub packages: Vec<Package>,
    /// Programs that no package has: what each is, and its path without the leading slash.
    pub programs: Vec<(Program, String)>,
}

/// What a node's image gets for an upgrade, beside the contents that its clusters begin with: what apt and a
/// registry would give to nodes that reach any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// Container images that are made of programs, imported into containerd.
    pub images: Vec<OciImage>,
    /// Those that the newer bundle has as they were published, imported too.
    pub published: Vec<Published>,
    /// Packages, there as files.
    pub packages: Vec<Package>,
}

/// The packages that an upgrade installs.
const UPGRADED: [&str; 3] = ["kubeadm", "kubectl", "kubelet"];

impl Upgrade {
    /// What is made of the newer bundle, without what is in the image anyway.
    ///
    /// # Errors
    /// As [`Contents::of`], of the newer bundle.
    pub(super) fn of(newer: &Bundle, first: &Contents) -> Result<Self, Error> {
        let Contents {
            mut images,
            mut published,
            mut packages,
            ..
        } = Contents::of(newer)?;
        let had = first.references();
        images.retain(|image| !had.contains(&image.reference));
        published.retain(|image| !had.contains(&image.reference));
        packages.retain(|package| UPGRADED.contains(&package.name));
        let files = images.iter_mut().flat_map(|image| &mut image.files);
        let of_images = files.map(|file| &mut file.program);
        let of_packages = packages.iter_mut().flat_map(|it| &mut it.programs);
        for program in of_images.chain(of_packages.map(|(program, _)| program)) {
            if let Program::Bundle(path) = program {
                *program = Program::Newer(std::mem::take(path));
            }
        }
        Ok(Self {
            images,
            published,
            packages,
        })
    }

    /// The images' names.
    pub(super) fn references(&self) -> Vec<String> {
        references(&self.images, &self.published)
    }
}

fn references(images: &[OciImage], published: &[Published]) -> Vec<String> {
    let made = images.iter().map(|image| &image.reference);
    let published = published.iter().map(|image| &image.reference);
    made.chain(published).cloned().collect()
}

/// An image of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Its name.
    pub reference: String,
    /// Its archive: path in the bundle.
    pub archive: String,
}

fn bundled(path: &str) -> Program {
    Program::Bundle(path.to_owned())
}

impl Contents {
    /// What is made of a bundle.
    ///
    /// # Errors
    /// [`Error::UnfitBundle`] when a version is not in it, or its kubeadm wants an image that nothing
    /// here makes.
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
        let manifest = &bundle.manifest;
        let (mut images, mut published, mut sandbox) = (Vec::new(), Vec::new(), None);
        for reference in &manifest.kubeadm_images {
            if image_name(reference) == "pause" {
                sandbox = Some(reference.clone());
            }
            if let Some(image) = manifest.images.get(reference) {
                published.push(Published {
                    reference: reference.clone(),
                    archive: image.archive.clone(),
                });
            } else {
                let wanted = || format!("its kubeadm wants {reference}, which nothing here makes");
                images.push(of_kubeadm(reference).ok_or_else(|| unfit(bundle, wanted()))?);
            }
        }
        let sandbox = sandbox.ok_or_else(|| {
            let wanted = manifest.kubeadm_images.join(", ");
            unfit(
                bundle,
                format!("its kubeadm wants no pause image, but {wanted}"),
            )
        })?;
        images.push(probe("podwire.invalid/probe:1", &["serve", "--port", "80"]));
        images.push(flannel(&versions));
        Ok(Self {
            images,
            published,
            sandbox,
            packages: packages(&versions),
            programs: programs.to_vec(),
        })
    }

    /// The images' names.
    pub(super) fn references(&self) -> Vec<String> {
        references(&self.images, &self.published)
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
            .filter_map(Program::in_bundle)
    }
}

/// Versions as the names of images and packages have them: without `v`.
struct Versions<'a> {
    kubernetes: &'a str,
    flannel: &'a str,
    cni: &'a str,
    crictl: &'a str,
}

impl<'a> Versions<'a> {
    fn of(bundle: &'a Bundle) -> Result<Self, Error> {
        let version = |of: &str| {
            let version = bundle.manifest.versions.get(of).map(String::as_str);
            version.ok_or_else(|| unfit(bundle, format!("nothing says its version of {of}")))
        };
        Ok(Self {
            kubernetes: &bundle.manifest.kubernetes,
            flannel: version("flannel")?,
            cni: version("cni-plugins")?,
            crictl: version("crictl")?,
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

fn file(path: &'static str, program: Program) -> OciFile {
    OciFile {
        path: path.into(),
        program,
        capability: None,
    }
}

fn image(reference: &str, path: &'static str, program: Program) -> OciImage {
    OciImage {
        reference: reference.to_owned(),
        files: vec![file(path, program)],
        entrypoint: vec![path],
        debian: false,
        user: None,
    }
}

fn probe(reference: &str, args: &[&'static str]) -> OciImage {
    let mut image = image(reference, "/probe", Program::Probe);
    image.entrypoint.extend(args);
    image
}

fn flannel(versions: &Versions<'_>) -> OciImage {
    OciImage {
        debian: true,
        ..image(
            &format!("podwire.invalid/flannel:{}", versions.flannel),
            "/usr/local/bin/flanneld",
            bundled("bin/flanneld"),
        )
    }
}

/// `coredns` of `registry.k8s.io/coredns/coredns:v1.14.2`.
fn image_name(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(':').next().unwrap_or(last)
}

/// The image that kubeadm means by a name, made of a bundle's programs: they are where the
/// manifests of kubeadm call them.
fn of_kubeadm(reference: &str) -> Option<OciImage> {
    let server = |path, program| image(reference, path, bundled(program));
    Some(match image_name(reference) {
        "kube-apiserver" => server("/usr/local/bin/kube-apiserver", "bin/kube-apiserver"),
        "kube-controller-manager" => server(
            "/usr/local/bin/kube-controller-manager",
            "bin/kube-controller-manager",
        ),
        "kube-scheduler" => server("/usr/local/bin/kube-scheduler", "bin/kube-scheduler"),
        "kube-proxy" => OciImage {
            debian: true,
            ..server("/usr/local/bin/kube-proxy", "bin/kube-proxy")
        },
        "coredns" => OciImage {
            files: vec![OciFile {
                // The Pod allows it, but only a file's capability reaches a user who is not root.
                capability: Some(NET_BIND_SERVICE),
                ..file("/coredns", bundled("bin/coredns"))
            }],
            user: Some("65532:65532"),
            ..server("/coredns", "bin/coredns")
        },
        "pause" => probe(reference, &["pause"]),
        "etcd" => {
            let mut etcd = server("/usr/local/bin/etcd", "bin/etcd");
            etcd.files.extend([
                file("/usr/local/bin/etcdctl", bundled("bin/etcdctl")),
                file("/usr/local/bin/etcdutl", bundled("bin/etcdutl")),
            ]);
            etcd
        }
        _ => return None,
    })
}

/// The programs of a bundle, by their path there, that an image of kubeadm's runs.
pub(crate) fn programs_of(reference: &str) -> Vec<String> {
    let files = of_kubeadm(reference).into_iter().flat_map(|it| it.files);
    let programs = files.filter_map(|file| file.program.in_bundle().map(str::to_owned));
    programs.collect()
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
/// [`Error::UnfitBundle`] with the name of a program that is missing or that is not for x86-64.
pub(super) fn check(bundle: &Bundle, contents: &Contents) -> Result<(), Error> {
    for path in contents.used() {
        let program = bundle.dir.join(path);
        let wrong = match program_head(&program) {
            Ok(head) => not_for_nodes(&head),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".to_owned()),
            Err(error) => return Err(Error::file("read", program)(error)),
        };
        if let Some(wrong) = wrong {
            return Err(unfit(bundle, format!("{path} {wrong}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{BundleImage, BundleManifest};
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    fn bundle(dir: &Path) -> Bundle {
        let versions = [
            ("cni-plugins", "1.9.1"),
            ("crictl", "1.36.0"),
            ("flannel", "0.28.9"),
        ];
        Bundle {
            name: "b".to_owned(),
            dir: dir.to_owned(),
            manifest: BundleManifest {
                kubernetes: "1.36.4".to_owned(),
                versions: versions.map(|(of, v)| (of.to_owned(), v.to_owned())).into(),
                files: BTreeMap::new(),
                kubeadm_images: LIST.lines().map(str::to_owned).collect(),
                images: BTreeMap::new(),
            },
            upgrade: None,
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

    #[test]
    fn the_images_have_kubeadms_names_and_their_programs_where_its_manifests_call_them() {
        let contents = Contents::of(&bundle(Path::new("/b"))).unwrap();
        let shown: Vec<String> = contents
            .images
            .iter()
            .map(|image| {
                let files: Vec<&str> = image.files.iter().map(|file| &*file.path).collect();
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
        assert_eq!(contents.sandbox, "registry.k8s.io/pause:3.10.2");
    }

    #[test]
    fn an_upgrade_adds_the_newer_kubeadms_packages_and_images_that_are_not_there_yet() {
        let newer = bundle(Path::new("/b"));
        let mut first = newer.clone();
        first.manifest.kubernetes = "1.35.4".to_owned();
        for reference in &mut first.manifest.kubeadm_images {
            *reference = reference
                .replace("1.36.4", "1.35.4")
                .replace("3.6.8-0", "3.6.7-0");
        }
        let upgrade = Upgrade::of(&newer, &Contents::of(&first).unwrap()).unwrap();
        insta::assert_snapshot!(upgrade.references().join("\n"), @r"
        registry.k8s.io/kube-apiserver:v1.36.4
        registry.k8s.io/kube-controller-manager:v1.36.4
        registry.k8s.io/kube-scheduler:v1.36.4
        registry.k8s.io/kube-proxy:v1.36.4
        registry.k8s.io/etcd:3.6.8-0
        ");
        let packages = upgrade.packages.iter();
        let packages: Vec<String> = packages
            .map(|it| format!("{} {} {:?}", it.name, it.version, it.programs[0]))
            .collect();
        insta::assert_snapshot!(packages.join("\n"), @r#"
        kubeadm 1.36.4-1.1 (Newer("bin/kubeadm"), "usr/bin/kubeadm")
        kubectl 1.36.4-1.1 (Newer("bin/kubectl"), "usr/bin/kubectl")
        kubelet 1.36.4-1.1 (Newer("bin/kubelet"), "usr/bin/kubelet")
        "#);
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
        let with = |images: &[&str]| {
            let mut bundle = bundle(Path::new("/b"));
            bundle.manifest.kubeadm_images = images.iter().map(|it| (*it).to_owned()).collect();
            Contents::of(&bundle).unwrap_err().to_string()
        };
        insta::assert_snapshot!(with(&["registry.k8s.io/pause:3", "registry.k8s.io/new:1"]), @r#"no node can be made of the bundle "/b" (Kubernetes 1.36.4): its kubeadm wants registry.k8s.io/new:1, which nothing here makes"#);
        insta::assert_snapshot!(with(&["registry.k8s.io/etcd:3.6.9-0"]), @r#"no node can be made of the bundle "/b" (Kubernetes 1.36.4): its kubeadm wants no pause image, but registry.k8s.io/etcd:3.6.9-0"#);
    }

    #[test]
    fn an_image_that_the_bundle_has_is_not_made() {
        let mut bundle = bundle(Path::new("/b"));
        let made = Contents::of(&bundle).unwrap();
        let dns = "registry.k8s.io/coredns/coredns:v1.14.2";
        let image = BundleImage {
            archive: "images/dns.tar".to_owned(),
            sha256: "d".to_owned(),
            from: dns.to_owned(),
        };
        bundle.manifest.images.insert(dns.to_owned(), image);
        let contents = Contents::of(&bundle).unwrap();
        assert_eq!(contents.published.len(), 1);
        assert_eq!(contents.images.len() + 1, made.images.len());
        let names = |contents: &Contents| BTreeSet::from_iter(contents.references());
        assert_eq!(names(&contents), names(&made));
        assert!(made.used().any(|path| path == "bin/coredns"));
        assert!(!contents.used().any(|path| path == "bin/coredns"));
    }

    #[test]
    fn an_images_programs_are_known_by_its_name() {
        assert_eq!(programs_of("a.example/x/kube-proxy:v1"), ["bin/kube-proxy"]);
        let etcd = ["bin/etcd", "bin/etcdctl", "bin/etcdutl"];
        assert_eq!(programs_of("registry.k8s.io/etcd:3.6.8-0"), etcd);
        assert_eq!(programs_of("registry.k8s.io/pause:3"), [""; 0]);
        assert_eq!(programs_of("registry.k8s.io/other:3"), [""; 0]);
    }

    #[test]
    fn a_bundle_with_a_missing_or_foreign_program_is_refused_by_the_programs_name() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path());
        let contents = Contents::of(&bundle).unwrap();
        for path in contents.used() {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, AMD64).unwrap();
        }
        check(&bundle, &contents).unwrap();
        let refused = || {
            let error = check(&bundle, &contents).unwrap_err().to_string();
            error.replace(&dir.path().display().to_string(), "DIR")
        };
        let plugin = dir.path().join("cni/bridge");
        let mut head = AMD64;
        head[18] = 183;
        fs::write(&plugin, head).unwrap();
        insta::assert_snapshot!(refused(), @r#"no node can be made of the bundle "DIR" (Kubernetes 1.36.4): cni/bridge is a program for arm64, and nodes are x86-64"#);
        fs::remove_file(&plugin).unwrap();
        insta::assert_snapshot!(refused(), @r#"no node can be made of the bundle "DIR" (Kubernetes 1.36.4): cni/bridge is missing"#);
    }

    #[test]
    fn a_bundle_without_a_version_that_gives_a_tag_is_refused() {
        let mut bundle = bundle(Path::new("/b"));
        bundle.manifest.versions.remove("flannel");
        insta::assert_snapshot!(Contents::of(&bundle).unwrap_err(), @r#"no node can be made of the bundle "/b" (Kubernetes 1.36.4): nothing says its version of flannel"#);
    }
}
