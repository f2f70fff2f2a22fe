//! A person's client, without IO: isolation groups with their tunnels, cover, loops and SURBs.
//!
//! Drive it so: hand it what arrives ([`Client::handle_frame`], [`Client::set_link`], …), call
//! [`Client::handle_timeout`] when [`Client::next_timeout`] is reached, and after each of these take all outputs
//! ([`Client::poll_output`]). Frames leave through an [`Uplink`], which the caller owns, since it must be asked at
//! slots: whenever [`Uplink::wants`] something, ask [`Client::produce`] for it.

mod group;
mod loops;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use shoal_sphinx::{
    Codec, Downward, Frame, Hop, PacketId, Peeled, Seal, SecretKey, Surb, SurbKeys,
};
use shoal_topology::address::ServiceAddress;
use shoal_topology::control::kind;
use shoal_topology::{
    Class, ClientDescriptor, Document, Identity, ListedNode, Seed, Signed, Stream, Time,
    exponential,
};

use crate::message::{FromService, ToService};
use crate::route::{End, Route, Router, packet_id};
use crate::surbs::{AHEAD, Ahead, Outstanding};
use crate::tunnel::{self, StreamId, Tunnel, TunnelEvent};
use crate::uplink::{Ready, Wants};
pub use group::{Failure, GroupId, Isolation, Stage, Target};
use group::{Group, Place};
pub use loops::LoopCounts;
use loops::Loops;

#[cfg(doc)]
use crate::uplink::Uplink;

/// Most SURBs that are out at a time, 200 bytes each.
const MAX_OUTSTANDING: usize = 8_192;
/// Most isolation groups at a time.
const MAX_GROUPS: usize = 256;
/// Most last words to services that wait for their time, and how long that is, on average. Beyond it services find out
/// by themselves.
const MAX_FAREWELLS: usize = 64;
const FAREWELL_DELAY: Duration = Duration::from_secs(4);
/// A descriptor is asked for this often, and this long.
const QUERY_AGAIN: Duration = Duration::from_millis(1_500);
const QUERY_LIMIT: Duration = Duration::from_secs(12);
/// A service that does not answer in this time is tried at its other gateway, or another in its place.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a group looks for a place that answers.
const LOOK_LIMIT: Duration = Duration::from_secs(25);
/// A service that leaves a question unanswered for so long is tried at its other gateway.
const SILENCE: Duration = Duration::from_secs(4);
/// And after so long its streams end: the user's programs are told, and the next request starts anew.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A group without streams for so long is given up, and its pseudonym with it.
const GROUP_IDLE: Duration = Duration::from_secs(600);
/// How long a failed place is avoided.
const AVOID: Duration = Duration::from_secs(30);
/// How often groups are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What the user's configuration tells the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When no other path is left, let one gateway serve both ends. It then sees how many packets arrive for the
    /// user and how many for the service.
    pub allow_shared_gateway: bool,
    /// For the tunnels.
    pub tunnel: tunnel::Settings,
}

/// What the engine tells its caller.
#[derive(Debug)]
pub enum Output {
    /// The tunnel of a group stands: streams can be opened.
    Connected(GroupId),
    /// The group ended; so did its streams.
    Failed(GroupId, Failure),
    /// Something happened in the tunnel of a group.
    Tunnel(GroupId, TunnelEvent),
}

/// Whether an arrival counts against the loops that the uplink owes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Nothing for the client: a dummy, or garbage.
    Nothing,
    /// A loop of its own.
    Loop,
    /// A packet from others.
    FromOthers,
}

/// Why user traffic does not leave.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unprotected {
    /// No link.
    #[error("not connected to a gateway")]
    NoGateway,
    /// No document yet.
    #[error("no topology document yet")]
    NoDocument,
    /// The document says no.
    #[error("{0}")]
    Document(shoal_topology::Error),
}

/// What happened so far, for `status` and metrics. Totals only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Packets from others.
    pub packets: u64,
    /// Dummies.
    pub dummies: u64,
    /// Packets that could not be opened, or that nobody asked for.
    pub unknown: u64,
    /// SURBs made.
    pub surbs: u64,
    /// Packets that found no path.
    pub no_path: u64,
}

/// What a SURB was made for.
enum Purpose {
    Tunnel(GroupId),
    Query(ServiceAddress),
}

