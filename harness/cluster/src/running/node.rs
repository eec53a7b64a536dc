//! One running node.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podwire_lan::Segment;
use podwire_vm::{Guest, GuestError, Machine, MachineSpec, Nic, Output};

use super::api::chain;
use super::host::Host;
use crate::plan::error::ClusterError;
use crate::plan::layout::{Layout, Member};

/// How long a guest that has booted may take to answer when it wakes up, or is asked.
const ANSWER: Duration = Duration::from_secs(20);
/// From the first answer to an address.
const LEASE: Duration = Duration::from_secs(20);
/// From going down, or from power-on, to an answer.
const BOOT: Duration = Duration::from_secs(60);
const CONSOLE_LINES: usize = 20;
const JOURNAL_LINES: u32 = 30;
const SHORT: Duration = Duration::from_secs(5);

/// A node: its machine, whose port on its segment has the node's name. A router is told apart only by
/// having a card on each segment, and by running nothing of Kubernetes.
pub struct Node {
    member: Member,
    name: String,
    /// One on each of its segments.
    addresses: Vec<Ipv4Addr>,
    machine: Machine,
    host_key: String,
}

/// A machine that was started and may not answer yet.
pub(crate) struct Powered {
    member: Member,
    addresses: Vec<Ipv4Addr>,
    pub(crate) machine: Machine,
}

impl Powered {
    /// Attaches a machine to its segments and starts it, with its network cards in the slot or not yet.
    /// Its console and transcripts go to `dir`.
    pub(crate) async fn on(
        host: &Host,
        segment: &Segment,
        (layout, member): (Layout, Member),
        spec: MachineSpec,
        plugged: bool,
        dir: &Path,
    ) -> Result<Self, ClusterError> {
        let cards = layout.cards(member);
        let nics = cards.iter().map(|card| {
            Ok(Nic {
                mac: card.lease.mac.to_string(),
                fd: segment.attach_to(card.segment, &card.port)?,
                plugged,
            })
        });
        let nics: Vec<Nic> = nics.collect::<Result<_, ClusterError>>()?;
        let machine = host.launch(spec, nics, dir).await?;
        Ok(Self {
            member,
            addresses: cards.iter().map(|card| card.lease.address).collect(),
            machine,
        })
    }

    /// Waits until the guest's agent answers. `host_key` is what its sshd shows (one line of
    /// OpenSSH's), where that is known.
    pub(crate) async fn answering(
        self,
        host: &Host,
        host_key: Option<&str>,
    ) -> Result<Node, ClusterError> {
        let node = Node {
            member: self.member,
            name: self.member.name(),
            addresses: self.addresses,
            machine: self.machine,
            host_key: host_key.unwrap_or_default().to_owned(),
        };
        let up = node.guest().up(host.limit(ANSWER)).await;
        up.map_err(unanswered(&node.name, &node.machine))?;
        Ok(node)
    }
}

impl Node {
    /// Its number, from 1; a router has none, which is 0.
    pub fn number(&self) -> u32 {
        match self.member {
            Member::Node(number) => number,
            Member::Router => 0,
        }
    }

    /// `node1`: host name, DNS name, Node name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on its segment, of a router on the first one.
    pub fn address(&self) -> Ipv4Addr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
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

    fn guest(&self) -> &Guest {
        self.machine.guest()
    }

    /// Waits until the guest that now boots answers: one whose boot id is not `before`.
    pub(crate) async fn booted_again(&self, host: &Host, before: &str) -> Result<(), ClusterError> {
        let again = self.guest().booted_again(before, host.limit(BOOT)).await;
        again.map_err(unanswered(&self.name, &self.machine))?;
        self.on_the_segment(host).await
    }

    /// Waits until the guest has taken its leases: its addresses and its host name.
    pub(crate) async fn on_the_segment(&self, host: &Host) -> Result<(), ClusterError> {
        let name = &self.name;
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|it| format!(" && $(</proc/net/fib_trie) == *'-- {it}'*"));
        let addresses: String = addresses.collect();
        // Without a process for each look: they take an emulated guest longer than the lease does.
        let taken = format!(
            "until read -r name </proc/sys/kernel/hostname && [[ $name == {name}{addresses} ]]; \
             do sleep 0.1; done"
        );
        let waited = self.guest().run_ok(&taken, host.limit(LEASE)).await;
        waited.map_err(self.failed("take the lease from the segment's DHCP server"))?;
        Ok(())
    }

    /// What tells this boot from the next: the kernel's boot id.
    pub(crate) async fn boot(&self, host: &Host) -> Result<Arc<str>, ClusterError> {
        let boot = self.guest().up(host.limit(ANSWER)).await;
        boot.map_err(unanswered(&self.name, &self.machine))
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

    /// Runs a command line in root's shell, and hands on each line of its standard output as it is
    /// written.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub async fn follow(
        &self,
        command: &str,
        limit: Duration,
        line: impl FnMut(&str),
    ) -> Result<Output, ClusterError> {
        let done = self.guest().follow(command, limit, line).await;
        done.map_err(self.failed("run a command"))
    }

    /// As [`Node::run`], with standard input.
    pub(crate) async fn run_given(
        &self,
        command: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Output, ClusterError> {
        let done = self.guest().run_with_input(command, input, limit).await;
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
        let output = self.run_given(command, input, limit).await?;
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

    /// Ends the conversation with the guest: nothing of it is on its way any more. The machine goes on.
    pub(crate) async fn hang_up(self, host: &Host) -> Result<Machine, ClusterError> {
        let closed = self.guest().close(host.limit(ANSWER)).await;
        closed.map_err(unanswered(&self.name, &self.machine))?;
        Ok(self.machine)
    }

    /// Has the machine shut itself down; its disk then holds all that was written.
    pub(crate) async fn power_off(self, host: &Host) -> Result<(), ClusterError> {
        let limit = host.limit(BOOT);
        Ok(self.machine.power_off(limit).await?)
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

/// A machine whose agent does not answer, with what its console says.
pub(crate) fn unanswered(name: &str, machine: &Machine) -> impl FnOnce(GuestError) -> ClusterError {
    let (node, console) = (name.to_owned(), machine.console().clone());
    move |source| match source {
        GuestError::Fault { fault, .. } => ClusterError::Fault(fault),
        source => ClusterError::NoAnswer {
            node,
            reason: chain(&source),
            console: console.tail(CONSOLE_LINES).join("\n"),
        },
    }
}
