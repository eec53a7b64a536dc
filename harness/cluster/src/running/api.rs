//! The Kubernetes API over the segment: no port on the host, no route, no proxy.

use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt as _;
use kube::config::{AuthInfo, Config};
use podwire_lan::{GatewayHandle, LanError, SegmentStream};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tower::{BoxError, Service, ServiceBuilder};

use crate::parts::credentials::Access;
use crate::parts::kubeconfig::server;
use crate::plan::addresses::{API_PORT, api_address};

/// A client of the API as its administrator. It verifies the server as `node1`.
///
/// `limit` is for each connection, and for the time from a request to the beginning of its answer.
pub(crate) fn client(
    gateway: &GatewayHandle,
    access: &Access,
    limit: Duration,
) -> Result<kube::Client, kube::Error> {
    let uri = server().parse::<http::Uri>();
    let mut config = Config::new(uri.map_err(|error| kube::Error::HttpError(error.into()))?);
    let ca = CertificateDer::from_pem_slice(access.authority.as_bytes());
    let ca = ca.map_err(|error| kube::Error::Service(error.to_string().into()))?;
    config.root_cert = Some(vec![ca.to_vec()]);
    config.auth_info = AuthInfo {
        client_certificate_data: Some(STANDARD.encode(&access.admin.certificate)),
        client_key_data: Some(STANDARD.encode(&access.admin.key).into()),
        ..AuthInfo::default()
    };
    let to = SegmentConnector {
        gateway: gateway.clone(),
        to: SocketAddrV4::new(api_address(), API_PORT),
        limit,
    };
    let https = config.rustls_https_connector_with_connector(to)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .timeout(limit)
        .map_err(BoxError::from)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace))
}

/// What every request of [`none`] ends with.
const NONE: &str = "the stage that this cluster is a clone of has no API server yet: control-plane is \
                    the first by hand that has one, init the first with kubeadm";

/// The client of a cluster that has no API yet: every request fails, and says so.
pub(crate) fn none() -> kube::Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(BoxError::from(NONE))
    });
    kube::Client::new(service, "default")
}

/// Dials one fixed address through the gateway, whatever the URI says: its host is for TLS.
#[derive(Clone)]
struct SegmentConnector {
    gateway: GatewayHandle,
    to: SocketAddrV4,
    limit: Duration,
}

impl Service<http::Uri> for SegmentConnector {
    type Response = ApiStream;
    type Error = LanError;
    type Future = Pin<Box<dyn Future<Output = Result<ApiStream, LanError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LanError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self { gateway, to, limit } = self.clone();
        Box::pin(async move {
            let stream = gateway.connect(to, limit).await?;
            Ok(ApiStream(TokioIo::new(stream)))
        })
    }
}

/// A segment's stream as hyper wants it.
struct ApiStream(TokioIo<SegmentStream>);

impl Connection for ApiStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for ApiStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for ApiStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// An error with all its causes, in one line: kube's own text ends before the interesting part.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// Whether the API server says that it is ready; its words when it is not.
pub(crate) async fn ready(api: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    match api.request_text(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failing_checks(&error)),
    }
}

/// Whether the API server has understood a request and will never carry it out: a bad request, or an
/// invalid object. Others (conflict, too many, not there yet) pass.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
}

/// The failing checks of `/readyz?verbose`'s text, `[-]etcd failed: ...`, without the passing ones.
pub(crate) fn failing_checks(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return chain(error);
    };
    let failing = status.message.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("[-]")?.split_once(' ')?;
        Some(name)
    });
    let failing: Vec<&str> = failing.collect();
    if failing.is_empty() {
        return status.message.clone();
    }
    format!("not ready: {}", failing.join(", "))
}

impl fmt::Debug for SegmentConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SegmentConnector").field(&self.to).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use kube::Api;

    #[tokio::test]
    async fn a_cluster_without_an_api_server_says_so() {
        let refused = Api::<Node>::all(none()).get("node1").await.unwrap_err();
        assert!(chain(&refused).contains(NONE), "{refused:?}");
    }

    #[test]
    fn an_invalid_object_is_refused_for_good_and_a_busy_server_is_asked_again() {
        let of = |code: u16| {
            let status = kube::core::Status::failure("", "").with_code(code);
            is_refused(&kube::Error::Api(Box::new(status)))
        };
        assert!(of(400) && of(422));
        assert!(!of(404) && !of(409) && !of(429) && !of(500));
    }

    #[test]
    fn only_the_failing_checks_are_told() {
        let message = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: \
                       reason withheld\nreadyz check failed";
        let status = kube::core::Status::failure(message, "");
        let error = kube::Error::Api(Box::new(status));
        assert_eq!(
            failing_checks(&error),
            "not ready: etcd, poststarthook/rbac"
        );
    }
}
