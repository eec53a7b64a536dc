//! Kubeconfigs. JSON, which every reader of YAML takes.

use std::net::SocketAddrV4;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::credentials::Access;
use super::pki::Identity;
use crate::plan::addresses::{API_NAME, API_PORT, api_address};

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
    config(
        json!({ "server": server, "certificate-authority-data": data(ca) }),
        embedded_user(identity),
    )
}

/// The same for whoever reaches the API server at an address that its certificate does not name: it is verified
/// as [`API_NAME`] all the same.
pub fn through(address: SocketAddrV4, access: &Access) -> String {
    config(
        json!({
            "server": format!("https://{address}"),
            "tls-server-name": API_NAME,
            "certificate-authority-data": data(&access.authority),
        }),
        embedded_user(&access.admin),
    )
}

/// The same for whoever asks for the API server at its own address by an HTTP proxy (kubectl's `proxy-url`).
pub fn by_proxy(proxy: SocketAddrV4, access: &Access) -> String {
    config(
        json!({
            "server": format!("https://{}", api_socket()),
            "proxy-url": format!("http://{proxy}"),
            "certificate-authority-data": data(&access.authority),
        }),
        embedded_user(&access.admin),
    )
}

/// Where the API server listens: `172.30.0.11:6443`.
pub fn api_socket() -> SocketAddrV4 {
    SocketAddrV4::new(api_address(), API_PORT)
}

fn embedded_user(identity: &Identity) -> Value {
    json!({
        "client-certificate-data": data(&identity.certificate),
        "client-key-data": data(&identity.key),
    })
}

fn data(pem: &str) -> String {
    STANDARD.encode(pem)
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
    #[test]
    fn one_verifies_the_server_by_its_own_name_wherever_it_is_reached() {
        let access = Access {
            authority: "CA".into(),
            admin: Identity {
                certificate: "CERTIFICATE".into(),
                key: "KEY".into(),
            },
        };
        let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 45123);
        let text = through(address, &access);
        let written: Value = serde_json::from_str(&text).unwrap();
        let cluster = &written["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://127.0.0.1:45123");
        assert_eq!(cluster["tls-server-name"], "node1");
        assert_eq!(Access::of_kubeconfig(&text), Some(access));
    }
}
