//! What a campaign has done and seen, for its report.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::say::text::{clock, table};

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Rounds that have come to their end.
    pub(super) rounds: usize,
    /// What was done, by its name.
    done: BTreeMap<String, usize>,
    /// What had no victim before its run was over.
    missed: usize,
    /// Signals that end a process.
    kills: usize,
    /// How the runs ended that something was done to.
    ends: BTreeMap<String, usize>,
    /// Runs afterwards that were as the reference was.
    pub(super) green: usize,
}

impl Tally {
    pub(super) fn done(&mut self, what: impl std::fmt::Display, kills: bool) {
        *self.done.entry(what.to_string()).or_default() += 1;
        self.kills += usize::from(kills);
    }

    pub(super) fn missed(&mut self, strokes: usize) {
        self.missed += strokes;
    }

    pub(super) fn ended(&mut self, status: ExitStatus) {
        *self.ends.entry(how(status)).or_default() += 1;
    }

    /// The whole report.
    pub(super) fn report(&self, seed: u64, took: Duration) -> String {
        let rows = |of: &BTreeMap<String, usize>, head: &str| {
            let mut rows = vec![vec![head.to_owned(), "times".to_owned()]];
            rows.extend(
                of.iter()
                    .map(|(what, count)| vec![what.clone(), count.to_string()]),
            );
            table(&rows)
        };
        let Self {
            rounds,
            missed,
            kills,
            green,
            ..
        } = self;
        format!(
            "{}\n{}\nseed {seed}: {rounds} rounds in {}, {kills} kills; {missed} strokes found nobody; \
             {green} runs afterwards said what the reference says\n",
            rows(&self.done, "what was done"),
            rows(&self.ends, "how those runs ended"),
            clock(took)
        )
    }
}

/// How a process ended, in words.
pub(super) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_counts_what_was_done_and_how_it_ended() {
        let mut tally = Tally {
            rounds: 2,
            green: 2,
            ..Tally::default()
        };
        tally.done("SIGKILL to a QEMU", true);
        tally.done("SIGKILL to a QEMU", true);
        tally.done("SIGSTOP for 3 s to xtask", false);
        tally.missed(1);
        tally.ended(ExitStatus::from_raw(1 << 8));
        tally.ended(ExitStatus::from_raw(9));
        insta::assert_snapshot!(tally.report(7, Duration::from_secs(125)), @"
        what was done             times
        SIGKILL to a QEMU         2
        SIGSTOP for 3 s to xtask  1

        how those runs ended  times
        exit code 1           1
        signal 9              1

        seed 7: 2 rounds in 2:05, 2 kills; 1 strokes found nobody; 2 runs afterwards said what the reference says
        ");
    }
}
