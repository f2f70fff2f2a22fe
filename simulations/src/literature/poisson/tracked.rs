//! Poisson traffic through a network, with every n-th packet followed.

use rand::{Rng, RngExt};
use shoal_topology::{Seed, Time};

use super::engine::{DeliveredPacket, PoissonEngine, PoissonPacket, UNMARKED};
use super::network::{PoissonTraffic, StratifiedNetwork};
use crate::anonymity::{
    Following, Leak, effective_set, guessing_entropy, min_entropy, shannon_bits,
};
use crate::experiment::{Estimate, PacketRow};
use crate::stats;

/// A target is given up for drained when its packet is in the network with this probability at most.
const DRAINED: f64 = 1e-11;
/// And the masses sum to 1 but for this.
const REMAINDER: f64 = 1e-10;

/// Which figures of a target are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Entropy and min-entropy.
    Entropy,
    /// Guessing entropy too: it sorts all masses.
    Guessing,
}

/// How a run is made.
#[derive(Clone, Debug)]
pub struct TrackingPlan {
    /// The packets that users send.
    pub traffic: PoissonTraffic,
    /// Number of targets.
    pub targets: usize,
    /// Every n-th packet is a target; zero: so that about `active` are under way at once.
    pub every: u64,
    /// Targets that are under way at once, where `every` is zero.
    pub active: usize,
    /// Before the first target, seconds; none: until a packet's chance of being still under way is 1e-6.
    pub burn_in_s: Option<f64>,
    /// Packets whose mixing delay is kept.
    pub delays: usize,
    /// What is computed.
    pub detail: Detail,
}

/// What came out for one target.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Followed {
    /// When it was sent and delivered, and its entropy over packets.
    pub row: PacketRow,
    /// Over packets, bits.
    pub min_entropy_bits: f64,
    /// Mean number of guesses over packets; NaN where it was not asked for.
    pub guesses: f64,
    /// Packets with a mass that is not zero.
    pub candidates: f64,
    /// Over receivers, bits; zero without people.
    pub person_entropy_bits: f64,
    /// Over receivers, bits; zero without people.
    pub person_min_entropy_bits: f64,
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The targets, in order of sending.
    pub followed: Vec<Followed>,
    /// Mixing delays (all but the links), seconds, sorted.
    pub delays_s: Vec<f64>,
    /// How many events there were: a packet at a hop is one.
    pub events: u64,
    /// Every how many packets there was a target.
    pub every: u64,
    /// Lifetimes that the targets spanned, about: what is one lifetime apart is independent.
    pub lifetimes: f64,
}

impl Tracked {
    /// Mean of a figure over the targets. Those that were under way together saw the same pools; batch means count
    /// them as such.
    pub fn mean(&self, figure: impl Fn(&Followed) -> f64) -> Estimate {
        let values: Vec<f64> = self.followed.iter().map(figure).collect();
        stats::batch_means(&values, self.batches())
    }

    fn batches(&self) -> usize {
        let most = (self.followed.len() / 2).max(1);
        (self.lifetimes as usize).clamp(10, 50).min(most)
    }

    /// Mean effective set over packets, 2^H.
    pub fn effective_set(&self) -> Estimate {
        self.mean(|followed| effective_set(followed.row.entropy_bits))
    }
}

/// Times of a Poisson process.
#[derive(Clone, Debug)]
pub struct Poisson {
    /// Nanoseconds; with their fraction, so that fast processes keep their rate.
    clock: f64,
    mean_ns: f64,
}

impl Poisson {
    /// From time zero on.
    pub fn new(rate_per_s: f64) -> Self {
        Self { clock: 0.0, mean_ns: 1e9 / rate_per_s }
    }

    /// The next instant.
    pub fn next(&mut self, rng: &mut impl Rng) -> Time {
        self.clock -= self.mean_ns * (-rng.random::<f64>()).ln_1p();
        Time::from_nanos(self.clock as u64)
    }
}

/// Time after which a packet is still in the network with this probability, seconds.
pub fn lifetime_s(network: &StratifiedNetwork, probability: f64) -> f64 {
    let rate = 1.0 / network.hop_mean_s;
    stats::erlang_quantile(1.0 - probability, network.layers, rate) + network.links_s()
}

