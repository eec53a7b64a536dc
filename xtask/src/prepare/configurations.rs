//! `--kubelet-config FILE`, `--kube-proxy-config FILE` and `--kubeadm-config FILE`: configurations of the
//! user's that are merged into podwire's, read before anything is done.

use std::path::Path;

use podwire_cluster::{
    Bootstrap, Cell, ClusterPlan, Configurations, FIELDS_OF, Kind, StageName, Unknown,
};
use podwire_images::BundleOrder;
use podwire_images::yaml::{self, DEPTH};
use podwire_process::plain;
use podwire_vm::Accelerator;
use serde_json::{Value, json};

use crate::command::cli::change::NetworkArgs;
use crate::prepare::given::{at_most, outline};
use crate::say::stop::Stop;
use crate::say::text::nearest;

/// Octets of a file: what a component prints of its own with all defaults has a few KiB.
const MOST_OCTETS: u64 = 256 << 10;
/// Values in it, those that aliases repeat too.
const MOST_VALUES: usize = 20_000;
/// Names that a report tells of a file.
const TOLD: usize = 12;

/// What the command line names; nothing where it names no file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) all: Configurations,
    files: Vec<Named>,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    flag: Flag,
    /// As it was typed.
    file: String,
    documents: Configurations,
}

/// Each takes documents of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Kubelet,
    KubeProxy,
    Kubeadm,
}

impl Flag {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Init | Kind::Cluster | Kind::Join => Self::Kubeadm,
            Kind::Kubelet => Self::Kubelet,
            Kind::KubeProxy => Self::KubeProxy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "--kubelet-config",
            Self::KubeProxy => "--kube-proxy-config",
            Self::Kubeadm => "--kubeadm-config",
        }
    }

    /// The documents that it takes, in words.
    fn kinds(self) -> String {
        let kinds = Kind::ALL.into_iter().filter(|kind| Self::of(*kind) == self);
        let kinds: Vec<&str> = kinds.map(Kind::name).collect();
        kinds.join(", ")
    }
}

/// What the files are to be merged target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    nodes: u32,
    cells: &'a [Cell],
    /// Version of Kubernetes, `1.36.4`.
    kubernetes: &'a str,
    /// Whether some of its programs are the user's.
    own_programs: bool,
}

impl<'a> Target<'a> {
    pub(crate) fn new(nodes: u32, cells: &'a [Cell], bundle: &'a BundleOrder) -> Self {
        let provenance = bundle.provenance();
        Self {
            nodes,
            cells,
            kubernetes: &bundle.kubernetes,
            own_programs: provenance.directory.is_some() || !provenance.replaced.is_empty(),
        }
    }

    /// Whether the fields of its components are known: of the user's own programs, and of versions to
    /// come, they are not.
    fn has_known_fields(&self) -> bool {
        let minor = self.kubernetes.split('.').nth(1);
        let minor = minor.and_then(|minor| minor.parse::<u32>().ok());
        !self.own_programs && minor.is_some_and(|minor| minor <= FIELDS_OF)
    }

    /// Only what is merged counts here, which is the same on whatever a cluster runs; emulated, there is
    /// more of it.
    fn plan(
        &self,
        cell: Cell,
        accelerator: Accelerator,
        given: &Configurations,
    ) -> anyhow::Result<ClusterPlan> {
        let plan = outline(self.nodes, cell, self.kubernetes, accelerator)?;
        Ok(plan.with_configurations(given.clone()))
    }
}

