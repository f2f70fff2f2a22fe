//! Layers go to operators, or, where jurisdictions count, to all mixes under one law.
//!
//! **What a draw may depend on.** Whoever votes last has seen what the others revealed, so all but the value was fixed
//! before: who stands where and with how many mixes is taken from the document before, a whole session old, and each
//! operator's lot is a hash of the value and its own name, in which no other has a part. So f who withhold choose among the
//! 2^f values, and nothing else that they say, or let their nodes say, moves anybody
//! (`what_a_liar_says_last_gives_no_more_layerings_than_it_has_secrets`).
//!
//! **Few moves.** Three corrupt operators own a path when they stand in three layers, and each move is another chance. A
//! draw moves nobody while layers are balanced to an eighth, and else an eighth of the operators at most.
//!
//! **A layer that is short is filled at once.** When an operator leaves and its layer has fewer mixes than the network asks
//! for, no document would be sound until the next draw, and the network would stop. So others move into it, in the very
//! document that misses it, as few as it takes; or all are placed anew where that does not do. This needs no fresh secrets:
//! who would move is known beforehand, but whoever makes a layer short leaves it, and so gives up the place in it that a
//! friend of his might get.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::directory::document::rules::{is_slow, unit};
use crate::{Document, Epoch, FURTHER_EPOCHS, ListedNode, NotListed, Parameters, Role};

/// One of so many operators may move in a draw, and one of any number; and the smallest layer may lack such a share of
/// the largest.
const SHARE: usize = 8;

/// Layers in the epochs of a document.
type Layers = [u8; 1 + FURTHER_EPOCHS as usize];

/// Who of these nodes is listed, and who not and why. Those of the document before come first; of an operator that is
/// new with both the gateways, and the mixes of an operator under the law of most of them.
pub(super) fn admit(
    nodes: Vec<ListedNode>,
    before: Option<&Document>,
    parameters: &Parameters,
) -> (Vec<ListedNode>, Vec<(ListedNode, NotListed)>) {
    let mut out = Vec::new();
    let mut keep = |nodes: Vec<ListedNode>, why: &dyn Fn(&ListedNode) -> Option<NotListed>| {
        let (kept, left): (Vec<_>, Vec<_>) =
            nodes.into_iter().map(|node| (why(&node), node)).partition(|(why, _)| why.is_none());
        out.extend(left.into_iter().filter_map(|(why, node)| Some((node, why?))));
        kept.into_iter().map(|(_, node)| node).collect::<Vec<_>>()
    };
    // Each rule looks at what the rules before left: a node that is not listed for one reason must not cost another
    // its own.
    let nodes = keep(nodes, &|node| is_slow(parameters, node.descriptor.body()));
    let nodes = keep(nodes, &|node| before?.contradiction(node.descriptor.body()));
    let of = |node: &ListedNode| node.descriptor.body().operator.clone();
    let is = |node: &ListedNode, role| node.descriptor.body().role == role;
    let gateways: BTreeSet<String> =
        nodes.iter().filter(|node| is(node, Role::Gateway)).map(of).collect();
    let nodes = keep(nodes, &|node| {
        let both = is(node, Role::Mix) && gateways.contains(&of(node));
        both.then(|| NotListed::RunsGateway(of(node)))
    });
    if !parameters.distinct_jurisdictions {
        return (nodes, out);
    }
    let mut laws: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| is(node, Role::Mix)) {
        let law = node.descriptor.body().jurisdiction.clone();
        *laws.entry(of(node)).or_default().entry(law).or_default() += 1;
    }
    let first = |laws: &BTreeMap<String, usize>| {
        // Of equal ones the first by name: the choice must be the same at every authority.
        laws.iter()
            .min_by_key(|(law, mixes)| (Reverse(**mixes), (*law).clone()))
            .map(|(law, _)| law.clone())
    };
    let nodes = keep(nodes, &|node| {
        let law = first(laws.get(&of(node))?)?;
        let other = is(node, Role::Mix) && node.descriptor.body().jurisdiction != law;
        other.then(|| NotListed::OtherLaw(of(node), law))
    });
    (nodes, out)
}

/// Gives every mix the layers of its operator: those that it has, and from the epoch of a draw on those that the draw gives
/// it. Operators that are new go to the smallest layers, the largest first.
pub(crate) fn assign_layers(
    document: &mut Document,
    before: Option<&Document>,
    from: Option<Epoch>,
) {
    let known = before.map(|before| known(document, before)).unwrap_or_default();
    let moved = match (before, from) {
        (Some(_), Some(from)) => moves(document, &known, from),
        _ => BTreeMap::new(),
    };
    settle(document, &known, from, &moved);
    // Layers were balanced by the document before, as what is said last must not matter; who has left since is seen
    // here.
    if !moved.is_empty() && document.check_layering().is_err() {
        // So many nodes left since that a layer would be short.
        settle(document, &known, from, &BTreeMap::new());
    }
    mend(document);
}

