//! What peel workers run on packets: key, DH, MAC, replay, and only then the expensive rest.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use shoal_sphinx::{Codec, Error, Frame, Opened, Packet, Peeled, SecretKey};
use shoal_topology::{Document, Epoch, FURTHER_EPOCHS, Identity, Time};

use crate::budget::{Budget, Life};
use crate::counters::DropReason;
use crate::replay::{Replay, Seen};

/// Epochs before and after the present one in which a key for many epochs is tried: the documents in use span as many,
/// and one more for clocks that differ.
const WINDOW: u64 = FURTHER_EPOCHS + 1;

/// A packet that was opened.
pub struct Arrived {
    /// When it came: its delay counts from here, however long the peeling took.
    pub received: Time,
    /// Low byte of the epoch whose key opened it; goes on with it.
    pub epoch: u8,
    /// What was found in it.
    pub peeled: Peeled,
}

/// When a frame came, and which neighbour brought it.
#[derive(Clone, Copy)]
pub struct Came {
    /// The instant on the node's clock.
    pub at: Time,
    /// The neighbour whose link brought it.
    pub from: Identity,
}

/// A frame of the only neighbour that there is.
impl From<Time> for Came {
    fn from(at: Time) -> Self {
        Self { at, from: Identity([0; 32]) }
    }
}

/// Where fingerprints of tags are written before their packets go on, so that they are known after a crash.
pub trait Log: Send + Sync {
    /// Writes all of them. Workers call it at the same time.
    ///
    /// # Errors
    /// They are not written down, and their packets go no further.
    fn append(&self, fingerprints: &[u64]) -> Result<(), NotWritten>;
}

/// What a [`Log`] could not do.
#[derive(Clone, Copy, Debug)]
pub struct NotWritten;

/// A secret key, the epochs in which it opens packets, and the tags of what it opened.
struct MixKey {
    first: Epoch,
    last: Epoch,
    secret: SecretKey,
    replay: Replay,
    /// Without one it comes to know what its table holds.
    budget: Option<Mutex<Budget>>,
    log: Option<Box<dyn Log>>,
}

impl MixKey {
    /// True if frames of this byte are for it. A key of one epoch opens from when it is made until it is erased; its
    /// owner keeps fewer than 128 epochs of them, so that a byte names one.
    fn opens(&self, low_byte: u8, now: u64) -> bool {
        if self.first == self.last {
            return self.first.low_byte() == low_byte;
        }
        // Seven epochs at most, so that one byte names one of them.
        let mut window = now.saturating_sub(WINDOW)..=now.saturating_add(WINDOW);
        window.any(|epoch| {
            let epoch = Epoch(epoch);
            epoch.low_byte() == low_byte && self.first <= epoch && epoch <= self.last
        })
    }

    /// Its budget, with what has come together by now.
    fn budget(&self, now: Time, life: Life, neighbours: usize) -> Option<MutexGuard<'_, Budget>> {
        let mut budget = self.budget.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        budget.advance(now, life, neighbours);
        Some(budget)
    }

    /// Comes to know a packet whose MAC is right: with wrong ones nobody uses up the budget.
    fn know(
        &self,
        budget: Option<&mut Budget>,
        (life, neighbours): (Life, usize),
        from: &Identity,
        fingerprint: u64,
    ) -> Result<(), DropReason> {
        let mut token = None;
        // Taken before the table is asked, and given back if the packet is not new: at no instant does the table know
        // more than the budget allows.
        let mut budget = budget;
        if let Some(budget) = &mut budget {
            let taken = budget.take(life, from, neighbours);
            token = Some(taken.ok_or(DropReason::ReplayTableFull)?);
        }
        let new = match self.replay.insert_fingerprint(fingerprint) {
            Seen::New => Ok(()),
            Seen::Before => Err(DropReason::Replay),
            Seen::Full => Err(DropReason::ReplayTableFull),
        };
        if let (Err(_), Some(budget), Some(token)) = (new, budget, token) {
            budget.put_back(life, from, token);
        }
        new
    }
}

/// When an epoch began, on the node's clock.
#[derive(Clone, Copy)]
struct EpochStart {
    epoch: Epoch,
    at: Time,
    /// How long it had lasted by then.
    lasted: Duration,
    length: Duration,
    error: Duration,
}

impl EpochStart {
    /// How the key of an epoch stands at `now`.
    fn life(&self, now: Time, key: Epoch) -> Life {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        // Signed and wide: an epoch may have begun before the node's own clock did.
        let ahead = i128::from(key.0) - i128::from(self.epoch.0);
        let origin = nanos(self.at.since(Time::ZERO)) - nanos(self.lasted);
        let opens = origin + ahead.saturating_mul(nanos(self.length)) - nanos(self.error);
        if opens > nanos(now.since(Time::ZERO)) {
            return Life::Early;
        }
        // Before the node's start: since its start.
        let opens = Duration::from_nanos(u64::try_from(opens.max(0)).unwrap_or(u64::MAX));
        Life::Open(Time::ZERO + opens)
    }
}

