//! Some devices with their engines, and a net between them that loses, delays, doubles and reorders.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::RngExt;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{Engine, Identity, SecretIdentity, Seed, Stream};

use super::super::*;
use crate::{Body, MessageName, PeriodKeys, Roster, RosterDevice, State};

/// Where the clock begins: Unix milliseconds.
pub(super) const BEGIN: u64 = 1_800_000_000_000;
pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// How bad the net is.
#[derive(Clone, Copy)]
pub(super) struct Net {
    pub(super) loss: f64,
    pub(super) doubled: f64,
    /// The mean time that a letter takes, milliseconds.
    pub(super) delay_ms: u64,
}

impl Net {
    pub(super) const GOOD: Self = Self { loss: 0.0, doubled: 0.0, delay_ms: 500 };
    pub(super) const BAD: Self = Self { loss: 0.05, doubled: 0.02, delay_ms: 5_000 };
}

enum Event {
    Left(usize, LetterNumber),
    /// A packet for a device.
    Arrives(u32, Vec<u8>),
    Found(usize, u32),
}

pub(super) struct Node {
    pub(super) engine: People,
    /// What is on its disk.
    pub(super) disk: BTreeMap<Key, Vec<u8>>,
    pub(super) is_on: bool,
    /// The run of the program; what an earlier run waited for is nothing to this one.
    run: u64,
    /// What its user was told last of each message.
    pub(super) states: BTreeMap<MessageName, State>,
    /// Packets that waited for it while it was away.
    inbox: Vec<Vec<u8>>,
    /// Random bytes of its periods, by their first second.
    periods: BTreeMap<u64, [u8; 32]>,
    /// All that it ever posted, and when.
    pub(super) posted: Vec<(u64, Vec<u8>)>,
    /// How often it asked for keys.
    pub(super) sought: usize,
    /// How many packets have come, which is the number of the last one.
    pub(super) came: u64,
    /// The packets that a session vouched for, and whose it is.
    pub(super) vouched: Vec<(PacketNumber, u32)>,
    /// Parts that it was told are lost.
    pub(super) missed: u32,
    /// What it was told of groups.
    pub(super) groups: Vec<GroupChanged>,
    /// How many people have a message of how many.
    pub(super) reached: BTreeMap<MessageName, (u32, u32)>,
    /// The next program ends after so many outputs.
    pub(super) dies_after: Option<usize>,
}

/// Devices with the numbers from 0 on; where nothing else is said each of a person of the same number.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) roster: Roster,
    net: Net,
    /// Devices that nothing reaches.
    lost: BTreeSet<u32>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, (u64, Event)>,
    counter: u64,
    pub(super) rng: Stream,
}

pub(super) fn secret(n: u32) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n as u8 + 1; 32])
}

pub(super) fn listed(n: u32, person: u32) -> RosterDevice {
    let key = secret(n).identity();
    let address = ServiceAddress { identity: key.0, gateway: [9; 32] };
    RosterDevice { person, key, address, held_until: 0 }
}

impl World {
    pub(super) fn new(devices: u32, net: Net, seed: u64) -> Self {
        Self::with_devices(devices, 1, net, seed)
    }

    /// So many devices, of which each person has so many that follow each other.
    pub(super) fn with_devices(devices: u32, each: u32, net: Net, seed: u64) -> Self {
        let organisation = Identity(secret(200).identity().0);
        let all = (0..devices).map(|n| (n, listed(n, n / each))).collect();
        let people = (0..devices.div_ceil(each)).collect();
        let roster = Roster {
            organisation,
            size: 10,
            head: 10,
            is_current: true,
            devices: all,
            removed: BTreeMap::new(),
            people,
        };
        let rng = Seed::from_u64(seed).stream("world");
        let (events, waiting, nodes, lost) = Default::default();
        let mut world =
            Self { now: BEGIN, nodes, roster, net, lost, events, waiting, counter: 0, rng };
        for n in 0..devices {
            world.add(n);
        }
        world
    }

    /// A device begins.
    pub(super) fn add(&mut self, n: u32) {
        let engine = self.engine(n, 0, BTreeMap::new());
        let (disk, states, inbox, periods, posted) = Default::default();
        self.nodes.push(Node {
            engine,
            disk,
            is_on: false,
            run: 0,
            states,
            inbox,
            periods,
            posted,
            sought: 0,
            came: 0,
            vouched: Vec::new(),
            missed: 0,
            groups: Vec::new(),
            reached: BTreeMap::new(),
            dies_after: None,
        });
        self.connect(n as usize);
    }

