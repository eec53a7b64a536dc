//! The first node: from a kubelet with a kubeconfig to a Pod that answers.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Place, Pod, Probe, Profile, Sabotage, Scenario, StageName, ensure,
    secs, steps,
};
use serde_json::{Value, json};

use super::first_cni_file::{
    CNI_FILE, CNI_PATH, daemons, malformed, malformed_file_is_named, not_ready_without_a_cni_file,
    ready_by_the_file_alone, ready_with,
};
use crate::catalogue::{B6, B7, B8, B8b, B10};

/// B6, B7!, B8, B8b!, B10: they share the start of an open control plane, of containerd, and of a
/// kubelet with the kubeconfig of the documents. Two Pods are bound to the node by hand: the documents
/// start the scheduler last, and one of the two is to run before that could do anything.
pub(crate) const FIRST_NODE: Scenario = Scenario {
    about: "A kubelet with a kubeconfig makes a Node, which is not Ready without a CNI file, nor with a \
            malformed one: only what is on the host's network runs; it is Ready a little after the file \
            is in order, nobody is started anew, and the Pod that waited answers at an address of the \
            node's range",
    covers: &[B6, B7, B8, B8b, B10],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(300),
    prepare: Some(steps!(|lab| {
        lab.start_open_control_plane().await?;
        lab.start_open_node().await?;
        place(lab, &[WAITS, BESIDE]).await
    })),
    sabotages: &[
        Sabotage::new("no-kubeconfig")
            .about("the kubelet has no kubeconfig")
            .inject(steps!(|lab| {
                let node1 = lab.node(1);
                node1.stop_component(&node1.kubelet()).await?;
                lab.kubectl("delete node node1").await?;
                node1.start_component(&node1.open_kubelet().without("--kubeconfig")).await
            }))
            .caught_by(steps!(node_is_listed), Cause::Absent),
        Sabotage::new("cni-file-is-there")
            .about("the CNI file is there before the first look")
            .inject(steps!(|lab| ready_with(lab, CNI_FILE).await))
            .caught_by(steps!(not_ready_without_a_cni_file), Cause::Answered),
        Sabotage::new("off-the-host-network")
            .about("the Pod that is to run is not on the host's network")
            .inject(steps!(|lab| place(lab, &[OnNode1 { host_network: false, ..BESIDE }]).await))
            .caught_by(steps!(host_network_pod_runs), Cause::NotReady),
        Sabotage::new("on-the-host-network")
            .about("the Pod that is to wait is on the host's network")
            .inject(steps!(|lab| {
                place(lab, &[OnNode1 { host_network: true, ..WAITS }]).await?;
                runs(lab, WAITS.name).await
            }))
            .caught_by(steps!(other_pod_waits), Cause::Answered),
        Sabotage::new("file-in-order")
            .about("the CNI file is not malformed")
            .inject(steps!(|lab| ready_with(lab, CNI_FILE).await))
            .caught_by(steps!(malformed_file_is_named), Cause::Answered),
        Sabotage::new("nobody-reads-it")
            .about("the malformed file has not the name of a CNI file")
            .inject(steps!(|lab| lab.node(1).write("/etc/cni/net.d/kube.txt", malformed()).await))
            .caught_by(steps!(malformed_file_is_named), Cause::Absent),
        Sabotage::new("file-stays-malformed")
            .about("the malformed file is not corrected")
            .inject(steps!(|lab| {
                lab.keep(daemons(lab).await?);
                lab.node(1).write(CNI_PATH, malformed()).await
            }))
            .caught_by(steps!(ready_by_the_file_alone), Cause::NotReady),
        Sabotage::new("containerd-restarted")
            .about("somebody restarts containerd for it to read the file")
            .inject(steps!(|lab| {
                lab.keep(daemons(lab).await?);
                lab.node(1).write(CNI_PATH, CNI_FILE).await?;
                lab.node(1).restart("containerd").await
            }))
            .caught_by(steps!(ready_by_the_file_alone), Cause::Died),
        Sabotage::new("another-subnet")
            .about("the CNI file has another subnet than the node's")
            .inject(steps!(|lab| ready_with(lab, &CNI_FILE.replace("10.1.1.", "10.1.9.")).await))
            .caught_by(steps!(pod_answers_its_node), Cause::OutsideRange),
        Sabotage::new("bridge-down")
            .about("the bridge that the Pod hangs on is down")
            .inject(steps!(|lab| {
                ready_with(lab, CNI_FILE).await?;
                runs(lab, WAITS.name).await?;
                lab.node(1).run("ip link set cni0 down").await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(pod_answers_its_node), Cause::TimedOut),
    ],
    ..Scenario::new("first_node", StageName::Identified, steps!(first_node))
};

async fn first_node(lab: &Lab) -> anyhow::Result<()> {
    node_is_listed(lab).await?;
    not_ready_without_a_cni_file(lab).await?;
    host_network_pod_runs(lab).await?;
    other_pod_waits(lab).await?;

    lab.keep(daemons(lab).await?);
    lab.step("write a CNI file that lacks a comma (B8b)");
    lab.node(1).write(CNI_PATH, malformed()).await?;
    malformed_file_is_named(lab).await?;

    lab.step("write the documents' file in its place (B8, B8b)");
    lab.node(1).write(CNI_PATH, CNI_FILE).await?;
    ready_by_the_file_alone(lab).await?;
    pod_answers_its_node(lab).await
}

/// A Pod that is bound to node 1.
#[derive(Clone, Copy)]
struct OnNode1 {
    name: &'static str,
    host_network: bool,
}

const WAITS: OnNode1 = OnNode1 { name: "waits", host_network: false };
const BESIDE: OnNode1 = OnNode1 { name: "beside", host_network: true };

/// These Pods take the place of those that are there.
async fn place(lab: &Lab, pods: &[OnNode1]) -> anyhow::Result<()> {
    let names: Vec<&str> = pods.iter().map(|pod| pod.name).collect();
    lab.step(format!("bind Pods to the node: {}", names.join(", ")));
    lab.kubectl("delete pods --all --now").within(secs(40)).await?;
    let pod = |OnNode1 { name, host_network }: &OnNode1| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name },
            "spec": { "nodeName": "node1", "hostNetwork": host_network,
                      "terminationGracePeriodSeconds": 2, "containers": [Pod::container()] },
        })
    };
    let items: Vec<Value> = pods.iter().map(pod).collect();
    lab.kubectl_apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items })).await
}

