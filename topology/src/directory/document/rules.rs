//! Who may stand where, so that every path has different operators without a rule for paths.

use std::collections::{BTreeMap, BTreeSet};

use super::{Document, ListedNode, Standing};
use crate::{Epoch, Error, NodeDescriptor, Parameters, Role};

/// Gateways of at least so many operators: a client names two, and tunnels have another at either end.
const GATEWAY_OPERATORS: usize = 2;

/// Who gets a layer as a whole: an operator, or, where jurisdictions count, all mixes under one law.
pub(crate) fn unit<'a>(parameters: &Parameters, node: &'a ListedNode) -> &'a str {
    let body = node.descriptor.body();
    if parameters.distinct_jurisdictions { &body.jurisdiction } else { &body.operator }
}

/// Why authorities list a node nowhere although it described itself. Names are those of the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotListed {
    /// A mix whose operator runs gateways.
    #[error(
        "operator {0:?} runs a gateway, and so no mix; run one of both, or name the mix's operator if it is another"
    )]
    RunsGateway(String),
    /// A gateway whose operator runs mixes.
    #[error(
        "operator {0:?} runs mixes, and so no gateway; run one of both, or name the gateway's operator if it is another"
    )]
    RunsMixes(String),
    /// A mix under another law than its operator's other ones, where jurisdictions count.
    #[error(
        "the other mixes of operator {0:?} stand under {1:?}, and all of an operator stand under one jurisdiction"
    )]
    OtherLaw(String, String),
    /// A node that says another role, operator, or, where it counts, jurisdiction than the document before.
    #[error(
        "it changed its role, operator or jurisdiction; it is listed anew in the next document but one"
    )]
    Changed,
    /// A mix that declares to take fewer packets/s than a mix must.
    #[error(
        "it declares {0} packets a second, and a mix must take {1}: max_packets_per_s in its configuration says how many"
    )]
    Slow(u32, u32),
}

/// Says whether it is a mix that takes too little.
pub(crate) fn is_slow(parameters: &Parameters, node: &NodeDescriptor) -> Option<NotListed> {
    let (declared, least) = (node.packets_per_s, parameters.min_packets_per_s);
    (node.role == Role::Mix && declared < least).then_some(NotListed::Slow(declared, least))
}

impl Document {
    /// Why a node that describes itself so is not listed in the document that follows this one, if so.
    pub fn why_not_listed(&self, node: &NodeDescriptor) -> Option<NotListed> {
        is_slow(&self.parameters, node).or_else(|| self.contradiction(node))
    }

    /// What in this document speaks against listing a node in the next one, whatever parameters that has.
    pub(crate) fn contradiction(&self, node: &NodeDescriptor) -> Option<NotListed> {
        let law = self.parameters.distinct_jurisdictions;
        if let Some(listed) = self.index_of(&node.identity).and_then(|index| self.node(index)) {
            let listed = listed.descriptor.body();
            // Layers of the next document follow from this one, so who changes sides has to be absent from one
            // document first.
            let same = (listed.role, &listed.operator) == (node.role, &node.operator)
                && (!law || listed.jurisdiction == node.jurisdiction);
            return (!same).then_some(NotListed::Changed);
        }
        let others = self.nodes.iter().map(|node| node.descriptor.body());
        let others = others.filter(|other| other.operator == node.operator);
        let operator = node.operator.clone();
        for other in others {
            match (node.role, other.role) {
                (Role::Mix, Role::Gateway) => return Some(NotListed::RunsGateway(operator)),
                (Role::Gateway, Role::Mix) => return Some(NotListed::RunsMixes(operator)),
                (Role::Mix, Role::Mix) if law && other.jurisdiction != node.jurisdiction => {
                    return Some(NotListed::OtherLaw(operator, other.jurisdiction.clone()));
                }
                _ => {}
            }
        }
        None
    }

    /// Checks in every epoch that each layer has enough mixes and that operators stand where they may.
    pub(crate) fn check_layering(&self) -> Result<(), Error> {
        self.check_roles()?;
        let mut before = None;
        for epoch in self.epochs() {
            let layers: Vec<u8> =
                self.nodes.iter().map(|node| self.layer_at(node, epoch)).collect();
            // Most epochs of a document have the same layers; what was checked once need not be again.
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
        let bodies = self.nodes.iter().map(|node| node.descriptor.body());
        let slow = |node: &NodeDescriptor| is_slow(&self.parameters, node);
        if let Some(slow) = bodies.filter_map(slow).next() {
            let why = format!("a mix is listed that is too slow: {slow}");
            return Err(Error::Invalid { what: "document", why });
        }
        // Only those that clients may draw: a demoted gateway stands at nobody's end.
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
        let body = |index: usize| self.node(index).map(|node| node.descriptor.body());
        let layers = 1..=self.parameters.layers;
        let needed = usize::from(self.parameters.min_mixes_per_layer.max(1));
        for layer in layers.clone() {
            // Of good standing; but all mixes of an operator must stand in one layer, demoted ones too, since loops
            // go through them.
            let found = self.in_layer_at(epoch, layer).count();
            if found < needed {
                return Err(Error::TooFewMixes { layer, found, needed });
            }
        }
        let mixes = || {
            layers
                .clone()
                .flat_map(|layer| self.all_in_layer_at(epoch, layer).map(move |at| (layer, at)))
                .filter_map(|(layer, at)| Some((layer, body(at)?)))
        };
        one_layer("operator", mixes().map(|(layer, node)| (node.operator.as_str(), layer)))?;
        if self.parameters.distinct_jurisdictions {
            let laws = || mixes().map(|(layer, node)| (node.jurisdiction.as_str(), layer));
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

/// Says whether all of one name stand in one layer.
fn one_layer<'a>(what: &str, names: impl Iterator<Item = (&'a str, u8)>) -> Result<(), Error> {
    let mut seen: BTreeMap<&str, u8> = BTreeMap::new();
    for (name, layer) in names {
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
