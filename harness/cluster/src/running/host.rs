//! The machine that clusters run on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_process::Spawner;
use podwire_vm::{Accelerator, Machine, MachineSpec, Nic, VmError};

/// What a cluster needs from its host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Starts the QEMUs.
    pub spawner: Spawner,
    /// The emulator.
    pub qemu: PathBuf,
    /// Its image tool.
    pub qemu_img: PathBuf,
    /// Judged by running a guest.
    pub accelerator: Accelerator,
    /// How many times slower than usual everything in a guest is; at least 1 counts.
    pub speed_factor: f64,
    /// The rate of its time stamp counter, see [`podwire_vm::clock`].
    pub tsc_khz: Option<u32>,
}

impl Host {
    /// Starts a machine, which is told the clock's rate: any may boot, if only again.
    ///
    /// # Errors
    /// [`VmError`].
    pub(crate) async fn launch(
        &self,
        spec: MachineSpec,
        nics: Vec<Nic>,
        logs: &Path,
    ) -> Result<Machine, VmError> {
        let spec = MachineSpec {
            tsc_khz: self.tsc_khz,
            ..spec
        };
        Machine::launch(&self.spawner, &self.qemu, spec, nics, logs).await
    }

    /// A limit of the host's, stretched for the machine's speed. Limits written into a guest
    /// follow its class instead, see [`Settings`](crate::plan::settings::Settings).
    pub fn limit(&self, limit: Duration) -> Duration {
        stretched(limit, self.speed_factor)
    }
}

/// A limit of the host's, stretched for a machine whose guests are so many times slower than those
/// under KVM on a usual machine. Not for what is written into a guest.
pub fn stretched(limit: Duration, speed_factor: f64) -> Duration {
    limit.mul_f64(speed_factor.max(1.0))
}
