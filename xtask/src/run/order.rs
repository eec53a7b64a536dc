//! What `cargo xtask test` is asked for: which scenarios, on which clusters, of what.

use std::collections::BTreeSet;
use std::env;

use podwire_cluster::{Bootstrap, Cell, IpFamilies, Layout, PodNetwork, StageName};
use podwire_images::{BundleOrder, NodeImage};
use podwire_scenario::{Families, Profile, Scenario};
use podwire_vm::Accelerator;

use crate::command::cli::run::{AskedTests, Bootstraps, ProfileName, TestArgs};
use crate::command::session::Session;
use crate::plan::durations;
use crate::plan::outline::Planned;
use crate::plan::select::{self, Selection, Skipped};
use crate::plan::shard::Shard;
use crate::prepare::configurations::{self, Target};
use crate::prepare::machine;
use crate::prepare::node_tree;
use crate::prepare::parts::{self, NodeSystem};
use crate::prepare::pod_network::{Given, Shape};
use crate::prepare::wanted::{StageOrder, Wanted};
use crate::report::results::LeftOut;
use crate::report::whole::Selected;
use crate::say::stop::Stop;

/// Measurements at once: what one does would be in the readings of the others.
pub(crate) const MEASURED_AT_ONCE: usize = 1;

/// What a run is about, settled before anything is looked at or done.
pub(crate) struct Order<'a> {
    pub(crate) args: &'a TestArgs,
    pub(crate) catalogue: &'a [Scenario],
    /// One cluster each; never none.
    pub(crate) cells: Vec<CellOrder>,
    pub(crate) bundle: BundleOrder,
    pub(crate) system: NodeSystem,
    /// The user's Pod network.
    pub(crate) pod_network: Option<Given>,
    /// The user's files over the nodes' own.
    pub(crate) node_files: Option<node_tree::Given>,
    /// The user's configurations of components.
    pub(crate) configurations: configurations::Given,
    /// A filter, a built-in fault, programs of the user's and measurements are about scenarios alone.
    pub(crate) harness_tests: bool,
    /// This machine's part, and all that the parts are to run together.
    pub(crate) shard: Option<(Shard, Vec<Selected>)>,
    /// What of the catalogue it was not asked for.
    pub(crate) left_out: Vec<LeftOut>,
    /// The clusters that this host does not carry.
    pub(crate) starved: Starved,
}

impl<'a> Order<'a> {
    pub(crate) fn take(
        session: &Session,
        args: &'a TestArgs,
        catalogue: &'a [Scenario],
    ) -> Result<Self, Stop> {
        Self::settle(session, args, catalogue, true)
    }

    /// The same as of a host that carries everything: several machines that part it are to part the same.
    pub(crate) fn on_any_host(
        session: &Session,
        args: &'a TestArgs,
        catalogue: &'a [Scenario],
    ) -> Result<Self, Stop> {
        Self::settle(session, args, catalogue, false)
    }

