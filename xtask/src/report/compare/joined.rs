//! Parts of a comparison on several machines, made one again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::numbers::Numbers;
use super::part::Part;
use super::{Compared, Comparison, Counts, OnSide, Side, SideRun, distinct};
use crate::plan::shard::Shard;
use crate::report::join;

/// One machine's comparison.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Where it is, as the user wrote it.
    pub(crate) folder: PathBuf,
    /// The same as the whole's report has it, see [`seen_from`](join::seen_from).
    pub(crate) seen: PathBuf,
    pub(crate) comparison: Comparison,
}

impl Piece {
    fn part(&self) -> anyhow::Result<(Shard, &Part)> {
        let part = self.comparison.part.as_ref();
        let part = part.and_then(|part| Some((part.shard.parse().ok()?, part)));
        part.with_context(|| {
            format!(
                "{}: a comparison without --shard: a whole already, and part of none",
                self.folder.display()
            )
        })
    }

    fn common(&self) -> anyhow::Result<Vec<(String, String)>> {
        let (shard, part) = self.part()?;
        let podwire = part.podwire.clone();
        let mut common = vec![
            (
                "podwire's revision is".to_owned(),
                podwire.unwrap_or_else(|| "none".to_owned()),
            ),
            (
                "there are this many parts:".to_owned(),
                shard.of().to_string(),
            ),
            (
                "the arguments are".to_owned(),
                format!("{:?}", part.arguments.join(" ")),
            ),
            ("the scenarios are".to_owned(), part.scenarios.join(", ")),
        ];
        let sides = [
            ("base", &self.comparison.base),
            ("head", &self.comparison.head),
        ];
        for ((name, side), made_of) in sides.into_iter().zip(&part.made_of) {
            // Where a revision is checked out is each machine's own affair.
            let revision = side.revision.clone();
            let is = revision.unwrap_or_else(|| format!("{:?}", side.flags.join(" ")));
            common.push((format!("{name} is"), is));
            let made_of = made_of.iter();
            common.extend(made_of.map(|(what, said)| (format!("{name}: {what}"), said.clone())));
        }
        Ok(common)
    }
}

/// Makes one comparison of all its parts, in whatever order they are given.
///
/// # Errors
/// In words, where they do not belong together or are not all.
pub(crate) fn join(pieces: Vec<Piece>) -> anyhow::Result<Comparison> {
    for piece in &pieces {
        join::within(&piece.folder, piece.folders())?;
    }
    let said: anyhow::Result<Vec<_>> = pieces
        .iter()
        .map(|piece| Ok((piece.folder.as_path(), piece.common()?)))
        .collect();
    join::together(said?)?;
    let numbered = pieces.into_iter().map(|piece| {
        let shard = piece.part()?.0;
        Ok((shard, piece.folder.clone(), piece))
    });
    let pieces = join::all(numbered.collect::<anyhow::Result<Vec<_>>>()?)?;
    let scenarios = scenarios(&pieces)?;
    let errors = pieces.iter().filter_map(|piece| {
        let error = piece.comparison.error.as_ref()?;
        Some(format!("part {}: {error}", piece.shard()))
    });
    let errors: Vec<String> = errors.collect();
    let mut numbers = pieces.iter().filter_map(Piece::numbers);
    let counts = Counts::of(&scenarios);
    let whole = Comparison {
        sentence: counts.sentence(),
        error: (!errors.is_empty()).then(|| errors.join("\n")),
        counts,
        part: None,
        base: side(&pieces, |comparison| &comparison.base),
        head: side(&pieces, |comparison| &comparison.head),
        scenarios,
        numbers: None,
    };
    Ok(match numbers.next() {
        Some(numbers) => whole.and(numbers),
        None => whole,
    })
}

