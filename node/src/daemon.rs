//! The program around the engine: files, links, threads, the admin page, the control socket.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: clock, timers, fresh keys.

mod authority;
pub mod bench;
mod config;
pub mod document;
mod engine_thread;
mod faults;
pub mod founding;
mod frames;
mod inbox;
mod keys;
mod links;
mod metrics;
mod reload;
pub mod status;
mod summary;
mod topology;
mod watcher;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::Registry;
use shoal_host::admin::{AdminError, AdminServer, Readiness};
use shoal_host::authorities::AuthorityLinks;
use shoal_host::coarse::Coarse;
use shoal_host::config::ConfigError;
use shoal_host::control::{self, Control, ControlError};
use shoal_host::exit::Exit;
use shoal_host::link::{Allow, Counters as LinkCounters, Endpoint, LinkSettings, Listed};
use shoal_host::network;
use shoal_host::process::Process;
use shoal_host::reload::Source;
use shoal_host::secret::{self, SecretError};
use shoal_host::shutdown::Shutdown;
use shoal_host::start::Boxed;
use shoal_sphinx::backend::{Backend, Unavailable};
use shoal_topology::consensus::Schedule;
use shoal_topology::{DocumentStore, Identity, Role, SecretIdentity, Seed};
use tokio::sync::watch;

pub use config::{
    AdmissionName, AuthorityConfig, Config, GatewayConfig, OrganisationConfig, RoleName,
    TokenConfig,
};
pub use faults::Faults;
pub use keys::{Keyring, Prepared, descriptor, prepare};

use crate::engine::{NodeEngine, NodeSettings};
use crate::opener::Opener;
use engine_thread::{EngineEvent, Events, NodeClock};
use links::{LinkContext, Neighbourhood, OutgoingLinks};
use metrics::{Metrics, Shared, Subsystem};
use reload::Reload;
use summary::About;
use topology::{File, unix_ms, unix_s};
use watcher::Watcher;

/// How often the topology file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a node that was never ready may be so before the log says why.
const START: Duration = Duration::from_secs(5);
/// Reports that wait for their signature.
const REPORTS: usize = 4;
/// What links may take to write what waits, at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a node does not run, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A value of the configuration.
    #[error("{0}")]
    Config(String),
    /// A topology document that somebody wants to look at.
    #[error("{0}")]
    Document(String),
    /// A key file or a directory.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The listener for links cannot be opened.
    #[error(transparent)]
    Link(#[from] shoal_host::link::LinkError),
    /// The admin page.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The metrics cannot be registered.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The system gives no thread or no randomness.
    #[error("cannot start: the system gives no thread or no randomness")]
    System(#[from] std::io::Error),
    /// Another program has the mix keys.
    #[error("another shoal-node uses the keys in {}: it has to end first", .0.display())]
    InUse(PathBuf),
    /// Another program has the identity.
    #[error(
        "another shoal-node runs with {}: two of one identity would take each other's links; stop it, or give this one a \
         `data_dir` of its own",
        .0.display()
    )]
    Running(PathBuf),
    /// A file that `init` writes.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// A file that `init` would write is there.
    #[error("{} exists already and is not replaced", .0.display())]
    Exists(PathBuf),
}

impl NodeError {
    /// How a program ends on it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::File(ConfigError::Read { source, .. }) | Self::Write(_, source) => {
                Exit::on_file(source)
            }
            Self::Secret(error) => error.exit(),
            Self::Control(ControlError::Directory(error)) => error.exit(),
            Self::File(_)
            | Self::Config(_)
            | Self::Control(ControlError::TooLong(_))
            | Self::Admin(AdminError::NotLoopback(_)) => Exit::Config,
            _ => Exit::Failed,
        }
    }
}

