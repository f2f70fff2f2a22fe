//! The engine's thread, and the threads that peel for it.
//!
//! A thread of its own, since a runtime's timers have whole milliseconds and delays do not.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_host::link::Standing;
use shoal_sphinx::{Downward, Frame};
use shoal_topology::reputation::report::Report;
use shoal_topology::{Identity, Time};
use tokio::sync::{mpsc, oneshot};

use super::faults::FaultInjector;
use super::frames::Frames;
use super::inbox::{Inbox, Order};
use super::metrics::{Shared, Snapshot};
use crate::counters::DropReason;
use crate::engine::{Input, NodeEngine, Origin, Output, SessionId};
use crate::opener::{Arrived, Came, Opener, Room};

/// Events that wait for the engine. Workers wait when it is full; so do clients' links, and TCP tells the client.
const EVENTS: usize = 1_024;
/// Batches that wait for workers. A neighbour has as many as are free, and so half of them at most: whoever brings more
/// leaves room for others. One more is dropped and counted.
const BATCHES: usize = 256;
/// Frames that a worker opens together, about: as many as fill the lanes of the fastest backend.
const TOGETHER: usize = 32;
/// How often the numbers for the outside are renewed, and drops elsewhere are taken over.
const SNAPSHOT: Duration = Duration::from_millis(250);

/// The clock of a node: its origin is its start.
#[derive(Clone, Copy)]
pub(super) struct NodeClock(Instant);

impl NodeClock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO + self.0.elapsed()
    }
}

/// What the engine's thread is told.
pub(super) enum EngineEvent {
    Input(Input),
    /// What a worker opened.
    Opened(Vec<Result<Arrived, DropReason>>),
    /// What a client sent.
    Client(SessionId, Frames),
    /// A client has connected.
    Joined(Joined),
    /// The queues of the next hops, in place of those before.
    Neighbours(HashMap<Identity, mpsc::Sender<Frame>>),
    /// The way to the inbox.
    Inbox(Inbox),
    /// Finish what is under way and end.
    Stop,
}

/// A client's connection.
pub(super) struct Joined {
    pub(super) session: SessionId,
    pub(super) peer: Identity,
    pub(super) origin: Origin,
    pub(super) down: Downlink,
}

/// The way to a client. Its link ends soon after this is dropped.
pub(super) struct Downlink {
    /// Frames for it go there.
    pub(super) queue: mpsc::Sender<Frame>,
    pub(super) standing: Standing,
    /// Dropped with the rest: the link's task sees it while it waits for a client that does not read.
    pub(super) _here: oneshot::Sender<()>,
}

/// The way to the engine's thread.
#[derive(Clone)]
pub(super) struct Events(SyncSender<EngineEvent>);

impl Events {
    pub(super) fn new() -> (Self, Receiver<EngineEvent>) {
        let (events, queue) = sync_channel(EVENTS);
        (Self(events), queue)
    }

