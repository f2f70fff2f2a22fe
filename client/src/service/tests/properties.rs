//! Clients that send what they like, when and how often they like, by tunnels that work and by garbage.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use shoal_sphinx::{Packet, PacketId};
use shoal_topology::testing::assert_at_rest;
use shoal_topology::{Role, SecretIdentity};

use super::*;
use crate::tunnel::{Read, StreamId, Tunnel, Write};

const IDENTITY: [u8; 32] = [4; 32];
const CLIENTS: usize = 4;
const MAX_TUNNELS: usize = 2;
/// What each client allows, in [`BUDGET_UNITS`].
const BUDGETS: [u16; CLIENTS] = [0, 20, 200, 2_000];
/// Of the epochs that documents come for, the first is that of [`Time::ZERO`].
const EPOCHS: u64 = 4;

#[derive(Clone, Debug)]
enum Happens {
    /// A client sends what its tunnel has, or nothing, with SURBs of an epoch so many from the present one.
    Sends {
        client: usize,
        surbs: usize,
        ahead: i64,
        idle: bool,
    },
    /// A client asks for a kilobyte, or ends its tunnel and begins another one under the same pseudonym.
    Asks(usize),
    Restarts(usize),
    /// Somebody sends a message under a name of his own.
    Stranger(u32),
    /// A frame comes once more, or by another gateway.
    Again(Index, u8),
    Garbage(Vec<u8>),
    Document(u64),
    Contradiction,
    Passes(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let client = || 0..CLIENTS;
    let ahead = prop_oneof![6 => Just(0), 3 => Just(1), 1 => -3..=4_i64];
    prop_oneof![
        20 => (client(), 0..6_usize, ahead, prop::bool::weighted(0.2)).prop_map(
            |(client, surbs, ahead, idle)| Happens::Sends { client, surbs, ahead, idle },
        ),
        3 => client().prop_map(Happens::Asks),
        1 => client().prop_map(Happens::Restarts),
        2 => (0..400_u32).prop_map(Happens::Stranger),
        2 => (any::<Index>(), 0..3_u8).prop_map(|(frame, gateway)| Happens::Again(frame, gateway)),
        1 => vec(any::<u8>(), 0..200).prop_map(Happens::Garbage),
        2 => (0..EPOCHS).prop_map(Happens::Document),
        1 => prop::bool::weighted(0.1)
            .prop_map(|lies| if lies { Happens::Contradiction } else { Happens::Passes(1) }),
        8 => (1..900_u64).prop_map(Happens::Passes),
        1 => (1..15_000_u64).prop_map(Happens::Passes),
    ]
}

/// A SURB that was given.
struct Given {
    pseudonym: Pseudonym,
    epoch: u64,
}

/// What a client was sent, and what it may have been sent.
#[derive(Default)]
struct Account {
    budget: f64,
    allowed: f64,
    sent: f64,
}

struct Drive {
    now: Time,
    service: Service,
    authority: Authority,
    tunnels: Vec<Tunnel>,
    streams: Vec<Option<StreamId>>,
    restarts: u64,
    rng: Stream,
    surbs: u64,
    given: HashMap<PacketId, Given>,
    frames: Vec<Frame>,
    accounts: BTreeMap<Pseudonym, Account>,
    /// By which gateway the last packet of each came.
    came_by: HashMap<Pseudonym, Identity>,
    sent: u64,
}

fn base() -> Instant {
    static BASE: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(crate::tunnel::pair::base);
    *BASE
}

fn connect(now: Time, n: u64) -> Tunnel {
    let key = SecretIdentity::from_bytes(&IDENTITY).identity().0;
    let seed = Seed::from_u64(100 + n);
    Tunnel::connect(base(), now, &seed, key, &TunnelSettings::default()).unwrap()
}

impl Drive {
    fn new() -> Self {
        let settings = TunnelSettings { max_connections: MAX_TUNNELS, ..TunnelSettings::default() };
        let secret = SecretKey::from_bytes([3; 32]);
        let (seed, start) = (Seed::from_u64(1), (base(), Time::ZERO));
        let service =
            Service::new(Arc::new(NullCodec), start, &seed, (&IDENTITY, secret), &settings)
                .unwrap();
        let mut drive = Self {
            now: Time::ZERO,
            service,
            authority: Authority::new(20),
            tunnels: (0..CLIENTS as u64).map(|n| connect(Time::ZERO, n)).collect(),
            streams: vec![None; CLIENTS],
            restarts: CLIENTS as u64,
            rng: seed.stream("clients"),
            surbs: 0,
            given: HashMap::new(),
            frames: Vec::new(),
            accounts: BTreeMap::new(),
            came_by: HashMap::new(),
            sent: 0,
        };
        drive.happen(&Happens::Document(0));
        drive
    }

    fn unix_s(&self) -> u64 {
        20 * EPOCH + self.now.as_nanos() / 1_000_000_000
    }

