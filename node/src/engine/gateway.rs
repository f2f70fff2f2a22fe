//! The gateway's part: who is let in, what goes down to clients and when, the inbox, the descriptors.

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
use shoal_topology::wire::client_gateway::{
    Away, ControlMessage, DocumentPart, Hello, Mode, Notice, Refusal,
};
use shoal_topology::{
    Document, Epoch, FURTHER_EPOCHS, Identity, Seed, Stream, Time, VerifiedDocument,
};

use super::{Core, Due, Input, Origin, Output, SessionId};
use crate::counters::DropReason;
use crate::limit::Limit;
use descriptors::{Known, check_descriptor};
use inboxes::{Holder, Inboxes, Stored};
use session::{Active, FETCH};

pub use settings::{Admission, GatewaySettings, InboxId, Keeping, Service, Token};

/// The parts of a document go out within this part of an epoch.
const ANNOUNCEMENT: u32 = 20;
/// Documents that wait to go out. One more, and the oldest but the one under way gives way.
const MAX_ANNOUNCEMENTS: usize = 4;
/// Newcomers from one network that are given documents in a second; at once as many as may be here.
const GIVEN_PER_S: f64 = 4.0;
/// Networks of which it is remembered; when there are more, those that asked long ago are forgotten.
const MAX_NETWORKS: usize = 4_096;
/// How long a client may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

enum Stage {
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
    /// Between two parts.
    gap: Duration,
}

/// A document that clients have got.
struct Announced {
    document: Arc<Document>,
    /// By which clients say that they have it.
    tag: [u8; 8],
    parts: Arc<[Frame]>,
}

impl Session {
    /// Who answers for it, once it was let in.
    fn holder(&self) -> Option<Holder> {
        match &self.stage {
            Stage::Active(active) => {
                Some(active.token.map_or(Holder::Network(self.origin), Holder::Token))
            }
            Stage::Challenged(_) => None,
        }
    }
}

struct Session {
    peer: Identity,
    origin: Origin,
    stage: Stage,
}

/// The gateway's part of an engine.
pub(super) struct Gateway {
    settings: GatewaySettings,
    /// Ordered, since a new document goes to all: the same seed gives the same trace.
    sessions: BTreeMap<SessionId, Session>,
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
    nonces: Stream,
    answers: Stream,
    queries: Limit,
    /// Documents that clients have, the earliest first, with their parts.
    announced: Vec<Announced>,
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

