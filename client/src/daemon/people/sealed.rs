//! Bytes at rest: encrypted, and bound to the place where they lie.

use std::io;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use shoal_host::secret::{self, Secret};
use zeroize::Zeroizing;

/// Bytes that what is encrypted is longer by.
pub(super) const OVERHEAD: usize = 24 + 16;

/// Encrypts under one key, with a nonce that is drawn.
pub(super) struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// By a key for this purpose that follows from a secret.
    pub(super) fn derived(purpose: &str, secret: &Secret) -> Self {
        let key = Zeroizing::new(blake3::derive_key(purpose, secret.as_slice()));
        Self::new(&key)
    }

    /// By this key.
    pub(super) fn new(key: &Secret) -> Self {
        Self(XChaCha20Poly1305::new((&**key).into()))
    }

    /// Encrypts for a place.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn seal(&self, place: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let random = secret::fresh()?;
        let nonce = random.first_chunk::<24>().copied().unwrap_or_default();
        let sealed = self.0.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: place });
        let sealed = sealed.map_err(|_| io::Error::other("cannot encrypt"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what was sealed for this place. None if it was not.
    pub(super) fn unseal(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
        let payload = Payload { msg: sealed, aad: place };
        self.0.decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }
}
