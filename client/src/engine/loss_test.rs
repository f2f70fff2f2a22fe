//! Whether the client's own gateway takes its packets, or holds them up: too many loops are lost or late, whichever mixes
//! they went by.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_topology::{Class, Identity, Time};

use super::gateways::{Blame, Evidence};

/// Loops whose fate is remembered: 19 s of class web.
const REMEMBERED: usize = 512;
/// With fewer nothing is said.
const LEAST: usize = 100;
/// With so many that are not late beyond chance, the gateway is not late.
const ENOUGH: usize = 300;
/// The share of loops that an honest network may lose, and the share that may be late.
const TOLERANCE: f64 = 0.05;
/// A gateway is blamed if so many losses have no greater chance at that share.
const CHANCE: f64 = 1e-6;
/// One that was found late is so for as long as it has no greater chance than this: near the limit chance goes up and down.
const STILL_LATE: f64 = 1e-3;
/// Stretches without dummies that are remembered.
const GAPS: usize = 64;
/// A gateway is late if it is found so again and again for so long: one bad moment of a line is no reason to move.
const STAYS_LATE: Duration = Duration::from_secs(20);

/// How the loops of one link fared, and when its downlink had room.
///
/// A gateway whose queue for the client is full drops packets honestly; then everything that comes for as long as the
/// queue is deep is a packet, no dummy. So a loop in whose flight no dummies arrived for half of that time is not counted
/// as lost; it counts as late unless packets came in their place, since where nothing comes the gateway holds it all.
#[derive(Default)]
pub(super) struct LossTest {
    known: VecDeque<Fate>,
    /// How many of these came in time, came late, and were lost.
    in_time: usize,
    late: usize,
    lost: usize,
    /// When the link began.
    since: Time,
    /// When the last dummy came, packets since then, and stretches without one: whether it was packets that left no room.
    dummy: Time,
    packets: f64,
    gaps: VecDeque<(Time, Time, Excuse)>,
    longest: Duration,
    /// Frames that go down in a second.
    down_per_s: f64,
    /// Since when the loops have been late.
    late_since: Option<Time>,
}

/// Why no dummy came for long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Excuse {
    /// Packets took every instant.
    Full,
    /// Hardly anything came: the link stood still.
    Silent,
    None,
}

struct Fate {
    mixes: Vec<Identity>,
    end: Ended,
}

/// How a loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    InTime,
    Late,
    Lost,
}

impl LossTest {
    /// A link begins, of a client of this class.
    pub(super) fn link(&mut self, now: Time, class: &Class) {
        // The gateway's queue for a client holds two seconds of its downlink, or 16 packets: see
        // `node/src/engine/gateway/session.rs`.
        let queue_s = (2.0 * class.down_per_s).max(16.0) / class.down_per_s;
        let longest = Duration::from_secs_f64(queue_s / 2.0);
        let down_per_s = class.down_per_s;
        *self = Self { since: now, dummy: now, longest, down_per_s, ..Self::default() };
    }

    pub(super) fn dummy(&mut self, now: Time) {
        if now.since(self.dummy) > self.longest {
            self.gaps.push_back((self.dummy, now, self.excuse(now)));
            if self.gaps.len() > GAPS {
                self.gaps.pop_front();
            }
        }
        // A dummy is sent only where nothing waits: the queue was empty when it left.
        (self.dummy, self.packets) = (now, 0.0);
    }

    /// A packet came.
    pub(super) fn packet(&mut self) {
        self.packets += 1.0;
    }

    /// True if packets have left no room for a dummy for long.
    pub(super) fn is_full(&self, now: Time) -> bool {
        let since = now.since(self.dummy);
        since > self.longest && self.packets > 0.5 * self.down_per_s * since.as_secs_f64()
    }

    /// Why no dummy came for long.
    fn excuse(&self, now: Time) -> Excuse {
        if self.is_full(now) {
            Excuse::Full
        } else if self.packets < 0.05 * self.down_per_s * now.since(self.dummy).as_secs_f64() {
            Excuse::Silent
        } else {
            // Packets came, and something that is neither took the instants between them.
            Excuse::None
        }
    }

    /// How long what comes now can have waited in the queue for the client: when the last dummy was sent, that was empty,
    /// and what it held has come since then.
    pub(super) fn queued(&self, now: Time) -> Duration {
        let sent = Duration::from_secs_f64(self.packets / self.down_per_s.max(0.01));
        now.since(self.dummy).min(sent)
    }