    fn settle(
        session: &Session,
        args: &'a TestArgs,
        catalogue: &'a [Scenario],
        host_counts: bool,
    ) -> Result<Self, Stop> {
        let bundle = parts::bundle_order(session, &args.sources)?;
        let system = NodeSystem::take(session, &args.from, &args.sources.config)?;
        let asked = Asked::of(session, args, catalogue, bundle.upgrade.is_some())?;
        let (cells, starved) = match host_counts {
            true => carried(session, args, cells(args)?)?,
            false => (cells(args)?, Starved::default()),
        };
        for line in starved.lines() {
            session.progress.line(&line);
        }
        let cells = laid_out(&cells, &asked.chosen);
        let conformance = args.tests == Some(AskedTests::Conformance);
        let conformance = conformance.then_some(bundle.kubernetes.as_str());
        let pod_network = Given::read(session, &args.network, conformance)?;
        let node_files = args.network.node_files.as_deref();
        let node_files = node_tree::Given::read(node_files, args.nodes, &cells)?;
        let target = Target::new(args.nodes, &cells, &bundle);
        let configurations = configurations::Given::read(&args.network, target)?;
        let once = leaves_bootstrap_open(args) && asked.widest == Profile::Default;
        let mut pairs = pairs(&cells, &asked.chosen, once);
        if pairs.is_empty() {
            return Err(Stop::Usage(unfit(&asked.chosen, &cells)));
        }
        let others = asked.named_in_vain(&cells);
        if !others.is_empty() {
            session.progress.line(&unfit(&others, &cells));
        }
        let mut left_out = left_out(catalogue, &asked, &cells, &starved);
        let shard = args.shard.map(|it| it.part(|name| env::var(name).ok()));
        let shard = shard.transpose().map_err(Stop::Usage)?;
        let shard = shard.map(|shard| (shard, whole(&pairs, &others)));
        // Whose part begins the list also says what fits none of the clusters.
        let mut begins = true;
        let of_all = pairs.len();
        if let Some((shard, _)) = &shard {
            let weights: Vec<u64> = pairs.iter().map(|(_, it)| it.limit.as_secs()).collect();
            let range = shard.range(&weights);
            begins = range.start == 0;
            pairs = pairs.drain(range).collect();
        }
        // Which part has which scenario is the same on every host: what this one lacks is left out of its part.
        let cores = (host_counts && !asked.filtered).then(machine::cores);
        left_out.extend(leave_out_the_starving(&mut pairs, cores));
        if pairs.is_empty() {
            return Err(Stop::Usage(nothing_left(
                shard.as_ref().map(|it| &it.0),
                of_all,
            )));
        }
        let orders = cells.iter().map(|cell| {
            let of_cell = pairs.iter().filter(|(of, _)| of == cell);
            let scenarios: Vec<&Scenario> = of_cell.map(|(_, scenario)| *scenario).collect();
            CellOrder {
                cell: *cell,
                selection: select::select(&scenarios, args.nodes),
            }
        });
        let mut orders: Vec<CellOrder> = orders.filter(CellOrder::is_wanted).collect();
        if let Some(none) = nothing_runs(&orders) {
            return Err(Stop::Usage(none));
        }
        if let Some(first) = orders.first_mut()
            && begins
        {
            let others = others.iter().map(|scenario| Skipped {
                name: scenario.name.to_owned(),
                reason: belongs_elsewhere(scenario, &cells),
            });
            first.selection.skipped.extend(others);
        }
        Ok(Self {
            cells: orders,
            harness_tests: args.filter.is_none()
                && args.broken.is_none()
                && args.tests.is_none()
                && !args.measure,
            shard,
            left_out,
            starved,
            args,
            catalogue,
            bundle,
            system,
            pod_network,
            node_files,
            configurations,
        })
    }

