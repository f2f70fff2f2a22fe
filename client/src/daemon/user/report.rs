//! What a user's client says of itself: its status, and what its admin page shows.

use std::sync::atomic::Ordering;

use serde_json::json;
use shoal_host::{about, logs, network};

use super::Driver;
use crate::daemon::clock::unix_s;
use crate::daemon::trust;
use crate::engine::{GroupStage, LoopCounts, MAX_GROUPS, Unprotected};
use crate::gauge::Reading;

/// What a client shows on its admin page, but for the bits of anonymity: these and the operators that cannot be lost
/// (`critical`) follow from the document, and nothing moves
/// with what the user does, such as requests, tunnels, SURBs or loops (whose place packets take). All of that is in
/// `status`, for the user alone.
fn exported(is_ready: bool, slots: u64, critical: usize) -> Vec<(&'static str, &'static str, f64)> {
    vec![
        ("shoal_client_critical_operators", CRITICAL, critical as f64),
        ("shoal_client_ready", "1 if user traffic may leave", f64::from(u8::from(is_ready))),
        ("shoal_client_slots_total", "Slots that passed, whatever filled them", slots as f64),
    ]
}

/// Help of a gauge, the same of clients, services, nodes and authorities.
pub(in crate::daemon) const CRITICAL: &str = "Operators whose loss would leave layers short or the network without documents, by the document in use";

/// What people are told in a network for trial.
pub(in crate::daemon) const TRIAL: &str = "this network was founded for trial: its people are too few to hide each other, so expect no protection";

/// The first sentence of `status`.
fn summary(
    not_ready: Option<&str>,
    is_trial: bool,
    allows_few: bool,
    crowd: Option<(f64, Reading)>,
) -> String {
    if let Some(why) = not_ready {
        return format!("Nothing of yours leaves: {why}.");
    }
    let crowd = match crowd {
        Some((bits, Reading::Fine)) => {
            return format!("Connected and protected: {:.1} bits of anonymity expected.", bits);
        }
        Some((bits, _)) => {
            format!("{:.2} bits of anonymity expected", (bits * 100.0).floor() / 100.0)
        }
        None => "nobody knows how many others send".into(),
    };
    if is_trial {
        format!("Connected, without protection: this network is for trial ({crowd}).")
    } else if allows_few {
        format!(
            "Connected, with little protection or none, as protect.allow_small_crowd asks: {crowd}."
        )
    } else {
        format!("Connected, with less protection than usual: {crowd}.")
    }
}

