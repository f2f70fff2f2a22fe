//! Loop cover: every node sends packets to itself, at a Poisson rate, watches how many come back, and reports what each
//! link lost.
//!
//! Loops go through demoted nodes too, so that these can show that they behave again. So that a demoted node does not make
//! others look bad, a loop that crosses one counts for the link to it alone, and for nothing if it crosses two.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shoal_sphinx::{Frame, PacketId};
use shoal_topology::reputation::report::LinkCount;
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Document, Epoch, Identity, Paths, Seed, Standing, Stream, Time, exponential};

use super::{Core, Due, Topology, draw_id};

/// Loops that are waited for. One more, and the oldest counts as lost.
const WAITED_FOR: usize = 65_536;
/// How long a loop may take beyond the delays that were drawn for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Links that are counted; beyond so many new ones are not. A report of them stays below its limit.
const LINKS: usize = 16_384;
/// Loops that came back whose time beyond their delays is remembered: the latest.
const REMEMBERED: usize = 64;
/// With fewer remembered, no loop is late before it is given up.
const ENOUGH: usize = 8;

/// A link, by its two ends.
type Link = (Identity, Identity);

/// A loop that is under way.
struct PendingLoop {
    /// When it would be back if only its delays took time.
    due: Time,
    /// When it is late.
    late: Time,
    /// When it is given up.
    until: Time,
    /// The links that it counts for.
    links: Box<[Link]>,
    /// The number of the [`Layering`] by which it was drawn.
    layering: u64,
    /// Says whether it was counted already.
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Counted,
}

/// What loops are drawn from.
struct Layering {
    document: Arc<Document>,
    epoch: Epoch,
    paths: Paths,
    layers: BTreeMap<Identity, u8>,
    /// Becomes another when a node changes its layer. Loops through the layers of before compare nodes that the
    /// authorities would not: they are not reported.
    number: u64,
}

/// A node's own loops. Each purpose draws from a stream of its own.
pub(super) struct Loops {
    /// Draws when loops are sent.
    instants: Stream,
    /// Draws their paths.
    paths: Stream,
    /// Draws their delays.
    delays: Stream,
    /// Draws what sealing needs.
    packets: Stream,
    /// True if the next loop is in the wheel.
    running: bool,
    /// Those that are under way.
    waited_for: HashMap<PacketId, PendingLoop>,
    /// The identifiers of those that were sent, the oldest first; some of them may be back.
    order: VecDeque<PacketId>,
    /// What loops are drawn from; none before the first document.
    layering: Option<Layering>,
    /// Loops over each link whose fate is known, and those that were lost or late, since the last report.
    counts: BTreeMap<Link, (u32, u32)>,
    /// What the latest loops took beyond their delays, the oldest first.
    beyond: VecDeque<Duration>,
}

