//! Authorities over links with delays, each with its own clock and disk, in virtual time.

pub mod faults;
pub mod joint;
pub mod layers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use shoal_topology::authority::*;
use shoal_topology::report::Report;
use shoal_topology::*;

use crate::world::{self, Authorities, authorities, descriptor, secret};

/// Length of an epoch, seconds: two sessions of five rounds of a second.
pub const EPOCH_S: u32 = 10;
pub const EPOCH_MS: u64 = 10_000;
/// The epoch in which every run begins.
pub const FIRST: u64 = 180_000_000;

/// Says what the test says.
#[derive(Clone, Default)]
pub struct Named(pub Arc<Mutex<(Judgement, Vec<Report>)>>);

impl Judge for Named {
    fn report(&mut self, _: &Document, report: &Report) {
        self.0.lock().unwrap().1.push(report.clone());
    }
    fn judge(&mut self, _: &Document) -> Judgement {
        self.0.lock().unwrap().0.clone()
    }
}

/// One machine. A liar may have two with the same key.
pub struct Member {
    pub identity: Identity,
    secret: SecretIdentity,
    pub engine: Option<Authority>,
    /// What is on disk.
    pub disk: Option<Vec<u8>>,
    /// How far its clock is ahead, milliseconds.
    pub ahead_ms: i64,
    /// How long a write takes.
    pub disk_ms: u64,
    pub judge: Named,
    pub parameters: Parameters,
    pub documents: Vec<Arc<Document>>,
    pub events: Vec<Event>,
    pub liars: Vec<(Identity, (Vec<u8>, Vec<u8>))>,
    starts: u64,
}

enum Arrival {
    Message { from: usize, to: usize, life: u64, bytes: Vec<u8> },
    Stored { at: usize, life: u64, ticket: u64, state: Vec<u8> },
}

pub type Link = Box<dyn FnMut(u64, usize, usize) -> Option<u64>>;

pub struct Sim {
    pub authorities: Authorities,
    pub members: Vec<Member>,
    pub now_ms: u64,
    arrivals: BTreeMap<(u64, u64), Arrival>,
    count: u64,
    /// Delay of a message sent at an instant from a member to another; none drops it.
    pub link: Link,
    /// Who signed which bodies.
    pub signed: BTreeMap<(Epoch, u16), BTreeMap<[u8; 32], BTreeSet<Identity>>>,
    /// Bodies of certified documents.
    pub certified: BTreeMap<(Epoch, u16), [u8; 32]>,
    descriptors: Vec<Vec<u8>>,
    pub allowed: Vec<Identity>,
}

/// Nodes of every run: two gateways, nine mixes, each of an operator of its own.
pub fn nodes() -> Vec<NodeDescriptor> {
    (0..11)
        .map(|n| {
            let role = if n < 2 { Role::Gateway } else { Role::Mix };
            let mut node = descriptor(n, role, (n as u8, n as u8));
            node.keys[0].last = Epoch(u64::MAX);
            node
        })
        .collect()
}

pub fn sign_node(n: u64, node: NodeDescriptor) -> Vec<u8> {
    Signed::<NodeDescriptor>::new(node, &secret(n)).encode()
}

pub fn parameters() -> Parameters {
    Parameters { min_mixes_per_layer: 1, draw_every: 6, ..Parameters::default() }
}

impl Sim {
    pub fn new(n: u64) -> Self {
        let authorities = authorities(n);
        let nodes = nodes();
        let allowed = nodes.iter().map(|node| node.identity).collect();
        let descriptors = nodes.into_iter().zip(0..).map(|(node, n)| sign_node(n, node)).collect();
        let mut sim = Self {
            members: vec![],
            now_ms: FIRST * EPOCH_MS,
            arrivals: BTreeMap::new(),
            count: 0,
            link: Box::new(|_, _, _| Some(50)),
            signed: BTreeMap::new(),
            certified: BTreeMap::new(),
            descriptors,
            allowed,
            authorities,
        };
        for i in 0..n as usize {
            sim.add(i);
        }
        sim
    }

    /// A machine with the key of the authority at this place.
    pub fn add(&mut self, authority: usize) -> usize {
        let secret = self.authorities.secrets[authority].clone();
        self.members.push(Member {
            identity: secret.identity(),
            secret,
            engine: None,
            disk: None,
            ahead_ms: 0,
            disk_ms: 20,
            judge: Named::default(),
            parameters: parameters(),
            documents: vec![],
            events: vec![],
            liars: vec![],
            starts: 0,
        });
        self.members.len() - 1
    }

    pub fn start_all(&mut self) {
        (0..self.members.len()).for_each(|at| self.start(at));
    }

    pub fn start(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.starts += 1;
        let settings = Settings {
            network: self.authorities.network.clone(),
            secret: member.secret.clone(),
            epoch_s: EPOCH_S,
            parameters: member.parameters.clone(),
            allowed: self.allowed.clone(),
            allowed_exits: vec![secret(500).identity()],
            // As if the daemon drew it anew at each start.
            seed: Seed::from_u64(at as u64 * 1_000 + member.starts),
        };
        let state = member.disk.as_ref().map(|disk| State::decode(disk).unwrap());
        member.engine = Some(Authority::new(settings, Box::new(member.judge.clone()), state));
        self.input(at, Input::Wake);
        for descriptor in self.descriptors.clone() {
            self.input(at, Input::Descriptor(descriptor));
        }
    }

    pub fn kill(&mut self, at: usize) {
        self.members[at].engine = None;
        self.members[at].starts += 1;
    }

