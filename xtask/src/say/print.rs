//! Writing to the terminal, or to whoever reads instead.
//!
//! `print!` panics when the reader has gone (`cargo xtask scenarios | head`); a run that takes half
//! an hour must not end because nobody reads its progress any more.

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

use podwire_process::plain;

/// Writes to standard output, as long as somebody reads it.
pub(crate) fn to_stdout(text: Arguments<'_>) {
    write(&mut stdout().lock(), text);
}

/// Writes to standard error, as long as somebody reads it.
pub(crate) fn to_stderr(text: Arguments<'_>) {
    write(&mut stderr().lock(), text);
}

/// What is said may quote what a guest, a server or a test has said: none of it commands whoever reads.
pub(crate) fn write(to: &mut impl Write, text: Arguments<'_>) {
    let text = plain::text(&text.to_string());
    // There is nobody left to tell that nobody listens.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// `print!` that outlives its reader.
macro_rules! out {
    ($($text:tt)*) => { $crate::say::print::to_stdout(format_args!($($text)*)) };
}

/// `println!` that outlives its reader.
macro_rules! outln {
    ($($text:tt)*) => { $crate::say::print::to_stdout(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprintln!` that outlives its reader.
macro_rules! errln {
    ($($text:tt)*) => { $crate::say::print::to_stderr(format_args!("{}\n", format_args!($($text)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_commands_neither_terminals_nor_ci_services() {
        let mut shown = Vec::new();
        let said = "\u{1b}]52;c;Y3Vy\u{7}\u{1b}[2Jall passed\n  ::stop-commands::x";
        write(&mut shown, format_args!("failed: {said}\n"));
        let expected =
            "failed: \\u001b]52;c;Y3Vy\\u0007\\u001b[2Jall passed\n  \\u003a:stop-commands::x\n";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
        // What is JSON stays the same.
        let json = serde_json::to_string_pretty(&["\u{9b}2J ##[error]"]).unwrap();
        let mut shown = Vec::new();
        write(&mut shown, format_args!("{json}"));
        assert!(!String::from_utf8_lossy(&shown).contains('\u{9b}'));
        let read: Vec<String> = serde_json::from_slice(&shown).unwrap();
        assert_eq!(read, ["\u{9b}2J ##[error]"]);
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        write(&mut writer, format_args!("nobody reads this"));
    }
}
