use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use rand::{RngExt, SeedableRng, TryCryptoRng, TryRng};
use rand_chacha::ChaCha12Rng;
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SphinxPacketBuilder};
use x25519_dalek::StaticSecret;

use super::*;
use crate::{Codec, MESSAGE_LEN, PAYLOAD_LEN, PublicKey, Sphinx};

/// A generator that gives these bytes, and panics when they are used up.
struct Given(VecDeque<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("packets are built from bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("packets are built from bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
        Ok(())
    }
}

impl TryCryptoRng for Given {}

/// The padding that the reference drew for itself, found by opening its header hop by hop.
fn padding_of(header: &[u8], secret: &[u8; 32], path: &[Hop]) -> Vec<u8> {
    let mut sender = Sender::new(secret);
    let mut routing: [u8; ROUTING_LEN] = part(header, 48);
    for hop in path {
        let keys = HopKeys::derive(&sender.share(&hop.key));
        sender.blind(&keys.blinding);
        let mut block = [0; ROUTING_LEN + HOP_LEN];
        block[..ROUTING_LEN].copy_from_slice(&routing);
        keys.apply_stream(&mut block);
        if block[0] == FINAL {
            return block[FINAL_LEN..FINAL_LEN + padding_len(path.len())].to_vec();
        }
        routing = part(&block, HOP_LEN);
    }
    panic!("no last hop");
}

/// Also for keys on the twist and outside of the prime subgroup, to which no secret is known.
#[test]
fn what_is_built_is_what_the_reference_builds() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    for round in 0..1000 {
        let hops: Vec<Hop> = (0..1 + round % MAX_HOPS)
            .map(|_| Hop {
                address: rng.random(),
                key: PublicKey::from_bytes(rng.random()).unwrap(),
                delay: Duration::from_nanos(rng.random()),
            })
            .collect();
        let (secret, id): ([u8; 32], PacketId) = (rng.random(), rng.random());
        let mut message = vec![0; rng.random_range(0..=MESSAGE_LEN)];
        rng.fill(message.as_mut_slice());

        let route: Vec<Node> = hops
            .iter()
            .map(|hop| {
                let address = NodeAddressBytes::from_bytes(hop.address);
                Node::new(address, (*hop.key.as_bytes()).into())
            })
            .collect();
        let delays: Vec<Delay> =
            hops.iter().map(|hop| Delay::new_from_nanos(hop.delay.as_nanos() as u64)).collect();
        let last = hops.last().unwrap().address;
        let destination = Destination::new(DestinationAddressBytes::from_bytes(last), id);

        let theirs = SphinxPacketBuilder::new()
            .with_version(SINGLE_SEED_SURB_VERSION)
            .with_payload_size(PAYLOAD_LEN)
            .with_initial_secret(&StaticSecret::from(secret))
            .build_packet(&message, &route, &destination, &delays)
            .unwrap()
            .to_bytes();
        let padding = padding_of(&theirs, &secret, &hops);
        let mut given = Given(secret.into_iter().chain(padding).collect());
        let ours = Sphinx::SCALAR.seal(&mut given, &hops, id, &message).unwrap();
        assert!(ours.as_bytes().as_slice() == theirs, "round {round}");
        assert!(given.0.is_empty());

        let material = SURBMaterial::new(route, delays, destination, SINGLE_SEED_SURB_VERSION);
        let (theirs, _) = SURB::new_recoverable(StaticSecret::from(secret), material).unwrap();
        let bytes = theirs.to_bytes();
        let padding = padding_of(&bytes, &secret, &hops);
        let mut given = Given(secret.into_iter().chain(padding).collect());
        let (ours, _) = Sphinx::SCALAR.surb(&mut given, &hops, id).unwrap();
        assert!(ours.as_bytes().as_slice() == bytes, "round {round}");
        let (theirs, first) = theirs.use_surb(&message, PAYLOAD_LEN).unwrap();
        let (ours, ours_first) = Sphinx::SCALAR.reply(ours, &message).unwrap();
        assert!(ours.as_bytes().as_slice() == theirs.to_bytes(), "round {round}");
        assert_eq!(ours_first, first.to_bytes());
    }
}
