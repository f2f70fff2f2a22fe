//! The one encoding of everything that is signed or sent: postcard, and nothing that re-encodes differently.

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Encodes: a type of this project, which always can be.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "fails for maps of unknown length alone, which no type here has"
    )]
    postcard::to_stdvec(value).expect("types of this crate have an encoding")
}

/// Decodes what [`encode`] wrote. Other bytes with the same meaning (long varints, trailing bytes) are refused:
/// a signature or a hash must fix every bit.
///
/// # Errors
/// Bytes of another form, or more than `max`; `what` names in it what was being read.
pub fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, Error> {
    if bytes.len() > max {
        return Err(Error::TooLong { what, len: bytes.len(), max });
    }
    let value: T = postcard::from_bytes(bytes).map_err(|_| Error::Malformed { what })?;
    // postcard reads long varints and ignores bytes behind the end; encoding again finds both.
    if encode(&value) == bytes { Ok(value) } else { Err(Error::Malformed { what }) }
}
