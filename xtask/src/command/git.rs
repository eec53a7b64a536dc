//! git(1), asked about a repository of this host.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use podwire_process::{ChildCommand, RunError, Spawner, run};

/// It reads and writes files here, and asks nobody: minutes are for a large repository on a busy disk.
const LIMIT: Duration = Duration::from_mins(10);

/// By which a shell, or a hook of git's, has git work in another repository than it is told to (`git rev-parse
/// --local-env-vars`).
const REPOSITORY_VARIABLES: [&str; 8] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
];

/// What git answers about the repository that a folder lies in, without the last line's end.
///
/// # Errors
/// [`RunError`], with git's own words where it refuses.
pub(crate) fn git<W: AsRef<OsStr>>(
    spawner: &Spawner,
    folder: &Path,
    words: impl IntoIterator<Item = W>,
) -> Result<String, RunError> {
    let words = words.into_iter().map(|word| word.as_ref().to_owned());
    let words: Vec<OsString> = ["-C".into(), folder.into()]
        .into_iter()
        .chain(words)
        .collect();
    let command = outside_git(ChildCommand::new("git").args(words));
    let shown = command.display();
    let done = run(spawner, command, LIMIT)?.success(&shown)?;
    Ok(done.stdout.trim_end().to_owned())
}

/// The same command for one that works in a repository which it finds by its folder.
pub(crate) fn outside_git(command: ChildCommand) -> ChildCommand {
    let names = REPOSITORY_VARIABLES.into_iter();
    names.fold(command, ChildCommand::env_remove)
}
