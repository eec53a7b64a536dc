//! What tests of this crate share: somebody who listens, and a server on this host.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use podwire_process::Report;

/// Keeps all that it is told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) RefCell<Vec<String>>);

impl Report for Heard {
    fn step(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }

    fn waiting(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }
}

/// Tells what is done where the test's output goes.
pub(crate) struct Loud;

impl Report for Loud {
    fn step(&self, text: &str) {
        eprintln!("{text}");
    }

    fn waiting(&self, text: &str) {
        eprintln!("    {text}");
    }
}

/// An address where nobody listens, as long as the connection is there: nobody else on this host is
/// given a port that a connection has.
pub(crate) fn nobody() -> (String, [TcpStream; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = TcpStream::connect(address).unwrap();
    (address.to_string(), [listener.accept().unwrap().0, other])
}

/// Answers every connection to a free port, each in a thread of its own, until the process ends;
/// gives `127.0.0.1:43210`.
pub(crate) fn serve(
    answer: impl Fn(TcpStream, &str) -> io::Result<()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (own, answer) = (host.clone(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, own, answer) = (stream.unwrap(), own.clone(), Arc::clone(&answer));
            // A client that hangs up early is not the server's trouble.
            thread::spawn(move || answer(stream, &own));
        }
    });
    host
}
