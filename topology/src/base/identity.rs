//! Names and signatures: Ed25519 identities, epochs, layers.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::Error;

/// An Ed25519 public key: the identity of a node, a client, an authority, or the address of an inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    /// The public key as RFC 8032 encodes it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// True if it is a public key at all, by which a signature could be verified: half of all mistyped ones are none.
    pub fn is_key(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// True if `signature` is this identity's over `message` in `context`.
    pub fn verify(&self, context: Context, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        // A weak key would sign everything.
        !key.is_weak() && key.verify(&context.separate(message), &signature.to_dalek()).is_ok()
    }

    /// True if each of these identities signed its message, all in one `context`, for less than half of what one after
    /// the other costs. Signatures that hold alone hold together; which of them does not is for the caller to find.
    pub fn all_signed(context: Context, signed: &[(Self, &[u8], Signature)]) -> bool {
        let key = |identity: &Self| {
            VerifyingKey::from_bytes(&identity.0).ok().filter(|key| !key.is_weak())
        };
        // A batch with a weak key could hold together although a signature in it does not hold alone.
        let keys: Option<Vec<VerifyingKey>> =
            signed.iter().map(|(identity, ..)| key(identity)).collect();
        let Some(keys) = keys else { return false };
        let messages: Vec<Vec<u8>> =
            signed.iter().map(|(_, message, _)| context.separate(message)).collect();
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let signatures: Vec<_> =
            signed.iter().map(|(.., signature)| signature.to_dalek()).collect();
        ed25519_dalek::verify_batch(&messages, &signatures, &keys).is_ok()
    }
}

/// The full key, in base32; wrap it in `Sensitive` wherever it could be a client's.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

/// Deliberately empty of content: identities reach logs by accident through `{:?}`.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl std::str::FromStr for Identity {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        let wrong = || Error::Invalid {
            what: "identity",
            why: "it must be the base32 of 32 bytes (52 characters)".into(),
        };
        let bytes =
            data_encoding::BASE32_NOPAD_NOCASE.decode(s.trim().as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

/// What is signed: a signature for one purpose is worth nothing for another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A node's descriptor.
    Node,
    /// A client's descriptor.
    Client,
    /// An epoch document.
    Document,
    /// A client's proof that an inbox is its own.
    Inbox,
    /// A node's report of loops.
    Report,
    /// An authority's vote, by its author and by those who pass it on.
    Vote,
    /// The head of an organisation's directory.
    Head,
    /// A batch of entries of an organisation's directory.
    Directory,
    /// A device's request to be listed in an organisation's directory.
    Enrolment,
    /// A device's word that another one has the same owner.
    Vouch,
    /// A device's word that a session with another device is its own.
    Opening,
    /// An entry of the log of a group of people.
    Group,
}

impl Context {
    fn separate(self, message: &[u8]) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Node => b"shoal 1 node descriptor\0",
            Self::Client => b"shoal 1 client descriptor\0",
            Self::Document => b"shoal 1 epoch document\0",
            Self::Inbox => b"shoal 1 inbox proof\0",
            Self::Report => b"shoal 1 report\0",
            Self::Vote => b"shoal 1 vote\0",
            Self::Head => b"shoal 1 directory head\0",
            Self::Directory => b"shoal 1 directory batch\0",
            Self::Enrolment => b"shoal 1 enrolment\0",
            Self::Vouch => b"shoal 1 device of the same person\0",
            Self::Opening => b"shoal 1 opening of a session\0",
            Self::Group => b"shoal 1 group entry\0",
        };
        // No name is the beginning of another, as each ends with a zero: so no message of one purpose can be one of
        // another.
        [name, message].concat()
    }
}

/// The secret half of an [`Identity`]. Wiped when dropped, and without `Debug`.
#[derive(Clone)]
pub struct SecretIdentity(SigningKey);

impl SecretIdentity {
    /// Of the 32 bytes that its file holds (RFC 8032's seed).
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn identity(&self) -> Identity {
        Identity(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for one purpose.
    pub fn sign(&self, context: Context, message: &[u8]) -> Signature {
        let bytes = self.0.sign(&context.separate(message)).to_bytes();
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..]);
        Signature { r, s }
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

impl Signature {
    fn to_dalek(self) -> ed25519_dalek::Signature {
        ed25519_dalek::Signature::from_components(self.r, self.s)
    }
}

/// A number of an epoch: Unix time divided by the epoch's length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The byte that frames carry.
    pub fn low_byte(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
