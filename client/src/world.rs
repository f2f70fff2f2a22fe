//! For tests: a person's client, a service and a mixnet between them in virtual time, with authorities that make a
//! document for every epoch and nodes whose keys live one epoch.

mod forging;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{CryptoRng, RngExt};
use shoal_sphinx::{
    Address, Codec, Downward, Error, Frame, Hop, MAX_HOPS, NullCodec, Opened, Packet, PacketId,
    Payload, Peeled, PublicKey, SecretKey, Surb, SurbKeys,
};
use shoal_topology::reputation::report::coarse_pool;
use shoal_topology::{
    Document, Epoch, Identity, ListedNode, Network, Parameters, SecretIdentity, Seed, Standing,
    Stream, Time, VerifiedDocument, testing,
};

use crate::engine::{Arrival, Client, ClientOutput, ClientSettings, GroupId, Isolation, Target};
use crate::sender::{Produced, Sender, SlotQueue};
use crate::service::Service;
use crate::tunnel::{Read, StreamId, TunnelEvent, Write, pair};
use crate::uplink::Uplink;
pub(crate) use forging::{Forged, Way};

const LATENCY: Duration = Duration::from_millis(1);
/// The epoch in which every world begins: its low byte soon starts at zero again.
pub(crate) const START: u64 = 250;
/// Loads of a gateway's queue for one client: two seconds of class web.
const QUEUE: usize = 220;

/// Lengths of the null codec, and the keys of the real thing: a hop opens only what was sealed to its key.
#[derive(Default)]
pub(crate) struct Keyed {
    known: Mutex<HashMap<[u8; 32], [u8; 8]>>,
    /// Services say in every reply that they have no SURBs.
    pub(crate) lies: AtomicBool,
}

fn mark(key: &PublicKey) -> [u8; 8] {
    *blake3::hash(key.as_bytes()).as_bytes().first_chunk().unwrap()
}

fn mark_range(position: usize) -> std::ops::Range<usize> {
    300 + 8 * position..308 + 8 * position
}

impl Codec for Keyed {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        let mut packet = NullCodec.seal(rng, path, id, message)?;
        for (n, hop) in path.iter().enumerate() {
            packet.as_mut_bytes()[mark_range(n)].copy_from_slice(&mark(&hop.key));
        }
        Ok(packet)
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        let (surb, keys) = NullCodec.surb(rng, path, id)?;
        let mut bytes = *surb.as_bytes();
        for (n, hop) in path.iter().enumerate() {
            bytes[mark_range(n)].copy_from_slice(&mark(&hop.key));
        }
        Ok((Surb::from_slice(&bytes)?, keys))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        let mut message = message.to_vec();
        if self.lies.load(Ordering::Relaxed) {
            // Its stocks of both epochs, behind the kind and the epoch.
            message[2..6].fill(0);
        }
        NullCodec.reply(surb, &message)
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let mut known = self.known.lock().unwrap();
        let mark = known.entry(*secret.as_bytes()).or_insert_with(|| mark(&secret.public()));
        let position = usize::from(packet.as_bytes()[32]);
        if position >= MAX_HOPS || packet.as_bytes()[mark_range(position)] != *mark {
            return Err(Error::Mac);
        }
        NullCodec.open(secret, packet)
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        NullCodec.peel(opened)
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        NullCodec.unseal(keys, payload)
    }
}

fn bytes(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}

/// Who signs, and what.
pub(crate) struct Authority {
    network: testing::TestNetwork,
    pub(crate) epoch_s: u32,
    pub(crate) clock_error_s: u32,
    /// Mixes that are demoted in every document.
    pub(crate) demoted: Vec<&'static str>,
}

pub(crate) const MIXES: [&str; 7] = ["mix a", "mix b", "mix c", "mix d", "mix e", "mix f", "mix g"];
pub(crate) const GATEWAYS: [&str; 3] = ["gateway a", "gateway b", "gateway c"];

pub(crate) fn identity(name: &str) -> Identity {
    SecretIdentity::from_bytes(&bytes(name)).identity()
}

