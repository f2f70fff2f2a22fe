//! The gateway's part: who is let in, what goes down to clients and when, the inbox, the descriptors.

mod admission;
mod changes;
mod descriptors;
mod inboxes;
mod session;
mod settings;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use shoal_sphinx::{CLIENT_CONTROL, Downward, Frame, Packet};
use shoal_topology::wire::client_gateway::{Away, ControlMessage, DocumentPart, Hello, Notice};
use shoal_topology::{
    Document, Epoch, FURTHER_EPOCHS, Identity, Seed, Stream, Time, VerifiedDocument,
};

use super::{Core, Due, Input, Origin, Output, SessionId};
use crate::counters::DropReason;
use crate::limit::Limit;
use descriptors::Known;
use inboxes::{Holder, Inboxes, Stored};
use session::{Active, FETCH};

pub use settings::{Admission, GatewaySettings, InboxId, Keeping, ServiceAccess, Token};

/// The parts of a document go out within this part of an epoch.
const ANNOUNCEMENT: u32 = 20;
/// Documents that wait to go out. One more, and the oldest but the one under way gives way.
const MAX_ANNOUNCEMENTS: usize = 4;
/// How long a client may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

enum SessionStage {
    /// Was challenged and has not answered.
    Challenged([u8; 32]),
    /// Was let in.
    Active(Box<Active>),
}

/// A document on its way to all clients.
struct Announcement {
    held: VerifiedDocument,
    parts: Arc<[Frame]>,
    /// The next part to go.
    next: usize,
    /// When the first one may.
    at: Time,
    /// The time between two parts.
    gap: Duration,
}

/// A document that clients have got.
struct Announced {
    document: Arc<Document>,
    /// The tag by which clients say that they have it.
    tag: [u8; 8],
    parts: Arc<[Frame]>,
}

impl Session {
    /// Who answers for it, once it was let in.
    fn holder(&self) -> Option<Holder> {
        match &self.stage {
            SessionStage::Active(active) => {
                Some(active.token.map_or(Holder::Network(self.origin), Holder::Token))
            }
            SessionStage::Challenged(_) => None,
        }
    }
}

struct Session {
    peer: Identity,
    origin: Origin,
    stage: SessionStage,
}

/// The gateway's part of an engine.
pub(super) struct Gateway {
    /// What the operator has set.
    settings: GatewaySettings,
    /// Ordered, since a new document goes to all: the same seed gives the same trace.
    sessions: BTreeMap<SessionId, Session>,
    /// The session of each client that was let in.
    by_inbox: HashMap<Identity, SessionId>,
    /// All that were ever asked for here.
    inboxes: Inboxes,
    /// Descriptors by the identity of the client, each with the inbox that brought it.
    descriptors: HashMap<Identity, Known>,
    /// By which the descriptor of an inbox is found, when it goes.
    identities: HashMap<InboxId, Identity>,
    /// Connections by each listed token, in their order.
    connections: Vec<usize>,
    /// Clients without a token, by where they come from.
    networks: HashMap<Origin, usize>,
    /// What newcomers from one network may still be given of documents.
    given: HashMap<Origin, Limit>,
    /// Draws the nonces of challenges.
    nonces: Stream,
    /// Draws the delays of answers to queries.
    answers: Stream,
    /// How many queries may be answered, of all clients together.
    queries: Limit,
    /// Documents that clients have, the earliest first, with their parts.
    announced: Vec<Announced>,
    /// Documents on their way to clients, the first under way; at most [`MAX_ANNOUNCEMENTS`].
    announcements: VecDeque<Announcement>,
}

