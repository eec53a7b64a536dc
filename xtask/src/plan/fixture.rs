//! A scenario for tests.

use std::time::Duration;

use podwire_cluster::{Layout, StageName};
use podwire_scenario::{Cells, Families, Future, Lab, Profile, Scenario};
use podwire_scenarios::catalogue::C4;

fn nothing(_: &Lab) -> Future<'_> {
    Box::pin(async { Ok(()) })
}

/// A scenario that does nothing.
pub(crate) fn scenario(name: &'static str) -> Scenario {
    Scenario {
        name,
        about: "Shows something.",
        covers: &[C4],
        stage: StageName::Workload,
        cells: Cells::Any,
        layout: Layout::Flat,
        families: Families::Ipv4,
        profile: Profile::Default,
        nodes: 2,
        limit: Duration::from_secs(60),
        prepare: None,
        kube_router: false,
        upgrades: false,
        cores: 1,
        measures: &[],
        run: nothing,
        sabotages: &[],
        red_when: &[],
    }
}
