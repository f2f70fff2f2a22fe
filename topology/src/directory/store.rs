//! The documents that somebody holds: which is in use in an epoch, and two of one epoch, of which one must be a lie.

use std::sync::Arc;

use crate::{Document, Epoch, FURTHER_EPOCHS, Standing};

/// A verified document and its signed bytes.
#[derive(Clone, Debug)]
pub struct VerifiedDocument {
    /// The document, decoded.
    pub document: Arc<Document>,
    /// The signed bytes as they came.
    pub signed: Arc<[u8]>,
}

/// Two documents of one epoch that contradict each other, each with its signatures: more authorities lie than the
/// network can bear. Whoever sees it stops and keeps both.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "two topology documents of epoch {epoch} contradict each other: the authorities cannot be trusted; keep both as proof \
     and ask those who run the network"
)]
pub struct EquivocationProof {
    /// The epoch that both are of.
    pub epoch: Epoch,
    /// The signed bytes of the one that was here first.
    pub first: Arc<[u8]>,
    /// The signed bytes of the other one.
    pub second: Arc<[u8]>,
}

/// Documents by epoch, a few of them.
#[derive(Clone, Debug, Default)]
pub struct DocumentStore {
    /// The earliest first, one for each epoch.
    held: Vec<VerifiedDocument>,
}

impl DocumentStore {
    /// Takes a document that was verified. True if it brings something new: another epoch, or a later amendment.
    /// Documents that are older than all that can be in use go.
    ///
    /// # Errors
    /// It contradicts one that is held; nothing changes.
    pub fn insert(&mut self, new: VerifiedDocument) -> Result<bool, EquivocationProof> {
        let epoch = new.document.epoch;
        let at = self.held.partition_point(|held| held.document.epoch < epoch);
        match self.held.get_mut(at).filter(|held| held.document.epoch == epoch) {
            Some(held) => {
                // Compared before amendments are: an older amendment that contradicts is as much of a lie as a newer
                // one.
                if !agree(&held.document, &new.document) {
                    let (first, second) = (held.signed.clone(), new.signed);
                    return Err(EquivocationProof { epoch, first, second });
                }
                if new.document.amendment <= held.document.amendment {
                    return Ok(false);
                }
                *held = new;
            }
            None => self.held.insert(at, new),
        }
        let newest = self.held.last().map_or(0, |held| held.document.epoch.0);
        // One more than can be in use: packets of the epoch before are still under way by it.
        self.held.retain(|held| held.document.epoch.0 + FURTHER_EPOCHS + 1 >= newest);
        Ok(true)
    }

    /// The document in use in an epoch: the latest that does not begin after it, if it has keys for it.
    pub fn at(&self, epoch: Epoch) -> Option<&VerifiedDocument> {
        let held = self.held.iter().rev().find(|held| held.document.epoch <= epoch)?;
        // Beyond that its nodes have no keys that the document lists.
        (epoch.0 - held.document.epoch.0 <= FURTHER_EPOCHS).then_some(held)
    }

    /// The present epoch at this second of Unix time, by the earliest document.
    pub fn epoch_at(&self, unix_s: u64) -> Option<Epoch> {
        self.held.first().map(|held| held.document.epoch_at(unix_s))
    }

    /// The document of the latest epoch and amendment.
    pub fn newest(&self) -> Option<&VerifiedDocument> {
        self.held.last()
    }

    /// All that are held, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedDocument> {
        self.held.iter()
    }
}

/// True if two documents of one epoch can both be the authorities': equal, or the later amendment only takes away
/// standing.
fn agree(one: &Document, other: &Document) -> bool {
    let (earlier, later) =
        if one.amendment <= other.amendment { (one, other) } else { (other, one) };
    // By what an amendment may do, applied to the earlier one: whatever else differs is a contradiction.
    let mut expected = earlier.clone();
    if earlier.amendment < later.amendment {
        expected.amendment = later.amendment;
        for (node, later) in expected.nodes.iter_mut().zip(&later.nodes) {
            if later.standing == Standing::Demoted {
                node.standing = Standing::Demoted;
            }
        }
    }
    expected == *later
}
