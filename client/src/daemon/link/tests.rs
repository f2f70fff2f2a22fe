use shoal_host::link::Allow;

use super::*;

/// Of a client of class web that has heard of no document.
fn link(clock: Clock, inbox: Inbox, events: mpsc::Sender<LinkEvent>) -> GatewayLink {
    GatewayLink {
        clock,
        inbox,
        token: Arc::default(),
        mode: Mode::Class("web".into()),
        descriptor: None,
        events,
        overrun: Arc::default(),
        dummies: Arc::default(),
        goal: Arc::default(),
        renew: Arc::default(),
        has: Has::default(),
        seed: Seed::from_u64(1),
    }
}

#[tokio::test]
async fn frames_that_a_busy_engine_has_no_room_for_are_dropped_and_counted() {
    let gateway_key = LinkKey::from_seed(&[2; 32]);
    let listen = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let settings = LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
    let mut gateway = Endpoint::new(&gateway_key, settings).unwrap();
    let address = gateway.listen_addr().unwrap();
    let key = LinkKey::throwaway().unwrap();
    let settings = LinkSettings { listen: None, ..LinkSettings::default() };
    let client = Endpoint::new(&key, settings).unwrap();
    let (dialled, accepted) =
        tokio::join!(client.dial(gateway_key.public(), address), gateway.accept());
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());

    let (events, mut engine) = mpsc::channel(8);
    let link = link(Clock::start(), Inbox::OfTheLink, events);
    let frame = |n: u8, what: Downward| {
        let mut packet = shoal_sphinx::Packet::default();
        packet.as_mut_bytes()[0] = n;
        Frame { epoch: 0, field: what as u16, packet }.encode()
    };
    let mut frames: Vec<_> = (0..100).map(|n| frame(n, Downward::Packet)).collect();
    frames.push(frame(0, Downward::Dummy));
    accepted.sender.send_all(&frames).await.unwrap();
    // The engine takes nothing; the link is drained all the same.
    let drained = async {
        while link.dummies.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = link.receive(Identity([2; 32]), &mut dialled.receiver) => panic!("the link ended"),
        drained = timeout(SILENCE, drained) => drained.unwrap(),
    }
    assert_eq!(link.overrun.load(Ordering::Relaxed), 92);
    for n in 0..8 {
        let Ok(LinkEvent::Frame(_, frame)) = engine.try_recv() else { panic!("frame {n}") };
        assert_eq!(frame.packet.as_bytes()[0], n);
    }
    assert!(engine.try_recv().is_err());
}

fn choice(of: usize) -> Choice {
    Choice::new((0, of), Seed::from_u64(7).stream("patience"))
}

/// The gateway fails until the client goes elsewhere: when it does.
fn fails(choice: &mut Choice, mut now: Time) -> Time {
    let at = choice.at;
    while choice.at == at {
        now = now + choice.ended(false, now);
    }
    now
}

/// The inboxes that a gateway sees in three links of one client.
async fn seen_by_a_gateway(inbox: Inbox) -> Vec<Identity> {
    let gateway_key = LinkKey::from_seed(&[2; 32]);
    let listen = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let settings = LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
    let mut endpoint = Endpoint::new(&gateway_key, settings).unwrap();
    let identity = Identity(gateway_key.public());
    let gateway = Gateway { identity, address: endpoint.listen_addr().unwrap().into() };
    let (events, mut engine) = mpsc::channel(8);
    let link = link(Clock::start(), inbox, events);
    let say = |notice: Notice| {
        let packet = notice.pack().unwrap();
        Frame { epoch: 0, field: Downward::Notice as u16, packet }.encode()
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (_kept, frames) = mpsc::channel(1);
        let (mut out, up) = (Out::AtOnce(frames), Default::default());
        let gateway_side = async {
            let mut accepted = endpoint.accept().await.unwrap();
            let nonce = [9; 32];
            accepted.sender.send_all(&[say(Notice::Challenge { nonce })]).await.unwrap();
            let hello = accepted.receiver.next().await.unwrap().unwrap();
            let hello = Hello::unpack(&Frame::decode(&hello).unwrap().packet).unwrap();
            assert!(hello.is_proven(&identity, &Identity(accepted.peer), &nonce));
            accepted.sender.send_all(&[say(Notice::Welcome)]).await.unwrap();
            let Some(LinkEvent::Up(_, told)) = engine.recv().await else { panic!("not up") };
            assert_eq!(told, hello.inbox, "the engine is told where its loops end");
            hello.inbox
        };
        tokio::select! {
            _ = link.once(&gateway, &mut out, &up) => panic!("the link ended"),
            inbox = timeout(SILENCE, gateway_side) => seen.push(inbox.unwrap()),
        }
    }
    seen
}

