//! kube-proxy and the Pod network's daemon, restarted and changed while others use what they have made.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use podwire_scenario::RequestOutcome::Answered;
use podwire_scenario::{
    Break, Cause, Datagrams, Kind, Lab, Party, PodNetwork, Probe, Profile, ProxyMode, Record,
    Sabotage, Scenario, StageName, ensure, received_by, secs, steps,
};
use serde_json::json;

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
        Sabotage {
            name: "cluster-ip-cut",
            about: "the node drops what its Pods send to Pods",
            expects: Cause::TimedOut,
            inject: steps!(|lab| {
                new_connections(lab).await?;
                lab.last_node().drop_forwarded_requests().await
            }),
            check: steps!(new_connections_are_cut_off),
        },
        Sabotage {
            name: "connection-reset",
            about: "the node resets what its Pods have opened",
            expects: Cause::Died,
            inject: steps!(|lab| {
                an_open_connection(lab).await?;
                let rule = "tcp dport 80 ct state established reject with tcp reset";
                lab.last_node().add_rule("type filter hook forward priority 0", rule).await
            }),
            check: steps!(it_goes_on),
        },
        Sabotage {
            name: "datagrams-dropped",
            about: "the node drops the datagrams",
            expects: Cause::Absent,
            inject: steps!(|lab| {
                datagrams(lab).await?;
                let rule = format!("udp sport {} drop", Datagrams::SOURCE_PORT);
                lab.last_node().add_rule("type filter hook forward priority 0", &rule).await
            }),
            check: steps!(datagrams_reach_a_pod),
        },
        Sabotage {
            name: "other-mode-left",
            about: "a table, or a chain, of the mode that kube-proxy does not have is on the node",
            expects: Cause::Answered,
            inject: steps!(|lab| {
                let left = match other(lab.kube_proxy_mode()) {
                    ProxyMode::Nftables => "nft add table ip kube-proxy",
                    ProxyMode::Iptables => "iptables -t nat -N KUBE-SERVICES",
                };
                lab.last_node().run(left).await
            }),
            check: steps!(|lab| nothing_left_of(lab, other(lab.kube_proxy_mode())).await),
        },
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("daemons_under_traffic", StageName::Workload, steps!(daemons))
};

/// From one request, and one number, to the next.
const EVERY: Duration = Duration::from_millis(250);
/// For requests that should not fail at all, before stretching: one may, of a machine that is busy.
const NONE: Duration = secs(1);
/// For kube-proxy to start: its program, its connection, all Services, its first rules.
const STARTS: Duration = secs(20);

async fn daemons(lab: &Lab) -> anyhow::Result<()> {
    let (node, mode) = (lab.last_node(), lab.kube_proxy_mode());
    new_connections(lab).await?;
    an_open_connection(lab).await?;
    datagrams(lab).await?;

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

    lab.step("every request is accounted for");
    let record = lab.running_traffic()?.stop().await?;
    Ok(record.all_accounted()?)
}

fn other(mode: ProxyMode) -> ProxyMode {
    match mode {
        ProxyMode::Nftables => ProxyMode::Iptables,
        ProxyMode::Iptables => ProxyMode::Nftables,
    }
}

/// The Pod that uses Services.
async fn client(lab: &Lab) -> anyhow::Result<Party> {
    lab.pods().on(lab.last_node()).first().await
}

async fn new_connections(lab: &Lab) -> anyhow::Result<()> {
    let to = format!("{}:80", lab.service("blue").address().await?);
    let traffic = lab.start_traffic(&client(lab).await?, to, EVERY).await?;
    let needs = lab.service("blue").needs_from(lab.last_node()).await?;
    traffic.until_answered_after(Instant::now(), needs).await
}

/// An open connection to the Service: who opened it, and where it leads.
#[derive(Clone)]
struct Connection {
    from: Party,
    to: Party,
}

async fn an_open_connection(lab: &Lab) -> anyhow::Result<()> {
    let from = client(lab).await?;
    let to = Party::new("blue", from.node, false, lab.service("blue").address().await?);
    lab.open_stream(&from, &to, EVERY).await?;
    lab.keep(Connection { from, to });
    it_goes_on(lab).await
}

/// A flow of datagrams to the Service green.
#[derive(Clone)]
struct Flow {
    from: Party,
    to: Ipv4Addr,
}

async fn datagrams(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Service green, by UDP, for the Pods of blue");
    let ports = json!([{ "port": 80, "protocol": "UDP" }]);
    let green = lab.service("green");
    green.create(json!({ "selector": { "app": "blue" }, "ports": ports })).await?;
    let (from, to) = (client(lab).await?, green.address().await?);
    green.by(Kind::Udp).until_a_pod_answers(&from, secs(20)).await?;
    lab.datagrams(&from, to).start().await?;
    lab.keep(Flow { from, to });
    Ok(())
}

/// New connections failed for no longer than this, stretched; the open one and the datagrams go on.
async fn all_go_on(lab: &Lab, failed_for: Duration) -> anyhow::Result<()> {
    let needs = lab.service("blue").needs_from(lab.last_node()).await?;
    let traffic = lab.running_traffic()?;
    traffic.until_answered_after(Instant::now(), needs).await?;
    let record = traffic.so_far().await?;
    lab.step(format!("new connections so far: {}", lost(&record)));
    record.gap_at_most(lab.limit(failed_for))?;
    it_goes_on(lab).await?;
    datagrams_reach_a_pod(lab).await
}

/// `2 of 90 requests lost, the longest gap 0.6 s ... (2 timed out)`.
fn lost(record: &Record) -> String {
    let ended = record.outcomes();
    let all: usize = ended.values().sum();
    let lost = all - ended.get(&Answered).copied().unwrap_or_default();
    match record.longest_gap() {
        Some(gap) => format!("{lost} of {all} requests lost, the longest gap {gap}"),
        None => format!("none of {all} requests lost"),
    }
}

async fn new_connections_are_cut_off(lab: &Lab) -> anyhow::Result<()> {
    let traffic = lab.running_traffic()?;
    lab.step("wait as long as no gap may be");
    traffic.until_unanswered_for(NONE).await?;
    let record = traffic.stop().await?;
    Ok(record.gap_at_most(lab.limit(NONE))?)
}

async fn it_goes_on(lab: &Lab) -> anyhow::Result<()> {
    let Connection { from, to } = lab.kept()?;
    lab.step(format!("numbers go on from {from} to {to} and back"));
    let before = lab.stream_between(&from, &to).await?.echoed;
    lab.eventually("two more numbers to come back", secs(20), async || {
        let now = lab.stream_between(&from, &to).await?;
        let state = format!("{} came back, the longest away for {} ms", now.echoed, now.longest_ms);
        Ok(match now.failure {
            Some(why) => Probe::hopeless(Cause::Died, format!("{state}; it ended: {why}")),
            None => Probe::when(now.echoed >= before + 2, Cause::TimedOut, state),
        })
    })
    .await
}

async fn datagrams_reach_a_pod(lab: &Lab) -> anyhow::Result<()> {
    let Flow { from, to } = lab.kept()?;
    lab.step("the datagrams reach a Pod of the Service");
    let pods = lab.pods().all_running().await?;
    let received = lab.datagrams(&from, to).next_to(&pods).await?;
    Ok(received_by(&received, &pods)?)
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
