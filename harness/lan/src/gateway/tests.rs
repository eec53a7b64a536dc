//! The gateway without a switch: a frame in, frames out.

use proptest::prelude::*;
use smoltcp::wire::{Icmpv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::framing::append;
use crate::mac_table::AGEING;
use crate::plan::example;

const NODE1: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 1]);
const NODE1_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 7);
const NOW: Duration = AGEING;

fn gateway() -> Gateway {
    Gateway::new(example(), 1, NOW)
}

/// What the gateway sends in answer to a frame.
fn answers(gateway: &mut Gateway, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut framed = Vec::new();
    append(&mut framed, frame);
    let mut queue = SendQueue::new(1 << 20);
    queue.push(&framed, 1);
    gateway.receive(&mut queue, NOW);
    gateway.poll(NOW);
    let mut out = SendQueue::new(1 << 20);
    out.push(gateway.sent(), 0);
    gateway.sent().clear();
    out.take()
}

/// A frame from node 1 to the gateway's MAC address, built with the gateway's own codecs.
fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut packet = vec![0; 20 + length];
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: protocol,
        payload_len: length,
        hop_limit: 64,
    };
    let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
    header.emit(&mut view, &ChecksumCapabilities::default());
    fill(view.payload_mut());
    let to = example().gateway_mac;
    [&to.0[..], &NODE1.0, &[0x08, 0x00], &packet].concat()
}

