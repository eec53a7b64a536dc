use std::collections::BTreeSet;

use podwire_probe::{Attempt, Outcome, Sent, TrafficEnd, TrafficRecord, TrafficRequest};
use podwire_scenario::{
    Account, End, Line, Mark, Pair, Processors, RuleChange, SabotageResult, Step, Twin, Unlike,
};

use super::*;
use crate::report::fixture::{account, results};
use crate::report::left::Sender;
use crate::report::results::LeftOut;

/// Two scenarios on two clusters, of which one failed, and one was not run.
fn failed() -> (Results, BTreeMap<usize, Left>) {
    let mut results = results();
    let base = results.scenarios[0].clone();
    let cells = ["by-hand/nftables/routes", "kubeadm/nftables/flannel"];
    results.scenarios = vec![
        ScenarioRecord {
            name: "every_pair".into(),
            outcome: Verdict::Failed,
            reason: "expected every pair to answer; seen (timed out): 1 of 4".into(),
            wire: vec!["node1 -> gateway: TCP SYN sent again (2); 2.9 s ...".into()],
            processors: Some(Processors {
                ran: 10.0,
                waited: 90.0,
            }),
            folder: Some("by-hand-nftables-routes/scenarios/every_pair/attempt-1".into()),
            again: Some("cargo xtask test --bootstrap by-hand --filter every_pair".into()),
            ..base.clone()
        },
        base.clone(),
        ScenarioRecord {
            name: "pod_addresses".into(),
            cell: cells[1].into(),
            ..base.clone()
        },
        ScenarioRecord {
            name: "node_drained".into(),
            cell: cells[1].into(),
            outcome: Verdict::Skipped,
            reason: "needs 4 nodes, this cluster has 3".into(),
            attempts: 0,
            sabotages: vec![],
            ..base
        },
    ];
    let left_out = ["headless_service", "udp_services"].map(|name| LeftOut {
        name: name.into(),
        reason: "it belongs to --profile full".into(),
    });
    results.left_out = left_out.to_vec();
    let left = Left {
        folder: results.scenarios[0].folder.clone().unwrap(),
        account: Some(account()),
        twin: Some(twin("filter, chain FORWARD: drop")),
        traffic: vec![traffic("blue-a", "blue-b")],
        consoles: vec![("node1".into(), "[   12.5] eth0: link is down".into())],
        nodes: Some("node2: its clock is 3 s ahead\n".into()),
        first_page: true,
        capture: true,
    };
    (results, BTreeMap::from([(0, left)]))
}

/// A healthy clone that has one rule less.
fn twin(rule: &str) -> Twin {
    Twin {
        whose: "a second clone".into(),
        step: "every pair".into(),
        failed: None,
        unlike: vec![Unlike {
            node: "node2".into(),
            about: "rules".into(),
            lines: [false, true]
                .map(|healthy| Line {
                    healthy,
                    text: rule.into(),
                })
                .into(),
            left_out: 2,
        }],
        unheard: vec![],
    }
}

/// One request each second, of which the third fails.
fn traffic(from: &str, host: &str) -> Sender {
    let request = |number: u64| Sent {
        at_ms: number * 1000,
        end: Some(Attempt {
            outcome: match number {
                2 => Outcome::TimedOut,
                _ => Outcome::Answered,
            },
            millis: 10,
            host: Some(host.into()),
            client: None,
            octets: None,
            error: None,
        }),
    };
    Sender {
        from: from.into(),
        began_ms: 2000,
        sent: TrafficRecord {
            request: TrafficRequest::new("10.0.0.55:80"),
            started_unix_ms: 0,
            elapsed_ms: 6000,
            missed: 0,
            ended: Some(TrafficEnd::Stopped),
            requests: (0..6).map(request).collect(),
        },
        marks: vec![Mark {
            at_ms: 1900,
            text: format!("drain {from}"),
        }],
    }
}

/// The page's body with each element in a line of its own.
fn lines(page: &str) -> String {
    let body = &page[page.find("<body>").unwrap()..];
    body.replace('<', "\n<")
        .replace("\n</", "</")
        .replace("&quot;", "\"")
}

#[test]
fn what_failed_is_told_from_the_sentence_to_the_command() {
    let (results, left) = failed();
    insta::assert_snapshot!(lines(&page(&results, &left)));
}

#[test]
fn rules_that_a_failure_has_not_kept_are_counted() {
    let (results, mut left) = failed();
    let account = left.get_mut(&0).unwrap().account.as_mut().unwrap();
    account.met.as_mut().unwrap().left_out = 7;
    let page = page(&results, &left);
    assert!(page.contains("policy drop;\nand 7 more</pre>"), "{page}");
}

