//! A node without IO: time, packets and clients come in, packets and clients' frames go out.
//!
//! `handle(now, input)`, then [`NodeEngine::poll_output`] until it gives none; then call `handle` with [`Input::Wake`]
//! at [`NodeEngine::next_wake`] at the latest. Peeling is not done here: [`crate::Opener`] does it, on other threads.

pub mod gateway;
mod loops;
mod pool_mean;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use shoal_sphinx::{Codec, Frame, Hop, PacketId, Peeled, PublicKey};
use shoal_topology::reputation::report::Report;
use shoal_topology::{
    ClientDescriptor, Document, DocumentStore, Epoch, FURTHER_EPOCHS, Identity, Role, Seed, Signed,
    Time, VerifiedDocument,
};

use crate::counters::{Counters, DropReason};
use crate::neighbours::Neighbours;
use crate::opener::Arrived;
use crate::wheel::Wheel;
use gateway::{Gateway, GatewaySettings, InboxId};
use loops::Loops;
use pool_mean::PoolMean;

/// Maximum catch-up after a stall: what was due longer ago counts as due this long ago, so that the missed instants
/// of a schedule are left out.
const STANDSTILL: Duration = Duration::from_secs(1);

/// A connection of a client, named by whoever holds it. A name is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Where clients come from that may be one person: a network, told apart by whoever holds the connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Origin(pub u64);

/// What an engine is told when it starts.
pub struct NodeSettings {
    /// The identity of the node.
    pub identity: Identity,
    /// The role: a mix or a gateway.
    pub role: Role,
    /// Packets that the delay pool holds. The newest is dropped when it is full.
    pub pool_packets: usize,
    /// Where all its randomness comes from.
    pub seed: Seed,
    /// What a gateway needs beside; a mix does not look at it.
    pub gateway: GatewaySettings,
}

/// A client that was here before a gateway started again.
pub struct KnownClient {
    /// The inbox that it has here.
    pub inbox: InboxId,
    /// Packets that wait in it.
    pub waiting: u32,
    /// Its descriptor, if it has one that others may still ask for.
    pub descriptor: Option<Signed<ClientDescriptor>>,
}

/// What happens to a node.
pub enum Input {
    /// A document was verified: of this epoch, or already of the next.
    Document {
        /// The document, decoded.
        document: Arc<Document>,
        /// Its signed bytes, for clients.
        signed: Arc<[u8]>,
        /// The present epoch.
        epoch: Epoch,
        /// When clients that are connected begin to get it: an instant of the epoch's clock, the same for all.
        announce: Time,
    },
    /// The present epoch is another now.
    Epoch(Epoch),
    /// The document is stale: no loops, no new clients.
    Stale,
    /// A frame came from a node and was opened, or not.
    Arrived(Result<Arrived, DropReason>),
    /// A client has connected.
    Joined {
        /// The connection of the client.
        session: SessionId,
        /// The throwaway identity that its link has proven.
        peer: Identity,
        /// The network that the connection comes from.
        origin: Origin,
    },
    /// A frame came from a client.
    Client {
        /// The connection that the frame came by.
        session: SessionId,
        /// The frame, or that it was none.
        frame: Result<Frame, DropReason>,
    },
    /// A client's connection has ended.
    Left(SessionId),
    /// The operator has changed what a gateway is told when it starts; the key of its inboxes stays.
    Configure(Box<GatewaySettings>),
    /// What is on the disk of clients that were here before the start.
    Known(Vec<KnownClient>),
    /// The answer to [`Output::Fetch`]: these frames are no longer in the inbox.
    Fetched {
        /// The inbox that was asked for them.
        inbox: InboxId,
        /// What was in it, the oldest first.
        frames: Vec<Frame>,
    },
    /// Packets left the inbox because their time was over.
    Expired {
        /// The inbox that they were in.
        inbox: InboxId,
        /// How many there were.
        packets: u32,
    },
    /// Packets could not be stored.
    NotStored {
        /// The inbox that they were for.
        inbox: InboxId,
        /// How many there were.
        packets: u32,
    },
    /// Packets were dropped outside of the engine, which counts them.
    Dropped(DropReason, u64),
    /// A session ends: report what loops showed since the last one, as this part of the document's epoch. Without a
    /// document in use nothing is reported.
    Report {
        /// Which report of the epoch, from 0.
        part: u16,
    },
    /// The instant of [`NodeEngine::next_wake`] has come.
    Wake,
}

