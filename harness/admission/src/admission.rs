//! Waiting for a ticket, and holding it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podwire_process::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::decision::{Claim, Decision, Holder, Load, Never, Party, ProcessId, Wait, decide};
use crate::memory::{Memory, MemoryError};
use crate::usage;

/// Held by whoever looks and decides, for milliseconds.
const GATE: &str = "gate";
/// How the names of the files begin that are tickets; locked while somebody holds one.
const SLOT: &str = "slot-";
/// How the names of the files begin that are places in the queue; their numbers give the order.
const PLACE: &str = "place-";

/// How often somebody who waits looks again.
const POLL: Duration = Duration::from_millis(200);

/// How often somebody tries for the gate, which nobody holds for long.
const GATE_POLL: Duration = Duration::from_millis(10);

/// How long an idle machine gets to take back the memory of what has just ended.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The machine is too small.
    #[error("{what} cannot run here")]
    Never {
        /// [`Claim::what`].
        what: String,
        /// Why not.
        source: Never,
    },
    /// A file of the shared folder could not be used.
    #[error("cannot {action} {path}, with which clones agree on the machine's memory")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The machine's memory is not known.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl AdmissionError {
    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

/// The folder through which processes agree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    folder: PathBuf,
    namespace: Option<u64>,
    patience: Duration,
    memory: fn() -> Result<Memory, MemoryError>,
}

/// The right to run one clone. Dropping it, or the end of the process, gives it back: hold it until
/// the clone's processes are gone.
#[derive(Debug)]
pub struct Ticket {
    _held: File,
}

/// A place in the queue; given up when dropped.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    number: u64,
    _held: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // One that stays is not locked any more: whoever looks next removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// What came of one look.
enum Attempt {
    In(Ticket),
    Waiting(Wait),
    /// Nobody holds a ticket, and still there is too little memory.
    Alone(Wait),
}

impl Admission {
    /// The agreement through a folder, which is made when missing. Only processes that name the
    /// same folder agree with each other.
    ///
    /// # Errors
    /// [`AdmissionError::File`].
    pub fn at(folder: &Path) -> Result<Self, AdmissionError> {
        fs::create_dir_all(folder).map_err(AdmissionError::file("make", folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            namespace: pid_namespace(),
            patience: PATIENCE,
            memory: Memory::of_host,
        })
    }

