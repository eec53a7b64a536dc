use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use podwire_process::Spawner;

use super::component::{COMPONENTS, not_for_nodes};
use super::test_publisher::{Edition, TestPublisher, tarball};
use super::*;
use crate::Cache;
use crate::digest::sha256;
use crate::download::test_server::Trouble;
use crate::files::place;
use crate::oci::OciImage;
use crate::test_host::{Heard, install};

const AMD64: [u8; 20] = [
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0,
];

/// What a kubeadm of Kubernetes 1.35.4 prints.
const LIST: &str = "registry.k8s.io/kube-apiserver:v1.35.4
registry.k8s.io/kube-controller-manager:v1.35.4
registry.k8s.io/kube-scheduler:v1.35.4
registry.k8s.io/kube-proxy:v1.35.4
registry.k8s.io/coredns/coredns:v1.13.1
registry.k8s.io/pause:3.10.1
registry.k8s.io/etcd:3.6.6-0
";

/// A program that no other is like, for x86-64.
fn program(name: &str) -> Vec<u8> {
    [AMD64.as_slice(), name.as_bytes()].concat()
}

fn kubeadm(list: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$*\" = 'config images list --kubernetes-version v1.35.4' ] || exit 1\ncat <<END\n{list}END\n"
    )
}

/// A project with pins for releases and for flannel, which is built by what is called `go` there;
/// and a stand-in for every publisher, with the layout that each of them really has.
struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
    spawner: Spawner,
    heard: Heard,
    publisher: TestPublisher,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            cache: Cache::at(&dir.path().join("cache")).unwrap(),
            spawner: Spawner::start().unwrap(),
            heard: Heard::default(),
            publisher: TestPublisher::start(),
            dir,
        };
        bench.file(
            "images/bundle/releases.toml",
            "['1.33']\ncni-plugins = '1.6.2'\ncrictl = '1.33.0'\n\
             ['1.35']\ncni-plugins = '1.8.0'\ncrictl = '1.35.0'\n",
        );
        bench.file("images/bundle/1.36.4/README", "");
        bench.file("images/bundle/flannel/main.go", "package main");
        bench.file("images/bundle/flannel/go.sum", "");
        bench.file(
            "images/bundle/flannel/go.mod",
            "module podwire.invalid/bundle/flanneld\nrequire github.com/flannel-io/flannel v0.28.9\n",
        );
        bench.publish();
        bench
    }

    fn file(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(path);
        install(&path, bytes.as_ref());
        path
    }

    /// Release 1.35.4 and what goes with it.
    fn publish(&self) {
        let images: Vec<(String, Vec<u8>)> = LIST
            .lines()
            .map(|reference| {
                let image = OciImage {
                    reference: reference.to_owned(),
                    files: Vec::new(),
                    debian: false,
                    entrypoint: vec!["/x"],
                    user: None,
                };
                let archive = image.archive(b"", |_| Ok(Vec::new())).unwrap();
                (reference.to_owned(), archive)
            })
            .collect();
        self.publisher.publish(&Edition {
            kubernetes: "1.35.4",
            cni_plugins: "1.8.0",
            crictl: "1.35.0",
            etcd: "3.6.6",
            program: &|path| match path {
                "bin/kubeadm" => kubeadm(LIST).into_bytes(),
                _ => program(path.rsplit('/').next().unwrap()),
            },
            images: &images,
        });
    }

    fn sources(&self) -> Sources {
        let text = format!(
            "[defaults]\nbundle-from = 'release'\nimage-from = 'debian'\n[sources]\n\
             ubuntu = 'http://a.invalid'\nubuntu-archive = 'http://a.invalid'\nubuntu-security = 'http://a.invalid'\n{}",
            self.publisher.sources(),
        );
        self.file("images/sources.toml", text);
        Sources::read(self.dir.path(), None).unwrap()
    }

    fn take(
        &self,
        version: &str,
        from: BundleFrom,
        replace: &[String],
    ) -> Result<BundleOrder, Error> {
        let replace: Vec<Replacement> = replace.iter().map(|it| it.parse().unwrap()).collect();
        let asked = Asked {
            kubernetes: Some(version),
            from: Some(&from),
            replace: &replace,
            upgrade_to: None,
        };
        BundleOrder::take(self.dir.path(), &self.sources(), &asked)
    }

    fn release(&self) -> BundleOrder {
        self.take("1.35.4", BundleFrom::Release, &[]).unwrap()
    }

    fn workshop(&self) -> Workshop<'_> {
        Workshop {
            cache: &self.cache,
            spawner: &self.spawner,
            report: &self.heard,
            source: self.dir.path(),
        }
    }

    /// What came of an order, without a build: Go is not what is tested.
    fn get(&self, order: &BundleOrder) -> Result<Bundle, String> {
        let base = |workshop: &Workshop<'_>, release: &release::Release| {
            release.make_with(workshop, |dir| {
                let to = place(dir, "bin/flanneld")?;
                fs::write(&to, program("flanneld")).unwrap();
                fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
                let origin = Origin::File {
                    path: "built".into(),
                };
                Ok(modules::Flannel {
                    version: "0.28.9".to_owned(),
                    files: [("bin/flanneld".to_owned(), described(&to, origin)?)].into(),
                })
            })
        };
        get_with(&self.workshop(), order, &base).map_err(|error| self.told(&error))
    }

    fn told(&self, error: &Error) -> String {
        let place = self.dir.path().display().to_string();
        let text = error
            .to_string()
            .replace(&self.publisher.server.host, "HOST");
        text.replace(&self.publisher.registry.host, "REGISTRY")
            .replace(&place, "DIR")
    }

    fn refused(&self, from: BundleFrom, replace: &[String]) -> String {
        self.told(&self.take("1.35.4", from, replace).unwrap_err())
    }
}

