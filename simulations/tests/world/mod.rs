//! A small world in virtual time: the engines of all daemons, joined by links of one millisecond. No clock, no
//! socket: the same seed gives the same trace.

// A world for tests, which fail by panicking; tunnels want one real instant to count from.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::disallowed_methods)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_client::engine::{
    Client, Failure, GroupId, Isolation, Output as ClientOutput, Settings, Target,
};
use shoal_client::service::Service;
use shoal_client::tunnel::{Read, StreamId, TunnelEvent, Write};
use shoal_client::uplink::Uplink;
use shoal_node::replay::Replay;
use shoal_node::{
    Admission, Arrived, DropReason, Engine, GatewaySettings, Input, Opener, Origin, Output, Place,
    SessionId,
};
use shoal_sphinx::{CLIENT_CONTROL, Codec, Downward, Frame, Peeled, SecretKey};
use shoal_topology::reputation::report::Report;
use shoal_topology::wire::client_gateway::{
    Assembly, Away, ControlMessage, DocumentPart, Hello, Mode, Notice,
};
use shoal_topology::*;

const LATENCY: Duration = Duration::from_millis(1);
/// Unix time at the beginning of every world.
pub const UNIX: u64 = 1_800_000_000;
const EPOCH_S: u32 = 86_400;
const NODES: [&str; 8] =
    ["mix-1-1", "mix-1-2", "mix-2-1", "mix-2-2", "mix-3-1", "mix-3-2", "gateway-1", "gateway-2"];
const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];

/// What an observer of a link sees: when, and in which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Up(Time),
    Down(Time),
}

