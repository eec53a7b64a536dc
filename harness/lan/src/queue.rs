//! Frames on their way to one port: a bounded queue of framed octets, so that any number of them
//! leaves with one write.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::framing::{LENGTH, first_frame};

/// A port's queue. Whole frames enter; octets leave, as many as the socket takes.
#[derive(Debug)]
pub(crate) struct SendQueue {
    bytes: VecDeque<u8>,
    limit: usize,
    /// Octets still to go of a frame that the socket took only in part. The rest of the queue
    /// begins with a length.
    partial: usize,
}

/// What entered and what did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
}

impl SendQueue {
    /// A queue of at most `limit` octets, lengths included.
    pub(crate) fn new(limit: usize) -> Self {
        SendQueue {
            bytes: VecDeque::new(),
            limit,
            partial: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes `count` framed frames; those that do not fit are dropped, the later ones first.
    pub(crate) fn push(&mut self, run: &[u8], count: u64) -> Pushed {
        if self.bytes.len() + run.len() <= self.limit {
            self.bytes.extend(run);
            return Pushed {
                frames: count,
                bytes: run.len() as u64 - count * LENGTH as u64,
                dropped: 0,
            };
        }
        let room = self.limit.saturating_sub(self.bytes.len());
        let (mut end, mut frames) = (0, 0);
        while let Ok(Some(frame)) = first_frame(&run[end..]) {
            let next = end + LENGTH + frame.len();
            if next > room {
                break;
            }
            end = next;
            frames += 1;
        }
        self.bytes.extend(&run[..end]);
        Pushed {
            frames,
            bytes: end as u64 - frames * LENGTH as u64,
            dropped: count - frames,
        }
    }

    /// Takes framed frames that a bounded memory held before, whatever the limit.
    pub(crate) fn restore(&mut self, run: &[u8]) {
        self.bytes.extend(run);
    }

    /// What to write next.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        let (head, tail) = self.bytes.as_slices();
        [IoSlice::new(head), IoSlice::new(tail)]
    }

    /// Forgets the first `count` octets: they were written.
    pub(crate) fn consume(&mut self, count: usize) {
        if count == self.bytes.len() {
            self.partial = 0;
            self.bytes.clear();
            return;
        }
        let mut at = self.partial;
        while at < count {
            at += LENGTH + self.length_at(at);
        }
        self.partial = at - count;
        self.bytes.drain(..count);
    }

    /// All that waits, in one piece.
    pub(crate) fn contiguous(&mut self) -> &[u8] {
        self.bytes.make_contiguous()
    }

    /// Empties the queue and gives its frames; one that was written in part is lost with the
    /// connection it was written to.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let frames = self.frames();
        self.bytes.clear();
        self.partial = 0;
        frames
    }

    /// The frames of which nothing was written yet.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut at = self.partial;
        while at < self.bytes.len() {
            let start = at + LENGTH;
            let end = start + self.length_at(at);
            frames.push(self.bytes.range(start..end).copied().collect());
            at = end;
        }
        frames
    }

    fn length_at(&self, at: usize) -> usize {
        self.bytes
            .range(at..at + LENGTH)
            .fold(0, |length, byte| length << 8 | usize::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::append;

    fn run(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            append(&mut out, frame);
        }
        out
    }

    fn written(queue: &mut SendQueue, count: usize) -> Vec<u8> {
        let bytes: Vec<u8> = queue
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        queue.consume(count);
        bytes[..count].to_vec()
    }

    #[test]
    fn what_does_not_fit_is_dropped_whole() {
        let frames = [vec![1; 30], vec![2; 30], vec![3; 30]];
        let mut queue = SendQueue::new(70);
        let pushed = queue.push(&run(&frames), 3);
        assert_eq!(
            pushed,
            Pushed {
                frames: 2,
                bytes: 60,
                dropped: 1
            }
        );
        assert_eq!(queue.frames(), frames[..2]);
        assert_eq!(queue.push(&run(&frames[2..]), 1).dropped, 1);
    }

    #[test]
    fn a_frame_written_in_part_is_not_given_back() {
        let frames = [vec![1; 30], vec![2; 30], vec![3; 30]];
        let mut queue = SendQueue::new(1000);
        queue.push(&run(&frames), 3);
        queue.consume(40);
        assert_eq!(queue.take(), frames[2..]);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn octets_leave_in_order_and_frames_stay_whole(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40),
            steps in prop::collection::vec((1usize..6, 0usize..700), 1..60),
        ) {
            let limit = 2000;
            let mut queue = SendQueue::new(limit);
            let mut accepted = Vec::new();
            let mut out = Vec::new();
            let mut source = frames.iter().cycle();
            for (pushes, take) in steps {
                let batch: Vec<_> = source.by_ref().take(pushes).cloned().collect();
                let pushed = queue.push(&run(&batch), pushes as u64);
                prop_assert_eq!(pushed.frames + pushed.dropped, pushes as u64);
                accepted.extend(batch.into_iter().take(usize::try_from(pushed.frames).unwrap()));
                let size: usize = queue.slices().iter().map(|slice| slice.len()).sum();
                prop_assert!(size <= limit);
                out.extend(written(&mut queue, take.min(size)));
            }
            let left = queue.frames();
            prop_assert_eq!(&accepted[accepted.len() - left.len()..], &left[..]);
            let size: usize = queue.slices().iter().map(|slice| slice.len()).sum();
            out.extend(written(&mut queue, size));
            prop_assert_eq!(out, run(&accepted));
        }
    }
}
