//! Routes between the nodes' Pod ranges, and kube-proxy: what the documents add last.

use std::time::Duration;

use super::step::{Action, OnNode, OnNodes};
use crate::parts::file::NodeFile;
use crate::parts::kubeconfig;
use crate::parts::pki::Pki;
use crate::plan::addresses::{API_NAME, pod_range};
use crate::plan::breaks::Break;
use crate::plan::cell::Cell;
use crate::plan::cluster_plan::ClusterPlan;
use crate::plan::ip_families::{Family, node_address_v6, pod_range_v6};
use crate::plan::layout::Layout;

/// A command on a node, or on the router.
pub(crate) const COMMAND: Duration = Duration::from_secs(10);

/// A port on which nothing listens anywhere.
const DEAD_PORT: u16 = 1;

/// `10.1.2.0/24 via 172.30.0.12`, or via the router where node `to` is on the other segment; with two
/// families the like of the second one as well.
fn route(cell: Cell, on: u32, to: u32) -> Vec<String> {
    let route = |family: &Family| match family {
        Family::Ipv4 => format!("{} via {}", pod_range(to), cell.layout.next_hop(on, to)),
        Family::Ipv6 => format!("{} via {}", pod_range_v6(to), node_address_v6(to)),
    };
    cell.ip_families.each().iter().map(route).collect()
}

/// Whether a broken run leaves this route out: [`Break::Route`] the one from 1 to 2.
fn is_left_out(on: u32, to: u32, broken: Option<Break>) -> bool {
    broken == Some(Break::Route) && (on, to) == (1, 2)
}

/// What adds routes on a node; one that is there stays. Nothing when none is to be added.
fn routes(
    cell: Cell,
    on: u32,
    to: impl Iterator<Item = u32>,
    broken: Option<Break>,
) -> Option<OnNode> {
    let commands: Vec<String> = to
        .filter(|to| !is_left_out(on, *to, broken))
        .flat_map(|to| route(cell, on, to))
        .map(|route| format!("ip route replace {route}"))
        .collect();
    (!commands.is_empty()).then(|| OnNode::run(on, commands.join(" && ")))
}

fn at_once(nodes: Vec<OnNode>) -> OnNodes {
    OnNodes {
        nodes,
        limit: COMMAND,
    }
}

/// The route to the Pods of node `to`, on node `on`.
pub(crate) fn add_route(cell: Cell, on: u32, to: u32, broken: Option<Break>) -> OnNodes {
    let route = routes(cell, on, [to].into_iter(), broken);
    at_once(route.into_iter().collect())
}

/// All N x (N-1) routes of each family.
pub(crate) fn add_all_routes(cell: Cell, nodes: u32, broken: Option<Break>) -> OnNodes {
    let each = (1..=nodes).filter_map(|on| {
        let others = (1..=nodes).filter(|to| *to != on);
        routes(cell, on, others, broken)
    });
    at_once(each.collect())
}

/// Where there is a router, what adds its routes to all Pods: what leads there from the nodes leads to it.
pub(crate) fn router_routes(layout: Layout, nodes: u32) -> Option<String> {
    let command = |to| {
        let (range, via) = (pod_range(to), layout.address(to));
        format!("ip route replace {range} via {via}")
    };
    let commands: Vec<String> = (1..=nodes).map(command).collect();
    (layout == Layout::Routed).then(|| commands.join(" && "))
}

/// All that connects the Pods of a plan's nodes, by hand.
pub(crate) fn connect_pods(plan: &ClusterPlan) -> impl Iterator<Item = Action> + use<> {
    let (cell, nodes) = (plan.cell, plan.nodes);
    let routes = Action::OnNodes(add_all_routes(cell, nodes, plan.broken));
    let router = router_routes(cell.layout, nodes).map(|command| Action::OnRouter {
        command,
        limit: COMMAND,
    });
    router.into_iter().chain([routes])
}

/// Takes a route away; what was left out needs no deletion: only then is absence no error.
pub(crate) fn delete_route(cell: Cell, on: u32, to: u32, broken: Option<Break>) -> OnNodes {
    let commands = route(cell, on, to).into_iter();
    let commands: Vec<String> = commands.map(|it| format!("ip route delete {it}")).collect();
    let there = !is_left_out(on, to, broken);
    at_once(Vec::from_iter(
        there.then(|| OnNode::run(on, commands.join(" && "))),
    ))
}

