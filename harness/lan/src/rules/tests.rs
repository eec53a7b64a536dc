//! Several rules beside each other.

use super::headers::tests::udp;
use super::rule::{Impairment, Selector};
use super::*;

const NOW: Duration = Duration::from_secs(1000);
const NAMES: [&str; 3] = ["gateway", "node1", "node2"];

fn at(millis: u64) -> Duration {
    NOW + Duration::from_millis(millis)
}

fn rule(selector: Selector, impairment: &str) -> Rule {
    Rule {
        selector,
        impairment: serde_json::from_str::<Impairment>(impairment).unwrap(),
    }
}

fn add(rules: &mut Rules, from: Option<usize>, to: Option<usize>, impairment: &str) -> RuleId {
    let name = |port: Option<usize>| port.map(|port| NAMES[port].to_owned());
    let selector = Selector {
        from: name(from),
        to: name(to),
        ..Selector::default()
    };
    let rule = rule(selector, impairment);
    let proposed = rules.proposed(&rule, Mode::Add).unwrap();
    rules.set(proposed, Mode::Add, from, to)
}

/// What goes on at once of a frame between two ports.
fn pass(rules: &mut Rules, from: usize, to: usize, now: Duration) -> u64 {
    let frame = udp([10, 1, 1, 2], [10, 1, 2, 3], (1, 2), b"it");
    let port = |number: usize| Port {
        number,
        name: NAMES[number],
    };
    let headers = Headers::of(&frame);
    let mut out = Vec::new();
    let arrived = Arrived {
        from,
        frame: &frame,
        number: 0,
        at: now,
    };
    match rules.pass(&port(from), &port(to), &arrived, &headers, &mut out) {
        Passed::On { at_once } => at_once,
        Passed::Lost(_) => 0,
    }
}

fn seen(rules: &Rules) -> Vec<u64> {
    let report = rules.report().rules;
    report.iter().map(|rule| rule.realised.seen).collect()
}