/// The last datagram of a tunnel that was given up.
struct Farewell {
    /// When it may leave. Tunnels that end together must not say so together.
    due: Time,
    place: Place,
    message: ToService,
}

/// A packet that is to be sealed.
struct Draft {
    ready: Ready,
    route: Route,
    id: PacketId,
    message: Vec<u8>,
}

/// A question for a descriptor.
struct Query {
    since: Time,
    asked: Option<Time>,
}

/// A person's client.
pub struct Client {
    codec: Arc<dyn Codec>,
    base: Instant,
    seed: Seed,
    class: Class,
    settings: Settings,
    secret: SecretKey,
    /// Where packets for this client end.
    end: End,
    router: Option<Router>,
    link: Option<Identity>,
    groups: BTreeMap<GroupId, Group>,
    next_group: u64,
    last_turn: GroupId,
    queries: HashMap<ServiceAddress, Query>,
    descriptors: HashMap<ServiceAddress, ClientDescriptor>,
    avoid: HashMap<Place, Time>,
    outstanding: Outstanding<Purpose>,
    ahead: Ahead,
    farewells: Vec<Farewell>,
    loops: Loops,
    packets_rng: Stream,
    ids_rng: Stream,
    choices_rng: Stream,
    next_tick: Time,
    counts: Counts,
    outputs: VecDeque<Output>,
}

