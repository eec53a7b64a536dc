//! How root on node 1 reaches the API, for programs elsewhere.

use podwire_cluster::Access;
use podwire_cluster::kubeconfig::ADMIN_PATH;

use crate::kubectl::{NODE, without_kubeconfig};
use crate::{AccessError, Exit, Shell};

/// The authority and the administrator that root's kubeconfig names, on the node that `shell` leads to:
/// [`NODE`] has one.
///
/// # Errors
/// [`AccessError::Kubeconfig`] where there is none, as before there is an API server, or it does not hold both;
/// [`AccessError`] for the session.
pub async fn administrator(shell: &Shell) -> Result<Access, AccessError> {
    let command = format!(
        "[ -e {ADMIN_PATH} ] || {{ echo '{}' >&2; exit 1; }}; \
         kubectl config view --raw --flatten --output json --kubeconfig {ADMIN_PATH}",
        without_kubeconfig()
    );
    let (exit, said, errors) = shell.capture(&command, b"").await?;
    if exit != Exit::Code(0) {
        return Err(AccessError::Kubeconfig(errors));
    }
    Access::of_kubeconfig(&said).ok_or_else(|| {
        AccessError::Kubeconfig(format!(
            "the kubeconfig of {NODE} ({ADMIN_PATH}) names no authority, or no certificate and key of a user"
        ))
    })
}