/// Layers move every fourth epoch.
fn layer(mix: usize, epoch: u64) -> u8 {
    1 + ((mix as u64 + epoch / 4) % 3) as u8
}

/// A client at the last gateway.
pub(crate) fn client(name: &str) -> testing::TestClient {
    testing::TestClient::new(bytes(name), &[identity(GATEWAYS[2])])
}

pub(crate) fn inbox(name: &str) -> Identity {
    client(name).body.inbox
}

impl Authority {
    pub(crate) fn new(epoch_s: u32) -> Self {
        let parameters = Parameters { max_delay_us: 1_000_000, ..Parameters::default() };
        let network = testing::TestNetwork::builder().parameters(parameters).epoch_s(epoch_s);
        let mut network =
            network.placed([[0; 3].as_slice(), &[1, 2, 3, 1, 2, 3, 1]].concat()).build();
        for (node, name) in network.nodes.iter_mut().zip(GATEWAYS.iter().chain(&MIXES)) {
            *node = testing::TestNode::new(bytes(name), node.layer).with_keys([]);
            node.body.operator = (*name).into();
        }
        network.exits = vec![client("exit")];
        Self { network, epoch_s, clock_error_s: 1, demoted: Vec::new() }
    }

    pub(crate) fn network(&self) -> Network {
        self.network.known.clone()
    }

    /// The document of an epoch. The last mix is there in every other epoch alone, so that indices in the list differ.
    pub(crate) fn document(&self, epoch: u64) -> Document {
        let mut document = self.network.document_at(Epoch(epoch));
        document.parameters.clock_error_s = self.clock_error_s;
        let name = |node: &ListedNode| node.descriptor.body().operator.clone();
        document.nodes.retain(|node| name(node) != MIXES[6] || epoch % 2 == 1);
        for node in &mut document.nodes {
            let name = name(node);
            // A crowd in which people are protected.
            node.pool = coarse_pool(1_000.0);
            if let Some(mix) = MIXES.iter().position(|mix| *mix == name) {
                node.layers = [0, 1, 2].map(|further| layer(mix, epoch + further));
            }
            if self.demoted.contains(&name.as_str()) {
                node.standing = Standing::Demoted;
            }
        }
        document
    }

    pub(crate) fn sign(&self, document: &Document) -> VerifiedDocument {
        self.network.sign(document)
    }
}

