//! Flows between mixes and gateways that stand out: what a call adds to the links behind the first hop.
//!
//! What a link between two layers has in a block of time beyond its own mean over the observation, in standard deviations, is
//! its excess. A kept path of a call shows as an excess on every link of it. So does a kept mix to who counts what enters it and
//! what comes to a gateway some delay later. A pair of people is scored by how the excess from the first mixes of the one
//! to the gateway of the other goes with that of the other to the one.

use std::collections::{BTreeMap, BTreeSet};

use super::delay::Delay;
use super::dense::MOST_PEOPLE;
use super::first_mixes::from_links;
use super::marks::{Marked, block_s};
use super::{Answer, Attack, Scored};
use crate::trace::{Flow, Link, Party, Public, View};

/// Correlation of the flows between first mixes and gateways of two people.
pub struct FlowExcess;

impl Attack for FlowExcess {
    fn name(&self) -> &'static str {
        "flow_excess"
    }

    fn run(&self, view: &View) -> Answer {
        let people = view.public.people as usize;
        let Some(layers) = layers(view) else { return Answer::default() };
        if people > MOST_PEOPLE {
            return Answer::default();
        }
        let excess = excess(view, &layers);
        let frames = from_links(view).people;
        let (gateways, own) = gateways(view, &layers, people);
        let towards = towards(view, &frames, &excess, (gateways, layers.blocks));
        pairs(&towards, &own, gateways, layers.blocks)
    }
}

/// Nodes by layer, gateways first and last, each by place.
struct Layers {
    nodes: Vec<BTreeMap<u32, usize>>,
    blocks: usize,
}

/// Layers as the links say: gateways are what people are linked to, each next layer is what the last one sends to. None where
/// links between nodes are not seen.
fn layers(view: &View) -> Option<Layers> {
    let mut gateways = BTreeSet::new();
    let mut next: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for link in view.trace.links.keys() {
        match (link.from, link.to) {
            (Party::Person(_), Party::Node(gateway)) => {
                gateways.insert(gateway);
            }
            (Party::Node(from), Party::Node(to)) => {
                next.entry(from).or_default().insert(to);
            }
            _ => {}
        }
    }
    let mut all = vec![gateways.clone()];
    // A packet has five hops at the most.
    for _ in 0..4 {
        let here = all.last()?;
        let behind: BTreeSet<u32> =
            here.iter().filter_map(|node| next.get(node)).flatten().copied().collect();
        let ends = !behind.is_disjoint(&gateways);
        all.push(if ends { gateways.clone() } else { behind });
        if ends {
            break;
        }
    }
    let places = |layer: BTreeSet<u32>| layer.into_iter().zip(0..).collect();
    let (first, last) = (all.first()?.clone(), all.last()?.clone());
    let whole = all.len() >= 3 && first == last && all.iter().all(|layer| !layer.is_empty());
    let seconds = view.public.end.since(view.public.begin).as_secs_f64();
    let nodes = all.into_iter().map(places).collect();
    whole.then_some(Layers { nodes, blocks: (seconds / block_s(&view.public)) as usize })
}

/// By block, first mix and gateway.
type Table = Vec<f32>;

/// The excess from each first mix to each gateway in each block: of the weakest link of the best way there, and of the
/// correlation in time.
fn excess(view: &View, layers: &Layers) -> Table {
    let mut ways: Option<(Vec<Vec<f32>>, usize)> = None;
    for pair in layers.nodes.windows(2).skip(1) {
        let [from, to] = pair else { continue };
        let links = standing_out(view, from, to, layers.blocks);
        let width = to.len();
        let Some((before, middle)) = ways.take() else {
            ways = Some((links, width));
            continue;
        };
        let joined = before.iter().zip(&links).map(|(a, b)| through(a, b, middle, width));
        ways = Some((joined.collect(), width));
    }
    let kept = ways.map_or_else(Vec::new, |(ways, _)| ways.concat());
    let later = correlation(view, layers);
    kept.iter().zip(later).map(|(kept, later)| kept + later).collect()
}

/// The best way from each row of `a` over its columns to each column of `b`, as good as its weaker part.
fn through(a: &[f32], b: &[f32], middle: usize, width: usize) -> Vec<f32> {
    let mut best = vec![f32::MIN; a.len() / middle.max(1) * width];
    for (row, a) in a.chunks(middle.max(1)).enumerate() {
        let best = best.get_mut(row * width..(row + 1) * width).unwrap_or_default();
        for (a, b) in a.iter().zip(b.chunks(width.max(1))) {
            best.iter_mut().zip(b).for_each(|(best, b)| *best = best.max(a.min(*b)));
        }
    }
    best
}

