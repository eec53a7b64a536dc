//! The ports of a control plane: free before init, and after it each for those whom it serves.

use std::collections::{BTreeMap, BTreeSet};

use podwire_scenario::{Failure, Lab, ensure, ensure_none, secs};

/// Ports that `kubeadm init` checks before it begins, and that the control plane then listens on.
const PORTS: [u16; 6] = [6443, 10250, 10257, 10259, 2379, 2380];

const LISTENING: &str = "ss -Hltn; ls -A /var/lib/etcd 2>/dev/null | sed 's/^/etcd /'";

/// Of E3.
pub(super) async fn free_before_and_used(lab: &Lab) -> anyhow::Result<()> {
    lab.step("ports and etcd's folder: free on node2, where init has not run, used on node1");
    let before = lab.node(2).run(LISTENING).await?.stdout;
    let after = lab.node(1).run(LISTENING).await?.stdout;
    let has_data = |answer: &str| answer.lines().any(|line| line.starts_with("etcd "));
    let wanted = BTreeSet::from(PORTS);
    let ports = |answer: &str| listening(answer).into_keys().collect::<BTreeSet<u16>>();
    ensure_none!(&wanted & &ports(&before), Answered, "none of init's ports used on node2");
    ensure!(!has_data(&before), Answered, "etcd's folder empty on node2", "{before}");
    ensure_none!(&wanted - &ports(&after), Absent, "none of init's ports free on node1");
    ensure!(has_data(&after), Absent, "etcd's data on node1", "an empty folder");
    Ok(())
}

/// The ports in what `ss -Hltn` says (state, queues, local address, peer), and each one's addresses.
fn listening(answer: &str) -> BTreeMap<u16, BTreeSet<&str>> {
    let mut ports: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    let sockets = answer.lines().filter(|line| line.starts_with("LISTEN"));
    let local = sockets.filter_map(|line| line.split_whitespace().nth(3)?.rsplit_once(':'));
    for (address, port) in local.filter_map(|(address, port)| Some((address, port.parse().ok()?))) {
        ports.entry(port).or_default().insert(address);
    }
    ports
}

/// Of E5: whom the control plane's ports serve. The documents' table calls the first three "Self".
const ROLES: [(u16, Role); 6] = [
    (10257, Role::Itself),
    (10259, Role::Itself),
    (2381, Role::Itself),
    (2379, Role::ApiServers),
    (6443, Role::All),
    (10250, Role::All),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Loopback only.
    Itself,
    /// Loopback, and the node's address.
    ApiServers,
    /// Every address.
    All,
}

/// Whether a TCP connection is made, one port after the other: `6443 open`.
const CONNECT: &str = "\
for port in 10257 10259 2381 2379 6443 10250; do \
timeout 5 bash -c \"exec 3<>/dev/tcp/$node1/$port\" 2>/dev/null && echo $port open || echo $port shut; \
done";

/// E5.
pub(super) async fn roles(lab: &Lab) -> anyhow::Result<()> {
    lab.step("whom the control plane's ports serve: itself, API servers, everybody (E5)");
    let address = lab.node(1).address().to_string();
    let listens = lab.node(1).run("ss -Hltn").await?;
    let connect = format!("node1={address}; {CONNECT}");
    let connects = lab.node(2).run(connect).within(secs(20)).await?;
    Ok(serve_as_meant(&address, &listens.stdout, &connects.stdout)?)
}

fn serve_as_meant(node1: &str, listens: &str, connects: &str) -> Result<(), Failure> {
    let listening = listening(listens);
    for (port, role) in ROLES {
        let found = listening.get(&port).cloned().unwrap_or_default();
        let right = match role {
            Role::Itself => found == BTreeSet::from(["127.0.0.1"]),
            Role::ApiServers => found == BTreeSet::from(["127.0.0.1", node1]),
            Role::All => found == BTreeSet::from(["*"]) || found == BTreeSet::from(["0.0.0.0"]),
        };
        ensure!(right, WrongAnswer, "{port} to serve {role:?}", "it listens at {found:?}");
        let open = connects.lines().any(|line| line == format!("{port} open"));
        if role == Role::Itself {
            ensure!(!open, Answered, "{port} of node1 shut for node2", "{connects}");
        } else {
            ensure!(open, Refused, "{port} of node1 open for node2", "{connects}");
        }
    }
    Ok(())
}

pub(super) async fn pass_the_controller_managers_on(lab: &Lab) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    let address = node1.address();
    let pass_on = format!(
        "systemd-run --quiet --collect socat TCP-LISTEN:10257,bind={address},fork TCP:127.0.0.1:10257 && \
         until ss -Hltn | grep -q {address}:10257; do sleep 0.1; done"
    );
    node1.run(pass_on).within(secs(20)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use podwire_scenario::Cause;

    use super::*;

    const SAID: &str = "\
LISTEN 0 4096 127.0.0.1:10257 0.0.0.0:*
LISTEN 0 4096 127.0.0.1:10259 0.0.0.0:*
LISTEN 0 4096 127.0.0.1:2381 0.0.0.0:*
LISTEN 0 4096 127.0.0.1:2379 0.0.0.0:*
LISTEN 0 4096 172.30.0.11:2379 0.0.0.0:*
LISTEN 0 4096 *:6443 *:*
LISTEN 0 4096 *:10250 *:*
LISTEN 0 128 [::]:22 [::]:*
etcd member
";
    const CONNECTED: &str = "10257 shut\n10259 shut\n2381 shut\n2379 open\n6443 open\n10250 open\n";

    #[test]
    fn ports_are_read_from_every_form_of_address() {
        let ports: Vec<u16> = listening(SAID).into_keys().collect();
        assert_eq!(ports, [22, 2379, 2381, 6443, 10250, 10257, 10259]);
    }

    #[test]
    fn a_port_that_serves_others_than_it_should_is_named() {
        assert_eq!(serve_as_meant("172.30.0.11", SAID, CONNECTED), Ok(()));
        let failure = |listens: &str, connects: &str| {
            serve_as_meant("172.30.0.11", listens, connects).unwrap_err()
        };
        let wider = failure(&SAID.replace("127.0.0.1:10259", "*:10259"), CONNECTED);
        assert_eq!(wider.cause, Cause::WrongAnswer);
        assert!(wider.expected.contains("10259"), "{wider}");
        let silent = failure(&SAID.replace("*:6443", "127.0.0.1:6443"), CONNECTED);
        assert_eq!(silent.cause, Cause::WrongAnswer);
        let forwarded = failure(SAID, &CONNECTED.replace("2381 shut", "2381 open"));
        assert_eq!(forwarded.cause, Cause::Answered);
        let shut = failure(SAID, &CONNECTED.replace("10250 open", "10250 shut"));
        assert_eq!(shut.cause, Cause::Refused);
    }
}
