//! A client that uses Services in every way there is, while something is done to what carries them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_scenario::RequestOutcome::Answered;
use podwire_scenario::{
    Cause, Kind, Lab, Party, Pod, Probe, Record, received_by, said_back_by, secs,
};
use serde_json::{Value, json};

/// From one request, and one number, to the next.
const EVERY: Duration = Duration::from_millis(250);
/// For requests that should not fail at all, before stretching: one may, of a machine that is busy.
pub(crate) const NONE: Duration = secs(1);

/// Who uses which Services, both of the same Pods.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    /// A Pod or a node.
    pub(crate) from: Party,
    /// The Service that it uses by new connections, and by one that stays open.
    pub(crate) tcp: &'static str,
    /// The Service that it sends datagrams to, from one port.
    pub(crate) udp: &'static str,
    /// The Services' Pods.
    pub(crate) pods: Vec<Party>,
}

/// A DaemonSet red, whose Pods are on every node that takes Pods, and on node 1 a client that uses them by a Service. It
/// is a Pod, since kube-proxy gives what a node sends to a Service another port.
pub(crate) async fn a_daemon_set_is_used(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a DaemonSet red, a Service for it by TCP and by UDP, and a client on node1");
    daemon_set(lab, "red", json!({})).await?;
    daemon_set(lab, "client", json!({ "kubernetes.io/hostname": lab.node(1).name() })).await?;
    let ports = json!([
        { "name": "tcp", "port": 80, "protocol": "TCP" },
        { "name": "udp", "port": 80, "protocol": "UDP" },
    ]);
    lab.service("red").create(json!({ "selector": { "app": "red" }, "ports": ports })).await
}

/// Its Pods and its client, once they run and the Service leads to so many.
pub(crate) async fn used_pods(lab: &Lab, count: usize) -> anyhow::Result<()> {
    let pods = lab.pods().labelled("app=red").until_running(count).await?;
    lab.service("red").leads_to_all(count, lab.node(1)).await?;
    let client = lab.pods().labelled("app=client").until_running(1).await?;
    let from = client.into_iter().next().context("the client has no address")?;
    lab.keep(Use { from, tcp: "red", udp: "red", pods });
    Ok(())
}

async fn daemon_set(lab: &Lab, name: &str, on: Value) -> anyhow::Result<()> {
    let labels = json!({ "app": name });
    let mut container = Pod::container();
    container["name"] = name.into();
    lab.apply(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "dnsPolicy": "Default",
                "nodeSelector": on,
                "containers": [container],
            } },
        },
    }))
    .await
}

/// Each kind, one after the other, until it is answered.
pub(crate) async fn all_begin(lab: &Lab) -> anyhow::Result<()> {
    new_connections(lab).await?;
    an_open_connection(lab).await?;
    datagrams(lab).await
}

pub(crate) async fn new_connections(lab: &Lab) -> anyhow::Result<()> {
    let Use { from, tcp, .. } = lab.kept()?;
    let to = format!("{}:80", lab.service(tcp).address().await?);
    let traffic = lab.start_traffic(&from, to, EVERY).await?;
    let needs = lab.service(tcp).needs_from(lab.node(from.node)).await?;
    traffic.until_answered_after(Instant::now(), needs).await
}

pub(crate) async fn an_open_connection(lab: &Lab) -> anyhow::Result<()> {
    let Use { from, tcp, .. } = lab.kept()?;
    lab.open_stream(&from, &service(lab, tcp, &from).await?, EVERY).await?;
    it_goes_on(lab).await
}

async fn service(lab: &Lab, name: &str, from: &Party) -> anyhow::Result<Party> {
    Ok(Party::new(name, from.node, false, lab.service(name).address().await?))
}

pub(crate) async fn datagrams(lab: &Lab) -> anyhow::Result<()> {
    let Use { from, udp, .. } = lab.kept()?;
    let to = lab.service(udp).address().await?;
    lab.service(udp).by(Kind::Udp).until_a_pod_answers(&from, secs(20)).await?;
    lab.datagrams(&from, to).start().await?;
    datagrams_reach_a_pod(lab).await
}

/// New connections failed for no longer than this, stretched; the open one and the datagrams go on.
pub(crate) async fn all_go_on(lab: &Lab, failed_for: Duration) -> anyhow::Result<()> {
    let Use { from, tcp, .. } = lab.kept()?;
    let needs = lab.service(tcp).needs_from(lab.node(from.node)).await?;
    let traffic = lab.running_traffic()?;
    traffic.until_answered_after(Instant::now(), needs).await?;
    let record = traffic.so_far().await?;
    lab.step(format!("new connections so far: {}", lost(&record)));
    lab.service(tcp).as_judged(&from, record.gap_at_most(lab.limit(failed_for))).await?;
    it_goes_on(lab).await?;
    datagrams_reach_a_pod(lab).await
}

/// At the end each request has been answered, or is known to have not.
pub(crate) async fn all_accounted(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every request is accounted for");
    let record = lab.running_traffic()?.stop().await?;
    Ok(record.all_accounted()?)
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

/// For a sabotage: what goes on otherwise is unanswered for longer than it may be.
pub(crate) async fn new_connections_are_cut_off(lab: &Lab) -> anyhow::Result<()> {
    let traffic = lab.running_traffic()?;
    lab.step("wait as long as no gap may be");
    traffic.until_unanswered_for(NONE).await?;
    let record = traffic.stop().await?;
    let Use { from, tcp, .. } = lab.kept()?;
    lab.service(tcp).as_judged(&from, record.gap_at_most(lab.limit(NONE))).await
}

pub(crate) async fn it_goes_on(lab: &Lab) -> anyhow::Result<()> {
    let Use { from, tcp, pods, .. } = lab.kept()?;
    let to = service(lab, tcp, &from).await?;
    lab.step(format!("numbers go on from {from} to {to} and back"));
    let stream = lab.stream_between(&from, &to).await?;
    said_back_by(&stream, &pods)?;
    let before = stream.echoed;
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

pub(crate) async fn datagrams_reach_a_pod(lab: &Lab) -> anyhow::Result<()> {
    let Use { from, udp, pods, .. } = lab.kept()?;
    lab.step("the datagrams reach a Pod of the Service");
    let to = lab.service(udp).address().await?;
    let received = lab.datagrams(&from, to).next_to(&pods).await?;
    Ok(received_by(&received, &pods)?)
}
