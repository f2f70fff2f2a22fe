//! A message as it is kept, and what is kept in memory of it.

use serde::{Deserialize, Serialize};
use shoal_people::{Conversation, GroupAct, MessageName, State};
use zeroize::Zeroize as _;

use super::super::buckets::{Bucket, BucketId};

pub(super) const DAY_S: u64 = 86_400;

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in super::super) enum Content {
    /// A text for people.
    Text(String),
    /// Something of a kind that a later version knows.
    Unknown(u8),
    /// No message: a change of one that has not come, which gives it another text or takes it back.
    Change(MessageName, Option<String>),
    /// It was taken back, and is about to be erased.
    TakenBack,
    /// What somebody did to the group.
    Done(GroupAct),
}

impl Drop for Content {
    fn drop(&mut self) {
        if let Self::Text(text) | Self::Change(_, Some(text)) = self {
            text.zeroize();
        }
    }
}

/// A change of a message by its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in super::super) struct Edit {
    /// The message that brought it.
    pub(in super::super) by: MessageName,
    /// When it was written, by its writer's clock, Unix seconds.
    pub(in super::super) sent_at: u64,
}

impl Edit {
    /// True if it was written after another one of the same message: each has a later second than those before it.
    fn is_later(&self, than: &Self) -> bool {
        (self.sent_at, self.by) > (than.sent_at, than.by)
    }
}

/// A message, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in super::super) struct MessageRecord {
    /// The name by which both ends know it.
    pub(in super::super) name: MessageName,
    /// Which conversation it is of.
    pub(in super::super) conversation: Conversation,
    /// Who wrote it; between two people the other one.
    pub(in super::super) person: u32,
    /// It was written here.
    pub(in super::super) is_own: bool,
    /// When it was written, by its writer's clock, Unix seconds.
    pub(in super::super) sent_at: u64,
    /// When it came, Unix seconds; 0 for own ones.
    pub(in super::super) came_at: u64,
    /// What it says.
    pub(in super::super) content: Content,
    /// Where it stands, of own ones.
    pub(in super::super) state: Option<State>,
    /// It counts as read.
    pub(in super::super) is_read: bool,
    /// The last change of it by its writer.
    pub(in super::super) edit: Option<Edit>,
    /// For how long it is kept after it was read, seconds; 0 for ever.
    pub(in super::super) expires_s: u32,
    /// When it is erased, Unix seconds; 0 if that is not known.
    pub(in super::super) expires_at: u64,
}

impl MessageRecord {
    /// When it was written: nobody's clock puts a message behind those that come later.
    pub(super) fn at(&self) -> u64 {
        if self.is_own { self.sent_at } else { self.sent_at.min(self.came_at) }
    }

    /// Its writer wrote another text, unless a later one is here.
    pub(in super::super) fn edited(&mut self, edit: Edit, text: &str) {
        let has_text = matches!(self.content, Content::Text(_));
        if has_text && self.edit.is_none_or(|last| edit.is_later(&last)) {
            (self.content, self.edit) = (Content::Text(text.into()), Some(edit));
        }
    }

    /// True if nobody wrote it: it says what was done to a group.
    pub(in super::super) fn is_notice(&self) -> bool {
        matches!(self.content, Content::Done(_))
    }

    /// Which messages share its key.
    pub(super) fn bucket(&self) -> Bucket {
        if self.expires_s > 0 || matches!(self.content, Content::Change(..)) {
            Bucket::Single
        } else {
            Bucket::Day(self.conversation, self.at() / DAY_S)
        }
    }
}

/// What is kept in memory of a message.
#[derive(Clone, Copy)]
pub(super) struct IndexEntry {
    pub(super) bucket: BucketId,
    pub(super) conversation: Conversation,
    /// Who wrote it; between two people the other one.
    pub(super) person: u32,
    pub(super) at: u64,
    pub(super) name: MessageName,
    /// Its place among what another one wrote in one second; own ones have their numbers.
    rank: u32,
    pub(super) is_unread: bool,
    pub(super) expires_at: u64,
    pub(super) kind: EntryKind,
}

/// What an entry is to those who read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// Somebody wrote it, and it is shown.
    Message,
    /// A change of this message, which has not come.
    Change(MessageName),
    /// Nothing any more.
    TakenBack,
}

impl IndexEntry {
    pub(super) fn new(bucket: BucketId, record: &MessageRecord) -> Self {
        let kind = match &record.content {
            Content::Change(of, _) => EntryKind::Change(*of),
            Content::TakenBack => EntryKind::TakenBack,
            Content::Text(_) | Content::Unknown(_) | Content::Done(_) => EntryKind::Message,
        };
        let is_unread = !record.is_own && !record.is_read && kind == EntryKind::Message;
        let (person, at, name) = (record.person, record.at(), record.name);
        let rank = if record.is_own { 0 } else { name.sequence };
        let (conversation, expires_at) = (record.conversation, record.expires_at);
        Self { bucket, conversation, person, at, name, rank, is_unread, expires_at, kind }
    }

    /// The order of this message, which has this number.
    pub(super) fn position(&self, number: u64) -> Position {
        (self.at, self.rank, number)
    }
}

/// Where a message stands among those of its conversation: when it was written, its place among what its writer wrote in one second,
/// its number.
pub(super) type Position = (u64, u32, u64);
