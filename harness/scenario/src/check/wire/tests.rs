use std::sync::Arc;
use std::time::Duration;

use podwire_cluster::addresses::{self, GATEWAY_MAC};
use podwire_lan::MacAddr;
use podwire_lan::witness::{Checksum, Content, Flow, Icmp, Packet, Tcp, Transport};

use super::*;
use crate::check::pairs::{End, Trace};
use crate::check::party::Asker;
use podwire_cluster::Family;

fn party(name: &str, node: u32, address: [u8; 4]) -> Party {
    Party::new(name, node, address[0] == 10, address)
}

fn crossing(from: &Party, to: &Party) -> Crossing {
    Crossing {
        from: from.clone(),
        to: to.clone(),
        clients: BTreeSet::from([from.ip()]),
        answered: true,
    }
}

fn a() -> Party {
    party("a", 1, [10, 1, 1, 2])
}

fn b() -> Party {
    party("b", 2, [10, 1, 2, 2])
}

/// What a frame does, and by which way.
#[derive(Clone)]
struct Sent<'a> {
    way: (&'a str, &'a str),
    from: &'a Party,
    to: &'a Party,
    tcp: Tcp,
}

const CLIENT: u16 = 40000;

fn mac(port: &str) -> MacAddr {
    mac_at(port).unwrap_or(GATEWAY_MAC)
}

impl<'a> Sent<'a> {
    fn new(way: (&'a str, &'a str), from: &'a Party, to: &'a Party) -> Self {
        Sent {
            way,
            from,
            to,
            tcp: Tcp {
                source_port: CLIENT,
                destination_port: 80,
                seq: 1000,
                ack: None,
                syn: true,
                fin: false,
                rst: false,
                payload: 0,
                timestamps: Some((1, 0)),
                block: None,
                checksum: Checksum::Right,
            },
        }
    }

    /// The answer to it, by this way.
    fn answer(&self, way: (&'a str, &'a str), payload: u32) -> Self {
        let Tcp { timestamps, .. } = self.tcp;
        Sent {
            way,
            from: self.to,
            to: self.from,
            tcp: Tcp {
                source_port: self.tcp.destination_port,
                destination_port: self.tcp.source_port,
                seq: 9000,
                ack: Some(self.tcp.end()),
                syn: payload == 0,
                payload,
                timestamps: timestamps.map(|(own, _)| (500, own)),
                ..self.tcp
            },
        }
    }

    fn again(&self, at: u32) -> Self {
        let mut again = self.clone();
        again.tcp.timestamps = Some((at, 0));
        again
    }
}

