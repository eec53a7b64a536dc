//! Whose settings a cluster's components run with, by the class of the accelerator and nothing else:
//! the same stage is built whatever a measurement said.

use std::fmt;

use podwire_vm::Accelerator;

/// What components are told beyond what the cluster needs. docs/idle.md lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// Nothing: they do what they do when nothing is set. Under KVM.
    OwnDefaults,
    /// To do little while nothing happens, and to wait longer for each other. In emulated guests.
    Idle,
}

impl Settings {
    /// Those for an accelerator.
    pub const fn of(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Kvm(_) => Self::OwnDefaults,
            Accelerator::Tcg => Self::Idle,
        }
    }

    /// What is set for emulated guests only.
    pub(crate) fn idle<T>(self, setting: T) -> Option<T> {
        match self {
            Self::OwnDefaults => None,
            Self::Idle => Some(setting),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OwnDefaults => "own defaults",
            Self::Idle => "idle (docs/idle.md)",
        })
    }
}

/// kubelet `runtimeRequestTimeout`, seconds: one call to containerd. Its own is 120.
pub(crate) const RUNTIME_REQUEST: u32 = 600;
/// kubelet `nodeStatusUpdateFrequency`, seconds. Its own is 10.
pub(crate) const NODE_STATUS_UPDATE: u32 = 20;
/// kubelet `nodeLeaseDurationSeconds`; renewed at a quarter of it. Its own is 40.
pub(crate) const NODE_LEASE: u32 = 120;
/// Controller manager `--node-monitor-grace-period`, seconds: silence after which a Node is Unknown.
/// Its own is 50.
pub(crate) const NODE_MONITOR_GRACE: u32 = 150;
/// systemd `TimeoutStartSec` of the daemons, seconds. Its own is 90.
pub(crate) const DAEMON_START: u32 = 600;
/// Each of kubeadm's `timeouts`, seconds. Its own are 60 to 300.
pub(crate) const KUBEADM: u32 = 1200;
/// How often the kubelet asks a static Pod of kubeadm's whether it is ready, seconds. kubeadm says 1.
pub(crate) const READINESS_PERIOD: u32 = 10;
/// How often it asks whether it is alive, seconds. kubeadm says 10.
pub(crate) const LIVENESS_PERIOD: u32 = 30;
/// `GOMAXPROCS` of the daemons: how many of their threads run at once. Left to Go, idle threads look
/// for work before they sleep, and wake each other for it.
pub(crate) const GO_MAX_PROCS: u32 = 1;
/// systemd `TimerSlackNSec`, which every process inherits. Go's runtime sleeps for 20 microseconds at
/// a time while it looks for work: with the usual 50 of slack that is thousands of wake-ups a second,
/// which an emulated guest cannot spare.
pub(crate) const TIMER_SLACK: &str = "5ms";
