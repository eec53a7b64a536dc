//! What does not go on by itself: a unit of systemd's, a container of a Pod.

use k8s_openapi::api::core::v1::Pod;

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
