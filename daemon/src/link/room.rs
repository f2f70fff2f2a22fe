//! Who holds a connection to this endpoint and has not been let in: half open, or without a word of who it is.
//!
//! Connections from addresses that the topology lists have room of their own, which no stranger takes; elsewhere
//! networks share ([`super::shares`]).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use libp2p::swarm::ConnectionId;
use tokio::sync::oneshot;

use super::shares::{Origin, Strangers};

/// Addresses of nodes, as the topology lists them. Copies share one list.
#[derive(Clone, Default)]
pub struct Listed(Arc<RwLock<HashSet<IpAddr>>>);

impl Listed {
    /// From now on these.
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

struct Inner {
    listed: Strangers<ConnectionId>,
    others: Strangers<ConnectionId>,
    /// Half-open ones until their task has taken them up. The other end's address names one.
    openings: HashMap<SocketAddr, Opening>,
    /// Half-open ones; dropped, the connection closes.
    open: HashMap<ConnectionId, oneshot::Sender<()>>,
    origins: HashMap<ConnectionId, Origin>,
}

/// The room of an endpoint.
pub(super) struct Room {
    key: [u8; 32],
    addresses: Listed,
    inner: Mutex<Inner>,
}

impl Room {
    pub(super) fn new(key: [u8; 32], addresses: Listed, most: usize, most_of_one: usize) -> Self {
        let strangers = || Strangers::new(most, most_of_one);
        let (openings, open, origins) = Default::default();
        let inner = Inner { listed: strangers(), others: strangers(), openings, open, origins };
        Self { key, addresses, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is complete in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come; which one makes room for it. If that one is half open, it closes by itself.
    pub(super) fn add(&self, id: ConnectionId, from: SocketAddr) -> Option<ConnectionId> {
        let listed = self.addresses.has(from.ip());
        let mut inner = self.inner();
        let (leaves, origin) = if listed {
            let origin = Origin::host(&self.key, from.ip());
            (inner.listed.add(id, origin), origin)
        } else {
            let origin = Origin::network(&self.key, from.ip());
            (inner.others.add(id, origin), origin)
        };
        let (open, lost) = oneshot::channel();
        inner.open.insert(id, open);
        inner.origins.insert(id, origin);
        inner.openings.insert(from, Opening { id, lost });
        if let Some(leaves) = leaves {
            inner.open.remove(&leaves);
            inner.origins.remove(&leaves);
        }
        leaves
    }

    /// The task of a half-open connection begins.
    pub(super) fn opening(&self, from: SocketAddr) -> Option<Opening> {
        self.inner().openings.remove(&from)
    }

    /// The other end has said its first byte.
    pub(super) fn heard(&self, id: ConnectionId) {
        let mut inner = self.inner();
        inner.listed.heard(&id);
        inner.others.heard(&id);
    }

    /// The handshake is done.
    pub(super) fn opened(&self, id: ConnectionId) {
        self.inner().open.remove(&id);
    }

    /// Where a connection comes from.
    pub(super) fn origin(&self, id: ConnectionId) -> Origin {
        self.inner().origins.get(&id).copied().unwrap_or_default()
    }

    /// A connection's other end is no stranger any more.
    fn admit(&self, id: ConnectionId) {
        let mut inner = self.inner();
        inner.listed.remove(&id);
        inner.others.remove(&id);
    }

    /// A connection has ended.
    pub(super) fn remove(&self, id: ConnectionId, from: Option<SocketAddr>) {
        self.admit(id);
        let mut inner = self.inner();
        inner.open.remove(&id);
        inner.origins.remove(&id);
        if let Some(from) = from
            && inner.openings.get(&from).is_some_and(|opening| opening.id == id)
        {
            inner.openings.remove(&from);
        }
    }
}

/// How a connection stands with the endpoint that accepted it. Until [`Standing::admit`] it is a stranger's, and makes
/// room for others when there are too many of them.
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
}
