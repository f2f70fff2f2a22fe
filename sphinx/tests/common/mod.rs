//! What several of these tests need.

// No test uses all of it; helpers fail as tests do.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::Mac;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::backend::{Backend, Unavailable};
use shoal_sphinx::*;

pub struct Net {
    pub rng: ChaCha12Rng,
    pub secrets: Vec<SecretKey>,
    pub path: Vec<Hop>,
}

pub fn net(seed: u64, hops: usize) -> Net {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let secrets: Vec<_> = (0..hops).map(|_| SecretKey::generate(&mut rng)).collect();
    let path = secrets
        .iter()
        .map(|secret| Hop {
            address: rng.random(),
            key: secret.public(),
            delay: Duration::from_nanos(rng.random_range(0..1 << 40)),
        })
        .collect();
    Net { rng, secrets, path }
}

pub fn walk(codec: &dyn Codec, net: &Net, mut packet: Packet) -> (Address, PacketId, Payload) {
    for (i, secret) in net.secrets.iter().enumerate() {
        match codec.peel(codec.open(secret, packet).unwrap()).unwrap() {
            Peeled::Forward { next, delay, packet: peeled } => {
                assert_eq!(next, net.path[i + 1].address);
                assert_eq!(delay, net.path[i].delay);
                packet = peeled;
            }
            Peeled::Final { destination, id, payload } => {
                assert_eq!(i + 1, net.path.len());
                return (destination, id, payload);
            }
        }
    }
    panic!("no final hop");
}

/// Whoever knows a hop's public key can give it a header with a right MAC and any content: here the key itself is
/// the secret shared with the base point, of which X25519 reads these four forms.
pub fn forged(rng: &mut ChaCha12Rng, hop: &SecretKey, routing: [u8; 300]) -> Packet {
    let mut point = [[0; 32], [0xff; 32]][rng.random_range(0..2)];
    point[0] = if point[1] == 0 { 9 } else { 0xf6 };
    point[31] = point[31] & 0x7f | rng.random::<u8>() & 0x80;
    forged_with(point, hop.public().as_bytes(), routing)
}

/// A packet of this point, from which the hop computes this secret.
fn forged_with(point: [u8; 32], shared: &[u8; 32], mut routing: [u8; 300]) -> Packet {
    use ctr::cipher::{KeyIvInit, StreamCipher};
    use hmac::KeyInit;
    use sphinx_packet::constants::*;
    let mut okm = [0; EXPANDED_SHARED_SECRET_LENGTH];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(b""), shared)
        .expand(EXPANDED_SHARED_SECRET_HKDF_INFO, &mut okm)
        .unwrap();
    let key: [u8; 16] = okm[..16].try_into().unwrap();
    ctr::Ctr64BE::<aes::Aes128>::new((&key).into(), (&[0; 16]).into())
        .apply_keystream(&mut routing);
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&okm[16..32]).unwrap();
    mac.update(&routing);
    let mac = mac.finalize().into_bytes();
    let mut packet = Packet::default();
    let bytes = packet.as_mut_bytes();
    bytes[..32].copy_from_slice(&point);
    bytes[32..48].copy_from_slice(&mac[..16]);
    bytes[48..348].copy_from_slice(&routing);
    packet
}

/// The coordinates u of points of small order on the curve and its twist, as curve25519-dalek multiplies them: 0,
/// 1, the two of order 8, p − 1; then p and p + 1, which are not reduced. All with the bit that does not count.
pub fn small_order() -> Vec<[u8; 32]> {
    let ends = |first: u8, between: u8, last: u8| {
        let mut bytes = [between; 32];
        (bytes[0], bytes[31]) = (first, last);
        bytes
    };
    let mut points = vec![
        ends(0, 0, 0),
        ends(1, 0, 0),
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        ends(0xec, 0xff, 0x7f),
        ends(0xed, 0xff, 0x7f),
        ends(0xee, 0xff, 0x7f),
    ];
    for i in 0..points.len() {
        let mut with_bit = points[i];
        with_bit[31] |= 0x80;
        points.push(with_bit);
    }
    points
}

pub fn hex(digits: &str) -> [u8; 32] {
    let digits = digits.as_bytes().as_chunks::<2>().0;
    let byte = |d: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect::<Vec<_>>().try_into().unwrap()
}

/// The backends that this CPU can run. One that it can run, and that computes nonsense, fails the test.
pub fn backends() -> Vec<(Backend, Arc<dyn Codec>)> {
    let runs = |backend: Backend| match backend.codec() {
        Ok(codec) => Some((backend, codec)),
        Err(Unavailable::Cpu) => None,
        Err(wrong) => panic!("{backend:?}: {wrong}"),
    };
    Backend::ALL.into_iter().filter_map(runs).collect()
}

/// Those of our own code.
pub fn ours() -> Vec<(Backend, Arc<dyn Codec>)> {
    backends().into_iter().filter(|(backend, _)| *backend != Backend::Reference).collect()
}

/// Does `work` with each seed below `seeds`, on all cores, and says now and then how far it is.
#[expect(clippy::print_stderr, reason = "the long ones would seem to hang")]
pub fn on_all_cores(seeds: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let seed @ 0.. = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    if seed % 1_000 == 999 {
                        eprintln!("{seed} of {seeds}");
                    }
                    work(seed);
                }
            });
        }
    });
}
