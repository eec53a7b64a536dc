//! What a run has to say, as data: `results.json`, and the source of `junit.xml` and the summary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use podwire_images::Provenance;
use podwire_scenario::{Case, Processors, Reading, SabotageResult, StepTime};
use serde::{Deserialize, Serialize};

use crate::plan::phase::PhaseRecord;
use crate::report::whole::Whole;

/// The same as a page for people.
pub(crate) const PAGE: &str = "report.html";

/// Why a scenario has no result where the set-up failed before it.
pub(crate) const NOT_SET_UP: &str = "set-up failed before it";

/// `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// `kvm` or `tcg`; `not judged yet` when the run ended before.
    pub(crate) accelerator: String,
    /// Why that one, in the verdict's words: the host's processor, as which model guests run under KVM, and
    /// what was tried before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) accelerator_reason: Option<String>,
    /// How many times slower a guest is than one under KVM on a usual machine; 0 before it is known.
    pub(crate) speed_factor: f64,
    /// Whose settings the components ran with, `own defaults` or `idle (docs/idle.md)`; nothing before
    /// the accelerator is judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) component_settings: Option<String>,
    /// Kubernetes version under test.
    pub(crate) kubernetes: String,
    /// Where it came from, and which components came from elsewhere.
    pub(crate) provenance: Provenance,
    /// What the nodes run: `debian`, `ubuntu:24.04`.
    pub(crate) system: String,
    /// The Pod network where a cell does not name it, the user's: its file and its digest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pod_network: Option<String>,
    /// The user's archives with images of Pods: of each its file and its digest.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) pod_images: Vec<String>,
    /// Whether clusters by hand have CoreDNS too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) cluster_dns: bool,
    /// The user's files over theirs: the folder, how many, and the digest of all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) node_files: Option<String>,
    /// The user's configurations of components: of each file its flag, its name, the digest of what it says,
    /// the fields that it sets, and those of podwire's own that it replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) configurations: Vec<String>,
    /// Machines in the cluster.
    pub(crate) nodes: u32,
    /// Which part of the scenarios this machine had, `M/N`; nothing when it had all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) shard: Option<String>,
    /// What this part has in common with the others, and what its machine's results are merged by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) whole: Option<Whole>,
    /// What ran in the guests, by its digest: the bundle, the guest program, the user's Pod network and its images,
    /// his files and configurations. Not the node image's name, which holds each machine's own SSH keys. Nothing
    /// before the image is there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) inputs: BTreeMap<String, String>,
    /// How often each scenario ran, unless it failed.
    pub(crate) repeat: u32,
    /// The node image's name, once it is known.
    pub(crate) image: Option<String>,
    /// Packages of the image that are not the locked version.
    pub(crate) package_differences: Vec<String>,
    /// Stages under the scenarios that were frozen before they had settled, and what each lacked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) unsettled_stages: Vec<String>,
    /// What ended the run before its time; the scenarios are then skipped.
    pub(crate) error: Option<String>,
    /// Where the time went.
    pub(crate) phases: Vec<PhaseRecord>,
    /// The harness's own tests against real machines.
    pub(crate) harness_tests: Vec<TestRecord>,
    /// What the run was not asked for, in the catalogue's order, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) left_out: Vec<LeftOut>,
    /// Every selected scenario, in the catalogue's order.
    pub(crate) scenarios: Vec<ScenarioRecord>,
    /// With `--break`: whether exactly the expected scenarios are red.
    #[serde(rename = "break", skip_serializing_if = "Option::is_none", default)]
    pub(crate) broken: Option<BreakVerdict>,
}

/// A scenario that was not selected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// One of the harness's own tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TestRecord {
    pub(crate) name: String,
    pub(crate) outcome: Verdict,
    pub(crate) reason: String,
    pub(crate) seconds: f64,
}

/// What became of a scenario. Nothing is retried, so none is flaky.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// Did not run, for the reason beside it.
    Skipped,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}

/// One scenario of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScenarioRecord {
    pub(crate) name: String,
    /// The cluster that it ran on: `kubeadm/nftables/flannel`.
    pub(crate) cell: String,
    pub(crate) covers: Vec<String>,
    pub(crate) outcome: Verdict,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) seconds: f64,
    pub(crate) sabotages: Vec<SabotageResult>,
    /// Seconds of the last attempt by what it did: cloning, running, each sabotage.
    pub(crate) parts: BTreeMap<String, f64>,
    /// The steps of the last attempt that took longest, in the scenario and its sabotages, the longest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) longest: Vec<LongStep>,
    /// What a program of the user's told of itself by its JUnit file.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) cases: Vec<Case>,
    /// What stood out on the wire between nodes, also where every answer was right: a line for each kind
    /// and pair of ports, as the first page has it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) wire: Vec<String>,
    /// What a measurement has read, of `test --measure`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) readings: Vec<Reading>,
    /// How the host's processors served the machines of the scenario itself, in its last run without a
    /// sabotage.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) processors: Option<Processors>,
    /// The last attempt's folder, relative to the run's; only after a failure.
    pub(crate) folder: Option<PathBuf>,
    /// The command that leads to it again; only after a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) again: Option<String>,
    /// Which part it was of, `M/N`, and so which machine's; only in results that were merged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) part: Option<String>,
}

