//! The log: which entries there are, and which of them count.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Entries that wait for the one before them, or for a longer directory.
const PENDING: usize = 64;

/// What became of entries that were handed in, or of a directory that changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inserted {
    /// How many are new, and hold.
    pub new: usize,
    /// The entries that count now and did not before, in their order.
    pub done: Vec<SignedEntry>,
    /// Those that counted before and do not now.
    pub undone: Vec<SignedEntry>,
}

/// Why somebody may not do something to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAllowed {
    /// Whoever does not belong to it changes nothing.
    #[error("you do not belong to this group")]
    NoMember,
    /// It takes an admin.
    #[error("only an admin of the group may do this")]
    NoAdmin,
    /// It takes somebody who is above this person.
    #[error(
        "this person is an admin as well, for as long as you or longer: only an owner may do this"
    )]
    Above(u32),
    /// No such person belongs to the organisation.
    #[error("the organisation has nobody of the number {0}")]
    Unknown(u32),
    /// The person belongs to it already.
    #[error("this person belongs to the group already")]
    There(u32),
    /// The person does not belong to it.
    #[error("this person does not belong to the group")]
    NotThere(u32),
    /// It is so already.
    #[error("it is so already")]
    Same,
    /// It cannot be shown as a name.
    #[error("a group's name has 1 to {MAX_GROUP_NAME} bytes, and no control characters")]
    Name,
    /// No room for more people.
    #[error("a group has at most {MAX_GROUP} people")]
    Full,
    /// No room for more entries.
    #[error(
        "the log of this group has {MAX_ENTRIES} entries, which is the most: found another one with the same people"
    )]
    TooLong,
    /// Nothing that is done to a group that is there.
    #[error("this is no act on a group")]
    Malformed,
}

/// All that was done to a group, as far as it is known here.
///
/// Entries are handed in ([`Self::insert`]) in any order and as often as one likes. [`Self::head`] says what holds.
#[derive(Clone, Debug)]
pub struct GroupLog {
    organisation: Identity,
    root: EntryHash,
    entries: BTreeMap<EntryHash, KnownEntry>,
    pending: Vec<SignedEntry>,
    /// As it was when it was computed last.
    head: GroupState,
    /// The entries up to the head, the first one first.
    chain: Vec<EntryHash>,
}

#[derive(Clone, Debug)]
struct KnownEntry {
    signed: SignedEntry,
    /// Whose device signed it.
    person: u32,
    next: Vec<EntryHash>,
}

/// By which one of several successors counts: the lowest.
type Weight = (u8, (GroupRole, usize), Reverse<u32>, EntryHash);

impl GroupLog {
    /// A log that begins with this entry; none if the entry does not hold.
    pub fn new(first: SignedEntry, roster: &Roster) -> Option<Self> {
        let (person, key, _) = roster.author(first.entry.author)?;
        let root = first.hash();
        let head = GroupState::begin(&first.entry, &root, person)?;
        if !first.is_by(&key, &roster.organisation) {
            return None;
        }
        let known = KnownEntry { signed: first, person, next: Vec::new() };
        let entries = BTreeMap::from([(root, known)]);
        let organisation = roster.organisation;
        Some(Self { organisation, root, entries, pending: Vec::new(), head, chain: vec![root] })
    }

    /// Which group it is of.
    pub fn id(&self) -> GroupId {
        beginning(&self.root)
    }

    /// What holds: the first entry, and of several successors of an entry always the one in whose line the person acts who has most
    /// to say in the group as it was before them; devices that were removed from the directory have the least. Where it is the same
    /// person in both, the one in whose line he acted at the higher number; then the smaller hash.
    pub fn head(&self) -> &GroupState {
        &self.head
    }

    /// The entries that hold, the first one first.
    pub fn chain(&self) -> impl DoubleEndedIterator<Item = &SignedEntry> {
        self.chain.iter().filter_map(|hash| Some(&self.entries.get(hash)?.signed))
    }

    /// Whose act an entry of [`Self::chain`] is.
    pub fn author(&self, entry: &SignedEntry) -> Option<u32> {
        Some(self.entries.get(&entry.hash())?.person)
    }

    /// All entries, each after the one before it: by the first one, and the others, the log can be made again.
    pub fn all(&self) -> Vec<SignedEntry> {
        let mut all: Vec<&KnownEntry> = self.entries.values().collect();
        all.sort_by_key(|known| known.signed.entry.number);
        all.into_iter().map(|known| known.signed.clone()).collect()
    }

    /// The log of entries that held when they came, as [`Self::all`] gave them.
    pub(crate) fn load(all: &[SignedEntry], roster: &Roster) -> Option<Self> {
        let (first, rest) = all.split_first()?;
        let mut log = Self::new(first.clone(), roster)?;
        let mut last = None;
        for signed in rest {
            log.take(signed, roster, &mut last);
        }
        log.settle(roster);
        Some(log)
    }

