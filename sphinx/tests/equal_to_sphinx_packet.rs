//! What this crate opens, and what it makes of it, is what `sphinx-packet` makes of it, byte for byte.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{forged, net, walk};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::*;
use sphinx_packet::{ProcessedPacketData, SphinxPacket};

#[test]
fn every_hop_opens_what_the_reference_opens() {
    for seed in 0..40 {
        let hops = 1 + seed as usize % MAX_HOPS;
        let mut net = net(seed, hops);
        let mut packet = Sphinx::SCALAR.seal(&mut net.rng, &net.path, [3; 16], b"hello").unwrap();
        for secret in &net.secrets {
            let theirs = SphinxPacket::from_bytes(packet.as_bytes()).unwrap();
            let expanded =
                theirs.header.compute_expanded_shared_secret(&(*secret.as_bytes()).into());
            let opened = Sphinx::SCALAR.open(secret, packet).unwrap();
            assert_eq!(opened.tag().as_bytes(), expanded.replay_tag(), "seed {seed}");
            let theirs = theirs.process_with_expanded_secret(&expanded).unwrap();
            match (Sphinx::SCALAR.peel(opened).unwrap(), theirs.data) {
                (
                    Peeled::Forward { next, delay, packet: peeled },
                    ProcessedPacketData::ForwardHop {
                        next_hop_packet,
                        next_hop_address,
                        delay: theirs,
                    },
                ) => {
                    assert_eq!(next, next_hop_address.to_bytes(), "seed {seed}");
                    assert_eq!(delay, theirs.to_duration(), "seed {seed}");
                    assert_eq!(
                        peeled.as_bytes().as_slice(),
                        next_hop_packet.to_bytes(),
                        "seed {seed}"
                    );
                    packet = peeled;
                }
                (
                    Peeled::Final { destination, id, payload },
                    ProcessedPacketData::FinalHop { destination: d, identifier, payload: theirs },
                ) => {
                    assert_eq!(destination, d.as_bytes(), "seed {seed}");
                    assert_eq!(id, identifier, "seed {seed}");
                    let theirs = theirs.recover_plaintext().unwrap();
                    assert_eq!(payload.message().unwrap(), theirs, "seed {seed}");
                    assert_eq!(theirs, b"hello");
                    break;
                }
                _ => panic!("forward here, final there: seed {seed}"),
            }
        }
    }
}

#[test]
fn a_reply_opens_with_the_keys_of_its_surb_alone() {
    for codec in [&Sphinx::SCALAR as &dyn Codec, &NullCodec] {
        let mut net = net(1, 5);
        let (surb, keys) = codec.surb(&mut net.rng, &net.path, [5; 16]).unwrap();
        let surb = Surb::from_slice(surb.as_bytes()).unwrap();
        let message = vec![7; MESSAGE_LEN];
        let (packet, first) = codec.reply(surb.clone(), &message).unwrap();
        assert_eq!(first, net.path[0].address);
        let (destination, id, payload) = walk(codec, &net, packet);
        assert_eq!((destination, id), (net.path[4].address, [5; 16]));
        assert_eq!(keys.id(), id);
        assert_eq!(codec.unseal(&keys, payload).unwrap(), message);
    }
    // The stand-in has no keys; the real one refuses those of every other SURB, be its path and identifier the same.
    for seed in 0..20 {
        let mut net = net(seed, 5);
        let (surb, own) = Sphinx::SCALAR.surb(&mut net.rng, &net.path, [5; 16]).unwrap();
        let reply = |surb: &Surb| Sphinx::SCALAR.reply(surb.clone(), b"hi").unwrap().0;
        let (_, _, payload) = walk(&Sphinx::SCALAR, &net, reply(&surb));
        assert!(payload.message().is_err(), "no hop reads a reply");
        for id in [[5; 16], [6; 16]] {
            let (_, other) = Sphinx::SCALAR.surb(&mut net.rng, &net.path, id).unwrap();
            let (_, _, payload) = walk(&Sphinx::SCALAR, &net, reply(&surb));
            assert_eq!(Sphinx::SCALAR.unseal(&other, payload).unwrap_err(), Error::Payload);
        }
        let (_, _, payload) = walk(&Sphinx::SCALAR, &net, reply(&surb));
        assert_eq!(Sphinx::SCALAR.unseal(&own, payload).unwrap(), b"hi");
    }
}

#[test]
fn both_codecs_carry_a_message_and_draw_alike() {
    let mut after = Vec::new();
    for codec in [&Sphinx::SCALAR as &dyn Codec, &NullCodec] {
        let mut net = net(3, 4);
        let packet = codec.seal(&mut net.rng, &net.path, [0; 16], b"same").unwrap();
        let (destination, id, payload) = walk(codec, &net, packet);
        assert_eq!((destination, id), (net.path[3].address, [0; 16]));
        assert_eq!(payload.message().unwrap(), b"same");
        codec.surb(&mut net.rng, &net.path, [1; 16]).unwrap();
        after.push(net.rng.next_u64());
    }
    assert_eq!(after[0], after[1]);
}

