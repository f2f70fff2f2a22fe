//! Which packets were here before: exact keyed 64-bit fingerprints of replay tags in open-addressed tables.
//!
//! Nothing is ever forgotten in the life of the key: a table at its capacity refuses. Two tags share a fingerprint
//! with a probability of n² / 2^65 (10^8 tags: 3 in 10,000, and then one good packet is lost); the key keeps
//! senders from choosing tags that collide or crowd one place.
//!
//! A table lives in memory alone. Whoever must know its tags after a restart writes their fingerprints down, together
//! with the key of the table: [`Replay::insert_fingerprint`], then the log, and only then may the packet go on;
//! [`Replay::remember`] puts back what was written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::ReplayTag;

/// So that peel workers seldom wait for each other, and a growing table stops only its own share.
const SHARDS: usize = 64;
/// Slots of a shard at first.
const FIRST_SLOTS: usize = 64;

/// What [`Replay::insert`] finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The tag is new, and is known from now on.
    New,
    /// The tag was here before.
    Before,
    /// The tag is new, and there is no room to remember it.
    Full,
}

/// The tags of one key. At most 16 bytes a tag, beyond the first few thousand.
pub struct Replay {
    key: Zeroizing<[u8; 32]>,
    shards: Vec<Mutex<Shard>>,
    used: AtomicUsize,
    capacity: usize,
}

impl Replay {
    /// Room for `capacity` tags, taken in steps as they come. `key` is random and nobody else's.
    pub fn new(key: [u8; 32], capacity: usize) -> Self {
        let shard = || Shard { slots: vec![0; FIRST_SLOTS], used: 0, most: of_one_shard(capacity) };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        let key = Zeroizing::new(key);
        Self { key, shards, used: AtomicUsize::new(0), capacity }
    }

    /// A table that knows the tags of these fingerprints, which a table with the same key made: all of them, even
    /// beyond `capacity`.
    pub fn with_tags(
        key: [u8; 32],
        capacity: usize,
        fingerprints: impl IntoIterator<Item = u64>,
    ) -> Self {
        let replay = Self::new(key, capacity);
        fingerprints.into_iter().for_each(|fingerprint| replay.remember(fingerprint));
        replay
    }

    /// Remembers a tag.
    pub fn insert(&self, tag: &ReplayTag) -> Seen {
        self.insert_fingerprint(self.fingerprint(tag))
    }

    /// What is remembered of a tag. Never zero.
    pub fn fingerprint(&self, tag: &ReplayTag) -> u64 {
        let hash = blake3::keyed_hash(&self.key, tag.as_bytes());
        let fingerprint = hash.as_bytes().first_chunk::<8>().unwrap_or(&[1; 8]);
        // Zero marks a free slot.
        u64::from_le_bytes(*fingerprint).max(1)
    }

    /// Remembers the tag of a [fingerprint](Self::fingerprint).
    pub fn insert_fingerprint(&self, fingerprint: u64) -> Seen {
        self.shard(fingerprint, |shard| {
            let most = shard.most;
            shard.insert(fingerprint, |used| {
                let more = |used: usize| (used < self.capacity).then_some(used + 1);
                let order = Ordering::Relaxed;
                used < most && self.used.fetch_update(order, order, more).is_ok()
            })
        })
    }

    /// Remembers a fingerprint that was written down, even beyond the capacity. Zero is none.
    pub fn remember(&self, fingerprint: u64) {
        if fingerprint != 0 {
            self.shard(fingerprint, |shard| {
                shard.insert(fingerprint, |_| {
                    self.used.fetch_add(1, Ordering::Relaxed);
                    true
                })
            });
        }
    }

    fn shard(&self, fingerprint: u64, act: impl FnOnce(&mut Shard) -> Seen) -> Seen {
        // The place within a shard follows from the upper bits.
        match self.shards.get((fingerprint % SHARDS as u64) as usize) {
            Some(shard) => act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Seen::Full,
        }
    }

    /// How many tags it knows.
    pub fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// True if it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tags it can know.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of its slots.
    pub fn memory_bytes(&self) -> usize {
        8 * self.sum(|shard| shard.slots.len())
    }

    fn sum(&self, of: impl Fn(&Shard) -> usize) -> usize {
        self.shards.iter().map(|s| of(&s.lock().unwrap_or_else(PoisonError::into_inner))).sum()
    }
}

/// Most tags of one shard. Which shard a tag falls to is chance, so shards fill unevenly: the fullest of 64 is six
/// standard deviations above the mean less than once in ten million tables.
fn of_one_shard(capacity: usize) -> usize {
    let mean = capacity.div_ceil(SHARDS);
    mean + 6 * mean.isqrt() + 16
}

struct Shard {
    slots: Vec<u64>,
    used: usize,
    most: usize,
}

