//! LIONESS (Anderson and Biham, "Two Practical and Provably Secure Block Ciphers", FSE 1996), of ChaCha20 and
//! keyed BLAKE2b, on the payloads of up to 8 packets at once.

use core::arch::x86_64::*;

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{LEFT_LEN, blake2b, chacha20, load, store};
use crate::PAYLOAD_LEN;

/// The four keys of a LIONESS: 32 bytes, 64, 32, 64.
#[repr(align(64))]
pub(in crate::backend) struct PayloadKey(pub(in crate::backend) [u8; 192]);

impl PayloadKey {
    pub(in crate::backend) const ZERO: Self = Self([0; 192]);

    /// The `N` bytes from `at` on.
    fn part<const N: usize>(&self, at: usize) -> &[u8; N] {
        &self.0[at..].as_chunks().0[0]
    }
}

impl Drop for PayloadKey {
    fn drop(&mut self) {
        // Of a slice at once, of an array byte by byte.
        self.0.as_mut_slice().zeroize();
    }
}

impl ZeroizeOnDrop for PayloadKey {}

/// A payload and its key.
pub(in crate::backend) struct Lane<'a> {
    pub(in crate::backend) key: &'a PayloadKey,
    pub(in crate::backend) payload: &'a mut [u8; PAYLOAD_LEN],
}

/// Encrypts every payload, 8 at a time. A rest of 2 is hashed no faster than 8.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::backend) fn encrypt(lanes: &mut [Lane<'_>]) {
    for lanes in lanes.chunks_mut(8) {
        add_stream::<0>(lanes);
        add_mac::<32>(lanes);
        add_stream::<96>(lanes);
        add_mac::<128>(lanes);
    }
}

/// Decrypts every payload, 8 at a time. A rest of 2 is hashed no faster than 8.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::backend) fn decrypt(lanes: &mut [Lane<'_>]) {
    for lanes in lanes.chunks_mut(8) {
        // The steps of `encrypt` in the opposite order: each undoes itself.
        add_mac::<128>(lanes);
        add_stream::<96>(lanes);
        add_mac::<32>(lanes);
        add_stream::<0>(lanes);
    }
}

/// R = R ^ S(L ^ K), where K begins at byte `KEY` of the key.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_stream<const KEY: usize>(lanes: &mut [Lane<'_>]) {
    for Lane { key, payload } in lanes {
        let (left, right) = payload.split_at_mut(LEFT_LEN);
        let mut words = Zeroizing::new([0; LEFT_LEN / 4]);
        let key: &[u8; LEFT_LEN] = key.part(KEY);
        let pairs = left.as_chunks().0.iter().zip(key.as_chunks().0);
        for (word, (&left, &key)) in words.iter_mut().zip(pairs) {
            *word = u32::from_le_bytes(left) ^ u32::from_le_bytes(key);
        }
        // One payload after the other, for the sixteen lanes are filled by the blocks of one.
        chacha20::apply(&words, right);
    }
}

/// L = L ^ H(K, R), where K begins at byte `KEY` of the key. Lanes without a packet repeat the last packet's.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_mac<const KEY: usize>(lanes: &mut [Lane<'_>]) {
    if let [Lane { key, payload }] = lanes {
        // For one alone, the crate takes two thirds of the time of 8 lanes.
        let (left, right) = payload.split_at_mut(LEFT_LEN);
        let mac = Blake2bMac::<U32>::new(key.part(KEY).into()).chain_update(right).finalize();
        left.iter_mut().zip(mac.into_bytes()).for_each(|(left, mac)| *left ^= mac);
        return;
    }
    let Some(last) = lanes.last() else { return };
    // All eight lanes must hold something readable; which one does not matter.
    let (mut keys, mut payloads) = ([last.key.part(KEY); 8], [&*last.payload; 8]);
    for ((key, payload), lane) in keys.iter_mut().zip(&mut payloads).zip(&*lanes) {
        (*key, *payload) = (lane.key.part(KEY), &*lane.payload);
    }
    let macs = blake2b::macs(keys, payloads);
    for (Lane { payload, .. }, mac) in lanes.iter_mut().zip(macs) {
        let left = &mut payload[..LEFT_LEN];
        let sum = _mm512_xor_si512(load(left), mac);
        store(left, sum);
    }
}
