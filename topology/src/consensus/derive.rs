//! From votes to a document: the same at every honest authority, byte for byte.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::event::NoDocument;
use super::vote::{Basis, Proposal, Vote, commitment};
use super::{draw, margin};
use crate::base::encoding::encode;
use crate::directory::heads;
use crate::{
    ClientDescriptor, DirectoryHead, Document, Draw, Epoch, FURTHER_EPOCHS, HeadUpdate, Identity,
    ListedNode, Network, NodeDescriptor, NotListed, Signed, Standing,
};

/// The document that most votes build on; of several the latest. One that no more name than may lie is none: where honest
/// authorities have no document, a liar could name one that nobody has.
pub(super) fn basis(votes: &[Vote], liars: usize) -> Option<Basis> {
    let mut named: BTreeMap<Basis, usize> = BTreeMap::new();
    for basis in votes.iter().filter_map(|vote| vote.basis) {
        *named.entry(basis).or_default() += 1;
    }
    let named = named.into_iter().filter(|(_, count)| *count > liars);
    named.max_by_key(|(basis, count)| (*count, *basis)).map(|(basis, _)| basis)
}

/// A document, and the nodes that it does not list although they described themselves.
pub(super) type Derived = (Document, Vec<(ListedNode, NotListed)>);

/// The document of `epoch` by these votes, one for each author, ordered by author. `before` is what [`basis`] names.
///
/// # Errors
/// Why there is none.
pub(super) fn document(
    network: &Network,
    epoch: Epoch,
    votes: &[Vote],
    before: Option<&Document>,
) -> Result<Derived, NoDocument> {
    let proposals: Vec<(&Vote, &Proposal)> =
        votes.iter().filter_map(|vote| Some((vote, vote.proposal.as_ref()?))).collect();
    enough(network, proposals.len())?;
    let majority = proposals.len() / 2 + 1;
    let (epoch_s, parameters) = proposals
        .iter()
        .map(|(_, proposal)| (proposal.epoch_s, &proposal.parameters))
        // At most one can have a majority, so whichever is found first is it.
        .find(|one| {
            let same = |(_, p): &&(&Vote, &Proposal)| (p.epoch_s, &p.parameters) == *one;
            proposals.iter().filter(same).count() >= majority
        })
        .ok_or(NoDocument::Parameters)?;

    let further = Epoch(epoch.0.saturating_add(FURTHER_EPOCHS));
    let liars = network.liars();
    let nodes = listed(&proposals, (majority, liars), |proposal| &proposal.nodes)
        .filter(|signed: &Signed<NodeDescriptor>| {
            (epoch.0..=further.0).all(|epoch| signed.body().has_key(Epoch(epoch)))
        })
        .map(|signed| ListedNode::new(signed, 0))
        .collect();
    // Before layers are given: a node that is not listed must not count for the size of a layer.
    let (mut nodes, left_out) = draw::admit(nodes, before, parameters);
    for node in &mut nodes {
        describe(node, &proposals, majority, before);
    }
    let mut document = Document {
        network: network.name.clone(),
        epoch,
        begins: epoch.0.saturating_mul(u64::from(epoch_s)),
        epoch_s,
        amendment: 0,
        parameters: parameters.clone(),
        nodes,
        draw: before.map(|before| before.draw.clone()).unwrap_or_default(),
        exits: listed(&proposals, (majority, liars), |proposal| &proposal.exits).collect(),
        heads: heads(&proposals, (majority, liars), before),
    };
    let every = u64::from(document.parameters.draw_every.max(1));
    let last = before.map(|before| before.epoch.0.saturating_add(FURTHER_EPOCHS));
    // The first epoch that is listed for the first time and brings a draw; without a document before, all of them.
    let from = match last {
        None => Some(document.epoch),
        Some(last) => document.epochs().find(|e| e.0 > last && e.0.is_multiple_of(every)),
    };
    // The value first, then the layers that follow from it, then what is short, and standings last: taking a standing
    // asks whether every layer keeps enough.
    commit(&mut document.draw, &proposals, from);
    draw::assign_layers(&mut document, before, from);
    margin::shrink(&mut document, before, from);
    let accused = accused(votes, majority);
    demote(&mut document, &accused);
    document.check().map_err(NoDocument::Unsound)?;
    Ok((document, left_out))
}

