//! Paths: one mix of each layer, each combination as likely as any other, and all of different operators.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use shoal_topology::*;

use crate::world::*;

/// All ways to take one node of each set.
fn combinations(sets: &[Vec<usize>]) -> Vec<Vec<usize>> {
    sets.iter().fold(vec![vec![]], |paths, set| {
        let longer = |path: &Vec<usize>| {
            let path = path.clone();
            set.iter().map(move |node| [path.as_slice(), &[*node]].concat()).collect::<Vec<_>>()
        };
        paths.iter().flat_map(longer).collect()
    })
}

fn layers(document: &Document) -> Vec<Vec<usize>> {
    (1..=document.parameters.layers).map(|layer| document.in_layer(layer).collect()).collect()
}

/// From a mix of layer i the layers i + 1 to L, a gateway, the layers 1 to i - 1; from a gateway all layers.
fn loop_sets(document: &Document, start: usize) -> Vec<Vec<usize>> {
    let layers = layers(document);
    match usize::from(document.nodes[start].layers[0]) {
        0 => layers,
        own => {
            let gateways = vec![document.gateways().collect()];
            [&layers[own..], &gateways, &layers[..own - 1]].concat()
        }
    }
}

/// The value that χ² with this many degrees of freedom exceeds once in a thousand times (Wilson and Hilferty,
/// "The distribution of chi-square", 1931).
fn chi_square_limit(degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + 3.090 * spread.sqrt()).powi(3)
}

fn assert_uniform(sound: &[Vec<usize>], mut draw: impl FnMut() -> Vec<usize>) {
    const PER_PATH: usize = 400;
    assert!(sound.len() > 5, "the document is too small for a test");
    let mut counts: HashMap<&[usize], usize> =
        sound.iter().map(|path| (path.as_slice(), 0)).collect();
    for _ in 0..PER_PATH * sound.len() {
        *counts.get_mut(draw().as_slice()).expect("a drawn path goes layer by layer") += 1;
    }
    let expected = PER_PATH as f64;
    let chi_square: f64 =
        counts.values().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    let limit = chi_square_limit(sound.len() as f64 - 1.0);
    assert!(chi_square < limit, "χ² {chi_square:.1} over {limit:.1}, {} paths", sound.len());
}

/// Operators with several mixes, each in one layer, and layers of different sizes.
fn uneven() -> Document {
    document(&[
        vec![(0, 0), (1, 1), (1, 1)],
        vec![(2, 2), (2, 2), (3, 3), (4, 4)],
        vec![(5, 3), (6, 4)],
        vec![(7, 2), (7, 5), (8, 6)],
    ])
}

#[test]
fn all_paths_are_equally_likely() {
    let document = uneven();
    let paths = Paths::new(&document);
    let mut rng = Seed::from_u64(11).stream("paths");
    assert_uniform(&combinations(&layers(&document)), || paths.draw(&mut rng).unwrap());
}

#[test]
fn behind_a_given_first_hop_all_paths_are_equally_likely() {
    let document = uneven();
    let paths = Paths::new(&document);
    let layers = layers(&document);
    let mut rng = Seed::from_u64(12).stream("paths");
    for first in &layers[0] {
        let sets = [&[vec![*first]], &layers[1..]].concat();
        assert_uniform(&combinations(&sets), || paths.draw_after(&mut rng, *first).unwrap());
    }
    let elsewhere = layers[1..].concat().into_iter().chain(document.gateways());
    for first in elsewhere.chain([document.nodes.len()]) {
        assert_eq!(paths.draw_after(&mut rng, first), None);
    }
}

#[test]
fn the_first_hop_says_nothing_of_the_far_gateway() {
    // An operator with a gateway has no mix, so whoever draws can leave gateways out of sight: what is drawn for packets
    // between any two of them is one law. Before, its own mixes were missing from the paths of a gateway.
    const DRAWS: usize = 20_000;
    let document = uneven();
    let paths = Paths::new(&document);
    let mut rng = Seed::from_u64(13).stream("paths");
    let first_layer = &layers(&document)[0];
    let gateways = paths.gateways().to_vec();
    let mut counts: HashMap<(usize, usize), usize> = HashMap::new();
    for draw in 0..DRAWS {
        // To a far gateway in turn, as packets to several peers are.
        let far = gateways[draw % gateways.len()];
        let path = paths.draw(&mut rng).unwrap();
        *counts.entry((far, path[0])).or_default() += 1;
    }
    let of = |far: usize, first: usize| counts.get(&(far, first)).copied().unwrap_or(0) as f64;
    let mut chi_square = 0.0;
    for far in &gateways {
        let all: f64 = first_layer.iter().map(|first| of(*far, *first)).sum();
        let expected = all / first_layer.len() as f64;
        let part = |first: &usize| (of(*far, *first) - expected).powi(2) / expected;
        chi_square += first_layer.iter().map(part).sum::<f64>();
    }
    let limit = chi_square_limit((gateways.len() * (first_layer.len() - 1)) as f64);
    assert!(chi_square < limit, "χ² {chi_square:.1} over {limit:.1}");
}

