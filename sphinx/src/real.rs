//! The codec of the deployed network.
//!
//! Building uses `sphinx-packet`, the judge of the format. Opening is put together here from the same primitives:
//! `sphinx-packet` gives no way to look at the version before its own parser does, and that parser has a debug
//! assertion which a sender can trip. The tests hold both equal, byte for byte.

use std::time::Duration;

use aes::Aes128;
use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use chacha20::ChaCha20;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use lioness_rs::Lioness;
use rand::CryptoRng;
use sha2::Sha256;
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SphinxPacketBuilder, SurbReplyRecovery, constants};
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::packet::unpad;
use crate::{
    Address, Codec, Error, HEADER_LEN, Hop, MAX_HOPS, MESSAGE_LEN, Opened, PAYLOAD_LEN, Packet,
    PacketId, Payload, Peeled, ReplayTag, SecretKey, Surb, SurbKeys,
};

/// A hop's part of the routing block: flag 1, version 3, address 32, delay 8, MAC 16.
const HOP_LEN: usize = 60;
const ROUTING_LEN: usize = HOP_LEN * MAX_HOPS;
const VERSION: [u8; 3] = [0, 1, 4]; // 260
const FORWARD: u8 = 1;
const FINAL: u8 = 2;

/// The wire format itself.
#[derive(Clone, Copy, Default)]
pub struct Sphinx;

/// What a hop derives from the shared secret (HKDF-SHA256, 288 bytes, in this order).
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct HopKeys {
    stream: [u8; 16],
    mac: [u8; 16],
    payload_seed: [u8; 16],
    blinding: [u8; 32],
}

impl HopKeys {
    pub(crate) const NONE: Self =
        Self { stream: [0; 16], mac: [0; 16], payload_seed: [0; 16], blinding: [0; 32] };

    fn derive(shared_secret: &[u8; 32]) -> (Self, ReplayTag) {
        let mut okm = Zeroizing::new([0; constants::EXPANDED_SHARED_SECRET_LENGTH]);
        let hkdf =
            Hkdf::<Sha256>::new(Some(constants::EXPANDED_SHARED_SECRET_HKDF_SALT), shared_secret);
        expand(&hkdf, constants::EXPANDED_SHARED_SECRET_HKDF_INFO, okm.as_mut());
        // The payload key's place has 192 bytes, of which version 260 uses the first 16, as a seed.
        let keys = Self {
            stream: part(okm.as_slice(), 0),
            mac: part(okm.as_slice(), 16),
            payload_seed: part(okm.as_slice(), 32),
            blinding: part(okm.as_slice(), 224),
        };
        (keys, ReplayTag(part(okm.as_slice(), 256)))
    }
}

/// `N` bytes from `offset` on, of a block whose length the caller fixed.
fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(from) = bytes.get(offset..offset + N) {
        out.copy_from_slice(from);
    }
    out
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[u8], okm: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "RFC 5869: fails beyond 255 * 32 bytes, asked are 288")]
    hkdf.expand(info, okm).expect("288 bytes are within the limit of HKDF-SHA256");
}

fn payload_cipher(seed: &[u8; 16]) -> Lioness<ChaCha20, Blake2bMac<U32>> {
    let mut key = Zeroizing::new([0; constants::PAYLOAD_KEY_SIZE]);
    let hkdf = Hkdf::<Sha256>::new(Some(constants::PAYLOAD_KEY_HKDF_SALT), seed);
    expand(&hkdf, constants::PAYLOAD_KEY_HKDF_INFO, key.as_mut());
    Lioness::new((&*key).into())
}

fn draw_secret(rng: &mut dyn CryptoRng) -> StaticSecret {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut());
    StaticSecret::from(*bytes)
}

/// In the words of `sphinx-packet`: route, delays, destination.
fn route(path: &[Hop], id: PacketId) -> Result<(Vec<Node>, Vec<Delay>, Destination), Error> {
    let last = path.last().ok_or(Error::Path)?;
    if path.len() > MAX_HOPS {
        return Err(Error::Path);
    }
    let nodes = path
        .iter()
        .map(|hop| {
            Node::new(NodeAddressBytes::from_bytes(hop.address), (*hop.key.as_bytes()).into())
        })
        .collect();
    let delays = path
        .iter()
        .map(|hop| Delay::new_from_nanos(u64::try_from(hop.delay.as_nanos()).unwrap_or(u64::MAX)))
        .collect();
    let destination = Destination::new(DestinationAddressBytes::from_bytes(last.address), id);
    Ok((nodes, delays, destination))
}