/// Runs it. The settings have been checked.
///
/// # Errors
/// [`Leak`] when the masses of a target do not sum to 1.
pub fn track(
    network: &StratifiedNetwork,
    plan: &TrackingPlan,
    seed: &Seed,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Tracked, Leak> {
    let rate = plan.traffic.total_per_s();
    let lifetime = lifetime_s(network, DRAINED);
    let in_lifetime = rate * lifetime;
    let every = match plan.every {
        0 => (in_lifetime / plan.active.max(1) as f64).ceil().max(1.0) as u64,
        every => every,
    };
    let overlap = in_lifetime / every as f64;
    // With room for six standard deviations of the packets in a lifetime.
    let columns = (overlap + 6.0 * in_lifetime.sqrt() / every as f64).ceil() as usize + 2;
    let columns = if plan.targets == 0 { 0 } else { columns.min(plan.targets) };

    let mut engine = PoissonEngine::new(network, columns, seed);
    let mut run = Collector {
        columns: (0..columns).map(|_| None).collect(),
        followed: Vec::with_capacity(plan.targets),
        lifetime_ns: (lifetime * 1e9) as u64,
        people: plan.traffic.users,
        detail: plan.detail,
        links_ns: (u64::from(network.layers) + 1) * network.link_delay().as_nanos() as u64,
        sampled_from: Time::from_nanos(
            (plan.burn_in_s.unwrap_or_else(|| lifetime_s(network, 1e-6)) * 1e9) as u64,
        ),
        sampled_to: if plan.delays == 0 { Time::ZERO } else { Time::NEVER },
        delays_s: Vec::with_capacity(plan.delays),
    };

    let mut sending = Poisson::new(rate);
    let (mut gaps, mut receivers) = (seed.stream("sending"), seed.stream("receivers"));
    let (mut started, mut number, mut sampled) = (0, 0u64, 0);
    while run.followed.len() < plan.targets || sampled < plan.delays {
        let at = sending.next(&mut gaps);
        engine.advance(at, |exit| run.take(&exit));
        let person = receivers.random_range(0..plan.traffic.users.max(1));
        let mut packet = PoissonPacket::new(at, person, UNMARKED);
        let mut column = None;
        if at >= run.sampled_from {
            if sampled < plan.delays {
                sampled += 1;
                if sampled == plan.delays {
                    run.sampled_to = at;
                }
            }
            number += 1;
            if number.is_multiple_of(every) {
                run.retire(at, &mut engine)?;
                progress(run.followed.len() as f64 / plan.targets.max(1) as f64);
                if started < plan.targets
                    && let Some(free) = run.begin(at, started as u32)
                {
                    packet.mark = started as u32;
                    column = Some(free);
                    started += 1;
                }
            }
        }
        engine.send(packet, column);
    }
    engine.advance(Time::NEVER, |exit| run.take(&exit));
    run.followed.sort_by_key(|followed| followed.row.sent);
    run.delays_s.sort_by(f64::total_cmp);
    Ok(Tracked {
        followed: run.followed,
        delays_s: run.delays_s,
        events: engine.events(),
        every,
        lifetimes: plan.targets as f64 / overlap,
    })
}

struct Target {
    mark: u32,
    sent: Time,
    delivered: Time,
    corrupt: u8,
    following: Following,
}

struct Collector {
    /// The target of each column, if one is followed in it.
    columns: Vec<Option<Target>>,
    /// The targets whose figures are known.
    followed: Vec<Followed>,
    /// How long a target is followed at least, in nanoseconds.
    lifetime_ns: u64,
    /// The number of receivers.
    people: u32,
    /// Which figures are computed.
    detail: Detail,
    /// What all links of a path take, in nanoseconds.
    links_ns: u64,
    /// Packets that are sent from here on count for the delays.
    sampled_from: Time,
    /// And those that are sent until here.
    sampled_to: Time,
    /// The delays in mixes, in seconds.
    delays_s: Vec<f64>,
}

impl Collector {
    fn take(&mut self, exit: &DeliveredPacket<'_>) {
        let sent = exit.packet.sent;
        for (column, mass) in self.columns.iter_mut().zip(exit.masses) {
            if *mass > 0.0
                && let Some(target) = column
            {
                target.following.push(*mass, exit.packet.person);
                if target.mark == exit.packet.mark {
                    target.delivered = exit.at;
                    target.corrupt = exit.packet.corrupt;
                }
            }
        }
        if sent >= self.sampled_from && sent <= self.sampled_to {
            let whole = exit.at.as_nanos() - sent.as_nanos();
            self.delays_s.push((whole - self.links_ns) as f64 / 1e9);
        }
    }

    fn begin(&mut self, sent: Time, mark: u32) -> Option<usize> {
        let free = self.columns.iter().position(Option::is_none)?;
        let following = Following::new(self.people);
        let target = Target { mark, sent, delivered: Time::ZERO, corrupt: 0, following };
        *self.columns.get_mut(free)? = Some(target);
        Some(free)
    }

    /// Ends the targets whose masses have left.
    fn retire(&mut self, now: Time, engine: &mut PoissonEngine) -> Result<(), Leak> {
        for (number, column) in self.columns.iter_mut().enumerate() {
            let ripe = |target: &mut Target| {
                let age = now.as_nanos() - target.sent.as_nanos();
                let left = target.following.sum() >= 1.0 - REMAINDER;
                // What never leaves is found out by `finish`.
                age >= self.lifetime_ns && (left || age >= 4 * self.lifetime_ns)
            };
            if let Some(target) = column.take_if(ripe) {
                engine.clear(number);
                self.followed.push(figures(target, self.detail)?);
            }
        }
        Ok(())
    }
}

fn figures(target: Target, detail: Detail) -> Result<Followed, Leak> {
    let (mut masses, people) = target.following.finish()?;
    Ok(Followed {
        row: PacketRow {
            sent: target.sent.as_nanos(),
            delivered: target.delivered.as_nanos(),
            entropy_bits: shannon_bits(masses.iter().copied()),
            corrupt_mixes: target.corrupt.into(),
        },
        min_entropy_bits: min_entropy(masses.iter().copied()),
        candidates: masses.len() as f64,
        guesses: match detail {
            Detail::Entropy => f64::NAN,
            Detail::Guessing => guessing_entropy(&mut masses),
        },
        person_entropy_bits: shannon_bits(people.iter().copied()),
        person_min_entropy_bits: min_entropy(people),
    })
}
