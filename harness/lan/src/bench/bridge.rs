//! Taps on a Linux bridge, between two ends that do what QEMU does with a `tap` netdev without vhost: a
//! system call for each frame, both ways.
//!
//! The bridge stands in a network namespace (network_namespaces(7)) that nothing else is in: the host's
//! network is not touched, and the namespace goes with the taps.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::measure::{End, run};
use super::{BenchError, Rate, STALL, Switch, SwitchBenchPlan};
use crate::framing::MAX_FRAME;

const TAPS: [&str; 2] = ["sender", "receiver"];

/// What `ip -batch` makes of them: no interface has anything of its own to say.
const BRIDGE: &str = "\
link add bridge type bridge stp_state 0 mcast_snooping 0
link set bridge addrgenmode none
link set bridge up
link set sender addrgenmode none
link set sender master bridge up
link set receiver addrgenmode none
link set receiver master bridge up
";

/// Measures a bridge that [`bridge`] has made.
pub(super) fn measure(plan: &SwitchBenchPlan, frame_bytes: usize) -> Result<Rate, BenchError> {
    let [sender, receiver] = bridge()?;
    let (mut sender, mut receiver) = (TapEnd::new(sender), TapEnd::new(receiver));
    let (sender, receiver) = (&mut sender, &mut receiver);
    // Bridging is done in the system calls of those who send.
    let used = || Duration::ZERO;
    run(plan, frame_bytes, Switch::Bridge, sender, receiver, &used)
}

/// Two taps on a bridge.
///
/// # Errors
/// [`BenchError::NoBridge`].
pub(super) fn bridge() -> Result<[OwnedFd; 2], BenchError> {
    thread::scope(|scope| {
        // The thread is the only one in the namespace, and ends.
        let made = scope.spawn(made).join();
        made.unwrap_or_else(|_| Err(failed("make it")(Errno::CANCELED.into())))
    })
}

fn failed(doing: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
    move |source| BenchError::NoBridge { doing, source }
}

fn made() -> Result<[OwnedFd; 2], BenchError> {
    leave_the_network().map_err(failed("leave the host's network"))?;
    let [sender, receiver] = TAPS.map(|name| tap(name).map_err(failed("open a tap")));
    let taps = [sender?, receiver?];
    ip(BRIDGE).map_err(failed("set up a bridge with ip(8)"))?;
    Ok(taps)
}

/// Puts the calling thread into a new network namespace.
#[expect(unsafe_code, reason = "rustix has only an unsafe unshare")]
fn leave_the_network() -> std::io::Result<()> {
    // SAFETY: no table of descriptors is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// `struct ifreq` of netdevice(7), as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens a tap in the namespace of the calling thread (tun/tap of the kernel's documentation).
#[expect(unsafe_code, reason = "no safe wrapper of TUNSETIFF exists")]
fn tap(name: &str) -> std::io::Result<OwnedFd> {
    /// `_IOW('T', 202, int)` of `linux/if_tun.h`.
    const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
    /// `IFF_TAP | IFF_NO_PI`.
    const FLAGS: u16 = 0x0002 | 0x1000;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = Request {
        name: [0; 16],
        flags: FLAGS,
        rest: [0; 22],
    };
    let bytes = name.bytes().take(request.name.len() - 1);
    for (to, from) in request.name.iter_mut().zip(bytes) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, which is what the request is.
    unsafe {
        let update = rustix::ioctl::Updater::<TUNSETIFF, _>::new(&mut request);
        rustix::ioctl::ioctl(&tap, update)
    }?;
    Ok(tap)
}

/// Runs `ip -batch` in the namespace of the calling thread.
fn ip(commands: &str) -> std::io::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(said.trim().to_owned()))
}

/// A QEMU `tap` netdev.
struct TapEnd {
    tap: std::fs::File,
    input: Vec<u8>,
}

impl TapEnd {
    fn new(tap: OwnedFd) -> Self {
        TapEnd {
            tap: tap.into(),
            input: vec![0; MAX_FRAME],
        }
    }
}

impl End for TapEnd {
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.tap.write_all(frame)
    }

    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        loop {
            match self.tap.read(&mut self.input) {
                Ok(count) => {
                    each(&self.input[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let mut wanted = [PollFd::new(&self.tap, PollFlags::IN)];
            let limit = Timespec::try_from(STALL).map_err(std::io::Error::other)?;
            if poll(&mut wanted, Some(&limit))? == 0 {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever may not make one is told what it takes.
    #[test]
    fn a_bridge_delivers_every_frame_or_says_what_it_needs() {
        let plan = SwitchBenchPlan {
            frames: 50,
            ..SwitchBenchPlan::default()
        };
        match bridge() {
            Ok(taps) => {
                drop(taps);
                for frame_bytes in [64, 1500] {
                    let rate = measure(&plan, frame_bytes).unwrap();
                    assert_eq!((rate.frames, rate.lost), (50, 0), "{frame_bytes}");
                }
            }
            Err(error) => {
                let told = error.to_string();
                println!("not tried: {told}: {:?}", std::error::Error::source(&error));
                assert!(told.contains("CAP_NET_ADMIN"), "{told}");
            }
        }
    }
}
