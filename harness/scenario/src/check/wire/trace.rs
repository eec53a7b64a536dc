//! How far an unanswered request came, as data.

use std::collections::BTreeSet;
use std::net::IpAddr;

use podwire_cluster::Layout;
use podwire_cluster::addresses::{GATEWAY, OUTSIDE, node_name, node_number};
use podwire_lan::witness::{Lost, Seen, Sighting, Transport, connections};
use podwire_probe::Kind;

use super::way::hops;
use super::{Crossing, arrives, is_gateway, last_seen};
use crate::check::pairs::{End, Hop, Trace, display_filter, kept};

/// How far an unanswered request came, hop by hop.
pub(crate) fn trace(crossing: &Crossing, seen: &Seen, layout: Layout) -> Trace {
    let last = seen.frames.last();
    let (frames, left_out) = kept(&seen.frames);
    Trace {
        from: End::from(&crossing.from),
        to: End::from(&crossing.to),
        hops: taken(crossing, &seen.frames, layout),
        ended: last_seen(crossing, seen, layout),
        held_by: held_by(crossing, last, layout),
        heading: last.and_then(heading).unwrap_or(crossing.to.ip()),
        frames,
        left_out,
        filter: display_filter(&seen.frames),
    }
}

/// Whether this is the host outside the cluster, or the gateway beside it, of which nodes ask names.
pub(crate) fn is_outside(address: IpAddr) -> bool {
    [OUTSIDE, GATEWAY].map(IpAddr::from).contains(&address)
}

/// Whether a frame can be of requests of a kind: of its protocol, an ICMP error, or what cannot be told.
pub(crate) fn is_of(kind: Kind, frame: &Sighting) -> bool {
    let Some(packet) = frame.packet() else {
        return false;
    };
    match &packet.transport {
        Transport::Tcp(_) => matches!(kind, Kind::Http | Kind::Transfer { .. }),
        Transport::Udp(_) => kind == Kind::Udp,
        Transport::Icmp(icmp) => kind == Kind::Ping || icmp.about.is_some(),
        Transport::Other { .. } => true,
    }
}

/// The frames of TCP connections that somebody opened and nobody answered.
pub(crate) fn unanswered_connections(seen: &Seen) -> Vec<Sighting> {
    let all = connections(&seen.frames).into_iter();
    let lost = all.filter(|it| it.isn.is_some() && !it.answered());
    lost.flat_map(|it| it.frames).collect()
}

/// The same of requests to somebody of whom nobody knows where he is: a Service, whose packets are on the
/// wire under its own address only where no node has translated it; a port of a node, or the host outside.
pub(crate) fn trace_to(from: &End, (name, address): (&str, IpAddr), seen: &Seen) -> Trace {
    let last = seen.frames.last();
    let ended = match (last, from.node) {
        (None, Some(node)) => format!(
            "nothing to {address} was on the wire under that address: it never left {}, or was \
             translated there",
            node_name(node)
        ),
        (None, None) => format!("nothing to {address} was on the wire"),
        (Some(last), _) => {
            let astray = went_astray(from, address, last);
            let dropped = match astray {
                true => "; it went to the gateway, which drops it",
                false => "",
            };
            format!("what came last: {last}{dropped}")
        }
    };
    let mut taken: Vec<Hop> = Vec::new();
    let mut asked = BTreeSet::new();
    for frame in &seen.frames {
        let Some(packet) = frame.packet() else {
            continue;
        };
        // On its way either end may get another address: who was asked by somebody answers him.
        let answers = asked.contains(&(packet.destination, packet.source));
        if !answers {
            asked.insert((packet.source, packet.destination));
        }
        let hop = hop(frame, answers || packet.about().is_some());
        let known = |it: &Hop| (&it.from, &it.to, it.answer) == (&hop.from, &hop.to, hop.answer);
        if !taken.iter().any(known) {
            taken.push(hop);
        }
    }
    let held_by = match last {
        None => from.node,
        Some(last) if !last.lost.is_empty() => filtered_by(last),
        Some(last) if went_astray(from, address, last) => node_number(&last.from),
        // What has arrived somewhere should have gone on from there.
        Some(last) => last.to.iter().find_map(|port| node_number(port)),
    };
    let (frames, left_out) = kept(&seen.frames);
    Trace {
        from: from.clone(),
        to: End {
            node: None,
            name: name.to_owned(),
            address: Some(address).filter(|it| it.to_string() != name),
        },
        hops: taken,
        ended,
        held_by,
        heading: last.and_then(heading).unwrap_or(address),
        frames,
        left_out,
        filter: display_filter(&seen.frames),
    }
}

