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
    sabotages: &[Sabotage {
        name: "kubeconfig-says-localhost",
        about: "the joining kubelet's kubeconfig still names localhost",
        expects: Cause::Absent,
        inject: steps!(|lab| {
            lab.last_node().take_off().await?;
            start_kubelet_with(lab, &flatten(lab).await?).await
        }),
        check: steps!(everybody_joined),
    }],
    ..Scenario::new("second_node_joins", StageName::WorkloadBare, steps!(joins))
};

/// What is in the line with which the kubelet's journal says that it was refused.
const REFUSED: [&str; 2] = ["localhost:6443", "connection refused"];

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    node.take_off().await?;

    lab.step("flatten its kubeconfig on node1: key and certificate go into the file (C1)");
    let flattened = flatten(lab).await?;
    embedded(&flattened)?;

    lab.step(format!("start the kubelet of {node} with the copy, which says localhost (C2)"));
    start_kubelet_with(lab, &flattened).await?;
    refused_at_localhost(lab).await?;
    let listed = node.listed().await?.is_some();
    ensure!(!listed, Answered, "{node} to stay absent", "it is listed, and its kubelet refused");
    // The positive beside it: the same node reaches the API under its right name. Else its refusal
    // proves nothing.
    node.run("curl -sk -o /dev/null -m 20 https://node1:6443/").within(secs(20)).await?;

    lab.step("replace localhost by node1's name and start again (C3)");
    let kubeconfig = kubeconfig::KUBELET_PATH;
    node.run(format!("sed -i s/localhost:6443/node1:6443/ {kubeconfig}")).await?;
    node.restart("kubelet").await?;
    everybody_joined(lab).await
}

/// `kubectl config view --flatten` on node 1 of a kubeconfig that names files.
async fn flatten(lab: &Lab) -> anyhow::Result<String> {
    let (node1, pki) = (lab.node(1), lab.cluster().pki()?);
    let identity = lab.last_node().identity()?;
    node1.write("/root/join/ca.crt", &pki.ca.certificate).await?;
    node1.write("/root/join/node.crt", &identity.certificate).await?;
    node1.write_secret("/root/join/node.key", &identity.key).await?;
    let with_paths = kubeconfig::with_files(
        "https://localhost:6443",
        "/root/join/ca.crt",
        "/root/join/node.crt",
        "/root/join/node.key",
    );
    node1.write_secret("/root/join/config", with_paths).await?;
    let flatten = node1.run("kubectl config view --flatten --kubeconfig /root/join/config");
    Ok(flatten.await?.stdout)
}

async fn start_kubelet_with(lab: &Lab, kubeconfig: &str) -> anyhow::Result<()> {
    let node = lab.last_node();
    node.write_secret(kubeconfig::KUBELET_PATH, kubeconfig).await?;
    node.restart("kubelet").await
}

async fn refused_at_localhost(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let expected = "the kubelet to be refused at localhost:6443";
    lab.eventually(expected, secs(20), async || {
        let refused = node.run(node.journal_lines("kubelet", &REFUSED)).await?;
        let refused = !refused.text().is_empty();
        Ok(Probe::when(refused, Cause::Absent, "no refusal in its journal")
            .needs(Needs::Kubelet(node.number())))
    })
    .await
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
