//! The service's end: the connections of all pseudonyms.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Endpoint, EndpointEvent, Incoming, ServerConfig};
use shoal_topology::{Seed, Time};

use super::end::End;
use super::transport::{self, QuicClock, TunnelRole};
use super::window::{Fixed, Window};
use super::{
    CLIENT_MTU, CloseReason, Pseudonym, Read, SERVICE_MTU, StreamId, TunnelError, TunnelEvent,
    TunnelSettings, Write, tls,
};

/// Answers to strangers (refusals, resets) that wait to be sent; when it is full the oldest goes.
const MAX_REPLIES: usize = 64;

/// A connection that was silent for so long may be displaced. Clients speak at every keep-alive.
const SILENT: Duration = Duration::from_secs(60);

/// A connection that carried nothing for so long may be displaced by a newcomer, though its client says that it is there: one
/// without streams, or, if there is none of these, one with streams, whose programs may have more to say.
const IDLE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(600);

/// A handshake that takes longer may be displaced when half of all connections are in it.
const CROWDED_HANDSHAKE: Duration = Duration::from_secs(5);

/// A handshake that takes longer may be displaced.
const SLOW_HANDSHAKE: Duration = Duration::from_secs(20);

/// All tunnels of a service, one for each pseudonym.
///
/// At most [`TunnelSettings::max_connections`] are kept. When there is no room for another, the first of these goes:
/// one that has ended; the longest silent one, if for more than 60 s, or 20 s in the handshake; the oldest handshake
/// when half of all are in it, after 5 s; the one over which nothing has been said for longest, if for more than 10 s (its
/// client says that it is there, and nothing else). Otherwise the newcomer is refused. A pseudonym that has a live connection gets no second one: what begins another is
/// ignored, since it may be an old datagram that arrives late.
///
/// [`TunnelEvent::Closed`] is the last event of a connection: its SURBs may go.
pub struct Tunnels {
    /// What all connections share in quinn.
    endpoint: Endpoint,
    /// From our time to quinn's and back.
    clock: QuicClock,
    /// What the tunnels were told.
    settings: TunnelSettings,
    /// The configuration from which that of each connection is made.
    server: ServerConfig,
    /// The connections, by pseudonym.
    peers: BTreeMap<Pseudonym, ClientTunnel>,
    /// The pseudonym of each of quinn's handles.
    handles: BTreeMap<usize, Pseudonym>,
    /// When each connection wants to be called, the earliest first.
    timers: BTreeSet<(Time, Pseudonym)>,
    /// Pseudonyms with events, in the order in which they get their turns.
    turns: VecDeque<Pseudonym>,
    /// The ends of connections that were displaced. Never more than connections are allowed: beyond, newcomers
    /// are refused until these have been taken.
    displaced: VecDeque<Pseudonym>,
    /// Pseudonyms that may have something to send.
    ready: BTreeSet<Pseudonym>,
    /// Answers to strangers, at most [`MAX_REPLIES`].
    replies: VecDeque<(Pseudonym, Vec<u8>)>,
    /// Datagrams that were garbage, or that came too late to matter.
    ignored: u64,
    /// Connections that were refused for want of room.
    refused: u64,
}

struct ClientTunnel {
    end: End,
    /// When the connection came, or a datagram last brought something for a stream.
    used: Time,
    timer: Option<Time>,
    queued: bool,
}

