//! One session with a device: a ratchet, and the key that hides its messages.

#[cfg(feature = "vectors")]
pub mod vectors;

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode_secret};
use shoal_topology::{Identity, Stream};
use vodozemac::Curve25519PublicKey;
use vodozemac::olm::{Message, OlmMessage, Session as Ratchet, SessionConfig, SessionKeys};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::KeyId;
use crate::packet::{
    self, Between, FURTHER_ROOM, InitialSecrets, OPENING_ROOM, Opened, Opener, Opening,
};
use crate::{Error, PeriodKeys, PublicKeys};

/// What a message of the ratchet has beside its text, at most: its keys and counters, a MAC, and padding to blocks of 16.
const RATCHET_HEAD: usize = 72;
/// Longest frame in an opening packet.
pub(crate) const OPENING_FRAME: usize = OPENING_ROOM - RATCHET_HEAD;
/// Longest frame in a further packet.
pub(crate) const FURTHER_FRAME: usize = FURTHER_ROOM - RATCHET_HEAD;
/// Most bytes of a session that is kept.
const MAX_SAVED: usize = 64 << 10;

/// A session. The one that opened it repeats the opening in each packet until something has come back.
pub(crate) struct Session {
    ratchet: Ratchet,
    kept: SessionRecord,
}

/// What is kept beside the ratchet.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct SessionRecord {
    /// Hides the ratchet's messages.
    hide: [u8; 32],
    /// The opening, of one who opened it and has heard nothing.
    opening: Option<Opening>,
    /// Encrypts repeated openings, of one with whom it was opened.
    seal: Option<[u8; 32]>,
    /// By which a repeated opening is known, of one with whom it was opened.
    fingerprint: Option<[u8; 16]>,
    /// The beginning of the period whose key it was opened with, Unix seconds.
    period: u64,
    /// The name of that key, of one who opened it.
    key: KeyId,
    /// Both have sent in it: it holds without the key that it was opened with.
    is_answered: bool,
    /// When it came to be here, Unix milliseconds.
    since: u64,
    /// When it was opened by the clock of who opened it, Unix milliseconds.
    opened: u64,
    /// When something came in it last, Unix milliseconds; 0 if nothing did.
    heard: u64,
    /// Something was encrypted in it.
    sent: bool,
    /// Packets that were encrypted since the other one was last heard of in it.
    unanswered: u32,
    /// It sends no more: a newer one takes its place.
    old: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    ratchet: Vec<u8>,
    kept: SessionRecord,
}

/// Grows without leaving copies of what was in it.
#[derive(Default)]
struct WipedBuffer(Zeroizing<Vec<u8>>);

impl std::io::Write for WipedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.0.len() + bytes.len();
        if length > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * length.max(4_096)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What became of a packet.
pub(crate) enum Read {
    /// The frame that was in it.
    Frame(Zeroizing<Vec<u8>>),
    /// It belongs to this session, and the ratchet cannot open it: it was opened before, or one side's state is an old one.
    Broken,
    /// It belongs to another session.
    Other,
}

/// The names of a session matter to Olm's own handshake alone, which is not used here.
fn names(ratchet: Curve25519PublicKey) -> SessionKeys {
    SessionKeys { identity_key: ratchet, base_key: ratchet, one_time_key: ratchet }
}

fn ratchet(root: &[u8; 32], chain: &[u8; 32], key: &[u8; 32]) -> Ratchet {
    let public = PublicKey::from(&StaticSecret::from(*key)).to_bytes();
    let names = names(Curve25519PublicKey::from_bytes(public));
    Ratchet::from_root_key_material(SessionConfig::version_1(), names, *root, *chain, *key)
}

/// A step of the ratchet, as both ends take it: the next root and the key of the next chain.
fn step(root: &[u8; 32], agreed: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let mut both = Zeroizing::new([0; 64]);
    let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(Some(root), agreed);
    // Fails for more than 8,160 bytes alone.
    let _ = hkdf.expand(b"OLM_RATCHET", both.as_mut_slice());
    both
}

