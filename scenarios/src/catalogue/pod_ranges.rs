//! Chapter D: Pod ranges, which the documents give with kubenet.

use super::S1;

claims! {
    D1 shows [S1]
        "One kubeconfig with node 1's address copied to all → three Nodes."
        today "They are NotReady until a CNI file exists, then Ready; the kubeconfig has a certificate of \
               somebody who may do everything.";
    D2 fails [S1]
        "Scale to 5 with no Pod network of their own (same CNI subnet on all nodes) → two Pods \
         share an IP."
        today "It is a CNI file that gives the bridge on every node the subnet of Docker's.";
    D3 fails [S1]
        "Change the CNI subnet, restart kubelet → containers keep running with old IPs."
        today "The subnet is in a CNI file, not in the kubelet's flags; new Pods get addresses from it.";
    D4 shows [S1]
        "Delete Pods → recreated, unique IPs from the node's range.";
    D5a fails []
        "Runtime template with no Pod CIDR on the Node → no network, Node not Ready.";
    D5b shows [S1]
        "Pod CIDR by hand in spec.podCIDR → used; + overlapping ranges are accepted; + changing \
         one once set is refused.";
    D5c shows [S1]
        "By the controller manager (allocate-node-cidrs, cluster-cidr) → pairwise disjoint, \
         inside cluster-cidr, Pods get addresses from it; + what becomes of the kubelet's pod-cidr flag, \
         which is for standalone mode."
        today "It wins over that with a kubeconfig, too: the kubelet tells containerd of it.";
    D5d shows [S1]
        "The Pod CIDR is not mandatory: kubenet needs it, other plugins do not → a Node without one, whose \
         CNI file names a range, is Ready, and its Pods are in that.";
    D6 fails [S1]
        "kube-proxy, no routes → ClusterIP works sometimes; + the share of connections that \
         succeed is the share of local endpoints (connections with a limit, not SYNs).";
    D7 fails [S1]
        "ping remote Pod → fails, with its class named; Pod on the same node → works.";
    D8 fails [S1]
        "Routes, but `iptables -P FORWARD DROP` → fails; accept rule on one node only → still \
         fails; on all → works."
        today "It was Docker that set the policy; containerd leaves it alone.";
    D9 shows [S1]
        "Routes + rule → all Pods pingable from one node; ClusterIP meets the balancing rule with \
         remote backends, from a node and from a Pod.";
    D10 shows [S1]
        "kubelet killed → Node goes NotReady, its Pods still answer; started → same container \
         ids, no restart.";
}
