//! X25519 (RFC 7748), eight ladders in the lanes of a vector.

mod field;
mod lanes;

use field::{Number, Sum};
use lanes::Lanes;
use zeroize::Zeroizing;

use super::wipe_stack;

/// Ladders that share one inversion, at most.
const MOST: usize = 32;

/// What multiplies points in lanes.
#[derive(Clone, Copy)]
pub(crate) enum Ladders {
    /// For CPUs with AVX-512 IFMA.
    #[cfg(target_arch = "x86_64")]
    Ifma(lanes::Ifma),
    /// For CPUs with AVX-512 and without IFMA.
    #[cfg(target_arch = "x86_64")]
    Doubles(lanes::Doubles),
}

impl Ladders {
    /// With AVX-512 IFMA; `None` on a CPU without.
    pub(super) fn ifma() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return lanes::Ifma::new().map(Self::Ifma);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// With the other instructions of AVX-512; `None` on a CPU without.
    pub(super) fn doubles() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return lanes::Doubles::new().map(Self::Doubles);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Multiplies points, each by its scalar, clamped, as long as it pays: says how many. All zero where a point has
    /// small order. The slices have the same length.
    pub(super) fn multiply(
        self,
        scalars: &[[u8; 32]],
        points: &[[u8; 32]],
        products: &mut [[u8; 32]],
    ) -> usize {
        let rest = scalars.len() % 8;
        let count = if rest < self.least() { scalars.len() - rest } else { scalars.len() };
        let (scalars, _) = scalars.split_at(count);
        let all = scalars.chunks(MOST).zip(points.chunks(MOST)).zip(products.chunks_mut(MOST));
        for ((scalars, points), products) in all {
            self.multiply_some(scalars, points, products);
        }
        count
    }

