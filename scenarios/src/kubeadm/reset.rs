//! A node leaves with `kubeadm reset` and comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use podwire_cluster::kubeadm::JoinCommand;
use podwire_cluster::{Break, PodNetwork, StageName, addresses, cni};
use podwire_lan::Ipv4Net;
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless,
};

use crate::catalogue::{E29, E31, E32, E33, E34};
use crate::leaving::{clean_up_the_network, delete, drain, takes_pods};
use crate::prospects;
use crate::steps::{
    COMMAND, addresses_unique_and_in_range, mesh_of_everybody, node_ready, on, take_off,
};

use super::steps::{
    READY_AFTER_JOIN, join, join_command, kubectl, preflight_errors, reset, reset_for_good,
    try_to_join,
};

/// E29!, E31, E32!, E33: the end of the lab. Its drain and delete are shown by scenarios of their
/// own, as is a reset whose leftovers stay.
pub(crate) const REJOIN: Scenario = Scenario {
    name: "kubeadm_reset_and_rejoin",
    about: "A deleted node cannot join again before it is reset; reset asks, then takes away what \
            the join brought, and leaves the network; the same join command brings the node back",
    covers: &[E29, E31, E32, E33],
    stage: StageName::Workload,
    cells: Cells::Kubeadm,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(360),
    prepare: None,
    run: |lab| Box::pin(rejoin(lab)),
    sabotages: &[
        Sabotage {
            name: "half-cleaned-by-hand",
            about: "somebody removed the authority's certificate before the second join",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    on(lab, lab.nodes(), "rm /etc/kubernetes/pki/ca.crt").await?;
                    lab.injected();
                    refused_before_a_reset(lab, &join_command(lab).await?).await
                })
            },
        },
        Sabotage {
            name: "reset-not-confirmed",
            about: "reset's question was not answered with y",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    reset(lab, lab.nodes(), "N").await?;
                    lab.injected();
                    emptied(lab).await
                })
            },
        },
        Sabotage {
            name: "network-wiped-too",
            about: "somebody removed the CNI files as well",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    leave_a_kubeconfig(lab).await?;
                    on(lab, lab.nodes(), "rm -rf /etc/cni/net.d").await?;
                    lab.injected();
                    network_left(lab).await
                })
            },
        },
        Sabotage {
            name: "not-joined-again",
            about: "the node is off the list and its kubelet stopped",
            expects: Cause::Absent,
            run: |lab| {
                Box::pin(async {
                    take_off(lab, lab.nodes()).await?;
                    lab.injected();
                    back_again(lab).await
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::PodRange],
};

async fn rejoin(lab: &Lab) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let name = addresses::node_name(leaving);
    let wanted = lab.pods().await?.len();
    let command = join_command(lab).await?;
    drain(lab, leaving).await?;
    delete(lab, leaving).await?;

    refused_before_a_reset(lab, &command).await?;
    leave_a_kubeconfig(lab).await?;
    nothing_changed_without_a_y(lab).await?;
    let said = reset_for_good(lab, leaving).await?;
    tells_what_it_leaves(&said)?;
    emptied(lab).await?;
    network_left(lab).await?;

    clean_up_the_network(lab, leaving).await?;
    join(lab, leaving, &command).await?;
    back_again(lab).await?;

    lab.step("the control plane can be tainted again");
    kubectl(
        lab,
        &format!("taint nodes {} {TAINT}", addresses::node_name(1)),
    )
    .await?;
    lab.step(format!(
        "scale up: {name} takes Pods, reached from everywhere"
    ));
    takes_pods(lab, leaving, wanted + 2).await?;
    addresses_unique_and_in_range(lab).await?;
    mesh_of_everybody(lab)
        .await?
        .all_answer("every pair to answer after the rejoin")?;
    Ok(())
}

/// The taint that kubeadm gives to a control plane; the lab's still said `master`.
pub(super) const TAINT: &str = "node-role.kubernetes.io/control-plane=:NoSchedule";

/// The checks that a node which has joined once does not pass.
const IN_THE_WAY: [&str; 3] = [
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "Port-10250",
];

async fn refused_before_a_reset(lab: &Lab, command: &JoinCommand) -> anyhow::Result<()> {
    let said = try_to_join(lab, lab.nodes(), command).await?;
    lab.step("it is refused, by exactly the checks that a first join leaves behind (E29)");
    let found = preflight_errors(&said.text);
    let expected = format!(
        "a join before any reset to fail on {}",
        IN_THE_WAY.join(", ")
    );
    if said.success {
        return Err(Failure::new(Cause::Answered, expected, said.text).into());
    }
    let wanted = BTreeSet::from(IN_THE_WAY);
    if found == wanted {
        return Ok(());
    }
    let cause = if found.is_superset(&wanted) {
        Cause::WrongAnswer
    } else {
        Cause::Absent
    };
    Err(Failure::new(cause, expected, said.text).into())
}

/// What a join brought: the kubelet's process, and the digest of every file of its own.
const TREE: &str = "\
systemctl show -P MainPID kubelet; \
find /etc/kubernetes /var/lib/kubelet/pki /var/lib/kubelet/*.yaml /var/lib/kubelet/*.env \
-type f -print0 | sort -z | xargs -0 sha256sum";

async fn nothing_changed_without_a_y(lab: &Lab) -> anyhow::Result<()> {
    let leaving = lab.nodes();
    let before = on(lab, leaving, TREE).await?;
    let said = reset(lab, leaving, "N").await?;
    lab.step("it will not proceed, and nothing has changed (E31)");
    let expected = "reset to ask, and to stop at any answer but y";
    if said.success
        || !said
            .text
            .contains("Are you sure you want to proceed? [y/N]")
    {
        return Err(Failure::new(Cause::Answered, expected, said.text).into());
    }
    if on(lab, leaving, TREE).await? != before {
        let seen = format!("files or the kubelet's process changed: {}", said.text);
        return Err(Failure::new(Cause::WrongAnswer, expected, seen).into());
    }
    Ok(())
}

fn tells_what_it_leaves(said: &str) -> Result<(), Failure> {
    let text: Vec<&str> = said.split_whitespace().collect();
    let told = "The reset process does not perform cleanup of CNI plugin configuration, \
                network filtering rules and kubeconfig files.";
    if text.join(" ").contains(told) {
        return Ok(());
    }
    let expected = "reset to say that it leaves the network and kubeconfigs";
    Err(Failure::new(Cause::Absent, expected, said))
}

/// One line for each thing that is left of the join.
const LEFT: &str = "\
systemctl is-active kubelet | grep -x active | sed 's/^/kubelet /'; \
cd /etc/kubernetes && find manifests pki -mindepth 1 2>/dev/null; ls -d *.conf 2>/dev/null; \
find /var/lib/kubelet -mindepth 1 -maxdepth 1 2>/dev/null; \
grep -o ' /var/lib/kubelet[^ ]*' /proc/mounts | sed 's/^/mounted/'; \
crictl pods -q 2>/dev/null | sed 's/^/sandbox /'; \
crictl ps -aq 2>/dev/null | sed 's/^/container /'; true";

async fn emptied(lab: &Lab) -> anyhow::Result<()> {
    lab.step("what the join brought is gone: files, mounts, containers (E31)");
    let left = on(lab, lab.nodes(), LEFT).await?;
    if left.trim().is_empty() {
        return Ok(());
    }
    let expected = "nothing left of the join after a reset";
    let seen = format!("still there:\n{left}");
    Err(Failure::new(Cause::Answered, expected, seen).into())
}

/// Reset takes /etc/kubernetes/admin.conf, but no copy of it.
async fn leave_a_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    on(
        lab,
        lab.nodes(),
        "install -D -m 600 /etc/kubernetes/kubelet.conf /root/.kube/config",
    )
    .await?;
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
    let there = on(lab, lab.nodes(), NETWORK).await?;
    let there: Vec<&str> = there.lines().collect();
    let mut wanted = vec!["cni-files", "kubeconfig", "rules"];
    // A network of the user's may do without the bridge and its plugins.
    if lab.cluster().plan().cell.network != PodNetwork::Manifest {
        wanted.extend(["plugin-state", "bridge"]);
    }
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|it| !there.contains(it))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let expected = "a reset to leave CNI files and state, the bridge, rules and kubeconfigs";
    let seen = format!("no {}", missing.join(", no "));
    Err(Failure::new(Cause::Absent, expected, seen).into())
}

