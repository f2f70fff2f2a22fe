//! A session with all that its packets consist of, for the examples in `docs/vectors`. Behind the feature `vectors`, which the
//! program that writes them turns on, and no other.
//!
//! The ratchet draws the key of each new chain itself, so that no two sessions are alike. Here each chain is begun from a key of
//! a seed instead, by the same step, and the ratchet of the other end reads what is written in it.

use rand::Rng;
use shoal_topology::encoding::encode;
use shoal_topology::{Identity, SecretIdentity, Seed};
use vodozemac::olm::Message;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Read, Session, ratchet, step};
use crate::packet::{
    Between, InitialSecrets, Opened, Opener, Parsed, decrypt, fingerprint, parse, repeated,
    with_sender,
};
use crate::{Error, PeriodKeys};

/// Who writes to each other, and when.
pub struct Ends<'a> {
    /// The organisation that both belong to.
    pub organisation: &'a Identity,
    /// The number and the key of the device that opens the session.
    pub opener: (u32, &'a SecretIdentity),
    /// The key of the other device.
    pub reader: &'a Identity,
    /// The other device's keys of the period.
    pub keys: &'a PeriodKeys,
    /// How many entries of the directory the opener holds.
    pub size: u64,
    /// When the session is opened, Unix milliseconds.
    pub opened: u64,
}

/// One of the two devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The one that opens the session.
    Opener,
    /// The one that it is opened with.
    Reader,
}

/// Which packet carries a frame, as long as the choice is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// One that opens the session, until something has come back.
    Opening,
    /// One that does not.
    Further,
}

/// What both ends compute when a session is opened.
pub struct Shown {
    /// The 64 random bytes of the encapsulation.
    pub randomness: [u8; 64],
    /// The ciphertext that they give.
    pub ciphertext: Vec<u8>,
    /// The secret in it.
    pub secret: [u8; 32],
    /// What names the session without its opener.
    pub transcript: [u8; 32],
    /// What names it with its opener.
    pub bound: [u8; 32],
    /// The key under which the opener names himself.
    pub seal: [u8; 32],
    /// The opener's signature.
    pub signature: Vec<u8>,
    /// With what the ratchet begins.
    pub root: [u8; 32],
    /// The key that hides the ratchet's messages.
    pub hide: [u8; 32],
}

/// The ratchet of whoever writes next.
#[derive(Clone)]
pub struct Chain {
    /// The secret half of the key that its messages carry.
    pub own: [u8; 32],
    /// The root behind the step that gave the chain.
    pub root: [u8; 32],
    /// The key of the chain.
    pub key: [u8; 32],
    /// How many messages the chain has had.
    pub index: u64,
}

/// A packet, and what it is made from.
pub struct SentPacket {
    /// The end that wrote it.
    pub by: End,
    /// The ratchet before it was written.
    pub chain: Chain,
    /// The message of the ratchet.
    pub message: Vec<u8>,
    /// The packet as it leaves.
    pub packet: Vec<u8>,
}

/// One end does not read what the other one wrote.
const UNREAD: Error = Error::Malformed("a packet of the example is not read");

/// Opens a session with a packet that carries `first`, and writes the other frames in it. All of it is read at the other end.
///
/// # Errors
/// A packet cannot be made or is not read.
pub fn converse(
    ends: &Ends<'_>,
    first: &[u8],
    others: &[(End, Form, Vec<u8>)],
    seed: &Seed,
) -> Result<(Shown, Vec<SentPacket>), Error> {
    let mut rng = seed.stream("session of an example");
    // The same bytes once more: the opener draws the key of his chain, and then what the encapsulation takes.
    let (mut own, mut randomness) = ([0; 32], [0; 64]);
    let mut again = seed.stream("session of an example");
    again.fill_bytes(&mut own);
    again.fill_bytes(&mut randomness);

    let (organisation, to) = (ends.organisation, ends.reader);
    let between = Between { organisation, to, period: ends.keys.begins() };
    let (device, secret) = ends.opener;
    let me = Opener { device, identity: secret.identity(), secret, size: ends.size };
    let mut opener = Session::open(ends.opened, &between, ends.keys.public(), &me, &mut rng)?;
    let chain = opener.chain().ok_or(UNREAD)?;
    let packet = opener.seal(first, &mut rng).ok_or(UNREAD)?;
    let (shown, message, reader) = opened(ends, &between, randomness, first, &packet)?;
    let mut sent = vec![SentPacket { by: End::Opener, chain, message, packet }];

    let mut sessions = [opener, reader];
    let mut keys = seed.stream("chains of an example");
    for (by, form, frame) in others {
        let [opener, reader] = &mut sessions;
        let (writer, other) = match by {
            End::Opener => (opener, reader),
            End::Reader => (reader, opener),
        };
        if let Some(last) = sent.last().filter(|last| last.by != *by) {
            let mut own = [0; 32];
            keys.fill_bytes(&mut own);
            writer.turn(own, &last.chain)?;
        }
        let chain = writer.chain().ok_or(UNREAD)?;
        let packet = match form {
            Form::Opening => writer.seal(frame, &mut rng),
            Form::Further => writer.seal_further(frame, &mut rng),
        };
        let packet = packet.ok_or(UNREAD)?;
        let message = read(other, &shown, ends.opened, &packet, frame)?;
        sent.push(SentPacket { by: *by, chain, message, packet });
    }
    Ok((shown, sent))
}