    /// Takes entries that came. One by a device that was removed from the directory counts only where it was known before, or
    /// where somebody who is listed went on from it, and then for less than what others did.
    pub fn insert(&mut self, entries: Vec<SignedEntry>, roster: &Roster) -> Inserted {
        let mut waiting = std::mem::take(&mut self.pending);
        waiting.extend(entries);
        waiting.sort_by_key(|signed| (signed.entry.number, signed.hash()));
        waiting.dedup();
        waiting.retain(|signed| !self.entries.contains_key(&signed.hash()));
        let mut new = BTreeSet::new();
        let (mut left, mut last) = (Vec::new(), None);
        for signed in waiting {
            match self.take(&signed, roster, &mut last) {
                true => _ = new.insert(signed.hash()),
                false => left.push(signed),
            }
        }
        while let Some(hash) = new.iter().find(|hash| self.is_void(hash, roster)).copied() {
            new.remove(&hash);
            left.extend(self.drop_leaf(&hash));
        }
        left.sort_by_key(|signed| signed.entry.number);
        left.truncate(PENDING);
        self.pending = left;
        Inserted { new: new.len(), ..self.settle(roster) }
    }

    /// True if an entry has come that names one before it which has not.
    pub fn is_behind(&self) -> bool {
        let lacks = |signed: &SignedEntry| !self.entries.contains_key(&signed.entry.previous);
        self.pending.iter().any(lacks)
    }

    /// Takes an entry if it holds. `last` is the state after the entry that was taken before it: entries often come in their order, and
    /// to compute it from the first one on for each would take as many steps as the square of their number.
    fn take(
        &mut self,
        signed: &SignedEntry,
        roster: &Roster,
        last: &mut Option<(EntryHash, GroupState)>,
    ) -> bool {
        let hash = signed.hash();
        let entry = &signed.entry;
        let Some((person, key, _)) = roster.author(entry.author) else { return false };
        if self.entries.contains_key(&hash) {
            return true;
        }
        let before = match last.take() {
            Some((hash, state)) if hash == entry.previous => Some(state),
            _ => self.state_at(&entry.previous),
        };
        let Some(before) = before else { return false };
        let is_next = before.mark.number.checked_add(1) == Some(entry.number);
        let has_room = (entry.number as usize) < MAX_ENTRIES;
        let holds = is_next
            && has_room
            && before.allows(person, &entry.act, roster).is_ok()
            && signed.is_by(&key, &self.organisation);
        if holds {
            let known = KnownEntry { signed: signed.clone(), person, next: Vec::new() };
            self.entries.insert(hash, known);
            if let Some(previous) = self.entries.get_mut(&entry.previous) {
                previous.next.push(hash);
                previous.next.sort_unstable();
            }
            *last = Some((hash, before.after(entry, &hash)));
        }
        holds
    }

    /// True if an entry is the last one of a line, and signed by a device that was removed.
    fn is_void(&self, hash: &EntryHash, roster: &Roster) -> bool {
        let is_void = |known: &KnownEntry| {
            known.next.is_empty() && !is_listed(known.signed.entry.author, roster)
        };
        self.entries.get(hash).is_some_and(is_void)
    }

    /// Takes the last entry of a line out.
    fn drop_leaf(&mut self, hash: &EntryHash) -> Option<SignedEntry> {
        let known = self.entries.remove(hash)?;
        let previous = self.entries.get_mut(&known.signed.entry.previous);
        previous.into_iter().for_each(|previous| previous.next.retain(|next| next != hash));
        Some(known.signed)
    }

    /// What holds is computed anew: the directory may be another one. Entries that waited for it are tried by [`Self::insert`].
    fn settle(&mut self, roster: &Roster) -> Inserted {
        let (mut state, mut at) = match self.state_at(&self.root) {
            Some(first) => (first, self.root),
            None => return Inserted::default(),
        };
        let mut chain = vec![at];
        while let Some(known) = self.entries.get(&at) {
            let next = match known.next.as_slice() {
                [only] => Some(only),
                next => next.iter().min_by_key(|next| self.weight(next, &state, roster)),
            };
            let Some((hash, entry)) = next.and_then(|hash| self.entries.get_key_value(hash)) else {
                break;
            };
            state = state.after(&entry.signed.entry, hash);
            at = *hash;
            chain.push(at);
        }
        let common = self.chain.iter().zip(&chain).take_while(|(a, b)| a == b).count();
        let signed = |hash: &EntryHash| Some(self.entries.get(hash)?.signed.clone());
        let done = chain.iter().skip(common).filter_map(signed).collect();
        let undone = self.chain.iter().skip(common).filter_map(signed).collect();
        (self.head, self.chain) = (state, chain);
        self.trim();
        Inserted { done, undone, ..Inserted::default() }
    }

