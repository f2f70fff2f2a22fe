//! An authority: links from nodes, listed services and the other authorities; its state on disk; its clock.

mod check;
mod waiting;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use serde_json::{Value, json};
use shoal_daemon::admin::{Admin, Readiness};
use shoal_daemon::control::Control;
use shoal_daemon::council::{Council, Messages, send};
use shoal_daemon::link::{Allow, Endpoint, Link, Listed, Settings as LinkSettings};
use shoal_daemon::network;
use shoal_daemon::secret::{self, SecretError};
use shoal_daemon::shutdown::Shutdown;
use shoal_topology::authority::{Authority, Event, Input, Output, Proof, Settings, State};
use shoal_topology::council::{FromAuthority, ToAuthority};
use shoal_topology::verdict::Verdicts;
use shoal_topology::{Held, Identity, SecretIdentity, Seed};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::topology::unix_ms;
use super::{Config, Error};
use check::parameters;
pub(super) use check::{bears_no_liar, check};
use waiting::{Message, Waiting};

/// Milliseconds by which the clock may be set back while the engine's time waits for it.
const JUMP: u64 = 1_000;
/// What links may take at the end to write what waits.
const FLUSH: Duration = Duration::from_millis(500);
/// How often the status is made anew.
const REPORT: Duration = Duration::from_millis(500);

/// The file of the state.
fn state_file(config: &Config) -> PathBuf {
    config.data_dir.join("authority.state")
}

/// Runs an authority until `shutdown`, by a clock that is off by so much.
pub(super) async fn run(
    config: Config,
    clock_offset_ms: i64,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let known = network::load(&config.network)?;
    let seats = network::seats(&config.network)?;
    let seed = secret::identity(&config.identity_file())?;
    secret::private_directory(&config.data_dir)?;
    secret::private_directory(&config.runtime_dir())?;
    let _held = super::hold(&config)?;
    let own = SecretIdentity::from_bytes(&seed);
    let identity = own.identity();
    if !known.authorities.contains(&identity) {
        return Err(Error::Config(format!(
            "{} does not list this authority, {identity}: its network file and identity.key belong together",
            config.network.display()
        )));
    }
    let parameters = parameters(&config, &known)?;
    bears_no_liar(&known).into_iter().for_each(|warning| tracing::warn!("{warning}"));
    let state = read_state(&state_file(&config))?;
    let (nodes, exits) = (config.authority.nodes.clone(), config.authority.exits.clone());
    let peers = known.authorities.iter().chain(&nodes).chain(&exits).map(|peer| peer.0).collect();
    let allow = Allow::list_and_remember(peers);
    let listed = Listed::default();
    let seat_addresses: Vec<IpAddr> = seats.iter().map(|seat| seat.address.ip()).collect();
    listed.replace(seat_addresses.iter().map(IpAddr::to_canonical).collect());
    let endpoint = Endpoint::new(
        &shoal_daemon::link::Identity::from_seed(&seed),
        LinkSettings {
            listen: Some(config.listen),
            allow: allow.clone(),
            listed: listed.clone(),
            max_connections: 2 * (known.authorities.len() + nodes.len() + exits.len()) + 16,
            ..LinkSettings::default()
        },
    )?;
    let others = seats.into_iter().filter(|seat| seat.identity != identity);
    let (council, documents) = Council::start(&endpoint.dialler(), others, &shutdown);

    let waiting = Arc::new(Waiting::new(&known.authorities, nodes.iter().chain(&exits)));
    let clock: Clock = Arc::new(move || unix_ms().saturating_add_signed(clock_offset_ms));
    let (authorities, epoch_s) = (known.authorities.clone(), known.epoch_s);
    let about = json!({
        "name": known.name, "trial": known.trial, "fingerprint": known.fingerprint(), "epoch_s": epoch_s,
    });
    let engine = Authority::new(
        Settings {
            network: known,
            secret: own,
            epoch_s,
            parameters,
            allowed: nodes,
            allowed_exits: exits,
            seed: Seed::new(*secret::fresh()?),
        },
        Box::new(evidence(&evidence_file(&config))?),
        state,
    );
    let status = Arc::new(Mutex::new(json!({})));
    let control = {
        let status = status.clone();
        let answer = move || {
            let status = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { status }
        };
        Control::start(&config.control_socket(), answer).await?
    };
    let gauges = Gauges::new()?;
    let (say, ready) = watch::channel(Readiness::NotReady("starting".into()));
    let admin = match config.admin {
        Some(address) => Some(Admin::start(address, gauges.registry.clone(), ready).await?),
        None => None,
    };
    let (publish, published) = watch::channel(Vec::new());
    let desk = Desk { waiting: waiting.clone(), clock: clock.clone() };
    let accepting = tokio::spawn(accept(endpoint, desk, published, shutdown.clone()));
    let mut chamber = Chamber {
        gauges,
        engine,
        council,
        own: identity,
        about,
        allow,
        asked: Asked::default(),
        authorities,
        config,
        clock,
        time: 0,
        publish,
        seats: seat_addresses,
        listed,
        status,
        say,
        waiting,
        documents,
    };
    chamber.run(&shutdown).await;
    drop((admin, control));
    let _ = tokio::time::timeout(FLUSH, accepting).await;
    Ok(())
}

