//! The file of messages and sessions: what lies in it is encrypted, and the names under which it lies say nothing.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use shoal_host::secret::{self, Secret, SecretError};
use shoal_people::{Change, Key};
use shoal_sphinx::backend::wipe_stack;
use shoal_topology::encoding::{decode, encode, encode_secret};
use zeroize::Zeroizing;

use super::buckets::{BucketId, Buckets};
use super::sealed::{OVERHEAD, Sealer};

/// What the engine keeps, by a hash that only this client computes.
const PIECES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("pieces");
/// Messages by their numbers: the number of the key, and what it encrypts.
const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
/// What is kept once: encrypted.
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
/// Memory for pages of the file, bytes: they are read seldom.
const CACHE: usize = 2 << 20;
/// Most bytes of a piece or a message.
const LONGEST: usize = 4 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A key, or the directory.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file itself.
    #[error("the messages in {}", .0.display())]
    File(PathBuf, #[source] Box<redb::Error>),
    /// What lies in it was written under another key, or changed.
    #[error(
        "the messages in {} were written under other keys: restore the whole directory, or move it away to begin without them",
        .0.display()
    )]
    Keys(PathBuf),
}

/// A message's place: its number, and under which key it lies.
pub(super) type Place = (u64, BucketId);

/// What is written in one piece.
#[derive(Default)]
pub(super) struct StoreChanges {
    /// Of the engine.
    pub(super) pieces: Vec<(Key, Option<Change>)>,
    /// Messages, as they are now.
    pub(super) messages: Vec<(Place, Zeroizing<Vec<u8>>)>,
    /// Messages that go.
    pub(super) gone: Vec<u64>,
    /// What is kept once.
    pub(super) about: Option<Vec<u8>>,
}

/// The file, and the keys to it.
pub(super) struct Store {
    path: PathBuf,
    database: Database,
    names: Zeroizing<[u8; 32]>,
    pieces: Sealer,
    pub(super) buckets: Buckets,
}

#[derive(Serialize, Deserialize)]
struct Piece(Key, Vec<u8>);

