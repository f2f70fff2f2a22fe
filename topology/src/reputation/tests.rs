//! A network of nodes that lose loops, drawn without packets.

use rand::RngExt;

use super::*;
use crate::reputation::report::LinkCount;
use crate::{Paths, Seed, Stream, testing};

const EPOCH: u64 = 1_000;

/// Nodes of these layers, 0 for gateways, the n-th of this operator; and the index of each.
fn document(layers: &[u8], operator: fn(usize) -> String) -> (Document, Vec<usize>) {
    let network = testing::TestNetwork::builder().placed(layers.into()).operators(operator);
    let network = network.epoch(Epoch(EPOCH)).epoch_s(10).build();
    let document = network.document();
    document.check().unwrap();
    let index = |node: &testing::TestNode| document.index_of(&node.identity()).unwrap();
    let indices = network.nodes.iter().map(index).collect();
    (document, indices)
}

const SMALL: [u8; 8] = [1, 1, 2, 2, 3, 3, 0, 0];

fn large() -> Vec<u8> {
    (0..30).map(|n| 1 + n % 3).chain([0; 6]).collect()
}

fn own(n: usize) -> String {
    format!("operator {n}")
}

/// Nodes, what they lose, and an authority.
struct Sim {
    document: Document,
    /// Index of the n-th node.
    indices: Vec<usize>,
    paths: Paths,
    /// Probability that the node at an index loses a loop.
    loss: Vec<f64>,
    /// Operators that report what they like: nothing lost but through their victim, or the other way round.
    liars: Vec<(usize, Lie)>,
    reputation: Reputation,
    rng: Stream,
    part: u16,
}

#[derive(Clone, Copy)]
enum Lie {
    /// All loops through the node at this index were lost, and no other.
    Frame(usize),
    /// None of them, and all others.
    Shield(usize),
}

impl Sim {
    fn new(layers: &[u8], seed: u64) -> Self {
        Self::of(layers, own, seed)
    }

    fn of(layers: &[u8], operator: fn(usize) -> String, seed: u64) -> Self {
        let (document, indices) = document(layers, operator);
        let paths = Paths::of_all(&document, document.epoch);
        let loss = vec![0.01; layers.len()];
        let rng = Seed::from_u64(seed).stream("loops");
        let reputation = Reputation::new();
        Self { document, indices, paths, loss, liars: Vec::new(), reputation, rng, part: 0 }
    }

    fn identity(&self, n: usize) -> Identity {
        self.document.nodes[self.indices[n]].identity()
    }

    fn set_loss(&mut self, n: usize, loss: f64) {
        let index = self.indices[n];
        self.loss[index] = loss;
    }

    fn set_standing(&mut self, n: usize, standing: Standing) {
        let index = self.indices[n];
        self.document.nodes[index].standing = standing;
    }

    /// What the node at an index counts of so many loops.
    fn count(&mut self, index: usize, loops: usize) -> Vec<LinkCount> {
        let mut links: BTreeMap<(usize, usize), (u32, u32)> = BTreeMap::new();
        for _ in 0..loops {
            let path = self.paths.draw_node_loop(&mut self.rng, index).unwrap();
            let lost = path.iter().any(|hop| self.rng.random_bool(self.loss[*hop]));
            let demoted = |hop: &usize| self.document.nodes[*hop].standing == Standing::Demoted;
            let tested = path.iter().filter(|hop| demoted(hop)).count();
            let mut from = index;
            for to in path {
                if tested == 0 || (tested == 1 && demoted(&to)) {
                    let link = links.entry((from, to)).or_default();
                    link.0 += 1;
                    link.1 += u32::from(lost);
                }
                from = to;
            }
        }
        let count =
            |((from, to), (sent, lost))| LinkCount { from: from as u16, to: to as u16, sent, lost };
        links.into_iter().map(count).collect()
    }

    fn report(&mut self, index: usize, links: Vec<LinkCount>) {
        let node = self.document.nodes[index].identity();
        let report = Report { node, epoch: self.document.epoch, part: self.part, links, pool: 5 };
        self.reputation.report(&self.document, &report);
    }

    /// A session in which every node sends so many loops.
    fn session(&mut self, loops: usize) -> Judgement {
        for index in 0..self.document.nodes.len() {
            let mut links = self.count(index, loops);
            let lie = self.liars.iter().find(|(liar, _)| self.indices[*liar] == index);
            if let Some((_, lie)) = lie {
                for link in &mut links {
                    let (victim, lost) = match lie {
                        Lie::Frame(victim) => (*victim, true),
                        Lie::Shield(victim) => (*victim, false),
                    };
                    let through = usize::from(link.to) == self.indices[victim];
                    // The more, the louder.
                    link.sent *= 1_000;
                    link.lost = if through == lost { link.sent } else { 0 };
                }
            }
            self.report(index, links);
        }
        self.part += 1;
        if self.part == PARTS {
            self.part = 0;
            self.document.epoch.0 += 1;
        }
        self.reputation.judge(&self.document)
    }

