//! Authorities in virtual time, on links that delay, lose and lie.

mod heads;
mod hostile;
mod margins;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::testing::{self, assert_at_rest};
use crate::{Context, ListedNode, Role, SignedDocument, Standing};

const EPOCH_S: u32 = 10;
const START: u64 = 1_000 * EPOCH_S as u64;
/// Tests count epochs from here.
const FIRST: u64 = 60_000;

fn epoch(n: u64) -> Epoch {
    Epoch(FIRST + n)
}

fn session(n: u64, index: u32) -> SessionId {
    SessionId { epoch: epoch(n), index }
}

/// Made once: each costs a multiplication, and words come by the thousand.
static AUTHORITIES: LazyLock<Vec<SecretIdentity>> =
    LazyLock::new(|| (200..=255).map(|n| SecretIdentity::from_bytes(&[n; 32])).collect());

fn authority(n: usize) -> SecretIdentity {
    AUTHORITIES[n].clone()
}

fn node_secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n + 1; 32])
}

fn node(n: u8, signed_at: u64) -> Signed<NodeDescriptor> {
    node_of(n, n, signed_at)
}

/// The n-th node, of the operator of another.
fn node_of(n: u8, operator: u8, signed_at: u64) -> Signed<NodeDescriptor> {
    let mut node = testing::TestNode::new([n + 1; 32], u8::from(n > 1));
    (node.body.operator, node.body.signed_at) = (format!("operator {operator}"), signed_at);
    node.sign()
}

/// Whom the judges of all authorities accuse and restore.
type Accused = Arc<Mutex<BTreeMap<usize, Judgement>>>;

struct Told(usize, Accused);

impl Judge for Told {
    fn report(&mut self, _: &Document, _: &Report) {}
    fn judge(&mut self, _: &Document) -> Judgement {
        self.1.lock().unwrap().get(&self.0).cloned().unwrap_or_default()
    }
    fn evidence(&self) -> Option<Vec<u8>> {
        Some(vec![self.0 as u8])
    }
}

/// What happens to a message, from, to, at: when it arrives, in milliseconds.
type Fate = Box<dyn FnMut(usize, usize, u64, &[u8]) -> Option<u64>>;
/// What an authority that lies sends in place of what it would; from, to.
type Twist = Box<dyn FnMut(usize, usize, Vec<u8>) -> Option<Vec<u8>>>;

struct World {
    now: u64,
    n: usize,
    authorities: Vec<Option<Authority>>,
    /// What each has on its disk.
    disks: Vec<Option<Vec<u8>>>,
    offsets: Vec<i64>,
    under_way: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    fate: Fate,
    twist: Twist,
    accused: Accused,
    /// Documents that each published, and what each reported.
    documents: Vec<Vec<Arc<Document>>>,
    events: Vec<Vec<Event>>,
    liars: Vec<BTreeSet<Identity>>,
    /// How often each gave what reports showed.
    evidence: Vec<usize>,
    nodes: u8,
    /// Who says in its network file that the network is for trial.
    trial: BTreeSet<usize>,
    /// Parameters that hold from an epoch on.
    next: Option<(Epoch, Parameters)>,
    /// Nodes that have keys up to an epoch, and none beyond.
    lost: BTreeMap<u8, Epoch>,
    /// The least number of mixes in a layer.
    least: u16,
}

impl World {
    fn new(n: usize) -> Self {
        let mut world = Self {
            now: START,
            n,
            authorities: Vec::new(),
            disks: vec![None; n],
            offsets: vec![0; n],
            under_way: BTreeMap::new(),
            sent: 0,
            fate: Box::new(|_, _, now, _| Some(now + 20)),
            twist: Box::new(|_, _, bytes| Some(bytes)),
            accused: Accused::default(),
            documents: vec![Vec::new(); n],
            events: vec![Vec::new(); n],
            liars: vec![BTreeSet::new(); n],
            evidence: vec![0; n],
            nodes: 8,
            trial: BTreeSet::new(),
            next: None,
            lost: BTreeMap::new(),
            least: 1,
        };
        world.authorities = (0..n).map(|_| None).collect();
        (0..n).for_each(|n| world.start(n));
        world
    }

    fn network(&self) -> Network {
        let authorities = (0..self.n).map(|n| authority(n).identity()).collect();
        Network { name: "test".into(), authorities, epoch_s: EPOCH_S, trial: false }
    }

