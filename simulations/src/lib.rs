//! What runs many daemons: today `localnet`, the real ones on loopback.

pub mod localnet;
pub mod socks;
pub mod speed;
