//! Requests to an API server of two keys and five flags.

use podwire_scenario::{
    Answer, Cause, Cells, Component, Lab, Needs, Probe, Profile, Sabotage, Scenario, StageName,
    assert, ensure, secs, steps,
};

use crate::catalogue::{A3, A5, A6, A6b, A7, A8, A9, A12};

/// A5, A6!, A6b!, A7!, A8!, A9, A12, and of A3 what A9 needs. They share the start of etcd and of the
/// API server, in the mode of the documents: `AlwaysAllow`, which switches anonymous requests off; at the
/// end in today's.
pub(crate) const REQUESTS: Scenario = Scenario {
    about: "With two keys and five flags the API server serves TLS alone, with a certificate of its \
            own that nobody knows, and answers only who shows the authority's key: curl, and kubectl \
            once it has a kubeconfig",
    covers: &[A3, A5, A6, A6b, A7, A8, A9, A12],
    cells: Cells::ByHand,
    profile: Profile::Full,
    nodes: 1,
    limit: secs(240),
    prepare: Some(steps!(|lab| {
        lab.make_first_keys().await?;
        lab.start_etcd_and_api_server(&lab.open_api_server()).await
    })),
    sabotages: &[
        Sabotage::new("given-a-certificate")
            .about("the API server is given a certificate to serve with")
            .inject(steps!(|lab| {
                lab.node(1).run("rm -r /var/run/kubernetes").await?;
                let given = lab.open_api_server().with("--tls-cert-file", "/root/ca.cert");
                lab.start_api_server(&given.with("--tls-private-key-file", "/root/ca.key")).await
            }))
            .caught_by(steps!(serves_a_certificate_of_its_own), Cause::Absent),
        Sabotage::new("kubeconfig-is-there")
            .about("root has a kubeconfig already")
            .inject(steps!(|lab| lab.write_kubeconfig_with_kubectl().await))
            .caught_by(steps!(kubectl_is_refused), Cause::Answered),
        Sabotage::new("plain-http-behind")
            .about("who listens at port 6443 is a server of plain HTTP")
            .inject(steps!(serve_plain_http))
            .caught_by(steps!(plain_http_is_a_bad_request), Cause::Answered),
        Sabotage::new("certificate-known")
            .about("root's .curlrc names the API server's certificate as one to trust")
            .inject(steps!(|lab| {
                let known = "cacert = /var/run/kubernetes/apiserver.crt\n";
                lab.node(1).write("/root/.curlrc", known).await
            }))
            .caught_by(steps!(certificate_is_unknown), Cause::HttpStatus),
        Sabotage::new("anonymous-on")
            .about("the API server is in today's mode, in which a stranger is somebody: anonymous")
            .inject(steps!(|lab| lab.start_api_server(&strict(lab)).await))
            .caught_by(steps!(stranger_is_unauthorized), Cause::HttpStatus),
        Sabotage::new("anonymous-off")
            .about("the API server is in today's mode, but takes no anonymous requests")
            .inject(steps!(|lab| {
                let strict = strict(lab).with("--anonymous-auth", "false");
                lab.start_api_server(&strict).await
            }))
            .caught_by(steps!(stranger_is_forbidden), Cause::HttpStatus),
        Sabotage::new("another-authority")
            .about("the API server's client CA is another")
            .inject(steps!(|lab| {
                let other = "/var/run/kubernetes/apiserver.crt";
                let other = lab.open_api_server().with("--client-ca-file", other);
                lab.start_api_server(&other).await
            }))
            .caught_by(steps!(authority_lists_paths), Cause::HttpStatus),
        Sabotage::new("context-not-used")
            .about("the kubeconfig has a context, and it is not the one in use")
            .inject(steps!(|lab| {
                lab.write_kubeconfig_with_kubectl().await?;
                lab.node(1).run("kubectl config unset current-context").await
            }))
            .caught_by(steps!(kubeconfig_is_as_expected), Cause::WrongAnswer),
        Sabotage::new("verification-not-skipped")
            .about("the kubeconfig does not skip the verification of the API server's certificate")
            .inject(steps!(|lab| {
                lab.write_kubeconfig_with_kubectl().await?;
                let verify = "kubectl config set-cluster polykube --insecure-skip-tls-verify=false";
                lab.node(1).run(verify).await
            }))
            .caught_by(steps!(kubectl_lists_namespaces), Cause::Tls),
        Sabotage::new("authority-still-open")
            .about("the API server still lets the authority's client do everything")
            .caught_by(steps!(authority_is_forbidden), Cause::Answered),
        Sabotage::new("kubectl-still-open")
            .about("the API server still lets kubectl do everything")
            .inject(steps!(Lab::write_kubeconfig_with_kubectl))
            .caught_by(steps!(kubectl_is_forbidden), Cause::Answered),
    ],
    ..Scenario::new("first_requests", StageName::Identified, steps!(requests))
};

