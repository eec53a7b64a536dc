//! `kubeadm init` as somebody has it who brings an authority, an engine's socket and a range of Pods.

use std::net::Ipv4Addr;

use podwire_scenario::{
    Cause, Cells, Failure, Lab, Party, Pod, Profile, RequestOutcome, Sabotage, Scenario, StageName,
    assert, ensure, secs, steps,
};
use serde_json::json;

use super::init::CHAINS;
use crate::catalogue::{E3c, E3d, E7b};

/// E3c, of E3d that the socket is used, and E7b: one `kubeadm init` that is told all three.
///
/// The authority's key is taken away when it has signed everything that init needs, and before init runs.
pub(crate) const CHOICES: Scenario = Scenario {
    about: "kubeadm init keeps an authority that it finds, needs no key of it where all certificates are \
            there, uses the engine's socket that it is told, and accepts a Pod range over the LAN, \
            from whose Pods a LAN address within their node's range cannot be reached",
    covers: &[E3c, E3d, E7b],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(240),
    prepare: Some(steps!(init)),
    sabotages: &[
        Sabotage::new("another-authority-found")
            .about("kubeadm finds another authority than the one that was placed")
            .inject(steps!(|lab| lab.node(1).run(ANOTHER_AUTHORITY).await))
            .caught_by(steps!(kept_and_signs_everything), Cause::WrongAnswer),
        Sabotage::new("signed-by-itself")
            .about(
                "the API server's client certificate for kubelets is signed by nobody but itself",
            )
            .inject(steps!(|lab| lab.node(1).run(SIGNED_BY_ITSELF).await))
            .caught_by(steps!(kept_and_signs_everything), Cause::Tls),
        Sabotage::new("a-certificate-missing")
            .about(
                "the API server's client certificate for kubelets is gone, and nobody can sign \
                 another",
            )
            .inject(steps!(|lab| {
                let remove = "rm /etc/kubernetes/pki/apiserver-kubelet-client.*";
                lab.node(1).run(remove).await
            }))
            .saying("apiserver-kubelet-client.key")
            .caught_by(steps!(certificates_without_a_key), Cause::Absent),
        Sabotage::new("usual-socket")
            .about("the kubelet is told of the engine's usual socket")
            .inject(steps!(|lab| lab.node(1).run(USUAL_SOCKET).await))
            .caught_by(steps!(socket_is_used), Cause::WrongAnswer),
        Sabotage::new("range-elsewhere")
            .about("the node's Pods have addresses outside the LAN")
            .inject(steps!(|lab| {
                printer(lab).await?;
                lab.node(2).add_route_to(1).await?;
                lab.keep(pod(lab, &lab.node(1).pod_range().to_string()).await?);
                Ok(())
            }))
            .caught_by(steps!(|lab| printer_is_lost(lab, &lab.kept()?).await), Cause::Answered),
    ],
    ..Scenario::new("kubeadm_init_by_choice", StageName::Identified, steps!(choices))
};

/// The engine's socket, under a name that kubeadm would not find.
const SOCKET: &str = "/run/engine.sock";
/// The upper half of the LAN, a quarter of it for each node.
const PODS: &str = "172.30.0.128/25";
/// Of node 1, the first to ask.
const OF_NODE1: &str = "172.30.0.128/26";
/// A printer of the LAN's.
const PRINTER: &str = "172.30.0.140";

/// An authority, and where it is kept when its key has left the node's folder.
const PLACE_AUTHORITY: &str = "\
mkdir -p /root/own /etc/kubernetes/pki && cd /root/own && \
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
-subj /CN=of-the-house -keyout ca.key -out ca.crt 2>/dev/null && \
cp ca.crt ca.key /etc/kubernetes/pki/";

/// What init would sign, signed before; then the key goes.
const SIGN: &str = "\
cd /root/podwire && { kubeadm init phase certs all --config init.json && \
kubeadm init phase kubeconfig all --config init.json; } >signed.log 2>&1 || \
{ tail -n 20 signed.log >&2; exit 1; }; rm /etc/kubernetes/pki/ca.key";

