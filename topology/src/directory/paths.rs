//! Paths: one mix of each layer, drawn uniformly and independently, never by latency and never by where a packet goes.
//!
//! That all mixes of a path differ in operator is a rule for documents ([`Document::check`]): an operator's mixes
//! stand in one layer, and whoever runs a gateway runs no mix. So no draw is rejected, and the first hop of a packet says nothing of
//! the rest of its path.

use std::collections::HashMap;

use rand::{Rng, RngExt};

use crate::{Document, Epoch};

/// The paths of a document.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Indices of the mixes, a layer each.
    layers: Vec<Vec<usize>>,
    gateways: Vec<usize>,
    /// Operator of each node, as a small number.
    operators: Vec<u32>,
}

impl Paths {
    /// Of a document, sound or not, in its own epoch.
    pub fn new(document: &Document) -> Self {
        Self::at(document, document.epoch)
    }

    /// Of a document in an epoch: of nodes in good standing.
    pub fn at(document: &Document, epoch: Epoch) -> Self {
        let indices = |layer| document.in_layer_at(epoch, layer).collect();
        Self::of(document, indices)
    }

    /// Of a document in an epoch: of all nodes, for loops that test them.
    pub fn of_all(document: &Document, epoch: Epoch) -> Self {
        let indices = |layer| document.all_in_layer_at(epoch, layer).collect();
        Self::of(document, indices)
    }

    fn of(document: &Document, indices: impl Fn(u8) -> Vec<usize>) -> Self {
        let mut names: HashMap<&str, u32> = HashMap::new();
        let operators = document.nodes.iter().map(|node| {
            // Numbered in the order of the list; only whether two are equal matters.
            let next = names.len() as u32;
            *names.entry(&node.descriptor.body().operator).or_insert(next)
        });
        let operators = operators.collect();
        let layers = (1..=document.parameters.layers).map(&indices).collect();
        Self { layers, gateways: indices(0), operators }
    }

    /// Mixes for a packet, layer 1 first, whatever gateways it enters and leaves at. `None` if a layer is empty.
    pub fn draw(&self, rng: &mut impl Rng) -> Option<Vec<usize>> {
        self.layers.iter().map(|layer| one_of(rng, layer)).collect()
    }

    /// Mixes for a packet whose first hop is `first`. `None` if this is no mix of layer 1, or another layer is empty.
    pub fn draw_after(&self, rng: &mut impl Rng, first: usize) -> Option<Vec<usize>> {
        let (own, others) = self.layers.split_first()?;
        // `None` rather than another mix: the slot has shown its first hop to the gateway already.
        let first = own.contains(&first).then_some(first);
        std::iter::once(first).chain(others.iter().map(|layer| one_of(rng, layer))).collect()
    }

    /// Hops of a loop of the node at `start`, itself last: from a mix of layer i the layers i + 1 to L, any
    /// gateway, the layers 1 to i − 1; from a gateway all layers. `None` if one of these is empty.
    pub fn draw_node_loop(&self, rng: &mut impl Rng, start: usize) -> Option<Vec<usize>> {
        let own = self.layers.iter().position(|layer| layer.contains(&start));
        // A node's loop goes on where its own packets go, comes back by a gateway, and so tests each link in the
        // direction in which it is used.
        let (behind, before) = match own {
            Some(own) => (self.layers.get(own + 1..)?, self.layers.get(..own)?),
            None => (self.layers.as_slice(), [].as_slice()),
        };
        let gateways = own.map(|_| &self.gateways);
        let crossed = behind.iter().chain(gateways).chain(before);
        let hops = crossed.map(|nodes| one_of(rng, nodes));
        hops.chain([Some(start)]).collect()
    }

    /// Indices of the gateways among which paths are drawn.
    pub fn gateways(&self) -> &[usize] {
        &self.gateways
    }

    /// True if two nodes, of the two gateways that one client names or that a tunnel has at its ends, differ in
    /// operator.
    pub fn compatible(&self, entry: usize, exit: usize) -> bool {
        match (self.operators.get(entry), self.operators.get(exit)) {
            (Some(entry), Some(exit)) => entry != exit,
            // An index that the document does not have is compatible with nothing.
            _ => false,
        }
    }
}

fn one_of(rng: &mut impl Rng, nodes: &[usize]) -> Option<usize> {
    let last = nodes.len().checked_sub(1)?;
    nodes.get(rng.random_range(0..=last)).copied()
}
