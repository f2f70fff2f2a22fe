//! Messages that wait for the engine of an authority, the first that came first: how many bytes of whom, and when each came.
//!
//! Whether a vote is in time is judged by when it came, not by when the engine had time for it: whoever keeps the engine
//! busy makes nobody late. A peer that sends more than its share waits, and TCP tells it; the others do not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_topology::Identity;
use shoal_topology::reputation::report::MAX_REPORT_LEN;
use shoal_topology::wire::authorities::{MAX_MESSAGE_LEN, ToAuthority};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes that another authority may have waiting.
const OF_AUTHORITY: usize = 2 * MAX_MESSAGE_LEN;
/// Bytes that a node or a service may have waiting.
const OF_NODE: usize = 2 * MAX_OF_NODE;
/// Bytes that all nodes and services together may have waiting.
const OF_ALL_NODES: usize = 8 << 20;
/// Longest message of a node or a service: a report, and what is around it.
pub(super) const MAX_OF_NODE: usize = MAX_REPORT_LEN + 16;
/// A message counts for no less than this: there is more to it than its bytes.
const LEAST: usize = 1_024;

/// A message, and the room that it takes until it was handled.
pub(super) struct Message {
    /// When it came, milliseconds of Unix time.
    pub(super) at: u64,
    pub(super) from: Identity,
    pub(super) message: ToAuthority,
    _room: Vec<OwnedSemaphorePermit>,
}

/// All messages that wait, and the shares of those who sent them.
pub(super) struct Waiting {
    shares: Mutex<HashMap<Identity, Vec<Arc<Semaphore>>>>,
    /// What all nodes and services have together.
    of_all_nodes: Arc<Semaphore>,
    queue: Mutex<MessageQueue>,
    came: Notify,
}

/// Messages by when they came, those of one millisecond in the order in which there was room for them.
#[derive(Default)]
struct MessageQueue {
    messages: BTreeMap<(u64, u64), Message>,
    put: u64,
}

