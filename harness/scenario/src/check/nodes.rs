//! What of a node's own set-up keeps packets, or certificates, from doing what they should.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::check::party::Party;

/// What every node is asked, in one go; each answer is behind a line of its own.
pub(crate) const QUESTION: &str = "\
echo '# clock'; date +%s.%N; \
echo '# rp_filter'; grep -s . /proc/sys/net/ipv4/conf/*/rp_filter; \
echo '# counters'; nstat -asz TcpExtIPReversePathFilter; \
echo '# chains'; nft list chains; \
echo '# conntrack'; grep -s . /proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max; \
echo '# drops'; conntrack -S; true";

/// So far apart no two clocks are that somebody sets.
const APART: Duration = Duration::from_secs(60);

/// A node's own set-up, and what it does to the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeTrouble {
    /// It drops what comes by another device than it would answer by (RFC 3704, strict mode;
    /// `rp_filter` of the kernel's ip-sysctl).
    StrictReversePath {
        /// The devices that are strict.
        devices: Vec<String>,
        /// How many packets it has dropped, on whatever device, since it booted.
        dropped: u64,
    },
    /// What it forwards is dropped unless a rule takes it: the policy of base chains (nft(8)) of its.
    ForwardDrop {
        /// Family, table and chain of each: `ip filter FORWARD`.
        chains: Vec<String>,
    },
    /// Its table of connections is full, or has been, and what would open another is dropped
    /// (`nf_conntrack_max` of the kernel's nf_conntrack-sysctl).
    ConntrackFull {
        /// How many connections it has.
        count: u64,
        /// How many it may have.
        most: u64,
        /// How many packets were dropped for that since it booted.
        dropped: u64,
    },
    /// Its clock is that far from node 1's: certificates are valid by one and not by the other.
    Clock {
        /// Seconds that it is ahead of node 1's, at least; less than 0 where it is behind.
        ahead: i64,
    },
}

impl fmt::Display for NodeTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StrictReversePath { devices, dropped } => write!(
                f,
                "strict reverse-path filtering (rp_filter=1) on {}: {dropped} packets dropped that came \
                 by another device than an answer would leave by",
                devices.join(", ")
            ),
            Self::ForwardDrop { chains } => write!(
                f,
                "the policy of what it forwards is DROP ({}): what no rule there takes is lost",
                chains.join(", ")
            ),
            Self::ConntrackFull {
                count,
                most,
                dropped,
            } => {
                let when = if count >= most { "is" } else { "has been" };
                write!(
                    f,
                    "its table of connections {when} full ({count} of {most} now, nf_conntrack_max): \
                     {dropped} packets of new ones dropped"
                )
            }
            Self::Clock { ahead } => {
                let (far, side) = match ahead {
                    0.. => (ahead, "ahead of"),
                    _ => (&-ahead, "behind"),
                };
                write!(
                    f,
                    "its clock is {far} s {side} node1's: certificates that are valid for one may not be \
                     for the other"
                )
            }
        }
    }
}

/// What a node said, and when it was asked and had answered.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) node: Party,
    pub(crate) asked: Instant,
    pub(crate) told: Instant,
    pub(crate) text: String,
}

/// What stands out on each node, the nodes in their order.
pub(crate) fn troubles(said: &[Said]) -> Vec<(Party, NodeTrouble)> {
    let Some(first) = said.first() else {
        return Vec::new();
    };
    let base = first.asked;
    let reference = said.iter().find(|it| it.node.node == 1);
    let reference = reference.and_then(|it| it.clock(base));
    let each = said.iter().flat_map(|it| {
        let found = [
            it.strict_reverse_path(),
            it.forward_drop(),
            it.conntrack_full(),
            it.clock(base)
                .zip(reference)
                .and_then(|(own, first)| apart(own, first)),
        ];
        let found = found.into_iter().flatten();
        found.map(|trouble| (it.node.clone(), trouble))
    });
    each.collect()
}

/// As a page says it; nothing without any.
pub(crate) fn told(troubles: &[(Party, NodeTrouble)]) -> Option<String> {
    let lines = troubles.iter();
    let lines: Vec<String> = lines
        .map(|(node, trouble)| format!("{}: {trouble}\n", node.name))
        .collect();
    (!lines.is_empty()).then(|| lines.concat())
}

/// What a clock showed at one moment of the host, at least and at most, in nanoseconds since 1970.
type Clock = (i128, i128);

