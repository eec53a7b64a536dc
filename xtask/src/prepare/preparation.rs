//! What a cluster needs before it can run: prepared phase by phase, each timed.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podwire_cluster::{Host, ImageFiles, Stage, Stages};
use podwire_images::bundle::EndToEnd;
use podwire_images::image::{OwnKernel, System};
use podwire_images::pod_network::BroughtFiles;
use podwire_images::{BuiltImage, Bundle, NodeImage, bundle, host, image, tools};
use podwire_scenario::{WAITING, bare};
use podwire_vm::accelerator::Verdict;
use podwire_vm::{Accelerator, clock};

use crate::command::consent;
use crate::command::session::Session;
use crate::plan::durations::Durations;
use crate::plan::forecast::Forecast;
use crate::plan::phase::{Phase, PhaseRecord};
use crate::prepare::machine::{self, Programs};
use crate::prepare::pod_network::{self, Given};
use crate::prepare::wanted::{StageOrder, Wanted};
use crate::prepare::{parts, space, stage_cache, tickets};
use crate::say::stop::Stop;

/// A host on which guests have been seen to run.
pub(crate) struct Judged {
    pub(crate) programs: Programs,
    pub(crate) base: NodeImage,
    pub(crate) verdict: Verdict,
}

/// A preparation under way.
pub(crate) struct Preparation<'a> {
    session: &'a Session,
    wanted: Wanted<'a>,
    pub(crate) measured: Durations,
    pub(crate) phases: Vec<PhaseRecord>,
    /// What the images hold that their locks do not.
    pub(crate) package_differences: Vec<String>,
    /// Stages in use that did not settle, and what each lacked, whoever made them.
    pub(crate) unsettled: Vec<String>,
    /// What the node image's Kubernetes was put together from, once it is there.
    pub(crate) bundle: Option<Bundle>,
    /// Once it is judged.
    pub(crate) accelerator: Option<Accelerator>,
    /// What is expected of the whole run, where there is a plan.
    pub(crate) forecast: Option<Forecast>,
    /// How much of the present phase was a wait for a place on the machine.
    waited: Cell<Duration>,
}

/// A wait that is worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// A phase that has begun.
pub(crate) struct Begun {
    phase: Phase,
    at: Instant,
}

impl<'a> Preparation<'a> {
    pub(crate) fn new(session: &'a Session, wanted: Wanted<'a>) -> Self {
        Self {
            session,
            wanted,
            measured: Durations::load(session.cache.root()),
            phases: Vec::new(),
            package_differences: Vec::new(),
            unsettled: Vec::new(),
            bundle: None,
            accelerator: None,
            forecast: None,
            waited: Cell::default(),
        }
    }

    pub(crate) fn begin(&self, phase: Phase) -> Begun {
        let forecast = self.forecast.as_ref();
        if let Some(left) = forecast.and_then(|forecast| forecast.left_from(phase)) {
            self.session.progress.left(Some(left));
        }
        self.session.progress.phase(phase.name());
        Begun {
            phase,
            at: Instant::now(),
        }
    }

