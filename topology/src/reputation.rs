//! Whom the reports of nodes' loops convict, and whom they clear: each authority judges for itself, and votes.
//!
//! A loop crosses one node of each layer, so a node is held against the others of its own layer (a gateway against
//! gateways). What a lossy node of another layer takes, it takes from all of them alike; an outage that hits everyone is
//! no difference; and alone in its layer a node has nothing to be held against, and is never demoted.
//!
//! How sure is sure enough: a window of a client's own loops may raise a false alarm now and then (20 loops expected,
//! alarm below 3: 4.6e-7), as it only makes the client look again. A demotion takes a node from everybody, and a network
//! of 1,000 nodes and 100,000 sessions a year asks 10^8 times: [`FALSE_ALARMS`] of 1e-9 a test is one in ten years.
//!
//! **What liars can do.** Reports count by operator. To expel an honest node it takes more than a third of the operators
//! whose loops cross it; with at most ⌊m/3⌋ of m, whatever they report, a false alarm is no likelier than without them.
//! To shield a bad node a liar can take away a bounded amount of evidence (1 + ln m nats); honest reports outweigh it with
//! time. A node says nothing of its own layer, where all of its operator's nodes are. Operators are what descriptors declare: the
//! allow-list has to see that one does not come as many.

mod likelihood;
pub mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::encoding::{decode, encode};
use crate::reputation::report::Report;
use crate::{Document, Epoch, Error, Identity, ListedNode, Standing};
use likelihood::{Cell, Hypothesis};

/// Probability that one test convicts a node that loses no more than the others of its layer and the tolerance.
pub const FALSE_ALARMS: f64 = 1e-9;
/// Probability that a node which loses more is cleared in one test.
pub const FALSE_PARDONS: f64 = 1e-3;
/// Evidence is weighed in windows that forget half of what they know in so many sessions: the session alone for what
/// begins suddenly, longer ones for what is slow. A false alarm of any counts, so each is allowed its share.
pub const HALF_LIVES: [f32; 4] = [0.0, 4.0, 16.0, 64.0];
/// Indices into [`HALF_LIVES`]: a demoted node is restored only if the window of 16 sessions (`LONG`) and that of 4
/// (`OF_LATE`) both clear it.
const LONG: usize = 2;
const OF_LATE: usize = 1;
/// Sessions for which a node stays demoted at least; doubled with each further demotion.
pub const LEAST_SESSIONS: u32 = 8;
/// Demotions beyond which the time does not double any more (8 · 2^5 sessions).
const MOST_DEMOTIONS: u8 = 6;
/// Sessions in good standing after which one demotion is forgotten.
const FORGIVEN_AFTER: u32 = 512;
/// Reports of a node in an epoch. Parts from here on are ignored.
const PARTS: u16 = 256;
/// Pools of a node that are remembered: the latest.
const POOLS: usize = 9;
/// Pairs of a node and an operator that has crossed it. Beyond so many new ones are not counted: a network of 1,400 nodes
/// each of an operator of its own.
const MOST_CELLS: usize = 1 << 21;
/// Most bytes of the whole.
const MAX_LEN: usize = 1 << 28;

/// What an authority believes at the end of a session. Lists are ordered by identity.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Judgement {
    /// Nodes in good standing that are convicted.
    pub demote: Vec<Identity>,
    /// Demoted, and cleared: for the next document, since amendments restore nobody.
    pub restore: Vec<Identity>,
    /// Mean pool of each node that reported one, as [`crate::reputation::report::coarse_pool`] writes it: the median of its own latest
    /// reports. Only the node itself knows, and can say what it likes: who uses these takes a low quantile of them.
    pub pools: Vec<(Identity, u8)>,
}

/// An operator, by the beginning of the hash of its name.
type OperatorId = [u8; 16];

fn voice(operator: &str) -> OperatorId {
    let mut voice = [0; 16];
    blake3::Hasher::new_derive_key("shoal 2026 operator")
        .update(operator.as_bytes())
        .finalize_xof()
        .fill(&mut voice);
    voice
}

/// What is known of a node.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct Record {
    /// What the loops of each operator showed, in each window.
    cells: BTreeMap<OperatorId, [Cell; HALF_LIVES.len()]>,
    standing: Standing,
    /// For how many sessions it has had this standing.
    sessions: u32,
    demotions: u8,
    /// The latest epoch that it has reported in.
    reported: Option<Epoch>,
    /// Which parts, a bit each.
    parts: [u64; PARTS as usize / 64],
    pools: Vec<u8>,
}

impl Record {
    fn of(standing: Standing) -> Self {
        let demotions = u8::from(standing == Standing::Demoted);
        Self { standing, demotions, ..Self::default() }
    }

