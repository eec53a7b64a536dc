//! Writing to the terminal, or to whoever reads instead.
//!
//! `print!` panics when the reader has gone (`cargo xtask scenarios | head`); a run that takes half
//! an hour must not end because nobody reads its progress any more.

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

/// Writes to standard output, as long as somebody reads it.
pub(crate) fn to_stdout(text: Arguments<'_>) {
    write(&mut stdout().lock(), text);
}

/// Writes to standard error, as long as somebody reads it.
pub(crate) fn to_stderr(text: Arguments<'_>) {
    write(&mut stderr().lock(), text);
}

fn write(to: &mut impl Write, text: Arguments<'_>) {
    // There is nobody left to tell that nobody listens.
    let _ = to.write_fmt(text).and_then(|()| to.flush());
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
    fn a_reader_that_has_gone_ends_nothing() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        write(&mut writer, format_args!("nobody reads this"));
    }
}