impl Tunnels {
    /// The tunnels of the service with this Ed25519 seed. `base` stands for [`Time::ZERO`].
    pub fn new(
        base: Instant,
        _now: Time,
        seed: &Seed,
        identity_secret: &[u8; 32],
        settings: &TunnelSettings,
    ) -> Result<Self, TunnelError> {
        transport::check(settings)?;
        let server = transport::server(Arc::new(tls::server(identity_secret)?));
        // From the identity, so that a service that was started anew can tell its clients that it forgot them.
        let reset_secret = transport::derive(identity_secret, b"shoal 2026 stateless reset");
        let config = transport::endpoint(seed, TunnelRole::Service, &reset_secret);
        Ok(Self {
            endpoint: Endpoint::new(config, Some(Arc::new(server.clone())), false, None),
            clock: QuicClock(base),
            settings: settings.clone(),
            server,
            peers: BTreeMap::new(),
            handles: BTreeMap::new(),
            timers: BTreeSet::new(),
            turns: VecDeque::new(),
            displaced: VecDeque::new(),
            ready: BTreeSet::new(),
            replies: VecDeque::new(),
            ignored: 0,
            refused: 0,
        })
    }

    /// Takes a datagram that came under this pseudonym. Whatever is none is counted and ignored.
    pub fn handle_datagram(&mut self, pseudonym: Pseudonym, now: Time, datagram: &[u8]) {
        if !transport::plausible(datagram, CLIENT_MTU) {
            self.ignored += 1;
        } else if self.feed(pseudonym, now, datagram) {
            for kept in self.with(pseudonym, |end, _| end.take_kept()).unwrap_or_default() {
                if !self.feed(pseudonym, now, &kept) {
                    self.keep(pseudonym, kept);
                }
            }
        } else {
            self.keep(pseudonym, datagram.to_vec());
        }
    }

    /// Keeps what may become readable, and counts what will not.
    fn keep(&mut self, pseudonym: Pseudonym, datagram: Vec<u8>) {
        let kept = self.peers.get_mut(&pseudonym).is_some_and(|peer| peer.end.keep(datagram));
        self.ignored += u64::from(!kept);
    }

    /// True if quinn made anything of a datagram.
    fn feed(&mut self, pseudonym: Pseudonym, now: Time, datagram: &[u8]) -> bool {
        let mut answer = Vec::new();
        let at = self.clock.instant(now);
        let data = BytesMut::from(datagram);
        match self.endpoint.handle(at, address(pseudonym), None, None, data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                // quinn drops what bears another address than the connection's, that is, another pseudonym.
                let owner = self.handles.get(&handle.0).copied();
                let Some(owner) = owner else { return false };
                let read = self.with(owner, |end, endpoint| end.on_datagram(endpoint, now, event));
                if let Some(peer) = self.peers.get_mut(&owner)
                    && peer.end.has_events()
                {
                    peer.used = now;
                }
                read.unwrap_or(false)
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.welcome(pseudonym, now, incoming),
            Some(DatagramEvent::Response(_)) => {
                self.reply(pseudonym, answer);
                false
            }
            None => false,
        }
    }

    /// Accepts a connection if it can; false when the datagram that began it was of no use.
    fn welcome(&mut self, pseudonym: Pseudonym, now: Time, incoming: Incoming) -> bool {
        // A pseudonym is all that tells connections apart, and old datagrams arrive late: a second beginning must not
        // end a connection that lives.
        match self.peers.get(&pseudonym) {
            Some(peer) if !peer.end.is_closed() => {
                self.endpoint.ignore(incoming);
                return false;
            }
            Some(_) => self.displace(pseudonym),
            None => {}
        }
        let mut answer = Vec::new();
        if !self.make_room(now) {
            self.refused += 1;
            let _ = self.endpoint.refuse(incoming, &mut answer);
            self.reply(pseudonym, answer);
            return true;
        }
        let window = Window::for_budget(self.settings.initial_budget);
        let mut server = self.server.clone();
        server.transport_config(transport::transport(
            &self.settings,
            TunnelRole::Service,
            SERVICE_MTU,
            Arc::new(Fixed(window.clone())),
        ));
        let at = self.clock.instant(now);
        match self.endpoint.accept(incoming, at, &mut answer, Some(Arc::new(server))) {
            Ok((handle, conn)) => {
                let end = End::new(conn, handle, self.clock, now, window, &self.settings);
                self.handles.insert(handle.0, pseudonym);
                self.peers
                    .insert(pseudonym, ClientTunnel { end, used: now, timer: None, queued: false });
                self.with(pseudonym, |end, endpoint| end.settle(endpoint, now));
                true
            }
            Err(error) => {
                if error.response.is_some() {
                    self.reply(pseudonym, answer);
                }
                false
            }
        }
    }

