//! Values that several modules' tests share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use podwire_cluster::{Bootstrap, Cell, ClusterPlan, ImageFiles, StageManifest, StageName};
use podwire_images::bundle::Replaced;
use podwire_images::{Entry, Provenance};
use podwire_scenario::{
    CellContext, Cells, Future, Lab, Outcome, Profile, SabotageResult, Scenario, ScenarioResult,
    Share,
};
use podwire_vm::Accelerator;

use crate::plan::phase::PhaseRecord;
use crate::report::results::{Results, ScenarioRecord, TestRecord, Verdict};

fn nothing(_: &Lab) -> Future<'_> {
    Box::pin(async { Ok(()) })
}

/// A scenario that does nothing.
pub(crate) fn scenario(name: &'static str) -> Scenario {
    Scenario {
        name,
        about: "Shows something.",
        covers: &["C4"],
        stage: StageName::Workload,
        cells: Cells::Any,
        profile: Profile::Default,
        nodes: 2,
        limit: Duration::from_secs(60),
        prepare: None,
        run: nothing,
        sabotages: &[],
        red_when: &[],
    }
}

/// What a passed attempt leaves.
pub(crate) fn passed(name: &str) -> ScenarioResult {
    ScenarioResult {
        name: name.into(),
        covers: vec!["C4".into()],
        attempt: 1,
        outcome: Outcome::Passed,
        reason: String::new(),
        seconds: 31.5,
        sabotages: vec![SabotageResult {
            name: "same_range".into(),
            caught: true,
            reason: "two Pods share 10.1.1.7".into(),
        }],
        phases: Vec::new(),
        evidence: None,
    }
}

/// A run in which all is well.
pub(crate) fn results() -> Results {
    Results {
        accelerator: "tcg".into(),
        speed_factor: 7.5,
        component_settings: Some("idle (docs/idle.md)".into()),
        kubernetes: "1.36.4".into(),
        provenance: Provenance {
            kubernetes: "1.36.4".into(),
            source: "modules".into(),
            directory: None,
            replaced: vec![Replaced {
                component: "kube-proxy".into(),
                path: "./out/kube-proxy".into(),
                sha256: "0123abcd".into(),
            }],
        },
        system: "debian".into(),
        nodes: 3,
        shard: None,
        repeat: 1,
        image: Some("node-0123456789ab".into()),
        package_differences: Vec::new(),
        error: None,
        phases: vec![
            PhaseRecord {
                name: "bundle".into(),
                seconds: 0.1,
                cached: true,
            },
            PhaseRecord {
                name: "stage".into(),
                seconds: 170.0,
                cached: false,
            },
        ],
        harness_tests: vec![TestRecord {
            name: "machine::boots".into(),
            outcome: Verdict::Passed,
            reason: String::new(),
            seconds: 22.0,
        }],
        scenarios: vec![ScenarioRecord {
            name: "pod_addresses".into(),
            cell: Cell::usual(Bootstrap::ByHand).to_string(),
            covers: vec!["C4".into()],
            outcome: Verdict::Passed,
            reason: String::new(),
            attempts: 1,
            seconds: 31.5,
            sabotages: passed("pod_addresses").sabotages,
            parts: BTreeMap::from([("scenario: clone".into(), 8.0)]),
            folder: None,
        }],
        broken: None,
    }
}

pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// A node image's files, which are nowhere.
pub(crate) fn image_files(name: &str) -> ImageFiles {
    ImageFiles {
        name: name.into(),
        disk: "/cache/images/i/disk.qcow2".into(),
        kernel: "/cache/images/i/kernel".into(),
        initrd: "/cache/images/i/initrd".into(),
        append: "root=/dev/vda".into(),
    }
}

/// Three nodes by hand on `image-a`.
pub(crate) fn cluster_plan() -> ClusterPlan {
    let tcg = Accelerator::Tcg;
    ClusterPlan::new(
        3,
        Cell::usual(Bootstrap::ByHand),
        "1.36.4",
        &image_files("image-a"),
        tcg,
        "8.2.2",
        "Some CPU",
        None,
    )
    .unwrap()
}

/// What describes a stage of it.
pub(crate) fn stage_manifest(plan: ClusterPlan, name: StageName) -> StageManifest {
    StageManifest::new(name, plan, image_files("image-a")).unwrap()
}

/// What the scenarios' processes of a cell are told that nobody has prepared anything for.
pub(crate) fn context(keep: Option<&Path>) -> CellContext {
    CellContext {
        stages: BTreeMap::new(),
        qemu: "qemu".into(),
        qemu_img: "qemu-img".into(),
        accelerator: Accelerator::Tcg,
        speed_factor: 1.0,
        ssh_key: "key".into(),
        broken: None,
        share: Share {
            folder: "admission".into(),
            slots: 1,
            clone_mib: 1,
            keep_free_mib: 1,
        },
        keep: keep.map(Path::to_owned),
        tested: String::new(),
        again: String::new(),
        repeat: 1,
    }
}

/// An entry of the cache that was last used so many hours before the thousandth of 1970.
pub(crate) fn cache_entry(group: &str, name: &str, hours_ago: u32) -> Entry {
    Entry {
        group: group.into(),
        path: Path::new("/cache").join(group).join(name),
        bytes: 3 << 29,
        used: SystemTime::UNIX_EPOCH + HOUR * (1000 - hours_ago),
        in_use: false,
    }
}