    fn start(&mut self, n: usize) {
        let (draw_every, min_mixes_per_layer) = (6, self.least);
        let parameters = Parameters { draw_every, min_mixes_per_layer, ..Parameters::default() };
        let settings = AuthoritySettings {
            network: Network { trial: self.trial.contains(&n), ..self.network() },
            secret: authority(n),
            epoch_s: EPOCH_S,
            parameters: std::iter::once((Epoch(0), parameters)).chain(self.next.clone()).collect(),
            allowed: (0..20).map(|n| node(n, 0).body().identity).collect(),
            allowed_exits: Vec::new(),
            allowed_organisations: vec![(heads::organisation().identity(), "acme".into())],
            seed: Seed::from_u64(self.now * 10 + n as u64),
        };
        let state = self.disks[n].as_ref().map(|bytes| State::decode(bytes).unwrap());
        let judge = Told(n, self.accused.clone());
        self.authorities[n] = Some(Authority::new(settings, Box::new(judge), state));
        self.handle(n, AuthorityInput::Wake);
        for number in 0..self.nodes {
            let mut said = node(number, 1);
            if let Some(last) = self.lost.get(&number) {
                let mut body = said.body().clone();
                body.keys.iter_mut().for_each(|key| key.last = *last);
                said = Signed::<NodeDescriptor>::new(body, &node_secret(number));
            }
            self.handle(n, AuthorityInput::Descriptor(said.encode()));
        }
    }

    fn kill(&mut self, n: usize) {
        self.authorities[n] = None;
    }

    fn clock(&self, n: usize) -> u64 {
        (FIRST * START + self.now).saturating_add_signed(self.offsets[n])
    }

    fn handle(&mut self, n: usize, input: AuthorityInput) {
        let clock = self.clock(n);
        let Some(authority) = &mut self.authorities[n] else { return };
        authority.handle(clock, input);
        let mut stored = Vec::new();
        while let Some(output) = self.authorities[n].as_mut().unwrap().poll_output() {
            match output {
                AuthorityOutput::Send { to, bytes } => {
                    let to = (0..self.n).find(|n| self::authority(*n).identity() == to).unwrap();
                    let Some(bytes) = (self.twist)(n, to, bytes) else { continue };
                    if let Some(at) = (self.fate)(n, to, self.now, &bytes) {
                        self.sent += 1;
                        self.under_way.insert((at, self.sent), (n, to, bytes));
                    }
                }
                AuthorityOutput::Store { ticket, state } => {
                    self.disks[n] = Some(state);
                    stored.push(ticket);
                }
                AuthorityOutput::Evidence(evidence) => {
                    assert_eq!(evidence, [n as u8]);
                    self.evidence[n] += 1;
                }
                AuthorityOutput::Document(held) => self.documents[n].push(held.document),
                AuthorityOutput::Liar { authority, proof } => {
                    let again = Proof::decode(&proof.encode()).unwrap();
                    assert_eq!(again.verify(&self.network()).unwrap(), authority);
                    self.liars[n].insert(authority);
                }
                AuthorityOutput::Event(event) => self.events[n].push(event),
            }
        }
        for ticket in stored {
            self.handle(n, AuthorityInput::Stored(ticket));
        }
        if let Some(authority) = &mut self.authorities[n]
            && authority.next_wake().is_none_or(|at| at > clock)
        {
            assert_at_rest(authority, clock);
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let wake = |n: usize| {
                let wake = self.authorities[n].as_ref()?.next_wake()?;
                let at = wake.saturating_add_signed(-self.offsets[n]).saturating_sub(FIRST * START);
                Some((at.max(self.now), n))
            };
            let wake = (0..self.n).filter_map(wake).min();
            let message = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = wake.map(|(at, _)| at).into_iter().chain(message).min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if message.is_some_and(|at| at <= next) {
                let (_, (from, to, bytes)) = self.under_way.pop_first().unwrap();
                let from = authority(from).identity();
                self.handle(to, AuthorityInput::Message { from, bytes });
            } else if let Some((_, n)) = wake {
                self.handle(n, AuthorityInput::Wake);
            }
        }
        self.now = end;
    }

    /// The document of an epoch at an authority.
    fn document(&self, n: usize, epoch: u64) -> Option<Arc<Document>> {
        let of = |d: &&Arc<Document>| d.epoch == self::epoch(epoch);
        self.documents[n].iter().filter(of).max_by_key(|d| d.amendment).cloned()
    }

