use std::path::Path;

use super::*;
use crate::report::fixture::results;
use crate::report::results::LeftOut;

const BY_HAND: &str = "by-hand/nftables/routes";
const IPTABLES: &str = "by-hand/iptables/routes";
const ASKED: Asked = Asked {
    pairs: 6,
    margin: 0.1,
};

/// What measurements have read: each with its metrics, or why it has failed.
type Said<'a> = (&'a str, Result<Vec<Reading>, &'a str>);

fn run(cell: &str, said: &[Said<'_>]) -> Results {
    let mut run = results();
    let like = run.scenarios[0].clone();
    let records = said.iter().map(|(name, said)| ScenarioRecord {
        name: (*name).into(),
        cell: cell.into(),
        outcome: match said {
            Ok(_) => Verdict::Passed,
            Err(_) => Verdict::Failed,
        },
        reason: said
            .as_ref()
            .err()
            .map_or(String::new(), |why| (*why).into()),
        readings: said.clone().unwrap_or_default(),
        folder: said.is_err().then(|| format!("scenarios/{name}").into()),
        again: said
            .is_err()
            .then(|| format!("cargo xtask test --measure --filter {name}")),
        ..like.clone()
    });
    run.scenarios = records.collect();
    run
}

fn reading(metric: &str, unit: &str, worse: Worse, value: f64) -> Reading {
    Reading {
        metric: metric.into(),
        unit: unit.into(),
        worse,
        grain: 0.5,
        read: Read::Value(value),
    }
}

fn rate(value: f64) -> Reading {
    reading("requests", "1/s", Worse::Less, value)
}

fn lost(value: f64) -> Reading {
    reading("requests lost", "", Worse::More, value)
}

fn latency(value: f64) -> Reading {
    reading("latency", "ms", Worse::More, value)
}

/// Of a side, all in folders by their numbers.
fn taken(runs: &[Results]) -> Vec<Taken<'_>> {
    let folders = [
        "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
    ];
    let folder = |number: usize| Path::new(folders[number]);
    let all = runs.iter().enumerate();
    all.map(|(number, results)| Taken {
        folder: folder(number),
        results,
    })
    .collect()
}

fn told(base: &[Results], head: &[Results]) -> Numbers {
    Numbers::of(ASKED, &taken(base), &taken(head))
}

/// By how much a reading varies from one run to the next.
const NOISE: [f64; 12] = [
    1.0, 1.02, 0.99, 1.01, 0.98, 1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.01,
];

/// A head whose requests are a fifth fewer, which is measured again, whose latency is as it was, that loses what
/// base loses, and on which one measurement failed once.
fn sides() -> (Vec<Results>, Vec<Results>) {
    let way = |number: usize, slower: f64| {
        let noise = NOISE[number];
        (
            "way",
            Ok(vec![rate(40.0 * noise * slower), latency(25.0 / noise)]),
        )
    };
    let of = |cell: &str, slower: f64, fails: usize| {
        let runs = (0..12).map(|number| {
            // The noise of base and head is not the same.
            let turned = if slower < 1.0 { 11 - number } else { number };
            let restart = match number == fails {
                true => Err("the Pod did not answer"),
                false => Ok(vec![lost(0.0)]),
            };
            match number < 6 {
                true => run(cell, &[way(turned, slower), ("restart", restart)]),
                false => run(cell, &[way(turned, slower)]),
            }
        });
        runs.collect::<Vec<_>>()
    };
    (of(BY_HAND, 1.0, 99), of(IPTABLES, 0.8, 2))
}

pub(crate) fn numbers() -> Numbers {
    let (base, head) = sides();
    told(&base, &head)
}

#[test]
fn first_pairs_say_what_stands_out_and_as_many_again_what_is_worse() {
    let (base, head) = sides();
    let first = told(&base[..6], &head[..6]);
    assert_eq!(first.to_measure_again(), ["way"]);
    insta::assert_snapshot!(first.sentence, @"of 3 numbers none is worse, 1 is within the margin of 10 %, 2 are undecided; 1 measurement is undecided");
    // Half of the pairs again decide nothing.
    let half = told(&base[..9], &head[..9]);
    assert_eq!(half.counts.worse, 0);
    let all = told(&base, &head);
    insta::assert_snapshot!(all.sentence);
    insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    let file = serde_json::to_vec(&all).unwrap();
    let back: Numbers = serde_json::from_slice(&file).unwrap();
    assert_eq!(back.unmeasured, all.unmeasured);
    // Of a fraction the last bit may be another.
    let answers = |of: &Numbers| -> Vec<(String, Answer, usize)> {
        let each = of.metrics.iter();
        each.map(|it| (it.metric.clone(), it.answer, it.pairs.len()))
            .collect()
    };
    assert_eq!(answers(&back), answers(&all));
}

