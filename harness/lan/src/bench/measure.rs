//! One measurement: frames from one end to the other, with so many on their way at most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::{BenchError, Processor, Rate, Switch, SwitchBenchPlan};
use crate::MacAddr;
use crate::frame::HEADER;

pub(super) const SENDER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 2, 1]);
pub(super) const RECEIVER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 2, 2]);

/// "Local experimental" (IEEE 802, RFC 9542 section 3).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Octets of a frame that are its own: the header and its number.
pub(super) const SHORTEST: usize = HEADER + size_of::<u64>();

/// How many frames may be on their way at once: as many as the ring of a virtio network card has
/// descriptors in QEMU (`tx_queue_size`).
pub(super) const IN_FLIGHT: u64 = 256;

/// A machine's end of a cable.
pub(super) trait End: Send {
    /// Sends one frame.
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()>;
    /// Waits, up to [`STALL`](super::STALL), and takes what one call gives; calls `each` for every frame.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()>;
}

/// Sends from one end to the other. What a process of the switch's own has used so far is told by
/// `elsewhere`.
pub(super) fn run(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    switch: Switch,
    sender: &mut dyn End,
    receiver: &mut dyn End,
    elsewhere: &dyn Fn() -> Duration,
) -> Result<Rate, BenchError> {
    let nothing = || BenchError::NothingDelivered {
        switch,
        frame_bytes,
    };
    // The receiver speaks first, so that its address is learned and nothing is flooded; the frame's
    // arrival proves that both cables work.
    receiver
        .send(&frame(SENDER, RECEIVER, frame_bytes))
        .map_err(|_| nothing())?;
    let mut arrived = false;
    while !arrived {
        sender
            .receive(&mut |frame| arrived |= frame.starts_with(&SENDER.0))
            .map_err(|_| nothing())?;
    }
    let ended = AtomicBool::new(false);
    let window = Window::new(plan.patience);
    let before = (process_time(), elsewhere());
    let started = Instant::now();
    let (sent, by_sender, taken) = thread::scope(|scope| {
        let (ended, window) = (&ended, &window);
        let source = scope.spawn(move || {
            let sent = source(plan, frame_bytes, started, window, sender);
            // More than one, for a switch that loses some.
            let end = end_frame();
            while !ended.load(Ordering::Relaxed) && sender.send(&end).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
            (sent, thread_time())
        });
        let taken = take(frame_bytes, started, window, source.thread(), receiver);
        ended.store(true, Ordering::Relaxed);
        let (sent, by_sender) = source.join().unwrap_or_default();
        (sent, by_sender, taken)
    });
    let inside = process_time().saturating_sub(before.0);
    let outside = elsewhere().saturating_sub(before.1);
    if taken.frames == 0 {
        return Err(nothing());
    }
    let ends = by_sender + taken.by_receiver;
    let processor = Processor {
        sender: by_sender.as_secs_f64(),
        // A switch's thread is one of this process's; nobody else does anything meanwhile.
        switch: (inside.saturating_sub(ends) + outside).as_secs_f64(),
        receiver: taken.by_receiver.as_secs_f64(),
    };
    Ok(Rate::new(
        frame_bytes,
        taken.frames,
        sent.saturating_sub(taken.frames),
        taken.last,
        processor,
    ))
}

