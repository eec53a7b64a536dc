//! What the tests attach to a segment: a bare cable, and a small host with TCP services.

#![expect(dead_code, reason = "each test binary uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use podwire_lan::{Ipv4Net, Lease, MacAddr, NetworkPlan, SegmentPlan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

/// For what comes at once, on a machine however busy.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn plan() -> SegmentPlan {
    SegmentPlan {
        subnet: Ipv4Net {
            address: Ipv4Addr::new(172, 30, 0, 0),
            prefix: 24,
        },
        gateway: Ipv4Addr::new(172, 30, 0, 1),
        gateway_mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        leases: (1..=3)
            .map(|n| Lease {
                mac: mac(n),
                address: address(n),
                host_name: format!("node{n}"),
            })
            .collect(),
        outside: Ipv4Addr::new(192, 0, 2, 10),
        outside_name: "outside.test".to_owned(),
        unrouted: vec![],
        routes: vec![],
        is_apart: false,
        hosts: vec![],
    }
}

/// The usual segment as the second one.
pub(crate) fn as_second() -> NetworkPlan {
    let first = SegmentPlan {
        subnet: Ipv4Net {
            address: Ipv4Addr::new(172, 30, 1, 0),
            prefix: 24,
        },
        gateway: Ipv4Addr::new(172, 30, 1, 1),
        leases: vec![],
        ..plan()
    };
    NetworkPlan {
        segments: vec![first, plan()],
    }
}

pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 1, n])
}

pub(crate) fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + n)
}

/// A frame of a type that only tests use.
pub(crate) fn frame(to: MacAddr, from: MacAddr, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &[0x88, 0xb5], payload].concat()
}

/// A machine's end of a cable, by hand.
#[derive(Debug)]
pub(crate) struct Cable(UnixStream);

impl Cable {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Cable(socket)
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        self.send_raw(&[&length.to_be_bytes()[..], frame].concat());
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&mut self) -> bool {
        let short = Duration::from_millis(100);
        self.0.set_read_timeout(Some(short)).unwrap();
        let result = self.0.read_exact(&mut [0]);
        self.0.set_read_timeout(Some(LONG)).unwrap();
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the switch has hung up.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

/// Gives back what it gets; closes when the client has.
pub(crate) const ECHO: u16 = 7;
/// Takes everything, then says how many octets it was, and closes.
pub(crate) const COUNT: u16 = 9;

/// Resets the connection once something comes.
pub(crate) const RESET: u16 = 10;

/// Says [`SAID`], and closes.
pub(crate) const SOURCE: u16 = 19;
/// Octets: more than all buffers on the way hold.
pub(crate) const SAID: usize = 3 * 1024 * 1024;

/// Takes nothing from its socket.
pub(crate) const DEAF: u16 = 20;

const PORTS: [u16; 5] = [ECHO, COUNT, RESET, SOURCE, DEAF];

/// How many connections to each of them at once.
pub(crate) const SERVERS: usize = 48;

pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(octet).collect()
}

fn octet(n: usize) -> u8 {
    (n % 251).to_le_bytes()[0]
}

