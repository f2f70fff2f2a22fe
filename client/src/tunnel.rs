//! Streams and datagrams through the mixnet: QUIC (`quinn-proto`) whose network is packets and SURBs. No IO.
//!
//! A client has one [`Tunnel`] for each isolation group, to one service; a service has one [`Tunnels`] for all
//! pseudonyms. Both take the time as an argument and hand out datagrams only when asked, so that the caller's
//! slots (client), or tokens and SURBs (service), decide when anything leaves.
//!
//! How to drive one: after every call that changes something, take the events ([`Tunnel::poll_event`]) and
//! look at [`Tunnel::next_timeout`] again; call [`Tunnel::poll_transmit`] whenever there is room for one
//! datagram. A stream is forgotten, and its place free again, once both halves have ended: the sending half by
//! `finish` or `reset`, the receiving half by reading to [`Read::Finished`] or [`Read::Reset`], or by `stop`.
//!
//! Why the settings are what they are: a mixnet reorders everything, which QUIC's defaults take for loss (a
//! trial reached 5 to 22 % of the slots with them). Packets are given up late, acknowledged seldom, and the
//! window is fixed, since no queue on the way answers to a sender. `tunnel/transport.rs` has them, with reasons.
//!
//! One limit is quinn's own: what arrives 129 or more packets late is taken for a duplicate. So the rate of the
//! downlink times the spread of the delays must stay below about 100 packets: 300/s go with hops of 15 ms, also
//! of 30 ms; 400/s with hops of 100 ms do not.

mod client;
mod end;
mod events;
mod service;
mod tls;
mod transport;
mod watchdog;
mod window;

#[cfg(test)]
pub(crate) mod pair;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use client::{Heard, Tunnel};
pub use service::Tunnels;
pub(crate) use transport::MAX_STREAMS;

/// Longest datagram from a client, in bytes: leaves room for two SURBs beside it in a packet.
pub const CLIENT_MTU: u16 = 1216;

/// Longest datagram from a service, in bytes.
pub const SERVICE_MTU: u16 = 2000;

/// The code that [`Read::Reset`] and [`Write::Stopped`] bear when no peer gave one: the tunnel is closed, or the
/// stream has ended already. The largest that QUIC can write.
pub const GONE: u64 = (1 << 62) - 1;

/// The code of a stream half that is given up for no special reason.
pub const GIVEN_UP: u64 = 1;

/// The code by which a receiving half is stopped when the connection that it was joined to was reset: what comes on the
/// other half comes to an end, and after that the peer resets its connection, too.
pub const CONNECTION_RESET: u64 = 2;

/// The 16 bytes by which a service tells its clients apart. A client takes a fresh one for every tunnel.
pub type Pseudonym = [u8; 16];

/// A stream of one tunnel, both ways. The client opened it: services never open any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StreamId(u64);

impl StreamId {
    #[cfg(test)]
    pub(crate) fn of(id: u64) -> Self {
        Self(id)
    }

    /// How many streams of this tunnel were opened before it.
    pub const fn index(self) -> u64 {
        self.0
    }
}

/// What a read gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes stand at the start of the buffer.
    Data(usize),
    /// Nothing now; [`TunnelEvent::Readable`] follows.
    Blocked,
    /// The peer finished, and everything has been read. Also what a stream gives that has been read to its end
    /// before, or was stopped here.
    Finished,
    /// The peer gave up with this code, or the tunnel closed ([`GONE`]); what had not been read is lost.
    Reset(u64),
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// So many bytes were taken, from the start.
    Written(usize),
    /// No room now; [`TunnelEvent::Writable`] follows.
    Blocked,
    /// The peer wants no more (its code was in [`TunnelEvent::Stopped`]), the stream was finished or reset here,
    /// or the tunnel is closed. The code is [`GONE`] unless the peer's is still at hand.
    Stopped(u64),
}

