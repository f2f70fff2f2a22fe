//! The directory of a world in which authorities make a document for each epoch: they, and what every node does to follow.

use super::authorities::Authorities;
use super::network::Network;
use super::settings::Settings;
use super::watcher::Watcher;
use shoal_node::Neighbours;
use shoal_topology::{Seed, SignedDocument, VerifiedDocument};

/// The authorities, and what each node's program does to follow them.
pub(super) struct Directory {
    pub(super) authorities: Authorities,
    pub(super) watchers: Vec<Watcher>,
    linked: Linked,
    /// Documents that clients and the exit refused, or could not read.
    pub(super) refused_by_clients: u64,
    /// Documents that nodes refused.
    pub(super) refused_by_nodes: u64,
    /// Nodes that saw two documents of one epoch.
    pub(super) contradictions: u64,
    /// Frames between nodes whose documents have no such link.
    pub(super) unlinked: u64,
}

impl Directory {
    /// Of a world with authorities.
    pub(super) fn new(settings: &Settings, network: &Network, seed: &Seed) -> Option<Self> {
        let authorities = Authorities::new(settings, network, seed)?;
        let watcher = |number| Watcher::new(number, authorities.count());
        Some(Self {
            watchers: (0..network.nodes()).map(watcher).collect(),
            linked: Linked::new(network.nodes()),
            authorities,
            refused_by_clients: 0,
            refused_by_nodes: 0,
            contradictions: 0,
            unlinked: 0,
        })
    }

    /// A document as a client reads it; what cannot be used is counted.
    pub(super) fn verify(&mut self, bytes: Vec<u8>, unix_s: u64) -> Option<VerifiedDocument> {
        match SignedDocument::verify(&bytes, &self.authorities.network, unix_s) {
            Ok(document) => {
                Some(VerifiedDocument { document: document.into(), signed: bytes.into() })
            }
            Err(_) => {
                self.refused_by_clients += 1;
                None
            }
        }
    }

    /// A node has other neighbours now.
    pub(super) fn relink(&mut self, network: &Network, node: usize) {
        let neighbours = self.watchers.get(node).and_then(Watcher::neighbours);
        self.linked.relink(network, node, neighbours);
    }

    /// Whether both ends know of a link; else the frame is lost, and counted.
    pub(super) fn links(&mut self, from: usize, to: usize) -> bool {
        let links = self.linked.links(from, to);
        self.unlinked += u64::from(!links);
        links
    }
}

/// Which nodes have links, by their own documents. Without a document a node refuses nobody.
struct Linked {
    nodes: usize,
    /// From a node (row) to another (column), as the first and as the second one has it.
    sends: Vec<bool>,
    takes: Vec<bool>,
}

impl Linked {
    fn new(nodes: usize) -> Self {
        Self { nodes, sends: vec![true; nodes * nodes], takes: vec![true; nodes * nodes] }
    }

    fn links(&self, from: usize, to: usize) -> bool {
        let at = from * self.nodes + to;
        self.sends.get(at) == Some(&true) && self.takes.get(at) == Some(&true)
    }

    fn relink(&mut self, network: &Network, node: usize, neighbours: Option<&Neighbours>) {
        for other in 0..self.nodes {
            let Some(identity) = network.identity(other as u32) else { continue };
            if let Some(sends) = self.sends.get_mut(node * self.nodes + other) {
                *sends = neighbours.is_none_or(|neighbours| neighbours.sends_to(&identity));
            }
            if let Some(takes) = self.takes.get_mut(other * self.nodes + node) {
                *takes = neighbours.is_none_or(|neighbours| neighbours.takes_from(&identity));
            }
        }
    }
}
