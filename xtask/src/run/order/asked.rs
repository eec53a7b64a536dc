//! Which scenarios a run is asked for, and why the others are left out.

use std::collections::BTreeMap;

use podwire_cluster::{Bootstrap, Cell, IpFamilies, PodNetwork};
use podwire_scenario::{Families, Profile, Scenario};

use super::cells::Starved;
use crate::command::cli::run::{ProfileName, TestArgs};
use crate::command::session::Session;
use crate::plan::select;
use crate::report::results::LeftOut;
use crate::say::stop::Stop;

/// Why a scenario that upgrades a cluster does not run.
const NOTHING_TO_UPGRADE_TO: &str =
    "needs a newer Kubernetes to upgrade to, like --kubernetes 1.35 --upgrade-to 1.36";

/// The scenarios that a run is asked for, whatever its clusters and its host are.
pub(super) struct Asked<'a> {
    /// Those of its filter, all if it has none.
    pub(super) named: Vec<&'a Scenario>,
    /// Those of them that are of its profile, and for which it has what they need.
    pub(super) chosen: Vec<&'a Scenario>,
    /// The profile that these are of.
    pub(super) widest: Profile,
    /// Whether somebody has named them.
    pub(super) filtered: bool,
    /// Whether there is something to upgrade to.
    upgrades: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn of(
        session: &Session,
        args: &TestArgs,
        catalogue: &'a [Scenario],
        upgrades: bool,
    ) -> Result<Self, Stop> {
        let profile = args.profile.map(|name| match name {
            ProfileName::Default => Profile::Default,
            ProfileName::Full => Profile::Full,
        });
        let asked = Self::choose(catalogue, args.filter.as_deref(), profile, upgrades)
            .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
        let mut named = asked.named.iter();
        let in_vain = named.find(|it| asked.filtered && asked.lacks_an_upgrade(it));
        if let Some(in_vain) = in_vain {
            let told = format!("{}: {NOTHING_TO_UPGRADE_TO}", in_vain.name);
            if asked.chosen.is_empty() {
                return Err(Stop::Usage(told));
            }
            session.progress.line(&told);
        }
        if asked.chosen.is_empty() {
            return Err(Stop::Usage(
                "no scenario of this profile fits the filter; leave --profile out, or take --profile full"
                    .into(),
            ));
        }
        Ok(asked)
    }

    fn choose(
        catalogue: &'a [Scenario],
        filter: Option<&str>,
        profile: Option<Profile>,
        upgrades: bool,
    ) -> Result<Self, select::Unknown> {
        let mut asked = Self {
            named: select::choose(catalogue, filter, Some(Profile::Full))?,
            chosen: Vec::new(),
            widest: select::widest(filter, profile),
            filtered: filter.is_some(),
            upgrades,
        };
        let chosen = select::choose(catalogue, filter, profile)?.into_iter();
        asked.chosen = chosen.filter(|it| !asked.lacks_an_upgrade(it)).collect();
        Ok(asked)
    }

    fn lacks_an_upgrade(&self, scenario: &Scenario) -> bool {
        scenario.upgrades && !self.upgrades
    }

    /// Those that somebody has named and that fit none of these cells.
    pub(super) fn named_in_vain(&self, cells: &[Cell]) -> Vec<&'a Scenario> {
        let fits = |it: &Scenario| cells.iter().any(|cell| it.fits(*cell));
        let chosen = self.chosen.iter().copied();
        chosen.filter(|it| self.filtered && !fits(it)).collect()
    }
}

/// What a run was not asked for, or cannot do on these cells, and why. Of these, each that a filter names is told among
/// the scenarios.
pub(super) fn left_out(
    catalogue: &[Scenario],
    asked: &Asked<'_>,
    cells: &[Cell],
    starved: &Starved,
) -> Vec<LeftOut> {
    let is_of = |list: &[&Scenario], one: &Scenario| list.iter().any(|it| it.name == one.name);
    let reason = |scenario: &Scenario| {
        if !is_of(&asked.named, scenario) {
            return Some("--filter does not name it".to_owned());
        }
        if asked.lacks_an_upgrade(scenario) {
            return Some(NOTHING_TO_UPGRADE_TO.to_owned());
        }
        if !is_of(&asked.chosen, scenario) {
            return Some("it belongs to --profile full".to_owned());
        }
        if asked.filtered || cells.iter().any(|cell| scenario.fits(*cell)) {
            return None;
        }
        let mut starved_cells = starved.cells.iter();
        Some(match starved_cells.find(|cell| scenario.fits(**cell)) {
            Some(cell) => starved.told(*cell),
            None => belongs_elsewhere(scenario, cells),
        })
    };
    let each = catalogue.iter().filter_map(|scenario| {
        Some(LeftOut {
            name: scenario.name.to_owned(),
            reason: reason(scenario)?,
        })
    });
    each.collect()
}

