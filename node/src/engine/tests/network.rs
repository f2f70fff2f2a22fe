//! Three layers of two mixes, two gateways, and clients that are a few lines each.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt as _;
use shoal_sphinx::{CLIENT_CONTROL, Downward, PublicKey, SurbKeys};
use shoal_topology::wire::client_gateway::{
    Assembly, Away, ControlMessage, DocumentPart, Notice, Refusal,
};
use shoal_topology::{Parameters, SecretIdentity, SignedDocument, Stream, testing};

use super::*;
use crate::{Opener, replay::Replay};

pub(super) const EPOCH: u64 = 1_000_010;
const LATENCY: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(super) struct Options {
    pub(super) loops_per_s: f64,
    pub(super) pool: usize,
    pub(super) replay: usize,
    pub(super) inbox: Keeping,
    pub(super) inbox_key: [u8; 32],
    pub(super) inbox_packets: u32,
    pub(super) max_inboxes: usize,
    pub(super) service_per_s: f64,
    pub(super) queries_per_s: f64,
    pub(super) admission: Admission,
    pub(super) max_clients_of_one: usize,
    pub(super) max_clients: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loops_per_s: 0.0,
            pool: 10_000,
            replay: 100_000,
            inbox: Keeping::On,
            inbox_key: [3; 32],
            inbox_packets: 1_000,
            max_inboxes: 1_000,
            service_per_s: 2_000.0,
            queries_per_s: 100.0,
            admission: Admission::anyone(),
            max_clients_of_one: 250,
            max_clients: 1_000,
        }
    }
}

struct Node {
    engine: NodeEngine,
    opener: Opener,
    key: PublicKey,
    /// What lies on its disk: packets, and descriptors.
    inbox: BTreeMap<InboxId, VecDeque<Frame>>,
    descriptors: BTreeMap<InboxId, Arc<[u8]>>,
}

/// What a node is told when it starts.
fn settings(options: &Options, node: &testing::TestNode, seed: Seed) -> NodeSettings {
    NodeSettings {
        identity: node.identity(),
        role: node.body.role,
        pool_packets: options.pool,
        seed,
        gateway: GatewaySettings {
            admission: options.admission.clone(),
            service_per_s: options.service_per_s,
            queries_per_s: options.queries_per_s,
            inbox: options.inbox,
            inbox_key: options.inbox_key,
            max_inboxes: options.max_inboxes,
            max_clients_of_one: options.max_clients_of_one,
            max_clients: options.max_clients,
            ..GatewaySettings::default()
        },
    }
}

struct Client {
    gateway: usize,
    number: u8,
    mode: Mode,
    session: SessionId,
    inbox: SecretIdentity,
    key: SecretKey,
    down: Vec<(Time, Frame)>,
}

pub(super) struct Net {
    pub(super) now: Time,
    /// Everything that an observer of the links sees: instant, from, to.
    pub(super) trace: Vec<(Time, u64, u64)>,
    /// What nodes sent since this was last drained.
    pub(super) sent: Vec<Identity>,
    pub(super) closed: Vec<SessionId>,
    /// Where the next client comes from.
    pub(super) origin: Origin,
    /// A node that swallows everything.
    pub(super) dead: Option<usize>,
    /// A node that swallows a share of what it is sent.
    pub(super) lossy: Option<(usize, f64)>,
    /// A node that keeps everything for longer.
    pub(super) slow: Option<(usize, Duration)>,
    /// Descriptors that nodes wrote to their disks.
    pub(super) written: usize,
    /// What nodes reported since this was last drained.
    pub(super) reports: Vec<Report>,
    options: Options,
    codec: Arc<dyn Codec>,
    network: testing::TestNetwork,
    document: Arc<Document>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    under_way: VecDeque<(Time, usize, Frame)>,
    sessions: u64,
    rng: Stream,
}

