//! Every function against the crates.

#![expect(unsafe_code, reason = "whether the CPU has the features is looked up first")]

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use hmac::KeyInit;
use lioness_rs::Lioness;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::PAYLOAD_LEN;
use crate::hop_keys::{self, HopKeys, ROUTING_LEN};

type Crates = Lioness<::chacha20::ChaCha20, Blake2bMac<U32>>;

/// Inputs of every lane: random, random but for one lane of the lowest or the highest bytes, or all of these.
fn inputs<const N: usize>(rng: &mut ChaCha12Rng, round: usize) -> [[u8; N]; 16] {
    let mut lanes = [[0; N]; 16];
    lanes.iter_mut().for_each(|lane| rng.fill_bytes(lane));
    match round {
        0 => lanes = [[0; N]; 16],
        1 => lanes = [[0xff; N]; 16],
        round => {
            lanes[round % 16] = [0; N];
            lanes[(round + 5) % 16] = [0xff; N];
        }
    }
    lanes
}

/// Does it some times, with the number of the time, if the CPU can.
fn rounds(mut test: impl FnMut(&mut ChaCha12Rng, usize)) {
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    (0..40).filter(|_| is_supported()).for_each(|round| test(&mut rng, round));
}

#[test]
fn every_lane_derives_the_keys_that_hkdf_derives() {
    rounds(|rng, round| {
        let shared: [[u8; 32]; 16] = inputs(rng, round);
        let mut derived = [const { HopKeys::ZERO }; 16];
        // SAFETY: the CPU has the features.
        unsafe { hop_keys(shared.each_ref(), &mut derived) };
        for (shared, derived) in shared.iter().zip(&derived) {
            let keys = HopKeys::derive(shared);
            assert_eq!(derived.stream, keys.stream);
            assert_eq!(derived.mac, keys.mac);
            assert_eq!(derived.payload_seed, keys.payload_seed);
            assert_eq!(derived.blinding, keys.blinding);
            assert_eq!(derived.tag, keys.tag);
        }

        let seeds: [[u8; 16]; 16] = inputs(rng, round);
        let mut keys = [const { PayloadKey::ZERO }; 16];
        // SAFETY: the CPU has the features.
        unsafe { payload_keys(seeds.each_ref(), &mut keys) };
        for (seed, key) in seeds.iter().zip(&keys) {
            let mut expected = [0; 192];
            hop_keys::expand_payload_key(seed, &mut expected);
            assert_eq!(key.0, expected);
        }
    });
}

#[test]
fn every_lane_gives_the_mac_that_hmac_gives() {
    rounds(|rng, round| {
        let keys: [[u8; 16]; 16] = inputs(rng, round);
        let messages: [[u8; ROUTING_LEN]; 16] = inputs(rng, round);
        let mut sums = [[0; 16]; 16];
        // SAFETY: the CPU has the features.
        unsafe { macs(keys.each_ref(), messages.each_ref(), &mut sums) };
        for ((key, message), sum) in keys.iter().zip(&messages).zip(&sums) {
            assert_eq!(*sum, hop_keys::authenticate(key, message));
        }
    });
}

#[test]
fn payloads_in_any_number_come_out_as_lioness_leaves_them() {
    rounds(|rng, round| {
        let keys: [[u8; 192]; 16] = inputs(rng, round);
        let payloads: [[u8; PAYLOAD_LEN]; 16] = inputs(rng, round);
        let count = (round + 8) % 17;
        let keys = keys.map(PayloadKey);
        let run = |cipher: unsafe fn(&mut [Lane<'_>]), payloads: &mut [[u8; PAYLOAD_LEN]; 16]| {
            let lanes = keys.iter().zip(payloads).take(count);
            let mut lanes: Vec<_> = lanes.map(|(key, payload)| Lane { key, payload }).collect();
            // SAFETY: the CPU has the features.
            unsafe { cipher(&mut lanes) };
        };

        let (mut encrypted, mut decrypted) = (payloads, payloads);
        run(encrypt, &mut encrypted);
        run(decrypt, &mut decrypted);
        for (i, payload) in payloads.iter().enumerate() {
            let (mut there, mut back) = (*payload, *payload);
            if i < count {
                let lioness = Crates::new((&keys[i].0).into());
                lioness.encrypt_block(&mut there).unwrap();
                lioness.decrypt_block(&mut back).unwrap();
            }
            assert!(encrypted[i] == there, "encryption, lane {i} of {count}");
            assert!(decrypted[i] == back, "decryption, lane {i} of {count}");
        }
        run(decrypt, &mut encrypted);
        assert!(encrypted == payloads);
    });
}

/// True if this CPU has what every function asks for.
fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}