async fn back_again(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    lab.step(format!(
        "{} is Ready again (E33)",
        addresses::node_name(number)
    ));
    node_ready(lab, number, READY_AFTER_JOIN, async || Ok(None)).await
}

/// E34!: why the administrator is asked to clean up.
pub(crate) const OLD_BRIDGE: Scenario = Scenario {
    name: "rejoin_with_the_old_bridge",
    about: "A node that comes back with another Pod range and its old bridge gets no Pod to run: \
            the bridge's address is another; without the bridge the Pod runs",
    covers: &[E34],
    stage: StageName::Workload,
    cells: Cells::KubeadmWithBridge,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(300),
    prepare: None,
    run: |lab| Box::pin(old_bridge(lab)),
    sabotages: &[
        Sabotage {
            name: "same-range",
            about: "the node keeps its range",
            expects: Cause::Answered,
            run: |lab| {
                Box::pin(async {
                    replace_pods(lab).await?;
                    lab.injected();
                    sandbox_fails(lab).await
                })
            },
        },
        Sabotage {
            name: "bridge-stays",
            about: "the bridge with the old address is not deleted",
            expects: Cause::NotReady,
            run: |lab| {
                Box::pin(async {
                    let file = on(lab, lab.nodes(), "ls -d /etc/cni/net.d/*").await?;
                    let old = range_of(lab).await?;
                    let new = another_range(lab.nodes());
                    lab.step(format!("change the CNI file's range from {old} to {new}"));
                    let change = format!("sed -i 's|{old}|{new}|' {}", file.trim());
                    on(lab, lab.nodes(), &change).await?;
                    replace_pods(lab).await?;
                    lab.injected();
                    pods_run_in(lab, new).await
                })
            },
        },
    ],
    red_when: &[],
};

