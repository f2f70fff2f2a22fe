//! What runs daemons and measures them: a whole network of the real ones on loopback, one under load.

pub mod load;
pub mod localnet;
pub mod socks;
pub mod speed;
