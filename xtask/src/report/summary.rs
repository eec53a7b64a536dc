//! The end of a run on the terminal.

use std::path::Path;
use std::time::Duration;

use podwire_scenario::Read;

use crate::report::left::Left;
use crate::report::results::{PAGE, Results, ScenarioRecord, Verdict};
use crate::say::text::{clock, digits, table};

/// Everything that the terminal says at the end, the closing line of counts last.
pub(crate) fn render(results: &Results, folder: &Path) -> String {
    let mut text = String::from("\n");
    let failed_tests: Vec<_> = results
        .harness_tests
        .iter()
        .filter(|test| test.outcome == Verdict::Failed)
        .collect();
    if !results.harness_tests.is_empty() {
        let passed = results.harness_tests.iter();
        let passed = passed.filter(|test| test.outcome == Verdict::Passed);
        text += &format!(
            "harness tests on real machines: {} of {} passed\n\n",
            passed.count(),
            results.harness_tests.len()
        );
    }
    if !results.scenarios.is_empty() {
        text += &scenarios(&results.scenarios);
        text.push('\n');
    }
    text += &readings(&results.scenarios);
    text += &format!("{}\n", machine(results));
    text += &phases(results);
    if !results.package_differences.is_empty() {
        text += &format!(
            "\nThe archive has dropped locked package versions; current ones were taken \
             (`cargo xtask image bump` moves the lock):\n  {}\n",
            results.package_differences.join("\n  ")
        );
    }
    for said in &results.unsettled_stages {
        text += &format!("\n{said}\n");
    }
    for test in failed_tests {
        text += &format!(
            "\nfailed: {} (harness)\n{}\n",
            test.name,
            indented(&test.reason)
        );
    }
    for record in &results.scenarios {
        if record.outcome == Verdict::Failed {
            text += &failure(record, folder);
        }
    }
    text += &format!(
        "\nreport: {}\nresults: {}\n{}\n",
        folder.join(PAGE).display(),
        folder.join("results.json").display(),
        closing(results)
    );
    text
}

/// A table for each cell, in the order in which they ran.
fn scenarios(records: &[ScenarioRecord]) -> String {
    let cells = records.chunk_by(|a, b| a.cell == b.cell);
    let tables: Vec<String> = cells
        .map(|cell| {
            let name = cell.first().map_or("", |record| &record.cell);
            format!("{name}\n{}", of_one_cell(cell))
        })
        .collect();
    tables.join("\n")
}

/// What measurements have read, a table for each cell; nothing of runs of scenarios.
fn readings(records: &[ScenarioRecord]) -> String {
    let cells = records.chunk_by(|a, b| a.cell == b.cell);
    let tables = cells.filter_map(|cell| {
        let all = cell.iter().flat_map(|record| &record.readings);
        let rows = all.map(|it| match &it.read {
            Read::Value(value) => vec![it.metric.clone(), digits(*value), it.unit.clone()],
            Read::Unread(why) => vec![it.metric.clone(), "-".to_owned(), why.clone()],
        });
        let rows: Vec<_> = rows.collect();
        let name = cell.first().map_or("", |record| &record.cell);
        (!rows.is_empty()).then(|| format!("read on {name}, once:\n{}\n", table(&rows)))
    });
    tables.collect()
}

