//! A service, without IO: the other end of the tunnels, for all its clients.
//!
//! It answers at once and has no slots (THREAT-MODEL.md: property P2 is for people). It knows its clients by pseudonyms, and each datagram
//! that it sends costs one SURB of that pseudonym and one token of the budget that the client named.
//!
//! Drive it as the client's engine: after every call take all outputs, and the events of the tunnels.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_sphinx::{Codec, Downward, Frame, Peeled, SecretKey, Surb};
use shoal_topology::{Document, Epoch, EquivocationProof, Identity, Seed, Time, VerifiedDocument};

use crate::keys::{Keys, ReplayCache};
use crate::message::{BUDGET_UNITS, FromService, ToService};
use crate::route::Router;
use crate::surbs::MAX_STOCK;
use crate::tunnel::{Pseudonym, TunnelError, TunnelEvent, TunnelSettings, Tunnels};

/// Tokens that gather while a service is idle, or held up: it may answer at once with so many packets, or with what it
/// may send in so many seconds if that is more. Little, where a share is small: a burst makes the client's other groups wait
/// at its gateway.
const BURST: f64 = 4.0;
const BURST_S: f64 = 0.16;
/// Tokens of a pseudonym that is new: a handshake and a first answer.
const FIRST_BURST: f64 = 16.0;
/// Pseudonyms that were heard of and whose tunnel does not stand yet.
const MAX_STRANGERS: usize = 256;
/// SURBs that are kept for one.
const STRANGER_STOCK: usize = 16;
/// How long a pseudonym may take until its tunnel stands, or lasts after it closed.
const STRANGER_LIMIT: Duration = Duration::from_secs(20);
/// Packets that are remembered for each key, so that none is taken twice, if [`Service::set_keys`] says nothing else.
const MAX_PACKETS: usize = 1 << 22;
/// Least time between two looks at clients that wait for a token.
const TICK: Duration = Duration::from_millis(5);

/// Why a service answers nothing.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Trouble {
    /// For good, see [`Service::halt`].
    #[error("{0}")]
    Halted(String),
    /// There is no document yet.
    #[error("no topology document yet")]
    NoDocument,
    /// The document says no: it is stale, or this machine's clock is wrong.
    #[error("{0}")]
    Document(shoal_topology::Error),
}

/// What happened so far, for `status` and metrics. Totals only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Packets that brought a message of a tunnel.
    pub received: u64,
    /// Replies that left.
    pub sent: u64,
    /// Packets that could not be opened or read.
    pub unknown: u64,
    /// Packets that came before, or that could not be remembered.
    pub replayed: u64,
    /// SURBs that came when the stock was full.
    pub surbs_full: u64,
    /// SURBs that were not used before their epoch ended.
    pub surbs_expired: u64,
    /// SURBs that were malformed, of no epoch near, or led nowhere.
    pub surbs_bad: u64,
    /// Pseudonyms that went, before their tunnel stood, to make room for others.
    pub no_room: u64,
    /// Times that something waited for a SURB.
    pub starved: u64,
}

/// A frame for a gateway.
pub struct Send {
    /// The gateway to send it to.
    pub gateway: Identity,
    /// The frame to send.
    pub frame: Frame,
}

/// What is known of one client.
struct Peer {
    /// With the epochs in which they travel, the earliest first. Of those of the present epoch the last is spent first: the
    /// oldest may lead to where the client no longer is. Those of the next epoch are kept until it begins: whoever answers
    /// in an epoch in which the client sends nothing yet marks the answer for all who see epochs.
    surbs: VecDeque<(Epoch, Surb)>,
    /// The gateway its last packet came through. A SURB is used there: its path was drawn for that.
    gateway: Identity,
    budget: f64,
    tokens: f64,
    counted: Time,
    heard: Time,
    connected: bool,
    starved: bool,
}

impl Peer {
    /// Forgets the SURBs of epochs before this one; how many there were.
    fn expire(&mut self, present: Epoch) -> u64 {
        let expired = self.surbs.partition_point(|(of, _)| *of < present);
        self.surbs.drain(..expired);
        expired as u64
    }
}

