//! The switch with rules: frame by frame, since each may have a fate of its own.

use std::time::Duration;

use super::{Run, Switch, Verdict};
use crate::LanError;
use crate::framing::{LENGTH, Oversized, append, first_frame};
use crate::rules::filter::AddressFilter;
use crate::rules::report::{RuleId, RulesReport};
use crate::rules::rule::Rule;
use crate::rules::{self, Arrived, Headers, Mode, Passed};
use crate::tap::Tap;
use crate::tap::filter::Filter;
use crate::witness::notes::{Fate, Lost};

impl Switch {
    /// What [`Switch::ingress`] does, under rules.
    pub(super) fn ingress_by_rules(
        &mut self,
        from: usize,
        batch: &[u8],
        now: Duration,
    ) -> Result<usize, Oversized> {
        self.send_due(now);
        let mut at = 0;
        loop {
            let frame = match first_frame(&batch[at..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(at),
                Err(oversized) => return Err(oversized),
            };
            at += LENGTH + frame.len();
            let counters = &mut self.ports[from].counters;
            counters.frames_in += 1;
            counters.bytes_in += frame.len() as u64;
            if let Some(capture) = &mut self.capture {
                capture.record(from, frame, now);
            }
            self.taps.entered(from, frame);
            let headers = Headers::of(frame);
            if !self.rules.lets_in(from, &headers) {
                self.ports[from].counters.dropped.filtered += 1;
                self.note(from, frame, Fate::Filtered, now);
                continue;
            }
            let verdict = self.judge(from, frame, now);
            let arrived = Arrived {
                from,
                frame,
                number: self.note(from, frame, verdict.into(), now),
                at: now,
            };
            match verdict {
                Verdict::To(to) => self.send_by_rules(to, &arrived, &headers),
                Verdict::Flood => {
                    for to in 0..self.ports.len() {
                        if self.is_flooded(from, to) {
                            self.send_by_rules(to, &arrived, &headers);
                        }
                    }
                }
                Verdict::Filter => {}
            }
        }
    }

    fn send_by_rules(&mut self, to: usize, arrived: &Arrived<'_>, headers: &Headers) {
        let named = |number: usize| rules::Port {
            number,
            name: &self.ports[number].counters.name,
        };
        let mut passed = std::mem::take(&mut self.passed);
        let (from, to_port) = (named(arrived.from), named(to));
        let went = (self.rules).pass(&from, &to_port, arrived, headers, &mut passed);
        match went {
            Passed::On { at_once } => self.send_passed(to, at_once, passed, arrived.number),
            Passed::Lost(why) => {
                self.passed = passed;
                self.note_loss(arrived.number, to, why);
            }
        }
    }

    /// Queues framed frames that the rules let go on: copies of the one with this number.
    fn send_passed(&mut self, to: usize, count: u64, mut passed: Vec<u8>, number: u64) {
        if count > 0 {
            let run = Run {
                to,
                start: 0,
                count,
                first: number,
            };
            let (kept, why) = self.enqueue(run, &passed);
            if kept == 0 {
                self.note_loss(number, to, why);
            }
        }
        passed.clear();
        self.passed = passed;
    }

    fn note_loss(&mut self, number: u64, to: usize, why: Lost) {
        if let Some(notes) = &mut self.notes {
            notes.lost(number, 1, to, why);
        }
    }

    /// Queues the delayed frames whose time has come, but on a held segment.
    pub(crate) fn send_due(&mut self, now: Duration) {
        if self.held.is_some() {
            return;
        }
        while let Some(delayed) = self.rules.pop_due(now) {
            self.send_delayed(&delayed);
        }
    }

    fn send_delayed(&mut self, delayed: &rules::Delayed) {
        let mut passed = std::mem::take(&mut self.passed);
        append(&mut passed, &delayed.frame);
        self.send_passed(delayed.to, 1, passed, delayed.number);
    }

    /// When the next delayed frame is to be [sent](Switch::send_due).
    pub(crate) fn first_due(&self) -> Option<Duration> {
        let first = self.rules.first_due();
        first.filter(|_| self.held.is_none())
    }

    /// Sets all of these rules, the first before the others, or none of them.
    pub(crate) fn set_rules(
        &mut self,
        rules: &[Rule],
        mode: Mode,
    ) -> Result<Vec<RuleId>, LanError> {
        let port = |name: &Option<String>| match name {
            Some(name) => self.named(name).map(Some),
            None => Ok(None),
        };
        let proposed = rules.iter().map(|rule| {
            let (from, to) = (port(&rule.selector.from)?, port(&rule.selector.to)?);
            if let (Some(from), Some(to)) = (from, to) {
                self.on_one_segment(from, to)?;
            }
            Ok((self.rules.proposed(rule, mode)?, from, to))
        });
        let proposed: Vec<_> = proposed.collect::<Result<_, LanError>>()?;
        let set = proposed.into_iter().rev();
        let set = set.map(|(rule, from, to)| self.rules.set(rule, mode, from, to));
        let mut ids: Vec<_> = set.collect();
        ids.reverse();
        Ok(ids)
    }

    /// Takes a rule away. What waits for it goes on at once: nothing that comes later overtakes it.
    pub(crate) fn heal(&mut self, id: RuleId) -> bool {
        let Some(waiting) = self.rules.heal(id) else {
            return false;
        };
        for delayed in waiting {
            self.send_delayed(&delayed);
        }
        true
    }

    pub(crate) fn set_filter(&mut self, filter: AddressFilter) -> Result<(), LanError> {
        let port = self.named(&filter.port)?;
        self.rules.set_filter(port, filter);
        Ok(())
    }

    /// Whether there was one.
    pub(crate) fn remove_filter(&mut self, port: &str) -> Result<bool, LanError> {
        let port = self.named(port)?;
        Ok(self.rules.remove_filter(port))
    }

    pub(crate) fn rules(&self) -> RulesReport {
        self.rules.report()
    }

    /// Lets somebody read along: all that enters, or what enters and leaves by a port.
    pub(crate) fn tap(&mut self, port: Option<&str>, filter: Filter) -> Result<Tap, LanError> {
        let port = port.map(|port| self.named(port)).transpose()?;
        let labels = self.labels();
        let tap = self.taps.add(port, filter, labels);
        tap.map_err(|source| LanError::Tap { source })
    }

    /// Between ports of different segments no frame goes: a rule about them would never be asked.
    fn on_one_segment(&self, from: usize, to: usize) -> Result<(), LanError> {
        let [from, to] = [from, to].map(|port| &self.ports[port]);
        if from.segment == to.segment {
            return Ok(());
        }
        Err(LanError::Apart {
            from: from.counters.name.clone(),
            to: to.counters.name.clone(),
        })
    }

    fn named(&self, name: &str) -> Result<usize, LanError> {
        self.find(name).ok_or_else(|| LanError::UnknownPort {
            name: name.to_owned(),
            known: (self.ports.iter())
                .map(|port| port.counters.name.clone())
                .collect(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::MacAddr;
    use crate::rules::filter::Check;
    use crate::rules::rule::Selector;
    use crate::switch::tests::{LIMIT, NOW, frame, received, send, station, switch};

    pub(in crate::switch) fn rule(switch: &mut Switch, from: &str, impairment: &str) -> RuleId {
        let rule = Rule {
            selector: Selector::from(from),
            impairment: serde_json::from_str(impairment).unwrap(),
        };
        switch.set_rules(&[rule], Mode::Add).unwrap()[0]
    }

    fn call(from: u8) -> Vec<Vec<u8>> {
        vec![frame(MacAddr::BROADCAST, station(from), &[from])]
    }

    #[test]
    fn a_rule_takes_its_ports_frames_until_it_is_healed() {
        let mut switch = switch(3, false);
        let cut = rule(&mut switch, "port1", r#"{"cut":true}"#);
        send(&mut switch, 1, &call(1));
        send(&mut switch, 2, &call(2));
        assert_eq!(received(&mut switch, 0), call(2));
        assert_eq!(received(&mut switch, 1), call(2));
        assert_eq!(received(&mut switch, 2).len(), 0);
        assert_eq!(switch.rules().rules[0].realised.cut, 2, "one for each port");
        assert!(switch.heal(cut));
        send(&mut switch, 1, &call(1));
        assert_eq!(received(&mut switch, 2), call(1));
    }

    #[test]
    fn all_of_some_rules_are_set_or_none() {
        let mut switch = switch(3, false);
        let cut = |from: &str| Rule {
            selector: Selector::from(from),
            impairment: serde_json::from_str(r#"{"cut":true}"#).unwrap(),
        };
        let refused = |switch: &mut Switch, rule: Rule| {
            let error = switch.set_rules(&[cut("port1"), rule], Mode::Merge);
            error.unwrap_err().to_string()
        };
        insta::assert_snapshot!(refused(&mut switch, cut("port9")), @r#"the segment has no port "port9"; it has port0, port1, port2"#);
        insta::assert_snapshot!(refused(&mut switch, Rule::default()), @"the rule is wrong: the rule does nothing; give one of cut, hole, delay, loss, duplicate, corrupt, rate");
        assert!(switch.rules().rules.is_empty());
        let set = switch.set_rules(&[cut("port1"), cut("port2")], Mode::Merge);
        assert_eq!(set.unwrap().len(), 2);
    }

    #[test]
    fn a_rule_holds_on_one_segment_and_one_about_two_is_refused() {
        let mut switch = switch(2, false).with_segments(2);
        for name in ["port2", "port3"] {
            let port = switch.port_on(1, name);
            switch.attach(port);
        }
        let between = |from: &str, to: &str| Rule {
            selector: Selector {
                to: Some(to.to_owned()),
                ..Selector::from(from)
            },
            impairment: serde_json::from_str(r#"{"cut":true}"#).unwrap(),
        };
        let refused = switch.set_rules(&[between("port1", "port2")], Mode::Add);
        insta::assert_snapshot!(refused.unwrap_err(), @"port1 and port2 are on different segments, and no frame goes from one to the other; name a port of the router's on the same segment instead");
        switch
            .set_rules(&[between("port2", "port3")], Mode::Add)
            .unwrap();
        send(&mut switch, 2, &call(2));
        send(&mut switch, 1, &call(1));
        assert_eq!(received(&mut switch, 0), call(1));
        assert!(received(&mut switch, 3).is_empty());
        assert_eq!(switch.rules().rules[0].realised.cut, 1);
    }

    #[test]
    fn delayed_frames_leave_when_due_unless_the_segment_is_held() {
        let mut switch = switch(2, false);
        let slow = rule(&mut switch, "port1", r#"{"delay":"40ms"}"#);
        let at = |millis| NOW + Duration::from_millis(millis);
        send(&mut switch, 1, &call(1));
        switch.send_due(at(39));
        assert_eq!(received(&mut switch, 0).len(), 0);
        assert_eq!(switch.first_due(), Some(at(40)));
        switch.hold();
        switch.send_due(at(40));
        assert_eq!(switch.first_due(), None);
        assert_eq!(received(&mut switch, 0).len(), 0);
        let mut thawed = Switch::new(LIMIT, true, None);
        thawed.restore(switch.state(at(41)), NOW);
        assert_eq!(received(&mut thawed, 0), call(1), "its delay stays behind");
        send(&mut switch, 1, &call(2));
        switch.release(at(42));
        assert_eq!(received(&mut switch, 0), call(1));
        assert_eq!(switch.first_due(), Some(at(82)));
        assert!(switch.heal(slow));
        assert_eq!(
            received(&mut switch, 0),
            call(2),
            "nothing is left to wait for"
        );
    }

    #[test]
    fn more_delayed_frames_than_a_queue_takes_are_frozen_and_come_back() {
        let mut switch = switch(2, false);
        rule(&mut switch, "port1", r#"{"delay":"40ms"}"#);
        let big = frame(MacAddr::BROADCAST, station(1), &[1; 30_000]);
        send(&mut switch, 1, &vec![big; 5]);
        switch.hold();
        let mut thawed = Switch::new(LIMIT, true, None);
        thawed.restore(switch.state(NOW), NOW);
        assert_eq!(received(&mut thawed, 0).len(), 5);
    }

    #[test]
    fn a_filter_s_losses_are_its_port_s() {
        let mut switch = switch(2, false);
        let filter = AddressFilter {
            port: "port1".to_owned(),
            own: Vec::new(),
            check: Check::Source,
        };
        switch.set_filter(filter).unwrap();
        let datagram = crate::rules::udp([10, 1, 1, 2], [10, 1, 2, 3], (1, 2), b"");
        send(&mut switch, 1, &[datagram]);
        assert_eq!(received(&mut switch, 0).len(), 0);
        assert_eq!(switch.counters()[1].dropped.filtered, 1);
        assert!(
            switch.state(NOW).stations.is_empty(),
            "nobody is learned of it"
        );
        assert!(switch.remove_filter("port1").unwrap());
        assert!(!switch.remove_filter("port1").unwrap());
        assert!(switch.remove_filter("port9").is_err());
    }
}
