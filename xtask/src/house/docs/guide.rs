//! The parts of docs/writing-a-scenario.md that are made of the code: the example, and the tables.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use podwire_cluster::{Bootstrap, Cell, Has, PodNetwork, StageName};

use super::source::{self, Item};

/// Where the page is, seen from the project's folder.
pub(crate) const PAGE: &str = "docs/writing-a-scenario.md";

/// The scenario that the page goes through.
const EXAMPLE: &str = "scenarios/src/kubeadm/headless.rs";

/// Where the verbs are, and in what order they are told; a file that is not named comes last.
const VERBS: &str = "harness/scenario/src/lab";
const ORDER: [&str; 37] = [
    "clone.rs",
    "node.rs",
    "command.rs",
    "pods.rs",
    "objects.rs",
    "crowd.rs",
    "nodes.rs",
    "watch.rs",
    "ask.rs",
    "service.rs",
    "traffic.rs",
    "until.rs",
    "pace.rs",
    "stream.rs",
    "datagrams.rs",
    "faults.rs",
    "strays.rs",
    "daemons.rs",
    "cni_files.rs",
    "laid.rs",
    "kube_router.rs",
    "tunnel.rs",
    "ipam.rs",
    "impair.rs",
    "holes.rs",
    "router.rs",
    "leaving.rs",
    "kubeadm.rs",
    "upgrade.rs",
    "tokens.rs",
    "init.rs",
    "balancer.rs",
    "etcd.rs",
    "wire.rs",
    "measure.rs",
    "gateway.rs",
    "troubles.rs",
];

const FAILURE: &str = "harness/scenario/src/check/failure.rs";
const CHECKS: [&str; 10] = [
    "harness/scenario/src/check/assert.rs",
    "harness/scenario/src/check/record.rs",
    "harness/scenario/src/check/balance.rs",
    "harness/scenario/src/check/names.rs",
    "harness/scenario/src/check/datagrams.rs",
    "harness/scenario/src/check/streams.rs",
    "harness/scenario/src/check/party.rs",
    "harness/scenario/src/check/mesh.rs",
    "harness/scenario/src/check/clock.rs",
    "harness/scenario/src/check/typed.rs",
];
/// Those of [`CHECKS`] whose functions an author calls by the name of the module.
const ASSERT: [&str; 3] = [CHECKS[0], CHECKS[3], CHECKS[9]];
const DECLARATION: &str = "harness/scenario/src/scenario.rs";
const CLUSTERS: &str = "harness/scenario/src/scenario/clusters.rs";
const NEEDS: &str = "harness/scenario/src/wait/needs.rs";
const LOOKS: [&str; 2] = [
    "harness/scenario/src/wait/probe.rs",
    "harness/scenario/src/wait/evidence.rs",
];
const PROBE: &str = "harness/probe/src/main.rs";

/// What verbs give that is no verb's owner: the types as an author imports them, what they are called
/// where they are, and the file of each.
const GIVEN: [(&str, &str, &str); 23] = [
    ("Party", "Party", CHECKS[6]),
    ("Answer", "Output", "harness/vm/src/output.rs"),
    (
        "TargetReport",
        "TargetReport",
        "harness/probe/src/report.rs",
    ),
    ("Counted", "Counted", "harness/probe/src/report.rs"),
    (
        "ResolveReport",
        "ResolveReport",
        "harness/probe/src/resolve.rs",
    ),
    ("Mesh", "Mesh", CHECKS[7]),
    ("Cell", "Cell", CHECKS[7]),
    ("Seen", "Seen", "harness/lan/src/witness.rs"),
    ("Sighting", "Sighting", "harness/lan/src/witness.rs"),
    ("Record", "Record", CHECKS[1]),
    ("Mark", "Mark", CHECKS[1]),
    ("Gap", "Gap", CHECKS[1]),
    ("Segment", "Segment", CHECKS[1]),
    ("Followed", "Followed", CHECKS[1]),
    ("LoadReport", "LoadReport", "harness/probe/src/load.rs"),
    ("Rules", "Rules", "harness/scenario/src/check/load.rs"),
    (
        "Instructions",
        "Instructions",
        "harness/vm/src/instructions.rs",
    ),
    (
        "StreamReport",
        "StreamReport",
        "harness/probe/src/stream.rs",
    ),
    ("Received", "Received", CHECKS[4]),
    (
        "JoinCommand",
        "JoinCommand",
        "harness/cluster/src/parts/kubeadm.rs",
    ),
    ("Identity", "Identity", "harness/cluster/src/parts/pki.rs"),
    ("Packets", "Packets", "harness/lan/src/rules/rule.rs"),
    ("Realised", "Realised", "harness/lan/src/rules/report.rs"),
];

/// How the line before such a part begins, and the line behind it.
const BEGIN: &str = "<!-- made from the code: ";
const END: &str = "<!-- end -->";

/// The page, each part of which is as the code has it now; the rest is as it was.
pub(crate) fn page(project: &Path) -> anyhow::Result<String> {
    let path = project.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    filled(&page, &parts(project)?)
}

