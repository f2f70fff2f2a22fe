//! A TCP connection joined to a stream of a tunnel: whatever happens to one end happens to the other.
//!
//! An orderly end of a direction is passed on as one, and so is a reset: an end in its place would make a cut download
//! pass for a whole one. What was read before the reset is delivered first. QUIC's own reset throws away what is under
//! way, so it is not used for that: the far end is told by the code with which our receiving half stops
//! ([`CONNECTION_RESET`]), then our sending half ends in order, and the far end, having read it, resets its connection.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::hub::{Stream, TunnelIo};
use crate::tunnel::CONNECTION_RESET;

/// Bytes that one read takes from a socket or a stream.
const CHUNK: usize = 16 << 10;
/// A connection on which nothing was heard for so long is asked whether it is there, so often, so many times: it may stay
/// silent and half open for as long as it likes, but not when its host, or the program, has gone.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
/// The end of our sending half must not overtake the word that it is a reset. What is lost on the way is sent again sooner
/// than this; the wait is over earlier when nothing of the tunnel is under way.
const TELLING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// How the two ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// Both directions, in order.
    InOrder,
    /// The connection broke.
    Here,
    /// The far end gave up, or its connection broke, or the tunnel ended.
    There,
}

impl<E: TunnelIo> Stream<E> {
    /// Joins a TCP connection and this stream until both directions have ended. `early` came from the stream with
    /// what preceded, `leftover` from the connection.
    pub(super) async fn relay(&self, connection: Connection, early: Vec<u8>, leftover: Vec<u8>) {
        let Connection { tcp, is_reset } = connection;
        let _ = tcp.set_nodelay(true);
        let _ = keep_alive(&tcp);
        let told = Cell::new(false);
        match self.join((&tcp, is_reset), (&early, &leftover), &told).await {
            Ended::InOrder => {}
            Ended::Here => self.tell_of_reset(told.get()).await,
            // Dropped with a linger of zero, a socket sends a reset.
            Ended::There => _ = tcp.set_zero_linger(),
        }
    }

    /// `told` becomes true when the far end is told of a reset.
    async fn join(
        &self,
        (tcp, is_reset): (&TcpStream, bool),
        (early, leftover): (&[u8], &[u8]),
        told: &Cell<bool>,
    ) -> Ended {
        // A socket reports an error once, and after that an orderly end.
        let is_broken = Cell::new(is_reset);
        let up_ended = Notify::new();
        let up = async {
            let mut buf = vec![0; CHUNK];
            let mut open = self.write(leftover).await.is_ok();
            while open {
                match receive(tcp, &mut buf).await {
                    Ok(0) if !is_broken.get() => {
                        self.finish();
                        break;
                    }
                    Ok(n) if n > 0 => {
                        open = self.write(buf.get(..n).unwrap_or_default()).await.is_ok();
                    }
                    Ok(_) | Err(_) => {
                        is_broken.set(true);
                        return;
                    }
                }
            }
            up_ended.notify_one();
            // Nothing is read any more: an error shows in another way.
            broken(tcp).await;
            is_broken.set(true);
        };
        let down = async {
            let mut buf = vec![0; CHUNK];
            let mut data = send_all(tcp, early).await;
            while data.is_ok() {
                match self.read(&mut buf).await {
                    Ok(0) if self.stopped() == Some(CONNECTION_RESET) => return Ended::There,
                    Ok(0) => {
                        let _ = rustix::net::shutdown(tcp, rustix::net::Shutdown::Write);
                        return Ended::InOrder;
                    }
                    Ok(n) => data = send_all(tcp, buf.get(..n).unwrap_or_default()).await,
                    Err(_) => return Ended::There,
                }
            }
            // What the connection said before it broke can still be read from it.
            is_broken.set(true);
            told.set(self.stop(CONNECTION_RESET));
            Ended::Here
        };
        let mut up = std::pin::pin!(up);
        let mut down = std::pin::pin!(down);
        tokio::select! {
            () = &mut up => Ended::Here,
            end = &mut down => match end {
                Ended::There => Ended::There,
                Ended::Here => {
                    up.await;
                    Ended::Here
                }
                Ended::InOrder => tokio::select! {
                    () = up_ended.notified() => Ended::InOrder,
                    () = &mut up => Ended::Here,
                    () = self.stopped_by(CONNECTION_RESET) => Ended::There,
                },
            },
        }
    }

    /// The connection broke: the far end shall break its own, once it has all that came before.
    pub(super) async fn tell_of_reset(&self, told: bool) {
        let told = told || self.stop(CONNECTION_RESET);
        let quiet = async {
            while !self.is_quiet() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(TELLING, quiet).await;
        if told {
            self.finish();
        } else {
            // The far end had ended its side already: nothing but QUIC's own reset is left to tell it.
            self.reset();
        }
    }
}

/// Reads what is there; zero at an orderly end.
async fn receive(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        tcp.readable().await?;
        match tcp.try_read(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn send_all(tcp: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        tcp.writable().await?;
        match tcp.try_write(data) {
            Ok(n) => data = data.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns when the connection has broken.
async fn broken(tcp: &TcpStream) {
    loop {
        let ready = tcp.ready(Interest::ERROR).await;
        if ready.is_err() || !matches!(tcp.take_error(), Ok(None)) {
            return;
        }
        // Woken for nothing.
        sleep(LOOK).await;
    }
}

/// Lets the system find out whether the other end is still there.
fn keep_alive(tcp: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(tcp, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(tcp, PROBES)
}
