//! TCP connections as the wire saw them: who opened what, what was sent again and why, and whether a
//! connection was opened twice.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::witness::Sighting;
use crate::witness::facts::{Flow, Packet, Tcp};

/// A TCP connection, as far as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it. Of one whose SYN was not seen: the end with the higher port.
    pub client: SocketAddr,
    /// Who was asked.
    pub server: SocketAddr,
    /// The client's first sequence number, when its SYN was seen.
    pub isn: Option<u32>,
    /// Its frames, and ICMP errors about them, in order.
    pub frames: Vec<Sighting>,
}

/// A segment that crossed the wire again, from the same port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The frame that carried it first.
    pub first: Sighting,
    /// The frame that carried it again.
    pub again: Sighting,
    /// What became of the first.
    pub fate: Again,
}

/// What became of a segment that was sent again. The answer tells which copy it answers by the time
/// stamp that it echoes (the Eifel algorithm, RFC 3522), or reports one as a duplicate (RFC 2883).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Again {
    /// It had arrived, and the answer was late: whoever is slow sends more than is needed.
    Needless,
    /// It was lost behind the wire: only the copy was answered.
    FirstLost,
    /// Neither was answered.
    Unanswered,
    /// The ends use no time stamps that would tell.
    Untold,
}

/// A second SYN for one connection: the first was forgotten by somebody on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondSyn {
    /// The SYN that came first.
    pub first: Sighting,
    /// The other one.
    pub second: Sighting,
}

/// The TCP connections among frames, by the first frame of each.
#[must_use]
pub fn connections(frames: &[Sighting]) -> Vec<Connection> {
    let mut all: Vec<Connection> = Vec::new();
    let mut open: BTreeMap<Flow, usize> = BTreeMap::new();
    for frame in frames {
        let Some(packet) = frame.packet() else {
            continue;
        };
        let Some(tcp) = packet.tcp() else {
            if let Some(known) = packet.about().and_then(|flow| open.get(&flow)) {
                all[*known].frames.push(frame.clone());
            }
            continue;
        };
        let opens = tcp.syn && tcp.ack.is_none();
        let flow = packet.flow();
        let known = open.get(&flow).copied();
        let same = known.filter(|index| !opens || all[*index].isn == Some(tcp.seq));
        let index = same.unwrap_or_else(|| {
            all.push(Connection::beginning_with(packet, opens.then_some(tcp.seq)));
            open.insert(flow, all.len() - 1);
            all.len() - 1
        });
        all[index].frames.push(frame.clone());
    }
    all
}

/// Every second SYN: with another sequence number while the first connection had not ended, or with the
/// same one, from the same port, to another server. A SYN that is merely sent again is none.
#[must_use]
pub fn second_syns(connections: &[Connection]) -> Vec<SecondSyn> {
    let mut found = Vec::new();
    let mut by_flow: BTreeMap<Flow, &Connection> = BTreeMap::new();
    let mut by_number: BTreeMap<(SocketAddr, u32, Arc<str>), &Connection> = BTreeMap::new();
    for connection in connections {
        let (Some(syn), Some(isn)) = (connection.syn(), connection.isn) else {
            continue;
        };
        let Some(packet) = syn.packet() else {
            continue;
        };
        let earlier = by_flow.insert(packet.flow(), connection);
        let earlier = earlier.filter(|earlier| !earlier.ended_before(syn.number));
        let key = (connection.client, isn, Arc::clone(&syn.from));
        let elsewhere = by_number.insert(key, connection);
        let elsewhere = elsewhere.filter(|other| other.server != connection.server);
        if let Some(first) = earlier.or(elsewhere).and_then(Connection::syn) {
            found.push(SecondSyn {
                first: first.clone(),
                second: syn.clone(),
            });
        }
    }
    found
}

impl Connection {
    fn beginning_with(packet: &Packet, isn: Option<u32>) -> Self {
        let (sender, receiver) = (packet.sender(), packet.receiver());
        let (client, server) = match isn.is_some() || sender.port() > receiver.port() {
            true => (sender, receiver),
            false => (receiver, sender),
        };
        Connection {
            client,
            server,
            isn,
            frames: Vec::new(),
        }
    }

    fn segments(&self) -> impl DoubleEndedIterator<Item = (&Sighting, &Packet, &Tcp)> {
        let segments = self.frames.iter();
        segments.filter_map(|frame| frame.tcp().map(|(packet, tcp)| (frame, packet, tcp)))
    }

    /// The first frame with its SYN.
    #[must_use]
    pub fn syn(&self) -> Option<&Sighting> {
        let mut segments = self.segments();
        let (frame, ..) = segments.find(|(_, _, tcp)| tcp.syn && tcp.ack.is_none())?;
        Some(frame)
    }

