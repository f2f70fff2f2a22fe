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

use shoal_client::engine::{Client, GroupId, Isolation, Output as ClientOutput, Settings, Target};
use shoal_client::service::Service;
use shoal_client::tunnel::{Read, StreamId, TunnelEvent, Write};
use shoal_client::uplink::Uplink;
use shoal_node::replay::Replay;
use shoal_node::{Arrived, DropReason, Engine, GatewaySettings, Input, Opener, Output, SessionId};
use shoal_sphinx::{CLIENT_CONTROL, Codec, Downward, Frame, SecretKey};
use shoal_topology::control::{Hello, Mode, Notice, Word};
use shoal_topology::*;

const LATENCY: Duration = Duration::from_millis(1);
/// Unix time at the beginning of every world.
const UNIX: u64 = 1_800_000_000;
const EPOCH_S: u32 = 86_400;

/// What an observer of a link sees: when, and in which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Up(Time),
    Down(Time),
}

enum Event {
    ToNode(usize, Frame),
    FromClient { gateway: usize, who: Who, frame: Frame },
    ToClient { who: Who, frame: Frame, gateway: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Who {
    Person(usize),
    Exit,
}

struct Node {
    engine: Engine,
    opener: Opener,
    identity: Identity,
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
    pub trace: Vec<Seen>,
    inbox: SecretIdentity,
    class: String,
}

pub struct World {
    pub now: Time,
    seq: u64,
    nodes: Vec<Node>,
    by_identity: HashMap<Identity, usize>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, Event>,
    pub people: Vec<Person>,
    pub exit: Service,
    exit_inbox: SecretIdentity,
    serving: BTreeMap<([u8; 16], StreamId), u32>,
    document: Arc<Document>,
    seed: Seed,
    gateway_of: Vec<usize>,
    exit_gateways: Vec<usize>,
}

fn identity(seed: &Seed, name: &str) -> SecretIdentity {
    use rand::Rng;
    let mut bytes = [0; 32];
    seed.stream(name).fill_bytes(&mut bytes);
    SecretIdentity::from_bytes(&bytes)
}

impl World {
    /// Two gateways, three layers of two mixes, one exit at the second gateway and the first, and these people, all
    /// at the first gateway, of class web.
    pub fn new(seed: u64, codec: Arc<dyn Codec>, users: &[User]) -> Self {
        let seed = Seed::from_u64(seed);
        let base = Instant::now();
        let names = [
            "mix-1-1",
            "mix-1-2",
            "mix-2-1",
            "mix-2-2",
            "mix-3-1",
            "mix-3-2",
            "gateway-1",
            "gateway-2",
        ];
        let mut listed = Vec::new();
        let mut secrets = HashMap::new();
        for name in names {
            let long = identity(&seed, name);
            let secret = SecretKey::generate(&mut seed.stream(&format!("{name} key")));
            let role = if name.starts_with("mix") { Role::Mix } else { Role::Gateway };
            let body = NodeDescriptor {
                identity: long.identity(),
                role,
                addresses: vec!["127.0.0.1:1".parse().unwrap()],
                operator: name.into(),
                jurisdiction: "here".into(),
                keys: vec![EpochKey {
                    first: Epoch(0),
                    last: Epoch(u64::MAX),
                    key: *secret.public().as_bytes(),
                }],
                signed_at: 0,
            };
            let layer = if role == Role::Mix { name[4..5].parse().unwrap() } else { 0 };
            listed.push(ListedNode::new(Signed::<NodeDescriptor>::new(body, &long), layer));
            secrets.insert(long.identity(), (name, secret));
        }
        let gateways: Vec<Identity> = ["gateway-1", "gateway-2"]
            .iter()
            .map(|name| identity(&seed, name).identity())
            .collect();
        listed.sort_by_key(ListedNode::identity);

        let exit_long = identity(&seed, "exit");
        let exit_inbox = identity(&seed, "exit inbox");
        let exit_secret = SecretKey::generate(&mut seed.stream("exit key"));
        let descriptor = ClientDescriptor {
            identity: exit_long.identity(),
            key: *exit_secret.public().as_bytes(),
            inbox: exit_inbox.identity(),
            gateways: vec![gateways[1], gateways[0]],
            not_before: UNIX - 1,
            not_after: UNIX + 1_000_000,
        };
        let document = Arc::new(Document {
            network: "world".into(),
            epoch: Epoch(UNIX / u64::from(EPOCH_S)),
            begins: UNIX / u64::from(EPOCH_S) * u64::from(EPOCH_S),
            epoch_s: EPOCH_S,
            amendment: 0,
            parameters: Parameters::default(),
            nodes: listed,
            draw: Default::default(),
            exits: vec![Signed::<ClientDescriptor>::new(descriptor, &exit_long)],
        });
        document.check().unwrap();
        let signed: Arc<[u8]> = SignedDocument::new(&document, []).encode().into();
        let epoch = document.epoch_at(UNIX);

        let mut nodes = Vec::new();
        let mut by_identity = HashMap::new();
        for (index, node) in document.nodes.iter().enumerate() {
            let (name, secret) = secrets.remove(&node.identity()).unwrap();
            let opener = Opener::new(codec.clone());
            opener.add_key(Epoch(0), Epoch(u64::MAX), secret, Replay::new([7; 32], 1 << 20));
            opener.update(&document, epoch);
            let settings = shoal_node::Settings {
                identity: node.identity(),
                role: node.descriptor.body().role,
                pool_packets: 100_000,
                seed: seed.part(name),
                gateway: GatewaySettings::default(),
            };
            let mut engine = Engine::new(settings, codec.clone());
            let (document, signed) = (document.clone(), signed.clone());
            let input = Input::Document { document, signed, epoch, announce: Time::ZERO };
            engine.handle(Time::ZERO, input);
            by_identity.insert(node.identity(), index);
            nodes.push(Node { engine, opener, identity: node.identity() });
        }
        let exit_seed: [u8; 32] = {
            use rand::Rng;
            let mut bytes = [0; 32];
            seed.stream("exit").fill_bytes(&mut bytes);
            bytes
        };
        let mut exit = Service::new(
            codec.clone(),
            (base, Time::ZERO),
            &seed.part("exit engine"),
            (&exit_seed, exit_secret),
            &Default::default(),
        )
        .unwrap();
        let held = Held { document: document.clone(), signed: signed.clone() };
        exit.set_document(Time::ZERO, UNIX, held.clone()).unwrap();
        let people = users
            .iter()
            .enumerate()
            .map(|(n, user)| {
                let own = seed.part(&format!("person {n}"));
                let class = document.parameters.class("web").unwrap().clone();
                let inbox = identity(&own, "inbox");
                let secret = SecretKey::generate(&mut own.stream("packets key"));
                let settings = Settings { allow_small_crowd: true, ..Settings::default() };
                let mut client = Client::new(
                    codec.clone(),
                    (base, Time::ZERO),
                    &own,
                    class.clone(),
                    (secret, inbox.identity()),
                    settings,
                );
                client.set_document(Time::ZERO, UNIX, held.clone()).unwrap();
                let mut uplink = Uplink::new(&own.part("uplink"), class, Time::ZERO);
                client.set_link(Time::ZERO, Some(gateways[0]));
                let (hops, epoch) = client.first_hops(Time::ZERO);
                uplink.clear(hops, epoch);
                Person {
                    client,
                    uplink,
                    user: *user,
                    group: None,
                    stream: None,
                    downloaded: 0,
                    uploaded: 0,
                    ended: 0,
                    trace: Vec::new(),
                    inbox,
                    class: "web".into(),
                }
            })
            .collect::<Vec<_>>();
        let gateway_of = people.iter().map(|_| by_identity[&gateways[0]]).collect();
        let exit_gateways = gateways.iter().map(|gateway| by_identity[gateway]).collect();
        let mut world = Self {
            now: Time::ZERO,
            seq: 0,
            nodes,
            by_identity,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            people,
            exit,
            exit_inbox,
            serving: BTreeMap::new(),
            document,
            seed,
            gateway_of,
            exit_gateways,
        };
        world.join();
        world
    }

    fn join(&mut self) {
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
        let input = Input::Joined { session: Self::session(who), peer };
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
                    let to = self.by_identity[&to];
                    self.push(self.now + LATENCY, Event::ToNode(to, frame));
                }
                Output::ToClient { session, frame } => {
                    let who = match session.0 {
                        1 => Who::Exit,
                        n => Who::Person(n as usize - 100),
                    };
                    if let Who::Person(n) = who {
                        self.people[n].trace.push(Seen::Down(self.now));
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
            Event::ToNode(index, frame) => {
                let arrived: Result<Arrived, DropReason> =
                    self.nodes[index].opener.open_frame(now, frame);
                self.nodes[index].engine.handle(now, Input::Arrived(arrived));
                self.drain_node(index);
            }
            Event::FromClient { gateway, who, frame } => {
                let input = Input::Client { session: Self::session(who), frame: Ok(frame) };
                self.nodes[gateway].engine.handle(now, input);
                self.drain_node(gateway);
            }
            Event::ToClient { who, frame, gateway } => match Downward::from_field(frame.field) {
                Some(Downward::Notice) => self.notice(who, &frame, gateway),
                Some(Downward::Document) => {}
                _ => match who {
                    Who::Exit => {
                        let gateway = self.nodes[gateway].identity;
                        self.exit.handle_frame(now, gateway, frame);
                    }
                    Who::Person(n) => {
                        let person = &mut self.people[n];
                        let sent = person.uplink.sent_loops();
                        person.client.loops_sent(sent);
                        if person.client.handle_frame(now, frame)
                            == shoal_client::engine::Arrival::FromOthers
                        {
                            person.uplink.credit();
                        }
                    }
                },
            },
        }
    }

    fn notice(&mut self, who: Who, frame: &Frame, gateway: usize) {
        let Ok(Notice::Challenge { nonce }) = Notice::unpack(&frame.packet) else { return };
        let (inbox, mode) = match who {
            Who::Exit => (&self.exit_inbox, Mode::Service),
            Who::Person(n) => (&self.people[n].inbox, Mode::Class(self.people[n].class.clone())),
        };
        let proof = Hello::prove(inbox, &self.nodes[gateway].identity, &self.peer(who), &nonce);
        let hello =
            Hello { inbox: inbox.identity(), proof, token: Vec::new(), mode, descriptor: None };
        let frame = Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().unwrap() };
        self.push(self.now + LATENCY, Event::FromClient { gateway, who, frame });
    }

    /// The exit's application: four bytes ask for so many bytes; what else comes is swallowed.
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
                            Read::Data(_) => {}
                            _ => break,
                        }
                    }
                }
                TunnelEvent::Closed(_) => self.serving.retain(|(of, _), _| *of != pseudonym),
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
        if wants && now > Time::from_millis(500) && person.group.is_none() {
            person.group = person.client.group(now, Isolation::new(None), Target::Exit);
        }
        while let Some(output) = person.client.poll_output() {
            if let ClientOutput::Failed(..) = output {
                (person.group, person.stream) = (None, None);
                person.ended += 1;
            }
        }
        if let Some(group) = person.group {
            person.act(now, group);
        }
        let sent = person.uplink.sent_loops();
        person.client.loops_sent(sent);
        loop {
            let wants = person.uplink.wants();
            let frames = person.client.produce(now, wants);
            if frames.is_empty() {
                break;
            }
            frames.into_iter().for_each(|(ready, frame)| person.uplink.put(ready, frame));
        }
        let mut frames = Vec::new();
        while person.uplink.next_slot() <= now {
            person.trace.push(Seen::Up(now));
            frames.push(person.uplink.take(now));
        }
        let gateway = self.gateway_of[n];
        for frame in frames {
            self.push(now + LATENCY, Event::FromClient { gateway, who: Who::Person(n), frame });
        }
    }

    pub fn document(&self) -> &Document {
        &self.document
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
        if self.stream.is_none() {
            let Some(stream) = self.client.open(now, group) else { return };
            self.stream = Some(stream);
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
                        Read::Data(n) => self.downloaded += n as u64,
                        Read::Blocked => break,
                        Read::Finished | Read::Reset(_) => {
                            self.client.closed(now, group);
                            self.stream = None;
                            break;
                        }
                    }
                }
            }
        }
    }
}
