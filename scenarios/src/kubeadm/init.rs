//! What `kubeadm init` leaves on node 1.

use podwire_scenario::{
    Cause, Failure, INIT_LOG, Lab, Needs, Probe, Profile, Sabotage, Scenario, StageName, ensure,
    secs, steps,
};

use super::ports;
use crate::catalogue::{E3, E5};

/// E3, E5: what `kubeadm init` leaves. That it finds its ports free and etcd's folder empty is shown on
/// a node where it has not run.
pub(crate) const LEAVES: Scenario = Scenario {
    about: "After kubeadm init node 1 has an authority, kubeconfigs whose certificates chain to it, \
            and a control plane of static Pods, whose ports answer those whom they are for; its join \
            command is printed and admin.conf works",
    covers: &[E3, E5],
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("foreign-certificate")
            .about("the scheduler's kubeconfig carries a certificate of another authority")
            .inject(steps!(|lab| {
                lab.step("give the scheduler a certificate that it signed itself");
                lab.node(1).run(FOREIGN_CERTIFICATE).await
            }))
            .caught_by(steps!(files_of_the_control_plane), Cause::Tls),
        Sabotage::new("manifest-missing")
            .about("the scheduler's manifest is gone")
            .inject(steps!(|lab| {
                let remove = "rm /etc/kubernetes/manifests/kube-scheduler.yaml";
                lab.node(1).run(remove).await
            }))
            .caught_by(steps!(files_of_the_control_plane), Cause::Absent),
        Sabotage::new("static-pod-gone")
            .about("the scheduler's Pod went with its manifest")
            .inject(steps!(|lab| {
                lab.node(1).run("rm /etc/kubernetes/manifests/kube-scheduler.yaml").await?;
                let gone = "-n kube-system wait --for=delete pod/kube-scheduler-node1 --timeout=2m";
                lab.kubectl(gone).within(secs(60)).await
            }))
            .caught_by(steps!(static_pods_run), Cause::Absent),
        Sabotage::new("role-taken-away")
            .about("somebody took the role off node 1's Node")
            .inject(steps!(|lab| lab.kubectl(format!("label node node1 {ROLE}-")).await))
            .caught_by(steps!(has_the_role), Cause::Absent),
        Sabotage::new("command-for-another")
            .about("the printed command is for node 2's address")
            .inject(steps!(|lab| {
                let (server, other) = (lab.node(1).address(), lab.node(2).address());
                let change = format!("s/kubeadm join {server}/kubeadm join {other}/");
                lab.node(1).run(format!("sed -i '{change}' {INIT_LOG}")).await
            }))
            .caught_by(steps!(join_command_is_printed), Cause::WrongAnswer),
        Sabotage::new("for-another-port")
            .about("admin.conf names a port at which nobody listens")
            .inject(steps!(|lab| {
                let change = "sed -i s/:6443/:6444/ /etc/kubernetes/admin.conf";
                lab.node(1).run(change).await
            }))
            .saying("connection refused")
            .caught_by(steps!(regular_user_lists_nodes), Cause::Other),
        Sabotage::new("port-taken")
            .about("something listens on the controller manager's port of a node without one")
            .inject(steps!(|lab| lab.node(2).occupy_port(10257).await))
            .caught_by(steps!(ports::free_before_and_used), Cause::Answered),
        Sabotage::new("port-passed-on")
            .about("somebody passes the controller manager's port on to the node's address")
            .inject(steps!(ports::pass_the_controller_managers_on))
            .caught_by(steps!(ports::roles), Cause::WrongAnswer),
        Sabotage::new("kubelets-port-closed")
            .about("a rule of node1 refuses connections to its kubelet's port")
            .inject(steps!(|lab| {
                let rule = "tcp dport 10250 reject with tcp reset";
                lab.node(1).add_rule("type filter hook input priority 0", rule).await
            }))
            .caught_by(steps!(ports::roles), Cause::Refused),
    ],
    ..Scenario::new("kubeadm_init", StageName::Init, steps!(init_leaves))
};

async fn init_leaves(lab: &Lab) -> anyhow::Result<()> {
    ports::free_before_and_used(lab).await?;
    ports::roles(lab).await?;
    files_of_the_control_plane(lab).await?;
    static_pods_run(lab).await?;
    has_the_role(lab).await?;
    join_command_is_printed(lab).await?;
    regular_user_lists_nodes(lab).await
}

const ROLE: &str = "node-role.kubernetes.io/control-plane";

async fn has_the_role(lab: &Lab) -> anyhow::Result<()> {
    lab.step("node1 has the role of the control plane");
    let has_role = lab.node(1).has_label(ROLE).await?;
    ensure!(has_role, Absent, "node1 to have {ROLE}", "no such label");
    Ok(())
}

