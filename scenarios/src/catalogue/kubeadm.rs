//! Chapter E: kubeadm, and what the whole network promises.

use super::{S3, S4};

claims! {
    E1 shows [S3]
        "Host names in every hosts file → ping both ways by name.";
    E1b shows [S3]
        "hostnamectl → survives a new login, is the Node's name.";
    E1c shows [S3]
        "Each node resolves and reaches an outside name.";
    E2 shows [S3, S4]
        "Packages kubelet, kubeadm, kubectl, kubernetes-cni present; S4: on hold. (The bundle as \
         Debian packages.)";
    E3 shows [S4]
        "init, with its ports free before (6443, 10250, 10257, 10259, 2379, 2380) and etcd's \
         folder empty → CA in pki; admin, super-admin, kubelet, controller-manager, scheduler \
         .conf, whose client certificates chain to the CA; manifests etcd, apiserver, controller \
         manager, scheduler; static Pods named COMPONENT-NODE Running; ROLES control-plane; join \
         command printed at the end; admin.conf copied for the user works.";
    E3b fails [S4]
        "6443 busy, or ip_forward 0 → init stops with exactly that check, no manifest written.";
    E3c shows [S4]
        "A CA placed in pki first → kept, signs everything; + without ca.key but with all \
         certificates → init works.";
    E3d shows [S4]
        "Config with criSocket → used; + wrong socket → preflight failure."
        today "1.34 and later keep it in the kubelet's instance-config.yaml, 1.33 in a flag of kubeadm-flags.env.";
    E4 shows [S4]
        "Reboot → systemd starts kubelet, kubelet starts the control plane.";
    E5 shows [S4]
        "Port roles: 10257, 10259, 2381 listen on loopback only; etcd's 2379 on loopback and the \
         node's address; 6443 and 10250 on all.";
    E6 shows [S4]
        "Before the Pod network CoreDNS is Pending, Unschedulable, untolerated not-ready taint; \
         after it Running, and a name lookup from a Pod works. (init creates it, not the \
         network.)";
    E7 shows [S4]
        "Pods see each other's own address (not NATed).";
    E7b shows []
        "Pod range overlapping the LAN → init accepts it, a named LAN address becomes unreachable \
         from Pods.";
    E8 shows [S3]
        "token list after init → one token, TTL under 24 h, usages authentication+signing, \
         default-node-token group; with no token → no output.";
    E9 shows [S3]
        "token create dry-run, without and with VALUE → Secret printed (token-id, token-secret, \
         expiration, both usage flags, auth-extra-groups), none stored."
        today "The dry run needs a kubeconfig.";
    E10 shows [S3]
        "token generate → 6.16 characters, nothing stored.";
    E11 shows [S3]
        "token create → Secret bootstrap-token-ID, bootstrap type, kube-system.";
    E12 fails [S3]
        "Short TTL, expired → Secret gone, its signature gone from cluster-info, join ends within \
         timeouts.discovery: no JWS signature for the token id."
        today "join polls every 5 s for 5 min by default; timeouts.discovery in JoinConfiguration \
               shortens it.";
    E13 shows [S3]
        "openssl hash of the CA public key = hash in the join command.";
    E14 shows [S3]
        "join with token and hash → phases preflight, kubelet-start, TLS bootstrap reported; \
         config.yaml, instance-config.yaml and kubeadm-flags.env written; Node Ready (the lab's \
         listing shows an age of 88 s; limit 90 s x speed factor), ROLES none, same version; \
         print-join-command works too."
        today "1.33 writes no instance-config.yaml, and does not report it; 1.34 and later do.";
    E15 fails [S3]
        "Discovery by local file or https → works; http → refused: the scheme must be https.";
    E16 fails [S3]
        "Token without hash → refused; unsafe flag → accepted.";
    E17 fails [S3]
        "+ Wrong hash → refused at once, nothing written.";
    E18 shows [S3, S4]
        "kubelet's CSR: requestor system:bootstrap:ID, signer kube-apiserver-client-kubelet, CN \
         system:node:NAME, O system:nodes, auto-approved, stored; kubelet.conf refers to it and \
         to the API address.";
    E19 shows [S3, S4]
        "Worker files: kubelet-client-current.pem symlink, serving kubelet.crt/key; pki has only \
         ca.crt, byte-equal to the control plane's; kubelet.conf 0600; no admin.conf.";
    E20 shows [S3]
        "kubelet enabled and active with drop-in 10-kubeadm.conf; its argv has \
         bootstrap-kubeconfig, kubeconfig, config; back after a kill; no CNI error in the log \
         after Node Ready.";
    E21 shows [S3]
        "One kube-proxy and one network Pod per node; sandbox ids from crictl = Pods bound to the \
         node; host-network Pods carry the node IP, CoreDNS a Pod IP.";
    E22 shows [S3]
        "Manifest into manifests/ → Pod NAME-NODE Running with an IP.";
    E22b shows [S3]
        "kubectl run dry-run → manifest printed, no Pod.";
    E23 fails [S3]
        "Delete it via API → the mirror Pod returns with another UID, container id unchanged; \
         remove the file → gone.";
    E24 shows [S3]
        "Taint control plane NoSchedule, create Deployment → its Pods only on the worker; + \
         running Pods stay."
        today "The control plane's taint is node-role.kubernetes.io/control-plane.";
    E25 fails [S3]
        "Taint again → refused without overwrite; remove taint, scale to 2 with a hard spread \
         constraint → one Pod per node, IPs from different ranges.";
    E26 shows [S3]
        "Delete Deployment → no Pods.";
    E27 shows [S3]
        "drain → unschedulable, only DaemonSet and static Pods left, a new Pod lands elsewhere."
        today "drain needs ignore-daemonsets.";
    E27b fails [S3]
        "Without ignore-daemonsets → cordoned, but refused, naming them.";
    E28 shows [S3]
        "delete node → off the list at once; its containers first stay, later vanish (Pod garbage \
         collection: allow 60 s and grace); + a kubelet restart registers the Node again.";
    E29 fails [S3]
        "join without reset → exactly FileAvailable--etc-kubernetes-kubelet.conf, Port-10250, \
         FileAvailable--etc-kubernetes-pki-ca.crt."
        today "join also checks bootstrap-kubelet.conf, ip_forward (only if the endpoint is an \
               IP) and executables. If a Ready Node of that name still exists, join refuses \
               *after* bootstrap-kubelet.conf and ca.crt are written, so the next join fails on \
               both until reset: a further negative case.";
    E30 shows [S3]
        "`join phase preflight` with ignore-preflight-errors → the same names as warnings, exit \
         0.";
    E31 shows [S3]
        "reset asks y/N (force skips): N → nothing changed (hash of the tree); y → kubelet \
         stopped, manifests, pki, /var/lib/kubelet emptied, .conf files and Kubernetes containers \
         gone, no mounts below /var/lib/kubelet.";
    E32 fails [S3]
        "reset leaves /etc/cni/net.d, rules, user kubeconfig."
        today "Also /var/lib/cni and cni0.";
    E33 shows [S3]
        "join after reset with the same token → Ready again, takes Pods; control plane can be \
         tainted again.";
    E34 fails []
        "Rejoin with another CNI subnet → sandbox fails: \"cni0\" already has an IP address \
         different from the new one; delete cni0 → Pod runs.";
    E35 shows []
        "All N Nodes Ready; curl for every ordered pair, node→Pod and Pod→Pod → each backend \
         names itself and sees the sender's own address.";
    E36 shows []
        "5 Pods on at least 2 nodes: ClusterIP from each node and from a Pod → balancing rule (a \
         Pod that gets a quarter more than its share, or a quarter less, is missed by one sender \
         in twenty at most).";
    E37 shows []
        "Drain, delete, reset, rejoin under steady traffic → the ClusterIP never fails for longer \
         than the endpoint's removal takes, every request is accounted for; drained Pods leave \
         the EndpointSlice; after the rejoin new Pod IPs are unique, E35 and E36 hold again.";
    E38 shows [S3]
        "Token as bearer → may create a CSR, read kubelet-config and kubeadm-config; + Secrets → \
         403; expired → 401.";
    E39 fails [S3]
        "token create VALUE → exactly VALUE, six data keys, id and secret are its halves; + wrong \
         form → refused.";
    E40 fails [S3]
        "Discovery URL whose certificate the host does not trust → TLS failure; CA installed → \
         works.";
    E41 shows [S3]
        "Different discovery and TLS tokens → works; + second without authentication usage → \
         refused.";
    E42 shows [S3, S4]
        "Worker's config.yaml = ConfigMap kubelet-config apart from kubeadm's local overrides.";
    E43 shows [S3]
        "After join bootstrap-kubelet.conf is gone.";
    E44 shows [S3]
        "Worker reset: what it says about etcd."
        today "The document's text is gone: what it says now is asserted as it is.";
    E45 shows [S3]
        "init and join show the lab's warnings."
        today "They are gone; 1.35 and later → ContainerRuntimeVersion warning of containerd 1.7 at init \
               and join, no error; 1.33 and 1.34 warn of nothing.";
}
