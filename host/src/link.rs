//! Links: libp2p over TCP and Yamux, secured by our own TLS (`tls`), one stream each, frames on it.
//!
//! A link is a connection of its own with exactly one stream, which the dialler opens. TLS starts with the first byte
//! and Yamux with the first byte inside: nothing is negotiated, so nothing can be negotiated down, and the check of
//! the dialled peer sits inside the handshake. The behaviour below replaces `libp2p-stream` 0.5 and
//! `libp2p-connection-limits`: the former keeps a sender for every past connection and drops streams that come in
//! pairs; the latter does not count. The Yamux adapter replaces `libp2p-yamux`, whose windows are 1 GiB or more.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: sockets and timers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use futures::StreamExt as _;
use futures::io::AsyncReadExt as _;
use libp2p::core::transport::timeout::{TransportTimeout, TransportTimeoutError};
use libp2p::core::transport::{PortUse, TransportError};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint as Side, Transport as _};
use libp2p::swarm::behaviour::{ConnectionClosed, DialFailure, FromSwarm, ListenFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError,
    NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, Swarm, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, tcp};
use rand::TryRng as _;
use rustls::crypto::CryptoProvider;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

mod counters;
mod frames;
mod names;
mod room;
mod secure;
mod settings;
mod shares;

pub use crate::tls::{Allow, Identity};
pub use counters::Counters;
pub use frames::{FRAME, FrameReceiver, FrameSender};
pub use room::{Listed, Standing};
pub use settings::{LinkError, LinkSettings};
pub use shares::Origin;

use names::{key_of, multiaddr, peer_id, socket_address};
use room::{Room, Whence};
use secure::{Security, secure};

/// The protocol of the one stream.
const FRAMES: StreamProtocol = StreamProtocol::new("/shoal/frames/1");
/// Under TLS, so that a frame is one record and one system call.
const WRITE_BUFFER: usize = 16 * 1024;
/// What a peer may have in flight to us on one connection; the most that a reader who stalls has to hold.
const WINDOW: usize = 4 * 1024 * 1024;
/// Streams a connection may have before Yamux closes it: the one, and one to be refused politely.
const STREAMS: usize = 2;
/// The largest Yamux payload: six frames, which fit one TLS record with the Yamux header.
const YAMUX_FRAME: usize = 6 * FRAME;
/// Unacknowledged data for this long, or four unanswered probes, and the kernel gives a connection up.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Connections at once from one identity: the old one, and the one that takes its place.
const PER_PEER: usize = 2;
/// Dials that wait for the endpoint's task; more wait in `dial`.
const DIALS: usize = 64;

/// A link that stands: a stream of frames to or from one peer. It lasts until both halves are dropped.
pub struct Link {
    /// Who is at the other end: its Ed25519 public key, proven in the handshake.
    pub peer: [u8; 32],
    /// The half that sends frames.
    pub sender: FrameSender,
    /// The half that receives frames.
    pub receiver: FrameReceiver,
    /// Where it comes from, if it was accepted.
    pub origin: Origin,
    /// Until it is told that the other end belongs here, a link that was accepted is a stranger's.
    pub standing: Standing,
}

