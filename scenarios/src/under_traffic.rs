//! Chapter E's last scenario: what a client notices of a node that leaves and comes back.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures::try_join;
use podwire_cluster::{Break, PodRef, StageName, WORKLOAD_SELECTOR, addresses};
use podwire_probe::Outcome;
use podwire_scenario::assert::Party;
use podwire_scenario::{
    Cause, Cells, Lab, Probe, Profile, Sabotage, Scenario, Traffic, eventually, eventually_unless,
};

use crate::catalogue::E37;
use crate::leaving::{delete, drain, join_again, takes_pods, wipe};
use crate::prospects;
use crate::steps::{
    addresses_unique_and_in_range, on, pods_running, ready_endpoints, service_address,
};
use crate::whole_network::{every_pair, every_sender_sees_every_pod, spreads_from_everywhere};

/// E37: drain, delete, wipe and join again, by the means of whoever made the cluster.
pub(crate) const LEAVE_AND_RETURN: Scenario = Scenario {
    name: "leave_and_return_under_traffic",
    about: "While a node is drained, deleted, wiped and joined again, a client of the ClusterIP \
            fails no longer than the removal of the drained Pods takes; every request is accounted \
            for, and afterwards the whole network is as before",
    covers: &[E37],
    stage: StageName::Workload,
    cells: Cells::Any,
    profile: Profile::Default,
    nodes: 2,
    limit: Duration::from_secs(360),
    prepare: None,
    run: |lab| Box::pin(leave_and_return(lab)),
    sabotages: &[
        Sabotage {
            name: "not-drained",
            about: "the Pods that should have left still serve",
            expects: Cause::WrongAnswer,
            run: |lab| {
                Box::pin(async {
                    let traffic = start(lab).await?;
                    let leaving = pods_of_the_leaving_node(lab).await?;
                    let moment = Instant::now();
                    lab.injected();
                    answered_since(lab, &traffic, moment).await?;
                    let record = traffic.stop().await?;
                    Ok(record.nobody_after(&leaving, moment)?)
                })
            },
        },
        Sabotage {
            name: "cluster-ip-cut",
            about: "the sender's node drops what goes to the workload's Pods",
            expects: Cause::TimedOut,
            run: |lab| {
                Box::pin(async {
                    let traffic = start(lab).await?;
                    lab.step("drop what the sender's node carries to Pods, for good");
                    let cut = format!(
                        "nft 'add table ip sabotage; \
                         add chain ip sabotage drops {{ type filter hook forward priority 0; }}; \
                         add rule ip sabotage drops ip daddr {} tcp dport 80 drop'",
                        addresses::PODS
                    );
                    on(lab, SENDING, &cut).await?;
                    lab.injected();
                    let limit = removal(lab, Duration::ZERO);
                    lab.step("wait as long as a removal may take");
                    fails_for(&traffic, limit).await?;
                    let record = traffic.stop().await?;
                    Ok(record.disturbed_at_most(limit, QUIET)?)
                })
            },
        },
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
};

/// The sender is a Pod of this node, which stays.
const SENDING: u32 = 1;
/// Of the steady traffic.
const EVERY: Duration = Duration::from_millis(250);
/// Failures with less than this between them belong together.
const QUIET: Duration = Duration::from_secs(10);
/// A look at the rules, which is taken for the moment of what it sees, before stretching.
const LOOK: Duration = Duration::from_secs(2);

async fn leave_and_return(lab: &Lab) -> anyhow::Result<()> {
    let number = lab.nodes();
    let name = addresses::node_name(number);
    let wanted = lab.pods().await?.len();
    let leaving = pods_of_the_leaving_node(lab).await?;
    let traffic = start(lab).await?;

    let (removed, ()) = try_join!(removed(lab, &leaving), drain(lab, number))?;
    pods_running(lab, wanted, |_| None).await?;
    let drained = Instant::now();
    delete(lab, number).await?;
    wipe(lab, number).await?;
    join_again(lab, number).await?;

    lab.step(format!("scale up: {name} takes Pods, which serve"));
    takes_pods(lab, number, wanted + 2).await?;
    let returned = pods_of_the_leaving_node(lab).await?;
    let back = Instant::now();
    every_sender_sees_every_pod(lab).await?;
    each_answers(lab, &traffic, &returned, back).await?;
    let record = traffic.stop().await?;

    lab.step(
        "every request is accounted for; the ClusterIP failed no longer than the removal took",
    );
    record.all_accounted()?;
    record.disturbed_at_most(removal(lab, removed), QUIET)?;
    record.nobody_after(&leaving, drained)?;

    lab.step("addresses are unique again, every pair answers, requests spread");
    addresses_unique_and_in_range(lab).await?;
    every_pair(lab).await?;
    spreads_from_everywhere(lab).await
}

async fn start(lab: &Lab) -> anyhow::Result<Traffic<'_>> {
    let from = lab.pod_on(SENDING).await?;
    let to = service_address(lab).await?;
    let traffic = lab.start_traffic(&from, format!("{to}:80"), EVERY).await?;
    answered_since(lab, &traffic, Instant::now()).await?;
    Ok(traffic)
}

async fn pods_of_the_leaving_node(lab: &Lab) -> anyhow::Result<Vec<Party>> {
    let mut pods = lab.pods().await?;
    pods.retain(|pod| pod.node == lab.nodes());
    anyhow::ensure!(
        !pods.is_empty(),
        "the workload has no Pod on node{}",
        lab.nodes()
    );
    Ok(pods)
}

