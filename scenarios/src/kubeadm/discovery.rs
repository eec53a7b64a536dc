//! A node is told by a file where the API server is, and whom to trust.

use podwire_scenario::{Cause, Lab, Profile, Sabotage, Scenario, StageName, assert, secs, steps};

use crate::catalogue::{E15, E40};

/// E15!, E40!: a file instead of a token and a hash; the token is for TLS bootstrap alone.
pub(crate) const BY_FILE: Scenario = Scenario {
    about: "A node joins by a file, local or from a server of HTTPS whose authority it trusts; plain HTTP \
            is refused, and so is a server that it does not trust",
    covers: &[E15, E40],
    profile: Profile::Full,
    nodes: 3,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("no-cluster-in-it")
            .about("the file names no cluster")
            .inject(steps!(|lab| {
                let empty = "apiVersion: v1\nkind: Config\n";
                lab.node(LOCAL).write_secret(FILE, empty).await
            }))
            .saying("must have at least one Cluster defined")
            .caught_by(steps!(joins_by_local_file), Cause::Absent),
        Sabotage::new("https-instead")
            .about("a script before kubeadm writes https for http")
            .inject(steps!(|lab| {
                serve_file(lab, "node1").await?;
                lab.kubeadm(REMOTE).types_otherwise("s/http:/https:/").await
            }))
            .caught_by(steps!(http_is_refused), Cause::WrongAnswer),
        Sabotage::new("trusted-already")
            .about("the node trusts the server's authority")
            .inject(steps!(|lab| {
                serve_file(lab, "node1").await?;
                trust_the_server(lab).await
            }))
            .caught_by(steps!(untrusted_server_is_refused), Cause::Answered),
        Sabotage::new("not-trusted")
            .about("the node does not trust the server's authority")
            .inject(steps!(|lab| serve_file(lab, "node1").await))
            .caught_by(steps!(joins_by_https), Cause::Tls),
        Sabotage::new("another-name")
            .about("the server's certificate is for another name")
            .inject(steps!(|lab| {
                serve_file(lab, "node9").await?;
                trust_the_server(lab).await
            }))
            .caught_by(steps!(joins_by_https), Cause::Tls),
    ],
    ..Scenario::new("discovery_by_file", StageName::Init, steps!(by_file))
};

/// The node that has the file itself, and the one that fetches it.
const LOCAL: u32 = 2;
const REMOTE: u32 = 3;

/// The subset of a kubeconfig that discovery needs, on the node that reads it.
const FILE: &str = "/root/discovery.conf";

async fn by_file(lab: &Lab) -> anyhow::Result<()> {
    lab.step(format!("give node{LOCAL} what cluster-info tells strangers, as a file"));
    lab.node(LOCAL).write_secret(FILE, told_to_strangers(lab).await?).await?;
    joins_by_local_file(lab).await?;

    serve_file(lab, "node1").await?;
    http_is_refused(lab).await?;
    untrusted_server_is_refused(lab).await?;
    trust_the_server(lab).await?;
    joins_by_https(lab).await
}

/// The API server's address and the authority's certificate, and no user.
async fn told_to_strangers(lab: &Lab) -> anyhow::Result<String> {
    let get = "-n kube-public get configmap cluster-info -o jsonpath='{.data.kubeconfig}'";
    Ok(lab.kubectl(get).await?.stdout)
}

async fn joins_by_local_file(lab: &Lab) -> anyhow::Result<()> {
    lab.step("discovery by a local file works (E15)");
    joins_by(lab, LOCAL, FILE).await
}

async fn joins_by(lab: &Lab, node: u32, file: &str) -> anyhow::Result<()> {
    lab.kubeadm(node).join_by(&by(lab, file).await?).await?;
    lab.node(node).registers().await.map(drop)
}

/// `kubeadm join`'s arguments.
async fn by(lab: &Lab, file: &str) -> anyhow::Result<String> {
    let token = lab.first_token().await?;
    Ok(format!("--discovery-file {file} --tls-bootstrap-token {token}"))
}

/// Below /root/served, which node 1 serves at port 8443.
const URL: &str = "node1:8443/discovery.conf";

/// With a certificate for this name by an authority of its own, `/root/authority.crt`.
async fn serve_file(lab: &Lab, name: &str) -> anyhow::Result<()> {
    lab.step(format!("node1 serves the file by HTTPS, with a certificate for {name}"));
    let node1 = lab.node(1);
    node1.write("/root/served/discovery.conf", told_to_strangers(lab).await?).await?;
    node1
        .run(format!(
            "cd /root && new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' && \
             $new -subj /CN=authority -keyout authority.key -out authority.crt 2>/dev/null && \
             $new -CA authority.crt -CAkey authority.key -subj /CN={name} \
             -addext subjectAltName=DNS:{name} -keyout server.key -out server.crt 2>/dev/null && \
             systemd-run --quiet --working-directory=/root/served openssl s_server -quiet -WWW \
             -accept 8443 -cert /root/server.crt -key /root/server.key && \
             until curl -s --insecure -o /dev/null https://localhost:8443/discovery.conf; \
             do sleep 0.2; done"
        ))
        .within(secs(20))
        .await
        .map(drop)
}

async fn http_is_refused(lab: &Lab) -> anyhow::Result<()> {
    lab.step("by plain HTTP it is refused (E15)");
    refused(lab, &format!("http://{URL}"), "the scheme must be https").await
}

async fn untrusted_server_is_refused(lab: &Lab) -> anyhow::Result<()> {
    lab.step("from a server that the node does not trust it is refused (E40)");
    let why = "x509: certificate signed by unknown authority";
    refused(lab, &format!("https://{URL}"), why).await
}

async fn refused(lab: &Lab, file: &str, why: &str) -> anyhow::Result<()> {
    let answer = lab.kubeadm(REMOTE).try_to_join_by(&by(lab, file).await?).await?;
    Ok(assert::refused(&answer, why, &format!("no join by {file}"))?)
}

async fn trust_the_server(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(REMOTE);
    lab.step(format!("{node} trusts the server's authority, as update-ca-certificates does it"));
    let authority = lab.node(1).run("cat /root/authority.crt").await?.stdout;
    node.write("/usr/local/share/ca-certificates/authority.crt", authority).await?;
    node.run("update-ca-certificates >/dev/null 2>&1").within(secs(40)).await.map(drop)
}

async fn joins_by_https(lab: &Lab) -> anyhow::Result<()> {
    lab.step("from a server that it trusts it works (E15, E40)");
    joins_by(lab, REMOTE, &format!("https://{URL}")).await
}
