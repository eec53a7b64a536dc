//! The way out.

use podwire_scenario::{
    Break, Cause, ContactProtocol, Failure, Family, Kind, Lab, Party, Place, PodNetwork, Sabotage,
    Scenario, StageName, secs, steps,
};

use crate::catalogue::F10;

/// F10: out of the cluster, and as whom.
pub(crate) const EGRESS: Scenario = Scenario {
    about: "A Pod of every node reaches a host outside the cluster by TCP, UDP and ICMP, seen as its \
            node, and the DNS that its node asks",
    covers: &[F10],
    limit: secs(120),
    sabotages: &[
        Sabotage::new("not-translated")
            .about("the last node lets its Pods out under their own addresses")
            .inject(steps!(|lab| {
                let outside = lab.outside().address();
                lab.last_node().leave_untranslated(outside).await
            }))
            .caught_by(steps!(egress), Cause::WrongAnswer),
        Sabotage::new("udp-dropped")
            .about("node 1 drops what its Pods send outside by UDP")
            .inject(steps!(|lab| drop_on(lab, 1, "udp dport 80").await))
            .at(Place::Node(1))
            .caught_by(steps!(egress), Cause::TimedOut),
        Sabotage::new("questions-dropped")
            .about("node 2 drops its Pods' questions to the DNS")
            .inject(steps!(|lab| drop_on(lab, 2, "udp dport 53").await))
            .at(Place::Node(2))
            .caught_by(steps!(egress), Cause::TimedOut),
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
            let asked = lab.ask(&pod, lab.outside().address()).by(kind).times(TIMES);
            asked.all_answered_to(node).await?;
            let came = Came::from(lab, &pod, how).since(before);
            came.all_as(By::Node, TIMES.into(), &lab.outside().contacts())?;
        }
        lab.step(format!("{pod} asks its node's DNS for {}", lab.outside().name()));
        let before = Came::from(lab, &pod, ContactProtocol::Dns);
        let (name, leads_to) = (lab.outside().name(), lab.outside().address().into());
        lab.resolves_to(Family::Ipv4, &pod, name, &[leads_to].into()).await?;
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
/// that stays there, flannel translates all that leaves the Pods' range, and a network that is not
/// podwire's own does as it likes.
fn by_dns(network: PodNetwork) -> By {
    match network {
        PodNetwork::Routes => By::Pod,
        PodNetwork::Flannel(_) => By::Node,
        PodNetwork::Published(_) | PodNetwork::Manifest => By::Either,
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

async fn drop_on(lab: &Lab, node: u32, what: &str) -> anyhow::Result<()> {
    lab.step(format!("node {node} drops what it forwards for {what}"));
    let rule = format!("{what} drop");
    lab.node(node).add_rule("type filter hook forward priority 0", &rule).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_under_the_other_address_is_noticed() {
        let of = |as_node, as_pod, wanted| Came { as_node, as_pod }.all_as(wanted, 3, "").is_ok();
        assert!(of(3, 0, By::Node) && of(4, 0, By::Node));
        assert!(!of(2, 0, By::Node) && !of(3, 1, By::Node));
        assert!(of(0, 3, By::Pod) && of(9, 3, By::Pod) && !of(3, 2, By::Pod));
        assert!(of(2, 1, By::Either) && !of(1, 1, By::Either));
    }
}
