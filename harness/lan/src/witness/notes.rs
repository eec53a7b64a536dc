//! The witness's end in the switch: a bounded ring of frames' beginnings. It decodes nothing, since
//! every frame passes here.

use std::collections::VecDeque;
use std::time::Duration;

use etherparse::checksum::u64_16bit_word;
use serde::{Deserialize, Serialize};

/// Octets kept of each frame: Ethernet, IPv6, UDP and VXLAN, then Ethernet, IPv6 and TCP with 40 octets
/// of options. It is even, so that a checksum's words are not cut.
pub(super) const KEPT: usize = 184;

/// Octets of the ring: some 80 000 frames.
const RING: usize = 16 * 1024 * 1024;

/// Where the switch means a frame to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// To this port.
    To(usize),
    /// To every port but the one it came from.
    Flood,
    /// Nowhere: its destination is behind the port it came from, or it has no addresses.
    Nowhere,
    /// Nowhere: the address filter of its port does not let it in.
    Filtered,
}

/// Why a frame did not get to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// The machine did not read fast enough.
    QueueFull,
    /// A rule of the segment's took it: a cut cable, a hole, a loss, a queue that was full.
    Rule,
    /// The address filter of the port it came from, or of this one, does not let it through.
    Filtered,
    /// No machine was attached.
    Detached,
}

/// A frame's beginning, and what is needed to check its sums.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// Nanoseconds since the segment's origin of time.
    pub(super) at: u64,
    /// Sum of the 16-bit words (RFC 1071) behind what is kept.
    pub(super) rest: u64,
    /// Octets of the frame.
    pub(super) length: u32,
    pub(super) from: u32,
    pub(super) fate: Fate,
    /// How many ports there were.
    pub(super) ports: u32,
    octets: [u8; KEPT],
}

impl Head {
    const EMPTY: Head = Head {
        at: 0,
        rest: 0,
        length: 0,
        from: 0,
        fate: Fate::Nowhere,
        ports: 0,
        octets: [0; KEPT],
    };

    /// What is kept of the frame.
    pub(super) fn kept(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(KEPT);
        &self.octets[..length.min(KEPT)]
    }
}

/// Frames that were meant for a port and did not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) frame: u64,
    pub(super) port: usize,
    pub(super) why: Lost,
}

/// The sum of 16-bit words, not folded. Two at a time: a loop that the compiler makes vectors of, since
/// this is what watching long frames costs.
pub(super) fn sum(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks();
    let sum = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    u64_16bit_word::add_slice(sum, rest)
}

/// The ring. Frames are numbered from 0 in the order in which the switch saw them.
#[derive(Debug)]
pub(crate) struct Notes {
    heads: Vec<Head>,
    /// The oldest, once the ring is full.
    oldest: usize,
    next: u64,
    losses: VecDeque<Loss>,
    capacity: usize,
}

/// What was noted.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(super) heads: Vec<Head>,
    pub(super) oldest: usize,
    /// The number of the frame that comes next.
    pub(super) next: u64,
    pub(super) losses: VecDeque<Loss>,
}

impl Default for Notes {
    fn default() -> Self {
        Notes::with_capacity(RING / size_of::<Head>())
    }
}

impl Notes {
    /// A ring of so many frames.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Notes {
            heads: Vec::with_capacity(capacity),
            oldest: 0,
            next: 0,
            losses: VecDeque::new(),
            capacity,
        }
    }

    /// Notes a frame from one of so many ports, and gives its number.
    pub(crate) fn saw(
        &mut self,
        (from, ports): (usize, usize),
        frame: &[u8],
        fate: Fate,
        now: Duration,
    ) -> u64 {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let slot = if self.heads.len() < self.capacity {
            self.heads.push(Head::EMPTY);
            self.heads.len() - 1
        } else {
            let slot = self.oldest;
            self.oldest = if slot + 1 == self.capacity {
                0
            } else {
                slot + 1
            };
            slot
        };
        // In place: a head is large to be moved about.
        let head = &mut self.heads[slot];
        head.at = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        head.length = number(frame.len());
        head.from = number(from);
        head.fate = fate;
        head.ports = number(ports);
        match frame.split_first_chunk() {
            Some((kept, rest)) => {
                head.octets = *kept;
                head.rest = sum(rest);
            }
            None => {
                head.octets[..frame.len()].copy_from_slice(frame);
                head.rest = 0;
            }
        }
        self.next += 1;
        self.next - 1
    }

    /// Notes that `count` frames from number `first` on did not get to a port.
    pub(crate) fn lost(&mut self, first: u64, count: u64, port: usize, why: Lost) {
        for frame in first..first + count {
            if self.losses.len() == self.capacity {
                self.losses.pop_front();
            }
            self.losses.push_back(Loss { frame, port, why });
        }
    }

    /// Gives all there is, and goes on with an empty ring.
    pub(crate) fn take(&mut self) -> Taken {
        let fresh = Notes {
            next: self.next,
            ..Notes::with_capacity(self.capacity)
        };
        let full = std::mem::replace(self, fresh);
        Taken {
            heads: full.heads,
            oldest: full.oldest,
            next: full.next,
            losses: full.losses,
        }
    }
}
