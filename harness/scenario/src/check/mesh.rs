//! Who reached whom: a request for each pair.

use std::fmt;

use podwire_lan::witness::Moment;
use podwire_probe::Outcome;

use crate::check::failure::{Cause, Failure};
use crate::check::pairs::{End, Pair, Pairs, Trace};
use crate::check::party::Party;

/// One request from one party to one Pod, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Who asked.
    pub from: Party,
    /// Who should answer.
    pub to: Party,
    /// How the request ended.
    pub outcome: Outcome,
    /// Who answered.
    pub host: Option<String>,
    /// The client address that the answering side saw.
    pub client: Option<String>,
    /// What went wrong, where something did.
    pub error: Option<String>,
    /// How far a request that was not answered came, as the wire tells.
    pub came: Option<Trace>,
}

impl Cell {
    /// How it ended, in words.
    fn ended(&self) -> String {
        let mut text = self.outcome.to_string();
        if let Some(host) = &self.host {
            text += &format!(" by {host}");
        }
        if let Some(client) = &self.client {
            text += &format!(", which saw {client}");
        }
        if let Some(error) = &self.error {
            text += &format!(" ({error})");
        }
        text
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.ended())?;
        if let Some(came) = &self.came {
            write!(f, "; {came}")?;
        }
        Ok(())
    }
}

/// One request for each pair of parties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// The requests, in a stable order.
    pub cells: Vec<Cell>,
    /// Before they were sent, as the wire counts.
    pub since: Moment,
}

impl Mesh {
    /// Every pair for which `dead` is false answers by its own name; every other times out. An answer
    /// that names nobody is somebody else's.
    ///
    /// # Errors
    /// A [`Failure`] that lists the pairs which did otherwise.
    pub fn exactly_dead(
        &self,
        expected: &str,
        dead: impl Fn(&Party, &Party) -> bool,
    ) -> Result<(), Failure> {
        self.each(expected, |cell| {
            let expected = if dead(&cell.from, &cell.to) {
                Outcome::TimedOut
            } else {
                Outcome::Answered
            };
            if cell.outcome != expected {
                return (expected, Some(cell.outcome.into()));
            }
            // Any server may answer; only the one that was asked says that it is.
            let own_name = cell.host.as_ref() == Some(&cell.to.name);
            let wrong = expected == Outcome::Answered && !own_name;
            (expected, wrong.then_some(Cause::WrongAnswer))
        })
    }

    /// Every pair answers by its own name.
    ///
    /// # Errors
    /// As [`Mesh::exactly_dead`].
    pub fn all_answer(&self, expected: &str) -> Result<(), Failure> {
        self.exactly_dead(expected, |_, _| false)
    }

    /// Every pair answers, and the answering side saw the sender's own address: no translation on
    /// the way (the Kubernetes network model).
    ///
    /// # Errors
    /// A [`Failure`] that lists the pairs which did otherwise.
    pub fn senders_seen_as_themselves(&self) -> Result<(), Failure> {
        self.all_answer("every pair to answer")?;
        self.each(
            "each Pod to see the sender's own address (no NAT)",
            |cell| {
                let own = cell.from.ip().to_string();
                let other = cell.client.as_ref() != Some(&own);
                (Outcome::Answered, other.then_some(Cause::WrongAnswer))
            },
        )
    }

    /// Judges each request: how it should have ended, and why it is wrong where it is.
    fn each(
        &self,
        expected: &str,
        judge: impl Fn(&Cell) -> (Outcome, Option<Cause>),
    ) -> Result<(), Failure> {
        if self.cells.is_empty() {
            return Err(Failure::new(Cause::Absent, expected, "no pair to ask"));
        }
        let judged = self.cells.iter().map(|cell| (judge(cell), cell));
        let judged: Vec<((Outcome, Option<Cause>), &Cell)> = judged.collect();
        let wrong = judged.iter();
        let wrong: Vec<(Cause, &Cell)> = wrong
            .filter_map(|((_, cause), cell)| Some(((*cause)?, *cell)))
            .collect();
        let Some((cause, _)) = wrong.first() else {
            return Ok(());
        };
        let pairs: Vec<String> = wrong
            .iter()
            .map(|(_, cell)| format!("\n  {cell}"))
            .collect();
        let mut failure = Failure::new(
            *cause,
            expected,
            format!(
                "{} of {} pairs did otherwise:{}",
                wrong.len(),
                self.cells.len(),
                pairs.concat()
            ),
        )
        .look(
            "`ip route` of the sending and of the answering node, then the wire capture: does the \
               request leave for the right node, and does the reply come back?",
        )
        .pairs(Pairs {
            lost: wrong.iter().find_map(|(_, cell)| cell.came.clone()),
            all: judged
                .iter()
                .map(|((expected, cause), cell)| Pair {
                    from: End::from(&cell.from),
                    to: End::from(&cell.to),
                    expected: expected.to_string(),
                    seen: cell.ended(),
                    wrong: cause.is_some(),
                })
                .collect(),
        });
        failure.also = wrong.iter().skip(1).map(|(cause, _)| *cause).collect();
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: u32, last: u8) -> Party {
        Party::new(name, node, true, [10, 1, u8::try_from(node).unwrap(), last])
    }