/// Packets of each link between two layers in each block beyond what it has on the mean over the observation, in standard
/// deviations.
fn standing_out(
    view: &View,
    from: &BTreeMap<u32, usize>,
    to: &BTreeMap<u32, usize>,
    blocks: usize,
) -> Vec<Vec<f32>> {
    let (rows, columns) = (from.len(), to.len());
    let mut all = vec![vec![0.0f32; rows * columns]; blocks];
    let (begin, bin) = (view.public.begin.as_nanos(), (block_s(&view.public) * 1e9) as u64);
    for (a, i) in from {
        for (b, j) in to {
            let link = Link { from: Party::Node(*a), to: Party::Node(*b) };
            let Some(flow) = view.trace.links.get(&link) else { continue };
            for (table, count) in all.iter_mut().zip(flow.counts(begin, bin, blocks)) {
                if let Some(slot) = table.get_mut(i * columns + j) {
                    *slot = count as f32;
                }
            }
        }
    }
    let mut means = vec![0.0f32; rows * columns];
    for table in &all {
        means.iter_mut().zip(table).for_each(|(mean, x)| *mean += x / blocks.max(1) as f32);
    }
    // A link that is hardly ever used says no more than one that is used now and then.
    let usual = means.iter().sum::<f32>() / means.len().max(1) as f32;
    for table in &mut all {
        for (x, mean) in table.iter_mut().zip(&means) {
            *x = (*x - mean) / mean.max(0.5 * usual).max(0.5).sqrt();
        }
    }
    all
}

/// What enters each first mix, spread by the law of the delay, with what comes to each gateway, in bins of a third of the law's
/// width: Pearson's correlation in each block, in standard deviations.
fn correlation(view: &View, layers: &Layers) -> Table {
    let (Some(gateways), Some(mixes)) = (layers.nodes.first(), layers.nodes.get(1)) else {
        return Vec::new();
    };
    let delay =
        Delay::new(&Public { latency_s: view.public.latency_s * 0.6, ..view.public.clone() });
    let bin = ((delay.sd_s() / 3.0 * 1e9) as u64).max(2_000_000);
    let begin = view.public.begin.as_nanos();
    let per_block = ((block_s(&view.public) * 1e9) as u64 / bin) as usize;
    let bins = per_block * layers.blocks;
    let sum = |ends: &dyn Fn(&Link) -> bool| {
        let mut all = vec![0.0f32; bins];
        for (link, flow) in &view.trace.links {
            if ends(link) && matches!(flow, Flow::Packets { .. }) {
                let counts = flow.counts(begin, bin, bins);
                all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count as f32);
            }
        }
        all
    };
    let kernel = delay.kernel(bin as f64 / 1e9);
    let spread = |counts: Vec<f32>| {
        let mut all = vec![0.0f32; counts.len()];
        for (lag, share) in kernel.iter().enumerate().take(counts.len()) {
            let later = all.iter_mut().skip(lag);
            later.zip(&counts).for_each(|(sum, count)| *sum += share * count);
        }
        all
    };
    let gateway = |party| matches!(party, Party::Node(node) if gateways.contains_key(&node));
    let entered: Vec<Vec<f32>> = mixes
        .keys()
        .map(|mix| spread(sum(&|link| gateway(link.from) && link.to == Party::Node(*mix))))
        .collect();
    let node = |party| matches!(party, Party::Node(_));
    let came: Vec<Vec<f32>> = gateways
        .keys()
        .map(|gateway| sum(&|link| node(link.from) && link.to == Party::Node(*gateway)))
        .collect();
    let mut all = Vec::with_capacity(layers.blocks * mixes.len() * gateways.len());
    for block in 0..layers.blocks {
        let within = |row: &Vec<f32>| {
            let own = row.get(block * per_block..(block + 1) * per_block);
            standard(own.unwrap_or_default())
        };
        let came: Vec<Vec<f32>> = came.iter().map(within).collect();
        for entered in entered.iter().map(within) {
            all.extend(came.iter().map(|came| {
                let product: f32 = entered.iter().zip(came).map(|(a, b)| a * b).sum();
                product * (per_block as f32).sqrt()
            }));
        }
    }
    all
}

