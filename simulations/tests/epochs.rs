//! Epochs that follow each other where everything runs that is deployed: four authorities, mixes and gateways with a key
//! for every epoch, an exit and its users. Epochs of ten seconds, in virtual time.

// Helpers of tests, which fail by panicking and say what they measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

#[path = "world/rotating.rs"]
mod rotating;
#[path = "world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rotating::{EPOCH_MS, Rotating, parameters};
use shoal_sphinx::{Codec, NullCodec, Sphinx};
use shoal_topology::consensus::Event;
use shoal_topology::wire::client_gateway::DocumentPart;
use world::{Seen, User};

const NODES: [&str; 8] =
    ["mix-1", "mix-2", "mix-3", "mix-4", "mix-5", "mix-6", "gateway-1", "gateway-2"];
/// Three mixes in each layer: one can be demoted.
const MORE_NODES: [&str; 11] = [
    "mix-1",
    "mix-2",
    "mix-3",
    "mix-4",
    "mix-5",
    "mix-6",
    "mix-7",
    "mix-8",
    "mix-9",
    "gateway-1",
    "gateway-2",
];
const EVERY: Duration = Duration::from_secs(3);
const ASKS: User = User::Asks { every: EVERY, question: 2_000, answer: 8_000 };
/// The first epoch in which everybody is there from its beginning.
const WHOLE: u64 = 2;
/// No answer comes later, where nobody takes packets.
const LONGEST_WAIT: Duration = Duration::from_millis(1_500);

struct Run {
    world: Rotating,
    epochs: u64,
    /// Packets that were dropped before there was a document everywhere.
    dropped_before: BTreeMap<&'static str, u64>,
    /// Loops of nodes that were lost by then.
    lost_before: u64,
    /// Frames between nodes in each epoch.
    frames: Vec<u64>,
}