    pub(crate) fn wanted(&self) -> Wanted<'_> {
        // Of the conformance tests some are of names, and others ask by names.
        let conformance = self.args.tests == Some(AskedTests::Conformance);
        Wanted {
            bundle: &self.bundle,
            system: Some(&self.system),
            nodes: self.args.nodes,
            broken: self.args.broken,
            cluster_dns: conformance || self.args.network.cluster_dns,
            require_kvm: self.args.require_kvm,
            yes: self.args.yes,
            locked: self.args.locked,
            max_size: self.args.max_size.map(|size| size.as_u64()),
        }
    }

    /// The user's configurations for the reports; what they replace depends on the accelerator.
    pub(crate) fn configured(
        &self,
        accelerator: Option<Accelerator>,
    ) -> anyhow::Result<Vec<String>> {
        let cells: Vec<Cell> = self.cells.iter().map(|order| order.cell).collect();
        let target = Target::new(self.args.nodes, &cells, &self.bundle);
        self.configurations.about(target, accelerator)
    }

    /// The stages that the selected scenarios start from, parents first: those of each cell.
    pub(crate) fn stages(
        &self,
        session: &Session,
        node: &NodeImage,
        accelerator: Accelerator,
        shape: &Shape,
    ) -> Result<Vec<StageOrder>, Stop> {
        let cells = self.cells.iter().filter(|cell| cell.has_any());
        let orders = cells.map(|order| {
            let names: BTreeSet<StageName> = self
                .catalogue
                .iter()
                .filter(|scenario| order.selects(scenario))
                .map(|scenario| scenario.stage)
                .collect();
            let wanted = self.wanted();
            Ok(StageOrder {
                plan: shape
                    .of(wanted.cluster_plan(session, order.cell, node, accelerator)?)
                    .with_node_tree(self.node_files.as_ref().map(|given| given.tree.clone()))
                    .with_configurations(self.configurations.all.clone()),
                names: names.into_iter().collect(),
            })
        });
        orders.collect()
    }

    /// How many stages there must be room for: those that the scenarios start from, and the two at
    /// a time on the way to them.
    pub(crate) fn stages_kept(&self) -> usize {
        let starts: BTreeSet<(Cell, StageName)> = self
            .cells
            .iter()
            .flat_map(|order| {
                let selected = self.catalogue.iter().filter(|it| order.selects(it));
                selected.map(|scenario| (order.cell, scenario.stage))
            })
            .collect();
        starts.len() + 2
    }

    /// Whether one of the selected scenarios starts kube-router.
    pub(crate) fn has_kube_router(&self) -> bool {
        let mut starts = self.catalogue.iter().filter(|it| it.kube_router);
        starts.any(|scenario| self.cells.iter().any(|cell| cell.selects(scenario)))
    }

    /// All scenarios that run, with their cells.
    pub(crate) fn scenarios(&self) -> Vec<Planned> {
        let mut all = Vec::new();
        for order in &self.cells {
            let cell = order.cell.to_string();
            for scenario in self.catalogue.iter().filter(|it| order.selects(it)) {
                // A broken cluster is sabotaged enough.
                let sabotages = match self.args.broken {
                    Some(_) => 0,
                    None => scenario.sabotages.len(),
                };
                all.push(Planned {
                    name: durations::on_cell(scenario.name, &cell),
                    repeat: self.args.repeat,
                    once: sabotages + usize::from(scenario.prepare.is_some()),
                });
            }
        }
        all
    }
}

/// Why a scenario that upgrades a cluster does not run.
const NOTHING_TO_UPGRADE_TO: &str =
    "needs a newer Kubernetes to upgrade to, like --kubernetes 1.35 --upgrade-to 1.36";

/// The scenarios that a run is asked for, whatever its clusters and its host are.
struct Asked<'a> {
    /// Those of its filter, all if it has none.
    named: Vec<&'a Scenario>,
    /// Those of them that are of its profile, and for which it has what they need.
    chosen: Vec<&'a Scenario>,
    /// The profile that these are of.
    widest: Profile,
    /// Whether somebody has named them.
    filtered: bool,
    /// Whether there is something to upgrade to.
    upgrades: bool,
}

impl<'a> Asked<'a> {
    fn of(
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
    fn named_in_vain(&self, cells: &[Cell]) -> Vec<&'a Scenario> {
        let fits = |it: &Scenario| cells.iter().any(|cell| it.fits(*cell));
        let chosen = self.chosen.iter().copied();
        chosen.filter(|it| self.filtered && !fits(it)).collect()
    }
}

