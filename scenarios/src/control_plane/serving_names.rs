//! The names that the API server's certificate holds.

use podwire_scenario::{
    Break, Cause, Failure, Lab, Needs, Probe, Sabotage, Scenario, StageName, ensure, fails, secs,
    steps,
};

use crate::catalogue::A18;

/// A18: the serving certificate is verified under its names, and under no other.
pub(crate) const SERVING_NAMES: Scenario = Scenario {
    about: "The API server's certificate is verified under each name that clients use for it, and \
            under no other",
    covers: &[A18],
    nodes: 1,
    limit: secs(60),
    sabotages: &[Sabotage::new("certificate-lacks-names")
        .about("the serving certificate lacks the Service's names")
        .inject(steps!(serve_a_certificate_without_service_names))
        .caught_by(steps!(serving_names), Cause::Tls)],
    red_when: &[Break::San],
    ..Scenario::new("api_server_names", StageName::WorkloadBare, steps!(serving_names))
};

/// A name that nobody put into the certificate.
const FOREIGN: &str = "kubernetes.example.test";
/// Where the names are to be seen.
const LOOK: &str = "the certificate's subjectAltName on node1: \
    `openssl x509 -noout -ext subjectAltName -in ...`";
/// How the TLS library says that a certificate is for other names.
const OTHER_NAMES: [&str; 2] = ["NotValidForName", "not valid for name"];

async fn serving_names(lab: &Lab) -> anyhow::Result<()> {
    lab.step("verify TLS under every name of the API server, without a skip flag");
    for name in lab.serving_names() {
        if let Err(reason) = lab.verify_api_server(&name).await? {
            let expected = format!("the API server's certificate to be valid for {name}");
            let failure = Failure::new(Cause::Tls, expected, reason);
            return Err(failure.look(LOOK).into());
        }
    }
    lab.step(format!("the same under {FOREIGN}, which is not in it"));
    let Err(reason) = lab.verify_api_server(FOREIGN).await? else {
        return Err(fails!(Answered, "TLS to fail under {FOREIGN}", "it was verified").into());
    };
    let for_its_name = OTHER_NAMES.iter().any(|it| reason.contains(it));
    ensure!(
        for_its_name,
        Other,
        "TLS to fail because {FOREIGN} is not in the certificate",
        "{reason}"
    );
    Ok(())
}

async fn serve_a_certificate_without_service_names(lab: &Lab) -> anyhow::Result<()> {
    lab.step("replace the serving certificate by one without the Service's names");
    lab.write_serving_certificate(Break::San).await?;
    let expected = "the API server to serve the replacement";
    lab.eventually(expected, secs(40), async || {
        let name = "kubernetes.default.svc";
        let replaced = lab.verify_api_server(name).await?.is_err();
        let old = "it still serves the old one";
        let serves = Probe::when(replaced, Cause::Answered, old);
        Ok(serves.needs(Needs::ControlPlane("kube-apiserver")))
    })
    .await
}
