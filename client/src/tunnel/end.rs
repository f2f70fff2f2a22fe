//! One connection, as both ends have it: quinn's state, the watchdog, and the events that wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{
    ApplicationClose, Connection, ConnectionClose, ConnectionError, ConnectionEvent,
    ConnectionHandle, Dir, Endpoint, Event, FrameStats, ReadError, SendDatagramError, Side,
    StreamEvent, TransportErrorCode, VarInt, WriteError,
};
use shoal_topology::Time;

use super::events::Events;
use super::transport::QuicClock;
use super::watchdog::Watchdog;
use super::window::Window;
use super::{CloseReason, GONE, Read, StreamId, TunnelEvent, TunnelSettings, Write};

/// Datagrams that are kept because they overtook what makes them readable.
const MAX_EARLY: usize = 16;

/// How often the watchdog repeats one datagram. Later questions are too far apart to be worth another SURB.
const MAX_TAILS: u32 = 8;

/// Datagrams of a handshake that count as the service's: an honest one takes four or five.
const MAX_PROVING: u32 = 8;

/// How far the end of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CloseState {
    /// The connection lives.
    No,
    /// It is over, and the peer is still to be told; then [`TunnelEvent::Closed`] is due.
    Telling(CloseReason),
    /// `Closed` is queued or taken.
    Told,
}

/// One connection with what goes beside it.
pub(super) struct End {
    /// The state of QUIC.
    conn: Connection,
    /// What quinn's endpoint knows the connection by.
    handle: ConnectionHandle,
    /// From our time to quinn's and back.
    clock: QuicClock,
    /// The congestion window, which the controller inside of `conn` reads.
    window: Arc<Window>,
    /// What `window` counted as acknowledged when it was last looked at.
    acknowledged: u64,
    /// Asks for a sign of life when acknowledgements stay away.
    watchdog: Watchdog,
    /// The last datagram that asks for more than an acknowledgement: when the watchdog asks, it goes once more.
    /// QUIC itself would send its content again after a probe timeout, which each question of the watchdog puts off.
    tail: Vec<u8>,
    /// The watchdog asked: the tail goes again with the next datagram that QUIC does not fill.
    send_tail: bool,
    /// How many times more it may go.
    tails_left: u32,
    /// Events that were not taken yet.
    events: Events,
    /// Something may wait to be sent.
    has_unsent: bool,
    /// There may be QUIC datagrams to take.
    datagrams: bool,
    /// The handshake is done. It stays so when the connection ends.
    connected: bool,
    /// How far the end has come.
    ending: CloseState,
    /// When something authentic came last; at first, when the connection began.
    heard: Time,
    /// See [`Self::keep`]. When it is full the newest goes.
    early: Vec<Vec<u8>>,
    /// How many datagrams more may count before the handshake is done.
    proving_left: u32,
}

impl End {
    pub(super) fn new(
        conn: Connection,
        handle: ConnectionHandle,
        clock: QuicClock,
        now: Time,
        window: Arc<Window>,
        settings: &TunnelSettings,
    ) -> Self {
        Self {
            conn,
            handle,
            clock,
            window,
            acknowledged: 0,
            watchdog: Watchdog::new(settings.watchdog),
            tail: Vec::new(),
            send_tail: false,
            tails_left: 0,
            events: Events::default(),
            has_unsent: true,
            datagrams: false,
            connected: false,
            ending: CloseState::No,
            heard: now,
            early: Vec::new(),
            proving_left: MAX_PROVING,
        }
    }

    /// Takes what the endpoint made of a datagram; false when there was nothing authentic and new in it.
    pub(super) fn on_datagram(
        &mut self,
        endpoint: &mut Endpoint,
        now: Time,
        event: ConnectionEvent,
    ) -> bool {
        self.has_unsent = true;
        // quinn does not say whether a datagram could be opened. Only one that could raises the counts of frames, and
        // one that came before raises none.
        let before = frames(&self.conn.stats().frame_rx);
        self.conn.handle_event(event);
        let useful = frames(&self.conn.stats().frame_rx) != before;
        if useful {
            self.heard = now;
            self.watchdog.on_heard(now, self.conn.min_rtt());
        }
        self.settle(endpoint, now);
        useful
    }

