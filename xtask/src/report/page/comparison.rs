//! A comparison as one page: the sentence, what differs, why, and the way to both sides' own pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use maud::{Markup, html};

use super::said::{block, line, link, short};
use super::{MOST, PATH, document, failure, unsettled};
use crate::report::compare::numbers::statistics::Answer;
use crate::report::compare::numbers::{Number, Numbers, Unmeasured, percent};
use crate::report::compare::summary::{how_often, row as cells};
use crate::report::compare::{Compared, Comparison, Difference, FILE, OnSide, Side, SideRun};
use crate::report::left::{FAILURES, Left};
use crate::say::text::clock;

/// Runs of a side that are linked.
const RUNS: usize = 40;
/// Characters of a name, and of a side's flags.
const NAME: usize = 60;
const FLAGS: usize = 200;
/// From the most that it tells to the least: where it would be too long, it tells less.
const ROOMS: [Room; 8] = [
    Room::of(FAILURES, 60, 400),
    Room::of(8, 60, 400),
    Room::of(3, 60, 400),
    Room::of(1, 30, 400),
    Room::of(0, 30, 400),
    Room::of(0, 12, 400),
    Room::of(0, 3, 100),
    Room::of(0, 0, 50),
];

/// How much is told.
#[derive(Clone, Copy)]
struct Room {
    /// Failures of which all is shown that they have left.
    all_left: usize,
    /// Of how many is told what was said.
    in_full: usize,
    /// Rows of each table; all of them are in compare.json.
    rows: usize,
}

impl Room {
    const fn of(all_left: usize, in_full: usize, rows: usize) -> Self {
        Self {
            all_left,
            in_full,
            rows,
        }
    }
}

/// What failures have left, by their folders.
struct AllLeft<'a> {
    known: &'a BTreeMap<PathBuf, Left>,
    /// Those of which all of it is shown.
    shown: BTreeSet<&'a Path>,
}

impl AllLeft<'_> {
    fn of(&self, side: &OnSide) -> Option<&Left> {
        self.known.get(side.folder.as_deref()?)
    }

    /// Of a side whose failure is shown whole.
    fn shown(&self, side: &OnSide) -> Option<&Left> {
        let folder = side.folder.as_deref()?;
        self.of(side).filter(|_| self.shown.contains(folder))
    }
}

/// The page, with what failures have left by their folders. It leads to both sides' pages by relative paths: all of it
/// can be moved as a whole.
pub(crate) fn page(comparison: &Comparison, left: &BTreeMap<PathBuf, Left>) -> String {
    let mut page = String::new();
    for room in ROOMS {
        let left = AllLeft {
            known: left,
            shown: comparison.failures().take(room.all_left).collect(),
        };
        page = whole(comparison, &left, room);
        if page.len() <= MOST {
            break;
        }
    }
    page
}

fn whole(comparison: &Comparison, left: &AllLeft<'_>, room: Room) -> String {
    let shown = comparison.scenarios.iter();
    let shown: Vec<&Compared> = shown.filter(|it| it.difference.is_shown()).collect();
    let told = shown.iter().take(room.in_full).zip(1..);
    let told: Vec<(&Compared, usize)> = told
        .map(|(it, number)| (*it, number))
        .filter(|(it, _)| has_reason(it))
        .collect();
    let body = html! {
        @if let Some((_, first)) = told.first() {
            a.skip href={ "#differs-" (first) } { "To the first that differs, and why" }
        }
        @if comparison.numbers.is_some() { a.skip href="#numbers" { "To the numbers" } }
        a.skip href="#runs" { "To the runs of both sides" }
        header {
            h1 { (line(&comparison.sentence)) }
            @if let Some(error) = &comparison.error {
                p.error { "It did not come to its end: " (line(error)) }
            }
            @if let Some(part) = &comparison.part {
                p { "Part " (short(&part.shard, NAME)) " of the scenarios." }
            }
            dl {
                (side("base", &comparison.base))
                (side("head", &comparison.head))
            }
        }
        main {
            @if !shown.is_empty() { (table(&shown, left, room)) }
            @for (it, number) in told { (section(number, it, left)) }
            @if let Some(numbers) = &comparison.numbers { (of_numbers(numbers, room)) }
            (runs(comparison))
        }
        footer {
            p { "All of it as data: " a href=(FILE) { (FILE) } "." }
        }
    };
    document(&comparison.sentence, &body).into_string()
}

