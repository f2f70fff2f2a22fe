//! Eight lanes of 64 bits, and products of numbers below 2^52 in them.

/// What the field is computed with. A value of such a type proves that the CPU can do it.
///
/// All methods are inlined into the one function that has the CPU's features enabled.
pub(super) trait Lanes: Copy {
    /// Eight words of 64 bits. Sums wrap.
    type Word: Copy;
    /// Eight numbers below 2^52, ready to be multiplied.
    type Factor: Copy;
    /// A bit for each lane.
    type Mask: Copy;

    fn load(self, words: &[u64; 8]) -> Self::Word;
    fn store(self, word: Self::Word) -> [u64; 8];
    fn splat(self, value: u64) -> Self::Word;
    fn add(self, a: Self::Word, b: Self::Word) -> Self::Word;
    fn sub(self, a: Self::Word, b: Self::Word) -> Self::Word;
    fn and(self, a: Self::Word, b: Self::Word) -> Self::Word;
    fn or(self, a: Self::Word, b: Self::Word) -> Self::Word;
    fn left<const N: u32>(self, a: Self::Word) -> Self::Word;
    fn right<const N: u32>(self, a: Self::Word) -> Self::Word;
    /// The products of numbers below 2^32.
    fn times(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// Where `a` has one of the bits of `b`.
    fn test(self, a: Self::Word, b: Self::Word) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::Factor, no: Self::Factor) -> Self::Factor;

    /// A factor made of the low 52 bits.
    fn factor(self, a: Self::Word) -> Self::Factor;
    /// The accumulator of the low halves of `low` products and the high halves of `high` ones, while it is empty.
    fn start(self, low: u64, high: u64) -> Self::Word;
    /// Adds the low and the high 52 bits of the product to their accumulators.
    fn multiply(
        self,
        low: Self::Word,
        high: Self::Word,
        a: Self::Factor,
        b: Self::Factor,
    ) -> (Self::Word, Self::Word);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Doubles, Ifma};

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions, behind types that prove them")]
mod x86 {
    use std::arch::is_x86_feature_detected as has;
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX-512 with its instructions for products of 52 bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Ifma(());

    /// AVX-512 without them: the halves of a product come from two fused multiply-adds of doubles.
    ///
    /// For integers a, b below 2^52, rounding ab + 2^104 towards zero leaves ⌊ab / 2^52⌋ in the 52 bits of the
    /// mantissa; ab less that, plus 2^52, has the low half there, exactly. So the bits of both, as integers, are the
    /// halves plus the bits of 2^104 and 2^52: accumulators start below zero by as much. No operand is subnormal.
    /// (Emmart, Zheng, Weems, "Faster modular exponentiation using double precision floating point arithmetic on
    /// the GPU", ARITH 2018.)
    #[derive(Clone, Copy)]
    pub(crate) struct Doubles(());

    impl Ifma {
        /// `None` on a CPU without.
        pub(crate) fn new() -> Option<Self> {
            (Doubles::new().is_some() && has!("avx512ifma")).then_some(Self(()))
        }
    }

    impl Doubles {
        /// `None` on a CPU without.
        pub(crate) fn new() -> Option<Self> {
            let all = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
            all.then_some(Self(()))
        }
    }

    const MASK: i64 = (1 << 52) - 1;
    const TWO_52: f64 = (1_u64 << 52) as f64;
    const TWO_104: f64 = TWO_52 * TWO_52;

