//! Packets between two devices: the one that opens a session, and those that follow.
//!
//! Whoever opens a session draws a secret for the other's key of the period, and signs with the key of his device. From the
//! secret follow the key that hides who opens it, and the keys of the session itself, which are bound to both devices.

use blake3::Hasher;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hkdf::Hkdf;
use rand::Rng;
use sha2::Sha256;
use shoal_topology::encoding::{decode, encode};
use shoal_topology::{Context, Identity, SecretIdentity, Signature, Stream};
use x_wing::Encapsulate;
use zeroize::Zeroizing;

use crate::keys::{CIPHERTEXT_LEN, KEM_KEY_LEN, KeyId};
use crate::{Error, PeriodKeys, PublicKeys};

/// Longest message that a letter of the mixnet carries, bytes.
pub const MAX_PACKET: usize = 2_030;
/// The first byte of a packet that opens a session.
const OPENING: u8 = 1;
/// The first byte of one that follows.
const FURTHER: u8 = 0;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes of an opening packet before what is encrypted.
const OPENING_HEAD: usize = 1 + 4 + CIPHERTEXT_LEN + NONCE_LEN;
/// Bytes that are encrypted before the message of the ratchet.
const SENDER_LEN: usize = 4 + 8 + 8 + 64;
/// Longest message of the ratchet in an opening packet.
pub(crate) const OPENING_ROOM: usize = MAX_PACKET - OPENING_HEAD - SENDER_LEN - TAG_LEN;
/// Longest message of the ratchet in a further packet.
pub(crate) const FURTHER_ROOM: usize = MAX_PACKET - 1 - NONCE_LEN - TAG_LEN;

/// 32 bytes that are wiped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Whom a session is opened with, and as whom.
pub(crate) struct Between<'a> {
    /// The organisation that both belong to.
    pub(crate) organisation: &'a Identity,
    /// The device that is written to.
    pub(crate) to: &'a Identity,
    /// The beginning of the period of the key that is used.
    pub(crate) period: u64,
}

/// Who opens a session.
pub(crate) struct Opener<'a> {
    /// The number of the device.
    pub(crate) device: u32,
    /// The identity of the device.
    pub(crate) identity: Identity,
    /// The secret half of it.
    pub(crate) secret: &'a SecretIdentity,
    /// How many entries of the directory it holds.
    pub(crate) size: u64,
}

/// What every opening packet of a session repeats, until the other side has answered.
#[derive(
    Clone,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    zeroize::Zeroize,
    zeroize::ZeroizeOnDrop,
)]
pub(crate) struct Opening {
    key: KeyId,
    ciphertext: Vec<u8>,
    /// Encrypts what names the sender.
    seal: [u8; 32],
    from: u32,
    size: u64,
    opened: u64,
    signature: Vec<u8>,
}

/// What a session begins with at both ends.
pub(crate) struct InitialSecrets {
    /// The root of the ratchet.
    pub(crate) root: Secret,
    /// Hides the ratchet's messages.
    pub(crate) hide: Secret,
}

/// An opening packet, read as far as it can be without knowing who sent it.
pub(crate) struct Opened {
    /// The number of the sending device, by its own word.
    pub(crate) from: u32,
    /// How many entries of the directory it held.
    pub(crate) size: u64,
    /// When it opened the session by its clock, Unix milliseconds: of several the later one holds.
    pub(crate) opened: u64,
    /// Its message of the ratchet.
    pub(crate) message: Vec<u8>,
    /// Encrypts what names the sender.
    pub(crate) seal: Secret,
    /// What the sender has signed.
    pub(crate) signature: Signature,
    /// The secret of the ciphertext.
    pub(crate) secret: Secret,
    /// What names the session without its sender.
    pub(crate) transcript: [u8; 32],
}

/// A packet by its first byte.
pub(crate) enum Parsed<'a> {
    /// It opens a session.
    Opening {
        /// Which of the reader's keys was used.
        key: KeyId,
        /// The secret, for that key.
        ciphertext: &'a [u8; CIPHERTEXT_LEN],
        nonce: &'a [u8; NONCE_LEN],
        sealed: &'a [u8],
    },
    /// It belongs to a session that both have.
    Further { nonce: &'a [u8; NONCE_LEN], sealed: &'a [u8] },
}