/// What a side is, and its first run, which had all scenarios.
fn side(name: &str, side: &Side) -> Markup {
    let flags = match side.flags.is_empty() {
        true => "no flags".to_owned(),
        false => side.flags.join(" "),
    };
    html! {
        dt { (name) }
        dd {
            @if let Some(revision) = &side.revision { (line(revision)) ", " }
            code { (short(&flags, FLAGS)) }
            @if let Some(tested) = &side.tested { ": " (line(tested)) }
            @if let Some(first) = side.runs.first() {
                " (" a href=(link(&first.page())) { "report" } ")"
            }
            (unsettled(&side.unsettled_stages))
        }
    }
}

/// Whether there is a section of it: unless it passed, a side has said something.
fn has_reason(it: &Compared) -> bool {
    [&it.base, &it.head]
        .iter()
        .any(|side| side.reason.is_some())
}

/// Who and whom, of head where it failed there.
fn in_short(it: &Compared, left: &AllLeft<'_>) -> String {
    let mut sides = [&it.head, &it.base].into_iter();
    let told = sides.find_map(|side| Some((side, side.reason.as_ref()?)));
    told.map_or_else(String::new, |(side, reason)| {
        failure::in_short(reason, left.of(side))
    })
}

fn table(shown: &[&Compared], left: &AllLeft<'_>, room: Room) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="What differs" {
            table {
                thead {
                    tr {
                        @for name in ["scenario", "cluster", "verdict", "base", "head", "what was seen"] {
                            th scope="col" { (name) }
                        }
                    }
                }
                tbody {
                    @for (number, it) in shown.iter().enumerate().take(room.rows) {
                        @let name = short(&it.name, NAME);
                        tr {
                            th scope="row" {
                                @if number < room.in_full && has_reason(it) {
                                    a href={ "#differs-" (number + 1) } { (name) }
                                } @else { (name) }
                                @if let Some(part) = &it.part {
                                    " " span.cell { "part " (short(part, NAME)) }
                                }
                            }
                            td { (short(&it.cluster, NAME)) }
                            td class=[(it.difference == Difference::Broke).then_some("wrong")] {
                                (it.difference.to_string())
                            }
                            td { (it.base.in_short()) }
                            td { (it.head.in_short()) }
                            td { (in_short(it, left)) }
                        }
                    }
                }
            }
        }
        @if shown.len() > room.rows { p { (shown.len() - room.rows) " more are in " (FILE) "." } }
    }
}

/// What was measured, and what could not be.
fn of_numbers(numbers: &Numbers, room: Room) -> Markup {
    html! {
        section id="numbers" {
            h2 { "Numbers" }
            p { (line(&numbers.sentence)) "." }
            @if !numbers.metrics.is_empty() {
                div.wide tabindex="0" role="region" aria-label="Numbers" {
                    table {
                        thead {
                            tr {
                                @for name in NUMBERS { th scope="col" { (name) } }
                            }
                        }
                        tbody {
                            @for it in numbers.metrics.iter().take(room.rows) { (number(it)) }
                        }
                    }
                }
                p {
                    "ratio: head's reading by base's, the median of n pairs. interval: the ratios that explain the \
                     pairs as well, at 95 %. p: how often chance alone makes such a difference, over all numbers. \
                     Worse, or better: p is 0.05 at most, and the ratio beyond "
                    (percent(numbers.margin)) ". Every pair is in " (FILE) "."
                }
            }
            @for (sides, it) in numbers.told_unmeasured().into_iter().take(room.in_full) {
                (not_measured(&sides, it))
            }
        }
    }
}

const NUMBERS: [&str; 9] = [
    "number", "cluster", "answer", "base", "head", "ratio", "interval", "p", "n",
];

