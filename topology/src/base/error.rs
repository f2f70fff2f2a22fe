/// What is wrong with a document, a descriptor or a path: each names who has to do what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that no encoder of ours writes.
    #[error("malformed {what}: not in the canonical encoding")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// Longer than anything sound can be.
    #[error("{what} has {len} bytes, more than the {max} that are allowed")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// The length that it has, in bytes.
        len: usize,
        /// The most that is allowed, in bytes.
        max: usize,
    },
    /// A signature by whoever must have signed is missing or wrong.
    #[error("the signature on the {what} is wrong")]
    Signature {
        /// What was being read.
        what: &'static str,
    },
    /// Not enough of the pinned authorities signed.
    #[error(
        "the topology document has {valid} valid signatures of pinned authorities; {needed} of {of} are needed"
    )]
    TooFewSignatures {
        /// Valid ones, each authority counted once.
        valid: usize,
        /// How many are needed.
        needed: usize,
        /// How many authorities the network file has.
        of: usize,
    },
    /// A document of another network.
    #[error("the topology document is for the network {found:?}, not {expected:?}")]
    ForeignNetwork {
        /// The name that the network file gives.
        expected: String,
        /// The name that the document gives.
        found: String,
    },
    /// A document of a network for trial by a network file that says nothing of it, or the other way round.
    #[error(
        "the topology document is that of a network {}, and the network file says `trial = {}`: compare the network file \
         with that of those who run the network",
        if *.document { "for trial" } else { "in earnest" },
        !.document
    )]
    OtherPurpose {
        /// True if the document is that of a network for trial.
        document: bool,
    },
    /// Two epochs past its own, or more.
    #[error(
        "the topology document is stale: its last epoch ended {seconds} s ago; wait for the authorities, or check this machine's clock"
    )]
    Stale {
        /// Seconds since it could last be used.
        seconds: u64,
    },
    /// The document is from the future.
    #[error("the topology document begins in {seconds} s: check this machine's clock")]
    NotYetValid {
        /// Seconds until it can be used.
        seconds: u64,
    },
    /// Too few nodes for what the network promises.
    #[error("layer {layer} has {found} mixes, fewer than the {needed} that the parameters ask for")]
    TooFewMixes {
        /// The layer, from 1 to L.
        layer: u8,
        /// The number of mixes in it.
        found: usize,
        /// The least number that the parameters ask for.
        needed: usize,
    },
    /// Operators stand where paths would meet them twice.
    #[error("who runs what breaks a rule: {why}")]
    Operators {
        /// Which operator, and what to do.
        why: String,
    },
    /// A field that breaks a rule of its own.
    #[error("the {what} is invalid: {why}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The rule that is broken.
        why: String,
    },
}
