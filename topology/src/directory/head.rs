//! The head of an organisation's directory: a few bytes that fix a whole list of people and devices.

use serde::{Deserialize, Serialize};

use super::address::ServiceAddress;
use crate::{Error, Identity, is_plain};

/// Most bytes of an organisation's name.
pub const MAX_NAME_LEN: usize = 32;
/// Most entries of a directory.
pub const MAX_ENTRIES: u64 = 1 << 24;
/// What an organisation's directory is at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryHead {
    /// The organisation's name, 1 to 32 bytes.
    pub name: String,
    /// The organisation's key.
    pub identity: Identity,
    /// Entries in the directory, at least one.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: [u8; 32],
    /// Identity and gateway of the service that gives the directory to members, if there is one.
    pub service: Option<(Identity, Identity)>,
    /// Unix time of the signature, seconds: of two heads of one size the later holds.
    pub signed_at: u64,
}

impl DirectoryHead {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Invalid { what: "directory head", why: why.into() });
        let sound = !self.name.is_empty() && self.name.len() <= MAX_NAME_LEN;
        if !sound || !is_plain(&self.name) || self.name.trim() != self.name {
            return wrong("an organisation's name has 1 to 32 bytes, all of which show");
        }
        if self.size == 0 || self.size > MAX_ENTRIES {
            return wrong("a directory has at least one entry, and at most 16,777,216");
        }
        Ok(())
    }

    /// Where members ask for the directory, if anywhere.
    pub fn service(&self) -> Option<ServiceAddress> {
        let address = |(identity, gateway): (Identity, Identity)| ServiceAddress {
            identity: identity.0,
            gateway: gateway.0,
        };
        self.service.map(address)
    }
}
