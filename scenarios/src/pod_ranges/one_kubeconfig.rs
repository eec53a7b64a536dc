//! Three nodes join with one kubeconfig.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Node, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::D1;
use crate::second_node::joins::unrefused;

/// D1: in the document whoever reaches port 8080 may do everything. Today the kubeconfig shows the
/// certificate of somebody who may, and the authority of the API server's.
pub(crate) const ONE_KUBECONFIG: Scenario = Scenario {
    about: "With copies of one kubeconfig, which has node 1's address, every node registers: not Ready, \
            and Ready once it has a CNI file",
    covers: &[D1],
    cells: Cells::ByHandWithRoutes,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("cni-file-is-there")
            .about("every node has a CNI file before the first look")
            .inject(steps!(|lab| {
                write_cni_files(lab.nodes()).await?;
                lab.all_nodes_ready().await
            }))
            .caught_by(steps!(not_ready_without_a_cni_file), Cause::Answered),
        Sabotage::new("kubeconfig-says-localhost")
            .about("the kubeconfig's server is localhost")
            .inject(steps!(|lab| {
                join_with_server(lab, "localhost").await?;
                write_cni_files(lab.nodes()).await?;
                lab.node(1).ready_within(secs(20)).await
            }))
            .caught_by(steps!(every_node_is_ready), Cause::Absent),
        Sabotage::new("one-node-without-a-file")
            .about("the last node has no CNI file")
            .inject(steps!(|lab| {
                let others = || lab.nodes().take(lab.nodes().count() - 1);
                write_cni_files(others()).await?;
                for node in others() {
                    node.ready_within(secs(20)).await?;
                }
                Ok(())
            }))
            .caught_by(steps!(every_node_is_ready), Cause::NotReady),
    ],
    ..Scenario::new("one_kubeconfig_for_all", StageName::Joined, steps!(one_kubeconfig))
};

async fn one_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    join_with_server(lab, &lab.node(1).address().to_string()).await?;
    not_ready_without_a_cni_file(lab).await?;
    write_cni_files(lab.nodes()).await?;
    every_node_is_ready(lab).await
}

async fn join_with_server(lab: &Lab, server: &str) -> anyhow::Result<()> {
    for node in lab.nodes() {
        node.take_off().await?;
    }
    lab.step(format!("generate the kubeconfig on node1, whose server is {server}"));
    let generate = format!(
        "kubectl config set-cluster kubenet --server https://{server}:6443 \
             --certificate-authority /etc/kubernetes/pki/ca.crt --embed-certs && \
         kubectl config set-context kubenet --cluster kubenet --user podwire && \
         kubectl config use-context kubenet && \
         cp ~/.kube/config ~/kubeconfig"
    );
    lab.node(1).run(generate).within(secs(20)).await?;
    lab.step("copy it to the other nodes, and start every kubelet with it");
    let kubeconfig = lab.node(1).run("cat ~/kubeconfig").await?.stdout;
    for node in lab.nodes() {
        node.write_secret("/root/kubeconfig", &kubeconfig).await?;
        let kubelet = node.kubelet().with("--kubeconfig", "/root/kubeconfig");
        node.start_component(&kubelet).await?;
    }
    Ok(())
}

async fn not_ready_without_a_cni_file(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every Node is listed, and not Ready: it has no network (D1)");
    for node in lab.nodes() {
        node.lacks_a_network().await?;
    }
    Ok(())
}

async fn write_cni_files<'lab>(nodes: impl Iterator<Item = Node<'lab>>) -> anyhow::Result<()> {
    for node in nodes {
        node.write_cni_file(node.pod_range()).await?;
    }
    Ok(())
}

async fn every_node_is_ready(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every Node is listed, and Ready (D1)");
    let needs = lab.nodes().flat_map(|node| [unrefused(node), cni_file(node)]);
    lab.all_nodes_ready_or(Needs::All(needs.collect())).await
}

fn cni_file(node: Node<'_>) -> Needs {
    Needs::Silence {
        node: node.number(),
        command: "ls /etc/cni/net.d/* >/dev/null 2>&1 || echo none".to_owned(),
        means: format!("CNI files of {node}"),
    }
}
