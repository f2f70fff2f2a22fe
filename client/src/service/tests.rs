use shoal_sphinx::{Hop, StandIn};
use shoal_topology::Seed;

use super::*;

const GATEWAY: Identity = Identity([1; 32]);

struct Net {
    service: Service,
    hop: Hop,
    rng: Stream,
}

fn net(max_tunnels: usize) -> Net {
    let secret = SecretKey::from_bytes([3; 32]);
    let hop = Hop { address: [2; 32], key: secret.public(), delay: Duration::ZERO };
    let settings = tunnel::Settings { max_connections: max_tunnels, ..tunnel::Settings::default() };
    let seed = Seed::from_u64(1);
    let start = (crate::tunnel::pair::base(), Time::ZERO);
    let codec = Arc::new(StandIn);
    let service = Service::new(codec, start, &seed, (&[4; 32], secret), &settings).unwrap();
    Net { service, hop, rng: seed.stream("net") }
}

impl Net {
    fn surbs(&mut self, count: usize) -> Vec<Surb> {
        let made = |_| StandIn.surb(&mut self.rng, &[self.hop], [9; 16]).unwrap().0;
        (0..count).map(made).collect()
    }

    fn send(&mut self, now: Time, pseudonym: Pseudonym, surbs: Vec<Surb>) {
        let message = ToService { pseudonym, budget: 10, surbs, datagram: Vec::new() }.encode();
        let packet = StandIn.seal(&mut self.rng, &[self.hop], [0; 16], &message).unwrap();
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
    let newest = net.service.peers[&name(1)].surbs.back().map(|surb| *surb.as_bytes());
    assert!(newest == last, "the newest is spent first, and never pushed out");
}
