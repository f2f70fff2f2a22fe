//! Isolation groups: what shares one tunnel, one pseudonym and one stock of SURBs, and with whom.

use std::time::Duration;

use rand::RngExt;
use shoal_sphinx::{Address, PublicKey};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{Epoch, Identity, Seed, Time};

use crate::surbs::{Of, SurbBudget};
use crate::tunnel::{MAX_STREAMS, Pseudonym, Tunnel};

use super::MAX_GROUPS;

/// A group of one client, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub(super) u64);

/// What replies may take of a client's link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Replies {
    /// All that the downlink carries beside loops.
    #[default]
    Downlink,
    /// No more than the loops in payload slots, whose place they take: no more arrives than at rest (`protect.strict`, and what
    /// a client fetches by itself, [`Isolation::resting`]).
    Resting,
}

/// What must not be linked to something else: a hash of the SOCKS user name and password, or of nothing. And what replies to it may
/// take of the link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isolation {
    name: [u8; 32],
    replies: Replies,
}

impl Isolation {
    /// The isolation of a name of the caller's choice: what has the same name may share a tunnel and a pseudonym, as a browser's tabs do.
    /// A SOCKS program gets the same by this user name and no password.
    pub fn of(name: &str) -> Self {
        Self::new(Some((name.as_bytes(), b"")))
    }

    /// The isolation of a user name and a password, or of none.
    pub fn new(credentials: Option<(&[u8], &[u8])>) -> Self {
        let mut hasher =
            blake3::Hasher::new_derive_key("shoal 2026 isolation of socks credentials");
        if let Some((user, password)) = credentials {
            // With their lengths: a name and a password must not be another pair that reads the same behind each
            // other.
            hasher.update(&(user.len() as u64).to_le_bytes()).update(user);
            hasher.update(&(password.len() as u64).to_le_bytes()).update(password);
        }
        Self { name: *hasher.finalize().as_bytes(), replies: Replies::Downlink }
    }

    /// The same, at the pace of cover: replies stay within the rate at which loops arrive at rest, as `protect.strict` has it for all,
    /// so that the own gateway does not see that something is fetched. For what a program fetches by itself.
    pub fn resting(self) -> Self {
        Self { replies: Replies::Resting, ..self }
    }

    /// What replies may take, where all others may take `others`.
    pub(super) fn replies(&self, others: Replies) -> Replies {
        if self.replies == Replies::Resting { Replies::Resting } else { others }
    }
}

/// Whom a group talks to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any exit of the document.
    Exit,
    /// The service of this address.
    Service(ServiceAddress),
}

/// How far a group has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupStage {
    /// It looks for its service: a descriptor, or a gateway, is missing.
    Looking,
    /// The handshake is under way.
    Connecting,
    /// The tunnel is connected: streams can be opened.
    Connected,
}

/// Why a group ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The gateway that the address names is not in the document.
    #[error("the address names a gateway that is not part of this network")]
    UnknownGateway,
    /// The gateway knows no such service.
    #[error("the gateway knows no service of this identity")]
    UnknownService,
    /// Nothing came back in the time that it may take.
    #[error("the service does not answer")]
    NoAnswer,
    /// There is no exit, or none that a path leads to.
    #[error("no path leads to the service that keeps the rules")]
    NoPath,
    /// A request found the service silent.
    #[error("the service has gone silent")]
    Silent,
    /// The tunnel closed.
    #[error("the tunnel closed")]
    Closed,
    /// Nobody used the tunnel.
    #[error("the tunnel was not used")]
    Idle,
    /// The service sent replies that the tunnel did not authenticate, or let others do so.
    #[error("the service sends what its tunnel does not authenticate")]
    Garbage,
}

/// Where a service can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ServiceLocation {
    pub(super) identity: [u8; 32],
    pub(super) inbox: Address,
    pub(super) key: PublicKey,
    /// The gateway that has the inbox.
    pub(super) gateway: Identity,
}

