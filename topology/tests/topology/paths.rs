//! Paths: the rules hold for all of them, and each is as likely as any other.

use std::collections::HashMap;

use proptest::prelude::*;
use shoal_topology::*;

use crate::world::*;

/// Whether all nodes differ in operator and, where asked, in jurisdiction.
fn keeps_the_rules(document: &Document, nodes: &[usize]) -> bool {
    let distinct = |name: fn(&NodeDescriptor) -> &String| {
        let mut names: Vec<_> =
            nodes.iter().map(|node| name(document.nodes[*node].descriptor.body())).collect();
        names.sort();
        names.windows(2).all(|pair| pair[0] != pair[1])
    };
    distinct(|node| &node.operator)
        && (!document.parameters.distinct_jurisdictions || distinct(|node| &node.jurisdiction))
}

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

fn sound_paths(document: &Document, ends: &[usize], sets: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let sound = |path: &Vec<usize>| keeps_the_rules(document, &[ends, path.as_slice()].concat());
    combinations(sets).into_iter().filter(sound).collect()
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
        *counts.get_mut(draw().as_slice()).expect("a drawn path keeps the rules") += 1;
    }
    let expected = PER_PATH as f64;
    let chi_square: f64 =
        counts.values().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    let limit = chi_square_limit(sound.len() as f64 - 1.0);
    assert!(chi_square < limit, "χ² {chi_square:.1} over {limit:.1}, {} paths", sound.len());
}

/// Operators that run nodes in several layers, so that sound paths are no product of layers; one runs a gateway
/// and mixes, so that a loop's gateway and its mixes depend on each other.
fn tangled() -> Document {
    document(&[
        vec![(0, 0), (1, 1), (2, 2)],
        vec![(2, 2), (3, 3), (4, 4)],
        vec![(3, 3), (4, 5), (5, 5)],
        vec![(2, 2), (5, 6), (6, 6), (6, 6)],
    ])
}

fn gateway_of(document: &Document, operator: u8) -> usize {
    let name = format!("operator {operator}");
    document
        .gateways()
        .find(|place| document.nodes[*place].descriptor.body().operator == name)
        .unwrap()
}

#[test]
fn paths_between_two_gateways_are_equally_likely() {
    let document = tangled();
    let paths = Paths::new(&document);
    let (entry, exit) = (gateway_of(&document, 0), gateway_of(&document, 1));
    let mut rng = Seed::from_u64(11).stream("paths");
    let sound = sound_paths(&document, &[entry, exit], &layers(&document));
    assert_uniform(&sound, || paths.draw(&mut rng, entry, exit).unwrap());
}

#[test]
fn loops_of_a_client_are_equally_likely() {
    let document = tangled();
    let paths = Paths::new(&document);
    let own = gateway_of(&document, 1);
    let mut rng = Seed::from_u64(12).stream("paths");
    let sound = sound_paths(&document, &[own], &layers(&document));
    assert_uniform(&sound, || paths.draw(&mut rng, own, own).unwrap());
}

#[test]
fn loops_of_a_node_are_equally_likely() {
    let document = tangled();
    let paths = Paths::new(&document);
    for start in 0..document.nodes.len() {
        let sets = loop_sets(&document, start);
        let sound = sound_paths(&document, &[start], &sets);
        if sound.len() > 5 {
            let mut rng = Seed::from_u64(13).stream("paths");
            assert_uniform(&sound, || {
                let mut path = paths.draw_node_loop(&mut rng, start).unwrap();
                assert_eq!(path.pop(), Some(start), "a loop ends where it began");
                path
            });
        }
    }
}

#[test]
fn a_loop_of_a_node_visits_the_layers_in_order() {
    let document = sound();
    let paths = Paths::new(&document);
    let mut rng = Seed::from_u64(14).stream("paths");
    for start in 0..document.nodes.len() {
        let path = paths.draw_node_loop(&mut rng, start).unwrap();
        let visited: Vec<u8> = path.iter().map(|place| document.nodes[*place].layers[0]).collect();
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
fn a_rare_path_is_found() {
    // One sound path among thousands: forty mixes a layer, all but one of each in the gateways' hands.
    let crowd = |own: u8| [vec![(0, 0); 39], vec![(own, own)]].concat();
    let document = document(&[vec![(0, 0), (1, 1)], crowd(2), crowd(3), crowd(4)]);
    let paths = Paths::new(&document);
    let (entry, exit) = (gateway_of(&document, 0), gateway_of(&document, 1));
    let mut rng = Seed::from_u64(15).stream("paths");
    let path = paths.draw(&mut rng, entry, exit).unwrap();
    assert!(keeps_the_rules(&document, &[&[entry, exit], path.as_slice()].concat()));
}

#[test]
fn a_gateway_of_the_same_operator_is_joined_by_no_path() {
    let document =
        document(&[vec![(0, 0), (0, 1), (1, 2)], vec![(2, 3)], vec![(3, 4)], vec![(4, 5)]]);
    let paths = Paths::new(&document);
    let gateways: Vec<usize> = document.gateways().collect();
    let mut rng = Seed::from_u64(16).stream("paths");
    for entry in &gateways {
        for exit in &gateways {
            let sound = entry == exit || keeps_the_rules(&document, &[*entry, *exit]);
            assert_eq!(paths.draw(&mut rng, *entry, *exit).is_some(), sound);
            assert_eq!(paths.compatible(*entry, *exit), sound && entry != exit);
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_paths() {
    let document = sound();
    let paths = Paths::new(&document);
    let gateways: Vec<usize> = document.gateways().collect();
    let draw = || {
        let mut rng = Seed::from_u64(17).stream("paths");
        (0..50).map(|_| paths.draw(&mut rng, gateways[0], gateways[1])).collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_drawn_path_keeps_the_rules_and_none_is_missed(document in any_document(), seed: u64) {
        let paths = Paths::new(&document);
        let mut rng = Seed::from_u64(seed).stream("paths");
        let gateways: Vec<usize> = document.gateways().collect();
        let sets = layers(&document);
        let mut drawable = true;
        let mut pairs = 0;
        for entry in &gateways {
            for exit in &gateways {
                let ends = if entry == exit { vec![*entry] } else { vec![*entry, *exit] };
                let sound = sound_paths(&document, &ends, &sets);
                if entry != exit && keeps_the_rules(&document, &ends) {
                    pairs += 1;
                    drawable &= !sound.is_empty();
                }
                drawable &= entry != exit || !sound.is_empty();
                for _ in 0..4 {
                    match paths.draw(&mut rng, *entry, *exit) {
                        Some(path) => prop_assert!(sound.contains(&path)),
                        None => prop_assert!(sound.is_empty()),
                    }
                }
            }
        }
        // The check of a document and the draws agree on what can be drawn.
        let unsatisfiable = matches!(document.check(), Err(Error::Unsatisfiable { .. }));
        prop_assert_eq!(unsatisfiable, !drawable || pairs == 0);
    }

    #[test]
    fn every_loop_of_a_node_keeps_the_rules_and_none_is_missed(document in any_document(), seed: u64) {
        let paths = Paths::new(&document);
        let mut rng = Seed::from_u64(seed).stream("paths");
        for start in 0..document.nodes.len() {
            let sound = sound_paths(&document, &[start], &loop_sets(&document, start));
            match paths.draw_node_loop(&mut rng, start) {
                Some(path) => {
                    prop_assert_eq!(path.last(), Some(&start));
                    prop_assert!(sound.contains(&path[..path.len() - 1].to_vec()));
                }
                None => prop_assert!(sound.is_empty()),
            }
        }
    }
}
