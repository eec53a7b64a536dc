//! A Pod that only its kubelet can end.

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Cells, Lab, Needs, Pod, Probe, Profile, Sabotage, Scenario, StageName, ensure, secs,
    steps,
};

use crate::catalogue::{E22, E22b, E23};

/// E22, E23!: a Pod that only its kubelet can end.
pub(crate) const STATIC_POD: Scenario = Scenario {
    about: "A manifest in the kubelet's folder is a running Pod; deleted in the API, only its mirror \
            is made anew while the container runs on; without the file it is gone",
    covers: &[E22, E22b, E23],
    cells: Cells::Kubeadm,
    profile: Profile::Full,
    limit: secs(150),
    sabotages: &[
        Sabotage::new("manifest-elsewhere")
            .about("the manifest lies beside the folder that the kubelet watches")
            .inject(steps!(|lab| place(lab, "/etc/kubernetes/mypod.yaml").await))
            .caught_by(steps!(runs), Cause::Absent),
        Sabotage::new("container-restarted")
            .about("the container is stopped while the mirror is deleted")
            .inject(steps!(|lab| {
                place(lab, MANIFEST).await?;
                let before = runs(lab).await?;
                lab.keep(before.clone());
                another_container(lab, &before).await
            }))
            .caught_by(steps!(|lab| mirror_returns(lab, &lab.kept()?).await), Cause::Died),
        Sabotage::new("made-already")
            .about("somebody made a Pod of the name that is only to be printed")
            .inject(steps!(|lab| lab.kubectl(format!("run mypod --image={}", Pod::IMAGE)).await))
            .caught_by(steps!(|lab| place(lab, MANIFEST).await), Cause::Answered),
        Sabotage::new("kubelet-stopped")
            .about("the kubelet has stopped, and sees that no manifest goes")
            .inject(steps!(|lab| {
                place(lab, MANIFEST).await?;
                runs(lab).await?;
                lab.node(NODE).stop("kubelet").await
            }))
            .caught_by(steps!(gone_with_its_manifest), Cause::Answered),
    ],
    ..Scenario::new("static_pod", StageName::PodNetwork, steps!(static_pod))
};

/// The node that gets the static Pod.
const NODE: u32 = 2;
const MANIFEST: &str = "/etc/kubernetes/manifests/mypod.yaml";
const MIRROR: &str = "mypod-node2";

/// What makes a static Pod this one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    /// Of its mirror in the API.
    uid: String,
    /// By the container engine.
    container: String,
}

async fn static_pod(lab: &Lab) -> anyhow::Result<()> {
    place(lab, MANIFEST).await?;
    let before = runs(lab).await?;
    mirror_returns(lab, &before).await?;
    gone_with_its_manifest(lab).await
}

async fn gone_with_its_manifest(lab: &Lab) -> anyhow::Result<()> {
    lab.step("remove the manifest: the Pod is gone, mirror and container (E23)");
    lab.node(NODE).run(format!("rm {MANIFEST}")).await?;
    lab.eventually("neither mirror nor container", secs(40), async || {
        let mirror = lab.pods().named(MIRROR).await?.is_some();
        let container = container(lab).await?;
        let state = format!("mirror listed: {mirror}, container: {container:?}");
        let gone = !mirror && container.is_empty();
        Ok(Probe::when(gone, Cause::Answered, state).needs(Needs::Kubelet(NODE)))
    })
    .await
}

/// E22b: the documents' way to a manifest; and into a file with it.
async fn place(lab: &Lab, path: &str) -> anyhow::Result<()> {
    lab.step("kubectl run --dry-run prints a manifest, and makes no Pod (E22b)");
    let image = Pod::IMAGE;
    let printed = lab.kubectl(format!(
        "run mypod --image={image} --image-pull-policy=Never --port=80 \
         --dry-run=client -o yaml --command -- /probe serve"
    ));
    let manifest = printed.await?.stdout;
    let made = lab.pods().named("mypod").await?.is_some();
    ensure!(!made, Answered, "a dry run to make no Pod", "there is a Pod mypod");
    lab.step(format!("put it into {path} on node{NODE}"));
    lab.node(NODE).write_secret(path, manifest).await
}

async fn runs(lab: &Lab) -> anyhow::Result<Running> {
    lab.step(format!("{MIRROR} runs, with an address, and answers (E22)"));
    let node = lab.node(NODE);
    let pod = lab
        .eventually(format!("{MIRROR} Ready"), secs(40), async || {
            let Some(pod) = lab.pods().named(MIRROR).await? else {
                let there = node.run(format!("ls {MANIFEST}")).may_fail().await?.succeeded();
                return Ok(match there {
                    true => Probe::not_yet(Cause::Absent, "no such Pod"),
                    false => {
                        Probe::hopeless(Cause::Absent, format!("no such Pod, and no {MANIFEST}"))
                    }
                }
                .needs(Needs::Kubelet(NODE)));
            };
            let ready = Some(pod).filter(Pod::is_running);
            Ok(Probe::of(ready, Cause::NotReady, "listed, not Ready").needs(Needs::Kubelet(NODE)))
        })
        .await?;
    let party = pod.party().context("it is Ready, and has no address")?;
    lab.ask(node, party.address).all_answered_by(&party, "the static Pod to answer").await?;
    Ok(Running { uid: pod.uid().to_owned(), container: container(lab).await? })
}

async fn mirror_returns(lab: &Lab, before: &Running) -> anyhow::Result<()> {
    lab.step("delete it in the API: its mirror returns with another UID (E23)");
    lab.pods().delete(MIRROR).await?;
    lab.eventually("the mirror with another UID", secs(40), async || {
        let pod = lab.pods().named(MIRROR).await?.filter(Pod::is_running);
        Ok(match pod {
            Some(pod) if pod.uid() != before.uid => Probe::Done(()),
            Some(_) => Probe::not_yet(Cause::Answered, "the old one"),
            None => Probe::not_yet(Cause::Absent, "none that is Ready"),
        }
        .needs(Needs::Kubelet(NODE)))
    })
    .await?;
    let after = container(lab).await?;
    let Running { container, .. } = before;
    ensure!(after == *container, Died, "its container {container} to run on", "{after}");
    Ok(())
}

async fn another_container(lab: &Lab, before: &Running) -> anyhow::Result<()> {
    lab.step("stop its container: the kubelet starts another");
    let stop = format!("crictl stop {} 2>&1", before.container);
    lab.node(NODE).run(stop).await?;
    lab.eventually("another container", secs(20), async || {
        let now = container(lab).await?;
        let another = !now.is_empty() && now != before.container;
        Ok(Probe::when(another, Cause::NotReady, now).needs(Needs::Kubelet(NODE)))
    })
    .await
}

async fn container(lab: &Lab) -> anyhow::Result<String> {
    let ids = lab.node(NODE).run("crictl ps -q --name mypod 2>/dev/null").await?;
    Ok(ids.text().to_owned())
}
