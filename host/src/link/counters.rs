//! What links count.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was refused, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections from others that ended before the handshake did: noise, other protocols, timeouts, and the
    /// refused peers below.
    pub handshake_failures: AtomicU64,
    /// Peers that are not on the list.
    pub refused_peers: AtomicU64,
    /// Connections beyond a limit: all, or of one peer.
    pub refused_connections: AtomicU64,
    /// Connections of strangers that made room for others.
    pub displaced_connections: AtomicU64,
    /// Streams that a peer opened beyond the one.
    pub refused_streams: AtomicU64,
    /// Connections that the system could not give us (too many open files, as a rule).
    pub accept_errors: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
