//! Compiling what nextest runs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use anyhow::Context as _;
use podwire_process::{ChildCommand, Stream};

use crate::command::session::Session;
use crate::run::nextest::PACKAGES;

/// Compiles what nextest runs. The last line is shown as what is waited for, all of them go to `log`.
pub(crate) fn build(session: &Session, log: &Path) -> anyhow::Result<()> {
    /// Lines that a failure quotes.
    const TAIL: usize = 60;
    let mut command = command(&session.workspace.root);
    let shown = command.display();
    session.progress.step("compiling the tests and scenarios");
    command.stderr = Stream::Piped;
    let mut child = session.spawner.spawn(command)?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut tail = VecDeque::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|stream| BufReader::new(stream).lines())
    {
        let line = line?;
        writeln!(file, "{line}")?;
        session.progress.waiting(line.trim());
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
    anyhow::bail!(
        "`{shown}` ended with {status}:\n{tail}\n(all of it: {})",
        log.display()
    )
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