    /// Of entries that do not count so many are kept, those go first of whom there are most: should somebody go on from one of
    /// them, it comes with what followed.
    fn trim(&mut self) {
        while self.entries.len() - self.chain.len() > MAX_ENTRIES {
            let mut leaves: BTreeMap<u32, Vec<EntryHash>> = BTreeMap::new();
            let chain: BTreeSet<&EntryHash> = self.chain.iter().collect();
            for (hash, known) in &self.entries {
                if known.next.is_empty() && !chain.contains(hash) {
                    leaves.entry(known.person).or_default().push(*hash);
                }
            }
            let most = leaves.into_values().max_by_key(Vec::len);
            let Some(last) = most.and_then(|leaves| leaves.last().copied()) else { return };
            self.drop_leaf(&last);
        }
    }

    /// How much a successor of an entry weighs, with all that follows from it; `before` is the group as it was before it.
    fn weight(&self, from: &EntryHash, before: &GroupState, roster: &Roster) -> Weight {
        let mut best = (2, (GroupRole::Member, usize::MAX), Reverse(0));
        let mut open = vec![*from];
        while let Some(known) = open.pop().and_then(|hash| self.entries.get(&hash)) {
            let entry = &known.signed.entry;
            let standing = match before.seniority(known.person) {
                _ if !is_listed(entry.author, roster) => (1, (GroupRole::Member, usize::MAX)),
                Some(seniority) => (0, seniority),
                None => (0, (GroupRole::Member, usize::MAX)),
            };
            best = best.min((standing.0, standing.1, Reverse(entry.number)));
            open.extend(&known.next);
        }
        (best.0, best.1, best.2, *from)
    }

    /// The group as it was after an entry.
    fn state_at(&self, hash: &EntryHash) -> Option<GroupState> {
        if hash == self.chain.last()? {
            return Some(self.head.clone());
        }
        let mut line = Vec::new();
        let mut at = *hash;
        while at != self.root {
            let known = self.entries.get(&at)?;
            line.push((at, known));
            at = known.signed.entry.previous;
        }
        let first = self.entries.get(&self.root)?;
        let begin = GroupState::begin(&first.signed.entry, &self.root, first.person)?;
        let after = |state: GroupState, (hash, known): (EntryHash, &KnownEntry)| {
            state.after(&known.signed.entry, &hash)
        };
        Some(line.into_iter().rev().fold(begin, after))
    }

    /// The group as it was after the entry that a message names; none if that is not known here.
    pub fn state_of(&self, mark: &GroupMark) -> Option<GroupState> {
        if self.head.mark == *mark {
            return Some(self.head.clone());
        }
        self.state_at(&self.find(mark)?)
    }

    fn find(&self, mark: &GroupMark) -> Option<EntryHash> {
        let names = |(hash, known): &(&EntryHash, &KnownEntry)| {
            mark.names(known.signed.entry.number, hash) && mark.group == self.id()
        };
        self.entries.iter().find(names).map(|(hash, _)| *hash)
    }

    /// The entries that hold and that somebody lacks who says what he has.
    pub fn lacking(&self, has: &GroupMark) -> Vec<SignedEntry> {
        let mut common = self.find(has);
        while let Some(hash) = common.filter(|hash| !self.chain.contains(hash)) {
            common = self.entries.get(&hash).map(|known| known.signed.entry.previous);
        }
        let number = common.and_then(|hash| self.chain.iter().position(|one| *one == hash));
        self.chain().skip(number.map_or(0, |number| number + 1)).cloned().collect()
    }

    /// An act of this device on the group as it is.
    ///
    /// # Errors
    /// It may not do this.
    pub fn act(
        &mut self,
        at: u64,
        act: GroupAct,
        (device, secret): (u32, &SecretIdentity),
        roster: &Roster,
    ) -> Result<(SignedEntry, Inserted), NotAllowed> {
        let (person, ..) = roster.author(device).ok_or(NotAllowed::NoMember)?;
        self.head.allows(person, &act, roster)?;
        let number = self.head.mark.number.saturating_add(1);
        if number as usize >= MAX_ENTRIES {
            return Err(NotAllowed::TooLong);
        }
        let previous = *self.chain.last().ok_or(NotAllowed::Malformed)?;
        let entry = GroupEntry { number, previous, at, author: device, act };
        let signed = SignedEntry::new(&self.organisation, entry, secret);
        let inserted = self.insert(vec![signed.clone()], roster);
        if inserted.done.contains(&signed) {
            Ok((signed, inserted))
        } else {
            Err(NotAllowed::Malformed)
        }
    }

    /// Where what holds was done last by devices that were removed, those who are there affirm it, so that it counts for whoever did
    /// not know it before: how many come before this person; none if he need not.
    pub(crate) fn affirms_after(&self, person: u32, roster: &Roster) -> Option<usize> {
        let last = self.chain().next_back()?;
        if is_listed(last.entry.author, roster) {
            return None;
        }
        let there = self.head.people.iter().filter(|one| roster.people.contains(&one.person));
        let mut there: Vec<u32> = there.map(|one| one.person).collect();
        there.sort_by_key(|one| self.head.seniority(*one));
        there.iter().position(|one| *one == person)
    }
}

fn is_listed(device: u32, roster: &Roster) -> bool {
    roster.devices.contains_key(&device)
}
