//! The field of 2^255 − 19 in eight lanes.
//!
//! A number is Σ lᵢ·2^(52i), i < 5. Where it is a factor ([`Number`]), l₀ to l₃ are below 2^52 and l₄ below
//! 2^47 + 2^11. Products are [`Sum`]s, whose limbs may be larger, and sums and differences are taken of those; one
//! [`Sum::carry`] makes a factor again. The bounds, which the tests reach:
//!
//! - Column k of a product has at most 9 halves below 2^52, so it is below 9·2^52. Columns 5 to 9 weigh 2^260 more,
//!   and 2^260 ≡ 608: carried, and times 608, they add one half below 2^52 and one below 608 to a column. The last
//!   one is below 2^42 + 2^7 before, so that its product by 608 has no high half. A product's limbs are below
//!   2^52·10 + 608 < [`LIMIT`] = 11·2^52.
//! - A difference x − y with y's limbs below [`LIMIT`] is x + 512·(2^255 − 19) − y: its limbs are positive (the
//!   smallest, the last, adds 2^56 − 512) and below 2^61 + 2·[`LIMIT`].
//! - Carrying takes limbs below 2^62, the last below 2^58: its carry is below 2^11, 19 of it below 2^16; the
//!   others' carries are below 2^10 + 1. So l₄ < 2^47 + 2^11.

use super::lanes::Lanes;

const MASK: u64 = (1 << 52) - 1;
const TOP_MASK: u64 = (1 << 47) - 1;

/// Above every limb of a product.
#[cfg(test)]
pub(super) const LIMIT: u64 = 11 << 52;

/// A field element whose limbs are small enough to be a factor.
#[derive(Clone, Copy)]
pub(super) struct Number<L: Lanes>([L::Factor; 5]);

/// What has still to be carried.
#[derive(Clone, Copy)]
pub(super) struct Sum<L: Lanes>(pub(super) [L::Word; 5]);

impl<L: Lanes> Sum<L> {
    /// Of 255 bits of each of eight numbers, in words of 64 bits.
    #[inline(always)]
    pub(super) fn load(l: L, words: &[[u64; 8]; 4]) -> Self {
        let [a, b, c, d] = words;
        let (a, b, c, d) = (l.load(a), l.load(b), l.load(c), l.load(d));
        let mask = l.splat(MASK);
        Self([
            l.and(a, mask),
            // Limb i begins at bit 52·i, in the middle of a word: its low bits come from one word, its high ones from
            // the next.
            l.and(l.or(l.right::<52>(a), l.left::<12>(b)), mask),
            l.and(l.or(l.right::<40>(b), l.left::<24>(c)), mask),
            l.and(l.or(l.right::<28>(c), l.left::<36>(d)), mask),
            l.and(l.right::<16>(d), l.splat(TOP_MASK)),
        ])
    }

    /// The same small number in all lanes.
    #[inline(always)]
    pub(super) fn small(l: L, value: u64) -> Self {
        let zero = l.splat(0);
        Self([l.splat(value), zero, zero, zero, zero])
    }

    #[inline(always)]
    pub(super) fn plus(self, l: L, other: Self) -> Self {
        let ([a0, a1, a2, a3, a4], [b0, b1, b2, b3, b4]) = (self.0, other.0);
        Self([l.add(a0, b0), l.add(a1, b1), l.add(a2, b2), l.add(a3, b3), l.add(a4, b4)])
    }

    #[inline(always)]
    pub(super) fn minus(self, l: L, other: Self) -> Self {
        let ([a0, a1, a2, a3, a4], [b0, b1, b2, b3, b4]) = (self.0, other.0);
        // 512 times the modulus, so that no limb goes below zero: the module comment has the bounds.
        let (first, middle) = (l.splat(512 * (MASK - 18)), l.splat(512 * MASK));
        let last = l.splat(512 * TOP_MASK);
        Self([
            l.sub(l.add(a0, first), b0),
            l.sub(l.add(a1, middle), b1),
            l.sub(l.add(a2, middle), b2),
            l.sub(l.add(a3, middle), b3),
            l.sub(l.add(a4, last), b4),
        ])
    }

