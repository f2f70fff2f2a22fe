//! The codec of the deployed network, put together from the primitives of `sphinx-packet`.
//!
//! That crate is the judge of the format, and the tests hold both equal, byte for byte. What it does not offer:
//! a look at the version before its parser (which has a debug assertion that a sender can trip), building with
//! one multiplication for each hop, and a packet whose every byte follows from the caller's generator.

use std::time::Duration;

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use chacha20::ChaCha20;
use hmac::KeyInit;
use lioness_rs::Lioness;
use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::header::{self, Built, FINAL, FORWARD, HOP_LEN, HopKeys, ROUTING_LEN, VERSION, part};
use crate::packet::{pad, unpad};
use crate::{
    Address, Codec, Error, HEADER_LEN, Hop, HopState, MESSAGE_LEN, Opened, PAYLOAD_LEN, Packet,
    PacketId, Payload, Peeled, SURB_LEN, SecretKey, Surb, SurbKeys, curve,
};

const HKDF_SALT: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-SALT";
const HKDF_INFO: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-INFO";

/// The wire format itself.
#[derive(Clone, Copy, Default)]
pub struct Sphinx;

fn payload_cipher(seed: &[u8; 16]) -> Lioness<ChaCha20, Blake2bMac<U32>> {
    let mut key = Zeroizing::new([0; 192]);
    header::expand(HKDF_SALT, seed, HKDF_INFO, key.as_mut());
    Lioness::new((&*key).into())
}

#[expect(clippy::expect_used, reason = "LIONESS takes blocks of more than 32 bytes")]
fn encrypt(seed: &[u8; 16], payload: &mut [u8; PAYLOAD_LEN]) {
    payload_cipher(seed).encrypt_block(payload).expect("a payload has 2,048 bytes");
}

#[expect(clippy::expect_used, reason = "LIONESS takes blocks of more than 32 bytes")]
fn decrypt(seed: &[u8; 16], payload: &mut [u8; PAYLOAD_LEN]) {
    payload_cipher(seed).decrypt_block(payload).expect("a payload has 2,048 bytes");
}

/// A packet of this header, whose payload is encrypted with each seed, from the last to the first.
fn assemble(header: &[u8], seeds: &[[u8; 16]], message: &[u8]) -> Result<Packet, Error> {
    let mut packet = Packet::default();
    let (front, payload) = packet.split_mut();
    front.copy_from_slice(header);
    pad(message, payload)?;
    seeds.iter().rev().for_each(|seed| encrypt(seed, payload));
    Ok(packet)
}

impl Codec for Sphinx {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        if message.len() > MESSAGE_LEN {
            return Err(Error::MessageTooLong);
        }
        let Built { header, seeds } = header::build(rng, path, id)?;
        assemble(&header, &seeds, message)
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        let (Some(first), true) = (path.first(), id != [0; 16]) else {
            return Err(Error::Path);
        };
        let Built { header, seeds } = header::build(rng, path, id)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(SURB_LEN));
        bytes.extend(header);
        bytes.extend(first.address);
        bytes.extend(seeds.last().ok_or(Error::Path)?);
        Ok((Surb::from_slice(&bytes)?, SurbKeys { id, seeds }))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        let (header, rest) = surb.as_bytes().split_at(HEADER_LEN);
        let seed = Zeroizing::new([part::<16>(rest, 32)]);
        Ok((assemble(header, seed.as_slice(), message)?, part(rest, 0)))
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let bytes = packet.as_bytes().as_slice();
        let point: [u8; 32] = part(bytes, 0);
        let shared = curve::multiply(&secret.0, &point);
        if bool::from(shared.ct_eq(&[0; 32])) {
            return Err(Error::LowOrder);
        }
        let (keys, tag) = HopKeys::derive(&shared);
        let expected = keys.authenticate(&part(bytes, 48));
        if !bool::from(expected.ct_eq(&part::<16>(bytes, 32))) {
            return Err(Error::Mac);
        }
        Ok(Opened { tag, packet, state: HopState::Keys(keys) })
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        let Opened { mut packet, state: HopState::Keys(keys), .. } = opened else {
            return Err(Error::Mac);
        };
        let (header, payload) = packet.split_mut();

        // The routing block, moved up by one hop: what comes in at its end is the key stream over zeros.
        let mut routing = [0; ROUTING_LEN + HOP_LEN];
        let (known, _) = routing.split_at_mut(ROUTING_LEN);
        known.copy_from_slice(&part::<ROUTING_LEN>(header, 48));
        keys.apply_stream(&mut routing);

        if part::<3>(&routing, 1) != VERSION {
            return Err(Error::Version);
        }
        let flag: [u8; 1] = part(&routing, 0);
        let address: Address = part(&routing, 4);
        if flag != [FORWARD] && flag != [FINAL] {
            return Err(Error::Routing);
        }
        decrypt(&keys.payload_seed, payload);

        if flag == [FINAL] {
            let mut content = Box::new([0; PAYLOAD_LEN]);
            content.copy_from_slice(payload);
            return Ok(Peeled::Final {
                destination: address,
                id: part(&routing, 36),
                payload: Payload(content),
            });
        }
        let point: [u8; 32] = part(header, 0);
        let (head, rest) = header.split_at_mut(32);
        head.copy_from_slice(curve::multiply(&keys.blinding, &point).as_slice());
        rest.copy_from_slice(&part::<{ HEADER_LEN - 32 }>(&routing, 44));
        let delay = Duration::from_nanos(u64::from_be_bytes(part(&routing, 36)));
        Ok(Peeled::Forward { next: address, delay, packet })
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        // Each hop removed a layer that was never put on, its maker the one that was.
        let Payload(mut payload) = payload;
        keys.seeds.iter().rev().for_each(|seed| encrypt(seed, &mut payload));
        decrypt(keys.seeds.last().ok_or(Error::Payload)?, &mut payload);
        unpad(payload.as_slice()).map(<[u8]>::to_vec)
    }
}
