//! A whole mixnet on this machine: its real daemons on loopback, and what they do under measurements. `shoal-sim` has the
//! verbs of [`commands`] by default.

pub mod commands;
pub mod launch;
pub mod load;
pub mod servers;
pub mod socks_client;
pub mod speed;
