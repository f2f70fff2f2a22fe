//! Keys, a network and a sound document, of which inputs are made.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_sphinx::{Hop, MAX_HOPS, PacketId, SecretKey};
use shoal_topology::{
    ClientDescriptor, Document, Epoch, EpochKey, ListedNode, Network, NodeDescriptor, Parameters,
    Role, SecretIdentity, Signed,
};

/// Second at which the documents are read.
pub const NOW: u64 = 1_800_000_000;
pub(crate) const ID: PacketId = [3; 16];

/// Keys of the five hops of every packet here.
pub fn hops() -> Vec<SecretKey> {
    (1..=MAX_HOPS as u8).map(|n| SecretKey::from_bytes([n; 32])).collect()
}

/// The one authority of [`network`].
pub fn authority() -> SecretIdentity {
    SecretIdentity::from_bytes(&[200; 32])
}

/// The network whose documents are read.
pub fn network() -> Network {
    Network {
        name: "fuzz".into(),
        authorities: vec![authority().identity()],
        epoch_s: Network::EPOCH_S,
        trial: false,
    }
}

/// A document that passes all checks.
pub fn document() -> Document {
    let mut nodes: Vec<ListedNode> = (0..8u8)
        .map(|n| {
            let secret = SecretIdentity::from_bytes(&[100 + n; 32]);
            let layer = n / 2;
            let body = NodeDescriptor {
                identity: secret.identity(),
                role: if layer == 0 { Role::Gateway } else { Role::Mix },
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(n)))],
                operator: format!("o{n}"),
                jurisdiction: format!("j{n}"),
                packets_per_s: 2_000,
                keys: vec![EpochKey { first: Epoch(0), last: Epoch(9), key: public(n) }],
                signed_at: 0,
            };
            ListedNode::new(Signed::<NodeDescriptor>::new(body, &secret), layer)
        })
        .collect();
    nodes.sort_by_key(ListedNode::identity);
    Document {
        network: "fuzz".into(),
        epoch: Epoch(1),
        begins: NOW,
        epoch_s: 3_600,
        amendment: 0,
        parameters: Parameters::default(),
        nodes,
        draw: Default::default(),
        exits: vec![client_descriptor()],
    }
}

fn public(n: u8) -> [u8; 32] {
    *SecretKey::from_bytes([n + 1; 32]).public().as_bytes()
}

pub(crate) fn client_descriptor() -> Signed<ClientDescriptor> {
    let secret = SecretIdentity::from_bytes(&[150; 32]);
    let body = ClientDescriptor {
        identity: secret.identity(),
        key: public(150),
        inbox: SecretIdentity::from_bytes(&[151; 32]).identity(),
        gateways: vec![SecretIdentity::from_bytes(&[100; 32]).identity()],
        not_before: NOW,
        not_after: NOW + 86_400,
    };
    Signed::<ClientDescriptor>::new(body, &secret)
}

pub(crate) fn path() -> Vec<Hop> {
    let hop = |(n, secret): (usize, SecretKey)| Hop {
        address: [n as u8; 32],
        key: secret.public(),
        delay: Duration::from_millis(10),
    };
    hops().into_iter().enumerate().map(hop).collect()
}
