//! Loop cover: every node sends packets to itself, at a Poisson rate, and watches how many come back.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::{Frame, PacketId};
use shoal_topology::{Seed, Stream, Time, control::kind, exponential};

use super::{Core, Due, draw_id, hop};

/// Loops that are waited for. One more, and the oldest counts as lost.
const WAITED_FOR: usize = 65_536;
/// How long a loop may take beyond the delays that were drawn for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's own loops. Each purpose draws from a stream of its own.
pub(super) struct Loops {
    instants: Stream,
    paths: Stream,
    delays: Stream,
    packets: Stream,
    /// Whether the next loop is in the wheel.
    running: bool,
    /// When each that is under way is lost.
    waited_for: HashMap<PacketId, Time>,
    order: VecDeque<PacketId>,
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
        self.schedule(core, now);
        if self.running {
            match self.build(core) {
                Some((first, frame, id, patience)) => {
                    self.wait_for(core, id, now + patience);
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
    ) -> Option<(shoal_topology::Identity, Frame, PacketId, Duration)> {
        let topology = core.usable()?;
        let path =
            topology.paths.draw_node_loop(&mut self.paths, topology.place.as_ref()?.index)?;
        let parameters = &topology.document.parameters;
        let mean = Duration::from_micros(parameters.node_loop_delay_us);
        let mut total = Duration::ZERO;
        let hops: Option<Vec<_>> = path
            .iter()
            .map(|index| {
                let delay = exponential(&mut self.delays, mean).min(parameters.max_delay());
                total += delay;
                hop(topology, *index, delay)
            })
            .collect();
        let id = draw_id(&mut self.packets);
        let packet = core.codec.seal(&mut self.packets, &hops?, id, &[kind::LOOP]).ok()?;
        let first = topology.document.node(*path.first()?)?.identity();
        let frame = Frame { epoch: topology.epoch.low_byte(), field: 0, packet };
        Some((first, frame, id, total + PATIENCE))
    }

    fn wait_for(&mut self, core: &mut Core, id: PacketId, until: Time) {
        if self.order.len() >= WAITED_FOR
            && let Some(oldest) = self.order.pop_front()
            && self.waited_for.remove(&oldest).is_some()
        {
            core.counters.loops_lost += 1;
        }
        self.order.push_back(id);
        self.waited_for.insert(id, until);
        core.wheel.insert(until, Due::LoopsLost);
    }

    /// Whether this is a loop of ours that was waited for.
    pub(super) fn returned(&mut self, id: &PacketId) -> bool {
        self.waited_for.remove(id).is_some()
    }

    /// Counts what should have been back.
    pub(super) fn give_up(&mut self, core: &mut Core, now: Time) {
        // Not quite ordered, as delays differ: each is looked at when it, or one behind it, is due.
        while let Some(id) = self.order.front() {
            match self.waited_for.get(id) {
                Some(until) if *until > now => break,
                Some(_) => {
                    self.waited_for.remove(id);
                    core.counters.loops_lost += 1;
                }
                None => {}
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoal_sphinx::StandIn;
    use shoal_topology::{Identity, Role};

    use super::*;
    use crate::engine::{Engine, Settings};

    #[test]
    fn one_loop_more_than_can_be_waited_for_and_the_oldest_counts_as_lost() {
        let settings = Settings {
            identity: Identity([1; 32]),
            role: Role::Mix,
            pool_packets: 1,
            seed: Seed::from_u64(1),
            gateway: Default::default(),
        };
        let Engine { mut core, mut loops, .. } = Engine::new(settings, Arc::new(StandIn));
        let id = |n: u32| {
            let mut id = PacketId::default();
            id[..4].copy_from_slice(&n.to_be_bytes());
            id
        };
        let until = Time::from_secs(5);
        (0..65_536).for_each(|n| loops.wait_for(&mut core, id(n), until));
        assert_eq!(core.counters.loops_lost, 0);
        (65_536..65_539).for_each(|n| loops.wait_for(&mut core, id(n), until));
        assert_eq!(core.counters.loops_lost, 3);
        assert!((0..3).all(|n| !loops.returned(&id(n))));
        assert!((3..65_539).all(|n| loops.returned(&id(n))));
        // Each is counted once.
        loops.give_up(&mut core, until);
        assert_eq!(core.counters.loops_lost, 3);
    }
}
