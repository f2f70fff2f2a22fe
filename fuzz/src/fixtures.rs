//! Keys, a network and a sound document, of which inputs are made.

use std::sync::LazyLock;
use std::time::Duration;

use shoal_sphinx::{Hop, MAX_HOPS, PacketId, SecretKey};
use shoal_topology::{Epoch, Network, testing};

/// Second at which the documents are read.
pub const NOW: u64 = 1_800_000_000;
pub(crate) const ID: PacketId = [3; 16];

/// Keys of the five hops of every packet here.
pub fn hops() -> Vec<SecretKey> {
    (1..=MAX_HOPS as u8).map(|n| SecretKey::from_bytes([n; 32])).collect()
}

/// The network whose documents are read.
pub static NETWORK: LazyLock<testing::TestNetwork> = LazyLock::new(|| {
    let epoch = Epoch(NOW / u64::from(Network::EPOCH_S));
    testing::TestNetwork::builder().exits(1).epoch(epoch).build()
});

/// A sound document, signed.
pub fn signed() -> Vec<u8> {
    NETWORK.sign(&NETWORK.document()).signed.to_vec()
}

pub(crate) fn path() -> Vec<Hop> {
    let hop = |(n, secret): (usize, SecretKey)| Hop {
        address: [n as u8; 32],
        key: secret.public(),
        delay: Duration::from_millis(10),
    };
    hops().into_iter().enumerate().map(hop).collect()
}
