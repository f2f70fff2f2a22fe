//! The messages of a member, in their conversations. What they say lies on the disk alone; in memory is in which order they stand.

mod changing;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shoal_people::{Change, Conversation, Key, MessageName};
use shoal_topology::Identity;
use shoal_topology::encoding::{decode, encode, encode_secret};
use zeroize::Zeroizing;

use super::buckets::BucketId;
use super::store::{Store, StoreChanges, StoreError};

pub(super) use record::{Content, Edit, MessageRecord};
use record::{DAY_S, EntryKind, IndexEntry, Position};

/// Most bytes of a message with what is known of it.
const LONGEST: usize = 1 << 20;
/// Most messages that a search finds.
const FOUND: usize = 100;
/// For so long a change waits for its message, seconds: as long as its writer sends it, and a day.
const CHANGE_LIFE_S: u64 = 15 * DAY_S;
/// Most changes of one person's that wait.
const CHANGES: usize = 256;

/// What there is of a conversation.
pub(super) struct Overview {
    /// Which one it is.
    pub(super) of: Conversation,
    /// How many messages of others are unread.
    pub(super) unread: usize,
    /// The last message with its number, unless its key is gone.
    pub(super) last: Option<(u64, MessageRecord)>,
}

/// What is kept once.
#[derive(Clone, Default, Serialize, Deserialize)]
struct HistoryState {
    /// Whose members these are.
    organisation: Option<Identity>,
    /// The number of the next message: each is given once.
    next: u64,
    /// Programs have taken what came, up to this number.
    taken: u64,
    /// The people whose digits were compared.
    verified: BTreeSet<u32>,
}

/// What is about to be written in one piece.
pub(super) struct Changes {
    batch: StoreChanges,
    /// Messages as they are to be, with their keys.
    records: BTreeMap<u64, (BucketId, MessageRecord)>,
    /// Messages that go.
    gone: BTreeSet<u64>,
    about: HistoryState,
}

/// All messages of a member, with the file that they lie in.
pub(super) struct History {
    store: Store,
    about: HistoryState,
    entries: BTreeMap<u64, IndexEntry>,
    names: BTreeMap<MessageName, u64>,
    /// Of each conversation, the messages in their order.
    conversations: BTreeMap<Conversation, BTreeSet<Position>>,
    /// By the messages that have not come, the changes of them.
    waiting: BTreeMap<MessageName, BTreeSet<u64>>,
    /// Changes that made room for later ones, or whose messages did not come.
    pub(super) displaced: u64,
}

