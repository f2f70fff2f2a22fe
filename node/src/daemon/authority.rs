//! An authority: links from nodes, listed services and the other authorities; its state on disk; its clock.

mod check;
mod report;
mod waiting;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_host::admin::{AdminServer, Readiness};
use shoal_host::authorities::{AuthorityLinks, Messages, send};
use shoal_host::control::Control;
use shoal_host::exit::chain;
use shoal_host::link::{Allow, Endpoint, Link, LinkSettings, Listed};
use shoal_host::network;
use shoal_host::process::Process;
use shoal_host::secret::{self, SecretError};
use shoal_host::shutdown::Shutdown;
use shoal_topology::consensus::{
    Authority, AuthorityInput, AuthorityOutput, AuthoritySettings, Event, Proof, State,
};
use shoal_topology::reputation::Reputation;
use shoal_topology::wire::authorities::{FromAuthority, ToAuthority};
use shoal_topology::{
    Epoch, Identity, Network, Parameters, SecretIdentity, Seed, VerifiedDocument,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::reload::Reload;
use super::summary::About;
use super::topology::unix_ms;
use super::{AcceptErrors, AuthorityConfig, Config, NodeError};
use check::parameters;
pub(super) use check::{bears_no_liar, check};
use report::Gauges;
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

// Long: it makes each part of an authority once, in the order in which they need each other, and most of them live
// until its end.
/// Runs an authority until `shutdown`, by a clock that is off by so much.
pub(super) async fn run(
    reload: Reload,
    clock_offset_ms: i64,
    shutdown: Shutdown,
) -> Result<(), NodeError> {
    let config = reload.config.clone();
    let known = network::load(&config.network)?;
    let authority_addresses = network::authority_addresses(&config.network)?;
    let seed = secret::identity(&config.identity_file())?;
    secret::private_directory(&config.data_dir)?;
    secret::private_directory(&config.runtime_dir())?;
    let _held = super::hold(&config)?;
    let own = SecretIdentity::from_bytes(&seed);
    let identity = own.identity();
    if !known.authorities.contains(&identity) {
        return Err(NodeError::Config(format!(
            "{} does not list this authority, {identity}: its network file and identity.key belong together",
            config.network.display()
        )));
    }
    let parameters = parameters(&config, &known)?;
    bears_no_liar(&known).into_iter().for_each(|warning| tracing::warn!("{warning}"));
    let state = read_state(&state_file(&config))?;
    let allow = Allow::list_and_remember(peers(&known.authorities, &config));
    let listed = Listed::default();
    let of_authorities: Vec<IpAddr> = authority_addresses
        .iter()
        .map(|authority_address| authority_address.address.ip())
        .collect();
    listed.replace(of_authorities.iter().map(IpAddr::to_canonical).collect());
    let endpoint = Endpoint::new(
        &shoal_host::link::Identity::from_seed(&seed),
        LinkSettings {
            listen: Some(config.listen_address().map_err(NodeError::Config)?),
            allow: allow.clone(),
            listed: listed.clone(),
            // The lists may become longer while it runs; who is not on them does not come so far.
            max_connections: (2 * (known.authorities.len() + config.authority.senders().count())
                + 16)
                .max(LinkSettings::default().max_connections),
            ..LinkSettings::default()
        },
    )?;
    let accept_errors = AcceptErrors::new(endpoint.counters());
    let others = authority_addresses
        .into_iter()
        .filter(|authority_address| authority_address.identity != identity);
    let (authority_links, documents) =
        AuthorityLinks::start(&endpoint.dialler(), others, &shutdown);

    let waiting = Arc::new(Waiting::new(&known.authorities, config.authority.senders()));
    let clock: Clock = Arc::new(move || unix_ms().saturating_add_signed(clock_offset_ms));
    let (authorities, epoch_s) = (known.authorities.clone(), known.epoch_s);
    let network = known.clone();
    let of_network = json!({
        "name": known.name, "trial": known.trial, "fingerprint": known.fingerprint(), "epoch_s": epoch_s,
    });
    let engine = Authority::new(
        AuthoritySettings {
            network: known,
            secret: own,
            epoch_s,
            parameters: parameters.clone(),
            allowed: config.authority.nodes.clone(),
            allowed_exits: config.authority.exits.clone(),
            allowed_organisations: config.authority.organisations(),
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
    let process = Process::new("shoal-node", u64::from(epoch_s), *secret::fresh()?);
    gauges.registry.register(Box::new(process.clone()))?;
    let about = About::new(&config, identity.to_string(), unix_ms() / 1_000);
    let (say, ready) = watch::channel(Readiness::NotReady("starting".into()));
    let admin = match config.admin {
        Some(address) => Some(AdminServer::start(address, gauges.registry.clone(), ready).await?),
        None => None,
    };
    let (publish, published) = watch::channel(Vec::new());
    let mailbox = Mailbox { waiting: waiting.clone(), clock: clock.clone() };
    let accepting = tokio::spawn(accept(endpoint, mailbox, published, shutdown.clone()));
    let mut chamber = AuthorityDaemon {
        gauges,
        engine,
        authority_links,
        network,
        of_network,
        asked: Asked::default(),
        authorities,
        reload,
        parameters,
        allow,
        clock,
        time: 0,
        publish,
        authority_addresses: of_authorities,
        listed,
        status,
        say,
        waiting,
        documents,
        about,
        process,
        accept_errors,
        unstored: None,
    };
    chamber.run(&shutdown).await;
    drop((admin, control));
    let _ = tokio::time::timeout(FLUSH, accepting).await;
    Ok(())
}

/// Who may connect: authorities, and the nodes, services and organisations on the lists.
fn peers(authorities: &[Identity], config: &Config) -> HashSet<[u8; 32]> {
    authorities.iter().chain(config.authority.senders()).map(|peer| peer.0).collect()
}

/// The state of the last run. One that cannot be read is not replaced: the authority might sign twice.
fn read_state(path: &Path) -> Result<Option<State>, NodeError> {
    let wrong = |why: String| {
        NodeError::Config(format!(
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
fn evidence(path: &Path) -> Result<Reputation, SecretError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Reputation::decode(&bytes).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; what reports showed before is forgotten", path.display());
            Reputation::new()
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Reputation::new()),
        Err(source) => Err(SecretError::Io { path: path.to_owned(), source }),
    }
}

/// Milliseconds of Unix time, as this authority takes it to be.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What an authority's task owns: the engine, and all that goes in and out of it.
struct AuthorityDaemon {
    /// What it measures.
    gauges: Gauges,
    /// The engine, which nobody else touches.
    engine: Authority,
    /// The links to the other authorities.
    authority_links: AuthorityLinks,
    /// The network, with all authorities.
    network: Network,
    /// The network, for `status`.
    of_network: Value,
    /// What the log was told of peers that are on no list.
    asked: Asked,
    /// The identities of all authorities, this one among them.
    authorities: Vec<Identity>,
    /// The configuration by which it goes.
    reload: Reload,
    /// What it votes for.
    parameters: Vec<(Epoch, Parameters)>,
    /// Who may connect.
    allow: Allow,
    /// The clock that the engine goes by.
    clock: Clock,
    /// When the engine was last told something, by its clock.
    time: u64,
    /// The documents in use, for everyone who is linked.
    publish: watch::Sender<Vec<Arc<[u8]>>>,
    /// Addresses of authorities, and of all that links are taken from first.
    authority_addresses: Vec<IpAddr>,
    /// Tells the endpoint the addresses of nodes.
    listed: Listed,
    /// Where `status` finds the report.
    status: Arc<Mutex<Value>>,
    /// Tells the admin page whether it does its work.
    say: watch::Sender<Readiness>,
    /// What peers sent and the engine has not been told yet.
    waiting: Arc<Waiting>,
    /// What the others published.
    documents: mpsc::Receiver<Vec<u8>>,
    /// What the program says of itself.
    about: About,
    /// What the system says of the program, for the metrics.
    process: Process,
    /// Looks whether connections can be accepted.
    accept_errors: AcceptErrors,
    /// Why the state could not be stored the last time.
    unstored: Option<String>,
}

impl AuthorityDaemon {
    async fn run(&mut self, shutdown: &Shutdown) {
        self.handle(self.now(), AuthorityInput::Wake).await;
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
                () = self.reload.asked() => self.configure(),
                () = shutdown.wait() => return,
            }
        }
    }

    /// Handles what waits: the message that came first, and a document. True if there was one.
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
        self.handle(now, AuthorityInput::Wake).await;
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Reads the configuration again: the lists, the parameters, the level of the log.
    fn configure(&mut self) {
        let Some(mut changes) = self.reload.read() else { return };
        let config = &self.reload.config;
        match parameters(config, &self.network) {
            Ok(read) => {
                changes.at_once("the network's parameters", &self.parameters, &read);
                self.parameters = read;
            }
            Err(error) => changes.refuse("authority.parameters", chain(&error)),
        }
        let AuthorityConfig { nodes, exits, .. } = &config.authority;
        self.allow.replace(peers(&self.authorities, config));
        self.waiting.replace_nodes(config.authority.senders());
        let organisations = config.authority.organisations();
        self.engine.configure(nodes.clone(), exits.clone(), organisations, self.parameters.clone());
        self.about.update(config);
        changes.say();
    }

    /// The first document of a network may be given by hand, signed by enough authorities.
    async fn given(&mut self) {
        if let Ok(bytes) = std::fs::read(&self.reload.config.topology) {
            self.document(bytes).await;
        }
    }

    /// A document is judged by when it can be used, whenever it came: it moves the engine's time past no message.
    async fn document(&mut self, bytes: Vec<u8>) {
        self.handle(self.time, AuthorityInput::Document(bytes)).await;
    }

    async fn message(&mut self, message: Message) {
        let Message { at, from, message, .. } = message;
        let input = match message {
            ToAuthority::Peer(bytes) if self.authorities.contains(&from) => {
                AuthorityInput::Message { from, bytes }
            }
            ToAuthority::Descriptor(bytes) => AuthorityInput::Descriptor(bytes),
            ToAuthority::Exit(bytes) => AuthorityInput::Exit(bytes),
            ToAuthority::Head(bytes) => AuthorityInput::Head(bytes),
            ToAuthority::Report(bytes) => AuthorityInput::Report(bytes),
            ToAuthority::Peer(_) => return,
        };
        self.handle(at, input).await;
    }

    /// Tells the engine of something that came at `at`.
    async fn handle(&mut self, at: u64, input: AuthorityInput) {
        self.time = at.max(self.time);
        self.engine.handle(self.time, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                AuthorityOutput::Send { to, bytes } => {
                    self.authority_links.tell(&to, &ToAuthority::Peer(bytes))
                }
                AuthorityOutput::Store { ticket, state } => {
                    // To the disk before anything signed leaves.
                    let path = state_file(&self.reload.config);
                    let stored =
                        tokio::task::spawn_blocking(move || secret::replace(&path, &state)).await;
                    let failed = match stored {
                        Ok(stored) => stored.err().map(|error| chain(&error)),
                        Err(_) => Some("its task has ended".into()),
                    };
                    self.stored(ticket, failed);
                }
                AuthorityOutput::Evidence(evidence) => {
                    let path = evidence_file(&self.reload.config);
                    let kept =
                        tokio::task::spawn_blocking(move || secret::replace(&path, &evidence))
                            .await;
                    if let Ok(Err(error)) = kept {
                        tracing::warn!("cannot keep what the reports showed: {error}");
                    }
                }
                AuthorityOutput::Document(_) => self.publish(),
                AuthorityOutput::Liar { authority, proof } => self.liar(&authority, &proof),
                AuthorityOutput::Event(event) => log(&event),
            }
        }
    }

    /// The state lies on the disk, or why not.
    fn stored(&mut self, ticket: u64, failed: Option<String>) {
        match &failed {
            None => {
                if self.unstored.is_some() {
                    tracing::info!("the state can be stored again");
                }
                self.engine.handle(self.time, AuthorityInput::Stored(ticket));
            }
            Some(why) => {
                self.gauges.failures.inc();
                // The engine gets no answer and holds the signature back: one that the disk does not know might be
                // given again, to another document.
                tracing::error!("cannot store the state, so nothing is signed: {why}");
            }
        }
        self.unstored = failed;
    }

    /// Gives all documents that are held to those who are linked.
    fn publish(&self) {
        let documents: Vec<Arc<[u8]>> = self
            .engine
            .documents()
            .iter()
            .map(|held: &VerifiedDocument| held.signed.clone())
            .collect();
        // For the next start, which reads this file.
        if let Some(newest) = documents.last()
            && let Err(error) = secret::replace(&self.reload.config.topology, newest)
        {
            tracing::warn!("cannot keep the topology document: {error}");
        }
        let nodes = self.engine.documents().iter().flat_map(|held| &held.document.nodes);
        let listed = nodes.flat_map(|node| &node.descriptor.body().addresses).map(|at| at.ip());
        let all =
            listed.chain(self.authority_addresses.iter().copied()).map(|ip| ip.to_canonical());
        self.listed.replace(all.collect());
        self.publish.send_replace(documents);
    }

    fn liar(&self, authority: &Identity, proof: &Proof) {
        // One file for each kind of proof: a liar that goes on lying fills no disk.
        let name = format!("liar-{authority}-{}.proof", proof.kind());
        tracing::error!(
            "the authority {authority} lies: the proof is {name} in the data directory"
        );
        if let Err(error) =
            secret::replace(&self.reload.config.data_dir.join(name), &proof.encode())
        {
            tracing::error!("cannot keep the proof: {error}");
        }
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
struct Mailbox {
    waiting: Arc<Waiting>,
    clock: Clock,
}

/// Takes links until the end of the run.
async fn accept(
    mut endpoint: Endpoint,
    mailbox: Mailbox,
    documents: watch::Receiver<Vec<Arc<[u8]>>>,
    shutdown: Shutdown,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            link = endpoint.accept() => match link {
                Some(link) => _ = tasks.spawn(serve(link, mailbox.clone(), documents.clone())),
                None => break,
            },
            () = shutdown.wait() => break,
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
}

/// Reads what one peer says, and gives it every new document.
async fn serve(link: Link, mailbox: Mailbox, mut documents: watch::Receiver<Vec<Arc<[u8]>>>) {
    let Link { peer, mut sender, receiver, standing, .. } = link;
    // The handshake has found it on the list.
    standing.admit();
    let peer = Identity(peer);
    let mut received = Messages::of_at_most(receiver, mailbox.waiting.longest(&peer));
    let mut given: Vec<Arc<[u8]>> = Vec::new();
    documents.mark_changed();
    loop {
        tokio::select! {
            message = received.next() => {
                let Ok(bytes) = message else { return };
                // Taken before the message waits for room: a share that is full makes no vote late.
                let at = (mailbox.clock)();
                let Ok(message) = ToAuthority::decode(&bytes) else { return };
                if !mailbox.waiting.put(at, peer, bytes.len(), message).await {
                    return;
                }
            }
            changed = documents.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = documents.borrow_and_update().clone();
                // Peers keep what they have: each document goes to each of them once a link.
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
