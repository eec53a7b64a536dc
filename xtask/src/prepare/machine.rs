//! What this machine has to run guests with: processors, QEMU, and the accelerator's verdict.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use podwire_images::NodeImage;
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