/// Where a worker keeps what is between the steps, so that batches allocate nothing.
#[derive(Default)]
pub struct Room {
    came: Vec<Came>,
    packets: Vec<Packet>,
    opened: Vec<Result<Opened, Error>>,
    sound: Vec<Opened>,
    fingerprints: Vec<u64>,
    peeled: Vec<Result<Peeled, Error>>,
    indices: Vec<usize>,
}

/// Opens packets. Shared by all workers.
pub struct Opener {
    codec: Arc<dyn Codec>,
    keys: RwLock<Vec<Arc<MixKey>>>,
    /// The present epoch.
    epoch: AtomicU64,
    /// The longest delay, in nanoseconds.
    max_delay: AtomicU64,
    epoch_start: RwLock<Option<EpochStart>>,
    /// Who brings packets, at most: they share what keys may come to know.
    neighbours: AtomicUsize,
}

impl Opener {
    /// Without keys, and before any epoch: it opens nothing.
    pub fn new(codec: Arc<dyn Codec>) -> Self {
        let epoch = AtomicU64::new(u64::MAX);
        let (keys, max_delay, epoch_start) = Default::default();
        Self { codec, keys, epoch, max_delay, epoch_start, neighbours: AtomicUsize::new(1) }
    }

    /// Adds a key for the epochs `first..=last`. `replay` belongs to this key alone, and its tags end with the process.
    pub fn add_key(&self, first: Epoch, last: Epoch, secret: SecretKey, replay: Replay) {
        self.add(MixKey { first, last, secret, replay, budget: None, log: None });
    }

    /// Adds the key of an epoch. `replay` and `log` belong to this key alone, and `replay` knows what `log` has; `budget`
    /// bounds what it comes to know beside that.
    pub fn add_logged_key(
        &self,
        epoch: Epoch,
        secret: SecretKey,
        (replay, budget): (Replay, Budget),
        log: Box<dyn Log>,
    ) {
        let budget = Some(Mutex::new(budget));
        self.add(MixKey { first: epoch, last: epoch, secret, replay, budget, log: Some(log) });
    }

    /// At `now` `epoch` has lasted for so long. Epochs have this length, and clocks may be wrong by `error`: packets of
    /// an epoch are early until `error` before it begins. Without this they are early until [`Self::update`] names it.
    pub fn keep_time(
        &self,
        (now, epoch): (Time, Epoch),
        lasted: Duration,
        length: Duration,
        error: Duration,
    ) {
        let epoch_start = EpochStart { epoch, at: now, lasted, length, error };
        *self.epoch_start.write().unwrap_or_else(PoisonError::into_inner) = Some(epoch_start);
    }

    /// From now on packets come from so many neighbours. Each has a part of the declared rate to itself.
    pub fn share_among(&self, neighbours: usize) {
        self.neighbours.store(neighbours, Ordering::Relaxed);
    }

    fn life(&self, now: Time, key: Epoch) -> Life {
        match *self.epoch_start.read().unwrap_or_else(PoisonError::into_inner) {
            Some(epoch_start) => epoch_start.life(now, key),
            None if key.0 > self.epoch.load(Ordering::Relaxed) => Life::Early,
            None => Life::Open(Time::ZERO),
        }
    }