/// What a run was not asked for, or cannot do on these cells, and why. Of these, each that a filter names is told among
/// the scenarios.
fn left_out(
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
fn leave_out_the_starving(
    pairs: &mut Vec<(Cell, &Scenario)>,
    cores: Option<usize>,
) -> Vec<LeftOut> {
    let cores = cores.unwrap_or(usize::MAX);
    let starving = pairs.extract_if(.., |(_, it)| cores < it.cores);
    let mut told: Vec<LeftOut> = starving
        .map(|(_, it)| LeftOut {
            name: it.name.to_owned(),
            reason: format!(
                "needs {} processors of this host, which has {cores}; --filter runs it all the same",
                it.cores
            ),
        })
        .collect();
    told.dedup_by(|one, other| one.name == other.name);
    told
}

/// Why a run would end as if all were well, of scenarios on clusters that it is asked for.
fn nothing_left(shard: Option<&Shard>, of_all: usize) -> String {
    match shard {
        Some(shard) => format!(
            "--shard {shard}: nothing is left for this part of {of_all} scenarios; take fewer parts"
        ),
        None => {
            "every scenario needs more processors than this host has; --filter runs it all the same"
                .to_owned()
        }
    }
}

/// Whether it is for us to say which bootstrap shows what: of scenarios of ours, where nobody names one.
fn leaves_bootstrap_open(args: &TestArgs) -> bool {
    args.bootstrap.is_none() && args.tests.is_none() && !args.measure
}

/// The cells whose clusters this host does not carry, and why.
#[derive(Default)]
pub(crate) struct Starved {
    cells: Vec<Cell>,
    why: String,
}

impl Starved {
    /// A line for each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.cells.iter().map(|cell| self.told(*cell))
    }

    fn told(&self, cell: Cell) -> String {
        format!("{cell} is left out: {}", self.why)
    }
}

