//! Descriptors, parameters, documents, reports, addresses.

use std::net::SocketAddr;

use serde_json::{Value, json};
use shoal_sphinx::SecretKey;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::reputation::report::{LinkCount, Report, SignedReport};
use shoal_topology::{
    ClientDescriptor, Document, Epoch, EpochKey, FURTHER_EPOCHS, Identity, ListedNode, Network,
    NodeDescriptor, Parameters, Role, Signed, SignedDocument, Standing,
};

use super::organisation::head_update;
use super::{hex, said, secret};

/// The epoch of the example, and its length.
pub(super) const EPOCH: Epoch = Epoch(1_500_000);
pub(super) const EPOCH_S: u32 = Network::EPOCH_S;
/// Nodes 0 and 1 are gateways, the others mixes, two in each layer.
pub(super) const NODES: u8 = 8;

pub(super) fn begins() -> u64 {
    EPOCH.0 * u64::from(EPOCH_S)
}

/// A network of four authorities.
pub(super) fn network() -> Network {
    let authorities = (0..4).map(|n| secret(200 + n).identity()).collect();
    Network { name: "example".into(), authorities, epoch_s: EPOCH_S, trial: false }
}

/// What the parameters of the example are: the defaults.
pub(super) fn parameters() -> Parameters {
    Parameters::default()
}

pub(super) fn node_descriptor(n: u8) -> Signed<NodeDescriptor> {
    let secret = secret(100 + n);
    let v4 = SocketAddr::from(([192, 0, 2, n], 9_001));
    let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)], 9_002));
    let keys = (0..=FURTHER_EPOCHS + 1).zip(0_u8..).map(|(ahead, of)| {
        let epoch = Epoch(EPOCH.0 - 1 + ahead);
        let key = SecretKey::from_bytes([16 * (n + 1) + of; 32]).public();
        EpochKey { first: epoch, last: epoch, key: *key.as_bytes() }
    });
    let body = NodeDescriptor {
        identity: secret.identity(),
        role: if n < 2 { Role::Gateway } else { Role::Mix },
        addresses: if n == 1 { vec![v4, v6] } else { vec![v4] },
        operator: format!("operator {n}"),
        jurisdiction: "somewhere".into(),
        packets_per_s: 2_000 + u32::from(n),
        keys: keys.collect(),
        signed_at: begins() - 1_300,
    };
    Signed::<NodeDescriptor>::new(body, &secret)
}

pub(super) fn client_descriptor() -> Signed<ClientDescriptor> {
    let secret = secret(150);
    let body = ClientDescriptor {
        identity: secret.identity(),
        key: *SecretKey::from_bytes([151; 32]).public().as_bytes(),
        inbox: super::secret(152).identity(),
        gateways: vec![super::secret(100).identity(), super::secret(101).identity()],
        not_before: begins() - 3_600,
        not_after: begins() + 86_400,
        attached: Vec::new(),
    };
    Signed::<ClientDescriptor>::new(body, &secret)
}

/// A document of all nodes, in layers by their number.
fn document() -> anyhow::Result<Document> {
    let layer = |n: u8| if n < 2 { 0 } else { n / 2 };
    let mut nodes: Vec<ListedNode> =
        (0..NODES).map(|n| ListedNode::new(node_descriptor(n), layer(n))).collect();
    nodes.sort_by_key(ListedNode::identity);
    if let Some(first) = nodes.first_mut() {
        first.pool = 13;
    }
    Ok(Document {
        network: network().name,
        epoch: EPOCH,
        begins: begins(),
        epoch_s: EPOCH_S,
        amendment: 0,
        parameters: Parameters { min_mixes_per_layer: 1, ..parameters() },
        nodes,
        draw: Default::default(),
        exits: vec![client_descriptor()],
        heads: vec![head_update()?.head],
    })
}

pub(super) fn documents() -> anyhow::Result<Value> {
    let document = document()?;
    document.check()?;
    let mut amended = document.clone();
    amended.amendment = 1;
    let mix = |node: &&mut ListedNode| node.descriptor.body().role == Role::Mix;
    if let Some(mix) = amended.nodes.iter_mut().find(mix) {
        mix.standing = Standing::Demoted;
    }
    amended.check()?;
    let signed = |document: &Document, by: u8| -> anyhow::Result<Value> {
        let secrets: Vec<_> = (0..by).map(|n| secret(200 + n)).collect();
        let bytes = SignedDocument::new(document, &secrets).encode();
        SignedDocument::verify(&bytes, &network(), begins())?;
        Ok(json!({ "value": said(document)?, "signed": hex(bytes) }))
    };
    let (node, client) = (node_descriptor(1), client_descriptor());
    Ok(json!({
        "network": network_value(&network()),
        "now": begins(),
        "node_descriptor": { "value": said(&node)?, "bytes": hex(node.encode()) },
        "client_descriptor": { "value": said(&client)?, "bytes": hex(client.encode()) },
        "document": signed(&document, 3)?,
        "amendment": signed(&amended, 4)?,
    }))
}

pub(super) fn network_value(network: &Network) -> Value {
    let authorities: Vec<Value> = network.authorities.iter().map(|key| hex(key.0)).collect();
    json!({
        "name": network.name, "authorities": authorities, "epoch_s": network.epoch_s, "trial": network.trial,
        "threshold": network.threshold(), "fingerprint": network.fingerprint(),
    })
}

pub(super) fn addresses() -> anyhow::Result<Value> {
    let address = |n: u8| {
        let address = ServiceAddress {
            identity: secret(n).identity().0,
            gateway: secret(n + 1).identity().0,
        };
        json!({
            "identity": hex(address.identity), "gateway": hex(address.gateway), "text": address.to_string(),
        })
    };
    let identity = |n: u8| {
        let identity: Identity = secret(n).identity();
        json!({ "seed": hex([n; 32]), "identity": hex(identity.0), "text": identity.to_string() })
    };
    let trial = Network { name: "Übung".into(), epoch_s: 60, trial: true, ..network() };
    Ok(json!({
        "services": [address(1), address(7), address(150)],
        "identities": [identity(1), identity(200)],
        "networks": [network_value(&network()), network_value(&trial)],
    }))
}

pub(super) fn reports() -> anyhow::Result<Value> {
    let report = |n: u8, links: Vec<LinkCount>| -> anyhow::Result<Value> {
        let secret = secret(100 + n);
        let body =
            Report { node: secret.identity(), epoch: EPOCH, part: u16::from(n), links, pool: 9 };
        let signed = SignedReport::new(body, &secret).encode();
        SignedReport::decode(&signed)?;
        let value = SignedReport::decode(&signed)?;
        Ok(json!({ "value": said(&value)?, "bytes": hex(signed) }))
    };
    let link = |from, to, sent, lost| LinkCount { from, to, sent, lost };
    let many = vec![link(0, 2, 400, 3), link(0, 300, 70_000, 70_000), link(2, 4, 1, 0)];
    Ok(json!({ "reports": [report(2, many)?, report(3, Vec::new())?] }))
}
