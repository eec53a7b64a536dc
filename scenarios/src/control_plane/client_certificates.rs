//! Whose certificates the API server takes.

use podwire_scenario::{
    Cause, Cells, Component, Curled, Lab, Profile, Sabotage, Scenario, StageName, secs, steps,
};

use super::authority::{AUTHORITY, NO_AUTHORITY, self_signed};
use crate::catalogue::{A3, A10, A11};

/// A10, A11!, and of A3 who may issue. In the documents' mode, `AlwaysAllow`, where a stranger is
/// unauthorized and whoever is known may look at everything; A10 and A11 in today's as well.
///
/// The image's own openssl (3.2 and later) makes a v3 certificate of the documents' command for the
/// authority, without saying that it is one: such an authority proves itself (A9), and issues nothing.
pub(crate) const CLIENT_CERTIFICATES: Scenario = Scenario {
    about: "The API server takes a certificate that its client CA has issued, and none of another \
            authority's, of one that is not said to be one, or of one's own; without a client CA it \
            takes none at all, and still knows a ServiceAccount's token",
    covers: &[A3, A10, A11],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(180),
    prepare: Some(steps!(certificates)),
    sabotages: &[
        Sabotage::new("authority-not-trusted")
            .about("the authority is not among the API server's client CAs")
            .inject(steps!(|lab| trust(lab, "ca.cert plain.cert").await))
            .caught_by(steps!(issued_by_the_authority), Cause::HttpStatus),
        Sabotage::new("foreign-authority-trusted")
            .about("a foreign authority is among the API server's client CAs")
            .inject(steps!(|lab| trust(lab, "authority.cert foreign-ca.cert").await))
            .caught_by(steps!(issued_by_a_foreign_authority), Cause::Answered),
        Sabotage::new("said-to-be-an-authority")
            .about("the certificate that lacked it says that it is an authority's")
            .inject(steps!(|lab| {
                lab.node(1).run(self_signed("plain", AUTHORITY)).await?;
                trust(lab, "authority.cert plain.cert").await
            }))
            .caught_by(steps!(issued_by_no_authority), Cause::Answered),
        Sabotage::new("issuer-named")
            .about("the documents' command is given the authority's certificate as well")
            .inject(steps!(|lab| lab.node(1).run("cp issued.cert user.cert").await))
            .caught_by(steps!(issued_by_itself), Cause::Answered),
        Sabotage::new("client-ca-given")
            .about("the API server still has its client CAs")
            .caught_by(steps!(no_certificate_is_taken), Cause::Answered),
        Sabotage::new("another-token-key")
            .about("the API server, without a client CA, verifies tokens by another key")
            .inject(steps!(|lab| {
                let other = without_client_ca(lab);
                let other = other.with("--service-account-key-file", "/root/foreign.key");
                lab.start_api_server(&other).await
            }))
            .caught_by(steps!(token_is_taken), Cause::HttpStatus),
        Sabotage::new("still-open")
            .about("the API server still lets everybody do everything who is known")
            .caught_by(steps!(client_is_forbidden_by_name), Cause::Answered),
        Sabotage::new("anonymous-off")
            .about("the API server is in today's mode, but takes no anonymous requests")
            .inject(steps!(|lab| {
                let strict = today(without_client_ca(lab)).with("--anonymous-auth", "false");
                lab.start_api_server(&strict).await
            }))
            .caught_by(steps!(certificate_is_a_stranger_s), Cause::HttpStatus),
    ],
    ..Scenario::new("client_certificates", StageName::Identified, steps!(taken_or_not))
};

async fn taken_or_not(lab: &Lab) -> anyhow::Result<()> {
    issued_by_the_authority(lab).await?;
    issued_by_a_foreign_authority(lab).await?;
    issued_by_no_authority(lab).await?;
    issued_by_itself(lab).await?;

    lab.step("start the API server without --client-ca-file (A11)");
    lab.start_api_server(&without_client_ca(lab)).await?;
    no_certificate_is_taken(lab).await?;
    token_is_taken(lab).await?;

    lab.step("start it in today's mode, Node,RBAC: without --client-ca-file, then with it");
    lab.start_api_server(&today(without_client_ca(lab))).await?;
    certificate_is_a_stranger_s(lab).await?;
    lab.start_api_server(&today(trusting(lab))).await?;
    client_is_forbidden_by_name(lab).await?;
    issued_by_a_foreign_authority(lab).await
}

/// In it anonymous requests are on, and who is known may do what a role says.
fn today(api_server: Component) -> Component {
    api_server.with("--authorization-mode", "Node,RBAC")
}

/// The documents' command for a user, with the authority that signs it.
fn issued(name: &str, authority: &str, key: &str) -> String {
    format!(
        "openssl x509 -new -CA {authority}.cert -CAkey {key}.key -force_pubkey user.pub \
         -out {name}.cert -subj /CN=kubernetes-user/"
    )
}

