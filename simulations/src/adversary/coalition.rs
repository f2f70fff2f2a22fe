//! What operators who work together know of calls: flows between mixes and gateways, correlated over a call.
//!
//! A coalition has a share of the mixes of each layer, and the gateways of nobody, of callers, or of everybody. Each of its nodes
//! knows which arrival became which departure, and two of them at one link see the same bytes. A packet whose whole path is
//! corrupt is certain. Beside it there are many of whose path one mix is honest: it came out of that mix within a known law of
//! when it went in, and of what went in little goes to one inbox. That is a statistic which grows over a call
//! ([`FlowReading`]). Kept paths show such flows to whoever sees the links; fresh ones show them to coalitions alone.

mod fragments;
mod readings;

use std::collections::BTreeSet;

use shoal_topology::Time;

pub use fragments::KnownNetwork;
pub use readings::FlowReading;

use crate::adversary::at_gateway::decision::{Decision, decide};
use crate::adversary::attacks::generated::{self, Calls};
use crate::trace::View;
use crate::workload::{Activity, Workload};
use crate::world::{self, Observed, Settings};

/// What is left out at the beginning, seconds: calls have begun then.
const SETTLED_S: f64 = 5.0;
/// For which instants the share of calls that are found is printed, seconds.
const AT_S: [f64; 3] = [10.0, 30.0, 60.0];

/// Which gateways are in the coalition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gateways {
    /// Those of nobody.
    None,
    /// That of one party of each call.
    One,
    /// Those of both.
    Both,
}

impl Gateways {
    /// All of these.
    pub const ALL: [Self; 3] = [Self::None, Self::One, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no gateway",
            Self::One => "one gateway of a call",
            Self::Both => "both gateways of a call",
        }
    }
}

/// A network with calls, in which all nodes say what they know. A coalition is a part of them.
pub struct Whole {
    view: View,
    network: KnownNetwork,
    /// Who calls whom, by number; everybody else is idle.
    calls: BTreeSet<(u32, u32)>,
    /// For which instants the share that is found is printed, seconds.
    at_s: Vec<f64>,
}

/// What a coalition finds.
#[derive(Clone, Debug)]
pub struct CoalitionFinding {
    /// The coalition, in words.
    pub name: String,
    /// How it reads what it knows.
    pub reading: FlowReading,
    /// When it decides.
    pub decision: Decision,
}

