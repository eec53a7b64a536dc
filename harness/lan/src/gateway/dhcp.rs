//! DHCP (RFC 2131) with fixed addresses: a machine gets what the plan gives its MAC address, for
//! ever. Leases do not run out because a frozen cluster's clock stands still.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
};

use super::link::MTU;
use crate::{MacAddr, SegmentPlan};

pub(super) const SERVER: u16 = DHCP_SERVER_PORT;
pub(super) const CLIENT: u16 = DHCP_CLIENT_PORT;

/// RFC 2132 sections 3.14, 5.1 and 9.14.
const HOST_NAME: u8 = 12;
const INTERFACE_MTU: u8 = 26;
const CLIENT_IDENTIFIER: u8 = 61;

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
    }
    // RFC 6842: the client's identifier is given back.
    options.extend(
        packet
            .options()
            .filter(|option| option.kind == CLIENT_IDENTIFIER),
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
        router: granted.then_some(plan.gateway),
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
