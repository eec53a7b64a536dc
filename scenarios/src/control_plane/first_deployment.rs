//! A Deployment that is older than who makes something of it.

use podwire_scenario::{
    Cause, Lab, Needs, Place, Pod, Probe, Profile, Sabotage, Scenario, StageName, assert, ensure,
    kubeconfig, secs, steps,
};

use crate::catalogue::{A13, A14, A15, A16, A22};

/// A13!, A14, A15!, A16: each component does its part when it starts, with what is there already. A22:
/// all that on an API server in today's mode, `Node,RBAC`, where each component and node has a
/// certificate of its own. Nodes are there from the start, Ready: in the document they come between the
/// controller manager and the scheduler.
pub(crate) const FIRST_DEPLOYMENT: Scenario = Scenario {
    about: "A Deployment is just that until the controller manager starts, its Pod is bound to no \
            node until the scheduler does, and nothing is made anew; each of the two may do its part, \
            and no more",
    covers: &[A13, A14, A15, A16, A22],
    profile: Profile::Full,
    nodes: 1,
    limit: secs(240),
    sabotages: &[
        Sabotage::new("controller-manager-runs")
            .about("the controller manager runs before the first look")
            .inject(steps!(|lab| {
                lab.node(1).stop("kube-scheduler").await?;
                create_deployment(lab).await?;
                pods_are_pending(lab).await
            }))
            .caught_by(steps!(nothing_but_the_deployment), Cause::Answered),
        Sabotage::new("controller-manager-not-started")
            .about("the controller manager is not started")
            .inject(steps!(create_without_managers))
            .caught_by(steps!(pods_are_pending), Cause::Absent),
        Sabotage::new("scheduler-looks")
            .about("the scheduler runs, and finds no node for the Pod")
            .inject(steps!(|lab| {
                lab.kubectl("cordon node1").await?;
                create_deployment(lab).await?;
                let said = lab.pods().until("the scheduler to say so", |pods| {
                    let said = pods.iter().any(|pod| pod.condition("PodScheduled").is_some());
                    let needs = Needs::ControlPlane("kube-scheduler");
                    Probe::when(said, Cause::Absent, "it says nothing").needs(needs)
                });
                said.await
            }))
            .caught_by(steps!(pods_are_pending), Cause::Answered),
        Sabotage::new("two-deployments")
            .about("there is another Deployment")
            .inject(steps!(|lab| {
                create_without_managers(lab).await?;
                let another = format!("create deployment green --image={}", Pod::IMAGE);
                lab.kubectl(another).await?;
                lab.node(1).start("kube-controller-manager").await?;
                let made = lab.pods().labelled("app=green").until("a Pod of green", |pods| {
                    let needs = Needs::ControlPlane("kube-controller-manager");
                    Probe::when(!pods.is_empty(), Cause::Absent, "none").needs(needs)
                });
                made.await
            }))
            .caught_by(steps!(pods_are_pending), Cause::NotUnique),
        Sabotage::new("scheduler-runs")
            .about("the scheduler runs before the first look")
            .inject(steps!(|lab| {
                create_deployment(lab).await?;
                lab.pods().until_running(1).await
            }))
            .caught_by(steps!(stays_unbound_on_a_ready_node), Cause::Answered),
        Sabotage::new("scheduler-not-started")
            .about("the scheduler is not started")
            .inject(steps!(create_and_start_the_controller_manager))
            .caught_by(steps!(the_same_pod_runs), Cause::NotReady),
        Sabotage::new("pod-made-anew")
            .about("somebody deletes the Pod, so that another is made, before the scheduler starts")
            .inject(steps!(|lab| {
                create_and_start_the_controller_manager(lab).await?;
                lab.pods().delete_all().await?;
                lab.node(1).start("kube-scheduler").await
            }))
            .caught_by(steps!(the_same_pod_runs), Cause::WrongAnswer),
        Sabotage::new("scheduler-without-its-role")
            .about("nobody has given the scheduler's user its role")
            .inject(steps!(|lab| {
                create_and_start_the_controller_manager(lab).await?;
                lab.kubectl("delete clusterrolebinding system:kube-scheduler").await?;
                lab.node(1).start("kube-scheduler").await
            }))
            .caught_by(steps!(the_same_pod_runs), Cause::NotReady),
        Sabotage::new("kube-proxy-not-started")
            .about("kube-proxy is not started")
            .inject(steps!(|lab| {
                create_deployment(lab).await?;
                lab.pods().until_running(1).await?;
                expose(lab).await
            }))
            .at(Place::Node(1))
            .caught_by(steps!(cluster_ip_answers), Cause::TimedOut),
        Sabotage::new("open-mode")
            .about("the API server lets everybody do everything who is known")
            .inject(steps!(|lab| {
                let open = lab.api_server().with("--authorization-mode", "AlwaysAllow");
                lab.start_api_server(&open).await
            }))
            .caught_by(steps!(scheduler_writes_no_secret), Cause::Answered),
        Sabotage::new("administrator-s-everywhere")
            .about("kube-proxy has the administrator's kubeconfig")
            .inject(steps!(|lab| {
                let (admin, own) = (kubeconfig::ADMIN_PATH, kubeconfig::KUBE_PROXY_PATH);
                lab.node(1).run(format!("cp {admin} {own}")).await
            }))
            .caught_by(steps!(each_is_known_by_its_own_name), Cause::WrongAnswer),
    ],
    ..Scenario::new("first_deployment", StageName::Cni, steps!(first_deployment))
};

