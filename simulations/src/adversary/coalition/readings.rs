//! Two statistics of what a coalition knows, a number for each second and each two entities; they add up over a call.

use std::collections::{BTreeMap, BTreeSet};

use super::fragments::{Entity, Fragment, FragmentEnd, Knowledge};
use crate::trace::{Party, Public};

/// How a coalition reads what it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowReading {
    /// Counts in windows of a second: what the first layer's members get from somebody, against what the last layer's
    /// members deliver to somebody.
    Counts,
    /// Asks whether unusual counts of the one and of the other come in the same seconds, too many or too few: where a
    /// path is kept, a call takes a flow away from some nodes and gives it to others.
    Changes,
    /// The likelihood of each packet that comes out, given what went in.
    Tracks,
}

impl FlowReading {
    /// Those that have something to read in a call that lasts, whatever paths it takes.
    pub const ALL: [Self; 2] = [Self::Counts, Self::Tracks];

    /// What it asks, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counts => "counts of flows: who with whom",
            Self::Changes => "changes of flows: who with whom",
            Self::Tracks => "packets one by one: who with whom",
        }
    }
}

/// Begin and length of steps, nanoseconds, and how many.
pub(super) type Steps = (u64, u64, usize);

/// Of what comes for somebody in a call, the share that comes from the other side.
const FROM_OTHERS: f64 = 0.9;
/// What is left for a packet that the model leaves out.
const STRAY: f64 = 0.02;
/// Instants of engines are exact to so many nanoseconds.
const EXACT: f64 = 1e6;

/// For each direction and each step how much speaks for a call.
pub(super) struct ReadingTable {
    rows: BTreeMap<(Entity, Entity), Vec<f64>>,
    steps: usize,
}

impl ReadingTable {
    /// Reads all that is known.
    pub(super) fn new(
        known: &Knowledge,
        public: &Public,
        reading: FlowReading,
        steps: Steps,
    ) -> Self {
        let people = 0..known.network.gateway_of.len() as u32;
        let entities: BTreeSet<Entity> = people.map(|person| known.entity(person)).collect();
        let rows = match reading {
            FlowReading::Counts => counts(known, &entities, steps, |a, b| a * b),
            FlowReading::Changes => {
                counts(known, &entities, steps, |a, b| (a * a - 1.0) * (b * b - 1.0))
            }
            FlowReading::Tracks => tracks(known, public, &entities, steps),
        };
        Self { rows, steps: steps.2 }
    }

