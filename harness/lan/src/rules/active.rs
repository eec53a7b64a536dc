//! One rule at work: a frame and the time in, what becomes of it out.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use twox_hash::XxHash3_64;

use super::chance::{Chance, Gilbert, Odds, Question};
use super::headers::Headers;
use super::report::{Realised, RuleId, RuleReport};
use super::rule::Rule;
use super::waiting::Delayed;
use crate::frame::HEADER;

/// Flows remembered at least: twice that at most, those that were quiet for longest go first. One that
/// was forgotten begins anew.
const FLOWS: usize = 16_384;

/// What becomes of a frame: none, one or two copies go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fate(pub(super) [Option<Copied>; 2]);

/// A copy of a frame that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) due: Duration,
    /// The bit that is flipped, counted from the frame's first.
    pub(super) flipped: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: RuleId,
    pub(super) rule: Rule,
    /// The ports of its selector.
    from: Option<usize>,
    to: Option<usize>,
    number: u64,
    flows: Flows,
    /// When the rate's link has sent all that it has taken.
    free_at: Duration,
    pub(super) realised: Realised,
    late: Late,
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    frames: u64,
    last_lost: Option<bool>,
    /// How many were lost in a row until now.
    burst: u64,
    last_due: Duration,
}

#[derive(Debug, Default)]
struct Flows {
    newer: HashMap<u64, Flow>,
    older: HashMap<u64, Flow>,
}

impl Flows {
    fn get(&mut self, flow: u64) -> &mut Flow {
        if self.newer.len() >= FLOWS && !self.newer.contains_key(&flow) {
            self.older = std::mem::take(&mut self.newer);
        }
        let older = &mut self.older;
        let known = || older.remove(&flow).unwrap_or_default();
        self.newer.entry(flow).or_insert_with(known)
    }
}

impl Active {
    /// `from` and `to` are the ports that the selector names.
    pub(super) fn new(id: RuleId, rule: Rule, from: Option<usize>, to: Option<usize>) -> Self {
        let number = XxHash3_64::oneshot(rule.selector.to_string().as_bytes());
        Active {
            id,
            rule,
            from,
            to,
            number,
            flows: Flows::default(),
            free_at: Duration::ZERO,
            realised: Realised::default(),
            late: Late::default(),
        }
    }

    /// Whether it selects this frame on its way from port to port.
    pub(super) fn selects(&self, from: usize, to: usize, headers: &Headers) -> bool {
        self.from.is_none_or(|port| port == from)
            && self.to.is_none_or(|port| port == to)
            && headers.meets(&self.rule.selector.packets)
    }

    /// What becomes of a frame that it selects. `flow` names the flow, and the ports that it goes
    /// between.
    pub(super) fn meet(
        &mut self,
        flow: u64,
        frame: &[u8],
        headers: &Headers,
        now: Duration,
    ) -> Fate {
        let asked = &self.rule.impairment;
        let realised = &mut self.realised;
        realised.seen += 1;
        if asked.cut {
            realised.cut += 1;
            return Fate::default();
        }
        let length = headers.outer.length;
        if let (Some(hole), Some(length)) = (asked.hole, length)
            && length > usize::from(hole)
        {
            realised.holes += 1;
            return Fate::default();
        }
        let state = self.flows.get(flow);
        let chance = Chance {
            seed: asked.seed.unwrap_or_default(),
            rule: self.number,
            flow,
            number: state.frames,
        };
        state.frames += 1;
        if let Some(loss) = asked.loss {
            let odds = Gilbert::new(loss, asked.burst).next(state.last_lost);
            let lost = chance.happens(Question::Lost, 0, odds);
            state.last_lost = Some(lost);
            if lost {
                state.burst += 1;
                realised.lost += 1;
                realised.longest_burst = realised.longest_burst.max(state.burst);
                return Fate::default();
            }
            state.burst = 0;
        }
        let happens = |question, copy, share| {
            let odds: Option<Odds> = Option::map(share, Odds::from);
            odds.is_some_and(|odds| chance.happens(question, copy, odds))
        };
        let twice = happens(Question::Twice, 0, asked.duplicate);
        realised.duplicated += u64::from(twice);
        let mut fate = Fate::default();
        for (copy, place) in (0..=u8::from(twice)).zip(&mut fate.0) {
            let mut due = now;
            if let Some(rate) = asked.rate {
                let begins = self.free_at.max(now);
                let waits = rate.octets_in((begins - now).as_nanos());
                if waits > 0 && waits + frame.len() as u64 > asked.queue_octets() {
                    realised.overflowed += 1;
                    continue;
                }
                self.free_at = begins + Duration::from_nanos(rate.nanos_for(frame.len()));
                due = self.free_at;
            }
            if let Some(delay) = asked.delay {
                let jitter = asked.jitter.unwrap_or_default().nanos();
                let offset = chance.below(Question::HowLong, copy, 2 * jitter + 1);
                due += Duration::from_nanos(delay.nanos() + offset - jitter);
            }
            if !asked.reorder {
                due = due.max(state.last_due);
                state.last_due = due;
            }
            let flipped = happens(Question::Corrupted, copy, asked.corrupt)
                .then(|| flip(chance, copy, frame.len()))
                .flatten();
            realised.corrupted += u64::from(flipped.is_some());
            *place = Some(Copied { due, flipped });
        }
        fate
    }

