//! Ways to do the same work, byte for byte, at different speeds.

mod reference;

use std::sync::Arc;

pub use reference::Reference;

use crate::{Codec, Sphinx};

/// Who builds and opens packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The crate `sphinx-packet`, the judge of the format. It takes its padding from the system's generator.
    Reference,
    /// Our own code, one packet at a time; X25519 by graviola where the CPU has all that it asks for, else by dalek.
    Scalar,
}

impl Backend {
    /// All there are, the slowest first.
    pub const ALL: [Self; 2] = [Self::Reference, Self::Scalar];

    /// Its name, for people and `--backend`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Scalar => "scalar",
        }
    }

    /// Of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// The fastest that runs on this CPU.
    pub fn best() -> Self {
        Self::Scalar
    }

    /// Its codec.
    pub fn codec(self) -> Arc<dyn Codec> {
        match self {
            Self::Reference => Arc::new(Reference),
            Self::Scalar => Arc::new(Sphinx),
        }
    }
}
