//! What leaves, and when.

use rand::SeedableRng;
use shoal_topology::directory::address::ServiceAddress;

use super::notes::nothing;
use super::*;
use crate::frame::{Before, Frame};
use crate::packet::{Between, Opener};
use crate::peer::UNANSWERED;
use crate::session::Session;

/// After so long they are asked for again the first time, and then after twice as long as the message waits already, for an hour:
/// others may hear of whoever was let in before he does, and he has published nothing yet.
const EARLY_MS: u64 = 30_000;
/// The mean time after a device is no longer held until what waited for it leaves.
const HELD_MS: u64 = 10 * 60_000;
/// A session that is older is looked at: a new period of the other one may have begun.
const AGED_MS: u64 = DAY_MS / 2;
/// Most second copies that may leave at once.
const BURST: f64 = 8.0;

/// A part that may be sent, in the order in which they are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct DuePart {
    has_left: bool,
    is_to_group: bool,
    due: u64,
    name: MessageName,
    device: u32,
    part: usize,
}

/// How many letters with messages the mixnet's client has.
#[derive(Default)]
struct PostedParts {
    all: usize,
    to_groups: usize,
    by_device: BTreeMap<u32, usize>,
}

impl PostedParts {
    /// True if it may have one more for this device.
    fn has_room(&self, is_to_group: bool, device: u32) -> bool {
        let of_device = self.by_device.get(&device).copied().unwrap_or_default();
        let of_groups = !is_to_group || self.to_groups < POSTED_GROUPS;
        self.all < POSTED && of_device < POSTED_EACH && of_groups
    }
}

impl People {
    /// Sends what is due.
    pub(super) fn pump(&mut self, now: u64) {
        self.expire(now);
        if !self.is_online || !self.roster.is_current {
            return;
        }
        self.tend_groups(now);
        let mut posted = self.posted_parts();
        for due in self.due(now) {
            if posted.has_room(due.is_to_group, due.device) {
                self.send_part(now, due.name, due.device, due.part);
                posted = self.posted_parts();
            }
        }
        let peers: Vec<u32> = self.peers.keys().copied().collect();
        for device in peers {
            let notes = self.posted.values().filter(|posted| **posted == Posted::Note).count();
            if notes < NOTES {
                self.send_note(now, device);
            }
        }
    }

    /// Letters with messages that the mixnet's client has.
    fn posted_parts(&self) -> PostedParts {
        let mut posted = PostedParts::default();
        for letter in self.posted.values() {
            if let Posted::Part { device, message, .. } = letter {
                *posted.by_device.entry(*device).or_default() += 1;
                posted.all += 1;
                let is_to_group = self.waiting.get(message).is_some_and(Outgoing::is_to_group);
                posted.to_groups += usize::from(is_to_group);
            }
        }
        posted
    }

    /// Messages that were sent for long enough.
    fn expire(&mut self, now: u64) {
        let is_over = |(name, message): (&MessageName, &Outgoing)| {
            (message.written.saturating_add(LIFE_MS) <= now).then_some(*name)
        };
        let over: Vec<MessageName> = self.waiting.iter().filter_map(is_over).collect();
        let why_queued = self.why_queued();
        for name in over {
            let Some(message) = self.waiting.get_mut(&name) else { continue };
            if !message.is_delivered() && message.told != State::Delivered {
                let parts = message.targets.values().flatten().filter(|part| !part.is_acked);
                let why = parts.map(|part| part.why).max().unwrap_or(Waiting::NoAck);
                let has_left = message.targets.values().flatten().any(|part| part.left.is_some());
                let why = match (why, has_left) {
                    (Waiting::Turn, true) => Waiting::NoAck,
                    (Waiting::Turn, false) => why_queued,
                    (why, _) => why,
                };
                message.told = State::Expired(why);
                self.tell_state(name);
            }
            self.put_away(now, name);
        }
    }