impl Waiting {
    /// Room for these authorities, and for these nodes and services.
    pub(super) fn new<'a>(
        authorities: impl IntoIterator<Item = &'a Identity>,
        nodes: impl IntoIterator<Item = &'a Identity>,
    ) -> Self {
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        let authorities = authorities.into_iter().map(|own| (*own, vec![semaphore(OF_AUTHORITY)]));
        let waiting = Self {
            shares: Mutex::new(authorities.collect()),
            of_all_nodes: semaphore(OF_ALL_NODES),
            queue: Mutex::default(),
            came: Notify::new(),
        };
        waiting.replace_nodes(nodes);
        waiting
    }

    /// From now on these nodes and services have shares, beside the authorities.
    pub(super) fn replace_nodes<'a>(&self, nodes: impl IntoIterator<Item = &'a Identity>) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *shares);
        let nodes: Vec<Identity> = nodes.into_iter().copied().collect();
        for node in &nodes {
            let fresh = || vec![Arc::new(Semaphore::new(OF_NODE)), self.of_all_nodes.clone()];
            shares.insert(*node, before.get(node).cloned().unwrap_or_else(fresh));
        }
        // Of authorities there is one share, of nodes two.
        shares.extend(before.into_iter().filter(|(_, shares)| shares.len() == 1));
    }

    fn shares(&self, peer: &Identity) -> Option<Vec<Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// The longest message that is read of a peer.
    pub(super) fn longest(&self, peer: &Identity) -> usize {
        let node = self.shares(peer).is_none_or(|shares| shares.len() > 1);
        if node { MAX_OF_NODE } else { MAX_MESSAGE_LEN }
    }

    /// Takes a message that came at `at` and has so many bytes. Waits until its sender's share has room for it; whether the
    /// sender has a share.
    pub(super) async fn put(
        &self,
        at: u64,
        from: Identity,
        bytes: usize,
        message: ToAuthority,
    ) -> bool {
        let Some(shares) = self.shares(&from) else { return false };
        let bytes = u32::try_from(bytes.max(LEAST)).unwrap_or(u32::MAX);
        let mut room = Vec::with_capacity(shares.len());
        // Its own share first, so that whoever is over it holds nothing of what others share.
        for share in shares {
            let Ok(permit) = share.acquire_many_owned(bytes).await else { return false };
            room.push(permit);
        }
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.put += 1;
            let order = (at, queue.put);
            queue.messages.insert(order, Message { at, from, message, _room: room });
        }
        self.came.notify_one();
        true
    }

    /// The first that came and waits.
    pub(super) fn take(&self) -> Option<Message> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.messages.pop_first().map(|(_, message)| message)
    }

    /// Returns when another one came, or at once when one came since the last call.
    pub(super) async fn comes(&self) {
        self.came.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn identity(n: u8) -> Identity {
        Identity([n; 32])
    }

    /// True if there was room at once.
    fn put(waiting: &Waiting, at: u64, from: u8, bytes: usize) -> bool {
        let message = ToAuthority::Report(vec![from]);
        let mut put = pin!(waiting.put(at, identity(from), bytes, message));
        let polled = put.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        polled == Poll::Ready(true)
    }

    #[test]
    fn a_peer_that_floods_an_authority_leaves_the_shares_of_others() {
        let (authorities, nodes): (Vec<_>, Vec<_>) =
            ((0..4).map(identity).collect(), (10..100).map(identity).collect());
        let waiting = Waiting::new(&authorities, &nodes);
        let fill = |from, bytes| (0..10_000).take_while(|_| put(&waiting, 5, from, bytes)).count();
        assert_eq!(fill(0, MAX_MESSAGE_LEN), 2);
        assert!(put(&waiting, 5, 1, MAX_MESSAGE_LEN));
        assert_eq!(fill(10, MAX_OF_NODE), 2);
        assert!(put(&waiting, 5, 11, MAX_OF_NODE));
        // A peer with much to wait for takes nothing of what all nodes share by that.
        let others: usize = (12..100).map(|node| fill(node, MAX_OF_NODE)).sum();
        assert_eq!(others, OF_ALL_NODES / MAX_OF_NODE - 3);
        assert!(put(&waiting, 5, 2, MAX_MESSAGE_LEN));
        // Small ones are bounded too, and room comes back as messages are handled.
        assert_eq!(fill(3, 1), OF_AUTHORITY / LEAST);
        assert!(!put(&waiting, 5, 0, 1));
        while waiting.take().is_some() {}
        assert_eq!(fill(0, MAX_MESSAGE_LEN), 2);
        assert!(!put(&waiting, 5, 200, 1), "a stranger has no share");
    }

    #[test]
    fn whoever_is_put_on_the_list_has_a_share_and_whoever_is_taken_off_it_has_none() {
        let waiting = Waiting::new(&[identity(0)], &[identity(1), identity(2)]);
        assert_eq!((0..100).take_while(|_| put(&waiting, 5, 1, MAX_OF_NODE)).count(), 2);
        waiting.replace_nodes(&[identity(1), identity(3)]);
        for (from, has) in [(0, true), (1, false), (2, false), (3, true)] {
            assert_eq!(put(&waiting, 5, from, MAX_OF_NODE), has, "{from}");
        }
        while waiting.take().is_some() {}
        assert!(put(&waiting, 5, 1, MAX_OF_NODE), "its share is the one it had");
        assert_eq!(waiting.longest(&identity(0)), MAX_MESSAGE_LEN);
    }

    #[test]
    fn what_came_first_is_handled_first_whoever_had_to_wait_for_room() {
        let waiting = Waiting::new(&[identity(0), identity(1)], &[]);
        for (at, from) in [(30, 0), (10, 1), (20, 0), (10, 0)] {
            assert!(put(&waiting, at, from, 10));
        }
        let order = std::iter::from_fn(|| waiting.take()).map(|m| (m.at, m.from.0[0]));
        assert_eq!(order.collect::<Vec<_>>(), [(10, 1), (10, 0), (20, 0), (30, 0)]);
    }
}
