//! One Pod for each client, and how long.

use std::collections::BTreeMap;
use std::slice;

use podwire_scenario::{
    Break, Cause, Evidence, Lab, Party, Place, Probe, Profile, RequestOutcome, Sabotage, Scenario,
    StageName, assert, ensure, secs, steps,
};
use serde_json::json;

use crate::catalogue::F6;

/// F6: session affinity as a promise, and its end.
pub(crate) const AFFINITY: Scenario = Scenario {
    about: "A Service with session affinity leads a client to one Pod while that lives, to another one \
            when it is gone, and forgets whoever did not ask for longer than its time-out",
    covers: &[F6],
    profile: Profile::Full,
    limit: secs(240),
    sabotages: &[
        Sabotage::new("no-affinity")
            .about("the Service has no session affinity")
            .inject(steps!(|lab| sticky(lab, "None", TIME_OUT).await))
            .caught_by(steps!(one_pod_answers), Cause::WrongAnswer),
        Sabotage::new("sticks-to-the-dead")
            .about("the client's node leads its connections to a Pod that there is not")
            .inject(steps!(|lab| {
                sticky(lab, "ClientIP", TIME_OUT).await?;
                its_pod_goes(lab).await?;
                let service = lab.service(STICKY).address().await?;
                let rule = format!("ip daddr {service} dnat to 10.1.250.2");
                lab.last_node().add_rule("type nat hook output priority -110", &rule).await
            }))
            .at(Place::Last)
            .caught_by(steps!(one_pod_answers), Cause::TimedOut),
        Sabotage::new("never-forgets")
            .about("the time-out is a day")
            .inject(steps!(|lab| sticky(lab, "ClientIP", 24 * 60 * 60).await))
            .caught_by(steps!(forgets), Cause::NotReady),
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("session_affinity", StageName::Workload, steps!(affinity))
};

const STICKY: &str = "sticky";
/// Seconds, on the clock of the client's node.
const TIME_OUT: u32 = 15;

async fn affinity(lab: &Lab) -> anyhow::Result<()> {
    sticky(lab, "ClientIP", TIME_OUT).await?;
    one_pod_answers(lab).await?;
    its_pod_goes(lab).await?;
    one_pod_answers(lab).await?;
    forgets(lab).await
}

/// A Service of its own for the workload's Pods.
async fn sticky(lab: &Lab, affinity: &str, time_out: u32) -> anyhow::Result<()> {
    lab.step(format!("a second Service for the Pods of blue, affinity {affinity}"));
    let mut service = json!({ "selector": { "app": "blue" }, "sessionAffinity": affinity });
    if affinity == "ClientIP" {
        service["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": time_out } });
    }
    lab.service(STICKY).create(service).await?;
    for node in lab.nodes() {
        lab.service(STICKY).until_a_pod_answers(node, secs(20)).await?;
    }
    Ok(())
}

async fn one_pod_answers(lab: &Lab) -> anyhow::Result<()> {
    who_answers(lab).await.map(drop)
}

/// The one Pod that answers all requests of one client.
async fn who_answers(lab: &Lab) -> anyhow::Result<Party> {
    let (client, service) = (lab.last_node(), lab.service(STICKY));
    lab.step(format!("sixteen requests from {client}: one Pod answers them all"));
    let spec = service.listed().await?.and_then(|it| it.spec).unwrap_or_default();
    let has_none = spec.session_affinity.as_deref() != Some("ClientIP");
    let never = has_none.then(|| Evidence::certain("the Service has no session affinity"));
    let address = service.address().await?;
    lab.eventually("one Pod to answer, and nobody else", secs(20), async || {
        let pods = lab.pods().running().await?;
        let report = lab.ask(client, address).times(16).await?;
        let answered = report.all(RequestOutcome::Answered);
        let hosts = report.hosts();
        let alone = pods.into_iter().find(|pod| answered && hosts.keys().eq([&pod.name]));
        let unanswered = report.results.iter().map(|it| it.outcome);
        let cause = unanswered.filter(|it| *it != RequestOutcome::Answered).map(Cause::from).next();
        let look = Probe::of(alone, cause.unwrap_or(Cause::WrongAnswer), report.to_string());
        Ok(look.given(never.clone()).needs(service.needs_from(client).await?))
    })
    .await
}

/// The client's Pod is deleted, and its node's kube-proxy has followed.
async fn its_pod_goes(lab: &Lab) -> anyhow::Result<Party> {
    let gone = who_answers(lab).await?;
    lab.step(format!("delete {gone}"));
    lab.pods().delete(&gone.name).await?;
    lab.service(STICKY).until_no_endpoints(slice::from_ref(&gone)).await?;
    lab.service(STICKY).until_no_rules(slice::from_ref(&gone), lab.last_node()).await?;
    Ok(gone)
}

/// Every node and every Pod of the workload is a client: so many that all of nine find the Pod again
/// that they had, among six, once in ten million. Who answers each.
async fn every_client_asks(lab: &Lab) -> anyhow::Result<BTreeMap<String, String>> {
    let address = lab.service(STICKY).address().await?;
    let pods = lab.pods().all_running().await?;
    let mut clients = lab.node_parties();
    clients.extend(pods.iter().cloned());
    let mut answered = BTreeMap::new();
    for client in clients {
        let report = lab.ask(&client, address).await?;
        assert::all_answered_by("the Service to answer", &report, &pods)?;
        answered.extend(report.hosts().into_keys().map(|it| (client.name.clone(), it.to_owned())));
    }
    Ok(answered)
}

async fn forgets(lab: &Lab) -> anyhow::Result<()> {
    who_answers(lab).await?;
    lab.step("every node and every Pod asks once");
    let before = every_client_asks(lab).await?;
    lab.step(format!("nobody asks for longer than {TIME_OUT} s"));
    lab.node(1).run(format!("sleep {}", TIME_OUT + 3)).within(secs(60)).await?;
    lab.step("all ask again: some of them get another Pod");
    let after = every_client_asks(lab).await?;
    ensure!(before != after, NotReady, "some client to be forgotten", "as before: {after:?}");
    Ok(())
}
