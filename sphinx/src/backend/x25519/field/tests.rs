//! The bounds that the field states, at their extremes, against integers of any length.

use std::array;

use num_bigint::BigUint;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::super::lanes::Plain;
#[cfg(target_arch = "x86_64")]
use super::super::lanes::{Doubles, Ifma};
use super::*;

/// Five limbs of each of eight numbers.
type Limbs = [[u64; 8]; 5];

/// Above the limbs of a factor.
const FACTOR: [u64; 5] = [1 << 52, 1 << 52, 1 << 52, 1 << 52, (1 << 47) + (1 << 11)];
/// Above what may be carried.
const CARRIED: [u64; 5] = [1 << 62, 1 << 62, 1 << 62, 1 << 62, 1 << 58];
/// The one of the ladder, and the largest that is allowed.
const CONSTANTS: [u64; 2] = [121_665, (1 << 17) - 1];
/// Its square has both halves close to 2^52: 2^52 − k for k² just below 2^52.
const BOTH_HALVES: u64 = (1 << 52) - (1 << 26) + 1;

/// A value of each way to compute on this CPU.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Doubles(Doubles),
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma),
}

/// What is computed of numbers: one line for each operation.
struct Results {
    loaded: Limbs,
    carried: Limbs,
    plus: Limbs,
    minus: Limbs,
    times: Limbs,
    squared: Limbs,
    plus_multiple: [Limbs; 2],
    stored: [[u64; 8]; 4],
    is_not_zero: [u64; 8],
    inverse: [[u64; 8]; 4],
    selected: Limbs,
}

/// `a`, `b`: factors; `x`, `y`: of limbs below [`LIMIT`]; `wide`: of limbs that may be carried; `loaded`: 32 bytes.
#[derive(Clone, Copy)]
struct Operands {
    a: Limbs,
    b: Limbs,
    x: Limbs,
    y: Limbs,
    wide: Limbs,
    loaded: [[u64; 8]; 4],
}

#[inline(always)]
fn sum<L: Lanes>(l: L, limbs: &Limbs) -> Sum<L> {
    let [a, b, c, d, e] = limbs;
    Sum([l.load(a), l.load(b), l.load(c), l.load(d), l.load(e)])
}

#[inline(always)]
fn number<L: Lanes>(l: L, limbs: &Limbs) -> Number<L> {
    let [a, b, c, d, e] = sum(l, limbs).0;
    Number([l.factor(a), l.factor(b), l.factor(c), l.factor(d), l.factor(e)])
}

#[inline(always)]
fn limbs<L: Lanes>(l: L, sum: Sum<L>) -> Limbs {
    let [a, b, c, d, e] = sum.0;
    [l.store(a), l.store(b), l.store(c), l.store(d), l.store(e)]
}

/// A factor is a word again when it is multiplied by one.
#[inline(always)]
fn word<L: Lanes>(l: L, factor: L::Factor) -> [u64; 8] {
    let one = l.factor(l.splat(1));
    l.store(l.multiply(l.start(1, 0), l.start(0, 1), factor, one).0)
}

#[inline(always)]
fn words<L: Lanes>(l: L, number: Number<L>) -> Limbs {
    let [a, b, c, d, e] = number.0;
    [word(l, a), word(l, b), word(l, c), word(l, d), word(l, e)]
}

