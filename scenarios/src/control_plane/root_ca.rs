//! By which authority a Pod verifies the API server.

use podwire_scenario::{
    Cause, Cells, Component, Lab, Needs, Party, Probe, Profile, Sabotage, Scenario, StageName,
    ensure, secs, steps,
};

use crate::catalogue::A19;

/// A19!: the authority that Pods are given is the controller manager's to know.
pub(crate) const ROOT_CA: Scenario = Scenario {
    about: "A controller manager that is told no root CA, by a flag or in its kubeconfig, gives Pods an \
            empty CA file, with which they verify nothing; told in either way, it gives them one by which \
            they verify the API server",
    covers: &[A19],
    profile: Profile::Full,
    nodes: 1,
    limit: secs(200),
    sabotages: &[
        Sabotage::new("told")
            .about("the controller manager is told the root CA")
            .caught_by(steps!(nothing_is_verified), Cause::Answered),
        Sabotage::new("not-told")
            .about("the controller manager is told no root CA")
            .inject(steps!(tell_nothing))
            .caught_by(steps!(api_server_is_verified), Cause::Tls),
    ],
    ..Scenario::new("root_ca", StageName::Cni, steps!(root_ca))
};

/// A19! as the documents' first cluster has it, where nobody has made the API server a certificate.
pub(crate) const SELF_MADE_ROOT_CA: Scenario = Scenario {
    about: "The documents' first controller manager knows no root CA: Pods' CA file is empty; told of the \
            certificate that the API server has made for itself, it gives them one by which they verify \
            the API server",
    covers: &[A19],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(200),
    prepare: Some(steps!(|lab| {
        lab.start_open_control_plane().await?;
        lab.start_open_node().await
    })),
    sabotages: &[
        Sabotage::new("told")
            .about("the controller manager is told of that certificate")
            .inject(steps!(|lab| tell_of(lab, SELF_MADE).await))
            .caught_by(steps!(nothing_is_verified_on_the_open_node), Cause::Answered),
        Sabotage::new("not-told")
            .about("the controller manager is told of no certificate")
            .caught_by(steps!(api_server_is_verified_on_the_open_node), Cause::Tls),
        Sabotage::new("told-of-another")
            .about(
                "the controller manager is told of the documents' authority, which has not \
                 issued it",
            )
            .inject(steps!(|lab| tell_of(lab, "/root/ca.cert").await))
            .caught_by(steps!(api_server_is_verified_on_the_open_node), Cause::Tls),
    ],
    ..Scenario::new("self_made_root_ca", StageName::Identified, steps!(self_made_root_ca))
};

async fn self_made_root_ca(lab: &Lab) -> anyhow::Result<()> {
    nothing_is_verified_on_the_open_node(lab).await?;
    lab.step("start the controller manager with --root-ca-file: the self-made certificate (A19)");
    tell_of(lab, SELF_MADE).await?;
    api_server_is_verified_on_the_open_node(lab).await
}

/// The API server's own, with the authority that it has made for it.
const SELF_MADE: &str = "/var/run/kubernetes/apiserver.crt";

async fn tell_of(lab: &Lab, certificate: &str) -> anyhow::Result<()> {
    let told = lab.open_controller_manager().with("--root-ca-file", certificate);
    start_manager(lab, &told, false).await
}

async fn nothing_is_verified_on_the_open_node(lab: &Lab) -> anyhow::Result<()> {
    verifies_nothing(lab, &lab.run_pod_on_open_node("untold", &[]).await?).await
}

async fn api_server_is_verified_on_the_open_node(lab: &Lab) -> anyhow::Result<()> {
    verifies_the_api_server(lab, &lab.run_pod_on_open_node("told", &[]).await?).await
}

