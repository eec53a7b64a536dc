//! Faults that a whole run carries on purpose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A fault built into one step, wherever that step runs: `--break NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Break {
    /// The route from node 1 to node 2's Pods is never added.
    Route,
    /// kube-proxy runs, but its kubeconfig leads to a port where nothing listens.
    KubeProxy,
    /// Every node hands out Pod addresses from node 1's range.
    PodRange,
    /// The API server's certificate lacks the names of the Service `kubernetes`. The names that
    /// components dial stay: the cluster itself works.
    San,
}

impl Break {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Route, Self::KubeProxy, Self::PodRange, Self::San];

    fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::KubeProxy => "kube-proxy",
            Self::PodRange => "pod-range",
            Self::San => "san",
        }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no fault's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a fault that can be built in: route, kube-proxy, pod-range, san")]
pub struct UnknownBreak(String);

impl FromStr for Break {
    type Err = UnknownBreak;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|each| each.name() == text);
        found.ok_or_else(|| UnknownBreak(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_the_name_it_shows_and_serialises_to() {
        for each in Break::ALL {
            assert_eq!(each.to_string().parse(), Ok(each));
            assert_eq!(serde_json::to_value(each).unwrap(), each.to_string());
        }
        assert!(
            "routes"
                .parse::<Break>()
                .unwrap_err()
                .to_string()
                .contains("kube-proxy")
        );
    }
}
