//! `cargo xtask bench red`: how long the suite's own sabotages take from the fault to the verdict.

use anyhow::Context as _;
use podwire_cluster::Stage;
use podwire_scenario::{PhaseTime, Scenario, ScenarioResult};
use serde::Serialize;

use crate::bench::suite::{self, Bench};
use crate::command::cli::house::BenchRedArgs;
use crate::command::session::Session;
use crate::report::merge;
use crate::say::stop::Stop;
use crate::say::text::table;

/// Dead Services, dead ways to a node, and a dead component, each among faults that are told at once.
const SAMPLE: &str = "cluster_ip,cluster_ip_from_everywhere,every_pair,static_routes,\
                      node_drained_deleted_rejoined";

/// Rows of the table.
const SHOWN: usize = 10;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RedBench {
    pub(crate) accelerator: String,
    /// How many times slower a guest is than one under KVM on a usual machine.
    pub(crate) speed_factor: f64,
    /// All sabotages, the slowest first.
    pub(crate) sabotages: Vec<Red>,
}

/// One sabotage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Red {
    pub(crate) scenario: String,
    pub(crate) sabotage: String,
    /// From the fault to the verdict, host seconds.
    pub(crate) seconds: f64,
    /// What was expected in vain.
    pub(crate) expected: String,
}

/// Measures, and prints a table or JSON.
pub(crate) fn red(
    session: &Session,
    args: &BenchRedArgs,
    catalogue: &[Scenario],
    json: bool,
) -> Result<(), Stop> {
    let filter = args.filter.as_deref().unwrap_or(SAMPLE);
    let measured = suite::on_stages(session, catalogue, filter, args.nodes, measure)?;
    if json {
        let text = serde_json::to_string_pretty(&measured).context("cannot write JSON")?;
        outln!("{text}");
    } else {
        out!("{}", shown(&measured));
    }
    Ok(())
}

fn measure(bench: &Bench<'_>, chosen: &[&Scenario], cached: &[Stage]) -> Result<RedBench, Stop> {
    let host = bench.suite.host;
    bench
        .suite
        .session
        .progress
        .phase("scenarios and sabotages");
    let dir = bench.folder("red")?;
    let names: Vec<String> = chosen.iter().map(|it| it.name.to_owned()).collect();
    suite::run(&bench.suite, &dir, &names, cached)?;
    let mut left = Vec::new();
    for name in &names {
        let attempts = merge::attempts(&dir, name).context("cannot read a result")?;
        let last = attempts.into_iter().next_back().flatten();
        left.push(last.with_context(|| format!("{name} left no result"))?);
    }
    Ok(RedBench {
        accelerator: host.accelerator.to_string(),
        speed_factor: host.speed_factor,
        sabotages: slowest_first(&left),
    })
}

fn slowest_first(results: &[ScenarioResult]) -> Vec<Red> {
    let mut reds: Vec<Red> = results.iter().flat_map(reds).collect();
    reds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    reds
}

fn reds(result: &ScenarioResult) -> impl Iterator<Item = Red> {
    result.sabotages.iter().filter_map(|sabotage| {
        let part = PhaseTime::to_red(&sabotage.name);
        let phase = result.phases.iter().find(|phase| phase.name == part)?;
        Some(Red {
            scenario: result.name.clone(),
            sabotage: sabotage.name.clone(),
            seconds: phase.seconds,
            expected: expected(&sabotage.reason).to_owned(),
        })
    })
}

/// What a failure's text says was expected: `expected THIS; seen (...): ...`.
fn expected(reason: &str) -> &str {
    let rest = reason.strip_prefix("expected ").unwrap_or(reason);
    rest.split("; seen (").next().unwrap_or(rest)
}

fn shown(bench: &RedBench) -> String {
    let heads = [
        "scenario",
        "sabotage",
        "fault to verdict",
        "expected in vain",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(bench.sabotages.iter().take(SHOWN).map(|red| {
        vec![
            red.scenario.clone(),
            red.sabotage.clone(),
            format!("{:.1} s", red.seconds),
            red.expected.clone(),
        ]
    }));
    format!(
        "{}, speed factor {:.1}; the slowest of {} sabotages\n\n{}",
        bench.accelerator,
        bench.speed_factor,
        bench.sabotages.len(),
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::select;
    use crate::report::fixture;
    use podwire_scenario::SabotageResult;

    fn result(name: &str, sabotages: &[(&str, f64, &str)]) -> ScenarioResult {
        let phases = sabotages.iter().flat_map(|(sabotage, seconds, _)| {
            [
                (format!("sabotage {sabotage}: run"), 2.0 * seconds),
                (PhaseTime::to_red(sabotage), *seconds),
            ]
        });
        let phases = phases.map(|(name, seconds)| PhaseTime {
            name,
            seconds,
            processors: None,
            longest: Vec::new(),
        });
        let sabotages = sabotages.iter().map(|(name, _, reason)| SabotageResult {
            name: (*name).to_owned(),
            caught: true,
            reason: (*reason).to_owned(),
            held_by: None,
        });
        ScenarioResult {
            phases: phases.collect(),
            sabotages: sabotages.collect(),
            ..fixture::passed(name)
        }
    }

    #[test]
    fn the_table_begins_with_the_slowest() {
        let dead = "expected the ClusterIP to answer from node 1; seen (timed out): 1 timed out";
        let results = [
            result(
                "cluster_ip",
                &[
                    ("kube-proxy-not-started", 7.31, dead),
                    (
                        "session-affinity",
                        12.0,
                        "expected the requests to spread evenly; seen (unbalanced): b: 0",
                    ),
                ],
            ),
            result(
                "every_pair",
                &[(
                    "one-direction-dropped",
                    9.0,
                    "expected every ordered pair to answer; seen (timed out): 2 of 54 pairs",
                )],
            ),
        ];
        let bench = RedBench {
            accelerator: "tcg".into(),
            speed_factor: 13.94,
            sabotages: slowest_first(&results),
        };
        insta::assert_snapshot!(shown(&bench), @"
        tcg, speed factor 13.9; the slowest of 3 sabotages

        scenario    sabotage                fault to verdict  expected in vain
        cluster_ip  session-affinity        12.0 s            the requests to spread evenly
        every_pair  one-direction-dropped   9.0 s             every ordered pair to answer
        cluster_ip  kube-proxy-not-started  7.3 s             the ClusterIP to answer from node 1
        ");
    }

    #[test]
    fn no_more_than_ten_are_shown() {
        let many: Vec<(String, f64)> = (1..=12)
            .map(|it| (format!("s{it}"), f64::from(it)))
            .collect();
        let many: Vec<(&str, f64, &str)> = many
            .iter()
            .map(|(name, seconds)| (name.as_str(), *seconds, ""))
            .collect();
        let bench = RedBench {
            accelerator: "kvm".into(),
            speed_factor: 1.0,
            sabotages: slowest_first(&[result("a", &many)]),
        };
        let text = shown(&bench);
        assert!(text.contains("the slowest of 12"), "{text}");
        assert!(
            text.contains("s12") && text.contains("s3 ") && !text.contains("s2 "),
            "{text}"
        );
    }

    #[test]
    fn the_sample_is_in_the_catalogue_and_for_a_cluster_by_hand() {
        let catalogue = podwire_scenarios::all();
        let chosen = select::choose(&catalogue, Some(SAMPLE), None).unwrap();
        let names: Vec<&str> = chosen.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SAMPLE.split(',').count(), "{names:?}");
        assert!(
            names
                .iter()
                .all(|name| SAMPLE.split(',').any(|it| it == *name))
        );
    }
}
