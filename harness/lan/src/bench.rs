//! The switch measured against others on the same work, in one run, and against itself while it is
//! watched: against `vde_switch` (VDE 2), and against taps on a Linux bridge without vhost.
//!
//! One thread sends frames into a port, one takes them from another; between them is the switch under
//! test: a thread (ours), a process (VDE's), or the kernel (the bridge). Both ends do to it what QEMU does
//! with its netdevs, one system call for each frame that is sent; what one call reads is up to the
//! interface: some frames of a stream, one of a datagram socket or a tap. Of each as many frames are on
//! their way at most, so that a switch that drops what its receiver is too slow for is not measured by what
//! it drops; what it loses all the same is told.
//!
//! The processor time of all that takes part is told beside the clock: on a machine with few processors,
//! or with other things to do, it is the better measure. What `ksoftirqd` does for the bridge is not in it.
//!
//! Beside that, how true it is to a delay that a rule asks for.

mod bridge;
mod delay;
mod measure;
mod ours;
mod vde;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::delay::{DelayBench, DelayBenchPlan};
use self::measure::{IN_FLIGHT, SHORTEST};
use crate::LanError;
use crate::framing::MAX_FRAME;

/// How long a switch that loses everything is waited for.
const STALL: Duration = Duration::from_secs(5);

/// A switch, with what plugs machines into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// The segment's own, by QEMU's `stream` netdev.
    Ours,
    /// `vde_switch` of VDE 2, by QEMU's `vde` netdev.
    VdeSwitch,
    /// A Linux bridge, by QEMU's `tap` netdev without vhost.
    Bridge,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Switch::Ours => "ours",
            Switch::VdeSwitch => "vde_switch",
            Switch::Bridge => "taps on a bridge",
        })
    }
}

/// What to measure. The default takes some 50 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchBenchPlan {
    /// Frame lengths in octets, without the check sequence, at least 22.
    pub frame_bytes: Vec<usize>,
    /// Frames of each measurement at most.
    pub frames: u64,
    /// Time of each measurement at most.
    pub limit: Duration,
    /// Measurements of each switch with each length, taken in turns.
    pub rounds: u32,
    /// So long nothing arrives, of as many frames as may be on their way, before they are taken for lost: so
    /// much time a switch loses that drops all of them.
    pub patience: Duration,
    /// The delay that is looked at.
    pub delay: DelayBenchPlan,
}

impl Default for SwitchBenchPlan {
    fn default() -> Self {
        SwitchBenchPlan {
            frame_bytes: vec![64, 1500],
            frames: 1_000_000,
            limit: Duration::from_secs(1),
            rounds: 5,
            patience: Duration::from_millis(2),
            delay: DelayBenchPlan::default(),
        }
    }
}

/// Processor seconds of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Of the thread that sends, and of what the kernel does in its system calls.
    pub sender: f64,
    /// Of the switch's own thread or process; a bridge has none.
    pub switch: f64,
    /// Of the thread that takes the frames.
    pub receiver: f64,
}