/// The state of the last run. One that cannot be read is not replaced: the authority might sign twice.
fn read_state(path: &Path) -> Result<Option<State>, Error> {
    let wrong = |why: String| {
        Error::Config(format!(
            "{}: {why}; restore it, or, when no other copy of this authority runs or ran in the last epochs, move it \
             away",
            path.display()
        ))
    };
    match std::fs::read(path) {
        Ok(bytes) => State::decode(&bytes).map(Some).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretError::Io { path: path.to_owned(), source }.into()),
    }
}

/// The file of what the reports of nodes showed.
fn evidence_file(config: &Config) -> PathBuf {
    config.data_dir.join("authority.evidence")
}

/// What reports showed up to the last run. It harms nobody if what the file says is lost: nodes that lose packets are found
/// later. A file that cannot be read may say it all the same, and would be replaced.
fn evidence(path: &Path) -> Result<Verdicts, SecretError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Verdicts::decode(&bytes).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; what reports showed before is forgotten", path.display());
            Verdicts::new()
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Verdicts::new()),
        Err(source) => Err(SecretError::Io { path: path.to_owned(), source }),
    }
}

/// What an authority measures.
struct Gauges {
    registry: Registry,
    ready: IntGauge,
    linked: IntGauge,
    described: IntGauge,
    liars: IntGauge,
    faults: IntGauge,
    uncounted: IntGauge,
    epoch: IntGauge,
    pending: IntGauge,
    critical: IntGauge,
    missing: IntGauge,
    short: IntGauge,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("shoal_authority_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            ready: gauge("ready", "1 if there is a document that can be used.")?,
            linked: gauge("linked", "Links to other authorities that stand.")?,
            described: gauge("nodes", "Nodes that described themselves.")?,
            liars: gauge("liars", "Authorities that were proven to lie.")?,
            faults: gauge(
                "faults",
                "Authorities that did what honest ones do not: `status` names them.",
            )?,
            uncounted: gauge(
                "uncounted",
                "Authorities whose vote for the last document did not count.",
            )?,
            epoch: gauge("document_epoch", "Epoch of the latest document.")?,
            pending: gauge(
                "pending",
                "Peers that asked for a link and are on no list, of the last 32: `shoal-node authority pending` names them.",
            )?,
            critical: gauge(
                "critical_operators",
                "Operators whose loss alone would leave layers short or the network without documents: `status` names them.",
            )?,
            missing: gauge(
                "missing_nodes",
                "Nodes that may be listed and that the next document will not list: `status` names them.",
            )?,
            short: gauge(
                "document_is_short",
                "1 if the latest document has fewer mixes in a layer than the parameters ask for.",
            )?,
            registry,
        })
    }
}

/// Milliseconds of Unix time, as this authority takes it to be.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where the engine sits.
struct Chamber {
    gauges: Gauges,
    engine: Authority,
    council: Council,
    own: Identity,
    /// The network, for `status`.
    about: Value,
    /// Who may connect.
    allow: Allow,
    asked: Asked,
    authorities: Vec<Identity>,
    config: Config,
    clock: Clock,
    /// When the engine was last told something, by its clock.
    time: u64,
    publish: watch::Sender<Vec<Arc<[u8]>>>,
    /// Addresses of authorities, and of all that links are taken from first.
    seats: Vec<IpAddr>,
    listed: Listed,
    status: Arc<Mutex<Value>>,
    say: watch::Sender<Readiness>,
    waiting: Arc<Waiting>,
    /// What the others published.
    documents: mpsc::Receiver<Vec<u8>>,
}

impl Chamber {
    async fn run(&mut self, shutdown: &Shutdown) {
        self.handle(self.now(), Input::Wake).await;
        self.given().await;
        let mut told = tokio::time::Instant::now() - REPORT;
        loop {
            if told.elapsed() >= REPORT {
                told = tokio::time::Instant::now();
                self.report();
            }
            if shutdown.is_triggered() {
                return;
            }
            // Nobody but the clock moves the time back.
            if self.now().saturating_add(JUMP) < self.time {
                self.time = self.now();
            }
            if self.turn().await {
                // Whoever keeps this busy keeps no link from being read.
                tokio::task::yield_now().await;
                continue;
            }
            let now = self.now();
            let wake = self.engine.next_wake().map_or(u64::MAX, |at| at.saturating_sub(now));
            let wake = Duration::from_millis(wake).min(REPORT);
            tokio::select! {
                () = self.waiting.comes() => {}
                Some(document) = self.documents.recv() => self.document(document).await,
                () = tokio::time::sleep(wake) => self.wake().await,
                () = shutdown.wait() => return,
            }
        }
    }

