//! What `cargo xtask test` is asked for: which scenarios, on which clusters, of what.

mod asked;
mod cells;

use std::collections::BTreeSet;
use std::env;

use podwire_cluster::{Cell, StageName};
use podwire_images::{BundleOrder, NodeImage};
use podwire_scenario::{Profile, Scenario};
use podwire_vm::Accelerator;

use self::asked::{Asked, belongs_elsewhere, leave_out_the_starving, left_out, unfit};
use self::cells::{Starved, carried, cells, laid_out, leaves_bootstrap_open, pairs};
use crate::command::cli::run::{AskedTests, TestArgs};
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
        let pod_network = Given::read(session, &args.network, &cells, conformance)?;
        let node_files = args.network.node_files.as_deref();
        let node_files = node_tree::Given::read(node_files, args.nodes, &cells)?;
        let target = Target::new(args.nodes, &cells, &bundle);
        let configurations = configurations::Given::read(&args.network, target)?;
        let once = leaves_bootstrap_open(args) && asked.widest == Profile::Default;
        let pairs = pairs(&cells, &asked.chosen, once);
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
        let of_all = whole(&pairs, &others);
        let (mut pairs, begins) = part(&pairs, shard);
        // Which part has which scenario is the same on every host: what this one lacks is left out of its part.
        let cores = (host_counts && !asked.filtered).then(machine::cores);
        left_out.extend(leave_out_the_starving(&mut pairs, cores));
        if pairs.is_empty() {
            return Err(Stop::Usage(nothing_left(shard, of_all.len())));
        }
        let mut orders = CellOrder::of_each(&cells, &pairs, args.nodes);
        if let Some(none) = nothing_runs(&orders) {
            return Err(Stop::Usage(none));
        }
        // Whose part begins the list also says what fits none of the clusters.
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
            shard: shard.map(|shard| (shard, of_all)),
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

/// Why a run would end as if all were well, of scenarios on clusters that it is asked for.
fn nothing_left(shard: Option<Shard>, of_all: usize) -> String {
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

/// What this machine has of all pairs, and whether that begins their list.
fn part<'a>(
    pairs: &[(Cell, &'a Scenario)],
    shard: Option<Shard>,
) -> (Vec<(Cell, &'a Scenario)>, bool) {
    let weights: Vec<u64> = pairs.iter().map(|(_, it)| it.limit.as_secs()).collect();
    let range = shard.map_or(0..pairs.len(), |shard| shard.range(&weights));
    (pairs[range.clone()].to_vec(), range.start == 0)
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
    /// Of each cell in question, with these scenarios on clusters of so many nodes.
    fn of_each(cells: &[Cell], pairs: &[(Cell, &Scenario)], nodes: u32) -> Vec<Self> {
        let orders = cells.iter().map(|cell| {
            let of_cell = pairs.iter().filter(|(of, _)| of == cell);
            let scenarios: Vec<&Scenario> = of_cell.map(|(_, scenario)| *scenario).collect();
            Self {
                cell: *cell,
                selection: select::select(&scenarios, nodes),
            }
        });
        orders.filter(Self::is_wanted).collect()
    }

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

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use podwire_cluster::Bootstrap;

    use super::*;
    use crate::command::cli::{Cli, Command};
    use crate::plan::fixture::scenario;

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
}
