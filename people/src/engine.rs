//! The engine of a device: sessions with others, what was written, what has come.

mod changes;
mod groups;
mod incoming;
mod notes;
mod records;
mod sending;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{Rng, RngExt};
use shoal_topology::encoding::encode_secret;
use shoal_topology::{Engine, SecretIdentity, Seed, Stream, exponential};

use crate::frame::{MAX_BEFORE, cut};
use crate::outgoing::{Delivery, Outgoing};
use crate::peer::{Found, Peer};
use crate::session::FURTHER_FRAME;
use crate::{
    Body, Conversation, GroupId, GroupMark, MessageName, PeriodKeys, Published, Roster, State,
    Waiting,
};
pub use records::{Change, Key};
pub use types::{
    GroupChanged, GroupDone, Input, LetterNumber, NotRestored, NotSent, Output, PacketNumber,
    PeopleCounts, ReceivedMessage, Settings,
};
use zeroize::Zeroizing;

/// Most bytes of a message in one part.
pub(crate) const PART: usize = FURTHER_FRAME - crate::frame::FRAME_HEAD;
/// Letters with messages that the mixnet's client is given at a time, of one device, and beside them notes.
const POSTED: usize = 32;
const POSTED_EACH: usize = 16;
/// Of these, those with messages to groups: what is written to one person meanwhile is soon ahead of the others.
const POSTED_GROUPS: usize = 8;
const NOTES: usize = 8;
/// Most messages that wait.
const MAX_WAITING: usize = 4_096;
/// Most messages that are kept after they arrived, in case a device lost what it had.
const MAX_OVER: usize = 2_048;
/// How long a message is sent again and again.
const LIFE_MS: u64 = 14 * DAY_MS;
/// The mean time until the second copy of a message leaves.
const SECOND_MS: u64 = 60_000;
/// The mean time until an acknowledgement leaves by itself; so long waits, too, what fell due while there was no link.
const ACK_MS: u64 = HOUR_MS;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// For so long keys are not asked for again that nobody gave out.
const SOUGHT_MS: u64 = 20_000;
/// Packets that came before the one that opens their session.
const STRAYS: usize = 64;
/// Openings by devices that the directory does not have yet.
const HELD: usize = 64;

/// The engine of one device of a person. It has no clock, no randomness but what it was given, and no disk: the driver
///
/// 1. hands in what happened ([`People::handle`]) and what the user writes ([`People::send`]), with the present instant in
///    milliseconds of Unix time;
/// 2. takes outputs in their order. An [`Output::Save`] has to be on disk, whole, before the next output is looked at: what
///    follows it is known to others;
/// 3. after a start hands in everything that was saved ([`People::restore`]), with a seed that was never used before, and is told
///    where each message stands that is kept.
///
/// Each letter has to end in [`Input::Left`] or [`Input::Returned`].
///
/// The ratchet of its sessions draws keys from the system by itself: bytes that nobody can tell from others, and no instants.
pub struct People {
    /// The number of this device, its key.
    me: (u32, SecretIdentity),
    settings: Settings,
    roster: Roster,
    /// How many entries the longest directory had that was seen: a shorter one says nothing of who was removed.
    size: u64,
    /// Those of the present period first, then those that still open sessions.
    keys: Vec<PeriodKeys>,
    peers: BTreeMap<u32, Peer>,
    /// What was written and has not arrived at all devices.
    waiting: BTreeMap<MessageName, Outgoing>,
    /// What has arrived, or is tried no more.
    over: BTreeMap<MessageName, Outgoing>,
    /// The stream of this run for each conversation.
    streams: BTreeMap<Conversation, OwnStream>,
    groups: groups::Groups,
    /// The letters that the mixnet's client has.
    posted: BTreeMap<LetterNumber, Posted>,
    next_letter: LetterNumber,
    /// Second copies that may leave now, and since when they are counted.
    copies: (f64, u64),
    is_online: bool,
    /// Parts of messages of which others have not come.
    pieces: BTreeMap<MessageName, incoming::Pieces>,
    /// The last change of each message of this device that was changed.
    changed: BTreeMap<MessageName, MessageName>,
    /// Packets of no session that is known: the one that opens it may be on its way.
    strays: VecDeque<incoming::Came>,
    /// Openings by devices of a longer directory, and those that came before the keys.
    held: VecDeque<incoming::Came>,
    counts: PeopleCounts,
    changes: BTreeMap<Key, Option<Change>>,
    effects: VecDeque<Output>,
    outputs: VecDeque<Output>,
    random: Stream,
    draws: Stream,
}

