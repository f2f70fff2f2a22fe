//! A person's client, without IO: isolation groups with their tunnels, cover, loops and SURBs.
//!
//! Drive it so: hand it what arrives ([`Client::handle_frame`], [`Client::set_link`], …), call
//! [`Client::handle_timeout`] when [`Client::next_timeout`] is reached, and after each of these take all outputs
//! ([`Client::poll_output`]). Frames leave through an [`Uplink`], which the caller owns, since it must be asked at
//! slots: whenever [`Uplink::wants`] something, ask [`Client::produce`] for it.

mod arrivals;
mod call;
mod contract;
mod credits;
mod gateways;
mod group;
mod groups;
mod ids;
mod locations;
mod loops;
mod loss_test;
mod outbox;
mod packets;
mod protection;
mod resting;
mod returns;
mod shares;
mod suspicion;
#[cfg(test)]
mod tests;
mod trust;
mod types;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_sphinx::{Codec, Downward, SecretKey};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{
    Class, ClientDescriptor, Document, Epoch, EquivocationProof, Identity, Seed, Stream, Time,
    VerifiedDocument,
};

use crate::keys::{Keys, ReplayCache};
use crate::message::{FromService, ToService};
use crate::route::{Recipient, Router};
use crate::surbs::{PendingReplies, SurbCache};
use crate::tunnel::{self, StreamId, Tunnel};
use call::Call;
use credits::Credits;
pub use credits::{ContactId, Handle, contact_of_person};
use gateways::Gateways;
pub use gateways::{Blame, Evidence, GatewayMemory, GatewayRecord};
pub use group::{Failure, GroupId, GroupStage, Isolation, Replies, Target};
use group::{Group, ServiceLocation};
use ids::Ids;
pub use loops::LoopCounts;
use loops::Loops;
use outbox::Outbox;
use resting::AllShares;
pub use shares::{download_bytes_per_s, whole_per_s};
use suspicion::Suspicion;
use trust::Pause;
pub use types::{
    Arrival, ClientOutput, ClientSettings, Contact, Counts, NotPosted, NotReached, Unprotected,
};

pub use crate::uplink::LetterId;
use crate::uplink::Turn;
#[cfg(doc)]
use crate::uplink::Uplink;

/// Most SURBs that are out at a time, 200 bytes each.
const MAX_OUTSTANDING: usize = 16_384;
/// Most isolation groups at a time.
pub const MAX_GROUPS: usize = 256;
/// Most last words to services that wait for their time, and how long that is, on average. Beyond it services find out
/// by themselves.
const MAX_CLOSE_NOTICES: usize = 64;
const CLOSE_DELAY: Duration = Duration::from_secs(4);
/// Descriptors that hold for long are asked for anew within so many seconds.
const DAY_S: f64 = 86_400.0;
/// A descriptor is asked for this often, and this long.
const QUERY_AGAIN: Duration = Duration::from_millis(1_500);
const QUERY_LIMIT: Duration = Duration::from_secs(12);
/// A service that does not answer in this time is tried at its other gateway, or another in its place.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a group looks for a location that answers.
const LOOK_LIMIT: Duration = Duration::from_secs(25);
/// A service that leaves a question unanswered for so long is tried at its other gateway.
const SILENCE: Duration = Duration::from_secs(4);
/// And after so long its streams end: the user's programs are told, and the next request starts anew.
const GIVE_UP: Duration = Duration::from_secs(20);
/// How long a failed location is avoided.
const AVOID: Duration = Duration::from_secs(30);
/// Messages from people that are remembered for each key, so that none comes twice, if [`Client::set_keys`] says nothing
/// else; more are dropped.
const MAX_MESSAGES: usize = 1 << 20;
/// How often groups and loops are looked at; a class whose limits are longer takes as much longer.
const TICK: Duration = Duration::from_millis(250);
/// How long a reply may wait at the gateway that came before the gateway drops what is of its epoch.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// What a SURB was made for.
enum Purpose {
    Tunnel(GroupId),
    Query(ServiceAddress),
}

/// The last datagram of a tunnel that was given up.
struct CloseNotice {
    /// When it may leave. Tunnels that end together must not say so together.
    due: Time,
    location: ServiceLocation,
    message: ToService,
}

