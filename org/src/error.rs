use std::path::PathBuf;

use shoal_host::admin::AdminError;
use shoal_host::config::ConfigError;
use shoal_host::exit::Exit;
use shoal_host::link::LinkError;
use shoal_host::secret::SecretError;

/// Why something was not done: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrgError {
    /// What was asked cannot be done as things stand.
    #[error("{0}")]
    Refused(String),
    /// A file that cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which file it is.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file whose contents are not what they should be.
    #[error("{}: {why}", .path.display())]
    Contents {
        /// Which file it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key file or a private directory.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The network file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory of people and devices.
    #[error(transparent)]
    Directory(#[from] shoal_organisation::Error),
    /// The client by which the service runs.
    #[error(transparent)]
    Client(#[from] shoal_client::daemon::ClientError),
    /// The page of what the service did.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Totals of the service that the library for metrics does not take.
    #[error(transparent)]
    Totals(#[from] prometheus::Error),
    /// Links to authorities.
    #[error("cannot open links to the authorities")]
    Link(#[from] LinkError),
    /// Standard output, or the runtime.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl OrgError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Admin(AdminError::NotLoopback(_)) => Exit::Config,
            Self::Refused(_)
            | Self::Directory(_)
            | Self::Link(_)
            | Self::Admin(_)
            | Self::Totals(_)
            | Self::System(_) => Exit::Failed,
            Self::File { source, .. } => Exit::on_file(source),
            Self::Contents { .. } | Self::Config(_) => Exit::Config,
            Self::Secret(error) => error.exit(),
            Self::Client(error) => error.exit(),
        }
    }
}
