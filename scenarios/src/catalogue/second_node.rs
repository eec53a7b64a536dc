//! Chapter C: a second node, and static routes.

use super::{S0, S1, S3};

claims! {
    C1 shows [S0]
        "Flatten kubeconfig, copy → key and certificate embedded, no file paths.";
    C1b fails []
        "Unflattened copy alone → kubelet exits, naming the missing file; with the files → \
         registers.";
    C2 fails [S0]
        "kubelet with copied file → POST to localhost:6443 refused; Node absent.";
    C3 shows [S0]
        "Replace localhost by node 1's name → Node registers, Ready; get nodes -o wide shows \
         internal IPs, the next hops of C7.";
    C4 shows [S0]
        "Own subnet per node → Pod IPs from that subnet, all unique.";
    C5 shows [S0]
        "No etcd on node 2 → join unaffected.";
    C6 fails [S0]
        "Scale to 5 → Pods on both nodes; curl a Pod on node 2 from node 1, no route → the packet \
         takes the default route to the gateway, which drops and counts it: timed out; local Pods \
         answer.";
    C7 shows [S0]
        "Add route to 10.1.2.0/24 via node 2 on node 1 → same curl works; + the other direction \
         as the setting above says.";
    C8 shows [S0]
        "N×(N−1) routes → every ordered pair works, node→Pod and Pod→Pod; + delete one route → \
         exactly its pairs fail.";
    C9 fails [S0, S1, S3]
        "Address filter on the segment (AWS source/destination check, OpenStack port security) → \
         fails with correct routes; filter off → works; tunnel → works with filter on.";
    C10 fails [S0]
        "+ A router between nodes (no shared L2) → a route via an off-link address is refused by \
         the kernel; with onlink, ARP goes unanswered: no route to host.";
    C11 shows [S0]
        "A network daemon (kube-router or Cilium in S0; flannel here, VXLAN and host-gw) → routes \
         and forwarding entries appear without hand steps, also when a node joins or leaves; \
         daemon stopped, a route deleted → stays gone; started → back.";
    C12 fails [S0]
        "Network daemon in a cluster without kube-proxy and without the API server's address → \
         cannot reach the kubernetes ClusterIP, lays nothing; with the address → works.";
}
