//! A client of the mixnet: a person's, behind a local SOCKS5 proxy, or a service's, run by `serve`.
//!
//! The engines ([`engine::Client`], [`service::Service`]), the tunnel and the handshakes know nothing of sockets,
//! files, clocks or ambient randomness. The program around them is in `daemon`, behind the feature of that name.

#[cfg(feature = "daemon")]
pub mod daemon;
pub mod engine;
pub mod gauge;
pub mod key_life;
pub mod keys;
pub mod message;
pub mod policy;
pub mod request;
mod route;
pub mod sender;
pub mod service;
pub mod socks;
mod surbs;
pub mod tunnel;
pub mod uplink;
#[cfg(test)]
mod world;

#[cfg(feature = "daemon")]
pub use daemon::config::{Config, Gateway};
#[cfg(feature = "daemon")]
pub use daemon::shoal::{ConnectError, Incoming, Listener, ServiceConfig, Shoal, Status, Stream};
pub use engine::Isolation;
