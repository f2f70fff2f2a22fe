//! A small network to break.

use proptest::prelude::*;
use shoal_topology::*;

/// First second of the epoch of every document here.
pub const BEGINS: u64 = 1_800_000_000;
/// Length of that epoch, seconds.
pub const EPOCH_S: u32 = 3_600;

pub fn bytes(n: u64) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub fn secret(n: u64) -> SecretIdentity {
    SecretIdentity::from_bytes(&bytes(n))
}

/// Who runs a node and where: operator, jurisdiction.
pub type Unit = (u8, u8);

pub fn node(n: u64, layer: u8, unit: Unit) -> testing::TestNode {
    let mut node = testing::TestNode::new(bytes(n), layer).with_keys([(Epoch(0), Epoch(10))]);
    node.body.operator = format!("operator {}", unit.0);
    node.body.jurisdiction = format!("jurisdiction {}", unit.1);
    node
}

/// `units[0]` are the gateways', `units[l]` those of the mixes of layer l.
pub fn document(units: &[Vec<Unit>]) -> Document {
    let parameters = Parameters { min_mixes_per_layer: 1, ..Parameters::default() };
    let network =
        testing::TestNetwork::builder().layers(units.len() as u8 - 1).parameters(parameters);
    let mut network = network.epoch_s(EPOCH_S).build();
    let units = (0..).zip(units).flat_map(|(layer, units)| units.iter().map(move |u| (layer, *u)));
    network.nodes = (0..).zip(units).map(|(n, (layer, unit))| node(n, layer, unit)).collect();
    Document { begins: BEGINS, ..network.document() }
}

/// Three layers of two mixes and two gateways, all of operators and jurisdictions of their own.
pub fn sound() -> Document {
    document(&[
        vec![(0, 0), (1, 1)],
        vec![(2, 2), (3, 3)],
        vec![(4, 4), (5, 5)],
        vec![(6, 6), (7, 7)],
    ])
}

/// Documents that may be sound or not: few operators, so that rules are broken often.
pub fn any_document() -> impl Strategy<Value = Document> {
    let units = |most| proptest::collection::vec((0u8..7, 0u8..6), 1..=most);
    let layers = (units(3), units(4), units(4), units(4));
    (layers, any::<bool>()).prop_map(|((gateways, a, b, c), distinct)| {
        let mut document = document(&[gateways, a, b, c]);
        document.parameters.distinct_jurisdictions = distinct;
        document
    })
}

pub struct Authorities {
    pub secrets: Vec<SecretIdentity>,
    pub network: Network,
}

pub fn authorities(n: usize) -> Authorities {
    let network = testing::TestNetwork::builder().authorities(n).build();
    Authorities { secrets: network.authorities, network: network.known }
}

impl Authorities {
    /// Signed by as many as are needed, and no more.
    pub fn sign(&self, document: &Document) -> Vec<u8> {
        SignedDocument::new(document, &self.secrets[..self.network.threshold()]).encode()
    }

    /// Signs a document, and reads it as everybody does.
    pub fn pass(&self, document: &Document) -> Result<Document, Error> {
        SignedDocument::verify(&self.sign(document), &self.network, BEGINS)
    }

    /// Signs bytes that are no document, or not in its one form.
    pub fn sign_raw(&self, body: &[u8]) -> Vec<u8> {
        SignedDocument::of_body(body.to_vec(), &self.secrets).encode()
    }
}