/// The engine of a service.
///
/// One thread owns it. It hands in what arrives ([`Service::handle_frame`]) and calls [`Service::handle_timeout`]
/// when [`Service::next_timeout`] is reached; after each of these, and after anything it does with
/// [`Service::tunnels`] followed by [`Service::work`], it takes all frames ([`Service::poll_output`]) and all events
/// ([`Service::poll_event`]). [`Service::next_timeout`] goes stale with each of these calls.
pub struct Service {
    /// Opens packets and puts replies into SURBs.
    codec: Arc<dyn Codec>,
    /// The keys that open packets, each with its memory of what came.
    keys: Keys,
    /// The connections of all clients.
    tunnels: Tunnels,
    /// The documents in use, and what follows from them.
    router: Router,
    /// Why nothing is answered any more, until the program starts anew.
    halted: Option<String>,
    /// What is known of each client.
    peers: BTreeMap<Pseudonym, Peer>,
    /// The most clients that are remembered, strangers among them.
    max_peers: usize,
    /// What happened so far.
    counts: Counts,
    /// Frames that were not taken yet.
    outputs: VecDeque<Send>,
    /// Events of tunnels that were not taken yet.
    events: VecDeque<(Pseudonym, TunnelEvent)>,
    /// When the next client has a token again for which something waits.
    next_tick: Time,
    /// When the next epoch begins, if somebody waits for the SURBs that are kept for it.
    next_epoch: Time,
    /// When the next pseudonym without a tunnel may have to go.
    next_parting: Time,
}

/// What a service wants done, or tells.
pub enum ServiceOutput {
    /// A frame for a gateway.
    Send(Send),
    /// What happened to a tunnel.
    Tunnel(Pseudonym, TunnelEvent),
}

impl shoal_topology::Engine for Service {
    type Clock = Time;
    type Output = ServiceOutput;

    fn wake(&mut self, now: Time) {
        if self.next_timeout() <= now {
            self.handle_timeout(now);
        }
        self.work(now);
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        if let Some(send) = Self::poll_output(self) {
            return Some(ServiceOutput::Send(send));
        }
        self.poll_event().map(|(pseudonym, event)| ServiceOutput::Tunnel(pseudonym, event))
    }

    fn next_wake(&mut self) -> Option<Time> {
        self.next_timeout().if_ever()
    }
}

