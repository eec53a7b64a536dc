//! A name server for tests, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

/// By which way a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Tcp,
}

/// Serves both ways at one port. `reply` gives the messages for a query; over TCP without their
/// lengths.
pub(crate) fn server(
    reply: impl Fn(Way, &[u8]) -> Vec<Vec<u8>> + Clone + Send + 'static,
) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Another test may have the same port of TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let over_tcp = reply.clone();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = udp.recv_from(&mut buffer) {
            for message in reply(Way::Udp, &buffer[..n]) {
                udp.send_to(&message, from).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            for message in over_tcp(Way::Tcp, &query) {
                let length = u16::try_from(message.len()).unwrap().to_be_bytes();
                stream
                    .write_all(&[&length, message.as_slice()].concat())
                    .unwrap();
            }
        }
    });
    address
}

/// An answer to a query, with a code and these records. A record that begins with `\xc0\x0c` has the
/// question's name.
pub(crate) fn answer(query: &[u8], code: u8, records: &[&[u8]]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[3] = code;
    message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    message.extend(records.concat());
    message
}

/// The same, said to be cut.
pub(crate) fn truncated(mut message: Vec<u8>) -> Vec<u8> {
    message[2] |= 0x02;
    message
}

/// A record of the question's name with the address 10.1.1.`last`.
pub(crate) fn address(last: u8) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x01\x01".to_vec();
    record.push(last);
    record
}
