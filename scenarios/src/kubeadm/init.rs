//! The packages, what `kubeadm init` leaves on node 1, and the cluster's DNS before and after the
//! Pod network.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{ListParams, PostParams};
use podwire_cluster::{StageName, addresses, kubeadm};
use podwire_probe::{FetchRequest, Outcome};
use podwire_scenario::assert::Party;
use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually,
    eventually_unless,
};
use serde_json::json;

use crate::catalogue::{E2, E3, E6};
use crate::prospects;
use crate::steps::{nodes, on};

use super::steps::{full_name, holds, join_command, kubectl, probe_container, say, system_pods};

/// E2: what a person installs before anything else.
pub(crate) const PACKAGES: Scenario = Scenario {
    name: "packages_are_held",
    about: "kubelet, kubeadm, kubectl, the CNI plugins and crictl are installed as packages of the \
            version under test, and on hold",
    covers: &[E2],
    stage: StageName::Init,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 1,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(packages(lab)),
    sabotages: &[
        Sabotage {
            name: "not-held",
            about: "kubeadm is no longer on hold",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    on(lab, 1, "apt-mark unhold kubeadm").await?;
                    lab.injected();
                    packages(lab).await
                })
            },
        },
        Sabotage {
            name: "package-removed",
            about: "the package of crictl is gone",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    on(lab, 1, "dpkg --force-all --purge cri-tools 2>&1").await?;
                    lab.injected();
                    packages(lab).await
                })
            },
        },
    ],
    red_when: &[],
};

/// The packages, as upstream names them.
const NAMES_OF_PACKAGES: [&str; 5] = [
    "kubelet",
    "kubeadm",
    "kubectl",
    "kubernetes-cni",
    "cri-tools",
];

async fn packages(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask dpkg and apt-mark, and the programs themselves");
    let ask = format!(
        "dpkg-query -W -f 'package ${{Package}} ${{Version}} ${{db:Status-Status}}\\n' {} 2>/dev/null; \
         apt-mark showhold | sed 's/^/held /'; \
         echo runs kubelet $(kubelet --version | cut -d' ' -f2); \
         echo runs kubeadm $(kubeadm version -o short)",
        NAMES_OF_PACKAGES.join(" ")
    );
    Ok(installed_and_held(&on(lab, 1, &ask).await?)?)
}

fn installed_and_held(answer: &str) -> Result<(), Failure> {
    let lines: Vec<Vec<&str>> = answer
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for name in NAMES_OF_PACKAGES {
        let version = lines.iter().find_map(|line| match line.as_slice() {
            ["package", package, version, "installed"] if *package == name => Some(*version),
            _ => None,
        });
        let Some(version) = version else {
            let seen = format!("{name} is not: {answer}");
            let expected = "kubeadm's packages to be installed";
            return Err(Failure::new(Cause::Absent, expected, seen));
        };
        if !lines.iter().any(|line| line.as_slice() == ["held", name]) {
            let seen = format!("{name} is not: {answer}");
            let expected = "kubeadm's packages to be on hold";
            return Err(Failure::new(Cause::WrongAnswer, expected, seen));
        }
        let runs = lines.iter().find_map(|line| match line.as_slice() {
            ["runs", program, runs] if *program == name => Some(*runs),
            _ => None,
        });
        if let Some(runs) = runs
            && !version.starts_with(runs.trim_start_matches('v'))
        {
            let expected = format!("the program of package {name} {version}");
            let seen = format!("{name} says that it is {runs}");
            return Err(Failure::new(Cause::WrongAnswer, expected, seen));
        }
    }
    Ok(())
}