/// How long the first stream of a group may be ago when it takes another one: drawn, so that groups that began together do not
/// end together. Ten minutes at most, as Tor's circuits (MaxCircuitDirtiness).
const LIFETIME_S: std::ops::Range<f64> = 480.0..600.0;
/// How long before that its successor connects: at an instant that no use of either marks.
const LEAD_S: std::ops::Range<f64> = 30.0..90.0;
/// How long a group stays that takes no more streams and has none.
const LINGER_S: std::ops::Range<f64> = 60.0..300.0;
/// A group without streams for so long is given up, and its pseudonym with it, if there are few.
const IDLE: Duration = Duration::from_secs(600);
/// A stream that is open may stand still for want of SURBs for so long after it was used. Then its tunnel's signs of life
/// are enough to find that out.
const STALLED: Duration = Duration::from_secs(60);
/// Whoever asked for a group opens a stream in it within this time after it stands.
const JUST_NOW: Duration = Duration::from_secs(1);
/// A successor connects early for a group that was given a new stream in this time.
const RECENT: Duration = Duration::from_secs(120);

/// Drawn once for each group.
pub(super) struct Ages {
    pub(super) lifetime: Duration,
    pub(super) lead: Duration,
    pub(super) linger: Duration,
}

impl Ages {
    fn draw(seed: &Seed) -> Self {
        let mut rng = seed.stream("ages");
        let mut of = |range| Duration::from_secs_f64(rng.random_range(range));
        Self { lifetime: of(LIFETIME_S), lead: of(LEAD_S), linger: of(LINGER_S) }
    }
}

/// An isolation group: a tunnel, its pseudonym and its stock of SURBs.
pub(super) struct Group {
    /// What must not be linked to the requests in it.
    pub(super) isolation: Isolation,
    /// Whom it talks to.
    pub(super) target: Target,
    /// From which it draws; each attempt at a tunnel has a part of its own.
    seed: Seed,
    /// How often it has begun a tunnel.
    pub(super) attempts: u64,
    /// By which the service knows the tunnel; another one for each attempt.
    pub(super) pseudonym: Pseudonym,
    /// Where the service is reached, once that is known.
    pub(super) location: Option<ServiceLocation>,
    /// The tunnel, once a location was found.
    pub(super) tunnel: Option<Tunnel>,
    /// The handshake of the tunnel was done.
    pub(super) connected: bool,
    /// When it began to look for a location, all had been silent lately.
    pub(super) hopeless: bool,
    /// Replies that the tunnel did not authenticate, less what is forgiven.
    pub(super) junk: f64,
    /// What the service has of the SURBs of the present epoch and of the next one.
    pub(super) stock: SurbBudget,
    /// The present epoch.
    pub(super) epoch: Option<Epoch>,
    /// How late this group begins to give out the next epoch's SURBs, 0 to 1.
    pub(super) late: f64,
    /// The last packet brought SURBs only.
    pub(super) refilled: bool,
    /// Streams that the caller opened and has not closed.
    pub(super) streams: usize,
    /// When the group was made.
    pub(super) born: Time,
    /// When its first stream was opened, and its last one.
    pub(super) opened: Option<Time>,
    /// When its last stream was opened; at first, when it was made.
    pub(super) last_opened: Time,
    /// How long it takes streams, when its successor connects, and how long it stays.
    pub(super) ages: Ages,
    /// When the first datagram left to which nothing has come back yet.
    pub(super) asked: Option<Time>,
    /// When the present attempt at a tunnel began.
    pub(super) since: Time,
    /// When it last went to another gateway of its service.
    pub(super) moved: Time,
    /// When the user last did anything with it.
    pub(super) last_used: Time,
}

impl Group {
    pub(super) fn new(now: Time, seed: &Seed, isolation: Isolation, target: Target) -> Self {
        Self {
            isolation,
            target,
            seed: seed.clone(),
            attempts: 0,
            pseudonym: [0; 16],
            location: None,
            tunnel: None,
            connected: false,
            hopeless: false,
            junk: 0.0,
            stock: SurbBudget::new(now),
            epoch: None,
            late: seed.stream("next epoch's SURBs").random(),
            refilled: false,
            streams: 0,
            born: now,
            opened: None,
            last_opened: now,
            ages: Ages::draw(seed),
            asked: None,
            since: now,
            moved: now,
            last_used: now,
        }
    }

