//! The neighbours of a node by a document: whom it takes packets from and whom it sends to.

use std::collections::{BTreeMap, HashSet};

use shoal_topology::{Document, DocumentStore, Epoch, Identity, ListedNode};

/// A node's neighbours in all epochs of a document. Layer i sends to layer i + 1, the last layer to gateways, gateways
/// to layer 1; nodes without good standing are among them too, for the loops that test them.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// The node's own index in the list.
    pub index: usize,
    /// The node's own layer, 1 to L in the document's own epoch; zero for a gateway.
    pub layer: u8,
    next: HashSet<Identity>,
    previous: HashSet<Identity>,
}

impl Neighbours {
    /// The neighbours of a node; `None` if the document does not list it.
    pub fn of(document: &Document, identity: &Identity) -> Option<Self> {
        let index = document.index_of(identity)?;
        let node = document.node(index)?;
        let layers = document.parameters.layers;
        let (mut next, mut previous) = (HashSet::new(), HashSet::new());
        let names = |epoch: Epoch, layer| {
            let identity = |at| document.node(at).map(ListedNode::identity);
            document.all_in_layer_at(epoch, layer).filter_map(identity)
        };
        let seen: BTreeMap<Vec<u8>, Epoch> = document
            .epochs()
            .map(|epoch| {
                (document.nodes.iter().map(|node| document.layer_at(node, epoch)).collect(), epoch)
            })
            .collect();
        for epoch in seen.into_values() {
            let layer = document.layer_at(node, epoch);
            // Zero stands between L and 1.
            let after = if layer == layers { 0 } else { layer + 1 };
            let before = if layer == 0 { layers } else { layer - 1 };
            next.extend(names(epoch, after));
            previous.extend(names(epoch, before));
        }
        let layer = document.layer_at(node, document.epoch);
        Some(Self { index, layer, next, previous })
    }

    /// Those by `document` and by all documents that are held: packets of the epoch before are still under way, and
    /// those of the next one may come early.
    pub fn among(
        documents: &DocumentStore,
        document: &Document,
        identity: &Identity,
    ) -> Option<Self> {
        let mut neighbours = Self::of(document, identity)?;
        neighbours.add(documents, identity);
        Some(neighbours)
    }

    /// As [`Self::among`], also before the epoch from which on the node is listed, and after the last one: in the first
    /// document that is held and lists it. Its links stand by then, and bring what is still under way to its end.
    pub fn around(documents: &DocumentStore, identity: &Identity) -> Option<Self> {
        let mut neighbours =
            documents.iter().find_map(|held| Self::of(&held.document, identity))?;
        neighbours.add(documents, identity);
        Some(neighbours)
    }

    fn add(&mut self, documents: &DocumentStore, identity: &Identity) {
        for held in documents.iter() {
            if let Some(other) = Self::of(&held.document, identity) {
                self.next.extend(other.next);
                self.previous.extend(other.previous);
            }
        }
    }

    /// True if it sends packets to this node.
    pub fn sends_to(&self, node: &Identity) -> bool {
        self.next.contains(node)
    }

    /// True if it takes packets from this node.
    pub fn takes_from(&self, node: &Identity) -> bool {
        self.previous.contains(node)
    }

    /// The nodes it takes packets from.
    pub fn previous(&self) -> impl Iterator<Item = &Identity> {
        self.previous.iter()
    }

    /// The nodes it sends packets to.
    pub fn next(&self) -> impl Iterator<Item = &Identity> {
        self.next.iter()
    }
}