impl Given {
    /// Reads the files that are named, and looks whether they can be merged into those of these cells.
    pub(crate) fn read(network: &NetworkArgs, target: Target<'_>) -> Result<Self, Stop> {
        let named = [
            (Flag::Kubelet, &network.kubelet_config),
            (Flag::KubeProxy, &network.kube_proxy_config),
            (Flag::Kubeadm, &network.kubeadm_config),
        ];
        let mut given = Self::default();
        for (flag, path) in named {
            let Some(path) = path else { continue };
            let file = plain::text(&path.display().to_string());
            let usage = |why: String| Stop::Usage(format!("{} {file}: {why}", flag.name()));
            let documents = documents(path, flag).map_err(usage)?;
            if target.has_known_fields() {
                known(&documents).map_err(usage)?;
            }
            let is_kubeadm = |cell: &Cell| cell.bootstrap == Bootstrap::Kubeadm;
            if flag == Flag::Kubeadm && !target.cells.iter().any(is_kubeadm) {
                return Err(usage(
                    "no cluster here is made by kubeadm, and nothing else reads it; take --bootstrap kubeadm"
                        .into(),
                ));
            }
            let mut conflicts = Vec::new();
            for cell in target.cells {
                let plan = target.plan(*cell, Accelerator::Tcg, &documents)?;
                for (kind, conflict) in plan.conflicts() {
                    let told = format!("\n  {kind}: {}", plain::text(&conflict.to_string()));
                    if !conflicts.contains(&told) {
                        conflicts.push(told);
                    }
                }
            }
            if !conflicts.is_empty() {
                return Err(usage(format!(
                    "it does not go with what podwire needs:{}",
                    conflicts.concat()
                )));
            }
            given.all.0.extend(documents.0.clone());
            given.files.push(Named {
                flag,
                file: path.display().to_string(),
                documents,
            });
        }
        Ok(given)
    }

    /// Whether a cluster of that stage has all of it.
    pub(crate) fn reach(&self, target: Target<'_>, stage: StageName) -> Result<(), Stop> {
        for Named {
            flag,
            file,
            documents,
        } in &self.files
        {
            for (kind, document) in &documents.0 {
                // Whatever it says: it may say the same as podwire's own.
                let mark = json!({ "mark": document });
                let mut reaches = false;
                for cell in target.cells {
                    let key = |given: &Configurations| -> anyhow::Result<_> {
                        // Without its Pod network a cluster has no later stages, which have read all of it.
                        Ok(target.plan(*cell, Accelerator::Tcg, given)?.key(stage).ok())
                    };
                    let marked = key(&Configurations([(*kind, mark.clone())].into()))?;
                    reaches |= marked.is_none() || marked != key(&Configurations::default())?;
                }
                if !reaches {
                    return Err(Stop::Usage(format!(
                        "{} {}: nothing in a cluster of {} nodes has read {kind} at the stage {stage}; take a \
                         later --stage",
                        flag.name(),
                        plain::text(file),
                        target.nodes
                    )));
                }
            }
        }
        Ok(())
    }

    /// For reports: each file, what it is recognised by, which fields it sets, and in the place of what of
    /// podwire's own, which depends on what runs the guests.
    pub(crate) fn about(
        &self,
        target: Target<'_>,
        accelerator: Option<Accelerator>,
    ) -> anyhow::Result<Vec<String>> {
        let each = self.files.iter().map(|named| {
            let Named {
                flag,
                file,
                documents,
            } = named;
            let fields = documents.0.values().filter_map(Value::as_object);
            let fields = fields.flat_map(|document| document.keys());
            let fields = fields.filter(|name| !["kind", "apiVersion"].contains(&name.as_str()));
            let mut fields: Vec<String> = fields.cloned().collect();
            fields.sort();
            fields.dedup();
            let digest = documents.digest();
            let mut about = format!(
                "{} {file} (sha256 {}) sets {}",
                flag.name(),
                &digest[..12],
                some_of(&fields)
            );
            if let Some(accelerator) = accelerator {
                let mut replaced = Vec::new();
                for cell in target.cells {
                    let plan = target.plan(*cell, accelerator, documents)?;
                    let told = plan.replaced().into_iter().map(|(_, it)| it.to_string());
                    replaced.extend(told);
                }
                replaced.sort();
                replaced.dedup();
                if !replaced.is_empty() {
                    about += &format!("; of podwire's own it replaces {}", some_of(&replaced));
                }
            }
            Ok(plain::text(&about))
        });
        each.collect()
    }
}

