//! HMAC (RFC 2104) and HKDF (RFC 5869), both of SHA-256, in 16 lanes.
//!
//! States stay transposed from one compression to the next. Salts, info and padding are the same in every lane: of
//! the 39 compressions of a hop's HKDF, 18 take nothing else, and need no message schedule; of the others' blocks,
//! the second half is such.

use core::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::sha256::{
    Block, Half, IV, Schedule, State, all_of, compress, compress_half, compress_known,
    compress_one, rows, schedule, words,
};
use super::{PayloadKey, all_32 as all, parts, store};
use crate::hop_keys::{HKDF_INFO, HopKeys, PAYLOAD_INFO, PAYLOAD_SALT, ROUTING_LEN};

static HOP: Recipe<2, 2, 8> = Recipe::new(b"", HKDF_INFO);
static PAYLOAD: Recipe<1, 1, 5> = Recipe::new(PAYLOAD_SALT, PAYLOAD_INFO);

/// The keys of a hop from the shared secret of each lane, as [`HopKeys::derive`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::backend) fn hop_keys(shared: [&[u8; 32]; 16], keys: &mut [HopKeys; 16]) {
    let mut chain = Chain::extract(&HOP, shared);
    let head = chain.two();
    // The payload key's place reaches to byte 224. Version 260 uses its first 16 bytes.
    for _ in 0..5 {
        chain.step();
    }
    let tail = chain.two();
    for ((keys, &head), &tail) in keys.iter_mut().zip(head.iter()).zip(tail.iter()) {
        store(&mut keys.stream, head);
        store(&mut keys.mac, quarters::<1>(head));
        store(&mut keys.payload_seed, quarters::<2>(head));
        store(&mut keys.blinding, tail);
        store(&mut keys.tag, quarters::<2>(tail));
    }
}

/// The LIONESS keys from the payload key seed of each lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::backend) fn payload_keys(seeds: [&[u8; 16]; 16], keys: &mut [PayloadKey; 16]) {
    let mut chain = Chain::extract(&PAYLOAD, seeds);
    for part in 0..3 {
        let rows = chain.two();
        for (key, &row) in keys.iter_mut().zip(rows.iter()) {
            store(&mut key.0[64 * part..64 * (part + 1)], row);
        }
    }
}

/// The first 16 bytes of the HMAC of each lane's routing block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in crate::backend) fn macs(
    keys: [&[u8; 16]; 16],
    messages: [&[u8; ROUTING_LEN]; 16],
    out: &mut [[u8; 16]; 16],
) {
    const END: usize = ROUTING_LEN % 64;
    const { assert!(END.is_multiple_of(4) && END < 56) };
    let hmac = Hmac::new(&low(&Zeroizing::new(words(parts(keys, 0..16)))));
    let mut state = hmac.inner;
    for at in (0..ROUTING_LEN - END).step_by(64) {
        state = compress(&state, &words(parts(messages, at..at + 64)));
    }
    let mut block = words(parts(messages, ROUTING_LEN - END..ROUTING_LEN));
    // The bit that ends a message, then zeros, then its length in bits, the key block included (FIPS 180-4, section
    // 5.1.1).
    block[END / 4] = all(1 << 31);
    block[15] = all(8 * (64 + ROUTING_LEN as u32));
    state = compress(&state, &block);
    let sum = hmac.finish(&state);
    for (out, row) in out.iter_mut().zip(rows(&sum, &sum)) {
        store(out, row);
    }
}

/// What fills up the key block of the inner hash, and of the outer.
static INNER_END: Half = Half::new(&[0x3636_3636; 8]);
static OUTER_END: Half = Half::new(&[0x5c5c_5c5c; 8]);
/// What follows the digest that the outer hash takes.
static DIGEST_END: Half = Half::padding(1 << 31, 64 + 32);

/// An HKDF whose salt and info are the same in every lane: `FIRST` blocks make T(1), and a block that begins with
/// T(i - 1) and `REST` others each of the `N` that follow.
struct Recipe<const FIRST: usize, const REST: usize, const N: usize> {
    inner: [u32; 8],
    outer: [u32; 8],
    first: [Schedule; FIRST],
    /// The bytes of the info that share a block with T(i - 1).
    joined: Half,
    rest: [[Schedule; REST]; N],
}

impl<const FIRST: usize, const REST: usize, const N: usize> Recipe<FIRST, REST, N> {
    /// A salt and an info of at most 64 bytes, and of at least 32.
    const fn new(salt: &[u8], info: &[u8]) -> Self {
        let mut pads = [[0x36; 64], [0x5c; 64]];
        let mut i = 0;
        while i < salt.len() {
            pads[0][i] ^= salt[i];
            pads[1][i] ^= salt[i];
            i += 1;
        }
        let mut joined = [0; 8];
        let mut i = 0;
        while i < 32 {
            // A digest has 32 bytes, so the first 32 of the info stand behind it in the same block.
            joined[i / 4] = joined[i / 4] << 8 | info[i] as u32;
            i += 1;
        }
        let mut rest = [[[0; 64]; REST]; N];
        let mut i = 0;
        while i < N {
            rest[i] = schedules(info, 32, i as u8 + 2, 64 + 32);
            i += 1;
        }
        Self {
            inner: compress_one(&IV, &schedule(&pads[0])),
            outer: compress_one(&IV, &schedule(&pads[1])),
            first: schedules(info, 0, 1, 64),
            joined: Half::new(&joined),
            rest,
        }
    }
}

