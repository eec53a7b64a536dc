//! How true our switch is to a delay: frames that a rule delays, from the moment in which one end sends
//! them to that in which the other has them.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::measure::{End, RECEIVER, SENDER, SHORTEST, frame};
use super::ours::{StreamEnd, segment};
use super::{BenchError, Switch};
use crate::frame::HEADER;
use crate::rules::rule::{Impairment, Rule};
use crate::rules::units::Time;

/// What to measure: frames of the shortest length that carries a number, in steady distances. The default
/// takes two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayBenchPlan {
    /// What the rule asks for.
    pub delay: Duration,
    /// From one frame to the next.
    pub apart: Duration,
    /// Frames.
    pub frames: u32,
}

impl Default for DelayBenchPlan {
    fn default() -> Self {
        DelayBenchPlan {
            delay: Duration::from_millis(40),
            apart: Duration::from_millis(1),
            frames: 2000,
        }
    }
}

/// The result: how much longer than asked frames took from end to end, the switch itself, two system calls
/// at each end and two threads' waking up among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayBench {
    /// What was asked for.
    pub delay: Duration,
    /// Frames that came.
    pub frames: usize,
    /// The 50th of a hundred.
    pub median: Duration,
    /// The 99th.
    pub p99: Duration,
    /// The longest.
    pub longest: Duration,
}

/// Measures it.
///
/// # Errors
/// [`BenchError::Segment`], and [`BenchError::NothingDelivered`] when a frame does not come.
pub(super) fn delay(plan: DelayBenchPlan) -> Result<DelayBench, BenchError> {
    let segment = segment(false)?;
    let mut sender = StreamEnd::new(segment.attach("sender")?);
    let mut receiver = StreamEnd::new(segment.attach("receiver")?);
    let nothing = |_| BenchError::NothingDelivered {
        switch: Switch::Ours,
        frame_bytes: SHORTEST,
    };
    // Frames to an address that nobody has had yet are flooded: to the gateway as well.
    receiver
        .send(&frame(SENDER, RECEIVER, SHORTEST))
        .map_err(nothing)?;
    sender.receive(&mut |_| ()).map_err(nothing)?;
    segment.rules().add(vec![Rule {
        impairment: Impairment {
            delay: Some(Time::from(plan.delay)),
            ..Impairment::default()
        },
        ..Rule::default()
    }])?;
    let started = Instant::now();
    let times = thread::scope(|scope| {
        let source = scope.spawn(move || source(plan, started, &mut sender));
        let arrived = take(plan, started, &mut receiver);
        let sent = source.join().unwrap_or_default();
        arrived.map(|arrived| (sent, arrived))
    });
    let (sent, arrived) = times.map_err(nothing)?;
    let pairs = sent.iter().zip(&arrived);
    let mut late: Vec<Duration> = pairs
        .map(|(sent, arrived)| arrived.saturating_sub(*sent + plan.delay))
        .collect();
    late.sort_unstable();
    let of = |hundredths: usize| {
        let index = (late.len() * hundredths).div_ceil(100).saturating_sub(1);
        late.get(index).copied().unwrap_or_default()
    };
    Ok(DelayBench {
        delay: plan.delay,
        frames: late.len(),
        median: of(50),
        p99: of(99),
        longest: of(100),
    })
}

/// Sends all of them, one after the other; when each was sent.
fn source(plan: DelayBenchPlan, started: Instant, sender: &mut StreamEnd) -> Vec<Duration> {
    let mut frame = frame(RECEIVER, SENDER, SHORTEST);
    let mut sent = Vec::new();
    for number in 0..plan.frames {
        thread::sleep((plan.apart * number).saturating_sub(started.elapsed()));
        frame[HEADER..SHORTEST].copy_from_slice(&u64::from(number).to_be_bytes());
        sent.push(started.elapsed());
        if sender.send(&frame).is_err() {
            break;
        }
    }
    sent
}

/// Takes all of them; when each came. The switch keeps their order.
fn take(
    plan: DelayBenchPlan,
    started: Instant,
    receiver: &mut StreamEnd,
) -> std::io::Result<Vec<Duration>> {
    let mut arrived = Vec::new();
    while arrived.len() < plan.frames as usize {
        let mut count = 0;
        receiver.receive(&mut |frame| count += usize::from(frame.starts_with(&RECEIVER.0)))?;
        let now = started.elapsed();
        arrived.extend(std::iter::repeat_n(now, count));
    }
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_counted_and_none_is_early() {
        let plan = DelayBenchPlan {
            delay: Duration::from_millis(5),
            apart: Duration::from_micros(100),
            frames: 50,
        };
        let bench = delay(plan).unwrap();
        assert_eq!((bench.delay, bench.frames), (plan.delay, 50));
        // What is late is compared with what was asked for: an early one would be late by nothing.
        assert!(Duration::ZERO < bench.median, "{bench:?}");
        assert!(bench.median <= bench.p99 && bench.p99 <= bench.longest);
    }
}
