//! The API server's certificate: verified as a client does, and replaced.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use podwire_cluster::{Break, addresses, units};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::lab::Lab;

/// Limit of one connection and handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Lab {
    /// The names and addresses under which clients may verify the API server.
    pub fn serving_names(&self) -> Vec<String> {
        addresses::serving_names()
    }

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
        let to = SocketAddrV4::new(addresses::api_address(), addresses::API_PORT);
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

    /// Gives the API server of a cluster by hand the certificate that it would have with this fault
    /// built in. It reads the pair again when either file changes; a pair that does not match in
    /// between is refused and the old one kept.
    ///
    /// # Errors
    /// When node 1 does not carry it out, or kubeadm made the cluster: its CA's key is on its nodes
    /// only.
    pub async fn write_serving_certificate(&self, fault: Break) -> anyhow::Result<()> {
        let replacement = self.cluster().pki()?.serving_certificate(Some(fault))?;
        let node1 = self.node(1);
        node1
            .write_secret(units::SERVING_KEY, &replacement.key)
            .await?;
        node1
            .write(units::SERVING_CERTIFICATE, &replacement.certificate)
            .await
    }
}
