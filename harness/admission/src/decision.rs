//! Whether one more clone may run, from plain data.

use std::collections::BTreeMap;
use std::fmt;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::Memory;

/// What somebody asks to be let in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// For whom: a scenario's or a command's name, as others read it while they wait.
    pub what: String,
    /// How many clones this machine runs at once, this one included; see [`slots`].
    pub slots: usize,
    /// The most that the clone's child processes can come to use privately, in MiB: its guests'
    /// memory and what each QEMU takes beside it.
    pub memory_mib: u64,
    /// What stays free for everything else on the host, in MiB.
    pub keep_free_mib: u64,
}

/// A process, wherever it runs: two of different containers may have the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id in its PID namespace.
    pub pid: u32,
    /// The inode number of that namespace (pid_namespaces(7)). Not known of one whose version of podwire did
    /// not write it.
    #[serde(default, rename = "pid_namespace")]
    pub namespace: Option<u64>,
}

/// A process that is in, or wants to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Which.
    #[serde(flatten)]
    pub process: ProcessId,
    /// [`Claim::what`].
    pub what: String,
    /// Whether its id is one of another PID namespace, and says nothing here.
    #[serde(skip)]
    pub elsewhere: bool,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.elsewhere {
            true => " of another container",
            false => "",
        };
        write!(f, "{} (process {}{of})", self.what, self.process.pid)
    }
}

/// Somebody who holds a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// [`Claim::memory_mib`].
    pub memory_mib: u64,
}

/// What a machine has to carry already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// All tickets that are held. A process may hold several.
    pub holders: Vec<Holder>,
    /// Private memory that the processes below each holder use now, in MiB; none of them is counted for
    /// two holders. A holder whose processes cannot be seen from here is not in it: all that it asked for
    /// counts as promised, whatever it has taken of that.
    pub used_mib: BTreeMap<ProcessId, u64>,
}

impl Load {
    /// MiB that the holders have been promised and have not taken yet.
    pub fn promised_mib(&self) -> u64 {
        let mut claimed: BTreeMap<ProcessId, u64> = BTreeMap::new();
        for holder in &self.holders {
            let of = claimed.entry(holder.party.process).or_default();
            *of = of.saturating_add(holder.memory_mib);
        }
        let used = |process| self.used_mib.get(process).copied().unwrap_or(0);
        let left = claimed.iter();
        let left = left.map(|(process, claimed)| claimed.saturating_sub(used(process)));
        left.fold(0, u64::saturating_add)
    }

    fn parties(&self) -> Vec<Party> {
        self.holders.iter().map(|one| one.party.clone()).collect()
    }
}

/// What becomes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The machine carries it.
    Admit,
    /// Not now.
    Wait(Wait),
    /// Not on this machine, however long it waits.
    Never(Never),
}

/// What a claim waits for. Displayed as what follows "waiting for".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Somebody came earlier and waits as well.
    Turn {
        /// Who comes next.
        ahead: Party,
    },
    /// As many clones run as this machine has the processors for.
    Slots {
        /// Whose they are.
        holders: Vec<Party>,
        /// [`Claim::slots`].
        slots: usize,
    },
    /// Memory.
    Memory {
        /// Who holds some, or was promised some.
        holders: Vec<Party>,
        /// MiB that must be there, [`Claim::keep_free_mib`] included.
        needed_mib: u64,
        /// MiB that are there and promised to nobody.
        free_mib: u64,
    },
}

impl Wait {
    /// Whether it is for the same, however much of it there is by now.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Memory { holders, .. },
                Self::Memory {
                    holders: others, ..
                },
            ) => holders == others,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn { ahead } => write!(f, "its turn, after {ahead}"),
            Self::Slots { holders, slots } => {
                write!(f, "{}: this machine runs {slots} at once", list(holders))
            }
            Self::Memory {
                holders,
                needed_mib,
                free_mib,
            } => {
                write!(
                    f,
                    "memory: {} needed, {} to be had",
                    size(*needed_mib),
                    size(*free_mib)
                )?;
                if holders.is_empty() {
                    Ok(())
                } else {
                    write!(f, " beside {}", list(holders))
                }
            }
        }
    }
}