/// So many epochs; `begins` is told of each that begins.
fn run(
    seed: u64,
    codec: impl Codec + 'static,
    (names, user): (&[&'static str], User),
    epochs: u64,
    mut begins: impl FnMut(&mut Rotating, u64),
) -> Run {
    let users = [user, User::Idle];
    let mut world = Rotating::new(seed, Arc::new(codec), names, &users, parameters());
    world.run(WHOLE * EPOCH_MS);
    let (dropped_before, lost_before) = (world.dropped(), lost(&world));
    let mut frames = Vec::new();
    for epoch in WHOLE..WHOLE + epochs {
        world.world.links.clear();
        begins(&mut world, epoch);
        world.run((epoch + 1) * EPOCH_MS);
        frames.push(world.world.links.values().sum());
    }
    Run { world, epochs, dropped_before, lost_before, frames }
}

/// Loops of nodes that did not come back, or found no path.
fn lost(world: &Rotating) -> u64 {
    let counters = world.world.nodes.iter().map(|node| node.engine.counters());
    counters.map(|counters| counters.loops_lost + counters.loops_without_path).sum()
}

impl Run {
    fn all(&self) -> std::ops::Range<u64> {
        1..WHOLE + self.epochs
    }

    /// Every question was answered, and none later than this.
    fn check_requests(&self, longest: Duration) {
        let person = &self.world.world.people[0];
        let trouble = (person.failed, person.broken, person.left);
        assert_eq!(trouble, (0, 0, 0), "failed, groups that broke, gateways to leave");
        let due = (self.epochs * EPOCH_MS) / EVERY.as_millis() as u64;
        let answered = person.waits.len() as u64;
        assert!(answered >= due, "{answered} answers of {due}");
        let wait = person.waits.iter().map(|(_, wait)| *wait).max().unwrap();
        println!("{answered} requests, the longest took {wait:?}");
        assert!(wait < longest, "{wait:?}");
    }

    /// No packet was lost between nodes, and nobody was sent where no link is.
    fn check_packets(&self) {
        assert_eq!(self.world.dropped(), self.dropped_before);
        assert_eq!((self.world.world.unlinked, self.world.world.refused), (0, 0));
        assert_eq!(lost(&self.world), self.lost_before);
        for person in &self.world.world.people {
            let (counts, loops) = (person.client.counts(), person.client.loops());
            // A datagram that a service repeats since its acknowledgement was slow is nothing new.
            let repeated = counts.junk.min(2);
            assert_eq!((counts.unknown - repeated, counts.no_path), (0, 0), "{counts:?}");
            assert!(loops.sent - loops.returned < 50, "{loops:?}");
            assert_eq!(person.uplink.filled().filler, 0);
        }
        let counts = self.world.world.exit.counts();
        let bad = (counts.unknown, counts.replayed, counts.surbs_bad, counts.starved);
        assert_eq!(bad, (0, 0, 0, 0), "{counts:?}");
    }

    /// The most that anyone keeps in the last third is what it is in the second.
    fn check_sizes(&self) {
        let third = self.epochs as usize / 3;
        let begin = WHOLE as usize;
        let most = |sizes: &[u64], n: usize| {
            *sizes[begin + n * third..begin + (n + 1) * third].iter().max().unwrap()
        };
        for (name, sizes) in &self.world.sizes {
            let (second, last) = (most(sizes, 1), most(sizes, 2));
            let what = name.rsplit(": ").next().unwrap();
            let slack = match what {
                "documents" | "keys" | "bodies" | "signatures" | "votes" | "reporters"
                | "groups" | "tunnels" => 0,
                // What it signed in each epoch is noted: 37 bytes, for 4,096 documents.
                "bytes on disk" => 37 * third as u64,
                // What comes by chance: counts of packets, and numbers with another number of digits.
                _ => 12 + second / 10,
            };
            assert!(last <= second + slack, "{name}: {second}, then {last}: {sizes:?}");
        }
    }

    /// Frames that a client's link showed in each epoch, up and down.
    fn shown(&self, person: usize) -> Vec<(u64, u64)> {
        let mut shown = vec![(0, 0); self.epochs as usize];
        for seen in &self.world.world.people[person].trace {
            let (Seen::Up(at) | Seen::Down(at)) = seen;
            let epoch = at.as_nanos() / (1_000_000 * EPOCH_MS);
            if let Some(count) = shown.get_mut((epoch - epoch.min(WHOLE)) as usize)
                && epoch >= WHOLE
            {
                match seen {
                    Seen::Up(_) => count.0 += 1,
                    Seen::Down(_) => count.1 += 1,
                }
            }
        }
        shown
    }

    /// Each epoch shows as much as the one before.
    fn check_rates(&self) {
        for person in 0..2 {
            for (epoch, (up, down)) in (WHOLE..).zip(self.shown(person)) {
                // 55 a second.
                assert!((549..=551).contains(&up), "epoch {epoch}: {up} frames up");
                // 110 a second, and the next document.
                let next = self.world.document(0, epoch + 1).unwrap();
                let parts = DocumentPart::cut(&next.signed).len() as u64;
                let down = down - parts;
                assert!((1_099..=1_101).contains(&down), "epoch {epoch}: {down} frames down");
            }
        }
        let mean = self.frames.iter().sum::<u64>() / self.epochs;
        println!("frames between nodes in an epoch: {mean} on average");
        let fits = |frames: &u64| (85 * mean..=115 * mean).contains(&(100 * frames));
        assert!(self.frames.iter().all(fits), "{:?}", self.frames);
    }

    fn check_honest(&self) {
        self.check_requests(LONGEST_WAIT);
        self.world.check_documents(&[0, 1, 2, 3], self.all());
        for node in &self.world.world.nodes {
            assert!(self.world.demoted(node.name).is_empty(), "{} is demoted", node.name);
        }
        for authority_address in &self.world.authority_addresses {
            assert!(
                !authority_address.events.iter().any(Event::is_trouble),
                "{:?}",
                authority_address.events
            );
            // One document an epoch, and no amendment: so many are certified.
            let certified =
                authority_address.events.iter().filter(|e| matches!(e, Event::Certified { .. }));
            assert_eq!(certified.count() as u64, WHOLE + self.epochs);
        }
        self.check_packets();
        self.check_sizes();
        self.check_rates();
    }
}

#[test]
fn requests_go_on_across_twelve_epochs_and_nothing_grows() {
    run(1, Sphinx::SCALAR, (&NODES, ASKS), 12, |_, _| {}).check_honest();
}

/// Some minutes in release: `scripts/release-check`.
#[test]
#[ignore = "takes minutes"]
fn requests_go_on_for_an_hour_of_epochs_and_nothing_grows() {
    run(2, Sphinx::SCALAR, (&NODES, ASKS), 360, |_, _| {}).check_honest();
}

#[test]
fn epochs_with_the_same_seed_are_the_same_and_links_show_no_user() {
    let [one, other, idle] =
        [ASKS, ASKS, User::Idle].map(|user| run(3, NullCodec, (&NODES, user), 6, |_, _| {}));
    assert_eq!(one.world.world.hash(), other.world.world.hash());
    assert_ne!(one.world.world.hash(), idle.world.world.hash(), "nodes see packets to the exit");
    one.check_requests(LONGEST_WAIT);
    for person in 0..2 {
        let [one, idle] = [&one, &idle].map(|run| &run.world.world.people[person].trace);
        assert!(one.len() > 6 * 1_600 && one == idle, "the link of {person}");
    }
    // Nor does its gateway see one in where its frames go, and in which epoch.
    let frames = |run: &Run| run.world.world.people[0].frames.clone();
    let (one, idle) = (frames(&one), frames(&idle));
    let epochs: std::collections::BTreeSet<u8> = one.iter().map(|(.., epoch)| *epoch).collect();
    assert!(epochs.len() >= 6 && one == idle, "instants, first hops and epochs of frames up");
}

#[test]
fn no_epoch_byte_tells_what_others_sent_from_loops() {
    let run = run(8, Sphinx::SCALAR, (&NODES, ASKS), 8, |_, _| {});
    run.check_requests(LONGEST_WAIT);
    // In each quarter of epochs: loops, and packets from others, that were of the present epoch and of another one.
    let mut seen = [[[0u32; 2]; 2]; 4];
    for (at, epoch, present, is_loop) in &run.world.world.people[0].arrivals {
        let passed = at.as_nanos() / 1_000_000 % EPOCH_MS;
        // What was under way when the epoch began: as long as gateways let it through.
        if at.as_nanos() / 1_000_000 < WHOLE * EPOCH_MS || passed < EPOCH_MS / 8 {
            continue;
        }
        let quarter = &mut seen[(4 * passed / EPOCH_MS) as usize];
        quarter[usize::from(*is_loop)][usize::from(epoch != present)] += 1;
    }
    for (quarter, [[others, others_off], [loops, loops_off]]) in seen.into_iter().enumerate() {
        println!("quarter {quarter}: {loops} loops, {others} packets from others");
        assert!(loops > 200 && others >= 10, "quarter {quarter}: {loops} loops, {others} others");
        assert_eq!((others_off, loops_off), (0, 0), "quarter {quarter}: of another epoch");
    }
}

#[test]
fn an_authority_that_is_away_for_three_epochs_is_missed_by_no_request() {
    let run = run(4, NullCodec, (&NODES, ASKS), 8, |world, epoch| match epoch {
        3 => world.kill(2),
        6 => world.start(2),
        _ => {}
    });
    run.check_requests(LONGEST_WAIT);
    run.check_packets();
    run.check_rates();
    run.world.check_documents(&[0, 1, 3], run.all());
    run.world.check_documents(&[0, 1, 2, 3], 7..WHOLE + run.epochs);
}

#[test]
fn an_authority_whose_clock_is_three_minutes_off_is_missed_by_no_request() {
    for offset in [-180_000, 180_000] {
        let run = run(5, NullCodec, (&NODES, ASKS), 6, |world, epoch| {
            if epoch == 3 {
                world.authority_addresses[1].offset = offset;
            }
        });
        run.check_requests(LONGEST_WAIT);
        run.check_packets();
        run.check_rates();
        run.world.check_documents(&[0, 2, 3], run.all());
        let notices = |event: &Event| matches!(event, Event::Clock(_));
        assert!(run.world.authority_addresses[1].events.iter().any(notices), "{offset}");
    }
}

/// Until clients leave it out: nine or ten epochs with the seeds that were tried.
const FOUND_WITHIN: u64 = 14;

#[test]
fn a_mix_that_takes_a_fifth_is_demoted_within_fourteen_epochs_and_requests_go_on() {
    let run = run(6, NullCodec, (&MORE_NODES, ASKS), 1 + FOUND_WITHIN, |world, epoch| {
        let mix = world.world.nodes.iter_mut().find(|node| node.name == "mix-5").unwrap();
        mix.losing = if epoch >= 3 { 0.2 } else { 0.0 };
    });
    // Packets that it takes are sent again.
    run.check_requests(Duration::from_secs(4));
    run.world.check_documents(&[0, 1, 2, 3], run.all());
    for node in &run.world.world.nodes {
        let demoted = run.world.demoted(node.name);
        if node.name == "mix-5" {
            let first = *demoted.first().expect("it is found");
            println!("demoted {} epochs after it began", first - 3);
            assert!((4..=3 + FOUND_WITHIN).contains(&first), "{demoted:?}");
        } else {
            assert!(demoted.is_empty(), "{} is demoted in {demoted:?}", node.name);
        }
    }
}
