//! The first page of a failure: in words, for a person.

use std::fmt;
use std::path::Path;

use podwire_cluster::Break;

use crate::failure::Failure;
use crate::lab;
use crate::result::SabotageResult;
use crate::scenario::Scenario;

/// Its name in the attempt's folder.
pub(crate) const FILE: &str = "first-page.md";

/// What a failed attempt has to say.
pub(crate) struct Page<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) verdict: &'a anyhow::Result<()>,
    pub(crate) sabotages: &'a [SabotageResult],
    pub(crate) broken: Option<Break>,
    pub(crate) folder: &'a Path,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario {
            name,
            about,
            covers,
            ..
        } = self.scenario;
        writeln!(
            f,
            "# {name} failed\n\n{about} (covers {})\n",
            covers.join(", ")
        )?;
        if let Some(broken) = self.broken {
            writeln!(
                f,
                "This run carries a fault on purpose: `--break {broken}`.\n"
            )?;
        }
        match self.verdict {
            Ok(()) => writeln!(f, "It passed.")?,
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
        let steps = std::fs::read_to_string(self.folder.join("scenario").join(lab::STEPS));
        if let Ok(steps) = steps {
            writeln!(
                f,
                "## What was done, with seconds since the clone answered\n\n```\n{steps}```\n"
            )?;
        }
        writeln!(
            f,
            "## Files here\n\n\
             - `evidence/`: per node console, journal, unit logs, crictl, addresses, routes, rule \
             sets, CNI files, QEMU's command line and QMP transcript; from the API nodes, Pods, \
             events; `segment.pcapng` is the wire capture (open it with Wireshark)\n\
             - `scenario/`: the lab itself: its step log and the machines' overlays\n\n\
             Again, alone: `cargo xtask test --filter {name}`"
        )
    }
}
