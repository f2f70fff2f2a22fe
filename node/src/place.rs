//! Where a node stands in a document: whom it takes packets from and whom it sends to.

use std::collections::HashSet;

use shoal_topology::{Document, Identity};

/// A node's place. Layer i sends to layer i + 1, the last layer to gateways, gateways to layer 1.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its place in the list.
    pub index: usize,
    /// 1 to L; zero for a gateway.
    pub layer: u8,
    /// Places of the nodes it sends to.
    pub next: Vec<usize>,
    next_identities: HashSet<Identity>,
    previous: HashSet<Identity>,
}

impl Place {
    /// The place of a node; `None` if the document does not list it.
    pub fn of(document: &Document, identity: &Identity) -> Option<Self> {
        let index = document.index_of(identity)?;
        let layer = document.node(index)?.layer;
        let layers = document.parameters.layers;
        // Zero stands between L and 1.
        let after = if layer == layers { 0 } else { layer + 1 };
        let before = if layer == 0 { layers } else { layer - 1 };
        let names = |layer| {
            let identity = |at| document.node(at).map(shoal_topology::ListedNode::identity);
            document.in_layer(layer).filter_map(identity).collect()
        };
        Some(Self {
            index,
            layer,
            next: document.in_layer(after).collect(),
            next_identities: names(after),
            previous: names(before),
        })
    }

    /// Whether it sends packets to this node.
    pub fn sends_to(&self, node: &Identity) -> bool {
        self.next_identities.contains(node)
    }

    /// Whether it takes packets from this node.
    pub fn takes_from(&self, node: &Identity) -> bool {
        self.previous.contains(node)
    }

    /// The nodes it takes packets from.
    pub fn previous(&self) -> impl Iterator<Item = &Identity> {
        self.previous.iter()
    }
}
