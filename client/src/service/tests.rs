mod properties;

use shoal_sphinx::{Hop, NullCodec};
use shoal_topology::{Seed, Stream};

use super::*;
use crate::world::{Authority, START};

const GATEWAY: Identity = Identity([1; 32]);

/// The epoch at [`Time::ZERO`], of 20 s.
const EPOCH: u64 = START;

struct Net {
    service: Service,
    hop: Hop,
    rng: Stream,
}

fn net(max_tunnels: usize) -> Net {
    let secret = SecretKey::from_bytes([3; 32]);
    let hop = Hop { address: [2; 32], key: secret.public(), delay: Duration::ZERO };
    let settings = TunnelSettings { max_connections: max_tunnels, ..TunnelSettings::default() };
    let seed = Seed::from_u64(1);
    let start = (crate::tunnel::pair::base(), Time::ZERO);
    let codec = Arc::new(NullCodec);
    let mut service = Service::new(codec, start, &seed, (&[4; 32], secret), &settings).unwrap();
    let authority = Authority::new(20);
    let held = authority.sign(&authority.document(EPOCH));
    service.set_document(Time::ZERO, 20 * EPOCH, held).unwrap();
    Net { service, hop, rng: seed.stream("net") }
}

impl Net {
    fn surbs(&mut self, count: usize) -> Vec<Surb> {
        let made = |_| NullCodec.surb(&mut self.rng, &[self.hop], [9; 16]).unwrap().0;
        (0..count).map(made).collect()
    }

    fn send(&mut self, now: Time, pseudonym: Pseudonym, surbs: Vec<Surb>) {
        self.send_of(now, EPOCH, pseudonym, surbs);
    }

    fn send_of(&mut self, now: Time, epoch: u64, pseudonym: Pseudonym, surbs: Vec<Surb>) {
        let epoch = Epoch(epoch).low_byte();
        let message = ToService { pseudonym, budget: 10, epoch, surbs, datagram: Vec::new() };
        let message = message.encode();
        let packet = NullCodec.seal(&mut self.rng, &[self.hop], [0; 16], &message).unwrap();
        let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet };
        self.service.handle_frame(now, GATEWAY, frame);
    }
}

fn name(n: u32) -> Pseudonym {
    u128::from(n).to_be_bytes()
}

#[test]
fn pseudonyms_without_a_tunnel_are_bounded_and_forgotten() {
    let mut net = net(4);
    let room = 4 + MAX_STRANGERS as u32;
    for n in 0..room + 40 {
        net.send(Time::from_millis(u64::from(n)), name(n), Vec::new());
    }
    assert_eq!(net.service.peers.len(), room as usize);
    assert_eq!(net.service.counts().no_room, 40);
    // The oldest went.
    assert!(!net.service.peers.contains_key(&name(39)));
    assert!(net.service.peers.contains_key(&name(40)));
    // Who has a tunnel stays, however long it has been silent.
    net.service.peers.get_mut(&name(40)).unwrap().connected = true;
    net.send(Time::from_secs(1), name(1_000), Vec::new());
    assert!(net.service.peers.contains_key(&name(40)));
    assert!(!net.service.peers.contains_key(&name(41)));
    // The others are forgotten at the instant that the service asks to be woken at, and it asks no more then.
    let mut wakes = 0;
    while net.service.next_timeout() != Time::NEVER {
        let at = net.service.next_timeout();
        net.service.handle_timeout(at);
        wakes += 1;
        assert!(at <= Time::from_secs(21) && wakes < 1_000);
    }
    assert_eq!(net.service.peers.len(), 1);
}

#[test]
fn the_surbs_of_a_pseudonym_are_bounded_and_the_oldest_go() {
    let mut net = net(4);
    for _ in 0..10 {
        let surbs = net.surbs(4);
        net.send(Time::ZERO, name(1), surbs);
    }
    assert_eq!(net.service.sizes().1, STRANGER_STOCK);
    assert_eq!(net.service.counts().surbs_full, 40 - STRANGER_STOCK as u64);

    net.service.peers.get_mut(&name(1)).unwrap().connected = true;
    let mut last = None;
    for _ in 0..150 {
        let surbs = net.surbs(4);
        last = surbs.last().map(|surb| *surb.as_bytes());
        net.send(Time::ZERO, name(1), surbs);
    }
    assert_eq!(net.service.sizes().1, MAX_STOCK);
    let newest = net.service.peers[&name(1)].surbs.back().map(|(_, surb)| *surb.as_bytes());
    assert!(newest == last, "the newest is spent first, and never pushed out");
}

#[test]
fn surbs_are_kept_by_epoch_and_those_of_no_epoch_near_are_dropped() {
    let mut net = net(4);
    for epoch in [EPOCH + 1, EPOCH, EPOCH + 1, EPOCH - 3, EPOCH + 3] {
        let surbs = net.surbs(3);
        net.send_of(Time::ZERO, epoch, name(1), surbs);
    }
    assert_eq!(net.service.counts().surbs_bad, 6);
    let peer = &net.service.peers[&name(1)];
    let epochs: Vec<u64> = peer.surbs.iter().map(|(epoch, _)| epoch.0 - EPOCH).collect();
    assert_eq!(epochs, [0, 0, 0, 1, 1, 1, 1, 1, 1], "packets overtake each other");
}

#[test]
fn two_documents_of_one_epoch_silence_a_service() {
    let mut net = net(4);
    let authority = Authority::new(20);
    let mut document = authority.document(EPOCH);
    document.parameters.warn_bits += 1.0;
    assert_eq!(net.service.trouble(Time::ZERO), None);
    net.service.set_document(Time::ZERO, 20 * EPOCH, authority.sign(&document)).unwrap_err();
    let said = |service: &Service, at| service.trouble(at).unwrap().to_string();
    assert!(said(&net.service, Time::ZERO).contains("contradict"));
    let held = authority.sign(&authority.document(EPOCH + 1));
    net.service.set_document(Time::ZERO, 20 * EPOCH, held).unwrap();
    assert!(said(&net.service, Time::from_secs(30)).contains("contradict"), "for good");
}

#[test]
fn a_replayed_packet_brings_nothing_whatever_becomes_of_the_keys() {
    let mut net = net(4);
    let surbs = net.surbs(1);
    let epoch = Epoch(EPOCH).low_byte();
    let message = ToService { pseudonym: name(1), budget: 10, epoch, surbs, datagram: Vec::new() };
    let packet = NullCodec.seal(&mut net.rng, &[net.hop], [0; 16], &message.encode()).unwrap();
    let frame = Frame { epoch: 0, field: Downward::Packet as u16, packet };
    net.service.handle_frame(Time::ZERO, GATEWAY, frame.clone());
    net.service.handle_frame(Time::ZERO, GATEWAY, frame.clone());
    let old = SecretKey::from_bytes([3; 32]);
    let make = |_: &SecretKey| -> Box<dyn ReplayCache> { Box::new(crate::keys::InMemory::new(9)) };
    net.service.set_keys(vec![old, SecretKey::from_bytes([8; 32])], make);
    net.service.handle_frame(Time::ZERO, GATEWAY, frame);
    let counts = net.service.counts();
    assert_eq!((counts.received, counts.replayed), (1, 2));
    assert_eq!(net.service.sizes().1, 1);
}
