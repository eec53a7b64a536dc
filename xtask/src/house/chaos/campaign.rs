//! The rounds: what was drawn is done to a run of the real program, then what must hold is looked at.

use std::fmt;
use std::fs;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use podwire_cluster::Bootstrap;
use rustix::process::Signal;

use super::draw::{Act, Deed, Part, Stroke, Target, Victim, Which};
use super::full::Full;
use super::own::Process;
use super::runs::{End, Ended, LOOK, Running, Runs, must};
use super::tally::{Tally, how};
use super::verdicts::{self, Lost, Verdicts};

/// How many times as long a run takes that makes stages; some are hit while they are frozen.
const STAGES: u32 = 3;

/// The scenario that runs on a full disk: few stages lead to it, and small ones.
fn small(bootstrap: Bootstrap) -> &'static str {
    match bootstrap {
        Bootstrap::ByHand => "first_start",
        Bootstrap::Kubeadm => "kubeadm_init",
    }
}

/// A campaign on its ground.
pub(super) struct Campaign<'a> {
    pub(super) runs: Runs<'a>,
    pub(super) filter: String,
    pub(super) tally: Tally,
}

/// What the runs say and take when nothing is done to them.
pub(super) struct Reference {
    verdicts: Verdicts,
    /// One that finds its stages in the cache.
    usual: Duration,
    /// Longest that any run may take.
    limit: Duration,
}

