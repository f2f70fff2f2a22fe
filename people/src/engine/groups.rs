//! Groups: what their people do to them, and who reads what is written to them.

use shoal_topology::encoding::{decode, encode};

use super::incoming::MAX_RECEIVED;
use super::types::{GroupChanged, GroupDone};
use super::*;
use crate::group::{Inserted, MAX_ENTRIES};
use crate::{
    Error, GroupAct, GroupEntry, GroupLog, GroupState, NotAllowed, ReceivedMessage, SignedEntry,
};

/// Most groups, and of these begun by one person; of so many one person is asked for entries.
const GROUPS: usize = 512;
const GROUPS_EACH: usize = 64;
/// Most messages that wait for entries of a log, and of these written by one device.
const EARLY: usize = 1_024;
const EARLY_EACH: usize = 64;
/// The mean time until entries are asked for that are lacking, until they are given, and until what removed devices did is affirmed.
const ASK_MS: u64 = 10 * 60_000;
/// How often entries are asked for, each time after twice as long.
const ASKED: u32 = 8;
/// The mean time until somebody else affirms.
const AFFIRM_MS: u64 = 6 * HOUR_MS;
/// Most bytes of a log that is kept.
const MAX_LOG: usize = 2 << 20;

/// The groups of a device.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) logs: BTreeMap<GroupId, GroupLog>,
    /// Logs whose first author the directory does not name, since it is an older one than before.
    unread: BTreeMap<GroupId, Vec<SignedEntry>>,
    /// Messages that name an entry which is not here, and since when they wait, Unix milliseconds.
    early: BTreeMap<MessageName, (u64, ReceivedMessage)>,
    /// Whom to ask for entries, when, and how often that was done; at 0 it is done in any case.
    wants: BTreeMap<(GroupId, u32), (u64, u32)>,
    /// When this device affirms what holds.
    affirms: BTreeMap<GroupId, u64>,
}

impl Groups {
    /// What fell due while nothing could leave waits anew.
    pub(super) fn spread(&mut self, now: u64, draws: &mut Stream) {
        let all = self.wants.values_mut().map(|(at, _)| at).chain(self.affirms.values_mut());
        all.filter(|at| **at <= now).for_each(|at| *at = later(draws, now, ASK_MS));
    }

    /// When something is due.
    pub(super) fn due(&self) -> impl Iterator<Item = u64> {
        self.wants.values().map(|(at, _)| *at).chain(self.affirms.values().copied())
    }

    /// Messages that wait, of a device.
    fn early_of(&self, device: u32) -> usize {
        self.early.keys().filter(|name| name.device == device).count()
    }
}

/// What becomes of a message to a group.
enum MessageFate {
    Shown,
    /// What it names is not known here.
    Early,
    Refused,
}

impl People {
    /// The person whose device this is; none while the directory does not list it.
    pub fn person(&self) -> Option<u32> {
        self.roster.author(self.me.0).map(|(person, ..)| person)
    }

