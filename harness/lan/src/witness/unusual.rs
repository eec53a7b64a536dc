//! What stands out among frames, even where every answer was right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::witness::Sighting;
use crate::witness::facts::Transport;
use crate::witness::notes::Lost;
use crate::witness::story::{Again, connections, second_syns};

/// A copy that is so young when the last frame is seen may still be answered.
const YOUNG: Duration = Duration::from_secs(3);
/// Handshakes that tell how far apart two ports are: the shortest of them, since whoever is busy
/// lengthens some.
const HANDSHAKES: usize = 5;
/// Pairs of ports of which one can stand out.
const PAIRS: usize = 3;
/// A pair stands out beyond the median of all by so many median absolute deviations ...
const DEVIATIONS: u32 = 10;
/// ... by as many medians again ...
const MEDIANS: u32 = 3;
/// ... and by this at least, which a busy machine can make of nothing.
const FLOOR: Duration = Duration::from_millis(30);

/// Frames of a connection that are kept before the one that stands out, and behind it.
const BEFORE: usize = 12;
const BEHIND: usize = 4;

/// What stands out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A connection was opened twice.
    SecondSyn,
    /// Segments were lost behind the wire, and sent again.
    LostAndSentAgain,
    /// Segments were sent again, and never answered.
    SentAgainUnanswered,
    /// TCP resets of connections that their ends had not closed.
    Reset,
    /// ICMP errors.
    IcmpError {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Checksums that their receiver finds wrong.
    WrongChecksum,
    /// Frames that did not get to a port.
    Lost(Lost),
    /// The shortest handshake is far longer than those of the other pairs of ports.
    Slow {
        /// Its milliseconds.
        millis: u64,
        /// The median pair's.
        usual_millis: u64,
    },
}

/// What stands out between two ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusual {
    /// What.
    pub what: What,
    /// The port that it came from.
    pub from: String,
    /// The port that it went to.
    pub to: String,
    /// How often.
    pub count: u64,
    /// The first, in words.
    pub example: String,
    /// The frames of the first's connection: the last before it, and some behind it. Of what is no
    /// connection's, none.
    pub frames: Vec<Sighting>,
}

/// What stands out among frames, by kind and pair of ports. What was sent again only because somebody
/// was slow does not, nor does what answers that when its connection is over.
#[must_use]
pub fn unusual(frames: &[Sighting]) -> Vec<Unusual> {
    let mut found = Found::default();
    let connections = connections(frames);
    for second in second_syns(&connections) {
        let both = [second.first.clone(), second.second.clone()];
        found.note(What::SecondSyn, &second.first, &second, &both);
    }
    let end = frames.last().map_or(Duration::ZERO, |frame| frame.at);
    let mut handshakes: BTreeMap<(Arc<str>, Arc<str>), Vec<Duration>> = BTreeMap::new();
    for connection in &connections {
        for repeat in connection.repeats() {
            let what = match repeat.fate {
                Again::FirstLost => What::LostAndSentAgain,
                Again::Unanswered if repeat.again.at + YOUNG < end => What::SentAgainUnanswered,
                Again::Needless | Again::Unanswered | Again::Untold => continue,
            };
            found.note(what, &repeat.first, &repeat, &connection.frames);
        }
        for reset in connection.resets() {
            found.note(What::Reset, reset, reset, &connection.frames);
        }
        if let (Some(time), Some(syn)) = (connection.handshake(), connection.syn())
            && let [to] = &*syn.to
        {
            let pair = (Arc::clone(&syn.from), Arc::clone(to));
            handshakes.entry(pair).or_default().push(time);
        }
    }
    for frame in frames {
        for (_, why) in &frame.lost {
            found.note(What::Lost(*why), frame, frame, &[]);
        }
        let Some(packet) = frame.packet() else {
            continue;
        };
        if packet.wrong_checksum().is_some() {
            found.note(What::WrongChecksum, frame, frame, &[]);
        }
        if let Transport::Icmp(icmp) = &packet.transport
            && icmp.about.is_some()
        {
            let (kind, code) = (icmp.kind, icmp.code);
            found.note(What::IcmpError { kind, code }, frame, frame, &[]);
        }
    }
    let mut all: Vec<Unusual> = found.0.into_values().collect();
    all.extend(slow(&handshakes));
    all
}

