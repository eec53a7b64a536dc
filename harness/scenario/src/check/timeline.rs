//! A record of steady traffic drawn as text: who answered when, what failed, and what was done.

use std::collections::BTreeMap;
use std::fmt;

use podwire_probe::{Attempt, Outcome};

use crate::check::record::{Record, seconds};

/// Columns of a whole line.
const WIDTH: usize = 100;
/// Columns that time may take.
const CELLS: usize = 60;
/// Columns of a row's name.
const NAME: usize = 30;
/// From one answer in a cell to as many as any cell holds.
const SHADES: [char; 7] = ['.', ':', '-', '=', '+', '*', '#'];
/// Gaps that are told; the others are counted.
const GAPS: usize = 5;
/// Columns from one time of the axis to the next: whole seconds of the shortest cells.
const TICK: usize = 10;
/// A cell is one of these, or ten, a hundred ... times as long: times that a person reads off.
const NICE: [u64; 3] = [100, 200, 500];

struct Timeline<'a>(&'a Record);

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timeline(self).fmt(f)
    }
}

/// One line of cells.
struct Row {
    name: String,
    cells: Vec<usize>,
    failures: bool,
}

/// Milliseconds of one cell, so that all of them fit.
fn cell_ms(total_ms: u64) -> u64 {
    let mut scale = 1;
    loop {
        for nice in NICE {
            if total_ms / (nice * scale) < CELLS as u64 {
                return nice * scale;
            }
        }
        scale *= 10;
    }
}

fn shade(count: usize, most: usize) -> char {
    match count {
        0 => ' ',
        _ => {
            SHADES[(count * SHADES.len())
                .div_ceil(most.max(1))
                .min(SHADES.len())
                - 1]
        }
    }
}

fn digit(count: usize) -> char {
    match u32::try_from(count)
        .ok()
        .and_then(|count| char::from_digit(count, 10))
    {
        Some('0') => ' ',
        Some(digit) => digit,
        None => '#',
    }
}

/// No longer than so many columns.
fn cut(text: &str, columns: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// No longer than so many columns; what tells the Pods of a Deployment apart is their names' end.
fn end_of(name: &str, columns: usize) -> String {
    let count = name.chars().count();
    if count <= columns {
        return name.to_owned();
    }
    let end = name.chars().skip(count - columns + 1);
    std::iter::once('…').chain(end).collect()
}

impl Timeline<'_> {
    fn rows(&self, cell: u64, cells: usize) -> Vec<Row> {
        let record = self.0;
        // By node; Pods of which none is known come last.
        let mut answered: BTreeMap<(bool, Option<u32>, &str), Vec<usize>> = BTreeMap::new();
        let mut failed: BTreeMap<Option<Outcome>, Vec<usize>> = BTreeMap::new();
        for sent in &record.sent.requests {
            let row = match &sent.end {
                Some(Attempt {
                    outcome: Outcome::Answered,
                    host,
                    ..
                }) => {
                    let host = host.as_deref().unwrap_or_default();
                    let node = record.nodes.get(host).copied();
                    answered.entry((node.is_none(), node, host)).or_default()
                }
                Some(end) => failed.entry(Some(end.outcome)).or_default(),
                None => failed.entry(None).or_default(),
            };
            row.resize(cells, 0);
            let index = usize::try_from(sent.at_ms / cell).unwrap_or(usize::MAX);
            row[index.min(cells.saturating_sub(1))] += 1;
        }
        let answered = answered.into_iter().map(|((_, node, host), cells)| Row {
            name: match (host, node) {
                ("", _) => "(without a name)".to_owned(),
                (host, Some(node)) => {
                    let node = format!(" node{node}");
                    format!("{}{node}", end_of(host, NAME - node.len()))
                }
                (host, None) => end_of(host, NAME),
            },
            cells,
            failures: false,
        });
        let failed = failed.into_iter().map(|(outcome, cells)| Row {
            name: outcome.map_or("without an end".to_owned(), |outcome| outcome.to_string()),
            cells,
            failures: true,
        });
        answered.chain(failed).collect()
    }

    /// The marks' numbers, each exactly above its cell: on further lines where there is no room.
    fn rulers(&self, cell: u64, cells: usize) -> Vec<String> {
        let mut lines: Vec<Vec<char>> = Vec::new();
        for (index, mark) in self.0.marks.iter().enumerate() {
            let number: Vec<char> = (index + 1).to_string().chars().collect();
            let at = usize::try_from(mark.at_ms / cell).unwrap_or(usize::MAX);
            let at = at.min(cells.saturating_sub(1));
            let room = lines.iter().position(|line| line.len() < at);
            let line = room.unwrap_or_else(|| {
                lines.push(Vec::new());
                lines.len() - 1
            });
            lines[line].resize(at, ' ');
            lines[line].extend(number);
        }
        lines
            .into_iter()
            .map(|line| line.into_iter().collect())
            .collect()
    }

    fn axis(cell: u64, cells: usize) -> String {
        let mut line = String::new();
        for column in (0..cells).step_by(TICK) {
            let time = cell * column as u64;
            line += &format!("{:<TICK$}", format!("|{} s", time / 1000));
        }
        line.trim_end().to_owned()
    }
}