/// A step of a scenario, or of a sabotage of it, that took long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LongStep {
    /// Whose, as in [`ScenarioRecord::parts`]: `scenario: run`.
    pub(crate) part: String,
    #[serde(flatten)]
    pub(crate) time: StepTime,
}

/// Whether a built-in fault turned exactly the expected scenarios red.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BreakVerdict {
    pub(crate) name: String,
    /// Scenarios of this run that declare to be red under this fault.
    pub(crate) expected_red: Vec<String>,
    /// Scenarios of this run that failed.
    pub(crate) red: Vec<String>,
    pub(crate) as_expected: bool,
}

/// Passed, failed and skipped, the harness's own tests included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Results {
    /// What its guests are made of, in words: what it is, and which. One that ended before its image was there says
    /// nothing of what that is made of.
    pub(crate) fn made_of(&self) -> Vec<(String, String)> {
        let mut made_of = vec![
            ("Kubernetes is".to_owned(), self.kubernetes.clone()),
            ("the nodes run".to_owned(), self.system.clone()),
            ("it comes from".to_owned(), self.provenance.to_string()),
        ];
        if !self.inputs.is_empty() {
            let packages = self.package_differences.join(", ");
            made_of.push(("the packages beside the lock are".to_owned(), packages));
        }
        let inputs = self.inputs.iter();
        made_of.extend(inputs.map(|(what, digest)| (format!("{what} is"), digest.clone())));
        made_of
    }

    /// What the nodes were given beside what is under test, for the end of a sentence: `, the Pod network calico`.
    pub(crate) fn given(&self) -> String {
        let mut text = String::new();
        if let Some(network) = &self.pod_network {
            text += &format!(", the Pod network {network}");
        }
        for archive in &self.pod_images {
            text += &format!(", images of {archive}");
        }
        if self.cluster_dns {
            text += ", CoreDNS by hand too";
        }
        if let Some(files) = &self.node_files {
            text += &format!(", files of {files} over theirs");
        }
        text
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let outcomes = self.harness_tests.iter().map(|test| test.outcome);
        for outcome in outcomes.chain(self.scenarios.iter().map(|scenario| scenario.outcome)) {
            match outcome {
                Verdict::Passed => counts.passed += 1,
                Verdict::Failed => counts.failed += 1,
                Verdict::Skipped => counts.skipped += 1,
            }
        }
        counts
    }

    /// Whether the run is good; `strict` counts skipped as bad. One that was ended before its time, in
    /// which nothing ran, or with `--break` whose red set is not the expected one, is bad in any case.
    pub(crate) fn good(&self, strict: bool) -> bool {
        let counts = self.counts();
        self.error.is_none()
            && counts.passed > 0
            && counts.failed == 0
            && (!strict || counts.skipped == 0)
            && self
                .broken
                .as_ref()
                .is_none_or(|verdict| verdict.as_expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    /// What programs read: a field that goes, or is called otherwise, breaks theirs.
    #[test]
    fn the_file_has_what_stood_out_of_those_scenarios_where_something_did() {
        let mut results = fixture::results();
        results.scenarios.push(ScenarioRecord {
            name: "direct_way".into(),
            wire: ["node1 -> node2: TCP reset (2); 1.007 s ...".into()].into(),
            processors: Some(Processors {
                ran: 40.5,
                waited: 20.25,
            }),
            ..results.scenarios[0].clone()
        });
        insta::assert_snapshot!(serde_json::to_string_pretty(&results).unwrap());
        let quiet = serde_json::to_value(&results.scenarios[0]).unwrap();
        assert!(quiet.get("wire").is_none());
        let back: ScenarioRecord = serde_json::from_value(quiet).unwrap();
        assert_eq!(back, results.scenarios[0]);
    }

    #[test]
    fn strict_runs_do_not_allow_skipped() {
        let mut results = fixture::results();
        assert!(results.good(true));
        results.scenarios[0].outcome = Verdict::Skipped;
        assert!(results.good(false) && !results.good(true));
        results.scenarios[0].outcome = Verdict::Failed;
        assert!(!results.good(false));
    }

    #[test]
    fn a_run_in_which_nothing_ran_or_that_cannot_be_trusted_is_not_good() {
        let mut nothing = fixture::results();
        nothing.harness_tests.clear();
        nothing.scenarios[0].outcome = Verdict::Skipped;
        assert!(!nothing.good(false));
        // Whatever the report of its harness tests says, or does not.
        let mut untrusted = fixture::results();
        untrusted.scenarios[0].outcome = Verdict::Skipped;
        untrusted.error = Some("the harness's own tests failed".into());
        assert!(!untrusted.good(false));
    }

    #[test]
    fn results_json_has_the_documented_shape() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&fixture::results()).unwrap());
    }
}
