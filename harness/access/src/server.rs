//! Serving a running cluster.

use std::io::{self, SeekFrom};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podwire_cluster::{Cluster, Node};
use podwire_lan::{GatewayHandle, LanError, RulesHandle, Segment, SegmentStream, TapsHandle};
use time::OffsetDateTime;
use tokio::fs::File;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::protocol::{self, Answer, Request};
use crate::socket::Socket;
use crate::{AccessError, Description, NodeAddress, wire};

const SSH_PORT: u16 = 22;
/// How much of the console's past a new reader gets.
const CONSOLE_TAIL: u64 = 16 << 10;
/// How long a line on the console may take to be seen.
const CONSOLE_POLL: Duration = Duration::from_millis(100);
/// Name of the recorded console in the folder of a node's machine.
const CONSOLE: &str = "console.log";

/// What is served, apart from the cluster itself.
#[derive(Debug, Clone)]
pub struct Served {
    /// What it is, see [`Description::what`].
    pub what: String,
    /// The file with the private SSH key of the nodes' root.
    pub user_key: PathBuf,
    /// For a node to accept a connection.
    pub limit: Duration,
}

/// An open way into a running cluster: a socket in a folder. It closes when dropped, and every
/// connection with it.
pub struct Door {
    serving: JoinHandle<()>,
    description: Description,
    // After the task: nobody accepts any more when the file goes.
    _socket: Arc<Socket>,
}

impl Door {
    /// Serves a cluster in `dir`, which must exist, on the present runtime.
    ///
    /// # Errors
    /// [`AccessError::Taken`] when another is served there; [`AccessError::Folder`],
    /// [`AccessError::Socket`].
    pub fn open(cluster: &Cluster, dir: &Path, served: &Served) -> Result<Self, AccessError> {
        let room = |node: &Node| Room {
            node: NodeAddress {
                name: node.name().to_owned(),
                address: node.address(),
            },
            host_key: node.host_key().to_owned(),
            console: cluster.dir().join(node.name()).join(CONSOLE),
        };
        let rooms = cluster.nodes().iter().map(room).collect();
        let router = cluster.router().map(room);
        Self::to(rooms, router, cluster.segment(), dir, served)
    }

    /// Serves these nodes of a segment, and a router, as [`Door::open`] does those of a cluster.
    ///
    /// # Errors
    /// As [`Door::open`].
    pub fn to(
        rooms: Vec<Room>,
        router: Option<Room>,
        segment: &Segment,
        dir: &Path,
        served: &Served,
    ) -> Result<Self, AccessError> {
        let house = House {
            rooms,
            router,
            user_key: served.user_key.clone(),
            limit: served.limit,
            dialler: segment.gateway(),
            rules: segment.rules(),
            taps: segment.taps(),
        };
        Self::of(house, dir, &served.what)
    }

    pub(crate) fn of<D: Dial>(
        house: House<D>,
        dir: &Path,
        what: &str,
    ) -> Result<Self, AccessError> {
        let socket = Arc::new(Socket::bind(dir)?);
        let description = Description {
            what: what.to_owned(),
            started: OffsetDateTime::now_utc().unix_timestamp(),
            pid: std::process::id(),
            nodes: house.rooms.iter().map(|room| room.node.clone()).collect(),
            router: house.router.as_ref().map(|room| room.node.clone()),
        };
        let serving = tokio::spawn(serve(
            Arc::clone(&socket),
            Arc::new(house),
            description.clone(),
        ));
        Ok(Self {
            serving,
            description,
            _socket: socket,
        })
    }

    /// What it says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// How a node is reached.
pub(crate) trait Dial: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    fn dial(
        &self,
        to: SocketAddrV4,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Stream, LanError>> + Send;
}

impl Dial for GatewayHandle {
    type Stream = SegmentStream;

    async fn dial(&self, to: SocketAddrV4, limit: Duration) -> Result<SegmentStream, LanError> {
        self.connect(to, limit).await
    }
}

/// What a door leads to.
pub(crate) struct House<D> {
    pub(crate) rooms: Vec<Room>,
    pub(crate) router: Option<Room>,
    pub(crate) user_key: PathBuf,
    pub(crate) limit: Duration,
    pub(crate) dialler: D,
    pub(crate) rules: RulesHandle,
    pub(crate) taps: TapsHandle,
}

/// One machine behind a door.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its name and address.
    pub node: NodeAddress,
    /// Its SSH host key (OpenSSH public key line); empty for a machine without one that is known, a router:
    /// it has a console only.
    pub host_key: String,
    /// The file with what it prints on its serial line.
    pub console: PathBuf,
}

async fn serve<D: Dial>(socket: Arc<Socket>, house: Arc<House<D>>, description: Description) {
    // Ends with this task.
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (house, description) = (Arc::clone(&house), description.clone());
                    visits.spawn(async move { house.receive(stream, description).await });
                }
                // Out of descriptors, for one: it may pass.
                Err(_) => tokio::time::sleep(CONSOLE_POLL).await,
            },
            Some(_) = visits.join_next() => {}
        }
    }
}

