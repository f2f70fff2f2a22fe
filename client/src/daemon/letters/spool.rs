//! The letters on disk: each a file of its own, encrypted, written whole or not at all.
//!
//! `letters/out` has those that have not left, `letters/in` those that no program has taken. Names are numbers, which are given
//! once: the file `letters/next` says from where on none was, in steps, so that it is seldom written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngExt as _;
use shoal_host::secret::{self, SecretError};
use shoal_topology::Stream;
use shoal_topology::directory::address::ServiceAddress;

/// Letters that wait to leave, and those that wait to be taken, at most.
const MOST: usize = 10_000;
/// Numbers that are given out for one write of the file that counts them.
const STEP: u64 = 64;
/// Seconds before each next attempt to reach somebody; the last for all that follow. Each is multiplied by a number of its own
/// from [`SPREAD`].
const RETRIES_S: [f64; 7] = [60.0, 600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 86_400.0];
const SPREAD: std::ops::Range<f64> = 0.7..1.3;
/// After so many seconds a letter is given up.
const LIVES_S: u64 = 14 * 86_400;
/// Bytes before the message of a letter that goes out: address 64, due 8, until 8, tries 4.
const HEAD: usize = 84;

/// A letter that has not left.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) to: ServiceAddress,
    pub(super) message: Vec<u8>,
    /// When it is tried, Unix seconds.
    pub(super) due_s: u64,
    /// When it is given up.
    until_s: u64,
    /// How often nobody was reached.
    tries: u32,
}

impl Outgoing {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.message.len());
        bytes.extend(self.to.identity);
        bytes.extend(self.to.gateway);
        bytes.extend(self.due_s.to_be_bytes());
        bytes.extend(self.until_s.to_be_bytes());
        bytes.extend(self.tries.to_be_bytes());
        bytes.extend(&self.message);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (identity, bytes) = bytes.split_first_chunk()?;
        let (gateway, bytes) = bytes.split_first_chunk()?;
        let (due_s, bytes) = bytes.split_first_chunk()?;
        let (until_s, bytes) = bytes.split_first_chunk()?;
        let (tries, message) = bytes.split_first_chunk()?;
        Some(Self {
            to: ServiceAddress { identity: *identity, gateway: *gateway },
            message: message.to_vec(),
            due_s: u64::from_be_bytes(*due_s),
            until_s: u64::from_be_bytes(*until_s),
            tries: u32::from_be_bytes(*tries),
        })
    }
}

/// What becomes of a letter that reached nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// It is tried again at this second.
    Again(u64),
    /// It was given up.
    Expired,
}

/// The letters of a client.
pub(super) struct Spool {
    dir: PathBuf,
    cipher: XChaCha20Poly1305,
    /// Those that have not left, by number.
    pub(super) outgoing: BTreeMap<u64, Outgoing>,
    /// Those that no program has taken.
    pub(super) incoming: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// No number from here on was ever given.
    reserved: u64,
    draws: Stream,
}

impl Spool {
    /// Reads what is there.
    ///
    /// # Errors
    /// A directory or the key cannot be read or made.
    pub(super) fn open(data_dir: &Path, draws: Stream) -> Result<Self, SecretError> {
        let dir = data_dir.join("letters");
        let key = secret::read_or_create(&data_dir.join("letters.key"))?;
        let cipher = XChaCha20Poly1305::new(&(*key).into());
        let (outgoing, incoming) = Default::default();
        let mut spool = Self { dir, cipher, outgoing, incoming, next: 0, reserved: 0, draws };
        for (number, bytes) in spool.read("out")? {
            if let Some(letter) = Outgoing::decode(&bytes) {
                spool.outgoing.insert(number, letter);
            }
        }
        spool.incoming = spool.read("in")?;
        let counted = fs::read_to_string(spool.dir.join("next")).unwrap_or_default();
        let last = |numbers: Option<&u64>| numbers.map_or(0, |number| number + 1);
        let known =
            last(spool.outgoing.keys().next_back()).max(last(spool.incoming.keys().next_back()));
        spool.next = counted.trim().parse().unwrap_or(1).max(known).max(1);
        spool.reserved = spool.next;
        Ok(spool)
    }