fn number(it: &Number) -> Markup {
    let [name, others @ ..] = cells(it);
    html! {
        tr {
            th scope="row" { (short(&name, NAME)) }
            @for (place, cell) in others.iter().enumerate() {
                td class=[(place == 1 && it.answer == Answer::Worse).then_some("wrong")] {
                    (short(cell, NAME))
                }
            }
        }
    }
}

fn not_measured(sides: &str, it: &Unmeasured) -> Markup {
    html! {
        h3 {
            (short(sides, NAME)) ": " (short(it.what(), NAME)) " on "
            (short(&it.cluster, NAME)) " " (how_often(it))
            (first_page(it.folder.as_deref()))
        }
        pre.sentence tabindex="0" { (block(&it.reason)) }
        @if let Some(again) = &it.again { pre tabindex="0" { code { (block(again)) } } }
    }
}

/// What both sides said of a scenario, unless it passed.
fn section(number: usize, it: &Compared, left: &AllLeft<'_>) -> Markup {
    html! {
        section.failure id={ "differs-" (number) } {
            h2 {
                (short(&it.name, NAME)) " "
                span.cell { (short(&it.cluster, NAME)) ", " (it.difference.to_string()) }
            }
            (said("base", &it.base, left))
            (said("head", &it.head, left))
        }
    }
}

/// The way to an attempt's page for a person.
fn first_page(folder: Option<&Path>) -> Markup {
    let worth = |folder: &&Path| folder.as_os_str().len() <= PATH;
    html! {
        @if let Some(folder) = folder.filter(worth) {
            " (" a href=(link(&folder.join(Left::FIRST_PAGE))) { "first page" } ")"
        }
    }
}

fn said(name: &str, side: &OnSide, left: &AllLeft<'_>) -> Markup {
    let left = left.shown(side);
    html! {
        @if let Some(reason) = &side.reason {
            h3 { (name) ": " (side.in_short()) (first_page(side.folder.as_deref())) }
            (failure::shown(reason, left))
            (failure::stood_out(&side.wire, side.processors, left))
            @if let Some(again) = &side.again { pre tabindex="0" { code { (block(again)) } } }
        }
    }
}

