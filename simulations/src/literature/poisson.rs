//! Poisson packets on mixes without clients of Shoal: the published experiments, and numbers that theory gives exactly.

pub mod capacity;
pub mod engine;
pub mod loopix;
pub mod network;
pub mod order;
pub mod pool;
pub mod reproduce;
pub mod stratified;
pub mod theory;
pub mod tracked;

pub use capacity::Capacity;
pub use loopix::Loopix;
pub use order::{Fifo, Slots};
pub use pool::Pool;
pub use stratified::Stratified;

use crate::experiment::{Estimate, Measured};

pub(super) fn measured(name: &str, unit: &str, estimate: Estimate) -> Measured {
    Measured { name: name.into(), unit: unit.into(), estimate, expected: None }
}

pub(super) fn figure(name: &str, unit: &str, estimate: Estimate, expected: f64) -> Measured {
    Measured { expected: Some(expected), ..measured(name, unit, estimate) }
}