    fn cell(from: &Party, to: &Party, outcome: Outcome) -> Cell {
        let answered = outcome == Outcome::Answered;
        Cell {
            from: from.clone(),
            to: to.clone(),
            outcome,
            host: answered.then(|| to.name.clone()),
            client: answered.then(|| from.address.to_string()),
            error: None,
            came: None,
        }
    }

    fn mesh(across: Outcome) -> Mesh {
        let (a, b) = (pod("a", 1, 2), pod("b", 2, 2));
        Mesh {
            cells: vec![
                cell(&a, &a, Outcome::Answered),
                cell(&a, &b, across),
                cell(&b, &a, Outcome::Answered),
            ],
            ..Mesh::default()
        }
    }

    #[test]
    fn a_mesh_is_two_sided() {
        let across = |from: &Party, to: &Party| (from.node, to.node) == (1, 2);
        assert!(mesh(Outcome::Answered).all_answer("all").is_ok());
        assert!(mesh(Outcome::TimedOut).exactly_dead("one", across).is_ok());

        let dead = mesh(Outcome::TimedOut)
            .all_answer("every pair to answer")
            .unwrap_err();
        insta::assert_snapshot!(dead, @"
        expected every pair to answer; seen (timed out): 1 of 3 pairs did otherwise:
          a (10.1.1.2 on node1) -> b (10.1.2.2 on node2): timed out
        ");
        let mut two_ways = mesh(Outcome::TimedOut);
        two_ways.cells[2].outcome = Outcome::Refused;
        let found = two_ways.all_answer("all").unwrap_err();
        assert_eq!(
            (found.cause, &*found.also),
            (Cause::TimedOut, &[Cause::Refused][..])
        );
        assert_eq!(dead.also, []);

        let alive = mesh(Outcome::Answered)
            .exactly_dead("one", across)
            .unwrap_err();
        assert_eq!(alive.cause, Cause::Answered);
        let refused = mesh(Outcome::Refused)
            .exactly_dead("one", across)
            .unwrap_err();
        assert_eq!(refused.cause, Cause::Refused);
        assert_eq!(
            Mesh::default().all_answer("all").unwrap_err().cause,
            Cause::Absent
        );
    }

    #[test]
    fn a_failure_keeps_every_pair_with_what_was_expected_of_it() {
        let across = |from: &Party, to: &Party| (from.node, to.node) == (2, 1);
        let failure = mesh(Outcome::Refused)
            .exactly_dead("one", across)
            .unwrap_err();
        let pairs = failure.pairs.unwrap();
        let told: Vec<String> = pairs
            .all
            .iter()
            .map(|it| {
                let wrong = if it.wrong { "WRONG " } else { "" };
                let (from, to) = (&it.from.name, &it.to);
                format!(
                    "{wrong}{from} -> {to}: {} instead of {}",
                    it.seen, it.expected
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @"
        a -> a (10.1.1.2 on node1): answered by a, which saw 10.1.1.2 instead of answered
        WRONG a -> b (10.1.2.2 on node2): refused instead of answered
        WRONG b -> a (10.1.1.2 on node1): answered by a, which saw 10.1.2.2 instead of timed out
        ");
        assert_eq!(pairs.lost, None);
    }

    #[test]
    fn a_pair_tells_what_went_wrong() {
        let mut stalled = mesh(Outcome::TimedOut);
        stalled.cells[1].error = Some("receive: nothing moves after 0 of 9 octets".into());
        let failure = stalled.all_answer("all").unwrap_err();
        insta::assert_snapshot!(failure, @"
        expected all; seen (timed out): 1 of 3 pairs did otherwise:
          a (10.1.1.2 on node1) -> b (10.1.2.2 on node2): timed out (receive: nothing moves after 0 of 9 octets)
        ");
    }

    #[test]
    fn another_host_or_another_client_address_is_a_wrong_answer() {
        let mut other_host = mesh(Outcome::Answered);
        other_host.cells[1].host = Some("c".into());
        assert_eq!(
            other_host.all_answer("all").unwrap_err().cause,
            Cause::WrongAnswer
        );

        assert!(mesh(Outcome::Answered).senders_seen_as_themselves().is_ok());
        let mut translated = mesh(Outcome::Answered);
        translated.cells[1].client = Some("172.30.0.11".into());
        let failure = translated.senders_seen_as_themselves().unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        assert!(failure.seen.contains("which saw 172.30.0.11"), "{failure}");
    }

    #[test]
    fn an_answer_that_names_nobody_is_not_that_of_the_pod_asked() {
        let mut nameless = mesh(Outcome::Answered);
        nameless.cells[1].host = None;
        let failure = nameless.all_answer("all").unwrap_err();
        assert_eq!(failure.cause, Cause::WrongAnswer);
        assert!(nameless.senders_seen_as_themselves().is_err());
    }
}