enum Event {
    ToNode { from: usize, to: usize, frame: Frame },
    FromClient { gateway: usize, who: Who, frame: Frame },
    ToClient { who: Who, frame: Frame, gateway: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Who {
    Person(usize),
    Exit,
}

pub struct Node {
    pub engine: Engine,
    pub opener: Opener,
    pub name: &'static str,
    pub identity: Identity,
    /// Whom links join it with; everybody without one.
    pub place: Option<Place>,
    /// The share of the packets from other nodes that it takes.
    pub losing: f64,
}

/// What a user does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum User {
    Idle,
    /// Downloads again and again, so many bytes each time.
    Downloads(u32),
    /// Downloads so many bytes once, and is idle from then on.
    DownloadsOnce(u32),
    /// Uploads without end.
    Uploads,
    /// Asks again and again: a stream with a question of so many bytes, and so many bytes for an answer.
    Asks {
        every: Duration,
        question: u32,
        answer: u32,
    },
}

pub struct Person {
    pub client: Client,
    pub uplink: Uplink,
    user: User,
    group: Option<GroupId>,
    stream: Option<StreamId>,
    pub downloaded: u64,
    pub uploaded: u64,
    /// Groups that ended.
    pub ended: u64,
    /// Of these, groups that ended while they were of use: not since their time was over.
    pub broken: u64,
    /// Times that the engine wanted another gateway.
    pub left: u64,
    /// When each answer was there, and how long that was after its question was due.
    pub waits: Vec<(Time, Duration)>,
    /// Questions whose stream ended without the answer.
    pub failed: u64,
    next_question: Time,
    /// Bytes of the present answer.
    answered: u64,
    pub trace: Vec<Seen>,
    /// Frames up as its gateway sees them: instant, first hop, epoch byte.
    pub frames: Vec<(Time, u16, u8)>,
    /// What came for it to its gateway and is not down yet: instant and epoch byte, by the packet.
    waiting: HashMap<Vec<u8>, (Time, u8)>,
    /// What has come: when to its gateway, the epoch byte, the low byte of the present epoch, and whether it was a loop.
    pub arrivals: Vec<(Time, u8, u8, bool)>,
    inbox: SecretIdentity,
    class: String,
}

pub struct World {
    pub now: Time,
    seq: u64,
    pub nodes: Vec<Node>,
    by_identity: HashMap<Identity, usize>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, Event>,
    pub people: Vec<Person>,
    pub exit: Service,
    exit_inbox: SecretIdentity,
    serving: BTreeMap<([u8; 16], StreamId), u32>,
    /// Questions that are not heard to the end, and how many bytes they want.
    hearing: BTreeMap<([u8; 16], StreamId), u32>,
    seed: Seed,
    gateway_of: Vec<usize>,
    exit_gateways: Vec<usize>,
    /// Users do nothing before.
    pub users_from: Time,
    /// Who signs the documents that clients get from gateways; none where everyone has the document from the beginning.
    pub network: Option<Network>,
    assemblies: BTreeMap<(Who, usize), Assembly>,
    /// What nodes reported, by their places.
    pub reports: Vec<(usize, Report)>,
    /// Frames over each link between nodes.
    pub links: BTreeMap<(usize, usize), u64>,
    /// Frames between nodes whose documents have no such link.
    pub unlinked: u64,
    /// Documents that clients and the exit refused, or could not read.
    pub refused: u64,
    /// All that links showed: who to whom, and when.
    hasher: std::hash::DefaultHasher,
    losses: Stream,
}

fn identity(seed: &Seed, name: &str) -> SecretIdentity {
    use rand::Rng;
    let mut bytes = [0; 32];
    seed.stream(name).fill_bytes(&mut bytes);
    SecretIdentity::from_bytes(&bytes)
}

impl World {
    /// Two gateways, three layers of two mixes, one exit at the second gateway and the first, and these people, all
    /// at the first gateway, of class web; and a document that everyone has from the beginning.
    pub fn new(seed: u64, codec: Arc<dyn Codec>, users: &[User]) -> Self {
        let mut world = Self::without_documents(seed, codec, &NODES, users);
        let mut secrets = Vec::new();
        let listed = (0..world.nodes.len()).map(|index| {
            let name = world.nodes[index].name;
            let secret = SecretKey::generate(&mut world.seed.stream(&format!("{name} key")));
            let key = *secret.public().as_bytes();
            secrets.push(secret);
            let keys = vec![EpochKey { first: Epoch(0), last: Epoch(u64::MAX), key }];
            let layer = name.strip_prefix("mix-").map_or(0, |name| name[..1].parse().unwrap());
            ListedNode::new(world.describe(index, keys, 0), layer)
        });
        let document = Arc::new(Document {
            network: "world".into(),
            epoch: Epoch(UNIX / u64::from(EPOCH_S)),
            begins: UNIX / u64::from(EPOCH_S) * u64::from(EPOCH_S),
            epoch_s: EPOCH_S,
            amendment: 0,
            parameters: Parameters::default(),
            nodes: listed.collect(),
            draw: Default::default(),
            exits: vec![world.describe_exit()],
        });
        document.check().unwrap();
        let signed: Arc<[u8]> = SignedDocument::new(&document, []).encode().into();
        let epoch = document.epoch_at(UNIX);
        for (node, secret) in world.nodes.iter_mut().zip(secrets) {
            let replay = Replay::new([7; 32], 1 << 20);
            node.opener.add_key(Epoch(0), Epoch(u64::MAX), secret, replay);
            node.opener.update(&document, epoch);
            let (document, signed) = (document.clone(), signed.clone());
            let input = Input::Document { document, signed, epoch, announce: Time::ZERO };
            node.engine.handle(Time::ZERO, input);
        }
        let held = VerifiedDocument { document, signed };
        world.exit.set_document(Time::ZERO, UNIX, held.clone()).unwrap();
        for (person, gateway) in world.people.iter_mut().zip(&world.gateway_of) {
            person.client.set_document(Time::ZERO, UNIX, held.clone()).unwrap();
            person.client.set_link(Time::ZERO, Some(world.nodes[*gateway].identity));
            let turns = person.client.turns(Time::ZERO);
            person.uplink.clear(turns);
        }
        world.join();
        world
    }

