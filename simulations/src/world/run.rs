//! The world and its one timing wheel.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

mod absences;
mod activity;
#[cfg(test)]
mod arrivals;
mod clients;
mod directory;
mod faults;
mod nodes;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use shoal_node::wheel::Wheel;
use shoal_node::{Arrived, DropReason, InboxId, Input, Room};
use shoal_people::Roster;
use shoal_sphinx::Frame;
use shoal_topology::{Seed, Time};

use super::authorities::Due;
use super::directory::Directory;
use super::exit::Exit;
use super::faults::Faults;
use super::injector::Injector;
use super::letter::{PairKeys, Recipients};
use super::links::Links;
use super::measure::Service;
use super::member::roster;
use super::network::{Network, Node};
use super::observer::{Corrupt, NodeArrival, Observer, fingerprint};
use super::person::Person;
use super::reachable::KEYS_LOOK;
use super::release::Release;
use super::settings::Settings;
use super::spans::{seconds, span};
use super::watched::Watched;
use super::watcher::LOOKS;
use crate::adversary::at_gateway::Seen;
use crate::experiment::Measured;
use crate::trace::{Party, Truth, View};
use crate::workload::Workload;

/// How long a client waits until it dials again.
const AGAIN: Duration = Duration::from_secs(1);
/// Events between two looks at the share that is done.
const LOOK: u64 = 1 << 17;

