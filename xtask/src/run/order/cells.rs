//! On which clusters a run takes place, and what runs on each.

use podwire_cluster::{Bootstrap, Cell, Layout};
use podwire_scenario::{Profile, Scenario};

use crate::command::cli::run::{Bootstraps, TestArgs};
use crate::command::session::Session;
use crate::prepare::{machine, parts};
use crate::say::stop::Stop;

/// The cells that a run is about.
pub(super) fn cells(args: &TestArgs) -> Result<Vec<Cell>, Stop> {
    let bootstraps = match (args.bootstrap, args.broken) {
        (Some(Bootstraps::One(Bootstrap::ByHand)), _) | (None, Some(_)) => {
            vec![Bootstrap::ByHand]
        }
        (Some(_), Some(_)) => {
            return Err(Stop::Usage(
                "--break: faults are built into the steps by hand; take --bootstrap by-hand".into(),
            ));
        }
        (Some(Bootstraps::One(one)), None) => vec![one],
        (Some(Bootstraps::Both) | None, None) => Bootstrap::ALL.to_vec(),
    };
    let cells = bootstraps.into_iter();
    let cells = cells.map(|each| args.network.existing_cell(each, Layout::Flat));
    cells.collect::<Result<_, _>>().map_err(Stop::Usage)
}

/// Whether it is for us to say which bootstrap shows what: of scenarios of ours, where nobody names one.
pub(super) fn leaves_bootstrap_open(args: &TestArgs) -> bool {
    args.bootstrap.is_none() && args.tests.is_none() && !args.measure
}

/// The cells whose clusters this host does not carry, and why.
#[derive(Default)]
pub(crate) struct Starved {
    pub(super) cells: Vec<Cell>,
    why: String,
}

impl Starved {
    /// A line for each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.cells.iter().map(|cell| self.told(*cell))
    }

    pub(super) fn told(&self, cell: Cell) -> String {
        format!("{cell} is left out: {}", self.why)
    }
}

/// The cells whose clusters this host carries, and the others: where nobody has named what is to run, and where its
/// speed can be told, which needs QEMU and a guest for it.
pub(super) fn carried(
    session: &Session,
    args: &TestArgs,
    cells: Vec<Cell>,
) -> Result<(Vec<Cell>, Starved), Stop> {
    let is_heavy = |cell: &Cell| cell.bootstrap == Bootstrap::Kubeadm;
    // The parts of one run are to be of the same, whatever machines they run on.
    let asked = args.filter.is_some() || args.shard.is_some();
    if asked || !leaves_bootstrap_open(args) || !cells.iter().any(is_heavy) {
        return Ok((cells, Starved::default()));
    }
    let there = parts::cached_base(session)?.zip(machine::Programs::find().ok());
    let verdict = match there {
        // Neither is to start a guest.
        Some((base, _)) if args.plan || args.prepare_only => {
            machine::known_verdict(session, &base)?
        }
        Some((base, programs)) => Some(machine::verdict(session, &programs, &base)?.0),
        None => None,
    };
    let cores = machine::cores();
    let Some(why) = verdict.and_then(|it| machine::starves_kubeadm(&it, args.nodes, cores)) else {
        return Ok((cells, Starved::default()));
    };
    let (starved, carried) = cells.into_iter().partition(is_heavy);
    Ok((
        carried,
        Starved {
            cells: starved,
            why,
        },
    ))
}

/// The scenarios on each of the clusters that they are for; with `once` those that are seen by hand on no other.
pub(super) fn pairs<'a>(
    cells: &[Cell],
    chosen: &[&'a Scenario],
    once: bool,
) -> Vec<(Cell, &'a Scenario)> {
    let is_seen_by_hand = |it: &Scenario| {
        let by_hand = |cell: &&Cell| cell.bootstrap == Bootstrap::ByHand;
        let mut by_hand = cells.iter().filter(by_hand);
        it.profile == Profile::Default && by_hand.any(|cell| it.fits(*cell))
    };
    let of_cell = |cell: Cell| {
        let spares = once && cell.bootstrap == Bootstrap::Kubeadm;
        let fitting = chosen.iter().filter(move |it| it.fits(cell));
        let wanted = fitting.filter(move |it| !(spares && is_seen_by_hand(it)));
        wanted.map(move |it| (cell, *it))
    };
    cells.iter().flat_map(|cell| of_cell(*cell)).collect()
}

