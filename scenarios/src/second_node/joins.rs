//! A node joins with a copy of a kubeconfig.

use podwire_scenario::{
    Cause, Failure, Lab, Needs, Node, Probe, Sabotage, Scenario, StageName, ensure, kubeconfig,
    secs, steps,
};

use crate::catalogue::{C1, C2, C3};

/// C1, C2!, C3: a node joins with a flattened copy of a kubeconfig, once its server is right.
pub(crate) const JOINS: Scenario = Scenario {
    about: "A node joins with a flattened kubeconfig: not while it says localhost, but once it \
            names the control plane",
    covers: &[C1, C2, C3],
    sabotages: &[
        Sabotage::new("authority-not-named")
            .about("the kubeconfig that is flattened names no authority")
            .inject(steps!(|lab| {
                write_files(lab).await?;
                lab.node(1).run("sed -i '/\"certificate-authority\"/d' /root/join/config").await
            }))
            .caught_by(steps!(flattened_file_has_all), Cause::WrongAnswer),
        Sabotage::new("copy-names-node1")
            .about("the copy names node 1 already")
            .inject(steps!(|lab| {
                take_a_flattened_copy(lab).await?;
                start_kubelet_that_names_node1(lab).await
            }))
            .caught_by(steps!(refused_at_localhost), Cause::Answered),
        Sabotage::new("kubeconfig-says-localhost")
            .about("the joining kubelet's kubeconfig still names localhost")
            .inject(steps!(take_a_flattened_copy))
            .caught_by(steps!(everybody_joined), Cause::Absent),
    ],
    ..Scenario::new("second_node_joins", StageName::WorkloadBare, steps!(joins))
};

/// What is in a line with which the kubelet's journal says that it was refused.
const REFUSED: [&str; 2] = ["localhost:6443", "connection refused"];
/// And in the one about its Node, which it would have made.
const NODE_REFUSED: [&str; 3] = ["Post ", "https://localhost:6443/api/v1/nodes", REFUSED[1]];

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    take_a_flattened_copy(lab).await?;
    refused_at_localhost(lab).await?;
    start_kubelet_that_names_node1(lab).await?;
    everybody_joined(lab).await
}

async fn write_files(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a kubeconfig on node1, with the files that it names");
    let (node, node1) = (lab.last_node(), lab.node(1));
    node.write_kubeconfig_with_files(node1).await?;
    node.write_files_of_kubeconfig(node1).await
}

const FLATTEN: &str = "kubectl config view --flatten --kubeconfig /root/join/config";

async fn flattened_file_has_all(lab: &Lab) -> anyhow::Result<()> {
    lab.step("flatten it: key and certificates go into the file (C1)");
    let flattened = lab.node(1).run(FLATTEN).await?.stdout;
    embedded(&flattened)?;
    let copy = lab.last_node().write_secret(kubeconfig::KUBELET_PATH, flattened);
    copy.await
}

async fn take_a_flattened_copy(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    node.take_off().await?;
    write_files(lab).await?;
    flattened_file_has_all(lab).await?;
    lab.step(format!("start the kubelet of {node} with a copy, which says localhost (C2)"));
    node.restart("kubelet").await
}

async fn refused_at_localhost(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("it is refused at localhost, and {node} stays absent (C2)"));
    let expected = "the kubelet to be refused at localhost:6443, where it would make its Node";
    lab.eventually(expected, secs(20), async || {
        let refused = node.run(node.journal_lines("kubelet", &NODE_REFUSED)).await?;
        if node.listed().await?.is_some() {
            return Ok(Probe::hopeless(Cause::Answered, format!("{node} is listed")));
        }
        let refused = !refused.text().is_empty();
        Ok(Probe::when(refused, Cause::Absent, "no refusal in its journal")
            .needs(Needs::Kubelet(node.number())))
    })
    .await?;
    // The positive beside it: the same node reaches the API under its right name. Else its refusal
    // proves nothing.
    node.run("curl -sk -o /dev/null -m 20 https://node1:6443/").within(secs(20)).await.map(drop)
}

async fn start_kubelet_that_names_node1(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step("replace localhost by node1's name and start again (C3)");
    let kubeconfig = kubeconfig::KUBELET_PATH;
    node.run(format!("sed -i s/localhost:6443/node1:6443/ {kubeconfig}")).await?;
    node.restart("kubelet").await
}

async fn everybody_joined(lab: &Lab) -> anyhow::Result<()> {
    lab.all_nodes_ready_or(unrefused(lab.last_node())).await
}

/// A kubelet that nobody refuses at localhost.
pub(crate) fn unrefused(node: Node<'_>) -> Needs {
    Needs::Silence {
        node: node.number(),
        command: node.journal_lines("kubelet", &REFUSED),
        means: "its kubelet is refused".to_owned(),
    }
}

fn embedded(flattened: &str) -> Result<(), Failure> {
    let has = |key: &&str| flattened.lines().any(|line| line.trim().starts_with(*key));
    let data = ["certificate-authority-data:", "client-certificate-data:", "client-key-data:"];
    let paths = ["certificate-authority:", "client-certificate:", "client-key:"];
    let missing: Vec<&str> = data.into_iter().filter(|key| !has(key)).collect();
    let left: Vec<&str> = paths.into_iter().filter(has).collect();
    let embedded = missing.is_empty() && left.is_empty();
    ensure!(
        embedded,
        WrongAnswer,
        "key and certificates embedded, and no file paths",
        "missing: {missing:?}, still a path: {left:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flattened_means_data_and_no_paths() {
        let good = "clusters:\n- cluster:\n    certificate-authority-data: eA==\nusers:\n- user:\n    client-certificate-data: eA==\n    client-key-data: eA==\n";
        assert!(embedded(good).is_ok());
        let path = format!("{good}    client-key: /root/key\n");
        assert!(embedded(&path).unwrap_err().seen.contains("client-key"));
        assert!(embedded("").is_err());
    }
}
