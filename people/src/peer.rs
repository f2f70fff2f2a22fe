//! All that is known of one device of somebody else: sessions, what came from it, what it is owed.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};

use crate::packet::fingerprint;
use crate::received::{CHECKS, Received};
use crate::session::Session;
use crate::{Error, MessageName, Published};

/// Most sessions beside the one that sends.
const OLD_SESSIONS: usize = 11;
/// Most streams of a device that are remembered.
const STREAMS: usize = 64;
/// Streams of a device that are asked for after a start.
const CHECKED: usize = 4;
/// Packets of a device that are known when they come again.
const RECENT: usize = 256;
/// After so many packets that a session hides and its ratchet cannot open a new session is opened.
const BROKEN: u8 = 3;
/// After so many packets that nothing answered a new session is opened: no order in which they come then exceeds the 40 keys
/// that the ratchet keeps.
pub(crate) const UNANSWERED: u32 = 32;
/// A session that was opened here is erased after so long, if it is not the one that sends: the other one's key is gone.
const LIFE_MS: u64 = 15 * 86_400_000;
/// Most bytes of a peer that is kept.
const MAX_SAVED: usize = 4 << 20;
/// Most ranges of sequences that are remembered of all its streams.
const RANGES: usize = 4_096;
/// Nothing is put off for longer: a later instant is one of a clock that was ahead.
const LONGEST_MS: u64 = 4 * 86_400_000;

/// A device of somebody else.
#[derive(Default)]
pub(crate) struct Peer {
    /// By their number; a higher one is newer.
    pub(crate) sessions: BTreeMap<u32, Session>,
    pub(crate) kept: PeerRecord,
    /// Its keys of the period, as its gateway gave them out.
    pub(crate) found: Option<Found>,
    /// Its keys are being asked for.
    pub(crate) is_sought: bool,
    /// When they were asked for last, and an answer came or did not. Unix milliseconds.
    pub(crate) sought: Option<u64>,
}

/// What is kept of it beside its sessions.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct PeerRecord {
    next_session: u32,
    pub(crate) streams: Vec<Received>,
    /// When it is told what came, if nothing is sent to it before. Unix milliseconds.
    pub(crate) owed_at: Option<u64>,
    /// When it is asked for what is missed.
    pub(crate) want_at: Option<u64>,
    /// When something came from it last.
    pub(crate) heard: Option<u64>,
    /// Packets in a row that could not be opened.
    broken: u8,
    /// When a packet opens a new session and says that what was sent of late could not be opened.
    pub(crate) broken_at: Option<u64>,
    /// The beginning of the latest period of which its keys were seen, Unix seconds.
    pub(crate) begins: u64,
    recent: VecDeque<[u8; 8]>,
}

/// Keys of a device, from its descriptor.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) published: Published,
    /// The beginning of the period, Unix seconds, and the last second in which they are used.
    pub(crate) begins: u64,
    pub(crate) until: u64,
}

impl Peer {
    /// Adds a session. Of those that the other one opened the latest sends. Its number, and those of the sessions that make room.
    pub(crate) fn add(&mut self, mut session: Session) -> (u32, Vec<u32>) {
        if session.is_theirs() {
            let theirs = self.sessions.values_mut().filter(|known| known.is_theirs());
            for known in theirs {
                let later = if known.opened() > session.opened() { &mut session } else { known };
                later.retire();
            }
        }
        let number = self.kept.next_session;
        self.kept.next_session += 1;
        self.sessions.insert(number, session);
        let mut gone = Vec::new();
        while self.sessions.len() > 1 + OLD_SESSIONS {
            let sending = self.sending();
            let others = self.sessions.iter().filter(|(number, _)| Some(**number) != sending);
            let first = others.min_by_key(|(_, session)| (!session.is_old(), session.opened()));
            let Some(first) = first.map(|(number, _)| *number) else { break };
            self.sessions.remove(&first);
            gone.push(first);
        }
        (number, gone)
    }

    /// The number of the session that sends: the one that was opened, or brought something, last.
    pub(crate) fn sending(&self) -> Option<u32> {
        let open = self.sessions.iter().filter(|(_, session)| !session.is_old());
        open.max_by_key(|(number, session)| (session.lived(), **number)).map(|(number, _)| *number)
    }