async fn init(lab: &Lab) -> anyhow::Result<()> {
    let mut config = lab.init_config()?;
    let socket = json!(format!("unix://{SOCKET}"));
    config.document("InitConfiguration")?["nodeRegistration"]["criSocket"] = socket;
    let cluster = config.document("ClusterConfiguration")?;
    cluster["networking"]["podSubnet"] = json!(PODS);
    let size = json!({ "name": "node-cidr-mask-size-ipv4", "value": "26" });
    if let Some(arguments) = cluster["controllerManager"]["extraArgs"].as_array_mut() {
        arguments.push(size);
    }
    let (node1, kubeadm) = (lab.node(1), lab.kubeadm(1));
    kubeadm.prepare(&config).await?;
    node1.run(format!("ln -s /run/containerd/containerd.sock {SOCKET}")).await?;
    lab.step("place an authority, have it sign everything, and take its key away");
    node1.run(PLACE_AUTHORITY).await?;
    node1.run(SIGN).within(secs(30)).await?;
    kubeadm.init(&[]).await
}

async fn choices(lab: &Lab) -> anyhow::Result<()> {
    kept_and_signs_everything(lab).await?;
    certificates_without_a_key(lab).await?;
    lab.step(
        "init, which had no key either, has made a cluster whose API the authority vouches for",
    );
    let ask = "--cacert /root/own/ca.crt https://172.30.0.11:6443/readyz";
    lab.node(1).curl(ask).await?.ends(Cause::Answered, "the API server to be ready")?;
    socket_is_used(lab).await?;

    lab.step("the Pod range over the LAN was accepted, and node1 has its part of it (E7b)");
    let range = lab.kubectl("get node node1 -o jsonpath={.spec.podCIDR}").await?;
    let (range, own) = (range.text(), range.text() == OF_NODE1);
    ensure!(own, WrongAnswer, "node1 to have {OF_NODE1}", "{range}");
    printer(lab).await?;
    lab.step("node1 reaches the printer, as long as no Pod network is there");
    let before = lab.ask(lab.node(1), PRINTER);
    before.all_answered_by(lab.node(2).party(), "the printer to answer node1").await?;
    printer_is_lost(lab, &pod(lab, range).await?).await
}

const KEPT: &str = "\
cd /etc/kubernetes/pki && cmp ca.crt /root/own/ca.crt >&2 && echo kept; ls ca.key 2>/dev/null; \
sed 's/^/said /' /root/podwire/signed.log; \
for name in apiserver apiserver-kubelet-client; do \
openssl verify -CAfile /root/own/ca.crt $name.crt >/dev/null 2>&1 && echo chain $name; \
done; ";

async fn kept_and_signs_everything(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the authority that was placed is kept, and has signed everything (E3c)");
    let answer = lab.node(1).run(format!("{KEPT}{CHAINS}")).await?;
    Ok(kept_and_signs(&answer.stdout)?)
}

/// The certificates and kubeconfigs that chain to the cluster's authority; etcd and the front proxy have
/// authorities of their own.
const SIGNED: &str = "\
apiserver apiserver-kubelet-client admin super-admin kubelet controller-manager scheduler";

fn kept_and_signs(answer: &str) -> Result<(), Failure> {
    let says = |line: &str| answer.lines().any(|it| it == line);
    ensure!(says("kept"), WrongAnswer, "the authority that was placed", "another");
    let found = says("said [certs] Using existing ca certificate authority");
    ensure!(found, WrongAnswer, "kubeadm to say that it uses it", "{answer}");
    ensure!(!says("ca.key"), Answered, "no key of it", "{answer}");
    for name in SIGNED.split(' ') {
        let chains = says(&format!("chain {name}"));
        ensure!(chains, Tls, "{name}'s certificate to chain to it", "{answer}");
    }
    Ok(())
}

async fn certificates_without_a_key(lab: &Lab) -> anyhow::Result<()> {
    lab.step("without the key kubeadm takes every certificate as it is (E3c)");
    let certs = "init phase certs all --config /root/podwire/init.json";
    let answer = lab.kubeadm(1).run(certs).may_fail().await?;
    let said = answer.said();
    ensure!(answer.succeeded(), Absent, "all certificates", "{said}");
    let keyless = said.contains("[certs] Using existing ca keyless certificate authority");
    ensure!(keyless, WrongAnswer, "kubeadm to say that there is no key", "{said}");
    Ok(())
}

const ANOTHER_AUTHORITY: &str = "\
cd /root/own && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
-subj /CN=of-the-house -keyout /dev/null -out /etc/kubernetes/pki/ca.crt 2>/dev/null";