    /// Waits until the machine carries this claim, in turn with all others. Whom it waits for goes
    /// to `report` whenever that changes. Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// [`AdmissionError::Never`] when nobody holds a ticket and it still does not fit: for 15
    /// seconds, in case the kernel is still taking back what an ended clone had, or at once when it
    /// exceeds all of the machine's memory.
    pub async fn enter(
        &self,
        claim: &Claim,
        report: &dyn Report,
    ) -> Result<Ticket, AdmissionError> {
        let mut place = None;
        let mut alone: Option<Instant> = None;
        let mut told: Option<Wait> = None;
        loop {
            let for_long = alone.is_some_and(|since| since.elapsed() >= self.patience);
            let waiting = match self.attempt(claim, &mut place, for_long).await? {
                Attempt::In(ticket) => return Ok(ticket),
                Attempt::Alone(what) => {
                    alone.get_or_insert_with(Instant::now);
                    what
                }
                Attempt::Waiting(what) => {
                    alone = None;
                    what
                }
            };
            if told.as_ref().is_none_or(|told| !told.is_like(&waiting)) {
                report.waiting(&waiting.to_string());
                told = Some(waiting);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn attempt(
        &self,
        claim: &Claim,
        place: &mut Option<Place>,
        alone_for_long: bool,
    ) -> Result<Attempt, AdmissionError> {
        // Two who decide at once would both see the same memory as free.
        let _gate = self.gate().await?;
        let (holders, free) = self.tickets()?;
        let ahead = self.ahead(place.as_ref())?;
        let load = Load {
            // Reading all of /proc is only worth it when the answer matters.
            used_mib: if ahead.is_none() && holders.len() < claim.slots {
                self.used_by(&holders)
            } else {
                Default::default()
            },
            holders,
        };
        let memory = (self.memory)()?;
        match decide(claim, ahead.as_ref(), &load, memory, alone_for_long) {
            Decision::Admit => {
                let holder = Holder {
                    party: self.party(claim),
                    memory_mib: claim.memory_mib,
                };
                let held = Self::hold(&free, &holder)?;
                *place = None;
                Ok(Attempt::In(Ticket { _held: held }))
            }
            Decision::Wait(wait) => {
                if place.is_none() {
                    *place = Some(self.queue(claim)?);
                }
                let alone = load.holders.is_empty() && ahead.is_none();
                Ok(if alone {
                    Attempt::Alone(wait)
                } else {
                    Attempt::Waiting(wait)
                })
            }
            Decision::Never(source) => Err(AdmissionError::Never {
                what: claim.what.clone(),
                source,
            }),
        }
    }

    async fn gate(&self) -> Result<File, AdmissionError> {
        let path = self.folder.join(GATE);
        let file = open(&path)?;
        while !lock(&file, &path)? {
            tokio::time::sleep(GATE_POLL).await;
        }
        Ok(file)
    }

    /// All tickets that are held, and one that is not.
    fn tickets(&self) -> Result<(Vec<Holder>, PathBuf), AdmissionError> {
        let mut holders = Vec::new();
        let mut free = None;
        let numbers = self.numbers(SLOT)?;
        let next = numbers.last().map_or(0, |last| last + 1);
        for number in numbers {
            let path = self.folder.join(format!("{SLOT}{number}"));
            let file = open(&path)?;
            if !lock(&file, &path)? {
                let mut holder: Holder = read(file, &path)?;
                self.place(&mut holder.party);
                holders.push(holder);
            } else if free.is_none() {
                free = Some(path);
            }
        }
        let free = free.unwrap_or_else(|| self.folder.join(format!("{SLOT}{next}")));
        Ok((holders, free))
    }

    /// Makes a file of the caller's own, locked, with something in it. Whoever else might lock it
    /// is kept out by the gate.
    fn hold<T: Serialize>(path: &Path, value: &T) -> Result<File, AdmissionError> {
        let mut file = open(path)?;
        lock(&file, path)?;
        serde_json::to_vec(value)
            .map_err(io::Error::from)
            .and_then(|text| {
                file.set_len(0)?;
                file.write_all(&text)
            })
            .map_err(AdmissionError::file("write", path))?;
        Ok(file)
    }

    /// Who has waited for longest of those in front of this place, or of all without one. Places of
    /// processes that have ended are removed on the way.
    fn ahead(&self, own: Option<&Place>) -> Result<Option<Party>, AdmissionError> {
        for number in self.numbers(PLACE)? {
            if own.is_some_and(|own| own.number <= number) {
                break;
            }
            let path = self.folder.join(format!("{PLACE}{number}"));
            let file = match File::open(&path) {
                Ok(file) => file,
                // Given up since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(AdmissionError::file("open", &path)(error)),
            };
            if !lock(&file, &path)? {
                let mut party: Party = read(file, &path)?;
                self.place(&mut party);
                return Ok(Some(party));
            }
            let _ = fs::remove_file(&path);
        }
        Ok(None)
    }

    fn queue(&self, claim: &Claim) -> Result<Place, AdmissionError> {
        let number = self.numbers(PLACE)?.last().map_or(0, |last| last + 1);
        let path = self.folder.join(format!("{PLACE}{number}"));
        Ok(Place {
            _held: Self::hold(&path, &self.party(claim))?,
            path,
            number,
        })
    }

    fn party(&self, claim: &Claim) -> Party {
        Party {
            process: ProcessId {
                pid: std::process::id(),
                namespace: self.namespace,
            },
            what: claim.what.clone(),
            elsewhere: false,
        }
    }

    /// Whether what another has written of itself is said in this process's own PID namespace. What an older
    /// version wrote does not tell.
    fn place(&self, party: &mut Party) {
        let namespace = party.process.namespace;
        party.elsewhere = namespace.is_some() && namespace != self.namespace;
    }

    /// What is used below those whose processes can be told from here: an id of another PID namespace is a
    /// process of somebody else's in this one.
    fn used_by(&self, holders: &[Holder]) -> BTreeMap<ProcessId, u64> {
        let known = holders.iter().map(|holder| holder.party.process);
        let own = known.filter(|it| it.namespace.is_some() && it.namespace == self.namespace);
        let pids: BTreeSet<u32> = own.map(|process| process.pid).collect();
        if pids.is_empty() {
            return BTreeMap::new();
        }
        let process = |pid| ProcessId {
            pid,
            namespace: self.namespace,
        };
        let used = usage::below(&pids).into_iter();
        used.map(|(pid, mib)| (process(pid), mib)).collect()
    }

    /// The numbers of all files of one sort, ascending.
    fn numbers(&self, prefix: &str) -> Result<Vec<u64>, AdmissionError> {
        let failed = || AdmissionError::file("list", &self.folder);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// This process's PID namespace, by its inode number (pid_namespaces(7)), where that is known.
fn pid_namespace() -> Option<u64> {
    let namespace = fs::metadata("/proc/self/ns/pid");
    namespace.ok().map(|namespace| namespace.ino())
}

fn open(path: &Path) -> Result<File, AdmissionError> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(AdmissionError::file("open", path))
}

/// Whether the lock could be had.
fn lock(file: &File, path: &Path) -> Result<bool, AdmissionError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(AdmissionError::file("lock", path)(error)),
    }
}

fn read<T: DeserializeOwned>(mut file: File, path: &Path) -> Result<T, AdmissionError> {
    let mut text = String::new();
    file.read_to_string(&mut text)
        .and_then(|_| Ok(serde_json::from_str(&text)?))
        .map_err(AdmissionError::file("understand", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Heard(RefCell<Vec<String>>);

    impl Report for Heard {
        fn step(&self, _: &str) {}
        fn waiting(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
    }

    fn claim(what: &str, slots: usize, memory_mib: u64) -> Claim {
        Claim {
            what: what.into(),
            slots,
            memory_mib,
            keep_free_mib: 0,
        }
    }

    const TOTAL_MIB: u64 = 1 << 20;
    const AVAILABLE_MIB: u64 = TOTAL_MIB / 2;

    /// On a machine on which nothing else comes and goes.
    fn of_a_known_size(folder: &Path) -> Admission {
        Admission {
            memory: || {
                Ok(Memory {
                    total: TOTAL_MIB << 20,
                    available: AVAILABLE_MIB << 20,
                })
            },
            ..Admission::at(folder).unwrap()
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Polls something until it has waited for the first time.
    async fn waits<F: Future>(future: &mut std::pin::Pin<Box<F>>, heard: &Heard) {
        while heard.0.borrow().is_empty() {
            let short = tokio::time::timeout(Duration::from_millis(20), future.as_mut());
            assert!(short.await.is_err(), "it was let in");
        }
    }

    #[tokio::test]
    async fn one_at_a_time_in_the_order_in_which_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let admission = Admission::at(dir.path()).unwrap();
        let (first, second, third) = (Heard::default(), Heard::default(), Heard::default());
        let (a, b, c) = (claim("a", 1, 1), claim("b", 1, 1), claim("c", 1, 1));
        let held = admission.enter(&a, &first).await.unwrap();
        let mut later = Box::pin(admission.enter(&b, &second));
        waits(&mut later, &second).await;
        let mut last = Box::pin(admission.enter(&c, &third));
        waits(&mut last, &third).await;
        let pid = std::process::id();
        assert!(first.0.borrow().is_empty());
        assert_eq!(
            *second.0.borrow(),
            [format!("a (process {pid}): this machine runs 1 at once")]
        );
        assert_eq!(
            *third.0.borrow(),
            [format!("its turn, after b (process {pid})")]
        );
        drop(held);
        let held = later.await.unwrap();
        let early = tokio::time::timeout(POLL * 3, last.as_mut()).await;
        assert!(early.is_err(), "both were let in");
        drop(held);
        last.await.unwrap();
        assert_eq!(files(dir.path()), ["gate", "slot-0"]);
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_no_place_behind() {
        let dir = tempfile::tempdir().unwrap();
        let admission = Admission::at(dir.path()).unwrap();
        let (a, b) = (claim("a", 1, 1), claim("b", 1, 1));
        let heard = Heard::default();
        let held = admission.enter(&a, &heard).await.unwrap();
        let mut later = Box::pin(admission.enter(&b, &heard));
        waits(&mut later, &heard).await;
        assert!(files(dir.path()).contains(&"place-0".to_owned()));
        drop(later);
        assert_eq!(files(dir.path()), ["gate", "slot-0"]);
        drop(held);
        admission.enter(&a, &Heard::default()).await.unwrap();
    }

    #[tokio::test]
    async fn what_never_fits_is_an_error_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let mut admission = of_a_known_size(dir.path());
        admission.patience = Duration::ZERO;
        let heard = Heard::default();
        let total = TOTAL_MIB;
        // More than there is, and no more than there is but more than is free.
        for mib in [total + 1, total] {
            let error = admission
                .enter(&claim("big", 1, mib), &heard)
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), "big cannot run here");
            let AdmissionError::Never { source, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!((source.claimed_mib, source.total_mib), (mib, total));
            assert_eq!(source.available_mib, AVAILABLE_MIB);
        }
        // Beside somebody else the second may fit one day.
        let small = admission
            .enter(&claim("small", 2, 1), &heard)
            .await
            .unwrap();
        heard.0.borrow_mut().clear();
        let big = claim("big", 2, total);
        let mut waiting = Box::pin(admission.enter(&big, &heard));
        waits(&mut waiting, &heard).await;
        assert!(
            heard.0.borrow()[0].starts_with("memory: "),
            "{heard:?}",
            heard = heard.0
        );
        drop(small);
        assert!(waiting.await.is_err());
    }

    #[tokio::test]
    async fn what_is_promised_to_one_is_not_given_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let admission = of_a_known_size(dir.path());
        let heard = Heard::default();
        // Neither uses any of it.
        let most = claim("most", 2, AVAILABLE_MIB * 6 / 10);
        let held = admission.enter(&most, &heard).await.unwrap();
        let mut second = Box::pin(admission.enter(&most, &heard));
        waits(&mut second, &heard).await;
        drop(held);
        second.await.unwrap();
    }

    /// A ticket as somebody else has written it, held as long as the value lives.
    fn ticket(folder: &Path, memory_mib: u64, namespace: Option<u64>) -> File {
        let mut holder = serde_json::json!({
            "pid": std::process::id(), "what": "another", "memory_mib": memory_mib,
        });
        if let Some(namespace) = namespace {
            holder["pid_namespace"] = namespace.into();
        }
        Admission::hold(&folder.join("slot-0"), &holder).unwrap()
    }

    #[tokio::test]
    async fn what_a_process_of_another_container_has_taken_is_not_what_its_namesake_here_has() {
        let dir = tempfile::tempdir().unwrap();
        let admission = of_a_known_size(dir.path());
        let child = usage::tests::child_with_memory();
        // It fits beside a holder that has taken as much as this process's child has.
        let taken = AVAILABLE_MIB / 2;
        let claim = claim("late", 2, AVAILABLE_MIB - taken + 32);
        let enter = async |ticket: File| {
            let heard = Heard::default();
            let entered = tokio::time::timeout(POLL * 3, admission.enter(&claim, &heard)).await;
            drop(ticket);
            match entered {
                Ok(ticket) => ticket.map(|_| "in".to_owned()).unwrap(),
                Err(_) => heard.0.borrow()[0].clone(),
            }
        };
        assert_eq!(
            enter(ticket(dir.path(), taken, pid_namespace())).await,
            "in"
        );
        let other = pid_namespace().unwrap() + 1;
        let waits = enter(ticket(dir.path(), taken, Some(other))).await;
        assert!(waits.ends_with(" of another container)"), "{waits}");
        // As of a version that did not tell where the process is.
        let waits = enter(ticket(dir.path(), taken, None)).await;
        assert!(waits.starts_with("memory: "), "{waits}");
        assert!(!waits.contains("container"), "{waits}");
        drop(child);
    }

    #[tokio::test]
    async fn a_ticket_tells_where_its_process_is() {
        let dir = tempfile::tempdir().unwrap();
        let admission = Admission::at(dir.path()).unwrap();
        let held = admission.enter(&claim("a", 1, 1), &Heard::default()).await;
        let text = fs::read(dir.path().join("slot-0")).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let pid = std::process::id();
        assert_eq!(
            written,
            serde_json::json!({ "pid": pid, "pid_namespace": namespace, "what": "a", "memory_mib": 1 })
        );
        drop(held);
    }
}