/// The stream of messages of a conversation, from when the program began; of a group, from when its people changed last.
struct OwnStream {
    stream: u64,
    /// The next sequence.
    next: u32,
    /// The streams before it, the last one first.
    before: Vec<u64>,
}

/// What a letter carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Posted {
    /// A part of a message.
    Part { message: MessageName, device: u32, part: usize },
    /// An acknowledgement, or a question.
    Note,
}

impl People {
    /// The engine of the device with this number and key. `saved` is all that it had saved.
    ///
    /// # Errors
    /// Something that was saved cannot be read.
    pub fn restore(
        now: u64,
        me: (u32, SecretIdentity),
        settings: Settings,
        roster: Roster,
        seed: &Seed,
        saved: impl IntoIterator<Item = (Key, Vec<u8>)>,
    ) -> Result<Self, NotRestored> {
        let random = seed.stream("people");
        let (keys, peers, waiting, over, streams, posted) = Default::default();
        let (pieces, changed, strays, held) = Default::default();
        let (changes, effects, outputs) = Default::default();
        let draws = seed.stream("instants of people");
        let mut people = Self {
            me,
            settings,
            size: roster.size,
            roster,
            keys,
            peers,
            waiting,
            over,
            streams,
            groups: groups::Groups::default(),
            posted,
            next_letter: LetterNumber(0),
            copies: (0.0, now),
            is_online: false,
            pieces,
            changed,
            strays,
            held,
            counts: PeopleCounts::default(),
            changes,
            effects,
            outputs,
            random,
            draws,
        };
        people.load(saved)?;
        for peer in people.peers.values_mut() {
            peer.clamp(now);
            if peer.begin(now) {
                let at = later(&mut people.draws, now, ACK_MS);
                peer.kept.want_at = Some(peer.kept.want_at.map_or(at, |before| before.min(at)));
            }
        }
        let last = now.saturating_add(LIFE_MS);
        let kept = people.waiting.values_mut().chain(people.over.values_mut());
        for message in kept {
            message.written = message.written.min(now);
            message.targets.values_mut().flatten().for_each(|part| part.due = last.min(part.due));
        }
        let names: Vec<_> = people.waiting.keys().chain(people.over.keys()).copied().collect();
        names.iter().for_each(|name| people.note_change(*name));
        // The program may have ended before it was told, or before changes followed what they change, and had a link.
        people.requeue();
        names.into_iter().for_each(|name| people.tell_state(name));
        let roster = people.roster.clone();
        people.enrolled(now, roster);
        people.flush();
        Ok(people)
    }

    /// Packets that came and were of no use.
    pub fn counts(&self) -> PeopleCounts {
        self.counts
    }

    /// What the device publishes with its descriptor of the present period.
    pub fn published(&self) -> Option<Published> {
        let keys = self.keys.first()?.public().clone();
        Some(Published { keys, device: self.me.0, size: self.roster.size })
    }

