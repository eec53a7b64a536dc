//! `cargo xtask test --prepare-only`: what a run needs and other machines can take over with the cache. No
//! guest runs, unless an image is made in one; so nothing of it depends on how this machine runs guests.

use podwire_images::host;
use podwire_images::image::ImageFrom;
use time::OffsetDateTime;

use crate::command::cli::run::AskedTests;
use crate::command::session::Session;
use crate::plan::forecast::Forecast;
use crate::plan::phase::Phase;
use crate::prepare::pod_network::Shape;
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::Wanted;
use crate::run::build;
use crate::run::order::Order;
use crate::say::stop::Stop;

/// What its plan says at the end.
pub(super) const SAID: &str =
    "--prepare-only: no cluster is made and no test is run; each machine does that for itself.";

/// Whether a phase is one of these, for nodes of such a system.
pub(super) fn has(phase: Phase, from: ImageFrom) -> bool {
    match phase {
        Phase::PodNetwork
        | Phase::Packages
        | Phase::Tools
        | Phase::BaseImage
        | Phase::Bundle
        | Phase::OwnBundle
        | Phase::NodeImage
        | Phase::KubeRouter
        | Phase::ConformanceTests
        | Phase::PodImages
        | Phase::Programs => true,
        Phase::Accelerator => made_in_a_machine(from),
        Phase::HarnessTests | Phase::Layer | Phase::Stage | Phase::Scenarios => false,
    }
}

fn made_in_a_machine(from: ImageFrom) -> bool {
    match from {
        ImageFrom::Debian => false,
        ImageFrom::Ubuntu2404 => true,
    }
}

/// Every phase of it, in order.
pub(super) fn prepare(
    session: &Session,
    order: &Order<'_>,
    packages: &host::Plan,
    forecast: Forecast,
) -> Result<(), Stop> {
    let wanted = Wanted {
        require_kvm: false,
        ..order.wanted()
    };
    let mut preparation = Preparation::new(session, wanted);
    preparation.forecast = Some(forecast);
    let given = order.pod_network.as_ref();
    preparation.pull(given)?;
    preparation.packages(packages)?;
    preparation.nextest()?;
    match made_in_a_machine(order.system.from) {
        true => drop(preparation.judge()?),
        false => drop(preparation.base_image()?),
    }
    let node = preparation.node_image()?;
    if order.args.tests == Some(AskedTests::Conformance) {
        preparation.conformance_tests()?;
    }
    let brought = preparation.brought(given)?;
    Shape::on(&node, given, brought.as_ref())?;
    if order.has_kube_router() {
        preparation.kube_router()?;
    }
    // No run: `latest` stays what it was.
    let dir = session.workspace.new_folder(OffsetDateTime::now_utc())?;
    preparation.programs(|| build::build(session, &dir.join("build.log")))?;
    outln!(
        "prepared: node image {}; {}",
        node.manifest.name,
        order.bundle.provenance()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_needs_a_guest_but_an_image_that_is_made_in_one() {
        let phases = |from| {
            let phases = Phase::ALL.into_iter().filter(|phase| has(*phase, from));
            phases.map(Phase::name).collect::<Vec<_>>().join(", ")
        };
        insta::assert_snapshot!(phases(ImageFrom::Debian), @"packages, tools, base image, bundle, node image, test programs");
        insta::assert_snapshot!(phases(ImageFrom::Ubuntu2404), @"packages, tools, base image, accelerator, bundle, node image, test programs");
    }
}
