//! Captures as other people's programs read them. Each test wants a program that podwire itself has no use
//! for: `cargo xtask check` runs those whose program is on the path, and says of the others that they are left
//! out.
//!
//! `cargo test -p podwire-lan --test readers -- --ignored`

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etherparse::PacketBuilder;
use podwire_lan::{MacAddr, Segment, SegmentOptions, Tap};

use common::{Cable, address, frame, mac, plan};

/// What a program says of a file, which it reads from its standard input where the argument is `-`.
fn said(program: &str, args: &[&str], file: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::from(File::open(file).unwrap()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A datagram of a node to the next one.
fn datagram(from: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (one, other) = (mac(from), mac(3 - from));
    let builder = PacketBuilder::ethernet2(one.0, other.0)
        .ipv4(address(from).octets(), address(3 - from).octets(), 64)
        .udp(ports.0, ports.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Two nodes on a segment, which knows where they are.
fn segment(capture: Option<PathBuf>) -> (Segment, Cable, Cable) {
    let options = SegmentOptions {
        capture,
        ..SegmentOptions::default()
    };
    let segment = Segment::start(plan(), options).unwrap();
    let cable = |name| Cable::new(segment.attach(name).unwrap());
    let (mut one, mut two) = (cable("node1"), cable("node2"));
    two.send(&frame(MacAddr::BROADCAST, mac(2), b"hello"));
    one.receive();
    (segment, one, two)
}

/// A capture of all ports, with a question and its answer.
fn whole(dir: &Path) -> PathBuf {
    let (segment, mut one, mut two) = segment(Some(dir.join("wire.pcapng")));
    one.send(&datagram(1, (40_000, 40_001), b"question"));
    two.receive();
    two.send(&datagram(2, (40_001, 40_000), b"an answer"));
    one.receive();
    segment.write_capture().unwrap()
}

/// As many octets as a reader may be behind, and some more.
const BEHIND: usize = 4 * 1024 * 1024 + 100_000;

/// What one reads who is too slow, and how many frames are lost to it.
fn with_losses(dir: &Path) -> (PathBuf, u64) {
    let (segment, mut one, mut two) = segment(None);
    let mut tap = segment.taps().open(None, "".parse().unwrap()).unwrap();
    let sent = datagram(1, (40_000, 40_001), &[7; 1400]);
    let count = BEHIND / sent.len();
    for _ in 0..count {
        one.send(&sent);
        two.receive();
    }
    let mut stream = next(&mut tap);
    one.send(&sent);
    two.receive();
    stream.extend(next(&mut tap));
    let file = dir.join("lossy.pcapng");
    fs::write(&file, &stream).unwrap();
    let sent = u64::try_from(count).unwrap() + 1;
    let mut read = podwire_lan::CaptureCount::default();
    read.feed(&stream).unwrap();
    assert!(read.lost() > 0, "nothing is lost");
    assert_eq!(read.frames() + read.lost(), sent);
    (file, read.lost())
}

fn next(tap: &mut Tap) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(tap.next()).unwrap()
}

#[test]
#[ignore = "wants tshark and capinfos"]
fn tshark_reads_ports_times_and_what_is_in_frames() {
    let dir = tempfile::tempdir().unwrap();
    let file = whole(dir.path());
    let path = file.to_str().unwrap();
    let fields = |fields: &[&str]| {
        let mut args = vec!["-r", path, "-T", "fields"];
        args.extend(fields.iter().flat_map(|field| ["-e", field]));
        said("tshark", &args, &file)
    };
    let told = fields(&[
        "frame.interface_name",
        "frame.len",
        "ip.src",
        "udp.srcport",
        "udp.dstport",
        "udp.length",
    ]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "node2\t19\t\t\t\t",
            "node1\t50\t172.30.0.11\t40000\t40001\t16",
            "node2\t51\t172.30.0.12\t40001\t40000\t17",
        ]
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for time in fields(&["frame.time_epoch"]).lines() {
        // As it is written, in nanoseconds: read as others they would be of another century.
        let time = Duration::from_secs_f64(time.parse().unwrap());
        assert!(now.abs_diff(time) < Duration::from_hours(24), "{time:?}");
    }
    let told = said("capinfos", &["-M", "-c", "-I", path], &file);
    for part in [
        "Number of packets:   3",
        "Number of interfaces in file: 3",
        "Name = gateway",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
}

#[test]
#[ignore = "wants tshark"]
fn tshark_tells_how_many_frames_a_slow_reader_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (file, lost) = with_losses(dir.path());
    let path = file.to_str().unwrap();
    let args = ["-r", path, "-T", "fields", "-e", "frame.drop_count"];
    let told = said("tshark", &args, &file);
    let told: Vec<u64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(told, [lost]);
}

#[test]
#[ignore = "wants tcpdump"]
fn tcpdump_reads_what_is_in_frames() {
    let dir = tempfile::tempdir().unwrap();
    let told = said("tcpdump", &["-nr", "-"], &whole(dir.path()));
    for part in [
        "IP 172.30.0.11.40000 > 172.30.0.12.40001: UDP, length 8",
        "IP 172.30.0.12.40001 > 172.30.0.11.40000: UDP, length 9",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    // What it does not know it shows in further lines.
    let frames = told.lines().filter(|line| !line.starts_with('\t'));
    assert_eq!(frames.count(), 3, "{told}");
}