    /// The groups, as they are.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupState)> {
        self.groups.logs.iter().map(|(group, log)| (*group, log.head()))
    }

    /// A group, as it is.
    pub fn group(&self, group: &GroupId) -> Option<&GroupState> {
        self.groups.logs.get(group).map(GroupLog::head)
    }

    /// True if the owner of this device may add people to a group, and remove others.
    pub fn may_act(&self, group: &GroupId) -> bool {
        let head = self.group(group).zip(self.person());
        head.is_some_and(|(head, person)| {
            head.person(person).is_some() && head.may_act(person, &self.roster)
        })
    }

    /// How many devices a message to a group goes to now, and to how many it may.
    pub fn group_devices(&self, group: &GroupId) -> (usize, usize) {
        (self.devices_of(Conversation::Group(*group)).len(), self.settings.group_devices)
    }

    /// How many of how many people have a message of this device to a group; none if it is no such message, or is known no more.
    pub fn reached(&self, name: &MessageName) -> Option<(u32, u32)> {
        let message = self.waiting.get(name).or_else(|| self.over.get(name))?;
        message.is_to_group().then(|| message.reach())
    }

    /// Founds a group of the owner of this device and others.
    ///
    /// # Errors
    /// It is not founded, and why.
    pub fn found_group(
        &mut self,
        now: u64,
        name: &str,
        people: &[u32],
    ) -> Result<GroupId, NotSent> {
        let own = self.person().ok_or(NotAllowed::NoMember)?;
        let people: Vec<u32> = people.iter().copied().filter(|person| *person != own).collect();
        self.check_people(&people)?;
        self.check_size(&people)?;
        if self.groups.logs.len() >= GROUPS || self.begun_by(own) >= GROUPS_EACH {
            return Err(NotSent::Full);
        }
        let act = GroupAct::Create { nonce: self.random.random(), name: name.into(), people };
        let (at, author) = (now / 1_000, self.me.0);
        let entry = GroupEntry { number: 0, previous: [0; 32], at, author, act };
        let first = SignedEntry::new(&self.roster.organisation, entry, &self.me.1);
        let log = GroupLog::new(first.clone(), &self.roster);
        // All else that could be wrong with a first entry is looked at above.
        let log = log.ok_or(NotAllowed::Name)?;
        let group = log.id();
        self.groups.logs.insert(group, log);
        let inserted = Inserted { done: vec![first.clone()], ..Inserted::default() };
        self.group_changed(now, group, inserted, None);
        self.tell_of(now, group, &[], first);
        self.pump(now);
        self.flush();
        Ok(group)
    }

    /// Does something to a group, for the owner of this device.
    ///
    /// # Errors
    /// It is not done, and why.
    pub fn act(&mut self, now: u64, group: GroupId, act: GroupAct) -> Result<(), NotSent> {
        if let GroupAct::Add(people) = &act {
            self.check_people(people)?;
            let there = self.people_of(&group);
            self.check_size(&[&there[..], people].concat())?;
        }
        self.act_as_allowed(now, group, act)?;
        self.pump(now);
        self.flush();
        Ok(())
    }

    fn act_as_allowed(&mut self, now: u64, group: GroupId, act: GroupAct) -> Result<(), NotSent> {
        let log = self.groups.logs.get_mut(&group).ok_or(NotSent::NoGroup)?;
        let before: Vec<u32> = log.head().people.iter().map(|one| one.person).collect();
        let by = (self.me.0, &self.me.1);
        let (signed, inserted) = log.act(now / 1_000, act, by, &self.roster)?;
        self.group_changed(now, group, inserted, Some(&before));
        self.tell_of(now, group, &before, signed);
        Ok(())
    }

    /// Whether all of these belong to the organisation.
    fn check_people(&self, people: &[u32]) -> Result<(), NotSent> {
        match people.iter().find(|person| !self.roster.people.contains(person)) {
            Some(unknown) => Err(NotAllowed::Unknown(*unknown).into()),
            None => Ok(()),
        }
    }

    /// Whether a message can go to the devices of so many people.
    fn check_size(&self, people: &[u32]) -> Result<(), NotSent> {
        let (devices, most) = (self.devices_of_people(people).len(), self.settings.group_devices);
        if devices > most { Err(NotSent::TooMany(devices, most)) } else { Ok(()) }
    }

    /// Whether something may be written there: where it stands in the log, and for how long it is kept.
    pub(super) fn may_write(&self, to: Conversation) -> Result<(Option<GroupMark>, u32), NotSent> {
        let Conversation::Group(group) = to else { return Ok((None, 0)) };
        let head = self.group(&group).ok_or(NotSent::NoGroup)?;
        let is_member = self.person().is_some_and(|person| head.person(person).is_some());
        if !is_member {
            return Err(NotAllowed::NoMember.into());
        }
        self.check_size(&self.people_of(&group))?;
        Ok((Some(head.mark), head.expires_s))
    }

    /// To whom goes what is written to a group; nobody if the owner of this device does not belong to it.
    pub(super) fn people_of(&self, group: &GroupId) -> Vec<u32> {
        let people = self.group(group).into_iter().flat_map(|head| &head.people);
        let people: Vec<u32> = people.map(|one| one.person).collect();
        let is_member = self.person().is_some_and(|own| people.contains(&own));
        if is_member { people } else { Vec::new() }
    }

    fn begun_by(&self, person: u32) -> usize {
        let first = |log: &&GroupLog| log.chain().next().and_then(|first| log.author(first));
        self.groups.logs.values().filter(|log| first(log) == Some(person)).count()
    }

    fn done(&self, signed: &SignedEntry) -> Option<GroupDone> {
        let GroupEntry { at, author, act, .. } = &signed.entry;
        let (person, ..) = self.roster.author(*author)?;
        let hash = *signed.hash().first_chunk()?;
        Some(GroupDone { hash, device: *author, person, at: *at, act: act.clone() })
    }

    /// Something else holds in a group, or may: it is saved and told, and what follows from it is done. `before` says who belonged to it
    /// before, where somebody did.
    fn group_changed(
        &mut self,
        now: u64,
        group: GroupId,
        inserted: Inserted,
        before: Option<&[u32]>,
    ) {
        self.plan_affirming(now, group);
        if inserted == Inserted::default() {
            return;
        }
        self.save_group(group);
        let Inserted { done, undone, .. } = inserted;
        if done.is_empty() && undone.is_empty() {
            return;
        }
        let people = |log: &GroupLog| log.head().people.iter().map(|one| one.person).collect();
        let after: Vec<u32> = self.groups.logs.get(&group).map(people).unwrap_or_default();
        if before != Some(&after) {
            // Whoever comes back must not miss what was not for him.
            self.streams.remove(&Conversation::Group(group));
            self.retarget_all(now);
        }
        let told =
            |all: &[SignedEntry]| all.iter().filter_map(|signed| self.done(signed)).collect();
        let is_new = before.is_none();
        let changed = GroupChanged { group, is_new, done: told(&done), undone: told(&undone) };
        self.effects.push_back(Output::Group(changed));
        let me = self.me.0;
        for lost in undone.iter().filter(|signed| signed.entry.author == me) {
            let head = self.groups.logs.get(&group).map(GroupLog::head);
            if let Some(rest) = head.and_then(|head| head.rest_of(&lost.entry.act)) {
                // Where others decided otherwise, it is theirs that holds.
                let _ = self.act_as_allowed(now, group, rest);
            }
        }
        self.try_early(now, group);
    }

    /// Tells the others of a group what this device did: those who belonged to it `before` the entry alone, those who are new the whole
    /// log.
    fn tell_of(&mut self, now: u64, group: GroupId, before: &[u32], entry: SignedEntry) {
        let Some(log) = self.groups.logs.get(&group) else { return };
        let all: Vec<SignedEntry> = log.chain().cloned().collect();
        let new: Vec<u32> = log.head().people.iter().map(|one| one.person).collect();
        let new: Vec<u32> = new.into_iter().filter(|person| !before.contains(person)).collect();
        self.send_entries((now, now), group, before, vec![entry]);
        self.send_entries((now, now), group, &new, all);
    }

    /// Sends entries to people, in as many messages as they take, at an instant that may be later: each person his own, as one who
    /// was removed is told things that others are not, and who is new.
    fn send_entries(
        &mut self,
        (now, due): (u64, u64),
        group: GroupId,
        people: &[u32],
        entries: Vec<SignedEntry>,
    ) {
        let mut bodies = Vec::new();
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut some = Vec::new();
            let mut room = (usize::from(crate::MAX_PARTS) * PART).saturating_sub(64);
            while let Some(entry) = entries.peek() {
                let len = encode(entry).len();
                if len > room && !some.is_empty() {
                    break;
                }
                room = room.saturating_sub(len);
                some.extend(entries.next());
            }
            bodies.push(Body::Entries(some));
        }
        for (person, body) in
            people.iter().flat_map(|person| bodies.iter().map(move |body| (*person, body)))
        {
            self.send_of_log((now, due), group, person, body);
        }
    }

    /// A message about a group's log. Where there is no room for it its reader asks for what he lacks, and whoever asks does so again.
    fn send_of_log(&mut self, (now, due): (u64, u64), group: GroupId, person: u32, body: &Body) {
        let to = Conversation::Person(person);
        let (devices, mark) = (self.devices_of(to), Some(GroupMark::of_log(group)));
        let _ = self.queue((now, now, due), to, mark, devices, body, 0);
    }

    /// Entries of a group's log have come.
    pub(super) fn entries_came(
        &mut self,
        now: u64,
        from: u32,
        group: GroupId,
        mut entries: Vec<SignedEntry>,
    ) {
        if !self.groups.logs.contains_key(&group) {
            let first = entries.iter().position(|signed| signed.group() == group);
            let Some(first) = first.map(|at| entries.remove(at)) else {
                return self.want_entries(now, group, from, 0);
            };
            self.join(now, group, first, entries);
            return;
        }
        let Some(log) = self.groups.logs.get_mut(&group) else { return };
        let before: Vec<u32> = log.head().people.iter().map(|one| one.person).collect();
        let inserted = log.insert(entries, &self.roster);
        if log.is_behind() {
            self.want_entries(now, group, from, 1);
        }
        self.group_changed(now, group, inserted, Some(&before));
    }

    /// A group is new here.
    fn join(&mut self, now: u64, group: GroupId, first: SignedEntry, rest: Vec<SignedEntry>) {
        let begun = self.roster.author(first.entry.author);
        let is_full = self.groups.logs.len() >= GROUPS
            || begun.is_none_or(|(person, ..)| self.begun_by(person) >= GROUPS_EACH);
        if is_full {
            self.counts.no_room += 1;
            return;
        }
        let log = GroupLog::new(first, &self.roster).map(|mut log| {
            log.insert(rest, &self.roster);
            log
        });
        let own = self.person();
        // Whoever does not belong to it need not know of it.
        let is_own = |log: &GroupLog| own.is_some_and(|own| log.head().person(own).is_some());
        let Some(log) = log.filter(is_own) else {
            self.counts.refused += 1;
            return;
        };
        let inserted = Inserted { done: log.chain().cloned().collect(), ..Inserted::default() };
        self.groups.logs.insert(group, log);
        self.group_changed(now, group, inserted, None);
    }

    /// Somebody asks for entries that he lacks.
    pub(super) fn entries_wanted(
        &mut self,
        now: u64,
        from: u32,
        group: GroupId,
        has: Option<GroupMark>,
    ) {
        let Some(log) = self.groups.logs.get(&group) else { return };
        let head = log.head();
        let mut lacking = match has {
            Some(mark) => log.lacking(&mark),
            None => log.chain().cloned().collect(),
        };
        if head.person(from).is_none() {
            // Of a group that one belongs to no more one is told that, and nothing after it.
            let removes = |signed: &SignedEntry| match &signed.entry.act {
                GroupAct::Remove(people) => people.contains(&from),
                _ => false,
            };
            let last = lacking.iter().rposition(removes).map_or(0, |last| last + 1);
            lacking.truncate(last);
        }
        // One answer at a time.
        let is_on_its_way = |message: &Outgoing| {
            let mut parts = message.targets.values().flatten();
            let is_of_it = message.mark == Some(GroupMark::of_log(group));
            let is_for_him = message.to == Conversation::Person(from);
            is_of_it && is_for_him && parts.any(|part| part.left.is_none())
        };
        if !self.waiting.values().any(is_on_its_way) {
            let due = later(&mut self.draws, now, ASK_MS);
            self.send_entries((now, due), group, &[from], lacking);
        }
    }

    /// Plans to ask somebody for entries, who was asked so often: if that is not 0, it is not done where all is here by then.
    fn want_entries(&mut self, now: u64, group: GroupId, from: u32, asked: u32) {
        let of_him = self.groups.wants.keys().filter(|(_, person)| *person == from).count();
        if of_him < GROUPS_EACH {
            let draws = &mut self.draws;
            self.groups
                .wants
                .entry((group, from))
                .or_insert_with(|| (later(draws, now, ASK_MS), asked));
        }
    }

    /// True if entries of a group are lacking that this person has: he named one, or sent what follows it.
    fn lacks_entries(&self, group: GroupId, from: u32) -> bool {
        let waits = |(_, message): &(u64, ReceivedMessage)| {
            message.person == from && message.group.is_some_and(|mark| mark.group == group)
        };
        let log = self.groups.logs.get(&group);
        log.is_none_or(GroupLog::is_behind) || self.groups.early.values().any(waits)
    }

    /// Where what holds was done last by devices that were removed, this device affirms it some time.
    fn plan_affirming(&mut self, now: u64, group: GroupId) {
        let log = self.groups.logs.get(&group);
        let after =
            log.zip(self.person()).and_then(|(log, own)| log.affirms_after(own, &self.roster));
        let Some(after) = after else {
            self.groups.affirms.remove(&group);
            return;
        };
        let draws = &mut self.draws;
        let at = || later(draws, now + after as u64 * AFFIRM_MS, ASK_MS);
        self.groups.affirms.entry(group).or_insert_with(at);
    }

    /// Asks, and affirms, where that is due.
    pub(super) fn tend_groups(&mut self, now: u64) {
        let due = self.groups.affirms.extract_if(.., |_, at| *at <= now);
        for group in due.map(|(group, _)| group).collect::<Vec<_>>() {
            let log = self.groups.logs.get(&group).zip(self.person());
            if log.is_some_and(|(log, own)| log.affirms_after(own, &self.roster).is_some()) {
                // Whoever may not any more need not.
                let _ = self.act_as_allowed(now, group, GroupAct::Affirm);
            }
        }
        let due = self.groups.wants.extract_if(.., |_, (at, _)| *at <= now);
        for ((group, person), (_, asked)) in due.collect::<Vec<_>>() {
            // The first time also where all seems to be here: an entry that came before the first one was not kept.
            if asked >= ASKED || (asked > 0 && !self.lacks_entries(group, person)) {
                continue;
            }
            let has = self.groups.logs.get(&group).map(|log| log.head().mark);
            self.send_of_log((now, now), group, person, &Body::WantEntries(has));
            let at = later(&mut self.draws, now, ASK_MS << asked);
            self.groups.wants.insert((group, person), (at, asked + 1));
        }
        self.drop_early(now);
    }

    /// The directory has changed.
    pub(super) fn settle_groups(&mut self, now: u64) {
        for (group, entries) in std::mem::take(&mut self.groups.unread) {
            match GroupLog::load(&entries, &self.roster) {
                Some(log) => _ = self.groups.logs.insert(group, log),
                None => _ = self.groups.unread.insert(group, entries),
            }
        }
        let groups: Vec<GroupId> = self.groups.logs.keys().copied().collect();
        for group in groups {
            let Some(log) = self.groups.logs.get_mut(&group) else { continue };
            let before: Vec<u32> = log.head().people.iter().map(|one| one.person).collect();
            let inserted = log.insert(Vec::new(), &self.roster);
            if inserted != Inserted::default() {
                self.group_changed(now, group, inserted, Some(&before));
            }
            self.plan_affirming(now, group);
        }
    }

    /// A message to a group has come, whole.
    pub(super) fn group_message(&mut self, now: u64, mark: GroupMark, message: ReceivedMessage) {
        match self.fate(&mark, &message) {
            MessageFate::Shown => {
                self.keep(Key::Received(message.name), message.encode());
                self.effects.push_back(Output::Received(message));
            }
            MessageFate::Refused => self.counts.refused += 1,
            MessageFate::Early => {
                self.want_entries(now, mark.group, message.person, 1);
                self.keep(Key::Early(message.name), encode_secret(&(now, &*message.encode())));
                self.groups.early.insert(message.name, (now, message));
            }
        }
    }

    /// Whether there is room for a message that may have to wait for its group's log.
    pub(super) fn has_early_room(&self, device: u32) -> bool {
        self.groups.early.len() < EARLY && self.groups.early_of(device) < EARLY_EACH
    }

    fn fate(&self, mark: &GroupMark, message: &ReceivedMessage) -> MessageFate {
        if mark.is_of_log() {
            return MessageFate::Refused;
        }
        let Some(own) = self.person() else { return MessageFate::Early };
        let Some(log) = self.groups.logs.get(&mark.group) else { return MessageFate::Early };
        let Some(then) = log.state_of(mark) else { return MessageFate::Early };
        let head = log.head();
        // Whoever was removed since may have written before that.
        let is_of_it = |person: u32| {
            let removed = head.removed.get(&person);
            head.person(person).is_some() || removed.is_some_and(|at| message.sent_at <= *at)
        };
        let people = [own, message.person];
        if !people.iter().all(|person| then.person(*person).is_some()) {
            return MessageFate::Refused;
        }
        match people.iter().all(|person| is_of_it(*person)) {
            true => MessageFate::Shown,
            // He was added in a line that does not count: it is done anew.
            false if people.iter().all(|person| !head.removed.contains_key(person)) => {
                MessageFate::Early
            }
            false => MessageFate::Refused,
        }
    }

    /// What waited for entries of a group's log is looked at again.
    fn try_early(&mut self, now: u64, group: GroupId) {
        let of_it = |_: &MessageName, (_, message): &mut (u64, ReceivedMessage)| {
            message.group.is_some_and(|mark| mark.group == group)
        };
        let early: Vec<_> = self.groups.early.extract_if(.., of_it).collect();
        for (name, (since, message)) in early {
            let Some(mark) = message.group else { continue };
            if matches!(self.fate(&mark, &message), MessageFate::Early) {
                self.groups.early.insert(name, (since, message));
            } else {
                self.forget(Key::Early(name));
                self.group_message(now, mark, message);
            }
        }
    }

    /// Messages that waited for entries for too long, or whose writer is gone, are given up.
    fn drop_early(&mut self, now: u64) {
        let devices = &self.roster.devices;
        let is_over = |name: &MessageName, (since, _): &mut (u64, ReceivedMessage)| {
            since.saturating_add(LIFE_MS) <= now || !devices.contains_key(&name.device)
        };
        let over: Vec<_> = self.groups.early.extract_if(.., is_over).collect();
        for (name, _) in over {
            self.forget(Key::Early(name));
            self.effects.push_back(Output::Missed(name.device, 1));
        }
    }

    pub(super) fn load_group(&mut self, group: GroupId, bytes: &[u8]) -> Result<(), Error> {
        let entries: Vec<SignedEntry> = decode("log of a group", bytes, MAX_LOG)?;
        if entries.is_empty() || entries.len() > 3 * MAX_ENTRIES {
            return Err(Error::Malformed("a group has a first entry, and not too many"));
        }
        self.groups.unread.insert(group, entries);
        Ok(())
    }

    pub(super) fn load_early(&mut self, name: MessageName, bytes: &[u8]) -> Result<(), Error> {
        let (since, bytes): (u64, Vec<u8>) = decode("message to a group", bytes, MAX_RECEIVED)?;
        let bytes = Zeroizing::new(bytes);
        let message = ReceivedMessage::decode(&bytes)?;
        if let Some(mark) = message.group {
            let at = later(&mut self.draws, since, ASK_MS);
            self.groups.wants.insert((mark.group, message.person), (at, 1));
        }
        self.groups.early.insert(name, (since, message));
        Ok(())
    }
}