impl Client {
    /// A client of a class, with the key of its period and its inbox. `base` stands for [`Time::ZERO`].
    pub fn new(
        codec: Arc<dyn Codec>,
        (base, now): (Instant, Time),
        seed: &Seed,
        class: Class,
        (secret, inbox): (SecretKey, Identity),
        settings: Settings,
    ) -> Self {
        Self {
            codec,
            base,
            seed: seed.part("groups"),
            class,
            settings,
            end: End { address: inbox.0, key: secret.public() },
            secret,
            router: None,
            link: None,
            groups: BTreeMap::new(),
            next_group: 0,
            last_turn: GroupId(0),
            queries: HashMap::new(),
            descriptors: HashMap::new(),
            avoid: HashMap::new(),
            outstanding: Outstanding::new(MAX_OUTSTANDING),
            ahead: Ahead::default(),
            farewells: Vec::new(),
            loops: Loops::default(),
            packets_rng: seed.stream("packets"),
            ids_rng: seed.stream("identifiers"),
            choices_rng: seed.stream("choices"),
            next_tick: now,
            counts: Counts::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A verified document; `unix_s` is the second of Unix time at `now`. Clear the uplink afterwards.
    pub fn set_document(&mut self, now: Time, unix_s: u64, document: Arc<Document>, seed: &Seed) {
        if let Some(class) = document.parameters.class(&self.class.name) {
            self.class = class.clone();
        }
        let (before, streams) = match self.router.take() {
            Some(router) => (Some(router.document().clone()), router.into_streams()),
            None => (None, (seed.stream("paths"), seed.stream("delays"))),
        };
        self.router = Some(Router::new(document, Some(&self.class), (now, unix_s), streams));
        self.loops.forget_paths();
        self.ahead = Ahead::default();
        if let Some(before) = before {
            self.follow(now, &before);
        }
    }

    /// Places in the list of the document `before` become places in that of the present one.
    fn follow(&mut self, now: Time, before: &Document) {
        self.avoid.clear();
        self.farewells.clear();
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let Some((place, target)) =
                self.groups.get(&id).and_then(|group| Some((group.place?, group.target)))
            else {
                continue;
            };
            let gateway = before.node(place.gateway).map(ListedNode::identity);
            let same = self.router.as_ref().and_then(|router| router.gateway(&gateway?));
            let next = match same {
                Some(gateway) => Some(Place { gateway, ..place }),
                None => {
                    self.places(now, &target).into_iter().find(|p| p.identity == place.identity)
                }
            };
            match (next, self.groups.get_mut(&id)) {
                (Some(next), Some(group)) => {
                    group.place = Some(next);
                    if same.is_none() {
                        group.stock.clear();
                    }
                }
                _ => self.fail(now, id, Failure::NoPath),
            }
        }
    }

    /// The gateway that the client is linked to, or none. Clear the uplink afterwards.
    pub fn set_link(&mut self, now: Time, gateway: Option<Identity>) {
        if gateway.is_some() && gateway != self.link {
            // SURBs that lead to the inbox at the old gateway lead nowhere now.
            self.outstanding.retain(|_| false);
            for group in self.groups.values_mut() {
                group.stock.clear();
            }
        }
        // While there is no link nobody can answer; when there is one, everyone gets their time.
        for group in self.groups.values_mut() {
            group.asked = None;
        }
        self.link = gateway;
        self.loops.forget_link();
        self.next_tick = now;
    }

    /// The class, as the document in use defines it.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The epoch whose keys are used now; `None` without a document.
    pub fn epoch(&self, now: Time) -> Option<u64> {
        self.router.as_ref().map(|router| router.epoch(now).0)
    }

    /// Places of the first layer's mixes, and the low byte of the epoch, for [`Uplink::clear`].
    pub fn first_hops(&self, now: Time) -> (Vec<u16>, u8) {
        self.router
            .as_ref()
            .map_or((Vec::new(), 0), |router| (router.first_hops(), router.epoch(now).low_byte()))
    }

    /// Whether user traffic may leave now.
    ///
    /// # Errors
    /// Why not, in words for the user.
    pub fn protection(&self, now: Time) -> Result<(), Unprotected> {
        let router = self.router.as_ref().ok_or(Unprotected::NoDocument)?;
        router.document().check_time(router.unix_s(now)).map_err(Unprotected::Document)?;
        let linked = self.link.as_ref().and_then(|gateway| router.gateway(gateway));
        linked.map(|_| ()).ok_or(Unprotected::NoGateway)
    }

    /// The group of an isolation and a target: made when there is none. [`Output::Connected`] or
    /// [`Output::Failed`] follows, unless it is connected already.
    pub fn group(&mut self, now: Time, isolation: Isolation, target: Target) -> Option<GroupId> {
        let same = |group: &Group| group.isolation == isolation && group.target == target;
        if let Some((id, _)) = self.groups.iter().find(|(_, group)| same(group)) {
            return Some(*id);
        }
        if self.groups.len() >= MAX_GROUPS {
            return None;
        }
        self.next_group += 1;
        let id = GroupId(self.next_group);
        let name = self.next_group.to_string();
        self.groups.insert(id, Group::new(now, &self.seed.part(&name), isolation, target));
        self.next_tick = now;
        Some(id)
    }

    /// Where a group stands; `None` if it ended.
    pub fn stage(&self, id: GroupId) -> Option<Stage> {
        self.groups.get(&id).map(Group::stage)
    }

    /// The pseudonym of a group, for tests that two groups never share one.
    pub fn pseudonym(&self, id: GroupId) -> Option<tunnel::Pseudonym> {
        self.groups.get(&id).map(|group| group.pseudonym)
    }

    /// Opens a stream. `None` if the tunnel does not stand or has as many as it may.
    pub fn open(&mut self, now: Time, id: GroupId) -> Option<StreamId> {
        let group = self.groups.get_mut(&id)?;
        let stream = group.tunnel.as_mut()?.open(now)?;
        group.streams += 1;
        group.stock.in_use(now);
        Some(stream)
    }

    /// The caller is done with a stream that it opened.
    pub fn closed(&mut self, now: Time, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.streams = group.streams.saturating_sub(1);
            group.last_used = now;
        }
    }

    /// The tunnel of a group, to write and read streams.
    pub fn tunnel(&mut self, id: GroupId) -> Option<&mut Tunnel> {
        self.groups.get_mut(&id)?.tunnel.as_mut()
    }

