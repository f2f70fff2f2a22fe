//! Who holds a connection to this endpoint and has not been let in, or was sent away: half open, without a word of who it
//! is, or on the way out.
//!
//! Connections from addresses that the topology lists have room of their own, which no stranger takes; elsewhere
//! networks share ([`super::shares`]).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use libp2p::swarm::ConnectionId;
use tokio::sync::oneshot;

use super::counters::Counters;
use super::shares::{Origin, Strangers};

/// Addresses of nodes, as the topology lists them. Copies share one list.
#[derive(Clone, Default)]
pub struct Listed(Arc<RwLock<HashSet<IpAddr>>>);

impl Listed {
    /// From now on these are the addresses of nodes.
    pub fn replace(&self, addresses: HashSet<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }
}

/// A half-open connection, for the task that opens it.
pub(super) struct Opening {
    pub(super) id: ConnectionId,
    /// Ends when the connection has to make room.
    pub(super) lost: oneshot::Receiver<()>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whence {
    /// An address that the topology lists.
    Listed,
    Elsewhere,
}

struct RoomState {
    listed: Strangers<ConnectionId>,
    others: Strangers<ConnectionId>,
    /// Half-open ones until their task has taken them up. The other end's address names one.
    openings: HashMap<SocketAddr, Opening>,
    /// All that came and have not ended; dropped, the connection ends at once.
    open: HashMap<ConnectionId, oneshot::Sender<()>>,
    origins: HashMap<ConnectionId, (Origin, Whence)>,
}

/// The room of an endpoint.
pub(super) struct Room {
    key: [u8; 32],
    addresses: Listed,
    counters: Arc<Counters>,
    state: Mutex<RoomState>,
}

impl Room {
    pub(super) fn new(
        key: [u8; 32],
        addresses: Listed,
        (most, most_of_one): (usize, usize),
        counters: Arc<Counters>,
    ) -> Self {
        let strangers = || Strangers::new(most, most_of_one);
        let (openings, open, origins) = Default::default();
        let state = RoomState { listed: strangers(), others: strangers(), openings, open, origins };
        Self { key, addresses, counters, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, RoomState> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where whoever has this address comes from.
    pub(super) fn whence(&self, address: IpAddr) -> Whence {
        if self.addresses.has(address) { Whence::Listed } else { Whence::Elsewhere }
    }

    /// A connection has come; which one makes room for it, and ends.
    pub(super) fn add(&self, id: ConnectionId, from: SocketAddr) -> Option<ConnectionId> {
        let whence = self.whence(from.ip());
        let mut state = self.state();
        let (leaves, origin) = match whence {
            Whence::Listed => {
                let origin = Origin::host(&self.key, from.ip());
                (state.listed.add(id, origin), origin)
            }
            Whence::Elsewhere => {
                let origin = Origin::network(&self.key, from.ip());
                (state.others.add(id, origin), origin)
            }
        };
        let (open, lost) = oneshot::channel();
        state.open.insert(id, open);
        state.origins.insert(id, (origin, whence));
        state.openings.insert(from, Opening { id, lost });
        if let Some(leaves) = &leaves {
            self.end(&mut state, leaves);
        }
        leaves
    }

    /// The task of a half-open connection begins.
    pub(super) fn opening(&self, from: SocketAddr) -> Option<Opening> {
        self.state().openings.remove(&from)
    }

    /// The other end has said its first byte.
    pub(super) fn heard(&self, id: ConnectionId) {
        let mut state = self.state();
        state.listed.heard(&id);
        state.others.heard(&id);
    }

    /// A connection has to make room.
    fn end(&self, state: &mut RoomState, id: &ConnectionId) {
        Counters::add(&self.counters.displaced_connections);
        state.open.remove(id);
        state.origins.remove(id);
    }

    /// Where a connection comes from.
    pub(super) fn origin(&self, id: ConnectionId) -> Origin {
        self.state().origins.get(&id).map(|(origin, _)| *origin).unwrap_or_default()
    }

    /// A connection's other end is no stranger any more.
    fn admit(&self, id: ConnectionId) {
        let mut state = self.state();
        state.listed.remove(&id);
        state.others.remove(&id);
    }

    /// A connection's other end is sent away.
    fn dismiss(&self, id: ConnectionId) {
        let mut state = self.state();
        let leaves = match state.origins.get(&id).copied() {
            Some((origin, Whence::Listed)) => state.listed.dismiss(id, origin),
            Some((origin, Whence::Elsewhere)) => state.others.dismiss(id, origin),
            // It has ended already.
            None => None,
        };
        if let Some(leaves) = &leaves {
            self.end(&mut state, leaves);
        }
    }

    /// A connection has ended.
    pub(super) fn remove(&self, id: ConnectionId, from: Option<SocketAddr>) {
        self.admit(id);
        let mut state = self.state();
        state.open.remove(&id);
        state.origins.remove(&id);
        if let Some(from) = from
            && state.openings.get(&from).is_some_and(|opening| opening.id == id)
        {
            state.openings.remove(&from);
        }
    }
}

/// How a connection stands with the endpoint that accepted it. Until [`Standing::admit`], and from [`Standing::dismiss`]
/// on, it is a stranger's, and makes room for others when there are too many of them.
#[derive(Clone, Default)]
pub struct Standing(Option<(Arc<Room>, ConnectionId)>);

impl Standing {
    pub(super) fn stranger(room: &Arc<Room>, id: ConnectionId) -> Self {
        Self(Some((room.clone(), id)))
    }

    /// It is no stranger any more: it has proven that it belongs here.
    pub fn admit(&self) {
        if let Some((room, id)) = &self.0 {
            room.admit(*id);
        }
    }

    /// It is sent away: it goes before all strangers of its network, at once when their share is full.
    pub fn dismiss(&self) {
        if let Some((room, id)) = &self.0 {
            room.dismiss(*id);
        }
    }
}
