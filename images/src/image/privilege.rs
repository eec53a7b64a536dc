use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use podwire_process::{ChildCommand, Spawner, Stream, run};

use crate::Error;
use crate::host::find_program;

/// How the one step that needs root gets it: files of many owners, chroot and mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// This process is root.
    Root,
    /// An ordinary user is root in a user namespace, with the ids of /etc/subuid and /etc/subgid.
    UserNamespace,
    /// Through sudo.
    Sudo,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "as root",
            Self::UserNamespace => "in a user namespace",
            Self::Sudo => "through sudo, for this step only",
        })
    }
}

/// Does what the step does: some systems let a user make the namespace but give it no power (AppArmor on
/// Ubuntu 24.04). Mounts over a folder that is there, whatever the environment says: nothing that the
/// user has set may lead to sudo.
const TRY: &str = "mount -t tmpfs tmpfs \"$1\" && mkdir \"$1/proc\" && \
                   mount -t proc proc \"$1/proc\" && touch \"$1/file\" && chown 42:42 \"$1/file\"";

/// Runs the words that follow until they end, or until its input does. What has become root through sudo
/// cannot be signalled by the user, and the kernel has forgotten that it was to die with its parent; but
/// the pipe closes when whoever started it ends, or waits for it after its limit.
const WATCHED: &str = "exec 3<&0; \"$@\" </dev/null 3<&- & step=$!; \
                       { read -r line <&3; kill -KILL $step; } 2>/dev/null & watch=$!; \
                       wait $step; status=$?; kill -KILL $watch 2>/dev/null; exit $status";

/// What the given words run, [`WATCHED`].
fn watched(by: ChildCommand) -> ChildCommand {
    let mut command = by.args(["sh", "-c", WATCHED, "sh"]);
    command.stdin = Stream::Piped;
    command
}

/// Mounts and processes of a step end with it, however it ends.
const APART: [&str; 4] = ["--mount", "--pid", "--fork", "--kill-child"];

impl Privilege {
    /// A command that runs under this privilege, in mount and PID namespaces of its own.
    pub fn command(
        self,
        program: &str,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> ChildCommand {
        let command = match self {
            Self::Root => ChildCommand::new("unshare"),
            Self::UserNamespace => {
                ChildCommand::new("unshare").args(["--user", "--map-root-user", "--map-auto"])
            }
            Self::Sudo => watched(ChildCommand::new("sudo")).args(["unshare"]),
        };
        command.args(APART).args([program]).args(args)
    }
}

/// Which privilege works here, tried in the order of least intrusion.
///
/// # Errors
/// [`Error::NoPrivilege`] with what the user namespace said.
pub fn privilege(spawner: &Spawner) -> Result<Privilege, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(Privilege::Root);
    }
    let tried = run(
        spawner,
        Privilege::UserNamespace.command("sh", ["-c", TRY, "sh", "/tmp"]),
        Duration::from_secs(20),
    );
    let why = match tried {
        Ok(done) if done.status.success() => return Ok(Privilege::UserNamespace),
        Ok(done) => done.stderr.trim().replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    if find_program("sudo").is_some() {
        return Ok(Privilege::Sudo);
    }
    Err(Error::NoPrivilege(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::time::Instant;

    #[test]
    fn every_way_keeps_mounts_and_processes_apart() {
        let shown = |privilege: Privilege| privilege.command("sh", ["x.sh"]).display();
        insta::assert_snapshot!(shown(Privilege::Root), @"unshare --mount --pid --fork --kill-child sh x.sh");
        insta::assert_snapshot!(shown(Privilege::UserNamespace), @"unshare --user --map-root-user --map-auto --mount --pid --fork --kill-child sh x.sh");
        let sudo = shown(Privilege::Sudo);
        assert!(sudo.starts_with("sudo sh -c "), "{sudo}");
        let step = " sh unshare --mount --pid --fork --kill-child sh x.sh";
        assert!(sudo.ends_with(step), "{sudo}");
        let sudo = Privilege::Sudo.command("sh", ["x.sh"]);
        assert!(matches!(sudo.stdin, Stream::Piped));
    }

    #[test]
    fn nothing_that_the_environment_says_leads_to_sudo() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("mount() {{ :; }}; chown() {{ :; }}; {TRY}");
        let command = ChildCommand::new("sh")
            .args(["-c", &script, "sh"])
            .args([dir.path()])
            .env("TMPDIR", "/nonexistent");
        let done = run(&Spawner::start().unwrap(), command, Duration::from_secs(60)).unwrap();
        assert!(done.status.success(), "{}", done.stderr);
    }

    #[test]
    fn a_watched_command_ends_with_its_input_and_gives_its_own_status() {
        let spawner = Spawner::start().unwrap();
        // It runs what it is given, as sudo does.
        let through_env = |script| watched(ChildCommand::new("env")).args(["sh", "-c", script]);
        let done = run(&spawner, through_env("exit 7"), Duration::from_secs(60));
        assert_eq!(done.unwrap().status.code(), Some(7));

        let mut command = through_env("echo begun; exec sleep 600");
        command.stdout = Stream::Piped;
        let mut child = spawner.spawn(command).unwrap();
        let mut printed = child.stdout.take().unwrap();
        printed.read_exact(&mut [0; 6]).unwrap();
        // As at the end of whoever started it; what is root's feels no signal of his.
        drop(child.stdin.take());
        let started = Instant::now();
        let ended = loop {
            match child.try_wait().unwrap() {
                None if started.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                ended => break ended,
            }
        };
        child.kill().unwrap();
        assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
        // It was all that had the pipe open.
        assert_eq!(printed.read(&mut [0; 1]).unwrap(), 0);
    }
}