async fn requests(lab: &Lab) -> anyhow::Result<()> {
    serves_a_certificate_of_its_own(lab).await?;
    kubectl_is_refused(lab).await?;
    plain_http_is_a_bad_request(lab).await?;
    certificate_is_unknown(lab).await?;
    stranger_is_unauthorized(lab).await?;
    authority_lists_paths(lab).await?;

    lab.write_kubeconfig_with_kubectl().await?;
    kubeconfig_is_as_expected(lab).await?;
    kubectl_lists_namespaces(lab).await?;

    lab.step("start the API server in today's mode: Node,RBAC");
    lab.start_api_server(&strict(lab)).await?;
    stranger_is_forbidden(lab).await?;
    authority_is_forbidden(lab).await?;
    kubectl_is_forbidden(lab).await
}

/// The same API server in today's mode, in which anonymous requests are on.
fn strict(lab: &Lab) -> Component {
    lab.open_api_server().with("--authorization-mode", "Node,RBAC")
}

const FINGERPRINT: &str = "openssl x509 -noout -fingerprint -sha256";

async fn serves_a_certificate_of_its_own(lab: &Lab) -> anyhow::Result<()> {
    lab.step("it serves TLS at port 6443, with a certificate that it has made for itself (A5)");
    let node1 = lab.node(1);
    let connect = "openssl s_client -connect localhost:6443 </dev/null";
    let served = node1.run(format!("{connect} | {FINGERPRINT}")).may_fail().await?;
    let (said, tls) = (served.said(), served.succeeded());
    ensure!(tls, Tls, "a certificate at localhost:6443", "{said}");
    let made = format!("{FINGERPRINT} -in /var/run/kubernetes/apiserver.crt");
    let made = node1.run(made).may_fail().await?;
    let (said, there) = (made.said(), made.succeeded());
    ensure!(there, Absent, "a certificate that the API server has made for itself", "{said}");
    let (same, served, made) = (served.text() == made.text(), served.text(), made.text());
    ensure!(same, WrongAnswer, "it to serve with that one, {made}", "{served}");
    Ok(())
}

async fn kubectl_is_refused(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubectl without a kubeconfig is refused at localhost:8080 (A6)");
    let asked = lab.node(1).run("kubectl get namespaces").may_fail().await?;
    let why = "server localhost:8080 was refused";
    Ok(assert::refused(&asked, why, "kubectl to be refused at localhost:8080")?)
}

async fn plain_http_is_a_bad_request(lab: &Lab) -> anyhow::Result<()> {
    lab.step("plain HTTP at port 6443 is a bad request (A6b)");
    let asked = lab.node(1).curl("http://localhost:6443").await?;
    asked.has_status(400, "status 400 for plain HTTP at port 6443")?;
    let says_why = asked.body.contains("HTTP request to an HTTPS server");
    ensure!(says_why, WrongAnswer, "it to say that the server is one of HTTPS", "{asked}");
    Ok(())
}

async fn serve_plain_http(lab: &Lab) -> anyhow::Result<()> {
    let node1 = lab.node(1);
    node1.stop_component(&lab.open_api_server()).await?;
    let serve = "systemd-run --quiet probe serve --port 6443 && \
        until curl -s -o /dev/null http://localhost:6443/; do sleep 0.1; done";
    node1.run(serve).await.map(drop)
}

