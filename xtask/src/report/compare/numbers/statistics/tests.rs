use std::collections::BTreeMap;
use std::f64::consts::TAU;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::report::compare::numbers::{Number, logs as logs_of};

const MARGIN: f64 = 0.1;

fn again(logs: &[f64]) -> Series {
    Series {
        logs: logs.to_vec(),
        again: true,
    }
}

fn once(logs: &[f64]) -> Series {
    Series {
        logs: logs.to_vec(),
        again: false,
    }
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-12
}

#[test]
fn six_pairs_that_all_are_worse_are_one_way_of_32() {
    let six = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    assert!(is_near(p(&six), 2.0 / 64.0));
    let interval = interval(&six).unwrap();
    assert!(is_near(interval.0, 0.1) && is_near(interval.1, 0.6));
    assert!(is_near(coverage(6).unwrap(), 62.0 / 64.0));
    assert_eq!((coverage(5), super::interval(&six[..5])), (None, None));
    let twelve = coverage(12).unwrap();
    assert!((0.95..0.9505).contains(&twelve), "{twelve}");
    assert!(is_near(p(&[]), 1.0) && is_near(p(&[0.3]), 1.0));
    // Nothing in all pairs is as far from nothing as it can be.
    assert!(is_near(p(&[0.0; 6]), 1.0));
}

/// By counting: 0.5 - 0.1 = 0.4 is reached by the signs ++, +-, and their opposites.
#[test]
fn the_p_counts_the_ways_to_give_signs() {
    assert!(is_near(p(&[0.5, -0.1]), 1.0));
    assert!(is_near(p(&[0.5, 0.1]), 0.5));
    assert!(is_near(p(&[1.0, 2.0, -0.5]), 0.5));
}

#[test]
fn holm_multiplies_the_least_by_all_and_never_turns_the_order_round() {
    let adjusted = holm(&[0.01, 0.04, 0.03, 0.2]);
    for (one, other) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.2]) {
        assert!(is_near(*one, other), "{adjusted:?}");
    }
    assert_eq!(holm(&[]), [0.0; 0]);
}

