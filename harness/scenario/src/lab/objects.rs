//! Objects of the API by name: Services, Deployments, and whatever a scenario applies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment as ApiDeployment;
use k8s_openapi::api::core::v1::{Event, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use podwire_cluster::Family;
use podwire_cluster::workload::{self, REPLICAS_PER_NODE};
use podwire_probe::Kind;
use serde_json::{Value, json};

use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::node::Node;
use crate::lab::pods::{Pod, Pods};

impl Lab {
    /// Applies an object in its full form (`apiVersion`, `kind`, `metadata`, ...); without a namespace
    /// it goes to `default`. Applied twice it is the same.
    ///
    /// # Errors
    /// When it is no object, or the API refuses it.
    pub async fn apply(&self, object: Value) -> anyhow::Result<()> {
        let applied = podwire_cluster::apply(self.cluster().api(), &object).await;
        applied.with_context(|| {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            format!("cannot apply {kind} {name}")
        })
    }

    /// Starts a Pod of the workload's program on a node, past the scheduler: what a taint keeps away
    /// from it comes as well. It asks the cluster's DNS, and has the label `app=NAME`.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn start_pod(&self, name: &str, on: Node<'_>) -> anyhow::Result<()> {
        self.apply(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "nodeName": on.name(),
                "dnsPolicy": "ClusterFirst",
                "terminationGracePeriodSeconds": 2,
                "containers": [Pod::container()],
            },
        }))
        .await
    }

    /// The same, and waits until it runs.
    ///
    /// # Errors
    /// As [`Lab::start_pod`]; a [`Failure`](crate::Failure) when it does not come to that.
    pub async fn run_pod(&self, name: &str, on: Node<'_>) -> anyhow::Result<Party> {
        self.start_pod(name, on).await?;
        let pods = self.pods().labelled(format!("app={name}"));
        let running = pods.until_running(1).await?.into_iter().next();
        running.with_context(|| format!("{name} has no address"))
    }

    /// Creates the workload, as the stage `workload` has it, and waits until all of its Pods run.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when they do not; when the API refuses it.
    pub async fn create_workload(&self) -> anyhow::Result<()> {
        self.step("create the workload");
        let replicas = self.node_count() * REPLICAS_PER_NODE;
        self.apply(workload::service(self.ip_families())).await?;
        self.apply(workload::deployment(replicas)).await?;
        self.pods().until_running(replicas as usize).await.map(drop)
    }

    /// The messages of the events with this reason in the namespace `default`:
    /// `FailedCreatePodSandBox`.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn events(&self, reason: &str) -> anyhow::Result<Vec<String>> {
        let events: Api<Event> = Api::default_namespaced(self.cluster().api());
        let select = ListParams::default().fields(&format!("reason={reason}"));
        let listed = events.list(&select).await.context("cannot list events")?;
        let messages = listed.items.into_iter().filter_map(|it| it.message);
        Ok(messages.collect())
    }

    /// A Service of the namespace `default`; the workload's is `blue`.
    pub fn service(&self, name: impl Into<String>) -> Service<'_> {
        Service {
            lab: self,
            name: name.into(),
            kind: Kind::Http,
        }
    }

    /// A Deployment of the namespace `default`; the workload's is `blue`.
    pub fn deployment(&self, name: impl Into<String>) -> Deployment<'_> {
        Deployment {
            lab: self,
            name: name.into(),
        }
    }
}

/// Adds the fields of one object to another.
fn extend(spec: &mut Value, more: Value) {
    if let (Value::Object(spec), Value::Object(more)) = (spec, more) {
        spec.extend(more);
    }
}

/// A Deployment by its name.
pub struct Deployment<'lab> {
    lab: &'lab Lab,
    name: String,
}

impl<'lab> Deployment<'lab> {
    fn api(&self) -> Api<ApiDeployment> {
        Api::default_namespaced(self.lab.cluster().api())
    }

    /// Its Pods, those with the label `app=NAME`.
    pub fn pods(&self) -> Pods<'lab> {
        self.lab.pods_of_deployment(&self.name)
    }

    /// Makes one of the workload's program with so many Pods; `more` goes into their spec.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn create(&self, replicas: usize, more: Value) -> anyhow::Result<()> {
        let mut spec = json!({
            "terminationGracePeriodSeconds": 2,
            "containers": [Pod::container()],
        });
        extend(&mut spec, more);
        let labels = json!({ "app": self.name });
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": self.name },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": spec },
            },
        });
        self.lab.apply(object).await
    }

    /// How many Pods it is to have.
    ///
    /// # Errors
    /// When the API does not answer, or there is no such Deployment.
    pub async fn replicas(&self) -> anyhow::Result<usize> {
        let name = &self.name;
        let got = self.api().get(name).await;
        let got = got.with_context(|| format!("cannot read the Deployment {name}"))?;
        // The API's default.
        let replicas = got.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        usize::try_from(replicas).with_context(|| format!("{name} is to have {replicas} Pods"))
    }

    /// Sets its number of Pods.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn scale(&self, replicas: usize) -> anyhow::Result<()> {
        let scale = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let (api, how) = (self.api(), PatchParams::default());
        let scaled = api.patch_scale(&self.name, &how, &scale).await;
        scaled.with_context(|| format!("cannot scale {}", self.name))?;
        Ok(())
    }

    /// Has new Pods take the place of those that run (`kubectl rollout restart`), and waits until as
    /// many new ones run and no old one.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) when it does not come to that.
    pub async fn roll_out(&self) -> anyhow::Result<Vec<Party>> {
        let old = self.pods().all_running().await?;
        let restart = format!("rollout restart deployment {}", self.name);
        self.lab.kubectl(restart).await?;
        let new_ones = self.pods().until_running_and(old.len(), |pods| {
            let left = pods.iter().find(|pod| old.contains(pod))?;
            Some(format!("{left} is left"))
        });
        new_ones.await
    }
}

