//! A serving certificate for the API server, by openssl.

use podwire_scenario::{
    Cause, Cells, Curled, Lab, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use super::authority::{AUTHORITY, self_signed};
use crate::catalogue::A18;

/// A18, as the documents make the certificate: a key, a request that names the API server, and an authority
/// that copies these names, or does not. The authority has to say that it is one, see A3.
pub(crate) const OWN_CERTIFICATE: Scenario = Scenario {
    about: "A serving certificate made with openssl is verified under no name unless the authority copies \
            those of the request; then curl, and kubectl, skip nothing any more; it is not verified under \
            the Service's address, which Pods use, unless that is among them",
    covers: &[A18],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(180),
    prepare: Some(steps!(requests_and_etcd)),
    sabotages: &[
        Sabotage::new("names-copied")
            .about("the authority has copied the names")
            .inject(steps!(|lab| serve_signed(lab, NAMES, COPIED).await))
            .caught_by(steps!(no_name_is_verified), Cause::Answered),
        Sabotage::new("names-not-copied")
            .about("the authority has not copied the names")
            .inject(steps!(|lab| serve_signed(lab, NAMES, NOT_COPIED).await))
            .caught_by(steps!(each_name_is_verified), Cause::Tls),
        Sabotage::new("foreign-name-in-it")
            .about("the request names another machine as well")
            .inject(steps!(|lab| {
                let more = format!("{NAMES}, DNS:{FOREIGN}");
                serve_signed(lab, &more, COPIED).await
            }))
            .caught_by(steps!(foreign_name_is_not_verified), Cause::Answered),
        Sabotage::new("kubectl-knows-another")
            .about("the kubeconfig names the documents' first certificate as the authority")
            .inject(steps!(|lab| {
                serve_signed(lab, NAMES, COPIED).await?;
                lab.node(1).run("cp ca.cert authority.cert").await
            }))
            .saying("x509: ")
            .caught_by(steps!(kubectl_skips_nothing), Cause::Tls),
        Sabotage::new("service-s-address-in-it")
            .about("the request names the Service's address")
            .inject(steps!(|lab| serve_signed(lab, &with_the_service(), COPIED).await))
            .caught_by(steps!(services_address_is_not_verified), Cause::Answered),
        Sabotage::new("service-s-address-left-out")
            .about("the request does not name the Service's address")
            .inject(steps!(|lab| serve_signed(lab, NAMES, COPIED).await))
            .caught_by(steps!(services_address_is_verified), Cause::Tls),
    ],
    ..Scenario::new("own_serving_certificate", StageName::Identified, steps!(own_certificate))
};

async fn own_certificate(lab: &Lab) -> anyhow::Result<()> {
    serve_signed(lab, NAMES, NOT_COPIED).await?;
    no_name_is_verified(lab).await?;

    serve_signed(lab, NAMES, COPIED).await?;
    each_name_is_verified(lab).await?;
    foreign_name_is_not_verified(lab).await?;
    kubectl_skips_nothing(lab).await?;
    services_address_is_not_verified(lab).await?;

    serve_signed(lab, &with_the_service(), COPIED).await?;
    services_address_is_verified(lab).await
}

/// The documents' names, with this cluster's first node.
const NAMES: &str = "DNS:kubernetes.default.svc, DNS:kubernetes.default, DNS:kubernetes, \
                     DNS:localhost, DNS:node1";
const FOREIGN: &str = "kubernetes.example.test";
const COPIED: &str = "-copy_extensions copy";
const NOT_COPIED: &str = "";

/// Of the Service `kubernetes`: the first of the range that an API server has by itself.
const SERVICE: &str = "10.0.0.1";

fn with_the_service() -> String {
    format!("{NAMES}, IP:{SERVICE}")
}

async fn requests_and_etcd(lab: &Lab) -> anyhow::Result<()> {
    lab.make_first_keys().await?;
    lab.step("a key for the API server, and an authority that says that it is one (A18)");
    let node1 = lab.node(1);
    node1.run("openssl genrsa -out apiserver.key 4096").within(secs(60)).await?;
    node1.run(self_signed("authority", AUTHORITY)).await?;
    node1.start_component(&lab.etcd().without_flags()).await
}

/// The documents' commands for a request and a certificate, and the API server with that.
async fn serve_signed(lab: &Lab, names: &str, extensions: &str) -> anyhow::Result<()> {
    let copied = if extensions.is_empty() { "not copied" } else { "copied" };
    lab.step(format!("request a certificate for {names}; have it signed, these {copied} (A18)"));
    let make = format!(
        "openssl req -new -key apiserver.key -subj /CN=kubernetes/ \
             -addext 'subjectAltName = {names}' -out apiserver.csr && \
         openssl x509 -req -in apiserver.csr -CAkey ca.key -CA authority.cert \
             -out apiserver.crt {extensions}"
    );
    lab.node(1).run(make).within(secs(20)).await?;
    let given = lab.open_api_server().with("--tls-cert-file", "/root/apiserver.crt");
    lab.start_api_server(&given.with("--tls-private-key-file", "/root/apiserver.key")).await
}

/// curl, by that authority, wherever the name leads otherwise.
async fn ask_as(lab: &Lab, name: &str) -> anyhow::Result<Curled> {
    let to = format!("--connect-to {name}:443:localhost:6443 https://{name}/version");
    lab.node(1).curl(format!("--cacert authority.cert --key ca.key --cert ca.cert {to}")).await
}

async fn no_name_is_verified(lab: &Lab) -> anyhow::Result<()> {
    lab.step("curl does not verify it, by its authority neither (A18)");
    let asked = ask_as(lab, "localhost").await?;
    Ok(asked.ends(Cause::Tls, "a certificate without names not to be verified")?)
}

async fn each_name_is_verified(lab: &Lab) -> anyhow::Result<()> {
    lab.step("curl verifies it under each name (A18)");
    for name in NAMES.split(", ").filter_map(|it| it.strip_prefix("DNS:")) {
        let asked = ask_as(lab, name).await?;
        asked.ends(Cause::Answered, format!("the certificate to be verified as {name}"))?;
    }
    Ok(())
}

async fn foreign_name_is_not_verified(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("and not under {FOREIGN} (A18)"));
    let asked = ask_as(lab, FOREIGN).await?;
    Ok(asked.ends(Cause::Tls, format!("the certificate not to be verified as {FOREIGN}"))?)
}

async fn kubectl_skips_nothing(lab: &Lab) -> anyhow::Result<()> {
    lab.write_kubeconfig_with_kubectl().await?;
    lab.step("kubectl knows the authority, skips no verification, and is answered (A18)");
    let know = "kubectl config set-cluster polykube --insecure-skip-tls-verify=false \
                    --certificate-authority authority.cert && kubectl get --raw /version";
    let asked = lab.node(1).run(know).within(secs(20)).may_fail().await?;
    let (said, answered) = (asked.said(), asked.succeeded());
    ensure!(answered, Tls, "kubectl to verify the API server", "{said}");
    Ok(())
}

async fn services_address_is_not_verified(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("at {SERVICE}, as a Pod asks, it is not verified (A18)"));
    let asked = ask_as(lab, SERVICE).await?;
    Ok(asked.ends(Cause::Tls, format!("the certificate not to be verified as {SERVICE}"))?)
}

async fn services_address_is_verified(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("with {SERVICE} among its names it is verified there as well (A18)"));
    let asked = ask_as(lab, SERVICE).await?;
    Ok(asked.ends(Cause::Answered, format!("the certificate to be verified as {SERVICE}"))?)
}
