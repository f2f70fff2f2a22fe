//! Bytes at rest: encrypted, and bound to the place where they lie.

use std::io;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use shoal_host::secret::{self, Secret};
use shoal_sphinx::backend::wipe_stack;
use zeroize::Zeroizing;

/// Bytes that what is encrypted is longer by.
pub(super) const OVERHEAD: usize = 24 + 16;

/// Encrypts under one key, with a nonce that is drawn. The key leaves no copies: it moves nowhere, and the stack below each use of it is
/// wiped.
pub(super) struct Sealer(Box<XChaCha20Poly1305>);

impl Sealer {
    /// By a key for this purpose that follows from a secret.
    pub(super) fn derived(purpose: &str, secret: &Secret) -> Self {
        let key = Zeroizing::new(blake3::derive_key(purpose, secret.as_slice()));
        Self::new(&key)
    }

    /// By this key.
    pub(super) fn new(key: &Secret) -> Self {
        let sealer = Self(cipher(key));
        wipe_stack();
        sealer
    }

    /// Encrypts for a place.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn seal(&self, place: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let random = secret::fresh()?;
        let nonce = random.first_chunk::<24>().copied().unwrap_or_default();
        let sealed = encrypt(&self.0, nonce, Payload { msg: plain, aad: place });
        wipe_stack();
        let sealed = sealed.ok_or_else(|| io::Error::other("cannot encrypt"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what was sealed for this place. None if it was not.
    pub(super) fn unseal(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let plain = self.unseal_one_of_many(place, sealed);
        wipe_stack();
        plain
    }

    /// The same, for a caller that wipes the stack when it is through with all of them.
    pub(super) fn unseal_one_of_many(
        &self,
        place: &[u8],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
        decrypt(&self.0, *nonce, Payload { msg: sealed, aad: place })
    }
}

// Not inlined: what they leave is below their callers then.

#[inline(never)]
fn cipher(key: &Secret) -> Box<XChaCha20Poly1305> {
    Box::new(XChaCha20Poly1305::new((&**key).into()))
}

#[inline(never)]
fn encrypt(by: &XChaCha20Poly1305, nonce: [u8; 24], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
    by.encrypt(&XNonce::from(nonce), payload).ok()
}

#[inline(never)]
fn decrypt(
    by: &XChaCha20Poly1305,
    nonce: [u8; 24],
    payload: Payload<'_, '_>,
) -> Option<Zeroizing<Vec<u8>>> {
    by.decrypt(&XNonce::from(nonce), payload).ok().map(Zeroizing::new)
}