#[test]
fn the_other_way_round_it_is_better() {
    let (base, head) = sides();
    let turned = told(&head, &base);
    assert_eq!((turned.counts.worse, turned.counts.better), (0, 1));
    assert_eq!(turned.metrics[0].answer, Answer::Better);
    let ratio = turned.metrics[0].ratio.unwrap();
    assert!((1.2..1.3).contains(&ratio), "{ratio}");
}

#[test]
fn what_is_nothing_on_both_sides_is_within_the_margin_and_one_more_each_time_is_not() {
    let of = |values: &[f64]| -> Vec<Results> {
        let one = |value: &f64| run(BY_HAND, &[("restart", Ok(vec![lost(*value)]))]);
        values.iter().map(one).collect()
    };
    let none = of(&[0.0; 12]);
    let same = told(&none[..6], &none[..6]);
    assert_eq!(same.metrics[0].answer, Answer::Within);
    assert_eq!(
        (same.metrics[0].ratio, same.metrics[0].interval),
        (Some(1.0), Some([1.0, 1.0]))
    );
    let one = told(&none, &of(&[1.0; 12]));
    assert_eq!(one.metrics[0].answer, Answer::Worse);
    let ratio = one.metrics[0].ratio.unwrap();
    assert!((1.99..2.01).contains(&ratio), "{ratio}");
}

#[test]
fn a_side_on_which_nothing_could_be_measured_is_told_in_words() {
    let good = || run(BY_HAND, &[("way", Ok(vec![rate(40.0)]))]);
    let bad = || run(BY_HAND, &[("way", Err("no connection"))]);
    let (base, head) = ([good(), good()], [bad(), bad()]);
    let one = told(&base, &head);
    let metric = &one.metrics[0];
    assert_eq!(
        (metric.base, metric.head, metric.answer),
        (Some(40.0), None, Answer::Undecided)
    );
    assert_eq!(
        (metric.ratio, metric.p, metric.pairs.len()),
        (None, None, 0)
    );
    let [failed] = one.unmeasured.as_slice() else {
        panic!("{:?}", one.unmeasured)
    };
    assert_eq!(
        (failed.side.as_str(), failed.failed, failed.of),
        ("head", 2, 2)
    );
    assert_eq!(failed.reason, "no connection");
    assert_eq!(failed.folder.as_deref(), Some(Path::new("1/scenarios/way")));
    // On neither side: no number, but it is said.
    let neither = told(&head, &head);
    assert_eq!((neither.metrics.len(), neither.unmeasured.len()), (0, 2));
    assert_eq!(neither.sentence, "nothing was measured");
}

