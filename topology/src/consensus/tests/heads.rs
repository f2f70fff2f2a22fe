//! Heads of organisations' directories in documents.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;

use super::*;
use crate::{DirectoryHead, HeadUpdate};

/// The key of the organisation that all authorities have on their lists, as "acme".
pub(super) fn organisation() -> SecretIdentity {
    SecretIdentity::from_bytes(&[99; 32])
}

/// A directory of `size` entries, which parts from others after `common`, and continues one of `from`.
fn update(size: u64, from: u64, (common, fork): (u64, u8)) -> HeadUpdate {
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    (0..size).for_each(|n| tree.push(vec![if n < common { 0 } else { fork }, n as u8]));
    let head = DirectoryHead {
        name: "acme".into(),
        identity: organisation().identity(),
        size,
        root: (*tree.root().as_bytes()).into(),
        service: None,
        signed_at: size,
    };
    let proof = match (from, size - from) {
        (0, _) | (_, 0) => Vec::new(),
        (_, more) => tree.prove_consistency(more as usize).as_bytes().as_chunks().0.to_vec(),
    };
    HeadUpdate { head: Signed::<DirectoryHead>::new(head, &organisation()), proof }
}

/// Tells these authorities of a head.
fn tell(world: &mut World, update: &HeadUpdate, to: impl IntoIterator<Item = usize>) {
    to.into_iter().for_each(|n| world.handle(n, AuthorityInput::Head(update.encode())));
}

/// Entries of the directory whose head the latest document has.
fn size(world: &World) -> Option<u64> {
    let document = world.documents[0].last().unwrap();
    document.head(&organisation().identity()).map(|head| head.size)
}

fn refused(world: &World, n: usize) -> u64 {
    world.authorities[n].as_ref().unwrap().status().refused
}

#[test]
fn a_head_that_continues_the_last_one_is_in_the_next_document_and_no_other() {
    let mut world = World::new(4);
    world.run(20_000);
    tell(&mut world, &update(3, 0, (9, 1)), 0..4);
    assert_eq!(size(&world), None);
    world.run(20_000);
    assert_eq!(size(&world), Some(3));
    tell(&mut world, &update(5, 3, (9, 1)), 0..4);
    world.run(20_000);
    assert_eq!(size(&world), Some(5));
    assert_eq!(refused(&world, 0), 0);
    // An entry that all have seen is another one, an older head, and one without its proof.
    for (n, bad) in
        [update(9, 5, (4, 1)), update(3, 0, (9, 1)), update(9, 3, (9, 1))].iter().enumerate()
    {
        tell(&mut world, bad, 0..4);
        assert_eq!(refused(&world, 0), n as u64 + 1);
    }
    world.run(20_000);
    assert_eq!(size(&world), Some(5));
    tell(&mut world, &update(9, 5, (9, 1)), 0..4);
    world.run(20_000);
    assert_eq!(size(&world), Some(9));
    world.check_documents(&[0, 1, 2, 3], 2..11);
}

#[test]
fn a_forked_directory_makes_no_document() {
    let mut world = World::new(4);
    tell(&mut world, &update(3, 0, (9, 1)), 0..4);
    world.run(30_000);
    // Both continue what all have seen, and contradict each other.
    tell(&mut world, &update(6, 3, (3, 1)), 0..2);
    tell(&mut world, &update(6, 3, (3, 2)), 2..4);
    world.run(30_000);
    assert_eq!(size(&world), Some(3));
    // One that goes on from either is in the next one, and then the other one is no more.
    tell(&mut world, &update(7, 3, (3, 2)), 0..4);
    world.run(20_000);
    assert_eq!(size(&world), Some(7));
    tell(&mut world, &update(8, 7, (3, 1)), 0..4);
    world.run(20_000);
    assert_eq!(size(&world), Some(7));
    world.check_documents(&[0, 1, 2, 3], 2..10);
}

#[test]
fn heads_outlive_restarts_and_go_when_their_organisation_leaves_the_lists() {
    let mut world = World::new(4);
    tell(&mut world, &update(3, 0, (9, 1)), 0..4);
    world.run(30_000);
    (0..4).for_each(|n| {
        world.kill(n);
        world.start(n);
    });
    world.run(30_000);
    assert_eq!(size(&world), Some(3));
    for authority in world.authorities.iter_mut().flatten().take(3) {
        let parameters = authority.settings.parameters.clone();
        let allowed = authority.settings.allowed.clone();
        authority.configure(allowed, Vec::new(), Vec::new(), parameters);
    }
    world.run(30_000);
    assert_eq!(size(&world), None);
    tell(&mut world, &update(3, 0, (9, 1)), [0]);
    assert_eq!(refused(&world, 0), 1, "it is not on the list");
}

#[test]
fn an_authority_that_lies_about_a_head_changes_nothing_and_is_proven() {
    let mut world = World::new(4);
    tell(&mut world, &update(3, 0, (9, 1)), 0..4);
    world.run(30_000);
    // A head that the organisation did not sign, in the one vote of authority 3.
    let mut bad = update(9, 3, (9, 1));
    let mut body = bad.head.body().clone();
    body.root = [7; 32];
    bad.head = Signed::<DirectoryHead>::new(body, &authority(3));
    world.twist = Box::new(move |from, _, bytes| match PeerMessage::decode(&bytes) {
        Ok(PeerMessage::Vote(relay)) if from == 3 && relay.signatures.len() == 1 => {
            let mut vote: Vote =
                crate::base::encoding::decode("vote", &relay.vote, usize::MAX).unwrap();
            if let Some(proposal) = &mut vote.proposal {
                proposal.heads = vec![bad.clone()];
            }
            Some(PeerMessage::Vote(SignedVote::of(&vote, &authority(3))).encode())
        }
        _ => Some(bytes),
    });
    world.run(30_000);
    assert_eq!(size(&world), Some(3));
    let liar = authority(3).identity();
    assert!((0..3).all(|n| world.liars[n].contains(&liar)));
}
