//! Links to authorities: descriptors and reports go there, documents come from there.
//!
//! A link carries messages, each cut into parts, and each part in a frame like all others.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: sockets and timers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_sphinx::Frame;
use shoal_topology::Identity;
use shoal_topology::wire::authorities::{FromAuthority, ToAuthority};
use shoal_topology::wire::client_gateway::{Assembly, ControlMessage as _, DocumentPart};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::{Dialler, FrameReceiver, FrameSender, Link};
use crate::reconnect::Backoff;
use crate::shutdown::Shutdown;

/// Messages that wait for one authority. The newest is dropped when it is full: reports and votes have their time.
const QUEUE: usize = 64;
/// Documents that wait for whoever takes them.
const DOCUMENTS: usize = 16;
/// A message that takes longer ends the link.
const STALLED: Duration = Duration::from_secs(30);

/// A link that carries messages broke, or brought something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link broke")]
pub struct Broken;

/// Sends one message.
///
/// # Errors
/// The link broke, or stands still.
pub async fn send(sender: &mut FrameSender, message: &[u8]) -> Result<(), Broken> {
    let packet = |part: DocumentPart| part.pack().map_err(|_| Broken);
    let frames = DocumentPart::cut(message)
        .into_iter()
        .map(|part| Ok(Frame { epoch: 0, field: 0, packet: packet(part)? }.encode()))
        .collect::<Result<Vec<_>, _>>()?;
    // A peer that takes a message too slowly would keep all later ones waiting.
    match timeout(STALLED, sender.send_all(&frames)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Broken),
    }
}

/// Receives messages, one after the other.
pub struct Messages {
    receiver: FrameReceiver,
    assembly: Assembly,
}

impl Messages {
    /// Messages that come over a link.
    pub fn new(receiver: FrameReceiver) -> Self {
        Self { receiver, assembly: Assembly::default() }
    }

    /// Of a link to someone whose messages have so many bytes at most. Longer ones are not kept.
    pub fn of_at_most(receiver: FrameReceiver, bytes: usize) -> Self {
        Self { receiver, assembly: Assembly::of_at_most(bytes) }
    }

    /// The next message. Dropped at any await, it loses none.
    ///
    /// # Errors
    /// The link ended, or brought what is no message.
    pub async fn next(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            let bytes = self.receiver.next().await.map_err(|_| Broken)?.ok_or(Broken)?;
            let frame = Frame::decode(&bytes).map_err(|_| Broken)?;
            let part = DocumentPart::unpack(&frame.packet).map_err(|_| Broken)?;
            if let Some(message) = self.assembly.add(part) {
                return Ok(message);
            }
        }
    }
}

/// An authority and where it listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthorityAddress {
    /// The identity of the authority.
    pub identity: Identity,
    /// The address at which it listens.
    pub address: SocketAddr,
}

/// Links to authorities, kept as long as this is.
pub struct AuthorityLinks {
    standing: watch::Sender<Option<Arc<[u8]>>>,
    queues: Vec<(Identity, mpsc::Sender<Arc<[u8]>>)>,
    up: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl AuthorityLinks {
    /// Starts to keep a link to each of `authority_addresses`. What comes back are documents, not yet verified.
    pub fn start(
        dialler: &Dialler,
        authority_addresses: impl IntoIterator<Item = AuthorityAddress>,
        shutdown: &Shutdown,
    ) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (standing, said) = watch::channel(None);
        let (documents, received) = mpsc::channel(DOCUMENTS);
        let (count, up) = watch::channel(0);
        let count = Arc::new(count);
        let (mut queues, mut tasks) = (Vec::new(), JoinSet::new());
        for authority_address in authority_addresses {
            let (queue, messages) = mpsc::channel(QUEUE);
            queues.push((authority_address.identity, queue));
            let keeper = Keeper {
                authority_address,
                dialler: dialler.clone(),
                standing: said.clone(),
                messages,
                documents: documents.clone(),
                up: count.clone(),
                shutdown: shutdown.clone(),
            };
            tasks.spawn(keeper.keep());
        }
        (Self { standing, queues, up, _tasks: tasks }, received)
    }

    /// Sets the message that each authority gets on every (re)connect; connected ones get it now.
    pub fn announce(&self, message: &ToAuthority) {
        let bytes: Arc<[u8]> = message.encode().into();
        self.standing.send_if_modified(|standing| {
            // Called several times a second with the same bytes, which are sent once.
            let new = standing.as_ref() != Some(&bytes);
            if new {
                *standing = Some(bytes);
            }
            new
        });
    }

    /// Tells every authority, once.
    pub fn tell_all(&self, message: &ToAuthority) {
        let bytes: Arc<[u8]> = message.encode().into();
        for (_, queue) in &self.queues {
            // An authority that cannot be reached holds up no other; what it missed has no use later.
            let _ = queue.try_send(bytes.clone());
        }
    }

    /// Tells one of them, once.
    pub fn tell(&self, identity: &Identity, message: &ToAuthority) {
        if let Some((_, queue)) =
            self.queues.iter().find(|(authority_address, _)| authority_address == identity)
        {
            let _ = queue.try_send(message.encode().into());
        }
    }

