//! The codec of `sphinx-packet`, to compare with.

use rand::CryptoRng;
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
use sphinx_packet::{
    ProcessedPacketData, SURB, SURBMaterial, SphinxPacket, SphinxPacketBuilder, SurbReplyRecovery,
};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::header;
use crate::hop_keys::{HopKeys, ROUTING_LEN, VERSION, part};
use crate::key::has_small_order;
use crate::packet::unpad;
use crate::{
    Address, Codec, Error, Hop, HopState, MESSAGE_LEN, Opened, PAYLOAD_LEN, Packet, PacketId,
    Payload, Peeled, ReplayTag, SecretKey, Surb, SurbKeys, curve,
};

/// `sphinx-packet` itself, behind the same checks.
#[derive(Clone, Copy, Default)]
pub struct Reference;

impl Reference {
    /// Opens a packet with `sphinx-packet` alone, from bytes to bytes: what others are compared with.
    pub fn process(secret: &SecretKey, packet: &Packet) -> bool {
        let secret = StaticSecret::from(*secret.as_bytes());
        let Ok(packet) = SphinxPacket::from_bytes(packet.as_bytes()) else { return false };
        let expanded = packet.header.compute_expanded_shared_secret(&secret);
        match packet.process_with_expanded_secret(&expanded).map(|peeled| peeled.data) {
            Ok(ProcessedPacketData::ForwardHop { next_hop_packet, .. }) => {
                !next_hop_packet.to_bytes().is_empty()
            }
            other => other.is_ok(),
        }
    }
}

/// In the words of `sphinx-packet`: route, delays, destination.
fn route(path: &[Hop], id: PacketId) -> (Vec<Node>, Vec<Delay>, Destination) {
    let node = |hop: &Hop| {
        Node::new(NodeAddressBytes::from_bytes(hop.address), (*hop.key.as_bytes()).into())
    };
    let delay =
        |hop: &Hop| Delay::new_from_nanos(u64::try_from(hop.delay.as_nanos()).unwrap_or(u64::MAX));
    let last = path.last().map_or([0; 32], |hop| hop.address);
    let destination = Destination::new(DestinationAddressBytes::from_bytes(last), id);
    (path.iter().map(node).collect(), path.iter().map(delay).collect(), destination)
}

impl Codec for Reference {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        if message.len() > MESSAGE_LEN {
            return Err(Error::MessageTooLong);
        }
        let secret = header::draw(rng, path)?.secret;
        let (nodes, delays, destination) = route(path, id);
        let packet = SphinxPacketBuilder::new()
            .with_version(SINGLE_SEED_SURB_VERSION)
            .with_payload_size(PAYLOAD_LEN)
            // The secret is from the caller's generator; the padding it draws from the system's.
            .with_initial_secret(&StaticSecret::from(*secret))
            .build_packet(message, &nodes, &destination, &delays)
            .map_err(|_| Error::Path)?;
        Packet::from_slice(&packet.to_bytes())
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        if id == [0; 16] {
            return Err(Error::Path);
        }
        let secret = header::draw(rng, path)?.secret;
        let (nodes, delays, destination) = route(path, id);
        let material = SURBMaterial::new(nodes, delays, destination, SINGLE_SEED_SURB_VERSION);
        let made = SURB::new_recoverable(StaticSecret::from(*secret), material);
        let (surb, recovery) = made.map_err(|_| Error::Path)?;
        let recovery = Zeroizing::new(recovery.to_bytes());
        let (_, seeds) = recovery.split_at_checked(16).ok_or(Error::Length)?;
        let seeds = Zeroizing::new(seeds.as_chunks::<16>().0.to_vec());
        Ok((Surb::from_slice(&Zeroizing::new(surb.to_bytes()))?, SurbKeys { id, seeds }))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        if message.len() > MESSAGE_LEN {
            return Err(Error::MessageTooLong);
        }
        let surb = SURB::from_bytes(surb.as_bytes().as_slice()).map_err(|_| Error::Length)?;
        let used = surb.use_surb(message, PAYLOAD_LEN).map_err(|_| Error::MessageTooLong)?;
        let (packet, first) = used;
        Ok((Packet::from_slice(&packet.to_bytes())?, first.to_bytes()))
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let theirs = SphinxPacket::from_bytes(packet.as_bytes()).map_err(|_| Error::Length)?;
        // Looked at here, so that all backends refuse the same packets.
        if has_small_order(theirs.header.shared_secret.as_bytes()) {
            return Err(Error::LowOrder);
        }
        let static_secret = StaticSecret::from(*secret.as_bytes());
        let expanded = theirs.header.compute_expanded_shared_secret(&static_secret);
        theirs.header.ensure_header_integrity(&expanded).map_err(|_| Error::Mac)?;
        let tag = ReplayTag(*expanded.replay_tag());
        // Their parser has a debug assertion on the version that a sender can trip, and drops its first byte: it is
        // looked at here first, for which the keys are derived again.
        let shared = curve::multiply(secret.as_bytes(), &part(packet.as_bytes(), 0));
        let keys = HopKeys::derive(&shared);
        Ok(Opened { tag, packet, state: HopState::Reference(Box::new((expanded, keys))) })
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        let HopState::Reference(state) = opened.state else { return Err(Error::Mac) };
        let (expanded, keys) = *state;
        let mut routing: [u8; ROUTING_LEN] = part(opened.packet.as_bytes(), 48);
        // The bytes that their parser would see, for the version alone; then it does the work from the packet as it
        // came.
        keys.apply_stream(&mut routing);
        if part::<3>(&routing, 1) != VERSION {
            return Err(Error::Version);
        }
        let packet = SphinxPacket::from_bytes(opened.packet.as_bytes());
        let peeled = packet
            .and_then(|packet| packet.process_with_expanded_secret(&expanded))
            .map_err(|_| Error::Routing)?;
        match peeled.data {
            ProcessedPacketData::ForwardHop { next_hop_packet, next_hop_address, delay } => {
                Ok(Peeled::Forward {
                    next: next_hop_address.to_bytes(),
                    delay: delay.to_duration(),
                    packet: Packet::from_slice(&next_hop_packet.to_bytes())?,
                })
            }
            ProcessedPacketData::FinalHop { destination, identifier, payload } => {
                let mut packet = opened.packet;
                let (_, bytes) = packet.split_mut();
                *bytes = payload.into_bytes().try_into().map_err(|_| Error::Length)?;
                Ok(Peeled::Final {
                    destination: destination.as_bytes(),
                    id: identifier,
                    payload: Payload(packet),
                })
            }
        }
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        let mut recovery = Zeroizing::new(keys.id.to_vec());
        keys.seeds.iter().for_each(|seed| recovery.extend_from_slice(seed));
        let recovery = SurbReplyRecovery::from_bytes(&recovery).map_err(|_| Error::Payload)?;
        let sealed = sphinx_packet::payload::Payload::from_bytes(payload.as_bytes());
        let opened =
            sealed.and_then(|sealed| recovery.unseal(sealed)).map_err(|_| Error::Payload)?;
        unpad(opened.as_bytes()).map(<[u8]>::to_vec)
    }
}
