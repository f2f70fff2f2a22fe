//! What authorities make of faults: machines, links, clocks, disks, and liars.

use proptest::prelude::*;
use rand::RngExt;

use super::*;

fn is_missed(event: &Event, whom: &Identity) -> bool {
    matches!(event, Event::Missed { authorities, .. } if authorities.contains(whom))
}

#[test]
fn three_go_on_when_one_is_down_and_it_catches_up() {
    let mut sim = Sim::new(4);
    for at in 0..3 {
        sim.start(at);
    }
    sim.run_to(3, 0);
    let down = sim.members[3].identity;
    for at in 0..3 {
        assert_eq!(sim.epochs(at), [1, 2, 3]);
        assert!(sim.members[at].events.iter().any(|event| is_missed(event, &down)));
    }
    // It asks when it starts.
    sim.start(3);
    sim.run_to(3, 1_000);
    assert_eq!(sim.epochs(3), [3]);
    sim.run_to(5, 0);
    assert_eq!(sim.epochs(3), [3, 4, 5]);
    assert!(sim.signed[&(Epoch(FIRST + 5), 0)].values().all(|signers| signers.len() == 4));
    sim.check_safe(&[]);
}

#[test]
fn three_go_on_when_one_is_slow() {
    let mut sim = Sim::new(4);
    sim.link = Box::new(|_, from, to| Some(if from == 3 || to == 3 { 2_600 } else { 80 }));
    sim.start_all();
    sim.run_to(3, 0);
    let slow = sim.members[3].identity;
    for at in 0..3 {
        assert_eq!(sim.epochs(at), [1, 2, 3], "{at}");
        let told = |event: &Event| matches!(event, Event::PeerClock { authority, off_ms } if *authority == slow && *off_ms < 0);
        assert!(sim.members[at].events.iter().any(told));
    }
    // It gets them from the others.
    sim.run_to(3, 4_000);
    assert_eq!(sim.epochs(3), [1, 2, 3]);
    sim.check_safe(&[]);
}

#[test]
fn a_clock_that_is_off_by_minutes_is_told_and_stops_nobody() {
    for ahead_ms in [180_000, -180_000, 3_600_000] {
        let mut sim = Sim::new(4);
        sim.members[2].ahead_ms = ahead_ms;
        sim.start_all();
        sim.run_to(3, 0);
        let wrong = sim.members[2].identity;
        for at in [0, 1, 3] {
            assert_eq!(sim.epochs(at), [1, 2, 3], "{ahead_ms}");
            assert!(sim.members[at].events.iter().any(|event| is_missed(event, &wrong)));
        }
        let told = |event: &Event| matches!(event, Event::OwnClock { off_ms } if (off_ms - ahead_ms).abs() < 500);
        assert!(sim.members[2].events.iter().any(told), "{:?}", sim.members[2].events);
        assert!(!sim.members[0].events.iter().any(|e| matches!(e, Event::OwnClock { .. })));
        // It holds what others made.
        assert!(sim.epochs(2).contains(&3));
        sim.check_safe(&[]);
    }
}

#[test]
fn a_clock_that_is_set_right_takes_part_again() {
    let mut sim = Sim::new(4);
    sim.members[2].ahead_ms = 180_000;
    sim.start_all();
    sim.run_to(2, 500);
    sim.members[2].ahead_ms = 0;
    sim.input(2, Input::Wake);
    sim.run_to(4, 0);
    assert!(sim.signed[&(Epoch(FIRST + 4), 0)].values().all(|signers| signers.len() == 4));
    sim.check_safe(&[]);
}

#[test]
fn a_network_that_is_cut_in_half_makes_no_document_and_one_when_it_heals() {
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(1, 2_000);
    sim.link = Box::new(|_, from, to| (from / 2 == to / 2).then_some(50));
    sim.run_to(3, 0);
    assert!((0..4).all(|at| sim.epochs(at) == [1]));
    let why = |e: &Event| {
        matches!(
            e,
            Event::NoDocument { why: NoDocument::TooFewVotes { counted: 2, needed: 3 }, .. }
        )
    };
    assert!((0..4).all(|at| sim.members[at].events.iter().any(why)));
    sim.link = Box::new(|_, _, _| Some(50));
    sim.run_to(4, 0);
    assert!((0..4).all(|at| sim.epochs(at) == [1, 4]), "{:?}", sim.epochs(0));
    sim.check_safe(&[]);
}

#[test]
fn signatures_that_were_cut_off_are_exchanged_a_session_later() {
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(0, 6_990);
    sim.link = Box::new(|_, from, to| (from / 2 == to / 2).then_some(50));
    sim.run_to(0, 9_990);
    assert!((0..4).all(|at| sim.epochs(at).is_empty()));
    sim.link = Box::new(|_, _, _| Some(50));
    sim.run_to(1, 200);
    assert!((0..4).all(|at| sim.epochs(at) == [1]));
    sim.check_safe(&[]);
}

