//! A document of a network of a thousand nodes: what it weighs, and what it takes to check it.

use std::hint::black_box;
use std::net::SocketAddr;

use shoal_topology::wire::client_gateway::{Assembly, ControlMessage as _, DocumentPart};
use shoal_topology::*;

use crate::world::{BEGINS, secret, sphinx_key};

const NODES: u64 = 1_000;
const AUTHORITIES: u64 = 7;
const EPOCH: u64 = BEGINS / Network::EPOCH_S as u64;

fn network() -> Network {
    let authorities = (0..AUTHORITIES).map(|n| secret(50_000 + n).identity()).collect();
    Network { name: "a large network".into(), authorities, epoch_s: Network::EPOCH_S, trial: false }
}

/// A tenth are gateways. Each node has a key for each of four epochs, an address of either kind, and a name to call.
fn document() -> Vec<u8> {
    let mut nodes: Vec<ListedNode> = (0..NODES)
        .map(|n| {
            let layer = if n % 10 == 0 { 0 } else { (n % 3) as u8 + 1 };
            let low = n as u16;
            let body = NodeDescriptor {
                identity: secret(n).identity(),
                role: if layer == 0 { Role::Gateway } else { Role::Mix },
                addresses: vec![
                    SocketAddr::from(([198, 51, (n / 256) as u8, n as u8], 9_001)),
                    SocketAddr::from(([0x2001, 0xdb8, 1, 2, 3, 4, 5, low], 9_001)),
                ],
                operator: format!("Operator Number {n}, https://operator{n}.example/shoal"),
                jurisdiction: format!("country {}", n % 40),
                packets_per_s: 2_000,
                keys: (0..4)
                    .map(|ahead| EpochKey {
                        first: Epoch(EPOCH + ahead),
                        last: Epoch(EPOCH + ahead),
                        key: sphinx_key(4 * n + ahead),
                    })
                    .collect(),
                signed_at: BEGINS - n,
            };
            let node = Signed::<NodeDescriptor>::new(body, &secret(n));
            ListedNode { pool: 40, ..ListedNode::new(node, layer) }
        })
        .collect();
    nodes.sort_by_key(ListedNode::identity);
    let document = Document {
        network: network().name,
        epoch: Epoch(EPOCH),
        begins: EPOCH * u64::from(Network::EPOCH_S),
        epoch_s: Network::EPOCH_S,
        amendment: 0,
        parameters: Parameters::default(),
        nodes,
        draw: Default::default(),
        exits: vec![],
    };
    let signers: Vec<SecretIdentity> =
        (0..network().threshold() as u64).map(|n| secret(50_000 + n)).collect();
    SignedDocument::new(&document, &signers).encode()
}

#[test]
fn a_document_of_a_thousand_nodes_has_less_than_a_megabyte_and_travels_in_frames() {
    let bytes = document();
    assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
    let mut assembly = Assembly::default();
    let mut whole = None;
    for part in DocumentPart::cut(&bytes) {
        assert!(whole.is_none());
        whole = assembly.add(DocumentPart::unpack(&part.pack().unwrap()).unwrap());
    }
    let whole = whole.expect("the last part ends it");
    assert_eq!(SignedDocument::verify(&whole, &network(), BEGINS).unwrap().nodes.len(), 1_000);
}

/// `scripts/release-check` holds it against its promise.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods)] // It measures real time.
fn what_it_takes_to_verify_a_document_of_a_thousand_nodes() {
    let (bytes, network) = (document(), network());
    let mut times: Vec<f64> = (0..31)
        .map(|_| {
            let start = std::time::Instant::now();
            let _ = black_box(SignedDocument::verify(black_box(&bytes), &network, BEGINS).unwrap());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{{\"nodes\":{NODES},\"bytes\":{},\"verify_ms\":{:.1}}}", bytes.len(), times[15]);
}
