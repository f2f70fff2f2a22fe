//! X25519 keys of hops.

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::backend::wipe_stack;
use crate::{Error, curve};

/// A hop's public key: a point that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PublicKey {
    bytes: [u8; 32],
    /// False on the twist.
    is_on_curve: bool,
}

impl PublicKey {
    /// Of 32 bytes, as RFC 7748 reads them.
    ///
    /// # Errors
    /// [`Error::LowOrder`]: the secrets derived from it would be known to all.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, Error> {
        Self::check(&bytes)?;
        Ok(Self { bytes, is_on_curve: curve::is_on_curve(&bytes) })
    }

    /// Says whether [`Self::from_bytes`] takes these bytes, without the square root that it computes.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn check(bytes: &[u8; 32]) -> Result<(), Error> {
        if has_small_order(bytes) { Err(Error::LowOrder) } else { Ok(()) }
    }

    /// The 32 bytes of the u coordinate.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(crate) fn is_on_curve(&self) -> bool {
        self.is_on_curve
    }
}

/// A hop's secret key. It is wiped when dropped and has no `Debug`. It lies in one place on the heap, so that moving
/// it about leaves no copies behind.
#[derive(Clone)]
pub struct SecretKey(Box<[u8; 32]>);

impl SecretKey {
    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self(Box::new([0; 32]));
        rng.fill_bytes(key.0.as_mut_slice());
        key
    }

    /// Of 32 bytes, as RFC 7748 clamps them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::copied(&Zeroizing::new(bytes))
    }

    /// As [`Self::from_bytes`], of bytes that their owner wipes.
    pub fn copied(bytes: &[u8; 32]) -> Self {
        let mut key = Self(Box::new([0; 32]));
        key.0.copy_from_slice(bytes);
        key
    }

    /// Its bytes, for the file it is kept in.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        // A clamped multiple of the base point has its prime order.
        let bytes = curve::multiply_base(&self.0);
        wipe_stack();
        PublicKey { bytes, is_on_curve: true }
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl ZeroizeOnDrop for SecretKey {}

/// The u-coordinates of the points of small order on the curve and its twist, with the two encodings that are
/// not reduced. (Bernstein, "Curve25519: new Diffie-Hellman speed records", and <https://cr.yp.to/ecdh.html>.)
const SMALL_ORDER: [[u8; 32]; 7] = [
    ends(0, 0, 0),
    ends(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    // p - 1, and p and p + 1 not reduced.
    ends(0xec, 0xff, 0x7f),
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
];

const fn ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// True if every scalar multiple that X25519 computes of this point is zero.
pub(crate) fn has_small_order(u: &[u8; 32]) -> bool {
    let mut masked = *u;
    masked[31] &= 0x7f;
    SMALL_ORDER.contains(&masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_points_are_those_that_contribute_nothing() {
        for mut point in SMALL_ORDER {
            for high_bit in [0, 0x80] {
                point[31] = point[31] & 0x7f | high_bit;
                assert_eq!(*curve::multiply(&[7; 32], &point), [0; 32], "{point:02x?}");
                assert_eq!(PublicKey::check(&point), Err(Error::LowOrder));
                assert_eq!(PublicKey::from_bytes(point), Err(Error::LowOrder));
            }
        }
        assert!(PublicKey::from_bytes(*SecretKey::from_bytes([9; 32]).public().as_bytes()).is_ok());
    }
}
