//! What tests of this crate share: somebody who listens, and a server on this host.

use std::cell::RefCell;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::thread;

use podwire_process::Report;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

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

/// The same behind a proxy for TLS (RFC 9110, 9.3.6), as the host with this name; whoever trusts the
/// certificate, which comes as PEM behind the proxy's address, trusts that host. `told` is given what the
/// proxy is asked for.
pub(crate) fn serve_behind_proxy(
    name: &str,
    told: impl Fn(&str) + Send + Sync + 'static,
    answer: impl Fn(StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> + Send + Sync + 'static,
) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (config, target) = (Arc::new(config), format!("{name}:443"));
    let proxy = serve(move |mut stream, _| {
        let asked = head(&mut stream)?;
        let asked = asked.first().map_or("", String::as_str);
        told(asked);
        if !asked.starts_with(&format!("CONNECT {target} ")) {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        answer(StreamOwned::new(session, stream))
    });
    (proxy, cert.pem())
}

/// The lines of a request before its body, and not a byte more.
pub(crate) fn head(stream: &mut impl Read) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
        // No method begins like that, but TLS does.
        if !bytes[0].is_ascii_uppercase() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&bytes)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// Which address is asked for, in the process of [`said_with`].
const ASKED: &str = "PODWIRE_TEST_ASKED";

/// What the test of this name, with its modules, says of an address, in a process of its own: an
/// environment belongs to all threads of one. It has neither the caller's proxies nor its certificates.
pub(crate) fn said_with(test: &str, asked: &str, environment: &[(&str, &OsStr)]) -> String {
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env_clear()
        .envs(env::var_os("TMPDIR").map(|dir| ("TMPDIR", dir)))
        .env(ASKED, asked)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("it says: "));
    let (_, text) = line.unwrap_or_else(|| panic!("{said}"));
    text.to_owned()
}

/// Says something of the address that is asked for, in the process where it is; false in all others.
pub(crate) fn says(of: impl FnOnce(&str) -> String) -> bool {
    let Ok(asked) = env::var(ASKED) else {
        return false;
    };
    println!("it says: {}", of(&asked));
    true
}

/// Like what runs through sudo it has forgotten that it was to die with its parent (prctl(2)), and feels
/// no signal that can be ignored.
const SUDO: &str = "#!/bin/sh\ntrap '' HUP INT QUIT TERM\nexec setpriv --pdeathsig clear \"$@\"\n";

/// What it runs is in no namespace, so that a test needs no root, and its children do not end with it.
const UNSHARE: &str =
    "#!/bin/sh\nwhile :; do case $1 in --*) shift ;; *) exec \"$@\" ;; esac; done\n";

/// A run that can be killed: a test once more, in a process of its own, with stand-ins for sudo and
/// unshare in its path.
pub(crate) struct Run {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Run {
    const FOLDER: &str = "PODWIRE_TEST_RUN";

    /// In that process the folder that it shares with who has started it.
    pub(crate) fn this() -> Option<PathBuf> {
        env::var_os(Self::FOLDER).map(PathBuf::from)
    }

    /// The test of this name, with its modules.
    pub(crate) fn start(test: &str, dir: &Path) -> Self {
        let programs = dir.join("bin");
        fs::create_dir_all(&programs).unwrap();
        for (name, text) in [("sudo", SUDO), ("unshare", UNSHARE)] {
            let path = programs.join(name);
            install(&path, text.as_bytes());
        }
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap());
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(Self::FOLDER, dir)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Whether it says this line before it ends.
    pub(crate) fn says(&mut self, text: &str) -> bool {
        let mut lines = self.said.by_ref().lines().map_while(Result::ok);
        lines.any(|line| line.trim() == text)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it ends by itself, and its test has passed.
    pub(crate) fn ends_well(mut self) -> bool {
        let heard = io::copy(&mut self.said, &mut io::stderr());
        heard.is_ok() && self.child.wait().unwrap().success()
    }
}

/// Writes a program that a test is about to run, by a process of its own: whoever another test starts
/// meanwhile inherits what is open here, and a file that is open for writing cannot be run (execve(2),
/// ETXTBSY).
pub(crate) fn install(path: &Path, program: &[u8]) {
    let mut install = Command::new("install")
        .args(["-D", "-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = install.stdin.take().unwrap();
    stdin.write_all(program).unwrap();
    drop(stdin);
    assert!(install.wait().unwrap().success());
}