/// Takes a packet apart; none if it has no form of ours.
pub(crate) fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let (first, rest) = packet.split_first()?;
    match *first {
        OPENING => {
            let (key, rest) = rest.split_first_chunk::<4>()?;
            let (ciphertext, rest) = rest.split_first_chunk()?;
            let (nonce, sealed) = rest.split_first_chunk()?;
            Some(Parsed::Opening { key: *key, ciphertext, nonce, sealed })
        }
        FURTHER => {
            let (nonce, sealed) = rest.split_first_chunk()?;
            Some(Parsed::Further { nonce, sealed })
        }
        _ => None,
    }
}

/// By which an opening that comes again is known.
pub(crate) fn fingerprint(bytes: &[u8]) -> [u8; 16] {
    let hash = blake3::derive_key("shoal 2026 packets that came", bytes);
    *hash.first_chunk().unwrap_or(&[0; 16])
}

fn transcript(
    between: &Between<'_>,
    ciphertext: &[u8; CIPHERTEXT_LEN],
    keys: (&[u8; KEM_KEY_LEN], &[u8; 32]),
) -> [u8; 32] {
    *Hasher::new_derive_key("shoal 2026 opening of a session")
        .update(&between.organisation.0)
        .update(ciphertext)
        .update(keys.0)
        .update(keys.1)
        .update(&between.to.0)
        .update(&between.period.to_be_bytes())
        .finalize()
        .as_bytes()
}

/// [`transcript`] with the sender.
pub(crate) fn with_sender(
    transcript: &[u8; 32],
    sender: (u32, &Identity),
    opened: u64,
) -> [u8; 32] {
    *Hasher::new_derive_key("shoal 2026 opener of a session")
        .update(transcript)
        .update(&sender.0.to_be_bytes())
        .update(&sender.1.0)
        .update(&opened.to_be_bytes())
        .finalize()
        .as_bytes()
}

fn expand<const N: usize>(secret: &[u8; 32], what: &[u8], bound: &[u8; 32]) -> Zeroizing<[u8; N]> {
    let mut key = Zeroizing::new([0; N]);
    // Fails for more than 8,160 bytes alone.
    let _ = Hkdf::<Sha256>::new(None, secret).expand_multi_info(&[what, bound], key.as_mut_slice());
    key
}

fn seal_key(secret: &[u8; 32], transcript: &[u8; 32]) -> Secret {
    expand(secret, b"opener", transcript)
}

fn initial_secrets(secret: &[u8; 32], bound: &[u8; 32]) -> InitialSecrets {
    let both = expand::<64>(secret, b"session", bound);
    let (mut root, mut hide) = (Secret::default(), Secret::default());
    root.copy_from_slice(both.first_chunk::<32>().unwrap_or(&[0; 32]));
    hide.copy_from_slice(both.last_chunk::<32>().unwrap_or(&[0; 32]));
    InitialSecrets { root, hide }
}

fn encrypt(key: &[u8; 32], rng: &mut Stream, plain: &[u8]) -> ([u8; NONCE_LEN], Vec<u8>) {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    // Fails for more than 256 GiB alone.
    let sealed = ChaCha20Poly1305::new(&(*key).into()).encrypt(&Nonce::from(nonce), plain);
    (nonce, sealed.unwrap_or_default())
}

pub(crate) fn decrypt(key: &[u8; 32], nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
    ChaCha20Poly1305::new(&(*key).into()).decrypt(&Nonce::from(*nonce), sealed).ok()
}