    /// The same without documents, keys and links, with these nodes.
    pub fn without_documents(
        seed: u64,
        codec: Arc<dyn Codec>,
        names: &[&'static str],
        users: &[User],
    ) -> Self {
        let seed = Seed::from_u64(seed);
        let base = Instant::now();
        let mut nodes: Vec<Node> = names
            .iter()
            .map(|name| {
                let role = if name.starts_with("mix") { Role::Mix } else { Role::Gateway };
                let settings = shoal_node::Settings {
                    identity: identity(&seed, name).identity(),
                    role,
                    pool_packets: 100_000,
                    seed: seed.part(name),
                    gateway: GatewaySettings {
                        admission: Admission::anyone(),
                        ..GatewaySettings::default()
                    },
                };
                Node {
                    identity: settings.identity,
                    engine: Engine::new(settings, codec.clone()),
                    opener: Opener::new(codec.clone()),
                    name,
                    place: None,
                    losing: 0.0,
                }
            })
            .collect();
        nodes.sort_by_key(|node| node.identity);
        let by_identity: HashMap<Identity, usize> =
            nodes.iter().enumerate().map(|(index, node)| (node.identity, index)).collect();
        let exit_gateways = GATEWAYS.map(|name| by_identity[&identity(&seed, name).identity()]);
        let exit_seed: [u8; 32] = {
            use rand::Rng;
            let mut bytes = [0; 32];
            seed.stream("exit").fill_bytes(&mut bytes);
            bytes
        };
        let exit = Service::new(
            codec.clone(),
            (base, Time::ZERO),
            &seed.part("exit engine"),
            (&exit_seed, SecretKey::generate(&mut seed.stream("exit key"))),
            &Default::default(),
        );
        let person = |(n, user): (usize, &User)| {
            let own = seed.part(&format!("person {n}"));
            let class = Parameters::default().class("web").unwrap().clone();
            let inbox = identity(&own, "inbox");
            let secret = SecretKey::generate(&mut own.stream("packets key"));
            let settings = Settings { allow_small_crowd: true, ..Settings::default() };
            let client = Client::new(
                codec.clone(),
                (base, Time::ZERO),
                &own,
                class.clone(),
                (secret, inbox.identity()),
                settings,
            );
            Person {
                client,
                uplink: Uplink::new(&own.part("uplink"), class, Time::ZERO),
                user: *user,
                group: None,
                stream: None,
                downloaded: 0,
                uploaded: 0,
                ended: 0,
                broken: 0,
                left: 0,
                waits: Vec::new(),
                failed: 0,
                next_question: Time::ZERO,
                answered: 0,
                trace: Vec::new(),
                frames: Vec::new(),
                waiting: HashMap::new(),
                arrivals: Vec::new(),
                inbox,
                class: "web".into(),
            }
        };
        Self {
            now: Time::ZERO,
            seq: 0,
            nodes,
            by_identity,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            people: users.iter().enumerate().map(person).collect(),
            exit: exit.unwrap(),
            exit_inbox: identity(&seed, "exit inbox"),
            serving: BTreeMap::new(),
            hearing: BTreeMap::new(),
            gateway_of: users.iter().map(|_| exit_gateways[0]).collect(),
            exit_gateways: exit_gateways.to_vec(),
            users_from: Time::from_millis(500),
            network: None,
            assemblies: BTreeMap::new(),
            reports: Vec::new(),
            links: BTreeMap::new(),
            unlinked: 0,
            refused: 0,
            hasher: std::hash::DefaultHasher::new(),
            losses: seed.stream("losses"),
            seed,
        }
    }

    /// A node's key.
    pub fn secret(&self, index: usize) -> SecretIdentity {
        identity(&self.seed, self.nodes[index].name)
    }

    /// What a node says of itself.
    pub fn describe(
        &self,
        index: usize,
        keys: Vec<EpochKey>,
        signed_at: u64,
    ) -> Signed<NodeDescriptor> {
        let name = self.nodes[index].name;
        let long = self.secret(index);
        let body = NodeDescriptor {
            identity: long.identity(),
            role: if name.starts_with("mix") { Role::Mix } else { Role::Gateway },
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            operator: name.into(),
            jurisdiction: "here".into(),
            packets_per_s: 2_000,
            keys,
            signed_at,
        };
        Signed::<NodeDescriptor>::new(body, &long)
    }

    /// What the exit says of itself.
    pub fn describe_exit(&self) -> Signed<ClientDescriptor> {
        let long = identity(&self.seed, "exit");
        let secret = SecretKey::generate(&mut self.seed.stream("exit key"));
        let gateways = self.exit_gateways.iter().rev().map(|index| self.nodes[*index].identity);
        let body = ClientDescriptor {
            identity: long.identity(),
            key: *secret.public().as_bytes(),
            inbox: self.exit_inbox.identity(),
            gateways: gateways.collect(),
            not_before: UNIX - 1,
            not_after: UNIX + 1_000_000,
        };
        Signed::<ClientDescriptor>::new(body, &long)
    }

    /// Who sent to whom, and when, in one number.
    pub fn hash(&self) -> u64 {
        use std::hash::Hasher;
        self.hasher.finish()
    }

    /// Frames on their way.
    pub fn under_way(&self) -> usize {
        self.queue.len()
    }

    /// Something happens to a node.
    pub fn handle_node(&mut self, index: usize, input: Input) {
        self.nodes[index].engine.handle(self.now, input);
        self.drain_node(index);
    }

    fn saw(&mut self, from: usize, to: usize) {
        use std::hash::Hash;
        (self.now.as_nanos(), from, to).hash(&mut self.hasher);
    }

    /// Clients and the exit connect.
    pub fn join(&mut self) {
        for gateway in self.exit_gateways.clone() {
            self.joined(gateway, Who::Exit);
        }
        for n in 0..self.people.len() {
            self.joined(self.gateway_of[n], Who::Person(n));
        }
    }

    fn session(who: Who) -> SessionId {
        SessionId(match who {
            Who::Person(n) => 100 + n as u64,
            Who::Exit => 1,
        })
    }

    fn peer(&self, who: Who) -> Identity {
        identity(&self.seed, &format!("throwaway {who:?}")).identity()
    }

    fn joined(&mut self, gateway: usize, who: Who) {
        let peer = self.peer(who);
        let input = Input::Joined { session: Self::session(who), peer, origin: Origin(0) };
        self.nodes[gateway].engine.handle(self.now, input);
        self.drain_node(gateway);
    }

    fn push(&mut self, at: Time, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq)));
        self.events.insert(self.seq, event);
    }

    fn drain_node(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].engine.poll_output() {
            match output {
                Output::Send { to, frame } => {
                    let (from, to) = (index, self.by_identity[&to]);
                    *self.links.entry((from, to)).or_default() += 1;
                    self.saw(from, to);
                    let [one, other] = [from, to].map(|index| &self.nodes[index]);
                    let sends = one.place.as_ref().is_none_or(|p| p.sends_to(&other.identity));
                    let takes = other.place.as_ref().is_none_or(|p| p.takes_from(&one.identity));
                    if sends && takes {
                        self.push(self.now + LATENCY, Event::ToNode { from, to, frame });
                    } else {
                        self.unlinked += 1;
                    }
                }
                Output::Report(report) => self.reports.push((index, report)),
                Output::ToClient { session, frame } => {
                    let who = match session.0 {
                        1 => Who::Exit,
                        n => Who::Person(n as usize - 100),
                    };
                    if let Who::Person(n) = who {
                        self.people[n].trace.push(Seen::Down(self.now));
                        self.saw(index, 1_000 + n);
                    }
                    self.push(self.now + LATENCY, Event::ToClient { who, frame, gateway: index });
                }
                _ => {}
            }
        }
    }

    /// Runs until `end`.
    pub fn run(&mut self, end: Time) {
        loop {
            let mut next = self.queue.peek().map_or(Time::NEVER, |Reverse((at, _))| *at);
            for node in &mut self.nodes {
                next = next.min(node.engine.next_wake().unwrap_or(Time::NEVER));
            }
            next = next.min(self.exit.next_timeout());
            for person in &mut self.people {
                next = next.min(person.client.next_timeout()).min(person.uplink.next_slot());
            }
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
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, seq))) = self.queue.pop() else { break };
            let event = self.events.remove(&seq).unwrap();
            self.handle(event);
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].engine.next_wake().is_some_and(|at| at <= now) {
                self.nodes[index].engine.handle(now, Input::Wake);
                self.drain_node(index);
            }
        }
        if self.exit.next_timeout() <= now {
            self.exit.handle_timeout(now);
        }
        self.work_exit();
        for n in 0..self.people.len() {
            self.work_person(n);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToNode { to, frame, .. } => {
                let losing = self.nodes[to].losing;
                if losing > 0.0 && rand::RngExt::random::<f64>(&mut self.losses) < losing {
                    return;
                }
                let arrived: Result<Arrived, DropReason> =
                    self.nodes[to].opener.open_frame(now, frame);
                if let Ok(Arrived { epoch, peeled: Peeled::Forward { next, packet, .. }, .. }) =
                    &arrived
                    && let Some(person) =
                        self.people.iter_mut().find(|person| person.inbox.identity().0 == *next)
                {
                    person.waiting.insert(packet.as_bytes().to_vec(), (now, *epoch));
                }
                self.handle_node(to, Input::Arrived(arrived));
            }
            Event::FromClient { gateway, who, frame } => {
                let input = Input::Client { session: Self::session(who), frame: Ok(frame) };
                self.nodes[gateway].engine.handle(now, input);
                self.drain_node(gateway);
            }
            Event::ToClient { who, frame, gateway } => match Downward::from_field(frame.field) {
                Some(Downward::Notice) => self.notice(who, &frame, gateway),
                Some(Downward::Document) => self.part(who, &frame, gateway),
                _ => match who {
                    Who::Exit => {
                        let gateway = self.nodes[gateway].identity;
                        self.exit.handle_frame(now, gateway, frame);
                    }
                    Who::Person(n) => {
                        let person = &mut self.people[n];
                        let sent = person.uplink.sent_loops();
                        person.client.loops_sent(sent);
                        let came = person.waiting.remove(frame.packet.as_bytes().as_slice());
                        let arrival = person.client.handle_frame(now, frame);
                        if let Some((at, epoch)) = came
                            && let Some(present) = person.client.epoch(at)
                        {
                            let is_loop = arrival == shoal_client::engine::Arrival::Loop;
                            let present = Epoch(present).low_byte();
                            person.arrivals.push((at, epoch, present, is_loop));
                        }
                        if arrival == shoal_client::engine::Arrival::FromOthers {
                            person.uplink.credit();
                        }
                    }
                },
            },
        }
    }

    /// A part of a document came from a gateway: what the daemons do.
    fn part(&mut self, who: Who, frame: &Frame, gateway: usize) {
        let Some(network) = &self.network else { return };
        let part = DocumentPart::unpack(&frame.packet).unwrap();
        let assembly = self.assemblies.entry((who, gateway)).or_default();
        let Some(bytes) = assembly.add(part) else { return };
        let now = self.now;
        let unix_s = UNIX + now.as_nanos() / 1_000_000_000;
        let Ok(document) = SignedDocument::verify(&bytes, network, unix_s) else {
            self.refused += 1;
            return;
        };
        let held = VerifiedDocument { document: Arc::new(document), signed: bytes.into() };
        match who {
            Who::Exit => _ = self.exit.set_document(now, unix_s, held).unwrap(),
            Who::Person(n) => {
                let person = &mut self.people[n];
                let known = person.client.epoch(now).is_some();
                person.client.set_document(now, unix_s, held).unwrap();
                if !known {
                    let turns = person.client.turns(now);
                    person.uplink.set_class(person.client.class().clone());
                    person.uplink.clear(turns);
                    person.uplink.restart(now);
                }
            }
        }
    }

    fn notice(&mut self, who: Who, frame: &Frame, gateway: usize) {
        let nonce = match Notice::unpack(&frame.packet) {
            Ok(Notice::Challenge { nonce }) => nonce,
            Ok(Notice::Welcome) => {
                if let (Who::Person(n), Some(_)) = (who, &self.network) {
                    let gateway = self.nodes[gateway].identity;
                    self.people[n].client.set_link(self.now, Some(gateway));
                }
                return;
            }
            _ => panic!("{who:?} is turned away"),
        };
        let (inbox, mode) = match who {
            Who::Exit => (&self.exit_inbox, Mode::Service),
            Who::Person(n) => (&self.people[n].inbox, Mode::Class(self.people[n].class.clone())),
        };
        let proof = Hello::prove(inbox, &self.nodes[gateway].identity, &self.peer(who), &nonce);
        let hello = Hello {
            inbox: inbox.identity(),
            proof,
            token: Vec::new(),
            mode,
            descriptor: None,
            documents: Vec::new(),
            away: Away::Keep,
        };
        let frame = Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().unwrap() };
        self.push(self.now + LATENCY, Event::FromClient { gateway, who, frame });
    }

    /// The exit's application: the first four bytes ask for so many bytes, at once if no more come with them, else when
    /// the question is heard to the end; what else comes is swallowed.
    fn work_exit(&mut self) {
        let now = self.now;
        self.exit.work(now);
        while let Some((pseudonym, event)) = self.exit.poll_event() {
            match event {
                TunnelEvent::Readable(id) => {
                    let mut buf = [0; 4096];
                    loop {
                        match self.exit.tunnels().read(pseudonym, id, &mut buf) {
                            Read::Data(4) => {
                                let wanted = u32::from_be_bytes(buf[..4].try_into().unwrap());
                                self.serving.insert((pseudonym, id), wanted);
                            }
                            Read::Data(n) if n > 4 => {
                                let wanted = u32::from_be_bytes(buf[..4].try_into().unwrap());
                                self.hearing.entry((pseudonym, id)).or_insert(wanted);
                            }
                            Read::Data(_) => {}
                            Read::Finished => {
                                if let Some(wanted) = self.hearing.remove(&(pseudonym, id)) {
                                    self.serving.insert((pseudonym, id), wanted);
                                }
                                break;
                            }
                            _ => break,
                        }
                    }
                }
                TunnelEvent::Closed(_) => {
                    self.serving.retain(|(of, _), _| *of != pseudonym);
                    self.hearing.retain(|(of, _), _| *of != pseudonym);
                }
                _ => {}
            }
        }
        let mut done = Vec::new();
        for ((pseudonym, id), left) in &mut self.serving {
            while *left > 0 {
                let chunk = [9; 4096];
                let n = chunk.len().min(*left as usize);
                match self.exit.tunnels().write(*pseudonym, *id, &chunk[..n]) {
                    Write::Written(n) => *left -= n as u32,
                    Write::Blocked => break,
                    Write::Stopped(_) => *left = 0,
                }
            }
            if *left == 0 {
                self.exit.tunnels().finish(*pseudonym, *id);
                done.push((*pseudonym, *id));
            }
        }
        self.serving.retain(|key, _| !done.contains(key));
        self.exit.work(now);
        while let Some(send) = self.exit.poll_output() {
            let gateway = self.by_identity[&send.gateway];
            self.push(
                now + LATENCY,
                Event::FromClient { gateway, who: Who::Exit, frame: send.frame },
            );
        }
    }

    fn work_person(&mut self, n: usize) {
        let now = self.now;
        let person = &mut self.people[n];
        if person.client.next_timeout() <= now {
            person.client.handle_timeout(now);
        }
        // The gateway lets a client in within three link latencies; then its user begins.
        let wants = match person.user {
            User::Idle => false,
            User::DownloadsOnce(_) => person.downloaded == 0,
            _ => true,
        };
        if wants && now > self.users_from && person.group.is_none() {
            person.next_question = person.next_question.max(self.users_from);
            person.group = person.client.group(now, Isolation::new(None), Target::Exit);
        }
        while let Some(output) = person.client.poll_output() {
            match output {
                ClientOutput::Failed(_, why) => {
                    person.broken += u64::from(why != Failure::Idle);
                    person.failed += u64::from(person.stream.is_some());
                    (person.group, person.stream) = (None, None);
                    person.ended += 1;
                }
                ClientOutput::EpochChanged => {
                    let turns = person.client.turns(now);
                    person.uplink.set_class(person.client.class().clone());
                    person.uplink.follow(turns);
                }
                ClientOutput::LeaveGateway => person.left += 1,
                _ => {}
            }
        }
        if let Some(group) = person.group {
            person.act(now, group);
        }
        person.client.fill(now, &mut person.uplink);
        let mut frames = Vec::new();
        while person.uplink.next_slot() <= now {
            person.trace.push(Seen::Up(now));
            let frame = person.uplink.take(now);
            person.frames.push((now, frame.field, frame.epoch));
            frames.push(frame);
        }
        let gateway = self.gateway_of[n];
        for frame in frames {
            self.saw(1_000 + n, gateway);
            self.push(now + LATENCY, Event::FromClient { gateway, who: Who::Person(n), frame });
        }
    }

    pub fn document(&self) -> &Document {
        self.exit.document(self.now).unwrap()
    }
}

