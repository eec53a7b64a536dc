//! `imagePullPolicy`, where a manifest would have nodes ask a registry.

/// A line, from 1, that is to be written in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// It says `Always`.
    Policy(u64),
    /// It names an image, and no line beside it says anything.
    Image(u64),
}

/// A text of which some lines were written anew, and where each of its lines was before.
pub(super) struct Rewritten {
    pub(super) text: String,
    lines: Vec<u64>,
}

impl Rewritten {
    /// The text with `IfNotPresent` in all of these lines where a line can be written anew without reading more
    /// than itself; whoever reads it again finds the others as they were.
    pub(super) fn of(text: &str, rewrites: &[Rewrite]) -> Self {
        let mut rewritten = Self {
            text: String::new(),
            lines: Vec::new(),
        };
        for (line, number) in text.split_inclusive('\n').zip(1..) {
            let written = match line_of(rewrites, number) {
                Some(Rewrite::Policy(_)) => as_present(line),
                Some(Rewrite::Image(_)) => with_policy(line),
                None => line.to_owned(),
            };
            rewritten.lines.extend(written.lines().map(|_| number));
            rewritten.text += &written;
        }
        rewritten
    }

    /// The line of the text before.
    pub(super) fn line_before(&self, line: u64) -> u64 {
        let place = usize::try_from(line).ok().and_then(|it| it.checked_sub(1));
        let before = place.and_then(|place| self.lines.get(place));
        before.copied().unwrap_or(line)
    }
}

fn line_of(rewrites: &[Rewrite], number: u64) -> Option<&Rewrite> {
    let mut all = rewrites.iter();
    all.find(|it| matches!(it, Rewrite::Policy(line) | Rewrite::Image(line) if *line == number))
}

const POLICY: &str = "imagePullPolicy";

/// Every policy of a line.
fn as_present(line: &str) -> String {
    let mut parts = line.split(POLICY);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |written, part| {
        written + POLICY + &part.replacen("Always", "IfNotPresent", 1)
    })
}

/// The line of an image in block style, and another one below it.
fn with_policy(line: &str) -> String {
    let Some((before, _)) = line.split_once("image:") else {
        return line.to_owned();
    };
    if !before.chars().all(|c| c == ' ' || c == '-') {
        return line.to_owned();
    }
    let end = if line.ends_with('\n') { "" } else { "\n" };
    let indent = " ".repeat(before.len());
    format!("{line}{end}{indent}{POLICY}: IfNotPresent\n")
}