    /// True if there is room for one more, after what the rule at [`Tunnels`] allows.
    fn make_room(&mut self, now: Time) -> bool {
        if self.peers.len() < self.settings.max_connections {
            return true;
        }
        // What has ended goes before what is silent, and what is silent longer before what is silent for a short
        // time: so is the order of tuples.
        let victim = self
            .peers
            .iter()
            .filter_map(|(pseudonym, ClientTunnel { end, .. })| {
                let silence = now.since(end.heard());
                let limit = if end.was_connected() { SILENT } else { SLOW_HANDSHAKE };
                (end.is_closed() || silence > limit).then_some((
                    end.is_closed(),
                    silence,
                    *pseudonym,
                ))
            })
            .max()
            .or_else(|| self.idle(now));
        match victim {
            Some((_, _, pseudonym)) if self.displaced.len() < self.settings.max_connections => {
                self.displace(pseudonym);
                true
            }
            _ => false,
        }
    }

    /// A connection that makes room although its client is there. What has no streams goes first: a session that is open and
    /// quiet is in use.
    fn idle(&mut self, now: Time) -> Option<(bool, Duration, Pseudonym)> {
        // When more than half are in the handshake, handshakes make room for each other: whoever begins many and ends
        // none must not displace connections that stand.
        let young = self.peers.values().filter(|peer| !peer.end.was_connected()).count();
        let crowded = 2 * young > self.peers.len();
        let of_kind = self.peers.iter_mut().filter(|(_, peer)| peer.end.was_connected() != crowded);
        // `used` moves by what streams bring, not by acknowledgements: a client that only keeps its connection alive
        // is idle.
        let idle = of_kind
            .map(|(pseudonym, peer)| (!peer.end.has_streams(), now.since(peer.used), *pseudonym));
        idle.max().filter(|(is_empty, idle, _)| {
            let least = match (crowded, is_empty) {
                (true, _) => CROWDED_HANDSHAKE,
                (false, true) => IDLE,
                (false, false) => QUIET,
            };
            *idle > least
        })
    }

    /// Forgets a connection at once; `Closed` follows if it has not been taken.
    fn displace(&mut self, pseudonym: Pseudonym) {
        let Some(peer) = self.remove(pseudonym) else { return };
        if !peer.end.is_told() || peer.end.has_events() {
            self.displaced.push_back(pseudonym);
        }
        if !peer.end.is_drained() {
            self.endpoint.handle_event(peer.end.handle(), EndpointEvent::drained());
        }
    }

    fn remove(&mut self, pseudonym: Pseudonym) -> Option<ClientTunnel> {
        let peer = self.peers.remove(&pseudonym)?;
        // An ended connection that waits for its events to be taken may see its number in use again.
        let handle = peer.end.handle().0;
        if self.handles.get(&handle) == Some(&pseudonym) {
            self.handles.remove(&handle);
        }
        if let Some(timer) = peer.timer {
            self.timers.remove(&(timer, pseudonym));
        }
        if peer.queued {
            self.turns.retain(|p| *p != pseudonym);
        }
        if !self.replies.iter().any(|(p, _)| *p == pseudonym) {
            self.ready.remove(&pseudonym);
        }
        Some(peer)
    }

    /// Queues an answer to someone who has no connection.
    fn reply(&mut self, pseudonym: Pseudonym, answer: Vec<u8>) {
        if self.replies.len() >= MAX_REPLIES
            && let Some((old, _)) = self.replies.pop_front()
            && !self.peers.contains_key(&old)
            && !self.replies.iter().any(|(p, _)| *p == old)
        {
            self.ready.remove(&old);
        }
        self.replies.push_back((pseudonym, answer));
        self.ready.insert(pseudonym);
    }

