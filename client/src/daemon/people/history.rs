//! The messages of a member, in their conversations. What they say lies on the disk alone; in memory is in which order they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shoal_people::{Change, Key, MessageName, State};
use shoal_topology::Identity;
use shoal_topology::encoding::{decode, encode};
use zeroize::{Zeroize as _, Zeroizing};

use super::buckets::{Bucket, BucketId};
use super::store::{Place, Store, StoreChanges, StoreError};

const DAY_S: u64 = 86_400;
/// Most bytes of a message with what is known of it.
const LONGEST: usize = 1 << 20;
/// Most messages that a search finds.
const FOUND: usize = 100;

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Content {
    /// A text for people.
    Text(String),
    /// Something of a kind that a later version knows.
    Unknown(u8),
}

impl Drop for Content {
    fn drop(&mut self) {
        if let Self::Text(text) = self {
            text.zeroize();
        }
    }
}

/// A change of a message by its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Edit {
    /// The message that brought it.
    pub(super) by: MessageName,
    /// When it was written, by its writer's clock, Unix seconds.
    pub(super) sent_at: u64,
}

impl Edit {
    /// True if it was written after another one of the same message.
    fn is_later(&self, than: &Self) -> bool {
        match self.by.stream == than.by.stream {
            true => self.by.sequence > than.by.sequence,
            false => self.sent_at >= than.sent_at,
        }
    }
}

/// A message, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct MessageRecord {
    /// The name by which both ends know it.
    pub(super) name: MessageName,
    /// Whom the conversation is with.
    pub(super) person: u32,
    /// It was written here.
    pub(super) is_own: bool,
    /// When it was written, by its writer's clock, Unix seconds.
    pub(super) sent_at: u64,
    /// When it came, Unix seconds; 0 for own ones.
    pub(super) came_at: u64,
    /// What it says.
    pub(super) content: Content,
    /// Where it stands, of own ones.
    pub(super) state: Option<State>,
    /// It counts as read.
    pub(super) is_read: bool,
    /// The last change of it by its writer.
    pub(super) edit: Option<Edit>,
    /// For how long it is kept after it was read, seconds; 0 for ever.
    pub(super) expires_s: u32,
    /// When it is erased, Unix seconds; 0 if that is not known.
    pub(super) expires_at: u64,
}

impl MessageRecord {
    /// When it was written: nobody's clock puts a message behind those that come later.
    fn at(&self) -> u64 {
        if self.is_own { self.sent_at } else { self.sent_at.min(self.came_at) }
    }

    /// Its writer wrote another text, unless a later one is here.
    pub(super) fn edited(&mut self, edit: Edit, text: &str) {
        if self.edit.is_none_or(|last| edit.is_later(&last)) {
            (self.content, self.edit) = (Content::Text(text.into()), Some(edit));
        }
    }

    /// Which messages share its key.
    fn bucket(&self) -> Bucket {
        if self.expires_s > 0 {
            Bucket::Single
        } else {
            Bucket::Day(self.person, self.at() / DAY_S)
        }
    }
}

/// What there is of one person's messages.
pub(super) struct Conversation {
    /// Whom it is with.
    pub(super) person: u32,
    /// How many of his messages are unread.
    pub(super) unread: usize,
    /// The last message with its number, unless its key is gone.
    pub(super) last: Option<(u64, MessageRecord)>,
}

/// What is kept in memory of a message.
#[derive(Clone, Copy)]
struct IndexEntry {
    bucket: BucketId,
    person: u32,
    at: u64,
    name: MessageName,
    /// Its place among what another one wrote in one second; own ones have their numbers.
    rank: u32,
    is_unread: bool,
    expires_at: u64,
}

impl IndexEntry {
    fn new(bucket: BucketId, record: &MessageRecord) -> Self {
        let is_unread = !record.is_own && !record.is_read;
        let (person, at, name) = (record.person, record.at(), record.name);
        let rank = if record.is_own { 0 } else { name.sequence };
        Self { bucket, person, at, name, rank, is_unread, expires_at: record.expires_at }
    }

    /// The order of this message, which has this number.
    fn position(&self, number: u64) -> Position {
        (self.at, self.rank, number)
    }
}

/// Where a message stands among those of its conversation: when it was written, its place among what its writer wrote in one second,
/// its number.
type Position = (u64, u32, u64);

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
    entries: BTreeMap<u64, Option<IndexEntry>>,
    about: HistoryState,
}

