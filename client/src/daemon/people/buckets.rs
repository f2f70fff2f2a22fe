//! The keys of messages at rest. Those of one conversation and day share a key, and each that is to be erased at a time of its
//! own has one: when the key is gone the message is, wherever the disk still has its bytes.
//!
//! All keys lie in one file, encrypted, which is written anew for each change; the one before it is overwritten and removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shoal_host::secret::{self, Secret, SecretError};
use shoal_people::Conversation;
use shoal_sphinx::backend::wipe_stack;
use shoal_topology::encoding::{decode, encode_secret};
use zeroize::Zeroizing;

use super::sealed::Sealer;

/// The name of the file, before its number.
const FILE: &str = "keys-";
/// Most bytes of it.
const LONGEST: usize = 256 << 20;

/// What the messages under a key have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) enum Bucket {
    /// The conversation, and the day, counted from the beginning of Unix time.
    Day(Conversation, u64),
    /// It is one message.
    Single,
}

/// The number of a key.
pub(super) type BucketId = u64;

/// A key that stays where it is in memory: what moves leaves a copy behind. It is wiped there.
struct BucketKey(Box<Secret>);

impl BucketKey {
    /// One of zeros, to be filled.
    fn empty() -> Self {
        Self(Box::new(Zeroizing::new([0; 32])))
    }
}

impl Serialize for BucketKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut to = to.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| to.serialize_element(byte))?;
        to.end()
    }
}

impl<'de> Deserialize<'de> for BucketKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_tuple(32, KeyVisitor)
    }
}

/// Reads a key into its place, byte by byte.
struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = BucketKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the 32 bytes of a key")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<BucketKey, A::Error> {
        let mut key = BucketKey::empty();
        for (n, byte) in key.0.iter_mut().enumerate() {
            *byte = bytes.next_element()?.ok_or_else(|| A::Error::invalid_length(n, &self))?;
        }
        Ok(key)
    }
}

/// The keys of all messages, and the file that they lie in.
pub(super) struct Buckets {
    dir: PathBuf,
    sealer: Sealer,
    /// The number of the file.
    written: u64,
    /// The number of the next key: each is given once.
    next: BucketId,
    keys: BTreeMap<BucketId, (Bucket, BucketKey)>,
    /// The keys of days that new messages take.
    days: BTreeMap<(Conversation, u64), BucketId>,
}