    /// Nobody may ever see two documents of one epoch and amendment.
    fn check_safety(&self) {
        let mut seen: BTreeMap<(Epoch, u16), Arc<Document>> = BTreeMap::new();
        for document in self.documents.iter().flatten() {
            let key = (document.epoch, document.amendment);
            let first = seen.entry(key).or_insert_with(|| document.clone());
            assert_eq!(first, document, "two documents of {key:?}");
        }
        let contradiction = |event: &Event| matches!(event, Event::Contradiction(_));
        assert!(!self.events.iter().flatten().any(contradiction));
    }

    /// That these authorities have the documents of these epochs, all the same.
    fn check_documents(&self, who: &[usize], epochs: impl IntoIterator<Item = u64>) {
        self.check_safety();
        for epoch in epochs {
            let first = self.document(who[0], epoch);
            assert!(first.is_some(), "no document of {epoch}: {:?}", self.events[who[0]]);
            for n in who {
                assert_eq!(self.document(*n, epoch), first, "{n}, epoch {epoch}");
            }
        }
    }
}

#[test]
fn honest_authorities_make_one_document_for_each_epoch() {
    for n in [1, 2, 4, 7] {
        let mut world = World::new(n);
        world.run(100_000);
        world.check_documents(&(0..n).collect::<Vec<_>>(), 2..11);
        let document = world.document(0, 5).unwrap();
        assert_eq!(document.nodes.len(), 8);
        assert!(
            world.events.iter().flatten().all(|event| !event.is_trouble()),
            "{:?}",
            world.events
        );
    }
}

#[test]
fn layers_are_drawn_every_so_many_epochs_listed_two_ahead_and_balanced() {
    let mut world = World::new(4);
    world.run(45_000);
    // The operator of mix 2 brings six more, so that its layer has eight and the others two.
    for n in 0..4 {
        (8..14).for_each(|number| {
            world.handle(n, AuthorityInput::Descriptor(node_of(number, 2, 1).encode()));
        });
    }
    world.run(355_000);
    world.check_documents(&[0, 1, 2, 3], 2..41);
    let layers = |epoch: u64, at: usize| -> BTreeMap<Identity, u8> {
        let document = world.document(0, epoch).unwrap();
        document.nodes.iter().map(|node| (node.identity(), node.layers[at])).collect()
    };
    let mut changes = Vec::new();
    for epoch in 7..40 {
        // What was listed ahead came.
        assert_eq!(layers(epoch, 1), layers(epoch + 1, 0), "{epoch}");
        assert_eq!(layers(epoch, 2), layers(epoch + 1, 1), "{epoch}");
        let (now, next) = (layers(epoch, 0), layers(epoch + 1, 0));
        let moved = now.iter().filter(|(node, layer)| next[*node] != **layer).count();
        if moved > 0 {
            assert!((epoch + 1) % 6 == 0, "{epoch}");
            changes.push((epoch + 1, moved));
        }
    }
    // One moves to a smaller layer, in the first draw that is listed two ahead. No other draw brings balance nearer.
    assert_eq!(changes, [(12, 1)]);
    let of = |n: u8| layers(40, 0)[&node(n, 0).body().identity];
    assert!((8..14).all(|n| of(n) == of(2)), "a mix of a known operator goes to its layer");
    let size = |layer| layers(40, 0).values().filter(|l| **l == layer).count();
    let mut sizes = [1, 2, 3].map(size);
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 3, 7]);
    // Every draw had the value of all four, each having revealed what it had promised.
    let values: BTreeSet<[u8; 32]> =
        (2..40).map(|epoch| world.document(0, epoch).unwrap().draw.value).collect();
    assert_eq!(values.len(), 7);
    let commitments = |epoch| world.document(0, epoch).unwrap().draw.commitments.clone();
    assert!((2..40).all(|epoch| commitments(epoch).len() == 4));
    assert_ne!(commitments(5), commitments(11));
}

#[test]
fn a_mix_that_takes_too_little_is_listed_when_it_declares_enough_and_it_is_said_why() {
    let mut world = World::new(4);
    world.run(22_000);
    let declares = |packets_per_s, signed_at| {
        let body = NodeDescriptor { packets_per_s, ..node(8, signed_at).body().clone() };
        Signed::<NodeDescriptor>::new(body, &node_secret(8)).encode()
    };
    let slow = node(8, 1).body().identity;
    let is_listed =
        |world: &World, epoch| world.document(0, epoch).unwrap().index_of(&slow).is_some();
    (0..4).for_each(|n| world.handle(n, AuthorityInput::Descriptor(declares(99, 1))));
    world.run(10_000);
    assert!(!is_listed(&world, 4));
    let left_out = world.authorities[0].as_ref().unwrap().status().left_out;
    let why = "it declares 99 packets a second, and a mix must take 100";
    assert!(left_out.iter().any(|(who, said)| *who == slow.to_string() && said.contains(why)));
    (0..4).for_each(|n| world.handle(n, AuthorityInput::Descriptor(declares(100, 2))));
    world.run(10_000);
    assert!(is_listed(&world, 5));
}