    /// Parts that are due: those that were never sent first, and of these messages to one person.
    fn due(&self, now: u64) -> Vec<DuePart> {
        let mut due = Vec::new();
        for (name, message) in &self.waiting {
            let is_to_group = message.is_to_group();
            for (device, parts) in &message.targets {
                for (at, part) in parts.iter().enumerate() {
                    if !part.is_acked && part.posted == 0 && part.due <= now {
                        let (has_left, name) = (part.left.is_some(), *name);
                        let (device, at) = (*device, at);
                        due.push(DuePart {
                            has_left,
                            is_to_group,
                            due: part.due,
                            name,
                            device,
                            part: at,
                        });
                    }
                }
            }
        }
        due.sort_unstable();
        due
    }

    /// Sends a part, or notes why it cannot be sent.
    fn send_part(&mut self, now: u64, name: MessageName, device: u32, part: usize) {
        let Some(listed) = self.roster.devices.get(&device).copied() else { return };
        let Some(delivery) = self.delivery(name, device, part) else { return };
        let is_sealed = !delivery.sealed.is_empty();
        let held = listed.held_until.saturating_mul(1_000);
        if held > now {
            // Not all at the same instant, which everybody knows.
            let due = later(&mut self.draws, held, HELD_MS);
            if let Some(delivery) = self.delivery(name, device, part) {
                (delivery.due, delivery.why) = (due, Waiting::Held);
            }
            return self.settle(now, name);
        }
        if !is_sealed {
            match self.session_for(now, device) {
                Ok(session) => self.seal_part(now, name, (device, session), part),
                Err(why) => return self.hold(now, name, (device, part), why),
            }
        }
        let Some(delivery) = self.delivery(name, device, part) else { return };
        let packets = delivery.sealed.clone();
        delivery.posted = packets.len() as u8;
        self.save_message(name);
        for packet in packets {
            self.post(Posted::Part { message: name, device, part }, listed.address, packet);
        }
    }

    pub(super) fn delivery(
        &mut self,
        name: MessageName,
        device: u32,
        part: usize,
    ) -> Option<&mut Delivery> {
        self.waiting.get_mut(&name)?.targets.get_mut(&device)?.get_mut(part)
    }

    pub(super) fn post(&mut self, what: Posted, to: ServiceAddress, message: Vec<u8>) {
        let letter = self.next_letter;
        self.next_letter.0 += 1;
        self.posted.insert(letter, what);
        self.effects.push_back(Output::Post { letter, to, message });
    }

    /// A part waits for the keys of its device.
    fn hold(&mut self, now: u64, name: MessageName, to: (u32, usize), why: Waiting) {
        let written = self.waiting.get(&name).map_or(now, |message| message.written);
        let age = now.saturating_sub(written);
        let mut draws = self.draws.clone();
        let Some(delivery) = self.delivery(name, to.0, to.1) else { return };
        delivery.why = why;
        if why == Waiting::NoKeys {
            delivery.due = match age < HOUR_MS {
                true => now + (age.max(EARLY_MS) as f64 * draws.random_range(0.7..1.3)) as u64,
                false => next_try(&mut draws, now, now, false),
            };
            self.draws = draws;
        }
        self.settle(now, name);
    }

    /// The session that a device is written to by; opened where that is due.
    pub(super) fn session_for(&mut self, now: u64, device: u32) -> Result<u32, Waiting> {
        let listed = *self.roster.devices.get(&device).ok_or(Waiting::Removed)?;
        let peer = self.peers.entry(device).or_default();
        let sending = peer.sending();
        let session = sending.and_then(|number| peer.sessions.get(&number));
        let is_aged = session.is_some_and(|session| session.since() + AGED_MS <= now);
        // Where nothing comes back the other one may have lost it.
        let is_spent = session.is_none_or(|session| {
            let is_void = session.unanswered() > 1 && session.lived() + AGED_MS <= now;
            is_void || session.unanswered() >= UNANSWERED
        });
        let asked_within = |ms| peer.sought.is_some_and(|at| at + ms > now);
        let found = peer.found.as_ref().filter(|found| found.until >= now / 1_000);
        let is_turned = |found: &&Found| {
            let key = found.published.keys.id();
            session.is_some_and(|session| session.their_key() != Some(key))
        };
        // A new session begins with the newest keys; who gave none out is asked again within the hour.
        let soon = is_spent || (is_aged && peer.found.is_none());
        let wants = if soon { !asked_within(SOUGHT_MS) } else { is_aged && !asked_within(AGED_MS) };
        if wants {
            if !peer.is_sought {
                peer.is_sought = true;
                self.effects.push_back(Output::Seek { device, address: listed.address });
            }
            return Err(Waiting::Keys);
        }
        let opens = is_spent || (is_aged && found.as_ref().is_some_and(is_turned));
        match (opens, found.cloned(), sending) {
            (false, _, Some(number)) | (true, None, Some(number)) => Ok(number),
            (_, Some(found), _) => self.open(now, device, &found).ok_or(Waiting::NoKeys),
            (_, None, None) => Err(Waiting::NoKeys),
        }
    }

