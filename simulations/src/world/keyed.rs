//! A codec without cryptography by which a hop opens only what was sealed to its key.
//!
//! The null codec lets any key open any packet, so that a lost key shows nowhere. This one has the same lengths, costs as little,
//! and draws the same randomness; beside each hop of the path, a mark in the header says for which key it is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rand::CryptoRng;
use shoal_sphinx::{
    Address, Codec, Error, HEADER_LEN, Hop, MAX_HOPS, NullCodec, Opened, Packet, PacketId, Payload,
    Peeled, PublicKey, SecretKey, Surb, SurbKeys,
};

/// Bytes of a mark.
const MARK: usize = 8;
/// Where marks begin: the null codec leaves the end of the header empty.
const MARKS: usize = HEADER_LEN - MARK * MAX_HOPS;
/// Where the null codec counts the hops that are passed.
const POSITION: usize = 32;
/// Marks that are remembered; beyond it they are worked out anew.
const REMEMBERED: usize = 1 << 14;

/// See the module.
#[derive(Default)]
pub(super) struct KeyedCodec {
    /// Marks by secret key: a public key takes longer to work out than all else here.
    known: Mutex<BTreeMap<[u8; 32], [u8; MARK]>>,
}

fn mark(key: &PublicKey) -> [u8; MARK] {
    blake3::hash(key.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default()
}

fn place(position: usize) -> Range<usize> {
    MARKS + MARK * position..MARKS + MARK * (position + 1)
}

/// Writes the mark of each hop into a header.
fn write_marks(header: &mut [u8], path: &[Hop]) {
    for (position, hop) in path.iter().enumerate() {
        if let Some(to) = header.get_mut(place(position)) {
            to.copy_from_slice(&mark(&hop.key));
        }
    }
}

impl KeyedCodec {
    fn mark_of(&self, secret: &SecretKey) -> [u8; MARK] {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        *known.entry(*secret.as_bytes()).or_insert_with(|| mark(&secret.public()))
    }
}

impl Codec for KeyedCodec {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        let mut packet = NullCodec.seal(rng, path, id, message)?;
        write_marks(packet.as_mut_bytes(), path);
        Ok(packet)
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        let (surb, keys) = NullCodec.surb(rng, path, id)?;
        let mut bytes = *surb.as_bytes();
        write_marks(&mut bytes, path);
        Ok((Surb::from_slice(&bytes)?, keys))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        NullCodec.reply(surb, message)
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let bytes = packet.as_bytes();
        let position = bytes.get(POSITION).copied().unwrap_or(u8::MAX);
        let is_ours = usize::from(position) < MAX_HOPS
            && bytes.get(place(usize::from(position))) == Some(&self.mark_of(secret)[..]);
        if is_ours { NullCodec.open(secret, packet) } else { Err(Error::Mac) }
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        NullCodec.peel(opened)
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        NullCodec.unseal(keys, payload)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_topology::Seed;

    use super::*;

    #[test]
    fn each_hop_opens_what_is_for_it_and_no_other_does() {
        let mut rng = Seed::from_u64(1).stream("keyed");
        let codec = KeyedCodec::default();
        let secrets: Vec<SecretKey> =
            (0..MAX_HOPS).map(|_| SecretKey::generate(&mut rng)).collect();
        let path: Vec<Hop> = secrets
            .iter()
            .zip(1..)
            .map(|(secret, n)| Hop {
                address: [n; 32],
                key: secret.public(),
                delay: Duration::from_millis(u64::from(n)),
            })
            .collect();
        let (surb, keys) = codec.surb(&mut rng, &path, [7; 16]).unwrap();
        let (reply, first) = codec.reply(surb, b"answer").unwrap();
        assert_eq!(first, [1; 32]);
        let sealed = codec.seal(&mut rng, &path, [0; 16], b"letter").unwrap();
        for (mut packet, is_reply) in [(sealed, false), (reply, true)] {
            for (position, secret) in secrets.iter().enumerate() {
                for other in secrets.iter().filter(|other| other.public() != secret.public()) {
                    assert!(codec.open(other, packet.clone()).is_err(), "{position}");
                }
                match codec.peel(codec.open(secret, packet.clone()).unwrap()).unwrap() {
                    Peeled::Forward { packet: next, .. } => packet = next,
                    Peeled::Final { payload, destination, .. } => {
                        assert_eq!((position, destination), (MAX_HOPS - 1, [5; 32]));
                        let read = match is_reply {
                            true => codec.unseal(&keys, payload).unwrap(),
                            false => payload.message().unwrap().to_vec(),
                        };
                        assert_eq!(read, if is_reply { &b"answer"[..] } else { b"letter" });
                    }
                }
            }
        }
    }
}
