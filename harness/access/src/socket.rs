//! The Unix socket in a run's folder.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, open, unlinkat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::{UnixListener, UnixStream};

use crate::AccessError;

/// Its name in the run's folder.
pub const FILE: &str = "access.sock";

const BACKLOG: i32 = 64;

/// A folder by descriptor: a socket's path holds 107 bytes at most (unix(7)), which a run's folder
/// may well exceed.
struct Folder(OwnedFd);

impl Folder {
    fn open(dir: &Path) -> Result<Self, AccessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(dir, flags, Mode::empty());
        opened.map(Self).map_err(|errno| AccessError::Folder {
            doing: "open the folder",
            path: dir.to_owned(),
            source: errno.into(),
        })
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{FILE}", self.0.as_raw_fd()))
    }
}

/// A listening socket; its file goes when it is dropped.
pub(crate) struct Socket {
    folder: Folder,
    pub(crate) listener: UnixListener,
}

impl Socket {
    /// Only the user may connect, from the first moment on.
    pub(crate) fn bind(dir: &Path) -> Result<Self, AccessError> {
        let folder = Folder::open(dir)?;
        let failed = |doing: &'static str| {
            move |source: io::Error| AccessError::Socket {
                doing,
                dir: dir.to_owned(),
                source,
            }
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| failed("make")(errno.into()))?;
        // Linux gives the file the mode that the socket has when it is bound.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed("restrict")(errno.into()))?;
        let address =
            SocketAddrUnix::new(folder.socket()).map_err(|errno| failed("name")(errno.into()))?;
        bind(&socket, &address).map_err(|errno| match errno {
            rustix::io::Errno::ADDRINUSE => AccessError::Taken {
                dir: dir.to_owned(),
            },
            other => failed("bind")(other.into()),
        })?;
        listen(&socket, BACKLOG).map_err(|errno| failed("listen on")(errno.into()))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed("listen on"))?;
        Ok(Self { folder, listener })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone with its folder, perhaps.
        let _ = unlinkat(&self.folder.0, FILE, AtFlags::empty());
    }
}

/// Connects to the socket in a folder; `None` when nobody listens there, or whoever did has ended
/// before taking the connection.
pub(crate) async fn connect(dir: &Path) -> Result<Option<UnixStream>, AccessError> {
    let folder = Folder::open(dir)?;
    match UnixStream::connect(folder.socket()).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(AccessError::Socket {
            doing: "connect to",
            dir: dir.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_the_users_alone_wherever_its_folder_is_and_goes_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(200));
        fs::create_dir(&deep).unwrap();
        assert!(connect(&deep).await.unwrap().is_none());

        let socket = Socket::bind(&deep).unwrap();
        let mode = fs::metadata(deep.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(connect(&deep).await.unwrap().is_some());
        assert!(matches!(
            Socket::bind(&deep),
            Err(AccessError::Taken { .. })
        ));

        drop(socket);
        assert!(!deep.join(FILE).exists());
    }

    #[tokio::test]
    async fn a_socket_whose_process_was_killed_counts_as_nobody() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(FILE)).unwrap());
        assert!(dir.path().join(FILE).exists());
        // A child that another test starts holds a copy of the socket until it runs its program.
        while connect(dir.path()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_socket_whose_process_ends_while_somebody_connects_counts_as_nobody() {
        // The kernel resets what nobody has taken: whether that meets the connection is chance, so often.
        for _ in 0..300 {
            let dir = tempfile::tempdir().unwrap();
            let listener = std::os::unix::net::UnixListener::bind(dir.path().join(FILE)).unwrap();
            let ending = std::thread::spawn(move || drop(listener));
            connect(dir.path()).await.unwrap();
            ending.join().unwrap();
        }
    }
}
