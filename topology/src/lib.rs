//! Who the nodes are, and what everyone agrees on: descriptors, epoch documents, parameters, paths. No IO.

pub mod address;
pub mod authority;
pub mod control;
pub mod council;
mod delay;
mod descriptor;
mod document;
mod documents;
mod encoding;
mod error;
mod id;
mod parameters;
mod path;
pub mod random;
pub mod report;
mod spares;
mod text;
pub mod time;
pub mod verdict;

pub use delay::DelayLaw;
pub use descriptor::{
    ClientDescriptor, EpochKey, MAX_DESCRIPTOR_LEN, NodeDescriptor, Role, Signed,
};
pub use document::rules::NoPlace;
pub use document::{
    Document, Draw, FURTHER_EPOCHS, ListedNode, MAX_DOCUMENT_LEN, Network, SignedDocument, Standing,
};
pub use documents::{DocumentStore, EquivocationProof, VerifiedDocument};
pub use error::Error;
pub use id::{Context, Epoch, Identity, SecretIdentity, Signature};
pub use parameters::{Class, Parameters};
pub use path::Paths;
pub use random::{Seed, Stream, exponential};
pub use spares::Spares;
pub use text::is_plain;
pub use time::Time;