/// What the packet that opens the session shows to its reader, its message of the ratchet, and the reader's session.
fn opened(
    ends: &Ends<'_>,
    between: &Between<'_>,
    randomness: [u8; 64],
    first: &[u8],
    packet: &[u8],
) -> Result<(Shown, Vec<u8>, Session), Error> {
    let Some(Parsed::Opening { ciphertext, nonce, sealed, .. }) = parse(packet) else {
        return Err(UNREAD);
    };
    let by = ends.opener.1.identity();
    let opened = Opened::read(between, ends.keys, ciphertext, (nonce, sealed)).ok_or(UNREAD)?;
    let message = Message::from_bytes(&opened.message).map_err(|_| UNREAD)?;
    let InitialSecrets { root, hide } =
        opened.verify(&by, &message.ratchet_key().to_bytes()).ok_or(UNREAD)?;
    let known = fingerprint(ciphertext);
    let (reader, frame) =
        Session::accept(ends.opened, &opened, &by, ends.keys, known).ok_or(UNREAD)?;
    if *frame != first {
        return Err(UNREAD);
    }
    let shown = Shown {
        randomness,
        ciphertext: ciphertext.to_vec(),
        secret: *opened.secret,
        transcript: opened.transcript,
        bound: with_sender(&opened.transcript, (opened.from, &by), opened.opened),
        seal: *opened.seal,
        signature: encode(&opened.signature),
        root: *root,
        hide: *hide,
    };
    Ok((shown, opened.message, reader))
}

/// Reads a packet that must carry this frame. Its message of the ratchet.
fn read(
    session: &mut Session,
    shown: &Shown,
    now: u64,
    packet: &[u8],
    frame: &[u8],
) -> Result<Vec<u8>, Error> {
    let (message, read) = match parse(packet).ok_or(UNREAD)? {
        Parsed::Opening { nonce, sealed, .. } => {
            (repeated(&shown.seal, nonce, sealed), session.read_opening(now, nonce, sealed))
        }
        Parsed::Further { nonce, sealed } => {
            (decrypt(&shown.hide, nonce, sealed), session.read(now, nonce, sealed))
        }
    };
    match read {
        Read::Frame(read) if *read == frame => message.ok_or(UNREAD),
        _ => Err(UNREAD),
    }
}

impl Session {
    /// The chain in which it writes; none if it has read since it wrote.
    fn chain(&self) -> Option<Chain> {
        let state = self.ratchet.active_sending_state()?;
        let (own, root, key) = (*state.ratchet_key, *state.root_key, *state.chain_key);
        Some(Chain { own, root, key, index: state.chain_index })
    }

    /// Begins a chain with this key, behind the other one's last.
    fn turn(&mut self, own: [u8; 32], last: &Chain) -> Result<(), Error> {
        let theirs = PublicKey::from(&StaticSecret::from(last.own));
        let agreed = StaticSecret::from(own).diffie_hellman(&theirs);
        let both = step(&last.root, agreed.as_bytes());
        let halves = both.first_chunk().zip(both.last_chunk());
        let (root, chain) = halves.ok_or(UNREAD)?;
        self.ratchet = ratchet(root, chain, &own);
        Ok(())
    }
}
