//! Groups of people: what their admins did, and what follows from it.
//!
//! A group is a log of signed entries, each of which names the one before it by its hash. Every device of a member holds it whole.
//! Two admins who act at once make two successors of one entry; which of them counts is a function of the entries and of the
//! directory alone ([`GroupLog::head`]), so all who hold the same entries agree, in whatever order they came.

mod log;
mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::encode;
use shoal_topology::{Context, Identity, SecretIdentity, Signature};

pub use log::{GroupLog, Inserted, NotAllowed};

use crate::Roster;

/// Most people of a group.
pub const MAX_GROUP: usize = 250;
/// Most entries of a group's log: whoever needs more founds another group.
pub const MAX_ENTRIES: usize = 1_024;
/// Most bytes of a group's name.
pub const MAX_GROUP_NAME: usize = 100;

/// By which all know a group: the beginning of the hash of its first entry, so that nobody gives a group another beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GroupId(pub [u8; 16]);

/// BLAKE3 of an encoded entry with its signature.
pub(crate) type EntryHash = [u8; 32];

/// Where a message of a group stands in the group's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupMark {
    /// Which group it is.
    pub group: GroupId,
    /// The last entry of its log that the writer knows.
    pub number: u32,
    /// The beginning of that entry's hash.
    pub hash: [u8; 8],
}

impl GroupMark {
    pub(crate) fn new(group: GroupId, number: u32, hash: &EntryHash) -> Self {
        Self { group, number, hash: *hash.first_chunk().unwrap_or(&[0; 8]) }
    }

    /// In place of the mark of what is written to a group: what the frame carries is about the log itself.
    pub(crate) fn of_log(group: GroupId) -> Self {
        Self { group, number: 0, hash: [0; 8] }
    }

    pub(crate) fn is_of_log(&self) -> bool {
        *self == Self::of_log(self.group)
    }

    /// True if it names this entry.
    pub(crate) fn names(&self, number: u32, hash: &EntryHash) -> bool {
        self.number == number && hash.starts_with(&self.hash)
    }
}

/// What one person of a group did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its place in the log, counted from 0.
    pub number: u32,
    /// The hash of the entry before it; zeros for the first one.
    pub previous: [u8; 32],
    /// When it was made, Unix seconds, by the word of its author.
    pub at: u64,
    /// The number of the device that signs it.
    pub author: u32,
    /// What was done.
    pub act: GroupAct,
}

/// What can be done to a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GroupAct {
    /// It begins, with the author as its owner. Nothing but the first entry does this.
    Create {
        /// Drawn, so that no two groups are the same.
        nonce: [u8; 16],
        /// What it is called.
        name: String,
        /// Who belongs to it beside the author.
        people: Vec<u32>,
    },
    /// These people belong to it from now on.
    Add(Vec<u32>),
    /// They belong to it no more. Everybody may remove himself.
    Remove(Vec<u32>),
    /// A person has another role.
    Appoint(u32, GroupRole),
    /// It is called otherwise.
    Rename(String),
    /// What is written to it is kept for so many seconds after it was read; 0 for ever.
    Expire(u32),
    /// Nothing: its author, whoever belongs to the group, stands for what was done by devices that have been removed since.
    Affirm,
}

/// What a person may do in a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum GroupRole {
    /// What an admin may, and to admins too.
    Owner,
    /// Adds people, removes members, names the group.
    Admin,
    /// Reads and writes.
    Member,
}

/// An entry with its author's signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedEntry {
    /// What is signed.
    pub entry: GroupEntry,
    signature: Signature,
}

impl SignedEntry {
    /// Signs an entry with the key of the device that it names.
    pub fn new(organisation: &Identity, entry: GroupEntry, secret: &SecretIdentity) -> Self {
        let signature = secret.sign(Context::Group, &signed(organisation, &entry));
        Self { entry, signature }
    }

    /// True if this key signed it.
    pub(crate) fn is_by(&self, key: &Identity, organisation: &Identity) -> bool {
        key.verify(Context::Group, &signed(organisation, &self.entry), &self.signature)
    }

    /// By which its successors know it.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&encode(self)).as_bytes()
    }

    /// The group that begins with it.
    pub(crate) fn group(&self) -> GroupId {
        beginning(&self.hash())
    }
}

/// The group whose first entry has this hash.
fn beginning(hash: &EntryHash) -> GroupId {
    GroupId(*hash.first_chunk().unwrap_or(&[0; 16]))
}

/// What a signature of an entry is over.
fn signed(organisation: &Identity, entry: &GroupEntry) -> Vec<u8> {
    [organisation.as_bytes().as_slice(), &encode(entry)].concat()
}

/// A group as it is after an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupState {
    /// The entry after which it is so.
    pub mark: GroupMark,
    /// What it is called.
    pub name: String,
    /// For how long what is written to it is kept after it was read, seconds; 0 for ever.
    pub expires_s: u32,
    /// Who belongs to it, those who joined earlier first. Some may have left the organisation.
    pub people: Vec<GroupPerson>,
    /// When each of those who belong to it no more was removed last, Unix seconds.
    pub removed: BTreeMap<u32, u64>,
}

/// A person of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupPerson {
    /// The number in the directory.
    pub person: u32,
    /// What he may do.
    pub role: GroupRole,
}

/// What the log asks of the directory.
impl Roster {
    /// Whose device this is or was, its key, and whether it is listed.
    pub(crate) fn author(&self, device: u32) -> Option<(u32, Identity, bool)> {
        let listed = self.devices.get(&device).map(|listed| (listed.person, listed.key, true));
        let removed = || self.removed.get(&device).map(|(person, key)| (*person, *key, false));
        listed.or_else(removed)
    }
}

#[cfg(test)]
mod tests;
