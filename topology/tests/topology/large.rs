//! A document of a network of a thousand nodes: what it weighs, and what it takes to check it.

use std::hint::black_box;
use std::net::SocketAddr;

use shoal_topology::wire::client_gateway::{Assembly, ControlMessage as _, DocumentPart};
use shoal_topology::*;

use crate::world::BEGINS;

const NODES: u16 = 1_000;

/// A document and who reads it. A tenth of the nodes are gateways. Each node has a key for each of four epochs, an address of
/// either kind, and a name to call.
fn document() -> (Vec<u8>, Network) {
    let placed = (0..NODES).map(|n| if n % 10 == 0 { 0 } else { (n % 3) as u8 + 1 });
    let network = testing::TestNetwork::builder().placed(placed.collect()).keys_of_one_epoch();
    let network = network.epoch(Epoch(BEGINS / u64::from(Network::EPOCH_S))).authorities(7);
    let operator = |n| format!("Operator Number {n}, https://operator{n}.example/shoal");
    let mut network = network.operators(operator).build();
    network.known.name = "a large network".into();
    for (n, node) in (0..NODES).zip(&mut network.nodes) {
        node.body.addresses = vec![
            SocketAddr::from(([198, 51, (n / 256) as u8, n as u8], 9_001)),
            SocketAddr::from(([0x2001, 0xdb8, 1, 2, 3, 4, 5, n], 9_001)),
        ];
        node.body.jurisdiction = format!("country {}", n % 40);
        node.body.signed_at = BEGINS - u64::from(n);
    }
    let mut document = network.document();
    document.nodes.iter_mut().for_each(|node| node.pool = 40);
    let signers = &network.authorities[..network.known.threshold()];
    (SignedDocument::new(&document, signers).encode(), network.known)
}

#[test]
fn a_document_of_a_thousand_nodes_has_less_than_a_megabyte_and_travels_in_frames() {
    let (bytes, network) = document();
    assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
    let mut assembly = Assembly::default();
    let mut whole = None;
    for part in DocumentPart::cut(&bytes) {
        assert!(whole.is_none());
        whole = assembly.add(DocumentPart::unpack(&part.pack().unwrap()).unwrap());
    }
    let whole = whole.expect("the last part ends it");
    assert_eq!(SignedDocument::verify(&whole, &network, BEGINS).unwrap().nodes.len(), 1_000);
}

/// `scripts/release-check` holds it against its promise.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods)] // It measures real time.
fn what_it_takes_to_verify_a_document_of_a_thousand_nodes() {
    let (bytes, network) = document();
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
