//! Our switch, between two ends that do what QEMU does with a `stream` netdev: they write once for each
//! frame, and read up to 68 KiB at a time.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::measure::{End, run};
use super::{BenchError, Rate, STALL, Switch, SwitchBenchPlan};
use crate::framing::{LENGTH, MAX_FRAME, append, first_frame};
use crate::{LanError, Segment, SegmentOptions, SegmentPlan};

pub(super) fn measure(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    watch: bool,
) -> Result<Rate, BenchError> {
    let segment = segment(watch)?;
    let mut sender = StreamEnd::new(segment.attach("sender")?);
    let mut receiver = StreamEnd::new(segment.attach("receiver")?);
    let (sender, receiver) = (&mut sender, &mut receiver);
    run(plan, frame_bytes, Switch::Ours, sender, receiver, &|| {
        Duration::ZERO
    })
}

/// A segment for two ends.
pub(super) fn segment(watch: bool) -> Result<Segment, LanError> {
    Segment::start(
        SegmentPlan {
            leases: Vec::new(),
            unrouted: Vec::new(),
            ..crate::plan::example()
        },
        SegmentOptions {
            watch,
            ..SegmentOptions::default()
        },
    )
}

/// A QEMU `stream` netdev.
pub(super) struct StreamEnd {
    socket: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
}

impl StreamEnd {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let socket = UnixStream::from(socket);
        // Only a limit of zero is refused.
        let _ = socket.set_read_timeout(Some(STALL));
        StreamEnd {
            socket,
            out: Vec::new(),
            input: vec![0; LENGTH + MAX_FRAME],
            filled: 0,
        }
    }
}

impl End for StreamEnd {
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.out.clear();
        append(&mut self.out, frame);
        self.socket.write_all(&self.out)
    }

    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        let count = self.socket.read(&mut self.input[self.filled..])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += count;
        let mut at = 0;
        while let Ok(Some(frame)) = first_frame(&self.input[at..self.filled]) {
            at += LENGTH + frame.len();
            each(frame);
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_delivers_every_frame_of_a_bounded_run() {
        let plan = SwitchBenchPlan {
            frames: 50,
            ..SwitchBenchPlan::default()
        };
        for frame_bytes in [super::super::measure::SHORTEST, 64, 1500, MAX_FRAME] {
            for watch in [false, true] {
                let rate = measure(&plan, frame_bytes, watch).unwrap();
                assert_eq!((rate.frames, rate.lost), (50, 0), "{frame_bytes} {watch}");
            }
        }
    }
}
