//! What measurements have read, once: a row for each, without a word on whether it is good.

use maud::{Markup, html};

use podwire_scenario::Read;

use super::said::short;
use crate::report::results::{Results, ScenarioRecord};
use crate::say::text::digits;

/// Characters of a name, of a unit, and of a reason.
const NAME: usize = 80;
const UNIT: usize = 20;
const WHY: usize = 200;

/// Nothing of a run that measures nothing; of others so many rows, since all are in results.json.
pub(super) fn section(results: &Results, rows: usize) -> Markup {
    let of = |record: &'_ ScenarioRecord| record.readings.len();
    let all: usize = results.scenarios.iter().map(of).sum();
    let each = results.scenarios.iter();
    let each = each.flat_map(|record| record.readings.iter().map(move |it| (record, it)));
    html! {
        @if all > 0 {
            section id="readings" {
                h2 { "Readings" }
                p { "Each was taken once, and says something only beside others: cargo xtask compare." }
                div.wide tabindex="0" role="region" aria-label="Readings" {
                    table {
                        thead {
                            tr {
                                @for name in ["metric", "cluster", "read", "unit"] {
                                    th scope="col" { (name) }
                                }
                            }
                        }
                        tbody {
                            @for (record, it) in each.take(rows) {
                                tr {
                                    th scope="row" { (short(&it.metric, NAME)) }
                                    td { (short(&record.cell, NAME)) }
                                    @match &it.read {
                                        Read::Value(value) => {
                                            td.time { (digits(*value)) }
                                            td { (short(&it.unit, UNIT)) }
                                        }
                                        Read::Unread(why) => {
                                            td.time { "-" }
                                            td { (short(why, WHY)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                @if all > rows { p { (all - rows) " more are in results.json." } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::results;
    use crate::report::page::{MOST, page};
    use podwire_scenario::{Reading, Worse};
    use std::collections::BTreeMap;

    fn reading(metric: &str, unit: &str, value: f64) -> Reading {
        Reading {
            metric: metric.into(),
            unit: unit.into(),
            worse: Worse::More,
            grain: 0.5,
            read: Read::Value(value),
        }
    }

    #[test]
    fn a_measurement_s_page_has_what_it_has_read() {
        let mut results = results();
        assert_eq!(section(&results, 10).into_string(), "");
        results.scenarios[0].readings = vec![
            reading("latency <b>", "ms", 1.5),
            Reading {
                read: Read::Unread("nobody counts <them>".into()),
                ..reading("instructions of a request", "", 0.0)
            },
            reading("rules of a node", "", 14.0),
        ];
        let told = section(&results, 1).into_string();
        assert!(told.contains("2 more are in results.json"), "{told}");
        let told = section(&results, 10).into_string();
        insta::assert_snapshot!(told.replace("><", ">\n<"));
    }

    #[test]
    fn however_much_was_read_the_page_is_not_too_long() {
        let mut results = results();
        let long = "<script>".repeat(1000);
        results.scenarios[0].readings = vec![reading(&long, &long, 1.0); 20_000];
        let page = page(&results, &BTreeMap::new());
        assert!(page.len() <= MOST && !page.contains("<script>"));
    }
}