const USER: &str = "\
    openssl genrsa -out user.key && \
    openssl pkey -in user.key -out user.pub -pubout && \
    openssl x509 -new -key ca.key -force_pubkey user.pub -out user.cert -subj /CN=kubernetes-user/";

const FOREIGN: &str = "\
    openssl genrsa -out foreign.key 2048 && \
    openssl x509 -new -key foreign.key -out foreign-ca.cert -subj /CN=authority/ \
        -extfile <(echo basicConstraints=critical,CA:TRUE)";

async fn certificates(lab: &Lab) -> anyhow::Result<()> {
    lab.make_first_keys().await?;
    let node1 = lab.node(1);
    lab.step("make authorities of that key, a foreign one, and a user's key and certificates");
    node1.run(self_signed("authority", AUTHORITY)).await?;
    node1.run(self_signed("plain", NO_AUTHORITY)).await?;
    for make in [USER, FOREIGN] {
        node1.run(make).within(secs(20)).await?;
    }
    node1.run(issued("issued", "authority", "ca")).await?;
    node1.run(issued("unfounded", "plain", "ca")).await?;
    node1.run(issued("foreign", "foreign-ca", "foreign")).await?;
    node1.run("cat ca.cert authority.cert plain.cert >clients.cert").await?;
    lab.start_etcd_and_api_server(&trusting(lab)).await?;

    lab.write_kubeconfig_with_kubectl().await?;
    lab.step("make a ServiceAccount, and a token for it");
    let make = "kubectl create namespace tokens && \
        kubectl create serviceaccount reader -n tokens && \
        kubectl create token reader -n tokens >token";
    node1.run(make).within(secs(20)).await.map(drop)
}

fn trusting(lab: &Lab) -> Component {
    lab.open_api_server().with("--client-ca-file", "/root/clients.cert")
}

fn without_client_ca(lab: &Lab) -> Component {
    lab.open_api_server().without("--client-ca-file")
}

/// Has the API server know clients by these authorities.
async fn trust(lab: &Lab, authorities: &str) -> anyhow::Result<()> {
    lab.step(format!("start the API server with these client CAs: {authorities}"));
    lab.node(1).run(format!("cat {authorities} >clients.cert")).await?;
    lab.start_api_server(&trusting(lab)).await
}

async fn list_as_user(lab: &Lab, certificate: &str) -> anyhow::Result<Curled> {
    let shows = format!("--insecure --key user.key --cert {certificate} https://localhost:6443");
    lab.node(1).curl(shows).await
}

async fn issued_by_the_authority(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a certificate that the authority has issued is taken (A10)");
    let asked = list_as_user(lab, "issued.cert").await?;
    Ok(asked.ends(Cause::Answered, "the API's paths for the authority's client")?)
}

async fn issued_by_a_foreign_authority(lab: &Lab) -> anyhow::Result<()> {
    lab.step("one of a foreign authority of the same name is not (A10)");
    let asked = list_as_user(lab, "foreign.cert").await?;
    Ok(asked.refuses_with(401, "status 401 for a foreign authority's client")?)
}

async fn issued_by_no_authority(lab: &Lab) -> anyhow::Result<()> {
    lab.step("nor is one whose issuer's certificate does not say that it may issue (A3)");
    let asked = list_as_user(lab, "unfounded.cert").await?;
    Ok(asked.refuses_with(401, "status 401 for the client of an issuer that is no authority")?)
}

async fn issued_by_itself(lab: &Lab) -> anyhow::Result<()> {
    lab.step("nor the one that the documents' own command makes: it names itself as issuer (A10)");
    let asked = list_as_user(lab, "user.cert").await?;
    Ok(asked.refuses_with(401, "status 401 for a certificate that is its own issuer")?)
}

async fn no_certificate_is_taken(lab: &Lab) -> anyhow::Result<()> {
    lab.step("no client is known by a certificate, the authority's own neither (A11)");
    let expected = "status 401 for any certificate, without a client CA";
    list_as_user(lab, "issued.cert").await?.refuses_with(401, expected)?;
    let authority = "--insecure --key ca.key --cert ca.cert https://localhost:6443";
    Ok(lab.node(1).curl(authority).await?.refuses_with(401, expected)?)
}

async fn certificate_is_a_stranger_s(lab: &Lab) -> anyhow::Result<()> {
    lab.step("whoever shows a certificate is anonymous, and forbidden to look (A11)");
    Ok(list_as_user(lab, "issued.cert").await?.forbids("system:anonymous")?)
}

async fn client_is_forbidden_by_name(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the authority's client is known by its name, and forbidden to look (A10)");
    Ok(list_as_user(lab, "issued.cert").await?.forbids("kubernetes-user")?)
}

async fn token_is_taken(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a ServiceAccount's token is taken (A11)");
    let shows = r#"--insecure -H "Authorization: Bearer $(cat token)" https://localhost:6443"#;
    let asked = lab.node(1).curl(shows).await?;
    Ok(asked.ends(Cause::Answered, "the API's paths for a ServiceAccount's token")?)
}