/// The first of them, and how many more there are.
fn some_of(all: &[String]) -> String {
    match all.len() {
        0 => "nothing".to_owned(),
        many if many > TOLD => {
            format!("{} and {} more", all[..TOLD].join(", "), many - TOLD)
        }
        _ => all.join(", "),
    }
}

/// Reads a file, and tells whose documents are in it.
fn documents(path: &Path, flag: Flag) -> Result<Configurations, String> {
    let read = at_most(path, MOST_OCTETS).map_err(|error| error.to_string())?;
    let bytes = read.ok_or_else(|| {
        format!(
            "it has more than {} KiB, and is no configuration",
            MOST_OCTETS >> 10
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| "it is no text (UTF-8)".to_owned())?;
    let mut found = Configurations::default();
    for document in parsed(&text)? {
        let kind = kind(&document, flag)?;
        if found.0.insert(kind, document).is_some() {
            return Err(format!("there are two documents of the kind {kind} in it"));
        }
    }
    match found.is_empty() {
        true => Err(format!(
            "there is no document in it; it takes {}",
            flag.kinds()
        )),
        false => Ok(found),
    }
}

/// The documents of a stream; empty ones are left out.
fn parsed(text: &str) -> Result<Vec<Value>, String> {
    let read = yaml::documents::<Value>(text, options).map_err(|error| plain::text(&error.reason));
    // Some JSON is no YAML: tabs may indent it.
    let read = read.or_else(|why| match serde_json::from_str(text) {
        Ok(document) => Ok(vec![document]),
        Err(_) => Err(why),
    });
    let documents = read?.into_iter();
    Ok(documents.filter(|it| !it.is_null()).collect())
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH, max_nodes: MOST_VALUES, max_events: 4 * MOST_VALUES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_VALUES },
        // As Kubernetes reads it.
        legacy_octal_numbers: true,
    }
}

