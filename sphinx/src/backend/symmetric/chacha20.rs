//! ChaCha20 (RFC 8439), the 16 blocks of a KiB in the lanes, under a nonce of zeros.

use core::arch::x86_64::*;

use super::{add_32 as add, all_32 as all, load, store, transpose_16};

/// "expand 32-byte k"
const HEAD: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Adds the key stream to `data`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn apply(key: &[u32; 8], data: &mut [u8]) {
    let mut counter = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for data in data.chunks_mut(1024) {
        // Sixteen blocks at once, each lane with a counter of its own. Their words stand in columns and are
        // transposed into blocks at the end.
        let stream = blocks(key, counter);
        let (whole, end) = data.as_chunks_mut::<64>();
        for (data, &block) in whole.iter_mut().zip(&stream) {
            add_to(data, block);
        }
        // The rest of a payload's right half is no whole block: 2,016 bytes are 31 and a half.
        if let Some(&block) = stream.get(whole.len()) {
            add_to(end, block);
        }
        counter = add(counter, all(16));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_to(data: &mut [u8], block: __m512i) {
    let sum = _mm512_xor_si512(load(data), block);
    store(data, sum);
}

/// The block of each lane's counter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn blocks(key: &[u32; 8], counter: __m512i) -> [__m512i; 16] {
    let mut v = [_mm512_setzero_si512(); 16];
    for (v, &word) in v.iter_mut().zip(HEAD.iter().chain(key)) {
        *v = all(word);
    }
    // The nonce behind the counter stays zero: each key is used for one payload.
    v[12] = counter;
    // Twenty rounds: ten times the columns, then the diagonals.
    for _ in 0..10 {
        half::<0>(&mut v);
        half::<1>(&mut v);
    }
    for (v, &word) in v.iter_mut().zip(HEAD.iter().chain(key)) {
        *v = add(*v, all(word));
    }
    v[12] = add(v[12], counter);
    transpose_16(&v)
}

/// Four quarter rounds side by side, on the columns, or, if row `r` is shifted by `r * SHIFT`, on the diagonals.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn half<const SHIFT: usize>(v: &mut [__m512i; 16]) {
    let (b, c, d) =
        (|i| 4 + (i + SHIFT) % 4, |i| 8 + (i + 2 * SHIFT) % 4, |i| 12 + (i + 3 * SHIFT) % 4);
    for i in 0..4 {
        v[i] = add(v[i], v[b(i)]);
    }
    for i in 0..4 {
        v[d(i)] = turned::<16>(v[d(i)], v[i]);
    }
    for i in 0..4 {
        v[c(i)] = add(v[c(i)], v[d(i)]);
    }
    for i in 0..4 {
        v[b(i)] = turned::<12>(v[b(i)], v[c(i)]);
    }
    for i in 0..4 {
        v[i] = add(v[i], v[b(i)]);
    }
    for i in 0..4 {
        v[d(i)] = turned::<8>(v[d(i)], v[i]);
    }
    for i in 0..4 {
        v[c(i)] = add(v[c(i)], v[d(i)]);
    }
    for i in 0..4 {
        v[b(i)] = turned::<7>(v[b(i)], v[c(i)]);
    }
}

/// The sum (XOR), turned to the left.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn turned<const BITS: i32>(a: __m512i, b: __m512i) -> __m512i {
    _mm512_rol_epi32::<BITS>(_mm512_xor_si512(a, b))
}