impl Gateway {
    pub(super) fn new(settings: GatewaySettings, seed: &Seed) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_inbox: HashMap::new(),
            inboxes: Inboxes::new(settings.max_inboxes, settings.max_inbox_packets),
            descriptors: HashMap::new(),
            identities: HashMap::new(),
            connections: vec![0; settings.admission.tokens().len()],
            networks: HashMap::new(),
            given: HashMap::new(),
            nonces: seed.stream("gateway nonces"),
            answers: seed.stream("gateway answer delays"),
            queries: Limit::new(settings.queries_per_s, settings.queries_per_s),
            announced: Vec::new(),
            announcements: VecDeque::new(),
            settings,
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.by_inbox.len()
    }

    /// True if an inbox was ever asked for here.
    pub(super) fn knows(&self, inbox: &Identity) -> bool {
        self.by_inbox.contains_key(inbox) || self.inboxes.contains(&self.inbox_id(inbox))
    }

    fn inbox_id(&self, inbox: &Identity) -> InboxId {
        InboxId::new(&self.settings.inbox_key, inbox)
    }

    pub(super) fn handle(&mut self, core: &mut Core, now: Time, input: Input) {
        match input {
            Input::Joined { session, peer, origin } => {
                self.joined(core, now, session, (peer, origin));
            }
            Input::Client { session, frame } => self.frame(core, now, session, frame),
            Input::Left(session) => self.left(core, session),
            Input::Configure(settings) => self.configure(core, *settings),
            Input::Known(clients) => {
                clients.into_iter().for_each(|client| self.found(client));
            }
            Input::Fetched { inbox, frames } => self.fetched(core, now, inbox, frames),
            Input::Expired { inbox, packets } => {
                self.inboxes.taken(&inbox, packets);
                core.counters.drop_many(DropReason::InboxExpired, u64::from(packets));
            }
            Input::NotStored { inbox, packets } => {
                self.inboxes.taken(&inbox, packets);
                core.counters.drop_many(DropReason::InboxFull, u64::from(packets));
            }
            _ => {}
        }
    }

    pub(super) fn due(&mut self, core: &mut Core, at: Time, due: Due) {
        match due {
            Due::Hello(session) => {
                // Only who was never let in: the timer of one that was is still in the wheel.
                let silent = |s: &Session| matches!(s.stage, SessionStage::Challenged(_));
                if self.sessions.get(&session).is_some_and(silent) {
                    self.close(core, session);
                }
            }
            Due::Part => self.next_part(core, at),
            Due::Instant(session) => {
                if let Some(active) = self.active(session) {
                    active.instant(core, session, at);
                }
                self.fetch_more(core, session);
            }
            Due::Release(session) => {
                if let Some(active) = self.active(session) {
                    active.release(core, session, at);
                }
                self.fetch_more(core, session);
            }
            _ => {}
        }
    }

    /// A document for everyone who is connected, a part at a time from `at` on. Documents follow each other.
    pub(super) fn announce(&mut self, core: &mut Core, held: VerifiedDocument, at: Time) {
        let parts = document_frames(&held.signed);
        let window = Duration::from_secs(u64::from(held.document.epoch_s)) / ANNOUNCEMENT;
        // Spread over a part of the epoch, at the same instants for all clients: parts have frames of their own,
        // which must not show whose downlink has dummies to spare.
        let gap = window / u32::try_from(parts.len()).unwrap_or(u32::MAX).max(1);
        let idle = self.announcements.is_empty();
        self.announcements.push_back(Announcement { held, parts, next: 0, at, gap });
        if self.announcements.len() > MAX_ANNOUNCEMENTS {
            // The second: the first is under way.
            self.announcements.remove(1);
        }
        if idle {
            core.wheel.insert(at, Due::Part);
        }
    }

    fn next_part(&mut self, core: &mut Core, now: Time) {
        let Some(running) = self.announcements.front_mut() else { return };
        if running.next == 0 {
            let (document, parts) = (running.held.document.clone(), running.parts.clone());
            let tag = DocumentPart::tag_of(&running.held.signed);
            // An amendment takes the place of what it amends.
            self.announced.retain(|Announced { document: other, .. }| {
                other.epoch != document.epoch
                    && other.epoch.0 + FURTHER_EPOCHS + 1 >= document.epoch.0
            });
            self.announced.push(Announced { document, tag, parts });
            // By epoch, not by arrival: an amendment of the present epoch may come after the document of the next
            // one.
            self.announced.sort_by_key(|sent| sent.document.epoch);
        }
        if let Some(part) = running.parts.get(running.next) {
            // In the order of sessions, so that one seed gives one trace.
            for (session, state) in &self.sessions {
                if matches!(state.stage, SessionStage::Active(_)) {
                    let (session, frame) = (*session, part.clone());
                    core.outputs.push_back(Output::ToClient { session, frame });
                }
            }
        }
        running.next += 1;
        // The next one waits for its own instant too: documents follow each other and never go out together.
        let mut next = now + running.gap;
        if running.next >= running.parts.len() {
            self.announcements.pop_front();
            let Some(following) = self.announcements.front() else { return };
            next = next.max(following.at);
        }
        core.wheel.insert(next, Due::Part);
    }

    /// The mix of layer 1 that a client's frame names: by its index in the list of the document that is in use in the
    /// epoch of the frame's key, of those that clients have.
    fn first_hop(&self, core: &Core, frame: &Frame) -> Result<Identity, DropReason> {
        let topology = core.topology.as_ref().ok_or(DropReason::NoRoute)?;
        // Clients change with the epoch, and clocks differ: nobody has a use for one that is further away.
        let near = topology.epoch.0.saturating_sub(1)..=topology.epoch.0 + 1;
        let epoch = near.map(Epoch).find(|epoch| epoch.low_byte() == frame.epoch);
        let epoch = epoch.ok_or(DropReason::UnknownEpoch)?;
        self.hop_of(frame.field, epoch).ok_or(DropReason::NoRoute)
    }

    fn hop_of(&self, index: u16, epoch: Epoch) -> Option<Identity> {
        // By the documents that clients were given, not by those that this node holds: a client can only count in a
        // list that it has seen.
        let mut known = self.announced.iter().rev().map(|sent| &sent.document);
        let document = known.find(|document| document.epoch <= epoch)?;
        let node = document.node(usize::from(index))?;
        // A client's frame goes to the first layer and nowhere else: it could send past layers otherwise.
        (document.layer_at(node, epoch) == 1).then(|| node.identity())
    }

    fn active(&mut self, session: SessionId) -> Option<&mut Active> {
        match &mut self.sessions.get_mut(&session)?.stage {
            SessionStage::Active(active) => Some(active),
            SessionStage::Challenged(_) => None,
        }
    }

    fn joined(
        &mut self,
        core: &mut Core,
        now: Time,
        session: SessionId,
        (peer, origin): (Identity, Origin),
    ) {
        let mut nonce = [0; 32];
        self.nonces.fill_bytes(&mut nonce);
        notice(core, session, &Notice::Challenge { nonce });
        self.sessions
            .insert(session, Session { peer, origin, stage: SessionStage::Challenged(nonce) });
        // A connection that says nothing holds a place; it loses it soon.
        core.wheel.insert(now + HELLO_WITHIN, Due::Hello(session));
    }

    fn frame(
        &mut self,
        core: &mut Core,
        now: Time,
        session: SessionId,
        frame: Result<Frame, DropReason>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => {
                core.counters.drop(reason);
                self.close(core, session);
                return;
            }
        };
        match &mut state.stage {
            SessionStage::Active(active) if frame.field == CLIENT_CONTROL => {
                // Checking a descriptor costs a signature, and a client has another one once a period: so there is a
                // limit of its own.
                let inbox = active.may_renew(now).then_some((active.inbox, active.id));
                if let Err(reason) = self.renew(core, inbox, &frame) {
                    core.counters.drop(reason);
                }
            }
            SessionStage::Active(active) => {
                let passed = active.upward(now, &frame);
                let to = passed.and_then(|()| self.first_hop(core, &frame));
                match to {
                    Ok(to) => {
                        core.counters.from_clients += 1;
                        core.send(to, Frame { field: 0, ..frame });
                    }
                    Err(reason) => core.counters.drop(reason),
                }
            }
            SessionStage::Challenged(nonce) => {
                let (nonce, from) = (*nonce, (state.peer, state.origin));
                let hello = (frame.field == CLIENT_CONTROL)
                    .then(|| Hello::unpack(&frame.packet).ok())
                    .flatten();
                let Some(hello) = hello else {
                    core.counters.drop(DropReason::Malformed);
                    self.close(core, session);
                    return;
                };
                if let Err(refusal) = self.admit(core, now, session, from, &nonce, hello) {
                    core.counters.clients_refused += 1;
                    notice(core, session, &Notice::Refused(refusal));
                    self.close(core, session);
                }
            }
        }
    }

    fn left(&mut self, core: &mut Core, session: SessionId) {
        let Some(state) = self.sessions.remove(&session) else { return };
        let SessionStage::Active(active) = state.stage else { return };
        match active.token {
            Some(token) => {
                _ = self.connections.get_mut(token).map(|used| *used = used.saturating_sub(1));
            }
            None => {
                if let Some(used) = self.networks.get_mut(&state.origin) {
                    *used = used.saturating_sub(1);
                    if *used == 0 {
                        self.networks.remove(&state.origin);
                    }
                }
            }
        }
        // A newer connection of the same client may have its inbox by now.
        if self.by_inbox.get(&active.inbox) == Some(&session) {
            self.by_inbox.remove(&active.inbox);
        }
        let id = active.id;
        match active.away {
            Away::Keep => self.inboxes.leave(&id),
            Away::Drop => {
                let had_packets = self.inboxes.forget(&id) > 0;
                let had_descriptor = self.forget_descriptor(&id);
                if had_packets || had_descriptor {
                    core.outputs.push_back(Output::Forget(id));
                }
            }
        }
        // What it did not get any more waits for it, or is dropped.
        for frame in active.into_waiting() {
            self.store(core, id, frame);
        }
    }

    fn close(&mut self, core: &mut Core, session: SessionId) {
        core.outputs.push_back(Output::CloseClient(session));
        self.left(core, session);
    }

    /// A packet for a client has waited its time.
    pub(super) fn deliver(&mut self, core: &mut Core, now: Time, inbox: Identity, frame: Frame) {
        core.counters.for_clients += 1;
        // Clients and services went over to the present epoch together. What is still of the one before would show the
        // client's gateway that it is no loop.
        if core.topology.as_ref().is_some_and(|topology| topology.is_over(now, frame.epoch)) {
            core.counters.drop(DropReason::EpochOver);
            return;
        }
        let session = self.by_inbox.get(&inbox).copied();
        if let Some((session, active)) = session.and_then(|s| Some((s, self.active(s)?))) {
            active.deliver(core, session, now, frame);
        } else {
            let id = self.inbox_id(&inbox);
            self.store(core, id, frame);
        }
    }

    fn store(&mut self, core: &mut Core, inbox: InboxId, frame: Frame) {
        let quota = core.topology.as_ref().map_or(0, |t| t.document.parameters.inbox_packets);
        if !self.inboxes.contains(&inbox) {
            return core.counters.drop(DropReason::UnknownClient);
        }
        // A quota of zero, rather than a way of its own: what is counted is the same.
        let on = self.settings.inbox == Keeping::On;
        match self.inboxes.store(inbox, if on { quota } else { 0 }) {
            Stored::Kept(loses) => {
                if let Some(inbox) = loses {
                    core.counters.drop(DropReason::InboxFull);
                    core.outputs.push_back(Output::Discard { inbox, packets: 1 });
                }
                core.outputs.push_back(Output::Store { inbox, frame });
            }
            Stored::Full | Stored::Unknown => core.counters.drop(DropReason::InboxFull),
        }
    }

    /// Asks for what waits in the inbox, when the client has none of it left.
    fn fetch_more(&mut self, core: &mut Core, session: SessionId) {
        let Some(id) = self.active(session).filter(|active| active.wants_more()).map(|a| a.id)
        else {
            return;
        };
        if self.inboxes.waiting(&id) > 0
            && let Some(active) = self.active(session)
        {
            // One question at a time: else the same packets would be asked for twice before the first answer is here.
            active.fetching = true;
            core.outputs.push_back(Output::Fetch { inbox: id, max: FETCH });
        }
    }

    fn fetched(&mut self, core: &mut Core, now: Time, inbox: InboxId, frames: Vec<Frame>) {
        match frames.len() {
            // The count was wrong: a packet could not be read.
            0 => self.inboxes.taken(&inbox, u32::MAX),
            packets => self.inboxes.taken(&inbox, u32::try_from(packets).unwrap_or(u32::MAX)),
        }
        // By the inbox, not by the session that asked: that one may be gone, and its client back on another.
        let to = self.sessions.iter().find_map(|(session, state)| match &state.stage {
            SessionStage::Active(active) if active.id == inbox => Some(*session),
            _ => None,
        });
        match to.and_then(|session| Some((session, self.active(session)?))) {
            Some((session, active)) => {
                active.fetched(core, session, now, frames);
                self.fetch_more(core, session);
            }
            // It has left meanwhile.
            None => frames.into_iter().for_each(|frame| self.store(core, inbox, frame)),
        }
    }
}

fn downward(kind: Downward, packet: Packet) -> Frame {
    Frame { epoch: 0, field: kind as u16, packet }
}

fn notice(core: &mut Core, session: SessionId, notice: &Notice) {
    // A notice fits a frame many times over.
    if let Ok(packet) = notice.pack() {
        let frame = downward(Downward::Notice, packet);
        core.outputs.push_back(Output::ToClient { session, frame });
    }
}

/// A signed document as frames for clients.
pub(super) fn document_frames(signed: &[u8]) -> Arc<[Frame]> {
    let frame = |part: DocumentPart| Some(downward(Downward::Document, part.pack().ok()?));
    DocumentPart::cut(signed).into_iter().filter_map(frame).collect()
}