impl Session {
    /// Opens one with a device.
    ///
    /// # Errors
    /// The device's keys are none.
    pub(crate) fn open(
        now: u64,
        between: &Between<'_>,
        keys: &PublicKeys,
        me: &Opener<'_>,
        rng: &mut Stream,
    ) -> Result<Self, Error> {
        use rand::Rng;
        let mut own = Zeroizing::new([0; 32]);
        rng.fill_bytes(own.as_mut_slice());
        let own_secret = StaticSecret::from(*own);
        let public = PublicKey::from(&own_secret).to_bytes();
        let (opening, InitialSecrets { root, hide }) =
            Opening::new(between, keys, me, now, &public, rng)?;
        let agreed = own_secret.diffie_hellman(&PublicKey::from(keys.prekey));
        if !agreed.was_contributory() {
            return Err(Error::Malformed("a prekey is a point of small order"));
        }
        let both = step(&root, agreed.as_bytes());
        let (root, chain) = both.split_at(32);
        let (root, chain) =
            (root.try_into().unwrap_or(&[0; 32]), chain.try_into().unwrap_or(&[0; 32]));
        let kept = SessionRecord {
            hide: *hide,
            opening: Some(opening),
            seal: None,
            fingerprint: None,
            period: between.period,
            key: keys.id(),
            is_answered: false,
            since: now,
            opened: now,
            heard: 0,
            sent: false,
            unanswered: 0,
            old: false,
        };
        Ok(Self { ratchet: ratchet(root, chain, &own), kept })
    }

    /// Takes one that a device has opened; with its first frame. None if the ratchet does not fit.
    pub(crate) fn accept(
        now: u64,
        opened: &Opened,
        by: &Identity,
        keys: &PeriodKeys,
        fingerprint: [u8; 16],
    ) -> Option<(Self, Zeroizing<Vec<u8>>)> {
        let message = Message::from_bytes(&opened.message).ok()?;
        let initial = opened.verify(by, &message.ratchet_key().to_bytes())?;
        // It sends nothing before it has received: the chain is of no use.
        let mut ratchet = ratchet(&initial.root, &[0; 32], keys.prekey());
        let frame = Zeroizing::new(ratchet.decrypt(&OlmMessage::Normal(message)).ok()?);
        let kept = SessionRecord {
            hide: *initial.hide,
            opening: None,
            seal: Some(*opened.seal),
            fingerprint: Some(fingerprint),
            period: keys.begins(),
            key: keys.public().id(),
            is_answered: false,
            since: now,
            // By a clock that is ahead no session is later than others for long.
            opened: opened.opened.min(now),
            heard: now,
            sent: false,
            unanswered: 0,
            old: false,
        };
        Some((Self { ratchet, kept }, frame))
    }

    /// Encrypts a frame; none if it does not fit ([`Self::room`]).
    pub(crate) fn seal(&mut self, frame: &[u8], rng: &mut Stream) -> Option<Vec<u8>> {
        if frame.len() > self.room() {
            return None;
        }
        let message = match self.ratchet.encrypt(frame).ok()? {
            OlmMessage::Normal(message) => message.to_bytes(),
            OlmMessage::PreKey(message) => message.message().to_bytes(),
        };
        self.kept.sent = true;
        self.kept.unanswered = self.kept.unanswered.saturating_add(1);
        Some(match &self.kept.opening {
            Some(opening) => opening.packet(&message, rng),
            None => packet::further(&self.kept.hide, &message, rng),
        })
    }

    /// As [`Self::seal`], for a frame that does not fit beside an opening: the opening must go in a packet of its own.
    pub(crate) fn seal_further(&mut self, frame: &[u8], rng: &mut Stream) -> Option<Vec<u8>> {
        let opening = self.kept.opening.take();
        let sealed = self.seal(frame, rng);
        self.kept.opening = opening;
        sealed
    }

    /// Longest frame that it encrypts now.
    pub(crate) fn room(&self) -> usize {
        if self.kept.opening.is_some() { OPENING_FRAME } else { FURTHER_FRAME }
    }

    /// Reads a packet that opens no session.
    pub(crate) fn read(&mut self, now: u64, nonce: &[u8; 12], sealed: &[u8]) -> Read {
        match packet::decrypt(&self.kept.hide, nonce, sealed) {
            Some(message) => self.read_message(now, &message),
            None => Read::Other,
        }
    }

