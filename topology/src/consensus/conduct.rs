//! How authorities behave: what each says that no honest one does, how much of it is heard, and what proves a lie.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::vote::{SignedVote, Vote, commitment};
use crate::base::encoding::{decode, encode};
use crate::{Epoch, Error, Identity, Network, Signature, SignedDocument};

/// Words of another authority that are heard in a session: its own and others' votes, signatures, and what documents it
/// holds take less. The rest is counted and not read, so that whoever says more takes nothing from the others.
const WORDS: usize = 64;
/// Answers in a session to an authority that asks for the documents.
const ANSWERS: usize = 2;
/// Most bytes of a proof.
const MAX_PROOF_LEN: usize = 4 * crate::MAX_DOCUMENT_LEN;

/// What an honest authority does not do while its clock is right and its links stand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Sends what is no word.
    Unreadable,
    /// Sends a vote that is not well signed.
    Vote,
    /// Sends a vote of another session, or too late.
    Untimely,
    /// Sends a signature that does not hold.
    Signature,
    /// Signs for an epoch or amendment that cannot be next.
    NotNext,
    /// Sends a document that too few signed, or that breaks a rule.
    Document,
    /// Sends an old document without being asked.
    OldDocument,
    /// Says more in a session than anyone has to say.
    Flood,
    /// Does not sign what enough others sign.
    Unsigned,
    /// Does not reveal at a draw what it had promised to.
    Withheld,
    /// Accuses alone an eighth of all nodes.
    Accusation,
    /// Votes for other parameters than the others: perhaps its configuration is an old one.
    Parameters,
    /// Builds on another document than the others.
    Basis,
    /// Lists a node that says to have signed in the future.
    Future,
}

impl Fault {
    /// What it did, for the log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unreadable => "sends what is no word between authorities",
            Self::Vote => "sends a vote that is not well signed",
            Self::Untimely => "sends a vote out of its time",
            Self::Signature => "sends a signature that does not hold",
            Self::NotNext => "signs for an epoch or amendment that cannot be next",
            Self::Document => "sends a document that cannot be used",
            Self::OldDocument => "sends an old document unasked",
            Self::Flood => "says more in a session than anyone has to say: the rest is not read",
            Self::Unsigned => "does not sign what the others sign",
            Self::Withheld => "does not reveal what it had promised for the draw",
            Self::Accusation => "accuses alone an eighth of all nodes",
            Self::Parameters => "votes for other parameters than the others",
            Self::Basis => "builds on another document than the others",
            Self::Future => "lists a node that says to have signed in the future",
        }
    }
}

/// What others can check that an authority lied.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Proof {
    /// It voted twice in a session, and differently.
    Votes(SignedVote, SignedVote),
    /// It signed two documents of one epoch and amendment.
    Signatures {
        /// The authority that signed both.
        authority: Identity,
        /// The epoch of both documents.
        epoch: Epoch,
        /// The amendment of both documents.
        amendment: u16,
        /// BLAKE3 of the bytes of each, and its signature.
        signed: [([u8; 32], Signature); 2],
    },
    /// It voted for a node or service that did not sign what it is said to say, or lists one twice.
    MadeUp(SignedVote),
    /// It revealed another secret than the one that it had promised in the document on which its vote builds.
    Reveal(SignedVote, Vec<u8>),
}

