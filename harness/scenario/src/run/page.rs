//! The first page of an attempt's folder: in words, for a person.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use podwire_cluster::Break;
use podwire_process::plain;

use crate::check::failure::Failure;
use crate::check::rules::RuleChange;
use crate::check::twin::{Twin, Unlike};
use crate::lab;
use crate::lab::traffic;
use crate::lab::troubles::NODES;
use crate::lab::wire::{AROUND, STOOD_OUT};
use crate::run::account::Account;
use crate::run::caught::LOST;
use crate::run::context;
use crate::run::program;
use crate::run::proof::{Effect, Proof, Uncaught};

/// Its name in the attempt's folder.
pub(crate) const FILE: &str = "first-page.md";

/// The folder of a failed scenario's evidence, beside it.
pub(crate) const EVIDENCE: &str = "evidence";

/// The folder of the scenario's own lab, beside it.
pub(crate) const LAB: &str = "scenario";

/// The folder of what a healthy clone's nodes said at the same step, beside it.
pub(crate) const TWIN: &str = "twin";

/// The folder of what its preparation leaves, beside it.
pub(crate) const PREPARATION: &str = "preparation";

/// How the name of the folder of a sabotage's lab begins.
pub(crate) const SABOTAGE: &str = "sabotage-";

/// The folder of a sabotage's lab.
pub(crate) fn sabotage_lab(name: &str) -> String {
    format!("{SABOTAGE}{name}")
}

/// The lines of what stood out on the wire, if something did.
pub(crate) fn stood_out(folder: &Path) -> Vec<String> {
    let told = std::fs::read_to_string(folder.join(STOOD_OUT)).unwrap_or_default();
    told.lines().map(plain::text).collect()
}

/// Changes of rules that are told.
const CHANGES: usize = 20;

const LABS: &str = "its step log, the machines' consoles and overlays, QEMU's own words";

/// What an attempt has to say, when it failed, drew a timeline or saw something unusual.
pub(crate) struct Page<'a> {
    pub(crate) name: &'a str,
    pub(crate) about: &'a str,
    pub(crate) covers: &'a [&'a str],
    pub(crate) verdict: &'a anyhow::Result<()>,
    /// What became of the sabotages that were injected.
    pub(crate) proofs: &'a [Proof],
    pub(crate) broken: Option<Break>,
    /// That the stage it started from had not settled, and what was missing.
    pub(crate) unsettled: Option<&'a str>,
    pub(crate) tested: &'a str,
    pub(crate) again: &'a str,
    pub(crate) folder: &'a Path,
}

