//! What an authority needs after a crash.

use serde::{Deserialize, Serialize};

use crate::base::encoding::{decode, encode};
use crate::{Epoch, Error, Identity, MAX_DOCUMENT_LEN};

/// Documents that it remembers to have signed: those of a few epochs with many amendments.
const SIGNED: usize = 4_096;
/// Most bytes of a state.
const MAX_STATE_LEN: usize = 8 * MAX_DOCUMENT_LEN;

/// What lies on the disk.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Epoch, amendment and hash of what it signed, or was about to.
    signed: Vec<(Epoch, u16, [u8; 32])>,
    /// Signed documents that it held.
    pub(super) documents: Vec<Vec<u8>>,
    /// Descriptors of nodes that it knew.
    pub(super) descriptors: Vec<Vec<u8>>,
    /// What it promised to reveal at the next draw.
    pub(super) current: [u8; 32],
    /// And at the one after it.
    pub(super) next: [u8; 32],
    /// Authorities that were proven to lie.
    pub(super) liars: Vec<Identity>,
}

impl State {
    /// True if a body may be signed: notes that it is, unless another of the same epoch and amendment is noted.
    pub(super) fn may_sign(&mut self, epoch: Epoch, amendment: u16, hash: [u8; 32]) -> bool {
        let noted = self.signed.iter().find(|(e, a, _)| (*e, *a) == (epoch, amendment));
        if let Some((.., noted)) = noted {
            return *noted == hash;
        }
        // What is older than all that is noted may have been forgotten.
        // Forgetting must not allow a second signature: what is older than all that is left is refused.
        if self.signed.len() >= SIGNED {
            let oldest = self.signed.iter().map(|(e, a, _)| (*e, *a)).min();
            if oldest.is_some_and(|oldest| (epoch, amendment) < oldest) {
                return false;
            }
            self.signed.retain(|(e, a, _)| Some((*e, *a)) != oldest);
        }
        self.signed.push((epoch, amendment, hash));
        true
    }

    #[cfg(test)]
    pub(super) fn signed_count(&self) -> usize {
        self.signed.len()
    }

    /// The canonical bytes, for the disk.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("state of an authority", bytes, MAX_STATE_LEN)
    }
}
