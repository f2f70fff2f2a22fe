//! Documents that the authorities signed and that are refused all the same.

use shoal_topology::*;

use crate::world::*;

/// The words with which a document is refused.
fn refused(change: impl FnOnce(&mut Document)) -> Error {
    let mut document = sound();
    change(&mut document);
    authorities(4).pass(&document).expect_err("the document breaks a rule")
}

fn says(error: &Error, words: &str) {
    let text = error.to_string();
    assert!(text.contains(words), "{text:?} does not say {words:?}");
}

/// Puts a changed and signed descriptor in the place of the first that fits.
fn change_node(
    document: &mut Document,
    role: Role,
    change: impl FnOnce(&mut NodeDescriptor, &mut u8),
) {
    let node = document.nodes.iter_mut().find(|node| node.descriptor.body().role == role).unwrap();
    let n = (0..100).find(|n| secret(*n).identity() == node.identity()).unwrap();
    let (secret, mut layer) = (bytes(n), node.layers[0]);
    let mut body = node.descriptor.body().clone();
    change(&mut body, &mut layer);
    *node = testing::TestNode { secret, layer, body }.listed();
}

#[test]
fn a_sound_document_is_accepted() {
    assert!(authorities(4).pass(&sound()).is_ok());
}

#[test]
fn a_document_of_another_network() {
    assert_eq!(
        refused(|d| d.network = "other".into()),
        Error::ForeignNetwork { expected: "test".into(), found: "other".into() }
    );
}

#[test]
fn a_document_for_trial_where_the_network_file_says_nothing_of_it_and_the_other_way_round() {
    let refused = refused(|d| d.parameters.trial = true);
    assert_eq!(refused, Error::OtherPurpose { document: true });
    says(&refused, "the network file says `trial = false`");
    let mut trial = authorities(4);
    trial.network.trial = true;
    assert_eq!(trial.pass(&sound()), Err(Error::OtherPurpose { document: false }));
    let mut document = sound();
    document.parameters.trial = true;
    assert!(trial.pass(&document).is_ok_and(|document| document.is_trial()));
}

#[test]
fn too_few_mixes_in_a_layer() {
    assert_eq!(
        refused(|d| d.parameters.min_mixes_per_layer = 3),
        Error::TooFewMixes { layer: 1, found: 2, needed: 3 }
    );
    assert_eq!(
        refused(|d| d.nodes.retain(|node| node.layers[0] != 2)),
        Error::TooFewMixes { layer: 2, found: 0, needed: 1 }
    );
    // A minimum of none still means one.
    assert_eq!(
        refused(|d| {
            d.parameters.min_mixes_per_layer = 0;
            d.nodes.retain(|node| node.layers[0] != 3);
        }),
        Error::TooFewMixes { layer: 3, found: 0, needed: 1 }
    );
}

/// The words with which a document of these operators and jurisdictions is refused.
fn broken(document: &Document) -> String {
    match authorities(4).pass(document) {
        Err(Error::Operators { why }) => why,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("a document that breaks the rule is accepted"),
    }
}

#[test]
fn a_mix_that_declares_too_low_a_rate_and_no_gateway_that_does() {
    let mut slow = sound();
    change_node(&mut slow, Role::Mix, |body, _| body.packets_per_s = 99);
    let error = authorities(4).pass(&slow).expect_err("a slow mix is listed");
    says(&error, "it declares 99 packets a second, and a mix must take 100");
    slow.parameters.min_packets_per_s = 99;
    assert!(authorities(4).pass(&slow).is_ok());
    let mut gateway = sound();
    change_node(&mut gateway, Role::Gateway, |body, _| body.packets_per_s = 1);
    assert!(authorities(4).pass(&gateway).is_ok());
}

#[test]
fn an_operator_with_mixes_in_two_layers() {
    let gateways = vec![(0, 0), (1, 1)];
    let why = broken(&document(&[
        gateways.clone(),
        vec![(2, 2), (5, 5)],
        vec![(3, 3), (6, 6)],
        vec![(4, 4), (5, 5)],
    ]));
    assert!(why.contains("operator \"operator 5\" has mixes in layers 1 and 3"), "{why}");
    // Several in one layer are welcome.
    let one = document(&[gateways, vec![(2, 2), (2, 2)], vec![(3, 3), (3, 3)], vec![(4, 4)]]);
    assert!(authorities(4).pass(&one).is_ok());
}

#[test]
fn an_operator_that_changes_layers_with_one_of_its_mixes() {
    // In the first epoch they stand together, in the last one of them is elsewhere.
    let mut moved =
        document(&[vec![(0, 0), (1, 1)], vec![(2, 2), (2, 2), (5, 5)], vec![(3, 3)], vec![(4, 4)]]);
    let of = |n: &&mut ListedNode| n.descriptor.body().operator == "operator 2";
    moved.nodes.iter_mut().find(of).unwrap().layers[2] = 3;
    assert!(broken(&moved).contains("layers 1 and 3"));
    moved.nodes.iter_mut().filter(|n| of(n)).for_each(|node| node.layers[2] = 3);
    assert!(authorities(4).pass(&moved).is_ok(), "together they may");
}

