//! What peel workers run on packets: key, DH, MAC, replay, and only then the expensive rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shoal_sphinx::{Codec, Error, Frame, Opened, Packet, Peeled, SecretKey};
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

/// Where a worker keeps what is between the steps, so that batches allocate nothing.
#[derive(Default)]
pub struct Room {
    times: Vec<Time>,
    packets: Vec<Packet>,
    opened: Vec<Result<Opened, Error>>,
    sound: Vec<Opened>,
    peeled: Vec<Result<Peeled, Error>>,
    places: Vec<usize>,
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

    /// Opens what links brought, in order, each with when it came; a bad one costs only itself. The frames are taken
    /// out of `frames`, and as many results added to `results`.
    pub fn open_batch(
        &self,
        frames: &mut Vec<(Time, Frame)>,
        room: &mut Room,
        results: &mut Vec<Result<Arrived, DropReason>>,
    ) {
        let first = results.len();
        let Room { times, packets, opened, sound, peeled, places } = room;
        results.extend(frames.iter().map(|_| Err(DropReason::UnknownEpoch)));
        let mut settle = |place: usize, result| {
            if let Some(slot) = results.get_mut(first + place) {
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
            times.clear();
            packets.clear();
            for (received, frame) in frames.drain(..count) {
                times.push(received);
                packets.push(frame.packet);
            }
            let Some(key) = self.key(epoch) else { continue };

            self.codec.open_batch(&key.secret, packets, opened);
            for (place, opened) in opened.drain(..).enumerate() {
                let new = opened.map_err(reason).and_then(|opened| {
                    match key.replay.insert(opened.tag()) {
                        Seen::New => Ok(opened),
                        Seen::Before => Err(DropReason::Replay),
                        Seen::Full => Err(DropReason::ReplayTableFull),
                    }
                });
                match new {
                    Ok(opened) => {
                        sound.push(opened);
                        places.push(place);
                    }
                    Err(reason) => settle(from + place, Err(reason)),
                }
            }
            self.codec.peel_batch(sound, peeled);
            for (place, peeled) in places.drain(..).zip(peeled.drain(..)) {
                let received = times.get(place).copied().unwrap_or(Time::ZERO);
                settle(from + place, self.arrived(received, epoch, peeled));
            }
        }
    }

    /// As [`Self::open_batch`], of one frame.
    ///
    /// # Errors
    /// Why the packet goes no further.
    pub fn open_frame(&self, received: Time, frame: Frame) -> Result<Arrived, DropReason> {
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
