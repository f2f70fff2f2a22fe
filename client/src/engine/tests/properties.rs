//! A user who does anything, an exit that answers, and a network and a gateway that lose, repeat, reorder and make up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rand::RngExt;
use shoal_sphinx::{Frame, Packet, Peeled};
use shoal_topology::testing::assert_at_rest;
use shoal_topology::wire::client_gateway::kind;

use super::*;
use crate::message::ToService;
use crate::service::Service;
use crate::tunnel::{Read, TunnelEvent};
use crate::uplink::{Ready, Slot};
use crate::world::{MIXES, client as named};

/// Short epochs, so that some pass.
const EPOCH_S: u32 = 4;

/// What is the same for whoever uses the client and for whoever does not.
#[derive(Clone, Debug)]
enum Given {
    Passes(u64),
    /// The link ends, and is made again to a gateway.
    Unlink,
    Link(usize),
    /// The document of the next epoch comes, or an amendment that demotes a mix, or one that contradicts.
    Document,
    Amendment,
    Contradiction,
}

/// What the user does, and what comes.
#[derive(Clone, Debug)]
enum Use {
    Group(u8, bool),
    Open(Index, u16),
    Close(Index, bool),
    Complain(Index),
    Post(usize, u16),
    Call(u64),
    Speak(u16),
    EndCall(u64),
    Settings(u8),
    /// Shares of what is lost and of what comes twice, percent, and whether the exit answers.
    Weather(u8, u8, bool),
    Replay(Index),
    Garbage(u8),
    Letter,
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        24 => (1..400_u64).prop_map(Given::Passes),
        1 => (1..3_000_u64).prop_map(Given::Passes),
        1 => Just(Given::Unlink),
        3 => (0..3_usize).prop_map(Given::Link),
        4 => Just(Given::Document),
        1 => Just(Given::Amendment),
        1 => prop::bool::weighted(0.1).prop_map(|lies| {
            if lies { Given::Contradiction } else { Given::Passes(7) }
        }),
    ]
}

fn used() -> impl Strategy<Value = Use> {
    let index = any::<Index>;
    prop_oneof![
        3 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(user, of)| Use::Group(user, of)),
        6 => (index(), 0..5_000_u16).prop_map(|(group, bytes)| Use::Open(group, bytes)),
        2 => (index(), any::<bool>()).prop_map(|(stream, resets)| Use::Close(stream, resets)),
        1 => index().prop_map(Use::Complain),
        1 => (0..3_usize, 0..2_100_u16).prop_map(|(gateway, bytes)| Use::Post(gateway, bytes)),
        1 => (0..500_u64).prop_map(Use::Call),
        3 => (0..2_100_u16).prop_map(Use::Speak),
        1 => (0..500_u64).prop_map(Use::EndCall),
        1 => (0..4_u8).prop_map(Use::Settings),
        2 => (0..60_u8, 0..30_u8, prop::bool::weighted(0.8))
            .prop_map(|(lost, twice, answers)| Use::Weather(lost, twice, answers)),
        2 => index().prop_map(Use::Replay),
        2 => any::<u8>().prop_map(Use::Garbage),
        1 => Just(Use::Letter),
    ]
}

/// A client with its uplink, an exit, and packets on their way.
struct Drive {
    now: Time,
    client: Client,
    uplink: Uplink,
    exit: Service,
    authority: Authority,
    epoch: u64,
    amendment: u16,
    linked: bool,
    /// Frames of the class, so many percent are lost, so many come twice.
    weather: (u8, u8, bool),
    chance: Stream,
    under_way: BinaryHeap<Reverse<(Time, u64)>>,
    packets: HashMap<u64, Packet>,
    order: u64,
    /// What went down, to be replayed.
    down: Vec<Frame>,
    groups: Vec<GroupId>,
    streams: Vec<(GroupId, StreamId)>,
    surbs: HashSet<Vec<u8>>,
    loops_back: u64,
    left: Vec<(Time, u16, u8)>,
}

