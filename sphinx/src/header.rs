//! Headers: what a sender writes into one, and the keys that each hop derives from it.

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::curve::{self, Sender};
use crate::{Error, HEADER_LEN, Hop, MAX_HOPS, PacketId, ReplayTag};

/// A hop's part of the routing block: flag 1, version 3, address 32, delay 8, MAC 16.
pub(crate) const HOP_LEN: usize = 60;
pub(crate) const ROUTING_LEN: usize = HOP_LEN * MAX_HOPS;
/// The last hop's part: flag 1, version 3, destination 32, identifier 16.
const FINAL_LEN: usize = 52;
pub(crate) const VERSION: [u8; 3] = [0, 1, 4]; // 260
pub(crate) const FORWARD: u8 = 1;
pub(crate) const FINAL: u8 = 2;

const HKDF_INFO: &[u8] =
    b"Dwste mou enan moxlo arketa makru kai ena upomoxlio gia na ton topothetisw kai tha kinisw thn gh.";

/// What a hop derives from the shared secret (HKDF-SHA256, 288 bytes, in this order).
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct HopKeys {
    pub(crate) stream: [u8; 16],
    pub(crate) mac: [u8; 16],
    pub(crate) payload_seed: [u8; 16],
    pub(crate) blinding: [u8; 32],
}

impl HopKeys {
    pub(crate) fn derive(shared_secret: &[u8; 32]) -> (Self, ReplayTag) {
        let mut okm = Zeroizing::new([0; 288]);
        expand(&[], shared_secret, HKDF_INFO, okm.as_mut());
        // The payload key's place has 192 bytes, of which version 260 uses the first 16, as a seed.
        let keys = Self {
            stream: part(okm.as_slice(), 0),
            mac: part(okm.as_slice(), 16),
            payload_seed: part(okm.as_slice(), 32),
            blinding: part(okm.as_slice(), 224),
        };
        (keys, ReplayTag(part(okm.as_slice(), 256)))
    }

    /// The header's MAC over the routing block.
    pub(crate) fn authenticate(&self, routing: &[u8; ROUTING_LEN]) -> [u8; 16] {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.mac).expect("a key of 16 bytes");
        mac.update(routing);
        part(mac.finalize().into_bytes().as_slice(), 0)
    }

    /// Adds the key stream of the routing block to it, from its start.
    pub(crate) fn apply_stream(&self, block: &mut [u8]) {
        ctr::Ctr64BE::<Aes128>::new((&self.stream).into(), (&[0; 16]).into())
            .apply_keystream(block);
    }
}

/// HKDF-SHA256, for outputs of a few hundred bytes.
pub(crate) fn expand(salt: &[u8], secret: &[u8], info: &[u8], okm: &mut [u8]) {
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

/// Bytes between the last hop's part and the filler of a path of `hops`.
pub(crate) fn padding_len(hops: usize) -> usize {
    HOP_LEN * (MAX_HOPS + 1 - hops) - FINAL_LEN
}

/// What the sender of a packet draws.
pub(crate) struct Drawn {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    /// Stands behind the last hop's part; random, not zero, so that the last hop does not learn the length of the
    /// path (Kuhn et al., "Breaking and (Partially) Fixing Provably Secure Onion Routing", IEEE S&P 2020).
    padding: Zeroizing<Vec<u8>>,
}

/// Draws what a packet needs.
///
/// # Errors
/// [`Error::Path`] for a path of no hops, or of too many; nothing is drawn then.
pub(crate) fn draw(rng: &mut dyn CryptoRng, path: &[Hop]) -> Result<Drawn, Error> {
    if path.is_empty() || path.len() > MAX_HOPS {
        return Err(Error::Path);
    }
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut());
    let mut padding = Zeroizing::new(vec![0; padding_len(path.len())]);
    rng.fill_bytes(&mut padding);
    Ok(Drawn { secret, padding })
}

/// A header, and the seed of the payload key of each hop of the path.
pub(crate) struct Built {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) seeds: Zeroizing<Vec<[u8; 16]>>,
}

/// The header for a path of 1 to [`MAX_HOPS`] hops (Danezis and Goldberg, section 3.2, figure 2).
pub(crate) fn build(rng: &mut dyn CryptoRng, path: &[Hop], id: PacketId) -> Result<Built, Error> {
    let Drawn { secret, padding } = draw(rng, path)?;
    let last = path.last().ok_or(Error::Path)?;

    let mut sender = Sender::new(&secret);
    let mut seeds = Zeroizing::new(Vec::with_capacity(path.len()));
    let mut hops = Vec::with_capacity(path.len());
    for (i, hop) in path.iter().enumerate() {
        let (keys, _) = HopKeys::derive(&sender.share(&hop.key));
        if i + 1 < path.len() {
            sender.blind(&keys.blinding);
        }
        seeds.push(keys.payload_seed);
        let mut stream = Zeroizing::new([0; ROUTING_LEN + HOP_LEN]);
        keys.apply_stream(stream.as_mut());
        hops.push((keys, stream));
    }

    // What will have come in at the end of the routing block when the last hop opens it.
    let mut filler = Vec::with_capacity(ROUTING_LEN);
    for (_, stream) in hops.iter().take(path.len() - 1) {
        filler.resize(filler.len() + HOP_LEN, 0);
        let (_, tail) = stream.split_at(stream.len() - filler.len());
        add(&mut filler, tail);
    }

    let mut block = Zeroizing::new(Vec::with_capacity(ROUTING_LEN + HOP_LEN));
    block.push(FINAL);
    block.extend(VERSION);
    block.extend(last.address);
    block.extend(id);
    block.extend_from_slice(&padding);
    if let Some((_, stream)) = hops.last() {
        add(&mut block, stream.as_slice());
    }
    block.extend(filler);
    let mut routing: [u8; ROUTING_LEN] = part(&block, 0);
    let mut mac = hops.last().map_or([0; 16], |(keys, _)| keys.authenticate(&routing));

    // From the last hop but one to the first: each wraps what the next will see.
    for ((hop, next), (keys, stream)) in path.iter().zip(path.iter().skip(1)).zip(&hops).rev() {
        let delay = u64::try_from(hop.delay.as_nanos()).unwrap_or(u64::MAX);
        block.clear();
        block.push(FORWARD);
        block.extend(VERSION);
        block.extend(next.address);
        block.extend(delay.to_be_bytes());
        block.extend(mac);
        block.extend(routing);
        routing = part(&block, 0);
        add(&mut routing, stream.as_slice());
        mac = keys.authenticate(&routing);
    }

    let mut header = [0; HEADER_LEN];
    let (point, rest) = header.split_at_mut(32);
    point.copy_from_slice(&curve::multiply_base(&secret));
    let (front, back) = rest.split_at_mut(16);
    front.copy_from_slice(&mac);
    back.copy_from_slice(&routing);
    Ok(Built { header, seeds })
}

