//! The network between nodes, made bad on purpose, and good again.

use std::fmt;
use std::future::{IntoFuture, Ready, ready};
use std::time::Duration;

use podwire_lan::{
    AddressFilter, Check, Impairment, Ipv4Net, LanError, Packets, Realised, Rule, RuleId,
    RulesHandle, Selector, UnitError,
};

use crate::lab::Lab;
use crate::lab::node::Node;

/// What is to become of frames on their way from one node to another. Awaiting it does it.
///
/// Units are netem's, in words: `1%`, `100mbit`, `64kb`.
#[must_use = "nothing is done before it is awaited"]
pub struct Impairing<'lab> {
    lab: &'lab Lab,
    wanted: Result<Wanted, UnitError>,
}

/// Frames are impaired until this is healed, or dropped. Of several over the same frames the one that
/// was set last has them alone.
#[must_use = "it heals when it is dropped"]
pub struct Impaired<'lab> {
    lab: &'lab Lab,
    about: String,
    guard: Guard,
}

/// A node's addresses are checked until this is healed, or dropped.
#[must_use = "it heals when it is dropped"]
pub struct Checked<'lab> {
    lab: &'lab Lab,
    node: Node<'lab>,
    left: bool,
}

impl Lab {
    /// What is to become of the frames that one node sends to another: cut, delayed, lost. One way, unless
    /// [`Impairing::both_ways`].
    pub fn impair(&self, from: Node<'_>, to: Node<'_>) -> Impairing<'_> {
        Impairing::new(self, Selector::between(from.name(), to.name()))
    }
}

impl<'lab> Node<'lab> {
    /// What is to become of the frames that it sends to anybody.
    pub fn impair(self) -> Impairing<'lab> {
        Impairing::new(self.lab(), Selector::from(self.name()))
    }

    /// Drops what does not carry its own address, as a cloud's source and destination check does: the
    /// source of what it sends, the destination of what it gets, or both. What is in a tunnel is not
    /// looked at. In place of an earlier check.
    ///
    /// # Errors
    /// When the segment has ended.
    pub async fn check_addresses(self, check: Check) -> anyhow::Result<Checked<'lab>> {
        self.lab()
            .step(format!("drop what does not carry {self}'s own address"));
        self.lab()
            .cluster()
            .segment()
            .rules()
            .set_filter(AddressFilter {
                port: self.name().to_owned(),
                own: vec![Ipv4Net {
                    address: self.address(),
                    prefix: 32,
                }],
                check,
            })?;
        Ok(Checked {
            lab: self.lab(),
            node: self,
            left: false,
        })
    }
}

impl<'lab> Impairing<'lab> {
    fn new(lab: &'lab Lab, selector: Selector) -> Self {
        let wanted = Wanted {
            rule: Rule {
                selector,
                impairment: Impairment::default(),
            },
            both_ways: false,
        };
        Self {
            lab,
            wanted: Ok(wanted),
        }
    }

    fn with(self, change: impl FnOnce(&mut Wanted) -> Result<(), UnitError>) -> Self {
        let wanted = self.wanted.and_then(|mut wanted| {
            change(&mut wanted)?;
            Ok(wanted)
        });
        Self { wanted, ..self }
    }

    fn set(self, change: impl FnOnce(&mut Impairment)) -> Self {
        self.with(|wanted| {
            change(&mut wanted.rule.impairment);
            Ok(())
        })
    }

    /// Also the frames of the way back.
    pub fn both_ways(self) -> Self {
        self.with(|wanted| {
            wanted.both_ways = true;
            Ok(())
        })
    }

    /// Only these packets, plain or in a tunnel.
    pub fn only(self, packets: Packets) -> Self {
        self.with(|wanted| {
            wanted.rule.selector.packets = packets;
            Ok(())
        })
    }

    /// All vanish.
    pub fn cut(self) -> Self {
        self.set(|it| it.cut = true)
    }