async fn first_deployment(lab: &Lab) -> anyhow::Result<()> {
    create_without_managers(lab).await?;
    nothing_but_the_deployment(lab).await?;

    start_the_controller_manager(lab).await?;
    stays_unbound_on_a_ready_node(lab).await?;

    lab.step("start the scheduler");
    lab.node(1).start("kube-scheduler").await?;
    the_same_pod_runs(lab).await?;
    scheduler_writes_no_secret(lab).await?;
    each_is_known_by_its_own_name(lab).await?;

    expose(lab).await?;
    lab.start_kube_proxy().await?;
    cluster_ip_answers(lab).await
}

async fn create_without_managers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the controller manager and the scheduler do not run");
    lab.node(1).stop("kube-controller-manager kube-scheduler").await?;
    create_deployment(lab).await
}

async fn create_deployment(lab: &Lab) -> anyhow::Result<()> {
    lab.step("create a Deployment (A13)");
    let create = format!("create deployment blue --image={} -- /probe serve", Pod::IMAGE);
    lab.kubectl(create).await.map(drop)
}

async fn create_and_start_the_controller_manager(lab: &Lab) -> anyhow::Result<()> {
    create_without_managers(lab).await?;
    start_the_controller_manager(lab).await
}

async fn start_the_controller_manager(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the controller manager (A14)");
    lab.node(1).start("kube-controller-manager").await?;
    pods_are_pending(lab).await
}

/// By the time that another Pod runs, which nobody had to make, a ReplicaSet would be there.
async fn nothing_but_the_deployment(lab: &Lab) -> anyhow::Result<()> {
    runs_on_a_ready_node(lab, "meanwhile").await?;
    lab.step("there is the Deployment, no ReplicaSet and no Pod of it (A13)");
    let listed = lab.kubectl("get deployments,replicasets,pods -l app=blue -o name").await?;
    let (listed, made) = (listed.text(), listed.text().contains("deployment.apps/blue"));
    ensure!(made, Absent, "the Deployment", "{listed}");
    let alone = listed.lines().count() == 1;
    ensure!(alone, Answered, "nothing but the Deployment", "{listed}");
    Ok(())
}

/// The Pod that the controller manager has made: its UID.
#[derive(Clone)]
struct Made(String);

async fn pods_are_pending(lab: &Lab) -> anyhow::Result<()> {
    lab.step("there is one ReplicaSet, and its Pod is Pending, of no node and unseen (A14)");
    let expected = "a Pod that is Pending and that no scheduler has seen";
    let made = lab.pods().until(expected, |pods| {
        let [pod] = pods else {
            let state = format!("{} Pods", pods.len());
            return Probe::not_yet(Cause::Absent, state)
                .needs(Needs::ControlPlane("kube-controller-manager"));
        };
        let unseen = pod.condition("PodScheduled").is_none() && is_unbound(pod);
        let seen = format!("{}: {:?}", state_of(pod), pod.condition("PodScheduled"));
        match unseen {
            true => Probe::Done(Made(pod.uid().to_owned())),
            false => Probe::hopeless(Cause::Answered, seen),
        }
    });
    lab.keep(made.await?);
    let sets = lab.kubectl("get replicasets -o name").await?;
    let (sets, one) = (sets.text(), sets.text().lines().count() == 1);
    ensure!(one, NotUnique, "one ReplicaSet", "{sets}");
    Ok(())
}

fn is_unbound(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    pod.phase() == "Pending" && node.is_none()
}

fn state_of(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    format!("{pod} is {} on {}", pod.phase(), node.unwrap_or("no node"))
}