impl Codec for Sphinx {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        let secret = draw_secret(rng);
        if message.len() > MESSAGE_LEN {
            return Err(Error::MessageTooLong);
        }
        let (nodes, delays, destination) = route(path, id)?;
        let packet = SphinxPacketBuilder::new()
            .with_version(SINGLE_SEED_SURB_VERSION)
            .with_payload_size(PAYLOAD_LEN)
            .with_initial_secret(&secret)
            .build_packet(message, &nodes, &destination, &delays)
            .map_err(|_| Error::Path)?;
        Packet::from_slice(&packet.to_bytes())
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        let secret = draw_secret(rng);
        let (nodes, delays, destination) = route(path, id)?;
        let material = SURBMaterial::new(nodes, delays, destination, SINGLE_SEED_SURB_VERSION);
        let (surb, recovery) = SURB::new_recoverable(secret, material).map_err(|_| Error::Path)?;
        let recovery = Zeroizing::new(recovery.to_bytes());
        let (_, seeds) = recovery.split_at_checked(16).ok_or(Error::Surb)?;
        let seeds = Zeroizing::new(seeds.as_chunks::<16>().0.to_vec());
        Ok((Surb::from_slice(&Zeroizing::new(surb.to_bytes()))?, SurbKeys { id, seeds }))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        if message.len() > MESSAGE_LEN {
            return Err(Error::MessageTooLong);
        }
        let surb = SURB::from_bytes(surb.as_bytes().as_slice()).map_err(|_| Error::Surb)?;
        let (packet, first) = surb.use_surb(message, PAYLOAD_LEN).map_err(|_| Error::Surb)?;
        Ok((Packet::from_slice(&packet.to_bytes())?, first.to_bytes()))
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let bytes = packet.as_bytes().as_slice();
        let point: [u8; 32] = part(bytes, 0);
        let shared = secret.0.diffie_hellman(&point.into());
        if !shared.was_contributory() {
            return Err(Error::LowOrder);
        }
        let (keys, tag) = HopKeys::derive(shared.as_bytes());
        let routing: [u8; ROUTING_LEN] = part(bytes, 48);
        let mut mac = Hmac::<Sha256>::new_from_slice(&keys.mac).map_err(|_| Error::Mac)?;
        mac.update(&routing);
        let expected: [u8; 16] = part(mac.finalize().into_bytes().as_slice(), 0);
        if !bool::from(expected.ct_eq(&part::<16>(bytes, 32))) {
            return Err(Error::Mac);
        }
        Ok(Opened { tag, packet, keys })
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        let Opened { mut packet, keys, .. } = opened;
        let (header, payload) = packet.as_mut_bytes().split_at_mut(HEADER_LEN);

        // The routing block, moved up by one hop: what comes in at its end is the key stream over zeros.
        let mut routing = [0; ROUTING_LEN + HOP_LEN];
        let (known, _) = routing.split_at_mut(ROUTING_LEN);
        known.copy_from_slice(&part::<ROUTING_LEN>(header, 48));
        ctr::Ctr64BE::<Aes128>::new((&keys.stream).into(), (&[0; 16]).into())
            .apply_keystream(&mut routing);

        if part::<3>(&routing, 1) != VERSION {
            return Err(Error::Version);
        }
        let flag: [u8; 1] = part(&routing, 0);
        let address: Address = part(&routing, 4);
        if flag != [FORWARD] && flag != [FINAL] {
            return Err(Error::Routing);
        }
        payload_cipher(&keys.payload_seed).decrypt_block(payload).map_err(|_| Error::Payload)?;

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
        let blinded = StaticSecret::from(keys.blinding).diffie_hellman(&point.into());
        let (head, rest) = header.split_at_mut(32);
        head.copy_from_slice(blinded.as_bytes());
        rest.copy_from_slice(&part::<{ HEADER_LEN - 32 }>(&routing, 44));
        let delay = Duration::from_nanos(u64::from_be_bytes(part(&routing, 36)));
        Ok(Peeled::Forward { next: address, delay, packet })
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        let mut recovery = Zeroizing::new(keys.id.to_vec());
        keys.seeds.iter().for_each(|seed| recovery.extend_from_slice(seed));
        let recovery = SurbReplyRecovery::from_bytes(&recovery).map_err(|_| Error::Surb)?;
        let sealed = sphinx_packet::payload::Payload::from_bytes(payload.0.as_slice())
            .map_err(|_| Error::Payload)?;
        let opened = recovery.unseal(sealed).map_err(|_| Error::Payload)?;
        unpad(opened.as_bytes()).map(<[u8]>::to_vec)
    }
}