impl Drive {
    fn new(seed: u64) -> Self {
        let mut authority = Authority::new(EPOCH_S);
        authority.clock_error_s = 1;
        let (seed, person, exit) = (Seed::from_u64(seed), named("person"), named("exit"));
        let base = (crate::tunnel::pair::base(), Time::ZERO);
        let class = Parameters::default().class("web").cloned().unwrap();
        let codec = Arc::new(NullCodec);
        let keys = (person.key(), person.body.inbox);
        let client =
            Client::new(codec.clone(), base, &seed, class.clone(), keys, ClientSettings::default());
        let settings = TunnelSettings::default();
        let service = (&exit.secret, exit.key());
        let exit = Service::new(codec, base, &seed.part("exit"), service, &settings).unwrap();
        let (under_way, packets, down) = Default::default();
        let (groups, streams, surbs, left) = Default::default();
        let mut drive = Self {
            now: Time::ZERO,
            client,
            uplink: Uplink::new(&seed.part("uplink"), class, Time::ZERO),
            exit,
            authority,
            epoch: START,
            amendment: 0,
            linked: false,
            weather: (0, 0, true),
            chance: seed.stream("chance"),
            under_way,
            packets,
            order: 0,
            down,
            groups,
            streams,
            surbs,
            loops_back: 0,
            left,
        };
        drive.tell(|_| {});
        drive.give(&Given::Link(0));
        drive
    }

    fn tell(&mut self, change: impl FnOnce(&mut Document)) {
        let mut document = self.authority.document(self.epoch);
        document.amendment = self.amendment;
        change(&mut document);
        let held = self.authority.sign(&document);
        let unix_s = u64::from(EPOCH_S) * START + self.now.as_nanos() / 1_000_000_000;
        let _ = self.client.set_document(self.now, unix_s, held.clone());
        let _ = self.exit.set_document(self.now, unix_s, held);
        self.after();
    }

    fn give(&mut self, given: &Given) {
        match given {
            Given::Passes(ms) => self.pass(self.now + Duration::from_millis(*ms)),
            Given::Unlink => {
                self.linked = false;
                self.client.set_link(self.now, None);
                self.uplink.clear(Vec::new());
            }
            Given::Link(gateway) => {
                self.linked = true;
                self.client.set_link(self.now, Some(identity(GATEWAYS[*gateway])));
                let turns = self.client.turns(self.now);
                self.uplink.restart(self.now);
                self.uplink.clear(turns);
            }
            Given::Document => {
                (self.epoch, self.amendment) = (self.epoch + 1, 0);
                self.authority.demoted.clear();
                self.tell(|_| {});
            }
            Given::Amendment => {
                self.amendment += 1;
                self.authority.demoted = vec![MIXES[0]];
                self.tell(|_| {});
            }
            Given::Contradiction => self.tell(|document| document.parameters.warn_bits += 1.0),
        }
        self.after();
    }

    fn act(&mut self, used: &Use) {
        let now = self.now;
        let contact = |gateway: usize| {
            let other = named("contact");
            Contact {
                inbox: other.body.inbox,
                key: other.key().public(),
                gateway: identity(GATEWAYS[gateway]),
            }
        };
        match used {
            Use::Group(user, of_a_service) => {
                let address =
                    ServiceAddress { identity: [*user; 32], gateway: identity(GATEWAYS[1]).0 };
                let target = if *of_a_service { Target::Service(address) } else { Target::Exit };
                let group = self.client.group(now, Isolation::new(Some((&[*user], b""))), target);
                self.groups.extend(group);
            }
            Use::Open(group, bytes) if !self.groups.is_empty() => {
                let group = *group.get(&self.groups);
                if let Some(stream) = self.client.open(now, group) {
                    self.client.tunnel(group).unwrap().write(stream, &vec![3; (*bytes).into()]);
                    self.client.touch(now, group);
                    self.streams.push((group, stream));
                }
            }
            Use::Close(stream, resets) if !self.streams.is_empty() => {
                let (group, stream) = self.streams.swap_remove(stream.index(self.streams.len()));
                if let Some(tunnel) = self.client.tunnel(group) {
                    if *resets {
                        tunnel.reset(stream, 1)
                    } else {
                        tunnel.finish(stream)
                    }
                    self.client.closed(now, group);
                }
            }
            Use::Complain(group) if !self.groups.is_empty() => {
                self.client.avoid(now, *group.get(&self.groups));
                self.client.complain(now, *group.get(&self.groups));
            }
            Use::Open(..) | Use::Close(..) | Use::Complain(_) => {}
            Use::Post(gateway, bytes) => {
                let _ = self.client.post(now, &contact(*gateway), &vec![1; (*bytes).into()]);
            }
            Use::Call(ms) => {
                let at = now + Duration::from_millis(*ms);
                self.client.begin_call(contact(1), at);
                self.uplink.begin_call(at);
            }
            Use::Speak(bytes) => _ = self.client.speak(now, &vec![2; (*bytes).into()]),
            Use::EndCall(ms) => {
                let at = now + Duration::from_millis(*ms);
                self.client.end_call(at);
                self.uplink.end_call(at);
            }
            Use::Settings(n) => self.client.set_settings(ClientSettings {
                allow_shared_gateway: n % 2 == 0,
                min_mixes_per_layer: usize::from(*n),
                replies: if *n == 1 { Replies::Resting } else { Replies::Downlink },
                letters_at_once: *n == 2,
                ..ClientSettings::default()
            }),
            Use::Weather(lost, twice, answers) => self.weather = (*lost, *twice, *answers),
            Use::Replay(frame) if !self.down.is_empty() => {
                let frame = frame.get(&self.down).clone();
                self.arrives(frame);
            }
            Use::Replay(_) => {}
            Use::Garbage(byte) => {
                let mut packet = Packet::default();
                packet.as_mut_bytes().fill(*byte);
                self.arrives(Frame { epoch: 0, field: u16::from(byte % 5), packet });
            }
            Use::Letter => {
                let (person, message) = (named("person"), [kind::MESSAGE, 1, 2]);
                let (address, key) = (person.body.inbox.0, person.key().public());
                let hop = shoal_sphinx::Hop { address, key, delay: Duration::ZERO };
                let packet = NullCodec.seal(&mut self.chance, &[hop], [0; 16], &message).unwrap();
                self.arrives(Frame { epoch: 0, field: Downward::Packet as u16, packet });
            }
        }
        self.after();
    }