/// What happens next.
enum Event {
    /// A frame arrives at a node.
    ToNode { node: u32, from: u32, frame: Frame },
    /// A client's frame arrives at its gateway.
    FromClient { session: u64, gateway: u32, sent: Time, frame: Frame },
    /// A gateway's frame arrives at a client.
    ToClient { session: u64, gateway: u32, frame: Frame },
    /// An engine wants to be called.
    Node(u32),
    /// A client does.
    Person(u32),
    /// The service does.
    Exit,
    /// The next of what people do.
    Activity(u32),
    /// Both ends of a call speak.
    Call { activity: u32, tick: u32 },
    /// One of them hangs up.
    Hang(u32),
    /// A person connects.
    Join(u32),
    /// A person goes.
    Leave(u32),
    /// A person's connection is interrupted, as this one of the settings says.
    Interrupt { interruption: u32, person: u32 },
    /// A person's program ends, as this one of the settings says.
    Off { absence: u32, person: u32 },
    /// It starts again.
    On(u32),
    /// A person's program looks at its keys.
    Keys(u32),
    /// A node's clock passes into the next epoch.
    Epoch(u32),
    /// A node forgets its replay tags.
    Forget(u32),
    /// The service connects to one of its gateways.
    JoinExit(u32),
    /// A node's program looks what has come and what is due.
    Look(u32),
    /// An authority's document comes to a node.
    Document { node: u32, signed: Arc<[u8]> },
    /// Something becomes due at an authority.
    Authority { authority: u32, due: Box<Due> },
    /// A fault begins, by its number.
    Fault(u32),
    /// A fault is over.
    Mended(u32),
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Report {
    /// All that an adversary has.
    pub view: View,
    /// What each person's gateway sees of it, if that was asked for.
    pub at_gateway: Vec<Seen>,
    /// When packets came to the service that it could not read, from the beginning of the observation on.
    pub unreadable: Vec<Time>,
    /// What really happened.
    pub truth: Truth,
    /// Figures: what users got, what the network dropped.
    pub measured: Vec<Measured>,
    /// What users got, one by one.
    pub service: Service,
    /// Over instant, link and size of all packets on all links, from the beginning of the warm-up to the end.
    pub trace_hash: String,
    /// Packets that arrived at nodes from nodes.
    pub hops: u64,
    /// Packets on all links.
    pub packets: u64,
}

/// A descriptor on the disk of a gateway.
struct KeptDescriptor {
    bytes: Arc<[u8]>,
    /// The last second of Unix time at which it holds.
    not_after: u64,
}

/// The engines, the links, and what people do.
pub struct World {
    now: Time,
    pub(super) settings: Settings,
    workload: Workload,
    wheel: Wheel<Event>,
    pub(super) network: Network,
    pub(super) nodes: Vec<Node>,
    links: Links,
    pub(super) people: Vec<Person>,
    recipients: Recipients,
    /// What tunnels' clocks show at the zero of the world.
    base: Instant,
    pub(super) exit: Exit,
    exit_gateways: Vec<u32>,
    /// Packets for those who are away, by gateway.
    inboxes: BTreeMap<(u32, InboxId), VecDeque<(Time, Frame)>>,
    /// Descriptors that gateways keep.
    descriptors: BTreeMap<(u32, InboxId), KeptDescriptor>,
    /// Authorities and what follows them, where documents follow each other.
    pub(super) directory: Option<Directory>,
    faults: Faults,
    corrupt: Corrupt,
    watched: Watched,
    injector: Injector,
    release: Release,
    unreadable: Vec<Time>,
    pub(super) service: Service,
    warm_up: Duration,
    hops: u64,
    events: u64,
    refused: u64,
    room: Room,
    frames: Vec<(Time, Frame)>,
    arrived: Vec<Result<Arrived, DropReason>>,
    #[cfg(test)]
    pub(super) arrivals: arrivals::Arrivals,
}

/// Runs a world from the beginning of its warm-up to the end of its drain. `progress` is told the share that is done.
///
/// # Errors
/// A setting that cannot be, a file that cannot be read.
pub fn run(
    settings: &Settings,
    workload: &Workload,
    seed: u64,
    progress: &dyn Fn(f64),
) -> anyhow::Result<Report> {
    let mut world = World::new(settings, workload, seed)?;
    let end = world.end();
    world.run_until(end, progress);
    Ok(world.report())
}

impl World {
    /// At time zero: nobody has joined.
    ///
    /// # Errors
    /// A setting that cannot be, a file that cannot be read.
    pub fn new(settings: &Settings, workload: &Workload, seed: u64) -> anyhow::Result<Self> {
        settings.check()?;
        let seed = Seed::from_u64(seed).part("world");
        let length = workload.end.since(Time::ZERO);
        settings.check_run(workload.people, length.as_secs_f64())?;
        let network = Network::new(settings, &seed)?;
        let gateways = &network.gateways;
        let gateway_of: Vec<u32> =
            gateways.iter().copied().cycle().take(workload.people as usize).collect();
        let exit_gateways: Vec<u32> = gateways.iter().copied().take(2).collect();
        let observer = Observer::new(settings, length);
        let pairs = network.pairs();
        let links = Links::new(
            settings,
            (network.nodes(), &pairs),
            &gateway_of,
            &exit_gateways,
            observer,
            &seed,
        )?;
        // Tunnels count from an instant; which one that is shows nowhere.
        #[expect(clippy::disallowed_methods, reason = "only spans from this instant are used")]
        let base = Instant::now();
        let (mut people, mut contacts) = (Vec::new(), Vec::new());
        for (number, gateway) in gateway_of.iter().enumerate() {
            let own = seed.part(&format!("person {number}"));
            if let Some((person, contact)) = Person::new(&network, settings, *gateway, base, &own) {
                people.push(person);
                contacts.push(contact);
            }
        }
        let reachable = people.iter().filter_map(|person| person.reachable.as_ref());
        let addresses: Vec<_> = reachable.map(|reachable| reachable.address()).collect();
        if settings.people.members {
            enrol(&mut people, &roster(addresses.iter().copied(), &seed), (&network, settings))?;
        }
        let count = network.nodes();
        let nodes =
            (0..count).filter_map(|node| network.node(node, settings, workload.people)).collect();
        let mut world = Self {
            now: Time::ZERO,
            warm_up: seconds(settings.warm_up_s).since(Time::ZERO),
            wheel: Wheel::new(),
            nodes,
            links,
            people,
            exit: Exit::new(&network, base, &seed)?,
            exit_gateways,
            inboxes: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            directory: Directory::new(settings, &network, &seed),
            faults: Faults::new(settings, count, &seed.part("faults")),
            corrupt: Corrupt::new(settings, count, length),
            watched: Watched::new(settings, &contacts, length),
            injector: Injector::new(settings, &contacts, network.codec(), &seed),
            release: Release::new(settings, &seed),
            #[cfg(test)]
            arrivals: arrivals::Arrivals::of(if settings.observer.gateway_view {
                &contacts
            } else {
                &[]
            }),
            unreadable: Vec::new(),
            service: Service::new(workload),
            recipients: Recipients { contacts, addresses, pairs: PairKeys::new(&seed) },
            base,
            network,
            hops: 0,
            events: 0,
            refused: 0,
            room: Room::default(),
            frames: Vec::new(),
            arrived: Vec::new(),
            settings: settings.clone(),
            workload: workload.clone(),
        };
        world.begin(&seed);
        Ok(world)
    }

