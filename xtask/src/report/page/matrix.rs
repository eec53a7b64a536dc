//! Who was to reach whom, and what was seen: the wrong ones alone are in colour.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use podwire_cluster::addresses::node_name;
use podwire_scenario::{End, Pair, Pairs};

use super::said::{end_of, line, short};

/// Rows, and columns.
const MOST: usize = 40;
/// Characters of a name's end, and of what was seen or expected.
const NAME: usize = 10;
const SEEN: usize = 60;
/// What needs no word.
const USUAL: &str = "answered";

pub(super) fn table(pairs: &Pairs) -> Markup {
    let senders = distinct(pairs, |pair| &pair.from);
    let targets = distinct(pairs, |pair| &pair.to);
    let mut asked: BTreeMap<(&End, &End), &Pair> = BTreeMap::new();
    for pair in &pairs.all {
        let known = asked.entry((&pair.from, &pair.to)).or_insert(pair);
        // Of several the one that matters.
        if pair.wrong && !known.wrong {
            *known = pair;
        }
    }
    let (rows, columns) = (senders.iter().take(MOST), targets.iter().take(MOST));
    let named: BTreeSet<&End> = rows.clone().chain(columns.clone()).copied().collect();
    html! {
        h3 { "Pairs: what was expected and what was seen" }
        div.wide tabindex="0" role="region" aria-label="Pairs" {
            table.pairs {
                thead {
                    tr {
                        th scope="col" { "asked by" }
                        @for target in columns.clone() { th scope="col" { (head(target)) } }
                    }
                }
                tbody {
                    @for sender in rows {
                        tr {
                            th scope="row" { (head(sender)) }
                            @for target in columns.clone() { (cell(asked.get(&(*sender, *target)))) }
                        }
                    }
                }
            }
        }
        p.legend {
            "ok: " (USUAL) ", as it should be; another word: as it should end; in colour: what was seen, and what was not."
            @if senders.len() > MOST { " " (senders.len() - MOST) " more asked." }
            @if targets.len() > MOST { " " (targets.len() - MOST) " more were asked." }
        }
        // A title is for those who have a mouse.
        details {
            summary { "Their names in full" }
            ul {
                @for end in named { li { (line(&end.to_string())) } }
            }
        }
    }
}

/// Those with something wrong first, where there is no room for all.
fn distinct<'a>(pairs: &'a Pairs, end: impl Fn(&'a Pair) -> &'a End) -> Vec<&'a End> {
    let mut found: Vec<&End> = Vec::new();
    let mut known: BTreeMap<&End, bool> = BTreeMap::new();
    for pair in &pairs.all {
        let end = end(pair);
        let wrong = known.entry(end).or_insert_with(|| {
            found.push(end);
            false
        });
        *wrong |= pair.wrong;
    }
    if found.len() > MOST {
        found.sort_by_key(|end| !known.get(end).copied().unwrap_or_default());
    }
    found
}

fn head(end: &End) -> Markup {
    let node = end.node.map(node_name).filter(|node| *node != end.name);
    html! {
        span title=(line(&end.to_string())) {
            @if let Some(node) = node { span.node { (node) } " " }
            (end_of(&end.name, NAME))
        }
    }
}

fn cell(pair: Option<&&Pair>) -> Markup {
    html! {
        @match pair {
            None => { td {} },
            Some(pair) if pair.wrong => {
                td.wrong { (short(&pair.seen, SEEN)) ", not " (short(&pair.expected, SEEN)) }
            },
            Some(pair) if pair.expected == USUAL => { td { "ok" } },
            Some(pair) => { td { (short(&pair.expected, SEEN)) } },
        }
    }
}