    /// Opens a session with a device.
    fn open(&mut self, now: u64, device: u32, found: &Found) -> Option<u32> {
        let listed = self.roster.devices.get(&device)?;
        let between = Between {
            organisation: &self.roster.organisation,
            to: &listed.key,
            period: found.begins,
        };
        let keys = &found.published.keys;
        let secret = &self.me.1;
        let (identity, size) = (secret.identity(), self.roster.size);
        let me = Opener { device: self.me.0, identity, secret, size };
        let session = Session::open(now, &between, keys, &me, &mut self.random).ok()?;
        // From here on nobody computes what this session began with, who learns what is drawn from.
        self.random = Stream::from_seed(self.random.random());
        self.add_session(device, session)
    }

    /// Adds a session to a device. Its number.
    pub(super) fn add_session(&mut self, device: u32, session: Session) -> Option<u32> {
        let (number, gone) = self.peers.get_mut(&device)?.add(session);
        gone.into_iter().for_each(|gone| self.forget(Key::Session(device, gone)));
        self.save_session(device, number);
        self.save_peer(device);
        Some(number)
    }

    /// Encrypts a part.
    fn seal_part(&mut self, now: u64, name: MessageName, to: (u32, u32), part: usize) {
        let (device, session) = to;
        let oldest = self.oldest(name.stream, device);
        let begin = self.kept_of(name.stream, device).map(|(begin, _)| begin);
        let ack = self.ack(now, device);
        let Some(message) = self.waiting.get(&name) else { return };
        let Some(content) = message.parts.get(part).cloned() else { return };
        let before = message.before.iter().filter_map(|stream| {
            let (begin, next) = self.kept_of(*stream, device)?;
            let oldest = self.oldest(*stream, device).unwrap_or(next);
            Some(Before { stream: *stream, begin, oldest })
        });
        let before = before.collect();
        let sequence = name.sequence + part as u32;
        let frame = Frame {
            stream: name.stream,
            sequence,
            begin: begin.unwrap_or(sequence).min(sequence),
            oldest: oldest.unwrap_or(sequence).min(sequence),
            before,
            part: part as u8,
            parts: message.parts.len() as u8,
            sent_at: message.written / 1_000,
            group: message.mark,
            ack,
            expires_s: message.expires_s,
            content,
        };
        let sealed = self.seal(device, session, &frame);
        if let Some(delivery) = self.delivery(name, device, part) {
            delivery.sealed = sealed;
            delivery.tries = delivery.tries.saturating_add(1);
            delivery.is_second = false;
            if delivery.tries == 1 {
                delivery.why = Waiting::Turn;
            }
        }
    }

    /// Encrypts a frame for a device: in one packet, or two where the frame does not fit beside the opening.
    pub(super) fn seal(&mut self, device: u32, number: u32, frame: &Frame) -> Vec<Vec<u8>> {
        let Some(peer) = self.peers.get_mut(&device) else { return Vec::new() };
        let Some(session) = peer.sessions.get_mut(&number) else { return Vec::new() };
        let bytes = zeroize::Zeroizing::new(frame.encode());
        let mut packets = Vec::new();
        if bytes.len() <= session.room() {
            packets.extend(session.seal(&bytes, &mut self.random));
        } else {
            let opening = Frame { content: Body::Empty.encode(), ..nothing(frame.ack.clone()) };
            packets.extend(session.seal(&opening.encode(), &mut self.random));
            packets.extend(session.seal_further(&bytes, &mut self.random));
        }
        self.save_session(device, number);
        packets
    }

