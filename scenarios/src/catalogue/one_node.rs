//! Chapter B: one node by hand.

use super::S2;

claims! {
    B0 fails []
        "kubelet without root → permission denied, exit not 0. (cgroup v1 would stop it earlier: \
         guests have v2.)";
    B1 fails [S2]
        "kubelet, no engine → error names containerd.sock.";
    B2 fails [S2]
        "Invalid containerd config → exit not 0, error names file and position, no socket.";
    B3 fails [S2]
        "CRI disabled in config → socket exists, kubelet fails with unknown service \
         runtime.v1.RuntimeService.";
    B4 fails [S2]
        "kubelet systemd, containerd cgroupfs (a runtime without RuntimeConfig) → sandboxes \
         killed again and again: ids change at least twice, SandboxChanged events."
        today "A containerd from 2.0 on tells the kubelet its driver, which the kubelet then takes \
               (RuntimeConfig); 1.7 does not.";
    B4b fails []
        "The reverse → its own, different error.";
    B5 fails [S2]
        "kubelet by flags without kubeconfig → standalone: runs, no Node object; + static Pods \
         still run; + a config file with webhook defaults dies instead, saying so."
        today "The flags that the documents know are all deprecated, and still taken.";
    B6 shows [S2]
        "With kubeconfig → Node object.";
    B7 fails [S2]
        "No CNI config → Ready=False naming NetworkPluginNotReady until it is fixed; a Pod bound \
         to the node stays ContainerCreating with NetworkNotReady; a host-network Pod beside it \
         runs.";
    B8 shows [S2]
        "Write bridge + host-local file → Ready within a named limit, kubelet's and containerd's \
         PIDs unchanged."
        today "containerd watches the folder.";
    B8b fails [S2]
        "Malformed file → still NotReady, log names it; corrected in place → Ready.";
    B9 shows [S2]
        "10-a.conf and 20-b.conf with different subnets → Pods in 10-a's; renamed → new Pods in \
         the other's.";
    B10 shows [S2]
        "curl Pod IP from node → answer; IP inside the node's /24.";
    B11 shows [S2]
        "exec ping from Pod to an outside address → works (ipMasq): the outside host sees the \
         node's address; + ipMasq off → it sees the Pod's. exec itself proves apiserver→kubelet.";
    B12 fails [S2]
        "Expose Deployment, kube-proxy never started → ClusterIP times out (not refused): SYNs \
         leave by the default route, the Pod IP answers, the EndpointSlice is not empty. + \
         Stopping a running kube-proxy leaves its rules and a working ClusterIP; its `--cleanup` \
         kills it.";
    B13 shows [S2]
        "Start kube-proxy → ClusterIP answers.";
    B14 shows [S2]
        "Scale up → requests spread over Pods by the balancing rule.";
    B15 shows [S2]
        "kubectl logs and exec work without an apiserver→kubelet certificate in the document's \
         open mode; + then anonymous curl of :10250/pods from another node → 200; with client CA \
         and webhook → 401.";
}
