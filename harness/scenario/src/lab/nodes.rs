//! Nodes as the API lists them: registered, Ready, labelled.

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as ApiNode, NodeCondition};
use kube::Api;
use kube::runtime::watcher;
use podwire_cluster::addresses;
use podwire_lan::Ipv4Net;

use crate::check::failure::Cause;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// How long a kubelet may take from its start to a Ready Node.
pub(super) const READY: Duration = Duration::from_secs(20);

/// For the controller manager to miss a kubelet's lease, by its own settings
/// (`--node-monitor-grace-period`, 50 s; docs/idle.md has the emulated one's).
const SILENT: Duration = Duration::from_secs(80);

/// A Node as the API lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedNode(ApiNode);

impl Deref for ListedNode {
    type Target = ApiNode;

    fn deref(&self) -> &ApiNode {
        &self.0
    }
}

impl ListedNode {
    /// Its condition of this type: `Ready`.
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|it| it.type_ == kind)
    }

    /// Whether its condition of this type holds.
    pub fn holds(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|it| it.status == "True")
    }

    /// Names of its labels.
    pub fn labels(&self) -> Vec<&str> {
        let labels = self.metadata.labels.iter().flatten();
        labels.map(|(name, _)| name.as_str()).collect()
    }

    /// Keys of its taints.
    pub fn taints(&self) -> Vec<&str> {
        let taints = self.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let taints = taints.into_iter().flatten();
        taints.map(|taint| taint.key.as_str()).collect()
    }

    /// Its addresses within the cluster (`InternalIP`).
    pub fn internal_addresses(&self) -> Vec<&str> {
        let all = self.status.iter().filter_map(|it| it.addresses.as_ref());
        let internal = all.flatten().filter(|it| it.type_ == "InternalIP");
        internal.map(|it| it.address.as_str()).collect()
    }

    /// The range of its Pods (`spec.podCIDR`), once it has been given one.
    pub fn pod_range(&self) -> Option<Ipv4Net> {
        self.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
    }

    /// The ranges of its Pods as they are written (`spec.podCIDRs`): of a dual-stack cluster one of either
    /// family, once it has been given them.
    pub fn pod_ranges(&self) -> &[String] {
        let ranges = self.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
        ranges.map(Vec::as_slice).unwrap_or_default()
    }

    /// The version of its kubelet, `v1.36.4`.
    pub fn version(&self) -> Option<&str> {
        let info = self.status.as_ref()?.node_info.as_ref()?;
        Some(&info.kubelet_version)
    }
}

impl Lab {
    pub(super) fn api_nodes(&self) -> Api<ApiNode> {
        Api::all(self.cluster().api())
    }

    /// Every Node is listed, Ready, and has its machine's address of each family as internal address: the
    /// next hops of the routes to come.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn all_nodes_ready(&self) -> anyhow::Result<()> {
        self.all_nodes_ready_or(Needs::Time).await
    }

    /// The same; beside a kubelet that acts, it `needs` this.
    ///
    /// # Errors
    /// As [`Lab::all_nodes_ready`].
    pub async fn all_nodes_ready_or(&self, needs: Needs) -> anyhow::Result<()> {
        let count = self.node_count();
        let expected = format!("{count} Ready Nodes with their machines' addresses");
        let numbers: Vec<u32> = (1..=count).collect();
        self.nodes_ready(&numbers, &expected, READY, needs).await
    }

    async fn nodes_ready(
        &self,
        numbers: &[u32],
        expected: &str,
        limit: Duration,
        needs: Needs,
    ) -> anyhow::Result<()> {
        let api = self.api_nodes();
        self.watch(expected, limit, api, watcher::Config::default(), |listed| {
            let listed: Vec<ListedNode> = listed.iter().cloned().map(ListedNode).collect();
            let lacking = |number: &u32| {
                let node = self.node(*number);
                let second = node.address_v6().map(IpAddr::from);
                let own: Vec<IpAddr> = [node.address().into()].into_iter().chain(second).collect();
                let lacking = lacking(&listed, *number, &own);
                lacking.map(|lacking| (*number, lacking))
            };
            Ok(match numbers.iter().find_map(lacking) {
                None => Probe::Done(()),
                Some((number, (cause, state))) => Probe::not_yet(cause, state)
                    .needs(Needs::All(vec![Needs::Kubelet(number), needs.clone()]))
                    .look(format!(
                        "`journalctl -u kubelet` of {}, and its Node",
                        addresses::node_name(number)
                    )),
            })
        })
        .await
    }
}

