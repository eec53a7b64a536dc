//! A running segment and the machines' ends of its cables.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{Cable, LONG, as_second, frame, mac, plan};
use podwire_lan::witness::{Moment, Seen, Witness};
use podwire_lan::{
    HeldFrame, Impairment, LanError, MacAddr, PortCounters, Rule, RuleId, Segment, SegmentOptions,
    SegmentState, Selector,
};

fn start(options: SegmentOptions) -> Segment {
    Segment::start(plan(), options).unwrap()
}

fn attach(segment: &Segment, name: &str) -> Cable {
    Cable::new(segment.attach(name).unwrap())
}

fn counters(segment: &Segment, name: &str) -> PortCounters {
    let all = segment.counters().unwrap();
    all.into_iter().find(|port| port.name == name).unwrap()
}

/// Two machines that know each other.
fn two(segment: &Segment) -> (Cable, Cable) {
    let mut one = attach(segment, "node1");
    let mut two = attach(segment, "node2");
    two.send(&frame(MacAddr::BROADCAST, mac(2), b"hello"));
    assert_eq!(one.receive(), frame(MacAddr::BROADCAST, mac(2), b"hello"));
    one.send(&frame(mac(2), mac(1), b"hello yourself"));
    assert_eq!(two.receive(), frame(mac(2), mac(1), b"hello yourself"));
    (one, two)
}

#[test]
fn frames_of_every_size_arrive_in_order() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    let sizes = [46, 1500, 65_536 - 14, 0, 9000, 69_632 - 14, 100];
    for (n, size) in (0..).zip(sizes) {
        one.send(&frame(mac(2), mac(1), &vec![n; size]));
    }
    for (n, size) in (0..).zip(sizes) {
        assert_eq!(two.receive(), frame(mac(2), mac(1), &vec![n; size]));
    }
    assert_eq!(
        counters(&segment, "node2").frames_out,
        1 + sizes.len() as u64
    );
}

#[test]
fn a_machine_that_never_reads_stalls_nobody_and_its_losses_are_counted() {
    let segment = start(SegmentOptions {
        queue_bytes: 256 * 1024,
        ..SegmentOptions::default()
    });
    let (mut one, mut two) = two(&segment);
    let mut stuck = attach(&segment, "stuck");
    stuck.send(&frame(MacAddr::BROADCAST, mac(3), b"my last words"));
    assert_eq!(one.receive().len(), two.receive().len());
    let jumbo = vec![7; 60_000];
    let rounds = 200;
    for n in 0..rounds {
        one.send(&frame(mac(3), mac(1), &jumbo));
        one.send(&frame(mac(2), mac(1), &[n; 100]));
        assert_eq!(two.receive(), frame(mac(2), mac(1), &[n; 100]));
    }
    let stuck = counters(&segment, "stuck");
    assert!(stuck.dropped.queue_full > 0, "{stuck:?}");
    assert_eq!(
        stuck.frames_out + stuck.dropped.queue_full,
        u64::from(rounds)
    );
    assert_eq!(counters(&segment, "node2").dropped.queue_full, 0);
}

#[test]
fn a_watched_segment_tells_what_it_carried_and_another_nothing() {
    let segment = start(SegmentOptions {
        watch: true,
        ..SegmentOptions::default()
    });
    let (mut one, mut two) = two(&segment);
    let before = segment.ask(Witness::now).unwrap();
    let sent = segment.started().elapsed();
    one.send(&frame(mac(2), mac(1), &[7; 100]));
    assert_eq!(two.receive().len(), 114);
    let got = segment.started().elapsed();
    let seen = segment.ask(|witness| witness.all(before)).unwrap();
    let [seen] = &seen.frames[..] else {
        panic!("{seen}");
    };
    assert_eq!(
        (&*seen.from, &*seen.to[0], seen.length),
        ("node1", "node2", 114)
    );
    assert!((sent..=got).contains(&seen.at), "{sent:?}, {seen}, {got:?}");
    assert_eq!(
        segment.ask(|witness| witness.all(witness.now())).unwrap(),
        Seen::default()
    );
    let everything = segment
        .ask(|witness| witness.all(Moment::default()))
        .unwrap();
    assert_eq!(everything.frames.len(), 3);
    let behind = segment.ask(|witness| witness.port_of(mac(2))).unwrap();
    assert_eq!(behind.as_deref(), Some("node2"));

    let unwatched = start(SegmentOptions::default());
    let error = unwatched.ask(Witness::now).unwrap_err();
    assert!(matches!(error, LanError::NotWatched), "{error}");
}