/// Takes out what needs more processors than this host has, and says so of each; nothing without a number of them.
pub(super) fn leave_out_the_starving(
    pairs: &mut Vec<(Cell, &Scenario)>,
    cores: Option<usize>,
) -> Vec<LeftOut> {
    let cores = cores.unwrap_or(usize::MAX);
    let starving = pairs.extract_if(.., |(_, it)| cores < it.cores);
    let starving: BTreeMap<&str, usize> = starving.map(|(_, it)| (it.name, it.cores)).collect();
    let told = starving.into_iter().map(|(name, needs)| LeftOut {
        name: name.to_owned(),
        reason: format!(
            "needs {needs} processors of this host, which has {cores}; --filter runs it all the same"
        ),
    });
    told.collect()
}

/// Why a scenario means nothing for any of these cells, and for which it does.
pub(super) fn belongs_elsewhere(scenario: &Scenario, cells: &[Cell]) -> String {
    let why = scenario.unfit_for_all(cells.iter().copied());
    let why = why.map(|why| format!("{why}; ")).unwrap_or_default();
    let families = match scenario.families {
        Families::Dual => IpFamilies::Dual,
        Families::Ipv4 | Families::Each => IpFamilies::Ipv4,
    };
    let differs = cells.iter().all(|cell| cell.ip_families != families);
    let with = match scenario.families {
        Families::Dual => ", with --ip-families dual",
        Families::Ipv4 if differs => ", with --ip-families ipv4",
        Families::Ipv4 | Families::Each => "",
    };
    let fitting = Bootstrap::ALL.into_iter().filter_map(|bootstrap| {
        let usual = Cell::usual(bootstrap)
            .laid_out(scenario.layout)
            .with_families(families);
        let networks = PodNetwork::ALL.into_iter();
        let networks = networks.filter(|network| {
            scenario.fits(Cell {
                network: *network,
                ..usual
            })
        });
        let names: Vec<String> = networks.map(|network| network.to_string()).collect();
        if names.is_empty() {
            return None;
        }
        Some(match names.len() == PodNetwork::ALL.len() {
            true => format!("{bootstrap} (any)"),
            false => format!("{bootstrap} ({})", names.join(", ")),
        })
    });
    let fitting: Vec<String> = fitting.collect();
    format!("{why}it is for clusters of {}{with}", fitting.join(" and "))
}

/// Why these scenarios mean nothing for any of these cells, and for which they do: one line each.
pub(super) fn unfit(scenarios: &[&Scenario], cells: &[Cell]) -> String {
    let lines = scenarios
        .iter()
        .map(|scenario| format!("  {} {}", scenario.name, belongs_elsewhere(scenario, cells)));
    let cells: Vec<String> = cells.iter().map(Cell::to_string).collect();
    format!(
        "nothing to run on a cluster of {} in:\n{}\n(--bootstrap takes what stands in front, \
         --pod-network what stands in parentheses)",
        cells.join(" or "),
        lines.collect::<Vec<_>>().join("\n")
    )
}

#[cfg(test)]
mod tests {
    use podwire_cluster::StageName;
    use podwire_scenario::Cells;

    use super::*;
    use crate::plan::fixture::scenario;
    use crate::run::order::cells::pairs;

    #[test]
    fn what_looks_at_other_families_says_which() {
        let ipv4 = scenario("networkd_restarted");
        let dual = Scenario {
            families: Families::Dual,
            ..scenario("ipv6_beside_ipv4")
        };
        let each = Scenario {
            families: Families::Each,
            ..scenario("every_pair")
        };
        let usual = Cell::usual(Bootstrap::ByHand);
        let both = usual.with_families(IpFamilies::Dual);
        let of = |cell: Cell| [&ipv4, &dual, &each].map(|scenario| scenario.fits(cell));
        assert_eq!(of(usual), [true, false, true]);
        assert_eq!(of(both), [false, true, true]);
        insta::assert_snapshot!(belongs_elsewhere(&ipv4, &[both]), @"looks at IPv4 alone; it is for clusters of by-hand (any) and kubeadm (any), with --ip-families ipv4");
        insta::assert_snapshot!(belongs_elsewhere(&dual, &[usual]), @"is about two families of IP; it is for clusters of by-hand (any) and kubeadm (any), with --ip-families dual");
    }