#[test]
fn a_measurement_that_only_head_can_never_carry_out_is_broken_as_a_scenario_is() {
    // A letter for each run: whether it could be carried out.
    let side = |states: &str| -> Vec<Results> {
        let run = |state| match state {
            'p' => run(
                BY_HAND,
                &[
                    ("way", Ok(vec![rate(40.0)])),
                    ("restart", Ok(vec![lost(0.0)])),
                ],
            ),
            _ => run(
                BY_HAND,
                &[
                    ("way", Err("no connection")),
                    ("restart", Ok(vec![lost(0.0)])),
                ],
            ),
        };
        states.chars().map(run).collect()
    };
    let cases = [
        ("pppppp", "ffffff"),
        ("ppppp", "fffff"),
        ("pppp", "ffff"),
        ("pppppp", "ffpfff"),
        ("pfpppp", "ffffff"),
        ("ffffff", "ffffff"),
        ("ffffff", "pppppp"),
    ];
    let told = cases.map(|(base, head)| {
        let all = told(&side(base), &side(head));
        let carried_out = all.carried_out;
        assert_eq!(carried_out.tried, 2);
        let (_, said) = all.sentence.split_once(" number").unwrap();
        let said = said.split_once("; ").map_or("nothing", |(_, said)| said);
        format!("{base:6} {head:6} broke {}: {said}", carried_out.broke)
    });
    insta::assert_snapshot!(told.join("\n"), @r"
    pppppp ffffff broke 1: head breaks 1 of 2 measurements
    ppppp  fffff  broke 1: head breaks 1 of 2 measurements
    pppp   ffff   broke 0: 1 measurement is undecided
    pppppp ffpfff broke 0: 1 measurement is undecided
    pfpppp ffffff broke 0: 1 measurement is undecided
    ffffff ffffff broke 0: nothing
    ffffff pppppp broke 0: nothing
    ");
}

#[test]
fn more_pairs_are_taken_until_it_is_known_whether_head_alone_cannot_be_measured() {
    let good = || run(BY_HAND, &[("way", Ok(vec![rate(40.0)]))]);
    let bad = || run(BY_HAND, &[("way", Err("no connection"))]);
    let is_in_vain = |base: &[Results], head: &[Results]| told(base, head).is_in_vain();
    assert!(!is_in_vain(&[good()], &[good()]));
    assert!(is_in_vain(&[bad()], &[bad()]));
    assert!(is_in_vain(&[run(BY_HAND, &[])], &[run(BY_HAND, &[])]));
    assert!(!is_in_vain(&[good()], &[bad()]));
    assert!(is_in_vain(
        &[(); 5].map(|()| good()),
        &[(); 5].map(|()| bad())
    ));
}

#[test]
fn a_metric_that_a_side_s_machine_cannot_read_is_told_and_the_others_count() {
    let unread = Reading {
        read: Read::Unread("nobody counts".into()),
        ..lost(0.0)
    };
    let counts = || run(BY_HAND, &[("way", Ok(vec![rate(40.0), lost(1.0)]))]);
    let does_not = || run(BY_HAND, &[("way", Ok(vec![rate(40.0), unread.clone()]))]);
    let all = told(&[counts(), counts()], &[does_not(), does_not()]);
    let pairs = |metric: usize| all.metrics[metric].pairs.len();
    assert_eq!((pairs(0), pairs(1)), (2, 0));
    assert_eq!(
        (all.metrics[1].base, all.metrics[1].head),
        (Some(1.0), None)
    );
    let [one] = all.unmeasured.as_slice() else {
        panic!("{:?}", all.unmeasured)
    };
    assert_eq!(
        (
            one.what(),
            one.side.as_str(),
            one.failed,
            one.of,
            one.reason.as_str()
        ),
        ("requests lost", "head", 2, 2, "nobody counts")
    );
    // On neither side: it is no number, and said of both.
    let neither = told(&[does_not()], &[does_not()]);
    assert_eq!((neither.metrics.len(), neither.unmeasured.len()), (1, 2));
    let sides = |numbers: &Numbers| -> Vec<String> {
        let told = numbers.told_unmeasured().into_iter();
        told.map(|(sides, _)| sides).collect()
    };
    assert_eq!(
        (sides(&neither), sides(&all)),
        (vec!["base and head".to_owned()], vec!["head".to_owned()])
    );
    // More often on one side: that is told of each.
    let bad = || run(BY_HAND, &[("way", Err("no connection"))]);
    let failed = told(&[bad(), bad()], &[bad(), counts()]);
    assert_eq!(sides(&failed), ["base", "head"]);
}

#[test]
fn what_is_not_for_a_side_s_cluster_is_told_and_what_a_person_ended_is_not() {
    let base = [run(BY_HAND, &[("drain", Ok(vec![lost(1.0)]))])];
    let mut head = [run(BY_HAND, &[])];
    head[0].left_out = vec![LeftOut {
        name: "drain".into(),
        reason: "it is for clusters of kubeadm".into(),
    }];
    let absent = told(&base, &head).unmeasured;
    assert_eq!(
        (absent[0].of, absent[0].reason.as_str()),
        (0, "it is for clusters of kubeadm")
    );
    head[0].error = Some("ended by Ctrl-C".into());
    assert_eq!(told(&base, &head).unmeasured, []);
    let mut ended = run(BY_HAND, &[("drain", Err("ended by Ctrl-C"))]);
    ended.scenarios[0].outcome = Verdict::Skipped;
    ended.error = Some("ended by Ctrl-C".into());
    assert_eq!(told(&base, &[ended]).unmeasured, []);
    assert_eq!(told(&base, &[]).unmeasured, []);
}

#[test]
fn readings_of_one_side_alone_make_no_pair() {
    let good = |value| run(BY_HAND, &[("way", Ok(vec![rate(value)]))]);
    let bad = || run(BY_HAND, &[("way", Err("no connection"))]);
    let base = [good(10.0), bad(), good(30.0)];
    let head = [good(20.0), good(20.0)];
    let metric = told(&base, &head).metrics.remove(0);
    assert_eq!(metric.pairs, [[10.0, 20.0]]);
    assert_eq!((metric.base, metric.head), (Some(20.0), Some(20.0)));
}

#[test]
fn a_margin_is_told_as_it_was_asked_for() {
    assert_eq!(
        [0.1, 0.025, 1.0, 0.07].map(percent),
        ["10 %", "2.5 %", "100 %", "7 %"]
    );
}
