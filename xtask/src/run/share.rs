//! `compare --shard`: the part of a comparison that this machine has.

use std::collections::{BTreeMap, BTreeSet};
use std::env;

use podwire_scenario::Scenario;

use crate::command::again;
use crate::command::cli::run::CompareArgs;
use crate::command::session::Session;
use crate::plan::partition::{self, Sided};
use crate::plan::shard::Shard;
use crate::report::compare::Ran;
use crate::report::compare::cluster::cluster;
use crate::report::compare::part::Part;
use crate::report::whole;
use crate::run::order::Order;
use crate::run::side_args::{What, test_args, words};
use crate::run::sides::SIDES;
use crate::say::stop::Stop;

/// One machine's part.
#[derive(Debug)]
pub(super) struct Share {
    shard: Shard,
    /// What is compared here.
    names: Vec<String>,
    part: Part,
}

impl Share {
    /// The part that is asked for, if one is.
    ///
    /// # Errors
    /// [`Stop::Usage`] when nothing is left for it, and for a side that cannot be tested.
    pub(super) fn take(
        session: &Session,
        args: &CompareArgs,
        flags: &[Vec<String>; 2],
        catalogue: &[Scenario],
    ) -> Result<Option<Self>, Stop> {
        let Some(asked) = args.shard else {
            return Ok(None);
        };
        let shard = asked.part(|name| env::var(name).ok());
        let shard = shard.map_err(Stop::Usage)?;
        let mut sides = [BTreeSet::new(), BTreeSet::new()];
        for ((name, flags), side) in SIDES.iter().zip(flags).zip(&mut sides) {
            let of_side = |stop| name.told(stop);
            let args = test_args(&words(args, flags, What::Verdicts(None))).map_err(of_side)?;
            let order = Order::on_any_host(session, &args, catalogue).map_err(of_side)?;
            *side = on_clusters(&order);
        }
        let all = sided(catalogue, &sides);
        let names = partition::part(&all, shard).map_err(Stop::Usage)?;
        Ok(Some(Self {
            shard,
            names,
            part: Part {
                shard: shard.to_string(),
                podwire: session.workspace.revision(&session.spawner),
                arguments: whole::common_arguments(again::typed()),
                scenarios: all.into_iter().map(|it| it.name).collect(),
                made_of: [BTreeMap::new(), BTreeMap::new()],
            },
        }))
    }

    /// In words, before it begins.
    pub(super) fn told(&self) -> String {
        let (names, all) = (self.names.len(), self.part.scenarios.len());
        format!(
            "Part {}, {names} of {all} scenarios on both sides: {}",
            self.shard,
            self.names.join(", ")
        )
    }

    /// The scenarios that are compared here.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The arguments of its comparison. Numbers are the first part's: on one machine, they are pairs.
    pub(super) fn args(&self, args: &CompareArgs) -> CompareArgs {
        CompareArgs {
            pairs: match self.shard.number() {
                1 => args.pairs,
                _ => 0,
            },
            ..args.clone()
        }
    }

    /// What the part says of the whole, given what has run on both sides.
    pub(super) fn part(&self, [base, head]: &[Vec<Ran>; 2]) -> Part {
        Part {
            made_of: [base, head].map(|ran| {
                let first = ran.first().map(|first| first.results.made_of());
                first.unwrap_or_default().into_iter().collect()
            }),
            ..self.part.clone()
        }
    }
}

/// What runs on a side at least, in the catalogue's order.
fn sided(catalogue: &[Scenario], [base, head]: &[BTreeSet<(String, String)>; 2]) -> Vec<Sided> {
    let of = |side: &BTreeSet<(String, String)>, name: &str| -> BTreeSet<String> {
        let own = side.iter().filter(|(it, _)| it == name);
        own.map(|(_, cluster)| cluster.clone()).collect()
    };
    let all = catalogue.iter().filter_map(|scenario| {
        let (base, head) = (of(base, scenario.name), of(head, scenario.name));
        let clusters = u64::try_from(base.union(&head).count()).ok()?;
        (clusters > 0).then(|| Sided {
            name: scenario.name.to_owned(),
            weight: scenario.limit.as_secs() * clusters,
            on_both: !base.is_disjoint(&head),
        })
    });
    all.collect()
}

