//! TCP: the stack that the gateway and the outside host share, and the gateway's own connections: those that it opens,
//! and those that it accepts where somebody listens.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Cidr, TcpPacket};
use tokio::sync::{mpsc, oneshot};

use super::arp;
use super::link::Link;
use super::stream::{End, PIPE, Pipe, SegmentStream, SharedPipe, lock};
use crate::mailbox::Mailbox;
use crate::{LanError, SegmentPlan};

/// Octets that a connection's socket keeps for the machine.
const SENDS: usize = 256 * 1024;

/// Octets that it keeps from the machine: as many as a window without a scale tells (RFC 7323 section 2). With one the
/// stack tells it rounded down to a unit of some octets, and so takes back a few that it has offered before, which
/// RFC 9293 (section 3.8.6) has no peer do. A peer that has sent these already may wait for ever, as this stack does
/// itself: what it has sent beyond a window of nothing it never sends again.
const RECEIVES: usize = 0xffff;

/// How long ARP asks for a machine. Three requests, as Linux does (`mcast_solicit`, arp(7)).
const ARP_LIMIT: Duration = Duration::from_secs(3);
const ARP_STEP: Duration = Duration::from_secs(1);

/// An address from which a frame came less than this ago need not be asked for
/// (`delay_first_probe_time`, arp(7)).
const ARP_FRESH: Duration = Duration::from_secs(5);

/// How long a connection that its owner has dropped may take to close in order.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may take to answer that it heard of its connection being accepted.
const ACCEPT_LIMIT: Duration = Duration::from_secs(60);

/// Accepted connections that wait for whoever listens; more are reset.
pub(super) const BACKLOG: usize = 64;

/// Connections at a time with which more are accepted; beyond them a client is refused. The stack looks at each of
/// them with every segment.
const MOST: usize = 128;

/// Ports for outgoing connections (RFC 6335 section 6).
const FIRST_PORT: u16 = 49152;
const PORTS: u16 = u16::MAX - FIRST_PORT;

/// The stack's interface and sockets.
pub(super) struct Stack {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
}

impl Stack {
    pub(super) fn new(plan: &SegmentPlan, link: &mut Link, seed: u64, now: Duration) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, link, instant(now));
        interface.update_ip_addrs(|addresses| {
            for (address, prefix) in [(plan.gateway, plan.subnet.prefix), (plan.outside, 32)] {
                // The interface holds two addresses at least (its default).
                let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix)));
            }
        });
        // Replies to Pods: the link finds the machine to send them to, whatever the router.
        let _ = interface.routes_mut().add_default_ipv4_route(plan.gateway);
        Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    pub(super) fn poll(&mut self, link: &mut Link, now: Duration) {
        self.interface.poll(instant(now), link, &mut self.sockets);
    }

    /// Takes what the link has for it, and sends nothing but resets and the like.
    pub(super) fn take_in(&mut self, link: &mut Link, now: Duration) {
        while !matches!(
            self.interface
                .poll_ingress_single(instant(now), link, &mut self.sockets),
            PollIngressSingleResult::None
        ) {}
    }

    /// When [`Stack::poll`] is due without anything coming in.
    pub(super) fn deadline(&mut self, now: Duration) -> Option<Duration> {
        self.interface
            .poll_delay(instant(now), &self.sockets)
            .map(|delay| now + Duration::from(delay))
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// A connection that somebody waits for.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    pub(crate) to: SocketAddrV4,
    pub(crate) limit: Duration,
    pub(crate) reply: oneshot::Sender<Result<SegmentStream, LanError>>,
    pub(crate) mailbox: Mailbox,
}

/// Where the gateway is to accept connections, and who gets them.
#[derive(Debug)]
pub(crate) struct ListenRequest {
    pub(crate) port: u16,
    pub(crate) clients: mpsc::Sender<SegmentStream>,
    pub(crate) reply: oneshot::Sender<Result<(), LanError>>,
    pub(crate) mailbox: Mailbox,
}

/// A port at which somebody listens, as long as `clients` is not closed.
#[derive(Debug)]
struct Listening {
    port: u16,
    clients: mpsc::Sender<SegmentStream>,
    mailbox: Mailbox,
}