impl Net {
    pub(super) fn new(codec: Arc<dyn Codec>, options: Options) -> Self {
        let parameters = Parameters {
            node_loops_per_s: options.loops_per_s,
            inbox_packets: options.inbox_packets,
            ..Parameters::default()
        };
        let network = testing::TestNetwork::builder().parameters(parameters).epoch(Epoch(EPOCH));
        let mut network = network.epoch_s(60).build();
        network.nodes.sort_by_key(testing::TestNode::identity);
        let document = Arc::new(Document { begins: 0, ..network.document() });
        document.check().unwrap();
        let seed = Seed::from_u64(7);
        let nodes = network.nodes.iter().enumerate().map(|(n, node)| {
            let opener = Opener::new(codec.clone());
            let all = (Epoch(0), Epoch(u64::MAX));
            let key = node.key(Epoch(EPOCH));
            opener.add_key(all.0, all.1, key, Replay::new([5; 32], options.replay));
            opener.update(&document, Epoch(EPOCH));
            let settings = settings(&options, node, seed.part(&n.to_string()));
            let engine = NodeEngine::new(settings, codec.clone());
            let key = node.key(Epoch(EPOCH)).public();
            let (inbox, descriptors) = Default::default();
            Node { engine, opener, key, inbox, descriptors }
        });
        let mut net = Self {
            now: Time::from_secs(1),
            trace: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            origin: Origin(1),
            dead: None,
            lossy: None,
            slow: None,
            written: 0,
            reports: Vec::new(),
            nodes: nodes.collect(),
            options: options.clone(),
            codec,
            network,
            document,
            clients: Vec::new(),
            under_way: VecDeque::new(),
            sessions: 0,
            rng: Seed::from_u64(8).stream("test packets"),
        };
        net.new_document(EPOCH, Time::ZERO, |_| {});
        net
    }

    /// Every node gets the document of an epoch, changed as `change` says; clients from `announce` on.
    pub(super) fn new_document(
        &mut self,
        epoch: u64,
        announce: Time,
        change: impl FnOnce(&mut Document),
    ) -> Arc<Document> {
        let mut document = (*self.document).clone();
        document.epoch = Epoch(epoch);
        document.begins = 60 * (epoch - EPOCH);
        change(&mut document);
        let new = self.network.sign(&document);
        for node in 0..self.len() {
            let VerifiedDocument { document, signed } = new.clone();
            let epoch = Epoch(EPOCH);
            self.handle(node, Input::Document { document, signed, epoch, announce });
        }
        new.document
    }

    /// The first document, as clients get it.
    pub(super) fn signed(&self) -> Vec<u8> {
        self.network.sign(&self.document).signed.to_vec()
    }

    pub(super) fn identity(&self, node: usize) -> Identity {
        self.document.node(node).unwrap().identity()
    }

    /// Documents that a client got, in order.
    pub(super) fn documents(&self, client: usize) -> Vec<Document> {
        let mut assembly = Assembly::default();
        let parts = self.down(client).iter().filter(|(_, frame)| frame.field == 2);
        let whole = parts
            .filter_map(|(_, frame)| assembly.add(DocumentPart::unpack(&frame.packet).unwrap()));
        let network = &self.network.known;
        whole.map(|bytes| SignedDocument::verify(&bytes, network, 60).unwrap()).collect()
    }

    /// A frame from a client, with a key of this epoch, for the node at this index.
    pub(super) fn upward(&mut self, client: usize, epoch: u64, index: usize) {
        let frame = Frame {
            epoch: Epoch(epoch).low_byte(),
            field: index as u16,
            packet: Default::default(),
        };
        self.up(client, frame);
    }

