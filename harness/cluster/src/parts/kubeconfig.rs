//! Kubeconfigs. JSON, which every reader of YAML takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pki::Identity;
use crate::plan::addresses::{API_NAME, API_PORT};

/// The kubelet's, on every node.
pub const KUBELET_PATH: &str = "/etc/kubernetes/kubelet.conf";
/// kube-proxy's, on every node.
pub const KUBE_PROXY_PATH: &str = "/etc/kubernetes/kube-proxy.conf";
/// kube-router's, on every node.
pub const KUBE_ROUTER_PATH: &str = "/var/lib/kube-router/kubeconfig";
/// The controller manager's, on node 1.
pub const CONTROLLER_MANAGER_PATH: &str = "/etc/kubernetes/controller-manager.conf";
/// The scheduler's, on node 1.
pub const SCHEDULER_PATH: &str = "/etc/kubernetes/scheduler.conf";
/// kubectl's, on node 1.
pub const ADMIN_PATH: &str = "/root/.kube/config";

/// `https://node1:6443`.
pub fn server() -> String {
    format!("https://{API_NAME}:{API_PORT}")
}

/// One file with everything in it: what `kubectl config view --flatten` makes.
pub fn embedded(server: &str, ca: &str, identity: &Identity) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    config(
        json!({ "server": server, "certificate-authority-data": data(ca) }),
        json!({
            "client-certificate-data": data(&identity.certificate),
            "client-key-data": data(&identity.key),
        }),
    )
}

/// One that names the files which hold the certificates and the key.
pub fn with_files(server: &str, ca: &str, certificate: &str, key: &str) -> String {
    config(
        json!({ "server": server, "certificate-authority": ca }),
        json!({ "client-certificate": certificate, "client-key": key }),
    )
}

fn config(cluster: Value, user: Value) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "podwire", "cluster": cluster }],
        "users": [{ "name": "podwire", "user": user }],
        "contexts": [{ "name": "podwire", "context": { "cluster": "podwire", "user": "podwire" } }],
        "current-context": "podwire",
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_embeds_and_one_names_files() {
        let identity = Identity {
            certificate: "CERTIFICATE".into(),
            key: "KEY".into(),
        };
        insta::assert_snapshot!(embedded(&server(), "CA", &identity), @r#"
        {
          "apiVersion": "v1",
          "clusters": [
            {
              "cluster": {
                "certificate-authority-data": "Q0E=",
                "server": "https://node1:6443"
              },
              "name": "podwire"
            }
          ],
          "contexts": [
            {
              "context": {
                "cluster": "podwire",
                "user": "podwire"
              },
              "name": "podwire"
            }
          ],
          "current-context": "podwire",
          "kind": "Config",
          "users": [
            {
              "name": "podwire",
              "user": {
                "client-certificate-data": "Q0VSVElGSUNBVEU=",
                "client-key-data": "S0VZ"
              }
            }
          ]
        }
        "#);
        insta::assert_snapshot!(with_files("https://localhost:6443", "/ca", "/crt", "/key"), @r#"
        {
          "apiVersion": "v1",
          "clusters": [
            {
              "cluster": {
                "certificate-authority": "/ca",
                "server": "https://localhost:6443"
              },
              "name": "podwire"
            }
          ],
          "contexts": [
            {
              "context": {
                "cluster": "podwire",
                "user": "podwire"
              },
              "name": "podwire"
            }
          ],
          "current-context": "podwire",
          "kind": "Config",
          "users": [
            {
              "name": "podwire",
              "user": {
                "client-certificate": "/crt",
                "client-key": "/key"
              }
            }
          ]
        }
        "#);
    }
}