/// Puts each part between its two lines.
///
/// # Errors
/// When the page asks for a part that there is not, or lacks one.
fn filled(page: &str, parts: &[(String, String)]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut seen = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text += &format!("{line}\n");
        let Some(name) = line.strip_prefix(BEGIN) else {
            continue;
        };
        let name = name.trim_end_matches(" -->");
        let part = parts.iter().find(|(known, _)| known == name);
        let (_, part) = part.with_context(|| format!("nothing is called {name:?}"))?;
        let end = lines.by_ref().find(|line| *line == END);
        end.with_context(|| format!("{name:?} has no end"))?;
        text += &format!("\n{}\n\n{END}\n", part.trim_end());
        seen.push(name);
    }
    for (name, _) in parts {
        anyhow::ensure!(seen.contains(&name.as_str()), "the page lacks {name:?}");
    }
    Ok(text)
}

fn parts(project: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let read = |path: &str| {
        fs::read_to_string(project.join(path)).with_context(|| format!("cannot read {path}"))
    };
    let mut parts: Vec<(String, String)> = vec![
        ("stages".into(), stages()),
        ("verbs".into(), verbs(project)?),
    ];
    for (name, item) in source::items(&read(EXAMPLE)?) {
        parts.push((format!("example, {name}"), format!("```rust\n{item}\n```")));
    }
    let declaration = read(DECLARATION)?;
    parts.push(("fields of Scenario".into(), scenario(&declaration)));
    let sabotage = source::fields(&declaration, "Sabotage");
    parts.push(("fields of Sabotage".into(), table("field", &sabotage)?));
    for (name, kind, path) in [
        ("cells", "Cells", CLUSTERS),
        ("layouts", "Layout", "harness/cluster/src/plan/layout.rs"),
        ("families", "Families", CLUSTERS),
        ("causes", "Cause", FAILURE),
        ("needs", "Needs", NEEDS),
        (
            "troubles",
            "NodeTrouble",
            "harness/scenario/src/check/nodes.rs",
        ),
        ("breaks", "Break", "harness/cluster/src/plan/breaks.rs"),
    ] {
        let variants = source::variants(&read(path)?, kind);
        parts.push((name.into(), table(&format!("`{kind}::`"), &variants)?));
    }
    let kinds = read("harness/probe/src/kind.rs")?;
    let mut of_kinds = source::variants(&kinds, "Kind");
    of_kinds.extend(source::functions_of(&kinds, "Kind", "Kind"));
    parts.push(("kinds".into(), table("`Kind::`", &of_kinds)?));
    let outcomes = source::variants(&read("harness/probe/src/report.rs")?, "Outcome");
    parts.push(("outcomes".into(), table("`RequestOutcome::`", &outcomes)?));
    let mut looks = Vec::new();
    for path in LOOKS.iter().chain([&NEEDS]) {
        looks.extend(source::functions(&read(path)?));
    }
    parts.push(("looks".into(), table("a look", &looks)?));
    let mut checks = Vec::new();
    for path in CHECKS {
        let functions = source::functions(&read(path)?).into_iter();
        checks.extend(
            functions.map(|it| match ASSERT.contains(&path) && it.is_free() {
                true => Item {
                    code: format!("assert::{}", it.code),
                    ..it
                },
                false => it,
            }),
        );
    }
    parts.push(("checks".into(), table("a check", &checks)?));
    let mut given = String::new();
    for (name, there, path) in GIVEN {
        let file = read(path)?;
        let mut all = source::fields(&file, there);
        // Those of the others are among the checks.
        if !CHECKS.contains(&path) {
            all.extend(source::functions_of(&file, there, name));
        }
        given += &format!("{}\n", table(&format!("`{name}`"), &all)?);
    }
    parts.push(("what verbs give".into(), given));
    let usage = source::text(&read(PROBE)?, "USAGE").context("`probe` tells no usage")?;
    parts.push(("probe".into(), format!("```text\n{usage}\n```")));
    Ok(parts)
}