#[test]
fn a_mix_whose_operator_runs_a_gateway_is_not_listed_and_it_is_said() {
    let mut world = World::new(4);
    world.run(22_000);
    // A mix of the operator of gateway 0, and a gateway of the operator of mix 5.
    let as_gateway = |n: u8, operator: u8| {
        let mut body = node_of(n, operator, 1).body().clone();
        body.role = Role::Gateway;
        Signed::<NodeDescriptor>::new(body, &node_secret(n))
    };
    for n in 0..4 {
        world.handle(n, AuthorityInput::Descriptor(node_of(8, 0, 1).encode()));
        world.handle(n, AuthorityInput::Descriptor(as_gateway(9, 5).encode()));
        // And a mix that would now be of another operator: it is left out once.
        world.handle(n, AuthorityInput::Descriptor(node_of(4, 3, 9).encode()));
    }
    world.run(10_000);
    let names = |world: &World, epoch| -> BTreeSet<Identity> {
        world.document(0, epoch).unwrap().nodes.iter().map(ListedNode::identity).collect()
    };
    let id = |n: u8| node(n, 0).body().identity;
    let listed: BTreeSet<Identity> = (0..8).filter(|n| *n != 4).map(id).collect();
    assert_eq!(names(&world, 4), listed);
    let status = world.authorities[0].as_ref().unwrap().status();
    let said = |n: u8, words: &str| {
        status.left_out.iter().any(|(who, why)| *who == id(n).to_string() && why.contains(words))
    };
    assert!(said(8, "operator \"operator 0\" runs a gateway"), "{:?}", status.left_out);
    assert!(said(9, "operator \"operator 5\" runs mixes"), "{:?}", status.left_out);
    assert!(said(4, "changed its role, operator or jurisdiction"), "{:?}", status.left_out);
    world.run(10_000);
    assert_eq!(names(&world, 5), (0..8).map(id).collect());
    let document = world.document(0, 5).unwrap();
    let layer = |n: u8| document.nodes[document.index_of(&id(n)).unwrap()].layers[0];
    assert_eq!(layer(4), layer(3), "it is with its operator now");
    let times = |n: usize| {
        let left_out = |event: &&Event| matches!(event, Event::LeftOut(_));
        world.events[n].iter().filter(left_out).count()
    };
    assert_eq!(times(0), 2, "it is said when it changes");
}

#[test]
fn a_network_is_for_trial_if_most_authorities_say_so_and_one_alone_changes_nothing() {
    for (trial, is_trial) in [(vec![0, 1, 2, 3], true), (vec![3], false)] {
        let mut world = World::new(4);
        world.trial = trial.into_iter().collect();
        (0..4).for_each(|n| {
            world.kill(n);
            world.start(n);
        });
        world.run(40_000);
        world.check_documents(&[0, 1, 2], 2..5);
        assert_eq!(world.document(0, 4).unwrap().is_trial(), is_trial);
        assert_eq!(world.document(3, 4).is_some(), is_trial, "it takes no document of the others");
    }
}

#[test]
fn parameters_change_in_the_document_of_the_epoch_that_was_named_whenever_each_was_told() {
    let mut world = World::new(4);
    world.run(22_000);
    let next = Parameters {
        draw_every: 6,
        min_mixes_per_layer: 1,
        warn_bits: 9.0,
        ..Parameters::default()
    };
    world.next = Some((epoch(8), next));
    // They are told one after the other, each by a new start, in epochs 2 to 5.
    for n in 0..4 {
        world.kill(n);
        world.start(n);
        world.run(10_000);
    }
    world.run(60_000);
    world.check_documents(&[0, 1, 2, 3], 2..11);
    for epoch in 2..11 {
        let bits = world.document(0, epoch).unwrap().parameters.warn_bits;
        assert_eq!(bits, if epoch < 8 { 6.0 } else { 9.0 }, "{epoch}");
    }
    let differ = |event: &Event| matches!(event, Event::Fault(_, Fault::Parameters));
    assert!(!world.events.iter().flatten().any(differ));
}

