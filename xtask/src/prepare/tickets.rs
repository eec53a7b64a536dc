//! A cluster's place on this machine, agreed with all other processes that run some.

use podwire_admission::{Admission, Claim, Ticket};
use podwire_cluster::{Bootstrap, Cell, ClusterPlan, ImageFiles};
use podwire_process::Report;
use podwire_vm::Accelerator;

use crate::command::session::Session;
use crate::plan::capacity::{Appetite, KEEP_FREE_MIB, at_once};
use crate::prepare::machine::cores;
use crate::say::progress::Progress;
use crate::say::stop::Stop;

/// What clusters of a size take of this machine; it does not depend on what is in the image.
pub(crate) fn appetite(
    nodes: u32,
    kubernetes: &str,
    accelerator: Accelerator,
) -> anyhow::Result<Appetite> {
    let image = ImageFiles::default();
    let cell = Cell::usual(Bootstrap::ByHand);
    let plan = ClusterPlan::new(nodes, cell, kubernetes, &image, accelerator, "", "", None)?;
    Ok(Appetite {
        guests_mib: plan.memory_mib(),
        clone_mib: plan.host_memory_mib(),
    })
}

/// How many clones this machine runs at once, and what each may come to take: agreed with all other
/// processes that run some.
pub(crate) fn claim(what: &str, plan: &ClusterPlan) -> Claim {
    Claim {
        what: what.to_owned(),
        // By the cores alone: what memory allows, those who hold tickets considered, is decided
        // when the claim is made.
        slots: at_once(cores(), u64::MAX, plan.accelerator, plan.host_memory_mib()),
        memory_mib: plan.host_memory_mib(),
        keep_free_mib: KEEP_FREE_MIB,
    }
}

/// Says at once for whom it waits: that may take long.
struct Queue<'a>(&'a Progress);

impl Report for Queue<'_> {
    fn step(&self, what: &str) {
        self.0.step(what);
    }

    fn waiting(&self, whom: &str) {
        self.0.step(&format!("waiting for {whom}"));
    }
}

/// Waits until the machine carries one more cluster.
pub(crate) fn ticket(session: &Session, what: &str, plan: &ClusterPlan) -> Result<Ticket, Stop> {
    let admission = Admission::at(&session.cache.folder(ADMISSION)?)?;
    let claim = claim(what, plan);
    Ok(session.wait_for(admission.enter(&claim, &Queue(&session.progress)))?)
}

/// The folder of the cache in which clones agree on the machine's memory.
pub(crate) const ADMISSION: &str = "admission";
