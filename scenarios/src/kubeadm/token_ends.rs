//! What a token lets its bearer do, and what is left of it when its time is over.

use std::time::Duration;

use podwire_scenario::{
    Cause, Curled, Lab, Needs, Probe, Profile, Sabotage, Scenario, StageName, Token, assert,
    ensure, listed, looks_at_cluster_info, secs, steps,
};
use serde_json::json;

use crate::catalogue::{E12, E38};

/// E12!, E38: a token's time.
///
/// A token of a few seconds, more on a slow machine, is seen alive first; it ends by the guests' clocks.
pub(crate) const TOKEN_ENDS: Scenario = Scenario {
    about: "A token's bearer may ask for a certificate and read what a join needs, but no Secrets; when \
            its time is over its Secret and its signature are gone, a join ends in good time and says \
            so, and its bearer is nobody",
    covers: &[E12, E38],
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("another-group")
            .about("the token was made for another group")
            .inject(steps!(|lab| {
                let others = "--groups system:bootstrappers:others";
                lab.keep(lab.kubeadm(1).create_token(others).await?);
                Ok(())
            }))
            .caught_by(
                steps!(|lab| bearer_reads_what_a_join_needs(lab, &lab.kept()?).await),
                Cause::HttpStatus,
            ),
        Sabotage::new("may-not-ask")
            .about("the binding by which new nodes ask for certificates is gone")
            .inject(steps!(|lab| {
                lab.kubectl("delete clusterrolebinding kubeadm:kubelet-bootstrap").await?;
                until_bearers_may(lab, "create certificatesigningrequests", false).await?;
                lab.keep(lab.first_token().await?);
                Ok(())
            }))
            .caught_by(
                steps!(|lab| bearer_asks_for_a_certificate(lab, &lab.kept()?).await),
                Cause::HttpStatus,
            ),
        Sabotage::new("administrators-all")
            .about("whoever has a token is an administrator")
            .inject(steps!(|lab| {
                let role = "--clusterrole=cluster-admin --group=system:bootstrappers";
                lab.kubectl(format!("create clusterrolebinding all {role}")).await?;
                until_bearers_may(lab, "list secrets", true).await?;
                lab.keep(lab.first_token().await?);
                Ok(())
            }))
            .caught_by(
                steps!(|lab| bearer_reads_no_secrets(lab, &lab.kept()?).await),
                Cause::Answered,
            ),
        Sabotage::new("an-hour")
            .about("the token has an hour to live")
            .inject(steps!(|lab| {
                lab.keep(lab.kubeadm(1).create_token("--ttl 1h").await?);
                Ok(())
            }))
            .caught_by(steps!(|lab| is_gone(lab, &lab.kept()?).await), Cause::Answered),
        Sabotage::new("nobody-cleans")
            .about("the controller manager runs without its tokencleaner")
            .inject(steps!(|lab| {
                run_without(lab, "tokencleaner").await?;
                lab.keep(short_lived(lab).await?);
                Ok(())
            }))
            .caught_by(steps!(|lab| is_gone(lab, &lab.kept()?).await), Cause::Answered),
        Sabotage::new("nobody-signs")
            .about(
                "the controller manager runs without its bootstrapsigner, which takes \
                 signatures away",
            )
            .inject(steps!(|lab| {
                let token = lab.kubeadm(1).create_token("--ttl 1h").await?;
                lab.until_signed_by(&token).await?;
                run_without(lab, "bootstrapsigner").await?;
                lab.kubeadm(1).run(&format!("token delete {}", token.id)).await?;
                lab.keep(token);
                Ok(())
            }))
            .caught_by(steps!(|lab| is_gone(lab, &lab.kept()?).await), Cause::Answered),
        Sabotage::new("never-made")
            .about("the token was never made")
            .inject(steps!(|lab| {
                lab.keep(stranger());
                Ok(())
            }))
            .caught_by(steps!(|lab| is_alive(lab, &lab.kept()?).await), Cause::Absent),
        Sabotage::new("patient")
            .about("the join's discovery may take half a minute")
            .inject(steps!(|lab| tell_node2(lab, stranger(), 6 * DISCOVERY).await))
            .saying(" looks: ")
            .caught_by(steps!(|lab| join_says_so(lab, &lab.kept()?).await), Cause::WrongAnswer),
        Sabotage::new("token-lives")
            .about("the join is told init's token, which has not expired")
            .inject(steps!(|lab| {
                let first = lab.first_token().await?;
                tell_node2(lab, first, DISCOVERY).await
            }))
            .caught_by(steps!(|lab| join_says_so(lab, &lab.kept()?).await), Cause::Answered),
        Sabotage::new("bearer-lives")
            .about("the bearer's token has not expired")
            .inject(steps!(|lab| {
                lab.keep(lab.first_token().await?);
                Ok(())
            }))
            .caught_by(steps!(|lab| bearer_is_nobody(lab, &lab.kept()?).await), Cause::Answered),
    ],
    ..Scenario::new("token_ends", StageName::Init, steps!(token_ends))
};