    fn engine(&mut self, n: u32, run: u64, disk: BTreeMap<Key, Vec<u8>>) -> People {
        let seed = Seed::from_u64(1_000 * u64::from(n) + run);
        let settings = Settings { copies_per_s: 1.0, ..Settings::default() };
        People::restore(self.now, (n, secret(n)), settings, self.roster.clone(), &seed, disk)
            .unwrap()
    }

    /// The program of a device begins anew, with what is on its disk.
    pub(super) fn restart(&mut self, n: usize) {
        let disk = self.nodes[n].disk.clone();
        let run = self.nodes[n].run + 1;
        let engine = self.engine(n as u32, run, disk);
        let node = &mut self.nodes[n];
        (node.engine, node.run, node.dies_after) = (engine, run, None);
        if node.is_on {
            self.connect(n);
        }
    }

    /// The keys of its periods: one a day, each kept for so long as the device is here a day after it, or for 14 days.
    pub(super) fn rotate(&mut self, n: usize) {
        let begins = self.now / DAY * DAY / 1_000;
        let random: [u8; 32] = self.rng.random();
        let node = &mut self.nodes[n];
        node.periods.entry(begins).or_insert(random);
        let oldest = begins.saturating_sub(14 * 86_400);
        node.periods.retain(|begins, _| *begins >= oldest);
        let keys =
            node.periods.iter().rev().map(|(begins, random)| PeriodKeys::new(random, *begins));
        let keys = Input::Keys(keys.collect());
        self.input(n, keys);
    }

    /// Whether nothing reaches a device.
    pub(super) fn lose_for(&mut self, device: u32, is_lost: bool) {
        if is_lost {
            self.lost.insert(device);
        } else {
            self.lost.remove(&device);
        }
    }

    pub(super) fn connect(&mut self, n: usize) {
        self.nodes[n].is_on = true;
        self.rotate(n);
        self.input(n, Input::Connected);
        for packet in std::mem::take(&mut self.nodes[n].inbox) {
            let at = self.now + self.rng.random_range(0..240_000);
            self.at(at, Event::Arrives(n as u32, packet));
        }
    }

    pub(super) fn disconnect(&mut self, n: usize) {
        self.nodes[n].is_on = false;
        self.input(n, Input::Disconnected);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.counter += 1;
        self.events.push(Reverse((at, self.counter)));
        self.waiting.insert(self.counter, (self.counter, event));
    }

    pub(super) fn input(&mut self, n: usize, input: Input) {
        self.nodes[n].engine.handle(self.now, input);
        self.outputs(n);
    }

    /// A packet comes.
    pub(super) fn comes(&mut self, n: usize, packet: Vec<u8>) {
        self.nodes[n].came += 1;
        let number = PacketNumber(self.nodes[n].came);
        self.input(n, Input::Packet(number, packet));
    }

    pub(super) fn write(&mut self, from: usize, to: u32, text: &str) -> MessageName {
        self.send(from, to, &Body::Text(text.into()))
    }

    pub(super) fn write_to(&mut self, from: usize, group: GroupId, text: &str) -> MessageName {
        let to = Conversation::Group(group);
        let text = Body::Text(text.into());
        let name = self.nodes[from].engine.send(self.now, to, &text, 0).unwrap();
        self.outputs(from);
        name
    }

    pub(super) fn found(&mut self, by: usize, people: &[u32]) -> GroupId {
        let group = self.nodes[by].engine.found_group(self.now, "Finance", people).unwrap();
        self.outputs(by);
        group
    }

    pub(super) fn act(&mut self, by: usize, group: GroupId, act: crate::GroupAct) {
        self.nodes[by].engine.act(self.now, group, act).unwrap();
        self.outputs(by);
    }

    pub(super) fn send(&mut self, from: usize, to: u32, body: &Body) -> MessageName {
        let name = self.nodes[from].engine.send(self.now, to, body, 0).unwrap();
        self.outputs(from);
        name
    }

