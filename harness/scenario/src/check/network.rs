//! What a node's kernel does with packets, of what its evidence says.

use std::fs;
use std::path::Path;

/// Lines of each kind, without what changes by itself: counters, handles, lifetimes, what packets have put into a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Routes of both families and all tables, neighbours that somebody has written down, and behind them the rules
    /// that say which table is asked (ip-rule(8)).
    pub(crate) routes: Vec<String>,
    /// nftables' rule set, and what iptables has of it, each line behind its table and chain.
    pub(crate) rules: Vec<String>,
    /// Of the network.
    pub(crate) sysctls: Vec<String>,
}

impl State {
    /// Of one node, from its folder of an evidence; nothing where it has not said all of it.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = |name| fs::read_to_string(folder.join(name)).ok();
        Self::of(&text("network.txt")?, &text("sysctl.txt")?)
    }

    fn of(network: &str, sysctls: &str) -> Option<Self> {
        let mut state = Self::default();
        let (mut section, mut within) = (String::new(), Within::default());
        let mut policy = Vec::new();
        for line in network.lines() {
            if let Some(title) = line.trim_start_matches("stdout: ").strip_prefix("# ")
                && SECTIONS.contains(&title)
            {
                title.clone_into(&mut section);
                continue;
            }
            match section.as_str() {
                "ip rule" | "ip -6 rule" => policy.push(format!("{section}: {}", stable(line))),
                // Of a Pod's own device, whose name is by chance.
                ROUTES if line.contains(" dev veth") => {}
                // Made of the node's addresses, some of which are by chance.
                ROUTES if is_of_kernel(line) => {}
                ROUTES => state.routes.push(stable(line)),
                "ip neighbour" if line.contains("PERMANENT") => {
                    state.routes.push(line.trim().to_owned());
                }
                LAST => state.rules.extend(rule(line, &mut within)),
                _ => {}
            }
        }
        // The kernel lists neighbours as it finds them. The order of rules is what they mean.
        state.routes.sort();
        state.routes.append(&mut policy);
        let lines = sysctls.lines();
        let all = lines.map(|line| line.trim_start_matches("stdout: "));
        let varies = |line: &str| VARIES.iter().any(|it| line.contains(it));
        let own = all.filter(|line| line.starts_with("net.") && !varies(line));
        state.sysctls = own.map(str::to_owned).collect();
        let is_whole = section == LAST && !state.sysctls.is_empty();
        is_whole.then_some(state)
    }
}

/// The title of what network.txt ends with.
const LAST: &str = "nft list ruleset";

/// Of all tables ip(8) shows both families' routes.
const ROUTES: &str = "ip route show table all";

/// What the evidence asks for, one after the other, in network.txt.
const SECTIONS: [&str; 7] = [
    "ip address",
    "ip rule",
    "ip -6 rule",
    ROUTES,
    "ip neighbour",
    "bridge fdb",
    LAST,
];

/// sysctls that count, or are of a Pod's own device.
const VARIES: [&str; 3] = ["nf_conntrack_count", ".veth", "dropped"];

/// A route of the table `local` that nobody has written down.
fn is_of_kernel(line: &str) -> bool {
    line.contains(" table local ") && line.contains(" proto kernel ")
}

/// Puts rules in an order that those of two nodes have in common: kube-proxy makes its chains in none, and
/// elements are where their addresses have them. Within a chain the order of rules is what they mean.
pub(crate) fn in_order(rules: &mut [String]) {
    let within = |rule: &str| rule.split(": ").next().unwrap_or(rule).to_owned();
    rules.sort_by_cached_key(|rule| {
        let within = within(rule);
        let is_of_set = [", set ", ", map "].iter().any(|it| within.contains(it));
        (within, is_of_set.then(|| rule.clone()))
    });
}

/// What a line of nft's is in.
#[derive(Default)]
struct Within {
    /// What has been opened, from the table on.
    opened: Vec<String>,
    /// Whether it is a set or a map that packets fill.
    filled: bool,
    /// Whether it is among the elements.
    elements: bool,
}

