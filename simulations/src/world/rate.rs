//! How fast the engines go: a stratified network of them, and nothing else.

#![expect(clippy::indexing_slicing, reason = "the network numbers its nodes itself")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt;
use shoal_node::{Arrived, DropReason, Input, Output, Room};
use shoal_sphinx::{Frame, Hop};
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Seed, Time, exponential};

use super::network::{Network, Node};
use super::settings::{NetworkSettings, Settings};

/// Mean delay at a mix. Only its ratio to the rate of packets counts.
const HOP_MEAN: Duration = Duration::from_millis(1_000);
/// What a link takes.
const LATENCY: Duration = Duration::from_millis(20);
/// What comes to a node within this time is opened at once. A link's latency is a whole multiple of it, so that what
/// leaves in one window arrives in one too.
const WINDOW: Duration = Duration::from_millis(2);
/// The pools are full after this long: 998 of 1,000 packets have left by then.
const FILLING: Duration = Duration::from_secs(8);

/// A network to be driven as fast as it goes.
#[derive(Clone, Copy, Debug)]
pub struct EventRate {
    /// Packets in the pools of all mixes together.
    pub pool: usize,
    /// Mixes in each of three layers.
    pub mixes_per_layer: u16,
    /// Packets that are counted, each with its three events; 2.5 kB of memory each.
    pub packets: usize,
    /// Where packets come from.
    pub seed: u64,
}

impl Default for EventRate {
    fn default() -> Self {
        Self { pool: 100_000, mixes_per_layer: 1, packets: 150_000, seed: 1 }
    }
}

/// How fast it went.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Packets that arrived at a mix and left it, in the measured time.
    pub events: u64,
    /// Seconds of one core that this took.
    pub cpu_s: f64,
    /// Seconds by the clock.
    pub wall_s: f64,
    /// Packets in the pools, at the end.
    pub pooled: usize,
}

impl Rate {
    /// Events a second of one core.
    pub fn events_per_s(&self) -> f64 {
        self.events as f64 / self.cpu_s
    }
}

struct EngineNetwork {
    network: Network,
    nodes: Vec<Node>,
    /// What is under way to each node.
    links: Vec<VecDeque<(Time, Frame)>>,
    room: Room,
    frames: Vec<(Time, Frame)>,
    arrived: Vec<Result<Arrived, DropReason>>,
    delivered: Vec<Frame>,
    left: u64,
}

/// Drives a stratified network of the nodes' engines and openers with packets that were made before, in the
/// codec without cryptography, on one thread.
///
/// # Errors
/// A network that cannot be.
pub fn event_rate(what: &EventRate) -> anyhow::Result<Rate> {
    let settings = Settings {
        network: NetworkSettings {
            mixes_per_layer: what.mixes_per_layer,
            node_loops_per_s: 0.0,
            pool_packets: 2 * what.pool,
            ..NetworkSettings::default()
        },
        ..Settings::default()
    };
    settings.check()?;
    let seed = Seed::from_u64(what.seed).part("event rate");
    let network = Network::new(&settings, &seed)?;
    let count = network.nodes();
    let nodes = (0..count).filter_map(|node| network.node(node, &settings, 0)).collect();
    let per_s = what.pool as f64 / (3.0 * HOP_MEAN.as_secs_f64());
    let filling = (per_s * FILLING.as_secs_f64()) as usize;
    let sources = prepare(&network, &settings, &seed, per_s, filling + what.packets)?;
    let mut engines = EngineNetwork {
        network,
        nodes,
        links: (0..count).map(|_| VecDeque::new()).collect(),
        room: Room::default(),
        frames: Vec::new(),
        arrived: Vec::new(),
        delivered: Vec::with_capacity(filling + what.packets),
        left: 0,
    };
    let (mut begin, mut before) = (CpuClock::now(), 0);
    let mut end = Time::ZERO + WINDOW;
    for (number, (at, node, frame)) in sources.into_iter().enumerate() {
        while at >= end {
            engines.window(end);
            end += WINDOW;
        }
        if number == filling {
            (begin, before) = (CpuClock::now(), engines.left);
        }
        engines.links[node].push_back((at, frame));
    }
    let (cpu_s, wall_s) = begin.since();
    let pooled = engines.nodes.iter().map(|node| node.engine.pooled()).sum();
    Ok(Rate { events: engines.left - before, cpu_s, wall_s, pooled })
}

