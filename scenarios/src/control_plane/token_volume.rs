//! Who gives Pods a token.

use podwire_scenario::{
    Cause, Component, Lab, Party, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::A20;

/// A20: the ServiceAccount admission plugin is what gives a Pod its token volume.
pub(crate) const TOKEN_VOLUME: Scenario = Scenario {
    about: "With the API server's ServiceAccount admission plugin off a Pod runs without a token; with it \
            on, a Pod has one, which the API server takes",
    covers: &[A20],
    profile: Profile::Full,
    nodes: 1,
    limit: secs(150),
    sabotages: &[
        Sabotage::new("plugin-on")
            .about("the admission plugin is on, as it is unless somebody says otherwise")
            .caught_by(steps!(without_a_token), Cause::Answered),
        Sabotage::new("plugin-off")
            .about("the admission plugin stays off")
            .inject(steps!(|lab| restart(lab, &without_the_plugin(lab)).await))
            .caught_by(steps!(with_a_token), Cause::Absent),
        Sabotage::new("another-token-key")
            .about("the API server verifies tokens by another key than it signs them with")
            .inject(steps!(|lab| {
                lab.node(1).run("openssl genrsa -out other.key 2048").within(secs(20)).await?;
                let other = lab.api_server().with("--service-account-key-file", "/root/other.key");
                restart(lab, &other).await
            }))
            .caught_by(steps!(with_a_token), Cause::HttpStatus),
    ],
    ..Scenario::new("token_volume", StageName::Cni, steps!(token_volume))
};

async fn token_volume(lab: &Lab) -> anyhow::Result<()> {
    lab.step("start the API server with the ServiceAccount admission plugin off (A20)");
    restart(lab, &without_the_plugin(lab)).await?;
    without_a_token(lab).await?;

    lab.step("start it with the plugin on (A20)");
    restart(lab, &lab.api_server()).await?;
    with_a_token(lab).await
}

fn without_the_plugin(lab: &Lab) -> Component {
    lab.api_server().with("--disable-admission-plugins", "ServiceAccount")
}

async fn restart(lab: &Lab, api_server: &Component) -> anyhow::Result<()> {
    lab.node(1).start_component(api_server).await?;
    lab.until_api_server_is_ready().await
}

/// In a Pod, as its node sees the Pod's files.
const FOLDER: &str = "$root/var/run/secrets/kubernetes.io/serviceaccount";

async fn has_a_token(lab: &Lab, pod: &Party) -> anyhow::Result<bool> {
    let look = format!("[ -e {FOLDER}/token ] && echo there || echo missing");
    Ok(lab.run_in_network_of(pod, look).await?.text() == "there")
}

async fn without_a_token(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a new Pod runs without a token (A20)");
    let pod = lab.run_pod("bare", lab.node(1)).await?;
    let token = has_a_token(lab, &pod).await?;
    ensure!(!token, Answered, "{pod} without a token", "it has one");
    Ok(())
}

async fn with_a_token(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a new Pod has a token, and with that the API server knows it (A20)");
    let pod = lab.run_pod("known", lab.node(1)).await?;
    let token = has_a_token(lab, &pod).await?;
    ensure!(token, Absent, "{pod} with a token", "it has none");
    let shows = format!(
        "--cacert {FOLDER}/ca.crt -H \"Authorization: Bearer $(cat {FOLDER}/token)\" \
         https://{}:6443/api",
        lab.node(1).address()
    );
    let asked = lab.curl_in_network_of(&pod, shows).await?;
    Ok(asked.ends(Cause::Answered, "the API server to take the Pod's token")?)
}
