//! A client and the slots of its link, joined as the daemon drives them.
//!
//! [`Client`] makes frames, [`Uplink`] says when they leave and where to, and each must be told what the other has
//! learned: which loops have left, which arrivals take the place of loops, which document slots follow. A [`Sender`] owns
//! both ends and does that. Whoever writes to the link takes frames from its [`SlotQueue`], on another thread if need be.
//!
//! Drive it as a [`Client`]: hand it what happens, call [`Client::handle_timeout`] when [`Client::next_timeout`] is
//! reached, and after each of these take all outputs and call [`Sender::produce`] until it has nothing to do.
//! [`ClientOutput::EpochChanged`](crate::engine::ClientOutput::EpochChanged) asks for [`Sender::follow_from`]. What
//! [`Client::next_timeout`] and [`SlotQueue::next_slot`] return is stale as soon as either was handed anything.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sphinx::{Frame, Packet};
use shoal_topology::{Identity, Time};

use crate::engine::{Arrival, Client, Contact, ContactId, Handle};
use crate::uplink::{Filled, Ready, Uplink};

/// The slots of a link, for whoever writes to it.
pub struct SlotQueue(Mutex<Uplink>);

impl SlotQueue {
    pub(crate) fn new(uplink: Uplink) -> Self {
        Self(Mutex::new(uplink))
    }

    fn lock(&self) -> MutexGuard<'_, Uplink> {
        // A schedule is whole between any two of its calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instant of the next slot; [`Time::NEVER`] while there is no document or no link.
    pub fn next_slot(&self) -> Time {
        self.lock().next_slot()
    }

    /// The frame of the slot that is due: call it once for each slot, at [`Self::next_slot`].
    pub fn take(&self, now: Time) -> Frame {
        self.lock().take(now)
    }

    /// There is no link: what was sealed for the last one leaves on none, and nothing does until the schedule of the next
    /// one begins.
    pub fn forget(&self) {
        self.lock().clear(Vec::new());
    }

    /// What filled the slots so far.
    pub fn filled(&self) -> Filled {
        self.lock().filled()
    }
}

/// What a call of [`Sender::produce`] sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Produced {
    /// No slot wants anything that there is.
    Nothing,
    /// Loops and drop cover, and nothing of the user's.
    Cover,
    /// Something of the user's too.
    OfUser,
}

/// A client with the slots of its link. It is a [`Client`] but for what concerns its link and arrivals, which the slots
/// must hear of as well.
pub struct Sender {
    client: Client,
    slots: Arc<SlotQueue>,
    is_linked: bool,
    /// Whether arrivals take the place of loops.
    gives_credit: bool,
}

impl Deref for Sender {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Sender {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Sender {
    /// Joins the two. There is no link yet.
    pub fn new(client: Client, uplink: Uplink) -> Self {
        Self {
            client,
            slots: Arc::new(SlotQueue::new(uplink)),
            is_linked: false,
            gives_credit: true,
        }
    }

    /// For trials: no arrival takes the place of a loop, so that a gateway sees more come for who is written to.
    #[must_use]
    pub fn without_credit(self) -> Self {
        Self { gives_credit: false, ..self }
    }

    /// The slots, for whoever writes to the link.
    pub fn slots(&self) -> Arc<SlotQueue> {
        self.slots.clone()
    }

    /// A gateway has let the client in, or the link is gone. With a link its schedule begins.
    pub fn set_link(&mut self, now: Time, gateway: Option<Identity>) {
        self.client.set_link(now, gateway);
        self.is_linked = gateway.is_some();
        if self.is_linked {
            self.restart(now);
        } else {
            self.slots.forget();
        }
    }

    /// Begins the schedule anew: for a link that is new, or when the first document has come.
    pub fn restart(&mut self, now: Time) {
        let turns = self.client.turns(now);
        let mut uplink = self.slots.lock();
        uplink.set_class(self.client.class().clone());
        uplink.clear(turns);
        uplink.restart(now);
    }

    /// Another epoch or document: the schedule goes on, and slots from `at` on lead where it says. `at` may lie ahead, so
    /// that it does not show when the caller got to it.
    pub fn follow_from(&mut self, now: Time, at: Time) {
        if !self.is_linked {
            // The next link begins a schedule of its own.
            return;
        }
        let turns = self.client.turns(now);
        let mut uplink = self.slots.lock();
        uplink.set_class(self.client.class().clone());
        uplink.follow_from(at, turns);
    }

    /// A packet came. What others sent takes the place of a loop.
    pub fn handle_frame(&mut self, now: Time, frame: Frame) -> Arrival {
        let departed = self.slots.lock().departed();
        self.client.departed(departed);
        let arrival = self.client.handle_frame(now, frame);
        if arrival == Arrival::FromOthers {
            self.credit();
        }
        arrival
    }