    /// Those vanish, without a word, whose IP packet is longer than so many octets.
    pub fn hole(self, octets: u16) -> Self {
        self.set(|it| it.hole = Some(octets))
    }

    /// They arrive so much later.
    pub fn delay(self, delay: Duration) -> Self {
        self.set(|it| it.delay = Some(delay.into()))
    }

    /// So much more or less than the delay; a flow keeps its order.
    pub fn jitter(self, jitter: Duration) -> Self {
        self.set(|it| it.jitter = Some(jitter.into()))
    }

    /// Jitter may change the order of a flow's frames.
    pub fn reorder(self) -> Self {
        self.set(|it| it.reorder = true)
    }

    /// So many are lost: `1%`.
    pub fn loss(self, share: &str) -> Self {
        self.with(|wanted| {
            wanted.rule.impairment.loss = Some(share.parse()?);
            Ok(())
        })
    }

    /// So many are lost in a row, on average (Gilbert's model).
    pub fn burst(self, frames: u32) -> Self {
        self.set(|it| it.burst = Some(frames))
    }

    /// So many come twice: `1%`.
    pub fn duplicate(self, share: &str) -> Self {
        self.with(|wanted| {
            wanted.rule.impairment.duplicate = Some(share.parse()?);
            Ok(())
        })
    }

    /// In so many a bit is flipped: `0.1%`.
    pub fn corrupt(self, share: &str) -> Self {
        self.with(|wanted| {
            wanted.rule.impairment.corrupt = Some(share.parse()?);
            Ok(())
        })
    }

    /// They leave so fast, all together: `100mbit`.
    pub fn rate(self, rate: &str) -> Self {
        self.with(|wanted| {
            wanted.rule.impairment.rate = Some(rate.parse()?);
            Ok(())
        })
    }

    /// So much waits for the rate at most: `64kb`.
    pub fn queue(self, size: &str) -> Self {
        self.with(|wanted| {
            wanted.rule.impairment.queue = Some(size.parse()?);
            Ok(())
        })
    }

    /// What chance begins with: the same number, the same fate of the same flows.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|it| it.seed = Some(seed))
    }

    fn done(self) -> anyhow::Result<Impaired<'lab>> {
        let wanted = self.wanted?;
        let about = wanted.to_string();
        self.lab.step(format!("impair {about}"));
        let rules = self.lab.cluster().segment().rules();
        let guard = Guard::new(rules, wanted.into_rules())?;
        Ok(Impaired {
            lab: self.lab,
            about,
            guard,
        })
    }
}

impl<'lab> IntoFuture for Impairing<'lab> {
    type Output = anyhow::Result<Impaired<'lab>>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        ready(self.done())
    }
}

impl Impaired<'_> {
    /// What came of it until now, for each direction.
    ///
    /// # Errors
    /// When the segment has ended.
    pub fn realised(&self) -> anyhow::Result<Vec<Realised>> {
        Ok(self.guard.realised()?)
    }

    /// Ends it, and gives what came of it. What was delayed arrives at once.
    ///
    /// # Errors
    /// When the segment has ended.
    pub async fn heal(mut self) -> anyhow::Result<Vec<Realised>> {
        let realised = self.guard.realised()?;
        self.guard.heal()?;
        self.healed(&realised);
        Ok(realised)
    }

    /// Leaves it as it is for the rest of the lab's life: what a sabotage's injection does, whose check
    /// comes later.
    pub fn forget(mut self) {
        self.guard.rules.clear();
    }

    fn healed(&self, realised: &[Realised]) {
        let realised: Vec<String> = realised.iter().map(ToString::to_string).collect();
        let (about, realised) = (&self.about, realised.join("; back: "));
        self.lab.step(format!("heal {about} ({realised})"));
    }
}

impl Drop for Impaired<'_> {
    fn drop(&mut self) {
        if self.guard.rules.is_empty() {
            return;
        }
        let realised = self.guard.realised().unwrap_or_default();
        // A segment that has ended impairs nothing.
        if self.guard.heal().is_ok() {
            self.healed(&realised);
        }
    }
}