impl Link {
    fn new(peer: [u8; 32], stream: Stream, origin: Origin, standing: Standing) -> Self {
        let (read, write) = stream.split();
        let (sender, receiver) = (FrameSender::new(write), FrameReceiver::new(read));
        Self { peer, sender, receiver, origin, standing }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// One end of many links. All of them end when it is dropped.
pub struct Endpoint {
    dialler: Dialler,
    incoming: mpsc::Receiver<Link>,
    listen: Option<SocketAddr>,
    counters: Arc<Counters>,
    task: AbortHandle,
}

/// Opens links from an [`Endpoint`]; one for every task that dials.
#[derive(Clone)]
pub struct Dialler {
    commands: mpsc::Sender<Dial>,
    timeout: Duration,
}

struct Dial {
    peer: PeerId,
    address: SocketAddr,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Link, LinkError>>;

impl Endpoint {
    /// Starts listening and returns at once. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::PortInUse`] and [`LinkError::Listen`].
    pub fn new(identity: &Identity, settings: LinkSettings) -> Result<Self, LinkError> {
        Self::with_provider(identity, settings, crate::tls::provider())
    }

    /// With other algorithms, for tests of what a peer without ours meets.
    pub(crate) fn with_provider(
        identity: &Identity,
        settings: LinkSettings,
        provider: CryptoProvider,
    ) -> Result<Self, LinkError> {
        let counters = Arc::new(Counters::default());
        let provider = Arc::new(provider);
        let server = crate::tls::server(
            identity,
            settings.allow.clone(),
            counters.clone(),
            provider.clone(),
        )
        .map_err(LinkError::Handshake)?;
        let mut key = [0; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut key).map_err(|_| LinkError::Closed)?;
        let strangers = (settings.max_strangers, settings.max_strangers_of_one);
        let room = Arc::new(Room::new(key, settings.listed.clone(), strangers, counters.clone()));
        let security = Arc::new(Security {
            identity: identity.clone(),
            server: server.into(),
            provider,
            room: room.clone(),
            tls_timeout: settings.tls_timeout,
        });

        // The errors of both stages are io::Error: told apart by `dial_error` once they come back.
        let transport = tcp::tokio::Transport::new(tcp::Config::new())
            .and_then(move |tcp, point| secure(tcp, point, security))
            .map_err(|error| error.into_inner());
        let transport = TransportTimeout::new(transport, settings.handshake_timeout)
            .map_err(|error| match error {
                TransportTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
                TransportTimeoutError::TimerError(error) | TransportTimeoutError::Other(error) => {
                    error
                }
            })
            .boxed();

        // A connection holds at most one link, which is a stranger's until it was taken: this queue cannot be full.
        let (links, incoming) = mpsc::channel(2 * settings.max_strangers.max(1));
        let behaviour = Behaviour {
            max_connections: settings.max_connections,
            timeout: settings.handshake_timeout,
            counters: counters.clone(),
            links,
            room,
            dials: HashMap::new(),
            pending: HashMap::new(),
            established: HashMap::new(),
        };
        let config = libp2p::swarm::Config::with_tokio_executor()
            // A connection ends with its stream: the handler keeps it alive until there is one.
            .with_idle_connection_timeout(Duration::ZERO)
            .with_max_negotiating_inbound_streams(STREAMS);
        let mut swarm = Swarm::new(transport, behaviour, peer_id(&identity.public())?, config);

        let mut listen = None;
        // Port 0 is found by the probe, so that the port is known before the swarm runs.
        if let Some(wanted) = settings.listen {
            let address = probe(wanted)?;
            swarm.listen_on(multiaddr(address)).map_err(|error| {
                let error = match error {
                    TransportError::Other(error) => error,
                    error @ TransportError::MultiaddrNotSupported(_) => io::Error::other(error),
                };
                listen_error(wanted, error)
            })?;
            listen = Some(address);
        }

        let (commands, dials) = mpsc::channel(DIALS);
        let task = tokio::spawn(run(swarm, dials)).abort_handle();
        let dialler = Dialler { commands, timeout: settings.handshake_timeout };
        Ok(Self { dialler, incoming, listen, counters, task })
    }

    /// Where this endpoint listens, with the port that was found when port 0 was asked for.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// What was refused so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// A handle that dials, for other tasks.
    pub fn dialler(&self) -> Dialler {
        self.dialler.clone()
    }

    /// Opens a link.
    ///
    /// # Errors
    /// As [`Dialler::dial`].
    pub async fn dial(&self, peer: [u8; 32], address: SocketAddr) -> Result<Link, LinkError> {
        self.dialler.dial(peer, address).await
    }

    /// The next link that a peer has opened. `None` when the endpoint cannot listen any more. May be cancelled.
    pub async fn accept(&mut self) -> Option<Link> {
        self.incoming.recv().await
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dialler {
    /// Opens a link to the owner of `peer` at `address`, on a connection of its own. The other end has let us in then.
    ///
    /// # Errors
    /// [`LinkError::BadKey`], [`LinkError::Connect`], [`LinkError::Timeout`], [`LinkError::Handshake`] (among others
    /// when the other end has another key), [`LinkError::Refused`], [`LinkError::Closed`].
    pub async fn dial(&self, peer: [u8; 32], address: SocketAddr) -> Result<Link, LinkError> {
        let (reply, answer) = oneshot::channel();
        let dial = Dial { peer: peer_id(&peer)?, address, reply };
        // Twice: once for the connection, once for the stream.
        let answer = tokio::time::timeout(self.timeout * 2, async {
            self.commands.send(dial).await.map_err(|_| LinkError::Closed)?;
            // The handler goes without a word when the other end closes the connection.
            answer.await.unwrap_or(Err(LinkError::Refused))
        });
        answer.await.unwrap_or(Err(LinkError::Timeout))
    }
}

/// Drives the swarm until the endpoint is dropped (which aborts this) or can no longer listen.
async fn run(mut swarm: Swarm<Behaviour>, mut dials: mpsc::Receiver<Dial>) {
    loop {
        tokio::select! {
            dial = dials.recv() => match dial {
                Some(dial) => start_dial(&mut swarm, dial),
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ListenerError { .. } => Counters::add(&swarm.behaviour().counters.accept_errors),
                SwarmEvent::ListenerClosed { .. } => return,
                _ => {}
            },
        }
    }
}

fn start_dial(swarm: &mut Swarm<Behaviour>, dial: Dial) {
    let options = DialOpts::peer_id(dial.peer)
        // Also while another connection to that peer is there: it may be the one that is being replaced.
        .condition(PeerCondition::Always)
        .addresses(vec![multiaddr(dial.address)])
        .allocate_new_port()
        .build();
    let id = options.connection_id();
    // Before the dial, which may fail at once and then looks for whom to tell.
    swarm.behaviour_mut().dials.insert(id, dial.reply);
    if let Err(error) = swarm.dial(options)
        && let Some(reply) = swarm.behaviour_mut().dials.remove(&id)
    {
        let _ = reply.send(Err(dial_error(&error)));
    }
}

/// Finds out what libp2p would hide: it listens with SO_REUSEPORT, so that a second daemon on the same port
/// would start without an error and take half of the connections.
fn probe(wanted: SocketAddr) -> Result<SocketAddr, LinkError> {
    let bound = std::net::TcpListener::bind(wanted).and_then(|socket| socket.local_addr());
    bound.map_err(|error| listen_error(wanted, error))
}

fn listen_error(wanted: SocketAddr, error: io::Error) -> LinkError {
    match root(&error).kind() {
        io::ErrorKind::AddrInUse => LinkError::PortInUse(wanted),
        _ => LinkError::Listen(wanted, error),
    }
}

/// What went wrong, without the addresses that libp2p puts in its texts.
fn dial_error(error: &DialError) -> LinkError {
    let DialError::Transport(errors) = error else {
        return match error {
            DialError::LocalPeerId { .. } | DialError::WrongPeerId { .. } => LinkError::BadKey,
            _ => LinkError::Closed,
        };
    };
    let Some((_, TransportError::Other(error))) = errors.first() else {
        return LinkError::Connect(io::ErrorKind::AddrNotAvailable.into());
    };
    let error = root(error);
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match (tls, error.kind(), error.raw_os_error()) {
        (Some(error), ..) => LinkError::Handshake(error.clone()),
        (None, io::ErrorKind::TimedOut, _) => LinkError::Timeout,
        // Once TCP stood: the other end is full, or closed without an alert.
        (
            None,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe,
            _,
        ) => LinkError::Refused,
        (None, _, Some(code)) => LinkError::Connect(io::Error::from_raw_os_error(code)),
        (None, kind, None) => LinkError::Connect(kind.into()),
    }
}

/// The error within the ones that libp2p wraps around it.
fn root(mut error: &io::Error) -> &io::Error {
    while let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        error = inner;
    }
    error
}

/// Limits, and who waits for which connection.
struct Behaviour {
    max_connections: usize,
    timeout: Duration,
    counters: Arc<Counters>,
    links: mpsc::Sender<Link>,
    /// Bounds those that have not been let in, half open or not.
    room: Arc<Room>,
    /// Our dials, until their connection stands. Bounded by time: each fails or stands within the timeout.
    dials: HashMap<ConnectionId, Reply>,
    /// Connections from others before the handshake's end, bounded by `room`, and from where.
    pending: HashMap<ConnectionId, SocketAddr>,
    /// Connections from others that stand, at most `max_connections` but for those from listed addresses.
    established: HashMap<ConnectionId, (PeerId, Whence)>,
}

impl Behaviour {
    fn refuse(&self, why: &'static str) -> ConnectionDenied {
        Counters::add(&self.counters.refused_connections);
        ConnectionDenied::new(io::Error::other(why))
    }

    fn handler(&self, peer: &PeerId, role: StreamRole) -> Result<Handler, ConnectionDenied> {
        let peer = key_of(peer).ok_or_else(|| ConnectionDenied::new(LinkError::BadKey))?;
        let waiting = Some(Box::pin(tokio::time::sleep(self.timeout)));
        Ok(Handler { peer, role, waiting, counters: self.counters.clone() })
    }

    /// True if no more connections from there may stand. Nobody from elsewhere shuts nodes out.
    fn is_full(&self, whence: Whence) -> bool {
        let elsewhere = || self.established.values().filter(|(_, of)| *of == Whence::Elsewhere);
        whence == Whence::Elsewhere && elsewhere().count() >= self.max_connections
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(from) = socket_address(from) else { return Err(self.refuse("no address")) };
        if self.is_full(self.room.whence(from.ip())) {
            return Err(self.refuse("full"));
        }
        // First in, then room is made: so the newcomer itself may be the one that goes.
        self.pending.insert(id, from);
        if let Some(leaves) = self.room.add(id, from) {
            self.pending.remove(&leaves);
        }
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        let Some(from) = self.pending.remove(&id) else {
            // It was displaced while its handshake lasted, and has been counted.
            return Err(ConnectionDenied::new(io::Error::other("made room")));
        };
        let whence = self.room.whence(from.ip());
        let same = self.established.values().filter(|(other, _)| *other == peer).count();
        if same >= PER_PEER || self.is_full(whence) {
            self.room.remove(id, None);
            return Err(self.refuse("full"));
        }
        let (origin, standing) = (self.room.origin(id), Standing::stranger(&self.room, id));
        let taker = Taker { links: self.links.clone(), origin, standing };
        let handler = self.handler(&peer, StreamRole::Listener(Some(taker)))?;
        self.established.insert(id, (peer, whence));
        Ok(handler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Side,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        let reply =
            self.dials.remove(&id).ok_or_else(|| ConnectionDenied::new(LinkError::Closed))?;
        self.handler(&peer, StreamRole::Dialler(StreamRequest::Due, Some(reply)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
                if self.established.remove(&connection_id).is_some() =>
            {
                self.room.remove(connection_id, None);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, send_back_addr, .. }) => {
                self.room.remove(connection_id, socket_address(send_back_addr));
                if self.pending.remove(&connection_id).is_some() {
                    Counters::add(&self.counters.handshake_failures);
                }
            }
            FromSwarm::DialFailure(DialFailure { connection_id, error, .. }) => {
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(dial_error(error)));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: std::convert::Infallible,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, std::convert::Infallible>> {
        Poll::Pending
    }
}

/// One connection: waits for its one stream, a while, and then lives as long as that.
struct Handler {
    peer: [u8; 32],
    role: StreamRole,
    /// Runs while there is no stream yet; the connection closes when it ends.
    waiting: Option<Pin<Box<Sleep>>>,
    counters: Arc<Counters>,
}

enum StreamRole {
    /// Asks for a stream, and whom to give it to.
    Dialler(StreamRequest, Option<Reply>),
    /// Takes one stream; who gets it.
    Listener(Option<Taker>),
}

struct Taker {
    links: mpsc::Sender<Link>,
    origin: Origin,
    standing: Standing,
}

impl Taker {
    fn give(self, peer: [u8; 32], stream: Stream) -> bool {
        let link = Link::new(peer, stream, self.origin, self.standing);
        self.links.try_send(link).is_ok()
    }
}

enum StreamRequest {
    Due,
    Made,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(FRAMES), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.waiting.is_some()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(timer) = &mut self.waiting
            && timer.as_mut().poll(cx).is_ready()
        {
            self.waiting = None;
        }
        if let StreamRole::Dialler(request @ StreamRequest::Due, _) = &mut self.role {
            *request = StreamRequest::Made;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(FRAMES), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: std::convert::Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                let taker = match &mut self.role {
                    // Taken out, so that a second stream finds nobody and is refused.
                    StreamRole::Listener(taker) => taker.take(),
                    StreamRole::Dialler(..) => None,
                };
                match taker.map(|taker| taker.give(self.peer, stream)) {
                    Some(true) => self.waiting = None,
                    Some(false) | None => Counters::add(&self.counters.refused_streams),
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                self.waiting = None;
                if let StreamRole::Dialler(_, reply) = &mut self.role
                    && let Some(reply) = reply.take()
                {
                    let (origin, standing) = Default::default();
                    let _ = reply.send(Ok(Link::new(self.peer, stream, origin, standing)));
                }
            }
            ConnectionEvent::DialUpgradeError(_) => {
                self.waiting = None;
                if let StreamRole::Dialler(_, reply) = &mut self.role {
                    reply.take(); // Dropped: `dial` takes that for a refusal.
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
