//! `junit.xml`, made of the same results.

use std::time::Duration;

use podwire_process::plain;
use podwire_scenario::cases;
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use crate::report::results::{Results, ScenarioRecord, TestRecord, Verdict};

/// Two suites: the harness's own tests and the scenarios. Sabotages and ids are properties.
pub(crate) fn report(results: &Results) -> Report {
    let mut report = Report::new("podwire");
    let mut harness = TestSuite::new("harness");
    harness.add_test_cases(results.harness_tests.iter().map(test_case));
    let mut scenarios = TestSuite::new("scenarios");
    scenarios
        .add_property(Property::new("accelerator", results.accelerator.as_str()))
        .add_property(Property::new(
            "accelerator_reason",
            plain::text(results.accelerator_reason.as_deref().unwrap_or_default()),
        ))
        .add_property(Property::new(
            "speed_factor",
            format!("{:.1}", results.speed_factor),
        ))
        .add_property(Property::new(
            "component_settings",
            results.component_settings.as_deref().unwrap_or_default(),
        ))
        .add_property(Property::new("kubernetes", results.kubernetes.as_str()))
        .add_property(Property::new("system", &results.system))
        .add_property(Property::new("provenance", results.provenance.to_string()));
    if let Some(network) = &results.pod_network {
        scenarios.add_property(Property::new("pod_network", plain::text(network)));
    }
    for archive in &results.pod_images {
        scenarios.add_property(Property::new("pod_images", plain::text(archive)));
    }
    if results.cluster_dns {
        scenarios.add_property(Property::new("cluster_dns", "true"));
    }
    if let Some(files) = &results.node_files {
        scenarios.add_property(Property::new("node_files", plain::text(files)));
    }
    for configuration in &results.configurations {
        let configuration = plain::text(configuration);
        scenarios.add_property(Property::new("configuration", configuration));
    }
    for said in &results.unsettled_stages {
        scenarios.add_property(Property::new("unsettled_stage", plain::text(said)));
    }
    scenarios.add_test_cases(results.scenarios.iter().map(scenario_case));
    let own = results.scenarios.iter().flat_map(own_cases);
    scenarios.add_test_cases(own);
    report.add_test_suites([harness, scenarios]);
    report
}

fn status(outcome: Verdict, reason: &str) -> TestCaseStatus {
    let mut status = match outcome {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Skipped => TestCaseStatus::skipped(),
    };
    if matches!(outcome, Verdict::Failed | Verdict::Skipped) {
        let reason = &plain::text(reason);
        status.set_message(reason.lines().next().unwrap_or_default());
        if reason.lines().count() > 1 {
            status.set_description(reason.as_str());
        }
    }
    status
}

fn test_case(test: &TestRecord) -> TestCase {
    let mut case = TestCase::new(plain::line(&test.name), status(test.outcome, &test.reason));
    case.set_classname("harness")
        .set_time(seconds(test.seconds));
    case
}

fn scenario_case(record: &ScenarioRecord) -> TestCase {
    let mut case = TestCase::new(record.name.as_str(), status(record.outcome, &record.reason));
    case.set_classname(format!("scenarios.{}", record.cell))
        .set_time(seconds(record.seconds))
        .add_property(Property::new("covers", record.covers.join(" ")))
        .add_property(Property::new("attempts", record.attempts.to_string()));
    for sabotage in &record.sabotages {
        let caught = if sabotage.caught {
            "caught"
        } else {
            "not caught"
        };
        case.add_property(Property::new(format!("sabotage.{}", sabotage.name), caught));
    }
    if let Some(part) = &record.part {
        case.add_property(Property::new("part", part.as_str()));
    }
    if let Some(folder) = &record.folder {
        case.add_property(Property::new("evidence", folder.display().to_string()));
    }
    case
}