/// Every scenario of the whole, in the whole's order for each cluster.
fn scenarios(pieces: &[Piece]) -> anyhow::Result<Vec<Compared>> {
    let mut all: Vec<Compared> = Vec::new();
    let mut told = BTreeSet::new();
    for piece in pieces {
        let (_, part) = piece.part()?;
        for one in &piece.comparison.scenarios {
            let (name, cluster) = (&one.name, &one.cluster);
            ensure!(
                part.scenarios.contains(name) && told.insert((name.clone(), cluster.clone())),
                "{} tells of {name} on {cluster}, which is not its to tell",
                piece.folder.display()
            );
            all.push(piece.of(one));
        }
    }
    let whole = pieces.first().map(Piece::part).transpose()?;
    let order = whole.map_or(&[][..], |(_, part)| &part.scenarios);
    let is_told = |name: &String| told.iter().any(|(of, _)| of == name);
    let missing: Vec<&str> = order
        .iter()
        .filter(|name| !is_told(name))
        .map(String::as_str)
        .collect();
    // What ended a part early is said, and with it why there is nothing more.
    ensure!(
        missing.is_empty() || pieces.iter().any(|piece| piece.comparison.error.is_some()),
        "no part tells what became of {}",
        missing.join(", ")
    );
    let clusters = distinct(all.iter().map(|one| &one.cluster));
    let places: BTreeMap<&String, usize> = order.iter().zip(0..).collect();
    all.sort_by_key(|one| {
        let cluster = clusters.iter().position(|it| *it == one.cluster);
        (cluster, places.get(&one.name).copied())
    });
    Ok(all)
}

/// One side of all parts.
fn side(pieces: &[Piece], of: impl Fn(&Comparison) -> &Side) -> Side {
    let each = || pieces.iter().map(|piece| (piece, of(&piece.comparison)));
    let runs = |runs: &dyn Fn(&Side) -> Vec<SideRun>| {
        let all = each().flat_map(|(piece, side)| {
            let own = runs(side).into_iter();
            own.map(|run| SideRun {
                folder: piece.seen.join(&run.folder),
                ..run
            })
        });
        all.collect::<Vec<_>>()
    };
    let tested = distinct(each().flat_map(|(_, side)| &side.tested));
    let first = each().next().map(|(_, side)| side.clone());
    Side {
        tested: (!tested.is_empty()).then(|| tested.join("; ")),
        unsettled_stages: distinct(each().flat_map(|(_, side)| &side.unsettled_stages)),
        runs: runs(&|side| side.runs.clone()),
        measured: runs(&|side| side.measured.clone()),
        ..first.unwrap_or_default()
    }
}

impl Piece {
    fn shard(&self) -> &str {
        let part = self.comparison.part.as_ref();
        part.map_or("", |part| &part.shard)
    }