/// The cells whose clusters this host carries, and the others: where nobody has named what is to run, and where its
/// speed can be told, which needs QEMU and a guest for it.
fn carried(
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
fn pairs<'a>(cells: &[Cell], chosen: &[&'a Scenario], once: bool) -> Vec<(Cell, &'a Scenario)> {
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

/// All that a run's parts are to do together: the scenarios on their clusters, and those that fit none of
/// them, which are reported as skipped with the first.
fn whole(pairs: &[(Cell, &Scenario)], others: &[&Scenario]) -> Vec<Selected> {
    let first = pairs.first().map(|(cell, _)| *cell);
    let others = others.iter().filter_map(|it| Some((first?, *it)));
    let all = pairs.iter().copied().chain(others);
    let selected = all.map(|(cell, scenario)| Selected {
        cell: cell.to_string(),
        name: scenario.name.to_owned(),
    });
    selected.collect()
}

/// What runs on one of the clusters.
pub(crate) struct CellOrder {
    pub(crate) cell: Cell,
    pub(crate) selection: Selection,
}

impl CellOrder {
    /// Whether anybody asked for anything that it could carry, or could not.
    fn is_wanted(&self) -> bool {
        !(self.selection.scenarios.is_empty() && self.selection.skipped.is_empty())
    }

    pub(crate) fn has_any(&self) -> bool {
        !self.selection.scenarios.is_empty()
    }

    pub(crate) fn selects(&self, scenario: &Scenario) -> bool {
        let names = &self.selection.scenarios;
        names.iter().any(|name| name == scenario.name)
    }
}

/// Why nothing of an order would run, where nothing would: each of the scenarios needs a larger
/// cluster. A run without one would end as if all were well.
fn nothing_runs(orders: &[CellOrder]) -> Option<String> {
    if orders.iter().any(CellOrder::has_any) {
        return None;
    }
    let all = orders.iter().flat_map(|order| &order.selection.skipped);
    let lines: BTreeSet<String> = all
        .map(|Skipped { name, reason }| format!("  {name} {reason}"))
        .collect();
    Some(format!(
        "no scenario would run:\n{}\n(--nodes makes a larger cluster)",
        lines.into_iter().collect::<Vec<_>>().join("\n")
    ))
}

/// Each cell as it is, and then laid out otherwise where a scenario is for clusters like that.
fn laid_out(cells: &[Cell], chosen: &[&Scenario]) -> Vec<Cell> {
    let wanted = |cell: &Cell| {
        cell.layout == Layout::Flat || chosen.iter().any(|scenario| scenario.fits(*cell))
    };
    let each = |cell: &Cell| Layout::ALL.map(|layout| cell.laid_out(layout));
    let all = cells.iter().flat_map(each).filter(|cell| cell.exists());
    all.filter(wanted).collect()
}

/// Why a scenario means nothing for any of these cells, and for which it does.
fn belongs_elsewhere(scenario: &Scenario, cells: &[Cell]) -> String {
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
fn unfit(scenarios: &[&Scenario], cells: &[Cell]) -> String {
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

/// The cells that a run is about.
fn cells(args: &TestArgs) -> Result<Vec<Cell>, Stop> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cli::{Cli, Command};
    use crate::plan::fixture::scenario;
    use clap::Parser as _;
    use podwire_scenario::Cells;

    #[test]
    fn an_order_of_which_nothing_would_run_is_refused_with_what_each_needs() {
        let large = Scenario {
            nodes: 3,
            ..scenario("three_ways")
        };
        let small = scenario("pod_addresses");
        let orders = |chosen: &[&Scenario], nodes| {
            Bootstrap::ALL.map(|bootstrap| CellOrder {
                cell: Cell::usual(bootstrap),
                selection: select::select(chosen, nodes),
            })
        };
        assert_eq!(nothing_runs(&orders(&[&small, &large], 2)), None);
        insta::assert_snapshot!(nothing_runs(&orders(&[&small, &large], 1)).unwrap(), @"
        no scenario would run:
          pod_addresses needs 2 nodes, this cluster has 1
          three_ways needs 3 nodes, this cluster has 1
        (--nodes makes a larger cluster)
        ");
    }

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
        let mut pairs = vec![(cells[0], &catalogue[2])];
        let left = leave_out_the_starving(&mut pairs, Some(2));
        insta::assert_snapshot!(left[0].reason, @"needs 4 processors of this host, which has 2; --filter runs it all the same");
    }

    #[test]
    fn which_part_has_a_scenario_is_the_same_on_a_host_that_lacks_the_processors_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let session = Session::below(dir.path());
        let huge = Scenario {
            cores: usize::MAX,
            ..scenario("control_planes")
        };
        let catalogue = [scenario("every_pair"), huge, scenario("cluster_ip")];
        let taken = |words: &str| {
            let words = format!("xtask test --bootstrap by-hand {words}");
            let Command::Test(args) = Cli::try_parse_from(words.split(' ')).unwrap().command else {
                panic!("it is no run");
            };
            let order = Order::take(&session, &args, &catalogue).unwrap();
            let shard = order.shard.iter();
            let whole = shard.flat_map(|(_, whole)| whole.iter().map(|it| it.name.clone()));
            let Selection { scenarios, skipped } = &order.cells[0].selection;
            let skipped = skipped.iter().map(|it| it.name.clone());
            let left_out = order.left_out.iter().map(|it| it.name.clone());
            let lists = [
                whole.collect(),
                scenarios.clone(),
                skipped.collect(),
                left_out.collect(),
            ];
            lists.map(|list: Vec<String>| list.join(" "))
        };
        let whole = "every_pair control_planes cluster_ip";
        let [one, two] = [taken("--shard 1/2"), taken("--shard 2/2")];
        assert_eq!([&one[0], &two[0]], [whole; 2]);
        // What runs, and what is left out, in whichever part it is, as without parts.
        assert_eq!(format!("{} {}", one[1], two[1]), "every_pair cluster_ip");
        assert_eq!([&one[2], &two[2]], [""; 2]);
        assert_eq!(format!("{}{}", one[3], two[3]), "control_planes");
        let alone = ["", "every_pair cluster_ip", "", "control_planes"];
        assert_eq!(taken("--pod-network routes"), alone);
        // Somebody has asked for it.
        let named = ["1/2", "2/2"].map(|part| {
            taken(&format!(
                "--shard {part} --filter every_pair,control_planes,cluster_ip"
            ))
        });
        let runs = format!("{} {}", named[0][1], named[1][1]);
        assert_eq!(runs, whole);
        assert_eq!([&named[0][2], &named[1][2]], [""; 2]);
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