async fn old_bridge(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    let old = range_of(lab).await?;
    let command = join_command(lab).await?;
    drain(lab, number).await?;
    delete(lab, number).await?;
    reset_for_good(lab, number).await?;
    if lab.cluster().plan().cell.network == PodNetwork::Routes {
        let new = another_range(number);
        lab.step(format!("give the node the range {new} in its CNI file"));
        let node = lab.cluster().node(number);
        let file = cni::bridge(new);
        let limit = lab.limit(COMMAND);
        node.write(cni::PATH, file.as_bytes(), 0o644, limit).await?;
    }
    join(lab, number, &command).await?;
    back_again(lab).await?;
    // A network that writes its own file does so some time after the Node is Ready with the old one.
    let new = eventually_unless(
        &format!("the node to have another range than {old}"),
        lab.limit(Duration::from_secs(60)),
        async || prospects::kubelet(lab, number).await,
        async || {
            let new = range_of(lab).await?;
            Ok(if new == old {
                Probe::not_yet(Cause::NotReady, format!("it has {new}"))
            } else {
                Probe::Done(new)
            })
        },
    )
    .await?;

    let pods = lab.pods().await?.len() + 2;
    lab.step("scale up: new Pods go to the empty node");
    lab.cluster().scale_workload(u32::try_from(pods)?).await?;
    sandbox_fails(lab).await?;
    lab.step("delete the old bridge");
    on(lab, number, &format!("ip link delete {}", cni::BRIDGE)).await?;
    pods_run_in(lab, new).await
}

/// A range that no node has.
fn another_range(number: u32) -> Ipv4Net {
    addresses::pod_range(100 + number)
}

/// The range in the node's CNI file: what the plugin goes by, whoever wrote it.
async fn range_of(lab: &Lab) -> anyhow::Result<Ipv4Net> {
    let number = lab.nodes();
    let files = on(lab, number, "cat /etc/cni/net.d/*").await?;
    let found = subnet_in(&files);
    found.ok_or_else(|| anyhow::anyhow!("no subnet in the CNI files of node{number}: {files}"))
}

fn subnet_in(file: &str) -> Option<Ipv4Net> {
    let (_, rest) = file.split_once("\"subnet\"")?;
    let (address, prefix) = rest.split('"').nth(1)?.split_once('/')?;
    Some(Ipv4Net {
        address: address.parse().ok()?,
        prefix: prefix.parse().ok()?,
    })
}