impl Store {
    /// Opens what lies in this directory, or begins it.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        secret::private_directory(dir)?;
        let path = dir.join("messages.redb");
        let is_new = !path.exists();
        let master: Secret = secret::read_or_create(&dir.join("master.key"))?;
        if is_new {
            // Made here, so that the mode is ours.
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            made.map_err(|source| SecretError::Io { path: path.clone(), source })?;
        }
        let wrong = |error| StoreError::File(path.clone(), Box::new(error));
        let database = Database::builder().set_cache_size(CACHE).create(&path);
        let database = database.map_err(|error| wrong(error.into()))?;
        let of_keys = Sealer::derived("shoal 2026 keys of messages at rest", &master);
        let store = Self {
            buckets: Buckets::open(dir, of_keys)?,
            names: Zeroizing::new(blake3::derive_key("shoal 2026 names at rest", &*master)),
            pieces: Sealer::derived("shoal 2026 sessions at rest", &master),
            database,
            path,
        };
        // The tables are there from now on.
        store.write(StoreChanges::default())?;
        Ok(store)
    }

    fn wrong(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError::File(self.path.clone(), Box::new(error.into()))
    }

    /// Under which name a piece lies.
    fn name(&self, key: &Key) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.names, &encode(key));
        *hash.as_bytes().first_chunk().unwrap_or(&[0; 16])
    }

    /// All that the engine had kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read_pieces(&self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let mut all = Vec::new();
            for entry in self.database.begin_read()?.open_table(PIECES)?.iter()? {
                let (name, sealed) = entry?;
                all.push(self.pieces.unseal(name.value(), sealed.value()));
            }
            Ok(all)
        };
        let piece = |plain: Option<Zeroizing<Vec<u8>>>| {
            let Piece(key, bytes) = decode("piece", &plain?, LONGEST).ok()?;
            Some((key, bytes))
        };
        let all = read().map_err(|error| self.wrong(error))?;
        let all: Option<Vec<_>> = all.into_iter().map(piece).collect();
        all.ok_or_else(|| StoreError::Keys(self.path.clone()))
    }

    /// What is kept once, if it was ever.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read_about(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let sealed = self.database.begin_read()?.open_table(ABOUT)?.get("about")?;
            Ok(sealed.map(|sealed| self.pieces.unseal(b"about", sealed.value())))
        };
        let about = read().map_err(|error| self.wrong(error))?;
        about.map(|plain| plain.ok_or_else(|| StoreError::Keys(self.path.clone()))).transpose()
    }

    /// Shows messages, the earliest number first, until there are no more or `show` says stop: by number, key, and what it says. Those
    /// whose key is gone come without.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn each(
        &self,
        mut show: impl FnMut(Place, Option<Zeroizing<Vec<u8>>>),
    ) -> Result<(), StoreError> {
        let mut sealer: Option<(BucketId, Option<Sealer>)> = None;
        let mut read = || -> Result<(), redb::Error> {
            for entry in self.database.begin_read()?.open_table(MESSAGES)?.iter()? {
                let (number, sealed) = entry?;
                let Some((bucket, sealed)) = sealed.value().split_first_chunk() else { continue };
                let bucket = BucketId::from_be_bytes(*bucket);
                // Neighbours often share a key.
                let of = match &mut sealer {
                    Some((of, sealer)) if *of == bucket => sealer,
                    other => &mut other.insert((bucket, self.buckets.sealer(bucket))).1,
                };
                let place = number.value().to_be_bytes();
                let open = |sealer: &Sealer| sealer.unseal_one_of_many(&place, sealed);
                let plain = of.as_ref().and_then(open);
                show((number.value(), bucket), plain);
            }
            Ok(())
        };
        let read = read();
        wipe_stack();
        read.map_err(|error| self.wrong(error))
    }

    /// What a message says, if it is there and its key is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, number: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let sealed = self.database.begin_read()?.open_table(MESSAGES)?.get(number)?;
            Ok(sealed.and_then(|sealed| {
                let (bucket, sealed) = sealed.value().split_first_chunk()?;
                let sealer = self.buckets.sealer(BucketId::from_be_bytes(*bucket))?;
                sealer.unseal(&number.to_be_bytes(), sealed)
            }))
        };
        read().map_err(|error| self.wrong(error))
    }

    /// Writes all of it, or nothing; it is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, batch: StoreChanges) -> Result<(), StoreError> {
        let system = |source| SecretError::Io { path: self.path.clone(), source };
        let mut pieces = Vec::new();
        for (key, change) in &batch.pieces {
            let name = self.name(key);
            let sealed = match change {
                None => None,
                Some(Change(bytes)) => {
                    let plain = encode_secret(&(key, bytes.as_slice()));
                    Some(self.pieces.seal(&name, &plain).map_err(system)?)
                }
            };
            pieces.push((name, sealed));
        }
        let mut messages = Vec::new();
        for ((number, bucket), plain) in &batch.messages {
            let Some(sealer) = self.buckets.sealer(*bucket) else { continue };
            let mut row = Vec::with_capacity(8 + OVERHEAD + plain.len());
            row.extend(bucket.to_be_bytes());
            row.extend(sealer.seal(&number.to_be_bytes(), plain).map_err(system)?);
            messages.push((*number, row));
        }
        let about = batch.about.map(|plain| self.pieces.seal(b"about", &Zeroizing::new(plain)));
        let about = about.transpose().map_err(system)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(PIECES)?;
                for (name, sealed) in &pieces {
                    match sealed {
                        Some(sealed) => _ = table.insert(name, sealed.as_slice())?,
                        None => _ = table.remove(name)?,
                    }
                }
                let mut table = transaction.open_table(MESSAGES)?;
                for (number, row) in &messages {
                    table.insert(number, row.as_slice())?;
                }
                for number in &batch.gone {
                    table.remove(number)?;
                }
                let mut table = transaction.open_table(ABOUT)?;
                if let Some(about) = &about {
                    table.insert("about", about.as_slice())?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.wrong(error))
    }
}
