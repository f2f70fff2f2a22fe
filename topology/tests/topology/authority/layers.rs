//! Draws of layers, nodes that come and go, and bytes that are no message.

use proptest::prelude::*;

use super::*;

fn layers_at(document: &Document, epoch: u64) -> Vec<u8> {
    document.nodes.iter().map(|node| document.layer_at(node, Epoch(FIRST + epoch))).collect()
}