    /// True if it takes no more streams: its first is too long ago. Those that it has go on.
    pub(super) fn is_retired(&self, now: Time) -> bool {
        self.opened.is_some_and(|at| now.since(at) >= self.ages.lifetime)
    }

    /// True if its successor may connect: it will be retired soon, and was in demand lately.
    pub(super) fn wants_successor(&self, now: Time) -> bool {
        let near = |at: Time| now.since(at) + self.ages.lead >= self.ages.lifetime;
        self.opened.is_some_and(near) && now.since(self.last_opened) < RECENT
    }

    /// True if it has been without streams for so long that it goes: sooner where most of the places for groups are
    /// taken, by `groups`. In steps, and not below half of the places: services must not count the groups of a client
    /// by it.
    pub(super) fn is_over(&self, now: Time, groups: usize) -> bool {
        let limit = match 4 * groups / MAX_GROUPS {
            0 | 1 => IDLE,
            2 => IDLE / 4,
            _ => IDLE / 16,
        };
        let limit = if self.is_retired(now) { limit.min(self.ages.linger) } else { limit };
        self.is_idle(now) && now.since(self.last_used) > limit
    }

    /// True if nobody uses it, nor has just asked for it.
    pub(super) fn is_idle(&self, now: Time) -> bool {
        self.streams == 0 && self.connected && now.since(self.last_used) > JUST_NOW
    }

    /// True if its service may have more for a stream, and nothing to send it by.
    pub(super) fn may_stall(&self, now: Time) -> bool {
        self.connected && self.streams > 0 && now.since(self.last_used) < STALLED
    }

    /// How long the service has left a question unanswered.
    pub(super) fn silence(&self, now: Time) -> Duration {
        self.asked.map_or(Duration::ZERO, |at| now.since(at))
    }

    pub(super) fn stage(&self) -> GroupStage {
        match (&self.tunnel, self.connected) {
            (None, _) => GroupStage::Looking,
            (Some(_), false) => GroupStage::Connecting,
            (Some(_), true) => GroupStage::Connected,
        }
    }

    /// Another epoch may have begun: what was given out for it is the stock now.
    pub(super) fn turn(&mut self, present: Option<Epoch>) {
        let Some(present) = present.filter(|present| self.epoch != Some(*present)) else { return };
        match self.epoch.replace(present) {
            Some(before) if before.0 + 1 == present.0 => self.stock.turn(),
            // An epoch was skipped, or went back: SURBs for neither are of use.
            _ => self.stock.forget(),
        }
    }

    /// A SURB that travels in an epoch came back.
    pub(super) fn came_back(&mut self, of: Epoch) {
        match self.epoch {
            Some(present) if of == present => self.stock.came_back(Of::Present),
            Some(present) if of.0 == present.0 + 1 => self.stock.came_back(Of::Next),
            _ => {}
        }
    }

    /// True if its tunnel takes no more streams for now.
    pub(super) fn is_full(&self) -> bool {
        self.streams >= MAX_STREAMS as usize
    }

    /// A seed for the next attempt: two attempts share neither pseudonym nor connection identifiers.
    pub(super) fn next_seed(&mut self) -> Seed {
        self.attempts += 1;
        self.seed.part(&self.attempts.to_string())
    }

    pub(super) fn connect(&mut self, now: Time, location: ServiceLocation, tunnel: Tunnel) {
        use rand::Rng;
        let mut rng = self.seed.part(&self.attempts.to_string()).stream("pseudonym");
        rng.fill_bytes(&mut self.pseudonym);
        self.location = Some(location);
        self.tunnel = Some(tunnel);
        self.connected = false;
        self.asked = None;
        self.junk = 0.0;
        // The service of another attempt knows another pseudonym: it has no SURBs of this one.
        self.stock = SurbBudget::new(now);
        self.stock.in_use(now);
        (self.since, self.moved) = (now, now);
    }
}
