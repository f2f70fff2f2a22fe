//! A congestion window that does not move with loss.
//!
//! Nothing on the way answers to a sender: mixes delay by their own law, and the gateway's downlink drains at
//! fixed instants. So the window bounds what may wait in that queue, and nothing more. At the client slots are
//! the only limit; a window beyond `u32::MAX` also turns off quinn's pacer.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

use super::SERVICE_MTU;

/// No limit, and no pacer.
const OPEN: u64 = u32::MAX as u64 + 1;

/// Seconds of the budget that may be in flight.
const SECONDS: f64 = 0.4;

/// A window never holds fewer packets than this: a class of few slots has round trips of seconds.
const MIN_PACKETS: f64 = 8.0;

/// Beyond this a window only fills the gateway's queue.
const MAX_PACKETS: f64 = 4096.0;

/// What quinn's controller and the end of the tunnel that owns it tell each other.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes that may be in flight.
    bytes: AtomicU64,
    /// The watchdog lets one datagram pass a full window.
    lifted: AtomicBool,
    /// Packets that asked for an acknowledgement and got it.
    acknowledged: AtomicU64,
    /// Bytes in flight after the last acknowledgement.
    in_flight: AtomicU64,
}

impl Window {
    /// The window of a client.
    pub(super) fn open() -> Arc<Self> {
        Arc::new(Self::of(OPEN))
    }

    /// The window of a service towards a client that takes so many packets/s.
    pub(super) fn for_budget(packets_per_s: f64) -> Arc<Self> {
        let window = Self::of(0);
        window.set_budget(packets_per_s);
        Arc::new(window)
    }

    fn of(bytes: u64) -> Self {
        Self {
            bytes: AtomicU64::new(bytes),
            lifted: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        }
    }

    /// A budget that is no number counts as the least.
    pub(super) fn set_budget(&self, packets_per_s: f64) {
        // Not `clamp`: it would hand on what is no number.
        // The budget is what the client named: what is in flight beyond it would only wait in the queue at the
        // client's gateway.
        let packets = MIN_PACKETS.max((packets_per_s * SECONDS).ceil());
        let packets = MAX_PACKETS.min(packets);
        self.bytes.store(packets as u64 * u64::from(SERVICE_MTU), Ordering::Relaxed);
    }

    /// Lets the next datagram pass.
    pub(super) fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    /// Ends what [`Self::lift`] began.
    pub(super) fn lower(&self) {
        self.lifted.store(false, Ordering::Relaxed);
    }

    /// How many packets were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// True if anything was in flight after the last acknowledgement.
    pub(super) fn in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    fn current(&self) -> u64 {
        if self.lifted.load(Ordering::Relaxed) { OPEN } else { self.bytes.load(Ordering::Relaxed) }
    }
}

/// Makes the controller of the one connection that has this window.
pub(super) struct Fixed(pub(super) Arc<Window>);

impl ControllerFactory for Fixed {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(FixedController(self.0.clone()))
    }
}

struct FixedController(Arc<Window>);

impl Controller for FixedController {
    fn on_ack(
        &mut self,
        _now: Instant,
        _sent: Instant,
        _bytes: u64,
        _limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn on_end_acks(
        &mut self,
        _now: Instant,
        in_flight: u64,
        _limited: bool,
        _largest: Option<u64>,
    ) {
        self.0.in_flight.store(in_flight, Ordering::Relaxed);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        _persistent: bool,
        _lost: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        self.0.current()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone()))
    }

    fn initial_window(&self) -> u64 {
        self.0.current()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
