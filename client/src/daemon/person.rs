//! A person's client: the engine's thread, the link's thread, and what joins them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shoal_host::about;
use shoal_host::admin::Readiness;
use shoal_host::logs;
use shoal_host::network;
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::backend::Backend;
use shoal_topology::wire::client_gateway::Mode;
use shoal_topology::{
    Class, Identity, Network, Parameters, SecretIdentity, Spares, Time, VerifiedDocument,
};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use super::clock::{Clock, unix_s};
use super::documents::{found_proof, keep_proof, verify};
use super::files::{Keys, run_seed, token};
use super::hub::{Key, StreamDriver, TunnelIo};
use super::keyring::ClientKeyring;
use super::link::{Down, Event, Goal, Has, Inbox, Link, Out, Slots};
use super::reload::Reload;
use super::virtual_addresses::VirtualAddresses;
use super::{Config, Error, Ready as ReadyWatch, Report, Shared, proxy, trust};
use crate::engine::{
    Arrival, Client, Evidence, Failure, GatewayMemory, GroupId, Isolation, LoopCounts, MAX_GROUPS,
    Output, Settings, Stage, Target, Unprotected,
};
use crate::gauge::Reading;
use crate::request::{Request, Response, UdpPacket};
use crate::socks::ReplyCode;
use crate::tunnel::{self, Read, StreamId, Write};
use crate::uplink::{Ready, Uplink};

/// Frames that wait for the engine; more are dropped, as a full network queue would.
const EVENTS: usize = 4_096;
/// How often the report is made anew.
const REPORT: Duration = Duration::from_millis(500);
/// Messages that are remembered for each key.
const MESSAGES: usize = 1 << 20;
/// Requests wait for a link, unless there has been none for so long.
const LINK_WAIT: Duration = Duration::from_secs(20);
/// Sealing is taken to last no longer: after a standstill slots are used again at once.
const SEALING_AT_MOST: Duration = Duration::from_millis(10);
/// A document is taken so long after it came, and slots follow it from twice that on: what a gateway sees of frames must
/// not show how busy the engine was. Slots in between are planned by then, and have their cover.
const DOCUMENT_WAITS: Duration = Duration::from_millis(250);
/// Documents that wait for it; beyond it the oldest is taken at once.
const DOCUMENTS_WAIT: usize = 4;
/// How often a request that waits looks whether it is better asked of another service.
const ELSEWHERE: Duration = Duration::from_millis(250);
/// Frames that are handled before streams get their turn.
const TURN: usize = 32;

/// The engine as the tasks of one thread share it.
pub(super) struct Person {
    pub(super) client: Client,
    pub(super) clock: Clock,
    /// Why groups failed lately; those who wait for one look here.
    failures: VecDeque<(GroupId, Failure)>,
}

impl Person {
    /// Why a group that is gone ended.
    fn failure(&self, id: GroupId) -> Failure {
        let found = self.failures.iter().rev().find(|(of, _)| *of == id);
        found.map_or(Failure::Closed, |(_, why)| *why)
    }
}

impl TunnelIo for Person {
    type Tunnel = GroupId;

    fn read(&mut self, (id, stream): Key<Self>, buf: &mut [u8]) -> Read {
        let tunnel = self.client.tunnel(id);
        let read = tunnel.map_or(Read::Reset(tunnel::GONE), |tunnel| tunnel.read(stream, buf));
        // Who waits in vain uses nothing.
        if !matches!(read, Read::Blocked) {
            self.client.touch(self.clock.now(), id);
        }
        read
    }

    fn write(&mut self, (id, stream): Key<Self>, data: &[u8]) -> Write {
        self.client.touch(self.clock.now(), id);
        let tunnel = self.client.tunnel(id);
        tunnel.map_or(Write::Stopped(tunnel::GONE), |tunnel| tunnel.write(stream, data))
    }

    fn finish(&mut self, (id, stream): Key<Self>) {
        if let Some(tunnel) = self.client.tunnel(id) {
            tunnel.finish(stream);
        }
    }

    fn reset(&mut self, (id, stream): Key<Self>, code: u64) {
        if let Some(tunnel) = self.client.tunnel(id) {
            tunnel.reset(stream, code);
        }
    }

    fn stop(&mut self, (id, stream): Key<Self>, code: u64) -> bool {
        self.client.tunnel(id).is_some_and(|tunnel| tunnel.stop(stream, code))
    }

    fn is_quiet(&mut self, id: GroupId) -> bool {
        self.client.tunnel(id).is_none_or(|tunnel| tunnel.is_quiet())
    }

