use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;
use crate::daemon::hub::{Key, StreamDriver};
use crate::tunnel::{Read, StreamId, TunnelEvent, Write};

/// A tunnel with one stream: what comes is set by the test, and what goes is kept.
#[derive(Default)]
struct Tunnel {
    comes: VecDeque<Read>,
    data: VecDeque<Vec<u8>>,
    went: Vec<u8>,
    /// The far end reads no more, by this code.
    stops: Option<u64>,
    /// The far end's window is full, and stays so.
    blocks: bool,
    finished: bool,
    was_reset: bool,
    stopped: Vec<u64>,
    closed: bool,
}

impl TunnelIo for Tunnel {
    type Tunnel = u8;

    fn read(&mut self, _: Key<Self>, buf: &mut [u8]) -> Read {
        match self.comes.pop_front() {
            Some(Read::Data(_)) => {
                let data = self.data.pop_front().unwrap();
                buf[..data.len()].copy_from_slice(&data);
                Read::Data(data.len())
            }
            Some(other) => other,
            None => Read::Blocked,
        }
    }

    fn write(&mut self, _: Key<Self>, data: &[u8]) -> Write {
        if let Some(code) = self.stops {
            return Write::Stopped(code);
        }
        if self.blocks {
            return Write::Blocked;
        }
        self.went.extend(data);
        Write::Written(data.len())
    }

    fn finish(&mut self, _: Key<Self>) {
        self.finished = true;
    }

    fn reset(&mut self, _: Key<Self>, _: u64) {
        self.was_reset = true;
    }

    fn stop(&mut self, _: Key<Self>, code: u64) -> bool {
        self.stopped.push(code);
        true
    }

    fn is_quiet(&mut self, _: u8) -> bool {
        true
    }

    fn datagram(&mut self, _: u8, _: Vec<u8>) -> bool {
        false
    }

    fn closed(&mut self, _: Key<Self>) {
        self.closed = true;
    }
}

fn id() -> StreamId {
    StreamId::of(0)
}

struct Joined {
    hub: Rc<StreamDriver<Tunnel>>,
    stream: Stream,
    bridge: JoinHandle<()>,
}

/// A stream in a program's hands, joined to a tunnel; to be called in a local set.
fn joined(early: &[u8]) -> Joined {
    let hub = StreamDriver::new(Tunnel::default());
    let (stream, pipe) = pair();
    let (far, early) = (hub.stream((1, id())), early.to_vec());
    let bridge = spawn_local(async move { bridge(&far, early, pipe).await });
    Joined { hub, stream, bridge }
}

impl Joined {
    /// This comes from the far end.
    fn comes(&self, data: &[u8]) {
        let mut tunnel = self.hub.engine.borrow_mut();
        tunnel.data.push_back(data.to_vec());
        tunnel.comes.push_back(Read::Data(data.len()));
        drop(tunnel);
        self.hub.dispatch(1, &TunnelEvent::Readable(id()), |_| None);
    }

    fn ends(&self, how: Read) {
        self.hub.engine.borrow_mut().comes.push_back(how);
        self.hub.dispatch(1, &TunnelEvent::Readable(id()), |_| None);
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it ends")
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn both_directions_end_in_order_and_nothing_is_lost() {
    run(async || {
        let mut joined = joined(b"early ");
        joined.comes(b"late");
        joined.stream.write_all(&[7; 200_000]).await.unwrap();
        joined.stream.shutdown().await.unwrap();
        joined.ends(Read::Finished);
        let mut read = Vec::new();
        soon(joined.stream.read_to_end(&mut read)).await.unwrap();
        assert_eq!(read, b"early late");
        soon(joined.bridge).await.unwrap();
        let tunnel = joined.hub.engine.borrow();
        assert_eq!(tunnel.went, [7; 200_000]);
        assert!(tunnel.finished && !tunnel.was_reset && tunnel.closed);
    });
}

#[test]
fn a_far_end_that_breaks_off_is_no_end_of_what_was_read() {
    // By QUIC's own reset, or by the code that a relay of TCP uses.
    for by_code in [false, true] {
        run(async || {
            let mut joined = joined(b"");
            joined.comes(b"half");
            if by_code {
                joined.hub.dispatch(1, &TunnelEvent::Stopped(id(), CONNECTION_RESET), |_| None);
                joined.ends(Read::Finished);
            } else {
                joined.ends(Read::Reset(GIVEN_UP));
            }
            let mut read = Vec::new();
            let error = soon(joined.stream.read_to_end(&mut read)).await.unwrap_err();
            assert_eq!(
                (read.as_slice(), error.kind()),
                (&b"half"[..], io::ErrorKind::ConnectionReset)
            );
            let error = soon(joined.stream.write_all(b"more")).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            soon(joined.bridge).await.unwrap();
            assert!(joined.hub.engine.borrow().closed);
        });
    }
}

#[test]
fn a_dropped_stream_says_what_it_was_given_and_leaves_nothing_behind() {
    run(async || {
        let Joined { hub, mut stream, bridge } = joined(b"");
        stream.write_all(b"the last words").await.unwrap();
        drop(stream);
        // The far end never ends its half.
        soon(bridge).await.unwrap();
        let tunnel = hub.engine.borrow();
        assert_eq!(tunnel.went, b"the last words");
        assert!(tunnel.finished && !tunnel.was_reset && tunnel.closed);
    });
}

#[test]
fn a_dropped_stream_does_not_wait_for_ever_for_a_far_end_that_reads_nothing() {
    run(async || {
        let Joined { hub, mut stream, bridge } = joined(b"");
        hub.engine.borrow_mut().blocks = true;
        stream.write_all(b"nobody reads this").await.unwrap();
        drop(stream);
        soon(bridge).await.unwrap();
        let tunnel = hub.engine.borrow();
        assert!(!tunnel.finished && tunnel.was_reset && tunnel.closed);
    });
}

#[test]
fn who_breaks_off_tells_the_far_end_so() {
    run(async || {
        let Joined { hub, mut stream, bridge } = joined(b"");
        stream.write_all(b"half of").await.unwrap();
        stream.reset();
        soon(bridge).await.unwrap();
        let tunnel = hub.engine.borrow();
        assert_eq!(
            (tunnel.went.as_slice(), tunnel.stopped[0]),
            (&b"half of"[..], CONNECTION_RESET)
        );
    });
}

#[test]
fn a_far_end_that_reads_no_more_fails_writes_and_is_still_read() {
    run(async || {
        let mut joined = joined(b"");
        joined.hub.engine.borrow_mut().stops = Some(GIVEN_UP);
        let write = async {
            loop {
                if let Err(error) = joined.stream.write_all(&[1; 4096]).await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(soon(write).await.kind(), io::ErrorKind::BrokenPipe);
        joined.comes(b"an answer");
        joined.ends(Read::Finished);
        let mut read = Vec::new();
        soon(joined.stream.read_to_end(&mut read)).await.unwrap();
        assert_eq!(read, b"an answer");
    });
}