impl fmt::Display for Timeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let request = &record.sent.request;
        writeln!(
            f,
            "Steady traffic from {} to {}",
            record.from, request.target
        )?;
        writeln!(
            f,
            "A request every {} ms, each with {} s to be answered, for {} from {} on\n{}",
            request.interval_ms,
            request.limit_ms as f64 / 1000.0,
            seconds(record.sent.elapsed_ms),
            seconds(record.began_ms),
            record.totals()
        )?;
        if record.sent.requests.is_empty() {
            return Ok(());
        }
        let cell = cell_ms(record.sent.elapsed_ms);
        let cells = usize::try_from(record.sent.elapsed_ms / cell).unwrap_or(CELLS) + 1;
        let rows = self.rows(cell, cells);
        let name = rows
            .iter()
            .map(|row| row.name.chars().count())
            .max()
            .unwrap_or(0);
        let answers = rows.iter().filter(|row| !row.failures);
        let most = answers
            .flat_map(|row| row.cells.iter().copied())
            .max()
            .unwrap_or(0);

        writeln!(f)?;
        for ruler in self.rulers(cell, cells) {
            writeln!(f, "{:name$}  {ruler}", "")?;
        }
        for row in &rows {
            let drawn = row.cells.iter().map(|count| {
                if row.failures {
                    digit(*count)
                } else {
                    shade(*count, most)
                }
            });
            writeln!(
                f,
                "{:name$} |{}| {}",
                row.name,
                drawn.collect::<String>(),
                row.cells.iter().sum::<usize>()
            )?;
        }
        writeln!(f, "{:name$}  {}", "", Self::axis(cell, cells))?;
        writeln!(
            f,
            "A column is {}; answers: from . to # ({most}); failures: their number, # above 9.",
            seconds(cell)
        )?;

        if !record.marks.is_empty() {
            writeln!(f)?;
            let within = record.clock.within().as_secs_f64();
            writeln!(f, "What was done (to within {within:.1} s):")?;
        }
        for (index, mark) in record.marks.iter().enumerate() {
            let line = format!(
                "{:>3}  {:>9}  {}",
                index + 1,
                format!("+{}", seconds(mark.at_ms)),
                mark.text
            );
            writeln!(f, "{}", cut(&line, WIDTH))?;
        }
        writeln!(f)?;
        self.gaps(f)?;
        if record.sent.missed > 0 {
            writeln!(
                f,
                "The sender itself was held up {} times beyond its next request, and sent none for it.",
                record.sent.missed
            )?;
        }
        match record.all_accounted() {
            Ok(()) => writeln!(f, "Every request is accounted for."),
            Err(failure) => writeln!(f, "NOT every request is accounted for: {}", failure.seen),
        }
    }
}