#[inline(always)]
fn compute<L: Lanes>(l: L, operands: &Operands) -> Results {
    let Operands { a, b, x, y, wide, loaded } = operands;
    let (a, b, x, y) = (number(l, a), number(l, b), sum(l, x), sum(l, y));
    let (zero, one) = (Sum::small(l, 0).carry(l), Sum::small(l, 1).carry(l));
    let [c, d] = CONSTANTS;
    let [is_not_zero, ..] = words(l, Number::select(l, x.is_not_zero(l), one, zero));
    Results {
        loaded: limbs(l, Sum::load(l, loaded)),
        carried: words(l, sum(l, wide).carry(l)),
        plus: limbs(l, x.plus(l, y)),
        minus: limbs(l, x.minus(l, y)),
        times: limbs(l, a.times(l, b)),
        squared: limbs(l, a.squared(l)),
        plus_multiple: [limbs(l, x.plus_multiple(l, a, c)), limbs(l, x.plus_multiple(l, a, d))],
        stored: sum(l, wide).store(l),
        is_not_zero,
        inverse: a.inverse(l).times(l, one).store(l),
        selected: words(l, Number::select(l, x.is_not_zero(l), a, b)),
    }
}

#[inline(always)]
fn multiply<L: Lanes>(
    l: L,
    low: &[u64; 8],
    high: &[u64; 8],
    a: &[u64; 8],
    b: &[u64; 8],
) -> [[u64; 8]; 2] {
    let (a, b) = (l.factor(l.load(a)), l.factor(l.load(b)));
    let low = l.add(l.load(low), l.start(1, 0));
    let high = l.add(l.load(high), l.start(0, 1));
    let (low, high) = l.multiply(low, high, a, b);
    [l.store(low), l.store(high)]
}

/// The same with the CPU's features, as the ladder has it.
#[cfg(target_arch = "x86_64")]
mod with_features {
    use super::*;