/// Moves operators into layers that are short, as few as it takes; where that does not do, places all of them anew. A
/// document that is short of mixes altogether stays as it is.
fn mend(document: &mut Document) {
    let as_it_was = document.nodes.clone();
    let mut moved = BTreeSet::new();
    while let Some((epoch, layer)) = short(document) {
        // Nobody moves twice, so this ends: each turn of the loop adds a name.
        let Some(name) = who_moves(document, (epoch, layer), &moved) else { break };
        move_to(document, &name, layer);
        moved.insert(name);
    }
    if short(document).is_some() {
        settle(document, &BTreeMap::new(), None, &BTreeMap::new());
    }
    if short(document).is_some() {
        document.nodes = as_it_was;
    }
}

/// True if a layer has fewer mixes in good standing than the document asks for.
pub(super) fn is_short(document: &Document) -> bool {
    short(document).is_some()
}

/// The first epoch in which a layer has fewer mixes in good standing than the network asks for, and of such layers the
/// smallest.
fn short(document: &Document) -> Option<(Epoch, u8)> {
    let needed = usize::from(document.parameters.min_mixes_per_layer.max(1));
    document.epochs().find_map(|epoch| {
        let sizes =
            (1..=document.parameters.layers).map(|l| (document.in_layer_at(epoch, l).count(), l));
        let (size, layer) = sizes.min()?;
        (size < needed).then_some((epoch, layer))
    })
}

/// Who moves into a layer that is short: of the layers that can spare somebody the largest, and in it the smallest operator
/// that is enough, or else the largest; of equal ones by lot.
fn who_moves(
    document: &Document,
    (epoch, short): (Epoch, u8),
    moved: &BTreeSet<String>,
) -> Option<String> {
    let needed = usize::from(document.parameters.min_mixes_per_layer.max(1));
    let size = |layer| document.in_layer_at(epoch, layer).count();
    let lacks = needed.saturating_sub(size(short));
    let mut donors: Vec<u8> = (1..=document.parameters.layers).filter(|l| *l != short).collect();
    donors.sort_by_key(|layer| (Reverse(size(*layer)), *layer));
    donors.into_iter().find_map(|layer| {
        let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
        for node in document.in_layer_at(epoch, layer).filter_map(|index| document.node(index)) {
            *operators.entry(unit(&document.parameters, node)).or_default() += 1;
        }
        // A layer gives only what leaves it as large as is asked: else the hole would move and not close.
        let spare = size(layer).saturating_sub(needed);
        let can = |(name, mixes): &(&str, usize)| *mixes <= spare && !moved.contains(*name);
        let order = |(name, mixes): &(&str, usize)| {
            let enough = *mixes >= lacks;
            // One key orders both ways: among those that are enough the smallest first, among the others the largest.
            let last = if enough { *mixes } else { usize::MAX - *mixes };
            (!enough, last, lot(&document.draw.value, document.epoch, name.as_bytes()))
        };
        operators.into_iter().filter(can).min_by_key(order).map(|(name, _)| name.to_owned())
    })
}

/// Gives an operator this layer in all epochs of the document.
fn move_to(document: &mut Document, name: &str, layer: u8) {
    let parameters = document.parameters.clone();
    let mix = |node: &ListedNode| node.descriptor.body().role == Role::Mix;
    for node in document.nodes.iter_mut().filter(|node| mix(node)) {
        if unit(&parameters, node) == name {
            node.layers = [layer; 1 + FURTHER_EPOCHS as usize];
        }
    }
}

/// Where operators stand in the epochs of the new document by the one before, and how many mixes they had in that.
fn known(document: &Document, before: &Document) -> BTreeMap<String, (Layers, usize)> {
    let mut known: BTreeMap<String, Option<(Layers, usize)>> = BTreeMap::new();
    let mixes = before.nodes.iter().filter(|node| node.descriptor.body().role == Role::Mix);
    for node in mixes {
        let mut layers = [0; 1 + FURTHER_EPOCHS as usize];
        for (layer, epoch) in layers.iter_mut().zip(document.epochs()) {
            *layer = before.layer_at(node, epoch);
        }
        let sound = layers.iter().all(|layer| (1..=document.parameters.layers).contains(layer));
        let entry = known
            .entry(unit(&document.parameters, node).to_owned())
            .or_insert_with(|| sound.then_some((layers, 0)));
        // Where the parameters changed, some stand in several layers: they are placed anew.
        *entry = match entry {
            Some((first, mixes)) if *first == layers => Some((layers, *mixes + 1)),
            _ => None,
        };
    }
    known.into_iter().filter_map(|(name, known)| Some((name, known?))).collect()
}

