//! What the images of each network are made of, as data.

use std::borrow::Cow;
use std::path::PathBuf;

use super::NamedNetwork;
use crate::bundle::{Apart, CALICO, CILIUM, FLANNEL_CNI_PLUGIN, FLANNEL_PUBLISHED, KUBE_ROUTER};
use crate::oci::{OciFile, OciImage, Program};
use crate::{Error, Workshop};

/// What the images of a network are made of.
pub(super) struct Parts {
    /// Where its programs are built; the first has its version, and its sources.
    pub(super) programs: &'static [Apart],
    /// What its daemon runs, beside a shell: Debian's packages.
    pub(super) packages: Vec<&'static str>,
    /// Its images, as its manifest names them.
    pub(super) images: Vec<OciImage>,
}

/// What rules and routes are written with, and a shell.
const TOOLS: [&str; 6] = [
    "conntrack",
    "ipset",
    "iproute2",
    "iptables",
    "kmod",
    "netbase",
];

/// What starts Calico's daemons and looks after them.
const SUPERVISOR: &str = "runit";

/// What Calico's image has beside its program, where its sources have it too (below `node/filesystem`). Those that write
/// their words to files are not among them: the manifest has them on the daemon's output.
const OF_CALICO: [&str; 7] = [
    "/etc/calico/felix.cfg",
    "/etc/rc.local",
    "/etc/service/available/allocate-tunnel-addrs/run",
    "/etc/service/available/cni/run",
    "/etc/service/available/felix/run",
    "/etc/service/available/monitor-addresses/run",
    "/etc/service/available/node-status-reporter/run",
];

/// What Cilium compiles the kernel's programs with.
const COMPILER: &str = "clang";

/// Where Cilium's daemon finds the kernel's programs, which it compiles on each node; their sources are at `bpf` in its
/// own.
const KERNEL_PROGRAMS: &str = "/var/lib/cilium/bpf";
/// Each of them, the licence that they are under, and what a node and a Pod have to say for themselves, before they do.
const KERNEL_FILES: [&str; 14] = [
    "bpf_alignchecker.c",
    "bpf_host.c",
    "bpf_lxc.c",
    "bpf_overlay.c",
    "bpf_probes.c",
    "bpf_sock.c",
    "bpf_sock_term.c",
    "bpf_wireguard.c",
    "bpf_xdp.c",
    "ep_config.h",
    "filter_config.h",
    "netdev_config.h",
    "node_config.h",
    "LICENSE.GPL-2.0",
];
/// What they include.
const KERNEL_FOLDERS: [&str; 2] = ["include", "lib"];

fn file(path: impl Into<Cow<'static, str>>, program: Program) -> OciFile {
    OciFile {
        path: path.into(),
        program,
        capability: None,
    }
}

/// A program that was built apart.
fn built(path: &'static str, from: &str) -> OciFile {
    file(path, Program::Apart(from.to_owned()))
}

/// An image with no more than these files.
fn bare(reference: String, starts: &'static str, files: Vec<OciFile>) -> OciImage {
    OciImage {
        reference,
        files,
        debian: false,
        entrypoint: vec![starts],
        user: None,
    }
}

/// An image with Debian's tools beneath the files.
fn over_debian(reference: String, starts: &'static str, files: Vec<OciFile>) -> OciImage {
    OciImage {
        debian: true,
        ..bare(reference, starts, files)
    }
}

impl Parts {
    /// What those of this network are made of today.
    pub(super) fn read(workshop: &Workshop<'_>, network: NamedNetwork) -> Result<Self, Error> {
        Ok(match network {
            NamedNetwork::KubeRouter => kube_router(&KUBE_ROUTER.tag(workshop)?),
            NamedNetwork::Calico => calico(&CALICO.tag(workshop)?),
            NamedNetwork::Cilium => cilium(&CILIUM.tag(workshop)?),
            NamedNetwork::FlannelPublished => flannel(
                &FLANNEL_PUBLISHED.tag(workshop)?,
                &FLANNEL_CNI_PLUGIN.tag(workshop)?,
            ),
        })
    }

    /// The folder of the sources that go into its images.
    pub(super) fn sources(&self, workshop: &Workshop<'_>) -> Result<PathBuf, Error> {
        match self.programs {
            [first, ..] => first.sources(workshop),
            [] => Ok(PathBuf::new()),
        }
    }
}