impl Shard {
    /// Remembers a fingerprint, if it is new and `may` says of the number of those that are here that it may.
    fn insert(&mut self, fingerprint: u64, may: impl FnOnce(usize) -> bool) -> Seen {
        let Some(mut at) = self.find(fingerprint) else { return Seen::Before };
        if !may(self.used) {
            return Seen::Full;
        }
        // Four fifths full at most; grown by a half, so slightly more than half full at least: 15 bytes a tag.
        if (self.used + 1) * 5 > self.slots.len() * 4 {
            self.grow();
            at = self.find(fingerprint).unwrap_or(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = fingerprint;
            self.used += 1;
        }
        Seen::New
    }

    /// The free slot where it belongs; `None` if it is there.
    fn find(&self, fingerprint: u64) -> Option<usize> {
        let len = self.slots.len();
        // Scaled rather than reduced: any length will do (Lemire, "Fast random integer generation", 2019).
        let mut at = ((u128::from(fingerprint) * len as u128) >> 64) as usize;
        loop {
            match self.slots.get(at) {
                Some(0) => return Some(at),
                Some(found) if *found == fingerprint => return None,
                Some(_) => at += 1,
                None => at = 0,
            }
        }
    }

    fn grow(&mut self) {
        let most = (self.most.max(self.used + 1) * 5).div_ceil(4) + 1;
        let len = (self.slots.len() * 3 / 2).min(most).max(self.slots.len() + 1);
        let old = std::mem::replace(&mut self.slots, vec![0; len]);
        for fingerprint in old.into_iter().filter(|slot| *slot != 0) {
            if let Some(slot) = self.find(fingerprint).and_then(|at| self.slots.get_mut(at)) {
                *slot = fingerprint;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, NullCodec, Packet, SecretKey};

    /// The tags of the null codec are the first 32 bytes of a packet.
    fn tag(n: u64) -> ReplayTag {
        let mut packet = Packet::default();
        packet.as_mut_bytes()[..8].copy_from_slice(&n.to_le_bytes());
        packet.as_mut_bytes()[33] = 1;
        *NullCodec.open(&SecretKey::from_bytes([1; 32]), packet).unwrap().tag()
    }

    #[test]
    fn each_tag_is_new_once_and_known_for_ever() {
        let replay = Replay::new([3; 32], 100_000);
        for n in 0..40_000 {
            assert_eq!(replay.insert(&tag(n)), Seen::New, "{n}");
        }
        for n in 0..40_000 {
            assert_eq!(replay.insert(&tag(n)), Seen::Before, "{n}");
        }
        assert_eq!(replay.len(), 40_000);
        assert!(replay.memory_bytes() <= 16 * replay.len(), "{}", replay.memory_bytes());
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing() {
        let replay = Replay::new([3; 32], 640);
        let known: Vec<u64> = (0..5_000).filter(|n| replay.insert(&tag(*n)) == Seen::New).collect();
        assert_eq!(known.len(), 640);
        assert_eq!(replay.len(), replay.capacity());
        assert!(known.iter().all(|n| replay.insert(&tag(*n)) == Seen::Before));
        assert_eq!(replay.insert(&tag(1 << 40)), Seen::Full);
    }

    #[test]
    fn a_table_takes_all_it_has_room_for_however_its_shards_fill() {
        for capacity in [640, 10_000, 100_000] {
            let replay = Replay::new([3; 32], capacity);
            let new = |n: &usize| replay.insert(&tag(*n as u64)) == Seen::New;
            assert_eq!((0..capacity).filter(new).count(), capacity);
            assert_eq!(replay.insert(&tag(1 << 40)), Seen::Full);
        }
    }

    #[test]
    fn what_was_written_down_is_known_again_even_beyond_the_capacity() {
        let replay = Replay::new([3; 32], 10_000);
        let written: Vec<u64> = (0..10_000).map(|n| replay.fingerprint(&tag(n))).collect();
        let again = Replay::with_tags([3; 32], 64, written.into_iter().chain([0]));
        assert_eq!(again.len(), 10_000);
        assert!((0..10_000).all(|n| again.insert(&tag(n)) == Seen::Before));
        assert_eq!(again.insert(&tag(1 << 40)), Seen::Full);
        // With another key they would be others.
        assert_ne!(Replay::new([4; 32], 1).fingerprint(&tag(1)), replay.fingerprint(&tag(1)));
    }

    #[test]
    fn of_threads_with_the_same_tags_one_finds_each_new() {
        let replay = Replay::new([9; 32], 10_000);
        let new: usize = std::thread::scope(|scope| {
            let run = || (0..2_000).filter(|n| replay.insert(&tag(*n)) == Seen::New).count();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(new, 2_000);
    }
}