    /// The lowest sequence of a stream that a device has not acknowledged.
    fn oldest(&self, stream: u64, device: u32) -> Option<u32> {
        let of = self.waiting.range(MessageName { device: self.me.0, stream, sequence: 0 }..);
        let of = of.take_while(|(name, _)| name.stream == stream);
        of.filter_map(|(name, message)| {
            let parts = message.targets.get(&device)?;
            let first = parts.iter().position(|part| !part.is_acked)?;
            Some(name.sequence + first as u32)
        })
        .min()
    }

    /// The first sequence of a stream that is kept for a device, and the one after the last; none if there is none.
    fn kept_of(&self, stream: u64, device: u32) -> Option<(u32, u32)> {
        let of = |all: &BTreeMap<MessageName, Outgoing>| {
            let from = MessageName { device: self.me.0, stream, sequence: 0 };
            let to = MessageName { sequence: u32::MAX, ..from };
            let mut own =
                all.range(from..=to).filter(|(_, message)| message.targets.contains_key(&device));
            let (first, only) = own.next()?;
            let (last, message) = own.next_back().unwrap_or((first, only));
            Some((first.sequence, last.sequence + message.parts.len() as u32))
        };
        let all = [of(&self.waiting), of(&self.over)];
        all.into_iter().flatten().reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
    }

    /// A letter has left.
    pub(super) fn left(&mut self, now: u64, letter: LetterNumber) {
        let Some(Posted::Part { message, device, part }) = self.posted.remove(&letter) else {
            return;
        };
        let is_silent = self.is_silent(now, device);
        let is_to_group = self.waiting.get(&message).is_some_and(Outgoing::is_to_group);
        let may_repeat = !is_silent && !is_to_group && self.may_repeat(now);
        let mut draws = self.draws.clone();
        let Some(delivery) = self.delivery(message, device, part) else { return };
        delivery.posted = delivery.posted.saturating_sub(1);
        if delivery.posted > 0 || delivery.is_acked {
            return;
        }
        let left = *delivery.left.get_or_insert(now);
        let is_first = delivery.tries <= 1 && delivery.wanted == 0;
        if is_first && !delivery.is_second && may_repeat {
            delivery.is_second = true;
            delivery.due = later(&mut draws, now, SECOND_MS);
        } else {
            if !is_first {
                delivery.why = Waiting::NoAck;
            }
            delivery.is_second = false;
            delivery.sealed.clear();
            delivery.due = next_try(&mut draws, left, now, is_silent);
        }
        self.draws = draws;
        self.settle(now, message);
    }

    /// True if nothing came from a device for a day, though something was sent to it.
    fn is_silent(&self, now: u64, device: u32) -> bool {
        let heard = self.peers.get(&device).and_then(|peer| peer.kept.heard);
        let parts =
            || self.waiting.values().filter_map(|message| message.targets.get(&device)).flatten();
        let since = heard.or_else(|| parts().filter_map(|part| part.left).min());
        since.is_some_and(|since| since + DAY_MS <= now)
    }

    /// Says whether a second copy may leave now, and counts it.
    fn may_repeat(&mut self, now: u64) -> bool {
        let (have, since) = self.copies;
        let new = now.saturating_sub(since) as f64 / 1_000.0 * self.settings.copies_per_s;
        let have = (have + new).min(BURST);
        self.copies = (if have >= 1.0 { have - 1.0 } else { have }, now);
        have >= 1.0
    }

    /// Nobody knows the addressee of a letter.
    pub(super) fn returned(&mut self, now: u64, letter: LetterNumber) {
        let Some(Posted::Part { message, device, part }) = self.posted.remove(&letter) else {
            return;
        };
        let mut draws = self.draws.clone();
        if let Some(peer) = self.peers.get_mut(&device) {
            peer.found = None;
        }
        let Some(delivery) = self.delivery(message, device, part) else { return };
        delivery.posted = delivery.posted.saturating_sub(1);
        delivery.sealed.clear();
        delivery.why = Waiting::NoKeys;
        delivery.due = next_try(&mut draws, now, now, false);
        self.draws = draws;
        self.settle(now, message);
    }