/// Deletes the workload's Pods of the node; the Deployment makes others, which find their place on
/// it again.
async fn replace_pods(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    lab.step(format!("replace the Pods of node{number}"));
    let names: Vec<String> = lab
        .pods()
        .await?
        .into_iter()
        .filter(|pod| pod.node == number)
        .map(|pod| pod.name)
        .collect();
    kubectl(
        lab,
        &format!("delete pod --force {} 2>/dev/null", names.join(" ")),
    )
    .await?;
    Ok(())
}

const COMPLAINT: &str = "already has an IP address different from";

async fn sandbox_fails(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    lab.step("a new Pod gets no sandbox: the bridge has another address (E34)");
    eventually_unless(
        &format!("an event: \"cni0\" {COMPLAINT} ..."),
        lab.limit(Duration::from_secs(60)),
        async || prospects::kubelet(lab, number).await,
        async || {
            if complaint(lab).await?.is_some() {
                return Ok(Probe::Done(()));
            }
            let running = lab.pods().await?.into_iter().find(|pod| pod.node == number);
            Ok(match running {
                Some(pod) => Probe::hopeless(Cause::Answered, format!("{pod} runs")),
                None => Probe::not_yet(Cause::Absent, "no such event"),
            })
        },
    )
    .await
}

/// The newest event about a sandbox that failed for the bridge's address.
async fn complaint(lab: &Lab) -> anyhow::Result<Option<String>> {
    let events: Api<Event> = Api::default_namespaced(lab.cluster().api());
    let failed = ListParams::default().fields("reason=FailedCreatePodSandBox");
    let messages = events.list(&failed).await?.items.into_iter().rev();
    Ok(messages
        .filter_map(|event| event.message)
        .find(|message| message.contains(COMPLAINT)))
}

async fn pods_run_in(lab: &Lab, range: Ipv4Net) -> anyhow::Result<()> {
    let number = lab.nodes();
    let expected = format!("Pods of node{number} to run with addresses of {range}");
    lab.step(&expected);
    eventually_unless(
        &expected,
        lab.limit(Duration::from_secs(90)),
        async || prospects::kubelet(lab, number).await,
        async || {
            let pods = lab.pods().await?;
            let mut here = pods.iter().filter(|pod| pod.node == number);
            if here.any(|pod| range.contains(pod.address)) {
                return Ok(Probe::Done(()));
            }
            let bridge = on(lab, number, "ls -d /sys/class/net/cni0 2>/dev/null || true").await?;
            Ok(match complaint(lab).await? {
                // Without the old bridge the kubelet's next attempt succeeds; with it, none does.
                Some(message) if !bridge.trim().is_empty() && bridge_is_old(lab, range).await? => {
                    Probe::hopeless(Cause::NotReady, message)
                }
                _ => Probe::not_yet(Cause::NotReady, "none yet"),
            })
        },
    )
    .await
}

async fn bridge_is_old(lab: &Lab, range: Ipv4Net) -> anyhow::Result<bool> {
    let shown = on(lab, lab.nodes(), "ip -4 -o address show cni0 || true").await?;
    let address = shown
        .split_whitespace()
        .skip_while(|word| *word != "inet")
        .nth(1);
    let address = address.and_then(|it| it.split_once('/')?.0.parse().ok());
    Ok(address.is_some_and(|address| !range.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_found_in_either_kind_of_cni_file() {
        let by_hand = cni::bridge(addresses::pod_range(2));
        assert_eq!(subnet_in(&by_hand), Some(addresses::pod_range(2)));
        let list =
            r#"{"name":"cbr0","plugins":[{"type":"bridge","ipam":{"subnet":"10.1.2.0/24"}}]}"#;
        assert_eq!(subnet_in(list), Some(addresses::pod_range(2)));
        assert_eq!(subnet_in("{}"), None);
    }

    #[test]
    fn resets_own_words_about_the_network_are_found_across_lines() {
        let said = "\nThe reset process does not perform cleanup of CNI plugin configuration,\n\
                    network filtering rules and kubeconfig files.\n\nFor information on how";
        assert_eq!(tells_what_it_leaves(said), Ok(()));
        assert!(tells_what_it_leaves("[reset] Deleting files").is_err());
    }
}