impl Page<'_> {
    /// Whether there is more to say than that it passed.
    pub(crate) fn is_worth_reading(&self) -> bool {
        self.verdict.is_err()
            || self.unsettled.is_some()
            || self.folder.join(traffic::TIMELINE).exists()
            || self.folder.join(STOOD_OUT).exists()
            || self.folder.join(LOST).exists()
    }

    /// The whole page. What others have said is in it, and commands no terminal that shows it.
    pub(crate) fn text(&self) -> String {
        plain::text(&self.to_string())
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// How far it came, if it failed: to its own lab, or to its preparation.
    fn last_lab(&self) -> Option<&'static str> {
        [LAB, PREPARATION].into_iter().find(|lab| self.has(lab))
    }

    /// What there is to read beside the page.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        if self.has(traffic::TIMELINE) {
            files.push(
                "`timeline.txt`, `timeline.json`: the timeline above, and every request of it"
                    .to_owned(),
            );
        }
        if self.has(AROUND) {
            files.push(format!(
                "`{AROUND}`: the frames around what stood out on the wire"
            ));
        }
        if self.has(program::OUTPUT) {
            files.push(format!("`{}`: all that the program said", program::OUTPUT));
        }
        if self.has(EVIDENCE) {
            files.push(
                "`evidence/`: per node console, journal, unit logs, crictl, addresses, routes, rule \
                 sets, CNI files, QEMU's command line, what was said to it and to the agent; from the \
                 API nodes, Pods, events; `segment.pcapng` is the wire capture (open it with Wireshark; its \
                 times are the host's wall clock)"
                    .to_owned(),
            );
        }
        if self.has(TWIN) {
            files.push(format!(
                "`{TWIN}/`: what the nodes of a healthy clone said of their network at the same step"
            ));
        }
        if self.has(PREPARATION) {
            files.push(format!(
                "`{PREPARATION}/`: the lab of its preparation: {LABS}"
            ));
        }
        if self.has(LAB) {
            files.push(format!("`{LAB}/`: the lab itself: {LABS}"));
        }
        for proof in self.proofs {
            let lab = sabotage_lab(proof.sabotage.name);
            if self.has(&lab) {
                files.push(format!("`{lab}/`: the sabotage's own lab: {LABS}"));
            }
        }
        files
    }

    /// What an assertion has not proved, and where to mend that.
    fn uncaught(&self, f: &mut fmt::Formatter<'_>, uncaught: &Uncaught) -> fmt::Result {
        writeln!(
            f,
            "The cluster is not at fault: the scenario passed on it. A sabotage is a fault that \
             podwire injects on purpose into a clone of its own, to prove that the scenario's \
             assertion can fail. Not proved:\n"
        )?;
        for Proof { sabotage, effect } in &uncaught.missed {
            writeln!(f, "## Sabotage {}\n", sabotage.name)?;
            writeln!(f, "- injected: {}", sabotage.about)?;
            writeln!(
                f,
                "- expected: the assertion fails with {}",
                sabotage.failure()
            )?;
            writeln!(f, "- instead: the assertion {effect}\n")?;
            let next = match effect {
                Effect::Caught(_) => continue,
                Effect::Held => format!(
                    "Either the fault was not there when the assertion looked (the steps below \
                     say what was done), or the assertion of `{}` cannot notice it: then it would \
                     not notice the same fault in a cluster under test.",
                    self.name
                ),
                Effect::Otherwise(_) => "Either the fault breaks something else first, or \
                     something else was wrong in this clone, or the sabotage names the wrong class \
                     of failure."
                    .to_owned(),
                Effect::NotInjected(_) => {
                    "What injects it is at fault: its words above say where it \
                    stopped. Neither the assertion nor the cluster has been put to the test."
                        .to_owned()
                }
                Effect::Error(_) => format!(
                    "The fault, or something else in this clone, kept the assertion from being \
                     carried out: the consoles are in `{}/`. What the fault is sure to break must \
                     end in a `Failure`, not in an error.",
                    sabotage_lab(sabotage.name)
                ),
            };
            writeln!(f, "{next}\n")?;
            self.steps(f, "###", &sabotage_lab(sabotage.name))?;
        }
        Ok(())
    }

    /// Why no assertion was reached.
    fn not_carried_out(&self, f: &mut fmt::Formatter<'_>, error: &anyhow::Error) -> fmt::Result {
        writeln!(f, "## It could not be carried out\n\n{error:#}\n")?;
        let consoles = if self.has(EVIDENCE) {
            "`evidence/*/console.log`".to_owned()
        } else if let Some(lab) = self.last_lab() {
            format!("in `{lab}/`")
        } else {
            return writeln!(f, "No assertion failed: there was no cluster yet.\n");
        };
        writeln!(
            f,
            "No assertion failed: look at the machines' consoles first ({consoles}), then at \
             QEMU's own words (`qemu.log` beside them).\n"
        )
    }

    /// The step log of a lab, if it has one.
    fn steps(&self, f: &mut fmt::Formatter<'_>, heading: &str, lab: &str) -> fmt::Result {
        match std::fs::read_to_string(self.folder.join(lab).join(lab::STEPS)) {
            Ok(steps) => writeln!(
                f,
                "{heading} What was done, with seconds since the clone's network was there\n\n```\n{steps}```\n"
            ),
            Err(_) => Ok(()),
        }
    }
}

/// The last changes of the nodes' rules, if any are known.
fn rule_changes(f: &mut fmt::Formatter<'_>, all: &[RuleChange]) -> fmt::Result {
    let more = all.len().saturating_sub(CHANGES);
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "## When rules changed, with seconds since the clone's network was there\n\n```"
    )?;
    if more > 0 {
        writeln!(f, "         {more} changes before these")?;
    }
    for change in &all[more..] {
        let at = Duration::from_millis(change.at_ms).as_secs_f64();
        writeln!(f, "{at:7.1}  {change}: {}", change.first)?;
    }
    writeln!(f, "```\n")
}

