//! UDP through a Service.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use podwire_scenario::{
    Break, Cause, Datagrams, Kind, Lab, Needs, Party, Probe, Profile, Sabotage, Scenario,
    StageName, received_by, secs, steps,
};
use serde_json::json;

use crate::catalogue::F4;

/// F4: UDP, and a client that keeps its port.
///
/// Where a Service has no endpoint left, or is deleted, kube-proxy ought to have the kernel forget the
/// flows that lead to former endpoints (kubernetes/kubernetes#139628, #141371). Up to [`KEEPS_FLOWS`] it
/// does not, and that is what is asserted of such a one: they go on.
pub(crate) const UDP: Scenario = Scenario {
    about: "By UDP a Service spreads its clients over its Pods; a client that keeps its port follows \
            when its endpoint goes and when another comes; where none is left, or the Service is \
            deleted, it reaches nobody (up to 1.36.4: the former one)",
    covers: &[F4],
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("session-affinity")
            .about("the Service sends each client to one Pod")
            .inject(steps!(|lab| {
                green(lab).await?;
                lab.service("green").stick_clients_to_one_pod().await?;
                lab.service("green").by(Kind::Udp).until_one_pod_answers(lab.last_node()).await
            }))
            .caught_by(steps!(spreads), Cause::Unbalanced),
        Sabotage::new("another-translates-it")
            .about("a rule that is not kube-proxy's leads the client to its former endpoint")
            .inject(steps!(|lab| {
                green(lab).await?;
                let client = Client::start(lab).await?;
                // Before it changes: the flow is forgotten at once, and the next datagram makes one anew.
                let former = client.receiver(lab).await?;
                let rule = format!(
                    "ip daddr {} udp sport {} dnat to {}:80",
                    client.to,
                    Datagrams::SOURCE_PORT,
                    former.address
                );
                let chain = "type nat hook prerouting priority -110";
                lab.last_node().add_rule(chain, &rule).await?;
                client.lose_its_endpoint(lab).await?;
                lab.keep(client);
                Ok(())
            }))
            .caught_by(steps!(|lab| lab.kept::<Client>()?.follows(lab).await), Cause::WrongAnswer),
    ],
    red_when: &[Break::KubeProxy, Break::PodRange],
    ..Scenario::new("udp_services", StageName::Workload, steps!(udp))
};

/// The last Kubernetes whose kube-proxy is known to keep flows without an endpoint.
const KEEPS_FLOWS: [u32; 3] = [1, 36, 4];

const PODS: usize = 2;

async fn udp(lab: &Lab) -> anyhow::Result<()> {
    green(lab).await?;
    spreads(lab).await?;
    let client = Client::start(lab).await?;
    let former = client.lose_its_endpoint(lab).await?;
    client.follows(lab).await?;

    lab.step("the Service selects nobody: no endpoint is left");
    let last = client.receiver(lab).await?;
    let pods = pods(lab).await?;
    select(lab, "nobody").await?;
    lab.service("green").until_no_endpoints(&pods).await?;
    lab.service("green").until_no_rules(&pods, lab.last_node()).await?;
    client.has_no_endpoint(lab, &last).await?;

    lab.step(format!("the Service selects {former}, which was its endpoint before"));
    select(lab, "apart").await?;
    client.comes_to(lab, &former).await?;

    lab.step("delete the Service");
    lab.kubectl("delete service green").await?;
    client.until_forgotten(lab).await?;
    client.has_no_endpoint(lab, &former).await
}

/// Pods and a UDP Service, which the last node knows.
async fn green(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a Deployment green and its Service by UDP");
    lab.deployment("green").create(PODS, json!({})).await?;
    let ports = json!({ "ports": [{ "port": 80, "protocol": "UDP" }] });
    lab.service("green").create(ports).await?;
    lab.deployment("green").pods().until_running(PODS).await?;
    for from in askers(lab).await? {
        lab.service("green").by(Kind::Udp).leads_to_all(PODS, &from).await?;
    }
    Ok(())
}

/// The last node, which takes Pods in every cell, and a Pod of it.
async fn askers(lab: &Lab) -> anyhow::Result<[Party; 2]> {
    let node = lab.last_node();
    Ok([lab.pods().on(node).first().await?, node.party()])
}

async fn spreads(lab: &Lab) -> anyhow::Result<()> {
    for from in askers(lab).await? {
        lab.step(format!("questions from {from} spread over the Pods (F4)"));
        lab.service("green").by(Kind::Udp).spreads_evenly(&from).await?;
    }
    Ok(())
}

/// All that are, or were, its Pods.
async fn pods(lab: &Lab) -> anyhow::Result<Vec<Party>> {
    lab.pods().labelled("app in (green, apart)").running().await
}

async fn select(lab: &Lab, label: &str) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "selector": { "app": label } } });
    lab.kubectl(format!("patch service green --type merge -p '{patch}'")).await?;
    Ok(())
}

/// Whether a kube-proxy of this version, `v1.36.4`, is known to keep flows without an endpoint.
fn keeps_flows(version: &str) -> Option<bool> {
    let numbers = version.strip_prefix('v')?.split(['.', '-', '+']);
    let numbers: Result<Vec<u32>, _> = numbers.take(3).map(str::parse).collect();
    Some(<[u32; 3]>::try_from(numbers.ok()?).ok()? <= KEEPS_FLOWS)
}

