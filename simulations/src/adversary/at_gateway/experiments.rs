//! Worlds in which half of the people do something and the others nothing, and what their gateways see.

use rand::RngExt;
use shoal_topology::{Class, Seed, Stream, Time};

use super::Seen;
use super::likelihood::{Delay, Shares, Way};
use super::steady::{self, Grids, PermutationTest, Stratum};
use crate::workload::{Activity, Workload};
use crate::world::{self, Observed, Report, Settings};

/// Nanoseconds of a second.
pub(super) const SECOND: f64 = 1e9;
/// What is left out at the beginning of an observation: calls have begun, seconds.
pub const SETTLED_S: f64 = 5.0;

/// What busy people do, in pairs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Busy {
    /// Busy people do nothing, as idle ones do.
    Nothing,
    /// One call, all the time.
    Call,
    /// Messages in both directions, at random instants, one each so many seconds.
    Messages(f64),
    /// Calls of about half of so many seconds, one each.
    Calls(f64),
    /// So many messages at once, each so many seconds.
    Bursts(u32, f64),
    /// Downloads of so many bytes, one after the other.
    Downloads(u64),
}

/// Who is busy when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusyWhen {
    /// Of every four people the first two are a busy pair throughout, the others an idle one.
    Pairs,
    /// All are busy for half of the time: every other pair in the first half, the others in the second.
    Halves,
}

/// A world and what people do in it. The two of a pair have different gateways.
#[derive(Clone, Debug)]
pub struct Case {
    /// The settings of the world.
    pub settings: Settings,
    /// What busy people do.
    pub busy: Busy,
    /// When busy people do it.
    pub plan: BusyWhen,
    /// Busy pairs, and as many idle ones.
    pub pairs: u32,
    /// How long, seconds.
    pub seconds: f64,
    /// What all is drawn from.
    pub seed: u64,
}

impl Case {
    /// A sound world of a class.
    pub fn new(class: &str, busy: Busy, (pairs, seconds, seed): (u32, f64, u64)) -> Self {
        let mut settings = Settings { warm_up_s: 8.0, drain_s: 2.0, ..Settings::default() };
        settings.class.name = class.into();
        settings.observer.links = Observed::None;
        settings.observer.gateway_view = true;
        settings.network.node_loops_per_s = 0.2;
        Self { settings, busy, plan: BusyWhen::Pairs, pairs, seconds, seed }
    }

    /// Numbers of busy people, and of idle ones.
    pub fn people(&self) -> (Vec<u32>, Vec<u32>) {
        (0..4 * self.pairs).partition(|person| person % 4 < 2)
    }

    fn workload(&self) -> Workload {
        let mut activities = Vec::new();
        for pair in 0..self.pairs {
            let rng =
                &mut Seed::from_u64(self.seed).part("gateway").stream(&format!("pair {pair}"));
            let half = self.seconds / 2.0;
            let (people, span) = match self.plan {
                BusyWhen::Pairs => ((4 * pair, 4 * pair + 1), (0.0, self.seconds)),
                BusyWhen::Halves if pair % 2 == 0 => ((2 * pair, 2 * pair + 1), (0.0, half)),
                BusyWhen::Halves => ((2 * pair, 2 * pair + 1), (half, self.seconds)),
            };
            self.activities(people, span, rng, &mut activities);
        }
        activities.sort_by_key(Activity::at);
        let end = Time::from_nanos((self.seconds * SECOND) as u64);
        activities.retain(|activity| activity.at() < end);
        let people = match self.plan {
            BusyWhen::Pairs => 4 * self.pairs,
            BusyWhen::Halves => 2 * self.pairs,
        };
        Workload { people, end, activities }
    }

