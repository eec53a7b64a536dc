//! What host and agent say to each other.
//!
//! A message is encoded by postcard and framed by COBS (Cheshire and Baker, 1999): no frame holds a
//! zero byte, and one ends each. A stream that was cut in the middle of a frame, by a reset of the
//! guest for one, is in step again at the next zero.
//!
//! The host opens a session with [`ToGuest::Hello`]. It ends what the session before had begun, and
//! until the first one the agent ignores everything: what was sent to a guest that has rebooted
//! meanwhile is not carried out by the one that came up.

use serde::{Deserialize, Serialize};

/// Bytes of a chunk of input or output at most.
pub const CHUNK: usize = 32 << 10;

/// Input bytes that may be on their way without the agent having said that they were taken.
pub const WINDOW: usize = 8 * CHUNK;

/// Bytes of an encoded frame at most; a longer one is no message of ours. A command line may be as
/// long as Linux lets one argument be (128 KiB, execve(2)).
pub const FRAME: usize = 256 << 10;

/// Which request of a session a message is about.
pub type RequestId = u32;

/// From the host to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// A session begins; the number is repeated in the answer.
    Hello {
        /// Drawn at random by the host.
        session: u64,
    },
    /// Run a command line in root's shell, with what [`ToGuest::Input`] brings as its input.
    Run {
        /// The request.
        id: RequestId,
        /// The command line.
        command: String,
    },
    /// Write what [`ToGuest::Input`] brings to a file, which is in its place when that has ended.
    /// Its folder is made when there is none.
    Write {
        /// The request.
        id: RequestId,
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// The next bytes of a request's input.
    Input {
        /// The request.
        id: RequestId,
        /// At most [`CHUNK`].
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A request's input has ended.
    End {
        /// The request.
        id: RequestId,
    },
    /// Nobody waits for a request any more: its processes are killed, its file is not written.
    Kill {
        /// The request.
        id: RequestId,
    },
}

/// From the agent to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The agent has started: the guest booted, or the agent ended before. It waits for a
    /// [`ToGuest::Hello`].
    Started,
    /// A session has begun.
    Hello {
        /// The host's number.
        session: u64,
        /// The kernel's boot id, as processes of the guest see it.
        boot_id: String,
    },
    /// A command has read, or a file has been given, that many bytes more of its input.
    Taken {
        /// The request.
        id: RequestId,
        /// How many.
        bytes: u32,
    },
    /// A command has printed something.
    Output {
        /// The request.
        id: RequestId,
        /// Where to.
        stream: Stream,
        /// At most [`CHUNK`].
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A request is over; nothing more comes of it.
    Ended {
        /// The request.
        id: RequestId,
        /// How.
        end: End,
    },
}

/// Where a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// A command exited, or a file was written (0).
    Code(i32),
    /// A signal of this number ended the command.
    Signal(i32),
    /// The guest could not do it: no process could be started, the file cannot be written.
    Refused(String),
}

impl ToHost {
    /// The request that it is about, if it is about one.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Started | Self::Hello { .. } => None,
            Self::Taken { id, .. } | Self::Output { id, .. } | Self::Ended { id, .. } => Some(*id),
        }
    }
}

/// A message as a frame, with the zero that ends it.
///
/// # Errors
/// When it does not fit into [`FRAME`] bytes.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, TooLong> {
    match postcard::to_stdvec_cobs(message) {
        Ok(frame) if frame.len() <= FRAME => Ok(frame),
        // A message of plain data can always be encoded.
        Ok(frame) => Err(TooLong(frame.len())),
        Err(_) => Err(TooLong(0)),
    }
}

/// A message that is longer than any frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(usize);

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a message of {} bytes; {FRAME} are the most", self.0)
    }
}

impl std::error::Error for TooLong {}

/// Finds the messages in a stream of bytes, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    frame: Vec<u8>,
    /// The present frame is too long to be one.
    overlong: bool,
}

impl Decoder {
    /// Takes the next bytes, and gives the messages that end in them. What is no message is skipped:
    /// the rest of one whose beginning was lost, for one.
    pub fn feed<T: for<'de> Deserialize<'de>>(&mut self, mut bytes: &[u8]) -> Vec<T> {
        let mut messages = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            self.take(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let whole = !std::mem::take(&mut self.overlong) && !self.frame.is_empty();
            if whole && let Ok(message) = postcard::from_bytes_cobs(&mut self.frame) {
                messages.push(message);
            }
            self.frame.clear();
        }
        self.take(bytes);
        messages
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.overlong || self.frame.len() + bytes.len() > FRAME {
            self.overlong = true;
            self.frame.clear();
        } else {
            self.frame.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = ToHost> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..600);
        let end = prop_oneof![
            any::<i32>().prop_map(End::Code),
            any::<i32>().prop_map(End::Signal),
            ".*".prop_map(End::Refused),
        ];
        prop_oneof![
            Just(ToHost::Started),
            (any::<u64>(), ".*").prop_map(|(session, boot_id)| ToHost::Hello { session, boot_id }),
            (any::<u32>(), any::<u32>()).prop_map(|(id, bytes)| ToHost::Taken { id, bytes }),
            (any::<u32>(), bytes()).prop_map(|(id, bytes)| ToHost::Output {
                id,
                stream: Stream::Stderr,
                bytes,
            }),
            (any::<u32>(), end).prop_map(|(id, end)| ToHost::Ended { id, end }),
        ]
    }

    proptest! {
        #[test]
        fn messages_arrive_however_the_stream_is_cut(
            messages in proptest::collection::vec(message(), 0..6),
            piece in 1_usize..700,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
            let mut decoder = Decoder::default();
            let pieces = stream.chunks(piece);
            let came: Vec<ToHost> = pieces.flat_map(|piece| decoder.feed(piece)).collect();
            prop_assert_eq!(came, messages);
        }

        #[test]
        fn a_stream_that_begins_anywhere_is_in_step_at_the_next_message(
            lost in message(),
            cut in any::<prop::sample::Index>(),
            next in message(),
        ) {
            let lost = encode(&lost).unwrap();
            let rest = &lost[cut.index(lost.len())..lost.len() - 1];
            // What begins anew says so with a zero.
            let stream = [rest, &[0], &encode(&next).unwrap()].concat();
            let came: Vec<ToHost> = Decoder::default().feed(&stream);
            prop_assert_eq!(came.last(), Some(&next));
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _: Vec<ToGuest> = Decoder::default().feed(&bytes);
        }
    }

    #[test]
    fn a_frame_without_an_end_takes_no_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..1000 {
            assert!(decoder.feed::<ToHost>(&[7; 4096]).is_empty());
        }
        assert!(decoder.frame.capacity() <= 2 * FRAME);
        let next = encode(&ToHost::Started).unwrap();
        let came: Vec<ToHost> = decoder.feed(&[&[0], next.as_slice()].concat());
        assert_eq!(came, [ToHost::Started]);
    }

    #[test]
    fn a_message_longer_than_a_frame_is_refused() {
        let command = "x".repeat(FRAME);
        let error = encode(&ToGuest::Run { id: 1, command }).unwrap_err();
        assert!(
            error.to_string().ends_with("262144 are the most"),
            "{error}"
        );
    }
}