    /// Erases sessions whose keys are gone: `is_kept` says which of the own periods' are there. The numbers of those.
    pub(crate) fn expire(&mut self, now: u64, is_kept: impl Fn(u64) -> bool) -> Vec<u32> {
        let sending = self.sending();
        let is_over = |number: &u32, session: &mut Session| match session.needs() {
            Some(begins) => !is_kept(begins),
            None => {
                let old = session.lived().saturating_add(LIFE_MS) < now;
                old && (Some(*number) != sending || session.unanswered() > 0)
            }
        };
        self.sessions.extract_if(.., is_over).map(|(number, _)| number).collect()
    }

    /// A packet came that a session hides and its ratchet does not open. True if that is one too many, and nothing was done about
    /// it yet.
    pub(crate) fn broke(&mut self) -> bool {
        self.kept.broken = self.kept.broken.saturating_add(1);
        let is_enough = self.kept.broken >= BROKEN && self.kept.broken_at.is_none();
        if is_enough {
            self.kept.broken = 0;
        }
        is_enough
    }

    /// A packet could be opened.
    pub(crate) fn heard(&mut self, now: u64) {
        self.kept.heard = Some(now);
        self.kept.broken = 0;
    }

    /// Remembers a packet. True if it came before.
    pub(crate) fn came_before(&mut self, packet: &[u8]) -> bool {
        let mark = fingerprint(packet).first_chunk().copied().unwrap_or_default();
        if self.kept.recent.contains(&mark) {
            return true;
        }
        if self.kept.recent.len() >= RECENT {
            self.kept.recent.pop_front();
        }
        self.kept.recent.push_back(mark);
        false
    }

    /// True if more ranges of sequences can be remembered.
    pub(crate) fn has_room(&self) -> bool {
        self.kept.streams.iter().map(Received::ranges).sum::<usize>() < RANGES
    }

    /// The clock was set back: nothing was later than now, and nothing waits for longer than anything does.
    pub(crate) fn clamp(&mut self, now: u64) {
        let last = now.saturating_add(LONGEST_MS);
        let PeerRecord { owed_at, want_at, broken_at, heard, streams, .. } = &mut self.kept;
        for at in [owed_at, want_at, broken_at].into_iter().flatten() {
            *at = last.min(*at);
        }
        *heard = heard.map(|at| at.min(now));
        streams.iter_mut().for_each(|received| received.last = now.min(received.last));
        self.sessions.values_mut().for_each(|session| session.clamp(now));
    }

    /// True if the first part of a message of this device has come, or is waited for no more.
    pub(crate) fn has_come(&self, name: &MessageName) -> bool {
        let stream = self.kept.streams.iter().find(|known| known.stream == name.stream);
        stream.is_some_and(|known| known.has_come(name.sequence))
    }

    /// What came of a stream.
    pub(crate) fn stream(&mut self, stream: u64) -> &mut Received {
        let streams = &mut self.kept.streams;
        let at = streams.iter().position(|known| known.stream == stream).unwrap_or_else(|| {
            if streams.len() >= STREAMS {
                let oldest = streams.iter().enumerate().min_by_key(|(_, known)| known.last);
                if let Some(at) = oldest.map(|(at, _)| at) {
                    streams.swap_remove(at);
                }
            }
            streams.push(Received::new(stream));
            streams.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
        &mut streams[at]
    }

    /// The program has begun, and its state may be an old one: the device is asked some times whether all has come of the streams
    /// that it used last. True if there are some.
    pub(crate) fn begin(&mut self, now: u64) -> bool {
        self.kept.streams.sort_by_key(|received| std::cmp::Reverse(received.last));
        let recent = self.kept.streams.iter_mut().take(CHECKED);
        let recent = recent.filter(|received| received.last + LIFE_MS > now);
        recent.map(|received| received.checks = CHECKS).count() > 0
    }

    /// The bytes to keep, without the sessions.
    pub(crate) fn save(&self) -> Vec<u8> {
        encode(&self.kept)
    }

    /// Reads [`Self::save`].
    ///
    /// # Errors
    /// Bytes of another form.
    pub(crate) fn restore(bytes: &[u8]) -> Result<Self, Error> {
        let kept = decode("what is kept of a device", bytes, MAX_SAVED)?;
        Ok(Self { kept, ..Self::default() })
    }
}
