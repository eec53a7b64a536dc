//! Connections: of clients to the outside host's server, and of the gateway to a machine. What the
//! gateway sends is read, so that segments fit it, nearly.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::case::Log;
use super::dice::Dice;
use super::frames::{self, Carried, GATEWAY, NODE_ADDRESS, OUTSIDE, TCP};
use super::gateway::{Subject, each};
use crate::LanError;
use crate::gateway::{ConnectRequest, SegmentStream};
use crate::mailbox::{Alarm, Command, Mailbox};

/// Connections that the machine knows of.
const PEERS: usize = 24;

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// One end of a connection, and what fits it next.
#[derive(Clone, Copy)]
struct Peer {
    /// The machine's or Pod's end.
    own: SocketAddrV4,
    /// The gateway's or the outside host's.
    other: SocketAddrV4,
    /// The next octet to send.
    seq: u32,
    /// The next octet that is waited for.
    ack: u32,
    /// What begins it, or answers a beginning.
    first: Option<u8>,
}

type Answer = oneshot::Receiver<Result<SegmentStream, LanError>>;

/// Who holds the gateway's own connections.
struct Owner {
    mailbox: Mailbox,
    commands: Receiver<Command>,
    waiting: Vec<Answer>,
    streams: Vec<SegmentStream>,
}

pub(super) fn play(dice: &mut Dice, log: &mut Log, alarm: &Arc<Alarm>) {
    let mut subject = Subject::new(dice);
    let (sender, commands) = channel();
    let mut owner = Owner {
        mailbox: Mailbox::new(sender, Arc::clone(alarm)),
        commands,
        waiting: Vec::new(),
        streams: Vec::new(),
    };
    let mut peers: Vec<Peer> = Vec::new();
    let mut frame = Vec::new();
    // In some cases more clients than there is room for.
    let crowd = dice.one_in(64);
    while !log.is_full() {
        let few = if crowd { 64 } else { 4 };
        for _ in 0..=dice.below(few) {
            if dice.percent(4) {
                owner.act(dice, log, &mut subject);
            }
            if dice.percent(3) {
                frames::arp(dice, &mut frame);
            } else {
                segment(dice, &mut frame, &mut peers, crowd);
            }
            subject.put(log, &frame);
        }
        owner.look(&mut subject);
        let sent = subject.turn(dice);
        each(sent, |frame| learn(dice, &mut peers, frame));
    }
    subject.still_answers(dice, log);
}

impl Owner {
    /// Connects, or does something with a connection that there is.
    fn act(&mut self, dice: &mut Dice, log: &mut Log, subject: &mut Subject) {
        let mut context = Context::from_waker(Waker::noop());
        let one = dice.below(self.streams.len());
        let Some(stream) = self.streams.get_mut(one).filter(|_| !dice.percent(30)) else {
            log.note("connect", &[]);
            let (reply, answer) = oneshot::channel();
            let to = SocketAddrV4::new(NODE_ADDRESS, 22);
            let limit = Duration::from_secs(5);
            let mailbox = self.mailbox.clone();
            let request = ConnectRequest {
                to,
                limit,
                reply,
                mailbox,
            };
            subject.gateway.connect(request, subject.now);
            self.waiting.push(answer);
            return;
        };
        let stream = Pin::new(stream);
        match dice.below(8) {
            0..=2 => {
                log.note("read", &[]);
                let mut room = [0; 600];
                let _ = stream.poll_read(&mut context, &mut ReadBuf::new(&mut room));
            }
            3..=5 => {
                log.note("write", &[]);
                let _ = stream.poll_write(&mut context, &[7; 2000]);
            }
            6 => {
                log.note("shut down", &[]);
                let _ = stream.poll_shutdown(&mut context);
            }
            _ => {
                log.note("drop", &[]);
                self.streams.swap_remove(one);
            }
        }
    }

    /// Takes the connections that came about; the gateway hears of what was done with others.
    fn look(&mut self, subject: &mut Subject) {
        let streams = &mut self.streams;
        self.waiting.retain_mut(|answer| match answer.try_recv() {
            Err(TryRecvError::Empty) => true,
            Ok(Ok(stream)) => {
                streams.push(stream);
                false
            }
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        });
        while self.commands.try_recv().is_ok() {
            subject.gateway.nudge();
        }
    }
}

