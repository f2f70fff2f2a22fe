//! Paths: drawn uniformly, never by latency, among those whose nodes all differ in operator.

use rand::{Rng, RngExt, seq::SliceRandom};

use crate::{Document, Epoch, Error};

/// Draws before the search gives up on chance. With one sound path in a thousand, e^-10 is left.
const DRAWS: usize = 10_000;

/// The paths of a document.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Places of the mixes, a layer each.
    layers: Vec<Vec<usize>>,
    gateways: Vec<usize>,
    /// Operator and, where it counts, jurisdiction of each node, as small numbers.
    units: Vec<(u32, Option<u32>)>,
}

impl Paths {
    /// Of a document, sound or not, in its own epoch.
    pub fn new(document: &Document) -> Self {
        Self::at(document, document.epoch)
    }

    /// Of a document in an epoch: of nodes in good standing.
    pub fn at(document: &Document, epoch: Epoch) -> Self {
        let place = |layer| document.in_layer_at(epoch, layer).collect();
        Self::of(document, place)
    }

    /// Of a document in an epoch: of all nodes, for loops that test them.
    pub fn of_all(document: &Document, epoch: Epoch) -> Self {
        let place = |layer| document.all_in_layer_at(epoch, layer).collect();
        Self::of(document, place)
    }

    fn of(document: &Document, places: impl Fn(u8) -> Vec<usize>) -> Self {
        let mut names = std::collections::HashMap::new();
        let mut number = |kind: u8, name: &str| {
            let next = names.len() as u32;
            *names.entry((kind, name.to_owned())).or_insert(next)
        };
        let units = document
            .nodes
            .iter()
            .map(|node| {
                let node = node.descriptor.body();
                let jurisdiction = document
                    .parameters
                    .distinct_jurisdictions
                    .then(|| number(1, &node.jurisdiction));
                (number(0, &node.operator), jurisdiction)
            })
            .collect();
        let layers = (1..=document.parameters.layers).map(&places).collect();
        Self { layers, gateways: places(0), units }
    }

    /// Mixes for a packet that enters at one gateway and leaves at another; both the same for a loop. `None` if
    /// no path keeps the rules.
    pub fn draw(&self, rng: &mut impl Rng, entry: usize, exit: usize) -> Option<Vec<usize>> {
        let ends = if entry == exit { vec![entry] } else { vec![entry, exit] };
        self.complete(rng, &ends, &self.all_layers())
    }

    /// Hops of a loop of the node at `start`, itself last: from a mix of layer i the layers i + 1 to L, a
    /// gateway, the layers 1 to i; from a gateway all layers. `None` if no loop keeps the rules.
    pub fn draw_node_loop(&self, rng: &mut impl Rng, start: usize) -> Option<Vec<usize>> {
        let mut layers = self.all_layers();
        if let Some(own) = layers.iter().position(|layer| layer.contains(&start)) {
            layers.rotate_left(own);
            // The gateway takes the place of the node's own layer, behind layer L.
            let gateway_at = layers.len() - own;
            layers.insert(gateway_at, &self.gateways);
            layers.remove(0);
        }
        let mut path = self.complete(rng, &[start], &layers)?;
        path.push(start);
        Some(path)
    }

    fn all_layers(&self) -> Vec<&[usize]> {
        self.layers.iter().map(Vec::as_slice).collect()
    }

    fn conflict(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.units.get(a), self.units.get(b)) else { return true };
        a.0 == b.0 || (a.1.is_some() && a.1 == b.1)
    }

    fn fits(&self, chosen: &[usize], node: usize) -> bool {
        chosen.iter().all(|other| !self.conflict(*other, node))
    }

    /// One node of each of `layers`, in this order, that go with `ends` and with each other.
    fn complete(
        &self,
        rng: &mut impl Rng,
        ends: &[usize],
        layers: &[&[usize]],
    ) -> Option<Vec<usize>> {
        if let [a, b] = ends
            && self.conflict(*a, *b)
        {
            return None;
        }
        if layers.iter().any(|layer| layer.is_empty()) {
            return None;
        }
        // Rejection keeps the draw uniform over sound paths.
        for _ in 0..DRAWS {
            let mut chosen = ends.to_vec();
            let sound = layers.iter().all(|layer| {
                let drawn = layer.get(rng.random_range(0..layer.len())).copied();
                drawn.is_some_and(|node| {
                    let fits = self.fits(&chosen, node);
                    chosen.push(node);
                    fits
                })
            });
            if sound {
                return Some(chosen.split_off(ends.len()));
            }
        }
        let mut chosen = ends.to_vec();
        self.search(rng, &mut chosen, layers).then(|| chosen.split_off(ends.len()))
    }

    /// Exhaustive, in random order: for documents in which sound paths are rare.
    fn search(&self, rng: &mut impl Rng, chosen: &mut Vec<usize>, layers: &[&[usize]]) -> bool {
        let Some((layer, rest)) = layers.split_first() else { return true };
        let mut candidates: Vec<usize> =
            layer.iter().copied().filter(|node| self.fits(chosen, *node)).collect();
        candidates.shuffle(rng);
        for node in self.one_of_each_unit(candidates) {
            chosen.push(node);
            if self.search(rng, chosen, rest) {
                return true;
            }
            chosen.pop();
        }
        false
    }

    /// One node stands for all of its unit: they conflict with the same nodes.
    fn one_of_each_unit(&self, mut nodes: Vec<usize>) -> Vec<usize> {
        let mut seen = std::collections::HashSet::new();
        nodes.retain(|node| self.units.get(*node).is_some_and(|unit| seen.insert(*unit)));
        nodes
    }

    /// Whether one node of each of `layers` goes with those that are chosen and with each other.
    fn exists(&self, chosen: &mut Vec<usize>, layers: &[Vec<usize>]) -> bool {
        let Some((layer, rest)) = layers.split_first() else { return true };
        layer.iter().any(|node| {
            if !self.fits(chosen, *node) {
                return false;
            }
            chosen.push(*node);
            let found = self.exists(chosen, rest);
            chosen.pop();
            found
        })
    }

    /// Whether every gateway has a loop and every two gateways that go together have a path.
    pub(crate) fn check_satisfiable(&self) -> Result<(), Error> {
        let units = |layer: &Vec<usize>| self.one_of_each_unit(layer.clone());
        let layers: Vec<Vec<usize>> = self.layers.iter().map(units).collect();
        let gateways = self.one_of_each_unit(self.gateways.clone());
        let mut pairs = 0;
        for (i, entry) in gateways.iter().enumerate() {
            if !self.exists(&mut vec![*entry], &layers) {
                return Err(Error::Unsatisfiable { why: "a gateway has no loop".into() });
            }
            for exit in gateways.iter().skip(i + 1) {
                if self.conflict(*entry, *exit) {
                    continue;
                }
                pairs += 1;
                if !self.exists(&mut vec![*entry, *exit], &layers) {
                    return Err(Error::Unsatisfiable {
                        why: "two gateways are joined by no path".into(),
                    });
                }
            }
        }
        if pairs == 0 {
            return Err(Error::Unsatisfiable {
                why: "there are no two gateways of different operators".into(),
            });
        }
        Ok(())
    }

    /// Whether a packet may enter at one of these gateways and leave at the other.
    pub fn compatible(&self, entry: usize, exit: usize) -> bool {
        !self.conflict(entry, exit)
    }
}
