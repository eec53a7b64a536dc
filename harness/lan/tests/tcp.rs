//! Connections from the gateway to hosts on a running segment.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use common::{
    COUNT, Cable, DEAF, ECHO, Host, LONG, RESET, SAID, SERVERS, SOURCE, address, as_second,
    pattern, plan,
};
use podwire_lan::{
    GatewayHandle, Impairment, LanError, Rule, RuleId, Segment, SegmentOptions, SegmentStream,
    Selector,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn start() -> (Segment, Host) {
    let segment = Segment::start(plan(), SegmentOptions::default()).unwrap();
    let host = Host::start(1, segment.attach("node1").unwrap());
    (segment, host)
}

/// Cuts the host's cable.
fn cut(segment: &Segment) -> Vec<RuleId> {
    let rule = Rule {
        selector: Selector::from("node1"),
        impairment: Impairment {
            cut: true,
            ..Impairment::default()
        },
    };
    segment.rules().add(rule.both_ways()).unwrap()
}

fn to(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address(1), port)
}

async fn open(gateway: &GatewayHandle, port: u16) -> SegmentStream {
    gateway.connect(to(port), LONG).await.unwrap()
}

/// Sends and receives at the same time, and ends in order.
async fn echo(stream: SegmentStream, bytes: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sender = tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    sender.await.unwrap();
    back
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_in_both_directions() {
    let (segment, _host) = start();
    let sent = pattern(16 * 1024 * 1024);
    let back = echo(open(&segment.gateway(), ECHO).await, sent.clone()).await;
    assert!(back == sent, "{} octets came back", back.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_of_another_segment_is_reached_on_its_own() {
    let segment = Segment::start(as_second(), SegmentOptions::default()).unwrap();
    // The same address on the segment where it does not belong.
    let _stranger = Host::start(1, segment.attach("stranger").unwrap());
    let gateway = segment.gateway();
    let brief = Duration::from_millis(300);
    let nobody = gateway.connect(to(ECHO), brief).await.unwrap_err();
    assert!(matches!(nobody, LanError::NoRoute { .. }), "{nobody}");
    let _host = Host::start(1, segment.attach_to(1, "node1").unwrap());
    let sent = pattern(100_000);
    assert!(echo(open(&gateway, ECHO).await, sent.clone()).await == sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once_do_not_mix() {
    let (segment, host) = start();
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let gateway = segment.gateway();
            tokio::spawn(async move {
                let sent = vec![n; 100_000 + usize::from(n)];
                let back = echo(open(&gateway, ECHO).await, sent.clone()).await;
                assert!(back == sent);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(host.resets(), 0, "all ended in order");
}

#[tokio::test]
async fn a_half_closed_connection_still_receives() {
    let (segment, host) = start();
    let mut stream = open(&segment.gateway(), COUNT).await;
    stream.write_all(&pattern(300_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "300000");
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(host.resets(), 0);
}

#[tokio::test]
async fn what_was_written_before_an_orderly_end_arrives_though_the_stream_is_dropped() {
    let (segment, host) = start();
    let mut stream = open(&segment.gateway(), COUNT).await;
    stream.write_all(&pattern(200_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let deadline = Instant::now() + LONG;
    while segment.counters().unwrap()[0].bytes_in < 200_000 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(host.resets(), 0);
}

#[tokio::test]
async fn a_dropped_stream_resets_its_connection() {
    let (segment, host) = start();
    let mut stream = open(&segment.gateway(), ECHO).await;
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    drop(stream);
    let deadline = Instant::now() + LONG;
    while host.resets() == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (segment, _host) = start();
    let gateway = segment.gateway();
    let short = Duration::from_millis(300);
    let error =
        |result: Result<SegmentStream, LanError>| result.map(|_| ()).unwrap_err().to_string();
    insta::assert_snapshot!(error(gateway.connect(to(22), LONG).await), @"connection to 172.30.0.11:22 refused: the machine is up and nothing listens on port 22");
    let nobody = SocketAddrV4::new(Ipv4Addr::new(172, 30, 0, 99), 22);
    match gateway.connect(nobody, short).await {
        Err(LanError::NoRoute { to, waited }) => {
            assert_eq!(to, nobody);
            assert!(waited >= short, "{waited:?}");
        }
        other => panic!("{other:?}"),
    }
    let far = SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 2), 22);
    insta::assert_snapshot!(error(gateway.connect(far, LONG).await), @"10.1.1.2 is not on the segment; the gateway reaches only its machines");
    cut(&segment);
    insta::assert_snapshot!(error(gateway.connect(to(ECHO), short).await), @"connection to 172.30.0.11:7 timed out after 0.3 s: the machine's MAC address is known, and it does not answer");
    drop(segment);
    insta::assert_snapshot!(error(gateway.connect(to(ECHO), LONG).await), @"the segment is stopped; start another");
}

#[tokio::test]
async fn one_listens_at_a_port_until_it_is_dropped() {
    let (segment, _host) = start();
    let gateway = segment.gateway();
    let first = gateway.listen(6443).await.unwrap();
    let error = gateway.listen(6443).await.unwrap_err();
    insta::assert_snapshot!(error, @"somebody listens at the gateway's port 6443 already; drop that listener first");
    drop(first);
    let mut second = gateway.listen(6443).await.unwrap();
    drop(segment);
    assert!(second.accept().await.is_none());
    let error = gateway.listen(6443).await.unwrap_err();
    insta::assert_snapshot!(error, @"the segment is stopped; start another");
}

#[tokio::test]
async fn a_stopped_segment_ends_its_streams() {
    let (segment, _host) = start();
    let mut stream = open(&segment.gateway(), ECHO).await;
    let reader = tokio::spawn(async move {
        let error = stream.read(&mut [0]).await.unwrap_err();
        (stream, error)
    });
    drop(segment);
    let (mut stream, error) = reader.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let error = stream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_writer_learns_that_the_machine_has_gone_away() {
    let (segment, _host) = start();
    let stream = open(&segment.gateway(), RESET).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let written = tokio::time::timeout(LONG, async {
        loop {
            if let Err(error) = writer.write_all(&pattern(100_000)).await {
                break error.kind();
            }
        }
    });
    assert_eq!(written.await.unwrap(), ErrorKind::ConnectionReset);
    let read = tokio::time::timeout(LONG, reader.read(&mut [0]))
        .await
        .unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_nobody_waits_for_leaves_nothing() {
    let (segment, host) = start();
    let gateway = segment.gateway();
    // Fewer than the host can serve at once, however late it comes to it; both times together are
    // more.
    for _ in 0..2 {
        for _ in 0..SERVERS - 8 {
            // Given up at once, before or after the host has accepted.
            let short = Duration::from_micros(300);
            let _ = tokio::time::timeout(short, gateway.connect(to(ECHO), LONG)).await;
        }
        let back = echo(open(&gateway, ECHO).await, b"still here".to_vec()).await;
        assert_eq!(back, b"still here");
    }
    drop(host);
}

#[tokio::test]
async fn a_cut_cable_pauses_a_connection_and_mending_it_goes_on() {
    let (segment, _host) = start();
    let mut stream = open(&segment.gateway(), ECHO).await;
    let cut = cut(&segment);
    stream.write_all(b"patience").await.unwrap();
    let mut back = [0; 8];
    let early =
        tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut back)).await;
    assert!(early.is_err());
    for rule in cut {
        segment.rules().heal(rule).unwrap();
    }
    tokio::time::timeout(LONG, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"patience");
}

/// One way at a time: where windows are closed in both directions, two stacks of smoltcp may wait for each other
/// for ever. Its probe of a closed window takes the place of the timer by which what is under way is sent again,
/// and each rejects the acknowledgements of the other that are not at the number which it waits for.
#[tokio::test]
async fn a_reader_that_lags_loses_nothing() {
    let (segment, _host) = start();
    let mut stream = open(&segment.gateway(), SOURCE).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let of_host = &segment.counters().unwrap()[1];
    assert!(of_host.bytes_in < SAID as u64, "buffers are bounded");
    let mut came = Vec::new();
    stream.read_to_end(&mut came).await.unwrap();
    assert!(came == pattern(SAID), "{} octets came", came.len());
}

#[tokio::test]
async fn a_writer_waits_for_a_machine_that_does_not_read() {
    let (segment, _host) = start();
    let mut stream = open(&segment.gateway(), DEAF).await;
    let sent = pattern(SAID);
    let brief = Duration::from_millis(500);
    let written = tokio::time::timeout(brief, stream.write_all(&sent)).await;
    assert!(written.is_err(), "buffers are bounded");
}

/// A Pod's request to the outside host, as it looks when nothing translates its address: through
/// the node that sent it, with a source that is not on the segment.
#[test]
fn the_outside_host_serves_pods_through_the_node_that_sent_for_them() {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    };

    let segment = Segment::start(plan(), SegmentOptions::default()).unwrap();
    let mut cable = Cable::new(segment.attach("node1").unwrap());
    let pod = Ipv4Addr::new(10, 1, 1, 7);
    let outside = plan().outside;
    let send = |cable: &mut Cable, control, seq, ack, payload: &[u8]| {
        let tcp = TcpRepr {
            src_port: 40_000,
            dst_port: 80,
            control,
            seq_number: TcpSeqNumber(seq),
            ack_number: ack,
            window_len: 60_000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: pod,
            dst_addr: outside,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 63,
        };
        let mut packet = vec![0; 20 + tcp.buffer_len()];
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.emit(&mut view, &ChecksumCapabilities::default());
        tcp.emit(
            &mut TcpPacket::new_unchecked(view.payload_mut()),
            &pod.into(),
            &outside.into(),
            &ChecksumCapabilities::default(),
        );
        let to = plan().gateway_mac;
        cable.send(&[&to.0[..], &common::mac(1).0, &[8, 0], &packet].concat());
    };
    send(&mut cable, TcpControl::Syn, 100, None, b"");
    let reply = cable.receive();
    assert_eq!(
        reply[..6],
        common::mac(1).0,
        "no ARP for the Pod: the node sent, the node gets it"
    );
    let syn_ack = TcpPacket::new_checked(&reply[34..]).unwrap();
    assert!(syn_ack.syn() && syn_ack.ack());
    let ack = Some(syn_ack.seq_number() + 1);
    send(&mut cable, TcpControl::None, 101, ack, b"");
    send(
        &mut cable,
        TcpControl::Psh,
        101,
        ack,
        b"GET / HTTP/1.1\r\nHost: outside.test\r\n\r\n",
    );
    let mut text = String::new();
    let mut finished = false;
    while !finished {
        let frame = cable.receive();
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(packet.dst_addr(), pod);
        let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
        text.push_str(std::str::from_utf8(tcp.payload()).unwrap());
        finished = tcp.fin();
    }
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("{\"client\": \"10.1.1.7\"}\n"), "{text}");
    let log = serde_json::to_string(&segment.gateway().outside_log()).unwrap();
    insta::assert_snapshot!(log, @r#"[{"source":"10.1.1.7","protocol":"tcp","count":1}]"#);
}
