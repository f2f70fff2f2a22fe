/// What is wrong with what somebody sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes of another form.
    #[error(transparent)]
    Format(#[from] shoal_topology::Error),
    /// Bytes that break a rule of their form.
    #[error("{0}")]
    Malformed(&'static str),
    /// A form of a later version.
    #[error("keys of form {0}, which this program does not know: it is older than the other one")]
    Version(u8),
}
