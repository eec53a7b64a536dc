//! One running node.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use podwire_lan::{PortId, Segment};
use podwire_vm::{Guest, GuestError, Machine, MachineSpec, Nic, Output, SshCredentials};

use crate::addresses;
use crate::{ClusterError, Host};

/// How long a machine may take from power-on, or from waking up, to an SSH session.
const SSH: Duration = Duration::from_secs(20);
/// One attempt at it; a waking guest under emulation answers its first packets late.
const SSH_ATTEMPT: Duration = Duration::from_secs(5);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// From going down, or from power-on, to an SSH session.
const BOOT: Duration = Duration::from_secs(60);
/// Prints the kernel's boot id.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
const CONSOLE_LINES: usize = 20;
const JOURNAL_LINES: u32 = 30;
const SHORT: Duration = Duration::from_secs(5);

/// A node: its machine, its port on the segment, its SSH session.
pub struct Node {
    number: u32,
    name: String,
    port: PortId,
    machine: Machine,
    /// A guest that has booted again needs another session.
    guest: Mutex<Guest>,
    host_key: String,
}

/// A machine that was started and may not answer yet.
pub(crate) struct Powered {
    number: u32,
    port: PortId,
    pub(crate) machine: Machine,
}

impl Powered {
    /// Attaches a machine to the segment and starts it, with its network card in the slot or not yet.
    /// Its console and transcripts go to `dir`.
    pub(crate) async fn on(
        host: &Host,
        segment: &Segment,
        number: u32,
        spec: MachineSpec,
        plugged: bool,
        dir: &Path,
    ) -> Result<Self, ClusterError> {
        let (port, fd) = segment.attach(&addresses::node_name(number))?;
        let nic = Nic {
            mac: addresses::node_mac(number).to_string(),
            fd,
            plugged,
        };
        let machine = host.launch(spec, Some(nic), dir).await?;
        Ok(Self {
            number,
            port,
            machine,
        })
    }

    /// Waits until SSH answers: with the image's host key, or with the node's own (`host_key`, one
    /// line of OpenSSH's).
    pub(crate) async fn answering(
        self,
        host: &Host,
        segment: &Segment,
        host_key: Option<&str>,
    ) -> Result<Node, ClusterError> {
        let limit = host.limit(SSH);
        let ssh = match host_key {
            Some(key) => host
                .ssh
                .with_host_key(key)
                .map_err(|source| ClusterError::Guest {
                    node: addresses::node_name(self.number),
                    doing: "know the host key".to_owned(),
                    source: Box::new(source),
                })?,
            None => host.ssh.clone(),
        };
        let session = session(host, segment, &ssh, self.number, limit);
        let guest = match self.machine.faults().unless_faulted(session).await? {
            Ok(guest) => guest,
            Err(last) => {
                return Err(ClusterError::NoSsh {
                    node: addresses::node_name(self.number),
                    limit,
                    last,
                    console: self.machine.console().tail(CONSOLE_LINES).join("\n"),
                });
            }
        };
        Ok(Node {
            number: self.number,
            name: addresses::node_name(self.number),
            port: self.port,
            guest: Mutex::new(guest.watched(self.machine.faults())),
            machine: self.machine,
            host_key: host_key.unwrap_or_default().to_owned(),
        })
    }
}