/// All messages of a member, with the file that they lie in.
pub(super) struct History {
    store: Store,
    about: HistoryState,
    entries: BTreeMap<u64, IndexEntry>,
    names: BTreeMap<MessageName, u64>,
    /// Of each person, the messages in their order.
    people: BTreeMap<u32, BTreeSet<Position>>,
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
        let (entries, names, people) = Default::default();
        let mut read = Vec::new();
        store.each(|place, plain| {
            let record = plain.and_then(|plain| record(&plain));
            read.push((place.0, record.map(|record| IndexEntry::new(place.1, &record))));
        })?;
        about.next = about.next.max(read.last().map_or(1, |(number, _)| number + 1));
        let mut history = Self { store, about, entries, names, people };
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
            if let Some(of) = self.people.get_mut(&before.person) {
                of.remove(&before.position(number));
            }
        }
        if let Some(entry) = entry {
            self.entries.insert(number, entry);
            self.names.insert(entry.name, number);
            self.people.entry(entry.person).or_default().insert(entry.position(number));
        }
    }

    /// Changes that begin with those of the engine.
    pub(super) fn begin(&self, pieces: Vec<(Key, Option<Change>)>) -> Changes {
        let batch = StoreChanges { pieces, ..StoreChanges::default() };
        Changes { batch, entries: BTreeMap::new(), about: self.about.clone() }
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
        put(to, (number, bucket), record);
        Ok(number)
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
        let Some(entry) = self.entries.get(&number) else { return Ok(()) };
        let Some(mut record) = self.read(number)? else { return Ok(()) };
        change(&mut record);
        put(changes, (number, entry.bucket), &record);
        Ok(())
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn commit(&mut self, changes: Changes) -> Result<(), StoreError> {
        let Changes { mut batch, entries, about } = changes;
        batch.about = Some(encode(&about));
        self.store.write(batch)?;
        self.about = about;
        entries.into_iter().for_each(|(number, entry)| self.index(number, entry));
        Ok(())
    }

    /// A message.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, number: u64) -> Result<Option<MessageRecord>, StoreError> {
        let plain = self.store.read(number)?;
        Ok(plain.and_then(|plain| record(&plain)))
    }

    /// The number of the message of this name.
    pub(super) fn number(&self, name: &MessageName) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// Whom the message of this number is with.
    pub(super) fn person(&self, number: u64) -> Option<u32> {
        self.entries.get(&number).map(|entry| entry.person)
    }

    /// Messages of a conversation, the earliest first: the last ones, or those before a message.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn messages(
        &self,
        person: u32,
        before: Option<u64>,
        last: usize,
    ) -> Result<Vec<(u64, MessageRecord)>, StoreError> {
        let Some(all) = self.people.get(&person) else { return Ok(Vec::new()) };
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

    /// Everybody with whom there are messages, the one with the latest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn conversations(&self) -> Result<Vec<Conversation>, StoreError> {
        let last = |all: &BTreeSet<Position>| all.last().copied();
        let people = self.people.iter().filter_map(|(person, all)| Some((last(all)?, *person)));
        let mut people: Vec<(Position, u32)> = people.collect();
        people.sort_unstable_by_key(|(last, _)| std::cmp::Reverse(*last));
        let conversation = |((.., number), person): (Position, u32)| {
            let record = self.read(number)?;
            let last = record.map(|record| (number, record));
            Ok(Conversation { person, unread: self.unread(person), last })
        };
        people.into_iter().map(conversation).collect()
    }

    /// How many messages of a person are unread.
    pub(super) fn unread(&self, person: u32) -> usize {
        let all = self.people.get(&person).into_iter().flatten();
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
        Ok(records.into_iter().filter(|(_, record)| !record.is_own).collect())
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

    /// What came of a person up to this number counts as read. Which did not before.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn set_read(
        &mut self,
        person: u32,
        up_to: u64,
        now_s: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let all = self.people.get(&person).into_iter().flatten().map(|(.., number)| *number);
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

    /// Messages whose time is over.
    pub(super) fn expired(&self, now_s: u64) -> Vec<u64> {
        let is_over = |entry: &IndexEntry| entry.expires_at > 0 && entry.expires_at <= now_s;
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
            let records = self.read_all(stays)?;
            let Some(next) = self.store.buckets.renew(*bucket)? else { continue };
            records.iter().for_each(|(number, record)| put(&mut changes, (*number, next), record));
        }
        changes.batch.gone.extend(numbers);
        changes.entries.extend(numbers.iter().map(|number| (*number, None)));
        self.commit(changes)?;
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

fn put(changes: &mut Changes, place: Place, record: &MessageRecord) {
    changes.batch.messages.push((place, Zeroizing::new(encode(record))));
    changes.entries.insert(place.0, Some(IndexEntry::new(place.1, record)));
}

fn record(plain: &[u8]) -> Option<MessageRecord> {
    decode("message", plain, LONGEST).ok()
}

#[cfg(test)]
mod tests;
