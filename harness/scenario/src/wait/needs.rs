//! Who would have to act for a condition to hold, as data.

use std::net::Ipv4Addr;

use crate::check::party::Party;

/// Who would have to act for what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// Nobody whom one could ask: time alone.
    Time,
    /// The kubelet of this node; it must run, and be heard by the API server.
    Kubelet(u32),
    /// A component of the control plane, `kube-scheduler`.
    ControlPlane(&'static str),
    /// Whoever makes, places or starts the first of the Deployment's Pods that does not run: so many
    /// are wanted, with the label `app=NAME`.
    Deployment {
        /// Its name.
        name: String,
        /// How many of its Pods should run.
        wanted: usize,
    },
    /// The same for Pods of anybody's.
    Pods {
        /// Their namespace; all of them where it is empty.
        namespace: String,
        /// Label selector.
        labels: String,
        /// How many should run.
        wanted: usize,
    },
    /// The cluster's DNS, CoreDNS with kubeadm.
    ClusterDns,
    /// A node's kube-proxy, which must send a Service's connections to these Pods.
    KubeProxy {
        /// The node's number.
        node: u32,
        /// The Service's ClusterIP.
        service: Ipv4Addr,
        /// The Pods behind it; without any, only that it can follow is asked.
        pods: Vec<Ipv4Addr>,
    },
    /// That a command on a node prints nothing: what it prints is the reason why nothing will come.
    Silence {
        /// The node's number.
        node: u32,
        /// Command line of root's shell, which exits with 0.
        command: String,
        /// What its words mean, `its kubelet is refused`.
        means: String,
    },
    /// A way from one to the other that new connections find.
    Way {
        /// Who asks.
        from: Party,
        /// Who should answer.
        to: Party,
    },
    /// All of these; they are asked in this order.
    All(Vec<Needs>),
}

impl Needs {
    /// What a Deployment needs for so many Pods to run.
    pub fn deployment(name: impl Into<String>, wanted: usize) -> Self {
        Self::Deployment {
            name: name.into(),
            wanted,
        }
    }
}