#[test]
fn one_that_is_down_is_missed_by_nobody_and_comes_back() {
    let mut world = World::new(4);
    world.run(20_000);
    world.kill(2);
    world.run(40_000);
    world.check_documents(&[0, 1, 3], 2..7);
    let missed = Event::Uncounted(vec![authority(2).identity()]);
    let uncounted = |world: &World, n: usize| {
        world.authorities[n].as_ref().map(|authority| authority.status().uncounted.len())
    };
    for n in [0, 1, 3] {
        let times = world.events[n].iter().filter(|event| **event == missed).count();
        assert_eq!((times, uncounted(&world, n)), (1, Some(1)), "it is said once");
    }
    world.start(2);
    world.run(40_000);
    world.check_documents(&[0, 1, 2, 3], 7..11);
    for n in [0, 1, 3] {
        assert_eq!(
            (world.events[n].contains(&Event::AllCounted), uncounted(&world, n)),
            (true, Some(0))
        );
    }
}

#[test]
fn one_that_starts_again_is_not_troubled_by_documents_that_are_over() {
    let mut world = World::new(4);
    world.run(20_000);
    let held = |world: &World, n: usize| -> Vec<Vec<u8>> {
        let documents = world.authorities[n].as_ref().unwrap().documents();
        documents.iter().map(|held| held.signed.to_vec()).collect()
    };
    let old = held(&world, 0);
    assert!(!old.is_empty());
    world.run(60_000);
    world.kill(2);
    world.events[2].clear();
    world.start(2);
    for document in old.into_iter().chain(held(&world, 0)) {
        world.handle(2, AuthorityInput::Document(document));
    }
    world.run(100);
    let events = &world.events[2];
    assert!(!events.iter().any(Event::is_trouble), "{events:?}");
    let said: Vec<String> = events.iter().map(Event::to_string).collect();
    assert!(said.iter().any(|line| line.ends_with("stands, as the others made it")), "{said:?}");
}

#[test]
fn a_node_that_is_taken_off_the_lists_while_they_run_is_in_no_further_document() {
    let mut world = World::new(4);
    world.run(20_000);
    let allowed = (0..20).filter(|n| *n != 3).map(|n| node(n, 0).body().identity);
    let allowed: Vec<Identity> = allowed.collect();
    for authority in world.authorities.iter_mut().flatten() {
        let parameters = authority.settings.parameters.clone();
        authority.configure(allowed.clone(), Vec::new(), Vec::new(), parameters);
    }
    world.run(30_000);
    let gone = node(3, 0).body().identity;
    let lists = |world: &World, epoch| world.document(0, epoch).unwrap().index_of(&gone).is_some();
    assert!(lists(&world, 2) && !lists(&world, 5));
    world.check_documents(&[0, 1, 2, 3], 2..6);
}

#[test]
fn what_reports_showed_is_given_once_an_epoch_to_be_kept() {
    let mut world = World::new(4);
    world.run(100_500);
    assert_eq!(world.evidence, [10; 4]);
}

#[test]
fn one_that_is_slow_is_left_behind_and_still_gets_the_documents() {
    let mut world = World::new(4);
    world.fate =
        Box::new(|from, to, now, _| Some(now + if from == 3 || to == 3 { 2_600 } else { 20 }));
    world.run(100_000);
    world.check_documents(&[0, 1, 2], 2..11);
    assert!((2..9).all(|epoch| world.document(3, epoch) == world.document(0, epoch)));
}

#[test]
fn a_clock_that_is_off_by_minutes_is_noticed_and_harms_nobody_else() {
    for offset in [-180_000, 180_000, 7_000] {
        let mut world = World::new(4);
        world.run(25_000);
        world.offsets[1] = offset;
        world.run(100_000);
        world.check_documents(&[0, 2, 3], 2..13);
        let suspects = |event: &Event| matches!(event, Event::Clock(_));
        assert!(world.events[1].iter().any(suspects), "{offset}: {:?}", world.events[1]);
        for n in [0, 2, 3] {
            assert!(!world.events[n].iter().any(suspects), "{offset}, {n}");
        }
    }
}

#[test]
fn clocks_that_are_a_quarter_of_a_round_apart_do_no_harm() {
    let mut world = World::new(4);
    world.offsets = vec![0, 250, 125, 250];
    world.fate = Box::new(|from, to, now, _| Some(now + 20 + 400 * ((from + to) as u64 % 2)));
    world.run(100_000);
    world.check_documents(&[0, 1, 2, 3], 3..11);
    assert!(world.events.iter().flatten().all(|event| !event.is_trouble()), "{:?}", world.events);
}