/// Where two clocks are surely further apart than [`APART`].
fn apart(own: Clock, first: Clock) -> Option<NodeTrouble> {
    let limit = i128::try_from(APART.as_nanos()).unwrap_or(i128::MAX);
    let ahead = match (own.0 - first.1, own.1 - first.0) {
        (least, _) if least > limit => least,
        (_, most) if most < -limit => most,
        _ => return None,
    };
    Some(NodeTrouble::Clock {
        ahead: i64::try_from(ahead / 1_000_000_000).unwrap_or(i64::MAX),
    })
}

impl Said {
    /// The lines of one answer.
    fn lines(&self, of: &str) -> impl Iterator<Item = &str> {
        let mut lines = self.text.lines();
        let _ = lines.find(|line| line.strip_prefix("# ") == Some(of));
        lines.take_while(|line| !line.starts_with("# "))
    }

    /// `/proc/sys/net/ipv4/conf/eth0/rp_filter:1`, by the folder or, at the end of the path, the name.
    fn files(&self, of: &str) -> BTreeMap<&str, u64> {
        let files = self.lines(of).filter_map(|line| {
            let (path, value) = line.rsplit_once(':')?;
            let path = path.strip_suffix("/rp_filter").unwrap_or(path);
            Some((path.rsplit('/').next()?, value.trim().parse().ok()?))
        });
        files.collect()
    }

    fn clock(&self, base: Instant) -> Option<Clock> {
        let (seconds, nanos) = self.lines("clock").next()?.trim().split_once('.')?;
        let shown = seconds.parse::<i128>().ok()? * 1_000_000_000 + nanos.parse::<i128>().ok()?;
        Some((
            shown - since(base, self.told),
            shown - since(base, self.asked),
        ))
    }

    fn strict_reverse_path(&self) -> Option<NodeTrouble> {
        let counters = self.lines("counters").filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("TcpExtIPReversePathFilter")).then_some(words.next()?)
        });
        let dropped: u64 = counters.filter_map(|it| it.parse().ok()).next()?;
        let filters = self.files("rp_filter");
        // The kernel takes the larger one of a device's own and that of all.
        let all = filters.get("all").copied().unwrap_or(0);
        let strict = filters.iter().filter(|(device, own)| {
            !["all", "default", "lo"].contains(*device) && all.max(**own) == 1
        });
        let devices: Vec<String> = strict.map(|(device, _)| (*device).to_owned()).collect();
        (dropped > 0 && !devices.is_empty())
            .then_some(NodeTrouble::StrictReversePath { devices, dropped })
    }

    fn forward_drop(&self) -> Option<NodeTrouble> {
        let (mut table, mut chain) = ("", "");
        let mut chains = Vec::new();
        for line in self.lines("chains").map(str::trim) {
            let name = |kind: &str| line.strip_prefix(kind)?.strip_suffix(" {");
            if let Some(name) = name("table ") {
                table = name;
            } else if let Some(name) = name("chain ") {
                chain = name;
            } else if line.contains(" hook forward ") && line.contains("policy drop") {
                chains.push(format!("{table} {chain}"));
            }
        }
        (!chains.is_empty()).then_some(NodeTrouble::ForwardDrop { chains })
    }

    fn conntrack_full(&self) -> Option<NodeTrouble> {
        let files = self.files("conntrack");
        let (count, most) = (
            *files.get("nf_conntrack_count")?,
            *files.get("nf_conntrack_max")?,
        );
        // A processor's line counts as dropped as well what failed at the end, since another packet had been
        // faster (`nf_ct_resolve_clash` of the kernel's nf_conntrack_core.c).
        let dropped = self.lines("drops").map(|line| {
            let counted = |name: &str| {
                let mut words = line.split_whitespace();
                words.find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
            };
            let failed = counted("insert_failed=").unwrap_or_default();
            counted("drop=").unwrap_or_default().saturating_sub(failed)
        });
        let dropped = dropped.fold(0, u64::saturating_add);
        // 0 is no limit.
        (most > 0 && (count >= most || dropped > 0)).then_some(NodeTrouble::ConntrackFull {
            count,
            most,
            dropped,
        })
    }
}