/// E3: what `kubeadm init` leaves. That it finds its ports free and etcd's folder empty is shown on
/// a node where it has not run.
pub(crate) const LEAVES: Scenario = Scenario {
    name: "kubeadm_init",
    about: "After kubeadm init node 1 has an authority, kubeconfigs whose certificates chain to it, \
            and a control plane of static Pods; its join command is printed and admin.conf works",
    covers: &[E3],
    stage: StageName::Init,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(init_leaves(lab)),
    sabotages: &[
        Sabotage {
            name: "foreign-certificate",
            about: "the scheduler's kubeconfig carries a certificate of another authority",
            expects: Cause::Tls,
            run: |lab| {
                Box::pin(async {
                    give_the_scheduler_a_foreign_certificate(lab).await?;
                    lab.injected();
                    files_of_the_control_plane(lab).await
                })
            },
        },
        Sabotage {
            name: "manifest-missing",
            about: "the scheduler's manifest is gone",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    on(lab, 1, "rm /etc/kubernetes/manifests/kube-scheduler.yaml").await?;
                    lab.injected();
                    files_of_the_control_plane(lab).await
                })
            },
        },
        Sabotage {
            name: "port-taken",
            about: "something listens on the controller manager's port of a node without one",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    on(lab, 2, "systemd-run --quiet probe serve --port 10257").await?;
                    lab.injected();
                    eventually(
                        "something to listen",
                        lab.limit(Duration::from_secs(10)),
                        async || {
                            let open = listening(&on(lab, 2, LISTENING).await?);
                            Ok(if open.contains(&10257) {
                                Probe::Done(())
                            } else {
                                Probe::not_yet(Cause::Absent, "not yet")
                            })
                        },
                    )
                    .await?;
                    ports(lab).await
                })
            },
        },
    ],
    red_when: &[],
};

async fn init_leaves(lab: &Lab) -> anyhow::Result<()> {
    ports(lab).await?;
    files_of_the_control_plane(lab).await?;
    static_pods_run(lab).await?;

    lab.step("node1 has the role of the control plane");
    let name = addresses::node_name(1);
    let labels = nodes(lab).get(&name).await?.metadata.labels;
    if !labels.is_some_and(|it| it.contains_key("node-role.kubernetes.io/control-plane")) {
        let expected = "node1 to have the role control-plane";
        return Err(Failure::new(Cause::Absent, expected, "no such label").into());
    }

    lab.step("the join command is printed at the end, for the API server's address");
    let command = join_command(lab).await?;
    let endpoint = format!("{}:{}", addresses::node_address(1), addresses::API_PORT);
    if command.endpoint != endpoint {
        let expected = format!("a join command for {endpoint}");
        return Err(Failure::new(Cause::WrongAnswer, expected, command.to_string()).into());
    }
    admin_conf_works_for_a_user(lab).await
}

/// Ports that `kubeadm init` checks before it begins, and that the control plane then listens on.
const PORTS: [u16; 6] = [6443, 10250, 10257, 10259, 2379, 2380];

const LISTENING: &str = "ss -Hltn";

async fn ports(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ports and etcd's folder: free on node2, where init has not run, used on node1");
    let ask = format!("{LISTENING}; ls -A /var/lib/etcd 2>/dev/null | sed 's/^/etcd /'");
    let (before, after) = (on(lab, 2, &ask).await?, on(lab, 1, &ask).await?);
    let has_data = |answer: &str| answer.lines().any(|line| line.starts_with("etcd "));
    let (free, used) = (listening(&before), listening(&after));
    if let Some(port) = PORTS.iter().find(|port| free.contains(*port)) {
        let expected = "init's ports free on a node where it has not run";
        let seen = format!("something listens on {port} of node2");
        return Err(Failure::new(Cause::Answered, expected, seen).into());
    }
    if has_data(&before) {
        let expected = "etcd's folder empty on a node where init has not run";
        return Err(Failure::new(Cause::Answered, expected, before).into());
    }
    if let Some(port) = PORTS.iter().find(|port| !used.contains(*port)) {
        let expected = "the control plane to listen on all of its ports";
        let seen = format!("nothing on {port} of node1");
        return Err(Failure::new(Cause::Absent, expected, seen).into());
    }
    if !has_data(&after) {
        let expected = "etcd's data on node1";
        return Err(Failure::new(Cause::Absent, expected, "an empty folder").into());
    }
    Ok(())
}

