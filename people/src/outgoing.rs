//! A message that was written here, and how it stands with each device that it goes to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::{Body, GroupId, GroupMark, MessageName};

/// To whom a message goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Conversation {
    /// A person, by the number in the directory.
    Person(u32),
    /// All others of a group.
    Group(GroupId),
}

impl From<u32> for Conversation {
    fn from(person: u32) -> Self {
        Self::Person(person)
    }
}

/// Where a message stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// It has not left yet, and why.
    Queued(Waiting),
    /// It has left; nobody has acknowledged it.
    Left,
    /// A device of the person has it, whole; in a group a device of each person.
    Delivered,
    /// It has left and was not acknowledged; it is sent again at this second of Unix time.
    Waiting {
        /// When it is sent again.
        next_s: u64,
        /// What happened when it was sent last.
        why: Waiting,
    },
    /// It was not acknowledged in two weeks, and is sent no more.
    Expired(Waiting),
}

/// Why a message has not arrived.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, thiserror::Error,
)]
pub enum Waiting {
    /// It waits for a slot.
    #[error("it waits for its turn")]
    Turn,
    /// There is no link to a gateway.
    #[error("this client is not connected")]
    Offline,
    /// The directory is not the present one.
    #[error("the organisation's directory is on its way")]
    Directory,
    /// All devices of the person are new.
    #[error(
        "the person's device is new, and nothing is written to it before its owner had time to object"
    )]
    Held,
    /// The keys of the period are asked for.
    #[error("the keys of the person's device are on their way")]
    Keys,
    /// Nobody has answered when the keys were asked for.
    #[error(
        "the person's device has published no keys yet, was not here for a week, or its gateway does not answer"
    )]
    NoKeys,
    /// No acknowledgement has come.
    #[error("the person's device has not been here since")]
    NoAck,
    /// The person belongs to the organisation no more.
    #[error("the person has no device in the organisation's directory any more")]
    Removed,
    /// Whoever wrote it belongs to the group no more, or nobody else does.
    #[error("it is a message to a group that you do not share with anybody any more")]
    NotShared,
}

/// A message that was written here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    /// By which all know it.
    pub(crate) name: MessageName,
    /// The streams to the same person before that of its name, the last one first.
    pub(crate) before: Vec<u64>,
    /// To whom it goes.
    pub(crate) to: Conversation,
    /// Where it stands in the log of a group.
    pub(crate) mark: Option<GroupMark>,
    /// What its parts carry.
    pub(crate) parts: Vec<Vec<u8>>,
    /// When it was written, Unix milliseconds.
    pub(crate) written: u64,
    /// For how long it is kept after it is read, seconds.
    pub(crate) expires_s: u32,
    /// For each device, how it stands with each part.
    pub(crate) targets: BTreeMap<u32, Vec<Delivery>>,
    /// Whose the devices are.
    pub(crate) owners: BTreeMap<u32, u32>,
    /// What was told of it last.
    pub(crate) told: State,
    /// How many people had it of how many, as was told last; of a message to a group.
    pub(crate) reached: (u32, u32),
}

/// A part on its way to a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// The device has it.
    pub(crate) is_acked: bool,
    /// When it is sent, or sent again, Unix milliseconds.
    pub(crate) due: u64,
    /// When it left for the first time, Unix milliseconds.
    pub(crate) left: Option<u64>,
    /// How often it was encrypted.
    pub(crate) tries: u8,
    /// How often the device wanted it again.
    pub(crate) wanted: u8,
    /// What leaves next is the second copy of a try.
    pub(crate) is_second: bool,
    /// The packets of the present try: kept, so that a program that was killed sends the same ones again.
    pub(crate) sealed: Vec<Vec<u8>>,
    /// Why it has not arrived.
    pub(crate) why: Waiting,
    /// Letters that the mixnet's client has.
    #[serde(skip)]
    pub(crate) posted: u8,
}

impl Delivery {
    /// One that is due.
    pub(crate) fn new(due: u64) -> Self {
        let (sealed, why) = (Vec::new(), Waiting::Turn);
        let (is_acked, is_second, left) = (false, false, None);
        let (tries, wanted, posted) = (0, 0, 0);
        Self { is_acked, due, left, tries, wanted, is_second, sealed, why, posted }
    }
}

impl Outgoing {
    /// True if somebody has all of it, and so have all to whom it goes.
    pub(crate) fn is_delivered(&self) -> bool {
        let (reached, of) = self.reach();
        reached > 0 && reached == of
    }

    /// How many people have it, on one device at least, of how many.
    pub(crate) fn reach(&self) -> (u32, u32) {
        let people = self.by_person();
        let has = |devices: &Vec<&Vec<Delivery>>| devices.iter().any(|parts| is_whole(parts));
        (people.values().filter(|devices| has(devices)).count() as u32, people.len() as u32)
    }

