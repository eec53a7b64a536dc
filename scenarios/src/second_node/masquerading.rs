//! Which pairs a route connects where each node's bridge masquerades.

use podwire_scenario::{Cause, Lab, Profile, Sabotage, Scenario, StageName, ensure, secs, steps};

use crate::catalogue::{C7, C8};

/// C7 and C8 with the documents' ipMasq=true: a Pod is hidden behind its node's address from all that is
/// not of its node's range, so that answers to it need no route.
pub(crate) const MASQUERADING: Scenario = Scenario {
    about: "With the bridge plugin's ipMasq one route connects the Pods of one node to those of another \
            and not the other way round, Pods see nodes in the place of other nodes' Pods, and a deleted \
            route cuts its own direction alone",
    covers: &[C7, C8],
    profile: Profile::Full,
    limit: secs(240),
    prepare: Some(steps!(bridges_masquerade)),
    sabotages: &[
        Sabotage::new("node-1-does-not-masquerade")
            .about("node 1's bridge does not masquerade")
            .inject(steps!(|lab| {
                masquerade_no_more(lab, 1).await?;
                lab.node(1).add_route_to(2).await
            }))
            .caught_by(steps!(one_direction_answers), Cause::TimedOut),
        Sabotage::new("node-2-does-not-masquerade")
            .about("node 2's bridge does not masquerade")
            .inject(steps!(|lab| {
                masquerade_no_more(lab, 2).await?;
                lab.add_all_routes().await
            }))
            .caught_by(steps!(nodes_are_seen), Cause::WrongAnswer),
        Sabotage::new("no-route-deleted")
            .about("all routes are still there")
            .inject(steps!(Lab::add_all_routes))
            .caught_by(steps!(its_direction_alone_fails), Cause::Answered),
    ],
    ..Scenario::new("masquerading_bridges", StageName::WorkloadBare, steps!(masquerading))
};

async fn masquerading(lab: &Lab) -> anyhow::Result<()> {
    lab.node(1).add_route_to(2).await?;
    one_direction_answers(lab).await?;

    lab.add_all_routes().await?;
    nodes_are_seen(lab).await?;

    lab.node(1).delete_route_to(2).await?;
    its_direction_alone_fails(lab).await
}

async fn bridges_masquerade(lab: &Lab) -> anyhow::Result<()> {
    lab.step("every node's CNI file says ipMasq=true, and its Pods are made anew");
    let change = r#"sed -i 's/"ipMasq": false/"ipMasq": true/' /etc/cni/net.d/*"#;
    lab.run_everywhere(change).await?;
    for node in lab.nodes() {
        node.until_cni_file_is_read().await?;
    }
    lab.deployment("blue").roll_out().await.map(drop)
}

/// The plugin's rules, a chain for each Pod, are all that leads on from there.
async fn masquerade_no_more(lab: &Lab, number: u32) -> anyhow::Result<()> {
    lab.node(number).run("iptables -t nat -F POSTROUTING").await.map(drop)
}

async fn one_direction_answers(lab: &Lab) -> anyhow::Result<()> {
    lab.step("one route: node 1 and its Pods reach node 2's Pods, which do not reach them (C7)");
    let mesh = lab.mesh_of_everybody().await?;
    let expected = "node 1 and its Pods to reach node 2's, and nobody else another node's";
    Ok(mesh.exactly_dead(expected, |from, to| {
        from.node != to.node && (from.node, to.node) != (1, 2)
    })?)
}

async fn nodes_are_seen(lab: &Lab) -> anyhow::Result<()> {
    lab.step("all routes: every pair answers, and another node's Pod is seen as that node (C8)");
    let mesh = lab.mesh_of_everybody().await?;
    mesh.all_answer("every ordered pair to answer")?;
    for cell in mesh.cells.iter().filter(|it| it.from.node != it.to.node) {
        let (node, from, to) = (lab.node(cell.from.node), &cell.from, &cell.to);
        let seen = cell.client.as_deref().unwrap_or("nobody");
        let hidden = seen == node.address().to_string();
        ensure!(hidden, WrongAnswer, "{to} to see {from} as {node}", "it saw {seen}");
    }
    Ok(())
}

async fn its_direction_alone_fails(lab: &Lab) -> anyhow::Result<()> {
    lab.step("without node 1's route to node 2's Pods that direction fails, and no other (C8)");
    let mesh = lab.mesh_of_everybody().await?;
    let expected = "all pairs but those from node 1 to node 2's Pods";
    Ok(mesh.exactly_dead(expected, |from, to| (from.node, to.node) == (1, 2))?)
}
