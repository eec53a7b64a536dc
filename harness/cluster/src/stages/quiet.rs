//! When to freeze a cluster: once its machines have little to do.
//!
//! A clone goes on with whatever the cluster was at when it was frozen, beside everything that it is
//! cloned for, and an emulator translates all the code of that anew, in each clone. Looked at from
//! outside, since every command in a guest is work for it.

use std::thread;
use std::time::{Duration, Instant};

use podwire_process::Report;
use podwire_vm::Machine;

/// What has just been done is compared with what was done before it, in two windows.
const WINDOW: Duration = Duration::from_millis(500);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Share of the processors that machines with little to do keep busy at most.
const LITTLE: f64 = 0.5;
/// By how much of the processors that may fall from one window to the next: what falls faster
/// is the end of something.
const LEVEL: f64 = 0.1;

/// Waits until the machines have little to do, or the limit is over: a cluster that never rests is
/// frozen all the same.
pub(crate) async fn quiet(machines: &[Machine], limit: Duration, report: &dyn Report) {
    report.waiting("the cluster to have little to do");
    let processors = processors(machines);
    let started = Instant::now();
    let mut load = Load::default();
    while started.elapsed() < limit {
        let times = machines.iter().map(Machine::cpu_time);
        let Ok(used) = times.sum::<Result<Duration, _>>() else {
            // It has ended; whoever talks to it next is told why.
            return;
        };
        load.0.push((started.elapsed(), used));
        if load.is_little(processors) {
            return;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// How many processors the machines can keep busy.
fn processors(machines: &[Machine]) -> u32 {
    let host = thread::available_parallelism().map_or(1, usize::from);
    let host = u32::try_from(host).unwrap_or(u32::MAX);
    let guests = machines.iter().map(|machine| machine.spec().vcpus).sum();
    host.min(guests)
}

/// Processor time that the machines have used, look by look: when, and how much until then, both
/// since the same beginning.
#[derive(Debug, Default)]
struct Load(Vec<(Duration, Duration)>);

impl Load {
    /// Whether little was done in both windows that end now, and not much less in the second.
    fn is_little(&self, processors: u32) -> bool {
        let Some((before, last)) = self.windows() else {
            return false;
        };
        let all = f64::from(processors);
        before.max(last) <= all * LITTLE && before - last <= all * LEVEL
    }

    /// How many processors were busy in the window before the last one, and in the last; nothing
    /// before both are full.
    fn windows(&self) -> Option<(f64, f64)> {
        let end = self.0.last()?;
        let at_least = |before: &(Duration, Duration)| {
            let mut looks = self.0.iter().rev();
            looks.find(|look| look.0 + WINDOW <= before.0).copied()
        };
        let middle = at_least(end)?;
        let begin = at_least(&middle)?;
        let busy = |from: (Duration, Duration), to: (Duration, Duration)| {
            (to.1.saturating_sub(from.1)).as_secs_f64() / (to.0 - from.0).as_secs_f64()
        };
        Some((busy(begin, middle), busy(middle, *end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When machines that keep so many of two processors busy, by tenths of a second, are quiet.
    fn quiet_after(busy: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut load = Load::default();
        let (mut at, mut used) = (Duration::ZERO, Duration::ZERO);
        let look = Duration::from_millis(100);
        busy.into_iter().position(|busy| {
            load.0.push((at, used));
            let quiet = load.is_little(2);
            at += look;
            used += look.mul_f64(busy);
            quiet
        })
    }

    fn then(first: f64, tenths: usize, then: f64) -> impl Iterator<Item = f64> {
        std::iter::repeat_n(first, tenths).chain(std::iter::repeat_n(then, 100))
    }

    #[test]
    fn machines_that_rest_are_seen_to_for_two_windows() {
        assert_eq!(quiet_after(then(0.0, 0, 0.0)), Some(10));
        assert_eq!(quiet_after(then(0.0, 0, 0.9)), Some(10));
    }

    #[test]
    fn busy_ones_are_waited_for_and_for_what_is_left_of_it() {
        // Both windows must lie behind the end of it.
        assert_eq!(quiet_after(then(1.9, 20, 0.3)), Some(30));
        // A little work that ends is waited for too.
        assert_eq!(quiet_after(then(0.8, 5, 0.2)), Some(14));
        // Work that begins in a quiet cluster is not.
        assert_eq!(quiet_after(then(0.2, 5, 0.4)), Some(10));
    }

    #[test]
    fn machines_that_never_rest_are_never_quiet() {
        assert_eq!(quiet_after(then(1.2, 0, 1.2)), None);
    }
}