/// What a node wants done.
pub enum Output {
    /// Send this to a node.
    Send {
        /// The node to send it to.
        to: Identity,
        /// The frame to send.
        frame: Frame,
    },
    /// Send this to a client.
    ToClient {
        /// The connection of the client.
        session: SessionId,
        /// The frame to send.
        frame: Frame,
    },
    /// End a client's connection, after what was sent to it.
    CloseClient(SessionId),
    /// A client was let in: it is no stranger any more.
    LetIn(SessionId),
    /// The inbox is known no longer: all that lies in it goes, and the descriptor that names it.
    Forget(InboxId),
    /// Throw the oldest packets of an inbox away. They are not answered for any more.
    Discard {
        /// The inbox to take them from.
        inbox: InboxId,
        /// How many at most.
        packets: u32,
    },
    /// Put a packet into the inbox.
    Store {
        /// The inbox to put it into.
        inbox: InboxId,
        /// The packet to keep.
        frame: Frame,
    },
    /// Keep a descriptor for the time after the next start, in place of another one of this inbox.
    StoreDescriptor {
        /// The inbox that it names.
        inbox: InboxId,
        /// The signed descriptor, encoded.
        descriptor: Arc<[u8]>,
        /// Last second (Unix time) of its period.
        not_after: u64,
    },
    /// The descriptor of this inbox is no longer asked for.
    DiscardDescriptor(InboxId),
    /// Take at most `max` packets out of the inbox, the oldest first, and answer with [`Input::Fetched`].
    Fetch {
        /// The inbox to take them from.
        inbox: InboxId,
        /// How many to take at most.
        max: usize,
    },
    /// Sign this and send it to every authority.
    Report(Report),
}

/// What the wheel holds: packets and timers.
enum Due {
    /// A packet has waited its time.
    ToNode(Identity, Frame),
    /// A packet has waited its time, on its last mile.
    ToClient(Identity, Frame),
    /// The next part of a document, for all clients.
    Part,
    /// The next loop of our own.
    Loop,
    /// Loops that are not back by now are lost.
    LoopsLost,
    /// This one is late, if it is not back by now.
    LoopLate(PacketId),
    /// A client has not said who it is.
    Hello(SessionId),
    /// A client's next instant down.
    Instant(SessionId),
    /// A service's limit lets the next one pass.
    Release(SessionId),
}

/// What the engine knows of the network.
struct Topology {
    document: Arc<Document>,
    /// The node's neighbours by the document; `None` if it does not list the node.
    neighbours: Option<Neighbours>,
    /// Whom it passes packets on to: also when it is listed from the next epoch on, or was until the last one.
    around: Option<Neighbours>,
    epoch: Epoch,
    /// When this node heard that the epoch began.
    since: Time,
    fresh: Freshness,
    /// Keys of the epoch by index, as far as a loop has needed them: reading one costs as much as a third of a
    /// multiplication.
    keys: Vec<OnceCell<Option<PublicKey>>>,
}

impl Topology {
    /// A node of the list as a hop.
    fn hop(&self, index: usize, delay: Duration) -> Option<Hop> {
        let node = self.document.node(index)?.descriptor.body();
        let key = self.keys.get(index)?.get_or_init(|| node.key(self.epoch));
        Some(Hop { address: node.identity.0, key: (*key)?, delay })
    }

