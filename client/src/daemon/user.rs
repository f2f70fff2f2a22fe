//! A user's client: the engine's thread, the link's thread, and what joins them.

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
    Class, Identity, Network, Parameters, SecretIdentity, Seed, Spares, Time, VerifiedDocument,
};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::clock::{Clock, unix_s};
use super::documents::{found_proof, keep_proof, verify};
use super::driver::{Drive, Publisher, drive};
use super::files::{Keys, descriptor_of, run_seed, token};
use super::hub::{Key, StreamDriver, TunnelIo};
use super::link::{DownReason, GatewayLink, Goal, Has, Inbox, LinkEvent, Out, Slots};
use super::mail::{Mail, Member, Order, Orders};
use super::reload::Reload;
use super::threads::thread;
use super::{ClientError, Config, Ready as ReadyWatch, Shared, trust};
use crate::engine::{
    Client, ClientOutput, ClientSettings, Evidence, Failure, GatewayMemory, GroupId,
};
use crate::request::UdpPacket;
use crate::sender::{Produced, Sender};
use crate::tunnel::{self, Read, TunnelSettings, Write};
use crate::uplink::Uplink;

mod context;
mod keys;
mod letters;
mod report;

pub(super) use context::{ProxyContext, Refused};
pub(super) use report::{CRITICAL, TRIAL};

/// Frames that wait for the engine; more are dropped, as a full network queue would.
const EVENTS: usize = 4_096;
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

/// The engine as the tasks of one thread share it.
pub(super) struct User {
    pub(super) client: Sender,
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
/// Starts the two threads: of the engine, which is returned, and of the link, which ends before it does. On the engine's
/// thread `attend` serves those who ask for connections, as long as it runs.
pub(super) fn start<F>(
    config: Config,
    shutdown: Shutdown,
    (shared, ready): (Shared, ReadyWatch),
    mail: Option<Mail>,
    attend: impl FnOnce(Rc<ProxyContext>) -> F + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, ClientError>
where
    F: Future<Output = ()>,
{
    let network = network::load(&config.network)?;
    let mut keys = Keys::open(&config)?;
    keys.periods.begin(unix_s())?;
    let inbox = match config.reachable {
        true => Inbox::Kept(Box::new(keys.inbox.clone())),
        false => Inbox::OfTheLink,
    };
    let token = Arc::new(Mutex::new(token(&config)?));
    let own = SecretIdentity::from_bytes(&keys.identity).identity();
    let system = |what| move |source| ClientError::System { what, source };
    let seed = run_seed().map_err(system("drawing a seed"))?;
    let clock = Clock::start();
    let mut sender = sender(&config, &keys, (clock, &seed), class(&config)?)?;
    let slots = Slots::new(sender.slots());
    let (events_in, events) = mpsc::channel(EVENTS);
    let (overrun, dummies) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let named: Vec<Identity> = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let keys = Arc::new(Mutex::new(keys));
    let member = mail.as_ref().map(|mail| mail.member.clone()).unwrap_or_default();
    let descriptor: Option<Arc<dyn Fn() -> Vec<u8> + Send + Sync>> = config
        .reachable
        .then(|| Arc::new(descriptor_of(keys.clone(), named.clone(), member.clone())) as _);
    let memory = trust::remembered(&config.data_dir);
    let goal = Arc::new(Goal::new(memory.begins_at(&named, unix_s())));
    let has = Has::default();
    let link = GatewayLink {
        clock,
        inbox,
        token: token.clone(),
        mode: Mode::Class(config.class.clone()),
        descriptor: descriptor.clone(),
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
            sender.set_gateways(&named, &memory);
            let user = User { client: sender, clock, failures: VecDeque::new() };
            let context = ProxyContext::new(user);
            let orders = mail.as_ref().map(|mail| mail.orders.clone());
            let lost_letters = mail.as_ref().map(|mail| mail.lost.clone()).unwrap_or_default();
            let driver = Driver {
                orders,
                lost_letters,
                member,
                context: context.clone(),
                slots,
                network,
                reload: Reload::new(config.clone(), &shutdown),
                token,
                own,
                publisher: Publisher { shared, ready },
                overrun,
                dummies,
                dummies_told: 0,
                goal,
                has,
                left: None,
                memory,
                sealing: Cell::new(Duration::from_millis(1)),
                keys,
                descriptor,
                told: None,
                quiet_since: Time::ZERO,
                waiting: VecDeque::new(),
                followed_from: Time::ZERO,
                news: false,
                down: None,
                linked: None,
                spares: RefCell::default(),
            };
            let posting = letters::post(context.clone(), mail, &shutdown);
            tokio::join!(drive(driver, clock, events, &shutdown), attend(context), posting);
        });
        let _ = link_thread.join();
    })
    .map_err(system("starting a thread"))
}

