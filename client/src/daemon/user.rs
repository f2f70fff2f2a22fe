//! A person's client: the engine's thread, the link's thread, and what joins them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
use super::{Config, Error, Ready as ReadyWatch, Shared, proxy, trust};
use crate::engine::{Arrival, Client, Evidence, Failure, GatewayMemory, GroupId, Output, Settings};
use crate::request::UdpPacket;
use crate::tunnel::{self, Read, Write};
use crate::uplink::{Ready, Uplink};

mod context;
mod report;

pub(super) use context::ProxyContext;
pub(super) use report::{CRITICAL, TRIAL};

/// Frames that wait for the engine; more are dropped, as a full network queue would.
const EVENTS: usize = 4_096;
/// Interval at which a new report is made.
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
/// Frames that are handled before streams get their turn.
const TURN: usize = 32;

/// The engine as the tasks of one thread share it.
pub(super) struct User {
    pub(super) client: Client,
    pub(super) clock: Clock,
    /// Why groups failed lately; those who wait for one look here.
    failures: VecDeque<(GroupId, Failure)>,
}

impl User {
    /// Why a group that is gone ended.
    fn failure(&self, id: GroupId) -> Failure {
        let found = self.failures.iter().rev().find(|(of, _)| *of == id);
        found.map_or(Failure::Closed, |(_, why)| *why)
    }
}

impl TunnelIo for User {
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

// Long: it makes each part once, in the order in which they need each other, and hands them to the threads that own
// them.
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
            let person = User { client, clock, failures: VecDeque::new() };
            let context = Rc::new(ProxyContext {
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
                context: context.clone(),
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
            let proxy = proxy::serve(listener, context, config.socks, shutdown.clone());
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

struct Driver {
    /// What the proxy's connections share, the engine among it.
    context: Rc<ProxyContext>,
    /// The uplink, which the link's thread shares.
    slots: Arc<Slots>,
    /// The network, with its authorities.
    network: Network,
    /// The configuration by which it goes.
    reload: Reload,
    /// The admission token for gateways; another one counts from the next link on.
    token: Arc<Mutex<Vec<u8>>>,
    /// Its long-lived identity, for its owner.
    own: Identity,
    /// Where `status` and the metrics find the report.
    shared: Shared,
    /// Tells the admin page whether it does its work.
    ready: ReadyWatch,
    /// Packets that came while the engine's queue was full.
    overrun: Arc<AtomicU64>,
    /// Dummies that came.
    dummies: Arc<AtomicU64>,
    /// Of these, how many the engine knows of.
    dummies_told: u64,
    /// Tells the link which gateway to use.
    goal: Arc<Goal>,
    /// Tells gateways which documents there are.
    has: Has,
    /// The client's keys, by period.
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
    /// Why there is no link, if there is none.
    down: Option<Down>,
    /// The gateway that it is linked to, by its index among those of the configuration.
    linked: Option<usize>,
    /// Whom the network can lose, by the document in use.
    spares: RefCell<Spares>,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: &Shutdown) {
        let hub = self.context.hub.clone();
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
            let client = &mut self.context.hub.engine.borrow_mut().client;
            client.set_settings(settings(&next.config, client.class()));
        }
        self.reload.adopt(next, &self.token);
        self.news = true;
    }

    fn handle(&mut self, event: Event) {
        let hub = self.context.hub.clone();
        let mut person = hub.engine.borrow_mut();
        let now = person.clock.now();
        self.news |= !matches!(event, Event::Frame(..));
        match event {
            Event::Up(gateway, inbox) => {
                info!("linked to a gateway");
                self.down = None;
                self.context.unlinked_since.set(None);
                self.linked = self.place(&gateway);
                self.left = self.left.filter(|(left, _)| self.linked != Some(*left));
                person.client.set_inbox(inbox);
                person.client.set_link(now, Some(gateway));
                self.restart(&mut person.client, now);
            }
            Event::Down(_, why) => {
                if self.linked.take().is_some() {
                    warn!("the link is down: {why}");
                    self.context.unlinked_since.set(Some(now));
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
        let hub = self.context.hub.clone();
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
        let client = &mut self.context.hub.engine.borrow_mut().client;
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
        let mut person = self.context.hub.engine.borrow_mut();
        let now = person.clock.now();
        let turns = person.client.turns(now);
        if let Ok(mut uplink) = self.slots.uplink.lock() {
            uplink.set_class(person.client.class().clone());
            uplink.follow_from(self.followed_from, turns);
        }
    }

    /// Goes to the other gateway. The log says why, in totals.
    fn leave(&mut self) {
        let evidence = self.context.hub.engine.borrow().client.evidence();
        let (Some(linked), Some(evidence)) = (self.linked, evidence) else { return };
        warn!("the gateway is left for the other one: {evidence}");
        self.left = Some((linked, evidence));
        self.goal.go((linked + 1) % self.reload.config.gateways.len().max(1));
    }

    fn pass_on(&mut self) {
        let hub = self.context.hub.clone();
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
                Some(Output::Connected(_)) => self.context.changed.notify_waiters(),
                Some(Output::Failed(id, why)) => {
                    {
                        let mut person = hub.engine.borrow_mut();
                        person.failures.push_back((id, why));
                        if person.failures.len() > 512 {
                            person.failures.pop_front();
                        }
                    }
                    hub.wake_all(id);
                    self.context.changed.notify_waiters();
                }
                Some(Output::Tunnel(id, event)) => {
                    if let tunnel::TunnelEvent::Available = event {
                        self.context.changed.notify_waiters();
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
        let mut person = self.context.hub.engine.borrow_mut();
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
}