#[test]
fn a_stuck_machine_gets_what_was_kept_whole_once_it_reads() {
    let segment = start(SegmentOptions {
        queue_bytes: 256 * 1024,
        ..SegmentOptions::default()
    });
    let (mut one, mut two) = two(&segment);
    for n in 0..200 {
        one.send(&frame(mac(2), mac(1), &[n; 30_000]));
    }
    let deadline = Instant::now() + LONG;
    while counters(&segment, "node1").frames_in < 201 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let kept = counters(&segment, "node2").frames_out - 1;
    assert!(kept < 200, "the queue is bounded");
    let seen: Vec<u8> = (0..kept).map(|_| two.receive()[14]).collect();
    assert!(seen.is_sorted());
    one.send(&frame(mac(2), mac(1), b"and now"));
    assert_eq!(two.receive(), frame(mac(2), mac(1), b"and now"));
}

/// Sets a rule for what enters by a port, and one for what leaves by it.
fn impair(segment: &Segment, port: &str, impairment: &str) -> Vec<RuleId> {
    let rule = Rule {
        selector: Selector::from(port),
        impairment: serde_json::from_str::<Impairment>(impairment).unwrap(),
    };
    segment.rules().add(rule.both_ways()).unwrap()
}

#[test]
fn a_cut_cable_carries_nothing_until_it_is_mended() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    let mut three = attach(&segment, "node3");
    let cut = impair(&segment, "node3", r#"{"cut":true}"#);
    three.send(&frame(MacAddr::BROADCAST, mac(3), b"hear me"));
    one.send(&frame(MacAddr::BROADCAST, mac(1), b"hear all"));
    two.receive();
    assert!(three.is_silent());
    assert!(one.is_silent());
    let report = segment.rules().report().unwrap();
    let counts: Vec<u64> = report.rules.iter().map(|it| it.realised.cut).collect();
    // The gateway, node1 and node2 would have got the first, node3 the second.
    assert_eq!(counts, [3, 1]);
    for rule in cut {
        assert!(segment.rules().heal(rule).unwrap());
        assert!(!segment.rules().heal(rule).unwrap());
    }
    three.send(&frame(MacAddr::BROADCAST, mac(3), b"hear me now"));
    assert_eq!(
        one.receive(),
        frame(MacAddr::BROADCAST, mac(3), b"hear me now")
    );
}

#[test]
fn a_delayed_frame_arrives_when_nothing_else_wakes_the_segment_and_not_before() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    let delay = Duration::from_millis(30);
    impair(&segment, "node1", r#"{"delay":"30ms"}"#);
    for n in 0..10 {
        let sent = Instant::now();
        one.send(&frame(mac(2), mac(1), &[n]));
        assert_eq!(two.receive(), frame(mac(2), mac(1), &[n]));
        assert!(sent.elapsed() >= delay);
    }
    let realised = &segment.rules().report().unwrap().rules[0].realised;
    assert_eq!((realised.passed, realised.waiting), (10, 0));
    assert!(realised.mean_delay().unwrap() >= delay);
    assert!(realised.late.is_some());
}

