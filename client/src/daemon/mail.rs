//! What goes between the thread of messages, the user's programs and the client's engine.

mod member;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;
use shoal_people::{GroupRole, LetterNumber, PeriodKeys};
use shoal_topology::ClientDescriptor;
use shoal_topology::directory::address::ServiceAddress;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::events::Event;
use crate::engine::{Handle, LetterId, NotReached};
pub(super) use member::Member;

/// Orders that wait for the thread.
const ORDERS: usize = 4_096;

/// A person in the directory: by name, or by number.
pub(super) enum Whom {
    /// A name, or a part that is his alone.
    Name(String),
    /// The number in the directory.
    Number(u32),
}

/// A conversation that a program means.
pub(super) enum Meant {
    /// With a person.
    Person(Whom),
    /// Of a group: by its identifier, or by a name that no other one has.
    Group(String),
}

/// What a program has done to a group.
pub(super) enum GroupDeed {
    /// These people belong to it from now on.
    Add(Vec<Whom>),
    /// They belong to it no more.
    Remove(Vec<Whom>),
    /// A person has another role.
    Appoint(Whom, GroupRole),
    /// It is called so.
    Rename(String),
    /// What is written to it is kept for so many seconds after it was read; 0 for ever.
    Expire(u32),
    /// The owner of this client belongs to it no more.
    Leave,
}

/// What a program asks.
pub(super) enum MessageRequest {
    /// Send a text; it is erased so many seconds after it was read, unless that is 0.
    Send(Meant, String, u32),
    /// All groups, or one of them.
    Groups(Option<String>),
    /// Found a group of this name, of these people.
    Found(String, Vec<Whom>),
    /// Do something to a group.
    Act(String, GroupDeed),
    /// All conversations, with the last message of each.
    Conversations,
    /// Messages of a conversation: before this one, and how many.
    Messages(Meant, Option<u64>, Option<usize>),
    /// The message of this number alone.
    Message(u64),
    /// What came up to this number was read.
    Read(Meant, u64),
    /// Messages with this text in them.
    Search(String),
    /// A message that was written here gets another text, at its reader's, too.
    Edit(u64, String),
    /// A message is to be erased here; one that was written here also at its reader's, if that is said.
    Delete(u64, bool),
    /// The digits of somebody, whether they were the same at both ends, and which were compared.
    Verify(Whom, Option<bool>, Option<String>),
    /// What came up to this number was taken.
    Taken(u64),
    /// How the client is, and what it does with messages.
    Status,
}

/// What the thread is asked to do.
pub(super) enum Order {
    /// What a program asks, and where its answer goes.
    Ask(MessageRequest, oneshot::Sender<Result<Value, String>>),
    /// What waits to be taken, and all that happens from now on.
    Listen(oneshot::Sender<(Vec<Event>, broadcast::Receiver<Event>)>),
    /// There is a link to a gateway, or none any more.
    Linked(bool),
    /// The keys of the periods, the present one's first.
    Keys(Vec<PeriodKeys>),
    /// A letter came, which the client's engine knows by this.
    Received(Handle, Vec<u8>),
    /// The client's engine has taken a letter, under this name.
    Posted(LetterNumber, LetterId),
    /// It has no room for it now.
    NoRoom(ToEngine),
    /// A letter has left.
    Left(LetterId),
    /// Nobody was reached.
    Returned(LetterId),
    /// Whoever has this address, or why nobody knows him.
    Described(ServiceAddress, Result<Box<ClientDescriptor>, NotReached>),
}

/// What is for the client's engine.
pub(super) enum ToEngine {
    /// A letter to somebody.
    Post {
        /// Its number here.
        letter: LetterNumber,
        /// Where it goes.
        to: ServiceAddress,
        /// What it carries.
        message: Vec<u8>,
    },
    /// The descriptor of whoever has this address is wanted.
    Seek(ServiceAddress),
    /// A session vouches for a letter that came: a device of this person has made it.
    Vouch(Handle, u32),
}

/// The way to the thread.
pub(super) type Orders = mpsc::Sender<Order>;

/// Both ways between the thread and the engine's.
pub(super) struct Mail {
    pub(super) orders: Orders,
    pub(super) to_engine: mpsc::Receiver<ToEngine>,
    /// Counts letters that came and could not be kept.
    pub(super) lost: Arc<AtomicU64>,
    /// What the client's descriptor says of it as a member.
    pub(super) member: Arc<Member>,
}

/// Orders, until there is a thread that takes them.
pub(super) fn orders() -> (Orders, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS)
}