    /// Puts the first events into the wheel.
    fn begin(&mut self, seed: &Seed) {
        let within = self.settings.people.join_within_s;
        let opens_s = self.settings.network.opens_s();
        for person in 0..self.people.len() as u32 {
            let own = seed.part(&format!("person {person}"));
            let at = within * own.stream("joining").random::<f64>();
            self.wheel.insert(seconds(opens_s + at), Event::Join(person));
        }
        if self.directory.is_some() {
            self.begin_directory();
        } else {
            for node in 0..self.nodes.len() {
                self.schedule_node(node);
                let epoch = self.network.next_epoch(node, Time::ZERO);
                self.wheel.insert(epoch, Event::Epoch(node as u32));
                let forget = seconds(self.settings.network.replay_tags_s);
                self.wheel.insert(forget, Event::Forget(node as u32));
            }
        }
        for (number, interruption) in self.settings.interruptions.iter().enumerate() {
            let at = seconds(interruption.begin_s) + self.warm_up;
            for person in interruption.people.iter().filter(|n| (**n as usize) < self.people.len())
            {
                let (interruption, person) = (number as u32, *person);
                self.wheel.insert(at, Event::Interrupt { interruption, person });
            }
        }
        self.begin_absences();
        for (number, planned) in self.faults.planned.iter().enumerate() {
            self.wheel.insert(planned.begins, Event::Fault(number as u32));
        }
        for index in 0..self.exit_gateways.len() as u32 {
            match self.directory {
                Some(_) => self.wheel.insert(seconds(opens_s), Event::JoinExit(index)),
                None => self.join_exit(index),
            }
        }
        self.schedule_activity(0);
    }

    /// When the run ends.
    pub fn end(&self) -> Time {
        self.workload.end + self.warm_up + span(self.settings.drain_s)
    }

    /// Events that are to come, for tests that nothing grows.
    #[cfg(test)]
    pub(super) fn to_come(&self) -> usize {
        self.wheel.len()
    }

    /// The present, counted from the beginning of the warm-up.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Time, progress: &dyn Fn(f64)) {
        let (begin, whole) = (self.now, end.since(self.now).as_secs_f64());
        while let Some((at, event)) = self.wheel.pop(end) {
            self.now = at;
            self.events += 1;
            if self.events.is_multiple_of(LOOK) {
                progress(at.since(begin).as_secs_f64() / whole);
            }
            self.handle(event);
        }
        self.now = end;
        progress(1.0);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToNode { node, from, frame } => self.arrive(node as usize, from, frame),
            Event::FromClient { session, gateway, sent, frame } => {
                self.client_sent(session, gateway as usize, sent, frame);
            }
            Event::ToClient { session, gateway, frame } => {
                self.client_receives(session, gateway, frame);
            }
            Event::Node(node) => {
                let node = node as usize;
                if self.nodes[node].scheduled == now {
                    self.nodes[node].scheduled = Time::NEVER;
                    self.node(node, Input::Wake);
                }
            }
            Event::Person(person) => {
                if self.people[person as usize].scheduled == now {
                    self.people[person as usize].scheduled = Time::NEVER;
                    self.wake(person);
                }
            }
            Event::Exit => {
                if self.exit.scheduled == now {
                    self.exit.scheduled = Time::NEVER;
                    self.work_exit();
                }
            }
            Event::Activity(activity) => self.act(activity),
            Event::Call { activity, tick } => self.speak(activity, tick),
            Event::Hang(activity) => self.hang(activity),
            Event::Join(person) => self.join(person),
            Event::Leave(person) => self.leave(person),
            Event::Interrupt { interruption, person } => self.interrupt(interruption, person),
            Event::Off { absence, person } => self.switch_off_person(absence, person),
            Event::On(person) => self.switch_on_person(person),
            Event::Keys(person) => {
                self.turn_keys(person);
                self.wheel.insert(now + KEYS_LOOK, Event::Keys(person));
            }
            Event::Epoch(node) => self.epoch(node),
            Event::Forget(node) => {
                self.nodes[node as usize].opener = self.network.opener(node as usize, now);
                let next = now + span(self.settings.network.replay_tags_s);
                self.wheel.insert(next, Event::Forget(node));
            }
            Event::JoinExit(index) => self.join_exit(index),
            Event::Look(node) => {
                self.look(node as usize);
                self.wheel.insert(now + LOOKS, Event::Look(node));
            }
            Event::Document { node, signed } => self.give(node as usize, signed),
            Event::Authority { authority, due } => self.authority(authority as usize, *due),
            Event::Fault(number) => self.fault(number as usize),
            Event::Mended(number) => self.mend(number as usize),
        }
    }
}

/// All people are members of one organisation.
fn enrol(
    people: &mut [Person],
    roster: &Roster,
    of_world: (&Network, &Settings),
) -> anyhow::Result<()> {
    (0..).zip(people).try_for_each(|(number, person)| person.enrol(of_world, number, roster))
}

/// The person of a session; none for the service's.
fn person(session: u64) -> Option<u32> {
    (session as u32).checked_sub(1)
}

fn party(session: u64) -> Party {
    person(session).map_or(Party::Service(0), Party::Person)
}