/// Votes of a liar: each goes to those that `to` says, in place of its own.
fn forge(
    world: &World,
    n: usize,
    session: SessionId,
    mut change: impl FnMut(&mut Vote),
) -> PeerMessage {
    let liar = world.authorities[n].as_ref().unwrap();
    let ballot = liar.ballots.get(&session).unwrap();
    let (mut vote, _) = ballot.votes[&authority(n).identity()][0].clone();
    change(&mut vote);
    PeerMessage::Vote(SignedVote::of(&vote, &authority(n)))
}

#[test]
fn one_that_votes_differently_to_different_peers_is_proven_to_lie_and_counts_for_nothing() {
    let mut world = World::new(4);
    // A session has just begun; another vote goes to authority 2 alone.
    world.run(25_100);
    let word = forge(&world, 3, session(3, 1), |vote| {
        vote.proposal.as_mut().unwrap().nodes.pop();
    });
    let from = authority(3).identity();
    world.handle(2, AuthorityInput::Message { from, bytes: word.encode() });
    world.run(60_000);
    world.check_documents(&[0, 1, 2], 2..10);
    for n in 0..3 {
        assert_eq!(world.liars[n], BTreeSet::from([from]), "{n}");
    }
    let votes = world.events[0].iter().find_map(|event| match event {
        Event::Certified { epoch: of, votes, .. } if *of == epoch(4) => Some(*votes),
        _ => None,
    });
    assert_eq!(votes, Some((3, 4)));
}

#[test]
fn a_descriptor_that_an_authority_made_up_counts_for_nothing() {
    let mut world = World::new(4);
    world.run(25_001);
    // One authority says that a node has another address since, and lists a node of its own.
    let word = forge(&world, 3, session(3, 1), |vote| {
        let proposal = vote.proposal.as_mut().unwrap();
        let mut body = proposal.nodes[0].body().clone();
        (body.signed_at, body.operator) = (99, "somebody else".into());
        proposal.nodes[0] = Signed::<NodeDescriptor>::new(body, &authority(3));
        proposal.nodes.insert(0, node(12, 5));
    });
    // Its own vote is lost on the way, this one takes its place.
    world.under_way.retain(|_, (from, ..)| *from != 3);
    for n in 0..3 {
        let from = authority(3).identity();
        world.handle(n, AuthorityInput::Message { from, bytes: word.encode() });
    }
    world.run(10_000);
    world.check_documents(&[0, 1, 2], 2..5);
    assert!((0..3).all(|n| world.liars[n].contains(&authority(3).identity())), "it is proven");
    let document = world.document(0, 4).unwrap();
    assert_eq!(document.nodes.len(), 8);
    assert!(document.nodes.iter().all(|node| node.descriptor.body().operator != "somebody else"));
}

#[test]
fn a_vote_that_comes_to_one_at_the_last_moment_counts_at_all_or_none() {
    // A rushing liar gives its second vote to one honest authority at any moment of the session.
    for after in (0..3_000).step_by(230) {
        let mut world = World::new(4);
        world.run(25_010);
        let word = forge(&world, 3, session(3, 1), |vote| {
            vote.proposal.as_mut().unwrap().nodes.pop();
        });
        world.run(after);
        let from = authority(3).identity();
        world.handle(1, AuthorityInput::Message { from, bytes: word.encode() });
        world.run(30_000);
        world.check_documents(&[0, 1, 2], 2..7);
    }
}

#[test]
fn split_in_two_halves_they_make_nothing_and_afterwards_go_on() {
    let mut world = World::new(4);
    world.run(35_000);
    world.fate = Box::new(|from, to, now, _| (from / 2 == to / 2).then_some(now + 20));
    world.run(20_000);
    world.check_safety();
    let epochs: Vec<u64> = world.documents[0].iter().map(|d| d.epoch.0 - FIRST).collect();
    assert_eq!(epochs, [2, 3, 4]);
    let few = |event: &Event| {
        matches!(event, Event::None { why: NoDocument::TooFewVotes { votes: 2, .. }, .. })
    };
    assert!(world.events[0].iter().any(few), "{:?}", world.events[0]);
    world.fate = Box::new(|_, _, now, _| Some(now + 20));
    world.run(50_000);
    world.check_documents(&[0, 1, 2, 3], 7..11);
    // What was listed ahead holds, although two documents are missing.
    let (before, after) = (world.document(0, 4).unwrap(), world.document(0, 7).unwrap());
    let last: Vec<u8> = before.nodes.iter().map(|node| node.layers[2]).collect();
    assert!(after.nodes.iter().zip(last).all(|(node, layer)| node.layers[0] == layer));
}

