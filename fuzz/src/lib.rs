//! Everything that reads bytes from a network, as functions that a fuzzer can call: one for each target.
//!
//! `fuzz/tests` runs them on stable Rust, with seeds, mutations and what once failed; `fuzz/cargo-fuzz` is the
//! manifest for libFuzzer. A target panics when a promise is broken: nothing may panic, and what is accepted
//! has one form.

#![cfg(feature = "targets")]
// A target fails by panicking.
#![allow(clippy::expect_used)]

pub mod authorities;
pub mod fixtures;
pub mod liveness;
pub mod organisation;
mod packets;
pub mod people;
pub mod seeds;

use shoal_client::message::{FromService, ToService};
use shoal_sphinx::{
    Codec, FRAME_LEN, Frame, MESSAGE_LEN, NullCodec, PACKET_LEN, Packet, Peeled, SURB_LEN, Sphinx,
    Surb,
};
use shoal_topology::directory::address::{ServiceAddress, is_shoal_host};
use shoal_topology::wire::client_gateway::{Assembly, ControlMessage, DocumentPart, Hello, Notice};
use shoal_topology::{
    ClientDescriptor, DocumentStore, Identity, NodeDescriptor, Paths, Signed, SignedDocument,
    VerifiedDocument,
};

/// A fuzz target: it panics if an input breaks what it checks.
pub type Target = fn(&[u8]);

/// All targets, by the names of their files in `fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("sphinx_frame", sphinx_frame),
    ("surb_reply", surb_reply),
    ("backends", backends),
    ("topology_document", topology_document),
    ("topology_body", topology_body),
    ("descriptors", descriptors),
    ("votes", authorities::vote),
    ("reports", authorities::report),
    ("authority_inputs", authorities::inputs),
    ("authority_liveness", liveness::liveness),
    ("directory_entries", organisation::directory_entries),
    ("organisation_words", organisation::organisation_words),
    ("people_groups", people::people_groups),
    ("people_packets", people::people_packets),
    ("people_words", people::people_words),
    ("control_words", control_words),
    ("addresses", addresses),
    ("socks_handshake", socks_handshake),
    ("requests", requests),
    ("tunnel_messages", tunnel_messages),
];

/// The first `N` bytes, zeros behind them.
fn filled<const N: usize>(data: &[u8]) -> Box<[u8; N]> {
    let mut bytes = Box::new([0; N]);
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    bytes
}