fn heads(
    proposals: &[(&Vote, &Proposal)],
    counts: (usize, usize),
    before: Option<&Document>,
) -> Vec<Signed<DirectoryHead>> {
    let updates: Vec<&[HeadUpdate]> =
        proposals.iter().map(|(_, proposal)| proposal.heads.as_slice()).collect();
    heads::next(&updates, counts, before.map(|before| before.heads.as_slice()).unwrap_or_default())
}

/// What the votes say of a node: its pool, and whether clients may draw it.
fn describe(
    node: &mut ListedNode,
    proposals: &[(&Vote, &Proposal)],
    majority: usize,
    before: Option<&Document>,
) {
    let identity = node.identity();
    let mut pools: Vec<u8> = proposals
        .iter()
        .filter_map(|(_, p)| p.pools.iter().find(|(who, _)| *who == identity))
        .map(|(_, pool)| *pool)
        .collect();
    // The median of what the authorities say: a minority cannot move it beyond what honest ones say.
    pools.sort_unstable();
    node.pool = pools.get(pools.len() / 2).copied().unwrap_or_default();
    let known = before.and_then(|before| before.node(before.index_of(&identity)?));
    // A node keeps its standing from document to document: demoting is said once, not in every vote.
    node.standing = known.map_or(Standing::Good, |known| known.standing);
    let restored = |(_, p): &&(&Vote, &Proposal)| p.restore.contains(&identity);
    if proposals.iter().filter(restored).count() >= majority {
        node.standing = Standing::Good;
    }
}

/// The next amendment of `before` by these votes.
///
/// # Errors
/// Why there is none.
pub(super) fn amendment(
    network: &Network,
    votes: &[Vote],
    before: &Document,
) -> Result<Document, NoDocument> {
    // Of all authorities: those who have nothing to say do not vote.
    let accused = accused(votes, network.authorities.len() / 2 + 1);
    if accused.is_empty() {
        return Err(NoDocument::Nothing);
    }
    enough(network, votes.len())?;
    let mut document = before.clone();
    document.amendment = before.amendment.checked_add(1).ok_or(NoDocument::Nothing)?;
    demote(&mut document, &accused);
    // Those who are accused may be demoted already, or may have to stay for their layer.
    if document.nodes == before.nodes { Err(NoDocument::Nothing) } else { Ok(document) }
}

/// As many as must sign: fewer could not certify what they make, and a minority must not try.
fn enough(network: &Network, votes: usize) -> Result<(), NoDocument> {
    let needed = network.threshold();
    if votes >= needed {
        return Ok(());
    }
    Err(NoDocument::TooFewVotes { votes, of: network.authorities.len(), needed })
}

/// What can be listed: nodes and exits.
trait Dated: Clone {
    fn identity(&self) -> Identity;
    fn date(&self) -> u64;
    fn bytes(&self) -> Vec<u8>;
    fn is_sound(&self) -> bool;
}

impl Dated for Signed<NodeDescriptor> {
    fn identity(&self) -> Identity {
        self.body().identity
    }

    fn date(&self) -> u64 {
        self.body().signed_at
    }

    fn bytes(&self) -> Vec<u8> {
        self.encode()
    }

    fn is_sound(&self) -> bool {
        self.verify().is_ok()
    }
}

impl Dated for Signed<ClientDescriptor> {
    fn identity(&self) -> Identity {
        self.body().identity
    }

    fn date(&self) -> u64 {
        self.body().not_before
    }

    fn bytes(&self) -> Vec<u8> {
        self.encode()
    }