    /// The first frame with the answer to its SYN.
    #[must_use]
    pub fn accepted(&self) -> Option<&Sighting> {
        let mut segments = self.segments();
        let (frame, ..) = segments.find(|(_, _, tcp)| tcp.syn && tcp.ack.is_some())?;
        Some(frame)
    }

    /// From the SYN to its answer, both where they crossed the wire first; nothing of a SYN that was
    /// sent again, whose answer may be to either.
    #[must_use]
    pub fn handshake(&self) -> Option<Duration> {
        let syns = self
            .segments()
            .filter(|(_, _, tcp)| tcp.syn && tcp.ack.is_none());
        let (syn, accepted) = (self.syn()?, self.accepted()?);
        let once = syns.filter(|(frame, ..)| frame.from == syn.from).count() == 1;
        once.then(|| accepted.at.saturating_sub(syn.at))
    }

    /// Whether the server has sent anything that the client had asked for.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.segments()
            .any(|(_, packet, tcp)| packet.sender() == self.server && tcp.payload > 0)
    }

    fn ended_before(&self, number: u64) -> bool {
        let mut segments = self.segments();
        segments.any(|(frame, _, tcp)| frame.number < number && (tcp.fin || tcp.rst))
    }

    /// The resets that ended it. One that comes when both ends have closed it, and each knows that of the
    /// other, ends nothing: an end has sent something again for nothing, and the other had forgotten the
    /// connection by then (RFC 9293, 3.10.7.1).
    pub fn resets(&self) -> impl Iterator<Item = &Sighting> {
        let closed = self.closed();
        self.segments()
            .filter(move |(frame, _, tcp)| tcp.rst && closed.is_none_or(|at| frame.number < at))
            .map(|(frame, ..)| frame)
    }

    /// The frame by which both ends' FINs were acknowledged.
    fn closed(&self) -> Option<u64> {
        let acknowledged = |end: SocketAddr| {
            let mut fins = self.segments();
            let (fin, _, tcp) = fins.find(|(_, packet, tcp)| packet.sender() == end && tcp.fin)?;
            let mut answers = self.segments();
            let (answer, ..) = answers.find(|(frame, packet, answer)| {
                let of_other = frame.number > fin.number && packet.sender() != end;
                of_other && answer.ack.is_some_and(|ack| !before(ack, tcp.end()))
            })?;
            Some(answer.number)
        };
        Some(acknowledged(self.client)?.max(acknowledged(self.server)?))
    }

    /// What was sent again.
    #[must_use]
    pub fn repeats(&self) -> Vec<Repeat> {
        let mut repeats = Vec::new();
        let mut ways: BTreeMap<(SocketAddr, &str), Way<'_>> = BTreeMap::new();
        for (frame, packet, tcp) in self.segments() {
            if tcp.length() == 0 || tcp.rst {
                continue;
            }
            let way = ways.entry((packet.sender(), &frame.from)).or_default();
            if let Some(first) = way.first_with(tcp) {
                repeats.push(Repeat {
                    first: first.clone(),
                    again: frame.clone(),
                    fate: self.fate(packet.sender(), first, frame),
                });
            }
            way.note(frame, tcp);
        }
        repeats
    }

    fn fate(&self, sender: SocketAddr, first: &Sighting, again: &Sighting) -> Again {
        let (Some((_, one)), Some((_, copy))) = (first.tcp(), again.tcp()) else {
            return Again::Untold;
        };
        let answers = self
            .segments()
            .filter(|(frame, packet, _)| packet.sender() != sender && frame.number > first.number);
        let of = answers.filter(|(_, _, tcp)| tcp.ack.is_some_and(|ack| !before(ack, copy.end())));
        let answers: Vec<_> = of.collect();
        let Some((answer, _, acknowledges)) = answers.first() else {
            return Again::Unanswered;
        };
        let twice = |tcp: &Tcp| {
            let block = tcp.block.zip(tcp.ack);
            block.is_some_and(|((left, right), ack)| {
                !before(ack, right) && !before(copy.seq, left) && !before(right, copy.end())
            })
        };
        if answer.number < again.number || answers.iter().any(|(_, _, tcp)| twice(tcp)) {
            return Again::Needless;
        }
        match (one.timestamps, copy.timestamps, acknowledges.timestamps) {
            (Some((first, _)), Some((again, _)), Some((_, echo))) if first != again => {
                match before(echo, again) {
                    true => Again::Needless,
                    false => Again::FirstLost,
                }
            }
            _ => Again::Untold,
        }
    }
}

