//! Text as the page has it. What guests and servers have said is without commands, and no longer than there
//! is room for; the templates escape it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use podwire_process::plain;

/// Characters of a line.
const LINE: usize = 300;
/// Characters and lines of a block.
const BLOCK: usize = 8000;
const LINES: usize = 80;

/// What a path may have in a link (RFC 3986, 3.3). Not a colon: what stands before it would be a scheme.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The first line of it.
pub(super) fn line(said: &str) -> String {
    let first = said.trim_start().lines().next().unwrap_or_default();
    plain::line(&cut(first, LINE))
}

/// The beginning of a line, for where there is little room.
pub(super) fn short(said: &str, most: usize) -> String {
    cut(&line(said), most)
}

/// The end of a name, by which the Pods of a Deployment are told apart.
pub(super) fn end_of(name: &str, most: usize) -> String {
    let name = line(name);
    match name.chars().count().checked_sub(most) {
        None | Some(0) => name,
        Some(beyond) => {
            let end = name.chars().skip(beyond + 1);
            std::iter::once('…').chain(end).collect()
        }
    }
}

/// The beginning of it, in lines.
pub(super) fn block(said: &str) -> String {
    let text = cut(said, BLOCK);
    let all = text.lines().count();
    let mut lines: Vec<&str> = text.lines().take(LINES).collect();
    let more = format!("… ({} more lines)", all.saturating_sub(LINES));
    if all > LINES {
        lines.push(&more);
    }
    plain::text(&lines.join("\n"))
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A link to a file, seen from the page. Two slashes at its beginning would name another host.
pub(super) fn link(path: &Path) -> String {
    let path: PathBuf = path.components().collect();
    percent_encode(path.as_os_str().as_bytes(), IN_A_PATH).to_string()
}

/// `12.345 s`.
#[expect(clippy::cast_precision_loss, reason = "milliseconds are shown")]
pub(super) fn micros(time: u64) -> String {
    format!("{:.3} s", time as f64 / 1e6)
}

/// `12.3 s`.
#[expect(clippy::cast_precision_loss, reason = "tenths of a second are shown")]
pub(super) fn millis(time: u64) -> String {
    format!("{:.1} s", time as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_is_cut_and_commands_nobody() {
        assert_eq!(line("\n a\u{202e}b\nc"), "a\\u202eb");
        assert_eq!(short("abcdef", 3), "abc…");
        assert_eq!(end_of("blue-5d9c-x2x9z", 6), "…x2x9z");
        assert_eq!(end_of("blue", 4), "blue");
        let lines = block(&"x\n".repeat(100));
        assert!(lines.ends_with("x\n… (20 more lines)"), "{lines}");
        assert_eq!(block("::error::x"), "\\u003a:error::x");
        assert_eq!(line(&"é".repeat(400)).chars().count(), LINE + 1);
    }

    #[test]
    fn a_link_leads_to_a_file_and_nowhere_else() {
        let links = [
            "by-hand-nftables-flannel+routed/scenarios/a/attempt-1",
            "/one part/a#b?c%d",
            "javascript:alert(1)",
            "//elsewhere.invalid/a",
        ];
        let links = links.map(|it| link(Path::new(it))).join("\n");
        insta::assert_snapshot!(links, @"
        by-hand-nftables-flannel%2Brouted/scenarios/a/attempt-1
        /one%20part/a%23b%3Fc%25d
        javascript%3Aalert%281%29
        /elsewhere.invalid/a
        ");
    }
}
