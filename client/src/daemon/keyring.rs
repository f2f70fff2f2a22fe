//! The keys of a client by period: a directory for each, which holds all that shares the key's fate.
//!
//! Beside a key lies the log of the packets that it opened, so that a program that was killed takes none of them again.
//! What the log holds outlives the process, and the machine if it ends in order. When the machine went down in the middle,
//! the last tags may be missing while the key is there: then the key is replaced. The file `boot` says which of these it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shoal_host::exit::chain;
use shoal_host::secret::{self, SecretError};
use shoal_host::taglog::TagLog;
use shoal_people::PeriodKeys;
use shoal_sphinx::replay::{self, Replay};
use shoal_sphinx::{PublicKey, ReplayTag, SecretKey};
use tracing::{error, info, warn};

use crate::key_life::{KeyLife, Reached};
use crate::keys::ReplayCache;

/// Name of the key in its directory.
const KEY: &str = "packets.key";
/// Name of the secret from which the keys follow by which others open sessions. It has nothing to do with the other key: whoever
/// computes that one from its public half has not got this one.
const SESSIONS: &str = "sessions.key";
/// Name of the log of what it opened.
const TAGS: &str = "packets.tags";
/// Name of the file that says at which second a gateway was first told of the key.
const TOLD: &str = "told";
/// Name of the file that says in which run of the machine the log was written, or that it is whole.
const BOOT: &str = "boot";
/// What it says after an orderly end.
const WHOLE: &[u8] = b"whole\n";

/// How often a log that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What `status` says then.
const OVER: &str = "the key that opens packets is over, and there is no other yet";
const STUCK: &str = "packets are not taken, since what came cannot be written to the data directory: look at its disk";

/// The keys that are on disk.
pub(super) struct ClientKeyring {
    dir: PathBuf,
    life: KeyLife,
    /// By the second at which the period begins.
    keys: BTreeMap<u64, PeriodSecrets>,
    /// When gateways were told of them, by the beginning of the period.
    told: BTreeMap<u64, u64>,
    /// The beginnings of those that were given out last, in their order.
    given: Vec<u64>,
    /// Held by the program that uses the keys.
    lock: Option<secret::Lock>,
    /// Why there are no keys for the next period, if there are none.
    trouble: Option<String>,
    /// True if tags could not be written of late.
    unwritten: Arc<AtomicBool>,
}

/// What a period's directory holds that is secret.
struct PeriodSecrets {
    /// Opens the packets that end here.
    packets: SecretKey,
    /// Opens sessions of those who write while the client may be away.
    sessions: Option<secret::Secret>,
}

impl PeriodSecrets {
    fn new(dir: &Path, packets: secret::Secret, reached: Reached) -> Result<Self, SecretError> {
        let sessions = match reached {
            Reached::WhileAway => Some(secret::read_or_create(&dir.join(SESSIONS))?),
            Reached::WhileHere => None,
        };
        Ok(Self { packets: SecretKey::from_bytes(*packets), sessions })
    }
}