    type Words = [u64; 8];

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub(super) fn doubles(l: Doubles, operands: &Operands) -> Results {
        compute(l, operands)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
    pub(super) fn ifma(l: Ifma, operands: &Operands) -> Results {
        compute(l, operands)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub(super) fn multiply_doubles(l: Doubles, [low, high, a, b]: [&Words; 4]) -> [Words; 2] {
        multiply(l, low, high, a, b)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
    pub(super) fn multiply_ifma(l: Ifma, [low, high, a, b]: [&Words; 4]) -> [Words; 2] {
        multiply(l, low, high, a, b)
    }
}

#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls with CPU features"))]
impl Way {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Doubles::new().map(Self::Doubles));
            all.extend(Ifma::new().map(Self::Ifma));
        }
        all
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Self::Doubles(_) => "doubles",
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_) => "ifma",
        }
    }

    fn compute(self, operands: &Operands) -> Results {
        match self {
            Self::Plain => compute(Plain, operands),
            // SAFETY: a value of this type is made only where the CPU has the features.
            #[cfg(target_arch = "x86_64")]
            Self::Doubles(l) => unsafe { with_features::doubles(l, operands) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(l) => unsafe { with_features::ifma(l, operands) },
        }
    }

    fn multiply(
        self,
        low: &[u64; 8],
        high: &[u64; 8],
        a: &[u64; 8],
        b: &[u64; 8],
    ) -> [[u64; 8]; 2] {
        match self {
            Self::Plain => multiply(Plain, low, high, a, b),
            // SAFETY: a value of this type is made only where the CPU has the features.
            #[cfg(target_arch = "x86_64")]
            Self::Doubles(l) => unsafe { with_features::multiply_doubles(l, [low, high, a, b]) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(l) => unsafe { with_features::multiply_ifma(l, [low, high, a, b]) },
        }
    }
}

fn modulus() -> BigUint {
    (BigUint::from(1_u8) << 255_u8) - 19_u8
}

/// Σ lᵢ·2^(52i), not reduced.
fn value(limbs: &Limbs, lane: usize) -> BigUint {
    limbs.iter().rev().fold(BigUint::default(), |sum, limb| (sum << 52_u8) + limb[lane])
}

fn of_words(words: &[[u64; 8]; 4], lane: usize) -> BigUint {
    words.iter().rev().fold(BigUint::default(), |sum, word| (sum << 64_u8) + word[lane])
}

fn below(limbs: &Limbs, lane: usize, bounds: [u64; 5]) -> bool {
    limbs.iter().zip(bounds).all(|(limb, bound)| limb[lane] < bound)
}

/// Limbs of which each is one of some extremes, or random, below these bounds.
fn extreme(rng: &mut ChaCha12Rng, bounds: [u64; 5]) -> [u64; 5] {
    bounds.map(|bound| match rng.random_range(0..10) {
        0..=2 => bound - 1,
        3 | 4 => 0,
        5 => 1,
        6 | 7 => BOTH_HALVES.min(bound - 2),
        _ => rng.random_range(0..bound),
    })
}

/// Eight numbers, by their lanes.
fn lanes<const N: usize>(mut number: impl FnMut(usize) -> [u64; N]) -> [[u64; 8]; N] {
    let numbers: [[u64; N]; 8] = array::from_fn(&mut number);
    array::from_fn(|limb| numbers.map(|number| number[limb]))
}

/// Gives the largest limb of a product.
fn check(operands: &Operands) -> u64 {
    let (p, mut largest) = (modulus(), 0);
    for way in Way::all() {
        let (name, results) = (way.name(), way.compute(operands));
        for lane in 0..8 {
            let Operands { a, b, x, y, wide, loaded } = operands;
            let [a, b, x, y, wide] = [a, b, x, y, wide].map(|limbs| value(limbs, lane));
            let is = |limbs: &Limbs, expected: BigUint| value(limbs, lane) % &p == expected % &p;

            let bits = of_words(loaded, lane) % (BigUint::from(1_u8) << 255_u8);
            assert!(value(&results.loaded, lane) == bits, "{name}: load");
            assert!(below(&results.loaded, lane, [1 << 52; 5]), "{name}: load");
            assert!(is(&results.carried, wide.clone()), "{name}: carry");
            assert!(below(&results.carried, lane, FACTOR), "{name}: carry");
            assert!(value(&results.plus, lane) == &x + &y, "{name}: plus");
            assert!(below(&results.plus, lane, CARRIED), "{name}: plus");
            // Exactly: no limb went below zero.
            assert!(value(&results.minus, lane) + &y == &x + 512_u16 * &p, "{name}: minus");
            assert!(below(&results.minus, lane, [(1 << 61) + 2 * LIMIT; 5]), "{name}: minus");
            assert!(below(&results.minus, lane, CARRIED), "{name}: minus");

            for (product, expected) in [(&results.times, &a * &b), (&results.squared, &a * &a)] {
                assert!(is(product, expected), "{name}: product");
                assert!(below(product, lane, [(10 << 52) + 608; 5]), "{name}: product");
                largest = product.iter().fold(largest, |largest, limb| limb[lane].max(largest));
            }
            for (sum, constant) in results.plus_multiple.iter().zip(CONSTANTS) {
                assert!(is(sum, &x + &a * constant), "{name}: multiple");
                assert!(below(sum, lane, CARRIED), "{name}: multiple");
            }
            assert!(of_words(&results.stored, lane) == &wide % &p, "{name}: store");
            let [zero, one] = [0_u8, 1].map(BigUint::from);
            let is_zero = &x % &p == zero;
            assert!(results.is_not_zero[lane] == u64::from(!is_zero), "{name}: zero");
            let selected = if is_zero { &b } else { &a };
            assert!(value(&results.selected, lane) == *selected, "{name}: select");
            let product = of_words(&results.inverse, lane) * &a % &p;
            assert!(product == if &a % &p == zero { zero } else { one }, "{name}: inverse");
        }
    }
    assert!(largest < LIMIT);
    largest
}

#[test]
fn numbers_of_extreme_limbs_stay_in_their_bounds_and_are_right() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut largest = 0;
    for round in 0..1_000 {
        // All pairs of patterns of the smallest and the largest limbs, then others.
        let mut limbs = |bounds: [u64; 5], shift: usize| {
            lanes(|lane| match 8 * round + lane {
                n @ 0..1024 => array::from_fn(|i| (bounds[i] - 1) * (n >> (shift + i) & 1) as u64),
                _ => extreme(&mut rng, bounds),
            })
        };
        let (a, b, x, y, wide) = (
            limbs(FACTOR, 0),
            limbs(FACTOR, 5),
            limbs([LIMIT; 5], 0),
            limbs([LIMIT; 5], 5),
            limbs(CARRIED, 0),
        );
        let loaded =
            lanes(|_| array::from_fn(|_| [0, u64::MAX, rng.random()][rng.random_range(0..3)]));
        largest = largest.max(check(&Operands { a, b, x, y, wide, loaded }));
    }
    assert!(largest > 9 << 52, "the bound on products is far from what they reach: {largest:x}");
}