#[test]
fn the_answers() {
    let far = [0.3; 12];
    let alike = [0.0, 0.01, -0.01, 0.02, -0.02, 0.0];
    let wild = [0.5, -0.6, 0.2, -0.1, 0.4, -0.3];
    let metrics = [
        again(&far),
        once(&far[..6]),
        again(&far.map(|log| -log)),
        once(&alike),
        once(&wild),
        once(&[]),
        again(&[0.05; 12]),
        once(&[0.0; 6]),
        once(&alike[..5]),
    ];
    let told = judge(&metrics, MARGIN).into_iter().map(|it| {
        let interval = it
            .interval
            .map(|(low, high)| format!("{low:.2} to {high:.2}"));
        let interval = interval.unwrap_or_default();
        format!(
            "{:.2} {interval:14} p {:.4} {:?}",
            it.median, it.p, it.answer
        )
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_stands_out_is_beyond_the_margin_and_hardly_chance() {
    let out = |logs: &[f64]| stands_out(logs, MARGIN);
    assert!(out(&[0.2; 6]) && out(&[-0.2; 6]));
    assert!(!out(&[0.05; 6]), "within the margin");
    assert!(out(&[0.3, 0.2, 0.4, 0.2, 0.3, -0.05]));
    assert!(!out(&[0.9, -0.6, 0.4, 0.3, -0.2, 0.5]), "chance");
    // The best that they can do.
    assert!(out(&[0.2; 3]) && out(&[0.2]));
    assert!(!out(&[]));
}

#[test]
fn six_pairs_and_as_many_again_are_enough_for_a_hundred_metrics() {
    assert_eq!([1, 2, 12, 25, 100].map(fewest_pairs), [3, 4, 5, 5, 6]);
    for metrics in [1, 2, 12, 25, 100] {
        let worse = |first: usize| {
            let mut all = vec![once(&[0.0; 6]); metrics];
            all[0] = again(&vec![0.3; 2 * first]);
            judge(&all, MARGIN)[0].answer == Answer::Worse
        };
        let fewest = fewest_pairs(metrics);
        assert!(worse(fewest) && !worse(fewest - 1), "{metrics}");
    }
}

/// As it is done: first pairs of all, then as many again of what stands out.
fn compared(draw: &mut impl FnMut(usize) -> f64, metrics: usize, first: usize) -> Vec<Judged> {
    let series = (0..metrics).map(|metric| {
        let mut logs: Vec<f64> = (0..first).map(|_| draw(metric)).collect();
        let again = stands_out(&logs, MARGIN);
        if again {
            logs.extend((0..first).map(|_| draw(metric)));
        }
        Series { logs, again }
    });
    judge(&series.collect::<Vec<_>>(), MARGIN)
}

/// Normal noise (Box and Muller).
fn noise(rng: &mut Rng, deviation: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (TAU * rng.f64()).cos() * deviation
}

/// How often a comparison of something with itself calls something worse: one of forty at most, since what
/// seems better by chance is as frequent. Metrics of every noise, with outliers.
#[test]
fn a_comparison_with_itself_is_hardly_ever_worse() {
    const TIMES: usize = 2000;
    for (seed, metrics) in [(1, 1), (2, 3), (3, 14)] {
        let mut rng = Rng::with_seed(seed);
        let mut red = 0;
        for _ in 0..TIMES {
            let mut draw = |metric: usize| {
                let deviation = [0.02, 0.1, 0.3, 1.0][metric % 4];
                let outlier = if rng.u8(..20) == 0 { 8.0 } else { 1.0 };
                noise(&mut rng, deviation) * outlier
            };
            let judged = compared(&mut draw, metrics, 6);
            red += usize::from(judged.iter().any(|it| it.answer == Answer::Worse));
        }
        // The rate is 0.025 at most; three standard errors more are 0.0355.
        assert!(red <= 71, "{metrics} metrics: {red} of {TIMES}");
    }
}

/// A path that is a fifth slower, among thirteen metrics that are not, where a metric's pairs vary by 8 %.
#[test]
fn a_fifth_slower_is_found_in_nineteen_of_twenty() {
    const TIMES: usize = 1000;
    // What has a fifth less throughput takes a quarter longer.
    for (seed, ratio) in [(11, 1.25_f64), (12, 1.2)] {
        let mut rng = Rng::with_seed(seed);
        let (mut found, mut others) = (0, 0);
        for _ in 0..TIMES {
            let mut draw = |metric: usize| {
                let slower = if metric == 4 { ratio.ln() } else { 0.0 };
                slower + noise(&mut rng, 0.08)
            };
            let judged = compared(&mut draw, 14, 6);
            for (metric, it) in judged.iter().enumerate() {
                match it.answer {
                    Answer::Worse if metric == 4 => found += 1,
                    Answer::Worse => others += 1,
                    _ => {}
                }
            }
        }
        assert!(found >= TIMES * 19 / 20, "{ratio}: {found} of {TIMES}");
        assert!(others <= TIMES / 20, "{ratio}: {others} of {TIMES}");
    }
}

/// What a comparison has read on both sides, whose head's nodes sent 40 ms later: the metrics of its
/// `compare.json`. Two nodes by hand, emulated, each reading on a clone of its own.
fn measured() -> Vec<Number> {
    serde_json::from_str(include_str!("delayed.json")).unwrap()
}

/// By how much one of base's readings is worse than another: nothing differs but what a real cluster's
/// readings differ by.
fn of_base(rng: &mut Rng, number: &Number) -> f64 {
    let (one, other) = (
        rng.choice(&number.pairs).unwrap(),
        rng.choice(&number.pairs).unwrap(),
    );
    log(number, [one[0], other[0]])
}

fn log(number: &Number, pair: [f64; 2]) -> f64 {
    logs_of(&[pair], number.worse, number.grain)[0]
}

/// Which of these are worse, in comparisons of six pairs that are drawn.
fn worse_of_drawn(
    numbers: &[Number],
    seed: u64,
    mut draw: impl FnMut(&mut Rng, &Number) -> f64,
) -> BTreeMap<String, usize> {
    let mut rng = Rng::with_seed(seed);
    let mut worse = BTreeMap::new();
    for _ in 0..DRAWN {
        let mut of_metric = |metric: usize| draw(&mut rng, &numbers[metric]);
        let judged = compared(&mut of_metric, numbers.len(), 6);
        let named = numbers.iter().zip(judged);
        for (number, _) in named.filter(|(_, it)| it.answer == Answer::Worse) {
            *worse.entry(number.metric.clone()).or_default() += 1;
        }
    }
    worse
}

const DRAWN: usize = 1000;

#[test]
fn a_real_cluster_is_hardly_ever_worse_than_itself() {
    let worse = worse_of_drawn(&measured(), 21, of_base);
    let red: usize = worse.values().sum();
    assert!(red <= DRAWN / 20, "{worse:?}");
}

#[test]
fn a_real_delay_is_found_in_nineteen_of_twenty() {
    let worse = worse_of_drawn(&measured(), 22, |rng, number| {
        let (base, head) = (
            rng.choice(&number.pairs).unwrap(),
            rng.choice(&number.pairs).unwrap(),
        );
        log(number, [base[0], head[1]])
    });
    for name in [
        "latency on kept connections to a Pod",
        "latency on fresh connections to a ClusterIP",
    ] {
        assert!(worse[name] >= DRAWN * 19 / 20, "{worse:?}");
    }
}

/// Its readings vary by far more than 8 %: a fifth less throughput is not found there, less than half is.
#[test]
fn in_the_noise_of_a_slow_host_less_than_half_the_throughput_is_found() {
    let slower = "throughput to a Pod";
    let found = |ratio: f64| {
        let worse = worse_of_drawn(&measured(), 23, |rng, number| {
            let planted = number.metric == slower;
            of_base(rng, number) + if planted { ratio.ln() } else { 0.0 }
        });
        worse.get(slower).copied().unwrap_or_default()
    };
    assert!(found(2.5) >= DRAWN * 19 / 20, "{}", found(2.5));
    assert!(found(1.25) < DRAWN / 2, "{}", found(1.25));
}

fn logs() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-2.0_f64..2.0, 0..=10)
}

proptest! {
    #[test]
    fn the_interval_leaves_out_nothing_exactly_when_p_says_so(logs in logs()) {
        let Some((low, high)) = interval(&logs) else {
            prop_assert!(logs.len() < 6);
            return Ok(());
        };
        prop_assert!(low <= high);
        let leaves_out = low > 0.0 || high < 0.0;
        prop_assert_eq!(leaves_out, p(&logs) <= ALPHA, "{} {} {}", low, high, p(&logs));
        let (least, most) = logs.iter().fold((f64::MAX, f64::MIN), |(a, b), log| (a.min(*log), b.max(*log)));
        prop_assert!(least - SAME <= low && high <= most + SAME);
    }

    #[test]
    fn from_the_other_side_it_is_the_same_and_the_order_of_pairs_is_none(
        (logs, shuffled) in logs().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
        again in any::<bool>(),
    ) {
        let one = |logs: &[f64]| judge(&[Series { logs: logs.to_vec(), again }], MARGIN)[0];
        let (there, mixed) = (one(&logs), one(&shuffled));
        let back = one(&logs.iter().map(|log| -log).collect::<Vec<_>>());
        prop_assert!(is_near(there.p, back.p) && is_near(there.p, mixed.p));
        prop_assert!(is_near(there.median, -back.median));
        prop_assert_eq!(there.answer, mixed.answer);
        prop_assert_eq!(there.answer == Answer::Worse, back.answer == Answer::Better);
    }

    #[test]
    fn nothing_is_worse_that_was_not_measured_again_or_is_within_the_margin(
        all in proptest::collection::vec((logs(), any::<bool>()), 1..6),
    ) {
        let series: Vec<Series> = all.into_iter().map(|(logs, again)| Series { logs, again }).collect();
        for (it, judged) in series.iter().zip(judge(&series, MARGIN)) {
            if judged.answer == Answer::Worse {
                prop_assert!(it.again && judged.median > MARGIN.ln_1p() && judged.p <= ALPHA);
                prop_assert!(judged.interval.is_none_or(|(low, _)| low > 0.0));
            }
        }
    }
}
