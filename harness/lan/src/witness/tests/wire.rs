//! Frames as machines send them, and a switch that they cross.

use std::net::IpAddr;
use std::time::Duration;

pub(crate) use etherparse::TcpOptionElement as TcpOption;
use etherparse::{PacketBuilder, TcpHeader};

use crate::framing::append;
use crate::mac_table::AGEING;
use crate::rules::Mode;
use crate::rules::report::RuleId;
use crate::rules::rule::{Rule, Selector};
use crate::switch::Switch;
use crate::witness::{Moment, Seen, Sighting, Witness};

pub(crate) const NODE1: usize = 1;
pub(crate) const NODE2: usize = 2;
pub(crate) const NODE3: usize = 3;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn octets(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

pub(crate) fn mac(port: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 1, u8::try_from(port).unwrap()]
}

/// A TCP segment, on its way between two nodes.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) ports: (usize, usize),
    pub(crate) from: (&'static str, u16),
    pub(crate) to: (&'static str, u16),
    pub(crate) header: TcpHeader,
    pub(crate) payload: usize,
}

impl Segment {
    /// From a Pod of node 1 to one of node 2.
    pub(crate) fn new(seq: u32, flags: &str) -> Self {
        let mut header = TcpHeader::new(40000, 80, seq, 64240);
        header.syn = flags.contains('S');
        header.fin = flags.contains('F');
        header.rst = flags.contains('R');
        Segment {
            ports: (NODE1, NODE2),
            from: ("10.1.1.2", 40000),
            to: ("10.1.2.2", 80),
            header,
            payload: 0,
        }
    }

    pub(crate) fn reply(self) -> Self {
        Segment {
            ports: (self.ports.1, self.ports.0),
            from: self.to,
            to: self.from,
            ..self
        }
    }

    pub(crate) fn ack(mut self, ack: u32) -> Self {
        self.header.ack = true;
        self.header.acknowledgment_number = ack;
        self
    }

    pub(crate) fn payload(self, payload: usize) -> Self {
        Segment { payload, ..self }
    }

    pub(crate) fn to(self, to: &'static str, port: usize) -> Self {
        Segment {
            to: (to, self.to.1),
            ports: (self.ports.0, port),
            ..self
        }
    }

    pub(crate) fn options(mut self, options: &[TcpOption]) -> Self {
        self.header.set_options(options).unwrap();
        self
    }

    pub(crate) fn at(self, own: u32, echo: u32) -> Self {
        self.options(&[TcpOption::Timestamp(own, echo)])
    }

    pub(crate) fn packet(
        &self,
        builder: etherparse::PacketBuilderStep<etherparse::Ethernet2Header>,
    ) -> Vec<u8> {
        let mut header = self.header.clone();
        (header.source_port, header.destination_port) = (self.from.1, self.to.1);
        let builder = builder
            .ipv4(octets(self.from.0), octets(self.to.0), 63)
            .tcp_header(header);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload(self.payload)).unwrap();
        frame
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        self.packet(PacketBuilder::ethernet2(
            mac(self.ports.0),
            mac(self.ports.1),
        ))
    }

    /// In a VXLAN tunnel between the two nodes.
    pub(crate) fn in_vxlan(&self) -> Vec<u8> {
        let inner = self.packet(PacketBuilder::ethernet2([2; 6], [4; 6]));
        let header = [8, 0, 0, 0, 0, 0, 1, 0];
        let builder = PacketBuilder::ethernet2(mac(self.ports.0), mac(self.ports.1))
            .ipv4(node(self.ports.0), node(self.ports.1), 64)
            .udp(51000, 8472);
        let mut frame = Vec::new();
        builder
            .write(&mut frame, &[&header[..], &inner].concat())
            .unwrap();
        // As Linux sends it.
        frame[40..42].fill(0);
        frame
    }

    /// The same, all of it by IPv6.
    pub(crate) fn in_vxlan_by_ipv6(&self, from: &str, to: &str) -> Vec<u8> {
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let mut header = self.header.clone();
        (header.source_port, header.destination_port) = (self.from.1, self.to.1);
        let mut inner = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(v6(from), v6(to), 63);
        let builder = builder.tcp_header(header);
        builder.write(&mut inner, &payload(self.payload)).unwrap();
        let header = [8, 0, 0, 0, 0, 0, 1, 0];
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(mac(self.ports.0), mac(self.ports.1))
            .ipv6(v6("fd00:172:30::11"), v6("fd00:172:30::12"), 64)
            .udp(51000, 8472)
            .write(&mut frame, &[&header[..], &inner].concat())
            .unwrap();
        frame
    }

    pub(crate) fn in_ip(&self) -> Vec<u8> {
        let inner = self.frame().split_off(14);
        let builder = PacketBuilder::ethernet2(mac(self.ports.0), mac(self.ports.1)).ipv4(
            node(self.ports.0),
            node(self.ports.1),
            64,
        );
        let mut frame = Vec::new();
        builder
            .write(&mut frame, etherparse::ip_number::IPV4, &inner)
            .unwrap();
        frame
    }
}

