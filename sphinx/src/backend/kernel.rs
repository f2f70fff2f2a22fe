//! The parts of packets' work, each for many packets at once.

use std::array;
use std::hint::black_box;

use arrayvec::ArrayVec;
use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use chacha20::ChaCha20;
use hmac::KeyInit;
use lioness_rs::Lioness;
use zeroize::Zeroizing;

#[cfg(target_arch = "x86_64")]
use super::symmetric;
use super::x25519::Ladders;
use super::{Part, Unavailable, wipe_stack};
use crate::hop_keys::{self, HopKeys, ROUTING_LEN};
use crate::{PAYLOAD_LEN, curve};

/// How the parts are computed.
#[derive(Clone, Copy)]
pub(crate) enum Kernel {
    /// One at a time.
    Scalar,
    /// In the lanes of vectors, where enough of them are filled.
    Lanes(Ladders),
}

/// A payload, and the seed of the key of a layer.
pub(crate) struct Layer<'a> {
    pub(crate) seed: &'a [u8; 16],
    pub(crate) payload: &'a mut [u8; PAYLOAD_LEN],
}

impl Kernel {
    /// In these lanes, once it is seen that this CPU computes in them what it computes without.
    pub(super) fn checked(ladders: Option<Ladders>) -> Result<Self, Unavailable> {
        let kernel = Self::Lanes(ladders.ok_or(Unavailable::Cpu)?);
        // All parts in one sample, each fed by what the one before gave: a wrong lane shows wherever it is.
        let is_right = kernel.sample() == Self::Scalar.sample();
        is_right.then_some(kernel).ok_or(Unavailable::Wrong)
    }

    /// What comes out of each part for some fixed input.
    fn sample(self) -> Vec<u8> {
        let inputs: Vec<[u8; 32]> = (0..16_u8)
            .map(|lane| array::from_fn(|i| (lane ^ i as u8).wrapping_mul(167).wrapping_add(lane)))
            .collect();
        let mut products = vec![[0; 32]; inputs.len()];
        let (scalars, points): (Vec<_>, Vec<_>) =
            // Scalars and points from one list in opposite orders: each lane has another pair.
            (inputs.clone(), inputs.iter().rev().copied().collect());
        self.multiply(&scalars, &points, &mut products);
        let mut sample = products.concat();

        let (mut mac_keys, mut seeds) = (Vec::new(), Vec::new());
        self.hop_keys(&products, |_, keys| {
            sample.extend([keys.stream, keys.mac, keys.payload_seed].concat());
            sample.extend([keys.blinding, keys.tag].concat());
            mac_keys.push(keys.mac);
            seeds.push(keys.payload_seed);
        });

        let blocks: Vec<[u8; ROUTING_LEN]> = inputs.iter().map(repeated).collect();
        let mut macs = vec![[0; 16]; blocks.len()];
        self.macs(&mac_keys, &blocks.iter().collect::<Vec<_>>(), &mut macs);
        sample.extend(macs.concat());

        let mut payloads: Vec<[u8; PAYLOAD_LEN]> = inputs.iter().map(repeated).collect();
        let mut both = [Self::encrypt, Self::decrypt].into_iter();
        for payloads in payloads.chunks_mut(8) {
            let layers = seeds.iter().zip(payloads).map(|(seed, payload)| Layer { seed, payload });
            let way = both.next().unwrap_or(Self::encrypt);
            way(self, &mut layers.collect::<Vec<_>>());
        }
        sample.extend(payloads.concat());
        sample
    }

