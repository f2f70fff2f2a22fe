//! What the outside may know: totals. No label names a peer, a session, a client or an address, and what depends on people
//! moves once an epoch.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use serde_json::{Value, json};
use shoal_daemon::admin::Readiness;
use shoal_daemon::coarse::{Coarse, Grain, Number};
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

/// Drops that no single client brings about: for want of room, time or a link. The others are shown once an epoch.
const OF_THE_NODE: [DropReason; 6] = [
    DropReason::ReplayTableFull,
    DropReason::ReplayLog,
    DropReason::PoolFull,
    DropReason::Overload,
    DropReason::LinkQueueFull,
    DropReason::LinkLost,
];

impl Shared {
    /// What depends on people, to be shown once an epoch: name, help, number, grain.
    fn of_people(&self, opener: &Opener) -> Vec<(&'static str, &'static str, Number, Grain)> {
        let Snapshot { counters: c, pooled, clients } = self.snapshot();
        let size = |counter: &AtomicUsize| Number::Level(counter.load(Ordering::Relaxed) as u64);
        let (used, _) = opener.replay_fill();
        let total = |value| (Number::Total(value), Grain::Packets);
        let few = |value| (Number::Total(value), Grain::Few);
        let level = |value| (Number::Level(value as u64), Grain::Packets);
        let all = [
            ("packets_received_total", "Packets from other nodes.", total(c.received)),
            ("packets_forwarded_total", "Packets passed on to other nodes.", total(c.forwarded)),
            ("packets_from_clients_total", "Packets of clients passed on.", total(c.from_clients)),
            (
                "packets_for_clients_total",
                "Packets for clients of this gateway.",
                total(c.for_clients),
            ),
            ("cover_total", "Cover of clients that ended here.", total(c.cover)),
            ("queries_total", "Descriptor queries answered.", few(c.queries)),
            ("clients_admitted_total", "Clients let in.", few(c.clients_admitted)),
            ("clients_refused_total", "Clients turned away.", few(c.clients_refused)),
            ("pool_packets", "Packets that wait for their time.", level(pooled)),
            ("clients", "Clients that are connected.", (Number::Level(clients as u64), Grain::Few)),
            (
                "peel_queue_frames",
                "Frames that wait to be opened.",
                (size(&self.waiting_to_peel), Grain::Packets),
            ),
            (
                "link_queue_frames",
                "Frames that wait to be sent.",
                (size(&self.waiting_to_send), Grain::Packets),
            ),
            ("replay_tags", "Replay tags that are remembered.", level(used)),
        ];
        all.into_iter().map(|(name, help, (number, grain))| (name, help, number, grain)).collect()
    }
}