#[test]
fn loops_of_a_node_are_equally_likely() {
    let document = uneven();
    let paths = Paths::new(&document);
    for start in 0..document.nodes.len() {
        let sets = loop_sets(&document, start);
        let mut rng = Seed::from_u64(14).stream("paths");
        assert_uniform(&combinations(&sets), || {
            let mut path = paths.draw_node_loop(&mut rng, start).unwrap();
            assert_eq!(path.pop(), Some(start), "a loop ends where it began");
            path
        });
    }
}

#[test]
fn a_loop_of_a_node_visits_the_layers_in_order() {
    let document = sound();
    let paths = Paths::new(&document);
    let mut rng = Seed::from_u64(15).stream("paths");
    for start in 0..document.nodes.len() {
        let path = paths.draw_node_loop(&mut rng, start).unwrap();
        let visited: Vec<u8> = path.iter().map(|index| document.nodes[*index].layers[0]).collect();
        let expected = match document.nodes[start].layers[0] {
            0 => [1, 2, 3, 0],
            1 => [2, 3, 0, 1],
            2 => [3, 0, 1, 2],
            _ => [0, 1, 2, 3],
        };
        assert_eq!(visited, expected);
        assert_eq!(path.last(), Some(&start));
    }
}

#[test]
fn gateways_of_one_operator_do_not_go_together() {
    let document = uneven();
    let paths = Paths::new(&document);
    let operator = |index: usize| &document.nodes[index].descriptor.body().operator;
    for entry in paths.gateways() {
        for exit in paths.gateways() {
            let apart = operator(*entry) != operator(*exit);
            assert_eq!(paths.compatible(*entry, *exit), apart);
        }
        assert!(
            !paths.compatible(*entry, document.nodes.len()),
            "who is not listed goes with none"
        );
    }
}

#[test]
fn the_same_seed_draws_the_same_paths() {
    let document = sound();
    let paths = Paths::new(&document);
    let draw = || {
        let mut rng = Seed::from_u64(17).stream("paths");
        (0..50).map(|_| paths.draw(&mut rng)).collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_drawn_path_goes_through_the_layers_and_each_that_exists_is_found(
        document in any_document(), seed: u64,
    ) {
        let paths = Paths::new(&document);
        let mut rng = Seed::from_u64(seed).stream("paths");
        let all = combinations(&layers(&document));
        prop_assert_eq!(paths.gateways(), document.gateways().collect::<Vec<_>>());
        for _ in 0..8 {
            match paths.draw(&mut rng) {
                Some(path) => prop_assert!(all.contains(&path)),
                None => prop_assert!(all.is_empty()),
            }
        }
        for start in 0..document.nodes.len() {
            let all = combinations(&loop_sets(&document, start));
            match paths.draw_node_loop(&mut rng, start) {
                Some(path) => {
                    prop_assert_eq!(path.last(), Some(&start));
                    prop_assert!(all.contains(&path[..path.len() - 1].to_vec()));
                }
                None => prop_assert!(all.is_empty()),
            }
        }
    }

    #[test]
    fn every_path_has_different_operators_by_construction(document in any_document(), seed: u64) {
        if document.check().is_ok() {
            let paths = Paths::new(&document);
            let mut rng = Seed::from_u64(seed).stream("paths");
            let body = |index: &usize| document.nodes[*index].descriptor.body();
            for path in combinations(&layers(&document)) {
                for gateway in paths.gateways() {
                    let hops: Vec<usize> = path.iter().copied().chain([*gateway]).collect();
                    let operators: HashSet<&str> =
                        hops.iter().map(|hop| body(hop).operator.as_str()).collect();
                    prop_assert_eq!(operators.len(), hops.len());
                }
                let laws: HashSet<&str> =
                    path.iter().map(|hop| body(hop).jurisdiction.as_str()).collect();
                prop_assert!(!document.parameters.distinct_jurisdictions || laws.len() == path.len());
            }
            prop_assert!(paths.draw(&mut rng).is_some());
        }
    }
}
