//! What a hop derives from the secret that it shares with a sender, and what it computes with that.

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::MAX_HOPS;

/// A hop's part of the routing block: flag 1, version 3, address 32, delay 8, MAC 16.
pub(crate) const HOP_LEN: usize = 60;
pub(crate) const ROUTING_LEN: usize = HOP_LEN * MAX_HOPS;
pub(crate) const VERSION: [u8; 3] = [0, 1, 4]; // 260

pub(crate) const HKDF_INFO: &[u8] =
    b"Dwste mou enan moxlo arketa makru kai ena upomoxlio gia na ton topothetisw kai tha kinisw thn gh.";

pub(crate) const PAYLOAD_SALT: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-SALT";
pub(crate) const PAYLOAD_INFO: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-INFO";

/// What a hop derives from the shared secret (HKDF-SHA256, 288 bytes, of which version 260 uses these).
pub(crate) struct HopKeys {
    pub(crate) stream: [u8; 16],
    pub(crate) mac: [u8; 16],
    pub(crate) payload_seed: [u8; 16],
    pub(crate) blinding: [u8; 32],
    pub(crate) tag: [u8; 32],
}

impl HopKeys {
    pub(crate) const ZERO: Self = Self {
        stream: [0; 16],
        mac: [0; 16],
        payload_seed: [0; 16],
        blinding: [0; 32],
        tag: [0; 32],
    };

    pub(crate) fn derive(shared_secret: &[u8; 32]) -> Self {
        let mut okm = Zeroizing::new([0; 288]);
        expand(&[], shared_secret, HKDF_INFO, okm.as_mut());
        // The payload key's place has 192 bytes, of which the first 16 are a seed.
        Self {
            stream: part(okm.as_slice(), 0),
            mac: part(okm.as_slice(), 16),
            payload_seed: part(okm.as_slice(), 32),
            blinding: part(okm.as_slice(), 224),
            tag: part(okm.as_slice(), 256),
        }
    }

    /// Adds the key stream of the routing block to it, from its start.
    pub(crate) fn apply_stream(&self, block: &mut [u8]) {
        ctr::Ctr64BE::<Aes128>::new((&self.stream).into(), (&[0; 16]).into())
            .apply_keystream(block);
    }
}

impl Drop for HopKeys {
    fn drop(&mut self) {
        // As slices they are wiped at once, as arrays byte by byte.
        let Self { stream, mac, payload_seed, blinding, tag } = self;
        [stream, mac, payload_seed].into_iter().for_each(|key| key.as_mut_slice().zeroize());
        [blinding, tag].into_iter().for_each(|key| key.as_mut_slice().zeroize());
    }
}

impl ZeroizeOnDrop for HopKeys {}

/// The MAC of a routing block.
pub(crate) fn authenticate(key: &[u8; 16], routing: &[u8; ROUTING_LEN]) -> [u8; 16] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of 16 bytes");
    mac.update(routing);
    part(mac.finalize().into_bytes().as_slice(), 0)
}

/// The key of a layer of the payload.
pub(crate) fn expand_payload_key(seed: &[u8; 16], key: &mut [u8; 192]) {
    expand(PAYLOAD_SALT, seed, PAYLOAD_INFO, key);
}

/// HKDF-SHA256, for outputs of a few hundred bytes.
fn expand(salt: &[u8], secret: &[u8], info: &[u8], okm: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "RFC 5869: fails beyond 255 * 32 bytes, asked are 288")]
    Hkdf::<Sha256>::new(Some(salt), secret).expand(info, okm).expect("a few hundred bytes");
}

/// `N` bytes from `offset` on, of a block whose length the caller fixed.
pub(crate) fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(from) = bytes.get(offset..offset + N) {
        out.copy_from_slice(from);
    }
    out
}
