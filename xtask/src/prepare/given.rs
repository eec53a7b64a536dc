//! What the readers of files of the user's have in common.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use podwire_cluster::{Cell, ClusterPlan, ImageFiles};
use podwire_vm::Accelerator;

/// What a file holds; nothing where it has more octets than that.
pub(super) fn at_most(path: &Path, octets: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(octets + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= octets).then_some(bytes))
}

/// A plan of which only the steps' files count, which are the same on whatever image a cluster runs: what is
/// given is held against them before there is one.
pub(super) fn outline(
    nodes: u32,
    cell: Cell,
    kubernetes: &str,
    accelerator: Accelerator,
) -> anyhow::Result<ClusterPlan> {
    let image = ImageFiles::default();
    let plan = ClusterPlan::new(nodes, cell, kubernetes, &image, accelerator, "", "", None);
    Ok(plan?)
}
