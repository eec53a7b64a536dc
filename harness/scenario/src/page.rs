//! The first page of an attempt's folder: in words, for a person.

use std::fmt;
use std::path::Path;

use podwire_cluster::Break;

use crate::failure::Failure;
use crate::lab;
use crate::result::SabotageResult;
use crate::traffic;

/// Its name in the attempt's folder.
pub(crate) const FILE: &str = "first-page.md";

/// The folder of the scenario's own lab, beside it.
pub(crate) const LAB: &str = "scenario";

/// What an attempt has to say, when it failed or drew a timeline.
pub(crate) struct Page<'a> {
    pub(crate) name: &'a str,
    pub(crate) about: &'a str,
    pub(crate) covers: &'a [&'a str],
    pub(crate) verdict: &'a anyhow::Result<()>,
    pub(crate) sabotages: &'a [SabotageResult],
    pub(crate) broken: Option<Break>,
    pub(crate) tested: &'a str,
    pub(crate) again: &'a str,
    pub(crate) folder: &'a Path,
}

impl Page<'_> {
    /// Whether there is more to say than that it passed.
    pub(crate) fn is_worth_reading(&self) -> bool {
        self.verdict.is_err() || self.folder.join(traffic::TIMELINE).exists()
    }

    /// What there is to read beside the page.
    fn files(&self) -> Vec<&'static str> {
        let all = [
            (
                traffic::TIMELINE,
                "`timeline.txt`, `timeline.json`: the timeline above, and every request of it",
            ),
            (
                "evidence",
                "`evidence/`: per node console, journal, unit logs, crictl, addresses, routes, rule \
                 sets, CNI files, QEMU's command line and QMP transcript; from the API nodes, Pods, \
                 events; `segment.pcapng` is the wire capture (open it with Wireshark)",
            ),
            (
                LAB,
                "`scenario/`: the lab itself: its step log and the machines' overlays",
            ),
        ];
        let there = all
            .into_iter()
            .filter(|(name, _)| self.folder.join(name).exists());
        there.map(|(_, text)| text).collect()
    }
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            about,
            covers,
            tested,
            again,
            ..
        } = self;
        let verdict = match self.verdict {
            Ok(()) => "passed",
            Err(_) => "failed",
        };
        writeln!(
            f,
            "# {name} {verdict}\n\n{about} (covers {})\n\nOn {tested}\n",
            covers.join(", ")
        )?;
        if let Some(broken) = self.broken {
            writeln!(
                f,
                "This run carries a fault on purpose: `--break {broken}`.\n"
            )?;
        }
        match self.verdict {
            Ok(()) => {}
            Err(error) => match error.downcast_ref::<Failure>() {
                Some(failure) => {
                    writeln!(f, "## What was expected\n\n{}\n", failure.expected)?;
                    writeln!(
                        f,
                        "## What was seen ({})\n\n{}\n",
                        failure.cause, failure.seen
                    )?;
                    writeln!(f, "## Where to look\n\n{}\n", failure.look)?;
                }
                None => {
                    writeln!(f, "## It could not be carried out\n\n{error:#}\n")?;
                    writeln!(
                        f,
                        "No assertion failed: look at the machines' consoles first \
                         (`evidence/*/console.log`), then at QEMU's own words (`qemu.log` \
                         beside it).\n"
                    )?;
                }
            },
        }
        if let Ok(timeline) = std::fs::read_to_string(self.folder.join(traffic::TIMELINE)) {
            writeln!(f, "## Who answered when\n\n```\n{timeline}```\n")?;
        }
        if !self.sabotages.is_empty() {
            writeln!(f, "## Sabotages\n")?;
            for sabotage in self.sabotages {
                let caught = if sabotage.caught {
                    "caught"
                } else {
                    "NOT caught"
                };
                writeln!(f, "- {}: {caught}: {}", sabotage.name, sabotage.reason)?;
            }
            writeln!(f)?;
        }
        let steps = std::fs::read_to_string(self.folder.join(LAB).join(lab::STEPS));
        if let Ok(steps) = steps {
            writeln!(
                f,
                "## What was done, with seconds since the clone answered\n\n```\n{steps}```\n"
            )?;
        }
        let files = self.files();
        if !files.is_empty() {
            writeln!(f, "## Files here\n")?;
        }
        for file in &files {
            writeln!(f, "- {file}")?;
        }
        writeln!(f, "\nAgain, alone: `{again} --filter {name}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Cause;
    use std::fs;

    fn page(verdict: &anyhow::Result<()>, folder: &Path) -> String {
        let page = Page {
            name: "drain",
            about: "A node is drained",
            covers: &["E36", "E37"],
            verdict,
            sabotages: &[SabotageResult {
                name: "no-eviction".into(),
                caught: true,
                reason: "expected less".into(),
            }],
            broken: None,
            tested: "kubeadm/nftables/flannel, kubernetes 1.36.4 from modules",
            again: "cargo xtask test --bootstrap kubeadm",
            folder,
        };
        assert!(page.is_worth_reading());
        page.to_string()
    }

    #[test]
    fn what_passed_with_a_timeline_has_a_page_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Page {
            name: "drain",
            about: "",
            covers: &[],
            verdict: &Ok(()),
            sabotages: &[],
            broken: None,
            tested: "",
            again: "",
            folder: folder.path(),
        };
        assert!(!nothing.is_worth_reading());
        fs::write(folder.path().join(traffic::TIMELINE), "a |##| 2\n").unwrap();
        insta::assert_snapshot!(page(&Ok(()), folder.path()));
    }

    #[test]
    fn what_failed_says_why_before_it_draws() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(traffic::TIMELINE), "a |##| 2\n").unwrap();
        fs::create_dir_all(folder.path().join("evidence")).unwrap();
        let lab = folder.path().join(LAB);
        fs::create_dir_all(&lab).unwrap();
        fs::write(lab.join(lab::STEPS), "    1.5  drain node3\n").unwrap();
        let failure = Failure::new(Cause::TimedOut, "no gap", "a gap").look("the timeline");
        insta::assert_snapshot!(page(&Err(failure.into()), folder.path()));
    }
}
