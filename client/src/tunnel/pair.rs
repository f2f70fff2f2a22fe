//! For tests: clients and a service in virtual time, with a mixnet between them that delays, reorders, loses and
//! drains at fixed instants.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use shoal_topology::{DelayLaw, Seed, Stream, Time};

use super::*;

pub(super) const SECRET: [u8; 32] = [7; 32];
const LINK: Duration = Duration::from_millis(1);

/// Rates of a class, in 1/s, and what its packets take in the mixes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Class {
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) loops: f64,
    pub(super) delay: DelayLaw,
}

pub(super) const WEB: Class =
    Class { up: 50.0, down: 110.0, loops: 5.0, delay: DelayLaw::INTERACTIVE };
pub(super) const FAST: Class =
    Class { up: 150.0, down: 300.0, loops: 10.0, delay: DelayLaw::INTERACTIVE };
pub(super) const TEXT: Class = Class {
    up: 1.0,
    down: 2.0,
    loops: 0.2,
    delay: DelayLaw { exponential_us: 200_000, uniform_us: 1_000_000 },
};

#[test]
fn tunnels_are_tested_with_the_classes_that_documents_define() {
    for (name, class) in [("web", WEB), ("fast", FAST), ("text", TEXT)] {
        let defaults = shoal_topology::Parameters::default();
        let defined = defaults.class(name).unwrap();
        let (up, down, loops) = (defined.payload_per_s, defined.down_per_s, defined.loops_per_s);
        assert_eq!(class, Class { up, down, loops, delay: defined.delay });
        assert_eq!(class.budget(), defined.budget_per_s());
    }
}

impl Class {
    /// What the client tells the service (docs/promises.md, section 6).
    pub(super) fn budget(self) -> f64 {
        0.95 * (self.down - self.loops)
    }

    /// Bytes/s that the service's share of the slots can carry.
    pub(super) fn capacity(self) -> f64 {
        self.budget() * f64::from(SERVICE_MTU)
    }
}

/// The public half of [`SECRET`].
pub(super) fn service_key(secret: &[u8; 32]) -> [u8; 32] {
    let mut pkcs8 = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pkcs8.extend_from_slice(secret);
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(pkcs8);
    let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&der).unwrap();
    key.public_key().unwrap()[12..].try_into().unwrap()
}

/// An `Instant` for [`Time::ZERO`]; which one does not matter, but std makes them in one way only.
#[allow(clippy::disallowed_methods)]
pub(crate) fn base() -> Instant {
    Instant::now()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// A client's slot.
    Slot(usize),
    /// An instant of a client's downlink.
    Drain(usize),
    /// A loop of a client leaves.
    Loop(usize),
    ToService(usize, Vec<u8>),
    ToGateway(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    Token,
}

/// A client, and what it wants and got.
pub(super) struct Client {
    pub(super) tunnel: Tunnel,
    pub(super) pseudonym: Pseudonym,
    pub(super) class: Class,
    fifo: VecDeque<Vec<u8>>,
    tokens: f64,
    tokens_at: Time,
    /// What is still to be written, and whether to finish then.
    pub(super) outbox: BTreeMap<StreamId, (VecDeque<u8>, bool)>,
    pub(super) inbox: BTreeMap<StreamId, Vec<u8>>,
    /// When something was read last.
    pub(super) read_at: BTreeMap<StreamId, Time>,
    pub(super) ended: BTreeMap<StreamId, Read>,
    pub(super) events: Vec<(Time, TunnelEvent)>,
    /// Streams that nobody reads.
    pub(super) unread: BTreeSet<StreamId>,
    pub(super) timeouts: usize,
    /// (time, length) of everything that this client's tunnel sends.
    pub(super) trace: Vec<(Time, usize)>,
}

/// What the service does on a stream, by its first byte: `e` echo; `d` and a length: send so much; `u`: read to
/// the end, then answer with the sum; `r`: reset with 7; `s`: stop with 9, and finish.
#[derive(Default)]
struct Job {
    head: Vec<u8>,
    out: VecDeque<u8>,
    left: u64,
    sent: u64,
    sum: u64,
    finish: bool,
}

pub(super) struct Pair {
    pub(super) now: Time,
    pub(super) base: Instant,
    pub(super) clients: Vec<Client>,
    pub(super) service: Tunnels,
    pub(super) loss: f64,
    pub(super) outage: Option<(Time, Time)>,
    pub(super) service_events: Vec<(Pseudonym, TunnelEvent)>,
    pub(super) service_trace: Vec<(Time, usize)>,
    pub(super) service_timeouts: usize,
    pub(super) dropped_at_gateway: usize,
    jobs: BTreeMap<(Pseudonym, StreamId), Job>,
    seed: Seed,
    net: Stream,
    loop_rng: Stream,
    heap: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    order: u64,
    token_due: Option<Time>,
    seed_number: u64,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, at {:?}", self.seed_number, self.now);
        }
    }
}