/// A line of nft's, behind what it is in; a line that only opens or closes something is none.
fn rule(line: &str, within: &mut Within) -> Vec<String> {
    let bare = line.trim();
    if bare.is_empty() || bare.starts_with('#') {
        return Vec::new();
    }
    if bare == "}" {
        within.opened.pop();
        (within.filled, within.elements) = (false, false);
        return Vec::new();
    }
    if let Some(opened) = bare.strip_suffix(" {") {
        within.opened.push(opened.to_owned());
        return Vec::new();
    }
    within.filled |= bare.starts_with("flags ") && bare.contains("dynamic");
    within.elements |= bare.starts_with("elements = ");
    // Which endpoint a client has come to stick to is by chance.
    if within.filled && within.elements {
        return Vec::new();
    }
    let bare = element(bare);
    let is_set = |it: &String| it.starts_with("set ");
    let elements = match within.opened.last().is_some_and(is_set) {
        true => bare.split(", ").collect(),
        false => vec![bare],
    };
    let within = within.opened.join(", ");
    let rules = elements.into_iter().map(stable);
    rules.map(|rule| format!("{within}: {rule}")).collect()
}

/// A line without what stands around it among elements: the first of them is no other than the rest.
fn element(line: &str) -> &str {
    let line = line.strip_prefix("elements = { ").unwrap_or(line);
    line.trim_end_matches([',', '}', ' '])
}

/// A rule that stands behind its table and its chain or map (`ip filter FORWARD: drop`) as [`State::rules`] has it, in
/// whichever of both it is.
pub(crate) fn as_state_has(rule: &str) -> Option<[String; 2]> {
    let (place, rule) = rule.split_once(": ")?;
    let (table, chain) = place.rsplit_once(' ')?;
    let rule = stable(element(rule));
    Some(["chain", "map"].map(|kind| format!("table {table}, {kind} {chain}: {rule}")))
}

