//! `cargo xtask test --keep`: the cluster of a failed scenario, held for a person to look at.

use std::path::Path;

use podwire_access::{Description, FILE, Link};

use crate::access;
use crate::session::Session;

/// Watches a run's folder for the cluster of a failed scenario.
pub(crate) struct Keeper<'a> {
    session: &'a Session,
    run: &'a Path,
    /// Whose cluster is held.
    kept: Option<String>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(session: &'a Session, run: &'a Path) -> Self {
        Self {
            session,
            run,
            kept: None,
        }
    }

    /// What to show as the present step while a cluster is held. When one has just come, says how
    /// to reach it.
    pub(crate) fn look(&mut self) -> Option<String> {
        if self.kept.is_none() {
            let description = self.description()?;
            let run = self.run.file_name().unwrap_or_default().to_string_lossy();
            self.session.progress.line(&notice(&description, &run));
            self.kept = Some(description.what);
        }
        self.kept
            .as_ref()
            .map(|kept| format!("kept until Ctrl-C: {kept}"))
    }

    /// Whose cluster has been held, if any.
    pub(crate) fn into_kept(self) -> Option<String> {
        self.kept
    }

    fn description(&self) -> Option<Description> {
        if !self.run.join(FILE).exists() {
            return None;
        }
        // One that does not answer yet is asked again.
        self.session.wait_for(async {
            let link = Link::open(self.run).await.ok()??;
            link.describe().await.ok()
        })
    }
}

fn notice(description: &Description, run: &str) -> String {
    format!(
        "kept for a look: {}Ctrl-C ends it, and with it the run: what has not run by then is skipped",
        access::ways(description, run)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_access::NodeAddress;

    #[test]
    fn the_notice_says_how_to_get_in_and_out() {
        let description = Description {
            what: "scenario static_routes, which failed: expected a; seen (timed out): b".into(),
            started: 0,
            pid: 1,
            nodes: vec![NodeAddress {
                name: "node1".into(),
                address: [172, 30, 0, 11].into(),
            }],
        };
        insta::assert_snapshot!(notice(&description, "20261121T130500Z-1"), @"
        kept for a look: scenario static_routes, which failed: expected a; seen (timed out): b:
          node1  172.30.0.11
        from another terminal:
          cargo xtask ssh node1
          cargo xtask console node1
          cargo xtask kubectl get pods -A -o wide
        (where several clusters run: --run 20261121T130500Z-1 behind ssh, console or kubectl)
        Ctrl-C ends it, and with it the run: what has not run by then is skipped
        ");
    }
}
