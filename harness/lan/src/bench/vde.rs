//! `vde_switch` (VDE 2), between two ends that do what QEMU does with a `vde` netdev: a datagram for
//! each frame, both ways.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{End, run};
use super::{BenchError, Rate, STALL, Switch, SwitchBenchPlan};
use crate::framing::MAX_FRAME;

/// `dir` is an empty folder for its sockets, with a path of less than 80 octets.
pub(super) fn measure(
    plan: &SwitchBenchPlan,
    frame_bytes: usize,
    program: &Path,
    dir: &Path,
) -> Result<Rate, BenchError> {
    let switch = VdeSwitch::start(program, dir)?;
    let mut sender = switch.connect("sender")?;
    let mut receiver = switch.connect("receiver")?;
    let (sender, receiver) = (&mut sender, &mut receiver);
    let used = || switch.used();
    run(
        plan,
        frame_bytes,
        Switch::VdeSwitch,
        sender,
        receiver,
        &used,
    )
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
        let _ = fs::remove_file(&own);
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

    /// The processor time that it has used; it has one thread.
    fn used(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        stat.map_or(Duration::ZERO, |stat| processor_time(&stat))
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

/// User and system time of a `/proc/PID/stat` (proc_pid_stat(5)).
fn processor_time(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / second)
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

    #[test]
    fn user_and_system_time_are_read_whatever_its_name_is() {
        let second = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 {second} {second} 9 9 20 0 1");
        assert_eq!(processor_time(&stat), Duration::from_secs(2));
        assert_eq!(processor_time("debris"), Duration::ZERO);
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
