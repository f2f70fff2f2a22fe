//! What an authority tells its operator.

use std::fmt;

use super::conduct::Fault;
use super::vote::Basis;
use crate::{Epoch, Error, Identity, NotListed};

/// Why the votes make no document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoDocument {
    /// Fewer authorities voted than must sign.
    #[error("{votes} of {of} authorities voted, and {needed} must sign")]
    TooFewVotes {
        /// Votes that count.
        votes: usize,
        /// How many authorities there are.
        of: usize,
        /// Signatures that a document needs.
        needed: usize,
    },
    /// No majority of votes names the same parameters.
    #[error("the authorities are configured with different parameters or lengths of epochs")]
    Parameters,
    /// The document that most votes build on is not here.
    #[error("the document that the others build on is missing here")]
    Basis(Basis),
    /// What the votes say breaks a rule.
    #[error("the votes make no sound document: {0}")]
    Unsound(Error),
    /// An amendment that changes nothing.
    #[error("nothing to amend")]
    Nothing,
}

/// What an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A document was certified.
    Certified {
        /// The epoch that it is for.
        epoch: Epoch,
        /// The amendment; 0 is the document itself.
        amendment: u16,
        /// How many votes it was made from, and how many authorities there are.
        votes: (usize, usize),
    },
    /// A session made no document.
    None {
        /// The epoch for which there is none.
        epoch: Epoch,
        /// Why the votes made none.
        why: NoDocument,
        /// Operators of nodes that the last document lists and that are not heard of, where that may be the reason.
        missing: Vec<String>,
    },
    /// A document was made here that too few others signed.
    Uncertified {
        /// The epoch that it was for.
        epoch: Epoch,
        /// Signatures that came, and that are needed.
        signatures: (usize, usize),
    },
    /// Most other authorities' votes come too early or too late, by this many milliseconds.
    Clock(i64),
    /// Authorities whose vote for a document did not count: none came in time, or two different ones.
    Uncounted(Vec<Identity>),
    /// The votes of all authorities count again.
    AllCounted,
    /// Nodes that described themselves and are not listed for a rule that they would break; others than before.
    LeftOut(Vec<(Identity, NotListed)>),
    /// Nodes of the document before, with their operators, that are missing in the new one; others than before.
    Missing(Vec<(Identity, String)>),
    /// A document has fewer mixes in each layer than the parameters ask for.
    Short {
        /// The number of mixes that each layer has at least.
        found: u16,
        /// The number that the parameters ask for.
        asked: u16,
    },
    /// Documents have as many mixes in each layer again as the parameters ask for.
    Whole,
    /// Operators without whose nodes the next document would be short, or none; others than before.
    Critical(Vec<String>),
    /// Something that a node or service sent here cannot be used: once a session for each kind.
    Refused(String),
    /// Another authority does what honest ones do not: once a session for each kind. Not what it sent.
    Fault(Identity, Fault),
    /// An authority is proven to lie.
    Lied(Identity, &'static str),
    /// Two documents of one epoch.
    Contradiction(Epoch),
}

impl Event {
    /// True if somebody should look after it.
    pub fn is_trouble(&self) -> bool {
        match self {
            // Nothing is wrong yet where no spare is left.
            Self::Certified { .. } | Self::AllCounted | Self::Whole | Self::Critical(_) => false,
            Self::LeftOut(nodes) => !nodes.is_empty(),
            Self::Missing(nodes) => !nodes.is_empty(),
            _ => true,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It was made elsewhere, before this authority started.
            Self::Certified { epoch, amendment: 0, votes: (0, _) } => {
                write!(f, "the document of epoch {epoch} stands, as the others made it")
            }
            Self::Certified { epoch, amendment: 0, votes: (votes, of) } => {
                write!(f, "the document of epoch {epoch} stands, from {votes} of {of} votes")
            }
            Self::Certified { epoch, amendment, .. } => {
                write!(f, "amendment {amendment} of the document of epoch {epoch} stands")
            }
            Self::None { epoch, why, missing } if missing.is_empty() => {
                write!(f, "no document for epoch {epoch}: {why}")
            }
            Self::None { epoch, why, missing } => write!(
                f,
                "no document for epoch {epoch}: {why}; nothing is heard of nodes of {}",
                missing.join(", ")
            ),
            Self::Uncertified { epoch, signatures: (found, needed) } => write!(
                f,
                "the document of epoch {epoch} has {found} signatures, {needed} are needed: the others made another \
                 one, or cannot be reached"
            ),
            Self::Clock(ms) => write!(
                f,
                "the votes of most others come {} s {}: look at this machine's clock",
                ms.unsigned_abs() as f64 / 1e3,
                if *ms > 0 { "late" } else { "early" }
            ),
            Self::Uncounted(authorities) => {
                let names: Vec<String> = authorities.iter().map(Identity::to_string).collect();
                write!(f, "no vote counts, for want of it or for its lies, of {}", names.join(", "))
            }
            Self::AllCounted => write!(f, "the votes of all authorities count again"),
            Self::LeftOut(nodes) if nodes.is_empty() => write!(f, "no node is left out any more"),
            Self::LeftOut(nodes) => {
                let nodes: Vec<String> =
                    nodes.iter().map(|(node, why)| format!("{node}: {why}")).collect();
                write!(f, "not listed: {}", nodes.join("; "))
            }
            Self::Missing(nodes) if nodes.is_empty() => write!(f, "no node is missing any more"),
            Self::Missing(nodes) => {
                let nodes: Vec<String> =
                    nodes.iter().map(|(node, by)| format!("{node} of {by}")).collect();
                write!(f, "nothing is heard of nodes that were listed: {}", nodes.join(", "))
            }
            Self::Short { found, asked } => write!(
                f,
                "the document has layers of {found} mixes, and the parameters ask for {asked}: bring mixes back, or list others"
            ),
            Self::Whole => {
                write!(f, "all layers have as many mixes again as the parameters ask for")
            }
            Self::Critical(operators) if operators.is_empty() => {
                write!(
                    f,
                    "there are spare nodes: no operator's loss would stop the network or leave it short"
                )
            }
            Self::Critical(operators) => write!(
                f,
                "{}; list mixes and gateways of others",
                crate::directory::spares::no_spare(operators)
            ),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Fault(authority, fault) => {
                write!(f, "the authority {authority} {}", fault.words())
            }
            Self::Lied(authority, how) => {
                write!(f, "the authority {authority} is proven to lie ({how})")
            }
            Self::Contradiction(epoch) => write!(
                f,
                "two documents of epoch {epoch} are signed by enough authorities: more of them lie than the network bears"
            ),
        }
    }
}
