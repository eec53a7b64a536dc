//! What this machine has to run guests with: processors, QEMU, and the accelerator's verdict.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use podwire_images::NodeImage;
use podwire_vm::Accelerator;
use podwire_vm::accelerator::{self, ProbeGuest, Verdict, VerdictKey};

use crate::command::session::Session;
use crate::say::stop::Stop;

/// QEMU's programs, by their path.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_img: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let find = |program, package| {
            which::which(program).with_context(|| {
                format!("{program} is missing: it comes with the package {package}")
            })
        };
        Ok(Self {
            qemu: find("qemu-system-x86_64", "qemu-system-x86")?,
            qemu_img: find("qemu-img", "qemu-utils")?,
        })
    }
}

/// How many processors this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What a node of an emulated cluster of kubeadm's keeps busy while nothing happens, in processors for each unit of
/// the speed factor: three of them 0.7 at 14.5 (docs/idle.md).
const IDLE_NODE: f64 = 0.016;
/// How much of the host's processors may be busy with that. With more an API server answers too late: it is asked
/// again, and answers later yet.
const CARRIED: f64 = 0.6;

/// Why this host, with so many processors, does not carry a cluster of kubeadm's with so many nodes.
pub(crate) fn starves_kubeadm(verdict: &Verdict, nodes: u32, cores: usize) -> Option<String> {
    let cores = u32::try_from(cores).map_or(f64::INFINITY, f64::from);
    let busy = IDLE_NODE * verdict.speed_factor * f64::from(nodes);
    let starves = verdict.accelerator == Accelerator::Tcg && busy > CARRIED * cores;
    starves.then(|| {
        format!(
            "emulated, with a speed factor of {:.0}, its {nodes} nodes would keep {busy:.1} of this host's {cores} \
             processors busy while nothing happens, and a verdict would be one on the host; --bootstrap kubeadm \
             runs it all the same",
            verdict.speed_factor
        )
    })
}

fn verdict_key(session: &Session, qemu: &Path, base: &NodeImage) -> anyhow::Result<VerdictKey> {
    Ok(VerdictKey::here(&session.spawner, qemu, &base.kernel)?)
}

/// The accelerator's verdict if it was made since the host's boot.
pub(crate) fn known_verdict(
    session: &Session,
    base: &NodeImage,
) -> anyhow::Result<Option<Verdict>> {
    let key = verdict_key(session, &Programs::find()?.qemu, base)?;
    Ok(accelerator::cached_verdict(session.cache.root(), &key))
}

/// The accelerator's verdict, and whether it was known already.
pub(crate) fn verdict(
    session: &Session,
    programs: &Programs,
    base: &NodeImage,
) -> Result<(Verdict, bool), Stop> {
    let _lock = session.cache.lock("accelerator", &session.progress)?;
    let key = verdict_key(session, &programs.qemu, base)?;
    if let Some(verdict) = accelerator::cached_verdict(session.cache.root(), &key) {
        return Ok((verdict, true));
    }
    session
        .progress
        .step("booting a small guest to judge the accelerator");
    let guest = ProbeGuest {
        kernel: base.kernel.clone(),
        initrd: base.initrd.clone(),
    };
    let dir = session.cache.staging("accelerator")?;
    let judged = accelerator::judge(&session.spawner, &programs.qemu, &guest, dir.path());
    let verdict = session.wait_for(judged)?;
    accelerator::store_verdict(session.cache.root(), &key, &verdict)?;
    Ok((verdict, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_vm::KvmProcessor;

    #[test]
    fn a_host_that_is_too_slow_for_kubeadm_is_told_so() {
        let verdict = |speed_factor| Verdict {
            accelerator: Accelerator::Tcg,
            reason: String::new(),
            speed_factor,
            boot_seconds: 1.0,
        };
        let told =
            |speed_factor, nodes, cores| starves_kubeadm(&verdict(speed_factor), nodes, cores);
        insta::assert_snapshot!(told(28.0, 3, 2).unwrap(), @"emulated, with a speed factor of 28, its 3 nodes would keep 1.3 of this host's 2 processors busy while nothing happens, and a verdict would be one on the host; --bootstrap kubeadm runs it all the same");
        assert_eq!(told(28.0, 2, 2), None);
        assert_eq!(told(28.0, 3, 4), None);
        assert_eq!(told(14.7, 3, 2), None);
        let kvm = Verdict {
            accelerator: Accelerator::Kvm(KvmProcessor::HOST),
            ..verdict(28.0)
        };
        assert_eq!(starves_kubeadm(&kvm, 3, 2), None);
    }
}