#[test]
fn a_delayed_frame_waits_for_the_release_of_a_held_segment() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    impair(&segment, "node1", r#"{"delay":"100ms"}"#);
    let realised = || segment.rules().report().unwrap().rules.remove(0).realised;
    // On a busy machine one may have gone on before the segment is held: then it is another's turn.
    for sent in 1.. {
        one.send(&frame(mac(2), mac(1), b"late"));
        while realised().seen < sent {
            std::thread::yield_now();
        }
        segment.hold().unwrap();
        if realised().waiting == 1 {
            break;
        }
        segment.release().unwrap();
        assert_eq!(two.receive(), frame(mac(2), mac(1), b"late"));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(two.is_silent());
    let queued = segment.state().unwrap().queued;
    assert_eq!(queued.len(), 1, "it is part of the state");
    segment.release().unwrap();
    assert_eq!(two.receive(), frame(mac(2), mac(1), b"late"));
}

#[test]
fn rules_for_ports_that_are_not_there_are_refused() {
    let segment = start(SegmentOptions::default());
    let rule = Rule {
        selector: Selector::between("node1", "node2"),
        impairment: serde_json::from_str(r#"{"cut":true}"#).unwrap(),
    };
    let error = segment.rules().add(vec![rule.clone()]).unwrap_err();
    assert!(matches!(error, LanError::UnknownPort { .. }), "{error}");
    let _cables = two(&segment);
    let first = segment.rules().merge(vec![rule.clone()]).unwrap();
    assert_eq!(segment.rules().merge(vec![rule]).unwrap(), first);
    let handle = segment.rules();
    drop(segment);
    assert!(matches!(handle.report(), Err(LanError::Stopped)));
}

#[test]
fn a_held_segment_keeps_frames_in_order_and_releases_all() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    segment.hold().unwrap();
    for n in 0..500_u16 {
        one.send(&frame(mac(2), mac(1), &n.to_be_bytes()));
    }
    assert!(two.is_silent());
    assert_eq!(segment.state().unwrap().held.len(), 500);
    segment.release().unwrap();
    for n in 0..500_u16 {
        assert_eq!(two.receive(), frame(mac(2), mac(1), &n.to_be_bytes()));
    }
}

#[test]
fn hold_waits_for_machines_to_take_what_is_under_way_but_not_for_ever() {
    let segment = start(SegmentOptions {
        drain_limit: LONG,
        ..SegmentOptions::default()
    });
    let (mut one, mut two) = two(&segment);
    one.send(&frame(mac(2), mac(1), b"under way"));
    while counters(&segment, "node2").frames_out < 2 {
        std::thread::yield_now();
    }
    let reading = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let reading = Arc::clone(&reading);
        move || {
            std::thread::sleep(Duration::from_millis(100));
            reading.store(true, Ordering::SeqCst);
            two.receive()
        }
    });
    segment.hold().unwrap();
    assert!(reading.load(Ordering::SeqCst), "it waited for the reader");
    assert_eq!(reader.join().unwrap(), frame(mac(2), mac(1), b"under way"));

    let segment = start(SegmentOptions::default());
    let mut one = attach(&segment, "node1");
    let _nobody_reads = attach(&segment, "stuck");
    one.send(&frame(MacAddr::BROADCAST, mac(1), b"to all"));
    let (sender, held) = channel();
    std::thread::spawn(move || sender.send(segment.hold()));
    held.recv_timeout(LONG).unwrap().unwrap();
}

#[test]
fn a_frozen_segment_comes_back_with_its_stations_and_frames() {
    let old = start(SegmentOptions::default());
    let (mut one, mut two) = two(&old);
    let _cable = attach(&old, "node3");
    old.hold().unwrap();
    one.send(&frame(mac(2), mac(1), b"sent before, received after"));
    let json = serde_json::to_string(&old.state().unwrap()).unwrap();
    drop(old);
    assert!(two.is_closed());

    let mut state: SegmentState = serde_json::from_str(&json).unwrap();
    // As of a machine that was not reading when the segment was frozen.
    state.queued.push(HeldFrame {
        port: "node2".to_owned(),
        frame: frame(mac(2), mac(1), b"switched before, received after"),
    });
    let options = SegmentOptions {
        start_held: true,
        ..SegmentOptions::default()
    };
    let new = Segment::restore(plan(), options, state).unwrap();
    let mut two = attach(&new, "node2");
    let mut one = attach(&new, "node1");
    let mut three = attach(&new, "node3");
    assert!(two.is_silent());
    new.release().unwrap();
    assert_eq!(
        two.receive(),
        frame(mac(2), mac(1), b"switched before, received after")
    );
    assert_eq!(
        two.receive(),
        frame(mac(2), mac(1), b"sent before, received after")
    );
    two.send(&frame(mac(1), mac(2), b"known already"));
    assert_eq!(one.receive(), frame(mac(1), mac(2), b"known already"));
    assert!(three.is_silent());
    let stations = new.state().unwrap().stations;
    assert!(
        stations
            .iter()
            .any(|station| station.mac == mac(1) && station.port == "node1")
    );
}

