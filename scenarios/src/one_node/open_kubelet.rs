//! Whom the first node's kubelet answers.

use podwire_scenario::{
    Answer, Cause, Cells, Component, Failure, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};
use serde_json::json;

use crate::catalogue::B15;

/// B15, in the documents' mode (`AlwaysAllow`, and no authentication at the kubelet) and in today's, which
/// is the usual one where a kubelet has a configuration file.
pub(crate) const OPEN_KUBELET: Scenario = Scenario {
    about: "kubectl logs and exec work although the API server has no certificate for kubelets, because \
            the kubelet answers everybody, from another node too; with a client CA and webhooks it knows \
            who shows a certificate, and refuses strangers, of whom the API server is one",
    covers: &[B15],
    cells: Cells::ByHand,
    profile: Profile::Full,
    limit: secs(200),
    prepare: Some(steps!(|lab| {
        lab.start_open_control_plane().await?;
        lab.start_open_node().await?;
        start_pod(lab).await
    })),
    sabotages: &[
        Sabotage::new("closed-to-the-api-server")
            .about("the kubelet wants a certificate, and the API server has none")
            .inject(steps!(close_kubelet))
            .caught_by(steps!(logs_and_exec_work), Cause::HttpStatus),
        Sabotage::new("closed-to-strangers")
            .about("the kubelet wants a certificate, and the stranger has none")
            .inject(steps!(close_kubelet))
            .caught_by(steps!(answers_a_stranger), Cause::HttpStatus),
        Sabotage::new("left-open")
            .about("the kubelet has neither a client CA nor webhooks")
            .caught_by(steps!(refuses_strangers), Cause::Answered),
        Sabotage::new("another-client-ca")
            .about(
                "the kubelet's client CA is another than the one that has issued the certificate",
            )
            .inject(steps!(|lab| {
                let other = "/var/lib/kubelet/pki/kubelet.crt";
                start_kubelet(lab, &closed(lab).with("--client-ca-file", other)).await
            }))
            .caught_by(steps!(answers_the_authority), Cause::HttpStatus),
    ],
    ..Scenario::new("open_kubelet", StageName::Identified, steps!(open_kubelet))
};

async fn open_kubelet(lab: &Lab) -> anyhow::Result<()> {
    logs_and_exec_work(lab).await?;
    answers_a_stranger(lab).await?;

    close_kubelet(lab).await?;
    refuses_strangers(lab).await?;
    answers_the_authority(lab).await
}

/// Its first container says its program's version and ends, the second runs.
async fn start_pod(lab: &Lab) -> anyhow::Result<()> {
    let mut says = Pod::container();
    says["name"] = "says".into();
    says["command"] = json!(["/probe", "version"]);
    lab.run_pod_on_open_node("blue", &[says]).await.map(drop)
}

async fn logs_and_exec_work(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubectl logs and exec work, without a certificate for it (B15)");
    let logs = lab.kubectl("logs blue -c says").may_fail().await?;
    let exec = lab.kubectl("exec blue -c probe -- /probe version").may_fail().await?;
    for (what, answer) in [("logs", &logs), ("exec", &exec)] {
        if !answer.succeeded() {
            let expected = format!("kubectl {what} to work");
            return Err(Failure::new(cause_of(answer), expected, answer.said()).into());
        }
    }
    let version = lab.node(1).run("probe version").await?;
    let (logs, exec, version) = (logs.text(), exec.text(), version.text());
    let same = logs == version && exec == version;
    ensure!(same, WrongAnswer, "the Pod's words, {version}", "logs: {logs}, exec: {exec}");
    Ok(())
}

/// Why kubectl failed, where its words say so: the API server hands on the kubelet's status 401.
fn cause_of(answer: &Answer) -> Cause {
    match answer.said().contains("asked for the client to provide credentials") {
        true => Cause::HttpStatus,
        false => Cause::Other,
    }
}

const PODS: &str = "--insecure https://node1:10250/pods";

async fn answers_a_stranger(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the kubelet tells whoever asks from node 2 what Pods it has (B15)");
    let asked = lab.node(2).curl(PODS).await?;
    asked.ends(Cause::Answered, "the kubelet's Pods for a stranger")?;
    let pods: serde_json::Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let lists = pods["kind"] == "PodList" && pods["items"][0]["metadata"]["name"] == "blue";
    ensure!(lists, WrongAnswer, "a list of Pods with blue", "{asked}");
    Ok(())
}

/// The kubelet as its configuration file has it unless that says otherwise.
fn closed(lab: &Lab) -> Component {
    let open = lab.node(1).open_kubelet();
    open.with("--client-ca-file", "/root/ca.cert")
        .with("--anonymous-auth", false)
        .with_switch("--authentication-token-webhook")
        .with("--authorization-mode", "Webhook")
}

async fn close_kubelet(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the kubelet with a client CA and webhooks (B15)");
    start_kubelet(lab, &closed(lab)).await
}

async fn start_kubelet(lab: &Lab, kubelet: &Component) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    node1.start_component(kubelet).await?;
    lab.eventually("the kubelet to serve", secs(20), async || {
        let asked = node1.curl(PODS).await?;
        let serves = asked.status.is_some();
        Ok(Probe::when(serves, asked.cause, asked.to_string()).needs(Needs::Kubelet(1)))
    })
    .await
}

async fn refuses_strangers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("strangers are refused, of whom the API server is one (B15)");
    let asked = lab.node(2).curl(PODS).await?;
    asked.has_status(401, "status 401 for who shows no certificate")?;
    let logs = lab.kubectl("logs blue -c says").may_fail().await?;
    let (refused, said) = (cause_of(&logs) == Cause::HttpStatus, logs.said());
    ensure!(refused, Answered, "kubectl logs to be refused", "{said}");
    Ok(())
}

async fn answers_the_authority(lab: &Lab) -> anyhow::Result<()> {
    lab.step("who shows the authority's own certificate is answered (B15)");
    let asked = lab.node(1).curl(format!("--key ca.key --cert ca.cert {PODS}")).await?;
    Ok(asked.ends(Cause::Answered, "the kubelet's Pods for the authority's own certificate")?)
}