/// Who moves in a draw, and where to: from the largest layer to the smallest, whoever brings them nearest to each other, of
/// equal ones by lot.
fn moves(
    document: &Document,
    known: &BTreeMap<String, (Layers, usize)>,
    from: Epoch,
) -> BTreeMap<String, u8> {
    let value = &document.draw.value;
    let mut stand: BTreeMap<&String, (u8, usize)> = BTreeMap::new();
    let mut sizes: BTreeMap<u8, usize> = (1..=document.parameters.layers).map(|l| (l, 0)).collect();
    for (name, (layers, mixes)) in known {
        let layer = layers.last().copied().unwrap_or_default();
        stand.insert(name, (layer, *mixes));
        *sizes.entry(layer).or_default() += mixes;
    }
    let mut moved = BTreeMap::new();
    // Each move is another chance for corrupt operators to stand in all layers of a path.
    let most = (known.len() / SHARE).max(1);
    while moved.len() < most {
        let lot = |layer: u8| lot(value, from, &[layer]);
        let largest = sizes.iter().max_by_key(|(layer, size)| (**size, lot(**layer)));
        let smallest = sizes.iter().min_by_key(|(layer, size)| (**size, lot(**layer)));
        let (Some((&largest, &most)), Some((&smallest, &least))) = (largest, smallest) else {
            break;
        };
        // Balanced to an eighth is enough: moving more would buy nothing and cost a chance.
        if least * SHARE >= most * (SHARE - 1) {
            break;
        }
        let apart = most - least;
        let candidates = stand.iter().filter(|(name, (layer, mixes))| {
            // One that is as large as the difference would only exchange the two layers.
            *layer == largest && *mixes < apart && !moved.contains_key(**name)
        });
        let best = candidates.min_by_key(|(name, (_, mixes))| {
            ((2 * mixes).abs_diff(apart), self::lot(value, from, name.as_bytes()))
        });
        let Some((&name, &(_, mixes))) = best else { break };
        stand.insert(name, (smallest, mixes));
        moved.insert(name.clone(), smallest);
        sizes.insert(largest, most - mixes);
        sizes.insert(smallest, least + mixes);
    }
    moved
}

/// Writes the layers into the document.
fn settle(
    document: &mut Document,
    known: &BTreeMap<String, (Layers, usize)>,
    from: Option<Epoch>,
    moved: &BTreeMap<String, u8>,
) {
    let epochs: Vec<Epoch> = document.epochs().collect();
    let mut mixes: BTreeMap<String, usize> = BTreeMap::new();
    for node in document.nodes.iter().filter(|node| node.descriptor.body().role == Role::Mix) {
        *mixes.entry(unit(&document.parameters, node).to_owned()).or_default() += 1;
    }
    let mut homes: BTreeMap<String, Layers> = BTreeMap::new();
    let mut sizes: BTreeMap<u8, usize> = (1..=document.parameters.layers).map(|l| (l, 0)).collect();
    for (name, (layers, _)) in known {
        // Who has no mix any more gives its place up; coming back it is new.
        let Some(count) = mixes.get(name) else { continue };
        let mut layers = *layers;
        if let (Some(to), Some(from)) = (moved.get(name), from) {
            let drawn = layers.iter_mut().zip(&epochs).filter(|(_, epoch)| **epoch >= from);
            // Epochs before the draw keep their layers: packets for them are under way.
            drawn.for_each(|(layer, _)| *layer = *to);
        }
        *sizes.entry(layers.last().copied().unwrap_or_default()).or_default() += count;
        homes.insert(name.clone(), layers);
    }
    let value = document.draw.value;
    let lot = |bytes: &[u8]| lot(&value, document.epoch, bytes);
    let mut new: Vec<(&String, &usize)> =
        mixes.iter().filter(|(name, _)| !homes.contains_key(*name)).collect();
    // The largest first, as small ones can fill what is left.
    new.sort_by_key(|(name, count)| (Reverse(**count), lot(name.as_bytes())));
    for (name, count) in new {
        let tie = |layer: u8| lot(&[name.as_bytes(), &[layer]].concat());
        let smallest = sizes.iter().min_by_key(|(layer, size)| (**size, tie(**layer)));
        let Some(layer) = smallest.map(|(layer, _)| *layer) else { break };
        *sizes.entry(layer).or_default() += count;
        homes.insert(name.clone(), [layer; 1 + FURTHER_EPOCHS as usize]);
    }
    let parameters = document.parameters.clone();
    for node in &mut document.nodes {
        let mix = node.descriptor.body().role == Role::Mix;
        let home = homes.get(unit(&parameters, node)).filter(|_| mix);
        node.layers = home.copied().unwrap_or_default();
    }
}

/// The lot of a name in this draw.
fn lot(value: &[u8; 32], epoch: Epoch, name: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("shoal 2026 draw of layers");
    hash.update(value).update(&epoch.0.to_be_bytes()).update(name);
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