    /// The parts of a hop's work for `batch` packets, by name, to be measured one by one.
    pub(super) fn parts(self, batch: usize) -> Vec<Part> {
        let secrets = vec![[7; 32]; batch];
        let (mut points, mut blinded) = (vec![curve::BASE_POINT; batch], vec![[0; 32]; batch]);
        let shared = secrets.clone();
        let (keys, routing) = (vec![[3; 16]; batch], vec![[5; ROUTING_LEN]; batch]);
        let mut macs = vec![[0; 16]; batch];
        let (hop, mut blocks) = (HopKeys::derive(&[7; 32]), vec![[0_u8; 360]; batch]);
        let (seeds, mut payloads) = (keys.clone(), vec![[9; PAYLOAD_LEN]; batch]);
        vec![
            (
                "X25519, twice",
                Box::new(move || {
                    self.multiply(&secrets, &points, &mut blinded);
                    self.multiply(&secrets, &blinded, &mut points);
                }),
            ),
            (
                "keys of the hop",
                Box::new(move || self.hop_keys(&shared, |_, keys| drop(black_box(keys)))),
            ),
            (
                "MAC of the header",
                Box::new(move || {
                    self.macs(&keys, &routing.iter().collect::<Vec<_>>(), &mut macs);
                }),
            ),
            (
                "stream of the header",
                Box::new(move || blocks.iter_mut().for_each(|block| hop.apply_stream(block))),
            ),
            (
                "LIONESS and its keys",
                Box::new(move || {
                    let layers = seeds.iter().zip(&mut payloads);
                    let layers = layers.map(|(seed, payload)| Layer { seed, payload });
                    self.decrypt(&mut layers.collect::<Vec<_>>());
                }),
            ),
        ]
    }

    /// Multiplies points, each by its scalar, clamped. All zero where a point has small order.
    pub(crate) fn multiply(
        self,
        scalars: &[[u8; 32]],
        points: &[[u8; 32]],
        products: &mut [[u8; 32]],
    ) {
        let done = match self {
            Self::Scalar => 0,
            Self::Lanes(ladders) => ladders.multiply(scalars, points, products),
        };
        // What is too little to fill lanes. The results are the same, so where the border lies shows in the time
        // alone.
        for ((scalar, point), product) in scalars.iter().zip(points).zip(products).skip(done) {
            *product = *curve::multiply(scalar, point);
        }
        // The lanes wipe after themselves.
        if done < scalars.len() {
            wipe_stack();
        }
    }

    /// Multiplies the base point by each scalar, clamped.
    pub(crate) fn multiply_base(self, scalars: &[[u8; 32]], products: &mut [[u8; 32]]) {
        let done = match self {
            Self::Scalar => 0,
            Self::Lanes(ladders) => {
                ladders.multiply(scalars, &vec![curve::BASE_POINT; scalars.len()], products)
            }
        };
        for (scalar, product) in scalars.iter().zip(products).skip(done) {
            *product = curve::multiply_base(scalar);
        }
        if done < scalars.len() {
            wipe_stack();
        }
    }

    /// What hops derive from shared secrets, given to `keep` with their indices, in order.
    pub(crate) fn hop_keys(self, shared: &[[u8; 32]], mut keep: impl FnMut(usize, HopKeys)) {
        let mut index = 0;
        let mut keep = |keys| {
            keep(index, keys);
            index += 1;
        };
        #[cfg(target_arch = "x86_64")]
        if let Self::Lanes(_) = self {
            for shared in shared.chunks(16) {
                if shared.len() < WORTH_HASHING {
                    shared.iter().for_each(|shared| keep(HopKeys::derive(shared)));
                    continue;
                }
                let mut keys = [const { HopKeys::ZERO }; 16];
                // SAFETY: there are ladders only where the CPU has AVX-512.
                #[expect(unsafe_code, reason = "a call with CPU features")]
                unsafe {
                    symmetric::hop_keys(filled(shared), &mut keys);
                }
                // Lanes beyond repeat the last input; what they give is thrown away.
                keys.into_iter().take(shared.len()).for_each(&mut keep);
            }
            return;
        }
        shared.iter().for_each(|shared| keep(HopKeys::derive(shared)));
    }

