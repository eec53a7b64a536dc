//! A new Pod with an old address.

use std::slice;
use std::time::Instant;

use podwire_scenario::{
    Cause, Cells, Evidence, Failure, Lab, Needs, Party, Place, Probe, Profile, Sabotage, Scenario,
    StageName, secs, steps,
};

use crate::catalogue::F16;

/// F16: a Pod takes over an address whose owner others have just talked to.
pub(crate) const ADDRESS_TAKEN_OVER: Scenario = Scenario {
    about: "A new Pod that gets the address of one which has just gone is reached from its own node and \
            from everybody else, as soon as the node's neighbour entry has had its time",
    covers: &[F16],
    cells: Cells::WithBridge,
    profile: Profile::Full,
    limit: secs(180),
    sabotages: &[Sabotage::new("old-neighbour")
        .about("the node keeps the neighbour entry of the Pod that is gone")
        .inject(steps!(|lab| {
            let heir = an_heir(lab).await?;
            lab.node(heir.node).takes_for_nobody(heir.address).await
        }))
        .at(Place::Last)
        .caught_by(steps!(reached_from_everywhere), Cause::TimedOut)],
    ..Scenario::new("address_taken_over", StageName::Workload, steps!(taken_over))
};

async fn taken_over(lab: &Lab) -> anyhow::Result<()> {
    an_heir(lab).await?;
    reached_from_everywhere(lab).await
}

/// A Pod goes that everybody has just talked to, and the next one of its node gets its address.
async fn an_heir(lab: &Lab) -> anyhow::Result<Party> {
    let node = lab.last_node();
    lab.step(format!("a Pod on {node}, which everybody talks to"));
    lab.start_pod("owner", node).await?;
    let owner = lab.pods().labelled("app=owner").until_running(1).await?.remove(0);
    everybody_reaches(lab, &owner).await?;

    let address = owner.address;
    lab.step(format!("it goes, and its node gives {address} to the next"));
    lab.pods().labelled("app=owner").delete_all().await?;
    lab.eventually(format!("{address} to be free"), secs(20), async || {
        let left = node.given_addresses().await?.contains(&address);
        Ok(Probe::when(!left, Cause::NotReady, "it is given").needs(Needs::Kubelet(node.number())))
    })
    .await?;
    node.gives_next(address).await?;
    lab.start_pod("heir", node).await?;
    let heir = lab.pods().labelled("app=heir").until_running(1).await?.remove(0);
    anyhow::ensure!(heir.address == address, "{heir} has another address than {address}");
    lab.keep(heir.clone());
    Ok(heir)
}

/// From its own node as soon as the old neighbour entry there has had its time, if not at once.
async fn reached_from_everywhere(lab: &Lab) -> anyhow::Result<()> {
    let heir: Party = lab.kept()?;
    let (node, begun) = (lab.node(heir.node), Instant::now());
    lab.step(format!("everybody reaches {heir}"));
    lab.eventually(format!("every node and Pod to reach {heir}"), secs(60), async || {
        let entry = node.run(format!("ip neighbour show {}", heir.address)).await?;
        let stays = entry.text().contains("PERMANENT");
        let stays = stays.then(|| Evidence::certain(format!("{node} keeps {}", entry.text())));
        let state = match everybody_reaches(lab, &heir).await {
            Ok(()) => return Ok(Probe::Done(())),
            Err(error) => error.downcast::<Failure>()?,
        };
        Ok(Probe::not_yet(state.cause, state.seen).given(stays))
    })
    .await?;
    lab.step(format!("after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

async fn everybody_reaches(lab: &Lab, pod: &Party) -> anyhow::Result<()> {
    let mut everybody = lab.node_parties();
    everybody.extend(lab.pods().all_running().await?);
    let mesh = lab.mesh(&everybody, slice::from_ref(pod)).await?;
    Ok(mesh.all_answer(&format!("every node and Pod to reach {pod}"))?)
}