    fn arrives(&mut self, frame: Frame) {
        if self.linked {
            let returned = self.client.loops().returned;
            let arrival = self.client.handle_frame(self.now, frame);
            let back = self.client.loops().returned - returned;
            assert_eq!(back, u64::from(arrival == Arrival::Loop));
            self.loops_back += back;
            if arrival == Arrival::FromOthers {
                self.uplink.credit();
            }
        }
        self.after();
    }

    /// What the daemon does after each input.
    fn after(&mut self) {
        while let Some(output) = self.client.poll_output() {
            if let ClientOutput::EpochChanged = output {
                let turns = self.client.turns(self.now);
                self.uplink.set_class(self.client.class().clone());
                if self.linked {
                    self.uplink.follow(turns);
                }
            }
        }
        self.client.departed(self.uplink.departed());
        loop {
            let wants = self.uplink.wants(self.now);
            let frames = self.client.produce(self.now, wants.clone());
            if frames.is_empty() {
                return;
            }
            self.check_frames(&wants, &frames);
            frames.into_iter().for_each(|(ready, slot, frame)| self.uplink.put(ready, slot, frame));
        }
    }

    /// For each frame there is a slot of its own that wanted what it is.
    fn check_frames(&self, wants: &Wants, frames: &[(Ready, Slot, Frame)]) {
        let mut taken = HashSet::new();
        let mut counts = [0; 2];
        let free = self.client.protection(self.now).is_ok() && !self.client.is_paused();
        for (ready, slot, frame) in frames {
            assert!(taken.insert(slot.number), "two frames for a slot");
            assert_eq!((frame.epoch, frame.field), (slot.way.epoch.low_byte(), slot.way.first));
            let of = match ready {
                Ready::Data | Ready::Refill => {
                    counts[usize::from(*ready == Ready::Refill)] += 1;
                    &wants.user
                }
                Ready::Letter(_) => &wants.letters,
                Ready::Media => &wants.media,
                Ready::Loop(_) => &wants.loops,
                Ready::Drop => &wants.drops,
            };
            assert!(of.contains(slot), "{ready:?} where none was wanted");
            let cover = matches!(ready, Ready::Loop(_) | Ready::Drop | Ready::Media);
            assert!(cover || free, "something of the user's while nothing of it may leave");
        }
        assert!(counts[0] <= wants.data && counts[1] <= wants.refill);
    }

    /// One slot: its frame goes on its way, to wherever it leads.
    fn slot(&mut self) {
        let at = self.uplink.next_slot();
        let frame = self.uplink.take(at);
        self.left.push((at, frame.field, frame.epoch));
        assert_eq!(self.uplink.filled().total(), self.left.len() as u64, "one frame in each slot");
        let random = frame.packet.as_bytes()[33] > 5;
        if !random && let Some((_, payload, _)) = end_of(frame.packet.clone()) {
            // What is on its way for the first time: no SURB leaves twice.
            for surb in
                payload.message().ok().and_then(ToService::decode).iter().flat_map(|m| &m.surbs)
            {
                assert!(self.surbs.insert(surb.as_bytes().to_vec()), "a SURB is given out once");
            }
        }
        self.send(frame.packet);
        self.after();
    }

