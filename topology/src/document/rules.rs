//! Who may stand where, so that every path has different operators without a rule for paths.

use std::collections::{BTreeMap, BTreeSet};

use super::{Document, ListedNode, Standing};
use crate::{Epoch, Error, Role};

/// Gateways of at least so many operators: a client names two, and tunnels have another at either end.
const GATEWAY_OPERATORS: usize = 2;

impl Document {
    /// Checks in every epoch that each layer has enough mixes and that operators stand where they may.
    pub(crate) fn check_places(&self) -> Result<(), Error> {
        self.check_roles()?;
        let mut before = None;
        for epoch in self.epochs() {
            let layers: Vec<u8> =
                self.nodes.iter().map(|node| self.layer_at(node, epoch)).collect();
            if before.as_ref() == Some(&layers) {
                continue;
            }
            self.check_layers(epoch)?;
            before = Some(layers);
        }
        Ok(())
    }

    /// An operator that runs a gateway runs no mix, and there are gateways of two operators.
    fn check_roles(&self) -> Result<(), Error> {
        let of =
            |role: Role| self.nodes.iter().filter(move |node| node.descriptor.body().role == role);
        let operator = |node: &'_ ListedNode| node.descriptor.body().operator.clone();
        let gateways: BTreeSet<String> = of(Role::Gateway).map(operator).collect();
        if let Some(both) = of(Role::Mix).map(operator).find(|name| gateways.contains(name)) {
            return broken(format!(
                "operator {both:?} runs a gateway and a mix; list its gateways or its mixes"
            ));
        }
        let good = of(Role::Gateway).filter(|node| node.standing == Standing::Good);
        let good: BTreeSet<String> = good.map(operator).collect();
        if good.len() < GATEWAY_OPERATORS {
            let names: Vec<&String> = good.iter().collect();
            return broken(format!(
                "gateways in good standing are of {} operators ({names:?}), {GATEWAY_OPERATORS} are needed; list \
                 a gateway of another one",
                good.len()
            ));
        }
        Ok(())
    }

    fn check_layers(&self, epoch: Epoch) -> Result<(), Error> {
        let body = |place: usize| self.node(place).map(|node| node.descriptor.body());
        let layers = 1..=self.parameters.layers;
        let needed = usize::from(self.parameters.min_mixes_per_layer.max(1));
        for layer in layers.clone() {
            let found = self.in_layer_at(epoch, layer).count();
            if found < needed {
                return Err(Error::TooFewMixes { layer, found, needed });
            }
        }
        let places = || {
            layers
                .clone()
                .flat_map(|layer| self.all_in_layer_at(epoch, layer).map(move |at| (layer, at)))
                .filter_map(|(layer, at)| Some((layer, body(at)?)))
        };
        one_layer("operator", places().map(|(layer, node)| (node.operator.as_str(), layer)))?;
        if self.parameters.distinct_jurisdictions {
            let laws = || places().map(|(layer, node)| (node.jurisdiction.as_str(), layer));
            let found = laws().map(|(law, _)| law).collect::<BTreeSet<_>>().len();
            let needed = usize::from(self.parameters.layers);
            if found < needed {
                return broken(format!(
                    "mixes stand under {found} jurisdictions, and {needed} are needed where jurisdictions count; list \
                     mixes of others"
                ));
            }
            one_layer("jurisdiction", laws())?;
        }
        Ok(())
    }
}

/// Whether all of one name stand in one layer.
fn one_layer<'a>(what: &str, places: impl Iterator<Item = (&'a str, u8)>) -> Result<(), Error> {
    let mut seen: BTreeMap<&str, u8> = BTreeMap::new();
    for (name, layer) in places {
        let first = *seen.entry(name).or_insert(layer);
        if first != layer {
            return broken(format!(
                "{what} {name:?} has mixes in layers {} and {}; all of one {what} stand in one layer",
                first.min(layer),
                first.max(layer)
            ));
        }
    }
    Ok(())
}

fn broken(why: String) -> Result<(), Error> {
    Err(Error::Operators { why })
}
