//! What a client notices of a node that leaves and comes back.

use std::time::{Duration, Instant};

use podwire_scenario::{
    Break, Cause, Lab, Party, Place, Probe, Profile, Sabotage, Scenario, StageName, Traffic, secs,
    steps, try_join,
};

use super::cluster_ip::{every_sender_sees_every_pod, spreads_from_everywhere};
use super::every_pair::every_pair_again;
use crate::catalogue::E37;

/// E37: drain, delete, wipe and join again, by the means of whoever made the cluster.
pub(crate) const LEAVE_AND_RETURN: Scenario = Scenario {
    about: "While a node is drained, deleted, wiped and joined again, a client of the ClusterIP \
            fails no longer than the removal of the drained Pods takes; every request is accounted \
            for, and afterwards the whole network is as before",
    covers: &[E37],
    profile: Profile::Full,
    limit: secs(360),
    sabotages: &[
        Sabotage::new("not-drained")
            .about("the Pods that should have left still serve")
            .inject(steps!(start))
            .caught_by(steps!(nobody_serves_who_should_have_left), Cause::WrongAnswer),
        Sabotage::new("cluster-ip-cut")
            .about("the sender's node drops what goes to the workload's Pods")
            .inject(steps!(|lab| {
                let _traffic = start(lab).await?;
                lab.node(SENDING).drop_forwarded_requests().await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(undisturbed), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::KubeProxy, Break::PodRange],
    ..Scenario::new("leave_and_return_under_traffic", StageName::Workload, steps!(leave_and_return))
};

/// The sender is a Pod of this node, which stays.
const SENDING: u32 = 1;
/// Of the steady traffic.
const EVERY: Duration = Duration::from_millis(250);
/// Failures with less than this between them belong together.
const QUIET: Duration = secs(10);
/// A look at the rules, which is taken for the moment of what it sees, before stretching.
const LOOK: Duration = secs(2);

async fn leave_and_return(lab: &Lab) -> anyhow::Result<()> {
    let (node, blue) = (lab.last_node(), lab.service("blue"));
    let wanted = lab.pods().running().await?.len();
    let leaving = pods_of_the_leaving_node(lab).await?;
    let traffic = start(lab).await?;

    let (removed, ()) = try_join!(removed(lab, &leaving), node.drain())?;
    lab.step(format!("others take their place: {wanted} Pods run"));
    lab.pods().until_running(wanted).await?;
    let drained = Instant::now();
    node.delete().await?;
    node.wipe().await?;
    node.join_again().await?;

    lab.step(format!("scale up: {node} takes Pods, which serve"));
    node.takes_pods(wanted + 2).await?;
    let returned = pods_of_the_leaving_node(lab).await?;
    let back = Instant::now();
    every_sender_sees_every_pod(lab).await?;
    let needs = blue.needs_to_be_followed_on(lab.node(SENDING)).await?;
    let each_answers = traffic.until_each_answers_after(&returned, back, needs);
    each_answers.await?;
    let record = traffic.stop().await?;

    lab.step(
        "every request is accounted for; the ClusterIP failed no longer than the removal took",
    );
    record.all_accounted()?;
    let verdict = record.disturbed_at_most(removed + lab.limit(LOOK), QUIET);
    blue.as_judged(&sender(lab).await?, verdict).await?;
    record.nobody_after(&leaving, drained)?;

    lab.step("addresses are unique again, every pair answers, requests spread");
    lab.pod_addresses_unique_and_in_range().await?;
    every_pair_again(lab).await?;
    spreads_from_everywhere(lab).await
}

async fn start(lab: &Lab) -> anyhow::Result<Traffic<'_>> {
    let (from, blue) = (sender(lab).await?, lab.service("blue"));
    let to = format!("{}:80", blue.address().await?);
    let traffic = lab.start_traffic(&from, to, EVERY).await?;
    answered_since(lab, &traffic, Instant::now()).await?;
    Ok(traffic)
}

async fn answered_since(lab: &Lab, traffic: &Traffic<'_>, moment: Instant) -> anyhow::Result<()> {
    let needs = lab.service("blue").needs_from(lab.node(SENDING)).await?;
    traffic.until_answered_after(moment, needs).await
}

async fn pods_of_the_leaving_node(lab: &Lab) -> anyhow::Result<Vec<Party>> {
    let node = lab.last_node();
    let pods = lab.pods().on(node).running().await?;
    anyhow::ensure!(!pods.is_empty(), "the workload has no Pod on {node}");
    Ok(pods)
}

/// Waits until the sender's node sends nothing to the drained Pods any more: how long that took from
/// their end. First they leave the EndpointSlice, then kube-proxy follows. A busy node's may need a
/// while: kubeadm gives it no share of the processor.
async fn removed(lab: &Lab, pods: &[Party]) -> anyhow::Result<Duration> {
    lab.eventually("the drain to end a Pod", secs(20), async || {
        let mut listed = lab.pods().on(lab.last_node()).await?;
        listed.retain(|pod| !pod.is_terminating());
        let lives = |pod: &&Party| listed.iter().any(|it| it.name() == pod.name);
        let alive = pods.iter().filter(lives).count();
        Ok(Probe::when(alive < pods.len(), Cause::NotReady, "all live"))
    })
    .await?;
    let begun = Instant::now();
    lab.step("the drained Pods leave the EndpointSlice");
    lab.service("blue").until_no_endpoints(pods).await?;
    lab.step("kube-proxy on the sender's node follows");
    let sender = lab.node(SENDING);
    lab.service("blue").until_no_rules(pods, sender).await?;
    let took = begun.elapsed();
    let seconds = took.as_secs_f64();
    lab.step(format!("{seconds:.1} s after their end; until the drain is done"));
    Ok(took)
}

async fn nobody_serves_who_should_have_left(lab: &Lab) -> anyhow::Result<()> {
    let traffic = lab.running_traffic()?;
    let (leaving, moment) = (pods_of_the_leaving_node(lab).await?, Instant::now());
    answered_since(lab, &traffic, moment).await?;
    let record = traffic.stop().await?;
    Ok(record.nobody_after(&leaving, moment)?)
}

async fn undisturbed(lab: &Lab) -> anyhow::Result<()> {
    let traffic = lab.running_traffic()?;
    lab.step("wait as long as a removal may take");
    traffic.until_unanswered_for(LOOK).await?;
    let record = traffic.stop().await?;
    let verdict = record.disturbed_at_most(lab.limit(LOOK), QUIET);
    lab.service("blue").as_judged(&sender(lab).await?, verdict).await
}

async fn sender(lab: &Lab) -> anyhow::Result<Party> {
    lab.pods().on(lab.node(SENDING)).first().await
}
