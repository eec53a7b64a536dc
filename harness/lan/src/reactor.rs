//! The segment's thread: sockets, the switch between them, the gateway behind it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use crate::capture::Capture;
use crate::framing::{Filled, FrameBuffer};
use crate::gateway::{GatewayHandle, Gateways};
use crate::label::SegmentNumber;
use crate::mac_table::AGEING;
use crate::mailbox::{Alarm, Command, Mailbox};
use crate::switch::Switch;
use crate::witness::notes::Notes;
use crate::{LanError, NetworkPlan, SegmentOptions, SegmentState};

/// The gateway's port on the first segment; on the second it is `gateway-2`.
const GATEWAY: &str = "gateway";

/// What epoll reports for the alarm; ports report their number.
const ALARM: u64 = u64::MAX;

/// What the kernel is asked to buffer for each direction of a cable. It grants less where
/// `net.core.wmem_max` is lower, without an error.
const SOCKET_BUFFER: usize = 1024 * 1024;

/// How often a wait for machines looks whether they have: nothing reports that a peer has read.
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// Reads from one port in a row, so that one that never stops sending cannot keep a drain going.
const DRAIN_READS: usize = 64;

#[derive(Debug)]
struct Cable {
    socket: OwnedFd,
    input: FrameBuffer,
    /// The socket took less than the queue had: epoll says when it takes more.
    blocked: bool,
}

#[derive(Debug)]
struct PendingHold {
    reply: SyncSender<()>,
    deadline: Duration,
}

pub(crate) struct Reactor {
    epoll: OwnedFd,
    alarm: Arc<Alarm>,
    commands: Receiver<Command>,
    started: Instant,
    switch: Switch,
    /// By port; none for the gateway and for machines that are not attached.
    cables: Vec<Option<Cable>>,
    gateways: Gateways,
    mailbox: Mailbox,
    holds: Vec<PendingHold>,
    drain_limit: Duration,
}