impl Processor {
    /// Of all three.
    #[must_use]
    pub fn all(&self) -> f64 {
        self.sender + self.switch + self.receiver
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Frames received.
    pub frames: u64,
    /// Frames sent and not received.
    pub lost: u64,
    /// From the first frame sent to the last received, in seconds.
    pub seconds: f64,
    /// Frames received per second.
    pub frames_per_second: f64,
    /// 10^9 bits of frames received per second.
    pub gigabits_per_second: f64,
    /// What the processors did for that.
    pub processor: Processor,
    /// Processor time of each frame received, of all that take part, in microseconds.
    pub micros_per_frame: f64,
}

impl Rate {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a bounded run counts far fewer than 2^52 frames, of at most 68 KiB"
    )]
    fn new(
        frame_bytes: usize,
        frames: u64,
        lost: u64,
        took: Duration,
        processor: Processor,
    ) -> Self {
        let seconds = took.as_secs_f64();
        let frames_per_second = frames as f64 / seconds;
        Rate {
            frames,
            lost,
            seconds,
            frames_per_second,
            gigabits_per_second: frames_per_second * (frame_bytes * 8) as f64 / 1e9,
            processor,
            micros_per_frame: processor.all() * 1e6 / frames as f64,
        }
    }

    /// What kept it from being faster, on a machine with so many processors.
    #[must_use]
    pub fn limit(&self, processors: usize) -> Limit {
        /// A part that is at work for so much of the time has hardly any to spare.
        const BUSY: f64 = 0.85;
        let Processor {
            sender,
            switch,
            receiver,
        } = self.processor;
        #[expect(clippy::cast_precision_loss, reason = "no machine has as many")]
        let all = self.processor.all() / (self.seconds * processors.max(1) as f64);
        if all >= BUSY {
            return Limit::Processors;
        }
        let parts = [
            (sender, Limit::Sender),
            (switch, Limit::Switch),
            (receiver, Limit::Receiver),
        ];
        let busiest = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        match busiest {
            Some((time, part)) if time / self.seconds >= BUSY => part,
            _ => Limit::Waits,
        }
    }
}

/// What keeps a measurement from being faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// All of the machine's processors are at work for it.
    Processors,
    /// The end that sends is at work all the time.
    Sender,
    /// The switch is.
    Switch,
    /// The end that takes the frames is.
    Receiver,
    /// Nobody is: they wait for each other to be woken, or others had the processors.
    Waits,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Processors => "all processors",
            Limit::Sender => "who sends",
            Limit::Switch => "the switch",
            Limit::Receiver => "who receives",
            Limit::Waits => "waits",
        })
    }
}

/// A rival's measurements beside ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Who.
    pub switch: Switch,
    /// Its median measurement.
    pub rate: Rate,
    /// Our frames per second, divided by its own: the median of the rounds' ratios.
    pub ratio: f64,
    /// Its processor time for each frame, divided by ours, likewise.
    pub ratio_of_processor_time: f64,
}

/// All switches with frames of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchComparison {
    /// Octets of each frame.
    pub frame_bytes: usize,
    /// Our median measurement.
    pub ours: Rate,
    /// Our frames per second while the segment is watched, divided by those while it is not: the
    /// median of the rounds' ratios.
    pub watched: f64,
    /// Our processor time for each frame while it is not watched, divided by that while it is, likewise.
    pub watched_by_processor_time: f64,
    /// The others that are here.
    pub rivals: Vec<Rival>,
}

/// A rival that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Who.
    pub switch: Switch,
    /// Why, and what it takes.
    pub why: String,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchBench {
    /// Processors of this machine, as far as this process may use them.
    pub processors: usize,
    /// How many frames were on their way at most.
    pub in_flight: u64,
    /// For each frame length.
    pub comparisons: Vec<SwitchComparison>,
    /// How true our switch is to a delay.
    pub delay: DelayBench,
    /// With whom there is nothing to compare.
    pub missing: Vec<Missing>,
}

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A frame length the segment does not carry, or that has no room for a number.
    #[error("{frame_bytes} octets are no frame; take {SHORTEST} to {MAX_FRAME}")]
    FrameLength {
        /// The length asked for.
        frame_bytes: usize,
    },
    /// Our segment failed.
    #[error("our segment failed")]
    Segment(#[from] LanError),
    /// `vde_switch` could not be started.
    #[error("cannot start {}; it is in the package vde2", program.display())]
    NoVdeSwitch {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `vde_switch` could not be talked to.
    #[error("vde_switch: cannot {doing}")]
    Vde {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No bridge with taps can be had here.
    #[error(
        "no bridge with taps: cannot {doing}; it takes CAP_SYS_ADMIN and CAP_NET_ADMIN, as root has them or \
         who begins with `unshare --user --map-root-user --net`, the right to open /dev/net/tun, and ip(8) \
         of the package iproute2"
    )]
    NoBridge {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing came through.
    #[error("{switch}: no frame of {frame_bytes} octets came through within {} s", STALL.as_secs())]
    NothingDelivered {
        /// Which switch.
        switch: Switch,
        /// The frame length.
        frame_bytes: usize,
    },
}

/// Where the rivals' means are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rivals {
    /// The program `vde_switch`; nothing where there is none.
    pub vde_switch: Option<PathBuf>,
    /// An empty folder for its sockets, with a path of less than 80 octets.
    pub dir: PathBuf,
}

