//! Who watches: flows of links, and what corrupted nodes tell.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use shoal_sphinx::{FRAME_LEN, Packet};
use shoal_topology::Time;

use super::ends::Ends;
use super::settings::{Observed, Settings};
use super::spans::{millis, seconds};
use crate::trace::{Flow, Link, Party, Pass, Trace};

/// The observation of links.
pub(super) struct Observer {
    which: Observed,
    listed: Vec<Ends>,
    bin: u64,
    begin: Time,
    end: Time,
    flows: Vec<(Link, Flow)>,
}

impl Observer {
    /// It watches from the end of the warm-up on for so long.
    pub(super) fn new(settings: &Settings, length: Duration) -> Self {
        let begin = seconds(settings.warm_up_s);
        let parse = |pattern: &String| Ends::parse(pattern).ok();
        Self {
            which: settings.observer.links,
            listed: settings.observer.list.iter().filter_map(parse).collect(),
            bin: u64::try_from(millis(settings.observer.bin_ms).as_nanos()).unwrap_or(u64::MAX),
            begin,
            end: begin + length,
            flows: Vec::new(),
        }
    }

    /// Whether a link is watched: the number of its flow.
    pub(super) fn watch(&mut self, link: &Link) -> Option<u32> {
        let client = |party| matches!(party, Party::Person(_));
        let watched = match self.which {
            Observed::All => true,
            Observed::Clients => client(link.from) || client(link.to),
            Observed::Listed => self.listed.iter().any(|ends| ends.fits(link)),
            Observed::None => false,
        };
        watched.then(|| {
            let flow = match self.bin {
                0 => Flow::new(FRAME_LEN as u32),
                bin => Flow::Counts { bin, counts: Vec::new() },
            };
            self.flows.push((*link, flow));
            self.flows.len() as u32 - 1
        })
    }

    /// A packet of a watched link.
    pub(super) fn saw(&mut self, flow: u32, at: Time) {
        if at >= self.begin
            && at < self.end
            && let Some((_, flow)) = self.flows.get_mut(flow as usize)
        {
            flow.push(Time::ZERO + at.since(self.begin), FRAME_LEN as u32);
        }
    }

    /// What was seen.
    pub(super) fn into_trace(self) -> Trace {
        Trace { links: self.flows.into_iter().collect::<BTreeMap<_, _>>() }
    }
}

/// The first bytes of a packet, which name it between its arrival and its departure at a node: uniformly random.
type Name = [u8; 16];

fn name(packet: &Packet) -> Name {
    packet.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// A hash of what a mix changes: the element of a header, and with the null codec the number of the hop behind that.
pub(super) fn fingerprint(packet: &Packet) -> u64 {
    let head = packet.as_bytes().get(..33).unwrap_or_default();
    let hash = blake3::hash(head);
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// How a packet came to a node.
#[derive(Clone, Copy)]
pub(super) struct NodeArrival {
    pub(super) at: Time,
    pub(super) from: Party,
    pub(super) fingerprint: u64,
    /// The epoch that its frame named.
    pub(super) epoch: u8,
}

/// What corrupted nodes tell: which arrival became which departure.
///
/// A packet that the node itself made comes from itself when it leaves; one that ends there goes to itself when it
/// comes. Dummies are not told: on the link to a person they are the packets that are missing here.
pub(super) struct Corrupt {
    nodes: Vec<Option<HashMap<Name, NodeArrival>>>,
    begin: Time,
    end: Time,
    passes: Vec<Pass>,
}

impl Corrupt {
    pub(super) fn new(settings: &Settings, nodes: usize, length: Duration) -> Self {
        let listed = |node| settings.observer.corrupt_nodes.contains(&(node as u32));
        let begin = seconds(settings.warm_up_s);
        Self {
            nodes: (0..nodes).map(|node| listed(node).then(HashMap::new)).collect(),
            begin,
            end: begin + length,
            passes: Vec::new(),
        }
    }

    /// Whether a node tells.
    pub(super) fn is(&self, node: usize) -> bool {
        matches!(self.nodes.get(node), Some(Some(_)))
    }

    /// A packet came that goes on: as it will leave.
    pub(super) fn came(&mut self, node: usize, came: NodeArrival, packet: &Packet) {
        if let Some(Some(waiting)) = self.nodes.get_mut(node) {
            waiting.insert(name(packet), came);
        }
    }

    /// A packet ended here.
    pub(super) fn ended(
        &mut self,
        node: usize,
        NodeArrival { at, from, fingerprint, epoch }: NodeArrival,
    ) {
        let to = own(node);
        let node = node as u32;
        self.pass(Pass {
            node,
            arrived: at,
            from,
            left: at,
            to,
            came: fingerprint,
            went: 0,
            epoch,
        });
    }

    /// A packet leaves.
    pub(super) fn left(&mut self, node: usize, now: Time, to: Party, packet: &Packet) {
        if let Some(Some(waiting)) = self.nodes.get_mut(node) {
            let made = NodeArrival { at: now, from: own(node), fingerprint: 0, epoch: 0 };
            let NodeArrival { at, from, fingerprint, epoch } =
                waiting.remove(&name(packet)).unwrap_or(made);
            let (node, went) = (node as u32, self::fingerprint(packet));
            let arrived = at;
            self.pass(Pass { node, arrived, from, left: now, to, came: fingerprint, went, epoch });
        }
    }

    fn pass(&mut self, pass: Pass) {
        if pass.left >= self.begin && pass.left < self.end {
            let shift = |at: Time| Time::ZERO + at.since(self.begin);
            self.passes.push(Pass { arrived: shift(pass.arrived), left: shift(pass.left), ..pass });
        }
    }

    pub(super) fn into_passes(self) -> Vec<Pass> {
        self.passes
    }
}

fn own(node: usize) -> Party {
    Party::Node(node as u32)
}