/// Delay in three mixes.
fn through_mixes(rng: &mut Stream, class: Class) -> Duration {
    (1..=3).map(|layer| class.delay.draw(rng, layer, 3)).sum()
}

/// Byte `at` of every download.
pub(super) fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Pair {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, &TunnelSettings::default())
    }

    pub(super) fn with(seed_number: u64, settings: &TunnelSettings) -> Self {
        let seed = Seed::from_u64(seed_number);
        let base = base();
        Self {
            now: Time::ZERO,
            base,
            clients: Vec::new(),
            service: Tunnels::new(base, Time::ZERO, &seed.part("service"), &SECRET, settings)
                .unwrap(),
            loss: 0.0,
            outage: None,
            service_events: Vec::new(),
            service_trace: Vec::new(),
            service_timeouts: 0,
            dropped_at_gateway: 0,
            jobs: BTreeMap::new(),
            net: seed.stream("net"),
            loop_rng: seed.stream("loops"),
            seed,
            heap: BinaryHeap::new(),
            order: 0,
            token_due: None,
            seed_number,
        }
    }

    /// A pair with one client that is connected.
    pub(super) fn connected(seed: u64, class: Class, loss: f64) -> Self {
        let mut pair = Self::new(seed);
        pair.add(class, service_key(&SECRET), &TunnelSettings::default());
        pair.run_until(Time::from_secs(10), |p| p.clients[0].tunnel.is_connected());
        pair.loss = loss;
        pair
    }

    pub(super) fn add(&mut self, class: Class, key: [u8; 32], settings: &TunnelSettings) -> usize {
        let at = self.clients.len();
        let seed = self.seed.part(&format!("client {at}"));
        let mut pseudonym = [0; 16];
        pseudonym[15] = u8::try_from(at).unwrap();
        self.clients.push(Client {
            tunnel: Tunnel::connect(self.base, self.now, &seed, key, settings).unwrap(),
            pseudonym,
            class,
            fifo: VecDeque::new(),
            tokens: 0.0,
            tokens_at: self.now,
            outbox: BTreeMap::new(),
            inbox: BTreeMap::new(),
            read_at: BTreeMap::new(),
            ended: BTreeMap::new(),
            events: Vec::new(),
            unread: BTreeSet::new(),
            timeouts: 0,
            trace: Vec::new(),
        });
        let mut phases = seed.stream("phases");
        let mut phase =
            |per_s: f64| self.now + Duration::from_secs_f64(phases.random_range(0.0..1.0) / per_s);
        let (slot, is_loop) = (phase(class.up), phase(class.loops));
        self.push(slot, Happening::Slot(at));
        self.push(is_loop, Happening::Loop(at));
        self.push(self.now + LINK, Happening::Drain(at));
        at
    }

    fn push(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.heap.push(Reverse((at, self.order, what)));
    }

    fn next_slot(&mut self, at: usize) {
        let gap = Duration::from_secs_f64(1.0 / self.clients[at].class.up);
        self.push(self.now + gap, Happening::Slot(at));
    }

    /// Delay of a packet through three mixes, or none when it is lost.
    fn travel(&mut self, class: Class) -> Option<Time> {
        // Drawn in any case, so that loss moves nothing else.
        let delay = through_mixes(&mut self.net, class) + 5 * LINK;
        let lost = self.net.random::<f64>() < self.loss;
        let out = self.outage.is_some_and(|(from, to)| (from..to).contains(&self.now));
        (!lost && !out).then_some(self.now + delay)
    }

    /// Lets time pass until `done`, which must be the case before `limit`.
    pub(super) fn run_until(&mut self, limit: Time, mut done: impl FnMut(&mut Self) -> bool) {
        while !done(self) {
            assert!(self.now < limit, "not done at {limit:?}");
            self.step();
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        let next = self.heap.peek().map_or(Time::NEVER, |Reverse((at, ..))| *at);
        let mut timer = self.service.next_timeout().unwrap_or(Time::NEVER);
        for client in &mut self.clients {
            timer = timer.min(client.tunnel.next_timeout().unwrap_or(Time::NEVER));
        }
        self.now = self.now.max(next.min(timer));
        let now = self.now;
        if timer <= next {
            if self.service.next_timeout().is_some_and(|due| due <= now) {
                self.service_timeouts += 1;
                self.service.handle_timeout(now);
            }
            for client in &mut self.clients {
                if client.tunnel.next_timeout().is_some_and(|due| due <= now) {
                    client.timeouts += 1;
                    client.tunnel.handle_timeout(now);
                }
            }
        } else if let Some(Reverse((_, _, what))) = self.heap.pop() {
            self.happen(what);
        }
        self.serve();
        self.send_from_service();
        for at in 0..self.clients.len() {
            self.use_tunnel(at);
        }
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        match what {
            Happening::Slot(at) => {
                self.next_slot(at);
                let mut out = Vec::new();
                let client = &mut self.clients[at];
                if client.tunnel.poll_transmit(now, &mut out) {
                    assert!(out.len() <= usize::from(CLIENT_MTU));
                    client.trace.push((now, out.len()));
                    let class = client.class;
                    if let Some(when) = self.travel(class) {
                        self.push(when, Happening::ToService(at, out));
                    }
                }
            }
            Happening::Drain(at) => {
                let client = &mut self.clients[at];
                let next = now + Duration::from_secs_f64(1.0 / client.class.down);
                if let Some(datagram) = client.fifo.pop_front() {
                    // Loops are empty here.
                    if !datagram.is_empty() {
                        self.push(now + LINK, Happening::ToClient(at, datagram));
                    }
                }
                self.push(next, Happening::Drain(at));
            }
            Happening::Loop(at) => {
                let class = self.clients[at].class;
                let gap = Duration::from_secs_f64(1.0 / class.loops);
                self.push(now + gap, Happening::Loop(at));
                let back = now + through_mixes(&mut self.loop_rng, class) + 5 * LINK;
                self.push(back, Happening::ToGateway(at, Vec::new()));
            }
            Happening::ToGateway(at, datagram) => self.reach_gateway(at, datagram),
            Happening::ToService(at, datagram) => {
                self.service.handle_datagram(self.clients[at].pseudonym, now, &datagram);
            }
            Happening::ToClient(at, datagram) => {
                self.clients[at].tunnel.handle_datagram(now, &datagram);
            }
            Happening::Token => self.token_due = None,
        }
    }

    fn reach_gateway(&mut self, at: usize, datagram: Vec<u8>) {
        let client = &mut self.clients[at];
        let room = (2.0 * client.class.down).max(16.0) as usize;
        if client.fifo.len() < room {
            client.fifo.push_back(datagram);
        } else {
            self.dropped_at_gateway += 1;
        }
    }

    fn send_from_service(&mut self) {
        let ready: Vec<_> = self.service.ready().collect();
        let mut due: Option<Time> = None;
        for pseudonym in ready {
            let Some(at) = self.clients.iter().position(|c| c.pseudonym == pseudonym) else {
                continue;
            };
            let client = &mut self.clients[at];
            let (class, rate) = (client.class, client.class.budget());
            let passed = self.now.since(client.tokens_at).as_secs_f64();
            client.tokens = (client.tokens + passed * rate).min(4.0);
            client.tokens_at = self.now;
            let mut out = Vec::new();
            while self.clients[at].tokens >= 1.0
                && self.service.poll_transmit(pseudonym, self.now, &mut out)
            {
                assert!(out.len() <= usize::from(SERVICE_MTU));
                self.clients[at].tokens -= 1.0;
                self.service_trace.push((self.now, out.len()));
                if let Some(when) = self.travel(class) {
                    self.push(when, Happening::ToGateway(at, std::mem::take(&mut out)));
                }
            }
            let missing = 1.0 - self.clients[at].tokens;
            if missing > 0.0 {
                let when =
                    self.now + Duration::from_secs_f64(missing / rate) + Duration::from_micros(1);
                due = Some(due.map_or(when, |d| d.min(when)));
            }
        }
        if let Some(when) = due
            && self.token_due.is_none_or(|old| when < old)
        {
            self.token_due = Some(when);
            self.push(when, Happening::Token);
        }
    }

    fn serve(&mut self) {
        while let Some((who, event)) = self.service.poll_event() {
            match &event {
                TunnelEvent::Connected => {
                    let class = self.clients.iter().find(|c| c.pseudonym == who).unwrap().class;
                    self.service.set_budget(who, class.budget());
                }
                TunnelEvent::Opened(id) => {
                    self.jobs.insert((who, *id), Job::default());
                }
                TunnelEvent::Readable(id) => self.read_job(who, *id),
                TunnelEvent::Writable(id) => self.write_job(who, *id),
                TunnelEvent::Datagram(data) => {
                    assert!(self.service.send_datagram(who, data.clone()));
                }
                _ => {}
            }
            self.service_events.push((who, event));
        }
    }

    fn read_job(&mut self, who: Pseudonym, id: StreamId) {
        let mut buf = [0; 4096];
        loop {
            let Some(job) = self.jobs.get_mut(&(who, id)) else { return };
            match self.service.read(who, id, &mut buf) {
                Read::Data(n) => {
                    for byte in &buf[..n] {
                        let mode = job.head.first().copied();
                        match mode {
                            None => job.head.push(*byte),
                            Some(b'd') => {
                                job.head.push(*byte);
                                if job.head.len() == 9 {
                                    job.left =
                                        u64::from_be_bytes(job.head[1..9].try_into().unwrap());
                                }
                            }
                            Some(b'e') => job.out.push_back(*byte),
                            _ => job.sum = job.sum.wrapping_mul(31).wrapping_add(u64::from(*byte)),
                        }
                    }
                    match job.head.first() {
                        Some(b'r') => self.service.reset(who, id, 7),
                        Some(b's') => {
                            self.service.stop(who, id, 9);
                            self.service.finish(who, id);
                            return;
                        }
                        _ => {}
                    }
                    self.write_job(who, id);
                }
                Read::Finished => {
                    if job.head.first() == Some(&b'u') {
                        job.out.extend(job.sum.to_be_bytes());
                    }
                    job.finish = true;
                    return self.write_job(who, id);
                }
                Read::Blocked | Read::Reset(_) => return,
            }
        }
    }

    fn write_job(&mut self, who: Pseudonym, id: StreamId) {
        let Some(job) = self.jobs.get_mut(&(who, id)) else { return };
        loop {
            while job.left > 0 && job.out.len() < 16_384 {
                job.out.push_back(pattern(job.sent));
                job.sent += 1;
                job.left -= 1;
            }
            if job.out.is_empty() {
                break;
            }
            match self.service.write(who, id, job.out.make_contiguous()) {
                Write::Written(n) => drop(job.out.drain(..n)),
                Write::Blocked => return,
                Write::Stopped(_) => {
                    job.left = 0;
                    job.out.clear();
                }
            }
        }
        if job.finish || job.sent > 0 {
            self.service.finish(who, id);
        }
    }

    /// Writes what is to be written, and reads everything.
    fn use_tunnel(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        while let Some(event) = client.tunnel.poll_event() {
            if let TunnelEvent::Readable(id) = event
                && !client.unread.contains(&id)
            {
                client.drain(id, now);
            }
            client.events.push((now, event));
        }
        let ids: Vec<_> = client.outbox.keys().copied().collect();
        for id in ids {
            client.flush(id);
        }
    }

    /// Opens a stream, writes this and perhaps finishes.
    pub(super) fn request(&mut self, at: usize, data: &[u8], last: bool) -> StreamId {
        let client = &mut self.clients[at];
        let id = client.tunnel.open(self.now).unwrap();
        client.outbox.insert(id, (data.iter().copied().collect(), last));
        client.flush(id);
        id
    }

    /// A download of so many bytes.
    pub(super) fn download(&mut self, at: usize, len: u64) -> StreamId {
        let mut request = vec![b'd'];
        request.extend(len.to_be_bytes());
        self.request(at, &request, true)
    }

    pub(super) fn got(&self, at: usize, id: StreamId) -> usize {
        self.clients[at].inbox.get(&id).map_or(0, Vec::len)
    }

    /// Time of an echo of 64 bytes on this stream.
    pub(super) fn echo(&mut self, at: usize, id: StreamId) -> Duration {
        let start = self.now;
        let before = self.got(at, id);
        self.clients[at].outbox.entry(id).or_default().0.extend([b'x'; 64]);
        self.clients[at].flush(id);
        self.run_until(start + Duration::from_secs(60), |p| p.got(at, id) == before + 64);
        self.now.since(start)
    }

    pub(super) fn closed(&self, at: usize) -> Option<CloseReason> {
        self.clients[at].events.iter().find_map(|(_, e)| match e {
            TunnelEvent::Closed(reason) => Some(*reason),
            _ => None,
        })
    }
}

impl Client {
    pub(super) fn drain(&mut self, id: StreamId, now: Time) {
        let mut buf = [0; 4096];
        loop {
            match self.tunnel.read(id, &mut buf) {
                Read::Data(n) => {
                    self.inbox.entry(id).or_default().extend_from_slice(&buf[..n]);
                    self.read_at.insert(id, now);
                }
                Read::Blocked => return,
                end => {
                    self.ended.entry(id).or_insert(end);
                    return;
                }
            }
        }
    }

    pub(super) fn flush(&mut self, id: StreamId) {
        let Some((data, last)) = self.outbox.get_mut(&id) else { return };
        while !data.is_empty() {
            match self.tunnel.write(id, data.make_contiguous()) {
                Write::Written(n) => drop(data.drain(..n)),
                Write::Blocked => return,
                Write::Stopped(_) => data.clear(),
            }
        }
        if *last {
            self.tunnel.finish(id);
        }
        self.outbox.remove(&id);
    }
}

/// Noise for tests of parsers.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::SeedableRng;
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len).map(|_| rng.random()).collect()
}
