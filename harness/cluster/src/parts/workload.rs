//! The workload: Deployment and Service `blue`.

use serde_json::{Value, json};

use crate::plan::ip_families::IpFamilies;

/// Name of the Service and the Deployment.
pub const WORKLOAD_SERVICE: &str = "blue";
/// Label selector of its Pods.
pub const WORKLOAD_SELECTOR: &str = "app=blue";
/// Image of its Pods, imported into the node image: `/probe`.
pub const WORKLOAD_IMAGE: &str = "podwire.invalid/probe:1";
/// Pods per node.
pub const REPLICAS_PER_NODE: u32 = 2;

/// The Deployment: as many Pods on every node as on any other, give or take one.
pub fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": WORKLOAD_SERVICE, "labels": { "app": WORKLOAD_SERVICE } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": WORKLOAD_SERVICE } },
            "template": {
                "metadata": { "labels": { "app": WORKLOAD_SERVICE } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    // There is no cluster DNS yet: each kubelet would say so in an event per Pod
                    // and minute.
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": 2,
                    // A cordoned node has no say: its empty share would keep the others from
                    // taking what is evicted from it.
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "nodeTaintsPolicy": "Honor",
                        "labelSelector": { "matchLabels": { "app": WORKLOAD_SERVICE } },
                    }],
                    "containers": [{
                        "name": "probe",
                        "image": WORKLOAD_IMAGE,
                        "imagePullPolicy": "Never",
                        "command": ["/probe", "serve"],
                        "ports": [{ "containerPort": 80 }],
                    }],
                },
            },
        },
    })
}

/// The Service in front of it, port 80, by each family that the cluster has.
pub fn service(families: IpFamilies) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": WORKLOAD_SERVICE },
        "spec": {
            "selector": { "app": WORKLOAD_SERVICE },
            "ports": [{ "port": 80, "targetPort": 80 }],
        },
    });
    if families.is_dual() {
        service["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    }
    service
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Service;

    use super::IpFamilies;

    #[test]
    fn the_manifests_are_what_the_api_takes() {
        let deployment: Deployment = serde_json::from_value(super::deployment(6)).unwrap();
        for families in IpFamilies::ALL {
            let service: Service = serde_json::from_value(super::service(families)).unwrap();
            let service = serde_json::to_value(service).unwrap();
            assert_eq!(service, super::service(families));
        }
        assert_eq!(
            serde_json::to_value(deployment).unwrap(),
            super::deployment(6)
        );
    }
}
