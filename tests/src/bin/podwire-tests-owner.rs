//! Starts a machine that waits, prints QEMU's process id and waits as well: a test kills it and
//! looks at what becomes of QEMU.
//!
//! Arguments: QEMU, kernel, folder.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use podwire_process::Spawner;
use podwire_vm::{Accelerator, Machine, MachineSpec, Ram};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [qemu, kernel, dir] = arguments.as_slice() else {
        bail!("usage: podwire-tests-owner QEMU KERNEL FOLDER");
    };
    let spec = MachineSpec {
        name: "orphan".to_owned(),
        vcpus: 1,
        memory_mib: 64,
        accelerator: Accelerator::Tcg,
        cpu_model: Accelerator::Tcg.cpu_model().to_owned(),
        kernel: kernel.clone(),
        initrd: None,
        append: String::new(),
        disk: None,
        ram: Ram::Anonymous,
        incoming: true,
        rtc_base: None,
        no_reboot: false,
        tsc_khz: None,
    };
    let machine =
        Machine::launch(&Spawner::start()?, qemu, spec, Vec::new(), Path::new(dir)).await?;
    println!("{}", machine.pid());
    let fault = machine.faulted().await;
    bail!(fault)
}