/// Why a clone cannot run on this machine at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "too little memory: {} needed ({} for the machines, {} kept free for the rest of the host), \
     {} available of {}; end other programs, or take fewer machines",
    size(*.claimed_mib + *.keep_free_mib),
    size(*.claimed_mib),
    size(*.keep_free_mib),
    size(*.available_mib),
    size(*.total_mib)
)]
pub struct Never {
    /// [`Claim::memory_mib`].
    pub claimed_mib: u64,
    /// [`Claim::keep_free_mib`].
    pub keep_free_mib: u64,
    /// [`Memory::available`], MiB.
    pub available_mib: u64,
    /// [`Memory::total`], MiB.
    pub total_mib: u64,
}

/// Judges a claim.
///
/// `ahead` is who waits in front of it, if anybody; `alone_for_long` says that nobody has held a
/// ticket for longer than the kernel takes to tidy up after one.
pub fn decide(
    claim: &Claim,
    ahead: Option<&Party>,
    load: &Load,
    memory: Memory,
    alone_for_long: bool,
) -> Decision {
    let needed_mib = claim.memory_mib.saturating_add(claim.keep_free_mib);
    let never = || {
        Decision::Never(Never {
            claimed_mib: claim.memory_mib,
            keep_free_mib: claim.keep_free_mib,
            available_mib: memory.available >> 20,
            total_mib: memory.total >> 20,
        })
    };
    if memory.total >> 20 < needed_mib {
        return never();
    }
    // In turn, or many small claims would keep a large one out for ever.
    if let Some(ahead) = ahead {
        return Decision::Wait(Wait::Turn {
            ahead: ahead.clone(),
        });
    }
    // A machine that runs no clone at all runs one.
    let slots = claim.slots.max(1);
    if load.holders.len() >= slots {
        return Decision::Wait(Wait::Slots {
            holders: load.parties(),
            slots,
        });
    }
    let free_mib = (memory.available >> 20).saturating_sub(load.promised_mib());
    if free_mib >= needed_mib {
        Decision::Admit
    } else if load.holders.is_empty() && alone_for_long {
        never()
    } else {
        Decision::Wait(Wait::Memory {
            holders: load.parties(),
            needed_mib,
            free_mib,
        })
    }
}

/// How many clones run at once: one for every `cores_each` processors that it keeps busy, as far as
/// memory carries them; one at least.
pub fn slots(
    cores: usize,
    cores_each: usize,
    available: u64,
    claim_mib: u64,
    keep_free_mib: u64,
) -> usize {
    let spare = (available >> 20).saturating_sub(keep_free_mib);
    let by_memory = usize::try_from(spare / claim_mib.max(1)).unwrap_or(usize::MAX);
    (cores / cores_each.max(1)).min(by_memory).max(1)
}

