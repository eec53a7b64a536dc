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

/// How many emulated nodes of kubeadm's, each counted as often as the speed factor says, a processor of the host
/// carries. With 22 three idle nodes keep a third of two processors busy; with 27, on a host that was slow in itself,
/// they kept both busy (docs/idle.md): the API server answers too late then, is asked again, and answers later yet.
const CARRIED: f64 = 23.5;

/// Why this host, with so many processors, does not carry a cluster of kubeadm's with so many nodes.
pub(crate) fn starves_kubeadm(verdict: &Verdict, nodes: u32, cores: usize) -> Option<String> {
    let carried = CARRIED * u32::try_from(cores).map_or(f64::INFINITY, f64::from);
    let starves = f64::from(nodes) * verdict.speed_factor > carried;
    (starves && verdict.accelerator == Accelerator::Tcg).then(|| {
        format!(
            "emulated, with a speed factor of {:.0}, its {nodes} nodes are too many for {cores} processors: they would \
             keep them busy while nothing happens, and a verdict would be one on the host; --bootstrap kubeadm runs \
             it all the same",
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
        insta::assert_snapshot!(told(28.0, 3, 2).unwrap(), @"emulated, with a speed factor of 28, its 3 nodes are too many for 2 processors: they would keep them busy while nothing happens, and a verdict would be one on the host; --bootstrap kubeadm runs it all the same");
        assert!(told(19.5, 3, 2).is_some());
        assert!(told(18.2, 3, 2).is_some());
        assert_eq!(told(19.5, 2, 2), None);
        assert_eq!(told(28.0, 3, 4), None);
        assert_eq!(told(14.7, 3, 2), None);
        let kvm = Verdict {
            accelerator: Accelerator::Kvm(KvmProcessor::HOST),
            ..verdict(28.0)
        };
        assert_eq!(starves_kubeadm(&kvm, 3, 2), None);
    }
}