/// Its scenarios, each with what the clusters of both sides have in common.
pub(super) fn on_clusters(order: &Order<'_>) -> BTreeSet<(String, String)> {
    let cells = order.cells.iter();
    let all = cells.flat_map(|cell| {
        let place = cluster(&cell.cell.to_string());
        let names = cell.selection.scenarios.iter();
        names.map(move |name| (name.clone(), place.clone()))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podwire_scenario::{Cells, Profile};

    use super::*;
    use crate::plan::fixture::scenario;
    use crate::run::side_args::tests::args;

    /// What of this all parts run together, each place with how often.
    fn of_parts(catalogue: &[Scenario], line: &[&str]) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let session = Session::below(dir.path());
        let mut all = Vec::new();
        for shard in ["1/2", "2/2"] {
            let args = args(&[&["", "", "--shard", shard], line].concat());
            let flags = [vec![], vec![]];
            let share = Share::take(&session, &args, &flags, catalogue).unwrap();
            let share = share.unwrap();
            let args = share.args(&args);
            let words = words(&args, &[], What::Verdicts(Some(share.names())));
            let args = test_args(&words).unwrap();
            all.extend(on_clusters(
                &Order::take(&session, &args, catalogue).unwrap(),
            ));
        }
        all.sort();
        all
    }

    #[test]
    fn all_parts_run_what_one_machine_would_that_carries_everything() {
        let everywhere = Scenario {
            profile: Profile::Everywhere,
            ..scenario("every_pair")
        };
        let of_kubeadm = Scenario {
            cells: Cells::Kubeadm,
            ..scenario("node_reset")
        };
        let full = Scenario {
            profile: Profile::Full,
            ..scenario("headless_service")
        };
        // More than any machine has.
        let large = Scenario {
            cores: usize::MAX,
            ..scenario("control_planes")
        };
        let (egress, names) = (scenario("egress"), scenario("names"));
        let catalogue = [everywhere, egress, names, of_kubeadm, full, large];
        let told = |line: &[&str]| {
            let places = of_parts(&catalogue, line).into_iter();
            let places = places.map(|(name, cluster)| format!("{name} on {cluster}"));
            places.collect::<Vec<_>>().join(", ")
        };
        insta::assert_snapshot!(told(&[]), @"control_planes on by-hand, egress on by-hand, every_pair on by-hand, every_pair on kubeadm, names on by-hand, node_reset on kubeadm");
        insta::assert_snapshot!(told(&["--filter", "egress,headless_service"]), @"egress on by-hand, egress on kubeadm, headless_service on by-hand, headless_service on kubeadm");
        insta::assert_snapshot!(told(&["--bootstrap", "kubeadm", "--filter", "egress,names,headless_service", "--profile", "default"]), @"egress on kubeadm, names on kubeadm");
    }

    #[test]
    fn what_runs_on_more_clusters_weighs_more() {
        let mut catalogue = ["a", "b", "c", "d"].map(scenario);
        catalogue[1].limit = Duration::from_secs(60);
        let side = |places: &[(&str, &str)]| -> BTreeSet<(String, String)> {
            let places = places.iter();
            places
                .map(|(name, cluster)| ((*name).to_owned(), (*cluster).to_owned()))
                .collect()
        };
        let base = side(&[
            ("a", "by-hand"),
            ("b", "by-hand"),
            ("b", "kubeadm"),
            ("c", "by-hand"),
        ]);
        let head = side(&[("a", "by-hand"), ("b", "kubeadm"), ("c", "kubeadm")]);
        let shown = sided(&catalogue, &[base, head])
            .into_iter()
            .map(|it| format!("{}: {}, {}", it.name, it.weight, it.on_both));
        let shown: Vec<String> = shown.collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        a: 60, true
        b: 120, true
        c: 120, false
        ");
    }
}
