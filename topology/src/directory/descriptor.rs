//! What nodes and clients say of themselves, signed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use shoal_sphinx::PublicKey;

use super::head::DirectoryHead;
use crate::base::encoding::{decode, encode};
use crate::{Context, Epoch, Error, Identity, SecretIdentity, Signature, is_plain};

/// Most bytes of one descriptor: what an answer by SURB can carry.
pub const MAX_DESCRIPTOR_LEN: usize = 1_900;
/// Most bytes that a client's descriptor carries beside what the mixnet needs.
pub const MAX_ATTACHED_LEN: usize = 1_300;

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Holds and reorders packets.
    Mix,
    /// Entry and inbox of clients.
    Gateway,
}

/// A Sphinx key and the epochs in which it opens packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochKey {
    /// The first epoch in which it opens packets.
    pub first: Epoch,
    /// The last epoch in which it opens packets.
    pub last: Epoch,
    /// X25519 public key.
    pub key: [u8; 32],
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeDescriptor {
    /// Its long-lived key, by which links and packets name it.
    pub identity: Identity,
    /// What it does.
    pub role: Role,
    /// Where it listens, best first.
    pub addresses: Vec<SocketAddr>,
    /// The administrative unit that runs it.
    pub operator: String,
    /// The jurisdiction that it is under.
    pub jurisdiction: String,
    /// How many new packets it declares to take, 1/s.
    pub packets_per_s: u32,
    /// Its Sphinx keys.
    pub keys: Vec<EpochKey>,
    /// Unix time of the signature, seconds: of two descriptors the later holds.
    pub signed_at: u64,
}

impl NodeDescriptor {
    /// Its key for an epoch.
    pub fn key(&self, epoch: Epoch) -> Option<PublicKey> {
        self.key_bytes(epoch).and_then(|key| PublicKey::from_bytes(*key).ok())
    }

    /// True if [`Self::key`] has one, which costs it a square root.
    pub(crate) fn has_key(&self, epoch: Epoch) -> bool {
        self.key_bytes(epoch).is_some_and(|key| PublicKey::check(key).is_ok())
    }

    fn key_bytes(&self, epoch: Epoch) -> Option<&[u8; 32]> {
        let fits = |key: &&EpochKey| key.first <= epoch && epoch <= key.last;
        self.keys.iter().find(fits).map(|key| &key.key)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Invalid { what: "node descriptor", why: why.into() });
        if self.addresses.is_empty() || self.addresses.len() > 4 {
            return wrong("a node has 1 to 4 addresses");
        }
        if self.keys.is_empty() || self.keys.len() > 8 {
            return wrong("a node lists 1 to 8 keys");
        }
        if self.keys.iter().any(|key| key.first > key.last) {
            return wrong("a key's last epoch comes before its first");
        }
        if self.keys.iter().any(|key| PublicKey::check(&key.key).is_err()) {
            return wrong("a key is a point of small order");
        }
        if [&self.operator, &self.jurisdiction]
            .iter()
            .any(|name| name.is_empty() || name.len() > 64)
        {
            return wrong("operator and jurisdiction have 1 to 64 bytes");
        }
        if ![&self.operator, &self.jurisdiction].iter().all(|name| is_plain(name)) {
            return wrong("operator or jurisdiction has characters that do not show");
        }
        Ok(())
    }
}

/// How others reach a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientDescriptor {
    /// Its long-lived key: the first label of its address.
    pub identity: Identity,
    /// Its X25519 key of the period.
    pub key: [u8; 32],
    /// Where its packets wait at its gateways: the public half of its inbox key.
    pub inbox: Identity,
    /// One or two gateways, the preferred one first.
    pub gateways: Vec<Identity>,
    /// First second (Unix time) of the period.
    pub not_before: u64,
    /// Last second of the period.
    pub not_after: u64,
    /// What it tells those who know it from elsewhere: of a member of an organisation, the keys with which others open sessions.
    /// At most [`MAX_ATTACHED_LEN`] bytes; most clients, and all exits, have none.
    pub attached: Vec<u8>,
}

impl ClientDescriptor {
    /// The client's X25519 key, if it is one.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(self.key).ok()
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Invalid { what: "client descriptor", why: why.into() });
        if self.gateways.is_empty() || self.gateways.len() > 2 {
            return wrong("a client has one or two gateways");
        }
        if self.public_key().is_none() {
            return wrong("its key is a point of small order");
        }
        if self.not_before > self.not_after {
            return wrong("its period ends before it begins");
        }
        if self.attached.len() > MAX_ATTACHED_LEN {
            return wrong("it carries more than 1,300 bytes for those who know the client");
        }
        Ok(())
    }
}

/// Something with the signature of whom it names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signed<T> {
    body: T,
    signature: Signature,
}

macro_rules! signed {
    ($body:ty, $what:literal, $context:expr) => {
        impl Signed<$body> {
            /// Signs it; `secret` must be the key of the identity it names.
            pub fn new(body: $body, secret: &SecretIdentity) -> Self {
                let signature = secret.sign($context, &encode(&body));
                Self { body, signature }
            }

            /// The canonical bytes: what is sent, and what hashes are taken of.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// Reads canonical bytes; whoever reads checks.
            ///
            /// # Errors
            /// Bytes of another form, values that break a rule, a signature by somebody else.
            pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
                let signed: Self = decode($what, bytes, MAX_DESCRIPTOR_LEN)?;
                signed.verify()?;
                Ok(signed)
            }

            /// Checks its values and its signature.
            ///
            /// # Errors
            /// As [`Self::decode`].
            pub fn verify(&self) -> Result<(), Error> {
                self.body.check()?;
                let signed = encode(&self.body);
                if self.body.identity.verify($context, &signed, &self.signature) {
                    Ok(())
                } else {
                    Err(Error::Signature { what: $what })
                }
            }

            /// What was signed.
            pub fn body(&self) -> &$body {
                &self.body
            }
        }
    };
}

/// Checks many descriptors, as [`Signed::verify`] does each.
pub(crate) fn verify_all<'a>(
    descriptors: impl Iterator<Item = &'a Signed<NodeDescriptor>> + Clone,
) -> Result<(), Error> {
    descriptors.clone().try_for_each(|one| one.body.check())?;
    let bodies: Vec<Vec<u8>> = descriptors.clone().map(|one| encode(&one.body)).collect();
    let signed = descriptors.clone().zip(&bodies);
    let signed = signed.map(|(one, body)| (one.body.identity, body.as_slice(), one.signature));
    if Identity::all_signed(Context::Node, &signed.collect::<Vec<_>>()) {
        return Ok(());
    }
    // Which one it is.
    descriptors.into_iter().try_for_each(Signed::<NodeDescriptor>::verify)
}

signed!(NodeDescriptor, "node descriptor", Context::Node);
signed!(ClientDescriptor, "client descriptor", Context::Client);
signed!(DirectoryHead, "directory head", Context::Head);