    fn add(&self, key: MixKey) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(key));
    }

    /// Takes away the keys of exactly these epochs, and their tags with them. Their bytes are wiped as soon as no worker
    /// is in the middle of a batch of theirs.
    pub fn erase(&self, first: Epoch, last: Epoch) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| (key.first, key.last) != (first, last));
    }

    /// From now on the present epoch is `epoch`. Keys of many epochs go when the last is over, and their tags with them;
    /// those of one epoch go by [`Self::erase`].
    pub fn update(&self, document: &Document, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        let max = u64::try_from(document.parameters.max_delay().as_nanos()).unwrap_or(u64::MAX);
        self.max_delay.store(max, Ordering::Relaxed);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| key.first == key.last || key.last.0.saturating_add(WINDOW) >= epoch.0);
    }

    /// Opens what links brought, in order, each with when it came and from whom; a bad one costs only itself. The frames are
    /// taken out of `frames`, and as many results added to `results`.
    pub fn open_batch<C: Into<Came>>(
        &self,
        frames: &mut Vec<(C, Frame)>,
        room: &mut Room,
        results: &mut Vec<Result<Arrived, DropReason>>,
    ) {
        let first = results.len();
        let Room { came, packets, opened, sound, fingerprints, peeled, indices } = room;
        // One result for each frame, in their order, before anything is opened: frames without a key keep this one.
        results.extend(frames.iter().map(|_| Err(DropReason::UnknownEpoch)));
        let mut settle = |index: usize, result| {
            if let Some(slot) = results.get_mut(first + index) {
                *slot = result;
            }
        };
        // Frames of one epoch have one key. There is hardly ever a second epoch in a batch.
        let mut begin = 0;
        while let Some((_, Frame { epoch, .. })) = frames.first() {
            let epoch = *epoch;
            let count = frames.iter().take_while(|(_, frame)| frame.epoch == epoch).count();
            let from = begin;
            begin += count;
            came.clear();
            packets.clear();
            for (received, frame) in frames.drain(..count) {
                came.push(received.into());
                packets.push(frame.packet);
            }
            let Some(key) = self.key(epoch) else { continue };
            let now = came.iter().map(|came| came.at).max().unwrap_or(Time::ZERO);
            let life = self.life(now, key.first);
            let neighbours = self.neighbours.load(Ordering::Relaxed);

            // The MAC first. What fails it must neither take room in the table nor any of the budget.
            self.codec.open_batch(&key.secret, packets, opened);
            // Locked once for a batch, since each packet of it asks.
            let mut budget = key.budget(now, life, neighbours);
            for (index, opened) in opened.drain(..).enumerate() {
                let new = opened.map_err(reason).and_then(|opened| {
                    let fingerprint = key.replay.fingerprint(opened.tag());
                    let from = came.get(index).map_or(Identity([0; 32]), |came| came.from);
                    key.know(budget.as_deref_mut(), (life, neighbours), &from, fingerprint)?;
                    fingerprints.push(fingerprint);
                    Ok(opened)
                });
                match new {
                    Ok(opened) => {
                        sound.push(opened);
                        indices.push(index);
                    }
                    Err(reason) => settle(from + index, Err(reason)),
                }
            }
            drop(budget);
            // Written down before anything goes on: whatever was sent is known after a crash.
            if let Some(log) = &key.log
                && !fingerprints.is_empty()
                && log.append(fingerprints).is_err()
            {
                sound.clear();
                for index in indices.drain(..) {
                    settle(from + index, Err(DropReason::ReplayLog));
                }
            }
            fingerprints.clear();
            // The expensive rest, for what is sound and new alone.
            self.codec.peel_batch(sound, peeled);
            for (index, peeled) in indices.drain(..).zip(peeled.drain(..)) {
                let received = came.get(index).map_or(Time::ZERO, |came| came.at);
                settle(from + index, self.arrived(received, epoch, peeled));
            }
        }
    }

    /// As [`Self::open_batch`], of one frame.
    ///
    /// # Errors
    /// Why the packet goes no further.
    pub fn open_frame(
        &self,
        received: impl Into<Came>,
        frame: Frame,
    ) -> Result<Arrived, DropReason> {
        let mut results = Vec::with_capacity(1);
        self.open_batch(&mut vec![(received, frame)], &mut Room::default(), &mut results);
        results.pop().unwrap_or(Err(DropReason::UnknownEpoch))
    }

    fn arrived(
        &self,
        received: Time,
        epoch: u8,
        peeled: Result<Peeled, Error>,
    ) -> Result<Arrived, DropReason> {
        let peeled = peeled.map_err(reason)?;
        if let Peeled::Forward { delay, .. } = &peeled
            // The sender wrote the delay. Longer ones would fill the pool for as long as he likes.
            && *delay > Duration::from_nanos(self.max_delay.load(Ordering::Relaxed))
        {
            return Err(DropReason::DelayTooLong);
        }
        Ok(Arrived { received, epoch, peeled })
    }

    /// Tags that are remembered, and how many can be.
    pub fn replay_fill(&self) -> (usize, usize) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().fold((0, 0), |(used, room), key| {
            (used + key.replay.len(), room + key.replay.capacity())
        })
    }

    fn key(&self, low_byte: u8) -> Option<Arc<MixKey>> {
        let now = self.epoch.load(Ordering::Relaxed);
        if now == u64::MAX {
            return None;
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // The key that was added last replaces an earlier one's.
        // Cloned, so that erasing a key waits for no worker; its bytes are wiped when the last one lets go of it.
        keys.iter().rev().find(|key| key.opens(low_byte, now)).cloned()
    }
}

fn reason(error: Error) -> DropReason {
    match error {
        Error::LowOrder => DropReason::LowOrder,
        Error::Mac => DropReason::Mac,
        _ => DropReason::Routing,
    }
}
