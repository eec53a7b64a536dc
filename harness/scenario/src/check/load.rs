//! What is told of a load, and what is counted beside it.

use std::time::Duration;

use anyhow::Context as _;
use podwire_lan::witness::Sighting;
use podwire_probe::{LoadReport, LoadRequest};
use serde_json::Value;

/// Guests count time by clocks of their own; none is faster than this, or slower.
const TWICE: u128 = 2;

/// Where a sender's report of a load is about something else than it was asked for, or makes no sense. The host
/// waited so long for it.
pub(crate) fn misreported(
    request: &LoadRequest,
    report: &LoadReport,
    waited: Duration,
) -> Option<String> {
    if report.request != *request {
        return Some(format!("asked {request:?}, reported {:?}", report.request));
    }
    let LoadReport {
        elapsed_us,
        answered,
        hosts,
        median_us,
        failure,
        ..
    } = report;
    let by_all = hosts
        .values()
        .fold(0_u64, |sum, it| sum.saturating_add(*it));
    if by_all != *answered {
        return Some(format!("{answered} were answered, by {hosts:?}"));
    }
    let most = waited.as_micros().saturating_mul(TWICE);
    let whole = failure.is_none();
    let cannot_be = u128::from(*elapsed_us) > most
        || median_us > elapsed_us
        || (whole && (*answered == 0 || *elapsed_us < request.for_ms.saturating_mul(1000)));
    cannot_be.then(|| {
        format!(
            "{answered} requests in {elapsed_us} us, half of them in {median_us} us at most, where {} ms were \
             asked for and the host waited for {} ms",
            request.for_ms,
            waited.as_millis()
        )
    })
}

/// What a kernel has of a packet filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules, of all chains.
    pub rules: usize,
    /// Elements of sets and maps.
    pub elements: usize,
}

/// Counts what `nft -j list ruleset` says (libnftables-json(5)).
pub(crate) fn rules(listed: &str) -> anyhow::Result<Rules> {
    let listed: Value = serde_json::from_str(listed).context("it is no JSON")?;
    let objects = listed["nftables"].as_array();
    let objects = objects.context("it has no list `nftables`")?;
    let mut counted = Rules::default();
    for object in objects {
        counted.rules += usize::from(object.get("rule").is_some());
        for kind in ["set", "map"] {
            let elements = object[kind]["elem"].as_array();
            counted.elements += elements.map_or(0, Vec::len);
        }
    }
    Ok(counted)
}

/// How many segments of TCP a kernel has sent again, as its /proc/net/snmp says (proc_net(5), `RetransSegs`).
pub(crate) fn sent_again(snmp: &str) -> anyhow::Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next(), lines.next());
    let names = names.unwrap_or_default().split_whitespace();
    let mut both = names.zip(values.unwrap_or_default().split_whitespace());
    let found = both.find(|(name, _)| *name == "RetransSegs");
    let (_, value) = found.context("it has no `RetransSegs`")?;
    value
        .parse()
        .with_context(|| format!("{value} is no count"))
}

/// How many of these frames went from one port to the other, or back.
pub(crate) fn between(frames: &[Sighting], one: &str, other: &str) -> usize {
    let goes = |frame: &Sighting, from: &str, to: &str| {
        &*frame.from == from && !frame.flooded && frame.to.iter().any(|port| &**port == to)
    };
    let both = |frame: &&Sighting| goes(frame, one, other) || goes(frame, other, one);
    frames.iter().filter(both).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_lan::witness::Content;
    use podwire_probe::Load;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    fn request() -> LoadRequest {
        LoadRequest {
            to: SocketAddr::from(([10, 1, 2, 2], 80)),
            by: Load::Fresh,
            at_once: 8,
            for_ms: 2000,
            limit_ms: 5000,
        }
    }

    #[test]
    fn a_load_is_what_was_asked_for_and_fits_into_its_time() {
        let good = LoadReport {
            request: request(),
            elapsed_us: 2_050_000,
            answered: 80,
            hosts: [("blue-b".to_owned(), 80)].into(),
            median_us: 190_000,
            failure: None,
        };
        let told = |report: &LoadReport| misreported(&request(), report, Duration::from_secs(3));
        assert_eq!(told(&good), None);
        let failed = LoadReport {
            elapsed_us: 500,
            answered: 0,
            hosts: BTreeMap::new(),
            median_us: 0,
            failure: Some("connect: refused".into()),
            ..good.clone()
        };
        assert_eq!(told(&failed), None);
        let other = LoadRequest {
            at_once: 1,
            ..request()
        };
        for bad in [
            LoadReport {
                request: other,
                ..good.clone()
            },
            LoadReport {
                elapsed_us: 1_999_999,
                ..good.clone()
            },
            LoadReport {
                elapsed_us: 6_000_001,
                ..good.clone()
            },
            LoadReport {
                median_us: 2_050_001,
                ..good.clone()
            },
            LoadReport {
                answered: 0,
                hosts: BTreeMap::new(),
                median_us: 0,
                ..good.clone()
            },
            LoadReport {
                answered: 81,
                ..good.clone()
            },
        ] {
            assert!(told(&bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn frames_between_two_nodes_are_those_that_got_from_one_to_the_other() {
        let frame = |from: &str, to: &[&str], flooded| Sighting {
            number: 0,
            at: Duration::ZERO,
            length: 74,
            segment: None,
            from: from.into(),
            to: to.iter().map(|port| (*port).into()).collect(),
            lost: Vec::new(),
            flooded,
            addresses: None,
            tunnel: None,
            content: Content::Other { ethertype: None },
        };
        let frames = [
            frame("node2", &["node3"], false),
            frame("node3", &["node2"], false),
            frame("node1", &["node2"], false),
            frame("node2", &[], false),
            frame("node2", &["gateway", "node1", "node3"], true),
        ];
        assert_eq!(between(&frames, "node2", "node3"), 2);
    }

    #[test]
    fn segments_that_were_sent_again_stand_under_their_name() {
        let snmp = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin MaxConn RetransSegs InErrs\n\
                    Tcp: 200 -1 17 0\nUdp: InDatagrams\nUdp: 3\n";
        assert_eq!(sent_again(snmp).unwrap(), 17);
        assert!(sent_again("Tcp: RtoMin\nTcp: 200\n").is_err() && sent_again("").is_err());
    }

    #[test]
    fn rules_and_elements_of_every_table_are_counted() {
        let listed = r#"{ "nftables": [
            { "metainfo": { "version": "1.1.3" } },
            { "table": { "family": "ip", "name": "kube-proxy", "handle": 1 } },
            { "map": { "family": "ip", "name": "service-ips", "elem": [ [ "10.0.0.1", { "goto": { "target": "a" } } ], [ "10.0.0.2", { "goto": { "target": "b" } } ] ] } },
            { "set": { "family": "ip", "name": "cluster-ips", "elem": [ "10.0.0.1" ] } },
            { "set": { "family": "ip", "name": "empty" } },
            { "chain": { "family": "ip", "table": "kube-proxy", "name": "services" } },
            { "rule": { "family": "ip", "chain": "services", "expr": [] } },
            { "rule": { "family": "ip", "chain": "services", "expr": [] } },
            { "rule": { "family": "ip6", "chain": "x", "expr": [] } }
        ] }"#;
        let counted = rules(listed).unwrap();
        assert_eq!((counted.rules, counted.elements), (3, 3));
        assert!(rules("table ip nat").is_err() && rules("{}").is_err());
    }
}
