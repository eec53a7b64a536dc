//! Chapter A: the control plane by hand.

use std::time::Duration;

use podwire_cluster::{Break, StageName, addresses, units};
use podwire_scenario::{
    Cause, Cells, Failure, Lab, Probe, Profile, Sabotage, Scenario, eventually_unless,
};

use crate::catalogue::A18;
use crate::prospects;

/// A18: the serving certificate is verified under its names, and under no other.
pub(crate) const SERVING_NAMES: Scenario = Scenario {
    name: "api_server_names",
    about: "The API server's certificate is verified under each name that clients use for it, and \
            under no other",
    covers: &[A18],
    stage: StageName::WorkloadBare,
    cells: Cells::ByHand,
    profile: Profile::Default,
    nodes: 1,
    limit: Duration::from_secs(60),
    prepare: None,
    run: |lab| Box::pin(serving_names(lab)),
    sabotages: &[Sabotage {
        name: "certificate-lacks-names",
        about: "the serving certificate lacks the Service's names",
        expects: Cause::Tls,
        run: |lab| {
            Box::pin(async {
                serve_a_certificate_without_service_names(lab).await?;
                lab.injected();
                serving_names(lab).await
            })
        },
    }],
    red_when: &[Break::San],
};

/// A name that nobody put into the certificate.
const FOREIGN: &str = "kubernetes.example.test";

async fn serving_names(lab: &Lab) -> anyhow::Result<()> {
    lab.step("verify TLS under every name of the API server, without a skip flag");
    for name in addresses::serving_names() {
        if let Err(reason) = lab.verify_api_server(&name).await? {
            let expected = format!("the API server's certificate to be valid for {name}");
            return Err(Failure::new(Cause::Tls, expected, reason)
                .look(
                    "the certificate's subjectAltName on node1: \
                       `openssl x509 -noout -ext subjectAltName -in ...`",
                )
                .into());
        }
    }
    lab.step(format!("the same under {FOREIGN}, which is not in it"));
    match lab.verify_api_server(FOREIGN).await? {
        Err(reason)
            if reason.contains("NotValidForName") || reason.contains("not valid for name") =>
        {
            Ok(())
        }
        Err(reason) => {
            let expected = format!("TLS to fail because {FOREIGN} is not in the certificate");
            Err(Failure::new(Cause::Other, expected, reason).into())
        }
        Ok(()) => {
            let expected = format!("TLS to fail under {FOREIGN}");
            Err(Failure::new(Cause::Answered, expected, "it was verified").into())
        }
    }
}

async fn serve_a_certificate_without_service_names(lab: &Lab) -> anyhow::Result<()> {
    lab.step("replace the serving certificate by one without the Service's names");
    let replacement = lab.cluster().pki()?.serving_certificate(Some(Break::San))?;
    let node1 = lab.cluster().node(1);
    let limit = lab.limit(Duration::from_secs(20));
    // The API server reads the pair again when either file changes; a pair that does not match in
    // between is refused and the old one kept.
    node1
        .write(units::SERVING_KEY, replacement.key.as_bytes(), 0o600, limit)
        .await?;
    node1
        .write(
            units::SERVING_CERTIFICATE,
            replacement.certificate.as_bytes(),
            0o644,
            limit,
        )
        .await?;
    eventually_unless(
        "the API server to serve the replacement",
        lab.limit(Duration::from_secs(40)),
        async || prospects::control_plane(lab, "kube-apiserver").await,
        async || {
            Ok(
                match lab.verify_api_server("kubernetes.default.svc").await? {
                    Err(_) => Probe::Done(()),
                    Ok(()) => Probe::not_yet(Cause::Answered, "it still serves the old one"),
                },
            )
        },
    )
    .await
}
