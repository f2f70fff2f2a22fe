//! How an authority stands: its metrics and its status.

use std::sync::PoisonError;

use prometheus::{IntCounter, IntGauge, Registry};
use serde_json::{Value, json};
use shoal_host::admin::Readiness;
use shoal_topology::{FURTHER_EPOCHS, Identity};

use super::super::summary::InUse;
use super::AuthorityDaemon;

/// What an authority measures.
pub(super) struct Gauges {
    /// All of these, as the admin page shows them.
    pub(super) registry: Registry,
    /// 1 if there is a document that can be used.
    ready: IntGauge,
    /// Links to other authorities that stand.
    linked: IntGauge,
    /// Nodes that described themselves.
    described: IntGauge,
    /// Authorities that were proven to lie.
    liars: IntGauge,
    /// Authorities that did what honest ones do not.
    faults: IntGauge,
    /// Authorities whose vote for the last document did not count.
    uncounted: IntGauge,
    /// The epoch of the latest document.
    epoch: IntGauge,
    /// Peers that asked for a link and are on no list.
    pending: IntGauge,
    /// Operators whose loss alone the network cannot bear.
    critical: IntGauge,
    /// Nodes that the next document will not list.
    missing: IntGauge,
    /// 1 if the latest document has short layers.
    short: IntGauge,
    /// When the document in use began, in seconds of Unix time.
    begin: IntGauge,
    /// When there is no document any more, in seconds of Unix time.
    end: IntGauge,
    /// Connections that the system could not give.
    accept_errors: IntCounter,
    /// How often the state could not be stored.
    pub(super) failures: IntCounter,
}

impl Gauges {
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("shoal_authority_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("shoal_authority_{name}_total"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            ready: gauge("ready", "1 if there is a document that can be used.")?,
            linked: gauge("linked", "Links to other authorities that stand.")?,
            described: gauge("nodes", "Nodes that described themselves.")?,
            liars: gauge("liars", "Authorities that were proven to lie.")?,
            faults: gauge(
                "faults",
                "Authorities that did what honest ones do not: `status` names them.",
            )?,
            uncounted: gauge(
                "uncounted",
                "Authorities whose vote for the last document did not count.",
            )?,
            epoch: gauge("document_epoch", "Epoch of the latest document.")?,
            pending: gauge(
                "pending",
                "Peers that asked for a link and are on no list, of the last 32: `shoal-node authority pending` names them.",
            )?,
            critical: gauge(
                "critical_operators",
                "Operators whose loss alone would leave layers short or the network without documents: `status` names them.",
            )?,
            missing: gauge(
                "missing_nodes",
                "Nodes that may be listed and that the next document will not list: `status` names them.",
            )?,
            short: gauge(
                "document_is_short",
                "1 if the latest document has fewer mixes in a layer than the parameters ask for.",
            )?,
            begin: gauge(
                "document_begin_timestamp_seconds",
                "When the document in use began, in seconds of Unix time: its age is time() less this; 0 without one.",
            )?,
            end: gauge(
                "document_end_timestamp_seconds",
                "When there is no document any more, if none comes, in seconds of Unix time; 0 without one.",
            )?,
            accept_errors: counter(
                "link_accept_errors",
                "Connections that the system could not give.",
            )?,
            failures: counter(
                "failures",
                "How often the state could not be stored, so that nothing was signed.",
            )?,
            registry,
        })
    }
}