    /// True if what travels in an epoch of this low byte comes too late for a client: of an epoch that is over, and no
    /// longer under way from before its end.
    fn is_over(&self, now: Time, low_byte: u8) -> bool {
        let past = (1..=FURTHER_EPOCHS).filter_map(|back| self.epoch.0.checked_sub(back));
        now >= self.since + self.document.turn_grace()
            && past.map(Epoch).any(|epoch| epoch.low_byte() == low_byte)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    Fresh,
    Stale,
}

/// What both roles use.
struct Core {
    /// The node's own identity.
    identity: Identity,
    /// Seals loops and answers.
    codec: Arc<dyn Codec>,
    /// Packets and timers, each with its instant.
    wheel: Wheel<Due>,
    /// What was not taken yet.
    outputs: VecDeque<Output>,
    /// What happened since the start.
    counters: Counters,
    /// All that may be in use, or soon.
    documents: DocumentStore,
    /// What the one in use says.
    topology: Option<Topology>,
    /// Packets in the wheel, which holds timers too.
    pooled: usize,
    /// The most packets that may be in the wheel.
    pool_packets: usize,
}

impl Core {
    /// Puts a packet into the delay pool.
    fn delay(&mut self, until: Time, due: Due) {
        if self.pooled >= self.pool_packets {
            self.counters.drop(DropReason::PoolFull);
            return;
        }
        self.pooled += 1;
        self.wheel.insert(until, due);
    }

    fn send(&mut self, to: Identity, frame: Frame) {
        self.outputs.push_back(Output::Send { to, frame });
    }

    /// True if this is a mix of the first layer: what comes to it comes from clients.
    fn is_first(&self) -> bool {
        let own = |topology: &Topology| {
            let node = topology.document.node(topology.neighbours.as_ref()?.index)?;
            Some(topology.document.layer_at(node, topology.epoch))
        };
        self.topology.as_ref().and_then(own) == Some(1)
    }

    /// The topology, if it may be used and lists this node.
    fn usable(&self) -> Option<&Topology> {
        self.topology.as_ref().filter(|t| t.fresh == Freshness::Fresh && t.neighbours.is_some())
    }
}

/// The engine of a mix or a gateway.
///
/// One thread owns it. It calls [`NodeEngine::handle`] for all that happens, with instants that never go back, and after
/// each call takes all outputs by [`NodeEngine::poll_output`], in their order. [`NodeEngine::next_wake`] goes stale with each
/// call of `handle`; the other getters do so too, and say what is known after the last one. An output stays true
/// until it is taken: nothing takes it back.
pub struct NodeEngine {
    core: Core,
    loops: Loops,
    pool: PoolMean,
    gateway: Option<Gateway>,
}

impl shoal_topology::Engine for NodeEngine {
    type Clock = Time;
    type Output = Output;

    fn wake(&mut self, now: Time) {
        self.handle(now, Input::Wake);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }

    fn next_wake(&mut self) -> Option<Time> {
        Self::next_wake(self)
    }
}

impl NodeEngine {
    /// A node that has no document yet. `codec` builds its loops and answers.
    pub fn new(settings: NodeSettings, codec: Arc<dyn Codec>) -> Self {
        let NodeSettings { identity, role, pool_packets, seed, gateway } = settings;
        let core = Core {
            identity,
            codec,
            wheel: Wheel::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            documents: DocumentStore::default(),
            topology: None,
            pooled: 0,
            pool_packets,
        };
        let gateway = (role == Role::Gateway).then(|| Gateway::new(gateway, &seed));
        Self { core, loops: Loops::new(&seed), pool: PoolMean::new(&seed), gateway }
    }

