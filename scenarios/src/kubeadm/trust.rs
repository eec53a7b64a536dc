//! Whom a joining node trusts, by the authority's hash, and who trusts it, by a token of its own.

use podwire_scenario::{
    Cause, JoinCommand, Lab, Profile, Sabotage, Scenario, StageName, Token, assert, ensure,
    ensure_none, looks_at_cluster_info, secs, steps,
};
use serde_json::json;

use super::join::FILES;
use crate::catalogue::{E16, E17, E41};

/// E16!, E17!, E41: the two halves of trust, taken apart.
///
/// kubeadm makes no token without authentication: it gives each a group, and refuses a group without
/// that. So that usage is taken from one by hand.
pub(crate) const TRUST: Scenario = Scenario {
    about: "A join without the authority's hash is refused unless the unsafe flag is typed, one with a \
            wrong hash at once, and nothing is written; discovery and TLS bootstrap may have a token \
            each, and the second must be one for authentication",
    covers: &[E16, E17, E41],
    profile: Profile::Full,
    nodes: 3,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("flag-added")
            .about("a script before kubeadm adds the unsafe flag")
            .inject(steps!(|lab| lab
                .kubeadm(FIRST)
                .types_otherwise(&format!("s/$/ {UNSAFE}/"))
                .await))
            .caught_by(steps!(refused_without_a_hash), Cause::Answered),
        Sabotage::new("flag-lost")
            .about("a script before kubeadm leaves the unsafe flag out")
            .inject(steps!(|lab| lab
                .kubeadm(FIRST)
                .types_otherwise(&format!("s/ {UNSAFE}//"))
                .await))
            .saying("discovery.bootstrapToken.caCertHashes")
            .caught_by(steps!(accepted_unsafely), Cause::Absent),
        Sabotage::new("right-hash")
            .about("the hash is the authority's")
            .inject(steps!(|lab| tell(lab, &lab.join_command().await?).await))
            .caught_by(steps!(wrong_hash_is_refused_at_once), Cause::Answered),
        Sabotage::new("no-signature")
            .about("the token was never made, so that the hash's turn does not come")
            .inject(steps!(|lab| {
                let mut command = with_wrong_hash(lab).await?;
                command.token = "abcdef.0123456789abcdef".to_owned();
                tell(lab, &command).await
            }))
            .saying(" looks: ")
            .caught_by(steps!(wrong_hash_is_refused_at_once), Cause::WrongAnswer),
        Sabotage::new("left-from-before")
            .about("a kubelet's configuration lies there")
            .inject(steps!(|lab| {
                let config =
                    "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
                lab.node(FIRST).write("/var/lib/kubelet/config.yaml", config).await
            }))
            .caught_by(steps!(nothing_is_written), Cause::Answered),
        Sabotage::new("still-authenticates")
            .about("the second token is one for authentication, too")
            .inject(steps!(|lab| {
                lab.keep(lab.kubeadm(1).create_token("").await?);
                Ok(())
            }))
            .caught_by(
                steps!(|lab| refused_without_authentication(lab, &lab.kept()?).await),
                Cause::Answered,
            ),
        Sabotage::new("second-mistyped")
            .about("a script before kubeadm adds a letter to the second token")
            .inject(steps!(|lab| {
                lab.keep(lab.kubeadm(1).create_token("--usages authentication").await?);
                lab.kubeadm(SECOND).types_otherwise("s/--tls-bootstrap-token /&x/").await
            }))
            .saying("discovery.tlsBootstrapToken")
            .caught_by(steps!(|lab| joins_with_two_tokens(lab, &lab.kept()?).await), Cause::Absent),
        Sabotage::new("second-left-out")
            .about(
                "a script before kubeadm leaves the second token out, so that the first is for \
                 both",
            )
            .inject(steps!(|lab| {
                lab.keep(lab.kubeadm(1).create_token("--usages authentication").await?);
                lab.kubeadm(SECOND).types_otherwise("s/ --tls-bootstrap-token [^ ]*//").await
            }))
            .caught_by(
                steps!(|lab| joins_with_two_tokens(lab, &lab.kept()?).await),
                Cause::WrongAnswer,
            ),
    ],
    ..Scenario::new("join_needs_trust", StageName::Init, steps!(trust))
};

/// The nodes that join.
const FIRST: u32 = 2;
const SECOND: u32 = 3;

const UNSAFE: &str = "--discovery-token-unsafe-skip-ca-verification";

async fn trust(lab: &Lab) -> anyhow::Result<()> {
    refused_without_a_hash(lab).await?;
    tell(lab, &with_wrong_hash(lab).await?).await?;
    wrong_hash_is_refused_at_once(lab).await?;
    nothing_is_written(lab).await?;
    accepted_unsafely(lab).await?;

    let signs = lab.kubeadm(1).create_token("").await?;
    take_authentication_from(lab, &signs).await?;
    refused_without_authentication(lab, &signs).await?;
    lab.step("kubeadm token create makes a token for authentication alone");
    let authenticates = lab.kubeadm(1).create_token("--usages authentication").await?;
    joins_with_two_tokens(lab, &authenticates).await
}

