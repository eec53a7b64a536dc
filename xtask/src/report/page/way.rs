//! The way of one lost packet, hop by hop, and the frames of its flow.

use maud::{Markup, html};
use podwire_cluster::addresses::node_name;
use podwire_scenario::{FRAMES, Hop, Met, Trace};

use super::said::{block, line, link, micros, short};
use crate::report::left::Left;

/// Hops that are drawn.
const HOPS: usize = 24;
/// Characters of what a frame says.
const WHAT: usize = 160;

pub(super) fn section(lost: &Trace, met: Option<&Met>) -> Markup {
    html! {
        h3 { "The way of one lost packet" }
        ol.way {
            li { (line(&lost.from.to_string())) " sent it" }
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
            @if !met.rules.is_empty() {
                details {
                    summary { "Rules of " (node_name(met.node)) " that drop or refuse something" }
                    pre tabindex="0" {
                        (block(&met.rules.join("\n")))
                        @if met.left_out > 0 { "\nand " (met.left_out) " more" }
                    }
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
                ", for Wireshark."
            }
        }
    }
}