/// A line without what counts or counts down: `packets 63 bytes 3780`, `expires 2h59m58s`, and the remarks
/// `# handle 7` and `# count 2`.
fn stable(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split_whitespace().peekable();
    while let Some(word) = rest.next() {
        match word {
            "packets" | "bytes" if words.last() == Some(&"counter") => {
                rest.next();
            }
            "expires" => {
                rest.next();
            }
            "#" if matches!(rest.peek(), Some(&"handle" | &"count")) => break,
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_no_part_of_it() {
        let network = "\
exit status 0
stdout: # ip address
1: lo: <LOOPBACK,UP,LOWER_UP>
# ip rule
0:\tfrom all lookup local
32765:\tfrom 10.1.0.0/16 lookup 100
32766:\tfrom all lookup main
# ip -6 rule
0:\tfrom all lookup local
# ip route show table all
default via 172.30.0.1 dev eth0 table 100
default via 172.30.0.1 dev eth0 proto dhcp
10.1.2.0/24 via 172.30.0.12 dev eth0 expires 80sec
local 10.3.0.0/16 dev lo table local scope host
local 10.1.0.1 dev cni0 table local proto kernel scope host src 10.1.0.1
fe80::/64 dev veth4dd93d34 proto kernel metric 256 pref medium
default via fe80::1 dev eth0 proto ra metric 1024 expires 1790sec hoplimit 64 pref medium
multicast ff00::/8 dev eth0 table local proto kernel metric 256 pref medium
# ip neighbour
10.1.0.3 dev cni0 lladdr 4a:1b:54:55:1c:b7 REACHABLE
172.30.0.12 dev eth0 lladdr 02:00:00:00:00:01 PERMANENT
# bridge fdb
33:33:00:00:00:01 dev eth0 self permanent
# nft list ruleset
table ip kube-proxy {
\tset cluster-ips {
\t\ttype ipv4_addr
\t\telements = { 10.0.0.1, 10.0.0.10 }
\t}
\tmap service-ips {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = { 10.0.0.1 . tcp . 443 : goto service-2QRHZV4L,
\t\t\t     10.0.0.10 . udp . 53 : goto service-NWBZK7IH }
\t}
\tset affinity-NWBZK7IH {
\t\ttype ipv4_addr
\t\tsize 65535\t# count 2
\t\tflags dynamic,timeout
\t\ttimeout 3h
\t\telements = { 10.1.1.2 expires 2h59m58s,
\t\t\t     10.1.1.3 expires 58s }
\t}
\tset let-in {
\t\ttype ipv4_addr
\t\tflags timeout
\t\telements = { 10.1.1.2 timeout 3h expires 2h59m58s980ms, 10.1.1.3 expires 58s timeout 1m }
\t}
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tip saddr 10.1.0.0/16 counter packets 63 bytes 3780 accept # handle 7
\t}
}
# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
\tchain FORWARD {
\t\t counter packets 178 bytes 12158 jump FLANNEL-FWD
\t}
}
";
        let sysctls = "exit status 0\nstdout: net.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_count = 7\n\
                       net.ipv4.conf.veth12ab.forwarding = 1\nkernel.hostname = node1\nnet.ipv4.conf.all.rp_filter = 2\n";
        let State {
            routes,
            mut rules,
            sysctls,
        } = State::of(network, sysctls).unwrap();
        in_order(&mut rules);
        insta::assert_snapshot!(routes.join("\n"), @"
        10.1.2.0/24 via 172.30.0.12 dev eth0
        172.30.0.12 dev eth0 lladdr 02:00:00:00:00:01 PERMANENT
        default via 172.30.0.1 dev eth0 proto dhcp
        default via 172.30.0.1 dev eth0 table 100
        default via fe80::1 dev eth0 proto ra metric 1024 hoplimit 64 pref medium
        local 10.3.0.0/16 dev lo table local scope host
        ip rule: 0: from all lookup local
        ip rule: 32765: from 10.1.0.0/16 lookup 100
        ip rule: 32766: from all lookup main
        ip -6 rule: 0: from all lookup local
        ");
        insta::assert_snapshot!(rules.join("\n"), @"
        table ip filter, chain FORWARD: counter jump FLANNEL-FWD
        table ip kube-proxy, chain forward: type filter hook forward priority filter; policy accept;
        table ip kube-proxy, chain forward: ip saddr 10.1.0.0/16 counter accept
        table ip kube-proxy, map service-ips: 10.0.0.1 . tcp . 443 : goto service-2QRHZV4L
        table ip kube-proxy, map service-ips: 10.0.0.10 . udp . 53 : goto service-NWBZK7IH
        table ip kube-proxy, map service-ips: type ipv4_addr . inet_proto . inet_service : verdict
        table ip kube-proxy, set affinity-NWBZK7IH: flags dynamic,timeout
        table ip kube-proxy, set affinity-NWBZK7IH: size 65535
        table ip kube-proxy, set affinity-NWBZK7IH: timeout 3h
        table ip kube-proxy, set affinity-NWBZK7IH: type ipv4_addr
        table ip kube-proxy, set cluster-ips: 10.0.0.1
        table ip kube-proxy, set cluster-ips: 10.0.0.10
        table ip kube-proxy, set cluster-ips: type ipv4_addr
        table ip kube-proxy, set let-in: 10.1.1.2 timeout 3h
        table ip kube-proxy, set let-in: 10.1.1.3 timeout 1m
        table ip kube-proxy, set let-in: flags timeout
        table ip kube-proxy, set let-in: type ipv4_addr
        ");
        insta::assert_snapshot!(sysctls.join("\n"), @"
        net.ipv4.ip_forward = 1
        net.ipv4.conf.all.rp_filter = 2
        ");
    }

    #[test]
    fn a_node_that_has_not_said_all_is_not_compared() {
        let (network, sysctls) = ("# ip route\n# nft list ruleset\n", "net.a = 1\n");
        assert!(State::of(network, sysctls).is_some());
        assert_eq!(State::of("node1 does not answer", sysctls), None);
        assert_eq!(State::of("# ip route\n", sysctls), None);
        assert_eq!(State::of(network, "node1 does not answer"), None);
        assert_eq!(State::read(Path::new("/nowhere")), None);
    }
}
