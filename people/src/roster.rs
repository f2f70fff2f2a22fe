//! Who may be written to: what an engine needs of the organisation's directory.

use std::collections::{BTreeMap, BTreeSet};

use shoal_topology::Identity;
use shoal_topology::directory::address::ServiceAddress;

/// The devices of the organisation's present members.
#[derive(Clone, Debug)]
pub struct Roster {
    /// The organisation's key.
    pub organisation: Identity,
    /// How many entries the directory has that this is taken from.
    pub size: u64,
    /// How many the longest one has that is known of.
    pub head: u64,
    /// False while a longer directory is known of, or this one is too old: nothing is sent until it is there.
    pub is_current: bool,
    /// By the number of the device.
    pub devices: BTreeMap<u32, RosterDevice>,
    /// The devices that were removed: whose they were, and what they signed with.
    pub removed: BTreeMap<u32, (u32, Identity)>,
    /// Everybody who belongs to the organisation, also who has no device now.
    pub people: BTreeSet<u32>,
}

/// A device in a [`Roster`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RosterDevice {
    /// Whose it is.
    pub person: u32,
    /// The identity that signs for it.
    pub key: Identity,
    /// Where it is reached.
    pub address: ServiceAddress,
    /// Nothing is sent to it before this second of Unix time: it is new.
    pub held_until: u64,
}
