//! What every command has at hand.

use std::future::Future;

use anyhow::Context as _;
use podwire_images::{Cache, Workshop};
use podwire_process::Spawner;
use tokio::runtime::Runtime;

use crate::command::interrupt::Interrupts;
use crate::command::workspace::Workspace;
use crate::say::progress::Progress;

/// One call of `cargo xtask`.
pub(crate) struct Session {
    pub(crate) workspace: Workspace,
    pub(crate) cache: Cache,
    pub(crate) spawner: Spawner,
    pub(crate) interrupts: Interrupts,
    pub(crate) progress: Progress,
    runtime: Runtime,
}

impl Session {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the threads that drive the machines")?;
        let interrupts = Interrupts::listen(&runtime)?;
        Ok(Self {
            workspace: Workspace::find()?,
            cache: Cache::open()?,
            spawner: Spawner::start()?,
            interrupts,
            progress: Progress::start(),
            runtime,
        })
    }

    /// One with its cache and its runs below this folder, to which signals mean nothing.
    #[cfg(test)]
    pub(crate) fn below(dir: &std::path::Path) -> Self {
        Self {
            workspace: Workspace {
                output: dir.join("output"),
                ..Workspace::find().unwrap()
            },
            cache: Cache::at(&dir.join("cache")).unwrap(),
            spawner: Spawner::start().unwrap(),
            interrupts: Interrupts::deaf(),
            progress: Progress::start(),
            runtime: Runtime::new().unwrap(),
        }
    }

    /// What every build needs.
    pub(crate) fn workshop(&self) -> Workshop<'_> {
        Workshop {
            cache: &self.cache,
            spawner: &self.spawner,
            report: &self.progress,
            source: &self.workspace.root,
        }
    }

    /// Drives something to its end on the session's threads.
    pub(crate) fn wait_for<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