    /// True if this report is new; then it is not any more.
    fn first(&mut self, epoch: Epoch, part: u16) -> bool {
        // Only the latest epoch has its parts kept, so an earlier one cannot be told from a repetition.
        if part >= PARTS || self.reported.is_some_and(|latest| epoch < latest) {
            return false;
        }
        if self.reported != Some(epoch) {
            self.reported = Some(epoch);
            // Parts are numbered anew in each epoch.
            self.parts = Default::default();
        }
        let Some(word) = self.parts.get_mut(usize::from(part / 64)) else { return false };
        let bit = 1 << (part % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn window(&self, window: usize) -> Vec<Cell> {
        self.cells.values().filter_map(|cells| cells.get(window)).copied().collect()
    }

    /// For how many sessions it stays demoted.
    fn pause(&self) -> u32 {
        LEAST_SESSIONS << self.demotions.clamp(1, MOST_DEMOTIONS).saturating_sub(1)
    }

    /// −ln of the false alarms that one window may raise.
    fn enough(hypothesis: Hypothesis) -> f64 {
        match hypothesis {
            // The windows share the false alarms that one test may raise.
            Hypothesis::Worse => (HALF_LIVES.len() as f64 / FALSE_ALARMS).ln(),
            Hypothesis::NoWorse => (1.0 / FALSE_PARDONS).ln(),
        }
    }

    /// True if the evidence against it is enough in one of the windows.
    fn is_convicted(&self) -> bool {
        let enough = Self::enough(Hypothesis::Worse);
        let mut windows = 0..HALF_LIVES.len();
        windows.any(|n| likelihood::weigh(Hypothesis::Worse, &self.window(n), enough) >= enough)
    }

    /// True if it does what it should: for long, and of late too.
    fn is_cleared(&self) -> bool {
        let enough = Self::enough(Hypothesis::NoWorse);
        let weigh = |n, enough| likelihood::weigh(Hypothesis::NoWorse, &self.window(n), enough);
        self.sessions >= self.pause() && weigh(LONG, enough) >= enough && weigh(OF_LATE, 0.0) > 0.0
    }

    fn median_pool(&self) -> Option<u8> {
        let mut pools = self.pools.clone();
        pools.sort_unstable();
        pools.get(pools.len() / 2).copied()
    }

    fn is_sound(&self) -> bool {
        self.pools.len() <= POOLS && self.cells.values().flatten().all(Cell::is_sound)
    }
}

/// What an authority has been told of nodes' loops, condensed.
///
/// Its owner gives it each verified report with [`Reputation::report`], and calls [`Reputation::judge`] once at the
/// end of each session: that is also what lets old evidence fade, so calling it more often forgets faster. A
/// judgement goes stale with the next report. [`Reputation::encode`] gives what a restart needs.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Reputation {
    records: BTreeMap<Identity, Record>,
}

impl Reputation {
    /// A record in which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a report whose signature was checked, under the document whose epoch it names. What is not of this epoch, by
    /// no node of the list, a repetition, or names links that the document does not have, is ignored.
    pub fn report(&mut self, document: &Document, report: &Report) {
        let Some(from) = document.index_of(&report.node) else { return };
        let Some(seen) = ReportCounts::of(document, from, report) else { return };
        let Some(reporter) = document.node(from) else { return };
        let record = self.records.entry(report.node).or_insert(Record::of(reporter.standing));
        if !record.first(report.epoch, report.part) {
            return;
        }
        if report.pool > 0 {
            record.pools.push(report.pool.min(127));
            let spare = record.pools.len().saturating_sub(POOLS);
            record.pools.drain(..spare);
        }
        let voice = voice(&reporter.descriptor.body().operator);
        let mut cells: usize = self.records.values().map(|record| record.cells.len()).sum();
        for (node, own) in document.nodes.iter().zip(&seen.nodes) {
            let layer = document.layer_at(node, document.epoch);
            // Of its own layer it says nothing: all nodes of its operator are there.
            if document.layer_at(reporter, document.epoch) == layer {
                continue;
            }
            let mut rest = seen.layers.get(usize::from(layer)).copied().unwrap_or_default();
            // The others of the layer, without the node itself: else it would be held against its own losses too.
            if node.standing == Standing::Good {
                rest = (rest.0 - own.0, rest.1 - own.1);
            }
            // No loop of this reporter came near the layer: an empty cell would only take memory.
            if own.0 + rest.0 == 0 {
                continue;
            }
            let record = self.records.entry(node.identity()).or_insert(Record::of(node.standing));
            if !record.cells.contains_key(&voice) {
                if cells >= MOST_CELLS {
                    continue;
                }
                cells += 1;
            }
            // Into every window: they differ in how fast they forget, not in what they see.
            for cell in record.cells.entry(voice).or_default() {
                cell.add(own.0 as f32, own.1 as f32, rest.0 as f32, rest.1 as f32);
            }
        }
    }