impl Service {
    /// A service of this identity (the seed of its Ed25519 key) and X25519 key. `base` stands for [`Time::ZERO`].
    ///
    /// # Errors
    /// Settings or a key that the tunnels refuse.
    pub fn new(
        codec: Arc<dyn Codec>,
        (base, now): (Instant, Time),
        seed: &Seed,
        (identity, secret): (&[u8; 32], SecretKey),
        settings: &TunnelSettings,
    ) -> Result<Self, TunnelError> {
        Ok(Self {
            codec,
            keys: Keys::one(secret, MAX_PACKETS),
            tunnels: Tunnels::new(base, now, seed, identity, settings)?,
            router: Router::new((seed.stream("paths"), seed.stream("delays"))),
            halted: None,
            peers: BTreeMap::new(),
            max_peers: settings.max_connections + MAX_STRANGERS,
            counts: Counts::default(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            next_tick: Time::NEVER,
            next_epoch: Time::NEVER,
            next_parting: Time::NEVER,
        })
    }

    /// A verified document; `unix_s` is the second of Unix time at `now`. True if it brings something new.
    ///
    /// # Errors
    /// It contradicts another one: nothing is answered any more. Whoever calls keeps the proof.
    pub fn set_document(
        &mut self,
        now: Time,
        unix_s: u64,
        held: VerifiedDocument,
    ) -> Result<bool, EquivocationProof> {
        self.router.insert(now, unix_s, held).inspect_err(|two| self.halt(two.to_string()))
    }

    /// As [`Self::set_keys`], before the first packet: no key stays.
    pub fn begin_keys(
        &mut self,
        secrets: Vec<SecretKey>,
        make: impl FnMut(&SecretKey) -> Box<dyn ReplayCache>,
    ) {
        self.keys.clear();
        self.set_keys(secrets, make);
    }

    /// The keys that open packets from now on, that of the period first. Keys that stay remember what came; `make` makes
    /// the memory of a new one.
    pub fn set_keys(
        &mut self,
        secrets: Vec<SecretKey>,
        make: impl FnMut(&SecretKey) -> Box<dyn ReplayCache>,
    ) {
        self.keys.set(secrets, make);
    }

    /// How full the memory of the period's key is, 0 to 1: another key is better long before it is full.
    pub fn memory_fullness(&self) -> f64 {
        self.keys.fullness()
    }

    /// Nothing is answered any more, for this reason.
    pub fn halt(&mut self, why: String) {
        self.halted.get_or_insert(why);
    }

    /// Why nothing is answered; `None` while all is well.
    pub fn trouble(&self, now: Time) -> Option<Trouble> {
        if let Some(why) = &self.halted {
            return Some(Trouble::Halted(why.clone()));
        }
        let Some(document) = self.router.document(now) else { return Some(Trouble::NoDocument) };
        document.check_time(self.router.unix_s(now)).err().map(Trouble::Document)
    }

    /// The document in use.
    pub fn document(&self, now: Time) -> Option<&Arc<Document>> {
        self.router.document(now)
    }

    /// A frame that came through a gateway.
    pub fn handle_frame(&mut self, now: Time, gateway: Identity, frame: Frame) {
        if Downward::from_field(frame.field) != Some(Downward::Packet) {
            return;
        }
        let opened = self.keys.open(&*self.codec, &frame.packet);
        let message = match &opened {
            Some((Peeled::Final { payload, .. }, tag)) => {
                // Before the message is read: a replay must not change what is known of a client, least of all bring
                // SURBs twice.
                if !self.keys.is_first(tag) {
                    self.counts.replayed += 1;
                    return;
                }
                payload.message().ok().and_then(ToService::decode)
            }
            _ => None,
        };
        let Some(message) = message else {
            self.counts.unknown += 1;
            return;
        };
        self.counts.received += 1;
        let pseudonym = message.pseudonym;
        if !self.peers.contains_key(&pseudonym) {
            // Only for a pseudonym that is new: those that are known never displace each other.
            self.make_room();
            self.next_parting = self.next_parting.min(now + STRANGER_LIMIT);
        }
        let peer = self.peers.entry(pseudonym).or_insert_with(|| Peer {
            surbs: VecDeque::new(),
            gateway,
            budget: 0.0,
            tokens: FIRST_BURST,
            counted: now,
            heard: now,
            connected: false,
            starved: false,
        });
        // Replies leave by the gateway that the client's last packet came through: its SURBs were drawn for that one.
        peer.gateway = gateway;
        peer.heard = now;
        peer.starved = false;
        // A stranger's stock is small: only a tunnel that stands earns room.
        let room = if peer.connected { MAX_STOCK } else { STRANGER_STOCK };
        let present = self.router.epoch(now);
        // Nobody gives SURBs out for later epochs than the next one.
        let last = present.map(|present| Epoch(present.0.saturating_add(1)));
        let epoch = self.router.near(now, message.epoch).filter(|epoch| Some(*epoch) <= last);
        self.counts.surbs_expired += present.map_or(0, |present| peer.expire(present));
        for surb in message.surbs {
            let Some(epoch) = epoch else {
                self.counts.surbs_bad += 1;
                continue;
            };
            // Packets overtake each other. There is room for each of two epochs.
            let first = peer.surbs.partition_point(|(of, _)| *of < epoch);
            let mut at = peer.surbs.partition_point(|(of, _)| *of <= epoch);
            if at - first >= room {
                self.counts.surbs_full += 1;
                // The oldest of its epoch goes: it may lead to where the client no longer is.
                peer.surbs.remove(first);
                at -= 1;
            }
            peer.surbs.insert(at, (epoch, surb));
        }
        let budget = f64::from(message.budget.max(1)) / BUDGET_UNITS;
        // The connection is told only when it changes: each telling wakes it.
        if budget != peer.budget {
            peer.budget = budget;
            self.tunnels.set_budget(pseudonym, budget);
        }
        if !message.datagram.is_empty() {
            self.tunnels.handle_datagram(pseudonym, now, &message.datagram);
            // A connection that has just been made takes the budget now.
            if !peer.connected {
                self.tunnels.set_budget(pseudonym, budget);
            }
        }
        self.work(now);
    }

    /// Whoever floods with new pseudonyms displaces the one that has been silent longest, and needs hundreds of
    /// packets within a handshake to displace one that is about to connect.
    fn make_room(&mut self) {
        if self.peers.len() < self.max_peers {
            return;
        }
        let strangers = self.peers.iter().filter(|(_, peer)| !peer.connected);
        if let Some(oldest) = strangers.min_by_key(|(_, peer)| peer.heard).map(|(name, _)| *name) {
            self.peers.remove(&oldest);
            self.counts.no_room += 1;
        }
    }

    /// Does what is due at `now`; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        self.tunnels.handle_timeout(now);
        if self.next_epoch <= now {
            self.next_epoch = Time::NEVER;
        }
        if self.next_parting <= now {
            let parting = |peer: &Peer| peer.heard + STRANGER_LIMIT;
            self.peers.retain(|_, peer| peer.connected || parting(peer) > now);
            let strangers = self.peers.values().filter(|peer| !peer.connected);
            self.next_parting = strangers.map(parting).min().unwrap_or(Time::NEVER);
        }
        self.work(now);
    }

