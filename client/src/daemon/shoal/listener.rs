//! A service of the network whose connections come to the program that embeds the client.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use shoal_host::admin::Readiness;
use shoal_host::shutdown::{Shutdown, ShutdownOnDrop};
use shoal_topology::directory::address::ServiceAddress;
use tokio::sync::{mpsc, watch};

use crate::daemon::config::{Gateway, Serve, ServiceKind};
use crate::daemon::serve::{self, Offer};
use crate::daemon::stream::Incoming;
use crate::daemon::{ClientError, Config, EngineReport, files};

/// Connections that wait to be accepted; more are refused, as a full backlog would.
const BACKLOG: usize = 128;

/// What a service has of its own.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Its keys: whoever has them is the service. Made if the directory does not exist.
    pub data_dir: PathBuf,
    /// File with the token that its gateways gave it; none where they admit anyone.
    pub token: Option<PathBuf>,
    /// The gateways by which it is reached, one or two; if empty, those of the client.
    pub gateways: Vec<Gateway>,
    /// Clients at a time; beyond that the one that has been idle longest makes room.
    pub max_tunnels: usize,
}

impl ServiceConfig {
    /// A service with the keys in `data_dir`, without a token.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            token: None,
            gateways: Vec::new(),
            max_tunnels: Serve::default().max_tunnels,
        }
    }

    /// The same with a token file.
    #[must_use]
    pub fn token(self, token: impl Into<PathBuf>) -> Self {
        Self { token: Some(token.into()), ..self }
    }
}

/// A service that runs. Dropped, it ends, and so do its connections.
#[derive(Debug)]
pub struct Listener {
    addresses: Vec<ServiceAddress>,
    incoming: mpsc::Receiver<Incoming>,
    readiness: watch::Receiver<Readiness>,
    shutdown: ShutdownOnDrop,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(client: &Config, service: ServiceConfig) -> Result<Self, ClientError> {
        let ServiceConfig { data_dir, token, gateways, max_tunnels } = service;
        let gateways = if gateways.is_empty() { client.gateways.clone() } else { gateways };
        let config = Config {
            gateways,
            data_dir,
            token,
            serve: Serve { kind: ServiceKind::Target, max_tunnels, ..Serve::default() },
            source: None,
            ..client.clone()
        };
        config.check("the service".as_ref())?;
        if !config.data_dir.exists() {
            files::make(&config)?;
        }
        let (_, addresses) = files::identity(&config)?;
        let shared = Arc::new(Mutex::new(EngineReport::starting()));
        let (ready, readiness) = watch::channel(Readiness::NotReady("starting".into()));
        let (to, incoming) = mpsc::channel(BACKLOG);
        let shutdown = Shutdown::new();
        let thread = serve::start(config, shutdown.clone(), (shared, ready), Offer::Program(to))?;
        let (shutdown, thread) = (ShutdownOnDrop(shutdown), Some(thread));
        Ok(Self { addresses, incoming, readiness, shutdown, thread })
    }

    /// Where it is reached: an address for each of its gateways, to which clients add a port of their choice.
    pub fn addresses(&self) -> &[ServiceAddress] {
        &self.addresses
    }

    /// Whether clients can reach it, as it changes, and why not.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Returns when a gateway has let it in, so that clients can reach it. False if the service has ended.
    pub async fn ready(&mut self) -> bool {
        let is_ready = |readiness: &Readiness| matches!(readiness, Readiness::Ready);
        self.readiness.wait_for(is_ready).await.is_ok()
    }

    /// The next connection; none when the service has ended. May be cancelled.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Ends the service, and returns when its thread has ended.
    pub async fn close(mut self) {
        self.shutdown.0.trigger();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}
