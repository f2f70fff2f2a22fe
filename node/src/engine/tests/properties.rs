//! A gateway whose clients come, go and send as they like, whose disk answers when it likes, and whose clock may stand still.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::sample::Index;
use shoal_sphinx::{Downward, Packet};
use shoal_topology::Parameters;
use shoal_topology::testing::{self, assert_at_rest};
use shoal_topology::wire::client_gateway::Notice;

use super::gateway::GatewaySettings;
use super::*;

const EPOCH_S: u32 = 40;
const PEOPLE: u8 = 6;
/// Limits that are soon reached.
const MAX_CLIENTS: usize = 4;
const MAX_OF_ONE: usize = 2;
const TOKEN_CONNECTIONS: usize = 2;
const SERVICE_PER_S: f64 = 20.0;
const MAX_INBOXES: usize = 4;
const MAX_PACKETS: usize = 14;
const QUOTA: u32 = 6;

#[derive(Clone, Debug)]
enum Happens {
    Joins {
        who: u8,
        mode: u8,
        origin: u64,
        keeps: bool,
        honest: bool,
    },
    Leaves(Index),
    /// A client's frame: to this index, with a key of this epoch from the present one on; or none.
    Sends(Index, u16, u64, bool),
    /// So many packets for an inbox, of the present epoch or the one before.
    Packets {
        who: u8,
        count: u8,
        old: bool,
    },
    /// A message that means nothing.
    Garbage(u8),
    /// The disk answers.
    Answers,
    Expires(u8, u8),
    /// The last packet for an inbox could not be stored.
    Fails(u8),
    Passes(u64),
    StandsStill(u64),
    Epoch,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0..PEOPLE, 0..4_u8, 0..3_u64, any::<bool>(), prop::bool::weighted(0.9)).prop_map(
            |(who, mode, origin, keeps, honest)| Happens::Joins { who, mode, origin, keeps, honest }
        ),
        3 => any::<Index>().prop_map(Happens::Leaves),
        2 => (any::<Index>(), 0..9_u16, 0..3_u64, prop::bool::weighted(0.9))
            .prop_map(|(of, index, epoch, is_frame)| Happens::Sends(of, index, epoch, is_frame)),
        8 => (0..PEOPLE, 1..30_u8, prop::bool::weighted(0.1))
            .prop_map(|(who, count, old)| Happens::Packets { who, count, old }),
        1 => any::<u8>().prop_map(Happens::Garbage),
        4 => Just(Happens::Answers),
        1 => (0..PEOPLE, 1..4_u8).prop_map(|(who, count)| Happens::Expires(who, count)),
        1 => (0..PEOPLE).prop_map(Happens::Fails),
        6 => (1..2_000_u64).prop_map(Happens::Passes),
        1 => (1..4_000_u64).prop_map(Happens::StandsStill),
        1 => Just(Happens::Epoch),
    ]
}

/// A connection of a client.
struct Line {
    who: u8,
    origin: u64,
    nonce: [u8; 32],
    keeps: bool,
    is_service: bool,
    /// Frames/s that go down.
    rate: f64,
    /// When it was let in.
    active: Option<Time>,
    packets: u64,
    dummies: u64,
}

struct Drive {
    now: Time,
    engine: NodeEngine,
    network: testing::TestNetwork,
    own: Identity,
    epoch: u64,
    lines: BTreeMap<SessionId, Line>,
    sessions: u64,
    /// Whose line is being let in.
    joining: Option<u8>,
    /// The inboxes that the gateway has to remember, and whether the client is here.
    known: BTreeMap<InboxId, bool>,
    /// The disk, and what it was asked for.
    disk: BTreeMap<InboxId, VecDeque<Frame>>,
    asked: VecDeque<(InboxId, usize)>,
    /// Packets that were put in, each for whom; those that went down; those that left with their inbox.
    given: Vec<u8>,
    down: BTreeMap<u64, u64>,
    gone: u64,
    stood_still: bool,
}

fn person(who: u8) -> testing::TestClient {
    testing::TestClient::new([who + 1; 32], &[])
}

fn inbox(who: u8) -> (Identity, InboxId) {
    let inbox = person(who).body.inbox;
    (inbox, InboxId::new(&[3; 32], &inbox))
}

