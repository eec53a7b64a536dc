//! Any object, given to the API as it is meant to be.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

/// Who applies, as the API notes it (server-side apply, `fieldManager`).
const MANAGER: &str = "podwire";

/// Kinds without a namespace.
const OF_THE_CLUSTER: [&str; 5] = [
    "Node",
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ServiceCIDR",
];

/// Applies an object in its full form (`apiVersion`, `kind`, `metadata`, ...); without a namespace it
/// goes to `default`. Applied, not created: a request that timed out may have been carried out.
///
/// # Errors
/// [`kube::Error`]: it is no object, the API refuses it, or does not answer.
pub async fn apply(api: Client, object: &Value) -> Result<(), kube::Error> {
    let typed: DynamicObject =
        serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let types = typed.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types);
    let kind = kind.map_err(|error| kube::Error::Service(error.into()))?;
    let resource = ApiResource::from_gvk(&kind);
    let namespace = typed.namespace().unwrap_or_else(|| "default".to_owned());
    let api: Api<DynamicObject> = if OF_THE_CLUSTER.contains(&kind.kind.as_str()) {
        Api::all_with(api, &resource)
    } else {
        Api::namespaced_with(api, &namespace, &resource)
    };
    let how = PatchParams::apply(MANAGER).force();
    api.patch(&typed.name_any(), &how, &Patch::Apply(object))
        .await?;
    Ok(())
}