    fn present(&self) -> u64 {
        self.service.router.epoch(self.now).map_or(EPOCH, |epoch| epoch.0)
    }

    /// SURBs of an epoch, by mixes of the first layer that the documents have then, and some that lead nowhere.
    fn surbs(&mut self, pseudonym: Pseudonym, epoch: u64, count: usize) -> Vec<Surb> {
        let document = self.authority.document(epoch);
        let first = document.in_layer(1).next().unwrap();
        let made = |_| {
            self.surbs += 1;
            let id = (1 + u128::from(self.surbs)).to_be_bytes();
            let index = if self.surbs.is_multiple_of(11) {
                document.gateways().next().unwrap()
            } else {
                first
            };
            let node = document.nodes[index].descriptor.body();
            assert!(self.surbs.is_multiple_of(11) == (node.role == Role::Gateway));
            let key = SecretKey::from_bytes([1; 32]).public();
            let hop = |address| Hop { address, key, delay: Duration::ZERO };
            let path = [hop(node.identity.0), hop([2; 32])];
            let (surb, _) = NullCodec.surb(&mut self.rng, &path, id).unwrap();
            self.given.insert(id, Given { pseudonym, epoch });
            surb
        };
        (0..count).map(made).collect()
    }

    fn sends(&mut self, message: &ToService) {
        let key = SecretKey::from_bytes([3; 32]).public();
        let hop = Hop { address: [2; 32], key, delay: Duration::ZERO };
        let packet = NullCodec.seal(&mut self.rng, &[hop], [0; 16], &message.encode()).unwrap();
        let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet };
        self.frames.push(frame.clone());
        // It may have been forgotten, and begins anew then.
        let is_new = !self.service.peers.contains_key(&message.pseudonym);
        let account = self.accounts.entry(message.pseudonym).or_default();
        account.allowed += if is_new { FIRST_BURST } else { 0.0 };
        account.budget = f64::from(message.budget.max(1)) / BUDGET_UNITS;
        self.arrives(GATEWAY, message.pseudonym, frame);
    }

    fn arrives(&mut self, gateway: Identity, pseudonym: Pseudonym, frame: Frame) {
        let before = self.service.counts().received;
        // Replies to it leave while it is handled.
        let last = self.came_by.insert(pseudonym, gateway);
        self.service.handle_frame(self.now, gateway, frame);
        if self.service.counts().received == before {
            last.map(|last| self.came_by.insert(pseudonym, last));
        }
        self.take();
    }

    /// What the service's program does: it answers each byte with a kilobyte. And what leaves.
    fn take(&mut self) {
        while let Some((pseudonym, event)) = self.service.poll_event() {
            let TunnelEvent::Readable(id) = event else { continue };
            let mut buf = [0; 16];
            while let Read::Data(n) = self.service.tunnels().read(pseudonym, id, &mut buf) {
                let answer = vec![7; 1_000 * n];
                if let Write::Written(_) = self.service.tunnels().write(pseudonym, id, &answer) {}
            }
            self.service.work(self.now);
        }
        while let Some(Send { gateway, frame }) = self.service.poll_output() {
            self.sent += 1;
            assert!(self.service.halted.is_none(), "who is halted answers nothing");
            let key = SecretKey::from_bytes([1; 32]);
            let opened = NullCodec.open(&key, frame.packet).unwrap();
            let Ok(Peeled::Forward { packet, .. }) = NullCodec.peel(opened) else {
                panic!("two hops")
            };
            let opened = NullCodec.open(&key, packet).unwrap();
            let Ok(Peeled::Final { id, payload, .. }) = NullCodec.peel(opened) else {
                panic!("two hops")
            };
            let Given { pseudonym, epoch } = self.given.remove(&id).expect("a SURB is used once");
            assert_eq!(
                (epoch, frame.epoch),
                (self.present(), Epoch(epoch).low_byte()),
                "in its epoch"
            );
            assert!(gateway == self.came_by[&pseudonym], "by the gateway of the last packet");
            self.accounts.get_mut(&pseudonym).unwrap().sent += 1.0;
            let reply = FromService::decode(payload.message().unwrap()).unwrap();
            let client = u128::from_be_bytes(pseudonym) as usize;
            if let Some(tunnel) = self.tunnels.get_mut(client) {
                tunnel.handle_datagram(self.now, &reply.datagram);
            }
        }
    }