    /// Keeps a datagram that could not be read while the handshake lasts: it may have overtaken the keys for it,
    /// which happens often here, and QUIC would send it again only after a probe timeout. False when it is
    /// garbage for good.
    pub(super) fn keep(&mut self, datagram: Vec<u8>) -> bool {
        let keep = self.conn.is_handshaking() && self.early.len() < MAX_EARLY;
        if keep {
            self.early.push(datagram);
        }
        keep
    }

    /// True if the service has proven its key: what opens from then on is its.
    pub(super) fn is_proven(&self) -> bool {
        self.connected
    }

    /// Counts a datagram of the handshake. Its first packets are sealed with keys that follow from what goes over the
    /// wire, so only a few may pass for the service's.
    pub(super) fn may_prove(&mut self) -> bool {
        let may = self.proving_left > 0;
        self.proving_left = self.proving_left.saturating_sub(1);
        may
    }

    /// What was kept, to be tried again after each datagram that could be read.
    pub(super) fn take_kept(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.early)
    }

    pub(super) fn on_timeout(&mut self, endpoint: &mut Endpoint, now: Time) {
        // In the handshake QUIC's own probes repeat what the peer lacks (RFC 9002, section 6.2.4).
        if self.watchdog.bark(now, self.conn.min_rtt()) && !self.conn.is_handshaking() {
            self.conn.ping();
            // A ping in a full window would wait behind the data that it asks about.
            self.window.lift();
            self.send_tail = self.tails_left > 0;
        }
        self.has_unsent = true;
        self.conn.handle_timeout(self.clock.instant(now));
        self.settle(endpoint, now);
    }

    /// When [`Self::on_timeout`] wants to be called.
    pub(super) fn next_timeout(&mut self) -> Option<Time> {
        let quic = self.conn.poll_timeout().map(|instant| self.clock.time(instant));
        match (quic, self.watchdog.due()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// True if anything that asks for an acknowledgement has none.
    pub(super) fn waits(&self) -> bool {
        self.watchdog.due().is_some()
    }

    /// Puts the next datagram into `out`, which holds nothing else then; false when there is none.
    pub(super) fn transmit(
        &mut self,
        endpoint: &mut Endpoint,
        now: Time,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        // Who has closed needs no answer, and may have thrown away what would carry it.
        if self.ending == CloseState::Told {
            return false;
        }
        let before = self.conn.stats().frame_tx;
        // What is asked for while this datagram is made asks for another one.
        self.has_unsent = false;
        let sent = self.conn.poll_transmit(self.clock.instant(now), 1, out).is_some();
        if sent {
            self.has_unsent = true;
            let after = self.conn.stats().frame_tx;
            // Only what must be acknowledged starts the watchdog: an acknowledgement of an acknowledgement never
            // comes.
            if demanding(&after) != demanding(&before) {
                self.window.lower();
                self.watchdog.on_sent(now, self.conn.min_rtt());
            }
            // A datagram with a ping alone carries nothing that could be lost, so it is no tail.
            if demanding(&after) - after.ping != demanding(&before) - before.ping {
                self.tail.clone_from(out);
                self.tails_left = MAX_TAILS;
            }
            if let CloseState::Telling(reason) = self.ending {
                self.tell(reason);
            }
        }
        self.settle(endpoint, now);
        // The same bytes again: QUIC at the other end takes what came before for a duplicate, so that this does no
        // harm where the first one arrived.
        if !sent && self.ending == CloseState::No && std::mem::take(&mut self.send_tail) {
            self.tails_left -= 1;
            out.extend_from_slice(&self.tail);
            return true;
        }
        sent
    }

    fn forget_tail(&mut self) {
        self.tail.clear();
        (self.send_tail, self.tails_left) = (false, 0);
    }

    /// To be called after everything that may change the connection.
    pub(super) fn settle(&mut self, endpoint: &mut Endpoint, now: Time) {
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(answer) = endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(answer);
            }
        }
        while let Some(event) = self.conn.poll() {
            self.on_event(event);
        }
        let acknowledged = self.window.acknowledged();
        if acknowledged != self.acknowledged {
            self.acknowledged = acknowledged;
            // With nothing in flight nothing can be lost, and each further question would cost the peer a SURB or a
            // slot.
            if self.window.in_flight() {
                self.watchdog.on_progress(now, self.conn.min_rtt());
            } else {
                self.watchdog.stop();
                self.forget_tail();
            }
        }
        if self.conn.is_closed() {
            self.watchdog.stop();
            self.forget_tail();
        }
        if let CloseState::Telling(reason) = self.ending
            && self.conn.is_drained()
        {
            self.tell(reason);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.events.push(TunnelEvent::Connected);
            }
            Event::ConnectionLost { reason } => self.on_lost(&reason),
            Event::DatagramReceived => self.datagrams = true,
            Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            Event::Stream(StreamEvent::Opened { .. }) => {
                while let Some(id) = self.conn.streams().accept(Dir::Bi) {
                    let id = StreamId(id.index());
                    self.events.push(TunnelEvent::Opened(id));
                    // quinn reports no data that came with the opening.
                    self.events.push(TunnelEvent::Readable(id));
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => {
                self.events.push(TunnelEvent::Readable(StreamId(id.index())));
            }
            Event::Stream(StreamEvent::Writable { id }) => {
                self.events.push(TunnelEvent::Writable(StreamId(id.index())));
            }
            Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                // Without an answer the stream would keep its place for ever (RFC 9000, section 3.5).
                let _ = self.conn.send_stream(id).reset(error_code);
                let id = StreamId(id.index());
                self.events.push(TunnelEvent::Stopped(id, error_code.into_inner()));
            }
            Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => {
                self.events.push(TunnelEvent::Available);
            }
            Event::Stream(StreamEvent::Available { .. } | StreamEvent::Finished { .. }) => {}
        }
    }

    fn on_lost(&mut self, error: &ConnectionError) {
        if self.ending != CloseState::No {
            return;
        }
        let reason = reason(error);
        match error {
            // Found here: the peer does not know yet.
            ConnectionError::TransportError(_) => self.ending = CloseState::Telling(reason),
            _ => self.tell(reason),
        }
    }

    fn tell(&mut self, reason: CloseReason) {
        self.ending = CloseState::Told;
        self.events.push(TunnelEvent::Closed(reason));
    }

    pub(super) fn poll_event(&mut self) -> Option<TunnelEvent> {
        // After `Connected`, before `Closed`.
        if self.datagrams && self.events.is_at_end() {
            if let Some(datagram) = self.conn.datagrams().recv() {
                return Some(TunnelEvent::Datagram(datagram.into()));
            }
            self.datagrams = false;
        }
        self.events.pop()
    }

    pub(super) fn has_events(&self) -> bool {
        self.datagrams || !self.events.is_empty()
    }

    pub(super) fn open(&mut self) -> Option<StreamId> {
        if !self.connected {
            return None;
        }
        self.conn.streams().open(Dir::Bi).map(|id| StreamId(id.index()))
    }

    /// True if the peer has opened streams that have not ended in both directions.
    pub(super) fn has_streams(&mut self) -> bool {
        self.conn.streams().remote_open_streams(Dir::Bi) > 0
    }

    pub(super) fn write(&mut self, id: StreamId, data: &[u8]) -> Write {
        if self.conn.is_closed() {
            return Write::Stopped(GONE);
        }
        self.has_unsent = true;
        match self.conn.send_stream(quic(id)).write(data) {
            Ok(n) => Write::Written(n),
            Err(WriteError::Blocked) => Write::Blocked,
            Err(WriteError::Stopped(code)) => Write::Stopped(code.into_inner()),
            Err(WriteError::ClosedStream) => Write::Stopped(GONE),
        }
    }

    pub(super) fn finish(&mut self, id: StreamId) {
        self.has_unsent = true;
        // It fails for a stream that has ended already: nothing to do.
        let _ = self.conn.send_stream(quic(id)).finish();
    }

    pub(super) fn reset(&mut self, id: StreamId, code: u64) {
        self.has_unsent = true;
        let _ = self.conn.send_stream(quic(id)).reset(varint(code));
    }

    /// False when the half has ended already, so that the peer is not told.
    pub(super) fn stop(&mut self, id: StreamId, code: u64) -> bool {
        self.has_unsent = true;
        self.conn.recv_stream(quic(id)).stop(varint(code)).is_ok()
    }

    /// True if all that was given to streams has been sent and acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        !self.has_unsent && !self.waits()
    }

    pub(super) fn read(&mut self, id: StreamId, buf: &mut [u8]) -> Read {
        let closed = self.conn.is_closed();
        let mut stream = self.conn.recv_stream(quic(id));
        // quinn forgets a stream that has been read to its end, or that was stopped: of either nothing more comes.
        let Ok(mut chunks) = stream.read(true) else { return Read::Finished };
        let mut filled = 0;
        let mut end = None;
        while let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty()) {
            match chunks.next(room.len()) {
                Ok(Some(chunk)) => {
                    for (to, from) in room.iter_mut().zip(chunk.bytes.iter()) {
                        *to = *from;
                    }
                    filled += chunk.bytes.len();
                }
                Ok(None) => {
                    end = Some(Read::Finished);
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    end = Some(Read::Reset(code.into_inner()));
                    break;
                }
            }
        }
        // More credit for the peer leaves with the next datagram.
        let _ = chunks.finalize();
        match end {
            _ if filled > 0 => Read::Data(filled),
            Some(end) => end,
            None if closed => Read::Reset(GONE),
            None => Read::Blocked,
        }
    }

    pub(super) fn send_datagram(&mut self, data: Vec<u8>) -> bool {
        if self.conn.is_closed() {
            return false;
        }
        match self.conn.datagrams().send(Bytes::from(data), true) {
            Ok(()) => true,
            Err(
                SendDatagramError::Blocked(_)
                | SendDatagramError::Disabled
                | SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer,
            ) => false,
        }
    }

    pub(super) fn max_datagram_len(&mut self) -> usize {
        self.conn.datagrams().max_size().unwrap_or(0)
    }

    pub(super) fn close(&mut self, now: Time, code: u64) {
        if self.ending == CloseState::No {
            self.conn.close(self.clock.instant(now), varint(code), Bytes::new());
            self.ending = CloseState::Telling(CloseReason::Local);
        }
    }

    pub(super) fn set_budget(&self, packets_per_s: f64) {
        self.window.set_budget(packets_per_s);
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected && !self.conn.is_closed()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.conn.is_closed()
    }

    pub(super) fn instant(&self, now: Time) -> std::time::Instant {
        self.clock.instant(now)
    }

    /// True if the endpoint has forgotten it.
    pub(super) fn is_drained(&self) -> bool {
        self.conn.is_drained()
    }

    /// True if nothing of it is of use any more.
    pub(super) fn is_over(&self) -> bool {
        self.conn.is_drained() && !self.has_events()
    }

    pub(super) fn was_connected(&self) -> bool {
        self.connected
    }

    /// True if `Closed` has been queued or taken.
    pub(super) fn is_told(&self) -> bool {
        self.ending == CloseState::Told
    }

    /// When something authentic came last; at first, when the connection began.
    pub(super) fn heard(&self) -> Time {
        self.heard
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.connected.then(|| self.conn.rtt())
    }
}