/// Sends numbered frames, as many and as long as planned; how many those were.
fn source(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    started: Instant,
    window: &Window,
    sender: &mut dyn End,
) -> u64 {
    let mut sent = 0;
    let mut frame = frame(RECEIVER, SENDER, frame_bytes);
    while sent < plan.frames && (sent % 64 != 0 || started.elapsed() < plan.limit) {
        window.wait_for_room(sent);
        frame[HEADER..SHORTEST].copy_from_slice(&sent.to_be_bytes());
        if sender.send(&frame).is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

/// What the receiver took.
struct Taken {
    frames: u64,
    /// When the last of them came.
    last: Duration,
    by_receiver: Duration,
}

/// Takes frames until the sender says that there are no more.
fn take(
    frame_bytes: usize,
    started: Instant,
    window: &Window,
    sender: &Thread,
    receiver: &mut dyn End,
) -> Taken {
    let (before, marker) = (thread_time(), end_frame());
    let (mut frames, mut last, mut end) = (0, Duration::ZERO, false);
    while !end {
        let mut newest = None;
        let taken = receiver.receive(&mut |frame| {
            end |= frame == marker;
            if frame.len() == frame_bytes && frame[12..HEADER] == ETHERTYPE {
                frames += 1;
                newest = frame[HEADER..].first_chunk().copied();
            }
        });
        if let Some(newest) = newest {
            last = started.elapsed();
            window.seen(u64::from_be_bytes(newest), sender);
        }
        end |= taken.is_err();
    }
    Taken {
        frames,
        last,
        by_receiver: thread_time().saturating_sub(before),
    }
}

/// How many frames are on their way. A switch keeps their order: whatever was sent before the last one
/// seen has arrived, or is lost.
struct Window {
    /// So long nothing arrives of a full window before what is on its way is taken for lost.
    patience: Duration,
    /// One more than the number of the last frame seen.
    seen: AtomicU64,
    /// The sender waits for `seen` to come to this.
    wanted: AtomicU64,
    /// Up to here everything that was not seen is taken for lost.
    given_up: AtomicU64,
}

impl Window {
    fn new(patience: Duration) -> Self {
        Window {
            patience,
            seen: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            given_up: AtomicU64::new(0),
        }
    }

    fn on_the_way(&self, sent: u64) -> u64 {
        let seen = self.seen.load(Ordering::SeqCst);
        let given_up = self.given_up.load(Ordering::SeqCst);
        sent.saturating_sub(seen.max(given_up))
    }

    /// Whoever finds the window full waits until half of it is free, and is woken once for that.
    fn wait_for_room(&self, sent: u64) {
        if self.on_the_way(sent) < IN_FLIGHT {
            return;
        }
        while self.on_the_way(sent) > IN_FLIGHT / 2 {
            self.wanted
                .store(sent.saturating_sub(IN_FLIGHT / 2), Ordering::SeqCst);
            let before = self.on_the_way(sent);
            if before <= IN_FLIGHT / 2 {
                break;
            }
            let waited = Instant::now();
            thread::park_timeout(self.patience);
            if waited.elapsed() >= self.patience && self.on_the_way(sent) == before {
                self.given_up.store(sent, Ordering::SeqCst);
            }
        }
        self.wanted.store(u64::MAX, Ordering::SeqCst);
    }

    fn seen(&self, number: u64, sender: &Thread) {
        self.seen.store(number + 1, Ordering::SeqCst);
        if number + 1 >= self.wanted.load(Ordering::SeqCst) {
            self.wanted.store(u64::MAX, Ordering::SeqCst);
            sender.unpark();
        }
    }
}

pub(super) fn frame(to: MacAddr, from: MacAddr, length: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &ETHERTYPE].concat();
    frame.resize(length, 0xa5);
    frame
}

/// Of another type ("local experimental 2"), so that its length does not matter.
fn end_frame() -> Vec<u8> {
    let mut frame = frame(RECEIVER, SENDER, 60);
    frame[13] = 0xb6;
    frame
}

fn thread_time() -> Duration {
    time(ClockId::ThreadCPUTime)
}

fn process_time() -> Duration {
    time(ClockId::ProcessCPUTime)
}

fn time(clock: ClockId) -> Duration {
    // Neither clock goes below zero.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Condvar, Mutex};

    use super::*;

    /// One way through a switch, which loses the frames for whose number this holds.
    struct Way {
        frames: Mutex<VecDeque<Vec<u8>>>,
        came: Condvar,
        loses: fn(u64) -> bool,
    }

    impl Way {
        fn new(loses: fn(u64) -> bool) -> Arc<Self> {
            Arc::new(Way {
                frames: Mutex::default(),
                came: Condvar::new(),
                loses,
            })
        }
    }

    struct Cable {
        to: Arc<Way>,
        from: Arc<Way>,
        /// The most that waited at once.
        most: usize,
    }

    impl End for Cable {
        fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
            let number = frame[HEADER..].first_chunk().copied();
            let number = number.map_or(0, u64::from_be_bytes);
            let counts = frame[..HEADER].ends_with(&ETHERTYPE);
            if counts && (self.to.loses)(number) {
                return Ok(());
            }
            let mut frames = self.to.frames.lock().unwrap();
            frames.push_back(frame.to_vec());
            // Those that say that there are no more come as long as they are not heard.
            if counts {
                self.most = self.most.max(frames.len());
            }
            self.to.came.notify_one();
            Ok(())
        }

        fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
            let frames = self.from.frames.lock().unwrap();
            let came = &self.from.came;
            let mut frames = came.wait_while(frames, |it| it.is_empty()).unwrap();
            each(&frames.pop_front().unwrap());
            Ok(())
        }
    }

    /// Frames and losses of two thousand, and how many waited at most.
    fn ran(loses: fn(u64) -> bool, patience: Duration) -> (u64, u64, usize) {
        let plan = SwitchBenchPlan {
            frames: 2000,
            limit: Duration::from_secs(600),
            patience,
            ..SwitchBenchPlan::default()
        };
        let (forth, back) = (Way::new(loses), Way::new(|_| false));
        let mut sender = Cable {
            to: Arc::clone(&forth),
            from: Arc::clone(&back),
            most: 0,
        };
        let mut receiver = Cable {
            to: back,
            from: forth,
            most: 0,
        };
        let nobody = || Duration::ZERO;
        let ran = run(&plan, 64, Switch::Ours, &mut sender, &mut receiver, &nobody);
        let rate = ran.unwrap();
        (rate.frames, rate.lost, sender.most)
    }

    #[test]
    fn no_more_frames_are_on_their_way_than_the_window_has() {
        let (frames, lost, most) = ran(|_| false, Duration::from_secs(600));
        assert_eq!((frames, lost), (2000, 0));
        assert!(most <= usize::try_from(IN_FLIGHT).unwrap(), "{most}");
    }

    #[test]
    fn what_is_lost_is_counted_and_ends_nothing() {
        let soon = Duration::from_millis(1);
        let (frames, lost, _) = ran(|number| number % 4 == 0, soon);
        assert_eq!((frames, lost), (1500, 500));
        // No later frame tells of these.
        let (frames, lost, _) = ran(|number| number >= 100, soon);
        assert_eq!((frames, lost), (100, 1900));
    }
}
