//! X25519 (RFC 7748), and the secrets that a sender shares with each hop of a path.

use curve25519_dalek::{MontgomeryPoint, Scalar};
use subtle::{ConditionallySelectable, ConstantTimeLess};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::PublicKey;

/// The coordinate u of the base point.
pub(crate) const BASE_POINT: [u8; 32] = {
    let mut u = [0; 32];
    u[0] = 9;
    u
};

/// Multiplies the point `u` by `scalar`, clamped. All zero if the point has small order. What it leaves on the stack is
/// the caller's to wipe, once for many.
#[inline(never)]
pub(crate) fn multiply(scalar: &[u8; 32], u: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if has_graviola() {
        use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
        let secret = StaticPrivateKey::from_array(scalar);
        let shared = secret.diffie_hellman(&PublicKey::from_array(u));
        return Zeroizing::new(shared.map_or([0; 32], |shared| shared.0));
    }
    Zeroizing::new(MontgomeryPoint(*u).mul_clamped(*scalar).to_bytes())
}

/// Multiplies the base point by `scalar`, clamped. For the stack see [`multiply`].
#[inline(never)]
pub(crate) fn multiply_base(scalar: &[u8; 32]) -> [u8; 32] {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if has_graviola() {
        use graviola::key_agreement::x25519::StaticPrivateKey;
        return StaticPrivateKey::from_array(scalar).public_key().as_bytes();
    }
    MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
}

/// True if the CPU has every feature without which graviola panics.
#[cfg(target_arch = "x86_64")]
fn has_graviola() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes")
        && has!("pclmulqdq")
        && has!("bmi1")
        && has!("bmi2")
        && has!("adx")
        && has!("avx")
        && has!("avx2")
}

/// True if the CPU has every feature without which graviola panics.
#[cfg(target_arch = "aarch64")]
fn has_graviola() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}

/// True if `u` is the coordinate of a point on the curve, and not on its twist.
pub(crate) fn is_on_curve(u: &[u8; 32]) -> bool {
    MontgomeryPoint(*u).to_edwards(0).is_some()
}

/// 8ℓ, for ℓ the prime order of the base point: the order of every point on the curve divides it.
const EIGHT_L: [u64; 4] =
    [0xc09318d2e7ae9f68, 0xa6f7cef517bce6b2, 0x0000000000000000, 0x8000000000000000];

/// A product of clamped scalars, as one scalar.
///
/// The multiples of a point on the curve by two scalars are the same point if the scalars are equal modulo 8ℓ, and
/// points of the same coordinate u if they are opposite. Clamped scalars are multiples of 8, so their product is
/// kept as its eighth modulo ℓ. None of them is a multiple of ℓ (an eighth of one is below ℓ, and not zero), so
/// neither is the product. The points of the twist have another order: their secrets go by the long way.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Product {
    eighth: Scalar,
}

impl Product {
    fn new(secret: &[u8; 32]) -> Self {
        let clamped = Zeroizing::new(clamp(secret));
        let s = Zeroizing::new(limbs(&clamped));
        let [a, b, c, d] = &*s;
        let eighth = Zeroizing::new([a >> 3 | b << 61, b >> 3 | c << 61, c >> 3 | d << 61, d >> 3]);
        let eighth = Zeroizing::new(bytes(&eighth));
        Self { eighth: Scalar::from_bytes_mod_order(*eighth) }
    }

    fn multiply(&mut self, factor: &[u8; 32]) {
        let clamped = Zeroizing::new(clamp(factor));
        self.eighth *= Scalar::from_bytes_mod_order(*clamped);
    }

