//! docs/scenarios.md: the catalogue as a page, with what shows each entry.

use std::collections::{BTreeMap, BTreeSet};

use podwire_scenario::{Claim, Profile, Sabotage, Scenario};

use super::{BEYOND, CHAPTERS, Chapter, DOCUMENTS};

/// Where the page is, seen from the project's folder.
pub const PAGE: &str = "docs/scenarios.md";

const LEGEND: &str = "\
In the sentences, what stands before an arrow is done, and what stands behind it is seen. `!` behind an
id is a failure that is shown on purpose; `+` in a sentence begins what its sources do not show and only
imply, and an entry without a source is implied as a whole. An id is covered when a scenario asserts the
effect, on real components in real guests, and a sabotage proves that the assertion can fail. Behind each
chapter's table are its scenarios, each with its sabotages and the class of failure that each has to end
in; how they assert is in [writing-a-scenario.md](writing-a-scenario.md#rules).

The sources are documents that show a reader how a cluster is put together, and public reports
(`OWNER/REPOSITORY#NUMBER` on GitHub):
";

const TODAY: &str = "\
The documents date from several years. What is asserted is the behaviour of the Kubernetes under test;
where an entry differs from its document, \"today\" says how. Docker, dockershim, kubenet,
`--network-plugin` and the plain port 8080 are gone for all of them.
";

/// The page's text.
pub fn page(scenarios: &[Scenario]) -> String {
    let claims = || CHAPTERS.iter().flat_map(|chapter| chapter.claims);
    let covered = claims().filter(|claim| shown_by(claim, scenarios).next().is_some());
    let mut page = format!(
        "# Scenarios\n\n\
         What there is to see of a cluster and its network, entry by entry, and which scenario asserts \
         it.\n\
         This page is generated from `scenarios/src/catalogue/` and the scenarios: `cargo xtask docs` \
         writes it anew.\n\n\
         {} of {} entries are covered.\n\n\
         {LEGEND}\n",
        covered.count(),
        claims().count()
    );
    for (name, about) in DOCUMENTS {
        page += &format!("- {name}: {about}\n");
    }
    page += &format!("\n{TODAY}");
    for part in CHAPTERS.iter().chain([&BEYOND]) {
        page += &chapter(part, scenarios);
    }
    page + &over_other_networks(scenarios)
}

/// Who of them means nothing over a network that is not one of podwire's own, and why.
fn over_other_networks(scenarios: &[Scenario]) -> String {
    let mut unfit: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for scenario in scenarios {
        if let Some(why) = scenario.unfit_for_a_manifest() {
            let name = format!("[`{0}`](#{0})", scenario.name);
            unfit.entry(why.to_string()).or_default().push(name);
        }
    }
    let fit = scenarios.len() - unfit.values().map(Vec::len).sum::<usize>();
    let mut text = format!(
        "\n## Over a Pod network by its name, or of one's own\n\n\
         {fit} of {} scenarios run there too, by hand, with kubeadm, or in both. The others do not fit, since each of \
         these\n\n",
        scenarios.len()
    );
    for (why, names) in unfit {
        text += &format!("- {why}: {}\n", names.join(", "));
    }
    text
}

fn chapter(chapter: &Chapter, scenarios: &[Scenario]) -> String {
    let mut text = format!("\n## {}\n\n", chapter.title);
    if !chapter.note.is_empty() {
        text += &format!("{}\n\n", chapter.note);
    }
    text += "| id | source | what is shown | asserted by |\n|---|---|---|---|\n";
    for claim in chapter.claims {
        text += &row(claim, scenarios);
    }
    // In the order of the chapter, each where its first entry is.
    let mut told = BTreeSet::new();
    for scenario in chapter.claims.iter().flat_map(|claim| shown_by(claim, scenarios)) {
        if at_home(scenario, chapter) && told.insert(scenario.name) {
            text += &story(scenario);
        }
    }
    text
}

fn row(claim: &Claim, scenarios: &[Scenario]) -> String {
    let today = claim.today.map(|today| format!("Today: {today}"));
    let shown = [claim.sentence.to_owned()].into_iter().chain(today);
    let asserted = shown_by(claim, scenarios).map(|it| format!("[`{0}`](#{0})", it.name));
    let asserted = match cell(asserted) {
        none if none.is_empty() => "open".to_owned(),
        some => some,
    };
    format!("| {} | {} | {} | {asserted} |\n", marked(claim), claim.sources.join(", "), cell(shown),)
}

/// A scenario by itself, with what proves that it can fail.
fn story(scenario: &Scenario) -> String {
    let ids: Vec<String> = scenario.covers.iter().copied().map(marked).collect();
    let cores = match scenario.cores {
        1 => String::new(),
        cores => format!(", on hosts with {cores} processors"),
    };
    let mut text = format!(
        "\n### `{}`\n\n{} ({}; from stage `{}`{}{cores}).\n",
        scenario.name,
        scenario.about,
        ids.join(", "),
        scenario.stage,
        match scenario.profile {
            Profile::Everywhere => ", on each cluster of a run",
            Profile::Default => "",
            Profile::Full => ", in `--profile full`",
        }
    );
    if !scenario.sabotages.is_empty() {
        text += "\nWhat it must notice, and as what:\n\n";
    }
    for sabotage in scenario.sabotages {
        let Sabotage { name, about, expects, .. } = sabotage;
        text += &format!("- `{name}`: {about} → {expects}\n");
    }
    text
}

/// Whether that is the chapter in which a scenario is told: a scenario's first entry says which.
fn at_home(scenario: &Scenario, chapter: &Chapter) -> bool {
    scenario.covers.first().is_some_and(|first| chapter.claims.contains(first))
}

fn marked(claim: &Claim) -> String {
    let mark = if claim.failure { "!" } else { "" };
    format!("{}{mark}", claim.id)
}

fn shown_by<'a>(claim: &'a Claim, scenarios: &'a [Scenario]) -> impl Iterator<Item = &'a Scenario> {
    scenarios.iter().filter(move |it| it.covers.contains(&claim))
}

/// Paragraphs in a cell of a table, which a `|` would end.
fn cell(paragraphs: impl Iterator<Item = String>) -> String {
    let paragraphs: Vec<String> = paragraphs.map(|it| it.replace('|', "\\|")).collect();
    paragraphs.join("<br>")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use podwire_cluster::StageName;
    use podwire_scenario::{Cause, Cells, Families, Layout};

    use super::*;

    const LOOKED_AT: &Claim = &Claim {
        id: "X1",
        sources: &["S1", "S4"],
        failure: true,
        sentence: "Run `a | b` → refused.",
        today: Some("It is `c`."),
    };

    const NOT_YET: &Claim =
        &Claim { id: "X2", sources: &[], failure: false, today: None, ..*LOOKED_AT };

    const FAULT: Sabotage =
        Sabotage { expects: Cause::Refused, ..Sabotage::new("no-a").about("there is no a") };

    fn scenario(name: &'static str, sabotages: &'static [Sabotage]) -> Scenario {
        Scenario {
            name,
            about: "It is refused",
            covers: &[LOOKED_AT],
            stage: StageName::Workload,
            cells: Cells::Any,
            layout: Layout::Flat,
            families: Families::Ipv4,
            profile: Profile::Default,
            nodes: 2,
            limit: Duration::from_secs(60),
            prepare: None,
            kube_router: false,
            upgrades: false,
            cores: 1,
            measures: &[],
            run: |_| Box::pin(async { Ok(()) }),
            sabotages,
            red_when: &[],
        }
    }

    #[test]
    fn a_chapter_says_what_is_shown_by_which_scenario_and_tells_each_of_them_once() {
        let looked_at =
            Chapter { title: "X. Looking", note: "In all cells.", claims: &[LOOKED_AT, NOT_YET] };
        let elsewhere = Scenario {
            covers: &[crate::catalogue::E4, LOOKED_AT],
            ..scenario("elsewhere", &[FAULT])
        };
        let other = Scenario { profile: Profile::Full, ..scenario("other", &[FAULT, FAULT]) };
        assert_eq!(
            chapter(&looked_at, &[scenario("one", &[]), elsewhere, other]),
            r"
## X. Looking

In all cells.

| id | source | what is shown | asserted by |
|---|---|---|---|
| X1! | S1, S4 | Run `a \| b` → refused.<br>Today: It is `c`. | [`one`](#one)<br>[`elsewhere`](#elsewhere)<br>[`other`](#other) |
| X2 |  | Run `a \| b` → refused. | open |

### `one`

It is refused (X1!; from stage `workload`).

### `other`

It is refused (X1!; from stage `workload`, in `--profile full`).

What it must notice, and as what:

- `no-a`: there is no a → refused
- `no-a`: there is no a → refused
"
        );
    }

    #[test]
    fn who_does_not_fit_another_network_is_told_with_the_reason() {
        let of = |name, stage, cells| Scenario { stage, cells, ..scenario(name, &[]) };
        let all = [
            of("any", StageName::Workload, Cells::Any),
            of("kubeadm", StageName::Init, Cells::Kubeadm),
            of("bare", StageName::WorkloadBare, Cells::Any),
            of("bridge", StageName::Workload, Cells::WithBridge),
            of("tunnel", StageName::Workload, Cells::Vxlan),
            of("ranges", StageName::Joined, Cells::ByHandWithRoutes),
            Scenario { families: Families::Dual, ..scenario("both", &[]) },
        ];
        let told = over_other_networks(&all);
        assert!(told.contains("\n2 of 7 scenarios run there too"), "{told}");
        for (name, why) in [
            ("bare", "the stage workload-bare, which such a cluster does not have: "),
            ("bridge", "have on each node: "),
            ("tunnel", "about flannel's VXLAN: "),
            ("ranges", "CNI files itself: "),
            ("both", "about two families of IP: "),
        ] {
            assert!(told.contains(&format!("{why}[`{name}`](#{name})\n")), "{told}");
        }
    }

    #[test]
    fn every_scenario_is_told_in_one_chapter() {
        let page = page(&crate::all());
        for scenario in crate::all() {
            let heading = format!("\n### `{}`\n", scenario.name);
            assert_eq!(page.matches(&heading).count(), 1, "{}", scenario.name);
        }
    }

    #[test]
    fn the_page_counts_what_is_covered_once() {
        let one = Scenario {
            covers: &[crate::catalogue::E4, crate::catalogue::IDENTITY],
            ..scenario("one", &[])
        };
        let says = |scenarios: &[Scenario], count: &str| page(scenarios).contains(count);
        assert!(says(&[], "\n0 of "));
        assert!(says(&[one, one], "\n1 of "));
    }

    #[test]
    fn the_page_in_docs_is_of_today_s_catalogue_and_scenarios() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let there = fs::read_to_string(project.join(PAGE)).unwrap_or_default();
        let wanted = page(&crate::all());
        let same = wanted.lines().zip(there.lines());
        let same = same.take_while(|(wanted, there)| wanted == there).count();
        assert!(
            there == wanted,
            "{PAGE} is stale from line {} on: `cargo xtask docs` writes it anew",
            same + 1
        );
    }
}
