//! The scenarios that took longest, and what took their time.

use maud::{Markup, html};
use podwire_scenario::SABOTAGE;

use super::said::short;
use crate::report::results::{Results, ScenarioRecord};

/// How many are told of.
const TOLD: usize = 10;
/// Characters of a name, and of a step.
const NAME: usize = 60;
const STEP: usize = 160;

pub(super) fn section(results: &Results) -> Markup {
    let mut ran: Vec<&ScenarioRecord> = results.scenarios.iter().collect();
    ran.retain(|record| record.attempts > 0);
    ran.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    ran.truncate(TOLD);
    html! {
        @if !ran.is_empty() {
            h3 { "What took longest, and why" }
            div.wide tabindex="0" role="region" aria-label="What took longest" {
                table {
                    thead {
                        tr {
                            th scope="col" { "scenario" }
                            th scope="col" { "seconds" }
                            th scope="col" { "of these" }
                            th scope="col" { "its longest steps" }
                        }
                    }
                    tbody { @for record in ran { (row(record)) } }
                }
            }
        }
    }
}

fn row(record: &ScenarioRecord) -> Markup {
    html! {
        tr {
            th scope="row" {
                (short(&record.name, NAME)) " " span.cell { (short(&record.cell, NAME)) }
            }
            td.time { (format!("{:.1}", record.seconds)) }
            td { (shares(record)) }
            td {
                @for long in &record.longest {
                    div {
                        span.time { (format!("{:.1} s", long.time.seconds)) } " "
                        (short(&long.time.step, STEP)) " "
                        span.cell { (short(long.part.trim_end_matches(RUN), NAME)) }
                    }
                }
            }
        }
    }
}

/// How the names of the parts end in which a scenario or a sabotage is at work, and clones are made.
const RUN: &str = ": run";
const CLONE: &str = ": clone";

/// What a scenario's time went into, in a sentence.
fn shares(record: &ScenarioRecord) -> String {
    let of = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        let parts = record.parts.iter().filter(|(name, _)| wanted(name));
        let seconds: Vec<f64> = parts.map(|(_, seconds)| *seconds).collect();
        let all: f64 = seconds.iter().sum();
        (!seconds.is_empty()).then(|| match seconds.len() {
            1 => format!("{what} {all:.1} s"),
            many => format!("{many} {what}s {all:.1} s"),
        })
    };
    let shares = [
        of("run", &|name| {
            name.ends_with(RUN) && !name.starts_with(SABOTAGE)
        }),
        of("sabotage", &|name| {
            name.ends_with(RUN) && name.starts_with(SABOTAGE)
        }),
        of("clone", &|name| name.ends_with(CLONE)),
    ];
    shares.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use podwire_scenario::StepTime;

    use super::*;
    use crate::report::fixture::results;
    use crate::report::results::LongStep;

    #[test]
    fn the_slowest_come_first_with_what_they_were_at() {
        let mut results = results();
        let base = results.scenarios[0].clone();
        let long = |part: &str, step: &str, seconds: f64| LongStep {
            part: part.into(),
            time: StepTime {
                step: step.into(),
                seconds,
            },
        };
        results
            .scenarios
            .extend((0..12u32).map(|number| ScenarioRecord {
                name: format!("scenario_{number}"),
                seconds: 100.0 + f64::from(number),
                ..base.clone()
            }));
        results.scenarios[12] = ScenarioRecord {
            name: "leave_and_return".into(),
            seconds: 210.5,
            parts: [
                ("scenario: clone", 6.0),
                ("scenario: run", 150.0),
                ("sabotage a: clone", 7.0),
                ("sabotage a: run", 20.0),
                ("sabotage a: from the fault to the verdict", 19.0),
                ("sabotage b: clone", 7.0),
                ("sabotage b: run", 20.5),
            ]
            .map(|(name, seconds)| (name.to_owned(), seconds))
            .into(),
            longest: vec![
                long("scenario: run", "drain node3 <now>", 68.2),
                long("sabotage a: run", "everybody reaches everybody", 11.0),
            ],
            ..base.clone()
        };
        // Whatever never ran took no time.
        results.scenarios[11].attempts = 0;
        let text = section(&results).into_string();
        let rows: Vec<&str> = text.split("<tr>").skip(2).collect();
        assert_eq!(rows.len(), TOLD);
        insta::assert_snapshot!(rows[0], @r#"<th scope="row">leave_and_return <span class="cell">by-hand/nftables/routes</span></th><td class="time">210.5</td><td>run 150.0 s, 2 sabotages 40.5 s, 3 clones 20.0 s</td><td><div><span class="time">68.2 s</span> drain node3 &lt;now&gt; <span class="cell">scenario</span></div><div><span class="time">11.0 s</span> everybody reaches everybody <span class="cell">sabotage a</span></div></td></tr>"#);
        assert!(rows[1].contains(">scenario_9 "), "{}", rows[1]);
    }
}
