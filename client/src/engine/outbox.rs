//! Messages to people: when one leaves.
//!
//! A letter takes the place of drop cover, so that the loops of whoever writes come back as they would have. At the reader it
//! is one packet more, which nobody there knows of before it has come; what hides it is that the instant says little: each
//! letter waits a time of its own, drawn anew, so that those of a burst come apart and nobody who knows when they were
//! written knows when to look. How much it hides is in THREAT-MODEL.

use std::time::Duration;

use shoal_sphinx::MESSAGE_LEN;
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Class, Stream, Time, exponential};

use super::packets::Draft;
use super::types::MAX_LETTERS;
use super::{Client, Contact, NotPosted};
use crate::route::Recipient;
use crate::uplink::{Ready, Slot};

/// The mean hold is the time that so many loops in payload slots take: at its reader a letter is one packet more.
const LOOPS: f64 = 75.0;
/// And it lies within these bounds, seconds: a class of few slots would hold letters for minutes, and hides less instead.
const HOLD_S: std::ops::RangeInclusive<f64> = 1.0..=10.0;
/// It is longer where most slots carry loops: what arrives is so even then that one packet more shows among more of them.
const EVEN: (f64, f64) = (0.75, 2.4);

/// The mean time that a letter waits before it takes a slot. The law is exponential, so that when the last one left says
/// nothing of the next.
fn hold(class: &Class) -> Duration {
    let loops_per_s = (class.loop_share * class.payload_per_s).max(0.1);
    let longer = if class.loop_share > EVEN.0 { EVEN.1 } else { 1.0 };
    Duration::from_secs_f64((longer * LOOPS / loops_per_s).clamp(*HOLD_S.start(), *HOLD_S.end()))
}

struct Letter {
    due: Time,
    contact: Contact,
    message: Vec<u8>,
}

/// The letters that wait, in the order in which they were written.
pub(super) struct Outbox {
    waiting: Vec<Letter>,
    holds: Stream,
}

impl Outbox {
    pub(super) fn new(holds: Stream) -> Self {
        Self { waiting: Vec::new(), holds }
    }

    /// How many letters wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The first that has waited long enough for a slot at this instant.
    fn take(&mut self, at: Time) -> Option<Letter> {
        let first = self.waiting.iter().position(|letter| letter.due <= at)?;
        Some(self.waiting.remove(first))
    }
}

impl Client {
    /// A message to a person. It waits a time that is drawn, some seconds, and leaves in a payload slot that would carry drop
    /// cover. Letters may overtake each other, and be lost; whoever needs to know has the other end answer.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn post(&mut self, now: Time, contact: &Contact, message: &[u8]) -> Result<(), NotPosted> {
        if message.len() >= MESSAGE_LEN {
            return Err(NotPosted::TooLong);
        }
        if self.outbox.len() >= MAX_LETTERS {
            return Err(NotPosted::Full);
        }
        // Any gateway may be the other's, also this one: a rule would show peers by the choice of gateways.
        self.own_gateway(now).ok_or(NotPosted::NoPath)?;
        self.router.gateway(now, &contact.gateway).ok_or(NotPosted::NoPath)?;
        let mut letter = Vec::with_capacity(1 + message.len());
        letter.push(kind::MESSAGE);
        letter.extend_from_slice(message);
        // Drawn also where letters leave at once, so that the setting moves no other draw.
        let hold = exponential(&mut self.outbox.holds, hold(&self.class));
        let due = if self.settings.letters_at_once { now } else { now + hold };
        self.outbox.waiting.push(Letter { due, contact: *contact, message: letter });
        Ok(())
    }

    /// A letter for a slot, if one has waited long enough.
    pub(super) fn make_letter(&mut self, slot: Slot) -> Option<Draft> {
        let letter = self.outbox.take(slot.at)?;
        let Contact { inbox, key, gateway } = letter.contact;
        let end = Recipient { address: inbox.0, key };
        Some(self.send_to_end(slot, gateway, end, letter.message)?.ready(Ready::Letter))
    }
}