    /// A loop came back, or is lost: it was under way from `sent` to `until` at the latest. True if that counts.
    pub(super) fn add(
        &mut self,
        mixes: Vec<Identity>,
        (sent, until): (Time, Time),
        end: Ended,
    ) -> bool {
        let excused = |excuse: Excuse| match excuse {
            Excuse::Full => true,
            Excuse::Silent => end == Ended::Lost,
            Excuse::None => false,
        };
        let in_gap =
            |(from, to, why): &(Time, Time, Excuse)| *from < until && *to > sent && excused(*why);
        let in_last_gap = until.since(self.dummy) > self.longest && excused(self.excuse(until));
        // A loop of the link before was the old gateway's to bring.
        if sent < self.since || in_last_gap || self.gaps.iter().any(in_gap) {
            return false;
        }
        *self.ended(end) += 1;
        self.known.push_back(Fate { mixes, end });
        if self.known.len() > REMEMBERED
            && let Some(oldest) = self.known.pop_front()
        {
            *self.ended(oldest.end) -= 1;
        }
        true
    }

    /// The count of the loops that ended so.
    fn ended(&mut self, end: Ended) -> &mut usize {
        match end {
            Ended::InTime => &mut self.in_time,
            Ended::Late => &mut self.late,
            Ended::Lost => &mut self.lost,
        }
    }

    /// Says whether the gateway loses packets or holds them up: for every mix, those loops that avoid it are lost, or
    /// late, beyond chance, too. Loops by mixes that are known to return nothing say nothing of the gateway.
    pub(super) fn blame_gateway(&mut self, now: Time, silent: &[Identity]) -> Option<Evidence> {
        // Loss before lateness: it is the gateway's own doing, while late ones may be the line's.
        if let Some((bad, of)) = self.beyond(CHANCE, silent, Ended::Lost) {
            return Some(Evidence { blame: Blame::Lost, bad, of });
        }
        // Two limits, so that a gateway near one of them is not found late and not late in turns.
        let chance = if self.late_since.is_some() { STILL_LATE } else { CHANCE };
        let Some((bad, of)) = self.beyond(chance, silent, Ended::Late) else {
            self.late_since = None;
            return None;
        };
        let since = *self.late_since.get_or_insert(now);
        let stays = now.since(since) >= STAYS_LATE;
        stays.then_some(Evidence { blame: Blame::Late, bad, of })
    }

    /// Says whether loops are late; `None` while too few are known.
    pub(super) fn is_late(&self, now: Time) -> Option<bool> {
        match self.late_since {
            Some(since) => (now.since(since) >= STAYS_LATE).then_some(true),
            None => (self.known.len() >= ENOUGH).then_some(false),
        }
    }

    fn beyond(&mut self, chance: f64, silent: &[Identity], end: Ended) -> Option<(u64, u64)> {
        // Asked several times a second for as long as a client runs, and as good as always the answer is no. The median of the
        // law is not below its mean, rounded down: up to there the chance is one half at least. Without silent mixes these
        // are all loops there are; with some they are more than are looked at, so the loops themselves are asked.
        let (n, bad) = (self.known.len(), *self.ended(end));
        let is_usual = silent.is_empty() && bad as f64 <= (n as f64 * TOLERANCE).floor();
        if n < LEAST || is_usual {
            return None;
        }
        let heard = |fate: &&Fate| !fate.mixes.iter().any(|mix| silent.contains(mix));
        let heard = || self.known.iter().filter(heard);
        let (n, bad) = (heard().count(), heard().filter(|fate| fate.end == end).count());
        let beyond_chance = |n: usize, bad: usize| at_least(n, bad, TOLERANCE) < chance;
        if n < LEAST || !beyond_chance(n, bad) {
            return None;
        }
        let mut by_mix: BTreeMap<Identity, (usize, usize)> = BTreeMap::new();
        for fate in heard() {
            for mix in &fate.mixes {
                let of = by_mix.entry(*mix).or_default();
                *of = (of.0 + 1, of.1 + usize::from(fate.end == end));
            }
        }
        // If the loops that avoid one mix fare well, that mix is the reason and not the gateway.
        let all = by_mix.values().all(|(by, bad_by)| beyond_chance(n - by, bad - bad_by));
        all.then_some((bad as u64, n as u64))
    }
}

