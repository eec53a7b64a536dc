//! What no guest of good will sends, for all that reads what guests send.
//!
//! A **case** is a fresh gateway or switch and some inputs for it. All of it follows from the case's
//! seed, time and randomness included, so that the seed brings it back. What was sent is checked on
//! the way, and at the end of a case the gateway must still answer.

mod case;
mod dice;
mod frames;
mod gateway;
mod machines;
mod rules;
mod switch;
mod tcp;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::case::{INPUTS, Log};
use self::dice::Dice;
use crate::mailbox::Alarm;

/// What is given such inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The gateway: who is where.
    Arp,
    /// The gateway's addresses for machines.
    Dhcp,
    /// The gateway's names.
    Dns,
    /// The gateway and the outside host: echo.
    Icmp,
    /// The gateway and the outside host: datagrams for nobody, and frames of any kind.
    Udp,
    /// The outside host's server, and the gateway's own connections.
    Tcp,
    /// Lengths and frames in a stream, cut anywhere, through the switch.
    Framing,
    /// What a held segment keeps, and its state, there and back.
    Held,
    /// The switch with rules, whatever they are.
    Rules,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 9] = [
        Target::Arp,
        Target::Dhcp,
        Target::Dns,
        Target::Icmp,
        Target::Udp,
        Target::Tcp,
        Target::Framing,
        Target::Held,
        Target::Rules,
    ];

    fn name(self) -> &'static str {
        match self {
            Target::Arp => "arp",
            Target::Dhcp => "dhcp",
            Target::Dns => "dns",
            Target::Icmp => "icmp",
            Target::Udp => "udp",
            Target::Tcp => "tcp",
            Target::Framing => "framing",
            Target::Held => "held",
            Target::Rules => "rules",
        }
    }

    fn play(self, dice: &mut Dice, log: &mut Log, alarm: &Arc<Alarm>) {
        match self {
            Target::Arp => gateway::play(dice, log, frames::arp),
            Target::Dhcp => gateway::play(dice, log, frames::dhcp),
            Target::Dns => gateway::play(dice, log, frames::dns),
            Target::Icmp => gateway::play(dice, log, frames::icmp),
            Target::Udp => gateway::play(dice, log, frames::udp_or_any),
            Target::Tcp => tcp::play(dice, log, alarm),
            Target::Framing => switch::framing(dice, log),
            Target::Held => switch::held(dice, log),
            Target::Rules => rules::play(dice, log),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no target of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no target {name:?}; there are: {}", Target::ALL.map(Target::name).join(", "))]
pub struct UnknownTarget {
    name: String,
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut known = Target::ALL.into_iter();
        known
            .find(|target| target.name() == name)
            .ok_or_else(|| UnknownTarget {
                name: name.to_owned(),
            })
    }
}

/// How much is tried.
#[derive(Debug, Clone)]
pub struct FuzzPlan {
    /// What gets inputs, case by case in turns.
    pub targets: Vec<Target>,
    /// Of each target's first case; the next case has the next number.
    pub seed: u64,
    /// Inputs at least, of all targets together; whole cases are played.
    pub inputs: u64,
    /// When no case is begun any more, however few there were.
    pub limit: Option<Duration>,
    /// How many cases are played at a time.
    pub threads: usize,
}

/// What was tried without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuzzReport {
    /// For each target: its inputs, and how long a thread was at it.
    pub targets: Vec<(Target, u64, Duration)>,
    /// In all.
    pub took: Duration,
}

impl FuzzReport {
    /// Of all targets.
    #[must_use]
    pub fn inputs(&self) -> u64 {
        self.targets.iter().map(|(_, inputs, _)| inputs).sum()
    }
}

/// A case that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} with seed {seed} fails at input {}: {message}", inputs.len())]
pub struct Failure {
    /// What it was given to.
    pub target: Target,
    /// The case's: a [`FuzzPlan`] for this target that begins with it fails at once.
    pub seed: u64,
    /// What the panic said; where it was stands on stderr.
    pub message: String,
    /// The case so far, one line an input: what it was, and its octets in hexadecimal. The last is the
    /// one that it failed at.
    pub inputs: Vec<String>,
}

/// Why nothing was found out, or what was.
#[derive(Debug, thiserror::Error)]
pub enum FuzzError {
    /// An input is not survived, or not answered as it should be.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The kernel refused a descriptor.
    #[error("cannot create an event descriptor; see the limit on open files (ulimit -n)")]
    System(#[source] std::io::Error),
}

/// Plays cases until there were enough inputs, the limit has passed, or one goes wrong: of several
/// the first.
///
/// # Errors
/// Any [`FuzzError`].
pub fn fuzz(plan: &FuzzPlan, progress: &(dyn Fn(u64) + Sync)) -> Result<FuzzReport, FuzzError> {
    fuzz_with(plan, progress, &Target::play)
}

type Play = dyn Fn(Target, &mut Dice, &mut Log, &Arc<Alarm>) + Sync;

fn fuzz_with(
    plan: &FuzzPlan,
    progress: &(dyn Fn(u64) + Sync),
    play: &Play,
) -> Result<FuzzReport, FuzzError> {
    let alarm = Arc::new(Alarm::new().map_err(|errno| FuzzError::System(errno.into()))?);
    let began = Instant::now();
    let turns = plan.targets.len().max(1) as u64;
    let (next, done, stop) = (
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicBool::new(plan.targets.is_empty()),
    );
    let found: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let work = || {
        let mut log = Log::default();
        let mut tried = vec![(0, Duration::ZERO); plan.targets.len()];
        while !stop.load(Ordering::Relaxed)
            && plan.limit.is_none_or(|limit| began.elapsed() < limit)
        {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number * INPUTS >= plan.inputs {
                break;
            }
            let turn = usize::try_from(number % turns).unwrap_or(0);
            let target = plan.targets[turn];
            let seed = plan.seed.wrapping_add(number / turns);
            let case_began = Instant::now();
            log.clear();
            let mut dice = Dice::new(seed);
            let played = catch_unwind(AssertUnwindSafe(|| {
                play(target, &mut dice, &mut log, &alarm);
            }));
            tried[turn].0 += log.inputs();
            tried[turn].1 += case_began.elapsed();
            progress(done.fetch_add(log.inputs(), Ordering::Relaxed) + log.inputs());
            if let Err(panic) = played {
                stop.store(true, Ordering::Relaxed);
                let failure = Failure {
                    target,
                    seed,
                    message: message(&*panic),
                    inputs: log.lines(),
                };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|(first, _)| number < *first) {
                    *found = Some((number, failure));
                }
            }
        }
        tried
    };
    let tried = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        // A worker survives what its cases do.
        let tried = workers.into_iter().flat_map(thread::ScopedJoinHandle::join);
        tried.collect::<Vec<_>>()
    });
    if let Some((_, failure)) = found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(FuzzError::Failed(Box::new(failure)));
    }
    let sum = |turn: usize| {
        let tried = tried.iter().map(|tried| tried[turn]);
        tried.fold((0, Duration::ZERO), |sum, one| {
            (sum.0 + one.0, sum.1 + one.1)
        })
    };
    Ok(FuzzReport {
        targets: (plan.targets.iter().enumerate())
            .map(|(turn, target)| (*target, sum(turn).0, sum(turn).1))
            .collect(),
        took: began.elapsed(),
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

#[cfg(test)]
mod tests;