impl Whole {
    /// The deployed engines: of every four people two are in a call throughout, at different gateways, and two idle. `width` mixes
    /// in each layer, ten gateways; so many calls, for so long, from a seed.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn run(width: u16, (pairs, seconds, seed): (u32, f64, u64)) -> anyhow::Result<Self> {
        let mut settings = Settings { warm_up_s: 8.0, drain_s: 1.0, ..Settings::default() };
        settings.class.name = "call".into();
        settings.observer.links = Observed::None;
        settings.network.mixes_per_layer = width;
        settings.network.gateways = 10;
        let layers = u32::from(settings.network.layers);
        let mixes = layers * u32::from(width);
        let gateways = u32::from(settings.network.gateways);
        settings.observer.corrupt_nodes = (0..mixes + gateways).collect();
        let calls: BTreeSet<(u32, u32)> = (0..pairs).map(|n| (4 * n, 4 * n + 1)).collect();
        let call = |(from, to): &(u32, u32)| Activity::Call {
            from: *from,
            to: *to,
            at: Time::ZERO,
            seconds,
        };
        let people = 4 * pairs;
        let end = Time::from_nanos((seconds * 1e9) as u64);
        let workload = Workload { people, end, activities: calls.iter().map(call).collect() };
        let view = world::run(&settings, &workload, seed, &|_| ())?.view;
        let gateway_of = (0..people).map(|person| mixes + person % gateways).collect();
        let network = KnownNetwork { layers, width: u32::from(width), gateway_of };
        Ok(Self { view, network, calls, at_s: AT_S.into() })
    }

    /// Traffic that is made up, with its protections as they are set.
    pub fn made_up(settings: &Calls) -> Self {
        let (view, truth) = generated::view(&Calls { corrupt_mixes: true, ..settings.clone() });
        let mixes = 3 * settings.mixes;
        let gateway = |person: u32| mixes + person % generated::GATEWAYS;
        let gateway_of = (0..settings.people).map(gateway).collect();
        let network = KnownNetwork { layers: 3, width: settings.mixes, gateway_of };
        let calls = truth.records.iter().map(|record| (record.caller, record.callee)).collect();
        // Where calls begin at any time, all of the observation counts.
        let whole = f64::from(settings.seconds) - SETTLED_S;
        let at_s = if settings.throughout { AT_S.into() } else { vec![whole] };
        Self { view, network, calls, at_s }
    }

    /// The nodes of a coalition: a share of each layer, and these gateways. Callers are at gateways of even numbers.
    fn members(&self, share: f64, gateways: Gateways) -> BTreeSet<u32> {
        let KnownNetwork { layers, width, .. } = self.network;
        let corrupt = (share * f64::from(width)).round() as u32;
        let mixes = (0..layers).flat_map(|layer| (0..corrupt).map(move |n| layer * width + n));
        let first = layers * width;
        let belongs = |gateway: &u32| match gateways {
            Gateways::None => false,
            Gateways::One => (gateway - first).is_multiple_of(2),
            Gateways::Both => true,
        };
        mixes.chain(self.network.gateway_of.iter().copied().filter(belongs)).collect()
    }

    /// What a coalition finds. False alarms are pairs that do not call each other, whether they call others or nobody.
    pub fn found(
        &self,
        (share, gateways): (f64, Gateways),
        reading: FlowReading,
    ) -> CoalitionFinding {
        let members = self.members(share, gateways);
        let begin = (SETTLED_S * 1e9) as u64;
        let length = self.view.public.end.as_nanos().saturating_sub(begin);
        let steps = (begin, 1_000_000_000, (length / 1_000_000_000) as usize);
        let known = fragments::of(&self.view, &self.network, &members);
        let table = readings::ReadingTable::new(&known, &self.view.public, reading, steps);
        let people = self.network.gateway_of.len() as u32;
        let (mut busy, mut idle) = (Vec::new(), Vec::new());
        for one in 0..people {
            for other in one + 1..people {
                let series = table.pair(&known, one, other);
                let call = self.calls.contains(&(one, other));
                if call { busy.push(series) } else { idle.push(series) }
            }
        }
        let percent = (100.0 * share).round();
        CoalitionFinding {
            name: format!("{percent} % of each layer's mixes, {}", gateways.name()),
            reading,
            decision: decide(&busy, &idle, 1.0, &self.at_s),
        }
    }
}

/// The engines with each coalition: so many calls, for so long, from a seed.
///
/// # Errors
/// A setting that cannot be.
pub fn rows(size: (u32, f64, u64)) -> anyhow::Result<Vec<CoalitionFinding>> {
    let mut all = Vec::new();
    let whole = Whole::run(10, size)?;
    for gateways in Gateways::ALL {
        for share in [0.1, 0.2, 0.3] {
            for reading in FlowReading::ALL {
                all.push(whole.found((share, gateways), reading));
            }
        }
    }
    Ok(all)
}

/// Controls: in a network of three mixes a layer one of each sees enough, and where paths are kept a change of counts shows.
///
/// # Errors
/// A setting that cannot be.
pub fn controls((pairs, seconds, seed): (u32, f64, u64)) -> anyhow::Result<Vec<CoalitionFinding>> {
    let mut all = Vec::new();
    let few = Whole::run(3, (pairs, seconds.min(65.0), seed))?;
    let found = few.found((1.0 / 3.0, Gateways::Both), FlowReading::Tracks);
    all.push(CoalitionFinding { name: format!("three mixes a layer: {}", found.name), ..found });
    for kept in [true, false] {
        let made = Whole::made_up(&Calls { kept, seed, ..Calls::default() });
        let found = made.found((0.5, Gateways::Both), FlowReading::Changes);
        let paths = if kept { "paths kept" } else { "paths fresh" };
        all.push(CoalitionFinding { name: format!("made up, {paths}: {}", found.name), ..found });
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
