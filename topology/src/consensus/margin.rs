//! How much a network has lost: which nodes are missing, and what is asked of a document without them. What it can lose yet
//! says [`Spares`](crate::Spares).
//!
//! When nodes leave, documents are made of what is left. Where that is less than the parameters ask for, a document asks for
//! less: so many mixes in each layer as there can be, at least one ([`shrink`]). Nothing else is relaxed: paths still have
//! mixes of different operators, and gateways are of two, for with one operator at both ends of a path nothing is hidden.
//! What a short layer is worth is for clients to judge: they have a least number of mixes of their own, and count bits.

use super::{Authority, Event, draw};
use crate::directory::spares;
use crate::{Document, Epoch, FURTHER_EPOCHS, Identity, Role};

/// Places the mixes of a document that follows another so that no layer is short, and where that cannot be makes it ask for
/// fewer mixes in a layer.
pub(super) fn shrink(document: &mut Document, before: Option<&Document>, from: Option<Epoch>) {
    // A network begins whole.
    if before.is_none() || !draw::is_short(document) {
        return;
    }
    let asked = document.parameters.min_mixes_per_layer;
    let mixes = document.nodes.iter().filter(|node| node.descriptor.body().role == Role::Mix);
    // More than this no placing can reach, so the search begins there.
    let most = mixes.count() / usize::from(document.parameters.layers.max(1));
    let most = u16::try_from(most).unwrap_or(u16::MAX).min(asked.saturating_sub(1));
    for fewer in (1..=most).rev() {
        document.parameters.min_mixes_per_layer = fewer;
        draw::assign_layers(document, before, from);
        if !draw::is_short(document) {
            return;
        }
    }
    // Not even one in each layer: the document stays unsound by the number that was asked for, and says so.
    document.parameters.min_mixes_per_layer = asked;
    draw::assign_layers(document, before, from);
}

impl Authority {
    /// Nodes of a document, with their operators, that have not described themselves with keys for the epochs of the document
    /// of `epoch`.
    pub(super) fn missing(&self, before: &Document, epoch: Epoch) -> Vec<(Identity, String)> {
        let epochs = (0..=FURTHER_EPOCHS).map(|n| Epoch(epoch.0.saturating_add(n)));
        let is_missing = |who: &Identity| {
            let said = self.nodes.get(who);
            said.is_none_or(|said| !epochs.clone().all(|epoch| said.body().has_key(epoch)))
        };
        let nodes = before.nodes.iter().map(|node| node.descriptor.body());
        let missing = nodes.filter(|node| is_missing(&node.identity));
        missing.map(|node| (node.identity, node.operator.clone())).collect()
    }

    /// Says what is missing and what may not be lost, when that is other than before.
    pub(super) fn take_stock(&mut self, document: &Document, before: Option<&Document>) {
        let missing = before.map(|before| self.missing(before, document.epoch)).unwrap_or_default();
        let asked = self.parameters(document.epoch).min_mixes_per_layer;
        let found = document.parameters.min_mixes_per_layer;
        let critical = spares::critical(document);
        if missing != self.missing {
            self.missing.clone_from(&missing);
            self.event(Event::Missing(missing));
        }
        let is_short = found < asked;
        if is_short != self.is_short {
            self.is_short = is_short;
            self.event(if is_short { Event::Short { found, asked } } else { Event::Whole });
        }
        if critical != self.critical {
            self.critical.clone_from(&critical);
            self.event(Event::Critical(critical));
        }
    }
}