    #[test]
    fn what_a_run_was_not_asked_for_says_why() {
        let full = Scenario {
            profile: Profile::Full,
            ..scenario("headless_service")
        };
        let elsewhere = Scenario {
            cells: Cells::Kubeadm,
            ..scenario("node_reset")
        };
        let catalogue = [scenario("every_pair"), full, elsewhere];
        let cells = [Cell::usual(Bootstrap::ByHand)];
        let told = |filter: Option<&str>, profile: Option<Profile>| {
            let asked = Asked::choose(&catalogue, filter, profile, false).unwrap();
            let left_out = left_out(&catalogue, &asked, &cells, &Starved::default());
            let lines = left_out
                .iter()
                .map(|it| format!("{}: {}", it.name, it.reason));
            lines.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(told(None, None), @"
        headless_service: it belongs to --profile full
        node_reset: runs kubeadm, or looks at what that has left; it is for clusters of kubeadm (any)
        ");
        let filter = Some("every_pair,node_reset");
        insta::assert_snapshot!(told(filter, None), @"headless_service: --filter does not name it");
        let usual = told(Some("headless_service,node_reset"), Some(Profile::Default));
        insta::assert_snapshot!(usual, @"
        every_pair: --filter does not name it
        headless_service: it belongs to --profile full
        ");
    }

    #[test]
    fn what_the_host_or_the_run_lacks_keeps_a_scenario_out() {
        let upgrade = Scenario {
            upgrades: true,
            ..scenario("kubeadm_upgrade")
        };
        let large = Scenario {
            cores: 4,
            ..scenario("kubeadm_control_planes")
        };
        let catalogue = [scenario("every_pair"), upgrade, large];
        let cells = [Cell::usual(Bootstrap::Kubeadm)];
        let told = |upgrades: bool, cores: Option<usize>| {
            let asked = Asked::choose(&catalogue, None, None, upgrades).unwrap();
            let mut left = left_out(&catalogue, &asked, &cells, &Starved::default());
            let mut pairs = pairs(&cells, &asked.chosen, false);
            left.extend(leave_out_the_starving(&mut pairs, cores));
            let run = pairs.iter().map(|(_, it)| it.name.to_owned());
            let left = left.iter().map(|it| format!("not {}", it.name));
            run.chain(left).collect::<Vec<_>>().join(", ")
        };
        insta::assert_snapshot!(told(false, Some(2)), @"every_pair, not kubeadm_upgrade, not kubeadm_control_planes");
        insta::assert_snapshot!(told(true, Some(4)), @"every_pair, kubeadm_upgrade, kubeadm_control_planes");
        // Somebody has asked for it.
        insta::assert_snapshot!(told(true, None), @"every_pair, kubeadm_upgrade, kubeadm_control_planes");
        // It is told once, on however many cells it would have run.
        let on = |bootstrap, place: usize| (Cell::usual(bootstrap), &catalogue[place]);
        let (by_hand, kubeadm) = (Bootstrap::ByHand, Bootstrap::Kubeadm);
        let mut pairs = vec![on(by_hand, 2), on(by_hand, 0), on(kubeadm, 2)];
        let left = leave_out_the_starving(&mut pairs, Some(2));
        assert_eq!((left.len(), pairs.len()), (1, 1));
        insta::assert_snapshot!(left[0].reason, @"needs 4 processors of this host, which has 2; --filter runs it all the same");
    }

    #[test]
    fn what_no_cluster_of_the_run_can_carry_says_its_stage_and_which_clusters_can() {
        let bare = Scenario {
            stage: StageName::WorkloadBare,
            ..scenario("kube_proxy_from_nothing")
        };
        let bridge = Scenario {
            stage: StageName::Joined,
            cells: Cells::KubeadmWithBridge,
            ..scenario("node_reset")
        };
        let by_hand = Cell {
            network: PodNetwork::Manifest,
            ..Cell::usual(Bootstrap::ByHand)
        };
        insta::assert_snapshot!(unfit(&[&bare, &bridge], &[by_hand]), @"
        nothing to run on a cluster of by-hand/nftables/manifest in:
          kube_proxy_from_nothing starts from the stage workload-bare, which such a cluster does not have; it is for clusters of by-hand (routes)
          node_reset runs kubeadm, or looks at what that has left; it is for clusters of kubeadm (routes, flannel, flannel-host-gw)
        (--bootstrap takes what stands in front, --pod-network what stands in parentheses)
        ");
    }
}