    /// The scalar t = ±s modulo 8ℓ that clamping leaves as it is: 2^254 <= t < 2^255. `None` if neither of the two
    /// lies there: once in 2^127 products.
    fn clamped(&self) -> Option<Zeroizing<[u8; 32]>> {
        let e = Zeroizing::new(limbs(self.eighth.as_bytes()));
        let [a, b, c, d] = &*e;
        let mut s = Zeroizing::new([a << 3, b << 3 | a >> 61, c << 3 | b >> 61, d << 3 | c >> 61]);
        let mut opposite = Zeroizing::new([0; 4]);
        let mut borrow = false;
        for ((opposite, order), s) in opposite.iter_mut().zip(EIGHT_L).zip(s.iter()) {
            (*opposite, borrow) = order.borrowing_sub(*s, borrow);
        }
        let [.., top] = &*s;
        let is_low = top.ct_lt(&(1 << 62));
        for (s, opposite) in s.iter_mut().zip(opposite.iter()) {
            s.conditional_assign(opposite, is_low);
        }
        let [.., top] = &*s;
        (top >> 62 == 1).then(|| Zeroizing::new(bytes(&s)))
    }
}

/// The secret shared with the next hop of a path, and so on: x·b₁·…·bᵢ times the hop's key, for the sender's secret
/// x and the factors b by which the hops before blind the packet's point.
pub(crate) struct Sender {
    product: Product,
    /// The scalars whose product it is.
    factors: Zeroizing<Vec<[u8; 32]>>,
}

impl Sender {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        // Room for all, so that none is left behind by a move.
        let mut factors = Zeroizing::new(Vec::with_capacity(crate::MAX_HOPS));
        factors.push(*secret);
        Self { product: Product::new(secret), factors }
    }

    /// The scalar by which to multiply a hop's key for the shared secret, given that all factors before the hop are
    /// in. `None` where no one scalar does: then go [the long way](Self::share_by_the_long_way).
    pub(crate) fn scalar(&self, hop: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        self.product.clamped().filter(|_| hop.is_on_curve())
    }

    /// The shared secret by one multiplication for each factor, as whoever opens the packet does them.
    pub(crate) fn share_by_the_long_way(&self, hop: &PublicKey) -> Zeroizing<[u8; 32]> {
        let start = Zeroizing::new(*hop.as_bytes());
        self.factors.iter().fold(start, |point, factor| multiply(factor, &point))
    }

    #[cfg(test)]
    pub(crate) fn share(&self, hop: &PublicKey) -> Zeroizing<[u8; 32]> {
        match self.scalar(hop) {
            Some(scalar) => multiply(&scalar, hop.as_bytes()),
            None => self.share_by_the_long_way(hop),
        }
    }

    /// The hop blinds by this.
    pub(crate) fn blind(&mut self, factor: &[u8; 32]) {
        self.product.multiply(factor);
        self.factors.push(*factor);
    }
}

fn clamp(secret: &[u8; 32]) -> [u8; 32] {
    curve25519_dalek::scalar::clamp_integer(*secret)
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks().0) {
        *limb = u64::from_le_bytes(*bytes);
    }
    limbs
}