impl Opening {
    /// Opens a session with a device, by its key of the period. `ratchet` is the public key with which the ratchet begins.
    ///
    /// # Errors
    /// The key is none.
    pub(crate) fn new(
        between: &Between<'_>,
        keys: &PublicKeys,
        me: &Opener<'_>,
        opened: u64,
        ratchet: &[u8; 32],
        rng: &mut Stream,
    ) -> Result<(Self, InitialSecrets), Error> {
        let kem = x_wing::EncapsulationKey::try_from(keys.kem.as_slice())
            .map_err(|_| Error::Malformed("a key to encapsulate to is none"))?;
        let (ciphertext, shared) = kem.encapsulate_with_rng(rng);
        let shared = Zeroizing::new(<[u8; 32]>::from(shared));
        let ciphertext = <[u8; CIPHERTEXT_LEN]>::from(ciphertext);
        let transcript = transcript(between, &ciphertext, (&keys.kem, &keys.prekey));
        let bound = with_sender(&transcript, (me.device, &me.identity), opened);
        let signature = me.secret.sign(Context::Opening, &[bound, *ratchet].concat());
        let opening = Self {
            key: keys.id(),
            ciphertext: ciphertext.to_vec(),
            seal: *seal_key(&shared, &transcript),
            from: me.device,
            size: me.size,
            opened,
            signature: encode(&signature),
        };
        Ok((opening, initial_secrets(&shared, &bound)))
    }

    /// A packet of the session that can be read without any other.
    pub(crate) fn packet(&self, message: &[u8], rng: &mut Stream) -> Vec<u8> {
        let plain = [
            &self.from.to_be_bytes()[..],
            &self.size.to_be_bytes(),
            &self.opened.to_be_bytes(),
            &self.signature,
            message,
        ]
        .concat();
        let (nonce, sealed) = encrypt(&self.seal, rng, &plain);
        [&[OPENING][..], &self.key, &self.ciphertext, &nonce, &sealed].concat()
    }
}

/// Reads what is encrypted in an opening packet.
fn sender(plain: &[u8]) -> Option<(u32, [u64; 2], Signature, Vec<u8>)> {
    let (from, rest) = plain.split_first_chunk::<4>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (opened, rest) = rest.split_first_chunk::<8>()?;
    let (signature, message) = rest.split_first_chunk::<64>()?;
    let (from, numbers) = (u32::from_be_bytes(*from), [*size, *opened].map(u64::from_be_bytes));
    let signature = decode("signature of an opening", signature, 64).ok()?;
    Some((from, numbers, signature, message.to_vec()))
}

impl Opened {
    /// Reads an opening packet that is for these keys; none if it is not, or was changed.
    pub(crate) fn read(
        between: &Between<'_>,
        keys: &PeriodKeys,
        ciphertext: &[u8; CIPHERTEXT_LEN],
        (nonce, sealed): (&[u8; NONCE_LEN], &[u8]),
    ) -> Option<Self> {
        let secret = keys.decapsulate(ciphertext);
        let public = keys.public();
        let transcript = transcript(between, ciphertext, (&public.kem, &public.prekey));
        let seal = seal_key(&secret, &transcript);
        let plain = decrypt(&seal, nonce, sealed)?;
        let (from, [size, opened], signature, message) = sender(&plain)?;
        Some(Self { from, size, opened, message, seal, signature, secret, transcript })
    }

    /// What the session begins with, if the device with this key signed it for this beginning of the ratchet.
    pub(crate) fn verify(&self, by: &Identity, ratchet: &[u8; 32]) -> Option<InitialSecrets> {
        let bound = with_sender(&self.transcript, (self.from, by), self.opened);
        let signed = by.verify(Context::Opening, &[bound, *ratchet].concat(), &self.signature);
        signed.then(|| initial_secrets(&self.secret, &bound))
    }
}

/// The message of the ratchet in a repeated opening packet of a session that is known.
pub(crate) fn repeated(seal: &[u8; 32], nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
    sender(&decrypt(seal, nonce, sealed)?).map(|(_, _, _, message)| message)
}

/// A packet of a session that both have.
pub(crate) fn further(hide: &[u8; 32], message: &[u8], rng: &mut Stream) -> Vec<u8> {
    let (nonce, sealed) = encrypt(hide, rng, message);
    [&[FURTHER][..], &nonce, &sealed].concat()
}
