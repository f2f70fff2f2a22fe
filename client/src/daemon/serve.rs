//! A service: an exit to the internet, or one internal target. It keeps a link to each of its gateways.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_host::authorities::{AuthorityAddress, AuthorityLinks};
use shoal_host::coarse::Coarse;
use shoal_host::host_port::HostPort;
use shoal_host::link::{Endpoint, Identity as LinkKey, LinkSettings};
use shoal_host::network;
use shoal_host::reload::say_broken;
use shoal_host::secret;
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Frame, PublicKey};
use shoal_topology::wire::authorities::ToAuthority;
use shoal_topology::wire::client_gateway::Mode;
use shoal_topology::{Engine, Identity, Network, SecretIdentity, Spares, Time};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use super::clock::{Clock, unix_s};
use super::config::ServiceKind;
use super::dial::{DialConfig, DialLimits, Dialer, Resolver, Timeouts};
use super::documents::{found_proof, keep_proof, verify};
use super::driver::{Drive, Publisher, drive};
use super::files::{Keys, addresses, descriptor_of, run_seed, token};
use super::hub::{Key, StreamDriver, TunnelIo};
use super::link::{DownReason, GatewayLink, Has, Inbox, LinkEvent, Out, Slots};
use super::mail::Member;
use super::permits::Quotas;
use super::reload::Reload;
use super::stream::Incoming;
use super::threads::thread;
use super::{ClientError, Config, Ready, Shared};
use crate::policy::ExitPolicy;
use crate::request::UdpPacket;
use crate::service::{Service, ServiceOutput};
use crate::socks::HostName;
use crate::tunnel::{Pseudonym, Read, TunnelEvent, TunnelSettings, Write};

/// Frames that wait for the engine, and for each link; more are dropped and counted.
const QUEUE: usize = 4_096;
/// Packets that are remembered for each key, 24 bytes each with their log: at half of that another key takes over.
const PACKETS: usize = 1 << 24;
/// A request must be on its stream within this time.
const REQUEST: Duration = Duration::from_secs(20);

mod answers;
mod metrics;
mod report;

use answers::answer;

struct Server {
    service: Service,
    clock: Clock,
}

impl TunnelIo for Server {
    type Tunnel = Pseudonym;

    fn read(&mut self, (of, stream): Key<Self>, buf: &mut [u8]) -> Read {
        self.service.tunnels().read(of, stream, buf)
    }

    fn write(&mut self, (of, stream): Key<Self>, data: &[u8]) -> Write {
        self.service.tunnels().write(of, stream, data)
    }

    fn finish(&mut self, (of, stream): Key<Self>) {
        self.service.tunnels().finish(of, stream);
    }

    fn reset(&mut self, (of, stream): Key<Self>, code: u64) {
        self.service.tunnels().reset(of, stream, code);
    }

    fn stop(&mut self, (of, stream): Key<Self>, code: u64) -> bool {
        self.service.tunnels().stop(of, stream, code)
    }

    fn is_quiet(&mut self, of: Pseudonym) -> bool {
        self.service.tunnels().is_quiet(of)
    }

    fn datagram(&mut self, of: Pseudonym, data: Vec<u8>) -> bool {
        let tunnels = self.service.tunnels();
        data.len() <= tunnels.max_datagram_len(of) && tunnels.send_datagram(of, data)
    }

    fn closed(&mut self, _: Key<Self>) {}
}

/// What streams are joined to.
pub(super) enum Offer {
    /// The internet, by the policy of the dialer.
    Exit(Arc<Dialer>),
    /// One address, whatever clients ask for.
    Target(HostPort),
    /// The program that embeds the service.
    Program(mpsc::Sender<Incoming>),
}