impl Checked<'_> {
    /// Ends it.
    ///
    /// # Errors
    /// When the segment has ended.
    pub async fn heal(mut self) -> anyhow::Result<()> {
        Ok(self.end()?)
    }

    /// Leaves it as it is for the rest of the lab's life, see [`Impaired::forget`].
    pub fn forget(mut self) {
        self.left = true;
    }

    fn end(&mut self) -> Result<(), LanError> {
        self.left = true;
        let node = self.node;
        self.lab.step(format!("check {node}'s addresses no more"));
        let rules = self.lab.cluster().segment().rules();
        rules.remove_filter(node.name()).map(|_| ())
    }
}

impl Drop for Checked<'_> {
    fn drop(&mut self) {
        if !self.left {
            // A segment that has ended checks nothing.
            let _ = self.end();
        }
    }
}

/// What an author asks for.
struct Wanted {
    rule: Rule,
    both_ways: bool,
}

impl Wanted {
    fn into_rules(self) -> Vec<Rule> {
        if self.both_ways {
            self.rule.both_ways()
        } else {
            vec![self.rule]
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule {
            selector,
            impairment,
        } = &self.rule;
        let both = if self.both_ways { ", both ways" } else { "" };
        write!(f, "{selector}{both}: {impairment}")
    }
}

/// Rules of its own. One that somebody else has healed is no trouble.
struct Guard {
    handle: RulesHandle,
    rules: Vec<RuleId>,
}

impl Guard {
    fn new(handle: RulesHandle, rules: Vec<Rule>) -> Result<Self, LanError> {
        let rules = handle.add(rules)?;
        Ok(Self { handle, rules })
    }

    fn realised(&self) -> Result<Vec<Realised>, LanError> {
        let all = self.handle.report()?.rules;
        let own = all.into_iter().filter(|it| self.rules.contains(&it.id));
        Ok(own.map(|it| it.realised).collect())
    }

    fn heal(&mut self) -> Result<(), LanError> {
        for rule in std::mem::take(&mut self.rules) {
            self.handle.heal(rule)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use podwire_cluster::Layout;
    use podwire_lan::{Segment, SegmentOptions};

    use super::*;

    fn wanted(both_ways: bool) -> Wanted {
        Wanted {
            rule: Rule {
                selector: Selector::between("node1", "node2"),
                impairment: Impairment {
                    hole: Some(1400),
                    ..Impairment::default()
                },
            },
            both_ways,
        }
    }

    #[test]
    fn what_is_asked_for_reads_well_as_a_step() {
        insta::assert_snapshot!(wanted(false), @"node1 -> node2: hole 1400");
        insta::assert_snapshot!(wanted(true), @"node1 -> node2, both ways: hole 1400");
    }

    #[test]
    fn a_guard_heals_its_own_rules_alone() {
        let segment = Segment::start(Layout::Flat.network(2), SegmentOptions::default()).unwrap();
        let _cables = ["node1", "node2"].map(|node| segment.attach(node).unwrap());
        let rules = segment.rules();
        let set = || rules.report().unwrap().rules.len();
        let mut outer = Guard::new(rules.clone(), wanted(true).into_rules()).unwrap();
        let mut inner = Guard::new(rules.clone(), wanted(false).into_rules()).unwrap();
        assert_eq!(set(), 3);
        assert_eq!(outer.realised().unwrap().len(), 2);
        outer.heal().unwrap();
        assert_eq!(set(), 1);
        assert_eq!(inner.realised().unwrap().len(), 1);
        rules.heal(inner.rules[0]).unwrap();
        inner.heal().unwrap();
        let mut wrong = wanted(false);
        wrong.rule.impairment = Impairment::default();
        assert!(Guard::new(rules.clone(), wrong.into_rules()).is_err());
        assert_eq!(set(), 0);
    }
}
