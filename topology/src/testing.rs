//! Networks for tests, behind the feature `testing`, which no program turns on: nodes, exits and authorities with all
//! their secrets, and documents that pass [`Document::check`], from one seed.
//!
//! ```
//! use shoal_topology::{Epoch, Paths, Seed, SignedDocument, testing};
//!
//! let network = testing::TestNetwork::builder().layers(2).mixes(3).authorities(4).epoch(Epoch(7)).build();
//! let document = network.document();
//! document.check()?;
//!
//! // As whoever knows the authorities reads it.
//! let signed = network.sign(&document).signed;
//! assert_eq!(SignedDocument::verify(&signed, &network.known, document.begins)?, document);
//!
//! // A path through it, and who can open packets there.
//! let path = Paths::new(&document).draw(&mut Seed::from_u64(1).stream("path")).unwrap();
//! for index in path {
//!     let listed = document.nodes[index].descriptor.body();
//!     let node = network.nodes.iter().find(|node| node.identity() == listed.identity).unwrap();
//!     assert_eq!(node.key(Epoch(7)).public().as_bytes(), &listed.keys[0].key);
//! }
//! # Ok::<(), shoal_topology::Error>(())
//! ```
//!
//! What a setter of the [`Builder`] does not say is a field: change a node's [`TestNode::body`] or the parameters, then
//! take the document. Only such changes can make it unsound.

use std::net::SocketAddr;

use rand::Rng;
use shoal_sphinx::SecretKey;

use crate::{
    ClientDescriptor, Document, Engine, Epoch, EpochKey, Identity, ListedNode, NodeDescriptor,
    Parameters, Role, SecretIdentity, Seed, Signed, SignedDocument, VerifiedDocument,
};

/// Checks [the contract](Engine) where all that was due is done and its outputs are taken: nothing is due, and another wake-up
/// does nothing.
///
/// # Panics
/// If the engine does not keep it.
pub fn assert_at_rest<E: Engine>(engine: &mut E, now: E::Clock) {
    let next = engine.next_wake();
    assert!(next.is_none_or(|at| at > now), "what was due is done");
    engine.wake(now);
    assert!(engine.poll_output().is_none(), "a wake-up that comes early does nothing");
    assert!(engine.next_wake() == next, "a wake-up that comes early moves no other");
}

/// For so many epochs ahead nodes have keys, where each is for one epoch, as deployed nodes do.
const AHEAD: u64 = 3;

fn bytes(seed: &Seed, purpose: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    seed.stream(purpose).fill_bytes(&mut bytes);
    bytes
}

fn packet_key(secret: &[u8; 32], purpose: &str) -> SecretKey {
    SecretKey::from_bytes(bytes(&Seed::new(*secret), purpose))
}

/// A node with its secrets, which all follow from 32 bytes.
#[derive(Clone)]
pub struct TestNode {
    /// The bytes of its identity.
    pub secret: [u8; 32],
    /// Where it stands, 1 to L; zero for a gateway.
    pub layer: u8,
    /// What it says of itself. If it has no keys, documents list it with a key for each of their epochs and one more.
    pub body: NodeDescriptor,
}

impl TestNode {
    /// A mix of this layer, or a gateway, with one key for all epochs.
    pub fn new(secret: [u8; 32], layer: u8) -> Self {
        let body = NodeDescriptor {
            identity: SecretIdentity::from_bytes(&secret).identity(),
            role: if layer == 0 { Role::Gateway } else { Role::Mix },
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            operator: "operator".into(),
            jurisdiction: "here".into(),
            packets_per_s: 2_000,
            keys: Vec::new(),
            signed_at: 0,
        };
        Self { secret, layer, body }.with_keys([(Epoch(0), Epoch(u64::MAX))])
    }

    /// The same node with keys for these epochs, each from a first to a last one.
    #[must_use]
    pub fn with_keys(mut self, epochs: impl IntoIterator<Item = (Epoch, Epoch)>) -> Self {
        let key = |first| *packet_key(&self.secret, &format!("key {first}")).public().as_bytes();
        let keys =
            epochs.into_iter().map(|(first, last)| EpochKey { first, last, key: key(first) });
        self.body.keys = keys.collect();
        self
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.body.identity
    }

