//! From a stage to a running cluster of one's own.

use std::fs;
use std::path::Path;
use std::time::Instant;

use podwire_vm::{Ram, create_overlay};

use super::stage::{MachineFiles, Stage};
use crate::plan::breaks::Break;
use crate::plan::error::ClusterError;
use crate::running::cluster::{Cluster, Frozen};
use crate::running::host::Host;
use crate::running::phase::Phase;
use crate::running::wake::Waking;

impl Cluster {
    /// Brings a stage to life, privately: disks, consoles and the capture of its segment go to
    /// `dir`. It is there when every node's agent answers and the API server, if the stage has one,
    /// says that it is ready.
    ///
    /// `broken` alters the steps that are applied to it, see [`Break`].
    ///
    /// # Errors
    /// [`ClusterError`]; then nothing of it runs any more. A stage without a network card yet
    /// cannot be reached: [`ClusterError::NoCluster`].
    pub async fn clone_of(
        host: &Host,
        stage: &Stage,
        dir: &Path,
        broken: Option<Break>,
    ) -> Result<Self, ClusterError> {
        let manifest = &stage.manifest;
        let plan = &manifest.plan;
        let Some(credentials) = manifest.credentials.clone() else {
            return Err(ClusterError::NoCluster {
                stage: manifest.name,
            });
        };
        let started = Instant::now();
        let mut waking = Vec::new();
        for member in plan.members() {
            let frozen = MachineFiles::of_member(&stage.dir, member);
            let own = MachineFiles::of_member(dir, member);
            fs::create_dir_all(own.dir()).map_err(ClusterError::file("make", own.dir()))?;
            create_overlay(&host.qemu_img, &frozen.disk(), &own.disk())?;
            waking.push(Waking {
                member,
                ram: Ram::Clone(frozen.ram()),
                disk: own.disk(),
                state: frozen.state(),
                logs: own.dir().to_owned(),
                plugged: true,
            });
        }
        let disks = Phase::since(Phase::DISKS, started);
        let frozen = Frozen {
            plan,
            image: &manifest.image,
            credentials,
            segment: manifest.segment.clone(),
        };
        let cluster = Self::woken(host, frozen, waking, dir, broken).await?;
        Ok(cluster.timed(disks, started))
    }
}
