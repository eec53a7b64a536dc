//! A Pod's port at its node's address.

use anyhow::Context as _;
use podwire_scenario::RequestOutcome::{Answered, Refused};
use podwire_scenario::{
    Cause, Cells, Evidence, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario, StageName, secs,
    steps,
};
use serde_json::{Value, json};

use crate::catalogue::F8;

/// F8: hostPort, and its end.
pub(crate) const HOST_PORT: Scenario = Scenario {
    about: "Where the CNI file chains the plugin portmap, a Pod with a hostPort answers at its node's address, \
            from outside and from every other node; when it is gone, the node refuses",
    covers: &[F8],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[
        Sabotage::new("no-portmap")
            .about("the CNI file does not name the plugin")
            .inject(steps!(|lab| {
                leave_portmap_out(lab).await?;
                a_pod_with_a_host_port(lab).await
            }))
            .caught_by(steps!(its_node_answers), Cause::Refused),
        Sabotage::new("pod-stays")
            .about("the Pod is still there")
            .inject(steps!(|lab| {
                chain_portmap(lab).await?;
                a_pod_with_a_host_port(lab).await
            }))
            .caught_by(steps!(its_node_refuses), Cause::Answered),
    ],
    ..Scenario::new("host_port", StageName::Workload, steps!(host_port))
};

const PORT: u16 = 8080;
const NAME: &str = "hosted";

async fn host_port(lab: &Lab) -> anyhow::Result<()> {
    chain_portmap(lab).await?;
    a_pod_with_a_host_port(lab).await?;
    its_node_answers(lab).await?;
    lab.step("the Pod goes");
    lab.pods().delete(NAME).await?;
    its_node_refuses(lab).await
}

async fn chain_portmap(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("chain portmap in {}'s CNI file", lab.last_node()));
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    write_chained(lab, Some(portmap)).await
}

async fn leave_portmap_out(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("{}'s CNI file without portmap", lab.last_node()));
    write_chained(lab, None).await
}

/// The node's own CNI file, which may name portmap already, with this one or with none, under a name that
/// sorts before it.
async fn write_chained(lab: &Lab, portmap: Option<Value>) -> anyhow::Result<()> {
    let node = lab.last_node();
    let own = node.run("cat /etc/cni/net.d/*.conf*").await?;
    let own: Value = serde_json::from_str(own.text()).context("the node's CNI file")?;
    let plugins = match own["plugins"].as_array() {
        Some(plugins) => plugins.clone(),
        None => vec![own.clone()],
    };
    let others = plugins.into_iter().filter(|plugin| plugin["type"] != "portmap");
    let plugins: Vec<Value> = others.chain(portmap).collect();
    let chained = json!({ "cniVersion": "1.0.0", "name": own["name"], "plugins": plugins });
    node.write("/etc/cni/net.d/00-chained.conflist", chained.to_string()).await?;
    node.until_cni_file_is_read().await
}

async fn a_pod_with_a_host_port(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("a Pod on {node} with the hostPort {PORT}"));
    let mut container = Pod::container();
    container["ports"] = json!([{ "containerPort": 80, "hostPort": PORT }]);
    lab.apply(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": NAME, "labels": { "app": NAME } },
        "spec": { "nodeName": node.name(), "terminationGracePeriodSeconds": 2,
                  "containers": [container] },
    }))
    .await?;
    lab.pods().labelled(format!("app={NAME}")).until_running(1).await.map(drop)
}

async fn its_node_answers(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("{node} answers at port {PORT}, and it is the Pod"));
    let pod = lab.pods().labelled(format!("app={NAME}")).first().await?;
    let expected = "the Pod of the hostPort to answer";
    lab.outside().ask(node.address(), PORT).all_answered_by(&pod, expected).await?;
    for other in lab.nodes().filter(|other| other.number() != node.number()) {
        let asked = lab.ask(other, node.address()).at_port(PORT);
        asked.all_answered_by(&pod, expected).await?;
    }
    Ok(())
}

async fn its_node_refuses(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("{node} refuses at port {PORT}"));
    lab.eventually(format!("{node} to refuse at port {PORT}"), secs(20), async || {
        let report = lab.outside().ask(node.address(), PORT).await?;
        let outcome = report.results.first().map_or(Answered, |it| it.outcome);
        let listed = lab.pods().named(NAME).await?;
        let stays = listed.filter(|pod| !pod.is_terminating());
        let stays = stays.map(|pod| Evidence::certain(format!("{pod} is still there")));
        let refused = Probe::when(outcome == Refused, outcome.into(), report.to_string());
        Ok(refused.given(stays).needs(Needs::Kubelet(node.number())))
    })
    .await
}
