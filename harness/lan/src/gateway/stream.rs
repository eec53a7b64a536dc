//! A connection's end outside the segment's thread, and what the two share.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::mailbox::{Command, Mailbox};

/// Octets that wait in either direction between the stream and the TCP socket.
pub(super) const PIPE: usize = 256 * 1024;

/// Why no more octets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has sent all it had.
    Finished,
    /// The peer reset the connection.
    Reset,
    /// The segment has stopped.
    Stopped,
}

impl End {
    fn error(self) -> io::Error {
        match self {
            End::Finished => io::ErrorKind::BrokenPipe.into(),
            End::Reset => io::ErrorKind::ConnectionReset.into(),
            End::Stopped => io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the segment has stopped, and its connections with it",
            ),
        }
    }
}

/// What a stream and its TCP socket share.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// From the machine.
    pub(super) received: VecDeque<u8>,
    /// No more comes after `received`.
    pub(super) end: Option<End>,
    /// To the machine.
    pub(super) sending: VecDeque<u8>,
    /// Why no more octets go. A peer that has sent all it had may still receive, and may still
    /// reset.
    broken: Option<End>,
    /// Nothing comes after `sending`.
    pub(super) shut: bool,
    /// The stream was dropped.
    pub(super) dropped: bool,
    /// The thread has been told to look and has not yet looked.
    pub(super) nudged: bool,
    /// The thread had more than fitted into `received`.
    pub(super) stalled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.wake_reader();
        }
    }

    pub(super) fn break_off(&mut self, end: End) {
        if self.broken.is_none() {
            self.broken = Some(end);
            self.wake_writer();
        }
    }
}

pub(super) type SharedPipe = Arc<Mutex<Pipe>>;

pub(super) fn lock(pipe: &SharedPipe) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections of machines at a port of the gateway's. Dropping it closes the port; connections that were
/// accepted stay.
#[derive(Debug)]
pub struct SegmentListener {
    accepted: mpsc::Receiver<SegmentStream>,
}

impl SegmentListener {
    pub(super) fn new(accepted: mpsc::Receiver<SegmentStream>) -> Self {
        SegmentListener { accepted }
    }

    /// The next connection; none when the segment has stopped.
    pub async fn accept(&mut self) -> Option<SegmentStream> {
        self.accepted.recv().await
    }
}

/// A TCP connection between the gateway and a machine.
///
/// Shutting it down sends all that was written and then FIN. Dropping it without that resets the
/// connection, so that nothing of it stays on the machine.
#[derive(Debug)]
pub struct SegmentStream {
    pipe: SharedPipe,
    mailbox: Mailbox,
}

impl SegmentStream {
    pub(super) fn new(pipe: SharedPipe, mailbox: Mailbox) -> Self {
        SegmentStream { pipe, mailbox }
    }

    fn nudge(&self, mut pipe: MutexGuard<'_, Pipe>) {
        if !std::mem::replace(&mut pipe.nudged, true) {
            drop(pipe);
            // A stopped segment has ended the pipe already.
            let _ = self.mailbox.send(Command::Nudge);
        }
    }
}

impl AsyncRead for SegmentStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.pipe);
        if pipe.received.is_empty() {
            return match pipe.end {
                None => {
                    pipe.reader = Some(context.waker().clone());
                    Poll::Pending
                }
                Some(End::Finished) => Poll::Ready(Ok(())),
                Some(end) => Poll::Ready(Err(end.error())),
            };
        }
        let (head, _) = pipe.received.as_slices();
        let count = head.len().min(buffer.remaining());
        buffer.put_slice(&head[..count]);
        pipe.received.drain(..count);
        if pipe.stalled && pipe.received.len() <= PIPE / 2 {
            pipe.stalled = false;
            self.nudge(pipe);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SegmentStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.pipe);
        if pipe.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(end) = pipe.broken {
            return Poll::Ready(Err(end.error()));
        }
        let count = PIPE.saturating_sub(pipe.sending.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        pipe.sending.extend(&bytes[..count]);
        self.nudge(pipe);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.pipe);
        pipe.shut = true;
        self.nudge(pipe);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SegmentStream {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.dropped = true;
        self.nudge(pipe);
    }
}
