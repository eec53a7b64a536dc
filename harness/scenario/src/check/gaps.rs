//! Gaps in steady questions, by the wire's clock alone.
//!
//! A question and its answer are a datagram each, and neither is sent again. One was lost when one that was
//! asked later has been answered: both ends and the wire keep their order. So guests that stand still make
//! no gap, however long: what they answer late is answered, and what they do not ask is no question.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use podwire_cluster::addresses::node_name;
use podwire_lan::witness::{Flow, Sighting, Transport};

use crate::check::failure::{Cause, Failure};
use crate::check::party::Party;

/// A question, when its frame entered the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    at: Duration,
    /// Whether its answer was given to the sender's node.
    pub(crate) answered: bool,
    /// The frame, in words.
    frame: String,
}

/// Questions of which none was answered, between two that were.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap<'a> {
    /// When the answered one before them was asked.
    from: Duration,
    /// When the one behind them was.
    to: Duration,
    lost: &'a [Question],
}

impl Gap<'_> {
    fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

impl fmt::Display for Gap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:.1} ms from {:.6} s to {:.6} s of the wire's clock, {} questions",
            millis(self.length()),
            self.from.as_secs_f64(),
            self.to.as_secs_f64(),
            self.lost.len()
        )?;
        match self.lost.first() {
            Some(first) => write!(f, ", the first of them {}", first.frame),
            None => Ok(()),
        }
    }
}

/// One party's questions to another, in the order in which they entered the wire.
pub(crate) fn questions(frames: &[Sighting], from: &Party, to: &Party) -> Vec<Question> {
    let node = node_name(from.node);
    let mut questions: Vec<Question> = Vec::new();
    let mut last: BTreeMap<Flow, usize> = BTreeMap::new();
    for frame in frames {
        let Some(packet) = frame.packet() else {
            continue;
        };
        if !matches!(packet.transport, Transport::Udp(_)) {
            continue;
        }
        let ends = (packet.source, packet.destination);
        if ends == (from.address.into(), to.address.into()) && *frame.from == *node {
            last.insert(packet.flow(), questions.len());
            questions.push(Question {
                at: frame.at,
                answered: false,
                frame: frame.to_string(),
            });
        } else if ends == (to.address.into(), from.address.into())
            && frame.to.iter().any(|port| **port == *node)
            && let Some(question) = last.get(&packet.flow())
        {
            questions[*question].answered = true;
        }
    }
    questions
}

/// No question was lost, or the time between the answered ones around it is shorter than that.
///
/// # Errors
/// A [`Failure`] with the longest gap; where no question was answered.
pub(crate) fn no_gap(
    questions: &[Question],
    from: &Party,
    to: &Party,
    as_long_as: Duration,
) -> Result<(), Failure> {
    let expected = format!(
        "no gap of {} ms in the questions of {from} to {to}",
        as_long_as.as_millis()
    );
    let failed = |seen: String| {
        Err(Failure::new(Cause::TimedOut, &expected, seen).look(format!(
            "the wire capture: {from}'s datagrams to {to} on the way from {} to {}",
            node_name(from.node),
            node_name(to.node)
        )))
    };
    let answered = questions.iter().filter(|it| it.answered).count();
    let all = questions.len();
    if answered == 0 {
        return failed(format!("{all} questions on the wire, and no answer"));
    }
    let gaps = gaps(questions);
    let count = gaps.len();
    match gaps.into_iter().max_by_key(Gap::length) {
        Some(gap) if gap.length() >= as_long_as => failed(format!(
            "{gap}; the longest of {count}, {answered} of {all} questions were answered"
        )),
        _ => Ok(()),
    }
}