    /// Sessions until a node is to be demoted.
    fn until_demoted(&mut self, n: usize, loops: usize, most: usize) -> usize {
        for session in 1..=most {
            let judgement = self.session(loops);
            if judgement.demote.contains(&self.identity(n)) {
                assert_eq!(judgement.demote.len(), 1, "nobody else");
                return session;
            }
        }
        usize::MAX
    }
}

/// Convictions among nodes that lose 0 to 2 % each.
fn honest(layers: &[u8], epochs: usize, seed: u64) -> usize {
    let mut sim = Sim::new(layers, seed);
    for n in 0..layers.len() {
        let loss = sim.rng.random_range(0.0..0.02);
        sim.set_loss(n, loss);
    }
    (0..epochs).map(|_| sim.session(20).demote.len()).sum()
}

#[test]
fn of_honest_nodes_none_is_demoted() {
    assert_eq!(honest(&SMALL, 2_000, 1), 0);
    assert_eq!(honest(&large(), 100, 2), 0);
}

#[test]
#[ignore = "a minute"]
fn of_honest_nodes_none_is_demoted_in_ten_thousand_epochs() {
    assert_eq!(honest(&SMALL, 10_000, 3), 0);
    assert_eq!(honest(&large(), 10_000, 4), 0);
}

/// The slowest of several seeds, after so many sessions of good conduct.
fn slowest(layers: &[u8], good: usize, loss: f64, loops: usize) -> usize {
    let until = |seed| {
        let mut sim = Sim::new(layers, seed);
        (0..good).for_each(|_| assert!(sim.session(loops).demote.is_empty(), "seed {seed}"));
        sim.set_loss(0, loss);
        sim.until_demoted(0, loops, 200)
    };
    (10..15).map(until).max().unwrap()
}

/// Whatever is late counts as lost, so a node that delays by 500 ms is as one that is dead.
#[test]
fn a_node_that_is_dead_or_delays_all_is_found_in_the_first_session_of_twenty_loops_a_node() {
    for layers in [&SMALL[..], &large()] {
        for good in [0, 30] {
            assert_eq!(slowest(layers, good, 1.0, 20), 1);
        }
    }
}

#[test]
fn a_node_that_drops_a_fifth_is_found() {
    // Loops a node and session, and sessions.
    for (loops, most) in [(20, 60), (100, 12), (400, 4)] {
        for good in [0, 30] {
            let found = slowest(&SMALL, good, 0.2, loops);
            assert!(found <= most, "{loops} {good}: {found}");
        }
    }
    assert!(slowest(&large(), 20, 0.2, 100) <= 12);
}

