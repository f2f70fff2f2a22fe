//! What authorities say to each other: votes, with the signatures of those who passed them on; signatures of documents.

use serde::{Deserialize, Serialize};

use super::schedule::SessionId;
use crate::base::encoding::{decode, encode};
use crate::directory::descriptor::verify_all;
use crate::wire::authorities::MAX_MESSAGE_LEN;
use crate::{
    ClientDescriptor, Context, Document, Epoch, Error, HeadUpdate, Identity, NodeDescriptor,
    Parameters, SecretIdentity, Signature, Signed,
};

/// Names a certified document: epoch, amendment, hash of what was signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Basis {
    /// The epoch of the document.
    pub epoch: Epoch,
    /// The amendment of the document.
    pub amendment: u16,
    /// BLAKE3 of its bytes without signatures.
    pub hash: [u8; 32],
}

impl Basis {
    pub(crate) fn of(document: &Document) -> Self {
        let hash = *blake3::hash(&encode(document)).as_bytes();
        Self { epoch: document.epoch, amendment: document.amendment, hash }
    }

    pub(crate) fn names(&self, document: &Document) -> bool {
        (self.epoch, self.amendment) == (document.epoch, document.amendment)
            && *self == Self::of(document)
    }
}

/// What an authority wants in the document of the next epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Length of an epoch, seconds.
    pub epoch_s: u32,
    /// Rates, delays, limits, classes.
    pub parameters: Parameters,
    /// The nodes that it knows, ordered by identity.
    pub nodes: Vec<Signed<NodeDescriptor>>,
    /// Mean sizes of pools, coarse.
    pub pools: Vec<(Identity, u8)>,
    /// Services to be listed, ordered by identity.
    pub exits: Vec<Signed<ClientDescriptor>>,
    /// Heads of organisations' directories, ordered by their keys, each with the proof that it continues the one in the
    /// basis.
    pub heads: Vec<HeadUpdate>,
    /// Nodes that behave again.
    pub restore: Vec<Identity>,
    /// Hash of what it will reveal for the draw after the next one that this document brings, or for the next.
    pub commitment: [u8; 32],
    /// What the basis has its commitment to, if this document brings a draw.
    pub reveal: Option<[u8; 32]>,
}

/// What an authority says in a session, before it is signed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// Name of the network.
    pub network: String,
    /// The authority whose vote it is.
    pub author: Identity,
    /// The session that it is for.
    pub session: SessionId,
    /// The latest document that it holds.
    pub basis: Option<Basis>,
    /// Nodes that should lose their standing.
    pub demote: Vec<Identity>,
    /// What it wants in the next document; only in the session that makes one.
    pub proposal: Option<Proposal>,
}

impl Vote {
    /// True if it lists a node that says to have signed after this second of Unix time.
    pub(crate) fn is_of_the_future(&self, unix_s: u64) -> bool {
        let nodes = self.proposal.iter().flat_map(|proposal| &proposal.nodes);
        nodes.into_iter().any(|node| node.body().signed_at > unix_s)
    }

    /// True if it lists what its nodes and services never signed, or not in order: no honest authority votes so.
    pub(crate) fn made_up(&self) -> bool {
        let Some(proposal) = &self.proposal else { return false };
        let nodes = proposal.nodes.iter().map(|node| node.body().identity);
        let exits = proposal.exits.iter().map(|exit| exit.body().identity);
        let heads = proposal.heads.iter().map(|update| update.head.body().identity);
        !nodes.is_sorted_by(|a, b| a < b)
            || !heads.is_sorted_by(|a, b| a < b)
            || proposal.heads.iter().any(|update| update.head.verify().is_err())
            || !exits.is_sorted_by(|a, b| a < b)
            || verify_all(proposal.nodes.iter()).is_err()
            || proposal.exits.iter().any(|exit| exit.verify().is_err())
    }
}

/// A vote, signed by its author first and then by those who passed it on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SignedVote {
    /// The canonical bytes of a [`Vote`].
    pub vote: Vec<u8>,
    /// Who signed these bytes, the author first.
    pub signatures: Vec<(Identity, Signature)>,
}

impl SignedVote {
    /// An author's own vote, with one signature.
    pub fn of(vote: &Vote, secret: &SecretIdentity) -> Self {
        let mut relay = Self { vote: encode(vote), signatures: Vec::new() };
        relay.sign(secret);
        relay
    }

    /// Adds the signature of this authority.
    pub fn sign(&mut self, secret: &SecretIdentity) {
        self.signatures.push((secret.identity(), secret.sign(Context::Vote, &self.vote)));
    }

    /// The vote, if all signatures are by different `authorities`, the first by the author.
    ///
    /// # Errors
    /// Which of this does not hold.
    pub fn verify(&self, authorities: &[Identity]) -> Result<Vote, Error> {
        let wrong = |why: &str| Err(Error::Invalid { what: "vote", why: why.into() });
        let vote: Vote = decode("vote", &self.vote, MAX_MESSAGE_LEN)?;
        // Else whoever passes a vote on could make one up for its author.
        if self.signatures.first().map(|(author, _)| *author) != Some(vote.author) {
            return wrong("its author did not sign it first");
        }
        // Before any is verified, which is what costs.
        if self.signatures.len() > authorities.len() {
            return wrong("it has more signatures than there are authorities");
        }
        let mut seen: Vec<Identity> = Vec::new();
        for (authority, signature) in &self.signatures {
            if !authorities.contains(authority) || seen.contains(authority) {
                return wrong("a signature is by no authority, or there twice");
            }
            seen.push(*authority);
            if !authority.verify(Context::Vote, &self.vote, signature) {
                return Err(Error::Signature { what: "vote" });
            }
        }
        Ok(vote)
    }
}

/// What an authority promises to reveal.
pub(super) fn commitment(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("shoal 2026 commitment to a draw", secret)
}

/// What authorities send to each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PeerMessage {
    /// A vote, by its author or by who passes it on.
    Vote(SignedVote),
    /// A signature of a document.
    Signature {
        /// The epoch of the document.
        epoch: Epoch,
        /// The amendment of the document.
        amendment: u16,
        /// BLAKE3 of its bytes.
        hash: [u8; 32],
        /// The sender's signature of these bytes.
        signature: Signature,
    },
    /// A document with enough signatures.
    Certified(Vec<u8>),
    /// Send me what documents you hold.
    Ask,
}

impl PeerMessage {
    /// The canonical bytes, as they go over a link between authorities.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes. What is inside is not verified.
    ///
    /// # Errors
    /// Bytes of another form, or too many.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("word between authorities", bytes, MAX_MESSAGE_LEN)
    }
}