const SIGNED_BY_ITSELF: &str = "\
cd /etc/kubernetes/pki && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
-subj /O=kubeadm:cluster-admins/CN=kube-apiserver-kubelet-client \
-keyout apiserver-kubelet-client.key -out apiserver-kubelet-client.crt 2>/dev/null";

/// Since 1.34 it is in a file of the node's own, before in a flag.
const SOCKETS: &str = "\
cd /var/lib/kubelet && grep -h -o 'unix://[^ \"]*' instance-config.yaml kubeadm-flags.env config.yaml";

const USUAL_SOCKET: &str = "\
cd /var/lib/kubelet && sed -i 's#unix://[^ \"]*#unix:///run/containerd/containerd.sock#' \
instance-config.yaml kubeadm-flags.env config.yaml; true";

async fn socket_is_used(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the kubelet was told of the engine's socket, and of no other (E3d)");
    let answer = lab.node(1).run(SOCKETS).may_fail().await?.stdout;
    let wanted = format!("unix://{SOCKET}");
    let used = !answer.is_empty() && answer.lines().all(|line| line == wanted);
    ensure!(used, WrongAnswer, "{wanted} alone", "{answer}");
    Ok(())
}

/// Node 2, which is no part of the cluster, has another address, and answers at it.
async fn printer(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("a printer of the LAN's has {PRINTER}"));
    let node2 = lab.node(2);
    let device = node2.device_to(lab.node(1).address()).await?;
    node2.run(format!("ip address add {PRINTER}/24 dev {device}")).await?;
    node2.occupy_port(80).await
}

/// A Pod of node 1, whose bridge has this range.
async fn pod(lab: &Lab, range: &str) -> anyhow::Result<Party> {
    let node1 = lab.node(1);
    lab.step(format!("node1's Pods are in {range}: write a CNI file, and start a Pod"));
    node1.write_cni_file(range.parse()?).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "clerk" },
        "spec": { "nodeName": "node1", "containers": [Pod::container()] },
    });
    node1.write("/root/clerk.json", pod.to_string()).await?;
    lab.kubectl("apply -f /root/clerk.json").await?;
    let wait = "wait --for=condition=Ready --timeout=10m pod/clerk";
    lab.kubectl(wait).within(secs(60)).await?;
    let address = lab.kubectl("get pod clerk -o jsonpath={.status.podIP}").await?;
    let address: Ipv4Addr = address.text().parse()?;
    Ok(Party::new("clerk", 1, true, address))
}

async fn printer_is_lost(lab: &Lab, pod: &Party) -> anyhow::Result<()> {
    lab.step(
        "the Pod does not reach the printer, and reaches its node, which is of the LAN too (E7b)",
    );
    lab.node(1).occupy_port(80).await?;
    let (printer, node1) = lab.ask_both(pod, PRINTER, lab.node(1).address()).await?;
    // Its node asks for it on the bridge, where nobody has that address: whose time is over first, it does not say.
    let lost = [RequestOutcome::NoRoute, RequestOutcome::TimedOut].map(|it| printer.count(it));
    let lost = lost.iter().sum::<u32>();
    let ended = printer.results.iter().map(|each| each.count).sum::<u32>();
    ensure!(
        lost > 0 && lost == ended,
        Answered,
        "no way to {PRINTER}, or no answer in time",
        "{printer}"
    );
    assert::all_answered_by("node1 to answer", &node1, lab.node(1).party())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_is_not_kept_is_told_from_one_that_has_not_signed() {
        let chains: String = SIGNED.split(' ').map(|name| format!("chain {name}\n")).collect();
        let good = format!("kept\nsaid [certs] Using existing ca certificate authority\n{chains}");
        assert_eq!(kept_and_signs(&good), Ok(()));
        let cause =
            |from: &str, to: &str| kept_and_signs(&good.replacen(from, to, 1)).unwrap_err().cause;
        assert_eq!(cause("kept\n", ""), Cause::WrongAnswer);
        assert_eq!(cause("Using existing", "Generating"), Cause::WrongAnswer);
        assert_eq!(cause("chain apiserver\n", ""), Cause::Tls);
        assert_eq!(cause("kept\n", "kept\nca.key\n"), Cause::Answered);
    }
}