enum Event {
    /// A frame from the person (true) or the service reaches its gateway.
    Up(bool, Frame),
    ToNode(&'static str, u64, Packet),
    /// A packet of an epoch reaches the gateway of whoever has this inbox.
    ToInbox(Address, u64, Packet),
    ToExit(Packet),
    /// An instant of the person's downlink.
    Down,
    ToPerson(Frame),
}

/// What the world does to packets, by chance.
#[derive(Default)]
pub(crate) struct Faults {
    /// Shares of the packets that the person's gateway takes, on the way up and down.
    pub(crate) gateway: (f64, f64),
    /// The share that a mix takes.
    pub(crate) mix: Option<(&'static str, f64)>,
    /// Shares of the packets that are lost between the gateway of the exit and the exit, on the way to it and from it.
    pub(crate) exit: (f64, f64),
    /// A mix that takes so much longer.
    pub(crate) slow: Option<(&'static str, Duration)>,
    /// Packets/s of others for the person.
    pub(crate) flood: f64,
    /// The share of dummies in whose place the gateway sends something else.
    pub(crate) forged: Option<(Forged, f64)>,
    /// Of each span of the first length, the gateway holds what goes up (and down, if so) in the first part until that ends.
    pub(crate) holds: Option<(Duration, Duration, Way)>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) authority: Authority,
    pub(crate) codec: Arc<Keyed>,
    pub(crate) client: Sender,
    pub(crate) slots: Arc<SlotQueue>,
    pub(crate) exit: Service,
    pub(crate) faults: Faults,
    /// Instants of the person's link, up and down.
    pub(crate) trace: Vec<(Time, bool)>,
    /// When packets for the person reached the gateway.
    pub(crate) arrivals: Vec<Time>,
    pub(crate) outputs: Vec<ClientOutput>,
    /// When packets of the person reached the exit.
    pub(crate) at_exit: Vec<Time>,
    /// Arrivals that gave credit.
    pub(crate) credits: u64,
    /// Everything gives credit, as it did once: a control.
    pub(crate) credulous: bool,
    /// The last loops that came, and SURBs that the exit gave away.
    loops: VecDeque<Packet>,
    given: VecDeque<Surb>,
    /// Bytes that the person has read.
    pub(crate) read: u64,
    /// The longest time without one, while a download ran.
    pub(crate) stall: Duration,
    read_at: Time,
    /// Packets that a node could not open, or that came to the wrong layer.
    pub(crate) lost: u64,
    /// Packets that reached a gateway too long after their epoch.
    pub(crate) over: u64,
    /// By how many seconds the person's clock is slow.
    pub(crate) slow_s: u64,
    pub(crate) turns: u64,
    group: Option<GroupId>,
    stream: Option<StreamId>,
    want: u32,
    gateway: &'static str,
    person: testing::TestClient,
    /// The person's inbox. What comes for an earlier one is lost.
    inbox: Identity,
    queue: VecDeque<Packet>,
    flooded: f64,
    serving: BTreeMap<([u8; 16], StreamId), u32>,
    documents: HashMap<u64, Document>,
    told: HashSet<u64>,
    names: HashMap<Identity, &'static str>,
    /// The gateway of the exit.
    far: Identity,
    /// What gateways grant at the beginning of an epoch, for a length of epochs and an error of clocks.
    grace: ((u32, u32), Duration),
    chance: Stream,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, Event>,
    order: u64,
}

impl World {
    /// A person of class web at the first gateway, and an exit at the last one.
    pub(crate) fn new(seed: u64, epoch_s: u32) -> Self {
        Self::with(seed, epoch_s, ClientSettings::default())
    }

    /// The same with these settings of the person's.
    pub(crate) fn with(seed: u64, epoch_s: u32, settings: ClientSettings) -> Self {
        Self::of(Authority::new(epoch_s), seed, settings, 0)
    }

    /// The same with these authorities, and a person whose clock is slow by so many seconds.
    pub(crate) fn of(
        authority: Authority,
        seed: u64,
        settings: ClientSettings,
        slow_s: u64,
    ) -> Self {
        let seed = Seed::from_u64(seed);
        let codec = Arc::new(Keyed::default());
        let base = (pair::base(), Time::ZERO);
        let class = Parameters::default().class("web").cloned().unwrap();
        let person = self::client("person");
        let keys = (person.key(), person.body.inbox);
        let client = Client::new(codec.clone(), base, &seed, class.clone(), keys, settings);
        let client = Sender::new(client, Uplink::new(&seed.part("uplink"), class, Time::ZERO));
        let long = bytes("exit");
        let exit_keys = (&long, self::client("exit").key());
        let exit =
            Service::new(codec.clone(), base, &seed.part("exit"), exit_keys, &Default::default());
        let names = MIXES.iter().chain(&GATEWAYS).map(|name| (identity(name), *name)).collect();
        let mut world = Self {
            now: Time::ZERO,
            authority,
            codec,
            slots: client.slots(),
            client,
            exit: exit.unwrap(),
            faults: Faults::default(),
            trace: Vec::new(),
            arrivals: Vec::new(),
            outputs: Vec::new(),
            at_exit: Vec::new(),
            credits: 0,
            credulous: false,
            loops: VecDeque::new(),
            given: VecDeque::new(),
            read: 0,
            stall: Duration::ZERO,
            read_at: Time::ZERO,
            lost: 0,
            over: 0,
            slow_s,
            turns: 0,
            group: None,
            stream: None,
            want: 0,
            gateway: GATEWAYS[0],
            inbox: person.body.inbox,
            person,
            queue: VecDeque::new(),
            flooded: 0.0,
            serving: BTreeMap::new(),
            documents: HashMap::new(),
            told: HashSet::new(),
            names,
            far: identity(GATEWAYS[2]),
            grace: Default::default(),
            chance: seed.stream("chance"),
            heap: BinaryHeap::new(),
            events: HashMap::new(),
            order: 0,
        };
        world.tell(START);
        world.push(Time::ZERO, Event::Down);
        world.link(GATEWAYS[0]);
        world
    }

