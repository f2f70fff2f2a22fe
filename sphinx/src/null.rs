//! A codec of the same lengths without cryptography, for simulations of 10^7 packets and more.
//!
//! It protects nothing: the route stands in clear in the header. It draws the same bytes from the generator and
//! refuses the same misuse as the real one, so that both give the same trace.

use std::time::Duration;

use rand::CryptoRng;

use crate::header;
use crate::packet::{pad, unpad};
use crate::{
    Address, Codec, Error, HEADER_LEN, Hop, HopState, MAX_HOPS, MESSAGE_LEN, Opened, Packet,
    PacketId, Payload, Peeled, ReplayTag, SURB_LEN, SecretKey, Surb, SurbKeys,
};

/// Layout of the header: nonce 32, then position 1, number of hops 1, identifier 16, then 40 bytes a hop.
const HOPS: usize = 50;
const HOP_LEN: usize = 40;

/// Packets that only look like packets. Never used by a daemon.
#[derive(Clone, Copy, Default)]
pub struct NullCodec;

fn build(
    rng: &mut dyn CryptoRng,
    path: &[Hop],
    id: PacketId,
) -> Result<([u8; HEADER_LEN], Address), Error> {
    let first = path.first().ok_or(Error::Path)?;
    let nonce = header::draw(rng, path)?.secret;
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend(nonce.as_slice());
    header.extend([0, path.len() as u8]);
    header.extend(id);
    for hop in path {
        header.extend(hop.address);
        header.extend((hop.delay.as_nanos() as u64).to_be_bytes());
    }
    header.resize(HEADER_LEN, 0);
    let header = header.try_into().map_err(|_| Error::Path)?;
    Ok((header, first.address))
}

fn assemble(header: &[u8; HEADER_LEN], message: &[u8]) -> Result<Packet, Error> {
    let mut packet = Packet::default();
    let (head, payload) = packet.split_mut();
    pad(message, payload)?;
    *head = *header;
    Ok(packet)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Error> {
    let from = bytes.get(offset..offset + N).ok_or(Error::Routing)?;
    from.try_into().map_err(|_| Error::Routing)
}

impl Codec for NullCodec {
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
        let (header, _) = build(rng, path, id)?;
        assemble(&header, message)
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
        let (header, first) = build(rng, path, id)?;
        let mut bytes = header.to_vec();
        bytes.extend(first);
        bytes.resize(SURB_LEN, 0);
        Ok((Surb::from_slice(&bytes)?, SurbKeys { id, seeds: Vec::new().into() }))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        let bytes = surb.as_bytes();
        Ok((assemble(&array(bytes, 0)?, message)?, array(bytes, HEADER_LEN)?))
    }

    fn open(&self, _: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let [position, hops] = array(packet.as_bytes(), 32)?;
        if position >= hops || usize::from(hops) > MAX_HOPS {
            return Err(Error::Mac);
        }
        let mut tag: [u8; 32] = array(packet.as_bytes(), 0)?;
        tag[0] ^= position;
        Ok(Opened { tag: ReplayTag(tag), packet, state: HopState::NullCodec })
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        let mut packet = opened.packet;
        let bytes = packet.as_bytes();
        let [position, hops] = array(bytes, 32)?;
        let here = HOPS + HOP_LEN * usize::from(position);
        if position + 1 == hops {
            let (destination, id) = (array(bytes, here)?, array(bytes, 34)?);
            return Ok(Peeled::Final { destination, id, payload: Payload(packet) });
        }
        let next = array(bytes, here + HOP_LEN)?;
        let delay = Duration::from_nanos(u64::from_be_bytes(array(bytes, here + 32)?));
        packet.as_mut_bytes()[32] += 1;
        Ok(Peeled::Forward { next, delay, packet })
    }

    fn unseal(&self, _: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        unpad(payload.as_bytes()).map(<[u8]>::to_vec)
    }
}
