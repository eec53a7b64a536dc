//! `cargo xtask bench switch`: the segment's switch beside vde_switch and taps on a Linux bridge, as far as
//! these are here.

use std::time::Duration;

use podwire_lan::bench::{
    DelayBench, Rate, Rivals, Switch, SwitchBench, SwitchBenchPlan, SwitchComparison, switch,
};

use crate::say::stop::Stop;
use crate::say::text::table;

/// Our switch beside the others.
pub(crate) fn segment_switch(json: bool) -> Result<(), Stop> {
    let dir = tempfile::tempdir()?;
    let rivals = Rivals {
        vde_switch: which::which("vde_switch").ok(),
        dir: dir.path().to_owned(),
    };
    let bench = switch(&SwitchBenchPlan::default(), &rivals)?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&bench)?);
    } else {
        out!("{}", compared(&bench));
    }
    Ok(())
}

/// A table for all of them; then what each ratio is limited by, and who is missing.
fn compared(bench: &SwitchBench) -> String {
    let mut rows = vec![
        [
            "frame",
            "switch",
            "frames/s",
            "Gbit/s",
            "lost",
            "processor, us/frame",
            "ours / it",
            "by processor time",
            "limited by",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for comparison in &bench.comparisons {
        let row = |switch: Switch, rate: &Rate, ratios: [String; 2]| {
            let [by_clock, by_processor] = ratios;
            vec![
                format!("{} bytes", comparison.frame_bytes),
                switch.to_string(),
                format!("{:.0}", rate.frames_per_second),
                format!("{:.2}", rate.gigabits_per_second),
                rate.lost.to_string(),
                format!("{:.2}", rate.micros_per_frame),
                by_clock,
                by_processor,
                rate.limit(bench.processors).to_string(),
            ]
        };
        rows.push(row(
            Switch::Ours,
            &comparison.ours,
            ["", ""].map(String::from),
        ));
        rows.extend(comparison.rivals.iter().map(|rival| {
            let ratios = [rival.ratio, rival.ratio_of_processor_time];
            row(
                rival.switch,
                &rival.rate,
                ratios.map(|ratio| format!("{ratio:.2}")),
            )
        }));
    }
    let mut text = table(&rows);
    text += &format!(
        "{} processors; {} frames on their way at most\n",
        bench.processors, bench.in_flight
    );
    text.extend(bench.comparisons.iter().map(own));
    text += &delayed(&bench.delay);
    text.extend(
        (bench.missing.iter()).map(|it| format!("not compared: {}: {}\n", it.switch, it.why)),
    );
    text
}

/// What being watched costs us, and where our processor time goes.
fn own(comparison: &SwitchComparison) -> String {
    let SwitchComparison {
        frame_bytes,
        ours,
        watched,
        watched_by_processor_time,
        ..
    } = comparison;
    let processor = &ours.processor;
    let share = |part: f64| 100.0 * part / processor.all();
    format!(
        "{frame_bytes} bytes, ours: {watched:.3} of the frames/s while it is watched, \
         {watched_by_processor_time:.3} by processor time, which goes to who sends ({:.0} %), the switch \
         ({:.0} %) and who receives ({:.0} %)\n",
        share(processor.sender),
        share(processor.switch),
        share(processor.receiver)
    )
}

/// How much longer than asked delayed frames took.
fn delayed(delay: &DelayBench) -> String {
    let micros = |time: Duration| time.as_micros();
    format!(
        "a delay of {} ms, ours: {} frames took longer by {} us (median), {} us (99 of 100) and {} us at \
         most, from end to end\n",
        delay.delay.as_millis(),
        delay.frames,
        micros(delay.median),
        micros(delay.p99),
        micros(delay.longest)
    )
}

#[cfg(test)]
mod tests {
    use podwire_lan::bench::{Missing, Processor, Rival};

    use super::*;

    fn rate(frames_per_second: f64, switch: f64) -> Rate {
        let processor = Processor {
            sender: 0.9,
            switch,
            receiver: 0.3,
        };
        Rate {
            frames: 1_000_000,
            lost: 0,
            seconds: 1.0,
            frames_per_second,
            gigabits_per_second: frames_per_second * 512.0 / 1e9,
            processor,
            micros_per_frame: processor.all() * 1e6 / frames_per_second,
        }
    }

    fn bench() -> SwitchBench {
        let rival = |switch, rate: Rate| Rival {
            switch,
            rate,
            ratio: 1_500_000.0 / rate.frames_per_second,
            ratio_of_processor_time: rate.micros_per_frame / 1.2,
        };
        SwitchBench {
            processors: 2,
            in_flight: 256,
            comparisons: vec![SwitchComparison {
                frame_bytes: 64,
                ours: rate(1_500_000.0, 0.6),
                watched: 0.975,
                watched_by_processor_time: 0.99,
                rivals: vec![
                    rival(Switch::VdeSwitch, rate(400_000.0, 0.8)),
                    rival(Switch::Bridge, rate(900_000.0, 0.0)),
                ],
            }],
            delay: DelayBench {
                delay: Duration::from_millis(40),
                frames: 2000,
                median: Duration::from_micros(91),
                p99: Duration::from_micros(310),
                longest: Duration::from_micros(1207),
            },
            missing: Vec::new(),
        }
    }

    #[test]
    fn the_switches_stand_side_by_side_with_their_ratios() {
        insta::assert_snapshot!(compared(&bench()));
    }

    #[test]
    fn who_is_not_here_is_said_beside_who_is() {
        let mut bench = bench();
        bench.comparisons[0].rivals.clear();
        bench.missing = vec![Missing {
            switch: Switch::Bridge,
            why: "no bridge with taps: cannot leave the host's network".into(),
        }];
        insta::assert_snapshot!(compared(&bench));
    }
}