    /// Handles what waits: the message that came first, and a document. Whether there was one.
    async fn turn(&mut self) -> bool {
        let message = self.waiting.take();
        let waited = message.is_some();
        if let Some(message) = message {
            self.message(message).await;
        }
        match self.documents.try_recv() {
            Ok(document) => self.document(document).await,
            Err(_) => return waited,
        }
        true
    }

    /// Does what is due, after all that came before.
    async fn wake(&mut self) {
        let now = self.now();
        while let Some(message) = self.waiting.take() {
            let since = message.at >= now;
            self.message(message).await;
            if since {
                return;
            }
        }
        self.handle(now, Input::Wake).await;
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The first document of a network may be given by hand, signed by enough authorities.
    async fn given(&mut self) {
        if let Ok(bytes) = std::fs::read(&self.config.topology) {
            self.document(bytes).await;
        }
    }

    /// A document is judged by when it can be used, whenever it came: it moves the engine's time past no message.
    async fn document(&mut self, bytes: Vec<u8>) {
        self.handle(self.time, Input::Document(bytes)).await;
    }

    async fn message(&mut self, message: Message) {
        let Message { at, from, message, .. } = message;
        let input = match message {
            ToAuthority::Peer(bytes) if self.authorities.contains(&from) => {
                Input::Message { from, bytes }
            }
            ToAuthority::Descriptor(bytes) => Input::Descriptor(bytes),
            ToAuthority::Exit(bytes) => Input::Exit(bytes),
            ToAuthority::Report(bytes) => Input::Report(bytes),
            ToAuthority::Peer(_) => return,
        };
        self.handle(at, input).await;
    }

    /// Tells the engine of something that came at `at`.
    async fn handle(&mut self, at: u64, input: Input) {
        self.time = at.max(self.time);
        self.engine.handle(self.time, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { to, bytes } => self.council.tell(&to, &ToAuthority::Peer(bytes)),
                Output::Store { ticket, state } => {
                    // To the disk before anything signed leaves.
                    let path = state_file(&self.config);
                    let stored =
                        tokio::task::spawn_blocking(move || secret::replace(&path, &state)).await;
                    match stored {
                        Ok(Ok(())) => self.engine.handle(self.time, Input::Stored(ticket)),
                        Ok(Err(error)) => {
                            tracing::error!(
                                "cannot store the state, so nothing is signed: {error}"
                            );
                        }
                        Err(_) => tracing::error!("cannot store the state, so nothing is signed"),
                    }
                }
                Output::Evidence(evidence) => {
                    let path = evidence_file(&self.config);
                    let kept =
                        tokio::task::spawn_blocking(move || secret::replace(&path, &evidence))
                            .await;
                    if let Ok(Err(error)) = kept {
                        tracing::warn!("cannot keep what the reports showed: {error}");
                    }
                }
                Output::Document(_) => self.publish(),
                Output::Liar { authority, proof } => self.liar(&authority, &proof),
                Output::Event(event) => log(&event),
            }
        }
    }

    /// Gives all documents that are held to those who are linked.
    fn publish(&self) {
        let documents: Vec<Arc<[u8]>> =
            self.engine.documents().iter().map(|held: &Held| held.signed.clone()).collect();
        if let Some(newest) = documents.last()
            && let Err(error) = secret::replace(&self.config.topology, newest)
        {
            tracing::warn!("cannot keep the topology document: {error}");
        }
        let nodes = self.engine.documents().iter().flat_map(|held| &held.document.nodes);
        let listed = nodes.flat_map(|node| &node.descriptor.body().addresses).map(|at| at.ip());
        let all = listed.chain(self.seats.iter().copied()).map(|ip| ip.to_canonical());
        self.listed.replace(all.collect());
        self.publish.send_replace(documents);
    }

    fn liar(&self, authority: &Identity, proof: &Proof) {
        let name = format!("liar-{authority}-{}.proof", proof.kind());
        tracing::error!(
            "the authority {authority} lies: the proof is {name} in the data directory"
        );
        if let Err(error) = secret::replace(&self.config.data_dir.join(name), &proof.encode()) {
            tracing::error!("cannot keep the proof: {error}");
        }
    }

