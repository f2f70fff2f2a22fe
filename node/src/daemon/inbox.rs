//! The inbox: packets for clients that are away, and the descriptors of clients, in a redb file, off the hot path.
//!
//! Stored are a keyed hash of the inbox, a number in it, when it goes, to a part of how long packets wait, and the packet or the
//! descriptor under the inbox's key: so the file does not say when somebody was sent something, nor in which order others were. Where
//! that lies in the runtime directory nobody can read after a reboot what is left, and it is thrown away. An error of the database
//! (a full disk, no descriptors) loses packets, which are counted, and never ends the node: the file is opened again
//! until that works, since a database that has failed once answers nothing any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition,
};
use shoal_host::exit::chain;
use shoal_sphinx::{Frame, Packet};
use shoal_topology::{ClientDescriptor, Signed};

use super::metrics::{Shared, Subsystem};
use crate::engine::gateway::InboxId;
use crate::engine::{Input, KnownClient};

/// Key: inbox 16, number in it 8 (big-endian). Value: minute after which it goes 4, nonce 24, sealed (low byte of the epoch,
/// packet).
const PACKETS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("packets 2");
/// Key: inbox 16. Value: minute after which it is not asked for any more 4, nonce 24, sealed (descriptor).
const DESCRIPTORS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("descriptors 1");
/// Holds a hash of the key, by which a file of another key is known.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about 1");
/// What a value holds, to which it is bound.
const PACKET: u8 = 0;
const DESCRIPTOR: u8 = 1;
/// Orders that wait. One more packet is not stored, and counted.
const QUEUE: usize = 4_096;
/// Orders in one transaction.
const BATCH: usize = 512;
/// The time for which packets wait has so many parts: the file says in which of them one came, and no more.
const PARTS: u32 = 32;
/// The longest time for which packets wait, seconds.
const LONGEST_S: u32 = 90 * 86_400;
/// How often what is too old is thrown away.
const SWEEP: Duration = Duration::from_secs(60);
/// How long a file that failed is left alone.
const RETRY: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(super) enum Order {
    Store(InboxId, Frame),
    Fetch(InboxId, usize),
    /// The oldest go, so many at most.
    Discard(InboxId, usize),
    /// The inbox goes, with all that is in it.
    Forget(InboxId),
    /// A descriptor, valid up to this second, takes the place of what this inbox had.
    StoreDescriptor(InboxId, Arc<[u8]>, u64),
    /// The descriptor of this inbox goes.
    DiscardDescriptor(InboxId),
    /// Packets expire after so many seconds from now on.
    Expiry(u32),
    /// All inboxes together hold so many packets from now on. What is beyond it stays until it goes.
    Most(usize),
}

/// The way to the thread that has the file open.
pub(super) struct Inbox {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

impl Inbox {
    /// Opens the file and starts the thread, which opens it later if it cannot be opened now; `answer` gets what the engine
    /// must know, first of all what is there. It may wait for the engine.
    pub(super) fn start(
        path: &Path,
        key: &[u8; 32],
        most: usize,
        shared: Arc<Shared>,
        answer: impl Fn(Input) + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut store = Store::new(path, key, most);
        store.shared = shared;
        store.stand(&answer);
        let (orders, queue) = sync_channel(QUEUE);
        let run = move || store.run(&queue, &answer);
        let thread = std::thread::Builder::new().name("inbox".into()).spawn(run)?;
        Ok(Self { orders, thread })
    }

    /// Gives an order, or says that there is no room for it.
    pub(super) fn order(&self, order: Order) -> std::result::Result<(), Order> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(order) | TrySendError::Disconnected(order) => order,
        })
    }

    /// Writes what was ordered and ends.
    pub(super) fn finish(self) {
        drop(self.orders);
        let _ = self.thread.join();
    }
}