#[test]
fn an_operator_with_a_gateway_and_a_mix() {
    let why = broken(&document(&[vec![(0, 0), (1, 1)], vec![(2, 2)], vec![(1, 1)], vec![(4, 4)]]));
    assert!(why.contains("operator \"operator 1\" runs a gateway and a mix"), "{why}");
    assert!(why.contains("list its gateways or its mixes"), "{why}");
}

#[test]
fn gateways_of_one_operator_alone() {
    let mixes = [vec![(2, 2)], vec![(3, 3)], vec![(4, 4)]];
    for gateways in [vec![(0, 0)], vec![(0, 0), (0, 1)]] {
        let why = broken(&document(&[&[gateways], mixes.as_slice()].concat()));
        assert!(why.contains("of 1 operators ([\"operator 0\"]), 2 are needed"), "{why}");
    }
    // One that lost its standing is none.
    let mut demoted = document(&[&[vec![(0, 0), (1, 1)]], mixes.as_slice()].concat());
    assert!(authorities(4).pass(&demoted).is_ok());
    let gateway = demoted.gateways().next().unwrap();
    demoted.nodes[gateway].standing = Standing::Demoted;
    assert!(broken(&demoted).contains("2 are needed"));
}

#[test]
fn jurisdictions_count_where_the_network_says_so_and_only_there() {
    let four = authorities(4);
    let strict = |units: &[Vec<Unit>]| {
        let mut document = document(units);
        assert!(four.pass(&document).is_ok());
        document.parameters.distinct_jurisdictions = true;
        document
    };
    // All operators differ, but mixes under one law stand in two layers.
    let why =
        broken(&strict(&[vec![(0, 0), (1, 1)], vec![(2, 2)], vec![(3, 3), (5, 2)], vec![(4, 4)]]));
    assert!(why.contains("jurisdiction \"jurisdiction 2\" has mixes in layers 1 and 2"), "{why}");
    let why = broken(&strict(&[vec![(0, 0), (1, 1)], vec![(2, 2)], vec![(3, 2)], vec![(4, 4)]]));
    assert!(why.contains("under 2 jurisdictions, and 3 are needed"), "{why}");
    // Gateways may be under any law: they see one end, whoever rules there.
    let sound = [vec![(0, 2), (1, 2)], vec![(2, 2), (5, 2)], vec![(3, 3)], vec![(4, 4)]];
    assert!(four.pass(&strict(&sound)).is_ok());
}

#[test]
fn nodes_out_of_order_or_listed_twice() {
    says(&refused(|d| d.nodes.swap(0, 1)), "not ordered");
    says(
        &refused(|d| {
            let again = d.nodes[3].clone();
            d.nodes.insert(3, again);
        }),
        "listed twice",
    );
}

#[test]
fn a_key_of_small_order() {
    for key in [[0; 32], std::array::from_fn(|i| u8::from(i == 0))] {
        let error = refused(|d| change_node(d, Role::Mix, |node, _| node.keys[0].key = key));
        says(&error, "small order");
    }
}

#[test]
fn a_node_without_a_key_for_one_of_the_three_epochs() {
    // Epochs 5 to 7; the gap may be anywhere, the middle included.
    for missing in 5..=7 {
        let error = refused(|d| {
            change_node(d, Role::Gateway, |node, _| {
                let key = node.keys[0].key;
                let before = EpochKey { first: Epoch(0), last: Epoch(missing - 1), key };
                let behind = EpochKey { first: Epoch(missing + 1), last: Epoch(9), key };
                node.keys = vec![before, behind];
            });
        });
        says(&error, "lacks keys");
    }
}

#[test]
fn a_mix_in_no_layer_and_a_gateway_in_one() {
    let words = "a mix is in no layer, or a gateway in one";
    for wrong in [0, 4, 255] {
        says(&refused(|d| change_node(d, Role::Mix, |_, layer| *layer = wrong)), words);
    }
    for wrong in [1, 3, 4] {
        says(&refused(|d| change_node(d, Role::Gateway, |_, layer| *layer = wrong)), words);
    }
}

#[test]
fn a_descriptor_that_its_node_did_not_sign() {
    let error = refused(|d| {
        let mut forged = d.nodes[0].descriptor.body().clone();
        forged.operator = "somebody else".into();
        d.nodes[0].descriptor = Signed::<NodeDescriptor>::new(forged, &secret(77));
    });
    assert_eq!(error, Error::Signature { what: "node descriptor" });
}