    /// As many as take no longer one by one, and one more.
    fn least(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Ifma(_) => 3,
            Self::Doubles(_) => 5,
        };
        #[cfg(not(target_arch = "x86_64"))]
        match self {}
    }

    #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls with CPU features"))]
    fn multiply_some(self, scalars: &[[u8; 32]], points: &[[u8; 32]], products: &mut [[u8; 32]]) {
        #[cfg(target_arch = "x86_64")]
        match self {
            // SAFETY: a value of this type is made only where the CPU has the features.
            Self::Ifma(l) => unsafe { multiply_ifma(l, scalars, points, products) },
            // SAFETY: as above.
            Self::Doubles(l) => unsafe { multiply_doubles(l, scalars, points, products) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self {}
        // What the vectors of the ladder left.
        wipe_stack();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
#[inline(never)]
fn multiply_ifma(l: lanes::Ifma, s: &[[u8; 32]], u: &[[u8; 32]], out: &mut [[u8; 32]]) {
    multiply(l, s, u, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline(never)]
fn multiply_doubles(l: lanes::Doubles, s: &[[u8; 32]], u: &[[u8; 32]], out: &mut [[u8; 32]]) {
    multiply(l, s, u, out);
}

/// Word `w` of eight blocks of 32 bytes, for each `w`. Missing blocks are zero.
fn transposed(blocks: &[[u8; 32]]) -> [[u64; 8]; 4] {
    let mut words = [[0; 8]; 4];
    for (lane, block) in blocks.iter().enumerate() {
        for (words, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            if let Some(word) = words.get_mut(lane) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
    }
    words
}

/// (X : Z) on the curve, or its twist.
#[derive(Clone, Copy)]
struct Point<L: Lanes> {
    x: Sum<L>,
    z: Sum<L>,
}

impl<L: Lanes> Point<L> {
    /// Twice a point, of its x + z and x − z.
    #[inline(always)]
    fn doubled(l: L, plus: Number<L>, minus: Number<L>) -> Self {
        let (aa, bb) = (plus.squared(l), minus.squared(l));
        let e = aa.minus(l, bb).carry(l);
        let x = aa.carry(l).times(l, bb.carry(l));
        let z = e.times(l, aa.plus_multiple(l, e, 121_665).carry(l));
        Self { x, z }
    }

    #[inline(always)]
    fn plus_and_minus(self, l: L) -> (Number<L>, Number<L>) {
        (self.x.plus(l, self.z).carry(l), self.x.minus(l, self.z).carry(l))
    }
}

/// Eight points by eight scalars, clamped.
#[inline(always)]
fn ladder<L: Lanes>(l: L, scalars: &[[u8; 32]], points: &[[u8; 32]]) -> Point<L> {
    let mut scalars = Zeroizing::new(transposed(scalars));
    let mut changes = Zeroizing::new([[0; 8]; 4]);
    // Clamping sets bit 254.
    if let Some(words) = scalars.last_mut() {
        words.iter_mut().for_each(|word| *word |= 1 << 62);
    }
    let mut above = &[0; 8];
    for (changes, words) in changes.iter_mut().zip(scalars.iter()).rev() {
        for ((change, word), above) in changes.iter_mut().zip(words).zip(above) {
            *change = word ^ (word >> 1 | above << 63);
        }
        above = words;
    }

    // The ladder holds two points whose difference is the one to be multiplied. Of these, each step doubles that
    // which its bit says, and adds both. It is the double of the step before if the bit is the same, else the sum.
    let u = Sum::load(l, &transposed(points));
    let mut sum = Point { x: u, z: Sum::small(l, 1) };
    let (plus, minus) = sum.plus_and_minus(l);
    let mut double = Point::doubled(l, plus, minus);
    let u = u.carry(l);
    for (changes, bits) in changes.iter().zip([3..64, 0..64, 0..64, 0..62]).rev() {
        let changes = l.load(changes);
        for bit in bits.rev() {
            let (double_plus, double_minus) = double.plus_and_minus(l);
            let (sum_plus, sum_minus) = sum.plus_and_minus(l);
            let crossed = sum_minus.times(l, double_plus);
            let other = sum_plus.times(l, double_minus);

            let changed = l.test(changes, l.splat(1 << bit));
            let plus = Number::select(l, changed, sum_plus, double_plus);
            let minus = Number::select(l, changed, sum_minus, double_minus);
            double = Point::doubled(l, plus, minus);

            let difference = crossed.minus(l, other).carry(l).squared(l).carry(l);
            sum =
                Point { x: crossed.plus(l, other).carry(l).squared(l), z: difference.times(l, u) };
        }
    }

    // By clamping the three last bits are zero.
    let [lowest, ..] = &*scalars;
    let (double_plus, double_minus) = double.plus_and_minus(l);
    let (sum_plus, sum_minus) = sum.plus_and_minus(l);
    let set = l.test(l.load(lowest), l.splat(1 << 3));
    let mut plus = Number::select(l, set, sum_plus, double_plus);
    let mut minus = Number::select(l, set, sum_minus, double_minus);
    let mut product = Point::doubled(l, plus, minus);
    for _ in 0..2 {
        (plus, minus) = product.plus_and_minus(l);
        product = Point::doubled(l, plus, minus);
    }
    product
}

/// [`Ladders::multiply`] for one kind of lanes.
#[inline(always)]
fn multiply<L: Lanes>(l: L, scalars: &[[u8; 32]], points: &[[u8; 32]], products: &mut [[u8; 32]]) {
    let (zero, one) = (Sum::small(l, 0).carry(l), Sum::small(l, 1).carry(l));
    // x, z, and the product of all z up to here, without those that are zero.
    let mut groups = [(zero, one, one); MOST / 8];
    let mut product = one;
    for ((group, scalars), points) in groups.iter_mut().zip(scalars.chunks(8)).zip(points.chunks(8))
    {
        let Point { x, z } = ladder(l, scalars, points);
        let finite = z.is_not_zero(l);
        let z = Number::select(l, finite, z.carry(l), one);
        let x = Number::select(l, finite, x.carry(l), zero);
        *group = (x, z, product);
        product = product.by(l, z);
    }
    let mut inverse = product.inverse(l);
    for ((x, z, before), products) in groups.iter().zip(products.chunks_mut(8)).rev() {
        let words = x.times(l, inverse.by(l, *before)).store(l);
        inverse = inverse.by(l, *z);
        for (lane, product) in products.iter_mut().enumerate() {
            for (bytes, word) in product.as_chunks_mut().0.iter_mut().zip(&words) {
                *bytes = word.get(lane).copied().unwrap_or_default().to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::MontgomeryPoint;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::lanes::Plain;
    use super::*;

    #[test]
    fn every_way_multiplies_like_dalek() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        for count in 0..=MOST {
            let scalars: Vec<[u8; 32]> = (0..count).map(|_| rng.random()).collect();
            let points: Vec<[u8; 32]> = (0..count).map(|_| rng.random()).collect();
            let expected: Vec<[u8; 32]> = scalars
                .iter()
                .zip(&points)
                .map(|(s, u)| MontgomeryPoint(*u).mul_clamped(*s).to_bytes())
                .collect();
            for ladders in [Ladders::ifma(), Ladders::doubles()].into_iter().flatten() {
                let mut products = vec![[0; 32]; count];
                ladders.multiply_some(&scalars, &points, &mut products);
                assert_eq!(products, expected);
            }
            let mut products = vec![[0; 32]; count];
            multiply(Plain, &scalars, &points, &mut products);
            assert_eq!(products, expected);
        }
    }
}