    /// The user gave something to a stream, or takes something from it.
    pub fn touch(&mut self, now: Time, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.stock.in_use(now);
            group.last_used = now;
        }
    }

    /// A request in this group got no answer: if the service has been silent, the next one goes elsewhere.
    pub fn complain(&mut self, now: Time, id: GroupId) {
        if self.groups.get(&id).is_some_and(|group| group.silence(now) > 2 * SILENCE) {
            self.fail(now, id, Failure::Silent);
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How the loops of the last while fared.
    pub fn loops(&self) -> LoopCounts {
        self.loops.counts()
    }

    /// Names of mixes of which no loop has come back lately: layer and place in it, from 1.
    pub fn silent_mixes(&self) -> Vec<(u8, usize)> {
        let Some(router) = &self.router else { return Vec::new() };
        let document = router.document();
        let name = |mix: usize| {
            let layer = document.node(mix)?.layer;
            Some((layer, 1 + document.in_layer(layer).position(|index| index == mix)?))
        };
        self.loops.silent().into_iter().filter_map(name).collect()
    }

    /// Number of groups, and of SURBs that are out.
    pub fn sizes(&self) -> (usize, usize) {
        (self.groups.len(), self.outstanding.len())
    }

    /// How many groups wait for a service that has left a question unanswered for seconds.
    pub fn silent_services(&self, now: Time) -> usize {
        let limit = self.patience() * SILENCE;
        let silent = |group: &&Group| group.silence(now) > limit;
        self.groups.values().filter(silent).count()
    }

    /// Where each group stands, for `status`.
    pub fn stages(&self) -> Vec<(Stage, usize)> {
        self.groups.values().map(|group| (group.stage(), group.streams)).collect()
    }

    /// The next thing to tell the caller.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Client::handle_timeout`] must be called at the latest.
    pub fn next_timeout(&mut self) -> Time {
        let timeouts = self.groups.values_mut().filter_map(|g| g.tunnel.as_mut()?.next_timeout());
        timeouts.min().unwrap_or(Time::NEVER).min(self.next_tick)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        for (id, group) in &mut self.groups {
            if let Some(tunnel) = &mut group.tunnel
                && tunnel.next_timeout().is_some_and(|at| at <= now)
            {
                tunnel.handle_timeout(now);
                take_events(*id, tunnel, &mut self.outputs);
            }
        }
        self.end_closed(now);
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.loops.expire(now);
            self.avoid.retain(|_, until| *until > now);
            for id in self.groups.keys().copied().collect::<Vec<_>>() {
                self.tick(now, id);
            }
        }
    }

    /// Loops that the uplink has sent.
    pub fn loops_sent(&mut self, sent: Vec<(PacketId, Time)>) {
        sent.into_iter().for_each(|(id, at)| self.loops.sent(id, at));
    }

    /// A frame came from the gateway: a packet or a dummy.
    pub fn handle_frame(&mut self, now: Time, frame: Frame) -> Arrival {
        match Downward::from_field(frame.field) {
            Some(Downward::Packet) => {}
            Some(Downward::Dummy) => {
                self.counts.dummies += 1;
                return Arrival::Nothing;
            }
            _ => return Arrival::Nothing,
        }
        let opened = self.codec.open(&self.secret, frame.packet);
        let Ok(Peeled::Final { id, payload, .. }) = opened.and_then(|o| self.codec.peel(o)) else {
            self.counts.unknown += 1;
            return Arrival::FromOthers;
        };
        if self.loops.returned(&id, now) {
            return Arrival::Loop;
        }
        let reply = self
            .outstanding
            .take(&id)
            .and_then(|(purpose, keys)| Some((purpose, self.codec.unseal(&keys, payload).ok()?)));
        match reply {
            Some((Purpose::Tunnel(id), message)) => self.handle_reply(now, id, &message),
            Some((Purpose::Query(address), message)) => self.handle_answer(now, address, &message),
            None => {
                self.counts.unknown += 1;
                return Arrival::FromOthers;
            }
        }
        self.counts.packets += 1;
        Arrival::FromOthers
    }

    fn handle_reply(&mut self, now: Time, id: GroupId, message: &[u8]) {
        let (Some(group), Some(reply)) = (self.groups.get_mut(&id), FromService::decode(message))
        else {
            self.counts.unknown += 1;
            return;
        };
        let Some(tunnel) = &mut group.tunnel else { return };
        let round_trip = tunnel.rtt().unwrap_or(Duration::from_millis(400));
        group.stock.reported(now, reply.stock, round_trip);
        group.asked = None;
        tunnel.handle_datagram(now, &reply.datagram);
        take_events(id, tunnel, &mut self.outputs);
        if !group.connected && tunnel.is_connected() {
            group.connected = true;
            self.outputs.push_back(Output::Connected(id));
        }
        self.end_closed(now);
    }

    fn handle_answer(&mut self, now: Time, address: ServiceAddress, message: &[u8]) {
        let descriptor = match message.split_first_chunk::<2>() {
            Some(([kind::ANSWER, 1], bytes)) => Signed::<ClientDescriptor>::decode(bytes).ok(),
            _ => None,
        };
        let unix_s = self.router.as_ref().map_or(0, |router| router.unix_s(now));
        let descriptor = descriptor.map(|signed| signed.body().clone()).filter(|descriptor| {
            descriptor.identity.0 == address.identity
                && (descriptor.not_before..=descriptor.not_after).contains(&unix_s)
        });
        self.queries.remove(&address);
        match descriptor {
            Some(descriptor) => {
                if self.descriptors.len() >= 4 * MAX_GROUPS {
                    self.descriptors.clear();
                }
                self.descriptors.insert(address, descriptor);
                self.next_tick = now;
            }
            None => {
                let waiting = |group: &Group| group.target == Target::Service(address);
                let ids: Vec<_> =
                    self.groups.iter().filter(|(_, g)| waiting(g)).map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.fail(now, id, Failure::UnknownService));
            }
        }
    }

    /// Frames of those that the uplink wants, as many as there is something for. Cover waits for the next call while
    /// there is anything else: that must not wait until cover is sealed.
    pub fn produce(&mut self, now: Time, mut wants: Wants) -> Vec<(Ready, Frame)> {
        if self.protection(now).is_err() {
            (wants.data, wants.refill) = (0, 0);
        }
        let mut drafts = Vec::new();
        drafts.extend((0..wants.data).map_while(|_| self.make_data(now)));
        drafts.extend((0..wants.refill).map_while(|_| self.make_refill(now)));
        if drafts.is_empty() {
            drafts.extend((0..wants.loops).map_while(|_| self.make_loop(now)));
            drafts.extend((0..wants.drops).map_while(|_| self.make_drop(now)));
        }
        if drafts.is_empty() {
            return Vec::new();
        }
        let seals: Vec<Seal<'_>> = drafts
            .iter()
            .map(|Draft { route, id, message, .. }| Seal { path: &route.hops, id: *id, message })
            .collect();
        let packets = self.codec.seal_batch(&mut self.packets_rng, &seals);
        let sealed = drafts.iter().zip(packets);
        let frame = |(Draft { ready, route, .. }, packet): (&Draft, Result<_, _>)| {
            Some((*ready, Frame { epoch: route.epoch, field: route.first, packet: packet.ok()? }))
        };
        sealed.filter_map(frame).collect()
    }

    /// A question that waits, or a datagram of the group whose turn it is.
    fn make_data(&mut self, now: Time) -> Option<Draft> {
        let due = |query: &Query| query.asked.is_none_or(|at| now.since(at) > QUERY_AGAIN);
        if let Some(address) = self.queries.iter().find(|(_, q)| due(q)).map(|(a, _)| *a) {
            return self.make_query(now, address);
        }
        let after = |last: GroupId| (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let turns: Vec<GroupId> = (self.groups.range(after(self.last_turn)))
            .chain(self.groups.range(..=self.last_turn))
            .map(|(id, _)| *id)
            .collect();
        for id in turns {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let starving = group.connected && group.stock.is_starving(now);
            let Some(tunnel) = &mut group.tunnel else { continue };
            // A long upload must not keep the replies from having SURBs: every other packet brings only them.
            if starving && !group.refilled {
                group.refilled = true;
                if let Some(draft) = self.send(now, id, Vec::new()) {
                    self.last_turn = id;
                    return Some(draft);
                }
                continue;
            }
            let mut datagram = Vec::new();
            let sends = tunnel.poll_transmit(now, &mut datagram);
            take_events(id, tunnel, &mut self.outputs);
            if sends {
                group.refilled = false;
                self.last_turn = id;
                return self.send(now, id, datagram);
            }
        }
        let due = self.farewells.iter().position(|farewell| farewell.due <= now)?;
        let Farewell { place, message, .. } = self.farewells.swap_remove(due);
        self.send_to(now, &place, &message)
    }

    fn make_refill(&mut self, now: Time) -> Option<Draft> {
        let short = |group: &Group| group.connected && group.stock.missing(now) >= 5;
        let id = *self.groups.iter().find(|(_, group)| short(group))?.0;
        Some(Draft { ready: Ready::Refill, ..self.send(now, id, Vec::new())? })
    }

    fn make_loop(&mut self, now: Time) -> Option<Draft> {
        let own = self.own_gateway()?;
        let id = packet_id(&mut self.ids_rng);
        let end = self.end;
        let route = self.router.as_mut()?.draw(now, own, own, Some(end))?;
        self.loops.made(id, route.mixes.clone());
        Some(Draft { ready: Ready::Loop(id), route, id, message: vec![kind::LOOP] })
    }

    fn make_drop(&mut self, now: Time) -> Option<Draft> {
        let own = self.own_gateway()?;
        let router = self.router.as_mut()?;
        let gateway = router.any_gateway(own)?;
        let route = router.draw(now, own, gateway, None)?;
        Some(Draft { ready: Ready::Drop, route, id: [0; 16], message: vec![kind::DROP] })
    }

    fn make_query(&mut self, now: Time, address: ServiceAddress) -> Option<Draft> {
        let own = self.own_gateway()?;
        let router = self.router.as_mut()?;
        let gateway = router.gateway(&Identity(address.gateway))?;
        // Both ends may be one gateway here: it learns that somebody asks, which it sees anyway.
        let entry = if router.compatible(own, gateway) { own } else { gateway };
        let route = router.draw(now, entry, gateway, None)?;
        let entry = if router.compatible(gateway, own) { gateway } else { own };
        let (surb, keys) = self.surbs(now, entry, 1).pop()?;
        let mut message = vec![kind::QUERY];
        message.extend(address.identity);
        message.extend_from_slice(surb.as_bytes());
        self.outstanding.put(Purpose::Query(address), keys);
        if let Some(query) = self.queries.get_mut(&address) {
            query.asked = Some(now);
        }
        Some(Draft { ready: Ready::Data, route, id: [0; 16], message })
    }

    /// SURBs from the gateway `entry` to here: of those made ahead, and of a new batch if they are too few.
    fn surbs(&mut self, now: Time, entry: usize, count: usize) -> Vec<(Surb, SurbKeys)> {
        let (Some(own), Some(router)) = (self.own_gateway(), &mut self.router) else {
            return Vec::new();
        };
        let stock = self.ahead.from(entry, own, router.epoch(now));
        if stock.len() < count {
            let backs: Vec<(Route, PacketId)> = (stock.len()..count.max(AHEAD))
                .map_while(|_| router.draw(now, entry, own, Some(self.end)))
                .map(|route| (route, packet_id(&mut self.ids_rng)))
                .collect();
            let jobs: Vec<(&[Hop], PacketId)> =
                backs.iter().map(|(route, id)| (route.hops.as_slice(), *id)).collect();
            let made = self.codec.surb_batch(&mut self.packets_rng, &jobs);
            stock.extend(made.into_iter().filter_map(Result::ok));
        }
        let count = count.min(stock.len());
        stock.drain(..count).collect()
    }

    /// A packet of a group: a datagram, or none, and as many SURBs as fit and are missing.
    fn send(&mut self, now: Time, id: GroupId, datagram: Vec<u8>) -> Option<Draft> {
        let own = self.own_gateway()?;
        let budget = self.budget(now, id);
        let group = self.groups.get_mut(&id)?;
        let place = group.place?;
        if group.tunnel.as_ref().is_some_and(Tunnel::waits) {
            group.asked.get_or_insert(now);
        }
        let room = ToService::room(datagram.len());
        // Before the tunnel stands the stock is unknown: fill the room.
        let missing = if group.connected { group.stock.missing(now) } else { room };
        let pseudonym = group.pseudonym;
        let shared = !self.router.as_ref()?.compatible(own, place.gateway);
        let entry = if shared { own } else { place.gateway };
        let mut surbs = Vec::new();
        for (surb, keys) in self.surbs(now, entry, room.min(missing)) {
            self.outstanding.put(Purpose::Tunnel(id), keys);
            surbs.push(surb);
        }
        self.counts.surbs += surbs.len() as u64;
        self.groups.get_mut(&id)?.stock.sent(now, surbs.len());
        self.send_to(now, &place, &ToService { pseudonym, budget, surbs, datagram })
    }

    /// A packet to where a service is.
    fn send_to(&mut self, now: Time, place: &Place, message: &ToService) -> Option<Draft> {
        let own = self.own_gateway()?;
        let router = self.router.as_mut()?;
        let shared = !router.compatible(own, place.gateway);
        let entry = if shared { place.gateway } else { own };
        let end = End { address: place.inbox, key: place.key };
        let Some(route) = router.draw(now, entry, place.gateway, Some(end)) else {
            self.counts.no_path += 1;
            return None;
        };
        Some(Draft { ready: Ready::Data, route, id: [0; 16], message: message.encode() })
    }

    /// The packets per second that the service of a group may send: its max-min fair share, if it wants all it can
    /// get and the others want what their stocks say.
    fn budget(&self, now: Time, id: GroupId) -> u16 {
        let mut left = self.class.budget_per_s();
        let in_use = self.groups.values().filter(|group| group.stock.is_in_use(now)).count();
        let even_share = left / in_use.max(1) as f64;
        let others = self.groups.iter().filter(|(other, _)| **other != id);
        let wants = others.map(|(_, group)| group.stock.wants(now, even_share));
        let mut wants: Vec<f64> = wants.collect();
        wants.sort_by(f64::total_cmp);
        let mut sharing = wants.len() + 1;
        for want in wants {
            if want >= left / sharing as f64 {
                break;
            }
            left -= want;
            sharing -= 1;
        }
        (left / sharing as f64).clamp(1.0, 65_535.0) as u16
    }

    /// A factor for limits that suit delays of 10 to 15 ms a hop: class text takes seconds for an answer.
    fn patience(&self) -> u32 {
        if self.class.mean_delay() > Duration::from_millis(50) { 4 } else { 1 }
    }

    fn own_gateway(&self) -> Option<usize> {
        self.router.as_ref()?.gateway(self.link.as_ref()?)
    }

    /// Moves a group on.
    fn tick(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        if group.streams == 0 && group.connected && now.since(group.last_used) > GROUP_IDLE {
            return self.fail(now, id, Failure::Idle);
        }
        if self.own_gateway().is_none() || self.protection(now).is_err() {
            return;
        }
        if !group.connected && now.since(group.born) > self.patience() * LOOK_LIMIT {
            return self.fail(now, id, Failure::NoAnswer);
        }
        match group.stage() {
            Stage::Looking => self.look(now, id),
            Stage::Connecting if now.since(group.since) > self.patience() * CONNECT_LIMIT => {
                self.avoid_place(now, id);
                self.part(now, id);
                self.look(now, id);
            }
            Stage::Connecting => {}
            Stage::Connected => self.move_if_silent(now, id),
        }
    }

    /// Finds a place for a group: a service's inbox at one of its gateways.
    fn look(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let target = group.target;
        let unix_s = self.router.as_ref().map_or(0, |router| router.unix_s(now));
        self.descriptors.retain(|_, descriptor| unix_s <= descriptor.not_after);
        if let Target::Service(address) = target
            && !self.descriptors.contains_key(&address)
        {
            let fresh = Query { since: now, asked: None };
            let since = self.queries.entry(address).or_insert(fresh).since;
            let known = self.router.as_ref().and_then(|r| r.gateway(&Identity(address.gateway)));
            if known.is_none() {
                self.queries.remove(&address);
                self.fail(now, id, Failure::UnknownGateway);
            } else if now.since(since) > QUERY_LIMIT {
                self.queries.remove(&address);
                self.fail(now, id, Failure::NoAnswer);
            }
            return;
        }
        let mut places = self.places(now, &target);
        if places.is_empty() {
            return self.fail(now, id, Failure::NoPath);
        }
        // Where nobody answered lately comes last, the longest ago first. It is tried all the same: what kept
        // the answer away may have been a mix.
        places.sort_by_key(|place| self.avoid.get(place).copied());
        let Some(place) = places.first().copied() else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        let settings = &self.settings.tunnel;
        match Tunnel::connect(self.base, now, &group.next_seed(), place.identity, settings) {
            Ok(tunnel) => group.connect(now, place, tunnel),
            Err(_) => self.fail(now, id, Failure::NoPath),
        }
    }

    /// Where a target can be reached, the best first: paths whose gateways differ, in random order.
    fn places(&mut self, now: Time, target: &Target) -> Vec<Place> {
        let (Some(own), Some(router)) = (self.own_gateway(), &self.router) else {
            return Vec::new();
        };
        let exits = router.document().exits.iter().map(Signed::<ClientDescriptor>::body);
        let descriptors: Vec<&ClientDescriptor> = match target {
            Target::Exit => exits.collect(),
            Target::Service(address) => self.descriptors.get(address).into_iter().collect(),
        };
        let mut places = Vec::new();
        let unix_s = router.unix_s(now);
        let valid = |d: &&ClientDescriptor| (d.not_before..=d.not_after).contains(&unix_s);
        for descriptor in descriptors.into_iter().filter(valid) {
            for gateway in &descriptor.gateways {
                let (Some(gateway), Some(key)) = (router.gateway(gateway), descriptor.public_key())
                else {
                    continue;
                };
                let shared = !router.compatible(own, gateway);
                if !shared || self.settings.allow_shared_gateway {
                    let (inbox, identity) = (descriptor.inbox.0, descriptor.identity.0);
                    places.push((shared, Place { identity, inbox, key, gateway }));
                }
            }
        }
        places.shuffle(&mut self.choices_rng);
        places.sort_by_key(|(shared, _)| *shared);
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// A service in use that has been silent, or a gateway that has become our own: the same tunnel goes on
    /// through another gateway of the service.
    fn move_if_silent(&mut self, now: Time, id: GroupId) {
        let Some(own) = self.own_gateway() else { return };
        let Some(group) = self.groups.get(&id) else { return };
        let (Some(place), target) = (group.place, group.target) else { return };
        let compatible = self.router.as_ref().is_some_and(|r| r.compatible(own, place.gateway));
        if group.silence(now) > self.patience() * GIVE_UP {
            return self.fail(now, id, Failure::Silent);
        }
        let limit = self.patience() * SILENCE;
        let silent = group.silence(now) > limit && now.since(group.moved) > limit;
        let stranded = !compatible && now.since(group.moved) > SILENCE;
        if !silent && !stranded {
            return;
        }
        if silent {
            self.avoid_place(now, id);
        }
        let places = self.places(now, &target);
        let other = places.into_iter().find(|other| {
            other.identity == place.identity
                && other.gateway != place.gateway
                && !self.avoid.contains_key(other)
        });
        if let Some(group) = self.groups.get_mut(&id) {
            group.moved = now;
            if let Some(other) = other {
                group.place = Some(other);
                group.stock.clear();
            } else if silent {
                // Nowhere else to go: the same place is as good as any.
                self.avoid.remove(&place);
            }
        }
    }

    fn avoid_place(&mut self, now: Time, id: GroupId) {
        if let Some(place) = self.groups.get(&id).and_then(|group| group.place) {
            self.avoid.insert(place, now + AVOID);
        }
    }

    /// Ends groups whose tunnel has closed.
    fn end_closed(&mut self, now: Time) {
        let closed = |group: &Group| group.tunnel.as_ref().is_some_and(Tunnel::is_closed);
        let ids: Vec<_> =
            self.groups.iter().filter(|(_, g)| closed(g)).map(|(id, _)| *id).collect();
        for id in ids {
            self.avoid_place(now, id);
            self.fail(now, id, Failure::Closed);
        }
    }

    /// Gives up the tunnel of a group, and says so: its service would ask for a sign of life until it has no SURBs
    /// left.
    fn part(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (Some(mut tunnel), Some(place)) = (group.tunnel.take(), group.place.take()) else {
            return;
        };
        tunnel.close(now, 0);
        let mut datagram = Vec::new();
        if self.farewells.len() < MAX_FAREWELLS && tunnel.poll_transmit(now, &mut datagram) {
            let due = now + exponential(&mut self.choices_rng, FAREWELL_DELAY);
            let pseudonym = group.pseudonym;
            let message = ToService { pseudonym, budget: 1, surbs: Vec::new(), datagram };
            self.farewells.push(Farewell { due, place, message });
        }
    }

    fn fail(&mut self, now: Time, id: GroupId, why: Failure) {
        self.part(now, id);
        if self.groups.remove(&id).is_some() {
            self.outstanding.retain(|purpose| !matches!(purpose, Purpose::Tunnel(of) if *of == id));
            self.outputs.push_back(Output::Failed(id, why));
        }
    }
}

fn take_events(id: GroupId, tunnel: &mut Tunnel, outputs: &mut VecDeque<Output>) {
    while let Some(event) = tunnel.poll_event() {
        outputs.push_back(Output::Tunnel(id, event));
    }
}