#[test]
fn two_segments_are_apart_and_come_back_so() {
    let all = |segment: &Segment| {
        [(0, "one"), (0, "two"), (1, "three"), (1, "four")]
            .map(|(index, name)| Cable::new(segment.attach_to(index, name).unwrap()))
    };
    let call = |n: u8| frame(MacAddr::BROADCAST, mac(n), b"who is there");
    let old = Segment::start(as_second(), SegmentOptions::default()).unwrap();
    let [mut one, mut two, mut three, mut four] = all(&old);
    one.send(&call(1));
    assert_eq!(two.receive(), call(1));
    assert!(three.is_silent() && four.is_silent());
    old.hold().unwrap();
    // Under way on both.
    one.send(&call(1));
    three.send(&call(3));
    let json = serde_json::to_string(&old.state().unwrap()).unwrap();
    drop(old);

    let state = serde_json::from_str(&json).unwrap();
    let options = SegmentOptions {
        start_held: true,
        ..SegmentOptions::default()
    };
    let new = Segment::restore(as_second(), options, state).unwrap();
    let elsewhere = new.attach_to(1, "one").unwrap_err();
    assert!(
        matches!(elsewhere, LanError::PortInUse { .. }),
        "{elsewhere}"
    );
    let beyond = new.attach_to(2, "five").unwrap_err();
    assert!(matches!(beyond, LanError::NoSegment { .. }), "{beyond}");
    let [mut one, mut two, mut three, mut four] = all(&new);
    new.release().unwrap();
    assert_eq!(two.receive(), call(1));
    assert_eq!(four.receive(), call(3));
    assert!(
        [&mut one, &mut two, &mut three, &mut four]
            .into_iter()
            .all(Cable::is_silent)
    );
}

#[test]
fn a_machine_comes_back_on_its_own_port() {
    let segment = start(SegmentOptions::default());
    let (mut one, two) = two(&segment);
    let error = segment.attach("node2").unwrap_err();
    assert!(matches!(error, LanError::PortInUse { .. }), "{error}");
    drop(two);
    let deadline = Instant::now() + LONG;
    let mut two = loop {
        match segment.attach("node2") {
            Ok(socket) => break Cable::new(socket),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    one.send(&frame(mac(2), mac(1), b"welcome back"));
    assert_eq!(two.receive(), frame(mac(2), mac(1), b"welcome back"));
    let names: Vec<_> = segment
        .counters()
        .unwrap()
        .into_iter()
        .map(|port| port.name)
        .collect();
    assert_eq!(names, ["gateway", "node1", "node2"]);
}

#[test]
fn a_length_that_no_frame_has_ends_that_connection_alone() {
    let segment = start(SegmentOptions::default());
    let (mut one, mut two) = two(&segment);
    let mut broken = attach(&segment, "broken");
    broken.send_raw(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    assert!(broken.is_closed());
    assert_eq!(counters(&segment, "broken").dropped.oversized, 1);
    one.send(&frame(mac(2), mac(1), b"undisturbed"));
    assert_eq!(two.receive(), frame(mac(2), mac(1), b"undisturbed"));
}

#[test]
fn a_capture_is_readable_while_the_segment_runs_and_after() {
    use pcap_file::pcapng::{Block, PcapNgReader};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wire.pcapng");
    let read = || {
        let file = std::fs::File::open(&path).unwrap();
        let mut reader = PcapNgReader::new(file).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                packets.push((packet.interface_id, packet.data.to_vec()));
            }
        }
        packets
    };
    let segment = start(SegmentOptions {
        capture: Some(path.clone()),
        ..SegmentOptions::default()
    });
    let (mut one, mut two) = two(&segment);
    assert_eq!(segment.write_capture().unwrap(), path);
    let before = read();
    assert_eq!(
        before,
        [
            (2, frame(MacAddr::BROADCAST, mac(2), b"hello")),
            (1, frame(mac(2), mac(1), b"hello yourself")),
        ]
    );
    one.send(&frame(mac(2), mac(1), b"one more"));
    two.receive();
    drop(segment);
    assert_eq!(read().len(), before.len() + 1);
}

#[test]
fn without_a_capture_there_is_none_to_write() {
    let error = start(SegmentOptions::default())
        .write_capture()
        .unwrap_err();
    assert!(matches!(error, LanError::NoCapture), "{error}");
}

#[test]
fn a_capture_that_cannot_be_written_says_where() {
    let path = std::path::PathBuf::from("/nonexistent/wire.pcapng");
    let segment = start(SegmentOptions {
        capture: Some(path.clone()),
        ..SegmentOptions::default()
    });
    match segment.write_capture() {
        Err(LanError::Capture { path: named, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}