/// The ports in what `ss -Hltn` says: state, queues, local address, peer.
fn listening(answer: &str) -> BTreeSet<u16> {
    answer
        .lines()
        .filter(|line| line.starts_with("LISTEN"))
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter_map(|local| local.rsplit_once(':')?.1.parse().ok())
        .collect()
}

/// Below /etc/kubernetes. The service account key and etcd's own authority are beside the first.
const FILES: [&str; 13] = [
    "pki/ca.crt",
    "pki/ca.key",
    "pki/sa.key",
    "pki/etcd/ca.crt",
    "admin.conf",
    "super-admin.conf",
    "kubelet.conf",
    "controller-manager.conf",
    "scheduler.conf",
    "manifests/etcd.yaml",
    "manifests/kube-apiserver.yaml",
    "manifests/kube-controller-manager.yaml",
    "manifests/kube-scheduler.yaml",
];

/// The client certificate is in the kubeconfig, or in the file that it names: the kubelet's is
/// renewed there.
const CHAINS: &str = "\
cd /etc/kubernetes; find . -type f -printf 'file %P\\n'; \
for name in admin super-admin kubelet controller-manager scheduler; do \
data=$(sed -n 's/.*client-certificate-data: //p' $name.conf); \
if [ \"$data\" ]; then echo $data | base64 -d; \
else cat $(sed -n 's/.*client-certificate: //p' $name.conf); fi | \
openssl verify -CAfile pki/ca.crt >/dev/null 2>&1 && echo chain $name; \
done";

async fn files_of_the_control_plane(lab: &Lab) -> anyhow::Result<()> {
    lab.step("files below /etc/kubernetes, and whose certificates chain to the authority");
    let answer = on(lab, 1, &format!("{CHAINS}; true")).await?;
    Ok(files_and_chains(&answer)?)
}

fn files_and_chains(answer: &str) -> Result<(), Failure> {
    let says = |kind: &str, what: &str| {
        answer
            .lines()
            .any(|line| line.split_once(' ') == Some((kind, what)))
    };
    if let Some(missing) = FILES.iter().find(|file| !says("file", file)) {
        let expected = "init to leave its files in /etc/kubernetes";
        return Err(Failure::new(
            Cause::Absent,
            expected,
            format!("no {missing}"),
        ));
    }
    let kubeconfigs = FILES.iter().filter_map(|file| file.strip_suffix(".conf"));
    for name in kubeconfigs {
        if !says("chain", name) {
            let expected = "every kubeconfig's client certificate to chain to the authority";
            let seen = format!("{name}.conf's does not");
            return Err(Failure::new(Cause::Tls, expected, seen)
                .look("`openssl verify -CAfile /etc/kubernetes/pki/ca.crt` on node1"));
        }
    }
    Ok(())
}

async fn give_the_scheduler_a_foreign_certificate(lab: &Lab) -> anyhow::Result<()> {
    lab.step("give the scheduler a certificate that it signed itself");
    on(
        lab,
        1,
        "cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
         -subj /CN=system:kube-scheduler -keyout foreign.key -out foreign.crt 2>/dev/null && \
         data=$(base64 -w0 foreign.crt) && \
         sed -i \"s|client-certificate-data: .*|client-certificate-data: $data|\" \
         /etc/kubernetes/scheduler.conf",
    )
    .await?;
    Ok(())
}

