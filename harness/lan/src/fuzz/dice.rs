//! Chance that comes back with its seed.

use std::time::Duration;

pub(super) struct Dice(fastrand::Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(fastrand::Rng::with_seed(seed))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }

    pub(super) fn short(&mut self) -> u16 {
        self.0.u16(..)
    }

    pub(super) fn long(&mut self) -> u32 {
        self.0.u32(..)
    }

    /// A number less than `bound`, or 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound.max(1))
    }

    pub(super) fn percent(&mut self, of_hundred: u32) -> bool {
        self.0.u32(..100) < of_hundred
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.0.u32(..count) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Appends `count` octets.
    pub(super) fn octets(&mut self, out: &mut Vec<u8>, count: usize) {
        let start = out.len();
        out.resize(start + count, 0);
        let (words, rest) = out[start..].as_chunks_mut::<8>();
        for word in words {
            *word = self.word().to_ne_bytes();
        }
        for octet in rest {
            *octet = self.byte();
        }
    }

    /// Appends up to `most` octets.
    pub(super) fn some_octets(&mut self, out: &mut Vec<u8>, most: usize) {
        let count = self.below(most + 1);
        self.octets(out, count);
    }

    /// How long it is until the next input: usually a moment, sometimes longer than what is waited
    /// for or remembered.
    pub(super) fn pause(&mut self) -> Duration {
        let micros = match self.below(1024) {
            0 => 400_000_000,
            1..=15 => 10_000_000,
            _ => 2000,
        };
        Duration::from_micros(self.0.u64(..micros))
    }
}
