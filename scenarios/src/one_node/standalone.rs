//! A kubelet that nobody has told of an API server.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario, StageName, ensure,
    ensure_none, secs, steps,
};
use serde_json::json;

use crate::catalogue::B5;
use crate::one_node::{KUBELET_SERVES, kubelet};

/// B5!: beside an API server, which is there in the document as well.
pub(crate) const STANDALONE: Scenario = Scenario {
    about: "A kubelet without a kubeconfig runs, and makes no Node; it still runs static Pods. One \
            that reads a configuration file ends instead: it would ask the API server who may ask it",
    covers: &[B5],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(240),
    prepare: Some(steps!(|lab| {
        lab.make_first_keys().await?;
        lab.start_etcd_and_api_server(&lab.open_api_server()).await?;
        lab.write_kubeconfig_with_kubectl().await?;
        lab.step("start containerd");
        lab.node(1).start_component(&lab.containerd()).await
    })),
    sabotages: &[
        Sabotage::new("kubelet-not-started")
            .about("the kubelet is not started")
            .caught_by(steps!(runs_without_a_node), Cause::Refused),
        Sabotage::new("kubeconfig-given")
            .about("the kubelet is given the kubeconfig")
            .inject(steps!(register))
            .caught_by(steps!(runs_without_a_node), Cause::Answered),
        Sabotage::new("manifest-elsewhere")
            .about("the manifest lies beside the folder that the kubelet watches")
            .inject(steps!(|lab| start_with_manifest(lab, "/etc/kubernetes/static.json").await))
            .caught_by(steps!(static_pod_answers), Cause::Refused),
        Sabotage::new("anybody-may-ask")
            .about("the configuration file lets anybody ask anything")
            .inject(steps!(|lab| configure(lab, ANYBODY).await))
            .caught_by(steps!(ends_without_whom_to_ask), Cause::Answered),
        Sabotage::new("anybody-is-known")
            .about("the configuration file lets anybody say who he is, and not yet do anything")
            .inject(steps!(|lab| configure(lab, KNOWN).await))
            .caught_by(steps!(ends_without_whom_to_ask), Cause::WrongAnswer),
    ],
    ..Scenario::new("standalone_kubelet", StageName::Identified, steps!(standalone))
};

async fn standalone(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet");
    lab.node(1).start_component(&kubelet(lab)).await?;
    runs_without_a_node(lab).await?;

    start_with_manifest(lab, MANIFEST).await?;
    static_pod_answers(lab).await?;

    configure(lab, "").await?;
    ends_without_whom_to_ask(lab).await
}

async fn runs_without_a_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("it runs, and there is no Node, nor will there be one (B5)");
    let node1 = lab.node(1);
    lab.eventually("the kubelet to be healthy", secs(20), async || {
        let asked = node1.curl("http://localhost:10248/healthz").await?;
        let healthy = asked.cause == Cause::Answered;
        Ok(Probe::when(healthy, asked.cause, asked.to_string()).needs(Needs::Kubelet(1)))
    })
    .await?;
    let listed = nodes(lab).await?;
    ensure_none!(listed.lines(), Answered, "no Node");
    let said = node1.journal("kubelet").await?;
    let alone = said.contains("Standalone mode, no API client");
    ensure!(alone, WrongAnswer, "the kubelet to say that it knows no API server", "{said}");
    Ok(())
}

async fn nodes(lab: &Lab) -> anyhow::Result<String> {
    let listed = lab.node(1).run("kubectl get nodes -o name").within(secs(20)).await?;
    Ok(listed.text().to_owned())
}

async fn register(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet with the kubeconfig");
    let told = kubelet(lab).with("--kubeconfig", "/root/.kube/config");
    lab.node(1).start_component(&told).await?;
    lab.eventually("a Node", secs(40), async || {
        let listed = nodes(lab).await?;
        let made = listed == "node/node1";
        Ok(Probe::when(made, Cause::Absent, listed).needs(Needs::Kubelet(1)))
    })
    .await
}

const FOLDER: &str = "/etc/kubernetes/manifests";
const MANIFEST: &str = "/etc/kubernetes/manifests/static.json";

/// On the host's network: there is no other.
async fn start_with_manifest(lab: &Lab, path: &str) -> anyhow::Result<()> {
    lab.step(format!("put a Pod's manifest into {path}"));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "static" },
        "spec": { "hostNetwork": true, "containers": [Pod::container()] },
    });
    let node1 = lab.node(1);
    node1.run(format!("mkdir -p {FOLDER}")).await?;
    node1.write(path, pod.to_string()).await?;
    lab.step("start the kubelet, told of the folder, and to have systemd make cgroups");
    let told = kubelet(lab).with("--pod-manifest-path", FOLDER);
    node1.start_component(&told.with("--cgroup-driver", "systemd")).await
}

async fn static_pod_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the static Pod answers (B5)");
    let node1 = lab.node(1);
    lab.eventually("the static Pod to answer at node 1's port 80", secs(40), async || {
        let asked = node1.curl("http://localhost").await?;
        if asked.cause == Cause::Answered {
            return Ok(Probe::Done(()));
        }
        let there = node1.run(format!("ls {MANIFEST}")).may_fail().await?.succeeded();
        Ok(match there {
            true => Probe::not_yet(asked.cause, asked.to_string()).needs(Needs::Kubelet(1)),
            false => Probe::hopeless(asked.cause, format!("{asked}, and no {MANIFEST}")),
        })
    })
    .await
}

const CONFIG: &str = "/root/kubelet.yaml";
const KNOWN: &str = "authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }";
const ANYBODY: &str = "\
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
";

/// Writes the kubelet's configuration file: as it is by itself, but for this.
async fn configure(lab: &Lab, but: &str) -> anyhow::Result<()> {
    lab.step("write a configuration file for the kubelet");
    let file =
        format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{but}");
    lab.node(1).write(CONFIG, file).await
}

async fn ends_without_whom_to_ask(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet with that file: it ends, having nobody to ask who asks it (B5)");
    let told = kubelet(lab).with("--config", CONFIG);
    let words = "no client provided, cannot use webhook authentication";
    lab.node(1).ends_at_its_start(&told, KUBELET_SERVES, &[words]).await
}
