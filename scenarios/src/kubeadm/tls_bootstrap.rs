//! How a worker's kubelet came by its certificate and its settings, as the API and the worker show it.

use podwire_scenario::{
    Cause, Cells, Failure, Lab, Profile, Sabotage, Scenario, StageName, ensure, ensure_none, fails,
    secs, steps,
};

use crate::catalogue::{E18, E42};

/// E18, E42: the TLS bootstrap from the API, and the kubelet's settings.
pub(crate) const TLS_BOOTSTRAP: Scenario = Scenario {
    about: "A worker's kubelet asked for its certificate with the bootstrap token, was approved by the \
            cluster itself, and uses what was issued; its settings are the cluster's, but for the \
            engine's socket",
    covers: &[E18, E42],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(120),
    sabotages: &[
        Sabotage::new("asked-by-another")
            .about("the certificate was asked for by an administrator")
            .inject(steps!(asked_by_an_administrator))
            .caught_by(steps!(asked_approved_and_used), Cause::WrongAnswer),
        Sabotage::new("another-certificate")
            .about("the kubelet's file has a certificate that was never issued")
            .inject(steps!(|lab| lab.node(WORKER).run(NEVER_ISSUED).await))
            .caught_by(steps!(asked_approved_and_used), Cause::WrongAnswer),
        Sabotage::new("another-server")
            .about("the kubelet's kubeconfig names another API server")
            .inject(steps!(|lab| {
                let change =
                    "sed -i s/172.30.0.11:6443/172.30.0.12:6443/ /etc/kubernetes/kubelet.conf";
                lab.node(WORKER).run(change).await
            }))
            .caught_by(steps!(asked_approved_and_used), Cause::WrongAnswer),
        Sabotage::new("changed-by-hand")
            .about("somebody has changed the worker's own settings")
            .inject(steps!(|lab| {
                let change = "sed -i '$a maxPods: 3' /var/lib/kubelet/config.yaml";
                lab.node(WORKER).run(change).await
            }))
            .caught_by(steps!(settings_of_the_cluster), Cause::WrongAnswer),
    ],
    ..Scenario::new("tls_bootstrap", StageName::Joined, steps!(bootstrapped))
};

/// Any node but the control plane's.
const WORKER: u32 = 2;

async fn bootstrapped(lab: &Lab) -> anyhow::Result<()> {
    asked_approved_and_used(lab).await?;
    settings_of_the_cluster(lab).await
}

/// One line for each request: who asked, whom, what became of it, its subject, and the digest of what was
/// issued.
const REQUESTS: &str = "\
export KUBECONFIG=/etc/kubernetes/admin.conf; \
kubectl get csr -o jsonpath='{range .items[*]}{.spec.username} {.spec.signerName} \
{.status.conditions[*].type} {.status.conditions[*].reason} {.spec.request} \
{.status.certificate}{\"\\n\"}{end}' | \
while read -r user signer state reason request issued; do \
subject=$(echo $request | base64 -d | openssl req -noout -subject -nameopt RFC2253); \
digest=$(echo $issued | base64 -d | openssl x509 -noout -fingerprint -sha256); \
echo $user $signer $state $reason ${subject#subject=} $digest; done";

/// The kubelet's certificate, and what leads there.
const USED: &str = "\
openssl x509 -in /var/lib/kubelet/pki/kubelet-client-current.pem -noout -fingerprint -sha256; \
grep -o -e 'server: .*' -e 'client-certificate: .*' -e 'client-key: .*' /etc/kubernetes/kubelet.conf";

async fn asked_approved_and_used(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(WORKER);
    lab.step(format!("{node}'s request for a certificate, and what it uses (E18)"));
    let requests = lab.node(1).run(REQUESTS).within(secs(20)).await?;
    let used = node.run(USED).await?;
    Ok(its_own(node.name(), &requests.stdout, &used.stdout)?)
}

/// The token's id is the stage's.
const ASKED: &str = "\
system:bootstrap:podwir kubernetes.io/kube-apiserver-client-kubelet Approved AutoApproved";

