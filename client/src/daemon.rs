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
mod driver;
mod events;
mod files;
mod hub;
mod keyring;
mod link;
mod mail;
mod membership;
mod own_host;
mod owner;
pub mod page;
pub mod people;
mod permits;
mod proxy;
mod relay;
mod reload;
mod serve;
pub mod shoal;
pub mod status_text;
mod stream;
mod threads;
mod trust;
mod udp;
mod user;
mod virtual_addresses;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_host::admin::{AdminError, AdminServer, Readiness};
use shoal_host::config::ConfigError;
use shoal_host::control::{self, Control, ControlError};
use shoal_host::exit::Exit;
use shoal_host::network;
use shoal_host::process::Process;
use shoal_host::secret::{self, SecretError};
use shoal_host::shutdown::Shutdown;
use shoal_host::start::Boxed;
use shoal_topology::{Document, Parameters};
use tokio::sync::watch;

use membership::Membership;

pub use config::{Config, ServiceKind};
pub use files::{descriptor, identity, init, make};
pub use membership::enrol;
pub use shoal::Shoal;

/// Why a client ends, or does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
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
    /// Messages that cannot be read.
    #[error(transparent)]
    Messages(#[from] people::StoreError),
    /// The tunnels of a service.
    #[error(transparent)]
    Tunnel(#[from] crate::tunnel::TunnelError),
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
        /// What the system said when it refused.
        source: std::io::Error,
    },
}

impl ClientError {
    /// How a program ends on it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Value { .. } | Self::Dialer(_) => Exit::Config,
            Self::Control(ControlError::TooLong(_)) => Exit::Config,
            Self::Control(ControlError::Directory(error)) => error.exit(),
            Self::Secret(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// Looks at what only shows as wrong when a client starts: the files and directories that its configuration names, the path of
/// its control socket, its class. Nothing is written.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &Config) -> Result<(), ClientError> {
    network::authority_addresses(&config.network)?;
    files::token(config)?;
    secret::is_private_directory(&config.data_dir)?;
    let socket = socket(config);
    control::check_path(&socket)?;
    control::check_path(&people::socket::path(&socket))?;
    control::check_path(&page::open::path(&socket))?;
    socket.parent().map(secret::is_private_directory).transpose()?;
    let usual = Parameters::default();
    if usual.class(&config.class).is_none() {
        let names: Vec<&str> = usual.classes.iter().map(|class| class.name.as_str()).collect();
        let why = format!(
            "{:?} is none of the usual ones ({}); whether this network defines it, `run` says when it has the topology document",
            config.class,
            names.join(", ")
        );
        return Err(ClientError::Value { key: "class", why });
    }
    Ok(())
}

/// What the engine's thread tells the rest of the program, twice a second.
#[derive(Clone, Debug, Default)]
struct EngineReport {
    status: Value,
    /// The topology document in use.
    document: Option<Arc<Document>>,
    /// Name, help and value of each metric.
    series: Vec<(&'static str, &'static str, f64)>,
}

impl EngineReport {
    /// What `status` says until the engine has reported.
    fn starting() -> Self {
        let status =
            json!({ "ready": false, "summary": "Not ready: starting.", "why_not": "starting" });
        Self { status, document: None, series: Vec::new() }
    }
}

type Shared = Arc<Mutex<EngineReport>>;

/// A client or a service that runs.
pub type Running = Boxed<'static, Result<(), ClientError>>;

/// Runs a person's client until `shutdown`: the SOCKS5 proxy.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config, shutdown: Shutdown) -> Running {
    Box::pin(run_proxy(config, shutdown))
}

async fn run_proxy(config: Config, shutdown: Shutdown) -> Result<(), ClientError> {
    let (shared, ready) = reports();
    let _surfaces = surfaces(&config, &shutdown, (&shared, &ready), false).await?;
    let listen = config.socks.listen;
    let seed = files::run_seed()
        .map_err(|source| ClientError::System { what: "drawing a seed", source })?;
    let ((orders, received), events) = (mail::orders(), events::events());
    // Damaged files of the organisation take its names away, and nothing else.
    let membership = Membership::open(&config, shared.clone(), events.clone());
    let words = people::socket::Words { orders: orders.clone(), membership: membership.clone() };
    // Whom nobody can write to has no messages, and no files for them.
    let mail = if config.reachable {
        let own = people::Own {
            data_dir: &config.data_dir,
            membership: membership.clone(),
            settings: message_settings(&config),
            events,
            seed,
        };
        Some(people::start(own, (orders, received))?)
    } else {
        tokio::spawn(people::refuse(received, events));
        None
    };
    let _programs = people::socket::serve(&socket(&config), words).await?;
    // Its pages speak to `programs.sock`.
    let _page = page::of(&config).await?;
    let shoal = Shoal::begin(config, shutdown, (shared, ready), mail)?;
    shoal.socks(listen).await?;
    let following = tokio::spawn(membership::follow(membership, shoal.clone()));
    shoal.ended().await;
    following.abort();
    Ok(())
}