    /// A message to a person, or to a group. It goes to all devices that these people have now. What is written to a group is kept for
    /// as long as the group says, where nothing else is said.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub fn send(
        &mut self,
        now: u64,
        to: impl Into<Conversation>,
        body: &Body,
        expires_s: u32,
    ) -> Result<MessageName, NotSent> {
        self.send_written((now, now), to.into(), body, expires_s)
    }

    fn send_written(
        &mut self,
        (now, written): (u64, u64),
        to: Conversation,
        body: &Body,
        expires_s: u32,
    ) -> Result<MessageName, NotSent> {
        let (mark, of_group) = self.may_write(to)?;
        let targets = self.devices_of(to);
        let expires_s = if expires_s == 0 { of_group } else { expires_s };
        let name = self.queue((now, written, now), to, mark, targets, body, expires_s)?;
        self.pump(now);
        self.flush();
        Ok(name)
    }

    /// Takes a message to these devices: written at one instant, and due at another.
    fn queue(
        &mut self,
        (now, written, due): (u64, u64, u64),
        to: Conversation,
        mark: Option<GroupMark>,
        devices: BTreeMap<u32, u32>,
        body: &Body,
        expires_s: u32,
    ) -> Result<MessageName, NotSent> {
        let parts = cut(&body.encode(), PART).ok_or(NotSent::TooLong)?;
        if self.waiting.len() >= MAX_WAITING {
            return Err(NotSent::Full);
        }
        if devices.is_empty() {
            return Err(NotSent::NoDevice);
        }
        let last = self.waiting.values().chain(self.over.values());
        let last = last.filter(|message| message.to == to).max_by_key(|message| message.written);
        let before = last.map(|message| [&[message.name.stream], &message.before[..]].concat());
        let new = || OwnStream {
            stream: self.random.next_u64(),
            next: 1,
            before: before.unwrap_or_default().into_iter().take(MAX_BEFORE).collect(),
        };
        let own = self.streams.entry(to).or_insert_with(new);
        let name = MessageName { device: self.me.0, stream: own.stream, sequence: own.next };
        own.next += parts.len() as u32;
        let before = own.before.clone();
        let new = |device: &u32| (*device, vec![Delivery::new(due); parts.len()]);
        let targets = devices.keys().map(new).collect();
        let (told, owners) = (State::Queued(self.why_queued()), devices);
        let reached = (0, 0);
        let message = Outgoing {
            name,
            before,
            to,
            mark,
            parts,
            written,
            expires_s,
            targets,
            owners,
            told,
            reached,
        };
        self.waiting.insert(name, message);
        self.save_message(name);
        self.note_change(name);
        self.settle(now, name);
        self.tell_state(name);
        Ok(name)
    }

    /// The devices to which a message goes, this one excepted, and whose each is.
    fn devices_of(&self, to: Conversation) -> BTreeMap<u32, u32> {
        let people = match to {
            Conversation::Person(person) => vec![person],
            Conversation::Group(group) => self.people_of(&group),
        };
        self.devices_of_people(&people)
    }

    fn devices_of_people(&self, people: &[u32]) -> BTreeMap<u32, u32> {
        let of = |(number, device): (&u32, &crate::RosterDevice)| {
            let is_one = people.contains(&device.person) && *number != self.me.0;
            is_one.then_some((*number, device.person))
        };
        self.roster.devices.iter().filter_map(of).collect()
    }

    /// Takes note of what happened, and does what follows from it.
    pub fn handle(&mut self, now: u64, input: Input) {
        match input {
            Input::Connected => self.connected(now),
            Input::Disconnected => self.disconnected(),
            Input::Roster(roster) => self.enrolled(now, roster),
            Input::Keys(keys) => self.rekeyed(now, keys),
            Input::Described { device, found } => self.described(now, device, found),
            Input::Left(letter) => self.left(now, letter),
            Input::Returned(letter) => self.returned(now, letter),
            Input::Packet(number, bytes) => self.packet(now, incoming::Came { number, bytes }),
        }
        self.pump(now);
        self.flush();
    }

    /// There is a link again.
    fn connected(&mut self, now: u64) {
        self.is_online = true;
        self.retell();
        self.spread(now);
    }

    /// What fell due while nothing could leave waits anew: whoever sees that it can again must not see who is written to at once.
    fn spread(&mut self, now: u64) {
        let draws = &mut self.draws;
        let parts = self.waiting.values_mut().flat_map(|message| message.targets.values_mut());
        let repeated = |part: &&mut Delivery| part.left.is_some() && part.posted == 0;
        for part in parts.flatten().filter(repeated).filter(|part| part.due <= now) {
            part.due = later(draws, now, ACK_MS);
        }
        self.groups.spread(now, draws);
        for peer in self.peers.values_mut() {
            let kept = &mut peer.kept;
            for at in [&mut kept.owed_at, &mut kept.want_at, &mut kept.broken_at] {
                if at.is_some_and(|at| at <= now) {
                    *at = Some(later(draws, now, ACK_MS));
                }
            }
        }
    }

    /// There is no link: no answer comes to what was asked.
    fn disconnected(&mut self) {
        self.is_online = false;
        self.retell();
        self.peers.values_mut().for_each(|peer| peer.is_sought = false);
    }

    /// The directory is another one.
    fn enrolled(&mut self, now: u64, roster: Roster) {
        let (could_send, size) = (self.roster.is_current, roster.size);
        self.roster = roster;
        // An older directory than was seen says nothing of who was removed since.
        self.roster.is_current &= size >= self.size;
        self.retell();
        if self.roster.is_current && !could_send {
            self.spread(now);
        }
        if size < self.size {
            return;
        }
        self.size = size;
        self.keep(Key::Size, encode_secret(&self.size));
        let listed = &self.roster.devices;
        let gone: Vec<u32> =
            self.peers.keys().filter(|device| !listed.contains_key(device)).copied().collect();
        for device in gone {
            if let Some(peer) = self.peers.remove(&device) {
                peer.sessions.keys().for_each(|number| self.forget(Key::Session(device, *number)));
            }
            self.forget(Key::Peer(device));
        }
        self.drop_pieces(now);
        self.settle_groups(now);
        self.retarget_all(now);
        self.try_held(now);
    }

    fn retarget_all(&mut self, now: u64) {
        let messages: Vec<MessageName> = self.waiting.keys().copied().collect();
        messages.into_iter().for_each(|name| self.retarget(now, name));
    }

    /// Packets that could not be read before are tried once more.
    fn try_held(&mut self, now: u64) {
        for packet in std::mem::take(&mut self.held) {
            self.packet(now, packet);
        }
    }

    /// A message goes no more to devices that were removed, nor to those of people who belong to its group no more; to whoever has
    /// none left of those that it went to it goes on the devices that he has now.
    fn retarget(&mut self, now: u64, name: MessageName) {
        let Some(message) = self.waiting.get(&name) else { return };
        let listed = &self.roster.devices;
        let people = match message.to {
            Conversation::Group(group) => Some(self.people_of(&group)),
            Conversation::Person(_) => None,
        };
        let is_for = |person: &u32| people.as_ref().is_none_or(|people| people.contains(person));
        let stays = |device: &u32| {
            listed.contains_key(device) && message.owners.get(device).is_some_and(is_for)
        };
        let gone: Vec<u32> =
            message.targets.keys().filter(|device| !stays(device)).copied().collect();
        if gone.is_empty() {
            return;
        }
        let had: Vec<u32> = message.lacking_people().into_iter().filter(is_for).collect();
        let new = self.devices_of_people(&had);
        let Some(message) = self.waiting.get_mut(&name) else { return };
        message.targets.retain(|device, _| !gone.contains(device));
        let left: Vec<u32> = message.lacking_people();
        let parts = message.parts.len();
        for (device, person) in new.into_iter().filter(|(_, person)| !left.contains(person)) {
            message.targets.insert(device, vec![Delivery::new(now); parts]);
            message.owners.insert(device, person);
        }
        self.settle(now, name);
    }

    /// The keys of the periods, the present one's first.
    fn rekeyed(&mut self, now: u64, keys: Vec<PeriodKeys>) {
        self.keys = keys;
        let kept: Vec<u64> = self.keys.iter().map(PeriodKeys::begins).collect();
        let mut gone = Vec::new();
        for (device, peer) in &mut self.peers {
            let over = peer.expire(now, |begins| kept.contains(&begins));
            gone.extend(over.into_iter().map(|number| Key::Session(*device, number)));
        }
        gone.into_iter().for_each(|key| self.forget(key));
        self.try_held(now);
    }

    /// A gateway has answered, or none has, what the keys of a device are.
    fn described(&mut self, now: u64, device: u32, found: Option<(Published, u64, u64)>) {
        let Some(peer) = self.peers.get_mut(&device) else { return };
        peer.is_sought = false;
        peer.sought = Some(now);
        // Keys of another device would be a lie of its gateway, which cannot sign descriptors, or of the device. Those of an earlier
        // period than was seen are an old descriptor: the keys may be erased already.
        let latest = peer.kept.begins;
        let found =
            found.filter(|(published, begins, _)| published.device == device && *begins >= latest);
        peer.found = found.map(|(published, begins, until)| Found { published, begins, until });
        if let Some(found) = &peer.found {
            peer.kept.begins = found.begins;
            self.save_peer(device);
        }
    }

    /// All that was changed is saved in one piece, before anything that follows from it is done.
    fn flush(&mut self) {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes).into_iter().collect();
            self.outputs.push_back(Output::Save(changes));
        }
        self.outputs.append(&mut self.effects);
    }
}

