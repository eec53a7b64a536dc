//! What the documents do not show, and a scenario does: the harness's own promises, names of Services, and
//! the end of chapter E's story in a cluster by hand.

claims! {
    IDENTITY = "clones: identity" shows []
        "Clone one booted machine into the nodes → no id, address, key or random number in common.";
    CONNECTIONS = "clones: connections" shows []
        "Freeze a cluster and wake a clone of it → an open connection goes on, no byte is lost.";
    EVIDENCE = "harness: evidence" shows []
        "Take a node's link away → its evidence is collected all the same.";
    SHORT_HOLE = "harness: short hole" shows []
        "Take away what a Pod asks another for 200 ms (20 ms under KVM), under steady traffic → the wire shows \
         a gap of that length, and none otherwise, however slow the guests are.";
    TWO_SEGMENTS = "nodes: two segments" shows []
        "Nodes that share no segment, and a router between them → every ordered pair answers, and each \
         packet crosses each segment once, by the router; the router forwards nothing, or lets nothing of \
         Pods and tunnels through → pairs of different segments time out.";
    HOST_GW = "nodes: host-gw on two segments" fails []
        "flannel's host-gw between nodes that share no segment → its daemon is refused the route, whose \
         next hop is off the link: exactly the pairs of different segments time out; with routes by way of \
         the router they answer.";
    HEADLESS = "names: headless" shows []
        "Ask for the name of a headless Service → exactly its ready Pods, through a scale-down and a \
         rollout.";
    UPGRADE = "kubeadm: upgrade" shows []
        "Upgrade a cluster by one minor version, `kubeadm upgrade plan`, `apply` and `node`, control plane first, \
         worker by worker with drain → who uses Services whose Pods stay loses no request, no open connection and \
         no datagram's way; E35 and E36 hold after each step; every component is the newer one.";
    HIGHLY_AVAILABLE = "kubeadm: control planes" shows []
        "Join two more control plane nodes by `kubeadm join --control-plane` with uploaded certificates, behind a \
         balancer, and cut the power of the one that leads → the API takes writes again after an election, and who uses \
         Services whose Pods stay loses no request; etcd with two members takes no write while one of them stands still.";
    E27_BY_HAND = "E27 by hand" shows []
        "drain, as in E27, in a cluster by hand → no Pod of a Deployment left on the node.";
    E28_BY_HAND = "E28 by hand" shows []
        "delete node, as in E28, in a cluster by hand → off the list.";
    E33_BY_HAND = "E33 by hand" shows []
        "Wipe the node and join it again, as after E33's reset, in a cluster by hand → Ready again, \
         takes Pods.";
}