/// Writes `config.toml` and the identity into a directory, which is made. The path of the file.
///
/// # Errors
/// When there is a configuration already, or something cannot be written.
pub fn init(directory: &Path, config: &Config) -> Result<PathBuf, NodeError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    secret::private_directory(directory)?;
    let path = directory.join("config.toml");
    // 0600: tokens may come to stand in it.
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(config.to_toml().as_bytes())).map_err(|error| {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => NodeError::Exists(path.clone()),
            _ => NodeError::Write(path.clone(), error),
        }
    })?;
    let data = config.clone().resolved(directory).data_dir;
    secret::private_directory(&data)?;
    // One that is there stays: the directory of a node whose configuration is written anew.
    secret::read_or_create(&config.clone().resolved(directory).identity_file())?;
    Ok(path)
}

/// The identity of a node or an authority that `init` made.
///
/// # Errors
/// When it cannot be read.
pub fn identity(config: &Config) -> Result<Identity, NodeError> {
    Ok(own(config)?.identity())
}

fn own(config: &Config) -> Result<SecretIdentity, NodeError> {
    Ok(SecretIdentity::from_bytes(&*secret::identity(&config.identity_file())?))
}

/// What `check` finds: nothing, or what an operator should know although the node would run. It writes and makes nothing.
///
/// # Errors
/// What keeps the node from running.
pub fn check(config: &Config) -> Result<Vec<String>, NodeError> {
    check_values(config)?;
    control::check_path(&config.control_socket())?;
    if config.role == RoleName::Authority {
        return authority::check(config);
    }
    let role = config.role.role().unwrap_or(Role::Mix);
    let own = own(config)?;
    secret::is_private_directory(&config.data_dir)?;
    secret::is_private_directory(&config.runtime_dir())?;
    let mut notes = warnings();
    notes.extend(on_disk(config));
    let known = match network::load(&config.network) {
        Ok(known) => known,
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            notes.push(format!(
                "there is no network file {} yet: get it from those who run the network",
                config.network.display()
            ));
            return Ok(notes);
        }
        Err(error) => return Err(error.into()),
    };
    let authority_addresses = network::authority_addresses(&config.network)?;
    if authority_addresses.len() < known.threshold() {
        notes.push(format!(
            "the network file has addresses of {} of {} authorities, too few to get a document from",
            authority_addresses.len(),
            known.authorities.len()
        ));
    }
    notes.extend(keys::warnings_before(config, known.epoch_s));
    let said = keys::said_before(&config.descriptor_file(), &own.identity())?;
    let now = unix_s();
    match File::new(config.topology.clone()).read(&known, now) {
        Ok(Some(held)) => {
            let epoch = held.document.epoch_at(now);
            // Without the descriptor of an earlier run its keys are not known.
            let listed = held.document.index_of(&own.identity()).is_some();
            let body = match &said {
                Some(said) => Some(said.body().clone()),
                None if listed => None,
                None => Some(keys::empty(config, role, &own)),
            };
            notes.extend(body.and_then(|body| {
                topology::objection(&held.document, &own.identity(), epoch, &body)
            }));
        }
        Ok(None) => notes.push(network::no_document(&known, now)),
        Err(why) => notes.push(why),
    }
    Ok(notes)
}

fn check_values(config: &Config) -> Result<(), NodeError> {
    config.advertised().map_err(NodeError::Config)?;
    if config.gateway.admission == AdmissionName::Tokens && config.gateway.token.is_empty() {
        return Err(NodeError::Config(
            "`gateway.admission` is \"tokens\" and there is no [[gateway.token]]: nobody could come in".into(),
        ));
    }
    if let Some(admin) = config.admin.filter(|admin| !admin.ip().is_loopback()) {
        return Err(AdminError::NotLoopback(admin).into());
    }
    let listen = config.listen_address().map_err(NodeError::Config)?;
    let taken = |admin: &SocketAddr| {
        let all = listen.ip().is_unspecified();
        admin.port() == listen.port() && admin.port() != 0 && (all || admin.ip() == listen.ip())
    };
    if let Some(admin) = config.admin.filter(taken) {
        return Err(NodeError::Config(format!(
            "`admin`: {admin} is where the node listens for links; give the admin page a port of its own"
        )));
    }
    let mut secrets: Vec<&str> = config.gateway.token.iter().map(|t| t.secret.as_str()).collect();
    secrets.sort_unstable();
    if secrets.windows(2).any(|two| matches!(two, [one, other] if one == other)) {
        return Err(NodeError::Config(
            "`gateway.token`: two tokens have the same secret, and only the first would count"
                .into(),
        ));
    }
    Ok(())
}

