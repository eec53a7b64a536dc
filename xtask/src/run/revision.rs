//! A side of a comparison that is a revision of the user's own repository: checked out, and built.
//!
//! A checkout is a clone of its own that borrows the repository's objects: nothing is written in the user's. It
//! stays in `target/podwire/revisions/` until `clean`, since the command that leads to a failure again names files
//! in it, and the next comparison need not build it anew.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use podwire_images::Digest;
use podwire_process::{ChildCommand, held, held_alone};

use crate::command::git::{git, outside_git};
use crate::command::session::Session;
use crate::command::side;
use crate::run::build::logged;
use crate::say::stop::Stop;

/// Whoever else makes the same checkout is looked for so often.
const LOOK: Duration = Duration::from_millis(200);

/// What becomes of a revision before it is tested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe<'a> {
    /// The user's.
    pub(crate) repository: &'a Path,
    /// What builds it, by sh(1) in its checkout.
    pub(crate) build: Option<&'a str>,
    /// By which flags it is tested, see [`side::taken`].
    pub(crate) takes: &'a str,
}

/// A revision of a repository.
#[derive(Debug)]
pub(crate) struct Revision {
    /// As the user has named it, and which commit that is.
    pub(crate) told: String,
    commit: String,
    /// Its own folder, with the checkout.
    place: PathBuf,
    /// Whether the user's files differ from it, where it is the commit that they are based on.
    pub(crate) leaves_changes_out: bool,
    /// Whether it has submodules (gitmodules(5)), which no checkout has by itself.
    pub(crate) has_submodules: bool,
}

impl Revision {
    /// Finds a revision.
    ///
    /// # Errors
    /// [`Stop::Usage`] when there is none of that name, or the recipe is none.
    pub(crate) fn find(session: &Session, recipe: Recipe<'_>, name: &str) -> Result<Self, Stop> {
        // Before anything is built for nothing.
        side::taken(recipe.takes, ".").map_err(|why| Stop::Usage(format!("--takes: {why}")))?;
        let repository = recipe.repository;
        let asked = |words: &[&str]| git(&session.spawner, repository, words);
        let named = format!("{name}^{{commit}}");
        let commit = asked(&["rev-parse", "--verify", "--end-of-options", &named]);
        let commit = commit.map_err(|error| {
            let repository = repository.display();
            Stop::Usage(format!("{repository} has no revision `{name}`: {error}"))
        })?;
        let is_current = asked(&["rev-parse", "HEAD"]).is_ok_and(|head| head == commit);
        let status = if is_current {
            asked(&["status", "--porcelain"])?
        } else {
            String::new()
        };
        let modules = asked(&["cat-file", "-e", &format!("{commit}:.gitmodules")]);
        let built_by = recipe.build.unwrap_or_default();
        let key = Digest::sha256_of(format!("{commit}\n{built_by}").as_bytes()).to_string();
        let (_, key) = key.split_at(key.len() - 8);
        let short: String = commit.chars().take(12).collect();
        Ok(Self {
            told: format!("git:{name}, commit {short}"),
            place: session.workspace.revisions().join(format!("{short}-{key}")),
            commit,
            leaves_changes_out: !status.is_empty(),
            has_submodules: modules.is_ok(),
        })
    }

    /// Whether it need not be built any more.
    pub(crate) fn is_made(&self) -> bool {
        self.made().is_file()
    }

    /// The flags by which it is tested. It is checked out and built before, unless it has been, and nobody removes
    /// it as long as the file lives.
    ///
    /// # Errors
    /// When it cannot be checked out; when its build fails.
    pub(crate) fn make(
        &self,
        session: &Session,
        recipe: Recipe<'_>,
    ) -> Result<(Vec<String>, File), Stop> {
        let cannot = || format!("cannot make {}", self.place.display());
        fs::create_dir_all(&self.place).with_context(cannot)?;
        let used = loop {
            // It waits for whoever makes it at this time.
            let used = held(&self.place).with_context(cannot)?;
            if self.is_made() {
                break used;
            }
            drop(used);
            match held_alone(&self.place).with_context(cannot)? {
                Some(_alone) if self.is_made() => {}
                Some(_alone) => self.build(session, recipe)?,
                None => thread::sleep(LOOK),
            }
        };
        let checkout = self.checkout();
        let checkout = checkout.to_str().ok_or_else(|| {
            Stop::setup(format!(
                "{} cannot be named in flags: it is no UTF-8",
                checkout.display()
            ))
        })?;
        let flags = side::taken(recipe.takes, checkout).map_err(Stop::Usage)?;
        Ok((flags, used))
    }

    fn build(&self, session: &Session, recipe: Recipe<'_>) -> anyhow::Result<()> {
        let (spawner, progress) = (&session.spawner, &session.progress);
        let checkout = self.checkout();
        progress.step(&format!("check out {}", self.told));
        // What an earlier try has left may be anything.
        match fs::remove_dir_all(&checkout) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", checkout.display()));
            }
            _ => {}
        }
        let place = checkout.as_os_str();
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "--"].map(AsRef::as_ref);
        // The user may name a folder within his checkout, or one of several (git-worktree(1)): all have this.
        let common = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let from = git(spawner, recipe.repository, common)?;
        let from = OsStr::new(&from);
        git(spawner, &self.place, clone.into_iter().chain([from, place]))?;
        git(
            spawner,
            &checkout,
            ["checkout", "--quiet", "--detach", &self.commit],
        )?;
        if let Some(build) = recipe.build {
            progress.step(&format!("build {}: {build}", self.told));
            let command = ChildCommand::new("sh").args(["-c", build]).dir(&checkout);
            let log = self.place.join("build.txt");
            logged(session, outside_git(command.for_the_user()), &log)
                .with_context(|| format!("cannot build {}", self.told))?;
        }
        let made = self.made();
        fs::write(&made, recipe.build.unwrap_or_default())
            .with_context(|| format!("cannot write {}", made.display()))
    }

    fn checkout(&self) -> PathBuf {
        self.place.join("checkout")
    }

    /// Is there once it has been built, and says by which command.
    fn made(&self) -> PathBuf {
        self.place.join("built-by.txt")
    }
}