    fn datagram(&mut self, id: GroupId, data: Vec<u8>) -> bool {
        self.client.touch(self.clock.now(), id);
        self.client.tunnel(id).is_some_and(|tunnel| {
            data.len() <= tunnel.max_datagram_len() && tunnel.send_datagram(data)
        })
    }

    fn closed(&mut self, (id, _): Key<Self>) {
        self.client.closed(self.clock.now(), id);
    }
}

/// What the proxy's tasks hold.
pub(super) struct ProxyContext {
    pub(super) hub: Rc<StreamDriver<Person>>,
    /// A group connected, failed, or has room for a stream.
    pub(super) changed: Notify,
    /// Requests by how they ended.
    pub(super) tally: RefCell<Tally>,
    /// Why requests were refused last, to say it once.
    refused_for: Cell<Option<std::mem::Discriminant<Unprotected>>>,
    /// Connections of programs that the system could not give us.
    pub(super) accept_failed: Cell<u64>,
    /// The log has it that there are no more places for isolation groups.
    said_full: Cell<bool>,
    /// Since when no gateway has let us in.
    unlinked_since: Cell<Option<Time>>,
    /// Addresses that stand for services.
    pub(super) virtual_addresses: RefCell<VirtualAddresses>,
}

/// How requests ended. No targets, no times.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) open: u64,
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) malformed: u64,
    pub(super) turned_away: u64,
}

/// A stream on which a request was answered, and what came after the answer.
pub(super) type Answered = (super::hub::Stream<Person>, Response, Vec<u8>);

impl ProxyContext {
    /// Opens a stream in the group of this isolation and target, and asks `request` on it.
    ///
    /// # Errors
    /// The reply for the user's program.
    pub(super) async fn ask(
        &self,
        isolation: Isolation,
        target: Target,
        request: &Request,
    ) -> Result<Answered, ReplyCode> {
        let mut failed = ReplyCode::GeneralFailure;
        // A tunnel that closes before the request is under way says nothing about the request.
        for _ in 0..3 {
            let (id, stream) = match self.stream(isolation, target).await {
                Ok(opened) => opened,
                Err((code, again)) if again => {
                    failed = code;
                    continue;
                }
                Err((code, _)) => return Err(code),
            };
            let stream = self.hub.stream((id, stream));
            let complaint = Complaint { shop: self, id, answered: false.into() };
            if stream.write(&request.encode()).await.is_err() {
                continue;
            }
            let mut rest = Vec::new();
            let response = tokio::select! {
                response = stream.message(&mut rest, Response::decode) => response,
                () = self.better_elsewhere(id) => continue,
            };
            complaint.answered.set(true);
            return match response {
                Ok(Response::Failed(code)) => Err(code),
                Ok(response) => Ok((stream, response, rest)),
                Err(_) if self.hub.engine.borrow().client.stage(id).is_none() => {
                    // The service has forgotten the tunnel, to make room for others, say.
                    (failed, _) = reply(self.hub.engine.borrow().failure(id), target);
                    continue;
                }
                Err(_) => Err(ReplyCode::GeneralFailure),
            };
        }
        Err(failed)
    }

    /// Returns when the service of this group has been silent for seconds and another could answer: it is avoided from
    /// then on.
    async fn better_elsewhere(&self, id: GroupId) {
        loop {
            tokio::time::sleep(ELSEWHERE).await;
            let mut person = self.hub.engine.borrow_mut();
            let now = person.clock.now();
            if person.client.may_go_elsewhere(now, id) {
                person.client.avoid(now, id);
                return;
            }
        }
    }

    /// A request is refused, since nothing may leave. The reply has no room for the reason: the log has it, once.
    fn refuse(&self, why: &Unprotected) {
        let kind = std::mem::discriminant(why);
        if self.refused_for.replace(Some(kind)) != Some(kind) {
            warn!("requests are refused: {why}");
        }
    }

