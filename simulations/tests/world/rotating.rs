//! The world with authorities and epochs: four authorities vote on documents, nodes make a key for every epoch and erase
//! it, report what their loops show, and clients get each document from their gateway. In virtual time; what is here is
//! what the daemons do around the engines with files and sockets (`node/src/daemon/watcher.rs`, `keys.rs`, `authority.rs`).

// A world for tests, which fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_node::{DropReason, Input as NodeInput, Place};
use shoal_sphinx::replay::Replay;
use shoal_sphinx::{Codec, SecretKey};
use shoal_topology::consensus::{
    Authority, Event, Input, Judge, Output, Schedule, SessionId, Settings, State,
};
use shoal_topology::reputation::report::{Report, SignedReport};
use shoal_topology::reputation::{Judgement, Reputation};
use shoal_topology::*;

use crate::world::{UNIX, User, World};

pub const EPOCH_S: u32 = 10;
pub const EPOCH_MS: u64 = 1_000 * EPOCH_S as u64;
/// The epoch in which the world begins.
pub const FIRST: u64 = UNIX / EPOCH_S as u64;
/// Clients come when the first document is there.
pub const JOINED_MS: u64 = 12_000;
/// From an authority to another, or to a node and back, milliseconds.
const LATENCY_MS: u64 = 20;
/// What an authority's disk takes, milliseconds.
const DISK_MS: u64 = 10;
/// How often a node's watcher looks, as in the daemon.
const LOOK_MS: u64 = 500;
/// Epochs ahead for which nodes have a key, as in the daemon.
const AHEAD: u64 = 3;
/// Tags for which a key has room.
const TAGS: usize = 1 << 14;

/// The judge of an authority, where the test can look at it.
struct Shared(Arc<Mutex<Reputation>>);

impl Judge for Shared {
    fn report(&mut self, document: &Document, report: &Report) {
        self.0.lock().unwrap().report(document, report);
    }

    fn judge(&mut self, document: &Document) -> Judgement {
        self.0.lock().unwrap().judge(document)
    }

    fn evidence(&self) -> Option<Vec<u8>> {
        Some(self.0.lock().unwrap().encode())
    }
}

/// A machine that runs an authority.
pub struct AuthorityAddress {
    secret: SecretIdentity,
    engine: Option<Authority>,
    disk: Option<Vec<u8>>,
    /// What reports showed, on the disk too.
    evidence: Option<Vec<u8>>,
    /// How far its clock is ahead, milliseconds.
    pub offset: i64,
    judge: Arc<Mutex<Reputation>>,
    starts: u64,
    /// What it published.
    pub documents: Vec<VerifiedDocument>,
    pub events: Vec<Event>,
}

/// What a node's program does around the engine.
struct Watcher {
    keys: BTreeMap<Epoch, [u8; 32]>,
    grace: Duration,
    descriptor: Option<Signed<NodeDescriptor>>,
    /// The descriptor that each authority was given.
    told: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    reported: Option<SessionId>,
    part: u16,
    documents: DocumentStore,
    present: Option<Epoch>,
}

enum Due {
    Authority(usize, Input),
    Document(usize, Vec<u8>),
    Look(usize),
    Join,
}

/// The whole.
pub struct Rotating {
    pub world: World,
    pub authority_addresses: Vec<AuthorityAddress>,
    /// What is kept, by name: the most in each epoch.
    pub sizes: BTreeMap<String, Vec<u64>>,
    watchers: Vec<Watcher>,
    network: Network,
    parameters: Parameters,
    schedule: Schedule,
    due: BTreeMap<(u64, u64), Due>,
    seq: u64,
    /// Milliseconds since the beginning.
    pub now: u64,
    seed: Seed,
}

/// What a localnet with epochs of ten seconds has (`shoal_localnet::launch`).
pub fn parameters() -> Parameters {
    Parameters { max_delay_us: 1_000_000, clock_error_s: 1, draw_every: 6, ..Parameters::default() }
}

