//! Messages to people: when one leaves.
//!
//! A letter takes a slot without a loop, so that the loops of whoever writes come back as they would have. At the reader it
//! is one packet more, which nobody there knows of before it has come; what hides it is that the instant says little: each
//! letter waits a time of its own, drawn anew, so that those of a burst come apart and nobody who knows when they were
//! written knows when to look. How much it hides is in THREAT-MODEL.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_sphinx::MESSAGE_LEN;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Class, Identity, Stream, Time, exponential};

use super::packets::PacketDraft;
use super::types::{MAX_LETTERS, NotReached};
use super::{Client, ClientOutput, Contact, NotPosted, QUERY_LIMIT, Query};
use crate::route::Recipient;
use crate::uplink::{Departed, LetterId, Ready, Slot};

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

/// To whom a letter goes.
enum To {
    /// Somebody of whom all is known.
    Contact(Contact),
    /// Whoever has this address: his descriptor is asked for.
    Address(ServiceAddress),
}

struct Letter {
    id: LetterId,
    due: Time,
    to: To,
    message: Vec<u8>,
}

/// The letters that have not left, in the order in which they were written.
pub(super) struct Outbox {
    waiting: Vec<Letter>,
    /// Those that are sealed for a slot.
    sealed: Vec<Letter>,
    /// Of whom descriptors are wanted.
    sought: BTreeSet<ServiceAddress>,
    next_id: u64,
    holds: Stream,
}

impl Outbox {
    pub(super) fn new(holds: Stream) -> Self {
        let (waiting, sealed, sought) = Default::default();
        Self { waiting, sealed, sought, next_id: 0, holds }
    }

    /// How many letters have not left.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.sealed.len()
    }

    fn add(&mut self, due: Time, to: To, message: &[u8]) -> LetterId {
        let id = LetterId(self.next_id);
        self.next_id += 1;
        let mut letter = Vec::with_capacity(1 + message.len());
        letter.push(kind::MESSAGE);
        letter.extend_from_slice(message);
        self.waiting.push(Letter { id, due, to, message: letter });
        id
    }

    /// A letter has left; false if it is none of these.
    fn left(&mut self, id: LetterId) -> bool {
        let before = self.sealed.len();
        self.sealed.retain(|letter| letter.id != id);
        self.sealed.len() < before
    }

    /// A letter that was sealed leaves in no slot: it is sealed anew, for one that comes.
    pub(super) fn thrown(&mut self, id: LetterId) {
        if let Some(at) = self.sealed.iter().position(|letter| letter.id == id) {
            let letter = self.sealed.remove(at);
            let place = self.waiting.partition_point(|other| other.id < id);
            self.waiting.insert(place, letter);
        }
    }

    /// The addresses that letters, or others, wait for, each once.
    pub(super) fn addresses(&self) -> Vec<ServiceAddress> {
        let address = |letter: &Letter| match &letter.to {
            To::Address(address) => Some(*address),
            To::Contact(_) => None,
        };
        let mut all: Vec<_> = self.waiting.iter().filter_map(address).collect();
        all.extend(&self.sought);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Takes out the letters to an address.
    pub(super) fn give_back(&mut self, of: &ServiceAddress) -> Vec<LetterId> {
        let is_of = |letter: &mut Letter| matches!(&letter.to, To::Address(to) if to == of);
        self.waiting.extract_if(.., is_of).map(|letter| letter.id).collect()
    }
}

