//! Draws without authorities: documents and votes made by hand.

use std::collections::BTreeSet;

use super::super::derive;
use super::super::vote::{Basis, Proposal, Vote, commitment};
use super::*;
use crate::base::encoding::encode;
use crate::{
    EpochKey, Identity, Network, NodeDescriptor, Parameters, SecretIdentity, Signed, Standing,
    testing,
};

const EPOCH: u64 = 9;
const EPOCH_S: u32 = 10;

/// Of operator n unless it is changed.
fn node(n: u16, layer: u8) -> testing::TestNode {
    let mut secret = [9; 32];
    secret[..2].copy_from_slice(&n.to_be_bytes());
    let mut node = testing::TestNode::new(secret, layer);
    (node.body.operator, node.body.jurisdiction) = (format!("operator {n}"), format!("law {n}"));
    node
}

fn secret(n: u16) -> SecretIdentity {
    node(n, 0).secret_identity()
}

/// The n-th node in the n-th layer of the list, 0 for a gateway.
fn made(layers: &[u8]) -> testing::TestNetwork {
    let parameters = Parameters { draw_every: 6, min_mixes_per_layer: 1, ..Parameters::default() };
    let network = testing::TestNetwork::builder().placed(layers.into()).parameters(parameters);
    let mut network = network.epoch(Epoch(EPOCH)).epoch_s(EPOCH_S).build();
    network.nodes = (0..).zip(layers).map(|(n, layer)| node(n, *layer)).collect();
    network
}

fn document(layers: &[u8]) -> Document {
    made(layers).document()
}

/// Two gateways, and so many mixes in each layer.
fn layers(sizes: [usize; 3]) -> Vec<u8> {
    let mixes = (1u8..).zip(sizes).flat_map(|(layer, size)| vec![layer; size]);
    [0, 0].into_iter().chain(mixes).collect()
}

/// The next document's nodes by this value, those of the one before in a draw.
fn drawn(before: &Document, value: u8) -> Document {
    let mut next = before.clone();
    next.epoch = Epoch(before.epoch.0 + 1);
    next.draw.value = [value; 32];
    for node in &mut next.nodes {
        node.layers = [0; 3];
    }
    let from = Epoch(next.epoch.0 + FURTHER_EPOCHS);
    assign_layers(&mut next, Some(before), Some(from));
    next.check().unwrap();
    next
}

fn moved(before: &Document, after: &Document) -> Vec<Identity> {
    let layers = |document: &Document, node: &ListedNode| {
        let index = document.index_of(&node.identity()).unwrap();
        document.nodes[index].layers[2]
    };
    let moved = before.nodes.iter().filter(|node| node.layers[2] != layers(after, node));
    moved.map(ListedNode::identity).collect()
}

fn sizes(document: &Document) -> [usize; 3] {
    [1, 2, 3].map(|layer| document.nodes.iter().filter(|node| node.layers[2] == layer).count())
}

#[test]
fn a_balanced_network_stays_as_it_is_and_another_moves_an_eighth_at_most() {
    for (before, after, moves) in [
        ([8, 8, 8], [8, 8, 8], 0),
        ([9, 8, 8], [9, 8, 8], 0),
        // Of 24 operators three move.
        ([16, 4, 4], [13, 5, 6], 3),
        ([10, 7, 7], [8, 8, 8], 2),
        // One of few.
        ([3, 1, 1], [2, 2, 1], 1),
    ] {
        let old = document(&layers(before));
        for value in 0..8 {
            let new = drawn(&old, value);
            let who = moved(&old, &new);
            assert_eq!(who.len(), moves, "{before:?}");
            let mut sorted = (sizes(&new), after);
            sorted.0.sort_unstable();
            sorted.1.sort_unstable();
            assert_eq!(sorted.0, sorted.1, "{before:?}");
            // Only the epochs of the draw change.
            let early = |document: &Document| -> Vec<[u8; 2]> {
                document.nodes.iter().map(|node| [node.layers[0], node.layers[1]]).collect()
            };
            assert_eq!(early(&old), early(&new));
        }
    }
}

