//! Packets cut out of bytes, to compare the backends by.

// All offsets are below constant lengths.
#![allow(clippy::indexing_slicing)]

use std::sync::LazyLock;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shoal_sphinx::backend::{Backend, Reference, Unavailable};
use shoal_sphinx::{
    Address, Codec, Error, HEADER_LEN, MAX_HOPS, PACKET_LEN, Packet, Peeled, ReplayTag, Sphinx,
};
use shoal_topology::Seed;
use sphinx_packet::constants::{EXPANDED_SHARED_SECRET_HKDF_INFO, EXPANDED_SHARED_SECRET_LENGTH};

use crate::fixtures::{ID, hops, path};

/// Every backend makes of a batch what the reference makes of its packets, and so on for what comes out of them.
pub(crate) fn compare(data: &[u8]) {
    let mut packets = batch(data);
    for secret in hops() {
        let open = |packet: &Packet| Reference.open(&secret, packet.clone());
        let expected: Vec<Outcome> = packets
            .iter()
            .map(|packet| {
                open(packet).map(|opened| (*opened.tag(), peeled(Reference.peel(opened))))
            })
            .collect();
        for backend in Backend::ALL {
            let codec = match backend.codec() {
                Ok(codec) => codec,
                Err(reason) => {
                    assert!(reason == Unavailable::Cpu, "{backend:?}: {reason}");
                    continue;
                }
            };
            let (mut batch, mut results) = (packets.clone(), Vec::new());
            codec.open_batch(&secret, &mut batch, &mut results);
            let tags: Vec<Result<ReplayTag, Error>> = results
                .iter()
                .map(|result| result.as_ref().map(|o| *o.tag()).map_err(|e| *e))
                .collect();
            let mut opened = results.into_iter().flatten().collect();
            let mut results = Vec::new();
            codec.peel_batch(&mut opened, &mut results);
            let mut results = results.into_iter().map(peeled);
            let found =
                tags.into_iter().map(|tag| Ok((tag?, results.next().expect("one for each"))));
            assert!(found.eq(expected.iter().cloned()), "{backend:?}");
            assert!(results.next().is_none());
        }
        let forward = |outcome: Outcome| Packet::from_slice(&outcome.ok()?.1.ok()?.2).ok();
        packets = expected.into_iter().filter_map(forward).collect();
    }
}

/// What a hop makes of a packet.
type Outcome = Result<(ReplayTag, Result<(Address, Vec<u8>, Vec<u8>), Error>), Error>;

/// The next hop, the delay and the packet; or the destination, the identifier and the payload.
fn peeled(peeled: Result<Peeled, Error>) -> Result<(Address, Vec<u8>, Vec<u8>), Error> {
    Ok(match peeled? {
        Peeled::Forward { next, delay, packet } => {
            (next, delay.as_nanos().to_be_bytes().to_vec(), packet.as_bytes().to_vec())
        }
        Peeled::Final { destination, id, payload } => {
            (destination, id.to_vec(), payload.as_bytes().to_vec())
        }
    })
}

/// Packets for the first of [`hops`], as bytes tell. The first says how many, up to 40. Then each begins with a byte:
/// its lower half is the number of a [sound packet](sealed), or of none, when the header follows as it is; its upper
/// half tells how many changes follow, and whether the MAC is made right again after them. A change is an offset, in
/// two bytes, and what is added (XOR) there.
fn batch(data: &[u8]) -> Vec<Packet> {
    let mut bytes = data.iter().copied();
    let count = bytes.next().unwrap_or_default() % 40 + 1;
    let packet = |bytes: &mut dyn Iterator<Item = u8>| {
        let what = bytes.next()?;
        let Some((packet, mac_key)) = sealed().get(usize::from(what & 15)) else {
            let mut packet = Packet::default();
            packet
                .as_mut_bytes()
                .iter_mut()
                .zip(bytes.take(HEADER_LEN))
                .for_each(|(to, from)| *to = from);
            return Some(packet);
        };
        let mut packet = packet.clone();
        for _ in 0..what >> 4 & 7 {
            let [Some(high), Some(low), Some(change)] = [(); 3].map(|()| bytes.next()) else {
                break;
            };
            let offset = usize::from(u16::from_be_bytes([high, low])) % PACKET_LEN;
            packet.as_mut_bytes()[offset] ^= change;
        }
        if what >> 7 == 1 {
            let (front, _) = packet.as_mut_bytes().split_at_mut(HEADER_LEN);
            let mut mac = Hmac::<Sha256>::new_from_slice(mac_key).expect("a key of any length");
            mac.update(&front[48..]);
            front[32..48].copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        Some(packet)
    };
    (0..count).map_while(|_| packet(&mut bytes)).collect()
}

/// Sound packets for the first of [`hops`], of every length of path, some of them replies; and the keys of their MACs.
fn sealed() -> &'static [(Packet, [u8; 16])] {
    static SEALED: LazyLock<Vec<(Packet, [u8; 16])>> = LazyLock::new(|| {
        let mut rng = Seed::from_u64(2).stream("seeds");
        let path = path();
        let mut packets = Vec::new();
        for hops in 1..=MAX_HOPS {
            packets.extend(Sphinx::SCALAR.seal(&mut rng, &path[..hops], ID, b"hi"));
            let surb = Sphinx::SCALAR.surb(&mut rng, &path[..hops], ID);
            let reply = surb.and_then(|(surb, _)| Sphinx::SCALAR.reply(surb, b"a reply"));
            packets.extend(reply.map(|(packet, _)| packet));
        }
        let secret = *hops()[0].as_bytes();
        let points: Vec<[u8; 32]> =
            packets.iter().filter_map(|packet| packet.as_bytes().first_chunk().copied()).collect();
        let shared = Backend::Reference.x25519(&vec![secret; points.len()], &points);
        let mac_key = |shared: [u8; 32]| {
            let mut keys = [0; EXPANDED_SHARED_SECRET_LENGTH];
            let kdf = Hkdf::<Sha256>::new(Some(b""), &shared);
            kdf.expand(EXPANDED_SHARED_SECRET_HKDF_INFO, &mut keys).expect("288 bytes");
            keys[16..].first_chunk().copied().expect("more than 32 bytes")
        };
        packets.into_iter().zip(shared.expect("it always runs").into_iter().map(mac_key)).collect()
    });
    &SEALED
}
