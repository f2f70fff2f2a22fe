//! From a TCP connection to a multiplexed one whose other end is known: TLS, and Yamux in it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter};
use futures::ready;
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{PeerId, tcp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::sync::oneshot;

use super::room::{Opening, Room};
use super::{
    DEAD_AFTER, Identity, STREAMS, WINDOW, WRITE_BUFFER, YAMUX_FRAME, key_of, peer_id,
    socket_address,
};

pub(super) struct Security {
    pub(super) identity: Identity,
    pub(super) server: TlsAcceptor,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) room: Arc<Room>,
    pub(super) tls_timeout: Duration,
}

/// From a TCP connection to a multiplexed one whose other end is known.
pub(super) async fn secure(
    tcp: tcp::tokio::TcpStream,
    point: ConnectedPoint,
    security: Arc<Security>,
) -> io::Result<(PeerId, StreamMuxerBox)> {
    watch(&tcp)?;
    let mut lost = None;
    let (tls, mode) = match point {
        ConnectedPoint::Dialer { address, .. } => {
            let tcp = BufWriter::with_capacity(WRITE_BUFFER, tcp);
            let peer = match address.iter().last() {
                Some(Protocol::P2p(peer)) => key_of(&peer),
                _ => None,
            };
            let peer = peer.ok_or_else(|| io::Error::other("dialled without a key"))?;
            let config = crate::tls::client(&security.identity, peer, security.provider.clone());
            // TLS wants a name; it is neither sent nor looked at.
            let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
            let connect = TlsConnector::from(config.map_err(io::Error::other)?).connect(name, tcp);
            let tls = match connect.into_fallible().await {
                Ok(tls) => tls,
                Err((error, tcp)) => return Err(give_up(error, tcp).await),
            };
            (TlsStream::Client(tls), yamux::Mode::Client)
        }
        ConnectedPoint::Listener { send_back_addr, .. } => {
            let from = socket_address(&send_back_addr);
            let opening = from.and_then(|from| security.room.opening(from));
            // It had to make room before this began.
            let opening = opening.ok_or(io::ErrorKind::ConnectionAborted)?;
            let (tls, end) = admit(tcp, opening, &security).await?;
            lost = Some(end);
            (TlsStream::Server(tls), yamux::Mode::Server)
        }
    };
    let peer = crate::tls::finished(tls.get_ref().1).map_err(io::Error::other)?;
    let peer = peer_id(&peer).map_err(io::Error::other)?;

    let connection = yamux::Connection::new(tls, multiplexing(), mode);
    Ok((peer, StreamMuxerBox::new(Mux::new(connection, lost))))
}

/// TLS with who has connected, within its time, and unless it has to make room for others.
async fn admit(
    tcp: tcp::tokio::TcpStream,
    opening: Opening,
    security: &Security,
) -> io::Result<(
    futures_rustls::server::TlsStream<BufWriter<tcp::tokio::TcpStream>>,
    oneshot::Receiver<()>,
)> {
    let Opening { id, mut lost } = opening;
    let handshake = async {
        tcp.0.readable().await?;
        security.room.heard(id);
        let tcp = BufWriter::with_capacity(WRITE_BUFFER, tcp);
        match security.server.accept(tcp).into_fallible().await {
            Ok(tls) => Ok(tls),
            Err((error, tcp)) => Err(give_up(error, tcp).await),
        }
    };
    let tls = tokio::select! {
        tls = tokio::time::timeout(security.tls_timeout, handshake) => {
            tls.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        }
        _ = &mut lost => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    Ok((tls, lost))
}

/// What the other end may open and have in flight.
pub(super) fn multiplexing() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS);
    config.set_max_connection_receive_window(Some(WINDOW));
    config.set_split_send_size(YAMUX_FRAME);
    config
}

/// Sends the alert that rustls has left in the buffer, so that the other end learns why.
async fn give_up(error: io::Error, mut tcp: BufWriter<tcp::tokio::TcpStream>) -> io::Error {
    let _ = tcp.flush().await;
    error
}

/// Lets the kernel find out that the other end is gone.
fn watch(tcp: &tcp::tokio::TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(&tcp.0, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(&tcp.0, DEAD_AFTER / 2)?;
        sockopt::set_tcp_keepintvl(&tcp.0, DEAD_AFTER / 6)?;
        sockopt::set_tcp_keepcnt(&tcp.0, 4)?;
        sockopt::set_tcp_user_timeout(
            &tcp.0,
            u32::try_from(DEAD_AFTER.as_millis()).unwrap_or(u32::MAX),
        )?;
    }
    Ok(())
}

/// Yamux, as libp2p wants it. Holds at most one stream that nobody has asked for yet; others are reset.
struct Mux<C> {
    connection: yamux::Connection<C>,
    waiting: Option<yamux::Stream>,
    waker: Option<Waker>,
    /// Ends when the connection has to, whatever is under way.
    lost: Option<oneshot::Receiver<()>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Mux<C> {
    fn new(connection: yamux::Connection<C>, lost: Option<oneshot::Receiver<()>>) -> Self {
        Self { connection, waiting: None, waker: None, lost }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<yamux::Stream, yamux::ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(next.unwrap_or(Err(yamux::ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Mux<C> {
    type Substream = yamux::Stream;
    type Error = yamux::ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        if let Some(stream) = self.waiting.take() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        if let Some(lost) = &mut self.lost
            && Pin::new(lost).poll(cx).is_ready()
        {
            self.lost = None;
            return Poll::Ready(Err(yamux::ConnectionError::Closed));
        }
        let stream = ready!(self.poll_next(cx))?;
        if self.waiting.is_none() {
            self.waiting = Some(stream);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