    /// The limbs, each with the bits above it that have been added to the next.
    #[inline(always)]
    fn rippled(self, l: L) -> [L::Word; 5] {
        let [a0, a1, a2, a3, a4] = self.0;
        // The last first: what overflows into the first limb then ripples on with the rest.
        let a0 = l.add(a0, l.times(l.right::<47>(a4), l.splat(19)));
        let a1 = l.add(a1, l.right::<52>(a0));
        let a2 = l.add(a2, l.right::<52>(a1));
        let a3 = l.add(a3, l.right::<52>(a2));
        let a4 = l.add(l.and(a4, l.splat(TOP_MASK)), l.right::<52>(a3));
        [a0, a1, a2, a3, a4]
    }

    #[inline(always)]
    pub(super) fn carry(self, l: L) -> Number<L> {
        let [a0, a1, a2, a3, a4] = self.rippled(l);
        Number([l.factor(a0), l.factor(a1), l.factor(a2), l.factor(a3), l.factor(a4)])
    }

    /// The one representative below 2^255 − 19.
    #[inline(always)]
    fn canonical(self, l: L) -> [L::Word; 5] {
        let mask = l.splat(MASK);
        let [a0, a1, a2, a3, a4] = self.rippled(l);
        let (a0, a1, a2, a3) = (l.and(a0, mask), l.and(a1, mask), l.and(a2, mask), l.and(a3, mask));
        // Below 2^255 + 2^219 now: it exceeds the modulus once or not, which shows when 19 is added.
        let carry = l.right::<52>(l.add(a0, l.splat(19)));
        let carry = l.right::<52>(l.add(a1, carry));
        let carry = l.right::<52>(l.add(a2, carry));
        let carry = l.right::<52>(l.add(a3, carry));
        let excess = l.right::<47>(l.add(a4, carry));
        let a0 = l.add(a0, l.times(excess, l.splat(19)));
        let a1 = l.add(a1, l.right::<52>(a0));
        let a2 = l.add(a2, l.right::<52>(a1));
        let a3 = l.add(a3, l.right::<52>(a2));
        let a4 = l.add(a4, l.right::<52>(a3));
        // Without the top bit 2^255 is subtracted; 19 was added: together the modulus.
        let a4 = l.and(a4, l.splat(TOP_MASK));
        [l.and(a0, mask), l.and(a1, mask), l.and(a2, mask), l.and(a3, mask), a4]
    }

    /// Where it is not zero.
    #[inline(always)]
    pub(super) fn is_not_zero(self, l: L) -> L::Mask {
        let [a0, a1, a2, a3, a4] = self.canonical(l);
        let any = l.or(l.or(l.or(a0, a1), l.or(a2, a3)), a4);
        l.test(any, any)
    }

    /// Eight numbers of 32 bytes, in words of 64 bits.
    #[inline(always)]
    pub(super) fn store(self, l: L) -> [[u64; 8]; 4] {
        let [a0, a1, a2, a3, a4] = self.canonical(l);
        [
            l.store(l.or(a0, l.left::<52>(a1))),
            l.store(l.or(l.right::<12>(a1), l.left::<40>(a2))),
            l.store(l.or(l.right::<24>(a2), l.left::<28>(a3))),
            l.store(l.or(l.right::<36>(a3), l.left::<16>(a4))),
        ]
    }

    /// This plus a number times a constant below 2^17.
    #[inline(always)]
    pub(super) fn plus_multiple(self, l: L, number: Number<L>, constant: u64) -> Self {
        let ([a0, a1, a2, a3, a4], [n0, n1, n2, n3, n4]) = (self.0, number.0);
        let constant = l.factor(l.splat(constant));
        // How many halves of products each column gets: lanes of doubles must know it, to take off what each brings
        // with it.
        let (mut b0, mut b1, mut b2) = (l.start(1, 0), l.start(1, 1), l.start(1, 1));
        let (mut b3, mut b4, mut b5) = (l.start(1, 1), l.start(1, 1), l.start(0, 1));
        product(l, &mut b0, &mut b1, n0, constant);
        product(l, &mut b1, &mut b2, n1, constant);
        product(l, &mut b2, &mut b3, n2, constant);
        product(l, &mut b3, &mut b4, n3, constant);
        product(l, &mut b4, &mut b5, n4, constant);
        Sum([
            l.add(l.add(a0, b0), l.times(b5, l.splat(608))),
            l.add(a1, b1),
            l.add(a2, b2),
            l.add(a3, b3),
            l.add(a4, b4),
        ])
    }
}