/// A frame from a link: decoded, opened by both codecs, peeled hop by hop.
pub fn sphinx_frame(data: &[u8]) {
    let bytes = filled::<FRAME_LEN>(data);
    let Ok(frame) = Frame::decode(&bytes) else { return };
    assert!(frame.encode() == bytes, "a frame has one form");
    let codecs: [&dyn Codec; 2] = [&Sphinx::SCALAR, &NullCodec];
    for codec in codecs {
        let mut packet = frame.packet.clone();
        for secret in fixtures::hops() {
            let Ok(opened) = codec.open(&secret, packet) else { break };
            match codec.peel(opened) {
                Ok(Peeled::Forward { packet: next, .. }) => packet = next,
                Ok(Peeled::Final { payload, .. }) => {
                    assert!(payload.message().map_or(0, <[u8]>::len) <= MESSAGE_LEN);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// A SURB that a client gave, spent by a service.
pub fn surb_reply(data: &[u8]) {
    let (surb, message) = data.split_at(data.len().min(SURB_LEN));
    let bytes = filled::<SURB_LEN>(surb);
    let surb = Surb::from_slice(bytes.as_slice()).expect("the length is right");
    let codecs: [&dyn Codec; 2] = [&Sphinx::SCALAR, &NullCodec];
    for codec in codecs {
        if let Ok((packet, _)) = codec.reply(surb.clone(), message) {
            assert_eq!(packet.as_bytes().len(), PACKET_LEN);
            assert!(message.len() <= MESSAGE_LEN);
        }
    }
}

/// Packets for one hop, as every backend opens them together, and as the reference opens them one by one.
pub fn backends(data: &[u8]) {
    packets::compare(data);
}

/// A document as a gateway sends it.
pub fn topology_document(data: &[u8]) {
    let network = &fixtures::NETWORK.known;
    if let Ok(document) = SignedDocument::verify(data, network, fixtures::NOW) {
        let document = fixtures::NETWORK.sign(&document).signed;
        assert!(SignedDocument::verify(&document, network, fixtures::NOW).is_ok());
    }
    // Beside one that is held: of the same epoch it is the same, an amendment, or half of a proof.
    let sound = fixtures::signed();
    let mut documents = DocumentStore::default();
    for bytes in [sound.as_slice(), data] {
        if let Ok(document) = SignedDocument::verify(bytes, network, fixtures::NOW) {
            let _ = documents
                .insert(VerifiedDocument { document: document.into(), signed: bytes.into() });
        }
    }
    assert!(documents.iter().count() <= 2);
}

/// What stands inside a document, behind good signatures: authorities err too.
pub fn topology_body(data: &[u8]) {
    let network = &*fixtures::NETWORK;
    let bytes = SignedDocument::of_body(data.to_vec(), &network.authorities).encode();
    let Ok(document) = SignedDocument::verify(&bytes, &network.known, fixtures::NOW) else {
        return;
    };
    assert!(*network.sign(&document).signed == *bytes, "a document has one form");
    let paths = Paths::new(&document);
    let mut rng = shoal_topology::Seed::from_u64(0).stream("fuzz");
    assert!(paths.draw(&mut rng).is_some(), "an accepted document has paths");
    assert!(paths.gateways().len() > 1, "and two gateways");
    for class in &document.parameters.classes {
        assert!(class.budget_per_s() > 0.0 && class.bytes_per_day().0 > 0);
    }
}

/// Descriptors of nodes and clients.
pub fn descriptors(data: &[u8]) {
    if let Ok(descriptor) = Signed::<NodeDescriptor>::decode(data) {
        assert!(descriptor.encode() == data, "a descriptor has one form");
    }
    if let Ok(descriptor) = Signed::<ClientDescriptor>::decode(data) {
        assert!(descriptor.encode() == data, "a descriptor has one form");
    }
}

/// Words between a client and its gateway.
pub fn control_words(data: &[u8]) {
    let packet = Packet::new(filled::<PACKET_LEN>(data));
    if let Ok(word) = Hello::unpack(&packet) {
        assert!(word.pack().is_ok_and(|again| again == packet), "a word has one form");
    }
    if let Ok(word) = Notice::unpack(&packet) {
        assert!(word.pack().is_ok_and(|again| again == packet), "a word has one form");
    }
    if let Ok(part) = DocumentPart::unpack(&packet) {
        assert!(part.pack().is_ok_and(|again| again == packet), "a word has one form");
        let mut assembly = Assembly::default();
        for index in 0..4 {
            let _ = assembly.add(DocumentPart { index, ..part.clone() });
        }
    }
}

/// Addresses of services, and identities.
pub fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<ServiceAddress>() {
        assert!(is_shoal_host(text), "an address never goes to a resolver");
        assert!(address.to_string().parse() == Ok(address));
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text.trim().to_ascii_lowercase());
    }
}

/// What a program says to the SOCKS port.
pub fn socks_handshake(data: &[u8]) {
    shoal_client::socks::fuzz_handshake(data);
}

/// What stands at the start of a stream to a service, and datagrams.
pub fn requests(data: &[u8]) {
    shoal_client::request::fuzz_decode(data);
}

/// Messages of a tunnel, as a service and as a client read them.
pub fn tunnel_messages(data: &[u8]) {
    if let Some(message) = ToService::decode(data) {
        assert!(message.encode() == data, "a message has one form");
    }
    if let Some(message) = FromService::decode(data) {
        assert!(message.encode() == data, "a message has one form");
    }
}