#[test]
fn a_release_comes_from_where_each_part_is_published() {
    let bench = Bench::new();
    let order = bench.release();
    assert_eq!(cached(&bench.workshop(), &order).unwrap(), None);
    let bundle = bench.get(&order).unwrap();
    let manifest = &bundle.manifest;
    for (path, file) in &manifest.files {
        let there = bundle.dir.join(path);
        assert_eq!(sha256_file(&there).unwrap(), file.sha256, "{path}");
        assert_eq!(
            fs::metadata(&there).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
    let shown: Vec<String> = manifest
        .files
        .iter()
        .map(|(path, file)| format!("{path} {}", file.origin))
        .collect();
    insta::assert_snapshot!(shown.join("\n").replace(&bench.publisher.server.host, "HOST"), @r"
    bin/crictl from http://HOST/crictl/v1.35.0/crictl-v1.35.0-linux-amd64.tar.gz
    bin/etcd from http://HOST/etcd/v3.6.6/etcd-v3.6.6-linux-amd64.tar.gz
    bin/etcdctl from http://HOST/etcd/v3.6.6/etcd-v3.6.6-linux-amd64.tar.gz
    bin/etcdutl from http://HOST/etcd/v3.6.6/etcd-v3.6.6-linux-amd64.tar.gz
    bin/flanneld from built
    bin/kube-apiserver from http://HOST/k8s/v1.35.4/bin/linux/amd64/kube-apiserver
    bin/kube-controller-manager from http://HOST/k8s/v1.35.4/bin/linux/amd64/kube-controller-manager
    bin/kube-proxy from http://HOST/k8s/v1.35.4/bin/linux/amd64/kube-proxy
    bin/kube-scheduler from http://HOST/k8s/v1.35.4/bin/linux/amd64/kube-scheduler
    bin/kubeadm from http://HOST/k8s/v1.35.4/bin/linux/amd64/kubeadm
    bin/kubectl from http://HOST/k8s/v1.35.4/bin/linux/amd64/kubectl
    bin/kubelet from http://HOST/k8s/v1.35.4/bin/linux/amd64/kubelet
    cni/bridge from http://HOST/cni/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz
    cni/host-local from http://HOST/cni/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz
    cni/loopback from http://HOST/cni/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz
    cni/portmap from http://HOST/cni/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz
    ");
    assert_eq!(manifest.kubeadm_images, LIST.lines().collect::<Vec<_>>());
    assert_eq!(manifest.images.len(), 7);
    for (reference, image) in &manifest.images {
        let archive = fs::read(bundle.dir.join(&image.archive)).unwrap();
        assert_eq!(sha256(&archive), image.sha256);
        let index = String::from_utf8_lossy(&archive).into_owned();
        // Its name on a node is kubeadm's, wherever it came from.
        assert!(index.contains(&format!("\"io.containerd.image.name\":\"{reference}\"")));
        assert!(
            image
                .from
                .starts_with(&format!("{}/mirror/", bench.publisher.registry.host))
        );
    }
    assert_eq!(
        bench.release().provenance().to_string(),
        "kubernetes 1.35.4 from release (nobody but its own servers vouches for it)"
    );

    // It ran here to name the images.
    assert_eq!(order.unverified_program(), Some("kubeadm"));
    let modules = bench.take("1.36.4", BundleFrom::Modules, &[]).unwrap();
    assert_eq!(modules.unverified_program(), None);

    // A second time everything is there.
    for path in bench.publisher.server.asked() {
        bench.publisher.server.remove(&path);
    }
    let asked = bench.publisher.registry.asked().len();
    assert_eq!(cached(&bench.workshop(), &order).unwrap().unwrap(), bundle);
    assert_eq!(bench.get(&order).unwrap(), bundle);
    assert_eq!(bench.publisher.server.asked(), [""; 0]);
    assert_eq!(bench.publisher.registry.asked().len(), asked);
}

#[test]
fn what_clusters_are_upgraded_to_comes_along_and_must_be_what_kubeadm_upgrades_to() {
    let bench = Bench::new();
    let own = bench.file("kubelet", program("kubelet"));
    let own = format!("kubelet={}", own.display());
    let newer = bench.take("1.35.9", BundleFrom::Release, &[]).unwrap();
    let order = bench.take("1.35.4", BundleFrom::Release, &[own]).unwrap();
    let order = order.upgraded_to(newer.clone()).unwrap();
    let told = order.provenance().to_string();
    assert!(told.ends_with("; to be upgraded to 1.35.9"), "{told}");
    assert_eq!(order.without_own().upgrade.as_deref(), Some(&newer));

    // The first alone is not all of it.
    bench.get(&order.without_upgrade()).unwrap();
    assert_eq!(cached(&bench.workshop(), &order).unwrap(), None);

    let refused = newer.upgraded_to(bench.release());
    insta::assert_snapshot!(refused.unwrap_err(), @"kubeadm upgrades no cluster of Kubernetes 1.35.9 to 1.35.4: it takes a newer patch, or the next minor version (--kubernetes says which it is upgraded from)");
}

#[test]
fn a_mirrors_password_is_in_nothing_that_is_kept() {
    let bench = Bench::new();
    bench.sources();
    let host = &bench.publisher.server.host;
    let config = [
        "kubernetes=k8s",
        "cni-plugins=cni",
        "crictl=crictl",
        "etcd=etcd",
    ]
    .map(|source| source.split_once('=').unwrap())
    .map(|(key, path)| format!("{key} = 'http://user:s3cret@{host}/{path}'\n"));
    let config = bench.file("mine.toml", format!("[sources]\n{}", config.concat()));
    let sources = Sources::read(bench.dir.path(), Some(&config)).unwrap();
    let asked = Asked {
        kubernetes: Some("1.35.4"),
        from: None,
        replace: &[],
        upgrade_to: None,
    };
    let order = BundleOrder::take(bench.dir.path(), &sources, &asked).unwrap();
    let bundle = bench.get(&order).unwrap();
    assert_eq!(cached(&bench.workshop(), &order).unwrap().unwrap(), bundle);
    let manifest = fs::read_to_string(bundle.dir.join(MANIFEST)).unwrap();
    for told in [
        manifest,
        format!("{bundle:?} {order:?}"),
        bench.heard.0.borrow().join("\n"),
    ] {
        assert!(!told.contains("s3cret"), "{told}");
    }
    let kubelet = bundle.manifest.files["bin/kubelet"].origin.to_string();
    assert!(kubelet.starts_with("from http://***@"), "{kubelet}");
    let asked = bench.publisher.server.asked();
    assert!(
        asked
            .iter()
            .all(|path| path.ends_with(" as Basic dXNlcjpzM2NyZXQ=")),
        "{asked:?}"
    );
}

#[test]
fn a_cut_download_of_a_release_goes_on_and_nothing_comes_twice() {
    let bench = Bench::new();
    let kubelet = "k8s/v1.35.4/bin/linux/amd64/kubelet";
    bench.publisher.server.trouble(kubelet, [Trouble::Cut(10)]);
    bench.get(&bench.release()).unwrap();
    let asked = bench.publisher.server.asked();
    assert!(asked.contains(&format!("{kubelet} from 10")), "{asked:?}");
    let kubeadm = "k8s/v1.35.4/bin/linux/amd64/kubeadm";
    assert_eq!(asked.iter().filter(|path| *path == kubeadm).count(), 1);
}

#[test]
fn what_is_missing_or_wrong_in_a_release_is_named_and_what_came_is_kept() {
    let bench = Bench::new();
    let path = "k8s/v1.35.4/bin/linux/amd64/kube-proxy";
    bench.publisher.server.remove(path);
    insta::assert_snapshot!(bench.get(&bench.release()).unwrap_err(), @"cannot download http://HOST/k8s/v1.35.4/bin/linux/amd64/kube-proxy (source `kubernetes`): the server does not have it (404); is there such a version? If it is, another address for `kubernetes` goes into a file for --config (docs/sources.md)");
    assert_eq!(cached(&bench.workshop(), &bench.release()).unwrap(), None);
    bench.publisher.server.asked();
    // Something else under its name.
    bench.publisher.server.put(path, program("evil"));
    let refused = bench.get(&bench.release()).unwrap_err();
    assert!(
        refused.contains("it is not what was published"),
        "{refused}"
    );
    assert_eq!(cached(&bench.workshop(), &bench.release()).unwrap(), None);
    let kubelet = "k8s/v1.35.4/bin/linux/amd64/kubelet".to_owned();
    assert!(
        !bench.publisher.server.asked().contains(&kubelet),
        "it was here already"
    );
    bench.publisher.server.put(path, program("kube-proxy"));
    bench.publisher.server.remove("etcd/v3.6.6/SHA256SUMS");
    insta::assert_snapshot!(bench.get(&bench.release()).unwrap_err(), @"cannot download http://HOST/etcd/v3.6.6/SHA256SUMS (source `etcd`): the server does not have it (404); is there such a version? If it is, another address for `etcd` goes into a file for --config (docs/sources.md)");
    bench.publisher.server.put(
        "etcd/v3.6.6/SHA256SUMS",
        format!("{}  etcd.zip\n", sha256(b"")),
    );
    insta::assert_snapshot!(bench.get(&bench.release()).unwrap_err(), @"cannot download http://HOST/etcd/v3.6.6/SHA256SUMS (source `etcd`): it says no digest of etcd-v3.6.6-linux-amd64.tar.gz; a proxy or a mirror may answer in its place; another address for `etcd` goes into a file for --config (docs/sources.md)");
}

#[test]
fn an_archive_that_is_none_or_lacks_a_program_is_refused() {
    let bench = Bench::new();
    let path = "crictl/v1.35.0/crictl-v1.35.0-linux-amd64.tar.gz";
    let refused = |bytes: Vec<u8>| {
        bench
            .publisher
            .server
            .put(&format!("{path}.sha256"), sha256(&bytes));
        bench.publisher.server.put(path, bytes);
        let refused = bench.get(&bench.release()).unwrap_err();
        refused.split_once("it came from ").unwrap().1.to_owned()
    };
    insta::assert_snapshot!(refused(tarball(&[("critest".to_owned(), b"x".to_vec())])), @"http://HOST/crictl/v1.35.0/crictl-v1.35.0-linux-amd64.tar.gz, and has no crictl");
    insta::assert_snapshot!(refused(b"<html>".to_vec()), @"http://HOST/crictl/v1.35.0/crictl-v1.35.0-linux-amd64.tar.gz, and cannot be unpacked: unexpected end of file");
}

#[test]
fn an_image_that_the_registry_does_not_have_is_named() {
    let bench = Bench::new();
    let list = LIST.replace("pause:3.10.1", "pause:3.11");
    let path = "k8s/v1.35.4/bin/linux/amd64/kubeadm";
    bench.publisher.server.put(path, kubeadm(&list));
    bench
        .publisher
        .server
        .put(&format!("{path}.sha256"), sha256(kubeadm(&list).as_bytes()));
    let refused = bench.get(&bench.release()).unwrap_err();
    assert!(
        refused.starts_with(
            "cannot pull registry.k8s.io/pause:3.11 as REGISTRY/mirror/pause:3.11 (source `images`): "
        ),
        "{refused}"
    );
}

#[test]
fn a_version_that_is_not_published_is_told_so() {
    let bench = Bench::new();
    let order = bench.take("1.35.99", BundleFrom::Release, &[]).unwrap();
    let refused = bench.get(&order).unwrap_err();
    assert!(
        refused.contains("k8s/v1.35.99/bin/linux/amd64/kubeadm.sha256"),
        "{refused}"
    );
    assert!(refused.contains("is there such a version?"), "{refused}");
    let error = bench.take("1.32.1", BundleFrom::Release, &[]).unwrap_err();
    insta::assert_snapshot!(bench.told(&error), @"no release of Kubernetes 1.32.1: 1.33 is the oldest that runs here");
    let error = bench.take("1.35.4", BundleFrom::Modules, &[]).unwrap_err();
    insta::assert_snapshot!(bench.told(&error), @"no modules are pinned for Kubernetes 1.35.4; there is: 1.36.4; `--bundle-from release` takes any version since 1.33");
}

#[test]
fn another_address_or_version_is_another_bundle() {
    let bench = Bench::new();
    let name = |order: &BundleOrder| match &order.base {
        Base::Release(release) => release.name(bench.dir.path()).unwrap(),
        Base::Modules => panic!(),
    };
    let first = name(&bench.release());
    assert_eq!(name(&bench.release()), first);
    let other = bench.take("1.35.5", BundleFrom::Release, &[]).unwrap();
    assert_ne!(name(&other), first);
    bench.file("images/bundle/flannel/go.sum", "x");
    assert_ne!(name(&bench.release()), first);
}

#[test]
fn ones_own_programs_replace_those_of_a_release_and_their_images() {
    let bench = Bench::new();
    let proxy = bench.file("out/my-proxy", program("mine"));
    let bridge = bench.file("out/bridge", program("my bridge"));
    let replace = [
        format!("kube-proxy={}", proxy.display()),
        format!("cni/bridge={}", bridge.display()),
    ];
    let order = bench.take("1.35.4", BundleFrom::Release, &replace).unwrap();
    let nearly = |order: &BundleOrder| is_nearly_cached(&bench.workshop(), order).unwrap();
    assert!(!nearly(&order));
    let base = bench.get(&bench.release()).unwrap();
    assert!(nearly(&order) && !nearly(&bench.release()));
    let bundle = bench.get(&order).unwrap();
    assert!(!nearly(&order));
    assert_ne!(bundle.name, base.name);
    let read = |path: &str| fs::read(bundle.dir.join(path)).unwrap();
    assert_eq!(read("bin/kube-proxy"), program("mine"));
    assert_eq!(read("cni/bridge"), program("my bridge"));
    assert_eq!(read("bin/kubelet"), program("kubelet"));
    let gone = "registry.k8s.io/kube-proxy:v1.35.4";
    let mut images = base.manifest.images.clone();
    assert!(images.remove(gone).is_some());
    assert_eq!(bundle.manifest.images, images);
    assert_eq!(bundle.manifest.kubeadm_images, base.manifest.kubeadm_images);
    let text = order.provenance().to_string();
    let text = text.replace(&bench.dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @"kubernetes 1.35.4 from release (nobody but its own servers vouches for it); kube-proxy from DIR/out/my-proxy (sha256 d39fc4746d80f4f7e18f9cb9cbf436294c12ebaa82adc073fc2d55db76c4a31b); cni/bridge from DIR/out/bridge (sha256 1b77a46453fb09dd206021283d9a02a3e9be6aaadb73040fe3c156f7a6ccb93f)");

    // The same contents from elsewhere are the same bundle, said to be from there.
    let moved = bench.file("elsewhere/proxy", program("mine"));
    let replace = [
        format!("cni/bridge={}", bridge.display()),
        format!("kube-proxy={}", moved.display()),
    ];
    let order = bench.take("1.35.4", BundleFrom::Release, &replace).unwrap();
    let again = cached(&bench.workshop(), &order).unwrap().unwrap();
    assert_eq!(again.name, bundle.name);
    let Origin::File { path } = &again.manifest.files["bin/kube-proxy"].origin else {
        panic!();
    };
    assert_eq!(*path, moved);
    // Others are not.
    bench.file("elsewhere/proxy", program("newer"));
    let order = bench.take("1.35.4", BundleFrom::Release, &replace).unwrap();
    assert_eq!(cached(&bench.workshop(), &order).unwrap(), None);
}

#[test]
fn ones_own_kubeadm_says_which_images_there_are() {
    let bench = Bench::new();
    bench.get(&bench.release()).unwrap();
    let mut order = bench.release();
    let path = bench.file("kubeadm", kubeadm("registry.k8s.io/pause:4\n"));
    // A script is none for a node: what is checked elsewhere is left out here.
    order.own.push(OwnFile {
        component: Component::named("kubeadm").unwrap(),
        sha256: sha256_file(&path).unwrap(),
        path,
        replaces: true,
    });
    let bundle = bench.get(&order).unwrap();
    assert_eq!(bundle.manifest.kubeadm_images, ["registry.k8s.io/pause:4"]);
}

#[test]
fn a_file_that_changes_after_it_was_looked_at_is_refused() {
    let bench = Bench::new();
    let path = bench.file("proxy", program("a"));
    let replace = [format!("kube-proxy={}", path.display())];
    let order = bench.take("1.35.4", BundleFrom::Release, &replace).unwrap();
    bench.file("proxy", program("b"));
    insta::assert_snapshot!(bench.get(&order).unwrap_err(), @"DIR/proxy: it changed while it was copied: is it being built just now?");
}

#[test]
fn a_folder_has_components_loose_or_in_the_layout_of_a_bundle() {
    let bench = Bench::new();
    bench.file("own/bin/kubelet", program("kubelet 2"));
    bench.file("own/cni/bridge", program("bridge 2"));
    bench.file("own/kube-proxy", program("proxy 2"));
    bench.file("own/manifest.json", "{}");
    let own = bench.dir.path().join("own");
    let from = BundleFrom::Directory(own.clone());
    let other = bench.file("other", program("proxy 3"));
    let replace = [format!("kube-proxy={}", other.display())];
    let order = bench.take("1.35.4", from, &replace).unwrap();
    let bundle = bench.get(&order).unwrap();
    let read = |path: &str| fs::read(bundle.dir.join(path)).unwrap();
    assert_eq!(read("bin/kubelet"), program("kubelet 2"));
    assert_eq!(read("bin/kube-proxy"), program("proxy 3"));
    assert_eq!(read("bin/kubectl"), program("kubectl"));
    let text = order.provenance().to_string();
    let text = text.replace(&bench.dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @"kubernetes 1.35.4 from release (nobody but its own servers vouches for it); cni/bridge, kubelet from DIR/own; kube-proxy from DIR/other (sha256 8c53f94d1b60f73b3f200f80739e07bd946b4b2171523a920054dae9b2889fb5)");
}

#[test]
fn what_no_node_could_run_is_refused_before_anything_is_built() {
    let bench = Bench::new();
    let own = bench.dir.path().join("own");
    let from = || BundleFrom::Directory(own.clone());
    fs::create_dir(&own).unwrap();
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own: it holds no component of a bundle (bin/NAME, cni/NAME or NAME); those are coredns, crictl, etcd, etcdctl, etcdutl, flanneld, kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler, kubeadm, kubectl, kubelet, cni/bridge, cni/host-local, cni/loopback, cni/portmap");
    let mut arm = program("x");
    arm[18] = 183;
    let path = bench.file("own/kubelet", arm);
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own/kubelet: it is a program for arm64, and nodes are x86-64");
    fs::write(&path, program("x")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own/kubelet: it is not executable: `chmod +x` it");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own/kubelet: it is no ELF program");
    bench.file("own/kubelet", program("x"));
    bench.file("own/bin/kubelet", program("x"));
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own/bin/kubelet: DIR/own/kubelet is the same component");
    fs::remove_file(&path).unwrap();
    bench.file("own/bin/kubelte", program("x"));
    insta::assert_snapshot!(bench.refused(from(), &[]), @"DIR/own/bin/kubelte: bin/kubelte is no component of a bundle; those are coredns, crictl, etcd, etcdctl, etcdutl, flanneld, kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler, kubeadm, kubectl, kubelet, cni/bridge, cni/host-local, cni/loopback, cni/portmap");
    // One for each part of a dynamic program's head: where its headers are, how large and how many.
    let mut dynamic = program("");
    dynamic.resize(120, 0);
    (dynamic[32], dynamic[54], dynamic[56], dynamic[64]) = (64, 56, 1, 3);
    let path = bench.file("apiserver", &dynamic);
    let replaced = |component: &str| [format!("{component}={}", path.display())];
    let release = || BundleFrom::Release;
    insta::assert_snapshot!(bench.refused(release(), &replaced("kube-apiserver")), @"DIR/apiserver: it needs shared libraries, and kube-apiserver's container image holds nothing else: build it with CGO_ENABLED=0");
    bench
        .take("1.35.4", release(), &replaced("kube-proxy"))
        .unwrap();
    let twice = [replaced("kube-proxy"), replaced("bin/kube-proxy")].concat();
    insta::assert_snapshot!(bench.refused(release(), &twice), @"DIR/apiserver: kube-proxy is replaced twice");
    insta::assert_snapshot!(bench.refused(release(), &["kubectl=none".to_owned()]), @"none: there is no such file");
    insta::assert_snapshot!(bench.refused(release(), &["kubectl=/etc".to_owned()]), @"/etc: it is no file");
    assert_eq!(bench.publisher.server.asked(), [""; 0]);
}

#[test]
fn a_replacement_is_named_like_its_program() {
    let parsed = |text: &str| text.parse::<Replacement>().map(|it| it.component.path);
    assert_eq!(parsed("kube-proxy=x"), Ok("bin/kube-proxy"));
    assert_eq!(parsed("bridge=a=b"), Ok("cni/bridge"));
    for component in COMPONENTS {
        assert_eq!(parsed(&format!("{component}=x")), Ok(component.path));
    }
    insta::assert_snapshot!(parsed("kubeproxy=x").unwrap_err(), @"there is no component kubeproxy; there are coredns, crictl, etcd, etcdctl, etcdutl, flanneld, kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler, kubeadm, kubectl, kubelet, cni/bridge, cni/host-local, cni/loopback, cni/portmap");
    insta::assert_snapshot!(parsed("kube-proxy").unwrap_err(), @"it has the form COMPONENT=PATH, like kube-proxy=./out/kube-proxy");
    insta::assert_snapshot!(parsed("kube-proxy=").unwrap_err(), @"it has the form COMPONENT=PATH, like kube-proxy=./out/kube-proxy");
    insta::assert_snapshot!("relaese".parse::<BundleFrom>().unwrap_err(), @"there is no such folder, and the sources that need none are modules, release");
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

#[test]
fn kubeadm_is_asked_for_the_images_of_the_version() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    bench.file("bin/kubeadm", kubeadm(LIST));
    let listed = |version| kubeadm_images(&bench.workshop(), dir, version);
    assert_eq!(listed("1.35.4").unwrap(), LIST.lines().collect::<Vec<_>>());
    bench.file("bin/kubeadm", "#!/bin/sh\necho \"no: $@\" >&2; exit 1\n");
    let error = listed("1.35.4").unwrap_err().to_string();
    let said = "no: config images list --kubernetes-version v1.35.4";
    assert!(error.contains(said), "{error}");
    bench.file("bin/kubeadm", "#!/bin/sh\n");
    let error = listed("1.35.4").unwrap_err();
    insta::assert_snapshot!(bench.told(&error), @r#"no node can be made of the bundle "DIR" (Kubernetes 1.35.4): its kubeadm lists no images"#);
}