    /// The letters in one of the two directories. What cannot be opened is left where it lies.
    fn read(&self, kind: &str) -> Result<BTreeMap<u64, Vec<u8>>, SecretError> {
        let dir = self.dir.join(kind);
        secret::private_directory(&dir)?;
        let io = |source| SecretError::Io { path: dir.clone(), source };
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(number) = name.and_then(|name| name.parse().ok()) else { continue };
            let sealed = fs::read(&path).map_err(io)?;
            if let Some(bytes) = self.unseal(kind, number, &sealed) {
                found.insert(number, bytes);
            }
        }
        Ok(found)
    }

    /// A letter of the user's.
    ///
    /// # Errors
    /// It cannot be kept; or too many wait, which is an error without a source.
    pub(super) fn add(
        &mut self,
        to: ServiceAddress,
        message: Vec<u8>,
        now_s: u64,
    ) -> Result<Option<u64>, SecretError> {
        if self.outgoing.len() >= MOST {
            return Ok(None);
        }
        let number = self.number()?;
        let letter = Outgoing { to, message, due_s: now_s, until_s: now_s + LIVES_S, tries: 0 };
        self.write("out", number, &letter.encode())?;
        self.outgoing.insert(number, letter);
        Ok(Some(number))
    }

    /// A letter has left.
    pub(super) fn left(&mut self, number: u64) {
        if self.outgoing.remove(&number).is_some() {
            self.remove("out", number);
        }
    }

    /// A letter reached nobody.
    ///
    /// # Errors
    /// What is kept of it cannot be written.
    pub(super) fn returned(&mut self, number: u64, now_s: u64) -> Result<Next, SecretError> {
        let Some(letter) = self.outgoing.get_mut(&number) else { return Ok(Next::Expired) };
        let after = RETRIES_S.get(letter.tries as usize).or(RETRIES_S.last()).copied();
        let after = after.unwrap_or_default() * self.draws.random_range(SPREAD);
        letter.tries += 1;
        letter.due_s = now_s + after as u64;
        if letter.due_s > letter.until_s {
            self.left(number);
            return Ok(Next::Expired);
        }
        let (due_s, bytes) = (letter.due_s, letter.encode());
        self.write("out", number, &bytes)?;
        Ok(Next::Again(due_s))
    }

    /// A letter came. None if too many wait for a program.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn received(&mut self, message: Vec<u8>) -> Result<Option<u64>, SecretError> {
        if self.incoming.len() >= MOST {
            return Ok(None);
        }
        let number = self.number()?;
        self.write("in", number, &message)?;
        self.incoming.insert(number, message);
        Ok(Some(number))
    }

    /// A program has taken what came, up to this number.
    pub(super) fn taken(&mut self, up_to: u64) {
        let later = self.incoming.split_off(&up_to.saturating_add(1));
        for number in std::mem::replace(&mut self.incoming, later).into_keys() {
            self.remove("in", number);
        }
    }

    fn number(&mut self) -> Result<u64, SecretError> {
        if self.next >= self.reserved {
            self.reserved = self.next + STEP;
            secret::replace(&self.dir.join("next"), self.reserved.to_string().as_bytes())?;
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn write(&self, kind: &str, number: u64, plain: &[u8]) -> Result<(), SecretError> {
        let path = self.dir.join(kind).join(number.to_string());
        let io = |source| SecretError::Io { path: path.clone(), source };
        let random = secret::fresh().map_err(io)?;
        let nonce = random.first_chunk::<24>().copied().unwrap_or_default();
        let payload = Payload { msg: plain, aad: &bound(kind, number) };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| io(std::io::Error::other("cannot encrypt")))?;
        secret::replace(&path, &[nonce.as_slice(), &sealed].concat())
    }

    fn unseal(&self, kind: &str, number: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
        let payload = Payload { msg: sealed, aad: &bound(kind, number) };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }

    fn remove(&self, kind: &str, number: u64) {
        let path = self.dir.join(kind).join(number.to_string());
        if let Err(error) = secret::erase(&path) {
            tracing::warn!("{}", shoal_host::exit::chain(&error));
        }
    }
}