    /// The person's link to a gateway stands.
    pub(crate) fn link(&mut self, gateway: &'static str) {
        self.gateway = gateway;
        self.client.set_link(self.now, Some(identity(gateway)));
    }

    /// The person's link breaks, and the next one has another inbox.
    pub(crate) fn link_anew(&mut self, inbox: Identity, gateway: &'static str) {
        self.client.set_link(self.now, None);
        self.queue.clear();
        self.inbox = inbox;
        self.client.set_inbox(inbox);
        self.link(gateway);
    }

    pub(crate) fn unix_s(&self) -> u64 {
        START * u64::from(self.authority.epoch_s) + self.now.as_nanos() / 1_000_000_000
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.unix_s() / u64::from(self.authority.epoch_s)
    }

    /// What of an epoch comes now is dropped by gateways, as deployed ones do.
    fn is_over(&mut self, epoch: u64) -> bool {
        let (now, s) = (self.unix_s(), u64::from(self.authority.epoch_s));
        let begun = now / s * s;
        let of = (self.authority.epoch_s, self.authority.clock_error_s);
        if self.grace.0 != of {
            // A document is many signatures, and packets are many.
            self.grace = (of, self.authority.document(now / s).turn_grace());
        }
        let grace = self.grace.1;
        let passed = Duration::from_nanos(self.now.as_nanos() % (s * 1_000_000_000));
        epoch * s < begun && passed >= grace
    }

    /// Everyone gets the document of an epoch.
    pub(crate) fn tell(&mut self, epoch: u64) {
        if !self.told.insert(epoch) {
            return;
        }
        let held = self.authority.sign(&self.authority.document(epoch));
        let persons = self.unix_s() - self.slow_s;
        assert!(self.client.set_document(self.now, persons, held.clone()).unwrap());
        assert!(self.exit.set_document(self.now, self.unix_s(), held).unwrap());
    }

    /// Downloads, again and again, so many bytes each time, in a new group if the last one has failed.
    pub(crate) fn download(&mut self, bytes: u32) {
        if self.group.is_some_and(|group| self.client.tunnel(group).is_none()) {
            (self.group, self.stream) = (None, None);
        }
        self.want = bytes;
        self.read_at = self.now;
    }

    fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.heap.push(Reverse((at, self.order)));
        self.events.insert(self.order, event);
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.chance.random::<f64>() < share
    }

