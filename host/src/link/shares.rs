//! Room for connections whose other end has not shown yet that it belongs here, shared between the networks that they
//! come from.
//!
//! Whoever connects takes up room before anything is known of him, so this room must not be his to fill. A network (a
//! /24 of IPv4, a /48 of IPv6) has a part of it and no more; when all of it is taken, the network that holds most gives
//! way. Of one network that goes first which was sent away, then which has not said a byte, then the oldest: who opens
//! connections and is silent displaces himself, and who says something has until as many others have come as its network
//! may hold. Whoever was let in has left this room, and is back in it when he is sent away: a connection whose other end
//! does not read takes a while to end, and that while must be nobody's to multiply.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

/// The network that a connection comes from, as a hash under a key of the endpoint's own: no address is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Origin(pub u64);

impl Origin {
    /// Of an address among strangers: its /24 or /48.
    pub(super) fn network(key: &[u8; 32], address: IpAddr) -> Self {
        let mut bytes = octets(address);
        let kept = if bytes.len() == 4 { 3 } else { 6 };
        bytes.truncate(kept);
        Self::hash(key, &bytes)
    }

    /// Of an address that the topology lists: this address alone.
    pub(super) fn host(key: &[u8; 32], address: IpAddr) -> Self {
        Self::hash(key, &octets(address))
    }

    fn hash(key: &[u8; 32], bytes: &[u8]) -> Self {
        let hash = blake3::keyed_hash(key, bytes);
        Self(hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first)))
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// How far a stranger has come. In the order in which they make room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StrangerStage {
    /// It was sent away, and may still read why.
    Dismissed,
    /// It has not said a byte.
    Silent,
    /// It has said something.
    Heard,
}

/// Among the strangers of one network: those of the first stage first, each stage in the order of arrival.
type Turn = (StrangerStage, u64);

/// The strangers of an endpoint.
pub(super) struct Strangers<K> {
    most: usize,
    most_of_one: usize,
    arrivals: u64,
    by_key: HashMap<K, (Origin, Turn)>,
    by_origin: HashMap<Origin, BTreeMap<Turn, K>>,
}

impl<K: Copy + Eq + Hash> Strangers<K> {
    /// Room for `most`, of them `most_of_one` of one network; one at least.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        let (most, most_of_one) = (most.max(1), most_of_one.max(1));
        let (by_key, by_origin) = Default::default();
        Self { most, most_of_one, arrivals: 0, by_key, by_origin }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Takes a stranger in, who is silent so far; who makes room for it.
    pub(super) fn add(&mut self, key: K, origin: Origin) -> Option<K> {
        let leaves = self.next_to_leave(origin);
        if let Some(leaves) = &leaves {
            self.remove(leaves);
        }
        self.arrivals += 1;
        self.put(key, origin, (StrangerStage::Silent, self.arrivals));
        leaves
    }

    /// Who was let in, or is a stranger still, was sent away; who makes room for it, perhaps it alone.
    pub(super) fn dismiss(&mut self, key: K, origin: Origin) -> Option<K> {
        self.remove(&key);
        self.arrivals += 1;
        self.put(key, origin, (StrangerStage::Dismissed, self.arrivals));
        let own = self.by_origin.get(&origin).map_or(0, BTreeMap::len);
        let leaves = if own > self.most_of_one {
            self.by_origin.get(&origin).and_then(first)
        } else if self.by_key.len() > self.most {
            self.first_of_the_largest(None)
        } else {
            None
        };
        if let Some(leaves) = &leaves {
            self.remove(leaves);
        }
        leaves
    }

    /// A stranger has said something.
    pub(super) fn heard(&mut self, key: &K) {
        if let Some((origin, (_, arrival))) = self.by_key.get(key).copied() {
            self.remove(key);
            self.put(*key, origin, (StrangerStage::Heard, arrival));
        }
    }

    /// A stranger is none any more, or is gone. True if it was there.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let Some((origin, turn)) = self.by_key.remove(key) else { return false };
        if let Some(of_one) = self.by_origin.get_mut(&origin) {
            of_one.remove(&turn);
            if of_one.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
        true
    }

    fn put(&mut self, key: K, origin: Origin, turn: Turn) {
        self.by_key.insert(key, (origin, turn));
        self.by_origin.entry(origin).or_default().insert(turn, key);
    }

    /// Who leaves before one of `origin` comes in.
    fn next_to_leave(&self, origin: Origin) -> Option<K> {
        let own = self.by_origin.get(&origin);
        if own.is_some_and(|own| own.len() >= self.most_of_one) {
            return own.and_then(first);
        }
        if self.by_key.len() < self.most {
            return None;
        }
        self.first_of_the_largest(Some(origin))
    }