    /// A stream of a group that stands; the boolean of an error says whether to try again.
    async fn stream(
        &self,
        isolation: Isolation,
        target: Target,
    ) -> Result<(GroupId, StreamId), (ReplyCode, bool)> {
        let mut id = {
            let mut person = self.hub.engine.borrow_mut();
            let now = person.clock.now();
            match person.client.protection(now) {
                Ok(()) => self.refused_for.set(None),
                Err(why @ (Unprotected::NoGateway | Unprotected::NoDocument)) => {
                    // What may come by itself is waited for, until the request's own time is up.
                    let since = self.unlinked_since.get();
                    if since.is_some_and(|since| now.since(since) > LINK_WAIT) {
                        self.refuse(&why);
                        return Err((ReplyCode::NetworkUnreachable, false));
                    }
                }
                Err(why) => {
                    self.refuse(&why);
                    return Err((ReplyCode::NotAllowed, false));
                }
            }
            let id = person.client.group(now, isolation, target);
            if id.is_none() && !self.said_full.replace(true) {
                warn!(
                    "a request is refused: all {MAX_GROUPS} places for user names and services that are kept apart are in use"
                );
            }
            id.ok_or((ReplyCode::GeneralFailure, false))?
        };
        self.hub.wake_engine.notify_one();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut person = self.hub.engine.borrow_mut();
                let now = person.clock.now();
                match person.client.stage(id) {
                    Some(Stage::Connected) => {
                        if let Some(stream) = person.client.open(now, id) {
                            return Ok((id, stream));
                        }
                        // Full, by those who waited with this one.
                        if let Some(other) = person.client.group(now, isolation, target) {
                            id = other;
                            self.hub.wake_engine.notify_one();
                        }
                    }
                    Some(_) => {}
                    None => return Err(reply(person.failure(id), target)),
                }
            }
            changed.await;
        }
    }
}

/// Tells the engine when a request is given up without an answer.
struct Complaint<'a> {
    shop: &'a ProxyContext,
    id: GroupId,
    answered: std::cell::Cell<bool>,
}

impl Drop for Complaint<'_> {
    fn drop(&mut self) {
        if !self.answered.get() {
            let mut person = self.shop.hub.engine.borrow_mut();
            let now = person.clock.now();
            person.client.complain(now, self.id);
            drop(person);
            self.shop.hub.wake_engine.notify_one();
        }
    }
}

fn reply(why: Failure, target: Target) -> (ReplyCode, bool) {
    match (why, target) {
        (Failure::UnknownGateway | Failure::UnknownService, _) => {
            (ReplyCode::ServiceNotFound, false)
        }
        (Failure::NoAnswer, Target::Service(_)) => (ReplyCode::ServiceTimedOut, false),
        (Failure::NoAnswer, Target::Exit) => (ReplyCode::TtlExpired, false),
        (Failure::NoPath, _) => (ReplyCode::NetworkUnreachable, false),
        (Failure::Silent | Failure::Closed | Failure::Idle | Failure::Garbage, _) => {
            (ReplyCode::GeneralFailure, true)
        }
    }
}

/// Starts the two threads. The listener is bound before this returns, so that its errors are.
pub(super) fn start(
    config: Config,
    shutdown: Shutdown,
    shared: Shared,
    ready: ReadyWatch,
) -> Result<std::thread::JoinHandle<()>, Error> {
    let network = network::load(&config.network)?;
    let mut keys = Keys::open(&config)?;
    keys.periods.begin(unix_s())?;
    let token = Arc::new(Mutex::new(token(&config)?));
    let own = SecretIdentity::from_bytes(&keys.identity).identity();
    let listener = std::net::TcpListener::bind(config.socks.listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| Error::Listen(config.socks.listen, error))?;

    let system = |what| move |source| Error::System { what, source };
    let seed = run_seed().map_err(system("drawing a seed"))?;
    let clock = Clock::start();
    // Until the document says what the class is, its usual shape stands in; nothing is sent before.
    let defaults = Parameters::default();
    let class = defaults.class(&config.class).or(defaults.classes.first()).cloned();
    let class = class.ok_or(Error::Value { key: "class", why: "unknown".into() })?;
    // A class is what the document says that it is, whatever its name: it is asked for by the name.
    let class = Class { name: config.class.clone(), ..class };
    let slots = Arc::new(Slots {
        uplink: Mutex::new(Uplink::new(&seed.part("uplink"), class.clone(), clock.now())),
        taken: Notify::new(),
        started: Notify::new(),
    });
    let (events_in, events) = mpsc::channel(EVENTS);
    let (overrun, dummies) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let named: Vec<Identity> = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let memory = trust::remembered(&config.data_dir);
    let goal = Arc::new(Goal::new(memory.begins_at(&named, unix_s())));
    let has = Has::default();
    let link = Link {
        clock,
        inbox: Inbox::OfTheLink,
        token: token.clone(),
        mode: Mode::Class(config.class.clone()),
        descriptor: None,
        events: events_in,
        overrun: overrun.clone(),
        dummies: dummies.clone(),
        goal: goal.clone(),
        renew: Arc::default(),
        has: has.clone(),
        seed: seed.part("link"),
    };
    let (gateways, out, stop) =
        (config.gateways.clone(), Out::Slots(slots.clone()), shutdown.clone());
    let link_thread = thread("shoal-link", move |runtime| {
        runtime.block_on(link.keep(&gateways, out, &stop));
    })
    .map_err(system("starting a thread"))?;

    thread("shoal-engine", move |runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let settings = settings(&config, &class);
            let now = clock.now();
            let Some((.., key)) = keys.periods.present(unix_s()) else { return };
            // Until the first link brings an inbox nothing is sent.
            let secrets = (key.clone(), keys.inbox.identity());
            let codec = Backend::best_codec();
            let mut client =
                Client::new(codec, (clock.base(), now), &seed, class, secrets, settings);
            client.set_gateways(&named, &memory);
            let all = keys.periods.all(unix_s()).into_iter().map(|(_, key)| key).collect();
            client.begin_keys(all, |key| keys.periods.memory(key, MESSAGES));
            if let Some(why) = found_proof(&config.data_dir) {
                warn!("{why}");
                client.halt(why);
            }
            let person = Person { client, clock, failures: VecDeque::new() };
            let shop = Rc::new(ProxyContext {
                hub: StreamDriver::new(person),
                changed: Notify::new(),
                tally: RefCell::default(),
                refused_for: Cell::default(),
                accept_failed: Cell::default(),
                said_full: Cell::default(),
                unlinked_since: Cell::new(Some(clock.now())),
                virtual_addresses: RefCell::default(),
            });
            let driver = Driver {
                shop: shop.clone(),
                slots,
                network,
                reload: Reload::new(config.clone(), &shutdown),
                token,
                own,
                shared,
                ready,
                overrun,
                dummies,
                dummies_told: 0,
                goal,
                has,
                left: None,
                memory,
                sealing: Cell::new(Duration::from_millis(1)),
                periods: keys.periods,
                waiting: VecDeque::new(),
                followed_from: Time::ZERO,
                news: false,
                down: None,
                linked: None,
                spares: RefCell::default(),
            };
            let proxy = proxy::serve(listener, shop, config.socks, shutdown.clone());
            tokio::join!(driver.run(events, &shutdown), proxy);
        });
        let _ = link_thread.join();
    })
    .map_err(system("starting a thread"))
}

