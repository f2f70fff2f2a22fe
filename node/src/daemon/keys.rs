//! A node's keys: the identity, which stays, and mix keys, which live for an epoch; and the descriptor that says them.
//!
//! Mix keys are in `keys/EPOCH.key` of the runtime directory, each beside `keys/EPOCH.tags`, the log of what it has
//! opened. The log comes first and the key second; a key without its own log is thrown away, since nobody knows what it
//! has opened; a log without a key means nothing. So whatever moment a node is killed at, no key opens a packet twice.
//!
//! Only what was read shows that a key has no log of its own. Where something cannot be read (no descriptors are left, a
//! disk is broken), the node does not start, and the keys that others already seal to stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_host::network;
use shoal_host::secret::{self, Lock, Secret, SecretError};
use shoal_host::taglog::TagLog;
use shoal_sphinx::SecretKey;
use shoal_topology::{
    Epoch, EpochKey, Identity, NodeDescriptor, Parameters, Role, SecretIdentity, Signed, Time,
};

use super::topology::unix_ms;
use super::{Config, NodeError};
use crate::budget::Budget;
use crate::opener::{Log, NotWritten, Opener};
use crate::replay::Replay;

/// Epochs ahead for which there is a key: the document of the next epoch is made in this one, and names keys for two
/// further ones.
const AHEAD: u64 = 3;
/// Epochs ahead for which a key is kept, after the clock was set back. A descriptor has room for as many.
const KEPT_AHEAD: u64 = 7;
/// Epochs back for which a key is kept at most, whatever the document says of delays: a frame names an epoch by one byte.
const KEPT_BACK: u64 = 100;

/// Before its epoch a key takes the sixteenth part of what it takes in its life; so much may also come at once.
const SHARES: f64 = 16.0;

/// What a node needs before it can run, beside mix keys: directories, identity, the key of the inbox.
pub struct Prepared {
    /// By which links and packets name it.
    pub identity: Identity,
    /// What it does.
    pub role: Role,
    pub(super) identity_seed: Secret,
    pub(super) inbox_key: Secret,
}

/// Name of the key of the inbox, in the data directory or the runtime directory.
const INBOX_KEY: &str = "inbox.key";

/// Reads the identity, and makes what else is missing: directories (0700), key of the inbox (0600). What is there is kept.
///
/// # Errors
/// When there is no identity, files are open to others, belong to others or cannot be written, or no address can be advertised.
pub fn prepare(config: &Config) -> Result<Prepared, NodeError> {
    let role = config.role.role();
    let role =
        role.ok_or_else(|| NodeError::Config("an authority is no node: it has no keys".into()))?;
    config.advertised().map_err(NodeError::Config)?;
    let identity_seed = secret::identity(&config.identity_file())?;
    let runtime = config.runtime_dir();
    secret::private_directory(&config.data_dir)?;
    secret::private_directory(&runtime)?;
    let lasting = config.data_dir.join(INBOX_KEY);
    let inbox_key = if role == Role::Gateway && config.gateway.inbox_survives_reboot {
        secret::read_or_create(&lasting)?
    } else {
        // One that was there before would open what lies on the disk.
        secret::erase(&lasting)?;
        secret::read_or_create(&runtime.join(INBOX_KEY))?
    };
    let identity = SecretIdentity::from_bytes(&identity_seed).identity();
    Ok(Prepared { identity, role, identity_seed, inbox_key })
}

