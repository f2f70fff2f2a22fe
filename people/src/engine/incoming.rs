//! What comes.

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::decode;
use zeroize::Zeroize as _;

use super::*;
use crate::Error;
use crate::frame::{Ack, Frame};
use crate::packet::{Between, Opened, Parsed, fingerprint, parse};
use crate::received::{CHECKS, Taken};
use crate::session::{Read, Session};

/// Most messages of a device of which some parts are missing.
const PIECES: usize = 64;
/// Most bytes of a message that came.
pub(super) const MAX_RECEIVED: usize = 32 << 10;

/// For so long what is missing is waited for, and as long again on average, before its sender is asked.
const GAP_MS: u64 = 6 * HOUR_MS;

/// How often a part is sent again since its reader wants it.
const WANTED: u8 = 16;

/// A packet, as it came.
pub(super) struct Came {
    /// By which the driver knows it.
    pub(super) number: PacketNumber,
    pub(super) bytes: Vec<u8>,
}

/// The parts of a message that have come.
#[derive(Serialize, Deserialize)]
pub(super) struct Pieces {
    /// How many there are.
    of: u8,
    parts: BTreeMap<u8, Vec<u8>>,
    /// When the first came, Unix milliseconds.
    since: u64,
}

/// [`ReceivedMessage`] as it is kept.
#[derive(Serialize, Deserialize)]
struct Wire {
    name: MessageName,
    person: u32,
    sent_at: u64,
    group: Option<GroupMark>,
    expires_s: u32,
    body: Vec<u8>,
}

impl ReceivedMessage {
    /// The bytes that are kept.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Self { name, person, sent_at, group, expires_s, body } = self;
        let (name, body) = (*name, body.encode());
        let (person, sent_at, expires_s) = (*person, *sent_at, *expires_s);
        let mut wire = Wire { name, person, sent_at, group: *group, expires_s, body };
        let bytes = encode_secret(&wire);
        wire.body.zeroize();
        bytes
    }

    /// Reads them.
    ///
    /// # Errors
    /// Bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let Wire { name, person, sent_at, group, expires_s, body } =
            decode("message that came", bytes, MAX_RECEIVED)?;
        Ok(Self { name, person, sent_at, group, expires_s, body: Body::decode(&body) })
    }
}

/// The session that a packet belongs to, by device and number, and what became of it.
type Attempt = Option<(u32, u32, Read)>;

impl People {
    /// A packet has come.
    pub(super) fn packet(&mut self, now: u64, packet: Came) {
        let attempt = match parse(&packet.bytes) {
            None => {
                self.counts.unreadable += 1;
                return;
            }
            Some(Parsed::Further { nonce, sealed }) => {
                let attempt = self.attempt(|session| session.read(now, nonce, sealed));
                if attempt.is_none() {
                    // The packet that opens its session may be on its way.
                    let lost = keep_some(&mut self.strays, packet, STRAYS, &mut self.draws);
                    self.counts.displaced += lost;
                    return;
                }
                attempt
            }
            Some(Parsed::Opening { .. }) if self.keys.is_empty() => {
                self.counts.displaced += keep_some(&mut self.held, packet, HELD, &mut self.draws);
                return;
            }
            Some(Parsed::Opening { key, ciphertext, nonce, sealed }) => {
                let opened_by = fingerprint(ciphertext);
                let attempt = self.attempt(|session| {
                    let is_it = session.was_opened_by(&opened_by);
                    if is_it { session.read_opening(now, nonce, sealed) } else { Read::Other }
                });
                if attempt.is_none() {
                    let keys = self.keys.iter().find(|keys| keys.public().id() == key);
                    let to = self.me.1.identity();
                    let opened = keys.and_then(|keys| {
                        let organisation = &self.roster.organisation;
                        let between = Between { organisation, to: &to, period: keys.begins() };
                        Opened::read(&between, keys, ciphertext, (nonce, sealed))
                    });
                    let Some(opened) = opened else {
                        self.counts.unreadable += 1;
                        return;
                    };
                    return self.accept(now, opened, opened_by, packet);
                }
                attempt
            }
        };
        if let Some((device, number, read)) = attempt {
            self.read(now, (device, number), read, &packet);
        }
    }

