//! What the outside may know: totals. No label names a peer, a session, a client or an address.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use serde_json::{Value, json};
use shoal_daemon::admin::Readiness;
use shoal_daemon::link::Counters as LinkCounters;

use crate::counters::{Counters, DropReason};
use crate::opener::Opener;

/// What the engine's thread last said of itself.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) counters: Counters,
    pub(super) pooled: usize,
    pub(super) clients: usize,
}

/// What all tasks of a node write down.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) snapshot: Mutex<Snapshot>,
    /// Drops outside of the engine, which the engine's thread takes over.
    pub(super) overload: AtomicU64,
    pub(super) link_lost: AtomicU64,
    pub(super) links_up: AtomicUsize,
    pub(super) links_expected: AtomicUsize,
    /// Frames that wait for workers, and for links.
    pub(super) waiting_to_peel: AtomicUsize,
    pub(super) waiting_to_send: AtomicUsize,
    pub(super) epoch: AtomicU64,
    pub(super) layer: AtomicUsize,
    pub(super) has_epoch: AtomicBool,
}

impl Shared {
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn status(&self, role: &str, ready: &Readiness, opener: &Opener) -> Value {
        let Snapshot { counters, pooled, clients } = self.snapshot();
        let why = match ready {
            Readiness::Ready => None,
            Readiness::NotReady(why) => Some(why),
        };
        let dropped: serde_json::Map<String, Value> = DropReason::ALL
            .iter()
            .filter(|reason| counters.dropped(**reason) > 0)
            .map(|reason| (reason.label().to_owned(), counters.dropped(*reason).into()))
            .collect();
        let layer = self.layer.load(Ordering::Relaxed);
        let epoch =
            self.has_epoch.load(Ordering::Relaxed).then(|| self.epoch.load(Ordering::Relaxed));
        let (replay_used, replay_room) = opener.replay_fill();
        json!({
            "program": "shoal-node",
            "version": env!("CARGO_PKG_VERSION"),
            "role": role,
            "layer": (layer > 0).then_some(layer),
            "ready": why.is_none(),
            "why_not_ready": why,
            "epoch": epoch,
            "links": {
                "up": self.links_up.load(Ordering::Relaxed),
                "expected": self.links_expected.load(Ordering::Relaxed),
            },
            "clients": clients,
            "packets": {
                "received": counters.received,
                "forwarded": counters.forwarded,
                "from_clients": counters.from_clients,
                "for_clients": counters.for_clients,
                "cover": counters.cover,
                "waiting": pooled,
            },
            "dropped": dropped,
            "loops": {
                "sent": counters.loops_sent,
                "returned": counters.loops_returned,
                "lost": counters.loops_lost,
                "without_path": counters.loops_without_path,
            },
            "replay_table": { "used": replay_used, "room": replay_room },
        })
    }
}

/// Makes the metrics when they are asked for.
pub(super) struct Metrics {
    pub(super) shared: Arc<Shared>,
    pub(super) opener: Arc<Opener>,
    pub(super) links: Arc<LinkCounters>,
    pub(super) ready: tokio::sync::watch::Receiver<Readiness>,
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The names are constants, which a test collects: nothing here fails.
        self.families().unwrap_or_default()
    }
}

impl Metrics {
    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let Snapshot { counters: c, pooled, clients } = self.shared.snapshot();
        let link = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut families = Vec::new();
        let totals = [
            ("packets_received_total", "Packets from other nodes.", c.received),
            ("packets_forwarded_total", "Packets passed on to other nodes.", c.forwarded),
            ("packets_from_clients_total", "Packets of clients passed on.", c.from_clients),
            ("packets_for_clients_total", "Packets for clients of this gateway.", c.for_clients),
            ("cover_total", "Cover of clients that ended here.", c.cover),
            ("queries_total", "Descriptor queries answered.", c.queries),
            ("clients_admitted_total", "Clients let in.", c.clients_admitted),
            ("clients_refused_total", "Clients turned away.", c.clients_refused),
            ("loops_sent_total", "Own loops sent.", c.loops_sent),
            ("loops_returned_total", "Own loops that came back.", c.loops_returned),
            ("loops_lost_total", "Own loops that did not come back.", c.loops_lost),
            (
                "loops_without_path_total",
                "Own loops that no path was found for.",
                c.loops_without_path,
            ),
            (
                "link_handshake_failures_total",
                "Connections that ended before their handshake.",
                link(&self.links.handshake_failures),
            ),
            (
                "link_refused_peers_total",
                "Connections of peers that are not let in.",
                link(&self.links.refused_peers),
            ),
            (
                "link_refused_connections_total",
                "Connections beyond a limit.",
                link(&self.links.refused_connections),
            ),
            (
                "link_displaced_connections_total",
                "Connections of strangers that made room for others.",
                link(&self.links.displaced_connections),
            ),
            (
                "link_refused_streams_total",
                "Streams beyond the one.",
                link(&self.links.refused_streams),
            ),
            (
                "link_accept_errors_total",
                "Connections that the system could not give.",
                link(&self.links.accept_errors),
            ),
        ];
        for (name, help, value) in totals {
            let counter = IntCounter::new(format!("shoal_node_{name}"), help)?;
            counter.inc_by(value);
            families.extend(counter.collect());
        }
        let opts =
            Opts::new("shoal_node_dropped_total", "Packets that went no further, by reason.");
        let dropped = IntCounterVec::new(opts, &["reason"])?;
        for reason in DropReason::ALL {
            dropped.with_label_values(&[reason.label()]).inc_by(c.dropped(*reason));
        }
        families.extend(dropped.collect());
        let size = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (used, room) = self.opener.replay_fill();
        let gauges = [
            (
                "ready",
                "1 when the node does its work.",
                usize::from(*self.ready.borrow() == Readiness::Ready),
            ),
            ("pool_packets", "Packets that wait for their time.", pooled),
            ("clients", "Clients that are connected.", clients),
            ("links_up", "Links to next hops that stand.", size(&self.shared.links_up)),
            (
                "links_expected",
                "Links to next hops that should.",
                size(&self.shared.links_expected),
            ),
            (
                "peel_queue_frames",
                "Frames that wait to be opened.",
                size(&self.shared.waiting_to_peel),
            ),
            (
                "link_queue_frames",
                "Frames that wait to be sent.",
                size(&self.shared.waiting_to_send),
            ),
            ("replay_tags", "Replay tags that are remembered.", used),
            ("replay_room", "Replay tags that can be remembered.", room),
        ];
        for (name, help, value) in gauges {
            let gauge = IntGauge::new(format!("shoal_node_{name}"), help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
        }
        Ok(families)
    }
}