/// The frames, one each millisecond, as the switch tells of them.
fn seen(sent: &[Sent<'_>]) -> Seen {
    let frame = |(number, sent): (u64, &Sent<'_>)| Sighting {
        segment: None,
        number,
        at: Duration::from_millis(number),
        length: 74,
        from: Arc::from(sent.way.0),
        to: vec![Arc::from(sent.way.1)],
        lost: vec![],
        flooded: false,
        addresses: Some((mac(sent.way.0), mac(sent.way.1))),
        tunnel: None,
        content: Content::Ip(Packet {
            source: sent.from.ip(),
            destination: sent.to.ip(),
            id: Some(0),
            ttl: 63,
            checksum: Checksum::Right,
            transport: Transport::Tcp(sent.tcp),
        }),
    };
    Seen {
        frames: (0..).zip(sent).map(frame).collect(),
        forgotten: 0,
    }
}

fn observed<const N: usize>(crossings: [(Crossing, Seen); N]) -> Observed {
    Observed {
        layout: Layout::Flat,
        crossings: crossings.into(),
        to_gateway: vec![],
    }
}

fn judged(crossing: Crossing, seen: Seen) -> Result<(), Failure> {
    carried(&observed([(crossing, seen)]), false)
}

fn direct(from: &Party, to: &Party) -> Seen {
    let syn = Sent::new(("node1", "node2"), from, to);
    let accepts = syn.answer(("node2", "node1"), 0);
    let answers = syn.answer(("node2", "node1"), 100);
    seen(&[syn, accepts, answers])
}

#[test]
fn by_ipv6_a_request_is_judged_as_by_ipv4() {
    let by_ipv6 = |party: Party, address: &str| {
        let party = party.with_ipv6(Some(address.parse().unwrap()));
        party.by(Family::Ipv6).unwrap()
    };
    let a = by_ipv6(a(), "fd00:10:1:1::2");
    let b = by_ipv6(b(), "fd00:10:1:2::2");
    assert_eq!(judged(crossing(&a, &b), direct(&a, &b)), Ok(()));
    let detour = seen(&[Sent::new(("node1", "node3"), &a, &b)]);
    let cause = judged(crossing(&a, &b), detour).map_err(|it| it.cause);
    assert_eq!(cause, Err(Cause::WrongPath));
    let unseen = judged(crossing(&a, &b), Seen::default()).map_err(|it| it.cause);
    assert_eq!(unseen, Err(Cause::WrongPath));
}

/// The frames of a request between nodes 1 and 2 that do not share a segment, and of its answer.
fn across_the_router<'a>(from: &'a Party, to: &'a Party) -> Vec<Sent<'a>> {
    let syn = Sent::new(("node1", "router-1"), from, to);
    let onward = Sent {
        way: ("router-2", "node2"),
        ..syn.clone()
    };
    let accepts = syn.answer(("node2", "router-2"), 0);
    let back = syn.answer(("router-1", "node1"), 0);
    vec![syn, onward, accepts, back]
}

#[test]
fn between_segments_the_way_is_by_the_router_and_every_hop_of_it_is_seen() {
    let (a, b) = (a(), b());
    let judged = |sent: &[Sent<'_>]| {
        let routed = Observed {
            layout: Layout::Routed,
            ..observed([(crossing(&a, &b), seen(sent))])
        };
        carried(&routed, false).map_err(|failure| failure.cause)
    };
    let sent = across_the_router(&a, &b);
    assert_eq!(judged(&sent), Ok(()));
    let past = Sent {
        way: ("node1", "node2"),
        ..sent[0].clone()
    };
    assert_eq!(judged(&[past]), Err(Cause::WrongPath));
    let first_segment_alone = [sent[0].clone(), sent[3].clone()];
    assert_eq!(judged(&first_segment_alone), Err(Cause::WrongPath));
}

#[test]
fn a_lost_request_between_segments_is_told_with_the_hop_that_is_missing() {
    let (a, b) = (a(), b());
    let sent = across_the_router(&a, &b);
    let told = |sent: &[Sent<'_>]| last_seen(&crossing(&a, &b), &seen(sent), Layout::Routed);
    insta::assert_snapshot!(told(&sent[..1]), @"what came last was the request: 0.000000 s node1 -> router-1: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; router-1 got it, and router-2 should have sent it on to node2");
    insta::assert_snapshot!(told(&sent[..2]), @"what came last was the request: 0.001000 s router-2 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; node2 got it, where b (10.1.2.2 on node2) should have had it next");
    insta::assert_snapshot!(told(&sent[..3]), @"what came last was the answer: 0.002000 s node2 -> router-2: 10.1.2.2:80 > 10.1.1.2:40000 TCP SYN ACK; router-2 got it, and router-1 should have sent it on to node1");
}

#[test]
fn the_direct_way_is_right_in_both_directions() {
    let (a, b) = (a(), b());
    assert_eq!(judged(crossing(&a, &b), direct(&a, &b)), Ok(()));
    // A node, which a Pod behind a tunnel knows by another of its addresses.
    let node = party("node1", 1, [172, 30, 0, 11]);
    let by_tunnel = Crossing {
        clients: BTreeSet::from([[10, 1, 1, 0].into()]),
        ..crossing(&node, &b)
    };
    let tunnel = party("node1", 1, [10, 1, 1, 0]);
    assert_eq!(judged(by_tunnel, direct(&tunnel, &b)), Ok(()));
}

#[test]
fn a_detour_is_told_although_everybody_answers() {
    let (a, b) = (a(), b());
    let first = Sent::new(("node1", "node3"), &a, &b);
    let onward = Sent {
        way: ("node3", "node2"),
        ..first.clone()
    };
    let accepts = first.answer(("node2", "node1"), 0);
    let detour = seen(&[first, onward, accepts]);
    let failure = judged(crossing(&a, &b), detour).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
    insta::assert_snapshot!(failure, @"
    expected each request to cross the wire once, from its sender's node to its receiver's, and none that stays within a node; seen (wrong path): 1 of 1 took another way:
      a (10.1.1.2 on node1) -> b (10.1.2.2 on node2), which goes between node1 and node2:
        0.000000 s node1 -> node3: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN
        0.001000 s node3 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN
    ");
    insta::assert_snapshot!(failure.look, @"`ip route get 10.1.2.2` and `ip neighbour` of node1, and whose the Ethernet address is that they name: node1 52:54:00:00:01:01, node2 52:54:00:00:01:02");
    // The answer alone goes astray.
    let syn = Sent::new(("node1", "node2"), &a, &b);
    let back = syn.answer(("node2", "node3"), 0);
    let failure = judged(crossing(&a, &b), seen(&[syn, back])).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
}

#[test]
fn what_stays_within_a_node_has_no_business_on_the_wire() {
    let (a, c) = (a(), party("c", 1, [10, 1, 1, 3]));
    assert_eq!(judged(crossing(&a, &c), Seen::default()), Ok(()));
    let failure = judged(crossing(&a, &c), direct(&a, &c)).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
    insta::assert_snapshot!(failure, @"
    expected each request to cross the wire once, from its sender's node to its receiver's, and none that stays within a node; seen (wrong path): 1 of 1 took another way:
      a (10.1.1.2 on node1) -> c (10.1.1.3 on node1), which has no business on the wire:
        0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.1.3:80 TCP SYN
        0.001000 s node2 -> node1: 10.1.1.3:80 > 10.1.1.2:40000 TCP SYN ACK
        0.002000 s node2 -> node1: 10.1.1.3:80 > 10.1.1.2:40000 TCP ACK, 100 octets
    ");
}

#[test]
fn what_was_answered_was_on_the_wire_unless_it_may_be_hidden() {
    let (a, b) = (a(), b());
    let nothing = observed([(crossing(&a, &b), Seen::default())]);
    let failure = carried(&nothing, false).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
    insta::assert_snapshot!(failure, @"
    expected requests between nodes to be on the wire with the addresses that their ends see; seen (wrong path): answered, and not seen on the wire:
      a (10.1.1.2 on node1) -> b (10.1.2.2 on node2)
    ");
    assert_eq!(carried(&nothing, true), Ok(()));
    let unanswered = Crossing {
        answered: false,
        ..crossing(&a, &b)
    };
    assert_eq!(judged(unanswered, Seen::default()), Ok(()));
}

#[test]
fn a_flooded_frame_is_for_the_machine_that_it_names() {
    let (a, b) = (a(), b());
    let mut flooded = direct(&a, &b);
    let frame = &mut flooded.frames[0];
    frame.flooded = true;
    frame.to = ["gateway", "node2", "node3"].map(Arc::from).to_vec();
    assert_eq!(judged(crossing(&a, &b), flooded.clone()), Ok(()));
    flooded.frames[0].addresses = Some((mac("node1"), mac("node3")));
    let failure = judged(crossing(&a, &b), flooded).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
}

#[test]
fn an_error_about_a_request_may_come_from_anybody() {
    let (a, b) = (a(), b());
    let mut with_error = direct(&a, &b);
    let mut error = with_error.frames[0].clone();
    error.from = "node3".into();
    let about = |party: &Party, port| (party.address, port).into();
    if let Content::Ip(packet) = &mut error.content {
        packet.transport = Transport::Icmp(Icmp {
            kind: 3,
            code: 4,
            echo: None,
            mtu: Some(1400),
            about: Some(Flow::new(6, about(&a, CLIENT), about(&b, 80))),
            checksum: Checksum::Right,
        });
    }
    with_error.frames.push(error);
    assert_eq!(judged(crossing(&a, &b), with_error), Ok(()));
}

#[test]
fn a_copy_after_a_loss_fails_and_one_that_was_needless_does_not() {
    let (a, b) = (a(), b());
    let syn = Sent::new(("node1", "node2"), &a, &b);
    let copy = syn.again(1001);
    let lost = [
        syn.clone(),
        copy.clone(),
        copy.answer(("node2", "node1"), 0),
    ];
    let failure = judged(crossing(&a, &b), seen(&lost)).unwrap_err();
    assert_eq!(failure.cause, Cause::SentAgain);
    insta::assert_snapshot!(failure, @"
    expected nothing to be lost behind the wire and sent again; seen (sent again): 1 of 1 connections:
      0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; 1 ms later sent again: the first was lost behind the wire
    ");
    let late = [syn.clone(), copy, syn.answer(("node2", "node1"), 0)];
    assert_eq!(judged(crossing(&a, &b), seen(&late)), Ok(()));
}

#[test]
fn a_connection_that_is_opened_twice_fails_also_where_the_second_goes_elsewhere() {
    let (a, b, c) = (a(), b(), party("c", 3, [10, 1, 3, 2]));
    let first = Sent::new(("node1", "node2"), &a, &b);
    let other = Sent {
        way: ("node1", "node3"),
        to: &c,
        ..first.again(1001)
    };
    let both = seen(&[first, other]).frames;
    let one = |index: usize| Seen {
        frames: vec![both[index].clone()],
        forgotten: 0,
    };
    let crossings = [(crossing(&a, &b), one(0)), (crossing(&a, &c), one(1))];
    let failure = carried(&observed(crossings), false).unwrap_err();
    assert_eq!(failure.cause, Cause::SecondSyn);
    insta::assert_snapshot!(failure, @"
    expected each connection to be opened once; seen (second SYN): 1 of 2 connections:
      0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; 1 ms later a second SYN for this connection: 0.001000 s node1 -> node3: 10.1.1.2:40000 > 10.1.3.2:80 TCP SYN
    ");
}

#[test]
fn nothing_for_a_pod_goes_to_the_gateway() {
    let (a, b) = (a(), b());
    let frames = seen(&[Sent::new(("node1", "gateway"), &a, &b)]).frames;
    let between = [crossing(&a, &b)];
    assert!(strayed_to_the_gateway(&frames[0], &between));
    assert!(!strayed_to_the_gateway(&direct(&a, &b).frames[0], &between));
    let gone = party("gone", 2, [10, 1, 2, 9]);
    let late = seen(&[Sent::new(("node1", "gateway"), &a, &gone)]).frames;
    assert!(!strayed_to_the_gateway(&late[0], &between));
    let service = party("service", 0, [10, 0, 0, 42]);
    let untranslated = seen(&[Sent::new(("node1", "gateway"), &a, &service)]).frames;
    assert!(strayed_to_the_gateway(&untranslated[0], &between));
    let mut flooded = frames[0].clone();
    flooded.flooded = true;
    assert!(!strayed_to_the_gateway(&flooded, &between));
    let observed = Observed {
        to_gateway: frames,
        ..observed([(crossing(&a, &b), direct(&a, &b))])
    };
    let failure = carried(&observed, false).unwrap_err();
    assert_eq!(failure.cause, Cause::WrongPath);
    insta::assert_snapshot!(failure, @"
    expected nothing for a Pod or a Service to be sent to the gateway; seen (wrong path): 1 frames:
      0.000000 s node1 -> gateway: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN
    ");
}

#[test]
fn a_lost_request_is_told_by_how_far_it_came() {
    let (a, b, c) = (a(), b(), party("c", 1, [10, 1, 1, 3]));
    let told = |sent: &[Sent<'_>]| last_seen(&crossing(&a, &b), &seen(sent), Layout::Flat);
    let syn = Sent::new(("node1", "node2"), &a, &b);
    insta::assert_snapshot!(told(&[]), @"nothing of it was on the wire: it never left node1");
    insta::assert_snapshot!(told(std::slice::from_ref(&syn)), @"what came last was the request: 0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; node2 got it, where b (10.1.2.2 on node2) should have had it next");
    insta::assert_snapshot!(told(&[Sent { way: ("node1", "gateway"), ..syn.clone() }]), @"what came last was the request: 0.000000 s node1 -> gateway: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; it went to the gateway, which drops it: the next hop should have been node2");
    insta::assert_snapshot!(told(&[Sent { way: ("node1", "node3"), ..syn.clone() }]), @"what came last was the request: 0.000000 s node1 -> node3: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; it went to node3: the next hop should have been node2");
    let answer = syn.answer(("node2", "node1"), 0);
    insta::assert_snapshot!(told(&[syn.clone(), answer.clone()]), @"what came last was the answer: 0.001000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP SYN ACK; node1 got it, where a (10.1.1.2 on node1) should have had it next");
    let astray = Sent {
        way: ("node2", "gateway"),
        ..answer
    };
    insta::assert_snapshot!(told(&[syn.clone(), astray]), @"what came last was the answer: 0.001000 s node2 -> gateway: 10.1.2.2:80 > 10.1.1.2:40000 TCP SYN ACK; it went to the gateway, which drops it: the next hop should have been node1");
    let within = last_seen(&crossing(&a, &c), &Seen::default(), Layout::Flat);
    insta::assert_snapshot!(within, @"not on the wire, where it has no business: it was lost on node1");
    let mut cut = seen(std::slice::from_ref(&syn));
    cut.frames[0].to.clear();
    cut.frames[0].lost.push((Arc::from("node2"), Lost::Rule));
    insta::assert_snapshot!(last_seen(&crossing(&a, &b), &cut, Layout::Flat), @"what came last was the request: 0.000000 s node1 -> nowhere (lost at node2: a rule took it): 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; the switch could not give it to node2: a rule took it");
    let forgotten = Seen {
        forgotten: 3,
        ..Seen::default()
    };
    insta::assert_snapshot!(last_seen(&crossing(&a, &b), &forgotten, Layout::Flat), @"nothing of it was on the wire: it never left node1 (3 older frames are forgotten)");
}

#[test]
fn of_a_service_s_requests_those_are_told_that_nobody_answered() {
    let (a, b) = (a(), b());
    let answered = direct(&a, &b);
    let mut silent = Sent::new(("node1", "node2"), &a, &b);
    silent.tcp.source_port += 1;
    let mut both = answered.clone();
    both.frames.extend(seen(&[silent]).frames);
    assert_eq!(
        unanswered(&[(crossing(&a, &b), answered)], Layout::Flat),
        ""
    );
    insta::assert_snapshot!(unanswered(&[(crossing(&a, &b), both)], Layout::Flat), @"
    On the wire and not answered, 1 connections:
      a (10.1.1.2 on node1) -> b (10.1.2.2 on node2): what came last was the request: 0.000000 s node1 -> node2: 10.1.1.2:40001 > 10.1.2.2:80 TCP SYN; node2 got it, where b (10.1.2.2 on node2) should have had it next
    ");
}

#[test]
fn what_stood_out_between_nodes_is_told_and_the_gateway_s_is_not() {
    let (a, b) = (a(), b());
    let reset = |way| {
        let mut reset = Sent::new(way, &a, &b);
        reset.tcp.syn = false;
        reset.tcp.rst = true;
        reset
    };
    assert_eq!(stood_out(&direct(&a, &b)), None);
    let own = [reset(("gateway", "node2")), reset(("node1", "gateway"))];
    assert_eq!(stood_out(&seen(&own)), None);
    let mut told = seen(&[reset(("node1", "node2")), reset(("node1", "node2"))]);
    told.forgotten = 7;
    let found = stood_out(&told).unwrap();
    let failure = too_unusual(&found.lines);
    assert_eq!(failure.cause, Cause::Unusual);
    assert!(failure.seen.contains("TCP reset (2)"), "{failure}");
    insta::assert_snapshot!(found.lines, @"
    node1 -> node2: TCP reset (2); 0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP RST
    the first 7 frames are forgotten
    ");
    insta::assert_snapshot!(found.frames, @"
    node1 -> node2: TCP reset (2); 0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP RST
      0.000000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP RST, seq 1000
      0.001000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP RST, seq 1000
    ");
}

#[test]
fn a_mesh_and_a_service_s_answers_name_their_ends() {
    let (a, b) = (a(), b());
    let mesh = Mesh {
        cells: vec![Cell {
            from: a.clone(),
            to: b.clone(),
            outcome: Outcome::Answered,
            host: Some("b".into()),
            client: Some("10.1.1.2".into()),
            error: None,
            came: None,
        }],
        ..Mesh::default()
    };
    assert_eq!(Requests::from(&mesh).crossings, [crossing(&a, &b)]);
    let report = TargetReport {
        target: "10.0.0.42:80".into(),
        results: vec![podwire_probe::Counted {
            outcome: Outcome::Answered,
            host: Some("b".into()),
            client: Some("10.1.1.2".into()),
            count: 3,
            octets: None,
            slowest_ms: None,
            error: None,
        }],
        unsent: 0,
        attempts: vec![],
    };
    let silent = party("c", 3, [10, 1, 3, 2]);
    let pods = [b.clone(), silent.clone()];
    let requests = Requests::to_service(Moment::default(), &a, &pods, &report);
    let unanswered = Crossing {
        answered: false,
        ..crossing(&a, &silent)
    };
    assert_eq!(requests.crossings, [crossing(&a, &b), unanswered]);
}

/// A trace's hops and who had the packet last.
fn traced(trace: &Trace) -> String {
    let hops = trace.hops.iter().map(|hop| {
        let leg = if hop.answer { "answer" } else { "request" };
        let at = hop
            .at_us
            .map_or("never".to_owned(), |at| format!("at {at} us"));
        format!("{leg} {} -> {} {at}\n", hop.from, hop.to)
    });
    let hops: String = hops.collect();
    let held = trace.held_by.map(node_name).unwrap_or_default();
    format!("{hops}held by {held}, heading for {}", trace.heading)
}

#[test]
fn a_lost_request_s_way_ends_with_the_hop_that_was_never_taken() {
    let (a, b, c) = (a(), b(), party("c", 1, [10, 1, 1, 3]));
    let way = |sent: &[Sent<'_>], layout| traced(&trace(&crossing(&a, &b), &seen(sent), layout));
    let syn = Sent::new(("node1", "node2"), &a, &b);
    let to_gateway = Sent {
        way: ("node1", "gateway"),
        ..syn.clone()
    };
    insta::assert_snapshot!(way(&[], Layout::Flat), @"
    request node1 -> node2 never
    held by node1, heading for 10.1.2.2
    ");
    insta::assert_snapshot!(way(&[to_gateway], Layout::Flat), @"
    request node1 -> gateway at 0 us
    request node1 -> node2 never
    held by node1, heading for 10.1.2.2
    ");
    insta::assert_snapshot!(way(std::slice::from_ref(&syn), Layout::Flat), @"
    request node1 -> node2 at 0 us
    answer node2 -> node1 never
    held by node2, heading for 10.1.2.2
    ");
    let back = syn.answer(("node2", "gateway"), 0);
    insta::assert_snapshot!(way(&[syn.clone(), back], Layout::Flat), @"
    request node1 -> node2 at 0 us
    answer node2 -> gateway at 1000 us
    answer node2 -> node1 never
    held by node2, heading for 10.1.1.2
    ");
    let routed = across_the_router(&a, &b);
    insta::assert_snapshot!(way(&routed[..3], Layout::Routed), @"
    request node1 -> router-1 at 0 us
    request router-2 -> node2 at 1000 us
    answer node2 -> router-2 at 2000 us
    answer router-1 -> node1 never
    held by , heading for 10.1.1.2
    ");
    // A rule of the segment's own took it: no node is to be asked.
    let mut cut = seen(std::slice::from_ref(&syn));
    cut.frames[0].to.clear();
    cut.frames[0].lost.push((Arc::from("node2"), Lost::Rule));
    insta::assert_snapshot!(traced(&trace(&crossing(&a, &b), &cut, Layout::Flat)), @"
    request node1 -> node2 (lost: a rule took it) at 0 us
    request node1 -> node2 never
    held by , heading for 10.1.2.2
    ");
    // An address filter asks for the addresses of the machine behind its port.
    cut.frames[0].lost[0].1 = Lost::Filtered;
    insta::assert_snapshot!(traced(&trace(&crossing(&a, &b), &cut, Layout::Flat)), @"
    request node1 -> node2 (lost: an address filter) at 0 us
    request node1 -> node2 never
    held by node2, heading for 10.1.2.2
    ");
    let to_anybody = trace_to(&End::from(&a), ("10.1.2.2:80", b.ip()), &cut);
    assert_eq!(to_anybody.held_by, Some(2));
    cut.frames[0].lost[0].0 = Arc::from("node1");
    let of_its_own = trace(&crossing(&a, &b), &cut, Layout::Flat);
    assert_eq!(of_its_own.held_by, Some(1));
    let within = trace(&crossing(&a, &c), &Seen::default(), Layout::Flat);
    insta::assert_snapshot!(traced(&within), @"held by node1, heading for 10.1.1.3");
}

#[test]
fn a_flow_is_found_in_the_capture_by_the_addresses_that_it_has_had() {
    let (a, b, outside) = (a(), b(), party("outside", 0, [192, 0, 2, 10]));
    let by_ipv6 = |party: Party, address: &str| {
        let party = party.with_ipv6(Some(address.parse().unwrap()));
        party.by(Family::Ipv6).unwrap()
    };
    let [a6, b6] =
        [(&a, "fd00::2"), (&b, "fd00::1")].map(|(it, address)| by_ipv6(it.clone(), address));
    let syn = Sent::new(("node1", "node2"), &a, &b);
    let back = syn.answer(("node2", "node1"), 0);
    let on = Sent::new(("node1", "gateway"), &b, &outside);
    let other = Sent::new(("node1", "node2"), &a6, &b6);
    let found = |sent: &[Sent<'_>]| trace(&crossing(&a, &b), &seen(sent), Layout::Flat).filter;
    assert_eq!(found(&[]), "");
    insta::assert_snapshot!(found(&[syn, back, on, other]), @"(ip.addr == 10.1.1.2 && ip.addr == 10.1.2.2) || (ip.addr == 10.1.2.2 && ip.addr == 192.0.2.10) || (ipv6.addr == fd00::1 && ipv6.addr == fd00::2)");
}

#[test]
fn of_a_service_whose_packets_nobody_translates_the_way_is_that_of_its_own_address() {
    let a = a();
    let service = party("service", 0, [10, 0, 0, 42]);
    let syn = Sent::new(("node1", "gateway"), &a, &service);
    let seen = seen(&[syn.clone(), syn.again(2)]);
    let to = ("10.0.0.42:80", service.ip());
    let lost = trace_to(&End::from(&a), to, &seen);
    insta::assert_snapshot!(traced(&lost), @"
    request node1 -> gateway at 0 us
    held by node1, heading for 10.0.0.42
    ");
    insta::assert_snapshot!(lost, @"what came last: 0.001000 s node1 -> gateway: 10.1.1.2:40000 > 10.0.0.42:80 TCP SYN; it went to the gateway, which drops it");
    let nothing = trace_to(&End::from(&a), to, &Seen::default());
    insta::assert_snapshot!(nothing, @"nothing to 10.0.0.42 was on the wire under that address: it never left node1, or was translated there");
}

#[test]
fn what_goes_outside_may_get_lost_on_its_node_before_and_behind_the_wire() {
    let a = a();
    let outside = party("outside", 0, addresses::OUTSIDE.octets());
    let way = |sent: &[Sent<'_>]| {
        let lost = trace_to(&End::from(&a), ("192.0.2.10:80", outside.ip()), &seen(sent));
        format!("{}\n{}", traced(&lost), lost.ended)
    };
    let syn = Sent::new(("node1", "gateway"), &a, &outside);
    insta::assert_snapshot!(way(&[]), @"
    held by node1, heading for 192.0.2.10
    nothing to 192.0.2.10 was on the wire under that address: it never left node1, or was translated there
    ");
    insta::assert_snapshot!(way(std::slice::from_ref(&syn)), @"
    request node1 -> gateway at 0 us
    held by , heading for 192.0.2.10
    what came last: 0.000000 s node1 -> gateway: 10.1.1.2:40000 > 192.0.2.10:80 TCP SYN
    ");
    let back = syn.answer(("gateway", "node1"), 0);
    insta::assert_snapshot!(way(&[syn, back]), @"
    request node1 -> gateway at 0 us
    answer gateway -> node1 at 1000 us
    held by node1, heading for 10.1.1.2
    what came last: 0.001000 s gateway -> node1: 192.0.2.10:80 > 10.1.1.2:40000 TCP SYN ACK
    ");
}

#[test]
fn who_asks_a_node_from_outside_is_traced_to_the_pod_behind_it() {
    let node1 = party("node1", 1, [172, 30, 0, 11]);
    let node2 = party("node2", 2, [172, 30, 0, 12]);
    let (asker, b) = (party("outside", 0, addresses::GATEWAY.octets()), b());
    let way = |from: &Asker, sent: &[Sent<'_>]| {
        let lost = trace_to(&from.end(), ("172.30.0.11:30080", node1.ip()), &seen(sent));
        format!("{}\n{}", traced(&lost), lost.ended)
    };
    insta::assert_snapshot!(way(&Asker::Outside, &[]), @"
    held by , heading for 172.30.0.11
    nothing to 172.30.0.11 was on the wire
    ");
    let syn = Sent::new(("gateway", "node1"), &asker, &node1);
    insta::assert_snapshot!(way(&Asker::Outside, std::slice::from_ref(&syn)), @"
    request gateway -> node1 at 0 us
    held by node1, heading for 172.30.0.11
    what came last: 0.000000 s gateway -> node1: 172.30.0.1:40000 > 172.30.0.11:80 TCP SYN
    ");
    // As a client of the node itself, which the policy Cluster has it be.
    let on = Sent::new(("node1", "node2"), &node1, &b);
    let both = [syn.clone(), on.clone()];
    insta::assert_snapshot!(way(&Asker::Outside, &both), @"
    request gateway -> node1 at 0 us
    request node1 -> node2 at 1000 us
    held by node2, heading for 10.1.2.2
    what came last: 0.001000 s node1 -> node2: 172.30.0.11:40000 > 10.1.2.2:80 TCP SYN
    ");
    let back = on.answer(("node2", "node1"), 0);
    insta::assert_snapshot!(way(&Asker::Outside, &[syn, on, back]), @"
    request gateway -> node1 at 0 us
    request node1 -> node2 at 1000 us
    answer node2 -> node1 at 2000 us
    held by node1, heading for 172.30.0.11
    what came last: 0.002000 s node2 -> node1: 10.1.2.2:80 > 172.30.0.11:40000 TCP SYN ACK
    ");
    let from_node = Sent::new(("node2", "node1"), &node2, &node1);
    insta::assert_snapshot!(way(&Asker::from(&node2), &[from_node]), @"
    request node2 -> node1 at 0 us
    held by node1, heading for 172.30.0.11
    what came last: 0.000000 s node2 -> node1: 172.30.0.12:40000 > 172.30.0.11:80 TCP SYN
    ");
}

#[test]
fn of_connections_behind_a_port_those_are_traced_that_nobody_answered() {
    let (a, b) = (a(), b());
    let syn = Sent::new(("node1", "node2"), &a, &b);
    assert_eq!(unanswered_connections(&seen(&[syn])).len(), 1);
    assert_eq!(unanswered_connections(&direct(&a, &b)), []);
}

#[test]
fn the_first_connection_that_nobody_answered_is_the_one_that_is_traced() {
    let (a, b) = (a(), b());
    let answered = direct(&a, &b);
    assert_eq!(
        first_unanswered(&[(crossing(&a, &b), answered.clone())], Layout::Flat),
        None
    );
    let mut silent = Sent::new(("node1", "node2"), &a, &b);
    silent.tcp.source_port += 1;
    let mut both = answered;
    both.frames.extend(seen(&[silent]).frames);
    let lost = first_unanswered(&[(crossing(&a, &b), both)], Layout::Flat).unwrap();
    assert_eq!((lost.frames.len(), lost.left_out), (1, 0));
    assert_eq!(lost.frames[0].what, "10.1.1.2:40001 > 10.1.2.2:80 TCP SYN");
}