async fn node_is_listed(lab: &Lab) -> anyhow::Result<()> {
    lab.step("with the kubeconfig there is a Node (B6)");
    let alone = lab.node(1).journal_lines("kubelet", &["Standalone mode, no API client"]);
    let alone = Needs::Silence { node: 1, command: alone, means: "the kubelet is alone".into() };
    lab.eventually("the Node node1", secs(20), async || {
        let nodes = lab.kubectl("get nodes -o name").await?;
        let listed = nodes.text() == "node/node1";
        Ok(Probe::when(listed, Cause::Absent, format!("{:?}", nodes.text()))
            .needs(Needs::All(vec![Needs::Kubelet(1), alone.clone()])))
    })
    .await
}

async fn state(lab: &Lab, pod: &str) -> anyhow::Result<String> {
    let shown = "{.status.phase} {range .status.containerStatuses[*]}ready={.ready} \
                 {.state.waiting.reason}{end}";
    let pod = lab.kubectl(format!("get pod {pod} -o jsonpath='{shown}'")).await?;
    Ok(pod.text().to_owned())
}

fn does_run(state: &str) -> bool {
    state.contains("ready=true")
}

/// What the kubelet says of a Pod that needs a network.
fn network_not_ready(pod: &str) -> String {
    let of = format!("involvedObject.name={pod},reason=NetworkNotReady");
    format!("kubectl get events --field-selector {of} -o jsonpath='{{.items[*].message}}'")
}

async fn runs(lab: &Lab, pod: &str) -> anyhow::Result<()> {
    lab.eventually(format!("the Pod {pod} to run"), secs(40), async || {
        let state = state(lab, pod).await?;
        Ok(Probe::when(does_run(&state), Cause::NotReady, state).needs(Needs::Kubelet(1)))
    })
    .await
}

async fn host_network_pod_runs(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Pod on the host's network runs (B7)");
    let no_network = Needs::Silence {
        node: 1,
        command: network_not_ready(BESIDE.name),
        means: "the kubelet waits for a network".into(),
    };
    lab.eventually("the Pod on the host's network to run", secs(40), async || {
        let state = state(lab, BESIDE.name).await?;
        Ok(Probe::when(does_run(&state), Cause::NotReady, state)
            .needs(Needs::All(vec![Needs::Kubelet(1), no_network.clone()])))
    })
    .await
}

async fn other_pod_waits(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the other one is being created, and waits for a network (B7)");
    lab.eventually("the kubelet to say that its network is not ready", secs(20), async || {
        let state = state(lab, WAITS.name).await?;
        if does_run(&state) {
            return Ok(Probe::hopeless(Cause::Answered, state));
        }
        let said = lab.node(1).run(network_not_ready(WAITS.name)).await?;
        let waits =
            state.contains("ContainerCreating") && said.text().contains("NetworkPluginNotReady");
        let state = format!("{state}, {:?}", said.text());
        Ok(Probe::when(waits, Cause::Absent, state).needs(Needs::Kubelet(1)))
    })
    .await
}

async fn pod_answers_its_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Pod that waited runs, and answers its node at an address of the range (B7, B10)");
    runs(lab, WAITS.name).await?;
    let shown = lab.kubectl(format!("get pod {} -o jsonpath='{{.status.podIP}}'", WAITS.name));
    let address: Ipv4Addr = shown.await?.text().parse()?;
    let asked = lab.node(1).curl(address.to_string()).await?;
    asked.ends(Cause::Answered, "the Pod to answer its node")?;
    let range = lab.node(1).pod_range();
    ensure!(range.contains(address), OutsideRange, "an address of {range}", "{address}");
    Ok(())
}
