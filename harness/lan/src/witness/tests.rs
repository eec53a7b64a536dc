mod wire;

use etherparse::{ArpPacket, IcmpEchoHeader, Icmpv4Type, PacketBuilder, icmpv4};
use proptest::prelude::*;

use super::decode;
use super::notes::{Notes, sum};
use super::*;
use crate::framing::append;
use crate::rules::report::RuleId;
use crate::switch::Switch;
use wire::{NODE1, NODE2, NODE3, ip, mac, octets, payload};
pub(crate) use wire::{Segment, TcpOption, Wire};

/// A handshake, a request of 100 octets and a reply of 2000.
fn conversation() -> Vec<Segment> {
    let client = |seq, flags| Segment::new(seq, flags);
    let server = |seq, flags| Segment::new(seq, flags).reply();
    vec![
        client(1000, "S").at(1, 0),
        server(9000, "S").ack(1001).at(500, 1),
        client(1001, "").ack(9001).at(2, 500),
        client(1001, "").ack(9001).payload(100).at(3, 500),
        server(9001, "").ack(1101).payload(1448).at(501, 3),
        server(10449, "F").ack(1101).payload(552).at(501, 3),
        client(1101, "F").ack(11002).at(4, 501),
        server(11002, "").ack(1102).at(502, 4),
    ]
}