    fn report(&mut self) {
        let status = self.engine.status();
        let now = self.now() / 1_000;
        let documents = self.engine.documents();
        let usable = documents
            .epoch_at(now)
            .and_then(|epoch| documents.at(epoch))
            .is_some_and(|held| held.document.check_time(now).is_ok());
        let why = if !usable {
            Some("no document that can be used: the authorities have not agreed".to_owned())
        } else {
            status.trouble.clone()
        };
        let readiness = match &why {
            None => Readiness::Ready,
            Some(why) => Readiness::NotReady(why.clone()),
        };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.gauges.ready.set(i64::from(why.is_none()));
        self.gauges.linked.set(count(self.council.links()));
        self.gauges.described.set(count(status.described.0));
        self.gauges.liars.set(count(status.liars.len()));
        self.gauges.faults.set(count(status.faults.len()));
        self.gauges.uncounted.set(count(status.uncounted.len()));
        let latest = status.latest.map_or(0, |(epoch, _)| epoch);
        self.gauges.epoch.set(i64::try_from(latest).unwrap_or(i64::MAX));
        self.say.send_if_modified(|said| {
            let changed = *said != readiness;
            if changed {
                *said = readiness;
            }
            changed
        });
        let refused: Vec<String> =
            self.allow.refused().into_iter().map(|key| Identity(key).to_string()).collect();
        if let Some(said) = self.asked.news(&refused) {
            tracing::info!("{said}");
        }
        self.gauges.pending.set(count(refused.len()));
        self.gauges.critical.set(count(status.critical.len()));
        self.gauges.missing.set(count(status.missing.len()));
        self.gauges.short.set(i64::from(status.is_short));
        let left_out = status.left_out.iter();
        let left_out: Vec<Value> =
            left_out.map(|(node, why)| json!({ "identity": node, "why": why })).collect();
        let value = json!({
            "program": "shoal-node",
            "version": env!("CARGO_PKG_VERSION"),
            "role": "authority",
            "identity": self.own.to_string(),
            "network": self.about,
            "pending": { "not_on_a_list": refused, "left_out": left_out },
            "ready": why.is_none(),
            "why_not_ready": why,
            "epoch": documents.epoch_at(now).map(|epoch| epoch.0),
            "authorities": {
                "linked": self.council.links(), "others": self.authorities.len().saturating_sub(1),
            },
            "votes": status,
        });
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// How often the log says at most that somebody asks who is on no list.
const SAID: Duration = Duration::from_secs(60);

/// What the log was told of peers that are on no list.
#[derive(Default)]
struct Asked {
    known: Vec<String>,
    said: Option<tokio::time::Instant>,
}

impl Asked {
    /// What to say of who is refused, when there is somebody new, and it was not said just now: anybody can ask.
    fn news(&mut self, refused: &[String]) -> Option<String> {
        let new = refused.iter().filter(|identity| !self.known.contains(identity)).count();
        if new == 0 || self.said.is_some_and(|said| said.elapsed() < SAID) {
            return None;
        }
        self.said = Some(tokio::time::Instant::now());
        self.known = refused.to_vec();
        Some(format!(
            "{new} asked for a link that are on none of the lists; `shoal-node authority pending` names them"
        ))
    }
}

fn log(event: &Event) {
    if event.is_trouble() {
        tracing::warn!("{event}");
    } else {
        tracing::info!("{event}");
    }
}

/// Where messages are put, with when they came.
#[derive(Clone)]
struct Desk {
    waiting: Arc<Waiting>,
    clock: Clock,
}

/// Takes links until the end of the run.
async fn accept(
    mut endpoint: Endpoint,
    desk: Desk,
    documents: watch::Receiver<Vec<Arc<[u8]>>>,
    shutdown: Shutdown,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            link = endpoint.accept() => match link {
                Some(link) => _ = tasks.spawn(serve(link, desk.clone(), documents.clone())),
                None => break,
            },
            () = shutdown.wait() => break,
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
}

/// Reads what one peer says, and gives it every new document.
async fn serve(link: Link, desk: Desk, mut documents: watch::Receiver<Vec<Arc<[u8]>>>) {
    let Link { peer, mut sender, receiver, standing, .. } = link;
    // The handshake has found it on the list.
    standing.admit();
    let peer = Identity(peer);
    let mut received = Messages::of_at_most(receiver, desk.waiting.longest(&peer));
    let mut given: Vec<Arc<[u8]>> = Vec::new();
    documents.mark_changed();
    loop {
        tokio::select! {
            message = received.next() => {
                let Ok(bytes) = message else { return };
                let at = (desk.clock)();
                let Ok(message) = ToAuthority::decode(&bytes) else { return };
                if !desk.waiting.put(at, peer, bytes.len(), message).await {
                    return;
                }
            }
            changed = documents.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = documents.borrow_and_update().clone();
                for document in now.iter().filter(|document| !given.contains(document)) {
                    let message = FromAuthority::Document(document.to_vec());
                    if send(&mut sender, &message.encode()).await.is_err() {
                        return;
                    }
                }
                given = now;
            }
        }
    }
}

#[cfg(test)]
mod tests;