/// A client that is to hear that it was accepted.
#[derive(Debug)]
struct Accepting {
    clients: mpsc::Sender<SegmentStream>,
    mailbox: Mailbox,
    deadline: Duration,
}

#[derive(Debug)]
struct Pending {
    request: ConnectRequest,
    started: Duration,
}

impl Pending {
    fn deadline(&self) -> Duration {
        self.started + self.request.limit
    }
}

/// Waits for an ARP reply.
#[derive(Debug)]
struct Resolving {
    pending: Pending,
    next_request: Duration,
}

impl Resolving {
    fn deadline(&self) -> Duration {
        self.pending
            .deadline()
            .min(self.pending.started + ARP_LIMIT)
    }
}

#[derive(Debug)]
enum Phase {
    Connecting(Pending),
    Accepting(Accepting),
    Open,
    /// The owner is gone after an orderly end; the peer has until then to end, too.
    Closing(Duration),
}

#[derive(Debug)]
struct Connection {
    socket: SocketHandle,
    /// The machine's end.
    to: SocketAddrV4,
    local_port: u16,
    pipe: SharedPipe,
    phase: Phase,
}

/// The gateway's own connections.
#[derive(Debug)]
pub(super) struct Connections {
    gateway: Ipv4Addr,
    listening: Vec<Listening>,
    resolving: Vec<Resolving>,
    open: Vec<Connection>,
    next_port: u16,
}

fn new_socket() -> Socket<'static> {
    let buffer = |octets| SocketBuffer::new(vec![0; octets]);
    let mut socket = Socket::new(buffer(RECEIVES), buffer(SENDS));
    socket.set_nagle_enabled(false);
    socket
}

/// What became of a connection in one look at it.
enum Fate {
    Keep,
    Remove,
}

impl Connections {
    pub(super) fn new(gateway: Ipv4Addr, seed: u64) -> Self {
        let offset = seed % u64::from(PORTS);
        Connections {
            gateway,
            listening: Vec::new(),
            resolving: Vec::new(),
            open: Vec::new(),
            next_port: FIRST_PORT + u16::try_from(offset).unwrap_or(0),
        }
    }

    pub(super) fn connect(&mut self, request: ConnectRequest, now: Duration) {
        self.resolving.push(Resolving {
            pending: Pending {
                request,
                started: now,
            },
            next_request: now,
        });
    }

    /// Accepts connections at a port from now on, until nobody receives them any more.
    pub(super) fn listen(
        &mut self,
        port: u16,
        clients: &mpsc::Sender<SegmentStream>,
        mailbox: &Mailbox,
    ) {
        self.listening.retain(|it| it.port != port);
        self.listening.push(Listening {
            port,
            clients: clients.clone(),
            mailbox: mailbox.clone(),
        });
    }

    /// Whether a segment asks for a connection to where somebody listens.
    pub(super) fn is_asked(&self, segment: &TcpPacket<&[u8]>) -> bool {
        segment.syn() && !segment.ack() && self.listens(segment.dst_port())
    }

    /// Whether somebody listens at a port.
    pub(super) fn listens(&self, port: u16) -> bool {
        self.listening_at(port).is_some()
    }

    fn listening_at(&self, port: u16) -> Option<&Listening> {
        let mut all = self.listening.iter();
        all.find(|it| it.port == port && !it.clients.is_closed())
    }

