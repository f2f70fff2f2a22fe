//! An organisation's directory: who belongs to it, by which devices, on whose word. No IO.
//!
//! - [`Directory`]: the list, whole; it grows by signed batches of entries and never shrinks.
//! - [`Draft`]: a batch that waits for signatures.
//! - [`alarms`]: what a member has to be told about himself.
//! - [`enrolment`]: invitations, and how whoever was invited proves it.
//! - [`wire`]: what devices ask the service of their organisation.

mod alarm;
mod batch;
mod code;
mod directory;
pub mod enrolment;
mod entry;
mod error;
mod tree;
pub mod wire;

pub use alarm::{Alarm, alarms};
pub use batch::{Batch, Draft, FOUNDER, MAX_BATCH, SignedBatch};
pub use code::{Code, CodeError};
pub use directory::{Directory, ListedEntry, Member, MemberDevice};
pub use enrolment::{Invitation, Request};
pub use entry::{
    Admin, Device, Entry, MAX_DEVICES, Person, PersonFlags, Policy, Removed, Role, Vouch,
};
pub use error::Error;
