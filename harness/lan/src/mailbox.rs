//! The way into the segment's thread: commands, and an alarm that ends its wait.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

use crate::gateway::{ConnectRequest, ListenRequest};
use crate::label::Label;
use crate::rules::Mode;
use crate::rules::filter::AddressFilter;
use crate::rules::report::{RuleId, RulesReport};
use crate::rules::rule::Rule;
use crate::tap::Tap;
use crate::tap::filter::Filter;
use crate::witness::notes::Taken;
use crate::{LanError, PortCounters, SegmentState};

/// What the segment's thread is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Attach {
        /// The index of the segment.
        segment: usize,
        name: String,
        reply: SyncSender<Result<OwnedFd, LanError>>,
    },
    Hold {
        reply: SyncSender<()>,
    },
    Release {
        reply: SyncSender<()>,
    },
    SetRules {
        rules: Vec<Rule>,
        mode: Mode,
        reply: SyncSender<Result<Vec<RuleId>, LanError>>,
    },
    Heal {
        id: RuleId,
        reply: SyncSender<bool>,
    },
    SetFilter {
        filter: AddressFilter,
        reply: SyncSender<Result<(), LanError>>,
    },
    RemoveFilter {
        port: String,
        reply: SyncSender<Result<bool, LanError>>,
    },
    Rules {
        reply: SyncSender<RulesReport>,
    },
    Tap {
        port: Option<String>,
        filter: Filter,
        reply: SyncSender<Result<Tap, LanError>>,
    },
    Counters {
        reply: SyncSender<Vec<PortCounters>>,
    },
    State {
        reply: SyncSender<SegmentState>,
    },
    /// What the switch saw since the last time, and what all ports are called.
    TakeSeen {
        reply: SyncSender<Option<(Taken, Vec<Label>)>>,
    },
    WriteCapture {
        reply: SyncSender<Result<PathBuf, LanError>>,
    },
    Connect(ConnectRequest),
    Listen(ListenRequest),
    /// A stream's owner wrote, read or dropped.
    Nudge,
    Stop,
}

/// An event descriptor that is written at most once until the thread has seen it.
#[derive(Debug)]
pub(crate) struct Alarm {
    event: OwnedFd,
    ringing: AtomicBool,
}

impl Alarm {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Alarm {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ringing: AtomicBool::new(false),
        })
    }

    pub(crate) fn event(&self) -> &OwnedFd {
        &self.event
    }

    fn ring(&self) {
        if !self.ringing.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is about to overflow: then it rings already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Stops ringing. Commands sent from now on ring again, so read those there are after this.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        // A swap, not a store: it sees what the last sender did before it rang.
        self.ringing.swap(false, Ordering::AcqRel);
    }
}

/// Sends commands to the segment's thread.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    commands: Sender<Command>,
    alarm: Arc<Alarm>,
}

impl Mailbox {
    pub(crate) fn new(commands: Sender<Command>, alarm: Arc<Alarm>) -> Self {
        Mailbox { commands, alarm }
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), LanError> {
        self.commands.send(command).map_err(|_| LanError::Stopped)?;
        self.alarm.ring();
        Ok(())
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<T>) -> Command,
    ) -> Result<T, LanError> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| LanError::Stopped)
    }
}