    fn send(&mut self, packet: Packet) {
        let (lost, twice, _) = self.weather;
        let times = match self.chance.random_range(0..100) {
            n if n < lost => 0,
            n if n < lost + twice => 2,
            _ => 1,
        };
        for _ in 0..times {
            let takes = Duration::from_millis(self.chance.random_range(20..150));
            self.order += 1;
            self.under_way.push(Reverse((self.now + takes, self.order)));
            self.packets.insert(self.order, packet.clone());
        }
    }

    /// A packet has crossed the network.
    fn crosses(&mut self, packet: Packet) {
        let Some((address, _, last)) = end_of(packet) else { return };
        let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet: last };
        if address == named_inbox("person") {
            self.down.push(frame.clone());
            self.arrives(frame);
        } else if address == named_inbox("exit") && self.weather.2 {
            self.exit.handle_frame(self.now, identity(GATEWAYS[2]), frame);
            self.serve();
        }
    }

    fn serve(&mut self) {
        while let Some((pseudonym, event)) = self.exit.poll_event() {
            let TunnelEvent::Readable(id) = event else { continue };
            let mut buf = [0; 4_096];
            while let Read::Data(n) = self.exit.tunnels().read(pseudonym, id, &mut buf) {
                self.exit.tunnels().write(pseudonym, id, &buf[..n]);
            }
        }
        self.exit.work(self.now);
        while let Some(send) = self.exit.poll_output() {
            self.send(send.frame.packet);
        }
    }

    fn pass(&mut self, end: Time) {
        loop {
            let packet = self.under_way.peek().map_or(Time::NEVER, |Reverse((at, _))| *at);
            let (client, exit) = (self.client.next_timeout(), self.exit.next_timeout());
            let slot = self.uplink.next_slot();
            let next = packet.min(client).min(exit).min(slot);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if client <= self.now {
                // A tunnel may ask for the same instant once more.
                let done = (0..4).any(|_| {
                    self.client.handle_timeout(self.now);
                    self.client.next_timeout() > self.now
                });
                assert!(done, "what was due is done");
                self.after();
                assert_at_rest(&mut self.client, self.now);
            }
            if exit <= self.now {
                self.exit.handle_timeout(self.now);
                self.serve();
            }
            if slot <= self.now {
                self.slot();
            }
            if packet <= self.now
                && let Some(Reverse((_, order))) = self.under_way.pop()
                && let Some(packet) = self.packets.remove(&order)
            {
                self.crosses(packet);
            }
        }
    }

    fn check(&self) {
        let Client {
            groups, outstanding, close_notices, outbox, call, descriptors, queries, ..
        } = &self.client;
        assert!(groups.len() <= MAX_GROUPS && outstanding.len() <= MAX_OUTSTANDING);
        assert!(close_notices.len() <= MAX_CLOSE_NOTICES && outbox.len() <= types::MAX_LETTERS);
        assert!(call.as_ref().is_none_or(|call| call.waiting.len() <= 5));
        assert!(
            descriptors.len() <= 4 * MAX_GROUPS
                && queries.len() <= groups.len() + descriptors.len() + outbox.len()
        );
        assert!(self.client.outputs.is_empty());
        assert!(groups.values().all(|group| group.streams <= tunnel::MAX_STREAMS as usize));
        let LoopCounts { sent, returned, lost, .. } = self.client.loops();
        assert!(returned + lost <= sent && returned == self.loops_back);
    }
}

fn named_inbox(name: &str) -> [u8; 32] {
    static INBOXES: std::sync::LazyLock<HashMap<&str, [u8; 32]>> = std::sync::LazyLock::new(|| {
        ["person", "exit"].into_iter().map(|name| (name, named(name).body.inbox.0)).collect()
    });
    INBOXES[name]
}

/// Where a packet ends, what is in it, and the packet as its last hop gets it; none if it is no packet.
fn end_of(mut packet: Packet) -> Option<([u8; 32], shoal_sphinx::Payload, Packet)> {
    let key = SecretKey::from_bytes([1; 32]);
    loop {
        let last = packet.clone();
        match NullCodec.peel(NullCodec.open(&key, packet).ok()?).ok()? {
            Peeled::Forward { packet: next, .. } => packet = next,
            Peeled::Final { destination, payload, .. } => {
                return Some((destination, payload, last));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_client_keeps_its_bounds_and_sends_as_one_that_nobody_uses(
        seed in 0..1_000_u64,
        steps in vec((given(), vec(used(), 0..3)), 1..90),
    ) {
        let (mut idle, mut busy) = (Drive::new(seed), Drive::new(seed));
        for (given, used) in &steps {
            for used in used {
                busy.act(used);
                busy.check();
            }
            idle.give(given);
            busy.give(given);
            busy.check();
            prop_assert_eq!(&idle.left, &busy.left, "instants, first hops and epochs");
        }
    }
}