impl Person {
    fn act(&mut self, now: Time, group: GroupId) {
        if let User::DownloadsOnce(bytes) = self.user
            && self.downloaded >= u64::from(bytes)
            && self.stream.is_none()
        {
            return;
        }
        if let User::Asks { .. } = self.user
            && self.stream.is_none()
            && now < self.next_question
        {
            return;
        }
        if self.stream.is_none() {
            let Some(stream) = self.client.open(now, group) else { return };
            self.stream = Some(stream);
            self.answered = 0;
            if let User::Asks { question, answer, .. } = self.user
                && let Some(tunnel) = self.client.tunnel(group)
            {
                let mut bytes = vec![3; question as usize];
                bytes[..4].copy_from_slice(&answer.to_be_bytes());
                assert_eq!(tunnel.write(stream, &bytes), Write::Written(bytes.len()));
                tunnel.finish(stream);
            }
            if let User::Downloads(bytes) | User::DownloadsOnce(bytes) = self.user
                && let Some(tunnel) = self.client.tunnel(group)
            {
                tunnel.write(stream, &bytes.to_be_bytes());
                tunnel.finish(stream);
            }
        }
        let Some(stream) = self.stream else { return };
        self.client.touch(now, group);
        let Some(tunnel) = self.client.tunnel(group) else { return };
        match self.user {
            User::Uploads => {
                while let Write::Written(n) = tunnel.write(stream, &[7; 4096]) {
                    self.uploaded += n as u64;
                }
            }
            _ => {
                let mut buf = [0; 8192];
                loop {
                    match tunnel.read(stream, &mut buf) {
                        Read::Data(n) => {
                            self.downloaded += n as u64;
                            self.answered += n as u64;
                        }
                        Read::Blocked => break,
                        Read::Finished | Read::Reset(_) => {
                            self.client.closed(now, group);
                            self.stream = None;
                            if let User::Asks { every, answer, .. } = self.user {
                                if self.answered == u64::from(answer) {
                                    self.waits.push((now, now.since(self.next_question)));
                                } else {
                                    self.failed += 1;
                                }
                                self.next_question += every;
                            }
                            break;
                        }
                    }
                }
            }
        }
    }
}
