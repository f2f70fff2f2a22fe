//! The verbs that compute in virtual time: `run`, `sweep`, `attack`, `reproduce`, `scoreboard` and `gateway`.

mod attack;
mod gateway;
mod reproduce;
mod run;
mod scoreboard;
mod table;

pub use attack::{AttackArgs, AttackResult, attack};
pub use gateway::{GatewayArgs, gateway};
pub use reproduce::{ChecksFail, ReproduceArgs, reproduce};
pub use run::{RunArgs, run};
pub(crate) use run::{bar, by_name, pool};
pub use scoreboard::{ScoreboardArgs, scoreboard};
pub use table::{merge, print_table};

/// Options that do not go together. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The version of the program that made a result.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