    pub(super) fn outputs(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].engine.poll_output() {
            let node = &mut self.nodes[n];
            match &mut node.dies_after {
                Some(0) => return self.restart(n),
                Some(left) => *left -= 1,
                None => {}
            }
            match output {
                Output::Save(changes) => {
                    for (key, change) in changes {
                        match change {
                            Some(bytes) => node.disk.insert(key, bytes.0.to_vec()),
                            None => node.disk.remove(&key),
                        };
                    }
                }
                Output::State(name, state) => _ = node.states.insert(name, state),
                // It is on disk already.
                Output::Received(_) => {}
                Output::Group(changed) => node.groups.push(changed),
                Output::Reached(name, reached, of) => _ = node.reached.insert(name, (reached, of)),
                Output::Vouched(packet, by) => node.vouched.push((packet, by)),
                Output::Missed(_, count) => node.missed += count,
                Output::Seek { device, .. } => {
                    node.sought += 1;
                    let at = self.now + 1_000;
                    self.at(at, Event::Found(n, device));
                }
                Output::Post { letter, to, message } => {
                    assert!(message.len() <= crate::MAX_PACKET, "{}", message.len());
                    node.posted.push((self.now, message.clone()));
                    let left = self.now + self.rng.random_range(200..3_000);
                    self.at(left, Event::Left(n, letter));
                    self.carry(left, to, message);
                }
            }
        }
    }

    /// A letter goes through the net.
    fn carry(&mut self, left: u64, to: ServiceAddress, message: Vec<u8>) {
        let of =
            |(number, device): (&u32, &RosterDevice)| (device.address == to).then_some(*number);
        let all =
            (0..self.nodes.len() as u32).map(|n| (n, listed(n, n))).collect::<BTreeMap<_, _>>();
        let Some(number) = all.iter().find_map(of) else { return };
        let copies = if self.rng.random_bool(self.net.loss) || self.lost.contains(&number) {
            0
        } else if self.rng.random_bool(self.net.doubled) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let at = later(&mut self.rng, left, self.net.delay_ms);
            self.at(at, Event::Arrives(number, message.clone()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Left(n, letter) => self.input(n, Input::Left(letter)),
            Event::Arrives(to, packet) => {
                let node = &mut self.nodes[to as usize];
                if node.is_on {
                    self.comes(to as usize, packet);
                } else if node.inbox.len() < 5_000 {
                    node.inbox.push(packet);
                }
            }
            Event::Found(n, device) => {
                let of = self.nodes.get(device as usize);
                let keys = of.and_then(|node| node.periods.iter().next_back());
                let found = keys.map(|(begins, random)| {
                    let keys = PeriodKeys::new(random, *begins).public().clone();
                    let published = crate::Published { keys, device, size: 10 };
                    (published, *begins, begins + 8 * 86_400)
                });
                let found = found.filter(|(.., until)| *until * 1_000 > self.now);
                self.input(n, Input::Described { device, found });
            }
        }
    }

    /// Lets time pass until this instant.
    pub(super) fn run_until(&mut self, until: u64) {
        loop {
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let wake = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].engine.next_wake()?.max(self.now), n)));
            let wake = wake.min();
            match (event, wake) {
                (Some(at), wake) if wake.is_none_or(|(wake, _)| at <= wake) && at <= until => {
                    self.now = at.max(self.now);
                    let Some(Reverse((_, number))) = self.events.pop() else { return };
                    let (_, event) = self.waiting.remove(&number).unwrap();
                    self.happen(event);
                }
                (_, Some((at, n))) if at <= until => {
                    self.now = at;
                    let run = self.nodes[n].run;
                    self.nodes[n].engine.wake(at);
                    self.outputs(n);
                    let node = &mut self.nodes[n];
                    let next = node.engine.next_wake();
                    // But for a program that began again just now.
                    assert!(
                        next != Some(at) || node.run != run,
                        "it asks for the same instant again"
                    );
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// What stands on the disk of a device, as its user is shown it: in the order of sending.
    pub(super) fn shown(&self, n: usize) -> Vec<crate::ReceivedMessage> {
        let received = self.nodes[n].disk.iter().filter(|(key, _)| matches!(key, Key::Received(_)));
        let mut all: Vec<_> =
            received.map(|(_, bytes)| crate::ReceivedMessage::decode(bytes).unwrap()).collect();
        all.sort_by_key(|message| (message.sent_at, message.name));
        all
    }

    pub(super) fn texts(&self, n: usize) -> Vec<String> {
        let text = |message: crate::ReceivedMessage| match message.body {
            Body::Text(text) => text,
            other => panic!("{other:?}"),
        };
        self.shown(n).into_iter().map(text).collect()
    }

    /// The directory is another one from now on, for all.
    pub(super) fn enrol(&mut self, change: impl FnOnce(&mut Roster)) {
        change(&mut self.roster);
        self.roster.size += 1;
        self.roster.head = self.roster.size;
        for n in 0..self.nodes.len() {
            let roster = self.roster.clone();
            self.input(n, Input::Roster(roster));
        }
    }
}