async fn root_ca(lab: &Lab) -> anyhow::Result<()> {
    tell_nothing(lab).await?;
    nothing_is_verified(lab).await?;

    lab.step("start it with --root-ca-file (A19)");
    let told = lab.controller_manager().with("--kubeconfig", WITHOUT_CA);
    start_manager(lab, &told, false).await?;
    api_server_is_verified(lab).await?;

    tell_nothing(lab).await?;
    lab.step("start it with a kubeconfig that embeds the authority (A19)");
    let embedded = lab.controller_manager().without("--root-ca-file");
    start_manager(lab, &embedded, false).await?;
    api_server_is_verified(lab).await
}

/// A copy of the controller manager's kubeconfig.
const WITHOUT_CA: &str = "/root/manager.conf";

const MAKE: &str = "\
    cp /etc/kubernetes/controller-manager.conf /root/manager.conf && \
    kubectl config --kubeconfig /root/manager.conf set-cluster podwire --insecure-skip-tls-verify";

async fn tell_nothing(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the controller manager without a root CA, in its kubeconfig neither (A19)");
    lab.node(1).run(MAKE).await?;
    let untold = lab.controller_manager().without("--root-ca-file");
    start_manager(lab, &untold.with("--kubeconfig", WITHOUT_CA), true).await
}

/// Waits until it has published what it knows, for Pods to come.
async fn start_manager(lab: &Lab, manager: &Component, empty: bool) -> anyhow::Result<()> {
    lab.node(1).start_component(manager).await?;
    let published = r"get configmap kube-root-ca.crt -o jsonpath='{.data.ca\.crt}'";
    let (expected, wrong) = match empty {
        true => ("no root CA to be published", "there is one"),
        false => ("a root CA to be published", "there is none"),
    };
    lab.eventually(expected, secs(30), async || {
        let published = lab.kubectl(published).await?;
        let as_expected = published.text().is_empty() == empty;
        Ok(Probe::when(as_expected, Cause::NotReady, wrong)
            .needs(Needs::ControlPlane("kube-controller-manager")))
    })
    .await
}

const CA_FILE: &str = "$root/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// Another each time: one that runs gets another file a minute later.
async fn new_pod(lab: &Lab) -> anyhow::Result<Party> {
    let number = lab.pods().anybodys().await?.len();
    lab.run_pod(&format!("asker-{number}"), lab.node(1)).await
}

/// With the token beside that file: an open API server answers nobody who is unknown.
fn by_its_ca_file(lab: &Lab) -> String {
    let token = r#"-H "Authorization: Bearer $(cat $root/var/run/secrets/kubernetes.io/serviceaccount/token)""#;
    format!("--cacert {CA_FILE} {token} https://{}:6443/version", lab.node(1).address())
}

async fn nothing_is_verified(lab: &Lab) -> anyhow::Result<()> {
    verifies_nothing(lab, &new_pod(lab).await?).await
}

async fn verifies_nothing(lab: &Lab, pod: &Party) -> anyhow::Result<()> {
    lab.step("a new Pod has an empty CA file, and verifies nothing by it (A19)");
    let size = lab.run_in_network_of(pod, format!("stat -L -c %s {CA_FILE}")).await?;
    let (size, empty) = (size.text(), size.text() == "0");
    ensure!(empty, Answered, "an empty CA file in {pod}", "{size} octets");
    let asked = lab.curl_in_network_of(pod, by_its_ca_file(lab)).await?;
    Ok(asked.ends(Cause::Tls, "the Pod not to know the API server's certificate")?)
}

async fn api_server_is_verified(lab: &Lab) -> anyhow::Result<()> {
    verifies_the_api_server(lab, &new_pod(lab).await?).await
}

async fn verifies_the_api_server(lab: &Lab, pod: &Party) -> anyhow::Result<()> {
    lab.step("a new Pod verifies the API server by its CA file (A19)");
    let asked = lab.curl_in_network_of(pod, by_its_ca_file(lab)).await?;
    Ok(asked.ends(Cause::Answered, "the API server to be verified, and to answer")?)
}
