//! Letters between people, who can write them, and how they travel.

use shoal_client::engine::Contact;
use shoal_topology::Seed;
use shoal_topology::directory::address::ServiceAddress;

use super::network::bytes;

/// The secrets of pairs of people, which stand for their sessions: who has one can vouch for a letter.
pub(super) struct PairKeys {
    root: [u8; 32],
}

impl PairKeys {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { root: bytes(seed, "sessions") }
    }

    /// What vouches for `text` from one of a pair to the other.
    fn code(&self, from: u32, to: u32, text: &[u8]) -> blake3::Hash {
        let mut pair = [from.min(to).to_be_bytes(), from.max(to).to_be_bytes()].concat();
        let key = blake3::keyed_hash(&self.root, &pair);
        pair.clear();
        pair.extend(from.to_be_bytes());
        pair.extend(text);
        blake3::keyed_hash(key.as_bytes(), &pair)
    }
}

/// Something for another person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    /// Number of who wrote it.
    pub(super) from: u32,
    /// Number of whom it is for.
    pub(super) to: u32,
    /// Number of the activity.
    pub(super) activity: u32,
    /// Number of the datagram of a call.
    pub(super) tick: u32,
}

impl Letter {
    /// As it travels: writer, activity, datagram, 4 bytes each, and 16 bytes that vouch for them.
    pub(super) fn bytes(self, pairs: &PairKeys) -> Vec<u8> {
        let words = [self.from, self.activity, self.tick];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let code = pairs.code(self.from, self.to, &bytes);
        bytes.extend(code.as_bytes().iter().take(16));
        bytes
    }

    /// What came for a person, if the writer's session vouches for it.
    pub(super) fn read(message: &[u8], pairs: &PairKeys, to: u32) -> Option<Self> {
        let (text, code) = message.split_at_checked(12)?;
        let word = |n: usize| {
            let bytes = text.get(4 * n..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let letter = Self { from: word(0)?, to, activity: word(1)?, tick: word(2)? };
        (letter.bytes(pairs).get(12..) == Some(code)).then_some(letter)
    }
}

/// How people are reached, by number.
pub(super) struct Recipients {
    /// Where each is, and its present key.
    pub(super) contacts: Vec<Contact>,
    /// What others know of those who are reached by an address; none where everyone knows everyone's key.
    pub(super) addresses: Vec<ServiceAddress>,
    pub(super) pairs: PairKeys,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_by_whom_it_is_for_and_if_nothing_of_it_was_changed() {
        let pairs = PairKeys::new(&Seed::from_u64(1));
        let letter = Letter { from: 3, to: 5, activity: 70_000, tick: 9 };
        let bytes = letter.bytes(&pairs);
        assert_eq!(Letter::read(&bytes, &pairs, 5), Some(letter));
        assert_eq!(Letter::read(&bytes, &pairs, 6), None);
        assert_eq!(Letter::read(&bytes, &PairKeys::new(&Seed::from_u64(2)), 5), None);
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(index).unwrap() ^= 1;
            assert_eq!(Letter::read(&changed, &pairs, 5), None, "{index}");
        }
        // It does not come back to its writer.
        assert_eq!(Letter::read(&bytes, &pairs, 3), None);
        assert_eq!(Letter::read(&[], &pairs, 5), None);
    }
}
