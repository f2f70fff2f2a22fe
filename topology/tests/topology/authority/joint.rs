//! What authorities do together when nobody lies.

use super::*;

#[test]
fn four_honest_authorities_make_one_document_for_each_epoch() {
    let mut sim = Sim::new(4);
    for (at, ahead) in [(1, 200), (2, -30), (3, 249)] {
        sim.members[at].ahead_ms = ahead;
    }
    sim.start_all();
    sim.run_to(4, 0);
    sim.check_safe(&[]);
    for at in 0..4 {
        assert_eq!(sim.epochs(at), [1, 2, 3, 4], "{at}");
        let no_document = |e: &&Event| !matches!(e, Event::Made { .. });
        let quiet: Vec<_> = sim.members[at].events.iter().filter(no_document).collect();
        // Before there is a document there is nothing to amend.
        assert!(
            quiet.iter().all(|e| matches!(e, Event::NoVote { session, .. }
            | Event::NoDocument { session, .. } | Event::Missed { session, .. }
            if session.epoch.0 == FIRST)),
            "{at}: {quiet:?}"
        );
    }
    for epoch in 1..=4 {
        let signed = &sim.signed[&(Epoch(FIRST + epoch), 0)];
        assert_eq!(signed.len(), 1);
        assert!(signed.values().all(|signers| signers.len() == 4));
    }
    let document = sim.newest(0);
    assert_eq!(document.nodes.len(), 11);
    assert!((1..=3).all(|layer| document.in_layer(layer).count() == 3));
}

#[test]
fn any_number_of_authorities_makes_documents() {
    for n in [1, 2, 3, 5, 7, 10] {
        let mut sim = Sim::new(n);
        sim.start_all();
        sim.run_to(2, 0);
        sim.check_safe(&[]);
        for at in 0..n as usize {
            assert_eq!(sim.epochs(at), [1, 2], "{at} of {n}");
        }
    }
}

#[test]
fn the_document_is_there_before_its_epoch_begins() {
    let mut sim = Sim::new(4);
    sim.start_all();
    // The main session begins in the middle; two rounds of relaying, and the signatures.
    sim.run_to(0, 7_300);
    assert!((0..4).all(|at| sim.epochs(at) == [1]));
}

#[test]
fn three_of_four_that_name_a_node_demote_it_at_once_and_restore_it() {
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(1, 4_900);
    for at in 0..3 {
        sim.name(at, &[mix(0)], &[]);
    }
    sim.run_to(2, 4_000);
    for at in 0..4 {
        let amended = sim.newest(at);
        // The document of epoch 2 was voted with the demotion: the amendment had nothing left to do.
        assert_eq!((amended.epoch.0 - FIRST, amended.amendment), (2, 0));
        let place = amended.index_of(&mix(0)).unwrap();
        assert_eq!(amended.nodes[place].standing, Standing::Demoted);
    }
    // Another one: at the end of the main session of epoch 2, so that an amendment of epoch 3 is the first to say so.
    sim.run_to(2, 6_000);
    for at in 0..3 {
        sim.name(at, &[mix(0), mix(1)], &[]);
    }
    sim.run_to(3, 4_000);
    for at in 0..4 {
        let amended = sim.newest(at);
        assert_eq!((amended.epoch.0 - FIRST, amended.amendment), (3, 1));
        let demoted = amended.nodes.iter().filter(|n| n.standing == Standing::Demoted).count();
        assert_eq!(demoted, 2);
        // Places and layers stay.
        let before =
            sim.members[at].documents.iter().find(|d| d.epoch.0 - FIRST == 3 && d.amendment == 0);
        let before = before.unwrap();
        assert!(before.nodes.iter().zip(&amended.nodes).all(|(a, b)| a.layers == b.layers));
    }
    for at in 0..3 {
        sim.name(at, &[], &[mix(0)]);
    }
    sim.run_to(4, 4_000);
    for at in 0..4 {
        let restored = sim.newest(at);
        assert_eq!((restored.epoch.0 - FIRST, restored.amendment), (4, 0));
        let demoted = restored.nodes.iter().filter(|n| n.standing == Standing::Demoted);
        assert!(demoted.map(ListedNode::identity).eq([mix(1)]));
    }
    sim.check_safe(&[]);
}

#[test]
fn one_of_four_that_names_a_node_changes_nothing() {
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.name(0, &[mix(0)], &[]);
    sim.run_to(3, 4_000);
    for at in 0..4 {
        let document = sim.newest(at);
        assert_eq!((document.epoch.0 - FIRST, document.amendment), (3, 0));
        assert!(document.nodes.iter().all(|node| node.standing == Standing::Good));
    }
}

#[test]
fn demotions_stop_where_a_layer_would_become_too_small() {
    let mut sim = Sim::new(4);
    sim.start_all();
    let all: Vec<_> = (0..9).map(mix).collect();
    for at in 0..4 {
        sim.name(at, &all, &[]);
    }
    sim.run_to(3, 0);
    let document = sim.newest(0);
    document.check().unwrap();
    assert!((1..=3).all(|layer| document.in_layer(layer).count() == 1));
    assert!((0..4).all(|at| sim.newest(at) == document));
}

#[test]
fn pools_exits_and_parameters_follow_the_majority() {
    let mut sim = Sim::new(4);
    let begins = FIRST * u64::from(EPOCH_S);
    let exit = ClientDescriptor {
        identity: secret(500).identity(),
        key: world::sphinx_key(500),
        inbox: secret(501).identity(),
        gateways: vec![secret(0).identity()],
        not_before: begins,
        not_after: begins + 35,
    };
    let exit = Signed::<ClientDescriptor>::new(exit, &secret(500)).encode();
    sim.members[0].parameters.warn_bits = 1.0;
    sim.start_all();
    for at in 0..4 {
        sim.members[at].judge.0.lock().unwrap().0.pools = vec![(mix(3), [7, 9, 0, 200][at])];
        if at != 2 {
            sim.input(at, Input::Exit(exit.clone()));
        }
    }
    sim.run_to(2, 0);
    let document = sim.newest(1);
    assert_eq!(document.parameters, parameters());
    assert_eq!(document.exits.len(), 1);
    let place = document.index_of(&mix(3)).unwrap();
    assert_eq!(document.nodes[place].pool, 7, "the lower median");
    // Its period ends within epoch 3.
    sim.run_to(3, 0);
    assert_eq!(sim.newest(1).exits.len(), 0);
}

#[test]
fn reports_of_listed_nodes_reach_the_judge_once() {
    use shoal_topology::report::{LinkCount, SignedReport};
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(1, 1_000);
    let report = |n: u64, epoch: u64, part, to| {
        let node = secret(n).identity();
        let links = vec![LinkCount { from: 0, to, sent: 3, lost: 1 }];
        let report = Report { node, epoch: Epoch(FIRST + epoch), part, links, pool: 5 };
        Input::Report(SignedReport::new(report, &secret(n)).encode())
    };
    sim.input(0, report(3, 1, 0, 1));
    // Again, earlier, too late a part, the future, a place or a node that there is not.
    for wrong in [
        report(3, 1, 0, 1),
        report(3, 0, 7, 1),
        report(4, 1, 9, 1),
        report(4, 2, 0, 1),
        report(5, 1, 0, 11),
        report(99, 1, 0, 1),
    ] {
        sim.input(0, wrong);
    }
    sim.input(0, report(3, 1, 1, 1));
    let taken = &sim.members[0].judge.0.lock().unwrap().1;
    assert_eq!(taken.iter().map(|r| r.part).collect::<Vec<_>>(), [0, 1]);
}
