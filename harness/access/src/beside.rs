//! What a program on this host is given of the cluster that it runs beside.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::iter;
use std::path::{self, Path};

use podwire_cluster::addresses::{API_NAME, API_PORT};
use podwire_cluster::{Cluster, ClusterPlan, StageName};
use podwire_process::ChildCommand;
use tempfile::{NamedTempFile, TempDir};
use tokio::task::JoinHandle;

use crate::{AccessError, Description, Door, Forward, Served};

/// Holds the folder in which the cluster is served: by it, a program that asks for none means this one.
pub const RUN_VARIABLE: &str = "PODWIRE_RUN";

/// What names the kubeconfig for every client of Kubernetes.
const KUBECONFIG: &str = "KUBECONFIG";

/// Names the same cluster's by way of an HTTP proxy: for clients that forget under which name they are to verify the
/// server once they have read its address, as upstream's e2e.test does.
const BY_PROXY: &str = "PODWIRE_KUBECONFIG_BY_PROXY";

/// An empty kubeconfig: without any, a client would take the user's own, and so some other cluster.
const NO_CLUSTER: &str = "/dev/null";

/// What leads clients to some other cluster, an empty kubeconfig or not: the cluster of the Pod that podwire runs in
/// (client-go's rest/config.go), and a server that everybody asks who names none (its clientcmd/client_config.go).
const ELSEWHERE: [&str; 3] = [
    "KUBERNETES_MASTER",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
];

/// How the names of what overrides a kubeconfig for Helm begin (its pkg/cli/environment.go).
const OF_HELM: &str = "HELM_KUBE";

/// The ways of a program into a cluster: its door, its API on this host's loopback, a kubeconfig and the
/// cluster's own kubectl. All of them go when this is dropped.
pub struct Beside {
    variables: Vec<(OsString, OsString)>,
    by_proxy: OsString,
    carrying: [JoinHandle<()>; 2],
    _kubeconfigs: [Option<NamedTempFile>; 2],
    _programs: TempDir,
    _door: Door,
}

impl Beside {
    /// Opens them in `dir`, for a clone of this stage; `kubectl` is the program. `tell` gets a sentence for
    /// each connection to the API that does not come about.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn open(
        cluster: &Cluster,
        stage: StageName,
        dir: &Path,
        served: &Served,
        kubectl: &Path,
        tell: impl FnMut(&str) + Send + Clone + 'static,
    ) -> Result<Self, AccessError> {
        let dir = &path::absolute(dir).map_err(|source| AccessError::Folder {
            doing: "name the folder",
            path: dir.to_owned(),
            source,
        })?;
        let door = Door::open(cluster, dir, served)?;
        let forward = Forward::open(dir, API_NAME, API_PORT, None).await?;
        let proxy = Forward::proxy(dir).await?;
        let access = cluster.access();
        let written = |way: &Forward| access.map(|access| way.kubeconfig(access)).transpose();
        let kubeconfigs = [written(&forward)?, written(&proxy)?];
        let programs = alone(kubectl, dir)?;
        let path = path_with(programs.path(), env::var_os("PATH").as_deref())?;
        let at = |kubeconfig: &Option<NamedTempFile>| {
            let path = kubeconfig.as_ref().map(|it| it.path().to_owned());
            path.unwrap_or_else(|| NO_CLUSTER.into()).into_os_string()
        };
        let [direct, by_proxy] = kubeconfigs.each_ref().map(at);
        let facts = facts(cluster.plan(), stage, door.description());
        let facts = facts
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let own: [(OsString, OsString); 4] = [
            (RUN_VARIABLE.into(), dir.into()),
            (KUBECONFIG.into(), direct),
            (BY_PROXY.into(), by_proxy.clone()),
            ("PATH".into(), path),
        ];
        Ok(Self {
            variables: own.into_iter().chain(facts).collect(),
            by_proxy,
            carrying: [forward, proxy].map(|way| {
                let tell = tell.clone();
                tokio::spawn(async move {
                    // It ends with the door, which is here.
                    let _ = way.carry(tell).await;
                })
            }),
            _kubeconfigs: kubeconfigs,
            _programs: programs,
            _door: door,
        })
    }

    /// A program of the user's as it runs beside this cluster, and knows of no other.
    pub fn given(&self, program: ChildCommand) -> ChildCommand {
        let names = env::vars_os().map(|(name, _)| name);
        let program = elsewhere(names).fold(program.for_the_user(), ChildCommand::env_remove);
        let own = self.variables.iter();
        own.fold(program, |program, (name, value)| program.env(name, value))
    }

    /// The same for one of those which need the proxy.
    pub fn given_by_proxy(&self, program: ChildCommand) -> ChildCommand {
        self.given(program).env(KUBECONFIG, &self.by_proxy)
    }
}

