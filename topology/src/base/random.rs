//! Random streams: one seed, and a generator of its own for every purpose.
//!
//! Because each purpose draws from its own stream, adding an observer, a workload or a metric moves no other
//! stream. Non-interference (property P2 of THREAT-MODEL.md) is tested by that.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The generator behind every stream: a cryptographic one, since streams also make keys.
pub type Stream = ChaCha12Rng;

/// The one seed of an engine. It has no `Debug`: whoever knows it knows every path and key drawn from it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of these 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A seed for tests and simulations, from a small number.
    pub fn from_u64(n: u64) -> Self {
        Self(blake3::derive_key("shoal 2026 seed from number", &n.to_le_bytes()))
    }

    /// The generator for one purpose. The same seed and purpose always give the same stream.
    pub fn stream(&self, purpose: &str) -> Stream {
        Stream::from_seed(self.derive(purpose))
    }

    /// A seed for a part of the whole (an entity of a simulation, an isolation group).
    pub fn part(&self, name: &str) -> Self {
        Self(self.derive(name))
    }

    fn derive(&self, purpose: &str) -> [u8; 32] {
        *blake3::Hasher::new_keyed(&self.0).update(purpose.as_bytes()).finalize().as_bytes()
    }
}

/// Draws from an exponential law with this mean, by inversion, to the nanosecond. A mean of zero gives zero.
pub fn exponential(rng: &mut impl Rng, mean: Duration) -> Duration {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let u: f64 = rng.random();
    Duration::from_nanos((-(1.0 - u).ln() * mean.as_nanos() as f64) as u64)
}
