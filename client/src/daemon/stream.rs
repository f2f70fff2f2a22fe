//! A stream of a tunnel, in the hands of another program's tasks.
//!
//! The engine and its streams stay on their thread. Between that thread and the owner of a [`Stream`] lies a pipe of
//! bounded size in each direction, and [`bridge`] joins the pipe to the tunnel's stream.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::io::{DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::hub::{self, TunnelIo};
use crate::tunnel::{CONNECTION_RESET, GIVEN_UP};

/// Bytes that wait in each direction between a program and the engine's thread.
const PIPE: usize = 64 << 10;
/// What a dropped stream was given must leave within this time; else the tunnel's stream is broken off, so that a far end
/// that reads nothing keeps nothing here.
const LINGER: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 60_000 });
/// Bytes that one read takes from either.
const CHUNK: usize = 16 << 10;

/// A connection through the mixnet, or one that came from it: what is read and written travels in packets.
///
/// Reads end with zero bytes when the far end has finished in order, and with
/// [`io::ErrorKind::ConnectionReset`] when it broke off or the tunnel ended. `shutdown` ends the sending half in order,
/// and so does dropping the stream: what was written before still arrives. [`Stream::reset`] breaks off instead, so that
/// the far end does not take a part for the whole.
#[derive(Debug)]
pub struct Stream {
    pipe: DuplexStream,
    ending: Arc<Ending>,
}

/// A connection that came to a service. Who it is from nobody knows.
#[derive(Debug)]
pub struct Incoming {
    /// The port that the other end asked for, for services that tell what they offer by it.
    pub port: u16,
    /// What it says, and what it is answered.
    pub stream: Stream,
}

/// How a stream ends, beside what the pipe itself says.
#[derive(Default, Debug)]
struct Ending {
    /// The far end broke off, or the tunnel ended.
    broken_there: AtomicBool,
    /// The far end reads no more.
    unread_there: AtomicBool,
    /// The owner of the stream broke off.
    broken_here: AtomicBool,
    /// Told when the owner has dropped the stream.
    dropped: Notify,
}

impl Ending {
    /// What a write fails with, if it does.
    fn write_error(&self) -> Option<io::Error> {
        if self.broken_there.load(Ordering::Acquire) {
            return Some(io::ErrorKind::ConnectionReset.into());
        }
        let unread = self.unread_there.load(Ordering::Acquire);
        unread.then(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// The engine's end of a [`Stream`].
pub(super) struct Pipe {
    pipe: DuplexStream,
    ending: Arc<Ending>,
}

/// A stream for a program, and the end of it that [`bridge`] takes.
pub(super) fn pair() -> (Stream, Pipe) {
    let (here, there) = tokio::io::duplex(PIPE);
    let ending = Arc::new(Ending::default());
    (Stream { pipe: here, ending: ending.clone() }, Pipe { pipe: there, ending })
}

impl Stream {
    /// Breaks off: the far end reads what has left already, and then an error.
    pub fn reset(self) {
        self.ending.broken_here.store(true, Ordering::Release);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ending.dropped.notify_one();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        let is_end = has_room && buf.filled().len() == before;
        if is_end && self.ending.broken_there.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.ending.write_error() {
            return Poll::Ready(Err(error));
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, data));
        // The pipe knows only that the other end of it is gone.
        Poll::Ready(written.map_err(|error| self.ending.write_error().unwrap_or(error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// How the direction to the owner ended.
#[derive(PartialEq, Eq)]
enum Down {
    /// The far end finished.
    Finished,
    /// It broke off, or the owner is gone.
    Over,
}

/// Joins a tunnel's stream and the pipe to its owner until both directions have ended, or either end has broken off.
/// `early` came from the tunnel with what preceded.
pub(super) async fn bridge<E: TunnelIo>(stream: &hub::Stream<E>, early: Vec<u8>, pipe: Pipe) {
    let Pipe { pipe, ending } = pipe;
    let (from, to) = tokio::io::split(pipe);
    let mut up = pin!(up(stream, from, &ending));
    let mut down = pin!(down(stream, &early, to, &ending));
    let mut dropped = pin!(ending.dropped.notified());
    tokio::select! {
        () = &mut up => tokio::select! {
            _ = down => {}
            // Nobody is left who would read: what was written still leaves, as the stream ends in order.
            () = dropped => {}
        },
        ended = &mut down => {
            if ended == Down::Finished {
                tokio::select! {
                    () = &mut up => {}
                    () = dropped => { let _ = timeout(LINGER, up).await; }
                }
            }
        }
        () = &mut dropped => { let _ = timeout(LINGER, up).await; }
    }
    if ending.broken_here.load(Ordering::Acquire) {
        stream.tell_of_reset(false).await;
    }
}

/// What the owner writes, to the tunnel. Ends when the owner has finished or dropped the stream.
async fn up<E: TunnelIo>(
    stream: &hub::Stream<E>,
    mut from: ReadHalf<DuplexStream>,
    ending: &Ending,
) {
    let mut buf = vec![0; CHUNK];
    let mut is_read = true;
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        // What the far end does not read is taken from the owner all the same, whose next write then fails.
        if is_read && stream.write(buf.get(..n).unwrap_or_default()).await.is_err() {
            is_read = false;
            ending.unread_there.store(true, Ordering::Release);
        }
    }
    if !ending.broken_here.load(Ordering::Acquire) {
        stream.finish();
    }
}

/// What the tunnel brings, to the owner.
async fn down<E: TunnelIo>(
    stream: &hub::Stream<E>,
    early: &[u8],
    mut to: WriteHalf<DuplexStream>,
    ending: &Ending,
) -> Down {
    let mut buf = vec![0; CHUNK];
    let mut is_open = to.write_all(early).await.is_ok();
    while is_open {
        match stream.read(&mut buf).await {
            // A far end that breaks off says so by this code, and ends its half in order behind what it has sent.
            Ok(0) if stream.stopped() == Some(CONNECTION_RESET) => break,
            Ok(0) => {
                let _ = to.shutdown().await;
                return Down::Finished;
            }
            Ok(n) => is_open = to.write_all(buf.get(..n).unwrap_or_default()).await.is_ok(),
            Err(_) => break,
        }
    }
    if is_open {
        ending.broken_there.store(true, Ordering::Release);
    } else {
        stream.stop(GIVEN_UP);
    }
    Down::Over
}

#[cfg(test)]
mod tests;
