//! What a service shows on its admin page: nothing that moves with what one client does.

use shoal_host::coarse::{Coarse, Grain, Number};

use crate::daemon::user::CRITICAL;
use crate::service::Counts;

/// What a service counts.
pub(super) struct Numbers {
    pub(super) tunnels: usize,
    pub(super) surbs: usize,
    pub(super) counts: Counts,
    pub(super) datagrams_lost: u64,
    /// Connections refused because too many were under way.
    pub(super) busy: u64,
    /// Packets dropped because the engine was behind.
    pub(super) overrun: u64,
    /// Replies dropped because a link's queue was full.
    pub(super) full: u64,
    /// Operators that the network cannot lose.
    pub(super) critical: usize,
}

impl Numbers {
    /// What it shows on its admin page.
    pub(super) fn exported(
        &self,
        coarse: &Coarse,
        unix_s: u64,
        (is_ready, links): (bool, usize),
    ) -> Vec<(&'static str, &'static str, f64)> {
        use Grain::{Few, Packets};
        use Number::{Level, Total};
        let Self { counts, .. } = self;
        let of_people = [
            ("shoal_service_tunnels", "Tunnels.", Level(self.tunnels as u64), Few),
            ("shoal_service_surbs", "SURBs in stock.", Level(self.surbs as u64), Packets),
            (
                "shoal_service_packets_received_total",
                "Packets that brought something.",
                Total(counts.received),
                Packets,
            ),
            ("shoal_service_packets_sent_total", "Replies.", Total(counts.sent), Packets),
            (
                "shoal_service_packets_unknown_total",
                "Packets that could not be read.",
                Total(counts.unknown),
                Packets,
            ),
            (
                "shoal_service_datagrams_lost_total",
                "Datagrams of UDP ASSOCIATE that arrived and found a queue full.",
                Total(self.datagrams_lost),
                Packets,
            ),
            (
                "shoal_service_surbs_full_total",
                "SURBs dropped because the stock was full.",
                Total(counts.surbs_full),
                Packets,
            ),
            (
                "shoal_service_surbs_bad_total",
                "SURBs that led nowhere.",
                Total(counts.surbs_bad),
                Packets,
            ),
            (
                "shoal_service_starved_total",
                "Times that a reply waited for a SURB.",
                Total(counts.starved),
                Packets,
            ),
            (
                "shoal_service_packets_overrun_total",
                "Packets dropped because the engine was behind.",
                Total(self.overrun),
                Packets,
            ),
            (
                "shoal_service_link_full_total",
                "Replies dropped because a link's queue was full.",
                Total(self.full),
                Packets,
            ),
            (
                "shoal_service_dials_refused_total",
                "Connections refused because too many were under way.",
                Total(self.busy),
                Few,
            ),
        ];
        coarse.observe(unix_s, of_people.map(|(name, _, number, grain)| (name, number, grain)));
        // What the service itself lacks shows at once: no client brings it about.
        let mut gauges = vec![
            ("shoal_service_ready", "1 if clients can be answered", f64::from(u8::from(is_ready))),
            ("shoal_service_links", "Links that are up", links as f64),
            ("shoal_service_critical_operators", CRITICAL, self.critical as f64),
        ];
        gauges.extend(of_people.map(|(name, help, ..)| (name, help, coarse.shown(name) as f64)));
        gauges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_service_shows_moves_within_an_epoch_but_its_links_and_whether_it_is_ready() {
        let numbers = |n: u64| Numbers {
            tunnels: n as usize,
            surbs: n as usize,
            counts: Counts {
                received: n,
                sent: n,
                unknown: n,
                replayed: n,
                surbs_full: n,
                surbs_expired: n,
                surbs_bad: n,
                no_room: n,
                starved: n,
            },
            datagrams_lost: n,
            busy: n,
            overrun: n,
            full: n,
            critical: 2,
        };
        let coarse = Coarse::new(100, [1; 32]);
        let mut shown = Vec::new();
        for epoch in 10..13 {
            let at = |second: u64, n| numbers(n).exported(&coarse, 100 * epoch + second, (true, 2));
            let first = at(0, 50_000 * epoch);
            for second in 1..100 {
                assert_eq!(at(second, 50_000 * epoch + 400 * second), first);
            }
            shown.push(first);
        }
        let moved = shown[2].iter().zip(&shown[1]).filter(|(now, then)| now.2 != then.2).count();
        assert!(moved > 6, "they do move when an epoch ends: {moved}");
    }
}