async fn join_command_is_printed(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the join command is printed at the end, for the API server's address");
    let command = lab.join_command().await?;
    let server = format!("{}:6443", lab.node(1).address());
    let right = command.endpoint == server;
    ensure!(right, WrongAnswer, "one to join {server}", "{command}");
    Ok(())
}

async fn regular_user_lists_nodes(lab: &Lab) -> anyhow::Result<()> {
    lab.step("copy admin.conf for a regular user, who then lists the Nodes");
    let listed = lab.node(1).run(AS_A_USER).within(secs(20)).may_fail().await?;
    let works = listed.succeeded() && listed.stdout.contains("node/node1");
    ensure!(works, Other, "a copy of admin.conf to work", "{listed}");
    Ok(())
}

/// Below /etc/kubernetes. The service account key and etcd's own authority are beside the first.
const FILES: &str = "\
pki/ca.crt pki/ca.key pki/sa.key pki/etcd/ca.crt \
admin.conf super-admin.conf kubelet.conf controller-manager.conf scheduler.conf \
manifests/etcd.yaml manifests/kube-apiserver.yaml \
manifests/kube-controller-manager.yaml manifests/kube-scheduler.yaml";

/// The client certificate is in the kubeconfig, or in the file that it names: the kubelet's is
/// renewed there.
pub(super) const CHAINS: &str = "\
cd /etc/kubernetes; find . -type f -printf 'file %P\\n'; \
for name in admin super-admin kubelet controller-manager scheduler; do \
data=$(sed -n 's/.*client-certificate-data: //p' $name.conf); \
if [ \"$data\" ]; then echo $data | base64 -d; \
else cat $(sed -n 's/.*client-certificate: //p' $name.conf); fi | \
openssl verify -CAfile pki/ca.crt >/dev/null 2>&1 && echo chain $name; \
done; true";

async fn files_of_the_control_plane(lab: &Lab) -> anyhow::Result<()> {
    lab.step("files below /etc/kubernetes, and whose certificates chain to the authority");
    Ok(files_and_chains(&lab.node(1).run(CHAINS).await?.stdout)?)
}

fn files_and_chains(answer: &str) -> Result<(), Failure> {
    let says = |line: String| answer.lines().any(|it| it == line);
    for file in FILES.split(' ') {
        let there = says(format!("file {file}"));
        ensure!(there, Absent, "the files that init leaves", "no {file}");
    }
    let kubeconfigs = FILES.split(' ').filter_map(|file| file.strip_suffix(".conf"));
    for name in kubeconfigs {
        ensure!(
            says(format!("chain {name}")),
            Tls,
            "every kubeconfig's client certificate to chain to the authority",
            "{name}.conf's does not",
            "`openssl verify -CAfile /etc/kubernetes/pki/ca.crt` on node1"
        );
    }
    Ok(())
}

const FOREIGN_CERTIFICATE: &str = "\
cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
-subj /CN=system:kube-scheduler -keyout foreign.key -out foreign.crt 2>/dev/null && \
data=$(base64 -w0 foreign.crt) && \
sed -i \"s|client-certificate-data: .*|client-certificate-data: $data|\" \
/etc/kubernetes/scheduler.conf";

/// The static Pods of a control plane.
pub(super) const COMPONENTS: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

async fn static_pods_run(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the control plane runs as static Pods, each named after its node");
    let pods = lab.system_pods().within(secs(30));
    pods.until("the four static Pods of node1 Ready", |pods| {
        for component in COMPONENTS {
            let name = format!("{component}-node1");
            let (cause, state) = match pods.iter().find(|pod| pod.name() == name) {
                Some(pod) if pod.holds("Ready") => continue,
                Some(_) => (Cause::NotReady, format!("{name} is not Ready")),
                None => (Cause::Absent, format!("no {name}")),
            };
            return Probe::not_yet(cause, state).needs(Needs::ControlPlane(component));
        }
        Probe::Done(())
    })
    .await
}

/// What init's last words tell a regular user to do.
const AS_A_USER: &str = "\
install -d -o nobody /tmp/nobody /tmp/nobody/.kube && \
install -o nobody -m 600 /etc/kubernetes/admin.conf /tmp/nobody/.kube/config && \
runuser -u nobody -- env HOME=/tmp/nobody kubectl get nodes -o name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_and_a_foreign_certificate_are_told_apart() {
        let files: String = FILES.split(' ').map(|file| format!("file {file}\n")).collect();
        let chains = "chain admin\nchain super-admin\nchain kubelet\nchain controller-manager\n";
        let good = format!("{files}{chains}chain scheduler\n");
        assert_eq!(files_and_chains(&good), Ok(()));
        let failure = files_and_chains(&format!("{files}{chains}")).unwrap_err();
        assert_eq!(failure.cause, Cause::Tls);
        assert!(failure.seen.contains("scheduler.conf"), "{failure}");
        let failure = files_and_chains(chains).unwrap_err();
        assert_eq!(failure.cause, Cause::Absent);
    }
}
