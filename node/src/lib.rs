//! A node of Shoal, mix or gateway: the engine without IO, and (feature `daemon`) the program around it.

pub mod budget;
pub mod counters;
pub mod engine;
mod limit;
pub mod neighbours;
pub mod opener;
pub mod wheel;

pub use counters::{Counters, DropReason};
pub use engine::gateway::{Admission, GatewaySettings, InboxId, Token};
pub use engine::{Input, KnownClient, NodeEngine, NodeSettings, Origin, Output, SessionId};
pub use neighbours::Neighbours;
pub use opener::{Arrived, Came, Log, NotWritten, Opener, Room};
pub use shoal_sphinx::replay;

#[cfg(feature = "daemon")]
pub mod daemon;