    /// Whether an inbox was ever asked for here.
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
            Input::Known(found) => {
                found.into_iter().for_each(|(inbox, waiting)| self.inboxes.found(inbox, waiting));
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
                let silent = |s: &Session| matches!(s.stage, Stage::Challenged(_));
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
            self.announced.sort_by_key(|sent| sent.document.epoch);
        }
        if let Some(part) = running.parts.get(running.next) {
            for (session, state) in &self.sessions {
                if matches!(state.stage, Stage::Active(_)) {
                    let (session, frame) = (*session, part.clone());
                    core.outputs.push_back(Output::ToClient { session, frame });
                }
            }
        }
        running.next += 1;
        let mut next = now + running.gap;
        if running.next >= running.parts.len() {
            self.announcements.pop_front();
            let Some(following) = self.announcements.front() else { return };
            next = next.max(following.at);
        }
        core.wheel.insert(next, Due::Part);
    }

    /// The mix of layer 1 that a client's frame names: by its place in the list of the document that is in use in the
    /// epoch of the frame's key, of those that clients have.
    fn first_hop(&self, core: &Core, frame: &Frame) -> Result<Identity, DropReason> {
        let topology = core.topology.as_ref().ok_or(DropReason::NoRoute)?;
        // Clients change with the epoch, and clocks differ: nobody has a use for one that is further away.
        let near = topology.epoch.0.saturating_sub(1)..=topology.epoch.0 + 1;
        let epoch = near.map(Epoch).find(|epoch| epoch.low_byte() == frame.epoch);
        let epoch = epoch.ok_or(DropReason::UnknownEpoch)?;
        self.hop_of(frame.field, epoch).ok_or(DropReason::NoRoute)
    }

    fn hop_of(&self, place: u16, epoch: Epoch) -> Option<Identity> {
        let mut known = self.announced.iter().rev().map(|sent| &sent.document);
        let document = known.find(|document| document.epoch <= epoch)?;
        let node = document.node(usize::from(place))?;
        (document.layer_at(node, epoch) == 1).then(|| node.identity())
    }

    fn active(&mut self, session: SessionId) -> Option<&mut Active> {
        match &mut self.sessions.get_mut(&session)?.stage {
            Stage::Active(active) => Some(active),
            Stage::Challenged(_) => None,
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
        self.sessions.insert(session, Session { peer, origin, stage: Stage::Challenged(nonce) });
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
            Stage::Active(active) if frame.field == CLIENT_CONTROL => {
                let inbox = active.may_renew(now).then_some((active.inbox, active.id));
                if let Err(reason) = self.renew(core, inbox, &frame) {
                    core.counters.drop(reason);
                }
            }
            Stage::Active(active) => {
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
            Stage::Challenged(nonce) => {
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

    fn admit(
        &mut self,
        core: &mut Core,
        now: Time,
        session: SessionId,
        (peer, origin): (Identity, Origin),
        nonce: &[u8; 32],
        hello: Hello,
    ) -> Result<(), Refusal> {
        if !hello.is_proven(&core.identity, &peer, nonce) {
            return Err(Refusal::Proof);
        }
        let inbox = self.inbox_id(&hello.inbox);
        if !self.inboxes.may_connect(&inbox, now) {
            return Err(Refusal::TooOften);
        }
        let topology = core.usable().ok_or(Refusal::NotReady)?;
        let older = self.by_inbox.get(&hello.inbox).copied();
        let token = self.token(&hello, older)?;
        let class = match &hello.mode {
            Mode::Service => None,
            Mode::Class(name) => {
                Some(topology.document.parameters.class(name).ok_or(Refusal::Class)?)
            }
        };
        if self.announced.is_empty() {
            return Err(Refusal::NotReady);
        }
        let pace = session::Pace::new(now, class, self.settings.service_per_s);
        let up = session::up_limit(class, self.settings.service_per_s);
        let descriptor = hello
            .descriptor
            .as_deref()
            .map(|bytes| check_descriptor(bytes, &hello.inbox, &core.identity))
            .transpose()?;
        let replaces = older.and_then(|older| self.sessions.get(&older)).map(Session::holder);
        let holder = token.map_or(Holder::Network(origin), Holder::Token);
        let from_there = self.networks.get(&origin).copied().unwrap_or_default();
        let kept_free = if token.is_none() { self.kept_free() } else { 0 };
        if older.is_none() && self.by_inbox.len() + kept_free >= self.settings.max_clients
            || token.is_none()
                && replaces != Some(Some(holder))
                && from_there >= self.settings.max_clients_of_one
        {
            return Err(Refusal::Full);
        }
        let lacks = self.lacking(topology.epoch, &hello.documents);
        if !lacks.is_empty() && !self.may_have_document(inbox, holder, now) {
            return Err(Refusal::Full);
        }
        self.remember(core, inbox, holder)?;

        // Nothing can fail any more. What waits on an older connection of the same client moves to this one.
        let mut active = Active::new(hello.inbox, inbox, (token, hello.away), up, pace);
        if let Some(older) = older {
            if let Some(old) = self.active(older) {
                active.inherit(core, old);
            }
            self.close(core, older);
        }
        // Who is replaced has left the books with its inbox.
        let _ = self.inboxes.open(inbox, holder);
        match token {
            Some(token) => _ = self.connections.get_mut(token).map(|used| *used += 1),
            None => *self.networks.entry(origin).or_default() += 1,
        }
        if let Some(descriptor) = descriptor {
            self.keep_descriptor(inbox, descriptor);
        }
        self.by_inbox.insert(hello.inbox, session);
        core.counters.clients_admitted += 1;
        notice(core, session, &Notice::Welcome);
        core.outputs.push_back(Output::LetIn(session));
        for frame in lacks.iter().flat_map(|parts| parts.iter()) {
            core.outputs.push_back(Output::ToClient { session, frame: frame.clone() });
        }
        active.begin(core, session, now);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.stage = Stage::Active(Box::new(active));
        }
        self.fetch_more(core, session);
        Ok(())
    }

    /// Places that only bearers of tokens may take.
    fn kept_free(&self) -> usize {
        let connections = self.settings.admission.tokens().iter().map(|token| token.connections);
        let wanted = connections.fold(0, usize::saturating_add).min(self.settings.token_places);
        wanted.saturating_sub(self.connections.iter().sum())
    }

    /// Whether a client that lacks a document may be given it: a small word asks for a large answer.
    fn may_have_document(&mut self, inbox: InboxId, holder: Holder, now: Time) -> bool {
        // A token has a limit of its own.
        let Holder::Network(origin) = holder else {
            return self.inboxes.may_have_document(&inbox, now);
        };
        if self.given.len() > MAX_NETWORKS {
            self.given.retain(|_, limit| !limit.is_idle(now));
        }
        let fresh = || Limit::new(GIVEN_PER_S, self.settings.max_clients_of_one as f64);
        self.given.entry(origin).or_insert_with(fresh).pass(now)
            && self.inboxes.may_have_document(&inbox, now)
    }

    /// Of what others have got, what a client lacks: the document in use, and the next one if its time has come.
    fn lacking(&self, epoch: Epoch, has: &[[u8; 8]]) -> Vec<Arc<[Frame]>> {
        let in_use = self.announced.iter().rposition(|sent| sent.document.epoch <= epoch);
        let given = self.announced.iter().skip(in_use.unwrap_or_default());
        given.filter(|sent| !has.contains(&sent.tag)).map(|sent| sent.parts.clone()).collect()
    }

    /// Which listed token lets this client in; none is needed by people on an open gateway. A connection that will be
    /// closed for it does not count.
    fn token(&self, hello: &Hello, older: Option<SessionId>) -> Result<Option<usize>, Refusal> {
        let tokens = self.settings.admission.tokens();
        // In a time that does not depend on where they differ.
        let shown = blake3::hash(&hello.token);
        let fits = |token: &Token| blake3::hash(&token.secret) == shown && token.is_valid();
        let Some(index) = tokens.iter().position(fits) else {
            let open = matches!(self.settings.admission, Admission::Open(_));
            let person = hello.mode != Mode::Service;
            return match hello.token.is_empty() {
                _ if open && person => Ok(None),
                true => Err(Refusal::NoToken),
                false => Err(Refusal::Token),
            };
        };
        let token = tokens.get(index).ok_or(Refusal::Token)?;
        if hello.mode == Mode::Service && token.service == Service::Refused {
            return Err(Refusal::NoService);
        }
        let replaces = older.is_some_and(|older| match self.sessions.get(&older) {
            Some(Session { stage: Stage::Active(old), .. }) => old.token == Some(index),
            _ => false,
        });
        let used = self.connections.get(index).copied().unwrap_or_default();
        if used >= token.connections.saturating_add(usize::from(replaces)) {
            return Err(Refusal::Connections);
        }
        Ok(Some(index))
    }

    /// Makes room for an inbox that was not known.
    fn remember(&mut self, core: &mut Core, inbox: InboxId, holder: Holder) -> Result<(), Refusal> {
        let Some(gone) = self.inboxes.open(inbox, holder).map_err(|()| Refusal::Full)? else {
            return Ok(());
        };
        self.forget_descriptor(&gone);
        core.outputs.push_back(Output::Discard { inbox: gone, packets: u32::MAX });
        Ok(())
    }

    fn left(&mut self, core: &mut Core, session: SessionId) {
        let Some(state) = self.sessions.remove(&session) else { return };
        let Stage::Active(active) = state.stage else { return };
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
        if self.by_inbox.get(&active.inbox) == Some(&session) {
            self.by_inbox.remove(&active.inbox);
        }
        let id = active.id;
        match active.away {
            Away::Keep => self.inboxes.leave(&id),
            Away::Drop => {
                if self.inboxes.forget(&id) > 0 {
                    core.outputs.push_back(Output::Discard { inbox: id, packets: u32::MAX });
                }
                self.forget_descriptor(&id);
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
        let to = self.sessions.iter().find_map(|(session, state)| match &state.stage {
            Stage::Active(active) if active.id == inbox => Some(*session),
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
