//! A service: an exit to the internet, or one internal target. It keeps a link to each of its gateways.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shoal_host::about;
use shoal_host::admin::Readiness;
use shoal_host::authorities::{AuthorityAddress, AuthorityLinks};
use shoal_host::coarse::Coarse;
use shoal_host::host_port::HostPort;
use shoal_host::link::{Endpoint, Identity as LinkKey, Settings as LinkSettings};
use shoal_host::network;
use shoal_host::reload::say_broken;
use shoal_host::secret;
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Frame, PublicKey};
use shoal_topology::wire::authorities::ToAuthority;
use shoal_topology::wire::client_gateway::Mode;
use shoal_topology::{Identity, Network, SecretIdentity, Spares};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::clock::{Clock, unix_s};
use super::config::Kind;
use super::connection::Connection;
use super::dial::{DialConfig, Dialer, Limits, Resolver, Timeouts};
use super::documents::{found_proof, keep_proof, verify};
use super::files::{Keys, addresses, run_seed, token};
use super::hub::{Key, Stream, StreamDriver, TunnelIo};
use super::link::{Down, Event, Has, Inbox, Link, Out};
use super::places::Quotas;
use super::reload::Reload;
use super::shown::Numbers;
use super::user::TRIAL;
use super::user::thread;
use super::{Config, Error, Ready, Report, Shared, udp};
use crate::policy::ExitPolicy;
use crate::request::{Request, Response, UdpPacket};
use crate::service::{Service, Trouble};
use crate::socks::{HostName, ReplyCode};
use crate::tunnel::{self, Pseudonym, Read, TunnelEvent, Write};

/// Frames that wait for the engine, and for each link; more are dropped and counted.
const QUEUE: usize = 4_096;
/// Packets that are remembered for each key, 24 bytes each with their log: at half of that another key takes over.
const PACKETS: usize = 1 << 24;
const REPORT: Duration = Duration::from_millis(500);
const TURN: usize = 64;
/// A request must be on its stream within this time.
const REQUEST: Duration = Duration::from_secs(20);

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
enum Offer {
    Exit(Arc<Dialer>),
    Target(HostPort),
}

pub(super) fn start(
    config: Config,
    shutdown: Shutdown,
    shared: Shared,
    ready: Ready,
) -> Result<std::thread::JoinHandle<()>, Error> {
    let network = network::load(&config.network)?;
    let authority_addresses = network::authority_addresses(&config.network)?;
    let mut keys = Keys::open(&config)?;
    keys.periods.begin(unix_s())?;
    let identity = LinkKey::from_seed(&keys.identity);
    let own = SecretIdentity::from_bytes(&keys.identity).identity();
    let all = addresses(&own, &config);
    let addresses = (own, all.iter().map(ToString::to_string).collect());
    let offer = offer(&config)?;
    let system = |what| move |source| Error::System { what, source };
    let seed = run_seed().map_err(system("drawing a seed"))?;
    let clock = Clock::start();
    let settings = tunnel::Settings {
        max_connections: config.serve.max_tunnels,
        ..tunnel::Settings::default()
    };
    let missing = Error::Value { key: "data_dir", why: "it holds no key of the period".into() };
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
                Arc::new(descriptor_of(keys.clone(), gateways));
            let (overrun, has) = (Arc::new(AtomicU64::new(0)), Has::default());
            let mut links = HashMap::new();
            for gateway in config.gateways.clone() {
                let (to_link, frames) = mpsc::channel(QUEUE);
                links.insert(gateway.identity, To { frames: to_link, up: false, down: None });
                let to_renew = Arc::new(Notify::new());
                renew.push(to_renew.clone());
                let link = Link {
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
            if config.serve.kind == Kind::Exit && !authority_addresses.is_empty() {
                let listing =
                    list(authority_addresses, identity, descriptor.clone(), shutdown.clone());
                tokio::task::spawn_local(listing);
            }
            let driver = Driver {
                hub: StreamDriver::new(Server { service, clock }),
                offer: Rc::new(offer),
                quotas: Rc::new(Quotas::new(Limits::default())),
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
                shared,
                ready,
                overrun,
                full: 0,
                coarse,
            };
            driver.run(events, &shutdown).await;
        });
    })
    .map_err(system("starting a thread"))
}

/// How often an exit looks whether its descriptor is another.
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

/// Makes the descriptor of the present period.
fn descriptor_of(
    keys: Arc<Mutex<Keys>>,
    gateways: Vec<Identity>,
) -> impl Fn() -> Vec<u8> + Send + Sync {
    move || {
        let signed = keys.lock().ok().and_then(|keys| keys.descriptor(gateways.clone()));
        signed.map(|signed| signed.encode()).unwrap_or_default()
    }
}

fn offer(config: &Config) -> Result<Offer, Error> {
    let serve = &config.serve;
    if serve.kind == Kind::Target {
        return Ok(Offer::Target(serve.target.clone()));
    }
    let wrong = |key, why: String| Error::Value { key, why };
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
    // Who has lost its place may take a moment to go.
    let Limits { dials, associations } = Limits::default();
    let limits = Limits { dials: 2 * dials, associations: 2 * associations };
    let dialer = Dialer::new(DialConfig { resolver, hosts, policy, timeouts, limits })?;
    Ok(Offer::Exit(Arc::new(dialer)))
}