#[test]
fn the_newest_rule_that_selects_a_frame_has_it_alone() {
    let mut rules = Rules::new(LIMIT);
    add(&mut rules, Some(1), None, r#"{"delay":"40ms"}"#);
    let cut = add(&mut rules, Some(1), Some(2), r#"{"cut":true}"#);
    assert_eq!(pass(&mut rules, 1, 2, NOW), 0);
    assert_eq!(pass(&mut rules, 1, 0, NOW), 0);
    assert_eq!(pass(&mut rules, 2, 1, NOW), 1, "the way back is another");
    assert_eq!(seen(&rules), [1, 1]);
    assert!(rules.heal(cut).unwrap().is_empty());
    assert!(rules.heal(cut).is_none());
    pass(&mut rules, 1, 2, NOW);
    assert_eq!(seen(&rules), [2]);
}

#[test]
fn the_same_selector_given_twice_is_one_rule() {
    let mut rules = Rules::new(LIMIT);
    let selector = Selector::between("node1", "node2");
    let mut merge = |selector: &Selector, impairment: &str| {
        let rule = rule(selector.clone(), impairment);
        let proposed = rules.proposed(&rule, Mode::Merge)?;
        Ok::<_, RuleError>(rules.set(proposed, Mode::Merge, Some(1), Some(2)))
    };
    let first = merge(&selector, r#"{"delay":"40ms"}"#).unwrap();
    let other = Selector::from("node1");
    assert_ne!(merge(&other, r#"{"cut":true}"#).unwrap(), first);
    assert_eq!(merge(&selector, r#"{"loss":"1%"}"#).unwrap(), first);
    // It makes sense only with what was set before.
    assert_eq!(merge(&selector, r#"{"jitter":"5ms"}"#).unwrap(), first);
    assert!(merge(&selector, r#"{"jitter":"50ms"}"#).is_err());
    assert!(merge(&other, r#"{"jitter":"5ms"}"#).is_err());
    let said: Vec<String> = (rules.report().rules.iter())
        .map(|it| format!("{}: {}", it.rule.selector, it.rule.impairment))
        .collect();
    let wanted = [
        "node1 -> any: cut",
        "node1 -> node2: delay 40ms jitter 5ms loss 1%",
    ];
    assert_eq!(said, wanted);
}

#[test]
fn delays_are_realised_as_asked_and_reported() {
    let mut rules = Rules::new(LIMIT);
    add(&mut rules, None, None, r#"{"delay":"40ms"}"#);
    for n in 0..5 {
        assert_eq!(pass(&mut rules, 1, 2, at(n)), 0);
    }
    assert_eq!(rules.first_due(), Some(at(40)));
    assert!(rules.pop_due(at(39)).is_none());
    for n in 0..3 {
        // The third is seen late.
        assert_eq!(rules.pop_due(at(42 + n)).unwrap().to, 2);
    }
    let realised = &rules.report().rules[0].realised;
    assert_eq!(
        (realised.seen, realised.passed, realised.waiting),
        (5, 3, 2)
    );
    assert_eq!(realised.mean_delay(), Some(Duration::from_millis(42)));
    // Each was due a millisecond after the one before, and two after it went on.
    let late = realised.late.unwrap().as_secs_f64();
    assert!((late - 0.002).abs() < 0.000_02, "{late}");
}

#[test]
fn what_a_healed_rule_delays_goes_on_in_order() {
    let mut rules = Rules::new(LIMIT);
    let slow = add(&mut rules, Some(1), None, r#"{"delay":"40ms"}"#);
    add(&mut rules, Some(2), None, r#"{"delay":"1ms"}"#);
    pass(&mut rules, 1, 2, at(0));
    pass(&mut rules, 2, 1, at(1));
    pass(&mut rules, 1, 0, at(2));
    let let_go: Vec<usize> = rules.heal(slow).unwrap().iter().map(|it| it.to).collect();
    assert_eq!(let_go, [2, 0]);
    assert_eq!(rules.first_due(), Some(at(2)), "the other's stays");
}

#[test]
fn delayed_frames_have_a_limit_and_what_is_beyond_is_counted() {
    let mut rules = Rules::new(1000);
    add(&mut rules, None, None, r#"{"delay":"40ms"}"#);
    for _ in 0..20 {
        pass(&mut rules, 1, 2, NOW);
    }
    let realised = &rules.report().rules[0].realised;
    assert!(realised.waiting > 3, "{realised:?}");
    assert_eq!(realised.waiting + realised.no_room, 20);
    assert_eq!(realised.lost, 0);
}

#[test]
fn a_filter_looks_before_any_rule() {
    let mut rules = Rules::new(LIMIT);
    assert!(rules.is_idle());
    let filter = |own: &str| AddressFilter {
        port: "node2".to_owned(),
        own: vec![own.parse().unwrap()],
        check: filter::Check::Destination,
    };
    rules.set_filter(2, filter("172.30.0.12/32"));
    assert!(!rules.is_idle());
    add(&mut rules, None, None, r#"{"hole":9000}"#);
    assert_eq!(pass(&mut rules, 1, 2, NOW), 0);
    assert_eq!(pass(&mut rules, 2, 1, NOW), 1);
    assert_eq!(seen(&rules), [1]);
    rules.set_filter(2, filter("10.1.2.0/24"));
    assert_eq!(pass(&mut rules, 1, 2, NOW), 1);
    assert_eq!(rules.report().filters.len(), 1);
    assert!(rules.remove_filter(2));
    assert!(!rules.remove_filter(2));
}

#[test]
fn a_flow_s_fate_is_that_of_its_ports_names() {
    let fates = |names: [&str; 2]| {
        let mut rules = Rules::new(LIMIT);
        add(&mut rules, None, None, r#"{"loss":"50%","seed":7}"#);
        let port = |number: usize| Port {
            number,
            name: names[number],
        };
        let frame = udp([10, 1, 1, 2], [10, 1, 2, 3], (1, 2), b"it");
        let headers = Headers::of(&frame);
        let arrived = Arrived {
            from: 0,
            frame: &frame,
            number: 0,
            at: NOW,
        };
        let mut pass = || rules.pass(&port(0), &port(1), &arrived, &headers, &mut Vec::new());
        (0..64).map(|_| pass()).collect::<Vec<_>>()
    };
    assert_eq!(fates(["node1", "node2"]), fates(["node1", "node2"]));
    assert_ne!(fates(["node1", "node2"]), fates(["node1", "node3"]));
}
