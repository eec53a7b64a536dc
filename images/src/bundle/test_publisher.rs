//! A stand-in for all who publish what a release is made of, with the layout that each of them has.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::release::{PLUGINS, PROGRAMS};
use crate::digest::sha256;
use crate::download::test_server::TestServer;
use crate::registry::test_registry::TestRegistry;

/// Serves until the process ends.
pub(crate) struct TestPublisher {
    pub(crate) server: TestServer,
    pub(crate) registry: TestRegistry,
}

/// What is published; versions without `v`.
pub(crate) struct Edition<'a> {
    pub(crate) kubernetes: &'a str,
    pub(crate) cni_plugins: &'a str,
    pub(crate) crictl: &'a str,
    pub(crate) etcd: &'a str,
    /// A program's bytes, by its path in a bundle: `cni/bridge`.
    pub(crate) program: &'a dyn Fn(&str) -> Vec<u8>,
    /// OCI archives of the images, by kubeadm's names for them.
    pub(crate) images: &'a [(String, Vec<u8>)],
}

impl TestPublisher {
    pub(crate) fn start() -> Self {
        Self {
            server: TestServer::start(),
            registry: TestRegistry::start(),
        }
    }

    pub(crate) fn publish(&self, edition: &Edition<'_>) {
        let of = edition.program;
        for name in PROGRAMS {
            let path = format!("k8s/v{}/bin/linux/amd64/{name}", edition.kubernetes);
            let program = of(&format!("bin/{name}"));
            // Nothing but the digest.
            self.server.put(&format!("{path}.sha256"), sha256(&program));
            self.server.put(&path, program);
        }

        let version = edition.cni_plugins;
        let mut plugins: Vec<(String, Vec<u8>)> = PLUGINS
            .iter()
            .map(|name| (format!("./{name}"), of(&format!("cni/{name}"))))
            .collect();
        plugins.insert(
            1,
            ("./ipvlan".to_owned(), b"one of those not used".to_vec()),
        );
        let name = format!("cni-plugins-linux-amd64-v{version}.tgz");
        let path = format!("cni/v{version}/{name}");
        let archive = tarball(&plugins);
        let sums = format!("{}  {name}\n", sha256(&archive));
        self.server.put(&format!("{path}.sha256"), sums);
        self.server.put(&path, archive);

        let version = edition.crictl;
        let path = format!("crictl/v{version}/crictl-v{version}-linux-amd64.tar.gz");
        let archive = tarball(&[("crictl".to_owned(), of("bin/crictl"))]);
        self.server.put(&format!("{path}.sha256"), sha256(&archive));
        self.server.put(&path, archive);

        let version = edition.etcd;
        let folder = format!("etcd-v{version}-linux-amd64");
        let mut files = vec![(format!("{folder}/README-etcd.md"), b"text".to_vec())];
        files.extend(
            ["etcd", "etcdctl", "etcdutl"]
                .map(|name| (format!("{folder}/{name}"), of(&format!("bin/{name}")))),
        );
        let archive = tarball(&files);
        let sums = format!("{}  {folder}.tar.gz\n", sha256(&archive));
        self.server
            .put(&format!("etcd/v{version}/SHA256SUMS"), sums);
        let path = format!("etcd/v{version}/{folder}.tar.gz");
        self.server.put(&path, archive);

        for (reference, archive) in edition.images {
            let (name, tag) = reference.rsplit_once(':').unwrap();
            let name = name.replace("registry.k8s.io/", "mirror/");
            self.registry.offer(&name, tag, archive, &[]);
        }
    }

    /// Its addresses, as a settings file says them.
    pub(crate) fn sources(&self) -> String {
        let url = |path: &str| self.server.url(path);
        format!(
            "kubernetes = '{}'\ncni-plugins = '{}'\ncrictl = '{}'\netcd = '{}'\nimages = '{}/mirror'\n",
            url("k8s"),
            url("cni"),
            url("crictl"),
            url("etcd"),
            self.registry.host,
        )
    }
}

/// A compressed archive of programs, by their paths in it.
pub(crate) fn tarball(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, path, bytes.as_slice())
            .unwrap();
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&builder.into_inner().unwrap()).unwrap();
    packed.finish().unwrap()
}
