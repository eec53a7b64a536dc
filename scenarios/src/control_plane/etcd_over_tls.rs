//! etcd with a key pair of its own.

use podwire_scenario::{
    Cause, Cells, Component, Lab, Needs, Probe, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use crate::catalogue::A21;

/// A21: the bit of extra challenge that the document offers.
pub(crate) const ETCD_OVER_TLS: Scenario = Scenario {
    about: "The API server reaches an etcd that speaks TLS with the key pair that both were given, \
            and not when it is not told whose certificate to take",
    covers: &[A21],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    prepare: Some(steps!(etcd_with_a_key_pair)),
    sabotages: &[
        Sabotage::new("certificate-known")
            .about("the API server is told whose certificate to take")
            .inject(steps!(|lab| start_api_server(lab, &told(lab)).await))
            .caught_by(steps!(does_not_trust_etcd), Cause::Answered),
        Sabotage::new("another-certificate")
            .about("the certificate that the API server is told to take is another's")
            .inject(steps!(|lab| {
                let other = told(lab).with("--etcd-cafile", "/root/ca.cert");
                start_api_server(lab, &other).await
            }))
            .caught_by(steps!(is_ready), Cause::Tls),
    ],
    ..Scenario::new("etcd_over_tls", StageName::Identified, steps!(etcd_over_tls))
};

async fn etcd_over_tls(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the API server with the key pair, and without --etcd-cafile");
    start_api_server(lab, &told(lab).without("--etcd-cafile")).await?;
    does_not_trust_etcd(lab).await?;

    lab.step("start it with all three of --etcd-cafile, --etcd-certfile, --etcd-keyfile");
    start_api_server(lab, &told(lab)).await?;
    is_ready(lab).await
}

const ADDRESS: &str = "https://localhost:2379";
const CERTIFICATE: &str = "/root/etcd.cert";
const KEY: &str = "/root/etcd.key";

const MAKE: &str = "\
    openssl req -x509 -newkey rsa:2048 -noenc -keyout etcd.key -out etcd.cert -subj /CN=etcd \
        -addext subjectAltName=DNS:localhost";

async fn etcd_with_a_key_pair(lab: &Lab) -> anyhow::Result<()> {
    lab.make_first_keys().await?;
    lab.step("make etcd's key pair, and start etcd, which takes that alone");
    lab.node(1).run(MAKE).within(secs(20)).await?;
    let etcd = lab.etcd().without_flags();
    let etcd = etcd
        .with("--listen-client-urls", ADDRESS)
        .with("--advertise-client-urls", ADDRESS)
        .with("--cert-file", CERTIFICATE)
        .with("--key-file", KEY)
        .with_switch("--client-cert-auth")
        .with("--trusted-ca-file", CERTIFICATE);
    lab.node(1).start_component(&etcd).await
}

/// The API server with the key pair as well.
fn told(lab: &Lab) -> Component {
    lab.open_api_server()
        .with("--etcd-servers", ADDRESS)
        .with("--etcd-cafile", CERTIFICATE)
        .with("--etcd-certfile", CERTIFICATE)
        .with("--etcd-keyfile", KEY)
}

/// It may never serve, so nobody waits for that.
async fn start_api_server(lab: &Lab, api_server: &Component) -> anyhow::Result<()> {
    lab.node(1).start_component(api_server).await
}

/// How the API server says that it does not know who has issued etcd's certificate.
const UNKNOWN: &str = "certificate signed by unknown authority";

/// Asked as who may look: `ok` is then status 200. Its port takes connections before it serves, so
/// that they hang, or are reset when it ends.
const READY: &str = "--insecure -m 5 --key ca.key --cert ca.cert https://localhost:6443/readyz";

async fn does_not_trust_etcd(lab: &Lab) -> anyhow::Result<()> {
    lab.step("it does not know whose certificate etcd shows, and is not ready (A21)");
    let node1 = lab.node(1);
    let distrust = node1.journal_lines("kube-apiserver", &[UNKNOWN]);
    lab.eventually("the API server to refuse etcd's certificate", secs(20), async || {
        let refuses = !node1.run(&distrust).await?.text().is_empty();
        let asked = node1.curl(READY).await?;
        if asked.status.is_some() {
            return Ok(Probe::hopeless(Cause::Answered, asked.to_string()));
        }
        Ok(Probe::when(refuses, Cause::Absent, "no such words in its journal"))
    })
    .await
}

async fn is_ready(lab: &Lab) -> anyhow::Result<()> {
    lab.step("it is ready (A21)");
    let node1 = lab.node(1);
    let distrust = node1.journal_lines("kube-apiserver", &[UNKNOWN]);
    lab.eventually("the API server to be ready", secs(20), async || {
        let asked = node1.curl(READY).await?;
        if asked.cause == Cause::Answered {
            return Ok(Probe::Done(()));
        }
        let distrusts = node1.run(&distrust).await?;
        if let Some(said) = distrusts.text().lines().next() {
            return Ok(Probe::hopeless(Cause::Tls, said));
        }
        Ok(Probe::not_yet(asked.cause, asked.to_string())
            .needs(Needs::ControlPlane("kube-apiserver")))
    })
    .await
}
