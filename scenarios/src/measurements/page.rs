//! docs/measurements.md: every measurement, and how its metrics are taken.

use podwire_scenario::{Profile, Scenario, Worse};

/// Where the page is, seen from the project's folder.
pub const PAGE: &str = "docs/measurements.md";

/// The page's text.
pub fn page(measurements: &[Scenario]) -> String {
    let metrics: usize = measurements.iter().map(|it| it.measures.len()).sum();
    let mut page = format!(
        "# Measurements\n\n\
         What `cargo xtask compare` measures of a base and a head in turns, and `cargo xtask test --measure` \
         once: {metrics} metrics, each read on a clone of the cluster with its workload. How pairs of readings \
         are judged is in [architecture.md](architecture.md#base-against-head).\n\
         This page is generated from `scenarios/src/measurements/`: `cargo xtask docs` writes it anew.\n\n\
         What is below a metric's grain counts as so much, so that each reading has a ratio to each other.\n"
    );
    for it in measurements {
        let profile = match it.profile {
            Profile::Everywhere | Profile::Default => "",
            Profile::Full => " In `--profile full`.",
        };
        page += &format!(
            "\n## `{}`\n\n{}.{profile}\n\n| metric | unit | worse is | grain | how it is taken |\n|---|---|---|---|---|\n",
            it.name, it.about
        );
        for metric in it.measures {
            let worse = match metric.worse {
                Worse::More => "more",
                Worse::Less => "less",
            };
            page += &format!(
                "| {} | {} | {worse} | {} | {} |\n",
                metric.name, metric.unit, metric.grain, metric.how
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::measurements;

    #[test]
    fn the_page_is_of_today_s_measurements() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let there = fs::read_to_string(project.join(PAGE)).unwrap_or_default();
        let all = measurements::measurements();
        assert!(there == page(&all), "{PAGE} is stale: `cargo xtask docs` writes it anew");
        for metric in all.iter().flat_map(|it| it.measures) {
            assert!(!metric.how.contains('|') && !metric.name.contains('|'), "{}", metric.name);
        }
    }
}
