//! Messages between the devices of an organisation's members: sessions, outbox, acknowledgements. No IO.
//!
//! - [`People`]: the engine of one device; it says how it is driven.
//! - [`PeriodKeys`], [`Published`]: by which others open sessions with a device.
//! - [`Roster`]: what it needs of the organisation's directory.
//! - [`Frame`], [`Body`]: what stands in a packet, under the encryption of a session.

mod engine;
mod error;
mod frame;
mod group;
mod keys;
mod outgoing;
mod packet;
mod peer;
mod received;
mod roster;
mod session;

pub use engine::{
    Change, GroupChanged, GroupDone, Input, Key, LetterNumber, NotRestored, NotSent, Output,
    PacketNumber, People, PeopleCounts, ReceivedMessage, Settings,
};
pub use error::Error;
pub use frame::{Ack, Before, Body, Frame, MAX_PARTS, MessageName};
pub use group::{
    GroupAct, GroupEntry, GroupId, GroupLog, GroupMark, GroupPerson, GroupRole, GroupState,
    Inserted, MAX_ENTRIES, MAX_GROUP, MAX_GROUP_NAME, NotAllowed, SignedEntry,
};
pub use keys::{KEM_KEY_LEN, PeriodKeys, PublicKeys, Published};
pub use outgoing::{Conversation, State, Waiting};
pub use packet::MAX_PACKET;
pub use roster::{Roster, RosterDevice};
#[cfg(feature = "vectors")]
pub use session::vectors;
