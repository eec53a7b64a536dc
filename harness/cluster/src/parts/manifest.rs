//! How a Pod network that is a manifest is applied.

use super::file::NodeFile;

/// Where the manifest is written, on node 1.
const PATH: &str = "/root/podwire/pod-network.yaml";
/// Applies it by the API server, which takes definitions that are too large for an annotation, and
/// checks it as well: kubectl would first fetch the description of every kind, which takes an emulated
/// API server longer than kubectl waits. Where it defines resources and uses them at once, it is
/// applied again when they are known.
pub(crate) const APPLY: &str = "cd /root/podwire && apply() { \
     kubectl apply --server-side --validate=false -f pod-network.yaml; } && { apply || { \
     kubectl wait --for=condition=Established --all --timeout=60s crd && apply; }; }";

/// The manifest where [`APPLY`] looks for it.
pub(crate) fn file(text: &str) -> NodeFile {
    NodeFile {
        path: PATH.to_owned(),
        mode: 0o644,
        text: text.to_owned(),
    }
}
