//! Parts of a run on several machines, made one again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::plan::phase::PhaseRecord;
use crate::plan::shard::Shard;
use crate::report::own::own;
use crate::report::results::{BreakVerdict, LeftOut, Results, ScenarioRecord, TestRecord};
use crate::report::whole::{Selected, Whole};

/// One machine's results.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where they are, as the user wrote it.
    pub(crate) folder: PathBuf,
    /// The same as the whole's report has it, see [`seen_from`].
    pub(crate) seen: PathBuf,
    pub(crate) results: Results,
}

impl Part {
    fn leaves_out(&self, name: &str) -> bool {
        self.results.left_out.iter().any(|it| it.name == name)
    }

    fn whole(&self) -> anyhow::Result<(Shard, &Whole)> {
        let shard = self.results.shard.as_deref();
        let shard = shard.and_then(|shard| shard.parse().ok());
        let both = shard.zip(self.results.whole.as_ref());
        both.with_context(|| {
            let folder = self.folder.display();
            format!(
                "{folder}: the results of a run without --shard: a whole already, and part of none"
            )
        })
    }

    /// What must be the same in all parts, in words: what it is, and this part's.
    fn common(&self) -> anyhow::Result<Vec<(String, String)>> {
        let (shard, whole) = self.whole()?;
        let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let mut common = vec![
            ("podwire's revision is".to_owned(), said(&whole.podwire)),
            (
                "there are this many parts:".to_owned(),
                shard.of().to_string(),
            ),
            (
                "the arguments are".to_owned(),
                format!("{:?}", whole.arguments.join(" ")),
            ),
        ];
        common.extend(self.results.made_of());
        let scenarios: Vec<String> = whole.scenarios.iter().map(Selected::to_string).collect();
        common.push(("the scenarios are".to_owned(), scenarios.join(", ")));
        Ok(common)
    }
}

/// Where a report finds a part's folder, both without symbolic links: below its own relative, so that they
/// can be moved together, else absolute.
pub(crate) fn seen_from(report: &Path, part: &Path) -> PathBuf {
    part.strip_prefix(report).unwrap_or(part).to_owned()
}

/// Whether all that a part says of itself stays in its folder. It comes from another machine, and the report both
/// reads there and writes.
///
/// # Errors
/// In words, with the first of its folders that is somewhere else.
pub(super) fn within<'a>(
    part: &Path,
    folders: impl IntoIterator<Item = &'a PathBuf>,
) -> anyhow::Result<()> {
    let is_below = |folder: &Path| {
        let mut steps = folder.components();
        let is_written_so = steps.all(|it| matches!(it, Component::Normal(_)));
        // What is not there leads nowhere.
        is_written_so && (!part.join(folder).exists() || own(part, folder).is_some())
    };
    for folder in folders {
        ensure!(
            is_below(folder),
            "{} leads to {}, which is not in it",
            part.display(),
            folder.display()
        );
    }
    Ok(())
}

/// Makes one run's results of all its parts, in whatever order they are given.
///
/// # Errors
/// In words, where they do not belong together or are not all.
pub(crate) fn join(parts: Vec<Part>) -> anyhow::Result<Results> {
    for part in &parts {
        let records = part.results.scenarios.iter();
        within(&part.folder, records.filter_map(|it| it.folder.as_ref()))?;
    }
    let said: anyhow::Result<Vec<_>> = parts
        .iter()
        .map(|part| Ok((part.folder.as_path(), part.common()?)))
        .collect();
    together(said?)?;
    let numbered = parts.into_iter().map(|part| {
        let shard = part.whole()?.0;
        Ok((shard, part.folder.clone(), part))
    });
    let parts = all(numbered.collect::<anyhow::Result<Vec<_>>>()?)?;
    let scenarios = scenarios(&parts)?;
    let first = parts.first().map(|part| part.results.clone());
    let first = first.context("there are no parts")?;
    Ok(one(first, &parts, scenarios))
}

/// All parts of a whole, in their order; each with its number, and the folder that it was found in.
///
/// # Errors
/// In words, where one is missing or there twice.
pub(super) fn all<T>(parts: Vec<(Shard, PathBuf, T)>) -> anyhow::Result<Vec<T>> {
    let (mut of, mut numbered) = (0, BTreeMap::new());
    for (shard, folder, part) in parts {
        of = shard.of();
        if let Some((other, _)) = numbered.insert(shard.number(), (folder.clone(), part)) {
            bail!(
                "{} and {} are both part {shard}: each part counts once",
                other.display(),
                folder.display()
            );
        }
    }
    let missing: Vec<u64> = (1..=of).filter(|it| !numbered.contains_key(it)).collect();
    ensure!(
        missing.is_empty(),
        "missing: {} of {of}; each machine's results are a folder with results.json or compare.json",
        listed(&missing)
    );
    Ok(numbered.into_values().map(|(_, part)| part).collect())
}

