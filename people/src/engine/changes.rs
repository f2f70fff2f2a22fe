//! Messages that change earlier ones: their writers edit those, or take them back.
//!
//! A change that overtook the message that it changes waits for it. And where a changed message stands is told of the message that
//! its user sees: first of the message itself, and once that has arrived, of the last change.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::*;
use crate::Error;

/// Most changes of one device that wait for what they change.
const EARLY: usize = 64;

/// A change of a message that has not come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Early {
    message: ReceivedMessage,
    /// When it came, Unix milliseconds.
    since: u64,
}

/// [`Early`] as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptEarly {
    message: Vec<u8>,
    since: u64,
}

impl Early {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut wire = KeptEarly { message: self.message.encode(), since: self.since };
        let bytes = Zeroizing::new(encode(&wire));
        wire.message.zeroize();
        bytes
    }

    /// Reads them.
    ///
    /// # Errors
    /// Bytes of another form.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let KeptEarly { message, since } =
            shoal_topology::encoding::decode("change that came early", bytes, 64 << 10)?;
        Ok(Self { message: ReceivedMessage::decode(&message)?, since })
    }
}

impl People {
    /// A message has come, whole.
    pub(super) fn came_whole(&mut self, now: u64, message: ReceivedMessage) {
        let device = message.name.device;
        let waits = message.body.changes().filter(|of| self.is_on_its_way(device, of));
        let of_device = |name: &&MessageName| name.device == device;
        if waits.is_none() || self.early.keys().filter(of_device).count() >= EARLY {
            return self.receive(message);
        }
        let name = message.name;
        let early = Early { message, since: now };
        self.keep(Key::Early(name), early.encode());
        self.early.insert(name, early);
    }

    fn receive(&mut self, message: ReceivedMessage) {
        self.keep(Key::Received(message.name), Zeroizing::new(message.encode()));
        self.effects.push_back(Output::Received(message));
    }

    /// True if a device's message has not come, and may.
    fn is_on_its_way(&self, device: u32, name: &MessageName) -> bool {
        let peer = self.peers.get(&device).filter(|_| name.device == device);
        peer.is_some_and(|peer| self.pieces.contains_key(name) || !peer.has_come(name))
    }

    /// Receives a change that waited for what has come now. What it changes has to be kept before, and so has another change of
    /// the same. False if there is none.
    pub(super) fn receive_early(&mut self) -> bool {
        let has_come = |early: &Early| {
            let of = early.message.body.changes();
            of.is_none_or(|of| !self.is_on_its_way(early.message.name.device, &of))
        };
        let ripe = self.early.iter().find(|(_, early)| has_come(early)).map(|(name, _)| *name);
        let Some((name, early)) = ripe.and_then(|name| self.early.remove_entry(&name)) else {
            return false;
        };
        self.forget(Key::Early(name));
        self.receive(early.message);
        true
    }

    /// Receives all that waited for what has come now, each in a piece of its own.
    pub(super) fn flush_early(&mut self) {
        while self.receive_early() {
            self.flush();
        }
    }

    /// Forgets the changes by removed devices, and those of what will not come any more.
    pub(super) fn drop_early(&mut self, now: u64) {
        let devices = &self.roster.devices;
        let is_over = |name: &MessageName, early: &mut Early| {
            !devices.contains_key(&name.device) || early.since.saturating_add(LIFE_MS) <= now
        };
        let gone: Vec<_> = self.early.extract_if(.., is_over).map(|(name, _)| name).collect();
        gone.into_iter().for_each(|name| self.forget(Key::Early(name)));
    }

    /// A message of this device is kept: if it changes another one, that one stands where this one does.
    pub(super) fn note_change(&mut self, name: MessageName) {
        let message = |name| self.waiting.get(name).or_else(|| self.over.get(name));
        let Some(of) = message(&name).and_then(Outgoing::changes) else { return };
        let last = self.changed.get(&of).and_then(message);
        let is_later = |last: &Outgoing| message(&name).is_some_and(|new| new.is_later(last));
        if last.is_none_or(is_later) {
            self.changed.insert(of, name);
        }
    }

    /// A message of this device is forgotten.
    pub(super) fn drop_change(&mut self, name: MessageName) {
        self.changed.retain(|_, change| *change != name);
    }

    /// Tells where a message stands whose own place is another one now, or that of the message that it changes.
    pub(super) fn tell_state(&mut self, name: MessageName) {
        let message = |name| self.waiting.get(name).or_else(|| self.over.get(name));
        let shown = message(&name).and_then(Outgoing::changes).unwrap_or(name);
        // A change arrives after what it changes, and is nothing without it.
        let own = message(&shown).map(|message| &message.told);
        let own = own.filter(|told| **told != State::Delivered);
        let change = self.changed.get(&shown).and_then(message).map(|change| &change.told);
        let told = own.or(change).or_else(|| message(&shown).map(|message| &message.told));
        if let Some(told) = told.cloned() {
            self.effects.push_back(Output::State(shown, told));
        }
    }
}