/// The kind of a document, if it is one that the flag takes.
fn kind(document: &Value, flag: Flag) -> Result<Kind, String> {
    let takes = flag.kinds();
    if !document.is_object() {
        return Err(format!("a document in it is no object; it takes {takes}"));
    }
    let text = |name: &str| document[name].as_str().map(plain::text);
    let Some(name) = text("kind") else {
        return Err(format!("a document in it has no kind; it takes {takes}"));
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    match kind {
        None => Err(format!("it takes {takes}, and not {name}")),
        Some(kind) if Flag::of(kind) != flag => Err(format!(
            "it takes {takes}; {name} belongs into the file of {}",
            Flag::of(kind).name()
        )),
        Some(kind) => match text("apiVersion") {
            Some(version) if version == kind.api_version() => Ok(kind),
            Some(version) => Err(format!(
                "{name} is of {version}; podwire's own, into which it is merged, is of {}",
                kind.api_version()
            )),
            None => Err(format!(
                "{name} has no apiVersion; podwire's own is of {}",
                kind.api_version()
            )),
        },
    }
}

/// Nobody else would tell: kubeadm leaves out what it does not know, kube-proxy warns in its log, and the
/// kubelet ends before it has a Node.
fn known(documents: &Configurations) -> Result<(), String> {
    for (kind, document) in &documents.0 {
        if let Some(Unknown { path, name, known }) = kind.unknown(document).first() {
            let path = plain::text(path);
            let near = nearest(known.iter().copied(), name);
            let near = near.first().map(|near| format!("; the nearest is {near}"));
            let near = near.unwrap_or_default();
            return Err(format!(
                "{kind} of Kubernetes 1.{FIELDS_OF} has no field {path}{near}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use std::fs;

    use super::*;
    use crate::command::cli::{Cli, Command};

    /// Files of a test, and what is said of them.
    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }

        fn read(&self, words: &[&str], bootstraps: &[Bootstrap]) -> Result<Given, Stop> {
            let cells: Vec<Cell> = bootstraps.iter().copied().map(Cell::usual).collect();
            let words = ["xtask", "test"].into_iter().chain(words.iter().copied());
            let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("it is about a test");
            };
            Given::read(&args.network, target(&cells))
        }

        /// Of both bootstraps.
        fn refused(&self, flag: &str, text: impl AsRef<[u8]>) -> String {
            let file = self.write("FILE", text);
            self.told(self.read(&[flag, &file], &Bootstrap::ALL))
        }

        fn told(&self, read: Result<Given, Stop>) -> String {
            match read {
                Err(Stop::Usage(why)) => why.replace(&format!("{}/", self.0.path().display()), ""),
                other => panic!("{other:?}"),
            }
        }
    }

    fn target(cells: &[Cell]) -> Target<'_> {
        Target {
            nodes: 3,
            cells,
            kubernetes: "1.36.4",
            own_programs: false,
        }
    }

    const KUBELET: &str = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
    const PROXY: &str =
        "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n";
    const CLUSTER: &str = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n";
    const JOIN: &str = "kind: JoinConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n";

    #[test]
    fn what_is_given_is_told_with_what_it_replaces_where_that_is_set() {
        let files = Files::new();
        let kubelet = format!("---\n---\n{KUBELET}maxPods: 7\nnodeLeaseDurationSeconds: 40\n");
        let kubelet = files.write("kubelet.yaml", kubelet);
        let tabs = format!(
            "{{\n\t\"kind\": \"KubeProxyConfiguration\",\n\t\"apiVersion\": \"{}\",\n\t\"nodePortAddresses\": [\"primary\"]\n}}",
            Kind::KubeProxy.api_version()
        );
        let proxy = files.write("proxy.json", tabs);
        let kubeadm = format!(
            "{CLUSTER}apiServer: {{ certSANs: [api.example] }}\n---\n{JOIN}timeouts: {{ discovery: 60s }}\n"
        );
        let kubeadm = files.write("kubeadm.yaml", kubeadm);
        let words = [
            "--kubelet-config",
            &kubelet,
            "--kube-proxy-config",
            &proxy,
            "--kubeadm-config",
            &kubeadm,
        ];
        let given = files.read(&words, &Bootstrap::ALL).unwrap();
        let kinds: Vec<&str> = given.all.0.keys().map(|kind| kind.name()).collect();
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        let cells = Bootstrap::ALL.map(Cell::usual);
        let about = |accelerator| {
            let lines = given.about(target(&cells), accelerator).unwrap();
            lines
                .join("\n")
                .replace(&format!("{}/", files.0.path().display()), "")
        };
        insta::assert_snapshot!(about(Some(Accelerator::Tcg)), @r#"
        --kubelet-config kubelet.yaml (sha256 7c611f9cf234) sets maxPods, nodeLeaseDurationSeconds; of podwire's own it replaces nodeLeaseDurationSeconds: 40, not 120
        --kube-proxy-config proxy.json (sha256 c38b341c4cc0) sets nodePortAddresses
        --kubeadm-config kubeadm.yaml (sha256 eb2ce2a1e0e6) sets apiServer, timeouts; of podwire's own it replaces timeouts.discovery: "60s", not "1200s"
        "#);
        let kvm = Accelerator::Kvm(podwire_vm::KvmProcessor::HOST);
        assert!(!about(Some(kvm)).contains("replaces"));
        assert_eq!(about(Some(kvm)), about(None));
        assert_eq!(files.read(&[], &Bootstrap::ALL).unwrap(), Given::default());
    }

    #[test]
    fn what_cannot_be_merged_is_refused_in_words() {
        let files = Files::new();
        let missing = files.0.path().join("absent").display().to_string();
        let folder = files.0.path().display().to_string();
        let kubelet = |text: &str| files.refused("--kubelet-config", format!("{KUBELET}{text}"));
        let proxy = |text: &str| files.refused("--kube-proxy-config", format!("{PROXY}{text}"));
        let kubeadm = |text: &str| files.refused("--kubeadm-config", text);
        let by_hand = files.write("kubeadm.yaml", CLUSTER);
        let by_hand = files.read(&["--kubeadm-config", &by_hand], &[Bootstrap::ByHand]);
        let said = [
            files.told(files.read(&["--kubelet-config", &missing], &Bootstrap::ALL)),
            files
                .told(files.read(&["--kubelet-config", &folder], &Bootstrap::ALL))
                .replace(&folder, "FOLDER"),
            files.refused("--kubelet-config", [0x7f, b'E', 0xff]),
            files.refused("--kubelet-config", vec![b' '; 300 << 10]),
            files.refused("--kubelet-config", "# nothing\n---\n"),
            files.refused("--kubelet-config", "maxPods: 7\n"),
            files.refused("--kubelet-config", "- maxPods\n"),
            files.refused("--kubelet-config", "kind: \"Pod\\e[2J\"\n"),
            files.refused("--kubelet-config", "kind: KubeletConfiguration\n"),
            files.refused("--kubelet-config", PROXY),
            kubelet("maxPods: 7\nmaxPods: 8\n"),
            kubelet("maxPods: [\n"),
            kubelet(&format!("maxPods: {}{}\n", "[".repeat(99), "]".repeat(99))),
            kubelet("maxPodz: 7\n"),
            kubelet("authentication: { webhook: { on: true } }\n"),
            kubelet("cgroupDriver: cgroupfs\nstaticPodPath: \"/tmp/\\e[2J\"\n"),
            proxy("nodePortAdresses: [primary]\n"),
            proxy("mode: iptables\nclusterCIDR: 10.244.0.0/16\n"),
            kubeadm(&CLUSTER.replace("v1beta4", "v1beta3")),
            kubeadm(&format!("{CLUSTER}---\n{CLUSTER}")),
            kubeadm("kind: ResetConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n"),
            kubeadm(&format!(
                "{CLUSTER}networking: {{ podSubnet: 10.244.0.0/16 }}\n"
            )),
            files.told(by_hand),
        ];
        insta::assert_snapshot!(said.join("\n"), @r#"
        --kubelet-config absent: No such file or directory (os error 2)
        --kubelet-config FOLDER: Is a directory (os error 21)
        --kubelet-config FILE: it is no text (UTF-8)
        --kubelet-config FILE: it has more than 256 KiB, and is no configuration
        --kubelet-config FILE: there is no document in it; it takes KubeletConfiguration
        --kubelet-config FILE: a document in it has no kind; it takes KubeletConfiguration
        --kubelet-config FILE: a document in it is no object; it takes KubeletConfiguration
        --kubelet-config FILE: it takes KubeletConfiguration, and not Pod\u001b[2J
        --kubelet-config FILE: KubeletConfiguration has no apiVersion; podwire's own is of kubelet.config.k8s.io/v1beta1
        --kubelet-config FILE: it takes KubeletConfiguration; KubeProxyConfiguration belongs into the file of --kube-proxy-config
        --kubelet-config FILE: duplicate mapping key `maxPods` is not allowed here at line 4, column 1
        --kubelet-config FILE: unclosed bracket '[' at line 3, column 10
        --kubelet-config FILE: YAML document too large or too complex: limits breached: Depth { depth: 65 } at line 3, column 73
        --kubelet-config FILE: KubeletConfiguration of Kubernetes 1.36 has no field maxPodz; the nearest is maxPods
        --kubelet-config FILE: KubeletConfiguration of Kubernetes 1.36 has no field authentication.webhook.on
        --kubelet-config FILE: it does not go with what podwire needs:
          KubeletConfiguration: cgroupDriver is "cgroupfs", and podwire needs "systemd", since containerd has systemd make its cgroups
          KubeletConfiguration: staticPodPath is "/tmp/\u001b[2J", and podwire needs "/etc/kubernetes/manifests", since static Pods are put there
        --kube-proxy-config FILE: KubeProxyConfiguration of Kubernetes 1.36 has no field nodePortAdresses; the nearest is nodePortAddresses
        --kube-proxy-config FILE: it does not go with what podwire needs:
          KubeProxyConfiguration: mode is "iptables", and podwire needs "nftables", since the cell is named by it (--kube-proxy)
          KubeProxyConfiguration: clusterCIDR is "10.244.0.0/16", and podwire needs "", since no node here knows a range of all Pods
          KubeProxyConfiguration: clusterCIDR is "10.244.0.0/16", and podwire needs "10.1.0.0/16", since kubeadm is told so of the Pods
        --kubeadm-config FILE: ClusterConfiguration is of kubeadm.k8s.io/v1beta3; podwire's own, into which it is merged, is of kubeadm.k8s.io/v1beta4
        --kubeadm-config FILE: there are two documents of the kind ClusterConfiguration in it
        --kubeadm-config FILE: it takes InitConfiguration, ClusterConfiguration, JoinConfiguration, and not ResetConfiguration
        --kubeadm-config FILE: it does not go with what podwire needs:
          ClusterConfiguration: networking.podSubnet is "10.244.0.0/16", and podwire needs "10.1.0.0/16", since the Pod network is set up for it (--pod-network)
        --kubeadm-config kubeadm.yaml: no cluster here is made by kubeadm, and nothing else reads it; take --bootstrap kubeadm
        "#);
    }

    /// Ten aliases of ten aliases of ten ... are a billion values.
    #[test]
    fn a_document_that_grows_when_it_is_read_is_refused() {
        let mut text = format!("{KUBELET}a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let ten = vec![format!("*a{}", level - 1); 10].join(",");
            text += &format!("a{level}: &a{level} [{ten}]\n");
        }
        let said = Files::new().refused("--kubelet-config", text);
        assert!(said.contains("too large or too complex"), "{said}");
    }

    #[test]
    fn of_programs_that_are_the_user_s_or_newer_no_fields_are_known() {
        let files = Files::new();
        let file = files.write("k.yaml", format!("{KUBELET}brandNew: 1\n"));
        let words = ["xtask", "test", "--kubelet-config", &file];
        let Command::Test(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("it is about a test");
        };
        let cells = [Cell::usual(Bootstrap::ByHand)];
        let read = |target| Given::read(&args.network, target);
        assert!(read(target(&cells)).is_err());
        let own = Target {
            own_programs: true,
            ..target(&cells)
        };
        assert!(read(own).is_ok());
        let newer = Target {
            kubernetes: "1.37.0",
            ..target(&cells)
        };
        assert!(read(newer).is_ok());
    }

    #[test]
    fn what_a_stage_does_not_have_yet_is_refused() {
        let files = Files::new();
        let file = files.write("k.yaml", format!("{KUBELET}maxPods: 7\n"));
        let given = files.read(&["--kubelet-config", &file], &[Bootstrap::ByHand]);
        let given = given.unwrap();
        let cells = [Cell::usual(Bootstrap::ByHand)];
        let reach = |stage| given.reach(target(&cells), stage);
        let refused = files.told(reach(StageName::ControlPlane).map(|()| given.clone()));
        insta::assert_snapshot!(refused, @"--kubelet-config k.yaml: nothing in a cluster of 3 nodes has read KubeletConfiguration at the stage control-plane; take a later --stage");
        assert!(reach(StageName::Joined).is_ok());
        assert!(reach(StageName::Workload).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_file_is_read_or_refused(text in ".{0,200}") {
            let _ = parsed(&text);
        }

        #[test]
        fn what_is_written_as_json_is_read_as_that(value in -1000_i64..1000, name in "[a-z ]{1,8}") {
            let document = json!({ "kind": name, "fields": { name.clone(): [value, true, null] } });
            let compact = parsed(&document.to_string()).unwrap();
            prop_assert_eq!(&compact, std::slice::from_ref(&document));
            prop_assert_eq!(parsed(&format!("{document:#}")).unwrap(), compact);
        }
    }
}