impl Proof {
    /// The canonical bytes, which others can verify with the network file alone.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote; whoever reads verifies.
    ///
    /// # Errors
    /// Bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("proof", bytes, MAX_PROOF_LEN)
    }

    /// Of what it is, one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Votes(..) => "votes",
            Self::Signatures { .. } => "signatures",
            Self::MadeUp(_) => "made-up",
            Self::Reveal(..) => "reveal",
        }
    }

    /// Who lied, if it proves this.
    ///
    /// # Errors
    /// It proves nothing.
    pub fn verify(&self, network: &Network) -> Result<Identity, Error> {
        let nothing = || Error::Invalid { what: "proof", why: "it proves no lie".into() };
        let authorities = &network.authorities;
        match self {
            Self::Votes(one, other) => {
                let (a, b) = (one.verify(authorities)?, other.verify(authorities)?);
                // The bytes decide, not what they say: a vote has one encoding.
                let lie = (a.author, a.session) == (b.author, b.session) && one.vote != other.vote;
                lie.then_some(a.author).ok_or_else(nothing)
            }
            Self::Signatures { authority, epoch, amendment, signed: [one, other] } => {
                let holds = |(hash, signature): &([u8; 32], Signature)| {
                    SignedDocument::holds(authority, (*epoch, *amendment, hash), signature)
                };
                // Two signatures of one hash prove nothing: signing again is allowed.
                let lie = one.0 != other.0 && holds(one) && holds(other);
                (lie && authorities.contains(authority)).then_some(*authority).ok_or_else(nothing)
            }
            Self::MadeUp(relay) => {
                let vote = relay.verify(authorities)?;
                vote.made_up().then_some(vote.author).ok_or_else(nothing)
            }
            Self::Reveal(relay, document) => {
                let vote = relay.verify(authorities)?;
                // The signatures alone: by the time that somebody looks at the proof the document is stale.
                let document = SignedDocument::verify_signatures(document, network)?;
                let basis = vote.basis.is_some_and(|basis| basis.names(&document));
                let lie = basis && broke_promise(&vote, &document.draw.commitments);
                lie.then_some(vote.author).ok_or_else(nothing)
            }
        }
    }
}

/// True if a vote reveals what its author had not promised.
pub(super) fn broke_promise(vote: &Vote, promised: &[(Identity, [u8; 32])]) -> bool {
    let reveal = vote.proposal.as_ref().and_then(|proposal| proposal.reveal);
    let revealed = reveal.map(|secret| (vote.author, commitment(&secret)));
    revealed.is_some_and(|revealed| !promised.contains(&revealed))
}

/// What is known of the other authorities' conduct. As many entries as there are authorities, times kinds.
#[derive(Default)]
pub(super) struct Conduct {
    /// Faults since the start, by authority and kind.
    pub(super) faults: BTreeMap<Identity, BTreeMap<Fault, u64>>,
    /// Refused words of nodes and services since the start.
    pub(super) refused: u64,
    /// What was said of whom in this session already.
    said: BTreeSet<(Option<Identity>, &'static str)>,
    /// Messages of each authority in this session.
    words: BTreeMap<Identity, usize>,
    /// Answers to each authority in this session.
    answers: BTreeMap<Identity, usize>,
    /// Lies that were shown since the start.
    shown: BTreeSet<(Identity, &'static str)>,
}

impl Conduct {
    pub(super) fn begin_session(&mut self) {
        self.said.clear();
        self.words.clear();
        self.answers.clear();
    }

    /// True if another word of an authority is heard in a network of so many.
    pub(super) fn hears(&mut self, authority: Identity, authorities: usize) -> bool {
        let words = self.words.entry(authority).or_default();
        *words = words.saturating_add(1);
        // Honest authorities pass on each other's votes, so what one has to say grows with their number.
        *words <= WORDS + 8 * authorities
    }

    pub(super) fn answers(&mut self, authority: Identity) -> bool {
        let answers = self.answers.entry(authority).or_default();
        *answers = answers.saturating_add(1);
        *answers <= ANSWERS
    }

    /// Counts a fault. True if it is the first of its kind in this session.
    pub(super) fn fault(&mut self, authority: Identity, fault: Fault) -> bool {
        let count = self.faults.entry(authority).or_default().entry(fault).or_default();
        *count = count.saturating_add(1);
        // Counted each time, said once a session: a log that others can fill hides what matters.
        self.said.insert((Some(authority), fault.words()))
    }

    /// Counts what a node or service sent in vain. True if it is the first of its kind in this session.
    pub(super) fn refuse(&mut self, what: &'static str) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.said.insert((None, what))
    }

    /// True if this lie was not shown before.
    pub(super) fn shows(&mut self, authority: Identity, proof: &Proof) -> bool {
        self.shown.insert((authority, proof.kind()))
    }
}