    /// The secret half of its identity.
    pub fn secret_identity(&self) -> SecretIdentity {
        SecretIdentity::from_bytes(&self.secret)
    }

    /// What opens packets of an epoch: the key that it says, or that of this epoch alone.
    pub fn key(&self, epoch: Epoch) -> SecretKey {
        let said = self.body.keys.iter().find(|key| (key.first..=key.last).contains(&epoch));
        packet_key(&self.secret, &format!("key {}", said.map_or(epoch, |key| key.first)))
    }

    /// Its descriptor, signed.
    pub fn sign(&self) -> Signed<NodeDescriptor> {
        Signed::<NodeDescriptor>::new(self.body.clone(), &self.secret_identity())
    }

    /// As a document lists it.
    pub fn listed(&self) -> ListedNode {
        ListedNode::new(self.sign(), self.layer)
    }
}

/// A client that others can reach, as an exit, with its secrets, which all follow from 32 bytes.
#[derive(Clone)]
pub struct TestClient {
    /// The bytes of its identity.
    pub secret: [u8; 32],
    /// What it says of itself.
    pub body: ClientDescriptor,
}

impl TestClient {
    /// A client at these gateways, one or two, at any time.
    pub fn new(secret: [u8; 32], gateways: &[Identity]) -> Self {
        let body = ClientDescriptor {
            identity: SecretIdentity::from_bytes(&secret).identity(),
            key: *packet_key(&secret, "packets").public().as_bytes(),
            inbox: SecretIdentity::from_bytes(&bytes(&Seed::new(secret), "inbox")).identity(),
            gateways: gateways.to_vec(),
            not_before: 0,
            not_after: u64::MAX,
            attached: Vec::new(),
        };
        Self { secret, body }
    }

    /// The secret half of its identity.
    pub fn secret_identity(&self) -> SecretIdentity {
        SecretIdentity::from_bytes(&self.secret)
    }

    /// The secret half of its inbox's name.
    pub fn inbox(&self) -> SecretIdentity {
        SecretIdentity::from_bytes(&bytes(&Seed::new(self.secret), "inbox"))
    }

    /// What opens packets for it.
    pub fn key(&self) -> SecretKey {
        packet_key(&self.secret, "packets")
    }

    /// Its descriptor, signed.
    pub fn sign(&self) -> Signed<ClientDescriptor> {
        Signed::<ClientDescriptor>::new(self.body.clone(), &self.secret_identity())
    }
}

/// A network with all its secrets.
#[derive(Clone)]
pub struct TestNetwork {
    /// What users know of it.
    pub known: crate::Network,
    /// Who may sign its documents.
    pub authorities: Vec<SecretIdentity>,
    /// Gateways, then the mixes layer by layer, unless [`Builder::placed`] says otherwise.
    pub nodes: Vec<TestNode>,
    /// Services that everyone may use as exits.
    pub exits: Vec<TestClient>,
    /// What documents fix.
    pub parameters: Parameters,
    /// The epoch of [`Self::document`].
    pub epoch: Epoch,
}

impl TestNetwork {
    /// Three layers of two mixes, two gateways, one authority, no exit.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The document of its epoch.
    pub fn document(&self) -> Document {
        self.document_at(self.epoch)
    }

    /// The document of any epoch, with the same nodes in the same layers.
    pub fn document_at(&self, epoch: Epoch) -> Document {
        let ahead = (epoch.0..=epoch.0 + AHEAD).map(|own| (Epoch(own), Epoch(own)));
        let listed = |node: &TestNode| match node.body.keys.is_empty() {
            true => node.clone().with_keys(ahead.clone()).listed(),
            false => node.listed(),
        };
        let mut nodes: Vec<ListedNode> = self.nodes.iter().map(listed).collect();
        nodes.sort_by_key(ListedNode::identity);
        Document {
            network: self.known.name.clone(),
            epoch,
            begins: epoch.0 * u64::from(self.known.epoch_s),
            epoch_s: self.known.epoch_s,
            amendment: 0,
            parameters: self.parameters.clone(),
            nodes,
            draw: Default::default(),
            exits: self.exits.iter().map(TestClient::sign).collect(),
            heads: Vec::new(),
        }
    }