/// What happened in a tunnel.
#[derive(Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// The handshake is done: at a client, the service has proved its key.
    Connected,
    /// At a service: the peer opened a stream. A `Readable` for it follows.
    Opened(StreamId),
    /// At a client that was refused a stream: [`Tunnel::open`] may succeed now.
    Available,
    /// There may be something to read: data, the end, or a reset.
    Readable(StreamId),
    /// A write that was blocked may succeed now.
    Writable(StreamId),
    /// The peer wants no more on this stream, for the reason of this code. The sending half has ended.
    Stopped(StreamId, u64),
    /// A datagram, unordered and perhaps not the only one that was sent.
    Datagram(Vec<u8>),
    /// The end, and the last event. Nothing that has been sent since matters.
    Closed(CloseReason),
}

// By hand: what users send does not belong into any log.
impl fmt::Debug for TunnelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Opened(id) => write!(f, "Opened({})", id.0),
            Self::Available => f.write_str("Available"),
            Self::Readable(id) => write!(f, "Readable({})", id.0),
            Self::Writable(id) => write!(f, "Writable({})", id.0),
            Self::Stopped(id, code) => write!(f, "Stopped({}, {code})", id.0),
            Self::Datagram(data) => write!(f, "Datagram({} bytes)", data.len()),
            Self::Closed(reason) => write!(f, "Closed({reason:?})"),
        }
    }
}

/// Why a tunnel ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// This end closed it.
    Local,
    /// The peer closed it with this code; [`GONE`] when it did so during the handshake.
    Peer(u64),
    /// The service had no room for another connection.
    Refused,
    /// Who answered is not the service whose key is pinned.
    WrongService,
    /// Nothing came from the peer for [`TunnelSettings::idle_timeout`] (counted from the first question that it did not
    /// answer).
    TimedOut,
    /// The peer does not know this connection (any more): it was started anew.
    Forgotten,
    /// At a service: dropped, silent, to make room for another connection or a newer one of this pseudonym.
    Displaced,
    /// One of the two ends found the other breaking the protocol.
    Protocol,
}

/// How many bytes one end holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    /// Received and not yet read, on one stream. Below `connection`, so that one slow reader does not stop the
    /// others.
    pub stream: u32,
    /// Received and not yet read, on all streams together.
    pub connection: u32,
    /// Written and not yet acknowledged, on all streams together.
    pub send: u32,
}

/// What the ends of a tunnel are told. The defaults suit the classes `web`, `fast` and `call`; `text` wants an
/// initial round trip of seconds.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// The round trip assumed before one is measured. The first lost datagram is sent again after three times
    /// this.
    pub initial_rtt: Duration,
    /// A connection is dead when nothing came for so long.
    pub idle_timeout: Duration,
    /// A quiet connection sends something every so often.
    pub keep_alive: Duration,
    /// With something in flight and no acknowledgement for so long (or four of the shortest round trips seen, if that is
    /// more), ask.
    pub watchdog: Duration,
    /// What a client's end of a tunnel holds.
    pub client: Windows,
    /// What a service holds for each connection. Uploads are slower than downloads, and there are many of them.
    pub service: Windows,
    /// Connections that a service keeps; how they make room for each other is written at [`Tunnels`].
    pub max_connections: usize,
    /// What a service takes for the budget of a client that has not told one, in packets/s.
    pub initial_budget: f64,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            initial_rtt: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(120),
            keep_alive: Duration::from_secs(20),
            watchdog: Duration::from_millis(500),
            // A download of 450 kB/s that waits 0.6 s for a lost packet holds 270 kB, twice that when the packet is
            // lost again. Four readers must stop before a fifth notices.
            client: Windows { stream: 1 << 20, connection: 4 << 20, send: 512 << 10 },
            service: Windows { stream: 512 << 10, connection: 1 << 20, send: 1 << 20 },
            max_connections: 1024,
            initial_budget: 50.0,
        }
    }
}

/// What can go wrong in making an end of a tunnel. What goes wrong later is a [`CloseReason`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The identity given to a service, or the settings, are of no use to TLS.
    #[error("TLS refuses the key of the service: {0}")]
    Tls(#[from] rustls::Error),
    /// A setting is out of range.
    #[error("tunnel setting `{0}` is out of range")]
    Setting(&'static str),
    /// A bug in how the tunnel calls QUIC.
    #[error("QUIC refuses to connect: {0}")]
    Connect(#[from] quinn_proto::ConnectError),
}