/// The class of a client, as far as it is known before there is a document: what the document says of the class of this
/// name holds, and until then its usual shape. Nothing is sent before.
fn class(config: &Config) -> Result<Class, ClientError> {
    let defaults = Parameters::default();
    let usual = defaults.class(&config.class).or(defaults.classes.first()).cloned();
    let usual = usual.ok_or(ClientError::Value { key: "class", why: "unknown".into() })?;
    Ok(Class { name: config.class.clone(), ..usual })
}

/// The engine with its slots. Until the first link brings an inbox nothing is sent.
fn sender(
    config: &Config,
    keys: &Keys,
    (clock, seed): (Clock, &Seed),
    class: Class,
) -> Result<Sender, ClientError> {
    let missing =
        ClientError::Value { key: "data_dir", why: "it holds no key of the period".into() };
    let (.., key) = keys.periods.present(unix_s()).ok_or(missing)?;
    let secrets = (key.clone(), keys.inbox.identity());
    let (settings, now) = (settings(config, &class), clock.now());
    let uplink = Uplink::new(&seed.part("uplink"), class.clone(), now);
    let (codec, times) = (Backend::best_codec(), (clock.base(), now));
    let mut client = Client::new(codec, times, seed, class, secrets, settings);
    let all = keys.periods.all(unix_s()).into_iter().map(|(_, key)| key).collect();
    client.begin_keys(all, |key| keys.periods.memory(key, MESSAGES));
    if let Some(why) = found_proof(&config.data_dir) {
        warn!("{why}");
        client.halt(why);
    }
    Ok(Sender::new(client, uplink))
}

/// What the engine is told of the configuration, by a client of this class.
fn settings(config: &Config, class: &Class) -> ClientSettings {
    ClientSettings {
        allow_shared_gateway: config.protect.allow_shared_gateway,
        min_mixes_per_layer: config.protect.min_mixes_per_layer,
        min_bits: config.protect.min_bits,
        allow_small_crowd: config.protect.allow_small_crowd,
        replies: config.protect.replies(),
        reachable: config.reachable,
        letters_at_once: false,
        tunnel: TunnelSettings {
            // Three hops each way and the slots: what a first answer takes.
            initial_rtt: 3 * class.delay.total_mean(3),
            ..TunnelSettings::default()
        },
    }
}

struct Driver {
    /// What the proxy's connections share, the engine among it.
    context: Rc<ProxyContext>,
    /// The way to the thread of messages, if there is one.
    orders: Option<Orders>,
    /// Letters that came and could not be kept.
    lost_letters: Arc<AtomicU64>,
    /// What the descriptor says of the client as a member of an organisation.
    member: Arc<Member>,
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
    /// Where its reports go.
    publisher: Publisher,
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
    /// The client's keys.
    keys: Arc<Mutex<Keys>>,
    /// Makes the descriptor for the gateway, of whom others can write to.
    descriptor: Option<Arc<dyn Fn() -> Vec<u8> + Send + Sync>>,
    /// Of the key that the gateway was told of last, when its period begins, and whether it was told of a member.
    told: Option<(u64, bool)>,
    /// When the link came up, or a letter last came over it: what waited at the gateway comes at once.
    quiet_since: Time,
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
    down: Option<DownReason>,
    /// The gateway that it is linked to, by its index among those of the configuration.
    linked: Option<usize>,
    /// Whom the network can lose, by the document in use.
    spares: RefCell<Spares>,
}

impl Drive for Driver {
    type Engine = User;
    const TURN: usize = 32;

    fn hub(&self) -> &Rc<StreamDriver<User>> {
        &self.context.hub
    }

    fn slots(&self) -> Option<Arc<Slots>> {
        Some(self.slots.clone())
    }

    fn reload(&mut self) -> &mut Reload {
        &mut self.reload
    }

    fn work(&mut self, now: Time) -> bool {
        self.take_documents(now);
        let hub = self.context.hub.clone();
        {
            let client = &mut hub.engine.borrow_mut().client;
            client.dummies(now, self.new_dummies());
            if client.next_timeout() <= now {
                client.handle_timeout(now);
            }
        }
        self.pass_on();
        let produced = self.produce();
        self.pass_on();
        produced
    }

    fn next_wake(&mut self) -> Time {
        let next = self.context.hub.engine.borrow_mut().client.next_timeout();
        self.waiting.front().map_or(next, |(at, _)| next.min(*at + DOCUMENT_WAITS))
    }

    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    fn report(&mut self) {
        self.turn_keys();
        self.show();
        let memory = self.context.hub.engine.borrow().client.gateway_memory();
        trust::keep(&self.reload.config.data_dir, &mut self.memory, memory);
    }

