//! One node: commands, files, services, its journal, its power.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::{Identity, addresses, cni};
use podwire_lan::Ipv4Net;

use crate::check::party::Party;
use crate::lab::Lab;

/// Writing a file.
const WRITE: Duration = Duration::from_secs(20);

/// A node of a lab, as cheap to hand around as its number.
#[derive(Clone, Copy)]
pub struct Node<'lab> {
    lab: &'lab Lab,
    number: u32,
}

impl Lab {
    /// The node with this number, from 1 to [`Lab::node_count`].
    ///
    /// # Panics
    /// On first use, for any other number.
    pub fn node(&self, number: u32) -> Node<'_> {
        Node { lab: self, number }
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = Node<'_>> {
        (1..=self.node_count()).map(|number| self.node(number))
    }

    /// The node with the highest number: the one that leaves, comes back, or joins.
    pub fn last_node(&self) -> Node<'_> {
        self.node(self.node_count())
    }

    /// Every node, as a sender.
    pub fn node_parties(&self) -> Vec<Party> {
        self.nodes().map(|node| node.party()).collect()
    }
}

impl<'lab> Node<'lab> {
    pub(super) fn lab(self) -> &'lab Lab {
        self.lab
    }

    pub(super) fn as_machine(self) -> &'lab podwire_cluster::Node {
        self.lab.cluster().node(self.number)
    }

    /// Its number, from 1.
    pub fn number(self) -> u32 {
        self.number
    }

    /// `node2`: host name, DNS name and Node name.
    pub fn name(self) -> &'lab str {
        self.as_machine().name()
    }

    /// Its address on the segment.
    pub fn address(self) -> Ipv4Addr {
        self.as_machine().address()
    }

    /// Its address of the second family, where the cluster has one.
    pub fn address_v6(self) -> Option<Ipv6Addr> {
        let is_dual = self.lab.ip_families().is_dual();
        is_dual.then(|| podwire_cluster::node_address_v6(self.number))
    }

    /// The address of its second card, where it has one: node 2 of a cluster that is laid out
    /// [`SecondCard`](podwire_cluster::Layout::SecondCard).
    ///
    /// # Errors
    /// When it has none.
    pub fn second_address(self) -> anyhow::Result<Ipv4Addr> {
        let second = self.lab.layout().second_address(self.number);
        second.with_context(|| format!("{self} has one card"))
    }

    /// The range of its Pods where routes are laid by hand: `10.1.2.0/24`.
    pub fn pod_range(self) -> Ipv4Net {
        addresses::pod_range(self.number)
    }

    /// It, as somebody who asks.
    pub fn party(self) -> Party {
        Party::new(self.name(), self.number, false, self.address()).with_ipv6(self.address_v6())
    }

    /// Writes a file that everybody may read, and its folder when there is none.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn write(self, path: &str, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.put(path, text.as_ref(), 0o644).await
    }

    /// Writes a file that only root may read, and its folder when there is none.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn write_secret(self, path: &str, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.put(path, text.as_ref(), 0o600).await
    }

    pub(super) async fn put(self, path: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
        let limit = self.lab.limit(WRITE);
        Ok(self.as_machine().write(path, bytes, mode, limit).await?)
    }

    /// Writes the CNI file of a network by hand, a bridge with this range.
    ///
    /// # Errors
    /// When the node does not carry it out.
    pub async fn write_cni_file(self, range: Ipv4Net) -> anyhow::Result<()> {
        self.write(cni::PATH, cni::bridge(range)).await
    }

    /// The addresses of its own, on all of its interfaces: the segment's, its bridges', its tunnels'.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn addresses(self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let shown = self.run("ip -o address show").await?;
        Ok(addresses_in(&shown.stdout))
    }

    /// Has systemd start these units: `start("containerd kubelet")`.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn start(self, units: &str) -> anyhow::Result<()> {
        self.systemctl("start", units).await
    }

    /// Has systemd stop these units.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn stop(self, units: &str) -> anyhow::Result<()> {
        self.systemctl("stop", units).await
    }

    /// Has systemd stop these units and start them again.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn restart(self, units: &str) -> anyhow::Result<()> {
        self.systemctl("restart", units).await
    }

    async fn systemctl(self, verb: &str, units: &str) -> anyhow::Result<()> {
        self.run(format!("systemctl {verb} {units}")).await?;
        Ok(())
    }

    /// What the unit's present process, or its last, has written into the journal.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn journal(self, unit: &str) -> anyhow::Result<String> {
        Ok(self.run(journal_of(unit)).await?.stdout)
    }

    /// The command that prints the lines of [`Node::journal`] with all of this in them, for
    /// [`Needs::Silence`](crate::Needs::Silence).
    pub fn journal_lines(self, unit: &str, with: &[&str]) -> String {
        let each = with.iter().map(|it| format!(" | grep -F '{it}'"));
        format!("{}{}; true", journal_of(unit), each.collect::<String>())
    }

    /// What proves its kubelet to the API server of a cluster by hand.
    ///
    /// # Errors
    /// When kubeadm made the cluster: its keys are on its nodes only.
    pub fn identity(self) -> anyhow::Result<&'lab Identity> {
        let own = self.lab.cluster().pki()?.node(self.number);
        own.with_context(|| format!("no certificate for {self}"))
    }

    /// Reboots it, and waits until it answers again.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn reboot(self) -> anyhow::Result<()> {
        self.lab.step(format!("reboot {self}"));
        self.lab.boots_anew(self.number);
        Ok(self.lab.cluster().reboot(self.number).await?)
    }

    /// Cuts its power, switches it on again, and waits until it answers. What it wrote before is on
    /// its disk: this cluster's etcd does not wait for the disk, as a usual one does at every write.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn cut_power(self) -> anyhow::Result<()> {
        self.lab.step(format!("cut {self}'s power"));
        self.lab.boots_anew(self.number);
        self.run("sync").await?;
        Ok(self.lab.cluster().cut_power(self.number).await?)
    }

    /// Cuts its power, and leaves it off: it says no more, not even goodbye to whoever has a connection to it.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub async fn loses_power(self) -> anyhow::Result<()> {
        self.lab.step(format!("{self} loses its power"));
        self.lab.boots_anew(self.number);
        Ok(self.as_machine().machine().cut_power().await?)
    }

    /// When its kernel began: seconds since 1970, by its own clock.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn booted_at(self) -> anyhow::Result<i64> {
        let answer = self.run("sed -n 's/^btime //p' /proc/stat").await?;
        let booted = answer.text().parse();
        booted.with_context(|| format!("no time of boot in {:?}", answer.text()))
    }

    /// Takes its card's link away, or gives it back.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub async fn set_link(self, up: bool) -> anyhow::Result<()> {
        Ok(self.as_machine().machine().set_link(up).await?)
    }

    /// Collects its evidence, as after a failure: the folder with its files.
    pub async fn evidence(self) -> PathBuf {
        let cluster = self.lab.cluster();
        let folder = cluster.dir().join("asked-for");
        cluster.node_evidence(self.number, &folder).await;
        folder.join(self.name())
    }
}

/// The addresses in what `ip -o address` shows.
fn addresses_in(shown: &str) -> BTreeSet<IpAddr> {
    let words: Vec<&str> = shown.split_whitespace().collect();
    let pairs = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "inet" | "inet6"));
    let addresses = pairs.filter_map(|pair| pair[1].split_once('/')?.0.parse().ok());
    addresses.collect()
}

fn journal_of(unit: &str) -> String {
    format!(
        "journalctl -u {unit} -o cat --no-pager \
         _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID {unit})"
    )
}

impl From<Node<'_>> for Party {
    fn from(node: Node<'_>) -> Self {
        node.party()
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_addresses_are_those_of_all_its_interfaces() {
        let shown = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
2: enp1s0    inet 172.30.0.11/24 brd 172.30.0.255 scope global enp1s0
2: enp1s0    inet6 fd00:172:30::11/64 scope global \\       valid_lft forever preferred_lft forever
5: cni0    inet 10.1.1.1/24 brd 10.1.1.255 scope global cni0";
        let wanted = ["10.1.1.1", "127.0.0.1", "172.30.0.11", "fd00:172:30::11"];
        let wanted = wanted.map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(addresses_in(shown), BTreeSet::from(wanted));
    }
}