pub(crate) fn node(number: usize) -> [u8; 4] {
    [172, 30, 0, 10 + u8::try_from(number).unwrap()]
}

pub(crate) fn payload(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect()
}

/// A switch whose ports know each other, and what it saw after that.
pub(crate) struct Wire {
    pub(crate) switch: Switch,
    pub(crate) witness: Witness,
    pub(crate) now: Duration,
    pub(crate) since: Moment,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::remembering(100_000)
    }

    pub(crate) fn remembering(capacity: usize) -> Self {
        let mut switch = Switch::new(64 * 1024, false, None);
        switch.watch();
        for name in ["gateway", "node1", "node2", "node3"] {
            let port = switch.port(name);
            switch.attach(port);
        }
        let mut wire = Wire {
            switch,
            witness: Witness::with_capacity(capacity),
            now: AGEING,
            since: Moment::default(),
        };
        for port in 0..4 {
            let hello = [&[0xff; 6][..], &mac(port), &[0x88, 0xb5], &[0; 46]].concat();
            wire.sends(port, &hello);
        }
        wire.learn();
        wire.since = wire.witness.now();
        wire
    }

    /// Cuts a port's cable, in both directions.
    pub(crate) fn cut(&mut self, port: usize) -> Vec<RuleId> {
        let name = self.switch.counters()[port].name.clone();
        let rule = Rule {
            selector: Selector::from(&name),
            impairment: serde_json::from_str(r#"{"cut":true}"#).unwrap(),
        };
        self.switch.set_rules(&rule.both_ways(), Mode::Add).unwrap()
    }

    pub(crate) fn heal(&mut self, rules: Vec<RuleId>) {
        for rule in rules {
            assert!(self.switch.heal(rule));
        }
    }

    pub(crate) fn sends(&mut self, port: usize, frame: &[u8]) {
        let mut batch = Vec::new();
        append(&mut batch, frame);
        self.switch.ingress(port, &batch, self.now).unwrap();
        (0..4).for_each(|port| drop(self.switch.queue(port).take()));
        self.now += Duration::from_millis(1);
    }

    pub(crate) fn carries(&mut self, segment: &Segment) {
        self.sends(segment.ports.0, &segment.frame());
    }

    pub(crate) fn pause(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    pub(crate) fn learn(&mut self) {
        let taken = self.switch.notes().unwrap().take();
        self.witness.learn(taken, &self.switch.labels());
    }

    pub(crate) fn all(&mut self) -> Vec<Sighting> {
        self.learn();
        self.witness.all(self.since).frames
    }

    pub(crate) fn between(&mut self, one: &str, other: &str) -> Seen {
        self.learn();
        self.witness.between(ip(one), ip(other), self.since)
    }
}