/// Nanoseconds from one moment to another, less than 0 where that was before.
fn since(base: Instant, moment: Instant) -> i128 {
    let nanos = |length: Duration| i128::try_from(length.as_nanos()).unwrap_or(i128::MAX);
    match moment.checked_duration_since(base) {
        Some(after) => nanos(after),
        None => -nanos(base.saturating_duration_since(moment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "\
# clock
1795725000.500000000
# rp_filter
/proc/sys/net/ipv4/conf/all/rp_filter:0
/proc/sys/net/ipv4/conf/cni0/rp_filter:2
/proc/sys/net/ipv4/conf/default/rp_filter:1
/proc/sys/net/ipv4/conf/eth0/rp_filter:0
/proc/sys/net/ipv4/conf/lo/rp_filter:1
# counters
#kernel
TcpExtIPReversePathFilter       0                  0.0
# chains
table ip filter {
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy accept;
\t}
\tchain KUBE-FORWARD {
\t}
}
table inet other {
\tchain in {
\t\ttype filter hook input priority filter; policy drop;
\t}
}
# conntrack
/proc/sys/net/netfilter/nf_conntrack_count:61
/proc/sys/net/netfilter/nf_conntrack_max:65536
# drops
cpu=0   \tfound=0 invalid=2 insert=0 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0
";

    fn said(number: u32, text: &str, began: Instant, took: u64) -> Said {
        Said {
            node: Party::new(format!("node{number}"), number, false, [172, 30, 0, 10]),
            asked: began,
            told: began + Duration::from_secs(took),
            text: text.to_owned(),
        }
    }

    /// What node 2 has, where it says this instead of that and node 1 is sound.
    fn with(changes: &[(&str, &str)]) -> Option<String> {
        let mut text = SOUND.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let now = Instant::now();
        told(&troubles(&[said(1, SOUND, now, 1), said(2, &text, now, 1)]))
    }

    #[test]
    fn nothing_is_said_of_a_sound_node_or_of_one_that_says_nothing() {
        assert_eq!(with(&[]), None);
        assert_eq!(told(&troubles(&[])), None);
        assert_eq!(told(&troubles(&[said(2, "", Instant::now(), 1)])), None);
    }

    #[test]
    fn strict_filtering_is_named_where_it_has_dropped_something() {
        let dropped = ("PathFilter       0", "PathFilter       14");
        let strict = ("eth0/rp_filter:0", "eth0/rp_filter:1");
        insta::assert_snapshot!(with(&[dropped, strict]).unwrap(), @"node2: strict reverse-path filtering (rp_filter=1) on eth0: 14 packets dropped that came by another device than an answer would leave by");
        assert_eq!(with(&[strict]), None);
        assert_eq!(with(&[dropped]), None);
        // The larger one of a device's own and that of all: 2 is loose.
        let all = ("all/rp_filter:0", "all/rp_filter:1");
        let told = with(&[dropped, all]).unwrap();
        assert!(told.contains("on eth0:"), "{told}");
        assert_eq!(
            with(&[dropped, strict, ("all/rp_filter:0", "all/rp_filter:2")]),
            None
        );
    }

    #[test]
    fn a_policy_of_what_is_forwarded_is_named_with_its_chain() {
        let drop = (
            "hook forward priority filter; policy accept",
            "hook forward priority filter; policy drop",
        );
        insta::assert_snapshot!(with(&[drop]).unwrap(), @"node2: the policy of what it forwards is DROP (ip filter FORWARD): what no rule there takes is lost");
    }

    #[test]
    fn a_full_table_is_named_while_it_is_full_and_by_what_it_dropped() {
        let full = ("nf_conntrack_max:65536", "nf_conntrack_max:61");
        insta::assert_snapshot!(with(&[full]).unwrap(), @"node2: its table of connections is full (61 of 61 now, nf_conntrack_max): 0 packets of new ones dropped");
        let dropped = ("insert_failed=0 drop=0", "insert_failed=2 drop=9");
        insta::assert_snapshot!(with(&[dropped]).unwrap(), @"node2: its table of connections has been full (61 of 65536 now, nf_conntrack_max): 7 packets of new ones dropped");
        let faster = ("insert_failed=0 drop=0", "insert_failed=2 drop=2");
        assert_eq!(with(&[faster]), None);
        assert_eq!(
            with(&[("nf_conntrack_max:65536", "nf_conntrack_max:0")]),
            None
        );
    }

    #[test]
    fn a_clock_is_named_where_the_time_to_ask_does_not_explain_it() {
        let clock = |seconds: &str| with(&[("1795725000.5", &format!("{seconds}.5"))]);
        insta::assert_snapshot!(clock("1795811400").unwrap(), @"node2: its clock is 86399 s ahead of node1's: certificates that are valid for one may not be for the other");
        insta::assert_snapshot!(clock("1795638600").unwrap(), @"node2: its clock is 86399 s behind node1's: certificates that are valid for one may not be for the other");
        assert_eq!(clock("1795725030"), None);
        // Asked five minutes later, and told after one more.
        let now = Instant::now();
        let late = said(
            2,
            &SOUND.replace("1795725000", "1795725320"),
            now + Duration::from_secs(300),
            60,
        );
        assert_eq!(troubles(&[said(1, SOUND, now, 1), late.clone()]), []);
        let early = Said {
            asked: now,
            told: now,
            ..late
        };
        assert_eq!(troubles(&[said(1, SOUND, now, 1), early]).len(), 1);
    }
}
