//! What crossed the wire between the nodes: by which way, how often, and what came to its end.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use podwire_cluster::addresses;
use podwire_lan::Ipv4Net;
use podwire_lan::witness::{Moment, Seen, Witness};
use podwire_probe::Kind;

use crate::check::failure::Failure;
use crate::check::pairs::Trace;
use crate::check::party::{Asker, Party};
use crate::check::wire::{self, Crossing, Observed, Requests};
use crate::lab::Lab;

/// What stood out on the wire, in the attempt's folder.
pub(crate) const STOOD_OUT: &str = "wire.txt";

/// The frames around it, beside that.
pub(crate) const AROUND: &str = "wire-frames.txt";

/// The segment that the nodes share, or both of them: one switch has seen every frame.
#[derive(Clone, Copy)]
pub struct Wire<'lab> {
    lab: &'lab Lab,
}

impl Lab {
    /// The wire between the nodes, as the switch saw it.
    pub fn wire(&self) -> Wire<'_> {
        Wire { lab: self }
    }
}

impl Wire<'_> {
    /// How many packets to Pods and Services the gateway got, and dropped.
    pub fn dropped(&self) -> u64 {
        self.lab
            .cluster()
            .segment()
            .gateway()
            .counters()
            .dropped_unrouted
    }

    /// How many of them were for this address.
    pub fn dropped_for(&self, address: Ipv4Addr) -> u64 {
        let flows = self.lab.cluster().segment().gateway().dropped();
        let flows = flows.iter().filter(|flow| flow.destination == address);
        flows.map(|flow| flow.packets).sum()
    }

    /// Now: for questions about what is seen from here on.
    ///
    /// # Errors
    /// When the segment has stopped.
    pub fn now(&self) -> anyhow::Result<Moment> {
        self.ask(Witness::now)
    }

    /// The frames with packets between two addresses, in both directions, and ICMP errors about them:
    /// when, from which node's port to which, in which tunnel, and what they say.
    ///
    /// # Errors
    /// When the segment has stopped.
    pub fn between(
        &self,
        one: impl Into<IpAddr>,
        other: impl Into<IpAddr>,
        since: Moment,
    ) -> anyhow::Result<Seen> {
        let (one, other) = (one.into(), other.into());
        self.ask(|witness| witness.between(one, other, since))
    }

    /// Every frame since then.
    pub(super) fn all(&self, since: Moment) -> anyhow::Result<Seen> {
        self.ask(|witness| witness.all(since))
    }

    /// The wire carried these requests as it should: each once, from its sender's node to its
    /// receiver's and no third one's (by the router where they do not share a segment), and none that stays
    /// within a node; nothing was lost behind it and
    /// sent again, no connection was opened twice, nothing for a Pod or a Service went to the gateway.
    /// `carried(&mesh)`, or what [`Service::spreads_evenly`](crate::Service::spreads_evenly) gives.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) with the frames that went otherwise; when what was seen is forgotten
    /// already.
    pub fn carried(&self, requests: impl Into<Requests>) -> anyhow::Result<()> {
        let requests = requests.into();
        let observed = self.observed(&requests)?;
        let forgotten = observed
            .crossings
            .iter()
            .map(|(_, seen)| seen.forgotten)
            .max();
        let forgotten = forgotten.unwrap_or_default();
        anyhow::ensure!(
            forgotten == 0,
            "the wire is asked too late: {forgotten} frames since then are forgotten"
        );
        // Whatever a network that is not podwire's own wraps its packets in.
        let hidden = self.lab.pod_network().is_of_a_manifest();
        Ok(wire::carried(&observed, hidden)?)
    }

    /// Leaves in a folder what stood out since the clone's beginning, if anything did, and gives it.
    pub(crate) fn leave_what_stood_out(&self, folder: &Path) -> anyhow::Result<Option<String>> {
        let seen = self.all(Moment::default())?;
        let told = wire::stood_out(&seen).map(|told| (told.lines, told.frames));
        let (lines, frames) = told.unzip();
        let frames = frames.filter(|frames| !frames.is_empty());
        for (name, text) in [(STOOD_OUT, &lines), (AROUND, &frames)] {
            let path = folder.join(name);
            let left = match text {
                Some(text) => fs::write(&path, text),
                // A run before this one may have left some.
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            };
            left.with_context(|| format!("cannot change {}", path.display()))?;
        }
        Ok(lines)
    }

    /// The addresses by which others may know a sender.
    pub(super) async fn clients_of(&self, from: &Party) -> BTreeSet<IpAddr> {
        let own = BTreeSet::from([from.ip()]);
        if from.pod {
            return own;
        }
        // Without an answer its own has to do.
        let all = self.lab.node(from.node).addresses().await;
        all.map_or(own.clone(), |all| all.union(&own).copied().collect())
    }

    /// How far an unanswered request came.
    pub(super) fn trace(&self, crossing: &Crossing, since: Moment) -> anyhow::Result<Trace> {
        let seen = self.ask(|witness| seen(witness, crossing, since))?;
        Ok(wire::trace(crossing, &seen, self.lab.layout()))
    }

    /// How far somebody's unanswered requests of a kind came to an address, wherever that is, and from there
    /// to those that may have to answer behind it, whoever seems to ask them. Nothing of a target that is no
    /// address.
    pub(super) async fn trace_to(
        &self,
        from: &Asker,
        target: &str,
        kind: Kind,
        since: Moment,
        behind: &[Party],
    ) -> Option<Trace> {
        let with_port = target.parse().ok().map(|it: SocketAddr| it.ip());
        let address = with_port.or_else(|| target.parse().ok())?;
        let mut clients = match from {
            Asker::Inside(party) => self.clients_of(party).await,
            Asker::Outside => BTreeSet::from([addresses::GATEWAY.into()]),
        };
        if let Asker::Inside(party) = from
            && wire::is_outside(address)
        {
            // A Pod is seen there as its node.
            let node = self.lab.node(party.node).party();
            clients.extend(self.clients_of(&node).await);
        }
        let behind: Vec<Ipv4Net> = behind.iter().map(|it| alone(it.address)).collect();
        let seen = self.ask(|witness| {
            let mut seen = between(witness, &clients, address, since);
            let behind = wire::unanswered_connections(&witness.touching(&behind, since));
            seen.frames.extend(behind);
            seen.frames.sort_by_key(|frame| frame.number);
            seen.frames.dedup_by_key(|frame| frame.number);
            seen
        });
        let mut seen = seen.ok()?;
        seen.frames.retain(|frame| wire::is_of(kind, frame));
        Some(wire::trace_to(&from.end(), (target, address), &seen))
    }

    /// The same failure, with how far unanswered requests came, the first of them also as its pairs' lost one, and
    /// what else went wrong on their way. As it is when the wire cannot be asked: what was seen is worth more
    /// than that no more could be.
    pub(super) fn trouble(&self, requests: &Requests, mut failure: Failure) -> Failure {
        let Ok(observed) = self.observed(requests) else {
            return failure;
        };
        let Observed {
            crossings, layout, ..
        } = &observed;
        failure.seen += &wire::unanswered(crossings, *layout);
        if let Some(pairs) = &mut failure.pairs {
            pairs.lost = wire::first_unanswered(crossings, *layout);
        }
        match wire::carried(&observed, true) {
            Err(found) => failure.also("On the wire", &found),
            Ok(()) => failure,
        }
    }

    fn observed(&self, requests: &Requests) -> anyhow::Result<Observed> {
        let Requests { since, crossings } = requests;
        let ranges = [addresses::PODS, addresses::SERVICES];
        self.ask(|witness| {
            let mut to_gateway = witness.touching(&ranges, *since).frames;
            to_gateway.retain(|frame| wire::strayed_to_the_gateway(frame, crossings));
            let crossings = crossings.iter();
            let crossings = crossings.map(|it| (it.clone(), seen(witness, it, *since)));
            Observed {
                layout: self.lab.layout(),
                crossings: crossings.collect(),
                to_gateway,
            }
        })
    }

    fn ask<T>(&self, question: impl FnOnce(&Witness) -> T) -> anyhow::Result<T> {
        let answer = self.lab.cluster().segment().ask(question);
        answer.context("cannot ask what the wire has carried")
    }
}

fn alone(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net {
        address,
        prefix: 32,
    }
}

/// The frames between the two ends of a request.
fn seen(witness: &Witness, crossing: &Crossing, since: Moment) -> Seen {
    between(witness, &crossing.clients, crossing.to.ip(), since)
}

/// The frames between any of these addresses and another.
fn between(witness: &Witness, clients: &BTreeSet<IpAddr>, to: IpAddr, since: Moment) -> Seen {
    let mut all = witness.between(to, to, since);
    all.frames.clear();
    for client in clients {
        let seen = witness.between(*client, to, since);
        all.frames.extend(seen.frames);
    }
    all.frames.sort_by_key(|frame| frame.number);
    all
}
