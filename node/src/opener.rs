//! What peel workers run on every packet: key, DH, MAC, replay, and only then the expensive rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shoal_sphinx::{Codec, Error, FRAME_LEN, Frame, Peeled, SecretKey};
use shoal_topology::{Document, Epoch, FURTHER_EPOCHS, Time};

use crate::counters::DropReason;
use crate::replay::{Replay, Seen};

/// Epochs before and after the present one whose keys are tried: the documents in use span as many, and one more
/// for clocks that differ.
const WINDOW: u64 = FURTHER_EPOCHS + 1;

/// A packet that was opened.
pub struct Arrived {
    /// When it came: its delay counts from here, however long the peeling took.
    pub received: Time,
    /// Low byte of the epoch whose key opened it; goes on with it.
    pub epoch: u8,
    /// What was inside.
    pub peeled: Peeled,
}

/// A secret key, the epochs in which it opens packets, and the tags of what it opened.
struct Key {
    first: Epoch,
    last: Epoch,
    secret: SecretKey,
    replay: Replay,
}

/// Opens packets. Shared by all workers.
pub struct Opener {
    codec: Arc<dyn Codec>,
    keys: RwLock<Vec<Arc<Key>>>,
    /// The present epoch.
    epoch: AtomicU64,
    /// The longest delay, in nanoseconds.
    max_delay: AtomicU64,
}

impl Opener {
    /// Without keys, and before any epoch: it opens nothing.
    pub fn new(codec: Arc<dyn Codec>) -> Self {
        let epoch = AtomicU64::new(u64::MAX);
        Self { codec, keys: RwLock::default(), epoch, max_delay: AtomicU64::new(0) }
    }

    /// Adds a key for the epochs `first..=last`. `replay` belongs to this key alone.
    pub fn add_key(&self, first: Epoch, last: Epoch, secret: SecretKey, replay: Replay) {
        let key = Arc::new(Key { first, last, secret, replay });
        self.keys.write().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// From now on the present epoch is `epoch`. Keys whose time is over go, and their tags with them.
    pub fn update(&self, document: &Document, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        let max = u64::try_from(document.parameters.max_delay().as_nanos()).unwrap_or(u64::MAX);
        self.max_delay.store(max, Ordering::Relaxed);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| key.last.0.saturating_add(WINDOW) >= epoch.0);
    }

    /// Opens what a link brought at `received`.
    ///
    /// # Errors
    /// Why the packet goes no further.
    pub fn open(&self, received: Time, bytes: &[u8; FRAME_LEN]) -> Result<Arrived, DropReason> {
        let frame = Frame::decode(bytes).map_err(|_| DropReason::Version)?;
        self.open_frame(received, frame)
    }

    /// As [`Self::open`], of a frame that was decoded.
    ///
    /// # Errors
    /// Why the packet goes no further.
    pub fn open_frame(&self, received: Time, frame: Frame) -> Result<Arrived, DropReason> {
        let key = self.key(frame.epoch).ok_or(DropReason::UnknownEpoch)?;
        let opened = self.codec.open(&key.secret, frame.packet).map_err(reason)?;
        match key.replay.insert(opened.tag()) {
            Seen::New => {}
            Seen::Before => return Err(DropReason::Replay),
            Seen::Full => return Err(DropReason::ReplayTableFull),
        }
        let peeled = self.codec.peel(opened).map_err(reason)?;
        if let Peeled::Forward { delay, .. } = &peeled
            && *delay > Duration::from_nanos(self.max_delay.load(Ordering::Relaxed))
        {
            return Err(DropReason::DelayTooLong);
        }
        Ok(Arrived { received, epoch: frame.epoch, peeled })
    }

    /// Tags that are remembered, and how many can be.
    pub fn replay_fill(&self) -> (usize, usize) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().fold((0, 0), |(used, room), key| {
            (used + key.replay.len(), room + key.replay.capacity())
        })
    }

    fn key(&self, low_byte: u8) -> Option<Arc<Key>> {
        let now = self.epoch.load(Ordering::Relaxed);
        if now == u64::MAX {
            return None;
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let window = now.saturating_sub(WINDOW)..=now.saturating_add(WINDOW);
        // Seven epochs at most, so that one byte names one of them.
        let epoch = window.map(Epoch).find(|epoch| epoch.low_byte() == low_byte)?;
        // The key that was added last replaces an earlier one's.
        keys.iter().rev().find(|key| key.first <= epoch && epoch <= key.last).cloned()
    }
}

fn reason(error: Error) -> DropReason {
    match error {
        Error::LowOrder => DropReason::LowOrder,
        Error::Mac => DropReason::Mac,
        _ => DropReason::Routing,
    }
}
