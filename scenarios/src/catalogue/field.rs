//! Chapter F: what breaks in the field.

claims! {
    F1 shows ["flannel-io/flannel#1999", "projectcalico/calico#8953"]
        "Transfers of 1 MiB, by Pod address and by ClusterIP, over every ordered pair of nodes, \
         both directions: digests equal. Sabotages: a silent MTU hole on one node, in the tunnel, \
         \"fragmentation needed\" dropped.";
    F2 shows []
        "The path: a request between nodes crosses the wire once, from the sender's port to the \
         receiver's; between Pods of one node not at all; nothing for Pods or Services reaches \
         the gateway. Sabotages: a wrong neighbour entry (the detour still answers), a route \
         through a third node, a second SYN, a copy of what stays within a node, what goes past \
         kube-proxy's rules.";
    F3 shows ["kubernetes/kubernetes#87426"]
        "A Service asked from every node and a Pod of every node, own Pod included (hairpin). \
         Sabotages: bridge filtering off on any one node; hairpin off on one port.";
    F4 shows ["kubernetes/kubernetes#139628", "kubernetes/kubernetes#141371"]
        "UDP: a Service spreads over its Pods; a client that keeps its source port follows when \
         its endpoint goes, when none is left, when the Service is deleted."
        today "Up to 1.36.4 a flow goes on to its former endpoint where none is left, or the Service \
               is deleted.";
    F5 shows ["kubernetes/kubernetes#131765", "k0sproject/k0s#5760"]
        "NodePort from outside and from every node, traffic policy Cluster and Local with the \
         client address that each promises; externalIPs; a load balancer's address from inside. \
         Sabotage: a node without an endpoint that answers under Local."
        today "kube-proxy knows that a Pod is inside by `clusterCIDR`: without it, as by hand, a Pod on a \
               node without an endpoint counts as outside.";
    F6 shows ["kubernetes/kubernetes#110302"]
        "Session affinity: one Pod while it lives, another soon after it is gone, and after its \
         time-out.";
    F7 shows []
        "Scale to zero: refused at once, not hanging; back: answers.";
    F8 shows []
        "hostPort answers on its node's address, and is gone with its Pod.";
    F9 shows ["coredns/coredns#6586"]
        "Names: a Service, a headless Service that follows a rollout, a Pod, a name outside, from \
         a Pod of every node (default profile where there is a cluster DNS).";
    F10 shows []
        "Egress by TCP, UDP, ICMP and DNS from a Pod of every node: answered, and seen as the \
         node's address (or the Pod's, where the setting says so).";
    F11 shows ["rancher/rke2#10469", "k0sproject/k0s#2908"]
        "A node's rules flushed, as a firewall's reload does: what comes back by itself, after \
         how long, in each mode; what does not."
        today "kube-proxy 1.36 looks every half minute in its iptables mode; in its nftables mode it \
               notices once something about a Service changes, or after an hour. What hides Pods from \
               the outside comes back where flannel keeps it, in seconds, and by hand never.";
    F12 shows ["systemd/systemd#25451", "flannel-io/flannel#1434"]
        "networkd restarted, reloaded, its link reconfigured, taken down and up: routes and rules \
         as before."
        today "networkd has to be told that they are not its own (`ManageForeignRoutes=no`) and to keep \
               the lease meanwhile (`KeepConfiguration=`): with a card's last address the kernel drops \
               all of its routes. What is typed by hand does not outlive a link that goes down.";
    F13 shows ["kubernetes/kubernetes#109811"]
        "kube-proxy and the network's daemon restarted; kube-proxy's mode changed; under steady \
         traffic of new TCP, kept TCP, fixed-port UDP: lost, longest gap, cause; nothing left of \
         the old mode."
        today "kube-proxy 1.36 takes its other mode's rules away when it starts, before it has its own: \
               new connections fail meanwhile.";
    F14 shows ["flannel-io/flannel#1795", "containernetworking/plugins#252"]
        "A worker reboots; a worker loses its power: Pods back, addresses unique, no leaked \
         reservation, no stale neighbour or forwarding entry.";
    F15 shows ["flannel-io/flannel#2554"]
        "A Node that left while the network's daemon was down leaves no route, neighbour or \
         forwarding entry."
        today "flannel 0.28.9 undoes what it is told of, and compares nothing when it starts: they stay.";
    F16 shows ["containernetworking/plugins#858"]
        "A new Pod that takes over an address is reachable at once, from its own node and from \
         others."
        today "The bridge plugin 1.9.1 announces it to nobody: the node's entry for the Pod before \
               lives on for up to a minute, and so long nobody reaches the new one through it.";
    F17 shows ["kubernetes/kubernetes#33618", "k3s-io/k3s#72"]
        "A second card, a second address: Node address, routes and tunnel use the ones meant.";
    F18 shows ["containernetworking/plugins#629"]
        "A foreign CNI file that sorts first is noticed.";
    F19 shows []
        "Strict reverse-path filtering, FORWARD policy DROP, a full conntrack table, a node's \
         wrong clock: each named as what it is.";
    F20 shows []
        "IPv6: dual-stack (`--ip-families dual`): E35, E36, F1, F3, F5, F9 in both families.";
}