impl AuthorityDaemon {
    /// Makes metrics, readiness and status anew.
    pub(super) fn report(&mut self) {
        let refusing = self.accept_errors.look();
        let status = self.engine.status();
        let now = self.now() / 1_000;
        self.process.observe(now);
        let in_use = self.in_use(now);
        let why = match (&in_use, &self.unstored) {
            // First, since without it no document comes.
            (_, Some(why)) => {
                Some(format!("the state cannot be stored, so nothing is signed: {why}"))
            }
            (None, None) => {
                Some("no document that can be used: the authorities have not agreed".to_owned())
            }
            _ => status.trouble.clone(),
        };
        let readiness = match &why {
            None => Readiness::Ready,
            Some(why) => Readiness::NotReady(why.clone()),
        };
        let not_on_a_list: Vec<String> =
            self.allow.refused().into_iter().map(|key| Identity(key).to_string()).collect();
        if let Some(said) = self.asked.news(&not_on_a_list) {
            tracing::info!("{said}");
        }
        self.gauges.pending.set(i64::try_from(not_on_a_list.len()).unwrap_or(i64::MAX));
        self.measure(&status, in_use, why.is_none());
        self.say.send_if_modified(|said| {
            let changed = *said != readiness;
            if changed {
                *said = readiness;
            }
            changed
        });

        let (linked, others) =
            (self.authority_links.links(), self.authorities.len().saturating_sub(1));
        let summary = match &why {
            None => format!(
                "This authority does its work: a document is in use, and {linked} of {others} other authorities are linked."
            ),
            Some(why) => format!("This authority is not ready: {why}."),
        };
        let left_out = status.left_out.iter();
        let left_out: Vec<Value> =
            left_out.map(|(node, why)| json!({ "identity": node, "why": why })).collect();
        let mut value = self.about.fields(now);
        let mut put = |name: &str, of: Value| _ = value.insert(name.to_owned(), of);
        put("summary", summary.into());
        put("ready", why.is_none().into());
        put("why_not_ready", json!(why));
        let refusing = refusing.map(|why| format!("connections cannot be accepted: {why}"));
        put("warnings", json!(Vec::from_iter(refusing)));
        match in_use {
            Some(in_use) => in_use.fields().into_iter().for_each(|(name, of)| put(name, of)),
            None => {
                let present = self.engine.documents().epoch_at(now).map(|epoch| epoch.0);
                put("epoch", json!(present));
            }
        }
        put("network", self.of_network.clone());
        put("pending", json!({ "not_on_a_list": not_on_a_list, "left_out": left_out }));
        put("authorities", json!({ "linked": linked, "others": others }));
        put("votes", json!(status));
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = value.into();
    }

    fn measure(
        &self,
        status: &shoal_topology::consensus::Status,
        in_use: Option<InUse>,
        ready: bool,
    ) {
        let set =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let count = |gauge: &IntGauge, n: usize| gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        let gauges = &self.gauges;
        set(&gauges.ready, u64::from(ready));
        count(&gauges.linked, self.authority_links.links());
        count(&gauges.described, status.described.0);
        count(&gauges.liars, status.liars.len());
        count(&gauges.faults, status.faults.len());
        count(&gauges.uncounted, status.uncounted.len());
        set(&gauges.epoch, status.latest.map_or(0, |(epoch, _)| epoch));
        let errors = self.accept_errors.seen.saturating_sub(gauges.accept_errors.get());
        gauges.accept_errors.inc_by(errors);
        count(&gauges.critical, status.critical.len());
        count(&gauges.missing, status.missing.len());
        set(&gauges.short, u64::from(status.is_short));
        set(&gauges.begin, in_use.map_or(0, |in_use| in_use.begins));
        set(&gauges.end, in_use.map_or(0, |in_use| in_use.until));
    }

    /// Which document is in use, if there is one that can be.
    fn in_use(&self, now: u64) -> Option<InUse> {
        let documents = self.engine.documents();
        let present = documents.epoch_at(now)?;
        let document = &documents.at(present)?.document;
        document.check_time(now).ok()?;
        let newest = &documents.newest()?.document;
        let epoch_s = u64::from(newest.epoch_s);
        Some(InUse {
            epoch: document.epoch.0,
            amendment: document.amendment,
            begins: document.begins,
            until: newest.begins.saturating_add(epoch_s * (1 + FURTHER_EPOCHS)),
            present: present.0,
            epoch_s,
        })
    }
}
