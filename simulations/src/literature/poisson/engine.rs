//! The network in virtual time: the deployed delay pool, links of constant delay, and forward tracking.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use shoal_node::wheel::Wheel;
use shoal_topology::{Seed, Stream, Time};

use super::network::StratifiedNetwork;
use crate::anonymity::Pools;

/// A mark that no packet carries.
pub const UNMARKED: u32 = u32::MAX;
/// The packet's masses are not held: it is at an honest mix.
const NOT_HELD: u32 = u32::MAX;

/// A packet: who gets it, and a mark by which the caller knows it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoissonPacket {
    /// When it was sent.
    pub sent: Time,
    /// The person who receives it.
    pub person: u32,
    /// What the caller wrote on it; an observer does not see it.
    pub mark: u32,
    /// Corrupt mixes that it has come to.
    pub corrupt: u8,
}

impl PoissonPacket {
    /// A packet that is sent now.
    pub fn new(sent: Time, person: u32, mark: u32) -> Self {
        Self { sent, person, mark, corrupt: 0 }
    }
}

/// A packet that reached its receiver.
#[derive(Clone, Copy, Debug)]
pub struct DeliveredPacket<'a> {
    /// When it reached its receiver.
    pub at: Time,
    /// The mix that it left, by its number in the last layer.
    pub mix: u32,
    /// The packet that arrived.
    pub packet: PoissonPacket,
    /// For each column, the probability that this is the target.
    pub masses: &'a [f64],
}

/// A packet in a mix.
struct PooledPacket {
    packet: PoissonPacket,
    layer: u32,
    /// Of all mixes, layer by layer.
    mix: u32,
    held: u32,
}

/// A packet on a link.
struct Travelling {
    arrives: Time,
    packet: PoissonPacket,
    /// To which it goes; L is the receiver.
    layer: u32,
    /// From which mix.
    from: u32,
}

struct MixRange {
    first: u32,
    width: u32,
}

/// A stratified network.
pub struct PoissonEngine {
    /// The layers of mixes.
    layers: Vec<MixRange>,
    /// Which mixes are corrupt, layer after layer.
    corrupt: Vec<bool>,
    /// The mean delay at a mix, in nanoseconds.
    hop_mean_ns: f64,
    /// What a link takes, in nanoseconds.
    link_ns: u64,
    /// How many targets are followed at a time.
    columns: usize,
    /// The packets and masses in honest mixes.
    pools: Pools,
    /// Packets that wait in mixes.
    wheel: Wheel<PooledPacket>,
    /// All links delay alike, so what is on them arrives in the order in which it was sent.
    links: VecDeque<Travelling>,
    /// Masses of what is on links, in the same order.
    flying: VecDeque<f64>,
    /// Masses of what is in corrupt mixes.
    held: Vec<f64>,
    /// Indices of `held` that nothing uses.
    free: Vec<u32>,
    /// The masses of the packet that is being moved.
    masses: Vec<f64>,
    /// The routes of packets are drawn from it.
    routes: Stream,
    /// The delays in mixes are drawn from it.
    delays: Stream,
    /// How many events there were: a packet at a hop is one.
    events: u64,
}

impl PoissonEngine {
    /// An empty network that follows up to `columns` targets. The settings have been checked.
    pub fn new(network: &StratifiedNetwork, columns: usize, seed: &Seed) -> Self {
        let mut mixes = 0;
        let mut layers = Vec::new();
        for width in network.widths() {
            layers.push(MixRange { first: mixes, width });
            mixes += width;
        }
        Self {
            corrupt: corrupt(network, &layers, mixes, seed),
            layers,
            hop_mean_ns: network.hop_mean_s * 1e9,
            link_ns: network.link_delay().as_nanos() as u64,
            columns,
            pools: Pools::new(mixes as usize, columns),
            wheel: Wheel::new(),
            links: VecDeque::new(),
            flying: VecDeque::new(),
            held: Vec::new(),
            free: Vec::new(),
            masses: vec![0.0; columns],
            routes: seed.stream("routes"),
            delays: seed.stream("delays"),
            events: 0,
        }
    }