    /// Gives the stack a packet that asks for a connection to a port at which somebody listens. As with the outside
    /// host's server, a socket listens for this packet alone.
    pub(super) fn accept(
        &mut self,
        stack: &mut Stack,
        link: &mut Link,
        (client, port): (SocketAddrV4, u16),
        packet: &[u8],
        now: Duration,
    ) {
        stack.take_in(link, now);
        let is_known = |open: &Connection| open.to == client && open.local_port == port;
        let known = self.open.iter().any(is_known);
        let has_room = !known && self.open.len() < MOST;
        let listening = self.listening_at(port).filter(|_| has_room);
        let accepting = listening.map(|it| Accepting {
            clients: it.clients.clone(),
            mailbox: it.mailbox.clone(),
            deadline: now + ACCEPT_LIMIT,
        });
        let mut socket = new_socket();
        let at = (IpAddress::Ipv4(self.gateway), port);
        let accepting = accepting.filter(|_| socket.listen(at).is_ok());
        let socket = accepting.map(|accepting| (stack.sockets.add(socket), accepting));
        link.deliver(packet);
        stack.take_in(link, now);
        let Some((socket, accepting)) = socket else {
            return;
        };
        if stack.sockets.get::<Socket<'_>>(socket).state() == State::Listen {
            stack.sockets.remove(socket);
            return;
        }
        self.open.push(Connection {
            socket,
            to: client,
            local_port: port,
            pipe: SharedPipe::default(),
            phase: Phase::Accepting(accepting),
        });
    }

    /// Asks for addresses, and starts the connections whose address is known.
    pub(super) fn resolve(
        &mut self,
        plan: &SegmentPlan,
        link: &mut Link,
        stack: &mut Stack,
        now: Duration,
    ) {
        for mut resolving in std::mem::take(&mut self.resolving) {
            let to = resolving.pending.request.to;
            if resolving.pending.request.reply.is_closed() {
                continue;
            }
            // A machine that answered an ARP request of before this one counts as well.
            if link.heard(*to.ip(), ARP_FRESH, now) {
                self.open(resolving.pending, stack);
            } else if resolving.deadline() <= now {
                let waited = now - resolving.pending.started;
                let _ = resolving
                    .pending
                    .request
                    .reply
                    .send(Err(LanError::NoRoute { to, waited }));
            } else {
                if resolving.next_request <= now {
                    arp::request(link, self.gateway, plan.gateway_mac, *to.ip());
                    resolving.next_request = now + ARP_STEP;
                }
                self.resolving.push(resolving);
            }
        }
    }

    fn open(&mut self, pending: Pending, stack: &mut Stack) {
        let to = pending.request.to;
        let mut socket = new_socket();
        let started = self.free_port(to).and_then(|port| {
            let context = stack.interface.context();
            let local = (IpAddress::Ipv4(self.gateway), port);
            let remote = (IpAddress::Ipv4(*to.ip()), to.port());
            socket.connect(context, remote, local).ok().map(|()| port)
        });
        let Some(local_port) = started else {
            let _ = pending
                .request
                .reply
                .send(Err(LanError::NoLocalPort { to }));
            return;
        };
        self.open.push(Connection {
            socket: stack.sockets.add(socket),
            to,
            local_port,
            pipe: SharedPipe::default(),
            phase: Phase::Connecting(pending),
        });
    }

    fn free_port(&mut self, to: SocketAddrV4) -> Option<u16> {
        for _ in 0..PORTS {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let taken = |open: &Connection| open.to == to && open.local_port == port;
            if !self.open.iter().any(taken) {
                return Some(port);
            }
        }
        None
    }

    /// Moves octets between sockets and streams; true if the stack has something to do now.
    pub(super) fn pump(&mut self, stack: &mut Stack, now: Duration) -> bool {
        let mut moved = false;
        self.open.retain_mut(|connection| {
            let socket = stack.sockets.get_mut::<Socket<'_>>(connection.socket);
            match connection.attend(socket, now, &mut moved) {
                Fate::Keep => true,
                Fate::Remove => {
                    stack.sockets.remove(connection.socket);
                    false
                }
            }
        });
        moved
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let resolving = self
            .resolving
            .iter()
            .map(|resolving| resolving.next_request.min(resolving.deadline()));
        let open = self
            .open
            .iter()
            .filter_map(|connection| match &connection.phase {
                Phase::Connecting(pending) => Some(pending.deadline()),
                Phase::Accepting(accepting) => Some(accepting.deadline),
                Phase::Open => None,
                Phase::Closing(deadline) => Some(*deadline),
            });
        resolving.chain(open).min()
    }
}

impl Drop for Connections {
    /// However the segment's thread ends, nobody waits for it for ever.
    fn drop(&mut self) {
        for connection in &self.open {
            let mut pipe = lock(&connection.pipe);
            pipe.finish(End::Stopped);
            pipe.break_off(End::Stopped);
        }
    }
}