/// An instant that is drawn, so long after `now` on average.
fn later(draws: &mut Stream, now: u64, mean_ms: u64) -> u64 {
    now + exponential(draws, Duration::from_millis(mean_ms)).as_millis() as u64
}

/// When something is tried again that left for the first time at `left`: 3, 6, 12, 24 hours after that, then each day, and each
/// of these a little off; what was missed meanwhile is not made up for. Whoever was not heard of for a day is tried each day.
fn next_try(draws: &mut Stream, left: u64, now: u64, is_silent: bool) -> u64 {
    let factor: f64 = draws.random_range(0.7..1.3);
    let after = |from: u64, hours: u64| from + ((hours * HOUR_MS) as f64 * factor) as u64;
    let soonest = now + HOUR_MS;
    if is_silent {
        return after(now, 24);
    }
    let instants = [3, 6, 12].into_iter().chain((1..).map(|days| 24 * days));
    let mut instants = instants.map(|hours| after(left, hours));
    instants.find(|at| *at >= soonest).unwrap_or(soonest)
}

impl Engine for People {
    type Clock = u64;
    type Output = Output;

    fn wake(&mut self, now: u64) {
        self.pump(now);
        self.flush();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn next_wake(&mut self) -> Option<u64> {
        self.next_due()
    }
}

#[cfg(test)]
mod tests;