impl Rotating {
    /// Four authorities, these nodes and these people.
    pub fn new(
        seed: u64,
        codec: Arc<dyn Codec>,
        names: &[&'static str],
        users: &[User],
        parameters: Parameters,
    ) -> Self {
        let mut world = World::without_documents(seed, codec, names, users);
        let seed = Seed::from_u64(seed).part("authorities");
        let authority_addresses: Vec<AuthorityAddress> = (0..4)
            .map(|n| AuthorityAddress {
                secret: SecretIdentity::from_bytes(&[200 + n; 32]),
                engine: None,
                disk: None,
                evidence: None,
                offset: 0,
                judge: Arc::default(),
                starts: 0,
                documents: Vec::new(),
                events: Vec::new(),
            })
            .collect();
        let network = Network {
            name: "world".into(),
            authorities: authority_addresses
                .iter()
                .map(|authority_address| authority_address.secret.identity())
                .collect(),
            epoch_s: EPOCH_S,
            trial: false,
        };
        world.network = Some(network.clone());
        world.users_from = Time::from_millis(JOINED_MS + 1_000);
        let watchers = world.nodes.iter().map(|_| Watcher {
            keys: BTreeMap::new(),
            grace: Parameters::default().key_grace(),
            descriptor: None,
            told: vec![Vec::new(); authority_addresses.len()],
            received: Vec::new(),
            reported: None,
            part: 0,
            documents: DocumentStore::default(),
            present: None,
        });
        let mut rotating = Self {
            watchers: watchers.collect(),
            world,
            authority_addresses,
            sizes: BTreeMap::new(),
            network,
            parameters,
            schedule: Schedule::new(EPOCH_S, 1),
            due: BTreeMap::new(),
            seq: 0,
            now: 0,
            seed,
        };
        (0..rotating.authority_addresses.len()).for_each(|n| rotating.start(n));
        // Programs do not start in the same moment.
        (0..rotating.watchers.len()).for_each(|n| rotating.push(37 * n as u64, Due::Look(n)));
        rotating.push(JOINED_MS, Due::Join);
        rotating
    }

    fn push(&mut self, at: u64, due: Due) {
        self.seq += 1;
        self.due.insert((at, self.seq), due);
    }

    fn unix_ms(&self) -> u64 {
        1_000 * UNIX + self.now
    }

    /// The present epoch, counted from the first.
    pub fn epoch(&self) -> u64 {
        self.now / EPOCH_MS
    }

    /// An authority starts, with what is on its disk.
    pub fn start(&mut self, n: usize) {
        let authority_address = &mut self.authority_addresses[n];
        authority_address.starts += 1;
        let settings = Settings {
            network: self.network.clone(),
            secret: authority_address.secret.clone(),
            epoch_s: EPOCH_S,
            parameters: vec![(Epoch(0), self.parameters.clone())],
            allowed: self.world.nodes.iter().map(|node| node.identity).collect(),
            allowed_exits: vec![self.world.describe_exit().body().identity],
            seed: self.seed.part(&format!("{n} {}", authority_address.starts)),
        };
        let state = authority_address.disk.as_ref().map(|bytes| State::decode(bytes).unwrap());
        let known =
            authority_address.evidence.as_ref().map(|bytes| Reputation::decode(bytes).unwrap());
        authority_address.judge = Arc::new(Mutex::new(known.unwrap_or_default()));
        let judge = Box::new(Shared(authority_address.judge.clone()));
        authority_address.engine = Some(Authority::new(settings, judge, state));
        self.handle(n, Input::Wake);
        let exit = self.world.describe_exit().encode();
        self.push(self.now + LATENCY_MS, Due::Authority(n, Input::Exit(exit)));
    }

    /// An authority's machine ends. Nodes will say again who they are.
    pub fn kill(&mut self, n: usize) {
        self.authority_addresses[n].engine = None;
        self.watchers.iter_mut().for_each(|watcher| watcher.told[n].clear());
    }

    fn handle(&mut self, n: usize, input: Input) {
        let clock = self.unix_ms().saturating_add_signed(self.authority_addresses[n].offset);
        let Some(engine) = &mut self.authority_addresses[n].engine else { return };
        engine.handle(clock, input);
        while let Some(output) = self.authority_addresses[n].engine.as_mut().unwrap().poll_output()
        {
            match output {
                Output::Send { to, bytes } => {
                    let from = self.network.authorities[n];
                    let to = self.network.authorities.iter().position(|a| *a == to).unwrap();
                    let input = Input::Message { from, bytes };
                    self.push(self.now + LATENCY_MS, Due::Authority(to, input));
                }
                Output::Store { ticket, state } => {
                    self.authority_addresses[n].disk = Some(state);
                    self.push(self.now + DISK_MS, Due::Authority(n, Input::Stored(ticket)));
                }
                Output::Evidence(evidence) => self.authority_addresses[n].evidence = Some(evidence),
                Output::Document(held) => {
                    for node in 0..self.watchers.len() {
                        let bytes = held.signed.to_vec();
                        self.push(self.now + LATENCY_MS, Due::Document(node, bytes));
                    }
                    self.authority_addresses[n].documents.push(held);
                }
                Output::Liar { .. } => panic!("nobody lies"),
                Output::Event(event) => self.authority_addresses[n].events.push(event),
            }
        }
    }

    /// Runs until so many milliseconds after the beginning.
    pub fn run(&mut self, end: u64) {
        loop {
            let wake = |authority_address: &AuthorityAddress| {
                let wake = authority_address
                    .engine
                    .as_ref()?
                    .next_wake()?
                    .saturating_add_signed(-authority_address.offset);
                Some(wake.saturating_sub(1_000 * UNIX).max(self.now))
            };
            let wakes = self
                .authority_addresses
                .iter()
                .enumerate()
                .filter_map(|(n, s)| Some((wake(s)?, n)));
            let wake = wakes.min();
            let due = self.due.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = wake.map(|(at, _)| at).into_iter().chain(due).min() else { break };
            if next > end {
                break;
            }
            self.world.run(Time::from_millis(next));
            self.now = next;
            if due.is_some_and(|at| at <= next) {
                let (_, due) = self.due.pop_first().unwrap();
                self.act(due);
            } else if let Some((_, n)) = wake {
                self.handle(n, Input::Wake);
            }
        }
        self.world.run(Time::from_millis(end));
        self.now = end;
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::Authority(n, input) => self.handle(n, input),
            Due::Document(n, bytes) => self.watchers[n].received.push(bytes),
            Due::Join => self.world.join(),
            Due::Look(n) => {
                self.look(n);
                if n == 0 {
                    self.measure();
                }
                self.push(self.now + LOOK_MS, Due::Look(n));
            }
        }
    }

