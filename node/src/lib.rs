//! A node of Shoal, mix or gateway: the engine without IO, and (feature `daemon`) the program around it.

pub mod budget;
pub mod counters;
pub mod engine;
mod limit;
pub mod opener;
pub mod place;
pub mod wheel;

pub use counters::{Counters, DropReason};
pub use engine::gateway::{Admission, GatewaySettings, InboxId, Token};
pub use engine::{Engine, Input, Origin, Output, SessionId, Settings};
pub use opener::{Arrived, Came, Log, NotWritten, Opener, Room};
pub use place::Place;
pub use shoal_sphinx::replay;

#[cfg(feature = "daemon")]
pub mod daemon;
