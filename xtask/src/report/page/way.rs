//! The way of one lost packet, hop by hop, and the frames of its flow.

use maud::{Markup, html};
use podwire_cluster::addresses::node_name;
use podwire_scenario::{FRAMES, Hop, Met, Trace, Twin};

use super::said::{block, line, link, micros, short};
use crate::report::left::Left;

/// Hops that are drawn.
const HOPS: usize = 24;
/// Characters of what a frame says.
const WHAT: usize = 160;

pub(super) fn section(lost: &Trace, met: Option<&Met>, twin: Option<&Twin>) -> Markup {
    html! {
        h3 { "The way of one lost packet" }
        ol.way {
            li { (line(&lost.from.to_string())) " sent it to " (line(&lost.to.to_string())) }
            @for hop in lost.hops.iter().take(HOPS) { (step(hop)) }
            @if lost.hops.last().is_none_or(|hop| hop.at_us.is_some()) {
                li.died { "here it ended" }
            }
        }
        @if let Some(met) = met {
            p {
                "The route of " (node_name(met.node)) " to " (met.heading.to_string()) ": "
                code { (line(&met.route)) }
            }
            (rules(met, twin))
        }
    }
}

/// The rules that it may have met: those first that a healthy clone lacks.
fn rules(met: &Met, twin: Option<&Twin>) -> Markup {
    let node = node_name(met.node);
    let lacked = |rule: &&String| twin.is_some_and(|twin| twin.lacks(&node, rule));
    let (alone, others): (Vec<&String>, Vec<&String>) = met.rules.iter().partition(lacked);
    let listed = |rules: &[&String]| {
        let rules: Vec<&str> = rules.iter().map(|rule| rule.as_str()).collect();
        block(&rules.join("\n"))
    };
    html! {
        @if !alone.is_empty() {
            p { "Rules of " (node) " that drop or refuse something, and that the healthy clone lacks:" }
            pre tabindex="0" { span.died { (listed(&alone)) } }
        }
        @if !others.is_empty() || met.left_out > 0 {
            details {
                summary {
                    @if alone.is_empty() { "Rules of " } @else { "Other rules of " }
                    (node) " that drop or refuse something"
                }
                pre tabindex="0" {
                    (listed(&others))
                    @if met.left_out > 0 { "\nand " (met.left_out) " more" }
                }
            }
        }
    }
}

fn step(hop: &Hop) -> Markup {
    let what = if hop.answer {
        "the answer"
    } else {
        "the request"
    };
    html! {
        @match hop.at_us {
            Some(at) => {
                li { b { (line(&hop.from)) " → " (line(&hop.to)) } ": " (what) " at " (micros(at)) }
            },
            None => {
                li.died {
                    b { (line(&hop.from)) " → " (line(&hop.to)) } ": " (what) " never went there"
                }
            },
        }
    }
}

/// The flow's frames, and where all of the wire is.
pub(super) fn frames(lost: &Trace, left: Option<&Left>) -> Markup {
    let capture = left.filter(|left| left.capture);
    html! {
        h3 { "Its frames" }
        @if lost.frames.is_empty() { p { "None of it was on the wire." } }
        @else {
            div.wide tabindex="0" role="region" aria-label="Frames" {
                table.frames {
                    thead {
                        tr {
                            th scope="col" { "time" }
                            th scope="col" { "from" }
                            th scope="col" { "to" }
                            th scope="col" { "octets" }
                            th scope="col" { "what" }
                        }
                    }
                    tbody {
                        @for (number, frame) in lost.frames.iter().take(FRAMES).enumerate() {
                            @if number == FRAMES / 2 && lost.left_out > 0 {
                                tr { td colspan="5" { (lost.left_out) " frames are left out" } }
                            }
                            tr {
                                td { (micros(frame.at_us)) }
                                td { (line(&frame.from)) }
                                td {
                                    (line(&frame.to.join(", ")))
                                    @if !frame.lost.is_empty() {
                                        " " span.died { "lost at " (line(&frame.lost.join(", "))) }
                                    }
                                }
                                td { (frame.length) }
                                td {
                                    (short(&frame.what, WHAT))
                                    @if let Some(tunnel) = &frame.tunnel { " in " (line(tunnel)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if let Some(left) = capture {
            p {
                "Every frame of the wire: "
                a href=(link(&left.folder.join(Left::CAPTURE))) { "segment.pcapng" }
                ", for Wireshark, with the host's wall clock. "
                @if !lost.filter.is_empty() { "These: " code { (line(&lost.filter)) } }
            }
        }
    }
}