/// Makes the metrics when they are asked for.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) shared: Arc<Shared>,
    pub(super) opener: Arc<Opener>,
    pub(super) links: Arc<LinkCounters>,
    pub(super) ready: tokio::sync::watch::Receiver<Readiness>,
    pub(super) coarse: Arc<Coarse>,
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
    /// To be called often: what depends on people is taken over when an epoch has ended.
    pub(super) fn observe(&self, unix_s: u64) {
        let of_people = self.shared.of_people(&self.opener);
        let counters = self.shared.snapshot().counters;
        let drops = DropReason::ALL.iter().map(|reason| {
            (reason.label(), Number::Total(counters.dropped(*reason)), Grain::Packets)
        });
        let numbers = of_people.into_iter().map(|(name, _, number, grain)| (name, number, grain));
        self.coarse.observe(unix_s, numbers.chain(drops));
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let Snapshot { counters: c, .. } = self.shared.snapshot();
        let link = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut families = Vec::new();
        // Of the node's own loops and of connections that come to nothing: no client moves them.
        let totals = [
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
        let total = |name: &str, help: &str, value| {
            let counter = IntCounter::new(format!("shoal_node_{name}"), help)?;
            counter.inc_by(value);
            Ok::<_, prometheus::Error>(counter.collect())
        };
        for (name, help, value) in totals {
            families.extend(total(name, help, value)?);
        }
        let opts =
            Opts::new("shoal_node_dropped_total", "Packets that went no further, by reason.");
        let dropped = IntCounterVec::new(opts, &["reason"])?;
        for reason in DropReason::ALL {
            let label = reason.label();
            let count = match OF_THE_NODE.contains(reason) {
                true => c.dropped(*reason),
                false => self.coarse.shown(label),
            };
            dropped.with_label_values(&[label]).inc_by(count);
        }
        families.extend(dropped.collect());
        let size = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as u64;
        let gauges = [
            (
                "ready",
                "1 when the node does its work.",
                u64::from(*self.ready.borrow() == Readiness::Ready),
            ),
            ("links_up", "Links to next hops that stand.", size(&self.shared.links_up)),
            (
                "links_expected",
                "Links to next hops that should.",
                size(&self.shared.links_expected),
            ),
            (
                "replay_room",
                "Replay tags that can be remembered.",
                self.opener.replay_fill().1 as u64,
            ),
        ];
        let gauge = |name: &str, help: &str, value| {
            let gauge = IntGauge::new(format!("shoal_node_{name}"), help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            Ok::<_, prometheus::Error>(gauge.collect())
        };
        for (name, help, value) in gauges {
            families.extend(gauge(name, help, value)?);
        }
        for (name, help, number, _) in self.shared.of_people(&self.opener) {
            let (help, shown) =
                (format!("{help} As of the last epoch, rounded."), self.coarse.shown(name));
            families.extend(match number {
                Number::Total(_) => total(name, &help, shown)?,
                Number::Level(_) => gauge(name, &help, shown)?,
            });
        }
        Ok(families)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn page(metrics: &Metrics) -> String {
        TextEncoder::new().encode_to_string(&metrics.collect()).unwrap()
    }

    /// What the engine's thread says after some work for people.
    fn work(metrics: &Metrics, turns: u64) {
        let mut snapshot = metrics.shared.snapshot.lock().unwrap();
        for _ in 0..turns {
            let Snapshot { counters: c, pooled, clients } = &mut *snapshot;
            let of_people = [
                &mut c.received,
                &mut c.forwarded,
                &mut c.from_clients,
                &mut c.for_clients,
                &mut c.cover,
                &mut c.queries,
                &mut c.clients_admitted,
                &mut c.clients_refused,
            ];
            of_people.into_iter().for_each(|counter| *counter += 1);
            (*pooled, *clients) = (*pooled + 1, *clients + 1);
            for reason in DropReason::ALL.iter().filter(|reason| !OF_THE_NODE.contains(reason)) {
                c.drop(*reason);
            }
        }
        metrics.shared.waiting_to_peel.fetch_add(turns as usize, Ordering::Relaxed);
        metrics.shared.waiting_to_send.fetch_add(turns as usize, Ordering::Relaxed);
    }

    #[test]
    fn what_people_do_moves_no_metric_of_a_node_before_the_epoch_ends() {
        let (_say, ready) = tokio::sync::watch::channel(Readiness::Ready);
        let metrics = Metrics {
            shared: Arc::default(),
            opener: Arc::new(Opener::new(shoal_sphinx::backend::Backend::best_codec())),
            links: Arc::default(),
            ready,
            coarse: Arc::new(Coarse::new(600, [5; 32])),
        };
        metrics.observe(6_000);
        let first = page(&metrics);
        for second in 1..600 {
            work(&metrics, second);
            metrics.observe(6_000 + second);
            assert_eq!(page(&metrics), first, "{second}");
        }
        metrics.observe(6_600);
        let second = page(&metrics);
        let value = |page: &str, name: &str| -> u64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().parse().unwrap()
        };
        let mut moved = 0;
        for line in second.lines().filter(|line| !line.starts_with('#')) {
            let (name, count) = line.rsplit_once(' ').unwrap();
            let before = value(&first, name);
            let count: u64 = count.parse().unwrap();
            assert!(count == before || count.is_multiple_of(8), "{line}");
            moved += u32::from(count != before);
        }
        assert!(moved > 15, "{moved}");
        assert!(value(&second, "shoal_node_packets_received_total") > 100_000);
        work(&metrics, 100_000);
        metrics.observe(7_199);
        assert_eq!(page(&metrics), second);
    }

    #[test]
    fn what_the_node_lacks_shows_at_once() {
        let (_say, ready) = tokio::sync::watch::channel(Readiness::Ready);
        let metrics = Metrics {
            shared: Arc::default(),
            opener: Arc::new(Opener::new(shoal_sphinx::backend::Backend::best_codec())),
            links: Arc::default(),
            ready,
            coarse: Arc::new(Coarse::new(600, [5; 32])),
        };
        metrics.shared.snapshot.lock().unwrap().counters.drop(DropReason::Overload);
        assert!(page(&metrics).contains("shoal_node_dropped_total{reason=\"overload\"} 1\n"));
    }
}
