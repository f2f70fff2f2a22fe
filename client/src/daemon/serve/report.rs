//! What a service says of itself: its status, and what its admin page shows.

use std::sync::atomic::Ordering;

use serde_json::json;
use shoal_host::{about, network};

use super::metrics::Numbers;
use super::{Driver, Offer};
use crate::daemon::clock::unix_s;
use crate::daemon::config::ServiceKind;

use crate::daemon::user::TRIAL;
use crate::service::Trouble;

impl Driver {
    // Long: one entry for each value of the status, all from one look at the engine.
    /// Makes a new report for `status` and the metrics.
    pub(super) fn show(&self) {
        let mut server = self.hub.engine.borrow_mut();
        let counts = server.service.counts();
        let (tunnels, surbs) = server.service.sizes();
        let ignored = server.service.tunnels().ignored();
        let no_room = counts.no_room + server.service.tunnels().refused();
        let up = self.links.values().filter(|link| link.up).count();
        let now = server.clock.now();
        let stale = server.service.trouble(now).map(|why| match why {
            Trouble::NoDocument => network::no_document(&self.network, unix_s()),
            why => why.to_string(),
        });
        let not_ready = if up == 0 {
            let down = self.links.values().find_map(|link| link.down);
            Some(down.map_or("connecting to a gateway".into(), |down| down.to_string()))
        } else {
            stale.map(|stale| self.trouble.clone().unwrap_or(stale))
        };
        let (stuck, mut warnings) = self.keys.lock().map_or((None, Vec::new()), |keys| {
            let trouble = keys.periods.trouble().map(str::to_owned);
            (keys.periods.why_stuck(unix_s()), Vec::from_iter(trouble))
        });
        let not_ready = stuck.or(not_ready);
        if up > 0 && up < self.links.len() {
            let down = self.links.values().find_map(|link| link.down);
            let why = down.map(|down| format!(": {down}")).unwrap_or_default();
            warnings.push(format!("linked to {up} of {} gateways{why}", self.links.len()));
        }
        let mut spares = self.spares.borrow_mut();
        if let Some(document) = server.service.document(now) {
            spares.follow(document);
            warnings.extend(document.is_trial().then(|| TRIAL.into()));
            warnings.extend(spares.warning());
        }
        let overrun = self.overrun.load(Ordering::Relaxed);
        let busy = match &*self.offer {
            Offer::Exit(dialer) => dialer.refused_busy() + self.quotas.refused(),
            Offer::Target(_) | Offer::Program(_) => 0,
        };
        let status = json!({
            "summary": match &not_ready {
                None => format!("Ready: reached by {up} of {} gateways.", self.links.len()),
                Some(why) => format!("Not ready: {why}."),
            },
            "role": if self.kind == ServiceKind::Exit { "exit" } else { "service" },
            "version": about::version(),
            "identity": self.addresses.0.to_string(),
            // An exit is chosen by its clients, and has no address to hand out.
            "addresses": if self.kind == ServiceKind::Exit { Vec::new() } else { self.addresses.1.clone() },
            "ready": not_ready.is_none(),
            "why_not": not_ready,
            "warnings": warnings,
            "links": { "up": up, "of": self.links.len() },
            "tunnels": tunnels,
            "surbs": surbs,
            "packets": {
                "received": counts.received, "sent": counts.sent, "unknown": counts.unknown,
                "overrun": overrun, "link_full": self.full,
            },
            "surbs_dropped": {
                "full": counts.surbs_full, "expired": counts.surbs_expired, "bad": counts.surbs_bad,
            },
            "waited_for_surbs": counts.starved,
            "refused": { "tunnels": no_room, "dials": busy, "datagrams": ignored },
            "datagrams_lost": self.hub.lost_datagrams(),
        });
        let numbers = Numbers {
            tunnels,
            surbs,
            counts,
            datagrams_lost: self.hub.lost_datagrams(),
            busy,
            overrun,
            full: self.full,
            critical: spares.critical(),
        };
        let gauges = numbers.exported(&self.coarse, unix_s(), (not_ready.is_none(), up));
        self.publisher.publish(status, gauges, not_ready);
    }
}