fn echo(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let request = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 1,
        data: b"are you there",
    };
    ipv4(
        source,
        destination,
        IpProtocol::Icmp,
        request.buffer_len(),
        |bytes| {
            request.emit(
                &mut Icmpv4Packet::new_unchecked(bytes),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let datagram = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let length = datagram.header_len() + payload.len();
    ipv4(from.0, to.0, IpProtocol::Udp, length, |bytes| {
        datagram.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &from.0.into(),
            &to.0.into(),
            payload.len(),
            |to| to.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

fn syn(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    segment(source, destination, port, TcpControl::Syn, (1, None), b"")
}

/// A TCP segment from port 40000, with its sequence and acknowledgment numbers.
fn segment(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    control: TcpControl,
    (seq, ack): (i32, Option<TcpSeqNumber>),
    payload: &[u8],
) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: 40000,
        dst_port: port,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack,
        window_len: 1000,
        window_scale: (control == TcpControl::Syn).then_some(7),
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    ipv4(
        source,
        destination,
        IpProtocol::Tcp,
        segment.buffer_len(),
        |bytes| {
            segment.emit(
                &mut TcpPacket::new_unchecked(bytes),
                &source.into(),
                &destination.into(),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

/// Asks the outside host over HTTP; gives what it answered, or nothing.
fn ask(gateway: &mut Gateway, client: Ipv4Addr) -> String {
    let outside = example().outside;
    let answered = answers(gateway, &syn(client, outside, 80));
    let Some(accepted) = answered.first() else {
        return String::new();
    };
    let theirs = TcpPacket::new_checked(&accepted[34..])
        .unwrap()
        .seq_number();
    let numbers = (2, Some(theirs + 1));
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let request = segment(client, outside, 80, TcpControl::Psh, numbers, request);
    let answered = answers(gateway, &request).concat();
    let text = String::from_utf8_lossy(&answered);
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    body.lines().next().unwrap_or_default().to_owned()
}

/// A frame's addresses and what it carries.
fn describe(frame: &[u8]) -> String {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let to = MacAddr(ethernet.dst_addr().0);
    if ethernet.ethertype() == EthernetProtocol::Arp {
        let arp = arp::parse(ethernet.payload()).unwrap();
        let kind = if arp.request { "request" } else { "reply" };
        return format!(
            "to {to}: ARP {kind}, {} is at {}, for {}",
            arp.sender.0, arp.sender.1, arp.target
        );
    }
    let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(packet.verify_checksum());
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let what = match packet.next_header() {
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
            assert!(icmp.verify_checksum());
            format!("{} {}", icmp.msg_type(), icmp.msg_code())
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
            assert!(tcp.verify_checksum(&source.into(), &destination.into()));
            let flags = [(tcp.syn(), "SYN"), (tcp.ack(), "ACK"), (tcp.rst(), "RST")];
            flags
                .iter()
                .filter(|flag| flag.0)
                .map(|flag| flag.1)
                .collect::<Vec<_>>()
                .join(" ")
        }
        other => other.to_string(),
    };
    format!("to {to}: {source} -> {destination} {what}")
}

fn described(gateway: &mut Gateway, frame: &[u8]) -> String {
    let answers: Vec<_> = answers(gateway, frame)
        .iter()
        .map(|frame| describe(frame))
        .collect();
    answers.join("\n")
}

fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut link = Link::new(NODE1);
    arp::request(&mut link, sender, NODE1, target);
    link.out()[LENGTH..].to_vec()
}

#[test]
fn arp_is_answered_for_the_gateway_alone() {
    let mut gateway = gateway();
    let plan = example();
    insta::assert_snapshot!(described(&mut gateway, &arp_request(NODE1_ADDRESS, plan.gateway)), @"to 52:54:00:00:01:01: ARP reply, 172.30.0.1 is at 52:54:00:00:00:01, for 172.30.0.11");
    insta::assert_snapshot!(described(&mut gateway, &arp_request(Ipv4Addr::UNSPECIFIED, plan.gateway)), @"to 52:54:00:00:01:01: ARP reply, 172.30.0.1 is at 52:54:00:00:00:01, for 0.0.0.0");
    insta::assert_snapshot!(described(&mut gateway, &arp_request(NODE1_ADDRESS, Ipv4Addr::new(172, 30, 0, 12))), @"");
    insta::assert_snapshot!(described(&mut gateway, &arp_request(NODE1_ADDRESS, plan.outside)), @"");
    assert_eq!(lock(&gateway.records).counters.arp_answered, 2);
}

#[test]
fn echo_requests_are_answered_and_the_outside_host_logs_who_asked() {
    let mut gateway = gateway();
    let plan = example();
    insta::assert_snapshot!(described(&mut gateway, &echo(NODE1_ADDRESS, plan.gateway)), @"to 52:54:00:00:01:01: 172.30.0.1 -> 172.30.0.11 echo reply 0");
    insta::assert_snapshot!(described(&mut gateway, &echo(NODE1_ADDRESS, plan.outside)), @"to 52:54:00:00:01:01: 192.0.2.10 -> 172.30.0.11 echo reply 0");
    insta::assert_snapshot!(described(&mut gateway, &echo(POD, plan.outside)), @"to 52:54:00:00:01:01: 192.0.2.10 -> 10.1.1.7 echo reply 0");
    let records = lock(&gateway.records);
    assert_eq!(records.counters.icmp_answered, 3);
    insta::assert_snapshot!(serde_json::to_string(&records.contacts()).unwrap(), @r#"[{"source":"10.1.1.7","protocol":"icmp","count":1},{"source":"172.30.0.11","protocol":"icmp","count":1}]"#);
}

#[test]
fn datagrams_to_the_outside_host_and_questions_are_logged_by_who_sent_them() {
    let mut gateway = gateway();
    let plan = example();
    let mut asked =
        |from, to, payload: &[u8]| described(&mut gateway, &datagram((from, 40_000), to, payload));
    insta::assert_snapshot!(asked(POD, (plan.outside, 80), b"0123"), @"to 52:54:00:00:01:01: 192.0.2.10 -> 10.1.1.7 UDP");
    insta::assert_snapshot!(asked(NODE1_ADDRESS, (plan.outside, 9), b"0123"), @"to 52:54:00:00:01:01: 192.0.2.10 -> 172.30.0.11 destination unreachable 3");
    insta::assert_snapshot!(asked(POD, (plan.gateway, 80), b"0123"), @"to 52:54:00:00:01:01: 172.30.0.1 -> 10.1.1.7 destination unreachable 3");
    insta::assert_snapshot!(asked(POD, (plan.outside, 80), &[0; 65]), @"");
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    insta::assert_snapshot!(asked(NODE1_ADDRESS, (plan.gateway, 53), question), @"to 52:54:00:00:01:01: 172.30.0.1 -> 172.30.0.11 UDP");
    let records = lock(&gateway.records);
    insta::assert_snapshot!(serde_json::to_string(&records.contacts()).unwrap(), @r#"[{"source":"10.1.1.7","protocol":"udp","count":1},{"source":"172.30.0.11","protocol":"dns","count":1}]"#);
}

#[test]
fn an_echo_reply_carries_what_the_request_did() {
    let reply = &answers(&mut gateway(), &echo(NODE1_ADDRESS, example().gateway))[0];
    assert_eq!(reply[14 + 20 + 8..], *b"are you there");
    assert_eq!(reply[14 + 20 + 4..][..4], [0, 7, 0, 1]);
}

#[test]
fn connections_are_answered_where_they_come_from_and_refused_where_nothing_listens() {
    let mut gateway = gateway();
    let plan = example();
    insta::assert_snapshot!(described(&mut gateway, &syn(POD, plan.outside, 80)), @"to 52:54:00:00:01:01: 192.0.2.10 -> 10.1.1.7 SYN ACK");
    insta::assert_snapshot!(described(&mut gateway, &syn(POD, plan.outside, 443)), @"to 52:54:00:00:01:01: 192.0.2.10 -> 10.1.1.7 ACK RST");
    insta::assert_snapshot!(described(&mut gateway, &syn(NODE1_ADDRESS, plan.gateway, 22)), @"to 52:54:00:00:01:01: 172.30.0.1 -> 172.30.0.11 ACK RST");
    assert_eq!(
        lock(&gateway.records).contacts(),
        [],
        "nothing was accepted yet"
    );
}

/// A first segment that comes to nothing leaves nothing that would take the next client for its own.
#[test]
fn the_outside_host_names_who_asks_whatever_others_began() {
    let outside = example().outside;
    let reset = |from| segment(from, outside, 80, TcpControl::Rst, (2, None), b"");
    let ghost = Ipv4Addr::new(10, 1, 9, 9);
    let mut broken = syn(ghost, outside, 80);
    broken[14 + 20 + 16] ^= 1;
    let mut from_nowhere = syn(ghost, outside, 80);
    from_nowhere[14 + 20..][..2].fill(0);
    let sum = &mut from_nowhere[14 + 20 + 16..][..2];
    let old = u16::from_be_bytes([sum[0], sum[1]]);
    let (new, carry) = old.overflowing_add(40000);
    sum.copy_from_slice(&(new + u16::from(carry)).to_be_bytes());
    for before in [
        vec![broken],
        vec![from_nowhere],
        vec![syn(ghost, outside, 80), reset(ghost)],
    ] {
        let mut gateway = gateway();
        for frame in before {
            answers(&mut gateway, &frame);
        }
        assert_eq!(ask(&mut gateway, POD), r#"{"client": "10.1.1.7"}"#);
        let contacts = lock(&gateway.records).contacts();
        let named: Vec<_> = contacts.iter().map(|contact| contact.source).collect();
        assert_eq!(named, [POD]);
    }
}

#[test]
fn so_many_clients_are_served_at_a_time_and_others_refused() {
    let mut gateway = gateway();
    let accepted = |client: u8, gateway: &mut Gateway| {
        let client = Ipv4Addr::new(10, 1, 1, client);
        let answered = described(gateway, &syn(client, example().outside, 80));
        answered.contains("SYN ACK")
    };
    let served = (0..200).take_while(|client| accepted(*client, &mut gateway));
    assert_eq!(served.count(), 128);
    let again = described(&mut gateway, &syn(POD, example().outside, 80));
    assert!(!again.contains("RST"), "{again}");
    assert!(!accepted(222, &mut gateway));
}

/// A gateway with a listener at a port.
fn listening(port: u16) -> (Gateway, SegmentListener) {
    let mut gateway = gateway();
    let (commands, _) = std::sync::mpsc::channel();
    let mailbox = Mailbox::new(commands, Arc::new(crate::mailbox::Alarm::new().unwrap()));
    let (clients, accepted) = mpsc::channel(BACKLOG);
    gateway.connections.listen(port, &clients, &mailbox);
    (gateway, SegmentListener::new(accepted))
}

#[tokio::test]
async fn a_client_of_a_listener_is_heard_and_answered_and_without_one_it_is_refused() {
    let at = (example().gateway, 6443);
    let (mut gateway, mut listener) = listening(at.1);
    let accepted = &answers(&mut gateway, &syn(POD, at.0, at.1))[0];
    insta::assert_snapshot!(describe(accepted), @"to 52:54:00:00:01:01: 172.30.0.1 -> 10.1.1.7 SYN ACK");
    let theirs = TcpPacket::new_checked(&accepted[34..])
        .unwrap()
        .seq_number();
    let numbers = (2, Some(theirs + 1));
    let hello = segment(POD, at.0, at.1, TcpControl::Psh, numbers, b"hello");
    answers(&mut gateway, &hello);
    let mut stream = listener.accept().await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    stream.write_all(b"welcome").await.unwrap();
    gateway.nudge();
    let back = answers(&mut gateway, &echo(POD, at.0)).concat();
    assert!(String::from_utf8_lossy(&back).contains("welcome"));

    insta::assert_snapshot!(described(&mut gateway, &syn(POD, example().outside, at.1)), @"to 52:54:00:00:01:01: 192.0.2.10 -> 10.1.1.7 ACK RST");
    drop(listener);
    insta::assert_snapshot!(described(&mut gateway, &syn(NODE1_ADDRESS, at.0, at.1)), @"to 52:54:00:00:01:01: 172.30.0.1 -> 172.30.0.11 ACK RST");
}

/// Found by a connection that stood still for ever: with a scale, the last octets of a window were taken back.
#[test]
fn a_window_that_was_offered_is_never_taken_back() {
    let at = (example().gateway, 6443);
    let (mut gateway, _listener) = listening(at.1);
    let told = |frame: &[u8]| {
        let packet = TcpPacket::new_unchecked(&frame[34..]);
        let (from, to) = (at.0.into(), POD.into());
        let segment = TcpRepr::parse(&packet, &from, &to, &ChecksumCapabilities::default());
        let segment = segment.unwrap();
        let (ack, window) = (segment.ack_number.unwrap().0, segment.window_len);
        (
            ack,
            i32::from(window),
            segment.window_scale,
            segment.seq_number,
        )
    };
    let accepted = &answers(&mut gateway, &syn(POD, at.0, at.1))[0];
    let (mut next, window, scale, theirs) = told(accepted);
    let (first, mut edge) = (next, next + window);
    let scale = scale.unwrap_or(0);
    // Nobody reads: what its stream and its socket keep fills up, by pieces that no unit of a window divides.
    for _ in 0..1000 {
        let length = usize::try_from(edge - next).unwrap().min(997);
        let numbers = (next, Some(theirs + 1));
        let piece = segment(POD, at.0, at.1, TcpControl::Psh, numbers, &vec![7; length]);
        next += i32::try_from(length).unwrap();
        for answer in answers(&mut gateway, &piece) {
            let (ack, window, ..) = told(&answer);
            let right = ack + (window << scale);
            assert!(right >= edge, "{} octets less than before", edge - right);
            edge = right;
        }
    }
    assert_eq!(edge, next, "the window is used up");
    assert!(next - first > 300_000, "{}", next - first);
}

/// Nobody takes what comes, and clients come that reset before they are accepted.
#[test]
fn a_listener_s_clients_are_bounded_and_one_that_goes_leaves_nothing() {
    let at = (example().gateway, 6443);
    let (mut gateway, _listener) = listening(at.1);
    let client = |last: u8| Ipv4Addr::new(10, 1, 1, last);
    for last in 0..250 {
        answers(&mut gateway, &syn(client(last), at.0, at.1));
        let reset = segment(client(last), at.0, at.1, TcpControl::Rst, (2, None), b"");
        answers(&mut gateway, &reset);
    }
    let accepted = |last: u8, gateway: &mut Gateway| {
        described(gateway, &syn(client(last), at.0, at.1)).contains("SYN ACK")
    };
    let served = (0..250).take_while(|last| accepted(*last, &mut gateway));
    assert_eq!(served.count(), 128);
}

#[test]
fn nothing_is_forwarded_and_all_of_it_is_counted() {
    let mut gateway = gateway();
    let remote_pod = Ipv4Addr::new(10, 1, 2, 9);
    let elsewhere = Ipv4Addr::new(198, 51, 100, 1);
    let neighbour = Ipv4Addr::new(172, 30, 0, 12);
    for frame in [
        syn(POD, remote_pod, 80),
        syn(POD, remote_pod, 80),
        syn(NODE1_ADDRESS, Ipv4Addr::new(10, 0, 0, 1), 443),
        echo(POD, remote_pod),
        echo(NODE1_ADDRESS, elsewhere),
        echo(NODE1_ADDRESS, neighbour),
    ] {
        assert_eq!(answers(&mut gateway, &frame), [] as [Vec<u8>; 0]);
    }
    let records = lock(&gateway.records);
    assert_eq!(records.counters.dropped_unrouted, 4);
    assert_eq!(records.counters.dropped_elsewhere, 2);
    let flows: Vec<_> = records
        .flows()
        .iter()
        .map(|flow| serde_json::to_string(flow).unwrap())
        .collect();
    insta::assert_snapshot!(flows.join("\n"), @r#"
    {"source":"10.1.1.7","destination":"10.1.2.9","protocol":1,"destination_port":null,"reason":"unrouted","packets":1}
    {"source":"10.1.1.7","destination":"10.1.2.9","protocol":6,"destination_port":80,"reason":"unrouted","packets":2}
    {"source":"172.30.0.11","destination":"10.0.0.1","protocol":6,"destination_port":443,"reason":"unrouted","packets":1}
    {"source":"172.30.0.11","destination":"172.30.0.12","protocol":1,"destination_port":null,"reason":"elsewhere","packets":1}
    {"source":"172.30.0.11","destination":"198.51.100.1","protocol":1,"destination_port":null,"reason":"elsewhere","packets":1}
    "#);
}

#[test]
fn frames_for_other_stations_are_none_of_its_business() {
    let mut gateway = gateway();
    let mut flooded = syn(POD, Ipv4Addr::new(10, 1, 2, 9), 80);
    flooded[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 1, 2]);
    assert_eq!(answers(&mut gateway, &flooded), [] as [Vec<u8>; 0]);
    assert_eq!(lock(&gateway.records).counters, GatewayCounters::default());
}

#[test]
fn broken_packets_are_dropped_and_counted() {
    let mut gateway = gateway();
    let mut wrong_header = echo(NODE1_ADDRESS, example().gateway);
    wrong_header[14 + 10] ^= 1;
    let mut wrong_payload = echo(NODE1_ADDRESS, example().gateway);
    wrong_payload[14 + 20 + 9] ^= 1;
    let mut wrong_segment = syn(POD, example().outside, 443);
    wrong_segment[14 + 20 + 16] ^= 1;
    for frame in [wrong_header, wrong_payload, wrong_segment] {
        assert_eq!(answers(&mut gateway, &frame), [] as [Vec<u8>; 0]);
    }
    assert_eq!(lock(&gateway.records).counters.dropped_malformed, 3);
}

/// A client's message in a frame to everybody, with options behind its type.
fn discover(mac: MacAddr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&mac.0);
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, 1]);
    message.extend(options);
    message.push(255);
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let mut frame = datagram((from, 68), (to, 67), &message);
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame
}

#[test]
fn a_dhcp_client_without_an_address_is_answered() {
    let mut gateway = gateway();
    insta::assert_snapshot!(described(&mut gateway, &discover(NODE1, &[])), @"to 52:54:00:00:01:01: 172.30.0.1 -> 172.30.0.11 UDP");
    let stranger = MacAddr([0x52, 0x54, 0, 0, 9, 9]);
    insta::assert_snapshot!(described(&mut gateway, &discover(stranger, &[])), @"");
    let counters = lock(&gateway.records).counters;
    assert_eq!((counters.dhcp_answered, counters.dhcp_ignored), (1, 1));
}

#[test]
fn a_dhcp_message_may_be_as_long_as_a_datagram_and_its_answer_is_as_short_as_ever() {
    let mut gateway = gateway();
    let identifier = [&[61, 255][..], &[7; 255]].concat();
    for count in [1, 2, 252, 253] {
        let frame = discover(NODE1, &identifier.repeat(count));
        let answers = answers(&mut gateway, &frame);
        assert_eq!(answers.len(), 1, "{count}");
        assert!(answers[0].len() < 700, "{}", answers[0].len());
    }
    // An answer that carried all of them would be a little longer than a packet can be.
    let longest = 65_535 - 20 - 8 - 240 - 3 - 1;
    for length in longest - 200..=longest {
        let mut options = identifier.repeat(length / identifier.len());
        let rest = length - options.len();
        options.extend([61, u8::try_from(rest - 2).unwrap()]);
        options.resize(length, 7);
        assert_eq!(answers(&mut gateway, &discover(NODE1, &options)).len(), 1);
    }
}

proptest! {
    /// Whatever machines send, the gateway goes on.
    #[test]
    fn any_frame_is_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        port in prop::sample::select(vec![53u16, 67, 80, 9]),
        protocol in prop::sample::select(vec![1u8, 6, 17, 47]),
        outside: bool,
        changes in prop::collection::vec((0usize..140, any::<u8>()), 0..4),
    ) {
        let mut gateway = gateway();
        answers(&mut gateway, &bytes);
        let to = if outside { example().outside } else { example().gateway };
        let mut frame = ipv4(NODE1_ADDRESS, to, protocol.into(), bytes.len(), |payload| {
            payload.copy_from_slice(&bytes);
            if let Some(to) = payload.get_mut(2..4) {
                to.copy_from_slice(&port.to_be_bytes());
            }
        });
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        answers(&mut gateway, &frame);
        let alive = answers(&mut gateway, &echo(NODE1_ADDRESS, example().gateway));
        prop_assert!(!alive.is_empty());
    }
}
