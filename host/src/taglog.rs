//! The log of a key's replay tags: what a program must still know after `kill -9`.
//!
//! One file beside the key, 0600: a header (magic and version 8, the public half of the key 32, the key of the
//! fingerprints 32), then the fingerprints, 8 bytes each, little-endian. It only grows. A batch is one write, always
//! right behind what was written before: a write that fails half-way is written over by the next one, and one that a
//! kill cuts off leaves at most one torn fingerprint, whose packet never went on.
//!
//! Nothing is synced on the way: where the file lies in memory, beside its key, both are lost together when the machine goes
//! down. What the process has written outlives the process. Who keeps it on a disk calls [`TagLog::sync`] at the end, and does
//! not trust a log after a machine that went down before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::secret::{self, SecretError};

const MAGIC: &[u8; 8] = b"shoaltg1";
const HEADER_LEN: usize = 72;
const RECORD_LEN: usize = 8;

/// A log that is open for writing. Whoever opens it must be the only one.
pub struct TagLog {
    file: File,
    key: Zeroizing<[u8; 32]>,
    state: Mutex<TagLogState>,
}

struct TagLogState {
    /// Where the next fingerprint goes.
    end: u64,
    /// Kept, so that writing allocates nothing.
    bytes: Vec<u8>,
}

impl TagLog {
    /// An empty log for a key, with a fresh key of fingerprints. There must be no file of this name.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub fn create(path: &Path, public: &[u8; 32]) -> Result<Self, SecretError> {
        let io = || SecretError::io(path);
        let key = secret::fresh().map_err(io())?;
        let mut header = Zeroizing::new(Vec::with_capacity(HEADER_LEN));
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(public);
        header.extend_from_slice(key.as_ref());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(io())?;
        // Nothing is left: what is no log would be in the way of the next attempt, which wants a new file.
        if let Err(error) = file.write_all_at(&header, 0) {
            let _ = fs::remove_file(path);
            return Err(io()(error));
        }
        Ok(Self::new(file, key, HEADER_LEN as u64))
    }

    /// Opens the log of a key. A torn fingerprint at its end is cut off.
    ///
    /// # Errors
    /// When it is not there ([`SecretError::is_absent`]), is no log of this key ([`SecretError::is_unsound`]), is open to
    /// others, or cannot be read.
    pub fn open(path: &Path, public: &[u8; 32]) -> Result<Self, SecretError> {
        let io = || SecretError::io(path);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io())?;
        let found = file.metadata().map_err(io())?;
        secret::check(path, &found, 0o600)?;
        let mut header = Zeroizing::new([0; HEADER_LEN]);
        let read = file.read_exact_at(header.as_mut(), 0);
        // One that is cut short ends too early; whatever else fails says nothing of the file.
        if let Err(error) = read
            && error.kind() != ErrorKind::UnexpectedEof
        {
            return Err(io()(error));
        }
        let foreign =
            || io()(io::Error::new(ErrorKind::InvalidData, "it is no tag log of this key"));
        let (magic, rest) = header.split_first_chunk::<8>().ok_or_else(foreign)?;
        let (owner, rest) = rest.split_first_chunk::<32>().ok_or_else(foreign)?;
        // The log of another key knows nothing of what this one has opened: every packet would be new to it.
        if found.len() < HEADER_LEN as u64 || magic != MAGIC || owner != public {
            return Err(foreign());
        }
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(rest);
        let torn = (found.len() - HEADER_LEN as u64) % RECORD_LEN as u64;
        let end = found.len() - torn;
        if torn > 0 {
            file.set_len(end).map_err(io())?;
        }
        Ok(Self::new(file, key, end))
    }

    fn new(file: File, key: Zeroizing<[u8; 32]>, end: u64) -> Self {
        Self { file, key, state: Mutex::new(TagLogState { end, bytes: Vec::new() }) }
    }

    /// The key of its fingerprints.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Fingerprints that are in it.
    pub fn len(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.end - HEADER_LEN as u64) / RECORD_LEN as u64
    }

    /// True if none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands out every fingerprint, in the order in which they were written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each(&self, mut take: impl FnMut(u64)) -> io::Result<()> {
        let end = self.state.lock().unwrap_or_else(PoisonError::into_inner).end;
        // A piece at a time, since the log of a busy epoch is larger than what a start should take of memory.
        let mut chunk = vec![0; 1 << 16];
        let mut at = HEADER_LEN as u64;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
            let (part, _) = chunk.split_at_mut(length);
            self.file.read_exact_at(part, at)?;
            part.as_chunks::<RECORD_LEN>().0.iter().for_each(|r| take(u64::from_le_bytes(*r)));
            at += length as u64;
        }
        Ok(())
    }

    /// From now on nothing can be written, as on a full disk: for tests of those who use it.
    #[doc(hidden)]
    pub fn fail(&mut self) {
        if let Ok(full) = OpenOptions::new().write(true).open("/dev/full") {
            self.file = full;
        }
    }

    /// To the disk: from then on the log outlives the machine.
    ///
    /// # Errors
    /// It may not.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Writes fingerprints, all of them in one go. Threads may call it at the same time.
    ///
    /// # Errors
    /// They are not in the log then, and their packets must not go on.
    pub fn append(&self, fingerprints: &[u64]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let TagLogState { end, bytes } = &mut *state;
        bytes.clear();
        bytes.extend(fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()));
        // At a fixed place and not at the end of the file: a write that failed half-way has moved that end.
        self.file.write_all_at(bytes, *end)?;
        *end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const OWNER: [u8; 32] = [7; 32];

    fn tags(log: &TagLog) -> Vec<u64> {
        let mut tags = Vec::new();
        log.each(|tag| tags.push(tag)).unwrap();
        tags
    }

    #[test]
    fn what_was_appended_is_there_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.tags");
        let log = TagLog::create(&path, &OWNER).unwrap();
        assert!(log.is_empty());
        // More than is read at once.
        let written: Vec<u64> = (1..20_000).collect();
        for batch in written.chunks(33) {
            log.append(batch).unwrap();
        }
        let key = *log.key();
        drop(log);
        let log = TagLog::open(&path, &OWNER).unwrap();
        assert_eq!((tags(&log), *log.key()), (written, key));
        assert_eq!(log.len(), 19_999);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(TagLog::create(&path, &OWNER).is_err());
        assert_ne!(*TagLog::create(&dir.path().join("8.tags"), &OWNER).unwrap().key(), key);
    }

    #[test]
    fn a_torn_fingerprint_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.tags");
        TagLog::create(&path, &OWNER).unwrap().append(&[1, 2, 3]).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in HEADER_LEN..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let log = TagLog::open(&path, &OWNER).unwrap();
            let left = ((length - HEADER_LEN) / RECORD_LEN) as u64;
            assert_eq!(tags(&log), (1..=left).collect::<Vec<_>>(), "{length}");
            log.append(&[9]).unwrap();
            drop(log);
            let again = tags(&TagLog::open(&path, &OWNER).unwrap());
            assert_eq!(again, (1..=left).chain([9]).collect::<Vec<_>>(), "{length}");
        }
        for length in 0..HEADER_LEN {
            fs::write(&path, &whole[..length]).unwrap();
            let refused = TagLog::open(&path, &OWNER).err().unwrap();
            assert!(refused.is_unsound(), "{length}");
        }
    }

    #[test]
    fn a_write_that_fails_half_way_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.tags");
        let mut log = TagLog::create(&path, &OWNER).unwrap();
        log.append(&[1]).unwrap();
        // No room at all.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut log.file, full);
        assert_eq!(log.append(&[2, 3]).unwrap_err().kind(), ErrorKind::StorageFull);
        // A fingerprint and a half went out before the room was used up.
        log.file = file;
        log.file.write_all_at(&[0xee; 12], log.state.lock().unwrap().end).unwrap();
        log.append(&[4]).unwrap();
        assert_eq!(tags(&log), [1, 4]);
        drop(log);
        assert_eq!(tags(&TagLog::open(&path, &OWNER).unwrap()), [1, 4]);
    }

    #[test]
    fn the_log_of_another_key_or_one_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.tags");
        TagLog::create(&path, &OWNER).unwrap();
        assert!(TagLog::open(&path, &[8; 32]).err().unwrap().is_unsound());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(TagLog::open(&path, &OWNER), Err(SecretError::Exposed { .. })));
    }

    #[test]
    fn threads_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let log = TagLog::create(&dir.path().join("7.tags"), &OWNER).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    (1..=500).for_each(|n| log.append(&[thread << 32 | n]).unwrap())
                });
            }
        });
        let mut found = tags(&log);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 2_000);
    }

    /// What a tag costs: `cargo test -p shoal-host --lib -- --ignored --nocapture cost_of`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::disallowed_methods)] // It measures real time.
    fn the_cost_of_a_tag() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        for batch in [1, 8, 32] {
            let log = TagLog::create(&dir.path().join(format!("{batch}.tags")), &OWNER).unwrap();
            let tags: Vec<u64> = (1..=batch).collect();
            let start = std::time::Instant::now();
            for _ in 0..1_000_000 / batch {
                log.append(&tags).unwrap();
            }
            let ns = start.elapsed().as_nanos() / 1_000_000;
            println!("batches of {batch}: {ns} ns a tag");
        }
    }
}
