//! The whole way, from a client to a shell, with an sshd of our own in the place of a node.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use podwire_cluster::Layout;
use podwire_lan::{Check, Impairment, LanError, Rule, Segment, SegmentOptions, Selector};
use podwire_vm::SshError;
use podwire_vm::keys::{SshKeyPair, ssh_key_pair};
use russh::keys::PrivateKey;
use russh::server::{self, Auth, Msg, Session};
use russh::{Channel, ChannelId, Sig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;

use crate::find::running;
use crate::forward::MOST;
use crate::server::{Dial, House, Room};
use crate::{AccessError, Door, Exit, Forward, Link, NodeAddress, Streams};

const NODE1: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);
const NODE2: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 12);
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);

/// A port of node1's that says how much it got, once that has ended.
const COUNTS: u16 = 7000;
/// One that says nothing, and ends when its visitor does.
const SILENT: u16 = 7001;

/// node1 has an sshd that runs commands on this machine, and two other ports; nobody else answers.
struct Nodes {
    key: PrivateKey,
}

impl Dial for Nodes {
    type Stream = DuplexStream;

    async fn dial(&self, to: SocketAddrV4, waited: Duration) -> Result<DuplexStream, LanError> {
        if *to.ip() != NODE1 {
            return Err(LanError::NoRoute { to, waited });
        }
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        if to.port() != 22 {
            tokio::spawn(async move {
                let mut got = Vec::new();
                theirs.read_to_end(&mut got).await.unwrap();
                if to.port() == COUNTS {
                    let said = format!("{} octets", got.len());
                    theirs.write_all(said.as_bytes()).await.unwrap();
                }
            });
            return Ok(ours);
        }
        let config = server::Config {
            keys: vec![self.key.clone()],
            ..server::Config::default()
        };
        tokio::spawn(async move {
            let session = server::run_stream(Arc::new(config), theirs, Sshd::default()).await;
            if let Ok(session) = session {
                let _ = session.await;
            }
        });
        Ok(ours)
    }
}

#[derive(Default)]
struct Sshd {
    channel: Option<Channel<Msg>>,
}

impl server::Handler for Sshd {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        _: server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        assert_eq!(user, "root");
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let command = String::from_utf8(command.to_vec()).unwrap();
        if command == "vanish" {
            return Err(russh::Error::Disconnect);
        }
        let channel = self.channel.take().unwrap();
        let handle = session.handle();
        session.channel_success(id)?;
        tokio::spawn(async move {
            let mut child = tokio::process::Command::from(shell(&command))
                .spawn()
                .unwrap();
            let (mut stdin, mut stdout, mut stderr) = (
                child.stdin.take().unwrap(),
                child.stdout.take().unwrap(),
                child.stderr.take().unwrap(),
            );
            let (mut reader, writer) = channel.split();
            let (mut out, mut err) = (writer.make_writer(), writer.make_writer_ext(Some(1)));
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut reader.make_reader(), &mut stdin).await;
            });
            let _ = tokio::join!(
                tokio::io::copy(&mut stdout, &mut out),
                tokio::io::copy(&mut stderr, &mut err)
            );
            let status = child.wait().await.unwrap();
            match status.code() {
                Some(code) => handle.exit_status_request(id, code.cast_unsigned()).await,
                None => {
                    let (message, language) = (String::new(), String::new());
                    handle
                        .exit_signal_request(id, Sig::KILL, false, message, language)
                        .await
                }
            }
            .unwrap();
            handle.close(id).await.unwrap();
        });
        Ok(())
    }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

