//! What the engine is given and what it says: settings, outputs, totals, and why nothing leaves.

use shoal_sphinx::{MESSAGE_LEN, PublicKey};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{ClientDescriptor, Identity};

#[cfg(doc)]
use super::Client;
use super::credits::Handle;
use super::group::{Failure, GroupId, Replies};
use crate::tunnel::{TunnelEvent, TunnelSettings};
use crate::uplink::LetterId;
#[cfg(doc)]
use crate::uplink::Uplink;

/// Letters that wait for their slots.
pub(super) const MAX_LETTERS: usize = 64;

/// What the user's configuration tells the engine.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// When a service can be reached in no other way, let one gateway serve both ends of a tunnel. It then sees how many
    /// packets arrive for the user and how many for the service.
    pub allow_shared_gateway: bool,
    /// Send nothing of the user's while a layer has fewer mixes in good standing.
    pub min_mixes_per_layer: usize,
    /// Send nothing of the user's below so many bits of expected anonymity; if none, the document says.
    pub min_bits: Option<f64>,
    /// Send however few bits there are.
    pub allow_small_crowd: bool,
    /// What replies may take of the link.
    pub replies: Replies,
    /// Others have a descriptor of this client, so that anybody may send to it: what nobody asked for says nothing of
    /// the gateway then.
    pub reachable: bool,
    /// Messages to people leave in the next slot that takes them, and do not wait a drawn time: a burst of them then shows at
    /// its reader's gateway. For experiments.
    pub letters_at_once: bool,
    /// The settings of each tunnel.
    pub tunnel: TunnelSettings,
}

/// What the engine tells its caller.
#[derive(Debug)]
pub enum ClientOutput {
    /// The tunnel of a group stands: streams can be opened.
    Connected(GroupId),
    /// The group ended; so did its streams.
    Failed(GroupId, Failure),
    /// Something happened in the tunnel of a group.
    Tunnel(GroupId, TunnelEvent),
    /// A person's message, by [`Client::post`]. Nothing in it says whose, and the gateway can have made it: it gives no
    /// credit until [`Client::authenticated`].
    Message(Handle, Vec<u8>),
    /// A letter has left, on the link to the gateway.
    Left(LetterId),
    /// A letter cannot leave, and waits no longer.
    Returned(LetterId, NotReached),
    /// What [`Client::seek`] found, or why nothing.
    Described(ServiceAddress, Result<Box<ClientDescriptor>, NotReached>),
    /// What a contact said in a call.
    Media(Vec<u8>),
    /// Another epoch began, or another document came: [`Uplink::follow`] wants [`Client::turns`].
    EpochChanged,
    /// The gateway takes our packets, holds them up, or makes some up ([`Client::evidence`]): the other one is better. Not
    /// said where there is none, nor while it is no better. Said again every minute while it lasts, for lateness once a day.
    LeaveGateway,
    /// The first gateway is tried again.
    ComeBack,
}

/// Where a person can be reached.
#[derive(Clone, Copy)]
pub struct Contact {
    /// The address of the inbox at that gateway.
    pub inbox: Identity,
    /// The key of the person's client.
    pub key: PublicKey,
    /// The gateway that has the inbox.
    pub gateway: Identity,
}

/// Why nobody can be written to at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotReached {
    /// The gateway of the address is not in the document.
    #[error("the network does not list the gateway of this address")]
    UnknownGateway,
    /// Nobody with this identity has been at that gateway within the time for which descriptors hold.
    #[error(
        "the gateway knows nobody of this address: he has not been there for a week, or the address is wrong"
    )]
    Unknown,
    /// No answer came to the question for the descriptor.
    #[error("the gateway of this address does not answer")]
    NoAnswer,
}

/// Why a message to a person is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPosted {
    /// More than a packet carries.
    #[error("a message to a person has at most {} bytes", MESSAGE_LEN - 1)]
    TooLong,
    /// Too many wait for a slot.
    #[error("{MAX_LETTERS} messages wait already")]
    Full,
    /// There is no call to say it in.
    #[error("no call")]
    NoCall,
    /// No such gateway in the document, or only one that would see both ends.
    #[error("no path that keeps both ends apart")]
    NoPath,
}

/// Says whether an arrival counts against the loops that the uplink owes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Nothing for the client: a dummy, or garbage.
    Nothing,
    /// A loop of its own.
    Loop,
    /// An authentic packet from others: [`Uplink::credit`] is due.
    FromOthers,
    /// A packet that gives no credit: nobody has authenticated it.
    NoCredit,
    /// Media of a call, or its silence. No loop is to make way for it: in a call there are none in payload slots.
    Media,
}

/// Why user traffic does not leave.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Unprotected {
    /// There is no link to a gateway.
    #[error("not connected to a gateway")]
    NoGateway,
    /// There is no document yet.
    #[error("no topology document yet")]
    NoDocument,
    /// The document says no: it is stale, or this machine's clock is wrong.
    #[error("{0}")]
    Document(shoal_topology::Error),
    /// There is none but one that is refused.
    #[error("{0}")]
    Refused(String),
    /// Two documents of one epoch were seen, now or in an earlier run.
    #[error("{0}")]
    Equivocation(String),
    /// Fewer mixes in good standing than the user wants.
    #[error(
        "layer {layer} has {found} mixes in good standing, fewer than protect.min_mixes_per_layer = {least}: wait until \
         the authorities restore some, or set it lower"
    )]
    TooFewMixes {
        /// The layer, from 1 to L.
        layer: u8,
        /// Mixes of it in good standing.
        found: usize,
        /// How many the user's configuration asks for.
        least: usize,
    },
    /// Nobody knows yet how large the crowd is.
    #[error(
        "it is not known how many others send: no node has reported that yet, as in a network's first epochs; wait for the \
         next document, or set protect.allow_small_crowd if you need no protection"
    )]
    UnknownCrowd,
    /// The crowd is too small to hide in.
    #[error(
        "the expected anonymity is {bits:.2} bits, below the floor of {floor}: too few others send now; wait, or set \
         protect.allow_small_crowd if you need no protection",
        // What is below a floor must not be shown as the floor.
        bits = (bits * 100.0).floor() / 100.0
    )]
    SmallCrowd {
        /// Bits that the next packet can expect.
        bits: f64,
        /// Bits below which nothing is sent.
        floor: f64,
    },
}

/// What happened so far, for `status` and metrics. Totals only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Packets that others sent, and that were authentic.
    pub packets: u64,
    /// Frames of the gateway with nothing in them.
    pub dummies: u64,
    /// Packets that could not be opened, or that nobody asked for, or no longer.
    pub unknown: u64,
    /// Of these, packets that had come before.
    pub replayed: u64,
    /// Of these, replies to what is gone, and loops that were given up.
    pub late: u64,
    /// Of these, replies that no tunnel authenticated.
    pub junk: u64,
    /// SURBs that went out to services.
    pub surbs: u64,
    /// Packets that found no path.
    pub no_path: u64,
    /// Media that made way for later ones.
    pub media_late: u64,
    /// Isolation groups that found all places in use.
    pub no_group: u64,
}
