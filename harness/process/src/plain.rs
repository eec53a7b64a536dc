//! Text that others wrote, as it may be shown: what a guest, a Pod or a server says reaches terminals,
//! CI logs and reports, and commands neither.
//!
//! A terminal obeys control characters (ECMA-48: it writes to the clipboard, or shows another text than
//! it got), and so does whoever renders text of both directions. CI services obey lines: `::error::` of
//! GitHub, `##[error]` and `##vso[...]` of Azure, `##teamcity[...]`. All of these are shown as JSON writes
//! them, `\u001b`, so that JSON stays what it was. Colours alone go: they mean nothing.

use std::fmt::Write as _;

/// Longest parameters of a colour.
const COLOUR: usize = 24;

/// A text of many lines, without commands.
///
/// ```
/// use podwire_process::plain;
///
/// assert_eq!(plain::text("\u{1b}[31mred\u{1b}[0m\r\n::error::\u{1b}[2J"), "red\n\\u003a:error::\\u001b[2J");
/// ```
pub fn text(said: &str) -> String {
    let mut plain = Plain::default();
    let shown = plain.text(said);
    shown + &plain.end()
}

/// The same in one line: line breaks are shown as well.
///
/// ```
/// assert_eq!(podwire_process::plain::line("a\nb"), "a\\u000ab");
/// ```
pub fn line(said: &str) -> String {
    text(said).replace('\n', "\\u000a")
}

/// A text that comes in pieces, as bytes.
#[derive(Debug, Default)]
pub struct Plain {
    /// The beginning of a character (UTF-8) whose rest has not come.
    cut: Vec<u8>,
    /// What may be the beginning of a colour, or of a line's end.
    held: String,
    /// Whether something but white space stands in this line.
    inside: bool,
    /// How much there is of what `##` and a word begin.
    command: Command,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Command {
    #[default]
    None,
    Hash,
    Word,
}

impl Plain {
    /// What can be shown once these have come; a character, or a sequence, that they cut in two is shown
    /// with the next ones.
    pub fn bytes(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let mut shown = String::new();
        let all = std::mem::take(&mut self.cut);
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            shown += &self.text(chunk.valid());
            let invalid = chunk.invalid();
            // Four bytes are the longest; more of the last one may come.
            if chunks.peek().is_none() && invalid.len() < 4 && is_beginning(invalid) {
                self.cut = invalid.to_vec();
            } else if !invalid.is_empty() {
                shown += &self.text("\u{fffd}");
            }
        }
        shown
    }

    fn text(&mut self, said: &str) -> String {
        let mut shown = String::with_capacity(said.len());
        for character in said.chars() {
            self.take(character, &mut shown);
        }
        shown
    }

    /// What was held back in the hope of more.
    fn end(&mut self) -> String {
        let mut shown = String::new();
        self.release(&mut shown);
        shown
    }

    fn take(&mut self, character: char, shown: &mut String) {
        match (self.held.as_str(), character) {
            ("", '\r' | '\u{1b}') | ("\u{1b}", '[') => return self.held.push(character),
            // Serial lines write more than one.
            ("\r", '\r') => return,
            ("\r", '\n') => self.held.clear(),
            (held, 'm') if held.starts_with("\u{1b}[") => return self.held.clear(),
            (held, '0'..='9' | ';' | ':') if held.starts_with("\u{1b}[") && held.len() < COLOUR => {
                return self.held.push(character);
            }
            ("", _) => {}
            _ => {
                self.release(shown);
                return self.take(character, shown);
            }
        }
        self.show(character, shown);
    }

    fn release(&mut self, shown: &mut String) {
        for character in std::mem::take(&mut self.held).chars() {
            self.show(character, shown);
        }
    }

    fn show(&mut self, character: char, shown: &mut String) {
        let begins = character == ':' && !self.inside;
        let opens = character == '[' && self.command == Command::Word;
        self.command = match (self.command, character) {
            (Command::None, '#') => Command::Hash,
            (Command::Hash | Command::Word, '#') => Command::Word,
            (Command::Word, character) if character.is_alphanumeric() => Command::Word,
            _ => Command::None,
        };
        self.inside = character != '\n' && (self.inside || !character.is_whitespace());
        if begins || opens || is_obeyed(character) {
            // Nothing that is obeyed lies beyond what four digits say.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
}

/// Whether terminals, or whoever renders text, do something else with it than to show it.
fn is_obeyed(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Directions, and what ends lines or is not seen (Unicode, "Bidirectional Algorithm").
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' => true,
        other => other.is_control(),
    }
}

/// Whether bytes may be the beginning of one character.
fn is_beginning(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else {
        return false;
    };
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    bytes.len() < length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_instead() {
        let clipboard = "\u{1b}]52;c;Y3VybCBldmls\u{7}";
        assert_eq!(text(clipboard), r"\u001b]52;c;Y3VybCBldmls\u0007");
        assert_eq!(
            text("\u{1b}[2J\u{1b}[1;1Hall passed"),
            r"\u001b[2J\u001b[1;1Hall passed"
        );
        // One byte sequence introducers of ECMA-48, and a line that is written over.
        assert_eq!(text("\u{9b}2J\rx"), r"\u009b2J\u000dx");
        assert_eq!(text("\u{202e}dessap\u{2066}"), r"\u202edessap\u2066");
        assert_eq!(text("a\tb\n  ä €\n"), "a\tb\n  ä €\n");
        assert_eq!(text("\u{1b}"), r"\u001b");
    }

    #[test]
    fn colours_go_and_lines_end_as_they_do_here() {
        assert_eq!(
            text("\u{1b}[0;1;31mFAILED\u{1b}[m x\r\ny\r\r\n"),
            "FAILED x\ny\n"
        );
        // No colour is as long.
        let long = format!("\u{1b}[{}m", "1;".repeat(40));
        assert!(text(&long).starts_with(r"\u001b[1;1;"), "{long}");
    }

    #[test]
    fn what_a_ci_service_obeys_is_shown_instead() {
        assert_eq!(
            text("::error::x\n  ::stop-commands::y"),
            "\\u003a:error::x\n  \\u003a:stop-commands::y"
        );
        assert_eq!(text("a::b ##[error]c"), r"a::b ##\u005berror]c");
        assert_eq!(
            text("##vso[task] ##teamcity[x] ###[y"),
            r"##vso\u005btask] ##teamcity\u005bx] ###\u005by"
        );
        assert_eq!(
            text("## A heading [with a link]"),
            "## A heading [with a link]"
        );
        // A colour in between hides nothing.
        assert_eq!(
            text("\u{1b}[0m::\u{1b}[0mx #\u{1b}[1m#[y"),
            r"\u003a:x ##\u005by"
        );
    }

    #[test]
    fn a_text_in_one_line_has_one() {
        assert_eq!(line("a\r\n::b\n"), r"a\u000a\u003a:b\u000a");
    }

    #[test]
    fn pieces_say_what_the_whole_says() {
        let whole = "ä\u{1b}[31mred\u{1b}]52;c;x\u{7}\r\n::a ##vso[b]\u{9b}€ 𝄞\r\n";
        let bytes = [whole.as_bytes(), b"\xff\xe2\x82x"].concat();
        let expected = text(&String::from_utf8_lossy(&bytes));
        for size in 1..bytes.len() {
            let mut plain = Plain::default();
            let shown: String = bytes.chunks(size).map(|piece| plain.bytes(piece)).collect();
            assert_eq!(shown, expected, "in pieces of {size}");
        }
    }
}