    pub(crate) fn run(&mut self, end: Time) {
        loop {
            let next = self.heap.peek().map_or(Time::NEVER, |Reverse((at, _))| *at);
            let next = next.min(self.exit.next_timeout()).min(self.client.next_timeout());
            let next = next.min(self.slots.next_slot());
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        // The next document is there when 0.4 of the epoch has passed.
        let s = u64::from(self.authority.epoch_s);
        if 5 * (self.unix_s() % s) >= 2 * s {
            self.tell(self.epoch() + 1);
        }
        while let Some(Reverse((at, order))) = self.heap.peek().copied()
            && at <= now
        {
            self.heap.pop();
            let event = self.events.remove(&order).unwrap();
            self.handle(event);
        }
        if self.exit.next_timeout() <= now {
            self.exit.handle_timeout(now);
        }
        self.serve();
        if self.client.next_timeout() <= now {
            self.client.handle_timeout(now);
        }
        self.work();
        while self.slots.next_slot() <= now {
            let frame = self.slots.take(now);
            self.trace.push((now, true));
            self.push(now + LATENCY, Event::Up(true, frame));
            self.produce();
        }
    }

    fn produce(&mut self) {
        while self.client.produce(self.now, self.now) != Produced::Nothing {}
    }

    /// The document by which a frame of an epoch names nodes.
    fn document_of(&mut self, low_byte: u8) -> Option<(u64, &Document)> {
        let now = self.epoch();
        let epoch = (now - 1..=now + 1).find(|e| e.to_le_bytes()[0] == low_byte)?;
        let of = (epoch - 2..=epoch).rev().find(|e| self.told.contains(e))?;
        let authority = &self.authority;
        let document = self.documents.entry(of).or_insert_with(|| authority.document(of));
        Some((epoch, document))
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Up(person, frame) => {
                let at = self.let_go(false);
                if person && at > now {
                    return self.push(at, Event::Up(person, frame));
                }
                let lost = if person { self.faults.gateway.0 } else { self.faults.exit.1 };
                if self.happens(lost) {
                    return;
                }
                let found = self.document_of(frame.epoch).and_then(|(epoch, document)| {
                    let node = document.node(usize::from(frame.field))?;
                    (document.layer_at(node, Epoch(epoch)) == 1).then(|| (epoch, node.identity()))
                });
                let Some((epoch, node)) = found else {
                    self.lost += 1;
                    return;
                };
                self.push(now + LATENCY, Event::ToNode(self.names[&node], epoch, frame.packet));
            }
            Event::ToNode(name, epoch, packet) => self.node(name, epoch, packet),
            Event::ToInbox(_, epoch, _) if self.is_over(epoch) => self.over += 1,
            Event::ToInbox(address, _, packet) => {
                if address == self.authority.network.exits[0].body.inbox.0 {
                    self.push(now + LATENCY, Event::ToExit(packet));
                } else if address == self.inbox.0 {
                    self.arrivals.push(now);
                    if !self.happens(self.faults.gateway.1) && self.queue.len() < QUEUE {
                        self.queue.push_back(packet);
                    }
                }
            }
            Event::ToExit(packet) => {
                if self.happens(self.faults.exit.0) {
                    return;
                }
                self.at_exit.push(now);
                if self.gives_away(&packet) {
                    return;
                }
                let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet };
                self.exit.handle_frame(now, self.far, frame);
            }
            Event::Down => {
                let gap = Duration::from_nanos(1_000_000_000 / 110);
                let forged = self.faults.forged;
                let (field, packet) = match self.queue.pop_front() {
                    Some(packet) => (Downward::Packet, packet),
                    None => match forged {
                        Some((what, share)) if self.happens(share) => match self.forge(what) {
                            Some(packet) => (Downward::Packet, packet),
                            None => (Downward::Dummy, Packet::default()),
                        },
                        _ => (Downward::Dummy, Packet::default()),
                    },
                };
                self.flooded += self.faults.flood * gap.as_secs_f64();
                while self.flooded >= 1.0 {
                    self.flooded -= 1.0;
                    if self.queue.len() < QUEUE {
                        self.queue.push_back(Packet::default());
                    }
                }
                let frame = Frame { epoch: 0, field: field as u16, packet };
                self.trace.push((now, false));
                self.push(now + LATENCY, Event::ToPerson(frame));
                self.push(now + gap, Event::Down);
            }
            Event::ToPerson(frame) => {
                let at = self.let_go(true);
                if at > now {
                    return self.push(at, Event::ToPerson(frame));
                }
                let packet = frame.packet.clone();
                match self.client.handle_frame(now, frame) {
                    Arrival::FromOthers => self.credits += 1,
                    Arrival::NoCredit if self.credulous => self.client.credit(),
                    Arrival::Loop => {
                        self.loops.push_back(packet);
                        self.loops.truncate(64);
                    }
                    Arrival::Media | Arrival::NoCredit | Arrival::Nothing => {}
                }
            }
        }
    }

