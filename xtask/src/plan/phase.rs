//! The parts of a run, and what each usually takes.

use serde::{Deserialize, Serialize};

/// The parts of the main job, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    PodNetwork,
    Packages,
    Tools,
    BaseImage,
    Accelerator,
    Bundle,
    /// What is left of [`Phase::Bundle`] when the cache has all of it that is not the user's own.
    OwnBundle,
    NodeImage,
    KubeRouter,
    ConformanceTests,
    PodImages,
    Programs,
    HarnessTests,
    Layer,
    Stage,
    Scenarios,
}

impl Phase {
    /// All that every run has which brings neither a Pod network nor programs.
    pub(crate) const ALL: [Self; 10] = [
        Self::Packages,
        Self::Tools,
        Self::BaseImage,
        Self::Accelerator,
        Self::Bundle,
        Self::NodeImage,
        Self::Programs,
        Self::HarnessTests,
        Self::Stage,
        Self::Scenarios,
    ];

    /// Its name in the plan, in `results.json` and in the table of measured times.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PodNetwork => "pod network",
            Self::Packages => "packages",
            Self::Tools => "tools",
            Self::BaseImage => "base image",
            Self::Accelerator => "accelerator",
            Self::Bundle => "bundle",
            Self::OwnBundle => "own bundle",
            Self::NodeImage => "node image",
            Self::KubeRouter => "kube-router",
            Self::ConformanceTests => "conformance tests",
            Self::PodImages => "pod images",
            Self::Programs => "test programs",
            Self::HarnessTests => "harness tests",
            Self::Layer => "image layer",
            Self::Stage => "stage",
            Self::Scenarios => "scenarios",
        }
    }

    /// What it is for, for somebody who sees the plan for the first time.
    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::PodNetwork => "pull the manifest's container images",
            Self::Packages => "system packages: emulator, image tools",
            Self::Tools => "cargo-nextest and the Go toolchain, pinned, in the cache",
            Self::BaseImage => "a small guest without Kubernetes",
            Self::Accelerator => "boot that guest: does KVM work here, how fast is it",
            Self::Bundle => "Kubernetes, etcd, CoreDNS, CNI plugins, flannel",
            Self::OwnBundle => "your own programs among the cached ones",
            Self::NodeImage => {
                "the machines' disk: Debian, containerd, the bundle, its container images"
            }
            Self::KubeRouter => "a network daemon that scenarios start on nodes",
            Self::ConformanceTests => "Kubernetes' own tests of a network, from its Go module",
            Self::PodImages => {
                "container images that are built here: a Pod network's daemon, what tests run"
            }
            Self::Programs => "compile the tests and scenarios",
            Self::HarnessTests => "test switch and machines with real guests, without Kubernetes",
            Self::Layer => "one machine imports the manifest's container images",
            Self::Stage => "boot the machines, start Kubernetes, freeze the clusters",
            Self::Scenarios => "each in its own clone of a frozen cluster",
        }
    }

    /// Seconds when nothing is cached, on two cores: with KVM, and emulated. Of one clone, for the
    /// scenarios.
    pub(super) fn seconds(self) -> (f64, f64) {
        match self {
            Self::PodNetwork | Self::Packages | Self::BaseImage => (60.0, 60.0),
            Self::Tools | Self::Bundle => (420.0, 420.0),
            Self::Accelerator => (5.0, 30.0),
            Self::OwnBundle => (20.0, 20.0),
            Self::NodeImage | Self::KubeRouter => (150.0, 150.0),
            Self::ConformanceTests => (360.0, 360.0),
            Self::PodImages => (200.0, 200.0),
            Self::Programs => (120.0, 120.0),
            Self::HarnessTests => (30.0, 150.0),
            Self::Layer => (30.0, 150.0),
            Self::Stage => (60.0, 240.0),
            Self::Scenarios => (4.0, 20.0),
        }
    }

    /// Whether more cores make it faster.
    pub(super) fn compiles(self) -> bool {
        matches!(
            self,
            Self::Tools
                | Self::Bundle
                | Self::KubeRouter
                | Self::ConformanceTests
                | Self::PodImages
                | Self::Programs
        )
    }

    /// MiB that stay on disk when it is done, and MiB that it needs beside them meanwhile, when it is
    /// not cached; what the machines' memory takes is not in it.
    pub(super) fn disk_mib(self) -> (u64, u64) {
        match self {
            Self::PodNetwork => (500, 500),
            Self::Packages => (700, 300),
            Self::Tools => (50, 900),
            Self::BaseImage => (250, 700),
            Self::Accelerator => (0, 100),
            // Go's modules stay, its build cache goes.
            Self::Bundle => (2400, 3200),
            Self::OwnBundle => (800, 100),
            Self::NodeImage => (1700, 4000),
            Self::KubeRouter => (900, 1000),
            Self::ConformanceTests => (600, 3000),
            Self::PodImages => (1100, 1500),
            Self::Programs => (2500, 0),
            Self::HarnessTests => (50, 1500),
            Self::Layer => (1000, 1000),
            Self::Stage => (100, 100),
            Self::Scenarios => (300, 500),
        }
    }
}

/// One phase of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseRecord {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    /// Whether the cache had what it makes.
    pub(crate) cached: bool,
}
