//! Every function against the crates.

#![expect(unsafe_code, reason = "whether the CPU has the features is looked up first")]

use std::hint::black_box;
use std::time::Instant;

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use hmac::KeyInit;
use lioness_rs::Lioness;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::PAYLOAD_LEN;
use crate::header::{self, HopKeys, ROUTING_LEN};

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
            header::expand_payload_key(seed, &mut expected);
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
            assert_eq!(*sum, header::authenticate(key, message));
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

/// Whether this CPU has what every function asks for.
fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}

/// The best of some measurements, in µs for each of `lanes`.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn time(name: &str, lanes: usize, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        (0..20).for_each(|_| work());
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:20} {:.3} µs", best * 1e6 / 20.0 / lanes as f64);
}

#[test]
#[ignore = "measures: run it alone, with --release and --nocapture"]
fn how_long_a_lane_takes() {
    use ::chacha20::cipher::{KeyIvInit, StreamCipher};
    use blake2::digest::Mac;
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let shared: [[u8; 32]; 16] = inputs(&mut rng, 2);
    let mut okm = [const { HopKeys::ZERO }; 16];
    // SAFETY: here and below, the CPU has the features.
    time("hop_keys", 16, || unsafe { hop_keys(black_box(&shared).each_ref(), &mut okm) });
    time("  crates", 1, || {
        black_box(HopKeys::derive(black_box(&shared[0])));
    });
    let seeds: [[u8; 16]; 16] = inputs(&mut rng, 2);
    let mut keys = [const { PayloadKey::ZERO }; 16];
    time("payload_keys", 16, || unsafe { payload_keys(black_box(&seeds).each_ref(), &mut keys) });
    time("  crates", 1, || header::expand_payload_key(black_box(&seeds[0]), &mut keys[0].0));
    let messages: [[u8; ROUTING_LEN]; 16] = inputs(&mut rng, 2);
    let mut sums = [[0; 16]; 16];
    time("macs", 16, || unsafe {
        macs(black_box(&seeds).each_ref(), messages.each_ref(), &mut sums);
    });
    time("  crates", 1, || {
        black_box(header::authenticate(black_box(&seeds[0]), &messages[0]));
    });

    let mut payloads: [[u8; PAYLOAD_LEN]; 16] = inputs(&mut rng, 2);
    for count in [16, 8, 4, 2, 1] {
        let lanes = keys.iter().zip(&mut payloads).take(count);
        let mut lanes: Vec<_> = lanes.map(|(key, payload)| Lane { key, payload }).collect();
        time(&format!("decrypt of {count}"), count, || unsafe { decrypt(black_box(&mut lanes)) });
    }
    let lioness = Crates::new((&keys[0].0).into());
    time("  crates", 1, || lioness.decrypt_block(black_box(&mut payloads[0])).unwrap());

    time("2 BLAKE2b in 8 lanes", 4, || {
        let payloads = payloads.first_chunk::<8>().unwrap().each_ref();
        black_box(unsafe { blake2b::macs([black_box(&[7; 64]); 8], payloads) });
    });
    time("  crates", 1, || {
        for _ in 0..2 {
            let mut mac = <Blake2bMac<U32> as KeyInit>::new_from_slice(&keys[0].0[..64]).unwrap();
            mac.update(black_box(&payloads[0][32..]));
            black_box(mac.finalize());
        }
    });
    time("2 ChaCha20", 1, || unsafe {
        chacha20::apply(black_box(&[7; 8]), &mut payloads[0][32..]);
        chacha20::apply(black_box(&[7; 8]), &mut payloads[0][32..]);
    });
    time("  crates", 1, || {
        for _ in 0..2 {
            ::chacha20::ChaCha20::new(black_box(&[7; 32]).into(), &[0; 12].into())
                .apply_keystream(&mut payloads[0][32..]);
        }
    });
}
