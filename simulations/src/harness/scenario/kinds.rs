//! The experiments that a scenario can name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::adversary::attacks::generated::Calls;
use crate::experiment::Experiment;
use crate::literature::corrupt_operators::CorruptOperators;
use crate::literature::corrupt_paths::CorruptPaths;
use crate::literature::delay_law::DelayLaw;
use crate::literature::disclosure::{Disclosure, DisclosureContinuous, Intersection};
use crate::literature::flow_matching::FlowMatching;
use crate::literature::n_minus_one::Blending;
use crate::literature::poisson::{Capacity, Fifo, Loopix, Pool, Slots, Stratified};
use crate::literature::records::Records;
use crate::systems::Baseline;
use crate::world;

/// The text of a scenario that the project carries.
macro_rules! scenario {
    ($name:literal) => {
        include_str!(concat!("../../../scenarios/", $name, ".toml"))
    };
}

/// An experiment that a scenario can name.
pub struct Kind {
    /// Its name in scenario files.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// A scenario of it with a comment on every key; a test holds it to that.
    pub explained: &'static str,
    /// Its settings from the keys of a scenario that are its own.
    pub(super) parse: fn(&str) -> Result<Parsed, toml::de::Error>,
    /// Its default settings.
    pub(super) defaults: fn() -> Result<Table, toml::ser::Error>,
}

/// An experiment's settings, both ways.
pub(super) struct Parsed {
    pub(super) experiment: Box<dyn Experiment>,
    pub(super) settings: Table,
}

impl Kind {
    /// `E` under this name; `explained` is a scenario of it with a comment on every key.
    pub const fn of<E>(name: &'static str, about: &'static str, explained: &'static str) -> Self
    where
        E: Experiment + DeserializeOwned + Serialize + Default + 'static,
    {
        Self {
            name,
            about,
            explained,
            parse: |text| {
                let experiment: E = toml::from_str(text)?;
                let settings = Table::try_from(&experiment).map_err(serde::de::Error::custom)?;
                Ok(Parsed { experiment: Box::new(experiment), settings })
            },
            defaults: || Table::try_from(E::default()),
        }
    }
}

/// All experiments that scenarios can name.
pub fn experiments() -> &'static [Kind] {
    EXPERIMENTS
}

/// One line for each experiment; a scenario explains it.
static EXPERIMENTS: &[Kind] = &[
    Kind::of::<world::Settings>(
        "shoal",
        "The deployed engines in virtual time, with people who write, call and download",
        scenario!("shoal"),
    ),
    Kind::of::<Baseline>(
        "baseline",
        "A workload through telecom, a VPN, onion routing or a mixnet without paced downlink",
        scenario!("baseline"),
    ),
    Kind::of::<Calls>(
        "made_up",
        "Calls over traffic that is made up, each protection on or off: what attacks find then",
        scenario!("made-up"),
    ),
    Kind::of::<Pool>("pool", "One exponential mix: sender entropy", scenario!("pool")),
    Kind::of::<Stratified>(
        "stratified",
        "Poisson packets on a stratified network: entropy and latency",
        scenario!("mixim-3"),
    ),
    Kind::of::<Fifo>("fifo", "Whether two packets leave in order", scenario!("fifo")),
    Kind::of::<Slots>("slots", "Waiting for Poisson slots", scenario!("slots")),
    Kind::of::<CorruptPaths>(
        "corrupt_paths",
        "Routes through corrupt mixes alone",
        scenario!("corrupt-paths"),
    ),
    Kind::of::<CorruptOperators>(
        "corrupt_operators",
        "Time to the first path of corrupt operators alone, of a client and of a call",
        scenario!("corrupt-operators"),
    ),
    Kind::of::<DelayLaw>(
        "delay_law",
        "Entropy of a packet where the middle mix delays uniformly",
        scenario!("delay-law"),
    ),
    Kind::of::<Loopix>("loopix", "Loopix: two senders at the last mix", scenario!("loopix")),
    Kind::of::<Capacity>("capacity", "Anonymity against cost", scenario!("capacity")),
    Kind::of::<FlowMatching>(
        "flow_matching",
        "Flow matching by a likelihood ratio",
        scenario!("flow-matching"),
    ),
    Kind::of::<Records>(
        "records",
        "Call records through mixes without cover",
        scenario!("copenhagen-messages"),
    ),
    Kind::of::<Blending>(
        "blending",
        "The n-1 attack and the alarm of loops",
        scenario!("blending"),
    ),
    Kind::of::<Disclosure>(
        "disclosure",
        "Statistical disclosure in batches, and least squares",
        scenario!("disclosure"),
    ),
    Kind::of::<DisclosureContinuous>(
        "disclosure_continuous",
        "Statistical disclosure through continuous mixes",
        scenario!("disclosure-continuous"),
    ),
    Kind::of::<Intersection>("intersection", "Intersection under churn", scenario!("intersection")),
];
