//! What does not go on by itself: a unit of systemd's, a container of a Pod, its sandbox.

use k8s_openapi::api::core::v1::{Event, Pod};
use podwire_process::plain;

use super::readiness::{name, ready_since};

/// A unit that systemd has restarted this often does not come up by itself, nor does a container that
/// the kubelet has: one that ended for want of something else has met it by then.
const RESTARTS: u32 = 5;

/// The command line whose answer [`unit()`] reads.
pub fn show(unit: &str) -> String {
    format!("systemctl show -p LoadState,ActiveState,NRestarts {unit}")
}

/// Why a unit is not going to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StuckUnit {
    /// It does not run, and is not about to: systemd's word for its state.
    NotRunning(String),
    /// It is started again and again. It may come up after all, once.
    EndsAgain,
}

/// Reads what [`show`] answers; nothing where the unit runs, starts, or waits for its next start
/// (`activating`), and where there is no such unit: somebody else may run the program then.
pub fn unit(shown: &str) -> Option<StuckUnit> {
    let of = |key: &str| {
        let mut pairs = shown.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let restarts = of("NRestarts").and_then(|it| it.parse::<u32>().ok());
    match of("ActiveState")? {
        _ if of("LoadState") != Some("loaded") => None,
        state @ ("inactive" | "failed") => Some(StuckUnit::NotRunning(state.to_owned())),
        "activating" if restarts.unwrap_or(0) >= RESTARTS => Some(StuckUnit::EndsAgain),
        _ => None,
    }
}

/// A container that does not start or stay for a reason that time does not mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckContainer {
    /// Its name.
    pub name: String,
    /// The kubelet's word, `ErrImageNeverPull`.
    pub reason: String,
}

/// The first of a Pod's containers that is stuck, those that come before the others first.
pub fn container(pod: &Pod) -> Option<StuckContainer> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let mut containers = init.chain(status.container_statuses.iter().flatten());
    containers.find_map(|container| {
        let reason = container
            .state
            .as_ref()?
            .waiting
            .as_ref()?
            .reason
            .as_ref()?;
        let for_good = match reason.as_str() {
            "ErrImageNeverPull" | "InvalidImageName" => true,
            "CrashLoopBackOff" => container.restart_count.unsigned_abs() >= RESTARTS,
            _ => false,
        };
        for_good.then(|| StuckContainer {
            name: container.name.clone(),
            reason: reason.clone(),
        })
    })
}

/// The kubelet's reason where its container engine has made a Pod no sandbox: mostly, no network.
pub(crate) const NO_SANDBOX: &str = "FailedCreatePodSandBox";

/// For so many seconds of the nodes' clocks it has failed, although all that makes a node's network is ready.
/// The kubelet tries every few seconds; it tells of 25 tries and then, each five minutes, of one more.
const IN_VAIN: i64 = 60;

/// That a Pod has no sandbox, because at least one try has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoSandbox {
    /// Whose, where, and what the CNI plugin said last.
    pub(crate) said: String,
    /// Whether it will get none: try after try has failed, and for a minute with all Pods of its node ready that use
    /// the node's own network, as those do that make one.
    pub(crate) is_for_good: bool,
}

/// Why a Pod has no sandbox yet. `all` are Pods of all nodes, the Pod's `events` may be among others', and `now` is
/// seconds since 1970 by the nodes' clocks.
pub(crate) fn sandbox(pod: &Pod, all: &[Pod], events: &[Event], now: i64) -> Option<NoSandbox> {
    let node = awaits_sandbox(pod)?;
    let own = |event: &&Event| {
        event.involved_object.uid == pod.metadata.uid && event.reason.as_deref() == Some(NO_SANDBOX)
    };
    let tries: Vec<&Event> = events.iter().filter(own).collect();
    let times: i32 = tries.iter().map(|event| event.count.unwrap_or(1)).sum();
    let first = tries.iter().filter_map(|it| it.first_timestamp.as_ref());
    let last = tries
        .iter()
        .max_by_key(|event| event.last_timestamp.as_ref())?;
    let first = first.min()?;
    let daemons = all.iter().filter(|other| {
        let spec = other.spec.as_ref();
        spec.is_some_and(|it| it.host_network == Some(true) && it.node_name.as_ref() == Some(node))
    });
    // Of daemons of which one is not ready there is none.
    let ready: Option<Vec<_>> = daemons.map(ready_since).collect();
    let in_vain = ready.is_some_and(|ready| {
        let begun = ready.into_iter().fold(first, Ord::max);
        now - begun.0.as_second() >= IN_VAIN
    });
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let why = last.message.as_deref().unwrap_or_default();
    Some(NoSandbox {
        said: format!(
            "{namespace}/{} gets no sandbox on {node}: {}",
            name(pod),
            plain::line(said_by_plugin(why))
        ),
        is_for_good: times.unsigned_abs() >= RESTARTS && in_vain,
    })
}

/// The node of a Pod that has no address yet.
pub(crate) fn awaits_sandbox(pod: &Pod) -> Option<&String> {
    let has_address = pod.status.as_ref()?.pod_ip.is_some();
    let node = pod.spec.as_ref()?.node_name.as_ref();
    node.filter(|_| !has_address)
}