impl Buckets {
    /// Reads the keys in a directory.
    ///
    /// # Errors
    /// There is a file with keys, and it cannot be read.
    pub(super) fn open(dir: &Path, sealer: Sealer) -> Result<Self, SecretError> {
        let io = |source| SecretError::Io { path: dir.to_owned(), source };
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix(FILE)?.parse::<u64>().ok());
            if let Some(number) = number {
                files.insert(number, path);
            }
        }
        let (written, next, keys, days) = Default::default();
        let mut buckets = Self { dir: dir.to_owned(), sealer, written, next, keys, days };
        // Each is written whole before the one before it goes.
        if let Some((number, path)) = files.pop_last() {
            let sealed = fs::read(&path).map_err(io)?;
            let read = buckets.read(number, &sealed);
            read.ok_or(SecretError::Malformed(path))?;
            for older in files.values() {
                secret::erase(older)?;
            }
        }
        Ok(buckets)
    }

    fn read(&mut self, number: u64, sealed: &[u8]) -> Option<()> {
        let bytes = self.sealer.unseal(&number.to_be_bytes(), sealed)?;
        let (next, keys): (BucketId, Vec<(BucketId, Bucket, BucketKey)>) =
            decode("keys of messages", &bytes, LONGEST).ok()?;
        wipe_stack();
        for (id, bucket, key) in keys {
            // Of two keys of a day the later one is in use: the other is about to go.
            if let Bucket::Day(of, day) = bucket {
                self.days.insert((of, day), id);
            }
            self.keys.insert(id, (bucket, key));
        }
        (self.written, self.next) = (number, next);
        Some(())
    }

    fn write(&mut self) -> Result<(), SecretError> {
        let all: Vec<(&BucketId, &Bucket, &BucketKey)> =
            self.keys.iter().map(|(id, (bucket, key))| (id, bucket, key)).collect();
        let plain = encode_secret(&(self.next, all));
        wipe_stack();
        let number = self.written + 1;
        let path = self.dir.join(format!("{FILE}{number}"));
        let io = |source| SecretError::Io { path: path.clone(), source };
        let sealed = self.sealer.seal(&number.to_be_bytes(), &plain).map_err(io)?;
        secret::replace(&path, &sealed)?;
        let before = std::mem::replace(&mut self.written, number);
        secret::erase(&self.dir.join(format!("{FILE}{before}")))
    }

    fn add(&mut self, bucket: Bucket) -> Result<BucketId, SecretError> {
        let io = |source| SecretError::Io { path: self.dir.clone(), source };
        let (id, mut key) = (self.next, BucketKey::empty());
        secret::fill(&mut key.0).map_err(io)?;
        self.next += 1;
        self.keys.insert(id, (bucket, key));
        if let Err(error) = self.write() {
            self.keys.remove(&id);
            return Err(error);
        }
        if let Bucket::Day(of, day) = bucket {
            self.days.insert((of, day), id);
        }
        Ok(id)
    }

    /// The key that a message takes. It is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn for_message(&mut self, bucket: Bucket) -> Result<BucketId, SecretError> {
        if let Bucket::Day(of, day) = bucket
            && let Some(id) = self.days.get(&(of, day))
        {
            return Ok(*id);
        }
        self.add(bucket)
    }

    /// Another key in place of that of a day: what is to stay is encrypted anew, and then the old one goes. None where a message has
    /// a key of its own.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn renew(&mut self, id: BucketId) -> Result<Option<BucketId>, SecretError> {
        match self.keys.get(&id) {
            Some((bucket @ Bucket::Day(..), _)) => self.add(*bucket).map(Some),
            _ => Ok(None),
        }
    }

    /// A key goes.
    ///
    /// # Errors
    /// It cannot be erased on the disk.
    pub(super) fn erase(&mut self, ids: &[BucketId]) -> Result<(), SecretError> {
        for id in ids {
            if let Some((Bucket::Day(of, day), _)) = self.keys.remove(id)
                && self.days.get(&(of, day)) == Some(id)
            {
                self.days.remove(&(of, day));
            }
        }
        self.write()
    }

    /// What encrypts under a key, if it is there.
    pub(super) fn sealer(&self, id: BucketId) -> Option<Sealer> {
        self.keys.get(&id).map(|(_, key)| Sealer::new(&key.0))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroize as _;

    use super::*;

    /// A directory of ours alone.
    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("people");
        secret::private_directory(&path).unwrap();
        (dir, path)
    }

    fn open(dir: &Path) -> Result<Buckets, SecretError> {
        Buckets::open(dir, Sealer::new(&Zeroizing::new([7; 32])))
    }

    fn files(dir: &Path) -> Vec<Vec<u8>> {
        fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn keys_outlive_the_program_until_they_are_erased() {
        let (_dir, path) = directory();
        let mut buckets = open(&path).unwrap();
        let day = buckets.for_message(Bucket::Day(Conversation::Person(3), 20_000)).unwrap();
        assert_eq!(buckets.for_message(Bucket::Day(Conversation::Person(3), 20_000)).unwrap(), day);
        let single = buckets.for_message(Bucket::Single).unwrap();
        let sealed = buckets.sealer(day).unwrap().seal(b"here", b"hello").unwrap();
        let mut buckets = open(&path).unwrap();
        assert_eq!(&**buckets.sealer(day).unwrap().unseal(b"here", &sealed).unwrap(), b"hello");
        assert!(buckets.sealer(day).unwrap().unseal(b"there", &sealed).is_none());
        assert!(buckets.sealer(single).unwrap().unseal(b"here", &sealed).is_none());
        // Another key of the same day, and the first one goes.
        let next = buckets.renew(day).unwrap().unwrap();
        assert_eq!(
            buckets.for_message(Bucket::Day(Conversation::Person(3), 20_000)).unwrap(),
            next
        );
        assert!(buckets.renew(single).unwrap().is_none());
        buckets.erase(&[day, single]).unwrap();
        let mut buckets = open(&path).unwrap();
        assert!(buckets.sealer(day).is_none() && buckets.sealer(single).is_none());
        assert_eq!(
            buckets.for_message(Bucket::Day(Conversation::Person(3), 20_000)).unwrap(),
            next
        );
        let numbers = [day, single, next, buckets.for_message(Bucket::Single).unwrap()];
        assert!(numbers.is_sorted_by(|a, b| a < b), "a number was given twice: {numbers:?}");
        assert_eq!(files(&path).len(), 1, "the file before it is gone");
    }

    #[test]
    fn a_file_that_was_changed_is_said_and_not_written_over() {
        let (_dir, path) = directory();
        open(&path).unwrap().for_message(Bucket::Single).unwrap();
        let file = path.join("keys-1");
        let mut bytes = fs::read(&file).unwrap();
        bytes[30] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert!(matches!(open(&path), Err(SecretError::Malformed(of)) if of == file));
        assert_eq!(files(&path), [bytes]);
    }

    #[test]
    fn what_a_kill_left_of_the_file_before_is_erased() {
        let (_dir, path) = directory();
        let mut buckets = open(&path).unwrap();
        let first = buckets.for_message(Bucket::Single).unwrap();
        let kept = fs::read(path.join("keys-1")).unwrap();
        buckets.erase(&[first]).unwrap();
        fs::write(path.join("keys-1"), kept).unwrap();
        assert!(open(&path).unwrap().sealer(first).is_none());
        assert_eq!(files(&path).len(), 1);
    }

    /// Eight bytes from the middle of a key, as nothing in memory has them.
    fn mask(word: &[u8]) -> u64 {
        u64::from_le_bytes(word.try_into().unwrap()) ^ 0x5a5a_5a5a_5a5a_5a5a
    }

    /// How often a word stands in the memory of this process.
    fn in_memory(masked: u64) -> usize {
        use std::os::unix::fs::FileExt as _;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let memory = fs::File::open("/proc/self/mem").unwrap();
        // So large that nothing else lies in its pages: what is read is in the memory that is read.
        let mut chunk = Zeroizing::new(vec![0; 1 << 20]);
        let own = chunk.as_ptr() as u64..chunk.as_ptr() as u64 + chunk.len() as u64;
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let (mut at, end) = (address(from), address(to));
            while at < end {
                let length = (end - at).min(4_096) as usize;
                let is_own = own.contains(&at) || own.contains(&(at + length as u64 - 1));
                let got = memory.read_at(&mut chunk[..length], at).unwrap_or_default();
                if got < 8 {
                    break;
                }
                if !is_own {
                    found += chunk[..got].windows(8).filter(|word| mask(word) == masked).count();
                }
                chunk[..got].zeroize();
                at += (got - 7) as u64;
            }
        }
        found
    }

    #[test]
    fn a_key_that_was_erased_is_in_no_memory_any_more() {
        let (_dir, path) = directory();
        let mut buckets = open(&path).unwrap();
        let mut ids = Vec::new();
        let word = |buckets: &Buckets, id| mask(&buckets.keys.get(&id).unwrap().1.0[8..16]);
        for n in 0..200 {
            let bucket =
                if n % 2 == 0 { Bucket::Single } else { Bucket::Day(Conversation::Person(3), n) };
            ids.push(buckets.for_message(bucket).unwrap());
        }
        let sealed = buckets.sealer(ids[17]).unwrap().seal(b"here", b"hello").unwrap();
        // As they were drawn, and as they are read.
        for _ in 0..2 {
            let (gone, stays) = (ids.remove(17), ids[60]);
            let words = [gone, stays].map(|id| word(&buckets, id));
            buckets.sealer(gone).unwrap().unseal(b"here", &sealed);
            wipe_stack();
            assert_eq!(words.map(in_memory), [1, 1]);
            buckets.erase(&[gone]).unwrap();
            assert_eq!(words.map(in_memory), [0, 1]);
            drop(buckets);
            assert_eq!(in_memory(words[1]), 0);
            buckets = open(&path).unwrap();
        }
    }
}