/// By the time that another Pod runs, which was given its node, this one would be bound, too.
async fn stays_unbound_on_a_ready_node(lab: &Lab) -> anyhow::Result<()> {
    runs_on_a_ready_node(lab, "placed").await?;
    lab.step("the Deployment's Pod is of no node (A15)");
    let pods = lab.pods().await?;
    ensure!(!pods.is_empty(), Absent, "the Deployment's Pod to wait", "none");
    for pod in pods {
        let (unbound, state) = (is_unbound(&pod), state_of(&pod));
        ensure!(unbound, Answered, "the Pod to be Pending, of no node", "{state}");
    }
    Ok(())
}

/// A Pod by itself, which names its node.
async fn runs_on_a_ready_node(lab: &Lab, name: &str) -> anyhow::Result<()> {
    lab.step(format!("the Node is Ready, and {name}, a Pod that names it, runs there"));
    lab.all_nodes_ready().await?;
    lab.start_pod(name, lab.node(1)).await?;
    lab.pods().labelled(format!("app={name}")).until_running(1).await.map(drop)
}

async fn the_same_pod_runs(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Pod is bound and runs, the one that was there (A16)");
    let Made(uid) = lab.kept()?;
    let node1 = lab.node(1);
    let needs = Needs::All(vec![
        lab.pods().needs(1),
        Needs::Silence {
            node: 1,
            command: node1
                .journal_lines("kube-scheduler", &["system:kube-scheduler", "cannot list"]),
            means: "the scheduler is refused".to_owned(),
        },
    ]);
    let running = lab.pods().until("the Pod to run", |pods| {
        let running = pods.iter().find(|pod| pod.is_running());
        let state = pods.iter().map(state_of).collect::<Vec<_>>().join(", ");
        let found = running.map(|pod| pod.uid().to_owned());
        Probe::of(found, Cause::NotReady, state).needs(needs.clone())
    });
    let running = running.await?;
    let same = running == uid;
    ensure!(same, WrongAnswer, "the Pod of before, {uid}, to run", "another runs, {running}");
    Ok(())
}

/// Whose kubeconfig is which user's, of those groups (Kubernetes, "PKI certificates and requirements").
const USERS: [(&str, &str, &[&str]); 4] = [
    (kubeconfig::CONTROLLER_MANAGER_PATH, "system:kube-controller-manager", &[]),
    (kubeconfig::SCHEDULER_PATH, "system:kube-scheduler", &[]),
    (kubeconfig::KUBE_PROXY_PATH, "system:kube-proxy", &[]),
    (kubeconfig::KUBELET_PATH, "system:node:node1", &["system:nodes"]),
];

async fn each_is_known_by_its_own_name(lab: &Lab) -> anyhow::Result<()> {
    lab.step("each component, and the node, is known by a certificate of its own (A22)");
    for (kubeconfig, user, groups) in USERS {
        let ask = format!("kubectl auth whoami -o json --kubeconfig {kubeconfig}");
        let known = lab.node(1).run(ask).within(secs(20)).await?.stdout;
        let known: serde_json::Value = serde_json::from_str(&known)?;
        let known = &known["status"]["userInfo"];
        let of = known["groups"].as_array().cloned().unwrap_or_default();
        let right = known["username"] == user && groups.iter().all(|it| of.contains(&(*it).into()));
        ensure!(right, WrongAnswer, "{user} of {groups:?} by {kubeconfig}", "{known}");
    }
    Ok(())
}

async fn scheduler_writes_no_secret(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the scheduler's certificate may list Pods, and not write a Secret (A22)");
    let as_scheduler = |what: &str| {
        let kubeconfig = kubeconfig::SCHEDULER_PATH;
        lab.node(1).run(format!("kubectl --kubeconfig {kubeconfig} {what}")).within(secs(20))
    };
    as_scheduler("get pods").await?;
    let write = as_scheduler("create secret generic taken --from-literal=key=value");
    let write = write.may_fail().await?;
    let why = r#"is forbidden: User "system:kube-scheduler" cannot create"#;
    Ok(assert::refused(&write, why, "the scheduler to be refused a Secret")?)
}

async fn expose(lab: &Lab) -> anyhow::Result<()> {
    lab.step("expose the Deployment");
    lab.kubectl("expose deployment blue --port=80").await.map(drop)
}

/// From the Pod's own node: there are no routes to others.
async fn cluster_ip_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("its ClusterIP answers by kube-proxy (A22)");
    let node = lab.node(lab.pods().first().await?.node);
    lab.service("blue").until_a_pod_answers(node, secs(15)).await
}