async fn static_pods_run(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the control plane runs as static Pods, each named after its node");
    let waited_for = Cell::new(COMPONENTS[0]);
    eventually_unless(
        "the four static Pods of node1 Ready",
        lab.limit(Duration::from_secs(30)),
        async || prospects::control_plane(lab, waited_for.get()).await,
        async || {
            let pods = system_pods(lab).list(&ListParams::default()).await?.items;
            let state: BTreeMap<String, bool> = pods
                .iter()
                .map(|pod| (full_name(pod), holds(pod, "Ready")))
                .collect();
            for component in COMPONENTS {
                waited_for.set(component);
                let name = format!("kube-system/{component}-{}", addresses::node_name(1));
                match state.get(&name) {
                    Some(true) => {}
                    Some(false) => {
                        let state = format!("{name} is not Ready");
                        return Ok(Probe::not_yet(Cause::NotReady, state));
                    }
                    None => {
                        let state = format!("no {name}");
                        return Ok(Probe::not_yet(Cause::Absent, state));
                    }
                }
            }
            Ok(Probe::Done(()))
        },
    )
    .await
}

/// The static Pods of a control plane.
pub(super) const COMPONENTS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// What init's last words tell a regular user to do.
async fn admin_conf_works_for_a_user(lab: &Lab) -> anyhow::Result<()> {
    lab.step("copy admin.conf for a regular user, who then lists the Nodes");
    let command = format!(
        "install -d -o nobody /tmp/nobody /tmp/nobody/.kube && \
         install -o nobody -m 600 {} /tmp/nobody/.kube/config && \
         runuser -u nobody -- env HOME=/tmp/nobody kubectl get nodes -o name",
        kubeadm::ADMIN_CONFIG
    );
    let said = say(lab, 1, &command, Duration::from_secs(20)).await?;
    let name = addresses::node_name(1);
    if said.success && said.text.contains(&format!("node/{name}")) {
        return Ok(());
    }
    let expected = "kubectl to list node1 with a copy of admin.conf";
    Err(Failure::new(Cause::Other, expected, said.text).into())
}

/// E6, before: init creates CoreDNS, and no node takes it.
///
/// Today's scheduler no longer names the taint in the Pod's condition: the Nodes are asked for it.
pub(crate) const CORE_DNS_WAITS: Scenario = Scenario {
    name: "coredns_waits_for_the_pod_network",
    about: "Without a Pod network CoreDNS stays Pending: every Node carries the not-ready taint, \
            which it does not tolerate; kube-proxy, which does, runs beside it",
    covers: &[E6],
    stage: StageName::Joined,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(core_dns_waits(lab)),
    sabotages: &[Sabotage {
        name: "coredns-tolerates",
        about: "CoreDNS tolerates every taint",
        expects: Cause::WrongAnswer,
        run: |lab| {
            Box::pin(async {
                lab.step("let CoreDNS tolerate every taint");
                kubectl(
                    lab,
                    "-n kube-system patch deployment coredns --patch \
                     '{\"spec\":{\"template\":{\"spec\":{\"tolerations\":[{\"operator\":\"Exists\"}]}}}}'",
                )
                .await?;
                lab.injected();
                eventually_unless(
                    "a Pod of CoreDNS on a node",
                    lab.limit(Duration::from_secs(30)),
                    async || prospects::of_pods(lab, &core_dns(lab).await?).await,
                    async || {
                        let bound = core_dns(lab).await?.iter().any(is_bound);
                        Ok(if bound {
                            Probe::Done(())
                        } else {
                            Probe::not_yet(Cause::NotReady, "all wait")
                        })
                    },
                )
                .await?;
                core_dns_waits(lab).await
            })
        },
    }],
    red_when: &[],
};

async fn core_dns_waits(lab: &Lab) -> anyhow::Result<()> {
    lab.step("CoreDNS is Pending: no node takes it");
    let pods = core_dns(lab).await?;
    if pods.is_empty() {
        let expected = "the Pods of CoreDNS, which init creates";
        return Err(Failure::new(Cause::Absent, expected, "none").into());
    }
    for pod in &pods {
        waits_for_a_node(pod)?;
    }
    lab.step("every Node carries the not-ready taint");
    for node in nodes(lab).list(&ListParams::default()).await?.items {
        let name = node.metadata.name.unwrap_or_default();
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        if !taints.iter().any(|taint| taint.key == NOT_READY) {
            let keys: Vec<String> = taints.into_iter().map(|taint| taint.key).collect();
            let expected = format!("every Node to carry {NOT_READY}");
            let seen = format!("{name} has {keys:?}");
            return Err(Failure::new(Cause::Absent, expected, seen).into());
        }
    }
    lab.step("kube-proxy tolerates it, and needs no Pod network: it runs");
    eventually_unless(
        "a kube-proxy on every node",
        lab.limit(Duration::from_secs(30)),
        async || prospects::of_pods(lab, &proxies(lab).await?).await,
        async || {
            let proxies = proxies(lab).await?;
            let ready = proxies.iter().filter(|pod| holds(pod, "Ready")).count();
            Ok(if ready == lab.nodes() as usize {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::NotReady, format!("{ready} are Ready"))
            })
        },
    )
    .await
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";

