//! What a device and the service of its organisation say to each other, over a stream of a tunnel: one question, one answer.
//!
//! Each message is its length (u32, big-endian) and its canonical bytes. Behind an answer of batches come so many messages,
//! each a [`crate::SignedBatch`].

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};

use crate::{Directory, Error, Request, SignedBatch};

/// The port of the service.
pub const PORT: u16 = 416;
/// Most bytes of a question, or of an answer but for its batches.
pub const MAX_MESSAGE: usize = 2_048;

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
}

macro_rules! message {
    ($message:ty) => {
        impl $message {
            /// The canonical bytes.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// Reads canonical bytes.
            ///
            /// # Errors
            /// Bytes of another form, or too many.
            pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
                Ok(decode("message of an organisation's service", bytes, MAX_MESSAGE)?)
            }
        }
    };
}

message!(Question);
message!(Answer);

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
