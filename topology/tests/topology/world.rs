//! A small network to break.

use std::net::SocketAddr;

use proptest::prelude::*;
use rand::Rng;
use shoal_sphinx::SecretKey;
use shoal_topology::*;

/// First second of the epoch of every document here.
pub const BEGINS: u64 = 1_800_000_000;
/// Its length.
pub const EPOCH_S: u32 = 3_600;

pub fn secret(n: u64) -> SecretIdentity {
    let mut seed = [0; 32];
    Seed::from_u64(n).stream("identity").fill_bytes(&mut seed);
    SecretIdentity::from_bytes(&seed)
}

pub fn sphinx_key(n: u64) -> [u8; 32] {
    *SecretKey::generate(&mut Seed::from_u64(n).stream("sphinx")).public().as_bytes()
}

/// Who runs a node and where: operator, jurisdiction.
pub type Unit = (u8, u8);

pub fn descriptor(n: u64, role: Role, unit: Unit) -> NodeDescriptor {
    NodeDescriptor {
        identity: secret(n).identity(),
        role,
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 4000 + n as u16))],
        operator: format!("operator {}", unit.0),
        jurisdiction: format!("jurisdiction {}", unit.1),
        packets_per_s: 2_000,
        keys: vec![EpochKey { first: Epoch(0), last: Epoch(10), key: sphinx_key(n) }],
        signed_at: 0,
    }
}

pub fn listed(n: u64, descriptor: NodeDescriptor, layer: u8) -> ListedNode {
    ListedNode::new(Signed::<NodeDescriptor>::new(descriptor, &secret(n)), layer)
}

/// `units[0]` are the gateways', `units[l]` those of the mixes of layer l.
pub fn document(units: &[Vec<Unit>]) -> Document {
    let mut nodes = Vec::new();
    for (layer, units) in units.iter().enumerate() {
        for unit in units {
            let n = nodes.len() as u64;
            let role = if layer == 0 { Role::Gateway } else { Role::Mix };
            nodes.push(listed(n, descriptor(n, role, *unit), layer as u8));
        }
    }
    nodes.sort_by_key(ListedNode::identity);
    Document {
        network: "test".into(),
        epoch: Epoch(5),
        begins: BEGINS,
        epoch_s: EPOCH_S,
        amendment: 0,
        parameters: Parameters {
            layers: units.len() as u8 - 1,
            min_mixes_per_layer: 1,
            ..Parameters::default()
        },
        nodes,
        draw: Default::default(),
        exits: vec![],
    }
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

pub fn authorities(n: u64) -> Authorities {
    let secrets: Vec<_> = (0..n).map(|i| secret(1_000 + i)).collect();
    let authorities = secrets.iter().map(SecretIdentity::identity).collect();
    Authorities {
        secrets,
        network: Network {
            name: "test".into(),
            authorities,
            epoch_s: Network::EPOCH_S,
            trial: false,
        },
    }
}

impl Authorities {
    /// Signed by as many as are needed, and no more.
    pub fn sign(&self, document: &Document) -> Vec<u8> {
        SignedDocument::new(document, &self.secrets[..self.network.threshold()]).encode()
    }

    /// Signs, reads.
    pub fn pass(&self, document: &Document) -> Result<Document, Error> {
        SignedDocument::verify(&self.sign(document), &self.network, BEGINS)
    }

    /// Signs bytes that are no document, or not in its one form.
    pub fn sign_raw(&self, body: &[u8]) -> Vec<u8> {
        SignedDocument::of_body(body.to_vec(), &self.secrets).encode()
    }
}