struct Store {
    /// Where the database is.
    path: PathBuf,
    /// None before it was opened, and after an error.
    database: Option<Database>,
    /// When that was last tried, if it failed.
    tried: Option<Instant>,
    /// True if the engine knows what was there at the start.
    told: bool,
    /// Where it writes down what the metrics show.
    shared: Arc<Shared>,
    /// By which a database of another key is told.
    check: [u8; 32],
    /// Encrypts the packets.
    cipher: XChaCha20Poly1305,
    /// Packets in it, of all inboxes.
    held: usize,
    /// The most packets that it takes.
    most: usize,
    /// How long a packet waits, in seconds.
    expiry_s: u32,
}

impl Store {
    fn new(path: &Path, key: &[u8; 32], most: usize) -> Self {
        // Two keys of one: what lies in the file as a mark tells nothing of what the packets are encrypted with.
        let sealing = blake3::derive_key("shoal 2026 inbox packets", key);
        Self {
            path: path.to_owned(),
            database: None,
            tried: None,
            told: false,
            shared: Arc::default(),
            check: blake3::derive_key("shoal 2026 inbox check", key),
            cipher: XChaCha20Poly1305::new(&sealing.into()),
            held: 0,
            most,
            expiry_s: LONGEST_S,
        }
    }

    fn database(&self) -> Result<&Database> {
        self.database.as_ref().ok_or_else(|| "the file is not open".into())
    }

