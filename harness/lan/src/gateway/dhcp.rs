//! DHCP (RFC 2131) with fixed addresses: a machine gets what the plan gives its MAC address, for
//! ever. Leases do not run out because a frozen cluster's clock stands still.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
};

use super::link::MTU;
use crate::{MacAddr, Route, SegmentPlan};

pub(super) const SERVER: u16 = DHCP_SERVER_PORT;
pub(super) const CLIENT: u16 = DHCP_CLIENT_PORT;

/// RFC 2132 sections 3.14, 5.1 and 9.14; RFC 3442.
const HOST_NAME: u8 = 12;
const INTERFACE_MTU: u8 = 26;
const CLIENT_IDENTIFIER: u8 = 61;
const CLASSLESS_ROUTES: u8 = 121;

/// RFC 2131 section 3.3: the lease never ends.
const FOR_EVER: u32 = u32::MAX;

/// A message for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) mac: MacAddr,
    /// Where IP sends it: the address given, or everybody for a client that asked for that and for
    /// a refusal.
    pub(super) to: Ipv4Addr,
    pub(super) payload: Vec<u8>,
}

/// The answer to a client's message; none for a machine without a lease, for a message to another
/// server, and for one that needs none.
pub(super) fn answer(plan: &SegmentPlan, payload: &[u8]) -> Option<Answer> {
    let packet = DhcpPacket::new_checked(payload).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let mac = MacAddr(asked.client_hardware_address.0);
    let lease = plan.leases.iter().find(|lease| lease.mac == mac)?;
    if asked
        .server_identifier
        .is_some_and(|server| server != plan.gateway)
    {
        return None;
    }
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            // While a client selects, the address is an option; when it renews, it is its own.
            let wanted = asked.requested_ip.unwrap_or(asked.client_ip);
            if wanted == lease.address {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            }
        }
        _ => return None,
    };
    let granted = message_type != DhcpMessageType::Nak;
    let mtu = u16::try_from(MTU).unwrap_or(u16::MAX).to_be_bytes();
    let router = plan.default_router(lease.address);
    let routes = classless_routes(plan, lease.address);
    let mut options = Vec::new();
    if granted {
        options.push(DhcpOption {
            kind: HOST_NAME,
            data: lease.host_name.as_bytes(),
        });
        options.push(DhcpOption {
            kind: INTERFACE_MTU,
            data: &mtu,
        });
        if !routes.is_empty() {
            options.push(DhcpOption {
                kind: CLASSLESS_ROUTES,
                data: &routes,
            });
        }
    }
    // RFC 6842: the client's identifier is given back. It has one; a message full of them would be
    // answered with more than a packet holds.
    options.extend(
        packet
            .options()
            .find(|option| option.kind == CLIENT_IDENTIFIER),
    );
    let reply = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if granted {
            asked.client_ip
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        your_ip: if granted {
            lease.address
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: router.filter(|_| granted),
        subnet_mask: granted.then(|| plan.subnet.mask()),
        relay_agent_ip: asked.relay_agent_ip,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(plan.gateway),
        parameter_request_list: None,
        dns_servers: granted.then(|| [plan.gateway].into_iter().collect()),
        max_size: None,
        lease_duration: granted.then_some(FOR_EVER),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let mut payload = vec![0; reply.buffer_len()];
    reply
        .emit(&mut DhcpPacket::new_unchecked(payload.as_mut_slice()))
        .ok()?;
    Some(Answer {
        mac,
        to: if asked.broadcast || !granted {
            Ipv4Addr::BROADCAST
        } else {
            lease.address
        },
        payload,
    })
}

/// RFC 3442: for each route the prefix, the octets of the destination that it covers, and the router. A
/// client that is given some looks at no other option for its default router, so that is among them.
fn classless_routes(plan: &SegmentPlan, of: Ipv4Addr) -> Vec<u8> {
    let mut octets = Vec::new();
    for Route { to, via } in plan.routes_of(of) {
        let significant = usize::from(to.prefix).div_ceil(8);
        octets.push(to.prefix);
        octets.extend(to.address.octets().iter().take(significant));
        octets.extend(via.octets());
    }
    if let (false, Some(router)) = (octets.is_empty(), plan.default_router(of)) {
        octets.push(0);
        octets.extend(router.octets());
    }
    octets
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use smoltcp::wire::EthernetAddress;

    use super::*;
    use crate::plan::{example, routed_example};

    fn message<'a>(message_type: DhcpMessageType, mac: MacAddr) -> DhcpRepr<'a> {
        DhcpRepr {
            message_type,
            transaction_id: 0x1234_5678,
            secs: 3,
            client_hardware_address: EthernetAddress(mac.0),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: Some(&[1, 3, 6, 12]),
            dns_servers: None,
            max_size: Some(1472),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    fn ask(message: &DhcpRepr<'_>) -> Option<Answer> {
        ask_of(&example(), message)
    }

    fn ask_of(plan: &SegmentPlan, message: &DhcpRepr<'_>) -> Option<Answer> {
        let mut payload = vec![0; message.buffer_len()];
        message
            .emit(&mut DhcpPacket::new_unchecked(payload.as_mut_slice()))
            .unwrap();
        answer(plan, &payload)
    }

    /// An answer in words.
    fn text(answer: Option<Answer>) -> String {
        let Some(answer) = answer else {
            return "nothing".to_owned();
        };
        let packet = DhcpPacket::new_checked(&answer.payload[..]).unwrap();
        let reply = DhcpRepr::parse(&packet).unwrap();
        let mut text = format!(
            "{:?} {:x} to {} at {}, address {}\n",
            reply.message_type, reply.transaction_id, answer.to, answer.mac, reply.your_ip
        );
        for option in packet.options() {
            writeln!(text, "{}: {:?}", option.kind, option.data).unwrap();
        }
        text
    }

    fn node2() -> MacAddr {
        example().leases[1].mac
    }

    #[test]
    fn a_known_machine_is_offered_its_address_and_all_that_goes_with_it() {
        insta::assert_snapshot!(text(ask(&message(DhcpMessageType::Discover, node2()))), @r"
        Offer 12345678 to 172.30.0.12 at 52:54:00:00:01:02, address 172.30.0.12
        53: [2]
        54: [172, 30, 0, 1]
        3: [172, 30, 0, 1]
        1: [255, 255, 255, 0]
        51: [255, 255, 255, 255]
        6: [172, 30, 0, 1]
        12: [110, 111, 100, 101, 50]
        26: [5, 220]
        ");
    }

    #[test]
    fn a_request_is_acknowledged_with_the_clients_identifier() {
        let mut request = message(DhcpMessageType::Request, node2());
        request.requested_ip = Some(Ipv4Addr::new(172, 30, 0, 12));
        request.server_identifier = Some(Ipv4Addr::new(172, 30, 0, 1));
        request.broadcast = true;
        let identifier = [255, 1, 2, 3, 4, 0, 2, 0, 0, 171, 17];
        let options = [DhcpOption {
            kind: CLIENT_IDENTIFIER,
            data: &identifier,
        }];
        request.additional_options = &options;
        insta::assert_snapshot!(text(ask(&request)), @r"
        Ack 12345678 to 255.255.255.255 at 52:54:00:00:01:02, address 172.30.0.12
        53: [5]
        54: [172, 30, 0, 1]
        3: [172, 30, 0, 1]
        1: [255, 255, 255, 0]
        51: [255, 255, 255, 255]
        6: [172, 30, 0, 1]
        12: [110, 111, 100, 101, 50]
        26: [5, 220]
        61: [255, 1, 2, 3, 4, 0, 2, 0, 0, 171, 17]
        ");
    }

    /// The default router (3) and the routes (121) that a machine is given.
    fn routes(plan: &SegmentPlan, mac: MacAddr) -> String {
        let answer = ask_of(plan, &message(DhcpMessageType::Discover, mac));
        let said = text(answer);
        let lines = said.lines();
        let lines = lines.filter(|it| it.starts_with("3: ") || it.starts_with("121: "));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn routes_come_with_the_lease_and_the_router_is_given_none_by_itself() {
        let [first, second] = &routed_example().segments[..] else {
            panic!("two segments");
        };
        let (node1, node4) = (first.leases[0].mac, second.leases[0].mac);
        let [router1, router2] = [first, second].map(|it| it.leases[3].mac);
        // Also its default router, which it would not look for elsewhere.
        insta::assert_snapshot!(routes(first, node1), @"3: [172, 30, 0, 1]; 121: [24, 172, 30, 1, 172, 30, 0, 2, 0, 172, 30, 0, 1]");
        insta::assert_snapshot!(routes(first, router1), @"3: [172, 30, 0, 1]");
        insta::assert_snapshot!(routes(second, node4), @"3: [172, 30, 1, 2]");
        insta::assert_snapshot!(routes(second, router2), @"");
        let apart = SegmentPlan {
            is_apart: true,
            ..example()
        };
        insta::assert_snapshot!(routes(&apart, node2()), @"");
    }

    #[test]
    fn a_renewal_names_the_address_as_its_own() {
        let mut request = message(DhcpMessageType::Request, node2());
        request.client_ip = Ipv4Addr::new(172, 30, 0, 12);
        let text = text(ask(&request));
        assert!(text.starts_with("Ack "), "{text}");
    }

    #[test]
    fn a_request_for_another_address_is_refused_to_everybody() {
        let mut request = message(DhcpMessageType::Request, node2());
        request.requested_ip = Some(Ipv4Addr::new(172, 30, 0, 13));
        insta::assert_snapshot!(text(ask(&request)), @r"
        Nak 12345678 to 255.255.255.255 at 52:54:00:00:01:02, address 0.0.0.0
        53: [6]
        54: [172, 30, 0, 1]
        ");
    }

    #[test]
    fn strangers_and_what_is_meant_for_others_get_nothing() {
        let stranger = MacAddr([0x52, 0x54, 0, 0, 1, 9]);
        assert_eq!(ask(&message(DhcpMessageType::Discover, stranger)), None);
        assert_eq!(ask(&message(DhcpMessageType::Release, node2())), None);
        let mut elsewhere = message(DhcpMessageType::Request, node2());
        elsewhere.server_identifier = Some(Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(ask(&elsewhere), None);
        assert_eq!(answer(&example(), &[1; 100]), None);
    }
}