    fn activities(
        &self,
        (one, other): (u32, u32),
        (begin, end): (f64, f64),
        rng: &mut Stream,
        to: &mut Vec<Activity>,
    ) {
        let time = |seconds: f64| Time::from_nanos((seconds * SECOND) as u64);
        let every = match self.busy {
            Busy::Nothing => return,
            Busy::Call => {
                to.push(Activity::Call {
                    from: one,
                    to: other,
                    at: time(begin),
                    seconds: end - begin,
                });
                return;
            }
            Busy::Messages(every) | Busy::Calls(every) | Busy::Bursts(_, every) => every,
            // As many as could ever be.
            Busy::Downloads(_) => (end - begin) / 200.0,
        };
        // What busy people do in a half of the time has begun when it is looked at.
        let mut at = if self.plan == BusyWhen::Halves { begin } else { SETTLED_S };
        let mut turn = 0;
        while at < end {
            let (from, to_whom) = if turn % 2 == 0 { (one, other) } else { (other, one) };
            turn += 1;
            let length = every * (0.4 + 0.2 * rng.random::<f64>());
            match self.busy {
                Busy::Messages(_) => {
                    // Both directions at once would be twice the rate.
                    at += shoal_topology::exponential(rng, time(every / 2.0).since(Time::ZERO))
                        .as_secs_f64();
                    if at < end {
                        to.push(Activity::Message { from, to: to_whom, at: time(at) });
                    }
                }
                Busy::Calls(_) => {
                    to.push(Activity::Call { from, to: to_whom, at: time(at), seconds: length });
                    at += every * (0.8 + 0.4 * rng.random::<f64>());
                }
                Busy::Bursts(count, _) => {
                    let message = Activity::Message { from, to: to_whom, at: time(at) };
                    to.extend((0..count).map(|_| message));
                    at += every * (0.8 + 0.4 * rng.random::<f64>());
                }
                Busy::Downloads(bytes) => {
                    to.push(Activity::Download { person: one, at: time(at), bytes });
                    at += every;
                }
                Busy::Nothing | Busy::Call => return,
            }
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn run(&self) -> anyhow::Result<Ran> {
        let workload = self.workload();
        let report = world::run(&self.settings, &workload, self.seed, &|_| ())?;
        let class = self.settings.class.class()?;
        let mixes = u32::from(self.settings.network.mixes_per_layer);
        let layers = u32::from(self.settings.network.layers);
        let last = (mixes * (layers - 1)..mixes * layers).collect();
        Ok(Ran { report, workload, class, last, latency_s: self.settings.links.latency_ms / 1e3 })
    }
}

/// What a run gave.
pub struct Ran {
    /// All of it.
    pub report: Report,
    /// What people did.
    pub workload: Workload,
    /// The class that all people have.
    pub class: Class,
    /// The mixes of the last layer.
    last: Vec<u32>,
    latency_s: f64,
}

impl Ran {
    /// What the gateway of a person sees of it.
    pub fn seen(&self, person: u32) -> Option<&Seen> {
        self.report.at_gateway.get(person as usize)
    }

    /// The grids of the class.
    pub fn grids(&self) -> Grids {
        let gap = |per_s: f64| (SECOND / per_s).round() as u64;
        Grids { payload: gap(self.class.payload_per_s), loops: gap(self.class.loops_per_s) }
    }

    /// The shares of the class.
    pub fn shares(&self) -> Shares {
        let Class { payload_per_s, loops_per_s, loop_share, .. } = self.class;
        let up_per_s = payload_per_s + loops_per_s;
        Shares {
            loops: (loops_per_s + loop_share * payload_per_s) / up_per_s,
            slots: loops_per_s / up_per_s,
            up_per_s,
        }
    }

    /// The way from gateway to gateway: four links, three mixes.
    pub fn way(&self) -> Way {
        Way::new(&delays(&self.class), 4.0 * self.latency_s)
    }

    /// The rows of a person's blocks between two instants, seconds. Its peer is its neighbour.
    fn blocks(&self, person: u32, (begin, end): (f64, f64)) -> Vec<Vec<f64>> {
        let (Some(seen), Some(peer)) = (self.seen(person), self.seen(person ^ 1)) else {
            return Vec::new();
        };
        let span = ((begin * SECOND) as u64, (end * SECOND) as u64);
        steady::blocks((seen, peer), self.grids(), &self.last, span)
    }
}

/// The delays of a packet in the mixes.
pub(crate) fn delays(class: &Class) -> Vec<Delay> {
    let outer = Delay::Exponential(class.delay.exponential_us as f64 / 1e6);
    vec![outer, Delay::Uniform(class.delay.uniform_us as f64 / 1e6), outer]
}

/// What is looked at of each half of so many seconds. The second begins whole blocks after the first, and so at the same phase
/// of every class's slots: counts in windows that lie otherwise to the slots follow another law, whatever people do.
fn halves(seconds: f64) -> [(f64, f64); 2] {
    let (half, block) = (seconds / 2.0, steady::BLOCK as f64 / SECOND);
    let second = SETTLED_S + (half / block).ceil() * block;
    [(SETTLED_S, half), (second, seconds)]
}

/// Says whether gateways see one law of people who are idle for one half of the time and busy for the other, and how
/// many arrivals were looked at. The plan of the case does not matter.
///
/// # Errors
/// A setting that cannot be.
pub fn steady(case: &Case, permutations: u32) -> anyhow::Result<(PermutationTest, usize)> {
    let case = Case { plan: BusyWhen::Halves, ..case.clone() };
    let ran = case.run()?;
    let rng = &mut Seed::from_u64(case.seed).part("gateway").stream("permutations");
    let [one, other] = halves(case.seconds);
    let stratum = |person: u32| {
        let (first, second) = (ran.blocks(person, one), ran.blocks(person, other));
        if (person / 2).is_multiple_of(2) { (second, first) } else { (first, second) }
    };
    let strata: Vec<Stratum> = (0..2 * case.pairs).map(stratum).collect();
    let arrivals = ran.report.at_gateway.iter().map(|seen| seen.came.len()).sum();
    Ok((steady::compare(&strata, permutations, rng), arrivals))
}

#[cfg(test)]
mod tests {
    use shoal_topology::Parameters;

    use super::*;

    #[test]
    fn both_halves_are_looked_at_from_the_same_phase_of_all_slots() {
        for class in &Parameters::default().classes {
            for seconds in [125.0, 305.0, 1_803.0] {
                let [(one, half), (other, end)] = halves(seconds);
                assert!(one < half && half + SETTLED_S <= other && other < end, "{seconds}");
                for per_s in [class.payload_per_s, class.loops_per_s] {
                    let slots = (other - one) * per_s;
                    assert!((slots - slots.round()).abs() < 1e-6, "{}: {slots}", class.name);
                }
            }
        }
    }
}
