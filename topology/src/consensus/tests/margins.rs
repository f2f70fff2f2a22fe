//! Networks that lose nodes: what is said before, and what documents they still have.

use super::*;

/// A world in which each layer is to have two mixes, and in which nodes of `lost` say no keys beyond an epoch.
fn losing(lost: &[u8], last: u64) -> World {
    let mut world = World::new(4);
    world.lost = lost.iter().map(|n| (*n, epoch(last))).collect();
    world.least = 2;
    (0..4).for_each(|n| {
        world.kill(n);
        world.start(n);
    });
    world
}

#[test]
fn a_document_that_misses_a_mix_asks_for_fewer_until_the_mix_is_back_and_it_is_said() {
    let mut world = losing(&[5], 6);
    world.run(70_000);
    world.check_documents(&[0, 1, 2, 3], 2..8);
    let least = |world: &World, epoch| {
        let document = world.document(0, epoch).unwrap();
        document.check().unwrap();
        (document.nodes.len(), document.parameters.min_mixes_per_layer)
    };
    // Its keys reach to epoch 6, so the document of epoch 4 is the last that lists it.
    assert_eq!((least(&world, 4), least(&world, 5)), ((8, 2), (7, 1)));
    let status = |world: &World| world.authorities[0].as_ref().unwrap().status();
    assert!(status(&world).is_short);
    assert!(status(&world).missing.is_empty(), "the document before lists it no more");
    let gone = Event::Missing(vec![(node(5, 0).body().identity, "operator 5".into())]);
    assert!(world.events[0].contains(&gone), "{:?}", world.events[0]);
    assert!(world.events[0].contains(&Event::Short { found: 1, asked: 2 }));
    world.lost.clear();
    (0..4).for_each(|n| world.handle(n, AuthorityInput::Descriptor(node(5, 9).encode())));
    world.run(20_000);
    assert_eq!(least(&world, 9), (8, 2));
    assert!(world.events[0].contains(&Event::Whole) && !status(&world).is_short);
}

#[test]
fn without_a_second_operator_of_gateways_there_is_no_document_and_the_missing_one_is_named() {
    let mut world = losing(&[1], 6);
    world.run(43_000);
    assert!(world.document(0, 4).is_some() && world.document(0, 5).is_none());
    let named = |event: &Event| match event {
        Event::None { why: NoDocument::Unsound(_), missing, .. } => *missing == ["operator 1"],
        _ => false,
    };
    assert!(world.events[0].iter().any(named), "{:?}", world.events[0]);
    let trouble = world.authorities[0].as_ref().unwrap().status().trouble.unwrap();
    assert!(trouble.contains("nothing is heard of nodes of operator 1"), "{trouble}");
    // It comes back within the life of the last document.
    world.lost.clear();
    (0..4).for_each(|n| world.handle(n, AuthorityInput::Descriptor(node(1, 9).encode())));
    world.run(20_000);
    world.check_documents(&[0, 1, 2, 3], [6, 7]);
}

#[test]
fn the_operators_that_cannot_be_missed_are_named_before_one_of_them_is() {
    // Two gateways, and six mixes for three layers of two: none can be missed. With one mix more, the gateways cannot.
    for (nodes, expected) in [(8, 8), (9, 2)] {
        let mut world = losing(&[], 0);
        world.nodes = nodes;
        (0..4).for_each(|n| {
            world.kill(n);
            world.start(n);
        });
        world.run(40_000);
        let critical = world.authorities[0].as_ref().unwrap().status().critical;
        assert_eq!(critical.len(), expected, "{critical:?}");
        assert!(critical.contains(&"operator 0".into()) && critical.contains(&"operator 1".into()));
        // Whoever has the document says the same of it.
        let documents = world.authorities[0].as_ref().unwrap().documents();
        let mut spares = crate::Spares::default();
        spares.follow(&documents.newest().unwrap().document);
        assert_eq!(spares.critical(), expected);
        assert!(spares.warning().is_some_and(|said| said.contains("operator 0, operator 1")));
        assert!(world.events[0].contains(&Event::Critical(critical)));
    }
}