    /// A node opens a packet with its key of the epoch, if it has that still.
    fn node(&mut self, name: &'static str, epoch: u64, packet: Packet) {
        let ends = (epoch + 1) * u64::from(self.authority.epoch_s);
        let alive = Duration::from_secs(3 + u64::from(self.authority.clock_error_s))
            + Duration::from_secs(ends.saturating_sub(START * u64::from(self.authority.epoch_s)));
        let is_alive = self.now.since(Time::ZERO) < alive && epoch <= self.epoch() + 3;
        let node = self.authority.network.nodes.iter().find(|node| node.body.operator == name);
        let key = node.unwrap().key(Epoch(epoch));
        let opened = is_alive.then(|| self.codec.open(&key, packet));
        let Some(Ok(opened)) = opened else {
            self.lost += 1;
            return;
        };
        if self.faults.mix.is_some_and(|(of, share)| of == name && self.happens(share)) {
            return;
        }
        let Ok(Peeled::Forward { next, delay, packet }) = self.codec.peel(opened) else { return };
        let event = match self.names.get(&Identity(next)) {
            Some(next) => Event::ToNode(next, epoch, packet),
            None => Event::ToInbox(next, epoch, packet),
        };
        let slow =
            self.faults.slow.filter(|(of, _)| *of == name).map_or(Duration::ZERO, |(_, by)| by);
        self.push(self.now + delay + slow + LATENCY, event);
    }

    /// The exit's application: four bytes ask for so many.
    fn serve(&mut self) {
        let now = self.now;
        self.exit.work(now);
        while let Some((pseudonym, event)) = self.exit.poll_event() {
            if let TunnelEvent::Readable(id) = event {
                let mut buf = [0; 64];
                while let Read::Data(n) = self.exit.tunnels().read(pseudonym, id, &mut buf) {
                    assert_eq!(n, 4);
                    let wanted = u32::from_be_bytes(buf[..4].try_into().unwrap());
                    self.serving.insert((pseudonym, id), wanted);
                }
            }
        }
        let tunnels = self.exit.tunnels();
        self.serving.retain(|(pseudonym, id), left| {
            while *left > 0 {
                let chunk = [9; 4096];
                match tunnels.write(*pseudonym, *id, &chunk[..chunk.len().min(*left as usize)]) {
                    Write::Written(n) => *left -= n as u32,
                    Write::Blocked => return true,
                    Write::Stopped(_) => *left = 0,
                }
            }
            tunnels.finish(*pseudonym, *id);
            false
        });
        self.exit.work(now);
        while let Some(send) = self.exit.poll_output() {
            assert_eq!(send.gateway, self.far);
            self.push(now + LATENCY, Event::Up(false, send.frame));
        }
    }

    /// The person's program, and what the daemon does.
    fn work(&mut self) {
        let now = self.now;
        if self.want > 0 && self.group.is_none() {
            self.group = self.client.group(now, Isolation::new(None), Target::Exit);
        }
        while let Some(output) = self.client.poll_output() {
            if let ClientOutput::EpochChanged = output {
                self.turns += 1;
                self.client.follow_from(now, now);
            }
            self.outputs.push(output);
        }
        if let (Some(group), None) = (self.group, self.stream)
            && self.want > 0
            && let Some(stream) = self.client.open(now, group)
        {
            let tunnel = self.client.tunnel(group).unwrap();
            assert_eq!(tunnel.write(stream, &self.want.to_be_bytes()), Write::Written(4));
            tunnel.finish(stream);
            self.stream = Some(stream);
        }
        if let (Some(group), Some(stream)) = (self.group, self.stream) {
            let mut buf = [0; 4096];
            let Some(tunnel) = self.client.tunnel(group) else { return };
            let mut is_read = false;
            loop {
                match tunnel.read(stream, &mut buf) {
                    Read::Data(n) => {
                        is_read = true;
                        self.read += n as u64;
                        self.stall = self.stall.max(now.since(self.read_at));
                        self.read_at = now;
                    }
                    Read::Blocked => break,
                    _ => {
                        self.stream = None;
                        break;
                    }
                }
            }
            self.stall = self.stall.max(now.since(self.read_at));
            // As the daemon does: who waits in vain uses nothing.
            if is_read {
                self.client.touch(now, group);
            }
            if self.stream.is_none() {
                self.client.closed(now, group);
            }
        }
        self.produce();
    }
}