fn quic(id: StreamId) -> quinn_proto::StreamId {
    quinn_proto::StreamId::new(Side::Client, Dir::Bi, id.0)
}

/// Codes beyond QUIC's 62 bits count as the largest.
fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn reason(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::TransportError(e) if wrong_service(e.code) => CloseReason::WrongService,
        ConnectionError::ConnectionClosed(ConnectionClose { error_code, .. })
            if *error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            CloseReason::Refused
        }
        ConnectionError::ConnectionClosed(ConnectionClose { error_code, .. })
            if *error_code == TransportErrorCode::APPLICATION_ERROR =>
        {
            CloseReason::Peer(GONE)
        }
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
            CloseReason::Peer(error_code.into_inner())
        }
        ConnectionError::Reset => CloseReason::Forgotten,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => CloseReason::Protocol,
    }
}

/// TLS alerts of our own verifier: `access_denied` for another key, `decrypt_error` for a signature that the
/// right key did not make.
fn wrong_service(code: TransportErrorCode) -> bool {
    [49, 51].map(TransportErrorCode::crypto).contains(&code)
}

/// How many frames of any kind.
fn frames(stats: &FrameStats) -> u64 {
    stats.acks + stats.connection_close + demanding(stats)
}

/// How many frames that ask for an acknowledgement.
fn demanding(f: &FrameStats) -> u64 {
    f.ack_frequency
        + f.crypto
        + f.data_blocked
        + f.datagram
        + u64::from(f.handshake_done)
        + f.immediate_ack
        + f.max_data
        + f.max_stream_data
        + f.max_streams_bidi
        + f.max_streams_uni
        + f.new_connection_id
        + f.new_token
        + f.path_challenge
        + f.path_response
        + f.ping
        + f.reset_stream
        + f.retire_connection_id
        + f.stream_data_blocked
        + f.streams_blocked_bidi
        + f.streams_blocked_uni
        + f.stop_sending
        + f.stream
}