    /// What does not depend on how products are made.
    macro_rules! common {
        () => {
            type Word = __m512i;
            type Mask = __mmask8;

            #[inline(always)]
            fn load(self, words: &[u64; 8]) -> __m512i {
                // SAFETY: `self` proves AVX-512F; 64 bytes are readable there.
                unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
            }

            #[inline(always)]
            fn store(self, word: __m512i) -> [u64; 8] {
                let mut words = [0; 8];
                // SAFETY: `self` proves AVX-512F; 64 bytes are writable there.
                unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), word) };
                words
            }

            #[inline(always)]
            fn splat(self, value: u64) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_set1_epi64(value.cast_signed()) }
            }

            #[inline(always)]
            fn add(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_add_epi64(a, b) }
            }

            #[inline(always)]
            fn sub(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_sub_epi64(a, b) }
            }

            #[inline(always)]
            fn and(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_and_si512(a, b) }
            }

            #[inline(always)]
            fn or(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_or_si512(a, b) }
            }

            #[inline(always)]
            fn left<const N: u32>(self, a: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_slli_epi64::<N>(a) }
            }

            #[inline(always)]
            fn right<const N: u32>(self, a: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_srli_epi64::<N>(a) }
            }

            #[inline(always)]
            fn times(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_mul_epu32(a, b) }
            }

            #[inline(always)]
            fn test(self, a: __m512i, b: __m512i) -> __mmask8 {
                // SAFETY: `self` proves AVX-512F.
                unsafe { _mm512_test_epi64_mask(a, b) }
            }
        };
    }

    impl Lanes for Ifma {
        common!();
        type Factor = __m512i;

        #[inline(always)]
        fn select(self, mask: __mmask8, yes: __m512i, no: __m512i) -> __m512i {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_mask_blend_epi64(mask, no, yes) }
        }

        /// The instructions do not look at the upper bits.
        #[inline(always)]
        fn factor(self, a: __m512i) -> __m512i {
            a
        }

        #[inline(always)]
        fn start(self, _: u64, _: u64) -> __m512i {
            self.splat(0)
        }

        #[inline(always)]
        fn multiply(
            self,
            low: __m512i,
            high: __m512i,
            a: __m512i,
            b: __m512i,
        ) -> (__m512i, __m512i) {
            // SAFETY: `self` proves AVX-512F and IFMA.
            unsafe { (_mm512_madd52lo_epu64(low, a, b), _mm512_madd52hi_epu64(high, a, b)) }
        }
    }

    impl Lanes for Doubles {
        common!();
        type Factor = __m512d;

        #[inline(always)]
        fn select(self, mask: __mmask8, yes: __m512d, no: __m512d) -> __m512d {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_mask_blend_pd(mask, no, yes) }
        }

        #[inline(always)]
        fn factor(self, a: __m512i) -> __m512d {
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                let bias = _mm512_set1_pd(TWO_52);
                // a & mask | bias
                let masked = _mm512_ternarylogic_epi64::<0xea>(
                    a,
                    _mm512_set1_epi64(MASK),
                    _mm512_castpd_si512(bias),
                );
                _mm512_sub_pd(_mm512_castsi512_pd(masked), bias)
            }
        }

        #[inline(always)]
        fn start(self, low: u64, high: u64) -> __m512i {
            let (low, high) =
                (low.wrapping_mul(TWO_52.to_bits()), high.wrapping_mul(TWO_104.to_bits()));
            self.splat(low.wrapping_add(high).wrapping_neg())
        }

        #[inline(always)]
        fn multiply(
            self,
            low: __m512i,
            high: __m512i,
            a: __m512d,
            b: __m512d,
        ) -> (__m512i, __m512i) {
            const ROUNDING: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                let upper = _mm512_fmadd_round_pd::<ROUNDING>(a, b, _mm512_set1_pd(TWO_104));
                let rest = _mm512_sub_pd(_mm512_set1_pd(TWO_104 + TWO_52), upper);
                let lower = _mm512_fmadd_round_pd::<ROUNDING>(a, b, rest);
                (
                    _mm512_add_epi64(low, _mm512_castpd_si512(lower)),
                    _mm512_add_epi64(high, _mm512_castpd_si512(upper)),
                )
            }
        }
    }
}

/// The same in plain integers, as a judge for the others; fails where a sum would wrap.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[cfg(test)]
impl Lanes for Plain {
    type Word = [u64; 8];
    type Factor = [u64; 8];
    type Mask = [bool; 8];

    fn load(self, words: &[u64; 8]) -> [u64; 8] {
        *words
    }

    fn store(self, word: [u64; 8]) -> [u64; 8] {
        word
    }

    fn splat(self, value: u64) -> [u64; 8] {
        [value; 8]
    }

    fn add(self, a: [u64; 8], b: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| a[i].checked_add(b[i]).unwrap())
    }

    fn sub(self, a: [u64; 8], b: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| a[i].checked_sub(b[i]).unwrap())
    }

    fn and(self, a: [u64; 8], b: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| a[i] & b[i])
    }

    fn or(self, a: [u64; 8], b: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    fn left<const N: u32>(self, a: [u64; 8]) -> [u64; 8] {
        a.map(|a| a << N)
    }

    fn right<const N: u32>(self, a: [u64; 8]) -> [u64; 8] {
        a.map(|a| a >> N)
    }

    fn times(self, a: [u64; 8], b: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| {
            let factor = |factor: u64| u64::from(u32::try_from(factor).unwrap());
            factor(a[i]) * factor(b[i])
        })
    }

    fn test(self, a: [u64; 8], b: [u64; 8]) -> [bool; 8] {
        std::array::from_fn(|i| a[i] & b[i] != 0)
    }

    fn select(self, mask: [bool; 8], yes: [u64; 8], no: [u64; 8]) -> [u64; 8] {
        std::array::from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }

    fn factor(self, a: [u64; 8]) -> [u64; 8] {
        a
    }

    fn start(self, _: u64, _: u64) -> [u64; 8] {
        [0; 8]
    }

    fn multiply(
        self,
        low: [u64; 8],
        high: [u64; 8],
        a: [u64; 8],
        b: [u64; 8],
    ) -> ([u64; 8], [u64; 8]) {
        let mask = (1 << 52) - 1;
        let product = |i: usize| u128::from(a[i] & mask) * u128::from(b[i] & mask);
        let half = |shift: u32| std::array::from_fn(|i| (product(i) >> shift) as u64 & mask);
        (self.add(low, half(0)), self.add(high, half(52)))
    }
}
