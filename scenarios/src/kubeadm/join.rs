//! A worker joins: the hash of the authority, the phases, and when its Node is Ready.

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Failure, JoinCommand, Lab, Needs, Probe, READY_AFTER_JOIN, Sabotage, Scenario,
    StageName, ensure, ensure_none, secs, steps,
};

use crate::catalogue::{E13, E14};

/// E13, E14: the lab's own story, up to a Ready Node.
///
/// The documents pipe the key through `openssl rsa`; these authorities have keys on elliptic
/// curves, hence `openssl pkey`. Their Pod network was a DaemonSet; here the CNI file is written
/// by hand after the join, so that the Node is seen to wait for it.
pub(crate) const JOIN: Scenario = Scenario {
    about: "A worker joins with a token and the hash of the authority's key: the phases are \
            reported, the files written, the Node appears, and is Ready once it has a CNI file",
    covers: &[E13, E14],
    limit: secs(180),
    sabotages: &[
        Sabotage::new("another-authority")
            .about("pki holds the certificate of another authority than the join command's")
            .inject(steps!(|lab| {
                lab.step("replace the authority's certificate");
                lab.node(1).run(ANOTHER_AUTHORITY).await
            }))
            .caught_by(
                steps!(|lab| hash_is_the_authoritys(lab, &lab.join_command().await?).await),
                Cause::WrongAnswer,
            ),
        Sabotage::new("port-taken")
            .about("something else listens on the kubelet's port")
            .inject(steps!(|lab| {
                lab.keep(lab.join_command().await?);
                lab.node(JOINING).occupy_port(10250).await
            }))
            .saying("Port-10250")
            .caught_by(steps!(|lab| lab.kubeadm(JOINING).join(&lab.kept()?).await), Cause::Absent),
        Sabotage::new("no-pod-network")
            .about("the node gets no CNI file")
            // Node 1 has joined, and has none either.
            .caught_by(steps!(|lab| ready_with_its_cni_file(lab, 1).await), Cause::NotReady),
    ],
    ..Scenario::new("kubeadm_join", StageName::Init, steps!(joins))
};

/// The first worker.
const JOINING: u32 = 2;

async fn joins(lab: &Lab) -> anyhow::Result<()> {
    let (node, kubeadm) = (lab.node(JOINING), lab.kubeadm(JOINING));
    let printed = lab.join_command().await?;
    hash_is_the_authoritys(lab, &printed).await?;

    lab.step("kubeadm token create --print-join-command prints one with another token");
    let create = "token create --print-join-command 2>/dev/null";
    let created = lab.kubeadm(1).run(create).await?.stdout;
    let none = || format!("no join command in {created:?}");
    let command = JoinCommand::find(&created).with_context(none)?;
    let anew = command.token != printed.token && command.hash == printed.hash;
    ensure!(anew, WrongAnswer, "{printed}, a new token", "{command}");

    let said = kubeadm.join(&command).await?;
    let own = kubeadm.minor().await? >= OWN_CONFIG_SINCE;
    phases_reported(&said, own)?;
    lab.step("the files are written, and the token is not left behind");
    files_written(&node.run(FILES).await?.stdout, own)?;
    registered_without_roles(lab).await?;
    waits_for_its_network(lab).await?;

    lab.step(format!("give {node} a CNI file, as the Pod network does"));
    node.write_cni_file(node.pod_range()).await?;
    ready_with_its_cni_file(lab, JOINING).await
}

/// With the documents' own pipe.
const HASH: &str = "\
openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt \
| openssl pkey -pubin -outform der | openssl dgst -sha256 -hex | sed 's/^.* //; s/^/sha256:/'";

async fn hash_is_the_authoritys(lab: &Lab, command: &JoinCommand) -> anyhow::Result<()> {
    lab.step("hash the authority's public key with openssl (E13)");
    let answer = lab.node(1).run(HASH).await?;
    let (hash, wanted) = (answer.text(), &command.hash);
    ensure!(
        hash == wanted,
        WrongAnswer,
        "the hash of the join command, {wanted}",
        "{hash}",
        "/etc/kubernetes/pki/ca.crt on node1: which authority is it?"
    );
    Ok(())
}

const ANOTHER_AUTHORITY: &str = "\
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
-subj /CN=kubernetes -keyout /dev/null -out /etc/kubernetes/pki/ca.crt 2>/dev/null";

/// What a join reports, in this order.
const PHASES: [&str; 8] = [
    "[preflight] Running pre-flight checks",
    "[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap",
    "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/instance-config.yaml\"",
    "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"",
    "[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\"",
    "[kubelet-start] Starting the kubelet",
    "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
    "This node has joined the cluster:",
];

/// What kubeadm writes about the node alone (the feature gate NodeLocalCRISocket), since this minor.
const OWN_CONFIG: &str = "instance-config.yaml";
const OWN_CONFIG_SINCE: u32 = 34;