    /// A copy went on when it came.
    pub(super) fn passed(&mut self) {
        self.realised.passed += 1;
    }

    /// A copy that had waited goes on now.
    pub(super) fn passes(&mut self, delayed: &Delayed, now: Duration) {
        self.realised.passed += 1;
        self.realised.delayed += delayed.waited(now);
        self.late.note(delayed.late(now));
    }

    pub(super) fn report(&self, waiting: u64) -> RuleReport {
        RuleReport {
            id: self.id,
            rule: self.rule.clone(),
            realised: Realised {
                waiting,
                late: self.late.percentile(99.0),
                ..self.realised.clone()
            },
        }
    }
}

/// How much later than due frames went on, of those that waited. A rule that delays none has no memory
/// for that.
#[derive(Debug, Default)]
struct Late(Option<Histogram<u64>>);

impl Late {
    /// Nanoseconds that are told apart from none ...
    const SHORTEST: u64 = 1_000;
    /// ... and those beyond which it is only known that it was longer: an hour.
    const LONGEST: u64 = 3_600_000_000_000;
    /// Within a hundredth.
    const DIGITS: u8 = 2;

    fn note(&mut self, late: Duration) {
        if self.0.is_none() {
            // It refuses no bounds but such as contradict each other.
            self.0 = Histogram::new_with_bounds(Self::SHORTEST, Self::LONGEST, Self::DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            histogram.saturating_record(nanos);
        }
    }

    fn percentile(&self, percentile: f64) -> Option<Duration> {
        let nanos = self.0.as_ref()?.value_at_percentile(percentile);
        Some(Duration::from_nanos(nanos))
    }
}

/// A bit behind the Ethernet header; none where nothing is behind it.
fn flip(chance: Chance, copy: u8, length: usize) -> Option<usize> {
    let bits = (length.checked_sub(HEADER)? * 8) as u64;
    let bit = chance.below(Question::WhichBit, copy, bits);
    (bits > 0).then_some(HEADER * 8 + usize::try_from(bit).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::headers::tests::udp;
    use super::super::rule::Impairment;
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn active(json: &str) -> Active {
        let impairment: Impairment = serde_json::from_str(json).unwrap();
        let rule = Rule {
            impairment,
            ..Rule::default()
        };
        rule.check().unwrap();
        Active::new(RuleId(1), rule, None, None)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What becomes of a frame of a flow with so many octets of IP.
    fn meet(active: &mut Active, flow: u64, octets: usize, now: Duration) -> Fate {
        let frame = udp([10, 1, 1, 2], [10, 1, 2, 3], (1, 2), &vec![0; octets - 28]);
        active.meet(flow, &frame, &Headers::of(&frame), now)
    }

    /// When its only copy goes on, after `now`.
    fn later(fate: Fate, now: Duration) -> Duration {
        match fate.0 {
            [Some(copy), None] => copy.due - now,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hole_swallows_what_is_longer_and_nothing_else() {
        let mut hole = active(r#"{"hole":1400}"#);
        assert_eq!(later(meet(&mut hole, 1, 1400, NOW), NOW), millis(0));
        assert_eq!(meet(&mut hole, 1, 1401, NOW), Fate::default());
        let strange = vec![0; 9000];
        let fate = hole.meet(1, &strange, &Headers::of(&strange), NOW);
        assert_eq!(later(fate, NOW), millis(0), "what is not IP passes");
        assert_eq!((hole.realised.seen, hole.realised.holes), (3, 1));
    }

    #[test]
    fn a_cut_takes_everything() {
        let mut cut = active(r#"{"cut":true,"delay":"1ms"}"#);
        assert_eq!(meet(&mut cut, 1, 100, NOW), Fate::default());
        assert_eq!((cut.realised.seen, cut.realised.cut), (1, 1));
    }

    #[test]
    fn a_rate_spaces_frames_and_its_queue_overflows() {
        // 1000 octets of IP and Ethernet's header take 8.112 ms at 1 mbit; two wait in 3000 octets.
        let mut rate = active(r#"{"rate":"1mbit","queue":"3000b"}"#);
        let took: Vec<_> = (0..4).map(|_| meet(&mut rate, 1, 1000, NOW)).collect();
        let micros = |frames: u64| Duration::from_micros(8112 * frames);
        assert_eq!(later(took[0].clone(), NOW), micros(1));
        assert_eq!(later(took[1].clone(), NOW), micros(2));
        assert_eq!(took[2], Fate::default());
        assert_eq!(took[3], Fate::default());
        assert_eq!((rate.realised.overflowed, rate.realised.lost), (2, 0));
        // What was sent makes room.
        let then = NOW + micros(1);
        assert_eq!(later(meet(&mut rate, 2, 1000, then), then), micros(2));
        // A frame that is longer than the queue passes on an idle link.
        let mut small = active(r#"{"rate":"1mbit","queue":"1b"}"#);
        assert_eq!(later(meet(&mut small, 1, 1000, NOW), NOW), micros(1));
    }

    #[test]
    fn jitter_keeps_a_flow_s_order_and_reorder_does_not() {
        let dues = |json: &str| {
            let mut active = active(json);
            let due = |n: u64| {
                let now = NOW + millis(n);
                now + later(meet(&mut active, 1, 100, now), now)
            };
            (0..100).map(due).collect::<Vec<_>>()
        };
        let ordered = dues(r#"{"delay":"40ms","jitter":"30ms"}"#);
        assert!(ordered.is_sorted(), "{ordered:?}");
        let free = dues(r#"{"delay":"40ms","jitter":"30ms","reorder":true}"#);
        assert!(!free.is_sorted(), "{free:?}");
        for (n, due) in (0..).map(millis).zip(free) {
            let later = due - NOW - n;
            assert!((millis(10)..=millis(70)).contains(&later), "{later:?}");
        }
    }

    #[test]
    fn a_shorter_delay_overtakes_nothing_of_the_flow() {
        let mut delay = active(r#"{"delay":"40ms"}"#);
        assert_eq!(later(meet(&mut delay, 1, 100, NOW), NOW), millis(40));
        delay.rule.impairment.delay = Some("5ms".parse().unwrap());
        assert_eq!(later(meet(&mut delay, 1, 100, NOW), NOW), millis(40));
        assert_eq!(later(meet(&mut delay, 2, 100, NOW), NOW), millis(5));
    }

    #[test]
    fn a_corrupted_frame_has_one_bit_flipped_behind_its_header() {
        let mut corrupt = active(r#"{"corrupt":"100%"}"#);
        for flow in 0..1000 {
            let fate = meet(&mut corrupt, flow, 28, NOW);
            let bit = fate.0[0].unwrap().flipped.unwrap();
            assert!((14 * 8..42 * 8).contains(&bit), "{bit}");
        }
        assert_eq!(corrupt.realised.corrupted, 1000);
        let header = [0; 14];
        let fate = corrupt.meet(1, &header, &Headers::of(&header), NOW);
        assert_eq!(fate.0[0].unwrap().flipped, None, "nothing is behind it");
    }

    #[test]
    fn a_duplicate_has_a_fate_of_its_own() {
        let mut twice =
            active(r#"{"duplicate":"100%","delay":"40ms","jitter":"9ms","reorder":true}"#);
        let apart = (0..100).filter(|flow| {
            let [one, two] = meet(&mut twice, *flow, 100, NOW).0.map(Option::unwrap);
            one.due != two.due
        });
        assert!(apart.count() > 90);
        assert_eq!(twice.realised.duplicated, 100);
    }

    #[test]
    fn forgotten_flows_leave_bounded_memory() {
        let mut loss = active(r#"{"loss":"50%"}"#);
        for flow in 0..5 * FLOWS as u64 {
            meet(&mut loss, flow, 100, NOW);
            // One that is never quiet is never forgotten.
            meet(&mut loss, u64::MAX, 100, NOW);
        }
        assert!(loss.flows.newer.len() + loss.flows.older.len() <= 2 * FLOWS);
        assert_eq!(loss.flows.get(u64::MAX).frames, 5 * FLOWS as u64);
    }

    const ALL: &str = r#"{"delay":"40ms","jitter":"9ms","loss":"30%","burst":3,"duplicate":"20%","corrupt":"20%","seed":7}"#;

    proptest! {
        /// A flow's fate is its own: whatever else the rule sees in between, and again on the next run.
        #[test]
        fn other_traffic_shifts_nothing(others in prop::collection::vec(prop::collection::vec(2_u64..9, 0..5), 1..80)) {
            let (mut quiet, mut busy) = (active(ALL), active(ALL));
            for others in others {
                for other in others {
                    meet(&mut busy, other, 200, NOW);
                }
                prop_assert_eq!(meet(&mut busy, 1, 100, NOW), meet(&mut quiet, 1, 100, NOW));
            }
        }

        /// What came is what was lost and what went on.
        #[test]
        fn nothing_is_unaccounted_for(flows in prop::collection::vec(0_u64..9, 0..200), seed: u64) {
            let mut active = active(ALL);
            active.rule.impairment.seed = Some(seed);
            active.rule.impairment.rate = Some("1mbit".parse().unwrap());
            active.rule.impairment.queue = Some("2000b".parse().unwrap());
            let mut copies = 0;
            for flow in flows {
                copies += meet(&mut active, flow, 300, NOW).0.iter().flatten().count() as u64;
            }
            let realised = &active.realised;
            prop_assert_eq!(realised.seen + realised.duplicated, realised.lost + realised.overflowed + copies);
        }
    }
}
