//! The way out.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Break, Cause, ContactProtocol, Failure, Kind, Lab, Party, PodNetwork, RequestOutcome, Sabotage,
    Scenario, StageName, TargetReport, assert, secs, steps,
};

use crate::catalogue::F10;

/// F10: out of the cluster, and as whom.
pub(crate) const EGRESS: Scenario = Scenario {
    about: "A Pod of every node reaches a host outside the cluster by TCP, UDP and ICMP, seen as its \
            node, and the DNS that its node asks",
    covers: &[F10],
    limit: secs(120),
    sabotages: &[
        Sabotage {
            name: "not-translated",
            about: "the last node lets its Pods out under their own addresses",
            expects: Cause::WrongAnswer,
            inject: steps!(|lab| {
                let outside = lab.outside().address();
                lab.last_node().leave_untranslated(outside).await
            }),
            check: steps!(egress),
        },
        Sabotage {
            name: "udp-dropped",
            about: "node 1 drops what its Pods send outside by UDP",
            expects: Cause::TimedOut,
            inject: steps!(|lab| drop_on(lab, 1, "udp dport 80").await),
            check: steps!(egress),
        },
        Sabotage {
            name: "questions-dropped",
            about: "node 2 drops its Pods' questions to the DNS",
            expects: Cause::TimedOut,
            inject: steps!(|lab| drop_on(lab, 2, "udp dport 53").await),
            check: steps!(egress),
        },
    ],
    red_when: &[Break::PodRange],
    ..Scenario::new("egress_from_every_node", StageName::Workload, steps!(egress))
};

/// By which kind of request, and as what the outside host counts it.
const WAYS: [(Kind, ContactProtocol); 3] = [
    (Kind::Http, ContactProtocol::Tcp),
    (Kind::Udp, ContactProtocol::Udp),
    (Kind::Ping, ContactProtocol::Icmp),
];

/// Requests of each kind from each Pod.
const TIMES: u32 = 3;

async fn egress(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every Pod has an address of its own, under which nobody else is seen");
    lab.pod_addresses_unique_and_in_range().await?;
    for pod in lab.pod_of_each_node().await? {
        let node = lab.node(pod.node).address();
        lab.step(format!("{pod} asks the outside host, which sees {node} (F10)"));
        for (kind, how) in WAYS {
            let before = Came::from(lab, &pod, how);
            let report = lab.ask(&pod, lab.outside().address()).by(kind).times(TIMES).await?;
            answered_as(node, kind, &report)?;
            let came = Came::from(lab, &pod, how).since(before);
            came.all_as(By::Node, TIMES.into(), &lab.outside().contacts())?;
        }
        lab.step(format!("{pod} asks its node's DNS for {}", lab.outside().name()));
        let before = Came::from(lab, &pod, ContactProtocol::Dns);
        let answer = lab.resolve(&pod, lab.outside().name()).await?;
        assert::resolved(&answer, &[lab.outside().address().into()].into())?;
        let came = Came::from(lab, &pod, ContactProtocol::Dns).since(before);
        came.all_as(by_dns(lab.pod_network()), 1, &lab.outside().contacts())?;
    }
    Ok(())
}

const LOOK: &str = "`nft list ruleset` and `iptables-save` of the Pod's node: who translates what \
    leaves the cluster, and who drops it? Then the wire capture";

/// Under whose address somebody is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Node,
    Pod,
    Either,
}

/// As whom the gateway, which is on the nodes' own segment, sees a Pod: by hand nothing is translated
/// that stays there, flannel translates all that leaves the Pods' range, and a network of the user's does
/// as it likes.
fn by_dns(network: PodNetwork) -> By {
    match network {
        PodNetwork::Routes => By::Pod,
        PodNetwork::Flannel(_) => By::Node,
        PodNetwork::Manifest => By::Either,
    }
}

/// Contacts that the outside host, or the gateway's DNS, has counted.
#[derive(Clone, Copy)]
struct Came {
    as_node: u64,
    as_pod: u64,
}

impl Came {
    fn from(lab: &Lab, pod: &Party, how: ContactProtocol) -> Self {
        Self {
            as_node: lab.outside().contacts_from(lab.node(pod.node).address(), how),
            as_pod: lab.outside().contacts_from(pod.address, how),
        }
    }

