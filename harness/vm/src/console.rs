//! The serial console: recorded, and watched for what ends a guest.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fault::{FaultKind, FaultWatch};

/// Lines kept in memory; all of them are in the file.
const KEPT_LINES: usize = 400;

/// Longest line assembled; a guest that never ends its line must not fill our memory.
const LINE_BYTES: usize = 4096;

/// What a machine printed on its serial line. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Console {
    lines: Arc<Mutex<Lines>>,
    /// Lines seen so far.
    seen: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    seen: u64,
    partial: Vec<u8>,
}

impl Console {
    /// Starts recording `source` into `record`, reporting what ends a guest to `faults`.
    ///
    /// The returned task ends when the source does.
    pub(crate) fn record(
        source: impl AsyncRead + Unpin + Send + 'static,
        record: impl Write + Send + 'static,
        faults: FaultWatch,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, seen) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Lines::default()));
        let console = Self {
            lines: Arc::clone(&lines),
            seen,
        };
        let reported = console.clone();
        let task = tokio::spawn(async move {
            let on_line = |line: &str| {
                if let Some(kind) = fault_in(line) {
                    faults.report(kind, || reported.tail(CONSOLE_TAIL));
                }
            };
            copy(source, record, &lines, &sender, on_line).await;
        });
        (console, task)
    }

    /// The last lines, oldest first, the unfinished one included.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let lines = locked(&self.lines);
        let mut tail: Vec<String> = lines.kept.iter().cloned().collect();
        if !lines.partial.is_empty() {
            tail.push(clean(&lines.partial));
        }
        tail.split_off(tail.len().saturating_sub(count))
    }

    /// Waits for a line that contains `text`, lines already printed included (the last 400 are
    /// known). `None` when the limit passes or the machine ends first.
    pub async fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let mut seen = self.seen.clone();
        let mut next = 0;
        let search = async {
            loop {
                // Marked as seen before the look, so that a line printed during it is not missed.
                let _ = seen.borrow_and_update();
                if let Some(line) = self.find_from(&mut next, text) {
                    return Some(line);
                }
                if seen.changed().await.is_err() {
                    return self.find_from(&mut next, text);
                }
            }
        };
        timeout(limit, search).await.ok().flatten()
    }

    fn find_from(&self, next: &mut u64, text: &str) -> Option<String> {
        let lines = locked(&self.lines);
        let new = usize::try_from(lines.seen - *next).unwrap_or(usize::MAX);
        *next = lines.seen;
        let skipped = lines.kept.len().saturating_sub(new);
        lines
            .kept
            .iter()
            .skip(skipped)
            .find(|line| line.contains(text))
            .cloned()
    }
}

/// Console lines that a fault carries.
pub(crate) const CONSOLE_TAIL: usize = 40;

async fn copy(
    mut source: impl AsyncRead + Unpin,
    mut record: impl Write,
    lines: &Mutex<Lines>,
    seen: &watch::Sender<u64>,
    mut on_line: impl FnMut(&str),
) {
    let mut buffer = [0_u8; 4096];
    loop {
        // A failed read is the end of the machine, which is noticed by its exit.
        let count = source.read(&mut buffer).await.unwrap_or(0);
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        // A full disk must not end the watch: what is in memory still explains a fault.
        let _ = record.write_all(bytes);
        let (complete, total) = locked(lines).push(bytes);
        for line in &complete {
            on_line(line);
        }
        if !complete.is_empty() {
            seen.send_replace(total);
        }
    }
    let (last, total) = locked(lines).finish();
    if let Some(line) = last {
        on_line(&line);
        seen.send_replace(total);
    }
    let _ = record.flush();
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> (Vec<String>, u64) {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || self.partial.len() >= LINE_BYTES {
                complete.extend(self.finish().0);
            }
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
        (complete, self.seen)
    }

    fn finish(&mut self) -> (Option<String>, u64) {
        let line = clean(&std::mem::take(&mut self.partial));
        if line.is_empty() {
            return (None, self.seen);
        }
        if self.kept.len() == KEPT_LINES {
            self.kept.pop_front();
        }
        self.kept.push_back(line.clone());
        self.seen += 1;
        (Some(line), self.seen)
    }
}

/// A line as a person reads it: no carriage returns, no terminal escapes (ECMA-48 CSI).
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    let _ = chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