impl History {
    /// Reads what lies in this directory, or begins it.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let store = Store::open(dir)?;
        let about = store.read_about()?;
        let about = about.and_then(|bytes| decode("about messages", &bytes, LONGEST).ok());
        let mut about: HistoryState = about.unwrap_or_default();
        let (entries, names, conversations, waiting) = Default::default();
        let mut read = Vec::new();
        store.each(|place, plain| {
            let record = plain.and_then(|plain| record(&plain));
            read.push((place.0, record.map(|record| IndexEntry::new(place.1, &record))));
        })?;
        about.next = about.next.max(read.last().map_or(1, |(number, _)| number + 1));
        let displaced = 0;
        let mut history = Self { store, about, entries, names, conversations, waiting, displaced };
        // A key goes before what it opened.
        let gone = read.iter().filter(|(_, entry)| entry.is_none()).map(|(number, _)| *number);
        let gone: Vec<u64> = gone.collect();
        if !gone.is_empty() {
            history.store.write(StoreChanges { gone, ..StoreChanges::default() })?;
        }
        for (number, entry) in read {
            history.index(number, entry);
        }
        Ok(history)
    }

    /// What the engine had kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn pieces(&self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        self.store.read_pieces()
    }

    /// Whose members these messages are of; none before there was one.
    pub(super) fn organisation(&self) -> Option<Identity> {
        self.about.organisation
    }

    /// From now on they are of this organisation's members.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn set_organisation(&mut self, organisation: Identity) -> Result<(), StoreError> {
        let mut changes = self.begin(Vec::new());
        changes.about.organisation = Some(organisation);
        self.commit(changes)
    }

    fn index(&mut self, number: u64, entry: Option<IndexEntry>) {
        if let Some(before) = self.entries.remove(&number) {
            self.names.remove(&before.name);
            if let Some(of) = self.conversations.get_mut(&before.conversation) {
                of.remove(&before.position(number));
            }
            if let EntryKind::Change(of) = before.kind
                && let Some(changes) = self.waiting.get_mut(&of)
            {
                changes.remove(&number);
                if changes.is_empty() {
                    self.waiting.remove(&of);
                }
            }
        }
        let Some(entry) = entry else { return };
        self.entries.insert(number, entry);
        match entry.kind {
            EntryKind::Message => {
                self.names.insert(entry.name, number);
                let of = self.conversations.entry(entry.conversation).or_default();
                of.insert(entry.position(number));
            }
            EntryKind::Change(of) => {
                // Its own name is known, so that it comes once.
                self.names.insert(entry.name, number);
                self.waiting.entry(of).or_default().insert(number);
            }
            EntryKind::TakenBack => {}
        }
    }

    /// Changes that begin with those of the engine.
    pub(super) fn begin(&self, pieces: Vec<(Key, Option<Change>)>) -> Changes {
        let batch = StoreChanges { pieces, ..StoreChanges::default() };
        let (records, gone) = Default::default();
        Changes { batch, records, gone, about: self.about.clone() }
    }

    /// Adds a message. Its number.
    ///
    /// # Errors
    /// Its key cannot be written.
    pub(super) fn add(
        &mut self,
        to: &mut Changes,
        record: &MessageRecord,
    ) -> Result<u64, StoreError> {
        let number = to.about.next;
        let bucket = self.store.buckets.for_message(record.bucket())?;
        to.about.next += 1;
        to.records.insert(number, (bucket, record.clone()));
        Ok(number)
    }

    /// A message as these changes leave it, or as it is.
    ///
    /// # Errors
    /// It cannot be read.
    fn seen(
        &self,
        changes: &Changes,
        number: u64,
    ) -> Result<Option<(BucketId, MessageRecord)>, StoreError> {
        if let Some(changed) = changes.records.get(&number) {
            return Ok(Some(changed.clone()));
        }
        let Some(entry) = self.entries.get(&number) else { return Ok(None) };
        Ok(self.read_entry(number)?.map(|record| (entry.bucket, record)))
    }

    /// The number of the message of this name, also if it is new by these changes.
    pub(super) fn number_in(&self, changes: &Changes, name: &MessageName) -> Option<u64> {
        let mut new = changes.records.iter().filter(|(_, (_, record))| record.name == *name);
        new.next().map(|(number, _)| *number).or_else(|| self.number(name))
    }

    /// Changes a message that is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn change(
        &self,
        changes: &mut Changes,
        number: u64,
        change: impl FnOnce(&mut MessageRecord),
    ) -> Result<(), StoreError> {
        let Some((bucket, mut record)) = self.seen(changes, number)? else { return Ok(()) };
        change(&mut record);
        changes.records.insert(number, (bucket, record));
        Ok(())
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn commit(&mut self, changes: Changes) -> Result<(), StoreError> {
        let Changes { mut batch, mut records, gone, about } = changes;
        records.retain(|number, _| !gone.contains(number));
        let sealed = records
            .iter()
            .map(|(number, (bucket, record))| ((*number, *bucket), encode_secret(record)));
        batch.messages.extend(sealed);
        batch.gone.extend(&gone);
        batch.about = Some(encode(&about));
        self.store.write(batch)?;
        self.about = about;
        gone.into_iter().for_each(|number| self.index(number, None));
        for (number, (bucket, record)) in records {
            self.index(number, Some(IndexEntry::new(bucket, &record)));
        }
        Ok(())
    }

    /// A message.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, number: u64) -> Result<Option<MessageRecord>, StoreError> {
        let kind = self.entries.get(&number).map(|entry| entry.kind);
        if kind == Some(EntryKind::Message) { self.read_entry(number) } else { Ok(None) }
    }

    fn read_entry(&self, number: u64) -> Result<Option<MessageRecord>, StoreError> {
        let plain = self.store.read(number)?;
        Ok(plain.and_then(|plain| record(&plain)))
    }

    /// The number of the message of this name.
    pub(super) fn number(&self, name: &MessageName) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// Which conversation the message of this number is of.
    pub(super) fn conversation(&self, number: u64) -> Option<Conversation> {
        self.entries.get(&number).map(|entry| entry.conversation)
    }

    /// Messages of a conversation, the earliest first: the last ones, or those before a message.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn messages(
        &self,
        of: Conversation,
        before: Option<u64>,
        last: usize,
    ) -> Result<Vec<(u64, MessageRecord)>, StoreError> {
        let Some(all) = self.conversations.get(&of) else { return Ok(Vec::new()) };
        let place = |number: u64| self.entries.get(&number).map(|entry| entry.position(number));
        let until = before.and_then(place).map_or(Bound::Unbounded, Bound::Excluded);
        let mut numbers: Vec<u64> = all
            .range((Bound::Unbounded, until))
            .rev()
            .take(last)
            .map(|(.., number)| *number)
            .collect();
        numbers.reverse();
        self.read_all(numbers)
    }

    fn read_all(
        &self,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Result<Vec<(u64, MessageRecord)>, StoreError> {
        let read = |number| Ok(self.read(number)?.map(|record| (number, record)));
        numbers.into_iter().map(read).filter_map(Result::transpose).collect()
    }

    /// The conversations, the one with the latest message first.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn conversations(&self) -> Result<Vec<Overview>, StoreError> {
        let last = |all: &BTreeSet<Position>| all.last().copied();
        let all = self.conversations.iter().filter_map(|(of, all)| Some((last(all)?, *of)));
        let mut all: Vec<(Position, Conversation)> = all.collect();
        all.sort_unstable_by_key(|(last, _)| std::cmp::Reverse(*last));
        let overview = |((.., number), of): (Position, Conversation)| {
            let record = self.read(number)?;
            let last = record.map(|record| (number, record));
            Ok(Overview { of, unread: self.unread(of), last })
        };
        all.into_iter().map(overview).collect()
    }

    /// How many messages of a conversation are unread.
    pub(super) fn unread(&self, of: Conversation) -> usize {
        let all = self.conversations.get(&of).into_iter().flatten();
        let is_unread = |(.., number): &&Position| {
            self.entries.get(number).is_some_and(|entry| entry.is_unread)
        };
        all.filter(is_unread).count()
    }

    /// What came and was not taken by a program, in the order in which it came.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn untaken(&self) -> Result<Vec<(u64, MessageRecord)>, StoreError> {
        let later = self.entries.range((Bound::Excluded(self.about.taken), Bound::Unbounded));
        let records = self.read_all(later.map(|(number, _)| *number))?;
        let came = |(_, record): &(u64, MessageRecord)| !record.is_own && !record.is_notice();
        Ok(records.into_iter().filter(came).collect())
    }

    /// Programs have taken what came, up to this number.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn taken(&mut self, up_to: u64) -> Result<(), StoreError> {
        let mut changes = self.begin(Vec::new());
        changes.about.taken = changes.about.taken.max(up_to.min(changes.about.next));
        self.commit(changes)
    }

    /// What came of a conversation up to this number counts as read. Which did not before.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn set_read(
        &mut self,
        of: Conversation,
        up_to: u64,
        now_s: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let all = self.conversations.get(&of).into_iter().flatten().map(|(.., number)| *number);
        let is_unread = |number: &u64| {
            *number <= up_to && self.entries.get(number).is_some_and(|entry| entry.is_unread)
        };
        let unread: Vec<u64> = all.filter(is_unread).collect();
        let mut changes = self.begin(Vec::new());
        for number in &unread {
            self.change(&mut changes, *number, |record| {
                record.is_read = true;
                if record.expires_s > 0 {
                    record.expires_at = now_s.saturating_add(record.expires_s.into());
                }
            })?;
        }
        if !unread.is_empty() {
            self.commit(changes)?;
        }
        Ok(unread)
    }

    /// What is to be erased: messages whose time is over or that were taken back, and changes of what will not come any more.
    pub(super) fn over(&self, now_s: u64) -> Vec<u64> {
        let is_over = |entry: &IndexEntry| match entry.kind {
            EntryKind::Message => entry.expires_at > 0 && entry.expires_at <= now_s,
            EntryKind::Change(_) => entry.at.saturating_add(CHANGE_LIFE_S) <= now_s,
            EntryKind::TakenBack => true,
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(entry));
        over.map(|(number, _)| *number).collect()
    }

    /// Messages go, and so do the keys that opened them: what shares a key with them is encrypted anew under another.
    ///
    /// # Errors
    /// They cannot be erased.
    pub(super) fn erase(&mut self, numbers: &[u64]) -> Result<(), StoreError> {
        let mut changes = self.begin(Vec::new());
        let buckets: BTreeSet<BucketId> =
            numbers.iter().filter_map(|number| Some(self.entries.get(number)?.bucket)).collect();
        for bucket in &buckets {
            let stays: Vec<u64> = self
                .entries
                .iter()
                .filter(|(number, entry)| entry.bucket == *bucket && !numbers.contains(number))
                .map(|(number, _)| *number)
                .collect();
            if stays.is_empty() {
                continue;
            }
            let mut records = Vec::new();
            for number in stays {
                records.extend(self.read_entry(number)?.map(|record| (number, record)));
            }
            let Some(next) = self.store.buckets.renew(*bucket)? else { continue };
            let records = records.into_iter().map(|(number, record)| (number, (next, record)));
            changes.records.extend(records);
        }
        let is_change = |number: &&u64| {
            let kind = self.entries.get(number).map(|entry| entry.kind);
            matches!(kind, Some(EntryKind::Change(_)))
        };
        let displaced = numbers.iter().filter(is_change).count() as u64;
        changes.gone.extend(numbers);
        self.commit(changes)?;
        self.displaced += displaced;
        Ok(self.store.buckets.erase(&Vec::from_iter(buckets))?)
    }

    /// Messages whose text has this one in it, in capitals or not, the latest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn search(&self, text: &str) -> Result<Vec<(u64, MessageRecord)>, StoreError> {
        let wanted = text.to_lowercase();
        let mut found = BTreeSet::new();
        self.store.each(|(number, _), plain| {
            let Some(record) = plain.and_then(|plain| record(&plain)) else { return };
            if let Content::Text(text) = &record.content
                && Zeroizing::new(text.to_lowercase()).contains(&wanted)
            {
                found.insert((record.at(), number));
                if found.len() > FOUND {
                    found.pop_first();
                }
            }
        })?;
        self.read_all(found.into_iter().rev().map(|(_, number)| number))
    }

    /// Whether somebody's digits were compared.
    pub(super) fn is_verified(&self, person: u32) -> bool {
        self.about.verified.contains(&person)
    }

    /// Somebody's digits were compared, or are to be compared anew.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn verify(&mut self, person: u32, is_same: bool) -> Result<(), StoreError> {
        let mut changes = self.begin(Vec::new());
        let verified = &mut changes.about.verified;
        let _ = if is_same { verified.insert(person) } else { verified.remove(&person) };
        self.commit(changes)
    }
}

fn record(plain: &[u8]) -> Option<MessageRecord> {
    decode("message", plain, LONGEST).ok()
}

#[cfg(test)]
mod tests;