fn row(cells: &[String]) -> String {
    let cells = cells.iter().map(|it| it.replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn head(titles: &[&str]) -> String {
    let titles: Vec<String> = titles.iter().map(|it| (*it).to_owned()).collect();
    format!("{}|{}\n", row(&titles), "---|".repeat(titles.len()))
}

/// # Errors
/// Where there is nothing to show.
fn table(title: &str, items: &[Item]) -> anyhow::Result<String> {
    anyhow::ensure!(
        !items.is_empty(),
        "nothing is found for the table of {title}: is it still in the file that is read for it?"
    );
    let rows = items.iter();
    let rows = rows.map(|it| row(&[format!("`{}`", it.code), it.about.clone()]));
    Ok(head(&[title, ""]) + &rows.collect::<String>())
}

fn scenario(declaration: &str) -> String {
    let defaults = source::defaults(declaration);
    let mut text = head(&["field", "", "unless said otherwise"]);
    for item in source::fields(declaration, "Scenario") {
        let name = item.code.split(':').next().unwrap_or_default();
        let default = defaults.iter().find(|(known, _)| *known == name);
        let default = match default {
            Some((_, value)) => format!("`{}`", value.replace("Self", "Scenario")),
            None => "given to `Scenario::new`".to_owned(),
        };
        text += &row(&[format!("`{}`", item.code), item.about, default]);
    }
    text
}

fn verbs(project: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![project.join(VERBS)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {VERBS}"))? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default();
        let place = ORDER.iter().position(|it| name == *it);
        (place.unwrap_or(ORDER.len()), path.clone())
    });
    let mut text = String::new();
    for path in files {
        let file = fs::read_to_string(&path)?;
        let functions = source::functions(&file);
        if !functions.is_empty() {
            text += &format!("{}\n", table(&source::module(&file), &functions)?);
        }
    }
    Ok(text)
}

/// A fact of a stage.
type Fact = (&'static str, fn(&Has) -> bool);

const FACTS: [Fact; 8] = [
    ("API server", |has| has.api_server),
    ("Nodes registered", |has| has.nodes_registered),
    ("Nodes Ready", |has| has.nodes_ready),
    ("Pod network", |has| has.pod_network),
    ("kube-proxy", |has| has.kube_proxy),
    ("Services", |has| has.services),
    ("cluster DNS", |has| has.cluster_dns),
    ("workload", |has| has.workload),
];

/// Cells that differ in their stages, and how the page calls them.
const KINDS: [(&str, Bootstrap, PodNetwork); 3] = [
    ("by hand, routes", Bootstrap::ByHand, PodNetwork::Routes),
    (
        "by hand, any other network",
        Bootstrap::ByHand,
        PodNetwork::Manifest,
    ),
    ("kubeadm", Bootstrap::Kubeadm, PodNetwork::Manifest),
];

fn stages() -> String {
    let kinds = KINDS.map(|(name, bootstrap, network)| {
        let usual = Cell::usual(bootstrap);
        (name, Cell { network, ..usual })
    });
    let mut titles = vec!["stage", ""];
    titles.extend(kinds.map(|(name, _)| name));
    titles.extend(FACTS.map(|(name, _)| name));
    let mut text = head(&titles);
    for stage in StageName::ALL {
        let own: Vec<Cell> = kinds
            .iter()
            .map(|(_, cell)| *cell)
            .filter(|cell| stage.is_of(*cell))
            .collect();
        let mark = |holds: bool| if holds { "yes" } else { "" }.to_owned();
        let mut cells = vec![format!("`{stage}`"), stage.about().to_owned()];
        cells.extend(kinds.iter().map(|(_, cell)| mark(stage.is_of(*cell))));
        for (_, fact) in FACTS {
            let held = own.iter().filter(|cell| fact(&stage.has(**cell)));
            let held: Vec<String> = held.map(|cell| cell.bootstrap.to_string()).collect();
            cells.push(match held.len() {
                count if count == own.len() => mark(true),
                _ => held.join(", "),
            });
        }
        text += &row(&cells);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_made_from_the_code_is_written_anew() {
        let parts = [("a".to_owned(), "| new |\n".to_owned())];
        let page = format!("Before.\n\n{BEGIN}a -->\nold\n\nold\n{END}\n\nBehind.\n");
        let filled = filled(&page, &parts).unwrap();
        assert_eq!(
            filled,
            format!("Before.\n\n{BEGIN}a -->\n\n| new |\n\n{END}\n\nBehind.\n")
        );
        assert_eq!(super::filled(&filled, &parts).unwrap(), filled);
    }

    #[test]
    fn a_part_that_is_unknown_missing_or_open_is_an_error() {
        let parts = [("a".to_owned(), String::new())];
        let error = |page: String| filled(&page, &parts).unwrap_err().to_string();
        assert_eq!(error(String::new()), "the page lacks \"a\"");
        assert_eq!(
            error(format!("{BEGIN}b -->\n{END}\n")),
            "nothing is called \"b\""
        );
        assert_eq!(error(format!("{BEGIN}a -->\nold\n")), "\"a\" has no end");
    }

    #[test]
    fn what_has_moved_to_another_file_is_an_error_and_no_empty_table() {
        let found = source::variants("pub enum Families {\n    Ipv4,\n}\n", "Cells");
        let error = table("`Cells::`", &found).unwrap_err().to_string();
        assert!(error.contains("the table of `Cells::`"), "{error}");
    }

    #[test]
    fn a_stage_says_which_bootstrap_alone_has_something() {
        let rows = stages();
        let row = |name: &str| {
            let start = format!("| `{name}` |");
            rows.lines()
                .find(|line| line.starts_with(&start))
                .unwrap()
                .to_owned()
        };
        assert!(
            row("workload").ends_with("| yes | yes | kubeadm | yes |"),
            "{rows}"
        );
        assert!(
            row("booted").ends_with("| yes | yes | yes |  |  |  |  |  |  |  |  |"),
            "{rows}"
        );
    }
}