async fn proxies(lab: &Lab) -> anyhow::Result<Vec<Pod>> {
    let labelled = ListParams::default().labels("k8s-app=kube-proxy");
    Ok(system_pods(lab).list(&labelled).await?.items)
}

async fn core_dns(lab: &Lab) -> anyhow::Result<Vec<Pod>> {
    let labelled = ListParams::default().labels("k8s-app=kube-dns");
    Ok(system_pods(lab).list(&labelled).await?.items)
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some())
}

fn waits_for_a_node(pod: &Pod) -> Result<(), Failure> {
    let name = full_name(pod);
    let expected = format!("{name} Pending, because no Node's taints are tolerated");
    let status = pod.status.clone().unwrap_or_default();
    let scheduled = status.conditions.unwrap_or_default();
    let scheduled = scheduled.into_iter().find(|it| it.type_ == "PodScheduled");
    let phase = status.phase.unwrap_or_default();
    let (reason, message) = scheduled
        .map(|it| {
            (
                it.reason.unwrap_or_default(),
                it.message.unwrap_or_default(),
            )
        })
        .unwrap_or_default();
    let as_expected = phase == "Pending"
        && !is_bound(pod)
        && reason == "Unschedulable"
        && message.contains("had untolerated taint");
    if as_expected {
        return Ok(());
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let seen = format!(
        "{phase} on {}: {reason} {message}",
        node.unwrap_or("no node")
    );
    Err(Failure::new(Cause::WrongAnswer, expected, seen))
}

/// E6, after: the cluster's DNS.
pub(crate) const NAMES: Scenario = Scenario {
    name: "service_names_resolve",
    about: "With a Pod network CoreDNS runs, and a Pod reaches a Service by its name, from another \
            node; a name that does not exist is told apart",
    covers: &[E6],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(120),
    prepare: None,
    run: |lab| Box::pin(names(lab)),
    sabotages: &[Sabotage {
        name: "no-such-service",
        about: "the Service that is asked for was never created",
        expects: Cause::NameNotFound,
        run: |lab| {
            Box::pin(async {
                core_dns_runs(lab).await?;
                let asker = asker_and_answerer(lab).await?;
                lab.injected();
                name_resolves(lab, &asker).await
            })
        },
    }],
    red_when: &[],
};

/// A Pod reaches a new Service by its name, from another node.
pub(super) async fn names(lab: &Lab) -> anyhow::Result<()> {
    core_dns_runs(lab).await?;
    let asker = asker_and_answerer(lab).await?;
    lab.step(format!("put a Service named {ANSWERER} before it"));
    let service = serde_json::from_value(json!({
        "metadata": { "name": ANSWERER },
        "spec": { "selector": { "app": ANSWERER }, "ports": [{ "port": 80 }] },
    }))?;
    let services: Api<Service> = Api::default_namespaced(lab.cluster().api());
    services.create(&PostParams::default(), &service).await?;
    name_resolves(lab, &asker).await
}

async fn core_dns_runs(lab: &Lab) -> anyhow::Result<()> {
    lab.step("CoreDNS is Ready, with addresses of the Pod network");
    eventually_unless(
        "every Pod of CoreDNS Ready",
        lab.limit(Duration::from_secs(60)),
        async || prospects::of_pods(lab, &core_dns(lab).await?).await,
        async || {
            let pods = core_dns(lab).await?;
            let waiting: Vec<String> = pods
                .iter()
                .filter(|pod| !holds(pod, "Ready") || !has_pod_address(pod))
                .map(full_name)
                .collect();
            Ok(if !pods.is_empty() && waiting.is_empty() {
                Probe::Done(())
            } else {
                let state = format!("{} of {} are not", waiting.len(), pods.len());
                Probe::not_yet(Cause::NotReady, state)
            })
        },
    )
    .await
}

fn has_pod_address(pod: &Pod) -> bool {
    address(pod).is_some_and(|address| addresses::PODS.contains(address))
}

/// A Pod's address.
pub(super) fn address(pod: &Pod) -> Option<Ipv4Addr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

const ASKER: &str = "asker";
const ANSWERER: &str = "answerer";

/// Two Pods on different nodes, which use the cluster's DNS; the one that asks.
async fn asker_and_answerer(lab: &Lab) -> anyhow::Result<Party> {
    lab.step(format!(
        "start the Pods {ASKER} and {ANSWERER}, on two nodes"
    ));
    let pods: Api<Pod> = Api::default_namespaced(lab.cluster().api());
    let placed = [(ASKER, lab.nodes()), (ANSWERER, 1)];
    for (name, node) in placed {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                // Past the scheduler: node1's taint concerns new Pods, not this.
                "nodeName": addresses::node_name(node),
                "dnsPolicy": "ClusterFirst",
                "terminationGracePeriodSeconds": 2,
                "containers": [probe_container()],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
    }
    eventually_unless(
        "both Pods Ready",
        lab.limit(Duration::from_secs(40)),
        async || prospects::pods(lab, &format!("app in ({ASKER}, {ANSWERER})"), 2).await,
        async || {
            for (name, _) in placed {
                if !holds(&pods.get(name).await?, "Ready") {
                    return Ok(Probe::not_yet(Cause::NotReady, format!("{name} is not")));
                }
            }
            Ok(Probe::Done(()))
        },
    )
    .await?;
    let asker = pods.get(ASKER).await?;
    Ok(Party {
        name: ASKER.to_owned(),
        node: lab.nodes(),
        pod: true,
        address: address(&asker).context("a Ready Pod without an address")?,
    })
}

async fn name_resolves(lab: &Lab, asker: &Party) -> anyhow::Result<()> {
    let known = format!("{ANSWERER}.default.svc.cluster.local:80");
    let unknown = "nobody.default.svc.cluster.local:80";
    lab.step(format!("ask for {known} from {asker}, and for {unknown}"));
    let request = FetchRequest::new([known.as_str(), unknown]);
    let services: Api<Service> = Api::default_namespaced(lab.cluster().api());
    // A name that is not there yet may come: only silence is looked into.
    let silent = Cell::new(false);
    eventually_unless(
        "the known name to lead to its Pod, and the unknown one nowhere",
        lab.limit(Duration::from_secs(30)),
        async || {
            if !silent.get() {
                return Ok(None);
            }
            service_prospects(lab, asker).await
        },
        async || {
            silent.set(false);
            let report = lab.fetch(asker, &request).await?;
            let [known, unknown] = report.targets.as_slice() else {
                anyhow::bail!("two targets asked, {} reported", report.targets.len());
            };
            if !unknown.all(Outcome::NameNotFound) {
                let state = format!("the unknown name: {unknown}");
                return Ok(Probe::not_yet(Cause::WrongAnswer, state));
            }
            if known.all(Outcome::Answered) && known.hosts().contains_key(ANSWERER) {
                return Ok(Probe::Done(()));
            }
            let outcome = known.results.first().map(|result| result.outcome);
            let cause = outcome.map_or(Cause::Absent, Cause::from);
            silent.set(outcome == Some(Outcome::TimedOut));
            let state = known.to_string();
            Ok(match services.get_opt(ANSWERER).await? {
                Some(_) => Probe::not_yet(cause, state),
                None => Probe::hopeless(cause, format!("{state}, and there is no such Service")),
            })
        },
    )
    .await
}

/// What keeps the answering Pod from being reached, or its name from being resolved.
async fn service_prospects(lab: &Lab, asker: &Party) -> anyhow::Result<Option<Evidence>> {
    if let Some(found) = prospects::of_pods(lab, &core_dns(lab).await?).await? {
        return Ok(Some(found));
    }
    let pods: Api<Pod> = Api::default_namespaced(lab.cluster().api());
    let services: Api<Service> = Api::default_namespaced(lab.cluster().api());
    let (pod, service) = (
        pods.get_opt(ANSWERER).await?,
        services.get_opt(ANSWERER).await?,
    );
    let service = service.and_then(|service| service.spec?.cluster_ip?.parse().ok());
    match (pod.as_ref().and_then(address), service) {
        (Some(pod), Some(service)) => prospects::kube_proxy(lab, asker.node, service, &[pod]).await,
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_there_held_and_what_it_says() {
        let good: String = NAMES_OF_PACKAGES
            .iter()
            .map(|name| format!("package {name} 1.36.4-1 installed\nheld {name}\n"))
            .chain([
                "runs kubelet v1.36.4\n".to_owned(),
                "runs kubeadm v1.36.4\n".to_owned(),
            ])
            .collect();
        assert_eq!(installed_and_held(&good), Ok(()));
        let cause = |from: &str, to: &str| {
            installed_and_held(&good.replacen(from, to, 1))
                .unwrap_err()
                .cause
        };
        assert_eq!(cause("held kubectl\n", ""), Cause::WrongAnswer);
        assert_eq!(cause("package cri-tools", "package other"), Cause::Absent);
        assert_eq!(
            cause("1.36.4-1 installed", "1.36.4-1 config-files"),
            Cause::Absent
        );
        assert_eq!(
            cause("kubeadm v1.36.4", "kubeadm v1.36.3"),
            Cause::WrongAnswer
        );
    }

    #[test]
    fn ports_are_read_from_every_form_of_address() {
        let said = "LISTEN 0 4096 127.0.0.1:10257 0.0.0.0:*\nLISTEN 0 4096 *:6443 *:*\n\
                    LISTEN 0 128 [::]:22 [::]:*\netcd member\n";
        assert_eq!(listening(said), BTreeSet::from([22, 6443, 10257]));
    }

    #[test]
    fn a_missing_file_and_a_foreign_certificate_are_told_apart() {
        let files: String = FILES.iter().map(|file| format!("file {file}\n")).collect();
        let chains = "chain admin\nchain super-admin\nchain kubelet\nchain controller-manager\n";
        let good = format!("{files}{chains}chain scheduler\n");
        assert_eq!(files_and_chains(&good), Ok(()));
        let failure = files_and_chains(&format!("{files}{chains}")).unwrap_err();
        assert_eq!(failure.cause, Cause::Tls);
        assert!(failure.seen.contains("scheduler.conf"), "{failure}");
        let failure = files_and_chains(chains).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
    }

    #[test]
    fn waiting_means_pending_for_the_reason_of_taints() {
        let pod = |phase: &str, node: Option<&str>, message: &str| {
            serde_json::from_value::<Pod>(json!({
                "metadata": { "name": "coredns-1", "namespace": "kube-system" },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "phase": phase, "conditions": [{
                    "type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": message,
                }] },
            }))
            .unwrap()
        };
        let taints = "0/3 nodes are available: 3 node(s) had untolerated taint(s).";
        assert_eq!(waits_for_a_node(&pod("Pending", None, taints)), Ok(()));
        assert!(waits_for_a_node(&pod("Pending", None, "Insufficient cpu")).is_err());
        let bound = waits_for_a_node(&pod("Pending", Some("node2"), taints)).unwrap_err();
        assert!(bound.seen.contains("node2"), "{bound}");
    }
}
