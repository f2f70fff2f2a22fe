//! Which gateway of one's own to use: when one is left, and when a client comes back to the first.
//!
//! A move shows on the client's link, so whoever can make clients move gathers them where he wants them, and finds
//! out whom he has moved. Hence the bounds: lost packets and made-up ones are the gateway's own doing, and it is left
//! for them at once; late ones may be the provider's, who would herd all its customers to one gateway. So a client
//! moves for lateness at most once a day, never while the other gateway was late too when it was used last, and it
//! comes back in any case: after a day, or twice as long each time that the same gateway is left again soon.

use std::time::Duration;

use rand::RngExt;
use shoal_topology::{Identity, Stream};

/// A gateway that was left for what it did is not gone back to for so long by a client that leaves the other one.
const HOLD_OFF: Duration = Duration::from_secs(600);
const DAY_S: u64 = 86_400;
/// For so long, and up to twice as long, whoever others write to stays away from a first gateway that was down: what is written
/// to him waits there.
const DOWN_S: std::ops::Range<f64> = 600.0..1_200.0;
/// The longest time away from a gateway, without what is drawn.
const MAX_AWAY_S: u64 = 16 * DAY_S;
/// How long it holds against moving to a gateway that it was late.
const LATE_COUNTS_S: u64 = 7 * DAY_S;
/// The drawn part of the time away.
const DRAWN: f64 = 0.25;
/// Times are rounded to this before they are kept on a disk: what was when is nobody's business.
const ROUND_S: u64 = 3_600;

/// What loops and arrivals say of a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// Too many loops are lost.
    Lost,
    /// Too many loops come late.
    Late,
    /// Packets come that nobody but the gateway can have made.
    Garbage,
}

/// What is found, in totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// What the gateway is found to do.
    pub blame: Blame,
    /// So many loops, or packets that nobody asked for.
    pub bad: u64,
    /// How many loops were looked at.
    pub of: u64,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { blame, bad, of } = self;
        match blame {
            Blame::Lost => write!(f, "{bad} of the last {of} loops were lost"),
            Blame::Late => write!(f, "{bad} of the last {of} loops came late"),
            Blame::Garbage => write!(f, "{bad} packets came that nobody asked for"),
        }
    }
}

/// What is known of one gateway. Times are seconds of Unix time; zero is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "daemon", derive(serde::Serialize, serde::Deserialize))]
pub struct GatewayRecord {
    /// The gateway that this record is of.
    pub identity: Identity,
    /// When it was left for what it did.
    pub left_s: u64,
    /// How often in a row: each doubles the time away.
    pub strikes: u32,
    /// When its loops were last found late.
    pub late_s: u64,
}

/// What must outlive a restart. Seconds of Unix time, in whole hours; zero is never.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "daemon", derive(serde::Serialize, serde::Deserialize))]
pub struct GatewayMemory {
    /// Of each gateway that was ever left or late.
    pub gateways: Vec<GatewayRecord>,
    /// When the client comes back to the first.
    pub back_s: u64,
    /// When it last moved for lateness.
    pub moved_s: u64,
}

impl GatewayMemory {
    /// Index of the gateway to begin with: the first, unless it was left and it is not time yet to come back.
    pub fn begins_at(&self, gateways: &[Identity], unix_s: u64) -> usize {
        let left = |of: &GatewayRecord| gateways.first() == Some(&of.identity) && of.left_s > 0;
        let away = self.back_s > unix_s && self.gateways.iter().any(left);
        usize::from(away && gateways.len() > 1)
    }
}

/// The user's gateways, the first one first.
pub(super) struct Gateways {
    records: Vec<GatewayRecord>,
    back_s: u64,
    moved_s: u64,
    /// The gateway that is to be left, until there is a link to another one.
    leaving: Option<Identity>,
    rng: Stream,
}

impl Gateways {
    pub(super) fn new(rng: Stream) -> Self {
        Self { records: Vec::new(), back_s: 0, moved_s: 0, leaving: None, rng }
    }

