//! What a directory is made of, entry by entry, and what holds for each alone.

use serde::{Deserialize, Serialize};
use shoal_topology::{Context, Identity, SecretIdentity, Signature, is_plain};

/// Most devices of one person at a time.
pub const MAX_DEVICES: usize = 5;
/// Most bytes of a name of a person, a unit, an admin.
const MAX_NAME: usize = 64;
/// Most bytes of the name of an organisation or a device.
const MAX_SHORT_NAME: usize = 32;
/// Most bytes of an announcement.
const MAX_ANNOUNCEMENT: usize = 1_024;
/// Longest time that a policy can set: a year, seconds.
const MAX_S: u32 = 365 * 86_400;

/// One entry of a directory. What is told apart by a number takes the next one when it comes for the first time; numbers
/// are never given again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// The first of all: the organisation and its name.
    Founded {
        /// What it is called, as in the head of its directory.
        name: String,
    },
    /// An admin, for the first time or changed.
    Admin(Admin),
    /// A person, for the first time or changed.
    Person(Person),
    /// A device of a person, for the first time or moved to other gateways.
    Device(Device),
    /// Somebody or something that belongs to the organisation no more.
    Remove(Removed),
    /// What holds for all members from here on.
    Policy(Policy),
    /// A message to all members.
    Announce {
        /// The text, which may have line feeds.
        text: String,
    },
}

/// Whoever may sign entries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admin {
    /// Counted from 1; [`crate::FOUNDER`] is the organisation's own key.
    pub number: u16,
    /// Who it is, for people.
    pub name: String,
    /// The key that signs.
    pub key: Identity,
    /// What he may do; `None`: nothing any more.
    pub role: Option<Role>,
}

/// What an admin may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Whatever there is.
    Owner,
    /// Add, change and remove people and devices; announce.
    Issuer,
    /// Tell all members something.
    Announcer,
}

/// Somebody who belongs to the organisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Counted from 0.
    pub id: u32,
    /// The full name.
    pub name: String,
    /// Where in the organisation; may be empty.
    pub unit: String,
    /// What is special.
    pub flags: PersonFlags,
}

/// What is special about a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PersonFlags(u8);

impl PersonFlags {
    /// New devices of this person are held back for longer ([`Policy::marked_hold_s`]).
    pub const MARKED: Self = Self(1);
    /// Belongs to somebody else: shown with a mark wherever the name is.
    pub const EXTERNAL: Self = Self(2);

    /// What both say.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if all of `other` hold.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A device of a person: an address that others write to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Counted from 0.
    pub id: u32,
    /// Whose it is.
    pub person: u32,
    /// What its owner calls it.
    pub name: String,
    /// The identity of the client on it.
    pub key: Identity,
    /// One or two gateways where it is reached, the preferred one first.
    pub gateways: Vec<Identity>,
    /// An older device of the same person says that this one belongs to him.
    pub vouched: Option<Vouch>,
}

/// A device's word for another one of the same person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vouch {
    /// The older device.
    pub device: u32,
    /// Its signature of the organisation's key, the person's number and the new device's key.
    pub signature: Signature,
}

impl Vouch {
    /// What an older device says of a new one.
    pub fn new(
        (device, secret): (u32, &SecretIdentity),
        organisation: &Identity,
        (person, key): (u32, &Identity),
    ) -> Self {
        let signed = shoal_topology::encoding::encode(&(organisation, person, key));
        Self { device, signature: secret.sign(Context::Vouch, &signed) }
    }

    /// Says whether the key of the older device signed it.
    pub fn holds(&self, by: &Identity, organisation: &Identity, of: &Device) -> bool {
        let signed = shoal_topology::encoding::encode(&(organisation, of.person, &of.key));
        by.verify(Context::Vouch, &signed, &self.signature)
    }
}

/// Who or what is removed. With a person all of its devices go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Removed {
    /// A person, by its number.
    Person(u32),
    /// A device, by its number.
    Device(u32),
}

/// What holds for all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// How many admins sign what gives somebody power: persons, devices, admins, policies. 1 or 2.
    pub approvals: u8,
    /// How long members hold back what they write to a device that is new to them, seconds.
    pub hold_s: u32,
    /// The same for devices of persons that are marked, seconds.
    pub marked_hold_s: u32,
    /// Whoever holds a directory that is older than twice this has to name his device to get what is new. Seconds.
    pub max_age_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { approvals: 1, hold_s: 3_600, marked_hold_s: 86_400, max_age_s: 7 * 86_400 }
    }
}

fn is_name(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && is_plain(text) && text.trim() == text
}

impl Entry {
    /// What is wrong with it, whatever stands before it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rule = |holds: bool, why: &'static str| if holds { Ok(()) } else { Err(why) };
        match self {
            Self::Founded { name } => rule(
                is_name(name, MAX_SHORT_NAME),
                "an organisation's name has 1 to 32 bytes, all of which show",
            ),
            Self::Admin(admin) => {
                rule(
                    is_name(&admin.name, MAX_NAME),
                    "an admin's name has 1 to 64 bytes, all of which show",
                )?;
                rule(admin.key.is_key(), "an admin's key is none")
            }
            Self::Person(person) => {
                rule(
                    is_name(&person.name, MAX_NAME),
                    "a name has 1 to 64 bytes, all of which show",
                )?;
                let unit = person.unit.is_empty() || is_name(&person.unit, MAX_NAME);
                rule(unit, "a unit has at most 64 bytes, all of which show")?;
                let known = PersonFlags::MARKED.with(PersonFlags::EXTERNAL);
                rule(known.has(person.flags), "a person has a mark that this program does not know")
            }
            Self::Device(device) => {
                rule(
                    is_name(&device.name, MAX_SHORT_NAME),
                    "a device's name has 1 to 32 bytes, all of which show",
                )?;
                rule(device.key.is_key(), "a device's key is none")?;
                rule((1..=2).contains(&device.gateways.len()), "a device has one or two gateways")
            }
            Self::Remove(_) => Ok(()),
            Self::Policy(policy) => {
                rule((1..=2).contains(&policy.approvals), "one or two admins approve")?;
                let times = [policy.hold_s, policy.marked_hold_s, policy.max_age_s];
                rule(
                    times.iter().all(|s| *s <= MAX_S),
                    "no time of a policy is longer than a year",
                )?;
                rule(policy.max_age_s >= 3_600, "a directory may be at least an hour old")
            }
            Self::Announce { text } => {
                let lines = text.split('\n').all(is_plain);
                rule(
                    lines && !text.trim().is_empty(),
                    "an announcement has a text, all of which shows",
                )?;
                rule(text.len() <= MAX_ANNOUNCEMENT, "an announcement has at most 1,024 bytes")
            }
        }
    }

    /// True if it gives somebody power, so that as many admins must sign it as the policy says.
    pub(crate) fn empowers(&self) -> bool {
        match self {
            Self::Remove(_) | Self::Announce { .. } => false,
            Self::Founded { .. }
            | Self::Admin(_)
            | Self::Person(_)
            | Self::Device(_)
            | Self::Policy(_) => true,
        }
    }

    /// True if an admin of this role may make it.
    pub(crate) fn is_for(&self, role: Role) -> bool {
        match self {
            Self::Founded { .. } | Self::Admin(_) | Self::Policy(_) => role == Role::Owner,
            Self::Person(_) | Self::Device(_) | Self::Remove(_) => role <= Role::Issuer,
            Self::Announce { .. } => true,
        }
    }
}