/// A question for a descriptor.
struct Query {
    since: Time,
    asked: Option<Time>,
}

/// A descriptor that was asked for.
struct Cached {
    descriptor: ClientDescriptor,
    /// When it is asked for anew, whether somebody uses it or not.
    refresh: Time,
}

/// The engine of a person's client.
///
/// One thread owns it; see the module for how it is driven. Time is the caller's and never goes back.
/// [`Client::next_timeout`] goes stale with each call that takes `&mut self`. What [`Client::produce`] gives is
/// sealed for slots of the schedule as it stands and goes to [`Uplink::put`] at once: what is kept over
/// [`ClientOutput::EpochChanged`] or a change of link finds no slot. [`ClientOutput`]s are told once, in order.
pub struct Client {
    /// Seals and opens packets.
    codec: Arc<dyn Codec>,
    /// What quinn's clock shows at [`Time::ZERO`].
    base: Instant,
    /// The seed of which each group has a part.
    seed: Seed,
    /// The rates of the link, as the document in use has them.
    class: Class,
    /// What the user's configuration says.
    settings: ClientSettings,
    /// The keys that open packets, each with its memory of what came.
    keys: Keys,
    /// Where packets for this client end.
    end: Recipient,
    /// The documents in use, and paths by them.
    router: Router,
    /// The epoch and the document that groups and loops follow.
    follows: Option<(Epoch, Arc<Document>)>,
    /// Why nothing of the user's leaves any more, until the program starts anew.
    halted: Option<String>,
    /// What is wrong with the last document that came, unless it was taken.
    refused: Option<String>,
    /// The gateway that the client is linked to.
    link: Option<Identity>,
    /// The isolation groups, at most [`MAX_GROUPS`].
    groups: BTreeMap<GroupId, Group>,
    /// The number of the last group that was made.
    next_group: u64,
    /// The group that filled a slot last: the next in order comes next.
    last_turn: GroupId,
    /// How much of the link each group may use.
    shares: AllShares,
    /// Descriptors that are asked for; ordered, since who is asked first shows in what is sent.
    queries: BTreeMap<ServiceAddress, Query>,
    /// Ordered, since instants are drawn for them.
    descriptors: BTreeMap<ServiceAddress, Cached>,
    /// Where services did not answer, and until when they are not looked for there.
    avoid: HashMap<ServiceLocation, Time>,
    /// SURBs that are out, at most [`MAX_OUTSTANDING`].
    outstanding: PendingReplies<Purpose>,
    /// SURBs that were made and have not gone out.
    ahead: SurbCache,
    /// Last datagrams of tunnels that were given up, at most [`MAX_CLOSE_NOTICES`].
    close_notices: Vec<CloseNotice>,
    /// Messages to people that wait for a slot.
    outbox: Outbox,
    /// The call that lasts, or ended a moment ago.
    call: Option<Call>,
    /// The own loops, and what they say of mixes and the gateway.
    loops: Loops,
    /// Makes the identifiers of loops and SURBs.
    ids: Ids,
    /// Which arrivals take the place of loops.
    credits: Credits,
    /// What came that nobody asked for.
    suspicion: Suspicion,
    /// When a gateway is left, and when it is come back to.
    gateways: Gateways,
    /// Services that sent what their tunnels did not authenticate, by identity.
    liars: BTreeMap<[u8; 32], arrivals::Liar>,
    /// Says whether user traffic waits because the loops stand still.
    pause: Pause,
    /// True if there was a link before: when another begins, traffic waits.
    had_link: bool,
    /// How often it has waited.
    pauses: u64,
    /// Draws when it resumes.
    pause_rng: Stream,
    /// Expected anonymity of the next packet at the last tick, bits.
    bits: Option<f64>,
    /// When the gateway was found at fault, and for what.
    blamed: Option<(Time, Evidence)>,
    /// Draws what sealing needs.
    packets_rng: Stream,
    /// Draws among locations, and how long close notices wait.
    choices_rng: Stream,
    /// Draws when descriptors are asked for anew.
    refresh_rng: Stream,
    /// When groups are looked at next.
    next_tick: Time,
    /// When the next epoch begins by the documents that are held.
    next_epoch: Time,
    /// What happened so far.
    counts: Counts,
    /// What was not taken yet.
    outputs: VecDeque<ClientOutput>,
}

