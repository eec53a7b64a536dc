//! kube-proxy and the Pod network's daemon, restarted and changed while others use what they have made.

use std::time::Duration;

use podwire_scenario::{
    Break, Cause, Datagrams, Lab, Place, PodNetwork, Profile, ProxyMode, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};
use serde_json::json;

use super::used_services::{
    NONE, Use, all_accounted, all_begin, all_go_on, an_open_connection, datagrams,
    datagrams_reach_a_pod, it_goes_on, new_connections, new_connections_are_cut_off,
};
use crate::catalogue::F13;

/// F13: a restart costs nothing, since rules and connections are the kernel's.
///
/// When it starts, kube-proxy of 1.36 first removes what its other mode has left, and writes its own rules
/// once it knows all Services (cmd/kube-proxy, `platformCleanup`): a change of mode costs new connections
/// what lies between.
pub(crate) const DAEMONS: Scenario = Scenario {
    about: "A Pod uses Services by new connections, one that stays open, and datagrams of one port: when \
            its node's kube-proxy and Pod network daemon are restarted, all go on; when kube-proxy changes \
            its mode, new connections alone fail, until it has started, and nothing of the old mode is left",
    covers: &[F13],
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("cluster-ip-cut")
            .about("the node drops what its Pods send to Pods")
            .inject(steps!(|lab| {
                a_pod_uses_services(lab).await?;
                new_connections(lab).await?;
                lab.last_node().drop_forwarded_requests().await
            }))
            .at(Place::Last)
            .caught_by(steps!(new_connections_are_cut_off), Cause::TimedOut),
        Sabotage::new("connection-reset")
            .about("the node resets what its Pods have opened")
            .inject(steps!(|lab| {
                a_pod_uses_services(lab).await?;
                an_open_connection(lab).await?;
                let rule = "tcp dport 80 ct state established reject with tcp reset";
                lab.last_node().add_rule("type filter hook forward priority 0", rule).await
            }))
            .caught_by(steps!(it_goes_on), Cause::Died),
        Sabotage::new("datagrams-dropped")
            .about("the node drops the datagrams")
            .inject(steps!(|lab| {
                a_pod_uses_services(lab).await?;
                datagrams(lab).await?;
                let rule = format!("udp sport {} drop", Datagrams::SOURCE_PORT);
                lab.last_node().add_rule("type filter hook forward priority 0", &rule).await
            }))
            .caught_by(steps!(datagrams_reach_a_pod), Cause::Absent),
        Sabotage::new("other-mode-left")
            .about("a table, or a chain, of the mode that kube-proxy does not have is on the node")
            .inject(steps!(|lab| {
                let left = match other(lab.kube_proxy_mode()) {
                    ProxyMode::Nftables => "nft add table ip kube-proxy",
                    ProxyMode::Iptables => "iptables -t nat -N KUBE-SERVICES",
                };
                lab.last_node().run(left).await
            }))
            .caught_by(
                steps!(|lab| nothing_left_of(lab, other(lab.kube_proxy_mode())).await),
                Cause::Answered,
            ),
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("daemons_under_traffic", StageName::Workload, steps!(daemons))
};

/// For kube-proxy to start: its program, its connection, all Services, its first rules.
const STARTS: Duration = secs(20);

async fn daemons(lab: &Lab) -> anyhow::Result<()> {
    let (node, mode) = (lab.last_node(), lab.kube_proxy_mode());
    a_pod_uses_services(lab).await?;
    all_begin(lab).await?;

    node.restart_kube_proxy().await?;
    all_go_on(lab, NONE).await?;
    if let PodNetwork::Flannel(_) = lab.pod_network() {
        node.restart_flannel().await?;
        all_go_on(lab, NONE).await?;
    }
    node.change_kube_proxy_mode(other(mode)).await?;
    let pods = lab.pods().all_running().await?.len();
    lab.service("blue").leads_to_all(pods, node).await?;
    nothing_left_of(lab, mode).await?;
    all_go_on(lab, STARTS).await?;
    all_accounted(lab).await
}

fn other(mode: ProxyMode) -> ProxyMode {
    match mode {
        ProxyMode::Nftables => ProxyMode::Iptables,
        ProxyMode::Iptables => ProxyMode::Nftables,
    }
}

/// A Pod of the last node uses the Service blue by TCP, and one of the same Pods by UDP.
async fn a_pod_uses_services(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Service green, by UDP, for the Pods of blue");
    let ports = json!([{ "port": 80, "protocol": "UDP" }]);
    let green = json!({ "selector": { "app": "blue" }, "ports": ports });
    lab.service("green").create(green).await?;
    lab.keep(Use {
        from: lab.pods().on(lab.last_node()).first().await?,
        tcp: "blue",
        udp: "green",
        pods: lab.pods().all_running().await?,
    });
    Ok(())
}

async fn nothing_left_of(lab: &Lab, mode: ProxyMode) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("nothing of kube-proxy's mode {mode} is on {node}"));
    let left = node.rules_of_kube_proxy(mode).await?;
    let (count, first) = (left.len(), left.first());
    ensure!(
        left.is_empty(),
        Answered,
        "nothing of kube-proxy's mode {mode} on {node}",
        "{count} tables, chains and rules, the first {first:?}",
        "kube-proxy's log on {node}: what did it say of the old mode when it started?"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_modes() {
        for mode in [ProxyMode::Nftables, ProxyMode::Iptables] {
            assert_ne!(other(mode), mode);
            assert_eq!(other(other(mode)), mode);
        }
    }
}
