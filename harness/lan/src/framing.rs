//! Frames in a byte stream, as QEMU's `-netdev stream` sends them: a length (32 bits, big-endian),
//! then that many octets (QEMU `net/stream.c`, `net_fill_rstate` in `net/net.c`).

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Octets of the length before each frame.
pub(crate) const LENGTH: usize = 4;

/// The longest frame QEMU sends or takes: `NET_BUFSIZE` of `include/net/net.h`, 4 KiB + 64 KiB.
pub(crate) const MAX_FRAME: usize = 4096 + 65536;

/// How much one read takes from a port.
pub(crate) const READ: usize = 256 * 1024;

/// A length beyond [`MAX_FRAME`]: where the next frame begins is no longer known. QEMU ends the
/// connection in this case, and so does the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oversized {
    /// The length that was announced.
    pub(crate) length: u32,
}

/// The first frame in `bytes`, without its length; `None` while it is not complete.
pub(crate) fn first_frame(bytes: &[u8]) -> Result<Option<&[u8]>, Oversized> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    if length as usize > MAX_FRAME {
        return Err(Oversized { length });
    }
    Ok(rest.get(..length as usize))
}

/// Appends a frame with its length.
pub(crate) fn append(out: &mut Vec<u8>, frame: &[u8]) {
    let start = begin(out, frame.len());
    out[start..].copy_from_slice(frame);
}

/// Appends the length of a frame and as many zero octets, and says where these begin.
pub(crate) fn begin(out: &mut Vec<u8>, length: usize) -> usize {
    debug_assert!(length <= MAX_FRAME);
    let prefix = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&prefix.to_be_bytes());
    let start = out.len();
    out.resize(start + length, 0);
    start
}

/// What a port has sent and the switch has not yet taken: complete frames, then perhaps a part of
/// one more.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: Box<[u8]>,
    filled: usize,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The socket had more than fitted.
    More,
    /// The socket is empty now.
    Drained,
    /// The other end is closed.
    Closed,
}

impl FrameBuffer {
    pub(crate) fn new() -> Self {
        FrameBuffer {
            // The part of a frame that a batch leaves behind never takes a read's room.
            bytes: vec![0; READ + LENGTH + MAX_FRAME].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Reads once.
    pub(crate) fn fill(&mut self, from: impl AsFd) -> Filled {
        let room = self.room();
        let size = room.len();
        match rustix::io::read(from, room) {
            Ok(0) => Filled::Closed,
            Ok(count) => {
                self.grow(count);
                if count == size {
                    Filled::More
                } else {
                    Filled::Drained
                }
            }
            Err(Errno::AGAIN) => Filled::Drained,
            Err(Errno::INTR) => Filled::More,
            Err(_) => Filled::Closed,
        }
    }

    /// Where what comes next is written.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Keeps the first `count` octets that were written to the [room](FrameBuffer::room).
    pub(crate) fn grow(&mut self, count: usize) {
        self.filled += count;
    }

    /// All that was read and not yet [taken](FrameBuffer::consume).
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Forgets the first `count` octets.
    pub(crate) fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            append(&mut out, frame);
        }
        out
    }

    fn take_all(buffer: &mut FrameBuffer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(frame) = first_frame(&buffer.bytes()[at..]).unwrap() {
            at += LENGTH + frame.len();
            frames.push(frame.to_vec());
        }
        buffer.consume(at);
        frames
    }

    #[test]
    fn a_length_of_zero_is_an_empty_frame() {
        assert_eq!(first_frame(&[0, 0, 0, 0, 9]), Ok(Some(&[][..])));
    }

    #[test]
    fn an_incomplete_frame_waits() {
        assert_eq!(first_frame(&[]), Ok(None));
        assert_eq!(first_frame(&[0, 0, 0]), Ok(None));
        assert_eq!(first_frame(&[0, 0, 0, 2, 7]), Ok(None));
        assert_eq!(first_frame(&[0, 0, 0, 2, 7, 8]), Ok(Some(&[7, 8][..])));
    }

    #[test]
    fn the_longest_frame_passes_and_one_octet_more_does_not() {
        let longest = vec![5; MAX_FRAME];
        assert_eq!(
            first_frame(&framed(std::slice::from_ref(&longest))),
            Ok(Some(&longest[..]))
        );
        let length = u32::try_from(MAX_FRAME).unwrap() + 1;
        assert_eq!(
            first_frame(&length.to_be_bytes()),
            Err(Oversized { length })
        );
    }

    proptest! {
        #[test]
        fn frames_survive_any_partition_into_writes(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20),
            cuts in prop::collection::vec(1usize..5000, 1..40),
        ) {
            let (mut sender, receiver) = UnixStream::pair().unwrap();
            receiver.set_nonblocking(true).unwrap();
            let stream = framed(&frames);
            let mut buffer = FrameBuffer::new();
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                sender.write_all(now).unwrap();
                rest = later;
                prop_assert_eq!(buffer.fill(&receiver), Filled::Drained);
                seen.extend(take_all(&mut buffer));
            }
            drop(sender);
            // Another test's child may have inherited the socket for the moment until it executes.
            receiver.set_nonblocking(false).unwrap();
            prop_assert_eq!(buffer.fill(&receiver), Filled::Closed);
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.bytes().is_empty());
        }
    }
}