/// Starts kube-proxy on every node. With [`Break::KubeProxy`] it gets a kubeconfig that leads nowhere
/// instead of its own.
pub(crate) fn start_proxy(nodes: u32, pki: &Pki, broken: Option<Break>) -> OnNodes {
    let instead = (broken == Some(Break::KubeProxy)).then(|| {
        let server = format!("https://{API_NAME}:{DEAD_PORT}");
        NodeFile {
            path: kubeconfig::KUBE_PROXY_PATH.to_owned(),
            mode: 0o600,
            text: kubeconfig::embedded(&server, &pki.ca.certificate, &pki.kube_proxy),
        }
    });
    let each = (1..=nodes).map(|number| OnNode {
        node: number,
        files: Vec::from_iter(instead.clone()),
        command: Some("systemctl start kube-proxy".to_owned()),
    });
    at_once(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cell::Bootstrap;
    use crate::plan::ip_families::IpFamilies;

    const FLAT: Cell = Cell::usual(Bootstrap::ByHand);

    fn commands(all: &OnNodes) -> Vec<String> {
        let each = all.nodes.iter();
        let shown = each.map(|it| format!("node{}: {}", it.node, it.command.as_deref().unwrap()));
        shown.collect()
    }

    #[test]
    fn a_route_is_as_the_documents_type_it() {
        insta::assert_snapshot!(route(FLAT, 1, 2).join(""), @"10.1.2.0/24 via 172.30.0.12");
    }

    #[test]
    fn across_segments_the_router_has_the_routes_that_lead_to_it() {
        let routed = commands(&add_all_routes(FLAT.laid_out(Layout::Routed), 3, None));
        insta::assert_snapshot!(routed[0], @"node1: ip route replace 10.1.2.0/24 via 172.30.0.2 && ip route replace 10.1.3.0/24 via 172.30.0.13");
        let command = router_routes(Layout::Routed, 2).unwrap();
        insta::assert_snapshot!(command, @"ip route replace 10.1.1.0/24 via 172.30.0.11 && ip route replace 10.1.2.0/24 via 172.30.1.12");
        assert_eq!(router_routes(Layout::Flat, 3), None);
    }

    #[test]
    fn with_two_families_there_is_a_route_of_each_or_none_of_either() {
        let dual = FLAT.with_families(IpFamilies::Dual);
        let both = commands(&add_all_routes(dual, 2, None));
        insta::assert_snapshot!(both[0], @"node1: ip route replace 10.1.2.0/24 via 172.30.0.12 && ip route replace fd00:10:1:2::/64 via fd00:172:30::12");
        let gone = commands(&delete_route(dual, 2, 1, None));
        insta::assert_snapshot!(gone[0], @"node2: ip route delete 10.1.1.0/24 via 172.30.0.11 && ip route delete fd00:10:1:1::/64 via fd00:172:30::11");
        let broken = add_route(dual, 1, 2, Some(Break::Route));
        assert_eq!(commands(&broken), [""; 0]);
    }

    #[test]
    fn every_node_gets_a_route_to_every_other() {
        let routes = commands(&add_all_routes(FLAT, 3, None));
        assert_eq!(routes.len(), 3);
        insta::assert_snapshot!(routes[1], @"node2: ip route replace 10.1.1.0/24 via 172.30.0.11 && ip route replace 10.1.3.0/24 via 172.30.0.13");
        assert_eq!(commands(&add_all_routes(FLAT, 1, None)), [""; 0]);
    }

    #[test]
    fn the_break_leaves_one_route_out_and_has_none_to_delete() {
        let broken = Some(Break::Route);
        assert_eq!(commands(&add_all_routes(FLAT, 2, broken)).len(), 1);
        insta::assert_snapshot!(commands(&add_all_routes(FLAT, 3, broken))[0], @"node1: ip route replace 10.1.3.0/24 via 172.30.0.13");
        assert_eq!(commands(&add_route(FLAT, 1, 2, broken)), [""; 0]);
        assert_eq!(commands(&delete_route(FLAT, 1, 2, broken)), [""; 0]);
        insta::assert_snapshot!(commands(&delete_route(FLAT, 1, 2, None))[0], @"node1: ip route delete 10.1.2.0/24 via 172.30.0.12");
    }

    #[test]
    fn the_break_gives_kube_proxy_a_server_that_is_not_there() {
        let pki = Pki::placeholder(&[], None);
        let sound = start_proxy(2, &pki, None);
        let broken = start_proxy(2, &pki, Some(Break::KubeProxy));
        assert!(sound.nodes.iter().all(|node| node.files.is_empty()));
        for node in &broken.nodes {
            assert_eq!(node.files[0].path, kubeconfig::KUBE_PROXY_PATH);
            assert!(node.files[0].text.contains("https://node1:1\""));
        }
        assert_eq!(commands(&sound), commands(&broken));
    }
}