impl Rivals {
    /// Those that are here, and why the others are not.
    fn present(&self) -> (Vec<Switch>, Vec<Missing>) {
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        match &self.vde_switch {
            Some(_) => present.push(Switch::VdeSwitch),
            None => missing.push(Missing {
                switch: Switch::VdeSwitch,
                why: "vde_switch is not on the path; it is in the package vde2 (`apt-get install vde2`)"
                    .to_owned(),
            }),
        }
        match bridge::bridge() {
            Ok(_) => present.push(Switch::Bridge),
            Err(error) => missing.push(Missing {
                switch: Switch::Bridge,
                why: with_source(&error),
            }),
        }
        (present, missing)
    }

    fn measure(
        &self,
        switch: Switch,
        plan: &SwitchBenchPlan,
        frame_bytes: usize,
    ) -> Result<Rate, BenchError> {
        match (switch, &self.vde_switch) {
            (Switch::VdeSwitch, Some(program)) => {
                vde::measure(plan, frame_bytes, program, &self.dir)
            }
            (Switch::Bridge, _) => bridge::measure(plan, frame_bytes),
            _ => ours::measure(plan, frame_bytes, false),
        }
    }
}

fn with_source(error: &BenchError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error} ({source})"),
        None => error.to_string(),
    }
}

/// Compares our switch with the rivals that are here, in turns.
///
/// # Errors
/// Any [`BenchError`] but those that only say that a rival is not here.
pub fn switch(plan: &SwitchBenchPlan, rivals: &Rivals) -> Result<SwitchBench, BenchError> {
    let wrong = |length: &&usize| !(SHORTEST..=MAX_FRAME).contains(*length);
    if let Some(&frame_bytes) = plan.frame_bytes.iter().find(wrong) {
        return Err(BenchError::FrameLength { frame_bytes });
    }
    let (present, missing) = rivals.present();
    let mut comparisons = Vec::new();
    for &frame_bytes in &plan.frame_bytes {
        let (mut ours, mut watched) = (Vec::new(), Vec::new());
        let mut theirs: Vec<Vec<Rate>> = present.iter().map(|_| Vec::new()).collect();
        for _ in 0..plan.rounds.max(1) {
            ours.push(ours::measure(plan, frame_bytes, false)?);
            watched.push(ours::measure(plan, frame_bytes, true)?);
            for (switch, rates) in present.iter().zip(&mut theirs) {
                rates.push(rivals.measure(*switch, plan, frame_bytes)?);
            }
        }
        let rivals = present.iter().zip(&theirs);
        let rivals = rivals.map(|(switch, rates)| Rival {
            switch: *switch,
            rate: median_rate(rates),
            ratio: by_clock(&ours, rates),
            ratio_of_processor_time: by_processor(rates, &ours),
        });
        comparisons.push(SwitchComparison {
            frame_bytes,
            ours: median_rate(&ours),
            watched: by_clock(&watched, &ours),
            watched_by_processor_time: by_processor(&ours, &watched),
            rivals: rivals.collect(),
        });
    }
    Ok(SwitchBench {
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        in_flight: IN_FLIGHT,
        comparisons,
        delay: delay::delay(plan.delay)?,
        missing,
    })
}

/// How many times as many frames per second as the others: round by round, since what else the machine
/// does concerns both of a round.
fn by_clock(some: &[Rate], others: &[Rate]) -> f64 {
    ratio(some, others, |rate| rate.frames_per_second)
}

/// How many times as much processor time for a frame as the others.
fn by_processor(some: &[Rate], others: &[Rate]) -> f64 {
    ratio(some, others, |rate| rate.micros_per_frame)
}