/// A Service by its name.
#[derive(Clone)]
pub struct Service<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl Service<'_> {
    fn api(&self) -> Api<ApiService> {
        Api::default_namespaced(self.lab.cluster().api())
    }

    /// It, asked by another kind of request than HTTP: `by(Kind::Udp)`.
    pub fn by(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Makes one for the Pods with the label `app=NAME`, port 80; `more` goes into its spec.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn create(&self, more: Value) -> anyhow::Result<()> {
        let mut spec = json!({ "selector": { "app": self.name }, "ports": [{ "port": 80 }] });
        extend(&mut spec, more);
        self.apply(spec).await
    }

    /// Makes one that leads to this Pod alone, by an EndpointSlice written by hand (Kubernetes docs,
    /// "Services without selectors"); gives the Pod as it is reached by the Service's ClusterIP.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn create_for(&self, pod: &Party) -> anyhow::Result<Party> {
        self.make_for(pod, 1).await?;
        self.leading_to(pod).await
    }

    /// With so many ports, from 80 on, each of which leads to the Pod's port 80.
    pub(super) async fn make_for(&self, pod: &Party, ports: u16) -> anyhow::Result<()> {
        let names = names_of(ports);
        let port = |(name, port)| json!({ "name": name, "port": port, "targetPort": 80 });
        let listed: Vec<Value> = names.iter().zip(80u16..).map(port).collect();
        self.apply(json!({ "ports": listed })).await?;
        self.lead_ports_to(&names, pod).await.map(drop)
    }

    /// Has one that was made by [`Service::create_for`] lead to this Pod alone, and gives when the API had
    /// accepted that.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn lead_to(&self, pod: &Party) -> anyhow::Result<Instant> {
        self.lead_ports_to(&names_of(1), pod).await
    }

    async fn lead_ports_to(&self, names: &[String], pod: &Party) -> anyhow::Result<Instant> {
        for family in self.lab.ip_families().each() {
            let slice = slice_of(&self.name, names, &pod.by(*family)?);
            self.lab.apply(slice).await?;
        }
        Ok(Instant::now())
    }

    /// The only Pod that one leads to, as it is reached by the Service's ClusterIP.
    ///
    /// # Errors
    /// When the API has no such Service, or it has no ClusterIP.
    pub async fn leading_to(&self, pod: &Party) -> anyhow::Result<Party> {
        Ok(Party {
            address: self.address().await?,
            ipv6: self.address_v6().await?,
            ..pod.clone()
        })
    }

    /// It is of both families where the cluster is, unless it says otherwise itself.
    async fn apply(&self, mut spec: Value) -> anyhow::Result<()> {
        if self.lab.ip_families().is_dual() && spec["ipFamilyPolicy"].is_null() {
            spec["ipFamilyPolicy"] = "RequireDualStack".into();
        }
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name },
            "spec": spec,
        });
        self.lab.apply(service).await
    }

    /// It, while it exists.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn listed(&self) -> anyhow::Result<Option<ApiService>> {
        Ok(self.api().get_opt(&self.name).await?)
    }

    /// Its ClusterIP.
    ///
    /// # Errors
    /// When the API does not answer, or it has none.
    pub async fn address(&self) -> anyhow::Result<Ipv4Addr> {
        let spec = self.api().get(&self.name).await?.spec;
        let address = spec.and_then(|spec| spec.cluster_ip);
        let none = || format!("the Service {} has no ClusterIP", self.name);
        Ok(address.with_context(none)?.parse()?)
    }

    /// Its ClusterIP of the second family, where the cluster has one.
    ///
    /// # Errors
    /// When the API does not answer, or it has none.
    pub async fn address_v6(&self) -> anyhow::Result<Option<Ipv6Addr>> {
        if !self.lab.ip_families().is_dual() {
            return Ok(None);
        }
        let spec = self.api().get(&self.name).await?.spec;
        let all = spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
        let mut second = all.iter().filter_map(|it| it.parse().ok());
        let none = || format!("the Service {} has no IPv6 ClusterIP: {all:?}", self.name);
        Ok(Some(second.next().with_context(none)?))
    }

    /// Its ClusterIP of a family.
    ///
    /// # Errors
    /// When the API does not answer, or it has none.
    pub async fn address_by(&self, family: Family) -> anyhow::Result<IpAddr> {
        let none = || format!("the Service {} has no {family} ClusterIP", self.name);
        Ok(match family {
            Family::Ipv4 => self.address().await?.into(),
            Family::Ipv6 => self.address_v6().await?.with_context(none)?.into(),
        })
    }

    /// The port of every node that leads to it (`type: NodePort`).
    ///
    /// # Errors
    /// When the API does not answer, or it has none.
    pub async fn node_port(&self) -> anyhow::Result<u16> {
        let spec = self.api().get(&self.name).await?.spec;
        let ports = spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port);
        let none = || format!("the Service {} has no port of nodes", self.name);
        Ok(u16::try_from(port.with_context(none)?)?)
    }

    /// The addresses that its EndpointSlices call ready.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn ready_endpoints(&self) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
        let select = ListParams::default().labels(&self.label_of_slices());
        Ok(ready(&self.slices().list(&select).await?.items))
    }

    pub(super) fn slices(&self) -> Api<EndpointSlice> {
        Api::default_namespaced(self.lab.cluster().api())
    }

    pub(super) fn label_of_slices(&self) -> String {
        format!("kubernetes.io/service-name={}", self.name)
    }

    /// Gives every client of it one Pod (`sessionAffinity: ClientIP`).
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn stick_clients_to_one_pod(&self) -> anyhow::Result<()> {
        self.lab
            .step("set the Service's session affinity to ClientIP");
        let affinity = Patch::Merge(json!({ "spec": { "sessionAffinity": "ClientIP" } }));
        let how = PatchParams::default();
        self.api().patch(&self.name, &how, &affinity).await?;
        Ok(())
    }
}

