//! What the queues around the engine do when they are full.

use std::future::Future as _;
use std::net::SocketAddr;
use std::task::Poll;

use shoal_host::link::{Allow, Endpoint, Identity as LinkIdentity, LinkSettings};
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::{NullCodec, Packet};
use shoal_topology::{Role, Seed};
use tokio::sync::watch;

use super::super::links::{self, LinkContext, Neighbourhood, OutgoingLinks};
use super::*;
use crate::engine::NodeSettings;
use crate::engine::gateway::InboxId;

const PATIENCE: Duration = Duration::from_secs(60);

fn machine(role: Role) -> EngineThread {
    let settings = NodeSettings {
        identity: Identity([1; 32]),
        role,
        pool_packets: 1,
        seed: Seed::from_u64(1),
        gateway: Default::default(),
    };
    let engine = NodeEngine::new(settings, Arc::new(NullCodec));
    EngineThread::new(engine, NodeClock::start(), Arc::default(), mpsc::channel(1).0)
}

impl EngineThread {
    /// As `handle` does with what the engine wants.
    fn put(&mut self, output: Output) {
        if let Some(answer) = self.output(output) {
            self.handle(answer);
        }
    }

    /// What was dropped, and nothing else was.
    fn dropped(&self, reason: DropReason) -> u64 {
        let counters = self.engine.counters();
        assert_eq!(counters.dropped(reason), counters.dropped_in_all());
        counters.dropped(reason)
    }

    fn context(&self) -> (LinkContext, Receiver<EngineEvent>) {
        let (events, queue) = Events::new();
        let (clock, shared) = (self.clock, self.shared.clone());
        (LinkContext { clock, events, shared, shutdown: Shutdown::new() }, queue)
    }
}

fn endpoint(n: u8, listen: Option<SocketAddr>) -> Endpoint {
    let settings = LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
    Endpoint::new(&LinkIdentity::from_seed(&[n; 32]), settings).unwrap()
}