    fn open(&mut self) -> Result<()> {
        // Created by us alone, so that the mode is ours.
        if !self.path.exists() {
            use std::os::unix::fs::OpenOptionsExt as _;
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&self.path)?;
        }
        let database = Database::create(&self.path)?;
        let transaction = database.begin_write()?;
        let held;
        {
            let mut about = transaction.open_table(ABOUT)?;
            let ours = about.get("key")?.is_some_and(|found| found.value() == self.check);
            if !ours {
                // Nobody can read them any more, and they would take room until they expire.
                transaction.delete_table(PACKETS)?;
                transaction.delete_table(DESCRIPTORS)?;
                about.insert("key", self.check.as_slice())?;
            }
            // Made, where there is none.
            transaction.open_table(DESCRIPTORS)?;
            let packets = transaction.open_table(PACKETS)?;
            held = usize::try_from(packets.len()?).unwrap_or(usize::MAX);
        }
        transaction.commit()?;
        (self.database, self.held) = (Some(database), held);
        Ok(())
    }

    /// Opens the file if it is not open, and tells the engine what is there.
    fn stand(&mut self, answer: &impl Fn(Input)) {
        if self.database.is_some() || self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        match self.open().and_then(|()| if self.told { Ok(Vec::new()) } else { self.known() }) {
            Ok(known) => {
                if self.tried.take().is_some() {
                    tracing::info!("the inbox file can be used again");
                }
                self.shared.stands(Subsystem::Inbox, None);
                if !self.told {
                    self.told = true;
                    // Once: the engine adds it to what it counts by itself, and would count the same packets twice.
                    answer(Input::Known(known));
                }
            }
            Err(error) => self.failed(&*error),
        }
    }

    /// Lets go of the file, and says why, once.
    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.tried.is_none() {
            tracing::error!(
                "cannot use inbox.redb in the data directory: {}; packets for absent clients are dropped until that works, \
                 which is tried again and again; if the file is broken, move it away",
                chain(error)
            );
        }
        // Let go of, since redb locks its file: it could not be opened again otherwise.
        self.database = None;
        self.tried = Some(Instant::now());
        self.shared.stands(Subsystem::Inbox, Some(&chain(error)));
    }

    fn known(&self) -> Result<Vec<KnownClient>> {
        let transaction = self.database()?.begin_read()?;
        let mut known: BTreeMap<InboxId, (u32, Option<_>)> = BTreeMap::new();
        for entry in transaction.open_table(PACKETS)?.iter()? {
            let (key, _) = entry?;
            known.entry(inbox_of(key.value())).or_default().0 += 1;
        }
        for entry in transaction.open_table(DESCRIPTORS)?.iter()? {
            let (key, value) = entry?;
            let inbox = inbox_of(key.value());
            let bytes = self.open_value(DESCRIPTOR, inbox, value.value());
            if let Some(Ok(descriptor)) =
                bytes.map(|bytes| Signed::<ClientDescriptor>::decode(&bytes))
                && first_minute(value.value()) >= minute()
            {
                known.entry(inbox).or_default().1 = Some(descriptor);
            }
        }
        let client = |(inbox, (waiting, descriptor))| KnownClient { inbox, waiting, descriptor };
        Ok(known.into_iter().map(client).collect())
    }

    fn run(&mut self, queue: &Receiver<Order>, answer: &impl Fn(Input)) {
        let mut swept = minute();
        loop {
            match queue.recv_timeout(SWEEP) {
                Ok(first) => {
                    let orders: Vec<_> =
                        // One write to the disk for all that waits; the bound keeps an answer from waiting for a
                        // queue that never empties.
                        std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
                    self.carry_out(orders, answer);
                }
                Err(RecvTimeoutError::Timeout) => self.stand(answer),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also while orders come without a pause, when the timeout above never happens.
            if minute() != swept && self.database.is_some() {
                swept = minute();
                match self.sweep() {
                    Ok(expired) => {
                        for (inbox, packets) in expired {
                            answer(Input::Expired { inbox, packets });
                        }
                    }
                    Err(error) => self.failed(&*error),
                }
            }
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>, answer: &impl Fn(Input)) {
        self.stand(answer);
        let mut stored: BTreeMap<InboxId, u32> = BTreeMap::new();
        let mut fetches = Vec::new();
        for order in &orders {
            match order {
                Order::Store(inbox, _) => *stored.entry(*inbox).or_default() += 1,
                Order::Fetch(inbox, _) => fetches.push(*inbox),
                Order::Discard(..)
                | Order::Forget(_)
                | Order::StoreDescriptor(..)
                | Order::DiscardDescriptor(_) => {}
                Order::Expiry(seconds) => self.expiry_s = (*seconds).min(LONGEST_S),
                Order::Most(packets) => self.most = *packets,
            }
        }
        match self.write(orders) {
            Ok(answers) => answers.into_iter().for_each(answer),
            Err(error) => {
                // The transaction is gone with all that was in it.
                if self.database.is_some() {
                    self.failed(&*error);
                }
                for (inbox, packets) in stored {
                    answer(Input::NotStored { inbox, packets });
                }
                for inbox in fetches {
                    answer(Input::Fetched { inbox, frames: Vec::new() });
                }
            }
        }
    }

    fn write(&mut self, orders: Vec<Order>) -> Result<Vec<Input>> {
        let mut answers = Vec::new();
        // A copy, which counts only if the transaction does: otherwise nothing of it happened.
        let mut held = self.held;
        let transaction = self.database()?.begin_write()?;
        {
            let mut packets = transaction.open_table(PACKETS)?;
            let mut descriptors = transaction.open_table(DESCRIPTORS)?;
            for order in orders {
                match order {
                    Order::Store(inbox, _) if held >= self.most => {
                        answers.push(Input::NotStored { inbox, packets: 1 });
                    }
                    Order::Store(inbox, frame) => {
                        let mut plain = vec![frame.epoch];
                        plain.extend(frame.packet.as_bytes());
                        let value = self.seal(PACKET, inbox, self.last_minute(), &plain)?;
                        let (first, last) = (key(inbox, 0), key(inbox, u64::MAX));
                        let newest = packets.range(first.as_slice()..=last.as_slice())?.next_back();
                        let newest = newest.transpose()?.map_or(0, |(key, _)| number(key.value()));
                        packets.insert(key(inbox, newest + 1).as_slice(), value.as_slice())?;
                        held += 1;
                    }
                    Order::Fetch(inbox, max) => {
                        let mut found = Vec::new();
                        let (first, last) = (key(inbox, 0), key(inbox, u64::MAX));
                        for entry in packets.range(first.as_slice()..=last.as_slice())?.take(max) {
                            let (key, value) = entry?;
                            found.push((
                                key.value().to_vec(),
                                // One that cannot be opened is taken out with the others, or it would be found at
                                // every fetch.
                                self.open_frame(inbox, value.value()),
                            ));
                        }
                        for (key, _) in &found {
                            packets.remove(key.as_slice())?;
                            held = held.saturating_sub(1);
                        }
                        let frames = found.into_iter().filter_map(|(_, frame)| frame).collect();
                        answers.push(Input::Fetched { inbox, frames });
                    }
                    Order::Discard(inbox, most) => {
                        held = held.saturating_sub(discard(&mut packets, inbox, most)?);
                    }
                    Order::Forget(inbox) => {
                        held = held.saturating_sub(discard(&mut packets, inbox, usize::MAX)?);
                        descriptors.remove(inbox.0.as_slice())?;
                    }
                    Order::StoreDescriptor(inbox, descriptor, not_after) => {
                        let last = u32::try_from(not_after / 60).unwrap_or(u32::MAX);
                        let value = self.seal(DESCRIPTOR, inbox, last, &descriptor)?;
                        descriptors.insert(inbox.0.as_slice(), value.as_slice())?;
                    }
                    Order::DiscardDescriptor(inbox) => {
                        _ = descriptors.remove(inbox.0.as_slice())?
                    }
                    Order::Expiry(_) | Order::Most(_) => {}
                }
            }
        }
        transaction.commit()?;
        self.held = held;
        Ok(answers)
    }

    fn sweep(&mut self) -> Result<Vec<(InboxId, u32)>> {
        let now = minute();
        let mut expired: BTreeMap<InboxId, u32> = BTreeMap::new();
        let transaction = self.database()?.begin_write()?;
        {
            let mut packets = transaction.open_table(PACKETS)?;
            packets.retain(|key, value| {
                let stays = first_minute(value) >= now;
                if !stays {
                    *expired.entry(inbox_of(key)).or_default() += 1;
                }
                stays
            })?;
            transaction.open_table(DESCRIPTORS)?.retain(|_, value| first_minute(value) >= now)?;
        }
        transaction.commit()?;
        let gone: u32 = expired.values().sum();
        self.held = self.held.saturating_sub(gone as usize);
        Ok(expired.into_iter().collect())
    }

    /// The last minute of a packet that comes now: nothing goes early.
    fn last_minute(&self) -> u32 {
        let part = (self.expiry_s / 60 / PARTS).max(1);
        let at = minute().saturating_add(self.expiry_s.div_ceil(60)).saturating_add(1);
        at.div_ceil(part).saturating_mul(part)
    }

    /// A value: a minute, and what is encrypted for this inbox.
    fn seal(&self, kind: u8, inbox: InboxId, minute: u32, plain: &[u8]) -> Result<Vec<u8>> {
        // Nonces of 24 bytes may be drawn at random under one key; a counter would have to survive a lost file.
        let random = shoal_host::secret::fresh()?;
        let nonce = random.first_chunk::<24>().copied().unwrap_or_default();
        // Bound to its inbox: whoever can write to the file cannot move a packet to another one.
        let payload = Payload { msg: plain, aad: &bound(kind, inbox) };
        let sealed =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| "cannot encrypt")?;
        Ok([minute.to_be_bytes().as_slice(), &nonce, &sealed].concat())
    }

    fn open_value(&self, kind: u8, inbox: InboxId, value: &[u8]) -> Option<Vec<u8>> {
        let (_, rest) = value.split_at_checked(4)?;
        let (nonce, sealed) = rest.split_first_chunk::<24>()?;
        let payload = Payload { msg: sealed, aad: &bound(kind, inbox) };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }

    fn open_frame(&self, inbox: InboxId, value: &[u8]) -> Option<Frame> {
        let plain = self.open_value(PACKET, inbox, value)?;
        let (epoch, packet) = plain.split_first()?;
        Some(Frame { epoch: *epoch, field: 0, packet: Packet::from_slice(packet).ok()? })
    }
}

