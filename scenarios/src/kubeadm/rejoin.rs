//! A node leaves with `kubeadm reset` and comes back.

use podwire_scenario::{
    Break, Cause, Cells, Failure, JoinCommand, Lab, Profile, READY_AFTER_JOIN, Sabotage, Scenario,
    StageName, assert, ensure, ensure_none, secs, steps,
};

use super::taint::OF_A_CONTROL_PLANE;
use crate::catalogue::{E29, E31, E32, E33};

/// E29!, E31, E32!, E33: the end of the lab. Its drain and delete are shown by scenarios of their
/// own, as is a reset whose leftovers stay.
pub(crate) const REJOIN: Scenario = Scenario {
    about: "A deleted node cannot join again before it is reset; reset asks, then takes away what \
            the join brought, and leaves the network; the same join command brings the node back",
    covers: &[E29, E31, E32, E33],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(360),
    sabotages: &[
        Sabotage::new("half-cleaned-by-hand")
            .about("somebody removed the authority's certificate before the second join")
            .inject(steps!(|lab| {
                lab.keep(lab.join_command().await?);
                let remove = "rm /etc/kubernetes/pki/ca.crt";
                lab.last_node().run(remove).await
            }))
            .caught_by(
                steps!(|lab| refused_before_a_reset(lab, &lab.kept()?).await),
                Cause::Absent,
            ),
        Sabotage::new("reset-all-the-same")
            .about("reset is told to ask nobody")
            .inject(steps!(|lab| {
                lab.kubeadm(lab.node_count()).types_otherwise("s/^reset/reset --force/").await
            }))
            .caught_by(steps!(nothing_changed_without_a_y), Cause::Answered),
        Sabotage::new("reset-not-confirmed")
            .about("reset's question was not answered with y")
            .inject(steps!(|lab| lab.kubeadm(lab.node_count()).reset_answered("N").await))
            .caught_by(steps!(emptied), Cause::Answered),
        Sabotage::new("network-wiped-too")
            .about("somebody removed the CNI files as well")
            .inject(steps!(|lab| {
                leave_a_kubeconfig(lab).await?;
                lab.last_node().run("rm -rf /etc/cni/net.d").await
            }))
            .caught_by(steps!(network_left), Cause::Absent),
        Sabotage::new("not-joined-again")
            .about("the node is off the list and its kubelet stopped")
            .inject(steps!(|lab| lab.last_node().take_off().await))
            .caught_by(steps!(back_again), Cause::Absent),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("kubeadm_reset_and_rejoin", StageName::Workload, steps!(rejoin))
};

async fn rejoin(lab: &Lab) -> anyhow::Result<()> {
    let (node, kubeadm) = (lab.last_node(), lab.kubeadm(lab.node_count()));
    let wanted = lab.pods().running().await?.len();
    let command = lab.join_command().await?;
    node.drain().await?;
    node.delete().await?;

    refused_before_a_reset(lab, &command).await?;
    leave_a_kubeconfig(lab).await?;
    nothing_changed_without_a_y(lab).await?;
    tells_what_it_leaves(&kubeadm.reset().await?)?;
    emptied(lab).await?;
    network_left(lab).await?;

    node.remove_old_pod_network().await?;
    kubeadm.join(&command).await?;
    back_again(lab).await?;

    lab.step("the control plane can be tainted again");
    let taint = format!("taint nodes node1 {OF_A_CONTROL_PLANE}");
    lab.kubectl(taint).await?;
    lab.step(format!("scale up: {node} takes Pods, reached from everywhere"));
    node.takes_pods(wanted + 2).await?;
    lab.pod_addresses_unique_and_in_range().await?;
    let mesh = lab.mesh_of_everybody().await?;
    Ok(mesh.all_answer("every pair to answer after the rejoin")?)
}

/// The checks that a node which has joined once does not pass.
pub(super) const IN_THE_WAY: [&str; 3] = [
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "Port-10250",
];

async fn refused_before_a_reset(lab: &Lab, command: &JoinCommand) -> anyhow::Result<()> {
    let answer = lab.kubeadm(lab.node_count()).try_to_join(command).await?;
    lab.step("it is refused, by exactly the checks that a first join leaves behind (E29)");
    Ok(assert::stopped_by(&answer, &IN_THE_WAY)?)
}

/// What a join brought: the kubelet's process, and the digest of every file of its own.
const TREE: &str = "\
systemctl show -P MainPID kubelet; \
find /etc/kubernetes /var/lib/kubelet/pki /var/lib/kubelet/*.yaml /var/lib/kubelet/*.env \
-type f -print0 | sort -z | xargs -0 sha256sum";

async fn nothing_changed_without_a_y(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    let before = node.run(TREE).await?.stdout;
    let answer = lab.kubeadm(node.number()).reset_answered("N").await?;
    lab.step("it will not proceed, and nothing has changed (E31)");
    let said = answer.said();
    let asked = said.contains("Are you sure you want to proceed? [y/N]");
    let stopped = asked && !answer.succeeded();
    ensure!(stopped, Answered, "reset to ask, and to stop", "{said}");
    let same = node.run(TREE).await?.stdout == before;
    ensure!(same, WrongAnswer, "no file or process changed", "{said}");
    Ok(())
}

fn tells_what_it_leaves(said: &str) -> Result<(), Failure> {
    let text: Vec<&str> = said.split_whitespace().collect();
    let told = text.join(" ").contains(
        "The reset process does not perform cleanup of CNI plugin configuration, \
         network filtering rules and kubeconfig files.",
    );
    ensure!(told, Absent, "reset to say what it leaves", "{said}");
    Ok(())
}

/// One line for each thing that is left of the join.
const LEFT: &str = "\
systemctl is-active kubelet | grep -x active | sed 's/^/kubelet /'; \
cd /etc/kubernetes && find manifests pki -mindepth 1 2>/dev/null; ls -d *.conf 2>/dev/null; \
find /var/lib/kubelet -mindepth 1 -maxdepth 1 2>/dev/null; \
grep -o ' /var/lib/kubelet[^ ]*' /proc/mounts | sed 's/^/mounted/'; \
crictl pods -q 2>/dev/null | sed 's/^/sandbox /'; \
crictl ps -aq 2>/dev/null | sed 's/^/container /'; true";

pub(super) async fn emptied(lab: &Lab) -> anyhow::Result<()> {
    lab.step("what the join brought is gone: files, mounts, containers (E31)");
    let answer = lab.last_node().run(LEFT).await?;
    ensure_none!(answer.text().lines(), Answered, "nothing left of the join");
    Ok(())
}

/// Reset takes /etc/kubernetes/admin.conf, but no copy of it.
async fn leave_a_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    let copy = "install -D -m 600 /etc/kubernetes/kubelet.conf /root/.kube/config";
    lab.last_node().run(copy).await?;
    Ok(())
}

