//! Commands that build something on this host: what they say is kept in a file, and their last line is shown.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use podwire_process::{ChildCommand, Stream};

use crate::command::session::Session;
use crate::run::nextest::PACKAGES;

/// Lines that a failure quotes, and how much of the end of what was said they are looked for in.
const TAIL: usize = 60;
const END: u64 = 64 * 1024;

/// How often is looked for a new line.
const LOOK: Duration = Duration::from_millis(50);

/// Compiles what nextest runs.
pub(crate) fn build(session: &Session, log: &Path) -> anyhow::Result<()> {
    session.progress.step("compiling the tests and scenarios");
    logged(session, command(&session.workspace.root), log)
}

/// Runs a command to its end, however long it takes. All that it says goes to `log`; the last line of that is
/// shown as what is waited for, and the last lines are quoted where it fails.
pub(crate) fn logged(
    session: &Session,
    mut command: ChildCommand,
    log: &Path,
) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", log.display());
    let file = File::create(log).with_context(cannot)?;
    let shown = command.display();
    command.stdout = Stream::File(file.try_clone().with_context(cannot)?);
    command.stderr = Stream::File(file);
    let mut child = session.spawner.spawn(command)?;
    let status = wait(session, &mut child, log)?;
    if status.success() {
        return Ok(());
    }
    let said = end(log)?;
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    anyhow::bail!(
        "`{shown}` ended with {status}:\n{tail}\n(all of it: {})",
        log.display()
    )
}

/// Whoever has inherited the log, a daemon that a build has started, is not waited for.
fn wait(
    session: &Session,
    child: &mut std::process::Child,
    log: &Path,
) -> anyhow::Result<ExitStatus> {
    let mut last = String::new();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let said = end(log)?;
        let line = said
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        if let Some(line) = line.filter(|line| *line != last) {
            session.progress.waiting(line);
            last = line.to_owned();
        }
        thread::sleep(LOOK);
    }
}

/// The end of what was said.
fn end(log: &Path) -> anyhow::Result<String> {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut said = Vec::new();
        file.take(END).read_to_end(&mut said)?;
        Ok(said)
    };
    let said: std::io::Result<Vec<u8>> = read();
    let said = said.with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn command(workspace: &Path) -> ChildCommand {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = ChildCommand::new(cargo)
        .args(["test", "--no-run", "--locked"])
        .args(PACKAGES)
        .outside_cargo()
        .dir(workspace);
    command.own_group = true;
    command
}
