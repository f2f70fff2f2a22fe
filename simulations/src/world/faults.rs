//! What goes wrong in a run, as it stands at a moment.

use rand::RngExt;
use shoal_topology::{Seed, Stream, Time};

use super::settings::{Culprit, Fault, Settings};
use super::spans::span;

/// A fault with whom it is of, and when it begins and ends.
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) culprit: Culprit,
    pub(super) begins: Time,
    /// Never, unless it ends.
    pub(super) ends: Time,
}

/// What goes wrong, and when.
pub(super) struct Faults {
    pub(super) planned: Vec<Planned>,
    /// By node: the share of packets that it takes, and by what it chooses them.
    lossy: Vec<(f64, Stream)>,
    /// Packets that lossy nodes took.
    pub(super) taken: u64,
    /// Packets that came to nodes that were away.
    pub(super) missed: u64,
    /// Times that a node or an authority started again.
    pub(super) restarts: u64,
}

impl Faults {
    /// As the settings have them, for so many nodes.
    pub(super) fn new(settings: &Settings, nodes: usize, seed: &Seed) -> Self {
        let warm_up = span(settings.warm_up_s);
        let plan = |fault: &Fault| {
            let begins = Time::ZERO + span(fault.at_s) + warm_up;
            let ends = match (fault.down_s, fault.until_s) {
                (Some(down_s), _) => begins + span(down_s),
                (None, Some(until_s)) => Time::ZERO + span(until_s) + warm_up,
                (None, None) => Time::NEVER,
            };
            let culprit = fault.culprit(settings)?;
            Some(Planned { fault: fault.clone(), culprit, begins, ends })
        };
        let stream = |node: usize| seed.part(&format!("node {node}")).stream("taken packets");
        Self {
            planned: settings.faults.iter().filter_map(plan).collect(),
            lossy: (0..nodes).map(|node| (0.0, stream(node))).collect(),
            taken: 0,
            missed: 0,
            restarts: 0,
        }
    }

    /// From now on a node takes this share of what comes to it from other nodes.
    pub(super) fn set_share(&mut self, node: usize, share: f64) {
        if let Some((of, _)) = self.lossy.get_mut(node) {
            *of = share;
        }
    }

    /// Whether a node takes a packet.
    pub(super) fn takes(&mut self, node: usize) -> bool {
        let Some((share, rng)) = self.lossy.get_mut(node).filter(|(share, _)| *share > 0.0) else {
            return false;
        };
        let takes = rng.random::<f64>() < *share;
        self.taken += u64::from(takes);
        takes
    }

    /// Whether something of a node's had gone wrong by then.
    pub(super) fn had_begun(&self, node: usize, by: Time) -> bool {
        let of = |planned: &&Planned| planned.culprit == Culprit::Node(node);
        self.planned.iter().filter(of).any(|planned| planned.begins <= by)
    }
}