impl Client {
    /// A client of a class, with the key of its period and its inbox. `base` stands for [`Time::ZERO`].
    pub fn new(
        codec: Arc<dyn Codec>,
        (base, now): (Instant, Time),
        seed: &Seed,
        class: Class,
        (secret, inbox): (SecretKey, Identity),
        settings: ClientSettings,
    ) -> Self {
        Self {
            codec,
            base,
            seed: seed.part("groups"),
            class,
            end: Recipient { address: inbox.0, key: secret.public() },
            keys: Keys::one(secret, MAX_MESSAGES),
            router: Router::new((seed.stream("paths"), seed.stream("delays"))),
            follows: None,
            halted: None,
            refused: None,
            link: None,
            groups: BTreeMap::new(),
            next_group: 0,
            last_turn: GroupId(0),
            shares: AllShares::new(now, seed),
            queries: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            avoid: HashMap::new(),
            outstanding: PendingReplies::new(MAX_OUTSTANDING),
            ahead: SurbCache::default(),
            close_notices: Vec::new(),
            outbox: Outbox::new(seed.stream("letters")),
            call: None,
            loops: Loops::default(),
            ids: Ids::new(seed.stream("identifiers")),
            credits: Credits::default(),
            suspicion: Suspicion::new(settings.reachable),
            gateways: Gateways::new(seed.stream("gateways")),
            liars: BTreeMap::new(),
            pause: Pause::No,
            had_link: false,
            pauses: 0,
            pause_rng: seed.stream("pauses"),
            bits: None,
            blamed: None,
            packets_rng: seed.stream("packets"),
            choices_rng: seed.stream("choices"),
            refresh_rng: seed.stream("refreshing"),
            next_tick: now,
            next_epoch: Time::NEVER,
            counts: Counts::default(),
            outputs: VecDeque::new(),
            settings,
        }
    }

    /// A verified document; `unix_s` is the second of Unix time at `now`. One of the next epoch is kept until that
    /// begins. True if it brings something new.
    ///
    /// # Errors
    /// It contradicts another one: nothing of the user's leaves any more. Whoever calls keeps the proof.
    pub fn set_document(
        &mut self,
        now: Time,
        unix_s: u64,
        held: VerifiedDocument,
    ) -> Result<bool, EquivocationProof> {
        match self.router.insert(now, unix_s, held) {
            Ok(new) => {
                // A good document makes up for a bad one before it.
                self.refused = None;
                if new {
                    // An amendment may have taken a mix away that SURBs lead through.
                    self.ahead = SurbCache::default();
                    self.outputs.push_back(ClientOutput::EpochChanged);
                }
                self.follow(now);
                self.next_epoch = self.router.next_epoch(now);
                Ok(new)
            }
            Err(two) => {
                self.halt(two.to_string());
                Err(two)
            }
        }
    }

    /// A document came that cannot be used. While there is no other one, nothing of the user's leaves for this reason.
    pub fn refuse_document(&mut self, why: String) {
        self.refused = Some(why);
    }