fn of_one_cell(records: &[ScenarioRecord]) -> String {
    let merged = records.iter().any(|record| record.part.is_some());
    let head = ["scenario", "outcome", "seconds", "sabotages caught"].into_iter();
    let head = head.chain(merged.then_some("part")).chain(["covers"]);
    let head: Vec<String> = head.map(String::from).collect();
    let rows = records.iter().map(|record| {
        let caught = record
            .sabotages
            .iter()
            .filter(|sabotage| sabotage.caught)
            .count();
        let mut row = vec![
            record.name.clone(),
            record.outcome.to_string(),
            if record.attempts == 0 {
                "-".into()
            } else {
                format!("{:.1}", record.seconds)
            },
            match record.sabotages.len() {
                0 => "-".into(),
                all => format!("{caught} of {all}"),
            },
        ];
        row.extend(merged.then(|| record.part.clone().unwrap_or_default()));
        row.push(match record.outcome {
            Verdict::Skipped => format!("({})", record.reason),
            _ => record.covers.join(" "),
        });
        row
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// What ran, on what: what it comes from is in a second line.
pub(super) fn machine(results: &Results) -> String {
    let image = results
        .image
        .as_deref()
        .map_or(String::new(), |image| format!(", image {image}"));
    let speed = if results.speed_factor > 0.0 {
        format!(", speed factor {:.1}", results.speed_factor)
    } else {
        String::new()
    };
    let settings = results.component_settings.as_deref();
    let settings = settings.map_or(String::new(), |it| format!(", component settings: {it}"));
    let shard = results.shard.as_deref().map_or(String::new(), |shard| {
        format!("; part {shard} of the scenarios")
    });
    let repeat = match results.repeat {
        1 => String::new(),
        times => format!("; each scenario {times} times"),
    };
    let given = results.given();
    let guests = guests(results).map_or(String::new(), |it| format!("\n{it}"));
    let configurations = results.configurations.iter();
    let configurations: String = configurations.map(|it| format!("\n{it}")).collect();
    format!(
        "accelerator {}{speed}{settings}; Kubernetes {} on {} nodes of {}{image}{given}{shard}{repeat}{guests}\n{}{configurations}",
        results.accelerator, results.kubernetes, results.nodes, results.system, results.provenance
    )
}

/// What the accelerator's verdict found.
pub(super) fn guests(results: &Results) -> Option<String> {
    let reason = results.accelerator_reason.as_deref()?;
    Some(format!(
        "guests run under {}: {reason}",
        results.accelerator
    ))
}

fn phases(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .phases
        .iter()
        .map(|phase| {
            vec![
                format!("  {}", phase.name),
                clock(Duration::try_from_secs_f64(phase.seconds).unwrap_or_default()),
                if phase.cached {
                    "cached".into()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    let total: f64 = results.phases.iter().map(|phase| phase.seconds).sum();
    format!(
        "where the time went ({} in all):\n{}",
        clock(Duration::try_from_secs_f64(total).unwrap_or_default()),
        table(&rows)
    )
}

fn failure(record: &ScenarioRecord, folder: &Path) -> String {
    let mut text = format!(
        "\nfailed: {} on {}\n{}\n",
        record.name,
        record.cell,
        indented(&record.reason)
    );
    if let Some(evidence) = &record.folder {
        text += &format!(
            "  read first: {}\n",
            folder.join(evidence).join(Left::FIRST_PAGE).display()
        );
    }
    text
}

/// The beginning of a reason: a panic's stack, or the history of a long wait, is left to the files.
pub(super) fn indented(text: &str) -> String {
    const LINES: usize = 12;
    const COLUMNS: usize = 200;
    let all = text.lines().count();
    let mut lines: Vec<String> = text
        .lines()
        .take(LINES)
        .map(|line| match line.char_indices().nth(COLUMNS) {
            Some((end, _)) => format!("  {} ...", &line[..end]),
            None => format!("  {line}"),
        })
        .collect();
    if all > LINES {
        lines.push(format!("  ({} more lines in results.json)", all - LINES));
    }
    lines.join("\n")
}

/// `12 passed, 0 failed`, with the skipped when there are any.
pub(super) fn closing(results: &Results) -> String {
    let counts = results.counts();
    let mut line = format!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.skipped > 0 {
        line += &format!(", {} skipped", counts.skipped);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::results;
    use crate::report::results::TestRecord;
    use podwire_scenario::{Reading, Worse};

    #[test]
    fn what_a_measurement_has_read_is_told_with_its_unit() {
        let mut results = results();
        assert_eq!(readings(&results.scenarios), "");
        let reading = |metric: &str, unit: &str, read| Reading {
            metric: metric.into(),
            unit: unit.into(),
            worse: Worse::More,
            grain: 0.5,
            read,
        };
        results.scenarios[0].readings = vec![
            reading(
                "latency on kept connections to a Pod",
                "ms",
                Read::Value(1.5),
            ),
            reading(
                "instructions of a request to a Pod",
                "",
                Read::Unread("nobody counts".into()),
            ),
            reading("rules of a node", "", Read::Value(14.0)),
        ];
        insta::assert_snapshot!(readings(&results.scenarios), @r"
        read on by-hand/nftables/routes, once:
        latency on kept connections to a Pod  1.50  ms
        instructions of a request to a Pod    -     nobody counts
        rules of a node                       14

        ");
    }

    #[test]
    fn a_good_run_is_a_table_and_where_the_time_went() {
        insta::assert_snapshot!(render(&results(), Path::new("target/podwire/latest")));
    }

    #[test]
    fn a_harness_test_that_somebody_ended_has_not_passed() {
        let mut results = results();
        let ended = TestRecord {
            outcome: Verdict::Skipped,
            ..results.harness_tests[0].clone()
        };
        results.harness_tests.push(ended);
        let text = render(&results, Path::new("latest"));
        let said = "\nharness tests on real machines: 1 of 2 passed\n";
        assert!(text.starts_with(said), "{text}");
    }

    #[test]
    fn a_repeated_or_divided_run_says_so() {
        let mut results = results();
        assert!(!machine(&results).contains("times"));
        (results.repeat, results.shard) = (10, Some("1/2".into()));
        let said = machine(&results);
        let ending = "; part 1/2 of the scenarios; each scenario 10 times";
        assert!(
            said.lines()
                .next()
                .is_some_and(|line| line.ends_with(ending)),
            "{said}"
        );
    }

    #[test]
    fn what_was_merged_says_which_part_each_scenario_was_of() {
        let mut results = results();
        results.scenarios[0].part = Some("2/3".into());
        insta::assert_snapshot!(scenarios(&results.scenarios), @r"
        by-hand/nftables/routes
        scenario       outcome  seconds  sabotages caught  part  covers
        pod_addresses  passed   31.5     1 of 1            2/3   C4
        ");
    }

    #[test]
    fn what_the_nodes_were_given_is_named() {
        let mut results = results();
        results.pod_network = Some("net.yaml (sha256 0123456789ab)".into());
        results.pod_images = vec!["web.tar (sha256 456789abcdef)".into()];
        results.cluster_dns = true;
        results.node_files = Some("./mine (1 file, sha256 89abcdef0123)".into());
        let said = machine(&results);
        let given = "image node-0123456789ab, the Pod network net.yaml (sha256 0123456789ab), images of web.tar \
                     (sha256 456789abcdef), CoreDNS by hand too, files of ./mine (1 file, sha256 89abcdef0123) over \
                     theirs\n";
        assert!(said.contains(given), "{said}");
    }

    #[test]
    fn which_settings_the_components_had_is_said_as_soon_as_it_is_known() {
        let mut results = results();
        assert!(machine(&results).starts_with(
            "accelerator tcg, speed factor 7.5, component settings: idle (docs/idle.md); Kubernetes"
        ));
        results.component_settings = None;
        assert!(machine(&results).starts_with("accelerator tcg, speed factor 7.5; Kubernetes"));
    }

    #[test]
    fn as_which_processor_guests_run_under_kvm_and_what_was_tried_is_said() {
        let mut results = results();
        let found = "a guest booted under KVM on Some CPU, as host,pmu=off; as host, QEMU ended";
        (results.accelerator, results.accelerator_reason) = ("kvm".into(), Some(found.into()));
        let said = format!("guests run under kvm: {found}");
        assert_eq!(machine(&results).lines().nth(1), Some(said.as_str()));
        results.accelerator_reason = None;
        assert!(!machine(&results).contains("guests run"));
    }

    #[test]
    fn each_configuration_of_the_user_s_has_a_line() {
        let mut results = results();
        let given = "--kubelet-config ./k.yaml (sha256 0123) sets maxPods";
        results.configurations = vec![given.into()];
        assert_eq!(machine(&results).lines().last(), Some(given));
    }

    #[test]
    fn a_long_reason_is_cut_short_and_says_so() {
        let text = indented(&"x\n".repeat(20));
        assert_eq!(text.lines().count(), 13);
        assert!(text.ends_with("  (8 more lines in results.json)"), "{text}");
        assert_eq!(indented(&"é".repeat(300)).chars().count(), 2 + 200 + 4);
    }

    #[test]
    fn a_failure_says_why_and_what_to_read_first() {
        let mut results = results();
        results.package_differences = vec!["runc 1.1.15 -> 1.1.16".into()];
        results.unsettled_stages = vec![
            "the stage workload of by-hand/nftables/routes was frozen before it had settled: \
             5 of 6 Pods app=blue run"
                .into(),
        ];
        results.scenarios[0].outcome = Verdict::Failed;
        results.scenarios[0].reason = "expected: an answer\nseen: a time-out".into();
        results.scenarios[0].sabotages[0].caught = false;
        results.scenarios[0].folder = Some("scenarios/pod_addresses/attempt-1".into());
        let skipped = ScenarioRecord {
            name: "three_ways".into(),
            outcome: Verdict::Skipped,
            reason: "needs 3 nodes, this cluster has 2".into(),
            attempts: 0,
            sabotages: Vec::new(),
            folder: None,
            ..results.scenarios[0].clone()
        };
        results.scenarios.push(skipped);
        insta::assert_snapshot!(render(&results, Path::new("target/podwire/latest")));
    }
}