/// Those of these variables that lead to some other cluster.
fn elsewhere(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    names.filter(|name| {
        let of_helm = name.as_encoded_bytes().starts_with(OF_HELM.as_bytes());
        of_helm || ELSEWHERE.iter().any(|it| name == it)
    })
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.carrying.iter().for_each(JoinHandle::abort);
    }
}

/// What there is to know of the cluster.
fn facts(plan: &ClusterPlan, stage: StageName, served: &Description) -> Vec<(String, String)> {
    let nodes = served.nodes.iter();
    let names: Vec<&str> = nodes.clone().map(|node| node.name.as_str()).collect();
    let addresses = nodes.map(|node| (node.name.to_uppercase(), node.address.to_string()));
    let facts = [
        ("CELL", plan.cell.to_string()),
        ("STAGE", stage.to_string()),
        ("KUBERNETES", plan.kubernetes.clone()),
        ("NODES", names.join(" ")),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    let all = facts.into_iter().chain(addresses);
    all.map(|(name, value)| (format!("PODWIRE_{name}"), value))
        .collect()
}

/// A folder in `dir` with this program and no other: a link, or a copy, since a bundle may go from the cache
/// meanwhile.
fn alone(program: &Path, dir: &Path) -> Result<TempDir, AccessError> {
    let put = || {
        let folder = tempfile::Builder::new().prefix("bin-").tempdir_in(dir)?;
        let to = folder.path().join(program.file_name().unwrap_or_default());
        fs::hard_link(program, &to).or_else(|_| fs::copy(program, &to).map(|_| ()))?;
        Ok::<_, io::Error>(folder)
    };
    put().map_err(|source| AccessError::Folder {
        doing: "put the cluster's kubectl into the folder",
        path: dir.to_owned(),
        source,
    })
}

/// The path with that folder in front.
fn path_with(folder: &Path, path: Option<&OsStr>) -> Result<OsString, AccessError> {
    let others = path.into_iter().flat_map(env::split_paths);
    let all = iter::once(folder.to_owned()).chain(others);
    env::join_paths(all).map_err(|error| AccessError::Folder {
        doing: "put into PATH the folder",
        path: folder.to_owned(),
        source: io::Error::other(error),
    })
}

#[cfg(test)]
mod tests {
    use podwire_cluster::{Bootstrap, Cell, ImageFiles};
    use podwire_vm::Accelerator;

    use super::*;
    use crate::NodeAddress;

    #[test]
    fn a_program_knows_its_cluster() {
        let node = |number: u8| NodeAddress {
            name: format!("node{number}"),
            address: [172, 30, 0, 10 + number].into(),
        };
        let served = Description {
            what: String::new(),
            started: 0,
            pid: 1,
            nodes: vec![node(1), node(2)],
            router: None,
        };
        let cell = Cell::usual(Bootstrap::ByHand);
        let (image, tcg) = (ImageFiles::default(), Accelerator::Tcg);
        let plan = ClusterPlan::new(2, cell, "1.36.4", &image, tcg, "", "", None).unwrap();
        let facts = facts(&plan, StageName::Cni, &served);
        let facts: Vec<String> = facts
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        insta::assert_snapshot!(facts.join("\n"), @"
        PODWIRE_CELL=by-hand/nftables/routes
        PODWIRE_STAGE=cni
        PODWIRE_KUBERNETES=1.36.4
        PODWIRE_NODES=node1 node2
        PODWIRE_NODE1=172.30.0.11
        PODWIRE_NODE2=172.30.0.12
        ");
    }

    #[test]
    fn a_program_is_led_to_no_other_cluster() {
        let names = [
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "KUBERNETES_MASTER",
            "HELM_KUBEAPISERVER",
            "HELM_KUBECONTEXT",
            "HELM_KUBETOKEN",
            "HELM_CACHE_HOME",
            "KUBERNETES_VERSION",
            "KUBE_EDITOR",
        ];
        let gone: Vec<OsString> = elsewhere(names.map(OsString::from).into_iter()).collect();
        assert_eq!(gone, names[..6]);
    }

    #[test]
    fn the_cluster_s_kubectl_comes_before_others_and_goes_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("kubectl");
        fs::write(&program, "the cluster's").unwrap();
        let folder = alone(&program, dir.path()).unwrap();
        fs::remove_file(&program).unwrap();
        let put = folder.path().join("kubectl");
        assert_eq!(fs::read_to_string(&put).unwrap(), "the cluster's");
        drop(folder);
        assert!(!put.exists());
        let path = path_with(Path::new("/run/bin"), Some(OsStr::new("/usr/bin:/bin"))).unwrap();
        assert_eq!(path, "/run/bin:/usr/bin:/bin");
        assert_eq!(path_with(Path::new("/run/bin"), None).unwrap(), "/run/bin");
        assert!(path_with(Path::new("/a:b"), None).is_err());
        assert!(alone(Path::new("/none"), dir.path()).is_err());
    }
}