/// Takes so many of the oldest packets of an inbox out; how many there were.
fn discard(packets: &mut Table<'_, &[u8], &[u8]>, inbox: InboxId, most: usize) -> Result<usize> {
    let (first, last) = (key(inbox, 0), key(inbox, u64::MAX));
    let range = packets.range(first.as_slice()..=last.as_slice())?;
    let keys: std::result::Result<Vec<_>, redb::StorageError> =
        range.take(most).map(|entry| Ok(entry?.0.value().to_vec())).collect();
    let keys: Vec<Vec<u8>> = keys?;
    for key in &keys {
        packets.remove(key.as_slice())?;
    }
    Ok(keys.len())
}

/// What a value is bound to.
fn bound(kind: u8, inbox: InboxId) -> Vec<u8> {
    [&[kind], inbox.0.as_slice()].concat()
}

/// The minute at the beginning of a value.
fn first_minute(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |at| u32::from_be_bytes(*at))
}

fn key(inbox: InboxId, number: u64) -> Vec<u8> {
    [inbox.0.as_slice(), &number.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key.last_chunk().copied().unwrap_or_default())
}

fn inbox_of(key: &[u8]) -> InboxId {
    InboxId(key.first_chunk().copied().unwrap_or_default())
}

fn minute() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs() / 60).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use shoal_topology::testing::TestClient;

    use super::*;

    fn frame(n: u8) -> Frame {
        let mut packet = Packet::default();
        packet.as_mut_bytes()[7] = n;
        Frame { epoch: 3, field: 0, packet }
    }

    fn open(path: &Path, key: u8, most: usize) -> Store {
        let mut store = Store::new(path, &[key; 32], most);
        store.open().unwrap();
        store
    }

    fn fetch(store: &mut Store, inbox: InboxId) -> Vec<u8> {
        let answers = store.write(vec![Order::Fetch(inbox, 100)]).unwrap();
        let Some(Input::Fetched { frames, .. }) = answers.into_iter().next() else { panic!() };
        frames.iter().map(|frame| frame.packet.as_bytes()[7]).collect()
    }

    /// What is known of each client; of its descriptor the key.
    fn known(store: &Store) -> Vec<(InboxId, u32, Option<[u8; 32]>)> {
        let key = |of: Signed<ClientDescriptor>| of.body().key;
        let clients = store.known().unwrap().into_iter();
        clients.map(|client| (client.inbox, client.waiting, client.descriptor.map(key))).collect()
    }

    /// The descriptor of a client, with another key for each `n`.
    fn descriptor(n: u8) -> (Arc<[u8]>, [u8; 32]) {
        let mut client = TestClient::new([1; 32], &[shoal_topology::Identity([4; 32])]);
        client.body.key = *shoal_sphinx::SecretKey::from_bytes([n; 32]).public().as_bytes();
        (client.sign().encode().into(), client.body.key)
    }

    #[test]
    fn descriptors_come_back_after_a_restart_until_they_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.redb");
        let (a, b, later) = (InboxId([1; 16]), InboxId([2; 16]), u64::from(minute() + 60) * 60);
        let mut store = open(&path, 5, 100);
        let (first, second) = (descriptor(1), descriptor(2));
        let describe =
            |inbox, of: &(Arc<[u8]>, _), until| Order::StoreDescriptor(inbox, of.0.clone(), until);
        store.write(vec![describe(a, &first, later), describe(b, &first, later)]).unwrap();
        store.write(vec![describe(a, &second, later), Order::Store(b, frame(1))]).unwrap();
        drop(store);
        let mut store = open(&path, 5, 100);
        assert_eq!(known(&store), [(a, 0, Some(second.1)), (b, 1, Some(first.1))]);
        // One that is over is not told of, and goes with the next sweep.
        store.write(vec![describe(a, &second, later - 7_200)]).unwrap();
        assert_eq!(known(&store), [(b, 1, Some(first.1))]);
        store.sweep().unwrap();
        let rows = |store: &Store| {
            let read = store.database.as_ref().unwrap().begin_read().unwrap();
            read.open_table(DESCRIPTORS).unwrap().len().unwrap()
        };
        assert_eq!(rows(&store), 1);
        store.write(vec![Order::DiscardDescriptor(b)]).unwrap();
        assert_eq!((rows(&store), known(&store)), (0, vec![(b, 1, None)]));
        store.write(vec![describe(b, &first, later), Order::Forget(b)]).unwrap();
        assert_eq!((rows(&store), store.held), (0, 0));
        store.write(vec![describe(b, &first, later)]).unwrap();
        drop(store);
        assert_eq!(known(&open(&path, 6, 100)), [], "a file of another key is emptied");
    }

    #[test]
    fn packets_come_back_in_order_and_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.redb");
        let (a, b) = (InboxId([1; 16]), InboxId([2; 16]));
        let mut store = open(&path, 5, 100);
        let orders = [(a, 1), (b, 2), (a, 3)].map(|(inbox, n)| Order::Store(inbox, frame(n)));
        store.write(orders.into()).unwrap();
        drop(store);
        let mut store = open(&path, 5, 100);
        assert_eq!(known(&store), [(a, 2, None), (b, 1, None)]);
        store.write(vec![Order::Store(a, frame(4))]).unwrap();
        assert_eq!(fetch(&mut store, a), [1, 3, 4]);
        assert_eq!(fetch(&mut store, a), [0; 0]);
        assert_eq!(fetch(&mut store, b), [2]);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_fails_is_opened_again_until_that_works_and_nothing_is_lost_but_what_came_meanwhile()
     {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.redb");
        let away = dir.path().join("away");
        let (mut store, inbox) = (open(&path, 5, 100), InboxId([1; 16]));
        let answers = std::cell::RefCell::new(Vec::new());
        let answer = |input| answers.borrow_mut().push(input);
        let kept = |store: &mut Store, n| {
            answers.borrow_mut().clear();
            store.carry_out(vec![Order::Store(inbox, frame(n))], &answer);
            !answers.borrow().iter().any(|input| matches!(input, Input::NotStored { .. }))
        };
        store.told = true;
        assert!(kept(&mut store, 1));
        // The disk fails: what redb says then it goes on saying until it is opened again.
        std::fs::rename(&path, &away).unwrap();
        std::fs::create_dir(&path).unwrap();
        store.failed(&*Box::<dyn std::error::Error>::from("no room"));
        assert!(!kept(&mut store, 2) && !kept(&mut store, 3));
        assert!(store.shared.troubles()[0].contains("no room"), "{:?}", store.shared.troubles());
        store.tried = Instant::now().checked_sub(RETRY);
        assert!(!kept(&mut store, 4));
        assert!(!store.shared.troubles()[0].contains("no room"), "the reason is the latest");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
        store.tried = Instant::now().checked_sub(RETRY);
        assert!(kept(&mut store, 5));
        assert_eq!(store.shared.troubles(), [""; 0]);
        assert_eq!(fetch(&mut store, inbox), [1, 5]);
    }

    #[test]
    fn the_oldest_packets_of_an_inbox_are_thrown_away_and_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir.path().join("inbox.redb"), 5, 4);
        let (a, b) = (InboxId([1; 16]), InboxId([2; 16]));
        let mut orders: Vec<_> = (0..4).map(|n| Order::Store(a, frame(n))).collect();
        orders.extend([Order::Discard(a, 2), Order::Store(b, frame(9))]);
        assert!(store.write(orders).unwrap().is_empty());
        assert_eq!(fetch(&mut store, a), [2, 3]);
        store.write(vec![Order::Discard(b, usize::MAX)]).unwrap();
        assert_eq!((fetch(&mut store, b), store.held), (Vec::new(), 0));
    }

    #[test]
    fn the_file_says_no_more_closely_than_a_part_of_the_week_when_a_packet_came_and_not_in_which_order()
     {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir.path().join("inbox.redb"), 5, 100);
        store.expiry_s = 7 * 86_400;
        let (a, b) = (InboxId([1; 16]), InboxId([2; 16]));
        let orders = [(a, 1), (b, 2), (b, 3), (a, 4)];
        store.write(orders.map(|(inbox, n)| Order::Store(inbox, frame(n))).into()).unwrap();
        let read = store.database.as_ref().unwrap().begin_read().unwrap();
        let rows = read.open_table(PACKETS).unwrap();
        let rows: Vec<_> = rows
            .iter()
            .unwrap()
            .map(|row| {
                let (key, value) = row.unwrap();
                (number(key.value()), first_minute(value.value()))
            })
            .collect();
        assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 1, 2]);
        let part = 7 * 24 * 60 / 32;
        for (_, last) in rows {
            assert_eq!(last % part, 0);
            let stays = last - minute();
            assert!((7 * 24 * 60..=7 * 24 * 60 + part + 1).contains(&stays), "{stays} minutes");
        }
    }

    #[test]
    fn a_file_of_another_key_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.redb");
        let mut store = open(&path, 5, 100);
        store.write(vec![Order::Store(InboxId([1; 16]), frame(1))]).unwrap();
        drop(store);
        assert!(open(&path, 6, 100).known().unwrap().is_empty());
    }

    #[test]
    fn what_is_full_or_too_old_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir.path().join("inbox.redb"), 5, 2);
        let inbox = InboxId([1; 16]);
        let orders = (0..3).map(|n| Order::Store(inbox, frame(n))).collect();
        let answers = store.write(orders).unwrap();
        assert!(matches!(answers[..], [Input::NotStored { packets: 1, .. }]));
        store.expiry_s = 3_600;
        assert!(store.sweep().unwrap().is_empty());
        // As if the minute had been written long ago.
        let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
        let old = [0u8; 4 + 24 + 16];
        transaction
            .open_table(PACKETS)
            .unwrap()
            .insert(key(inbox, 1).as_slice(), old.as_slice())
            .unwrap();
        transaction.commit().unwrap();
        assert!(store.sweep().unwrap() == [(inbox, 1)]);
        assert_eq!(store.held, 1);
    }

    /// How many parts of `secret`, eight bytes in a row, stand in the file of a store that did this.
    fn traces(secret: &[u8], act: impl Fn(&mut Store)) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.redb");
        let mut store = open(&path, 5, 100);
        act(&mut store);
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        let parts: HashSet<&[u8]> = secret.windows(8).collect();
        let likely: HashSet<u8> = parts.iter().map(|part| part[0]).collect();
        let mut found: Vec<&[u8]> =
            bytes.windows(8).filter(|w| likely.contains(&w[0]) && parts.contains(w)).collect();
        found.sort_unstable();
        found.dedup();
        found.len()
    }

    #[test]
    fn nothing_of_a_packet_or_an_inbox_is_in_the_file() {
        let name = shoal_topology::Identity(std::array::from_fn(|n| 0x91 ^ (n as u8 * 5)));
        let inbox = InboxId::new(&[7; 32], &name);
        // Who has the file and guesses a name finds it by no hash that he can work out.
        let guess = blake3::hash(&name.0);
        let guess = &guess.as_bytes()[..16];
        let mut packet = frame(1);
        let bytes = packet.packet.as_mut_bytes();
        (0..).zip(bytes.iter_mut()).for_each(|(n, byte)| *byte = (n * n / 7 % 251) as u8);
        let content = packet.packet.as_bytes();

        let store = |file: &mut Store| {
            let orders = (0..3).map(|_| Order::Store(inbox, packet.clone())).collect();
            file.write(orders).unwrap();
        };
        // Some have come and gone, and others have come.
        let fetch = |file: &mut Store| {
            store(file);
            assert_eq!(file.write(vec![Order::Fetch(inbox, 2)]).unwrap().len(), 1);
            file.write(vec![Order::Discard(inbox, 1)]).unwrap();
            store(file);
        };
        for act in [&store as &dyn Fn(&mut Store), &fetch] {
            for secret in [&name.0[..], guess, &content[..64]] {
                assert_eq!(traces(secret, act), 0, "{secret:02x?}");
            }
        }
        // The search finds what a careless store leaves.
        for secret in [&name.0[..], guess, &content[..64]] {
            let careless = |file: &mut Store| {
                let transaction = file.database.as_ref().unwrap().begin_write().unwrap();
                let mut packets = transaction.open_table(PACKETS).unwrap();
                packets.insert(secret, [].as_slice()).unwrap();
                drop(packets);
                transaction.commit().unwrap();
            };
            assert_eq!(traces(secret, careless), secret.len() - 7);
        }
    }
}
