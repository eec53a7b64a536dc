//! The cluster is upgraded, while its Services are used.

use podwire_scenario::{
    Cause, Cells, Lab, Needs, Node, Party, Place, Pod, Probe, Profile, Sabotage, Scenario,
    StageName, ensure, ensure_none, listed, secs, steps,
};

use super::boot::control_plane_runs_since;
use crate::catalogue::UPGRADE;
use crate::field::used_services::{
    NONE, Use, a_daemon_set_is_used, all_accounted, all_begin, all_go_on, new_connections,
    new_connections_are_cut_off, used_pods,
};
use crate::whole_network::every_pair::sees_senders;

/// "Upgrading kubeadm clusters" of the Kubernetes documentation: the control plane first, then one worker after the
/// other, each drained for its kubelet.
pub(crate) const UPGRADED: Scenario = Scenario {
    about: "A cluster is upgraded by kubeadm, control plane first, worker by worker with drain: the former kubeadm \
            refuses to, the plan names the version, and at every step a client of Services whose Pods stay where \
            they are loses nothing, by new connections, an open one and datagrams; every ordered pair answers, and \
            requests spread; at the end each Node and each component is of the newer version, and no container of \
            theirs has started anew",
    covers: &[UPGRADE],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(600),
    upgrades: true,
    sabotages: &[
        Sabotage::new("kubeadm-first")
            .about("the newer kubeadm is there already")
            .inject(steps!(|lab| lab.node(1).install_newer("kubeadm").await))
            .caught_by(steps!(refused_by_the_former_kubeadm), Cause::Answered),
        Sabotage::new("not-upgraded")
            .about("nobody upgraded anything")
            .caught_by(steps!(all_are_newer), Cause::WrongAnswer),
        Sabotage::new("service-cut")
            .about("node 1 drops what its Pods send to Pods")
            .inject(steps!(|lab| {
                a_pod_on_every_node(lab).await?;
                new_connections(lab).await?;
                lab.node(1).drop_forwarded_requests().await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(new_connections_are_cut_off), Cause::TimedOut),
        Sabotage::new("container-killed")
            .about("a container of a Pod that should stay is killed")
            .inject(steps!(|lab| {
                a_pod_on_every_node(lab).await?;
                let kill = "crictl stop --timeout 0 $(crictl ps -q --name red)";
                lab.node(2).run(kill).await?;
                until_told_that_one_started_anew(lab).await
            }))
            .caught_by(steps!(none_started_anew), Cause::Died),
    ],
    ..Scenario::new("kubeadm_upgrade", StageName::Workload, steps!(upgraded))
};

async fn upgraded(lab: &Lab) -> anyhow::Result<()> {
    a_pod_on_every_node(lab).await?;
    all_begin(lab).await?;

    let node = lab.node(1);
    refused_by_the_former_kubeadm(lab).await?;
    node.install_newer("kubeadm").await?;
    the_plan_names_the_version(lab).await?;
    let version = lab.upgrade_to()?;
    lab.step(format!("kubeadm upgrade apply v{version} on {node}"));
    lab.kubeadm(1).upgrade_apply(version, "").await?;
    addons_follow(lab).await?;
    goes_on(lab).await?;
    its_kubelet_follows(lab, node).await?;

    for node in lab.nodes().skip(1) {
        node.install_newer("kubeadm").await?;
        lab.step(format!("kubeadm upgrade node on {node}"));
        lab.kubeadm(node.number()).upgrade_node().await?;
        its_kubelet_follows(lab, node).await?;
    }

    all_are_newer(lab).await?;
    all_accounted(lab).await
}

/// The Pods of DaemonSets, which a drain leaves where they are.
async fn a_pod_on_every_node(lab: &Lab) -> anyhow::Result<()> {
    a_daemon_set_is_used(lab).await?;
    used_pods(lab, usize::try_from(lab.node_count())?).await
}

async fn refused_by_the_former_kubeadm(lab: &Lab) -> anyhow::Result<()> {
    let version = lab.upgrade_to()?;
    lab.step(format!("kubeadm upgrade apply v{version} --dry-run: the former kubeadm refuses"));
    let answer = lab.kubeadm(1).upgrade_apply(version, "--dry-run").may_fail().await?;
    // Beside that it shows each object that it would read.
    let said = answer.stderr.trim();
    let (refused, version) = (!answer.succeeded(), format!("to upgrade to \"v{version}\" is "));
    ensure!(refused, Answered, "kubeadm to refuse a version newer than itself", "{said}");
    let names_it = said.contains(&version) && said.contains("higher than the kubeadm");
    ensure!(names_it, WrongAnswer, "kubeadm to refuse a version newer than itself", "{said}");
    Ok(())
}

async fn the_plan_names_the_version(lab: &Lab) -> anyhow::Result<()> {
    let version = lab.upgrade_to()?;
    lab.step(format!("kubeadm upgrade plan v{version}"));
    let plan = lab.kubeadm(1).run(&format!("upgrade plan v{version}")).within(secs(60)).await?;
    let said = plan.said();
    let apply = format!("kubeadm upgrade apply v{version}");
    ensure!(said.contains(&apply), Absent, "the plan to end with `{apply}`", "{said}");
    Ok(())
}

/// kubeadm leaves it to the cluster to replace the Pods of its addons, and does not wait for that.
async fn addons_follow(lab: &Lab) -> anyhow::Result<()> {
    for addon in ["daemonset/kube-proxy", "deployment/coredns"] {
        lab.step(format!("kubectl rollout status {addon}"));
        let status = format!("rollout status -n kube-system {addon} --timeout=10m");
        lab.kubectl(status).within(secs(60)).await?;
    }
    Ok(())
}

/// Its kubelet becomes the newer one while the node is drained, and all goes on.
async fn its_kubelet_follows(lab: &Lab, node: Node<'_>) -> anyhow::Result<()> {
    node.drain().await?;
    node.install_newer("kubelet kubectl").await?;
    lab.step(format!("restart the kubelet of {node}"));
    let restart = "systemctl daemon-reload && systemctl restart kubelet && date +%s";
    let since = node.run(restart).within(secs(30)).await?;
    if node.number() == 1 {
        // The UID of a static Pod is a hash of all that the kubelet's own type of a Pod holds, and a newer one holds
        // more (`applyDefaults` in pkg/kubelet/config/common.go).
        lab.step("the static Pods start anew: to a newer kubelet each of them is another");
        control_plane_runs_since(lab, since.text().parse()?, None).await?;
    }
    node.uncordon().await?;
    until_its_kubelet_is_newer(lab, node).await?;
    goes_on(lab).await
}

async fn until_its_kubelet_is_newer(lab: &Lab, node: Node<'_>) -> anyhow::Result<()> {
    let newer = format!("v{}", lab.upgrade_to()?);
    lab.eventually(format!("{node} to be Ready with a kubelet {newer}"), secs(60), async || {
        let listed = node.listed().await?;
        let version = listed.as_ref().and_then(|it| it.version()).map(str::to_owned);
        let ready = listed.as_ref().is_some_and(|it| it.holds("Ready"));
        let as_expected = ready && version.as_deref() == Some(&newer);
        let state = format!("kubelet {version:?}, Ready: {ready}");
        Ok(Probe::when(as_expected, Cause::NotReady, state))
    })
    .await
}

/// Nothing is lost for the client, everybody reaches everybody (E35), requests spread (E36), and nothing has
/// started anew.
async fn goes_on(lab: &Lab) -> anyhow::Result<()> {
    all_go_on(lab, NONE).await?;
    none_started_anew(lab).await?;
    lab.step("every ordered pair, node to Pod and Pod to Pod (E35)");
    let Use { pods, .. } = lab.kept()?;
    let mut everybody = lab.node_parties();
    everybody.extend(pods.iter().cloned());
    let mesh = lab.mesh(&everybody, &pods).await?;
    mesh.all_answer("every ordered pair to answer")?;
    sees_senders(lab, &mesh).await?;
    lab.wire().carried(&mesh)?;
    let blue = lab.deployment("blue").replicas().await?;
    lab.pods().until_running(blue).await?;
    for from in lab.node_parties().iter().chain(pods.first()) {
        lab.service("blue").leads_to_all(blue, from).await?;
        lab.step(format!("requests from {from} spread over the Pods (E36)"));
        lab.service("blue").spreads_evenly(from).await?;
    }
    Ok(())
}

async fn none_started_anew(lab: &Lab) -> anyhow::Result<()> {
    let Use { pods, .. } = lab.kept()?;
    lab.step("no container of red has started anew");
    let now = lab.pods().labelled("app=red").await?;
    let parties: Vec<Party> = now.iter().filter_map(Pod::party).collect();
    let names = |pods: &[Party]| listed(pods.iter().map(|pod| &pod.name));
    let (were, are) = (names(&pods), names(&parties));
    ensure!(were == are, Died, "the Pods {were} to stay", "{are}");
    let anew = now.iter().filter(|pod| has_started_anew(pod));
    let anew = anew.map(|pod| format!("{pod} {} times, {}", pod.restarts(), pod.phase()));
    ensure_none!(anew, Died, "no container of red to start anew");
    Ok(())
}

fn has_started_anew(pod: &Pod) -> bool {
    pod.restarts() > 0 || !pod.is_running()
}

/// The kubelet sees that a container has ended at its next look, and tells the API then.
async fn until_told_that_one_started_anew(lab: &Lab) -> anyhow::Result<()> {
    lab.eventually("the API to tell that a container of red has ended", secs(30), async || {
        let now = lab.pods().labelled("app=red").await?;
        let told = now.iter().any(has_started_anew);
        Ok(Probe::when(told, Cause::NotReady, "all run as before").needs(Needs::Kubelet(2)))
    })
    .await
}

/// The programs that each node runs, as the API and their own images say it.
async fn all_are_newer(lab: &Lab) -> anyhow::Result<()> {
    let newer = format!("v{}", lab.upgrade_to()?);
    lab.step(format!("every Node and every component is {newer}"));
    let mut seen = Vec::new();
    for node in lab.nodes() {
        let listed = node.listed().await?;
        let version = listed.as_ref().and_then(|it| it.version());
        seen.push((format!("kubelet of {node}"), version.unwrap_or_default().to_owned()));
    }
    let images = "get pods -n kube-system -o \
                  jsonpath='{range .items[*]}{.metadata.name} {.spec.containers[0].image}{\"\\n\"}{end}'";
    let images = lab.kubectl(images).await?.stdout;
    let images = images.lines().filter_map(|line| line.split_once(' '));
    let of_kubernetes = images.filter(|(_, image)| image.contains("/kube-"));
    seen.extend(of_kubernetes.map(|(pod, image)| {
        let version = image.rsplit(':').next().unwrap_or_default();
        (pod.to_owned(), version.to_owned())
    }));
    // A kubelet and a kube-proxy for each node, and the API server, the controller manager and the scheduler.
    let wanted = 2 * usize::try_from(lab.node_count())? + 3;
    let all = seen.len();
    ensure!(all == wanted, Absent, "{wanted} programs of Kubernetes", "{all}: {seen:?}");
    let older = seen.iter().filter(|(_, version)| *version != newer);
    let older = older.map(|(name, version)| format!("{name} {version}"));
    ensure_none!(older, WrongAnswer, "all {wanted} programs to be {newer}");
    Ok(())
}