    /// When [`Service::handle_timeout`] must be called at the latest.
    pub fn next_timeout(&mut self) -> Time {
        let tunnels = self.tunnels.next_timeout().unwrap_or(Time::NEVER);
        tunnels.min(self.next_tick).min(self.next_parting).min(self.next_epoch)
    }

    /// The tunnels, to read and write streams; call [`Service::work`] afterwards.
    pub fn tunnels(&mut self) -> &mut Tunnels {
        &mut self.tunnels
    }

    /// Sends what tunnels have, as far as SURBs and tokens reach, and collects events.
    pub fn work(&mut self, now: Time) {
        while let Some((pseudonym, event)) = self.tunnels.poll_event() {
            if let Some(peer) = self.peers.get_mut(&pseudonym) {
                match &event {
                    // From now on the pseudonym is no stranger: it keeps its place, and its stock may be large.
                    TunnelEvent::Connected => peer.connected = true,
                    TunnelEvent::Closed(_) => {
                        peer.connected = false;
                        peer.heard = now;
                        self.next_parting = self.next_parting.min(now + STRANGER_LIMIT);
                    }
                    _ => {}
                }
            }
            self.events.push_back((pseudonym, event));
        }
        self.next_tick = Time::NEVER;
        // Collected first, since sending changes who is ready.
        for pseudonym in self.tunnels.ready().collect::<Vec<_>>() {
            self.send(now, pseudonym);
        }
    }

    fn send(&mut self, now: Time, pseudonym: Pseudonym) {
        if self.halted.is_some() {
            return;
        }
        let Some(present) = self.router.epoch(now) else { return };
        let Some(peer) = self.peers.get_mut(&pseudonym) else { return };
        // Never zero: a division by it would put the next look off for ever.
        let budget = peer.budget.max(1.0 / BUDGET_UNITS);
        let most = BURST.max(BURST_S * budget);
        // A new pseudonym has more, once.
        if peer.tokens < most {
            let gained = now.since(peer.counted).as_secs_f64() * budget;
            peer.tokens = (peer.tokens + gained).min(most);
        }
        peer.counted = now;
        self.counts.surbs_expired += peer.expire(present);
        loop {
            let stock = peer.surbs.partition_point(|(of, _)| *of <= present);
            let Some(last) = stock.checked_sub(1) else {
                // Once for each time that the stock runs out, not for each look at it.
                self.counts.starved += u64::from(!peer.starved);
                peer.starved = true;
                if !peer.surbs.is_empty() {
                    self.next_epoch = self.router.next_epoch(now);
                }
                return;
            };
            if peer.tokens < 1.0 {
                let wait = Duration::from_secs_f64((1.0 - peer.tokens) / budget);
                self.next_tick = self.next_tick.min(now + wait.max(TICK));
                return;
            }
            // Asked for only with a SURB and a token at hand: QUIC counts what it gives out as sent.
            let mut datagram = Vec::new();
            if !self.tunnels.poll_transmit(pseudonym, now, &mut datagram) {
                return;
            }
            peer.tokens -= 1.0;
            // A datagram whose SURB is bad is lost like any other; QUIC sends it again.
            let Some((epoch, surb)) = peer.surbs.remove(last) else { return };
            let (stock, next) = (last as u16, (peer.surbs.len() - last) as u16);
            let message = FromService { epoch: present.low_byte(), stock, next, datagram }.encode();
            let first = self.codec.reply(surb, &message).ok().and_then(|(packet, first)| {
                let document = self.router.document_at(epoch)?;
                let index = document.index_of(&Identity(first))?;
                let layer = document.layer_at(document.node(index)?, epoch);
                // A SURB whose first hop is no first mix was made wrong, or for another document: nothing good comes
                // of sending it.
                (layer == 1).then_some((packet, index))
            });
            let Some((packet, index)) = first else {
                self.counts.surbs_bad += 1;
                continue;
            };
            self.counts.sent += 1;
            let frame = Frame { epoch: epoch.low_byte(), field: index as u16, packet };
            self.outputs.push_back(Send { gateway: peer.gateway, frame });
        }
    }

    /// The next frame to send.
    pub fn poll_output(&mut self) -> Option<Send> {
        self.outputs.pop_front()
    }

    /// The next event of a tunnel.
    pub fn poll_event(&mut self) -> Option<(Pseudonym, TunnelEvent)> {
        self.events.pop_front()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Tunnels, and SURBs in stock.
    pub fn sizes(&self) -> (usize, usize) {
        (self.tunnels.len(), self.peers.values().map(|peer| peer.surbs.len()).sum())
    }
}