/// Less the mean, over the norm.
fn standard(row: &[f32]) -> Vec<f32> {
    let mean = row.iter().sum::<f32>() / row.len().max(1) as f32;
    let norm = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>().sqrt();
    let scale = if norm > 1e-6 { 1.0 / norm } else { 0.0 };
    row.iter().map(|x| (x - mean) * scale).collect()
}

/// Number of gateways, and the place of each person's own.
fn gateways(view: &View, layers: &Layers, people: usize) -> (usize, Vec<usize>) {
    let places = layers.nodes.first().cloned().unwrap_or_default();
    let mut own = vec![0; people];
    for link in view.trace.links.keys() {
        if let (Party::Person(person), Party::Node(gateway)) = (link.from, link.to)
            && let (Some(slot), Some(place)) = (own.get_mut(person as usize), places.get(&gateway))
        {
            *slot = *place;
        }
    }
    (places.len(), own)
}

/// For each person, gateway and block the excess from her first mixes of that block to the gateway, less its mean over
/// time.
fn towards(
    view: &View,
    frames: &[Marked],
    excess: &[f32],
    (gateways, blocks): (usize, usize),
) -> BTreeMap<u32, Vec<f32>> {
    let mixes = excess.len() / (gateways * blocks).max(1);
    let (begin_s, length_s) = (view.public.begin.as_secs_f64(), block_s(&view.public));
    let mut all = BTreeMap::new();
    for frames in frames {
        let mut shares = vec![0.0f32; blocks * mixes];
        for (frame, at) in frames.times.iter().enumerate() {
            let block = ((*at as f64 / 1e9 - begin_s) / length_s) as usize;
            for (mark, weight) in frames.marks(frame) {
                if let Some(share) = shares.get_mut(block * mixes + usize::from(*mark)) {
                    *share += weight;
                }
            }
        }
        let mut own = vec![0.0f32; gateways * blocks];
        for block in 0..blocks {
            let shares = shares.get(block * mixes..(block + 1) * mixes).unwrap_or_default();
            let sum = shares.iter().sum::<f32>().max(1.0);
            for (mix, share) in shares.iter().enumerate() {
                let from = (block * mixes + mix) * gateways;
                let row = excess.get(from..from + gateways).unwrap_or_default();
                for (gateway, value) in row.iter().enumerate() {
                    if let Some(slot) = own.get_mut(gateway * blocks + block) {
                        *slot += share / sum * value;
                    }
                }
            }
        }
        for row in own.chunks_mut(blocks.max(1)) {
            let mean = row.iter().sum::<f32>() / row.len().max(1) as f32;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        all.insert(frames.person, own);
    }
    all
}

/// Pairs by the sum of products of both sides' excesses.
fn pairs(
    towards: &BTreeMap<u32, Vec<f32>>,
    own: &[usize],
    gateways: usize,
    blocks: usize,
) -> Answer {
    let gateway = |person: u32| own.get(person as usize).copied().unwrap_or(0).min(gateways);
    let row = |of: &[f32], to: u32| -> Vec<f32> {
        let begin = gateway(to) * blocks;
        of.get(begin..begin + blocks).unwrap_or_default().to_vec()
    };
    let mut found = Answer::default();
    for (caller, there) in towards {
        for (callee, back) in towards.range(caller + 1..) {
            let (there, back) = (row(there, *callee), row(back, *caller));
            // By size: where a link into a gateway stands out, all ways there gain a little.
            let product: f32 = there.iter().zip(&back).map(|(a, b)| a * b).sum();
            let score = f64::from(product) / (blocks.max(1) as f64).sqrt();
            found.pairs.push(Scored { caller: *caller, callee: *callee, score });
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use shoal_topology::Seed;

    use super::*;
    use crate::attacks::generated::{Calls, view};
    use crate::scores::{self, Kind};

    #[test]
    fn kept_paths_stand_out_of_the_links_between_nodes_and_fresh_ones_do_not() {
        let scores = |settings: &Calls| {
            let (view, truth) = view(settings);
            let answer = FlowExcess.run(&view);
            let people = view.public.people;
            scores::scores(&answer, &truth, people, Kind::Calls, &Seed::from_u64(1))
        };
        let kept = scores(&Calls { kept: true, ..Calls::default() });
        let precision = kept.iter().find(|score| score.name == "average_precision").unwrap();
        assert!(precision.p < 0.01, "{precision:?}");
        let fresh = scores(&Calls::default());
        assert!(!fresh.is_empty() && fresh.iter().all(|score| score.p > 1e-3), "{fresh:?}");
    }
}