// Long: it makes each part once, in the order in which they need each other, and hands them to the thread that owns
// them.
/// Starts the thread of the service, which offers this.
pub(super) fn start(
    mut config: Config,
    shutdown: Shutdown,
    (shared, ready): (Shared, Ready),
    offer: Offer,
) -> Result<std::thread::JoinHandle<()>, ClientError> {
    // Whoever needs a service finds it while it runs.
    config.reachable = false;
    let network = network::load(&config.network)?;
    let authority_addresses = network::authority_addresses(&config.network)?;
    let mut keys = Keys::open(&config)?;
    keys.periods.begin(unix_s())?;
    let identity = LinkKey::from_seed(&keys.identity);
    let own = SecretIdentity::from_bytes(&keys.identity).identity();
    let all = addresses(&own, &config);
    let addresses = (own, all.iter().map(ToString::to_string).collect());
    let system = |what| move |source| ClientError::System { what, source };
    let seed = run_seed().map_err(system("drawing a seed"))?;
    let clock = Clock::start();
    let settings =
        TunnelSettings { max_connections: config.serve.max_tunnels, ..TunnelSettings::default() };
    let missing =
        ClientError::Value { key: "data_dir", why: "it holds no key of the period".into() };
    let key = keys.periods.present(unix_s()).map(|(.., key)| key.clone()).ok_or(missing)?;
    let secrets = (&*keys.identity, key);
    let codec = Backend::best_codec();
    let now = clock.now();
    let mut service = Service::new(codec, (clock.base(), now), &seed, secrets, &settings)?;
    let all = keys.periods.all(unix_s()).into_iter().map(|(_, key)| key).collect();
    service.begin_keys(all, |key| keys.periods.memory(key, PACKETS));
    if let Some(why) = found_proof(&config.data_dir) {
        warn!("{why}");
        service.halt(why);
    }
    let noise = secret::fresh().map_err(system("drawing a seed"))?;
    let coarse = Coarse::new(network.epoch_s.into(), *noise);
    let gateways: Vec<Identity> = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let token = Arc::new(Mutex::new(token(&config)?));

    thread("shoal-service", move |runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let (events_in, events) = mpsc::channel(QUEUE);
            let inbox = keys.inbox.clone();
            let keys = Arc::new(Mutex::new(keys));
            let mut renew = Vec::new();
            let descriptor: Arc<dyn Fn() -> Vec<u8> + Send + Sync> =
                Arc::new(descriptor_of(keys.clone(), gateways, Arc::<Member>::default()));
            let (overrun, has) = (Arc::new(AtomicU64::new(0)), Has::default());
            let mut links = HashMap::new();
            for gateway in config.gateways.clone() {
                let (to_link, frames) = mpsc::channel(QUEUE);
                links.insert(gateway.identity, To { frames: to_link, up: false, down: None });
                let to_renew = Arc::new(Notify::new());
                renew.push(to_renew.clone());
                let link = GatewayLink {
                    clock,
                    inbox: Inbox::Kept(Box::new(inbox.clone())),
                    token: token.clone(),
                    mode: Mode::Service,
                    descriptor: Some(descriptor.clone()),
                    events: events_in.clone(),
                    overrun: overrun.clone(),
                    dummies: Arc::default(),
                    goal: Arc::default(),
                    renew: to_renew.clone(),
                    has: has.clone(),
                    seed: seed.part("link"),
                };
                let shutdown = shutdown.clone();
                tokio::task::spawn_local(async move {
                    link.keep(&[gateway], Out::AtOnce(frames), &shutdown).await;
                });
            }
            drop(events_in);
            if config.serve.kind == ServiceKind::Exit && !authority_addresses.is_empty() {
                let listing =
                    list(authority_addresses, identity, descriptor.clone(), shutdown.clone());
                tokio::task::spawn_local(listing);
            }
            let driver = Driver {
                hub: StreamDriver::new(Server { service, clock }),
                offer: Rc::new(offer),
                quotas: Rc::new(Quotas::new(DialLimits::default())),
                links,
                network,
                kind: config.serve.kind,
                token,
                addresses,
                reload: Reload::new(config.clone(), &shutdown),
                trouble: None,
                spares: RefCell::default(),
                news: false,
                data_dir: config.data_dir.clone(),
                keys,
                renew,
                has,
                publisher: Publisher { shared, ready },
                overrun,
                full: 0,
                coarse,
            };
            drive(driver, clock, events, &shutdown).await;
        });
    })
    .map_err(system("starting a thread"))
}

/// Interval at which an exit looks whether its descriptor has changed; then it is sent to the authorities.
const LISTING: Duration = Duration::from_secs(2);

