//! Verifying the API server's certificate as a client does.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::addresses;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::lab::Lab;

/// Limit of one connection and handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Lab {
    /// Opens a TLS connection to the API server, which it must prove to be `name` (a DNS name or an
    /// IP address) by a certificate of the cluster's CA. The inner error is the TLS library's words
    /// for a proof that does not hold.
    ///
    /// # Errors
    /// When no connection comes about: then nothing is known about the certificate.
    pub async fn verify_api_server(&self, name: &str) -> anyhow::Result<Result<(), String>> {
        let limit = self.limit(HANDSHAKE);
        let mut roots = RootCertStore::empty();
        let access = self
            .cluster()
            .access()
            .context("the cluster has no API yet")?;
        let authority = &access.authority;
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        let to = SocketAddrV4::new(addresses::node_address(1), addresses::API_PORT);
        let gateway = self.cluster().segment().gateway();
        let stream = gateway.connect(to, limit).await?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let verdict = tokio::time::timeout(limit, handshake)
            .await
            .with_context(|| format!("no TLS handshake with {to} within {} s", limit.as_secs()))?;
        match verdict {
            Ok(_) => Ok(Ok(())),
            Err(error)
                if error
                    .get_ref()
                    .is_some_and(|inner| inner.is::<rustls::Error>()) =>
            {
                Ok(Err(error.to_string()))
            }
            Err(error) => {
                Err(error).with_context(|| format!("the TLS handshake with {to} broke off"))
            }
        }
    }
}
