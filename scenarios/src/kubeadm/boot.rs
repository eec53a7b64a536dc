//! The control plane's machine goes down and comes back.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Pod, PodNetwork, Probe, Profile, Sabotage, Scenario, StageName, secs,
    steps,
};

use super::init::COMPONENTS;
use super::names::names;
use crate::catalogue::E4;

/// E4: systemd starts the kubelet, the kubelet the control plane.
pub(crate) const REBOOT: Scenario = Scenario {
    about: "After a reboot of node 1 systemd starts its kubelet, which starts the control plane: \
            the cluster comes back by itself",
    covers: &[E4],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[Sabotage::new("kubelet-not-enabled")
        .about("the kubelet is not enabled")
        .inject(steps!(|lab| {
            lab.node(1).run("systemctl disable kubelet").await?;
            lab.node(1).reboot().await
        }))
        .caught_by(steps!(comes_back), Cause::Absent)],
    ..Scenario::new(
        "control_plane_reboots",
        StageName::PodNetwork,
        steps!(|lab| {
            lab.node(1).reboot().await?;
            comes_back(lab).await?;
            works(lab).await
        }),
    )
};

/// E4, without a word of warning.
pub(crate) const POWER_CUT: Scenario = Scenario {
    about: "After a power cut of node 1 its disk is as it was left, and the cluster comes back by \
            itself as after a reboot",
    covers: &[E4],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[Sabotage::new("manifest-lost")
        .about("the scheduler's manifest was not on the disk")
        .inject(steps!(|lab| {
            let remove = "rm /etc/kubernetes/manifests/kube-scheduler.yaml";
            lab.node(1).run(remove).await?;
            lab.node(1).cut_power().await
        }))
        .caught_by(steps!(comes_back), Cause::Absent)],
    ..Scenario::new(
        "control_plane_loses_power",
        StageName::PodNetwork,
        steps!(|lab| {
            lab.node(1).cut_power().await?;
            comes_back(lab).await?;
            works(lab).await
        }),
    )
};

/// Whatever keeps the control plane down.
const ASK: &str = "\
systemctl is-enabled kubelet | grep -v enabled | sed 's/^/its kubelet is /'; \
for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do \
[ -e /etc/kubernetes/manifests/$name.yaml ] || echo it has no manifest of $name; done";

async fn comes_back(lab: &Lab) -> anyhow::Result<()> {
    let booted = lab.node(1).booted_at().await?;
    let asked = lab.node(1).run(ASK).await?.stdout;
    let lost = asked.lines().next();

    lab.step("the control plane is back: the static Pods run since the boot");
    control_plane_runs_since(lab, booted, lost).await?;

    lab.step("the Pods that belong to the nodes and CoreDNS are back as well");
    let all = lab.pods().everywhere();
    all.until("every Pod Ready, on node1 since the boot", |pods| {
        let waiting = pods.iter().find(|pod| {
            let since = if pod.node() == Some(1) { booted } else { 0 };
            !pod.runs_since(since)
        });
        match waiting {
            None => Probe::Done(()),
            // A container that ended for want of an API server comes back by itself.
            Some(pod) => {
                Probe::not_yet(Cause::NotReady, format!("{pod} is not")).needs(Needs::Kubelet(1))
            }
        }
    })
    .await?;
    lab.all_nodes_ready().await
}

/// Node 1's static Pods are Ready, with containers that began in this second or later, by its clock; never, if
/// something is `lost`.
pub(super) async fn control_plane_runs_since(
    lab: &Lab,
    since: i64,
    lost: Option<&str>,
) -> anyhow::Result<()> {
    lab.eventually("the control plane's Pods Ready, started since then", secs(60), async || {
        // The API server may not be back itself.
        let state = match lab.system_pods().await {
            Ok(pods) => not_back(&pods, since),
            Err(error) => Some(format!("the API server: {error:#}")),
        };
        Ok(match (state, lost) {
            (None, _) => Probe::Done(()),
            (Some(state), Some(lost)) => Probe::hopeless(Cause::Absent, format!("{state}: {lost}")),
            (Some(state), None) => Probe::not_yet(Cause::NotReady, state).needs(Needs::Kubelet(1)),
        })
    })
    .await
}

/// The first component of the control plane that does not run since then.
fn not_back(pods: &[Pod], since: i64) -> Option<String> {
    let names = COMPONENTS.map(|component| format!("{component}-node1"));
    let runs = |name: &str| {
        let pod = pods.iter().find(|pod| pod.name() == name);
        pod.is_some_and(|pod| pod.runs_since(since))
    };
    let missing = names.iter().find(|name| !runs(name))?;
    Some(format!("{missing} is not back"))
}

/// The cluster does its work: a Pod on another node finds a new Service by its name.
async fn works(lab: &Lab) -> anyhow::Result<()> {
    if lab.pod_network() == PodNetwork::Routes {
        // What was typed is gone with the kernel that it was typed to.
        lab.add_all_routes().await?;
    }
    names(lab).await
}
