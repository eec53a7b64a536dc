//! Whether who would have to act for a condition can: it does not run, is refused, or has done its part.
//!
//! What a wait needs is data ([`Needs`]); from time to time the wait asks, and [`Evidence`] that nothing
//! will come ends it. No question costs more than a command in a guest.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use podwire_cluster::config::STATIC_PODS;
use podwire_cluster::stuck::{self, StuckUnit};
use podwire_cluster::{Bootstrap, addresses};

use crate::lab::Lab;
use crate::wait::evidence::Evidence;
use crate::wait::needs::Needs;

/// A look in between might have met something that is about to act.
const LOOKS: u32 = 3;

/// The network beside kube-proxy, a route of another node's say, may need a moment more.
const LOOKS_AT_RULES: u32 = 4;

/// Refused this often, a daemon is not just early.
const REFUSALS: u32 = 3;

/// Of kube-proxy's log: what it says now, over a restart or two.
const LAST_LINES: u32 = 50;

/// So many retransmissions in a row are seconds in which the other side's kernel, which needs no
/// process for that, has acknowledged nothing: on a segment without latency it is not just slow.
const RETRANSMISSIONS: u32 = 4;

impl Lab {
    /// Why who is needed will not act, where that is clear.
    pub(super) async fn prospects(&self, needs: &Needs) -> anyhow::Result<Option<Evidence>> {
        let lab = self;
        match needs {
            Needs::Time => Ok(None),
            Needs::Kubelet(number) => kubelet(lab, *number).await,
            Needs::ControlPlane(name) => control_plane(lab, name).await,
            Needs::Deployment { name, wanted } => deployment(lab, name, *wanted).await,
            Needs::Pods {
                namespace,
                labels,
                wanted,
            } => {
                let of = ListParams::default().labels(labels);
                pods(lab, namespace, &of, *wanted).await
            }
            Needs::ClusterDns => {
                let dns = ListParams::default().labels("k8s-app=kube-dns");
                pods(lab, "kube-system", &dns, 1).await
            }
            Needs::KubeProxy {
                node,
                service,
                pods,
            } => kube_proxy(lab, *node, *service, pods).await,
            Needs::Silence {
                node,
                command,
                means,
            } => {
                let said = lab.node(*node).run(command).await?;
                let last = said.text().lines().last();
                Ok(last.map(|said| Evidence::certain(format!("{means}: {said}"))))
            }
            Needs::Way { from, to } => {
                let report = lab.ask(from, to.address).await?;
                // Another that answers in its place leads nowhere either.
                let dead = !report.hosts().contains_key(to.name.as_str());
                let why = || format!("nor does a new connection to {to}");
                Ok(dead.then(|| Evidence::unchanged_for(LOOKS, why())))
            }
            Needs::All(needs) => {
                for each in needs {
                    let found = Box::pin(lab.prospects(each)).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok(None)
            }
        }
    }
}

async fn kubelet(lab: &Lab, number: u32) -> anyhow::Result<Option<Evidence>> {
    let answer = lab.node(number).run(ask_kubelet()).await?.stdout;
    if answer.lines().any(|line| line == BOOTING) {
        return Ok(None);
    }
    let node = addresses::node_name(number);
    let down = stuck::unit(&answer).map(|found| unit_down(found, "kubelet", &node));
    Ok(down.or_else(|| unheard(&answer, &node)))
}

/// What stands for a system whose boot has not ended: what does not run yet may still be started.
const BOOTING: &str = "booting";

/// In one go: the unit, its connections to the API server and, where one of them waits to be
/// acknowledged, whether a new one is: the next retransmission of the old one may be many seconds
/// away, and the API server's node be heard again meanwhile.
fn ask_kubelet() -> String {
    format!(
        "case $(systemctl is-system-running) in initializing|starting) echo {BOOTING} ;; esac; \
         {show}; s=$(ss -Htnpo state connected dport = :{port} | grep kubelet); echo \"$s\"; \
         case $s in *'timer:(on,'*) \
         r=$(timeout 2 bash -c ': </dev/tcp/{server}/{port}' 2>&1) || \
         case $r in *refused*) ;; *) echo {UNANSWERED} ;; esac ;; esac; true",
        show = stuck::show("kubelet"),
        server = addresses::api_address(),
        port = addresses::API_PORT,
    )
}

/// What stands for a connection that nobody took or refused.
const UNANSWERED: &str = "unanswered";

/// `answer` has what `ss -to` shows of connections to the API server: `timer:(on,1.2sec,4)` has the
/// retransmissions under way.
fn unheard(answer: &str, node: &str) -> Option<Evidence> {
    if !answer.lines().any(|line| line == UNANSWERED) {
        return None;
    }
    let timers = answer.lines().filter_map(|line| {
        let (timer, _) = line.split_once("timer:(on,")?.1.split_once(')')?;
        timer.rsplit_once(',')?.1.parse::<u32>().ok()
    });
    let most = timers.max()?;
    (most >= RETRANSMISSIONS).then(|| {
        let why = format!(
            "kubelet of {node} sends to the API server again and again, and nothing is acknowledged"
        );
        Evidence::unchanged_for(LOOKS, why).look(format!(
            "the way between {node} and node1: `ip neigh` and `ip route` of both (does somebody else \
             have an address of theirs?), then the wire capture"
        ))
    })
}

fn unit_down(found: StuckUnit, name: &str, node: &str) -> Evidence {
    let found = match found {
        StuckUnit::NotRunning(state) => {
            Evidence::certain(format!("{name} of {node} is not running ({state})"))
        }
        StuckUnit::EndsAgain => {
            Evidence::unchanged_for(LOOKS, format!("{name} of {node} ends again and again"))
        }
    };
    found.look(format!(
        "`systemctl status {name}` and `journalctl -u {name}` of {node}"
    ))
}

async fn control_plane(lab: &Lab, name: &str) -> anyhow::Result<Option<Evidence>> {
    let node1 = lab.node(1);
    if lab.bootstrap() == Bootstrap::ByHand {
        let shown = node1.run(stuck::show(name)).await?;
        return Ok(stuck::unit(&shown.stdout).map(|found| unit_down(found, name, node1.name())));
    }
    let manifest = format!("{STATIC_PODS}/{name}.yaml");
    let ask = format!(
        "[ -e {manifest} ] || echo missing; {}",
        stuck::show("kubelet")
    );
    let answer = node1.run(ask).await?.stdout;
    if answer.starts_with("missing") {
        let why = format!("{node1} has no manifest of {name}");
        return Ok(Some(Evidence::certain(why).look(manifest)));
    }
    Ok(stuck::unit(&answer).map(|found| unit_down(found, "kubelet", node1.name())))
}

async fn deployment(lab: &Lab, name: &str, wanted: usize) -> anyhow::Result<Option<Evidence>> {
    let deployments: Api<Deployment> = Api::default_namespaced(lab.cluster().api());
    if deployments.get_opt(name).await?.is_none() {
        let why = format!("there is no Deployment {name}");
        return Ok(Some(Evidence::certain(why)));
    }
    let own = ListParams::default().labels(&format!("app={name}"));
    pods(lab, "default", &own, wanted).await
}

async fn pods(
    lab: &Lab,
    namespace: &str,
    of: &ListParams,
    wanted: usize,
) -> anyhow::Result<Option<Evidence>> {
    let client = lab.cluster().api();
    let api: Api<Pod> = match namespace {
        "" => Api::all(client),
        namespace => Api::namespaced(client, namespace),
    };
    let listed = api.list(of).await?;
    match next_to_act(&listed.items, wanted) {
        Actor::Nobody => Ok(None),
        Actor::ControllerManager => control_plane(lab, "kube-controller-manager").await,
        Actor::Scheduler => control_plane(lab, "kube-scheduler").await,
        Actor::Kubelet(_, Some(stumbles)) => Ok(Some(stumbles)),
        Actor::Kubelet(number, None) => kubelet(lab, number).await,
    }
}

/// Who has the next step to take.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Actor {
    Nobody,
    ControllerManager,
    Scheduler,
    /// Of this node; and what a container of the Pod stumbles over.
    Kubelet(u32, Option<Evidence>),
}

