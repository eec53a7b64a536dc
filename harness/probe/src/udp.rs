//! UDP: a question and its answer, a datagram each.
//!
//! A question is sixteen hexadecimal digits that nobody else has sent; the answer repeats them and says
//! in JSON who gives it, and as whom he saw the client. Neither is sent again: one that is lost shows.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::datagrams::{self, Datagrams};
use crate::http::left;
use crate::report::Outcome;
use crate::socket;
use crate::target::{Failure, Said, Target, failed};

/// More than any datagram of these has.
const BUFFER: usize = 2048;
/// Octets of a question.
const QUESTION: usize = 16;

/// What an answer says; the host outside of a cluster tells no name.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    client: String,
}

/// Asks once, from a port of its own, and waits for the answer.
///
/// # Errors
/// How it ended. Refused is what an ICMP "port unreachable" says.
pub(crate) fn ask(target: &str, limit: Duration) -> Result<Said, Failure> {
    let end = Instant::now() + limit;
    let address = Target::parse(target)?.resolve(end)?;
    let socket = socket::to(address, 0);
    let socket = socket.map_err(|error| failed("bind", &error))?;
    // What comes from elsewhere is not delivered, an answer that was not translated back, say.
    let connected = socket.connect(address);
    connected.map_err(|error| failed("connect", &error))?;
    let question = format!("{:016x}", RandomState::new().hash_one(target));
    let sent = socket.send(question.as_bytes());
    sent.map_err(|error| failed("send", &error))?;
    let mut buffer = [0; BUFFER];
    loop {
        let wait = left(end).map_err(|error| failed("receive", &error))?;
        let came = socket.set_read_timeout(Some(wait));
        let came = came.and_then(|()| socket.recv(&mut buffer));
        let length = came.map_err(|error| failed("receive", &error))?;
        // A late answer to somebody who had this port before is none to this question.
        let Some(answer) = buffer[..length].strip_prefix(question.as_bytes()) else {
            continue;
        };
        return match serde_json::from_slice::<Answer>(answer) {
            Ok(answer) => Ok(Said {
                host: answer.host,
                client: Some(answer.client),
            }),
            Err(error) => Err(Failure {
                outcome: Outcome::Malformed,
                error: format!("no answer in the datagram: {error}"),
            }),
        };
    }
}

/// Answers every question for ever, in the name of `host`, and counts what wants no answer.
pub(crate) fn serve(socket: &UdpSocket, host: &str, seen: &Datagrams) {
    let mut buffer = [0; BUFFER];
    loop {
        // An ICMP error concerns only the client that it tells of.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let datagram = &buffer[..length];
        if let Some(number) = datagrams::number(datagram) {
            let client = SocketAddr::new(from.ip().to_canonical(), from.port());
            seen.count(client, number);
        } else if is_question(datagram) {
            let answer = Answer {
                host: Some(host.to_owned()),
                client: from.ip().to_canonical().to_string(),
            };
            let json = serde_json::to_vec(&answer).unwrap_or_default();
            // A client without a way back times out.
            let _: io::Result<usize> = socket.send_to(&[datagram, &json].concat(), from);
        }
    }
}

fn is_question(datagram: &[u8]) -> bool {
    datagram.len() == QUESTION && datagram.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{attempt, fetch};
    use crate::kind::Kind;
    use crate::report::FetchRequest;
    use crate::server::Server;
    use std::thread;

    /// For what comes at once, on a machine however busy.
    const LONG: Duration = Duration::from_secs(60);

    /// A socket whose owner does this with what comes.
    fn other(each: impl Fn(&UdpSocket, &[u8], std::net::SocketAddr) + Send + 'static) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut buffer = [0; BUFFER];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                each(&socket, &buffer[..length], from);
            }
        });
        address
    }

    #[test]
    fn every_question_is_answered_with_a_name_and_the_client_s_address() {
        let server = Server::bind(0, "one".into()).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        let target = format!("127.0.0.1:{port}");
        let request = FetchRequest::new([&target]).kind(Kind::Udp).count(50);
        let report = fetch(&request.limit(LONG));
        let target = report.target(&target).unwrap();
        assert_eq!(target.hosts()["one"], 50, "{target}");
        assert_eq!(target.clients()["127.0.0.1"], 50);
    }

    #[test]
    fn nobody_refuses_and_silence_times_out() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = taken.local_addr().unwrap().to_string();
        let of = |target: &str, limit| attempt(target, Kind::Udp, limit);
        let timed_out = of(&silent, Duration::from_millis(300));
        assert_eq!(timed_out.outcome, Outcome::TimedOut, "{timed_out:?}");
        // Connected to itself it takes nothing from others, and nobody else gets its port.
        taken.connect(&silent).unwrap();
        let refused = of(&silent, LONG);
        assert_eq!(refused.outcome, Outcome::Refused, "{refused:?}");
    }

    #[test]
    fn only_the_answer_to_its_own_question_counts() {
        let strange = other(|socket, question, from| {
            for (prefix, host) in [
                (b"0000000000000000".as_slice(), "late"),
                (b"", "unasked"),
                (question, "right"),
            ] {
                let answer = format!(r#"{{"host":"{host}","client":"a"}}"#);
                let datagram = [prefix, answer.as_bytes()].concat();
                socket.send_to(&datagram, from).unwrap();
            }
        });
        let done = attempt(&strange, Kind::Udp, LONG);
        assert_eq!(done.host.as_deref(), Some("right"), "{done:?}");
        let echo = other(|socket, question, from| {
            socket.send_to(question, from).unwrap();
        });
        assert_eq!(attempt(&echo, Kind::Udp, LONG).outcome, Outcome::Malformed);
        let outside = other(|socket, question, from| {
            let answer = [question, br#"{"client": "172.30.0.11"}"#].concat();
            socket.send_to(&answer, from).unwrap();
        });
        let done = attempt(&outside, Kind::Udp, LONG);
        assert_eq!(
            (done.host, done.client.as_deref()),
            (None, Some("172.30.0.11"))
        );
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let digits = b"0123456789abcdef";
        assert!(is_question(digits));
        assert!(!is_question(&digits[1..]));
        assert!(!is_question(b"0123456789abcdefg"));
        assert!(!is_question(b"0123456789abcdeg"));
        assert!(!is_question(b""));
    }
}
