//! What the names of a cluster answer, from everywhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Cells, Failure, Families, Family, Lab, Needs, Party, Place, Probe, Sabotage, Scenario,
    StageName, assert, secs, steps,
};
use serde_json::json;

use crate::catalogue::F9;

/// F9: names inside and outside the cluster, from a Pod of every node.
pub(crate) const EVERY_NAME: Scenario = Scenario {
    about: "From a Pod of every node the cluster's DNS knows a Service, a headless Service whose Pods \
            were replaced, a Pod and a host outside, denies what there is not, and a name leads there; by each family of IP that the \
            cluster has",
    covers: &[F9],
    cells: Cells::Kubeadm,
    families: Families::Each,
    limit: secs(180),
    prepare: Some(steps!(askers)),
    sabotages: &[
        Sabotage::new("unheard-from-one-node")
            .about("the last node drops what its Pod asks the DNS")
            .inject(steps!(|lab| {
                let asker = lab.deployment("green").pods().all_running().await?.pop();
                let asker = asker.context("nobody asks")?;
                let rule = format!("ip saddr {} udp dport 53 drop", asker.address);
                lab.last_node().add_rule("type filter hook prerouting priority -300", &rule).await
            }))
            .at(Place::Last)
            .caught_by(steps!(every_name), Cause::TimedOut),
        Sabotage::new("nothing-outside")
            .about("the cluster's DNS does not reach the one that knows the names outside")
            .inject(steps!(|lab| {
                for node in lab.nodes() {
                    let chain = "type filter hook prerouting priority -300";
                    node.add_rule(chain, "ip daddr 172.30.0.1 udp dport 53 drop").await?;
                }
                Ok(())
            }))
            // It tries for as long as the Pod waits for its answer, and longer.
            .caught_by(steps!(every_name), Cause::TimedOut),
    ],
    ..Scenario::new("every_name", StageName::Workload, steps!(names))
};

async fn names(lab: &Lab) -> anyhow::Result<()> {
    every_name(lab).await?;

    lab.step("roll out new Pods");
    lab.deployment("green").roll_out().await?;
    until_known(lab).await?;
    every_name(lab).await
}

/// A Pod on every node that asks the cluster's DNS, and a headless Service for all of them.
async fn askers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Deployment green, a Pod on every node, and its headless Service");
    let count = lab.nodes().count();
    let apart = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "green" } },
    }]);
    let spread = json!({ "topologySpreadConstraints": apart });
    lab.deployment("green").create(count, spread).await?;
    lab.service("green").create(json!({ "clusterIP": "None" })).await?;
    lab.deployment("green").pods().until_running(count).await?;
    until_known(lab).await
}

const BLUE: &str = "blue.default.svc.cluster.local";
const HEADLESS: &str = "green.default.svc.cluster.local";

/// The DNS follows the API, and each of its Pods by itself.
async fn until_known(lab: &Lab) -> anyhow::Result<()> {
    lab.eventually("the headless Service's name to be known", secs(40), async || {
        let pods = lab.deployment("green").pods().running().await?;
        for family in lab.ip_families().each() {
            let wanted = addresses(&pods, *family)?;
            for asker in pods.iter().cycle().take(4 * pods.len()) {
                let answer = lab.resolve_by(*family, asker, HEADLESS).await?;
                if let Err(failure) = assert::resolved(&answer, &wanted) {
                    let state = format!("{asker}: {}", failure.seen);
                    return Ok(Probe::not_yet(failure.cause, state).needs(Needs::ClusterDns));
                }
            }
        }
        Ok(Probe::Done(()))
    })
    .await
}

async fn every_name(lab: &Lab) -> anyhow::Result<()> {
    let blue = lab.pods().all_running().await?;
    let pods = lab.deployment("green").pods().all_running().await?;
    for asker in &pods {
        lab.step(format!("{asker} asks for every name, and for one that there is not"));
        for family in lab.ip_families().each() {
            for (name, addresses) in &what_names_lead_to(lab, &pods, *family).await? {
                lab.resolves_to(*family, asker, name, addresses).await?;
            }
        }
        let led = "the Service's name to lead to its Pods";
        lab.ask(asker, BLUE).times(8).all_answered_by(&blue, led).await?;
    }
    Ok(())
}

type Names = Vec<(String, BTreeSet<IpAddr>)>;

/// The host outside has no address but its IPv4 one.
async fn what_names_lead_to(lab: &Lab, pods: &[Party], family: Family) -> anyhow::Result<Names> {
    let all = addresses(pods, family)?;
    let of_pod = |address: &IpAddr| {
        let dashed = address.to_string().replace(['.', ':'], "-");
        (format!("{dashed}.default.pod.cluster.local"), [*address].into())
    };
    let mut names: Names = all.iter().map(of_pod).collect();
    if family == Family::Ipv4 {
        names.push(("outside.test".to_owned(), [lab.outside().address().into()].into()));
    }
    names.extend([
        (BLUE.to_owned(), [lab.service("blue").address_by(family).await?].into()),
        (HEADLESS.to_owned(), all),
        ("nobody.default.svc.cluster.local".to_owned(), BTreeSet::new()),
    ]);
    Ok(names)
}

fn addresses(pods: &[Party], family: Family) -> Result<BTreeSet<IpAddr>, Failure> {
    pods.iter().map(|pod| Ok(pod.by(family)?.ip())).collect()
}