impl Timeline<'_> {
    fn gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gaps = self.0.gaps();
        if gaps.is_empty() {
            return writeln!(f, "No request failed.");
        }
        // A stable sort: of two as long, the earlier one comes first.
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.length()));
        let number = gaps.len();
        writeln!(f, "Longest gap: {}", gaps.remove(0))?;
        for gap in gaps.iter().take(GAPS - 1) {
            writeln!(f, "        then {gap}")?;
        }
        if number > GAPS {
            writeln!(f, "         and {} shorter ones", number - GAPS)?;
        }
        // One dead backend among many: short gaps, for a long time.
        if let [first, .., last] = self.0.gaps().as_slice() {
            writeln!(
                f,
                "All of them between +{:.1} s and +{:.1} s.",
                first.from.as_secs_f64(),
                last.to.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::clock::{Clock, ClockReading};
    use crate::check::party::Party;
    use crate::check::record::tests::record;
    use crate::check::record::{A_YEAR, Mark, misrecorded};
    use podwire_probe::{Sent, TrafficEnd};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_drain_is_drawn() {
        let requests = [
            "ab".repeat(40),
            "aRaT".repeat(5),
            "TTTTTRRRRR".to_owned(),
            "a".repeat(60),
            "acad".repeat(12),
        ];
        let marks = [
            (7_900, "cordon node2"),
            (8_000, "drain node2"),
            (8_150, "its Pods are gone from the EndpointSlice"),
            (17_000, "join node2 again"),
        ];
        let drawn = record(&requests.concat(), &marks).to_string();
        insta::assert_snapshot!(drawn);
    }

    #[test]
    fn what_is_not_sent_and_what_has_no_end_is_said() {
        insta::assert_snapshot!(record("", &[]), @r"
        Steady traffic from blue-f (10.1.1.9 on node1) to 10.0.0.55:80
        A request every 100 ms, each with 5 s to be answered, for 0.0 s from 12.3 s on
        no request was sent
        ");
        let mut held_up = record("a?", &[]);
        held_up.sent.missed = 3;
        insta::assert_snapshot!(held_up, @r"
        Steady traffic from blue-f (10.1.1.9 on node1) to 10.0.0.55:80
        A request every 100 ms, each with 5 s to be answered, for 0.2 s from 12.3 s on
        2 sent = 1 answered + 1 without an end

        blue-a node1   |#  | 1
        without an end | 1 | 1
                        |0 s
        A column is 0.1 s; answers: from . to # (1); failures: their number, # above 9.

        No request failed.
        The sender itself was held up 3 times beyond its next request, and sent none for it.
        NOT every request is accounted for: 1 of 2 requests have no end:
          number 1, sent at +0.1 s
        ");
    }

    #[test]
    fn a_long_name_keeps_its_end_and_a_long_step_its_beginning() {
        assert_eq!(end_of("blue-5d9c-x2x9z", 8), "…c-x2x9z");
        assert_eq!(end_of("blue", 4), "blue");
        assert_eq!(cut("drain node3\nand more", 8), "drain n…");
    }

    #[test]
    fn cells_are_as_short_as_all_of_them_fit() {
        let cells = [0, 5_999, 6_000, 12_000, 61_000, 300_000, 2_000_000];
        assert_eq!(
            cells.map(cell_ms),
            [100, 100, 200, 500, 2000, 10_000, 50_000]
        );
    }

    const A_YEAR_MS: u64 = A_YEAR.as_secs() * 1000;

    /// A number as a sender that means harm would tell it, or one that does not.
    fn any_ms() -> impl Strategy<Value = u64> {
        prop_oneof![
            0_u64..20_000,
            (0_u64..3).prop_map(|less| A_YEAR_MS + 1 - less),
            (0_u64..3).prop_map(|less| u64::MAX - less),
            0..=A_YEAR_MS,
            any::<u64>(),
        ]
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![
            Outcome::Answered,
            Outcome::Refused,
            Outcome::TimedOut,
            Outcome::NoRoute,
            Outcome::Other,
        ])
    }

    prop_compose! {
        fn any_end()(
            outcome in any_outcome(),
            millis in any_ms(),
            host in prop::option::of("(blue-[ab]|\\PC{0,40})"),
        ) -> Attempt {
            Attempt { outcome, millis, host, client: None, octets: None, error: None }
        }
    }

    prop_compose! {
        /// Requests in order within a record as long as it says, or anything at all.
        fn any_requests()(
            elapsed_ms in any_ms(),
            honest in prop::bool::weighted(0.8),
            mut requests in prop::collection::vec(
                (any_ms(), prop::option::weighted(0.9, any_end())), 0..40),
        ) -> (u64, Vec<Sent>) {
            if honest {
                for (at_ms, end) in &mut requests {
                    *at_ms = (*at_ms).min(elapsed_ms);
                    if let Some(end) = end {
                        end.millis = end.millis.min(elapsed_ms - *at_ms);
                    }
                }
                requests.sort_by_key(|(at_ms, _)| *at_ms);
            }
            let requests = requests.into_iter().map(|(at_ms, end)| Sent { at_ms, end });
            (elapsed_ms, requests.collect())
        }
    }

    prop_compose! {
        fn any_record()(
            (elapsed_ms, requests) in any_requests(),
            (interval_ms, limit_ms, until_ms) in (any_ms(), any_ms(), any_ms()),
            missed in any::<u32>(),
            full: bool,
            first_ms in any_ms(),
            // The host's own clock is as it is.
            (asked_ms, took_ms) in (0_u64..100_000_000, 0_u64..30_000),
            marks in prop::collection::vec((any_ms(), "\\PC{0,120}"), 0..5),
        ) -> Record {
            let mut record = record("", &[]);
            let sent = &mut record.sent;
            (sent.elapsed_ms, sent.requests) = (elapsed_ms, requests);
            (sent.request.interval_ms, sent.request.limit_ms) = (interval_ms, limit_ms);
            sent.missed = missed;
            if full {
                sent.ended = Some(TrafficEnd::Full);
            }
            record.until_ms = until_ms;
            record.marks = marks.into_iter().map(|(at_ms, text)| Mark { at_ms, text }).collect();
            record.marks.sort_by_key(|mark| mark.at_ms);
            let began = Instant::now();
            let reading = |at_ms, elapsed_ms| ClockReading {
                asked: began + Duration::from_millis(at_ms),
                elapsed_ms,
                told: began + Duration::from_millis(at_ms + took_ms),
            };
            let now = reading(asked_ms, record.sent.elapsed_ms);
            // What is told at first is judged as well.
            let first = reading(0, first_ms.min(A_YEAR_MS));
            record.clock = Clock::of(first, &[now]);
            record
        }
    }

    fn judged_and_drawn(record: &Record) {
        let pods = [Party::new("blue-a", 1, true, [10, 1, 1, 2])];
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for limit in [Duration::ZERO, second, A_YEAR, Duration::MAX] {
            let _ = record
                .gap_at_most(limit)
                .map_err(|failure| failure.to_string());
            let _ = record.disturbed_at_most(limit, second);
            let _ = record.disturbed_at_most(second, limit);
        }
        let _ = (
            record.all_accounted(),
            record.segments(),
            record.longest_gap(),
        );
        for moment in [now, now + A_YEAR] {
            let _ = (
                record.nobody_after(&pods, moment),
                record.each_after(&pods, moment),
            );
            let _ = (record.outcomes_after(moment), record.right_after(moment));
        }
        let drawn = record.to_string();
        assert!(drawn.contains(&record.totals()), "{drawn}");
        serde_json::to_vec(record).unwrap();
    }

    #[test]
    fn a_record_at_every_limit_is_accepted_and_drawn() {
        let mut longest = record("aT", &[(0, "start"), (A_YEAR_MS, "end")]);
        longest.sent.elapsed_ms = A_YEAR_MS;
        longest.until_ms = u64::MAX;
        longest.sent.requests[1].at_ms = 1;
        if let Some(end) = &mut longest.sent.requests[1].end {
            end.millis = A_YEAR_MS - 1;
        }
        longest.sent.request.interval_ms = u64::MAX;
        longest.sent.request.limit_ms = u64::MAX;
        assert_eq!(misrecorded(&longest.sent.request, &longest.sent), None);
        judged_and_drawn(&longest);
        let mut longer = longest.clone();
        longer.sent.elapsed_ms += 1;
        assert!(misrecorded(&longer.sent.request, &longer.sent).is_some());
    }

    proptest! {
        /// What is not refused at once is judged and drawn, whatever numbers are in it.
        #[test]
        fn a_record_that_is_accepted_is_judged_and_drawn(record in any_record()) {
            if misrecorded(&record.sent.request, &record.sent).is_none() {
                judged_and_drawn(&record);
            }
        }

        #[test]
        fn every_request_is_in_a_cell_and_every_mark_above_its_own(
            requests in "[abRT?]{1,200}",
            mut steps in prop::collection::vec(0_u64..30_000, 0..15),
        ) {
            steps.sort_unstable();
            let marks: Vec<(u64, &str)> = steps.iter().map(|at| (*at, "step")).collect();
            let record = record(&requests, &marks);
            let line = Timeline(&record);
            let (cell, cells) = (cell_ms(record.sent.elapsed_ms), CELLS);
            let rows = line.rows(cell, cells);
            let drawn: usize = rows.iter().flat_map(|row| &row.cells).sum();
            prop_assert_eq!(drawn, requests.len());
            let rulers = line.rulers(cell, cells);
            for (index, step) in steps.iter().enumerate() {
                let at = usize::try_from(step / cell).unwrap().min(cells - 1);
                let number = (index + 1).to_string();
                let above = |ruler: &String| {
                    let alone = at == 0 || ruler.as_bytes().get(at - 1) == Some(&b' ');
                    alone && ruler.get(at..).is_some_and(|rest| {
                        rest.split(' ').next() == Some(number.as_str())
                    })
                };
                prop_assert_eq!(rulers.iter().filter(|ruler| above(ruler)).count(), 1);
            }
            let picture = record.to_string();
            let rows = picture.lines().filter(|line| line.contains('|'));
            for row in rows {
                prop_assert!(row.chars().count() <= WIDTH, "{}", row);
            }
        }
    }
}
