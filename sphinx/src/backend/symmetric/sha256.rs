//! SHA-256 (FIPS 180-4) in 16 lanes. Blocks that are the same in every lane, or whose second half is, are expanded
//! at compile time.

use core::arch::x86_64::*;

use super::{add_32 as add, all_32 as all, load_all, transpose_16};

/// A state of 16 messages: its word `i` of each.
pub(super) type State = [__m512i; 8];
/// A block of 16 messages: its word `i` of each.
pub(super) type Block = [__m512i; 16];
/// What the rounds add from a block that is the same in every lane: its words, with K.
pub(super) type Schedule = [u32; 64];

#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];
#[rustfmt::skip]
pub(super) const IV: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// The words that the rounds take from a block.
pub(super) const fn schedule(block: &[u8; 64]) -> Schedule {
    let mut w = [0u32; 64];
    let mut i = 0;
    while i < 64 {
        w[i] = if i < 16 {
            u32::from_be_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]])
        } else {
            let sum = w[i - 16].wrapping_add(sigma_0_one(w[i - 15])).wrapping_add(w[i - 7]);
            sum.wrapping_add(sigma_1_one(w[i - 2]))
        };
        i += 1;
    }
    let mut i = 0;
    while i < 64 {
        w[i] = w[i].wrapping_add(K[i]);
        i += 1;
    }
    w
}

/// The compression function, for constants.
pub(super) const fn compress_one(state: &[u32; 8], schedule: &Schedule) -> [u32; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    let mut i = 0;
    while i < 64 {
        let x = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let y = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = h.wrapping_add(x).wrapping_add((e & f) ^ (!e & g)).wrapping_add(schedule[i]);
        let u = y.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t), c, b, a, t.wrapping_add(u));
        i += 1;
    }
    let mut sum = [a, b, c, d, e, f, g, h];
    let mut i = 0;
    while i < 8 {
        sum[i] = sum[i].wrapping_add(state[i]);
        i += 1;
    }
    sum
}

/// The second half of a block, if it is the same in every lane.
pub(super) struct Half {
    /// Its words, with K.
    words: [u32; 8],
    /// What it adds to the 16 words that the schedule derives next.
    derived: [u32; 16],
}

impl Half {
    pub(super) const fn new(words: &[u32; 8]) -> Self {
        let mut half = Self { words: *words, derived: [0; 16] };
        let mut i = 0;
        while i < 8 {
            half.words[i] = half.words[i].wrapping_add(K[8 + i]);
            // Word 8 + i stands in the sums of words 15 + i and 24 + i, and under a sigma in those of 10 + i and
            // 23 + i. Words 10 to 15 are not derived.
            half.add(15 + i, words[i]);
            half.add(24 + i, words[i]);
            half.add(10 + i, sigma_1_one(words[i]));
            half.add(23 + i, sigma_0_one(words[i]));
            i += 1;
        }
        half
    }

    const fn add(&mut self, word: usize, term: u32) {
        if word >= 16 {
            self.derived[word - 16] = self.derived[word - 16].wrapping_add(term);
        }
    }

    /// The end of a message of `len` bytes.
    pub(super) const fn padding(first: u32, len: usize) -> Self {
        Self::new(&[first, 0, 0, 0, 0, 0, 0, 8 * len as u32])
    }
}

const fn sigma_0_one(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3)
}

const fn sigma_1_one(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10)
}

/// The compression function.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn compress(state: &State, block: &Block) -> State {
    let mut w = *block;
    // The first sixteen words are the block itself.
    let sum = sixteen(*state, |i| add(w[i], all(K[i])));
    add_state(&derived(sum, &mut w, 16), state)
}

/// The compression function, of a block whose second half is the same in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn compress_half(state: &State, block: &State, end: &Half) -> State {
    let mut w = [_mm512_setzero_si512(); 16];
    // The other eight words are in `end` already, with what they add to the words that are derived from them.
    w[..8].copy_from_slice(block);
    let sum = sixteen(*state, |i| if i < 8 { add(w[i], all(K[i])) } else { all(end.words[i - 8]) });
    let sum = sixteen(sum, |i| {
        // Words 0 to 7, and those that are derived already, are not in `end`.
        let mut word = all(end.derived[i]);
        if i < 8 {
            word = add(word, w[i]);
        }
        if !(7..15).contains(&i) {
            word = add(word, sigma_0(w[(i + 1) % 16]));
        }
        if i >= 7 {
            word = add(word, w[(i + 9) % 16]);
        }
        if i >= 2 {
            word = add(word, sigma_1(w[(i + 14) % 16]));
        }
        w[i] = word;
        add(word, all(K[16 + i]))
    });
    add_state(&derived(sum, &mut w, 32), state)
}