/// The descriptor of a node at this moment. Unless it runs, its keys are made and renewed for that.
///
/// # Errors
/// As for [`prepare`], and when the network file cannot be read.
pub fn descriptor(config: &Config) -> Result<Signed<NodeDescriptor>, NodeError> {
    let prepared = prepare(config)?;
    let epoch_s = network::load(&config.network)?.epoch_s;
    match Keyring::open(config, &prepared, epoch_s, None, unix_ms()) {
        Ok(keys) => Ok(keys.descriptor().clone()),
        Err(error @ NodeError::InUse(_)) => {
            said_before(&config.descriptor_file(), &prepared.identity)?.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// The mix keys of a node. One program at a time has them.
pub struct Keyring {
    /// Where the keys and the logs of tags are.
    directory: PathBuf,
    /// Held as long as the keyring is, also against others.
    _lock: Lock,
    /// What opens packets with them; none in tools that only look.
    opener: Option<Arc<Opener>>,
    /// The configuration of the node.
    config: Config,
    /// The length of an epoch.
    epoch: Duration,
    /// How long a key is kept after its epoch.
    grace: Duration,
    /// The key by which descriptors are signed.
    identity: SecretIdentity,
    /// Where the node says that it is reached.
    addresses: Vec<std::net::SocketAddr>,
    /// The public halves, by epoch.
    keys: BTreeMap<Epoch, [u8; 32]>,
    /// The present epoch.
    present: Epoch,
    /// The descriptor as it was signed last.
    descriptor: Signed<NodeDescriptor>,
    /// True if the descriptor says what there is to say.
    signed: bool,
    /// What was logged last.
    complaint: Option<String>,
    /// Why the log of a key was last not written, until one is.
    unwritten: Arc<Mutex<Option<String>>>,
}

impl Keyring {
    /// Takes up the keys and tags that are there, makes what is missing, and erases what is over. They open packets in
    /// `opener`; without one the logs are not read, and nothing must be opened with the keys. An epoch has `epoch_s`
    /// seconds.
    ///
    /// # Errors
    /// [`NodeError::InUse`], or what is wrong with the files.
    pub fn open(
        config: &Config,
        prepared: &Prepared,
        epoch_s: u32,
        opener: Option<Arc<Opener>>,
        unix_ms: u64,
    ) -> Result<Self, NodeError> {
        let directory = config.runtime_dir().join("keys");
        secret::private_directory(&directory)?;
        // Who only wants to know what a node says of itself asks one that runs.
        let patience = if opener.is_some() { secret::GOING } else { Duration::ZERO };
        let lock = secret::lock(&directory, patience)?;
        let lock = lock.ok_or_else(|| NodeError::InUse(directory.clone()))?;
        let identity = SecretIdentity::from_bytes(&prepared.identity_seed);
        let addresses = config.advertised().map_err(NodeError::Config)?;
        let path = config.descriptor_file();
        let before = said_before(&path, &prepared.identity)?;
        let before = before.unwrap_or_else(|| {
            Signed::<NodeDescriptor>::new(empty(config, prepared.role, &identity), &identity)
        });
        let mut keyring = Self {
            directory,
            _lock: lock,
            opener,
            config: config.clone(),
            epoch: Duration::from_secs(u64::from(epoch_s.max(1))),
            grace: Parameters::default().key_grace(),
            addresses,
            keys: BTreeMap::new(),
            present: Epoch(0),
            descriptor: before,
            identity,
            signed: false,
            complaint: None,
            unwritten: Arc::default(),
        };
        keyring.present = keyring.epoch_at(unix_ms);
        keyring.take_up(unix_ms)?;
        keyring.renew(unix_ms)?;
        keyring.sign(unix_ms)?;
        // The authorities would refuse one that breaks the rules and the operator would not know why: here it ends
        // the start.
        keyring.descriptor.verify().map_err(|error| NodeError::Config(error.to_string()))?;
        Ok(keyring)
    }

    /// What the node says of itself: with its keys from the present epoch on. Later ones have a later `signed_at`.
    pub fn descriptor(&self) -> &Signed<NodeDescriptor> {
        &self.descriptor
    }

    /// From now on keys are kept beyond their epoch for as long as these parameters say.
    pub fn follow(&mut self, parameters: &Parameters) {
        self.grace = parameters.key_grace();
    }

    /// From now on the node says of itself what this configuration has.
    ///
    /// # Errors
    /// No address can be advertised; nothing changes.
    pub(super) fn configure(&mut self, config: &Config) -> Result<(), NodeError> {
        self.addresses = config.advertised().map_err(NodeError::Config)?;
        // Signed at the next call of `advance`, which also writes it, or says why it cannot.
        (self.config, self.signed) = (config.clone(), false);
        Ok(())
    }

    /// Makes and erases what is due at this moment (Unix time, milliseconds); at other times it does nothing. Call it
    /// several times a second. True if there is a new descriptor, which is in its file then too. What cannot be written
    /// is logged, and tried again at the next call.
    pub fn advance(&mut self, unix_ms: u64) -> bool {
        let epoch = self.epoch_at(unix_ms);
        let complete = (0..=AHEAD).all(|n| self.keys.contains_key(&Epoch(epoch.0 + n)));
        let over = self.keys.keys().any(|key| self.is_over(*key, unix_ms));
        if epoch == self.present && complete && !over && self.signed {
            return false;
        }
        self.present = epoch;
        // A key that could not be made keeps no other from being announced, so signing is tried all the same.
        let renewed = self.renew(unix_ms).err();
        let (changed, failed) = match self.sign(unix_ms) {
            Ok(changed) => (changed, None),
            Err(error) => (false, Some(error)),
        };
        let complaint = renewed.or(failed).map(|error| match error {
            SecretError::Io { path, source } => format!("{}: {source}", path.display()),
            error => error.to_string(),
        });
        // Said once: this is called several times a second.
        if complaint != self.complaint {
            if let Some(why) = &complaint {
                tracing::error!("cannot renew the mix keys: {why}");
            }
            self.complaint = complaint;
        }
        changed
    }

    /// Tells the opener how long the present epoch has lasted at `now`: it takes packets of later ones sparingly.
    pub(super) fn keep_time(&self, opener: &Opener, now: Time, unix_ms: u64, error: Duration) {
        let epoch = self.epoch_at(unix_ms);
        let length = u64::try_from(self.epoch.as_millis()).unwrap_or(u64::MAX);
        let lasted = Duration::from_millis(unix_ms - epoch.0.saturating_mul(length));
        opener.keep_time((now, epoch), lasted, self.epoch, error);
    }

    /// What an operator should know: tables or the runtime directory do not hold what comes at the declared rate.
    pub fn warnings(&self) -> Vec<String> {
        let there: u64 = self.keys.keys().map(|epoch| length(&self.tags(*epoch))).sum();
        self.room().warnings(&self.directory, there)
    }

    fn room(&self) -> TagRoom<'_> {
        TagRoom { config: &self.config, epoch: self.epoch, grace: self.grace }
    }

    /// Why the keys cannot be renewed, if so.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Why packets are refused because what was opened cannot be written down, if so.
    pub(super) fn unwritten(&self) -> Option<String> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the last key ends, in seconds of Unix time.
    pub(super) fn until(&self) -> u64 {
        let last = self.keys.last_key_value().map(|(epoch, _)| epoch.0.saturating_add(1));
        last.unwrap_or_default().saturating_mul(self.epoch.as_secs())
    }

    fn epoch_at(&self, unix_ms: u64) -> Epoch {
        Epoch(unix_ms / 1_000 / self.epoch.as_secs())
    }

    /// What a key of so much room may come to know, and when.
    fn budget(&self, granted: usize) -> Budget {
        let share = granted as f64 / (SHARES + 2.0);
        let per_s = SHARES * share / (self.epoch + self.grace).as_secs_f64();
        Budget::new(per_s, share, share as usize)
    }

    /// True if a key opens nothing any more, or is for a time that a wrong clock showed.
    fn is_over(&self, key: Epoch, unix_ms: u64) -> bool {
        let now = self.epoch_at(unix_ms).0;
        let ends = u128::from(key.0 + 1) * self.epoch.as_millis() + self.grace.as_millis();
        u128::from(unix_ms) >= ends || key.0 + KEPT_BACK < now || now + KEPT_AHEAD < key.0
    }

    fn key(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(format!("{epoch}.key"))
    }

    fn tags(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(format!("{epoch}.tags"))
    }

    /// Takes up what an earlier run left.
    fn take_up(&mut self, unix_ms: u64) -> Result<(), SecretError> {
        let (mut keys, mut rest) = (BTreeSet::new(), Vec::new());
        let io = |source| SecretError::Io { path: self.directory.clone(), source };
        for entry in std::fs::read_dir(&self.directory).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let name = name.to_string_lossy();
            let of = |suffix| name.strip_suffix(suffix)?.parse().ok().map(Epoch);
            if let Some(epoch) = of(".key") {
                keys.insert(epoch);
            } else if of(".tags").is_some() || name.starts_with(".new-") {
                // The latter is a key that was being written.
                rest.push(name.into_owned());
            }
        }
        for epoch in &keys {
            if !self.is_over(*epoch, unix_ms) {
                match self.load(*epoch) {
                    Ok(()) => continue,
                    // Without a sound log a packet of before the restart would be opened a second time.
                    Err(error) if error.is_absent() || error.is_unsound() => tracing::warn!(
                        "a mix key without a sound log of what it has opened is thrown away; a new one replaces it"
                    ),
                    // It may be as sound as it was: others seal to it.
                    Err(error) => return Err(error),
                }
            }
            self.erase(*epoch)?;
        }
        for name in rest {
            let path = self.directory.join(name);
            // After the keys were taken up, since only then it is known which logs are theirs.
            if !self.keys.keys().any(|epoch| self.tags(*epoch) == path) {
                secret::erase(&path)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, epoch: Epoch) -> Result<(), SecretError> {
        let mut bytes = Secret::default();
        secret::read_into(&self.key(epoch), &mut bytes)?;
        let secret = SecretKey::copied(&bytes);
        let log = TagLog::open(&self.tags(epoch), secret.public().as_bytes())?;
        let path = self.tags(epoch);
        self.use_key(epoch, secret, log).map_err(|source| SecretError::Io { path, source })
    }

    fn make(&mut self, epoch: Epoch) -> Result<(), SecretError> {
        let (key, tags) = (self.key(epoch), self.tags(epoch));
        secret::erase(&tags)?;
        let mut bytes = Secret::default();
        secret::fill(&mut bytes).map_err(|source| SecretError::Io { path: key.clone(), source })?;
        let secret = SecretKey::copied(&bytes);
        let log = TagLog::create(&tags, secret.public().as_bytes())?;
        // After its log: a key is in its place only when what it opens can be written down.
        secret::store(&key, &bytes)?;
        self.use_key(epoch, secret, log).map_err(|source| SecretError::Io { path: tags, source })
    }

    fn use_key(&mut self, epoch: Epoch, secret: SecretKey, log: TagLog) -> std::io::Result<()> {
        let public = *secret.public().as_bytes();
        if let Some(opener) = &self.opener {
            let granted = self.room().capacity().1;
            let (replay, budget) = (Replay::new(*log.key(), granted), self.budget(granted));
            // Before the opener has the key: no packet is compared with a table that is not filled yet.
            log.each(|fingerprint| replay.remember(fingerprint))?;
            let unwritten = self.unwritten.clone();
            let log = Box::new(Logged { log, failing: AtomicBool::new(false), unwritten });
            opener.add_logged_key(epoch, secret, (replay, budget), log);
        }
        self.keys.insert(epoch, public);
        Ok(())
    }

    /// Makes what is missing and erases what is over.
    fn renew(&mut self, unix_ms: u64) -> Result<(), SecretError> {
        // First, so that a key that cannot be made keeps none alive that is over.
        let over: Vec<Epoch> =
            self.keys.keys().copied().filter(|key| self.is_over(*key, unix_ms)).collect();
        for epoch in over {
            self.erase(epoch)?;
        }
        let present = self.present.0;
        for epoch in (present..=present + AHEAD).map(Epoch) {
            if !self.keys.contains_key(&epoch) {
                self.make(epoch)?;
            }
        }
        Ok(())
    }

    /// From memory first, then the key's file, then its log, which means nothing without.
    fn erase(&mut self, epoch: Epoch) -> Result<(), SecretError> {
        if let Some(opener) = &self.opener {
            opener.erase(epoch, epoch);
        }
        secret::erase(&self.key(epoch))?;
        match std::fs::remove_file(self.tags(epoch)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(SecretError::Io { path: self.tags(epoch), source });
            }
            _ => {}
        }
        self.keys.remove(&epoch);
        Ok(())
    }

    /// Signs anew if there is something new to say.
    fn sign(&mut self, unix_ms: u64) -> Result<bool, SecretError> {
        self.signed = false;
        let before = self.descriptor.body();
        // Keys of epochs before open what is still under way, but nobody shall seal to them any more.
        let keys = self.keys.range(self.present..);
        let body = NodeDescriptor {
            addresses: self.addresses.clone(),
            keys: keys
                .map(|(epoch, key)| EpochKey { first: *epoch, last: *epoch, key: *key })
                .collect(),
            signed_at: before.signed_at,
            ..empty(&self.config, self.descriptor.body().role, &self.identity)
        };
        if body == *before {
            self.signed = true;
            return Ok(false);
        }
        // Of two descriptors the later one counts, so that one that is made after a clock was set back must still be
        // later.
        let signed_at = (unix_ms / 1_000).max(before.signed_at.saturating_add(1));
        let body = NodeDescriptor { signed_at, ..body };
        let descriptor = Signed::<NodeDescriptor>::new(body, &self.identity);
        // In the file before it is announced: after a restart none is signed with an earlier time than one that is
        // out.
        secret::replace(&self.config.descriptor_file(), &descriptor.encode())?;
        (self.descriptor, self.signed) = (descriptor, true);
        Ok(true)
    }
}

/// What replay tags want and get: by the configuration, the length of an epoch, and how long a key is kept beyond it.
struct TagRoom<'a> {
    config: &'a Config,
    epoch: Duration,
    grace: Duration,
}

impl TagRoom<'_> {
    /// Keys that there are at a time, at most.
    fn tables(&self) -> usize {
        let old = self.grace.as_secs_f64() / self.epoch.as_secs_f64();
        1 + AHEAD as usize + (old.ceil() as usize).min(KEPT_BACK as usize)
    }

    /// Tags that a key has room for: as wanted, and as memory grants.
    fn capacity(&self) -> (usize, usize) {
        // What comes early and what comes at once are there beside the rate.
        let life = (self.epoch + self.grace).mul_f64(1.0 + 2.0 / SHARES);
        self.config.replay_capacity(life, self.tables())
    }

    /// What an operator should know, where logs in `directory` have so many bytes already.
    fn warnings(&self, directory: &Path, there: u64) -> Vec<String> {
        let (wanted, granted) = self.capacity();
        let (rate, epoch_s) = (self.config.max_packets_per_s, self.epoch.as_secs());
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let mut warnings = Vec::new();
        if granted < wanted {
            let needed = mib(16 * (wanted * self.tables()) as u64);
            warnings.push(format!(
                "`replay_mib` = {} bounds what a key remembers to {granted} packets; {rate} packets/s in epochs of \
                 {epoch_s} s want {wanted}: beyond it packets are refused; raise replay_mib to {needed}, or lower \
                 max_packets_per_s",
                self.config.replay_mib
            ));
        }
        // A key's log is written in its epoch, and the one before is still there.
        let needed = 2 * 8 * granted as u64;
        let on = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
        if let Some(room) = secret::room(on)
            && room.saturating_add(there) < needed
        {
            warnings.push(format!(
                "the runtime directory has room for {} MiB, and the logs of replay tags want {} MiB at {rate} packets/s \
                 in epochs of {epoch_s} s: packets are refused when they cannot be written; give it more room, or lower \
                 max_packets_per_s",
                mib(room.saturating_add(there)),
                mib(needed)
            ));
        }
        warnings
    }
}

