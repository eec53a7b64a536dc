//! From frozen machines to running ones.

use std::path::PathBuf;
use std::time::Instant;

use futures::future::try_join_all;
use podwire_lan::Segment;
use podwire_vm::Ram;

use super::host::Host;
use super::node::Powered;
use super::phase::Phase;
use crate::plan::cluster_plan::{ClusterPlan, ImageFiles};
use crate::plan::error::ClusterError;
use crate::plan::layout::Member;

/// A frozen machine, and where it goes on.
pub(crate) struct Waking {
    /// Which machine of the cluster it is.
    pub(crate) member: Member,
    /// Its memory: a private mapping of the frozen file, or a copy that it may write.
    pub(crate) ram: Ram,
    /// A disk of its own.
    pub(crate) disk: PathBuf,
    /// The frozen device state.
    pub(crate) state: PathBuf,
    /// Where its console and transcripts go.
    pub(crate) logs: PathBuf,
    /// Whether it was frozen with its network cards in the slot.
    pub(crate) plugged: bool,
}

/// Brings machines back together: QEMUs are started, then loaded, then resumed, each step for all of
/// them at once; the segment, held until now, is released when the last one runs.
pub(crate) async fn wake(
    host: &Host,
    plan: &ClusterPlan,
    image: &ImageFiles,
    segment: &Segment,
    machines: Vec<Waking>,
) -> Result<(Vec<Powered>, Vec<Phase>), ClusterError> {
    let mut phases = Vec::new();
    let step = Instant::now();
    let starts = machines.iter().map(|waking| {
        let size = plan.size(plan.role(waking.member));
        let spec = plan.machine(
            &waking.member.name(),
            size,
            &image.kernel,
            &image.initrd,
            waking.disk.clone(),
            waking.ram.clone(),
            true,
        );
        Powered::on(
            host,
            segment,
            (plan.cell.layout, waking.member),
            spec,
            waking.plugged,
            &waking.logs,
        )
    });
    let powered = try_join_all(starts).await?;
    phases.push(Phase::since(Phase::START, step));

    let step = Instant::now();
    let loads = machines.iter().zip(&powered);
    try_join_all(loads.map(|(waking, powered)| powered.machine.load(&waking.state))).await?;
    phases.push(Phase::since(Phase::LOAD, step));

    let step = Instant::now();
    try_join_all(powered.iter().map(|powered| powered.machine.resume())).await?;
    segment.release()?;
    phases.push(Phase::since(Phase::RESUME, step));

    let unplugged = machines.iter().zip(&powered);
    let unplugged = unplugged.filter(|(waking, _)| !waking.plugged);
    try_join_all(unplugged.map(|(_, powered)| powered.machine.plug_nics())).await?;
    Ok((powered, phases))
}