/// A word for each thing that a reset does not touch. Rules of kube-proxy: a table of its own in
/// nftables mode, chains in iptables mode.
const NETWORK: &str = "\
[ \"$(ls -A /etc/cni/net.d 2>/dev/null)\" ] && echo cni-files; \
[ -e /var/lib/cni ] && echo plugin-state; \
[ -e /root/.kube/config ] && echo kubeconfig; \
[ -e /sys/class/net/cni0 ] && echo bridge; \
{ nft list tables; iptables-save -t nat; } 2>/dev/null | grep -q -e kube-proxy -e KUBE-SERVICES \
&& echo rules; true";

async fn network_left(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the network and the user's kubeconfig are as they were (E32)");
    let answer = lab.last_node().run(NETWORK).await?;
    let there: Vec<&str> = answer.stdout.lines().collect();
    let mut wanted = vec!["cni-files", "kubeconfig", "rules"];
    // Others may do without the bridge and its plugins.
    if !lab.pod_network().is_of_a_manifest() {
        wanted.extend(["plugin-state", "bridge"]);
    }
    let missing = wanted.iter().filter(|it| !there.contains(it));
    ensure_none!(missing, Absent, "nothing of the network gone with the reset");
    Ok(())
}

async fn back_again(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("{node} is Ready again (E33)"));
    node.ready_within(READY_AFTER_JOIN).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_own_words_about_the_network_are_found_across_lines() {
        let said = "\nThe reset process does not perform cleanup of CNI plugin configuration,\n\
                    network filtering rules and kubeconfig files.\n\nFor information on how";
        assert_eq!(tells_what_it_leaves(said), Ok(()));
        assert!(tells_what_it_leaves("[reset] Deleting files").is_err());
    }
}
