//! Every target on seeds, on what once failed, and on many mutations, always the same ones.

// Helpers fail as tests do.
#![allow(clippy::panic, clippy::indexing_slicing, clippy::print_stderr, clippy::expect_used)]

use std::panic::catch_unwind;
use std::path::Path;

use rand::{Rng, RngExt};
use shoal_fuzz::{TARGETS, Target, seeds};
use shoal_topology::Seed;

/// The longest input that is made, in bytes.
const LONGEST: usize = 8_192;

fn run(name: &str, target: Target, what: &str, input: &[u8]) {
    if catch_unwind(|| target(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} fails on {what}; keep it as a file in fuzz/corpus/{name}: {hex}");
    }
}

fn random(rng: &mut impl Rng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// One of the ways in which inputs go wrong.
fn mutate(rng: &mut impl Rng, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    const TELLING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'.'];
    let at = rng.random_range(0..input.len().max(1)).min(input.len());
    match rng.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = TELLING[rng.random_range(0..TELLING.len())],
        2 if at < input.len() => input[at] = rng.random(),
        3 => input.truncate(at),
        4 => {
            let some = random(rng, 40);
            input.splice(at..at, some);
        }
        5 => {
            let end = (at + rng.random_range(0..40)).min(input.len());
            input.drain(at..end);
        }
        6 => {
            let other = &others[rng.random_range(0..others.len())];
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = (at + rng.random_range(0..200)).min(input.len());
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
    }
    input.truncate(LONGEST);
}

fn fuzz(name: &str, cases: usize) {
    let (_, target) = *TARGETS.iter().find(|(n, _)| *n == name).expect("a target of this name");
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    run(name, target, "no bytes", &[]);
    for seed in &seeds {
        run(name, target, "a valid input", seed);
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    for file in std::fs::read_dir(corpus).into_iter().flatten().flatten() {
        let input = std::fs::read(file.path()).expect("a readable file of the corpus");
        run(name, target, "a file of its corpus", &input);
    }
    let mut rng = Seed::from_u64(cases as u64).stream(name);
    for case in 0..cases {
        let mut input = if case % 8 == 0 {
            random(&mut rng, LONGEST)
        } else {
            seeds[rng.random_range(0..seeds.len())].clone()
        };
        if case % 8 != 0 {
            for _ in 0..rng.random_range(1..5) {
                mutate(&mut rng, &mut input, &seeds);
            }
        }
        run(name, target, &format!("case {case}"), &input);
    }
}

macro_rules! targets {
    ($($name:ident: $cases:expr,)*) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name), $cases);
            }
        )*

        #[test]
        fn every_target_is_run_and_has_a_file_for_libfuzzer() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), run);
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let manifest = std::fs::read_to_string(here.join("cargo-fuzz/Cargo.toml"))
                .expect("the manifest of cargo-fuzz");
            for name in run {
                assert!(here.join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

// Fewer where a case costs signatures or scalar multiplications.
targets! {
    sphinx_frame: 5_000,
    surb_reply: 10_000,
    backends: 500,
    topology_document: 10_000,
    topology_body: 5_000,
    descriptors: 20_000,
    votes: 60,
    reports: 2_000,
    authority_inputs: 300,
    authority_liveness: 60,
    directory_entries: 1_000,
    organisation_words: 5_000,
    people_groups: 1_000,
    people_packets: 300,
    people_words: 10_000,
    control_words: 20_000,
    addresses: 20_000,
    socks_handshake: 20_000,
    requests: 20_000,
    tunnel_messages: 20_000,
}