    /// Everyone who runs gets this from a node.
    fn tell_all(&mut self, input: impl Fn() -> Input) {
        for n in 0..self.authority_addresses.len() {
            self.push(self.now + LATENCY_MS, Due::Authority(n, input()));
        }
    }

    /// What a node does twice a second.
    fn look(&mut self, n: usize) {
        let now = self.unix_ms();
        self.renew_keys(n);
        let descriptor = self.watchers[n].descriptor.as_ref().unwrap().encode();
        for to in 0..self.authority_addresses.len() {
            if self.authority_addresses[to].engine.is_some()
                && self.watchers[n].told[to] != descriptor
            {
                self.watchers[n].told[to].clone_from(&descriptor);
                let input = Input::Descriptor(descriptor.clone());
                self.push(self.now + LATENCY_MS, Due::Authority(to, input));
            }
        }

        let reports: Vec<Report> =
            self.world.reports.extract_if(.., |(of, _)| *of == n).map(|(_, r)| r).collect();
        for report in reports {
            let signed = SignedReport::new(report, &self.world.secret(n)).encode();
            self.tell_all(|| Input::Report(signed.clone()));
        }
        let session = self.schedule.session(now + self.schedule.round_ms() / 2);
        let watcher = &mut self.watchers[n];
        if watcher.reported.replace(session) != Some(session) {
            watcher.part += 1;
            let part = watcher.part;
            self.world.handle_node(n, NodeInput::Report { part });
        }

        for bytes in std::mem::take(&mut self.watchers[n].received) {
            match SignedDocument::verify(&bytes, &self.network, now / 1_000) {
                Ok(document) => {
                    self.take(
                        n,
                        VerifiedDocument { document: Arc::new(document), signed: bytes.into() },
                    );
                }
                Err(_) => self.world.refused += 1,
            }
        }
        let watcher = &mut self.watchers[n];
        let Some(epoch) = watcher.documents.epoch_at(now / 1_000) else { return };
        if watcher.present != Some(epoch) {
            (watcher.present, watcher.part) = (Some(epoch), 0);
            self.turn(n, epoch);
            self.world.handle_node(n, NodeInput::Epoch(epoch));
        }
    }

