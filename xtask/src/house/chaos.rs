//! `cargo xtask chaos`: the real program is killed, stopped, starved of disk and robbed of its files, again
//! and again, and what must hold afterwards is looked at each time.
//!
//! A round does one thing ([`draw`]) to a run of `cargo xtask test`. Afterwards, each time: none of its
//! processes is left and nothing is locked, `stages --verify` finds nothing damaged (what was cut is told
//! and gone), and the next run, to which nothing is done, is green with the verdicts of the reference, a
//! run made before the first round. The first thing that does not hold ends the campaign.
//!
//! It works in a folder of its own ([`ground`]) with a cache of its own, and knows its processes by a mark
//! ([`own`]): a run that somebody else has under way is none of its business, nor is its cache.

mod campaign;
mod draw;
mod full;
mod ground;
mod own;
mod runs;
mod tally;
mod verdicts;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use podwire_cluster::{Cell, StageName};
use podwire_scenario::{Profile, Scenario};
use podwire_vm::Accelerator;
use time::OffsetDateTime;

use self::campaign::Campaign;
use self::ground::Ground;
use self::own::Own;
use self::runs::{End, Runs};
use self::tally::Tally;
use crate::command::cli::change::SourceArgs;
use crate::command::cli::house::ChaosArgs;
use crate::command::session::Session;
use crate::plan::capacity::disk_needed;
use crate::plan::select;
use crate::prepare::{parts, tickets};
use crate::say::stop::Stop;
use crate::say::text::size;

/// The folder of campaigns in `target/podwire`.
pub(crate) const CHAOS: &str = "chaos";

/// Short scenarios that start from different stages.
const FILTER: &str = "nodes_have_their_own_identity,api_server_names,pods_see_own_addresses";

/// Machines in a cluster, as `cargo xtask test` has them unless it is told otherwise.
const NODES: u32 = 3;

/// How long it goes on when nothing is said.
const SECONDS: u64 = 600;

/// The whole command.
pub(crate) fn chaos(
    session: &Session,
    args: &ChaosArgs,
    catalogue: &[Scenario],
) -> Result<(), Stop> {
    let seed = args
        .seed
        .unwrap_or_else(|| RandomState::new().hash_one("seed"));
    let rounds = draw::rounds(seed).enumerate();
    let rounds = rounds.skip(args.from.saturating_sub(1));
    if let Some(count) = args.draw {
        for (number, act) in rounds.take(count) {
            outln!("round {}: {act}", number + 1);
        }
        return Ok(());
    }
    let chosen = chosen(args, catalogue)?;
    let stages = stages_bytes(session, &chosen)?;
    let names: Vec<&str> = chosen.iter().map(|scenario| scenario.name).collect();

    let now = OffsetDateTime::now_utc();
    let parent = session.workspace.output.join(CHAOS);
    let parent = args.dir.clone().unwrap_or(parent);
    let parent = std::path::absolute(&parent)?;
    let name = format!("{}-{}", now.unix_timestamp(), std::process::id());
    let ground = Ground::new(&parent, &name)?;
    let progress = &session.progress;
    progress.phase(&format!("chaos, seed {seed}"));
    progress.line(&format!(
        "seed {seed}, in {}; Ctrl-C ends it with its report",
        ground.dir().display()
    ));
    let planted = ground.plant(session.cache.root(), stages);
    let weight = match planted {
        Ok(weight) => weight,
        Err(error) => {
            progress.idle();
            ground.remove()?;
            return Err(error.into());
        }
    };
    progress.line(&format!(
        "its own cache, of what {} has: {weight}; up to {} of stages come to it",
        session.cache.root().display(),
        size(stages)
    ));
    let interrupted = session.interrupts.expect();
    let mark = format!("{seed}-{name}");
    let mut campaign = Campaign {
        runs: Runs {
            session,
            ground: &ground,
            own: Own::marked(&mark),
            mark,
            bootstrap: args.bootstrap,
            interrupted: &interrupted,
        },
        filter: names.join(","),
        tally: Tally::default(),
    };
    let reference = match campaign.reference() {
        Ok(reference) => reference,
        Err(end) => {
            campaign.runs.own.kill_all(&[]);
            progress.idle();
            return match end {
                End::Interrupted => {
                    ground.remove()?;
                    Err(Stop::Interrupted)
                }
                End::Error(error) => Err(error.into()),
                End::Violation(why) => Err(Stop::setup(format!(
                    "without a run to compare with there is no campaign: {why}"
                ))),
            };
        }
    };
    let started = Instant::now();
    let limit = Duration::from_secs(args.seconds.unwrap_or(SECONDS));
    progress.left(Some(limit));
    let mut end = None;
    for (number, act) in rounds {
        if started.elapsed() >= limit {
            break;
        }
        let number = number + 1;
        if let Err(why) = campaign.round(&number.to_string(), &act, &reference) {
            end = Some((number, why));
            break;
        }
    }
    // Of a run in which something was wrong.
    campaign.runs.own.kill_all(&[]);
    progress.idle();
    out!("{}", campaign.tally.report(seed, started.elapsed()));
    match end {
        None => {
            ground.remove()?;
            outln!("nothing that must hold was broken");
            Ok(())
        }
        Some((_, End::Interrupted)) => {
            ground.remove()?;
            Err(Stop::Interrupted)
        }
        Some((number, End::Error(error))) => {
            errln!("{}", told(number, seed, args, ground.dir()));
            Err(error.into())
        }
        Some((number, End::Violation(why))) => {
            errln!("FAILED: {why}\n{}", told(number, seed, args, ground.dir()));
            Err(Stop::Failed)
        }
    }
}