    /// A session of the caller's has authenticated a message: see [`Client::authenticated`]. It takes the place of a loop
    /// where that says so, which is also what this returns.
    pub fn authenticated(&mut self, now: Time, contact: ContactId, handle: Handle) -> bool {
        let is_due = self.client.authenticated(now, contact, handle);
        if is_due {
            self.credit();
        }
        is_due
    }

    pub(crate) fn credit(&self) {
        if self.gives_credit {
            self.slots.lock().credit();
        }
    }

    /// A call with a contact: media leave in payload slots from `from` on, until [`Self::end_call`].
    pub fn begin_call(&mut self, contact: Contact, from: Time) {
        self.client.begin_call(contact, from);
        self.slots.lock().begin_call(from);
    }

    /// The call takes no slot from `until` on.
    pub fn end_call(&mut self, until: Time) {
        self.client.end_call(until);
        self.slots.lock().end_call(until);
    }

    /// A control message to the gateway leaves in the first payload slot from `at` on: see [`Uplink::send_control`].
    pub fn send_control(&mut self, at: Time, message: Packet) {
        if self.is_linked {
            self.slots.lock().send_control(at, message);
        }
    }

    /// How many frames of the user's the slots from `from` on lack: whoever wants to be able to drop messages until they
    /// leave hands over no more.
    pub fn room(&self, from: Time) -> usize {
        self.slots.lock().wants(from).data
    }

    /// Seals once for slots that come at `from` or later, as many as lack something: what is sealed for an earlier one would
    /// be late. Call it again until it says [`Produced::Nothing`].
    pub fn produce(&mut self, now: Time, from: Time) -> Produced {
        // Not locked while sealing, which takes as long as a slot may last: the link's thread must not wait for it.
        let (wants, departed) = {
            let mut uplink = self.slots.lock();
            (uplink.wants(from), uplink.departed())
        };
        self.client.departed(departed);
        let frames = self.client.produce(now, wants);
        let of_user = |ready: &Ready| {
            matches!(ready, Ready::Data | Ready::Refill | Ready::Letter(_) | Ready::Media)
        };
        let produced = match frames.iter().any(|(ready, ..)| of_user(ready)) {
            true => Produced::OfUser,
            false if frames.is_empty() => Produced::Nothing,
            false => Produced::Cover,
        };
        let mut uplink = self.slots.lock();
        frames.into_iter().for_each(|(ready, slot, frame)| uplink.put(ready, slot, frame));
        produced
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shoal_sphinx::{NullCodec, SecretKey};
    use shoal_topology::{Parameters, Seed};

    use super::*;
    use crate::engine::ClientSettings;

    #[test]
    fn without_a_link_no_slot_comes_and_a_dead_link_takes_what_was_sealed_with_it() {
        let seed = Seed::from_u64(1);
        let class = Parameters::default().class("web").unwrap().clone();
        #[expect(clippy::disallowed_methods, reason = "only spans from this instant are used")]
        let times = (Instant::now(), Time::ZERO);
        let secret = SecretKey::generate(&mut seed.stream("key"));
        let inbox = Identity([3; 32]);
        let client = Client::new(
            Arc::new(NullCodec),
            times,
            &seed,
            class.clone(),
            (secret, inbox),
            ClientSettings::default(),
        );
        let authority = crate::world::Authority::new(60);
        let document = authority.document(1_000);
        let mut sender = Sender::new(client, Uplink::new(&seed, class, Time::ZERO));
        let slots = sender.slots();
        assert_eq!(slots.next_slot(), Time::NEVER);
        let gateway = document
            .nodes
            .iter()
            .find(|node| node.descriptor.body().role == shoal_topology::Role::Gateway);
        let gateway = gateway.unwrap().identity();
        sender.set_document(Time::ZERO, document.begins, authority.sign(&document)).unwrap();
        sender.follow_from(Time::ZERO, Time::ZERO);
        assert_eq!(slots.next_slot(), Time::NEVER, "a document alone is no link");
        sender.set_link(Time::ZERO, Some(gateway));
        assert_ne!(slots.next_slot(), Time::NEVER);
        assert_eq!(sender.produce(Time::ZERO, Time::ZERO), Produced::Cover);
        while sender.produce(Time::ZERO, Time::ZERO) != Produced::Nothing {}
        let taken = slots.take(slots.next_slot());
        assert_eq!(slots.filled().filler, 0, "what left was sealed");
        assert_ne!(taken.field, 0xffff);
        sender.set_link(Time::from_millis(50), None);
        assert_eq!(slots.next_slot(), Time::NEVER);
    }
}