impl<D: Dial> House<D> {
    async fn receive(&self, stream: UnixStream, description: Description) {
        let mut stream = BufReader::new(stream);
        // A visitor who leaves, or breaks down, is no trouble of the house.
        let _ = match protocol::read(&mut stream).await {
            Ok(Request::Describe) => {
                protocol::write(&mut stream, &Answer::Description(description)).await
            }
            Ok(Request::Ssh { node }) => self.ssh(&node, &mut stream).await,
            Ok(Request::Console { node }) => self.console(&node, &mut stream).await,
            Ok(Request::Dial { node, port }) => self.dial(&node, port, &mut stream).await,
            Ok(Request::Attend) => attend(&mut stream).await,
            Ok(Request::Wire(request)) => match self.wire(request) {
                Ok(report) => protocol::write(&mut stream, &Answer::Rules(report)).await,
                Err(error) => refuse(&mut stream, &error).await,
            },
            Ok(Request::Capture { node, filter }) => match self.tap(node.as_deref(), &filter) {
                Ok(tap) => wire::capture(tap, &mut stream).await,
                Err(error) => refuse(&mut stream, &error).await,
            },
            Err(error) => refuse(&mut stream, &error).await,
        };
    }

    async fn ssh(&self, node: &str, stream: &mut BufReader<UnixStream>) -> Result<(), AccessError> {
        let room = match self.room(node) {
            Ok(room) => room,
            Err(error) => return refuse(stream, &error).await,
        };
        if room.host_key.is_empty() {
            let reason = format!(
                "{node} has no SSH host key of its own, by which it could be told from any other machine: \
                 there is its console alone"
            );
            return refuse(stream, &AccessError::Refused(reason)).await;
        }
        let answer = Answer::Ssh {
            user_key: self.user_key.clone(),
            host_key: room.host_key.clone(),
        };
        self.carry(room, SSH_PORT, answer, stream).await
    }

    async fn dial(
        &self,
        node: &str,
        port: u16,
        stream: &mut BufReader<UnixStream>,
    ) -> Result<(), AccessError> {
        match self.room(node) {
            Ok(room) => self.carry(room, port, Answer::Dial, stream).await,
            Err(error) => refuse(stream, &error).await,
        }
    }

    /// Connects to a port of a machine, answers, and carries bytes both ways until both have ended.
    async fn carry(
        &self,
        room: &Room,
        port: u16,
        answer: Answer,
        stream: &mut BufReader<UnixStream>,
    ) -> Result<(), AccessError> {
        let to = SocketAddrV4::new(room.node.address, port);
        let mut far = match self.dialler.dial(to, self.limit).await {
            Ok(far) => far,
            Err(error) => {
                let reason = format!("{} cannot be reached: {error}", room.node.name);
                return refuse(stream, &AccessError::Refused(reason)).await;
            }
        };
        protocol::write(stream, &answer).await?;
        let _ = tokio::io::copy_bidirectional(stream, &mut far).await;
        Ok(())
    }

    async fn console(
        &self,
        node: &str,
        stream: &mut BufReader<UnixStream>,
    ) -> Result<(), AccessError> {
        let room = match self.room(node) {
            Ok(room) => room,
            Err(error) => return refuse(stream, &error).await,
        };
        let record = match tail(&room.console).await {
            Ok(record) => record,
            Err(error) => {
                let reason = format!("the console of {node} cannot be read: {error}");
                return refuse(stream, &AccessError::Refused(reason)).await;
            }
        };
        protocol::write(stream, &Answer::Console).await?;
        follow(record, stream).await.map_err(AccessError::closed)
    }

    pub(crate) fn room(&self, node: &str) -> Result<&Room, AccessError> {
        let rooms = || self.rooms.iter().chain(&self.router);
        let room = rooms().find(|room| room.node.name == node);
        room.ok_or_else(|| {
            let names: Vec<&str> = rooms().map(|room| room.node.name.as_str()).collect();
            let names = names.join(", ");
            AccessError::Refused(format!("there is no node `{node}`; there are: {names}"))
        })
    }
}

async fn refuse(
    stream: &mut BufReader<UnixStream>,
    error: &AccessError,
) -> Result<(), AccessError> {
    let reason = error.to_string();
    protocol::write(stream, &Answer::Refused { reason }).await
}

/// Holds the connection until the visitor leaves: the cluster's end ends it before.
async fn attend(stream: &mut BufReader<UnixStream>) -> Result<(), AccessError> {
    protocol::write(stream, &Answer::Attend).await?;
    let mut ignored = tokio::io::sink();
    let _ = tokio::io::copy(stream, &mut ignored).await;
    Ok(())
}

/// Opens a record before its last lines.
async fn tail(path: &Path) -> io::Result<File> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    if length > CONSOLE_TAIL {
        // From the next line on: a reader's terminal is not to begin in the middle of a sequence.
        let start = length - CONSOLE_TAIL;
        file.seek(SeekFrom::Start(start)).await?;
        let mut last = Vec::new();
        (&mut file)
            .take(CONSOLE_TAIL)
            .read_to_end(&mut last)
            .await?;
        let line = last.iter().position(|byte| *byte == b'\n');
        let skipped = line.map_or(0, |at| at as u64 + 1);
        file.seek(SeekFrom::Start(start + skipped)).await?;
    }
    Ok(file)
}

/// Sends a growing file on until its reader leaves. What the reader sends is not for the machine:
/// nobody logs in there, and the serial line's other end belongs to the recorder.
async fn follow(mut record: File, stream: &mut BufReader<UnixStream>) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut ignored = [0; 256];
    loop {
        let count = record.read(&mut buffer).await?;
        if let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(CONSOLE_POLL) => {}
            read = stream.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
}
