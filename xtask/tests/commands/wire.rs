//! The network of a cluster that is up: made bad, good again, and read along. By hand and by kubeadm, with
//! the workload.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use podwire_lan::CaptureCount;

use crate::{Running, done, said, xtask};

const NODE2: &str = "172.30.0.12";

/// Whether node 1 gets an answer of node 2 to a packet with so many octets; one of a few is enough, since
/// nothing is said here of how fast it comes.
fn pings(octets: u32) -> bool {
    let words = format!("ssh node1 ping -c 3 -W 5 -s {octets} {NODE2}");
    done(&words).status.success()
}

/// Whether node 1 gets an answer of node 2's kubelet, whatever it says.
fn asks_the_kubelet(seconds: u32) -> bool {
    let words =
        format!("ssh node1 curl -sk -m {seconds} -o /dev/null https://{NODE2}:10250/healthz");
    done(&words).status.success()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// Each option does what it says, and nothing else.
pub(crate) fn is_impaired() {
    assert!(pings(1200) && asks_the_kubelet(60));
    // Settings merge.
    said("impair node1 --to node2 --delay 40ms --jitter 5ms --loss 1% --burst 4 --seed 7");
    let set = said("impair node1 --to node2 --rate 100mbit");
    has(
        &set,
        &["node1 -> node2: delay 40ms jitter 5ms loss 1% burst 4 rate 100mbit seed 7"],
    );
    said("impair node1 --to node2 --cut");
    has(&said("impair --show"), &["node1 -> node2: cut"]);
    assert!(!pings(100));
    assert_eq!(done("impair node1 --delay 40").status.code(), Some(2));
    said("heal node1");
    assert!(pings(1200));

    let set = said("impair node1 --to node2 --hole 1000 --both");
    has(
        &set,
        &["node1 -> node2: hole 1000", "node2 -> node1: hole 1000"],
    );
    assert!(pings(100) && !pings(1200));
    has(&said("impair --show"), &["in the hole"]);
    said("heal");

    is_impaired_by_what_packets_carry();
    is_healed_of_one_rule();
}

fn is_impaired_by_what_packets_carry() {
    let to = format!("impair any --cut --destination {NODE2}");
    said(&format!("{to} --protocol tcp --destination-port 10250"));
    assert!(pings(100) && !asks_the_kubelet(5));
    said("heal");
    said(&format!("{to} --protocol icmp"));
    assert!(!pings(100) && asks_the_kubelet(60));
    has(&said("heal"), &["any -> any icmp", " cut"]);
}

/// As in a cloud, that knows nothing of Pods: with routes these have the sender's address in their packets.
pub(crate) fn is_checked_for_its_own_address() {
    let of = |node: &str, what: &str| {
        let one = "kubectl get pods -l app=blue --field-selector spec.nodeName";
        let found = said(&format!("{one}={node} -o jsonpath={{.items[0].{what}}}"));
        found.trim().to_owned()
    };
    let (pod, address) = (of("node1", "metadata.name"), of("node2", "status.podIP"));
    let between_pods = format!("kubectl exec {pod} -- /probe ping {address} 1");
    said(&between_pods);
    let set = said("impair node1 --check source");
    has(&set, &["node1: source checked to be 172.30.0.11/32"]);
    assert!(pings(100) && !done(&between_pods).status.success());
    has(&said("heal node1"), &["dropped for their source"]);
    said(&between_pods);
}

/// What is set for another node stays.
fn is_healed_of_one_rule() {
    said("impair node1 --to node2 --delay 1ms");
    said("impair node1 --to gateway --delay 1ms");
    let healed = said("heal node2");
    has(&healed, &["node1 -> node2"]);
    assert!(!healed.contains("gateway"), "{healed}");
    let left = said("impair --show");
    has(&left, &["node1 -> gateway"]);
    assert!(!left.contains("node2"), "{left}");
    said("heal");
    has(&said("impair --show"), &["nothing is set"]);
}

/// Into a file, which other people's programs read.
pub(crate) fn is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wire.pcapng");
    let words = format!("capture --node node2 --filter icmp -w {}", file.display());
    let mut capture = Running::start(&words);
    capture.wait_for("Ctrl-C ends it");
    // The file's header is written when the switch has begun to tell.
    while fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
        thread::sleep(Duration::from_millis(50));
    }
    let ping = format!("ssh node1 probe ping {NODE2} 2");
    said(&ping);
    said("impair node1 --to node2 --cut");
    assert_ne!(done(&ping).status.code(), Some(0));
    said("heal");
    said(&ping);
    let (code, heard) = capture.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");

    let read = xtask("ssh node1 tcpdump -nr -")
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let read = String::from_utf8_lossy(&read.stdout).into_owned();
    // Those that were cut never came to node 2.
    assert_eq!(read.matches("ICMP echo request").count(), 4, "{read}");
    assert_eq!(read.matches("ICMP echo reply").count(), 4, "{read}");
    is_read_by_tshark(&file);
}

fn is_read_by_tshark(file: &Path) {
    if which::which("tshark").is_err() {
        eprintln!("NOT TRIED: tshark on a capture: it is not on the path (package tshark)");
        return;
    }
    let of = |kind: &str| {
        let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "ip.src"];
        let read = Command::new("tshark")
            .arg("-r")
            .arg(file)
            .args(["-Y", &format!("icmp.type == {kind}")])
            .args(fields)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{errors}");
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("8"), ["node2\t172.30.0.11"; 4]);
    assert_eq!(of("0"), ["node2\t172.30.0.12"; 4]);
}

/// On standard output, for as long as somebody reads it.
pub(crate) fn is_captured_live() {
    let mut capture = xtask("capture --filter")
        .arg(format!("icmp and host {NODE2}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = capture.stdout.take().unwrap();
    let (mut count, mut buffer) = (CaptureCount::default(), [0; 4096]);
    let ping = format!("ssh node1 probe ping {NODE2} 2");
    // The header comes when the switch has begun to tell.
    let mut length = stream.read(&mut buffer).unwrap();
    said(&ping);
    while length > 0 {
        count.feed(&buffer[..length]).unwrap();
        if count.frames() >= 4 {
            break;
        }
        length = stream.read(&mut buffer).unwrap();
    }
    // Each once, where it enters.
    assert_eq!((count.frames(), count.lost()), (4, 0));
    drop(stream);
    // It notices when it has something to write.
    let status = loop {
        said(&ping);
        if let Some(status) = capture.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(0));
}