/// How long the short token lives: long enough on any machine to be seen alive.
const SHORT: Duration = secs(5);
/// `timeouts.discovery`, in seconds.
const DISCOVERY: u64 = 5;
/// Looks at cluster-info in that time: at once, and every five seconds.
const LOOKS: usize = 2;

async fn token_ends(lab: &Lab) -> anyhow::Result<()> {
    let first = lab.first_token().await?;
    bearer_reads_what_a_join_needs(lab, &first).await?;
    bearer_asks_for_a_certificate(lab, &first).await?;
    bearer_reads_no_secrets(lab, &first).await?;

    let short = short_lived(lab).await?;
    is_alive(lab, &short).await?;
    is_gone(lab, &short).await?;
    tell_node2(lab, short.clone(), DISCOVERY).await?;
    join_says_so(lab, &short).await?;
    bearer_is_nobody(lab, &short).await?;
    bearer_reads_what_a_join_needs(lab, &first).await
}

async fn short_lived(lab: &Lab) -> anyhow::Result<Token> {
    let seconds = lab.limit(SHORT).as_secs();
    lab.step(format!("kubeadm token create makes a token of {seconds} seconds"));
    lab.kubeadm(1).create_token(&format!("--ttl {seconds}s")).await
}

/// What was never stored and never signed would be absent, too.
async fn is_alive(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    let Token { id, .. } = token;
    lab.step(format!("{id} is stored, signs what strangers are told, and has a bearer (E12)"));
    let stored = lab.stored_tokens().await?;
    let (is_stored, all) = (stored.contains(id), listed(&stored));
    ensure!(is_stored, Absent, "{id} among the stored tokens", "{all}");
    lab.until_signed_by(token).await?;
    bearer_reads_what_a_join_needs(lab, token).await
}

/// `curl` as the bearer of a token, from node 1, which has the authority's certificate.
async fn ask_as(lab: &Lab, token: &Token, what: &str) -> anyhow::Result<Curled> {
    let server = lab.join_command().await?.endpoint;
    let bearer = format!("--header 'Authorization: Bearer {token}'");
    let trusting = "--cacert /etc/kubernetes/pki/ca.crt";
    lab.node(1).curl(format!("{trusting} {bearer} https://{server}{what}")).await
}

const SYSTEM: &str = "/api/v1/namespaces/kube-system";

async fn bearer_reads_what_a_join_needs(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    lab.step(format!("the bearer of {} reads kubeadm-config and kubelet-config (E38)", token.id));
    for map in ["kubeadm-config", "kubelet-config"] {
        let asked = ask_as(lab, token, &format!("{SYSTEM}/configmaps/{map}")).await?;
        asked.ends(Cause::Answered, format!("{map} for a token's bearer"))?;
    }
    Ok(())
}

/// A request by a node that there is not (PKCS #10), in base64.
const REQUEST: &str = "\
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null \
-subj /O=system:nodes/CN=system:node:node9 2>/dev/null | base64 -w0";

