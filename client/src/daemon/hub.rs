//! Streams of tunnels as something that a task can wait on.
//!
//! One engine, one thread, many tasks: each task owns one stream, calls the engine, and sleeps until the driver
//! says that there is something to read or room to write.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::tunnel::{GIVEN_UP, GONE, Read, StreamId, TunnelEvent, Write};

/// Datagrams that wait for one association; the newest is dropped when it is full.
const DATAGRAMS: usize = 64;

/// An engine with tunnels. `P` names a tunnel of it.
pub(super) trait TunnelIo {
    /// What the engine knows a tunnel by.
    type Tunnel: Copy + Eq + Hash;
    fn read(&mut self, stream: Key<Self>, buf: &mut [u8]) -> Read;
    fn write(&mut self, stream: Key<Self>, data: &[u8]) -> Write;
    fn finish(&mut self, stream: Key<Self>);
    fn reset(&mut self, stream: Key<Self>, code: u64);
    /// False when that half has ended already, so that the peer is not told.
    fn stop(&mut self, stream: Key<Self>, code: u64) -> bool;
    /// True if all that was given to a tunnel's streams has been sent and acknowledged.
    fn is_quiet(&mut self, tunnel: Self::Tunnel) -> bool;
    /// Sends a datagram; says whether it fitted.
    fn datagram(&mut self, tunnel: Self::Tunnel, data: Vec<u8>) -> bool;
    /// The task is done with the stream.
    fn closed(&mut self, stream: Key<Self>);
}

/// A stream of a tunnel of an engine.
pub(super) type Key<E> = (<E as TunnelIo>::Tunnel, StreamId);

/// Where the datagrams of an association go: tunnel, index of the stream that opened it.
type Associations<E> = HashMap<(<E as TunnelIo>::Tunnel, u64), mpsc::Sender<Vec<u8>>>;

#[derive(Default)]
struct Wake {
    readable: Notify,
    writable: Notify,
    /// The code with which the peer stopped our sending half.
    stopped: Cell<Option<u64>>,
    /// Told when that is set, or the tunnel ends.
    ending: Notify,
}

/// An engine and those who wait for it.
pub(super) struct StreamDriver<E: TunnelIo> {
    pub(super) engine: RefCell<E>,
    wakes: RefCell<HashMap<Key<E>, Rc<Wake>>>,
    datagrams: RefCell<Associations<E>>,
    /// Datagrams dropped because a queue was full.
    lost_datagrams: Cell<u64>,
    /// Told whenever the engine may have something to send.
    pub(super) wake_engine: Notify,
}

impl<E: TunnelIo> StreamDriver<E> {
    pub(super) fn new(engine: E) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            wakes: RefCell::default(),
            datagrams: RefCell::default(),
            lost_datagrams: Cell::default(),
            wake_engine: Notify::new(),
        })
    }

    /// A task's end of a stream.
    pub(super) fn stream(self: &Rc<Self>, key: Key<E>) -> Stream<E> {
        let wake = Rc::new(Wake::default());
        self.wakes.borrow_mut().insert(key, wake.clone());
        Stream { hub: self.clone(), key, wake, finished: false.into() }
    }

    /// Passes an event on to whoever waits for it. `decode` gives the association of a datagram.
    pub(super) fn dispatch(
        &self,
        tunnel: E::Tunnel,
        event: &TunnelEvent,
        association: impl Fn(&[u8]) -> Option<u64>,
    ) {
        match event {
            TunnelEvent::Readable(id) => {
                if let Some(wake) = self.wakes.borrow().get(&(tunnel, *id)) {
                    wake.readable.notify_one();
                }
            }
            TunnelEvent::Writable(id) => {
                if let Some(wake) = self.wakes.borrow().get(&(tunnel, *id)) {
                    wake.writable.notify_one();
                }
            }
            TunnelEvent::Stopped(id, code) => {
                if let Some(wake) = self.wakes.borrow().get(&(tunnel, *id)) {
                    wake.stopped.set(Some(*code));
                    wake.writable.notify_one();
                    wake.ending.notify_one();
                }
            }
            TunnelEvent::Datagram(data) => {
                let datagrams = self.datagrams.borrow();
                if let Some(to) = association(data).and_then(|id| datagrams.get(&(tunnel, id)))
                    && to.try_send(data.clone()).is_err()
                {
                    self.lose_datagram();
                }
            }
            TunnelEvent::Closed(_) => self.wake_all(tunnel),
            _ => {}
        }
    }

    fn lose_datagram(&self) {
        self.lost_datagrams.set(self.lost_datagrams.get() + 1);
    }

    /// Datagrams dropped because a queue was full.
    pub(super) fn lost_datagrams(&self) -> u64 {
        self.lost_datagrams.get()
    }

    /// Wakes all streams of a tunnel: it has ended.
    pub(super) fn wake_all(&self, tunnel: E::Tunnel) {
        for ((of, _), wake) in self.wakes.borrow().iter() {
            if *of == tunnel {
                wake.stopped.set(Some(GONE));
                wake.readable.notify_one();
                wake.writable.notify_one();
                wake.ending.notify_one();
            }
        }
    }
}

