//! A cluster, its image and its stages for tests.

use std::path::Path;
use std::time::{Duration, SystemTime};

use podwire_cluster::{Bootstrap, Cell, ClusterPlan, ImageFiles, StageManifest, StageName};
use podwire_images::Entry;
use podwire_vm::Accelerator;

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