fn next_to_act(pods: &[Pod], wanted: usize) -> Actor {
    let alive = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let ready = |pod: &Pod| {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|it| it.type_ == "Ready" && it.status == "True")
    };
    let waiting: Vec<&Pod> = pods
        .iter()
        .filter(alive)
        .filter(|pod| !ready(pod))
        .collect();
    let node = |pod: &Pod| {
        let name = pod.spec.as_ref()?.node_name.as_deref()?;
        addresses::node_number(name)
    };
    // One that stumbles says most.
    let bound = waiting
        .iter()
        .filter_map(|pod| Some((node(pod)?, stumbles(pod))));
    let bound: Vec<(u32, Option<Evidence>)> = bound.collect();
    if let Some((number, found)) = bound.iter().find(|(_, found)| found.is_some()) {
        return Actor::Kubelet(*number, found.clone());
    }
    if pods.iter().filter(alive).count() < wanted {
        return Actor::ControllerManager;
    }
    if waiting.iter().any(|pod| node(pod).is_none()) {
        return Actor::Scheduler;
    }
    match bound.into_iter().next() {
        Some((number, found)) => Actor::Kubelet(number, found),
        None => Actor::Nobody,
    }
}

/// What the kubelet says of a container that it cannot start, or that does not stay.
fn stumbles(pod: &Pod) -> Option<Evidence> {
    let found = stuck::container(pod)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let why = format!("{name}: container {}: {}", found.name, found.reason);
    let at = format!("`kubectl describe pod {name}`, and its container's log");
    Some(Evidence::unchanged_for(LOOKS, why).look(at))
}

