//! Messages that change earlier ones: their writers edit those, or take them back.
//!
//! Where a changed message stands is told of the message that its user sees: first of the message itself, and once that has arrived,
//! of the last change.

use super::*;

impl People {
    /// A message that changes one of this device: its text is another, or it is taken back. Of several changes of a message the one
    /// with the latest second counts: this one's is later than `after_s`, also where the clock was set back since.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn send_change(
        &mut self,
        now: u64,
        to: impl Into<Conversation>,
        change: &Body,
        after_s: u64,
    ) -> Result<MessageName, NotSent> {
        let written = now.max(after_s.saturating_add(1).saturating_mul(1_000));
        self.send_written((now, written), to.into(), change, 0)
    }

    /// True if a message of somebody else is known to have come, or is waited for no more: a change of it that is not there any more
    /// finds nothing. One of a stream that is not remembered may still come.
    pub fn has_come(&self, name: &MessageName) -> bool {
        let peer = self.peers.get(&name.device);
        !self.pieces.contains_key(name) && peer.is_some_and(|peer| peer.has_come(name))
    }

    /// A message goes: its text and those of its changes, as far as they wait or are kept here, so that whoever has not got them gets
    /// nothing in their place. If something of them may be on its way, or has arrived, its readers are told that it is taken back, by a
    /// change that is later than `after_s`.
    ///
    /// # Errors
    /// It stays, and why.
    pub fn take_back(
        &mut self,
        now: u64,
        to: impl Into<Conversation>,
        name: MessageName,
        after_s: u64,
    ) -> Result<(), NotSent> {
        let to = to.into();
        if self.waiting.len() >= MAX_WAITING {
            return Err(NotSent::Full);
        }
        let (mut has_left, mut is_known) = (false, false);
        for name in self.with_changes(name) {
            let message = self.waiting.get_mut(&name).or_else(|| self.over.get_mut(&name));
            let Some(message) = message else { continue };
            is_known = true;
            message.erase_text();
            let mut parts = message.targets.values().flatten();
            has_left |= parts.any(|part| part.tries > 0 || part.posted > 0);
            self.save_message(name);
        }
        // What is not known any more was sent for long enough. Of who has no device any more nobody is told.
        if (has_left || !is_known) && !self.devices_of(to).is_empty() {
            self.send_change(now, to, &Body::Delete(name), after_s)?;
        }
        self.flush();
        Ok(())
    }

    /// The texts of messages that have arrived or were given up go, and those of their changes: a device that lost them does not get
    /// them again.
    pub fn forget_texts(&mut self, names: &[MessageName]) {
        for name in names.iter().flat_map(|name| self.with_changes(*name)).collect::<Vec<_>>() {
            if let Some(message) = self.over.get_mut(&name) {
                message.erase_text();
                self.save_message(name);
            }
        }
        self.flush();
    }

    /// A message of this device, and those that change it.
    fn with_changes(&self, of: MessageName) -> Vec<MessageName> {
        let all = self.waiting.values().chain(self.over.values());
        let changes = all.filter(|message| message.changes() == Some(of));
        std::iter::once(of).chain(changes.map(|change| change.name)).collect()
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
        let is_shown = !message(&shown).is_some_and(Outgoing::is_of_log);
        if let Some(told) = told.cloned().filter(|_| is_shown) {
            self.effects.push_back(Output::State(shown, told));
        }
    }
}
