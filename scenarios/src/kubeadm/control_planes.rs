//! A control plane on several nodes, of which one loses its power.

use std::time::{Duration, Instant};

use podwire_scenario::{
    Answer, Cause, Cells, InitConfig, Lab, Layout, Needs, Place, Probe, Profile, Sabotage,
    Scenario, StageName, ensure, secs, steps,
};
use serde_json::json;

use super::init::COMPONENTS;
use crate::catalogue::HIGHLY_AVAILABLE;
use crate::field::used_services::{
    NONE, a_daemon_set_is_used, all_accounted, all_begin, all_go_on, new_connections,
    new_connections_are_cut_off, used_pods,
};

/// "Creating Highly Available Clusters with kubeadm" of the Kubernetes documentation, with stacked etcd: a balancer, the
/// first node with `--upload-certs`, two more by the command that init prints.
///
/// The Pods are on the nodes that stay. It brings its own network of the nodes' routes, so that nothing of the cluster's
/// waits for a node that is no more.
pub(crate) const CONTROL_PLANES: Scenario = Scenario {
    about: "Two more nodes join as control planes, with the certificates that init has uploaded, behind a balancer; the \
            node that leads etcd loses its power: the API takes writes again within the time that an election \
            takes, and who uses Services whose Pods stay loses nothing; when its member is taken out, two are \
            left, and no write is taken while one of these stands still",
    covers: &[HIGHLY_AVAILABLE],
    cells: Cells::Kubeadm,
    layout: Layout::ControlPlanes,
    profile: Profile::Full,
    // One for each processor of its machines: emulated on two, their API servers and etcd wait for each other until
    // probes give one up, and whoever starts anew makes all others wait longer.
    cores: 4,
    limit: secs(600),
    prepare: Some(steps!(three_control_planes)),
    sabotages: &[
        Sabotage::new("another-key")
            .about("node 3 has another key for service accounts than node 1")
            .inject(steps!(|lab| {
                balanced(lab).await?;
                lab.node(3).run("openssl genrsa -out /etc/kubernetes/pki/sa.key 2048").await
            }))
            .caught_by(steps!(certificates_are_the_first_ones), Cause::WrongAnswer),
        Sabotage::new("balancer-knows-one")
            .about("the balancer knows of the node alone that loses its power")
            .inject(steps!(|lab| {
                lab.balance_api(&[3]).await?;
                lab.node(3).loses_power().await
            }))
            .caught_by(steps!(api_takes_writes_again), Cause::NotReady),
        Sabotage::new("two-of-three")
            .about("a second member of etcd stands still when the first loses its power")
            .inject(steps!(|lab| {
                balanced(lab).await?;
                // The kubelet would start a member anew that does not answer.
                lab.node(2).stop("kubelet").await?;
                lab.node(2).halt("etcd").await?;
                lab.node(3).loses_power().await
            }))
            .caught_by(steps!(api_takes_writes_again), Cause::NotReady),
        Sabotage::new("service-cut")
            .about("node 1 drops what its Pods send to Pods")
            .inject(steps!(|lab| {
                balanced(lab).await?;
                used_pods(lab, STAY).await?;
                new_connections(lab).await?;
                lab.node(1).drop_forwarded_requests().await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(new_connections_are_cut_off), Cause::TimedOut),
        Sabotage::new("nobody-stands-still")
            .about("of two members both go on")
            .inject(steps!(|lab| {
                balanced(lab).await?;
                lab.node(3).loses_power().await?;
                api_takes_writes_again(lab).await?;
                lab.node(3).leaves_etcd().await
            }))
            .caught_by(steps!(no_write_is_taken), Cause::Answered),
    ],
    ..Scenario::new("kubeadm_control_planes", StageName::Identified, steps!(control_planes))
};

/// The nodes that keep their power.
const STAY: usize = 2;

/// The first node begins, and the others join one after the other: etcd takes one new member at a time.
async fn three_control_planes(lab: &Lab) -> anyhow::Result<()> {
    lab.balance_api(&[1]).await?;
    lab.kubeadm(1).prepare(&told(lab)?).await?;
    // Nobody here asks for names.
    lab.kubeadm(1).init(&["--upload-certs", "--skip-phases addon/coredns"]).await?;
    lab.reach_api().await?;
    let command = lab.join_command_of_a_control_plane().await?;
    for node in [lab.node(2), lab.node(3)] {
        lab.kubeadm(node.number()).prepare_to_join().await?;
        lab.kubeadm(node.number()).join_as_control_plane(&command).await?;
    }

    lab.step("a network of routes, and the Pods of two nodes, which take Pods");
    for node in lab.nodes() {
        node.write_cni_file(node.pod_range()).await?;
    }
    lab.add_all_routes().await?;
    lab.all_nodes_ready().await?;
    lab.kubectl("taint nodes node1 node2 node-role.kubernetes.io/control-plane-").await?;
    a_daemon_set_is_used(lab).await?;
    used_pods(lab, STAY).await
}

/// Ten times their own.
const PATIENT: [(&str, &str); 3] = [
    ("leader-elect-lease-duration", "150s"),
    ("leader-elect-renew-deadline", "100s"),
    ("leader-elect-retry-period", "20s"),
];

/// init's configuration in a cluster of several: the balancer's address, and leaders that are elected.
fn told(lab: &Lab) -> anyhow::Result<InitConfig> {
    let mut config = lab.init_config()?;
    let cluster = config.document("ClusterConfiguration")?;
    cluster["controlPlaneEndpoint"] = json!(lab.api_endpoint().to_string());
    for component in ["controllerManager", "scheduler"] {
        let Some(arguments) = cluster[component]["extraArgs"].as_array_mut() else {
            continue;
        };
        // Where nothing is elected otherwise, a busy emulated processor would let a usual lease expire.
        if arguments.iter().any(|it| it["name"] == "leader-elect") {
            arguments.retain(|it| it["name"] != "leader-elect");
            arguments.extend(PATIENT.map(|(name, value)| json!({ "name": name, "value": value })));
        }
    }
    if let Some(networking) = cluster["networking"].as_object_mut() {
        networking.remove("podSubnet");
    }
    Ok(config)
}

async fn control_planes(lab: &Lab) -> anyhow::Result<()> {
    balanced(lab).await?;
    certificates_are_the_first_ones(lab).await?;
    static_pods_of_each(lab).await?;
    each_has_a_vote(lab, &["node1", "node2", "node3"]).await?;
    each_api_server_is_one_of_the_cluster_s(lab).await?;

    used_pods(lab, STAY).await?;
    all_begin(lab).await?;
    lab.node(3).leads_etcd().await?;
    lab.node(3).loses_power().await?;
    api_takes_writes_again(lab).await?;
    all_go_on(lab, NONE).await?;

    lab.node(3).leaves_etcd().await?;
    each_has_a_vote(lab, &["node1", "node2"]).await?;
    lab.node(2).halt("etcd").await?;
    no_write_is_taken(lab).await?;
    lab.node(2).go_on("etcd").await?;
    api_takes_writes_again(lab).await?;
    all_go_on(lab, NONE).await?;
    all_accounted(lab).await
}

async fn balanced(lab: &Lab) -> anyhow::Result<()> {
    lab.balance_api(&[1, 2, 3]).await
}

/// What `--upload-certs` brings: authorities and the keys of service accounts. Every node signs the others itself.
const UPLOADED: &str = "\
cd /etc/kubernetes/pki && sha256sum ca.crt ca.key sa.key sa.pub \
front-proxy-ca.crt front-proxy-ca.key etcd/ca.crt etcd/ca.key";

async fn certificates_are_the_first_ones(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the other nodes have node1's authorities and keys");
    let first = lab.node(1).run(UPLOADED).await?.stdout;
    for node in [lab.node(2), lab.node(3)] {
        let own = node.run(UPLOADED).may_fail().await?.stdout;
        let others: Vec<&str> = first.lines().filter(|it| !own.contains(it)).collect();
        let (same, others) = (others.is_empty(), others.join(", "));
        ensure!(same, WrongAnswer, "{node} to have what node1 has", "not {others}");
    }
    Ok(())
}

async fn static_pods_of_each(lab: &Lab) -> anyhow::Result<()> {
    lab.step("each node runs a control plane of static Pods");
    let pods = lab.system_pods().within(secs(60));
    pods.until("the four static Pods of every node Ready", |pods| {
        let every = lab.nodes().flat_map(|node| COMPONENTS.map(|it| (it, format!("{it}-{node}"))));
        for (component, name) in every {
            let ready = pods.iter().any(|pod| pod.name() == name && pod.holds("Ready"));
            if !ready {
                let state = format!("{name} is not Ready");
                return Probe::not_yet(Cause::NotReady, state)
                    .needs(Needs::ControlPlane(component));
            }
        }
        Probe::Done(())
    })
    .await
}

async fn each_has_a_vote(lab: &Lab, nodes: &[&str]) -> anyhow::Result<()> {
    let count = nodes.len();
    lab.step(format!("etcd has {count} members, and each of them has a vote"));
    let members = lab.etcd_members().await?;
    let voters = members.iter().filter(|it| it.votes).map(|it| it.name.as_str());
    let voters: Vec<&str> = voters.collect();
    let as_many = voters == nodes && members.len() == count;
    ensure!(as_many, Absent, "the members {nodes:?}, which vote", "{members:?}");
    Ok(())
}

/// As whoever goes by the authority finds it, by its own address and behind the balancer.
async fn each_api_server_is_one_of_the_cluster_s(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the authority vouches for each API server, at its own address and at the balancer's");
    let own = lab.nodes().map(|node| format!("{}:6443", node.address()));
    let endpoint = lab.api_endpoint().to_string();
    // One after the other behind it.
    let behind = lab.nodes().map(|_| endpoint.clone());
    for at in own.chain(behind) {
        let ask = format!("--cacert /etc/kubernetes/pki/ca.crt https://{at}/readyz");
        let expected = format!("{at} to be ready");
        lab.node(1).curl(ask).await?.ends(Cause::Answered, expected)?;
    }
    Ok(())
}

/// A write, by the balancer's address; each writes something else.
async fn writes(lab: &Lab) -> anyhow::Result<Answer> {
    let time = lab.node(1).run("date +%s%N").await?;
    let write = format!("written={} --overwrite --request-timeout=15s", time.text());
    lab.kubectl(format!("annotate node node1 {write}")).may_fail().await
}

/// What a write may wait for: that etcd's members miss their leader and elect another, and that the balancer passes the
/// lost node over. Who asks meanwhile is told so only when the API server has given etcd up, and comes again.
const AGAIN: Duration = secs(12);

async fn api_takes_writes_again(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the API takes writes again, at the balancer's address");
    let began = Instant::now();
    lab.eventually("a write to be taken", AGAIN, async || {
        let answer = writes(lab).await?;
        Ok(Probe::when(answer.succeeded(), Cause::NotReady, answer.said()))
    })
    .await?;
    lab.step(format!("that was after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn no_write_is_taken(lab: &Lab) -> anyhow::Result<()> {
    lab.step("one of two members is no majority: no write is taken");
    for _ in 0..2 {
        let answer = writes(lab).await?;
        let (refused, said) = (!answer.succeeded(), answer.said());
        ensure!(refused, Answered, "no write while a member of two stands still", "{said}");
    }
    Ok(())
}
