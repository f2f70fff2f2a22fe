//! A call: one contact, to whom media go from an agreed instant to another.
//!
//! Between the two instants the payload slots that chance chose for loops carry media, and silence where there is none, so
//! that a call looks at rest and in speech as the loops do whose place it takes. [`Uplink::begin_call`] and
//! [`Uplink::end_call`] take the same instants. Who agrees on them, and by which messages, is not the engine's business.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_sphinx::MESSAGE_LEN;
use shoal_topology::{Class, Time};

use super::{Client, Contact, NotPosted};
#[cfg(doc)]
use crate::uplink::Uplink;

/// Most media that wait for a slot: 0.2 s of class call. One more, and the oldest is dropped: late speech is worth nothing.
const WAITING: usize = 5;
/// How long after the end of a call what is under way still counts as its media.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// What a stall of the contact's link, or of this one, may hold up and bring at once: as much as waits at a gateway.
const HELD_UP: Duration = Duration::from_secs(2);

/// A call with a contact, and the media that wait for its slots.
pub(super) struct Call {
    pub(super) contact: Contact,
    from: Time,
    until: Time,
    pub(super) waiting: VecDeque<Vec<u8>>,
    /// How many media may come now, and when that was counted.
    due: f64,
    counted: Time,
}

impl Call {
    /// True if a slot at this instant is the call's.
    pub(super) fn lasts(&self, at: Time) -> bool {
        self.from <= at && at < self.until
    }

    /// Media came: whether they can be the contact's, who has no more payload slots than this class, and sends in some of them.
    pub(super) fn brings(&mut self, now: Time, class: &Class) -> bool {
        let slots = class.payload_per_s * now.since(self.counted).as_secs_f64();
        (self.due, self.counted) = ((self.due + slots).min(most_at_once(class)), now);
        let brings = self.due >= 1.0;
        // What cannot be the contact's takes no token: a flood must not make honest media look like one.
        self.due -= f64::from(u8::from(brings));
        brings
    }
}

/// Most media that come at once in a call.
fn most_at_once(class: &Class) -> f64 {
    (class.down_per_s * HELD_UP.as_secs_f64()).max(16.0)
}

impl Client {
    /// A call with a contact: media leave in payload slots from `from` on, until [`Client::end_call`]. An earlier call ends.
    pub fn begin_call(&mut self, contact: Contact, from: Time) {
        self.call = Some(Call {
            contact,
            from,
            until: Time::NEVER,
            waiting: VecDeque::new(),
            due: most_at_once(&self.class),
            counted: from,
        });
    }

    /// The call takes no slot from `until` on.
    pub fn end_call(&mut self, until: Time) {
        if let Some(call) = &mut self.call {
            call.until = until;
        }
    }

    /// What is to be said in the call, which leaves in its next slot. Of what waits the oldest makes way.
    ///
    /// # Errors
    /// It is too long, or there is no call.
    pub fn speak(&mut self, now: Time, media: &[u8]) -> Result<(), NotPosted> {
        if media.len() >= MESSAGE_LEN {
            return Err(NotPosted::TooLong);
        }
        let call = self.call.as_mut().filter(|call| now < call.until).ok_or(NotPosted::NoCall)?;
        // The oldest goes, not the newest: in speech what is late is worth less than what comes.
        if call.waiting.len() >= WAITING {
            call.waiting.pop_front();
            self.counts.media_late += 1;
        }
        call.waiting.push_back(media.to_vec());
        Ok(())
    }

    /// True if media that arrive now belong to a call.
    pub(super) fn in_call(&self, now: Time) -> bool {
        self.call.as_ref().is_some_and(|call| now < call.until || now.since(call.until) < UNDER_WAY)
    }
}
