//! Routes between the nodes' Pod ranges, and kube-proxy: what the documents add last.

use crate::addresses::{API_NAME, node_address, pod_range};
use crate::{Break, Pki, kubeconfig};

/// Starts kube-proxy.
pub(crate) const START_PROXY: &str = "systemctl start kube-proxy";
/// A port on which nothing listens anywhere.
const DEAD_PORT: u16 = 1;

/// `10.1.2.0/24 via 172.30.0.12`.
pub(crate) fn route(to: u32) -> String {
    format!("{} via {}", pod_range(to), node_address(to))
}

/// Whether a broken run leaves this route out: [`Break::Route`] the one from 1 to 2.
pub(crate) fn is_left_out(on: u32, to: u32, broken: Option<Break>) -> bool {
    broken == Some(Break::Route) && (on, to) == (1, 2)
}

/// The command that adds routes on a node; one that is there stays. Nothing when none is to be
/// added.
pub(crate) fn add_routes(on: u32, to: &[u32], broken: Option<Break>) -> Option<String> {
    let commands: Vec<String> = to
        .iter()
        .filter(|to| !is_left_out(on, **to, broken))
        .map(|to| format!("ip route replace {}", route(*to)))
        .collect();
    (!commands.is_empty()).then(|| commands.join(" && "))
}

/// All N x (N-1) routes: the command for each node that gets any.
pub(crate) fn all_routes(nodes: u32, broken: Option<Break>) -> Vec<(u32, String)> {
    (1..=nodes)
        .filter_map(|on| {
            let others: Vec<u32> = (1..=nodes).filter(|to| *to != on).collect();
            Some((on, add_routes(on, &others, broken)?))
        })
        .collect()
}

/// The kubeconfig that kube-proxy gets instead of its own: with [`Break::KubeProxy`], one that
/// leads nowhere.
pub(crate) fn proxy_override(pki: &Pki, broken: Option<Break>) -> Option<String> {
    (broken == Some(Break::KubeProxy)).then(|| {
        let server = format!("https://{API_NAME}:{DEAD_PORT}");
        kubeconfig::embedded(&server, &pki.ca.certificate, &pki.kube_proxy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_as_the_documents_type_it() {
        insta::assert_snapshot!(route(2), @"10.1.2.0/24 via 172.30.0.12");
    }

    #[test]
    fn every_node_gets_a_route_to_every_other() {
        let routes = all_routes(3, None);
        assert_eq!(routes.len(), 3);
        insta::assert_snapshot!(routes[1].1, @"ip route replace 10.1.1.0/24 via 172.30.0.11 && ip route replace 10.1.3.0/24 via 172.30.0.13");
        assert_eq!(all_routes(1, None), []);
    }

    #[test]
    fn the_break_leaves_one_route_out() {
        let broken = Some(Break::Route);
        assert_eq!(all_routes(2, broken).len(), 1);
        insta::assert_snapshot!(all_routes(3, broken)[0].1, @"ip route replace 10.1.3.0/24 via 172.30.0.13");
    }
}
