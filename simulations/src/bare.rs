//! Plain Poisson packets on bare mixes: the published experiments, and numbers that theory gives exactly.

pub mod capacity;
pub mod engine;
pub mod law;
pub mod loopix;
pub mod network;
pub mod operators;
pub mod order;
pub mod paths;
pub mod pool;
pub mod reproduce;
pub mod stratified;
pub mod theory;
pub mod tracked;

pub use capacity::Capacity;
pub use law::DelayLaw;
pub use loopix::Loopix;
pub use operators::CorruptOperators;
pub use order::{Fifo, Slots};
pub use paths::CorruptPaths;
pub use pool::Pool;
pub use stratified::Stratified;

use crate::experiment::{Estimate, Measured};

/// Names of the experiments on bare mixes, as scenario files write them.
pub const NAMES: [&str; 7] =
    ["pool", "stratified", "fifo", "slots", "corrupt-paths", "loopix", "capacity"];

fn measured(name: &str, unit: &str, estimate: Estimate) -> Measured {
    Measured { name: name.into(), unit: unit.into(), estimate, expected: None }
}

fn figure(name: &str, unit: &str, estimate: Estimate, expected: f64) -> Measured {
    Measured { expected: Some(expected), ..measured(name, unit, estimate) }
}