/// Those found so far.
#[derive(Default)]
struct Found(BTreeMap<(What, String, String), Unusual>);

impl Found {
    fn note(
        &mut self,
        what: What,
        frame: &Sighting,
        example: &impl fmt::Display,
        connection: &[Sighting],
    ) {
        let from = frame.from.to_string();
        let to = match &*frame.to {
            [] => frame.lost.iter().map(|(port, _)| &**port).collect(),
            to => to.join(", "),
        };
        let key = (what.clone(), from.clone(), to.clone());
        let found = self.0.entry(key).or_insert_with(|| Unusual {
            what,
            from,
            to,
            count: 0,
            example: example.to_string(),
            frames: around(frame, connection),
        });
        found.count += 1;
    }
}

/// Those of a connection that come shortly before and behind one of them.
fn around(frame: &Sighting, connection: &[Sighting]) -> Vec<Sighting> {
    let at = connection
        .iter()
        .position(|other| other.number == frame.number);
    let at = at.unwrap_or_default();
    let shown = at.saturating_sub(BEFORE)..connection.len().min(at + 1 + BEHIND);
    connection[shown].to_vec()
}

/// Pairs of ports that are far further apart than the others.
fn slow(handshakes: &BTreeMap<(Arc<str>, Arc<str>), Vec<Duration>>) -> Vec<Unusual> {
    let enough = handshakes
        .iter()
        .filter(|(_, times)| times.len() >= HANDSHAKES);
    let shortest: Vec<_> = enough
        .filter_map(|(pair, times)| Some((pair, times.len(), *times.iter().min()?)))
        .collect();
    if shortest.len() < PAIRS {
        return Vec::new();
    }
    let usual = median(shortest.iter().map(|(.., time)| *time));
    let deviation = median(shortest.iter().map(|(.., time)| time.abs_diff(usual)));
    let bound = usual + (deviation * DEVIATIONS).max(usual * MEDIANS).max(FLOOR);
    let far = shortest.into_iter().filter(|(.., time)| *time > bound);
    far.map(|((from, to), count, time)| Unusual {
        what: What::Slow {
            millis: millis(time),
            usual_millis: millis(usual),
        },
        from: from.to_string(),
        to: to.to_string(),
        count: 1,
        example: format!(
            "the shortest of {count} handshakes took {} ms, that of the median pair {}",
            millis(time),
            millis(usual)
        ),
        frames: Vec::new(),
    })
    .collect()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::SecondSyn => f.write_str("a second SYN for one connection"),
            What::LostAndSentAgain => f.write_str("lost behind the wire, and sent again"),
            What::SentAgainUnanswered => f.write_str("sent again, and never answered"),
            What::Reset => f.write_str("TCP reset"),
            What::IcmpError { .. } => f.write_str("ICMP error"),
            What::WrongChecksum => f.write_str("wrong checksum"),
            What::Lost(why) => write!(f, "lost by the switch: {why}"),
            What::Slow { .. } => f.write_str("far slower than the other pairs"),
        }
    }
}

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unusual {
            what,
            from,
            to,
            count,
            example,
            frames: _,
        } = self;
        write!(f, "{from} -> {to}: {what} ({count}); {example}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::tests::{Segment, Wire};

    fn handshakes(pairs: &[(&str, u64, usize)]) -> Vec<Unusual> {
        let times = pairs.iter().map(|(to, millis, count)| {
            let pair = (Arc::from("node1"), Arc::from(*to));
            (pair, vec![Duration::from_millis(*millis); *count])
        });
        slow(&times.collect())
    }

    #[test]
    fn a_pair_is_slow_by_what_the_others_take() {
        let told = handshakes(&[("a", 2, 6), ("b", 3, 6), ("c", 80, 6), ("d", 2, 6)]);
        insta::assert_snapshot!(told[0], @"node1 -> c: far slower than the other pairs (1); the shortest of 6 handshakes took 80 ms, that of the median pair 3");
        assert_eq!(told.len(), 1);
        // All are slow: the machine is.
        assert_eq!(handshakes(&[("a", 70, 6), ("b", 90, 6), ("c", 160, 6)]), []);
        // What a busy machine makes of nothing.
        assert_eq!(handshakes(&[("a", 1, 6), ("b", 1, 6), ("c", 25, 6)]), []);
        // Too few to tell.
        assert_eq!(handshakes(&[("a", 2, 6), ("b", 3, 6), ("c", 80, 4)]), []);
        assert_eq!(handshakes(&[("a", 2, 6), ("c", 80, 6)]), []);
    }

    #[test]
    fn one_late_answer_makes_no_pair_slow() {
        let pair = |to: &str, millis: &[u64]| {
            let times = millis.iter().map(|it| Duration::from_millis(*it)).collect();
            ((Arc::from("node1"), Arc::from(to)), times)
        };
        let usual = [2, 3, 2, 4, 2];
        let times = [
            pair("a", &usual),
            pair("b", &usual),
            pair("c", &[900, 800, 3, 700, 900]),
        ];
        assert_eq!(slow(&times.into_iter().collect()), []);
    }

    #[test]
    fn what_stands_out_is_counted_by_kind_and_ports() {
        let mut wire = Wire::new();
        let syn = |own| Segment::new(1000, "S").at(own, 0);
        wire.carries(&syn(1));
        wire.pause(1000);
        wire.carries(&syn(1001));
        wire.carries(&Segment::new(9000, "S").ack(1001).at(500, 1001).reply());
        let reset = Segment::new(9001, "R").reply();
        wire.carries(&reset);
        wire.carries(&reset);
        let all = unusual(&wire.all());
        let told: Vec<String> = all.iter().map(|it| format!("{it}\n")).collect();
        insta::assert_snapshot!(told.concat(), @"
        node1 -> node2: lost behind the wire, and sent again (1); 0.004000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP SYN; 1001 ms later sent again: the first was lost behind the wire
        node2 -> node1: TCP reset (2); 1.007000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP RST
        ");
    }

    #[test]
    fn the_frames_around_the_first_are_told_with_their_numbers() {
        let mut wire = Wire::new();
        for payload in 0..20 {
            wire.carries(&Segment::new(1000 + payload, "").ack(9001).at(500, 500));
        }
        wire.carries(&Segment::new(9001, "R").reply());
        for again in 0..6 {
            wire.carries(&Segment::new(1020 + again, "").ack(9001).at(500, 500));
        }
        let [reset] = &*unusual(&wire.all()) else {
            panic!("a reset alone stands out");
        };
        let told = reset.frames.iter().map(|it| format!("{it:#}"));
        let told: Vec<String> = told.collect();
        assert_eq!(told.len(), BEFORE + 1 + BEHIND);
        insta::assert_snapshot!(told[BEFORE], @"0.024000 s node2 -> node1: 10.1.2.2:80 > 10.1.1.2:40000 TCP RST, seq 9001");
        insta::assert_snapshot!(told[BEFORE + 1], @"0.025000 s node1 -> node2: 10.1.1.2:40000 > 10.1.2.2:80 TCP ACK, seq 1020 ack 9001");
    }

    /// The answer to a copy may be under way.
    #[test]
    fn a_young_copy_is_not_called_unanswered() {
        let mut wire = Wire::new();
        let syn = |own| Segment::new(1000, "S").at(own, 0);
        wire.carries(&syn(1));
        wire.pause(1000);
        wire.carries(&syn(1001));
        assert_eq!(unusual(&wire.all()), []);
        wire.pause(4000);
        wire.carries(&Segment::new(1, "").to("10.1.2.9", 2).ack(1));
        assert_eq!(unusual(&wire.all())[0].what, What::SentAgainUnanswered);
    }

    #[test]
    fn needless_copies_do_not_stand_out() {
        let mut wire = Wire::new();
        wire.carries(&Segment::new(1000, "S").at(1, 0));
        wire.pause(1000);
        wire.carries(&Segment::new(1000, "S").at(1001, 0));
        wire.carries(&Segment::new(9000, "S").ack(1001).at(500, 1).reply());
        assert_eq!(unusual(&wire.all()), []);
    }
}