    /// Waits for room without blocking the runtime.
    pub(super) async fn post(&self, mut event: EngineEvent) {
        loop {
            match self.0.try_send(event) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                // The queue is one of threads, which has no waker: a task that waits for it would hold a thread of
                // the runtime.
                Err(TrySendError::Full(back)) => event = back,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for room; for threads.
    pub(super) fn post_blocking(&self, event: EngineEvent) {
        // Nobody is left to tell when the engine has ended.
        let _ = self.0.send(event);
    }
}

/// Starts the engine's thread.
pub(super) fn start(
    engine: NodeEngine,
    clock: NodeClock,
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    injector: Option<FaultInjector>,
) -> std::io::Result<(Events, JoinHandle<()>)> {
    let (events, queue) = Events::new();
    let machine = EngineThread { injector, ..EngineThread::new(engine, clock, shared, reports) };
    let thread =
        std::thread::Builder::new().name("engine".into()).spawn(move || machine.run(&queue))?;
    Ok((events, thread))
}

struct EngineThread {
    engine: NodeEngine,
    clock: NodeClock,
    shared: Arc<Shared>,
    neighbours: HashMap<Identity, mpsc::Sender<Frame>>,
    clients: HashMap<SessionId, Downlink>,
    inbox: Option<Inbox>,
    reports: mpsc::Sender<Report>,
    injector: Option<FaultInjector>,
}

impl EngineThread {
    fn new(
        engine: NodeEngine,
        clock: NodeClock,
        shared: Arc<Shared>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let (neighbours, clients) = Default::default();
        let (inbox, injector) = (None, None);
        Self { engine, clock, shared, neighbours, clients, inbox, reports, injector }
    }

    fn run(mut self, queue: &Receiver<EngineEvent>) {
        let mut told = Time::ZERO;
        loop {
            let now = self.clock.now();
            if now.since(told) >= SNAPSHOT {
                told = now;
                self.tell(now);
            }
            // Before the sleep is worked out, since what is held back may be due at this instant.
            self.release(now);
            let held = self.injector.as_ref().map_or(Time::NEVER, FaultInjector::next_wake);
            let wake = self.engine.next_wake().unwrap_or(Time::NEVER).min(held).since(now);
            // Never longer than a snapshot, so that the numbers do not grow old in a node that has no traffic.
            match queue.recv_timeout(wake.min(SNAPSHOT)) {
                Ok(EngineEvent::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.event(event),
                Err(RecvTimeoutError::Timeout) => self.handle(Input::Wake),
            }
        }
        // Queues end with their senders: links write what is in them and close.
        self.neighbours.clear();
        self.clients.clear();
        if let Some(inbox) = self.inbox.take() {
            inbox.finish();
        }
    }

    fn event(&mut self, mut event: EngineEvent) {
        if let Some(injector) = &mut self.injector {
            match &mut event {
                EngineEvent::Opened(batch) => injector.opened(batch),
                EngineEvent::Client(session, frames) => injector.client(*session, frames),
                EngineEvent::Input(Input::Left(session)) => injector.left(*session),
                _ => {}
            }
        }
        match event {
            EngineEvent::Input(input) => self.handle(input),
            EngineEvent::Opened(batch) => {
                batch.into_iter().for_each(|packet| self.handle(Input::Arrived(packet)));
            }
            EngineEvent::Client(session, frames) => {
                for bytes in frames {
                    let frame = Frame::decode(&bytes).map_err(|_| DropReason::Version);
                    self.handle(Input::Client { session, frame });
                }
            }
            EngineEvent::Joined(Joined { session, peer, origin, down }) => {
                self.clients.insert(session, down);
                self.handle(Input::Joined { session, peer, origin });
            }
            EngineEvent::Neighbours(queues) => self.neighbours = queues,
            EngineEvent::Inbox(inbox) => self.inbox = Some(inbox),
            EngineEvent::Stop => {}
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match &input {
            Input::Left(session) => _ = self.clients.remove(session),
            Input::Document { document, .. } => {
                let expiry = document.parameters.inbox_expiry_s;
                self.order(Order::Expiry(expiry));
            }
            Input::Configure(settings) => {
                let most = settings.max_inbox_packets;
                self.order(Order::Most(most));
            }
            _ => {}
        }
        // One instant for the input and for all answers to it: they are one step of the engine, however long the
        // outputs take.
        self.engine.handle(now, input);
        while let Some(output) = self.engine.poll_output() {
            if let Some(answer) = self.output(output) {
                self.engine.handle(now, answer);
            }
        }
    }

    /// An order to the inbox which need not be answered if there is no room for it.
    fn order(&self, order: Order) {
        _ = self.inbox.as_ref().map(|inbox| inbox.order(order));
    }

    /// Does what the engine wants; what it must know of that.
    fn output(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { to, frame } => {
                let frame = match &mut self.injector {
                    Some(injector) => injector.hold(self.clock.now(), to, frame)?,
                    None => frame,
                };
                self.send(&to, frame)
            }
            Output::ToClient { session, frame } => {
                let is_packet = frame.field == Downward::Packet as u16;
                // The engine's thread waits for no client: one that does not read would hold up the packets of all
                // others.
                let sent = self.clients.get(&session)?.queue.try_send(frame);
                // Drops are counted in packets; parts of a document and refusals are none.
                (sent.is_err() && is_packet)
                    .then_some(Input::Dropped(DropReason::ClientQueueFull, 1))
            }
            Output::CloseClient(session) => {
                // It may read what was sent, for a while, and takes no room from others by that.
                self.clients.remove(&session)?.standing.dismiss();
                None
            }
            Output::LetIn(session) => {
                self.clients.get(&session)?.standing.admit();
                None
            }
            Output::Discard { inbox, packets } => {
                // What stays for want of room expires.
                self.order(Order::Discard(inbox, packets as usize));
                None
            }
            Output::Forget(inbox) => {
                self.order(Order::Forget(inbox));
                None
            }
            Output::StoreDescriptor { inbox, descriptor, not_after } => {
                // What finds no room is missing after the next start, until its client is back.
                self.order(Order::StoreDescriptor(inbox, descriptor, not_after));
                None
            }
            Output::DiscardDescriptor(inbox) => {
                self.order(Order::DiscardDescriptor(inbox));
                None
            }
            Output::Store { inbox, frame } => {
                let refused = match &self.inbox {
                    Some(file) => file.order(Order::Store(inbox, frame)).is_err(),
                    None => true,
                };
                // The engine has counted the packet into the inbox when it gave the order.
                refused.then_some(Input::NotStored { inbox, packets: 1 })
            }
            Output::Fetch { inbox, max } => {
                let refused = match &self.inbox {
                    Some(file) => file.order(Order::Fetch(inbox, max)).is_err(),
                    None => true,
                };
                // The engine asks once and waits for the answer, so that an order that was refused must be answered
                // too.
                refused.then(|| Input::Fetched { inbox, frames: Vec::new() })
            }
            Output::Report(report) => {
                // When the one before was not taken yet, the loops of this one are not told.
                let _ = self.reports.try_send(report);
                None
            }
        }
    }

    fn send(&self, to: &Identity, frame: Frame) -> Option<Input> {
        let Some(queue) = self.neighbours.get(to) else {
            return Some(Input::Dropped(DropReason::LinkLost, 1));
        };
        // Before, since the link takes it away as soon as it has it.
        self.shared.waiting_to_send.fetch_add(1, Ordering::Relaxed);
        queue.try_send(frame).err().map(|_| {
            self.shared.waiting_to_send.fetch_sub(1, Ordering::Relaxed);
            Input::Dropped(DropReason::LinkQueueFull, 1)
        })
    }

    /// Sends what a corrupt node held back.
    fn release(&mut self, now: Time) {
        while let Some((to, frame)) = self.injector.as_mut().and_then(|held| held.release(now)) {
            if let Some(dropped) = self.send(&to, frame) {
                self.engine.handle(now, dropped);
            }
        }
    }

    fn tell(&mut self, now: Time) {
        let elsewhere = [
            (DropReason::Overload, &self.shared.overload),
            (DropReason::LinkLost, &self.shared.link_lost),
        ];
        for (reason, count) in elsewhere {
            // Taken and set to zero in one step, so that no drop is counted twice and none is missed in between.
            let packets = count.swap(0, Ordering::Relaxed);
            self.engine.handle(now, Input::Dropped(reason, packets));
        }
        let snapshot = Snapshot {
            counters: self.engine.counters().clone(),
            pooled: self.engine.pooled(),
            clients: self.engine.clients(),
        };
        *self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        // What `handle` did on the way comes out at once too.
        self.handle(Input::Wake);
    }
}

/// Frames that a link brought at once.
pub(super) struct Batch {
    pub(super) came: Came,
    pub(super) frames: Frames,
}

/// How many batches of each neighbour wait.
#[derive(Clone, Default)]
struct BatchQuotas(Arc<Mutex<HashMap<Identity, usize>>>);

impl BatchQuotas {
    /// Counts one more, if the neighbour has fewer than are free.
    fn take(&self, from: Identity) -> bool {
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = quotas.values().sum();
        let own = quotas.entry(from).or_default();
        // Compared with what is free and not with a fixed share: a single neighbour may have half, ten have a part
        // each.
        let may = *own < BATCHES.saturating_sub(taken);
        *own += usize::from(may);
        may
    }

    fn give_back(&self, from: &Identity) {
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = quotas.get_mut(from) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                quotas.remove(from);
            }
        }
    }
}

/// The way to the workers.
#[derive(Clone)]
pub(super) struct Work {
    batches: SyncSender<Batch>,
    quotas: BatchQuotas,
    shared: Arc<Shared>,
}

/// What waits for the workers.
pub(super) struct Batches {
    queue: Receiver<Batch>,
    quotas: BatchQuotas,
}

impl Batches {
    /// Waits for the next one; none comes when the last [`Work`] is gone.
    fn next(&self) -> Option<Batch> {
        self.left(self.queue.recv().ok()?)
    }