/// The chance of `k` or more successes in `n` trials of chance `p` each (0 < p < 1).
pub(super) fn at_least(n: usize, k: usize, p: f64) -> f64 {
    // From the top down, where terms are small: nothing cancels.
    let ln_choose: f64 = (0..k.min(n)).map(|i| ((n - i) as f64 / (k - i) as f64).ln()).sum();
    if k > n {
        return 0.0;
    }
    let mut term = (ln_choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp();
    let mut sum = 0.0;
    for i in k..=n {
        sum += term;
        term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use shoal_topology::{Parameters, Seed};

    use super::*;

    fn loss_test() -> LossTest {
        let mut loss_test = LossTest::default();
        loss_test.link(Time::ZERO, Parameters::default().class("web").unwrap());
        loss_test
    }

    /// The number of loops, one every 40 ms by three layers of `width` mixes, after which the gateway is blamed: it is judged after `every` few.
    fn blamed_after(
        (seed, width): (u64, u8),
        (loops, every): (u64, u64),
        loses: impl Fn(&[u8], f64) -> bool,
    ) -> Option<u64> {
        let mut rng = Seed::from_u64(seed).stream("loops");
        let mut loss_test = loss_test();
        for n in 0..loops {
            let sent = Time::from_millis(40 * n);
            loss_test.dummy(sent);
            let mixes: Vec<u8> = (0..3).map(|at| at * 100 + rng.random_range(0..width)).collect();
            let lost = loses(&mixes, rng.random());
            let named = mixes.iter().map(|n| Identity([*n; 32])).collect();
            let end = if lost { Ended::Lost } else { Ended::InTime };
            loss_test.add(named, (sent, sent), end);
            if n % every == every - 1 && loss_test.blame_gateway(sent, &[]).is_some() {
                return Some(n + 1);
            }
        }
        None
    }

    #[test]
    fn as_many_as_are_tolerated_are_never_beyond_chance() {
        for n in LEAST..=REMEMBERED {
            let usual = (n as f64 * TOLERANCE).floor() as usize;
            let chance = at_least(n, usual, TOLERANCE);
            assert!(chance >= 0.5, "{usual} of {n}: {chance}");
        }
    }

    #[test]
    fn a_gateway_that_takes_everything_or_a_third_is_blamed_within_hundreds_of_loops() {
        for seed in 0..20 {
            for width in [2, 4, 20] {
                assert_eq!(blamed_after((seed, width), (1_000, 10), |_, _| true), Some(100));
                let third = blamed_after((seed, width), (2_000, 10), |_, chance| chance < 0.3);
                assert!(third.is_some_and(|n| n <= 250), "{width} mixes a layer: {third:?}");
            }
        }
    }

    #[test]
    fn one_bad_mix_and_honest_losses_are_not_the_gateways() {
        for seed in 0..5 {
            for width in [2, 4] {
                for share in [0.2, 0.5, 1.0] {
                    let mix = |mixes: &[u8], chance: f64| mixes.contains(&1) && chance < share;
                    assert_eq!(
                        blamed_after((seed, width), (2_000, 50), mix),
                        None,
                        "{width}, {share}"
                    );
                }
                // Half of what is tolerated, for 13 minutes of class web.
                let honest = |_: &[u8], chance: f64| chance < 0.025;
                assert_eq!(blamed_after((seed, width), (20_000, 100), honest), None);
            }
        }
    }

    #[test]
    fn two_dead_mixes_that_are_known_are_not_the_gateways() {
        let (one, other) = (Identity([0; 32]), Identity([100; 32]));
        let mut loss_test = loss_test();
        for n in 0..600_u64 {
            let sent = Time::from_millis(40 * n);
            loss_test.dummy(sent);
            let mixes = [n % 2, 100 + n / 2 % 2, 200 + n / 4 % 2];
            let mixes: Vec<_> = mixes.map(|n| Identity([n as u8; 32])).into();
            let lost = mixes.contains(&one) || mixes.contains(&other);
            loss_test.add(mixes, (sent, sent), if lost { Ended::Lost } else { Ended::InTime });
        }
        assert!(loss_test.blame_gateway(Time::ZERO, &[]).is_some());
        assert!(loss_test.blame_gateway(Time::ZERO, &[one, other]).is_none());
    }

    #[test]
    fn loops_in_whose_flight_no_dummies_came_say_nothing() {
        let ms = Time::from_millis;
        let mut loss_test = loss_test();
        let add = |loss_test: &mut LossTest, sent, until| {
            loss_test.add(Vec::new(), (ms(sent), ms(until)), Ended::Lost);
            loss_test.known.len()
        };
        loss_test.dummy(ms(500));
        assert_eq!(add(&mut loss_test, 100, 1_400), 1);
        assert_eq!(add(&mut loss_test, 100, 1_600), 1, "none has come since");
        loss_test.dummy(ms(3_000));
        assert_eq!(add(&mut loss_test, 100, 600), 1);
        assert_eq!(add(&mut loss_test, 2_900, 3_500), 1);
        assert_eq!(add(&mut loss_test, 3_000, 3_500), 2);
        loss_test.link(ms(4_000), Parameters::default().class("web").unwrap());
        assert_eq!(add(&mut loss_test, 3_900, 4_500), 0, "the link before");
    }

    #[test]
    fn the_tail_of_the_binomial_law_is_right() {
        // scipy.stats.binom.sf(k - 1, n, p)
        for (n, k, p, expected) in [
            (10, 0, 0.05, 1.0),
            (10, 10, 0.05, 9.765_625e-14),
            (3, 2, 0.5, 0.5),
            (20, 3, 0.05, 0.075_483_671_9),
        ] {
            let found = at_least(n, k, p);
            assert!((found / expected - 1.0).abs() < 1e-6, "{n} {k}: {found}");
        }
        assert_eq!(at_least(5, 6, 0.05), 0.0);
    }
}
