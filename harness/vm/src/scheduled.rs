//! What the host's scheduler says of a process.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

/// How long threads were on one of the host's processors, and how long they were ready to run and waited for
/// one (`/proc/PID/task/TID/schedstat`, sched-stats of the kernel's documentation).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// On a processor.
    pub ran: Duration,
    /// Ready to run, while others were on the processors.
    pub waited: Duration,
}

impl Scheduled {
    /// Of one thread's line; nothing of one that is none.
    fn read(line: &str) -> Self {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let mut next = || Duration::from_nanos(fields.next().and_then(Result::ok).unwrap_or(0));
        Self {
            ran: next(),
            waited: next(),
        }
    }
}

impl AddAssign for Scheduled {
    fn add_assign(&mut self, other: Self) {
        self.ran += other.ran;
        self.waited += other.waited;
    }
}

/// Of all threads in `/proc/PID/task`.
pub(crate) fn scheduled(tasks: &Path) -> io::Result<Scheduled> {
    let mut sum = Scheduled::default();
    for task in fs::read_dir(tasks)? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(line) => sum += Scheduled::read(&line),
            // It ended between the looks: before its file was opened, or before that was read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// Of a process's line in `/proc/PID/stat`.
pub(crate) fn cpu_time(stat: &str) -> Duration {
    // The name may hold anything; what follows its closing parenthesis does not.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_time_is_behind_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 900 900 20 0 1 0";
        assert_eq!(cpu_time(stat), Duration::from_millis(1750));
        let own = || cpu_time(&fs::read_to_string("/proc/self/stat").unwrap());
        // By work, not by the clock: on a busy machine a moment may pass without any of its time.
        let before = own();
        assert!((0..1_000_000).any(|_| own() > before));
        assert_eq!(cpu_time("debris"), Duration::ZERO);
    }

    #[test]
    fn a_thread_that_ends_meanwhile_costs_nothing_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        for thread in ["7", "8"] {
            fs::create_dir(dir.path().join(thread)).unwrap();
        }
        fs::write(dir.path().join("7/schedstat"), "1000000000 0 1\n").unwrap();
        assert_eq!(scheduled(dir.path()).unwrap().ran, Duration::from_secs(1));
        // But a process that has none is not one that did nothing.
        let gone = scheduled(&dir.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_ran_and_what_waited_is_that_of_all_threads() {
        let dir = tempfile::tempdir().unwrap();
        for (thread, line) in [("7", "1500000000 250000000 9\n"), ("8", "500000000 0 1\n")] {
            fs::create_dir(dir.path().join(thread)).unwrap();
            fs::write(dir.path().join(thread).join("schedstat"), line).unwrap();
        }
        let expected = Scheduled {
            ran: Duration::from_secs(2),
            waited: Duration::from_millis(250),
        };
        assert_eq!(scheduled(dir.path()).unwrap(), expected);
        assert_eq!(Scheduled::read("debris"), Scheduled::default());
        assert!(scheduled(&dir.path().join("gone")).is_err());
        let own = || scheduled(Path::new("/proc/self/task")).unwrap().ran;
        let before = own();
        assert!((0..1_000_000).any(|_| own() > before));
    }
}
