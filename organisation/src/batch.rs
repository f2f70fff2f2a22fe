//! Entries that admins signed together.

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};
use shoal_topology::{Context, Identity, SecretIdentity, Signature};

use crate::{Entry, Error};

/// Most entries of a batch.
pub const MAX_BATCH: usize = 1_024;
/// Most bytes of a signed batch.
const MAX_LEN: usize = 1 << 20;
/// Most signatures of a batch.
pub(crate) const MAX_SIGNATURES: usize = 4;
/// The number of the organisation's own key among those who sign. It signs the first batch and no other.
pub const FOUNDER: u16 = 0;

/// Entries that come together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The number of its first entry: how many stand before it.
    pub number: u64,
    /// [`Batch::hash`] of the batch before it; zeros for the first.
    pub before: [u8; 32],
    /// When it was made, Unix seconds; not before the batch before it.
    pub at: u64,
    /// 1 to [`MAX_BATCH`] entries.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// What the next batch names this one by. It follows from every entry so far.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("shoal 2026 batch of a directory", &encode(self))
    }

    /// What admins sign.
    pub(crate) fn signed(&self, organisation: &Identity) -> Vec<u8> {
        encode(&(organisation, self))
    }
}

/// A batch and who signed it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedBatch {
    /// What they signed.
    pub batch: Batch,
    /// Numbers of admins, ascending, and their signatures.
    pub signatures: Vec<(u16, Signature)>,
}

impl SignedBatch {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes; whether it can stand is for [`crate::Directory::extend`].
    ///
    /// # Errors
    /// Bytes of another form, or too many.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(decode("batch of a directory", bytes, MAX_LEN)?)
    }
}

/// A batch that waits for signatures: a file that goes from one admin to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    organisation: Identity,
    signed: SignedBatch,
}

impl Draft {
    pub(crate) fn new(organisation: Identity, batch: Batch) -> Self {
        Self { organisation, signed: SignedBatch { batch, signatures: Vec::new() } }
    }

    /// Of what another admin signed. Read the entries before you sign.
    pub fn of(organisation: Identity, signed: SignedBatch) -> Self {
        Self { organisation, signed }
    }

    /// Adds the signature of an admin, or replaces it.
    pub fn sign(&mut self, admin: u16, secret: &SecretIdentity) {
        let message = self.signed.batch.signed(&self.organisation);
        let signature = secret.sign(Context::Directory, &message);
        let signatures = &mut self.signed.signatures;
        match signatures.binary_search_by_key(&admin, |(by, _)| *by) {
            Ok(at) => {
                if let Some(known) = signatures.get_mut(at) {
                    known.1 = signature;
                }
            }
            Err(at) => signatures.insert(at, (admin, signature)),
        }
    }

    /// The batch as it is signed so far.
    pub fn signed(&self) -> &SignedBatch {
        &self.signed
    }
}