/// What one end has sent from one port.
#[derive(Default)]
struct Way<'a> {
    segments: Vec<(&'a Sighting, &'a Tcp)>,
    /// The number behind the furthest of them.
    furthest: Option<u32>,
}

impl<'a> Way<'a> {
    /// The first frame that carried what a segment ends with.
    fn first_with(&self, tcp: &Tcp) -> Option<&'a Sighting> {
        let last = tcp.end().wrapping_sub(1);
        self.furthest.filter(|furthest| before(last, *furthest))?;
        let (first, _) = self.segments.iter().find(|(_, it)| it.covers(last))?;
        Some(first)
    }

    fn note(&mut self, frame: &'a Sighting, tcp: &'a Tcp) {
        let further = self
            .furthest
            .is_none_or(|furthest| before(furthest, tcp.end()));
        if further {
            self.furthest = Some(tcp.end());
        }
        self.segments.push((frame, tcp));
    }
}

impl Tcp {
    fn covers(&self, number: u32) -> bool {
        !before(number, self.seq) && before(number, self.end())
    }
}

/// Whether a number lies before another in a space that wraps (RFC 9293, 3.4; RFC 7323, 5.2).
fn before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Again::Needless => "sent again for nothing: the answer was late",
            Again::FirstLost => "sent again: the first was lost behind the wire",
            Again::Unanswered => "sent again, and never answered",
            Again::Untold => "sent again",
        })
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.again.at.saturating_sub(self.first.at);
        write!(
            f,
            "{}; {} ms later {}",
            self.first,
            after.as_millis(),
            self.fate
        )
    }
}

