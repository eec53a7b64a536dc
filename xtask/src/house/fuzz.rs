//! `cargo xtask fuzz`: the segment and what no guest of good will sends it, for as long as asked.
//!
//! `cargo xtask check` plays the same, a fixed number of inputs with a fixed seed: that is a test of
//! podwire-lan.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use podwire_lan::fuzz::{Failure, FuzzError, FuzzPlan, FuzzReport, Target};

use crate::command::cli::house::FuzzArgs;
use crate::command::workspace::Workspace;
use crate::say::progress::Progress;
use crate::say::stop::Stop;
use crate::say::text::table;

/// Inputs when nothing is said: some seconds.
const INPUTS: u64 = 10_000_000;

/// Plays what is asked for, and says how much that was.
pub(crate) fn fuzz(workspace: &Workspace, args: &FuzzArgs) -> Result<(), Stop> {
    let plan = plan(args);
    let progress = Progress::start();
    progress.phase(&format!("fuzz, seed {}", plan.seed));
    progress.left(plan.limit);
    let played = podwire_lan::fuzz::fuzz(&plan, &|inputs| {
        if plan.inputs != u64::MAX {
            let left = plan.inputs.saturating_sub(inputs);
            progress.waiting(&format!("{left} more inputs"));
        }
    });
    progress.idle();
    match played {
        Ok(report) => {
            out!("{}", survived(&plan, &report));
            Ok(())
        }
        Err(FuzzError::Failed(failure)) => {
            let file = keep(&workspace.output.join("fuzz"), &failure)?;
            errln!("{}", told(&failure, &workspace.shown(&file)));
            Err(Stop::Failed)
        }
        Err(error) => Err(error.into()),
    }
}

fn plan(args: &FuzzArgs) -> FuzzPlan {
    let targets = match &args.targets[..] {
        [] => Target::ALL.to_vec(),
        some => some.to_vec(),
    };
    let endless = if args.seconds.is_some() {
        u64::MAX
    } else {
        INPUTS
    };
    FuzzPlan {
        targets,
        seed: args
            .seed
            .unwrap_or_else(|| RandomState::new().hash_one("seed")),
        inputs: args.inputs.unwrap_or(endless),
        limit: args.seconds.map(Duration::from_secs),
        threads: thread::available_parallelism().map_or(1, NonZero::get),
    }
}

fn survived(plan: &FuzzPlan, report: &FuzzReport) -> String {
    let mut rows = vec![["target", "inputs", "inputs/s of a thread"].map(String::from)];
    rows.extend(report.targets.iter().map(|(target, inputs, took)| {
        let rate = rate(*inputs, *took);
        [target.to_string(), inputs.to_string(), rate]
    }));
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    format!(
        "{}seed {}: {} inputs survived in {:.1} s, {} a second\n",
        table(&rows),
        plan.seed,
        report.inputs(),
        report.took.as_secs_f64(),
        rate(report.inputs(), report.took)
    )
}

fn rate(inputs: u64, took: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "no more digits are shown")]
    let rate = inputs as f64 / took.as_secs_f64().max(1e-9);
    format!("{rate:.0}")
}

/// Writes the case that went wrong to a file of a folder.
fn keep(folder: &Path, failure: &Failure) -> anyhow::Result<PathBuf> {
    let file = folder.join(format!("{}-{}.txt", failure.target, failure.seed));
    let text = format!("# {failure}\n{}\n", failure.inputs.join("\n"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("{failure}; cannot write its inputs to {}", file.display()))?;
    Ok(file)
}

fn told(failure: &Failure, file: &Path) -> String {
    format!(
        "FAILED: {failure}\nits inputs, the last of them the one: {}\nagain: cargo xtask fuzz --target {} --seed {} --inputs 1",
        file.display(),
        failure.target,
        failure.seed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_not_survived_is_kept_and_the_way_back_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let failure = Failure {
            target: Target::Dhcp,
            seed: 5,
            message: "index out of bounds".into(),
            inputs: vec!["frame 00".into(), "frame ff".into()],
        };
        let file = keep(&dir.path().join("fuzz"), &failure).unwrap();
        insta::assert_snapshot!(fs::read_to_string(&file).unwrap(), @"
        # dhcp with seed 5 fails at input 2: index out of bounds
        frame 00
        frame ff
        ");
        let file = file.strip_prefix(dir.path()).unwrap();
        insta::assert_snapshot!(told(&failure, file), @"
        FAILED: dhcp with seed 5 fails at input 2: index out of bounds
        its inputs, the last of them the one: fuzz/dhcp-5.txt
        again: cargo xtask fuzz --target dhcp --seed 5 --inputs 1
        ");
    }

    #[test]
    fn time_and_inputs_bound_it_and_without_both_it_ends_too() {
        let bounds = |inputs, seconds| {
            let plan = plan(&FuzzArgs {
                targets: Vec::new(),
                seed: Some(7),
                inputs,
                seconds,
            });
            assert_eq!((plan.seed, &plan.targets[..]), (7, &Target::ALL[..]));
            (plan.inputs, plan.limit)
        };
        let minute = Some(Duration::from_mins(1));
        assert_eq!(bounds(None, None), (INPUTS, None));
        assert_eq!(bounds(Some(5), None), (5, None));
        assert_eq!(bounds(None, Some(60)), (u64::MAX, minute));
        assert_eq!(bounds(Some(5), Some(60)), (5, minute));
    }
}
