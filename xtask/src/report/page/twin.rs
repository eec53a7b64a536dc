//! In what the nodes were unlike those of a healthy clone.

use maud::{Markup, html};
use podwire_scenario::{Twin, Unlike};

use super::said::{line, short};

/// Characters of a line.
const LINE: usize = 240;

pub(super) fn section(twin: &Twin) -> Markup {
    html! {
        h3 { "Beside a healthy clone" }
        @match &twin.failed {
            Some(failed) => {
                p {
                    "There is none to compare with: " (line(&twin.whose)) " failed as well: " (line(failed))
                }
            },
            None => {
                p {
                    "It passed the step “" (line(&twin.step)) "”: " (line(&twin.whose)) ". "
                    (twin.told())
                }
                @if !twin.unheard.is_empty() {
                    p { "Not compared, for want of an answer: " (line(&twin.unheard.join(", "))) "." }
                }
                @for unlike in &twin.unlike { (of_node(unlike)) }
            },
        }
    }
}

fn of_node(unlike: &Unlike) -> Markup {
    html! {
        h4 { (line(&unlike.node)) ": " (line(&unlike.about)) }
        pre tabindex="0" {
            @for it in &unlike.lines {
                @let text = short(&it.to_string(), LINE);
                @if it.healthy { (text) } @else { span.died { (text) } }
                "\n"
            }
            @if unlike.left_out > 0 { "… (" (unlike.left_out) " more lines)" }
        }
    }
}