/// What a file is bound to: its place.
fn bound(kind: &str, number: u64) -> Vec<u8> {
    [kind.as_bytes(), &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use shoal_topology::Seed;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn open(dir: &Path) -> Spool {
        let dir = dir.join("data");
        secret::private_directory(&dir).unwrap();
        Spool::open(&dir, Seed::from_u64(1).stream("retries")).unwrap()
    }

    fn to(n: u8) -> ServiceAddress {
        ServiceAddress { identity: [n; 32], gateway: [n + 1; 32] }
    }

    #[test]
    fn letters_survive_and_numbers_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let first = spool.add(to(1), b"one".to_vec(), NOW).unwrap().unwrap();
        let second = spool.add(to(2), b"two".to_vec(), NOW).unwrap().unwrap();
        let third = spool.received(b"three".to_vec()).unwrap().unwrap();
        spool.left(first);
        let mut spool = open(dir.path());
        let letter = &spool.outgoing[&second];
        assert!(letter.to == to(2) && letter.message == b"two" && letter.due_s == NOW);
        assert_eq!(spool.outgoing.len(), 1);
        assert_eq!(spool.incoming, BTreeMap::from([(third, b"three".to_vec())]));
        spool.taken(third);
        spool.left(second);
        let mut spool = open(dir.path());
        assert!(spool.incoming.is_empty() && spool.outgoing.is_empty());
        let fourth = spool.received(Vec::new()).unwrap().unwrap();
        assert!(fourth > third, "{fourth} after {third}");
    }

    #[test]
    fn who_is_not_reached_is_tried_again_at_drawn_instants_for_two_weeks() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let number = spool.add(to(1), b"one".to_vec(), NOW).unwrap().unwrap();
        let (mut now, mut waits) = (NOW, Vec::new());
        while let Next::Again(at) = spool.returned(number, now).unwrap() {
            waits.push(at - now);
            now = at;
            // The same after a start.
            spool = open(dir.path());
            assert_eq!(spool.outgoing[&number].due_s, at);
        }
        assert!((42..=78).contains(&waits[0]) && (420..=780).contains(&waits[1]), "{waits:?}");
        assert!(waits[5..].iter().all(|s| (60_480..=112_320).contains(s)), "{waits:?}");
        assert!(now < NOW + LIVES_S && now > NOW + LIVES_S - 112_320);
        assert!(open(dir.path()).outgoing.is_empty());
    }

    #[test]
    fn no_word_of_a_letter_and_no_address_is_in_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let word = b"a word that nobody else writes";
        spool.add(to(0x5a), word.to_vec(), NOW).unwrap();
        spool.received(word.to_vec()).unwrap();
        let mut seen = 0;
        for kind in ["in", "out"] {
            for entry in fs::read_dir(dir.path().join("data/letters").join(kind)).unwrap() {
                let bytes = fs::read(entry.unwrap().path()).unwrap();
                assert!(!bytes.windows(8).any(|part| word.windows(8).any(|of| of == part)));
                assert!(!bytes.windows(8).any(|part| part == [0x5a; 8]));
                seen += 1;
            }
        }
        assert_eq!(seen, 2);
        // A file that was moved or changed is not taken for a letter.
        let path = dir.path().join("data/letters/in");
        let name = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
        fs::copy(&name, path.join("999")).unwrap();
        fs::write(path.join("1000"), b"short").unwrap();
        assert_eq!(open(dir.path()).incoming.len(), 1);
    }
}
