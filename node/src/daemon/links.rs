//! Links: one to each next hop, with a queue of its own; and those that nodes and clients open to us.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use shoal_host::link::{Dialler, Endpoint, Link};
use shoal_host::reconnect::Backoff;
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::Frame;
use shoal_topology::{DocumentStore, Identity, Role, Stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::engine_thread::{Batch, Downlink, EngineEvent, Events, Joined, NodeClock, Work};
use super::metrics::Shared;
use crate::engine::{Input, Origin, SessionId};
use crate::neighbours::Neighbours;
use crate::opener::Came;

/// Frames that wait for one next hop. The newest is dropped when it is full, and counted.
const LINK_QUEUE: usize = 4_096;
/// Frames that wait for one client's link, beside the parts of a document.
const CLIENT_QUEUE: usize = 256;
/// Frames taken from a queue, or read from a link, at once.
const BATCH: usize = 16;
/// How long a client that is sent away may take to read what was sent to it, and why.
const LINGER: Duration = Duration::from_secs(2);
/// A client's link that takes nothing for so long is closed.
const STALLED: Duration = Duration::from_secs(30);

/// What the tasks of links share.
#[derive(Clone)]
pub(super) struct LinkContext {
    pub(super) clock: NodeClock,
    pub(super) events: Events,
    pub(super) shared: Arc<Shared>,
    pub(super) shutdown: Shutdown,
}

pub(super) struct Neighbour {
    addresses: Vec<SocketAddr>,
    pub(super) queue: mpsc::Sender<Frame>,
    task: AbortHandle,
}

/// The links to the next hops.
pub(super) struct OutgoingLinks {
    context: LinkContext,
    dialler: Dialler,
    neighbours: HashMap<Identity, Neighbour>,
    tasks: JoinSet<()>,
}

impl OutgoingLinks {
    pub(super) fn new(context: LinkContext, dialler: Dialler) -> Self {
        Self { context, dialler, neighbours: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Links to those whom the document puts next, and to nobody else. Links that stand and stay do not break.
    pub(super) fn follow(
        &mut self,
        documents: &DocumentStore,
        neighbours: Option<&Neighbours>,
    ) -> HashMap<Identity, mpsc::Sender<Frame>> {
        let mut before = std::mem::take(&mut self.neighbours);
        for identity in neighbours.into_iter().flat_map(Neighbours::next) {
            // Where the latest document that lists it says that it is.
            let listed = documents.iter().filter_map(|held| {
                held.document.index_of(identity).and_then(|index| held.document.node(index))
            });
            let Some(node) = listed.last() else { continue };
            let (identity, addresses) = (node.identity(), node.descriptor.body().addresses.clone());
            // Links that stay keep their queue, so that a new document holds up no packet.
            let kept = before.remove(&identity).filter(|n| n.addresses == addresses);
            let neighbour = kept.unwrap_or_else(|| self.connect(identity, addresses));
            self.neighbours.insert(identity, neighbour);
        }
        // Those that go write what they have: their queue ends.
        self.context.shared.links_expected.store(self.neighbours.len(), Ordering::Relaxed);
        while self.tasks.try_join_next().is_some() {}
        self.neighbours.iter().map(|(who, neighbour)| (*who, neighbour.queue.clone())).collect()
    }

    pub(super) fn connect(&mut self, identity: Identity, addresses: Vec<SocketAddr>) -> Neighbour {
        let (queue, frames) = mpsc::channel(LINK_QUEUE);
        let (context, dialler) = (self.context.clone(), self.dialler.clone());
        let link = keep_link(context, dialler, identity, addresses.clone(), frames);
        let task = self.tasks.spawn(link);
        Neighbour { addresses, queue, task }
    }

    /// Lets the links write what waits, for a while.
    pub(super) async fn finish(mut self, patience: Duration) {
        let tasks: Vec<AbortHandle> =
            self.neighbours.drain().map(|(_, neighbour)| neighbour.task).collect();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, all).await;
        tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Counts a link as up as long as it lives.
struct Up(Arc<Shared>);

impl Up {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.links_up.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.links_up.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn keep_link(
    context: LinkContext,
    dialler: Dialler,
    identity: Identity,
    addresses: Vec<SocketAddr>,
    mut frames: mpsc::Receiver<Frame>,
) {
    let seed = shoal_host::secret::fresh().map_or([0; 32], |seed| *seed);
    let mut jitter = Stream::from_seed(seed);
    let mut backoff = Backoff::default();
    let mut next = addresses.iter().cycle();
    while !frames.is_closed() && !context.shutdown.is_triggered() {
        let Some(address) = next.next() else { return };
        if let Ok(link) = dialler.dial(identity.0, *address).await {
            let _up = Up::new(&context.shared);
            let since = context.clock.now();
            if carry(&context.shared, link, &mut frames).await.is_ok() {
                break;
            }
            // A link that stood for a while was no failed attempt. One that ends at once is: the other end may take
            // none of ours yet.
            if context.clock.now().since(since) > Backoff::STOOD {
                backoff.succeeded();
            }
            tracing::debug!("a link to a next hop ended; connecting again");
        }
        let pause = backoff.pause(&mut jitter);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The end of the program does not wait for the next attempt.
            () = context.shutdown.wait() => {}
        }
    }
    // Whatever never left is lost.
    frames.close();
    let mut lost = 0;
    while frames.try_recv().is_ok() {
        lost += 1;
    }
    context.shared.waiting_to_send.fetch_sub(lost, Ordering::Relaxed);
    context.shared.link_lost.fetch_add(lost as u64, Ordering::Relaxed);
}

/// Writes what comes until the queue ends (`Ok`) or the link does.
async fn carry(shared: &Shared, link: Link, frames: &mut mpsc::Receiver<Frame>) -> Result<(), ()> {
    let Link { mut sender, mut receiver, .. } = link;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        let count = tokio::select! {
            count = frames.recv_many(&mut batch, BATCH) => count,
            // The other end sends nothing here, so this is the end, or a peer that breaks the rules.
            _ = receiver.next() => return Err(()),
        };
        // None come only when every sender of the queue is gone: this node has no use for the link any more.
        if count == 0 {
            let _ = sender.close().await;
            return Ok(());
        }
        // What was taken from the queue leaves the count here, also if it cannot be written: it is counted as lost
        // then.
        shared.waiting_to_send.fetch_sub(count, Ordering::Relaxed);
        let encoded: Vec<_> = batch.iter().map(Frame::encode).collect();
        if sender.send_all(&encoded).await.is_err() {
            shared.link_lost.fetch_add(count as u64, Ordering::Relaxed);
            return Err(());
        }
    }
}

/// What the document says of whom we take frames from; renewed with it.
#[derive(Clone, Default)]
pub(super) struct Neighbourhood {
    pub(super) neighbours: Option<Arc<Neighbours>>,
    /// Frames that the document takes.
    pub(super) parts: usize,
}

/// Takes links until the end of the run.
pub(super) async fn accept(
    mut endpoint: Endpoint,
    role: Role,
    context: LinkContext,
    work: Work,
    around: watch::Receiver<Neighbourhood>,
) {
    let sessions = AtomicU64::new(0);
    let mut tasks = JoinSet::new();
    loop {
        let link = tokio::select! {
            link = endpoint.accept() => link,
            () = context.shutdown.wait() => break,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(link) = link else {
            if !context.shutdown.is_triggered() {
                tracing::error!("the listener has ended; restart the node");
            }
            break;
        };
        // By the document in use and not by what the peer says of itself: whoever is no neighbour is a client, or
        // nobody.
        let node = takes_from(&around, &link);
        if node {
            link.standing.admit();
            tasks.spawn(take(context.clone(), link, work.clone(), around.clone()));
        } else if role == Role::Gateway {
            let session = SessionId(sessions.fetch_add(1, Ordering::Relaxed));
            let parts = around.borrow().parts;
            tasks.spawn(serve(context.clone(), link, session, CLIENT_QUEUE + 2 * parts));
        }
    }
    // Clients get what their queues hold, which end with the engine.
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(700), all).await;
}

fn takes_from(around: &watch::Receiver<Neighbourhood>, link: &Link) -> bool {
    let around = around.borrow();
    around.neighbours.as_ref().is_some_and(|neighbours| neighbours.takes_from(&Identity(link.peer)))
}

/// Reads a node's link, as long as the document lets it send to us.
async fn take(
    context: LinkContext,
    mut link: Link,
    work: Work,
    around: watch::Receiver<Neighbourhood>,
) {
    loop {
        let mut frames = Vec::with_capacity(BATCH);
        let read = tokio::select! {
            read = link.receiver.next_batch(&mut frames, BATCH) => read,
            () = context.shutdown.wait() => return,
        };
        // Asked for every batch, since a document may have put others before this node in the meantime.
        if !matches!(read, Ok(1..)) || !takes_from(&around, &link) {
            return;
        }
        // Delays count from here: what waits for a worker is not added to what the sender drew.
        let came = Came { at: context.clock.now(), from: Identity(link.peer) };
        work.give(Batch { came, frames });
    }
}

/// Serves a client until either end is tired of it.
async fn serve(context: LinkContext, link: Link, session: SessionId, queue: usize) {
    let (down, frames) = mpsc::channel(queue);
    let Link { peer, sender, mut receiver, origin, standing } = link;
    let (here, sent_away) = oneshot::channel();
    let (peer, origin) = (Identity(peer), Origin(origin.0));
    let joined =
        Joined { session, peer, origin, down: Downlink { queue: down, standing, _here: here } };
    // Before the first frame is read, so that the engine knows the session when something of it comes.
    context.events.post(EngineEvent::Joined(joined)).await;
    let read = async {
        loop {
            let mut frames = Vec::with_capacity(BATCH);
            match receiver.next_batch(&mut frames, BATCH).await {
                Ok(1..) => context.events.post(EngineEvent::Client(session, frames)).await,
                _ => return,
            }
        }
    };
    tokio::pin!(read);
    let carry = async {
        tokio::select! {
            () = &mut read => {}
            // The client goes first: who drops a connection takes back what the other end has not read, a refusal among it.
            written = write(sender, frames) => if written.is_ok() { read.await },
        }
    };
    // Whether it reads or not.
    let leave = async {
        let _ = sent_away.await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = carry => {}
        () = leave => {}
    }
    context.events.post(EngineEvent::Input(Input::Left(session))).await;
}

/// Writes what comes until the queue ends (`Ok`) or the link stands still.
async fn write(
    mut sender: shoal_host::link::FrameSender,
    mut frames: mpsc::Receiver<Frame>,
) -> Result<(), ()> {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        if frames.recv_many(&mut batch, BATCH).await == 0 {
            return sender.close().await.map_err(drop);
        }
        let encoded: Vec<_> = batch.iter().map(Frame::encode).collect();
        match tokio::time::timeout(STALLED, sender.send_all(&encoded)).await {
            Ok(Ok(())) => {}
            _ => return Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_host::link::{Allow, Identity as LinkIdentity, LinkSettings};

    use super::*;

    #[tokio::test]
    async fn frames_that_a_broken_link_had_not_written_are_counted_as_lost() {
        let endpoint = |n, listen| {
            let settings =
                LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
            Endpoint::new(&LinkIdentity::from_seed(&[n; 32]), settings).unwrap()
        };
        let mut next_hop = endpoint(2, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let address = next_hop.listen_addr().unwrap();
        let ours = endpoint(1, None);
        let peer = LinkIdentity::from_seed(&[2; 32]).public();
        let link = ours.dial(peer, address).await.unwrap();
        let theirs = next_hop.accept().await.unwrap();

        let shared = Arc::new(Shared::default());
        let waiting = || shared.waiting_to_send.load(Ordering::Relaxed);
        let (queue, mut frames) = mpsc::channel(LINK_QUEUE);
        for _ in 0..200 {
            shared.waiting_to_send.fetch_add(1, Ordering::Relaxed);
            queue.try_send(Frame { epoch: 0, field: 0, packet: Default::default() }).unwrap();
        }
        let carrying = tokio::spawn({
            let shared = shared.clone();
            async move { carry(&shared, link, &mut frames).await }
        });
        // Yamux lets 256 KiB go to one who does not read: six batches and part of the seventh.
        let stuck = async {
            while waiting() > 200 - 7 * BATCH {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), stuck).await.unwrap();
        drop((theirs, next_hop));
        assert!(carrying.await.unwrap().is_err());
        assert_eq!(shared.link_lost.load(Ordering::Relaxed), BATCH as u64);
        assert_eq!(waiting(), 200 - 7 * BATCH);
    }
}
