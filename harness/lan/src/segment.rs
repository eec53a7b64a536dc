//! The handle on a running switch, with its segment or with several.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gateway::GatewayHandle;
use crate::mailbox::{Alarm, Command, Mailbox};
use crate::reactor::Reactor;
use crate::rules_handle::RulesHandle;
use crate::taps_handle::TapsHandle;
use crate::witness::Witness;
use crate::{LanError, NetworkPlan, PortCounters, SegmentState};

/// How a segment runs, apart from what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Keep the last frames (32 MiB at most, jumbo frames cut) and write them to this file, as
    /// pcapng, on [`Segment::write_capture`] and when the segment ends.
    pub capture: Option<PathBuf>,
    /// Remember the beginnings of the last frames (48 MiB at most), see [`Segment::ask`].
    pub watch: bool,
    /// Start [held](Segment::hold).
    pub start_held: bool,
    /// Octets that wait for one port at most before frames for it are dropped, and octets of memory
    /// for one port's frames that a held segment stores at most. At least one frame of 70 KiB should
    /// fit.
    pub queue_bytes: usize,
    /// How long [`Segment::hold`] waits at most for machines to take what is under way.
    pub drain_limit: Duration,
}

impl Default for SegmentOptions {
    /// No capture, not watched, not held, queues of 4 MiB (some 2700 frames of 1500 octets), half a second for a
    /// machine that is to take what is under way.
    fn default() -> Self {
        SegmentOptions {
            capture: None,
            watch: false,
            start_held: false,
            queue_bytes: 4 * 1024 * 1024,
            drain_limit: Duration::from_millis(500),
        }
    }
}

/// A running segment, or several that one switch keeps apart, see [`NetworkPlan`]: they are held, frozen,
/// captured and watched together. Dropping it stops its thread, ends all its connections and closes its
/// ports.
#[derive(Debug)]
pub struct Segment {
    mailbox: Mailbox,
    started: Instant,
    gateway: GatewayHandle,
    witness: Mutex<Witness>,
    thread: Option<JoinHandle<()>>,
}

impl Segment {
    /// Starts a segment with only the gateway on it.
    ///
    /// # Errors
    /// [`LanError::Plan`] for a plan that contradicts itself, [`LanError::System`] if the kernel
    /// gives no descriptor or thread.
    pub fn start(
        plan: impl Into<NetworkPlan>,
        options: SegmentOptions,
    ) -> Result<Segment, LanError> {
        Self::restore(plan, options, SegmentState::default())
    }

    /// Starts a segment with a frozen one's stations and frames under way. Machines
    /// find their ports by name. Usually with [`SegmentOptions::start_held`], and released once
    /// every machine runs.
    ///
    /// # Errors
    /// As [`Segment::start`].
    pub fn restore(
        plan: impl Into<NetworkPlan>,
        options: SegmentOptions,
        state: SegmentState,
    ) -> Result<Segment, LanError> {
        let plan = plan.into();
        plan.check()?;
        let system = |doing| {
            move |errno: rustix::io::Errno| LanError::System {
                doing,
                source: errno.into(),
            }
        };
        let (sender, commands) = channel();
        let alarm = Arc::new(Alarm::new().map_err(system("create an event descriptor"))?);
        let mailbox = Mailbox::new(sender, Arc::clone(&alarm));
        let reactor = Reactor::new(plan, options, state, mailbox.clone(), commands, alarm)
            .map_err(system("create an epoll descriptor"))?;
        let (started, gateway) = (reactor.started(), reactor.gateway());
        let thread = std::thread::Builder::new()
            .name("segment".to_owned())
            .spawn(|| reactor.run())
            .map_err(|source| LanError::System {
                doing: "start the segment's thread",
                source,
            })?;
        Ok(Segment {
            mailbox,
            started,
            gateway,
            witness: Mutex::default(),
            thread: Some(thread),
        })
    }

    /// Gives a machine's end of a new cable to the first segment, for QEMU's
    /// `-netdev stream,server=off,addr.type=fd,addr.str=N`. The port is named; a name whose machine
    /// has gone can be attached again and is the same port.
    ///
    /// # Errors
    /// [`LanError::PortInUse`] while a machine is attached under this name, [`LanError::System`] if
    /// the kernel gives no sockets, [`LanError::Stopped`].
    pub fn attach(&self, name: &str) -> Result<OwnedFd, LanError> {
        self.attach_to(0, name)
    }

    /// The same to the segment with this index in the plan.
    ///
    /// # Errors
    /// As [`Segment::attach`]; also [`LanError::PortInUse`] when the name is a port's of another
    /// segment, and [`LanError::NoSegment`].
    pub fn attach_to(&self, segment: usize, name: &str) -> Result<OwnedFd, LanError> {
        let name = name.to_owned();
        self.mailbox.ask(|reply| Command::Attach {
            segment,
            name,
            reply,
        })?
    }

    /// When it was started: from here on [`Sighting::at`](crate::witness::Sighting::at) counts.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Stops switching. What is switched already is given to the machines, and the call returns
    /// once they have taken it (or [`SegmentOptions::drain_limit`] has passed: one that takes nothing
    /// delays no freeze) and what they have sent is read. Everything they send from now on is kept, within bounds, until
    /// [`Segment::release`], or becomes part of [`Segment::state`].
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn hold(&self) -> Result<(), LanError> {
        self.mailbox.ask(|reply| Command::Hold { reply })
    }

    /// Switches what was held, in order, and goes on.
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn release(&self) -> Result<(), LanError> {
        self.mailbox.ask(|reply| Command::Release { reply })
    }

    /// What becomes of its frames, apart from being switched.
    #[must_use]
    pub fn rules(&self) -> RulesHandle {
        RulesHandle::new(self.mailbox.clone())
    }

    /// Lets people read along.
    #[must_use]
    pub fn taps(&self) -> TapsHandle {
        TapsHandle::new(self.mailbox.clone())
    }

    /// What went through each port; the gateway is the first.
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn counters(&self) -> Result<Vec<PortCounters>, LanError> {
        self.mailbox.ask(|reply| Command::Counters { reply })
    }

    /// The segment as data, after reading what machines still had sent. Meant for a
    /// [held](Segment::hold) segment whose machines are stopped.
    ///
    /// # Errors
    /// [`LanError::Stopped`].
    pub fn state(&self) -> Result<SegmentState, LanError> {
        self.mailbox.ask(|reply| Command::State { reply })
    }

    /// The harness's own host, which is on each segment.
    #[must_use]
    pub fn gateway(&self) -> GatewayHandle {
        self.gateway.clone()
    }

    /// Asks about what the switch saw until now. It is read by the caller's thread: the segment's own
    /// goes on switching.
    ///
    /// # Errors
    /// [`LanError::NotWatched`] without [`SegmentOptions::watch`], [`LanError::Stopped`].
    pub fn ask<T>(&self, question: impl FnOnce(&Witness) -> T) -> Result<T, LanError> {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.mailbox.ask(|reply| Command::TakeSeen { reply })?;
        let (taken, names) = taken.ok_or(LanError::NotWatched)?;
        witness.learn(taken, &names);
        Ok(question(&witness))
    }

    /// Writes what was captured so far, as a complete pcapng file, and gives its path.
    ///
    /// # Errors
    /// [`LanError::NoCapture`] without [`SegmentOptions::capture`], [`LanError::Capture`] if the
    /// file cannot be written, [`LanError::Stopped`].
    pub fn write_capture(&self) -> Result<PathBuf, LanError> {
        self.mailbox.ask(|reply| Command::WriteCapture { reply })?
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = self.mailbox.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