async fn kube_proxy(
    lab: &Lab,
    number: u32,
    service: Ipv4Addr,
    behind: &[Ipv4Addr],
) -> anyhow::Result<Option<Evidence>> {
    let node = lab.node(number);
    let answer = node.run(ask_proxy(service, behind)).await?.stdout;
    let proxy = Proxy::read(&answer);
    if let Some(found) = proxy.evidence(node.name(), service, behind) {
        return Ok(Some(found));
    }
    if lab.bootstrap() == Bootstrap::ByHand {
        return Ok(None);
    }
    // A DaemonSet's Pod: it may be on its way.
    let own = ListParams::default()
        .labels("k8s-app=kube-proxy")
        .fields(&format!("spec.nodeName={node}"));
    pods(lab, "kube-system", &own, 0).await
}

/// In one go: the unit, its connections to the API server and how often that refused it, and which
/// of the addresses the kernel's rules name. With kubeadm the log is a container's.
fn ask_proxy(service: Ipv4Addr, pods: &[Ipv4Addr]) -> String {
    let addresses: String = pods
        .iter()
        .chain([&service])
        .map(|address| format!(" -e {address}"))
        .collect();
    format!(
        "{show}; \
         cat /proc/[0-9]*/comm 2>/dev/null | grep -x -m 1 kube-proxy | sed 's/^/runs=/'; \
         grep -s -l '(kube-proxy) T ' /proc/[0-9]*/stat | sed 's/.*/halted=/'; \
         ss -Htnp state established dport = :{port} | grep -m 1 kube-proxy | sed 's/.*/connected=/'; \
         echo refused=$({{ journalctl -u kube-proxy -o cat -n {LAST_LINES}; \
         tail -q -n {LAST_LINES} /var/log/containers/kube-proxy-*; }} 2>/dev/null | grep -c 'connection refused'); \
         {{ nft list table ip kube-proxy; iptables-save -t nat; }} 2>/dev/null | grep -o -w -F{addresses} | \
         sort -u | sed 's/^/names=/'",
        show = stuck::show("kube-proxy"),
        port = addresses::API_PORT,
    )
}

/// What a node's kube-proxy does, and has done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proxy {
    unit: Option<StuckUnit>,
    runs: bool,
    halted: bool,
    connected: bool,
    refused: u32,
    names: BTreeSet<Ipv4Addr>,
}

