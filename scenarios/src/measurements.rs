//! What is measured of a network: what `cargo xtask compare` compares of a base and a head beside verdicts.
//!
//! A measurement is a scenario that asserts nothing of its own. It takes one reading of each of its metrics,
//! which says something only beside others of the same metric, and has failed where it could not take them.

mod change;
mod drain;
mod page;
mod restart;
mod way;

use podwire_scenario::Scenario;

pub use self::page::{PAGE, page};

/// All of them, the shortest first.
pub fn measurements() -> Vec<Scenario> {
    vec![
        way::WAY,
        change::CHANGE,
        restart::RESTART,
        drain::DRAIN,
        change::AMONG_1000,
        change::AMONG_5000,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use podwire_cluster::{Bootstrap, Cell};

    use super::*;

    #[test]
    fn each_measures_something_on_clusters_of_both_kinds_and_asserts_nothing() {
        for it in measurements() {
            assert!(!it.measures.is_empty(), "{} measures nothing", it.name);
            assert!(it.covers.is_empty() && it.sabotages.is_empty(), "{}", it.name);
            for bootstrap in [Bootstrap::ByHand, Bootstrap::Kubeadm] {
                assert!(it.fits(Cell::usual(bootstrap)), "{} {bootstrap}", it.name);
            }
        }
        assert!(crate::all().iter().all(|it| it.measures.is_empty()));
    }

    #[test]
    fn names_are_unique_and_every_metric_can_be_compared() {
        let mut names: BTreeSet<&str> = crate::all().iter().map(|it| it.name).collect();
        let mut metrics = BTreeSet::new();
        for it in measurements() {
            assert!(names.insert(it.name), "{} twice", it.name);
            for metric in it.measures {
                assert!(metrics.insert(metric.name), "{} twice", metric.name);
                assert!(metric.grain > 0.0 && !metric.how.is_empty(), "{}", metric.name);
            }
        }
    }
}