/// What a program of the user's told of itself.
fn own_cases(record: &ScenarioRecord) -> impl Iterator<Item = TestCase> {
    record.cases.iter().map(|it| {
        let outcome = match it.verdict {
            cases::Verdict::Passed => Verdict::Passed,
            cases::Verdict::Failed => Verdict::Failed,
            cases::Verdict::Skipped => Verdict::Skipped,
        };
        let mut case = TestCase::new(plain::line(&it.name), status(outcome, &it.reason));
        case.set_classname(format!("scenarios.{}.{}", record.cell, record.name))
            .set_time(seconds(it.seconds));
        case
    })
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::results;

    #[test]
    fn what_others_said_commands_no_reader_of_the_report() {
        let mut results = results();
        let record = &mut results.scenarios[0];
        record.outcome = Verdict::Failed;
        record.reason = "seen:\u{9b}2J\u{202e}x\n::error::y".into();
        let written = report(&results).to_string().unwrap();
        let shown = r"seen:\u009b2J\u202ex";
        assert!(written.contains(shown), "{written}");
        assert!(written.contains(r"\u003a:error::y"), "{written}");
        assert!(!written.contains(['\u{9b}', '\u{202e}']), "{written}");
    }

    #[test]
    fn what_was_merged_says_which_part_each_scenario_was_of() {
        let mut results = results();
        let property = "<property name=\"part\" value=\"2/3\"/>";
        assert!(
            !report(&results)
                .to_string()
                .unwrap()
                .contains("name=\"part\"")
        );
        results.scenarios[0].part = Some("2/3".into());
        let written = report(&results).to_string().unwrap();
        assert!(written.contains(property), "{written}");
    }

    #[test]
    fn what_the_nodes_were_given_is_named() {
        let mut results = results();
        results.pod_network = Some("calico".into());
        results.pod_images = vec!["web.tar (sha256 456789abcdef)".into()];
        results.cluster_dns = true;
        let written = report(&results).to_string().unwrap();
        let properties = [
            "name=\"pod_network\" value=\"calico\"",
            "name=\"pod_images\" value=\"web.tar (sha256 456789abcdef)\"",
            "name=\"cluster_dns\" value=\"true\"",
        ];
        for property in properties {
            assert!(written.contains(property), "{written}");
        }
    }

    #[test]
    fn each_outcome_has_its_form() {
        let mut results = results();
        results.unsettled_stages = vec!["the stage workload had not settled".into()];
        results.configurations =
            vec!["--kubelet-config ./k.yaml (sha256 0123) sets maxPods".into()];
        let base = results.scenarios[0].clone();
        for (name, outcome, reason) in [
            (
                "broken",
                Verdict::Failed,
                "expected an answer\nsaw a time-out",
            ),
            (
                "too_big",
                Verdict::Skipped,
                "needs 3 nodes, this cluster has 2",
            ),
        ] {
            results.scenarios.push(ScenarioRecord {
                name: name.into(),
                outcome,
                reason: reason.into(),
                ..base.clone()
            });
        }
        insta::assert_snapshot!(report(&results).to_string().unwrap());
    }

    #[test]
    fn the_cases_of_a_program_stand_behind_its_scenario() {
        let mut results = results();
        results.harness_tests.clear();
        let case = |name: &str, verdict, reason: &str| cases::Case {
            name: name.into(),
            verdict,
            reason: reason.into(),
            seconds: 0.5,
        };
        results.scenarios[0].cases = vec![
            case("dns/resolves", cases::Verdict::Passed, ""),
            case(
                "dns/fails",
                cases::Verdict::Failed,
                "1 is not 2\nsaid \u{1b}[2J",
            ),
        ];
        let written = report(&results).to_string().unwrap();
        let own: Vec<&str> = written
            .lines()
            .skip_while(|line| !line.contains("dns/"))
            .collect();
        insta::assert_snapshot!(own.join("\n"), @r#"
                <testcase name="dns/resolves" classname="scenarios.by-hand/nftables/routes.pod_addresses" time="0.500"/>
                <testcase name="dns/fails" classname="scenarios.by-hand/nftables/routes.pod_addresses" time="0.500">
                    <failure message="1 is not 2">1 is not 2
        said \u001b[2J</failure>
                </testcase>
            </testsuite>
        </testsuites>
        "#);
    }
}
