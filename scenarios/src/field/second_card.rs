//! A node with a second card and a second address.

use podwire_scenario::{
    Break, Cause, Lab, Layout, Probe, Profile, Sabotage, Scenario, StageName, ensure, secs, steps,
};

use crate::catalogue::F17;

/// F17: the card and the address that are meant are those that are used.
pub(crate) const SECOND_CARD: Scenario = Scenario {
    about: "Node 2 has a second card and a second address, on a network that leads nowhere: its Node has the \
            address that the nodes share, every ordered pair answers, and each request crosses the nodes' \
            own segment, by the direct way",
    covers: &[F17],
    layout: Layout::SecondCard,
    profile: Profile::Full,
    sabotages: &[
        Sabotage::new("node-address-of-the-second")
            .about("node 2's kubelet is told the second card's address")
            .inject(steps!(kubelet_takes_the_second_address))
            .caught_by(steps!(those_meant_are_used), Cause::WrongAnswer),
        Sabotage::new("route-by-the-second")
            .about("node 2 sends what is for node 1 by its second card")
            .inject(steps!(route_by_the_second_card))
            .caught_by(steps!(those_meant_are_used), Cause::TimedOut),
    ],
    red_when: &[Break::Route, Break::PodRange],
    ..Scenario::new("second_card", StageName::Workload, steps!(second_card))
};

async fn second_card(lab: &Lab) -> anyhow::Result<()> {
    lab.step("node 2 has both addresses, and all Nodes are Ready");
    let second = lab.node(2).second_address()?;
    let own = lab.node(2).addresses().await?;
    ensure!(
        own.contains(&second.into()),
        Absent,
        "node2 to have the address {second} too",
        "{own:?}"
    );
    lab.all_nodes_ready().await?;
    those_meant_are_used(lab).await
}

async fn those_meant_are_used(lab: &Lab) -> anyhow::Result<()> {
    lab.step("each Node has the address on the nodes' own segment, and no other");
    for node in lab.nodes() {
        let listed = node.listed().await?;
        let listed = listed.as_ref().map(|it| it.internal_addresses()).unwrap_or_default();
        let own = node.address().to_string();
        ensure!(
            listed == [own.as_str()],
            WrongAnswer,
            "the Node {node} to have the internal address {own}",
            "{listed:?}",
            "the kubelet's `--node-ip`, and whom {node}'s default route and its name lead to"
        );
    }
    lab.step("every ordered pair, by the nodes' own segment");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every ordered pair to answer")?;
    lab.wire().carried(&mesh)
}

async fn kubelet_takes_the_second_address(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node(2);
    let (first, second) = (node.address(), node.second_address()?);
    lab.step(format!("{node}'s kubelet starts with --node-ip={second}"));
    // By hand its unit says so, with kubeadm the file of flags that its unit reads.
    node.run(format!(
        "sed -i 's/--node-ip={first}/--node-ip={second}/' \
         $(ls /etc/systemd/system/kubelet.service /var/lib/kubelet/kubeadm-flags.env 2>/dev/null) && \
         systemctl daemon-reload && systemctl restart kubelet"
    ))
    .within(secs(30))
    .await?;
    node.until(format!("the Node {node} with {second}"), secs(40), |listed| {
        let listed = listed.map(|it| it.internal_addresses()).unwrap_or_default();
        let state = format!("internal addresses {listed:?}");
        Probe::when(listed == [second.to_string()], Cause::WrongAnswer, state)
    })
    .await
}

/// The host at the other end of the second card drops it.
async fn route_by_the_second_card(lab: &Lab) -> anyhow::Result<()> {
    let (node, other) = (lab.node(2), lab.node(1));
    let [a, b, c, _] = node.second_address()?.octets();
    lab.step(format!("{node} sends what is for {other} by its second card"));
    let to = other.address();
    node.run(format!("ip route replace {to} via {a}.{b}.{c}.1")).await.map(drop)
}
