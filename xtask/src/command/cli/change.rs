//! By which a change is named: what nodes run, and the network under test.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser};
use podwire_cluster::{Bootstrap, Cell, IpFamilies, Layout, PodNetwork, ProxyMode};
use podwire_images::bundle::{BundleFrom, Replacement};
use podwire_images::image::ImageFrom;

/// By which a change is named: what one side of a comparison has and the other may not have.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// `--pod-network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskedNetwork {
    Known(PodNetwork),
    /// A file that is there.
    Manifest(PathBuf),
}

impl FromStr for AskedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = PodNetwork::ALL.into_iter();
        let known = known.filter(|network| *network != PodNetwork::Manifest);
        if let Some(network) = known.clone().find(|network| network.to_string() == text) {
            return Ok(Self::Known(network));
        }
        if Path::new(text).exists() {
            return Ok(Self::Manifest(text.into()));
        }
        let names: Vec<String> = known.map(|network| network.to_string()).collect();
        Err(format!(
            "there is no such file, and the Pod networks that need none are {}",
            names.join(", ")
        ))
    }
}

/// Where Kubernetes comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// Kubernetes version, 1.36.4 or 1.35; of a release any whole one since 1.33 [default: the newest
    /// that has a folder in images/bundle/]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes: Option<String>,
    /// A newer one, whose packages and images are on the nodes too: for the scenario that upgrades a cluster of
    /// kubeadm's to it, or for your own hands [default: none]
    #[arg(long, value_name = "VERSION")]
    pub(crate) upgrade_to: Option<String>,
    /// modules: built here from the pinned Go modules; release: the official programs and images,
    /// downloaded; or a folder of your own programs (bin/NAME, cni/NAME or NAME), of which what is
    /// missing comes from the default [default: modules, see images/sources.toml]
    #[arg(long, value_name = "modules|release|DIR")]
    pub(crate) bundle_from: Option<BundleFrom>,
    /// Your own build of one component, wherever it runs: kube-proxy=PATH, cni/bridge=PATH; several by
    /// repeating it
    #[arg(long, value_name = "COMPONENT=PATH")]
    pub(crate) replace: Vec<Replacement>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// What the nodes run.
#[derive(Debug, Clone, Args)]
pub(crate) struct FromArgs {
    /// What the node image is made of: debian (its packages), or ubuntu:24.04 (the official cloud image)
    /// [default: debian, see images/sources.toml]
    #[arg(long, value_name = "SYSTEM", global = true)]
    pub(crate) from: Option<ImageFrom>,
    /// A kernel of yours for the nodes (of Debian's packages alone): a Debian package with one kernel and its
    /// modules; several by repeating it, where the modules have packages of their own
    #[arg(long, value_name = "DEB")]
    pub(crate) kernel: Vec<PathBuf>,
}

/// The settings of where things come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// A file that replaces single addresses and defaults of images/sources.toml, for mirrors [default:
    /// $PODWIRE_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// The network under test.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// How kube-proxy translates: nftables or iptables
    #[arg(long, value_name = "MODE", default_value_t = ProxyMode::Nftables)]
    pub(crate) kube_proxy: ProxyMode,
    /// What connects the Pods: routes, flannel (VXLAN), flannel-host-gw, kube-router, calico, cilium,
    /// flannel-published, or a manifest of your own (YAML or JSON) [default: routes by hand, flannel with
    /// kubeadm]
    #[arg(long, value_name = "NETWORK|FILE")]
    pub(crate) pod_network: Option<AskedNetwork>,
    /// An archive with images of that manifest, or of Pods of your own, of `docker save` or `skopeo copy`
    /// to oci-archive:; several by repeating it. What the manifest names and no archive holds is pulled by
    /// this host, once; nodes reach no registry
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) pod_images: Vec<PathBuf>,
    /// Read that manifest with `imagePullPolicy: IfNotPresent` wherever a node would ask a registry
    #[arg(long)]
    pub(crate) pull_policy_as_present: bool,
    /// Files over the nodes' own, which boot with them before anything of Kubernetes starts: sysctl.d,
    /// systemd-networkd, nftables, units; DIR/etc/... on every node, DIR/node2/etc/... on node2 alone
    #[arg(long, value_name = "DIR")]
    pub(crate) node_files: Option<PathBuf>,
    /// A KubeletConfiguration (YAML or JSON) that is merged into podwire's, on every node
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// A KubeProxyConfiguration that is merged into podwire's
    #[arg(long, value_name = "FILE")]
    pub(crate) kube_proxy_config: Option<PathBuf>,
    /// kubeadm's ClusterConfiguration, InitConfiguration (node1) and JoinConfiguration (all others), in one
    /// file, that are merged into podwire's; clusters by hand do not read it
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeadm_config: Option<PathBuf>,
    /// Which families of IP nodes, Pods and Services have addresses of: ipv4, or dual (both, IPv4 first).
    /// In a dual-stack cluster the scenarios run that look at both
    #[arg(long, value_name = "FAMILIES", default_value_t = IpFamilies::Ipv4)]
    pub(crate) ip_families: IpFamilies,
    /// CoreDNS in clusters by hand too, where the documents lay no DNS; those by kubeadm have it anyway
    #[arg(long)]
    pub(crate) cluster_dns: bool,
}

