//! The commands of the README on a cluster of real machines, as a person types them, one test after
//! the other: what is missing is built first, which takes minutes.
//!
//! `cargo test -p xtask --test commands -- --ignored --test-threads 1`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod beside;
#[path = "../chromium/mod.rs"]
mod chromium;
mod compared;
mod configured;
mod failed;
mod kept;
mod kernel;
mod laid;
mod network;
mod outside;
mod parts;
mod pictures;
mod replaced;
#[path = "../repository/mod.rs"]
mod repository;
mod wire;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// For a line that is waited for: nothing may be cached yet.
const LIMIT: Duration = Duration::from_secs(3600);

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn xtask(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(words.split_whitespace())
        .current_dir(workspace())
        .env_remove("CI")
        // A person's own runs are none of these.
        .env("PODWIRE_OUTPUT", output())
        .stdin(Stdio::null());
    command
}

/// A command that ends by itself.
fn done(words: &str) -> Output {
    xtask(words).output().unwrap()
}

fn said(words: &str) -> String {
    let output = done(words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {text}{errors}");
    text
}

/// A command in the foreground of somebody else's terminal.
struct Running {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Running {
    fn start(words: &str) -> Self {
        Self::of(&mut xtask(words))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    eprintln!("| {line}");
                    let _ = sender.send(line);
                }
            });
        }
        Self {
            child,
            lines,
            heard: Vec::new(),
        }
    }

    fn wait_for(&mut self, part: &str) {
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("never said: {part}\n{:?}", self.heard));
            let found = line.contains(part);
            self.heard.push(line);
            if found {
                return;
            }
        }
    }

    /// Ctrl-C, and what the command then ends with.
    fn interrupt(self) -> (Option<i32>, Vec<String>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.ended()
    }

    /// What it ends with by itself.
    fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap();
        self.heard.extend(self.lines.iter());
        (status.code(), std::mem::take(&mut self.heard))
    }
}

impl Drop for Running {
    /// A test that fails leaves no cluster behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has a look at a cluster that a command brings up, until Ctrl-C.
fn is_up(words: &str, look: impl FnOnce()) {
    let mut up = Running::start(words);
    up.wait_for("from another terminal");
    look();
    let (code, heard) = up.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
}

/// The folder of the default bundle, which is made if it is missing.
fn bundle() -> PathBuf {
    let told = said("bundle");
    let folder = told.lines().find(|line| Path::new(line).is_dir());
    folder.unwrap().into()
}

/// Where these commands keep their runs.
fn output() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands");
    fs::create_dir_all(&folder).unwrap();
    fs::canonicalize(folder).unwrap()
}

/// That of the cluster that is up: it is no scenarios' run, and nothing points to it.
fn newest_run() -> PathBuf {
    let runs = fs::read_dir(output().join("runs")).unwrap();
    runs.map(|run| run.unwrap().path()).max().unwrap()
}

fn latest() -> PathBuf {
    fs::canonicalize(output().join("latest")).unwrap()
}