/// Without what stands before a CNI plugin's words, which names each try's sandbox by another id.
fn said_by_plugin(message: &str) -> &str {
    let behind = message.split_once("for sandbox \"");
    let behind = behind.and_then(|(_, rest)| rest.split_once("\": "));
    behind.map_or(message, |(_, said)| said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    const SAID: &str = "(combined from similar events): Failed to create pod sandbox: rpc error: code = Unknown \
        desc = failed to setup network for sandbox \"0f3c\": plugin type=\"bridge\" failed (add): no address \
        is left";

    /// Of a Pod on node2 whose sandbox has failed so often since a minute past noon, beside another Pod of its
    /// node, so many seconds past noon.
    fn why(times: i32, now: i64, beside: &Value) -> Option<NoSandbox> {
        let pod = |name: &str, node: &str, more: &Value| -> Pod {
            let mut pod = json!({
                "metadata": { "name": name, "namespace": "default", "uid": name },
                "spec": { "nodeName": node, "containers": [], "hostNetwork": more["hostNetwork"] },
                "status": { "podIP": more["podIP"] },
            });
            let ready = more["ready"].as_str();
            pod["status"]["conditions"] = ready.map_or(json!([]), |since| {
                let since = format!("2026-11-28T12:{since}Z");
                json!([{ "type": "Ready", "status": "True", "lastTransitionTime": since }])
            });
            serde_json::from_value(pod).unwrap()
        };
        let event = |uid: &str, first: &str, count: i32| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "reason": NO_SANDBOX, "message": SAID, "count": count,
                "involvedObject": { "uid": uid },
                "firstTimestamp": format!("2026-11-28T12:{first}Z"),
                "lastTimestamp": "2026-11-28T12:01:50Z",
            }))
            .unwrap()
        };
        let blue = pod("blue", "node2", &beside["blue"]);
        let daemon = pod("daemon", beside["node"].as_str().unwrap_or("node2"), beside);
        // Another's fail as well.
        let events = [
            event("green", "00:00", 99),
            event("blue", "01:00", times - 1),
            event("blue", "01:50", 1),
        ];
        let noon: Time = serde_json::from_value(json!("2026-11-28T12:00:00Z")).unwrap();
        let now = noon.0.as_second() + now;
        sandbox(&blue, &[blue.clone(), daemon], &events, now)
    }

    #[test]
    fn a_pod_whose_sandbox_keeps_failing_is_told_in_its_plugin_s_words() {
        let nobody = json!({ "node": "node3", "hostNetwork": true });
        let found = why(5, 120, &nobody).unwrap();
        assert!(found.is_for_good);
        insta::assert_snapshot!(found.said, @r#"default/blue gets no sandbox on node2: plugin type="bridge" failed (add): no address is left"#);
        // Too few, or not for long.
        let so_far = Some(NoSandbox {
            is_for_good: false,
            ..found
        });
        assert_eq!(why(4, 120, &nobody), so_far);
        assert_eq!(why(5, 119, &nobody), so_far);
        // It has one by now.
        let blue = json!({ "node": "node3", "blue": { "podIP": "10.1.2.2" } });
        assert_eq!(why(5, 120, &blue), None);
    }

    #[test]
    fn a_pod_s_sandbox_may_wait_for_the_daemon_that_makes_its_network() {
        let is_for_good = |now, daemon: &Value| why(5, now, daemon).unwrap().is_for_good;
        let daemon = |ready: Value| json!({ "hostNetwork": true, "ready": ready });
        assert!(!is_for_good(1800, &daemon(Value::Null)));
        let ready = daemon("09:00".into());
        assert!(!is_for_good(9 * 60 + 59, &ready));
        assert!(is_for_good(10 * 60, &ready));
        // One with a network of its own makes nobody's.
        assert!(is_for_good(120, &json!({})));
    }

    #[test]
    fn a_unit_that_waits_for_its_next_start_may_still_act() {
        let of = |active: &str, restarts: u32| {
            unit(&format!(
                "NRestarts={restarts}\nLoadState=loaded\nActiveState={active}\n"
            ))
        };
        for state in ["inactive", "failed"] {
            assert_eq!(of(state, 0), Some(StuckUnit::NotRunning(state.to_owned())));
        }
        assert_eq!(of("active", 9), None);
        assert_eq!(of("activating", 4), None);
        assert_eq!(of("activating", 5), Some(StuckUnit::EndsAgain));
        assert_eq!(unit("LoadState=not-found\nActiveState=inactive\n"), None);
        assert_eq!(unit(""), None);
    }

    #[test]
    fn a_container_that_cannot_start_is_told_from_one_that_takes_its_time() {
        let of = |statuses: &str, reason: &str, restarts: u32| {
            let pod: Pod = serde_json::from_value(json!({
                "status": { statuses: [{
                    "name": "a", "image": "", "imageID": "", "ready": false,
                    "restartCount": restarts, "state": { "waiting": { "reason": reason } },
                }] },
            }))
            .unwrap();
            container(&pod).map(|it| it.reason)
        };
        for statuses in ["containerStatuses", "initContainerStatuses"] {
            assert_eq!(of(statuses, "ContainerCreating", 9), None);
            assert_eq!(of(statuses, "CrashLoopBackOff", 4), None);
            assert!(of(statuses, "CrashLoopBackOff", 5).is_some());
            let never = Some("ErrImageNeverPull".to_owned());
            assert_eq!(of(statuses, "ErrImageNeverPull", 0), never);
        }
        assert_eq!(container(&Pod::default()), None);
    }
}
