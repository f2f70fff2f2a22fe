//! The client's end: one connection to one service.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ClientConfig, DatagramEvent, Endpoint};
use rand::Rng;
use shoal_topology::{Seed, Time};

use super::end::End;
use super::transport::{self, QuicClock, TunnelRole};
use super::window::{Fixed, Window};
use super::{
    CLIENT_MTU, Read, SERVICE_MTU, StreamId, TunnelError, TunnelEvent, TunnelSettings, Write, tls,
};

/// What a datagram was for a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was opened with the connection's keys, and was not there before.
    Authentic,
    /// The handshake lasts: its keys prove nothing yet.
    Early,
    /// Garbage, another connection's, or one that was there before.
    Nothing,
}

/// Where quinn believes the service to be. It is only compared with itself.
const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 1);

/// A tunnel to one service, whose key is pinned. The client proves nothing: it is a pseudonym.
pub struct Tunnel {
    endpoint: Endpoint,
    end: End,
    scratch: Vec<u8>,
    ignored: u64,
}

impl Tunnel {
    /// Begins a handshake with the service of this Ed25519 key; [`TunnelEvent::Connected`] or
    /// [`TunnelEvent::Closed`] tells how it went. `base` stands for [`Time::ZERO`]. The same seed and calls give
    /// datagrams of the same lengths at the same instants (their bytes differ: TLS draws its own keys).
    pub fn connect(
        base: Instant,
        now: Time,
        seed: &Seed,
        service: [u8; 32],
        settings: &TunnelSettings,
    ) -> Result<Self, TunnelError> {
        transport::check(settings)?;
        let clock = QuicClock(base);
        // A client's slots are the only limit up: a congestion window would leave slots to cover that data could
        // take.
        let window = Window::open();
        let mut config = ClientConfig::new(Arc::new(tls::client(&service)?));
        config.initial_dst_cid_provider(transport::first_ids(seed)).transport_config(
            transport::transport(
                settings,
                TunnelRole::Client,
                CLIENT_MTU,
                Arc::new(Fixed(window.clone())),
            ),
        );
        // From the seed, so that two runs with one seed are equal. A client sends no resets, so nobody learns
        // anything by it.
        let mut reset_secret = [0; 32];
        seed.stream("resets").fill_bytes(&mut reset_secret);
        let mut endpoint = Endpoint::new(
            transport::endpoint(seed, TunnelRole::Client, &reset_secret),
            None,
            false,
            None,
        );
        let (handle, conn) =
            endpoint.connect(clock.instant(now), config, SERVICE, tls::SERVER_NAME)?;
        let end = End::new(conn, handle, clock, now, window, settings);
        Ok(Self { endpoint, end, scratch: Vec::new(), ignored: 0 })
    }

    /// Takes a datagram of the service. Whatever is no datagram of this connection is counted and ignored.
    pub fn handle_datagram(&mut self, now: Time, datagram: &[u8]) -> Heard {
        if !transport::plausible(datagram, SERVICE_MTU) {
            self.ignored += 1;
            return Heard::Nothing;
        }
        // Asked before the datagram is read: the one that ends the handshake is still one of the handshake.
        let proven = self.end.is_proven();
        if self.feed(now, datagram) {
            // What overtook the keys may be readable now. What is still not readable goes back, as long as the
            // handshake lasts.
            for kept in self.end.take_kept() {
                if !self.feed(now, &kept) {
                    self.ignored += u64::from(!self.end.keep(kept));
                }
            }
            return if proven || self.end.may_prove() { Heard::Authentic } else { Heard::Early };
        }
        // It may be sealed under keys that the client does not have yet. So it is no evidence of garbage.
        if self.end.keep(datagram.to_vec()) {
            return Heard::Early;
        }
        self.ignored += 1;
        Heard::Nothing
    }

