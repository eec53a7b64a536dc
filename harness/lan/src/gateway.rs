//! The harness's own host on the segment, within the segment's thread.
//!
//! Frames addressed to it are answered here (ARP, ICMP echo, DHCP, DNS), given to the TCP stack, or
//! dropped and counted. It plays two hosts: the gateway, on the segment, and the outside host,
//! behind it. It is a router that forwards nothing.

mod arp;
mod dhcp;
mod dns;
mod link;
mod outside;
mod records;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpAddress, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};
use tokio::sync::{mpsc, oneshot};

use self::link::Link;
use self::outside::Server;
use self::records::Records;
pub use self::records::{
    ContactProtocol, DropReason, DroppedFlow, GatewayCounters, OutsideContact,
};
pub use self::stream::{SegmentListener, SegmentStream};
use self::tcp::{BACKLOG, Connections, Stack};
pub(crate) use self::tcp::{ConnectRequest, ListenRequest};
use crate::framing::{LENGTH, first_frame};
use crate::mailbox::{Command, Mailbox};
use crate::queue::SendQueue;
use crate::switch::Switch;
use crate::{Ipv4Net, LanError, MacAddr, NetworkPlan, SegmentPlan};

const HOP_LIMIT: u8 = 64;

/// Rounds of moving octets and sending segments before the switch gets its turn again.
const ROUNDS: usize = 8;

type SharedRecords = Arc<Mutex<Records>>;

fn lock(records: &SharedRecords) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to the gateway from outside the segment's thread. Clones share one gateway.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    subnets: Vec<Ipv4Net>,
    records: SharedRecords,
    mailbox: Mailbox,
}

impl GatewayHandle {
    /// Opens a TCP connection from the gateway to a machine. `limit` is for all of it: resolving
    /// the machine's address and its accepting.
    ///
    /// # Errors
    /// [`LanError::Refused`] if the machine resets it, [`LanError::NoRoute`] if nobody answers ARP
    /// (given up after 3 s, or `limit` if that is less), [`LanError::TimedOut`] if the machine is
    /// there and does not answer, [`LanError::NotOnSegment`], [`LanError::Stopped`].
    pub async fn connect(
        &self,
        to: SocketAddrV4,
        limit: Duration,
    ) -> Result<SegmentStream, LanError> {
        if !self.subnets.iter().any(|subnet| subnet.contains(*to.ip())) {
            return Err(LanError::NotOnSegment { address: *to.ip() });
        }
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Connect(ConnectRequest {
            to,
            limit,
            reply,
            mailbox: self.mailbox.clone(),
        }))?;
        answer.await.map_err(|_| LanError::Stopped)?
    }

    /// Accepts TCP connections to the gateway at a port, on each of its segments, as long as the listener lives.
    ///
    /// # Errors
    /// [`LanError::Listening`] when somebody listens there, [`LanError::Stopped`].
    pub async fn listen(&self, port: u16) -> Result<SegmentListener, LanError> {
        let (reply, answer) = oneshot::channel();
        let (clients, accepted) = mpsc::channel(BACKLOG);
        self.mailbox.send(Command::Listen(ListenRequest {
            port,
            clients,
            reply,
            mailbox: self.mailbox.clone(),
        }))?;
        answer.await.map_err(|_| LanError::Stopped)??;
        Ok(SegmentListener::new(accepted))
    }

    /// What reached the gateway so far.
    #[must_use]
    pub fn counters(&self) -> GatewayCounters {
        lock(&self.records).counters
    }

    /// The flows that the gateway was to forward and dropped, at most 4096, by address.
    #[must_use]
    pub fn dropped(&self) -> Vec<DroppedFlow> {
        lock(&self.records).flows()
    }

    /// Who talked to the outside host, by address.
    #[must_use]
    pub fn outside_log(&self) -> Vec<OutsideContact> {
        lock(&self.records).contacts()
    }
}

/// The gateway on all segments of a switch: one host with a leg on each. It forwards nothing from one to
/// another.
pub(crate) struct Gateways {
    legs: Vec<Leg>,
    /// Of all of them.
    records: SharedRecords,
}

struct Leg {
    /// Its port.
    port: usize,
    gateway: Gateway,
}

impl Gateways {
    /// `attach` gives the port of the leg on the segment with an index.
    pub(crate) fn new(
        plan: NetworkPlan,
        mut attach: impl FnMut(usize) -> usize,
        now: Duration,
    ) -> Self {
        let seeds = RandomState::new();
        let records = SharedRecords::default();
        let legs = plan.segments.into_iter().enumerate();
        let legs = legs.map(|(segment, plan)| Leg {
            port: attach(segment),
            gateway: Gateway {
                records: Arc::clone(&records),
                ..Gateway::new(plan, seeds.hash_one(segment), now)
            },
        });
        Gateways {
            legs: legs.collect(),
            records,
        }
    }

