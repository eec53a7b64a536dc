//! Two segments with a router between them, on real QEMU.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use podwire_lan::witness::{Content, Moment, Sighting, Witness};
use podwire_tests::{Routed, Setup, Who, subnet};
use podwire_vm::Guest;

/// For short commands in a guest that may be emulated.
const LIMIT: Duration = Duration::from_secs(60);

async fn ping(guest: &Guest, to: &str) -> bool {
    let command = format!("ping -c 1 -W 5 {to}");
    guest.run(&command, LIMIT).await.unwrap().status.success()
}

async fn forward(router: &Guest, on: bool) {
    let value = u8::from(on);
    let command = format!("echo {value} >/proc/sys/net/ipv4/ip_forward");
    router.run_ok(&command, LIMIT).await.unwrap();
}

/// `segment 1: node1 -> router-1`.
fn hop(frame: &Sighting) -> String {
    let segment = frame.segment.unwrap();
    format!("{segment}: {} -> {}", frame.from, frame.to.join(", "))
}

/// All that crossed the wire between the two nodes since a moment, hop by hop.
fn hops(routed: &Routed, since: Moment) -> BTreeSet<String> {
    let (one, two) = (address(Who::Node1, 0), address(Who::Node2, 1));
    let question = |witness: &Witness| witness.between(one.into(), two.into(), since);
    let seen = routed.segment.ask(question).unwrap();
    seen.frames.iter().map(hop).collect()
}

fn address(who: Who, segment: u8) -> Ipv4Addr {
    who.address(segment).unwrap()
}

const THERE_AND_BACK: [&str; 4] = [
    "segment 1: node1 -> router-1",
    "segment 1: router-1 -> node1",
    "segment 2: node2 -> router-2",
    "segment 2: router-2 -> node2",
];

/// Every question of ARP's is about the segment that it is asked on.
fn arp_stays(routed: &Routed) {
    let seen = routed.segment.ask(|it| it.all(Moment::default())).unwrap();
    let mut asked = 0;
    for frame in &seen.frames {
        let Content::Arp(arp) = &frame.content else {
            continue;
        };
        asked += 1;
        let ports = frame.to.iter().chain([&frame.from]);
        let of_second = ports.map(|port| ["gateway-2", "node2", "router-2"].contains(&&**port));
        let of_second: BTreeSet<bool> = of_second.collect();
        assert_eq!(of_second.len(), 1, "{frame}");
        let range = subnet(u8::from(of_second.contains(&true)));
        assert!(range.contains(arp.target), "{frame}");
        // One that probes has no address yet (RFC 5227).
        assert!(
            arp.sender.is_unspecified() || range.contains(arp.sender),
            "{frame}"
        );
    }
    assert!(asked > 0, "nobody asked for anybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_two_segments_reach_each_other_by_the_router_alone() {
    let setup = Setup::from_env(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scratch = setup.scratch().unwrap();
    let dir = scratch.path().join("made");
    let routed = Routed::made(&setup, &dir).await.unwrap();
    let [node1, node2, router] = [
        routed.guest(Who::Node1).await.unwrap(),
        routed.guest(Who::Node2).await.unwrap(),
        routed.guest(Who::Router).await.unwrap(),
    ];

    // The first card is the first segment's.
    let cards = "cat /sys/class/net/eth0/address /sys/class/net/eth1/address";
    let cards = router.run_ok(cards, LIMIT).await.unwrap();
    assert_eq!(cards, "52:54:00:00:01:02\n52:54:00:00:02:02\n");
    let default = "ip -4 route show default | cut -d ' ' -f 3";
    for (guest, by) in [
        (&node1, "172.30.0.1\n"),
        (&node2, "172.30.1.2\n"),
        (&router, "172.30.0.1\n"),
    ] {
        assert_eq!(guest.run_ok(default, LIMIT).await.unwrap(), by);
    }

    assert!(!ping(&node1, "node2").await, "nobody forwards yet");
    forward(&router, true).await;
    let since = routed.segment.ask(Witness::now).unwrap();
    assert!(ping(&node1, "node2").await);
    assert_eq!(
        hops(&routed, since),
        THERE_AND_BACK.map(str::to_owned).into()
    );
    // The second segment's DNS server and the host outside are beyond the router as well.
    assert!(ping(&node2, "node1").await);
    assert!(ping(&node2, "outside.test").await);

    let serve = "systemd-run -q --unit serve /usr/local/bin/probe serve --port 8080 && \
                 until [ \"$(ss -Hltn sport = 8080)\" ]; do sleep 0.1; done";
    node2.run_ok(serve, LIMIT).await.unwrap();
    let ask = format!(
        r#"probe fetch '{{"targets":["{}:8080"],"limit_ms":20000}}'"#,
        address(Who::Node2, 1)
    );
    let answer = node1.run_ok(&ask, LIMIT).await.unwrap();
    assert!(answer.contains("172.30.0.11"), "{answer}");
    arp_stays(&routed);

    let frozen = routed.freeze(&dir).await.unwrap();
    let clone = frozen
        .clone_in(&setup, &scratch.path().join("clone"))
        .await
        .unwrap();
    let node1 = clone.guest(Who::Node1).await.unwrap();
    let router = clone.guest(Who::Router).await.unwrap();
    let since = clone.segment.ask(Witness::now).unwrap();
    let answer = node1.run_ok(&ask, LIMIT).await.unwrap();
    assert!(answer.contains("172.30.0.11"), "{answer}");
    assert_eq!(
        hops(&clone, since),
        THERE_AND_BACK.map(str::to_owned).into()
    );
    forward(&router, false).await;
    assert!(!ping(&node1, "172.30.1.12").await, "there is another way");
    forward(&router, true).await;
    assert!(ping(&node1, "172.30.1.12").await);
    arp_stays(&clone);
    clone.kill().await;
}
