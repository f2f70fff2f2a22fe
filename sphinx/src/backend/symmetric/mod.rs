//! The symmetric part of a hop for several packets at once, in the lanes of AVX-512.
//!
//! SHA-256 takes 16 packets, one in each 32-bit lane; BLAKE2b takes 8, one in each 64-bit lane; ChaCha20 takes 16
//! blocks of one packet. A lane that has no packet may repeat another's input. Nothing branches on secrets or
//! looks them up. Keys and key schedules are wiped where they are kept, but not in registers, nor where the
//! compiler spills or copies them.

#![expect(
    clippy::indexing_slicing,
    reason = "constants index lanes and words, in arrays of that length"
)]

mod blake2b;
mod chacha20;
mod hkdf;
mod lioness;
mod sha256;
#[cfg(test)]
mod tests;

use core::arch::x86_64::*;
use core::ops::Range;

pub(in crate::backend) use hkdf::{hop_keys, macs, payload_keys};
pub(in crate::backend) use lioness::{Lane, PayloadKey, decrypt, encrypt};

/// The left half of a payload, which keys the stream of a LIONESS; the rest is the right half.
const LEFT_LEN: usize = 32;

/// The first 64 bytes of a slice; zeros stand for what it lacks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[expect(unsafe_code, reason = "a load takes a pointer")]
fn load(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask lets through bytes of the slice alone, and a masked load touches no others.
    unsafe { _mm512_maskz_loadu_epi8(mask(bytes.len()), bytes.as_ptr().cast()) }
}

/// The same of each slice. Where vectors are mapped it is by loops: `map` of an array does not have the features
/// that its closure has, and calls it once for each element.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn load_all<const N: usize>(slices: [&[u8]; N]) -> [__m512i; N] {
    let mut vectors = [_mm512_setzero_si512(); N];
    for (vector, bytes) in vectors.iter_mut().zip(slices) {
        *vector = load(bytes);
    }
    vectors
}

/// These bytes of each message.
#[inline]
fn parts<const LEN: usize, const N: usize>(
    messages: [&[u8; LEN]; N],
    range: Range<usize>,
) -> [&[u8]; N] {
    messages.map(|message| &message[range.clone()])
}

/// Writes the first 64 bytes of a slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[expect(unsafe_code, reason = "a store takes a pointer")]
fn store(bytes: &mut [u8], vector: __m512i) {
    // SAFETY: the mask lets through bytes of the slice alone, and a masked store touches no others.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes.len()), vector) }
}

/// A bit for each of the first `len` bytes of a vector.
#[inline]
fn mask(len: usize) -> u64 {
    if len < 64 { (1 << len) - 1 } else { u64::MAX }
}

/// A 32-bit word in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn all_32(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_32(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

/// Sixteen rows of 32-bit words become sixteen columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose_16(rows: &[__m512i; 16]) -> [__m512i; 16] {
    // By doubling: words to pairs, pairs to fours, then fours to rows of sixteen. Each step exchanges what lies a
    // power of two apart.
    let mut pairs = *rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..4 {
        for j in 0..2 {
            let (low, high) = (pairs[4 * i + j], pairs[4 * i + j + 2]);
            fours[4 * i + 2 * j] = _mm512_unpacklo_epi64(low, high);
            fours[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(low, high);
        }
    }
    // `fours[4 * i + j]` has the words j, j + 4, j + 8 and j + 12 of the rows 4 * i to 4 * i + 3.
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (ab_low, ab_high) = halves(a, b);
        let (cd_low, cd_high) = halves(c, d);
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low);
        columns[8 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high);
    }
    columns
}

/// Eight rows of 64-bit words become eight columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose_8(rows: &[__m512i; 8]) -> [__m512i; 8] {
    // As in `transpose_16`, with one step less: a vector has half as many words of 64 bits.
    let mut pairs = *rows;
    for i in 0..4 {
        pairs[2 * i] = _mm512_unpacklo_epi64(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(rows[2 * i], rows[2 * i + 1]);
    }
    // `pairs[2 * i + j]` has the words j, j + 2, j + 4 and j + 6 of the rows 2 * i and 2 * i + 1.
    let mut columns = pairs;
    for j in 0..2 {
        let [a, b, c, d] = [pairs[j], pairs[2 + j], pairs[4 + j], pairs[6 + j]];
        let (ab_low, ab_high) = halves(a, b);
        let (cd_low, cd_high) = halves(c, d);
        columns[j] = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab_low, cd_low);
        columns[2 + j] = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab_low, cd_low);
        columns[4 + j] = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab_high, cd_high);
        columns[6 + j] = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab_high, cd_high);
    }
    columns
}

/// The lower halves of two vectors, and the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn halves(a: __m512i, b: __m512i) -> (__m512i, __m512i) {
    (_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b))
}