    /// Does something with a connection, and then all that may have become due: its timer, its turn for events,
    /// its place among those that have something to send, its removal.
    fn with<T>(
        &mut self,
        pseudonym: Pseudonym,
        act: impl FnOnce(&mut End, &mut Endpoint) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(&pseudonym)?;
        let done = act(&mut peer.end, &mut self.endpoint);
        let timer = peer.end.next_timeout();
        if timer != peer.timer {
            if let Some(old) = peer.timer {
                self.timers.remove(&(old, pseudonym));
            }
            if let Some(new) = timer {
                self.timers.insert((new, pseudonym));
            }
            // The set of timers has one entry for each connection; two would wake the caller for an instant that is
            // past.
            peer.timer = timer;
        }
        if peer.end.has_events() && !peer.queued {
            peer.queued = true;
            self.turns.push_back(pseudonym);
        }
        // Whether there is something to send only quinn knows, and asking it costs a datagram: so it is assumed, and
        // `poll_transmit` finds out.
        self.ready.insert(pseudonym);
        if peer.end.is_over() {
            self.remove(pseudonym);
        }
        Some(done)
    }

    /// To be called at [`Self::next_timeout`]; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, pseudonym)) = self.timers.first().copied().filter(|(due, _)| *due <= now)
        {
            let before = self.timers.first().copied();
            self.with(pseudonym, |end, endpoint| end.on_timeout(endpoint, now));
            if self.timers.first().copied() == before {
                // A timer that did not move would hold up everyone: it waits for the next call.
                break;
            }
        }
    }

    /// When to call [`Self::handle_timeout`]: the earliest of all connections.
    pub fn next_timeout(&mut self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Pseudonyms that may have something to send, in order. Who is not among them has nothing.
    pub fn ready(&self) -> impl Iterator<Item = Pseudonym> + '_ {
        self.ready.iter().copied()
    }

    /// The first of [`Self::ready`] after this one, around the end if need be: for turns.
    pub fn next_ready(&self, after: Pseudonym) -> Option<Pseudonym> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.ready
            .range((Excluded(after), Unbounded))
            .next()
            .or_else(|| self.ready.first())
            .copied()
    }

    /// Puts the next datagram for this pseudonym, of at most [`SERVICE_MTU`] bytes, into `out` in place of what
    /// was there; false when there is none, and then it is not among [`Self::ready`] until something happens. To
    /// be called only with a SURB and a token at hand.
    pub fn poll_transmit(&mut self, pseudonym: Pseudonym, now: Time, out: &mut Vec<u8>) -> bool {
        // Answers to strangers first: they are few, and nothing follows them.
        if let Some(at) = self.replies.iter().position(|(p, _)| *p == pseudonym)
            && let Some((_, answer)) = self.replies.remove(at)
        {
            *out = answer;
            return true;
        }
        out.clear();
        let sent =
            self.with(pseudonym, |end, endpoint| end.transmit(endpoint, now, out)).unwrap_or(false);
        if !sent {
            self.ready.remove(&pseudonym);
        }
        sent
    }

    /// Writes the start of `data`, as much as there is room for.
    pub fn write(&mut self, pseudonym: Pseudonym, id: StreamId, data: &[u8]) -> Write {
        self.with(pseudonym, |end, _| end.write(id, data)).unwrap_or(Write::Stopped(super::GONE))
    }

    /// Ends the sending half of a stream: the peer reads to its end.
    pub fn finish(&mut self, pseudonym: Pseudonym, id: StreamId) {
        self.with(pseudonym, |end, _| end.finish(id));
    }

    /// Gives up the sending half of a stream: the peer reads a reset with this code.
    pub fn reset(&mut self, pseudonym: Pseudonym, id: StreamId, code: u64) {
        self.with(pseudonym, |end, _| end.reset(id, code));
    }

    /// Gives up the receiving half of a stream: the peer gets [`TunnelEvent::Stopped`] with this code.
    /// False when that half has ended already, so that the client is not told.
    pub fn stop(&mut self, pseudonym: Pseudonym, id: StreamId, code: u64) -> bool {
        self.with(pseudonym, |end, _| end.stop(id, code)).unwrap_or(false)
    }

    /// True if all that was given to a client's streams has been sent and acknowledged.
    pub fn is_quiet(&self, pseudonym: Pseudonym) -> bool {
        self.peers.get(&pseudonym).is_none_or(|peer| peer.end.is_quiet())
    }

    /// Reads into the start of `buf`.
    pub fn read(&mut self, pseudonym: Pseudonym, id: StreamId, buf: &mut [u8]) -> Read {
        self.with(pseudonym, |end, _| end.read(id, buf)).unwrap_or(Read::Reset(super::GONE))
    }

    /// Queues a datagram; when the queue is full the oldest go. False when it is longer than
    /// [`Self::max_datagram_len`], or there is no such connection.
    pub fn send_datagram(&mut self, pseudonym: Pseudonym, data: Vec<u8>) -> bool {
        self.with(pseudonym, |end, _| end.send_datagram(data)).unwrap_or(false)
    }

    /// Longest datagram that can be sent, in bytes; 0 without a connection.
    pub fn max_datagram_len(&mut self, pseudonym: Pseudonym) -> usize {
        self.peers.get_mut(&pseudonym).map_or(0, |peer| peer.end.max_datagram_len())
    }

    /// What happened and to whom; to be called until it gives none. Pseudonyms take turns.
    pub fn poll_event(&mut self) -> Option<(Pseudonym, TunnelEvent)> {
        // The ends first. A newcomer may have the same pseudonym already, and its events must come after `Closed` of
        // the one before.
        if let Some(pseudonym) = self.displaced.pop_front() {
            return Some((pseudonym, TunnelEvent::Closed(CloseReason::Displaced)));
        }
        while let Some(pseudonym) = self.turns.pop_front() {
            let Some(peer) = self.peers.get_mut(&pseudonym) else { continue };
            let event = peer.end.poll_event();
            peer.queued = peer.end.has_events();
            if peer.queued {
                self.turns.push_back(pseudonym);
            } else if peer.end.is_over() {
                self.remove(pseudonym);
            }
            if let Some(event) = event {
                return Some((pseudonym, event));
            }
        }
        None
    }

    /// Tells how many packets/s this client takes: what may be in flight to it follows from that. The caller's
    /// tokens keep the rate.
    pub fn set_budget(&mut self, pseudonym: Pseudonym, packets_per_s: f64) {
        self.with(pseudonym, |end, _| end.set_budget(packets_per_s));
    }

    /// Ends a connection at once, with a code for the client. What is unsent stays unsent. `Closed` follows when
    /// the client has been told, or after a few round trips.
    pub fn close(&mut self, pseudonym: Pseudonym, now: Time, code: u64) {
        self.with(pseudonym, |end, endpoint| {
            end.close(now, code);
            end.settle(endpoint, now);
        });
    }

    /// True if this pseudonym's handshake is done and its end has not come.
    pub fn is_connected(&self, pseudonym: Pseudonym) -> bool {
        self.peers.get(&pseudonym).is_some_and(|peer| peer.end.is_connected())
    }

    /// The smoothed round trip; none before the handshake is done.
    pub fn rtt(&self, pseudonym: Pseudonym) -> Option<Duration> {
        self.peers.get(&pseudonym).and_then(|peer| peer.end.rtt())
    }

    /// How many connections are kept, those that are ending included.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True if there is no connection.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Datagrams that were garbage, or that came too late to matter.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Connections refused for want of room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn address(pseudonym: Pseudonym) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(pseudonym)), 1)
}
