//! The Pod network by hand: one CNI file per node, and one rule that hides Pods from the outside.

use ipnet::Ipv6Net;
use podwire_lan::Ipv4Net;
use serde_json::{Value, json};

use crate::plan::addresses::{PODS, SECOND_SEGMENT, SEGMENT, SERVICES};
use crate::plan::layout::Layout;

/// The only file in containerd's CNI folder.
pub const PATH: &str = "/etc/cni/net.d/kube.conf";
/// The bridge that the plugin makes with the first Pod.
pub const BRIDGE: &str = "cni0";
/// The file that kube-router keeps, where it is not told of another.
pub const KUBE_ROUTER_PATH: &str = "/etc/cni/net.d/10-kuberouter.conf";
/// Where the plugins of the bundle are.
pub const PLUGINS: &str = "/opt/cni/bin";
/// The file that makes [`masquerade`]'s rule.
pub const MASQUERADE_PATH: &str = "/etc/kubernetes/masquerade.nft";
/// A command that takes the rule away.
pub const REMOVE_MASQUERADE: &str = "nft delete table ip podwire";

/// The bridge plugin with host-local addresses from `range`. Without the plugin's own masquerading,
/// which would hide Pods from Pods on other nodes.
pub fn bridge(range: Ipv4Net) -> String {
    bridge_with(json!({ "type": "host-local", "subnet": range.to_string() }))
}

/// The same where each Pod has an address of either family: of the first range, and of the second.
pub fn dual_stack_bridge(first: Ipv4Net, second: Ipv6Net) -> String {
    let ranges = json!([[{ "subnet": first.to_string() }], [{ "subnet": second.to_string() }]]);
    bridge_with(json!({ "type": "host-local", "ranges": ranges }))
}

fn bridge_with(ipam: Value) -> String {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "kube",
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": ipam,
    });
    format!("{config:#}\n")
}

/// What kube-router begins with: the bridge of its published DaemonSet (daemonset/kubeadm-kuberouter.yaml of
/// v2.1.0), without a range. It adds the one that its Node has.
pub fn kube_router() -> String {
    let config = json!({
        "cniVersion": "0.3.0",
        "name": "mynet",
        "type": "bridge",
        "bridge": "kube-bridge",
        "isDefaultGateway": true,
        "ipam": { "type": "host-local" },
    });
    format!("{config:#}\n")
}

/// Pods leave for the outside under their node's address; within the cluster and its segments they
/// keep their own. The same on every node of a layout; loading it again replaces it.
pub fn masquerade(layout: Layout) -> String {
    let more = match layout {
        Layout::Flat | Layout::SecondCard | Layout::ControlPlanes => String::new(),
        Layout::Routed => format!(", {SECOND_SEGMENT}"),
    };
    format!(
        "\
table ip podwire
delete table ip podwire
table ip podwire {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {PODS} ip daddr != {{ {PODS}, {SERVICES}, {SEGMENT}{more} }} masquerade
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::addresses::pod_range;
    use crate::plan::ip_families::pod_range_v6;

    #[test]
    fn pods_are_hidden_from_the_outside_only() {
        insta::assert_snapshot!(bridge(pod_range(2)), @r#"
        {
          "bridge": "cni0",
          "cniVersion": "1.0.0",
          "hairpinMode": true,
          "ipMasq": false,
          "ipam": {
            "subnet": "10.1.2.0/24",
            "type": "host-local"
          },
          "isDefaultGateway": true,
          "name": "kube",
          "type": "bridge"
        }
        "#);
        let dual = dual_stack_bridge(pod_range(2), pod_range_v6(2));
        let dual: Value = serde_json::from_str(&dual).unwrap();
        insta::assert_snapshot!(dual["ipam"], @r#"{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"fd00:10:1:2::/64"}]],"type":"host-local"}"#);
        let routed = masquerade(Layout::Routed);
        assert!(
            routed.contains("172.30.0.0/24, 172.30.1.0/24 }"),
            "{routed}"
        );
        insta::assert_snapshot!(masquerade(Layout::Flat), @r"
        table ip podwire
        delete table ip podwire
        table ip podwire {
            chain postrouting {
                type nat hook postrouting priority srcnat;
                ip saddr 10.1.0.0/16 ip daddr != { 10.1.0.0/16, 10.0.0.0/24, 172.30.0.0/24 } masquerade
            }
        }
        ");
    }
}
