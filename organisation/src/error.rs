/// What is wrong with a directory, or with what shall become part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes of another form.
    #[error(transparent)]
    Format(#[from] shoal_topology::Error),
    /// A batch that does not follow the last one.
    #[error("the batch at entry {found} does not follow: {why}")]
    Order {
        /// The number of its first entry, by its own word.
        found: u64,
        /// What does not fit.
        why: String,
    },
    /// An entry that breaks a rule.
    #[error("entry {number} of the directory cannot stand: {why}")]
    Entry {
        /// Which entry it is.
        number: u64,
        /// The rule that is broken.
        why: String,
    },
    /// A signature is wrong, or by nobody who may sign.
    #[error("the batch at entry {number}: the signature of admin {admin} is wrong, or he is none")]
    Signature {
        /// The number of the first entry of the batch.
        number: u64,
        /// Whose signature it should be.
        admin: u16,
    },
    /// Too few admins signed.
    #[error(
        "entry {number} needs the signatures of {needed} admins who may make it, and has {found}"
    )]
    Approvals {
        /// Which entry it is.
        number: u64,
        /// How many must sign.
        needed: usize,
        /// How many of those who may did.
        found: usize,
    },
    /// The directory is another than the one that everybody else is shown.
    #[error(
        "this directory is not the one whose head the network's document has (of {size} entries): somebody shows another one \
         than others see; keep it as proof and ask the organisation's admins"
    )]
    OtherHead {
        /// Entries that the head in the document is of.
        size: u64,
    },
    /// A proof of an invitation does not hold.
    #[error("the request does not fit its invitation: {0}")]
    Enrolment(&'static str),
}