    /// Reads a packet that opened this session, once more.
    pub(crate) fn read_opening(&mut self, now: u64, nonce: &[u8; 12], sealed: &[u8]) -> Read {
        let message = self.kept.seal.and_then(|seal| packet::repeated(&seal, nonce, sealed));
        match message {
            Some(message) => self.read_message(now, &message),
            None => Read::Other,
        }
    }

    fn read_message(&mut self, now: u64, message: &[u8]) -> Read {
        let Ok(message) = Message::from_bytes(message) else { return Read::Broken };
        match self.ratchet.decrypt(&OlmMessage::Normal(message)) {
            Ok(frame) => {
                // It has come back, so the other one has the session.
                self.kept.opening = None;
                self.kept.is_answered |= self.kept.sent;
                self.kept.unanswered = 0;
                self.kept.heard = now;
                Read::Frame(Zeroizing::new(frame))
            }
            Err(_) => Read::Broken,
        }
    }

    /// True for the session that this packet opened, if it is known.
    pub(crate) fn was_opened_by(&self, fingerprint: &[u8; 16]) -> bool {
        self.kept.fingerprint.as_ref() == Some(fingerprint)
    }

    /// True if the other one opened it.
    pub(crate) fn is_theirs(&self) -> bool {
        self.kept.fingerprint.is_some()
    }

    /// The beginning of the period whose key it needs, Unix seconds: until both have sent in a session that the other one opened.
    pub(crate) fn needs(&self) -> Option<u64> {
        (self.is_theirs() && !self.kept.is_answered).then_some(self.kept.period)
    }

    /// The other one's key that it was opened with, if it was opened here.
    pub(crate) fn their_key(&self) -> Option<KeyId> {
        (!self.is_theirs()).then_some(self.kept.key)
    }

    /// The clock was set back: nothing happened later than now.
    pub(crate) fn clamp(&mut self, now: u64) {
        let SessionRecord { since, opened, heard, .. } = &mut self.kept;
        [since, opened, heard].into_iter().for_each(|at| *at = now.min(*at));
    }

    /// When it came to be, Unix milliseconds.
    pub(crate) fn since(&self) -> u64 {
        self.kept.since
    }

    /// When it came to be, or something came in it last, Unix milliseconds.
    pub(crate) fn lived(&self) -> u64 {
        self.kept.since.max(self.kept.heard)
    }

    /// When it was opened by the clock of who opened it, Unix milliseconds.
    pub(crate) fn opened(&self) -> u64 {
        self.kept.opened
    }

    /// Packets that were encrypted since the other one was last heard of in it.
    pub(crate) fn unanswered(&self) -> u32 {
        self.kept.unanswered
    }

    /// It sends no more.
    pub(crate) fn retire(&mut self) {
        self.kept.old = true;
    }

    /// True if it sends no more.
    pub(crate) fn is_old(&self) -> bool {
        self.kept.old
    }

    /// The bytes to keep. They hold secrets.
    pub(crate) fn save(&self) -> Zeroizing<Vec<u8>> {
        // The ratchet's state has maps with names, which JSON can hold.
        let mut ratchet = WipedBuffer::default();
        // Fails for maps with other keys than names alone.
        let _ = serde_json::to_writer(&mut ratchet, &self.ratchet.pickle());
        let mut saved = Saved { ratchet: std::mem::take(&mut *ratchet.0), kept: self.kept.clone() };
        let bytes = encode_secret(&saved);
        saved.ratchet.zeroize();
        bytes
    }

    /// Reads [`Self::save`].
    ///
    /// # Errors
    /// Bytes of another form.
    pub(crate) fn restore(bytes: &[u8]) -> Result<Self, Error> {
        let mut saved: Saved = decode("saved session", bytes, MAX_SAVED)?;
        let pickle = serde_json::from_slice(&saved.ratchet);
        saved.ratchet.zeroize();
        let pickle = pickle.map_err(|_| Error::Malformed("a saved ratchet cannot be read"))?;
        Ok(Self { ratchet: Ratchet::from_pickle(pickle), kept: saved.kept })
    }
}
