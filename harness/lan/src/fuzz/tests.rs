use super::*;

fn plan(targets: &[Target], seed: u64, inputs: u64) -> FuzzPlan {
    FuzzPlan {
        targets: targets.to_vec(),
        seed,
        inputs,
        limit: None,
        threads: 2,
    }
}

#[test]
fn no_input_ends_a_segment() {
    let enough = 2_000_000;
    let report = fuzz(&plan(&Target::ALL, 1, enough), &|_| ()).unwrap_or_else(|error| {
        panic!("{error}");
    });
    assert!(report.inputs() >= enough);
}

/// Of the stack's randomness too: a connection's numbers are in what follows.
#[test]
fn a_seed_brings_a_case_back() {
    let alarm = Arc::new(Alarm::new().unwrap());
    let played = |target: Target, seed| {
        let mut log = Log::default();
        target.play(&mut Dice::new(seed), &mut log, &alarm);
        log.lines()
    };
    for target in Target::ALL {
        for seed in 0..20 {
            assert!(
                played(target, seed) == played(target, seed),
                "{target} {seed}"
            );
        }
        assert!(played(target, 0) != played(target, 1), "{target}");
    }
}

#[test]
fn the_first_case_that_goes_wrong_is_told_with_its_seed_and_inputs() {
    let play = |target: Target, dice: &mut Dice, log: &mut Log, _: &Arc<Alarm>| {
        for input in 0..INPUTS {
            let word = dice.word();
            log.note("word", &word.to_be_bytes());
            let wrong = target == Target::Dns && word.is_multiple_of(10_000);
            assert!(!wrong, "{input} is too round");
        }
    };
    let targets = [Target::Arp, Target::Dns];
    let fail = |plan: &FuzzPlan| match fuzz_with(plan, &|_| (), &play) {
        Err(FuzzError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    let first = fail(&plan(&targets, 7, u64::MAX / 1024));
    assert_eq!(first.target, Target::Dns);
    let last = first.inputs.last().unwrap().strip_prefix("word ").unwrap();
    assert!(
        u64::from_str_radix(last, 16)
            .unwrap()
            .is_multiple_of(10_000)
    );
    let said = format!("{} is too round", first.inputs.len() - 1);
    assert_eq!(first.message, said);
    // What it says repeats it at once.
    assert_eq!(fail(&plan(&[Target::Dns], first.seed, 1)), first);
    let before = plan(&[Target::Dns], 7, (first.seed - 7) * INPUTS);
    assert!(fuzz_with(&before, &|_| (), &play).is_ok());
}

#[test]
fn a_limit_ends_it() {
    let mut endless = plan(&Target::ALL, 1, u64::MAX / 1024);
    endless.limit = Some(Duration::ZERO);
    assert_eq!(fuzz(&endless, &|_| ()).unwrap().inputs(), 0);
}

#[test]
fn targets_go_by_their_names() {
    for target in Target::ALL {
        assert_eq!(target.to_string().parse(), Ok(target));
    }
    let error = "http".parse::<Target>().unwrap_err();
    insta::assert_snapshot!(error, @r#"there is no target "http"; there are: arp, dhcp, dns, icmp, udp, tcp, framing, held, rules"#);
}
