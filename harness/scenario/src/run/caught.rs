//! What a panic costs: the part that panicked, and nothing beside it.

use std::any::Any;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use anyhow::anyhow;
use futures::FutureExt as _;
use podwire_process::plain;

/// What could not be left of an attempt, in its folder: a line each.
pub(crate) const LOST: &str = "lost.txt";

/// Carries something out; a panic of whoever does it is its error.
pub(crate) async fn caught<T>(
    who: &str,
    part: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let done = AssertUnwindSafe(part).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(anyhow!("{who} panicked: {}", text(&*panic))))
}

/// Leaves one part of what is to be read of an attempt in its folder. Where that does not succeed, it is
/// said there, and given: the other parts and the verdict are as they would have been.
pub(crate) async fn leave(
    folder: &Path,
    what: &str,
    part: impl Future<Output = anyhow::Result<()>>,
) -> Option<String> {
    let error = caught("whoever writes it", part).await.err()?;
    let lost = format!("{what} cannot be written: {error:#}");
    // Where nothing at all can be written, whoever asked for it tells.
    let _ = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(LOST))
        .and_then(|mut file| writeln!(file, "{}", plain::line(&lost)));
    Some(lost)
}

fn text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::fs;

    #[tokio::test]
    async fn what_panics_while_evidence_is_left_costs_that_alone() {
        let dir = tempfile::tempdir().unwrap();
        let leave = async |what: &str, part: &dyn Fn() -> anyhow::Result<()>| {
            leave(dir.path(), what, async { part() }).await
        };
        let written = dir.path().join("nodes.txt");
        let whole = || Ok(fs::write(&written, "all is well")?);
        let all = futures::future::join3(
            leave("the timeline", &|| panic!("number {} \u{1b}[2J", 7)),
            leave("what the nodes say", &whole),
            leave("the failure as data", &|| bail!("the disk is full\nreally")),
        )
        .await;
        let timeline = "the timeline cannot be written: whoever writes it panicked: number 7";
        assert!(all.0.unwrap().starts_with(timeline));
        assert_eq!(all.1, None);
        assert!(written.exists());
        let lost = fs::read_to_string(dir.path().join(LOST)).unwrap();
        insta::assert_snapshot!(lost, @r"
        the timeline cannot be written: whoever writes it panicked: number 7 \u001b[2J
        the failure as data cannot be written: the disk is full\u000areally
        ");
    }

    #[tokio::test]
    async fn what_does_not_panic_says_what_it_says() {
        assert_eq!(caught("it", async { Ok(7) }).await.unwrap(), 7);
        let error = caught::<()>("it", async { bail!("no") }).await.unwrap_err();
        assert_eq!(error.to_string(), "no");
        let error = caught::<()>("the scenario", async { panic!("no") }).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "the scenario panicked: no");
    }
}
