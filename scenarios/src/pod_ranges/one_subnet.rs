//! One subnet for the Pods of all nodes, and then one for each.

use std::collections::BTreeSet;

use podwire_scenario::{
    Cause, Cells, Lab, Party, Pod, Pods, Profile, Sabotage, Scenario, StageName, assert, ensure,
    ensure_none, secs, steps,
};
use serde_json::json;

use super::template::ANOTHER;
use crate::catalogue::{D2, D3, D4};

/// D2!, D3!, D4: they share five Pods. In the document these hang on Docker's bridge at first, which has
/// the same subnet on every node, and then on kubenet's; today CNI files say so, and containerd reads
/// them.
pub(crate) const ONE_SUBNET: Scenario = Scenario {
    about: "While every node takes Pod addresses from the same subnet two Pods share one; with another \
            subnet and a restarted kubelet they run on as they are, and those that take the place of \
            deleted ones have addresses of their own, from their node's subnet",
    covers: &[D2, D3, D4],
    cells: Cells::ByHandWithRoutes,
    profile: Profile::Full,
    limit: secs(300),
    prepare: Some(steps!(five_pods_in_one_subnet)),
    sabotages: &[
        Sabotage::new("own-subnets")
            .about("every node takes Pod addresses from a subnet of its own")
            .inject(steps!(|lab| {
                change_the_subnets(lab).await?;
                delete_all_pods(lab).await
            }))
            .caught_by(steps!(two_share_an_address), Cause::Absent),
        Sabotage::new("sandboxes-removed")
            .about("somebody removes the Pods' sandboxes while no kubelet runs")
            .inject(steps!(|lab| {
                note_what_runs(lab).await?;
                stop_the_kubelets(lab).await?;
                lab.run_everywhere("crictl pods -q | xargs -r crictl rmp -f").await?;
                write_own_subnets(lab).await?;
                start_the_kubelets(lab).await
            }))
            .caught_by(steps!(pods_run_on_as_they_are), Cause::Died),
        Sabotage::new("subnet-not-changed")
            .about("the kubelets are restarted, and the subnet is the old one")
            .inject(steps!(|lab| {
                note_what_runs(lab).await?;
                stop_the_kubelets(lab).await?;
                start_the_kubelets(lab).await
            }))
            .caught_by(steps!(pods_run_on_as_they_are), Cause::OutsideRange),
        Sabotage::new("not-deleted")
            .about("nobody deletes the Pods")
            .inject(steps!(change_the_subnets))
            .caught_by(steps!(pods_have_addresses_of_their_node), Cause::NotUnique),
        Sabotage::new("another-subnet")
            .about("the last node has another subnet than the one that is meant for it")
            .inject(steps!(|lab| {
                change_the_subnets(lab).await?;
                lab.last_node().write_cni_file(ANOTHER).await?;
                lab.last_node().until_cni_file_is_read().await?;
                delete_all_pods(lab).await
            }))
            .caught_by(steps!(pods_have_addresses_of_their_node), Cause::OutsideRange),
    ],
    ..Scenario::new("one_subnet_for_all", StageName::Joined, steps!(one_subnet))
};

/// That of Docker's bridge, on every node.
const DOCKERS: &str = "172.17.0.0/16";

async fn one_subnet(lab: &Lab) -> anyhow::Result<()> {
    two_share_an_address(lab).await?;
    note_what_runs(lab).await?;
    change_the_subnets(lab).await?;
    pods_run_on_as_they_are(lab).await?;
    delete_all_pods(lab).await?;
    pods_have_addresses_of_their_node(lab).await
}

async fn five_pods_in_one_subnet(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's CNI file is that of a bridge docker0 with the same subnet");
    let file = json!({
        "cniVersion": "1.0.0", "name": "docker", "type": "bridge",
        "bridge": "docker0", "isDefaultGateway": true,
        "ipam": { "type": "host-local", "subnet": DOCKERS },
    });
    for node in lab.nodes() {
        node.write("/etc/cni/net.d/docker.conf", file.to_string()).await?;
    }
    every_node_is_open(lab).await?;

    lab.step("create a Deployment, and scale it to five");
    let create = format!("create deployment web --image={} -- /probe serve", Pod::IMAGE);
    lab.kubectl(create).await?;
    lab.kubectl("scale deployment web --replicas=5").await?;
    web(lab).until_running(5).await.map(drop)
}

fn web(lab: &Lab) -> Pods<'_> {
    lab.deployment("web").pods()
}