    /// A document with the signatures of all authorities.
    pub fn sign(&self, document: &Document) -> VerifiedDocument {
        let signed = SignedDocument::new(document, &self.authorities).encode().into();
        VerifiedDocument { document: document.clone().into(), signed }
    }
}

macro_rules! builder {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What a [`TestNetwork`] is made from.
        pub struct Builder {
            keys_of_one_epoch: bool,
            $($field: $type,)*
        }

        impl Builder {
            $($(#[$doc])*
            #[must_use]
            pub fn $field(self, $field: $type) -> Self {
                Self { $field, ..self }
            })*
        }
    };
}

builder! {
    /// From which all secrets follow.
    seed: u64,
    /// L, the number of layers of mixes.
    layers: u8,
    /// Mixes in each layer.
    mixes: usize,
    /// How many gateways.
    gateways: usize,
    /// The layer of each node, zero for a gateway, in place of numbers of mixes and gateways.
    placed: Vec<u8>,
    /// Who runs the n-th node.
    operators: fn(usize) -> String,
    /// Exits, at the first two gateways.
    exits: usize,
    /// How many authorities.
    authorities: usize,
    /// What documents fix, but for the number of layers. They ask for no more mixes in a layer than there are.
    parameters: Parameters,
    /// The epoch of the document.
    epoch: Epoch,
    /// Length of an epoch, seconds.
    epoch_s: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            keys_of_one_epoch: false,
            seed: 0,
            layers: 3,
            mixes: 2,
            gateways: 2,
            placed: Vec::new(),
            operators: |n| format!("operator {n}"),
            exits: 0,
            authorities: 1,
            parameters: Parameters::default(),
            epoch: Epoch(5),
            epoch_s: crate::Network::EPOCH_S,
        }
    }
}

impl Builder {
    /// Nodes have a key for each epoch, and not one for all.
    #[must_use]
    pub fn keys_of_one_epoch(self) -> Self {
        Self { keys_of_one_epoch: true, ..self }
    }

    /// Makes the network.
    pub fn build(self) -> TestNetwork {
        let seed = Seed::from_u64(self.seed);
        let secret = |what: &str, n: usize| bytes(&seed, &format!("{what} {n}"));
        let mut placed = self.placed;
        if placed.is_empty() {
            placed = vec![0; self.gateways];
            placed.extend((1..=self.layers).flat_map(|layer| vec![layer; self.mixes]));
        }
        let node = |(n, layer): (usize, &u8)| {
            let mut node = TestNode::new(secret("node", n), *layer);
            node.body.operator = (self.operators)(n);
            if self.keys_of_one_epoch { node.with_keys([]) } else { node }
        };
        let nodes: Vec<TestNode> = placed.iter().enumerate().map(node).collect();
        let gateways = nodes.iter().filter(|node| node.layer == 0).map(TestNode::identity);
        let gateways: Vec<Identity> = gateways.take(2).collect();
        let exits =
            (0..self.exits).map(|n| TestClient::new(secret("exit", n), &gateways)).collect();
        let authority = |n| SecretIdentity::from_bytes(&secret("authority", n));
        let authorities: Vec<SecretIdentity> = (0..self.authorities).map(authority).collect();
        let mut parameters = self.parameters;
        parameters.layers = self.layers;
        let mixes = |layer| placed.iter().filter(|placed| **placed == layer).count() as u16;
        let fewest = (1..=self.layers).map(mixes).min().unwrap_or_default();
        parameters.min_mixes_per_layer = parameters.min_mixes_per_layer.min(fewest);
        let known = crate::Network {
            name: "test".into(),
            authorities: authorities.iter().map(SecretIdentity::identity).collect(),
            epoch_s: self.epoch_s,
            trial: parameters.trial,
        };
        TestNetwork { known, authorities, nodes, exits, parameters, epoch: self.epoch }
    }
}
