//! What a node does that its operator turned against its users. No configuration asks for it: experiments do.

use std::collections::HashSet;

use rand::RngExt as _;
use shoal_sphinx::FRAME_LEN;
use shoal_topology::{Identity, Seed, Stream};

use crate::counters::DropReason;
use crate::engine::SessionId;
use crate::opener::Arrived;

/// Packets that a corrupt node takes and does not pass on. It counts none of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Misconduct {
    /// Share of the packets, 0 to 1.
    pub drop_share: f64,
    /// Only those that this client or service sends; else all that come from nodes.
    pub only: Option<Identity>,
}

impl Misconduct {
    /// Drawn anew in each run.
    pub(super) fn start(self, seed: &Seed) -> Running {
        Running { what: self, rng: seed.stream("misconduct"), sessions: HashSet::new() }
    }
}

/// Misconduct under way.
pub(super) struct Running {
    what: Misconduct,
    rng: Stream,
    /// Sessions of the client that is harmed.
    sessions: HashSet<SessionId>,
}

impl Running {
    fn drops(&mut self) -> bool {
        self.rng.random::<f64>() < self.what.drop_share
    }

    /// What it lets pass of what nodes sent.
    pub(super) fn opened(&mut self, batch: &mut Vec<Result<Arrived, DropReason>>) {
        if self.what.only.is_none() {
            batch.retain(|_| !self.drops());
        }
    }

    /// What it lets pass of what a client sent.
    pub(super) fn client(&mut self, session: SessionId, frames: &mut Vec<Box<[u8; FRAME_LEN]>>) {
        if self.sessions.contains(&session) {
            frames.retain(|_| !self.drops());
        }
    }

    pub(super) fn joined(&mut self, session: SessionId, peer: &Identity) {
        if self.what.only.as_ref() == Some(peer) {
            self.sessions.insert(session);
        }
    }

    pub(super) fn left(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }
}
