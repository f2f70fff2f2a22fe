/// What can be wrong with a packet. The first two are the caller's mistakes, the others the sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No hop, more than five, or a SURB without identifier.
    #[error("a path has 1 to 5 hops, and a SURB an identifier that is not zero")]
    Path,
    /// The message does not fit.
    #[error("a message has at most {max} bytes", max = crate::MESSAGE_LEN)]
    MessageTooLong,
    /// Not the length of the thing.
    #[error("wrong length")]
    Length,
    /// A key or a packet with a point of small order: every secret derived from it would be public.
    #[error("the point has small order")]
    LowOrder,
    /// The header is not for this key, or was changed.
    #[error("the header's MAC is wrong")]
    Mac,
    /// A version other than 260.
    #[error("unknown version of the packet format")]
    Version,
    /// A routing flag that is neither forward nor final.
    #[error("unknown routing flag")]
    Routing,
    /// The payload was changed on its way, or was sealed for another key.
    #[error("the payload was changed")]
    Payload,
}
