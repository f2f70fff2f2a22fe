//! How much a network can lose: the operators that no document could do without.

use std::collections::BTreeSet;

use crate::consensus::draw;
use crate::{Document, Epoch};

/// In networks of more operators it is not asked who of them could be missed: so many have spare ones.
const MOST_OPERATORS: usize = 64;

/// Operators without whose nodes a document that follows this one would be short, or none.
pub(crate) fn critical(document: &Document) -> Vec<String> {
    let operators: BTreeSet<&str> =
        document.nodes.iter().map(|node| node.descriptor.body().operator.as_str()).collect();
    if operators.len() > MOST_OPERATORS {
        return Vec::new();
    }
    let is_missed = |operator: &&str| {
        let mut rest = document.clone();
        rest.nodes.retain(|node| node.descriptor.body().operator != **operator);
        // By the very rule that makes the next document, so that nobody is warned of a loss that would be mended.
        draw::assign_layers(&mut rest, Some(document), None);
        rest.check_layering().is_err()
    };
    operators.into_iter().filter(is_missed).map(str::to_owned).collect()
}

/// The operators that cannot be missed, by the document in use: for whoever is to be warned before one of them is. It is
/// given each document as it comes into use, and works on new ones only.
#[derive(Default, Debug)]
pub struct Spares {
    /// Epoch and amendment of the document that was looked at.
    of: Option<(Epoch, u16)>,
    critical: Vec<String>,
}

impl Spares {
    /// Looks at the document in use, unless it was looked at already.
    pub fn follow(&mut self, document: &Document) {
        let of = Some((document.epoch, document.amendment));
        if self.of != of {
            (self.of, self.critical) = (of, critical(document));
        }
    }

    /// How many operators the network cannot do without.
    pub fn critical(&self) -> usize {
        self.critical.len()
    }

    /// What to say of that; `None` if any one of them may go.
    pub fn warning(&self) -> Option<String> {
        (!self.critical.is_empty()).then(|| no_spare(&self.critical))
    }
}

/// The sentence that names them.
pub(crate) fn no_spare(critical: &[String]) -> String {
    format!(
        "no spare left: the loss of any one of these operators would leave layers short, or the network without documents: {}",
        critical.join(", ")
    )
}