impl Drive {
    fn new() -> Self {
        let parameters =
            Parameters { node_loops_per_s: 0.0, inbox_packets: QUOTA, ..Parameters::default() };
        let network =
            testing::TestNetwork::builder().parameters(parameters).epoch_s(EPOCH_S).build();
        let own = network.nodes[0].identity();
        let token = Token {
            secret: b"t".to_vec(),
            connections: TOKEN_CONNECTIONS,
            service: ServiceAccess::Allowed,
        };
        let gateway = GatewaySettings {
            admission: Admission::Open(vec![token]),
            max_clients: MAX_CLIENTS,
            max_clients_of_one: MAX_OF_ONE,
            token_clients: 1,
            service_per_s: SERVICE_PER_S,
            max_inboxes: MAX_INBOXES,
            max_inbox_packets: MAX_PACKETS,
            inbox_key: [3; 32],
            ..GatewaySettings::default()
        };
        let (identity, seed) = (own, Seed::from_u64(1));
        let settings =
            NodeSettings { identity, role: Role::Gateway, pool_packets: 10_000, seed, gateway };
        let mut drive = Self {
            now: Time::from_secs(1),
            engine: NodeEngine::new(settings, Arc::new(NullCodec)),
            epoch: network.epoch.0,
            network,
            own,
            lines: BTreeMap::new(),
            sessions: 0,
            joining: None,
            known: BTreeMap::new(),
            disk: BTreeMap::new(),
            asked: VecDeque::new(),
            given: Vec::new(),
            down: BTreeMap::new(),
            gone: 0,
            stood_still: false,
        };
        drive.document();
        drive
    }

    fn document(&mut self) {
        let epoch = Epoch(self.epoch);
        let held = self.network.sign(&self.network.document_at(epoch));
        let (document, signed, announce) = (held.document, held.signed, self.now);
        self.handle(Input::Document { document, signed, epoch, announce });
        self.handle(Input::Epoch(epoch));
    }