    fn since(self, before: Self) -> Self {
        Self { as_node: self.as_node - before.as_node, as_pod: self.as_pod - before.as_pod }
    }

    /// At least so many, and none under the wrong address. The node itself may have asked as well.
    fn all_as(self, wanted: By, least: u64, contacts: &str) -> Result<(), Failure> {
        let Self { as_node, as_pod } = self;
        let holds = match wanted {
            By::Node => as_node >= least && as_pod == 0,
            By::Pod => as_pod >= least,
            By::Either => as_node + as_pod >= least,
        };
        let whose = match wanted {
            By::Node => "under the node's address",
            By::Pod => "under the Pod's address",
            By::Either => "under either address",
        };
        let expected = format!("{least} contacts {whose}");
        let seen = format!(
            "{as_node} under the node's address, {as_pod} under the Pod's; all so far: {contacts}"
        );
        match holds {
            true => Ok(()),
            false => Err(Failure::new(Cause::WrongAnswer, expected, seen).look(LOOK)),
        }
    }
}

/// Every request to the outside host was answered, and it saw this address: it has no name by which it could
/// be told from another. An echo says nothing of either.
pub(super) fn answered_as(
    node: Ipv4Addr,
    kind: Kind,
    report: &TargetReport,
) -> Result<(), Failure> {
    let expected = format!("the outside host to answer {node}");
    let failed = |cause| Err(Failure::new(cause, &expected, report.to_string()).look(LOOK));
    if !report.all(RequestOutcome::Answered) {
        let mut ends = report.results.iter().map(|result| result.outcome);
        let other = ends.find(|outcome| *outcome != RequestOutcome::Answered);
        return failed(other.map_or(Cause::Absent, Cause::from));
    }
    let node = node.to_string();
    match kind == Kind::Ping || report.clients().into_keys().eq([node.as_str()]) {
        true => Ok(()),
        false => failed(Cause::WrongAnswer),
    }
}

async fn drop_on(lab: &Lab, node: u32, what: &str) -> anyhow::Result<()> {
    lab.step(format!("node {node} drops what it forwards for {what}"));
    let rule = format!("{what} drop");
    lab.node(node).add_rule("type filter hook forward priority 0", &rule).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 12);

    fn report(results: &[(RequestOutcome, Option<&str>)]) -> TargetReport {
        let results = results.iter().map(|(outcome, client)| {
            serde_json::json!({ "outcome": outcome, "client": client, "count": 1 })
        });
        let results: Vec<_> = results.collect();
        let report = serde_json::json!({ "target": "192.0.2.10:80", "results": results });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn all_are_answered_and_by_one_who_saw_the_node() {
        use RequestOutcome::{Answered, TimedOut};
        let of = |kind, results: &[_]| {
            answered_as(NODE, kind, &report(results)).map_err(|failure| failure.cause)
        };
        assert_eq!(of(Kind::Udp, &[(Answered, Some("172.30.0.12"))]), Ok(()));
        let pod = (Answered, Some("10.1.2.2"));
        assert_eq!(of(Kind::Udp, &[pod]), Err(Cause::WrongAnswer));
        let both = [(Answered, Some("172.30.0.12")), pod];
        assert_eq!(of(Kind::Http, &both), Err(Cause::WrongAnswer));
        assert_eq!(of(Kind::Http, &[(Answered, None)]), Err(Cause::WrongAnswer));
        assert_eq!(of(Kind::Ping, &[(Answered, None)]), Ok(()));
        let lost = [(Answered, Some("172.30.0.12")), (TimedOut, None)];
        assert_eq!(of(Kind::Udp, &lost), Err(Cause::TimedOut));
        assert_eq!(of(Kind::Ping, &[]), Err(Cause::Absent));
    }

    #[test]
    fn a_contact_under_the_other_address_is_noticed() {
        let of = |as_node, as_pod, wanted| Came { as_node, as_pod }.all_as(wanted, 3, "").is_ok();
        assert!(of(3, 0, By::Node) && of(4, 0, By::Node));
        assert!(!of(2, 0, By::Node) && !of(3, 1, By::Node));
        assert!(of(0, 3, By::Pod) && of(9, 3, By::Pod) && !of(3, 2, By::Pod));
        assert!(of(2, 1, By::Either) && !of(1, 1, By::Either));
    }
}