/// Tries until an SSH session stands; the last error when none does.
async fn session(
    host: &Host,
    segment: &Segment,
    ssh: &SshCredentials,
    number: u32,
    limit: Duration,
) -> Result<Guest, String> {
    let started = Instant::now();
    let to = SocketAddrV4::new(addresses::node_address(number), 22);
    let gateway = segment.gateway();
    loop {
        let attempt = host.limit(SSH_ATTEMPT);
        let error = match gateway.connect(to, attempt).await {
            Ok(stream) => match Guest::connect(stream, ssh, attempt).await {
                Ok(guest) => return Ok(guest),
                Err(error) => crate::api::chain(&error),
            },
            Err(error) => crate::api::chain(&error),
        };
        if started.elapsed() > limit {
            return Err(error);
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
}

impl Node {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// `node1`: host name, DNS name, Node name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the segment.
    pub fn address(&self) -> Ipv4Addr {
        addresses::node_address(self.number)
    }

    /// Its port on the segment: [`Segment::set_cut`] takes the cable off.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// What its sshd shows: one line, as in `known_hosts` behind the name.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// The machine it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The last lines of its serial console.
    pub fn console_tail(&self, count: usize) -> Vec<String> {
        self.machine.console().tail(count)
    }

    fn guest(&self) -> Guest {
        let guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        guest.clone()
    }

    /// Waits until the guest that now boots answers: one whose boot id is not `before`.
    pub(crate) async fn booted_again(
        &self,
        host: &Host,
        segment: &Segment,
        before: &str,
    ) -> Result<(), ClusterError> {
        let limit = host.limit(BOOT);
        let ssh = host.ssh.with_host_key(&self.host_key);
        let ssh = ssh.map_err(self.failed("know the host key"))?;
        let started = Instant::now();
        let again = async {
            loop {
                let left = limit.saturating_sub(started.elapsed());
                let last = match session(host, segment, &ssh, self.number, left).await {
                    Ok(guest) => match guest.run_ok(BOOT_ID, host.limit(SHORT)).await {
                        Ok(now) if now != before => return Ok(guest),
                        // It is still on its way down.
                        Ok(_) => "it has not gone down".to_owned(),
                        Err(error) => crate::api::chain(&error),
                    },
                    Err(last) => last,
                };
                if started.elapsed() > limit {
                    return Err(last);
                }
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
        };
        match self.machine.faults().unless_faulted(again).await? {
            Ok(guest) => {
                let mut current = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
                *current = guest.watched(self.machine.faults());
                Ok(())
            }
            Err(last) => Err(ClusterError::NoSsh {
                node: self.name.clone(),
                limit,
                last,
                console: self.machine.console().tail(CONSOLE_LINES).join("\n"),
            }),
        }
    }

    /// What tells this boot from the next: the kernel's boot id.
    pub(crate) async fn boot(&self, host: &Host) -> Result<String, ClusterError> {
        self.run_ok(BOOT_ID, host.limit(SHORT)).await
    }

    /// Runs a command line in root's shell.
    ///
    /// # Errors
    /// [`ClusterError::Guest`]; but another exit status than 0 is not one.
    pub async fn run(&self, command: &str, limit: Duration) -> Result<Output, ClusterError> {
        let done = self.guest().run(command, limit).await;
        done.map_err(self.failed("run a command"))
    }

    /// Runs a command line that must exit with 0, and gives its standard output.
    ///
    /// # Errors
    /// [`ClusterError::Guest`], with both streams when the status is another.
    pub async fn run_ok(&self, command: &str, limit: Duration) -> Result<String, ClusterError> {
        let done = self.guest().run_ok(command, limit).await;
        done.map_err(self.failed("run a command"))
    }

    /// Runs a command line with standard input; it must exit with 0.
    ///
    /// # Errors
    /// As [`Node::run_ok`].
    pub async fn run_with_input(
        &self,
        command: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<String, ClusterError> {
        let output = self.guest().run_with_input(command, input, limit).await;
        let output = output.map_err(self.failed("run a command"))?;
        self.succeeded(command, output)
    }

    fn succeeded(&self, command: &str, output: Output) -> Result<String, ClusterError> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        let command = command.to_owned();
        Err(self.failed("run a command")(GuestError::Failed {
            command,
            output,
        }))
    }

    /// As [`Node::run_with_input`], with a file of this host as the input.
    pub(crate) async fn run_with_file(
        &self,
        command: &str,
        file: tokio::fs::File,
        limit: Duration,
    ) -> Result<String, ClusterError> {
        let output = self.guest().run_reading(command, file, limit).await;
        let output = output.map_err(self.failed("run a command"))?;
        self.succeeded(command, output)
    }

    /// Writes a file, and its folder when there is none.
    ///
    /// # Errors
    /// [`ClusterError::Guest`].
    pub async fn write(
        &self,
        path: &str,
        bytes: &[u8],
        mode: u32,
        limit: Duration,
    ) -> Result<(), ClusterError> {
        let written = self.guest().write(path, bytes, mode, limit).await;
        written.map_err(self.failed("write a file"))
    }

    /// What systemd and the journal say of a unit; for errors, so it never fails itself.
    pub(crate) async fn last_words(&self, host: &Host, unit: &str) -> String {
        let command = format!(
            "systemctl show -p ActiveState,SubState,NRestarts,ExecMainStatus {unit} | tr '\\n' ' '; \
             echo; journalctl -u {unit} -n {JOURNAL_LINES} -o cat --no-pager"
        );
        match self.guest().run(&command, host.limit(SHORT)).await {
            Ok(output) => output.stdout,
            Err(error) => format!("(no journal: {error})"),
        }
    }

    /// Ends the SSH session; the machine goes on.
    pub(crate) async fn hang_up(self) -> Machine {
        self.guest().close().await;
        self.machine
    }

    /// Has the machine shut itself down; its disk then holds all that was written.
    pub(crate) async fn power_off(self, host: &Host) -> Result<(), ClusterError> {
        let limit = host.limit(BOOT);
        Ok(self.machine.power_off(&self.guest(), limit).await?)
    }

    /// Ends the machine at once.
    pub(crate) async fn kill(self) {
        self.machine.kill().await;
    }

    fn failed(&self, doing: &str) -> impl FnOnce(GuestError) -> ClusterError {
        let (node, doing) = (self.name.clone(), doing.to_owned());
        move |source| match source {
            GuestError::Fault { fault, .. } => ClusterError::Fault(fault),
            source => ClusterError::Guest {
                node,
                doing,
                source: Box::new(source),
            },
        }
    }
}
