//! `--break`: which scenarios must be red, and what a newcomer sees.

use podwire_cluster::Break;
use podwire_scenario::Scenario;

use crate::report::results::{BreakVerdict, ScenarioRecord, Verdict};

/// Compares the red set with what the scenarios' own declarations expect. What was skipped says
/// nothing either way.
pub(crate) fn judge(
    broken: Break,
    catalogue: &[Scenario],
    records: &[ScenarioRecord],
) -> BreakVerdict {
    let ran: Vec<&ScenarioRecord> = records
        .iter()
        .filter(|record| record.outcome != Verdict::Skipped)
        .collect();
    let declares = |name: &str| {
        catalogue
            .iter()
            .any(|scenario| scenario.name == name && scenario.red_when.contains(&broken))
    };
    let names = |wanted: &dyn Fn(&ScenarioRecord) -> bool| -> Vec<String> {
        ran.iter()
            .filter(|record| wanted(record))
            .map(|record| record.name.clone())
            .collect()
    };
    let expected_red = names(&|record| declares(&record.name));
    let red = names(&|record| record.outcome == Verdict::Failed);
    BreakVerdict {
        name: broken.to_string(),
        as_expected: !ran.is_empty() && expected_red == red,
        expected_red,
        red,
    }
}

/// What is broken, and what one therefore sees.
pub(crate) fn explanation(broken: Break) -> &'static str {
    match broken {
        Break::Route => {
            "Node 1 never gets its route to node 2's Pods (`ip route add 10.1.2.0/24 via 172.30.0.12`). \
             Packets from node 1, or from a Pod on it, to a Pod on node 2 take the default route to \
             the gateway, which does not know Pods and drops them: the client waits until it times \
             out. Nothing refuses, and every node is still Ready, because no health check of \
             Kubernetes sends a packet from Pod to Pod."
        }
        Break::KubeProxy => {
            "kube-proxy runs with a kubeconfig that points to a port where nobody listens. It never \
             learns of any Service, so it writes no rules, and a Service's ClusterIP stays an address \
             that nobody has: connections to it time out, while the Pods behind it answer on their \
             own addresses."
        }
        Break::PodRange => {
            "Every node's CNI file hands out addresses from node 1's Pod range. All bridges claim the \
             same subnet: Pods on different nodes get the same address, and the routes to the other \
             nodes' ranges lead to addresses that no Pod has. The Nodes are Ready and the Pods Running \
             all the same, because nobody compares addresses across nodes."
        }
        Break::San => {
            "The API server's serving certificate lacks the names of the Service `kubernetes` \
             (kubernetes.default.svc and so on). The names that components dial are there, so the \
             cluster works; a client that verifies one of the missing names, as every Pod does, \
             refuses the connection."
        }
    }
}

/// The end of a run with `--break`, for a newcomer.
pub(crate) fn report(broken: Break, verdict: &BreakVerdict) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let judgement = if verdict.as_expected {
        format!(
            "Exactly the scenarios that declare it are red: {}. That is what such a fault looks \
             like; this run fails on purpose (exit code 1).",
            list(&verdict.red)
        )
    } else {
        let missing: Vec<String> = verdict
            .expected_red
            .iter()
            .filter(|name| !verdict.red.contains(name))
            .cloned()
            .collect();
        let surplus: Vec<String> = verdict
            .red
            .iter()
            .filter(|name| !verdict.expected_red.contains(name))
            .cloned()
            .collect();
        format!(
            "NOT AS EXPECTED. Should be red but is not: {}. Red but should not be: {}. Either a \
             scenario does not assert what it claims, or its `red_when` list is wrong.",
            list(&missing),
            list(&surplus)
        )
    };
    format!(
        "Broken on purpose: {}\n\n{}\n\n{judgement}\n",
        verdict.name,
        explanation(broken)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::scenario;
    use crate::report::fixture::results;

    fn verdict(outcomes: [(&'static str, Verdict); 3]) -> BreakVerdict {
        let catalogue = [
            Scenario {
                red_when: &[Break::Route, Break::San],
                ..scenario("routes")
            },
            Scenario {
                red_when: &[Break::San],
                ..scenario("tls")
            },
            scenario("addresses"),
        ];
        let base = results().scenarios.remove(0);
        let records = outcomes.map(|(name, outcome)| ScenarioRecord {
            name: name.into(),
            outcome,
            ..base.clone()
        });
        judge(Break::Route, &catalogue, &records)
    }

    #[test]
    fn exactly_the_declared_set_is_as_expected() {
        use Verdict::{Failed, Passed, Skipped};
        assert!(verdict([("routes", Failed), ("tls", Passed), ("addresses", Passed)]).as_expected);
        assert!(!verdict([("routes", Passed), ("tls", Passed), ("addresses", Passed)]).as_expected);
        assert!(!verdict([("routes", Failed), ("tls", Failed), ("addresses", Passed)]).as_expected);
        // Nothing ran: nothing is shown.
        assert!(
            !verdict([
                ("routes", Skipped),
                ("tls", Skipped),
                ("addresses", Skipped)
            ])
            .as_expected
        );
    }

    #[test]
    fn a_mismatch_is_said_loudly() {
        use Verdict::{Failed, Passed};
        let verdict = verdict([("routes", Passed), ("tls", Failed), ("addresses", Passed)]);
        insta::assert_snapshot!(report(Break::Route, &verdict));
    }

    #[test]
    fn every_break_is_explained() {
        for broken in Break::ALL {
            assert!(explanation(broken).len() > 100, "{broken}");
        }
    }
}