fn gaps(questions: &[Question]) -> Vec<Gap<'_>> {
    let answered = questions.iter().enumerate().filter(|(_, it)| it.answered);
    let answered: Vec<(usize, &Question)> = answered.collect();
    let pairs = answered.windows(2).filter_map(|pair| match pair {
        [(before, one), (after, other)] => Some(Gap {
            from: one.at,
            to: other.at,
            lost: &questions[before + 1..*after],
        }),
        _ => None,
    });
    pairs.filter(|gap| !gap.lost.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use podwire_lan::witness::{Checksum, Content, Lost, Packet, Udp};
    use proptest::prelude::*;

    use super::*;

    const HOLE: Duration = Duration::from_millis(200);

    fn party(node: u32) -> Party {
        let address = [10, 1, u8::try_from(node).unwrap(), 2];
        Party::new(format!("blue-{node}"), node, true, address)
    }

    /// A datagram between the two, by the client's port.
    fn datagram(millis: u64, port: u16, back: bool) -> Sighting {
        let (one, other) = (party(1), party(2));
        let (from, to, source_port, destination_port) = match back {
            false => (&one, &other, port, 80),
            true => (&other, &one, 80, port),
        };
        let name = |party: &Party| Arc::from(node_name(party.node));
        Sighting {
            number: millis,
            at: Duration::from_millis(millis),
            length: 58,
            segment: None,
            from: name(from),
            to: vec![name(to)],
            lost: vec![],
            flooded: false,
            addresses: None,
            tunnel: None,
            content: Content::Ip(Packet {
                source: IpAddr::from(from.address),
                destination: IpAddr::from(to.address),
                id: Some(0),
                ttl: 63,
                checksum: Checksum::Right,
                transport: Transport::Udp(Udp {
                    source_port,
                    destination_port,
                    payload: 16,
                    checksum: Checksum::Right,
                }),
            }),
        }
    }

    fn asked(millis: u64, port: u16) -> Sighting {
        datagram(millis, port, false)
    }

    fn answered(millis: u64, port: u16) -> Sighting {
        datagram(millis, port, true)
    }

    fn lost(mut frame: Sighting) -> Sighting {
        let to = std::mem::take(&mut frame.to);
        frame.lost = to.into_iter().map(|port| (port, Lost::Rule)).collect();
        frame
    }

    fn judged(mut frames: Vec<Sighting>) -> Result<(), Failure> {
        frames.sort_by_key(|frame| frame.number);
        let (from, to) = (party(1), party(2));
        no_gap(&questions(&frames, &from, &to), &from, &to, HOLE)
    }

    #[test]
    fn a_hole_is_a_gap_from_one_answered_question_to_the_next() {
        let mut frames = vec![asked(0, 1), answered(10, 1)];
        frames.extend([lost(asked(50, 2)), lost(asked(100, 3)), lost(asked(150, 4))]);
        frames.extend([asked(205, 5), answered(900, 5)]);
        let failure = judged(frames).unwrap_err();
        assert_eq!(failure.cause, Cause::TimedOut);
        insta::assert_snapshot!(failure, @"expected no gap of 200 ms in the questions of blue-1 (10.1.1.2 on node1) to blue-2 (10.1.2.2 on node2); seen (timed out): 205.0 ms from 0.000000 s to 0.205000 s of the wire's clock, 3 questions, the first of them 0.050000 s node1 -> nowhere (lost at node2: a rule took it): 10.1.1.2:2 > 10.1.2.2:80 UDP, 16 octets; the longest of 1, 2 of 5 questions were answered");
    }

    #[test]
    fn what_is_shorter_than_that_is_none() {
        let frames = vec![
            asked(0, 1),
            answered(10, 1),
            lost(asked(50, 2)),
            asked(199, 3),
            answered(500, 3),
        ];
        assert_eq!(judged(frames), Ok(()));
    }

    #[test]
    fn an_answer_that_the_wire_does_not_give_to_the_sender_is_none() {
        let around = |between: Vec<Sighting>| {
            let mut frames = vec![asked(0, 1), answered(10, 1)];
            frames.extend(between);
            frames.extend([asked(300, 9), answered(310, 9)]);
            judged(frames)
        };
        assert_eq!(around(vec![asked(100, 2), answered(110, 2)]), Ok(()));
        assert!(around(vec![asked(100, 2), lost(answered(110, 2))]).is_err());
        // Nor is one to another's question.
        assert!(around(vec![asked(100, 2), answered(110, 3)]).is_err());
    }

    #[test]
    fn what_is_under_way_is_no_loss_and_silence_no_answer() {
        let under_way = vec![asked(0, 1), answered(10, 1), asked(300, 2), asked(900, 3)];
        assert_eq!(judged(under_way), Ok(()));
        let failure = judged(vec![asked(0, 1), asked(300, 2)]).unwrap_err();
        assert_eq!(failure.seen, "2 questions on the wire, and no answer");
        assert!(judged(vec![]).is_err());
    }

    /// A port may be had again by a later question.
    #[test]
    fn an_answer_is_that_of_the_question_asked_last_from_there() {
        let frames = vec![
            asked(0, 1),
            answered(10, 1),
            lost(asked(100, 2)),
            asked(300, 2),
            answered(310, 2),
        ];
        assert!(judged(frames).is_err());
    }

    proptest! {
        /// However late anybody is: the guests answer in order what they get, and ask when they come to it.
        #[test]
        fn guests_that_stand_still_make_no_gap(
            pauses in prop::collection::vec((0_u64..2000, 0_u64..2000), 1..50),
        ) {
            let (mut now, mut busy) = (0, 0);
            let mut frames = Vec::new();
            for (port, (asks, takes)) in (1..).zip(&pauses) {
                now += asks;
                busy = busy.max(now) + takes;
                frames.extend([asked(now, port), answered(busy, port)]);
            }
            prop_assert_eq!(judged(frames), Ok(()));
        }

        /// A hole that has swallowed a question is a gap as long as it at least, whenever anybody asks.
        #[test]
        fn a_hole_that_has_swallowed_a_question_is_seen(
            pauses in prop::collection::vec(1_u64..150, 10..50),
            begins in 1_u64..400,
        ) {
            let (mut now, mut frames, mut swallowed) = (0, Vec::new(), 0);
            let mut after = 0;
            frames.extend([asked(now, 1), answered(now, 1)]);
            for (port, pause) in (2..).zip(&pauses) {
                now += pause;
                if (begins..begins + 200).contains(&now) {
                    swallowed += 1;
                    frames.push(lost(asked(now, port)));
                } else {
                    after += u32::from(now >= begins);
                    frames.extend([asked(now, port), answered(now + 40, port)]);
                }
            }
            prop_assume!(swallowed > 0 && after > 0);
            prop_assert!(judged(frames).is_err());
        }
    }
}