/// An empty column for the low halves of so many products, and the high halves of so many of the column below.
#[inline(always)]
fn columns<L: Lanes>(l: L, low: [u64; 10], high: [u64; 10]) -> [L::Word; 10] {
    let ([a0, a1, a2, a3, a4, a5, a6, a7, a8, a9], [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9]) =
        (low, high);
    [
        l.start(a0, b0),
        l.start(a1, b1),
        l.start(a2, b2),
        l.start(a3, b3),
        l.start(a4, b4),
        l.start(a5, b5),
        l.start(a6, b6),
        l.start(a7, b7),
        l.start(a8, b8),
        l.start(a9, b9),
    ]
}

/// Adds a product to its column and the one above.
#[inline(always)]
fn product<L: Lanes>(l: L, low: &mut L::Word, high: &mut L::Word, a: L::Factor, b: L::Factor) {
    (*low, *high) = l.multiply(*low, *high, a, b);
}

/// The number that ten columns make.
#[inline(always)]
fn fold<L: Lanes>(l: L, columns: [L::Word; 10]) -> Sum<L> {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9] = columns;
    // Only the upper columns are carried, as they become factors of 608; the lower ones go into a `Sum` as they are.
    let a6 = l.add(a6, l.right::<52>(a5));
    let a7 = l.add(a7, l.right::<52>(a6));
    let a8 = l.add(a8, l.right::<52>(a7));
    let a9 = l.add(a9, l.right::<52>(a8));

    let fold = l.factor(l.splat(608));
    let (mut b0, mut b1, mut b2) = (l.start(1, 0), l.start(1, 1), l.start(1, 1));
    let (mut b3, mut b4, mut none) = (l.start(1, 1), l.start(1, 1), l.start(0, 1));
    product(l, &mut b0, &mut b1, l.factor(a5), fold);
    product(l, &mut b1, &mut b2, l.factor(a6), fold);
    product(l, &mut b2, &mut b3, l.factor(a7), fold);
    product(l, &mut b3, &mut b4, l.factor(a8), fold);
    product(l, &mut b4, &mut none, l.factor(a9), fold);
    Sum([l.add(a0, b0), l.add(a1, b1), l.add(a2, b2), l.add(a3, b3), l.add(a4, b4)])
}

impl<L: Lanes> Number<L> {
    #[inline(always)]
    pub(super) fn times(self, l: L, other: Self) -> Sum<L> {
        let ([a0, a1, a2, a3, a4], [b0, b1, b2, b3, b4]) = (self.0, other.0);
        let c = columns(l, [1, 2, 3, 4, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]);
        let [mut c0, mut c1, mut c2, mut c3, mut c4, mut c5, mut c6, mut c7, mut c8, mut c9] = c;
        product(l, &mut c0, &mut c1, a0, b0);
        product(l, &mut c1, &mut c2, a0, b1);
        product(l, &mut c2, &mut c3, a0, b2);
        product(l, &mut c3, &mut c4, a0, b3);
        product(l, &mut c4, &mut c5, a0, b4);
        product(l, &mut c1, &mut c2, a1, b0);
        product(l, &mut c2, &mut c3, a1, b1);
        product(l, &mut c3, &mut c4, a1, b2);
        product(l, &mut c4, &mut c5, a1, b3);
        product(l, &mut c5, &mut c6, a1, b4);
        product(l, &mut c2, &mut c3, a2, b0);
        product(l, &mut c3, &mut c4, a2, b1);
        product(l, &mut c4, &mut c5, a2, b2);
        product(l, &mut c5, &mut c6, a2, b3);
        product(l, &mut c6, &mut c7, a2, b4);
        product(l, &mut c3, &mut c4, a3, b0);
        product(l, &mut c4, &mut c5, a3, b1);
        product(l, &mut c5, &mut c6, a3, b2);
        product(l, &mut c6, &mut c7, a3, b3);
        product(l, &mut c7, &mut c8, a3, b4);
        product(l, &mut c4, &mut c5, a4, b0);
        product(l, &mut c5, &mut c6, a4, b1);
        product(l, &mut c6, &mut c7, a4, b2);
        product(l, &mut c7, &mut c8, a4, b3);
        product(l, &mut c8, &mut c9, a4, b4);
        fold(l, [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9])
    }