#[test]
fn whoever_starts_again_in_any_moment_of_a_session_never_signs_two_bodies() {
    for after in (0..5_000).step_by(410) {
        let mut world = World::new(4);
        world.run(35_000 + after);
        world.kill(1);
        world.start(1);
        // The votes of the rest are others now.
        world.accused.lock().unwrap().insert(
            0,
            Judgement { demote: vec![node(3, 0).body().identity], ..Judgement::default() },
        );
        world.run(40_000);
        world.check_documents(&[0, 1, 2, 3], 6..9);
    }
}

#[test]
fn a_body_is_signed_once_for_each_epoch_and_amendment() {
    let mut state = State::default();
    assert!(state.may_sign(Epoch(5), 0, [1; 32]));
    let mut state = State::decode(&state.encode()).unwrap();
    assert!(state.may_sign(Epoch(5), 0, [1; 32]), "the same again");
    assert!(!state.may_sign(Epoch(5), 0, [2; 32]));
    assert!(state.may_sign(Epoch(5), 1, [2; 32]));
    for epoch in 6..10_000 {
        assert!(state.may_sign(Epoch(epoch), 0, [3; 32]));
        assert!(state.signed_count() <= 4_096);
    }
    assert!(!state.may_sign(Epoch(5), 0, [2; 32]), "forgotten is not unsigned");
}

#[test]
fn a_node_that_most_accuse_is_demoted_at_once_by_an_amendment_and_stays_so_until_restored() {
    let mut world = World::new(4);
    world.run(22_000);
    let bad = node(5, 0).body().identity;
    let judge =
        |world: &mut World, who: &[usize], demote: Vec<Identity>, restore: Vec<Identity>| {
            let judgement = Judgement { demote, restore, pools: Vec::new() };
            let mut accused = world.accused.lock().unwrap();
            accused.clear();
            who.iter().for_each(|n| _ = accused.insert(*n, judgement.clone()));
        };
    let standing = |world: &World, epoch| {
        let document = world.document(0, epoch).unwrap();
        let index = document.index_of(&bad).unwrap();
        (document.amendment, document.nodes[index].standing)
    };
    // Accused by two of four: nothing happens.
    judge(&mut world, &[0, 1], vec![bad], vec![]);
    world.run(20_000);
    assert_eq!(standing(&world, 4), (0, Standing::Good));
    // By three: in the first session of the next epoch.
    judge(&mut world, &[0, 1, 3], vec![bad], vec![]);
    world.run(13_000);
    assert_eq!(standing(&world, 6), (0, Standing::Demoted), "{:?}", world.events[0]);
    judge(&mut world, &[], vec![], vec![]);
    world.run(20_000);
    assert_eq!(standing(&world, 7), (0, Standing::Demoted));
    judge(&mut world, &[0, 1, 2, 3], vec![], vec![bad]);
    world.run(20_000);
    assert_eq!(standing(&world, 10), (0, Standing::Good));
    world.check_documents(&[0, 1, 2, 3], 2..9);
    // Now just after a main session, so that the next one amends.
    judge(&mut world, &[1, 2, 3], vec![bad], vec![]);
    world.run(10_000);
    let amended = (10..13).filter_map(|e| world.document(2, e)).find(|d| d.amendment == 1).unwrap();
    assert_eq!(amended.nodes[amended.index_of(&bad).unwrap()].standing, Standing::Demoted);
}

#[test]
fn so_many_that_paths_would_break_are_not_demoted() {
    let mut world = World::new(4);
    world.run(22_000);
    let all: Vec<Identity> = (0..8).map(|n| node(n, 0).body().identity).collect();
    for n in 0..4 {
        let judgement = Judgement { demote: all.clone(), ..Judgement::default() };
        world.accused.lock().unwrap().insert(n, judgement);
    }
    world.run(60_000);
    world.check_documents(&[0, 1, 2, 3], 2..8);
    let document = world.document(0, 7).unwrap();
    document.check().unwrap();
    assert!((1..=3).all(|layer| document.in_layer(layer).count() >= 1));
    assert!(document.nodes.iter().any(|node| node.standing == Standing::Demoted));
}

