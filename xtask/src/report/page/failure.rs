//! One scenario that failed: who, whom, where; then what is known of it.

use maud::{Markup, html};
use podwire_scenario::{Account, Pair, Processors};

use super::said::{block, line, link, millis, short};
use super::{matrix, timeline, twin, way};
use crate::report::left::Left;
use crate::report::results::ScenarioRecord;

/// Characters of a failure in one line.
const SHORT: usize = 160;

/// Its section.
pub(super) fn section(number: usize, record: &ScenarioRecord, left: Option<&Left>) -> Markup {
    html! {
        section.failure id={ "failure-" (number) } {
            h2 { (line(&record.name)) " " span.cell { (line(&record.cell)) } }
            (shown(&record.reason, left))
            (stood_out(&record.wire, record.processors, left))
            (missed(record))
            (again(record, left))
        }
    }
}

/// What is known of a failure: the sentence, or the reason where it left no account; the matrix, the way of a lost
/// packet, the timeline, the packet's frames, and what a healthy clone has otherwise.
pub(super) fn shown(reason: &str, left: Option<&Left>) -> Markup {
    let account = left.and_then(|left| left.account.as_ref());
    let pairs = account.and_then(|account| account.pairs.as_ref());
    let lost = pairs.and_then(|pairs| pairs.lost.as_ref());
    let twin = left.and_then(|left| left.twin.as_ref());
    html! {
        @match account {
            Some(account) => {
                (sentence(account))
                @if let Some(lost) = lost { p.where { "Where: " (line(&lost.ended)) } }
                (words(account))
            },
            None => { pre.sentence tabindex="0" { (block(reason)) } },
        }
        @if let Some(pairs) = pairs.filter(|pairs| pairs.all.len() > 1) { (matrix::table(pairs)) }
        @if let Some(lost) = lost {
            (way::section(lost, account.and_then(|account| account.met.as_ref()), twin))
        }
        @if let Some(left) = left { (timeline::section(left)) }
        @if let Some(lost) = lost { (way::frames(lost, left)) }
        @if let Some(twin) = twin { (twin::section(twin)) }
    }
}

/// In one line, for a list.
pub(super) fn in_short(reason: &str, left: Option<&Left>) -> String {
    let account = left.and_then(|left| left.account.as_ref());
    let told = account.and_then(|account| {
        let (pair, ..) = wrong(account)?;
        let cause = account.cause.map(|cause| cause.to_string());
        let cause = cause.unwrap_or_default();
        Some(format!("{} to {}: {cause}", pair.from, pair.to))
    });
    short(&told.unwrap_or_else(|| reason.to_owned()), SHORT)
}

/// A pair that is wrong, how many are, and of how many: that of the lost packet whose way is drawn, or the first.
fn wrong(account: &Account) -> Option<(&Pair, usize, usize)> {
    let pairs = account.pairs.as_ref()?;
    let wrong = pairs.all.iter().filter(|pair| pair.wrong);
    let of_lost = |pair: &&Pair| {
        let lost = pairs.lost.as_ref();
        lost.is_some_and(|lost| (&lost.from, &lost.to) == (&pair.from, &pair.to))
    };
    let told = wrong.clone().find(of_lost);
    let told = told.or_else(|| wrong.clone().next())?;
    Some((told, wrong.count(), pairs.all.len()))
}

/// Who, whom, which class, since which step, how many of how many.
fn sentence(account: &Account) -> Markup {
    let cause = account.cause.map(|cause| cause.to_string());
    let class = cause.unwrap_or_else(|| "it could not be carried out".to_owned());
    html! {
        p.sentence {
            @match wrong(account) {
                Some((pair, count, all)) => {
                    b.who { (line(&pair.from.to_string())) } " asked "
                    b.whom { (line(&pair.to.to_string())) } ": "
                    b.class { (class) } (rest(&pair.seen, &class)) " instead of "
                    (line(&pair.expected)) (since(account)) "; "
                    @match all {
                        1 => { "nobody else was asked" },
                        _ => { (count) " of " (all) " pairs wrong" },
                    }
                    "."
                },
                None => {
                    b.class { (class) } (since(account)) ": " span.seen { (line(&account.seen)) }
                },
            }
        }
    }
}

/// What was seen beside its class.
fn rest(seen: &str, class: &str) -> String {
    let seen = line(seen);
    match seen.strip_prefix(class) {
        Some(rest) => rest.to_owned(),
        None => format!(" ({seen})"),
    }
}

/// Since which step.
fn since(account: &Account) -> Markup {
    html! {
        @if let Some(step) = account.steps.last() {
            ", since the step “" (line(&step.text)) "” at " (millis(step.at_ms))
        }
    }
}

/// What was expected, in the scenario's own words, and where to look.
fn words(account: &Account) -> Markup {
    let whole = block(&account.seen);
    html! {
        p.about { (line(&account.about)) }
        dl {
            @if !account.expected.is_empty() {
                dt { "Expected" }
                dd { (line(&account.expected)) }
            }
            @if !account.look.is_empty() {
                dt { "Where to look" }
                dd { (line(&account.look)) }
            }
        }
        @if whole.lines().count() > 1 {
            details {
                summary { "All that was seen" }
                pre tabindex="0" { (whole) }
            }
        }
    }
}

/// What stood out on the wire, on the host and on the nodes.
pub(super) fn stood_out(
    wire: &[String],
    processors: Option<Processors>,
    left: Option<&Left>,
) -> Markup {
    let nodes = left.and_then(|left| left.nodes.as_deref());
    html! {
        @if !wire.is_empty() {
            h3 { "What stood out on the wire" }
            pre tabindex="0" { (block(&wire.join("\n"))) }
        }
        @if let Some(short) = processors.filter(|it| it.are_short()) {
            h3 { "The host was busy" }
            p { "While it ran, " (line(&short.to_string())) "." }
        }
        @if let Some(nodes) = nodes {
            h3 { "What stands out on the nodes" }
            pre tabindex="0" { (block(nodes)) }
        }
    }
}

fn missed(record: &ScenarioRecord) -> Markup {
    html! {
        @let missed: Vec<_> = record.sabotages.iter().filter(|it| !it.caught).collect();
        @if !missed.is_empty() {
            h3 { "Sabotages that were not caught" }
            dl {
                @for sabotage in missed.iter().take(10) {
                    dt { (line(&sabotage.name)) }
                    dd { (line(&sabotage.reason)) }
                }
            }
        }
    }
}

/// How to see it again, and what there is beside the page.
fn again(record: &ScenarioRecord, left: Option<&Left>) -> Markup {
    html! {
        h3 { "Again" }
        @if let Some(again) = &record.again { pre tabindex="0" { code { (block(again)) } } }
        @if let Some(left) = left {
            p {
                @if left.first_page {
                    a href=(link(&left.folder.join(Left::FIRST_PAGE))) { "The first page" }
                    " says what else there is. "
                }
                "Its folder: " a href=(link(&left.folder)) { (line(&left.folder.to_string_lossy())) } "."
            }
        }
    }
}