    /// The gateways that the user named, and what was known of them.
    pub(super) fn set(&mut self, gateways: &[Identity], memory: &GatewayMemory) {
        let known = |identity: &Identity| {
            let fresh = GatewayRecord { identity: *identity, left_s: 0, strikes: 0, late_s: 0 };
            memory.gateways.iter().find(|of| of.identity == *identity).copied().unwrap_or(fresh)
        };
        self.records = gateways.iter().map(known).collect();
        (self.back_s, self.moved_s) = (memory.back_s, memory.moved_s);
        // Another first gateway than then was never left.
        if self.records.first().is_none_or(|first| first.left_s == 0) {
            self.back_s = 0;
        }
    }

    pub(super) fn memory(&self) -> GatewayMemory {
        let round = |s: u64| s / ROUND_S * ROUND_S;
        let known = self.records.iter().filter(|of| of.left_s + of.late_s > 0);
        let rounded = known.map(|of| GatewayRecord {
            left_s: round(of.left_s),
            late_s: round(of.late_s),
            ..*of
        });
        let gateways = rounded.collect();
        GatewayMemory { gateways, back_s: round(self.back_s), moved_s: round(self.moved_s) }
    }

    fn away_s(record: &GatewayRecord) -> u64 {
        DAY_S.saturating_mul(1 << record.strikes.saturating_sub(1).min(8)).min(MAX_AWAY_S)
    }

    fn come_back_s(&mut self, unix_s: u64) -> u64 {
        let away = self.records.first().map_or(DAY_S, Self::away_s) as f64;
        unix_s + (away * self.rng.random_range(1.0..1.0 + DRAWN)) as u64
    }

    /// The link to this gateway stands, which may be said again and again. Away from the first one, the instant of coming
    /// back is drawn, whatever the reason: soon for whoever others write to (`is_reachable`), unless the first was left for what
    /// it did.
    pub(super) fn linked(&mut self, unix_s: u64, to: &Identity, is_reachable: bool) {
        self.leaving = self.leaving.filter(|left| left == to);
        match self.records.iter().position(|of| of.identity == *to) {
            Some(0) => self.back_s = 0,
            Some(_) if self.back_s == 0 => {
                let was_left = self.records.first().is_some_and(|first| first.left_s > 0);
                self.back_s = match is_reachable && !was_left {
                    true => unix_s + self.rng.random_range(DOWN_S) as u64,
                    false => self.come_back_s(unix_s),
                };
            }
            _ => {}
        }
    }

    /// True if it is time to come back to the first gateway. If that fails, there is another day.
    pub(super) fn comes_back(&mut self, unix_s: u64, from: &Identity) -> bool {
        let away = self.records.iter().skip(1).any(|of| of.identity == *from);
        let back = away && self.back_s > 0 && self.back_s <= unix_s;
        if back {
            self.back_s = 0;
        }
        back
    }

    /// What the loops by a gateway say, when enough are known.
    pub(super) fn measured(&mut self, unix_s: u64, at: &Identity, late: bool) {
        if let Some(of) = self.records.iter_mut().find(|of| of.identity == *at) {
            of.late_s = if late { unix_s } else { 0 };
        }
    }

    /// True if the other gateway was late, too, when it was used last.
    pub(super) fn other_is_late(&self, unix_s: u64, than: &Identity) -> bool {
        let late = |of: &GatewayRecord| of.late_s > 0 && unix_s < of.late_s + LATE_COUNTS_S;
        self.records.iter().any(|of| of.identity != *than && late(of))
    }

    /// Something is found against the gateway: whether it is left for the other one.
    pub(super) fn leave(&mut self, unix_s: u64, from: &Identity, why: Blame) -> bool {
        let at = self.records.iter().position(|of| of.identity == *from);
        if !self.may_leave(unix_s, from, why) {
            return false;
        }
        if why == Blame::Late {
            self.moved_s = unix_s;
        }
        // Without a list the caller knows where to go.
        let Some((at, record)) = at.and_then(|at| Some((at, self.records.get_mut(at)?))) else {
            return true;
        };
        // A gateway that behaved for four times as long as it was left for begins anew.
        let again = record.left_s > 0 && unix_s < record.left_s + 4 * Self::away_s(record);
        // While the link has not moved, more that is found is of the same departure.
        if self.leaving.replace(record.identity) != Some(record.identity) {
            record.strikes = if again { record.strikes + 1 } else { 1 };
        }
        record.left_s = unix_s;
        // Only the first is come back to; which one that is the user said.
        if at == 0 {
            self.back_s = self.come_back_s(unix_s);
        }
        true
    }