#[test]
fn a_disk_that_is_slow_costs_the_vote_and_nothing_else() {
    let mut sim = Sim::new(4);
    sim.members[1].disk_ms = 900;
    sim.start_all();
    sim.run_to(3, 0);
    assert!((0..4).all(|at| sim.epochs(at) == [1, 2, 3]));
    assert!(sim.members[1].events.iter().any(|e| matches!(e, Event::NoVote { .. })));
    sim.check_safe(&[]);
}

#[test]
fn killed_at_any_time_of_an_epoch_nobody_signs_twice() {
    for down_ms in [50, 700] {
        for killed_ms in (4_000..10_000).step_by(350) {
            let mut sim = Sim::new(4);
            sim.start_all();
            sim.run_to(1, killed_ms);
            // Two at once: the rest is too few, so that what they signed may lack signatures when they are back.
            for at in [0, 1] {
                sim.kill(at);
            }
            sim.run_to(1, killed_ms + down_ms);
            for at in [0, 1] {
                // And now they would say something else.
                sim.name(at, &[mix(at as u64)], &[]);
                sim.start(at);
            }
            sim.run_to(3, 4_000);
            sim.check_safe(&[]);
            for at in 0..4 {
                let voted = |e: &Event| matches!(e, Event::TwoDocuments(_));
                assert!(!sim.members[at].events.iter().any(voted));
                assert!(sim.members[at].liars.is_empty(), "no restart looks like a lie");
                assert!(sim.epochs(at).contains(&3), "{killed_ms}: {:?}", sim.epochs(at));
            }
        }
    }
}

#[test]
fn one_that_is_killed_again_and_again_stops_nobody() {
    let mut sim = Sim::new(4);
    sim.start_all();
    for step in 0..60 {
        sim.run_to(1, step * 430);
        sim.kill(3);
        sim.run_to(1, step * 430 + 90);
        sim.start(3);
    }
    for at in 0..3 {
        assert_eq!(sim.epochs(at), [1, 2, 3], "{at}");
    }
    sim.check_safe(&[]);
}

#[test]
fn what_was_not_stored_is_not_sent() {
    let mut sim = Sim::new(4);
    for member in &mut sim.members {
        member.disk_ms = 1_000_000;
    }
    sim.start_all();
    sim.run_to(2, 0);
    assert!(sim.signed.is_empty() && sim.certified.is_empty());
}

/// The last authority has two machines, which know nothing of each other.
fn twins(n: u64) -> Sim {
    let mut sim = Sim::new(n);
    let twin = sim.add(n as usize - 1);
    // It says other things to others.
    sim.name(twin, &[mix(0)], &[]);
    sim.start_all();
    sim
}

#[test]
fn who_votes_differently_to_different_peers_is_proven_to_lie_and_not_counted() {
    let mut sim = twins(4);
    let liar = sim.members[3].identity;
    // One of its machines talks to the first peer, the other to the rest.
    sim.link = Box::new(|_, from, to| {
        let apart = |twin: usize, peer: usize| (twin == 3) != (peer == 0);
        let cut = (from >= 3 && apart(from, to)) || (to >= 3 && apart(to, from));
        (!cut).then_some(60)
    });
    sim.run_to(3, 0);
    for at in 0..3 {
        assert_eq!(sim.epochs(at), [1, 2, 3]);
        assert_eq!(sim.members[at].liars.len(), 1, "{at} reports once");
        assert!(sim.members[at].liars[0].0 == liar);
        // After a restart it still knows.
        let disk = sim.members[at].disk.clone().unwrap();
        assert!(State::decode(&disk).is_ok());
        let status = sim.members[at].engine.as_ref().unwrap().status();
        assert!(status.liars == [liar]);
    }
    sim.check_safe(&[3]);
}

#[test]
fn a_liar_and_a_partition_never_make_two_documents() {
    // The honest are cut two to one; each side hears a machine of the liar.
    let mut sim = twins(4);
    let side = |at: usize| match at {
        0 | 1 | 3 => 0,
        _ => 1,
    };
    sim.link = Box::new(move |_, from, to| (side(from) == side(to)).then_some(60));
    sim.run_to(3, 0);
    // Two honest ones and the liar are enough; the other has its documents later.
    assert_eq!(sim.epochs(0), [1, 2, 3]);
    assert_eq!(sim.epochs(2), [0; 0]);
    sim.check_safe(&[3]);
    sim.link = Box::new(|_, _, _| Some(60));
    sim.run_to(4, 4_000);
    assert!(sim.epochs(2).contains(&4), "{:?}", sim.epochs(2));
    for at in 0..3 {
        assert!(!sim.members[at].liars.is_empty());
    }
    sim.check_safe(&[3]);
}

