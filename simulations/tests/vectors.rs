//! The examples in `docs/vectors` are what this code writes, and it reads them: no format moves unnoticed.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use serde_json::Value;
use shoal_client::message::{FromService, ToService};
use shoal_client::request::{Request, Response, UdpPacket};
use shoal_people::{
    Ack, Body, Frame as MessageFrame, Input, Output, PacketNumber, People, PeriodKeys, Published,
    ReceivedMessage, Roster, RosterDevice, Settings,
};
use shoal_sphinx::{Codec as _, Frame, Packet, SecretKey, Sphinx, Surb};
use shoal_topology::consensus::{PeerMessage as Peer, Proof};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::reputation::report::SignedReport;
use shoal_topology::wire::authorities::{FromAuthority, ToAuthority};
use shoal_topology::wire::client_gateway::{ControlMessage, DocumentPart, Hello, Notice, Renew};
use shoal_topology::{
    ClientDescriptor, Engine as _, Identity, Network, NodeDescriptor, SecretIdentity, Seed, Signed,
    SignedDocument,
};

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn network(value: &Value) -> Network {
    Network {
        name: value["name"].as_str().unwrap().into(),
        authorities: list(&value["authorities"]).iter().map(|key| Identity(array(key))).collect(),
        epoch_s: value["epoch_s"].as_u64().unwrap() as u32,
        trial: value["trial"].as_bool().unwrap(),
    }
}

/// Every byte of an example changed, a few at a time: `is_read` must find each.
fn is_fixed_to_the_byte(example: &[u8], is_read: impl Fn(&[u8]) -> bool) {
    assert!(is_read(example), "the example itself");
    let step = example.len().div_ceil(100);
    for at in (0..example.len()).step_by(step).chain([example.len() - 1]) {
        let mut changed = example.to_vec();
        changed[at] ^= 1;
        assert!(!is_read(&changed), "byte {at} of {}", example.len());
    }
}

#[test]
fn the_vectors_in_the_tree_are_those_that_are_written() {
    for (name, written) in shoal_sim::vectors::all().unwrap() {
        assert!(
            written == text(name),
            "{name} is another: a format has changed, or `shoal-sim vectors docs/vectors` was forgotten"
        );
    }
}

#[test]
fn packets_are_opened_at_each_hop() {
    let codec = Sphinx::SCALAR;
    for of in list(&read("packet.json")["packets"]) {
        for (hop, at) in list(&of["path"]).iter().zip(list(&of["at"])) {
            let secret = SecretKey::from_bytes(array(&hop["secret"]));
            let packet = bytes(&at["packet"]);
            // What authenticates is the header; the payload is for the last hop to judge.
            is_fixed_to_the_byte(&packet[..348], |header| {
                let packet = [header, &packet[348..]].concat();
                let opened = codec.open(&secret, Packet::from_slice(&packet).unwrap());
                opened.is_ok_and(|opened| opened.tag().as_bytes() == &array::<32>(&at["tag"]))
            });
        }
    }
}

#[test]
fn surbs_make_the_replies_that_stand_there() {
    for of in list(&read("surb.json")["surbs"]) {
        is_fixed_to_the_byte(&bytes(&of["surb"]), |surb| {
            let surb = Surb::from_slice(surb).unwrap();
            let (packet, first) = Sphinx::SCALAR.reply(surb, &bytes(&of["message"])).unwrap();
            packet.as_bytes()[..] == bytes(&of["reply"]) && first == array(&of["first"])
        });
    }
}

#[test]
fn frames_have_their_fields() {
    for of in list(&read("frame.json")["frames"]) {
        is_fixed_to_the_byte(&bytes(&of["bytes"]), |frame| {
            let Ok(frame) = Frame::decode(frame.try_into().unwrap()) else { return false };
            of["epoch"] == frame.epoch
                && of["field"] == frame.field
                && frame.packet.as_bytes()[..] == bytes(&of["packet"])
        });
    }
}

#[test]
fn control_messages_are_read_and_written_again() {
    fn again<T: ControlMessage>(packet: &Packet) -> Option<Packet> {
        T::unpack(packet).ok()?.pack().ok()
    }
    for of in list(&read("control.json")["messages"]) {
        let packet = bytes(&of["packet"]);
        let read = |packet: &Packet| match of["type"].as_str().unwrap() {
            "Notice" => again::<Notice>(packet),
            "Hello" => again::<Hello>(packet),
            "Renew" => again::<Renew>(packet),
            "DocumentPart" => again::<DocumentPart>(packet),
            other => panic!("{other}"),
        };
        let packet = Packet::from_slice(&packet).unwrap();
        assert!(read(&packet) == Some(packet));
    }
    let proof = &read("control.json")["proof"];
    let hello = list(&read("control.json")["messages"])
        .iter()
        .find(|of| of["type"] == "Hello")
        .map(|of| Hello::unpack(&Packet::from_slice(&bytes(&of["packet"])).unwrap()).unwrap());
    let key = |name: &str| Identity(array(&proof[name]));
    is_fixed_to_the_byte(&bytes(&proof["nonce"]), |nonce| {
        let nonce = nonce.try_into().unwrap();
        hello.as_ref().unwrap().is_proven(&key("gateway"), &key("link_key"), nonce)
    });
}

