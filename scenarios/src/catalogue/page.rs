//! docs/scenarios.md: the catalogue as a page, with what shows each entry.

use podwire_scenario::{Claim, Scenario};

use super::{BEYOND, CHAPTERS, Chapter, DOCUMENTS};

/// Where the page is, seen from the project's folder.
pub const PAGE: &str = "docs/scenarios.md";

const LEGEND: &str = "\
In the sentences, what stands before an arrow is done, and what stands behind it is seen. `!` behind an
id is a failure that is shown on purpose; `+` in a sentence begins what its sources do not show and only
imply, and an entry without a source is implied as a whole. An id is covered when a scenario asserts the
effect, on real components in real guests, and a sabotage proves that the assertion can fail. How they
assert is in [writing-a-scenario.md](writing-a-scenario.md#rules).

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
    page
}

fn chapter(chapter: &Chapter, scenarios: &[Scenario]) -> String {
    let mut text = format!("\n## {}\n\n", chapter.title);
    if !chapter.note.is_empty() {
        text += &format!("{}\n\n", chapter.note);
    }
    text += "| id | source | what is shown | asserted by | sabotages that prove it |\n\
             |---|---|---|---|---|\n";
    for claim in chapter.claims {
        text += &row(claim, scenarios);
    }
    text
}

fn row(claim: &Claim, scenarios: &[Scenario]) -> String {
    let mark = if claim.failure { "!" } else { "" };
    let today = claim.today.map(|today| format!("Today: {today}"));
    let shown = [claim.sentence.to_owned()].into_iter().chain(today);
    let named = |name: &str, about: &str| format!("`{name}`: {about}");
    let asserted = shown_by(claim, scenarios).map(|it| named(it.name, it.about));
    let sabotages =
        shown_by(claim, scenarios).flat_map(|it| it.sabotages).map(|it| named(it.name, it.about));
    let asserted = match cell(asserted) {
        none if none.is_empty() => "open".to_owned(),
        some => some,
    };
    format!(
        "| {}{mark} | {} | {} | {asserted} | {} |\n",
        claim.id,
        claim.sources.join(", "),
        cell(shown),
        cell(sabotages)
    )
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
    use podwire_scenario::{Cause, Cells, Layout, Profile, Sabotage};

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

    const FAULT: Sabotage = Sabotage {
        name: "no-a",
        about: "there is no a",
        expects: Cause::Refused,
        inject: podwire_scenario::LEFT_OUT,
        check: podwire_scenario::LEFT_OUT,
    };

    fn scenario(name: &'static str, sabotages: &'static [Sabotage]) -> Scenario {
        Scenario {
            name,
            about: "It is refused",
            covers: &[LOOKED_AT],
            stage: StageName::Workload,
            cells: Cells::Any,
            layout: Layout::Flat,
            profile: Profile::Default,
            nodes: 2,
            limit: Duration::from_secs(60),
            prepare: None,
            kube_router: false,
            run: |_| Box::pin(async { Ok(()) }),
            sabotages,
            red_when: &[],
        }
    }

    #[test]
    fn a_row_says_what_is_shown_how_it_is_asserted_and_what_proves_it_or_that_it_is_open() {
        let looked_at =
            Chapter { title: "X. Looking", note: "In all cells.", claims: &[LOOKED_AT, NOT_YET] };
        let scenarios = [scenario("one", &[FAULT]), scenario("other", &[FAULT, FAULT])];
        assert_eq!(
            chapter(&looked_at, &scenarios),
            r"
## X. Looking

In all cells.

| id | source | what is shown | asserted by | sabotages that prove it |
|---|---|---|---|---|
| X1! | S1, S4 | Run `a \| b` → refused.<br>Today: It is `c`. | `one`: It is refused<br>`other`: It is refused | `no-a`: there is no a<br>`no-a`: there is no a<br>`no-a`: there is no a |
| X2 |  | Run `a \| b` → refused. | open |  |
"
        );
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
