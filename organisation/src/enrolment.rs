//! Invitations, and how whoever was invited proves that he has the code and the key of his device.
//!
//! The organisation keeps the public half of a key that follows from the code, not the code. So whoever breaks into the
//! service that takes requests can make none: a request carries a signature by that key and one by the device's, over
//! everything in it. An admin sees the name that was invited and [`Request::digits`], which the new member reads to him,
//! and approves; then person and device become entries of the directory.

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};
use shoal_topology::{Context, Identity, SecretIdentity, Signature};

use crate::{Code, Device, Directory, Entry, Error, Person, PersonFlags};

/// How long an invitation holds where nothing else is said: three days, seconds.
pub const VALID_S: u64 = 72 * 3_600;
/// Most bytes of a request.
const MAX_REQUEST: usize = 1_024;

/// Whom an admin invites.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Invited {
    /// Somebody who is not in the directory.
    Person {
        /// The full name.
        name: String,
        /// Where in the organisation; may be empty.
        unit: String,
        /// What is special.
        flags: PersonFlags,
    },
    /// A further device of a person of the directory.
    Device {
        /// The number of the person.
        person: u32,
    },
}

/// An invitation as the organisation keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// What follows from its code: [`Code::public`].
    pub key: Identity,
    /// Whom it is for.
    pub invited: Invited,
    /// The last second (Unix time) at which a request is taken.
    pub expires: u64,
}

/// What a device asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Asked {
    organisation: Identity,
    invitation: Identity,
    device: Identity,
    name: String,
    gateways: Vec<Identity>,
}

/// A request to become a device of the directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    asked: Asked,
    by_invitation: Signature,
    by_device: Signature,
}

impl Request {
    /// Asks for a device to be listed: its key, what its owner calls it, where it is reached.
    pub fn new(
        code: &Code,
        organisation: Identity,
        device: &SecretIdentity,
        (name, gateways): (String, Vec<Identity>),
    ) -> Self {
        let invitation = code.secret();
        let asked = Asked {
            organisation,
            invitation: invitation.identity(),
            device: device.identity(),
            name,
            gateways,
        };
        let signed = encode(&asked);
        Self {
            by_invitation: invitation.sign(Context::Enrolment, &signed),
            by_device: device.sign(Context::Enrolment, &signed),
            asked,
        }
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes and verifies both signatures.
    ///
    /// # Errors
    /// Bytes of another form, a signature that does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let request: Self = decode("request to be enrolled", bytes, MAX_REQUEST)?;
        let signed = encode(&request.asked);
        let by = |key: &Identity, signature| key.verify(Context::Enrolment, &signed, signature);
        if !by(&request.asked.invitation, &request.by_invitation) {
            return Err(Error::Enrolment("it is not signed with the code of an invitation"));
        }
        if !by(&request.asked.device, &request.by_device) {
            return Err(Error::Enrolment("it is not signed by the device that it names"));
        }
        // What could never stand in the directory does not wait for an admin.
        request.device_entry(0, 0).check().map_err(Error::Enrolment)?;
        Ok(request)
    }

    fn device_entry(&self, id: u32, person: u32) -> Entry {
        Entry::Device(Device {
            id,
            person,
            name: self.asked.name.clone(),
            key: self.asked.device,
            gateways: self.asked.gateways.clone(),
            vouched: None,
        })
    }

    /// The invitation that it is for: [`Code::public`].
    pub fn invitation(&self) -> Identity {
        self.asked.invitation
    }

    /// The organisation that it is for.
    pub fn organisation(&self) -> Identity {
        self.asked.organisation
    }

    /// The device that asks.
    pub fn device(&self) -> Identity {
        self.asked.device
    }

    /// Six digits that both ends see: the new member reads them to the admin, so that nobody who stole the code is let in
    /// in his place.
    pub fn digits(&self) -> String {
        let hash = blake3::derive_key("shoal 2026 digits of an enrolment", &encode(&self.asked));
        let number = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        format!("{:06}", number % 1_000_000)
    }

    /// What goes along with a sign-in for it, so that a provider which carries it signs for this device and no other.
    pub fn nonce(&self) -> String {
        let hash = blake3::derive_key("shoal 2026 nonce of a sign-in", &encode(&self.asked));
        data_encoding::HEXLOWER.encode(&hash)
    }

    /// The entries that let it in, as the directory stands.
    ///
    /// # Errors
    /// It is for another organisation or another invitation, or came too late.
    pub fn entries(
        &self,
        directory: &Directory,
        invitation: &Invitation,
        now_unix_s: u64,
    ) -> Result<Vec<Entry>, Error> {
        if self.asked.organisation != directory.organisation() {
            return Err(Error::Enrolment("it is for another organisation"));
        }
        if self.asked.invitation != invitation.key {
            return Err(Error::Enrolment("it is for another invitation"));
        }
        if now_unix_s > invitation.expires {
            return Err(Error::Enrolment("the invitation is over: invite again"));
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut entries = Vec::new();
        let person = match &invitation.invited {
            Invited::Person { name, unit, flags } => {
                let id = count(directory.people().count());
                let (name, unit, flags) = (name.clone(), unit.clone(), *flags);
                entries.push(Entry::Person(Person { id, name, unit, flags }));
                id
            }
            Invited::Device { person } => *person,
        };
        entries.push(self.device_entry(count(directory.devices().count()), person));
        Ok(entries)
    }
}
