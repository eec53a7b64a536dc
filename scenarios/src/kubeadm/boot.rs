//! The control plane's machine goes down and comes back.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use podwire_cluster::config::STATIC_PODS;
use podwire_cluster::{PodNetwork, StageName, addresses};
use podwire_scenario::{Cause, Cells, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless};

use crate::catalogue::E4;
use crate::prospects;
use crate::steps::{all_nodes_ready, on};

use super::init::{COMPONENTS, names};
use super::steps::{full_name, holds};

/// E4: systemd starts the kubelet, the kubelet the control plane.
pub(crate) const REBOOT: Scenario = Scenario {
    name: "control_plane_reboots",
    about: "After a reboot of node 1 systemd starts its kubelet, which starts the control plane: \
            the cluster comes back by itself",
    covers: &[E4],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(300),
    prepare: None,
    run: |lab| {
        Box::pin(async {
            lab.step("reboot node1");
            lab.cluster().reboot(1).await?;
            comes_back(lab).await?;
            works(lab).await
        })
    },
    sabotages: &[Sabotage {
        name: "kubelet-not-enabled",
        about: "the kubelet is not enabled",
        expects: Cause::Absent,
        run: |lab| {
            Box::pin(async {
                on(lab, 1, "systemctl disable kubelet").await?;
                lab.step("reboot node1, whose kubelet is not enabled");
                lab.cluster().reboot(1).await?;
                lab.injected();
                comes_back(lab).await
            })
        },
    }],
    red_when: &[],
};

/// E4, without a word of warning.
pub(crate) const POWER_CUT: Scenario = Scenario {
    name: "control_plane_loses_power",
    about: "After a power cut of node 1 its disk is as it was left, and the cluster comes back by \
            itself as after a reboot",
    covers: &[E4],
    stage: StageName::PodNetwork,
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    nodes: 2,
    limit: Duration::from_secs(300),
    prepare: None,
    run: |lab| {
        Box::pin(async {
            cut_power(lab).await?;
            comes_back(lab).await?;
            works(lab).await
        })
    },
    sabotages: &[Sabotage {
        name: "manifest-lost",
        about: "the scheduler's manifest was not on the disk",
        expects: Cause::Absent,
        run: |lab| {
            Box::pin(async {
                on(lab, 1, &format!("rm {STATIC_PODS}/kube-scheduler.yaml")).await?;
                cut_power(lab).await?;
                lab.injected();
                comes_back(lab).await
            })
        },
    }],
    red_when: &[],
};

async fn cut_power(lab: &Lab) -> anyhow::Result<()> {
    lab.step("cut node1's power");
    // This etcd does not wait for the disk, as a usual one does at every write.
    on(lab, 1, "sync").await?;
    Ok(lab.cluster().cut_power(1).await?)
}

/// Seconds since 1970, by the node's own clock; then whatever keeps the control plane down.
const ASK: &str = "\
sed -n 's/^btime //p' /proc/stat; \
systemctl is-enabled kubelet | grep -v enabled | sed 's/^/its kubelet is /'; \
for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do \
[ -e /etc/kubernetes/manifests/$name.yaml ] || echo it has no manifest of $name; done";

async fn comes_back(lab: &Lab) -> anyhow::Result<()> {
    let asked = on(lab, 1, ASK).await?;
    let mut lines = asked.lines();
    let booted = lines.next().and_then(|line| line.parse::<i64>().ok());
    let booted = booted.ok_or_else(|| anyhow::anyhow!("no time of boot in {asked:?}"))?;
    let lost = lines.next();
    lab.step("the control plane is back: the static Pods run since the boot");
    eventually_unless(
        "the control plane's Pods Ready, started since the boot",
        lab.limit(Duration::from_secs(60)),
        async || {
            // While it boots, what does not run yet may still be started.
            let booted = on(lab, 1, "systemctl is-system-running || true").await?;
            match booted.trim() {
                "running" | "degraded" => prospects::kubelet(lab, 1).await,
                _ => Ok(None),
            }
        },
        async || {
            let state = match every_pod(lab).await {
                Ok(pods) => COMPONENTS.into_iter().find_map(|component| {
                    let name = format!("kube-system/{component}-{}", addresses::node_name(1));
                    let pod = pods.iter().find(|pod| full_name(pod) == name);
                    let back = pod.is_some_and(|pod| runs_since(pod, booted));
                    (!back).then(|| format!("{name} is not back"))
                }),
                Err(error) => Some(format!("the API server: {error:#}")),
            };
            Ok(match (state, lost) {
                (None, _) => Probe::Done(()),
                (Some(state), Some(lost)) => {
                    Probe::hopeless(Cause::Absent, format!("{state}: {lost}"))
                }
                (Some(state), None) => Probe::not_yet(Cause::NotReady, state),
            })
        },
    )
    .await?;
    lab.step("the Pods that belong to the nodes and CoreDNS are back as well");
    eventually_unless(
        "every Pod Ready, on node1 since the boot",
        lab.limit(Duration::from_secs(60)),
        // A container that ended for want of an API server comes back by itself.
        async || prospects::kubelet(lab, 1).await,
        async || {
            let pods = every_pod(lab).await?;
            let name = addresses::node_name(1);
            let waiting = pods.iter().find(|pod| {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
                let since = if node == Some(&name) { booted } else { 0 };
                !runs_since(pod, since)
            });
            Ok(match waiting {
                None => Probe::Done(()),
                Some(pod) => Probe::not_yet(Cause::NotReady, format!("{} is not", full_name(pod))),
            })
        },
    )
    .await?;
    all_nodes_ready(lab).await
}

async fn every_pod(lab: &Lab) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::all(lab.cluster().api());
    Ok(pods.list(&ListParams::default()).await?.items)
}

/// Whether a Pod is Ready, and its containers began after that second.
fn runs_since(pod: &Pod, second: i64) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let began = |it: &k8s_openapi::api::core::v1::ContainerStatus| {
        let running = it.state.as_ref()?.running.as_ref()?;
        Some(running.started_at.as_ref()?.0.as_second())
    };
    let all_since = containers.is_some_and(|all| {
        all.iter()
            .all(|it| began(it).is_some_and(|began| began >= second))
    });
    holds(pod, "Ready") && all_since
}

/// The cluster does its work: a Pod on another node finds a new Service by its name.
async fn works(lab: &Lab) -> anyhow::Result<()> {
    if lab.cluster().plan().cell.network == PodNetwork::Routes {
        // What was typed is gone with the kernel that it was typed to.
        lab.add_all_routes().await?;
    }
    names(lab).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_from_before_the_boot_is_told() {
        let pod = |ready: &str, started: &str| {
            serde_json::from_value::<Pod>(json!({ "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{
                    "name": "etcd", "image": "", "imageID": "", "ready": true, "restartCount": 1,
                    "state": { "running": { "startedAt": started } },
                }],
            } }))
            .unwrap()
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        let boot = 1_767_225_630;
        assert!(runs_since(&pod("True", late), boot));
        assert!(!runs_since(&pod("True", early), boot));
        assert!(!runs_since(&pod("False", late), boot));
        assert!(!runs_since(&Pod::default(), 0));
    }
}