/// The rounds from `first` on, whose words are derived from the 16 before them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn derived(mut state: State, w: &mut Block, first: usize) -> State {
    for k in K[first..].as_chunks::<16>().0 {
        state = sixteen(state, |i| {
            let (x, y) = (sigma_0(w[(i + 1) % 16]), sigma_1(w[(i + 14) % 16]));
            // The schedule in place: word i + 16 takes the place of word i, which nothing needs any more.
            w[i] = add(add(w[i], w[(i + 9) % 16]), add(x, y));
            add(w[i], all(k[i]))
        });
    }
    state
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sigma_0(x: __m512i) -> __m512i {
    xor(turn::<7>(x), turn::<18>(x), _mm512_srli_epi32::<3>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sigma_1(x: __m512i) -> __m512i {
    xor(turn::<17>(x), turn::<19>(x), _mm512_srli_epi32::<10>(x))
}

/// The compression function, of a block that is the same in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn compress_known(state: &State, schedule: &Schedule) -> State {
    let mut sum = *state;
    for words in schedule.as_chunks::<16>().0 {
        sum = sixteen(sum, |i| all(words[i]));
    }
    add_state(&sum, state)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_state(a: &State, b: &State) -> State {
    let mut sum = *a;
    for (sum, &b) in sum.iter_mut().zip(b) {
        *sum = add(*sum, b);
    }
    sum
}

/// Sixteen rounds: `word(i)` is W + K of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sixteen(state: State, mut word: impl FnMut(usize) -> __m512i) -> State {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    // The truth tables of Ch, 0xca, and of Maj, 0xe8.
    macro_rules! round {
        ($i:expr, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
            let x = xor(turn::<6>($e), turn::<11>($e), turn::<25>($e));
            let y = xor(turn::<2>($a), turn::<13>($a), turn::<22>($a));
            let choice = _mm512_ternarylogic_epi32::<0xca>($e, $f, $g);
            let t = add(add(add($h, word($i)), choice), x);
            $d = add($d, t);
            $h = add(add(t, y), _mm512_ternarylogic_epi32::<0xe8>($a, $b, $c));
        };
    }
    macro_rules! eight {
        ($i:expr) => {
            round!($i, a b c d e f g h);
            round!($i + 1, h a b c d e f g);
            round!($i + 2, g h a b c d e f);
            round!($i + 3, f g h a b c d e);
            round!($i + 4, e f g h a b c d);
            round!($i + 5, d e f g h a b c);
            round!($i + 6, c d e f g h a b);
            round!($i + 7, b c d e f g h a);
        };
    }
    eight!(0);
    eight!(8);
    [a, b, c, d, e, f, g, h]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn all_of<const N: usize>(words: &[u32; N]) -> [__m512i; N] {
    let mut vectors = [_mm512_setzero_si512(); N];
    for (vector, &word) in vectors.iter_mut().zip(words) {
        *vector = all(word);
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

/// Each word, turned to the right.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn turn<const BITS: i32>(a: __m512i) -> __m512i {
    _mm512_ror_epi32::<BITS>(a)
}

/// The bytes of each word in the other order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn swap(a: __m512i) -> __m512i {
    let order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(order))
}

/// The words of the first 64 bytes of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn words(lanes: [&[u8]; 16]) -> Block {
    let mut rows = load_all(lanes);
    for row in &mut rows {
        *row = swap(*row);
    }
    transpose_16(&rows)
}

/// The bytes of two states, one behind the other, of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn rows(front: &State, back: &State) -> [__m512i; 16] {
    let mut columns = [_mm512_setzero_si512(); 16];
    columns[..8].copy_from_slice(front);
    columns[8..].copy_from_slice(back);
    let mut rows = transpose_16(&columns);
    for row in &mut rows {
        *row = swap(*row);
    }
    rows
}