    /// Takes note of something at `now`, which never goes back. First does what was due before.
    pub fn handle(&mut self, now: Time, input: Input) {
        // What was due before `now` happens before the input: so that a trace does not depend on how often the thread
        // wakes.
        self.advance(now);
        // The time until now belongs to the pool as it was; what the input adds counts from here.
        self.pool.pass(now, self.core.pooled);
        match input {
            Input::Wake => {}
            Input::Report { part } => self.report(part),
            Input::Document { document, signed, epoch, announce } => {
                self.document(now, VerifiedDocument { document, signed }, epoch, announce);
            }
            Input::Epoch(epoch) => self.use_documents(now, epoch),
            Input::Stale => {
                if let Some(topology) = &mut self.core.topology {
                    topology.fresh = Freshness::Stale;
                }
            }
            Input::Arrived(arrived) => {
                self.core.counters.received += 1;
                match arrived {
                    Ok(arrived) => self.arrived(now, arrived),
                    // Filler of clients is random bytes, so a wrong MAC says nothing against whoever brought it.
                    // Behind the first layer nobody sends filler.
                    Err(DropReason::Mac) if self.core.is_first() => {
                        self.core.counters.drop(DropReason::Filler);
                    }
                    Err(reason) => self.core.counters.drop(reason),
                }
            }
            Input::Dropped(reason, packets) => self.core.counters.drop_many(reason, packets),
            other => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.handle(&mut self.core, now, other);
                }
            }
        }
        // What was put in for now, or for a time that has passed, goes at once.
        self.advance(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    /// When to call [`Self::handle`] again at the latest.
    pub fn next_wake(&self) -> Option<Time> {
        self.core.wheel.next_deadline()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Packets in the delay pool.
    pub fn pooled(&self) -> usize {
        self.core.pooled
    }

    /// Clients that were let in and are connected.
    pub fn clients(&self) -> usize {
        self.gateway.as_ref().map_or(0, Gateway::clients)
    }

    /// What it keeps, for tests that nothing grows: documents, timers and packets that wait, loops that are waited for.
    pub fn sizes(&self) -> [usize; 3] {
        let core = &self.core;
        [core.documents.iter().count(), core.wheel.len(), self.loops.under_way()]
    }

    fn advance(&mut self, now: Time) {
        while let Some((at, due)) = self.core.wheel.pop(now) {
            // After a standstill (a suspended machine) the missed instants are not made up for.
            let at = at.max(now - STANDSTILL);
            self.pool.pass(at, self.core.pooled);
            match due {
                // Packets and timers share the wheel, whose order is that of time and insertion; only packets count
                // for the pool.
                Due::ToNode(to, frame) => {
                    self.core.pooled -= 1;
                    self.core.send(to, frame);
                }
                Due::ToClient(inbox, frame) => {
                    self.core.pooled -= 1;
                    if let Some(gateway) = &mut self.gateway {
                        gateway.deliver(&mut self.core, at, inbox, frame);
                    }
                }
                Due::Loop => self.loops.send(&mut self.core, at),
                Due::LoopsLost => self.loops.give_up(&mut self.core, at),
                Due::LoopLate(id) => self.loops.late(&id, at),
                Due::Part | Due::Hello(..) | Due::Instant(..) | Due::Release(..) => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.due(&mut self.core, at, due);
                    }
                }
            }
        }
    }

    fn document(&mut self, now: Time, held: VerifiedDocument, epoch: Epoch, announce: Time) {
        // Whoever verified it has told those who run the node of one that contradicts another.
        let news = self.core.documents.insert(held.clone());
        // A document that is here already must change nothing: the same one comes from every authority.
        if matches!(news, Ok(true)) {
            self.use_documents(now, epoch);
            if let Some(gateway) = &mut self.gateway {
                gateway.announce(&mut self.core, held, announce.max(now));
            }
        }
    }