#[test]
fn what_travels_in_tunnels_is_read_and_written_again() {
    let file = read("tunnel.json");
    let to = bytes(&file["to_service"]["bytes"]);
    let decoded = ToService::decode(&to).unwrap();
    assert!(decoded.pseudonym == array(&file["to_service"]["pseudonym"]));
    assert!(file["to_service"]["budget"] == decoded.budget && decoded.encode() == to);
    assert_eq!(file["to_service"]["epoch"], decoded.epoch);
    let from = bytes(&file["from_service"]["bytes"]);
    let decoded = FromService::decode(&from).unwrap();
    assert!(file["from_service"]["stock"] == decoded.stock && decoded.encode() == from);
    assert_eq!(file["from_service"]["next"], decoded.next);
    for of in list(&file["requests"]) {
        let of = bytes(&of["bytes"]);
        let (request, used) = Request::decode(&of).unwrap().unwrap();
        assert!(used == of.len() && request.encode() == of);
    }
    for of in list(&file["responses"]) {
        let of = bytes(&of["bytes"]);
        let (response, used) = Response::decode(&of).unwrap().unwrap();
        assert!(used == of.len() && response.encode() == of);
    }
    let datagram = UdpPacket::decode_datagram(&bytes(&file["datagram"]["as_datagram"])).unwrap();
    assert!(file["datagram"]["port"] == datagram.port);
    assert_eq!(datagram.encode_on_stream(), bytes(&file["datagram"]["on_stream"]));
}

#[test]
fn descriptors_and_documents_hold() {
    let file = read("document.json");
    let (network, now) = (network(&file["network"]), file["now"].as_u64().unwrap());
    assert_eq!(file["network"]["threshold"], network.threshold());
    is_fixed_to_the_byte(&bytes(&file["node_descriptor"]["bytes"]), |bytes| {
        Signed::<NodeDescriptor>::decode(bytes).is_ok()
    });
    is_fixed_to_the_byte(&bytes(&file["client_descriptor"]["bytes"]), |bytes| {
        Signed::<ClientDescriptor>::decode(bytes).is_ok()
    });
    // Three of four must sign the document, and three have.
    is_fixed_to_the_byte(&bytes(&file["document"]["signed"]), |bytes| {
        SignedDocument::verify(bytes, &network, now).is_ok()
    });
    let amended = SignedDocument::verify(&bytes(&file["amendment"]["signed"]), &network, now);
    assert_eq!(amended.unwrap().amendment, 1);
}

#[test]
fn a_session_and_its_document_hold() {
    let file = read("votes.json");
    let network = network(&file["network"]);
    for of in list(&file["between_authorities"]) {
        let of = bytes(&of["bytes"]);
        let word = Peer::decode(&of).unwrap();
        assert_eq!(word.encode(), of);
        if let Peer::Vote(vote) = word {
            vote.verify(&network.authorities).unwrap();
        }
    }
    for of in list(&file["to_authority"]) {
        let of = bytes(&of["bytes"]);
        assert_eq!(ToAuthority::decode(&of).unwrap().encode(), of);
    }
    for of in list(&file["from_authority"]) {
        let of = bytes(&of["bytes"]);
        assert_eq!(FromAuthority::decode(&of).unwrap().encode(), of);
    }
    let begins = file["document"]["value"]["begins"].as_u64().unwrap();
    SignedDocument::verify(&bytes(&file["document"]["signed"]), &network, begins).unwrap();
}

#[test]
fn reports_and_proofs_hold() {
    for of in list(&read("reports.json")["reports"]) {
        is_fixed_to_the_byte(&bytes(&of["bytes"]), |bytes| SignedReport::decode(bytes).is_ok());
    }
    let file = read("proofs.json");
    let network = network(&file["network"]);
    for of in list(&file["proofs"]) {
        let proof = Proof::decode(&bytes(&of["bytes"])).unwrap();
        assert_eq!(proof.kind(), of["kind"]);
        assert!(proof.verify(&network).unwrap() == Identity(array(&of["liar"])));
    }
}

#[test]
fn addresses_are_written_as_they_stand_there() {
    let file = read("addresses.json");
    for of in list(&file["services"]) {
        let address =
            ServiceAddress { identity: array(&of["identity"]), gateway: array(&of["gateway"]) };
        assert_eq!(address.to_string(), of["text"].as_str().unwrap());
        assert!(of["text"].as_str().unwrap().parse() == Ok(address));
    }
    for of in list(&file["identities"]) {
        assert_eq!(Identity(array(&of["identity"])).to_string(), of["text"].as_str().unwrap());
    }
    for of in list(&file["networks"]) {
        assert_eq!(network(of).fingerprint(), of["fingerprint"].as_str().unwrap());
    }
}

