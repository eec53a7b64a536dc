//! A node's IPv6 address on the segment, where the cluster is dual-stack: static, beside what DHCP gives it.

use super::file::{NodeFile, public};
use crate::plan::ip_families::{SEGMENT_V6, node_address_v6};

/// Changes the image's 20-segment.network (systemd.network(5), "drop-in").
const PATH: &str = "/etc/systemd/network/20-segment.network.d/ipv6.conf";

/// networkd's part of it. The default route leads to the segment alone, where no IPv6 router is: without any
/// a connection to a ClusterIP would fail before it is translated.
pub(crate) fn file(node: u32) -> NodeFile {
    let (address, prefix) = (node_address_v6(node), SEGMENT_V6.prefix_len());
    let text = format!(
        "\
[Network]
LinkLocalAddressing=ipv6
Address={address}/{prefix}

[Route]
Destination=::/0
"
    );
    public(PATH, text)
}

/// Has networkd read [`file`], and waits until the kernel has found that nobody else has the address.
pub(crate) fn take(node: u32) -> String {
    let address = node_address_v6(node);
    format!(
        "networkctl reload && \
         until ip -6 -o address show scope global -tentative | grep -q -w -F {address}; do sleep 0.2; done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_belongs_to_the_file_of_the_image() {
        let image = include_str!("../../../../images/recipes/base.toml");
        let changed = PATH.split_once(".d/").map(|(file, _)| file);
        assert!(image.contains(&format!("path = \"{}\"\n", changed.unwrap())));
        insta::assert_snapshot!(file(2).text, @r"
        [Network]
        LinkLocalAddressing=ipv6
        Address=fd00:172:30::12/64

        [Route]
        Destination=::/0
        ");
    }
}