    /// The steps of two people, both directions together.
    pub(super) fn pair(&self, known: &Knowledge, one: u32, other: u32) -> Vec<f64> {
        let (one, other) = (known.entity(one), known.entity(other));
        let mut sum = vec![0.0; self.steps];
        for direction in [(one, other), (other, one)] {
            let row = self.rows.get(&direction).into_iter().flatten();
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sum
    }
}

fn step(at: u64, (begin, length, count): Steps) -> Option<usize> {
    let step = at.checked_sub(begin)? / length;
    Some(step as usize).filter(|step| *step < count)
}

/// What speaks for a call, by the deviations of both counts from their means, in standard deviations.
fn counts(
    known: &Knowledge,
    entities: &BTreeSet<Entity>,
    steps: Steps,
    score: fn(f64, f64) -> f64,
) -> BTreeMap<(Entity, Entity), Vec<f64>> {
    let side = |of: fn(&Fragment) -> Option<(Entity, u64)>| {
        let mut all: BTreeMap<Entity, Vec<f64>> =
            entities.iter().map(|entity| (*entity, vec![0.0; steps.2])).collect();
        for (entity, at) in known.fragments.iter().filter_map(of) {
            if let (Some(row), Some(step)) = (all.get_mut(&entity), step(at, steps))
                && let Some(count) = row.get_mut(step)
            {
                *count += 1.0;
            }
        }
        all.values_mut().for_each(|row| standardise(row));
        all
    };
    let sent = side(|fragment| match fragment.from {
        FragmentEnd::Entity(entity) if fragment.first_layer => Some((entity, fragment.came)),
        _ => None,
    });
    let delivered = side(|fragment| match fragment.to {
        FragmentEnd::Entity(entity) if fragment.last_layer => Some((entity, fragment.left)),
        _ => None,
    });
    let mut all = BTreeMap::new();
    for (from, sent) in &sent {
        for (to, delivered) in &delivered {
            let products = sent.iter().zip(delivered).map(|(a, b)| score(*a, *b));
            all.insert((*from, *to), products.collect());
        }
    }
    all
}

fn standardise(row: &mut [f64]) {
    let n = row.len().max(1) as f64;
    let mean = row.iter().sum::<f64>() / n;
    let sd = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    row.iter_mut().for_each(|x| *x = if sd > 0.0 { (*x - mean) / sd } else { 0.0 });
}

/// Instants at which packets of each entity left for a mix that is not of the coalition, by mix.
type Starts = BTreeMap<u32, BTreeMap<Entity, Vec<u64>>>;

/// The logarithm of the ratio of likelihoods of each packet that comes to an entity: if a call brings most of them, and if
/// none.
fn tracks(
    known: &Knowledge,
    public: &Public,
    entities: &BTreeSet<Entity>,
    steps: Steps,
) -> BTreeMap<(Entity, Entity), Vec<f64>> {
    let mut starts = Starts::new();
    for fragment in &known.fragments {
        if let (FragmentEnd::Entity(entity), FragmentEnd::Mix(mix)) = (fragment.from, fragment.to) {
            starts.entry(mix).or_default().entry(entity).or_default().push(fragment.left);
        }
    }
    starts.values_mut().flat_map(BTreeMap::values_mut).for_each(|all| all.sort_unstable());
    let whole = WholeWays::new(known, entities);
    let mut all: BTreeMap<(Entity, Entity), Vec<f64>> = BTreeMap::new();
    for fragment in &known.fragments {
        let (FragmentEnd::Entity(to), Some(index)) = (fragment.to, step(fragment.left, steps))
        else {
            continue;
        };
        if !entities.contains(&to) {
            continue;
        }
        let share = FROM_OTHERS / known.people(to).max(1) as f64;
        for from in entities {
            let (seen, times) = match fragment.from {
                FragmentEnd::Entity(source) => (1.0, whole.times(source, *from, to)),
                FragmentEnd::Mix(mix) => {
                    let Some(layer) = known.network.layer(mix) else { continue };
                    let before = known.shares.iter().take(layer as usize).product();
                    let own = starts.get(&mix).and_then(|starts| starts.get(from));
                    (before, own.map_or(0.0, |own| times(own, fragment.came, layer, public)))
                }
            };
            let ratio = 1.0 + share * seen * (times - 1.0);
            let row = all.entry((*from, to)).or_insert_with(|| vec![0.0; steps.2]);
            if let Some(sum) = row.get_mut(index) {
                *sum += ratio.max(STRAY).ln();
            }
        }
    }
    all
}

/// How many times as likely a packet comes out of a mix at an instant, given when these went in, as at any other instant.
fn times(went: &[u64], came: u64, layer: u32, public: &Public) -> f64 {
    let link_s = public.latency_s / f64::from(public.hops + 3);
    let links = 2.0 * link_s * 1e9;
    let (uniform, mean) = (1e9 * public.uniform_s, 1e9 * public.hop_mean_s);
    let is_uniform = uniform > 0.0 && layer == 1;
    let reach = if is_uniform { uniform } else { 12.0 * mean };
    let earliest = (came as f64 - links - reach - EXACT).max(0.0) as u64;
    let first = went.partition_point(|at| *at < earliest);
    let density = |at: &u64| {
        let delay = came as f64 - *at as f64 - links;
        match is_uniform {
            _ if delay < -EXACT => 0.0,
            true => 1.0 / uniform,
            false => (-delay.max(0.0) / mean).exp() / mean,
        }
    };
    let near =
        went.iter().skip(first).take_while(|at| (**at as f64) <= came as f64 - links + EXACT);
    let sum: f64 = near.map(density).sum();
    let seconds = public.end.since(public.begin).as_secs_f64();
    sum / (went.len().max(1) as f64 / (1e9 * seconds))
}

/// Packets of which the whole way is known: how many come from whom when nobody calls.
struct WholeWays {
    /// Of those that go back to the entity that sent them, as a share of all.
    back: f64,
    /// Of those from any one other entity.
    other: f64,
}

impl WholeWays {
    fn new(known: &Knowledge, entities: &BTreeSet<Entity>) -> Self {
        let (mut back, mut all) = (0.0, 0.0);
        for fragment in &known.fragments {
            if let (FragmentEnd::Entity(from), FragmentEnd::Entity(to)) =
                (fragment.from, fragment.to)
            {
                all += 1.0;
                back += f64::from(from == to);
            }
        }
        let others = entities.len().saturating_sub(1).max(1) as f64;
        let people = matches!(entities.first(), Some(Party::Person(_)));
        // People send cover to nobody but themselves: what comes from another is a call's, or as good as never comes.
        let astray = if people { 1.0 } else { all - back + 1.0 };
        Self { back: (back + 1.0) / (all + 2.0), other: astray / (all + 2.0) / others }
    }

    /// How many times as likely a packet of this source is if `from` calls `to` as if it does not.
    fn times(&self, source: Entity, from: Entity, to: Entity) -> f64 {
        match source == from {
            true if from == to => 1.0 / self.back,
            true => 1.0 / self.other,
            false => 0.0,
        }
    }
}
