//! Nodes whose containerd makes its CNI file of a template, with the Node's Pod CIDR.

use std::net::Ipv4Addr;

use podwire_scenario::{Answer, Ipv4Net, Lab, Node, ensure, secs};
use serde_json::json;

/// What an emulated node's containerd reads, and any other's.
pub(super) const CONFIGURATION: &str = "/etc/containerd/*.toml";
pub(super) const RESTART: &str = "systemctl restart containerd kubelet";
/// A range that no Node is meant to have.
pub(super) const ANOTHER: Ipv4Net = net(103, 24);

/// Part of the range of all Pods.
pub(super) const fn net(third: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net { address: Ipv4Addr::new(10, 1, third, 0), prefix }
}

pub(super) async fn files_are_made_of_a_template(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's containerd has a template (conf_template), and no CNI file");
    let template = json!({
        "cniVersion": "1.0.0", "name": "kube",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
            "ipam": { "type": "host-local", "subnet": "{{.PodCIDR}}" },
        }],
    });
    for node in lab.nodes() {
        node.write("/etc/containerd/cni.template", template.to_string()).await?;
    }
    let section = r"^\[plugins\..*\.cni\]$";
    let setting = r#"conf_template = "/etc/containerd/cni.template""#;
    let tell = format!("sed -i '/{section}/a {setting}' {CONFIGURATION} && {RESTART}");
    lab.run_everywhere(&tell).await.map(drop)
}

pub(super) async fn ready_with_another_range(node: Node<'_>) -> anyhow::Result<()> {
    node.write_cni_file(ANOTHER).await?;
    node.ready_within(secs(20)).await
}

pub(super) async fn range_of(node: Node<'_>) -> anyhow::Result<Option<Ipv4Net>> {
    Ok(node.listed().await?.and_then(|listed| listed.pod_range()))
}

pub(super) async fn set_pod_cidr(
    lab: &Lab,
    node: Node<'_>,
    range: Ipv4Net,
) -> anyhow::Result<Answer> {
    let spec = json!({ "spec": { "podCIDR": range, "podCIDRs": [range] } });
    lab.kubectl(format!("patch node {node} --type merge -p '{spec}'")).may_fail().await
}

pub(super) async fn new_pod_is_in(lab: &Lab, node: Node<'_>, range: Ipv4Net) -> anyhow::Result<()> {
    let name = format!("new-on-{node}");
    lab.start_pod(&name, node).await?;
    let pod = lab.pods().labelled(format!("app={name}")).until_running(1).await?.remove(0);
    let inside = range.contains(pod.address);
    ensure!(
        inside,
        OutsideRange,
        "an address of {range}",
        "{pod}",
        "`cat /etc/cni/net.d/*` of {node}"
    );
    Ok(())
}