impl Loops {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            instants: seed.stream("node loop instants"),
            paths: seed.stream("node loop paths"),
            delays: seed.stream("node loop delays"),
            packets: seed.stream("node loop packets"),
            running: false,
            waited_for: HashMap::new(),
            order: VecDeque::new(),
            layering: None,
            counts: BTreeMap::new(),
            beyond: VecDeque::new(),
        }
    }

    /// Starts, if it has not, and if the document asks for loops.
    pub(super) fn start(&mut self, core: &mut Core, now: Time) {
        if !self.running {
            self.schedule(core, now);
        }
    }

    fn schedule(&mut self, core: &mut Core, now: Time) {
        let rate = core.usable().map_or(0.0, |t| t.document.parameters.node_loops_per_s);
        self.running = rate > 0.0;
        if self.running {
            let gap = exponential(&mut self.instants, Duration::from_secs_f64(1.0 / rate));
            core.wheel.insert(now + gap, Due::Loop);
        }
    }

    /// Sends one and plans the next.
    pub(super) fn send(&mut self, core: &mut Core, now: Time) {
        // Planned first, whether this one finds a path: the instants of loops must not depend on what becomes of
        // them.
        self.schedule(core, now);
        if self.running {
            match self.build(core, now) {
                Some((first, frame, id, waiting)) => {
                    self.wait_for(core, id, waiting);
                    core.counters.loops_sent += 1;
                    core.send(first, frame);
                }
                None => core.counters.loops_without_path += 1,
            }
        }
    }

    fn build(
        &mut self,
        core: &Core,
        now: Time,
    ) -> Option<(Identity, Frame, PacketId, PendingLoop)> {
        let topology = core.usable()?;
        self.follow(topology);
        let layering = self.layering.as_ref()?;
        let own = topology.neighbours.as_ref()?.index;
        let path = layering.paths.draw_node_loop(&mut self.paths, own)?;
        let path_end = topology.document.node(own)?.identity();
        let parameters = &topology.document.parameters;
        let law = parameters.draw_delay_law(&mut self.delays)?;
        let mut total = Duration::ZERO;
        let hops: Option<Vec<_>> = path
            .iter()
            .map(|index| {
                // As a packet of that class: else a mix would know it, and could spare it what it does to others.
                let delay = match topology.document.node(*index)?.identity() {
                    own if own == path_end => Duration::ZERO,
                    node => match layering.layers.get(&node).copied() {
                        Some(layer @ 1..) => law.draw(&mut self.delays, layer, parameters.layers),
                        _ => law.draw_exponential(&mut self.delays),
                    },
                };
                let delay = delay.min(parameters.max_delay());
                total += delay;
                topology.hop(*index, delay)
            })
            .collect();
        let id = draw_id(&mut self.packets);
        let packet = core.codec.seal(&mut self.packets, &hops?, id, &[kind::LOOP]).ok()?;
        let first = topology.document.node(*path.first()?)?.identity();
        let frame = Frame { epoch: topology.epoch.low_byte(), field: 0, packet };
        let due = now + total;
        let until = due + PATIENCE;
        let late_after = Duration::from_micros(parameters.loop_late_us);
        // Until enough loops came back nobody knows what links add, and a loop is late only when it is given up.
        let late = self.usual().map_or(until, |usual| until.min(due + usual + late_after));
        let links = counting_links(&topology.document, own, &path);
        let (number, fate) = (layering.number, Fate::Open);
        Some((first, frame, id, PendingLoop { due, late, until, links, layering: number, fate }))
    }

    /// Draws from the topology from now on, if it is another.
    fn follow(&mut self, topology: &Topology) {
        let Topology { document, epoch, .. } = topology;
        // By the pointer: documents are large, and this is asked for each loop.
        let same = |old: &Layering| Arc::ptr_eq(&old.document, document) && old.epoch == *epoch;
        if self.layering.as_ref().is_some_and(same) {
            return;
        }
        let layers = layers(document, *epoch);
        let mut number = 0;
        if let Some(old) = &self.layering {
            number = old.number;
            let moved = |(node, layer): (&Identity, &u8)| {
                old.layers.get(node).is_some_and(|before| before != layer)
            };
            if layers.iter().any(moved) {
                number += 1;
                // Counts of the old layers compare a node with others than those of its new layer.
                self.counts.clear();
            }
        }
        let (document, epoch, paths) = (document.clone(), *epoch, Paths::of_all(document, *epoch));
        self.layering = Some(Layering { document, epoch, paths, layers, number });
    }

    /// What a loop takes beyond its delays where nobody delays it: the lower quartile of the latest, as nodes that delay
    /// may well be on most paths of a small network.
    fn usual(&self) -> Option<Duration> {
        let mut beyond: Vec<Duration> = self.beyond.iter().copied().collect();
        beyond.sort_unstable();
        (beyond.len() >= ENOUGH).then(|| beyond.get(beyond.len() / 4).copied()).flatten()
    }

    fn wait_for(&mut self, core: &mut Core, id: PacketId, waiting: PendingLoop) {
        if self.order.len() >= WAITED_FOR
            && let Some(oldest) = self.order.pop_front()
            && self.waited_for.remove(&oldest).is_some()
        {
            core.counters.loops_lost += 1;
        }
        core.wheel.insert(waiting.until, Due::LoopsLost);
        if waiting.late < waiting.until {
            core.wheel.insert(waiting.late, Due::LoopLate(id));
        }
        // The order is by sending, and loops return in any order: identifiers that are gone are skipped when they
        // come to the front.
        self.order.push_back(id);
        self.waited_for.insert(id, waiting);
    }

    /// How many are waited for.
    pub(super) fn under_way(&self) -> usize {
        self.waited_for.len()
    }

    /// True if this is a loop of ours that was waited for.
    pub(super) fn returned(&mut self, id: &PacketId, now: Time) -> bool {
        let Some(waiting) = self.waited_for.remove(id) else { return false };
        if self.beyond.len() >= REMEMBERED {
            self.beyond.pop_front();
        }
        // Late ones too: else a network that has become slower would be late for ever.
        self.beyond.push_back(now.since(waiting.due));
        self.count(&waiting, 0);
        true
    }

    /// Counts it, if it is not back, as lost on all its links; when it comes after all this does not change.
    pub(super) fn late(&mut self, id: &PacketId, at: Time) {
        let Some(mut waiting) = self.waited_for.remove(id) else { return };
        // After a standstill of our own we cannot tell.
        if at == waiting.late {
            self.count(&waiting, 1);
        }
        waiting.fate = Fate::Counted;
        self.waited_for.insert(*id, waiting);
    }

    fn count(&mut self, waiting: &PendingLoop, lost: u32) {
        let number = self.layering.as_ref().map(|layering| layering.number);
        // Each loop counts once, and only under the layers by which it was drawn.
        if waiting.fate == Fate::Counted || number != Some(waiting.layering) {
            return;
        }
        // Where it was lost nobody knows, so each link counts it. What a bad node takes adds up on its own links.
        for link in &waiting.links {
            // A report has a greatest length, whatever documents list.
            if self.counts.len() < LINKS || self.counts.contains_key(link) {
                let count = self.counts.entry(*link).or_default();
                *count = (count.0.saturating_add(1), count.1.saturating_add(lost));
            }
        }
    }

    /// Counts what should have been back.
    pub(super) fn give_up(&mut self, core: &mut Core, now: Time) {
        // Not quite ordered, as delays differ: each is looked at when it, or one behind it, is due.
        while let Some(id) = self.order.front() {
            match self.waited_for.get(id) {
                Some(waiting) if waiting.until > now => break,
                Some(_) => {
                    if let Some(waiting) = self.waited_for.remove(id) {
                        self.count(&waiting, 1);
                    }
                    core.counters.loops_lost += 1;
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    /// What each link has lost since this was last asked, ordered, by indices in the document in use. What was counted
    /// under another document is carried over by identity; nodes that are not listed any more are left out.
    pub(super) fn take_links(&mut self, topology: &Topology) -> Vec<LinkCount> {
        self.follow(topology);
        let counts = std::mem::take(&mut self.counts);
        let document = &topology.document;
        // Indices and layers are those of the document's own epoch; a later one of its epochs may have others.
        if layers(document, document.epoch) != layers(document, topology.epoch) {
            return Vec::new();
        }
        let index = |node: &Identity| u16::try_from(document.index_of(node)?).ok();
        let link = |((from, to), (sent, lost)): (Link, (u32, u32))| {
            Some(LinkCount { from: index(&from)?, to: index(&to)?, sent, lost })
        };
        counts.into_iter().filter_map(link).collect()
    }
}

fn layers(document: &Document, epoch: Epoch) -> BTreeMap<Identity, u8> {
    let layer = |node| document.layer_at(node, epoch);
    document.nodes.iter().map(|node| (node.identity(), layer(node))).collect()
}

/// The links of a loop that it counts for.
fn counting_links(document: &Document, own: usize, path: &[usize]) -> Box<[Link]> {
    let demoted = |index: usize| {
        index != own && document.node(index).is_some_and(|node| node.standing == Standing::Demoted)
    };
    // See the module: what a demoted node loses must not count against the others on the path.
    let tested = path.iter().filter(|index| demoted(**index)).count();
    let from = std::iter::once(&own).chain(path);
    let ends = from.zip(path).filter(|(_, to)| tested == 0 || (tested == 1 && demoted(**to)));
    let identity = |index: usize| document.node(index).map(|node| node.identity());
    ends.filter_map(|(from, to)| Some((identity(*from)?, identity(*to)?))).collect()
}

#[cfg(test)]
mod tests {
    use shoal_sphinx::NullCodec;
    use shoal_topology::Role;

    use super::*;
    use crate::engine::{NodeEngine, NodeSettings};

    #[test]
    fn one_loop_more_than_can_be_waited_for_and_the_oldest_counts_as_lost() {
        let settings = NodeSettings {
            identity: Identity([1; 32]),
            role: Role::Mix,
            pool_packets: 1,
            seed: Seed::from_u64(1),
            gateway: Default::default(),
        };
        let NodeEngine { mut core, mut loops, .. } = NodeEngine::new(settings, Arc::new(NullCodec));
        let id = |n: u32| {
            let mut id = PacketId::default();
            id[..4].copy_from_slice(&n.to_be_bytes());
            id
        };
        let until = Time::from_secs(5);
        let waiting = || PendingLoop {
            due: Time::ZERO,
            late: until,
            until,
            links: Box::default(),
            layering: 0,
            fate: Fate::Open,
        };
        (0..65_536).for_each(|n| loops.wait_for(&mut core, id(n), waiting()));
        assert_eq!(core.counters.loops_lost, 0);
        (65_536..65_539).for_each(|n| loops.wait_for(&mut core, id(n), waiting()));
        assert_eq!(core.counters.loops_lost, 3);
        assert!((0..3).all(|n| !loops.returned(&id(n), until)));
        assert!((3..65_539).all(|n| loops.returned(&id(n), until)));
        // Each is counted once.
        loops.give_up(&mut core, until);
        assert_eq!(core.counters.loops_lost, 3);
    }
}
