//! What the two daemons share: links, configuration, key files, the admin page, the control socket, logs, the
//! end of a run. It touches the world so that the engines need not.

#![forbid(unsafe_code)]

pub mod about;
pub mod admin;
pub mod authorities;
pub mod coarse;
pub mod config;
pub mod control;
pub mod host_port;
pub mod limited;
pub mod link;
pub mod logs;
pub mod memory;
pub mod messages;
pub mod network;
pub mod process;
pub mod reconnect;
pub mod reload;
pub mod secret;
pub mod shutdown;
pub mod start;
pub mod taglog;
mod tls;

pub use shoal_program::{exit, stdout};
