//! Fault injection: what a node does that its operator turned against its users, or whose clock is off. No configuration
//! asks for it: experiments do.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use rand::RngExt as _;
use shoal_sphinx::{CLIENT_CONTROL, FRAME_LEN, Frame};
use shoal_topology::wire::client_gateway::{ControlMessage as _, Hello, Mode};
use shoal_topology::{Identity, Seed, Stream, Time};

use super::frames::Frames;
use crate::counters::DropReason;
use crate::engine::SessionId;
use crate::opener::Arrived;

/// What is injected: what happens to the packets of a corrupt node, which counts none of them, and a clock that is off.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Faults {
    /// Share of the packets that it does not pass on, 0 to 1.
    pub drop_share: f64,
    /// Of those alone that clients send, and services do not; else of all that come from nodes. A gateway cannot tell one
    /// client from another: each link brings an inbox of its own.
    pub drop_clients: bool,
    /// How much later than asked it sends packets to other nodes.
    pub late: Duration,
    /// By how much the clock of an authority is off, milliseconds: not its operator's will, but no configuration asks for
    /// it either.
    pub clock_offset_ms: i64,
}

impl Faults {
    /// Drawn anew in each run.
    pub(super) fn start(self, seed: &Seed) -> FaultInjector {
        let (sessions, held) = Default::default();
        FaultInjector { faults: self, rng: seed.stream("faults"), sessions, held }
    }
}

/// Injects them while a node runs.
pub(super) struct FaultInjector {
    faults: Faults,
    rng: Stream,
    /// Sessions of the clients that are harmed.
    sessions: HashSet<SessionId>,
    /// What is late, and when it goes out. As many as the pool holds in that time.
    held: VecDeque<(Time, Identity, Frame)>,
}

impl FaultInjector {
    fn drops(&mut self) -> bool {
        self.rng.random::<f64>() < self.faults.drop_share
    }

    /// What it lets pass of what nodes sent.
    pub(super) fn opened(&mut self, batch: &mut Vec<Result<Arrived, DropReason>>) {
        if !self.faults.drop_clients {
            batch.retain(|_| !self.drops());
        }
    }

    /// What it lets pass of what a client sent.
    pub(super) fn client(&mut self, session: SessionId, frames: &mut Frames) {
        if !self.faults.drop_clients {
            return;
        }
        // Its first word says who it is, and is answered: it shall stay.
        let hello = |bytes: &[u8; FRAME_LEN]| {
            let frame = Frame::decode(bytes).ok()?;
            (frame.field == CLIENT_CONTROL).then(|| Hello::unpack(&frame.packet).ok())?
        };
        if frames.iter().filter_map(|bytes| hello(bytes)).any(|hello| hello.mode != Mode::Service) {
            self.sessions.insert(session);
        } else if self.sessions.contains(&session) {
            frames.retain(|_| !self.drops());
        }
    }

    /// Takes what shall be late.
    pub(super) fn hold(&mut self, now: Time, to: Identity, frame: Frame) -> Option<Frame> {
        if self.faults.late.is_zero() {
            return Some(frame);
        }
        self.held.push_back((now + self.faults.late, to, frame));
        None
    }

    /// When the next goes out.
    pub(super) fn next_wake(&self) -> Time {
        self.held.front().map_or(Time::NEVER, |(at, ..)| *at)
    }

    /// What goes out now.
    pub(super) fn release(&mut self, now: Time) -> Option<(Identity, Frame)> {
        let due = self.next_wake() <= now;
        due.then(|| self.held.pop_front()).flatten().map(|(_, to, frame)| (to, frame))
    }

    pub(super) fn left(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }
}