/// The blocks from byte `from` of the info on, to the end of the message: info, counter, padding. `before` bytes
/// of the message come before the info.
const fn schedules<const B: usize>(
    info: &[u8],
    from: usize,
    counter: u8,
    before: usize,
) -> [Schedule; B] {
    let len = info.len() - from;
    assert!(len + 1 + 9 <= 64 * B && len + 1 + 9 > 64 * (B - 1), "B is the number of blocks");
    let bits = (8 * (before + info.len() + 1) as u64).to_be_bytes();
    let mut schedules = [[0; 64]; B];
    let mut i = 0;
    while i < B {
        let mut block = [0; 64];
        let mut j = 0;
        while j < 64 {
            let at = 64 * i + j;
            block[j] = if at < len {
                info[from + at]
            } else if at == len {
                counter
            } else if at == len + 1 {
                0x80
            } else if at >= 64 * B - 8 {
                bits[at - (64 * B - 8)]
            } else {
                0
            };
            j += 1;
        }
        schedules[i] = schedule(&block);
        i += 1;
    }
    schedules
}

/// HMAC after its key.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    /// From keys of at most 32 bytes, filled up with zeros.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn new(key: &State) -> Self {
        let mut pads = Zeroizing::new([*key, *key]);
        for (pad, byte) in pads.iter_mut().zip([0x36, 0x5c]) {
            for word in pad {
                *word = _mm512_xor_si512(*word, _mm512_set1_epi8(byte));
            }
        }
        let iv = all_of(&IV);
        Self {
            // Keys have half a block at most, so the second half of the pads is the same in every lane.
            inner: compress_half(&iv, &pads[0], &INNER_END),
            outer: compress_half(&iv, &pads[1], &OUTER_END),
        }
    }

    /// The HMAC of the message that led the inner hash to `state`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn finish(&self, state: &State) -> State {
        compress_half(&self.outer, state, &DIGEST_END)
    }
}

/// The T(i) of an HKDF, one after the other.
struct Chain<const FIRST: usize, const REST: usize, const N: usize> {
    recipe: &'static Recipe<FIRST, REST, N>,
    /// Under the pseudorandom key.
    hmac: Hmac,
    /// T(i), and its i; none is T(0).
    last: Zeroizing<State>,
    i: usize,
}

impl<const FIRST: usize, const REST: usize, const N: usize> Chain<FIRST, REST, N> {
    /// A chain that has extracted its keys and stands at T(0).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn extract<const SECRET: usize>(
        recipe: &'static Recipe<FIRST, REST, N>,
        secrets: [&[u8; SECRET]; 16],
    ) -> Self {
        const { assert!(SECRET.is_multiple_of(4) && SECRET <= 32) };
        // The secret is the message of the extraction, its key the salt, which is the same for all lanes: so both
        // pads of the recipe are constants.
        let mut secret = low(&Zeroizing::new(words(parts(secrets, 0..SECRET))));
        if SECRET < 32 {
            secret[SECRET / 4] = all(1 << 31);
        }
        // Where the secret fills the first half of the block, the bit that ends the message is the first of the
        // second half.
        let end = const { &Half::padding(if SECRET < 32 { 0 } else { 1 << 31 }, 64 + SECRET) };
        let last = Zeroizing::new(compress_half(&all_of(&recipe.inner), &secret, end));
        let key = Zeroizing::new(compress_half(&all_of(&recipe.outer), &last, &DIGEST_END));
        Self { recipe, hmac: Hmac::new(&key), last, i: 0 }
    }

    /// To the next T(i).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn step(&mut self) {
        // T(i) is the HMAC of T(i − 1), the info and i (RFC 5869, section 2.3); for i = 1 there is no T before.
        let mut state = self.hmac.inner;
        if self.i == 0 {
            for schedule in &self.recipe.first {
                state = compress_known(&state, schedule);
            }
        } else {
            state = compress_half(&state, &self.last, &self.recipe.joined);
            for schedule in &self.recipe.rest[self.i - 1] {
                state = compress_known(&state, schedule);
            }
        }
        *self.last = self.hmac.finish(&state);
        self.i += 1;
    }

    /// The next two T(i), one behind the other, of each lane.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn two(&mut self) -> Zeroizing<[__m512i; 16]> {
        self.step();
        let first = self.last.clone();
        self.step();
        Zeroizing::new(rows(&first, &self.last))
    }
}

/// The first eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn low(block: &Block) -> Zeroizing<State> {
    let mut low = Zeroizing::new([_mm512_setzero_si512(); 8]);
    low.copy_from_slice(&block[..8]);
    low
}

/// The quarters from number `I` on, at most two of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quarters<const I: i32>(a: __m512i) -> __m512i {
    _mm512_maskz_compress_epi64(0xff << (2 * I), a)
}
