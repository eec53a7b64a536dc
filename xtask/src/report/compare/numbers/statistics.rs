//! What pairs of readings say, as plain numbers in and out.
//!
//! A pair is told by how much worse its second reading is: the logarithm of the ratio of the two, positive where
//! it is worse. All that follows stands on one assumption: where nothing differs, a pair comes out one way as
//! often as the other way round, whatever the host did meanwhile and however noisy the metric is. Taking turns
//! (base, head, head, base) makes it so. No shape of the noise is assumed.
//!
//! - The **p** of some pairs is exact (Fisher's sign flips, "The Design of Experiments", 1935): of the 2^n ways
//!   to give them signs, the share in which their mean is as far from nothing as it is. Six pairs reach
//!   2/64 = 0.031 at best, twelve 2/4096 = 0.0005.
//! - The **interval** holds the differences that this test does not reject at 5 %. Its ends are two of the means
//!   of the 2^n - 1 sets of pairs that are not empty (Hartigan, "Using subsample values as typical values",
//!   1969). With six pairs these are the least and the greatest pair, and it holds the true difference in
//!   62 of 64 cases, 96.9 %; with twelve in 95.0 %. Fewer than six have none: their range holds it too seldom.
//! - Many metrics are judged at once, so each p is multiplied as Holm has it ("A simple sequentially rejective
//!   multiple test procedure", 1979): where nothing differs, any of them is 0.05 or less in one comparison of
//!   twenty at most. Six pairs cannot reach that among two metrics or more. So what stands out after the first
//!   pairs is measured in as many again, and only that can be called worse, or better.

/// What is no chance any more: the p of a whole comparison, and what an interval leaves out.
pub(crate) const ALPHA: f64 = 0.05;

/// What stands out after the first pairs, by the p of one metric alone: of six pairs all are worse, or all but the
/// one that differs least. As often one stands out by chance, and costs its pairs once more.
const SUSPECT: f64 = 0.0625;

/// The most pairs of a metric: 2^20 sets of them are looked at in a blink.
pub(crate) const MOST_PAIRS: usize = 20;

/// Sums of the same numbers in another order.
const SAME: f64 = 1e-9;

/// The pairs of one metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series {
    /// By how much the second of each pair is worse: logarithms of ratios. No more than [`MOST_PAIRS`].
    pub(crate) logs: Vec<f64>,
    /// Whether it has all the pairs that were taken because it stood out.
    pub(crate) again: bool,
}

/// What a metric's pairs come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judged {
    /// Logarithm of the median ratio.
    pub(crate) median: f64,
    /// The ends of the interval, where there are pairs enough for one.
    pub(crate) interval: Option<(f64, f64)>,
    /// Holm's, over all metrics.
    pub(crate) p: f64,
    pub(crate) answer: Answer,
}

/// Whether a metric is worse.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It differs, by p, and its median ratio is beyond the margin.
    Worse,
    /// Neither of the others is shown.
    Undecided,
    /// The other way round.
    Better,
    /// Its interval ends within the margin: it is worse by no more than that, if at all.
    Within,
}

/// Judges all metrics of a comparison at once. `margin` is by how much a ratio may be worse: 0.1 is 10 %.
/// One without any pair is undecided.
pub(crate) fn judge(metrics: &[Series], margin: f64) -> Vec<Judged> {
    let raw: Vec<f64> = metrics.iter().map(|it| p(&it.logs)).collect();
    // What cannot be called worse takes no part in what the others have to reach.
    let tested = metrics.iter().zip(&raw);
    let tested: Vec<f64> = tested
        .map(|(it, p)| if it.again { *p } else { 1.0 })
        .collect();
    let adjusted = holm(&tested);
    let beyond = margin.ln_1p();
    let each = metrics.iter().enumerate().map(|(place, it)| {
        let all = as_float(metrics.len());
        let p = match it.again {
            true => adjusted[place],
            false => (raw[place] * all).min(1.0),
        };
        let (median, interval) = (median(&it.logs), interval(&it.logs));
        let differs = it.again && p <= ALPHA;
        let answer = if differs && median > beyond {
            Answer::Worse
        } else if differs && median < -beyond {
            Answer::Better
        } else if interval.is_some_and(|(_, high)| high <= beyond) {
            Answer::Within
        } else {
            Answer::Undecided
        };
        Judged {
            median,
            interval,
            p,
            answer,
        }
    });
    each.collect()
}