    /// The next epoch begins, with this document, changed.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Document)) {
        let epoch = self.document.epoch.0 + 1;
        self.document = self.new_document(epoch, self.now, change);
        for node in 0..self.len() {
            self.handle(node, Input::Epoch(Epoch(epoch)));
        }
    }

    /// What all nodes report.
    pub(super) fn report(&mut self, part: u16) -> Vec<Report> {
        (0..self.len()).for_each(|node| self.handle(node, Input::Report { part }));
        std::mem::take(&mut self.reports)
    }

    /// The key of a node's identity.
    pub(super) fn secret(&self, node: &Identity) -> SecretIdentity {
        let found = self.network.nodes.iter().find(|of| of.identity() == *node);
        found.expect("a node of this network").secret_identity()
    }

    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn mix(&self, layer: u8, n: usize) -> usize {
        self.document.in_layer(layer).nth(n).unwrap()
    }

    pub(super) fn gateway(&self, n: usize) -> usize {
        self.document.gateways().nth(n).unwrap()
    }

    pub(super) fn engine(&self, node: usize) -> &NodeEngine {
        &self.nodes[node].engine
    }

    pub(super) fn engines(&self) -> impl Iterator<Item = &NodeEngine> {
        self.nodes.iter().map(|node| &node.engine)
    }

    pub(super) fn opener(&self, node: usize) -> &Opener {
        &self.nodes[node].opener
    }

    pub(super) fn open(
        &mut self,
        node: usize,
        at: Time,
        frame: &Frame,
    ) -> Result<Arrived, DropReason> {
        self.nodes[node].opener.open_frame(at, frame.clone())
    }

    pub(super) fn handle(&mut self, node: usize, input: Input) {
        self.handle_at(node, self.now, input);
    }

    pub(super) fn handle_at(&mut self, node: usize, at: Time, input: Input) {
        self.now = self.now.max(at);
        self.nodes[node].engine.handle(at, input);
        while let Some(output) = self.nodes[node].engine.poll_output() {
            match output {
                Output::Send { to, frame } => {
                    let index = self.document.index_of(&to).unwrap();
                    self.trace.push((at, node as u64, index as u64));
                    self.sent.push(to);
                    let slow = self.slow.filter(|(slow, _)| *slow == node);
                    let at = at + LATENCY + slow.map_or(Duration::ZERO, |(_, by)| by);
                    let position = self.under_way.partition_point(|(other, ..)| *other <= at);
                    self.under_way.insert(position, (at, index, frame));
                }
                Output::ToClient { session, frame } => {
                    self.trace.push((at, node as u64, 1_000 + session.0));
                    if let Some(client) = self.clients.iter_mut().find(|c| c.session == session) {
                        client.down.push((at, frame));
                    }
                }
                Output::CloseClient(session) => self.closed.push(session),
                Output::LetIn(_) => {}
                Output::StoreDescriptor { inbox, descriptor, .. } => {
                    self.written += 1;
                    self.nodes[node].descriptors.insert(inbox, descriptor);
                }
                Output::Forget(inbox) => {
                    self.nodes[node].descriptors.remove(&inbox);
                    self.nodes[node].inbox.remove(&inbox);
                }
                Output::DiscardDescriptor(inbox) => {
                    self.nodes[node].descriptors.remove(&inbox);
                }
                Output::Discard { inbox, packets } => {
                    let kept = self.nodes[node].inbox.entry(inbox).or_default();
                    kept.drain(..kept.len().min(packets as usize));
                }
                Output::Report(report) => self.reports.push(report),
                Output::Store { inbox, frame } => {
                    self.nodes[node].inbox.entry(inbox).or_default().push_back(frame);
                }
                Output::Fetch { inbox, max } => {
                    let kept = self.nodes[node].inbox.entry(inbox).or_default();
                    let frames = kept.drain(..kept.len().min(max)).collect();
                    self.nodes[node].engine.handle(at, Input::Fetched { inbox, frames });
                }
            }
        }
    }

    /// A node ends and starts again, with what lies on its disk. Its clients are gone.
    pub(super) fn restart(&mut self, node: usize) {
        let settings = settings(&self.options, &self.network.nodes[node], Seed::from_u64(9));
        let of = &mut self.nodes[node];
        of.engine = NodeEngine::new(settings, self.codec.clone());
        let mut known: BTreeMap<InboxId, KnownClient> = BTreeMap::new();
        let entry = |inbox| KnownClient { inbox, waiting: 0, descriptor: None };
        for (inbox, packets) in &of.inbox {
            known.entry(*inbox).or_insert_with(|| entry(*inbox)).waiting = packets.len() as u32;
        }
        for (inbox, bytes) in &of.descriptors {
            known.entry(*inbox).or_insert_with(|| entry(*inbox)).descriptor =
                Some(Signed::<ClientDescriptor>::decode(bytes).unwrap());
        }
        known.retain(|_, client| client.waiting > 0 || client.descriptor.is_some());
        self.handle(node, Input::Known(known.into_values().collect()));
        let VerifiedDocument { document, signed } = self.network.sign(&self.document);
        let (epoch, announce) = (self.document.epoch, self.now);
        self.handle(node, Input::Document { document, signed, epoch, announce });
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wake = (0..self.len()).filter_map(|n| Some((self.engine(n).next_wake()?, n))).min();
            let frame = self.under_way.front().map(|(at, node, _)| (*at, *node));
            let next = wake.map(|(at, _)| at).into_iter().chain(frame.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            if frame.is_some_and(|(at, _)| at == next) {
                let (at, node, frame) = self.under_way.pop_front().unwrap();
                let share = self.lossy.filter(|(lossy, _)| *lossy == node);
                let lost = share.is_some_and(|(_, share)| self.rng.random_bool(share));
                if self.dead != Some(node) && !lost {
                    let opened = self.nodes[node].opener.open_frame(at, frame);
                    self.handle_at(node, at, Input::Arrived(opened));
                }
            } else if let Some((at, node)) = wake {
                self.handle_at(node, at, Input::Wake);
            }
        }
        self.now = end;
    }

    fn hop(&self, node: usize, delay: Duration) -> Hop {
        let address = self.document.node(node).unwrap().identity().0;
        Hop { address, key: self.nodes[node].key, delay }
    }

    fn frame(&self, packet: shoal_sphinx::Packet) -> Frame {
        Frame { epoch: Epoch(EPOCH).low_byte(), field: 0, packet }
    }

    pub(super) fn seal(&mut self, path: &[(usize, Duration)], message: &[u8]) -> Frame {
        let hops: Vec<Hop> = path.iter().map(|(node, delay)| self.hop(*node, *delay)).collect();
        let packet = self.codec.seal(&mut self.rng, &hops, [0; 16], message).unwrap();
        self.frame(packet)
    }

    pub(super) fn seal_to(
        &mut self,
        path: &[(usize, Duration)],
        last: Hop,
        message: &[u8],
    ) -> Frame {
        let mut hops: Vec<Hop> = path.iter().map(|(node, delay)| self.hop(*node, *delay)).collect();
        hops.push(last);
        let packet = self.codec.seal(&mut self.rng, &hops, [0; 16], message).unwrap();
        self.frame(packet)
    }

    // Clients.

    pub(super) fn join(&mut self, gateway: usize, number: u8, mode: Mode) -> usize {
        let (client, refusal) = self.try_join(gateway, number, mode, b"", |_| {});
        assert_eq!(refusal, None);
        client
    }

    pub(super) fn join_listed(&mut self, gateway: usize, number: u8) -> usize {
        let at = self.document.node(self.gateway(gateway)).unwrap().identity();
        let mode = Mode::Class("web".into());
        let (client, refusal) = self.try_join(gateway, number, mode, b"", |hello| {
            let mut client = testing::TestClient::new([number; 32], &[at]);
            client.body.not_after = 1;
            hello.descriptor = Some(client.sign().encode());
        });
        assert_eq!(refusal, None);
        client
    }

    /// A descriptor of a client at a gateway, of a period that begins then.
    pub(super) fn descriptor(&self, client: usize, gateway: usize, not_before: u64) -> Vec<u8> {
        let at = self.document.node(self.gateway(gateway)).unwrap().identity();
        let mut client = testing::TestClient::new([self.clients[client].number; 32], &[at]);
        (client.body.not_before, client.body.not_after) = (not_before, 100);
        client.sign().encode()
    }

    pub(super) fn client_identity(&self, client: usize) -> Identity {
        SecretIdentity::from_bytes(&[self.clients[client].number; 32]).identity()
    }

    pub(super) fn try_join(
        &mut self,
        gateway: usize,
        number: u8,
        mode: Mode,
        token: &[u8],
        change: impl FnOnce(&mut Hello),
    ) -> (usize, Option<Refusal>) {
        let node = self.gateway(gateway);
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let client = testing::TestClient::new([number; 32], &[]);
        let (inbox, key) = (client.inbox(), client.key());
        let peer = Identity([number; 32]);
        let down = Vec::new();
        self.clients.push(Client {
            gateway: node,
            number,
            mode: mode.clone(),
            session,
            inbox,
            key,
            down,
        });
        let client = self.clients.len() - 1;
        let origin = self.origin;
        self.handle(node, Input::Joined { session, peer, origin });
        let word = |net: &Self| Notice::unpack(&net.clients[client].down.last().unwrap().1.packet);
        let Ok(Notice::Challenge { nonce }) = word(self) else { panic!("no challenge") };
        let own = self.document.node(node).unwrap().identity();
        let inbox = &self.clients[client].inbox;
        let mut hello = Hello {
            inbox: inbox.identity(),
            proof: Hello::prove(inbox, &own, &peer, &nonce),
            token: token.to_vec(),
            mode,
            descriptor: None,
            documents: Vec::new(),
            away: Away::Keep,
        };
        change(&mut hello);
        let frame = Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().unwrap() };
        let before = self.clients[client].down.len();
        self.up(client, frame);
        let first = self.clients[client].down.get(before).map(|(_, frame)| frame.packet.clone());
        match Notice::unpack(&first.unwrap()) {
            Ok(Notice::Welcome) => (client, None),
            Ok(Notice::Refused(refusal)) => (client, Some(refusal)),
            _ => panic!("neither welcome nor refusal"),
        }
    }

    pub(super) fn rejoin(&mut self, client: usize) {
        let Client { number, mode, .. } = &self.clients[client];
        let (number, mode) = (*number, mode.clone());
        let again = self.join(0, number, mode);
        self.clients[client].session = SessionId(0);
        self.clients.swap(client, again);
    }

    pub(super) fn leave(&mut self, client: usize) {
        let Client { gateway, session, .. } = self.clients[client];
        self.handle(gateway, Input::Left(session));
    }

    pub(super) fn session(&self, client: usize) -> SessionId {
        self.clients[client].session
    }

    pub(super) fn up(&mut self, client: usize, frame: Frame) {
        let Client { gateway, session, .. } = self.clients[client];
        self.handle(gateway, Input::Client { session, frame: Ok(frame) });
    }

    pub(super) fn address(&self, client: usize) -> (usize, Hop) {
        let client = &self.clients[client];
        let (address, key) = (client.inbox.identity().0, client.key.public());
        (client.gateway, Hop { address, key, delay: Duration::ZERO })
    }

    /// A packet for a client, put into its gateway.
    pub(super) fn deliver(&mut self, _: &mut Stream, client: usize, message: &[u8]) {
        let (gateway, hop) = self.address(client);
        let frame = self.seal_to(&[(gateway, Duration::ZERO)], hop, message);
        let opened = self.open(gateway, self.now, &frame);
        self.handle(gateway, Input::Arrived(opened));
    }

    /// A packet from one client to another, through three mixes.
    pub(super) fn send_through(
        &mut self,
        rng: &mut Stream,
        client: usize,
        n: usize,
        (gateway, last): (usize, Hop),
        message: &[u8],
    ) {
        let mut path: Vec<_> = (1..=3)
            .map(|layer| (self.mix(layer, n), exponential(rng, Duration::from_millis(15))))
            .collect();
        path.push((gateway, Duration::ZERO));
        let frame = self.seal_to(&path, last, message);
        self.up(client, Frame { field: path[0].0 as u16, ..frame });
    }

    pub(super) fn down(&self, client: usize) -> &[(Time, Frame)] {
        &self.clients[client].down
    }

    pub(super) fn packets_for(&self, client: usize) -> Vec<Frame> {
        let packet = |frame: &Frame| frame.field == Downward::Packet as u16;
        self.down(client).iter().map(|(_, frame)| frame.clone()).filter(packet).collect()
    }

    fn finals(&self, client: usize) -> Vec<Peeled> {
        let peel = |frame: Frame| {
            let opened = self.codec.open(&self.clients[client].key, frame.packet).ok()?;
            self.codec.peel(opened).ok()
        };
        self.packets_for(client).into_iter().filter_map(peel).collect()
    }

    pub(super) fn messages_for(&self, client: usize) -> Vec<Vec<u8>> {
        let message = |peeled| match peeled {
            Peeled::Final { payload, .. } => payload.message().ok().map(<[u8]>::to_vec),
            Peeled::Forward { .. } => None,
        };
        self.finals(client).into_iter().filter_map(message).collect()
    }

    pub(super) fn inbox_identity(&self, client: usize) -> Identity {
        self.clients[client].inbox.identity()
    }

    /// By which names a node has asked its file for inboxes.
    pub(super) fn inboxes(&self, node: usize) -> Vec<InboxId> {
        self.nodes[node].inbox.keys().copied().collect()
    }

    /// Descriptors on the disk of a node.
    pub(super) fn descriptors(&self, node: usize) -> usize {
        self.nodes[node].descriptors.len()
    }

    pub(super) fn stored(&self, node: usize) -> usize {
        self.nodes[node].inbox.values().map(VecDeque::len).sum()
    }

    /// A query as the gateway finds it.
    pub(super) fn query_frame(
        &mut self,
        asker: usize,
        gateway: usize,
        identity: Identity,
    ) -> (Frame, SurbKeys) {
        let (own, last) = self.address(asker);
        let mut back: Vec<Hop> =
            (1..=3).map(|layer| self.hop(self.mix(layer, 1), Duration::from_millis(5))).collect();
        back.extend([self.hop(own, Duration::ZERO), last]);
        let (surb, keys) = self.codec.surb(&mut self.rng, &back, [6; 16]).unwrap();
        let mut message = vec![kind::QUERY];
        message.extend(identity.0);
        message.extend(surb.as_bytes());
        (self.seal(&[(self.gateway(gateway), Duration::ZERO)], &message), keys)
    }

    pub(super) fn query(&mut self, asker: usize, gateway: usize, identity: Identity) -> Vec<u8> {
        let (frame, keys) = self.query_frame(asker, gateway, identity);
        let node = self.gateway(gateway);
        let opened = self.open(node, self.now, &frame);
        self.handle(node, Input::Arrived(opened));
        self.run(Duration::from_secs(2));
        let Some(Peeled::Final { id, payload, .. }) = self.finals(asker).pop() else {
            panic!("no answer")
        };
        assert_eq!(id, keys.id());
        self.codec.unseal(&keys, payload).unwrap()
    }
}