    fn happen(&mut self, what: &Happens) {
        let now = self.now;
        match what {
            Happens::Sends { client, surbs, ahead, idle } => {
                let pseudonym = name(*client as u32);
                let mut datagram = Vec::new();
                if !idle {
                    self.tunnels[*client].poll_transmit(now, &mut datagram);
                }
                let epoch = self.present().saturating_add_signed(*ahead);
                let count = ToService::room(datagram.len()).min(*surbs);
                let surbs = self.surbs(pseudonym, epoch, count);
                let (epoch, budget) = (Epoch(epoch).low_byte(), BUDGETS[*client]);
                self.sends(&ToService { pseudonym, budget, epoch, surbs, datagram });
            }
            Happens::Asks(client) => {
                let tunnel = &mut self.tunnels[*client];
                let stream = self.streams[*client].or_else(|| tunnel.open(now));
                if let Some(stream) = stream {
                    tunnel.write(stream, b"?");
                }
                self.streams[*client] = stream;
            }
            Happens::Restarts(client) => {
                self.tunnels[*client].close(now, 0);
                self.happen(&Happens::Sends { client: *client, surbs: 1, ahead: 0, idle: false });
                self.restarts += 1;
                (self.tunnels[*client], self.streams[*client]) =
                    (connect(now, self.restarts), None);
            }
            Happens::Stranger(n) => {
                let pseudonym = name(1_000 + n);
                let epoch = self.present();
                let surbs = self.surbs(pseudonym, epoch, 3);
                let epoch = Epoch(epoch).low_byte();
                self.sends(&ToService { pseudonym, budget: 1, epoch, surbs, datagram: Vec::new() });
            }
            Happens::Again(frame, gateway) if !self.frames.is_empty() => {
                let frame = frame.get(&self.frames).clone();
                let received = self.service.counts().received;
                self.service.handle_frame(now, Identity([*gateway; 32]), frame);
                assert_eq!(self.service.counts().received, received, "a packet counts once");
                self.take();
            }
            Happens::Again(..) => {}
            Happens::Garbage(bytes) => {
                let mut packet = Packet::default();
                packet.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
                let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet };
                self.service.handle_frame(now, GATEWAY, frame);
                self.take();
            }
            Happens::Document(ahead) => {
                let held = self.authority.sign(&self.authority.document(EPOCH + ahead));
                let _ = self.service.set_document(now, self.unix_s(), held);
            }
            Happens::Contradiction => {
                let mut document = self.authority.document(EPOCH);
                document.parameters.warn_bits += 1.0;
                let held = self.authority.sign(&document);
                let _ = self.service.set_document(now, self.unix_s(), held);
            }
            Happens::Passes(ms) => self.pass(now + Duration::from_millis(*ms)),
        }
    }

    fn pass(&mut self, end: Time) {
        loop {
            let due = self.tunnels.iter_mut().filter_map(Tunnel::next_timeout).min();
            let at =
                self.service.next_timeout().min(due.unwrap_or(Time::NEVER)).min(end).max(self.now);
            let passed = at.since(self.now).as_secs_f64();
            for account in self.accounts.values_mut() {
                account.allowed += account.budget * passed;
            }
            self.now = at;
            if self.service.next_timeout() <= at {
                self.service.handle_timeout(at);
                self.take();
                assert_at_rest(&mut self.service, at);
            }
            for tunnel in &mut self.tunnels {
                if tunnel.next_timeout().is_some_and(|due| due <= at) {
                    tunnel.handle_timeout(at);
                }
            }
            if at == end {
                return;
            }
        }
    }

    fn check(&self) {
        let Service { peers, counts, .. } = &self.service;
        assert!(peers.len() <= MAX_TUNNELS + MAX_STRANGERS);
        for (pseudonym, peer) in peers {
            let count = |epoch| peer.surbs.iter().filter(|(of, _)| *of == epoch).count();
            assert!(peer.surbs.iter().all(|(of, _)| count(*of) <= MAX_STOCK));
            if !peer.connected
                && self.tunnels.get(u128::from_be_bytes(*pseudonym) as usize).is_none()
            {
                assert!(peer.surbs.len() <= 2 * STRANGER_STOCK);
            }
            assert!(peer.surbs.len() <= 2 * MAX_STOCK, "of two epochs");
            assert!(peer.surbs.iter().is_sorted_by_key(|(of, _)| *of));
            let epochs: std::collections::BTreeSet<Epoch> =
                peer.surbs.iter().map(|(of, _)| *of).collect();
            let far = |of: &Epoch| of.0 > self.present() + 1;
            assert!(
                !epochs.iter().any(far),
                "SURBs of this epoch and the next one are kept: {epochs:?}"
            );
        }
        for account in self.accounts.values() {
            let burst = BURST.max(BURST_S * account.budget);
            assert!(
                account.sent <= account.allowed + burst + 1e-6,
                "{} of {}",
                account.sent,
                account.allowed
            );
        }
        let (_, stock) = self.service.sizes();
        let spent = counts.sent + counts.surbs_bad + counts.surbs_full + counts.surbs_expired;
        assert!(spent + stock as u64 <= self.surbs, "no SURB comes from nowhere");
        assert_eq!(counts.sent, self.sent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_service_spends_each_surb_once_within_its_budget_and_keeps_its_bounds(
        steps in vec(happens(), 1..160),
    ) {
        let mut drive = Drive::new();
        for step in &steps {
            drive.happen(step);
            drive.check();
        }
    }
}
