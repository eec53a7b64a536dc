//! A network daemon that asks for the API server where nothing leads yet.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Node, Party, Place, Probe, Profile, Sabotage, Scenario, StageName,
    ensure, ensure_none, secs, steps,
};

use super::network_daemon::stop_and_delete;
use crate::catalogue::C12;

/// C12!: who runs in a Pod asks for the API server at the Service `kubernetes`, which leads nowhere where
/// nobody translates its address.
pub(crate) const WITHOUT_KUBE_PROXY: Scenario = Scenario {
    about: "In a cluster without kube-proxy flannel asks for the API server at the Service's address, and \
            times out: it lays nothing, and no Node gets Ready. Told the API server's own address it lays \
            what leads to all Pods, and every pair answers",
    covers: &[C12],
    cells: Cells::WithFlannel,
    profile: Profile::Full,
    limit: secs(360),
    sabotages: &[
        Sabotage::new("kube-proxy-runs")
            .about("kube-proxy runs on every node")
            .inject(steps!(|lab| {
                lab.restart_kube_proxy().await?;
                lab.apply_flannel(None).await
            }))
            .caught_by(steps!(reaches_nobody_and_lays_nothing), Cause::Answered),
        Sabotage::new("address-not-given")
            .about("nobody tells flannel the API server's address")
            .inject(steps!(|lab| {
                lab.remove_kube_proxy().await?;
                lab.apply_flannel(None).await
            }))
            .caught_by(steps!(lays_everything), Cause::NotReady),
        Sabotage::new("route-deleted")
            .about("flannel of node 1 is stopped, and its route to node 2's Pods deleted")
            .inject(steps!(|lab| {
                lab.remove_kube_proxy().await?;
                lab.apply_flannel(Some(lab.node(1).address())).await?;
                lays_everything(lab).await?;
                stop_and_delete(lab.node(1), lab.node(2)).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(every_pair_answers), Cause::TimedOut),
    ],
    ..Scenario::new("network_daemon_without_kube_proxy", StageName::Joined, steps!(without))
};

async fn without(lab: &Lab) -> anyhow::Result<()> {
    lab.remove_kube_proxy().await?;
    lab.apply_flannel(None).await?;
    reaches_nobody_and_lays_nothing(lab).await?;

    lab.apply_flannel(Some(lab.node(1).address())).await?;
    lays_everything(lab).await?;
    every_pair_answers(lab).await
}

async fn reaches_nobody_and_lays_nothing(lab: &Lab) -> anyhow::Result<()> {
    let service = lab.service("kubernetes").address().await?;
    lab.step(format!("flannel of every node asks for {service}, and times out"));
    let timed_out = format!(
        "grep -s -h -o 'dial tcp {service}:443: i/o timeout' \
         /var/log/pods/kube-flannel_*/*/*.log | head -n 1; true"
    );
    for node in lab.nodes() {
        lab.eventually(format!("flannel of {node} to time out"), secs(60), async || {
            let laid = laid(node).await?;
            if !laid.is_empty() {
                return Ok(Probe::hopeless(Cause::Answered, format!("it has laid {laid}")));
            }
            let said = !node.run(&timed_out).await?.text().is_empty();
            let needs = lab.pods().of_namespace("kube-flannel").needs(1);
            Ok(Probe::when(said, Cause::NotReady, "its log says nothing of it").needs(needs))
        })
        .await?;
    }
    let lost = lab.wire().dropped_for(service);
    ensure!(lost > 0, Absent, "what it asks to leave by the default route", "none at the gateway");

    lab.step("it has laid nothing, and no Node is Ready");
    for node in lab.nodes() {
        let (laid, listed) = (laid(node).await?, node.listed().await?);
        ensure_none!(laid.lines(), Answered, "nothing of flannel's on {node}");
        let ready = listed.is_some_and(|listed| listed.holds("Ready"));
        ensure!(!ready, Answered, "{node} without a network, not Ready", "it is Ready");
    }
    Ok(())
}

/// CNI files, routes to Pods, and tunnels: what a Pod network lays on a node.
async fn laid(node: Node<'_>) -> anyhow::Result<String> {
    let list = "ls /etc/cni/net.d; ip -4 route show root 10.1.0.0/16; ip -o link show type vxlan";
    Ok(node.run(list).may_fail().await?.text().replace('\n', "; "))
}

async fn lays_everything(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all Nodes get Ready, each with what leads to every other's Pods");
    let service = lab.service("kubernetes").address().await?;
    let asks_the_service = lab.nodes().map(|node| Needs::Silence {
        node: node.number(),
        command: format!(
            "for pid in $(pidof flanneld); do tr '\\0' '\\n' </proc/$pid/environ; done | \
             grep -x KUBERNETES_SERVICE_HOST={service}; true"
        ),
        means: "its flannel asks at the Service's address, which nobody translates".to_owned(),
    });
    lab.all_nodes_ready_or(Needs::All(asks_the_service.collect())).await?;
    lab.until_laid_everywhere().await
}

async fn every_pair_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Pod on each node; every ordered pair answers");
    for node in lab.nodes() {
        lab.start_pod(&format!("on-{node}"), node).await?;
    }
    let nodes = lab.node_parties();
    let pods = lab.pods().anybodys().until_running(nodes.len()).await?;
    let everybody: Vec<Party> = nodes.into_iter().chain(pods.iter().cloned()).collect();
    let mesh = lab.mesh(&everybody, &pods).await?;
    Ok(mesh.all_answer("every ordered pair to answer")?)
}