    fn read_again(&mut self) {
        let Some(next) = self.reload.read() else { return };
        {
            let client = &mut self.context.hub.engine.borrow_mut().client;
            let settings = settings(&next.config, client.class());
            client.set_settings(settings);
        }
        self.reload.adopt(next, &self.token);
        self.news = true;
    }

    fn handle(&mut self, event: LinkEvent) {
        let hub = self.context.hub.clone();
        let mut user = hub.engine.borrow_mut();
        let now = user.clock.now();
        self.news |= !matches!(event, LinkEvent::Frame(..));
        match event {
            LinkEvent::Up(gateway, inbox) => {
                info!("linked to a gateway");
                self.down = None;
                self.context.unlinked_since.set(None);
                self.linked = self.gateway_index(&gateway);
                self.left = self.left.filter(|(left, _)| self.linked != Some(*left));
                user.client.set_inbox(inbox);
                user.client.set_link(now, Some(gateway));
                if self.descriptor.is_some()
                    && let Ok(mut keys) = self.keys.lock()
                {
                    // It came with the first word.
                    keys.periods.told(unix_s());
                    let present = keys.periods.present(unix_s());
                    self.told = present.map(|(begins, ..)| (begins, self.member.was_told()));
                }
                self.quiet_since = now;
                self.tell(Order::Linked(true));
                self.slots.started.notify_one();
            }
            LinkEvent::Down(_, why) => {
                if self.linked.take().is_some() {
                    warn!("the link is down: {why}");
                    self.context.unlinked_since.set(Some(now));
                } else if self.down != Some(why) {
                    warn!("no link: {why}");
                }
                self.down = Some(why);
                user.client.set_link(now, None);
                self.tell(Order::Linked(false));
            }
            LinkEvent::Frame(_, frame) => {
                // Those that came before it are known before it: they say how long it can have waited in a queue.
                user.client.dummies(now, self.new_dummies());
                user.client.handle_frame(now, frame);
            }
            LinkEvent::Document(bytes, at) => match self.verify(bytes, unix_s()) {
                Ok(held) => {
                    self.has.add(&held.signed);
                    if user.client.epoch(now).is_none() {
                        self.take(&mut user.client, now, held);
                        user.client.restart(now);
                        self.slots.started.notify_one();
                    } else {
                        self.waiting.push_back((at, held));
                    }
                }
                Err(why) => {
                    warn!("the gateway sent a topology document that is refused: {why}");
                    user.client.refuse_document(why);
                }
            },
        }
    }
}

impl Driver {
    /// Dummies that came since the engine was last told of any.
    fn new_dummies(&mut self) -> u64 {
        let dummies = self.dummies.load(Ordering::Relaxed);
        dummies - std::mem::replace(&mut self.dummies_told, dummies)
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

    /// The index of a gateway in the configuration.
    fn gateway_index(&self, gateway: &Identity) -> Option<usize> {
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

    /// Another epoch or document: the schedule goes on.
    fn follow(&self) {
        let mut user = self.context.hub.engine.borrow_mut();
        let now = user.clock.now();
        user.client.follow_from(now, self.followed_from);
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
                Some(ClientOutput::Message(letter, message)) => {
                    self.quiet_since = hub.engine.borrow().clock.now();
                    self.keep_letter(letter, message);
                }
                // Nobody calls.
                Some(ClientOutput::Media(_)) => {}
                Some(ClientOutput::Left(id)) => self.tell(Order::Left(id)),
                Some(ClientOutput::Described(of, found)) => self.tell(Order::Described(of, found)),
                Some(ClientOutput::Returned(id, _)) => self.tell(Order::Returned(id)),
                Some(ClientOutput::EpochChanged) => self.follow(),
                Some(ClientOutput::LeaveGateway) => self.leave(),
                Some(ClientOutput::ComeBack) => {
                    info!("the first gateway is tried again");
                    self.goal.go(0);
                }
                Some(ClientOutput::Connected(_)) => self.context.changed.notify_waiters(),
                Some(ClientOutput::Failed(id, why)) => {
                    {
                        let mut user = hub.engine.borrow_mut();
                        user.failures.push_back((id, why));
                        if user.failures.len() > 512 {
                            user.failures.pop_front();
                        }
                    }
                    hub.wake_all(id);
                    self.context.changed.notify_waiters();
                }
                Some(ClientOutput::Tunnel(id, event)) => {
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
        let mut user = self.context.hub.engine.borrow_mut();
        let now = user.clock.now();
        let from = now + 2 * self.sealing.get();
        let produced = user.client.produce(now, from);
        if produced == Produced::OfUser {
            // It falls slowly, so that one quick answer does not make the next one late.
            let took = user.clock.now().since(now);
            let usual = (self.sealing.get() * 7 + took) / 8;
            self.sealing.set(usual.max(took).min(SEALING_AT_MOST));
        }
        produced != Produced::Nothing
    }
}