impl Proxy {
    fn read(answer: &str) -> Self {
        let of = |key: &str| {
            let pairs = answer.lines().filter_map(|line| line.split_once('='));
            let found = pairs.filter(move |(name, _)| *name == key);
            found.map(|(_, value)| value).collect::<Vec<_>>()
        };
        Self {
            unit: stuck::unit(answer),
            runs: !of("runs").is_empty(),
            halted: !of("halted").is_empty(),
            connected: !of("connected").is_empty(),
            refused: of("refused")
                .first()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0),
            names: of("names")
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
        }
    }

    fn evidence(&self, node: &str, service: Ipv4Addr, pods: &[Ipv4Addr]) -> Option<Evidence> {
        let complete = self.names.contains(&service)
            && !pods.is_empty()
            && pods.iter().all(|pod| self.names.contains(pod));
        if complete {
            let why = format!(
                "the rules of {node} name the Service and every Pod behind it: kube-proxy has \
                 nothing left to do"
            );
            return Some(Evidence::unchanged_for(LOOKS_AT_RULES, why).look(format!(
                "the way from {node} to the Pods that are silent: `ip route`, `ip neigh` and \
                 `conntrack -S` of both ends, then the wire capture"
            )));
        }
        if !self.runs {
            let unit = self.unit.clone();
            return unit.map(|found| unit_down(found, "kube-proxy", node));
        }
        if self.halted {
            let why =
                format!("kube-proxy of {node} is halted: it runs, and does nothing (SIGSTOP)");
            return Some(Evidence::certain(why).look(format!(
                "`ps -C kube-proxy -o pid,stat` of {node}: who has stopped it?"
            )));
        }
        (!self.connected && self.refused >= REFUSALS).then(|| {
            let why = format!(
                "kube-proxy of {node} has no connection to the API server: it is refused, while \
                 the API server answers others"
            );
            Evidence::unchanged_for(LOOKS, why).look(format!(
                "kube-proxy's log on {node}: whom does it dial? Its kubeconfig says"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::process::Command;

    fn why(found: Option<Evidence>) -> Option<String> {
        found.map(|found| found.why().to_owned())
    }

    #[test]
    fn a_kubelet_that_nobody_acknowledges_is_told_from_one_that_waits() {
        let of = |timer: &str, new: &str| {
            let line = format!(
                "ActiveState=active\nSYN-SENT 0 1 172.30.0.12:40000 172.30.0.11:6443 \
                 users:((\"kubelet\",pid=300,fd=9)) {timer}\n{new}"
            );
            why(unheard(&line, "node2"))
        };
        let silent = |timer| of(timer, "unanswered\n");
        assert!(silent("timer:(on,12sec,4)").unwrap().contains("node2"));
        assert_eq!(silent("timer:(on,1.2sec,3)"), None);
        assert_eq!(silent("timer:(on,200ms,0)"), None);
        // An idle connection has another timer, or none.
        assert_eq!(silent("timer:(keepalive,29sec,0)"), None);
        assert_eq!(silent(""), None);
        // The API server's node was away, and is back before the kernel tries again.
        assert_eq!(of("timer:(on,12sec,4)", ""), None);
    }

    /// The question's answer on a node where these stand in for its programs.
    fn asked_of_kubelet(timer: &str, connects: &str) -> String {
        let programs = format!(
            "systemctl() {{ echo ActiveState=active; }}; ss() {{ echo 'kubelet {timer}'; }}; \
             timeout() {{ {connects}; }}; {}",
            ask_kubelet()
        );
        let asked = Command::new("bash").args(["-c", &programs]).output();
        let output = asked.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_new_connection_is_tried_where_an_old_one_waits_and_a_refusal_is_an_answer() {
        let waits = "timer:(on,12sec,4)";
        let of = |timer, connects| {
            let answer = asked_of_kubelet(timer, connects);
            assert!(
                answer.starts_with("ActiveState=active\nkubelet "),
                "{answer}"
            );
            unheard(&answer, "node2").is_some()
        };
        assert!(of(waits, "return 124"));
        assert!(of(waits, "echo 'connect: No route to host' >&2; return 1"));
        assert!(!of(waits, "return 0"));
        assert!(!of(
            waits,
            "echo 'connect: Connection refused' >&2; return 1"
        ));
        assert!(!of("timer:(keepalive,29sec,0)", "return 124"));
    }

    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 55);
    const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 1, 2), Ipv4Addr::new(10, 1, 2, 2)];

    fn of_proxy(answer: &str) -> Option<String> {
        why(Proxy::read(answer).evidence("node1", SERVICE, &PODS))
    }

    #[test]
    fn a_kube_proxy_that_has_written_its_rules_is_waited_for_no_more() {
        let rules = "LoadState=loaded\nActiveState=active\nruns=kube-proxy\nconnected=\nrefused=9\n\
                     names=10.0.0.55\nnames=10.1.1.2\n";
        // One Pod is not in them yet.
        assert_eq!(of_proxy(rules), None);
        let all = of_proxy(&format!("{rules}names=10.1.2.2\n")).unwrap();
        assert!(all.contains("nothing left to do"), "{all}");
        // The rules outlive it.
        let stopped = rules.replace("runs=kube-proxy\n", "") + "names=10.1.2.2\n";
        assert!(of_proxy(&stopped).unwrap().contains("nothing left to do"));
    }

    #[test]
    fn a_kube_proxy_that_is_refused_is_told_from_one_that_is_early() {
        let answer = |connected: &str, refused: u32| {
            let unit = "LoadState=loaded\nActiveState=active\nruns=kube-proxy\n";
            of_proxy(&format!("{unit}{connected}refused={refused}\n"))
        };
        assert_eq!(answer("", 2), None);
        assert!(answer("", 3).unwrap().contains("it is refused"));
        // It was refused while the API server started, and is connected now.
        assert_eq!(answer("connected=\n", 9), None);
    }

    #[test]
    fn a_kube_proxy_that_does_not_run_is_hopeless_where_it_is_a_unit() {
        let unit = "LoadState=loaded\nActiveState=inactive\nrefused=0\n";
        assert!(of_proxy(unit).unwrap().contains("not running"));
        let elsewhere = "LoadState=not-found\nActiveState=inactive\nrefused=0\n";
        assert_eq!(of_proxy(elsewhere), None);
    }

    #[test]
    fn a_kube_proxy_that_is_halted_is_waited_for_no_more() {
        let answer = "LoadState=loaded\nActiveState=active\nruns=kube-proxy\nhalted=\nconnected=\n\
                      refused=0\n";
        assert!(of_proxy(answer).unwrap().contains("is halted"));
        assert_eq!(of_proxy(&answer.replace("halted=\n", "")), None);
        // What it wrote before is whole, and somebody else is at fault.
        let all = format!("{answer}names=10.0.0.55\nnames=10.1.1.2\nnames=10.1.2.2\n");
        assert!(of_proxy(&all).unwrap().contains("nothing left to do"));
    }

    #[test]
    fn the_question_is_asked_in_one_go() {
        let asked = ask_proxy(SERVICE, &PODS);
        assert!(asked.contains("grep -o -w -F -e 10.1.1.2 -e 10.1.2.2 -e 10.0.0.55"));
        assert!(asked.contains("systemctl show -p LoadState,ActiveState,NRestarts kube-proxy;"));
    }

    fn pod(node: Option<&str>, ready: &str, state: Value, restarts: u32) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "blue-1" },
            "spec": { "nodeName": node, "containers": [] },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{
                    "name": "blue", "image": "", "imageID": "", "ready": false,
                    "restartCount": restarts, "state": state,
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn who_has_to_act_next_follows_from_the_pods() {
        let runs = pod(Some("node1"), "True", json!({ "running": {} }), 0);
        let unbound = pod(None, "False", json!({}), 0);
        let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
        let starting = pod(Some("node2"), "False", creating, 0);
        let of = |pods: &[&Pod], wanted| {
            let pods: Vec<Pod> = pods.iter().copied().cloned().collect();
            next_to_act(&pods, wanted)
        };
        assert_eq!(of(&[&runs], 1), Actor::Nobody);
        assert_eq!(of(&[&runs], 2), Actor::ControllerManager);
        assert_eq!(of(&[&runs, &unbound], 2), Actor::Scheduler);
        assert_eq!(of(&[&runs, &starting], 2), Actor::Kubelet(2, None));
        // A Pod that goes does not count.
        let mut going = runs.clone();
        going.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(of(&[&going], 1), Actor::ControllerManager);
    }

    #[test]
    fn a_container_that_cannot_start_is_told_from_one_that_takes_its_time() {
        let of = |reason: &str, restarts| {
            let state = json!({ "waiting": { "reason": reason } });
            why(stumbles(&pod(Some("node2"), "False", state, restarts)))
        };
        assert_eq!(of("ContainerCreating", 0), None);
        assert_eq!(of("CrashLoopBackOff", 4), None);
        let never = Some("blue-1: container blue: ErrImageNeverPull".to_owned());
        assert_eq!(of("ErrImageNeverPull", 0), never);
        assert!(of("CrashLoopBackOff", 5).is_some());
    }
}