/// Each cell as it is, and then laid out otherwise where a scenario is for clusters like that.
pub(super) fn laid_out(cells: &[Cell], chosen: &[&Scenario]) -> Vec<Cell> {
    let wanted = |cell: &Cell| {
        cell.layout == Layout::Flat || chosen.iter().any(|scenario| scenario.fits(*cell))
    };
    let each = |cell: &Cell| Layout::ALL.map(|layout| cell.laid_out(layout));
    let all = cells.iter().flat_map(each).filter(|cell| cell.exists());
    all.filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use podwire_cluster::{IpFamilies, PodNetwork};
    use podwire_scenario::Cells;

    use super::*;
    use crate::plan::fixture::scenario;

    #[test]
    fn a_scenario_s_layout_adds_a_cell_where_it_means_something() {
        let flat = scenario("every_pair");
        let routed = Scenario {
            cells: Cells::Routable,
            layout: Layout::Routed,
            ..scenario("two_segments")
        };
        let by_hand = Cell::usual(Bootstrap::ByHand);
        let manifest = Cell {
            network: PodNetwork::Manifest,
            ..by_hand
        };
        let cells = |chosen: &[&Scenario]| {
            let cells = laid_out(&[by_hand, manifest], chosen);
            let cells: Vec<String> = cells.iter().map(Cell::to_string).collect();
            cells.join(", ")
        };
        insta::assert_snapshot!(cells(&[&flat]), @"by-hand/nftables/routes, by-hand/nftables/manifest");
        insta::assert_snapshot!(cells(&[&flat, &routed]), @"by-hand/nftables/routes, by-hand/nftables/routes+routed, by-hand/nftables/manifest");
        assert!(!flat.fits(by_hand.laid_out(Layout::Routed)));
        assert!(!routed.fits(by_hand));
    }

    #[test]
    fn a_cluster_of_two_families_has_one_segment() {
        let routed = Scenario {
            cells: Cells::Routable,
            layout: Layout::Routed,
            ..scenario("two_segments")
        };
        let dual = Cell::usual(Bootstrap::ByHand).with_families(IpFamilies::Dual);
        assert_eq!(laid_out(&[dual], &[&routed]), [dual]);
    }

    #[test]
    fn where_nobody_names_a_bootstrap_what_is_for_both_is_seen_by_hand() {
        let (usual, of_kubeadm) = (
            scenario("egress"),
            Scenario {
                cells: Cells::Kubeadm,
                ..scenario("kubeadm_join")
            },
        );
        let everywhere = Scenario {
            profile: Profile::Everywhere,
            ..scenario("every_pair")
        };
        let chosen = [&usual, &of_kubeadm, &everywhere];
        let told = |cells: &[Cell], once| {
            let pairs = pairs(cells, &chosen, once);
            let pairs = pairs
                .iter()
                .map(|(cell, it)| format!("{} {}", cell.bootstrap, it.name));
            pairs.collect::<Vec<_>>().join(", ")
        };
        let both = Bootstrap::ALL.map(Cell::usual);
        insta::assert_snapshot!(told(&both, true), @"by-hand egress, by-hand every_pair, kubeadm kubeadm_join, kubeadm every_pair");
        insta::assert_snapshot!(told(&both, false), @"by-hand egress, by-hand every_pair, kubeadm egress, kubeadm kubeadm_join, kubeadm every_pair");
        insta::assert_snapshot!(told(&both[1..], true), @"kubeadm egress, kubeadm kubeadm_join, kubeadm every_pair");
    }
}
