//! The keys that open a client's packets, one for each period, and what remembers the packets that came.

use std::collections::HashSet;

use shoal_sphinx::{Codec, Packet, PacketId, Peeled, PublicKey, ReplayTag, SecretKey};

/// What remembers the replay tags of one key, as long as the key lives.
pub trait ReplayCache: Send {
    /// Remembers a tag. True if it was not here before and is remembered from now on: only then the packet is taken.
    fn insert(&mut self, tag: &ReplayTag) -> bool;

    /// The share of its room that is taken, 0 to 1.
    fn fullness(&self) -> f64;
}

/// Tags in memory. Bounded: when it is full nothing new is taken.
pub struct InMemory {
    tags: HashSet<[u8; 16]>,
    room: usize,
}

impl InMemory {
    /// Room for so many tags, some 32 bytes each, taken as they come.
    pub fn new(room: usize) -> Self {
        Self { tags: HashSet::new(), room: room.max(1) }
    }
}

impl ReplayCache for InMemory {
    fn insert(&mut self, tag: &ReplayTag) -> bool {
        // Half of a tag is enough to tell packets apart, and takes half of the room.
        let short = tag.as_bytes().first_chunk().copied().unwrap_or_default();
        self.tags.len() < self.room && self.tags.insert(short)
    }

    fn fullness(&self) -> f64 {
        self.tags.len() as f64 / self.room as f64
    }
}

/// The keys of a client: that of the period first, then others that still or already open packets.
pub(crate) struct Keys(Vec<SphinxKey>);

struct SphinxKey {
    secret: SecretKey,
    public: PublicKey,
    /// Marks the identifiers of packets that end at this key.
    marks: [u8; 32],
    seen: Box<dyn ReplayCache>,
}

/// What an identifier is for: the first half of it is free, the second half marks it as ours.
///
/// So a client knows what it asked for without a list: a SURB may come back hours later, after a restart, or when
/// its tunnel is gone, and whoever has it must not be able to make that look like something that nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IdPurpose {
    Loop,
    Surb,
}

/// By which a packet is known when it comes again, at the key that opened it.
pub(crate) struct Tag {
    tag: ReplayTag,
    with: usize,
}

impl Keys {
    /// One key, which remembers so many packets in memory.
    pub(crate) fn one(secret: SecretKey, room: usize) -> Self {
        let mut keys = Self(Vec::new());
        keys.set(vec![secret], |_| Box::new(InMemory::new(room)));
        keys
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Other keys, that of the period first. Those that stay remember what they remember; `make` makes the memory of a
    /// new one.
    pub(crate) fn set(
        &mut self,
        secrets: Vec<SecretKey>,
        mut make: impl FnMut(&SecretKey) -> Box<dyn ReplayCache>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for secret in secrets {
            let public = secret.public();
            let key = match before.iter().position(|key| key.public == public) {
                // With its memory: a key that stays must not take again what came before.
                Some(at) => before.swap_remove(at),
                None => SphinxKey { seen: make(&secret), marks: marks(&secret), public, secret },
            };
            self.0.push(key);
        }
    }

    /// The key of the period.
    pub(crate) fn present(&self) -> Option<PublicKey> {
        self.0.first().map(|key| key.public)
    }

    /// How full the memory of the period's key is, 0 to 1.
    pub(crate) fn fullness(&self) -> f64 {
        self.0.first().map_or(0.0, |key| key.seen.fullness())
    }

    /// Opens a packet. Nothing in it says for which key it is; a wrong one fails at the MAC.
    pub(crate) fn open(&self, codec: &dyn Codec, packet: &Packet) -> Option<(Peeled, Tag)> {
        // One after the other until one opens: there are hardly ever more than two keys.
        let opened = self.0.iter().map(|key| codec.open(&key.secret, packet.clone()));
        let (with, opened) = opened.enumerate().find_map(|(with, o)| Some((with, o.ok()?)))?;
        let tag = Tag { tag: *opened.tag(), with };
        Some((codec.peel(opened).ok()?, tag))
    }

    /// An identifier for a packet that ends at the key of the period. `None` without a key.
    pub(crate) fn identifier(&self, what: IdPurpose, free: [u8; 8]) -> Option<PacketId> {
        // By the key at which the packet will end, since that is what is known when it comes back.
        let mark = mark(&self.0.first()?.marks, what, free);
        let mut id = [0; 16];
        let (first, second) = id.split_at_mut(8);
        first.copy_from_slice(&free);
        second.copy_from_slice(&mark);
        Some(id)
    }

    /// What the identifier of a packet with this tag was made for, if this client made it.
    pub(crate) fn made(&self, tag: &Tag, id: &PacketId) -> Option<IdPurpose> {
        let marks = &self.0.get(tag.with)?.marks;
        let free = *id.first_chunk()?;
        [IdPurpose::Loop, IdPurpose::Surb]
            .into_iter()
            .find(|what| id.ends_with(&mark(marks, *what, free)))
    }

    /// True if a packet came for the first time. Whatever is no loop and no reply, which work once, must ask.
    pub(crate) fn is_first(&mut self, tag: &Tag) -> bool {
        self.0.get_mut(tag.with).is_some_and(|key| key.seen.insert(&tag.tag))
    }
}

fn marks(secret: &SecretKey) -> [u8; 32] {
    blake3::derive_key("shoal 2026 identifiers of a client's packets", secret.as_bytes())
}

fn mark(marks: &[u8; 32], what: IdPurpose, free: [u8; 8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h] = free;
    let kind = match what {
        IdPurpose::Loop => 0,
        IdPurpose::Surb => 1,
    };
    let hash = blake3::keyed_hash(marks, &[a, b, c, d, e, f, g, h, kind]);
    *hash.as_bytes().first_chunk().unwrap_or(&[0; 8])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_sphinx::Hop;
    use shoal_topology::Seed;

    use super::*;
    use crate::world::Keyed;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_bytes([n; 32])
    }