#[test]
fn who_moves_is_drawn_by_its_own_name() {
    let old = document(&layers([16, 4, 4]));
    let draws: Vec<Vec<Identity>> = (0..40).map(|value| moved(&old, &drawn(&old, value))).collect();
    let everybody: BTreeSet<&Identity> = draws.iter().flatten().collect();
    assert!(everybody.len() >= 14, "in forty draws of 3 of 16 nearly all: {}", everybody.len());
    // Who else there is does not matter: where one of another layer comes from the same move.
    let mut other = old.clone();
    let node = other.nodes.iter_mut().find(|node| node.layers[0] == 2).unwrap();
    *node = self::node(500, 2).listed();
    other.nodes.sort_by_key(ListedNode::identity);
    for value in 0..40u8 {
        assert_eq!(draws[usize::from(value)], moved(&other, &drawn(&other, value)));
    }
}

#[test]
fn operators_move_whole_and_jurisdictions_where_they_count() {
    // Operators of four mixes each; under each law two operators.
    let mut network = made(&layers([24, 4, 4]));
    for (mix, node) in network.nodes[2..].iter_mut().enumerate() {
        node.body.operator = format!("group {}", mix / 4);
        node.body.jurisdiction = format!("country {}", mix / 8 + usize::from(mix >= 28));
    }
    let mut old = network.document();
    old.check().unwrap();
    let new = drawn(&old, 1);
    assert_eq!(moved(&old, &new).len(), 4, "one operator of eight");
    old.parameters.distinct_jurisdictions = true;
    old.check().unwrap();
    let new = drawn(&old, 1);
    assert_eq!(moved(&old, &new).len(), 8, "one country of five");
}

#[test]
fn who_is_new_goes_to_the_smallest_layer_and_with_its_operator() {
    let old = document(&layers([4, 3, 2]));
    for value in 0..20 {
        let mut next = old.clone();
        next.epoch = Epoch(EPOCH + 1);
        next.draw.value = [value; 32];
        let mut known = node(101, 1);
        known.body.operator = "operator 2".into();
        for new in [node(100, 1), known] {
            next.nodes.push(ListedNode::new(new.sign(), 0));
        }
        next.nodes.sort_by_key(ListedNode::identity);
        assign_layers(&mut next, Some(&old), None);
        next.check().unwrap();
        let of = |n: u16| next.nodes[next.index_of(&secret(n).identity()).unwrap()].layers;
        assert_eq!((of(100), of(101)), ([3; 3], [1; 3]));
        assert!(moved(&old, &next).is_empty());
    }
}

/// The document that follows without a draw, when the nodes of these operators are gone.
fn without(before: &Document, gone: &[&str], value: u8) -> Document {
    let mut next = before.clone();
    next.epoch = Epoch(EPOCH + 1);
    next.draw.value = [value; 32];
    next.nodes.retain(|node| !gone.contains(&node.descriptor.body().operator.as_str()));
    assign_layers(&mut next, Some(before), None);
    next
}

#[test]
fn when_an_operator_leaves_a_layer_short_another_moves_into_it_at_once() {
    let mut old = document(&layers([5, 2, 2]));
    old.parameters.min_mixes_per_layer = 2;
    old.check().unwrap();
    let gone = "operator 7";
    let mut seen = BTreeSet::new();
    for value in 0..20 {
        let new = without(&old, &[gone], value);
        new.check().unwrap();
        assert_eq!(sizes(&new), [4, 2, 2], "as few as it takes");
        let again = without(&old, &[gone], value);
        assert!(new.nodes == again.nodes, "the same at every authority");
        let who = new.nodes.iter().filter(|node| {
            let before = &old.nodes[old.index_of(&node.identity()).unwrap()];
            before.layers != node.layers
        });
        let who: Vec<_> = who.map(|node| (node.identity(), node.layers)).collect();
        assert!(matches!(who[..], [(_, [2, 2, 2])]), "{who:?}");
        seen.insert(who[0].0);
    }
    assert!(seen.len() > 1, "by lot");
    // Who leaves a layer that is not short moves nobody.
    let new = without(&old, &["operator 2"], 1);
    new.check().unwrap();
    assert!(moved(&new, &old).is_empty());
}