/// Adds (XOR) as much of `stream` as `block` is long.
fn add(block: &mut [u8], stream: &[u8]) {
    block.iter_mut().zip(stream).for_each(|(byte, stream)| *byte ^= stream);
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::time::Duration;

    use rand::{RngExt, SeedableRng, TryCryptoRng, TryRng};
    use rand_chacha::ChaCha12Rng;
    use sphinx_packet::header::delays::Delay;
    use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
    use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
    use sphinx_packet::{SURB, SURBMaterial, SphinxPacketBuilder};
    use x25519_dalek::StaticSecret;

    use super::*;
    use crate::{Codec, MESSAGE_LEN, PAYLOAD_LEN, PublicKey, Sphinx};

    /// A generator that gives these bytes, and panics when they are used up.
    struct Given(VecDeque<u8>);

    impl TryRng for Given {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unreachable!("packets are built from bytes")
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            unreachable!("packets are built from bytes")
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            bytes.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
            Ok(())
        }
    }

    impl TryCryptoRng for Given {}

    /// The padding that the reference drew for itself, found by opening its header hop by hop.
    fn padding_of(header: &[u8], secret: &[u8; 32], path: &[Hop]) -> Vec<u8> {
        let mut sender = Sender::new(secret);
        let mut routing: [u8; ROUTING_LEN] = part(header, 48);
        for hop in path {
            let (keys, _) = HopKeys::derive(&sender.share(&hop.key));
            sender.blind(&keys.blinding);
            let mut block = [0; ROUTING_LEN + HOP_LEN];
            block[..ROUTING_LEN].copy_from_slice(&routing);
            keys.apply_stream(&mut block);
            if block[0] == FINAL {
                return block[FINAL_LEN..FINAL_LEN + padding_len(path.len())].to_vec();
            }
            routing = part(&block, HOP_LEN);
        }
        panic!("no last hop");
    }

    /// Also for keys on the twist and outside of the prime subgroup, to which no secret is known.
    #[test]
    fn what_is_built_is_what_the_reference_builds() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        for round in 0..1000 {
            let hops: Vec<Hop> = (0..1 + round % MAX_HOPS)
                .map(|_| Hop {
                    address: rng.random(),
                    key: PublicKey::from_bytes(rng.random()).unwrap(),
                    delay: Duration::from_nanos(rng.random()),
                })
                .collect();
            let (secret, id): ([u8; 32], PacketId) = (rng.random(), rng.random());
            let mut message = vec![0; rng.random_range(0..=MESSAGE_LEN)];
            rng.fill(message.as_mut_slice());

            let route: Vec<Node> = hops
                .iter()
                .map(|hop| {
                    let address = NodeAddressBytes::from_bytes(hop.address);
                    Node::new(address, (*hop.key.as_bytes()).into())
                })
                .collect();
            let delays: Vec<Delay> =
                hops.iter().map(|hop| Delay::new_from_nanos(hop.delay.as_nanos() as u64)).collect();
            let last = hops.last().unwrap().address;
            let destination = Destination::new(DestinationAddressBytes::from_bytes(last), id);

            let theirs = SphinxPacketBuilder::new()
                .with_version(SINGLE_SEED_SURB_VERSION)
                .with_payload_size(PAYLOAD_LEN)
                .with_initial_secret(&StaticSecret::from(secret))
                .build_packet(&message, &route, &destination, &delays)
                .unwrap()
                .to_bytes();
            let padding = padding_of(&theirs, &secret, &hops);
            let mut given = Given(secret.into_iter().chain(padding).collect());
            let ours = Sphinx.seal(&mut given, &hops, id, &message).unwrap();
            assert!(ours.as_bytes().as_slice() == theirs, "round {round}");
            assert!(given.0.is_empty());

            let material = SURBMaterial::new(route, delays, destination, SINGLE_SEED_SURB_VERSION);
            let (theirs, _) = SURB::new_recoverable(StaticSecret::from(secret), material).unwrap();
            let bytes = theirs.to_bytes();
            let padding = padding_of(&bytes, &secret, &hops);
            let mut given = Given(secret.into_iter().chain(padding).collect());
            let (ours, _) = Sphinx.surb(&mut given, &hops, id).unwrap();
            assert!(ours.as_bytes().as_slice() == bytes, "round {round}");
            let (theirs, first) = theirs.use_surb(&message, PAYLOAD_LEN).unwrap();
            let (ours, ours_first) = Sphinx.reply(ours, &message).unwrap();
            assert!(ours.as_bytes().as_slice() == theirs.to_bytes(), "round {round}");
            assert_eq!(ours_first, first.to_bytes());
        }
    }
}