    /// Tells where a message stands if that is another place than before, and puts it away where it is over.
    pub(super) fn settle(&mut self, now: u64, name: MessageName) {
        let why_queued = self.why_queued();
        let Some(message) = self.waiting.get_mut(&name) else { return };
        let is_gone = message.targets.is_empty();
        let state = if is_gone && message.told != State::Delivered {
            let is_to_group = message.is_to_group();
            State::Expired(if is_to_group { Waiting::NotShared } else { Waiting::Removed })
        } else if message.told == State::Delivered {
            State::Delivered
        } else {
            queued_for(message.state(), why_queued)
        };
        let is_over = is_gone || message.is_done();
        let reach = message.reach();
        let is_other = state != message.told;
        if message.is_to_group() && reach != message.reached && !is_gone {
            message.reached = reach;
            self.effects.push_back(Output::Reached(name, reach.0, reach.1));
        }
        if is_other {
            message.told = state;
            self.tell_state(name);
        }
        if is_over {
            self.put_away(now, name);
        } else {
            self.save_message(name);
        }
    }

    /// Why what could leave does not.
    pub(super) fn why_queued(&self) -> Waiting {
        match (self.is_online, self.roster.is_current) {
            (false, _) => Waiting::Offline,
            (true, false) => Waiting::Directory,
            (true, true) => Waiting::Turn,
        }
    }

    /// What waits to leave waits for something else now. Which messages those are.
    pub(super) fn requeue(&mut self) -> Vec<MessageName> {
        let why = self.why_queued();
        let mut changed = Vec::new();
        for (name, message) in &mut self.waiting {
            if matches!(message.told, State::Queued(_)) {
                let state = queued_for(message.state(), why);
                if state != message.told {
                    message.told = state;
                    changed.push(*name);
                }
            }
        }
        changed
    }

    /// Tells what waits to leave, and for what, if that is something else now.
    pub(super) fn retell(&mut self) {
        for name in self.requeue() {
            self.tell_state(name);
        }
    }

    /// A message is tried no more. It is kept for as long as a device may find that it lost it.
    fn put_away(&mut self, now: u64, name: MessageName) {
        let Some(mut message) = self.waiting.remove(&name) else { return };
        message.targets.values_mut().flatten().for_each(|part| {
            part.sealed.clear();
            part.posted = 0;
        });
        self.over.insert(name, message);
        self.save_message(name);
        let is_old = |message: &Outgoing| message.written.saturating_add(LIFE_MS) <= now;
        let mut gone: Vec<MessageName> =
            self.over.iter().filter(|(_, m)| is_old(m)).map(|(name, _)| *name).collect();
        if self.over.len() - gone.len() > MAX_OVER {
            let oldest = self.over.iter().filter(|(_, m)| !is_old(m));
            gone.extend(oldest.min_by_key(|(_, message)| message.written).map(|(name, _)| *name));
        }
        for name in gone {
            self.over.remove(&name);
            self.drop_change(name);
            self.forget(Key::Outgoing(name));
        }
    }

    /// The next instant at which something is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        let written =
            self.waiting.values().map(|message| message.written.saturating_add(LIFE_MS)).min();
        if !self.is_online || !self.roster.is_current {
            return written;
        }
        let is_sought = |device: &u32| self.peers.get(device).is_some_and(|peer| peer.is_sought);
        let posted = self.posted_parts();
        // What waits for a letter to leave is looked at when one has.
        let parts = self.waiting.values().flat_map(|message| {
            let is_to_group = message.is_to_group();
            let can_leave = move |device: &u32| !is_sought(device);
            let targets = message.targets.iter().filter(move |(device, _)| can_leave(device));
            let posted = &posted;
            targets
                .filter(move |(device, _)| posted.has_room(is_to_group, **device))
                .flat_map(|(_, parts)| parts)
        });
        let parts = parts.filter(|part| !part.is_acked && part.posted == 0).map(|part| part.due);
        let notes_posted = self.posted.len() - posted.all;
        let peers = self.peers.values().filter(|peer| !peer.is_sought && notes_posted < NOTES);
        let notes =
            peers.flat_map(|peer| [peer.kept.owed_at, peer.kept.want_at, peer.kept.broken_at]);
        let groups = self.groups.due();
        parts.chain(notes.flatten()).chain(groups).chain(written).min()
    }
}

/// Where a message stands: what waits for its turn waits for what keeps everything from leaving.
fn queued_for(state: State, why: Waiting) -> State {
    if state == State::Queued(Waiting::Turn) { State::Queued(why) } else { state }
}