    /// From now on the present epoch is `epoch`: the document that is in use in it counts. Neighbours are those of all
    /// documents, since packets of the epoch before are still under way and those of the next one may come early.
    fn use_documents(&mut self, now: Time, epoch: Epoch) {
        let core = &mut self.core;
        let same = core.topology.as_ref().filter(|topology| topology.epoch == epoch);
        // A second document of the epoch, an amendment, does not begin the epoch again: the time of grace for packets
        // of the one before runs from its first.
        let since = same.map_or(now, |topology| topology.since);
        let Some(held) = core.documents.at(epoch) else {
            // Without a document for this epoch the neighbours stay: what is under way still has to go on. But
            // nothing new begins.
            if let Some(topology) = &mut core.topology {
                (topology.epoch, topology.fresh) = (epoch, Freshness::Stale);
                topology.since = since;
                topology.keys = Vec::new();
            }
            return;
        };
        let document = held.document.clone();
        let neighbours = Neighbours::among(&core.documents, &document, &core.identity);
        let around = Neighbours::around(&core.documents, &core.identity);
        let fresh = Freshness::Fresh;
        let keys = vec![OnceCell::new(); document.nodes.len()];
        core.topology = Some(Topology { document, neighbours, around, epoch, since, fresh, keys });
        self.loops.start(core, now);
    }

    fn arrived(&mut self, now: Time, arrived: Arrived) {
        let Arrived { received, epoch, peeled } = arrived;
        match peeled {
            Peeled::Forward { next, delay, packet } => {
                // From the packet's arrival, not from the end of its peeling; never in the past.
                let until = (received + delay).max(now);
                // The epoch byte goes on as it came: the next hop opens it with its key of the same epoch, whatever
                // epoch it is by then.
                let frame = Frame { epoch, field: 0, packet };
                self.forward(until, Identity(next), frame);
            }
            Peeled::Final { destination, id, payload } => {
                // Sealed with our key and another node's address: only a sender that errs or tries something makes
                // that.
                if Identity(destination) != self.core.identity {
                    self.core.counters.drop(DropReason::Malformed);
                } else if self.loops.returned(&id, now) {
                    self.core.counters.loops_returned += 1;
                } else if let (Some(gateway), Ok(message)) = (&mut self.gateway, payload.message())
                {
                    gateway.message(&mut self.core, now, epoch, message);
                } else {
                    self.core.counters.drop(DropReason::Malformed);
                }
            }
        }
    }

    fn report(&mut self, part: u16) {
        let Some(topology) = self.core.usable() else { return };
        let links = self.loops.take_links(topology);
        let (node, epoch) = (self.core.identity, topology.document.epoch);
        let report = Report { node, epoch, part, links, pool: self.pool.take() };
        self.core.outputs.push_back(Output::Report(report));
    }

    fn forward(&mut self, until: Time, next: Identity, frame: Frame) {
        // By all documents that are held, not by the one in use: packets of the epoch before are still under way to
        // nodes that the new document misses.
        let neighbours = self.core.topology.as_ref().and_then(|topology| topology.around.as_ref());
        if neighbours.is_some_and(|neighbours| neighbours.sends_to(&next)) {
            let before = self.core.pooled;
            self.core.delay(until, Due::ToNode(next, frame));
            // A full pool has counted it as dropped already.
            self.core.counters.forwarded += u64::from(self.core.pooled > before);
        // The recipient's gateway is a hop like a mix, and holds a packet for as long as its sender says, which is
        // not at all as a rule: what goes down waits for the client's instants anyway.
        } else if self.gateway.as_ref().is_some_and(|gateway| gateway.knows(&next)) {
            self.core.delay(until, Due::ToClient(next, frame));
        } else if self.gateway.is_some() && !self.lists(&next) {
            self.core.counters.drop(DropReason::UnknownClient);
        } else {
            self.core.counters.drop(DropReason::NoRoute);
        }
    }

    fn lists(&self, node: &Identity) -> bool {
        self.core.topology.as_ref().is_some_and(|t| t.document.index_of(node).is_some())
    }
}

/// 16 random bytes that are not all zero.
fn draw_id(rng: &mut shoal_topology::Stream) -> shoal_sphinx::PacketId {
    let mut id = [0; 16];
    while id == [0; 16] {
        rng.fill_bytes(&mut id);
    }
    id
}