impl NetworkArgs {
    /// The cell with a bootstrap.
    pub(crate) fn cell(&self, bootstrap: Bootstrap) -> Cell {
        Cell {
            bootstrap,
            proxy: self.kube_proxy,
            network: match &self.pod_network {
                None => Cell::usual(bootstrap).network,
                Some(AskedNetwork::Known(network)) => *network,
                Some(AskedNetwork::Manifest(_)) => PodNetwork::Manifest,
            },
            layout: Layout::Flat,
            ip_families: self.ip_families,
        }
    }

    /// The same with nodes laid out like that, where there can be such a cluster.
    ///
    /// # Errors
    /// In words, for two families where something carries IPv4 alone: the bundle's flanneld, a network by its name,
    /// the router between two segments.
    pub(crate) fn existing_cell(
        &self,
        bootstrap: Bootstrap,
        layout: Layout,
    ) -> Result<Cell, String> {
        let cell = self.cell(bootstrap).laid_out(layout);
        let alone = match cell.network {
            PodNetwork::Published(_) => Some("podwire's manifest of it has"),
            PodNetwork::Flannel(_) => Some("the bundle's flanneld carries"),
            PodNetwork::Routes | PodNetwork::Manifest => None,
        };
        if let Some(why) = alone
            && cell.ip_families.is_dual()
        {
            return Err(format!(
                "--ip-families dual: in {bootstrap}'s cluster the Pod network would be {}, and {why} IPv4 alone; add \
                 --pod-network routes, or a manifest of your own",
                cell.network
            ));
        }
        if !cell.exists() {
            return Err(format!(
                "--layout {layout}: no router leads from one segment to another by IPv6; --ip-families dual is \
                 for clusters whose nodes share one"
            ));
        }
        Ok(cell)
    }
}

#[cfg(test)]
mod tests {
    use podwire_cluster::Published;

    use super::*;
    use crate::command::cli::{Cli, Command};

    #[test]
    fn a_pod_network_that_carries_one_family_is_in_no_cluster_of_two() {
        let cell = |line: &str, bootstrap| {
            let words = ["xtask", "test"].into_iter().chain(line.split(' '));
            let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("{line} is not about a test");
            };
            let cell = args.network.existing_cell(bootstrap, Layout::Flat);
            cell.map(|cell| cell.to_string())
        };
        let (by_hand, kubeadm) = (Bootstrap::ByHand, Bootstrap::Kubeadm);
        let dual = "--ip-families dual";
        let routes = "--ip-families dual --pod-network routes";
        assert_eq!(cell(dual, by_hand).unwrap(), "by-hand/nftables/routes+dual");
        assert_eq!(
            cell(routes, kubeadm).unwrap(),
            "kubeadm/nftables/routes+dual"
        );
        insta::assert_snapshot!(cell(dual, kubeadm).unwrap_err(), @"--ip-families dual: in kubeadm's cluster the Pod network would be flannel, and the bundle's flanneld carries IPv4 alone; add --pod-network routes, or a manifest of your own");
        for named in Published::ALL.map(PodNetwork::Published) {
            let line = format!("{dual} --pod-network {named}");
            for bootstrap in Bootstrap::ALL {
                let refused = cell(&line, bootstrap).unwrap_err();
                let network = format!("the Pod network would be {named}, ");
                assert!(refused.contains(&network), "{refused}");
            }
        }
        let calico = "--ip-families dual --pod-network calico";
        insta::assert_snapshot!(cell(calico, by_hand).unwrap_err(), @"--ip-families dual: in by-hand's cluster the Pod network would be calico, and podwire's manifest of it has IPv4 alone; add --pod-network routes, or a manifest of your own");
        assert!(cell("--ip-families ipv4", kubeadm).is_ok());
    }

    #[test]
    fn a_pod_network_is_a_known_one_or_a_file() {
        let parsed = |network: &str| {
            let words = ["xtask", "test", "--pod-network", network];
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Test(args)) => Ok(args.network),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let network = |asked: &str| parsed(asked).unwrap().cell(Bootstrap::Kubeadm).network;
        for known in ["routes", "flannel", "flannel-host-gw"] {
            assert_eq!(network(known).to_string(), known);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(network(file.path().to_str().unwrap()), PodNetwork::Manifest);
        // It names a kind of network, and no network.
        let error = parsed("manifest").unwrap_err();
        assert!(error.contains("no such file"), "{error}");
        assert!(
            error.contains("routes, flannel, flannel-host-gw"),
            "{error}"
        );
    }
}
