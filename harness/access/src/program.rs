//! A program of the user's beside a cluster, from its start to the end of all that it has started.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use podwire_process::{Family, when_ended};
use rustix::process::Pid;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// How long all of it may take to end once it is told to: what it writes in the end is of use then, too.
const GRACE: Duration = Duration::from_secs(5);

/// Waits until the program ends or `cut` says why it has to; then nothing stays that it has started, but what cannot be
/// killed, since it is somebody else's: that is given beside how it ended.
///
/// # Errors
/// The operating system's, when it gives no thread, or does not tell how the program has ended.
pub async fn ended<E>(
    family: Family,
    child: Child,
    cut: impl Future<Output = E>,
) -> io::Result<(Result<ExitStatus, E>, Vec<Pid>)> {
    let (tell, told) = oneshot::channel();
    // Where it is cut short, nobody listens any more.
    when_ended(child, move |status| drop(tell.send(status)))?;
    let ended = tokio::select! {
        told = told => Ok(told),
        why = cut => Err(why),
    };
    let left = spawn_blocking(move || family.end(GRACE));
    let left = left.await.map_err(io::Error::other)?;
    let ended = match ended {
        Ok(told) => Ok(told.map_err(io::Error::other)??),
        Err(why) => Err(why),
    };
    Ok((ended, left))
}
