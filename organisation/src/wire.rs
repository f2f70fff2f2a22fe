//! What a device and the service of its organisation say to each other, over a stream of a tunnel: one question, one answer.
//!
//! Each message is its length (u32, big-endian) and its canonical bytes. Behind an answer of batches come so many messages,
//! each a [`crate::SignedBatch`].

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};
use shoal_topology::is_plain;

use crate::{Directory, Error, Request, SignedBatch};

/// The port of the service.
pub const PORT: u16 = 416;
/// Most bytes of a question, or of an answer but for its batches.
pub const MAX_MESSAGE: usize = 2_048;
/// Most bytes of the address of a page for a sign-in.
const MAX_ADDRESS: usize = 256;
/// Most bytes of what is typed there.
const MAX_CODE: usize = 64;
/// What errors call both messages.
const NAME: &str = "message of an organisation's service";

/// What a device asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Question {
    /// To be let in: a [`Request`]. The answer to one that was let in is the whole directory, however often it comes.
    Enrol(Vec<u8>),
    /// What is new beyond so many entries.
    Since {
        /// How many entries the device holds.
        size: u64,
        /// [`Directory::reader_token`] of them.
        token: [u8; 32],
    },
    /// To be let in by a sign-in at the organisation's own provider: a [`Request`] of a code that the device drew itself. Until
    /// somebody signed in, the answer is where; after that it is as for [`Question::Enrol`].
    SignIn(Vec<u8>),
}

/// What the service says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The request waits for an admin.
    Waiting,
    /// So many batches follow.
    Batches(u32),
    /// Nothing for this device.
    Refused(Refusal),
    /// Its owner has to sign in first, and the device asks again.
    SignIn(SignIn),
}

/// What the owner of a device does in a browser, wherever that is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignIn {
    /// The page of the organisation's provider: an address of https, at most 256 bytes.
    pub address: String,
    /// What he types there: at most 64 bytes.
    pub code: String,
    /// For how many seconds the page takes it.
    pub expires_s: u32,
}

impl SignIn {
    /// What comes from a provider is shown to people, so all of it shows, and the address leads to a page and to nothing else.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<(), Error> {
        let plain = |text: &str, most| (1..=most).contains(&text.len()) && is_plain(text);
        let shows = plain(&self.address, MAX_ADDRESS) && plain(&self.code, MAX_CODE);
        let is_page =
            self.address.starts_with("https://") && !self.address.contains(char::is_whitespace);
        if shows && is_page {
            return Ok(());
        }
        Err(Error::Enrolment("the page for the sign-in, or its code, is none that can be shown"))
    }
}

/// Why there is nothing for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No open invitation has this code.
    #[error(
        "no open invitation fits the code: it is over, was used, or was mistyped; ask to be invited again"
    )]
    NoInvitation,
    /// Another device asked with the code before.
    #[error("another device has asked with this code before: tell the admin who invited you")]
    Used,
    /// The device was removed.
    #[error("this device belongs to the organisation no more")]
    Removed,
    /// Whoever asks does not hold the directory that he names, or one that is too old.
    #[error("the directory that this device holds is not one of the organisation's, or too old")]
    NoReader,
    /// Not a question.
    #[error("the question cannot be read")]
    Unreadable,
    /// Too many ask.
    #[error("the organisation's service is busy: later")]
    Busy,
    /// Nobody gets in by a sign-in.
    #[error("this organisation lets nobody in by a sign-in: ask to be invited")]
    NoSignIn,
    /// Nobody signed in in time, or the provider refused him.
    #[error("nobody signed in in time, or the organisation's provider refused: join again")]
    NotSignedIn,
    /// Whoever signed in is none of those whom the organisation lets in so.
    #[error(
        "the organisation does not let in this account by a sign-in: ask its admins, or to be invited"
    )]
    NotAllowed,
}

impl Question {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes of another form, or too many.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(decode(NAME, bytes, MAX_MESSAGE)?)
    }
}

impl Answer {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes of another form, too many, or a page that cannot be shown.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let answer = decode(NAME, bytes, MAX_MESSAGE)?;
        if let Self::SignIn(sign_in) = &answer {
            sign_in.check()?;
        }
        Ok(answer)
    }
}

/// What a device gets that asks for what is new. Nothing where what it holds is older than twice what the policy allows, so that
/// a list which somebody kept does not open the present one.
///
/// # Errors
/// Why it gets nothing.
pub fn since(
    directory: &Directory,
    (size, token): (u64, [u8; 32]),
    now_unix_s: u64,
) -> Result<&[SignedBatch], Refusal> {
    if directory.reader_token(size) != Some(token) {
        return Err(Refusal::NoReader);
    }
    let new = directory.since(size).ok_or(Refusal::NoReader)?;
    let oldest = 2 * u64::from(directory.policy().max_age_s);
    match new.first() {
        Some(next) if next.batch.at.saturating_add(oldest) < now_unix_s => Err(Refusal::NoReader),
        _ => Ok(new),
    }
}

/// What a device gets whose request was let in: the whole directory; `None` if it is not listed.
///
/// # Errors
/// It was removed.
pub fn enrolled<'a>(
    directory: &'a Directory,
    request: &Request,
) -> Result<Option<&'a [SignedBatch]>, Refusal> {
    match directory.device_of_key(&request.device()) {
        Some(device) if device.is_removed => Err(Refusal::Removed),
        Some(_) => Ok(directory.since(0)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_no_page_or_does_not_show_is_no_sign_in() {
        let answer = |address: &str, code: &str| {
            Answer::SignIn(SignIn { address: address.into(), code: code.into(), expires_s: 600 })
        };
        let page = "https://login.example.org/device";
        let good = answer(page, "BCDF-GHJK");
        assert_eq!(Answer::decode(&good.encode()), Ok(good));
        for (address, code) in [
            ("http://login.example.org/device", "BCDF-GHJK"),
            ("javascript:alert(1)", "BCDF-GHJK"),
            ("https://login.example.org/\u{1b}[2J", "BCDF-GHJK"),
            ("https://login.example.org/ x", "BCDF-GHJK"),
            (page, ""),
            (page, "BCDF\nGHJK"),
            (page, "\u{202e}KJHG"),
            (page, &"B".repeat(65)),
            (&format!("https://{}", "a".repeat(256)), "BCDF-GHJK"),
        ] {
            assert!(
                Answer::decode(&answer(address, code).encode()).is_err(),
                "{address:?} {code:?}"
            );
        }
    }
}