/// In what the cluster is unlike a healthy clone.
fn beside_its_twin(f: &mut fmt::Formatter<'_>, twin: &Twin) -> fmt::Result {
    let Twin {
        whose,
        step,
        failed,
        unlike,
        unheard,
    } = twin;
    writeln!(f, "## Beside a healthy clone\n")?;
    if let Some(failed) = failed {
        return writeln!(
            f,
            "There is none to compare with: {whose} failed as well: {}\n",
            failed.lines().next().unwrap_or_default()
        );
    }
    writeln!(
        f,
        "It passed the step \"{step}\": {whose}. {}\n",
        twin.told()
    )?;
    if !unheard.is_empty() {
        writeln!(
            f,
            "Not compared, for want of an answer: {}.\n",
            unheard.join(", ")
        )?;
    }
    for Unlike {
        node,
        about,
        lines,
        left_out,
    } in unlike
    {
        writeln!(f, "{node}, {about}:\n\n```")?;
        for line in lines {
            writeln!(f, "{line}")?;
        }
        if *left_out > 0 {
            writeln!(f, "... ({left_out} more)")?;
        }
        writeln!(f, "```\n")?;
    }
    Ok(())
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
        let uncaught = self.verdict.as_ref().err();
        let uncaught = uncaught.and_then(|error| error.downcast_ref::<Uncaught>());
        let verdict = match (self.verdict, uncaught) {
            (Ok(()), _) => "passed",
            (Err(_), Some(_)) => "has a sabotage that was not caught",
            (Err(_), None) => "failed",
        };
        // A program of the user's covers nothing of the catalogue.
        let covers = match covers.is_empty() {
            true => String::new(),
            false => format!(" (covers {})", covers.join(", ")),
        };
        writeln!(f, "# {name} {verdict}\n\n{about}{covers}\n\nOn {tested}\n")?;
        if let Some(broken) = self.broken {
            writeln!(
                f,
                "This run carries a fault on purpose: `--break {broken}`.\n"
            )?;
        }
        if let Some(unsettled) = self.unsettled {
            writeln!(f, "What it started from is not whole: {unsettled}.\n")?;
        }
        if let Some(uncaught) = uncaught {
            self.uncaught(f, uncaught)?;
        } else if let Err(error) = self.verdict {
            match error.downcast_ref::<Failure>() {
                Some(failure) => {
                    writeln!(f, "## What was expected\n\n{}\n", failure.expected)?;
                    writeln!(
                        f,
                        "## What was seen ({})\n\n{}\n",
                        failure.cause, failure.seen
                    )?;
                    writeln!(f, "## Where to look\n\n{}\n", failure.look)?;
                }
                None => self.not_carried_out(f, error)?,
            }
        }
        if let Ok(twin) = context::read::<Twin>(&self.folder.join(Twin::FILE)) {
            beside_its_twin(f, &twin)?;
        }
        if let Ok(told) = std::fs::read_to_string(self.folder.join(NODES)) {
            writeln!(f, "## What stands out on the nodes\n\n```\n{told}```\n")?;
        }
        if let Ok(account) = Account::read(self.folder) {
            rule_changes(f, &account.rules)?;
        }
        if let Ok(timeline) = std::fs::read_to_string(self.folder.join(traffic::TIMELINE)) {
            writeln!(f, "## Who answered when\n\n```\n{timeline}```\n")?;
        }
        if let Ok(told) = std::fs::read_to_string(self.folder.join(STOOD_OUT)) {
            writeln!(f, "## What stood out on the wire\n\n```\n{told}```\n")?;
        }
        if let Ok(told) = std::fs::read_to_string(self.folder.join(LOST)) {
            writeln!(f, "## What is not here\n\n```\n{told}```\n")?;
        }
        if !self.proofs.is_empty() {
            writeln!(f, "## Sabotages\n")?;
            for proof in self.proofs {
                let name = proof.sabotage.name;
                match &proof.effect {
                    Effect::Caught(failure) => writeln!(f, "- {name}: caught: {failure}")?,
                    _ => writeln!(f, "- {name}: NOT caught")?,
                }
            }
            writeln!(f)?;
        }
        match uncaught {
            None if self.verdict.is_err() => self.steps(f, "##", self.last_lab().unwrap_or(LAB))?,
            _ => self.steps(f, "##", LAB)?,
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
    use crate::check::failure::Cause;
    use crate::check::twin::Line;
    use crate::run::proof::tests::{failure, proof};
    use anyhow::anyhow;
    use std::fs;

    fn page(verdict: &anyhow::Result<()>, proofs: &[Proof], folder: &Path) -> String {
        let page = Page {
            name: "drain",
            about: "A node is drained",
            covers: &["E36", "E37"],
            verdict,
            proofs,
            broken: None,
            unsettled: None,
            tested: "kubeadm/nftables/flannel, kubernetes 1.36.4 from modules",
            again: "cargo xtask test --bootstrap kubeadm",
            folder,
        };
        assert!(page.is_worth_reading());
        page.text()
    }

    #[test]
    fn what_others_said_commands_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let said = "\u{1b}]52;c;Y3Vy\u{7}\n::error::x";
        let failure = Failure::new(Cause::WrongAnswer, "blue", said).look("the page");
        let page = page(&Err(failure.into()), &[], folder.path());
        let shown = "\\u001b]52;c;Y3Vy\\u0007\n\\u003a:error::x\n";
        assert!(page.contains(shown), "{page}");
        assert!(page.contains("## What was expected\n"), "{page}");
    }

    #[test]
    fn what_passed_with_a_timeline_has_a_page_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Page {
            name: "drain",
            about: "",
            covers: &[],
            verdict: &Ok(()),
            proofs: &[],
            broken: None,
            unsettled: None,
            tested: "",
            again: "",
            folder: folder.path(),
        };
        assert!(!nothing.is_worth_reading());
        fs::write(folder.path().join(traffic::TIMELINE), "a |##| 2\n").unwrap();
        let caught = [proof("no-route", &failure(Cause::TimedOut))];
        insta::assert_snapshot!(page(&Ok(()), &caught, folder.path()));
    }

    #[test]
    fn what_could_not_be_written_is_told_of_what_passed_as_well() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOST), "the timeline cannot be written\n").unwrap();
        let page = page(&Ok(()), &[], folder.path());
        let told = "## What is not here\n\n```\nthe timeline cannot be written\n```\n";
        assert!(page.contains(told), "{page}");
    }

    #[test]
    fn what_stands_out_on_the_nodes_is_told_of_what_failed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NODES), "node2: its clock\n").unwrap();
        let failure = Failure::new(Cause::TimedOut, "an answer", "none").look("the page");
        let page = page(&Err(failure.into()), &[], folder.path());
        let told = "## Where to look\n\nthe page\n\n\
                    ## What stands out on the nodes\n\n```\nnode2: its clock\n```\n";
        assert!(page.contains(told), "{page}");
    }

    #[test]
    fn what_a_healthy_clone_has_is_told_before_what_the_nodes_say() {
        let folder = tempfile::tempdir().unwrap();
        let failure = || Failure::new(Cause::TimedOut, "an answer", "none").look("the page");
        let told = |twin: &Twin| {
            context::write(&folder.path().join(Twin::FILE), twin).unwrap();
            let page = page(&Err(failure().into()), &[], folder.path());
            let (_, told) = page.split_once("## Where to look\n\nthe page\n\n").unwrap();
            told.split("To see it again").next().unwrap().to_owned()
        };
        let line = |healthy, text: &str| Line {
            healthy,
            text: text.to_owned(),
        };
        let mut twin = Twin {
            whose: "a second clone".to_owned(),
            step: "every pair".to_owned(),
            failed: None,
            unlike: vec![Unlike {
                node: "node2".to_owned(),
                about: "sysctls".to_owned(),
                lines: vec![line(true, "net.a = 1"), line(false, "net.a = 0")],
                left_out: 3,
            }],
            unheard: vec![],
        };
        insta::assert_snapshot!(told(&twin), @r#"
        ## Beside a healthy clone
        
        It passed the step "every pair": a second clone. What this one alone has (+), and that one alone (-), counters left out:
        
        node2, sysctls:
        
        ```
        - net.a = 1
        + net.a = 0
        ... (3 more)
        ```
        
        
        Again, alone: `cargo xtask test --bootstrap kubeadm --filter drain`
        "#);
        twin.unlike.clear();
        insta::assert_snapshot!(told(&twin), @r#"
        ## Beside a healthy clone
        
        It passed the step "every pair": a second clone. Routes, rules and sysctls of every node are the same in both.
        
        
        Again, alone: `cargo xtask test --bootstrap kubeadm --filter drain`
        "#);
        twin.unheard = vec!["node3".to_owned()];
        insta::assert_snapshot!(told(&twin), @r#"
        ## Beside a healthy clone
        
        It passed the step "every pair": a second clone. Routes, rules and sysctls of every node that answered are the same in both.
        
        Not compared, for want of an answer: node3.
        
        
        Again, alone: `cargo xtask test --bootstrap kubeadm --filter drain`
        "#);
        twin.failed = Some("node1 times out".to_owned());
        insta::assert_snapshot!(told(&twin), @"
        ## Beside a healthy clone
        
        There is none to compare with: a second clone failed as well: node1 times out
        
        
        Again, alone: `cargo xtask test --bootstrap kubeadm --filter drain`
        ");
    }

    #[test]
    fn what_stood_out_is_told_of_what_passed_as_well() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STOOD_OUT), "a -> b: TCP reset (1); x\n").unwrap();
        let page = page(&Ok(()), &[], folder.path());
        let told = "## What stood out on the wire\n\n```\na -> b: TCP reset (1); x\n```\n";
        assert!(page.contains(told), "{page}");
        assert!(page.starts_with("# drain passed"), "{page}");
        let lines = ["a -> b: TCP reset (1); x"];
        assert_eq!(stood_out(folder.path()), lines);
        fs::remove_file(folder.path().join(STOOD_OUT)).unwrap();
        assert_eq!(stood_out(folder.path()), [""; 0]);
    }

    fn changed(number: u64) -> RuleChange {
        RuleChange {
            at_ms: 1000 * number,
            node: "node1".to_owned(),
            by: "nft".to_owned(),
            tables: ["ip filter".to_owned()].into(),
            added: 1,
            deleted: 0,
            first: "add rule ip filter FORWARD drop".to_owned(),
        }
    }

    #[test]
    fn what_failed_says_why_before_it_draws() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(traffic::TIMELINE), "a |##| 2\n").unwrap();
        fs::create_dir_all(folder.path().join(EVIDENCE)).unwrap();
        let lab = folder.path().join(LAB);
        fs::create_dir_all(&lab).unwrap();
        fs::write(lab.join(lab::STEPS), "    1.5  drain node3\n").unwrap();
        let failure = Failure::new(Cause::TimedOut, "no gap", "a gap").look("the timeline");
        let error = failure.clone().into();
        let mut account = Account::of("about", &error, Vec::new(), Duration::from_secs(3));
        account.rules = (0..CHANGES as u64 + 2).map(changed).collect();
        account.write(folder.path()).unwrap();
        insta::assert_snapshot!(page(&Err(failure.into()), &[], folder.path()));
    }

    #[test]
    fn an_uncaught_sabotage_is_told_as_the_scenario_s_fault_and_not_the_cluster_s() {
        let folder = tempfile::tempdir().unwrap();
        let lab = folder.path().join(sabotage_lab("held"));
        fs::create_dir_all(&lab).unwrap();
        fs::write(lab.join(lab::STEPS), "    1.5  remove the route\n").unwrap();
        let proofs = [
            proof("no-route", &failure(Cause::TimedOut)),
            proof("held", &Ok(())),
            proof("other", &failure(Cause::Refused)),
            proof("broken", &Err(anyhow!("node1 does not answer"))),
        ];
        let verdict = Uncaught::among(&proofs).map_err(anyhow::Error::from);
        let page = page(&verdict, &proofs, folder.path());
        // There is no such folder.
        assert!(!page.contains("evidence"), "{page}");
        insta::assert_snapshot!(page);
    }

    #[test]
    fn a_stage_that_had_not_settled_is_told_whatever_came_of_it() {
        let page = Page {
            name: "drain",
            about: "",
            covers: &[],
            verdict: &Ok(()),
            proofs: &[],
            broken: None,
            unsettled: Some("the stage workload had not settled: 5 of 6 Pods run"),
            tested: "",
            again: "",
            folder: Path::new("/nowhere"),
        };
        assert!(page.is_worth_reading());
        let told = "not whole: the stage workload had not settled: 5 of 6 Pods run.\n";
        assert!(page.to_string().contains(told), "{page}");
    }

    #[test]
    fn what_never_had_a_cluster_names_no_console() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = Err(anyhow!("the run has no stage `init`"));
        let early = page(&verdict, &[], folder.path());
        assert!(!early.contains("console"), "{early}");
        assert!(early.contains("there was no cluster yet"), "{early}");
        let preparation = folder.path().join(PREPARATION);
        fs::create_dir_all(&preparation).unwrap();
        fs::write(preparation.join(lab::STEPS), "    1.5  drain node3\n").unwrap();
        let prepared = page(&verdict, &[], folder.path());
        assert!(prepared.contains("(in `preparation/`)"), "{prepared}");
        assert!(prepared.contains("1.5  drain node3"), "{prepared}");
        fs::create_dir_all(folder.path().join(LAB)).unwrap();
        let cloned = page(&verdict, &[], folder.path());
        assert!(
            cloned.contains("consoles first (in `scenario/`)"),
            "{cloned}"
        );
        fs::create_dir_all(folder.path().join(EVIDENCE)).unwrap();
        let collected = page(&verdict, &[], folder.path());
        assert!(collected.contains("evidence/*/console.log"), "{collected}");
    }
}
