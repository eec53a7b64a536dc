//! A disk that fills while stages are made on it.
//!
//! The folder of the stages is a tmpfs (tmpfs(5)) that only a campaign's own processes see: in a mount
//! namespace of their own (mount_namespaces(7)), and where an ordinary user does this, a user namespace
//! (user_namespaces(7)). Its limit is lowered to what it holds when that is enough, so that every write
//! to it fails with `ENOSPC`, and raised again for the run that follows. No other disk is touched; what it
//! takes is memory, as much as the stages' files occupy, until the namespace has gone.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, bail};
use podwire_process::{ChildCommand, Spawner, Stream, run};
use rustix::fs::statvfs;
use rustix::process::{Pid, geteuid};

/// What it can hold as long as it is not full: what podwire wants to be free before it makes a stage, and
/// more. It takes as much memory as is written.
const SIZE_MIB: u64 = 8 << 10;

/// What mount(8) says of where it comes from.
const SOURCE: &str = "podwire-chaos";

/// How long mount(8) may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder that is a file system of a limited size, for those who enter.
#[derive(Debug)]
pub(super) struct Full {
    spawner: Spawner,
    folder: PathBuf,
    /// It does nothing but to keep the namespace.
    holder: Child,
    /// Whether there is a user namespace as well.
    user: bool,
}

impl Full {
    /// Makes the folder such a file system.
    ///
    /// # Errors
    /// Why that is not to be had here.
    pub(super) fn new(spawner: &Spawner, folder: &Path) -> anyhow::Result<Self> {
        let user = !geteuid().is_root();
        let script = format!(
            "mount -t tmpfs -o mode=0700,size={SIZE_MIB}m {SOURCE} \"$0\" && echo mounted && exec sleep infinity"
        );
        let flags: &[&str] = match user {
            true => &["--user", "--map-root-user", "--mount"],
            false => &["--mount"],
        };
        let mut command = ChildCommand::new("unshare")
            .args(flags)
            .args(["sh", "-c", &script])
            .args([folder]);
        command.own_group = true;
        command.stdout = Stream::Piped;
        command.stderr = Stream::Piped;
        let mut holder = spawner.spawn(command)?;
        let first = |stream: Option<Box<dyn std::io::Read>>| {
            let mut line = String::new();
            let stream = stream.map(BufReader::new);
            // No line, no file system.
            let _ = stream.map(|mut stream| stream.read_line(&mut line));
            line.trim_end().to_owned()
        };
        let said = first(holder.stdout.take().map(|it| Box::new(it) as _));
        if said != "mounted" {
            let why = first(holder.stderr.take().map(|it| Box::new(it) as _));
            let _ = holder.wait();
            bail!("no file system of a limited size is to be had here: {why}");
        }
        Ok(Self {
            spawner: spawner.clone(),
            folder: folder.to_owned(),
            holder,
            user,
        })
    }

    /// The process that is no run's.
    pub(super) fn holder(&self) -> Pid {
        Pid::from_child(&self.holder)
    }

    /// The beginning of a command whose program sees the file system; its number is the command's.
    pub(super) fn enter(&self) -> ChildCommand {
        let user: &[&str] = match self.user {
            true => &["--user", "--preserve-credentials"],
            false => &[],
        };
        let target = self.holder.id().to_string();
        ChildCommand::new("nsenter")
            .args(["--target", &target, "--mount", "--wd=."])
            .args(user)
            .args(["--"])
    }

    /// What it holds, MiB.
    pub(super) fn used_mib(&self) -> anyhow::Result<u64> {
        // Seen from outside through the process that is inside (proc(5), `/proc/PID/root`).
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder));
        let disk =
            statvfs(&inside).with_context(|| format!("cannot measure {}", inside.display()))?;
        Ok(((disk.f_blocks - disk.f_bfree) * disk.f_frsize) >> 20)
    }

    /// From now on nothing more finds room.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        const ATTEMPTS: u32 = 20;
        let mut last = Ok(());
        // More may be written meanwhile than it would hold then, which is refused.
        for _ in 0..ATTEMPTS {
            last = self.resize(self.used_mib()? + 1);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Everything finds room again.
    pub(super) fn widen(&self) -> anyhow::Result<()> {
        self.resize(SIZE_MIB)
    }

    fn resize(&self, mib: u64) -> anyhow::Result<()> {
        let size = format!("remount,size={mib}m");
        let command = self
            .enter()
            // With its source named, mount(8) repeats none of the options that it has, whose owner it
            // would name by a number of outside.
            .args(["mount", "-t", "tmpfs", "-o", &size, SOURCE])
            .args([&self.folder]);
        let shown = command.display();
        run(&self.spawner, command, LIMIT)?.success(&shown)?;
        Ok(())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // The namespace, and what the file system holds, go with the last process in it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_full_is_full_for_those_inside_alone_and_has_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let full = match Full::new(&spawner, dir.path()) {
            Ok(full) => full,
            // Where that is refused, nobody fills a disk.
            Err(error) => {
                assert!(error.to_string().contains("is to be had here: "), "{error}");
                return;
            }
        };
        let write = |mib: u32| {
            let command = full
                .enter()
                .args(["sh", "-c", "head -c \"$0\"M /dev/zero >\"$1\"/file"])
                .args([mib.to_string()])
                .args([dir.path()]);
            run(&spawner, command, LIMIT).unwrap()
        };
        assert!(write(3).status.success());
        assert_eq!(full.used_mib().unwrap(), 3);
        full.fill().unwrap();
        let refused = write(16);
        assert!(!refused.status.success());
        assert!(refused.stderr.contains("No space left"), "{refused:?}");
        full.widen().unwrap();
        assert!(write(16).status.success());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(full);
    }
}
