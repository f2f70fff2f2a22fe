//! The program around the engines: links, sockets, files, the command line.
//!
//! An engine and everything that touches it live on one thread of their own, so nothing in here locks an engine.
//! The link of a person's client has another, so that what the user does moves no slot.

// Here the program meets the world: clocks, sockets and files are its business.
#![allow(clippy::disallowed_methods)]

mod clock;
pub mod config;
pub mod connection;
pub mod dial;
mod documents;
mod files;
mod hub;
mod link;
mod own_host;
mod owner;
mod periods;
mod person;
mod places;
mod proxy;
mod relay;
mod serve;
mod shown;
mod trust;
mod udp;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use shoal_daemon::admin::{Admin, AdminError, Readiness};
use shoal_daemon::config::ConfigError;
use shoal_daemon::control::{Control, ControlError};
use shoal_daemon::secret::SecretError;
use shoal_daemon::shutdown::Shutdown;
use tokio::sync::watch;

pub use config::Config;
pub use files::{descriptor, init};

/// Why a client ends, or does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration, or a file that it names, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The SOCKS port.
    #[error("cannot listen for SOCKS on {0}: {why}", why = match .1.kind() {
        std::io::ErrorKind::AddrInUse => "the port is in use; stop what uses it, or set socks.listen".to_string(),
        _ => .1.to_string(),
    })]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// The tunnels of a service.
    #[error(transparent)]
    Tunnel(#[from] crate::tunnel::Error),
    /// The resolver of an exit, or the addresses of its host.
    #[error(transparent)]
    Dialer(#[from] dial::DialerError),
    /// A value that only shows as wrong when it is used.
    #[error("{key}: {why}")]
    Value {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// The system refuses something.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Value { .. } | Self::Dialer(_))
    }
}

/// What the engine's thread tells the rest of the program, twice a second.
#[derive(Clone, Debug, Default)]
struct Report {
    status: Value,
    gauges: Vec<(&'static str, &'static str, f64)>,
}

type Shared = Arc<Mutex<Report>>;

/// Runs a person's client until `shutdown`: the SOCKS5 proxy.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    start(config, shutdown, |config, shutdown, shared, ready| {
        person::start(config, shutdown, shared, ready)
    })
    .await
}

/// Runs a service until `shutdown`: an exit, or an internal target.
///
/// # Errors
/// When it cannot start.
pub async fn serve(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    start(config, shutdown, |config, shutdown, shared, ready| {
        serve::start(config, shutdown, shared, ready)
    })
    .await
}

type Ready = watch::Sender<Readiness>;

async fn start<F>(config: Config, shutdown: Shutdown, engine: F) -> Result<(), Error>
where
    F: FnOnce(Config, Shutdown, Shared, Ready) -> Result<std::thread::JoinHandle<()>, Error>,
{
    let shared = Shared::default();
    let (ready, readiness) = watch::channel(Readiness::NotReady("starting".into()));
    let _admin = match config.admin.listen.parse() {
        Ok(address) => {
            let registry = prometheus::Registry::new();
            let _ = registry.register(Box::new(Metrics(shared.clone())));
            Some(Admin::start(address, registry, readiness).await?)
        }
        Err(_) => None,
    };
    let status = shared.clone();
    let _control = Control::start(&socket(&config), move || {
        let report = status.lock().map(|report| report.status.clone()).unwrap_or_default();
        async move { report }
    })
    .await?;
    let thread = engine(config, shutdown.clone(), shared, ready)?;
    shutdown.wait().await;
    let _ = tokio::task::spawn_blocking(|| thread.join()).await;
    Ok(())
}

/// The control socket of a client with this configuration.
pub fn socket(config: &Config) -> PathBuf {
    config.runtime_dir.join("control.sock")
}

/// Gauges of the engine's last report, for `/metrics`. Totals only: no label names a peer or a target.
struct Metrics(Shared);

impl prometheus::core::Collector for Metrics {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        let Ok(report) = self.0.lock() else { return Vec::new() };
        let gauge = |(name, help, value): &(&str, &str, f64)| {
            let gauge = prometheus::Gauge::new(*name, *help).ok()?;
            gauge.set(*value);
            Some(prometheus::core::Collector::collect(&gauge))
        };
        report.gauges.iter().filter_map(gauge).flatten().collect()
    }
}
