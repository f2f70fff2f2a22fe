//! Who is there: descriptors, the document of an epoch with its parameters, paths through its layers, addresses of services.

pub mod address;
mod delay;
pub(crate) mod descriptor;
pub(crate) mod document;
mod head;
pub(crate) mod heads;
mod parameters;
mod paths;
pub(crate) mod spares;
mod store;

pub use delay::DelayLaw;
pub use descriptor::{
    ClientDescriptor, EpochKey, MAX_ATTACHED_LEN, MAX_DESCRIPTOR_LEN, NodeDescriptor, Role, Signed,
};
pub use document::rules::NotListed;
pub use document::{
    Document, Draw, FURTHER_EPOCHS, ListedNode, MAX_DOCUMENT_LEN, Network, SignedDocument, Standing,
};
pub use head::{DirectoryHead, MAX_ENTRIES};
pub use heads::{HeadUpdate, MAX_HEADS};
pub use parameters::{Class, Parameters};
pub use paths::Paths;
pub use spares::Spares;
pub use store::{DocumentStore, EquivocationProof, VerifiedDocument};