/// To the gateway, which is on nobody's way within the cluster.
fn went_astray(from: &End, address: IpAddr, last: &Sighting) -> bool {
    let inside = from.node.is_some() && !is_outside(address);
    inside && last.to.iter().any(|port| is_gateway(port))
}

/// That of the first connection of requests that was on the wire and not answered.
pub(crate) fn first_unanswered(seen: &[(Crossing, Seen)], layout: Layout) -> Option<Trace> {
    let of_each = seen.iter().flat_map(|(crossing, seen)| {
        let all = connections(&seen.frames).into_iter();
        all.map(move |connection| (crossing, connection))
    });
    let mut lost = of_each.filter(|(_, it)| it.isn.is_some() && !it.answered());
    let (crossing, connection) = lost.next()?;
    let frames = Seen {
        frames: connection.frames,
        ..Seen::default()
    };
    Some(trace(crossing, &frames, layout))
}

/// The hops that it took and, where one is missing, where it went instead, if anywhere, and the one that
/// is missing.
fn taken(crossing: &Crossing, frames: &[Sighting], layout: Layout) -> Vec<Hop> {
    let mut taken = Vec::new();
    let (from, to) = (crossing.from.node, crossing.to.node);
    if from == to {
        // None of it should have been there.
        return frames
            .first()
            .map(|it| hop(it, false))
            .into_iter()
            .collect();
    }
    for (answer, way) in [
        (false, hops(layout, from, to)),
        (true, hops(layout, to, from)),
    ] {
        for (here, there) in way {
            let here_from = |it: &&Sighting| {
                *it.from == *here && crossing.is_request(it) != answer && !is_error(it)
            };
            let mut leaving = frames.iter().filter(here_from);
            let first = leaving.next();
            let arrived = first
                .into_iter()
                .chain(leaving)
                .find(|it| arrives(it, &there));
            match arrived {
                Some(frame) => taken.push(hop(frame, answer)),
                None => {
                    taken.extend(first.map(|frame| hop(frame, answer)));
                    taken.push(Hop {
                        from: here,
                        to: there,
                        answer,
                        at_us: None,
                    });
                    return taken;
                }
            }
        }
    }
    taken
}

fn is_error(frame: &Sighting) -> bool {
    frame
        .packet()
        .is_some_and(|packet| packet.about().is_some())
}

fn hop(frame: &Sighting, answer: bool) -> Hop {
    let to = match (&*frame.to, &*frame.lost) {
        ([], [(port, why), ..]) => format!("{port} (lost: {why})"),
        ([], []) => "nowhere".to_owned(),
        (to, _) => to.join(", "),
    };
    Hop {
        from: frame.from.to_string(),
        to,
        answer,
        at_us: Some(u64::try_from(frame.at.as_micros()).unwrap_or(u64::MAX)),
    }
}

/// Who had its last frame and did not send it on, or sent it astray.
fn held_by(crossing: &Crossing, last: Option<&Sighting>, layout: Layout) -> Option<u32> {
    let Some(last) = last else {
        return Some(crossing.from.node);
    };
    if !last.lost.is_empty() {
        return filtered_by(last);
    }
    let way = crossing.way_of(last, layout);
    let hop = way.iter().find(|(from, _)| **from == *last.from);
    match hop {
        Some((_, to)) if arrives(last, to) => node_number(to),
        _ => node_number(&last.from),
    }
}

/// Whose addresses an address filter did not find in it. Whatever else a switch loses was lost between machines.
fn filtered_by(last: &Sighting) -> Option<u32> {
    let mut lost = last.lost.iter();
    let (port, _) = lost.find(|(_, why)| *why == Lost::Filtered)?;
    node_number(port)
}

fn heading(frame: &Sighting) -> Option<IpAddr> {
    Some(frame.packet()?.destination)
}