#[test]
fn the_sentence_and_the_way_are_about_the_same_pair() {
    let (results, mut left) = failed();
    let account = left.get_mut(&0).unwrap().account.as_mut().unwrap();
    let pairs = account.pairs.as_mut().unwrap();
    // Another is wrong as well, and comes first.
    pairs.all[0].wrong = true;
    let lost = pairs.lost.clone().unwrap();
    let told = page(&results, &left);
    let who = format!("<b class=\"who\">{}</b>", lost.from);
    let whom = format!("<b class=\"whom\">{}</b>", lost.to);
    assert!(told.contains(&who) && told.contains(&whom), "{told}");
    assert!(told.contains("; 2 of 4 pairs wrong."), "{told}");
    let sent = format!("<li>{} sent it to {}</li>", lost.from, lost.to);
    assert!(told.contains(&sent), "{told}");
    // Of a way that is of none of them the first is told.
    let account = left.get_mut(&0).unwrap().account.as_mut().unwrap();
    account
        .pairs
        .as_mut()
        .unwrap()
        .lost
        .as_mut()
        .unwrap()
        .to
        .node = None;
    let told = page(&results, &left);
    let whom = format!("<b class=\"whom\">{}</b>", lost.from);
    assert!(told.contains(&who) && told.contains(&whom), "{told}");
}

#[test]
fn a_rule_that_the_healthy_clone_lacks_stands_before_the_others() {
    let (results, mut left) = failed();
    let left_of = left.get_mut(&0).unwrap();
    let met = left_of.account.as_mut().unwrap().met.as_mut().unwrap();
    met.rules
        .push("ip filter FORWARD: counter packets 7 bytes 9 drop".into());
    let told = page(&results, &left);
    assert!(!told.contains("that the healthy clone lacks"), "{told}");
    let twin = left.get_mut(&0).unwrap().twin.as_mut().unwrap();
    twin.unlike[0].node = "node1".into();
    twin.unlike[0].lines[0].text = "table ip filter, chain FORWARD: counter drop".into();
    let told = page(&results, &left);
    let (_, told) = told
        .split_once("that the healthy clone lacks:</p>")
        .unwrap();
    let (lacked, others) = told.split_once("<summary>Other rules of node1").unwrap();
    assert!(lacked.contains("bytes 9 drop"), "{lacked}");
    assert!(others.contains("policy drop;</pre>"), "{others}");
}

#[test]
fn traffic_is_drawn_in_the_time_of_the_steps() {
    let (results, left) = failed();
    let told = page(&results, &left);
    let (_, figure) = told.split_once("<figure>").unwrap();
    let (figure, _) = figure.split_once("</figure>").unwrap();
    // It began at 2 s; a column is a tenth of a second.
    for time in [">2.0 s</text>", ">14.0 s</text>", ">3.9 s</span> drain"] {
        assert!(figure.contains(time), "{time}: {figure}");
    }
}

/// Titles are for those who have a mouse.
#[test]
fn what_was_expected_and_whole_names_are_there_without_titles() {
    let (results, left) = failed();
    let page = page(&results, &left);
    let mut text = String::new();
    for (number, part) in page.split(" title=\"").enumerate() {
        let shown = match number {
            0 => part,
            _ => part.split_once('"').unwrap().1,
        };
        text += shown;
    }
    let cell = ">timed out (connect: no answer in time), not answered</td>";
    assert!(text.contains(cell), "{text}");
    for name in ["a2a2a (10.1.1.2 on node1)", "b3b3b (10.1.2.3 on node2)"] {
        let whole = format!("<li>blue-589d7cd7d5-{name}</li>");
        assert!(text.contains(&whole), "{text}");
    }
}

