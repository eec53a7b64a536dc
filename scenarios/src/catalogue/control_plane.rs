//! Chapter A: the control plane by hand.

use super::{S0, S1, S2};

claims! {
    A1 fails [S2]
        "Start kube-apiserver unprivileged → permission complaint about /var/run/kubernetes.";
    A2 fails [S2]
        "As root, no flags → exits, naming etcd-servers, service-account-issuer, \
         service-account-signing-key-file."
        today "Also service-account-key-file, or the signing endpoint.";
    A3 shows [S2]
        "Make SA key, CA key, self-signed CA certificate with the image's openssl → enough for A9 \
         (+ a v3 CA without basicConstraints is refused as issuer).";
    A4 shows [S2]
        "Start etcd without flags → client port answers on localhost.";
    A5 shows [S2]
        "apiserver with five flags (etcd, SA sign key, issuer, SA key, client CA) → TLS on 6443, \
         own serving certificate generated.";
    A6 fails [S2]
        "kubectl without kubeconfig → refused at localhost:8080.";
    A6b fails [S2]
        "Plain HTTP to 6443 → 400 \"HTTP request to an HTTPS server\".";
    A7 fails [S2]
        "curl https without CA → unknown-certificate failure.";
    A8 fails [S2]
        "Insecure curl, no client certificate → 401 Status object (+ with RBAC and anonymous on: \
         403).";
    A9 shows [S2]
        "With CA key and certificate as client → list of API paths."
        today "With Node,RBAC the authority is known by its name, and gets 403.";
    A10 shows [S2]
        "Client certificate signed by the CA → accepted; + foreign CA → 401; + the document's own \
         command (`x509 -new -force_pubkey`, issuer = subject) → 401."
        today "With Node,RBAC the CA's client is known by its name: 403; a foreign CA's is 401 as well.";
    A11 fails [S2]
        "Without client-ca-file → no X.509 client can authenticate (ServiceAccount tokens still \
         do)."
        today "With Node,RBAC and anonymous on, who shows a certificate is anonymous: 403.";
    A12 shows [S2]
        "Kubeconfig from set-cluster (server, skip verification), set-credentials, set-context, \
         use-context → expected YAML; namespaces list default and kube-system."
        today "Also kube-public and kube-node-lease; with Node,RBAC kubectl is forbidden to list them.";
    A13 fails [S2]
        "Create Deployment, no controller manager → Deployment exists, zero ReplicaSets, zero \
         Pods.";
    A14 shows [S2]
        "Start controller manager → one ReplicaSet, its Pods Pending, nodeName empty, no \
         PodScheduled condition.";
    A15 fails [S2]
        "Ready node, no scheduler → Pod Pending, nodeName empty.";
    A16 shows [S2]
        "Start scheduler → bound, Running; the objects of A13 converge without being created \
         again.";
    A17 shows [S1]
        "apiserver on all addresses → reachable from node 2; component statuses healthy; node \
         list empty. Sabotage: bind-address 127.0.0.1."
        today "All addresses are the default; component statuses are deprecated, and still \
               served.";
    A18 shows [S0]
        "Serving certificate with SANs (kubernetes, .default, .default.svc, localhost, host name; \
         + the Service IP, without which in-Pod calls fail) → verified TLS without the skip flag; \
         + a name outside the SANs fails.";
    A19 fails [S0]
        "No root-ca-file at the controller manager, whose kubeconfig carries no CA → CA file in \
         Pods empty, in-Pod API calls fail verification; with the flag they pass. + A kubeconfig \
         with an embedded CA fills it.";
    A20 shows [S1]
        "ServiceAccount admission plugin off → Pods run without a token volume; on → with one.";
    A21 shows [S2]
        "etcd over TLS with its own key pair, given to the apiserver → works; + apiserver without \
         etcd-cafile → TLS failure, not ready.";
    A22 shows [S2, S0]
        "Node,RBAC and a certificate for each component and node → A13-A16, B6, B13 hold; + the \
         scheduler's certificate may not write Secrets → 403.";
}