/// What to say of a runtime directory on a disk. It is the default where the system names none, and no fault of a node that
/// runs so: whoever fears for the disk reads it once.
fn on_disk(config: &Config) -> Option<String> {
    let runtime = config.runtime_dir();
    (!secret::memory_backed(&runtime)).then(|| {
        format!(
            "the runtime directory {} does not lie in memory: mix keys that were erased may survive on the disk; a \
             `runtime_dir` on a tmpfs is better",
            runtime.display()
        )
    })
}

fn warnings() -> Vec<String> {
    let mut warnings = Vec::new();
    if secret::swap_on_plain_disk() {
        warnings
            .push("memory may be swapped to a disk that is not encrypted: switch swap off".into());
    }
    warnings
}

/// A node that runs.
pub type Running = Boxed<'static, Result<(), NodeError>>;

/// Runs a node until `shutdown`, then ends in order, within two seconds. Many may run in one process.
///
/// # Errors
/// Why it did not start.
pub fn run(config: Config, shutdown: Shutdown) -> Running {
    Box::pin(start(config, None, None, shutdown))
}

/// As [`run`], and reads the configuration again from `source` when the token asks for that.
///
/// # Errors
/// Why it did not start.
pub fn run_reloading(config: Config, source: Source, shutdown: Shutdown) -> Running {
    Box::pin(start(config, Some(source), None, shutdown))
}

/// [`run`], with faults injected, as by an operator who is corrupt. Of an authority it is only the clock.
///
/// # Errors
/// As [`run`].
pub fn run_with_faults(config: Config, faults: Faults, shutdown: Shutdown) -> Running {
    Box::pin(start(config, None, Some(faults), shutdown))
}