#[test]
fn a_mix_that_joins_is_listed_in_the_next_document_and_later_descriptors_hold() {
    let mut world = World::new(4);
    world.run(22_000);
    let newcomer = node(9, 1);
    for n in 0..4 {
        world.handle(n, AuthorityInput::Descriptor(newcomer.encode()));
        // Two authorities have heard a later word of one, one alone of another: it might have made that up to choose.
        if n >= 2 {
            world.handle(n, AuthorityInput::Descriptor(node(4, 7).encode()));
        }
        if n == 2 {
            world.handle(n, AuthorityInput::Descriptor(node(5, 7).encode()));
        }
        // An older one, and one by nobody on the list, change nothing.
        world.handle(n, AuthorityInput::Descriptor(node(3, 0).encode()));
        world.handle(n, AuthorityInput::Descriptor(node(30, 9).encode()));
    }
    world.run(10_000);
    let document = world.document(0, 4).unwrap();
    let index = document.index_of(&newcomer.body().identity).unwrap();
    assert!((1..=3).contains(&document.nodes[index].layers[0]));
    let signed_at = |n: u8| {
        let index = document.index_of(&node(n, 0).body().identity).unwrap();
        document.nodes[index].descriptor.body().signed_at
    };
    assert_eq!((signed_at(4), signed_at(5), signed_at(3)), (7, 1, 1));
    assert_eq!(document.nodes.len(), 9);
}

#[test]
fn a_withheld_secret_changes_the_draw_and_stops_nothing() {
    let mut world = World::new(4);
    world.run(20_000);
    let all = world.document(0, 2).unwrap().draw.commitments.clone();
    world.kill(3);
    world.run(300_000);
    world.check_documents(&[0, 1, 2], 2..31);
    let draw = &world.document(0, 31).unwrap().draw;
    assert_eq!(draw.commitments.len(), 3);
    assert!(all.iter().all(|commitment| !draw.commitments.contains(commitment)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn never_two_documents_of_one_epoch_whatever_links_lose_and_one_lies(
        seed: u64, loss in 0.0..0.6f64, slow in 0u64..4_000, restarts in 0usize..4,
    ) {
        let mut world = World::new(4);
        let mut rng = Seed::from_u64(seed).stream("links");
        world.fate = Box::new(move |_, _, now, _| {
            (!rng.random_bool(loss)).then(|| now + 5 + rng.random_range(0..=slow))
        });
        let mut rng = Seed::from_u64(seed).stream("liar");
        let liar = authority(3);
        for _ in 0..60 {
            world.run(rng.random_range(100..2_000));
            let session = world.authorities[3].as_ref().unwrap().session.unwrap();
            let own = world.authorities[3].as_ref().unwrap().ballots.get(&session)
                .and_then(|ballot| ballot.votes.get(&liar.identity()))
                .and_then(|votes| votes.first()).cloned();
            if let Some((mut vote, _)) = own {
                if let Some(proposal) = &mut vote.proposal {
                    proposal.nodes.remove(rng.random_range(0..8));
                }
                let bytes = PeerMessage::Vote(SignedVote::of(&vote, &liar)).encode();
                world.handle(rng.random_range(0..3), AuthorityInput::Message { from: liar.identity(), bytes });
            }
            // And it signs whatever any other has made.
            for n in 0..3 {
                let made: Vec<Vec<u8>> = world.authorities[n].as_ref().unwrap().made.values()
                    .map(|made| made.body.clone()).collect();
                for body in made {
                    let document: Document =
                        crate::base::encoding::decode("document", &body, usize::MAX).unwrap();
                    let (epoch, amendment) = (document.epoch, document.amendment);
                    let hash = *blake3::hash(&body).as_bytes();
                    let signature = SignedDocument::sign(&liar, (epoch, amendment, &hash));
                    let word = PeerMessage::Signature { epoch, amendment, hash, signature };
                    let from = liar.identity();
                    world.handle(n, AuthorityInput::Message { from, bytes: word.encode() });
                }
            }
            if restarts > 0 && rng.random_bool(0.05 * restarts as f64) {
                let n = rng.random_range(0..3);
                world.kill(n);
                world.start(n);
            }
            world.check_safety();
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..4_000, bit in 0u8..8) {
        let mut world = World::new(2);
        let from = authority(1).identity();
        let _ = State::decode(&bytes);
        world.handle(0, AuthorityInput::Message { from, bytes: bytes.clone() });
        world.handle(0, AuthorityInput::Descriptor(bytes.clone()));
        world.handle(0, AuthorityInput::Exit(bytes.clone()));
        world.handle(0, AuthorityInput::Head(bytes.clone()));
        world.handle(0, AuthorityInput::Report(bytes.clone()));
        world.handle(0, AuthorityInput::Document(bytes));
        // A vote with one bit flipped.
        world.run(5_001);
        let mut bytes = forge(&world, 1, session(1, 1), |_| {}).encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        world.handle(0, AuthorityInput::Message { from, bytes });
    }
}