fn bytes(limbs: &[u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, limb) in bytes.as_chunks_mut().0.iter_mut().zip(limbs) {
        *bytes = limb.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dalek(scalar: &[u8; 32], u: &[u8; 32]) -> [u8; 32] {
        MontgomeryPoint(*u).mul_clamped(*scalar).to_bytes()
    }

    fn hex(digits: &str) -> [u8; 32] {
        let digits = digits.as_bytes().as_chunks::<2>().0;
        let byte = |d: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap();
        digits.iter().map(byte).collect::<Vec<_>>().try_into().unwrap()
    }

    /// RFC 7748, section 5.2.
    fn iterated(times: u32) -> [u8; 32] {
        let (mut k, mut u) = (BASE_POINT, BASE_POINT);
        for _ in 0..times {
            (k, u) = (*multiply(&k, &u), k);
        }
        k
    }

    #[test]
    fn the_vectors_of_rfc_7748_hold() {
        for (scalar, u, product) in [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ] {
            assert_eq!(*multiply(&hex(scalar), &hex(u)), hex(product));
            assert_eq!(dalek(&hex(scalar), &hex(u)), hex(product));
        }
        let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(iterated(1000), hex(thousand));
    }

    /// Where `clamped` decides: products close to 0, 2^254, 2^255 and 8ℓ.
    #[test]
    fn a_product_at_the_edges_is_right_or_refused() {
        let eighth = |limbs: [u64; 4]| {
            let scalar = Scalar::from_canonical_bytes(bytes(&limbs)).unwrap();
            Product { eighth: scalar }
        };
        let base = BASE_POINT;
        let l = [0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 1 << 60];
        let is = [
            ([1, 0, 0, 0], false),
            // 8ℓ − 8e < 2^255 for e > δ = ℓ − 2^252 alone.
            ([l[0], l[1], 0, 0], false),
            ([l[0] + 1, l[1], 0, 0], true),
            ([u64::MAX, u64::MAX, u64::MAX, (1 << 59) - 1], true),
            ([0, 0, 0, 1 << 59], true),
            ([u64::MAX, u64::MAX, u64::MAX, (1 << 60) - 1], true),
            ([0, 0, 0, 1 << 60], false),
            ([l[0] - 1, l[1], l[2], l[3]], false),
        ];
        for (limbs, lies_between) in is {
            let product = eighth(limbs);
            let clamped = product.clamped();
            assert_eq!(clamped.is_some(), lies_between, "{limbs:x?}");
            let Some(clamped) = clamped else { continue };
            assert_eq!(*clamped, clamp(&clamped), "{limbs:x?}");
            let eight = Scalar::from(8_u8);
            let expected = MontgomeryPoint(base) * (eight * product.eighth);
            assert_eq!(*multiply(&clamped, &base), expected.to_bytes(), "{limbs:x?}");
        }
    }

    #[test]
    fn coordinates_and_scalars_at_the_edges_are_those_of_dalek() {
        let ends = |first: u8, between: u8, last: u8| {
            let mut bytes = [between; 32];
            (bytes[0], bytes[31]) = (first, last);
            bytes
        };
        let mut points = vec![BASE_POINT, ends(2, 0, 0), ends(0xff, 0xff, 0xff)];
        // 0, 1, p − 1, p, p + 1, 2^255 − 1, each with the bit that does not count.
        for high in [0, 0x80] {
            points.extend([ends(0, 0, high), ends(1, 0, high)]);
            points.extend([0xec, 0xed, 0xee, 0xff].map(|first| ends(first, 0xff, 0x7f | high)));
        }
        let scalars = [ends(0, 0, 0), ends(0xff, 0xff, 0xff), ends(1, 0, 0), ends(0, 0, 0x80)];
        for u in points {
            for scalar in scalars {
                assert_eq!(*multiply(&scalar, &u), dalek(&scalar, &u), "{scalar:x?} {u:x?}");
            }
        }
        assert!(is_on_curve(&BASE_POINT) && !is_on_curve(&ends(2, 0, 0)));
    }

    #[test]
    fn the_short_way_is_taken_for_every_key_that_a_secret_key_has() {
        for n in 0..100 {
            let (secret, hop) = ([n; 32], crate::SecretKey::from_bytes([n + 100; 32]).public());
            assert!(hop.is_on_curve() && is_on_curve(hop.as_bytes()));
            let mut sender = Sender::new(&secret);
            for factor in 0..4 {
                assert!(sender.product.clamped().is_some());
                sender.blind(&[factor; 32]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn multiplication_is_that_of_dalek(scalar: [u8; 32], u: [u8; 32]) {
            prop_assert_eq!(*multiply(&scalar, &u), dalek(&scalar, &u));
            prop_assert_eq!(multiply_base(&scalar), dalek(&scalar, &BASE_POINT));
        }

        /// Random coordinates: half of them on the twist, the others mostly outside of the prime subgroup.
        #[test]
        fn both_ways_to_a_shared_secret_are_equal(u: [u8; 32], factors: [[u8; 32]; 5]) {
            let [secret, factors @ ..] = factors;
            let hop = PublicKey::from_bytes(u).unwrap();
            let mut sender = Sender::new(&secret);
            for factor in factors {
                let (short, long) = (sender.share(&hop), sender.share_by_the_long_way(&hop));
                prop_assert_eq!(*short, *long);
                sender.blind(&factor);
            }
        }
    }
}
