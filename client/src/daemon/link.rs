//! The link to a gateway: dialled, proven, kept up, dialled again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use shoal_host::link::{
    Endpoint, FRAME, FrameReceiver, FrameSender, Identity as LinkKey, LinkError, LinkSettings,
};
use shoal_host::secret;
use shoal_host::shutdown::Shutdown;
use shoal_sphinx::{CLIENT_CONTROL, Downward, Frame};
use shoal_topology::wire::client_gateway::{
    Assembly, Away, ControlMessage, DocumentPart, Hello, Mode, Notice, Refusal, Renew,
};
use shoal_topology::{Identity, SecretIdentity, Seed, Stream, Time};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::clock::Clock;
use super::config::Gateway;
use crate::sender::SlotQueue;

/// A step of the handshake takes no longer.
const STEP: Duration = Duration::from_secs(5);
/// A paced link carries something every few milliseconds: silence for so long means that it is dead.
const SILENCE: Duration = Duration::from_secs(20);
/// Pauses between attempts.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Failed attempts at one gateway, at least, before the other is tried.
const ATTEMPTS: usize = 3;
/// And how long they are kept up at least, and how much longer at most, drawn for each client. Whoever shuts a gateway
/// for some seconds moves nobody, and whoever does for longer moves its clients one after the other.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(8));
/// A link that breaks sooner was short; after so many in a row something is wrong, and each one more doubles the pause, up
/// to this.
const SHORT: Duration = Duration::from_secs(20);
const DISPLACED: u32 = 4;
const LONGEST: Duration = Duration::from_secs(120);
/// Documents that a client tells gateways that it has.
const DOCUMENTS: usize = 4;

/// What a link tells the engine.
pub(super) enum LinkEvent {
    /// The gateway let us in, with this inbox.
    Up(Identity, Identity),
    /// The link to this gateway is gone, for this reason.
    Down(Identity, DownReason),
    /// A frame with a packet in it came from this gateway.
    Frame(Identity, Frame),
    /// A document, not yet verified, and when it was whole.
    Document(Vec<u8>, Time),
}

/// Why a link is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum DownReason {
    #[error("the gateway cannot be reached")]
    Unreachable,
    #[error("the name of the gateway's host cannot be looked up")]
    Unknown,
    #[error(
        "what answers at the gateway's address does not have the gateway's identity: compare both with what its operator says"
    )]
    OtherIdentity,
    #[error("the gateway did not answer")]
    Silent,
    #[error("the gateway refuses this client: {0}")]
    Refused(Refusal),
    #[error("the link to the gateway broke")]
    Broken,
    #[error(
        "the gateway ends the link again and again, soon after it stands: another program may use a copy of this data directory,          and each ends the link of the other"
    )]
    Displaced,
    #[error("another gateway is used instead")]
    Moves,
}

/// By which inbox a gateway knows us.
pub(super) enum Inbox {
    /// Always this one: it stands in descriptors.
    Kept(Box<SecretIdentity>),
    /// One of its own for each link, for those whom nobody reaches but by the SURBs that they give out. So neither does a
    /// gateway know them again, nor can two gateways find out that they serve one person.
    OfTheLink,
}

impl Inbox {
    /// What the gateway shall do with what comes for it later.
    fn away(&self) -> Away {
        match self {
            Self::Kept(_) => Away::Keep,
            Self::OfTheLink => Away::Drop,
        }
    }

    fn key(&self) -> std::io::Result<SecretIdentity> {
        match self {
            Self::Kept(key) => Ok((**key).clone()),
            Self::OfTheLink => Ok(SecretIdentity::from_bytes(&*secret::fresh()?)),
        }
    }
}

/// How the frames of a link leave.
pub(super) enum Out {
    /// A person's: whatever is ready, at the slots.
    Slots(Arc<Slots>),
    /// The queue of a service, from which frames leave at once.
    AtOnce(mpsc::Receiver<Frame>),
}

/// The slots of a link, between its thread and that of the engine.
pub(super) struct Slots {
    pub(super) queue: Arc<SlotQueue>,
    /// A slot has passed: there is room for frames.
    pub(super) taken: Notify,
    /// The schedule begins.
    pub(super) started: Notify,
}