    /// Makes and erases what is due, and signs a descriptor when there is something to say.
    fn renew_keys(&mut self, n: usize) {
        let (now, name) = (self.unix_ms(), self.world.nodes[n].name);
        let present = now / EPOCH_MS;
        let watcher = &mut self.watchers[n];
        let node = &mut self.world.nodes[n];
        let over = |key: &Epoch| {
            u128::from(now) >= u128::from((key.0 + 1) * EPOCH_MS) + watcher.grace.as_millis()
        };
        for key in watcher.keys.keys().copied().filter(over).collect::<Vec<_>>() {
            node.opener.erase(key, key);
            watcher.keys.remove(&key);
        }
        for epoch in (present..=present + AHEAD).map(Epoch) {
            watcher.keys.entry(epoch).or_insert_with(|| {
                let own = self.seed.part(name);
                let secret = SecretKey::generate(&mut own.stream(&epoch.to_string()));
                let public = *secret.public().as_bytes();
                node.opener.add_key(epoch, epoch, secret, Replay::new(public, TAGS));
                public
            });
        }
        let keys: Vec<EpochKey> = watcher
            .keys
            .range(Epoch(present)..)
            .map(|(epoch, key)| EpochKey { first: *epoch, last: *epoch, key: *key })
            .collect();
        if watcher.descriptor.as_ref().is_none_or(|before| before.body().keys != keys) {
            watcher.descriptor = Some(self.world.describe(n, keys, now / 1_000));
        }
    }

    fn turn(&mut self, n: usize, epoch: Epoch) {
        if let Some(held) = self.watchers[n].documents.at(epoch) {
            self.world.nodes[n].opener.update(&held.document, epoch);
        }
    }

    fn take(&mut self, n: usize, held: VerifiedDocument) {
        let now = self.unix_ms();
        let watcher = &mut self.watchers[n];
        if !watcher.documents.insert(held.clone()).unwrap() {
            return;
        }
        let Some(epoch) = watcher.documents.epoch_at(now / 1_000) else { return };
        let first = watcher.present.is_none();
        watcher.present = Some(epoch);
        self.turn(n, epoch);
        let document = held.document.clone();
        let (watcher, node) = (&mut self.watchers[n], &mut self.world.nodes[n]);
        watcher.grace = document.parameters.key_grace();
        let in_use = watcher.documents.at(epoch).map_or(&document, |held| &held.document);
        node.place = Place::among(&watcher.documents, in_use, &node.identity);
        let wait = if first { Duration::ZERO } else { until_announced(&document, epoch, now) };
        let announce = self.world.now + wait;
        let input = NodeInput::Document { document, signed: held.signed, epoch, announce };
        self.world.handle_node(n, input);
    }

