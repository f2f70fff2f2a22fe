//! Reading and writing what lies in an organisation's directory of files.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_host::secret;
use shoal_organisation::{Directory, Request};
use shoal_topology::Identity;

use crate::OrgError;
use crate::invitations::{InvitationRecord, Open};

/// Most bytes of a file that is read.
const MAX_FILE: u64 = 64 << 20;

/// The file of the request for an invitation.
pub(crate) fn request_file(dir: &Path, invitation: &Identity) -> PathBuf {
    dir.join("requests").join(format!("{invitation}.request"))
}

/// Writes a request where [`Registry::open`] finds it.
pub(crate) fn keep_request(dir: &Path, request: &Request) -> Result<(), OrgError> {
    secret::private_directory(&dir.join("requests"))?;
    Ok(secret::replace(&request_file(dir, &request.invitation()), &request.encode())?)
}

/// The request that came first for an invitation, if one did.
pub(crate) fn kept_request(dir: &Path, invitation: &Identity) -> Option<Request> {
    Request::decode(&std::fs::read(request_file(dir, invitation)).ok()?).ok()
}

/// Invitations that are open, by a file.
pub(crate) fn read_invitations(path: &Path) -> Result<Vec<Open>, OrgError> {
    let wrong = |why: String| OrgError::Contents { path: path.into(), why };
    let records: Vec<InvitationRecord> =
        serde_json::from_slice(&read(path)?).map_err(|error| wrong(error.to_string()))?;
    records.into_iter().map(InvitationRecord::read).collect::<Result<_, _>>().map_err(wrong)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, OrgError> {
    let failed = |source| OrgError::File { path: path.into(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(OrgError::Contents {
            path: path.into(),
            why: "it has more than 64 MiB".into(),
        });
    }
    std::fs::read(path).map_err(failed)
}

pub(crate) fn read_directory(path: &Path, organisation: &Identity) -> Result<Directory, OrgError> {
    let wrong = |why: String| OrgError::Contents { path: path.into(), why };
    let directory = Directory::decode(&read(path)?).map_err(|error| wrong(error.to_string()))?;
    if directory.organisation() != *organisation {
        return Err(wrong("it is the directory of another organisation".into()));
    }
    Ok(directory)
}

/// Seconds of Unix time by this machine's clock.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