/// What Linux prints when a guest is lost. An OOM kill inside a memory cgroup ("Memory cgroup out
/// of memory") is a container's own affair and is left out by the capital letter.
fn fault_in(line: &str) -> Option<FaultKind> {
    let message = |pattern: &str| {
        line.find(pattern)
            .and_then(|at| line.get(at..))
            .map(str::to_owned)
    };
    if let Some(message) = message("Kernel panic - not syncing") {
        return Some(FaultKind::Panic { message });
    }
    if let Some(message) = message("watchdog: BUG: soft lockup") {
        return Some(FaultKind::SoftLockup { message });
    }
    message("Out of memory: Killed process").map(|message| FaultKind::OutOfMemory { message })
}

fn locked(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    const PANIC: &[u8] =
        b"[   1.0] BUG: kernel NULL pointer\r\n[   1.1] \x1b[1mKernel panic - not syncing: sysrq\x1b[0m\r\nlast";

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    async fn played(chunks: Vec<Vec<u8>>) -> (Console, FaultWatch) {
        let (mut guest, ours) = tokio::io::duplex(16);
        let faults = FaultWatch::new("node1");
        let (console, task) = Console::record(ours, std::io::sink(), faults.clone());
        for chunk in chunks {
            guest.write_all(&chunk).await.unwrap();
        }
        drop(guest);
        task.await.unwrap();
        (console, faults)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_panic_is_seen_however_the_reads_split_it(cut in 0..PANIC.len(), second in 0..PANIC.len()) {
            let (a, b) = (cut.min(second), cut.max(second));
            let chunks = vec![PANIC[..a].to_vec(), PANIC[a..b].to_vec(), PANIC[b..].to_vec()];
            let (console, faults) = block_on(played(chunks));
            let fault = faults.fault().unwrap();
            prop_assert_eq!(
                fault.kind,
                FaultKind::Panic { message: "Kernel panic - not syncing: sysrq".into() }
            );
            prop_assert_eq!(
                console.tail(2),
                ["[   1.1] Kernel panic - not syncing: sysrq", "last"]
            );
        }
    }

    #[test]
    fn lockups_and_the_oom_killer_are_faults_but_a_containers_limit_is_not() {
        let kind = |line: &str| fault_in(line).map(|kind| kind.to_string());
        assert_eq!(
            kind("[ 9.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [etcd:300]").unwrap(),
            "the guest is stuck (watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [etcd:300])"
        );
        assert_eq!(
            kind("[ 9.1] Out of memory: Killed process 300 (etcd)").unwrap(),
            "the guest ran out of memory (Out of memory: Killed process 300 (etcd))"
        );
        assert_eq!(
            kind("[ 9.1] Memory cgroup out of memory: Killed process 300 (app)"),
            None
        );
    }

    #[test]
    fn waiting_finds_lines_from_before_and_after() {
        block_on(async {
            let (mut guest, ours) = tokio::io::duplex(1024);
            let (console, _task) = Console::record(ours, std::io::sink(), FaultWatch::new("n"));
            guest.write_all(b"first\nsecond\n").await.unwrap();
            let limit = Duration::from_secs(5);
            assert_eq!(console.wait_for("first", limit).await.unwrap(), "first");
            let waiting = tokio::spawn({
                let console = console.clone();
                async move { console.wait_for("third", limit).await }
            });
            tokio::task::yield_now().await;
            guest.write_all(b"thi").await.unwrap();
            tokio::task::yield_now().await;
            guest.write_all(b"rd\n").await.unwrap();
            assert_eq!(waiting.await.unwrap().unwrap(), "third");
            drop(guest);
            assert_eq!(console.wait_for("never", limit).await, None);
        });
    }

    #[test]
    fn only_the_last_lines_are_kept_and_endless_ones_are_cut() {
        let mut lines = Lines::default();
        for n in 0..1000 {
            lines.push(format!("{n}\n").as_bytes());
        }
        assert_eq!(
            (lines.kept.len(), lines.kept[0].as_str()),
            (KEPT_LINES, "600")
        );
        let (complete, _) = lines.push(&[b'x'; LINE_BYTES * 2 + 1]);
        assert_eq!(complete.len(), 2);
    }
}