impl Slots {
    pub(super) fn new(queue: Arc<SlotQueue>) -> Arc<Self> {
        Arc::new(Self { queue, taken: Notify::new(), started: Notify::new() })
    }
}

/// Which gateway the engine wants: told by its thread, followed by the link's.
#[derive(Default)]
pub(super) struct Goal {
    /// Index of the gateway in the list.
    at: AtomicUsize,
    told: Notify,
}

impl Goal {
    /// A goal that begins with the gateway of this index.
    pub(super) fn new(at: usize) -> Self {
        Self { at: at.into(), told: Notify::new() }
    }

    /// From now on the link shall lead to the gateway of this index.
    pub(super) fn go(&self, at: usize) {
        self.at.store(at, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// Returns when another one is wanted.
    async fn leaves(&self, at: usize) {
        while self.at() == at {
            self.told.notified().await;
        }
    }
}

/// Chooses the gateway that is tried next.
struct Choice {
    /// Index of the gateway in the list.
    at: usize,
    of: usize,
    /// Attempts that failed in a row.
    failed: usize,
    /// When the first of them failed.
    since: Option<Time>,
    /// For how long they must, beside [`ATTEMPTS`].
    patience: Duration,
    /// Links in a row that broke soon after they stood.
    short: u32,
    rng: Stream,
}

impl Choice {
    fn new((at, of): (usize, usize), rng: Stream) -> Self {
        let (failed, since, patience) = (0, None, Duration::ZERO);
        let mut choice = Self { at: at % of.max(1), of, failed, since, patience, short: 0, rng };
        choice.draw();
        choice
    }

    fn draw(&mut self) {
        self.patience = PATIENCE.0 + PATIENCE.1.mul_f64(self.rng.random_range(0.0..1.0));
    }

    /// A link ended after this time: whether it is as if another program took its place each time.
    fn is_displaced(&mut self, was_up: bool, stood: Duration, down: DownReason) -> bool {
        self.short = match down {
            DownReason::Broken if was_up && stood < SHORT => self.short.saturating_add(1),
            _ if was_up => 0,
            _ => self.short,
        };
        self.short >= DISPLACED
    }

    /// A link ended at `now`, or never stood: how long to wait before the next attempt.
    fn ended(&mut self, was_up: bool, now: Time) -> Duration {
        if was_up {
            // It worked: the same gateway gets its attempts again.
            (self.failed, self.since) = (0, None);
        }
        let pause = BACKOFF.get(self.failed).copied().unwrap_or(STEP);
        // Two that displace each other must not do so for ever as fast as they can.
        let more = 2_u32.saturating_pow(self.short.saturating_sub(DISPLACED - 1).min(8)) - 1;
        let pause = pause.max((SHORT * more / 8).min(LONGEST));
        // Who was sent away with others does not come back with them.
        let pause = pause.mul_f64(self.rng.random_range(0.5..1.0));
        self.failed += 1;
        let since = *self.since.get_or_insert(now);
        if self.failed >= ATTEMPTS && now.since(since) >= self.patience {
            self.go(self.at + 1);
        }
        pause
    }

    fn go(&mut self, at: usize) {
        (self.failed, self.since) = (0, None);
        self.draw();
        self.at = at % self.of.max(1);
    }
}

/// What does not change from one attempt to the next.
pub(super) struct GatewayLink {
    /// The clock of the engine.
    pub(super) clock: Clock,
    /// By which inbox the gateway knows the client.
    pub(super) inbox: Inbox,
    /// For the gateway; another one counts from the next link on.
    pub(super) token: Arc<Mutex<Vec<u8>>>,
    /// A class, or a service.
    pub(super) mode: Mode,
    /// Makes the descriptor of a service, valid from now on.
    pub(super) descriptor: Option<Arc<dyn Fn() -> Vec<u8> + Send + Sync>>,
    /// Where the engine is told what happens.
    pub(super) events: mpsc::Sender<LinkEvent>,
    /// Packets that came while the engine's queue was full.
    pub(super) overrun: Arc<AtomicU64>,
    /// Counts the dummies that came.
    pub(super) dummies: Arc<AtomicU64>,
    /// Where the engine wants it to lead.
    pub(super) goal: Arc<Goal>,
    /// Told when a service has another descriptor.
    pub(super) renew: Arc<Notify>,
    /// What it has of documents.
    pub(super) has: Has,
    /// Draws how long a gateway is waited for.
    pub(super) seed: Seed,
}

/// The documents that a client has, so that no gateway sends them again.
#[derive(Clone, Default)]
pub(super) struct Has(Arc<Mutex<Vec<[u8; 8]>>>);

impl Has {
    /// It has this one, which was verified.
    pub(super) fn add(&self, signed: &[u8]) {
        let tag = DocumentPart::tag_of(signed);
        let mut tags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tags.retain(|other| *other != tag);
        tags.push(tag);
        let beyond = tags.len().saturating_sub(DOCUMENTS);
        tags.drain(..beyond);
    }

    fn tags(&self) -> Vec<[u8; 8]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl GatewayLink {
    /// Keeps a link to that of `gateways` which the engine wants, or to the next one if it does not answer, until `shutdown`.
    pub(super) async fn keep(&self, gateways: &[Gateway], mut out: Out, shutdown: &Shutdown) {
        let at = (self.goal.at(), gateways.len());
        let mut choice = Choice::new(at, self.seed.stream("patience"));
        loop {
            let Some(gateway) = gateways.get(choice.at) else { return };
            let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let began = self.clock.now();
            let result = tokio::select! {
                () = shutdown.wait() => return,
                result = self.once(gateway, &mut out, &up) => result,
                () = self.goal.leaves(choice.at) => Err(DownReason::Moves),
            };
            let mut down = result.err().unwrap_or(DownReason::Broken);
            let is_up = up.load(Ordering::Relaxed);
            let stood = self.clock.now().since(began);
            if matches!(self.inbox, Inbox::Kept(_)) && choice.is_displaced(is_up, stood, down) {
                down = DownReason::Displaced;
            }
            if self.events.send(LinkEvent::Down(gateway.identity, down)).await.is_err() {
                return;
            }
            let pause = if down == DownReason::Moves {
                choice.go(self.goal.at());
                BACKOFF.first().copied().unwrap_or(STEP)
            } else {
                choice.ended(is_up, self.clock.now())
            };
            // Whoever was not reached is not wanted, until the engine says so again.
            self.goal.at.store(choice.at, Ordering::Relaxed);
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn once(
        &self,
        gateway: &Gateway,
        out: &mut Out,
        up: &std::sync::atomic::AtomicBool,
    ) -> Result<(), DownReason> {
        if let Out::Slots(slots) = out {
            slots.queue.forget();
        }
        // A fresh key each time: the gateway's host learns nothing from it, and no one else sees it.
        let key = LinkKey::throwaway().map_err(|_| DownReason::Unreachable)?;
        let peer = Identity(key.public());
        let settings = LinkSettings { listen: None, ..LinkSettings::default() };
        let endpoint = Endpoint::new(&key, settings).map_err(|_| DownReason::Unreachable)?;
        let address = timeout(STEP, gateway.address.resolve()).await;
        let address = address.map_err(|_| DownReason::Silent)?.map_err(|_| DownReason::Unknown)?;
        let dialled = timeout(STEP, endpoint.dial(gateway.identity.0, address)).await;
        let mut link = dialled.map_err(|_| DownReason::Silent)?.map_err(|error| match error {
            LinkError::Handshake(_) => DownReason::OtherIdentity,
            _ => DownReason::Unreachable,
        })?;

        let Notice::Challenge { nonce } = notice(&mut link.receiver).await? else {
            return Err(DownReason::Silent);
        };
        let inbox = self.inbox.key().map_err(|_| DownReason::Unreachable)?;
        let proof = Hello::prove(&inbox, &gateway.identity, &peer, &nonce);
        let hello = Hello {
            inbox: inbox.identity(),
            proof,
            token: self.token.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            mode: self.mode.clone(),
            descriptor: self.descriptor.as_ref().map(|make| make()),
            documents: self.has.tags(),
            away: self.inbox.away(),
        };
        let packet = hello.pack().map_err(|_| DownReason::Broken)?;
        let frame = Frame { epoch: 0, field: CLIENT_CONTROL, packet };
        send(&mut link.sender, &[frame.encode()]).await?;
        match notice(&mut link.receiver).await? {
            Notice::Welcome => {}
            Notice::Refused(why) => return Err(DownReason::Refused(why)),
            Notice::Challenge { .. } => return Err(DownReason::Broken),
        }
        up.store(true, Ordering::Relaxed);
        let event = LinkEvent::Up(gateway.identity, inbox.identity());
        self.events.send(event).await.map_err(|_| DownReason::Broken)?;
        tokio::select! {
            result = self.receive(gateway.identity, &mut link.receiver) => result,
            result = self.transmit(&mut link.sender, out) => result,
        }
    }

    /// Takes whatever comes, at once: a client that did not drain its socket would show when it is busy.
    async fn receive(
        &self,
        from: Identity,
        receiver: &mut FrameReceiver,
    ) -> Result<(), DownReason> {
        let mut assembly = Assembly::default();
        let mut batch = Vec::new();
        let paced = self.mode != Mode::Service;
        loop {
            batch.clear();
            let next = receiver.next_batch(&mut batch, 32);
            let received = if paced {
                timeout(SILENCE, next).await.map_err(|_| DownReason::Silent)?
            } else {
                next.await
            };
            if received.map_err(|_| DownReason::Broken)? == 0 {
                return Err(DownReason::Broken);
            }
            for bytes in &batch {
                let Ok(frame) = Frame::decode(bytes) else { return Err(DownReason::Broken) };
                match Downward::from_field(frame.field) {
                    Some(Downward::Dummy) => {
                        self.dummies.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Downward::Packet) => {
                        if self.events.try_send(LinkEvent::Frame(from, frame)).is_err() {
                            self.overrun.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Some(Downward::Document) => {
                        let part =
                            DocumentPart::unpack(&frame.packet).map_err(|_| DownReason::Broken)?;
                        if let Some(document) = assembly.add(part) {
                            let event = LinkEvent::Document(document, self.clock.now());
                            self.events.send(event).await.map_err(|_| DownReason::Broken)?;
                        }
                    }
                    Some(Downward::Notice) | None => {}
                }
            }
        }
    }

    async fn transmit(&self, sender: &mut FrameSender, out: &mut Out) -> Result<(), DownReason> {
        match out {
            Out::Slots(slots) => loop {
                let next = slots.queue.next_slot();
                if next == Time::NEVER {
                    // No document yet: a frame could name no first hop.
                    slots.started.notified().await;
                    continue;
                }
                self.clock.sleep_until(next).await;
                let frame = slots.queue.take(self.clock.now());
                slots.taken.notify_one();
                send(sender, &[frame.encode()]).await?;
            },
            Out::AtOnce(frames) => loop {
                let frame = tokio::select! {
                    frame = frames.recv() => frame,
                    () = self.renew.notified() => match self.renewal() {
                        Some(renewal) => Some(renewal),
                        None => continue,
                    },
                };
                let Some(frame) = frame else { return Ok(()) };
                let mut batch = vec![frame.encode()];
                while batch.len() < 16
                    && let Ok(frame) = frames.try_recv()
                {
                    batch.push(frame.encode());
                }
                send(sender, &batch).await?;
            },
        }
    }
}

impl GatewayLink {
    /// The frame that brings the gateway another descriptor.
    fn renewal(&self) -> Option<Frame> {
        let descriptor = self.descriptor.as_ref().map(|make| make())?;
        let packet = Renew { descriptor }.pack().ok()?;
        Some(Frame { epoch: 0, field: CLIENT_CONTROL, packet })
    }
}

async fn notice(receiver: &mut FrameReceiver) -> Result<Notice, DownReason> {
    let bytes = timeout(STEP, receiver.next()).await.map_err(|_| DownReason::Silent)?;
    let bytes = bytes.map_err(|_| DownReason::Broken)?.ok_or(DownReason::Broken)?;
    let frame = Frame::decode(&bytes).map_err(|_| DownReason::Broken)?;
    if Downward::from_field(frame.field) != Some(Downward::Notice) {
        return Err(DownReason::Broken);
    }
    Notice::unpack(&frame.packet).map_err(|_| DownReason::Broken)
}

async fn send(sender: &mut FrameSender, frames: &[Box<[u8; FRAME]>]) -> Result<(), DownReason> {
    timeout(SILENCE, sender.send_all(frames))
        .await
        .map_err(|_| DownReason::Silent)?
        .map_err(|_| DownReason::Broken)
}

#[cfg(test)]
mod tests;
