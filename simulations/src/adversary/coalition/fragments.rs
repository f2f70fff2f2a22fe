//! What a coalition knows of each packet: the part of its way that goes through nodes of the coalition.

use std::collections::{BTreeSet, HashMap};

use crate::trace::{Party, Pass, View};

/// What everybody knows of a network, from its document and from people's descriptors. Mixes are numbered layer by layer from
/// zero, gateways come last.
#[derive(Clone, Debug)]
pub struct KnownNetwork {
    /// L, the number of layers.
    pub layers: u32,
    /// W, mixes of a layer.
    pub width: u32,
    /// The gateway of each person.
    pub gateway_of: Vec<u32>,
}

impl KnownNetwork {
    /// The layer of a mix, from zero; none of a gateway.
    pub(super) fn layer(&self, node: u32) -> Option<u32> {
        Some(node / self.width.max(1)).filter(|layer| *layer < self.layers)
    }
}

/// Whoever a packet is put down to: a person, where the gateway is of the coalition; else a gateway with all its people.
pub(super) type Entity = Party;

/// Where a packet comes from, or goes to, as far as the coalition knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FragmentEnd {
    /// Somebody to whom packets are put down.
    Entity(Entity),
    /// A mix that is not of the coalition.
    Mix(u32),
}

/// The part of a packet's way that goes through the coalition without a gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub(super) from: FragmentEnd,
    /// When it came to the coalition, nanoseconds.
    pub(super) came: u64,
    pub(super) to: FragmentEnd,
    /// When it left it.
    pub(super) left: u64,
    /// True if it passed a mix of the first layer, and of the last.
    pub(super) first_layer: bool,
    pub(super) last_layer: bool,
}

/// All that a coalition knows.
pub(super) struct Knowledge {
    pub(super) fragments: Vec<Fragment>,
    pub(super) network: KnownNetwork,
    /// The share of each layer's mixes that is of the coalition.
    pub(super) shares: Vec<f64>,
    members: BTreeSet<u32>,
}

impl Knowledge {
    /// To whom a person's packets are put down.
    pub(super) fn entity(&self, person: u32) -> Entity {
        match self.network.gateway_of.get(person as usize) {
            Some(gateway) if !self.members.contains(gateway) => Party::Node(*gateway),
            _ => Party::Person(person),
        }
    }

    /// How many people an entity stands for.
    pub(super) fn people(&self, entity: Entity) -> usize {
        match entity {
            Party::Node(node) => {
                self.network.gateway_of.iter().filter(|gateway| **gateway == node).count()
            }
            _ => 1,
        }
    }
}

/// What the members of a coalition know of a view.
pub(super) fn of(view: &View, network: &KnownNetwork, members: &BTreeSet<u32>) -> Knowledge {
    // What a node makes itself, and what ends at it, is nobody's.
    let own =
        |pass: &&Pass| pass.from != Party::Node(pass.node) && pass.to != Party::Node(pass.node);
    let passes: Vec<&Pass> =
        view.passes.iter().filter(|pass| members.contains(&pass.node)).collect();
    let arrivals: HashMap<(u32, u64), usize> =
        passes.iter().enumerate().map(|(index, pass)| ((pass.node, pass.came), index)).collect();
    let next = |pass: &Pass| match pass.to {
        Party::Node(to) if to != pass.node => arrivals.get(&(to, pass.went)).copied(),
        _ => None,
    };
    let mut follows = vec![false; passes.len()];
    for index in passes.iter().filter_map(|pass| next(pass)) {
        if let Some(follows) = follows.get_mut(index) {
            *follows = true;
        }
    }
    let mut fragments = Vec::new();
    for (first, _) in passes.iter().zip(&follows).filter(|(_, follows)| !**follows) {
        let mut way = vec![*first];
        while let Some(then) = way.last().and_then(|pass| next(pass))
            && let Some(pass) = passes.get(then)
            && way.len() < 8
        {
            way.push(*pass);
        }
        if way.iter().all(own) {
            fragments.extend(fragment(&way, network));
        }
    }
    let share = |layer: u32| {
        let of = members.iter().filter(|node| network.layer(**node) == Some(layer)).count();
        of as f64 / f64::from(network.width.max(1))
    };
    Knowledge {
        fragments,
        network: network.clone(),
        shares: (0..network.layers).map(share).collect(),
        members: members.clone(),
    }
}

fn fragment(way: &[&Pass], network: &KnownNetwork) -> Option<Fragment> {
    let (first, last) = (way.first()?, way.last()?);
    let end = |party: Party| match party {
        Party::Node(node) if network.layer(node).is_some() => FragmentEnd::Mix(node),
        other => FragmentEnd::Entity(other),
    };
    let passes = |layer: u32| way.iter().any(|pass| network.layer(pass.node) == Some(layer));
    Some(Fragment {
        from: end(first.from),
        came: first.arrived.as_nanos(),
        to: end(last.to),
        left: last.left.as_nanos(),
        first_layer: passes(0),
        last_layer: passes(network.layers - 1),
    })
}