#[test]
fn what_the_nodes_were_given_is_named() {
    let (mut results, _) = failed();
    results.pod_network = Some("calico".into());
    results.pod_images = vec!["web.tar (sha256 456789abcdef)".into()];
    results.cluster_dns = true;
    let page = page(&results, &BTreeMap::new());
    for told in [
        "<p>The Pod network: calico</p>",
        "<p>Images of Pods: web.tar (sha256 456789abcdef)</p>",
        "<p>Clusters by hand have CoreDNS too.</p>",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
}

#[test]
fn a_run_that_passed_is_its_scenarios_their_times_and_what_was_not_run() {
    let (mut results, _) = failed();
    results.scenarios.remove(0);
    insta::assert_snapshot!(lines(&page(&results, &BTreeMap::new())));
}

#[test]
fn what_left_nothing_is_told_by_its_reason_and_what_ended_the_run_by_its_words() {
    let (mut results, _) = failed();
    results.error = Some("the disk is full\nreally".into());
    results.harness_tests[0].outcome = Verdict::Failed;
    results.harness_tests[0].reason = "no console".into();
    let page = page(&results, &BTreeMap::new());
    for told in [
        "It did not come to its end: the disk is full<",
        "expected every pair to answer; seen (timed out): 1 of 4</pre>",
        "--filter every_pair",
        "no console</pre>",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
}

#[test]
fn what_the_scenarios_began_with_and_had_not_settled_stands_before_all_of_them() {
    let (mut results, _) = failed();
    results.scenarios.remove(0);
    let said = "the stage workload had not settled: 5 of 6 Pods run";
    assert!(!page(&results, &BTreeMap::new()).contains("settled"));
    results.unsettled_stages = vec![said.into(); STAGES + 2];
    let page = page(&results, &BTreeMap::new());
    let (header, rest) = page.split_once("</header>").unwrap();
    let told = format!("<p class=\"error\">{said}</p>");
    assert_eq!(header.matches(&told).count(), STAGES, "{header}");
    assert!(header.contains("2 more had not settled."), "{header}");
    assert!(!rest.contains(said));
}

#[test]
fn changes_of_rules_stand_with_the_step_of_their_time() {
    let (results, mut left) = failed();
    let told = page(&results, &left);
    let step = told.find("everybody reaches everybody</li>");
    assert!(step.is_none(), "the change stands within its step");
    let (_, rest) = told
        .split_once(" everybody reaches everybody<ul class=\"rules\">")
        .unwrap();
    let (changes, _) = rest.split_once("</ul>").unwrap();
    assert!(
        changes.contains("node1's rules, by nft: 2 added, 1 deleted in ip filter"),
        "{changes}"
    );
    assert!(
        changes.contains("<code>add rule ip filter FORWARD drop</code>"),
        "{changes}"
    );

    let account = left.get_mut(&0).unwrap().account.as_mut().unwrap();
    let change = account.rules.remove(0);
    account.rules = vec![
        RuleChange {
            by: String::new(),
            ..change
        };
        timeline::CHANGES + 3
    ];
    let told = page(&results, &left);
    assert_eq!(
        told.matches("node1's rules: 2 added").count(),
        timeline::CHANGES
    );
    assert!(told.contains("<li>3 more changes of rules;"), "{told}");

    let account = left.get_mut(&0).unwrap().account.as_mut().unwrap();
    account.rules.truncate(1);
    account.rules[0].at_ms = account.steps[0].at_ms - 1;
    let told = page(&results, &left);
    let (_, earlier) = told
        .split_once("Rules that changed before any step told here:")
        .unwrap();
    let (earlier, steps) = earlier.split_once("<ol").unwrap();
    assert!(earlier.contains("node1's rules: 2 added"), "{earlier}");
    assert!(!steps.contains("node1's rules"), "each is told once");
}

#[test]
fn what_could_not_be_carried_out_has_neither_pairs_nor_a_way() {
    let (results, mut left) = failed();
    let told = Account {
        cause: None,
        expected: String::new(),
        seen: "node1 does not answer".into(),
        look: String::new(),
        pairs: None,
        met: None,
        ..account()
    };
    left.get_mut(&0).unwrap().account = Some(told);
    let page = page(&results, &left);
    assert!(page.contains("it could not be carried out"), "{page}");
    assert!(page.contains("node1 does not answer"), "{page}");
    assert!(!page.contains("<h3>Pairs"), "{page}");
}

#[test]
fn a_healthy_clone_that_failed_as_well_or_is_the_same_is_said() {
    let (results, mut left) = failed();
    let mut with = |twin: Twin| {
        left.get_mut(&0).unwrap().twin = Some(twin);
        page(&results, &left)
    };
    let same = Twin {
        unlike: vec![],
        ..twin("")
    };
    let told = with(same.clone());
    assert!(told.contains("every node are the same in both"), "{told}");
    let told = with(Twin {
        unheard: vec!["node3".into()],
        ..same.clone()
    });
    assert!(told.contains("for want of an answer: node3."), "{told}");
    assert!(!told.contains("every node are the same"), "{told}");
    let told = with(Twin {
        failed: Some("node1 times out".into()),
        ..same
    });
    assert!(told.contains("failed as well: node1 times out"), "{told}");
}

/// Elements and attributes that the templates have.
const ELEMENTS: &[&str] = &[
    "!DOCTYPE",
    "a",
    "b",
    "body",
    "code",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "head",
    "header",
    "html",
    "li",
    "line",
    "link",
    "main",
    "meta",
    "nav",
    "ol",
    "p",
    "pre",
    "rect",
    "section",
    "span",
    "style",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
];
const ATTRIBUTES: &[&str] = &[
    "aria-label",
    "charset",
    "class",
    "colspan",
    "content",
    "height",
    "href",
    "http-equiv",
    "id",
    "lang",
    "name",
    "rel",
    "role",
    "scope",
    "start",
    "tabindex",
    "title",
    "viewBox",
    "width",
    "x",
    "x1",
    "x2",
    "y",
    "y1",
    "y2",
];

/// What a reader of HTML would take for elements and their attributes: a plain reader, for pages whose
/// attributes all have values in double quotes.
fn parsed(page: &str) -> (BTreeSet<&str>, BTreeSet<&str>, Vec<&str>) {
    let (mut elements, mut attributes, mut links) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        rest = rest[begin + 1..].trim_start_matches('/');
        let end = rest.find([' ', '>']).unwrap();
        elements.insert(&rest[..end]);
        rest = &rest[end..];
        while let Some(attribute) = rest.strip_prefix(' ') {
            let Some((name, value)) = attribute.split_once("=\"") else {
                break;
            };
            if name.contains(['>', '<', ' ']) {
                break;
            }
            let (value, behind) = value.split_once('"').unwrap();
            attributes.insert(name);
            if name == "href" {
                links.push(value);
            }
            rest = behind;
        }
    }
    (elements, attributes, links)
}

fn assert_harmless(page: &str) {
    let (elements, attributes, links) = parsed(page);
    let known = |all: &[&str], it: &&str| all.contains(it);
    let strange: Vec<_> = elements.iter().filter(|it| !known(ELEMENTS, it)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let strange: Vec<_> = attributes
        .iter()
        .filter(|it| !known(ATTRIBUTES, it))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    for link in links {
        let own = link.starts_with('#') || link == "data:," || !link.contains([':', '&', '\\']);
        assert!(own && !link.starts_with("//"), "{link}");
    }
    let obeyed = |it: char| {
        it.is_control() && it != '\n' && it != '\t' || ('\u{202a}'..='\u{202e}').contains(&it)
    };
    assert!(!page.contains(obeyed));
}

#[test]
fn the_page_itself_is_harmless() {
    let (results, left) = failed();
    let page = page(&results, &left);
    assert_harmless(&page);
    assert!(page.contains(POLICY));
}

/// Everything that a guest, a server or a file can say.
fn hostile(evil: &str) -> (Results, BTreeMap<usize, Left>) {
    let (mut results, mut left) = failed();
    let evil = || evil.to_owned();
    results.error = Some(evil());
    results.unsettled_stages = vec![evil()];
    results.accelerator_reason = Some(evil());
    for it in &mut results.left_out {
        (it.name, it.reason) = (evil(), evil());
    }
    results.harness_tests[0].name = evil();
    results.harness_tests[0].reason = evil();
    results.harness_tests[0].outcome = Verdict::Failed;
    results.phases[0].name = evil();
    results.image = Some(evil());
    results.accelerator = evil();
    results.kubernetes = evil();
    results.provenance.source = evil();
    results.system = evil();
    results.pod_network = Some(evil());
    results.pod_images = vec![evil()];
    // One more, which there may be no room for.
    results.scenarios.push(results.scenarios[0].clone());
    for record in &mut results.scenarios {
        record.name = evil();
        record.cell = evil();
        record.reason = evil();
        record.wire = vec![evil()];
        record.again = Some(evil());
        record.part = Some(evil());
        record.folder = Some(evil().into());
        record.sabotages = vec![SabotageResult {
            name: evil(),
            caught: false,
            reason: evil(),
            held_by: None,
        }];
    }
    let left = left.get_mut(&0).map(std::mem::take);
    let mut left = left.unwrap();
    left.folder = evil().into();
    left.nodes = Some(evil());
    let mut unlike = twin(&evil());
    unlike.whose = evil();
    unlike.step = evil();
    unlike.unheard = vec![evil()];
    unlike.unlike[0].node = evil();
    unlike.unlike[0].about = evil();
    left.twin = Some(unlike);
    left.consoles = vec![(evil(), evil())];
    left.traffic = vec![traffic(&evil(), &evil())];
    left.traffic[0].sent.request.target = evil();
    left.traffic[0].began_ms = u64::MAX;
    let account = left.account.as_mut().unwrap();
    account.about = evil();
    account.expected = evil();
    account.seen = format!("x\n{}", evil());
    account.look = evil();
    account.steps = vec![Step {
        at_ms: u64::MAX,
        text: evil(),
    }];
    let met = account.met.as_mut().unwrap();
    met.route = evil();
    met.rules = vec![evil()];
    let pairs = account.pairs.as_mut().unwrap();
    for pair in &mut pairs.all {
        pair.from.name = evil();
        pair.to.name = evil();
        pair.expected = evil();
        pair.seen = evil();
        pair.wrong = true;
    }
    let lost = pairs.lost.as_mut().unwrap();
    lost.from.name = evil();
    lost.to.name = evil();
    lost.ended = evil();
    lost.filter = evil();
    lost.left_out = usize::MAX;
    for hop in &mut lost.hops {
        hop.from = evil();
        hop.to = evil();
    }
    for frame in &mut lost.frames {
        frame.at_us = u64::MAX;
        frame.from = evil();
        frame.to = vec![evil()];
        frame.lost = vec![evil()];
        frame.what = evil();
        frame.tunnel = Some(evil());
    }
    (results, BTreeMap::from([(0, left)]))
}

#[test]
fn nothing_that_others_said_is_more_than_text() {
    for evil in [
        "\"><script>alert(1)</script>",
        "\" onmouseover=\"alert(1)",
        "' onfocus='alert(1)' autofocus='",
        "</style></title></pre></details><img src=x onerror=alert(1)>",
        "javascript:alert(1)//",
        "<!--",
        "]]><svg onload=alert(1)>",
        "\u{1b}[2J\u{202e}\u{0}\u{9b}::error::x",
        "&lt;b&gt;&#60;i&#62;",
        "//elsewhere.invalid/x",
    ] {
        let (results, left) = hostile(evil);
        assert_harmless(&page(&results, &left));
        // Where there is no room, lists say the same.
        assert_harmless(&whole(&results, &left, Room::of(0, 50)).into_string());
    }
}

/// A run in which every scenario failed, each with everything that a failure can leave, and as much of it.
fn large(scenarios: usize, word: &str) -> (Results, BTreeMap<usize, Left>) {
    let (mut results, left) = failed();
    let record = results.scenarios[0].clone();
    let number = |number: usize| ScenarioRecord {
        name: format!("{word}_{number}"),
        cell: format!("cell/{}/{word}", number % 4),
        reason: word.repeat(100),
        part: Some(word.into()),
        ..record.clone()
    };
    results.scenarios = (0..scenarios).map(number).collect();
    results.unsettled_stages = vec![word.repeat(1000); 1000];
    let end = |number: usize| End {
        node: u32::try_from(number).ok(),
        name: format!("{word}-{number}"),
        address: Some([10, 1, 1, 2].into()),
    };
    let ends: Vec<End> = (0..100).map(end).collect();
    let mut told = left[&0].clone();
    let account = told.account.as_mut().unwrap();
    account.seen = word.repeat(2000);
    let steps = (0..1000).map(|at_ms| Step {
        at_ms,
        text: word.repeat(10),
    });
    account.steps = steps.collect();
    let pairs = account.pairs.as_mut().unwrap();
    let all = ends
        .iter()
        .flat_map(|from| ends.iter().map(move |to| (from, to)));
    let all = all.map(|(from, to)| Pair {
        from: from.clone(),
        to: to.clone(),
        expected: "answered".into(),
        seen: format!("timed out ({word})"),
        wrong: true,
    });
    pairs.all = all.collect();
    let lost = pairs.lost.as_mut().unwrap();
    lost.frames = vec![lost.frames[0].clone(); 1000];
    let sent = &mut told.traffic[0].sent;
    sent.requests = vec![sent.requests[0].clone(); 20_000];
    let places = (0..scenarios).take(FAILURES);
    (results, places.map(|place| (place, told.clone())).collect())
}

#[test]
fn a_large_run_s_page_has_its_bounds_and_still_begins_with_who_and_whom() {
    let (results, left) = large(1000, "blue");
    let told = page(&results, &left);
    assert!(told.len() <= MOST, "{} octets", told.len());
    // Nearly as much as there is room for, and not a page that gave up.
    assert!(told.len() > MOST / 4, "{} octets", told.len());
    assert!(
        told.contains("<b class=\"who\">blue-0 (10.1.1.2 on node0)"),
        "{}",
        &told[..9000]
    );
    assert!(told.contains("blue_0"));
    // Each character of it takes six octets.
    let (results, left) = large(1000, "\u{1}\"\u{202e}");
    let worst = page(&results, &left);
    assert!(worst.len() <= MOST, "{} octets", worst.len());
}