#[test]
fn a_changed_header_dies_at_the_next_hop_and_a_changed_payload_at_the_last() {
    let mut net = net(4, 3);
    let sound = Sphinx::SCALAR.seal(&mut net.rng, &net.path, [0; 16], b"tag me").unwrap();
    for at in (0..PACKET_LEN).step_by(7) {
        let mut packet = sound.clone();
        packet.as_mut_bytes()[at] ^= 0x40;
        let opened = Sphinx::SCALAR.open(&net.secrets[0], packet);
        if at < HEADER_LEN {
            assert!(matches!(opened, Err(Error::Mac)), "byte {at}");
        } else {
            let (_, _, payload) = walk(&Sphinx::SCALAR, &net, {
                let mut packet = sound.clone();
                packet.as_mut_bytes()[at] ^= 0x40;
                packet
            });
            assert_eq!(payload.message(), Err(Error::Payload), "byte {at}");
        }
    }
}

#[test]
fn the_tag_of_a_replay_is_the_same_whatever_its_payload() {
    let mut net = net(5, 3);
    let packet = Sphinx::SCALAR.seal(&mut net.rng, &net.path, [0; 16], b"once").unwrap();
    let mut twice = packet.clone();
    twice.as_mut_bytes()[PACKET_LEN - 1] ^= 1;
    // The top bit of the point does not count in X25519: it must not hide a replay either.
    let mut bit = packet.clone();
    bit.as_mut_bytes()[31] ^= 0x80;
    let tag = *Sphinx::SCALAR.open(&net.secrets[0], packet).unwrap().tag().as_bytes();
    assert_eq!(tag, *Sphinx::SCALAR.open(&net.secrets[0], twice).unwrap().tag().as_bytes());
    assert_eq!(tag, *Sphinx::SCALAR.open(&net.secrets[0], bit).unwrap().tag().as_bytes());
}

#[test]
fn other_versions_and_flags_are_refused_without_a_panic() {
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    let hop = SecretKey::generate(&mut rng);
    for (start, expected) in [
        ([1, 1, 1, 4], Error::Version), // trips the debug assertion of `Version::from_bytes`
        ([1, 0, 1, 3], Error::Version),
        ([2, 0, 0, 1], Error::Version),
        ([0, 0, 1, 4], Error::Routing),
        ([3, 0, 1, 4], Error::Routing),
    ] {
        let mut routing = [0; 300];
        routing[..4].copy_from_slice(&start);
        let packet = forged(&mut rng, &hop, routing);
        let opened = Sphinx::SCALAR.open(&hop, packet).unwrap();
        assert_eq!(Sphinx::SCALAR.peel(opened).err(), Some(expected), "{start:?}");
    }
}

#[test]
fn a_point_of_small_order_is_refused() {
    let hop = SecretKey::from_bytes([9; 32]);
    let mut packet = Packet::default();
    for first in [0, 1] {
        packet.as_mut_bytes()[0] = first;
        assert!(matches!(Sphinx::SCALAR.open(&hop, packet.clone()), Err(Error::LowOrder)));
    }
}

#[test]
fn paths_of_no_hops_or_six_and_surbs_without_identifier_are_refused() {
    for codec in [&Sphinx::SCALAR as &dyn Codec, &NullCodec] {
        let mut net = net(7, 6);
        assert_eq!(codec.seal(&mut net.rng, &net.path, [0; 16], b"").err(), Some(Error::Path));
        assert_eq!(codec.seal(&mut net.rng, &[], [0; 16], b"").err(), Some(Error::Path));
        let path = &net.path[..5];
        assert_eq!(codec.surb(&mut net.rng, path, [0; 16]).err(), Some(Error::Path));
        let long = vec![0; MESSAGE_LEN + 1];
        assert_eq!(
            codec.seal(&mut net.rng, path, [0; 16], &long).err(),
            Some(Error::MessageTooLong)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_that_arrives_can_panic(
        seed in any::<u64>(), head in proptest::collection::vec(any::<u8>(), 348), sound in any::<bool>(),
    ) {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let hop = SecretKey::generate(&mut rng);
        let mut packet = Packet::default();
        if sound {
            packet = forged(&mut rng, &hop, head[..300].try_into().unwrap());
        } else {
            packet.as_mut_bytes()[..348].copy_from_slice(&head);
        }
        for codec in [&Sphinx::SCALAR as &dyn Codec, &NullCodec] {
            if let Ok(opened) = codec.open(&hop, packet.clone()) {
                let _ = codec.peel(opened);
            }
        }
        let mut surb = head.clone();
        surb.resize(SURB_LEN, head[0]);
        let surb = Surb::from_slice(&surb).unwrap();
        let _ = Sphinx::SCALAR.reply(surb, b"bogus");
    }
}
