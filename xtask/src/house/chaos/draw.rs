//! What is done to podwire in each round of a campaign: plain data, drawn from a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// A part of something, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part(u16);

impl Part {
    fn any(dice: &mut Rng) -> Self {
        Self(dice.u16(..1000))
    }

    /// Of the time that a run takes: one that is struck ends sooner, and would not be there any more.
    fn early(dice: &mut Rng) -> Self {
        Self(dice.u16(..600))
    }

    /// That part of a number.
    pub(super) fn of(self, whole: u64) -> u64 {
        whole / 1000 * u64::from(self.0) + whole % 1000 * u64::from(self.0) / 1000
    }

    /// That part of a time.
    pub(super) fn of_time(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / 1000
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} %", self.0 / 10, self.0 % 10)
    }
}

/// Which of several is meant: the remainder by their number, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Which(u16);

impl Which {
    /// One of them; nothing of none.
    pub(super) fn of<T>(self, several: &[T]) -> Option<&T> {
        several.get(usize::from(self.0).checked_rem(several.len())?)
    }
}

/// The processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    Qemu,
    Scenario,
    Nextest,
    Xtask,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "a QEMU",
            Self::Scenario => "a scenario's process",
            Self::Nextest => "nextest",
            Self::Xtask => "xtask",
        })
    }
}

/// What a victim gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Kill,
    Terminate,
    /// It is stopped, and goes on after so long.
    Stop(Duration),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => write!(f, "SIGKILL"),
            Self::Terminate => write!(f, "SIGTERM"),
            Self::Stop(time) => write!(f, "SIGSTOP for {} s", time.as_secs()),
        }
    }
}

/// One signal to one process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stroke {
    /// When: after that part of the time that such a run takes by itself, and as soon as there is such
    /// a process.
    pub(super) after: Part,
    pub(super) victim: Victim,
    pub(super) which: Which,
    pub(super) deed: Deed,
}

impl fmt::Display for Stroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            after,
            victim,
            deed,
            ..
        } = self;
        write!(f, "at {after} of a run {deed} to {victim}")
    }
}

/// What is cut short between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A machine's memory, state or disk in a stage.
    StageFile,
    /// A stage's manifest.
    StageManifest,
    /// What podwire notes in files of its own: durations, verdicts, which order led to which image.
    Note,
    /// A file of an image, a bundle or a tool.
    Sealed,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StageFile => "a file of a stage",
            Self::StageManifest => "a stage's manifest",
            Self::Note => "a note of the cache",
            Self::Sealed => "a file of an image, a bundle or a tool",
        })
    }
}

/// What happens in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Signals to a run's processes, one after the other.
    Strikes {
        /// How many of the newest stages are removed before, so that the run is at work on them; as far as
        /// there are so many.
        anew: u16,
        strokes: Vec<Stroke>,
    },
    /// The disk is full while stages are made: so many MiB find room on it, and no more.
    Full { room_mib: u16 },
    /// A file loses its end.
    Cut {
        target: Target,
        which: Which,
        /// What is left of it.
        left: Part,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strikes { anew, strokes } => {
                if *anew > 0 {
                    write!(f, "without the {anew} newest of the stages, ")?;
                }
                let strokes: Vec<String> = strokes.iter().map(Stroke::to_string).collect();
                write!(f, "{}", strokes.join("; "))
            }
            Self::Full { room_mib } => {
                write!(f, "the disk of the stages is full at {room_mib} MiB")
            }
            Self::Cut { target, left, .. } => write!(f, "{target} is cut to {left}"),
        }
    }
}

/// The rounds of a campaign, without an end: the same ones with the same seed.
pub(super) fn rounds(seed: u64) -> impl Iterator<Item = Act> {
    let mut dice = Rng::with_seed(seed);
    std::iter::repeat_with(move || act(&mut dice))
}

fn act(dice: &mut Rng) -> Act {
    match dice.u8(..20) {
        0 => Act::Full {
            room_mib: dice.u16(16..900),
        },
        1 | 2 => Act::Cut {
            target: match dice.u8(..4) {
                0 => Target::StageFile,
                1 => Target::StageManifest,
                2 => Target::Note,
                _ => Target::Sealed,
            },
            which: Which(dice.u16(..)),
            left: Part::any(dice),
        },
        _ => strikes(dice),
    }
}

