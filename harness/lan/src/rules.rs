//! Impairments of a segment: rules as data, and what they do to frames.
//!
//! A [`Rule`](rule::Rule) selects frames on their way from a port to a port and says what becomes of
//! them; an [`AddressFilter`](filter::AddressFilter) says what a port lets through. Everything here is
//! plain: a frame and the time go in, frames and times come out.
//!
//! The newest rule is asked first, and the first whose selector a frame meets has it: no frame meets
//! two.

mod active;
mod chance;
pub(crate) mod filter;
mod headers;
pub(crate) mod report;
pub(crate) mod rule;
pub(crate) mod units;
mod waiting;

use std::borrow::Cow;
use std::time::Duration;

use twox_hash::XxHash3_64;

use self::active::Active;
use self::filter::{AddressFilter, FilterReport};
pub(crate) use self::headers::Headers;
use self::report::{RuleId, RulesReport};
use self::rule::{Rule, RuleError};
use self::waiting::Waiting;
pub(crate) use self::waiting::{Delayed, LIMIT};
use crate::framing::append;
use crate::witness::notes::Lost;

/// How a rule is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Beside those that there are, whatever they select.
    Add,
    /// Into the first with the same selector, if there is one.
    Merge,
}

/// A port as rules know it.
#[derive(Debug)]
pub(crate) struct Port<'a> {
    pub(crate) number: usize,
    pub(crate) name: &'a str,
}

/// A frame that has come in at a port.
#[derive(Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) from: usize,
    pub(crate) frame: &'a [u8],
    /// Its number, by which the witness knows it.
    pub(crate) number: u64,
    pub(crate) at: Duration,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It goes on: so many copies at once, others perhaps later.
    On { at_once: u64 },
    /// It does not.
    Lost(Lost),
}

/// All that is set on a segment.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The newest first.
    active: Vec<Active>,
    /// With the port's number.
    filters: Vec<(usize, FilterReport)>,
    waiting: Waiting,
    last: u64,
}

impl Rules {
    /// `limit` is how many octets of memory delayed frames take at most.
    pub(crate) fn new(limit: usize) -> Self {
        Rules {
            active: Vec::new(),
            filters: Vec::new(),
            waiting: Waiting::new(limit),
            last: 0,
        }
    }

