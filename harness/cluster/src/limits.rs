//! Waiting times, and what else of the guests' settings follows the machine's speed.
//!
//! They come from a fixed table, by the class of the accelerator and nothing else, so that the same
//! stage is built whatever a measurement said.

use podwire_vm::Accelerator;

/// One column of the table. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLimits {
    /// kubelet `runtimeRequestTimeout`: one call to containerd.
    pub runtime_request: u32,
    /// kubelet `nodeStatusUpdateFrequency`.
    pub node_status_update: u32,
    /// kubelet `nodeLeaseDurationSeconds`; renewed at a quarter of it.
    pub node_lease: u32,
    /// Controller manager `--node-monitor-grace-period`: silence after which a Node is Unknown.
    pub node_monitor_grace: u32,
    /// systemd `TimeoutStartSec` of the daemons.
    pub daemon_start: u32,
    /// Each of kubeadm's `timeouts`.
    pub kubeadm: u32,
    /// How often the kubelet asks a static Pod of kubeadm's whether it is ready.
    pub readiness_period: u32,
    /// How often it asks whether it is alive.
    pub liveness_period: u32,
    /// `GOMAXPROCS` of the daemons: how many of their threads run at once. `None` leaves it to Go,
    /// whose idle threads look for work before they sleep, and wake each other for it.
    pub go_max_procs: Option<u32>,
}

impl GuestLimits {
    /// The column for an accelerator. Under KVM, the components' own defaults.
    pub const fn of(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Kvm => Self {
                runtime_request: 120,
                node_status_update: 10,
                node_lease: 40,
                node_monitor_grace: 50,
                daemon_start: 90,
                kubeadm: 240,
                readiness_period: 1,
                liveness_period: 10,
                go_max_procs: None,
            },
            Accelerator::Tcg => Self {
                runtime_request: 600,
                node_status_update: 20,
                node_lease: 120,
                node_monitor_grace: 150,
                daemon_start: 600,
                kubeadm: 1200,
                readiness_period: 10,
                liveness_period: 30,
                go_max_procs: Some(1),
            },
        }
    }
}