impl Connection {
    fn attend(&mut self, socket: &mut Socket<'_>, now: Duration, moved: &mut bool) -> Fate {
        if let Phase::Connecting(pending) = &mut self.phase {
            if pending.request.reply.is_closed() && socket.state() != State::Closed {
                // Nobody waits any more: a reset follows, if the machine knows of the connection.
                socket.abort();
                lock(&self.pipe).dropped = true;
                self.phase = Phase::Open;
                *moved = true;
                return Fate::Keep;
            }
            let limit = pending.request.limit;
            let result = match socket.state() {
                State::SynSent | State::SynReceived if now < pending.deadline() => {
                    return Fate::Keep;
                }
                State::SynSent | State::SynReceived => {
                    Err(LanError::TimedOut { to: self.to, limit })
                }
                State::Closed => Err(LanError::Refused { to: self.to }),
                _ => Ok(()),
            };
            let Phase::Connecting(pending) = std::mem::replace(&mut self.phase, Phase::Open) else {
                return Fate::Keep;
            };
            let ConnectRequest { reply, mailbox, .. } = pending.request;
            if let Err(error) = result {
                let _ = reply.send(Err(error));
                return Fate::Remove;
            }
            // A stream that nobody receives is dropped right here, which resets the connection.
            let _ = reply.send(Ok(SegmentStream::new(
                SharedPipe::clone(&self.pipe),
                mailbox,
            )));
        }
        if let Phase::Accepting(accepting) = &self.phase {
            match socket.state() {
                // Reset by the client before it was accepted: the socket listens again.
                State::Listen | State::Closed => return Fate::Remove,
                State::SynReceived if now < accepting.deadline => return Fate::Keep,
                State::SynReceived => {
                    socket.abort();
                    lock(&self.pipe).dropped = true;
                    *moved = true;
                }
                _ => {
                    let pipe = SharedPipe::clone(&self.pipe);
                    let stream = SegmentStream::new(pipe, accepting.mailbox.clone());
                    // One that nobody takes is dropped right here, which resets the connection.
                    let _ = accepting.clients.try_send(stream);
                }
            }
            self.phase = Phase::Open;
        }
        let mut pipe = lock(&self.pipe);
        pipe.nudged = false;
        if pipe.dropped {
            // Nobody will read it; the peer must still be able to end.
            pipe.received.clear();
        }
        *moved |= send(&mut pipe, socket);
        *moved |= receive(&mut pipe, socket);
        if !pipe.dropped {
            return Fate::Keep;
        }
        match (socket.state(), &self.phase) {
            // An aborted socket owes its peer a reset, and has a peer until that is sent.
            (State::Closed, _) if socket.remote_endpoint().is_some() => {}
            (State::Closed | State::TimeWait, _) => return Fate::Remove,
            (_, Phase::Open) if pipe.shut => self.phase = Phase::Closing(now + CLOSE_LIMIT),
            (_, Phase::Closing(deadline)) if *deadline > now => {}
            _ => {
                socket.abort();
                *moved = true;
            }
        }
        Fate::Keep
    }
}

fn send(pipe: &mut Pipe, socket: &mut Socket<'_>) -> bool {
    let mut moved = false;
    while !pipe.sending.is_empty() && socket.can_send() {
        let (head, _) = pipe.sending.as_slices();
        let Ok(count) = socket.send_slice(head) else {
            break;
        };
        pipe.sending.drain(..count);
        moved |= count > 0;
    }
    if moved {
        pipe.wake_writer();
    }
    if pipe.shut && pipe.sending.is_empty() && socket.may_send() {
        socket.close();
        moved = true;
    }
    moved
}

fn receive(pipe: &mut Pipe, socket: &mut Socket<'_>) -> bool {
    let mut moved = false;
    while socket.can_recv() {
        let room = PIPE.saturating_sub(pipe.received.len());
        if room == 0 {
            pipe.stalled = true;
            break;
        }
        let count = socket.recv(|bytes| {
            let count = bytes.len().min(room);
            pipe.received.extend(&bytes[..count]);
            (count, count)
        });
        moved |= count.is_ok_and(|count| count > 0);
    }
    if moved {
        pipe.wake_reader();
    }
    if socket.state() == State::Closed && !(pipe.shut && pipe.sending.is_empty()) {
        pipe.break_off(End::Reset);
    }
    if !socket.can_recv() && !socket.may_recv() {
        match socket.recv(|_| (0, ())) {
            Err(RecvError::Finished) => pipe.finish(End::Finished),
            _ => pipe.finish(End::Reset),
        }
    }
    moved
}
