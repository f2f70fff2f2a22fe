//! What links are told, and what can go wrong with them.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::room::Listed;
use crate::tls::Allow;

/// What an endpoint is told when it starts.
#[derive(Clone)]
pub struct LinkSettings {
    /// Where to listen; port 0 means any free one. `None`: dial only.
    pub listen: Option<SocketAddr>,
    /// Who may connect.
    pub allow: Allow,
    /// Connections from others at a time, beside those from listed addresses. One more is closed at once and counted.
    pub max_connections: usize,
    /// Connections from others that were not let in yet or were sent away, at a time: half open, before
    /// [`super::Standing::admit`], or after [`super::Standing::dismiss`]. One more, and one of the network with most of them is closed and counted.
    pub max_strangers: usize,
    /// Of these, connections from one network (a /24 of IPv4, a /48 of IPv6). One more, and its first that was sent
    /// away, or is silent, or else its oldest, is closed and counted.
    pub max_strangers_of_one: usize,
    /// Addresses of nodes. Connections from there have as much room for strangers again to themselves, shared by address,
    /// and do not count among `max_connections`.
    pub listed: Listed,
    /// How long a connection from others may take for TLS.
    pub tls_timeout: Duration,
    /// How long a connection may take for TCP and TLS together, and then for its stream.
    pub handshake_timeout: Duration,
}

impl Default for LinkSettings {
    /// Listens nowhere and lets nobody in; 1,024 connections; 256 strangers, 64 of one network; 3 s and 10 s.
    fn default() -> Self {
        Self {
            listen: None,
            allow: Allow::list(HashSet::new()),
            max_connections: 1_024,
            max_strangers: 256,
            max_strangers_of_one: 64,
            listed: Listed::default(),
            tls_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What can go wrong with a link. None of these texts names a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The listening address is taken.
    #[error(
        "{0} is in use: another program (or another copy of this one) listens there; stop it or choose another address"
    )]
    PortInUse(SocketAddr),
    /// The listening address cannot be had for another reason.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The key is no Ed25519 public key.
    #[error("not an Ed25519 public key")]
    BadKey,
    /// There is no TCP connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Nothing within the time for a handshake.
    #[error("no answer in time")]
    Timeout,
    /// The handshake failed: another key than the one dialled, or no post-quantum group, or no Shoal at all.
    #[error("the handshake failed")]
    Handshake(#[source] rustls::Error),
    /// The other end closed after the handshake: we are not on its list, or it is full.
    #[error("the other end closed the link: it may not know us, or be full")]
    Refused,
    /// This endpoint has been closed, or its settings are refused by the TLS library.
    #[error("the endpoint is closed")]
    Closed,
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The link is gone.
    #[error("the link is gone")]
    Io(#[source] io::Error),
}