/// One stream. Dropped before its end, it gives up what has not ended.
pub(super) struct Stream<E: TunnelIo> {
    hub: Rc<StreamDriver<E>>,
    key: Key<E>,
    wake: Rc<Wake>,
    /// The end has been written: what is still under way must arrive, so a reset must not overtake it.
    finished: Cell<bool>,
}

impl<E: TunnelIo> Stream<E> {
    /// Whose stream it is.
    pub(super) fn tunnel(&self) -> E::Tunnel {
        self.key.0
    }

    /// Which stream of its tunnel it is.
    pub(super) fn index(&self) -> u64 {
        self.key.1.index()
    }

    /// Reads; zero at the end.
    ///
    /// # Errors
    /// The code with which the peer gave up.
    pub(super) async fn read(&self, buf: &mut [u8]) -> Result<usize, u64> {
        loop {
            let read = self.hub.engine.borrow_mut().read(self.key, buf);
            match read {
                Read::Data(n) => {
                    // Reading opens the peer's window, and that wants to be told.
                    self.hub.wake_engine.notify_one();
                    return Ok(n);
                }
                Read::Blocked => self.wake.readable.notified().await,
                Read::Finished => return Ok(0),
                Read::Reset(code) => return Err(code),
            }
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// The code with which the peer stopped us.
    pub(super) async fn write(&self, mut data: &[u8]) -> Result<(), u64> {
        while !data.is_empty() {
            let written = self.hub.engine.borrow_mut().write(self.key, data);
            match written {
                Write::Written(n) => {
                    self.hub.wake_engine.notify_one();
                    data = data.get(n..).unwrap_or_default();
                }
                Write::Blocked => self.wake.writable.notified().await,
                Write::Stopped(code) => return Err(code),
            }
        }
        Ok(())
    }

    /// No more will be written.
    pub(super) fn finish(&self) {
        self.finished.set(true);
        self.hub.engine.borrow_mut().finish(self.key);
        self.hub.wake_engine.notify_one();
    }

    /// Gives up writing, unless the end has been written.
    pub(super) fn reset(&self) {
        if self.finished.get() {
            return;
        }
        self.hub.engine.borrow_mut().reset(self.key, GIVEN_UP);
        self.hub.wake_engine.notify_one();
    }

    /// Gives up reading; false when that half has ended already, so that the peer is not told.
    pub(super) fn stop(&self, code: u64) -> bool {
        let told = self.hub.engine.borrow_mut().stop(self.key, code);
        self.hub.wake_engine.notify_one();
        told
    }

    /// The code with which the peer stopped our sending half, [`GONE`] if the tunnel has ended.
    pub(super) fn stopped(&self) -> Option<u64> {
        self.wake.stopped.get()
    }

    /// Waits until the peer stops our sending half with this code, or the tunnel ends.
    pub(super) async fn stopped_by(&self, code: u64) {
        while !self.stopped().is_some_and(|by| by == code || by == GONE) {
            self.wake.ending.notified().await;
        }
    }

    /// True if all that was given to the tunnel's streams has been sent and acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        self.hub.engine.borrow_mut().is_quiet(self.key.0)
    }

    /// Sends a datagram beside the stream; says whether it fitted.
    pub(super) fn send_datagram(&self, data: Vec<u8>) -> bool {
        let sent = self.hub.engine.borrow_mut().datagram(self.key.0, data);
        self.hub.wake_engine.notify_one();
        sent
    }

    /// Counts a datagram that found a queue full.
    pub(super) fn lose_datagram(&self) {
        self.hub.lose_datagram();
    }

    /// Datagrams of the association that this stream opened.
    pub(super) fn datagrams(&self) -> mpsc::Receiver<Vec<u8>> {
        let (to, from) = mpsc::channel(DATAGRAMS);
        self.hub.datagrams.borrow_mut().insert((self.key.0, self.index()), to);
        from
    }

    /// Reads until `decode` finds a whole message, and keeps what follows it.
    ///
    /// # Errors
    /// The stream ended before, or `decode` refused.
    pub(super) async fn message<T, F>(&self, rest: &mut Vec<u8>, decode: F) -> Result<T, u64>
    where
        F: Fn(&[u8]) -> Result<Option<(T, usize)>, crate::request::DecodeError>,
    {
        loop {
            match decode(rest) {
                Ok(Some((message, used))) => {
                    rest.drain(..used.min(rest.len()));
                    return Ok(message);
                }
                Ok(None) => {}
                Err(_) => return Err(GONE),
            }
            let mut buf = [0; 2048];
            match self.read(&mut buf).await? {
                0 => return Err(GONE),
                n => rest.extend_from_slice(buf.get(..n).unwrap_or_default()),
            }
        }
    }
}

impl<E: TunnelIo> Drop for Stream<E> {
    fn drop(&mut self) {
        let mut engine = self.hub.engine.borrow_mut();
        if !self.finished.get() {
            engine.reset(self.key, GIVEN_UP);
        }
        engine.stop(self.key, GIVEN_UP);
        engine.closed(self.key);
        drop(engine);
        self.hub.wakes.borrow_mut().remove(&self.key);
        self.hub.datagrams.borrow_mut().remove(&(self.key.0, self.index()));
        self.hub.wake_engine.notify_one();
    }
}

/// Reads from a connection that has nothing more to say, for a moment: closing at once would reset it, and the
/// peer might never see the last reply.
pub(super) async fn drain(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let mut buf = [0; 1024];
    let read_all = async { while matches!(tcp.read(&mut buf).await, Ok(n) if n > 0) {} };
    let _ = timeout(Duration::from_secs(1), read_all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl TunnelIo for Nothing {
        type Tunnel = u8;
        fn read(&mut self, _: Key<Self>, _: &mut [u8]) -> Read {
            Read::Blocked
        }
        fn write(&mut self, _: Key<Self>, _: &[u8]) -> Write {
            Write::Blocked
        }
        fn finish(&mut self, _: Key<Self>) {}
        fn reset(&mut self, _: Key<Self>, _: u64) {}
        fn stop(&mut self, _: Key<Self>, _: u64) -> bool {
            true
        }
        fn is_quiet(&mut self, _: u8) -> bool {
            true
        }
        fn datagram(&mut self, _: u8, _: Vec<u8>) -> bool {
            false
        }
        fn closed(&mut self, _: Key<Self>) {}
    }

    #[test]
    fn datagrams_that_nobody_takes_are_dropped_and_counted() {
        let hub = StreamDriver::new(Nothing);
        let stream = hub.stream((1, StreamId::of(4)));
        let (mut waiting, index) = (stream.datagrams(), stream.index());
        for n in 0..100_u8 {
            hub.dispatch(1, &TunnelEvent::Datagram(vec![n]), |_| Some(index));
        }
        assert_eq!(hub.lost_datagrams(), 100 - DATAGRAMS as u64);
        let taken: Vec<u8> = std::iter::from_fn(|| waiting.try_recv().ok()).flatten().collect();
        assert_eq!(taken, (0..DATAGRAMS as u8).collect::<Vec<_>>(), "the newest were dropped");
        // Nor do they pile up for who has gone.
        drop((stream, waiting));
        hub.dispatch(1, &TunnelEvent::Datagram(vec![0]), |_| Some(index));
        assert_eq!(hub.lost_datagrams(), 100 - DATAGRAMS as u64);
        assert!(hub.datagrams.borrow().is_empty());
    }
}