    fn may_leave(&self, unix_s: u64, from: &Identity, why: Blame) -> bool {
        if self.records.len() == 1 {
            return false;
        }
        let left = |of: &&GatewayRecord| of.identity != *from && of.left_s > 0;
        let mut others = self.records.iter().filter(left);
        // For lost and made-up packets some minutes are enough: they are the gateway's own doing.
        if why != Blame::Late {
            return !others.any(|of| unix_s < of.left_s + HOLD_OFF.as_secs());
        }
        (self.moved_s == 0 || unix_s >= self.moved_s + DAY_S)
            && !self.other_is_late(unix_s, from)
            && !others.any(|of| unix_s < of.left_s + Self::away_s(of))
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::Seed;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(n: u8) -> Identity {
        Identity([n; 32])
    }

    fn gateways(seed: u64) -> Gateways {
        let mut gateways = Gateways::new(Seed::from_u64(seed).stream("gateways"));
        gateways.set(&[id(1), id(2)], &GatewayMemory::default());
        gateways.linked(NOW, &id(1), false);
        gateways
    }

    /// The seconds until it comes back from the second gateway.
    fn away(gateways: &mut Gateways, from: u64) -> u64 {
        gateways.linked(from, &id(2), false);
        (0..).step_by(60).find(|after| gateways.comes_back(from + after, &id(2))).unwrap()
    }

    #[test]
    fn a_client_comes_back_after_a_day_and_later_each_time_that_it_must_leave_again() {
        let mut instants = Vec::new();
        for seed in 0..20 {
            let mut gateways = gateways(seed);
            let mut now = NOW;
            for days in [1, 2, 4, 8, 16, 16] {
                assert!(gateways.leave(now, &id(1), Blame::Lost));
                let after = away(&mut gateways, now + 5);
                let drawn = days * DAY_S..days * DAY_S * 5 / 4 + 60;
                assert!(drawn.contains(&(after + 5)), "{days} days: {after}");
                instants.push(after % DAY_S);
                now += after;
                gateways.linked(now, &id(1), false);
                assert!(!gateways.comes_back(now + 100 * DAY_S, &id(1)));
            }
            // It has behaved for long: a day again.
            now += 64 * DAY_S + 1;
            assert!(gateways.leave(now, &id(1), Blame::Lost));
            assert!(away(&mut gateways, now) < 2 * DAY_S);
        }
        instants.sort();
        instants.dedup();
        assert!(instants.len() > 60, "drawn, and not the same for all: {}", instants.len());
    }

    #[test]
    fn a_gateway_that_was_only_out_of_reach_is_come_back_to_as_well() {
        let mut gateways = gateways(1);
        assert!((DAY_S..DAY_S * 5 / 4 + 60).contains(&away(&mut gateways, NOW)));
    }

    #[test]
    fn what_is_found_against_a_gateway_that_is_being_left_is_no_second_departure() {
        let mut gateways = gateways(1);
        for minute in 0..5 {
            // The link has not moved yet: the other gateway does not answer.
            assert!(gateways.leave(NOW + 60 * minute, &id(1), Blame::Lost));
            gateways.linked(NOW + 60 * minute + 1, &id(1), false);
            assert!(gateways.leave(NOW + 60 * minute + 30, &id(1), Blame::Garbage));
        }
        assert!((DAY_S - 300..DAY_S * 5 / 4 + 60).contains(&away(&mut gateways, NOW + 300)));
        // It is left again soon after: that is the second one.
        let now = NOW + 2 * DAY_S;
        gateways.linked(now, &id(1), false);
        assert!(gateways.leave(now, &id(1), Blame::Lost));
        assert!(gateways.leave(now + 60, &id(1), Blame::Lost));
        let after = away(&mut gateways, now + 60);
        assert!((2 * DAY_S - 60..DAY_S * 5 / 2 + 60).contains(&after), "{after}");
    }

    #[test]
    fn for_lateness_a_client_moves_once_a_day_and_not_to_one_that_is_late() {
        let mut gateways = gateways(1);
        gateways.measured(NOW, &id(1), true);
        assert!(gateways.leave(NOW, &id(1), Blame::Late));
        gateways.linked(NOW, &id(2), false);
        // The second is not late: the first is come back to, and left again a day later.
        gateways.measured(NOW + 60, &id(2), false);
        gateways.linked(NOW + 3_600, &id(1), false);
        assert!(!gateways.leave(NOW + DAY_S - 1, &id(1), Blame::Late));
        assert!(gateways.leave(NOW + DAY_S, &id(1), Blame::Late));
        // Now it is late as well: it is the provider.
        gateways.linked(NOW + DAY_S, &id(2), false);
        gateways.measured(NOW + DAY_S + 60, &id(2), true);
        assert!(!gateways.leave(NOW + 2 * DAY_S + 60, &id(2), Blame::Late), "to a late one");
        gateways.linked(NOW + 3 * DAY_S, &id(1), false);
        gateways.measured(NOW + 3 * DAY_S + 60, &id(1), true);
        assert!(!gateways.leave(NOW + 3 * DAY_S + 60, &id(1), Blame::Late), "both are late");
        // What takes packets is left all the same.
        assert!(gateways.leave(NOW + 3 * DAY_S + 60, &id(1), Blame::Lost));
    }

    #[test]
    fn whoever_is_written_to_comes_back_soon_to_a_gateway_that_was_down_and_not_to_one_that_was_left()
     {
        for seed in 0..50 {
            let mut down = gateways(seed);
            down.linked(NOW, &id(2), true);
            assert!(!down.comes_back(NOW + 599, &id(2)));
            assert!(down.comes_back(NOW + 1_200, &id(2)));
            // It is still down: once more as long.
            down.linked(NOW + 1_210, &id(2), true);
            assert!(!down.comes_back(NOW + 1_809, &id(2)) && down.comes_back(NOW + 2_410, &id(2)));
            let mut left = gateways(seed);
            assert!(left.leave(NOW, &id(1), Blame::Lost));
            left.linked(NOW + 5, &id(2), true);
            assert!(!left.comes_back(NOW + DAY_S - 1, &id(2)));
        }
    }

    #[test]
    fn when_both_take_packets_it_is_neither_for_ten_minutes() {
        let mut gateways = gateways(1);
        assert!(gateways.leave(NOW, &id(1), Blame::Garbage));
        gateways.linked(NOW, &id(2), false);
        assert!(!gateways.leave(NOW + 599, &id(2), Blame::Lost));
        assert!(gateways.leave(NOW + 600, &id(2), Blame::Lost));
        let mut one = Gateways::new(Seed::from_u64(1).stream("gateways"));
        one.set(&[id(1)], &GatewayMemory::default());
        assert!(!one.leave(NOW, &id(1), Blame::Lost), "the only one");
    }

    #[test]
    fn what_was_learnt_outlives_a_restart_in_whole_hours() {
        let mut before = gateways(1);
        before.measured(NOW + 100, &id(1), true);
        assert!(before.leave(NOW + 100, &id(1), Blame::Late));
        let memory = before.memory();
        let times = [memory.back_s, memory.moved_s, memory.gateways[0].left_s];
        assert!(times.iter().all(|s| *s > 0 && s % 3_600 == 0), "{memory:?}");
        let mut after = Gateways::new(Seed::from_u64(2).stream("gateways"));
        after.set(&[id(1), id(2)], &memory);
        let begins = |first, second, at| memory.begins_at(&[id(first), id(second)], NOW + at);
        assert_eq!([begins(1, 2, 200), begins(1, 2, 2 * DAY_S)], [1, 0]);
        after.linked(NOW + 300, &id(2), false);
        assert_eq!(after.memory(), memory);
        assert!(!after.leave(NOW + 3_600, &id(2), Blame::Late), "once a day");
        // With other gateways there is nothing to come back from.
        assert_eq!(begins(3, 1, 200), 0);
    }
}
