//! The one encoding of everything that is signed or sent: postcard, and nothing that re-encodes differently.

use postcard::ser_flavors::{Flavor, Size};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::Error;

/// Encodes: a type of this project, which always can be.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "fails for maps of unknown length alone, which no type here has"
    )]
    postcard::to_stdvec(value).expect("types of this crate have an encoding")
}

/// Encodes what holds secrets, as [`encode`] does: into a buffer that has its size from the beginning, so that no other one has them,
/// and that is wiped.
pub fn encode_secret<T: Serialize>(value: &T) -> Zeroizing<Vec<u8>> {
    let encoded = || {
        let size = postcard::serialize_with_flavor(value, Size::default())?;
        let mut bytes = Zeroizing::new(vec![0; size]);
        postcard::to_slice(value, &mut bytes)?;
        postcard::Result::Ok(bytes)
    };
    #[expect(
        clippy::expect_used,
        reason = "fails for maps of unknown length alone, which no type here has"
    )]
    encoded().expect("types of this crate have an encoding")
}

/// Compares what a value would be encoded as with bytes, and keeps nothing of it.
struct Same<'a>(&'a [u8]);

impl Flavor for Same<'_> {
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Any error ends the comparison.
        self.0 = self.0.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
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
    let is_same = postcard::serialize_with_flavor(&value, Same(bytes)).unwrap_or_default();
    if is_same { Ok(value) } else { Err(Error::Malformed { what }) }
}
