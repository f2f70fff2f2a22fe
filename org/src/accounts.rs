//! By what an organisation's own provider knows its people, and sign-ins there that ask for a device to be let in.
//!
//! None of it stands in the directory: members see names, and no accounts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_host::secret;
use shoal_organisation::Request;
use shoal_topology::Identity;

use crate::OrgError;
use crate::files::{keep_request, read, request_file, unix_s};
use crate::signed_in::{SignedIn, Subject};

/// Most sign-ins that wait at a time.
const MAX_SIGNED_IN: usize = 10_000;
/// Most bytes of the file of a sign-in.
const MAX_FILE: u64 = 4_096;

/// Which account at the provider is whose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// A person of the directory.
    pub person: u32,
    /// By what the provider's admins know him: SCIM's `userName`.
    pub account: String,
    /// The provider at which he signed in, and what it never gives to anybody else; empty if he never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
}

/// Whether two accounts are one: providers do not tell capital letters apart.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// The file of a sign-in.
pub(crate) fn signed_in_file(dir: &Path, invitation: &Identity) -> PathBuf {
    request_file(dir, invitation).with_extension("sign-in")
}

/// The sign-in for this key, if there is one that is not over.
pub(crate) fn kept_sign_in(dir: &Path, invitation: &Identity) -> Option<SignedIn> {
    read_sign_in(&signed_in_file(dir, invitation)).filter(|signed_in| !signed_in.is_over(unix_s()))
}

/// What cannot be read is none: whoever takes requests must not be able to stop admins.
fn read_sign_in(path: &Path) -> Option<SignedIn> {
    if std::fs::metadata(path).ok()?.len() > MAX_FILE {
        return None;
    }
    let signed_in: SignedIn = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(signed_in).filter(SignedIn::is_plain)
}

/// All sign-ins that wait, with the keys that they are for.
pub(crate) fn kept_sign_ins(dir: &Path) -> Vec<(Identity, SignedIn)> {
    let mut found = written_sign_ins(dir);
    let now = unix_s();
    found.retain(|(_, signed_in)| !signed_in.is_over(now));
    found
}

/// Those that are over too.
fn written_sign_ins(dir: &Path) -> Vec<(Identity, SignedIn)> {
    let Ok(files) = std::fs::read_dir(dir.join("requests")) else { return Vec::new() };
    let mut found = Vec::new();
    for file in files.flatten() {
        let path = file.path();
        let key = path.file_stem().and_then(|stem| stem.to_str()).and_then(|key| key.parse().ok());
        if path.extension().is_none_or(|extension| extension != "sign-in") {
            continue;
        }
        if let (Some(key), Some(signed_in)) = (key, read_sign_in(&path)) {
            found.push((key, signed_in));
        }
        if found.len() == MAX_SIGNED_IN {
            break;
        }
    }
    // Whatever order the file system has.
    found.sort_by_key(|(key, signed_in)| (signed_in.expires, *key));
    found
}

/// Writes a sign-in and its request, in place of an older one by the same person, so that nobody fills the disk.
///
/// # Errors
/// They cannot be written, or too many wait.
pub(crate) fn keep_sign_in(
    dir: &Path,
    request: &Request,
    signed_in: &SignedIn,
) -> Result<(), OrgError> {
    let (mut others, now) = (0, unix_s());
    for (key, other) in written_sign_ins(dir) {
        if other.is_over(now) || other.by == signed_in.by {
            end_sign_in(dir, &key);
        } else {
            others += 1;
        }
    }
    if others >= MAX_SIGNED_IN {
        return Err(OrgError::Refused("10,000 sign-ins wait for an admin".into()));
    }
    keep_request(dir, request)?;
    let text = serde_json::to_vec_pretty(signed_in).unwrap_or_default();
    Ok(secret::replace(&signed_in_file(dir, &request.invitation()), &text)?)
}

/// Forgets a sign-in and its request.
pub(crate) fn end_sign_in(dir: &Path, invitation: &Identity) {
    // A request without its sign-in says nothing to anybody, should it stay.
    let _ = std::fs::remove_file(signed_in_file(dir, invitation));
    let _ = std::fs::remove_file(request_file(dir, invitation));
}

/// The accounts, by their file; none if it is not there.
pub(crate) fn read_accounts(dir: &Path) -> Result<Vec<Account>, OrgError> {
    let path = dir.join("accounts.json");
    if !path.exists() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&read(&path)?)
        .map_err(|error| OrgError::Contents { path, why: error.to_string() })
}

/// Writes the accounts.
pub(crate) fn write_accounts(dir: &Path, accounts: &[Account]) -> Result<(), OrgError> {
    let mut text = serde_json::to_vec_pretty(accounts).unwrap_or_default();
    text.push(b'\n');
    Ok(secret::replace(&dir.join("accounts.json"), &text)?)
}