impl Campaign<'_> {
    /// Makes the stages and looks twice what the scenarios say.
    pub(super) fn reference(&mut self) -> Result<Reference, End> {
        // Nothing can be said about how long it takes before it has run.
        let endless = Duration::from_hours(24);
        let step = |it: &Self, text: &str| it.runs.session.progress.step(text);
        step(self, "a run to compare with; it makes the stages");
        let first = self
            .runs
            .run("reference-1", &self.runs.test(&self.filter), None, endless)?;
        let verdicts = self.good(&first, None)?;
        step(self, "the same run with its stages in the cache");
        let second = self
            .runs
            .run("reference-2", &self.runs.test(&self.filter), None, endless)?;
        self.good(&second, Some((&verdicts, true)))?;
        self.runs.aftermath(None)?;
        Ok(Reference {
            verdicts,
            usual: second.took,
            limit: first.took * 3 + Duration::from_mins(10),
        })
    }

    fn say(&self, text: fmt::Arguments<'_>) {
        self.runs.session.progress.line(&text.to_string());
    }

    /// One round. Its name is in its logs' names.
    pub(super) fn round(
        &mut self,
        name: &str,
        act: &Act,
        reference: &Reference,
    ) -> Result<(), End> {
        self.say(format_args!("round {name}: {act}"));
        self.runs.session.progress.step(&format!("round {name}"));
        match act {
            Act::Strikes { anew, strokes } => self.strikes(name, *anew, strokes, reference)?,
            Act::Full { room_mib } => self.full(name, (*room_mib).into(), reference)?,
            Act::Cut {
                target: Target::Sealed,
                which,
                left,
            } => self.cut_sealed(name, *which, *left, reference)?,
            Act::Cut {
                target,
                which,
                left,
            } => self.cut(name, *target, *which, *left, reference)?,
        }
        self.runs.ground.clear_runs()?;
        self.tally.rounds += 1;
        Ok(())
    }

    fn strikes(
        &mut self,
        name: &str,
        anew: u16,
        strokes: &[Stroke],
        reference: &Reference,
    ) -> Result<(), End> {
        for stage in self.runs.ground.remove_newest(anew)? {
            self.say(format_args!("  without the stage {stage}"));
        }
        let takes = match anew {
            0 => reference.usual,
            _ => reference.usual * STAGES,
        };
        let mut left = strokes;
        // What has ended a run spares nobody the strokes that are left: they meet one on what it left.
        for number in 1.. {
            let before = &strokes[..strokes.len() - left.len()];
            let since = before
                .last()
                .map_or(Duration::ZERO, |it| it.after.of_time(takes));
            let due = |stroke: &Stroke| stroke.after.of_time(takes).saturating_sub(since);
            let log = format!("{name}-struck-{number}");
            let done = self.struck_run(&log, left, &due, reference)?;
            left = &left[done..];
            if left.is_empty() {
                break;
            }
            if done == 0 {
                self.tally.missed(left.len());
                break;
            }
        }
        self.runs.aftermath(None)?;
        self.whole_stages(name, None, reference)?;
        self.proof(name, &self.filter.clone(), None, reference)
    }

    /// One run, and how many of the strokes it took before it ended; each is due so long after its beginning.
    fn struck_run(
        &mut self,
        log: &str,
        strokes: &[Stroke],
        due: &dyn Fn(&Stroke) -> Duration,
        reference: &Reference,
    ) -> Result<usize, End> {
        let mut running = self.runs.start(log, &self.runs.test(&self.filter), None)?;
        let mut lost = Lost::default();
        let mut done = 0;
        let mut ended = None;
        for stroke in strokes {
            ended = self.strike(
                &mut running,
                stroke,
                due(stroke),
                reference.limit,
                &mut lost,
            )?;
            if ended.is_some() {
                break;
            }
            done += 1;
        }
        let status = match ended {
            Some(status) => status,
            None => self.runs.wait(&mut running, reference.limit)?,
        };
        let ended = running.ended(status);
        self.tally.ended(status);
        self.say(format_args!("  it ended with {}", how(status)));
        self.truthful(&ended, &lost, reference)?;
        Ok(done)
    }

    /// Does it once it is due and there is somebody to do it to; gives the run's end if that came before.
    fn strike(
        &mut self,
        running: &mut Running,
        stroke: &Stroke,
        due: Duration,
        limit: Duration,
        lost: &mut Lost,
    ) -> Result<Option<ExitStatus>, End> {
        loop {
            if let Some(status) = self.runs.look(running, limit)? {
                return Ok(Some(status));
            }
            if running.started.elapsed() >= due && self.struck(running, stroke, lost)? {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether there was a victim.
    fn struck(&mut self, running: &Running, stroke: &Stroke, lost: &mut Lost) -> Result<bool, End> {
        let all = self.runs.own.running(&[]);
        let wanted = |it: &&Process| it.role(running.pid) == Some(stroke.victim);
        let victims: Vec<&Process> = all.iter().filter(wanted).collect();
        let Some(victim) = stroke.which.of(&victims) else {
            return Ok(false);
        };
        let signal = match stroke.deed {
            Deed::Kill => Signal::KILL,
            Deed::Terminate => Signal::TERM,
            Deed::Stop(_) => Signal::STOP,
        };
        if self.runs.own.send(victim, signal).is_err() {
            // It has just ended: another is looked for.
            return Ok(false);
        }
        let Stroke {
            victim: role, deed, ..
        } = stroke;
        self.say(format_args!("  {deed}: {victim}"));
        match deed {
            Deed::Stop(time) => {
                thread::sleep(*time);
                // Whoever watches over it may have killed it meanwhile.
                let _ = self.runs.own.send(victim, Signal::CONT);
                self.tally.done(format!("SIGSTOP to {role}"), false);
            }
            Deed::Kill | Deed::Terminate => {
                lost.xtask |= *role == Victim::Xtask;
                self.tally.done(format!("{deed} to {role}"), true);
            }
        }
        let runs = self.runs.ground.output().join("runs");
        if let (Deed::Kill, Some(scenario), Some(run)) = (
            deed,
            victim.scenario(),
            verdicts::run_of(&runs, running.pid),
        ) && !verdicts::has_result(&run, &scenario)
        {
            lost.scenarios.insert(scenario);
        }
        Ok(true)
    }

    fn full(&mut self, name: &str, room_mib: u64, reference: &Reference) -> Result<(), End> {
        let stages = self.runs.ground.cache().join("stages");
        let full = match Full::new(&self.runs.session.spawner, &stages) {
            Ok(full) => full,
            Err(error) => {
                self.say(format_args!("  left out: {error:#}"));
                self.tally.done("a full disk, left out", false);
                return Ok(());
            }
        };
        let small = small(self.runs.bootstrap);
        let arguments = self.runs.test(small);
        let mut running = self
            .runs
            .start(&format!("{name}-full"), &arguments, Some(&full))?;
        let mut status = None;
        while status.is_none() && full.used_mib()? < room_mib {
            thread::sleep(LOOK);
            status = self.runs.look(&mut running, reference.limit)?;
        }
        let status = match status {
            Some(status) => {
                self.tally.missed(1);
                status
            }
            None => {
                full.fill()?;
                self.runs.wait(&mut running, reference.limit)?
            }
        };
        let ended = running.ended(status);
        let seen = fs::read_to_string(self.runs.ground.log(&ended.log)).unwrap_or_default();
        let seen = match seen.contains("No space left") {
            true => "a full disk, which the run names",
            false => "a full disk",
        };
        self.tally.done(seen, false);
        self.tally.ended(status);
        self.say(format_args!("  it ended with {}", how(status)));
        self.truthful(&ended, &Lost::default(), reference)?;
        self.runs.aftermath(Some(&full))?;
        full.widen()?;
        self.proof(name, small, Some(&full), reference)?;
        self.whole_stages(name, Some(&full), reference)
    }

    fn cut(
        &mut self,
        name: &str,
        target: Target,
        which: Which,
        left: Part,
        reference: &Reference,
    ) -> Result<(), End> {
        let Some(cut) = self.runs.ground.cut(target, which, left)? else {
            self.tally.missed(1);
            return Ok(());
        };
        let file = cut.file.display();
        self.say(format_args!(
            "  {} of {} bytes are left of {file}",
            cut.is, cut.was
        ));
        self.tally.done(format!("{target} is cut"), false);
        self.proof(name, &self.filter.clone(), None, reference)?;
        cut.forget()?;
        // What the run did not need may still be damaged: then it is told, and goes.
        let found = self.stages_verified(name, None, reference)?;
        if found == Some(3) {
            self.whole_stages(&format!("{name}-again"), None, reference)
        } else {
            must(found == Some(0), || {
                format!("`stages --verify` ended with {found:?} instead of 0 or 3")
            })
        }
    }

    /// What is sealed takes long to make, or the network: it is enough that nobody would use it.
    fn cut_sealed(
        &mut self,
        name: &str,
        which: Which,
        left: Part,
        reference: &Reference,
    ) -> Result<(), End> {
        let Some(cut) = self.runs.ground.cut(Target::Sealed, which, left)? else {
            self.tally.missed(1);
            return Ok(());
        };
        let file = cut.file.display().to_string();
        self.say(format_args!(
            "  {} of {} bytes are left of {file}",
            cut.is, cut.was
        ));
        self.tally.done(format!("{} is cut", Target::Sealed), false);
        let log = format!("{name}-plan");
        let mut arguments = self.runs.test(&self.filter);
        arguments.push("--plan".into());
        let ended = self.runs.run(&log, &arguments, None, reference.limit)?;
        let said = fs::read_to_string(self.runs.ground.log(&log))?;
        cut.put_back()?;
        must(said.contains("is damaged and is made again"), || {
            format!(
                "{file} was cut short, and the plan ({}) does not say that it is damaged",
                how(ended.status)
            )
        })?;
        self.runs.aftermath(None)?;
        self.proof(name, &self.filter.clone(), None, reference)
    }

    /// What a run that something was done to says about itself.
    fn truthful(&self, ended: &Ended, lost: &Lost, reference: &Reference) -> Result<(), End> {
        let runs = self.runs.ground.output().join("runs");
        let said = match verdicts::run_of(&runs, ended.pid) {
            None => None,
            // Half a report is podwire's fault.
            Some(run) => {
                Verdicts::read(&run).map_err(|error| End::Violation(format!("{error:#}")))?
            }
        };
        let unbelievable = lost.belie(ended.status, said.as_ref(), &reference.verdicts);
        must(unbelievable.is_none(), || unbelievable.unwrap_or_default())
    }

    /// The run afterwards: green, with the same verdicts.
    fn proof(
        &mut self,
        name: &str,
        filter: &str,
        full: Option<&Full>,
        reference: &Reference,
    ) -> Result<(), End> {
        let log = format!("{name}-after");
        let ended = self
            .runs
            .run(&log, &self.runs.test(filter), full, reference.limit)?;
        let all = full.is_none();
        self.good(&ended, Some((&reference.verdicts, all)))?;
        self.tally.green += 1;
        self.runs.aftermath(full)
    }

    /// That a run passed; with a reference, that it says the same.
    fn good(&self, ended: &Ended, reference: Option<(&Verdicts, bool)>) -> Result<Verdicts, End> {
        let runs = self.runs.ground.output().join("runs");
        let run = verdicts::run_of(&runs, ended.pid);
        let said = run.map(|run| Verdicts::read(&run)).transpose()?.flatten();
        let said = said.unwrap_or_default();
        let wrong = said.wrong(ended.status, reference);
        must(wrong.is_empty(), || {
            format!(
                "the run {} is not as it should be: {}",
                self.runs.ground.log(&ended.log).display(),
                wrong.join("; ")
            )
        })?;
        Ok(said)
    }

    fn whole_stages(
        &mut self,
        name: &str,
        full: Option<&Full>,
        reference: &Reference,
    ) -> Result<(), End> {
        let code = self.stages_verified(name, full, reference)?;
        let log = self.runs.ground.log(&format!("{name}-stages"));
        must(code == Some(0), || {
            format!(
                "`stages --verify` ended with {code:?} instead of 0: {}",
                log.display()
            )
        })
    }

    fn stages_verified(
        &mut self,
        name: &str,
        full: Option<&Full>,
        reference: &Reference,
    ) -> Result<Option<i32>, End> {
        let log = format!("{name}-stages");
        let arguments = ["stages", "--verify"].map(String::from);
        let ended = self.runs.run(&log, &arguments, full, reference.limit)?;
        self.runs.aftermath(full)?;
        Ok(ended.status.code())
    }
}

#[cfg(test)]
mod tests {
    use podwire_cluster::{Cell, StageName};

    use super::*;

    #[test]
    fn what_runs_on_a_full_disk_needs_little_of_it() {
        for bootstrap in Bootstrap::ALL {
            let catalogue = podwire_scenarios::all();
            let mut named = catalogue.iter();
            let scenario = named.find(|it| it.name == small(bootstrap)).unwrap();
            let cell = Cell::usual(bootstrap);
            assert!(scenario.fits(cell), "{bootstrap}");
            let few = [StageName::Booted, StageName::Identified, scenario.stage];
            assert!(scenario.stage.line(cell).iter().all(|it| few.contains(it)));
        }
    }
}