fn kube_router(tag: &str) -> Parts {
    let program = "/usr/local/bin/kube-router";
    Parts {
        programs: &[KUBE_ROUTER],
        packages: TOOLS.to_vec(),
        images: vec![over_debian(
            format!("docker.io/cloudnativelabs/kube-router:{tag}"),
            program,
            vec![built(program, "bin/kube-router")],
        )],
    }
}

fn calico(tag: &str) -> Parts {
    let reference = |name: &str| format!("docker.io/calico/{name}:{tag}");
    let source = |path, from: &str| file(path, Program::Source(format!("node/filesystem{from}")));
    let daemon = built("/usr/bin/calico-node", "bin/calico-node");
    let beside = OF_CALICO.map(|path| source(path, path));
    let starts = "/usr/sbin/start_runit";
    let node = over_debian(
        reference("node"),
        starts,
        [daemon]
            .into_iter()
            .chain(beside)
            .chain([source(starts, "/sbin/start_runit")])
            .collect(),
    );
    // Its installer copies all that is beside it onto the node.
    let plugins = bare(
        reference("cni"),
        "/opt/cni/bin/install",
        vec![
            built("/opt/cni/bin/bandwidth", "cni/bandwidth"),
            built("/opt/cni/bin/calico", "bin/calico"),
            built("/opt/cni/bin/calico-ipam", "bin/calico"),
            built("/opt/cni/bin/install", "bin/install"),
        ],
    );
    let controllers = bare(
        reference("kube-controllers"),
        "/usr/bin/kube-controllers",
        vec![
            // They write how they are into it, and make no folder for it.
            file("/status/status.json", Program::Text("")),
            built("/usr/bin/check-status", "bin/check-status"),
            built("/usr/bin/kube-controllers", "bin/kube-controllers"),
        ],
    );
    Parts {
        programs: &[CALICO],
        packages: [TOOLS.as_slice(), &[SUPERVISOR]].concat(),
        images: vec![node, plugins, controllers],
    }
}

fn cilium(tag: &str) -> Parts {
    let reference = |name: &str| format!("quay.io/cilium/{name}:{tag}");
    let daemon = "/usr/bin/cilium-agent";
    let programs = [
        built(daemon, "bin/daemon"),
        built("/usr/bin/cilium-dbg", "bin/cilium-dbg"),
        built("/usr/bin/cilium-mount", "bin/mount"),
        built("/usr/bin/cilium-sysctlfix", "bin/sysctlfix"),
        built("/opt/cni/bin/cilium-cni", "bin/cilium-cni"),
    ];
    let beside = [
        ("/init-container.sh", "images/cilium/init-container.sh"),
        ("/install-plugin.sh", "plugins/cilium-cni/install-plugin.sh"),
        ("/cni-uninstall.sh", "plugins/cilium-cni/cni-uninstall.sh"),
    ];
    let beside = beside.map(|(path, from)| file(path, Program::Source(from.to_owned())));
    let in_kernel = |name: &str, of_sources: fn(String) -> Program| {
        let path = format!("{KERNEL_PROGRAMS}/{name}");
        file(path, of_sources(format!("bpf/{name}")))
    };
    let files = KERNEL_FILES.map(|name| in_kernel(name, Program::Source));
    let folders = KERNEL_FOLDERS.map(|name| in_kernel(name, Program::Sources));
    let of_daemon = programs.into_iter().chain(beside);
    let operator = "/usr/bin/cilium-operator-generic";
    Parts {
        programs: &[CILIUM],
        packages: [TOOLS.as_slice(), &[COMPILER]].concat(),
        images: vec![
            over_debian(
                reference("cilium"),
                daemon,
                of_daemon.chain(files).chain(folders).collect(),
            ),
            bare(
                reference("operator-generic"),
                operator,
                vec![built(operator, "bin/operator")],
            ),
        ],
    }
}

fn flannel(tag: &str, of_plugin: &str) -> Parts {
    let daemon = "/opt/bin/flanneld";
    Parts {
        programs: &[FLANNEL_PUBLISHED, FLANNEL_CNI_PLUGIN],
        packages: TOOLS.to_vec(),
        images: vec![
            over_debian(
                format!("ghcr.io/flannel-io/flannel:{tag}"),
                daemon,
                vec![
                    built(daemon, "bin/flannel"),
                    built("/opt/bin/install-conf", "bin/install_conf"),
                ],
            ),
            // Its Pod names what runs: a copy of the plugin to the node.
            over_debian(
                format!("podwire.invalid/flannel-cni-plugin:{of_plugin}"),
                "/flannel",
                vec![built("/flannel", "cni/flannel")],
            ),
        ],
    }
}