impl ClientKeyring {
    /// Reads the keys below `data_dir`, and makes that of the present period if there is none.
    ///
    /// # Errors
    /// Keys that cannot be read or made.
    pub(super) fn open(
        data_dir: &Path,
        (length_s, reached): (u64, Reached),
        unix_s: u64,
    ) -> Result<Self, SecretError> {
        let dir = data_dir.join("keys");
        secret::private_directory(&dir)?;
        let io = |source| SecretError::Io { path: dir.clone(), source };
        let (mut keys, mut told) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(begins) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else {
                continue;
            };
            let of_period = dir.join(&name);
            match secret::read(&of_period.join(KEY)) {
                Ok(bytes) => {
                    keys.insert(begins, PeriodSecrets::new(&of_period, bytes, reached)?);
                    let text = fs::read_to_string(of_period.join(TOLD));
                    told.extend(
                        text.ok().and_then(|text| Some((begins, text.trim().parse().ok()?))),
                    );
                }
                // Erased halfway.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        let (given, lock, trouble, unwritten) = Default::default();
        let life = KeyLife::new(length_s, reached);
        let mut periods = Self { dir, life, keys, told, given, lock, trouble, unwritten };
        periods.make(unix_s, unix_s)?;
        Ok(periods)
    }

    /// A program that is going to use the keys begins: no other may. Those that may have opened packets which nothing
    /// remembers any more are replaced, before anybody is told of them. How many there were.
    ///
    /// # Errors
    /// Another program uses them, or they cannot be replaced.
    pub(super) fn begin(&mut self, unix_s: u64) -> Result<usize, SecretError> {
        let Some(lock) = secret::lock(&self.dir, secret::GOING)? else {
            let used = std::io::Error::other(
                "another program uses the keys of this data directory: stop it, or give each its own",
            );
            return Err(SecretError::Io { path: self.dir.clone(), source: used });
        };
        self.lock = Some(lock);
        let begins: Vec<u64> = self.keys.keys().copied().collect();
        let mut replaced = 0;
        for at in begins {
            let dir = self.dir.join(at.to_string());
            let Some(key) = self.keys.get(&at) else { continue };
            let key = &key.packets;
            let ended = match fs::read(dir.join(BOOT)) {
                // Nothing was opened with it yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                // That says nothing about the log: the key stays, and the program does not begin.
                Err(source) => return Err(SecretError::Io { path: dir.join(BOOT), source }),
                Ok(said) => said == WHOLE || boot().is_some_and(|boot| said == boot),
            };
            let why = match TagLog::open(&dir.join(TAGS), key.public().as_bytes()) {
                Ok(_) if ended => continue,
                // Letters wait for this key, and one that comes twice harms less than one that never does.
                Ok(_) if self.life.reached() == Reached::WhileAway => continue,
                Ok(_) => "the machine may have gone down while it was used".into(),
                Err(error) if error.is_absent() || error.is_unsound() => error.to_string(),
                Err(error) => return Err(error),
            };
            warn!("a key is replaced, since what it opened may be forgotten: {why}");
            self.keys.remove(&at);
            erase(&dir)?;
            replaced += 1;
        }
        self.make(unix_s, unix_s)?;
        Ok(replaced)
    }

    /// What remembers the packets that a key of these opens: in its directory, with room for so many. A key whose log
    /// cannot be used takes nothing.
    pub(super) fn memory(&self, of: &SecretKey, room: usize) -> Box<dyn ReplayCache> {
        let of = of.public();
        let mut all = self.keys.iter();
        let at = all.find(|(_, key)| key.packets.public() == of).map(|(at, _)| *at);
        let Some(at) = at else { return Box::new(Shut) };
        let dir = self.dir.join(at.to_string());
        match Durable::open(dir.clone(), &of, room, self.unwritten.clone()) {
            Ok(memory) => Box::new(memory),
            Err(error) => {
                error!(
                    "packets are not taken, since what came cannot be remembered: {}",
                    chain(&error)
                );
                self.unwritten.store(true, Ordering::Relaxed);
                let (unwritten, tried) = (self.unwritten.clone(), Instant::now());
                Box::new(Unopened { dir, of, room, unwritten, tried, opened: None })
            }
        }
    }

    /// Why no packets are taken at this second: their tags cannot be written, or the last key that could be made is over.
    pub(super) fn why_stuck(&self, unix_s: u64) -> Option<String> {
        if self.unwritten.load(Ordering::Relaxed) {
            return Some(STUCK.into());
        }
        let is_over = self.present(unix_s).is_none_or(|(_, until, _)| until <= unix_s);
        is_over.then(|| self.trouble.clone().unwrap_or_else(|| OVER.into()))
    }

    /// Makes the next key from the middle of a period on, and erases a key when its grace is over, unless
    /// `is_published` says that others are still told of it. True if the set of keys changed.
    ///
    /// # Errors
    /// Keys that cannot be made or erased.
    pub(super) fn rotate(
        &mut self,
        unix_s: u64,
        is_published: impl Fn(&PublicKey) -> bool,
    ) -> Result<bool, SecretError> {
        let mut turned = self.make(unix_s, unix_s)?;
        turned |= self.make(self.life.ahead(unix_s), unix_s)?;
        let begins: Vec<u64> = self.keys.keys().copied().collect();
        for (own, next) in begins.iter().zip(begins.iter().skip(1)) {
            let over = self.life.over(*own, *next) <= unix_s;
            let told = self.keys.get(own).is_some_and(|key| is_published(&key.packets.public()));
            if over && !told {
                self.keys.remove(own);
                erase(&self.dir.join(own.to_string()))?;
                turned = true;
            }
        }
        Ok(turned)
    }

    /// [`Self::rotate`], with a key [`Self::make_early`] if that is asked for. The keys, if they are others now: what changes
    /// by the clock alone included. To be called again and again: what fails is tried anew, and said once.
    pub(super) fn rotate_now(
        &mut self,
        unix_s: u64,
        early: bool,
        is_published: impl Fn(&PublicKey) -> bool,
    ) -> Option<Vec<SecretKey>> {
        let made = if early { self.make_early(unix_s) } else { Ok(()) };
        if let Err(error) = made.and_then(|()| self.rotate(unix_s, is_published)) {
            let trouble = format!("the keys of the next period cannot be made: {}", chain(&error));
            if self.trouble.as_ref() != Some(&trouble) {
                error!("{trouble}");
            }
            self.trouble = Some(trouble);
            return None;
        }
        if self.trouble.take().is_some() {
            info!("the keys of the next period are there");
        }
        let keys = self.all(unix_s);
        let order: Vec<u64> = keys.iter().map(|(begins, _)| *begins).collect();
        if order == self.given {
            return None;
        }
        self.given = order;
        Some(keys.into_iter().map(|(_, key)| key).collect())
    }

    /// Why there are no keys for the next period, if there are none.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A key that takes the place of the present one at once: that remembers too many packets.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn make_early(&mut self, unix_s: u64) -> Result<(), SecretError> {
        self.create(unix_s)
    }