fn listed(parts: &[u64]) -> String {
    let shown: Vec<String> = parts.iter().map(u64::to_string).collect();
    let what = if shown.len() == 1 { "part" } else { "parts" };
    format!("{what} {}", shown.join(", "))
}

/// Whether all say the same of what they have in common: each folder's words of what it is, and what it says.
///
/// # Errors
/// In words, with two folders that do not.
pub(super) fn together<'a>(
    parts: impl IntoIterator<Item = (&'a Path, Vec<(String, String)>)>,
) -> anyhow::Result<()> {
    let mut said: BTreeMap<String, (&Path, String)> = BTreeMap::new();
    for (folder, common) in parts {
        for (what, here) in common {
            let (first, there) = said
                .entry(what.clone())
                .or_insert_with(|| (folder, here.clone()));
            ensure!(
                *there == here,
                "{} and {} are parts of different runs: {what} {there} in the one, {here} in the other",
                first.display(),
                folder.display()
            );
        }
    }
    Ok(())
}

/// Every scenario of the whole, once, in the whole's order.
fn scenarios(parts: &[Part]) -> anyhow::Result<Vec<ScenarioRecord>> {
    let mut found: BTreeMap<Selected, ScenarioRecord> = BTreeMap::new();
    let mut order = Vec::new();
    for part in parts {
        let (shard, whole) = part.whole()?;
        if order.is_empty() {
            order.clone_from(&whole.scenarios);
        }
        for record in &part.results.scenarios {
            let selected = Selected {
                cell: record.cell.clone(),
                name: record.name.clone(),
            };
            let record = ScenarioRecord {
                part: Some(shard.to_string()),
                folder: record.folder.as_ref().map(|it| part.seen.join(it)),
                ..record.clone()
            };
            let wanted = whole.scenarios.contains(&selected);
            ensure!(
                wanted && found.insert(selected.clone(), record).is_none(),
                "{} tells of {selected}, which is not its to tell",
                part.folder.display()
            );
        }
    }
    // What the host of the part whose it is could not carry.
    let left_out = |it: &Selected| parts.iter().any(|part| part.leaves_out(&it.name));
    let missing = order
        .iter()
        .filter(|it| !found.contains_key(it) && !left_out(it));
    let missing: Vec<String> = missing.map(Selected::to_string).collect();
    ensure!(
        missing.is_empty(),
        "no part tells what became of {}",
        missing.join(", ")
    );
    Ok(order.iter().filter_map(|it| found.remove(it)).collect())
}

/// What no part was asked for or could carry, each once, with the first one's reason.
fn left_out(parts: &[Part]) -> Vec<LeftOut> {
    let mut all: Vec<LeftOut> = Vec::new();
    for one in parts.iter().flat_map(|part| &part.results.left_out) {
        if all.iter().all(|it| it.name != one.name) {
            all.push(one.clone());
        }
    }
    all
}

/// The parts' results as one; what they have in common is that of the first.
fn one(first: Results, parts: &[Part], scenarios: Vec<ScenarioRecord>) -> Results {
    let of_each = |tell: &dyn Fn(&Results) -> Option<String>| -> Vec<(String, String)> {
        let all = parts.iter().filter_map(|part| {
            let shard = part.results.shard.clone().unwrap_or_default();
            Some((shard, tell(&part.results)?))
        });
        all.collect()
    };
    let named = |tell: &dyn Fn(&Results) -> Option<String>| -> Option<String> {
        let all = of_each(tell);
        let distinct: BTreeSet<&String> = all.iter().map(|(_, text)| text).collect();
        match distinct.len() {
            0 => None,
            1 => all.first().map(|(_, text)| text.clone()),
            _ => {
                let each = all
                    .iter()
                    .map(|(shard, text)| format!("{text} (part {shard})"));
                Some(each.collect::<Vec<_>>().join(", "))
            }
        }
    };
    let errors = of_each(&|results| results.error.clone());
    let errors = errors
        .iter()
        .map(|(shard, error)| format!("part {shard}: {error}"));
    let errors: Vec<String> = errors.collect();
    let unsettled: BTreeSet<&String> = parts
        .iter()
        .flat_map(|part| &part.results.unsettled_stages)
        .collect();
    let factors = parts.iter().map(|part| part.results.speed_factor);
    Results {
        accelerator: named(&|results| Some(results.accelerator.clone())).unwrap_or_default(),
        accelerator_reason: named(&|results| results.accelerator_reason.clone()),
        speed_factor: factors.fold(0.0, f64::max),
        component_settings: named(&|results| results.component_settings.clone()),
        image: named(&|results| results.image.clone()),
        shard: None,
        unsettled_stages: unsettled.into_iter().cloned().collect(),
        error: (!errors.is_empty()).then(|| errors.join("\n")),
        phases: parts.iter().flat_map(phases).collect(),
        harness_tests: parts.iter().flat_map(harness_tests).collect(),
        scenarios,
        left_out: left_out(parts),
        broken: broken(parts),
        ..first
    }
}

