//! The command that leads to one of a run's clusters again.

use std::ffi::OsString;
use std::path::PathBuf;

use podwire_cluster::{Bootstrap, Cell, IpFamilies};
use podwire_process::ChildCommand;

use crate::command::cli::change::AskedNetwork;
use crate::command::cli::run::{AskedTests, TestArgs, WireMode};

/// The arguments behind `cargo xtask test`, as they were typed.
pub(crate) fn typed() -> Vec<String> {
    let words = std::env::args_os().skip(2);
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// `cargo xtask test ...`, with what its clusters depend on and nothing else. Settings of the
/// environment and of images/sources.toml are not repeated: they hold for the next run as well.
pub(crate) fn command(args: &TestArgs, cell: Cell) -> String {
    let sources = &args.sources;
    let network = match &args.network.pod_network {
        Some(AskedNetwork::Manifest(path)) => Some(path.clone().into_os_string()),
        _ if cell.network == Cell::usual(cell.bootstrap).network => None,
        _ => Some(cell.network.to_string().into()),
    };
    let proxy = (cell.proxy != Cell::usual(cell.bootstrap).proxy).then(|| cell.proxy.to_string());
    let families = (cell.ip_families != IpFamilies::Ipv4).then(|| cell.ip_families.to_string());
    // Where nothing is kubeadm's, it would be refused.
    let kubeadm_config = match cell.bootstrap {
        Bootstrap::ByHand => &None,
        Bootstrap::Kubeadm => &args.network.kubeadm_config,
    };
    let one = |flag: &'static str, value: Option<OsString>| value.map(|value| (flag, value));
    let file = |flag, path: &Option<PathBuf>| one(flag, path.clone().map(PathBuf::into_os_string));
    let flags = [
        one("--tests", args.tests.as_ref().map(AskedTests::word)),
        one("--bootstrap", Some(cell.bootstrap.to_string().into())),
        one("--from", args.from.from.map(|it| it.to_string().into())),
        one("--kube-proxy", proxy.map(OsString::from)),
        one("--pod-network", network),
        one("--ip-families", families.map(OsString::from)),
        one(
            "--nodes",
            (args.nodes != 3).then(|| args.nodes.to_string().into()),
        ),
        one(
            "--kubernetes",
            sources.kubernetes.clone().map(OsString::from),
        ),
        one(
            "--upgrade-to",
            sources.upgrade_to.clone().map(OsString::from),
        ),
        one(
            "--bundle-from",
            sources.bundle_from.as_ref().map(|from| from.name().into()),
        ),
        file("--config", &sources.config.config),
        file("--node-files", &args.network.node_files),
        file("--kubelet-config", &args.network.kubelet_config),
        file("--kube-proxy-config", &args.network.kube_proxy_config),
        file("--kubeadm-config", kubeadm_config),
        one(
            "--break",
            args.broken.map(|broken| broken.to_string().into()),
        ),
        one("--wire", args.wire.map(|WireMode::Strict| "strict".into())),
    ];
    let archives = args.network.pod_images.iter();
    let archives = archives.map(|path| ("--pod-images", path.clone().into_os_string()));
    let replaced = sources.replace.iter().map(|one| {
        let mut word = OsString::from(format!("{}=", one.component));
        word.push(&one.path);
        ("--replace", word)
    });
    let kernels = args.from.kernel.iter();
    let kernels = kernels.map(|path| ("--kernel", path.clone().into_os_string()));
    let flags = flags.into_iter().flatten();
    let flags = flags.chain(kernels).chain(archives).chain(replaced);
    let words = flags.flat_map(|(flag, value)| [flag.into(), value]);
    let words = words.chain(args.measure.then(|| "--measure".into()));
    // Those of kubeadm's have it anyway.
    let dns = args.network.cluster_dns && cell.bootstrap == Bootstrap::ByHand;
    let words = words.chain(dns.then(|| "--cluster-dns".into()));
    let as_present = args.network.pull_policy_as_present;
    let words = words.chain(as_present.then(|| "--pull-policy-as-present".into()));
    ChildCommand::new("cargo")
        .args(["xtask", "test"])
        .args(words)
        .display()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cli::{Cli, Command};
    use clap::Parser as _;

    fn again(line: &str, bootstrap: Bootstrap) -> String {
        let words = ["xtask", "test"].into_iter().chain(line.split_whitespace());
        let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line} is not about a test");
        };
        command(&args, args.network.cell(bootstrap))
    }

    #[test]
    fn a_failure_names_the_cluster_that_it_was_seen_on() {
        let kubeadm = |line: &str| again(line, Bootstrap::Kubeadm);
        assert_eq!(
            kubeadm("--wire strict --keep"),
            "cargo xtask test --bootstrap kubeadm --wire strict"
        );
        assert_eq!(
            kubeadm("--filter E --repeat 10 --yes"),
            "cargo xtask test --bootstrap kubeadm"
        );
        assert_eq!(
            kubeadm("--measure --profile full"),
            "cargo xtask test --bootstrap kubeadm --measure"
        );
        let own = "--pod-network Cargo.toml --pod-images a.tar --pull-policy-as-present";
        assert_eq!(
            kubeadm(own),
            format!("cargo xtask test --bootstrap kubeadm {own}")
        );
        let kernel = "--kernel image.deb --kernel modules.deb";
        assert_eq!(
            kubeadm(kernel),
            format!("cargo xtask test --bootstrap kubeadm {kernel}")
        );
        assert_eq!(
            again("--cluster-dns", Bootstrap::ByHand),
            "cargo xtask test --bootstrap by-hand --cluster-dns"
        );
        assert_eq!(
            kubeadm("--cluster-dns"),
            "cargo xtask test --bootstrap kubeadm"
        );
        assert_eq!(
            kubeadm("--ip-families dual"),
            "cargo xtask test --bootstrap kubeadm --ip-families dual"
        );
        let line = "--from ubuntu:24.04 --kube-proxy iptables --pod-network flannel-host-gw --nodes 4 --kubernetes 1.35 --upgrade-to 1.36 --bundle-from release --node-files ./mine";
        assert_eq!(
            kubeadm(line),
            "cargo xtask test --bootstrap kubeadm --from ubuntu:24.04 --kube-proxy iptables \
             --pod-network flannel-host-gw --nodes 4 --kubernetes 1.35 --upgrade-to 1.36 --bundle-from release --node-files ./mine"
        );
        let line = "--kubelet-config ./k.yaml --kube-proxy-config ./p.yaml";
        let all = format!("{line} --kubeadm-config ./a.yaml");
        assert_eq!(
            kubeadm(&all),
            format!("cargo xtask test --bootstrap kubeadm {all}")
        );
        assert_eq!(
            again(&all, Bootstrap::ByHand),
            format!("cargo xtask test --bootstrap by-hand {line}")
        );
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mine");
        std::fs::write(&program, "").unwrap();
        let program = program.display();
        let line = format!("--replace kube-proxy={program} --replace cni/bridge={program}");
        assert_eq!(
            again(&line, Bootstrap::ByHand),
            format!("cargo xtask test --bootstrap by-hand {line}")
        );
    }
}
