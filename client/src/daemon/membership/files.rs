//! What a member's client keeps of his organisation on the disk.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shoal_host::secret::{self, SecretError};
use shoal_organisation::{Directory, Entry, PersonFlags, Request};
use shoal_topology::Identity;
use shoal_topology::encoding::{decode, encode};

use crate::daemon::clock::unix_s;

/// Most bytes of the small file.
const MAX_KEPT: usize = 4 << 20;

/// Beside the request and the directory.
#[derive(Serialize, Deserialize)]
pub(super) struct MembershipRecord {
    /// The organisation's key.
    pub(super) organisation: Identity,
    /// Its name when it was asked.
    pub(super) name: String,
    /// When a document last had the head of the directory that is here, Unix seconds.
    pub(super) agreed_at: u64,
    /// Devices that are new to this client, or whose owner goes by a new name, and until when what is written to them is held
    /// back, Unix seconds. By when this client saw it, not by the date of an entry, which an admin can choose.
    pub(super) held: Vec<(u32, u64)>,
    /// Alarms that nobody has acknowledged.
    pub(super) alarms: Vec<String>,
    /// It asked by a sign-in at the organisation's provider, and not by an invitation.
    pub(super) by_sign_in: bool,
}

/// How long what is written to a new device of this person is held back, seconds.
fn hold_s(directory: &Directory, person: u32) -> u64 {
    let marked = directory.person(person).is_some_and(|m| m.person.flags.has(PersonFlags::MARKED));
    let policy = directory.policy();
    (if marked { policy.marked_hold_s.max(policy.hold_s) } else { policy.hold_s }).into()
}

impl MembershipRecord {
    /// Of an organisation that is about to be asked.
    pub(super) fn new(organisation: Identity, name: String) -> Self {
        let (held, alarms) = (Vec::new(), Vec::new());
        Self { organisation, name, agreed_at: 0, held, alarms, by_sign_in: false }
    }

    /// Until when what is written to a device is held back; `None` if it is not.
    pub(super) fn held_until(&self, device: u32) -> Option<u64> {
        let (_, until) = self.held.iter().find(|(id, _)| *id == device)?;
        (*until > unix_s()).then_some(*until)
    }

    /// Notes which devices are new by the entries between two states of a directory. What is held back already stays so as
    /// long as it was to: an entry cannot shorten it.
    pub(super) fn hold(&mut self, before: &Directory, after: &Directory) {
        let now = unix_s();
        self.held.retain(|(_, until)| *until > now);
        // By the policy and the mark that hold longer: both could be part of what is new.
        let longest = |person| hold_s(before, person).max(hold_s(after, person));
        for device in after.devices().filter(|device| !device.is_removed) {
            let (id, person) = (device.device.id, device.device.person);
            let name =
                |directory: &Directory| directory.person(person).map(|m| m.person.name.clone());
            let is_new = before.device(id).is_none();
            let renamed = name(before).is_some_and(|was| Some(was) != name(after));
            // The word of a device that others write to already.
            let vouched = device.device.vouched.as_ref().is_some_and(|vouch| {
                before.device(vouch.device).is_some() && self.held_until(vouch.device).is_none()
            });
            if !(is_new && !vouched || renamed) {
                continue;
            }
            let until = now.saturating_add(longest(person));
            match self.held.iter_mut().find(|(held, _)| *held == id) {
                Some((_, held)) => *held = until.max(*held),
                None => self.held.push((id, until)),
            }
        }
    }

    /// Notes which devices are new to a client that was let in just now: those whose entries are younger than what the policy
    /// holds back.
    pub(super) fn begin(&mut self, directory: &Directory) {
        let now = unix_s();
        for listed in directory.entries(0..directory.size()) {
            let Entry::Device(device) = listed.entry else { continue };
            let until =
                listed.batch.batch.at.min(now).saturating_add(hold_s(directory, device.person));
            let first = directory.device(device.id).is_some_and(|held| held.since == listed.number);
            if first && until > now {
                self.held.push((device.id, until));
            }
        }
    }
}

/// Writes all of it: the directory last, so that after a crash in between its entries are new once more, and nothing is told too
/// seldom.
pub(super) fn write(
    data_dir: &Path,
    kept: &MembershipRecord,
    request: &Request,
    directory: &Directory,
) -> Result<(), SecretError> {
    let place = super::place(data_dir);
    secret::private_directory(&place)?;
    secret::replace(&place.join("request"), &request.encode())?;
    write_kept(data_dir, kept)?;
    secret::replace(&place.join("directory"), &directory.encode())
}

/// Writes what changes though the directory does not.
pub(super) fn write_kept(data_dir: &Path, kept: &MembershipRecord) -> Result<(), SecretError> {
    secret::replace(&super::place(data_dir).join("kept"), &encode(kept))
}

/// Reads all of it; `None` if no organisation was ever asked.
pub(super) fn read(
    data_dir: &Path,
) -> Result<Option<(MembershipRecord, Request, Directory)>, SecretError> {
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
    let kept: MembershipRecord =
        decode("state of a member", &bytes("kept")?, MAX_KEPT).map_err(|e| wrong("kept", &e))?;
    let request = Request::decode(&bytes("request")?).map_err(|e| wrong("request", &e))?;
    let directory = match place.join("directory").exists() {
        true => Directory::decode(&bytes("directory")?).map_err(|e| wrong("directory", &e))?,
        false => Directory::new(kept.organisation),
    };
    // After a crash while another organisation was asked it is still that of the one before.
    let is_its = directory.organisation() == kept.organisation;
    let directory = if is_its { directory } else { Directory::new(kept.organisation) };
    Ok(Some((kept, request, directory)))
}
