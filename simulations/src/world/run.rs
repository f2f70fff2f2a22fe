//! The world and its one timing wheel.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

mod activity;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;
use shoal_client::engine::{Arrival, Contact, Handle, Output as ClientOutput};
use shoal_node::wheel::Wheel;
use shoal_node::{Arrived, DropReason, InboxId, Input, Output, Room, SessionId};
use shoal_sphinx::{Downward, Frame, Peeled};
use shoal_topology::wire::client_gateway::{Away, ControlMessage, Hello, Mode, Notice};
use shoal_topology::{Identity, Seed, Time, exponential};

use super::exit::Exit;
use super::injector::Injector;
use super::links::Links;
use super::measure::Service;
use super::network::{Network, Node};
use super::observer::{Came, Corrupt, Observer, fingerprint};
use super::person::{Letter, PairKeys, Person, Stage};
use super::release::Release;
use super::settings::{Settings, seconds, span};
use super::watched::Watched;
use crate::at_gateway::Seen;
use crate::experiment::{Estimate, Measured};
use crate::trace::{Link, Party, Public, Truth, View};
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
    /// A node's clock passes into the next epoch.
    Epoch(u32),
    /// A node forgets its replay tags.
    Forget(u32),
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

/// The engines, the links, and what people do.
pub struct World {
    now: Time,
    settings: Settings,
    workload: Workload,
    wheel: Wheel<Event>,
    network: Network,
    nodes: Vec<Node>,
    links: Links,
    people: Vec<Person>,
    contacts: Vec<Contact>,
    exit: Exit,
    exit_gateways: Vec<u32>,
    /// Packets for those who are away, by gateway.
    inboxes: BTreeMap<(u32, InboxId), VecDeque<(Time, Frame)>>,
    corrupt: Corrupt,
    watched: Watched,
    injector: Injector,
    release: Release,
    pairs: PairKeys,
    unreadable: Vec<Time>,
    service: Service,
    warm_up: Duration,
    hops: u64,
    events: u64,
    refused: u64,
    room: Room,
    frames: Vec<(Time, Frame)>,
    arrived: Vec<Result<Arrived, DropReason>>,
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
        let document = &network.document;
        let links = Links::new(settings, document, &gateway_of, &exit_gateways, observer, &seed)?;
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
        let count = network.document.nodes.len();
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
            corrupt: Corrupt::new(settings, count, length),
            watched: Watched::new(settings, &contacts, length),
            injector: Injector::new(settings, &contacts, network.codec(), &seed),
            release: Release::new(settings, &seed),
            pairs: PairKeys::new(&seed),
            unreadable: Vec::new(),
            service: Service::new(workload),
            contacts,
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
        for person in 0..self.people.len() as u32 {
            let own = seed.part(&format!("person {person}"));
            let at = within * own.stream("joining").random::<f64>();
            self.wheel.insert(seconds(at), Event::Join(person));
        }
        for node in 0..self.nodes.len() {
            self.schedule_node(node);
            let epoch = self.network.next_epoch(node, Time::ZERO);
            self.wheel.insert(epoch, Event::Epoch(node as u32));
            let forget = seconds(self.settings.network.replay_tags_s);
            self.wheel.insert(forget, Event::Forget(node as u32));
        }
        for (number, interruption) in self.settings.interruptions.iter().enumerate() {
            let at = seconds(interruption.begin_s) + self.warm_up;
            for person in interruption.people.iter().filter(|n| (**n as usize) < self.people.len())
            {
                let (interruption, person) = (number as u32, *person);
                self.wheel.insert(at, Event::Interrupt { interruption, person });
            }
        }
        for place in 0..self.exit_gateways.len() {
            let gateway = self.exit_gateways[place];
            let (peer, origin) = (Identity([place as u8; 32]), Default::default());
            self.node(gateway as usize, Input::Joined { session: SessionId(0), peer, origin });
        }
        self.schedule_activity(0);
    }

    /// When the run ends.
    pub fn end(&self) -> Time {
        self.workload.end + self.warm_up + span(self.settings.drain_s)
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
                let node = gateway as usize;
                if self.corrupt.is(node) {
                    let (from, fingerprint) = (party(session), fingerprint(&frame.packet));
                    let came = Came { at: now, from, fingerprint, epoch: frame.epoch };
                    self.corrupt.came(node, came, &frame.packet);
                }
                if let Some(person) = person(session) {
                    self.watched.up(person, (sent, now), &frame);
                }
                let input = Input::Client { session: SessionId(session), frame: Ok(frame) };
                self.node(node, input);
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
            Event::Epoch(node) => {
                let number = node as usize;
                let epoch = self.network.epoch(number, now);
                self.nodes[number].opener.update(&self.network.document, epoch);
                self.node(number, Input::Epoch(epoch));
                self.wheel.insert(self.network.next_epoch(number, now), Event::Epoch(node));
            }
            Event::Forget(node) => {
                if let Some(opener) = self.network.opener(node as usize, now) {
                    self.nodes[node as usize].opener = opener;
                }
                let next = now + span(self.settings.network.replay_tags_s);
                self.wheel.insert(next, Event::Forget(node));
            }
        }
    }

    /// A frame from a node is opened and goes to the engine.
    fn arrive(&mut self, node: usize, from: u32, frame: Frame) {
        let now = self.now;
        self.hops += 1;
        let came = self.corrupt.is(node).then(|| {
            let (from, fingerprint) = (Party::Node(from), fingerprint(&frame.packet));
            Came { at: now, from, fingerprint, epoch: frame.epoch }
        });
        let slot = self.release.slot(&frame.packet);
        self.frames.push((now, frame));
        let opener = &self.nodes[node].opener;
        opener.open_batch(&mut self.frames, &mut self.room, &mut self.arrived);
        while let Some(mut arrived) = self.arrived.pop() {
            if let Ok(Arrived { peeled: Peeled::Forward { next, delay, .. }, epoch, .. }) =
                &mut arrived
            {
                self.watched.came(next, now, from, *epoch);
                if let Some(slot) = slot {
                    *delay = self.release.delay(now, slot);
                }
            }
            if let (Some(came), Ok(Arrived { peeled, .. })) = (came, &arrived) {
                match peeled {
                    Peeled::Forward { packet, .. } => self.corrupt.came(node, came, packet),
                    Peeled::Final { .. } => self.corrupt.ended(node, came),
                }
            }
            self.node(node, Input::Arrived(arrived));
        }
    }

    /// Something happens to a node; what it wants done is done.
    fn node(&mut self, node: usize, input: Input) {
        self.nodes[node].engine.handle(self.now, input);
        while let Some(output) = self.nodes[node].engine.poll_output() {
            self.output(node, output);
        }
        self.schedule_node(node);
    }

    fn schedule_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(at) = node.engine.next_wake()
            && at < node.scheduled
        {
            node.scheduled = at;
            self.wheel.insert(at, Event::Node(number as u32));
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Send { to, frame } => {
                let Some(to) = self.network.number(&to) else { return };
                if self.corrupt.is(node) {
                    self.corrupt.left(node, now, Party::Node(to as u32), &frame.packet);
                }
                let link = self.links.between(node, to);
                let event = |frame| Event::ToNode { node: to as u32, from: node as u32, frame };
                self.send((link, Time::NEVER), frame, event);
            }
            Output::ToClient { session, frame } => {
                let person = person(session.0);
                let link = match person {
                    Some(person) => self.links.down(person),
                    None => self.links.service_down(self.exit_gateway(node)),
                };
                let next = now + span(1.0 / self.network.class.down_per_s);
                let mut frame = frame;
                if frame.field == Downward::Dummy as u16 {
                    let epoch = self.network.epoch(node, now).low_byte();
                    match person.and_then(|n| self.injector.instead(n, now, epoch)) {
                        Some(injected) => frame = injected,
                        // A dummy would change nothing at the client: it ends at the link.
                        None => {
                            self.links.send(link, now, next);
                            return;
                        }
                    }
                } else if let Some(person) = person
                    && frame.field == Downward::Packet as u16
                {
                    self.watched.down(person, now);
                    self.injector.passes(person, &frame.packet);
                }
                if self.corrupt.is(node) && frame.field == Downward::Packet as u16 {
                    self.corrupt.left(node, now, party(session.0), &frame.packet);
                }
                let event =
                    |frame| Event::ToClient { session: session.0, gateway: node as u32, frame };
                self.send((link, next), frame, event);
            }
            Output::CloseClient(session) => {
                if let Some(number) = person(session.0)
                    && self.people[number as usize].session == session.0
                {
                    self.people[number as usize].down(now);
                    self.wheel.insert(now + AGAIN, Event::Join(number));
                }
            }
            // Nobody asks for reports here, and there are no strangers.
            Output::Report(_) | Output::LetIn(_) => {}
            Output::Discard { inbox, packets } => {
                let waiting = self.inboxes.entry((node as u32, inbox)).or_default();
                waiting.drain(..waiting.len().min(packets as usize));
            }
            Output::Store { inbox, frame } => {
                self.inboxes.entry((node as u32, inbox)).or_default().push_back((now, frame));
            }
            Output::Fetch { inbox, max } => {
                let parameters = &self.network.document.parameters;
                let expiry = Duration::from_secs(u64::from(parameters.inbox_expiry_s));
                let waiting = self.inboxes.entry((node as u32, inbox)).or_default();
                let expired = waiting.iter().take_while(|(at, _)| now.since(*at) > expiry).count();
                waiting.drain(..expired);
                let count = max.min(waiting.len());
                let frames = waiting.drain(..count).map(|(_, frame)| frame).collect();
                let engine = &mut self.nodes[node].engine;
                if expired > 0 {
                    engine.handle(now, Input::Expired { inbox, packets: expired as u32 });
                }
                engine.handle(now, Input::Fetched { inbox, frames });
            }
        }
    }

    /// A frame takes a link, on which the next one leaves at an instant that may be known.
    fn send(
        &mut self,
        (link, next): (u32, Time),
        mut frame: Frame,
        event: impl Fn(Frame) -> Event,
    ) {
        let Some(passage) = self.links.send(link, self.now, next) else { return };
        if passage.tagged {
            // The last bytes of a payload: whole blocks of zeros with the null codec, anything with the real one.
            frame.packet.as_mut_bytes().iter_mut().rev().take(16).for_each(|byte| *byte ^= 0xA5);
        }
        for _ in 1..passage.copies {
            self.wheel.insert(passage.arrives, event(frame.clone()));
        }
        if passage.copies > 0 {
            self.wheel.insert(passage.arrives, event(frame));
        }
    }

    fn exit_gateway(&self, node: usize) -> u32 {
        let place = self.exit_gateways.iter().position(|gateway| *gateway as usize == node);
        place.unwrap_or_default() as u32
    }

    fn client_receives(&mut self, session: u64, gateway: u32, frame: Frame) {
        let now = self.now;
        let field = Downward::from_field(frame.field);
        let Some(number) = person(session) else {
            match field {
                Some(Downward::Notice) => self.exit_notice(gateway, &frame),
                Some(Downward::Packet) => {
                    if let Some(gateway) = self.network.identity(gateway) {
                        let before = self.exit.unreadable();
                        self.exit.frame(now, gateway, frame);
                        if self.exit.unreadable() > before && now >= Time::ZERO + self.warm_up {
                            self.unreadable.push(Time::ZERO + now.since(Time::ZERO + self.warm_up));
                        }
                    }
                    self.work_exit();
                }
                _ => {}
            }
            return;
        };
        let person = &mut self.people[number as usize];
        if person.session != session {
            return;
        }
        match field {
            Some(Downward::Notice) => self.notice(number, &frame),
            Some(Downward::Packet) => {
                let sent = person.uplink.sent_loops();
                person.client.loops_sent(sent);
                match person.client.handle_frame(now, frame) {
                    Arrival::FromOthers if self.settings.trial.credits => person.uplink.credit(),
                    // A letter, for which its session answers; media of a call, which need no credit.
                    Arrival::FromOthers | Arrival::NoCredit | Arrival::Media => {}
                    Arrival::Loop | Arrival::Nothing => return,
                }
                self.work(number);
            }
            _ => {}
        }
    }

    fn notice(&mut self, number: u32, frame: &Frame) {
        let now = self.now;
        let person = &mut self.people[number as usize];
        let Some(gateway) = self.network.identity(person.gateway) else { return };
        match Notice::unpack(&frame.packet) {
            Ok(Notice::Challenge { nonce }) => {
                let hello = person.hello(&gateway, &nonce, &self.network.class.name);
                let (session, gateway) = (person.session, person.gateway);
                if let Some(frame) = hello {
                    let event = |frame| Event::FromClient { session, gateway, sent: now, frame };
                    self.send((self.links.up(number), Time::NEVER), frame, event);
                }
            }
            Ok(Notice::Welcome) => {
                person.up(now, gateway);
                self.work(number);
            }
            Ok(Notice::Refused(_)) | Err(_) => self.refused += 1,
        }
    }

    fn exit_notice(&mut self, gateway: u32, frame: &Frame) {
        let now = self.now;
        let Ok(Notice::Challenge { nonce }) = Notice::unpack(&frame.packet) else { return };
        let Some(identity) = self.network.identity(gateway) else { return };
        let place = self.exit_gateway(gateway as usize);
        let (_, _, inbox) = &self.network.exit;
        let proof = Hello::prove(inbox, &identity, &Identity([place as u8; 32]), &nonce);
        let hello = Hello {
            inbox: inbox.identity(),
            proof,
            token: Vec::new(),
            mode: Mode::Service,
            descriptor: None,
            documents: Vec::new(),
            away: Away::Keep,
        };
        if let Ok(packet) = hello.pack() {
            let frame = Frame { epoch: 0, field: shoal_sphinx::CLIENT_CONTROL, packet };
            let event = |frame| Event::FromClient { session: 0, gateway, sent: now, frame };
            self.send((self.links.service_up(place), Time::NEVER), frame, event);
        }
    }

    fn join(&mut self, number: u32) {
        let person = &mut self.people[number as usize];
        if person.stage != Stage::Away {
            return;
        }
        let peer = person.connect(number);
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        if let Some(churn) = &mut person.churn {
            let stay = exponential(churn, span(self.settings.people.online_mean_s));
            self.wheel.insert(self.now + stay, Event::Leave(number));
        }
        let origin = Default::default();
        self.node(gateway, Input::Joined { session, peer, origin });
    }

    fn leave(&mut self, number: u32) {
        let person = &mut self.people[number as usize];
        if person.stage == Stage::Away {
            return;
        }
        person.down(self.now);
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        if let Some(churn) = &mut person.churn {
            let away = exponential(churn, span(self.settings.people.offline_mean_s));
            self.wheel.insert(self.now + away, Event::Join(number));
        }
        self.node(gateway, Input::Left(session));
    }

    /// Somebody interrupts a person's connection. It comes back as soon as a client dials again.
    fn interrupt(&mut self, interruption: u32, number: u32) {
        let Some(every_s) =
            self.settings.interruptions.get(interruption as usize).map(|one| one.every_s)
        else {
            return;
        };
        let next = self.now + span(every_s);
        self.wheel.insert(next, Event::Interrupt { interruption, person: number });
        let person = &mut self.people[number as usize];
        if person.stage == Stage::Away {
            return;
        }
        person.down(self.now);
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        self.wheel.insert(self.now + AGAIN, Event::Join(number));
        self.node(gateway, Input::Left(session));
    }

    /// A person's slots and timeouts.
    fn wake(&mut self, number: u32) {
        let now = self.now;
        let person = &mut self.people[number as usize];
        if person.client.next_timeout() <= now {
            person.client.handle_timeout(now);
        }
        let (session, gateway) = (person.session, person.gateway);
        let link = self.links.up(number);
        while self.people[number as usize].uplink.next_slot() <= now {
            let uplink = &mut self.people[number as usize].uplink;
            let frame = uplink.take(now);
            let next = uplink.next_slot();
            self.release.sent(now, &frame.packet);
            let event = |frame| Event::FromClient { session, gateway, sent: now, frame };
            self.send((link, next), frame, event);
        }
        let person = &mut self.people[number as usize];
        let sent = person.uplink.sent_loops();
        person.client.loops_sent(sent);
        self.work(number);
    }

    /// What came for a person's programs, and what they want sent.
    fn work(&mut self, number: u32) {
        let now = self.now;
        let Self { people, service, workload, contacts, warm_up, pairs, settings, .. } = self;
        let person = &mut people[number as usize];
        let mut take = |person: &mut Person| {
            while let Some(output) = person.client.poll_output() {
                match output {
                    ClientOutput::Message(handle, message) => {
                        // A letter that no session vouches for is none.
                        if let Some(letter) = Letter::read(&message, pairs, number) {
                            let what = (letter.activity, letter.tick);
                            activity::received(service, workload, *warm_up, what, now);
                            let credit = authenticated(person, &letter, handle, now);
                            if credit && settings.trial.credits {
                                person.uplink.credit();
                            }
                        }
                    }
                    ClientOutput::Failed(..) => {
                        if let Some(downloads) = &mut person.downloads {
                            downloads.failed();
                        }
                    }
                    ClientOutput::Media(media) => {
                        if let Some(letter) = Letter::read(&media, pairs, number) {
                            let what = (letter.activity, letter.tick);
                            activity::received(service, workload, *warm_up, what, now);
                        }
                    }
                    ClientOutput::EpochChanged => person.turn(now),
                    // Everyone stays where the scenario puts them.
                    ClientOutput::Connected(_)
                    | ClientOutput::Tunnel(..)
                    | ClientOutput::LeaveGateway
                    | ClientOutput::ComeBack => {}
                }
            }
        };
        take(person);
        if let Some(mut downloads) = person.downloads.take() {
            downloads.work(now, &mut person.client, service);
            person.downloads = Some(downloads);
        }
        person.produce(now, contacts, pairs);
        let at = person.next_wake();
        if at < person.scheduled {
            person.scheduled = at;
            self.wheel.insert(at, Event::Person(number));
        }
    }

    fn work_exit(&mut self) {
        let now = self.now;
        for send in self.exit.work(now) {
            let Some(gateway) = self.network.number(&send.gateway) else { continue };
            let link = self.links.service_up(self.exit_gateway(gateway));
            let gateway = gateway as u32;
            let event = |frame| Event::FromClient { session: 0, gateway, sent: now, frame };
            self.send((link, Time::NEVER), send.frame, event);
        }
        let at = self.exit.next_wake();
        if at < self.exit.scheduled {
            self.exit.scheduled = at;
            self.wheel.insert(at, Event::Exit);
        }
    }

    /// What the run gives.
    pub fn report(mut self) -> Report {
        let class = &self.network.class;
        let layers = u32::from(self.network.document.parameters.layers);
        let client = |link: &Link| {
            matches!(link.from, Party::Person(_)) || matches!(link.to, Party::Person(_))
        };
        let node = |link: &Link| matches!((link.from, link.to), (Party::Node(_), Party::Node(_)));
        let latency_s = 2.0 * self.links.mean_latency_s(client)
            + f64::from(layers + 1) * self.links.mean_latency_s(node);
        let public = Public {
            people: self.workload.people,
            begin: Time::ZERO,
            end: self.workload.end,
            hops: layers,
            hop_mean_s: class.delay.exponential_us as f64 / 1e6,
            uniform_s: class.delay.uniform_us as f64 / 1e6,
            latency_s,
            resting_up_per_s: class.payload_per_s + class.loops_per_s,
            resting_down_per_s: class.down_per_s,
            call_per_s: class.loop_share * class.payload_per_s,
        };
        let late: u64 = self.people.iter().map(|person| person.client.counts().media_late).sum();
        self.service.voice_unsent += late;
        let mut measured = self.service.measured();
        let mut exact = |name: &str, unit: &str, value: f64| {
            let (name, unit, estimate) = (name.into(), unit.into(), Estimate::exact(value));
            measured.push(Measured { name, unit, estimate, expected: None });
        };
        let count = |of: fn(&shoal_node::Counters) -> u64| {
            self.nodes.iter().map(|node| of(node.engine.counters())).sum::<u64>() as f64
        };
        exact("packets_on_links", "packets", self.links.packets() as f64);
        exact("packets_dropped_by_nodes", "packets", count(|c| c.dropped_in_all()));
        exact("node_loops_lost", "packets", count(|c| c.loops_lost));
        exact("clients_refused", "1", self.refused as f64);
        let filled = self.people.iter().map(|person| person.uplink.filled());
        let (total, filler) =
            filled.fold((0, 0), |(all, filler), f| (all + f.total(), filler + f.filler));
        exact("slots", "packets", total as f64);
        exact("slots_with_filler", "packets", filler as f64);
        let (dropped, copied) = self.links.tampered();
        if !self.settings.attacks.is_empty() {
            exact("packets_dropped_by_the_adversary", "packets", dropped as f64);
            exact("packets_copied_by_the_adversary", "packets", copied as f64);
        }
        if let Some(share) = self.release.late_share() {
            exact("packets_too_late_for_their_release", "1", share);
        }
        if !self.settings.injections.is_empty() {
            exact("packets_injected", "packets", self.injector.injected() as f64);
        }
        Report {
            at_gateway: self.watched.into_seen(),
            unreadable: self.unreadable,
            truth: self.workload.truth(),
            measured,
            trace_hash: self.links.hash(),
            hops: self.hops,
            packets: self.links.packets(),
            service: self.service,
            view: View {
                public,
                trace: self.links.observer.into_trace(),
                passes: self.corrupt.into_passes(),
            },
        }
    }
}

/// What people's sessions and calls do: they know whose a letter is. Whether it gives credit.
fn authenticated(person: &mut Person, letter: &Letter, handle: Handle, now: Time) -> bool {
    let mut contact = [0; 32];
    contact.iter_mut().zip(letter.from.to_be_bytes()).for_each(|(to, byte)| *to = byte);
    person.client.authenticated(now, contact, handle)
}

/// The person of a session; none for the service's.
fn person(session: u64) -> Option<u32> {
    (session as u32).checked_sub(1)
}

fn party(session: u64) -> Party {
    person(session).map_or(Party::Service(0), Party::Person)
}