    /// What is wrong with the last document that came, unless it was taken.
    pub fn refused_document(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Nothing of the user's leaves any more, for this reason; cover goes on.
    pub fn halt(&mut self, why: String) {
        // The first reason stays: it is what the user has to look into.
        self.halted.get_or_insert(why);
    }

    /// Goes over to the epoch and the document that are in use now.
    fn follow(&mut self, now: Time) {
        let (Some(epoch), Some(document)) =
            (self.router.epoch(now), self.router.document(now).cloned())
        else {
            return;
        };
        let before = self.follows.replace((epoch, document.clone()));
        if before.as_ref().is_some_and(|(e, d)| *e == epoch && Arc::ptr_eq(d, &document)) {
            return;
        }
        // A class that the document no longer has stays as it was: the client goes on by what it last agreed to.
        if let Some(class) = document.parameters.class(&self.class.name) {
            self.class = class.clone();
            self.router.set_class(class);
        }
        self.ahead.forget_before(epoch);
        self.groups.values_mut().for_each(|group| group.turn(Some(epoch)));
        let layer = |mix: &Identity| {
            let node = document.node(document.index_of(mix)?)?;
            Some(document.layer_at(node, epoch))
        };
        for exit in &document.exits {
            self.learn(exit.body());
        }
        self.loops.keep(layer);
        self.bits = self.measure_bits();
        let grace = document.turn_grace() + LAST_REPLIES;
        let expired = |epoch: Epoch| self.router.has_ended(now, epoch, grace);
        // Only when even replies that waited at the gateway are over: one that still comes must be known as ours.
        self.outstanding.retain(|_, epoch| !expired(epoch));
        // At the first document no group has a location yet.
        if before.is_some() {
            self.leave_gone_gateways(now);
        }
        self.outputs.push_back(ClientOutput::EpochChanged);
    }

    /// Groups whose service was reached at a gateway that is listed no more go to another gateway of it, or end.
    fn leave_gone_gateways(&mut self, now: Time) {
        if self.own_gateway(now).is_none() {
            return;
        }
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let Some((location, target)) =
                self.groups.get(&id).and_then(|group| Some((group.location?, group.target)))
            else {
                continue;
            };
            if self.router.gateway(now, &location.gateway).is_some() {
                continue;
            }
            let locations = self.locations(now, &target);
            let other = locations.into_iter().find(|other| other.identity == location.identity);
            match (other, self.groups.get_mut(&id)) {
                (Some(other), Some(group)) => {
                    group.location = Some(other);
                    group.stock.clear();
                }
                _ => self.fail(now, id, Failure::NoPath),
            }
        }
    }

    /// The gateway that the client is linked to, or none. Clear the uplink afterwards.
    pub fn set_link(&mut self, now: Time, gateway: Option<Identity>) {
        if gateway.is_some() && gateway != self.link {
            // SURBs that lead to the inbox at the old gateway lead nowhere now.
            // Also what they were made for is forgotten: a reply that comes by one all the same counts as late.
            self.outstanding.retain(|_, _| false);
            for group in self.groups.values_mut() {
                group.stock.forget();
            }
        }
        // While there is no link nobody can answer; when there is one, everyone gets their time.
        for group in self.groups.values_mut() {
            group.asked = None;
        }
        self.link = gateway;
        // What the old link swallowed says nothing of mixes, nor of the next gateway.
        self.loops.forget_link(now, &self.class);
        self.suspicion.link(now);
        self.blamed = None;
        self.pause_for_link(now, gateway.is_some());
        self.next_tick = now;
    }

