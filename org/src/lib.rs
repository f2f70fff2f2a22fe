//! What an organisation's admins do, on files and towards authorities.
//!
//! [`Registry`] is the directory of files of one admin, or of all of them; [`publish`] hands a head to authorities;
//! [`DirectoryService`] takes requests and gives members the directory, inside the network; [`Scim`] removes whose accounts a provider ends.

#![allow(clippy::disallowed_methods)] // The program's own edge of the world: files, sockets, the clock.

mod accounts;
mod counters;
mod current;
mod error;
mod files;
mod invitations;
mod oidc;
mod publish;
mod registry;
mod scim;
mod serve;
mod sign_ins;
mod signed_in;

pub use accounts::Account;
pub use error::OrgError;
pub use invitations::{Approval, Open, Slip};
pub use oidc::OidcConfig;
pub use publish::{PublishedHead, keep_published, publish};
pub use registry::{Entered, Registry};
pub use scim::{Scim, ScimConfig, token_file};
pub use serve::{DirectoryService, Duties};
pub use signed_in::{SignedIn, Subject};