impl Node<'_> {
    /// Its Node, while it is listed.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn listed(self) -> anyhow::Result<Option<ListedNode>> {
        let listed = self.lab().api_nodes().get_opt(self.name()).await?;
        Ok(listed.map(ListedNode))
    }

    /// Watches its Node until `judge` says that it is done; there is none before it registers. Its
    /// kubelet would have to act.
    ///
    /// # Errors
    /// As [`Lab::watch`].
    pub async fn until<T>(
        self,
        expected: impl AsRef<str>,
        limit: Duration,
        judge: impl Fn(Option<&ListedNode>) -> Probe<T>,
    ) -> anyhow::Result<T> {
        let api = self.lab().api_nodes();
        let own = watcher::Config::default().fields(&format!("metadata.name={self}"));
        let watch = self.lab().watch(expected, limit, api, own, |listed| {
            let listed = listed.first().cloned().map(ListedNode);
            Ok(judge(listed.as_ref()).needs(Needs::Kubelet(self.number())))
        });
        watch.await
    }

    /// Waits until its Node is listed, Ready or not.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn registers(self) -> anyhow::Result<ListedNode> {
        let expected = format!("a Node {self}");
        self.until(expected, READY, |listed| {
            Probe::of(listed.cloned(), Cause::Absent, "not listed")
        })
        .await
    }

    /// Waits until its Node is Ready, and without the taints that it has before that. The controller manager takes one
    /// away some time later (`node.kubernetes.io/not-ready`), and so does a Pod network when its daemon runs there
    /// (`node.cilium.io/agent-not-ready`): Pods made before have gone elsewhere, and stay.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn until_open(self) -> anyhow::Result<()> {
        self.until(format!("{self} to take Pods"), READY, |listed| {
            let Some(listed) = listed else {
                return Probe::not_yet(Cause::Absent, "no such Node");
            };
            let (ready, taints) = (listed.holds("Ready"), listed.taints());
            let state = format!("Ready: {ready}, taints: {taints:?}");
            Probe::when(ready && taints.is_empty(), Cause::NotReady, state)
        })
        .await
    }

    /// Its Node is listed, and is not Ready because its engine has no CNI file
    /// (`NetworkPluginNotReady`).
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that, or it is Ready.
    pub async fn lacks_a_network(self) -> anyhow::Result<()> {
        let expected = format!("the Node {self} to be not Ready, for want of a network");
        self.until(expected, READY, without_network).await
    }

    /// Whether its Node has this label.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn has_label(self, label: &str) -> anyhow::Result<bool> {
        let listed = self.listed().await?;
        Ok(listed.is_some_and(|node| node.labels().contains(&label)))
    }

    /// Whether it takes no new Pods (`spec.unschedulable`).
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn is_cordoned(self) -> anyhow::Result<bool> {
        let listed = self.listed().await?;
        let spec = listed.as_ref().and_then(|node| node.spec.as_ref());
        Ok(spec.and_then(|spec| spec.unschedulable) == Some(true))
    }

    /// Waits until its Node is Ready no more because its kubelet is silent: `Ready` is `Unknown`, as the
    /// controller manager has it (Kubernetes reference, "Node Status").
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that; at once while its kubelet runs.
    pub async fn until_silent(self) -> anyhow::Result<()> {
        let needs = Needs::All(vec![
            Needs::ControlPlane("kube-controller-manager"),
            Needs::Silence {
                node: self.number(),
                command: "systemctl is-active kubelet | grep -x active; true".to_owned(),
                means: format!("the kubelet of {self}"),
            },
        ]);
        let expected = format!("{self} to be NotReady, since its kubelet says nothing");
        let own = watcher::Config::default().fields(&format!("metadata.name={self}"));
        let api = self.lab().api_nodes();
        let watch = self.lab().watch(expected, SILENT, api, own, |listed| {
            let Some(node) = listed.first().cloned().map(ListedNode) else {
                return Ok(Probe::not_yet(Cause::Absent, format!("no Node {self}")));
            };
            let status = node.condition("Ready").map(|it| it.status.as_str());
            let state = format!("Ready is {}", status.unwrap_or("nothing"));
            let silent = Probe::when(status == Some("Unknown"), Cause::Answered, state);
            Ok(silent.needs(needs.clone()))
        });
        watch.await
    }

    /// Its Node is listed, Ready within the limit, and has its machine's address.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn ready_within(self, limit: Duration) -> anyhow::Result<()> {
        self.ready_within_or(limit, Needs::Time).await
    }

    /// The same; beside a kubelet that acts, it `needs` this.
    ///
    /// # Errors
    /// As [`Node::ready_within`].
    pub async fn ready_within_or(self, limit: Duration, needs: Needs) -> anyhow::Result<()> {
        let expected = format!("{self} Ready");
        let (lab, numbers) = (self.lab(), [self.number()]);
        lab.nodes_ready(&numbers, &expected, limit, needs).await
    }
}

