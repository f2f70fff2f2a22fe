//! What has happened and was not taken yet, each thing once: the queue is bounded by the number of streams.

use std::collections::{BTreeSet, VecDeque};

use super::{StreamId, TunnelEvent};

/// First in, first out. `Readable` and `Writable` of a stream wait once however often they are put in; the
/// others are bounded by QUIC (a stream opens and stops once, a connection connects and closes once).
#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<TunnelEvent>,
    readable: BTreeSet<StreamId>,
    writable: BTreeSet<StreamId>,
    available: bool,
}

impl Events {
    pub(super) fn push(&mut self, event: TunnelEvent) {
        // A second `Readable` says nothing that the first does not: whoever takes it reads until the stream blocks.
        let fresh = match &event {
            TunnelEvent::Readable(id) => self.readable.insert(*id),
            TunnelEvent::Writable(id) => self.writable.insert(*id),
            TunnelEvent::Available => !std::mem::replace(&mut self.available, true),
            _ => true,
        };
        if fresh {
            self.queue.push_back(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<TunnelEvent> {
        let event = self.queue.pop_front()?;
        match &event {
            TunnelEvent::Readable(id) => {
                self.readable.remove(id);
            }
            TunnelEvent::Writable(id) => {
                self.writable.remove(id);
            }
            TunnelEvent::Available => self.available = false,
            _ => {}
        }
        Some(event)
    }

    /// True if nothing waits but perhaps the end.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.queue.front(), None | Some(TunnelEvent::Closed(_)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