    /// Tries the sessions with all devices, until the packet is one of theirs.
    fn attempt(&mut self, mut try_one: impl FnMut(&mut Session) -> Read) -> Attempt {
        for (device, peer) in &mut self.peers {
            for (number, session) in peer.sessions.iter_mut().rev() {
                match try_one(session) {
                    Read::Other => {}
                    read => return Some((*device, *number, read)),
                }
            }
        }
        None
    }

    /// A device opens a session.
    fn accept(&mut self, now: u64, opened: Opened, opened_by: [u8; 16], packet: Came) {
        let device = opened.from;
        let Some(listed) = self.roster.devices.get(&device).filter(|_| device != self.me.0) else {
            // It may stand in a directory that is on its way.
            let ahead = self.roster.size + 1..=self.roster.head;
            if ahead.contains(&opened.size) && device != self.me.0 {
                self.counts.displaced += keep_some(&mut self.held, packet, HELD, &mut self.draws);
            } else {
                self.counts.unknown += 1;
            }
            return;
        };
        let key = listed.key;
        let accepted = self.keys.iter().find_map(|keys| {
            let of_it = keys.public().id() == key_id(&packet.bytes)?;
            of_it.then(|| Session::accept(now, &opened, &key, keys, opened_by)).flatten()
        });
        let Some((session, frame)) = accepted else {
            self.counts.unknown += 1;
            return;
        };
        self.peers.entry(device).or_default();
        let Some(number) = self.add_session(device, session) else { return };
        self.read(now, (device, number), Read::Frame(frame), &packet);
        // Some that follow may have come before it.
        for packet in std::mem::take(&mut self.strays) {
            let peer = self.peers.get_mut(&device);
            let session = peer.and_then(|peer| peer.sessions.get_mut(&number));
            let read = match (parse(&packet.bytes), session) {
                (Some(Parsed::Further { nonce, sealed }), Some(session)) => {
                    session.read(now, nonce, sealed)
                }
                _ => Read::Other,
            };
            match read {
                Read::Other => self.strays.push_back(packet),
                read => self.read(now, (device, number), read, &packet),
            }
        }
    }

    /// A packet belongs to a session.
    fn read(&mut self, now: u64, of: (u32, u32), read: Read, packet: &Came) {
        let (device, number) = of;
        let Some(peer) = self.peers.get_mut(&device) else { return };
        if matches!(read, Read::Other) {
            return;
        }
        // Also for a second copy, and for one that the ratchet does not open: nobody else can hide a packet so.
        if let Some(listed) = self.roster.devices.get(&device) {
            self.effects.push_back(Output::Vouched(packet.number, listed.person));
        }
        // A second copy is nothing new, and one that could not be opened says so once.
        let is_new = !peer.came_before(&packet.bytes);
        let bytes = match read {
            Read::Other => return,
            Read::Broken => {
                self.counts.broken += 1;
                if is_new && peer.broke() {
                    // At an instant that no packet of somebody else determines.
                    let at = later(&mut self.draws, now, ACK_MS);
                    if let Some(peer) = self.peers.get_mut(&device) {
                        peer.kept.broken_at = Some(at);
                    }
                }
                return self.save_peer(device);
            }
            Read::Frame(bytes) => bytes,
        };
        peer.heard(now);
        if let Ok(frame) = Frame::decode(&bytes) {
            self.frame(now, device, frame);
        }
        self.save_session(device, number);
        self.save_peer(device);
    }