    fn handle(&mut self, input: Input) {
        self.engine.handle(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::ToClient { session, frame } => self.deliver(session, frame),
                Output::CloseClient(session) => self.ended(session),
                Output::LetIn(session) => {
                    let line = self.lines.get_mut(&session).unwrap();
                    line.active = Some(self.now);
                    self.known.insert(inbox(line.who).1, true);
                }
                Output::Forget(inbox) => {
                    let here = self.known.remove(&inbox);
                    let full = self.known.len() + 1 >= MAX_INBOXES;
                    assert!(here.is_none() || here == Some(false) && full, "an inbox is forgotten");
                    self.gone += self.disk.remove(&inbox).map_or(0, |kept| kept.len() as u64);
                }
                Output::Discard { inbox, packets } => {
                    let kept = self.disk.get_mut(&inbox).expect("it has packets");
                    kept.drain(..packets as usize);
                }
                Output::Store { inbox, frame } => {
                    assert!(self.known.contains_key(&inbox), "of a client that may come back");
                    self.disk.entry(inbox).or_default().push_back(frame);
                }
                Output::Fetch { inbox, max } => self.asked.push_back((inbox, max)),
                Output::Send { .. }
                | Output::Report(_)
                | Output::StoreDescriptor { .. }
                | Output::DiscardDescriptor(_) => {}
            }
        }
        assert_at_rest(&mut self.engine, self.now);
    }

    fn deliver(&mut self, session: SessionId, frame: Frame) {
        let line = self.lines.get_mut(&session).expect("a line that has not ended");
        match Downward::from_field(frame.field) {
            Some(Downward::Notice) => match Notice::unpack(&frame.packet).unwrap() {
                Notice::Challenge { nonce } => line.nonce = nonce,
                Notice::Welcome | Notice::Refused(_) => {}
            },
            Some(Downward::Packet) => {
                line.packets += 1;
                let number = u64::from_be_bytes(frame.packet.as_bytes()[..8].try_into().unwrap());
                assert_eq!(self.given[number as usize], line.who, "a packet of another");
                *self.down.entry(number).or_default() += 1;
            }
            Some(Downward::Dummy) => line.dummies += 1,
            _ => return,
        }
        assert!(
            line.active.is_some() || line.packets + line.dummies == 0,
            "only to who was let in"
        );
    }

    /// A line ended, at whichever end.
    fn ended(&mut self, session: SessionId) {
        let Some(line) = self.lines.remove(&session).filter(|line| line.active.is_some()) else {
            return;
        };
        let id = inbox(line.who).1;
        // Another line of the same client takes its place, with all that waits.
        match (self.joining == Some(line.who), line.keeps) {
            (true, _) => {}
            (false, true) => _ = self.known.insert(id, false),
            (false, false) => {
                self.known.remove(&id);
                self.gone += self.disk.remove(&id).map_or(0, |kept| kept.len() as u64);
            }
        }
    }

    fn join(&mut self, who: u8, mode: u8, origin: u64, keeps: bool, honest: bool) {
        self.sessions += 1;
        let (session, peer) = (SessionId(self.sessions), Identity([who; 32]));
        let (mode, rate, is_service) = match mode {
            0 => (Mode::Class("text".into()), 2.0, false),
            1 | 2 => (Mode::Class("web".into()), 110.0, false),
            _ => (Mode::Service, SERVICE_PER_S, true),
        };
        let (nonce, active, packets, dummies) = ([0; 32], None, 0, 0);
        let line = Line { who, origin, nonce, keeps, is_service, rate, active, packets, dummies };
        self.lines.insert(session, line);
        self.handle(Input::Joined { session, peer, origin: Origin(origin) });
        let signer = if honest { person(who) } else { person(PEOPLE) };
        let hello = Hello {
            inbox: inbox(who).0,
            proof: Hello::prove(&signer.inbox(), &self.own, &peer, &self.lines[&session].nonce),
            token: if is_service { b"t".to_vec() } else { Vec::new() },
            mode,
            descriptor: None,
            documents: Vec::new(),
            away: if keeps { Away::Keep } else { Away::Drop },
        };
        let frame = Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().unwrap() };
        self.joining = Some(who);
        self.handle(Input::Client { session, frame: Ok(frame) });
        self.joining = None;
        let is_in = self.lines.get(&session).map(|line| line.active.is_some());
        assert!(is_in != Some(false), "who is refused is sent away");
        assert!(honest || is_in.is_none(), "an inbox is opened to another");
        let lines = self.lines.values().filter(|line| line.who == who && line.active.is_some());
        assert!(lines.count() <= 1, "an older line ends");
    }

    fn nth(&self, of: &Index) -> Option<SessionId> {
        let sessions: Vec<SessionId> = self.lines.keys().copied().collect();
        (!sessions.is_empty()).then(|| *of.get(&sessions))
    }

    fn happen(&mut self, what: &Happens) {
        match what {
            Happens::Joins { who, mode, origin, keeps, honest } => {
                self.join(*who, *mode, *origin, *keeps, *honest);
            }
            Happens::Leaves(of) => {
                if let Some(session) = self.nth(of) {
                    self.ended(session);
                    self.handle(Input::Left(session));
                }
            }
            Happens::Sends(of, index, ahead, is_frame) => {
                let epoch = Epoch(self.epoch + ahead).low_byte();
                let frame = Frame { epoch, field: *index, packet: Packet::default() };
                let frame = if *is_frame { Ok(frame) } else { Err(DropReason::Version) };
                if let Some(session) = self.nth(of) {
                    self.handle(Input::Client { session, frame });
                }
            }
            Happens::Packets { who, count, old } => {
                for _ in 0..*count {
                    let mut packet = Packet::default();
                    let number = self.given.len() as u64;
                    packet.as_mut_bytes()[..8].copy_from_slice(&number.to_be_bytes());
                    self.given.push(*who);
                    let (next, delay) = (inbox(*who).0.0, ms(number % 7));
                    let peeled = Peeled::Forward { next, delay, packet };
                    let epoch = Epoch(self.epoch - u64::from(*old)).low_byte();
                    self.handle(Input::Arrived(Ok(Arrived { received: self.now, epoch, peeled })));
                }
            }
            Happens::Garbage(kind) => {
                let codec = NullCodec;
                let key = SecretKey::from_bytes([1; 32]);
                let hop = Hop { address: self.own.0, key: key.public(), delay: ms(0) };
                let mut rng = Seed::from_u64(1).stream("garbage");
                let packet = codec.seal(&mut rng, &[hop], [*kind; 16], &[*kind; 700]).unwrap();
                let peeled =
                    codec.open(&key, packet).and_then(|opened| codec.peel(opened)).unwrap();
                let epoch = Epoch(self.epoch).low_byte();
                self.handle(Input::Arrived(Ok(Arrived { received: self.now, epoch, peeled })));
            }
            Happens::Answers => {
                if let Some((inbox, max)) = self.asked.pop_front() {
                    let kept = self.disk.entry(inbox).or_default();
                    let frames = kept.drain(..kept.len().min(max)).collect();
                    self.handle(Input::Fetched { inbox, frames });
                }
            }
            Happens::Expires(who, count) => {
                let inbox = inbox(*who).1;
                let kept = self.disk.entry(inbox).or_default();
                let packets = kept.drain(..kept.len().min((*count).into())).count() as u32;
                self.handle(Input::Expired { inbox, packets });
            }
            Happens::Fails(who) => {
                let inbox = inbox(*who).1;
                let packets = u32::from(self.disk.entry(inbox).or_default().pop_back().is_some());
                self.handle(Input::NotStored { inbox, packets });
            }
            Happens::Passes(time) => self.pass(ms(*time)),
            Happens::StandsStill(time) => {
                self.stood_still = true;
                self.now += ms(*time);
                self.handle(Input::Wake);
            }
            Happens::Epoch => {
                self.epoch += 1;
                self.document();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_wake().filter(|at| *at <= end) {
            self.now = at;
            self.handle(Input::Wake);
        }
        self.now = end;
    }

    fn check(&self) {
        let active = || self.lines.values().filter(|line| line.active.is_some());
        assert_eq!(self.engine.clients(), active().count());
        assert!(active().count() <= MAX_CLIENTS);
        assert!(active().filter(|line| line.is_service).count() <= TOKEN_CONNECTIONS);
        for origin in 0..3 {
            let from_there = active().filter(|line| !line.is_service && line.origin == origin);
            assert!(from_there.count() <= MAX_OF_ONE);
        }
        for line in active() {
            let (since, rate) = (line.active.unwrap(), line.rate);
            let (sent, due) =
                (line.packets + line.dummies, self.now.since(since).as_secs_f64() * rate);
            if line.is_service {
                assert!(
                    line.dummies == 0 && sent as f64 <= due + rate / 20.0 + 1.0,
                    "{sent} of {due}"
                );
            } else {
                assert!(sent as f64 <= due + 1e-3, "{sent} frames where {due} are due");
                assert!(self.stood_still || sent as f64 >= due - 1.001, "{sent} frames of {due}");
            }
        }
        assert!(self.known.len() <= MAX_INBOXES);
        assert!(self.disk.values().all(|kept| kept.len() <= QUOTA as usize));
        assert!(self.disk.values().map(VecDeque::len).sum::<usize>() <= MAX_PACKETS);
        assert!(self.down.values().all(|times| *times == 1), "a packet goes down once");
        // A timer for each line and its schedule, and for each that ended lately; packets wait 6 ms at most.
        let [documents, timers, _] = self.engine.sizes();
        assert!(documents <= 4 && timers <= self.engine.pooled() + 3 * self.sessions as usize + 2);
    }
}

/// Lets all this happen; in the end each packet has gone down, is on the disk, or is counted.
fn run(steps: &[Happens]) {
    let mut drive = Drive::new();
    for step in steps {
        drive.happen(step);
        drive.check();
    }
    drive.pass(ms(30_000));
    while !drive.asked.is_empty() {
        drive.happen(&Happens::Answers);
        drive.pass(ms(30_000));
    }
    drive.check();
    assert_eq!(drive.engine.pooled(), 0);
    let counters = drive.engine.counters();
    let reasons = [
        DropReason::ClientQueueFull,
        DropReason::UnknownClient,
        DropReason::InboxFull,
        DropReason::EpochOver,
        DropReason::InboxExpired,
    ];
    let dropped: u64 = reasons.iter().map(|reason| counters.dropped(*reason)).sum();
    let kept: usize = drive.disk.values().map(VecDeque::len).sum();
    let accounted = drive.down.len() as u64 + kept as u64 + drive.gone + dropped;
    assert_eq!(accounted, drive.given.len() as u64, "a packet is nowhere");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_gateway_keeps_its_rates_and_limits_and_accounts_for_every_packet(
        steps in vec(happens(), 1..120),
    ) {
        run(&steps);
    }
}

#[test]
fn what_has_no_room_on_the_line_that_takes_over_is_counted() {
    let joins = |mode| Happens::Joins { who: 0, mode, origin: 0, keeps: true, honest: true };
    run(&[
        joins(3),
        Happens::Packets { who: 0, count: 40, old: false },
        Happens::Passes(8),
        joins(0),
    ]);
}
