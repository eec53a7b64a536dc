//! `cargo xtask compare`: the same scenarios on a base and on a head, and what differs; then the same
//! measurements, pair by pair, and what is worse.
//!
//! Each side's runs are runs of this very program as a process of its own, `cargo xtask test` with the side's
//! flags: what is compared is what a person would have seen, and one side leaves nothing behind in the other.
//! They are never beside each other on the machine, and what is repeated or measured takes turns (base, head,
//! head, base), so that whatever the host does meanwhile is no difference between the sides.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_cluster::Bootstrap;
use podwire_images::host;
use podwire_process::{ChildCommand, Stream};
use podwire_scenario::bare::{OUTPUT_VARIABLE, RunFolder};
use podwire_scenario::{HEALTHY_VARIABLE, Scenario};
use podwire_scenarios::measurements::measurements;
use rustix::process::Pid;
use time::OffsetDateTime;

use crate::command::cli::run::{CompareArgs, TestArgs};
use crate::command::consent;
use crate::command::interrupt::Expected;
use crate::command::session::Session;
use crate::plan::durations::Durations;
use crate::plan::select;
use crate::report::compare::numbers::statistics::{fewest_pairs, fewest_with_interval};
use crate::report::compare::numbers::{Asked, percent};
use crate::report::compare::summary::render;
use crate::report::compare::{Comparison, RUNS, Ran, SideRun, to_repeat};
use crate::report::files;
use crate::report::results::Results;
use crate::run::look;
use crate::run::order::Order;
use crate::run::share::{Share, on_clusters};
use crate::run::side_args::{What, may_be_measured_on, test_args, words};
use crate::run::sides::{self, Name, Named, SIDES};
use crate::run::test::test;
use crate::say::stop::{INTERRUPTED, Stop};
use crate::say::text::about;

/// A run is looked at so often.
const LOOK: Duration = Duration::from_millis(100);

/// What `compare.json` says while the comparison goes on, and of one that nobody let end.
const UNFINISHED: &str = "the comparison was under way; what ended it left no time to say more";

/// What has ended a run, or all of them, then.
const BY_A_PERSON: &str = "ended by Ctrl-C";

/// The whole command.
pub(crate) fn compare(
    session: &Session,
    args: &CompareArgs,
    catalogue: &[Scenario],
) -> Result<(), Stop> {
    // Before anything is built for nothing.
    select::choose(catalogue, args.filter.as_deref(), None)
        .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
    select::choose(&measurements(), args.measurements.as_deref(), None)
        .map_err(|unknown| Stop::Usage(format!("--measurements: {unknown}")))?;
    let named = sides::named(session, args)?;
    for (name, side) in SIDES.iter().zip(&named) {
        out!("{}", side.told(*name));
    }
    if args.plan && !named.iter().all(Named::is_made) {
        outln!("What would be done then can be told once that is built.");
        return Ok(());
    }
    let [base, head] = sides::made(session, named)?;
    let revisions = [base.revision.clone(), head.revision.clone()];
    let flags = [base.flags.clone(), head.flags.clone()];
    let share = Share::take(session, args, &flags, catalogue)?;
    let own = share.as_ref().map(|share| share.args(args));
    let args = own.as_ref().unwrap_or(args);
    let verdicts = What::Verdicts(share.as_ref().map(Share::names));
    if let Some(share) = &share {
        outln!("{}", share.told());
    }
    if args.prepare_only {
        return prepare(session, args, (&flags, verdicts), catalogue);
    }
    let mut lacks = plans(session, args, (&flags, verdicts), catalogue)?;
    outln!(
        "Base and head run one after the other; what differs then runs {} times more on both.",
        RUNS - 1
    );
    let asked = Asked {
        pairs: usize::try_from(args.pairs)?,
        margin: args.margin,
    };
    let mut measured_on = None;
    if asked.pairs > 0 {
        match plan_of_numbers(session, args, &flags)? {
            Ok(plan) => {
                outln!("{}", plan.told(asked));
                lacks += &plan.lacks;
                measured_on = Some(plan.bootstrap);
            }
            Err(why) => outln!("No numbers: {why}"),
        }
    }
    if flags[0] == flags[1] {
        outln!(
            "They are the same, and have one frozen cluster: whatever differs shows how often the comparison itself \
             errs by chance, and not how two clusters of the same may differ."
        );
    }
    if args.plan {
        out!("{lacks}");
        return Ok(());
    }
    if !lacks.is_empty() {
        return Err(Stop::setup(lacks.trim_end()));
    }
    // Here, since nobody asks in the runs: these have no terminal to read from.
    consent::host_packages(session, args.yes)?;

    let folder = session.workspace.new_run(OffsetDateTime::now_utc())?;
    let interrupted = session.interrupts.expect();
    let mut runs = Runs {
        session,
        args,
        share,
        flags,
        revisions,
        folder,
        asked,
        measured_on,
        ran: [Vec::new(), Vec::new()],
        measured: [Vec::new(), Vec::new()],
        interrupted: &interrupted,
    };
    let done = runs.all();
    let error = match &done {
        Ok(()) => None,
        Err(stop) => Some(stop.words().unwrap_or_else(|| BY_A_PERSON.to_owned())),
    };
    let comparison = runs.so_far(error);
    files::write_comparison(&runs.folder, &comparison)?;
    let shown = session.workspace.shown(&session.workspace.latest());
    out!("{}", render(&comparison, &shown));
    ended(done, &comparison)
}