    /// Whether there is nothing to ask, for any frame.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.filters.is_empty()
    }

    /// What a rule is once it is [set](Rules::set): with the settings of the first with the same selector,
    /// where they merge.
    pub(crate) fn proposed(&self, rule: &Rule, mode: Mode) -> Result<Rule, RuleError> {
        let known = self.place(rule).filter(|_| mode == Mode::Merge);
        let rule = match known {
            None => rule.clone(),
            Some(place) => Rule {
                impairment: (self.active[place].rule.impairment).merged(&rule.impairment),
                selector: rule.selector.clone(),
            },
        };
        rule.check()?;
        Ok(rule)
    }

    /// Sets a rule as it was [proposed](Rules::proposed): before all others, or in the place of the one
    /// that it merges with. `from` and `to` are the ports that it names.
    pub(crate) fn set(
        &mut self,
        proposed: Rule,
        mode: Mode,
        from: Option<usize>,
        to: Option<usize>,
    ) -> RuleId {
        if let Some(place) = self.place(&proposed).filter(|_| mode == Mode::Merge) {
            let known = &mut self.active[place];
            known.rule = proposed;
            return known.id;
        }
        self.last += 1;
        let id = RuleId(self.last);
        self.active.insert(0, Active::new(id, proposed, from, to));
        id
    }

    fn place(&self, rule: &Rule) -> Option<usize> {
        let mut active = self.active.iter();
        active.position(|known| known.rule.selector == rule.selector)
    }

    /// Takes a rule away, and gives the frames that wait for it, the first to leave first: they are to
    /// go on before anything else. None when there is no such rule.
    pub(crate) fn heal(&mut self, id: RuleId) -> Option<Vec<Delayed>> {
        let place = self.active.iter().position(|active| active.id == id)?;
        self.active.remove(place);
        Some(self.waiting.take(id))
    }

    /// Sets the filter of a port in place of the one before.
    pub(crate) fn set_filter(&mut self, port: usize, filter: AddressFilter) {
        self.remove_filter(port);
        self.filters.push((port, FilterReport::new(filter)));
        self.filters.sort_by_key(|(port, _)| *port);
    }

    /// Whether there was one.
    pub(crate) fn remove_filter(&mut self, port: usize) -> bool {
        let before = self.filters.len();
        self.filters.retain(|(of, _)| *of != port);
        self.filters.len() < before
    }

    pub(crate) fn report(&self) -> RulesReport {
        RulesReport {
            rules: (self.active.iter())
                .map(|active| active.report(self.waiting.count(active.id)))
                .collect(),
            filters: (self.filters.iter())
                .map(|(_, report)| report.clone())
                .collect(),
        }
    }

    /// Whether a port's filter lets in what its machine sends.
    pub(crate) fn lets_in(&mut self, from: usize, headers: &Headers) -> bool {
        let mut filters = self.filters.iter_mut();
        let filter = filters.find(|(port, _)| *port == from);
        filter.is_none_or(|(_, filter)| filter.passes_from(headers))
    }

    /// Takes a frame on its way from a port to a port. What goes on at once is appended to `out`,
    /// framed.
    pub(crate) fn pass(
        &mut self,
        from: &Port<'_>,
        to: &Port<'_>,
        arrived: &Arrived<'_>,
        headers: &Headers,
        out: &mut Vec<u8>,
    ) -> Passed {
        let (frame, now) = (arrived.frame, arrived.at);
        let mut filters = self.filters.iter_mut();
        if let Some((_, filter)) = filters.find(|(port, _)| *port == to.number)
            && !filter.passes_to(headers, frame)
        {
            return Passed::Lost(Lost::Filtered);
        }
        let mut active = self.active.iter_mut();
        let Some(rule) = active.find(|it| it.selects(from.number, to.number, headers)) else {
            append(out, frame);
            return Passed::On { at_once: 1 };
        };
        let (mut at_once, mut later) = (0, false);
        let fate = rule.meet(flow(from, to, headers), frame, headers, now);
        for copy in fate.0.into_iter().flatten() {
            let frame = match copy.flipped {
                None => Cow::Borrowed(frame),
                Some(bit) => {
                    let mut frame = frame.to_vec();
                    frame[bit / 8] ^= 0x80 >> (bit % 8);
                    Cow::Owned(frame)
                }
            };
            if copy.due <= now {
                append(out, &frame);
                at_once += 1;
                rule.passed();
            } else if (self.waiting).push(to.number, rule.id, arrived, copy.due, &frame) {
                later = true;
            } else {
                rule.realised.no_room += 1;
            }
        }
        match at_once > 0 || later {
            true => Passed::On { at_once },
            false => Passed::Lost(Lost::Rule),
        }
    }

    /// When the first delayed frame is due.
    pub(crate) fn first_due(&self) -> Option<Duration> {
        self.waiting.first_due()
    }

    /// The next delayed frame whose time has come.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Delayed> {
        let delayed = self.waiting.pop_due(now)?;
        let mut active = self.active.iter_mut();
        // A rule that was taken away has taken its frames along.
        if let Some(rule) = active.find(|active| active.id == delayed.rule) {
            rule.passes(&delayed, now);
        }
        Some(delayed)
    }

    /// The delayed frames for a port, the first to leave first.
    pub(crate) fn delayed_for(&self, port: usize) -> impl Iterator<Item = &[u8]> {
        let frames = self.waiting.for_port(port).into_iter();
        frames.map(|delayed| &*delayed.frame)
    }
}

/// A flow between two ports: by their names, which are the same on every run.
fn flow(from: &Port<'_>, to: &Port<'_>, headers: &Headers) -> u64 {
    let seed = XxHash3_64::oneshot_with_seed(headers.flow(), from.name.as_bytes());
    XxHash3_64::oneshot_with_seed(seed, to.name.as_bytes())
}

#[cfg(test)]
pub(crate) use self::headers::tests::udp;

#[cfg(test)]
mod tests;
