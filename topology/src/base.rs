//! What all else stands on: identities and signatures, time, randomness, the one encoding, errors.

pub mod encoding;
mod engine;
mod error;
pub(crate) mod identity;
pub mod random;
mod text;
pub mod time;

pub use engine::Engine;
pub use error::Error;
pub use identity::{Context, Epoch, Identity, SecretIdentity, Signature};
pub use random::{Seed, Stream, exponential};
pub use text::is_plain;
pub use time::Time;