async fn bearer_asks_for_a_certificate(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    lab.step("it may ask for a node's certificate (E38)");
    let request = lab.node(1).run(REQUEST).await?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "generateName": "bearer-" },
        "spec": {
            "request": request.text(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    lab.node(1).write("/root/request.json", object.to_string()).await?;
    let post = "/apis/certificates.k8s.io/v1/certificatesigningrequests \
        --header 'Content-Type: application/json' --data @/root/request.json";
    let asked = ask_as(lab, token, post).await?;
    Ok(asked.has_status(201, "a CertificateSigningRequest to be made")?)
}

async fn bearer_reads_no_secrets(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    lab.step("it may not read Secrets (E38)");
    let asked = ask_as(lab, token, &format!("{SYSTEM}/secrets")).await?;
    Ok(asked.refuses_with(403, "status 403 for a token's bearer who asks for Secrets")?)
}

async fn bearer_is_nobody(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    lab.step("its bearer is nobody (E38)");
    let asked = ask_as(lab, token, &format!("{SYSTEM}/configmaps/kubeadm-config")).await?;
    Ok(asked.refuses_with(401, "status 401 for an expired token's bearer")?)
}

/// The API server learns of changed bindings a moment later.
async fn until_bearers_may(lab: &Lab, what: &str, may: bool) -> anyhow::Result<()> {
    let bearer = "--as=system:bootstrap:podwir --as-group=system:bootstrappers \
        --as-group=system:bootstrappers:kubeadm:default-node-token";
    let ask = format!("auth can-i {what} -n kube-system {bearer}");
    lab.eventually(format!("{what}: {may}"), secs(20), async || {
        let answer = lab.kubectl(&ask).may_fail().await?;
        let so = answer.succeeded() == may;
        Ok(Probe::when(so, Cause::NotReady, answer.said()))
    })
    .await
}

async fn is_gone(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    let Token { id, .. } = token;
    let first = lab.first_token().await?.id;
    lab.step(format!(
        "{id} expires: its Secret and its signature are gone, {first}'s are not (E12)"
    ));
    let needs = Needs::All(vec![
        Needs::ControlPlane("kube-controller-manager"),
        silence(STRICT.to_owned(), "its controllers"),
        silence(expires(token), "its time is not over"),
    ]);
    lab.eventually(format!("neither Secret nor signature of {id}"), secs(60), async || {
        let (stored, signing) = (lab.stored_tokens().await?, lab.signing_tokens().await?);
        let state = format!("stored are {stored:?}, cluster-info is signed by {signing:?}");
        if !stored.contains(&first) || !signing.contains(&first) {
            return Ok(Probe::hopeless(Cause::Absent, state));
        }
        let gone = !stored.contains(id) && !signing.contains(id);
        Ok(Probe::when(gone, Cause::Answered, state).needs(needs.clone()))
    })
    .await
}

fn silence(command: String, means: &str) -> Needs {
    Needs::Silence { node: 1, command, means: means.to_owned() }
}

const CONTROLLER_MANAGER: &str = "/etc/kubernetes/manifests/kube-controller-manager.yaml";

/// Which of the two it runs without.
const STRICT: &str = "\
for name in bootstrapsigner tokencleaner; do \
grep -q $name /etc/kubernetes/manifests/kube-controller-manager.yaml || echo no $name; done";

/// When the token expires, where that is more than half an hour ahead.
fn expires(token: &Token) -> String {
    let name = token.secret_name();
    format!(
        "at=$(kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system get secret {name} \
         --ignore-not-found -o go-template='{{{{base64decode .data.expiration}}}}'); \
         [ -z \"$at\" ] || [ $(date -d $at +%s) -lt $(($(date +%s) + 1800)) ] || echo until $at"
    )
}

/// kubeadm names the two, which do not run by themselves (kube-controller-manager's reference,
/// `--controllers`).
async fn run_without(lab: &Lab, controller: &str) -> anyhow::Result<()> {
    lab.step(format!("take {controller} away from the controller manager"));
    let node1 = lab.node(1);
    let running = "crictl ps -q --name kube-controller-manager 2>/dev/null";
    let before = node1.run(running).await?.stdout;
    // In one step: the kubelet takes every file of that folder for a Pod.
    let change = format!("sed 's/,{controller}//' {CONTROLLER_MANAGER} > /root/changed.yaml");
    node1.run(format!("{change} && mv /root/changed.yaml {CONTROLLER_MANAGER}")).await?;
    lab.eventually("another controller manager", secs(60), async || {
        let now = node1.run(running).await?.stdout;
        let another = !now.is_empty() && now != before;
        Ok(Probe::when(another, Cause::NotReady, now).needs(Needs::Kubelet(1)))
    })
    .await
}

/// A token that was never made.
fn stranger() -> Token {
    Token { id: "abcdef".to_owned(), secret: "0123456789abcdef".to_owned() }
}

/// Keeps the token, too.
async fn tell_node2(lab: &Lab, token: Token, discovery: u64) -> anyhow::Result<()> {
    let mut command = lab.join_command().await?;
    command.token = token.to_string();
    lab.keep(token);
    let timeouts = json!({ "discovery": format!("{discovery}s") });
    lab.kubeadm(2).write_join_config(&command, None, timeouts).await
}

async fn join_says_so(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    let answer = lab.kubeadm(2).try_to_join_as_told().await?;
    lab.step("it ends within timeouts.discovery, for want of a signature (E12)");
    let id = &token.id;
    let why = format!(
        "could not find a JWS signature in the cluster-info ConfigMap for token ID \"{id}\""
    );
    assert::refused(&answer, &why, &format!("no join with {id}"))?;
    let looks = looks_at_cluster_info(&answer.said());
    let soon = (1..=LOOKS).contains(&looks);
    ensure!(soon, WrongAnswer, "1 or {LOOKS} looks at cluster-info", "{looks} looks: {answer}");
    Ok(())
}