    #[inline(always)]
    pub(super) fn squared(self, l: L) -> Sum<L> {
        let [a0, a1, a2, a3, a4] = self.0;
        let c = columns(l, [0, 1, 1, 2, 2, 2, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 2, 1, 1, 0]);
        // Columns 0 and 9 have squares alone.
        let [_, mut c1, mut c2, mut c3, mut c4, mut c5, mut c6, mut c7, mut c8, _] = c;
        product(l, &mut c1, &mut c2, a0, a1);
        product(l, &mut c2, &mut c3, a0, a2);
        product(l, &mut c3, &mut c4, a0, a3);
        product(l, &mut c4, &mut c5, a0, a4);
        product(l, &mut c3, &mut c4, a1, a2);
        product(l, &mut c4, &mut c5, a1, a3);
        product(l, &mut c5, &mut c6, a1, a4);
        product(l, &mut c5, &mut c6, a2, a3);
        product(l, &mut c6, &mut c7, a2, a4);
        product(l, &mut c7, &mut c8, a3, a4);
        // Products that occur twice are doubled as a column. Then come the squares.
        let (low, high) = (l.start(1, 0), l.start(0, 1));
        let (mut c0, mut c9) = (low, high);
        (c1, c2) = (l.add(l.add(c1, c1), high), l.add(l.add(c2, c2), low));
        (c3, c4) = (l.add(l.add(c3, c3), high), l.add(l.add(c4, c4), low));
        (c5, c6) = (l.add(l.add(c5, c5), high), l.add(l.add(c6, c6), low));
        (c7, c8) = (l.add(l.add(c7, c7), high), l.add(l.add(c8, c8), low));
        product(l, &mut c0, &mut c1, a0, a0);
        product(l, &mut c2, &mut c3, a1, a1);
        product(l, &mut c4, &mut c5, a2, a2);
        product(l, &mut c6, &mut c7, a3, a3);
        product(l, &mut c8, &mut c9, a4, a4);
        fold(l, [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9])
    }

    /// The product, as a factor.
    #[inline(always)]
    pub(super) fn by(self, l: L, other: Self) -> Self {
        self.times(l, other).carry(l)
    }

    /// Squared `times` times.
    #[inline(always)]
    fn squarings(mut self, l: L, times: u32) -> Self {
        for _ in 0..times {
            self = self.squared(l).carry(l);
        }
        self
    }

    /// The inverse; zero for zero. (The addition chain for 2^255 − 21 of Bernstein's "Curve25519".)
    #[inline(always)]
    pub(super) fn inverse(self, l: L) -> Self {
        // The exponent is p − 2: by Fermat it gives the inverse, and zero for zero, without a branch.
        let a2 = self.squarings(l, 1);
        let a9 = a2.squarings(l, 2).by(l, self);
        let a11 = a9.by(l, a2);
        // bits_n: the power 2^n − 1.
        let bits_5 = a11.squarings(l, 1).by(l, a9);
        let bits_10 = bits_5.squarings(l, 5).by(l, bits_5);
        let bits_20 = bits_10.squarings(l, 10).by(l, bits_10);
        let bits_40 = bits_20.squarings(l, 20).by(l, bits_20);
        let bits_50 = bits_40.squarings(l, 10).by(l, bits_10);
        let bits_100 = bits_50.squarings(l, 50).by(l, bits_50);
        let bits_200 = bits_100.squarings(l, 100).by(l, bits_100);
        let bits_250 = bits_200.squarings(l, 50).by(l, bits_50);
        bits_250.squarings(l, 5).by(l, a11)
    }

    /// `yes` where the mask is set, else `no`.
    #[inline(always)]
    pub(super) fn select(l: L, mask: L::Mask, yes: Self, no: Self) -> Self {
        let ([a0, a1, a2, a3, a4], [b0, b1, b2, b3, b4]) = (yes.0, no.0);
        Self([
            l.select(mask, a0, b0),
            l.select(mask, a1, b1),
            l.select(mask, a2, b2),
            l.select(mask, a3, b3),
            l.select(mask, a4, b4),
        ])
    }
}

#[cfg(test)]
mod tests;