    /// Another inbox, before the link at whose gateway it is: loops, and SURBs from now on, end there. What is on its way to
    /// the old one is lost, as on any change of link.
    pub fn set_inbox(&mut self, inbox: Identity) {
        self.end.address = inbox.0;
        self.ahead = SurbCache::default();
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

    /// The keys that open this client's packets from now on, that of the period first: loops and SURBs end at that one.
    /// Keys that stay remember what came; `make` makes the memory of a new one.
    pub fn set_keys(
        &mut self,
        secrets: Vec<SecretKey>,
        make: impl FnMut(&SecretKey) -> Box<dyn ReplayCache>,
    ) {
        self.keys.set(secrets, make);
        // SURBs that were made ahead end at the key of the period before, which may be gone before they come back.
        if let Some(key) = self.keys.present()
            && key != self.end.key
        {
            self.end.key = key;
            self.ahead = SurbCache::default();
        }
    }

    /// How full the memory of the period's key is, 0 to 1: another key is better long before it is full.
    pub fn memory_fullness(&self) -> f64 {
        self.keys.fullness()
    }

    /// The class, as the document in use defines it.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The epoch whose keys are used now; `None` without a document.
    pub fn epoch(&self, now: Time) -> Option<u64> {
        self.router.epoch(now).map(|epoch| epoch.0)
    }

    /// The document in use.
    pub fn document(&self, now: Time) -> Option<&Arc<Document>> {
        self.router.document(now)
    }

    /// Where slots lead from now on, for [`Uplink::clear`] and [`Uplink::follow`].
    pub fn turns(&mut self, now: Time) -> Vec<Turn> {
        self.router.turns(now)
    }

    /// The user's configuration is another from now on. Tunnels that stand keep their settings.
    pub fn set_settings(&mut self, settings: ClientSettings) {
        self.settings = settings;
    }

    /// Who runs a mix, by the names of [`Self::silent_mixes`].
    pub fn operator(&self, layer: u8, position: usize) -> Option<&str> {
        let (epoch, document) = self.follows.as_ref()?;
        let index = document.all_in_layer_at(*epoch, layer).nth(position.checked_sub(1)?)?;
        Some(&document.node(index)?.descriptor.body().operator)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How the loops of the last while fared.
    pub fn loops(&self) -> LoopCounts {
        self.loops.counts()
    }

    /// Names of mixes of which no loop has come back lately: layer and position in it, from 1.
    pub fn silent_mixes(&self) -> Vec<(u8, usize)> {
        self.loops.silent().iter().filter_map(|mix| self.name_of(mix)).collect()
    }

    /// Layer and position in it, from 1.
    fn name_of(&self, mix: &Identity) -> Option<(u8, usize)> {
        let (epoch, document) = self.follows.as_ref()?;
        let index = document.index_of(mix)?;
        let layer = document.layer_at(document.node(index)?, *epoch);
        let mut all = document.all_in_layer_at(*epoch, layer);
        Some((layer, 1 + all.position(|other| other == index)?))
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
    pub fn stages(&self) -> Vec<(GroupStage, usize)> {
        self.groups.values().map(|group| (group.stage(), group.streams)).collect()
    }

    /// The next thing to tell the caller.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When [`Client::handle_timeout`] must be called at the latest.
    pub fn next_timeout(&mut self) -> Time {
        let timeouts = self.groups.values_mut().filter_map(|g| g.tunnel.as_mut()?.next_timeout());
        let timeouts = timeouts.min().unwrap_or(Time::NEVER).min(self.shares.next());
        timeouts.min(self.next_tick).min(self.next_epoch)
    }

    /// Does what is due at `now`; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        for (id, group) in &mut self.groups {
            if let Some(tunnel) = &mut group.tunnel
                && tunnel.next_timeout().is_some_and(|at| at <= now)
            {
                tunnel.handle_timeout(now);
                take_events(*id, tunnel, &mut self.outputs);
            }
        }
        // After the timers of all tunnels: one that has run into its limit is closed only now.
        self.end_closed(now);
        self.shares.turn(now);
        if self.next_epoch <= now {
            self.follow(now);
            self.next_epoch = self.router.next_epoch(now);
        }
        if self.next_tick <= now {
            self.next_tick = now + TICK * self.patience();
            self.loops.expire(now);
            self.bits = self.measure_bits();
            // Before groups are moved on: where the loops stand still no service can be blamed for its silence.
            self.judge(now);
            self.refresh_descriptors(now);
            self.avoid.retain(|_, until| *until > now);
            for id in self.groups.keys().copied().collect::<Vec<_>>() {
                self.tick(now, id);
            }
            self.seek_recipients(now);
            self.limit_stocks();
            let lost = self.loops.lost_share();
            self.groups.values_mut().for_each(|group| group.stock.loops_lost(lost));
        }
    }

    /// So many dummies came since the last call. Whoever does not hand them to [`Client::handle_frame`] says so here,
    /// several times a second: they tell a full downlink from a gateway that takes packets.
    pub fn dummies(&mut self, now: Time, count: u64) {
        if count > 0 {
            self.counts.dummies += count;
            self.loops.dummy(now);
        }
    }

    /// A factor for limits and ticks that suit delays of 10 to 15 ms a hop: class text takes seconds for an answer.
    fn patience(&self) -> u32 {
        if self.class.delay.total_mean(3) > Duration::from_millis(150) { 4 } else { 1 }
    }

    /// The gateway that the client is linked to, if the document in use lists it.
    fn own_gateway(&self, now: Time) -> Option<Identity> {
        let own = self.link?;
        self.router.gateway(now, &own).map(|_| own)
    }
}

fn take_events(id: GroupId, tunnel: &mut Tunnel, outputs: &mut VecDeque<ClientOutput>) {
    while let Some(event) = tunnel.poll_event() {
        outputs.push_back(ClientOutput::Tunnel(id, event));
    }
}