#[test]
fn a_layer_that_everybody_leaves_is_made_up_for_by_several() {
    for (before, leave, min, after) in
        [([6, 6, 3], 14..17, 2, [5, 5, 2]), ([3, 5, 4], 2..5, 3, [3, 3, 3])]
    {
        let mut old = document(&layers(before));
        old.parameters.min_mixes_per_layer = min;
        old.check().unwrap();
        let gone: Vec<String> = leave.map(|n| format!("operator {n}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        let new = without(&old, &gone, 3);
        new.check().unwrap();
        assert_eq!(sizes(&new), after);
    }
}

#[test]
fn operators_that_cannot_move_one_by_one_are_placed_anew() {
    // Each layer needs three. Operators of two mixes in layers of four: none can be spared.
    let mut network = made(&layers([4, 3, 4]));
    for (operator, first) in [("a", 2), ("b", 4), ("c", 9), ("d", 11)] {
        network.nodes[first..first + 2].iter_mut().for_each(|n| n.body.operator = operator.into());
    }
    network.parameters.min_mixes_per_layer = 3;
    let old = network.document();
    old.check().unwrap();
    let new = without(&old, &["operator 8"], 1);
    new.check().unwrap();
    let mut found = sizes(&new);
    found.sort_unstable();
    assert_eq!(found, [3, 3, 4]);
    // Where there are too few altogether nothing moves, and the error says which layer is short.
    let none = without(&old, &["operator 8", "operator 7"], 1);
    assert!(moved(&none, &old).is_empty());
    assert!(matches!(none.check(), Err(crate::Error::TooFewMixes { layer: 2, found: 1, .. })));
}

#[test]
fn the_first_draw_is_balanced_and_puts_each_operator_into_one_layer() {
    let mut seen = BTreeSet::new();
    for value in 0..20 {
        let mut first = document(&layers([7, 7, 7]));
        first.draw.value = [value; 32];
        let epoch = first.epoch;
        assign_layers(&mut first, None, Some(epoch));
        first.check().unwrap();
        assert_eq!(sizes(&first), [7, 7, 7]);
        seen.insert(first.nodes.iter().map(|node| node.layers[0]).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 20, "by the value");
}

fn authority(n: u16) -> SecretIdentity {
    secret(1_000 + n)
}

fn network() -> Network {
    let authorities = (0..4).map(|n| authority(n).identity()).collect();
    Network { name: "test".into(), authorities, epoch_s: EPOCH_S, trial: false }
}

fn promise(n: u16) -> [u8; 32] {
    [n as u8 + 50; 32]
}

/// The votes of four authorities in the session before a draw, all honest.
fn votes(before: &Document) -> Vec<Vote> {
    let basis = Basis {
        epoch: before.epoch,
        amendment: 0,
        hash: *blake3::hash(&encode(before)).as_bytes(),
    };
    let vote = |n: u16| Vote {
        network: "test".into(),
        author: authority(n).identity(),
        session: super::super::SessionId { epoch: before.epoch, index: 1 },
        basis: Some(basis),
        demote: Vec::new(),
        proposal: Some(Proposal {
            epoch_s: EPOCH_S,
            parameters: before.parameters.clone(),
            nodes: before.nodes.iter().map(|node| node.descriptor.clone()).collect(),
            pools: Vec::new(),
            exits: Vec::new(),
            heads: Vec::new(),
            restore: Vec::new(),
            commitment: [n as u8; 32],
            reveal: Some(promise(n)),
        }),
    };
    let mut votes: Vec<Vote> = (0..4).map(vote).collect();
    votes.sort_by_key(|vote| vote.author);
    votes
}

/// What is said in place of a proposal.
type Lie = Box<dyn Fn(&mut Proposal)>;

/// What a liar may say last, and let its nodes say: those of operators 2 to 9, in the largest layer.
fn lies() -> Vec<Lie> {
    let change = |nodes: std::ops::Range<u16>, change: fn(&mut NodeDescriptor)| {
        move |proposal: &mut Proposal| {
            for n in nodes.clone() {
                let identity = secret(n).identity();
                let of = |node: &&mut Signed<NodeDescriptor>| node.body().identity == identity;
                if let Some(node) = proposal.nodes.iter_mut().find(of) {
                    let mut lie = self::node(n, 1);
                    lie.body.signed_at = 99;
                    change(&mut lie.body);
                    *node = lie.sign();
                }
            }
        }
    };
    let mut lies: Vec<Lie> = vec![Box::new(|_| {})];
    for m in 3..10 {
        lies.push(Box::new(change(2..m, |body| {
            body.keys = vec![EpochKey { first: Epoch(0), last: Epoch(1), ..body.keys[0] }];
        })));
        lies.push(Box::new(change(2..m, |body| body.role = Role::Gateway)));
        lies.push(Box::new(change(2..m, |body| body.operator = "somebody".into())));
        lies.push(Box::new(change(2..m, |body| body.jurisdiction = "nowhere".into())));
        lies.push(Box::new(move |proposal| proposal.nodes.truncate(usize::from(m))));
        lies.push(Box::new(move |proposal| {
            for n in 0..m {
                let mut node = node(200 + n, 1);
                node.body.operator = format!("operator {}", 2 + n % 8);
                proposal.nodes.push(node.sign());
            }
        }));
        lies.push(Box::new(move |proposal| {
            proposal.restore = (2..m).map(|n| secret(n).identity()).collect();
            proposal.commitment = [m as u8; 32];
        }));
    }
    lies.push(Box::new(|proposal| proposal.parameters.draw_every = 7));
    lies.push(Box::new(|proposal| proposal.parameters.layers = 2));
    lies.push(Box::new(|proposal| proposal.reveal = Some([200; 32])));
    lies
}

#[test]
fn what_a_liar_says_last_gives_no_more_layerings_than_it_has_secrets() {
    let mut before = document(&layers([20, 6, 6]));
    before.draw.commitments =
        (0..4).map(|n| (authority(n).identity(), commitment(&promise(n)))).collect();
    before.draw.commitments.sort();
    let liar = authority(3).identity();
    let mut layerings: BTreeSet<Vec<(Identity, u8)>> = BTreeSet::new();
    let mut tries = 0;
    for withheld in [false, true] {
        for lie in lies() {
            let mut votes = votes(&before);
            for vote in votes.iter_mut().filter(|vote| vote.author == liar) {
                let proposal = vote.proposal.as_mut().unwrap();
                lie(proposal);
                proposal.reveal = proposal.reveal.filter(|_| !withheld);
                vote.demote = before.nodes.iter().map(ListedNode::identity).collect();
            }
            let made = derive::document(&network(), Epoch(EPOCH + 1), &votes, Some(&before));
            let (next, _) = made.unwrap();
            assert!(next.nodes.iter().all(|node| node.standing == Standing::Good));
            // Those that are not listed any more stand nowhere.
            let listed = next.nodes.iter().map(|node| (node.identity(), node.layers[2]));
            layerings.insert(listed.collect());
            tries += 1;
        }
        // Or it says nothing at all.
        let mut votes = votes(&before);
        votes.retain(|vote| vote.author != liar);
        let (next, _) =
            derive::document(&network(), Epoch(EPOCH + 1), &votes, Some(&before)).unwrap();
        layerings.insert(next.nodes.iter().map(|n| (n.identity(), n.layers[2])).collect());
    }
    assert!(tries > 100 && layerings.len() <= 2, "{} layerings in {tries} tries", layerings.len());
    assert_eq!(layerings.len(), 2, "to withhold is a choice that remains");
}

#[test]
fn a_node_that_truly_goes_moves_no_other() {
    // All four authorities know that nodes of the largest layer have gone, or have come back as gateways.
    let mut before = document(&layers([20, 6, 6]));
    before.draw.commitments =
        (0..4).map(|n| (authority(n).identity(), commitment(&promise(n)))).collect();
    before.draw.commitments.sort();
    let derived = |lie: &dyn Fn(&mut Proposal)| {
        let mut votes = votes(&before);
        votes.iter_mut().for_each(|vote| lie(vote.proposal.as_mut().unwrap()));
        derive::document(&network(), Epoch(EPOCH + 1), &votes, Some(&before)).ok()
    };
    let (all, _) = derived(&|_| {}).unwrap();
    // The last three are other parameters and a false secret. Without gateways there is no document.
    let said = lies();
    let sound = said[..said.len() - 3].iter().filter_map(|lie| derived(lie)).collect::<Vec<_>>();
    assert!(sound.len() > 40);
    for (next, _) in sound {
        for node in &next.nodes {
            if let Some(index) = all.index_of(&node.identity()) {
                assert_eq!(node.layers, all.nodes[index].layers);
            }
        }
    }
}