    /// The next one, if it is there.
    pub(super) fn waiting(&self) -> Option<Batch> {
        self.left(self.queue.try_recv().ok()?)
    }

    fn left(&self, batch: Batch) -> Option<Batch> {
        self.quotas.give_back(&batch.came.from);
        Some(batch)
    }
}

impl Work {
    pub(super) fn new(shared: &Arc<Shared>) -> (Self, Batches) {
        let (batches, queue) = sync_channel(BATCHES);
        let quotas = BatchQuotas::default();
        let work = Self { batches, quotas: quotas.clone(), shared: shared.clone() };
        (work, Batches { queue, quotas })
    }

    /// Hands a batch over, or drops and counts it when too many of its neighbour's wait.
    pub(super) fn give(&self, batch: Batch) {
        let (frames, from) = (batch.frames.len(), batch.came.from);
        // The sum is raised before the batch can be taken, else a fast worker would lower it below zero.
        self.shared.waiting_to_peel.fetch_add(frames, Ordering::Relaxed);
        let taken = self.quotas.take(from);
        if !taken || self.batches.try_send(batch).is_err() {
            if taken {
                self.quotas.give_back(&from);
            }
            self.shared.waiting_to_peel.fetch_sub(frames, Ordering::Relaxed);
            self.shared.overload.fetch_add(frames as u64, Ordering::Relaxed);
        }
    }
}

/// Starts the workers. They end when the last [`Work`] is gone.
pub(super) fn start_workers(
    threads: usize,
    opener: &Arc<Opener>,
    events: &Events,
    shared: &Arc<Shared>,
) -> std::io::Result<Work> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let (work, queue) = Work::new(shared);
    let queue = Arc::new(Mutex::new(queue));
    for number in 0..threads {
        let (queue, opener) = (queue.clone(), opener.clone());
        let (events, shared) = (events.clone(), shared.clone());
        let peel = move || {
            let (mut batches, mut frames, mut room) = (Vec::new(), Vec::new(), Room::default());
            loop {
                let mut opened = Vec::new();
                {
                    // One waits for a batch, the others for their turn.
                    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(mut batch) = queue.next() else { return };
                    // What has come by then is opened together, but no more than this worker's share of it.
                    let waiting = shared.waiting_to_peel.load(Ordering::Relaxed);
                    let share = (waiting / threads).clamp(8, TOGETHER);
                    let mut taken = 0;
                    loop {
                        taken += batch.frames.len();
                        batches.push(batch);
                        let next = (taken < share).then(|| queue.waiting());
                        let Some(Some(next)) = next else { break };
                        batch = next;
                    }
                    shared.waiting_to_peel.fetch_sub(taken, Ordering::Relaxed);
                }
                for Batch { came, frames: bytes } in batches.drain(..) {
                    for bytes in &bytes {
                        match Frame::decode(bytes) {
                            Ok(frame) => frames.push((came, frame)),
                            Err(_) => opened.push(Err(DropReason::Version)),
                        }
                    }
                }
                // Outside the lock, so that workers open at the same time.
                opener.open_batch(&mut frames, &mut room, &mut opened);
                events.post_blocking(EngineEvent::Opened(opened));
            }
        };
        std::thread::Builder::new().name(format!("peel {number}")).spawn(peel)?;
    }
    Ok(work)
}

#[cfg(test)]
mod tests;