#[tokio::test]
async fn two_links_of_a_client_show_inboxes_that_nothing_joins() {
    let seen = seen_by_a_gateway(Inbox::OfTheLink).await;
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
    // A service's stands in its descriptor.
    let key = SecretIdentity::from_bytes(&[3; 32]);
    let seen = seen_by_a_gateway(Inbox::Kept(Box::new(key.clone()))).await;
    assert_eq!(seen, [key.identity(); 3]);
}

#[tokio::test]
async fn what_was_sealed_for_a_link_that_is_dead_leaves_on_no_other_one() {
    use crate::uplink::{Ready, Turn, Uplink};
    let (clock, class) = (Clock::start(), shoal_topology::Parameters::default());
    let mut uplink = Uplink::new(&Seed::from_u64(1), class.classes[0].clone(), clock.now());
    let epoch = shoal_topology::Epoch(1);
    let first_hops = Arc::from([0_u16, 1, 2]);
    uplink.clear(vec![Turn { from: Time::ZERO, epoch, edition: (epoch, 0), first_hops }]);
    let slot = uplink.wants(clock.now()).user[0];
    let packet = shoal_sphinx::Packet::default();
    uplink.put(Ready::Data, slot, Frame { epoch: 1, field: slot.way.first, packet });
    assert_ne!(uplink.next_slot(), Time::NEVER);
    let slots = Slots::new(Arc::new(SlotQueue::new(uplink)));
    let (events, _engine) = mpsc::channel(8);
    let link = link(clock, Inbox::OfTheLink, events);
    // Nobody listens there.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gateway = Gateway { identity: Identity([2; 32]), address: address.into() };
    let mut out = Out::Slots(slots.clone());
    let up = std::sync::atomic::AtomicBool::new(false);
    assert_eq!(link.once(&gateway, &mut out, &up).await, Err(DownReason::Unreachable));
    assert_eq!((slots.queue.next_slot(), slots.queue.filled().thrown), (Time::NEVER, 1));
}

#[tokio::test]
async fn the_link_leaves_its_gateway_when_the_engine_wants_another() {
    let goal = Goal::new(0);
    let waits = Duration::from_millis(20);
    assert!(timeout(waits, goal.leaves(0)).await.is_err(), "it wants this one");
    goal.go(0);
    assert!(timeout(waits, goal.leaves(0)).await.is_err(), "still");
    goal.go(1);
    timeout(SILENCE, goal.leaves(0)).await.unwrap();
    let mut choice = choice(2);
    choice.go(goal.at());
    assert_eq!(choice.at, 1);
}

#[test]
fn a_gateway_that_is_shut_for_three_seconds_is_not_left_and_one_that_stays_shut_is_at_a_drawn_instant()
 {
    let mut moved = Vec::new();
    for seed in 0..100 {
        let mut choice = Choice::new((0, 2), Seed::from_u64(seed).stream("patience"));
        let mut now = Time::from_secs(100);
        while now < Time::from_secs(103) {
            now = now + choice.ended(false, now);
            assert_eq!(choice.at, 0);
        }
        choice.ended(true, now);
        moved.push(fails(&mut choice, now).since(now));
    }
    // Nobody before four seconds, everybody within twenty, and in no second more than a third.
    let seconds = |n: u64| moved.iter().filter(|after| after.as_secs() == n).count();
    assert!(moved.iter().all(|after| (4..20).contains(&after.as_secs())), "{moved:?}");
    assert!((0..20).all(|n| seconds(n) <= 33), "{moved:?}");
}

#[test]
fn one_that_worked_gets_its_attempts_again_even_when_the_other_was_left() {
    let mut choice = choice(2);
    choice.go(1);
    assert_eq!(choice.at, 1);
    assert!(choice.ended(true, Time::ZERO) <= BACKOFF[0]);
    assert_eq!(choice.at, 1);
    fails(&mut choice, Time::ZERO);
    assert_eq!(choice.at, 0, "better than none");
}

#[test]
fn a_client_tells_which_documents_it_has_and_forgets_the_oldest() {
    let has = Has::default();
    (0..6).for_each(|n| has.add(&[n; 100]));
    has.add(&[3; 100]);
    let tags = [2, 4, 5, 3].map(|n| DocumentPart::tag_of(&[n; 100]));
    assert_eq!(has.tags(), tags);
}