/// What a run has left for programs.
fn results(run: &Path) -> Value {
    let text = fs::read(run.join("results.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Each of the ways into a running cluster.
fn is_reached() {
    assert_eq!(said("ssh node2 hostname").trim(), "node2");
    assert_eq!(done("ssh node1 exit 7").status.code(), Some(7));
    let nodes = said("kubectl get nodes -o name");
    assert_eq!(
        nodes.lines().collect::<Vec<_>>(),
        ["node/node1", "node/node2"]
    );
    // A clone's console is empty until something is printed; it goes on until it is left.
    said("ssh node2 echo printed >/dev/console");
    let mut console = xtask("console node2")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(console.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    console.kill().unwrap();
    console.wait().unwrap();
    assert_eq!(line.trim_end(), "printed");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_cluster_that_is_up_is_reached_until_ctrl_c() {
    let mut up = Running::start("up --yes --nodes 2 --bootstrap by-hand");
    up.wait_for("from another terminal");
    is_reached();
    outside::is_forwarded();
    outside::has_a_kubeconfig();
    wire::is_impaired();
    wire::is_checked_for_its_own_address();
    wire::is_captured();
    wire::is_captured_live();
    kept::is_left_alone();
    let mut forward = Running::start("forward node1:6443");
    forward.wait_for("127.0.0.1:");
    let (code, heard) = up.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
    // It leads nowhere now.
    let (code, heard) = forward.ended();
    assert_eq!(code, Some(3), "{heard:#?}");
    let refused = done("ssh node2 hostname");
    assert_eq!(refused.status.code(), Some(3));
}

#[test]
#[ignore = "runs a cluster of machines"]
fn a_cluster_by_kubeadm_is_impaired_and_captured_as_well() {
    is_up("up --yes --bootstrap kubeadm", || {
        wire::is_impaired();
        wire::is_captured();
        wire::is_captured_live();
    });
}

#[test]
#[ignore = "runs a cluster of machines"]
fn nodes_without_kubernetes_are_up_and_kubectl_says_that_there_is_none() {
    let words = "up --yes --nodes 2 --bootstrap by-hand --stage identified";
    let mut up = Running::start(words);
    up.wait_for("from another terminal");
    assert_eq!(said("ssh node2 hostname").trim(), "node2");
    let idle = said("ssh node1 systemctl show -P ActiveState kubelet");
    assert_eq!(idle.trim(), "inactive");
    let none = done("kubectl get nodes");
    assert_ne!(none.status.code(), Some(0));
    let told = String::from_utf8_lossy(&none.stderr);
    assert!(told.contains("has no kubeconfig"), "{told}");
    let none = done("kubeconfig");
    assert_eq!(none.status.code(), Some(3));
    let told = String::from_utf8_lossy(&none.stderr);
    assert!(told.contains("has no API server yet"), "{told}");
    let (code, heard) = up.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn nodes_on_two_segments_are_up_and_so_is_their_router() {
    let words = "up --yes --nodes 2 --bootstrap by-hand --layout routed --stage identified";
    let mut up = Running::start(words);
    up.wait_for("from another terminal");
    let routed = said("ssh node2 ip route get 172.30.0.11");
    assert!(routed.contains(" via 172.30.1.2 "), "{routed}");
    let refused = done("ssh router hostname");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("there is its console alone"), "{told}");
    let mut console = Running::start("console router");
    console.wait_for("what router prints on its serial line");
    drop(console);
    let ping = "ssh node2 ping -c 1 -W 20 172.30.0.11";
    said(ping);
    said("impair router-2 --to node2 --cut");
    assert_ne!(
        done(ping.replace("-W 20", "-W 2").as_str()).status.code(),
        Some(0)
    );
    let healed = said("heal router-2");
    assert!(healed.contains("router-2 -> node2: cut"), "{healed}");
    said(ping);
    let (code, heard) = up.interrupt();
    assert_eq!(code, Some(0), "{heard:#?}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn the_cluster_of_a_failed_scenario_is_kept_and_reached_until_ctrl_c() {
    let words =
        "test --yes --nodes 2 --bootstrap by-hand --break route --filter static_routes --keep";
    let mut test = Running::start(words);
    test.wait_for("kept for a look");
    is_reached();
    let (code, heard) = test.interrupt();
    assert_eq!(code, Some(1), "{heard:#?}");
    let run = latest();
    assert!(run.join("results.json").exists());
    assert!(!run.join("access.sock").exists());
    assert_eq!(done("ssh node2 hostname").status.code(), Some(3));
}

/// A run whose first Node never registers: its kubelets end at once.
const NO_KUBELET: &str =
    "test --yes --nodes 2 --bootstrap by-hand --filter static_routes --replace kubelet=/bin/false";

#[test]
#[ignore = "runs a cluster of machines"]
fn a_stage_that_cannot_be_made_leaves_its_nodes_evidence_and_nothing_in_the_cache() {
    let failed = done(NO_KUBELET);
    let told = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(3), "{told}");
    let evidence = latest().join("stages/by-hand-nftables-routes/joined/evidence");
    let folder = evidence.display().to_string();
    assert!(told.contains(&folder), "{told}");
    let results = results(&latest());
    let error = results["error"].as_str().unwrap();
    assert!(error.contains(&folder), "{error}");
    for node in ["node1", "node2"] {
        let read = |name: &str| fs::read_to_string(evidence.join(node).join(name)).unwrap();
        assert!(read("network.txt").contains("# ip route"));
        assert!(read("kubelet.txt").contains("kubelet.service: Main process exited"));
        assert!(read("containerd.txt").contains("containerd.service"));
        assert!(read("journal.txt").contains(&format!(" {node} ")));
    }
    let api = fs::read_to_string(evidence.join("node1/api.txt")).unwrap();
    assert!(api.contains("# kubectl get nodes"), "{api}");
    assert!(evidence.join("segment.pcapng").exists());
    let stages = said("stages --json");
    assert!(!stages.contains(r#""unfinished": true"#), "{stages}");
}

#[test]
#[ignore = "runs a cluster of machines"]
fn ctrl_c_does_not_wait_for_evidence() {
    let mut test = Running::start(NO_KUBELET);
    test.wait_for("collect the nodes' evidence");
    let (code, heard) = test.interrupt();
    assert_eq!(code, Some(130), "{heard:#?}");
}
