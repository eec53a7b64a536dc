use std::path::Path;

use proptest::prelude::*;

use super::summary::render;
use super::*;
use crate::report::fixture::results;
use crate::report::results::LeftOut;
use State::{Failed, NoVerdict, NotRun, Passed};

const BY_HAND: &str = "by-hand/nftables/routes";

/// A run with these verdicts.
fn ran(number: usize, records: &[(&str, &str, Verdict)]) -> Ran {
    let mut results = results();
    let like = results.scenarios[0].clone();
    results.scenarios = records
        .iter()
        .map(|(name, cell, outcome)| ScenarioRecord {
            name: (*name).into(),
            cell: (*cell).into(),
            outcome: *outcome,
            reason: match outcome {
                Verdict::Passed => String::new(),
                Verdict::Failed => format!("{name} saw a time-out in run {number}"),
                Verdict::Skipped => "needs 4 nodes, this cluster has 3".into(),
            },
            folder: (*outcome == Verdict::Failed).then(|| format!("scenarios/{name}").into()),
            again: (*outcome == Verdict::Failed)
                .then(|| format!("cargo xtask test --filter {name}")),
            ..like.clone()
        })
        .collect();
    Ran {
        run: SideRun {
            folder: format!("runs/{number}").into(),
            seconds: 90.0,
            error: None,
        },
        results,
    }
}

fn states(text: &str) -> Vec<State> {
    let one = |letter| match letter {
        'p' => Passed,
        'f' => Failed,
        '-' => NotRun,
        _ => NoVerdict,
    };
    text.chars().map(one).collect()
}

#[test]
fn what_a_side_was_tested_on_names_what_the_nodes_were_given() {
    let mut results = results();
    results.pod_network = Some("calico".into());
    let said = tested(&results);
    let given = "by-hand/nftables/routes on debian, the Pod network calico, kubernetes 1.36.4";
    assert!(said.starts_with(given), "{said}");
}

#[test]
fn the_rule() {
    let table: Vec<String> = [
        ("p", "p"),
        ("f", "f"),
        ("p", "f"),
        ("ppppp", "fffff"),
        ("fffff", "ppppp"),
        ("ppppp", "ffff"),
        ("pppp", "fffff"),
        ("ppppp", "ffff?"),
        ("ppppp", "ffpff"),
        ("pp", "fp"),
        ("ppppf", "fffff"),
        ("p", "-"),
        ("-", "p"),
        ("f", "-"),
        ("-", "-"),
        ("p", "?"),
        ("?", "p"),
        ("?", "?"),
        ("-", "?"),
        ("p", ""),
        ("", ""),
    ]
    .into_iter()
    .map(|(base, head)| {
        let said = difference(&states(base), &states(head));
        format!("{base:5} {head:5} {said}")
    })
    .collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    p     p     passes on both
    f     f     fails on both
    p     f     undecided
    ppppp fffff broke
    fffff ppppp recovered
    ppppp ffff  undecided
    pppp  fffff undecided
    ppppp ffff? undecided
    ppppp ffpff differs now and then
    pp    fp    differs now and then
    ppppf fffff differs now and then
    p     -     only on base
    -     p     only on head
    f     -     only on base
    -     -     on neither
    p     ?     undecided
    ?     p     undecided
    ?     ?     undecided
    -     ?     undecided
    p           undecided
                undecided
    ");
}

/// A head that breaks one, recovers one, and differs now and then in one.
fn sides() -> (Vec<Ran>, Vec<Ran>) {
    let kubeadm = "kubeadm/nftables/flannel";
    let first = |number, cell, outcomes: [Verdict; 6]| {
        let names = ["cluster_ip", "every_pair", "twins", "names", "old", "two"];
        let mut records: Vec<_> = names
            .into_iter()
            .zip(outcomes)
            .map(|(name, outcome)| (name, cell, outcome))
            .collect();
        records.push(("drain", kubeadm, Verdict::Passed));
        ran(number, &records)
    };
    let (p, f, s) = (Verdict::Passed, Verdict::Failed, Verdict::Skipped);
    let iptables = "by-hand/iptables/routes";
    let mut base = vec![first(1, BY_HAND, [p, f, p, p, f, p])];
    let mut head = vec![first(1, iptables, [f, p, f, p, f, s])];
    for number in 2..=RUNS {
        let again = |cell, [one, two, three]: [Verdict; 3]| {
            let records = [
                ("cluster_ip", cell, one),
                ("every_pair", cell, two),
                ("twins", cell, three),
            ];
            ran(number, &records)
        };
        base.push(again(BY_HAND, [p, f, p]));
        head.push(again(iptables, [f, p, if number == 4 { p } else { f }]));
    }
    (base, head)
}

fn flags() -> [Vec<String>; 2] {
    [vec![], vec!["--kube-proxy".into(), "iptables".into()]]
}

