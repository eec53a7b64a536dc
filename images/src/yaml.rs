//! YAML that somebody gives, nested as deep as they like.

use std::{panic, thread};

use serde::de::DeserializeOwned;
use serde_saphyr::{Options, UserMessageFormatter};

/// How deep values may be in each other: the schemas of resources, which are deepest, come to 40.
pub const DEPTH: usize = 64;
/// What reading them takes, whoever calls: unoptimised, a level takes 40 KiB.
const STACK: usize = 16 << 20;

/// A text that is no YAML: where, and why.
#[derive(Debug)]
pub struct NoYaml {
    /// The line, from 1.
    pub line: u64,
    /// What the parser says, as the text has it.
    pub reason: String,
}

/// The documents of a stream, read within the bounds of `options` (made where it is read: they may not change
/// threads), of which the depth is to be [`DEPTH`] at most.
///
/// # Errors
/// [`NoYaml`].
pub fn documents<T: DeserializeOwned + Send>(
    text: &str,
    options: fn() -> Options,
) -> Result<Vec<T>, NoYaml> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK);
        let read = thread.spawn_scoped(scope, || read(text, options()));
        let read = read.map_err(|error| NoYaml {
            line: 1,
            reason: format!("no thread reads it: {error}"),
        })?;
        read.join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

fn read<T: DeserializeOwned>(text: &str, options: Options) -> Result<Vec<T>, NoYaml> {
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let error = error.without_snippet();
        let reason = error.render_with_formatter(&UserMessageFormatter);
        NoYaml { line, reason }
    })
}