/// What the engine is told of the configuration, by a client of this class.
fn settings(config: &Config, class: &Class) -> Settings {
    Settings {
        allow_shared_gateway: config.protect.allow_shared_gateway,
        min_mixes_per_layer: config.protect.min_mixes_per_layer,
        min_bits: config.protect.min_bits,
        allow_small_crowd: config.protect.allow_small_crowd,
        replies: config.protect.replies(),
        // Its contact is given to nobody.
        reachable: false,
        letters_at_once: false,
        tunnel: tunnel::Settings {
            // Three hops each way and the slots: what a first answer takes.
            initial_rtt: 3 * class.delay.total_mean(3),
            ..tunnel::Settings::default()
        },
    }
}

/// A thread with a runtime of its own.
pub(super) fn thread(
    name: &str,
    body: impl FnOnce(tokio::runtime::Runtime) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || body(runtime))
}

/// What a client shows on its admin page, but for the bits of anonymity: these and the operators that cannot be lost
/// (`critical`) follow from the document, and nothing moves
/// with what the user does, such as requests, tunnels, SURBs or loops (whose place packets take). All of that is in
/// `status`, for the user alone.
fn exported(is_ready: bool, slots: u64, critical: usize) -> Vec<(&'static str, &'static str, f64)> {
    vec![
        ("shoal_client_critical_operators", CRITICAL, critical as f64),
        ("shoal_client_ready", "1 if user traffic may leave", f64::from(u8::from(is_ready))),
        ("shoal_client_slots_total", "Slots that passed, whatever filled them", slots as f64),
    ]
}

/// Help of a gauge, the same of clients, services, nodes and authorities.
pub(super) const CRITICAL: &str = "Operators whose loss would leave layers short or the network without documents, by the document in use";

/// What people are told in a network for trial.
pub(super) const TRIAL: &str = "this network was founded for trial: its people are too few to hide each other, so expect no protection";

/// The first sentence of `status`.
fn summary(
    not_ready: Option<&str>,
    is_trial: bool,
    allows_few: bool,
    crowd: Option<(f64, Reading)>,
) -> String {
    if let Some(why) = not_ready {
        return format!("Nothing of yours leaves: {why}.");
    }
    let crowd = match crowd {
        Some((bits, Reading::Fine)) => {
            return format!("Connected and protected: {:.1} bits of anonymity expected.", bits);
        }
        Some((bits, _)) => {
            format!("{:.2} bits of anonymity expected", (bits * 100.0).floor() / 100.0)
        }
        None => "nobody knows how many others send".into(),
    };
    if is_trial {
        format!("Connected, without protection: this network is for trial ({crowd}).")
    } else if allows_few {
        format!(
            "Connected, with little protection or none, as protect.allow_small_crowd asks: {crowd}."
        )
    } else {
        format!("Connected, with less protection than usual: {crowd}.")
    }
}