    /// The end of a session: whom this authority would demote and restore. `document` is the one in force.
    ///
    /// What a bad node of another layer takes it takes from all of a layer alike, since paths are drawn without regard to
    /// operators.
    pub fn judge(&mut self, document: &Document) -> Judgement {
        self.follow(document);
        let suspects = document.nodes.iter().filter(|node| node.standing == Standing::Good);
        let convicted = suspects.map(ListedNode::identity).filter(|who| self.is_convicted(who));
        let mut demote: Vec<Identity> = convicted.collect();
        demote.sort_unstable();
        let record = |node: &ListedNode| self.records.get(&node.identity());
        let demoted = document.nodes.iter().filter(|node| node.standing == Standing::Demoted);
        let restore = demoted
            .filter(|node| record(node).is_some_and(Record::is_cleared))
            .map(ListedNode::identity)
            .collect();
        let pools = document
            .nodes
            .iter()
            .filter_map(|node| Some((node.identity(), record(node)?.median_pool()?)))
            .collect();
        self.forget();
        Judgement { demote, restore, pools }
    }

    /// The canonical bytes, for the disk.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors Bytes of another form, or counts that no counting yields.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        const WHAT: &str = "record of loops";
        let reputation: Self = decode(WHAT, bytes, MAX_LEN)?;
        if reputation.records.values().all(Record::is_sound) {
            Ok(reputation)
        } else {
            Err(Error::Invalid { what: WHAT, why: "it has counts that no counting yields".into() })
        }
    }

    fn is_convicted(&self, node: &Identity) -> bool {
        self.records.get(node).is_some_and(Record::is_convicted)
    }

    /// Nodes and operators that are not listed any more go; who was demoted or restored begins anew.
    fn follow(&mut self, document: &Document) {
        self.records.retain(|identity, _| document.index_of(identity).is_some());
        let operators = document.nodes.iter().map(|node| voice(&node.descriptor.body().operator));
        let voices: BTreeSet<OperatorId> = operators.collect();
        for node in &document.nodes {
            let record = self.records.entry(node.identity()).or_insert(Record::of(node.standing));
            record.cells.retain(|voice, _| voices.contains(voice));
            record.sessions = record.sessions.saturating_add(1);
            if record.standing != node.standing {
                record.standing = node.standing;
                record.sessions = 0;
                // Evidence that led to the last decision must not decide again: what counts is what the node did
                // since.
                record.cells.clear();
                if node.standing == Standing::Demoted {
                    record.demotions = record.demotions.saturating_add(1).min(MOST_DEMOTIONS);
                }
            }
            if record.standing == Standing::Good && record.sessions >= FORGIVEN_AFTER {
                record.demotions = record.demotions.saturating_sub(1);
                record.sessions = 0;
            }
        }
    }

    fn forget(&mut self) {
        for record in self.records.values_mut() {
            for cells in record.cells.values_mut() {
                for (cell, half_life) in cells.iter_mut().zip(HALF_LIVES) {
                    cell.scale((-1.0 / half_life).exp2());
                }
            }
            record.cells.retain(|_, cells| !cells.iter().all(Cell::is_spent));
        }
    }
}

/// What a report says, by the node at the end of each link, and by layer.
struct ReportCounts {
    /// Loops sent and lost.
    nodes: Vec<(u64, u64)>,
    /// The same of the nodes of each layer that are in good standing.
    layers: Vec<(u64, u64)>,
}

impl ReportCounts {
    /// `None` if it is of another epoch, or names a link that the document does not have.
    fn of(document: &Document, from: usize, report: &Report) -> Option<Self> {
        if report.epoch != document.epoch {
            return None;
        }
        let layer =
            |index: usize| document.node(index).map(|node| document.layer_at(node, document.epoch));
        let mut nodes = vec![(0, 0); document.nodes.len()];
        let mut layers = vec![(0, 0); 1 + usize::from(document.parameters.layers)];
        for link in &report.links {
            let (first, last) = (usize::from(link.from), usize::from(link.to));
            // Zero, where the gateways are, stands between L and 1.
            if layer(last)? != (layer(first)? + 1) % (document.parameters.layers + 1)
                || link.lost > link.sent
            {
                return None;
            }
            let node = document.node(last)?;
            // A node says nothing of itself.
            if last == from {
                continue;
            }
            let add = |count: &mut (u64, u64)| {
                *count = (count.0 + u64::from(link.sent), count.1 + u64::from(link.lost));
            };
            nodes.get_mut(last).map(add)?;
            if node.standing == Standing::Good {
                layers.get_mut(usize::from(layer(last)?)).map(add)?;
            }
        }
        Some(Self { nodes, layers })
    }
}