/// As [`Keyring::warnings`], before there are keys, and without making any.
pub(super) fn warnings_before(config: &Config, epoch_s: u32) -> Vec<String> {
    let epoch = Duration::from_secs(u64::from(epoch_s.max(1)));
    let room = TagRoom { config, epoch, grace: Parameters::default().key_grace() };
    let directory = config.runtime_dir().join("keys");
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let tags = files.filter(|file| file.path().extension().is_some_and(|end| end == "tags"));
    let there = tags.map(|file| length(&file.path())).sum();
    room.warnings(&directory, there)
}

/// A log that says so when it cannot be written.
struct Logged {
    log: TagLog,
    failing: AtomicBool,
    /// Shared by the logs of all keys.
    unwritten: Arc<Mutex<Option<String>>>,
}

impl Log for Logged {
    fn append(&self, fingerprints: &[u64]) -> Result<(), NotWritten> {
        let written = self.log.append(fingerprints);
        let failed = self.failing.swap(written.is_err(), Ordering::Relaxed);
        if failed != written.is_err() {
            let why = written.as_ref().err().map(ToString::to_string);
            *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = why;
        }
        match &written {
            Ok(()) if failed => tracing::warn!("the log of replay tags can be written again"),
            Err(error) if !failed => tracing::error!(
                "cannot write the log of replay tags: {error}; packets are refused until there is room in the runtime \
                 directory"
            ),
            _ => {}
        }
        written.map_err(|_| NotWritten)
    }
}

/// The descriptor in the file, if it is there, sound and the node's own.
pub(super) fn said_before(
    path: &Path,
    identity: &Identity,
) -> Result<Option<Signed<NodeDescriptor>>, SecretError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SecretError::Io { path: path.to_owned(), source }),
    };
    let descriptor = Signed::<NodeDescriptor>::decode(&bytes).ok();
    Ok(descriptor.filter(|descriptor| descriptor.body().identity == *identity))
}

/// What a node says of itself as far as its configuration goes: without addresses and keys.
pub(super) fn empty(config: &Config, role: Role, identity: &SecretIdentity) -> NodeDescriptor {
    NodeDescriptor {
        identity: identity.identity(),
        role,
        addresses: Vec::new(),
        operator: config.operator.clone(),
        jurisdiction: config.jurisdiction.clone(),
        packets_per_s: u32::try_from(config.max_packets_per_s).unwrap_or(u32::MAX),
        keys: Vec::new(),
        signed_at: 0,
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests;