    /// Notes that so much of the present phase was a wait for other runs: it is no part of what the
    /// phase takes, and has a line of its own.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited.set(self.waited.get() + time);
    }

    /// Ends a phase; what was done in it says whether the cache had its result.
    pub(crate) fn end<T>(
        &mut self,
        begun: Begun,
        done: Result<(T, bool), Stop>,
    ) -> Result<T, Stop> {
        let Begun { phase, at } = begun;
        let waited = self.waited.take();
        if waited >= WORTH_A_LINE {
            self.phases.push(PhaseRecord {
                name: WAITING.to_owned(),
                seconds: waited.as_secs_f64(),
                cached: false,
            });
        }
        let seconds = at.elapsed().saturating_sub(waited).as_secs_f64();
        let cached = matches!(done, Ok((_, true)));
        self.phases.push(PhaseRecord {
            name: phase.name().to_owned(),
            seconds,
            cached,
        });
        self.session.progress.idle();
        let (value, cached) = done?;
        if !cached {
            self.measured.set_phase(phase, self.accelerator, seconds);
            self.measured.store(self.session.cache.root())?;
        }
        Ok(value)
    }

    fn phase<T>(
        &mut self,
        phase: Phase,
        work: impl FnOnce(&Self) -> Result<(T, bool), Stop>,
    ) -> Result<T, Stop> {
        let begun = self.begin(phase);
        let done = work(self);
        self.end(begun, done)
    }

    /// Installs what was consented to.
    pub(crate) fn packages(&mut self, packages: &host::Plan) -> Result<(), Stop> {
        self.phase(Phase::Packages, |it| {
            host::install(&it.session.workshop(), packages)?;
            Ok(((), packages.missing.is_empty()))
        })
    }

    /// What runs the tests and scenarios.
    pub(crate) fn nextest(&mut self) -> Result<PathBuf, Stop> {
        self.phase(Phase::Tools, |it| {
            let workshop = it.session.workshop();
            let cached = tools::cached(&workshop)?[0];
            Ok((tools::nextest(&workshop)?, cached))
        })
    }

    /// The tests and scenarios, compiled by `build`.
    pub(crate) fn programs(
        &mut self,
        build: impl FnOnce() -> anyhow::Result<()>,
    ) -> Result<(), Stop> {
        self.phase(Phase::Programs, |_| Ok((build()?, false)))
    }

    /// The base image.
    pub(crate) fn base_image(&mut self) -> Result<NodeImage, Stop> {
        self.image(Phase::BaseImage, System::Debian, image::BASE, (None, None))
    }

    /// The base image, and what runs guests here, judged with it.
    pub(crate) fn judge(&mut self) -> Result<Judged, Stop> {
        let programs = Programs::find()?;
        let base = self.base_image()?;
        let verdict = self.phase(Phase::Accelerator, |it| {
            machine::verdict(it.session, &programs, &base)
        })?;
        self.accelerator = Some(verdict.accelerator);
        self.session.progress.line(&format!(
            "guests run under {}: {}",
            verdict.accelerator, verdict.reason
        ));
        if self.wanted.require_kvm && !verdict.accelerator.is_kvm() {
            return Err(Stop::setup(format!(
                "--require-kvm: guests do not run under KVM here: {}",
                verdict.reason
            )));
        }
        Ok(Judged {
            programs,
            base,
            verdict,
        })
    }

    /// The bundle, and the node image with it.
    pub(crate) fn node_image(&mut self) -> Result<NodeImage, Stop> {
        let phase = parts::bundle_phase(self.session, self.wanted.bundle)?;
        let bundle = self.phase(phase, |it| {
            let (workshop, order) = (it.session.workshop(), it.wanted.bundle);
            if let Some(bundle) = bundle::cached(&workshop, order)? {
                return Ok((bundle, true));
            }
            Ok((bundle::get(&workshop, order)?, false))
        })?;
        let accelerator = self.accelerator;
        let asked = self.wanted.system;
        let system = asked.map_or(System::Debian, |it| it.system(accelerator));
        let with = (Some(&bundle), asked.and_then(|it| it.kernel.as_ref()));
        let image = self.image(Phase::NodeImage, system, image::NODE, with);
        self.bundle = Some(bundle);
        image
    }

    /// kube-router's program.
    pub(crate) fn kube_router(&mut self) -> Result<PathBuf, Stop> {
        self.phase(Phase::KubeRouter, |it| {
            let workshop = it.session.workshop();
            let program = |folder: PathBuf| folder.join("bin/kube-router");
            if let Some(folder) = bundle::KUBE_ROUTER.cached(&workshop)? {
                return Ok((program(folder), true));
            }
            Ok((program(bundle::KUBE_ROUTER.built(&workshop)?), false))
        })
    }

    /// Kubernetes' end-to-end tests, of the version that is under test.
    pub(crate) fn conformance_tests(&mut self) -> Result<EndToEnd, Stop> {
        self.phase(Phase::ConformanceTests, |it| {
            let (workshop, version) = (it.session.workshop(), &it.wanted.bundle.kubernetes);
            if let Some(built) = bundle::cached_e2e(&workshop, version)? {
                return Ok((built, true));
            }
            Ok((bundle::e2e(&workshop, version)?, false))
        })
    }

    fn image(
        &mut self,
        phase: Phase,
        system: System<'_>,
        recipe: &str,
        (bundle, kernel): (Option<&Bundle>, Option<&OwnKernel>),
    ) -> Result<NodeImage, Stop> {
        let Wanted { yes, locked, .. } = self.wanted;
        let image = self.phase(phase, |it| {
            let outdated = consent::outdated(it.session, yes, locked);
            let request = image::ImageRequest {
                system,
                recipe,
                bundle,
                kernel,
                outdated: outdated.as_request(),
            };
            let BuiltImage { image, cached } = image::get(&it.session.workshop(), &request)?;
            Ok((image, cached))
        })?;
        let differences = image.manifest.differences.iter();
        self.package_differences
            .extend(differences.map(|difference| format!("{recipe} image: {difference}")));
        Ok(image)
    }

    /// What clusters need from this machine.
    pub(crate) fn host(&self, judged: &Judged) -> Host {
        Host {
            spawner: self.session.spawner.clone(),
            qemu: judged.programs.qemu.clone(),
            qemu_img: judged.programs.qemu_img.clone(),
            accelerator: judged.verdict.accelerator,
            speed_factor: judged.verdict.speed_factor,
            tsc_khz: clock::tsc_khz(),
        }
    }

    /// Pulls what a Pod network of the user's needs, before anything else is done: a registry may refuse it.
    /// Nothing of what is built here.
    pub(crate) fn pull(&mut self, given: Option<&Given>) -> Result<(), Stop> {
        let Some(given) = given.filter(|given| given.is_pulled()) else {
            return Ok(());
        };
        self.phase(Phase::PodNetwork, |it| given.gathered(it.session))
            .map(drop)
    }

    /// All that is brought onto nodes, what of it is built here by this host's tools.
    pub(crate) fn brought(&mut self, given: Option<&Given>) -> Result<Option<BroughtFiles>, Stop> {
        let gathered = given.map(|given| match given.is_built() {
            true => self.phase(Phase::PodImages, |it| given.gathered(it.session)),
            false => given.gathered(self.session).map(|(files, _)| files),
        });
        gathered.transpose()
    }

    /// The node image, with images of Pods where there are any; the machine's console goes to `logs`.
    pub(crate) fn layer(
        &mut self,
        host: &Host,
        node: &NodeImage,
        brought: Option<&BroughtFiles>,
        logs: &Path,
    ) -> Result<ImageFiles, Stop> {
        let Some(files) = brought else {
            return Ok(parts::image_files(node));
        };
        self.phase(Phase::Layer, |it| {
            pod_network::layered(it.session, host, node, files, logs)
        })
    }

    /// These stages, made as far as they are missing, in the order given; consoles go to `logs`, and so
    /// does evidence of what failed or did not settle.
    /// They are in use as long as the values live.
    pub(crate) fn stages(
        &mut self,
        host: &Host,
        image: &ImageFiles,
        orders: &[StageOrder],
        logs: &Path,
    ) -> Result<Vec<Vec<Stage>>, Stop> {
        let made = self.phase(Phase::Stage, |it| {
            let session = it.session;
            let stages = stage_cache::stages(session)?;
            let waiting = Instant::now();
            let _lock = session.cache.lock("stage", &session.progress)?;
            it.waited(waiting.elapsed());
            let mut ticket = None;
            let (mut all, mut cached) = (Vec::new(), true);
            for StageOrder { plan, names } in orders {
                let mut made = Vec::new();
                for name in names.iter().copied() {
                    let missing = stages.missing(plan, name)?;
                    if !missing.is_empty() && ticket.is_none() {
                        let waiting = Instant::now();
                        ticket = Some(tickets::ticket(session, "making a stage", plan)?);
                        it.waited(waiting.elapsed());
                    }
                    // One after the other: where there is little room, what nothing starts from may
                    // go as soon as the next is made of it.
                    let logs = bare::cell_dir(logs, plan.cell);
                    for step in missing {
                        cached = false;
                        space::make_room(session, it.wanted.max_size, orders)?;
                        let get = stages.get(host, plan, image, *step, &logs, &session.progress);
                        session.wait_for(get).with_context(|| {
                            format!(
                                "the cluster of {} did not come up; consoles are in {}",
                                plan.cell,
                                logs.display()
                            )
                        })?;
                    }
                    let stage = stages.find(plan, name)?;
                    let stage = stage.with_context(|| format!("the stage {name} has gone"))?;
                    made.push(stage);
                }
                all.push(made);
            }
            Ok((all, cached))
        })?;
        for (StageOrder { plan, .. }, stages) in orders.iter().zip(&made) {
            let logs = bare::cell_dir(logs, plan.cell);
            let said = stages.iter().map(|stage| &stage.manifest);
            let said = said.filter_map(|manifest| {
                let said = manifest.not_settled(plan.cell)?;
                Some(with_evidence(said, &Stages::evidence(&logs, manifest.name)))
            });
            for said in said {
                self.session.progress.line(&said);
                self.unsettled.push(said);
            }
        }
        Ok(made)
    }
}

/// What is said of a stage, and where its evidence is: only the run that made it has any.
fn with_evidence(said: String, evidence: &Path) -> String {
    match evidence.exists() {
        true => format!(
            "{said}; what its nodes had to say is in {}",
            evidence.display()
        ),
        false => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_made_a_stage_says_where_its_evidence_is() {
        let made = tempfile::tempdir().unwrap();
        let said = |evidence: &Path| with_evidence("5 of 6 Pods run".into(), evidence);
        assert_eq!(said(&made.path().join("none")), "5 of 6 Pods run");
        let evidence = made.path().display();
        assert_eq!(
            said(made.path()),
            format!("5 of 6 Pods run; what its nodes had to say is in {evidence}")
        );
    }
}
