//! What the outside may know: totals. No label names a peer, a session, a client or an address, and what depends on people
//! moves once an epoch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use shoal_host::admin::Readiness;
use shoal_host::coarse::{Coarse, Grain, Number};
use shoal_host::link::Counters as LinkCounters;
use shoal_topology::{Document, Spares};

use super::Config;
use super::summary::{About, InUse};
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
    /// What the engine's thread last said of itself.
    pub(super) snapshot: Mutex<Snapshot>,
    /// Drops outside of the engine, which the engine's thread takes over.
    pub(super) overload: AtomicU64,
    /// Frames that were lost with their link.
    pub(super) link_lost: AtomicU64,
    /// Links to next hops that stand.
    pub(super) links_up: AtomicUsize,
    /// Links to next hops that there should be.
    pub(super) links_expected: AtomicUsize,
    /// Frames that wait for workers, and for links.
    pub(super) waiting_to_peel: AtomicUsize,
    /// Frames that wait for links.
    pub(super) waiting_to_send: AtomicUsize,
    /// The layer of the node; 0 for a gateway, and where it is not listed.
    pub(super) layer: AtomicUsize,
    /// When the last mix key that there is ends, in seconds of Unix time.
    pub(super) keys_until: AtomicU64,
    /// What the node says of itself.
    about: Mutex<About>,
    /// Which document is in use.
    in_use: Mutex<Option<InUse>>,
    /// Whom the network can lose.
    spares: Mutex<Spares>,
    /// What does not work at present, and why.
    troubles: Mutex<BTreeMap<Subsystem, String>>,
    /// How often something of these began to fail.
    failures: AtomicU64,
}

impl Shared {
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the node says of itself in its status.
    pub(super) fn describe(&self, about: About) {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// The operator has changed the configuration.
    pub(super) fn describe_anew(&self, config: &Config) {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).update(config);
    }

    pub(super) fn about(&self) -> About {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which document is in use.
    pub(super) fn use_document(&self, in_use: Option<InUse>) {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = in_use;
    }

    /// Whom the network can lose, by the document in use.
    pub(super) fn follow(&self, document: &Document) {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).follow(document);
    }

    fn critical(&self) -> usize {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).critical()
    }

    pub(super) fn in_use(&self) -> Option<InUse> {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How something stands that can fail and come back: why it does not work, or that it does. True if that is news;
    /// a new reason is counted.
    pub(super) fn stands(&self, what: Subsystem, why: Option<&str>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let news = troubles.get(&what).map(String::as_str) != why;
        match why {
            Some(why) if news => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                troubles.insert(what, why.to_owned());
            }
            Some(_) => {}
            None => _ = troubles.remove(&what),
        }
        news
    }

    /// What does not work at present, and what the network cannot lose, a line each.
    pub(super) fn troubles(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let troubles = troubles.iter().map(|(what, why)| format!("{}: {why}", what.words()));
        troubles.chain(spares.warning()).collect()
    }
}

/// What of a node can fail while it runs, for want of room or descriptors, and comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subsystem {
    /// The mix keys and the descriptor.
    Keys,
    /// The logs of replay tags.
    Tags,
    /// The last document.
    Topology,
    /// Packets for absent clients.
    Inbox,
    /// Connections from others.
    Connections,
}

impl Subsystem {
    fn words(self) -> &'static str {
        match self {
            Self::Keys => "the mix keys cannot be renewed",
            Self::Tags => "packets are refused, since what was opened cannot be written down",
            Self::Topology => "the topology document cannot be kept for the next start",
            Self::Inbox => {
                "packets for absent clients are dropped, since the inbox file cannot be used"
            }
            Self::Connections => "connections cannot be accepted",
        }
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

/// What the reasons do not say of themselves.
const DROPPED: &str = "Packets that went no further, by reason. filler: packets from gateways that no key of a mix of the \
    first layer opens; clients send such ones when they had nothing ready, and who sends noise looks the same. mac: the same \
    elsewhere, where no client is behind it.";

/// The same of authorities, nodes and clients.
const CRITICAL: &str = "Operators whose loss would leave layers short or the network without documents, by the document in use.";

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

    // Long: the list of all metrics, one entry each. Dividing it would only spread the list.
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
            (
                "failures_total",
                "How often keys, logs, files or connections began to fail; `status` says which fail now.",
                link(&self.shared.failures),
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
        let opts = Opts::new("shoal_node_dropped_total", DROPPED);
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
            ("critical_operators", CRITICAL, self.shared.critical() as u64),
            (
                "replay_room",
                "Replay tags that can be remembered.",
                self.opener.replay_fill().1 as u64,
            ),
        ];
        // Moments, which do not move by themselves as ages do.
        let mut moments = Vec::new();
        if let Some(in_use) = self.shared.in_use() {
            let begin = "When the document in use began, in seconds of Unix time: its age is time() less this.";
            let end = "When there is no document any more, if none comes, in seconds of Unix time.";
            moments.push(("document_epoch", "Epoch of the document in use.", in_use.epoch));
            moments.push(("document_begin_timestamp_seconds", begin, in_use.begins));
            moments.push(("document_end_timestamp_seconds", end, in_use.until));
        }
        let keys = self.shared.keys_until.load(Ordering::Relaxed);
        if keys > 0 {
            let end = "When the last mix key that there is ends, in seconds of Unix time; new ones are made each epoch.";
            moments.push(("keys_end_timestamp_seconds", end, keys));
        }
        let gauge = |name: &str, help: &str, value| {
            let gauge = IntGauge::new(format!("shoal_node_{name}"), help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            Ok::<_, prometheus::Error>(gauge.collect())
        };
        for (name, help, value) in gauges.into_iter().chain(moments) {
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