/// Of a Service's ports: an only one needs no name, several do (Kubernetes docs, "Multi-port Services").
fn names_of(ports: u16) -> Vec<String> {
    match ports {
        1 => vec![String::new()],
        _ => (1..=ports).map(|number| format!("port-{number}")).collect(),
    }
}

/// An EndpointSlice of this Service with this Pod alone, of the family by which it is asked. Its ports are
/// known by the names of the Service's.
fn slice_of(service: &str, names: &[String], pod: &Party) -> Value {
    let port = |name| json!({ "name": name, "port": 80, "protocol": "TCP" });
    let ports: Vec<Value> = names.iter().map(port).collect();
    let name = match pod.family {
        Family::Ipv4 => service.to_owned(),
        Family::Ipv6 => format!("{service}-ipv6"),
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": pod.family,
        "endpoints": [{
            "addresses": [pod.ip()],
            "conditions": { "ready": true },
            "nodeName": format!("node{}", pod.node),
        }],
        "ports": ports,
    })
}

/// The addresses that these call ready.
pub(super) fn ready(slices: &[EndpointSlice]) -> BTreeSet<Ipv4Addr> {
    let endpoints = slices.iter().filter_map(|slice| slice.endpoints.as_ref());
    let ready = endpoints.flatten().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_some_and(|conditions| conditions.ready == Some(true))
    });
    let addresses = ready.flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|it| it.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_by_hand_has_the_one_pod_ready() {
        let second = "fd00:10:1:2::3".parse().unwrap();
        let pod = Party::new("blue-a", 2, true, [10, 1, 2, 3]).with_ipv6(Some(second));
        let of = |family| {
            let slice = slice_of("to-node2", &names_of(1), &pod.by(family).unwrap());
            serde_json::from_value::<EndpointSlice>(slice).unwrap()
        };
        let (slice, of_ipv6) = (of(Family::Ipv4), of(Family::Ipv6));
        assert_eq!(ready(std::slice::from_ref(&slice)), [pod.address].into());
        assert_eq!(of_ipv6.address_type, "IPv6");
        assert_eq!(of_ipv6.endpoints.unwrap()[0].addresses, ["fd00:10:1:2::3"]);
        assert_ne!(slice.metadata.name, of_ipv6.metadata.name);
        let labels = slice.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/service-name"], "to-node2");
        let port = &slice.ports.unwrap()[0];
        assert_eq!((port.name.as_deref(), port.port), (Some(""), Some(80)));
    }

    #[test]
    fn an_endpoint_that_does_not_say_that_it_is_ready_is_not() {
        let of = |address: &str, conditions: Value| json!({ "addresses": [address], "conditions": conditions });
        let slice = |endpoints: Value| {
            let slice = json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": [] });
            serde_json::from_value::<EndpointSlice>(slice).unwrap()
        };
        let slices = [
            slice(json!([of("10.1.1.2", json!({ "ready": true }))])),
            slice(json!([
                of("10.1.2.2", json!({ "ready": false })),
                of("10.1.2.3", json!({})),
                of("10.1.2.4", json!({ "ready": true })),
            ])),
        ];
        let expected = [[10, 1, 1, 2], [10, 1, 2, 4]].map(Ipv4Addr::from);
        assert_eq!(ready(&slices), expected.into());
    }
}