/// A door, and the segment whose rules it sets: nothing goes over it.
fn door(dir: &Path, host_key: &SshKeyPair, shown: &SshKeyPair) -> (Segment, Door) {
    let segment = Segment::start(Layout::Flat.network(2), SegmentOptions::default()).unwrap();
    for node in ["node1", "node2"] {
        segment.attach(node).unwrap();
    }
    let user_key = dir.join("user");
    fs::write(&user_key, ssh_key_pair("user").unwrap().private).unwrap();
    let room = |name: &str, address| Room {
        node: NodeAddress {
            name: name.into(),
            address,
        },
        host_key: host_key.public.clone(),
        console: dir.join(name),
    };
    let house = House {
        rooms: vec![room("node1", NODE1), room("node2", NODE2)],
        router: Some(Room {
            host_key: String::new(),
            ..room("router", ROUTER)
        }),
        user_key,
        limit: Duration::from_secs(1),
        dialler: Nodes {
            key: PrivateKey::from_openssh(&shown.private).unwrap(),
        },
        rules: segment.rules(),
        taps: segment.taps(),
    };
    let door = Door::of(house, dir, "a cluster of 2 nodes").unwrap();
    (segment, door)
}

fn open() -> (TempDir, (Segment, Door)) {
    let dir = tempfile::tempdir().unwrap();
    let key = ssh_key_pair("host").unwrap();
    let door = door(dir.path(), &key, &key);
    (dir, door)
}

async fn link(dir: &TempDir) -> Link {
    Link::open(dir.path()).await.unwrap().unwrap()
}

async fn ran(dir: &TempDir, command: &str, input: &[u8]) -> (Exit, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let streams = Streams {
        stdin: input,
        stdout: &mut stdout,
        stderr: &mut stderr,
    };
    let shell = link(dir).await.ssh("node1").await.unwrap();
    let exit = shell.run(Some(command), streams, None).await.unwrap();
    (exit, stdout, stderr)
}