/// The end of the command, once all has been told, what ended it early as well: that a later run could not be set up
/// takes nothing from what is known to be worse.
fn ended(done: Result<(), Stop>, comparison: &Comparison) -> Result<(), Stop> {
    match done {
        Ok(()) | Err(Stop::Setup(_)) if comparison.is_worse() => Err(Stop::Failed),
        done => done,
    }
}

/// Makes what both sides need and other machines can take over, one after the other: the clusters that are
/// measured need nothing beside.
fn prepare(
    session: &Session,
    args: &CompareArgs,
    (flags, verdicts): (&[Vec<String>; 2], What<'_>),
    catalogue: &[Scenario],
) -> Result<(), Stop> {
    for (name, flags) in SIDES.iter().zip(flags) {
        let of_side = |stop| name.told(stop);
        outln!("{}: {}", name.text(), shown(flags));
        let side = TestArgs {
            prepare_only: true,
            plan: args.plan,
            ..test_args(&words(args, flags, verdicts)).map_err(of_side)?
        };
        test(session, &side, catalogue).map_err(of_side)?;
    }
    Ok(())
}

/// What is going to be measured.
struct PlanOfNumbers {
    /// Names of measurements, on the clusters that both sides have.
    measurements: BTreeSet<String>,
    /// How many numbers that makes.
    metrics: usize,
    /// The cluster.
    bootstrap: Bootstrap,
    /// Seconds for one run of each side.
    pair: f64,
    /// What the machine lacks for it, a line for each.
    lacks: String,
}

impl PlanOfNumbers {
    /// In words, for the plan.
    fn told(&self, Asked { pairs, margin }: Asked) -> String {
        let each = Duration::try_from_secs_f64(self.pair).unwrap_or_default();
        let all = each * u32::try_from(pairs).unwrap_or(u32::MAX);
        let mut text = format!(
            "Then {} numbers of {} are measured, in {pairs} pairs in turns, about {}; what stands out in as many \
             again. Worse is what is worse by more than {}: {}.",
            self.metrics,
            self.bootstrap,
            about(all),
            percent(margin),
            self.measurements
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        );
        let fewest = fewest_pairs(self.metrics);
        if pairs < fewest {
            text += &format!(
                "\nSo few pairs can call none of so many numbers worse: --pairs {fewest} is the least."
            );
        }
        let within = fewest_with_interval();
        if pairs < within {
            text += &format!("\nNothing is within the margin by fewer than {within} pairs.");
        }
        if pairs < RUNS {
            text += &format!(
                "\nA measurement that head can never carry out is called broken by {RUNS} pairs or more."
            );
        }
        text
    }
}

/// What is going to be measured on both sides; or why nothing is.
fn plan_of_numbers(
    session: &Session,
    args: &CompareArgs,
    flags: &[Vec<String>; 2],
) -> Result<Result<PlanOfNumbers, String>, Stop> {
    let mut why_not = Vec::new();
    for bootstrap in may_be_measured_on(args) {
        match plan_of_numbers_on(bootstrap, session, args, flags)? {
            Ok(plan) => return Ok(Ok(plan)),
            Err(why) => why_not.push(why),
        }
    }
    why_not.dedup();
    Ok(Err(why_not.join("; ")))
}

/// The same on a cluster of this kind.
fn plan_of_numbers_on(
    bootstrap: Bootstrap,
    session: &Session,
    args: &CompareArgs,
    flags: &[Vec<String>; 2],
) -> Result<Result<PlanOfNumbers, String>, Stop> {
    let catalogue = measurements();
    let times = Durations::load(session.cache.root());
    let packages = host::Host::detect(&session.spawner).plan(false);
    let mut plan = PlanOfNumbers {
        measurements: catalogue.iter().map(|it| it.name.to_owned()).collect(),
        metrics: 0,
        bootstrap,
        pair: 0.0,
        lacks: String::new(),
    };
    for (name, flags) in SIDES.iter().zip(flags) {
        let side = test_args(&words(args, flags, What::Numbers(bootstrap, &[])))?;
        let order = match Order::take(session, &side, &catalogue) {
            Ok(order) => order,
            // Its flags are fine, or its scenarios would not run.
            Err(Stop::Usage(why)) => return Ok(Err(format!("{}: {why}", name.text()))),
            Err(other) => return Err(other),
        };
        let (of_side, _) = look::look(session, &order, &packages)?;
        let own: BTreeSet<String> = on_clusters(&order).into_iter().map(|(it, _)| it).collect();
        plan.measurements.retain(|it| own.contains(it));
        plan.pair += of_side.expected(&times).values().sum::<f64>();
        for shortage in of_side.shortages() {
            plan.lacks += &format!("{}, measured: {shortage}\n", name.text());
        }
    }
    let both = catalogue.iter();
    let both = both.filter(|it| plan.measurements.contains(it.name));
    plan.metrics = both.map(|it| it.measures.len()).sum();
    Ok(match plan.metrics {
        0 => Err("no measurement is for the clusters of both sides".to_owned()),
        _ => Ok(plan),
    })
}

/// Prints what each side is going to do. Gives what the machine lacks for it, a line for each.
fn plans(
    session: &Session,
    args: &CompareArgs,
    (flags, verdicts): (&[Vec<String>; 2], What<'_>),
    catalogue: &[Scenario],
) -> Result<String, Stop> {
    let measured = Durations::load(session.cache.root());
    session.progress.phase("looking at what is there");
    let packages = host::Host::detect(&session.spawner).plan(false);
    let looked = SIDES.iter().zip(flags).map(|(name, flags)| {
        let of_side = |stop| name.told(stop);
        let args = test_args(&words(args, flags, verdicts)).map_err(of_side)?;
        let order = Order::take(session, &args, catalogue).map_err(of_side)?;
        let (plan, _) = look::look(session, &order, &packages)?;
        Ok((name, plan, on_clusters(&order)))
    });
    let looked: Result<Vec<_>, Stop> = looked.collect();
    session.progress.idle();
    let looked = looked?;
    let mut in_common = looked.iter().map(|(.., scenarios)| scenarios.clone());
    let in_common = in_common.next().map(|first| {
        in_common.fold(first, |all, other| {
            all.intersection(&other).cloned().collect()
        })
    });
    if in_common.is_none_or(|all| all.is_empty()) {
        return Err(Stop::Usage(
            "no scenario would run on both sides; `cargo xtask scenarios` says which clusters each is for"
                .into(),
        ));
    }
    let mut lacks = String::new();
    for ((name, plan, _), flags) in looked.iter().zip(flags) {
        outln!(
            "{}: {}\n{}",
            name.text(),
            shown(flags),
            plan.render(&measured)
        );
        for shortage in plan.shortages() {
            lacks += &format!("{}: {shortage}\n", name.text());
        }
    }
    Ok(lacks)
}

fn shown(flags: &[String]) -> String {
    match flags {
        [] => "what is tested without any flags".to_owned(),
        [first, rest @ ..] => ChildCommand::new(first).args(rest).display(),
    }
}

/// The runs of both sides.
struct Runs<'a> {
    session: &'a Session,
    args: &'a CompareArgs,
    /// Its part, where other machines have the others.
    share: Option<Share>,
    flags: [Vec<String>; 2],
    /// Which revision each is, if it is one.
    revisions: [Option<String>; 2],
    folder: RunFolder,
    asked: Asked,
    /// Whose cluster is measured, if any is.
    measured_on: Option<Bootstrap>,
    /// What has run, base's and head's.
    ran: [Vec<Ran>; 2],
    /// What has measured.
    measured: [Vec<Ran>; 2],
    /// Ctrl-C.
    interrupted: &'a Expected,
}

impl Runs<'_> {
    fn all(&mut self) -> Result<(), Stop> {
        self.verdicts()?;
        self.numbers()
    }

    fn verdicts(&mut self) -> Result<(), Stop> {
        let part = self.share.as_ref().map(|share| share.names().to_vec());
        for name in SIDES {
            self.run(name, What::Verdicts(part.as_deref()))?;
        }
        for repeat in to_repeat(&self.so_far(None).scenarios) {
            self.session.progress.line(&format!(
                "what differs on {} runs {} times more on both sides: {}",
                repeat.bootstrap,
                RUNS - 1,
                repeat.names.join(", ")
            ));
            for number in 1..RUNS {
                for name in turns(number) {
                    self.run(name, What::Repeat(&repeat))?;
                }
            }
        }
        Ok(())
    }

    fn numbers(&mut self) -> Result<(), Stop> {
        let Some(on) = self.measured_on else {
            return Ok(());
        };
        let pairs = self.asked.pairs;
        for number in 0..pairs {
            for name in turns(number) {
                self.run(name, What::Numbers(on, &[]))?;
            }
            // Whatever both have met in the first pair, the others would wait for as well.
            if self.so_far(None).numbers.is_some_and(|it| it.is_in_vain()) {
                let told = "nothing could be measured on both sides: no more pairs are taken";
                self.session.progress.line(told);
                return Ok(());
            }
        }
        let numbers = self.so_far(None).numbers;
        let again = numbers.map(|it| it.to_measure_again()).unwrap_or_default();
        if again.is_empty() {
            return Ok(());
        }
        self.session.progress.line(&format!(
            "what stands out is measured in {pairs} pairs more: {}",
            again.join(", ")
        ));
        for number in pairs..2 * pairs {
            for name in turns(number) {
                self.run(name, What::Numbers(on, &again))?;
            }
        }
        Ok(())
    }

    /// One run of a side, whose results are kept whatever became of it.
    fn run(&mut self, name: Name, what: What<'_>) -> Result<(), Stop> {
        if self.interrupted.has_come() {
            return Err(Stop::Interrupted);
        }
        let place = name as usize;
        let output = self.folder.join(name.text());
        let number = self.kept(what)[place].len() + 1;
        let log = output.join(format!("{}-{number}.txt", what.run()));
        fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
        let words = words(self.args, &self.flags[place], what);
        let of = match what {
            What::Verdicts(_) | What::Repeat(_) => String::new(),
            What::Numbers(_, []) => format!(" of {}", self.asked.pairs),
            What::Numbers(..) => format!(" of {}", 2 * self.asked.pairs),
        };
        self.session.progress.line(&format!(
            "{}, {} {number}{of}: {}",
            name.text(),
            what.run(),
            ChildCommand::new("cargo")
                .args(["xtask"])
                .args(&words)
                .display()
        ));
        let before = newest(&output);
        let started = Instant::now();
        let mut child = self.start(name, &words, &output, &log)?;
        let interrupts = &self.session.interrupts;
        interrupts.tell_first(Some(Pid::from_child(&child)));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(LOOK);
        };
        interrupts.tell_first(None);
        let took = started.elapsed();
        let stop = self.stop(name, status.code());
        let folder = newest(&output).filter(|newest| before.as_ref() != Some(newest));
        let kept = match folder {
            Some(folder) => self.keep(name, what, &folder, (took, stop.as_ref()))?,
            None => false,
        };
        let last = self.kept(what)[place].last().filter(|_| kept);
        let error = match last {
            Some(last) => last.results.error.clone(),
            None => Some(format!(
                "it left no results; what it said is on the terminal, and what it printed in {}",
                self.session.workspace.shown(&log).display()
            )),
        };
        match (stop, error) {
            (Some(Stop::Setup(how)), Some(error)) => Err(Stop::setup(format!("{how}: {error}"))),
            (Some(stop), _) => Err(stop),
            (None, Some(error)) => Err(Stop::setup(format!("{}: {error}", name.text()))),
            (None, None) => {
                let so_far = self.so_far(Some(UNFINISHED.to_owned()));
                Ok(files::write_comparison(&self.folder, &so_far)?)
            }
        }
    }

    fn start(
        &self,
        name: Name,
        words: &[String],
        output: &Path,
        log: &Path,
    ) -> anyhow::Result<Child> {
        // This very program, even if cargo has made another of it meanwhile.
        let program = format!("/proc/{}/exe", std::process::id());
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = ChildCommand::new(program)
            .args(words)
            .env(OUTPUT_VARIABLE, output);
        // The first has all clusters; one that repeats, those of one bootstrap.
        let base = self.ran[Name::Base as usize].first();
        if let (Name::Head, Some(base)) = (name, base) {
            // What fails on the head may have a healthy clone there.
            let folder = fs::canonicalize(&*self.folder)?.join(&base.run.folder);
            command = command.env(HEALTHY_VARIABLE, folder);
        }
        // The terminal's Ctrl-C reaches this process alone, which tells the run once.
        command.own_group = true;
        command.stdout = Stream::File(file);
        command.stderr = Stream::Inherit;
        Ok(self.session.spawner.spawn(command)?)
    }

    /// Why there is nothing more to compare after a run that ended like this.
    fn stop(&self, name: Name, code: Option<i32>) -> Option<Stop> {
        let code = match code {
            Some(0 | 1) => return None,
            Some(code) if code == i32::from(INTERRUPTED) => return Some(Stop::Interrupted),
            _ if self.interrupted.has_come() => return Some(Stop::Interrupted),
            Some(code) => format!("exit code {code}"),
            None => "a signal".to_owned(),
        };
        Some(Stop::setup(format!(
            "{}: its run ended with {code}",
            name.text()
        )))
    }

    /// What there is of such runs.
    fn kept(&mut self, what: What<'_>) -> &mut [Vec<Ran>; 2] {
        match what {
            What::Verdicts(_) | What::Repeat(_) => &mut self.ran,
            What::Numbers(..) => &mut self.measured,
        }
    }

    /// Keeps what a run has left, which took so long and was ended by this, if early; whether there was
    /// anything.
    fn keep(
        &mut self,
        name: Name,
        what: What<'_>,
        folder: &Path,
        (took, stop): (Duration, Option<&Stop>),
    ) -> anyhow::Result<bool> {
        let path = folder.join("results.json");
        let Ok(text) = fs::read(&path) else {
            // Ended before it had anything to say.
            return Ok(false);
        };
        let results: Results = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a run's results", path.display()))?;
        let said = results.error.clone();
        let error = match stop {
            // It may have had no time to say so itself.
            Some(Stop::Interrupted) => Some(BY_A_PERSON.to_owned()),
            Some(_) => said.or_else(|| Some("its run ended early".to_owned())),
            None => said,
        };
        let own = fs::canonicalize(&*self.folder)?;
        self.kept(what)[name as usize].push(Ran {
            run: SideRun {
                folder: folder.strip_prefix(&own).unwrap_or(folder).to_owned(),
                seconds: took.as_secs_f64(),
                error,
            },
            results,
        });
        Ok(true)
    }

    fn so_far(&self, error: Option<String>) -> Comparison {
        let [base, head] = &self.ran;
        let comparison = Comparison::of(self.flags.clone(), (base, head), error);
        let part = self.share.as_ref().map(|share| share.part(&self.ran));
        let comparison = comparison
            .with_revisions(self.revisions.clone())
            .with_part(part);
        match self.measured_on {
            None => comparison,
            Some(_) => {
                let [base, head] = &self.measured;
                comparison.with_numbers(self.asked, base, head)
            }
        }
    }
}

