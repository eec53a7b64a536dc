//! What clusters take of a machine, and how many of them it carries.

use podwire_admission::slots;
use podwire_vm::Accelerator;

/// What a cluster takes of the machine, MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Appetite {
    /// Its machines' memory.
    pub(crate) guests_mib: u64,
    /// The most that a running clone occupies.
    pub(crate) clone_mib: u64,
}

/// What clones never take from the rest of the machine, MiB.
pub(crate) const KEEP_FREE_MIB: u64 = 512;

/// How many clones run at once: one on two emulated cores, else one per two cores, as far as
/// memory (available, bytes; of one clone, MiB) carries them.
pub(crate) fn at_once(
    cores: usize,
    available: u64,
    accelerator: Accelerator,
    clone_mib: u64,
) -> usize {
    let cores_each = match accelerator {
        Accelerator::Kvm(_) => 2,
        // Three emulated machines keep more than two cores busy while they wake up. Over a whole run a clone
        // has 0.6 to 1.1 of them at work; but where two shared two cores, each with a node being drained, the
        // machines with the API servers got half a core each, and these ran into their own timeouts.
        Accelerator::Tcg => 4,
    };
    slots(cores, cores_each, available, clone_mib, KEEP_FREE_MIB)
}

/// Room for so many new stages, in the unit of `guests`: each keeps about two fifths of its machines'
/// memory (measured: 7 % for booted machines, by hand 45 % with the workload, by kubeadm 62 %), the
/// last one all of it while it is being made.
pub(crate) fn disk_needed(guests: u64, stages: u64) -> u64 {
    if stages == 0 {
        return 0;
    }
    guests * 2 / 5 * stages + guests * 3 / 5
}

#[cfg(test)]
mod tests {
    use podwire_vm::KvmProcessor;

    use super::*;

    #[test]
    fn two_emulated_cores_carry_one_clone() {
        use Accelerator::Tcg;
        let kvm = Accelerator::Kvm(KvmProcessor::HOST);
        assert_eq!(at_once(2, 20 << 30, Tcg, 5056), 1);
        assert_eq!(at_once(4, 14 << 30, kvm, 5056), 2);
        assert_eq!(at_once(16, 64 << 30, kvm, 5056), 8);
        // Memory for one only.
        assert_eq!(at_once(16, 5 << 30, kvm, 5056), 1);
    }

    #[test]
    fn nothing_to_make_needs_no_room() {
        assert_eq!(disk_needed(4 << 30, 0), 0);
        assert_eq!(disk_needed(5 << 30, 1), 5 << 30);
        assert_eq!(disk_needed(5 << 30, 2), 7 << 30);
    }
}