/// A link, as the engine sees it.
struct To {
    frames: mpsc::Sender<Frame>,
    up: bool,
    down: Option<Down>,
}

struct Driver {
    hub: Rc<StreamDriver<Server>>,
    offer: Rc<Offer>,
    quotas: Rc<Quotas>,
    links: HashMap<Identity, To>,
    network: Network,
    kind: Kind,
    /// Whose it is, and where it is reached.
    addresses: (Identity, Vec<String>),
    token: Arc<Mutex<Vec<u8>>>,
    reload: Reload,
    trouble: Option<String>,
    /// Whom the network can lose, by the document in use.
    spares: RefCell<Spares>,
    /// Something changed that `status` must say at once.
    news: bool,
    data_dir: std::path::PathBuf,
    keys: Arc<Mutex<Keys>>,
    /// Tell the links that there is another descriptor.
    renew: Vec<Arc<Notify>>,
    /// Tells gateways which documents there are.
    has: Has,
    shared: Shared,
    ready: Ready,
    overrun: Arc<AtomicU64>,
    full: u64,
    /// What depends on clients, for the metrics.
    coarse: Coarse,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: &Shutdown) {
        let hub = self.hub.clone();
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
            {
                let mut server = hub.engine.borrow_mut();
                if server.service.next_timeout() <= now {
                    server.service.handle_timeout(now);
                }
                server.service.work(now);
            }
            self.pass_on();
            if std::mem::take(&mut self.news) || now >= next_report {
                next_report = now + REPORT;
                self.turn_keys();
                self.report();
            }
            if !events.is_empty() {
                tokio::task::yield_now().await;
                if shutdown.is_triggered() {
                    return;
                }
                continue;
            }
            let next = hub.engine.borrow_mut().service.next_timeout().min(next_report);
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => return,
                },
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
        match offer(&next.config) {
            // Connections that stand go on.
            Ok(offer) => self.offer = Rc::new(offer),
            Err(error) => return say_broken(&error),
        }
        self.reload.adopt(next, &self.token);
    }

    fn handle(&mut self, event: Event) {
        let hub = self.hub.clone();
        let mut server = hub.engine.borrow_mut();
        let now = server.clock.now();
        self.news |= !matches!(event, Event::Frame(..));
        match event {
            Event::Up(gateway, _) => {
                info!("linked to a gateway");
                if let Some(link) = self.links.get_mut(&gateway) {
                    (link.up, link.down) = (true, None);
                }
            }
            Event::Down(gateway, why) => {
                if let Some(link) = self.links.get_mut(&gateway) {
                    match why {
                        _ if link.up => warn!("a link is down: {why}"),
                        _ => {}
                    }
                    (link.up, link.down) = (false, Some(why));
                }
            }
            Event::Frame(gateway, frame) => server.service.handle_frame(now, gateway, frame),
            Event::Document(bytes, _) => {
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
            let send = self.hub.engine.borrow_mut().service.poll_output();
            let Some(send) = send else { break };
            let link = self.links.get(&send.gateway);
            if link.is_none_or(|link| link.frames.try_send(send.frame).is_err()) {
                self.full += 1;
            }
        }
        loop {
            let event = self.hub.engine.borrow_mut().service.poll_event();
            let Some((pseudonym, event)) = event else { return };
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

    fn report(&self) {
        let mut server = self.hub.engine.borrow_mut();
        let counts = server.service.counts();
        let (tunnels, surbs) = server.service.sizes();
        let ignored = server.service.tunnels().ignored();
        let no_room = counts.no_room + server.service.tunnels().refused();
        let up = self.links.values().filter(|link| link.up).count();
        let now = server.clock.now();
        let stale = server.service.trouble(now).map(|why| match why {
            Trouble::NoDocument => network::no_document(&self.network, unix_s()),
            why => why.to_string(),
        });
        let not_ready = if up == 0 {
            let down = self.links.values().find_map(|link| link.down);
            Some(down.map_or("connecting to a gateway".into(), |down| down.to_string()))
        } else {
            stale.map(|stale| self.trouble.clone().unwrap_or(stale))
        };
        let (stuck, mut warnings) = self.keys.lock().map_or((None, Vec::new()), |keys| {
            let trouble = keys.periods.trouble().map(str::to_owned);
            (keys.periods.why_stuck(unix_s()), Vec::from_iter(trouble))
        });
        let not_ready = stuck.or(not_ready);
        if up > 0 && up < self.links.len() {
            let down = self.links.values().find_map(|link| link.down);
            let why = down.map(|down| format!(": {down}")).unwrap_or_default();
            warnings.push(format!("linked to {up} of {} gateways{why}", self.links.len()));
        }
        let mut spares = self.spares.borrow_mut();
        if let Some(document) = server.service.document(now) {
            spares.follow(document);
            warnings.extend(document.is_trial().then(|| TRIAL.into()));
            warnings.extend(spares.warning());
        }
        let overrun = self.overrun.load(Ordering::Relaxed);
        let busy = match &*self.offer {
            Offer::Exit(dialer) => dialer.refused_busy() + self.quotas.refused(),
            Offer::Target(_) => 0,
        };
        let status = json!({
            "summary": match &not_ready {
                None => format!("Ready: reached by {up} of {} gateways.", self.links.len()),
                Some(why) => format!("Not ready: {why}."),
            },
            "role": if self.kind == Kind::Exit { "exit" } else { "service" },
            "version": about::version(),
            "identity": self.addresses.0.to_string(),
            // An exit is chosen by its clients, and has no address to hand out.
            "addresses": if self.kind == Kind::Exit { Vec::new() } else { self.addresses.1.clone() },
            "ready": not_ready.is_none(),
            "why_not": not_ready,
            "warnings": warnings,
            "links": { "up": up, "of": self.links.len() },
            "tunnels": tunnels,
            "surbs": surbs,
            "packets": {
                "received": counts.received, "sent": counts.sent, "unknown": counts.unknown,
                "overrun": overrun, "link_full": self.full,
            },
            "surbs_dropped": {
                "full": counts.surbs_full, "expired": counts.surbs_expired, "bad": counts.surbs_bad,
            },
            "waited_for_surbs": counts.starved,
            "refused": { "tunnels": no_room, "dials": busy, "datagrams": ignored },
            "datagrams_lost": self.hub.lost_datagrams(),
        });
        let numbers = Numbers {
            tunnels,
            surbs,
            counts,
            datagrams_lost: self.hub.lost_datagrams(),
            busy,
            overrun,
            full: self.full,
            critical: spares.critical(),
        };
        let gauges = numbers.exported(&self.coarse, unix_s(), (not_ready.is_none(), up));
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

async fn answer(stream: &Stream<Server>, offer: &Offer, quotas: &Quotas) {
    let mut rest = Vec::new();
    let request = timeout(REQUEST, stream.message(&mut rest, Request::decode)).await;
    let Ok(Ok(request)) = request else { return };
    let fail = async |code| {
        let _ = stream.write(&Response::Failed(code).encode()).await;
        stream.finish();
        // The answer must be on its way before the stream is dropped; the client reads it to the end.
        let _ = timeout(REQUEST, stream.read(&mut [0; 64])).await;
    };
    let dialer = match (offer, &request) {
        (Offer::Target(target), Request::Target { .. }) => {
            let connection = async { Connection::to(target.resolve().await?).await };
            return match timeout(Timeouts::default().connect, connection).await {
                Ok(Ok(tcp)) => join(stream, tcp, rest).await,
                Ok(Err(_)) => fail(ReplyCode::ConnectionRefused).await,
                Err(_) => fail(ReplyCode::TtlExpired).await,
            };
        }
        (Offer::Exit(dialer), _) => dialer,
        (Offer::Target(_), _) => return fail(ReplyCode::NotAllowed).await,
    };
    let places = if request == Request::Udp { &quotas.associations } else { &quotas.dials };
    let Some(place) = places.take(stream.tunnel()) else {
        return fail(ReplyCode::GeneralFailure).await;
    };
    match request {
        Request::Connect { host, port } => {
            let connected = place.hold(dialer.connect(&host, port)).await;
            let connected = connected.unwrap_or(Err(ReplyCode::GeneralFailure));
            drop(place);
            match connected {
                Ok(tcp) => join(stream, tcp, rest).await,
                Err(code) => fail(code).await,
            }
        }
        Request::Resolve { name } => {
            let found = place.hold(dialer.resolve(&name)).await;
            drop(place);
            match found.unwrap_or(Err(ReplyCode::GeneralFailure)) {
                Ok((addresses, ttl)) => say(stream, &Response::Resolved { addresses, ttl }).await,
                Err(code) => fail(code).await,
            }
        }
        Request::ResolvePtr { ip } => {
            let found = place.hold(dialer.resolve_ptr(ip)).await;
            drop(place);
            match found.unwrap_or(Err(ReplyCode::GeneralFailure)) {
                Ok((name, ttl)) => say(stream, &Response::ResolvedPtr { name, ttl }).await,
                Err(code) => fail(code).await,
            }
        }
        Request::Udp => match dialer.udp().await {
            Ok(association) => {
                if stream.write(&Response::UdpReady.encode()).await.is_ok() {
                    let relay = udp::service(stream, rest, association, quotas.of_udp());
                    let _ = place.hold(relay).await;
                }
            }
            Err(code) => fail(code).await,
        },
        Request::Target { .. } => fail(ReplyCode::NotAllowed).await,
    }
}

async fn join(stream: &Stream<Server>, connection: Connection, rest: Vec<u8>) {
    if stream.write(&Response::Connected.encode()).await.is_ok() {
        stream.relay(connection, rest, Vec::new()).await;
    }
}

async fn say(stream: &Stream<Server>, response: &Response) {
    if stream.write(&response.encode()).await.is_ok() {
        stream.finish();
        let _ = timeout(REQUEST, stream.read(&mut [0; 64])).await;
    }
}
