//! What a member's client keeps of his organisation on the disk.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shoal_host::secret::{self, SecretError};
use shoal_organisation::{Directory, MemberDevice, PersonFlags, Request};
use shoal_topology::Identity;
use shoal_topology::encoding::{decode, encode};

/// Most bytes of the small file.
const MAX_KEPT: usize = 4 << 20;

/// Beside the request and the directory.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// The organisation's key.
    pub(super) organisation: Identity,
    /// Its name when it was asked.
    pub(super) name: String,
    /// Entries that were there when this device was let in.
    pub(super) known_up_to: u64,
    /// Devices that came later, and when this client saw each first, Unix seconds.
    pub(super) seen: Vec<(u32, u64)>,
    /// Alarms that nobody has acknowledged.
    pub(super) alarms: Vec<String>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            organisation: Identity([0; 32]),
            name: String::new(),
            known_up_to: 0,
            seen: Vec::new(),
            alarms: Vec::new(),
        }
    }
}

impl Kept {
    /// Until when what is written to a device is held back, Unix seconds; `None` if it is not. By when this client saw it, not by
    /// the date of its entry, which an admin can choose. Devices of people who are new too: a removed person of the same name
    /// may be meant.
    pub(super) fn held_until(&self, directory: &Directory, device: &MemberDevice) -> Option<u64> {
        if device.since < self.known_up_to || device.device.vouched.is_some() {
            return None;
        }
        let (_, seen) = self.seen.iter().find(|(id, _)| *id == device.device.id)?;
        let owner = directory.person(device.device.person)?;
        let policy = directory.policy();
        let marked = owner.person.flags.has(PersonFlags::MARKED);
        let hold = if marked { policy.marked_hold_s } else { policy.hold_s };
        let until = seen.saturating_add(hold.into());
        (until > crate::daemon::clock::unix_s()).then_some(until)
    }
}

/// Writes all of it: the directory last, as the others say what it is.
pub(super) fn write(
    data_dir: &Path,
    kept: &Kept,
    request: &Request,
    directory: &Directory,
) -> Result<(), SecretError> {
    let place = super::place(data_dir);
    secret::private_directory(&place)?;
    secret::replace(&place.join("request"), &request.encode())?;
    secret::replace(&place.join("directory"), &directory.encode())?;
    secret::replace(&place.join("kept"), &encode(kept))
}

/// Reads all of it; `None` if no organisation was ever asked.
pub(super) fn read(data_dir: &Path) -> Result<Option<(Kept, Request, Directory)>, SecretError> {
    let place = super::place(data_dir);
    let io = |path: &Path, source| SecretError::Io { path: path.to_owned(), source };
    let bytes = |name: &str| {
        let path = place.join(name);
        std::fs::read(&path).map_err(|source| io(&path, source))
    };
    if !place.join("kept").exists() {
        return Ok(None);
    }
    let wrong = |name: &str, error: &dyn std::fmt::Display| {
        let why = format!("{error}; move {} away to join anew", place.display());
        io(&place.join(name), std::io::Error::new(std::io::ErrorKind::InvalidData, why))
    };
    let kept: Kept =
        decode("state of a member", &bytes("kept")?, MAX_KEPT).map_err(|e| wrong("kept", &e))?;
    let request = Request::decode(&bytes("request")?).map_err(|e| wrong("request", &e))?;
    let directory = Directory::decode(&bytes("directory")?).map_err(|e| wrong("directory", &e))?;
    Ok(Some((kept, request, directory)))
}
