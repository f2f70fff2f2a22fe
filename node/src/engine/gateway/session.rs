//! One client that was let in: its limit up, its queue and its instants down.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_sphinx::{CLIENT_CONTROL, Downward, Frame, Packet};
use shoal_topology::wire::client_gateway::Away;
use shoal_topology::{Class, Identity, Time};

use super::super::{Core, Due, Output, SessionId};
use super::{InboxId, downward};
use crate::counters::DropReason;
use crate::limit::Limit;

/// Packets taken from the inbox at a time.
pub(super) const FETCH: usize = 32;
/// A queue holds at least as many.
const LEAST_QUEUE: f64 = 16.0;
/// And what goes down in this time.
const QUEUE_S: f64 = 2.0;

/// When frames go down.
pub(super) enum Pace {
    /// At fixed instants, whatever there is to send.
    Fixed {
        start: Time,
        /// In picoseconds, so that it does not drift.
        period: u128,
        /// How many instants were planned so far.
        planned: u64,
        /// Frames that the queue holds.
        queue: usize,
    },
    /// At once, within a limit.
    AtOnce {
        limit: Limit,
        /// True if a wake-up is in the wheel.
        waiting: bool,
        queue: usize,
    },
}

impl Pace {
    /// Of a class, or of a service when there is none. The phase of the instants is that of the admission.
    pub(super) fn new(now: Time, class: Option<&Class>, service_per_s: f64) -> Self {
        let queue = |per_s: f64| LEAST_QUEUE.max(QUEUE_S * per_s) as usize;
        match class {
            Some(class) => Self::Fixed {
                start: now,
                period: (1e12 / class.down_per_s) as u128,
                planned: 0,
                queue: queue(class.down_per_s),
            },
            None => Self::AtOnce {
                // 50 ms at once: packets come in bunches.
                limit: Limit::new(service_per_s, service_per_s / 20.0),
                waiting: false,
                queue: queue(service_per_s),
            },
        }
    }
}

/// Slightly more than the class sends, and two seconds of it at once: a link that stalled brings what waited.
pub(super) fn up_limit(class: Option<&Class>, service_per_s: f64) -> Limit {
    let per_s = class.map_or(service_per_s, |class| class.payload_per_s + class.loops_per_s);
    Limit::new(1.1 * per_s, LEAST_QUEUE + QUEUE_S * per_s)
}

/// A client that was let in.
pub(super) struct Active {
    /// The inbox that the client has proven to be its own.
    pub(super) inbox: Identity,
    /// The name of that inbox outside of the engine.
    pub(super) id: InboxId,
    /// Index of its token in the list.
    pub(super) token: Option<usize>,
    /// What becomes of packets for it when it has left.
    pub(super) away: Away,
    /// True if the inbox was asked and has not answered.
    pub(super) fetching: bool,
    /// How many frames up may pass.
    up: Limit,
    /// How often a descriptor may be renewed.
    renewals: Limit,
    /// When frames go down.
    pace: Pace,
    /// Packets that came while it was here.
    queue: VecDeque<Frame>,
    /// Packets that waited in the inbox, at most [`FETCH`] and what an older connection left.
    stash: VecDeque<Frame>,
}

impl Active {
    pub(super) fn new(
        inbox: Identity,
        id: InboxId,
        (token, away): (Option<usize>, Away),
        up: Limit,
        pace: Pace,
    ) -> Self {
        let (queue, stash) = Default::default();
        // A period lasts a minute or more; a key that is full may end it early.
        let renewals = Limit::new(1.0 / 30.0, 1.0);
        Self { inbox, id, token, away, fetching: false, up, renewals, pace, queue, stash }
    }

    /// Takes over what waits on an older connection. Of what has no room here the newest goes.
    pub(super) fn inherit(&mut self, core: &mut Core, old: &mut Self) {
        self.queue = std::mem::take(&mut old.queue);
        // The class may be another now, with a shorter queue.
        let beyond = self.queue.drain(self.queue.len().min(self.room())..).count();
        core.counters.drop_many(DropReason::ClientQueueFull, beyond as u64);
        self.stash = std::mem::take(&mut old.stash);
        self.fetching = old.fetching;
        // The inbox is this one's now.
        // Else the end of the older connection would throw away what the newer one waits for.
        old.away = Away::Keep;
    }

