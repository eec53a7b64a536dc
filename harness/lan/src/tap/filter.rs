//! Which frames somebody wants to see, in a few of pcap-filter(7)'s words.
//!
//! Its whole language is compiled by libpcap alone, in C; these words are what a look at a cluster takes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::Ipv4Net;
use crate::rules::Headers;
use crate::rules::rule::Protocol;

/// Words of an expression at most: it is as deep as long.
const WORDS: usize = 100;

/// Which frames are meant. An empty expression means all.
///
/// `arp`, `icmp`, `tcp`, `udp`, `host A`, `net A/P`, `port N`, joined by `not`, `and`, `or` (the
/// strongest first) and parentheses. A word holds for a frame when it holds for the frame's packet, or for
/// the one inside where that is VXLAN's or IP-in-IP's; `host`, `net` and `port` look at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All,
    Protocol(Protocol),
    Net(Ipv4Net),
    Port(u16),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
}

/// A text is no [`Filter`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}; an expression is made of arp, icmp, tcp, udp, host 10.1.2.3, net 10.1.0.0/16, port 80, and, \
     or, not, and parentheses"
)]
pub struct FilterError {
    what: String,
}

impl Filter {
    pub(crate) fn meets(&self, headers: &Headers) -> bool {
        self.0.meets(headers)
    }
}

impl Expression {
    fn meets(&self, headers: &Headers) -> bool {
        match self {
            Expression::All => true,
            Expression::Protocol(protocol) => headers.packets().any(|it| it.is(*protocol)),
            Expression::Net(net) => headers.packets().any(|it| {
                let ends = it.ipv4_ends();
                ends.is_some_and(|(source, to)| net.contains(source) || net.contains(to))
            }),
            Expression::Port(port) => headers.packets().any(|it| {
                let ports = it.ports();
                ports.is_some_and(|(source, to)| [source, to].contains(port))
            }),
            Expression::Not(it) => !it.meets(headers),
            Expression::And(a, b) => a.meets(headers) && b.meets(headers),
            Expression::Or(a, b) => a.meets(headers) || b.meets(headers),
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        if words.is_empty() {
            return Ok(Filter(Expression::All));
        }
        if words.len() > WORDS {
            return Err(wrong(format_args!("it has more than {WORDS} words")));
        }
        let mut words = Words {
            words: &words,
            at: 0,
        };
        let expression = words.either()?;
        match words.next() {
            None => Ok(Filter(expression)),
            Some(word) => Err(wrong(format_args!("{word:?} is not expected there"))),
        }
    }
}

fn wrong(what: impl fmt::Display) -> FilterError {
    FilterError {
        what: what.to_string(),
    }
}

/// The words not yet read.
struct Words<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, wanted: &str) -> bool {
        let found = self.words.get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<Expression, FilterError> {
        let mut expression = self.both()?;
        while self.take("or") {
            expression = Expression::Or(expression.into(), self.both()?.into());
        }
        Ok(expression)
    }

    fn both(&mut self) -> Result<Expression, FilterError> {
        let mut expression = self.one()?;
        while self.take("and") {
            expression = Expression::And(expression.into(), self.one()?.into());
        }
        Ok(expression)
    }

    fn one(&mut self) -> Result<Expression, FilterError> {
        let Some(word) = self.next() else {
            return Err(wrong("something is missing at its end"));
        };
        match word {
            "not" => Ok(Expression::Not(self.one()?.into())),
            "(" => {
                let inside = self.either()?;
                if self.take(")") {
                    Ok(inside)
                } else {
                    Err(wrong("a parenthesis is not closed"))
                }
            }
            "host" => {
                let address: Ipv4Addr = self.value(word)?;
                Ok(Expression::Net(Ipv4Net {
                    address,
                    prefix: 32,
                }))
            }
            "net" => Ok(Expression::Net(self.value(word)?)),
            "port" => Ok(Expression::Port(self.value(word)?)),
            other => match other.parse() {
                Ok(protocol) => Ok(Expression::Protocol(protocol)),
                Err(_) => Err(wrong(format_args!("{other:?} is not known"))),
            },
        }
    }

    fn value<T: FromStr>(&mut self, of: &str) -> Result<T, FilterError> {
        let value = self.next().unwrap_or_default();
        let parsed = value.parse();
        parsed.map_err(|_| wrong(format_args!("{value:?} is no {of}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::udp;

    fn meets(expression: &str) -> bool {
        let frame = udp([10, 1, 1, 2], [10, 1, 2, 3], (40_000, 53), b"?");
        let filter: Filter = expression.parse().unwrap();
        filter.meets(&Headers::of(&frame))
    }

    #[test]
    fn expressions_mean_what_tcpdump_s_do() {
        for yes in [
            "",
            "udp",
            "host 10.1.2.3",
            "host 10.1.1.2 and port 53",
            "net 10.1.0.0/16",
            "not tcp",
            "not not udp",
            "tcp or udp",
            "udp or tcp and arp",
            "not tcp and udp",
            "not (tcp or arp)",
            "(udp)and(port 40000)",
        ] {
            assert!(meets(yes), "{yes}");
        }
        for no in [
            "tcp",
            "host 10.1.2.4",
            "port 54",
            "net 10.2.0.0/16",
            "not udp",
            "(udp or tcp) and arp",
            "not (udp and port 53)",
        ] {
            assert!(!meets(no), "{no}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_possible() {
        let error = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        insta::assert_snapshot!(error("sctp"), @r#""sctp" is not known; an expression is made of arp, icmp, tcp, udp, host 10.1.2.3, net 10.1.0.0/16, port 80, and, or, not, and parentheses"#);
        let what = |text: &str| {
            let error = error(text);
            error.split(';').next().unwrap_or_default().to_owned()
        };
        insta::assert_snapshot!(what("host node1"), @r#""node1" is no host"#);
        insta::assert_snapshot!(what("udp port"), @r#""port" is not expected there"#);
        insta::assert_snapshot!(what("port"), @r#""" is no port"#);
        insta::assert_snapshot!(what("(udp"), @"a parenthesis is not closed");
        insta::assert_snapshot!(what("udp and"), @"something is missing at its end");
        insta::assert_snapshot!(what(&"not ".repeat(5000)), @"it has more than 100 words");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(tcp|not|and|or|host|port|net|[()]|[0-9./]{1,9}| ){0,60}") {
            let _ = text.parse::<Filter>();
        }
    }
}