impl Driver {
    // Long: one entry for each value of the status, all from one look at the engine.
    /// Makes a new report for `status` and the metrics.
    pub(super) fn show(&self) {
        let mut user = self.context.hub.engine.borrow_mut();
        let now = user.clock.now();
        let protection = user.client.protection(now);
        let not_ready = match (&protection, self.down) {
            (Err(Unprotected::NoGateway | Unprotected::NoDocument), Some(down)) => {
                Some(down.to_string())
            }
            (Err(Unprotected::NoGateway), None) => Some("connecting to a gateway".into()),
            (Err(Unprotected::NoDocument), None) => {
                Some(network::no_document(&self.network, unix_s()))
            }
            (Err(why), _) => Some(why.to_string()),
            (Ok(()), _) => self.keys.lock().ok().and_then(|keys| keys.periods.why_stuck(unix_s())),
        };
        let config = &self.reload.config;
        let counts = user.client.counts();
        let loops = user.client.loops();
        let (_, surbs) = user.client.sizes();
        let stages = user.client.stages();
        let waiting = |stage| stages.iter().filter(|(at, _)| *at == stage).count();
        let filled = self.slots.queue.filled();
        let tally = *self.context.tally.borrow();
        let overrun = self.overrun.load(Ordering::Relaxed);
        let dummies = self.dummies.load(Ordering::Relaxed);
        let mut warnings = trust::warnings(&user.client, now, config.gateways.len());
        if let Ok(keys) = self.keys.lock() {
            warnings.extend(keys.periods.trouble().map(str::to_owned));
        }
        if self.context.accept_failed.get() > 0 {
            warnings.push(format!(
                "{} connections of programs could not be taken, for want of file descriptors most likely: raise the limit on open \
                 files",
                self.context.accept_failed.get()
            ));
        }
        let lost = self.lost_letters.load(Ordering::Relaxed);
        if lost > 0 {
            warnings.push(format!(
                "{lost} letters that came were lost: look at the disk of the data directory; a client that is no member of an organisation keeps none"
            ));
        }
        if tally.turned_away > 0 {
            warnings.push(format!(
                "{} connections of programs were turned away: all socks.max_connections = {} places were taken",
                tally.turned_away, config.socks.max_connections
            ));
        }
        let document = user.client.document(now).cloned();
        let is_trial = document.as_ref().is_some_and(|document| document.is_trial());
        if is_trial {
            warnings.push(TRIAL.into());
        }
        let mut spares = self.spares.borrow_mut();
        document.iter().for_each(|document| spares.follow(document));
        warnings.extend(spares.warning());
        if user.client.exits_are_all_behind(now) {
            warnings.push(
                "all exits are reached by your own gateway alone, which would see both ends, so none is used: name another \
                 gateway, or set protect.allow_shared_gateway"
                    .into(),
            );
        }
        match user.client.silent_services(now) {
            0 => {}
            1 => warnings.push("a service or exit in use does not answer".into()),
            n => {
                warnings.push(format!("{n} tunnels wait for services or exits that do not answer"))
            }
        }
        if counts.no_group > 0 {
            warnings.push(format!(
                "{} requests found all {MAX_GROUPS} places in use for user names and services that are kept apart",
                counts.no_group
            ));
        }
        if self.reload.config.protect.allow_shared_gateway {
            warnings
                .push("protect.allow_shared_gateway is set: one gateway may see both ends".into());
        }
        if let Some((left, evidence)) = self.left {
            let other = if left == 0 { "second" } else { "first" };
            warnings.push(format!("gateway {} was left for the {other}: {evidence}", left + 1));
        }
        if let Some(trouble) = user.client.refused_document() {
            warnings.push(format!("the last topology document was refused: {trouble}"));
        }
        let crowd = user.client.crowd();
        let bits = crowd.map(|(bits, _)| bits);
        let floor = user.client.document(now).map(|document| document.parameters.warn_bits);
        if let (Some((bits, Reading::Warn | Reading::Refuse)), Some(floor)) = (crowd, floor) {
            warnings.push(format!(
                "the expected anonymity is {:.2} bits: few others send now (the network warns below {floor})",
                (bits * 100.0).floor() / 100.0
            ));
        }
        if self.reload.config.protect.allow_small_crowd {
            warnings.push("protect.allow_small_crowd is set: you may stand alone".into());
        }
        let (known, back) = loops.recent;
        if known >= 20 && back * 2 < known {
            warnings.push(format!("{} of the last {known} loops were lost", known - back));
        }
        let gateway =
            self.linked.and_then(|index| config.gateways.get(index)).map(|of| of.identity);
        let operator = gateway.zip(document.as_ref()).and_then(|(of, document)| {
            let node = document.node(document.index_of(&of)?)?;
            Some(node.descriptor.body().operator.clone())
        });
        let span = user.client.epoch(now).map(|epoch| {
            let begins = epoch * u64::from(self.network.epoch_s);
            (begins, begins + u64::from(self.network.epoch_s))
        });
        let summary =
            summary(not_ready.as_deref(), is_trial, config.protect.allow_small_crowd, crowd);
        let LoopCounts { sent, returned, lost, median_ms, .. } = loops;
        let status = json!({
            "summary": summary,
            "role": "client",
            "version": about::version(),
            "identity": self.own.to_string(),
            "ready": not_ready.is_none(),
            "why_not": not_ready,
            "warnings": warnings,
            "class": self.reload.config.class,
            "strict": self.reload.config.protect.strict,
            "gateway": self.linked.map(|index| if index == 0 { "first" } else { "second" }),
            "gateway_operator": operator,
            "epoch": user.client.epoch(now),
            "epoch_began": span.map(|(begins, _)| logs::utc(begins)),
            "epoch_ends": span.map(|(_, ends)| logs::utc(ends)),
            "anonymity_bits": bits,
            "tunnels": {
                "looking_for_service": waiting(GroupStage::Looking),
                "connecting": waiting(GroupStage::Connecting),
                "connected": waiting(GroupStage::Connected),
            },
            "requests": {
                "waiting": tally.open, "answered": tally.answered, "refused": tally.refused,
                "malformed": tally.malformed, "turned_away": tally.turned_away,
            },
            "loops": {
                "sent": sent, "returned": returned, "lost": lost,
                "recent": known, "recent_returned": back, "median_ms": median_ms,
            },
            "slots": {
                "data": filled.data, "surbs": filled.refill, "loops": filled.loops,
                "cover": filled.drops, "filler": filled.filler,
            },
            "arrivals": {
                "packets": counts.packets, "dummies": dummies, "unknown": counts.unknown, "overrun": overrun,
                "replayed": counts.replayed, "late": counts.late, "junk": counts.junk,
            },
            "pauses": user.client.pauses(),
            "surbs_out": surbs,
            "packets_without_path": counts.no_path,
            "datagrams_lost": self.context.hub.lost_datagrams(),
        });
        let slots = filled.total();
        let mut gauges = exported(not_ready.is_none(), slots, spares.critical());
        if let Some(bits) = bits {
            let help = "Expected anonymity of the next packet, bits";
            gauges.push(("shoal_client_anonymity_bits", help, bits));
        }
        self.publisher.show_document(document.as_ref());
        self.publisher.publish(status, gauges, not_ready);
    }
}
