//! What nodes, listed services, organisations and authorities say to each other on links to authorities.
//!
//! A message is cut into parts of frames ([`crate::wire::client_gateway::DocumentPart`]), one message after the other.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::base::encoding::{decode, encode};

/// Most bytes of a message: a vote on a large network with the signatures of those who passed it on.
pub const MAX_MESSAGE_LEN: usize = 4 << 20;

/// What a node, a service, an organisation or an authority sends to an authority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToAuthority {
    /// A node's signed descriptor.
    Descriptor(Vec<u8>),
    /// The signed descriptor of a service that wants to be listed as an exit.
    Exit(Vec<u8>),
    /// A node's signed report.
    Report(Vec<u8>),
    /// From another authority: votes, signatures.
    Peer(Vec<u8>),
    /// The head of an organisation's directory, with the proof that it continues the last one.
    Head(Vec<u8>),
}

/// From an authority, to all who are linked to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromAuthority {
    /// A document with its signatures.
    Document(Vec<u8>),
}

macro_rules! message {
    ($message:ty) => {
        impl $message {
            /// The canonical bytes, which are cut into parts and put together again.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// Reads canonical bytes.
            ///
            /// # Errors
            /// Bytes of another form, or too many.
            pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
                decode("message to or from an authority", bytes, MAX_MESSAGE_LEN)
            }
        }
    };
}

message!(ToAuthority);
message!(FromAuthority);