/// What a device says that it has received, when these packets come: the one that an example's session is opened with.
fn received(session: &Value, packets: &[Vec<u8>]) -> Vec<ReceivedMessage> {
    let (opener, reader) = (&session["opener"], &session["reader"]);
    let (number, now) =
        (opener["device"].as_u64().unwrap() as u32, opener["opened"].as_u64().unwrap());
    let address = ServiceAddress { identity: [8; 32], gateway: [9; 32] };
    let listed =
        |key| RosterDevice { person: 0, key: Identity(array(key)), address, held_until: 0 };
    let roster = Roster {
        organisation: Identity(array(&session["organisation"])),
        size: 12,
        head: 12,
        is_current: true,
        devices: [(number, listed(&opener["key"])), (number + 1, listed(&reader["key"]))].into(),
        removed: [].into(),
        people: [0].into(),
    };
    // The key of the reader does nothing but to be the one that the opener wrote to.
    let me = (number + 1, SecretIdentity::from_bytes(&[171; 32]));
    assert!(me.1.identity() == Identity(array(&reader["key"])));
    let settings = Settings { copies_per_s: 1.0, ..Settings::default() };
    let mut people =
        People::restore(now, me, settings, roster, &Seed::from_u64(1), []).ok().unwrap();
    let keys = PeriodKeys::new(&array(&reader["random"]), reader["begins"].as_u64().unwrap());
    people.handle(now, Input::Keys(vec![keys]));
    for (number, packet) in (0..).zip(packets) {
        people.handle(now, Input::Packet(PacketNumber(number), packet.clone()));
    }
    std::iter::from_fn(|| people.poll_output())
        .filter_map(|output| match output {
            Output::Received(message) => Some(message),
            _ => None,
        })
        .collect()
}

#[test]
fn the_packets_of_a_session_are_read_by_the_device_that_they_are_for() {
    for session in list(&read("messages.json")["sessions"]) {
        // What the opener writes before he is answered: the rest needs the keys that the example's reader drew.
        let packets = list(&session["packets"]).iter();
        let packets: Vec<&Value> = packets.take_while(|packet| packet["by"] == "opener").collect();
        let bodies = |messages: Vec<ReceivedMessage>| -> Vec<Vec<u8>> {
            messages.iter().map(|message| message.body.encode()).collect()
        };
        let written: Vec<Vec<u8>> = packets
            .iter()
            .map(|packet| MessageFrame::decode(&bytes(&packet["frame"])).unwrap().content)
            .collect();
        let sent: Vec<Vec<u8>> = packets.iter().map(|packet| bytes(&packet["packet"])).collect();
        assert_eq!(bodies(received(session, &sent)), written);
        let kinds: Vec<u8> = sent.iter().map(|packet| packet[0]).collect();
        assert_eq!(kinds, [1, 1, 0]);
        is_fixed_to_the_byte(&sent[0], |packet| {
            bodies(received(session, &[packet.to_vec()])) == written[..1]
        });
        is_fixed_to_the_byte(&sent[2], |packet| {
            let packets = [sent[0].clone(), packet.to_vec()];
            bodies(received(session, &packets)) == [written[0].clone(), written[2].clone()]
        });
    }
}

#[test]
fn what_stands_in_messages_is_read_and_written_again() {
    let file = read("messages.json");
    for of in list(&file["keys"]) {
        let published = Published::decode(&bytes(&of["bytes"])).unwrap();
        assert!(published.keys == *PeriodKeys::new(&array(&of["random"]), 0).public());
        assert_eq!(of["value"]["device"], published.device);
        assert_eq!(of["value"]["size"], published.size);
    }
    for of in list(&file["frames"]) {
        let bytes = bytes(&of["bytes"]);
        let frame = MessageFrame::decode(&bytes).unwrap();
        assert_eq!(frame.encode(), bytes);
        assert_eq!(of["value"]["stream"], frame.stream);
    }
    for of in list(&file["refused"]) {
        assert!(MessageFrame::decode(&bytes(&of["bytes"])).is_err(), "{}", of["rule"]);
    }
    for of in list(&file["acknowledgements"]) {
        let ack: Ack = shoal_topology::encoding::decode("ack", &bytes(&of["bytes"]), 64).unwrap();
        for (n, says) in (0..).zip(of["says"].as_str().unwrap().chars()) {
            assert_eq!((ack.has(n), ack.lacks(n)), (says == '+', says == '-'), "{n}");
        }
    }
    for of in list(&file["messages"]) {
        let frames = list(&of["frames"]).iter().map(|frame| bytes(&frame["bytes"]));
        let parts = frames.flat_map(|frame| MessageFrame::decode(&frame).unwrap().content);
        let Body::Edit(_, text) = Body::decode(&parts.collect::<Vec<u8>>()) else { panic!() };
        assert_eq!(of["body"]["Edit"][1], text);
    }
    for of in list(&file["bodies"]) {
        let bytes = bytes(&of["bytes"]);
        let body = Body::decode(&bytes);
        assert!(
            body.encode() == bytes
                && matches!(body, Body::Other(..)) == of["value"]["Other"].is_array()
        );
    }
}