#[test]
fn every_form_of_a_number_close_to_a_multiple_of_the_modulus_is_reduced() {
    // In limbs that are k times those of p, and in ones that are carried.
    let multiple = |k: u64| [MASK - 18, MASK, MASK, MASK, TOP_MASK].map(|limb| k * limb);
    let close_to = |k: u64, offset: usize| -> [u64; 5] {
        let number = modulus() * k + offset;
        let number = if k == 0 { number } else { number - 24_u8 };
        let digit = |i| (&number >> (52 * i)) & BigUint::from(if i < 4 { MASK } else { u64::MAX });
        array::from_fn(|i| digit(i).try_into().unwrap())
    };
    for k in (0..24).chain((24..1_000).step_by(61)).chain([999]) {
        for offset in (0..48).step_by(8) {
            let x = lanes(|lane| match lane {
                0 => multiple(k % 11),
                lane => close_to(k % 11, offset + lane),
            });
            let wide = lanes(|lane| match lane {
                0 => multiple(k),
                lane => close_to(k, offset + lane),
            });
            let a = lanes(|lane| close_to(k % 2, offset + lane));
            let (b, loaded) = (lanes(|_| [2; 5]), lanes(|_| [u64::MAX; 4]));
            check(&Operands { a, b, x, y: x, wide, loaded });
        }
    }
}

#[test]
fn the_halves_of_products_are_those_of_integers() {
    let mut rng = ChaCha12Rng::seed_from_u64(2);
    let edges = [0, 1, 2, 19, 608, BOTH_HALVES, 1 << 26, 1 << 51, (1 << 51) - 1, MASK - 1, MASK];
    let mut pairs: Vec<(u64, u64)> =
        edges.into_iter().flat_map(|a| edges.map(|b| (a, b))).collect();
    // Of every length; then close to a multiple of 2^52, where a half changes.
    for bits in 1..=52 {
        for _ in 0..200 {
            let [a, b] = [(); 2].map(|()| rng.random_range(0..1_u64 << bits));
            pairs.push((a, rng.random_range(0..=MASK)));
            let quotient = (u128::from(b) << 52) / u128::from(a.max(1)) + rng.random_range(0..2);
            pairs.push((a, quotient.min(u128::from(MASK)) as u64));
        }
    }
    for pairs in pairs.as_chunks::<8>().0 {
        let (a, b) = (pairs.map(|(a, _)| a), pairs.map(|(_, b)| b));
        let sums: [[u64; 8]; 2] = array::from_fn(|_| array::from_fn(|_| rng.random::<u64>() >> 1));
        let product = |lane: usize| u128::from(a[lane]) * u128::from(b[lane]);
        let half = |i: usize, shift: u32| (product(i) >> shift) as u64 & MASK;
        let expected = [
            array::from_fn(|i| sums[0][i] + half(i, 0)),
            array::from_fn(|i| sums[1][i] + half(i, 52)),
        ];
        for way in Way::all() {
            let name = way.name();
            assert_eq!(way.multiply(&sums[0], &sums[1], &a, &b), expected, "{name}: {a:?} {b:?}");
        }
    }
}
