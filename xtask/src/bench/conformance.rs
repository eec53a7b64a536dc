//! `cargo xtask bench conformance`: which of Kubernetes' network conformance tests passed in the last run, or in
//! several, and what kept the others from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use podwire_cluster::{Cell, PodNetwork};
use podwire_images::bundle;
use serde::Serialize;

use crate::bench::last_run::results_in;
use crate::command::workspace::Workspace;
use crate::report::results::{Results, Verdict};
use crate::run::programs::scenario_name;
use crate::say::stop::Stop;

/// A test on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Judged {
    test: String,
    cell: String,
    outcome: Verdict,
    /// Of one that has not passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Those of runs in these folders, or the last run's.
pub(crate) fn conformance(workspace: &Workspace, runs: &[PathBuf], json: bool) -> Result<(), Stop> {
    let latest = [workspace.latest()];
    let runs = if runs.is_empty() { &latest } else { runs };
    let runs = runs.iter().map(|run| results_in(run));
    let runs = runs.collect::<Result<Vec<Results>, Stop>>()?;
    let versions: BTreeSet<&str> = runs.iter().map(|run| run.kubernetes.as_str()).collect();
    let (Some(version), 1) = (versions.first(), versions.len()) else {
        let versions: Vec<&str> = versions.into_iter().collect();
        return Err(Stop::Usage(format!(
            "these runs are of Kubernetes {}: one table is of one version",
            versions.join(" and ")
        )));
    };
    // Of a test that several runs have, the last one counts.
    let mut all: Vec<Judged> = Vec::new();
    for it in runs.iter().map(|run| judged(&workspace.root, run)) {
        for it in it? {
            all.retain(|one| (&one.test, &one.cell) != (&it.test, &it.cell));
            all.push(it);
        }
    }
    if all.is_empty() {
        return Err(Stop::setup(
            "there is none of Kubernetes' conformance tests in it; a run of `cargo xtask test --tests conformance` \
             has them",
        ));
    }
    if json {
        outln!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        out!("{}", page(version, &all));
    }
    Ok(())
}

fn judged(source: &Path, results: &Results) -> Result<Vec<Judged>, Stop> {
    let versions = bundle::e2e_versions(source)?;
    if !versions.contains(&results.kubernetes) {
        return Ok(Vec::new());
    }
    let tests = bundle::network_conformance(source, &results.kubernetes)?;
    let tests = tests.into_iter().map(|test| (scenario_name(&test), test));
    let tests: BTreeMap<String, String> = tests.collect();
    let known = results.scenarios.iter().filter_map(|record| {
        let test = tests.get(&record.name)?.clone();
        Some(Judged {
            test,
            cell: record.cell.clone(),
            outcome: record.outcome,
            why: (record.outcome != Verdict::Passed).then(|| said(&record.reason)),
        })
    });
    Ok(known.collect())
}

/// The Pod network whose nodes are made without something that a test asks for, what the test says then, and why they
/// are.
const LEFT_OUT: [(PodNetwork, &str, &str); 1] = [(
    PodNetwork::Routes,
    "Failed to connect to exposed host ports",
    "the CNI files name no plugin `portmap`, as the documents' do; the scenario `host_port` (F8) chains it, and a Pod \
     has its node's port",
)];

/// How Ginkgo marks what failed, and where.
const FAILED: &str = "[FAILED] ";
const PLACE: &str = "[FAILED] in [";

/// What a test says of its failure, in one line.
fn said(reason: &str) -> String {
    let lines = reason.lines().map(str::trim);
    let fails = |line: &&str| line.starts_with(FAILED) && !line.starts_with(PLACE);
    let found = lines.clone().find(fails);
    let line = found.or_else(|| lines.clone().next()).unwrap_or_default();
    line.replace('|', "\\|")
}