    /// The key of the present period, with its beginning and the second at which others use it no longer.
    pub(super) fn present(&self, unix_s: u64) -> Option<(u64, u64, &SecretKey)> {
        let (begins, key) = self.keys.range(..=unix_s).next_back()?;
        Some((*begins, self.life.used_until(*begins), &key.packets))
    }

    /// The keys by which others open sessions, those of the present period first. None where nobody is to.
    pub(super) fn sessions(&self, unix_s: u64) -> Vec<PeriodKeys> {
        let present = self.present(unix_s).map(|(begins, ..)| begins);
        let mut all: Vec<_> = self.keys.iter().rev().collect();
        all.sort_by_key(|(at, _)| Some(**at) != present);
        let made =
            |(at, of): (&u64, &PeriodSecrets)| Some(PeriodKeys::new(of.sessions.as_deref()?, *at));
        all.into_iter().filter_map(made).collect()
    }

    /// A gateway has the descriptor of the present period, and answers with it.
    pub(super) fn told(&mut self, unix_s: u64) {
        let Some((begins, ..)) = self.present(unix_s) else { return };
        if self.told.contains_key(&begins) {
            return;
        }
        let unix_s = self.life.told_at(unix_s);
        self.told.insert(begins, unix_s);
        let path = self.dir.join(begins.to_string()).join(TOLD);
        if let Err(error) = secret::replace(&path, unix_s.to_string().as_bytes()) {
            // Older keys then stay for as long as they would if nobody had come back.
            warn!("{}", chain(&error));
        }
    }

    /// Nothing waits at the gateway any more. Keys are erased that nobody can use: those before one of which gateways were told
    /// a day ago, or a period where that is shorter. True if some were.
    ///
    /// # Errors
    /// They cannot be erased.
    pub(super) fn drained(&mut self, unix_s: u64) -> Result<bool, SecretError> {
        let newest = self.life.settled(&self.told, self.keys.keys(), unix_s);
        let Some(newest) = newest else { return Ok(false) };
        self.told.retain(|begins, _| *begins >= newest);
        let older: Vec<u64> = self.keys.range(..newest).map(|(begins, _)| *begins).collect();
        for begins in &older {
            self.keys.remove(begins);
            erase(&self.dir.join(begins.to_string()))?;
        }
        Ok(!older.is_empty())
    }

    /// All keys by their beginning, that of the present period first.
    pub(super) fn all(&self, unix_s: u64) -> Vec<(u64, SecretKey)> {
        let present = self.present(unix_s).map(|(begins, ..)| begins);
        let key = |(at, of): (&u64, &PeriodSecrets)| (*at, of.packets.clone());
        let mut all: Vec<_> = self.keys.iter().rev().map(key).collect();
        all.sort_by_key(|(at, _)| Some(*at) != present);
        all
    }

    /// Makes the key for this second, if there is none for its period. True if it did.
    fn make(&mut self, for_s: u64, unix_s: u64) -> Result<bool, SecretError> {
        let begins = self.life.begins(for_s);
        // One that was made early serves until its period ends.
        if self.keys.range(begins..=for_s.max(unix_s)).next().is_some() {
            return Ok(false);
        }
        self.create(begins)?;
        Ok(true)
    }

