//! What the DNS answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use podwire_probe::{ResolveOutcome, ResolveReport};

use crate::check::failure::{Cause, Failure};

/// A name leads to exactly these addresses, each once; where there are none, it does not exist
/// (NXDOMAIN).
///
/// # Errors
/// A [`Failure`] with the whole answer.
pub fn resolved(report: &ResolveReport, wanted: &BTreeSet<IpAddr>) -> Result<(), Failure> {
    let outcome = match wanted.is_empty() {
        true => ResolveOutcome::NameNotFound,
        false => ResolveOutcome::Answered,
    };
    // As a list, in which an address that comes twice is seen.
    let mut addresses = report.addresses();
    addresses.sort();
    let exactly = addresses.iter().eq(wanted);
    if report.outcome == outcome && exactly {
        return Ok(());
    }
    let cause = match report.outcome {
        ResolveOutcome::Answered => Cause::WrongAnswer,
        // An answer with addresses to a name that it says there is not.
        other if other == outcome => Cause::WrongAnswer,
        other => other.into(),
    };
    let expected = match wanted.is_empty() {
        true => format!("{} not to exist", report.name),
        false => format!("{} to lead to {}", report.name, listed(wanted)),
    };
    Err(Failure::new(cause, expected, report.to_string()).look(
        "the logs of the cluster's DNS, and the wire capture: who was asked, and who answered",
    ))
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(outcome: &str, addresses: &[&str]) -> ResolveReport {
        let record =
            |address: &&str| json!({ "name": "web.test", "ttl": 30, "kind": "A", "data": address });
        let records: Vec<_> = addresses.iter().map(record).collect();
        let report =
            json!({ "name": "web.test", "kind": "A", "outcome": outcome, "records": records });
        serde_json::from_value(report).unwrap()
    }

    fn of(outcome: &str, addresses: &[&str], wanted: &[[u8; 4]]) -> String {
        let wanted = wanted.iter().copied().map(IpAddr::from).collect();
        match resolved(&report(outcome, addresses), &wanted) {
            Ok(()) => "as wanted".to_owned(),
            Err(failure) => format!(
                "{:?}: {}; {}",
                failure.cause, failure.expected, failure.seen
            ),
        }
    }

    #[test]
    fn a_name_leads_to_all_its_addresses_and_to_no_other() {
        let (one, two) = ([10, 1, 1, 2], [10, 1, 2, 2]);
        assert_eq!(
            of("answered", &["10.1.2.2", "10.1.1.2"], &[one, two]),
            "as wanted"
        );
        assert_eq!(of("name_not_found", &[], &[]), "as wanted");
        let answers = [
            of("answered", &["10.1.1.2"], &[one, two]),
            of("answered", &["10.1.1.2", "10.1.1.2"], &[one]),
            of("answered", &["10.1.1.2"], &[]),
            of("name_not_found", &["10.1.1.2"], &[]),
            of("name_not_found", &[], &[one]),
            of("no_data", &[], &[one]),
            of("timed_out", &[], &[]),
            of("error_code", &[], &[one]),
        ];
        insta::assert_snapshot!(answers.join("\n"), @r"
        WrongAnswer: web.test to lead to 10.1.1.2, 10.1.2.2; web.test A: answered: web.test 30 A 10.1.1.2
        WrongAnswer: web.test to lead to 10.1.1.2; web.test A: answered: web.test 30 A 10.1.1.2, web.test 30 A 10.1.1.2
        WrongAnswer: web.test not to exist; web.test A: answered: web.test 30 A 10.1.1.2
        WrongAnswer: web.test not to exist; web.test A: name not found: web.test 30 A 10.1.1.2
        NameNotFound: web.test to lead to 10.1.1.2; web.test A: name not found
        Absent: web.test to lead to 10.1.1.2; web.test A: no data
        TimedOut: web.test not to exist; web.test A: timed out
        Other: web.test to lead to 10.1.1.2; web.test A: error code
        ");
    }
}
