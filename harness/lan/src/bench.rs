//! The switch measured against `vde_switch` (VDE 2) on the same work, and against itself while it is
//! watched.
//!
//! One thread sends frames into a port, one takes them from another; between them is the switch
//! under test, in its own thread (ours) or process (VDE's). Both sides do to the switch's sockets
//! what QEMU does with its netdevs: `stream` writes once per frame and reads up to 68 KiB at a time,
//! `vde` sends and receives one datagram per frame.
//!
//! The sender sends as fast as the switch takes frames; what counts is what arrives. Frames that a
//! switch drops because the receiver is slower are reported as lost.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::framing::{LENGTH, MAX_FRAME, append, first_frame};
use crate::{Ipv4Net, LanError, MacAddr, Segment, SegmentOptions, SegmentPlan};

const SENDER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 2, 1]);
const RECEIVER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 2, 2]);

/// "Local experimental" (IEEE 802, RFC 9542 section 3).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// How long a switch that loses everything is waited for.
const STALL: Duration = Duration::from_secs(5);

/// What to measure. The default takes some 18 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchBenchPlan {
    /// Frame lengths in octets, without the check sequence, at least 14.
    pub frame_bytes: Vec<usize>,
    /// Frames of each measurement at most.
    pub frames: u64,
    /// Time of each measurement at most.
    pub limit: Duration,
    /// Measurements of each switch with each length, taken in turns; the medians are compared.
    pub rounds: u32,
}