/// A Pod of the last node that sends datagrams to the Service, all from one port.
#[derive(Clone)]
struct Client {
    from: Party,
    to: Ipv4Addr,
}

impl Client {
    async fn start(lab: &Lab) -> anyhow::Result<Self> {
        let from = lab.pods().on(lab.last_node()).first().await?;
        let to = lab.service("green").address().await?;
        lab.datagrams(&from, to).start().await?;
        Ok(Self { from, to })
    }

    /// Whom its datagrams reach now.
    async fn receiver(&self, lab: &Lab) -> anyhow::Result<Party> {
        let received = lab.datagrams(&self.from, self.to).next_to(&pods(lab).await?).await?;
        let got = received.iter().find(|it| it.count > 0);
        let pods: Vec<Party> = got.map(|it| it.pod.clone()).into_iter().collect();
        received_by(&received, &pods)?;
        pods.into_iter().next().context("the datagrams reach nobody")
    }

    /// Takes its endpoint from the Service; the Pod lives on, and can tell what it gets.
    async fn lose_its_endpoint(&self, lab: &Lab) -> anyhow::Result<Party> {
        let former = self.receiver(lab).await?;
        lab.step(format!("take {former} from the Service"));
        lab.kubectl(format!("label pod {} app=apart --overwrite", former.name)).await?;
        lab.service("green").until_no_endpoints(std::slice::from_ref(&former)).await?;
        Ok(former)
    }

    /// Its datagrams come to reach a Pod of the Service's, and nobody else.
    async fn follows(&self, lab: &Lab) -> anyhow::Result<()> {
        lab.step("the datagrams reach another Pod of the Service, and nobody else (F4)");
        let needs = lab.service("green").needs_from(lab.last_node()).await?;
        self.until_they_reach(lab, needs, async || lab.deployment("green").pods().running().await)
            .await
    }

    async fn comes_to(&self, lab: &Lab, pod: &Party) -> anyhow::Result<()> {
        lab.step(format!("the datagrams reach {pod}, and nobody else (F4)"));
        let needs = Needs::KubeProxy {
            node: lab.last_node().number(),
            service: self.to,
            pods: vec![pod.address],
        };
        self.until_they_reach(lab, needs, async || Ok(vec![pod.clone()])).await
    }

    /// Nobody gets them; where flows are kept, the one who got them before.
    async fn has_no_endpoint(&self, lab: &Lab, before: &Party) -> anyhow::Result<()> {
        let listed = lab.last_node().listed().await?;
        let version = listed.as_ref().and_then(|node| node.version()).unwrap_or_default();
        let keeps = keeps_flows(version).with_context(|| format!("{version:?} is no version"))?;
        if keeps {
            lab.step(format!("{version} keeps the flow: the datagrams still reach {before} (F4)"));
            let received = lab.datagrams(&self.from, self.to).next_to(&pods(lab).await?).await?;
            return Ok(received_by(&received, std::slice::from_ref(before))?);
        }
        lab.step(format!("{version} forgets the flow: the datagrams reach nobody (F4)"));
        self.until_they_reach(lab, Needs::Time, async || Ok(Vec::new())).await
    }

    async fn until_they_reach(
        &self,
        lab: &Lab,
        needs: Needs,
        mut wanted: impl AsyncFnMut() -> anyhow::Result<Vec<Party>>,
    ) -> anyhow::Result<()> {
        let expected = "the datagrams to go where the Service leads";
        lab.eventually(expected, secs(20), async || {
            let everybody = pods(lab).await?;
            let received = lab.datagrams(&self.from, self.to).next_to(&everybody).await?;
            Ok(match received_by(&received, &wanted().await?) {
                Ok(()) => Probe::Done(()),
                Err(failure) => Probe::not_yet(failure.cause, failure.seen)
                    .look(failure.look)
                    .needs(needs.clone()),
            })
        })
        .await
    }

    /// Waits until the last node's rules do not name the Service any more.
    async fn until_forgotten(&self, lab: &Lab) -> anyhow::Result<()> {
        let count = format!(
            "{{ nft list ruleset; iptables-save -t nat; }} 2>/dev/null | grep -c -w -F {}; true",
            self.to
        );
        let needs =
            Needs::KubeProxy { node: lab.last_node().number(), service: self.to, pods: Vec::new() };
        lab.eventually("no rule for the Service", secs(20), async || {
            let counted = lab.last_node().run(&count).await?;
            let lines = counted.text();
            let state = format!("{lines} lines name it");
            Ok(Probe::when(lines == "0", Cause::Answered, state).needs(needs.clone()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_does_is_known() {
        for (version, keeps) in [
            ("v1.35.9", Some(true)),
            ("v1.36.4", Some(true)),
            ("v1.36.5", Some(false)),
            ("v1.37.0-alpha.1+abc", Some(false)),
            ("v1.36.4-dirty", Some(true)),
            ("v1.36", None),
            ("1.36.4", None),
            ("", None),
        ] {
            assert_eq!(keeps_flows(version), keeps, "{version}");
        }
    }
}
