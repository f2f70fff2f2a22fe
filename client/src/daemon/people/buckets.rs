//! The keys of messages at rest. Those of one conversation and day share a key, and each that is to be erased at a time of its
//! own has one: when the key is gone the message is, wherever the disk still has its bytes.
//!
//! All keys lie in one file, encrypted, which is written anew for each change; the one before it is overwritten and removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_host::secret::{self, Secret, SecretError};
use shoal_topology::encoding::{decode, encode};
use zeroize::{Zeroize as _, Zeroizing};

use super::sealed::Sealer;

/// The name of the file, before its number.
const FILE: &str = "keys-";
/// Most bytes of it.
const LONGEST: usize = 256 << 20;

/// What the messages under a key have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) enum Bucket {
    /// The person whom the conversation is with, and the day, counted from the beginning of Unix time.
    Day(u32, u64),
    /// It is one message.
    Single,
}

/// The number of a key.
pub(super) type BucketId = u64;

/// A key as it lies in the file.
#[derive(Serialize, Deserialize)]
struct KeptKey {
    id: BucketId,
    bucket: Bucket,
    key: [u8; 32],
}

impl Drop for KeptKey {
    fn drop(&mut self) {
        self.key.zeroize();
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
    keys: BTreeMap<BucketId, (Bucket, Secret)>,
    /// The keys of days that new messages take.
    days: BTreeMap<(u32, u64), BucketId>,
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
        let (next, keys): (BucketId, Vec<KeptKey>) =
            decode("keys of messages", &bytes, LONGEST).ok()?;
        for KeptKey { id, bucket, key } in &keys {
            self.keys.insert(*id, (*bucket, Zeroizing::new(*key)));
            // Of two keys of a day the later one is in use: the other is about to go.
            if let Bucket::Day(person, day) = bucket {
                self.days.insert((*person, *day), *id);
            }
        }
        (self.written, self.next) = (number, next);
        Some(())
    }

    fn write(&mut self) -> Result<(), SecretError> {
        let all = self.keys.iter();
        let all = all.map(|(id, (bucket, key))| KeptKey { id: *id, bucket: *bucket, key: **key });
        let plain = Zeroizing::new(encode(&(self.next, all.collect::<Vec<_>>())));
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
        let (id, key) = (self.next, secret::fresh().map_err(io)?);
        self.next += 1;
        self.keys.insert(id, (bucket, key));
        if let Err(error) = self.write() {
            self.keys.remove(&id);
            return Err(error);
        }
        if let Bucket::Day(person, day) = bucket {
            self.days.insert((person, day), id);
        }
        Ok(id)
    }

    /// The key that a message takes. It is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn for_message(&mut self, bucket: Bucket) -> Result<BucketId, SecretError> {
        if let Bucket::Day(person, day) = bucket
            && let Some(id) = self.days.get(&(person, day))
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
            if let Some((Bucket::Day(person, day), _)) = self.keys.remove(id)
                && self.days.get(&(person, day)) == Some(id)
            {
                self.days.remove(&(person, day));
            }
        }
        self.write()
    }

    /// What encrypts under a key, if it is there.
    pub(super) fn sealer(&self, id: BucketId) -> Option<Sealer> {
        self.keys.get(&id).map(|(_, key)| Sealer::new(key))
    }
}

#[cfg(test)]
mod tests {
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
        let day = buckets.for_message(Bucket::Day(3, 20_000)).unwrap();
        assert_eq!(buckets.for_message(Bucket::Day(3, 20_000)).unwrap(), day);
        let single = buckets.for_message(Bucket::Single).unwrap();
        let sealed = buckets.sealer(day).unwrap().seal(b"here", b"hello").unwrap();
        let mut buckets = open(&path).unwrap();
        assert_eq!(&**buckets.sealer(day).unwrap().unseal(b"here", &sealed).unwrap(), b"hello");
        assert!(buckets.sealer(day).unwrap().unseal(b"there", &sealed).is_none());
        assert!(buckets.sealer(single).unwrap().unseal(b"here", &sealed).is_none());
        // Another key of the same day, and the first one goes.
        let next = buckets.renew(day).unwrap().unwrap();
        assert_eq!(buckets.for_message(Bucket::Day(3, 20_000)).unwrap(), next);
        assert!(buckets.renew(single).unwrap().is_none());
        buckets.erase(&[day, single]).unwrap();
        let mut buckets = open(&path).unwrap();
        assert!(buckets.sealer(day).is_none() && buckets.sealer(single).is_none());
        assert_eq!(buckets.for_message(Bucket::Day(3, 20_000)).unwrap(), next);
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
}