/// Keeps the authorities told of an exit: they list it with the key of the present period. Where an exit is they may
/// know, as everybody may who exits there.
async fn list(
    authority_addresses: Vec<AuthorityAddress>,
    identity: LinkKey,
    descriptor: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    shutdown: Shutdown,
) {
    let settings = LinkSettings { listen: None, ..LinkSettings::default() };
    let Ok(endpoint) = Endpoint::new(&identity, settings) else {
        return warn!("cannot open links to the authorities: this exit is not listed any longer");
    };
    let (authority_links, mut documents) =
        AuthorityLinks::start(&endpoint.dialler(), authority_addresses, &shutdown);
    loop {
        authority_links.announce(&ToAuthority::Exit(descriptor()));
        tokio::select! {
            // Documents come by the gateways, as to all clients.
            Some(_) = documents.recv() => {}
            () = tokio::time::sleep(LISTING) => {}
            () = shutdown.wait() => return,
        }
    }
}

/// What the configuration has a service offer.
///
/// # Errors
/// A value that cannot be used, or the resolver.
pub(super) fn offer(config: &Config) -> Result<Offer, ClientError> {
    let serve = &config.serve;
    if serve.kind == ServiceKind::Target {
        return Ok(Offer::Target(serve.target.clone()));
    }
    let wrong = |key, why: String| ClientError::Value { key, why };
    let policy =
        ExitPolicy::parse(&serve.policy).map_err(|e| wrong("serve.policy", e.to_string()))?;
    let mut hosts = HashMap::new();
    for (name, addresses) in &serve.hosts {
        let name = HostName::parse(name)
            .map_err(|_| wrong("serve.hosts", format!("{name:?} is not the name of a host")))?;
        hosts.insert(name, addresses.clone());
    }
    let resolver = match serve.resolver.parse() {
        Ok(server) => Resolver::Server(server),
        Err(_) => Resolver::System,
    };
    let timeouts = Timeouts::default();
    // Who has lost its permit may take a moment to go.
    let DialLimits { dials, associations } = DialLimits::default();
    let limits = DialLimits { dials: 2 * dials, associations: 2 * associations };
    let dialer = Dialer::new(DialConfig { resolver, hosts, policy, timeouts, limits })?;
    Ok(Offer::Exit(Arc::new(dialer)))
}

/// A link, as the engine sees it.
struct To {
    frames: mpsc::Sender<Frame>,
    up: bool,
    down: Option<DownReason>,
}

struct Driver {
    /// The engine, with the streams of its tunnels.
    hub: Rc<StreamDriver<Server>>,
    /// What streams are joined to.
    offer: Rc<Offer>,
    /// How much one pseudonym may use at a time.
    quotas: Rc<Quotas>,
    /// What leads to each gateway.
    links: HashMap<Identity, To>,
    /// The network, with its authorities.
    network: Network,
    /// An exit, or a service with an address.
    kind: ServiceKind,
    /// Whose it is, and where it is reached.
    addresses: (Identity, Vec<String>),
    /// The admission token for gateways; another one counts from the next link on.
    token: Arc<Mutex<Vec<u8>>>,
    /// The configuration by which it goes.
    reload: Reload,
    /// Why the last document that came could not be used.
    trouble: Option<String>,
    /// Whom the network can lose, by the document in use.
    spares: RefCell<Spares>,
    /// Something changed that `status` must say at once.
    news: bool,
    /// The directory of long-lived files.
    data_dir: std::path::PathBuf,
    /// The keys of the service, by period.
    keys: Arc<Mutex<Keys>>,
    /// Tell the links that there is another descriptor.
    renew: Vec<Arc<Notify>>,
    /// Tells gateways which documents there are.
    has: Has,
    /// Where its reports go.
    publisher: Publisher,
    /// Packets that came while the engine's queue was full.
    overrun: Arc<AtomicU64>,
    /// Frames that found the queue of a link full.
    full: u64,
    /// What depends on clients, for the metrics.
    coarse: Coarse,
}

impl Drive for Driver {
    type Engine = Server;
    const TURN: usize = 64;

    fn hub(&self) -> &Rc<StreamDriver<Server>> {
        &self.hub
    }

    fn slots(&self) -> Option<Arc<Slots>> {
        None
    }

    fn reload(&mut self) -> &mut Reload {
        &mut self.reload
    }

