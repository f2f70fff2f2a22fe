//! Slots ahead: when they come, and where the first hop of each is, drawn before anything is known of what fills them.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use shoal_sphinx::{Frame, PacketId};
use shoal_topology::{Epoch, Seed, Stream, Time};

use super::Ready;

/// What slots take from a document, from an instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The first instant for which it holds, until the next one's.
    pub from: Time,
    /// The epoch whose keys packets use.
    pub epoch: Epoch,
    /// Which document, by its own epoch and its amendment: another one has other paths.
    pub edition: (Epoch, u16),
    /// Indices of the first layer's mixes in its list.
    pub first_hops: Arc<[u16]>,
}

/// A slot that is to be filled. What fills it is sealed for its first hop and its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its number in the schedule.
    pub number: u64,
    /// When it comes.
    pub at: Time,
    /// Where frames in it go.
    pub way: Way,
}

/// The first hop and the epoch of a slot: all that a gateway sees of a frame beside its instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Index of the mix of layer 1 in the list of the epoch's document.
    pub first: u16,
    /// The epoch whose keys the packet uses.
    pub epoch: Epoch,
    /// The document by whose list `first` counts.
    pub(crate) edition: (Epoch, u16),
}

/// Equal gaps, and a random number for each slot.
pub(super) struct Grid {
    next: Time,
    numbers: Stream,
}

impl Grid {
    pub(super) fn new(seed: &Seed, name: &str) -> Self {
        Self { next: Time::NEVER, numbers: seed.stream(name) }
    }

    /// Starts anew within a gap from `now`.
    pub(super) fn restart(&mut self, now: Time, gap: Duration) {
        // Each of the two grids draws a phase of its own: else their first slots would always come at one instant.
        let phase: f64 = self.numbers.random();
        self.next = now + gap.mul_f64(phase);
    }

    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// The next slot's instant and number; the one after it follows a gap later.
    pub(super) fn advance(&mut self, gap: Duration) -> (Time, u64) {
        let at = self.next;
        // From the instant that was due, not from now: late calls move nothing.
        self.next = at + gap;
        (at, self.numbers.next_u64())
    }
}

/// What chance has for a payload slot.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Chance {
    /// True if it carries a loop at rest, or media in a call.
    pub(super) chosen: bool,
    /// True if it is kept for letters: it carries drop cover else, whatever becomes of the slots around it.
    pub(super) is_for_letters: bool,
    /// Says whether a debt or a credit is settled in it: uniform in [0, 1).
    pub(super) settle: f64,
}

/// What comes at a slot if nothing of the user's does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    /// A loop to oneself.
    Loop,
    /// A packet that a random gateway drops.
    Drop,
    /// Media of a call.
    Media,
    /// A control message to the gateway.
    Control,
}

/// A loop or drop cover, sealed.
pub(super) struct Cover {
    pub(super) way: Way,
    /// The identifier of a loop.
    pub(super) id: Option<PacketId>,
    pub(super) frame: Frame,
}

impl Cover {
    pub(super) fn fill(&self) -> Fill {
        if self.id.is_some() { Fill::Loop } else { Fill::Drop }
    }
}

/// A slot, and what stands ready for it.
pub(super) struct Planned {
    /// Its number in the schedule.
    pub(super) number: u64,
    /// When it comes.
    pub(super) at: Time,
    /// Selects the first hop, of whatever document is in use then.
    pub(super) draw: u64,
    /// `None` for a loop slot, which always carries a loop. For a payload slot what chance has for it.
    pub(super) chance: Option<Chance>,
    /// Where it leads; `None` while no document says.
    pub(super) way: Option<Way>,
    /// What it carries if nothing of the user's does.
    pub(super) fill: Fill,
    /// What the fill did to the account of loops.
    pub(super) booked: f64,
    /// The cover that stands ready for it.
    pub(super) cover: Option<Cover>,
    /// Something of the user's, which goes before cover.
    pub(super) user: Option<(Ready, Frame)>,
}

impl Planned {
    /// The slot, once it is known where it leads.
    pub(super) fn slot(&self) -> Option<Slot> {
        Some(Slot { number: self.number, at: self.at, way: self.way? })
    }
}

/// Where a slot leads that comes at `at` and has drawn this number.
pub(super) fn way(turns: &[Turn], at: Time, draw: u64) -> Option<Way> {
    let turn = turns.iter().rev().find(|turn| turn.from <= at).or(turns.first())?;
    // Lemire, "Fast Random Integer Generation in an Interval": the high half of a product. 64 bits leave no bias that
    // anybody could find.
    let pick = (u128::from(draw) * turn.first_hops.len() as u128) >> 64;
    let first = turn.first_hops.get(usize::try_from(pick).ok()?).copied()?;
    Some(Way { first, epoch: turn.epoch, edition: turn.edition })
}
