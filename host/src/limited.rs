//! A listener for pages on loopback, with a bound on connections and on the life of each, from which one may be let off.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: sockets and timers.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at a time whose term holds; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// What a connection may last whose term holds.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// The listener of a page, for axum.
pub struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Limited {
    /// Bounds what a listener takes.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Limited {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else {
                // Nobody closes the semaphore.
                return std::future::pending().await;
            };
            if let Ok((stream, address)) = self.listener.accept().await {
                let end = Box::pin(tokio::time::sleep(LIFETIME));
                let term =
                    Arc::new(Term { is_open: false.into(), permit: Mutex::new(Some(permit)) });
                return (Brief { stream, end, term }, address);
            }
            // Out of files, as a rule: try again when some may be free.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How long a connection may last.
pub struct Term {
    is_open: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Term {
    /// Whoever is at the other end has shown that he may stay: the connection lasts as long as it likes, and takes nobody's place.
    pub fn lift(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        if let Ok(mut permit) = self.permit.lock() {
            *permit = None;
        }
    }
}

/// The term of the connection that a request came by.
#[derive(Clone)]
pub struct Terms(pub Arc<Term>);

impl Connected<IncomingStream<'_, Limited>> for Terms {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self(stream.io().term.clone())
    }
}

/// A connection that ends by itself, unless its term is lifted.
pub struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    term: Arc<Term>,
}

impl Brief {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.term.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
