//! What a node counts. No counter is kept by peer, session or token: together they must not be a call record.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal),* $(,)?) => {
        /// Why a packet went no further.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $name),* }

        impl DropReason {
            /// All of them, in the order of [`Counters::dropped`].
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The label of the metric.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

drop_reasons! {
    /// A frame of another version.
    Version = "version",
    /// No key for the epoch that the frame names.
    UnknownEpoch = "unknown_epoch",
    /// A point of small order.
    LowOrder = "low_order",
    /// The header is not for this node, or was changed: not where clients' filler ends.
    Mac = "mac",
    /// The same at a mix of the first layer: what clients send when they have nothing ready, random bytes.
    Filler = "filler",
    /// The packet was here before.
    Replay = "replay",
    /// No room to remember the packet: more came than the declared rate.
    ReplayTableFull = "replay_table_full",
    /// That it was here could not be written down.
    ReplayLog = "replay_log_unwritable",
    /// Whoever built the packet wrote nonsense into it.
    Routing = "routing",
    /// It asks for a longer delay than the document grants.
    DelayTooLong = "delay_too_long",
    /// The next hop is not one that this node forwards to.
    NoRoute = "no_route",
    /// The delay pool is full; the newest goes.
    PoolFull = "pool_full",
    /// The client's queue is full; the newest goes.
    ClientQueueFull = "client_queue_full",
    /// No client has this inbox here.
    UnknownClient = "unknown_client",
    /// The client is away and its inbox is full, switched off or cannot be written.
    InboxFull = "inbox_full",
    /// It travels in an epoch that ended longer ago than packets may be under way.
    EpochOver = "epoch_over",
    /// It waited in the inbox for longer than the document says.
    InboxExpired = "inbox_expired",
    /// A packet that ends here and means nothing, or a client's frame that is none.
    Malformed = "malformed",
    /// More than the limit of the client, or of queries.
    RateLimited = "rate_limited",
    /// The queue of the workers that peel is full; the newest goes.
    Overload = "overload",
    /// The queue to the next hop is full; the newest goes.
    LinkQueueFull = "link_queue_full",
    /// The link broke before it was sent, or its next hop is not part of the network any more.
    LinkLost = "link_lost",
}

/// What happened since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets that came from other nodes.
    pub received: u64,
    /// Packets from clients that went on to the first layer.
    pub from_clients: u64,
    /// Packets for clients, connected or not.
    pub for_clients: u64,
    /// Packets that went on to another node: others' packets, not loops of our own.
    pub forwarded: u64,
    /// Loops of our own that were sent.
    pub loops_sent: u64,
    /// Loops of our own that came back.
    pub loops_returned: u64,
    /// Loops of our own that did not.
    pub loops_lost: u64,
    /// Loops that no path keeps the rules for.
    pub loops_without_path: u64,
    /// Cover of clients that ended here.
    pub cover: u64,
    /// Descriptor queries that were answered.
    pub queries: u64,
    /// Clients that were let in.
    pub clients_admitted: u64,
    /// Clients that were turned away.
    pub clients_refused: u64,
    /// Drops by their reasons, in the order of [`DropReason::ALL`].
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts a drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// Counts several drops.
    pub fn drop_many(&mut self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.dropped.get_mut(reason as usize) {
            *counter = counter.saturating_add(packets);
        }
    }

    /// How many were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or_default()
    }

    /// How many were dropped.
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_label_of_its_own() {
        let mut counters = Counters::default();
        let mut labels = std::collections::HashSet::new();
        for reason in DropReason::ALL {
            counters.drop(*reason);
            assert_eq!(counters.dropped(*reason), 1);
            assert!(labels.insert(reason.label()));
        }
        assert_eq!(counters.dropped_in_all(), DropReason::ALL.len() as u64);
    }
}
