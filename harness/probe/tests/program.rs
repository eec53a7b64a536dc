//! The program itself: exit codes, signals, the JSON on its streams.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of these tests are tests too"
)]

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use podwire_probe::{FetchReport, FetchRequest, Outcome, Server};

/// For what comes at once, on a machine however busy.
const LONG: Duration = Duration::from_secs(60);

fn probe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_probe"))
}

fn with_input(args: &[&str], input: &str) -> Output {
    let mut command = probe();
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn server() -> String {
    let server = Server::bind(0, "here".into()).unwrap();
    let address = format!("127.0.0.1:{}", server.local_addr().unwrap().port());
    std::thread::spawn(move || server.run());
    address
}

#[test]
fn fetch_takes_its_request_from_argument_or_input_and_reports_in_json() {
    let address = server();
    let request =
        serde_json::to_string(&FetchRequest::new([&address]).count(2).limit(LONG)).unwrap();
    for output in [
        with_input(&["fetch", &request], ""),
        with_input(&["fetch"], &request),
        with_input(&["fetch", "--via", &address], &request),
    ] {
        let report: FetchReport = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report.targets[0].count(Outcome::Answered), 2);
        assert_eq!(
            report.targets[0].hosts().keys().collect::<Vec<_>>(),
            [&"here"]
        );
        assert!(output.status.success());
    }
}

/// A name server that has one address for every name.
fn name_server() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let mut message = buffer[..n].to_vec();
            message[2] |= 0x80;
            message[7] = 1;
            message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x01\x01\x02");
            socket.send_to(&message, from).unwrap();
        }
    });
    address
}

#[test]
fn resolve_takes_its_request_as_fetch_does_and_reports_the_records() {
    let (pod, dns) = (server(), name_server());
    let request = format!(r#"{{"name":"web.test","server":"{dns}","limit_ms":60000}}"#);
    for output in [
        with_input(&["resolve", &request], ""),
        with_input(&["resolve"], &request),
        with_input(&["resolve", "--via", &pod], &request),
    ] {
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!(
                "{}\"server\":\"{dns}\",{}\n",
                r#"{"name":"web.test","kind":"A","#,
                r#""outcome":"answered","code":0,"records":[{"name":"web.test","ttl":30,"kind":"A","data":"10.1.1.2"}]}"#
            )
        );
    }
    let output = with_input(&["resolve", r#"{"name":"web.test","kind":"MX"}"#], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown variant `MX`"));
}

#[test]
fn mistakes_are_told_by_exit_code_and_text() {
    let output = with_input(&["fetch"], "{}");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing field `targets`"));
    let output = with_input(&["fetch", "--count"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: probe"));
}

/// Kills what a failed assertion would leave behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The system call that sigwait(3) sleeps in on x86_64: rt_sigtimedwait.
const SIGTIMEDWAIT: &str = "128 ";

#[test]
fn pause_ends_on_a_signal_and_not_before() {
    let mut child = Killed(probe().arg("pause").spawn().unwrap());
    let call = format!("/proc/{}/syscall", child.0.id());
    let started = Instant::now();
    while !std::fs::read_to_string(&call)
        .unwrap()
        .starts_with(SIGTIMEDWAIT)
    {
        assert!(started.elapsed() < LONG, "it never waits");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.0.try_wait().unwrap().is_none());
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());
}