    /// The people who have not got it, of those whose devices it goes to.
    pub(crate) fn lacking_people(&self) -> Vec<u32> {
        let has = |devices: &Vec<&Vec<Delivery>>| devices.iter().any(|parts| is_whole(parts));
        let people = self.by_person().into_iter().filter(|(_, devices)| !has(devices));
        people.map(|(person, _)| person).collect()
    }

    /// How it stands with the devices of each person.
    fn by_person(&self) -> BTreeMap<u32, Vec<&Vec<Delivery>>> {
        let mut people: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (device, parts) in &self.targets {
            let owner = self.owners.get(device).copied().unwrap_or_default();
            people.entry(owner).or_default().push(parts);
        }
        people
    }

    /// True if it says something of a group, and nothing to its people.
    pub(crate) fn is_of_log(&self) -> bool {
        let first = self.parts.first().and_then(|part| part.first());
        first.is_some_and(|kind| Body::is_of_log(*kind))
    }

    /// True if it is one message in many packets, which give way to those for one person.
    pub(crate) fn is_to_group(&self) -> bool {
        matches!(self.to, Conversation::Group(_))
    }

    /// The message that it changes, if it does.
    pub(crate) fn changes(&self) -> Option<MessageName> {
        // Most change nothing, and are not put together for that.
        let kind = self.parts.first().and_then(|part| part.first())?;
        Body::is_change(*kind).then(|| Body::decode(&self.parts.concat()).changes())?
    }

    /// True if it was written later than another change of the same message.
    pub(crate) fn is_later(&self, than: &Self) -> bool {
        (self.written / 1_000, self.name) > (than.written / 1_000, than.name)
    }

    /// Nothing stands in place of what it says, in as many parts.
    pub(crate) fn erase_text(&mut self) {
        self.parts.iter_mut().for_each(|part| part.zeroize());
        if let Some(first) = self.parts.first_mut() {
            *first = Body::Empty.encode();
        }
        for part in self.targets.values_mut().flatten() {
            part.sealed.clear();
            part.is_second = false;
        }
    }

    /// True if no device waits for any of it.
    pub(crate) fn is_done(&self) -> bool {
        self.targets.values().flatten().all(|part| part.is_acked)
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        if self.is_delivered() {
            return State::Delivered;
        }
        if matches!(self.told, State::Expired(_)) {
            return self.told.clone();
        }
        let people = self.by_person().into_values();
        let lacks = |devices: &Vec<&Vec<Delivery>>| !devices.iter().any(|parts| is_whole(parts));
        let states: Vec<State> = people.filter(lacks).map(|devices| state_with(&devices)).collect();
        // What waits for its turn with one waits for it as a whole; what one has no keys for has left if others were sent it.
        let turn = State::Queued(Waiting::Turn);
        if states.is_empty() {
            return State::Queued(Waiting::Removed);
        }
        if states.contains(&turn) {
            return turn;
        }
        let whys = states.iter().filter_map(|state| match state {
            State::Queued(why) | State::Waiting { why, .. } => Some(*why),
            _ => None,
        });
        let Some(why) = whys.max() else { return State::Left };
        if self.reach().0 == 0 && states.iter().all(|state| matches!(state, State::Queued(_))) {
            return State::Queued(why);
        }
        let next = states.iter().filter_map(|state| match state {
            State::Waiting { next_s, .. } => Some(*next_s),
            _ => None,
        });
        let parts = || self.targets.values().flatten().filter(|part| !part.is_acked);
        let due = parts().map(|part| part.due / 1_000).min().unwrap_or_default();
        State::Waiting { next_s: next.min().unwrap_or(due), why }
    }
}

/// True if a device has all parts.
fn is_whole(parts: &[Delivery]) -> bool {
    parts.iter().all(|part| part.is_acked)
}

/// Where a message stands with a person who has not got it.
fn state_with(devices: &[&Vec<Delivery>]) -> State {
    let parts = devices.iter().flat_map(|parts| parts.iter()).filter(|part| !part.is_acked);
    let why = parts.map(|part| part.why).max().unwrap_or(Waiting::Removed);
    // By the device that is nearest to having it.
    let has_left = |parts: &&&Vec<Delivery>| parts.iter().all(|part| part.left.is_some());
    let Some(nearest) = devices.iter().find(has_left) else { return State::Queued(why) };
    if nearest.iter().all(|part| part.tries <= 1 && part.why == Waiting::Turn) {
        return State::Left;
    }
    let next = nearest.iter().filter(|part| !part.is_acked).map(|part| part.due).min();
    State::Waiting { next_s: next.unwrap_or_default() / 1_000, why }
}