impl Client {
    /// A message to a person. It waits a time that is drawn, some seconds, and leaves in a payload slot that would carry drop
    /// cover. Letters may overtake each other, and be lost; whoever needs to know has the other end answer.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn post(
        &mut self,
        now: Time,
        contact: &Contact,
        message: &[u8],
    ) -> Result<LetterId, NotPosted> {
        let may_leave = |client: &Self| {
            // Any gateway may be the other's, also this one: a rule would show peers by the choice of gateways.
            client.own_gateway(now)?;
            client.router.gateway(now, &contact.gateway)
        };
        if message.len() < MESSAGE_LEN && may_leave(self).is_none() {
            return Err(NotPosted::NoPath);
        }
        self.take_letter(now, To::Contact(*contact), message)
    }

    /// As [`Client::post`], to whoever has this address: the gateway that it names is asked for his descriptor first, and the
    /// letter waits for the answer. It is [`ClientOutput::Returned`] if there is none.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn write(
        &mut self,
        now: Time,
        to: ServiceAddress,
        message: &[u8],
    ) -> Result<LetterId, NotPosted> {
        self.next_tick = now;
        self.take_letter(now, To::Address(to), message)
    }

    /// Asks for the descriptor of whoever has this address, unless one is known that carries something: it comes as
    /// [`ClientOutput::Described`], once.
    pub fn seek(&mut self, now: Time, address: ServiceAddress) {
        self.next_tick = now;
        // It may carry something by now. Nobody talks to a service by the address of a person.
        if self.descriptors.get(&address).is_some_and(|known| known.descriptor.attached.is_empty())
        {
            self.descriptors.remove(&address);
        }
        self.outbox.sought.insert(address);
    }

    fn take_letter(&mut self, now: Time, to: To, message: &[u8]) -> Result<LetterId, NotPosted> {
        if message.len() >= MESSAGE_LEN {
            return Err(NotPosted::TooLong);
        }
        if self.outbox.len() >= MAX_LETTERS {
            return Err(NotPosted::Full);
        }
        // Drawn also where letters leave at once, so that the setting moves no other draw.
        let hold = exponential(&mut self.outbox.holds, hold(&self.class));
        let due = if self.settings.letters_at_once { now } else { now + hold };
        Ok(self.outbox.add(due, to, message))
    }

    /// Asks for the descriptors of those whom letters wait for, and gives back letters to whom nobody knows.
    pub(super) fn seek_recipients(&mut self, now: Time) {
        // While nothing may leave nothing can be answered: time that passes now speaks against nobody.
        if self.own_gateway(now).is_none() || self.protection(now).is_err() {
            return;
        }
        for address in self.outbox.addresses() {
            if self.contact(now, &address).is_some() {
                self.describe(&address);
                continue;
            }
            if self.router.gateway(now, &Identity(address.gateway)).is_none() {
                self.queries.remove(&address);
                self.give_back(&address, NotReached::UnknownGateway);
                continue;
            }
            let query = self.queries.entry(address).or_insert(Query { since: now, asked: None });
            // Until it could leave it waits for its own gateway, not for the other's.
            if query.asked.is_none() {
                query.since = now;
            }
            if now.since(query.since) > QUERY_LIMIT * self.patience() {
                self.queries.remove(&address);
                self.give_back(&address, NotReached::NoAnswer);
            }
        }
    }

    /// Letters to an address, and who asked for its descriptor, wait no longer.
    pub(super) fn give_back(&mut self, of: &ServiceAddress, why: NotReached) {
        let given = self.outbox.give_back(of);
        self.outputs.extend(given.into_iter().map(|id| ClientOutput::Returned(id, why)));
        if self.outbox.sought.remove(of) {
            self.outputs.push_back(ClientOutput::Described(*of, Err(why)));
        }
    }

    /// Whoever asked for a descriptor gets it.
    fn describe(&mut self, of: &ServiceAddress) {
        let Some(cached) = self.descriptors.get(of) else { return };
        if self.outbox.sought.remove(of) {
            let descriptor = Box::new(cached.descriptor.clone());
            self.outputs.push_back(ClientOutput::Described(*of, Ok(descriptor)));
        }
    }

    /// Where whoever has this address is reached, if that is known.
    fn contact(&self, now: Time, address: &ServiceAddress) -> Option<Contact> {
        let descriptor = &self.descriptors.get(address)?.descriptor;
        let unix_s = self.router.unix_s(now);
        if !(descriptor.not_before..=descriptor.not_after).contains(&unix_s) {
            return None;
        }
        // That of the address: it answered, so it has the inbox.
        let gateway = Identity(address.gateway);
        self.router.gateway(now, &gateway)?;
        Some(Contact { inbox: descriptor.inbox, key: descriptor.public_key()?, gateway })
    }

    /// What the uplink has sent, and what it has thrown away.
    pub fn departed(&mut self, departed: Departed) {
        let Departed { loops, letters, thrown } = departed;
        loops.into_iter().for_each(|(id, at)| self.loops.sent(id, at));
        for id in letters {
            if self.outbox.left(id) {
                self.outputs.push_back(ClientOutput::Left(id));
            }
        }
        thrown.into_iter().for_each(|id| self.outbox.thrown(id));
    }

    /// A letter for a slot, if one has waited long enough.
    pub(super) fn make_letter(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        let due = self.outbox.waiting.iter().enumerate();
        let (at, contact) =
            due.filter(|(_, letter)| letter.due <= slot.at).find_map(|(at, letter)| {
                let contact = match &letter.to {
                    To::Contact(contact) => Some(*contact),
                    To::Address(address) => self.contact(now, address),
                };
                Some((at, contact?))
            })?;
        let letter = self.outbox.waiting.remove(at);
        let Contact { inbox, key, gateway } = contact;
        let end = Recipient { address: inbox.0, key };
        let (id, message) = (letter.id, letter.message.clone());
        // Before it is known whether there is a path: without one it waits for another slot.
        self.outbox.sealed.push(letter);
        let draft = self.send_to_end(slot, gateway, end, message);
        if draft.is_none() {
            self.outbox.thrown(id);
        }
        Some(draft?.ready(Ready::Letter(id)))
    }
}