/// A client's first, or one that belongs to a connection.
fn segment(dice: &mut Dice, out: &mut Vec<u8>, peers: &mut Vec<Peer>, crowd: bool) {
    let fresh = peers.is_empty() || dice.percent(if crowd { 90 } else { 12 });
    if fresh {
        let peer = client(dice);
        put(dice, peers, peer);
    }
    let one = if fresh {
        peers.len() - 1
    } else {
        dice.below(peers.len())
    };
    let peer = &mut peers[one];
    let other = dice.byte();
    let usual = dice.pick(&[
        ACK,
        ACK,
        ACK | 8,
        ACK | FIN,
        ACK | SYN,
        SYN,
        4,
        ACK | 4,
        FIN,
        0,
        0x3f,
        other,
    ]);
    let flags = match peer.first.take() {
        Some(first) if dice.percent(90) => first,
        _ => usual,
    };
    let (seq, ack) = (jitter(dice, peer.seq), jitter(dice, peer.ack));
    let carried = Carried {
        source: if dice.percent(92) {
            *peer.own.ip()
        } else {
            frames::source(dice)
        },
        destination: *peer.other.ip(),
        protocol: TCP,
        sum_at: 16,
    };
    let ports = (peer.own.port(), peer.other.port());
    let mut length = 0;
    frames::ipv4(dice, out, &carried, |dice, out| {
        let start = out.len();
        out.extend(ports.0.to_be_bytes());
        out.extend(ports.1.to_be_bytes());
        out.extend(seq.to_be_bytes());
        out.extend(ack.to_be_bytes());
        out.extend([0x50, flags]);
        let other = dice.short();
        out.extend(dice.pick(&[0, 1, 100, 1000, 65535, other]).to_be_bytes());
        out.extend([0, 0]);
        out.extend(dice.short().to_be_bytes());
        options(dice, out);
        let header = (out.len() - start) / 4;
        out[start + 12] = if dice.percent(3) {
            dice.byte()
        } else {
            u8::try_from(header << 4).unwrap_or(0xf0)
        };
        let data = out.len();
        if flags & SYN == 0 && dice.percent(40) {
            match dice.below(16) {
                0..=5 => out.extend(b"GET / HTTP/1.1\r\n\r\n"),
                6 => dice.octets(out, 1400),
                _ => dice.some_octets(out, 200),
            }
        }
        length = out.len() - data;
        if dice.percent(2) {
            let length = start + dice.below(out.len() - start);
            out.truncate(length);
        }
    });
    let flagged = u32::from(flags & (SYN | FIN) != 0);
    let length = u32::try_from(length).unwrap_or(0);
    peer.seq = peer.seq.wrapping_add(length + flagged);
}

fn client(dice: &mut Dice) -> Peer {
    let own = match dice.below(4) {
        0 => NODE_ADDRESS,
        _ => Ipv4Addr::new(10, 1, 1, dice.byte()),
    };
    let port = if dice.percent(2) { 0 } else { dice.short() };
    let other = match dice.below(8) {
        0 => SocketAddrV4::new(GATEWAY, dice.short()),
        1 => SocketAddrV4::new(OUTSIDE, dice.short()),
        _ => SocketAddrV4::new(OUTSIDE, 80),
    };
    Peer {
        own: SocketAddrV4::new(own, port),
        other,
        seq: dice.long(),
        ack: 0,
        first: Some(SYN),
    }
}

/// Makes it the last, in the place of another if there are many.
fn put(dice: &mut Dice, peers: &mut Vec<Peer>, peer: Peer) {
    if peers.len() >= PEERS {
        let one = dice.below(peers.len());
        peers.swap_remove(one);
    }
    peers.push(peer);
}

fn jitter(dice: &mut Dice, number: u32) -> u32 {
    match dice.below(12) {
        0 => dice.long(),
        1 => number.wrapping_add(dice.long() % 3000).wrapping_sub(1500),
        2 => number.wrapping_add(dice.long() % 4).wrapping_sub(2),
        _ => number,
    }
}

/// Right ones and wrong ones, up to a multiple of four octets.
fn options(dice: &mut Dice, out: &mut Vec<u8>) {
    let start = out.len();
    while out.len() - start < 30 && dice.percent(30) {
        match dice.below(8) {
            0 => out.push(1),
            1 => out.extend([2, 4, dice.byte(), dice.byte()]),
            2 => out.extend([3, 3, dice.byte()]),
            3 => out.extend([4, 2]),
            4 => {
                out.extend([5, 10]);
                dice.octets(out, 8);
            }
            5 => {
                out.extend([8, 10]);
                dice.octets(out, 8);
            }
            6 => out.push(0),
            _ => out.extend([dice.byte(), dice.byte()]),
        }
    }
    while !(out.len() - start).is_multiple_of(4) {
        out.push(1);
    }
}

/// What the gateway sent: what its peer waits for next, or that it has one more.
fn learn(dice: &mut Dice, peers: &mut Vec<Peer>, frame: &[u8]) {
    if frame[12..14] != [8, 0] || frame[23] != TCP {
        return;
    }
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let tcp = &frame[34..];
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let from = SocketAddrV4::new(address(26), port(0));
    let to = SocketAddrV4::new(address(30), port(2));
    let flags = tcp[13];
    let data = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    let length = u32::try_from(data).unwrap_or(0) + u32::from(flags & (SYN | FIN) != 0);
    let next = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(length);
    let known = peers
        .iter_mut()
        .find(|peer| peer.own == to && peer.other == from);
    if let Some(peer) = known {
        peer.ack = next;
    } else if flags & (SYN | ACK) == SYN {
        let peer = Peer {
            own: to,
            other: from,
            seq: dice.long(),
            ack: next,
            first: Some(SYN | ACK),
        };
        put(dice, peers, peer);
    }
}