    /// Notes how much everyone keeps.
    fn measure(&mut self) {
        let epoch = self.epoch() as usize;
        let mut all: Vec<(String, u64)> = Vec::new();
        for (n, authority_address) in self.authority_addresses.iter().enumerate() {
            let Some(engine) = &authority_address.engine else { continue };
            let names = ["documents", "votes", "bodies", "signatures", "reporters"];
            for (what, size) in names.iter().zip(engine.sizes()) {
                all.push((format!("authority {n}: {what}"), size as u64));
            }
            let disk = authority_address.disk.as_ref().map_or(0, Vec::len) as u64;
            all.push((format!("authority {n}: bytes on disk"), disk));
            let judge = authority_address.judge.lock().unwrap().encode().len() as u64;
            all.push((format!("authority {n}: bytes of the judge"), judge));
        }
        for (watcher, node) in self.watchers.iter().zip(&self.world.nodes) {
            let name = node.name;
            let (tags, room) = node.opener.replay_fill();
            all.push((format!("{name}: keys"), watcher.keys.len() as u64));
            assert_eq!(room, TAGS * watcher.keys.len(), "{name}: a table for each key");
            all.push((format!("{name}: tags"), tags as u64));
            for (what, size) in ["documents", "timers", "loops"].iter().zip(node.engine.sizes()) {
                all.push((format!("{name}: {what}"), size as u64));
            }
            all.push((format!("{name}: pool"), node.engine.pooled() as u64));
        }
        for (n, person) in self.world.people.iter().enumerate() {
            let (groups, surbs) = person.client.sizes();
            all.push((format!("client {n}: groups"), groups as u64));
            all.push((format!("client {n}: SURBs that are out"), surbs as u64));
        }
        let (tunnels, surbs) = self.world.exit.sizes();
        all.push(("exit: tunnels".into(), tunnels as u64));
        all.push(("exit: SURBs".into(), surbs as u64));
        all.push(("frames under way".into(), self.world.under_way() as u64));
        all.push(("messages to authorities and documents under way".into(), self.due.len() as u64));
        for (name, size) in all {
            let most = self.sizes.entry(name).or_default();
            most.resize(epoch + 1, 0);
            most[epoch] = most[epoch].max(size);
        }
    }

    /// Packets that nodes dropped, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for reason in DropReason::ALL {
            let of = |node: &crate::world::Node| node.engine.counters().dropped(*reason);
            let sum: u64 = self.world.nodes.iter().map(of).sum();
            if sum > 0 {
                all.insert(reason.label(), sum);
            }
        }
        all
    }

    /// The document of an epoch (from the first) at an authority: its last amendment.
    pub fn document(&self, n: usize, epoch: u64) -> Option<&VerifiedDocument> {
        let of = |held: &&VerifiedDocument| held.document.epoch == Epoch(FIRST + epoch);
        self.authority_addresses[n]
            .documents
            .iter()
            .filter(of)
            .max_by_key(|held| held.document.amendment)
    }

    /// Every document of these epochs is there once at all these authorities, and equal byte for byte.
    pub fn check_documents(&self, who: &[usize], epochs: impl IntoIterator<Item = u64>) {
        let bytes = |held: &VerifiedDocument| SignedDocument::new(&held.document, []).encode();
        let mut seen: BTreeMap<(Epoch, u16), Vec<u8>> = BTreeMap::new();
        for held in self
            .authority_addresses
            .iter()
            .flat_map(|authority_address| &authority_address.documents)
        {
            let key = (held.document.epoch, held.document.amendment);
            let first = seen.entry(key).or_insert_with(|| bytes(held));
            assert!(*first == bytes(held), "two documents of {key:?}");
        }
        for epoch in epochs {
            for n in who {
                assert!(
                    self.document(*n, epoch).is_some_and(|held| {
                        seen.get(&(held.document.epoch, held.document.amendment))
                            == Some(&bytes(held))
                    }),
                    "authority {n} has no document of epoch {epoch}: {:?}",
                    self.authority_addresses[*n].events
                );
                let first = self.document(who[0], epoch).unwrap();
                let own = self.document(*n, epoch).unwrap();
                assert_eq!(own.document.amendment, first.document.amendment, "{n}, {epoch}");
            }
        }
    }

    /// Epochs (from the first) for which a node is demoted in the document.
    pub fn demoted(&self, name: &str) -> Vec<u64> {
        let node = self.world.nodes.iter().find(|node| node.name == name).unwrap().identity;
        (1..=self.epoch())
            .filter(|epoch| {
                self.document(0, *epoch).is_some_and(|held| {
                    let document = &held.document;
                    let listed = document.node(document.index_of(&node).unwrap()).unwrap();
                    listed.standing == Standing::Demoted
                })
            })
            .collect()
    }
}

/// When clients begin to get a document, as in the daemon.
fn until_announced(document: &Document, present: Epoch, now_ms: u64) -> Duration {
    let length = 1_000 * u64::from(document.epoch_s);
    let step = (length / 10).max(1);
    let begins = 1_000 * document.begins;
    let at = if document.epoch > present {
        begins.saturating_sub(step)
    } else {
        begins + (now_ms.saturating_sub(begins) / step + 1) * step
    };
    Duration::from_millis(at.saturating_sub(now_ms))
}