    fn frame(&mut self, now: u64, device: u32, frame: Frame) {
        let Some(person) = self.roster.devices.get(&device).map(|listed| listed.person) else {
            return;
        };
        if let Some(ack) = &frame.ack {
            self.acknowledged(now, device, ack);
        }
        if frame.sequence == 0 {
            if let Body::Want(stream) = Body::decode(&frame.content) {
                self.wanted(now, device, stream, frame.ack.as_ref());
            }
            return;
        }
        let name = MessageName { device, stream: frame.stream, sequence: frame.first() };
        let known = self.pieces.get(&name);
        let is_known = known.is_some();
        // Another part of the same message says the same of their number.
        let is_other = known.is_some_and(|pieces| pieces.of != frame.parts);
        let of_device = |name: &&MessageName| name.device == device;
        // What has no room is not acknowledged: it comes again.
        let is_full = self.pieces.keys().filter(of_device).count() >= PIECES;
        let may_wait = frame.group.is_some_and(|mark| !mark.is_of_log());
        let has_room = !may_wait || self.has_early_room(device);
        if is_other || (frame.parts > 1 && !is_known && is_full) || !has_room {
            self.counts.no_room += 1;
            return;
        }
        let Some(peer) = self.peers.get_mut(&device) else { return };
        let (mut is_missed, mut lost) = (false, 0_u32);
        for before in &frame.before {
            let received = peer.stream(before.stream);
            lost = lost.saturating_add(received.passed(before.begin, before.oldest));
            is_missed |= received.is_asked_for();
        }
        let has_room = peer.has_room();
        let received = peer.stream(frame.stream);
        lost = lost.saturating_add(received.passed(frame.begin, frame.oldest));
        is_missed |= received.is_asked_for();
        if lost > 0 {
            self.effects.push_back(Output::Missed(device, lost));
        }
        let taken = if has_room { received.take(frame.sequence) } else { Taken::NoRoom };
        if taken == Taken::NoRoom {
            self.counts.no_room += 1;
            return;
        }
        received.is_owed = true;
        if taken == Taken::New {
            // Of what came about a group's log its writer hears after he has heard of what he wrote.
            received.last = if may_wait || frame.group.is_none() {
                now
            } else {
                received.last.max(now.saturating_sub(HOUR_MS))
            };
        }
        let gaps = received.has_gap() && received.checks == 0;
        if gaps {
            received.checks = CHECKS;
        }
        let kept = &mut peer.kept;
        let mean_ms = self.settings.receipts_ms;
        kept.owed_at.get_or_insert_with(|| later(&mut self.draws, now, mean_ms));
        if is_missed {
            kept.want_at.get_or_insert_with(|| later(&mut self.draws, now, ACK_MS));
        } else if gaps {
            // By then its sender has tried again, or takes it for delivered.
            kept.want_at.get_or_insert_with(|| now + later(&mut self.draws, GAP_MS, GAP_MS));
        }
        if taken == Taken::New {
            self.piece(now, name, person, frame);
        }
    }

    /// A part of a message has come for the first time.
    fn piece(&mut self, now: u64, name: MessageName, person: u32, frame: Frame) {
        let content = if frame.parts == 1 {
            frame.content
        } else {
            let (of, parts, since) = (frame.parts, BTreeMap::new(), now);
            let pieces = self.pieces.entry(name).or_insert_with(|| Pieces { of, parts, since });
            pieces.parts.insert(frame.part, frame.content);
            if pieces.parts.len() < usize::from(frame.parts) {
                return self.save_pieces(name);
            }
            let pieces = self.pieces.remove(&name).map(|pieces| pieces.parts).unwrap_or_default();
            self.save_pieces(name);
            pieces.into_values().flatten().collect()
        };
        let (sent_at, group, expires_s) = (frame.sent_at, frame.group, frame.expires_s);
        let body = Body::decode(&content);
        match (body, group) {
            (Body::Entries(entries), Some(mark)) => {
                self.entries_came(now, person, mark.group, entries);
            }
            (Body::WantEntries(has), Some(mark)) => {
                self.entries_wanted(now, person, mark.group, has);
            }
            (body, Some(mark)) => {
                let message = ReceivedMessage { name, person, sent_at, group, expires_s, body };
                self.group_message(now, mark, message);
            }
            (body, None) => {
                let message = ReceivedMessage { name, person, sent_at, group, expires_s, body };
                self.keep(Key::Received(name), message.encode());
                self.effects.push_back(Output::Received(message));
            }
        }
    }