    /// How many links are established.
    pub fn links(&self) -> usize {
        *self.up.borrow()
    }
}

struct Keeper {
    authority_address: AuthorityAddress,
    dialler: Dialler,
    standing: watch::Receiver<Option<Arc<[u8]>>>,
    messages: mpsc::Receiver<Arc<[u8]>>,
    documents: mpsc::Sender<Vec<u8>>,
    up: Arc<watch::Sender<usize>>,
    shutdown: Shutdown,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        while !self.shutdown.is_triggered() {
            let dialled = tokio::select! {
                link = self.dialler.dial(self.authority_address.identity.0, self.authority_address.address) => link,
                () = self.shutdown.wait() => return,
            };
            if let Ok(link) = dialled {
                backoff.succeeded();
                self.up.send_modify(|up| *up += 1);
                let _ = self.carry(link).await;
                self.up.send_modify(|up| *up -= 1);
            }
            let pause = backoff.pause(&mut rand::rng());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.wait() => return,
            }
        }
    }

    async fn carry(&mut self, link: Link) -> Result<(), Broken> {
        let Link { mut sender, receiver, .. } = link;
        let mut received = Messages::new(receiver);
        // A new link means that the other end may have started anew and knows nothing of this node.
        self.standing.mark_changed();
        loop {
            tokio::select! {
                message = received.next() => {
                    let FromAuthority::Document(document) =
                        FromAuthority::decode(&message?).map_err(|_| Broken)?;
                    // Waits while documents are not taken, so that an authority cannot fill the memory with them.
                    self.documents.send(document).await.map_err(|_| Broken)?;
                }
                changed = self.standing.changed() => {
                    changed.map_err(|_| Broken)?;
                    let standing = self.standing.borrow_and_update().clone();
                    if let Some(message) = standing {
                        send(&mut sender, &message).await?;
                    }
                }
                message = self.messages.recv() => {
                    send(&mut sender, &message.ok_or(Broken)?).await?;
                }
                () = self.shutdown.wait() => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Allow, Endpoint, Identity as LinkIdentity, LinkSettings};

    #[tokio::test]
    async fn what_stands_is_said_on_every_link_and_documents_come_back() {
        let endpoint = |n, listen| {
            let settings =
                LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
            Endpoint::new(&LinkIdentity::from_seed(&[n; 32]), settings).unwrap()
        };
        let mut authority = endpoint(2, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let identity = Identity(LinkIdentity::from_seed(&[2; 32]).public());
        let authority_address =
            AuthorityAddress { identity, address: authority.listen_addr().unwrap() };
        let node = endpoint(1, None);
        let shutdown = Shutdown::new();
        let (authority_links, mut documents) =
            AuthorityLinks::start(&node.dialler(), [authority_address], &shutdown);
        let (first, second) =
            (ToAuthority::Descriptor(vec![1; 5_000]), ToAuthority::Descriptor(vec![2; 10]));
        authority_links.announce(&first);
        for round in 0..2 {
            let link = timeout(STALLED, authority.accept()).await.unwrap().unwrap();
            let mut messages = Messages::new(link.receiver);
            let mut sender = link.sender;
            let mut next = async || ToAuthority::decode(&messages.next().await.unwrap()).unwrap();
            if round == 0 {
                assert_eq!(next().await, first);
                authority_links.announce(&second);
            }
            // The second link is told what stands now.
            assert_eq!(next().await, second);
            authority_links.tell_all(&ToAuthority::Report(vec![round]));
            assert_eq!(next().await, ToAuthority::Report(vec![round]));
            let document = FromAuthority::Document(vec![round; 300_000]);
            send(&mut sender, &document.encode()).await.unwrap();
            let came = timeout(STALLED, documents.recv()).await.unwrap();
            assert_eq!(came, Some(vec![round; 300_000]));
        }
        shutdown.trigger();
    }

    #[tokio::test]
    async fn beyond_the_bound_the_newest_message_to_an_authority_is_dropped() {
        let endpoint = |n, listen| {
            let settings =
                LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
            Endpoint::new(&LinkIdentity::from_seed(&[n; 32]), settings).unwrap()
        };
        let mut authority = endpoint(2, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let identity = Identity(LinkIdentity::from_seed(&[2; 32]).public());
        let authority_address =
            AuthorityAddress { identity, address: authority.listen_addr().unwrap() };
        let node = endpoint(1, None);
        let shutdown = Shutdown::new();
        let (authority_links, _documents) =
            AuthorityLinks::start(&node.dialler(), [authority_address], &shutdown);
        // Nothing awaits, so the link's task has not begun yet.
        (0..100).for_each(|n| authority_links.tell_all(&ToAuthority::Report(vec![n])));
        let link = timeout(STALLED, authority.accept()).await.unwrap().unwrap();
        let mut messages = Messages::new(link.receiver);
        let mut next = async || ToAuthority::decode(&messages.next().await.unwrap()).unwrap();
        for n in 0..QUEUE as u8 {
            assert_eq!(next().await, ToAuthority::Report(vec![n]));
        }
        authority_links.tell(&identity, &ToAuthority::Report(vec![100]));
        assert_eq!(next().await, ToAuthority::Report(vec![100]));
        shutdown.trigger();
    }
}