struct Driver {
    shop: Rc<ProxyContext>,
    slots: Arc<Slots>,
    network: Network,
    /// The configuration by which it goes.
    reload: Reload,
    token: Arc<Mutex<Vec<u8>>>,
    /// Its long-lived identity, for its owner.
    own: Identity,
    shared: Shared,
    ready: ReadyWatch,
    overrun: Arc<AtomicU64>,
    dummies: Arc<AtomicU64>,
    /// Of these, how many the engine knows of.
    dummies_told: u64,
    /// Tells the link which gateway to use.
    goal: Arc<Goal>,
    /// Tells gateways which documents there are.
    has: Has,
    /// Keys, by period.
    periods: ClientKeyring,
    /// The gateway that was left, and what for.
    left: Option<(usize, Evidence)>,
    /// What the data directory says of the gateways.
    memory: GatewayMemory,
    /// How long it takes to seal what the user has: slots that come sooner are not for it.
    sealing: Cell<Duration>,
    /// Documents that came, and when.
    waiting: VecDeque<(Time, VerifiedDocument)>,
    /// From when on slots follow the last one that was taken.
    followed_from: Time,
    /// Something changed that `status` must say at once.
    news: bool,
    down: Option<Down>,
    linked: Option<usize>,
    /// Whom the network can lose, by the document in use.
    spares: RefCell<Spares>,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: &Shutdown) {
        let hub = self.shop.hub.clone();
        let clock = hub.engine.borrow().clock;
        let mut next_report = clock.now();
        loop {
            for _ in 0..TURN {
                match events.try_recv() {
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
            let now = clock.now();
            self.take_documents(now);
            let dummies = self.dummies.load(Ordering::Relaxed);
            let new = dummies - std::mem::replace(&mut self.dummies_told, dummies);
            hub.engine.borrow_mut().client.dummies(now, new);
            if hub.engine.borrow_mut().client.next_timeout() <= now {
                hub.engine.borrow_mut().client.handle_timeout(now);
            }
            self.pass_on();
            let produced = self.produce();
            self.pass_on();
            if std::mem::take(&mut self.news) || now >= next_report {
                next_report = now + REPORT;
                self.turn_keys();
                self.report();
                let memory = hub.engine.borrow().client.gateway_memory();
                trust::keep(&self.reload.config.data_dir, &mut self.memory, memory);
            }
            if produced || !events.is_empty() {
                // The streams' tasks run in between.
                tokio::task::yield_now().await;
                if shutdown.is_triggered() {
                    return;
                }
                continue;
            }
            let next = hub.engine.borrow_mut().client.next_timeout().min(next_report);
            let next = self.waiting.front().map_or(next, |(at, _)| next.min(*at + DOCUMENT_WAITS));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => return,
                },
                () = self.slots.taken.notified() => {}
                () = hub.wake_engine.notified() => {}
                () = clock.sleep_until(next) => {}
                () = self.reload.asked() => self.read_again(),
                () = shutdown.wait() => return,
            }
        }
    }

    /// Goes by the configuration as it is now.
    fn read_again(&mut self) {
        let Some(next) = self.reload.read() else { return };
        {
            let client = &mut self.shop.hub.engine.borrow_mut().client;
            client.set_settings(settings(&next.config, client.class()));
        }
        self.reload.adopt(next, &self.token);
        self.news = true;
    }

    fn handle(&mut self, event: Event) {
        let hub = self.shop.hub.clone();
        let mut person = hub.engine.borrow_mut();
        let now = person.clock.now();
        self.news |= !matches!(event, Event::Frame(..));
        match event {
            Event::Up(gateway, inbox) => {
                info!("linked to a gateway");
                self.down = None;
                self.shop.unlinked_since.set(None);
                self.linked = self.place(&gateway);
                self.left = self.left.filter(|(left, _)| self.linked != Some(*left));
                person.client.set_inbox(inbox);
                person.client.set_link(now, Some(gateway));
                self.restart(&mut person.client, now);
            }
            Event::Down(_, why) => {
                if self.linked.take().is_some() {
                    warn!("the link is down: {why}");
                    self.shop.unlinked_since.set(Some(now));
                } else if self.down != Some(why) {
                    warn!("no link: {why}");
                }
                self.down = Some(why);
                person.client.set_link(now, None);
                self.slots.forget();
            }
            Event::Frame(_, frame) => {
                // Those that came before it are known before it: they say how long it can have waited in a queue.
                let dummies = self.dummies.load(Ordering::Relaxed);
                let new = dummies - std::mem::replace(&mut self.dummies_told, dummies);
                person.client.dummies(now, new);
                if person.client.handle_frame(now, frame) == Arrival::FromOthers
                    && let Ok(mut uplink) = self.slots.uplink.lock()
                {
                    uplink.credit();
                }
            }
            Event::Document(bytes, at) => match self.verify(bytes, unix_s()) {
                Ok(held) => {
                    self.has.add(&held.signed);
                    if person.client.epoch(now).is_none() {
                        self.take(&mut person.client, now, held);
                        self.restart(&mut person.client, now);
                    } else {
                        self.waiting.push_back((at, held));
                    }
                }
                Err(why) => {
                    warn!("the gateway sent a topology document that is refused: {why}");
                    person.client.refuse_document(why);
                }
            },
        }
    }

    /// Takes the documents whose time has come.
    fn take_documents(&mut self, now: Time) {
        let hub = self.shop.hub.clone();
        while let Some((at, _)) = self.waiting.front()
            && (now >= *at + DOCUMENT_WAITS || self.waiting.len() > DOCUMENTS_WAIT)
            && let Some((at, held)) = self.waiting.pop_front()
        {
            self.followed_from = at + 2 * DOCUMENT_WAITS;
            self.take(&mut hub.engine.borrow_mut().client, now, held);
            self.pass_on();
        }
    }

    fn take(&self, client: &mut Client, now: Time, held: VerifiedDocument) {
        if let Err(two) = client.set_document(now, unix_s(), held) {
            error!("{two}");
            if let Err(error) = keep_proof(&self.reload.config.data_dir, &two) {
                error!("the proof cannot be kept: {error}");
            }
        }
    }

    /// Another period: another key opens what comes.
    fn turn_keys(&mut self) {
        let client = &mut self.shop.hub.engine.borrow_mut().client;
        let early = client.memory_fullness() > 0.75;
        if let Some(keys) = self.periods.rotate_now(unix_s(), early, |_| false) {
            client.set_keys(keys, |key| self.periods.memory(key, MESSAGES));
        }
    }

    /// The place of a gateway in the configuration.
    fn place(&self, gateway: &Identity) -> Option<usize> {
        self.reload.config.gateways.iter().position(|g| g.identity == *gateway)
    }

    fn verify(&self, bytes: Vec<u8>, unix_s: u64) -> Result<VerifiedDocument, String> {
        let held = verify(bytes, &self.network, unix_s).map_err(|error| error.to_string())?;
        let parameters = &held.document.parameters;
        if parameters.class(&self.reload.config.class).is_none() {
            let names: Vec<_> =
                parameters.classes.iter().map(|class| class.name.as_str()).collect();
            return Err(format!("class: the network has the classes {}", names.join(", ")));
        }
        Ok(held)
    }

    /// Begins a new schedule, for a link that is new.
    fn restart(&self, client: &mut Client, now: Time) {
        let turns = client.turns(now);
        if let Ok(mut uplink) = self.slots.uplink.lock() {
            uplink.set_class(client.class().clone());
            uplink.clear(turns);
            uplink.restart(now);
        }
        self.slots.started.notify_one();
    }

    /// Another epoch or document: the schedule goes on.
    fn turn(&self) {
        if self.linked.is_none() {
            // The next link begins a schedule of its own.
            return;
        }
        let mut person = self.shop.hub.engine.borrow_mut();
        let now = person.clock.now();
        let turns = person.client.turns(now);
        if let Ok(mut uplink) = self.slots.uplink.lock() {
            uplink.set_class(person.client.class().clone());
            uplink.follow_from(self.followed_from, turns);
        }
    }

    /// Goes to the other gateway. The log says why, in totals.
    fn leave(&mut self) {
        let evidence = self.shop.hub.engine.borrow().client.evidence();
        let (Some(linked), Some(evidence)) = (self.linked, evidence) else { return };
        warn!("the gateway is left for the other one: {evidence}");
        self.left = Some((linked, evidence));
        self.goal.go((linked + 1) % self.reload.config.gateways.len().max(1));
    }

    fn pass_on(&mut self) {
        let hub = self.shop.hub.clone();
        loop {
            let output = hub.engine.borrow_mut().client.poll_output();
            match output {
                None => return,
                // The daemon gives its contact to nobody, so whatever this is, no program waits for it.
                Some(Output::Message(..) | Output::Media(_)) => {}
                Some(Output::EpochChanged) => self.turn(),
                Some(Output::LeaveGateway) => self.leave(),
                Some(Output::ComeBack) => {
                    info!("the first gateway is tried again");
                    self.goal.go(0);
                }
                Some(Output::Connected(_)) => self.shop.changed.notify_waiters(),
                Some(Output::Failed(id, why)) => {
                    {
                        let mut person = hub.engine.borrow_mut();
                        person.failures.push_back((id, why));
                        if person.failures.len() > 512 {
                            person.failures.pop_front();
                        }
                    }
                    hub.wake_all(id);
                    self.shop.changed.notify_waiters();
                }
                Some(Output::Tunnel(id, event)) => {
                    if let tunnel::TunnelEvent::Available = event {
                        self.shop.changed.notify_waiters();
                    }
                    let association =
                        |data: &[u8]| Some(UdpPacket::decode_datagram(data).ok()?.association);
                    hub.dispatch(id, &event, association);
                }
            }
        }
    }

    /// Prepares frames, if some are missing.
    fn produce(&self) -> bool {
        let mut person = self.shop.hub.engine.borrow_mut();
        let now = person.clock.now();
        let from = now + 2 * self.sealing.get();
        let Ok((wants, sent)) =
            self.slots.uplink.lock().map(|mut uplink| (uplink.wants(from), uplink.sent_loops()))
        else {
            return false;
        };
        person.client.loops_sent(sent);
        let frames = person.client.produce(now, wants);
        let produced = !frames.is_empty();
        if frames
            .iter()
            .any(|(ready, ..)| matches!(ready, Ready::Data | Ready::Refill | Ready::Media))
        {
            // It falls slowly, so that one quick answer does not make the next one late.
            let took = person.clock.now().since(now);
            let usual = (self.sealing.get() * 7 + took) / 8;
            self.sealing.set(usual.max(took).min(SEALING_AT_MOST));
        }
        if let Ok(mut uplink) = self.slots.uplink.lock() {
            frames.into_iter().for_each(|(ready, slot, frame)| uplink.put(ready, slot, frame));
        }
        produced
    }

    fn report(&self) {
        let mut person = self.shop.hub.engine.borrow_mut();
        let now = person.clock.now();
        let protection = person.client.protection(now);
        let not_ready = match (&protection, self.down) {
            (Err(Unprotected::NoGateway | Unprotected::NoDocument), Some(down)) => {
                Some(down.to_string())
            }
            (Err(Unprotected::NoGateway), None) => Some("connecting to a gateway".into()),
            (Err(Unprotected::NoDocument), None) => {
                Some(network::no_document(&self.network, unix_s()))
            }
            (Err(why), _) => Some(why.to_string()),
            (Ok(()), _) => self.periods.why_stuck(unix_s()),
        };
        let config = &self.reload.config;
        let counts = person.client.counts();
        let loops = person.client.loops();
        let (_, surbs) = person.client.sizes();
        let stages = person.client.stages();
        let waiting = |stage| stages.iter().filter(|(at, _)| *at == stage).count();
        let filled = self.slots.uplink.lock().map(|uplink| uplink.filled()).unwrap_or_default();
        let tally = *self.shop.tally.borrow();
        let overrun = self.overrun.load(Ordering::Relaxed);
        let dummies = self.dummies.load(Ordering::Relaxed);
        let mut warnings = trust::warnings(&person.client, now, config.gateways.len());
        warnings.extend(self.periods.trouble().map(str::to_owned));
        if self.shop.accept_failed.get() > 0 {
            warnings.push(format!(
                "{} connections of programs could not be taken, for want of file descriptors most likely: raise the limit on open \
                 files",
                self.shop.accept_failed.get()
            ));
        }
        if tally.turned_away > 0 {
            warnings.push(format!(
                "{} connections of programs were turned away: all socks.max_connections = {} places were taken",
                tally.turned_away, config.socks.max_connections
            ));
        }
        let document = person.client.document(now).cloned();
        let is_trial = document.as_ref().is_some_and(|document| document.is_trial());
        if is_trial {
            warnings.push(TRIAL.into());
        }
        let mut spares = self.spares.borrow_mut();
        document.iter().for_each(|document| spares.follow(document));
        warnings.extend(spares.warning());
        if person.client.exits_are_all_behind(now) {
            warnings.push(
                "all exits are reached by your own gateway alone, which would see both ends, so none is used: name another \
                 gateway, or set protect.allow_shared_gateway"
                    .into(),
            );
        }
        match person.client.silent_services(now) {
            0 => {}
            1 => warnings.push("a service or exit in use does not answer".into()),
            n => {
                warnings.push(format!("{n} tunnels wait for services or exits that do not answer"))
            }
        }
        if counts.no_group > 0 {
            warnings.push(format!(
                "{} requests found all {MAX_GROUPS} places in use for user names and services that are kept apart",
                counts.no_group
            ));
        }
        if self.reload.config.protect.allow_shared_gateway {
            warnings
                .push("protect.allow_shared_gateway is set: one gateway may see both ends".into());
        }
        if let Some((left, evidence)) = self.left {
            let other = if left == 0 { "second" } else { "first" };
            warnings.push(format!("gateway {} was left for the {other}: {evidence}", left + 1));
        }
        if let Some(trouble) = person.client.refused_document() {
            warnings.push(format!("the last topology document was refused: {trouble}"));
        }
        let crowd = person.client.crowd();
        let bits = crowd.map(|(bits, _)| bits);
        let floor = person.client.document(now).map(|document| document.parameters.warn_bits);
        if let (Some((bits, Reading::Warn | Reading::Refuse)), Some(floor)) = (crowd, floor) {
            warnings.push(format!(
                "the expected anonymity is {:.2} bits: few others send now (the network warns below {floor})",
                (bits * 100.0).floor() / 100.0
            ));
        }
        if self.reload.config.protect.allow_small_crowd {
            warnings.push("protect.allow_small_crowd is set: you may stand alone".into());
        }
        let (known, back) = loops.recent;
        if known >= 20 && back * 2 < known {
            warnings.push(format!("{} of the last {known} loops were lost", known - back));
        }
        let gateway =
            self.linked.and_then(|place| config.gateways.get(place)).map(|of| of.identity);
        let operator = gateway.zip(document.as_ref()).and_then(|(of, document)| {
            let node = document.node(document.index_of(&of)?)?;
            Some(node.descriptor.body().operator.clone())
        });
        let span = person.client.epoch(now).map(|epoch| {
            let begins = epoch * u64::from(self.network.epoch_s);
            (begins, begins + u64::from(self.network.epoch_s))
        });
        let summary =
            summary(not_ready.as_deref(), is_trial, config.protect.allow_small_crowd, crowd);
        let LoopCounts { sent, returned, lost, median_ms, .. } = loops;
        let status = json!({
            "summary": summary,
            "role": "client",
            "version": about::version(),
            "identity": self.own.to_string(),
            "ready": not_ready.is_none(),
            "why_not": not_ready,
            "warnings": warnings,
            "class": self.reload.config.class,
            "strict": self.reload.config.protect.strict,
            "gateway": self.linked.map(|place| if place == 0 { "first" } else { "second" }),
            "gateway_operator": operator,
            "epoch": person.client.epoch(now),
            "epoch_began": span.map(|(begins, _)| logs::utc(begins)),
            "epoch_ends": span.map(|(_, ends)| logs::utc(ends)),
            "anonymity_bits": bits,
            "tunnels": {
                "looking_for_service": waiting(Stage::Looking),
                "connecting": waiting(Stage::Connecting),
                "connected": waiting(Stage::Connected),
            },
            "requests": {
                "waiting": tally.open, "answered": tally.answered, "refused": tally.refused,
                "malformed": tally.malformed, "turned_away": tally.turned_away,
            },
            "loops": {
                "sent": sent, "returned": returned, "lost": lost,
                "recent": known, "recent_returned": back, "median_ms": median_ms,
            },
            "slots": {
                "data": filled.data, "surbs": filled.refill, "loops": filled.loops,
                "cover": filled.drops, "filler": filled.filler,
            },
            "arrivals": {
                "packets": counts.packets, "dummies": dummies, "unknown": counts.unknown, "overrun": overrun,
                "replayed": counts.replayed, "late": counts.late, "junk": counts.junk,
            },
            "pauses": person.client.pauses(),
            "surbs_out": surbs,
            "packets_without_path": counts.no_path,
            "datagrams_lost": self.shop.hub.lost_datagrams(),
        });
        let slots = filled.total();
        let mut gauges = exported(not_ready.is_none(), slots, spares.critical());
        if let Some(bits) = bits {
            let help = "Expected anonymity of the next packet, bits";
            gauges.push(("shoal_client_anonymity_bits", help, bits));
        }
        let readiness = match &not_ready {
            None => Readiness::Ready,
            Some(why) => Readiness::NotReady(why.clone()),
        };
        let _ = self.ready.send(readiness);
        if let Ok(mut report) = self.shared.lock() {
            *report = Report { status, series: gauges };
        }
    }
}
