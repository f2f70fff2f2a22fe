//! Ways to do the same work, byte for byte, at different speeds.

mod kernel;
mod reference;
pub(crate) mod stack;
#[cfg(target_arch = "x86_64")]
mod symmetric;
mod x25519;

use std::sync::{Arc, LazyLock};

pub(crate) use kernel::{Kernel, Layer};
pub use reference::Reference;
pub use stack::wipe_stack;
use x25519::Ladders;

use crate::{Codec, Sphinx};

/// Who builds and opens packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The crate `sphinx-packet`, the judge of the format. It takes its padding from the system's generator.
    Reference,
    /// Our own code, one packet at a time; X25519 by graviola where the CPU has all that it asks for, else by dalek.
    Scalar,
    /// Eight to sixteen packets at a time in the lanes of AVX-512, with X25519 on doubles.
    Avx512,
    /// The same with X25519 on AVX-512 IFMA.
    Ifma,
}

/// A part of a hop's work for some packets, by name.
pub type Part = (&'static str, Box<dyn FnMut()>);

/// Why a backend does not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The CPU has not its instructions.
    #[error("this CPU has not the instructions that the backend needs")]
    Cpu,
    /// It does not compute here what the scalar backend does.
    #[error("the backend computes wrong results on this CPU; please report it with the CPU's name")]
    Wrong,
}

/// What was found when a kernel was first asked for.
type Found = LazyLock<Result<Kernel, Unavailable>>;

static AVX512: Found = LazyLock::new(|| Kernel::checked(Ladders::doubles()));
static IFMA: Found = LazyLock::new(|| Kernel::checked(Ladders::ifma()));

impl Backend {
    /// All there are, the slowest first.
    pub const ALL: [Self; 4] = [Self::Reference, Self::Scalar, Self::Avx512, Self::Ifma];

    /// Its name, for people and `--backend`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Scalar => "scalar",
            Self::Avx512 => "avx512",
            Self::Ifma => "ifma",
        }
    }

    /// The backend of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// The fastest that runs on this CPU.
    pub fn best() -> Self {
        let runs = |backend: &Self| backend.codec().is_ok();
        // From the fastest on; a backend that computes wrong results here is passed over like one that cannot run.
        Self::ALL.into_iter().rev().find(runs).unwrap_or(Self::Scalar)
    }

    /// The codec of the fastest that runs on this CPU.
    pub fn best_codec() -> Arc<dyn Codec> {
        Self::best().codec().unwrap_or_else(|_| Arc::new(Sphinx::SCALAR))
    }

    /// Its codec.
    ///
    /// # Errors
    /// [`Unavailable`]: not on this CPU.
    pub fn codec(self) -> Result<Arc<dyn Codec>, Unavailable> {
        Ok(match self {
            Self::Reference => Arc::new(Reference),
            // Asked each time and computed once: the sample is behind a `LazyLock`.
            ours => Arc::new(Sphinx::new(ours.kernel()?)),
        })
    }

    /// X25519 (RFC 7748) of each scalar and each coordinate, as this backend computes it inside packets; zero where
    /// the point has small order.
    ///
    /// # Errors
    /// [`Unavailable`]: not on this CPU.
    pub fn x25519(
        self,
        scalars: &[[u8; 32]],
        points: &[[u8; 32]],
    ) -> Result<Vec<[u8; 32]>, Unavailable> {
        if self == Self::Reference {
            let multiply = |(scalar, point): (&[u8; 32], &[u8; 32])| {
                let secret = x25519_dalek::StaticSecret::from(*scalar);
                secret.diffie_hellman(&(*point).into()).to_bytes()
            };
            return Ok(scalars.iter().zip(points).map(multiply).collect());
        }
        let kernel = self.kernel()?;
        let mut products = vec![[0; 32]; scalars.len().min(points.len())];
        kernel.multiply(scalars, points, &mut products);
        Ok(products)
    }

    /// The parts of a hop's work for `batch` packets, by name, to be measured one by one. Those of the reference are
    /// inside `sphinx-packet`: it has none.
    ///
    /// # Errors
    /// [`Unavailable`]: not on this CPU.
    pub fn parts(self, batch: usize) -> Result<Vec<Part>, Unavailable> {
        if self == Self::Reference {
            return Ok(Vec::new());
        }
        Ok(self.kernel()?.parts(batch))
    }

    pub(crate) fn kernel(self) -> Result<Kernel, Unavailable> {
        match self {
            Self::Reference | Self::Scalar => Ok(Kernel::Scalar),
            Self::Avx512 => *AVX512,
            Self::Ifma => *IFMA,
        }
    }
}
