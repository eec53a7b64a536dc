//! Whom the API server listens for.

use podwire_scenario::{
    Cause, Lab, Profile, Sabotage, Scenario, StageName, ensure, ensure_none, steps,
};
use serde_json::json;

use crate::catalogue::A17;

/// A17: the API server on all addresses, before there is any Node.
pub(crate) const ALL_ADDRESSES: Scenario = Scenario {
    about: "The API server listens on all addresses: it is reached from node 2, says that the other \
            components are healthy, and lists no Node",
    covers: &[A17],
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("bound-to-localhost")
            .about("the API server's --bind-address is 127.0.0.1")
            .inject(steps!(bind_to_localhost))
            .caught_by(steps!(on_all_addresses), Cause::Refused),
        Sabotage::new("scheduler-stopped")
            .about("the scheduler does not run")
            .inject(steps!(|lab| lab.node(1).stop("kube-scheduler").await))
            .caught_by(steps!(others_are_healthy), Cause::NotReady),
        Sabotage::new("node-made")
            .about("somebody has made a Node, without a kubelet")
            .inject(steps!(|lab| {
                let node =
                    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node9" } });
                lab.kubectl_apply(&node).await
            }))
            .caught_by(steps!(no_node_is_listed), Cause::Answered),
    ],
    ..Scenario::new("api_server_on_all_addresses", StageName::ControlPlane, steps!(all_addresses))
};

async fn all_addresses(lab: &Lab) -> anyhow::Result<()> {
    on_all_addresses(lab).await?;
    others_are_healthy(lab).await?;
    no_node_is_listed(lab).await
}

async fn on_all_addresses(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ask the API server from node 2, by node 1's name, whether it is ready");
    // For everybody, without a certificate (RBAC, `system:public-info-viewer`).
    let asked = lab.node(2).curl("--insecure https://node1:6443/readyz").await?;
    Ok(asked.ends(Cause::Answered, "node1:6443 to answer node 2 that it is ready")?)
}

async fn others_are_healthy(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the other components are healthy");
    let shown =
        "{range .items[*]}{.metadata.name} {.conditions[0].type}={.conditions[0].status}\n{end}";
    let statuses = lab.kubectl(format!("get componentstatuses -o jsonpath='{shown}'")).await?;
    let mut statuses: Vec<&str> = statuses.stdout.lines().collect();
    statuses.sort_unstable();
    let healthy =
        ["controller-manager", "etcd-0", "scheduler"].map(|it| format!("{it} Healthy=True"));
    ensure!(statuses == healthy, NotReady, "{healthy:?}", "{statuses:?}");
    Ok(())
}

async fn no_node_is_listed(lab: &Lab) -> anyhow::Result<()> {
    lab.step("no Node is listed");
    let nodes = lab.kubectl("get nodes -o name").await?;
    ensure_none!(nodes.text().lines(), Answered, "no Node before any kubelet runs");
    Ok(())
}

async fn bind_to_localhost(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the API server anew, on 127.0.0.1 alone");
    let local = lab.api_server().with("--bind-address", "127.0.0.1");
    lab.node(1).start_component(&local).await?;
    lab.until_api_server_is_ready().await
}