async fn every_node_is_open(lab: &Lab) -> anyhow::Result<()> {
    for node in lab.nodes() {
        node.until_open().await?;
    }
    Ok(())
}

async fn two_share_an_address(lab: &Lab) -> anyhow::Result<()> {
    lab.step("two Pods have the same address (D2)");
    let pods = web(lab).all_running().await?;
    let shared = assert::addresses_unique(&pods).is_err();
    ensure!(shared, Absent, "two Pods with the same address", "{pods:?}");
    each_answers_its_node(lab, &pods).await
}

/// Who has the address on the node that asks, whoever else has it elsewhere.
async fn each_answers_its_node(lab: &Lab, pods: &[Party]) -> anyhow::Result<()> {
    lab.step("each is reached from its own node, by its own name");
    for node in lab.nodes() {
        let own = pods.iter().filter(|pod| pod.node == node.number()).cloned();
        let mesh = lab.mesh(&[node.party()], &own.collect::<Vec<_>>()).await?;
        mesh.all_answer(&format!("{node} to reach each of its own Pods"))?;
    }
    Ok(())
}

/// The Pods and their containers, by id, before anything is changed.
#[derive(Clone)]
struct Before {
    pods: Vec<Party>,
    containers: BTreeSet<String>,
}

async fn note_what_runs(lab: &Lab) -> anyhow::Result<()> {
    let (pods, containers) = (web(lab).all_running().await?, containers(lab).await?);
    lab.keep(Before { pods, containers });
    Ok(())
}

async fn containers(lab: &Lab) -> anyhow::Result<BTreeSet<String>> {
    let listed = lab.run_everywhere("crictl ps -q").await?;
    let lines = listed.iter().flat_map(|(_, answer)| answer.stdout.lines());
    Ok(lines.map(str::to_owned).collect())
}

/// In the document by kubelet's `--pod-cidr`; see D5c for what that does today.
async fn change_the_subnets(lab: &Lab) -> anyhow::Result<()> {
    stop_the_kubelets(lab).await?;
    write_own_subnets(lab).await?;
    start_the_kubelets(lab).await
}

async fn stop_the_kubelets(lab: &Lab) -> anyhow::Result<()> {
    lab.step("stop every kubelet");
    lab.run_everywhere("systemctl stop kubelet").await.map(drop)
}

async fn write_own_subnets(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's CNI file is that of another bridge, with the node's own subnet");
    for node in lab.nodes() {
        node.write_cni_file(node.pod_range()).await?;
        node.run("rm /etc/cni/net.d/docker.conf").await?;
        node.until_cni_file_is_read().await?;
    }
    Ok(())
}

async fn start_the_kubelets(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start every kubelet");
    lab.run_everywhere("systemctl start kubelet").await.map(drop)
}

async fn pods_run_on_as_they_are(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a new Pod of every node has an address of the node's own subnet");
    for node in lab.nodes() {
        lab.start_pod(&format!("new-on-{node}"), node).await?;
    }
    for node in lab.nodes() {
        let new = lab.pods().labelled(format!("app=new-on-{node}")).until_running(1).await?;
        assert::addresses_unique_and_in_range(&new, |number| lab.node(number).pod_range())?;
    }

    lab.step("those of before run on, with the same containers and addresses (D3)");
    let (before, now): (Before, _) = (lab.kept()?, containers(lab).await?);
    let ended = before.containers.difference(&now);
    ensure_none!(ended, Died, "no container of before to have ended");
    let (pods, old) = (web(lab).all_running().await?, before.pods);
    ensure!(pods == old, WrongAnswer, "the same Pods with their addresses, {old:?}", "{pods:?}");
    each_answers_its_node(lab, &pods).await
}

async fn delete_all_pods(lab: &Lab) -> anyhow::Result<()> {
    every_node_is_open(lab).await?;
    let old = web(lab).all_running().await?;
    lab.step("delete all Pods; the ReplicaSet makes others (D4)");
    lab.kubectl("delete pods --all").within(secs(60)).await?;
    let others = web(lab).until_running_and(5, |pods| {
        let left = pods.iter().find(|pod| old.contains(pod))?;
        Some(format!("{left} is left"))
    });
    others.await.map(drop)
}

async fn pods_have_addresses_of_their_node(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every Pod has an address of its own, from its node's subnet (D4)");
    let pods = web(lab).all_running().await?;
    Ok(assert::addresses_unique_and_in_range(&pods, |number| lab.node(number).pod_range())?)
}