// Long: it makes each part of a node once, in the order in which they need each other, and most of them live until
// its end.
async fn start(
    config: Config,
    source: Option<Source>,
    faults: Option<Faults>,
    shutdown: Shutdown,
) -> Result<(), NodeError> {
    check_values(&config)?;
    // Before keys are made, which a node that cannot run needs not.
    control::check_path(&config.control_socket())?;
    let mut reload = Reload::new(config.clone(), source, &shutdown);
    if config.role == RoleName::Authority {
        let clock_offset_ms = faults.map_or(0, |faults| faults.clock_offset_ms);
        return authority::run(reload, clock_offset_ms, shutdown).await;
    }
    let known = network::load(&config.network)?;
    let prepared = prepare(&config)?;
    let _held = hold(&config)?;
    let (role, identity) = (prepared.role, prepared.identity);
    let (shared, clock) = (Arc::new(Shared::default()), NodeClock::start());

    for backend in Backend::ALL {
        if backend.codec().is_err_and(|why| why == Unavailable::Wrong) {
            tracing::warn!("not used: {}: {}", backend.name(), Unavailable::Wrong);
        }
    }
    let opener = Arc::new(Opener::new(Backend::best_codec()));
    let keys = Some(opener.clone());
    let keys = Keyring::open(&config, &prepared, known.epoch_s, keys, unix_ms())?;
    warnings().iter().chain(&keys.warnings()).for_each(|warning| tracing::warn!("{warning}"));
    on_disk(&config).iter().for_each(|note| tracing::info!("{note}"));

    // First what can fail: a port in use must leave nothing half started.
    let allow = match role {
        Role::Mix => Allow::list(Default::default()),
        Role::Gateway => Allow::anyone(),
    };
    let clients = match config.role {
        RoleName::Gateway => config.gateway.max_clients,
        RoleName::Mix | RoleName::Authority => 0,
    };
    let listed = Listed::default();
    let endpoint = Endpoint::new(
        &shoal_host::link::Identity::from_seed(&prepared.identity_seed),
        LinkSettings {
            listen: Some(config.listen_address().map_err(NodeError::Config)?),
            allow: allow.clone(),
            listed: listed.clone(),
            max_connections: clients + 1_024,
            ..LinkSettings::default()
        },
    )?;
    let (say, ready) = watch::channel(Readiness::NotReady("starting".into()));
    let control = {
        let (shared, ready, opener) = (shared.clone(), ready.clone(), opener.clone());
        shared.describe(About::new(&config, identity.to_string(), unix_s()));
        let status = move || {
            let status = status::of_node(&shared, &ready.borrow(), &opener);
            async move { status }
        };
        Control::start(&config.control_socket(), status).await?
    };
    let registry = Registry::new();
    let links = endpoint.counters();
    let metrics = Metrics {
        shared: shared.clone(),
        opener: opener.clone(),
        links: links.clone(),
        ready,
        coarse: Arc::new(Coarse::new(known.epoch_s.into(), *secret::fresh()?)),
    };
    registry.register(Box::new(metrics.clone()))?;
    let process = Process::new("shoal-node", known.epoch_s.into(), *secret::fresh()?);
    registry.register(Box::new(process.clone()))?;
    let admin = match config.admin {
        Some(address) => Some(AdminServer::start(address, registry, say.subscribe()).await?),
        None => None,
    };

    let settings = NodeSettings {
        identity,
        role,
        pool_packets: config.pool_packets,
        seed: Seed::new(*secret::fresh()?),
        gateway: config.gateway_settings(blake3::derive_key(
            "shoal 2026 inbox names",
            prepared.inbox_key.as_ref(),
        )),
    };
    let engine = NodeEngine::new(settings, Backend::best_codec());
    let (tell_reports, reports) = tokio::sync::mpsc::channel(REPORTS);
    let injector = match faults {
        Some(faults) => Some(faults.start(&Seed::new(*secret::fresh()?))),
        None => None,
    };
    let (events, thread) =
        engine_thread::start(engine, clock, shared.clone(), tell_reports, injector)?;
    let work = engine_thread::start_workers(config.workers, &opener, &events, &shared)?;
    if role == Role::Gateway && config.gateway.inbox {
        open_inbox(&config, &prepared, &events, &shared).await?;
    }

    let context = LinkContext {
        clock,
        events: events.clone(),
        shared: shared.clone(),
        shutdown: shutdown.clone(),
    };
    let (tell_around, around) = watch::channel(Neighbourhood::default());
    let dialler = endpoint.dialler();
    let outgoing = OutgoingLinks::new(context.clone(), dialler.clone());
    let accepting = tokio::spawn(links::accept(endpoint, role, context, work, around));
    tracing::info!("the node runs");

    let authority_addresses = network::authority_addresses(&config.network)?;
    let (authority_links, received) =
        AuthorityLinks::start(&dialler, authority_addresses, &shutdown);
    let liars = known.authorities.len().saturating_sub(1) / 3;
    let schedule = Schedule::new(known.epoch_s, liars);
    let mut watcher = Watcher {
        file: File::new(config.topology.clone()),
        data_dir: config.data_dir.clone(),
        network: known,
        received,
        authority_links,
        secret: SecretIdentity::from_bytes(&prepared.identity_seed),
        reports,
        schedule,
        reported: None,
        keys,
        opener: &opener,
        events: &events,
        shared: &shared,
        clock,
        allow: &allow,
        listed: &listed,
        around: tell_around,
        outgoing,
        documents: DocumentStore::default(),
        present: None,
        trouble: None,
        contradiction: None,
    };
    let began = std::time::Instant::now();
    // What the log was told last.
    let mut told = Some(String::from("starting"));
    let mut starting = true;
    let mut accept_errors = AcceptErrors::new(links);
    while !shutdown.is_triggered() {
        let readiness = watcher.look().await;
        metrics.observe(unix_s());
        process.observe(unix_s());
        shared.stands(Subsystem::Connections, accept_errors.look());
        let news = words(&readiness);
        // At first every node waits for every other.
        starting &= news.is_some() && began.elapsed() < START;
        if !starting && news != told {
            match &readiness {
                Readiness::Ready => tracing::info!("ready"),
                Readiness::NotReady(why) => tracing::warn!("not ready: {why}"),
            }
            told = news;
        }
        say.send_if_modified(|said| {
            let changed = *said != readiness;
            *said = readiness;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = reload.asked() => {
                if let Some(mut changes) = reload.read() {
                    if let Err(error) = watcher.configure(&reload.config).await {
                        changes.refuse("the rest", error);
                    }
                    changes.say();
                }
            }
            () = shutdown.wait() => {}
        }
    }

    say.send_replace(Readiness::NotReady("the node is ending".into()));
    drop(admin);
    events.post(EngineEvent::Stop).await;
    let outgoing = watcher.outgoing;
    let thread = tokio::task::spawn_blocking(move || thread.join());
    let end = async { tokio::join!(outgoing.finish(FLUSH), accepting, thread) };
    let _ = tokio::time::timeout(FLUSH + FLUSH / 2, end).await;
    drop(control);
    tracing::info!("the node has ended");
    Ok(())
}

/// Holds the data directory, and with it the identity, for this program.
fn hold(config: &Config) -> Result<secret::Lock, NodeError> {
    secret::lock(&config.data_dir, secret::GOING)?
        .ok_or_else(|| NodeError::Running(config.data_dir.clone()))
}

/// Says when connections from others cannot be accepted, and when they can again.
struct AcceptErrors {
    links: Arc<LinkCounters>,
    /// Errors up to the last look.
    seen: u64,
    failing: bool,
}

impl AcceptErrors {
    fn new(links: Arc<LinkCounters>) -> Self {
        Self { links, seen: 0, failing: false }
    }

    /// Why connections could not be accepted since the last look, if so. Logs what is new. To be called less often than the
    /// listener tries again, which is ten times a second.
    fn look(&mut self) -> Option<&'static str> {
        let errors = self.links.accept_errors.load(Ordering::Relaxed);
        let failing = errors > self.seen;
        let remedy = "the system gives no more file descriptors, as a rule: raise the limit (ulimit -n, LimitNOFILE)";
        match (self.failing, failing) {
            (false, true) => {
                tracing::warn!("connections from others cannot be accepted: {remedy}");
            }
            (true, false) => tracing::info!("connections from others are accepted again"),
            _ => {}
        }
        (self.seen, self.failing) = (errors, failing);
        failing.then_some(remedy)
    }
}

/// A reason without its numbers: seconds that pass are not news for the log.
fn words(readiness: &Readiness) -> Option<String> {
    match readiness {
        Readiness::Ready => None,
        Readiness::NotReady(why) => Some(why.replace(|letter: char| letter.is_ascii_digit(), "")),
    }
}

async fn open_inbox(
    config: &Config,
    prepared: &Prepared,
    events: &Events,
    shared: &Arc<Shared>,
) -> std::io::Result<()> {
    let path = config.data_dir.join("inbox.redb");
    let answer = {
        let events = events.clone();
        move |input| events.post_blocking(EngineEvent::Input(input))
    };
    let (key, most, shared) = (*prepared.inbox_key, config.gateway.inbox_packets, shared.clone());
    let start = move || inbox::Inbox::start(&path, &key, most, shared, answer);
    let inbox = tokio::task::spawn_blocking(start).await.map_err(std::io::Error::other)??;
    events.post(EngineEvent::Inbox(inbox)).await;
    Ok(())
}
