//! BLAKE2b (RFC 7693) in 8 lanes: a key of 64 bytes, the message of a LIONESS, a digest of 32 bytes.

use core::arch::x86_64::*;

use zeroize::Zeroizing;

use super::{LEFT_LEN, load_all, parts, transpose_8};
use crate::PAYLOAD_LEN;

const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
/// Digest 32 bytes, key 64, fanout and depth 1.
const PARAMETERS: u64 = 0x0101_0000 | 64 << 8 | 32;
const BLOCK_LEN: usize = 128;
/// Bytes of the last block.
const END: usize = (PAYLOAD_LEN - LEFT_LEN) % BLOCK_LEN;
const _: () = assert!(END > 64);

/// The digest of the right half of each payload, in the first 32 bytes of a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn macs(keys: [&[u8; 64]; 8], payloads: [&[u8; PAYLOAD_LEN]; 8]) -> [__m512i; 8] {
    let zero = _mm512_setzero_si512();
    let mut state = all_of(&IV);
    // Of the parameter block only the first word is not zero (RFC 7693, section 2.5).
    state[0] = all(IV[0] ^ PARAMETERS);
    let mut block = Zeroizing::new([zero; 16]);
    block[..8].copy_from_slice(&columns(parts(keys, 0..64)));
    // The key fills a block of its own, padded with zeros, and counts as 128 bytes (RFC 7693, section 3.3).
    compress(&mut state, &block, BLOCK_LEN, 0);

    let mut block = [zero; 16];
    for at in (LEFT_LEN..PAYLOAD_LEN - END).step_by(BLOCK_LEN) {
        block[..8].copy_from_slice(&columns(parts(payloads, at..at + 64)));
        block[8..].copy_from_slice(&columns(parts(payloads, at + 64..at + 128)));
        compress(&mut state, &block, BLOCK_LEN + at - LEFT_LEN + BLOCK_LEN, 0);
    }
    block[..8]
        .copy_from_slice(&columns(parts(payloads, PAYLOAD_LEN - END..PAYLOAD_LEN - END + 64)));
    // Fewer than 64 bytes: `load` fills up with zeros, as the padding of the last block wants.
    block[8..].copy_from_slice(&columns(parts(payloads, PAYLOAD_LEN - END + 64..PAYLOAD_LEN)));
    compress(&mut state, &block, BLOCK_LEN + PAYLOAD_LEN - LEFT_LEN, u64::MAX);
    transpose_8(&state)
}

/// The words of 64 bytes, or of fewer, of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn columns(lanes: [&[u8]; 8]) -> [__m512i; 8] {
    transpose_8(&load_all(lanes))
}

/// The compression function, after `count` bytes; `last` is all ones for the last block, else zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn compress(state: &mut [__m512i; 8], m: &[__m512i; 16], count: usize, last: u64) {
    let mut v = [_mm512_setzero_si512(); 16];
    v[..8].copy_from_slice(state);
    v[8..].copy_from_slice(&all_of(&IV));
    // The high word of the counter stays zero: messages are short.
    v[12] = all(IV[4] ^ count as u64);
    v[14] = all(IV[6] ^ last);

    macro_rules! rounds {
        ($([$($i:literal)*])*) => { $(round!($($i)*);)* };
    }
    macro_rules! round {
        ($a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal
         $i:literal $j:literal $k:literal $l:literal $m:literal $n:literal $o:literal $p:literal) => {
            half::<0>(&mut v, [m[$a], m[$c], m[$e], m[$g]], [m[$b], m[$d], m[$f], m[$h]]);
            half::<1>(&mut v, [m[$i], m[$k], m[$m], m[$o]], [m[$j], m[$l], m[$n], m[$p]]);
        };
    }
    rounds! {
        [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]
        [14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3]
        [11 8 12 0 5 2 15 13 10 14 3 6 7 1 9 4]
        [7 9 3 1 13 12 11 14 2 6 5 10 4 0 15 8]
        [9 0 5 7 2 4 10 15 14 1 11 12 6 8 3 13]
        [2 12 6 10 0 11 8 3 4 13 7 5 15 14 1 9]
        [12 5 1 15 14 13 4 10 0 7 6 3 9 2 8 11]
        [13 11 7 14 12 1 3 9 5 0 15 4 8 6 2 10]
        [6 15 14 9 11 3 0 8 12 2 13 7 1 4 10 5]
        [10 2 8 4 7 6 1 5 15 11 9 14 3 12 13 0]
        [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]
        [14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3]
    }
    for (i, word) in state.iter_mut().enumerate() {
        // 0x96 is the truth table of the XOR of three.
        *word = _mm512_ternarylogic_epi64::<0x96>(*word, v[i], v[i + 8]);
    }
}

/// Four G side by side, on the columns, or, if row `r` is shifted by `r * SHIFT`, on the diagonals.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn half<const SHIFT: usize>(v: &mut [__m512i; 16], x: [__m512i; 4], y: [__m512i; 4]) {
    let (b, c, d) =
        (|i| 4 + (i + SHIFT) % 4, |i| 8 + (i + 2 * SHIFT) % 4, |i| 12 + (i + 3 * SHIFT) % 4);
    for i in 0..4 {
        v[i] = add(add(v[i], x[i]), v[b(i)]);
    }
    for i in 0..4 {
        v[d(i)] = turned::<32>(v[d(i)], v[i]);
    }
    for i in 0..4 {
        v[c(i)] = add(v[c(i)], v[d(i)]);
    }
    for i in 0..4 {
        v[b(i)] = turned::<24>(v[b(i)], v[c(i)]);
    }
    for i in 0..4 {
        v[i] = add(add(v[i], y[i]), v[b(i)]);
    }
    for i in 0..4 {
        v[d(i)] = turned::<16>(v[d(i)], v[i]);
    }
    for i in 0..4 {
        v[c(i)] = add(v[c(i)], v[d(i)]);
    }
    for i in 0..4 {
        v[b(i)] = turned::<63>(v[b(i)], v[c(i)]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi64(a, b)
}

/// The sum (XOR), turned to the right.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn turned<const BITS: i32>(a: __m512i, b: __m512i) -> __m512i {
    _mm512_ror_epi64::<BITS>(_mm512_xor_si512(a, b))
}

/// A word in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn all(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn all_of<const N: usize>(words: &[u64; N]) -> [__m512i; N] {
    let mut vectors = [_mm512_setzero_si512(); N];
    for (vector, &word) in vectors.iter_mut().zip(words) {
        *vector = all(word);
    }
    vectors
}
