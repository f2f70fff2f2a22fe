//! How libp2p writes addresses and keys.

use std::net::SocketAddr;

use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::LinkError;

pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let (mut ip, mut port) = (None, None);
    for part in address {
        match part {
            Protocol::Ip4(v4) => ip = Some(v4.into()),
            Protocol::Ip6(v6) => ip = Some(v6.into()),
            Protocol::Tcp(number) => port = Some(number),
            _ => {}
        }
    }
    Some(SocketAddr::new(ip?, port?))
}

pub(super) fn peer_id(key: &[u8; 32]) -> Result<PeerId, LinkError> {
    let key = ed25519::PublicKey::try_from_bytes(key).map_err(|_| LinkError::BadKey)?;
    Ok(PeerId::from_public_key(&PublicKey::from(key)))
}

/// The key in the name of a peer: libp2p writes short keys out in full.
pub(super) fn key_of(peer: &PeerId) -> Option<[u8; 32]> {
    let key = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}
