//! Whatever documents come, in whatever order, and whatever the time is.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use shoal_topology::Seed;

use super::*;
use crate::uplink::Way;
use crate::world::{Authority, GATEWAYS, MIXES, START, identity};

const EPOCHS: u64 = 7;
const EPOCH_S: u32 = 20;

/// Of each epoch a document, two amendments that demote one mix and another, and one that contradicts them.
static DOCUMENTS: LazyLock<Vec<[VerifiedDocument; 4]>> = LazyLock::new(|| {
    let made = |epoch| {
        [0, 1, 2, 3_u16].map(|kind| {
            let mut authority = Authority::new(EPOCH_S);
            let demoted = usize::from(kind % 3);
            authority.demoted = MIXES[..demoted].to_vec();
            let mut document = authority.document(START + epoch);
            document.amendment = kind % 3;
            document.parameters.warn_bits += f64::from(kind / 3);
            authority.sign(&document)
        })
    };
    (0..EPOCHS).map(made).collect()
});

#[derive(Clone, Debug)]
enum Happens {
    /// A document comes: of which epoch, and which one of it.
    Document(usize, usize),
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..EPOCHS as usize, prop_oneof![9 => 0..3_usize, 1 => Just(3)])
            .prop_map(|(epoch, which)| Happens::Document(epoch, which)),
        (0..15_000_u64).prop_map(Happens::Pass),
    ]
}

fn router() -> Router {
    let seed = Seed::from_u64(3);
    Router::new((seed.stream("paths"), seed.stream("delays")))
}

/// The node of a document that a hop goes to, which has the hop's key in an epoch.
fn index_of(document: &Document, hop: &Hop, epoch: Epoch) -> usize {
    let index = document.index_of(&Identity(hop.address)).expect("a node of the document");
    let key = document.nodes[index].descriptor.body().key(epoch).unwrap();
    assert_eq!(key.as_bytes(), hop.key.as_bytes(), "with its key of the epoch");
    index
}

/// Every path of a turn goes by the document of its epoch, from the first hops that the turn has.
fn check_paths(router: &mut Router, now: Time, turn: &Turn) {
    let document = router.document_at(turn.epoch).unwrap().clone();
    let mixes: Vec<u16> = document.in_layer_at(turn.epoch, 1).map(|index| index as u16).collect();
    assert!(!mixes.is_empty() && *turn.first_hops == *mixes);
    assert_eq!(turn.edition, (document.epoch, document.amendment));
    let exit = identity(GATEWAYS[2]);
    let key = shoal_sphinx::SecretKey::from_bytes([9; 32]).public();
    let end = Recipient { address: [8; 32], key };
    for first in mixes {
        let way = Way { first, epoch: turn.epoch, edition: turn.edition };
        let slot = Slot { number: 0, at: turn.from.max(now), way };
        assert!(router.leads(&slot));
        let up = router.draw_up(&slot, &exit, Some(end)).unwrap();
        let back = router.draw_back(turn.epoch, &exit, end).unwrap();
        for Route { hops, mixes } in [&up, &back] {
            let [a, b, c, gateway, last] = hops.as_slice() else { panic!("five hops") };
            for ((layer, hop), mix) in (1..).zip([a, b, c]).zip(mixes) {
                let index = index_of(&document, hop, turn.epoch);
                assert!(document.in_layer_at(turn.epoch, layer).any(|of| of == index));
                assert_eq!(hop.address, mix.0);
                assert!(hop.delay <= document.parameters.max_delay());
            }
            assert_eq!(gateway.address, exit.0);
            index_of(&document, gateway, turn.epoch);
            assert_eq!(
                (last.address, gateway.delay, last.delay),
                (end.address, last.delay, Duration::ZERO)
            );
        }
        let named = index_of(&document, &up.hops[0], turn.epoch);
        assert_eq!(named, usize::from(first), "the slot's first hop");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn paths_and_epochs_are_those_of_the_documents_that_are_held(
        begins in 0..60_u64,
        steps in vec(happens(), 1..40),
    ) {
        let (mut router, mut now) = (router(), Time::ZERO);
        // The latest amendment of each epoch that was taken.
        let mut taken: [Option<usize>; EPOCHS as usize] = [None; EPOCHS as usize];
        for step in steps {
            match step {
                Happens::Pass(ms) => now += Duration::from_millis(ms),
                Happens::Document(epoch, which) => {
                    let held = DOCUMENTS[epoch][which].clone();
                    let unix_s = u64::from(EPOCH_S) * START + begins + now.as_nanos() / 1_000_000_000;
                    let held_before = router.document_at(Epoch(START + epoch as u64)).cloned();
                    let same = held_before.filter(|document| document.epoch.0 == START + epoch as u64);
                    let before = router.document(now).cloned();
                    let result = router.insert(now, unix_s, held);
                    // The fourth contradicts the others, and they it.
                    let own = same.and(taken[epoch]);
                    let contradicts = own.is_some_and(|own| (own == 3) != (which == 3));
                    prop_assert_eq!(result.is_err(), contradicts);
                    if contradicts {
                        prop_assert!(router.document(now) == before.as_ref(), "nothing changes");
                    } else if result.unwrap() {
                        taken[epoch] = Some(which);
                    }
                }
            }
            prop_assert!(router.documents.iter().count() <= 4 && router.tables.len() <= 2);
            let unix_s = router.unix_s(now);
            let Some(document) = router.document(now).cloned() else {
                prop_assert!(router.turns(now).is_empty() && router.next_epoch(now) == Time::NEVER);
                continue;
            };
            let later = router.documents.iter().filter(|held| held.document.epoch > document.epoch);
            prop_assert!(later.map(|held| &held.document).all(|later| later.begins > unix_s), "the latest begun");
            let epoch = router.epoch(now).unwrap();
            let ahead = epoch.0 - document.epoch.0;
            prop_assert!(ahead <= FURTHER_EPOCHS);
            prop_assert_eq!(router.near(now, epoch.low_byte()), Some(epoch));
            prop_assert_eq!(router.near(now, epoch.low_byte().wrapping_add(3)), None);
            prop_assert!(router.next_epoch(now) > now, "it never lies in the past");
            let turns = router.turns(now);
            prop_assert!(turns.len() <= 2 && turns[0].epoch == epoch && turns[0].from <= now);
            if let Some(next) = turns.get(1) {
                prop_assert!(next.epoch.0 == epoch.0 + 1 && next.from > now);
                prop_assert_eq!(router.epoch(next.from), Some(next.epoch), "then that is the epoch");
            }
            turns.iter().for_each(|turn| check_paths(&mut router, now, turn));
        }
    }
}