fn of_part(part: &Part, name: &str) -> String {
    let shard = part.results.shard.as_deref().unwrap_or_default();
    format!("{name} (part {shard})")
}

fn phases(part: &Part) -> impl Iterator<Item = PhaseRecord> {
    part.results.phases.iter().map(|phase| PhaseRecord {
        name: of_part(part, &phase.name),
        ..phase.clone()
    })
}

fn harness_tests(part: &Part) -> impl Iterator<Item = TestRecord> {
    part.results.harness_tests.iter().map(|test| TestRecord {
        name: of_part(part, &test.name),
        ..test.clone()
    })
}

/// Exactly the expected scenarios are red when they are in each part.
fn broken(parts: &[Part]) -> Option<BreakVerdict> {
    let mut verdicts = parts.iter().filter_map(|part| part.results.broken.clone());
    let first = verdicts.next()?;
    Some(verdicts.fold(first, |mut all, next| {
        all.expected_red.extend(next.expected_red);
        all.red.extend(next.red);
        all.as_expected &= next.as_expected;
        all
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::results::Verdict;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn selected(name: &str) -> Selected {
        Selected {
            cell: "by-hand/nftables/routes".into(),
            name: name.into(),
        }
    }

    /// Part so many of three scenarios on two machines: the first has two of them.
    fn part(number: usize) -> Part {
        let names = [["pod_addresses", "every_pair"].as_slice(), &["cluster_ip"]];
        let results = fixture::results();
        let whole = Whole {
            podwire: Some("0123abcd".into()),
            arguments: vec!["--profile=full".into()],
            scenarios: names.concat().iter().map(|name| selected(name)).collect(),
        };
        let records = names[number - 1].iter().map(|name| ScenarioRecord {
            name: (*name).to_owned(),
            ..results.scenarios[0].clone()
        });
        Part {
            folder: format!("/results/{number}").into(),
            seen: format!("parts/{number}").into(),
            results: Results {
                shard: Some(format!("{number}/2")),
                whole: Some(whole),
                inputs: BTreeMap::from([("the bundle".to_owned(), "c6d36b44".to_owned())]),
                scenarios: records.collect(),
                ..results
            },
        }
    }

    fn whole_of(part: &mut Part) -> &mut Whole {
        part.results.whole.as_mut().unwrap()
    }

    #[test]
    fn all_parts_are_one_run_in_whatever_order_they_are_given() {
        let (mut one, mut two) = (part(1), part(2));
        one.results.accelerator = "kvm".into();
        one.results.accelerator_reason = Some("a guest booted on Some CPU, as host".into());
        two.results.error = Some("the disk is full".into());
        let failed = &mut two.results.scenarios[0];
        failed.outcome = Verdict::Failed;
        failed.folder = Some("by-hand/scenarios/cluster_ip/attempt-1".into());
        let joined = join(vec![two.clone(), one.clone()]).unwrap();
        assert_eq!(joined, join(vec![one, two]).unwrap());
        insta::assert_snapshot!(serde_json::to_string_pretty(&joined).unwrap());
        assert!(!joined.good(false));
    }

    #[test]
    fn a_part_below_the_report_is_found_wherever_both_are_moved() {
        let seen = |part: &str| seen_from(Path::new("/all"), Path::new(part));
        assert_eq!(seen("/all/parts/1"), Path::new("parts/1"));
        assert_eq!(seen("/all-parts/1"), Path::new("/all-parts/1"));
    }

    #[test]
    fn verdicts_of_a_whole_are_those_of_its_parts() {
        let joined = join(vec![part(1), part(2)]).unwrap();
        assert!(joined.good(true));
        let mut failed = part(2);
        failed.results.scenarios[0].outcome = Verdict::Failed;
        assert!(!join(vec![part(1), failed]).unwrap().good(false));
    }

    #[test]
    fn a_fault_that_was_built_in_is_judged_over_all_parts() {
        let verdict = |red: &str, as_expected| {
            Some(BreakVerdict {
                name: "route".into(),
                expected_red: vec![red.into()],
                red: vec![red.into()],
                as_expected,
            })
        };
        let (mut one, mut two) = (part(1), part(2));
        one.results.broken = verdict("every_pair", true);
        two.results.broken = verdict("cluster_ip", false);
        let broken = join(vec![one, two]).unwrap().broken.unwrap();
        assert_eq!(broken.red, ["every_pair", "cluster_ip"]);
        assert!(!broken.as_expected);
    }

    #[test]
    fn parts_that_do_not_belong_together_or_are_not_all_are_refused_in_words() {
        let with = |change: fn(&mut Part)| {
            let mut two = part(2);
            change(&mut two);
            join(vec![part(1), two]).unwrap_err().to_string()
        };
        let refused = [
            join(Vec::new()).unwrap_err().to_string(),
            join(vec![part(2)]).unwrap_err().to_string(),
            join(vec![part(1), part(2), part(2)])
                .unwrap_err()
                .to_string(),
            with(|two| two.results.shard = None),
            with(|two| two.results.shard = Some("2/3".into())),
            with(|two| whole_of(two).podwire = None),
            with(|two| whole_of(two).arguments.clear()),
            with(|two| two.results.inputs.values_mut().for_each(|it| it.push('0'))),
            with(|two| whole_of(two).scenarios.truncate(2)),
            with(|two| two.results.kubernetes = "1.35.0".into()),
            with(|two| two.results.provenance.replaced.clear()),
            with(|two| two.results.scenarios.clear()),
            with(|two| two.results.scenarios = part(1).results.scenarios),
            with(|two| two.results.scenarios[0].name = "another".into()),
        ];
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn what_a_part_s_host_could_not_carry_is_left_out_of_the_whole_and_is_not_missing() {
        let mut one = part(1);
        one.results.scenarios.pop();
        let missing = join(vec![one.clone(), part(2)]).unwrap_err().to_string();
        insta::assert_snapshot!(missing, @"no part tells what became of every_pair on by-hand/nftables/routes");
        one.results.left_out = vec![LeftOut {
            name: "every_pair".into(),
            reason: "needs 4 processors of this host, which has 2".into(),
        }];
        let joined = join(vec![one.clone(), part(2)]).unwrap();
        assert_eq!(joined.left_out, one.results.left_out);
        assert!(joined.good(true));
    }

    #[test]
    fn a_part_that_leads_out_of_its_folder_is_refused() {
        let with = |folder: &str| {
            let mut two = part(2);
            two.results.scenarios[0].folder = Some(folder.into());
            join(vec![part(1), two]).map_err(|error| error.to_string())
        };
        assert!(with("by-hand/scenarios/cluster_ip/attempt-1").is_ok());
        let refused = ["/home/u/project", "../../x", "scenarios/../../x", "./x"];
        let refused = refused.map(|folder| with(folder).unwrap_err());
        insta::assert_snapshot!(refused.join("\n"), @"
        /results/2 leads to /home/u/project, which is not in it
        /results/2 leads to ../../x, which is not in it
        /results/2 leads to scenarios/../../x, which is not in it
        /results/2 leads to ./x, which is not in it
        ");
    }

    #[test]
    fn a_part_whose_link_leads_out_of_its_folder_is_refused() {
        let all = tempfile::tempdir().unwrap();
        let part = all.path().join("part");
        let folders = ["own", "other"].map(|name| part.join(name).join("attempt-1"));
        for folder in folders.iter().chain([&all.path().join("out/attempt-1")]) {
            fs::create_dir_all(folder).unwrap();
        }
        symlink("own", part.join("within")).unwrap();
        symlink("../out", part.join("leads-out")).unwrap();
        let told = |name: &str| within(&part, [&PathBuf::from(name)]);
        assert!(told("own/attempt-1").is_ok() && told("within/attempt-1").is_ok());
        assert!(told("gone/attempt-1").is_ok());
        let refused = told("leads-out/attempt-1").unwrap_err().to_string();
        assert!(refused.ends_with("part leads to leads-out/attempt-1, which is not in it"));
    }

    #[test]
    fn a_part_that_ended_before_it_had_an_image_says_nothing_of_what_it_was_made_of() {
        let (mut one, mut two) = (part(1), part(2));
        one.results.package_differences = vec!["qemu 1.2 instead of 1.1".into()];
        two.results.inputs.clear();
        assert!(join(vec![one.clone(), two]).is_ok());
        let differs = join(vec![one, part(2)]).unwrap_err().to_string();
        assert!(
            differs.contains("the packages beside the lock"),
            "{differs}"
        );
    }
}
