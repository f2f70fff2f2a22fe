//! An authority that lies: the deployed engine, whose messages are changed on their way out, and others beside them.
//!
//! The kinds are some of those that the tests of the authorities' engine try one by one.

use rand::{Rng, RngExt};
use shoal_topology::consensus::{PeerMessage, SignedVote, Vote};
use shoal_topology::{
    Context, Epoch, Identity, NodeDescriptor, SecretIdentity, Seed, Signed, SignedDocument, Stream,
    VerifiedDocument,
};

use super::settings::Lie;

/// Messages a round to each of the others, of those who send random bytes or false documents.
const MESSAGES: usize = 4;
/// And of those who ask without end: more in a session than anybody is heard.
const QUESTIONS: usize = 40;

/// The part that lies.
pub(super) struct Liar {
    lie: Lie,
    secret: SecretIdentity,
    authorities: Vec<Identity>,
    rng: Stream,
}

impl Liar {
    /// The authority with this key, one of these.
    pub(super) fn new(
        lie: Lie,
        secret: SecretIdentity,
        authorities: Vec<Identity>,
        seed: &Seed,
    ) -> Self {
        Self { lie, secret, authorities, rng: seed.stream("lies") }
    }

    /// What goes to an authority, by its number, in place of a message of the engine.
    pub(super) fn twist(&mut self, to: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        match (PeerMessage::decode(&bytes), self.lie) {
            (Ok(PeerMessage::Vote(signed)), lie) if signed.signatures.len() == 1 => {
                let changed = match lie {
                    Lie::Silent => return Vec::new(),
                    Lie::TwoVotes if to % 2 == 1 => self.change(&signed, Self::another),
                    Lie::MadeUp => self.change(&signed, Self::make_up),
                    _ => None,
                };
                vec![changed.unwrap_or(bytes)]
            }
            (Ok(PeerMessage::Signature { epoch, amendment, .. }), Lie::TwoSignatures) => {
                let other = self.sign(epoch, amendment);
                std::iter::once(bytes).chain(other).collect()
            }
            _ => vec![bytes],
        }
    }

    /// What it says to each of the others in a round, beside what the engine says.
    pub(super) fn words(&mut self, newest: Option<&VerifiedDocument>) -> Vec<Vec<u8>> {
        match (self.lie, newest) {
            (Lie::Garbage, _) => (0..MESSAGES).map(|_| self.random_bytes()).collect(),
            (Lie::Flood, _) => vec![PeerMessage::Ask.encode(); QUESTIONS],
            (Lie::FalseDocuments, Some(held)) => {
                (0..MESSAGES).map(|_| self.false_document(held)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Its own vote, changed and signed again.
    fn change(&mut self, signed: &SignedVote, change: fn(&mut Self, &mut Vote)) -> Option<Vec<u8>> {
        let mut vote = signed.verify(&self.authorities).ok()?;
        change(self, &mut vote);
        Some(PeerMessage::Vote(SignedVote::of(&vote, &self.secret)).encode())
    }

    /// Another promise for the draw, or another accusation.
    fn another(&mut self, vote: &mut Vote) {
        let hash = self.hash();
        match &mut vote.proposal {
            Some(proposal) => proposal.commitment = hash,
            None => vote.demote = vec![Identity(hash)],
        }
    }

    /// A node's descriptor with another operator, which the node did not sign.
    fn make_up(&mut self, vote: &mut Vote) {
        let nodes = vote.proposal.iter_mut().flat_map(|proposal| &mut proposal.nodes);
        if let Some(node) = nodes.last() {
            let mut body = node.body().clone();
            body.operator = "nobody".into();
            *node = Signed::<NodeDescriptor>::new(body, &self.secret);
        }
    }

    /// A signature of a body that nobody made.
    fn sign(&mut self, epoch: Epoch, amendment: u16) -> Option<Vec<u8>> {
        let hash = self.hash();
        let what = postcard::to_stdvec(&(epoch, amendment, hash)).ok()?;
        let signature = self.secret.sign(Context::Document, &what);
        Some(PeerMessage::Signature { epoch, amendment, hash, signature }.encode())
    }

    fn false_document(&mut self, held: &VerifiedDocument) -> Vec<u8> {
        let mut document = (*held.document).clone();
        document.draw.value = self.hash();
        let signed = SignedDocument::new(&document, [&self.secret]);
        PeerMessage::Certified(signed.encode()).encode()
    }

    fn random_bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(1..200)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn hash(&mut self) -> [u8; 32] {
        let mut hash = [0; 32];
        self.rng.fill_bytes(&mut hash);
        hash
    }
}