/// base, head, head, base, base, head, ...
fn turns(number: usize) -> [Name; 2] {
    let mut turns = SIDES;
    if number % 2 == 1 {
        turns.reverse();
    }
    turns
}

/// The newest run's folder, without symbolic links.
fn newest(output: &Path) -> Option<PathBuf> {
    fs::canonicalize(output.join("latest")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cli::Cli;
    use crate::report::compare::numbers::statistics::MOST_PAIRS;
    use crate::run::side_args::tests::args;
    use clap::Parser as _;

    #[test]
    fn sides_take_turns_in_pairs() {
        let order: String = (0..4)
            .flat_map(turns)
            .map(|name| name.text().chars().next().unwrap())
            .collect();
        assert_eq!(order, "bhhbbhhb");
        assert_eq!(args(&["", ""]).pairs, 6);
        let most = args(&["", "", "--pairs", "10"]).pairs as usize;
        assert_eq!(2 * most, MOST_PAIRS);
    }

    #[test]
    fn what_is_known_to_have_broken_is_no_matter_of_set_up() {
        let code = |broke: usize, done: Result<(), Stop>| {
            let none = Comparison::of(Default::default(), (&[], &[]), None);
            let mut comparison = none;
            comparison.counts.broke = broke;
            ended(done, &comparison).map_or_else(|stop| stop.code(), |()| 0)
        };
        let lacking = || Err(Stop::setup("head: its run ended with exit code 3"));
        assert_eq!([code(0, Ok(())), code(1, Ok(()))], [0, 1]);
        assert_eq!([code(0, lacking()), code(1, lacking())], [3, 1]);
        // Whoever has ended it knows more than the verdicts until then.
        let ended = || Err(Stop::Interrupted);
        assert_eq!([code(0, ended()), code(1, ended())], [INTERRUPTED; 2]);
    }

    #[test]
    fn a_plan_says_how_many_numbers_there_are_and_what_few_pairs_cannot_say() {
        let plan = PlanOfNumbers {
            measurements: ["measure_change", "measure_way"].map(String::from).into(),
            metrics: 16,
            bootstrap: Bootstrap::Kubeadm,
            pair: 250.0,
            lacks: String::new(),
        };
        let told = |pairs| plan.told(Asked { pairs, margin: 0.1 });
        insta::assert_snapshot!([told(6), told(3)].join("\n"));
    }

    #[test]
    fn sides_are_words_of_their_own_wherever_they_stand() {
        let asked = args(&["", "--replace kube-proxy=./out/kube-proxy", "--plan"]);
        assert_eq!(asked.base, "");
        assert_eq!(asked.head, "--replace kube-proxy=./out/kube-proxy");
        assert!(asked.plan);
        let both = args(&["--pod-network=flannel", "--pod-network=routes"]);
        assert_eq!(both.head, "--pod-network=routes");
        let one = Cli::try_parse_from(["xtask", "compare", "--kube-proxy iptables"]);
        assert_eq!(one.unwrap_err().exit_code(), 2);
    }
}