impl Reactor {
    pub(crate) fn new(
        plan: NetworkPlan,
        options: SegmentOptions,
        state: SegmentState,
        mailbox: Mailbox,
        commands: Receiver<Command>,
        alarm: Arc<Alarm>,
    ) -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            alarm.event(),
            epoll::EventData::new_u64(ALARM),
            epoll::EventFlags::IN,
        )?;
        let started = Instant::now();
        let now = clock(started);
        let capture = options.capture.map(|path| Capture::new(path, now));
        let switch = Switch::new(options.queue_bytes, options.start_held, capture);
        let mut switch = switch.with_segments(plan.segments.len());
        if options.watch {
            switch.watch();
        }
        let attach = |segment| {
            let name = match segment {
                0 => GATEWAY.to_owned(),
                _ => format!("{GATEWAY}-{}", segment + 1),
            };
            let port = switch.port_on(segment, &name);
            switch.attach(port);
            port
        };
        let gateways = Gateways::new(plan, attach, now);
        switch.restore(state, now);
        Ok(Reactor {
            epoll,
            alarm,
            commands,
            started,
            switch,
            cables: Vec::new(),
            gateways,
            mailbox,
            holds: Vec::new(),
            drain_limit: options.drain_limit,
        })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn gateway(&self) -> GatewayHandle {
        self.gateways.handle(self.mailbox.clone())
    }

    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the segment's wait failed; the segment ends");
                    break;
                }
            }
            let now = clock(self.started);
            self.switch.send_due(now);
            for event in &events {
                match event.data.u64() {
                    ALARM => self.alarm.silence(),
                    port => self.serve(
                        usize::try_from(port).unwrap_or(usize::MAX),
                        event.flags,
                        now,
                    ),
                }
            }
            if self.obey(now) {
                break;
            }
            self.gateways.run(&mut self.switch, now);
            // What waits for ports of a frozen or restored segment is part of its state: nothing of
            // it leaves before the release.
            if !self.switch.is_held() || !self.holds.is_empty() {
                self.flush();
            }
            self.finish_holds(now);
        }
        self.end();
    }

    fn timeout(&mut self) -> Option<Timespec> {
        let now = clock(self.started);
        let hold = (!self.holds.is_empty()).then_some(DRAIN_STEP);
        let gateways = self.gateways.deadline();
        let gateways = gateways.map(|deadline| deadline.saturating_sub(now));
        let delayed = self.switch.first_due();
        let delayed = delayed.map(|due| due.saturating_sub(now));
        let wait = hold.into_iter().chain(gateways).chain(delayed).min()?;
        Timespec::try_from(wait).ok()
    }

    /// Obeys all commands there are; true when the segment is to end.
    fn obey(&mut self, now: Duration) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach {
                    segment,
                    name,
                    reply,
                } => {
                    let _ = reply.send(self.attach(segment, &name));
                }
                Command::Hold { reply } => {
                    self.switch.hold();
                    self.holds.push(PendingHold {
                        reply,
                        deadline: now + self.drain_limit,
                    });
                }
                Command::Release { reply } => {
                    self.switch.release(now);
                    let _ = reply.send(());
                }
                Command::SetRules { rules, mode, reply } => {
                    let _ = reply.send(self.switch.set_rules(&rules, mode));
                }
                Command::Heal { id, reply } => {
                    let _ = reply.send(self.switch.heal(id));
                }
                Command::SetFilter { filter, reply } => {
                    let _ = reply.send(self.switch.set_filter(filter));
                }
                Command::RemoveFilter { port, reply } => {
                    let _ = reply.send(self.switch.remove_filter(&port));
                }
                Command::Tap {
                    port,
                    filter,
                    reply,
                } => {
                    let _ = reply.send(self.switch.tap(port.as_deref(), filter));
                }
                Command::Rules { reply } => {
                    let _ = reply.send(self.switch.rules());
                }
                Command::Counters { reply } => {
                    let _ = reply.send(self.switch.counters());
                }
                Command::State { reply } => {
                    self.drain_inputs(now);
                    let _ = reply.send(self.switch.state(now));
                }
                Command::TakeSeen { reply } => {
                    let labels = self.switch.labels();
                    let taken = self.switch.notes().map(Notes::take);
                    let _ = reply.send(taken.map(|taken| (taken, labels)));
                }
                Command::WriteCapture { reply } => {
                    let _ = reply.send(self.write_capture());
                }
                Command::Connect(request) => self.gateways.connect(request, now),
                Command::Listen(request) => self.gateways.listen(request),
                Command::Nudge => self.gateways.nudge(),
                Command::Stop => return true,
            }
        }
        false
    }

    fn attach(&mut self, segment: usize, name: &str) -> Result<OwnedFd, LanError> {
        if segment >= self.switch.segments() {
            return Err(LanError::NoSegment {
                segment: SegmentNumber::of_index(segment),
                name: name.to_owned(),
            });
        }
        let port = self.switch.port_on(segment, name);
        // The port of that name may be on another segment.
        if self.switch.is_attached(port) || self.switch.segment_of(port) != segment {
            return Err(LanError::PortInUse {
                name: name.to_owned(),
            });
        }
        let (ours, theirs) = self.cable(port).map_err(|errno| LanError::System {
            doing: "create a pair of sockets for a port",
            source: errno.into(),
        })?;
        self.cables.resize_with(self.switch.ports(), || None);
        self.cables[port] = Some(Cable {
            socket: ours,
            input: FrameBuffer::new(),
            blocked: false,
        });
        self.switch.attach(port);
        Ok(theirs)
    }

    fn cable(&self, port: usize) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        for socket in [&ours, &theirs] {
            sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER)?;
        }
        epoll::add(
            &self.epoll,
            &ours,
            epoll::EventData::new_u64(port as u64),
            epoll::EventFlags::IN,
        )?;
        Ok((ours, theirs))
    }

    fn write_capture(&self) -> Result<std::path::PathBuf, LanError> {
        let capture = self.switch.capture().ok_or(LanError::NoCapture)?;
        let path = capture.path().to_owned();
        match capture.flush(&self.switch.labels()) {
            Ok(()) => Ok(path),
            Err(source) => Err(LanError::Capture { path, source }),
        }
    }

    fn serve(&mut self, port: usize, ready: epoll::EventFlags, now: Duration) {
        if ready.contains(epoll::EventFlags::OUT)
            && let Some(cable) = self.cables.get_mut(port).and_then(Option::as_mut)
        {
            cable.blocked = false;
            watch(&self.epoll, cable, port);
        }
        if ready.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            self.read(port, now);
        }
    }

    /// Reads once from a port and switches it.
    fn read(&mut self, port: usize, now: Duration) -> Filled {
        let Some(cable) = self.cables.get_mut(port).and_then(Option::as_mut) else {
            return Filled::Closed;
        };
        let filled = cable.input.fill(&cable.socket);
        match self.switch.ingress(port, cable.input.bytes(), now) {
            Ok(taken) => cable.input.consume(taken),
            Err(oversized) => {
                tracing::warn!(
                    port,
                    length = oversized.length,
                    "a length no frame has: the machine's connection ends"
                );
                self.switch.count_oversized(port);
                self.detach(port);
                return Filled::Closed;
            }
        }
        if filled == Filled::Closed {
            self.detach(port);
        }
        filled
    }

    /// Reads from every port until it is empty.
    fn drain_inputs(&mut self, now: Duration) {
        for port in 0..self.cables.len() {
            for _ in 0..DRAIN_READS {
                if self.read(port, now) != Filled::More {
                    break;
                }
            }
        }
    }

    fn detach(&mut self, port: usize) {
        // Closing the only descriptor of the socket also takes it off epoll's list.
        self.cables[port] = None;
        self.switch.detach(port);
    }

    /// Writes what waits for ports, to those that take it.
    fn flush(&mut self) {
        for port in 0..self.cables.len() {
            let Some(cable) = &mut self.cables[port] else {
                continue;
            };
            let queue = self.switch.queue(port);
            let mut gone = false;
            while !cable.blocked && !queue.is_empty() {
                match rustix::io::writev(&cable.socket, &queue.slices()) {
                    Ok(count) => queue.consume(count),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        cable.blocked = true;
                        watch(&self.epoll, cable, port);
                    }
                    Err(_) => {
                        gone = true;
                        break;
                    }
                }
            }
            if gone {
                self.detach(port);
            }
        }
    }

    fn finish_holds(&mut self, now: Duration) {
        if self.holds.is_empty() {
            return;
        }
        let delivered = (0..self.cables.len()).all(|port| {
            self.cables[port].as_ref().is_none_or(|cable| {
                self.switch.queue(port).is_empty() && unread(&cable.socket) == 0
            })
        });
        if delivered || self.holds.iter().all(|hold| hold.deadline <= now) {
            self.drain_inputs(now);
            for hold in self.holds.drain(..) {
                let _ = hold.reply.send(());
            }
        }
    }

    fn end(self) {
        if self.switch.capture().is_some()
            && let Err(error) = self.write_capture()
        {
            tracing::error!(%error, "the segment's capture is lost");
        }
    }
}

/// Time since an origin that lies one ageing time before the segment's start, as
/// [`crate::mac_table`] asks for.
fn clock(started: Instant) -> Duration {
    AGEING + started.elapsed()
}

fn watch(epoll: &OwnedFd, cable: &Cable, port: usize) {
    let wanted = if cable.blocked {
        epoll::EventFlags::IN | epoll::EventFlags::OUT
    } else {
        epoll::EventFlags::IN
    };
    if let Err(error) = epoll::modify(
        epoll,
        &cable.socket,
        epoll::EventData::new_u64(port as u64),
        wanted,
    ) {
        tracing::error!(port, %error, "epoll lost a port");
    }
}

/// Octets that were written to a socket and that its peer has not read.
#[expect(unsafe_code, reason = "no safe wrapper of SIOCOUTQ exists")]
fn unread(socket: impl AsFd) -> i32 {
    /// `SIOCOUTQ` of unix(7), with the same number on all of Linux's generic architectures.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: SIOCOUTQ stores one int through its argument (unix(7)), which is what Getter gives.
    let size =
        unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) };
    size.unwrap_or(0)
}
