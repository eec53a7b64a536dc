//! `cargo xtask bench switch`: the segment's switch beside vde_switch.

use podwire_lan::bench::{SwitchBench, SwitchBenchPlan, switch};

use crate::say::stop::Stop;
use crate::say::text::table;

/// Our switch beside vde_switch.
pub(crate) fn segment_switch(json: bool) -> Result<(), Stop> {
    let program = which::which("vde_switch").map_err(|_| {
        Stop::setup(
            "vde_switch is not installed; it is in the package vde2 (`apt-get install vde2`)",
        )
    })?;
    let dir = tempfile::tempdir()?;
    let bench = switch(&SwitchBenchPlan::default(), &program, dir.path())?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&bench)?);
    } else {
        out!("{}", compared(&bench));
    }
    Ok(())
}

fn compared(bench: &SwitchBench) -> String {
    let mut rows = vec![
        [
            "frame",
            "ours: frames/s",
            "Gbit/s",
            "vde_switch: frames/s",
            "Gbit/s",
            "ours / vde_switch",
            "watched / unwatched",
        ]
        .map(String::from)
        .to_vec(),
    ];
    rows.extend(bench.comparisons.iter().map(|comparison| {
        vec![
            format!("{} bytes", comparison.frame_bytes),
            format!("{:.0}", comparison.ours.frames_per_second),
            format!("{:.2}", comparison.ours.gigabits_per_second),
            format!("{:.0}", comparison.vde_switch.frames_per_second),
            format!("{:.2}", comparison.vde_switch.gigabits_per_second),
            format!("{:.2}", comparison.ratio),
            format!("{:.3}", comparison.watched),
        ]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_lan::bench::{Rate, SwitchComparison};

    #[test]
    fn the_switches_stand_side_by_side_with_their_ratio() {
        let rate = |frames_per_second: f64| Rate {
            frames: 1,
            lost: 0,
            seconds: 1.0,
            frames_per_second,
            gigabits_per_second: frames_per_second * 512.0 / 1e9,
        };
        let bench = SwitchBench {
            comparisons: vec![SwitchComparison {
                frame_bytes: 64,
                ours: rate(1_500_000.0),
                vde_switch: rate(1_000_000.0),
                ratio: 1.5,
                watched: 0.975,
            }],
        };
        insta::assert_snapshot!(compared(&bench));
    }
}
