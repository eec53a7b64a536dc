//! The private memory of process trees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// One process, as proc_pid_status(5) shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// `RssAnon`, KiB: memory of its own, such as what a clone has written of its machine's memory.
    private_kib: u64,
}

impl Process {
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        Some(Self {
            parent: field("PPid")?.parse().ok()?,
            // Absent for kernel threads, and for one that only waits to be reaped.
            private_kib: field("RssAnon")
                .and_then(|text| text.strip_suffix("kB")?.trim().parse().ok())
                .unwrap_or(0),
        })
    }
}

/// Private memory in MiB of the processes below each of these.
pub(crate) fn below(roots: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
    let processes: BTreeMap<u32, Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // One that has gone meanwhile uses nothing any more.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            Some((pid, Process::parse(&status)?))
        })
        .collect();
    sums(&processes, roots)
}

/// Each process counts for the nearest root above it: a run that holds a ticket may have started
/// one that holds another.
fn sums(processes: &BTreeMap<u32, Process>, roots: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
    let mut kib: BTreeMap<u32, u64> = BTreeMap::new();
    for process in processes.values() {
        let mut above = process.parent;
        // Ids are reused while the list is being read: it may hold a circle.
        for _ in 0..processes.len() {
            if roots.contains(&above) {
                *kib.entry(above).or_default() += process.private_kib;
                break;
            }
            match processes.get(&above) {
                Some(next) => above = next.parent,
                None => break,
            }
        }
    }
    kib.into_iter().map(|(pid, kib)| (pid, kib >> 10)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A child process that has written 64 MB, as long as the value lives.
    pub(crate) struct ChildWithMemory(Child);

    impl Drop for ChildWithMemory {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    pub(crate) fn child_with_memory() -> ChildWithMemory {
        let script = r#"text=$(head -c 64000000 /dev/zero | tr '\0' x); echo there; read end"#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "there\n");
        ChildWithMemory(child)
    }

    #[test]
    fn a_process_counts_for_the_nearest_holder_above_it() {
        let process = |parent, mib: u64| Process {
            parent,
            private_kib: mib << 10,
        };
        let processes = BTreeMap::from([
            (1, process(0, 1)),
            (10, process(1, 10)),
            (11, process(10, 100)),
            (12, process(11, 1000)),
            (20, process(10, 5)),
            (21, process(20, 7)),
            // A circle.
            (30, process(31, 1)),
            (31, process(30, 1)),
        ]);
        assert_eq!(
            sums(&processes, &BTreeSet::from([10, 20, 99])),
            BTreeMap::from([(10, 1105), (20, 7)])
        );
    }

    #[test]
    fn a_status_without_memory_is_one_of_none() {
        assert_eq!(
            Process::parse("Name:\ta\nPPid:\t7\nRssAnon:\t    2048 kB\n"),
            Some(Process {
                parent: 7,
                private_kib: 2048
            })
        );
        assert_eq!(
            Process::parse("PPid:\t2\n").map(|process| process.private_kib),
            Some(0)
        );
        assert_eq!(Process::parse(""), None);
    }

    #[test]
    fn what_a_child_has_written_is_seen() {
        let _child = child_with_memory();
        let own = std::process::id();
        let used = below(&BTreeSet::from([own]));
        assert!(used[&own] >= 61, "{used:?}");
    }
}