/// The engine's reason, as the kubelet hands it on.
const NO_NETWORK: &str = "NetworkPluginNotReady";

fn without_network(listed: Option<&ListedNode>) -> Probe<()> {
    let Some(node) = listed else {
        return Probe::not_yet(Cause::Absent, "no such Node");
    };
    if node.holds("Ready") {
        return Probe::hopeless(Cause::Answered, "it is Ready");
    }
    let ready = node.condition("Ready");
    let why = ready.and_then(|it| it.message.as_deref());
    let why = why.unwrap_or("no Ready condition");
    Probe::when(why.contains(NO_NETWORK), Cause::NotReady, why)
}

fn lacking(listed: &[ListedNode], number: u32, own: &[IpAddr]) -> Option<(Cause, String)> {
    let name = addresses::node_name(number);
    let named = |node: &&ListedNode| node.metadata.name.as_ref() == Some(&name);
    let Some(node) = listed.iter().find(named) else {
        return Some((Cause::Absent, format!("no Node {name}")));
    };
    match node.condition("Ready") {
        Some(ready) if ready.status == "True" => {}
        Some(ready) => {
            let why = ready.message.as_deref().unwrap_or_default();
            return Some((Cause::NotReady, format!("{name} is not Ready: {why}")));
        }
        None => return Some((Cause::NotReady, format!("{name} has no Ready condition"))),
    }
    let wanted: Vec<String> = own.iter().map(IpAddr::to_string).collect();
    let internal = node.internal_addresses();
    (internal != wanted).then(|| {
        let wanted = wanted.join(" and ");
        (
            Cause::WrongAnswer,
            format!("{name} has internal addresses {internal:?}, its machine {wanted}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, address: &str) -> ListedNode {
        let node = serde_json::from_value(json!({
            "metadata": { "name": "node2", "labels": { "size": "small" } },
            "spec": {
                "podCIDR": "10.1.2.0/24",
                "taints": [{ "key": "full", "effect": "NoSchedule" }],
            },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready, "message": "cni not initialised" }],
                "addresses": [
                    { "type": "InternalIP", "address": address },
                    { "type": "Hostname", "address": "node2" }
                ]
            }
        }));
        ListedNode(node.unwrap())
    }

    #[test]
    fn a_node_is_read_from_the_api() {
        let node = node("False", "172.30.0.12");
        assert_eq!((node.labels(), node.taints()), (vec!["size"], vec!["full"]));
        let why = node.condition("Ready").and_then(|it| it.message.as_deref());
        assert_eq!(why, Some("cni not initialised"));
        assert!(!node.holds("Ready"));
        assert_eq!(node.pod_range(), Some("10.1.2.0/24".parse().unwrap()));
    }

    #[test]
    fn a_node_without_a_network_is_told_from_one_that_lacks_something_else() {
        let with = |ready: &str, message: &str| {
            let condition = json!({ "type": "Ready", "status": ready, "message": message });
            let node = json!({ "metadata": {}, "status": { "conditions": [condition] } });
            without_network(Some(&ListedNode(serde_json::from_value(node).unwrap())))
        };
        let says = "container runtime network not ready: NetworkReady=false \
                    reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin \
                    not initialized";
        assert_eq!(with("False", says), Probe::Done(()));
        let early = "container runtime status check may not have completed yet";
        assert_eq!(with("False", early), Probe::not_yet(Cause::NotReady, early));
        assert_eq!(
            with("True", "kubelet is posting ready status"),
            Probe::hopeless(Cause::Answered, "it is Ready")
        );
        assert_eq!(
            without_network(None),
            Probe::not_yet(Cause::Absent, "no such Node")
        );
    }

    #[test]
    fn what_a_node_lacks_is_named() {
        let address = [IpAddr::from([172, 30, 0, 12])];
        let own = address[0].to_string();
        assert_eq!(lacking(&[node("True", &own)], 2, &address), None);
        let cause = |nodes: &[ListedNode]| lacking(nodes, 2, &address).map(|(cause, _)| cause);
        assert_eq!(cause(&[]), Some(Cause::Absent));
        assert_eq!(cause(&[node("False", &own)]), Some(Cause::NotReady));
        assert_eq!(cause(&[node("True", "10.1.2.1")]), Some(Cause::WrongAnswer));
        let both = [address[0], "fd00:172:30::12".parse().unwrap()];
        let one = lacking(&[node("True", &own)], 2, &both).map(|(cause, _)| cause);
        assert_eq!(one, Some(Cause::WrongAnswer));
    }
}