#[tokio::test]
async fn streams_stay_apart_and_the_exit_status_comes_through() {
    let (dir, _door) = open();
    let (exit, stdout, stderr) = ran(&dir, "echo out; echo err >&2; exit 7", b"").await;
    assert_eq!(exit.status(), 7);
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let (exit, ..) = ran(&dir, "kill -KILL $$", b"").await;
    assert_eq!(exit, Exit::Signal("KILL".into()));
    assert_eq!(exit.status(), 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_input_and_output_arrive_whole() {
    let (dir, _door) = open();
    let input: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
    // Not `cat`: russh's server, unlike sshd, stops reading while it cannot write.
    let (exit, stdout, _) = ran(&dir, "f=$(mktemp) && cat > $f && cat $f && rm $f", &input).await;
    assert_eq!(exit.status(), 0);
    assert!(stdout == input, "{} of {} bytes", stdout.len(), input.len());
}

#[tokio::test]
async fn a_command_that_reads_nothing_does_not_wait_for_input() {
    let (dir, _door) = open();
    let shell = link(&dir).await.ssh("node1").await.unwrap();
    // Somebody at a keyboard who types nothing.
    let (stdin, _typing) = tokio::io::duplex(16);
    let streams = Streams {
        stdin,
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    let exit = shell.run(Some("exit 3"), streams, None).await.unwrap();
    assert_eq!(exit.status(), 3);
}

#[tokio::test]
async fn a_session_that_ends_under_its_command_is_an_error() {
    let (dir, _door) = open();
    let shell = link(&dir).await.ssh("node1").await.unwrap();
    let streams = Streams {
        stdin: &b""[..],
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    let ended = tokio::time::timeout(
        Duration::from_secs(20),
        shell.run(Some("vanish"), streams, None),
    );
    let error = ended.await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("node1 ended before the command did"),
        "{error}"
    );
}

#[tokio::test]
async fn another_machine_in_the_node_s_place_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (expected, shown) = (ssh_key_pair("a").unwrap(), ssh_key_pair("b").unwrap());
    let _door = door(dir.path(), &expected, &shown);
    let Err(error) = link(&dir).await.ssh("node1").await else {
        panic!("another key was accepted");
    };
    let AccessError::Ssh { source, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(*source, SshError::HostKey { .. }), "{source}");
}

#[tokio::test]
async fn a_node_that_is_not_there_or_does_not_answer_is_explained() {
    let (dir, _door) = open();
    let refused = async |node: &str| match link(&dir).await.ssh(node).await {
        Err(AccessError::Refused(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{node} answered"),
    };
    insta::assert_snapshot!(refused("node9").await, @"there is no node `node9`; there are: node1, node2, router");
    insta::assert_snapshot!(refused("router").await, @"router has no SSH host key of its own, by which it could be told from any other machine: there is its console alone");
    insta::assert_snapshot!(refused("node2").await, @"node2 cannot be reached: no route to 172.30.0.12:22: nobody answered ARP for 172.30.0.12 within 1 s; the machine is not up, or its address is not set");
}

#[tokio::test]
async fn what_runs_is_found_until_its_door_closes() {
    let runs = tempfile::tempdir().unwrap();
    let dir = runs.path().join("20261121T130500Z-1");
    fs::create_dir(&dir).unwrap();
    let key = ssh_key_pair("host").unwrap();
    let (_segment, door) = door(&dir, &key, &key);
    let found = running(runs.path()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].run, "20261121T130500Z-1");
    assert_eq!(&found[0].description, door.description());
    assert_eq!(found[0].description.nodes[1].address, NODE2);
    let machines = found[0].description.machines();
    let names: Vec<&str> = machines.map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2", "router"]);
    drop(door);
    assert_eq!(running(runs.path()).await.unwrap(), []);
}

#[tokio::test]
async fn a_console_is_shown_from_its_last_lines_on_until_the_door_closes() {
    let (dir, (_segment, door)) = open();
    let record = dir.path().join("node1");
    let mut text = String::new();
    for n in 0..5000 {
        text += &format!("line {n}\n");
    }
    fs::write(&record, text).unwrap();
    let (shown, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let link = link(&dir).await;
    let show = move |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        shown.send(text).map_err(std::io::Error::other)
    };
    let reader = tokio::spawn(async move { link.console("node1", show).await });
    let mut got = String::new();
    while !got.ends_with("line 4999\n") {
        got += &seen.recv().await.unwrap();
    }
    assert!(
        got.starts_with("line ") && got.len() < 17_000,
        "{}",
        got.len()
    );

    let mut file = fs::OpenOptions::new().append(true).open(&record).unwrap();
    std::io::Write::write_all(&mut file, b"a new one\n").unwrap();
    assert_eq!(seen.recv().await.unwrap(), "a new one\n");
    drop(door);
    reader.await.unwrap().unwrap();
}

/// What is set, a line each.
fn said(report: &podwire_lan::RulesReport) -> Vec<String> {
    let rules = report.rules.iter();
    let rules = rules.map(|it| format!("{}: {}", it.rule.selector, it.rule.impairment));
    let filters = report.filters.iter();
    let filters = filters.map(|it| format!("{} {:?}", it.filter.port, it.filter.own));
    rules.chain(filters).collect()
}

fn rule(from: &str, impairment: &str) -> Rule {
    Rule {
        selector: Selector::from(from),
        impairment: serde_json::from_str::<Impairment>(impairment).unwrap(),
    }
}

#[tokio::test]
async fn what_is_set_merges_is_shown_and_heals() {
    let (dir, _door) = open();
    let slow = rule("node2", r#"{"delay":"40ms"}"#).both_ways();
    let set = link(&dir).await.impair(slow.clone(), None).await.unwrap();
    assert_eq!(
        said(&set),
        ["node2 -> any: delay 40ms", "any -> node2: delay 40ms"]
    );
    let lossy = vec![rule("node2", r#"{"loss":"1%"}"#)];
    let check = Some(("node1".to_owned(), Check::Source));
    let set = link(&dir).await.impair(lossy, check).await.unwrap();
    assert_eq!(
        said(&set),
        ["node2 -> any: delay 40ms loss 1%", "node1 [172.30.0.11/32]"]
    );
    let cut = vec![rule("node1", r#"{"cut":true}"#)];
    link(&dir).await.impair(cut, None).await.unwrap();
    let healed = link(&dir).await.heal(Some("node2".into())).await.unwrap();
    assert_eq!(healed.rules.len(), 2);
    let left = ["node1 -> any: cut", "node1 [172.30.0.11/32]"];
    assert_eq!(said(&link(&dir).await.rules().await.unwrap()), left);
    let mute = vec![rule("gateway", r#"{"cut":true}"#)];
    link(&dir).await.impair(mute, None).await.unwrap();
    let healed = link(&dir).await.heal(Some("gateway".into())).await;
    assert_eq!(said(&healed.unwrap()), ["gateway -> any: cut"]);
    assert_eq!(said(&link(&dir).await.heal(None).await.unwrap()), left);
    assert_eq!(said(&link(&dir).await.rules().await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_set_is_told_and_sets_nothing() {
    let (dir, _door) = open();
    let refused = async |rules: Vec<Rule>, check: Option<(&str, Check)>| {
        let check = check.map(|(node, check)| (node.to_owned(), check));
        match link(&dir).await.impair(rules, check).await {
            Err(AccessError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    let sound = rule("node1", r#"{"cut":true}"#);
    let jitter = rule("node2", r#"{"jitter":"5ms"}"#);
    insta::assert_snapshot!(refused(vec![sound.clone(), jitter], None).await, @"the rule is wrong: a jitter of 5ms is more than the delay, 0us: give a delay of at least that");
    let nobody = rule("node9", r#"{"cut":true}"#);
    insta::assert_snapshot!(refused(vec![sound.clone(), nobody], None).await, @r#"the segment has no port "node9"; it has gateway, node1, node2"#);
    insta::assert_snapshot!(refused(vec![sound], Some(("node9", Check::Both))).await, @"there is no node `node9`; there are: node1, node2, router");
    assert_eq!(said(&link(&dir).await.rules().await.unwrap()), [""; 0]);
    let heal = link(&dir).await.heal(Some("node9".into())).await;
    assert!(matches!(heal, Err(AccessError::Refused(_))));
}

#[tokio::test]
async fn frames_are_captured_as_they_are_switched_until_the_cluster_ends() {
    let (dir, (segment, door)) = open();
    let socket = std::os::unix::net::UnixStream::from(segment.attach("guest").unwrap());
    let capture = link(&dir).await;
    let (seen, mut began) = tokio::sync::mpsc::unbounded_channel();
    let capturing = tokio::spawn(async move {
        let take = |bytes: &[u8]| seen.send(bytes.to_vec()).map_err(std::io::Error::other);
        let filter = "arp and host 172.30.0.11".to_owned();
        let forever = std::future::pending();
        let node = Some("guest".to_owned());
        let count = capture.capture(node, filter, forever, take).await.unwrap();
        (count.frames(), count.lost())
    });
    // The head of the stream: whoever reads along is there.
    let mut stream = began.recv().await.unwrap();
    // Who is the gateway? The answer comes back by the same port.
    let mac = [0x52, 0x54, 0, 0, 0x0a, 0x0b];
    let header = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    let question = [&header[..], &[172, 30, 0, 11], &[0; 6], &[172, 30, 0, 1]].concat();
    let length = u32::try_from(question.len()).unwrap().to_be_bytes();
    let framed = [&length[..], &question].concat();
    std::io::Write::write_all(&mut &socket, &framed).unwrap();
    while stream.windows(6).filter(|it| *it == mac).count() < 4 {
        stream.extend(began.recv().await.unwrap());
    }
    drop(door);
    drop(segment);
    assert_eq!(capturing.await.unwrap(), (2, 0));
}

#[tokio::test]
async fn a_capture_ends_when_it_is_enough_and_a_wrong_one_is_told() {
    let (dir, _door) = open();
    let nothing = |_: &[u8]| Ok(());
    let count = async |node: Option<&str>, filter: &str| {
        let link = link(&dir).await;
        let at_once = std::future::ready(());
        let node = node.map(str::to_owned);
        link.capture(node, filter.to_owned(), at_once, nothing)
            .await
    };
    assert_eq!(count(None, "tcp").await.unwrap().frames(), 0);
    let refused = |error| match error {
        Err(AccessError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let wrong = refused(count(None, "tcpp").await);
    assert!(wrong.contains("not known"), "{wrong}");
    insta::assert_snapshot!(refused(count(Some("node9"), "").await), @r#"the segment has no port "node9"; it has gateway, node1, node2"#);
}

/// A port of a node on this host, what is told of it, and what carries it.
async fn forwarded(
    dir: &TempDir,
    node: &str,
    port: u16,
) -> (
    SocketAddrV4,
    UnboundedReceiver<String>,
    JoinHandle<Result<(), AccessError>>,
) {
    let forward = Forward::open(dir.path(), node, port, None).await.unwrap();
    let address = forward.address();
    assert!(address.ip().is_loopback(), "{address}");
    let (tell, told) = mpsc::unbounded_channel();
    let carrying = tokio::spawn(forward.carry(move |line| {
        let _ = tell.send(line.to_owned());
    }));
    (address, told, carrying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_port_carries_each_way_to_its_own_end_until_nobody_holds_it() {
    let (dir, _door) = open();
    let (address, _told, carrying) = forwarded(&dir, "node1", COUNTS).await;
    let one = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&vec![7; 1_000_000]).await.unwrap();
        // There is an answer although, and only when, this direction has ended.
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "1000000 octets");
    };
    tokio::join!(one(), one(), one());
    let mut open = TcpStream::connect(address).await.unwrap();
    carrying.abort();
    let _ = carrying.await;
    // Not even what was open stays.
    assert!(matches!(open.read(&mut [0]).await, Ok(0) | Err(_)));
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn only_so_many_connections_are_carried_and_the_next_waits() {
    let (dir, _door) = open();
    let (address, mut told, _carrying) = forwarded(&dir, "node1", SILENT).await;
    let mut all = Vec::new();
    for _ in 0..MOST {
        all.push(TcpStream::connect(address).await.unwrap());
    }
    insta::assert_snapshot!(told.recv().await.unwrap(), @"64 connections are open; the next waits until one of them ends");
    // The kernel takes it, and nobody carries it.
    let mut next = TcpStream::connect(address).await.unwrap();
    next.shutdown().await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), next.read(&mut [0])).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(all.pop());
    let end = tokio::time::timeout(Duration::from_secs(20), next.read(&mut [0])).await;
    assert_eq!(end.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_reset_and_told() {
    let (dir, _door) = open();
    let (address, mut told, _carrying) = forwarded(&dir, "node2", 80).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let reset = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    insta::assert_snapshot!(told.recv().await.unwrap(), @"node2 cannot be reached: no route to 172.30.0.12:80: nobody answered ARP for 172.30.0.12 within 1 s; the machine is not up, or its address is not set");
}

#[tokio::test]
async fn a_forwarded_port_ends_with_its_cluster_and_takes_no_other_s_place() {
    let (dir, door) = open();
    let (address, _told, carrying) = forwarded(&dir, "node1", COUNTS).await;
    let taken = Forward::open(dir.path(), "node1", COUNTS, Some(address.port())).await;
    let taken = taken.err().unwrap();
    assert!(matches!(taken, AccessError::Listen { .. }), "{taken}");
    // It carries something: so it is there, and attends the cluster's end.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    drop(door);
    let ended = tokio::time::timeout(Duration::from_secs(20), carrying).await;
    ended.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    // Nobody is there any more.
    let (_, _, carrying) = forwarded(&dir, "node1", COUNTS).await;
    carrying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stranger_gets_an_answer_and_the_door_stays_open() {
    let (dir, _door) = open();
    let stream = crate::socket::connect(dir.path()).await.unwrap();
    let mut stream = stream.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("makes no sense"), "{answer}");
    assert!(link(&dir).await.describe().await.is_ok());
}