#[test]
fn a_conversation_is_told_by_port_time_and_facts() {
    let mut wire = Wire::new();
    for segment in conversation() {
        wire.carries(&segment);
    }
    let seen = wire.between("10.1.2.2", "10.1.1.2");
    insta::assert_snapshot!(seen, @"
    0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN
    0.005000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP SYN ACK
    0.006000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP ACK
    0.007000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP ACK, 100 octets
    0.008000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP ACK, 1448 octets
    0.009000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP FIN ACK, 552 octets
    0.010000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP FIN ACK
    0.011000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP ACK
    ");
    assert_eq!(seen.forgotten, 0);
    assert_eq!(wire.between("10.1.1.2", "10.1.2.3"), Seen::default());
    let connections = connections(&seen.frames);
    let [one] = &connections[..] else {
        panic!("{connections:?}");
    };
    assert_eq!(
        (one.client.to_string(), one.isn),
        ("10.1.1.2:40000".into(), Some(1000))
    );
    assert_eq!(one.handshake(), Some(Duration::from_millis(1)));
    assert!(one.answered());
    assert_eq!((one.repeats(), second_syns(&connections)), (vec![], vec![]));
    assert_eq!(unusual(&seen.frames), []);
}

#[test]
fn tunnels_are_looked_into() {
    let mut wire = Wire::new();
    let syn = Segment::new(1000, "S").options(&[
        TcpOption::MaximumSegmentSize(1410),
        TcpOption::SelectiveAcknowledgementPermitted,
        TcpOption::Timestamp(7, 0),
        TcpOption::Noop,
        TcpOption::WindowScale(7),
    ]);
    wire.sends(NODE1, &syn.in_vxlan());
    wire.sends(NODE1, &syn.in_ip());
    wire.sends(NODE1, &syn.clone().payload(1300).in_vxlan());
    let seen = wire.between("10.1.1.2", "10.1.2.2");
    insta::assert_snapshot!(seen, @"
    0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN (in VXLAN 1 172.30.0.11 > 172.30.0.12)
    0.005000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN (in IP in IP 172.30.0.11 > 172.30.0.12)
    0.006000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN, 1300 octets (in VXLAN 1 172.30.0.11 > 172.30.0.12)
    ");
    for frame in &seen.frames {
        let (_, tcp) = frame.tcp().unwrap();
        assert_eq!(
            (tcp.timestamps, tcp.checksum),
            (Some((7, 0)), Checksum::Right)
        );
    }
    assert_eq!(wire.between("172.30.0.11", "172.30.0.12"), Seen::default());
}

/// The longest headers that are looked into: nothing of them is cut off.
#[test]
fn tunnels_are_looked_into_by_ipv6_as_well() {
    let mut wire = Wire::new();
    let (second, third) = (Some((1002, 1003)), Some((1004, 1005)));
    let options = [
        TcpOption::Timestamp(7, 0),
        TcpOption::Noop,
        TcpOption::Noop,
        TcpOption::SelectiveAcknowledgement((1000, 1001), [second, third, None]),
    ];
    let long = Segment::new(1000, "")
        .ack(1)
        .options(&options)
        .payload(1300);
    wire.sends(
        NODE1,
        &long.in_vxlan_by_ipv6("fd00:10:1:1::2", "fd00:10:1:2::2"),
    );
    let seen = wire.between("fd00:10:1:1::2", "fd00:10:1:2::2");
    insta::assert_snapshot!(seen, @"0.004000 s node1 -> node2: [fd00:10:1:1::2]:40000 > [fd00:10:1:2::2]:80 TCP ACK, 1300 octets (in VXLAN 1 fd00:172:30::11 > fd00:172:30::12)");
    let (_, tcp) = seen.frames[0].tcp().unwrap();
    let told = (tcp.timestamps, tcp.block, tcp.checksum);
    assert_eq!(told, (Some((7, 0)), Some((1000, 1001)), Checksum::Right));
}

/// Not VXLAN, however much its port looks like it.
#[test]
fn what_only_looks_like_a_tunnel_is_a_datagram() {
    let mut wire = Wire::new();
    let mut frame = Segment::new(1000, "S").in_vxlan();
    frame[42] = 0;
    wire.sends(NODE1, &frame);
    let seen = wire.between("172.30.0.11", "172.30.0.12");
    insta::assert_snapshot!(seen, @"0.004000 s node1 -> node2: 172.30.0.11:51000 > 172.30.0.12:8472 UDP, 62 octets");
}

#[test]
fn an_error_belongs_to_what_it_is_about() {
    let mut wire = Wire::new();
    let lost = Segment::new(1000, "").ack(1).payload(1400).frame();
    wire.sends(NODE1, &lost);
    let builder = PacketBuilder::ethernet2(mac(NODE3), mac(NODE1)).ipv4(
        octets("172.30.0.13"),
        octets("10.1.1.2"),
        64,
    );
    let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    let error = builder.icmpv4(Icmpv4Type::DestinationUnreachable(header));
    let mut frame = Vec::new();
    error.write(&mut frame, &lost[14..14 + 28]).unwrap();
    wire.sends(NODE3, &frame);
    let seen = wire.between("10.1.1.2", "10.1.2.2");
    insta::assert_snapshot!(seen, @"
    0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP ACK, 1400 octets
    0.005000 s node3 -> node1: 172.30.0.13 > 10.1.1.2 ICMP fragmentation needed (MTU 1400) about TCP 10.1.1.2:40000 and 10.1.2.2:80
    ");
    assert_eq!(connections(&seen.frames)[0].frames.len(), 2);
    assert_eq!(wire.between("10.1.1.2", "172.30.0.13").frames.len(), 1);
    let told = unusual(&seen.frames);
    assert_eq!(told[0].what, What::IcmpError { kind: 3, code: 4 });
}

#[test]
fn pings_arp_and_the_rest_are_told() {
    let mut wire = Wire::new();
    let echo = IcmpEchoHeader { id: 7, seq: 1 };
    let ping = PacketBuilder::ethernet2(mac(NODE1), mac(NODE2))
        .ipv4(octets("10.1.1.2"), octets("10.1.2.2"), 64)
        .icmpv4(Icmpv4Type::EchoRequest(echo));
    let mut frame = Vec::new();
    ping.write(&mut frame, &[0; 56]).unwrap();
    wire.sends(NODE1, &frame);
    let arp = ArpPacket::new(
        etherparse::ArpHardwareId::ETHERNET,
        etherparse::EtherType::IPV4,
        etherparse::ArpOperation::REQUEST,
        &mac(NODE1),
        &octets("172.30.0.11"),
        &[0; 6],
        &octets("172.30.0.12"),
    );
    let mut frame = Vec::new();
    let arp = PacketBuilder::ethernet2(mac(NODE1), [0xff; 6]).arp(arp.unwrap());
    arp.write(&mut frame).unwrap();
    wire.sends(NODE1, &frame);
    wire.sends(
        NODE1,
        &[&mac(9)[..], &mac(NODE1), &[0x88, 0xb5], &[0; 46]].concat(),
    );
    wire.sends(
        NODE1,
        &[&mac(NODE1)[..], &mac(NODE1), &[0x88, 0xb5], &[0; 46]].concat(),
    );
    wire.sends(NODE1, &[1, 2, 3]);
    let frames = wire.all();
    insta::assert_snapshot!(Seen { frames, forgotten: 3 }, @"
    0.004000 s node1 -> node2: 10.1.1.2 > 10.1.2.2 ICMP echo request
    0.005000 s node1 -> gateway, node2, node3: ARP: 172.30.0.11 asks who has 172.30.0.12
    0.006000 s node1 -> everybody (gateway, node2, node3): EtherType 0x88b5
    0.007000 s node1 -> nowhere: EtherType 0x88b5
    0.008000 s node1 -> nowhere: a frame without a header
    3 older frames are forgotten; some that belong here may be among them
    ");
}

#[test]
fn what_a_port_did_not_get_is_told_with_why() {
    let mut wire = Wire::new();
    let segment = Segment::new(1000, "").ack(1).payload(1400);
    let cuts = wire.cut(NODE2);
    wire.carries(&segment);
    wire.carries(&segment.clone().reply());
    wire.heal(cuts);
    wire.switch.detach(NODE2);
    wire.carries(&segment);
    wire.switch.attach(NODE2);
    wire.sends(
        NODE2,
        &[&[0xff; 6][..], &mac(NODE2), &[0x88, 0xb5]].concat(),
    );
    // The queue holds 64 KiB.
    let mut batch = Vec::new();
    (0..50).for_each(|_| append(&mut batch, &segment.frame()));
    wire.switch.ingress(NODE1, &batch, wire.now).unwrap();
    let seen = wire.between("10.1.1.2", "10.1.2.2").frames;
    let of = |why: Lost| {
        seen.iter()
            .filter(|it| it.lost.iter().any(|lost| lost.1 == why))
            .count()
    };
    let given = seen
        .iter()
        .filter(|it| it.lost.is_empty() && it.to.len() == 1)
        .count();
    assert_eq!((of(Lost::Rule), of(Lost::Detached)), (2, 1));
    assert_eq!(of(Lost::QueueFull) + given, 50);
    assert!((1..50).contains(&given), "{given}");
    let dropped = wire.switch.counters()[NODE2].dropped;
    assert_eq!(dropped.queue_full as usize, of(Lost::QueueFull));
    // The first ones got through.
    assert!(seen[3..3 + given].iter().all(|it| it.lost.is_empty()));
    insta::assert_snapshot!(seen[2], @"0.006000 s node1 -> everybody (gateway, node3) (lost at node2: no machine was there): 10.1.1.2:40000 > 10.1.2.2:80 TCP ACK, 1400 octets");
    let told: Vec<What> = unusual(&seen).into_iter().map(|it| it.what).collect();
    assert!(told.contains(&What::Lost(Lost::QueueFull)), "{told:?}");
}

#[test]
fn what_is_forgotten_is_said() {
    let mut wire = Wire::remembering(10);
    for segment in conversation() {
        wire.carries(&segment);
    }
    assert_eq!(wire.between("10.1.1.2", "10.1.2.2").forgotten, 0);
    for segment in conversation() {
        wire.carries(&segment);
    }
    let seen = wire.between("10.1.1.2", "10.1.2.2");
    assert_eq!((seen.frames.len(), seen.forgotten), (10, 6));
    assert!(seen.to_string().contains("6 older frames are forgotten"));
    let now = wire.witness.now();
    let none = wire.witness.between(ip("10.1.1.2"), ip("10.1.2.2"), now);
    assert_eq!(none, Seen::default());
}

#[test]
fn of_several_segments_each_frame_says_on_which_it_was() {
    let mut wire = Wire::new();
    let mut switch = Switch::new(64 * 1024, false, None).with_segments(2);
    switch.watch();
    for (segment, name) in [(0, "node1"), (0, "router-1"), (1, "router-2"), (1, "node2")] {
        let port = switch.port_on(segment, name);
        switch.attach(port);
    }
    wire.switch = switch;
    wire.witness = Witness::with_capacity(100);
    wire.since = Moment::default();
    let hello = [&[0xff; 6][..], &[2; 6], &[0x88, 0xb5], &[0; 46]].concat();
    for port in [0, 3] {
        wire.sends(port, &hello);
    }
    let seen: Vec<String> = wire.all().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(seen.join("\n"), @r"
    0.004000 s [segment 1] node1 -> router-1: EtherType 0x88b5
    0.005000 s [segment 2] node2 -> router-2: EtherType 0x88b5
    ");
}

/// A ring that was full before anybody asked leaves no hole in what is remembered.
#[test]
fn a_full_ring_makes_everything_older_forgotten() {
    let mut witness = Witness::with_capacity(100);
    let mut notes = Notes::with_capacity(4);
    let frame = Segment::new(1000, "S").frame();
    let mut see = |count: usize, witness: &mut Witness| {
        for _ in 0..count {
            notes.saw((0, 2), &frame, Fate::To(1), AGEING);
        }
        witness.learn(notes.take(), &["a".into(), "b".into()]);
        witness.between(ip("10.1.1.2"), ip("10.1.2.2"), Moment::default())
    };
    assert_eq!(see(3, &mut witness).frames.len(), 3);
    assert_eq!(see(2, &mut witness).frames.len(), 5);
    let seen = see(6, &mut witness);
    let numbers: Vec<u64> = seen.frames.iter().map(|it| it.number).collect();
    assert_eq!((numbers, seen.forgotten), (vec![7, 8, 9, 10], 7));
}

/// Linux leaves the sum of the addresses in the field when a card is to complete it.
#[test]
fn a_sum_that_a_card_was_to_complete_is_not_called_wrong() {
    let mut wire = Wire::new();
    let mut frame = Segment::new(1000, "").ack(1).payload(10).frame();
    let length = u16::try_from(frame.len() - 34).unwrap();
    let words = [&frame[26..34], &[0, 6], &length.to_be_bytes()].concat();
    let (words, _) = words.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[50..52].copy_from_slice(&folded.to_be_bytes());
    wire.sends(NODE1, &frame);
    let frames = wire.all();
    assert_eq!(frames[0].tcp().unwrap().1.checksum, Checksum::LeftToCard);
    assert_eq!(unusual(&frames), []);
}

/// What lies behind what is kept, as the switch notes it.
fn decoded(frame: &[u8]) -> (Content, Option<Tunnel>) {
    let kept = &frame[..frame.len().min(KEPT)];
    let behind = &frame[kept.len()..];
    let rest = Rest {
        octets: behind.len(),
        sum: sum(behind),
    };
    decode::frame(kept, rest)
}

proptest! {
    #[test]
    fn a_checksum_is_right_until_an_octet_changes(
        size in 0usize..3000,
        vxlan in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let segment = Segment::new(77, "").ack(1).payload(size);
        let mut frame = if vxlan { segment.in_vxlan() } else { segment.frame() };
        let checksum = |frame: &[u8]| match decoded(frame).0 {
            Content::Ip(packet) => packet.tcp().map(|tcp| tcp.checksum),
            _ => None,
        };
        prop_assert_eq!(checksum(&frame), Some(Checksum::Right));
        // Any octet of the segment but the header's length.
        let begin = if vxlan { 84 } else { 34 };
        let offset = begin + at.index(frame.len() - begin);
        prop_assume!(offset != begin + 12);
        frame[offset] ^= 1 << bit;
        prop_assert_eq!(checksum(&frame), Some(Checksum::Wrong));
    }

    #[test]
    fn no_frame_is_too_strange(
        octets in prop::collection::vec(any::<u8>(), 0..400),
        vxlan in any::<bool>(),
        from in 0usize..200,
    ) {
        let mut frame = Segment::new(77, "").ack(1).payload(9);
        frame.payload = octets.len();
        let mut frame = if vxlan { frame.in_vxlan() } else { frame.frame() };
        let from = from.min(frame.len());
        for (to, octet) in frame[from..].iter_mut().zip(&octets) {
            *to = *octet;
        }
        for end in 0..frame.len() {
            let (content, tunnel) = decoded(&frame[..end]);
            let _ = format!("{content} {tunnel:?}");
        }
        decoded(&octets);
    }

    /// The index gives what looking at every frame gives.
    #[test]
    fn an_answer_is_what_a_look_at_every_frame_gives(
        traffic in prop::collection::vec((1u8..5, 1u8..5, any::<bool>()), 1..60),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        capacity in 5usize..80,
        since in any::<prop::sample::Index>(),
    ) {
        const PODS: [&str; 5] = ["", "10.1.1.1", "10.1.1.2", "10.1.2.1", "10.1.2.2"];
        let mut wire = Wire::remembering(capacity);
        let asked: Vec<usize> = asked.iter().map(|it| it.index(traffic.len())).collect();
        for (n, (from, to, vxlan)) in traffic.iter().enumerate() {
            let mut segment = Segment::new(77, "").ack(1);
            segment.from.0 = PODS[usize::from(*from)];
            segment.to.0 = PODS[usize::from(*to)];
            let frame = if *vxlan { segment.in_vxlan() } else { segment.frame() };
            wire.sends(NODE1, &frame);
            if asked.contains(&n) {
                wire.learn();
            }
        }
        wire.learn();
        let since = Moment(4 + since.index(traffic.len()) as u64);
        let all = wire.witness.all(since);
        prop_assert!(all.frames.len() <= capacity);
        prop_assert_eq!(all.forgotten + all.frames.len() as u64, 4 + traffic.len() as u64 - since.0);
        let range: Ipv4Net = "10.1.1.0/24".parse().unwrap();
        let pair = |packet: &Packet| {
            let mut pair = [packet.source, packet.destination];
            pair.sort();
            pair
        };
        let wanted = |holds: &dyn Fn(&Packet) -> bool| {
            let frames = all.frames.iter().filter(|it| it.packet().is_some_and(holds));
            frames.cloned().collect::<Vec<_>>()
        };
        for one in &PODS[1..] {
            for other in &PODS[1..] {
                let mut ends = [ip(one), ip(other)];
                ends.sort();
                let seen = wire.witness.between(ip(one), ip(other), since);
                prop_assert_eq!(seen.frames, wanted(&|packet| pair(packet) == ends));
            }
        }
        let within = |address: &IpAddr| matches!(address, IpAddr::V4(it) if range.contains(*it));
        let touching = wire.witness.touching(&[range], since);
        prop_assert_eq!(touching.frames, wanted(&|packet| pair(packet).iter().any(within)));
    }

    /// What is told of every frame adds up to what the switch itself counts, however frames are
    /// batched, whatever is cut or gone.
    #[test]
    fn what_is_told_adds_up_to_what_is_counted(
        traffic in prop::collection::vec((0usize..4, 0u8..6, 0usize..5, 0usize..3000), 1..80),
    ) {
        let mut wire = Wire::new();
        let before = wire.switch.counters();
        let mut cuts: [Vec<RuleId>; 4] = Default::default();
        for (from, to, act, size) in traffic {
            match act {
                0 => {
                    wire.heal(std::mem::take(&mut cuts[from]));
                    if size % 2 == 0 {
                        cuts[from] = wire.cut(from);
                    }
                }
                1 if size % 2 == 0 => wire.switch.detach(from),
                1 => wire.switch.attach(from),
                _ => {
                    let to = if to == 5 { [0xff; 6] } else { mac(usize::from(to)) };
                    let mut batch = Vec::new();
                    for n in 0..act * 8 {
                        let to = if n % 7 == 6 { mac(2) } else { to };
                        let head = [&to[..], &mac(from), &[0x88, 0xb5]].concat();
                        append(&mut batch, &[&head[..], &payload(size)].concat());
                    }
                    wire.switch.ingress(from, &batch, wire.now).unwrap();
                }
            }
        }
        let frames = wire.all();
        for (port, (after, before)) in wire.switch.counters().iter().zip(before).enumerate() {
            let lost = |why| {
                let lost = frames.iter().flat_map(|it| &it.lost);
                lost.filter(|it| *it.0 == *after.name && it.1 == why).count() as u64
            };
            let to = frames.iter().filter(|it| it.to.iter().any(|it| **it == *after.name));
            let from = frames.iter().filter(|it| *it.from == *after.name);
            prop_assert_eq!(to.count() as u64, after.frames_out - before.frames_out, "{}", port);
            prop_assert_eq!(from.count() as u64, after.frames_in - before.frames_in);
            prop_assert_eq!(lost(Lost::QueueFull), after.dropped.queue_full);
            let waited = after.dropped.detached - lost(Lost::Detached);
            // What waited for a machine that left had been given to its port.
            prop_assert!(waited <= after.frames_out);
        }
    }
}