/// How long a client may fail: what was seen of the removal, and what the look at it takes.
fn removal(lab: &Lab, seen: Duration) -> Duration {
    seen + lab.limit(LOOK)
}

/// Waits until the sender's node sends nothing to the drained Pods any more: how long that took from
/// their end. First they leave the EndpointSlice, then kube-proxy follows. A busy node's may need a
/// while: kubeadm gives it no share of the processor.
async fn removed(lab: &Lab, pods: &[Party]) -> anyhow::Result<Duration> {
    let drained = |pod: &PodRef| pods.iter().any(|it| it.name == pod.name);
    eventually(
        "the drain to end a Pod",
        lab.limit(Duration::from_secs(20)),
        async || {
            let now = lab.cluster().pods(WORKLOAD_SELECTOR).await?;
            let alive = now.iter().filter(|pod| drained(pod) && !pod.terminating);
            let alive = alive.count();
            Ok(if alive < pods.len() {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::NotReady, "all live")
            })
        },
    )
    .await?;
    let begun = Instant::now();
    lab.step("the drained Pods leave the EndpointSlice");
    eventually_unless(
        "no drained Pod among the ready endpoints",
        lab.limit(Duration::from_secs(20)),
        async || prospects::control_plane(lab, "kube-controller-manager").await,
        async || {
            let ready = ready_endpoints(lab).await?;
            let left = pods.iter().filter(|pod| ready.contains(&pod.address));
            let left: Vec<String> = left.map(ToString::to_string).collect();
            Ok(if left.is_empty() {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::Answered, left.join(", "))
            })
        },
    )
    .await?;
    lab.step("kube-proxy on the sender's node follows");
    let service = service_address(lab).await?;
    let addresses = pods.iter().map(|pod| format!(" -e {}", pod.address));
    let count = format!(
        "{{ nft list ruleset; iptables-save -t nat; }} 2>/dev/null | grep -c -w -F{}; true",
        addresses.collect::<String>()
    );
    eventually_unless(
        "no drained Pod in the rules of the sender's node",
        lab.limit(Duration::from_secs(20)),
        async || prospects::kube_proxy(lab, SENDING, service, &[]).await,
        async || {
            let left = on(lab, SENDING, &count).await?;
            Ok(match left.trim() {
                "0" => Probe::Done(()),
                lines => Probe::not_yet(Cause::Answered, format!("{lines} lines name them")),
            })
        },
    )
    .await?;
    let took = begun.elapsed();
    lab.step(format!("{:.1} s after their end", took.as_secs_f64()));
    Ok(took)
}

/// Enough requests since then to tell something.
const ENOUGH: usize = 20;

/// Waits for so many requests since then that have ended, and for an answer among them.
async fn answered_since(lab: &Lab, traffic: &Traffic<'_>, moment: Instant) -> anyhow::Result<()> {
    let service = service_address(lab).await?;
    let silent = Cell::new(false);
    eventually_unless(
        "answers to the steady traffic",
        lab.limit(Duration::from_secs(20)),
        async || {
            if !silent.get() {
                return Ok(None);
            }
            let endpoints: Vec<Ipv4Addr> = ready_endpoints(lab).await?.into_iter().collect();
            prospects::kube_proxy(lab, SENDING, service, &endpoints).await
        },
        async || {
            let record = traffic.so_far().await?;
            let since = record.clock.at(moment) + record.clock.within();
            let sent = record.sent.requests.iter();
            let ended: Vec<Outcome> = sent
                .filter(|request| Duration::from_millis(request.at_ms) > since)
                .filter_map(|request| Some(request.end.as_ref()?.outcome))
                .collect();
            let failed = ended.iter().all(|outcome| *outcome != Outcome::Answered);
            silent.set(failed && ended.len() >= ENOUGH);
            let count = ended.len();
            Ok(if silent.get() {
                let cause = ended.last().map_or(Cause::Absent, |last| (*last).into());
                Probe::not_yet(cause, "none of them answered")
            } else if count >= ENOUGH {
                Probe::Done(())
            } else {
                Probe::not_yet(Cause::Absent, format!("{count} requests"))
            })
        },
    )
    .await
}

async fn each_answers(
    lab: &Lab,
    traffic: &Traffic<'_>,
    pods: &[Party],
    moment: Instant,
) -> anyhow::Result<()> {
    let service = service_address(lab).await?;
    eventually_unless(
        "each Pod that came back to answer the steady traffic",
        lab.limit(Duration::from_secs(20)),
        // It takes its time until chance has met each of them.
        async || prospects::kube_proxy(lab, SENDING, service, &[]).await,
        async || {
            let record = traffic.so_far().await?;
            Ok(match record.each_after(pods, moment) {
                Ok(()) => Probe::Done(()),
                Err(failure) => Probe::not_yet(failure.cause, failure.seen),
            })
        },
    )
    .await
}

async fn fails_for(traffic: &Traffic<'_>, limit: Duration) -> anyhow::Result<()> {
    eventually("failures for longer than that", limit * 3, async || {
        let longest = traffic.so_far().await?.longest_gap();
        let length = longest.map_or(Duration::ZERO, |gap| gap.length());
        Ok(if length > limit {
            Probe::Done(())
        } else {
            Probe::not_yet(Cause::Answered, format!("{:.0} s", length.as_secs_f64()))
        })
    })
    .await
}