fn list(parties: &[Party]) -> String {
    parties
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn size(mib: u64) -> ByteSize {
    ByteSize::mib(mib)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(slots: usize, memory_mib: u64) -> Claim {
        Claim {
            what: "routes".into(),
            slots,
            memory_mib,
            keep_free_mib: 1024,
        }
    }

    fn process(pid: u32) -> ProcessId {
        ProcessId {
            pid,
            namespace: Some(1),
        }
    }

    fn party(pid: u32) -> Party {
        Party {
            process: process(pid),
            what: format!("scenario_{pid}"),
            elsewhere: false,
        }
    }

    fn holder(pid: u32, memory_mib: u64) -> Holder {
        Holder {
            party: party(pid),
            memory_mib,
        }
    }

    fn gib(total: u64, available: u64) -> Memory {
        Memory {
            total: total << 30,
            available: available << 30,
        }
    }

    fn load(holders: &[(u32, u64)], used: &[(u32, u64)]) -> Load {
        Load {
            holders: holders
                .iter()
                .map(|(pid, mib)| holder(*pid, *mib))
                .collect(),
            used_mib: used
                .iter()
                .map(|(pid, mib)| (process(*pid), *mib))
                .collect(),
        }
    }

    #[test]
    fn an_idle_machine_admits_what_fits_and_refuses_what_never_will() {
        let idle = Load::default();
        let judged = |mib, memory, long| decide(&claim(1, mib), None, &idle, memory, long);
        assert_eq!(judged(5120, gib(8, 6), false), Decision::Admit);
        // Nothing can change this.
        let Decision::Never(never) = judged(8192, gib(8, 8), false) else {
            panic!("8 GiB on a machine that has 8 and keeps 1");
        };
        insta::assert_snapshot!(never, @"too little memory: 9.0 GiB needed (8.0 GiB for the machines, 1.0 GiB kept free for the rest of the host), 8.0 GiB available of 8.0 GiB; end other programs, or take fewer machines");
        // The kernel may still be tidying up after a clone that has just ended.
        assert!(matches!(
            judged(5120, gib(8, 5), false),
            Decision::Wait(Wait::Memory { .. })
        ));
        assert!(matches!(judged(5120, gib(8, 5), true), Decision::Never(_)));
    }

    #[test]
    fn what_a_holder_has_not_touched_yet_is_not_free() {
        let judged = |load: &Load| decide(&claim(4, 4096), None, load, gib(16, 9), true);
        assert_eq!(judged(&load(&[(7, 5120)], &[(7, 1024)])), Decision::Admit);
        let untouched = judged(&load(&[(7, 5120)], &[]));
        let Decision::Wait(wait) = untouched else {
            panic!("{untouched:?}");
        };
        insta::assert_snapshot!(wait, @"memory: 5.0 GiB needed, 4.0 GiB to be had beside scenario_7 (process 7)");
        // More than it said is no credit for others.
        let greedy = load(&[(7, 5120), (8, 4096)], &[(7, 9999), (8, 0)]);
        assert_eq!(greedy.promised_mib(), 4096);
        // Two tickets of one process share what is below it.
        let twice = load(&[(7, 1000), (7, 1000)], &[(7, 1500)]);
        assert_eq!(twice.promised_mib(), 500);
    }

    /// As in two containers that share a cache.
    #[test]
    fn two_processes_with_one_id_are_not_one() {
        let mut load = load(&[(7, 5120), (7, 5120)], &[(7, 6000)]);
        let other = &mut load.holders[1].party;
        (other.process.namespace, other.elsewhere) = (Some(2), true);
        // What the one has taken beyond its claim is nothing that the other has.
        assert_eq!(load.promised_mib(), 5120);
        let told: Vec<String> = load.parties().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join(", "), @"scenario_7 (process 7), scenario_7 (process 7 of another container)");
        // One that does not say whose its id is is nobody's here.
        load.holders[1].party.process.namespace = None;
        assert_eq!(load.promised_mib(), 5120);
    }

    #[test]
    fn whoever_waits_knows_for_whom() {
        let wait = |ahead: Option<&Party>, load: &Load| match decide(
            &claim(2, 100),
            ahead,
            load,
            gib(16, 9),
            true,
        ) {
            Decision::Wait(wait) => wait.to_string(),
            other => panic!("{other:?}"),
        };
        let full = load(&[(7, 100), (8, 100)], &[]);
        insta::assert_snapshot!(wait(None, &full), @"scenario_7 (process 7), scenario_8 (process 8): this machine runs 2 at once");
        insta::assert_snapshot!(wait(Some(&party(9)), &Load::default()), @"its turn, after scenario_9 (process 9)");
    }

    #[test]
    fn memory_that_comes_and_goes_is_no_news() {
        let memory = |pid, free_mib| Wait::Memory {
            holders: vec![party(pid)],
            needed_mib: 100,
            free_mib,
        };
        assert!(memory(7, 50).is_like(&memory(7, 60)));
        assert!(!memory(7, 50).is_like(&memory(8, 50)));
        let turn = Wait::Turn { ahead: party(7) };
        assert!(turn.is_like(&turn) && !turn.is_like(&memory(7, 50)));
    }

    #[test]
    fn a_claim_of_no_slot_still_gets_one() {
        assert_eq!(
            decide(&claim(0, 100), None, &Load::default(), gib(16, 9), false),
            Decision::Admit
        );
    }

    #[test]
    fn processors_and_memory_say_how_many_run_at_once() {
        assert_eq!(slots(2, 4, 20 << 30, 5120, 1024), 1);
        assert_eq!(slots(4, 2, 14 << 30, 5120, 1024), 2);
        assert_eq!(slots(16, 2, 64 << 30, 5120, 1024), 8);
        assert_eq!(slots(16, 2, 5 << 30, 5120, 1024), 1);
        assert_eq!(slots(16, 0, u64::MAX, 0, 0), 16);
    }

    /// One step in the life of a machine.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive {
            pid: u32,
            memory_mib: u64,
            slots: usize,
        },
        Use {
            which: usize,
            share: f64,
        },
        Leave {
            which: usize,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1_u32..6, 1_u64..9000, 0_usize..5).prop_map(|(pid, memory_mib, slots)| Step::Arrive {
                pid,
                memory_mib,
                slots
            }),
            (0_usize..6, 0.0_f64..=1.0).prop_map(|(which, share)| Step::Use { which, share }),
            (0_usize..6).prop_map(|which| Step::Leave { which }),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        /// As long as nobody takes more than it said, what is kept free stays free.
        #[test]
        fn no_order_of_events_exhausts_the_machine(
            steps in steps(),
            available_mib in 0_u64..32_000,
            keep_free_mib in 0_u64..3000,
        ) {
            // Ticket and what its processes have taken.
            let mut inside: Vec<(Holder, u64)> = Vec::new();
            let total = Memory { total: 64 << 30, available: available_mib << 20 };
            let mut most = 0;
            for step in steps {
                let taken: u64 = inside.iter().map(|(_, used)| used).sum();
                match step {
                    Step::Arrive { pid, memory_mib, slots } => {
                        let mut load = Load::default();
                        for (holder, used) in &inside {
                            load.holders.push(holder.clone());
                            *load.used_mib.entry(holder.party.process).or_default() += used;
                        }
                        let claim = Claim { what: "x".into(), slots, memory_mib, keep_free_mib };
                        let memory = Memory {
                            available: available_mib.saturating_sub(taken) << 20,
                            ..total
                        };
                        if decide(&claim, None, &load, memory, false) == Decision::Admit {
                            prop_assert!(inside.len() < slots.max(1));
                            inside.push((holder(pid, memory_mib), 0));
                        }
                    }
                    Step::Use { which, share } => {
                        if let Some((holder, used)) = inside.get_mut(which) {
                            #[expect(
                                clippy::cast_precision_loss,
                                clippy::cast_possible_truncation,
                                clippy::cast_sign_loss,
                                reason = "a share of a small number"
                            )]
                            let now = (holder.memory_mib as f64 * share) as u64;
                            *used = now;
                        }
                    }
                    Step::Leave { which } => {
                        if which < inside.len() {
                            inside.remove(which);
                        }
                    }
                }
                let taken: u64 = inside.iter().map(|(_, used)| used).sum();
                most = most.max(taken);
            }
            if most > 0 {
                prop_assert!(available_mib - most >= keep_free_mib);
            }
        }

        /// Only a machine on which nobody else runs refuses for good, and only one that is too small.
        #[test]
        fn nobody_is_refused_who_may_yet_fit(
            memory_mib in 1_u64..20_000,
            available_mib in 0_u64..16_000,
            holders in 0_u32..3,
            long: bool,
        ) {
            let load = load(&(0..holders).map(|pid| (pid, 500)).collect::<Vec<_>>(), &[]);
            let memory = Memory { total: 16_000 << 20, available: available_mib << 20 };
            let claim = claim(4, memory_mib);
            let fits = available_mib >= memory_mib + 1024;
            match decide(&claim, None, &load, memory, long) {
                Decision::Never(_) => {
                    prop_assert!(memory_mib + 1024 > 16_000 || holders == 0 && long && !fits);
                }
                Decision::Admit => prop_assert!(fits),
                Decision::Wait(_) => prop_assert!(holders > 0 || !fits),
            }
        }
    }
}
