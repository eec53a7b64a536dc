//! Whom a target leads to, by name: only their answers count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use crate::check::party::Party;
use crate::lab::Lab;
use crate::lab::pods::Pod;

/// What steady traffic asks, as the API tells when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lab) struct Target {
    host: String,
    port: u16,
    /// The Services that have this address, name or port of nodes: namespace and name of each.
    services: Vec<(String, String)>,
}

/// What is known of the Pods of its time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::lab) struct Known {
    /// The node of each Pod, by the Pod's name.
    pub(in crate::lab) nodes: BTreeMap<String, u32>,
    /// Whom the target leads to.
    pub(in crate::lab) asked: BTreeSet<String>,
}

impl Known {
    /// Pods come and go.
    pub(in crate::lab) fn extend(&mut self, more: Self) {
        self.nodes.extend(more.nodes);
        self.asked.extend(more.asked);
    }
}

impl Target {
    /// `HOST`, `HOST:PORT` or `http://HOST[:PORT][/PATH]`, at port 80 unless it says otherwise.
    pub(in crate::lab) fn of(target: &str) -> Self {
        let rest = target.strip_prefix("http://").unwrap_or(target);
        let place = rest.split('/').next().unwrap_or_default();
        let (host, port) = match (place.parse::<SocketAddr>(), place.rsplit_once(':')) {
            (Ok(address), _) => (address.ip().to_string(), address.port()),
            (_, Some((host, port))) => match port.parse() {
                Ok(port) if !host.contains(':') => (host.to_owned(), port),
                _ => (place.to_owned(), 80),
            },
            (_, None) => (place.to_owned(), 80),
        };
        Self {
            host,
            port,
            services: Vec::new(),
        }
    }

    fn is(&self, address: impl Into<IpAddr>) -> bool {
        self.host.parse() == Ok(address.into())
    }

    fn is_node(&self, node: &Party) -> bool {
        self.is(node.address) || node.ipv6.is_some_and(|address| self.is(address))
    }

    /// Whether it is an address, the name or, at a node, the port of this Service.
    fn is_service(&self, service: &ApiService, nodes: &[Party]) -> bool {
        let (Some(spec), Some((namespace, name))) = (&service.spec, name(&service.metadata)) else {
            return false;
        };
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let ingress = ingress
            .into_iter()
            .flatten()
            .filter_map(|it| it.ip.as_ref());
        let lists = [&spec.cluster_ips, &spec.external_ips];
        let addresses = lists.into_iter().flatten().flatten().chain(ingress);
        let mut addresses = addresses.filter_map(|it| it.parse::<IpAddr>().ok());
        let ports = spec.ports.iter().flatten();
        let mut ports = ports.filter_map(|it| it.node_port);
        let at_node = self.host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
            || nodes.iter().any(|node| self.is_node(node));
        let named = format!("{name}.{namespace}.svc");
        addresses.any(|address| self.is(address))
            || at_node && ports.any(|port| port == i32::from(self.port))
            || self.host == named
            || self.host.starts_with(&format!("{named}."))
    }

    /// Whom it leads to: the Pods at these addresses, and the Pod or the Node that it is.
    fn led_to(&self, behind: &BTreeSet<IpAddr>, pods: &[Pod], nodes: &[Party]) -> BTreeSet<String> {
        let has = |pod: &&Pod| {
            let mut addresses = pod.addresses().filter_map(|it| it.parse::<IpAddr>().ok());
            addresses.any(|address| behind.contains(&address) || self.is(address))
        };
        let pods = pods.iter().filter(has).map(|pod| pod.name().to_owned());
        let nodes = nodes.iter().filter(|node| self.is_node(node));
        pods.chain(nodes.map(|node| node.name.clone())).collect()
    }
}