fn ratio(some: &[Rate], others: &[Rate], of: impl Fn(&Rate) -> f64) -> f64 {
    let ratios = some.iter().zip(others).map(|(a, b)| of(a) / of(b));
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

/// There is one round at least.
fn median_rate(rates: &[Rate]) -> Rate {
    let mut rates = rates.to_vec();
    rates.sort_by(|a, b| a.frames_per_second.total_cmp(&b.frames_per_second));
    rates.swap_remove(rates.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(frames_per_second: f64, micros_per_frame: f64) -> Rate {
        let processor = Processor {
            sender: micros_per_frame * 400.0 / 1e6,
            switch: micros_per_frame * 400.0 / 1e6,
            receiver: micros_per_frame * 200.0 / 1e6,
        };
        let took = Duration::from_secs_f64(1000.0 / frames_per_second);
        Rate::new(64, 1000, 0, took, processor)
    }

    #[test]
    fn a_frame_costs_what_all_that_take_part_use() {
        let rate = rate(500_000.0, 3.0);
        assert!((rate.micros_per_frame - 3.0).abs() < 1e-9, "{rate:?}");
        assert!((rate.gigabits_per_second - 0.256).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn ratios_are_those_of_the_rounds() {
        // Twice as fast in each round; the machine slowed down meanwhile.
        let ours = [rate(800.0, 1.0), rate(200.0, 4.0), rate(100.0, 8.0)];
        let theirs = [rate(400.0, 3.0), rate(100.0, 12.0), rate(50.0, 24.0)];
        assert!((by_clock(&ours, &theirs) - 2.0).abs() < 1e-9);
        assert!((by_processor(&theirs, &ours) - 3.0).abs() < 1e-9);
        assert!((median_rate(&ours).frames_per_second - 200.0).abs() < 1e-9);
    }

    #[test]
    fn what_limits_it_is_who_is_at_work_all_the_time() {
        let limit = |sender, switch, receiver| {
            let processor = Processor {
                sender,
                switch,
                receiver,
            };
            Rate::new(64, 1000, 0, Duration::from_secs(1), processor).limit(4)
        };
        assert_eq!(limit(0.99, 0.4, 0.3), Limit::Sender);
        assert_eq!(limit(0.6, 0.97, 0.3), Limit::Switch);
        assert_eq!(limit(0.6, 0.0, 0.9), Limit::Receiver);
        assert_eq!(limit(0.6, 0.7, 0.3), Limit::Waits);
        assert_eq!(limit(1.0, 1.6, 0.9), Limit::Processors);
    }

    #[test]
    fn who_is_not_here_is_named_with_its_package() {
        let rivals = Rivals {
            vde_switch: None,
            dir: "/".into(),
        };
        let (present, missing) = rivals.present();
        assert!(!present.contains(&Switch::VdeSwitch));
        assert_eq!(missing[0].switch, Switch::VdeSwitch);
        insta::assert_snapshot!(missing[0].why, @"vde_switch is not on the path; it is in the package vde2 (`apt-get install vde2`)");
        // Each is one or the other.
        assert_eq!(present.len() + missing.len(), 2);
    }

    #[test]
    fn a_program_that_does_not_start_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let rivals = Rivals {
            vde_switch: Some("no-vde-here".into()),
            dir: dir.path().to_owned(),
        };
        let plan = SwitchBenchPlan {
            frames: 50,
            rounds: 1,
            ..SwitchBenchPlan::default()
        };
        let error = switch(&plan, &rivals).unwrap_err();
        insta::assert_snapshot!(error, @"cannot start no-vde-here; it is in the package vde2");
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_anything_starts() {
        for frame_bytes in [SHORTEST - 1, MAX_FRAME + 1] {
            let plan = SwitchBenchPlan {
                frame_bytes: vec![64, frame_bytes],
                ..SwitchBenchPlan::default()
            };
            let rivals = Rivals {
                vde_switch: Some("no-vde-here".into()),
                dir: "/".into(),
            };
            let error = switch(&plan, &rivals).unwrap_err();
            assert!(matches!(error, BenchError::FrameLength { .. }), "{error}");
        }
    }
}
