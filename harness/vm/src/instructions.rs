//! How many instructions the host's processors carry out for machines.

use std::fs;
use std::io;
use std::path::Path;

use perf_event::events::{Event, Hardware};
use perf_event::{Builder, Counter};
use rustix::io::Errno;

use crate::machine::Machine;

/// Counting that goes on: of QEMU's threads, and with KVM of what the guest does in them, kernels included
/// (`PERF_COUNT_HW_INSTRUCTIONS`, perf_event_open(2)).
#[derive(Debug)]
pub struct Instructions(Vec<Counter>);

/// Why nobody knows how many instructions there were.
#[derive(Debug, thiserror::Error)]
pub enum NotCounted {
    /// There is no counter.
    #[error("this host's kernel counts no instructions, as in most virtual machines: {0}")]
    NoCounter(io::Error),
    /// There may be one.
    #[error(
        "this user may not count instructions here, kernels' included: root may, and everybody where the sysctl \
         kernel.perf_event_paranoid is 1 at most ({0})"
    )]
    Forbidden(io::Error),
    /// Others count as well, and took turns with it.
    #[error("others had the processors' counters for a part of the time")]
    Shared,
    /// The kernel said something else.
    #[error("the kernel did not say how many instructions there were: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for NotCounted {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                Self::NoCounter(error)
            }
            Some(Errno::ACCESS | Errno::PERM) => Self::Forbidden(error),
            _ => Self::Failed(error),
        }
    }
}

impl Instructions {
    /// How many there were since it began.
    ///
    /// # Errors
    /// [`NotCounted::Shared`], [`NotCounted::Failed`].
    pub fn so_far(&mut self) -> Result<u64, NotCounted> {
        let mut sum = 0;
        for counter in &mut self.0 {
            let told = counter.read_full().map_err(NotCounted::Failed)?;
            if told.time_running() < told.time_enabled() {
                return Err(NotCounted::Shared);
            }
            sum += told.count();
        }
        Ok(sum)
    }
}

/// Begins, for all threads of these machines' QEMU and those that they make.
///
/// # Errors
/// [`NotCounted`].
pub fn count_instructions<'a>(
    machines: impl IntoIterator<Item = &'a Machine>,
) -> Result<Instructions, NotCounted> {
    let mut all = Vec::new();
    for machine in machines {
        let tasks = format!("/proc/{}/task", machine.pid());
        all.append(&mut counters(&Hardware::INSTRUCTIONS, Path::new(&tasks))?);
    }
    Ok(Instructions(all))
}

/// One for each thread in `/proc/PID/task`.
fn counters<E: Event + Clone>(event: &E, tasks: &Path) -> Result<Vec<Counter>, NotCounted> {
    let mut all = Vec::new();
    for task in fs::read_dir(tasks).map_err(NotCounted::Failed)? {
        let name = task.map_err(NotCounted::Failed)?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        let thread = thread.ok_or_else(|| {
            NotCounted::Failed(io::Error::other(format!("{} is no thread", name.display())))
        })?;
        let counter = Builder::new(event.clone())
            .observe_pid(thread)
            .inherit(true)
            .include_kernel()
            .enabled(true)
            .build();
        match counter {
            Ok(counter) => all.push(counter),
            // It ended between the two looks.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use perf_event::events::Software;
    use rustix::time::{ClockId, clock_gettime};

    const OWN: &str = "/proc/self/task";

    #[test]
    fn what_all_threads_do_is_counted_from_its_beginning_on() {
        // In the place of what only some processors count, what every kernel does: nanoseconds on a processor.
        let own = match counters(&Software::TASK_CLOCK, Path::new(OWN)) {
            // Ordinary users mostly may not, nor who is in a container.
            Err(NotCounted::Forbidden(_)) => return,
            own => own.unwrap(),
        };
        let mut counting = Instructions(own);
        let before = counting.so_far().unwrap();
        let works = Duration::from_millis(20);
        let other = std::thread::spawn(move || {
            while Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap() < works {}
        });
        other.join().unwrap();
        let counted = Duration::from_nanos(counting.so_far().unwrap() - before);
        assert!(counted >= works, "{counted:?}");
    }

    #[test]
    fn why_nothing_is_counted_is_told_apart() {
        let told = |errno: Errno| NotCounted::from(io::Error::from(errno)).to_string();
        insta::assert_snapshot!(
            [told(Errno::NOENT), told(Errno::ACCESS), told(Errno::MFILE)].join("\n"),
            @r"
        this host's kernel counts no instructions, as in most virtual machines: No such file or directory (os error 2)
        this user may not count instructions here, kernels' included: root may, and everybody where the sysctl kernel.perf_event_paranoid is 1 at most (Permission denied (os error 13))
        the kernel did not say how many instructions there were: Too many open files (os error 24)
        "
        );
        let gone = counters(&Software::PAGE_FAULTS, Path::new("/proc/self/none"));
        assert!(matches!(gone, Err(NotCounted::Failed(_))), "{gone:?}");
        // Whatever this host is: it counts them, shares its counters, or says why it has none.
        match counters(&Hardware::INSTRUCTIONS, Path::new(OWN)) {
            Ok(own) => match Instructions(own).so_far() {
                Err(NotCounted::Shared) => {}
                told => assert!(told.unwrap() > 0),
            },
            Err(error) => assert!(
                matches!(error, NotCounted::NoCounter(_) | NotCounted::Forbidden(_)),
                "{error}"
            ),
        }
    }
}
