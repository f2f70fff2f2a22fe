//! What all experiments have in common: settings that a scenario file gives, and figures that come out.

use serde::{Deserialize, Serialize};

pub use crate::stats::Estimate;

/// One figure of an experiment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What it is, in snake_case: the key in JSON.
    pub name: String,
    /// Its unit ("bits", "s", "1"), for people.
    pub unit: String,
    /// The value with its interval.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// What theory says of it, where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<f64>,
}

impl Measured {
    /// A figure of which theory says nothing.
    pub fn new(name: impl Into<String>, unit: &str, estimate: Estimate) -> Self {
        Self { name: name.into(), unit: unit.into(), estimate, expected: None }
    }

    /// The same with what theory says.
    pub fn expecting(self, value: f64) -> Self {
        Self { expected: Some(value), ..self }
    }
}

/// A setting that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct Wrong {
    /// The key in the scenario file, with its table: "network.layers".
    pub key: String,
    /// The other key, where two do not go together: it is to blame if the file has it and not the first.
    pub other: Option<String>,
    /// What is allowed.
    pub why: String,
}

impl Wrong {
    /// This key, and what is allowed there.
    pub fn new(key: &str, why: impl Into<String>) -> Self {
        Self { key: key.into(), other: None, why: why.into() }
    }

    /// With the other of two keys that do not go together.
    pub fn or(self, other: &str) -> Self {
        Self { other: Some(other.into()), ..self }
    }

    /// The same with `table` before its keys.
    pub fn within(self, table: &str) -> Self {
        let inside = |key: String| format!("{table}.{key}");
        Self { key: inside(self.key), other: self.other.map(inside), ..self }
    }
}

/// What `run` is given beside its settings.
pub struct Context<'a> {
    /// Where all randomness comes from: `Seed::from_u64` of it, and streams by name from there.
    pub seed: u64,
    /// Called now and then with the share that is done, 0 to 1.
    pub progress: &'a (dyn Fn(f64) + Sync),
}

/// An experiment: its settings, as a scenario file gives them. Every field has a default and a doc comment.
pub trait Experiment: Send + Sync {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first setting that cannot be.
    fn check(&self) -> Result<(), Wrong>;

    /// What people should know of it before it runs: how a file was read, what a window has.
    ///
    /// # Errors
    /// A file that cannot be read.
    fn notes(&self, seed: u64) -> anyhow::Result<Vec<String>> {
        let _ = seed;
        Ok(Vec::new())
    }

    /// Runs it, on one thread, the same for the same seed.
    ///
    /// # Errors
    /// What kept it from ending: a file that cannot be read, for one.
    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome>;
}

/// What comes out of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The figures of the run.
    pub measured: Vec<Measured>,
    /// The hash of the trace, where there is one: the same for the same seed, whatever the number of threads.
    pub trace_hash: Option<String>,
    /// What was observed, and what really happened, where the experiment has a network and a workload.
    pub observed: Option<(crate::trace::View, crate::trace::Truth)>,
    /// One row for each packet that was followed.
    pub packets: Vec<PacketRow>,
    /// Figures of its own, by the name of their files.
    pub figures: Vec<(String, crate::harness::figures::Figure)>,
    /// What people should read beside the figures.
    pub notes: Vec<String>,
}

/// A packet that was followed through the network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PacketRow {
    /// When it was sent, nanoseconds.
    pub sent: u64,
    /// When it came out, nanoseconds.
    pub delivered: u64,
    /// What an observer's tracking gives for it, bits.
    pub entropy_bits: f64,
    /// Corrupt mixes that it went through.
    pub corrupt_mixes: u32,
}
