//! What goes into the engine, and what comes out of it.

use shoal_topology::Class;
use shoal_topology::directory::address::ServiceAddress;

use super::{Change, Key};
use crate::{
    Body, GroupAct, GroupId, GroupMark, MessageName, NotAllowed, PeriodKeys, Published, Roster,
    State,
};

/// What may be set.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Second copies of messages that may leave, 1/s.
    pub copies_per_s: f64,
    /// The mean time until an acknowledgement leaves by itself, milliseconds.
    pub receipts_ms: u64,
    /// The most devices that a message to a group goes to.
    pub group_devices: usize,
}

impl Settings {
    /// For a client of this class: with as many second copies, half of the letters that it carries are left for messages themselves.
    pub fn of(class: &Class) -> Self {
        let letters_per_s = class.letters_per_s();
        // A message of one part has left within two minutes.
        let group_devices = (letters_per_s * 120.0) as usize;
        let group_devices = group_devices.min(crate::MAX_GROUP);
        Self { copies_per_s: 0.5 * letters_per_s, group_devices, ..Self::default() }
    }
}

impl Default for Settings {
    /// Without second copies.
    fn default() -> Self {
        Self { copies_per_s: 0.0, receipts_ms: super::ACK_MS, group_devices: crate::MAX_GROUP }
    }
}

/// Packets that came and were of no use, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeopleCounts {
    /// They have no form of ours, or no key of this device opens them.
    pub unreadable: u64,
    /// They belong to a session of a device that the directory does not list, or to one that was signed by another.
    pub unknown: u64,
    /// They made room for others before the packet or the directory came that they waited for.
    pub displaced: u64,
    /// A session hides them, and its ratchet does not open them: second copies, and those of a state that was set back.
    pub broken: u64,
    /// There was no room to remember them: they come again.
    pub no_room: u64,
    /// Messages to a group by somebody who does not belong to it, and logs of groups to which this device's owner does not.
    pub refused: u64,
}

/// By which the engine and the mixnet's client know a letter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterNumber(pub u64);

/// By which the driver knows a packet that came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketNumber(pub u64);

/// What a driver tells the engine.
pub enum Input {
    /// There is a link to a gateway, and there was none.
    Connected,
    /// There is none any more. What was sought meanwhile is sought again; letters are kept by the mixnet's client.
    Disconnected,
    /// The directory, whenever it has changed.
    Roster(Roster),
    /// The keys of the periods, the present one's first: at the start, and whenever they change.
    Keys(Vec<PeriodKeys>),
    /// The answer to [`Output::Seek`].
    Described {
        /// Whose keys were asked for.
        device: u32,
        /// What its descriptor carries, the period's first second, and the last one in which the descriptor holds; none if
        /// nobody answered.
        found: Option<(Published, u64, u64)>,
    },
    /// A letter has left.
    Left(LetterNumber),
    /// A letter will not leave: nobody knows its addressee.
    Returned(LetterNumber),
    /// A letter has come.
    Packet(PacketNumber, Vec<u8>),
}

/// What the engine wants done, or tells.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// To be written to disk in one piece, before the next output is looked at. None erases.
    Save(Vec<(Key, Option<Change>)>),
    /// A letter for the mixnet's client, which says once whether it has left or will not.
    Post {
        /// By which the engine is told that it has left.
        letter: LetterNumber,
        /// Where it goes.
        to: ServiceAddress,
        /// At most [`crate::MAX_PACKET`] bytes.
        message: Vec<u8>,
    },
    /// The descriptor of this device is wanted.
    Seek {
        /// Whose keys are wanted.
        device: u32,
        /// Where it is reached.
        address: ServiceAddress,
    },
    /// A session vouches for a packet: a listed device of this person has made it. The mixnet's client takes it for a packet of
    /// somebody else's, which none that the gateway makes up is, and counts by persons: one may have several devices. Nothing
    /// that is saved has to be on disk before.
    Vouched(PacketNumber, u32),
    /// Where a message of this device stands.
    State(MessageName, State),
    /// So many of so many people have a message of this device to a group.
    Reached(MessageName, u32, u32),
    /// A group is another one, or a new one.
    Group(GroupChanged),
    /// A message has come, whole and for the first time; it stands in the changes that were saved before.
    Received(ReceivedMessage),
    /// So many parts that a device wrote will not come any more, and its writer takes them for delivered.
    Missed(u32, u32),
}

/// What has changed in a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChanged {
    /// Which group it is.
    pub group: GroupId,
    /// True if nothing was known of it before: `done` is all that ever was.
    pub is_new: bool,
    /// What was done, in its order.
    pub done: Vec<GroupDone>,
    /// What counts no more, since it was done at once with something else: its authors' programs do it anew where that is left to do.
    pub undone: Vec<GroupDone>,
}

/// What somebody did to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDone {
    /// By which this act is known among all: the beginning of the hash of its entry.
    pub hash: [u8; 8],
    /// The device that signed it.
    pub device: u32,
    /// Who did it.
    pub person: u32,
    /// When, Unix seconds, by his word.
    pub at: u64,
    /// What it was.
    pub act: GroupAct,
}

/// A message that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedMessage {
    /// Its name, with the device that wrote it.
    pub name: MessageName,
    /// Whose device that is.
    pub person: u32,
    /// Unix time at which it was written, seconds, by the word of its writer.
    pub sent_at: u64,
    /// The group that it was written to; none between two people.
    pub group: Option<GroupMark>,
    /// For how long it is kept after it is read, seconds; 0 for ever.
    pub expires_s: u32,
    /// What it says.
    pub body: Body,
}

/// Why a message is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSent {
    /// More than eight packets carry.
    #[error("a message has at most {} bytes", usize::from(crate::MAX_PARTS) * super::PART - 1)]
    TooLong,
    /// Too many wait already.
    #[error("too many messages wait: let some arrive first")]
    Full,
    /// The person, or everybody else of the group, has no device that the directory lists.
    #[error("there is no device that could be written to")]
    NoDevice,
    /// Its group has more devices than a client of this class writes to.
    #[error("this group has {0} devices, and a client of this class writes to at most {1}")]
    TooMany(usize, usize),
    /// There is no such group here.
    #[error("there is no such group")]
    NoGroup,
    /// The group does not allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
}

/// Something that was saved cannot be read. Its text does not say what, since that names a device that was written with.
#[derive(Debug, thiserror::Error)]
#[error("a piece of what was saved cannot be read: {source}")]
pub struct NotRestored {
    /// What it is.
    pub key: Key,
    /// What is wrong with it.
    pub source: crate::Error,
}