    /// All folders that it tells of.
    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        let Comparison {
            base,
            head,
            scenarios,
            numbers,
            ..
        } = &self.comparison;
        let runs = [base, head].into_iter();
        let runs = runs.flat_map(|side| side.runs.iter().chain(&side.measured));
        let failures = scenarios.iter().flat_map(|one| [&one.base, &one.head]);
        let unmeasured = numbers.iter().flat_map(|numbers| &numbers.unmeasured);
        runs.map(|run| &run.folder)
            .chain(failures.filter_map(|side| side.folder.as_ref()))
            .chain(unmeasured.filter_map(|one| one.folder.as_ref()))
    }

    /// A scenario of its, as the whole tells of it.
    fn of(&self, one: &Compared) -> Compared {
        let found = |side: &OnSide| OnSide {
            folder: side.folder.as_ref().map(|it| self.seen.join(it)),
            ..side.clone()
        };
        Compared {
            part: Some(self.shard().to_owned()),
            base: found(&one.base),
            head: found(&one.head),
            ..one.clone()
        }
    }

    fn numbers(&self) -> Option<Numbers> {
        let mut numbers = self.comparison.numbers.clone()?;
        let seen: &Path = &self.seen;
        for one in &mut numbers.unmeasured {
            one.folder = one.folder.as_ref().map(|it| seen.join(it));
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::{Difference, State};

    const NAMES: [&str; 3] = ["pod_addresses", "every_pair", "cluster_ip"];

    fn compared(name: &str, cluster: &str, head: State) -> Compared {
        let side = |state| OnSide {
            runs: [state; 5].into(),
            folder: (state == State::Failed).then(|| format!("head/{name}").into()),
            ..OnSide::default()
        };
        Compared {
            name: name.into(),
            cluster: cluster.into(),
            part: None,
            difference: match head {
                State::Failed => Difference::Broke,
                _ => Difference::PassesOnBoth,
            },
            base: side(State::Passed),
            head: side(head),
        }
    }

    /// Part so many of three scenarios on two machines: the first has two of them, and both clusters for one.
    fn piece(number: usize) -> Piece {
        let scenarios = match number {
            1 => vec![
                compared("pod_addresses", "by-hand", State::Passed),
                compared("every_pair", "by-hand", State::Passed),
                compared("every_pair", "kubeadm", State::Passed),
            ],
            _ => vec![compared("cluster_ip", "by-hand", State::Failed)],
        };
        let side = |name: &str| Side {
            tested: Some("by-hand/nftables/routes on debian".into()),
            runs: vec![SideRun {
                folder: format!("{name}/runs/1").into(),
                seconds: 60.0,
                error: None,
            }],
            ..Side::default()
        };
        let results = crate::report::fixture::results();
        let made_of = || {
            let mut results = results.clone();
            results.inputs = [("the bundle", "c6d36b44"), ("the image web:1", "77aa")]
                .map(|(what, digest)| (what.to_owned(), digest.to_owned()))
                .into();
            results.made_of().into_iter().collect()
        };
        Piece {
            folder: format!("/results/{number}").into(),
            seen: format!("parts/{number}").into(),
            comparison: Comparison {
                sentence: String::new(),
                error: None,
                counts: Counts::of(&scenarios),
                part: Some(Part {
                    shard: format!("{number}/2"),
                    podwire: Some("0123abcd".into()),
                    arguments: vec!["--kube-proxy iptables".into(), String::new()],
                    scenarios: NAMES.map(String::from).into(),
                    made_of: [made_of(), made_of()],
                }),
                base: side("base"),
                head: side("head"),
                scenarios,
                numbers: (number == 1).then(crate::report::compare::numbers::tests::numbers),
            },
        }
    }

    #[test]
    fn all_parts_are_one_comparison_in_whatever_order_they_are_given() {
        let joined = join(vec![piece(2), piece(1)]).unwrap();
        assert_eq!(joined, join(vec![piece(1), piece(2)]).unwrap());
        assert!(joined.part.is_none() && joined.is_worse());
        let told = joined.scenarios.iter().map(|it| {
            let part = it.part.as_deref().unwrap();
            let folder = it.head.folder.as_ref();
            let folder = folder.map_or(String::new(), |it| format!(", {}", it.display()));
            format!(
                "{} on {}: part {part}, {}{folder}",
                it.name, it.cluster, it.difference
            )
        });
        let runs = joined
            .head
            .runs
            .iter()
            .map(|it| it.folder.display().to_string());
        let numbers = joined.numbers.iter().flat_map(|it| &it.unmeasured);
        let folders = numbers.filter_map(|it| Some(it.folder.as_ref()?.display().to_string()));
        let all: Vec<String> = std::iter::once(joined.sentence.clone())
            .chain(told)
            .chain(runs)
            .chain(folders)
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        head breaks 1 of 4 scenarios; of 3 numbers 1 is worse, 1 is within the margin of 10 %, 1 is undecided; 1 measurement is undecided
        pod_addresses on by-hand: part 1/2, passes on both
        every_pair on by-hand: part 1/2, passes on both
        cluster_ip on by-hand: part 2/2, broke, parts/2/head/cluster_ip
        every_pair on kubeadm: part 1/2, passes on both
        parts/1/head/runs/1
        parts/2/head/runs/1
        parts/1/3/scenarios/restart
        ");
    }

    #[test]
    fn parts_that_do_not_belong_together_or_are_not_all_are_refused_in_words() {
        let with = |change: fn(&mut Comparison, &mut Part)| {
            let mut two = piece(2);
            let mut part = two.comparison.part.take().unwrap();
            change(&mut two.comparison, &mut part);
            two.comparison.part = Some(part);
            join(vec![piece(1), two]).unwrap_err().to_string()
        };
        let mut whole = piece(2);
        whole.comparison.part = None;
        let refused = [
            join(vec![piece(2)]).unwrap_err().to_string(),
            join(vec![piece(1), piece(1)]).unwrap_err().to_string(),
            join(vec![piece(1), whole]).unwrap_err().to_string(),
            with(|_, part| part.shard = "2/3".into()),
            with(|_, part| part.podwire = None),
            with(|_, part| part.arguments.clear()),
            with(|_, part| part.scenarios.truncate(2)),
            with(|comparison, _| {
                comparison.head.flags = vec!["--kube-proxy".into(), "iptables".into()]
            }),
            with(|comparison, _| {
                comparison.base.revision = Some("git:main, commit 0123456789ab".into())
            }),
            with(|_, part| {
                part.made_of[1].insert("Kubernetes is".into(), "1.35.4".into());
            }),
            with(|_, part| {
                part.made_of[1].insert("the bundle is".into(), "c6d36b45".into());
            }),
            with(|_, part| {
                part.made_of[0].insert("the image web:1 is".into(), "77ab".into());
            }),
            with(|comparison, _| comparison.scenarios.clear()),
            with(|comparison, _| comparison.scenarios = piece(1).comparison.scenarios),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r#"
        missing: part 1 of 2; each machine's results are a folder with results.json or compare.json
        /results/1 and /results/1 are both part 1/2: each part counts once
        /results/2: a comparison without --shard: a whole already, and part of none
        /results/1 and /results/2 are parts of different runs: there are this many parts: 2 in the one, 3 in the other
        /results/1 and /results/2 are parts of different runs: podwire's revision is 0123abcd in the one, none in the other
        /results/1 and /results/2 are parts of different runs: the arguments are "--kube-proxy iptables " in the one, "" in the other
        /results/1 and /results/2 are parts of different runs: the scenarios are pod_addresses, every_pair, cluster_ip in the one, pod_addresses, every_pair in the other
        /results/1 and /results/2 are parts of different runs: head is "" in the one, "--kube-proxy iptables" in the other
        /results/1 and /results/2 are parts of different runs: base is "" in the one, git:main, commit 0123456789ab in the other
        /results/1 and /results/2 are parts of different runs: head: Kubernetes is 1.36.4 in the one, 1.35.4 in the other
        /results/1 and /results/2 are parts of different runs: head: the bundle is c6d36b44 in the one, c6d36b45 in the other
        /results/1 and /results/2 are parts of different runs: base: the image web:1 is 77aa in the one, 77ab in the other
        no part tells what became of cluster_ip
        /results/2 tells of pod_addresses on by-hand, which is not its to tell
        "#);
    }

    #[test]
    fn a_comparison_that_leads_out_of_its_folder_is_refused() {
        let changes: [fn(&mut Comparison); 5] = [
            |it| it.base.runs[0].folder = "/base".into(),
            |it| it.head.measured[0].folder = "../measured".into(),
            |it| it.scenarios[0].base.folder = Some("x/../../base".into()),
            |it| it.scenarios[0].head.folder = Some("/head".into()),
            |it| it.numbers.as_mut().unwrap().unmeasured[0].folder = Some("../x".into()),
        ];
        let with = |change: &dyn Fn(&mut Comparison)| {
            let mut one = piece(1);
            let head = &mut one.comparison.head;
            head.measured.clone_from(&head.runs);
            change(&mut one.comparison);
            join(vec![one, piece(2)]).map_err(|error| error.to_string())
        };
        assert!(with(&|_| ()).is_ok());
        let refused = changes.map(|change| with(&change).unwrap_err());
        insta::assert_snapshot!(refused.join("\n"), @"
        /results/1 leads to /base, which is not in it
        /results/1 leads to ../measured, which is not in it
        /results/1 leads to x/../../base, which is not in it
        /results/1 leads to /head, which is not in it
        /results/1 leads to ../x, which is not in it
        ");
    }

    #[test]
    fn a_part_that_ended_early_is_told_with_what_the_others_say() {
        let mut two = piece(2);
        two.comparison.scenarios.clear();
        two.comparison.error = Some("the disk is full".into());
        two.comparison.part.as_mut().unwrap().made_of = Default::default();
        let joined = join(vec![piece(1), two]).unwrap();
        assert_eq!(joined.error.as_deref(), Some("part 2/2: the disk is full"));
        assert_eq!(joined.counts.compared, 3);
    }
}