    /// True if quinn made anything of a datagram.
    fn feed(&mut self, now: Time, datagram: &[u8]) -> bool {
        let at = self.end.instant(now);
        let data = BytesMut::from(datagram);
        self.scratch.clear();
        match self.endpoint.handle(at, SERVICE, None, None, data, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) if handle == self.end.handle() => {
                self.end.on_datagram(&mut self.endpoint, now, event)
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                // Impossible without a server's configuration; left alone it would be kept for ever.
                self.endpoint.ignore(incoming);
                false
            }
            // A client answers no stranger, so stateless resets stay unsent.
            Some(DatagramEvent::ConnectionEvent(..) | DatagramEvent::Response(_)) | None => false,
        }
    }

    /// To be called at [`Self::next_timeout`]; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        self.end.on_timeout(&mut self.endpoint, now);
    }

    /// When to call [`Self::handle_timeout`]. Any other call may change it.
    pub fn next_timeout(&mut self) -> Option<Time> {
        self.end.next_timeout()
    }

    /// Puts the next datagram, of at most [`CLIENT_MTU`] bytes, into `out` in place of what was there; false
    /// when there is none. To be called only when a slot is there for it.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        self.end.transmit(&mut self.endpoint, now, out)
    }

    /// Opens a stream. None before [`TunnelEvent::Connected`], after the end, and while the service grants no
    /// more streams; then [`TunnelEvent::Available`] follows.
    pub fn open(&mut self, now: Time) -> Option<StreamId> {
        let id = self.end.open();
        self.end.settle(&mut self.endpoint, now);
        id
    }

    /// Writes the start of `data`, as much as there is room for.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Write {
        self.end.write(id, data)
    }

    /// Ends the sending half of a stream: the peer reads to its end.
    pub fn finish(&mut self, id: StreamId) {
        self.end.finish(id);
    }

    /// Gives up the sending half of a stream: the peer reads a reset with this code.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        self.end.reset(id, code);
    }

    /// Gives up the receiving half of a stream: the peer gets [`TunnelEvent::Stopped`] with this code.
    /// False when that half has ended already, so that the peer is not told.
    pub fn stop(&mut self, id: StreamId, code: u64) -> bool {
        self.end.stop(id, code)
    }

    /// True if all that was given to streams has been sent and acknowledged.
    pub fn is_quiet(&self) -> bool {
        self.end.is_quiet()
    }

    /// Reads into the start of `buf`. What came before the tunnel closed can still be read.
    pub fn read(&mut self, id: StreamId, buf: &mut [u8]) -> Read {
        self.end.read(id, buf)
    }

    /// Queues a datagram; when the queue is full the oldest go. False when it is longer than
    /// [`Self::max_datagram_len`], or the tunnel is not connected.
    pub fn send_datagram(&mut self, data: Vec<u8>) -> bool {
        self.end.send_datagram(data)
    }

    /// Longest datagram that can be sent, in bytes; 0 before the handshake is done.
    pub fn max_datagram_len(&mut self) -> usize {
        self.end.max_datagram_len()
    }

    /// What happened, in order; to be called until it gives none.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        self.end.poll_event()
    }

    /// True if the handshake is done and the end has not come.
    pub fn is_connected(&self) -> bool {
        self.end.is_connected()
    }

    /// True if the end has come. A last datagram may still wait to be sent, to tell the service.
    pub fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// True if the service owes an answer: what was sent asks for an acknowledgement, and there is none yet.
    pub fn waits(&self) -> bool {
        self.end.waits()
    }

    /// The smoothed round trip; none before the handshake is done.
    pub fn rtt(&self) -> Option<Duration> {
        self.end.rtt()
    }

    /// Ends everything at once, with a code for the service. What is unsent stays unsent. `Closed` follows when
    /// the service has been told, or after a few round trips.
    pub fn close(&mut self, now: Time, code: u64) {
        self.end.close(now, code);
        self.end.settle(&mut self.endpoint, now);
    }

    /// Datagrams that were garbage, or that came too late to matter.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}
