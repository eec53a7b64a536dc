//! When what was done, who answered steady traffic meanwhile, and what kernels said.

use std::collections::BTreeMap;
use std::ops::Range;

use maud::{Markup, html};
use podwire_probe::Outcome;
use podwire_scenario::{Account, RuleChange};

use super::said::{block, line, millis};
use crate::report::left::{Left, Sender};

/// Steps that are told: the last ones.
const STEPS: usize = 100;
/// Changes of rules that are told of the time of one step: the first ones.
pub(super) const CHANGES: usize = 12;
/// Senders whose traffic is drawn, and marks of each.
const SENDERS: usize = 6;
const MARKS: usize = 60;
/// Columns of a drawing, their width, and its height, in pixels.
const COLUMNS: usize = 120;
const COLUMN: usize = 6;
const HEIGHT: usize = 48;

pub(super) fn section(left: &Left) -> Markup {
    let account = left.account.as_ref();
    let steps = account.map_or(&[][..], |account| &account.steps);
    let more = steps.len().saturating_sub(STEPS);
    let first = steps.get(more).map_or(u64::MAX, |step| step.at_ms);
    let earlier = |account: &Account| account.rules.iter().any(|change| change.at_ms < first);
    let earlier = account.filter(|it| earlier(it));
    html! {
        @if !steps.is_empty() || earlier.is_some() || !left.traffic.is_empty() || !left.consoles.is_empty() {
            h3 { "When" }
            p.legend { "Times are seconds since the clone's network was there." }
        }
        @if let Some(account) = account {
            @if more > 0 { p { "The first " (more) " steps are on the first page; here from step " (more + 1) " on." } }
            @if let Some(account) = earlier {
                p { "Rules that changed before any step told here:" }
                (changes(&account.rules, 0..first))
            }
            @if !steps.is_empty() {
                ol.steps start=(more + 1) {
                    @for (number, step) in steps.iter().enumerate().skip(more) {
                        @let until = steps.get(number + 1).map_or(u64::MAX, |next| next.at_ms);
                        li {
                            span.time { (millis(step.at_ms)) } " " (line(&step.text))
                            (changes(&account.rules, step.at_ms..until))
                        }
                    }
                    li.died { span.time { (millis(account.failed_ms)) } " failed" }
                }
            }
        }
        @for sender in left.traffic.iter().take(SENDERS) { (traffic(sender)) }
        @if !left.consoles.is_empty() {
            details {
                summary { "What the kernels said last, by their own clocks" }
                @for (node, words) in &left.consoles {
                    h4 { (line(node)) }
                    pre tabindex="0" { (block(words)) }
                }
            }
        }
    }
}

/// What changed of nodes' rules in that time, if anything did.
fn changes(all: &[RuleChange], within: Range<u64>) -> Markup {
    let here: Vec<&RuleChange> = all.iter().filter(|it| within.contains(&it.at_ms)).collect();
    let more = here.len().saturating_sub(CHANGES);
    html! {
        @if !here.is_empty() {
            ul.rules {
                @for change in here.iter().take(CHANGES) {
                    li {
                        span.time { (millis(change.at_ms)) } " " (line(&change.to_string())) ": "
                        code { (line(&change.first)) }
                    }
                }
                @if more > 0 { li { (more) " more changes of rules; the node's journal has them" } }
            }
        }
    }
}

/// What was sent within the time of one column, and how it ended.
#[derive(Default, Clone)]
struct Column {
    answered: usize,
    others: usize,
}

fn traffic(sender: &Sender) -> Markup {
    let sent = &sender.sent;
    let span = (sent.elapsed_ms / COLUMNS as u64 + 1).max(100);
    let column = |at_ms: u64| usize::try_from(at_ms / span).unwrap_or(0).min(COLUMNS - 1);
    let mut columns = vec![Column::default(); COLUMNS];
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for request in &sent.requests {
        let outcome = request.end.as_ref().map(|end| end.outcome);
        let of = &mut columns[column(request.at_ms)];
        match outcome {
            Some(Outcome::Answered) => of.answered += 1,
            _ => of.others += 1,
        }
        let end = outcome.map_or("without an end".to_owned(), |it| it.to_string());
        *ends.entry(end).or_default() += 1;
    }
    let most = columns.iter().map(|it| it.answered + it.others).max();
    let most = most.unwrap_or_default().max(1);
    let height = |count: usize| (count * HEIGHT).div_ceil(most);
    let ends = ends.iter().map(|(end, count)| format!("{count} {end}"));
    let told = format!(
        "{} requests from {} to {}: {}",
        sent.requests.len(),
        line(&sender.from),
        line(&sent.request.target),
        ends.collect::<Vec<_>>().join(", ")
    );
    let width = COLUMNS * COLUMN;
    let began = sender.began_ms;
    let ended = began.saturating_add(span.saturating_mul(COLUMNS as u64));
    html! {
        figure {
            figcaption { (told) }
            svg viewBox={ "0 0 " (width) " " (HEIGHT + 30) } role="img" aria-label=(told) {
                @for (number, it) in columns.iter().enumerate() {
                    @let (good, bad) = (height(it.answered), height(it.others));
                    @if good > 0 {
                        rect.answered x=(number * COLUMN) y=(HEIGHT.saturating_sub(good))
                            width=(COLUMN - 1) height=(good) {}
                    }
                    @if bad > 0 {
                        rect.wrong x=(number * COLUMN) y=(HEIGHT.saturating_sub(good + bad))
                            width=(COLUMN - 1) height=(bad) {}
                    }
                }
                @for (number, mark) in sender.marks.iter().take(MARKS).enumerate() {
                    @let x = column(mark.at_ms) * COLUMN;
                    line x1=(x) x2=(x) y1="0" y2=(HEIGHT) {
                        title { (line(&mark.text)) }
                    }
                    text x=(x) y=(HEIGHT + 12) { (number + 1) }
                }
                text x="0" y=(HEIGHT + 26) { (millis(began)) }
                text.last x=(width) y=(HEIGHT + 26) { (millis(ended)) }
            }
            ol.marks {
                @for mark in sender.marks.iter().take(MARKS) {
                    li { span.time { (millis(began.saturating_add(mark.at_ms))) } " " (line(&mark.text)) }
                }
            }
        }
    }
}