#[test]
fn descriptors_with_values_out_of_bounds() {
    let node = |change: fn(&mut NodeDescriptor)| {
        refused(|d| change_node(d, Role::Mix, |node, _| change(node)))
    };
    says(&node(|n| n.addresses.clear()), "1 to 4 addresses");
    says(&node(|n| n.addresses = vec![n.addresses[0]; 5]), "1 to 4 addresses");
    says(&node(|n| n.keys.clear()), "1 to 8 keys");
    says(&node(|n| n.keys = vec![n.keys[0]; 9]), "1 to 8 keys");
    says(&node(|n| n.keys[0].first = Epoch(11)), "before its first");
    says(&node(|n| n.operator.clear()), "1 to 64 bytes");
    says(&node(|n| n.operator = "x".repeat(65)), "1 to 64 bytes");
    says(&node(|n| n.jurisdiction.clear()), "1 to 64 bytes");
}

#[test]
fn an_exit_that_is_listed_twice_carries_more_or_did_not_sign() {
    let exit = |n: u64, signer: u64| {
        let body = testing::TestClient::new(bytes(n), &[secret(0).identity()]).body;
        Signed::<ClientDescriptor>::new(body, &secret(signer))
    };
    says(&refused(|d| d.exits = vec![exit(50, 50), exit(50, 50)]), "an exit is listed twice");
    let body = exit(50, 50).body().clone();
    let more = ClientDescriptor { attached: vec![1], ..body };
    let more = Signed::<ClientDescriptor>::new(more, &secret(50));
    says(&refused(|d| d.exits = vec![more.clone()]), "bytes that are for nobody");
    assert_eq!(
        refused(|d| d.exits = vec![exit(50, 51)]),
        Error::Signature { what: "client descriptor" }
    );
}

#[test]
fn parameters_out_of_bounds() {
    let refused = |change: fn(&mut Parameters)| refused(|d| change(&mut d.parameters));
    says(&refused(|p| p.layers = 0), "1 to 3 layers");
    says(&refused(|p| p.layers = 4), "1 to 3 layers");
    says(&refused(|p| p.node_loops_per_s = f64::NAN), "rate of loops");
    says(&refused(|p| p.node_loops_per_s = -1.0), "rate of loops");
    says(&refused(|p| p.max_delay_us = 0), "longest delay");
    says(&refused(|p| p.max_delay_us = 600_000_001), "longest delay");
    says(&refused(|p| p.classes.clear()), "1 to 64 classes");
    says(&refused(|p| p.classes = vec![p.classes[0].clone(); 65]), "1 to 64 classes");
    says(&refused(|p| p.classes.push(p.classes[0].clone())), "same name");
    says(&refused(|p| p.classes[0].delay.exponential_us = p.max_delay_us + 1), "no node grants");
    says(&refused(|p| p.classes[0].delay.uniform_us = 6_000_000), "no node grants");
    let phase = "keep the phase of the slots";
    says(&refused(|p| p.classes[1].delay.uniform_us = 0), phase);
    says(&refused(|p| p.classes[1].delay.uniform_us = 39_000), phase);
    says(&refused(|p| p.classes[1].delay.uniform_us = 60_000), phase);
    says(&refused(|p| p.classes[1].weight = f64::NAN), "the weight");
    for wrong in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e9] {
        let class = |change: fn(&mut Class, f64)| {
            let mut document = sound();
            change(&mut document.parameters.classes[1], wrong);
            authorities(4).pass(&document).expect_err("a rate out of bounds")
        };
        says(&class(|c, rate| c.payload_per_s = rate), "class call");
        says(&class(|c, rate| c.loops_per_s = rate), "class call");
        says(&class(|c, rate| c.down_per_s = rate), "class call");
    }
    says(&refused(|p| p.classes[0].loop_share = 1.01), "between 0 and 1");
    says(&refused(|p| p.classes[0].loop_share = f64::NAN), "between 0 and 1");
    says(&refused(|p| p.classes[0].loops_per_s = p.classes[0].down_per_s), "must exceed");
    says(&refused(|p| p.classes[0].name = String::new()), "1 to 32 bytes");
}

#[test]
fn an_epoch_without_length() {
    says(&refused(|d| d.epoch_s = 0), "");
    assert!(sound().check().is_ok());
    let empty = Document { epoch_s: 0, ..sound() };
    says(&empty.check().unwrap_err(), "no length");
}

#[test]
fn more_bytes_than_a_document_may_have() {
    let four = authorities(4);
    let bytes = vec![0; MAX_DOCUMENT_LEN + 1];
    assert_eq!(
        SignedDocument::verify(&bytes, &four.network, BEGINS),
        Err(Error::TooLong {
            what: "topology document",
            len: MAX_DOCUMENT_LEN + 1,
            max: MAX_DOCUMENT_LEN
        })
    );
}
