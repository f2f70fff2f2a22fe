//! Who the nodes are, and what everyone agrees on. No IO.
//!
//! - [`directory`]: descriptors, epoch documents, parameters, paths, addresses.
//! - [`consensus`]: the engine of an authority, which votes on the document of each epoch.
//! - [`reputation`]: which nodes lose more than others, from the reports of nodes.
//! - [`wire`]: what clients say to gateways, and nodes to authorities.

mod base;
pub mod consensus;
pub mod directory;
pub mod reputation;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;

pub use base::encoding;
pub use base::{
    Context, Engine, Epoch, Error, Identity, SecretIdentity, Seed, Signature, Stream, Time,
    exponential, is_plain, random, time,
};
pub use directory::{
    Class, ClientDescriptor, DelayLaw, DirectoryHead, Document, DocumentStore, Draw, EpochKey,
    EquivocationProof, FURTHER_EPOCHS, HeadUpdate, ListedNode, MAX_ATTACHED_LEN,
    MAX_DESCRIPTOR_LEN, MAX_DOCUMENT_LEN, MAX_ENTRIES, Network, NodeDescriptor, NotListed,
    Parameters, Paths, Role, Signed, SignedDocument, Spares, Standing, VerifiedDocument,
};