    pub(crate) fn handle(&self, mailbox: Mailbox) -> GatewayHandle {
        let subnets = self.legs.iter().map(|leg| leg.gateway.plan.subnet);
        GatewayHandle {
            subnets: subnets.collect(),
            records: Arc::clone(&self.records),
            mailbox,
        }
    }

    /// From the segment that the machine is on. [`GatewayHandle::connect`] has looked that there is one.
    pub(crate) fn connect(&mut self, request: ConnectRequest, now: Duration) {
        let is_beside = |leg: &&mut Leg| leg.gateway.plan.subnet.contains(*request.to.ip());
        if let Some(leg) = self.legs.iter_mut().find(is_beside) {
            leg.gateway.connect(request, now);
        }
    }

    /// On every segment.
    pub(crate) fn listen(&mut self, request: ListenRequest) {
        let ListenRequest {
            port,
            clients,
            reply,
            mailbox,
        } = request;
        let mut legs = self.legs.iter_mut();
        if legs.any(|leg| leg.gateway.connections.listens(port)) {
            let _ = reply.send(Err(LanError::Listening { port }));
            return;
        }
        for leg in &mut self.legs {
            leg.gateway.connections.listen(port, &clients, &mailbox);
        }
        let _ = reply.send(Ok(()));
    }

    pub(crate) fn nudge(&mut self) {
        for leg in &mut self.legs {
            leg.gateway.nudge();
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let deadlines = self.legs.iter().filter_map(|leg| leg.gateway.deadline());
        deadlines.min()
    }

    /// Takes what waits at the gateway's ports, and sends what it has to say.
    pub(crate) fn run(&mut self, switch: &mut Switch, now: Duration) {
        for Leg { port, gateway } in &mut self.legs {
            gateway.receive(switch.queue(*port), now);
            gateway.poll(now);
            let sent = gateway.sent();
            // The gateway's frames are as long as its own interface makes them.
            let _ = switch.ingress(*port, sent, now);
            sent.clear();
        }
    }
}

/// The gateway on one segment.
pub(crate) struct Gateway {
    plan: Arc<SegmentPlan>,
    records: SharedRecords,
    link: Link,
    stack: Stack,
    connections: Connections,
    server: Server,
    /// Something came in since the last [`Gateway::poll`].
    busy: bool,
    /// When the next poll is due all the same.
    deadline: Option<Duration>,
}

impl Gateway {
    /// `seed` is for the sequence numbers and ports of its connections, which should differ between
    /// two clones of one stage: they meet the same machines, and these may remember connections that
    /// are long gone.
    pub(crate) fn new(plan: SegmentPlan, seed: u64, now: Duration) -> Self {
        let mut link = Link::new(plan.gateway_mac);
        let stack = Stack::new(&plan, &mut link, seed, now);
        Gateway {
            connections: Connections::new(plan.gateway, seed),
            plan: Arc::new(plan),
            records: SharedRecords::default(),
            link,
            stack,
            server: Server::default(),
            busy: false,
            deadline: None,
        }
    }

    pub(crate) fn connect(&mut self, request: ConnectRequest, now: Duration) {
        self.connections.connect(request, now);
        self.busy = true;
    }