/// Packets in the order of their arrival at layer 1: when, where.
fn prepare(
    network: &Network,
    settings: &Settings,
    seed: &Seed,
    per_s: f64,
    count: usize,
) -> anyhow::Result<Vec<(Time, usize, Frame)>> {
    let width = usize::from(settings.network.mixes_per_layer);
    let codec = network.codec();
    let (mut gaps, mut paths) = (seed.stream("gaps"), seed.stream("paths"));
    let (mut delays, mut packets) = (seed.stream("delays"), seed.stream("packets"));
    let document = network.held().map(|held| held.document.clone());
    let document = document.context("the network has a document")?;
    let epoch = document.epoch_at(super::network::UNIX);
    let keys: Option<Vec<Hop>> = (document.nodes.iter())
        .map(|node| {
            let (address, key) = (node.identity().0, node.descriptor.body().key(epoch)?);
            Some(Hop { address, key, delay: Duration::ZERO })
        })
        .collect();
    let keys = keys.unwrap_or_default();
    let max = network.parameters.max_delay();
    let mut at = Time::ZERO;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        at += exponential(&mut gaps, Duration::from_secs_f64(1.0 / per_s));
        let mut hops = Vec::with_capacity(4);
        let first = paths.random_range(0..width);
        for layer in 0..3 {
            let mix = if layer == 0 { first } else { paths.random_range(0..width) };
            let delay = exponential(&mut delays, HOP_MEAN).min(max);
            hops.push(Hop { delay, ..keys[layer * width + mix] });
        }
        hops.push(keys[network.gateways[0] as usize]);
        let packet = codec.seal(&mut packets, &hops, [0; 16], &[kind::DROP])?;
        all.push((at, first, Frame { epoch: epoch.low_byte(), field: 0, packet }));
    }
    Ok(all)
}

impl EngineNetwork {
    /// Does all that happens before `end`. Nothing that leaves a node in a window arrives in the same one, so that
    /// each node can go through it alone, and opens what comes to it as one batch.
    fn window(&mut self, end: Time) {
        for node in 0..self.nodes.len() {
            let link = &mut self.links[node];
            let count = link.partition_point(|(at, _)| *at < end);
            self.frames.extend(link.drain(..count));
            // Nodes of one layer send in turn, each in order.
            self.frames.sort_by_key(|(at, _)| *at);
            let opener = &self.nodes[node].opener;
            opener.open_batch(&mut self.frames, &mut self.room, &mut self.arrived);
            let mut arrived = std::mem::take(&mut self.arrived);
            for arrived in arrived.drain(..) {
                let Ok(arrived) = arrived else { continue };
                let now = arrived.received;
                self.wake(node, now);
                self.handle(now, node, Input::Arrived(Ok(arrived)));
            }
            self.arrived = arrived;
            self.wake(node, end - Duration::from_nanos(1));
        }
    }

    /// Wakes a node whenever it wants until `until`.
    fn wake(&mut self, node: usize, until: Time) {
        while let Some(at) = self.nodes[node].engine.next_wake()
            && at <= until
        {
            self.handle(at, node, Input::Wake);
        }
    }

    fn handle(&mut self, now: Time, node: usize, input: Input) {
        let engine = &mut self.nodes[node].engine;
        engine.handle(now, input);
        while let Some(output) = engine.poll_output() {
            if let Output::Send { to, frame } = output
                && let Some(to) = self.network.number(&to)
            {
                self.left += 1;
                // Behind the last mix nothing is measured, nor freed.
                if to < self.network.gateways[0] as usize {
                    self.links[to].push_back((now + LATENCY, frame));
                } else {
                    self.delivered.push(frame);
                }
            }
        }
    }
}

/// Time that this thread was given, and time that passed.
struct CpuClock {
    cpu: Option<u64>,
    wall: Instant,
}

impl CpuClock {
    #[expect(clippy::disallowed_methods, reason = "this is what measures speed")]
    fn now() -> Self {
        // Linux: nanoseconds on a core come first.
        let cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let cpu = cpu.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self { cpu, wall: Instant::now() }
    }

    fn since(&self) -> (f64, f64) {
        let now = Self::now();
        let wall = now.wall.duration_since(self.wall).as_secs_f64();
        let cpu = self.cpu.zip(now.cpu).map(|(before, now)| (now - before) as f64 / 1e9);
        (cpu.unwrap_or(wall), wall)
    }
}