#[test]
fn a_third_of_the_operators_cannot_expel_an_honest_node_and_half_can() {
    let demoted = |layers: &[u8], liars: std::ops::Range<usize>, sessions: usize| {
        let mut sim = Sim::new(layers, 20);
        sim.liars = liars.map(|liar| (liar, Lie::Frame(0))).collect();
        (0..sessions).any(|_| sim.session(20).demote.contains(&sim.identity(0)))
    };
    // Six operators cross a node of the small network.
    assert!(!demoted(&SMALL, 2..4, 300));
    assert!(demoted(&SMALL, 2..5, 3));
    // 26 of the large one: its layer is 0, 3, 6, and so on.
    let mut layers = large();
    layers.sort_unstable_by_key(|layer| (*layer + 3) % 4);
    assert_eq!(layers[..11], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    assert!(!demoted(&layers, 10..18, 60));
    assert!(demoted(&layers, 10..19, 3));
}

#[test]
fn a_third_of_the_operators_can_shield_a_bad_node_for_a_while_only() {
    for (loss, most) in [(1.0, 2), (0.2, 25)] {
        let mut sim = Sim::new(&SMALL, 21);
        sim.liars = vec![(2, Lie::Shield(0)), (4, Lie::Shield(0))];
        sim.set_loss(0, loss);
        let found = sim.until_demoted(0, 100, 200);
        assert!(found <= most, "{loss}: {found}");
    }
}

#[test]
fn where_all_of_a_layer_or_of_the_network_are_as_bad_nobody_is_demoted() {
    let mut sim = Sim::new(&SMALL, 30);
    (0..2).for_each(|n| sim.set_loss(n, 0.4));
    (0..200).for_each(|_| assert!(sim.session(20).demote.is_empty()));
    let mut sim = Sim::new(&SMALL, 31);
    (0..20).for_each(|_| assert!(sim.session(20).demote.is_empty()));
    for loss in [0.3, 1.0, 0.0] {
        (0..8).for_each(|n| sim.set_loss(n, loss));
        (0..50).for_each(|_| assert!(sim.session(20).demote.is_empty(), "{loss}"));
    }
}

#[test]
fn a_mix_that_is_alone_in_its_layer_is_not_demoted() {
    let mut sim = Sim::new(&[1, 2, 2, 3, 3, 0, 0], 32);
    sim.set_loss(0, 0.9);
    (0..50).for_each(|_| assert!(sim.session(50).demote.is_empty()));
}

#[test]
fn a_bad_gateway_is_found_among_gateways() {
    let mut sim = Sim::new(&SMALL, 33);
    sim.set_loss(6, 1.0);
    assert_eq!(sim.until_demoted(6, 20, 10), 1);
}

#[test]
fn two_bad_nodes_are_found_though_they_are_of_one_layer() {
    let layers = [1, 1, 1, 1, 2, 2, 3, 3, 0, 0];
    let mut sim = Sim::new(&layers, 34);
    (0..2).for_each(|n| sim.set_loss(n, 1.0));
    let mut wanted: Vec<Identity> = (0..2).map(|n| sim.identity(n)).collect();
    wanted.sort();
    let found = (1..20).find(|_| sim.session(20).demote == wanted);
    assert!(found.is_some_and(|session| session <= 4), "{found:?}");
}

#[test]
fn what_a_bad_node_takes_is_not_held_against_those_of_other_layers() {
    for loss in [1.0, 0.3] {
        let mut sim = Sim::new(&SMALL, 35);
        sim.set_loss(2, loss);
        let found = sim.until_demoted(2, 50, 100);
        assert!(found < 40, "{found}");
        (0..5).for_each(|_| assert_eq!(sim.session(50).demote, [sim.identity(2)]));
        sim.set_standing(2, Standing::Demoted);
        (0..100).for_each(|_| assert!(sim.session(50).demote.is_empty()));
        sim.set_standing(2, Standing::Good);
        sim.set_loss(2, 0.01);
        (0..50).for_each(|_| assert!(sim.session(50).demote.is_empty()));
    }
}

#[test]
fn an_operator_of_several_mixes_of_a_layer_judges_none_of_them() {
    // Nodes 0 and 1, both of layer 1, are of one operator: what it says of them does not count.
    let operator = |n: usize| own(if n == 1 { 0 } else { n });
    let mut sim = Sim::of(&[1, 1, 1, 2, 2, 3, 3, 0, 0], operator, 36);
    sim.liars = vec![(0, Lie::Frame(1)), (1, Lie::Frame(0))];
    sim.set_loss(0, 1.0);
    assert!(sim.until_demoted(0, 50, 20) <= 4);
    let voice = voice(&own(0));
    let record = |n: usize| &sim.reputation.records[&sim.identity(n)];
    assert!((0..3).all(|n| !record(n).cells.contains_key(&voice)));
    assert!((3..9).all(|n| record(n).cells.contains_key(&voice)));
}

#[test]
fn who_behaves_again_is_restored_after_a_while_that_doubles() {
    let mut sim = Sim::new(&SMALL, 40);
    for pause in [8, 16, 32] {
        sim.set_loss(0, 1.0);
        assert!(sim.until_demoted(0, 60, 5) <= 2);
        sim.set_standing(0, Standing::Demoted);
        sim.set_loss(0, 0.01);
        let restored = (0..300).find(|_| sim.session(60).restore == [sim.identity(0)]);
        assert!(
            restored.is_some_and(|session| (pause..pause + 20).contains(&session)),
            "{restored:?}"
        );
        sim.set_standing(0, Standing::Good);
        (0..20).for_each(|_| assert!(sim.session(60).demote.is_empty()));
    }
}

#[test]
fn who_still_loses_more_than_the_others_stays_demoted() {
    for loss in [1.0, 0.12] {
        let mut sim = Sim::new(&SMALL, 41);
        sim.set_standing(0, Standing::Demoted);
        sim.set_loss(0, loss);
        (0..100).for_each(|_| assert_eq!(sim.session(60).restore, [], "{loss}"));
        // Liars do not restore it either.
        sim.liars = vec![(2, Lie::Shield(0)), (4, Lie::Shield(0))];
        (0..100).for_each(|_| assert_eq!(sim.session(60).restore, [], "{loss}"));
    }
}

/// A report of node 2 on a loop through all layers, lost.
fn lost(sim: &Sim, sent: u32) -> Vec<LinkCount> {
    let link = |from: usize, to: usize| LinkCount {
        from: sim.indices[from] as u16,
        to: sim.indices[to] as u16,
        sent,
        lost: sent,
    };
    vec![link(2, 4), link(4, 6), link(6, 0), link(0, 2)]
}

#[test]
fn a_report_counts_once_and_only_where_it_belongs() {
    let mut sim = Sim::new(&SMALL, 50);
    let node = sim.identity(2);
    let report = |part, links| Report { node, epoch: Epoch(EPOCH), part, links, pool: 7 };
    let sound = report(0, lost(&sim, 9));
    sim.reputation.report(&sim.document, &sound);
    let once = sim.reputation.clone();
    assert_ne!(once, Reputation::new());
    sim.reputation.report(&sim.document, &sound);
    assert_eq!(sim.reputation, once);
    sim.reputation.report(&sim.document, &report(PARTS, lost(&sim, 9)));
    let earlier = Report { epoch: Epoch(EPOCH - 1), ..report(1, lost(&sim, 9)) };
    sim.reputation.report(&sim.document, &earlier);
    let foreign = Report { node: Identity([1; 32]), ..report(1, lost(&sim, 9)) };
    sim.reputation.report(&sim.document, &foreign);
    // Links that are none.
    for (from, to) in [(2, 6), (2, 2), (2, 3), (2, 900), (900, 2)] {
        let mut links = lost(&sim, 9);
        let index = |n: usize| sim.indices.get(n).copied().unwrap_or(n) as u16;
        links.push(LinkCount { from: index(from), to: index(to), sent: 1, lost: 1 });
        sim.reputation.report(&sim.document, &report(1, links));
    }
    assert_eq!(sim.reputation, once);
    // Another part of it.
    sim.reputation.report(&sim.document, &report(1, lost(&sim, 9)));
    assert_ne!(sim.reputation, once);
    // Nothing of itself, nor of its layer.
    let records = &sim.reputation.records;
    assert!(records[&sim.identity(2)].cells.is_empty() && !records.contains_key(&sim.identity(3)));
    assert_eq!(records[&sim.identity(0)].cells.len(), 1);
}

#[test]
fn the_pool_of_a_node_is_the_median_of_its_latest_reports() {
    let mut sim = Sim::new(&SMALL, 51);
    let node = sim.identity(0);
    for (part, pool) in [200, 200, 9, 8, 0, 8, 8, 1, 255, 8, 8, 9, 0].into_iter().enumerate() {
        let report = Report { node, epoch: Epoch(EPOCH), part: part as u16, links: vec![], pool };
        sim.reputation.report(&sim.document, &report);
    }
    assert_eq!(sim.reputation.judge(&sim.document).pools, [(node, 8)]);
}

#[test]
fn what_is_known_survives_on_disk_and_nothing_else_is_read() {
    let mut sim = Sim::new(&SMALL, 52);
    sim.set_loss(0, 0.3);
    (0..3).for_each(|_| drop(sim.session(20)));
    let bytes = sim.reputation.encode();
    assert_eq!(Reputation::decode(&bytes).unwrap(), sim.reputation);
    assert!(Reputation::decode(&bytes[..bytes.len() - 1]).is_err());
    let record = sim.reputation.records.values().find(|record| !record.cells.is_empty());
    let cells = record.unwrap().cells.values().next().unwrap();
    let sound = cells[0];
    let broken = [f32::NAN, -1.0, f32::INFINITY, 1e9].map(|lost| Cell { lost, ..sound });
    for cell in broken {
        let mut reputation = sim.reputation.clone();
        let record = reputation.records.values_mut().find(|record| !record.cells.is_empty());
        record.unwrap().cells.values_mut().next().unwrap()[0] = cell;
        assert!(Reputation::decode(&reputation.encode()).is_err(), "{cell:?}");
    }
}

#[test]
fn nodes_and_operators_that_are_listed_no_more_are_forgotten() {
    let mut sim = Sim::new(&SMALL, 53);
    (0..3).for_each(|_| drop(sim.session(20)));
    let gone = sim.document.nodes.remove(0);
    sim.reputation.judge(&sim.document);
    assert!(!sim.reputation.records.contains_key(&gone.identity()));
    let voice = voice(&gone.descriptor.body().operator);
    assert!(sim.reputation.records.values().all(|record| !record.cells.contains_key(&voice)));
    sim.document.nodes.clear();
    assert_eq!(sim.reputation.judge(&sim.document), Judgement::default());
    assert_eq!(sim.reputation, Reputation::new());
}