    pub(crate) fn nudge(&mut self) {
        self.busy = true;
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Framed frames for the switch; the caller empties it.
    pub(crate) fn sent(&mut self) -> &mut Vec<u8> {
        self.link.out()
    }

    /// Takes all frames that wait for the gateway.
    pub(crate) fn receive(&mut self, queue: &mut SendQueue, now: Duration) {
        if queue.is_empty() {
            return;
        }
        let bytes = queue.contiguous();
        let mut at = 0;
        while let Ok(Some(frame)) = first_frame(&bytes[at..]) {
            at += LENGTH + frame.len();
            self.receive_frame(frame, now);
        }
        queue.consume(at);
    }

    /// Lets the stack send, and moves octets between it and the streams.
    pub(crate) fn poll(&mut self, now: Duration) {
        if !self.busy && self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.busy = false;
        self.connections
            .resolve(&self.plan, &mut self.link, &mut self.stack, now);
        self.connections.pump(&mut self.stack, now);
        for _ in 0..ROUNDS {
            self.stack.poll(&mut self.link, now);
            let records = &self.records;
            let mut moved = self.connections.pump(&mut self.stack, now);
            moved |= self.server.serve(&mut self.stack, now, |client| {
                lock(records).contact(client, ContactProtocol::Tcp);
            });
            if !moved {
                break;
            }
            // Out of rounds with work left: the next poll is due at once.
            self.busy = true;
        }
        self.deadline = [
            self.stack.deadline(now),
            self.connections.deadline(),
            self.server.deadline(),
        ]
        .into_iter()
        .flatten()
        .min();
    }

    fn receive_frame(&mut self, frame: &[u8], now: Duration) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return;
        };
        let to = MacAddr(ethernet.dst_addr().0);
        if to != self.plan.gateway_mac && to != MacAddr::BROADCAST {
            return;
        }
        let from = MacAddr(ethernet.src_addr().0);
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(ethernet.payload(), now),
            EthernetProtocol::Ipv4 => self.receive_ipv4(ethernet.payload(), from, to, now),
            _ => {}
        }
    }

    fn receive_arp(&mut self, packet: &[u8], now: Duration) {
        let Some(arp) = arp::parse(packet) else {
            lock(&self.records).counters.dropped_malformed += 1;
            return;
        };
        let (address, mac) = arp.sender;
        // An ARP probe (RFC 5227) has no sender address yet.
        if self.plan.subnet.contains(address) {
            self.link.learn(address, mac, now);
            self.busy = true;
        }
        if arp.request && arp.target == self.plan.gateway {
            arp::reply(
                &mut self.link,
                self.plan.gateway,
                self.plan.gateway_mac,
                arp.sender,
            );
            lock(&self.records).counters.arp_answered += 1;
        }
    }

    fn receive_ipv4(&mut self, bytes: &[u8], from: MacAddr, to: MacAddr, now: Duration) {
        let packet = match Ipv4Packet::new_checked(bytes) {
            Ok(packet) if packet.version() == 4 && packet.verify_checksum() => packet,
            _ => {
                lock(&self.records).counters.dropped_malformed += 1;
                return;
            }
        };
        let destination = packet.dst_addr();
        let source = packet.src_addr();
        let ours = destination == self.plan.gateway || destination == self.plan.outside;
        let everybody =
            destination == Ipv4Addr::BROADCAST || destination == self.plan.subnet.broadcast();
        if !ours && !everybody {
            // What was flooded to all is not asking for a router.
            if to == self.plan.gateway_mac && !destination.is_multicast() {
                self.drop_flow(&packet);
            }
            return;
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            lock(&self.records).counters.dropped_fragments += 1;
            return;
        }
        if ours && !source.is_unspecified() && !source.is_broadcast() && !source.is_multicast() {
            self.link.learn(source, from, now);
        }
        match packet.next_header() {
            IpProtocol::Udp => self.receive_udp(&packet, bytes, from, ours),
            IpProtocol::Icmp if ours => self.receive_icmp(&packet, from),
            IpProtocol::Tcp if ours => self.receive_tcp(&packet, bytes, now),
            _ => {}
        }
    }

    fn receive_tcp(&mut self, packet: &Ipv4Packet<&[u8]>, bytes: &[u8], now: Duration) {
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let segment = match TcpPacket::new_checked(packet.payload()) {
            Ok(segment) if segment.verify_checksum(&source.into(), &destination.into()) => segment,
            _ => {
                lock(&self.records).counters.dropped_malformed += 1;
                return;
            }
        };
        lock(&self.records).counters.tcp_segments += 1;
        self.busy = true;
        if destination == self.plan.outside && Server::is_asked(&segment) {
            let client = SocketAddrV4::new(source, segment.src_port());
            let (stack, link) = (&mut self.stack, &mut self.link);
            self.server
                .accept(stack, link, destination, client, bytes, now);
        } else if destination == self.plan.gateway && self.connections.is_asked(&segment) {
            let client = SocketAddrV4::new(source, segment.src_port());
            let ends = (client, segment.dst_port());
            let (stack, link) = (&mut self.stack, &mut self.link);
            self.connections.accept(stack, link, ends, bytes, now);
        } else {
            self.link.deliver(bytes);
        }
    }

    fn receive_udp(&mut self, packet: &Ipv4Packet<&[u8]>, bytes: &[u8], from: MacAddr, ours: bool) {
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let addresses = (IpAddress::Ipv4(source), IpAddress::Ipv4(destination));
        let datagram = match UdpPacket::new_checked(packet.payload()) {
            Ok(datagram) if datagram.verify_checksum(&addresses.0, &addresses.1) => datagram,
            _ => {
                lock(&self.records).counters.dropped_malformed += 1;
                return;
            }
        };
        let payload = datagram.payload();
        if datagram.dst_port() == dhcp::SERVER && destination != self.plan.outside {
            match dhcp::answer(&self.plan, payload) {
                Some(answer) => {
                    let from = SocketAddrV4::new(self.plan.gateway, dhcp::SERVER);
                    let to = SocketAddrV4::new(answer.to, dhcp::CLIENT);
                    self.send_udp(answer.mac, from, to, &answer.payload);
                    lock(&self.records).counters.dhcp_answered += 1;
                }
                None => lock(&self.records).counters.dhcp_ignored += 1,
            }
        } else if datagram.dst_port() == dns::PORT && destination == self.plan.gateway {
            if let Some(answer) = dns::answer(&self.plan, payload) {
                let to = SocketAddrV4::new(source, datagram.src_port());
                let server = SocketAddrV4::new(destination, dns::PORT);
                self.send_udp(from, server, to, &answer);
                let mut records = lock(&self.records);
                records.counters.dns_answered += 1;
                records.contact(source, ContactProtocol::Dns);
            }
        } else if datagram.dst_port() == outside::PORT && destination == self.plan.outside {
            let to = SocketAddrV4::new(source, datagram.src_port());
            let server = SocketAddrV4::new(destination, outside::PORT);
            if let Some(answer) = outside::answer_datagram(payload, source) {
                self.send_udp(from, server, to, &answer);
                lock(&self.records).contact(source, ContactProtocol::Udp);
            }
        } else if ours {
            // The stack says that the port is unreachable.
            self.link.deliver(bytes);
            self.busy = true;
        }
    }

    fn receive_icmp(&mut self, packet: &Ipv4Packet<&[u8]>, from: MacAddr) {
        let request = match Icmpv4Packet::new_checked(packet.payload()) {
            Ok(request) if request.verify_checksum() => request,
            _ => {
                lock(&self.records).counters.dropped_malformed += 1;
                return;
            }
        };
        if request.msg_type() != Icmpv4Message::EchoRequest {
            return;
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        self.send_ipv4(
            from,
            destination,
            source,
            IpProtocol::Icmp,
            packet.payload().len(),
            |reply| {
                reply.copy_from_slice(packet.payload());
                let mut reply = Icmpv4Packet::new_unchecked(reply);
                reply.set_msg_type(Icmpv4Message::EchoReply);
                reply.fill_checksum();
            },
        );
        let mut records = lock(&self.records);
        records.counters.icmp_answered += 1;
        if destination == self.plan.outside {
            records.contact(source, ContactProtocol::Icmp);
        }
    }

    fn drop_flow(&mut self, packet: &Ipv4Packet<&[u8]>) {
        let destination = packet.dst_addr();
        let protocol = packet.next_header();
        let port = match (protocol, packet.payload()) {
            // Only the first fragment begins with ports.
            (IpProtocol::Tcp | IpProtocol::Udp, [_, _, high, low, ..])
                if packet.frag_offset() == 0 =>
            {
                Some(u16::from_be_bytes([*high, *low]))
            }
            _ => None,
        };
        let unrouted = &self.plan.unrouted;
        let reason = if unrouted.iter().any(|range| range.contains(destination)) {
            DropReason::Unrouted
        } else {
            DropReason::Elsewhere
        };
        lock(&self.records).drop_flow((
            packet.src_addr(),
            destination,
            protocol.into(),
            port,
            reason,
        ));
    }

    fn send_udp(&mut self, mac: MacAddr, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let datagram = UdpRepr {
            src_port: from.port(),
            dst_port: to.port(),
        };
        let length = datagram.header_len() + payload.len();
        self.send_ipv4(
            mac,
            *from.ip(),
            *to.ip(),
            IpProtocol::Udp,
            length,
            |bytes| {
                datagram.emit(
                    &mut UdpPacket::new_unchecked(bytes),
                    &IpAddress::Ipv4(*from.ip()),
                    &IpAddress::Ipv4(*to.ip()),
                    payload.len(),
                    |to| to.copy_from_slice(payload),
                    &ChecksumCapabilities::default(),
                );
            },
        );
    }

    fn send_ipv4(
        &mut self,
        mac: MacAddr,
        from: Ipv4Addr,
        to: Ipv4Addr,
        protocol: IpProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let header = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: protocol,
            payload_len: length,
            hop_limit: HOP_LIMIT,
        };
        let size = header.buffer_len() + length;
        self.link.send(mac, EthernetProtocol::Ipv4, size, |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            header.emit(&mut packet, &ChecksumCapabilities::default());
            fill(packet.payload_mut());
        });
    }
}
