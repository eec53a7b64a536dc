//! A node's rules flushed, as a firewall's reload does.

use std::time::Instant;

use podwire_scenario::{
    Break, Cause, Cells, Failure, Kind, Lab, Place, PodNetwork, Probe, Profile, ProxyMode,
    Sabotage, Scenario, StageName, assert, fails, secs, steps,
};
use serde_json::json;

use crate::catalogue::F11;

/// F11: `nft flush ruleset`, the first line of the firewall that Debian ships. `iptables` writes into the
/// same tables (iptables-nft(8)).
///
/// What is asserted is what Kubernetes 1.36 does (pkg/proxy, `ipt.Monitor` and `FullSyncPeriod`). In its
/// iptables mode kube-proxy looks every half minute whether a chain of its own is still there, and
/// writes everything anew when it is not. In its nftables mode it has none: it writes everything once an
/// hour, or half a minute after a change of a Service failed for want of its table.
pub(crate) const FLUSHED_RULES: Scenario = Scenario {
    about: "A firewall's reload flushes all rules of a node: kube-proxy's are back within its half minute \
            where it uses iptables, and not before something about a Service changes where it uses nftables; \
            what hides Pods from the outside comes back where a daemon keeps it, and nowhere else",
    covers: &[F11],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("not-flushed")
            .about("the rules are left alone")
            .caught_by(steps!(is_dead), Cause::Answered),
        Sabotage::new("kube-proxy-halted")
            .about("kube-proxy is there, and does nothing")
            .inject(steps!(|lab| {
                lab.last_node().halt("kube-proxy").await?;
                flush(lab).await
            }))
            .at(Place::Last)
            .caught_by(steps!(comes_back), Cause::TimedOut),
        Sabotage::new("hidden-otherwise")
            .about(
                "the daemon's rule does not bite, or the one that nobody keeps was never flushed",
            )
            .inject(steps!(|lab| match lab.pod_network() {
                PodNetwork::Routes => Ok(()),
                _ => lab.last_node().leave_untranslated(lab.outside().address()).await,
            }))
            .caught_by(steps!(seen_outside_as_after_a_flush), Cause::WrongAnswer),
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("flushed_rules", StageName::Workload, steps!(flushed_rules))
};

/// Longer than kube-proxy's `syncPeriod`, which its Monitor takes from one look to the next.
const MONITORED: u64 = 35;

async fn flushed_rules(lab: &Lab) -> anyhow::Result<()> {
    flush(lab).await?;
    if lab.kube_proxy_mode() == ProxyMode::Nftables {
        stays_dead(lab).await?;
        lab.step("a second Service: something for kube-proxy to follow");
        lab.service("green").create(json!({})).await?;
    }
    comes_back(lab).await?;
    lab.eventually("the Pods to be seen outside as after a flush", secs(20), async || {
        Ok(Probe::judged(seen_outside(lab).await?))
    })
    .await
}

/// In one command: kube-proxy may look the next moment.
async fn flush(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.last_node();
    lab.step(format!("flush the rules of {node}: the Service is dead there"));
    dead_after(lab, "nft flush ruleset && ").await
}

async fn is_dead(lab: &Lab) -> anyhow::Result<()> {
    dead_after(lab, "").await
}

/// The Service answers nobody on the node, once this was done: the first part of a command line.
async fn dead_after(lab: &Lab, done: &str) -> anyhow::Result<()> {
    let service = lab.service("blue").address().await?;
    let ask = format!("{done}curl -s -o /dev/null -m 3 http://{service}/; echo $?");
    let ended = lab.last_node().run(ask).await?;
    Ok(nobody_answers(ended.text())?)
}

/// By curl's exit status.
fn nobody_answers(status: &str) -> Result<(), Failure> {
    let expected = "nobody to translate the Service's address, and nobody to answer";
    match status {
        "28" => Ok(()),
        "0" => Err(fails!(Answered, "{expected}", "an answer")),
        "7" => Err(fails!(Refused, "{expected}", "a refusal")),
        other => Err(fails!(Other, "{expected}", "curl ended with {other}")),
    }
}

/// In the time in which the other mode looks once nothing has come back. Whatever else happens to a Service
/// of the cluster meanwhile would bring the rules back.
async fn stays_dead(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("{MONITORED} s later: in this mode nobody has noticed"));
    let before = followed(lab).await?;
    lab.last_node().run(format!("sleep {MONITORED}")).within(secs(90)).await?;
    let dead = is_dead(lab).await;
    if dead.is_err() && followed(lab).await? != before {
        lab.step("something else has changed meanwhile, and kube-proxy has followed it");
        return Ok(());
    }
    dead
}

/// Everything that kube-proxy follows, each with its version.
async fn followed(lab: &Lab) -> anyhow::Result<String> {
    let columns = "custom-columns=:metadata.namespace,:metadata.name,:metadata.resourceVersion";
    let all = lab.kubectl(format!("get services,endpointslices -A -o {columns}")).await?;
    Ok(all.stdout)
}

async fn comes_back(lab: &Lab) -> anyhow::Result<()> {
    let (node, blue, begun) = (lab.last_node(), lab.service("blue"), Instant::now());
    lab.step(format!("kube-proxy of {node} writes its rules anew"));
    blue.until_a_pod_answers(node, secs(60)).await?;
    lab.step(format!("after {:.1} s; every Pod answers", begun.elapsed().as_secs_f64()));
    let pods = lab.pods().all_running().await?.len();
    blue.leads_to_all(pods, node).await
}

async fn seen_outside_as_after_a_flush(lab: &Lab) -> anyhow::Result<()> {
    Ok(seen_outside(lab).await??)
}

/// By hand the one rule that hides Pods is written when a node boots, and is gone; flannel looks every
/// five seconds whether its own are there (`--iptables-resync`).
async fn seen_outside(lab: &Lab) -> anyhow::Result<Result<(), Failure>> {
    let node = lab.last_node();
    let pod = lab.pods().on(node).first().await?;
    let as_whom = match lab.pod_network() {
        PodNetwork::Routes => pod.address,
        _ => node.address(),
    };
    let report = lab.ask(&pod, lab.outside().address()).await?;
    Ok(assert::all_answered_to(as_whom.into(), Kind::Http, &report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_alone_is_nobody() {
        let cause = |status| nobody_answers(status).map_err(|failure| failure.cause);
        assert_eq!(cause("28"), Ok(()));
        assert_eq!(cause("0"), Err(Cause::Answered));
        assert_eq!(cause("7"), Err(Cause::Refused));
        assert_eq!(cause(""), Err(Cause::Other));
    }
}
