//! What an organisation's admins do, on files and towards authorities.
//!
//! [`Registry`] is the directory of files of one admin, or of all of them; [`publish`] hands a head to authorities;
//! [`Service`] takes requests and gives members the directory, inside the network.

#![allow(clippy::disallowed_methods)] // The program's own edge of the world: files, sockets, the clock.

mod error;
mod files;
mod invitations;
mod publish;
mod registry;
mod serve;

pub use error::OrgError;
pub use invitations::{Open, Slip};
pub use publish::{Published, publish};
pub use registry::{Entered, Registry};
pub use serve::Service;