fn listener(n: u8) -> (Endpoint, Identity, SocketAddr) {
    let endpoint = endpoint(n, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let address = endpoint.listen_addr().unwrap();
    (endpoint, Identity(LinkIdentity::from_seed(&[n; 32]).public()), address)
}

fn frame(n: usize) -> Frame {
    let mut packet = Packet::default();
    packet.as_mut_bytes()[..8].copy_from_slice(&(n as u64).to_be_bytes());
    Frame { epoch: 0, field: Downward::Packet as u16, packet }
}

fn number(frame: &Frame) -> usize {
    u64::from_be_bytes(*frame.packet.as_bytes().first_chunk().unwrap()) as usize
}

/// The link's next frame; `None` at its end.
async fn read(receiver: &mut shoal_host::link::FrameReceiver) -> Option<usize> {
    let next = tokio::time::timeout(PATIENCE, receiver.next()).await.unwrap();
    Some(number(&Frame::decode(&*next.unwrap()?).unwrap()))
}

#[test]
fn batches_beyond_a_neighbours_part_of_the_queue_of_the_workers_are_dropped_and_counted() {
    let mut machine = machine(Role::Mix);
    let (work, queue) = Work::new(&machine.shared);
    let give = |n, neighbour| {
        let frames = (0..16).map(|_| frame(n).encode()).collect();
        let came = Came { at: Time::ZERO, from: Identity([neighbour; 32]) };
        work.give(Batch { came, frames });
    };
    // One neighbour, and then others, each with half of what is free.
    let filled = |machine: &mut EngineThread| {
        machine.tell(Time::ZERO);
        machine.dropped(DropReason::Overload)
    };
    (0..128).for_each(|n| give(n, 1));
    assert_eq!(filled(&mut machine), 0);
    (0..3).for_each(|_| give(500, 1));
    assert_eq!(filled(&mut machine), 3 * 16);
    (128..192).for_each(|n| give(n, 2));
    (192..224).for_each(|n| give(n, 3));
    assert_eq!(filled(&mut machine), 3 * 16);
    for neighbour in 4..100 {
        give(600, neighbour);
    }
    // Those after fill the rest, and then no more.
    assert_eq!(filled(&mut machine), (3 + 64) * 16);
    assert_eq!(machine.shared.waiting_to_peel.load(Ordering::Relaxed), 256 * 16);
    let first = |batch: Batch| number(&Frame::decode(&batch.frames[0]).unwrap());
    assert!(std::iter::from_fn(|| queue.waiting()).take(224).map(first).eq(0..224));
    assert_eq!(std::iter::from_fn(|| queue.waiting()).count(), 32);
    give(700, 1);
    assert_eq!(queue.waiting().map(first), Some(700));
}

#[tokio::test]
async fn events_for_a_busy_engine_wait() {
    let (events, queue) = Events::new();
    let event = || EngineEvent::Input(Input::Wake);
    (0..1_024).for_each(|_| assert!(events.0.try_send(event()).is_ok()));
    assert!(matches!(events.0.try_send(event()), Err(TrySendError::Full(_))));
    let worker = std::thread::spawn({
        let events = events.clone();
        move || events.post_blocking(event())
    });
    let mut link = Box::pin(events.post(event()));
    assert!(std::future::poll_fn(|cx| Poll::Ready(link.as_mut().poll(cx))).await.is_pending());
    let mut came = 0;
    for _ in 0..1_025 {
        queue.recv().unwrap();
        came += 1;
    }
    link.await;
    worker.join().unwrap();
    drop(events);
    assert_eq!(came + queue.iter().count(), 1_024 + 2);
}

#[tokio::test]
async fn a_full_queue_to_a_next_hop_drops_the_newest() {
    let (mut next_hop, to, address) = listener(2);
    let ours = endpoint(1, None);
    let mut machine = machine(Role::Mix);
    let mut outgoing = OutgoingLinks::new(machine.context().0, ours.dialler());
    let neighbour = outgoing.connect(to, vec![address]);
    machine.event(EngineEvent::Neighbours([(to, neighbour.queue)].into()));
    // The link's task has not had its turn: nothing leaves the queue.
    (0..4_096).for_each(|n| machine.put(Output::Send { to, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::LinkQueueFull), 0);
    (4_096..4_099).for_each(|n| machine.put(Output::Send { to, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::LinkQueueFull), 3);
    assert_eq!(machine.shared.waiting_to_send.load(Ordering::Relaxed), 4_096);

    let mut link = next_hop.accept().await.unwrap();
    for n in 0..4_096 {
        assert_eq!(read(&mut link.receiver).await, Some(n));
    }
    machine.event(EngineEvent::Neighbours(HashMap::new()));
    assert_eq!(read(&mut link.receiver).await, None);
}

#[tokio::test]
async fn what_waits_for_a_next_hop_that_goes_is_counted_as_lost() {
    let (nobody, to, address) = listener(2);
    drop(nobody);
    let ours = endpoint(1, None);
    let mut machine = machine(Role::Mix);
    let mut outgoing = OutgoingLinks::new(machine.context().0, ours.dialler());
    let neighbour = outgoing.connect(to, vec![address]);
    machine.event(EngineEvent::Neighbours([(to, neighbour.queue)].into()));
    (0..10).for_each(|n| machine.put(Output::Send { to, frame: frame(n) }));
    machine.event(EngineEvent::Neighbours(HashMap::new()));
    outgoing.finish(PATIENCE).await;
    machine.tell(Time::ZERO);
    assert_eq!(machine.dropped(DropReason::LinkLost), 10);
    assert_eq!(machine.shared.waiting_to_send.load(Ordering::Relaxed), 0);

    // The delay of this one ended afterwards.
    machine.put(Output::Send { to, frame: frame(10) });
    assert_eq!(machine.dropped(DropReason::LinkLost), 11);
}

#[tokio::test]
async fn a_full_queue_to_a_clients_link_drops_the_newest() {
    let (gateway, identity, address) = listener(2);
    let mut machine = machine(Role::Gateway);
    let (context, events) = machine.context();
    let (_tell, around) = watch::channel(Neighbourhood { neighbours: None, parts: 3 });
    let work = Work::new(&machine.shared).0;
    let _accepting = tokio::spawn(links::accept(gateway, Role::Gateway, context, work, around));
    let ours = endpoint(1, None);
    let mut link = ours.dial(identity.0, address).await.unwrap();
    let joined = async {
        loop {
            match events.try_recv() {
                Ok(EngineEvent::Joined(joined)) => return joined,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let Joined { session, down, .. } = tokio::time::timeout(PATIENCE, joined).await.unwrap();
    machine.clients.insert(session, down);

    // Nothing leaves the queue until this test waits. Beside the 256, two documents fit.
    let room = 256 + 2 * 3;
    (0..room).for_each(|n| machine.put(Output::ToClient { session, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::ClientQueueFull), 0);
    (room..room + 5).for_each(|n| machine.put(Output::ToClient { session, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::ClientQueueFull), 5);
    for n in 0..room {
        assert_eq!(read(&mut link.receiver).await, Some(n));
    }
    machine.put(Output::CloseClient(session));
    assert_eq!(read(&mut link.receiver).await, None);
}

#[tokio::test]
async fn clients_that_are_sent_away_and_do_not_read_leave_room_for_others() {
    let settings = LinkSettings {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        allow: Allow::anyone(),
        max_connections: 6,
        max_strangers_of_one: 2,
        ..LinkSettings::default()
    };
    let gateway = Endpoint::new(&LinkIdentity::from_seed(&[2; 32]), settings).unwrap();
    let (identity, address) =
        (LinkIdentity::from_seed(&[2; 32]).public(), gateway.listen_addr().unwrap());
    let mut machine = machine(Role::Gateway);
    let (context, events) = machine.context();
    let (_tell, around) = watch::channel(Neighbourhood { neighbours: None, parts: 0 });
    let work = Work::new(&machine.shared).0;
    let _accepting = tokio::spawn(links::accept(gateway, Role::Gateway, context, work, around));
    let mut held = Vec::new();
    for n in 10..30 {
        let client = endpoint(n, None);
        let link = client.dial(identity, address).await;
        let link = link.unwrap_or_else(|error| panic!("client {n} is kept out: {error}"));
        let joined = async {
            loop {
                match events.try_recv() {
                    Ok(EngineEvent::Joined(joined)) => return joined,
                    Ok(_) => {}
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let Joined { session, down, .. } = tokio::time::timeout(PATIENCE, joined).await.unwrap();
        machine.clients.insert(session, down);
        machine.put(Output::LetIn(session));
        // Yamux lets 256 KiB go to one who does not read: 109 frames of these stay here.
        (0..256).for_each(|n| machine.put(Output::ToClient { session, frame: frame(n) }));
        machine.put(Output::CloseClient(session));
        held.push((client, link));
    }
}

#[test]
fn orders_beyond_the_queue_of_the_inbox_file_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inbox.redb");
    let (inbox, most) = (InboxId([1; 16]), 10_000);
    // The thread of the file tells of its answer and then waits until the gate is gone.
    let (tell, answers) = sync_channel(8);
    let (gate, closed) = sync_channel::<()>(0);
    let answer = move |input| {
        if let Input::Fetched { frames, .. } = input {
            tell.send(frames).unwrap();
            let _ = closed.recv();
        }
    };
    let mut machine = machine(Role::Gateway);
    machine.event(EngineEvent::Inbox(
        Inbox::start(&path, &[5; 32], most, Arc::default(), answer).unwrap(),
    ));
    machine.put(Output::Fetch { inbox, max: 1 });
    assert!(answers.recv().unwrap().is_empty());

    (0..4_096).for_each(|n| machine.put(Output::Store { inbox, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::InboxFull), 0);
    (4_096..4_099).for_each(|n| machine.put(Output::Store { inbox, frame: frame(n) }));
    assert_eq!(machine.dropped(DropReason::InboxFull), 3);
    drop(gate);
    machine.inbox.take().unwrap().finish();

    let (tell, answers) = sync_channel(8);
    let answer = move |input| {
        if let Input::Fetched { frames, .. } = input {
            tell.send(frames).unwrap();
        }
    };
    machine.event(EngineEvent::Inbox(
        Inbox::start(&path, &[5; 32], most, Arc::default(), answer).unwrap(),
    ));
    machine.put(Output::Fetch { inbox, max: most });
    assert!(answers.recv().unwrap().iter().map(number).eq(0..4_096));
}
