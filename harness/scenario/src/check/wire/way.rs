//! By which ports packets go from one node to another.

use podwire_cluster::{Layout, addresses};

/// From which port to which.
pub(super) type Hop = (String, String);

/// From one node to another: directly, or on each segment to or from the router that is between them.
pub(super) fn hops(layout: Layout, from: u32, to: u32) -> Vec<Hop> {
    let [one, other] = [from, to].map(addresses::node_name);
    let [here, there] = [from, to].map(|node| layout.segment_of(node));
    if here == there {
        return vec![(one, other)];
    }
    let [near, far] = [here, there].map(addresses::router_port);
    vec![(one, near), (far, other)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_segments_there_are_two_hops() {
        let told = |from, to| {
            let hops = hops(Layout::Routed, from, to).into_iter();
            let hops = hops.map(|(from, to)| format!("{from} -> {to}"));
            hops.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told(1, 3), "node1 -> node3");
        assert_eq!(told(1, 2), "node1 -> router-1, router-2 -> node2");
        assert_eq!(told(2, 3), "node2 -> router-2, router-1 -> node3");
        assert_eq!(hops(Layout::Flat, 1, 2).len(), 1);
    }
}