    /// A device says what it has.
    fn acknowledged(&mut self, now: u64, device: u32, ack: &Ack) {
        let from = MessageName { device: self.me.0, stream: ack.stream, sequence: 0 };
        let messages = self.waiting.range(from..).map(|(name, _)| *name);
        let messages: Vec<_> = messages.take_while(|name| name.stream == ack.stream).collect();
        for name in messages {
            let Some(message) = self.waiting.get_mut(&name) else { continue };
            let Some(parts) = message.targets.get_mut(&device) else { continue };
            let mut is_new = false;
            for (at, part) in parts.iter_mut().enumerate() {
                if !part.is_acked && part.tries > 0 && ack.has(name.sequence + at as u32) {
                    part.is_acked = true;
                    part.sealed.clear();
                    is_new = true;
                }
            }
            if is_new {
                self.settle(now, name);
            }
        }
    }

    /// A device misses some of what it had acknowledged, or could not open what was sent to it.
    fn wanted(&mut self, now: u64, device: u32, stream: u64, ack: Option<&Ack>) {
        let ack = ack.filter(|ack| ack.stream == stream);
        let is_wanted = |name: &MessageName, at: usize, part: &Delivery| {
            let lacks = ack.is_some_and(|ack| ack.lacks(name.sequence + at as u32));
            // What is not acknowledged is sent again as it is.
            let soon = now.saturating_add(4 * ACK_MS);
            let is_it = match stream {
                0 => !part.is_acked && part.due > soon,
                _ => name.stream == stream && lacks && part.is_acked,
            };
            is_it && part.left.is_some() && part.posted == 0 && part.wanted < WANTED
        };
        let any = |name: &MessageName, message: &Outgoing| {
            let parts = message.targets.get(&device).into_iter().flatten().enumerate();
            !matches!(message.told, State::Expired(_))
                && parts.into_iter().any(|(at, part)| is_wanted(name, at, part))
        };
        let back: Vec<_> = self.over.extract_if(.., |name, message| any(name, message)).collect();
        self.waiting.extend(back);
        let changed = self.waiting.iter().filter(|(name, message)| any(name, message));
        let changed: Vec<MessageName> = changed.map(|(name, _)| *name).collect();
        for name in changed {
            let message = self.waiting.get_mut(&name);
            let parts = message.and_then(|message| message.targets.get_mut(&device));
            for (at, part) in parts.into_iter().flatten().enumerate() {
                if is_wanted(&name, at, part) {
                    part.is_acked = false;
                    part.sealed.clear();
                    part.is_second = false;
                    // Each time later, so that nobody has a device send without end.
                    part.due = later(&mut self.draws, now, ACK_MS << part.wanted.min(4));
                    part.wanted += 1;
                }
            }
            self.settle(now, name);
        }
    }

    /// Parts whose messages will not be whole any more, and those of devices that were removed.
    pub(super) fn drop_pieces(&mut self, now: u64) {
        let devices = &self.roster.devices;
        let is_over = |name: &MessageName, pieces: &mut Pieces| {
            !devices.contains_key(&name.device) || pieces.since.saturating_add(LIFE_MS) <= now
        };
        let gone: Vec<_> = self.pieces.extract_if(.., is_over).map(|(name, _)| name).collect();
        gone.into_iter().for_each(|name| self.forget(Key::Pieces(name)));
    }
}

/// Keeps a packet among at most so many: another one, whichever, makes room, so that nobody who sends many knows which.
/// How many made room.
fn keep_some(kept: &mut VecDeque<Came>, packet: Came, most: usize, draws: &mut Stream) -> u64 {
    let is_full = kept.len() >= most;
    if is_full {
        kept.swap_remove_back(draws.random_range(0..most));
    }
    kept.push_back(packet);
    u64::from(is_full)
}

/// Which key a packet was made for.
fn key_id(packet: &[u8]) -> Option<[u8; 4]> {
    match parse(packet)? {
        Parsed::Opening { key, .. } => Some(key),
        Parsed::Further { .. } => None,
    }
}