#[test]
fn a_head_without_a_cluster_where_base_had_one_is_said_in_the_sentence() {
    let told = |head: &[(&str, &str, Verdict)], phase: Option<&str>, reason: &str| {
        let base = ran(1, &[("a", BY_HAND, Verdict::Passed)]);
        let mut head = ran(1, head);
        head.results.phases.truncate(phase.is_some().into());
        for record in &mut head.results.phases {
            record.name = phase.unwrap_or_default().to_owned();
        }
        for record in &mut head.results.scenarios {
            record.reason = reason.to_owned();
        }
        Comparison::of(flags(), (&[base], &[head]), None).sentence
    };
    let skipped = [("a", BY_HAND, Verdict::Skipped)];
    let told = [
        told(&skipped, Some("stage"), NOT_SET_UP),
        told(&skipped, Some("bundle"), NOT_SET_UP),
        told(&skipped, None, NOT_SET_UP),
        told(&skipped, Some("stage"), "ended by Ctrl-C"),
        told(&[("a", BY_HAND, Verdict::Passed)], Some("stage"), ""),
        told(&[], Some("stage"), ""),
    ];
    insta::assert_snapshot!(told.join("\n"), @"
    head's cluster could not be made, where base's could
    head could not be set up, where base could: its bundle failed
    head could not be set up, where base could
    no scenario has a verdict on both sides
    head breaks none of 1 scenario
    no scenario has a verdict on both sides
    ");
}

#[test]
fn first_runs_say_what_is_to_be_repeated_and_all_of_them_what_differs() {
    let (base, head) = sides();
    let first = Comparison::of(flags(), (&base[..1], &head[..1]), None);
    let repeat = Repeat {
        names: ["cluster_ip", "every_pair", "twins"]
            .map(String::from)
            .into(),
        bootstrap: "by-hand".into(),
    };
    assert_eq!(to_repeat(&first.scenarios), [repeat]);
    assert_eq!(first.counts.broke, 0);
    insta::assert_snapshot!(first.sentence, @"head breaks none of 6 scenarios; 3 are undecided; 1 runs on one side only; 1 fails on both");

    let all = Comparison::of(flags(), (&base, &head), None);
    assert_eq!(to_repeat(&all.scenarios), []);
    insta::assert_snapshot!(render(&all, Path::new("target/podwire/latest")));
    insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
}

#[test]
fn what_had_not_settled_is_said_of_its_side_once() {
    let (mut base, head) = sides();
    let said = "the stage workload had not settled: 5 of 6 Pods run";
    let early = "the stage nodes had not settled: node2 is not Ready";
    base[0].results.unsettled_stages = vec![said.into()];
    base[1].results.unsettled_stages = vec![said.into(), early.into()];
    let all = Comparison::of(flags(), (&base, &head), None);
    assert_eq!(all.base.unsettled_stages, [said, early]);
    assert_eq!(all.head.unsettled_stages, [""; 0]);
    let text = render(&all, Path::new("target/podwire/latest"));
    for (line, times) in [(said, 1), (early, 1)] {
        let told = format!("\nbase: {line}\n");
        assert_eq!(text.matches(&told).count(), times, "{text}");
    }
    assert!(!text.contains("head: the stage"), "{text}");
    let file = serde_json::to_vec(&all).unwrap();
    assert_eq!(serde_json::from_slice::<Comparison>(&file).unwrap(), all);
}

#[test]
fn numbers_follow_the_verdicts_and_make_it_red_as_well() {
    let (base, head) = sides();
    let both = [&base[..1], &head[..1]];
    let verdicts = Comparison::of(flags(), (both[0], both[0]), None);
    assert!(!verdicts.is_worse());
    let asked = Asked {
        pairs: 6,
        margin: 0.1,
    };
    let none = verdicts.clone().with_numbers(asked, &[], &[]);
    assert!(
        none.sentence.ends_with("; nothing was measured"),
        "{}",
        none.sentence
    );
    assert!(!none.is_worse());
    let measured = Comparison {
        numbers: Some(numbers::tests::numbers()),
        ..verdicts
    };
    assert!(measured.is_worse());
    let told = |of: &Comparison| render(of, Path::new("target/podwire/latest"));
    insta::assert_snapshot!(told(&measured));
    let mut broken = measured.clone();
    let numbers = broken.numbers.as_mut().unwrap();
    numbers.counts.worse = 0;
    assert!(!broken.is_worse());
    broken.numbers.as_mut().unwrap().carried_out.broke = 1;
    assert!(broken.is_worse());
    // Of a fraction the last bit may be another.
    let file = serde_json::to_vec(&measured).unwrap();
    let back: Comparison = serde_json::from_slice(&file).unwrap();
    assert_eq!(told(&back), told(&measured));
}

#[test]
fn runs_that_measured_are_kept_beside_the_others() {
    let (base, head) = sides();
    let mut measured = ran(7, &[]);
    measured.results.unsettled_stages = vec!["the stage workload had not settled".into()];
    let asked = Asked {
        pairs: 1,
        margin: 0.1,
    };
    let all = Comparison::of(flags(), (&base, &head), None);
    let all = all.with_numbers(asked, std::slice::from_ref(&measured), &[]);
    assert_eq!((all.base.runs.len(), all.base.measured.len()), (RUNS, 1));
    assert_eq!(
        all.base.unsettled_stages,
        ["the stage workload had not settled"]
    );
    assert_eq!(all.head.measured, []);
}

#[test]
fn what_differs_is_repeated_on_the_clusters_on_which_it_differs_and_on_no_other() {
    let kubeadm = "kubeadm/nftables/flannel";
    let of = |outcome| {
        let records = [
            ("every_pair", BY_HAND, outcome),
            ("egress", BY_HAND, outcome),
            ("two_segments", "by-hand/nftables/routes+routed", outcome),
            ("every_pair", kubeadm, outcome),
            ("drain", kubeadm, Verdict::Passed),
        ];
        vec![ran(1, &records)]
    };
    let scenarios = compare(&of(Verdict::Passed), &of(Verdict::Failed));
    let told = to_repeat(&scenarios).into_iter();
    let told: Vec<String> = told
        .map(|it| format!("{}: {}", it.bootstrap, it.names.join(", ")))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    by-hand: every_pair, egress, two_segments
    kubeadm: every_pair
    ");
}

#[test]
fn what_is_not_to_run_on_a_side_is_absent_and_what_was_cut_short_is_undecided() {
    let base = [ran(1, &[("a", BY_HAND, Verdict::Passed)])];
    let mut head = ran(1, &[]);
    head.results.left_out = vec![LeftOut {
        name: "a".into(),
        reason: "it is for clusters of by-hand (routes)".into(),
    }];
    let only = compare(&base, std::slice::from_ref(&head));
    assert_eq!(only[0].difference, Difference::OnlyBase);
    let why = only[0].head.reason.as_deref();
    assert_eq!(why, Some("it is for clusters of by-hand (routes)"));

    head.results.left_out.clear();
    head.run.error = Some("its set-up failed".into());
    let cut = compare(&base, &[head]);
    assert_eq!(cut[0].difference, Difference::Undecided);
    assert_eq!(cut[0].head.in_short(), "no verdict");
    // One that was ended before it had a list of what it was to run has left nothing at all.
    let nothing = compare(&base, &[]);
    assert_eq!(nothing[0].difference, Difference::Undecided);
    assert_eq!(nothing[0].head.in_short(), "no verdict");
    assert!(to_repeat(&cut).is_empty(), "nothing was seen to differ");
    let sentence = Counts::of(&cut).sentence();
    assert_eq!(sentence, "no scenario has a verdict on both sides");
}

#[test]
fn who_reads_the_file_reads_what_was_written() {
    let (base, head) = sides();
    let all = Comparison::of(flags(), (&base, &head), Some("ended by Ctrl-C".into()));
    let text = serde_json::to_vec(&all).unwrap();
    assert_eq!(serde_json::from_slice::<Comparison>(&text).unwrap(), all);
}

fn any_states() -> impl Strategy<Value = Vec<State>> {
    let state = prop_oneof![Just(Passed), Just(Failed), Just(NotRun), Just(NoVerdict)];
    proptest::collection::vec(state, 0..=7)
}

proptest! {
    #[test]
    fn the_rule_is_the_same_from_the_other_side_and_in_any_order(
        (base, shuffled) in any_states().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
        head in any_states(),
    ) {
        let turned = |difference| match difference {
            Difference::Broke => Difference::Recovered,
            Difference::Recovered => Difference::Broke,
            Difference::OnlyBase => Difference::OnlyHead,
            Difference::OnlyHead => Difference::OnlyBase,
            other => other,
        };
        let said = difference(&base, &head);
        prop_assert_eq!(difference(&shuffled, &head), said);
        prop_assert_eq!(difference(&head, &base), turned(said));
    }

    #[test]
    fn only_what_always_failed_on_the_head_alone_is_broken(base in any_states(), head in any_states()) {
        let count = |states: &[State], state| states.iter().filter(|it| **it == state).count();
        let broke = count(&base, Passed) >= RUNS
            && count(&base, Failed) == 0
            && count(&head, Failed) >= RUNS
            && count(&head, Passed) == 0;
        prop_assert_eq!(difference(&base, &head) == Difference::Broke, broke);
        prop_assert!(!matches!(difference(&base, &base), Difference::Broke | Difference::Recovered));
    }

    /// Whatever is undecided after the first runs is decided by four whole ones more.
    #[test]
    fn enough_runs_decide(more in proptest::collection::vec((any::<bool>(), any::<bool>()), RUNS - 1)) {
        let of = |passed| if passed { Passed } else { Failed };
        let base: Vec<State> = std::iter::once(Passed).chain(more.iter().map(|it| of(it.0))).collect();
        let head: Vec<State> = std::iter::once(Failed).chain(more.iter().map(|it| of(it.1))).collect();
        prop_assert!(matches!(difference(&base, &head), Difference::Broke | Difference::NowAndThen));
    }
}