    /// Arrivals at a mix so far, each with its departure: packet-hop events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Packets in mixes.
    pub fn waiting(&self) -> usize {
        self.wheel.len()
    }

    /// Sends a packet, with mass 1 in this column, if any. The network must have advanced to this instant.
    pub fn send(&mut self, packet: PoissonPacket, column: Option<usize>) {
        self.masses.fill(0.0);
        if let Some(mass) = column.and_then(|column| self.masses.get_mut(column)) {
            *mass = 1.0;
        }
        // A link before the first layer too: of L layers there are L + 1 links.
        self.travel(packet.sent, packet, 0, 0);
    }

    /// Forgets the target of a column.
    pub fn clear(&mut self, column: usize) {
        self.pools.clear(column);
        let columns = self.columns.max(1);
        self.flying.iter_mut().skip(column).step_by(columns).for_each(|mass| *mass = 0.0);
        self.held.iter_mut().skip(column).step_by(columns).for_each(|mass| *mass = 0.0);
    }

    /// Lets time pass, up to and including `until`, and gives every packet that reaches its receiver.
    pub fn advance(&mut self, until: Time, mut exit: impl FnMut(DeliveredPacket<'_>)) {
        loop {
            let arrival = self.links.front().map_or(Time::NEVER, |next| next.arrives);
            // Departures strictly before the next arrival; at the same instant the arrival comes first.
            let before = Time::from_nanos(arrival.as_nanos().saturating_sub(1)).min(until);
            if let Some((at, waiting)) = self.wheel.pop(before) {
                self.depart(at, &waiting);
                continue;
            }
            if arrival > until {
                return;
            }
            let Some(next) = self.links.pop_front() else { return };
            for (mass, flying) in self.masses.iter_mut().zip(self.flying.drain(..self.columns)) {
                *mass = flying;
            }
            match self.layers.get(next.layer as usize) {
                Some(layer) => {
                    // Drawn on arrival and not when the packet is sent: routes are uniform and independent, so that
                    // it is the same law.
                    let mix = layer.first + uniform(&mut self.routes, layer.width);
                    self.arrive(&next, mix);
                }
                None => {
                    let first = self.layers.last().map_or(0, |layer| layer.first);
                    exit(DeliveredPacket {
                        at: next.arrives,
                        mix: next.from - first,
                        packet: next.packet,
                        masses: &self.masses,
                    });
                }
            }
        }
    }

    fn travel(&mut self, at: Time, packet: PoissonPacket, layer: u32, from: u32) {
        let arrives = Time::from_nanos(at.as_nanos().saturating_add(self.link_ns));
        self.links.push_back(Travelling { arrives, packet, layer, from });
        self.flying.extend(&self.masses);
    }

    fn arrive(&mut self, next: &Travelling, mix: u32) {
        self.events += 1;
        let mut held = NOT_HELD;
        let mut packet = next.packet;
        if self.corrupt.get(mix as usize).copied().unwrap_or(false) {
            // A corrupt mix tells which arrival became which departure: the masses stay with the packet and do not
            // mix.
            held = self.hold();
            packet.corrupt = packet.corrupt.saturating_add(1);
        } else {
            self.pools.arrive(mix as usize, &self.masses);
        }
        // ln(1 − u) and not ln(u): u may be 0 and is never 1.
        let delay = (-self.hop_mean_ns * (-self.delays.random::<f64>()).ln_1p()) as u64;
        let at = Time::from_nanos(next.arrives.as_nanos().saturating_add(delay));
        self.wheel.insert(at, PooledPacket { packet, layer: next.layer, mix, held });
    }

    fn depart(&mut self, at: Time, waiting: &PooledPacket) {
        if waiting.held == NOT_HELD {
            self.pools.depart(waiting.mix as usize, &mut self.masses);
        } else {
            let first = waiting.held as usize * self.columns;
            if let Some(held) = self.held.get(first..first + self.columns) {
                self.masses.copy_from_slice(held);
            }
            self.free.push(waiting.held);
        }
        self.travel(at, waiting.packet, waiting.layer + 1, waiting.mix);
    }

    /// Keeps the masses of a packet while it is in a corrupt mix.
    fn hold(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            let first = index as usize * self.columns;
            if let Some(held) = self.held.get_mut(first..first + self.columns) {
                held.copy_from_slice(&self.masses);
            }
            return index;
        }
        let index = self.held.len().checked_div(self.columns).unwrap_or(0);
        self.held.extend(&self.masses);
        index as u32
    }
}