/// The settings of messages for the client's class.
fn message_settings(config: &Config) -> shoal_people::Settings {
    let usual = Parameters::default();
    let class = usual.class(&config.class).or(usual.classes.first());
    class.map(shoal_people::Settings::of).unwrap_or_default()
}

/// Runs a service until `shutdown`: an exit, or an internal target.
///
/// # Errors
/// When it cannot start.
pub fn serve(config: Config, shutdown: Shutdown) -> Running {
    Box::pin(run_service(config, shutdown))
}

async fn run_service(config: Config, shutdown: Shutdown) -> Result<(), ClientError> {
    let (shared, ready) = reports();
    let _surfaces = surfaces(&config, &shutdown, (&shared, &ready), true).await?;
    let offer = serve::offer(&config)?;
    let thread = serve::start(config, shutdown.clone(), (shared, ready), offer)?;
    shutdown.wait().await;
    let _ = tokio::task::spawn_blocking(|| thread.join()).await;
    Ok(())
}

type Ready = watch::Sender<Readiness>;

/// How often a service looks whether an epoch has ended, for the metrics of the process.
const OBSERVE: Duration = Duration::from_secs(5);

fn reports() -> (Shared, Ready) {
    let (ready, _) = watch::channel(Readiness::NotReady("starting".into()));
    (Arc::new(Mutex::new(EngineReport::starting())), ready)
}

/// What a program shows of itself as long as these are kept: the admin page and the control socket.
struct Surfaces {
    _admin: Option<AdminServer>,
    _control: Control,
}

/// `shows_process`: what the process takes of the machine is among the metrics. Not of a person's client: it moves with what
/// the person does.
async fn surfaces(
    config: &Config,
    shutdown: &Shutdown,
    (shared, ready): (&Shared, &Ready),
    shows_process: bool,
) -> Result<Surfaces, ClientError> {
    let admin = match config.admin.listen.parse() {
        Ok(address) => {
            let registry = prometheus::Registry::new();
            let _ = registry.register(Box::new(Metrics(shared.clone())));
            let seed = secret::fresh()
                .map_err(|source| ClientError::System { what: "drawing a seed", source })?;
            let epoch_s = network::load(&config.network)?.epoch_s;
            let process = Process::new("shoal-client", epoch_s.into(), *seed);
            let _ = registry.register(Box::new(process.clone()));
            if shows_process {
                tokio::spawn(observe(process, shutdown.clone()));
            }
            Some(AdminServer::start(address, registry, ready.subscribe()).await?)
        }
        Err(_) => None,
    };
    let status = shared.clone();
    let control = Control::start(&socket(config), move || {
        let report = status.lock().map(|report| report.status.clone()).unwrap_or_default();
        async move { report }
    })
    .await?;
    Ok(Surfaces { _admin: admin, _control: control })
}

/// Looks at the process until `shutdown`.
async fn observe(process: Process, shutdown: Shutdown) {
    while !shutdown.is_triggered() {
        process.observe(clock::unix_s());
        tokio::select! {
            () = shutdown.wait() => {}
            () = tokio::time::sleep(OBSERVE) => {}
        }
    }
}

/// The control socket of a client with this configuration.
pub fn socket(config: &Config) -> PathBuf {
    config.runtime_dir.join("control.sock")
}

/// What the engine last reported, for `/metrics`. Totals only: no label names a peer or a target.
struct Metrics(Shared);

impl prometheus::core::Collector for Metrics {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        let Ok(report) = self.0.lock() else { return Vec::new() };
        let series = |(name, help, value): &(&str, &str, f64)| {
            // By convention what only grows says so in its name.
            if name.ends_with("_total") {
                let counter = prometheus::Counter::new(*name, *help).ok()?;
                counter.inc_by(*value);
                return Some(counter.collect());
            }
            let gauge = prometheus::Gauge::new(*name, *help).ok()?;
            gauge.set(*value);
            Some(gauge.collect())
        };
        report.series.iter().filter_map(series).flatten().collect()
    }
}