/// As Markdown, for the docs.
fn page(version: &str, all: &[Judged]) -> String {
    let cells: BTreeSet<&str> = all.iter().map(|it| it.cell.as_str()).collect();
    let tests: BTreeSet<&str> = all.iter().map(|it| it.test.as_str()).collect();
    let of = |test: &str, cell: &str| all.iter().find(|it| it.test == test && it.cell == cell);
    let passed = |cell: &str| {
        let own = all.iter().filter(|it| it.cell == cell);
        let passed = own
            .clone()
            .filter(|it| it.outcome == Verdict::Passed)
            .count();
        format!("{passed} of {} passed on {cell}", own.count())
    };
    let counts: Vec<String> = cells.iter().map(|cell| passed(cell)).collect();
    let mut text = format!(
        "# Kubernetes' network conformance tests\n\nOf Kubernetes {version}: {}. Each ran beside a cluster of its own. Made by \
         `cargo xtask bench conformance` of runs of `cargo xtask test --tests conformance`.\n\n| test |",
        counts.join(", ")
    );
    for cell in &cells {
        text += &format!(" {cell} |");
    }
    text += &format!("\n|---|{}\n", "---|".repeat(cells.len()));
    for test in tests {
        text += &format!("| {test} |");
        for cell in &cells {
            let word = of(test, cell).map_or("not run".to_owned(), |it| match it.outcome {
                Verdict::Passed => "passed".to_owned(),
                other => format!("**{other}**"),
            });
            text += &format!(" {word} |");
        }
        text.push('\n');
    }
    let others: Vec<&Judged> = all.iter().filter(|it| it.why.is_some()).collect();
    if !others.is_empty() {
        text += "\n## What did not pass\n\n| test | cluster | why |\n|---|---|---|\n";
    }
    for it in others {
        let said = it.why.as_deref().unwrap_or_default();
        let network = it.cell.parse().ok().map(|cell: Cell| cell.network);
        let known = LEFT_OUT
            .iter()
            .find(|(of, says, _)| network == Some(*of) && said.contains(says));
        let why = known.map_or(String::new(), |(_, _, why)| format!(": {why}"));
        text += &format!("| {} | {} | {said}{why} |\n", it.test, it.cell);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::results::ScenarioRecord;

    #[test]
    fn what_passed_and_what_did_not_is_told_by_test_and_cluster() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut results = fixture::results();
        results.kubernetes = "1.36.4".into();
        let record = |name: &str, cell: &str, outcome, reason: &str| ScenarioRecord {
            name: name.into(),
            cell: cell.into(),
            outcome,
            reason: reason.into(),
            ..fixture::results().scenarios[0].clone()
        };
        let dns = "dns_should_provide_dns_for_the_cluster";
        let basic = "services_should_serve_a_basic_endpoint_from_pods";
        let host_port = "[sig-network] HostPort validates that there is no conflict between pods with same hostPort \
                         but different hostIP and protocol [LinuxOnly] [Conformance]";
        let reason = "it ended with 1; the last that it said:\n  [FAILED] in [It] - dns.go:1\n  [FAILED] no | answer";
        results.scenarios = vec![
            record(dns, "by-hand/nftables/routes", Verdict::Failed, reason),
            record(basic, "by-hand/nftables/routes", Verdict::Passed, ""),
            record(
                &scenario_name(host_port),
                "by-hand/nftables/routes",
                Verdict::Failed,
                "  [FAILED] Failed to connect to exposed host ports",
            ),
            record(dns, "kubeadm/nftables/flannel", Verdict::Passed, ""),
            record(
                "every_pair",
                "kubeadm/nftables/flannel",
                Verdict::Passed,
                "",
            ),
        ];
        let judged = judged(source, &results).unwrap();
        insta::assert_snapshot!(page("1.36.4", &judged), @r"
        # Kubernetes' network conformance tests
        
        Of Kubernetes 1.36.4: 1 of 3 passed on by-hand/nftables/routes, 1 of 1 passed on kubeadm/nftables/flannel. Each ran beside a cluster of its own. Made by `cargo xtask bench conformance` of runs of `cargo xtask test --tests conformance`.
        
        | test | by-hand/nftables/routes | kubeadm/nftables/flannel |
        |---|---|---|
        | [sig-network] DNS should provide DNS for the cluster [Conformance] | **failed** | passed |
        | [sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly] [Conformance] | **failed** | not run |
        | [sig-network] Services should serve a basic endpoint from pods [Conformance] | passed | not run |
        
        ## What did not pass
        
        | test | cluster | why |
        |---|---|---|
        | [sig-network] DNS should provide DNS for the cluster [Conformance] | by-hand/nftables/routes | [FAILED] no \| answer |
        | [sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly] [Conformance] | by-hand/nftables/routes | [FAILED] Failed to connect to exposed host ports: the CNI files name no plugin `portmap`, as the documents' do; the scenario `host_port` (F8) chains it, and a Pod has its node's port |
        ");
    }
}