    fn work(&mut self, now: Time) -> bool {
        self.hub.engine.borrow_mut().service.wake(now);
        self.pass_on();
        false
    }

    fn next_wake(&mut self) -> Time {
        self.hub.engine.borrow_mut().service.next_timeout()
    }

    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    fn report(&mut self) {
        self.turn_keys();
        self.show();
    }

    fn read_again(&mut self) {
        let Some(next) = self.reload.read() else { return };
        match offer(&next.config) {
            // A program's service has no file that could change what it offers.
            Ok(_) if matches!(*self.offer, Offer::Program(_)) => {}
            // Connections that are open go on.
            Ok(offer) => self.offer = Rc::new(offer),
            Err(error) => return say_broken(&error),
        }
        self.reload.adopt(next, &self.token);
    }

    fn handle(&mut self, event: LinkEvent) {
        let hub = self.hub.clone();
        let mut server = hub.engine.borrow_mut();
        let now = server.clock.now();
        self.news |= !matches!(event, LinkEvent::Frame(..));
        match event {
            LinkEvent::Up(gateway, _) => {
                info!("linked to a gateway");
                if let Some(link) = self.links.get_mut(&gateway) {
                    (link.up, link.down) = (true, None);
                }
            }
            LinkEvent::Down(gateway, why) => {
                if let Some(link) = self.links.get_mut(&gateway) {
                    match why {
                        _ if link.up => warn!("a link is down: {why}"),
                        _ => {}
                    }
                    (link.up, link.down) = (false, Some(why));
                }
            }
            LinkEvent::Frame(gateway, frame) => server.service.handle_frame(now, gateway, frame),
            LinkEvent::Document(bytes, _) => {
                let unix_s = unix_s();
                match verify(bytes, &self.network, unix_s) {
                    Ok(held) => {
                        self.trouble = None;
                        self.has.add(&held.signed);
                        if let Err(two) = server.service.set_document(now, unix_s, held) {
                            error!("{two}");
                            if let Err(error) = keep_proof(&self.data_dir, &two) {
                                error!("the proof cannot be kept: {error}");
                            }
                        }
                    }
                    Err(why) => {
                        warn!("a gateway sent a topology document that is refused: {why}");
                        self.trouble = Some(why.to_string());
                    }
                }
            }
        }
    }
}

impl Driver {
    /// Another period: another key opens what comes, and the gateways get another descriptor. A key that a document in
    /// use lists is kept.
    fn turn_keys(&mut self) {
        let mut server = self.hub.engine.borrow_mut();
        let now = server.clock.now();
        let Ok(mut keys) = self.keys.lock() else { return };
        // What is listed is used until the next document but one: half of the room is for that time.
        let early = server.service.memory_fullness() > 0.5;
        // Without a document nobody knows what is listed.
        let Some(document) = server.service.document(now).cloned() else { return };
        let listed = |key: &PublicKey| {
            document.exits.iter().any(|exit| exit.body().public_key().as_ref() == Some(key))
        };
        if let Some(secrets) = keys.periods.rotate_now(unix_s(), early, listed) {
            server.service.set_keys(secrets, |key| keys.periods.memory(key, PACKETS));
            self.renew.iter().for_each(|link| link.notify_one());
        }
    }

    fn pass_on(&mut self) {
        loop {
            let output = Engine::poll_output(&mut self.hub.engine.borrow_mut().service);
            let (pseudonym, event) = match output {
                None => return,
                Some(ServiceOutput::Send(send)) => {
                    let link = self.links.get(&send.gateway);
                    if link.is_none_or(|link| link.frames.try_send(send.frame).is_err()) {
                        self.full += 1;
                    }
                    continue;
                }
                Some(ServiceOutput::Tunnel(pseudonym, event)) => (pseudonym, event),
            };
            if let TunnelEvent::Opened(id) = event {
                let stream = self.hub.stream((pseudonym, id));
                let (offer, quotas) = (self.offer.clone(), self.quotas.clone());
                tokio::task::spawn_local(async move { answer(&stream, &offer, &quotas).await });
                continue;
            }
            let association =
                |data: &[u8]| Some(UdpPacket::decode_datagram(data).ok()?.association);
            self.hub.dispatch(pseudonym, &event, association);
        }
    }
}
