//! `status`: a Unix socket that answers every connection with one JSON document and closes. Whoever may open
//! the socket (mode 0600, in a directory of mode 0700) may read it.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: sockets and timers.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::secret::{SecretError, private_directory};
use crate::start::Boxed;

/// Answers at a time; one more is closed at once.
const CONNECTIONS: usize = 8;
/// How long an answer may take, on either side.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that `query` reads, in bytes.
const LONGEST: u64 = 1 << 20;

/// The longest path of a socket, in bytes (unix(7): 108 with the zero at its end).
pub const LONGEST_PATH: usize = 107;

/// Why there is no socket, or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The system cannot name it.
    #[error(
        "the path of the socket {} has {} bytes, and it may have {LONGEST_PATH}: choose a shorter `runtime_dir`",
        .0.display(),
        .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Another daemon answers there.
    #[error("another daemon runs with the socket {}: stop it, or give this one a path of its own", .0.display())]
    Running(PathBuf),
    /// Something that is no socket is there.
    #[error("{} is in the way: it is no socket, so it is not replaced", .0.display())]
    InTheWay(PathBuf),
    /// The directory is not ours alone.
    #[error(transparent)]
    Directory(#[from] SecretError),
    /// The socket cannot be made.
    #[error("cannot make the socket {}", .0.display())]
    Bind(PathBuf, #[source] io::Error),
    /// Nobody answers at the socket.
    #[error("no daemon runs with the control socket {}: start it, or name the right configuration", .0.display())]
    NotRunning(PathBuf),
    /// The daemon does not answer in time.
    #[error("the daemon at {} does not answer", .0.display())]
    Silent(PathBuf),
    /// No answer for another reason.
    #[error("cannot ask the daemon at {}", .0.display())]
    Query(PathBuf, #[source] io::Error),
}

/// Says whether there can be a control socket of this path, for whoever checks a configuration.
///
/// # Errors
/// Its path is too long.
pub fn check_path(path: &Path) -> Result<(), ControlError> {
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(ControlError::TooLong(path.to_owned()));
    }
    Ok(())
}

/// A Unix socket that a daemon serves, mode 0600; dropping it closes and removes it.
pub struct Socket {
    path: PathBuf,
    inode: u64,
    task: AbortHandle,
}

impl Socket {
    /// Handles each connection to `path`. A socket that a killed daemon left is replaced; its directory is made if it is missing.
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub async fn serve<F, A>(path: &Path, handle: F) -> Result<Self, ControlError>
    where
        F: Fn(UnixStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        check_path(path)?;
        private_directory(
            path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?;
        let bind = |error| ControlError::Bind(path.to_owned(), error);
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(ControlError::InTheWay(path.to_owned()));
            }
            if UnixStream::connect(path).await.is_ok() {
                return Err(ControlError::Running(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(bind)?;
        }
        let listener = UnixListener::bind(path).map_err(bind)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(bind)?;
        let inode = std::fs::symlink_metadata(path).map_err(bind)?.ino();
        let task = tokio::spawn(accept(listener, handle)).abort_handle();
        Ok(Self { path: path.to_owned(), inode, task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        // Unless a successor has put its own there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn accept<F, A>(listener: UnixListener, handle: F)
where
    F: Fn(UnixStream) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, as a rule: try again when some may be free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::spawn(handle(stream));
    }
}

/// The control socket of a daemon; dropping it closes and removes it.
pub struct Control {
    _socket: Socket,
}

impl Control {
    /// Answers at `path` with what `status` makes, as [`Socket::serve`] does.
    ///
    /// # Errors
    /// As for [`Socket::serve`].
    pub async fn start<F, A>(path: &Path, status: F) -> Result<Self, ControlError>
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Value> + Send + 'static,
    {
        let (status, permits) = (Arc::new(status), Arc::new(Semaphore::new(CONNECTIONS)));
        let socket = Socket::serve(path, move |mut stream| {
            let (status, permit) = (status.clone(), permits.clone().try_acquire_owned());
            async move {
                let Ok(_permit) = permit else { return };
                let _ = tokio::time::timeout(PATIENCE, async {
                    let answer = format!("{}\n", status().await);
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await
                })
                .await;
            }
        });
        Ok(Self { _socket: socket.await? })
    }
}

/// Asks the daemon whose control socket is `path`.
///
/// # Errors
/// When none runs there, or it does not answer as it should.
pub fn query(path: &Path) -> Boxed<'_, Result<Value, ControlError>> {
    Box::pin(ask(path))
}

async fn ask(path: &Path) -> Result<Value, ControlError> {
    check_path(path)?;
    let asking = async {
        let mut answer = Vec::new();
        UnixStream::connect(path).await?.take(LONGEST).read_to_end(&mut answer).await?;
        serde_json::from_slice(&answer).map_err(io::Error::from)
    };
    match tokio::time::timeout(PATIENCE + PATIENCE / 2, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning(path.to_owned())
            }
            io::ErrorKind::UnexpectedEof => ControlError::Silent(path.to_owned()),
            _ => ControlError::Query(path.to_owned(), error),
        }),
        Err(_) => Err(ControlError::Silent(path.to_owned())),
    }
}