    fn create(&mut self, begins: u64) -> Result<(), SecretError> {
        let dir = self.dir.join(begins.to_string());
        secret::private_directory(&dir)?;
        let packets = secret::read_or_create(&dir.join(KEY))?;
        let secrets = PeriodSecrets::new(&dir, packets, self.life.reached())?;
        let log = TagLog::create(&dir.join(TAGS), secrets.packets.public().as_bytes());
        match log {
            // Two programs made it at once.
            Err(SecretError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            log => log?.sync().map_err(|source| SecretError::Io { path: dir, source })?,
        }
        self.keys.insert(begins, secrets);
        Ok(())
    }
}

/// Tags of one key, in memory and on disk.
struct Durable {
    tags: Replay,
    log: TagLog,
    dir: PathBuf,
    unwritten: Arc<AtomicBool>,
}

impl Durable {
    /// Reads what is there. The directory says from now on that its log is being written.
    fn open(
        dir: PathBuf,
        of: &PublicKey,
        room: usize,
        unwritten: Arc<AtomicBool>,
    ) -> Result<Self, SecretError> {
        let path = dir.join(TAGS);
        let log = TagLog::open(&path, of.as_bytes())?;
        secret::replace(&dir.join(BOOT), &boot().unwrap_or_default())?;
        let tags = Replay::new(*log.key(), room);
        log.each(|tag| tags.remember(tag)).map_err(|source| SecretError::Io { path, source })?;
        Ok(Self { tags, log, dir, unwritten })
    }
}

impl ReplayCache for Durable {
    fn insert(&mut self, tag: &ReplayTag) -> bool {
        let fingerprint = self.tags.fingerprint(tag);
        if self.tags.insert_fingerprint(fingerprint) != replay::Seen::New {
            return false;
        }
        // To the log first: what is taken is remembered by whoever comes after this process.
        let written = self.log.append(&[fingerprint]);
        let path = || self.dir.join(TAGS);
        if self.unwritten.swap(written.is_err(), Ordering::Relaxed) != written.is_err() {
            match &written {
                Ok(()) => warn!("packets are taken again: {}", path().display()),
                Err(error) => error!(
                    "packets are not taken, since they cannot be remembered: {}: {error}",
                    path().display()
                ),
            }
        }
        written.is_ok()
    }

    fn fullness(&self) -> f64 {
        self.tags.len() as f64 / self.tags.capacity().max(1) as f64
    }
}

impl Drop for Durable {
    /// An orderly end: the log is whole, whatever becomes of the machine. If the key was erased nothing is there.
    fn drop(&mut self) {
        if self.log.sync().is_ok() && self.dir.join(KEY).exists() {
            let _ = secret::replace(&self.dir.join(BOOT), WHOLE);
        }
    }
}

/// The memory of a key whose log could not be opened: it is tried again, for a disk may have room again.
struct Unopened {
    dir: PathBuf,
    of: PublicKey,
    room: usize,
    unwritten: Arc<AtomicBool>,
    tried: Instant,
    opened: Option<Durable>,
}

impl ReplayCache for Unopened {
    fn insert(&mut self, tag: &ReplayTag) -> bool {
        if self.opened.is_none() && self.tried.elapsed() >= AGAIN {
            self.tried = Instant::now();
            let unwritten = self.unwritten.clone();
            self.opened = Durable::open(self.dir.clone(), &self.of, self.room, unwritten).ok();
        }
        self.opened.as_mut().is_some_and(|opened| opened.insert(tag))
    }

    fn fullness(&self) -> f64 {
        self.opened.as_ref().map_or(0.0, Durable::fullness)
    }
}

/// The memory of a key that must not open anything.
struct Shut;

impl ReplayCache for Shut {
    fn insert(&mut self, _: &ReplayTag) -> bool {
        false
    }

    fn fullness(&self) -> f64 {
        0.0
    }
}

/// This run of the machine. None where no system says it: then only an orderly end is trusted.
fn boot() -> Option<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id").ok()
}

/// Overwrites and removes what a period's directory holds, the keys first.
fn erase(dir: &Path) -> Result<(), SecretError> {
    // Without the first the directory is no key's: it goes last.
    secret::erase(&dir.join(SESSIONS))?;
    secret::erase(&dir.join(KEY))?;
    let io = |source| SecretError::Io { path: dir.to_owned(), source };
    fs::remove_dir_all(dir).or_else(absent).map_err(io)
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests;
