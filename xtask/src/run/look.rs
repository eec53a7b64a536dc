//! What there is before a run begins, and what it is therefore going to do.

use std::path::PathBuf;

use podwire_admission::Memory;
use podwire_images::image::ImageFrom;
use podwire_images::{NodeImage, host, tools};
use podwire_vm::Accelerator;

use crate::command::cli::run::AskedTests;
use crate::command::session::Session;
use crate::plan::capacity::{self, Appetite};
use crate::plan::outline::{Machine, Need, Plan};
use crate::plan::phase::Phase;
use crate::prepare::pod_network::{self, Given, Shape};
use crate::prepare::space::Demand;
use crate::prepare::wanted::StageOrder;
use crate::prepare::{machine, parts, stage_cache, tickets};
use crate::run::order::{MEASURED_AT_ONCE, Order};
use crate::run::prepare_only;
use crate::say::stop::Stop;

/// What the cache has, and what is therefore to be done; and the stages in it that are of use.
pub(super) fn look(
    session: &Session,
    order: &Order<'_>,
    packages: &host::Plan,
) -> Result<(Plan, Vec<PathBuf>), Stop> {
    let workshop = session.workshop();
    let cached_or = |cached: Option<String>, missing: &str| {
        cached.map_or_else(|| Need::Missing(missing.to_owned()), Need::Cached)
    };
    let names: Vec<&str> = packages
        .missing
        .iter()
        .map(|missing| missing.need.package)
        .collect();
    let base = parts::cached_base(session)?;
    let verdict = match &base {
        Some(base) if names.is_empty() => machine::known_verdict(session, base)?,
        _ => None,
    };
    let bundle = podwire_images::bundle::cached(&workshop, &order.bundle)?;
    let node = match &bundle {
        Some(bundle) => parts::cached_node(session, &order.system, bundle)?,
        None => None,
    };
    let given = order.pod_network.as_ref();
    let brought = given.map(|given| given.at_hand(session)).transpose()?;
    // Which images are still to be pulled, or built, decides what the stages are.
    let to_come = matches!(brought, Some(None));
    let brought = brought.flatten();
    let mut uses = Vec::new();
    let stages = match (&node, &verdict) {
        (Some(node), Some(verdict)) if !to_come => {
            let stages = stage_cache::stages(session)?;
            let shape = Shape::on(node, given, brought.as_ref())?;
            let accelerator = verdict.accelerator;
            let orders = order.stages(session, node, accelerator, &shape)?;
            for StageOrder { plan, names } in &orders {
                for name in names.iter().flat_map(|name| name.line(plan.cell)) {
                    uses.push(stages.dir(plan, *name)?);
                }
            }
            let wanted = orders
                .iter()
                .flat_map(|order| order.names.iter().map(|name| (&order.plan, *name)));
            let found = wanted.map(|(plan, name)| {
                let found = stages.find(plan, name)?;
                Ok(found.map(|_| format!("{name} of {}", plan.cell)))
            });
            found.collect::<Result<Option<Vec<_>>, Stop>>()?
        }
        _ => None,
    };
    let memory = Memory::of_host()?;
    let machine = Machine {
        cores: machine::cores(),
        memory_available: memory.available,
        disk_available: session.cache.disk()?.available,
        disk_giving_way: 0,
        accelerator: verdict.as_ref().map(|verdict| verdict.accelerator),
    };
    let accelerator = machine.accelerator.unwrap_or(Accelerator::Tcg);
    let appetite = tickets::appetite(order.args.nodes, &order.bundle.kubernetes, accelerator)?;
    let at_once = match order.args.measure {
        true => MEASURED_AT_ONCE,
        false => capacity::at_once(
            machine.cores,
            machine.memory_available,
            accelerator,
            appetite.clone_mib,
        ),
    };
    let provenance = order.bundle.provenance().to_string();
    let missing_bundle = missing_bundle(&provenance, order.bundle.unverified_program());
    let mut phases = vec![
        (
            Phase::Packages,
            cached_or(
                names.is_empty().then(|| "all there".into()),
                &names.join(", "),
            ),
        ),
        (
            Phase::Tools,
            cached_or(
                tools::cached(&workshop)?[0].then(|| "cargo-nextest".into()),
                "",
            ),
        ),
        (
            Phase::BaseImage,
            cached_or(base.map(|image| image.manifest.name), ""),
        ),
        (
            Phase::Accelerator,
            cached_or(
                verdict.map(|verdict| {
                    format!(
                        "{}, speed factor {:.1}",
                        verdict.accelerator, verdict.speed_factor
                    )
                }),
                "",
            ),
        ),
        (
            parts::bundle_phase(session, &order.bundle)?,
            cached_or(bundle.map(|_| provenance.clone()), &missing_bundle),
        ),
        (
            Phase::NodeImage,
            match order.system.from {
                ImageFrom::Debian => {
                    cached_or(node.as_ref().map(|image| image.manifest.name.clone()), "")
                }
                from => {
                    let named = |image: &NodeImage| format!("{}, {from}", image.manifest.name);
                    cached_or(node.as_ref().map(named), &from.to_string())
                }
            },
        ),
    ];
    if order.has_kube_router() {
        let built = podwire_images::bundle::KUBE_ROUTER.cached(&workshop)?;
        let built = built.map(|_| "built".to_owned());
        phases.push((Phase::KubeRouter, cached_or(built, "")));
    }
    let there = brought.as_ref().map(|files| {
        let images = files.images.iter().map(|image| image.reference.as_str());
        images.collect::<Vec<_>>().join(", ")
    });
    if order.args.tests == Some(AskedTests::Conformance) {
        let built = podwire_images::bundle::cached_e2e(&workshop, &order.bundle.kubernetes)?;
        let built = built.map(|_| "built".to_owned());
        phases.push((Phase::ConformanceTests, cached_or(built, "")));
    }
    if given.is_some_and(Given::is_built) {
        phases.push((Phase::PodImages, cached_or(there.clone(), "")));
    }
    phases.push((
        Phase::Programs,
        Need::Always("nothing when they are current".into()),
    ));
    if order.harness_tests {
        phases.push((Phase::HarnessTests, Need::Always(String::new())));
    }
    if let Some(given) = given {
        let layer = match (&node, &brought) {
            (Some(node), Some(files)) => pod_network::cached_layer(session, node, files)?,
            _ => None,
        };
        if given.is_pulled() {
            phases.insert(0, (Phase::PodNetwork, cached_or(there, "")));
        }
        phases.push((Phase::Layer, cached_or(layer, "")));
    }
    let scenarios = order.scenarios();
    if !scenarios.is_empty() {
        phases.push((
            Phase::Stage,
            cached_or(stages.map(|stages| stages.join(", ")), ""),
        ));
        let cells: Vec<String> = order
            .cells
            .iter()
            .filter(|cell| cell.has_any())
            .map(|cell| {
                let count = cell.selection.scenarios.len();
                let scenarios = if count == 1 { "scenario" } else { "scenarios" };
                format!("{count} {scenarios} on {}", cell.cell)
            })
            .collect();
        phases.push((Phase::Scenarios, Need::Always(cells.join(", "))));
    }
    let mut plan = Plan {
        machine,
        phases,
        appetite,
        stages: order.stages_kept(),
        scenarios,
        at_once,
    };
    if order.args.prepare_only {
        let from = order.system.from;
        plan.phases
            .retain(|(phase, _)| prepare_only::has(*phase, from));
        plan.appetite = Appetite::default();
    }
    let demand = Demand {
        needed: plan.disk_needed(),
        uses: &uses,
    };
    plan.machine.disk_giving_way = demand.giving_way(session)?;
    Ok((plan, uses))
}

/// What is to be got, and plainly which of it runs here although nobody vouches for it.
fn missing_bundle(provenance: &str, unverified_program: Option<&str>) -> String {
    match unverified_program {
        Some(program) => format!("{provenance}; its {program} runs on this host"),
        None => provenance.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::durations::Durations;
    use crate::plan::outline;
    use podwire_images::Provenance;

    #[test]
    fn the_plan_says_that_what_nobody_vouches_for_runs_here() {
        let release = Provenance {
            upgrade_to: None,
            kubernetes: "1.35.4".into(),
            source: "release".into(),
            directory: None,
            replaced: Vec::new(),
        };
        let shown = |unverified| {
            let need = Need::Missing(missing_bundle(&release.to_string(), unverified));
            let mut plan = outline::tests::fresh();
            plan.phases = vec![(Phase::Bundle, need)];
            plan.render(&Durations::default())
        };
        let said = "(kubernetes 1.35.4 from release (nobody but its own servers vouches for it); \
                    its kubeadm runs on this host)\n";
        let plan = shown(Some("kubeadm"));
        assert!(plan.contains(said), "{plan}");
        assert!(!shown(None).contains("runs on this host"));
    }
}