    fn packet(n: u8, rng: &mut shoal_topology::Stream) -> Packet {
        let hop = Hop { address: [9; 32], key: secret(n).public(), delay: Duration::ZERO };
        Keyed::default().seal(rng, &[hop], [0; 16], b"hello").unwrap()
    }

    #[test]
    fn each_key_opens_its_own_packets_and_takes_each_once() {
        let mut rng = Seed::from_u64(1).stream("keys");
        let codec = Keyed::default();
        let mut keys = Keys::one(secret(1), 8);
        keys.set(vec![secret(2), secret(1)], |_| Box::new(InMemory::new(8)));
        assert_eq!(keys.present(), Some(secret(2).public()));
        for n in [1, 2] {
            let packet = packet(n, &mut rng);
            for first in [true, false] {
                let (_, tag) = keys.open(&codec, &packet).unwrap();
                assert_eq!(keys.is_first(&tag), first);
            }
        }
        assert!(keys.open(&codec, &packet(3, &mut rng)).is_none());
        // A key that stays remembers; one that goes opens nothing.
        let old = packet(1, &mut rng);
        let (_, tag) = keys.open(&codec, &old).unwrap();
        assert!(keys.is_first(&tag));
        keys.set(vec![secret(3), secret(1)], |_| Box::new(InMemory::new(8)));
        let (_, tag) = keys.open(&codec, &old).unwrap();
        assert!(!keys.is_first(&tag));
        keys.set(vec![secret(3)], |_| Box::new(InMemory::new(8)));
        assert!(keys.open(&codec, &old).is_none());
    }

    #[test]
    fn a_client_knows_its_identifiers_by_the_key_at_which_they_end() {
        let mut rng = Seed::from_u64(3).stream("keys");
        let codec = Keyed::default();
        let mut keys = Keys::one(secret(1), 8);
        let [a, b] =
            [IdPurpose::Loop, IdPurpose::Surb].map(|what| keys.identifier(what, [7; 8]).unwrap());
        // The key of the period is another one now; what is under way ends at the old one.
        keys.set(vec![secret(2), secret(1)], |_| Box::new(InMemory::new(8)));
        let (_, old) = keys.open(&codec, &packet(1, &mut rng)).unwrap();
        let (_, new) = keys.open(&codec, &packet(2, &mut rng)).unwrap();
        assert_eq!(
            (keys.made(&old, &a), keys.made(&old, &b)),
            (Some(IdPurpose::Loop), Some(IdPurpose::Surb))
        );
        assert_eq!((keys.made(&new, &a), keys.made(&new, &b)), (None, None));
        assert_eq!(keys.made(&old, &[7; 16]), None);
    }

    #[test]
    fn a_full_memory_takes_nothing_new() {
        let mut rng = Seed::from_u64(2).stream("keys");
        let codec = Keyed::default();
        let mut keys = Keys::one(secret(1), 4);
        let taken: Vec<bool> = (0..6)
            .map(|_| {
                let (_, tag) = keys.open(&codec, &packet(1, &mut rng)).unwrap();
                keys.is_first(&tag)
            })
            .collect();
        assert_eq!(taken, [true, true, true, true, false, false]);
        assert_eq!(keys.fullness(), 1.0);
    }
}