/// A host with TCP services, on a thread of its own.
pub(crate) struct Host {
    stop: Arc<AtomicBool>,
    resets: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn start(n: u8, socket: OwnedFd) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let resets = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (stop, resets) = (Arc::clone(&stop), Arc::clone(&resets));
            move || serve(n, socket, &stop, &resets)
        });
        Host {
            stop,
            resets,
            thread: Some(thread),
        }
    }

    /// Connections that the client reset.
    pub(crate) fn resets(&self) -> usize {
        self.resets.load(Ordering::Relaxed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    port: u16,
    socket: SocketHandle,
    active: bool,
    count: usize,
}

fn serve(n: u8, socket: OwnedFd, stop: &AtomicBool, resets: &AtomicUsize) {
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true).unwrap();
    let mut nic = Nic {
        socket,
        input: Vec::new(),
        out: Vec::new(),
    };
    let clock = std::time::Instant::now();
    let now = || Instant::from_micros(i64::try_from(clock.elapsed().as_micros()).unwrap());
    let mut config = Config::new(EthernetAddress(mac(n).0).into());
    config.random_seed = u64::from(n);
    let mut interface = Interface::new(config, &mut nic, now());
    interface.update_ip_addrs(|addresses| {
        addresses
            .push(IpCidr::Ipv4(Ipv4Cidr::new(address(n), 24)))
            .unwrap();
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut servers: Vec<Server> = (0..SERVERS * PORTS.len())
        .map(|index| {
            // As a machine's, its window is never taken back: it needs no scale, see the gateway's.
            let buffer = |octets| SocketBuffer::new(vec![0; octets]);
            let socket = Socket::new(buffer(0xffff), buffer(128 * 1024));
            Server {
                port: PORTS[index % PORTS.len()],
                socket: sockets.add(socket),
                active: false,
                count: 0,
            }
        })
        .collect();
    while !stop.load(Ordering::Relaxed) {
        if !nic.read() {
            return;
        }
        interface.poll(now(), &mut nic, &mut sockets);
        for server in &mut servers {
            server.attend(sockets.get_mut(server.socket), resets);
        }
        interface.poll(now(), &mut nic, &mut sockets);
        nic.write();
        let wanted = if nic.out.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        };
        let delay = interface
            .poll_delay(now(), &sockets)
            .map_or(20, |delay| delay.total_millis().min(20));
        let timeout = Timespec::try_from(Duration::from_millis(delay)).unwrap();
        let _ = poll(&mut [PollFd::new(&nic.socket, wanted)], Some(&timeout));
    }
}

impl Server {
    fn attend(&mut self, socket: &mut Socket<'_>, resets: &AtomicUsize) {
        if socket.state() == State::Closed && socket.remote_endpoint().is_none() {
            if std::mem::take(&mut self.active) {
                resets.fetch_add(1, Ordering::Relaxed);
            }
            self.count = 0;
            socket.listen(self.port).unwrap();
        }
        if socket.state() == State::Established {
            self.active = true;
        }
        if self.port == RESET && socket.can_recv() {
            self.active = false;
            socket.abort();
            return;
        }
        if self.port == DEAF {
            return;
        }
        if self.port == SOURCE {
            self.say(socket);
        }
        loop {
            let room = socket.send_capacity() - socket.send_queue();
            if !socket.can_recv() || self.port == ECHO && room == 0 {
                break;
            }
            let bytes = socket
                .recv(|bytes| {
                    let count = bytes.len().min(room);
                    (count, bytes[..count].to_vec())
                })
                .unwrap();
            self.count += bytes.len();
            if self.port == ECHO {
                socket.send_slice(&bytes).unwrap();
            }
        }
        if !socket.can_recv()
            && socket.may_send()
            && socket.recv(|_| (0, ())) == Err(RecvError::Finished)
        {
            if self.port == COUNT {
                socket
                    .send_slice(self.count.to_string().as_bytes())
                    .unwrap();
            }
            self.active = false;
            socket.close();
        }
    }

    fn say(&mut self, socket: &mut Socket) {
        while socket.can_send() && self.count < SAID {
            let some = self.count..SAID.min(self.count + 64 * 1024);
            let bytes: Vec<u8> = some.map(octet).collect();
            self.count += socket.send_slice(&bytes).unwrap();
        }
        if self.count == SAID && socket.may_send() {
            self.active = false;
            socket.close();
        }
    }
}

/// A host's network card.
struct Nic {
    socket: UnixStream,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Nic {
    /// False once the cable is unplugged.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 69_632];
        match self.socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        true
    }

    fn write(&mut self) {
        if let Ok(count) = self.socket.write(&self.out) {
            self.out.drain(..count);
        }
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Sending<'a>(&'a mut Vec<u8>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.0.extend(u32::try_from(length).unwrap().to_be_bytes());
        let start = self.0.len();
        self.0.resize(start + length, 0);
        fill(&mut self.0[start..])
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let (length, rest) = self.input.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let frame = rest.get(..length)?.to_vec();
        self.input.drain(..4 + length);
        Some((Received(frame), Sending(&mut self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}
