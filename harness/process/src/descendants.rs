//! The processes below this one.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// From one look at what is still there to the next.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// All running processes below this one. Orphans are among them where this process is their subreaper
/// (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
pub fn descendants() -> Vec<Pid> {
    let parents: BTreeMap<i32, i32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, running_parent(&stat)?))
        })
        .collect();
    below(&parents, getpid().as_raw_nonzero().get())
        .into_iter()
        .filter_map(Pid::from_raw)
        .collect()
}

/// Ends all processes below this one, and waits a moment for it. Those that are left are somebody else's.
pub fn kill_descendants() -> Vec<Pid> {
    killed(descendants)
}

/// Ends all of these, and those that come meanwhile; gives what is left.
pub(crate) fn killed(running: impl Fn() -> Vec<Pid>) -> Vec<Pid> {
    // Killing a process makes its children ours, so the next round finds what this one missed.
    for _ in 0..20 {
        let running = running();
        if running.is_empty() {
            break;
        }
        for pid in running {
            // Gone already, or root's through sudo.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(LOOK);
    }
    running()
}

/// The parent's id in a line of proc_pid_stat(5); `None` for a process that only waits to be reaped.
fn running_parent(stat: &str) -> Option<i32> {
    // The name stands in parentheses and may hold blanks and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

fn below(parents: &BTreeMap<i32, i32>, root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| **of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(running_parent("12 (a) Z (b)) S 7 12 12 0"), Some(7));
        assert_eq!(running_parent("12 (qemu) Z 7 12 12 0"), None);
        assert_eq!(running_parent(""), None);
    }

    #[test]
    fn grandchildren_are_found() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)]);
        assert_eq!(below(&parents, 1), [2, 5, 3, 4]);
        assert_eq!(below(&parents, 4), Vec::<i32>::new());
    }

    #[test]
    fn a_running_child_is_a_descendant_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(descendants().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants().contains(&pid));
    }
}