/// The scenarios that its runs have: of those asked for, those that run on the one cluster of each.
fn chosen<'a>(args: &ChaosArgs, catalogue: &'a [Scenario]) -> Result<Vec<&'a Scenario>, Stop> {
    let filter = args.filter.as_deref();
    let filter = filter.or(args.profile.is_none().then_some(FILTER));
    let profile = args.profile.map(Profile::from);
    let asked = select::choose(catalogue, filter, profile)
        .map_err(|unknown| Stop::Usage(unknown.to_string()))?;
    let cell = Cell::usual(args.bootstrap);
    let fit = |it: &&Scenario| it.fits(cell) && it.nodes <= NODES;
    let chosen: Vec<&Scenario> = asked.into_iter().filter(fit).collect();
    match chosen.is_empty() {
        true => Err(Stop::Usage(format!(
            "none of these scenarios runs on {cell} with {NODES} nodes; --bootstrap names another"
        ))),
        false => Ok(chosen),
    }
}

/// What the stages of a run of these scenarios come to occupy.
fn stages_bytes(session: &Session, chosen: &[&Scenario]) -> Result<u64, Stop> {
    let starts: BTreeSet<StageName> = chosen.iter().map(|scenario| scenario.stage).collect();
    let sources = SourceArgs::default();
    let bundle = parts::bundle_order(session, &sources)?;
    let guests = tickets::appetite(NODES, &bundle.kubernetes, Accelerator::Tcg)?.guests_mib << 20;
    // Two at a time are on the way to them.
    let count = u64::try_from(starts.len() + 2).unwrap_or(u64::MAX);
    Ok(disk_needed(guests, count))
}

/// Where to look, and the way back.
fn told(number: usize, seed: u64, args: &ChaosArgs, dir: &Path) -> String {
    let mut again = format!(
        "cargo xtask chaos --seed {seed} --from {number} --bootstrap {}",
        args.bootstrap
    );
    if let Some(profile) = args.profile.and_then(|it| it.to_possible_value()) {
        again += &format!(" --profile {}", profile.get_name());
    }
    if let Some(filter) = &args.filter {
        again += &format!(" --filter {filter}");
    }
    format!(
        "in round {number}; its cache, its runs and its logs are kept in {}\nagain: {again}",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use podwire_cluster::Bootstrap;

    use super::*;
    use crate::command::cli::{Cli, Command};

    #[test]
    fn the_way_back_names_round_and_seed() {
        let words = "xtask chaos --profile full --filter C6 --seconds 9";
        let words = words.split_whitespace();
        let Command::Chaos(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("no campaign");
        };
        insta::assert_snapshot!(told(3, 7, &args, Path::new("/t/1")), @"
        in round 3; its cache, its runs and its logs are kept in /t/1
        again: cargo xtask chaos --seed 7 --from 3 --bootstrap by-hand --profile full --filter C6
        ");
    }

    #[test]
    fn a_campaign_has_a_few_short_scenarios_or_those_that_it_is_told() {
        let catalogue = podwire_scenarios::all();
        let names = |words: &str| {
            let words = words.split_whitespace();
            let words = ["xtask", "chaos"].into_iter().chain(words);
            let Command::Chaos(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("no campaign");
            };
            let chosen = chosen(&args, &catalogue);
            chosen.map(|all| all.iter().map(|it| it.name).collect::<Vec<_>>())
        };
        let count = |words: &str| names(words).map_or(0, |names| names.len());
        let short: Vec<&str> = FILTER.split(',').collect();
        let by_hand = names("").unwrap();
        assert_eq!(by_hand.len(), short.len());
        // One of them looks at files of a cluster made by hand.
        let kubeadm = names("--bootstrap kubeadm").unwrap();
        assert_eq!(kubeadm.len(), short.len() - 1);
        assert!(
            [by_hand, kubeadm]
                .concat()
                .iter()
                .all(|it| short.contains(it))
        );
        let by_hand = Cell::usual(Bootstrap::ByHand);
        let default = catalogue
            .iter()
            .filter(|it| it.fits(by_hand) && it.nodes <= NODES && it.profile <= Profile::Default);
        assert_eq!(count("--profile default"), default.count());
        assert!(count("--profile default") > count(""));
        assert!(count("--profile full") > count("--profile default"));
        let kubeadm = names("--profile default --bootstrap kubeadm").unwrap();
        assert_ne!(names("--profile default").unwrap(), kubeadm);
        let both = names("--profile default --filter api_server_names").unwrap();
        assert_eq!(both, ["api_server_names"]);
        let Err(Stop::Usage(why)) = names("--filter kubeadm_init") else {
            panic!("not by hand");
        };
        insta::assert_snapshot!(why, @"none of these scenarios runs on by-hand/nftables/routes with 3 nodes; --bootstrap names another");
        assert_eq!(
            names("--filter kubeadm_init --bootstrap kubeadm").unwrap(),
            ["kubeadm_init"]
        );
    }
}