/// The runs of both sides, each with its own page.
fn runs(comparison: &Comparison) -> Markup {
    let sides = [("base", &comparison.base), ("head", &comparison.head)];
    let all = sides.iter();
    let all = all.flat_map(|(_, side)| side.runs.iter().chain(&side.measured));
    let time = |seconds: f64| clock(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let total: f64 = all.map(|run| run.seconds).sum();
    html! {
        section id="runs" {
            h2 { "Runs: " (time(total)) " in all" }
            div.wide tabindex="0" role="region" aria-label="Runs" {
                table {
                    tbody {
                        @for (name, side) in sides {
                            @for (number, run) in side.runs.iter().enumerate().take(RUNS) {
                                (row(&format!("{name}, run {}", number + 1), run, &time(run.seconds)))
                            }
                        }
                        @for (name, side) in sides {
                            @for (number, run) in side.measured.iter().enumerate().take(RUNS) {
                                (row(&format!("{name}, pair {}", number + 1), run, &time(run.seconds)))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn row(name: &str, run: &SideRun, time: &str) -> Markup {
    let page: &Path = &run.page();
    html! {
        tr {
            th scope="row" { (name) }
            td.time { (time) }
            td { a href=(link(page)) { "report" } }
            td { @if let Some(error) = &run.error { (line(error)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::{Counts, State};
    use crate::report::page::MOST;

    fn compared(name: &str, difference: Difference, reason: &str) -> Compared {
        let failed = OnSide {
            runs: [State::Failed; 5].into(),
            reason: Some(reason.into()),
            folder: Some("head/runs/1/by-hand-nftables-routes/scenarios/a/attempt-1".into()),
            again: Some("cargo xtask test --bootstrap by-hand --filter a".into()),
            ..OnSide::default()
        };
        let passed = OnSide {
            runs: [State::Passed; 5].into(),
            ..OnSide::default()
        };
        Compared {
            name: name.into(),
            cluster: "by-hand".into(),
            part: None,
            difference,
            base: passed,
            head: failed,
        }
    }

    fn comparison(scenarios: Vec<Compared>) -> Comparison {
        let side = |flags: &[&str], folder: &str| Side {
            revision: None,
            flags: flags.iter().map(|it| (*it).to_owned()).collect(),
            tested: Some(
                "by-hand/nftables/routes on debian, kubernetes 1.36.4 from modules".into(),
            ),
            unsettled_stages: Vec::new(),
            runs: vec![SideRun {
                folder: folder.into(),
                seconds: 61.0,
                error: None,
            }],
            measured: Vec::new(),
        };
        Comparison {
            sentence: "head breaks 1 of 2 scenarios".into(),
            error: None,
            counts: Counts::default(),
            part: None,
            base: side(&[], "base/runs/1"),
            head: Side {
                revision: Some("git:<main>, commit 0123456789ab".into()),
                ..side(&["--replace", "kube-proxy=./out/kube-proxy"], "head/runs/2")
            },
            scenarios,
            numbers: None,
        }
    }

    #[test]
    fn the_sentence_comes_first_then_what_differs_and_why() {
        let comparison = comparison(vec![
            compared(
                "every_pair",
                Difference::Broke,
                "expected <b>; seen: a time-out",
            ),
            compared("names", Difference::PassesOnBoth, "is not to be seen"),
        ]);
        let page = page(&comparison, &BTreeMap::new());
        let (_, body) = page.split_once("</head>").unwrap();
        insta::assert_snapshot!(body.replace('>', ">\n"));
    }

    #[test]
    fn what_had_not_settled_stands_with_its_side() {
        let mut comparison = comparison(Vec::new());
        comparison.head.unsettled_stages = vec!["the stage <workload> had not settled".into()];
        let page = page(&comparison, &BTreeMap::new());
        let (_, head) = page.split_once("<dt>head</dt>").unwrap();
        let (head, rest) = head.split_once("</dd>").unwrap();
        let told = "<p class=\"error\">the stage &lt;workload&gt; had not settled</p>";
        assert!(head.contains(told), "{page}");
        assert!(!rest.contains("had not settled"), "{page}");
    }

    #[test]
    fn numbers_have_a_table_in_which_only_what_is_worse_stands_out_and_what_was_not_measured_is_said()
     {
        let numbers = crate::report::compare::numbers::tests::numbers();
        assert!(numbers.counts.worse == 1 && !numbers.unmeasured.is_empty());
        let comparison = Comparison {
            numbers: Some(numbers),
            ..comparison(Vec::new())
        };
        let page = page(&comparison, &BTreeMap::new());
        let (_, section) = page.split_once("<section id=\"numbers\">").unwrap();
        let (section, _) = section.split_once("</section>").unwrap();
        assert_eq!(section.matches("class=\"wrong\"").count(), 1);
        insta::assert_snapshot!(section.replace('>', ">\n"));
    }

    #[test]
    fn what_a_failure_has_left_is_shown_as_on_a_run_s_page_unless_it_is_too_long() {
        let broke = compared("every_pair", Difference::Broke, "expected this; seen: that");
        let folder = broke.head.folder.clone().unwrap();
        let comparison = comparison(vec![broke]);
        let mut left = Left {
            folder: folder.clone(),
            account: Some(crate::report::fixture::account()),
            capture: true,
            ..Left::default()
        };
        let told = page(
            &comparison,
            &BTreeMap::from([(folder.clone(), left.clone())]),
        );
        let places = [
            "head: passed 0 of 5",
            "<b class=\"who\">",
            "Where: ",
            "class=\"pairs\"",
            "The way of one lost packet",
            "Its frames",
            "head/runs/1/by-hand-nftables-routes/scenarios/a/attempt-1/evidence/segment.pcapng",
            "cargo xtask test --bootstrap by-hand --filter a",
        ];
        let places = places.map(|it| told.find(it).unwrap_or_else(|| panic!("no {it}: {told}")));
        assert!(places.is_sorted(), "{places:?}: {told}");
        assert!(!told.contains("expected this"), "{told}");

        left.consoles = vec![("node1".into(), "x".repeat(8000)); MOST / 8000];
        let told = page(&comparison, &BTreeMap::from([(folder, left)]));
        assert!(told.len() <= MOST && told.contains("expected this"));
        // Who and whom are in its row all the same.
        assert!(
            told.contains("on node1) to blue-589d7cd7d5-b3b3b (10.1.2.3 on node2): timed out</td>")
        );
    }

    #[test]
    fn each_row_leads_to_its_section_with_what_stood_out_in_it() {
        let mut broke = compared("every_pair", Difference::Broke, "expected this; seen: that");
        broke.head.wire = vec!["node1 -> node2: TCP reset (1)".into()];
        broke.head.processors = Some(podwire_scenario::Processors {
            ran: 10.0,
            waited: 90.0,
        });
        let mut absent = compared("names", Difference::OnlyBase, "");
        absent.head.reason = None;
        let other = compared("routes", Difference::Broke, "another reason");
        let left = Left {
            folder: broke.head.folder.clone().unwrap(),
            nodes: Some("node2: its clock is 3 s ahead".into()),
            ..Left::default()
        };
        let comparison = comparison(vec![absent, broke, other]);
        let told = page(&comparison, &BTreeMap::from([(left.folder.clone(), left)]));
        assert!(
            told.contains("<a class=\"skip\" href=\"#differs-2\">"),
            "{told}"
        );
        assert!(told.contains("<a href=\"#differs-3\">routes</a>"), "{told}");
        assert!(!told.contains("differs-1"), "nothing is told of it: {told}");
        assert!(told.contains("<td>another reason</td>"), "{told}");
        let (_, section) = told.split_once("id=\"differs-2\"").unwrap();
        let (section, _) = section.split_once("</section>").unwrap();
        for it in [
            "TCP reset (1)",
            "The host was busy",
            "its clock is 3 s ahead",
        ] {
            assert!(section.contains(it), "{it}: {section}");
        }
    }

    #[test]
    fn however_much_both_sides_say_the_page_has_its_bounds() {
        let reason = "\"<&\u{1b}".repeat(2000);
        let folder = |number: usize, side: &str| Some(format!("{side}/{number}").into());
        let many = (0..400).map(|number| {
            let mut one = compared(&reason, Difference::NowAndThen, &reason);
            one.head.folder = folder(number, "head");
            one.head.wire = vec![reason.clone(); 10];
            one.base = OnSide {
                folder: folder(number, "base"),
                ..one.head.clone()
            };
            one
        });
        let told = page(&comparison(many.collect()), &BTreeMap::new());
        assert!(told.len() <= MOST, "{}", told.len());
        // Nearly as much as there is room for.
        assert!(told.len() > MOST / 8, "{}", told.len());
    }

    #[test]
    fn it_is_never_too_long_and_commands_nobody() {
        let reason = "::error::<script>\u{1b}[2J".repeat(2000);
        let many =
            (0..2000).map(|number| compared(&format!("a{number}"), Difference::Broke, &reason));
        let mut comparison = comparison(many.collect());
        comparison.base.unsettled_stages = vec![reason.clone(); 1000];
        let mut numbers = crate::report::compare::numbers::tests::numbers();
        let mut metric = numbers.metrics[0].clone();
        metric.metric.clone_from(&reason);
        metric.unit.clone_from(&reason);
        numbers.metrics = vec![metric; 1000];
        let mut failed = numbers.unmeasured[0].clone();
        failed.reason.clone_from(&reason);
        numbers.unmeasured = vec![failed; 1000];
        numbers.sentence.clone_from(&reason);
        comparison.numbers = Some(numbers);
        let page = page(&comparison, &BTreeMap::new());
        assert!(page.len() <= MOST, "{}", page.len());
        assert!(!page.contains("<script>") && !page.contains('\u{1b}'));
        assert!(page.contains("1600 more are in compare.json"));
    }
}