/// A uniform number below `n`, by multiplication (Lemire): the bias of 2^-32 · n is not seen in 10^9 draws here.
fn uniform(rng: &mut impl Rng, n: u32) -> u32 {
    ((u64::from(rng.next_u32()) * u64::from(n)) >> 32) as u32
}

fn corrupt(network: &StratifiedNetwork, layers: &[MixRange], mixes: u32, seed: &Seed) -> Vec<bool> {
    let mut corrupt = vec![false; mixes as usize];
    let first =
        layers.iter().flat_map(|layer| layer.first..layer.first + network.corrupt.per_layer);
    let mut all: Vec<u32> = (0..mixes).collect();
    let mut draws = seed.stream("corrupt");
    let total = network.corrupt.total;
    let random = (0..total).map(|i| {
        let remaining = mixes.saturating_sub(i).max(1);
        all.swap_remove(draws.random_range(0..remaining) as usize)
    });
    for mix in first.chain(random) {
        if let Some(marked) = corrupt.get_mut(mix as usize) {
            *marked = true;
        }
    }
    corrupt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::literature::poisson::network::{CorruptMixes, Width};

    fn packet(sent: u64, mark: u32) -> PoissonPacket {
        PoissonPacket::new(Time::from_nanos(sent), 0, mark)
    }

    fn run(corrupt: CorruptMixes, packets: u64) -> Vec<(u64, u32, f64)> {
        let network = StratifiedNetwork {
            layers: 2,
            width: Width::Same(2),
            hop_mean_s: 0.01,
            link_delay_ms: 5.0,
            corrupt,
        };
        let mut engine = PoissonEngine::new(&network, 1, &Seed::from_u64(7));
        let mut exits = Vec::new();
        let mut take = |exit: DeliveredPacket<'_>| {
            exits.push((exit.at.as_nanos(), exit.packet.mark, exit.masses.iter().sum()));
        };
        for i in 0..packets {
            let at = i * 1_000_000;
            engine.advance(Time::from_nanos(at), &mut take);
            engine.send(packet(at, i as u32), (i == packets / 2).then_some(0));
        }
        engine.advance(Time::NEVER, &mut take);
        assert_eq!(engine.events(), 2 * packets);
        exits
    }

    #[test]
    fn every_packet_leaves_and_the_masses_sum_to_one() {
        let exits = run(CorruptMixes::default(), 200);
        assert_eq!(exits.len(), 200);
        assert!(exits.is_sorted_by_key(|(at, ..)| *at));
        let sum: f64 = exits.iter().map(|(.., mass)| mass).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        assert!(exits.iter().filter(|(.., mass)| *mass > 0.0).count() > 5);
    }

    #[test]
    fn corrupt_mixes_everywhere_show_the_target() {
        for corrupt in
            [CorruptMixes { per_layer: 2, total: 0 }, CorruptMixes { per_layer: 0, total: 4 }]
        {
            let exits = run(corrupt, 200);
            let found: Vec<_> = exits.iter().filter(|(.., mass)| *mass > 0.0).collect();
            assert_eq!(found.len(), 1);
            assert!(found.iter().all(|(_, mark, mass)| *mark == 100 && *mass == 1.0));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_exits() {
        assert_eq!(run(CorruptMixes::default(), 50), run(CorruptMixes::default(), 50));
    }
}
