//! `probe`: client, workload and sandbox process of the guests; see the library for what it says.

mod signals;

use std::process::ExitCode;
use std::time::Duration;

use podwire_probe::{
    Server, ViaError, agent, fetch, fetch_via, host_name, ping, resolve, resolve_via,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const USAGE: &str = "\
usage: probe serve [--port N]               answer HTTP requests (port 80)
       probe fetch [--via HOST:PORT] [JSON] send requests, report in JSON; the request is read
                                            from standard input when it is no argument
       probe resolve [--via HOST:PORT] [JSON]
                                            ask the DNS for a name, not /etc/hosts; request and
                                            report as for fetch
       probe ping ADDRESS [COUNT]           send ICMP echo requests; fails unless all are answered
       probe agent                          run the host's commands, over a virtio-serial port
       probe pause [-v]                     reap children until SIGTERM or SIGINT; with -v say which
                                            version this is, as kubeadm asks the sandbox's image
       probe version";

/// What the way to another `probe` and back may take beside the requests themselves.
const VIA_LIMIT: Duration = Duration::from_secs(10);

/// What one echo request may take.
const ECHO_LIMIT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve"] => serve(80),
        ["serve", "--port", port] => match port.parse() {
            Ok(port) => serve(port),
            Err(_) => return usage(),
        },
        ["fetch", rest @ ..] => match Asked::parse(rest) {
            Some(asked) => asked.report(fetch, |server, request| {
                fetch_via(&format!("{server}/fetch"), request, VIA_LIMIT)
            }),
            None => return usage(),
        },
        ["resolve", rest @ ..] => match Asked::parse(rest) {
            Some(asked) => asked.report(resolve, |server, request| {
                resolve_via(&format!("{server}/resolve"), request, VIA_LIMIT)
            }),
            None => return usage(),
        },
        ["ping", to] => echo(to, "1"),
        ["ping", to, count] => echo(to, count),
        ["agent"] => agent::serve()
            .map(|never| match never {})
            .map_err(|error| error.to_string()),
        ["pause"] => {
            signals::block();
            signals::wait_for_end();
            Ok(())
        }
        ["version"] | ["pause", "-v"] => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn echo(to: &str, count: &str) -> Result<(), String> {
    let address = to.parse().map_err(|_| format!("{to} is no IPv4 address"))?;
    let count = count.parse().map_err(|_| format!("{count} is no count"))?;
    let answered = ping(address, count, ECHO_LIMIT).map_err(|error| format!("{to}: {error}"))?;
    println!("{answered} of {count} answered");
    if answered < count {
        return Err(format!("{to}: {} of {count} unanswered", count - answered));
    }
    Ok(())
}

fn serve(port: u16) -> Result<(), String> {
    // As a container's process 1 it gets no signal that it does not handle: deleting the Pod
    // would last its whole grace period. Blocked before the first thread, so that all inherit it.
    signals::block();
    let host = host_name().map_err(|error| format!("no host name: {error}"))?;
    let server = Server::bind(port, host).map_err(|error| format!("port {port}: {error}"))?;
    std::thread::spawn(move || server.run());
    signals::wait_for_end();
    Ok(())
}

/// What stands behind a command that carries a request out.
struct Asked<'a> {
    via: Option<&'a str>,
    request: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn parse(words: &[&'a str]) -> Option<Self> {
        let (via, request) = match *words {
            [] => (None, None),
            ["--via", server] => (Some(server), None),
            ["--via", server, request] => (Some(server), Some(request)),
            [request] if !request.starts_with('-') => (None, Some(request)),
            _ => return None,
        };
        Some(Self { via, request })
    }

    fn report<Request: DeserializeOwned, Report: Serialize>(
        &self,
        here: impl FnOnce(&Request) -> Report,
        there: impl FnOnce(&str, &Request) -> Result<Report, ViaError>,
    ) -> Result<(), String> {
        let text = match self.request {
            Some(text) => text.to_owned(),
            None => std::io::read_to_string(std::io::stdin())
                .map_err(|error| format!("standard input: {error}"))?,
        };
        let request =
            serde_json::from_str(&text).map_err(|error| format!("the request: {error}"))?;
        let report = match self.via {
            None => here(&request),
            Some(server) => there(server, &request).map_err(|error| error.to_string())?,
        };
        let json = serde_json::to_string(&report).map_err(|error| error.to_string())?;
        println!("{json}");
        Ok(())
    }
}
