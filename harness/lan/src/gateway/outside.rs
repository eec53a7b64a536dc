//! A host outside the cluster: it answers, and remembers who asked.
//!
//! Its HTTP server knows one answer, the client's address as it sees it. Every connection gets one
//! answer and is closed. A datagram is answered with the same, behind what the client sent.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpAddress, TcpPacket};

use super::link::Link;
use super::tcp::Stack;

/// Where it serves HTTP, and answers datagrams.
pub(super) const PORT: u16 = 80;

/// Octets of a datagram that is answered at most: nobody gets much more than was sent.
const QUESTION: usize = 64;

/// Octets of a request's head at most, and of a connection's buffers.
const BUFFER: usize = 8 * 1024;

/// Connections at a time; more are refused. The stack looks at each of them with every segment, so
/// that a thousand which somebody left half open made one a hundred times as dear.
const CONNECTIONS: usize = 128;

/// How long a connection may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// The server's connections, by client.
#[derive(Debug, Default)]
pub(super) struct Server {
    connections: HashMap<SocketAddrV4, Serving>,
}

#[derive(Debug)]
struct Serving {
    socket: SocketHandle,
    deadline: Duration,
    head: Vec<u8>,
    accepted: bool,
    answered: bool,
}

impl Server {
    /// Whether a segment asks for a connection.
    pub(super) fn is_asked(segment: &TcpPacket<&[u8]>) -> bool {
        segment.dst_port() == PORT && segment.syn() && !segment.ack()
    }

    /// Gives the stack a packet that [asks](Server::is_asked) for a connection. A socket listens for
    /// this packet alone: if the stack does not like the packet, it would take the next client for
    /// this one.
    pub(super) fn accept(
        &mut self,
        stack: &mut Stack,
        link: &mut Link,
        server: Ipv4Addr,
        client: SocketAddrV4,
        packet: &[u8],
        now: Duration,
    ) {
        stack.take_in(link, now);
        self.withdraw(stack);
        if !self.connections.contains_key(&client) && self.connections.len() < CONNECTIONS {
            self.listen(stack, server, client, now);
        }
        link.deliver(packet);
        stack.take_in(link, now);
        self.withdraw(stack);
    }

    fn listen(&mut self, stack: &mut Stack, server: Ipv4Addr, client: SocketAddrV4, now: Duration) {
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        if socket.listen((IpAddress::Ipv4(server), PORT)).is_err() {
            return;
        }
        self.connections.insert(
            client,
            Serving {
                socket: stack.sockets.add(socket),
                deadline: now + LIMIT,
                head: Vec::new(),
                accepted: false,
                answered: false,
            },
        );
    }

    /// Removes sockets that listen: one does so again whose client resets it before it is accepted.
    fn withdraw(&mut self, stack: &mut Stack) {
        self.connections.retain(|_, serving| {
            let socket = stack.sockets.get::<Socket<'_>>(serving.socket);
            let listens = socket.state() == State::Listen;
            if listens {
                stack.sockets.remove(serving.socket);
            }
            !listens
        });
    }

    /// Answers what has come. `contact` is told each new client; true if the stack has something
    /// to do now.
    pub(super) fn serve(
        &mut self,
        stack: &mut Stack,
        now: Duration,
        mut contact: impl FnMut(Ipv4Addr),
    ) -> bool {
        let mut moved = false;
        self.connections.retain(|client, serving| {
            let socket = stack.sockets.get_mut::<Socket<'_>>(serving.socket);
            if !serving.accepted && socket.may_send() {
                serving.accepted = true;
                contact(*client.ip());
            }
            moved |= serving.attend(*client, socket);
            let gone = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none(),
                State::TimeWait | State::Listen => true,
                _ if serving.deadline <= now => {
                    socket.abort();
                    moved = true;
                    false
                }
                _ => false,
            };
            if gone {
                stack.sockets.remove(serving.socket);
            }
            !gone
        });
        moved
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.connections
            .values()
            .map(|serving| serving.deadline)
            .min()
    }
}

impl Serving {
    fn attend(&mut self, client: SocketAddrV4, socket: &mut Socket<'_>) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let head = &mut self.head;
            let taken = socket.recv(|bytes| {
                head.extend_from_slice(
                    &bytes[..bytes.len().min(BUFFER.saturating_sub(head.len()))],
                );
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
            moved = true;
        }
        if !self.answered
            && let Some(answer) = answer(&self.head, *client.ip())
        {
            // The answer is shorter than the socket's empty buffer.
            let _ = socket.send_slice(answer.as_bytes());
            socket.close();
            self.answered = true;
            moved = true;
        } else if self.accepted && !socket.may_recv() && socket.may_send() {
            socket.close();
            moved = true;
        }
        moved
    }
}

fn seen_as(client: Ipv4Addr) -> String {
    format!("{{\"client\": \"{client}\"}}")
}

/// The answer to a datagram; none to one that is too long for a question.
pub(super) fn answer_datagram(question: &[u8], client: Ipv4Addr) -> Option<Vec<u8>> {
    let short = question.len() <= QUESTION;
    short.then(|| [question, seen_as(client).as_bytes()].concat())
}

/// The answer to a request's head; none while it is not complete (RFC 9112 section 2.1).
fn answer(head: &[u8], client: Ipv4Addr) -> Option<String> {
    let complete = head.windows(4).any(|end| end == b"\r\n\r\n");
    let (status, body) = if complete && (head.starts_with(b"GET ") || head.starts_with(b"HEAD ")) {
        ("200 OK", format!("{}\n", seen_as(client)))
    } else if complete {
        ("405 Method Not Allowed", String::new())
    } else if head.len() >= BUFFER {
        ("431 Request Header Fields Too Large", String::new())
    } else {
        return None;
    };
    let length = body.len();
    let sent = if head.starts_with(b"HEAD ") {
        ""
    } else {
        &body
    };
    Some(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{sent}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 7);

    #[test]
    fn a_request_is_answered_with_the_clients_address_once_it_is_complete() {
        assert_eq!(answer(b"GET / HTTP/1.1\r\nHost: x\r\n", CLIENT), None);
        let text = answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", CLIENT).unwrap();
        insta::assert_snapshot!(text.replace('\r', ""), @r#"
        HTTP/1.1 200 OK
        Content-Type: application/json
        Content-Length: 23
        Connection: close

        {"client": "10.1.2.7"}
        "#);
    }

    #[test]
    fn a_datagram_comes_back_with_the_clients_address_behind_it() {
        let answer = answer_datagram(b"0123", CLIENT).unwrap();
        insta::assert_snapshot!(String::from_utf8(answer).unwrap(), @r#"0123{"client": "10.1.2.7"}"#);
        assert!(answer_datagram(&[0; QUESTION], CLIENT).is_some());
        assert_eq!(answer_datagram(&[0; QUESTION + 1], CLIENT), None);
    }

    #[test]
    fn other_methods_and_endless_heads_are_refused() {
        let status = |head: &[u8]| {
            let text = answer(head, CLIENT).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        insta::assert_snapshot!(status(b"DELETE / HTTP/1.1\r\n\r\n"), @"HTTP/1.1 405 Method Not Allowed");
        insta::assert_snapshot!(status(&[b'a'; BUFFER]), @"HTTP/1.1 431 Request Header Fields Too Large");
    }
}