    /// The first to go of the network with most, a newcomer counted; of several the one whose turn comes first.
    fn first_of_the_largest(&self, newcomer: Option<Origin>) -> Option<K> {
        let weight = |(of, held): &(&Origin, &BTreeMap<Turn, K>)| {
            let turn = held.first_key_value().map(|(turn, _)| *turn);
            (held.len() + usize::from(Some(**of) == newcomer), std::cmp::Reverse(turn))
        };
        self.by_origin.iter().max_by_key(weight).and_then(|(_, of_one)| first(of_one))
    }
}

fn first<K: Copy>(of_one: &BTreeMap<Turn, K>) -> Option<K> {
    of_one.first_key_value().map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn network(address: &str) -> Origin {
        Origin::network(&KEY, address.parse().unwrap())
    }

    #[test]
    fn a_network_is_a_24_of_ipv4_and_a_48_of_ipv6() {
        assert_eq!(network("127.0.0.1"), network("127.0.0.254"));
        assert_ne!(network("127.0.0.1"), network("127.0.1.1"));
        assert_eq!(network("::ffff:10.1.2.3"), network("10.1.2.9"));
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:ffff::4"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        let host = |address: &str| Origin::host(&KEY, address.parse().unwrap());
        assert_ne!(host("10.1.2.3"), host("10.1.2.4"));
    }

    #[test]
    fn whoever_floods_from_one_network_displaces_its_own_oldest_alone() {
        let mut strangers = Strangers::new(256, 64);
        assert_eq!(strangers.add(0, Origin(1)), None);
        for n in 1..=64 {
            assert_eq!(strangers.add(n, Origin(2)), None);
        }
        for n in 65..5_000 {
            assert_eq!(strangers.add(n, Origin(2)), Some(n - 64));
        }
        assert!(strangers.remove(&0));
        assert_eq!(strangers.len(), 64);
    }

    #[test]
    fn who_has_said_something_stays_while_the_silent_of_its_network_come_and_go() {
        let mut strangers = Strangers::new(256, 64);
        strangers.add(0, Origin(2));
        strangers.heard(&0);
        for n in 1..5_000 {
            assert_ne!(strangers.add(n, Origin(2)), Some(0));
        }
        // All have said something: the oldest.
        (4_936..5_000).for_each(|n| strangers.heard(&n));
        assert_eq!(strangers.add(5_000, Origin(2)), Some(0));
    }

    #[test]
    fn whoever_was_sent_away_goes_before_all_others_of_its_network() {
        let mut strangers = Strangers::new(256, 3);
        strangers.add(0, Origin(2));
        strangers.heard(&0);
        strangers.add(1, Origin(2));
        // One that was let in before, and is not among them.
        assert_eq!(strangers.dismiss(2, Origin(2)), None);
        assert_eq!(strangers.dismiss(3, Origin(2)), Some(2));
        assert_eq!(strangers.add(4, Origin(2)), Some(3));
        assert_eq!(strangers.dismiss(5, Origin(2)), Some(5));
        // A stranger is still one.
        assert_eq!(strangers.dismiss(4, Origin(2)), None);
        assert_eq!(strangers.add(6, Origin(2)), Some(4));
        let mut strangers = Strangers::new(3, 3);
        (0..2).for_each(|n| _ = strangers.dismiss(n, Origin(1)));
        strangers.add(2, Origin(2));
        assert_eq!(strangers.dismiss(3, Origin(2)), Some(0));
        assert_eq!(strangers.len(), 3);
    }

    #[test]
    fn when_all_room_is_taken_the_network_with_most_gives_way() {
        let mut strangers = Strangers::new(10, 8);
        (0..2).for_each(|n| _ = strangers.add(n, Origin(1)));
        (2..8).for_each(|n| _ = strangers.add(n, Origin(2)));
        (8..10).for_each(|n| _ = strangers.add(n, Origin(3)));
        assert_eq!(strangers.add(10, Origin(4)), Some(2));
        assert_eq!(strangers.add(11, Origin(4)), Some(3));
        // Among as many networks as there is room for, the oldest that said nothing.
        let mut strangers = Strangers::new(3, 8);
        (0..3).for_each(|n| _ = strangers.add(n, Origin(n)));
        strangers.heard(&0);
        assert_eq!(strangers.add(3, Origin(3)), Some(1));
        assert_eq!(strangers.len(), 3);
    }
}