/// Whether a metric is to be measured in as many pairs again: it seems to differ by more than the margin.
pub(crate) fn stands_out(logs: &[f64], margin: f64) -> bool {
    // Very few pairs cannot do better than this.
    let least = 2.0 / as_float(sets(logs.len()));
    median(logs).abs() > margin.ln_1p() && p(logs) <= SUSPECT.max(least)
}

/// The fewest first pairs with which one of so many metrics can be called worse, once measured again.
pub(crate) fn fewest_pairs(metrics: usize) -> usize {
    let reaches = |first: &usize| {
        let least = 2.0 / as_float(sets(2 * first));
        least * as_float(metrics) <= ALPHA
    };
    (1..=MOST_PAIRS / 2).find(reaches).unwrap_or(MOST_PAIRS / 2)
}

/// The fewest pairs that have an interval.
pub(crate) fn fewest_with_interval() -> usize {
    let has_one = |pairs: &usize| left_out(*pairs).is_some();
    (1..=MOST_PAIRS).find(has_one).unwrap_or(MOST_PAIRS)
}

/// How often the interval of so many pairs holds the true difference; nothing where there is none.
pub(crate) fn coverage(pairs: usize) -> Option<f64> {
    let left_out = left_out(pairs)?;
    Some(1.0 - 2.0 * as_float(left_out) / as_float(sets(pairs)))
}

/// The value in the middle, or between the two in the middle; nothing's is 0.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => 0.0,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(sorted[middle - 1], *value),
    }
}

/// How many sets of so many pairs there are, the empty one too: as many as ways to give them signs.
fn sets(pairs: usize) -> usize {
    1 << pairs.min(MOST_PAIRS)
}

/// Sums of all sets of these, in the order of the sets' numbers: bit by bit, which of them are in it.
fn sums(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for value in values.iter().take(MOST_PAIRS) {
        let with: Vec<f64> = sums.iter().map(|sum| sum + value).collect();
        sums.extend(with);
    }
    sums
}

/// Two-sided, of one metric alone; of no pairs it is 1.
fn p(logs: &[f64]) -> f64 {
    let total: f64 = logs.iter().sum();
    // To turn the signs of a set round takes twice its sum away.
    let flipped = sums(logs).into_iter().map(|sum| total - 2.0 * sum);
    let as_far = flipped.filter(|sum| sum.abs() >= total.abs() - SAME);
    as_float(as_far.count()) / as_float(sets(logs.len()))
}

/// Of each end's means, how many the interval leaves out.
fn left_out(pairs: usize) -> Option<usize> {
    let sets = as_float(sets(pairs));
    let reached = (1..).take_while(|count| as_float(*count) <= ALPHA / 2.0 * sets);
    reached.last()
}

fn interval(logs: &[f64]) -> Option<(f64, f64)> {
    let left_out = left_out(logs.len())?;
    let sums = sums(logs).into_iter().enumerate().skip(1);
    let mut means: Vec<f64> = sums
        .map(|(set, sum)| sum / f64::from(set.count_ones()))
        .collect();
    means.sort_by(f64::total_cmp);
    let high = means.len().checked_sub(left_out)?;
    Some((*means.get(left_out - 1)?, *means.get(high)?))
}

/// Each p as it is after Holm's method, in the same order.
fn holm(all: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].total_cmp(&all[*b]));
    let mut adjusted = vec![1.0; all.len()];
    let mut least: f64 = 0.0;
    for (rank, place) in order.into_iter().enumerate() {
        least = least.max((all[place] * as_float(all.len() - rank)).min(1.0));
        adjusted[place] = least;
    }
    adjusted
}

#[expect(clippy::cast_precision_loss, reason = "none is above 2^20")]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
