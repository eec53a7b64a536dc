//! A port of a node on this host's loopback, or a proxy to it.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podwire_cluster::addresses::{API_NAME, API_PORT};
use podwire_cluster::{Access, kubeconfig};
use rustix::net::sockopt::set_socket_linger;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{AccessError, Link};

/// How many connections are carried at once.
pub(crate) const MOST: usize = 64;

/// How long to wait where a connection cannot be taken: this process is out of descriptors, for one.
const AGAIN: Duration = Duration::from_millis(100);

/// A listener on the loopback of this host that leads to a port of a node. It closes when dropped, and
/// every connection with it. Whoever is on this host can use it: what there is to prove is up to the port.
pub struct Forward {
    listener: TcpListener,
    address: SocketAddrV4,
    dir: PathBuf,
    node: String,
    port: u16,
    by_proxy: bool,
}

impl Forward {
    /// Listens for the cluster that is served in `dir`, at `local` or at a port that the kernel chooses.
    ///
    /// # Errors
    /// [`AccessError::Listen`].
    pub async fn open(
        dir: &Path,
        node: &str,
        port: u16,
        local: Option<u16>,
    ) -> Result<Self, AccessError> {
        let asked = SocketAddrV4::new(Ipv4Addr::LOCALHOST, local.unwrap_or(0));
        let failed = |source| AccessError::Listen {
            address: asked,
            source,
        };
        let listener = TcpListener::bind(asked).await.map_err(failed)?;
        let address = match listener.local_addr().map_err(failed)? {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => asked,
        };
        Ok(Self {
            listener,
            address,
            dir: dir.to_owned(),
            node: node.to_owned(),
            port,
            by_proxy: false,
        })
    }

    /// An HTTP proxy to the API server instead (RFC 9110, CONNECT), and to nothing else: for clients that verify
    /// the server by the address that they ask for, whatever their kubeconfig says.
    ///
    /// # Errors
    /// As [`Forward::open`].
    pub async fn proxy(dir: &Path) -> Result<Self, AccessError> {
        let forward = Self::open(dir, API_NAME, API_PORT, None).await?;
        Ok(Self {
            by_proxy: true,
            ..forward
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The administrator's kubeconfig by way of this listener: a file in the cluster's folder, this user's alone,
    /// that goes with the value.
    ///
    /// # Errors
    /// [`AccessError::Folder`].
    pub fn kubeconfig(&self, access: &Access) -> Result<NamedTempFile, AccessError> {
        let write = || {
            let mut file = tempfile::Builder::new()
                .prefix("kubeconfig-")
                .suffix(".json")
                .tempfile_in(&self.dir)?;
            let text = match self.by_proxy {
                false => kubeconfig::through(self.address, access),
                true => kubeconfig::by_proxy(self.address, access),
            };
            file.write_all(text.as_bytes())?;
            Ok(file)
        };
        write().map_err(|source| AccessError::Folder {
            doing: "write a kubeconfig into the folder",
            path: self.dir.clone(),
            source,
        })
    }

    /// Carries connections both ways, each way until its end, as long as the cluster runs. `tell` gets
    /// a sentence for each that does not come about, and for those that have to wait: up to 64 are carried
    /// at once, and the next ones are taken when these end.
    ///
    /// # Errors
    /// [`AccessError`] when the cluster cannot be reached at all.
    pub async fn carry(self, mut tell: impl FnMut(&str)) -> Result<(), AccessError> {
        let Some(link) = Link::open(&self.dir).await? else {
            return Ok(());
        };
        let mut ended = std::pin::pin!(link.attend());
        // Ends with this future.
        let mut carried = JoinSet::new();
        loop {
            tokio::select! {
                ended = &mut ended => return ended,
                accepted = self.listener.accept(), if carried.len() < MOST => match accepted {
                    Ok((mut stream, _)) => {
                        let (dir, node) = (self.dir.clone(), self.node.clone());
                        let (port, by_proxy) = (self.port, self.by_proxy);
                        carried.spawn(async move {
                            match by_proxy && !connects(&mut stream).await {
                                true => Ok(()),
                                false => carry(stream, dir, node, port).await,
                            }
                        });
                        if carried.len() == MOST {
                            tell(&format!("{MOST} connections are open; the next waits until one of them ends"));
                        }
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                },
                Some(done) = carried.join_next() => if let Ok(Err(error)) = done {
                    tell(&error.to_string());
                },
            }
        }
    }
}

/// How long a request for a connection may be, and may take.
const REQUEST: usize = 8 << 10;
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// What ends a request's head.
const END: &[u8] = b"\r\n\r\n";

/// Whether a client asks its proxy for the API server; others are told that it is for nothing else.
async fn connects(near: &mut TcpStream) -> bool {
    let head = async {
        let mut head = Vec::new();
        while !head.ends_with(END) && head.len() < REQUEST {
            head.push(near.read_u8().await?);
        }
        Ok::<_, io::Error>(head)
    };
    let Ok(Ok(head)) = timeout(REQUEST_LIMIT, head).await else {
        return false;
    };
    let known = format!("CONNECT {} HTTP/1.1\r\n", kubeconfig::api_socket());
    let is_known = head.starts_with(known.as_bytes()) && head.ends_with(END);
    let answer: &[u8] = match is_known {
        true => b"HTTP/1.1 200 Connected\r\n\r\n",
        false => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    };
    near.write_all(answer).await.is_ok() && is_known
}

async fn carry(
    mut near: TcpStream,
    dir: PathBuf,
    node: String,
    port: u16,
) -> Result<(), AccessError> {
    let carried = async {
        // Each piece is as large as its sender made it: nothing is gained by waiting for more.
        let _ = near.set_nodelay(true);
        let Some(link) = Link::open(&dir).await? else {
            return Ok(false);
        };
        let mut far = link.dial(&node, port).await?;
        let copied = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        Ok(copied.is_ok())
    };
    let carried = carried.await;
    if !matches!(carried, Ok(true)) {
        // It is to see that this is no end of its peer's.
        let _ = set_socket_linger(&near, Some(Duration::ZERO));
    }
    carried.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use podwire_cluster::Identity;

    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_is_the_user_s_alone_and_goes_with_whoever_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access {
            authority: "CA".into(),
            admin: Identity {
                certificate: "CERTIFICATE".into(),
                key: "KEY".into(),
            },
        };
        let forward = Forward::open(dir.path(), "node1", 6443, None)
            .await
            .unwrap();
        let file = forward.kubeconfig(&access).unwrap();
        let path = file.path().to_owned();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, kubeconfig::through(forward.address(), &access));
        drop(file);
        assert!(!path.exists());
    }

    /// What a proxy says to a request's head, and whether it takes the connection for one to the API server.
    async fn asked(head: &str) -> (String, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let is_known = connects(&mut server).await;
        drop(server);
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        (
            answer.lines().next().unwrap_or_default().to_owned(),
            is_known,
        )
    }

    #[tokio::test]
    async fn a_proxy_leads_to_the_api_server_and_to_nobody_else() {
        let request = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let (answer, is_known) = asked(&request("172.30.0.11:6443")).await;
        assert!(is_known && answer == "HTTP/1.1 200 Connected", "{answer}");
        for other in [
            &request("172.30.0.11:22"),
            &request("169.254.169.254:80"),
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            let (answer, is_known) = asked(other).await;
            assert!(
                !is_known && answer == "HTTP/1.1 403 Forbidden",
                "{other}: {answer}"
            );
        }
        let (_, is_known) = asked(&format!("CONNECT {}", "x".repeat(REQUEST))).await;
        assert!(!is_known);
    }
}