    /// The MACs of routing blocks.
    pub(crate) fn macs(
        self,
        keys: &[[u8; 16]],
        blocks: &[&[u8; ROUTING_LEN]],
        macs: &mut [[u8; 16]],
    ) {
        let all = keys.chunks(16).zip(blocks.chunks(16)).zip(macs.chunks_mut(16));
        for ((keys, blocks), macs) in all {
            #[cfg(target_arch = "x86_64")]
            if let Self::Lanes(_) = self
                && keys.len() >= WORTH_HASHING
            {
                let mut all = [[0; 16]; 16];
                // SAFETY: there are ladders only where the CPU has AVX-512.
                #[expect(unsafe_code, reason = "a call with CPU features")]
                unsafe {
                    symmetric::macs(filled(keys), filled(blocks).map(|block| *block), &mut all);
                }
                macs.iter_mut().zip(all).for_each(|(mac, from)| *mac = from);
                continue;
            }
            for ((key, block), mac) in keys.iter().zip(blocks).zip(macs) {
                *mac = hop_keys::authenticate(key, block);
            }
        }
    }

    /// Puts a layer on each payload.
    pub(crate) fn encrypt(self, layers: &mut [Layer<'_>]) {
        #[cfg(target_arch = "x86_64")]
        if let Self::Lanes(_) = self {
            // SAFETY: there are ladders only where the CPU has AVX-512.
            #[expect(unsafe_code, reason = "a call with CPU features")]
            return in_lanes(layers, |lanes| unsafe { symmetric::encrypt(lanes) });
        }
        for Layer { seed, payload } in layers {
            #[expect(clippy::expect_used, reason = "LIONESS takes blocks of more than 32 bytes")]
            cipher(seed).encrypt_block(*payload).expect("a payload has 2,048 bytes");
        }
    }

    /// Takes a layer off each payload.
    pub(crate) fn decrypt(self, layers: &mut [Layer<'_>]) {
        #[cfg(target_arch = "x86_64")]
        if let Self::Lanes(_) = self {
            // SAFETY: there are ladders only where the CPU has AVX-512.
            #[expect(unsafe_code, reason = "a call with CPU features")]
            return in_lanes(layers, |lanes| unsafe { symmetric::decrypt(lanes) });
        }
        for Layer { seed, payload } in layers {
            #[expect(clippy::expect_used, reason = "LIONESS takes blocks of more than 32 bytes")]
            cipher(seed).decrypt_block(*payload).expect("a payload has 2,048 bytes");
        }
    }
}

/// The same 32 bytes again and again.
fn repeated<const N: usize>(input: &[u8; 32]) -> [u8; N] {
    let mut block = [0; N];
    block.iter_mut().zip(input.iter().cycle()).for_each(|(to, from)| *to = *from);
    block
}

/// Fewer hashes than this are made one at a time.
#[cfg(target_arch = "x86_64")]
const WORTH_HASHING: usize = 4;

/// Sixteen of these; the last ones stand for those that are missing.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::indexing_slicing, reason = "chunks are not empty")]
fn filled<T>(chunk: &[T]) -> [&T; 16] {
    array::from_fn(|i| &chunk[i.min(chunk.len() - 1)])
}

/// Runs a cipher over layers, 16 at a time.
#[cfg(target_arch = "x86_64")]
fn in_lanes(layers: &mut [Layer<'_>], cipher: impl Fn(&mut [symmetric::Lane<'_>])) {
    for layers in layers.chunks_mut(16) {
        // In place, and dropped at the end of each chunk: keys are wiped before the next ones are made.
        let mut keys = [const { symmetric::PayloadKey::ZERO }; 16];
        if layers.len() < WORTH_HASHING {
            let each = layers.iter().zip(&mut keys);
            each.for_each(|(layer, key)| hop_keys::expand_payload_key(layer.seed, &mut key.0));
        } else {
            // SAFETY: there are ladders only where the CPU has AVX-512.
            #[expect(unsafe_code, reason = "a call with CPU features")]
            unsafe {
                symmetric::payload_keys(filled(layers).map(|layer| layer.seed), &mut keys);
            }
        }
        let lanes = layers.iter_mut().zip(&keys);
        let mut lanes: ArrayVec<_, 16> =
            lanes.map(|(layer, key)| symmetric::Lane { key, payload: layer.payload }).collect();
        cipher(&mut lanes);
    }
}

fn cipher(seed: &[u8; 16]) -> Lioness<ChaCha20, Blake2bMac<U32>> {
    let mut key = Zeroizing::new([0; 192]);
    hop_keys::expand_payload_key(seed, &mut key);
    Lioness::new((&*key).into())
}