impl fmt::Display for SecondSyn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.second.at.saturating_sub(self.first.at);
        write!(
            f,
            "{}; {} ms later a second SYN for this connection: {}",
            self.first,
            after.as_millis(),
            self.second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::tests::{Segment, TcpOption, Wire};

    fn seen(segments: &[(u64, Segment)]) -> Vec<Connection> {
        let mut wire = Wire::new();
        for (pause, segment) in segments {
            wire.pause(*pause);
            wire.carries(segment);
        }
        connections(&wire.all())
    }

    fn fates(segments: &[(u64, Segment)]) -> Vec<Again> {
        let connections = seen(segments);
        let repeats = connections.iter().flat_map(Connection::repeats);
        repeats.map(|repeat| repeat.fate).collect()
    }

    fn syn(own: u32) -> Segment {
        Segment::new(1000, "S").at(own, 0)
    }

    fn accepts(echo: u32) -> Segment {
        Segment::new(9000, "S").ack(1001).at(500, echo).reply()
    }

    #[test]
    fn the_echoed_time_stamp_tells_which_syn_was_answered() {
        let twice = [(0, syn(1)), (1000, syn(1001))];
        let with = |answer: Segment| [&twice[..], &[(1, answer)]].concat();
        assert_eq!(fates(&with(accepts(1001))), [Again::FirstLost]);
        assert_eq!(fates(&with(accepts(1))), [Again::Needless]);
        assert_eq!(fates(&twice), [Again::Unanswered]);
        let crossed = [(0, syn(1)), (1000, accepts(1)), (1, syn(1001))];
        assert_eq!(fates(&crossed), [Again::Needless]);
        let connections = seen(&with(accepts(1001)));
        assert_eq!(second_syns(&connections), []);
        assert_eq!(connections[0].handshake(), None);
        insta::assert_snapshot!(connections[0].repeats()[0], @"0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; 1001 ms later sent again: the first was lost behind the wire");
    }

    #[test]
    fn without_time_stamps_nothing_is_concluded() {
        let plain = Segment::new(1000, "S");
        let answer = Segment::new(9000, "S").ack(1001).reply();
        let told = [(0, plain.clone()), (1000, plain), (1, answer)];
        assert_eq!(fates(&told), [Again::Untold]);
    }

    /// The receiver has both before it answers, with the newest time stamp, and says so.
    #[test]
    fn a_duplicate_that_is_reported_was_needless() {
        let data = |own| Segment::new(1001, "").ack(9001).payload(100).at(own, 500);
        let answer = |block| {
            let options = [
                TcpOption::Timestamp(600, 300),
                TcpOption::SelectiveAcknowledgement(block, [None; 3]),
            ];
            Segment::new(9001, "").ack(1101).options(&options).reply()
        };
        let sent = [(0, data(1)), (300, data(300))];
        let with = |answer: Segment| fates(&[&sent[..], &[(1, answer)]].concat());
        assert_eq!(with(answer((1001, 1101))), [Again::Needless]);
        // A block beyond what is acknowledged is of what came too early.
        assert_eq!(with(answer((1201, 1301))), [Again::FirstLost]);
    }

    /// Sequence numbers and time stamps wrap.
    #[test]
    fn numbers_wrap() {
        let data = |own| {
            Segment::new(u32::MAX - 9, "")
                .ack(1)
                .payload(100)
                .at(own, 1)
        };
        let answer = |echo| Segment::new(1, "").ack(90).at(2, echo).reply();
        let last = u32::MAX - 5;
        assert_eq!(
            fates(&[(0, data(last)), (9, data(3)), (1, answer(3))]),
            [Again::FirstLost]
        );
        assert_eq!(
            fates(&[(0, data(last)), (9, data(3)), (1, answer(last))]),
            [Again::Needless]
        );
    }

    #[test]
    fn new_data_and_pure_acknowledgements_are_no_repeats() {
        let ack = Segment::new(1001, "").ack(9001).at(2, 500);
        let first = ack.clone().payload(100);
        let next = Segment::new(1101, "").ack(9001).payload(100).at(2, 500);
        // Sent again together with what is new, as one segment.
        let longer = ack.clone().payload(300);
        assert_eq!(
            fates(&[
                (0, ack.clone()),
                (0, ack),
                (0, first),
                (0, next),
                (0, longer)
            ]),
            []
        );
    }

    /// As it was seen: the server sends its FIN again, since it has waited for the client's; that comes at the
    /// same time, and the FIN behind what acknowledges it, with which the client forgets the connection.
    #[test]
    fn a_reset_of_what_both_ends_have_closed_ends_nothing() {
        let answer = Segment::new(9001, "F").ack(1101).payload(200).reply();
        let fin = Segment::new(1101, "F").ack(9202);
        let last = Segment::new(9202, "").ack(1102).reply();
        let reset = Segment::new(1102, "R");
        let resets = |segments: &[Segment]| {
            let paused: Vec<_> = segments.iter().map(|it| (1, it.clone())).collect();
            seen(&paused)[0].resets().count()
        };
        let closed = [&answer, &fin, &last, &answer, &reset].map(Clone::clone);
        assert_eq!(resets(&closed), 0);
        // The client's FIN is not acknowledged, or the server's is not.
        assert_eq!(resets(&[&closed[..2], &closed[3..]].concat()), 1);
        let early = Segment::new(1101, "F").ack(9001);
        assert_eq!(resets(&[answer, early, last, reset.clone()]), 1);
        assert_eq!(resets(&[reset]), 1);
    }

    /// A node that forwards what it got puts the same segment on the wire once more.
    #[test]
    fn what_is_forwarded_is_not_sent_again() {
        let mut onward = syn(1);
        onward.ports = (3, 2);
        let mut first = syn(1);
        first.ports = (1, 3);
        let connections = seen(&[(0, first), (0, onward), (0, accepts(1))]);
        assert_eq!(connections[0].repeats(), []);
        assert!(connections[0].handshake().is_some());
    }

    #[test]
    fn a_second_syn_is_told_from_one_sent_again_and_from_a_new_connection() {
        let other = Segment::new(7777, "S").at(1001, 0);
        let count = |segments: &[(u64, Segment)]| second_syns(&seen(segments)).len();
        assert_eq!(count(&[(0, syn(1)), (1000, other.clone())]), 1);
        let end = Segment::new(1001, "F").ack(9001).at(3, 500);
        assert_eq!(
            count(&[(0, syn(1)), (1, accepts(1)), (1, end), (9, other)]),
            0
        );
        // Translated anew: the same SYN goes to another Pod.
        let elsewhere = syn(1001).to("10.1.3.2", 3);
        let found = second_syns(&seen(&[(0, syn(1)), (1000, elsewhere.clone())]));
        insta::assert_snapshot!(found[0], @"0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; 1001 ms later a second SYN for this connection: 1.005000 s node1 -> node3: 10.1.1.2:40000 > 10.1.3.2:80 TCP SYN");
        // Translated on its way, by the node that got it.
        let mut onward = elsewhere;
        onward.ports = (2, 3);
        assert_eq!(count(&[(0, syn(1)), (0, onward)]), 0);
    }

    #[test]
    fn who_asked_is_told_without_the_syn() {
        let late = Segment::new(9001, "")
            .ack(1101)
            .payload(10)
            .at(501, 3)
            .reply();
        let connections = seen(&[(0, late)]);
        assert_eq!(connections[0].client.port(), 40000);
        assert_eq!(
            (connections[0].isn, connections[0].answered()),
            (None, true)
        );
    }
}