async fn certificate_is_unknown(lab: &Lab) -> anyhow::Result<()> {
    lab.step("curl does not know the API server's certificate (A7)");
    let asked = lab.node(1).curl("https://localhost:6443").await?;
    Ok(asked.ends(Cause::Tls, "curl to end at an unknown certificate")?)
}

async fn stranger_is_unauthorized(lab: &Lab) -> anyhow::Result<()> {
    lab.step("without verification it answers, and a stranger is unauthorized (A8)");
    let asked = lab.node(1).curl("--insecure https://localhost:6443").await?;
    Ok(asked.refuses_with(401, "status 401 for who shows no certificate")?)
}

async fn stranger_is_forbidden(lab: &Lab) -> anyhow::Result<()> {
    lab.step("in that mode a stranger is anonymous, and forbidden to look (A8)");
    let asked = lab.node(1).curl("--insecure https://localhost:6443").await?;
    Ok(asked.forbids("system:anonymous")?)
}

async fn authority_lists_paths(lab: &Lab) -> anyhow::Result<()> {
    lab.step("who shows the authority's own key and certificate gets a list of paths (A3, A9)");
    let shows = "--insecure --key ca.key --cert ca.cert https://localhost:6443";
    let asked = lab.node(1).curl(shows).await?;
    asked.ends(Cause::Answered, "the API's paths for the authority's own certificate")?;
    let answer: serde_json::Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let paths = answer["paths"].as_array();
    let lists =
        ["/api", "/apis"].iter().all(|it| paths.is_some_and(|all| all.contains(&(*it).into())));
    ensure!(lists, WrongAnswer, "a list of paths with /api and /apis", "{asked}");
    Ok(())
}

async fn authority_is_forbidden(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the authority is known by its name, and forbidden to look (A9)");
    let shows = "--insecure --key ca.key --cert ca.cert https://localhost:6443";
    Ok(lab.node(1).curl(shows).await?.forbids("kubernetes")?)
}

async fn kubectl_is_forbidden(lab: &Lab) -> anyhow::Result<()> {
    lab.step("and kubectl with its kubeconfig to list the Namespaces (A12)");
    let asked = lab.node(1).run("kubectl get namespaces").may_fail().await?;
    let why = r#"User "kubernetes" cannot list resource "namespaces""#;
    Ok(assert::refused(&asked, why, "kubectl to be forbidden to list Namespaces")?)
}

/// As the document shows it, without the preferences, which kubectl leaves out today.
const KUBECONFIG: &str = "\
apiVersion: v1
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: https://localhost:6443
  name: polykube
contexts:
- context:
    cluster: polykube
    user: polykube
  name: polykube
current-context: polykube
kind: Config
users:
- name: polykube
  user:
    client-certificate: /root/ca.cert
    client-key: /root/ca.key
";

async fn kubeconfig_is_as_expected(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the kubeconfig looks as the document shows it (A12)");
    let file = lab.node(1).run("cat .kube/config").await?.stdout;
    let lines = || file.lines().filter(|line| *line != "preferences: {}");
    let same = lines().eq(KUBECONFIG.lines());
    ensure!(same, WrongAnswer, "this kubeconfig:\n{KUBECONFIG}", "{file}");
    Ok(())
}

async fn kubectl_lists_namespaces(lab: &Lab) -> anyhow::Result<()> {
    lab.step("with it kubectl lists the Namespaces (A12)");
    let all = ["default", "kube-node-lease", "kube-public", "kube-system"];
    let all = all.map(|it| format!("namespace/{it}"));
    lab.eventually("the four Namespaces of a new cluster", secs(10), async || {
        let asked = lab.node(1).run("kubectl get namespaces -o name").may_fail().await?;
        if !asked.succeeded() {
            return Ok(Probe::hopeless(cause_of(&asked), asked.said()));
        }
        let listed = asked.text().lines().eq(&all);
        Ok(Probe::when(listed, Cause::Absent, asked.said())
            .needs(Needs::ControlPlane("kube-apiserver")))
    })
    .await
}

/// Why kubectl failed, where its words say so.
fn cause_of(asked: &Answer) -> Cause {
    let said = asked.said();
    match () {
        () if said.contains("failed to verify certificate") => Cause::Tls,
        () if said.contains("was refused") => Cause::Refused,
        () => Cause::Other,
    }
}