#[test]
fn who_signs_two_documents_is_proven_to_lie() {
    // Its machines vote alike and hear all, but one derives from other parameters of the network: it signs on its own.
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(1, 7_500);
    let liar = &sim.authorities.secrets[3];
    let mut forged = (*sim.newest(0)).clone();
    forged.parameters.draw_every += 1;
    let forge = |document: &Document| {
        let document = Basis::of(document);
        let body = Sim::new(0).authorities.network;
        let _ = body;
        document
    };
    let document = forge(&forged);
    let signature = liar.sign(Context::Document, &forged.body());
    let statement = Statement {
        network: "test".into(),
        author: liar.identity(),
        matter: Matter::Body { epoch: document.epoch, amendment: document.amendment },
        hash: document.hash,
    };
    let author = liar.identity();
    let statement = statement.sign(liar);
    let word = BodySignature { author, document, statement, signature, again: false };
    let message = Message { sent_ms: sim.now_ms, content: Content::Signature(word) };
    // To one peer alone, which passes on what contradicts its own.
    sim.input(1, Input::Message { from: author, bytes: message.encode() });
    sim.run_to(1, 8_000);
    for at in 0..3 {
        assert!(sim.members[at].liars.iter().any(|(id, _)| *id == author), "{at}");
    }
    assert_eq!(sim.epochs(0), [1, 2]);
}

#[test]
fn two_certified_documents_stop_an_authority_for_good() {
    let mut sim = Sim::new(4);
    sim.start_all();
    sim.run_to(1, 0);
    // Only more than f liars can make another one.
    let mut forged = (*sim.newest(0)).clone();
    forged.parameters.warn_bits += 1.0;
    let forged = sim.authorities.sign(&forged);
    sim.input(0, Input::Document(forged));
    assert!(sim.members[0].events.iter().any(|e| matches!(e, Event::TwoDocuments(_))));
    sim.run_to(2, 0);
    sim.kill(0);
    sim.start(0);
    sim.run_to(4, 0);
    assert!(sim.members[0].engine.as_ref().unwrap().status().halted);
    let me = sim.members[0].identity;
    assert!(sim.signed[&(Epoch(FIRST + 2), 0)].values().all(|signers| !signers.contains(&me)));
    assert_eq!(sim.epochs(1), [1, 2, 3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_happens_there_is_one_document_of_an_epoch_and_number(
        seed: u64,
        lossy in 0.0f64..0.5,
        slow in 0u64..2_500,
        aheads in proptest::collection::vec(-900i64..900, 5),
        kills in proptest::collection::vec((0usize..3, 0u64..30_000), 0..6),
    ) {
        let mut sim = twins(4);
        for (member, ahead) in sim.members.iter_mut().zip(&aheads) {
            member.ahead_ms = *ahead;
        }
        let mut rng = Seed::from_u64(seed).stream("links");
        // In each second each twin is heard by others.
        sim.link = Box::new(move |now, from, to| {
            let bits = blake3::hash(&[seed.to_le_bytes(), (now / 1_000).to_le_bytes()].concat());
            let mask = bits.as_bytes()[0];
            let twin_of = |peer: usize| if mask >> peer & 1 == 1 { 3 } else { 4 };
            let cut = (from >= 3 && from != twin_of(to)) || (to >= 3 && to != twin_of(from));
            let split = mask & 0xE0 == 0xE0 && (from == 0) != (to == 0);
            let lost = rng.random_bool(lossy);
            let delay = rng.random_range(10..=50 + slow);
            (!cut && !split && !lost).then_some(delay)
        });
        let mut kills = kills;
        kills.sort_by_key(|(_, at)| *at);
        for (at, when) in kills {
            sim.run_to(0, when.max(sim.now_ms - FIRST * EPOCH_MS));
            sim.kill(at);
            sim.name(at, &[mix(when % 9)], &[]);
            sim.start(at);
        }
        sim.run_to(3, 0);
        sim.check_safe(&[3]);
        // And once all is well, there are documents again.
        sim.link = Box::new(|_, _, _| Some(50));
        sim.members.iter_mut().for_each(|member| member.ahead_ms = 0);
        (0..4).for_each(|at| sim.input(at, Input::Wake));
        sim.kill(4);
        sim.run_to(5, 4_000);
        sim.check_safe(&[3]);
        for at in 0..3 {
            prop_assert!(sim.epochs(at).contains(&5), "{at}: {:?} {:?}", sim.epochs(at), sim.members[at].events);
            // It cannot be taken for a liar but by lying.
            let liar = sim.members[3].identity;
            prop_assert!(sim.members[at].liars.iter().all(|(id, _)| *id == liar));
        }
    }
}
