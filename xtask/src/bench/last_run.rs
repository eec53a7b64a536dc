//! `cargo xtask bench`: where the last run's time went.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::report::results::Results;
use crate::say::stop::Stop;
use crate::say::text::{clock, table};

/// Where the last run's time went.
pub(crate) fn last_run(latest: &Path, json: bool) -> Result<(), Stop> {
    let results = results_in(latest)?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&results.phases)?);
    } else {
        out!("{}", where_it_went(&results));
    }
    Ok(())
}

/// What a run has left in its folder.
pub(super) fn results_in(latest: &Path) -> Result<Results, Stop> {
    let path = latest.join("results.json");
    if !path.exists() {
        return Err(Stop::setup(format!(
            "there is no run to show: {} is missing; `cargo xtask test` makes one",
            path.display()
        )));
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let results = serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged, or of another version", path.display()))?;
    Ok(results)
}

/// Each phase with its share, then each scenario.
fn where_it_went(results: &Results) -> String {
    let total: f64 = results.phases.iter().map(|phase| phase.seconds).sum();
    let share = |seconds: f64| {
        if total > 0.0 {
            format!("{:.0} %", seconds / total * 100.0)
        } else {
            "-".into()
        }
    };
    let time =
        |seconds: f64| clock(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let mut rows = vec![["phase", "time", "share", ""].map(String::from).to_vec()];
    rows.extend(results.phases.iter().map(|phase| {
        vec![
            phase.name.clone(),
            time(phase.seconds),
            share(phase.seconds),
            if phase.cached {
                "cached".into()
            } else {
                String::new()
            },
        ]
    }));
    rows.push(vec!["all".into(), time(total), share(total), String::new()]);
    let mut text = format!(
        "The last run: accelerator {}, speed factor {:.1}\n\n{}",
        results.accelerator,
        results.speed_factor,
        table(&rows)
    );
    let parts: Vec<Vec<String>> = results
        .scenarios
        .iter()
        .flat_map(|scenario| {
            scenario.parts.iter().map(|(part, seconds)| {
                vec![
                    scenario.cell.clone(),
                    scenario.name.clone(),
                    part.clone(),
                    format!("{seconds:.1} s"),
                ]
            })
        })
        .collect();
    if !parts.is_empty() {
        text += &format!("\n{}", table(&parts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn phases_come_with_their_share() {
        insta::assert_snapshot!(where_it_went(&fixture::results()));
    }
}