impl Default for SwitchBenchPlan {
    fn default() -> Self {
        SwitchBenchPlan {
            frame_bytes: vec![64, 1500],
            frames: 1_000_000,
            limit: Duration::from_secs(1),
            rounds: 3,
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Frames received.
    pub frames: u64,
    /// Frames sent and not received.
    pub lost: u64,
    /// From the first frame sent to the last received, in seconds.
    pub seconds: f64,
    /// Frames received per second.
    pub frames_per_second: f64,
    /// 10^9 bits of frames received per second.
    pub gigabits_per_second: f64,
}

/// Both switches with frames of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchComparison {
    /// Octets of each frame.
    pub frame_bytes: usize,
    /// Our median measurement.
    pub ours: Rate,
    /// `vde_switch`'s median measurement.
    pub vde_switch: Rate,
    /// Our frames per second, divided by theirs.
    pub ratio: f64,
    /// Our frames per second while the segment is watched, divided by those while it is not: the
    /// median of the rounds' ratios.
    pub watched: f64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchBench {
    /// For each frame length.
    pub comparisons: Vec<SwitchComparison>,
}

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A frame length the segment does not carry.
    #[error("{frame_bytes} octets are no frame; take 14 to {MAX_FRAME}")]
    FrameLength {
        /// The length asked for.
        frame_bytes: usize,
    },
    /// Our segment failed.
    #[error("our segment failed")]
    Segment(#[from] LanError),
    /// `vde_switch` could not be started.
    #[error("cannot start {}; it is in the package vde2", program.display())]
    NoVdeSwitch {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `vde_switch` could not be talked to.
    #[error("vde_switch: cannot {doing}")]
    Vde {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing came through.
    #[error("{switch} delivered no frame of {frame_bytes} octets within {} s", STALL.as_secs())]
    NothingDelivered {
        /// Which switch.
        switch: &'static str,
        /// The frame length.
        frame_bytes: usize,
    },
}

/// Compares our switch with `vde_switch` (the program, `vde_switch` from the path for example).
/// `dir` is an empty folder for its sockets, with a path of less than 80 octets.
///
/// # Errors
/// Any [`BenchError`].
pub fn switch(
    plan: &SwitchBenchPlan,
    vde_switch: &Path,
    dir: &Path,
) -> Result<SwitchBench, BenchError> {
    let mut comparisons = Vec::new();
    for &frame_bytes in &plan.frame_bytes {
        if !(crate::frame::HEADER..=MAX_FRAME).contains(&frame_bytes) {
            return Err(BenchError::FrameLength { frame_bytes });
        }
        let (mut ours, mut theirs, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds.max(1) {
            let unwatched = measure_ours(plan, frame_bytes, false)?;
            let seen = measure_ours(plan, frame_bytes, true)?;
            watched.push(seen.frames_per_second / unwatched.frames_per_second);
            ours.push(unwatched);
            theirs.push(measure_vde(plan, frame_bytes, vde_switch, dir)?);
        }
        watched.sort_by(f64::total_cmp);
        let (ours, vde_switch) = (median(ours), median(theirs));
        comparisons.push(SwitchComparison {
            frame_bytes,
            ours,
            vde_switch,
            ratio: ours.frames_per_second / vde_switch.frames_per_second,
            watched: watched[watched.len() / 2],
        });
    }
    Ok(SwitchBench { comparisons })
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|a, b| a.frames_per_second.total_cmp(&b.frames_per_second));
    rates.swap_remove(rates.len() / 2)
}

fn measure_ours(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    watch: bool,
) -> Result<Rate, BenchError> {
    let segment = Segment::start(
        SegmentPlan {
            subnet: Ipv4Net {
                address: Ipv4Addr::new(172, 30, 0, 0),
                prefix: 24,
            },
            gateway: Ipv4Addr::new(172, 30, 0, 1),
            gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            leases: Vec::new(),
            outside: Ipv4Addr::new(192, 0, 2, 10),
            outside_name: "outside.test".to_owned(),
            unrouted: Vec::new(),
            routes: Vec::new(),
            is_apart: false,
            hosts: Vec::new(),
        },
        SegmentOptions {
            watch,
            ..SegmentOptions::default()
        },
    )?;
    let mut sender = StreamEnd::new(segment.attach("sender")?);
    let mut receiver = StreamEnd::new(segment.attach("receiver")?);
    run(plan, frame_bytes, "our switch", &mut sender, &mut receiver)
}

fn measure_vde(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    program: &Path,
    dir: &Path,
) -> Result<Rate, BenchError> {
    let switch = VdeSwitch::start(program, dir)?;
    let mut sender = switch.connect("sender")?;
    let mut receiver = switch.connect("receiver")?;
    run(plan, frame_bytes, "vde_switch", &mut sender, &mut receiver)
}

/// A machine's end of a cable.
trait End: Send {
    /// Sends one frame.
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()>;
    /// Waits, up to [`STALL`], and takes what one call gives; calls `each` for every frame.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()>;
}

fn run(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    switch: &'static str,
    sender: &mut dyn End,
    receiver: &mut dyn End,
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
    let started = Instant::now();
    let (sent, frames, last) = std::thread::scope(|scope| {
        let ended = &ended;
        let source = scope.spawn(move || {
            let mut sent = 0;
            let frame = frame(RECEIVER, SENDER, frame_bytes);
            while sent < plan.frames && (sent % 64 != 0 || started.elapsed() < plan.limit) {
                if sender.send(&frame).is_err() {
                    break;
                }
                sent += 1;
            }
            // More than one, for a switch that loses some.
            let end = end_frame();
            while !ended.load(Ordering::Relaxed) && sender.send(&end).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let marker = end_frame();
        let (mut frames, mut last, mut end) = (0, Duration::ZERO, false);
        while !end {
            let before = frames;
            let taken = receiver.receive(&mut |frame| {
                frames += u64::from(frame.len() == frame_bytes && frame[12..14] == ETHERTYPE);
                end |= frame == marker;
            });
            if frames > before {
                last = started.elapsed();
            }
            end |= taken.is_err();
        }
        ended.store(true, Ordering::Relaxed);
        (source.join().unwrap_or_default(), frames, last)
    });
    if frames == 0 {
        return Err(nothing());
    }
    let seconds = last.as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a bounded run counts far fewer than 2^52 frames"
    )]
    let frames_per_second = frames as f64 / seconds;
    #[expect(clippy::cast_precision_loss, reason = "a frame has at most 68 KiB")]
    let bits = (frame_bytes * 8) as f64;
    Ok(Rate {
        frames,
        lost: sent.saturating_sub(frames),
        seconds,
        frames_per_second,
        gigabits_per_second: frames_per_second * bits / 1e9,
    })
}

fn frame(to: MacAddr, from: MacAddr, length: usize) -> Vec<u8> {
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

/// A QEMU `stream` netdev.
struct StreamEnd {
    socket: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
}

impl StreamEnd {
    fn new(socket: OwnedFd) -> Self {
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

/// A QEMU `vde` netdev.
struct VdeEnd {
    socket: UnixDatagram,
    input: Vec<u8>,
    /// The switch drops the port when this closes.
    _control: UnixStream,
}

impl End for VdeEnd {
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.socket.send(frame).map(|_| ())
    }

    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        let count = self.socket.recv(&mut self.input)?;
        each(&self.input[..count]);
        Ok(())
    }
}

struct VdeSwitch {
    process: Child,
    dir: PathBuf,
}

impl VdeSwitch {
    fn start(program: &Path, dir: &Path) -> Result<Self, BenchError> {
        let dir = dir.join("vde");
        let process = Command::new(program)
            .arg("--sock")
            .arg(&dir)
            // It ends at the end of its input: it cannot outlive this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| BenchError::NoVdeSwitch {
                program: program.to_owned(),
                source,
            })?;
        Ok(VdeSwitch { process, dir })
    }

    /// Speaks the control protocol (`request_v3` in vde-2's `vde_switch/datasock.c`): request and
    /// reply on a stream socket, then datagrams between two bound sockets.
    fn connect(&self, name: &str) -> Result<VdeEnd, BenchError> {
        let failed = |doing| move |source| BenchError::Vde { doing, source };
        let mut control = self.control().map_err(failed("reach its control socket"))?;
        let own = self.dir.with_extension(name);
        let _ = std::fs::remove_file(&own);
        let socket = UnixDatagram::bind(&own).map_err(failed("bind a data socket"))?;
        control
            .write_all(&request(&own, name))
            .map_err(failed("ask for a port"))?;
        let mut reply = [0; SOCKADDR_UN];
        control
            .read_exact(&mut reply)
            .map_err(failed("read which data socket is its own"))?;
        let path: Vec<u8> = reply[2..]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let path = std::ffi::OsString::from(String::from_utf8_lossy(&path).into_owned());
        socket
            .connect(path)
            .and_then(|()| socket.set_read_timeout(Some(STALL)))
            .map_err(failed("connect to its data socket"))?;
        Ok(VdeEnd {
            socket,
            input: vec![0; MAX_FRAME],
            _control: control,
        })
    }

    fn control(&self) -> std::io::Result<UnixStream> {
        let deadline = Instant::now() + STALL;
        loop {
            match UnixStream::connect(self.dir.join("ctl")) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }
}

impl Drop for VdeSwitch {
    fn drop(&mut self) {
        // At the end of its input it removes its sockets and ends.
        drop(self.process.stdin.take());
        let deadline = Instant::now() + STALL;
        while Instant::now() < deadline {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `struct sockaddr_un` of unix(7).
const SOCKADDR_UN: usize = 2 + 108;

/// Octets of a request's description, with its final zero.
const DESCRIPTION: usize = 128;

/// `struct request_v3`, packed: magic, version, type (`REQ_NEW_CONTROL`, port 0: any), socket
/// address, description.
fn request(own: &Path, name: &str) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(0xfeed_face_u32.to_ne_bytes());
    request.extend(3u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    // AF_UNIX
    request.extend(1u16.to_ne_bytes());
    let path = own.as_os_str().as_encoded_bytes();
    request.extend(path);
    request.resize(12 + SOCKADDR_UN, 0);
    request.extend(name.as_bytes());
    request.resize(12 + SOCKADDR_UN + DESCRIPTION, 0);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> SwitchBenchPlan {
        SwitchBenchPlan {
            frames: 2000,
            rounds: 1,
            ..SwitchBenchPlan::default()
        }
    }

    #[test]
    fn our_switch_delivers_every_frame_of_a_bounded_run() {
        for frame_bytes in [14, 64, 1500, MAX_FRAME] {
            let plan = SwitchBenchPlan {
                frames: 50,
                ..short()
            };
            for watch in [false, true] {
                let rate = measure_ours(&plan, frame_bytes, watch).unwrap();
                assert_eq!((rate.frames, rate.lost), (50, 0), "{frame_bytes} {watch}");
            }
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let error = switch(&short(), Path::new("no-vde-here"), dir.path()).unwrap_err();
        insta::assert_snapshot!(error, @"cannot start no-vde-here; it is in the package vde2");
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_anything_starts() {
        for frame_bytes in [13, MAX_FRAME + 1] {
            let plan = SwitchBenchPlan {
                frame_bytes: vec![frame_bytes],
                ..short()
            };
            let error = switch(&plan, Path::new("no-vde-here"), Path::new("/")).unwrap_err();
            assert!(matches!(error, BenchError::FrameLength { .. }), "{error}");
        }
    }

    #[test]
    fn a_request_has_the_layout_of_vde() {
        let request = request(Path::new("/d/own"), "sender");
        assert_eq!(request.len(), 4 + 4 + 4 + 110 + 128);
        assert_eq!(request[..4], 0xfeed_face_u32.to_ne_bytes());
        assert_eq!(request[14..21], *b"/d/own\0");
        assert_eq!(request[122..129], *b"sender\0");
    }
}
