//! How fast the host's time stamp counter runs.
//!
//! An emulated guest reads the host's counter (QEMU, `cpu_get_host_ticks`) and has to find out its
//! rate while it boots, against devices that are emulated too. On a loaded host it can come out
//! several times wrong, and the guest's clock then runs that many times too fast.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two readings.
const INTERVAL: Duration = Duration::from_millis(50);
/// Two measurements that differ by more, as a part of a million, count as disturbed.
const AGREEMENT: f64 = 200.0;
/// Pairs of measurements until one is not disturbed.
const ATTEMPTS: u32 = 10;
/// Readings for each end of an interval, of which the least disturbed counts.
const READINGS: u32 = 20;

/// The counter's rate in kHz; nothing where there is none, or it does not run evenly.
pub fn tsc_khz() -> Option<u32> {
    let agreed = (0..ATTEMPTS).find_map(|_| {
        let (one, two) = (measured()?, measured()?);
        ((one - two).abs() / one * 1e6 < AGREEMENT).then_some(f64::midpoint(one, two))
    });
    let khz = agreed?.round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number, small enough by the comparison"
    )]
    (1e5..1e8).contains(&khz).then_some(khz as u32)
}

fn measured() -> Option<f64> {
    let (began, first) = reading()?;
    sleep(INTERVAL);
    let (ended, last) = reading()?;
    let ticks = last.checked_sub(first)?;
    #[expect(clippy::cast_precision_loss, reason = "a second is some 2^32 ticks")]
    Some(ticks as f64 / ended.duration_since(began).as_secs_f64() / 1e3)
}

/// The counter at a moment: the reading during which the least time passed.
fn reading() -> Option<(Instant, u64)> {
    let readings = (0..READINGS).map(|_| {
        let before = Instant::now();
        let ticks = ticks()?;
        Some((before.elapsed(), before, ticks))
    });
    let least = readings.flatten().min_by_key(|(took, ..)| *took);
    least.map(|(took, before, ticks)| (before + took / 2, ticks))
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the instruction has no preconditions")]
fn ticks() -> Option<u64> {
    // SAFETY: RDTSC reads a register and nothing else; Linux lets every process use it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (tsc_khz().unwrap(), tsc_khz().unwrap());
        assert!(one.abs_diff(two) * 1000 < one, "{one} kHz, then {two} kHz");
    }
}
