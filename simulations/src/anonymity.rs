//! Metrics of anonymity, which README.md defines. Entropies are in bits.

mod distribution;
mod indistinguishability;
mod sender;
mod tracking;

pub use distribution::{
    degree_of_anonymity, effective_set, guessing_entropy, min_entropy, shannon_bits, sum_by_person,
};
pub use indistinguishability::{Epsilons, epsilon};
pub use sender::{SenderEntropy, binary_entropy_bits};
pub use tracking::{Following, Leak, Pools};