type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn name(metadata: &Metadata) -> Option<(&str, &str)> {
    Some((metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}

/// All addresses in these slices: Pods that come and go are in them before and after they are ready.
fn addresses(slices: &[EndpointSlice]) -> impl Iterator<Item = IpAddr> {
    let endpoints = slices.iter().filter_map(|slice| slice.endpoints.as_ref());
    let addresses = endpoints.flatten().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|it| it.parse().ok())
}

impl Lab {
    /// What a target is now.
    pub(super) async fn target(&self, target: &str) -> anyhow::Result<Target> {
        let mut target = Target::of(target);
        let services: Api<ApiService> = Api::all(self.cluster().api());
        let services = services.list(&ListParams::default()).await;
        let nodes = self.node_parties();
        for service in &services.context("cannot list Services")?.items {
            if target.is_service(service, &nodes)
                && let Some((namespace, name)) = name(&service.metadata)
            {
                target
                    .services
                    .push((namespace.to_owned(), name.to_owned()));
            }
        }
        Ok(target)
    }

    /// The Pods that there are now, and whom the target leads to.
    pub(super) async fn known(&self, target: &Target) -> anyhow::Result<Known> {
        let mut behind = BTreeSet::new();
        for (namespace, name) in &target.services {
            let slices = Api::<EndpointSlice>::namespaced(self.cluster().api(), namespace);
            let label = format!("kubernetes.io/service-name={name}");
            let slices = slices.list(&ListParams::default().labels(&label)).await;
            let slices = slices.with_context(|| format!("cannot list {name}'s EndpointSlices"))?;
            behind.extend(addresses(&slices.items));
        }
        let pods = self.pods().everywhere().await?;
        let on_nodes = pods.iter();
        let on_nodes = on_nodes.filter_map(|pod| Some((pod.name().to_owned(), pod.node()?)));
        Ok(Known {
            asked: target.led_to(&behind, &pods, &self.node_parties()),
            nodes: on_nodes.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, more: serde_json::Value) -> ApiService {
        let mut object = json!({ "metadata": { "namespace": "default", "name": name } });
        object["spec"] = more["spec"].clone();
        object["status"] = more["status"].clone();
        serde_json::from_value(object).unwrap()
    }

    fn nodes() -> [Party; 2] {
        [1, 2].map(|number: u8| {
            let node = Party::new(
                format!("node{number}"),
                number.into(),
                false,
                [172, 30, 0, 10 + number],
            );
            node.with_ipv6(Some(format!("fd00:172:30::1{number}").parse().unwrap()))
        })
    }

    fn pod(name: &str, addresses: &[&str]) -> Pod {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let pod = json!({
            "metadata": { "namespace": "default", "name": name },
            "status": { "podIP": addresses[0], "podIPs": ips },
        });
        Pod(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_target_is_a_host_and_a_port_however_it_is_written() {
        let of = |target: &str| {
            let Target { host, port, .. } = Target::of(target);
            format!("{host} {port}")
        };
        assert_eq!(of("10.0.0.55:80"), "10.0.0.55 80");
        assert_eq!(of("http://10.0.0.55/index"), "10.0.0.55 80");
        assert_eq!(
            of("http://blue.default.svc:8080/x"),
            "blue.default.svc 8080"
        );
        assert_eq!(of("[fd00:10::2a]:30080"), "fd00:10::2a 30080");
        assert_eq!(of("fd00:10::2a"), "fd00:10::2a 80");
        assert_eq!(of("node1"), "node1 80");
    }

    #[test]
    fn a_service_is_known_by_each_of_its_addresses_and_names() {
        let blue = service(
            "blue",
            json!({
                "spec": {
                    "clusterIPs": ["10.0.0.55", "fd00:10::37"],
                    "externalIPs": ["172.30.0.231"],
                    "ports": [{ "port": 80, "nodePort": 30080 }],
                },
                "status": { "loadBalancer": { "ingress": [{ "ip": "172.30.0.233" }] } },
            }),
        );
        let is = |target: &str| Target::of(target).is_service(&blue, &nodes());
        for target in [
            "10.0.0.55:80",
            "[fd00:10::37]:80",
            "172.30.0.231:80",
            "172.30.0.233:80",
            "172.30.0.12:30080",
            "[fd00:172:30::12]:30080",
            "127.0.0.1:30080",
            "blue.default.svc.cluster.local:80",
            "blue.default.svc",
        ] {
            assert!(is(target), "{target}");
        }
        for target in [
            "10.0.0.56:80",
            "172.30.0.12:80",
            "172.30.0.200:30080",
            "blue.default.svcs:80",
            "green.default.svc:80",
        ] {
            assert!(!is(target), "{target}");
        }
        let headless = service("bare", json!({ "spec": { "clusterIPs": ["None"] } }));
        assert!(!Target::of("10.0.0.55:80").is_service(&headless, &nodes()));
    }

    #[test]
    fn a_target_leads_to_the_pods_behind_it_or_is_one() {
        let pods = [
            pod("blue-a", &["10.1.1.2", "fd00:10:1:1::2"]),
            pod("blue-b", &["10.1.2.2"]),
            pod("nginx", &["10.1.2.3"]),
        ];
        let led = |target: &str, behind: &[&str]| {
            let behind = behind.iter().map(|it| it.parse().unwrap()).collect();
            let led = Target::of(target).led_to(&behind, &pods, &nodes());
            led.into_iter().collect::<Vec<_>>().join(" ")
        };
        let both = ["10.1.1.2", "10.1.2.2"];
        assert_eq!(led("10.0.0.55:80", &both), "blue-a blue-b");
        assert_eq!(led("[fd00:10::37]:80", &["fd00:10:1:1::2"]), "blue-a");
        assert_eq!(led("10.0.0.55:80", &[]), "");
        assert_eq!(led("10.1.2.3:80", &[]), "nginx");
        assert_eq!(led("[fd00:10:1:1::2]:80", &[]), "blue-a");
        assert_eq!(led("172.30.0.12:80", &[]), "node2");
    }

    #[test]
    fn an_endpoint_counts_ready_or_not() {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.1.1.2"], "conditions": { "ready": true } },
                { "addresses": ["10.1.2.2"], "conditions": { "ready": false } },
            ],
        });
        let slices: Vec<EndpointSlice> = vec![serde_json::from_value(slice).unwrap()];
        let both = ["10.1.1.2", "10.1.2.2"].map(|it| it.parse::<IpAddr>().unwrap());
        assert!(addresses(&slices).eq(both));
    }

    #[test]
    fn what_is_known_adds_up() {
        let known = |name: &str, node| Known {
            nodes: [(name.to_owned(), node)].into(),
            asked: [name.to_owned()].into(),
        };
        let mut all = known("blue-a", 1);
        all.extend(known("blue-b", 2));
        assert_eq!(all.asked.len(), 2);
        assert_eq!(all.nodes["blue-b"], 2);
    }
}