    fn clock(&self, at: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.members[at].ahead_ms)
    }

    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.clock(at);
        let Some(engine) = &mut self.members[at].engine else { return };
        engine.handle(now, input);
        self.outputs(at);
    }

    fn push(&mut self, at_ms: u64, arrival: Arrival) {
        self.count += 1;
        self.arrivals.insert((at_ms, self.count), arrival);
    }

    fn outputs(&mut self, at: usize) {
        while let Some(output) = self.members[at].engine.as_mut().and_then(Authority::poll_output) {
            let life = self.members[at].starts;
            match output {
                Output::Send { to, bytes } => {
                    self.observe(&bytes);
                    for other in 0..self.members.len() {
                        if self.members[other].identity == to
                            && let Some(delay) = (self.link)(self.now_ms, at, other)
                        {
                            let life = self.members[other].starts;
                            let bytes = bytes.clone();
                            let arrival = Arrival::Message { from: at, to: other, life, bytes };
                            self.push(self.now_ms + delay, arrival);
                        }
                    }
                }
                Output::Store { ticket, state } => {
                    let when = self.now_ms + self.members[at].disk_ms;
                    self.push(when, Arrival::Stored { at, life, ticket, state });
                }
                Output::Document { document, signed } => {
                    let network = &self.authorities.network;
                    let verified = SignedDocument::verify_any_time(&signed, network).unwrap();
                    assert!(verified == *document, "what is published verifies");
                    let slot = (document.epoch, document.amendment);
                    let hash = document.body_hash();
                    let first = *self.certified.entry(slot).or_insert(hash);
                    assert_eq!(first, hash, "two certified documents of {slot:?}");
                    self.members[at].documents.push(document);
                }
                Output::Liar { authority, proof } => {
                    let network = &self.authorities.network;
                    assert!(proves_lie(network, &authority, (&proof.0, &proof.1)));
                    self.members[at].liars.push((authority, proof));
                }
                Output::Event(event) => self.members[at].events.push(event),
            }
        }
    }

    /// Counts signatures on bodies as an adversary who sees all links would.
    fn observe(&mut self, bytes: &[u8]) {
        if let Content::Signature(word) = Message::decode(bytes).unwrap().content {
            let bodies = self.signed.entry(word.document.slot()).or_default();
            bodies.entry(word.document.hash).or_default().insert(word.author);
        }
    }

    pub fn run_until(&mut self, until_ms: u64) {
        loop {
            let wakes = (0..self.members.len()).filter_map(|at| {
                let wake = self.members[at].engine.as_ref()?.next_wake()?;
                let wake = wake.saturating_add_signed(-self.members[at].ahead_ms);
                Some((wake.max(self.now_ms), at))
            });
            let wake = wakes.min();
            let arrival = self.arrivals.keys().next().copied();
            let next = wake.map_or(u64::MAX, |w| w.0).min(arrival.map_or(u64::MAX, |a| a.0));
            if next > until_ms {
                break;
            }
            self.now_ms = next;
            match (arrival, wake) {
                (Some(key), _) if key.0 == next => match self.arrivals.remove(&key).unwrap() {
                    Arrival::Message { from, to, life, bytes } => {
                        if life == self.members[to].starts {
                            let from = self.members[from].identity;
                            self.input(to, Input::Message { from, bytes });
                        }
                    }
                    Arrival::Stored { at, life, ticket, state } => {
                        if life == self.members[at].starts {
                            self.members[at].disk = Some(state);
                            self.input(at, Input::Stored(ticket));
                        }
                    }
                },
                (_, Some((_, at))) => {
                    self.input(at, Input::Wake);
                    let engine = self.members[at].engine.as_ref().unwrap();
                    assert!(engine.next_wake().unwrap() > self.clock(at), "it would wake forever");
                }
                _ => break,
            }
        }
        self.now_ms = until_ms;
    }

    /// Up to so many milliseconds after the begin of the epoch with this number, counted from the first.
    pub fn run_to(&mut self, epoch: u64, ms: u64) {
        self.run_until((FIRST + epoch) * EPOCH_MS + ms);
    }

    /// No two bodies of one epoch and number have enough signatures, and nobody but liars signed two.
    pub fn check_safe(&self, liars: &[usize]) {
        let threshold = self.authorities.network.threshold();
        let liars: Vec<_> = liars.iter().map(|at| self.members[*at].identity).collect();
        for (slot, bodies) in &self.signed {
            let enough = bodies.values().filter(|signers| signers.len() >= threshold).count();
            assert!(enough <= 1, "{enough} bodies of {slot:?} have enough signatures");
            let mut count: HashMap<Identity, usize> = HashMap::new();
            for signer in bodies.values().flatten() {
                *count.entry(*signer).or_default() += 1;
            }
            count.retain(|signer, bodies| *bodies > 1 && !liars.contains(signer));
            assert!(count.is_empty(), "somebody honest signed two bodies of {slot:?}");
        }
    }

    /// Epochs, counted from the first, of which a member has the document.
    pub fn epochs(&self, at: usize) -> Vec<u64> {
        let all = self.members[at].documents.iter();
        let epochs: BTreeSet<u64> = all.map(|document| document.epoch.0 - FIRST).collect();
        epochs.into_iter().collect()
    }

    pub fn newest(&self, at: usize) -> Arc<Document> {
        let all = self.members[at].documents.iter();
        all.max_by_key(|document| (document.epoch, document.amendment)).unwrap().clone()
    }

    pub fn name(&mut self, at: usize, demote: &[Identity], restore: &[Identity]) {
        let mut named = self.members[at].judge.0.lock().unwrap();
        named.0.demote = demote.to_vec();
        named.0.restore = restore.to_vec();
    }
}

pub fn mix(n: u64) -> Identity {
    world::secret(2 + n).identity()
}