    /// True if it is a service.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.pace, Pace::AtOnce { .. })
    }

    pub(super) fn into_waiting(self) -> impl Iterator<Item = Frame> {
        self.stash.into_iter().chain(self.queue)
    }

    pub(super) fn wants_more(&self) -> bool {
        self.stash.is_empty() && !self.fetching
    }

    fn room(&self) -> usize {
        match &self.pace {
            Pace::Fixed { queue, .. } | Pace::AtOnce { queue, .. } => *queue,
        }
    }

    /// True if the client has brought no descriptor lately.
    pub(super) fn may_renew(&mut self, now: Time) -> bool {
        self.renewals.pass(now)
    }

    /// A frame from the client: whether its limits let it pass.
    pub(super) fn upward(&mut self, now: Time, frame: &Frame) -> Result<(), DropReason> {
        if frame.field == CLIENT_CONTROL {
            return Err(DropReason::Malformed);
        }
        if self.up.pass(now) { Ok(()) } else { Err(DropReason::RateLimited) }
    }

    /// The first instant, or what waits for a service.
    pub(super) fn begin(&mut self, core: &mut Core, session: SessionId, now: Time) {
        match &self.pace {
            Pace::Fixed { .. } => self.plan(core, session, now),
            Pace::AtOnce { .. } => self.release(core, session, now),
        }
    }

    /// Plans the first instant of the schedule that is not before `now`.
    fn plan(&mut self, core: &mut Core, session: SessionId, now: Time) {
        if let Pace::Fixed { start, period, planned, .. } = &mut self.pace {
            // From the start each time, not from the instant before: neither rounding nor a thread that is late moves
            // the grid.
            let passed = now.since(*start).as_nanos() * 1_000 / (*period).max(1);
            *planned = u64::try_from(passed).unwrap_or(u64::MAX).max(planned.saturating_add(1));
            let nanos = u128::from(*planned) * *period / 1_000;
            let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            core.wheel.insert(*start + after, Due::Instant(session));
        }
    }

    /// One instant of the schedule: something goes down, whatever there is.
    pub(super) fn instant(&mut self, core: &mut Core, session: SessionId, at: Time) {
        // Planned before anything is looked for, so that what there is to send cannot move an instant.
        self.plan(core, session, at);
        // Something goes down at each instant: who watches the link cannot tell a dummy from a packet.
        let frame = self.next().unwrap_or_else(|| downward(Downward::Dummy, Packet::default()));
        core.outputs.push_back(Output::ToClient { session, frame });
    }

    /// Live packets first; what waited elsewhere takes instants that would be dummies.
    fn next(&mut self) -> Option<Frame> {
        self.queue.pop_front().or_else(|| self.stash.pop_front())
    }

    /// Sends a service what its limit lets pass, and plans the rest.
    pub(super) fn release(&mut self, core: &mut Core, session: SessionId, now: Time) {
        if let Pace::AtOnce { waiting, .. } = &mut self.pace {
            *waiting = false;
        }
        self.flush(core, session, now);
    }

    fn flush(&mut self, core: &mut Core, session: SessionId, now: Time) {
        loop {
            let empty = self.queue.is_empty() && self.stash.is_empty();
            let Pace::AtOnce { limit, waiting, .. } = &mut self.pace else { return };
            // With a wake-up in the wheel there is nothing to try before it.
            if empty || *waiting {
                return;
            }
            if !limit.pass(now) {
                *waiting = true;
                core.wheel.insert(limit.next(), Due::Release(session));
                return;
            }
            if let Some(frame) = self.next() {
                core.outputs.push_back(Output::ToClient { session, frame });
            }
        }
    }

    /// A packet for the client.
    pub(super) fn deliver(&mut self, core: &mut Core, session: SessionId, now: Time, frame: Frame) {
        if self.queue.len() >= self.room() {
            core.counters.drop(DropReason::ClientQueueFull);
            return;
        }
        self.queue.push_back(Frame { field: Downward::Packet as u16, ..frame });
        self.flush(core, session, now);
    }

    /// Packets from the inbox are here.
    pub(super) fn fetched(
        &mut self,
        core: &mut Core,
        session: SessionId,
        now: Time,
        frames: Vec<Frame>,
    ) {
        self.fetching = false;
        self.stash.extend(frames);
        self.flush(core, session, now);
    }
}
