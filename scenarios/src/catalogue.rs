//! The catalogue: every observation that a scenario can be asked for, by its id.
//!
//! An id is a constant, [`E35`] say, so that one that does not exist does not compile in a scenario's
//! `covers`. docs/scenarios.md is made of it ([`page()`]).
//!
//! In the sentences, what stands before an arrow is done and what stands behind it is seen; `+` begins
//! what the documents do not show and only imply.

#![expect(
    non_upper_case_globals,
    reason = "an id is the same everywhere: E27b in results is E27b here"
)]

use podwire_scenario::Claim;

/// A constant for each entry, and a list of them all, in the order in which they stand.
///
/// An entry is `ID shows [SOURCES] "sentence";`, or `fails` instead of `shows` for a failure shown on
/// purpose. `today "..."` says how today's Kubernetes differs; `NAME = "id"` is for an id that is no
/// Rust name.
macro_rules! claims {
    (@id $name:ident) => { stringify!($name) };
    (@id $name:ident $id:literal) => { $id };
    (@failure shows) => { false };
    (@failure fails) => { true };
    (@today) => { None };
    (@today $today:literal) => { Some($today) };
    ($(
        $name:ident $(= $id:literal)? $kind:ident [$($source:expr),*]
            $sentence:literal $(today $today:literal)?;
    )*) => {
        $(
            #[doc = $sentence]
            pub const $name: &podwire_scenario::Claim = &podwire_scenario::Claim {
                id: claims!(@id $name $($id)?),
                sources: &[$($source),*],
                failure: claims!(@failure $kind),
                sentence: $sentence,
                today: claims!(@today $($today)?),
            };
        )*

        pub(super) const CLAIMS: &[&podwire_scenario::Claim] = &[$($name),*];
    };
}

mod beyond;
mod control_plane;
mod field;
mod kubeadm;
mod one_node;
mod page;
mod pod_ranges;
mod second_node;

pub use beyond::*;
pub use control_plane::*;
pub use field::*;
pub use kubeadm::*;
pub use one_node::*;
pub use page::{PAGE, page};
pub use pod_ranges::*;
pub use second_node::*;

const S0: &str = "S0";
const S1: &str = "S1";
const S2: &str = "S2";
const S3: &str = "S3";
const S4: &str = "S4";

/// What the sources are that have no other name.
const DOCUMENTS: [(&str, &str); 5] = [
    (S0, "course, \"Adding nodes to the cluster\": a second node, static routes"),
    (S1, "course, \"Adding nodes to the cluster\": three nodes, kubenet"),
    (S2, "course, \"Building a 1-node cluster\": one node, by hand"),
    (
        S3,
        "lab, \"Kubernetes cluster expansion using kubeadm\": tokens, join, taints, drain, reset, \
         rejoin",
    ),
    (S4, "notes on an installation with kubeadm and Calico"),
];

/// Entries that belong together.
struct Chapter {
    title: &'static str,
    /// What holds for all of them; may be empty.
    note: &'static str,
    claims: &'static [&'static Claim],
}

const CHAPTERS: [Chapter; 6] = [
    Chapter {
        title: "A. Control plane by hand",
        note: "Authorization mode and anonymous access change what an unauthenticated request gets: \
               A8 to A12 are about the document's default mode (AlwaysAllow, in which today's apiserver \
               switches anonymous off).",
        claims: control_plane::CLAIMS,
    },
    Chapter { title: "B. One node by hand", note: "", claims: one_node::CLAIMS },
    Chapter {
        title: "C. Second node, static routes",
        note: "With the document's ipMasq=true a reply finds its way by masquerading: one missing \
               route breaks one direction. With ipMasq=false it breaks both. Every scenario here \
               names its setting, and \"exactly its pairs\" follows it; both are asserted. \
               ipMasq=true contradicts E7, since the bridge plugin masquerades everything that leaves \
               the node's own /24: E7 and B11 use ipMasq=false and one cluster-wide rule. With a \
               filter of sources only, the packet that C9 drops is the *reply*: destinations are to be \
               filtered too, as AWS does.",
        claims: second_node::CLAIMS,
    },
    Chapter {
        title: "D. Pod ranges (kubenet)",
        note: "Dockershim, kubenet and its no-op networking are gone: D1 to D5 are about \
               containerd, CNI subnets and containerd's `conf_template`, which follows spec.podCIDR.",
        claims: pod_ranges::CLAIMS,
    },
    Chapter {
        title: "E. kubeadm",
        note: "kubeadm gives no exit codes that tell failures apart: names of checks are compared.",
        claims: kubeadm::CLAIMS,
    },
    Chapter {
        title: "F. What breaks in the field",
        note: "From reports of people who run such networks. Every entry is to be shown in every \
               cell that can have it, in both of kube-proxy's modes.",
        claims: field::CLAIMS,
    },
];

const BEYOND: Chapter = Chapter {
    title: "Beyond documents and reports",
    note: "The harness's own promises, and the end of chapter E's story in a cluster by hand. They do \
           not count among the entries above.",
    claims: beyond::CLAIMS,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_covered_ones_are_in_the_catalogue() {
        let mut ids = BTreeSet::new();
        for claim in CHAPTERS.iter().chain([&BEYOND]).flat_map(|it| it.claims) {
            assert!(ids.insert(claim.id), "{} twice", claim.id);
        }
        for scenario in crate::all() {
            for id in scenario.ids() {
                assert!(ids.contains(id), "{} covers {id}", scenario.name);
            }
        }
    }

    #[test]
    fn an_entry_says_what_the_macro_was_told() {
        assert_eq!((E2.id, E2.sources), ("E2", &[S3, S4][..]));
        assert_eq!((E2.failure, E27b.failure), (false, true));
        assert_eq!(IDENTITY.id, "clones: identity");
        assert_eq!(E32.today, Some("Also /var/lib/cni and cni0."));
        assert_eq!(E33.today, None);
    }
}
