//! The first CNI file, and the Node that waits for it.

use podwire_scenario::{Cause, Lab, Needs, Probe, ensure, secs};

pub(super) const CNI_PATH: &str = "/etc/cni/net.d/kube.conf";

/// As the documents write it.
pub(super) const CNI_FILE: &str = r#"{
  "cniVersion": "0.3.1",
  "name": "kube",
  "type": "bridge",
  "bridge": "cni0",
  "isDefaultGateway": true,
  "ipMasq": true,
  "hairpinMode": true,
  "ipam": {
    "type": "host-local",
    "subnet": "10.1.1.0/24"
  }
}
"#;

/// The same without a comma.
pub(super) fn malformed() -> String {
    CNI_FILE.replacen(',', "", 1)
}

/// Of the Node's condition Ready: status and message.
async fn ready(lab: &Lab) -> anyhow::Result<String> {
    let shown = r#"{range .status.conditions[?(@.type=="Ready")]}{.status}: {.message}{end}"#;
    let node = lab.kubectl(format!("get node node1 -o jsonpath='{shown}'")).await?;
    Ok(node.text().to_owned())
}

fn is_ready(condition: &str) -> bool {
    condition.starts_with("True")
}

pub(super) async fn not_ready_without_a_cni_file(lab: &Lab) -> anyhow::Result<()> {
    lab.step("without a CNI file the Node is not Ready, and says why (B7)");
    lab.eventually("the Node to name NetworkPluginNotReady", secs(20), async || {
        let ready = ready(lab).await?;
        if is_ready(&ready) {
            return Ok(Probe::hopeless(Cause::Answered, ready));
        }
        let named = ready.starts_with("False") && ready.contains("NetworkPluginNotReady");
        Ok(Probe::when(named, Cause::NotReady, ready).needs(Needs::Kubelet(1)))
    })
    .await
}

/// Prints what the kubelet has said of a network that is not ready, from twenty seconds after the last
/// change of the CNI folder on. The documents give it ten.
const STILL_NOT_READY: &str = "\
    journalctl -u kubelet -o cat --since @$(( $(stat -c %Y /etc/cni/net.d) + 20 )) | \
    grep -F 'network is not ready' | tail -n 1";

pub(super) async fn malformed_file_is_named(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Node is not Ready, and containerd's journal names the file (B8b)");
    let node1 = lab.node(1);
    let named = format!("failed to load CNI config file {CNI_PATH}");
    let named = node1.journal_lines("containerd", &[&named]);
    lab.eventually("the file to be named, and no network", secs(40), async || {
        let ready = ready(lab).await?;
        if is_ready(&ready) {
            return Ok(Probe::hopeless(Cause::Answered, ready));
        }
        if node1.run(STILL_NOT_READY).await?.text().is_empty() {
            return Ok(Probe::not_yet(Cause::NotReady, "the file was written just now"));
        }
        let named = !node1.run(&named).await?.text().is_empty();
        Ok(match named {
            true => Probe::Done(()),
            false => Probe::hopeless(Cause::Absent, "no such line in containerd's journal"),
        })
    })
    .await
}

/// The processes of kubelet and containerd.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Daemons(String);

pub(super) async fn daemons(lab: &Lab) -> anyhow::Result<Daemons> {
    let shown = lab.node(1).run("systemctl show -P MainPID kubelet containerd").await?;
    Ok(Daemons(shown.text().split_whitespace().collect::<Vec<_>>().join(" ")))
}

pub(super) async fn ready_by_the_file_alone(lab: &Lab) -> anyhow::Result<()> {
    lab.step("the Node is Ready, and nobody was started anew for that (B8, B8b)");
    let before: Daemons = lab.kept()?;
    let still = Needs::Silence {
        node: 1,
        command: STILL_NOT_READY.into(),
        means: "the kubelet has looked since".into(),
    };
    lab.eventually("the Node to be Ready", secs(20), async || {
        let ready = ready(lab).await?;
        Ok(Probe::when(is_ready(&ready), Cause::NotReady, ready)
            .needs(Needs::All(vec![Needs::Kubelet(1), still.clone()])))
    })
    .await?;
    let after = daemons(lab).await?;
    ensure!(after == before, Died, "kubelet and containerd to go on as {before:?}", "{after:?}");
    Ok(())
}

pub(super) async fn ready_with(lab: &Lab, cni_file: &str) -> anyhow::Result<()> {
    lab.keep(daemons(lab).await?);
    lab.node(1).write(CNI_PATH, cni_file).await?;
    ready_by_the_file_alone(lab).await
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str};

    use super::*;

    #[test]
    fn only_the_malformed_file_is_no_json() {
        assert!(from_str::<Value>(CNI_FILE).is_ok());
        assert!(from_str::<Value>(&malformed()).is_err());
    }
}