async fn without_a_hash(lab: &Lab) -> anyhow::Result<String> {
    let JoinCommand { endpoint, token, .. } = lab.join_command().await?;
    Ok(format!("{endpoint} --token {token}"))
}

async fn refused_without_a_hash(lab: &Lab) -> anyhow::Result<()> {
    lab.step("without a hash it is refused (E16)");
    let answer = lab.kubeadm(FIRST).try_to_join_by(&without_a_hash(lab).await?).await?;
    let why = "using token-based discovery without caCertHashes can be unsafe";
    Ok(assert::refused(&answer, why, "no join without a hash")?)
}

async fn accepted_unsafely(lab: &Lab) -> anyhow::Result<()> {
    lab.step("with the unsafe flag it is accepted (E16)");
    let unsafely = format!("{} {UNSAFE}", without_a_hash(lab).await?);
    lab.kubeadm(FIRST).join_by(&unsafely).await?;
    lab.node(FIRST).registers().await.map(drop)
}

async fn with_wrong_hash(lab: &Lab) -> anyhow::Result<JoinCommand> {
    let mut command = lab.join_command().await?;
    command.hash = format!("sha256:{}", "0".repeat(64));
    Ok(command)
}

/// Time for some looks at cluster-info, where one is not enough.
async fn tell(lab: &Lab, command: &JoinCommand) -> anyhow::Result<()> {
    let timeouts = json!({ "discovery": "10s" });
    lab.kubeadm(FIRST).write_join_config(command, None, timeouts).await
}

async fn wrong_hash_is_refused_at_once(lab: &Lab) -> anyhow::Result<()> {
    let answer = lab.kubeadm(FIRST).try_to_join_as_told().await?;
    lab.step("with a wrong hash it is refused, at its first look at cluster-info (E17)");
    let said = answer.said();
    ensure!(!answer.succeeded(), Answered, "no join with a wrong hash", "{said}");
    // Before the reason: who looks again and again ends for another one.
    let looks = looks_at_cluster_info(&said);
    ensure!(looks == 1, WrongAnswer, "one look at cluster-info", "{looks} looks: {said}");
    Ok(assert::refused(&answer, "are pinned", "no join with a wrong hash")?)
}

async fn nothing_is_written(lab: &Lab) -> anyhow::Result<()> {
    lab.step("nothing of a join is written (E17)");
    let files = lab.node(FIRST).run(FILES).await?;
    ensure_none!(files.text().lines(), Answered, "no file of a join");
    Ok(())
}

async fn take_authentication_from(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    lab.step(format!("take its usage for authentication from the token {}", token.id));
    let name = token.secret_name();
    let none = r#"{"data":{"usage-bootstrap-authentication":null}}"#;
    let patch = format!("-n kube-system patch secret {name} --type merge -p '{none}'");
    lab.kubectl(patch).await.map(drop)
}

async fn refused_without_authentication(lab: &Lab, second: &Token) -> anyhow::Result<()> {
    lab.step("a second token that is not for authentication is refused (E41)");
    let command = lab.join_command().await?;
    // It asks for kubeadm-config again and again.
    let timeouts = json!({ "kubernetesAPICall": "20s" });
    lab.kubeadm(SECOND).write_join_config(&command, Some(second), timeouts).await?;
    let answer = lab.kubeadm(SECOND).try_to_join_as_told().await?;
    let why =
        "unable to fetch the kubeadm-config ConfigMap: failed to get config map: Unauthorized";
    let expected = format!("no join with {second} for TLS bootstrap");
    Ok(assert::refused(&answer, why, &expected)?)
}

async fn joins_with_two_tokens(lab: &Lab, second: &Token) -> anyhow::Result<()> {
    lab.step("with a token each, discovery and TLS bootstrap work (E41)");
    let JoinCommand { endpoint, token, hash, .. } = lab.join_command().await?;
    let two = format!("--discovery-token {token} --tls-bootstrap-token {second}");
    let trusted = format!("--discovery-token-ca-cert-hash {hash}");
    lab.kubeadm(SECOND).join_by(&format!("{endpoint} {two} {trusted}")).await?;
    let node = lab.node(SECOND);
    node.registers().await?;
    lab.step(format!("{node}'s certificate was asked for with the second"));
    let asked = "get certificatesigningrequests -o jsonpath='{.items[*].spec.username}'";
    let bearers = lab.kubectl(asked).await?;
    let (bearers, wanted) = (bearers.text(), format!("system:bootstrap:{}", second.id));
    let by_second = bearers.split(' ').any(|it| it == wanted);
    ensure!(by_second, WrongAnswer, "a request by {wanted}", "{bearers}");
    Ok(())
}