fn strikes(dice: &mut Rng) -> Act {
    let anew = match dice.u8(..6) {
        0 => dice.u16(1..4),
        _ => 0,
    };
    let mut strokes: Vec<Stroke> = (0..dice.u8(1..17))
        .map(|_| {
            let victim = match (anew, dice.u8(..2)) {
                (0, 1) => Victim::Scenario,
                _ => Victim::Qemu,
            };
            stroke(dice, victim)
        })
        .collect();
    // These end the run they are sent to for certain.
    for victim in [Victim::Nextest, Victim::Xtask] {
        // There is no nextest yet where stages are made.
        if dice.bool() && (anew == 0 || victim == Victim::Xtask) {
            strokes.push(stroke(dice, victim));
        }
    }
    let mut times: Vec<Part> = strokes.iter().map(|stroke| stroke.after).collect();
    times.sort_unstable();
    for (stroke, after) in strokes.iter_mut().zip(times) {
        stroke.after = after;
    }
    Act::Strikes { anew, strokes }
}

fn stroke(dice: &mut Rng, victim: Victim) -> Stroke {
    Stroke {
        after: Part::early(dice),
        victim,
        which: Which(dice.u16(..)),
        deed: match dice.u8(..6) {
            0..3 => Deed::Kill,
            3 | 4 => Deed::Terminate,
            _ => Deed::Stop(Duration::from_secs(dice.u64(1..6))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_rounds_and_another_gives_others() {
        let first = |seed| rounds(seed).take(200).collect::<Vec<Act>>();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
        let lines: Vec<String> = rounds(7).take(12).map(|act| act.to_string()).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        at 0.0 % of a run SIGKILL to a scenario's process; at 3.3 % of a run SIGSTOP for 1 s to a scenario's process; at 13.6 % of a run SIGKILL to a scenario's process; at 13.8 % of a run SIGKILL to a QEMU; at 29.9 % of a run SIGSTOP for 1 s to a scenario's process; at 36.3 % of a run SIGKILL to a QEMU; at 58.5 % of a run SIGKILL to a scenario's process
        at 8.6 % of a run SIGKILL to a scenario's process; at 12.5 % of a run SIGTERM to a QEMU; at 22.2 % of a run SIGTERM to a scenario's process; at 25.5 % of a run SIGTERM to a QEMU; at 31.5 % of a run SIGKILL to a QEMU; at 32.1 % of a run SIGKILL to a scenario's process; at 47.2 % of a run SIGKILL to a QEMU; at 47.4 % of a run SIGKILL to a QEMU; at 47.8 % of a run SIGKILL to a QEMU; at 53.8 % of a run SIGSTOP for 4 s to xtask
        without the 1 newest of the stages, at 2.3 % of a run SIGTERM to a QEMU; at 2.5 % of a run SIGSTOP for 5 s to a QEMU; at 10.6 % of a run SIGKILL to a QEMU; at 12.1 % of a run SIGSTOP for 5 s to a QEMU; at 13.3 % of a run SIGTERM to a QEMU; at 22.5 % of a run SIGKILL to a QEMU; at 23.4 % of a run SIGKILL to a QEMU; at 23.9 % of a run SIGKILL to a QEMU; at 24.2 % of a run SIGKILL to a QEMU; at 25.2 % of a run SIGKILL to a QEMU; at 31.5 % of a run SIGTERM to a QEMU; at 34.1 % of a run SIGKILL to a QEMU; at 44.5 % of a run SIGKILL to a QEMU; at 48.6 % of a run SIGTERM to a QEMU; at 57.4 % of a run SIGKILL to a QEMU; at 58.5 % of a run SIGKILL to a QEMU
        without the 2 newest of the stages, at 9.5 % of a run SIGTERM to a QEMU; at 37.0 % of a run SIGKILL to xtask
        at 13.6 % of a run SIGKILL to a QEMU; at 18.7 % of a run SIGKILL to a QEMU; at 23.9 % of a run SIGKILL to a scenario's process; at 24.1 % of a run SIGKILL to a QEMU; at 26.5 % of a run SIGKILL to a scenario's process; at 26.8 % of a run SIGKILL to a QEMU; at 34.0 % of a run SIGKILL to a scenario's process; at 34.3 % of a run SIGSTOP for 1 s to a scenario's process; at 44.8 % of a run SIGKILL to a QEMU; at 45.9 % of a run SIGSTOP for 1 s to nextest
        at 1.1 % of a run SIGTERM to a QEMU; at 1.2 % of a run SIGSTOP for 2 s to a QEMU; at 4.0 % of a run SIGTERM to a QEMU; at 15.2 % of a run SIGTERM to a scenario's process; at 26.0 % of a run SIGSTOP for 1 s to a scenario's process; at 26.7 % of a run SIGKILL to a scenario's process; at 27.8 % of a run SIGSTOP for 3 s to a scenario's process; at 30.7 % of a run SIGKILL to a scenario's process; at 37.4 % of a run SIGKILL to a scenario's process; at 40.8 % of a run SIGKILL to a scenario's process; at 42.6 % of a run SIGKILL to a scenario's process; at 49.4 % of a run SIGTERM to a scenario's process; at 49.4 % of a run SIGSTOP for 3 s to a scenario's process; at 59.8 % of a run SIGTERM to nextest
        at 0.3 % of a run SIGKILL to a scenario's process; at 5.5 % of a run SIGKILL to a scenario's process; at 9.2 % of a run SIGTERM to a scenario's process; at 11.7 % of a run SIGSTOP for 3 s to a QEMU; at 22.3 % of a run SIGKILL to a QEMU; at 25.6 % of a run SIGTERM to a scenario's process; at 26.7 % of a run SIGSTOP for 5 s to a QEMU; at 38.2 % of a run SIGTERM to nextest
        a note of the cache is cut to 11.3 %
        at 1.7 % of a run SIGTERM to a scenario's process; at 12.9 % of a run SIGTERM to a QEMU; at 13.3 % of a run SIGKILL to a scenario's process; at 18.0 % of a run SIGTERM to a QEMU; at 24.0 % of a run SIGSTOP for 4 s to a scenario's process; at 38.7 % of a run SIGKILL to a scenario's process; at 41.7 % of a run SIGTERM to a scenario's process; at 42.2 % of a run SIGKILL to a scenario's process; at 56.1 % of a run SIGKILL to nextest
        at 0.8 % of a run SIGKILL to a scenario's process; at 12.0 % of a run SIGSTOP for 4 s to a scenario's process; at 15.4 % of a run SIGKILL to a QEMU; at 15.5 % of a run SIGSTOP for 3 s to a QEMU; at 16.9 % of a run SIGTERM to a scenario's process; at 56.0 % of a run SIGTERM to a QEMU; at 58.0 % of a run SIGKILL to a QEMU
        at 13.9 % of a run SIGSTOP for 5 s to a scenario's process; at 14.2 % of a run SIGTERM to a QEMU; at 16.3 % of a run SIGSTOP for 4 s to a scenario's process; at 25.7 % of a run SIGTERM to a QEMU; at 26.7 % of a run SIGTERM to a QEMU; at 54.2 % of a run SIGTERM to xtask
        at 14.8 % of a run SIGTERM to a QEMU; at 15.4 % of a run SIGKILL to a QEMU; at 29.6 % of a run SIGKILL to nextest; at 43.1 % of a run SIGTERM to xtask
        ");
    }

    #[test]
    fn every_victim_gets_every_signal_and_everything_is_cut() {
        let all: Vec<Act> = rounds(1).take(2000).collect();
        let lines = all
            .iter()
            .map(Act::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        for victim in [
            Victim::Qemu,
            Victim::Scenario,
            Victim::Nextest,
            Victim::Xtask,
        ] {
            for deed in [
                Deed::Kill,
                Deed::Terminate,
                Deed::Stop(Duration::from_secs(5)),
            ] {
                let stroke = format!("{deed} to {victim}");
                assert!(lines.contains(&stroke), "{stroke}");
            }
        }
        for target in [
            Target::StageFile,
            Target::StageManifest,
            Target::Note,
            Target::Sealed,
        ] {
            assert!(lines.contains(&format!("{target} is cut")), "{target}");
        }
        assert!(lines.contains("without the 3 newest") && lines.contains("is full at"));
    }

    #[test]
    fn strokes_are_in_the_order_of_their_times_and_what_ends_a_run_comes_last() {
        for act in rounds(3).take(2000) {
            let Act::Strikes { anew, strokes } = act else {
                continue;
            };
            assert!(
                strokes.is_sorted_by_key(|stroke| stroke.after),
                "{strokes:?}"
            );
            let early = |stroke: &Stroke| [Victim::Qemu, Victim::Xtask].contains(&stroke.victim);
            assert!(anew == 0 || strokes.iter().all(early), "{strokes:?}");
            let ends = |stroke: &Stroke| stroke.victim >= Victim::Nextest;
            assert!(strokes.is_sorted_by_key(ends), "{strokes:?}");
            assert!(!strokes.is_empty());
        }
    }

    #[test]
    fn parts_are_less_than_the_whole() {
        assert_eq!(Part(0).of(999), 0);
        assert_eq!(Part(999).of(1), 0);
        assert_eq!(Part(500).of(u64::MAX), u64::MAX / 1000 * 500 + 307);
        assert_eq!(
            Part(250).of_time(Duration::from_secs(8)),
            Duration::from_secs(2)
        );
        assert_eq!(Part(1).to_string(), "0.1 %");
        assert_eq!(Which(7).of(&['a', 'b', 'c']), Some(&'b'));
        assert_eq!(Which(7).of::<u8>(&[]), None);
    }
}