fn its_own(node: &str, requests: &str, used: &str) -> Result<(), Failure> {
    let subject = format!("CN=system:node:{node},O=system:nodes");
    let mut lines = requests.lines();
    let Some(request) = lines.find(|line| line.split(' ').any(|word| word == subject)) else {
        return Err(fails!(Absent, "a request of {subject}", "{requests}"));
    };
    let Some(digest) = request.strip_prefix(&format!("{ASKED} {subject} ")) else {
        return Err(fails!(WrongAnswer, "{ASKED} {subject}", "{request}"));
    };
    let current = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    for wanted in [
        digest.to_owned(),
        "server: https://172.30.0.11:6443".to_owned(),
        format!("client-certificate: {current}"),
        format!("client-key: {current}"),
    ] {
        let there = used.lines().any(|line| line == wanted);
        ensure!(there, WrongAnswer, "{node} to use {wanted:?}", "{used}");
    }
    Ok(())
}

/// The same requests again, by somebody who may ask for everything.
const BY_AN_ADMINISTRATOR: &str = "\
export KUBECONFIG=/etc/kubernetes/admin.conf; \
for name in $(kubectl get csr -o name); do \
request=$(kubectl get $name -o jsonpath={.spec.request}) && kubectl delete $name && \
printf 'apiVersion: certificates.k8s.io/v1\\nkind: CertificateSigningRequest\\n\
metadata: {name: %s}\\nspec:\\n  request: %s\\n  usages: [digital signature, client auth]\\n\
\x20 signerName: kubernetes.io/kube-apiserver-client-kubelet\\n' ${name##*/} $request | \
kubectl create -f - && kubectl certificate approve ${name##*/} || exit 1; done";

async fn asked_by_an_administrator(lab: &Lab) -> anyhow::Result<()> {
    lab.node(1).run(BY_AN_ADMINISTRATOR).within(secs(40)).await?;
    Ok(())
}

const NEVER_ISSUED: &str = "\
cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
-subj /O=system:nodes/CN=system:node:node2 -keyout own.key -out own.crt 2>/dev/null && \
cat own.crt own.key >/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Lines that only the cluster's settings have (`-`), and only the worker's (`+`).
const DIFFERENCES: &str = "\
diff -U0 <(kubectl --kubeconfig=/etc/kubernetes/kubelet.conf get configmap -n kube-system \
kubelet-config -o jsonpath={.data.kubelet}) /var/lib/kubelet/config.yaml | \
grep -v -e '^---' -e '^+++' -e '^@@'; true";

/// What kubeadm sets for the node alone.
const OWN: &str = "containerRuntimeEndpoint: ";

async fn settings_of_the_cluster(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(WORKER);
    lab.step(format!("{node}'s settings are the ConfigMap kubelet-config's (E42)"));
    let differences = node.run(DIFFERENCES).within(secs(20)).await?.stdout;
    let own = |line: &str| line.get(1..).is_some_and(|line| line.starts_with(OWN));
    let others = differences.lines().filter(|line| !own(line));
    ensure_none!(others, WrongAnswer, "no difference but {OWN:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_a_certificate_and_a_server_are_told_apart() {
        let requests = format!(
            "{ASKED} CN=system:node:node3,O=system:nodes sha256 Fingerprint=33\n\
             {ASKED} CN=system:node:node2,O=system:nodes sha256 Fingerprint=22\n"
        );
        let pem = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        let used = format!(
            "sha256 Fingerprint=22\nserver: https://172.30.0.11:6443\n\
             client-certificate: {pem}\nclient-key: {pem}\n"
        );
        assert_eq!(its_own("node2", &requests, &used), Ok(()));
        let none = its_own("node4", &requests, &used).unwrap_err();
        assert_eq!(none.cause, Cause::Absent);
        let other = its_own("node3", &requests, &used).unwrap_err();
        assert!(other.expected.contains("Fingerprint=33"), "{other}");
        let denied = requests.replace("Approved AutoApproved", "Denied KubectlDeny");
        let denied = its_own("node2", &denied, &used).unwrap_err();
        assert_eq!(denied.cause, Cause::WrongAnswer);
        let elsewhere = used.replace("172.30.0.11", "172.30.0.12");
        assert!(its_own("node2", &requests, &elsewhere).is_err());
    }
}
