//! Numbers, names and tables for people.

use std::path::Path;
use std::time::Duration;

/// `0:07`, `12:34`, `1:02:03`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A duration that is only known roughly: `40 s`, `7 min`, `1 h 5 min`.
pub(crate) fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=90 => format!("{} s", seconds.max(1)),
        91..=3599 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How long ago something was: `40 s ago`, `7 min ago`, `1 h 5 min ago`, `12 days ago`.
pub(crate) fn ago(time: Duration) -> String {
    let days = time.as_secs() / (24 * 3600);
    if days > 1 {
        format!("{days} days ago")
    } else {
        format!("{} ago", about(time))
    }
}

/// `850 MiB`, `3.2 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mib = bytes as f64 / MIB;
    if mib < 1.0 && bytes > 0 {
        "<1 MiB".into()
    } else if mib < 1000.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// Three digits that say something, or a whole number.
pub(crate) fn digits(value: f64) -> String {
    match value {
        whole if whole.fract() == 0.0 => format!("{whole:.0}"),
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small if small >= 0.1 => format!("{small:.2}"),
        tiny => format!("{tiny:.4}"),
    }
}

/// Left-aligned columns, two blanks apart, no blanks at line ends.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Those of these names that are most like a word, the nearest first; none where none is.
pub(crate) fn nearest<'a>(names: impl Iterator<Item = &'a str>, word: &str) -> Vec<String> {
    let word = word.to_ascii_lowercase();
    let alike = names.map(|name| {
        (
            strsim::jaro_winkler(&name.to_ascii_lowercase(), &word),
            name,
        )
    });
    let mut alike: Vec<(f64, &str)> = alike.collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    alike.dedup_by_key(|(_, name)| *name);
    let near = alike.into_iter().filter(|(likeness, _)| *likeness > 0.6);
    near.take(3).map(|(_, name)| name.to_owned()).collect()
}

/// The last part of a path.
pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_have_three_digits_that_say_something() {
        let told = [0.0, 14.0, 1234.5, 99.96, 12.34, 1.234, 0.25, 0.012_34].map(digits);
        let wanted = ["0", "14", "1234", "100.0", "12.3", "1.23", "0.25", "0.0123"];
        assert_eq!(told, wanted);
    }

    #[test]
    fn times_and_sizes_read_well() {
        let seconds = Duration::from_secs;
        assert_eq!(
            [7, 754, 3723].map(|s| clock(seconds(s))),
            ["0:07", "12:34", "1:02:03"]
        );
        assert_eq!(
            [0, 40, 420, 3900].map(|s| about(seconds(s))),
            ["1 s", "40 s", "7 min", "1 h 5 min"]
        );
        assert_eq!(
            [40, 47 * 3600, 48 * 3600].map(|s| ago(seconds(s))),
            ["40 s ago", "47 h 0 min ago", "2 days ago"]
        );
        assert_eq!(
            [0, 5, 850 << 20, 3277 << 20].map(size),
            ["0 MiB", "<1 MiB", "850 MiB", "3.2 GiB"]
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        insta::assert_snapshot!(table(&[row(["a", "long cell", "x"]), row(["bbb", "c", ""])]), @"
        a    long cell  x
        bbb  c
        ");
    }
}
