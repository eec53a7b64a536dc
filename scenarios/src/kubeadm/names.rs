//! The cluster's DNS, once there is a Pod network.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Probe, Profile, RequestOutcome, Sabotage, Scenario, StageName, secs,
    steps,
};
use serde_json::json;

use crate::catalogue::E6;

/// E6, after: the cluster's DNS.
pub(crate) const NAMES: Scenario = Scenario {
    about: "With a Pod network CoreDNS runs, and a Pod reaches a Service by its name, from another \
            node; a name that does not exist is told apart",
    covers: &[E6],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    sabotages: &[Sabotage::new("no-such-service")
        .about("the Service that is asked for was never created")
        .inject(steps!(|lab| {
            core_dns_runs(lab).await?;
            start_asker_and_answerer(lab).await
        }))
        .caught_by(steps!(name_resolves), Cause::NameNotFound)],
    ..Scenario::new("service_names_resolve", StageName::PodNetwork, steps!(names))
};

/// Two Pods on different nodes, which use the cluster's DNS; the Service has the second one's name.
const ASKER: &str = "asker";
const ANSWERER: &str = "answerer";

/// A Pod reaches a new Service by its name, from another node.
pub(super) async fn names(lab: &Lab) -> anyhow::Result<()> {
    core_dns_runs(lab).await?;
    start_asker_and_answerer(lab).await?;
    lab.step(format!("put a Service named {ANSWERER} before it"));
    lab.service(ANSWERER).create(json!({})).await?;
    name_resolves(lab).await
}

async fn core_dns_runs(lab: &Lab) -> anyhow::Result<()> {
    lab.step("CoreDNS is Ready, with addresses of the Pod network");
    let needs = lab.core_dns().needs(1);
    let network = lab.pod_network();
    let ready = lab.core_dns().until("every Pod of CoreDNS Ready", |pods| {
        let ready = pods.iter().filter(|pod| pod.holds("Ready") && pod.has_pod_address(network));
        let (ready, all) = (ready.count(), pods.len());
        let state = format!("{ready} of {all} are");
        Probe::when(all > 0 && ready == all, Cause::NotReady, state).needs(needs.clone())
    });
    ready.await
}

async fn start_asker_and_answerer(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("start the Pods {ASKER} and {ANSWERER}, on two nodes"));
    lab.start_pod(ASKER, lab.last_node()).await?;
    lab.start_pod(ANSWERER, lab.node(1)).await?;
    let both = format!("app in ({ASKER}, {ANSWERER})");
    let both = lab.pods().labelled(both).within(secs(40));
    both.until_running(2).await.map(drop)
}

async fn name_resolves(lab: &Lab) -> anyhow::Result<()> {
    let asker = lab.deployment(ASKER).pods().first().await?;
    let service = lab.service(ANSWERER);
    let [known, unknown] = [ANSWERER, "nobody"].map(|it| format!("{it}.default.svc.cluster.local"));
    lab.step(format!("ask for {known} from {asker}, and for {unknown}"));
    let expected = "the known name to lead to its Pod, and the unknown one nowhere";
    lab.eventually(expected, secs(30), async || {
        let (known, unknown) = lab.ask_both(&asker, &known, &unknown).await?;
        if !unknown.all(RequestOutcome::NameNotFound) {
            let state = format!("the unknown name: {unknown}");
            return Ok(Probe::not_yet(Cause::WrongAnswer, state));
        }
        if known.all(RequestOutcome::Answered) && known.hosts().contains_key(ANSWERER) {
            return Ok(Probe::Done(()));
        }
        let outcome = known.results.first().map(|it| it.outcome);
        let (cause, state) = (outcome.map_or(Cause::Absent, Cause::from), known.to_string());
        if service.listed().await?.is_none() {
            let state = format!("{state}, and there is no such Service");
            return Ok(Probe::hopeless(cause, state));
        }
        let needs = match outcome {
            Some(RequestOutcome::TimedOut) => Needs::All(vec![
                lab.core_dns().needs(1),
                service.needs_from(lab.node(asker.node)).await?,
            ]),
            // A name that is not there yet may come.
            _ => Needs::Time,
        };
        Ok(Probe::not_yet(cause, state).needs(needs))
    })
    .await
}