fn phases_reported(said: &str, own: bool) -> Result<(), Failure> {
    let mut lines = said.lines();
    for phase in PHASES.iter().filter(|it| own || !it.contains(OWN_CONFIG)) {
        let next = lines.any(|line| line.contains(*phase));
        ensure!(next, Absent, "in its turn: {phase}", "{said}");
    }
    Ok(())
}

/// The files of a join that are there.
pub(super) const FILES: &str = "\
cd /var/lib/kubelet && ls config.yaml instance-config.yaml kubeadm-flags.env 2>/dev/null; \
cd /etc/kubernetes && ls kubelet.conf bootstrap-kubelet.conf pki/ca.crt 2>/dev/null; true";

fn files_written(answer: &str, own: bool) -> Result<(), Failure> {
    let there = |file: &str| answer.lines().any(|line| line == file);
    let always = "config.yaml kubeadm-flags.env kubelet.conf pki/ca.crt";
    for file in always.split(' ').chain(own.then_some(OWN_CONFIG)) {
        ensure!(there(file), Absent, "the join's files", "no {file}");
    }
    let token = "bootstrap-kubelet.conf";
    ensure!(!there(token), Answered, "no {token} left", "it is there");
    Ok(())
}

async fn registered_without_roles(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(JOINING);
    lab.step(format!("{node} is listed: no role, node1's version"));
    let listed = node.registers().await?;
    let labels = listed.labels();
    let roles = labels.iter().filter(|it| it.starts_with("node-role."));
    ensure_none!(roles, WrongAnswer, "{node} without a role");
    let node1 = lab.node(1).listed().await?;
    let (own, first) = (listed.version(), node1.as_ref().and_then(|it| it.version()));
    let same = own.is_some() && own == first;
    ensure!(same, WrongAnswer, "node1's version, {first:?}", "{own:?}");
    Ok(())
}

/// A Node that is not Ready for the one reason that its network is missing.
async fn waits_for_its_network(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(JOINING);
    lab.step(format!("{node} is not Ready: there is no Pod network yet"));
    let expected = format!("{node} to say that its network plugin is not initialized");
    node.until(expected, secs(20), |listed| {
        let Some(ready) = listed.and_then(|it| it.condition("Ready")) else {
            return Probe::not_yet(Cause::Absent, "no Ready condition");
        };
        if ready.status == "True" {
            return Probe::hopeless(Cause::Answered, "it is Ready");
        }
        let message = ready.message.as_deref().unwrap_or_default();
        let lacks_network = message.contains("NetworkPluginNotReady");
        Probe::when(lacks_network, Cause::NotReady, message)
    })
    .await
}

async fn ready_with_its_cni_file(lab: &Lab, number: u32) -> anyhow::Result<()> {
    let node = lab.node(number);
    lab.step(format!("{node} is Ready (E14)"));
    let needs = Needs::Silence {
        node: number,
        command: "[ \"$(ls -A /etc/cni/net.d 2>/dev/null)\" ] || echo /etc/cni/net.d".to_owned(),
        means: "it has no CNI file".to_owned(),
    };
    node.ready_within_or(READY_AFTER_JOIN, needs).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_wanted_in_their_order() {
        let good = PHASES.join("\nmore\n");
        assert_eq!(phases_reported(&good, true), Ok(()));
        let mut swapped = PHASES;
        swapped.swap(3, 4);
        assert!(phases_reported(&swapped.join("\n"), true).is_err());
        let failure = phases_reported(PHASES[0], true).unwrap_err();
        assert!(failure.expected.contains("kubeadm-config"), "{failure}");
        let without = good.replace(OWN_CONFIG, "");
        assert!(phases_reported(&without, true).is_err());
        assert_eq!(phases_reported(&without, false), Ok(()));
    }

    #[test]
    fn a_bootstrap_kubeconfig_that_stays_is_told_from_a_missing_file() {
        let good =
            "config.yaml\ninstance-config.yaml\nkubeadm-flags.env\nkubelet.conf\npki/ca.crt\n";
        assert_eq!(files_written(good, true), Ok(()));
        let stays = files_written(&format!("{good}bootstrap-kubelet.conf\n"), true).unwrap_err();
        assert_eq!(stays.cause, Cause::Answered);
        let none = files_written(&good.replace("pki/ca.crt", ""), true).unwrap_err();
        assert_eq!(none.cause, Cause::Absent);
    }

    #[test]
    fn a_config_of_the_nodes_own_is_wanted_where_there_is_one() {
        let before = "config.yaml\nkubeadm-flags.env\nkubelet.conf\npki/ca.crt\n";
        assert_eq!(files_written(before, false), Ok(()));
        assert_eq!(files_written(before, true).unwrap_err().cause, Cause::Absent);
    }
}
