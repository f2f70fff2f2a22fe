//! The keys of a period by which others open sessions with a device.

use blake3::derive_key;
use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};
use x_wing::{Decapsulate, DecapsulationKey, Decapsulator, KeyExport};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::Error;

/// Bytes of an X-Wing encapsulation key.
pub const KEM_KEY_LEN: usize = x_wing::ENCAPSULATION_KEY_SIZE;
/// Bytes of an X-Wing ciphertext.
pub(crate) const CIPHERTEXT_LEN: usize = x_wing::CIPHERTEXT_SIZE;
/// The form of what a descriptor carries.
const VERSION: u8 = 1;
/// Most bytes of what a descriptor carries.
const MAX_PUBLISHED: usize = 1_300;

/// The secret keys of a device for one period.
///
/// They come from random bytes of their own, and from nothing that has a public half: whoever computes another secret of the
/// device from what is public learns nothing of these.
pub struct PeriodKeys {
    /// The second of Unix time at which the period begins.
    begins: u64,
    kem: DecapsulationKey,
    prekey: Zeroizing<[u8; 32]>,
    public: PublicKeys,
}

/// The public half of [`PeriodKeys`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKeys {
    /// X-Wing encapsulation key.
    pub kem: Box<[u8; KEM_KEY_LEN]>,
    /// X25519 key, where the ratchet of a session begins.
    pub prekey: [u8; 32],
}

/// By which the owner of several keys knows the one that was used.
pub(crate) type KeyId = [u8; 4];

/// What a device adds to its descriptor, so that others can open sessions with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The keys of the descriptor's period.
    pub keys: PublicKeys,
    /// The number of the device in the organisation's directory.
    pub device: u32,
    /// How many entries of the directory it holds.
    pub size: u64,
}

/// [`Published`] as it is encoded.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u8,
    kem: Vec<u8>,
    prekey: [u8; 32],
    device: u32,
    size: u64,
}

impl PeriodKeys {
    /// The keys that follow from 32 random bytes, for the period that begins at this second of Unix time.
    pub fn new(random: &[u8; 32], begins: u64) -> Self {
        let seed = Zeroizing::new(derive_key("shoal 2026 encapsulation key of a period", random));
        let kem = DecapsulationKey::from(*seed);
        let prekey = Zeroizing::new(derive_key("shoal 2026 prekey of a period", random));
        let mut encoded = Box::new([0; KEM_KEY_LEN]);
        encoded.copy_from_slice(&kem.encapsulation_key().to_bytes());
        let public = PublicKey::from(&StaticSecret::from(*prekey)).to_bytes();
        Self { begins, kem, prekey, public: PublicKeys { kem: encoded, prekey: public } }
    }

    /// The second of Unix time at which the period begins.
    pub fn begins(&self) -> u64 {
        self.begins
    }

    /// What others are told.
    pub fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// The secret half of [`PublicKeys::prekey`].
    pub(crate) fn prekey(&self) -> &[u8; 32] {
        &self.prekey
    }

    /// The secret in a ciphertext. Another than was meant, if the ciphertext was made for another key.
    pub(crate) fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT_LEN]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.kem.decapsulate(&(*ciphertext).into()).into())
    }
}

impl PublicKeys {
    /// By which their owner knows them.
    pub(crate) fn id(&self) -> KeyId {
        let hash = blake3::Hasher::new_derive_key("shoal 2026 name of the keys of a period")
            .update(self.kem.as_slice())
            .update(&self.prekey)
            .finalize();
        *hash.as_bytes().first_chunk().unwrap_or(&[0; 4])
    }
}

impl Published {
    /// The bytes that the descriptor carries.
    pub fn encode(&self) -> Vec<u8> {
        let Self { keys, device, size } = self;
        encode(&Wire {
            version: VERSION,
            kem: keys.kem.to_vec(),
            prekey: keys.prekey,
            device: *device,
            size: *size,
        })
    }

    /// Reads them.
    ///
    /// # Errors
    /// Bytes of another form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let Wire { version, kem, prekey, device, size } =
            decode("keys of a descriptor", bytes, MAX_PUBLISHED)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let kem = Box::<[u8; KEM_KEY_LEN]>::try_from(kem.into_boxed_slice());
        let kem = kem.map_err(|_| Error::Malformed("an encapsulation key has 1,216 bytes"))?;
        Ok(Self { keys: PublicKeys { kem, prekey }, device, size })
    }
}
