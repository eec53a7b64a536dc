//! A worker goes down and comes back, with its Pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use podwire_scenario::{
    Bootstrap, Cause, Cells, Lab, Needs, Place, PodNetwork, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, secs, steps,
};

use crate::catalogue::F14;

/// F14, with a word of warning.
pub(crate) const REBOOT: Scenario = Scenario {
    about: "A worker reboots: its Pods run again, each with an address of its own, its node has given \
            out these and no others, and everybody reaches everybody",
    covers: &[F14],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("kubelet-not-enabled")
            .about("the worker's kubelet is not enabled")
            .inject(steps!(|lab| {
                lab.last_node().run("systemctl disable kubelet").await?;
                lab.last_node().reboot().await
            }))
            .caught_by(steps!(its_pods_are_back), Cause::NotReady),
        Sabotage::new("leaked-address")
            .about("the worker keeps an address for a Pod that is no more")
            .inject(steps!(|lab| {
                let pod = lab.pods().on(lab.last_node()).first().await?;
                let leaked = Ipv4Addr::from(u32::from(pod.address) | 0xfe);
                lab.last_node().leaks_address(leaked).await
            }))
            .caught_by(steps!(gave_out_what_pods_have), Cause::WrongAnswer),
        Sabotage::new("stale-neighbour")
            .about(
                "another node keeps a neighbour entry for the worker that is not its own any more",
            )
            .inject(steps!(|lab| lab.node(2).takes_for_nobody(lab.last_node().address()).await))
            .at(Place::Node(2))
            .caught_by(steps!(everybody_reaches_everybody_again), Cause::TimedOut),
    ],
    ..Scenario::new(
        "worker_reboots",
        StageName::Workload,
        steps!(|lab| {
            lab.last_node().reboot().await?;
            as_before(lab).await
        }),
    )
};

/// F14, without one.
pub(crate) const POWER_CUT: Scenario = Scenario {
    about: "A worker loses its power: what its container engine and its plugins kept on the disk does \
            not keep its Pods from coming back, as after a reboot",
    covers: &[F14],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[Sabotage::new("containerd-not-enabled")
        .about("the worker's container engine is not enabled")
        .inject(steps!(|lab| {
            lab.last_node().run("systemctl mask containerd").await?;
            lab.last_node().cut_power().await
        }))
        .caught_by(steps!(its_pods_are_back), Cause::NotReady)],
    ..Scenario::new(
        "worker_loses_power",
        StageName::Workload,
        steps!(|lab| {
            lab.last_node().cut_power().await?;
            as_before(lab).await
        }),
    )
};

async fn as_before(lab: &Lab) -> anyhow::Result<()> {
    its_pods_are_back(lab).await?;
    typed_again(lab).await?;
    lab.pod_addresses_unique_and_in_range().await?;
    gave_out_what_pods_have(lab).await?;
    everybody_reaches_everybody_again(lab).await
}

async fn its_pods_are_back(lab: &Lab) -> anyhow::Result<()> {
    let worker = lab.last_node();
    let booted = worker.booted_at().await?;
    lab.step(format!("{worker}'s Pods run since its boot"));
    let pods = lab.pods().everywhere().on(worker).within(secs(120));
    pods.until(format!("every Pod of {worker} Ready, since its boot"), |pods| {
        let waiting = pods.iter().find(|pod| !pod.runs_since(booted));
        let state = waiting.map(|pod| format!("{pod} is not")).unwrap_or_default();
        Probe::when(waiting.is_none() && !pods.is_empty(), Cause::NotReady, state)
            .needs(Needs::Kubelet(worker.number()))
    })
    .await?;
    lab.all_nodes_ready().await
}

/// What a person typed is gone with the kernel that it was typed to.
async fn typed_again(lab: &Lab) -> anyhow::Result<()> {
    if lab.pod_network() == PodNetwork::Routes {
        lab.add_all_routes().await?;
    }
    if lab.bootstrap() == Bootstrap::ByHand {
        lab.start_kube_proxy().await?;
    }
    Ok(())
}

/// A Pod may run before flannel's own Pod on its node has laid what leads to the others' Pods, and before those
/// nodes have heard of the hardware address that the tunnel has since the boot.
async fn everybody_reaches_everybody_again(lab: &Lab) -> anyhow::Result<()> {
    if let PodNetwork::Flannel(_) = lab.pod_network() {
        lab.step("flannel has laid on every node what leads to the others' Pods");
        lab.until_laid_everywhere().await?;
    }
    lab.step("everybody reaches everybody, as before");
    let (everybody, pods) = (lab.everybody().await?, lab.pods().all_running().await?);
    lab.until_all_answer(&everybody, &pods).await
}

async fn gave_out_what_pods_have(lab: &Lab) -> anyhow::Result<()> {
    let worker = lab.last_node();
    lab.step(format!("{worker} has given out the addresses of its Pods, and no others"));
    let given = worker.given_addresses().await?;
    let pods = lab.pods().everywhere().on(worker).await?;
    let on_bridge = pods.iter().filter(|pod| !pod.is_on_host_network());
    let have: BTreeSet<_> = on_bridge.filter_map(|pod| pod.address()).collect();
    let expected = "exactly the addresses of its Pods";
    ensure!(
        given == have,
        WrongAnswer,
        "{worker} to have given {expected}",
        "{given:?}, not {have:?}"
    );
    Ok(())
}