    fn is_sound(&self) -> bool {
        self.verify().is_ok()
    }
}

/// Those that a majority lists, ordered by identity; each as it last described itself, but for the `liars` latest
/// descriptors: what so many could bring alone, having seen all votes, does not count.
fn listed<T: Dated>(
    proposals: &[(&Vote, &Proposal)],
    (majority, liars): (usize, usize),
    of: impl Fn(&Proposal) -> &Vec<T>,
) -> impl Iterator<Item = T> {
    let mut found: BTreeMap<Identity, BTreeMap<Identity, T>> = BTreeMap::new();
    for (vote, proposal) in proposals {
        // What nobody signed an authority has made up.
        for item in of(proposal).iter().filter(|item| item.is_sound()) {
            // One for each author: who lists a node twice does not count twice for it.
            found.entry(item.identity()).or_default().entry(vote.author).or_insert(item.clone());
        }
    }
    found.into_values().filter(move |by| by.len() >= majority).filter_map(move |by| {
        let mut items: Vec<T> = by.into_values().collect();
        // By the bytes where dates are equal, so that all authorities have one order.
        items.sort_by_cached_key(|item| Reverse((item.date(), item.bytes())));
        items.into_iter().nth(liars)
    })
}

fn accused(votes: &[Vote], majority: usize) -> Vec<Identity> {
    let mut accused: BTreeMap<Identity, BTreeSet<Identity>> = BTreeMap::new();
    for vote in votes {
        for node in &vote.demote {
            // A set, so that an author who names a node many times counts once.
            accused.entry(*node).or_default().insert(vote.author);
        }
    }
    accused.into_iter().filter(|(_, by)| by.len() >= majority).map(|(node, _)| node).collect()
}

/// Takes standing from these, in the order of identities, as long as every layer keeps what paths need: a network that
/// expels too many would protect nobody.
fn demote(document: &mut Document, accused: &[Identity]) {
    for identity in accused {
        let Some(index) = document.index_of(identity) else { continue };
        let Some(node) = document.nodes.get_mut(index) else { continue };
        // Tried and taken back: whether the document stays sound is one rule, and is asked where it is written.
        if std::mem::replace(&mut node.standing, Standing::Demoted) == Standing::Good
            && document.check_layering().is_err()
            && let Some(node) = document.nodes.get_mut(index)
        {
            node.standing = Standing::Good;
        }
    }
}

/// What the next draw is made from. When layers are drawn, what was revealed and fits the commitments of the document
/// before makes the value, and the votes' commitments are for the next draw. Whoever withholds chooses between two
/// values: f of them between 2^f. Before the first document nobody was committed to anything: that draw is for whoever
/// votes last to choose.
fn commit(draw: &mut Draw, proposals: &[(&Vote, &Proposal)], from: Option<Epoch>) {
    let promised = |(vote, proposal): &(&Vote, &Proposal)| (vote.author, proposal.commitment);
    if let Some(epoch) = from {
        let fits = |(vote, proposal): &(&Vote, &Proposal)| {
            let secret = proposal.reveal?;
            let commitment = (vote.author, commitment(&secret));
            draw.commitments.contains(&commitment).then_some((vote.author, secret))
        };
        let revealed: BTreeMap<Identity, [u8; 32]> = proposals.iter().filter_map(fits).collect();
        let new: BTreeMap<Identity, [u8; 32]> = proposals.iter().map(promised).collect();
        let first = if draw.commitments.is_empty() { Some(&new) } else { None };
        let from = encode(&(epoch, draw.value, revealed, first));
        draw.value = blake3::derive_key("shoal 2026 value of a draw", &from);
        draw.commitments = new.into_iter().collect();
    } else {
        // Who was not there at the last draw can take part in the next.
        let mut all: BTreeMap<Identity, [u8; 32]> = proposals.iter().map(promised).collect();
        all.extend(draw.commitments.iter().copied());
        draw.commitments = all.into_iter().collect();
    }
}
