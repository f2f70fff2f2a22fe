//! How much of the link each isolation group may use, so that no service learns from its share what another group does.
//!
//! Shares are fractions of the whole that the class gives ([`whole_per_s`]). They change only at the instants of a coarse clock of
//! this client's own, whose period, phase and jitter are drawn: what a group does between two instants moves nobody's share.
//! At an instant the pool is divided by the number of groups that carried much in the last minutes, rounded up to a power
//! of two: who pauses for a while and returns moves nothing, and only a number that passes a power of two shows, up to a period
//! late. Who carries little has a small share of its own, beside the pool, and never moves one. While nobody has a part of
//! the pool, the first to carry much takes all of it at once, so that one download alone is fast from its beginning.
//!
//! Slots up are shared by the same fractions, as tokens: a group sends no more when the others are quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use shoal_topology::{Class, Seed, Stream, Time};

use super::{GroupId, Replies};
use crate::message::BUDGET_UNITS;
use crate::tunnel::SERVICE_MTU;

/// The part of the whole that those divide who carry much.
const POOL: f64 = 27.0 / 32.0;
/// The share of a group that carries little. Four that use all of it and the pool are the whole; more are seldom, and what they
/// send beyond that waits at the gateway until the next instant.
const LITTLE: f64 = 5.0 / 128.0;
/// So many groups may have it at a time; further ones have a third of it.
const MAX_LITTLE: usize = 16;
const LEAST: f64 = 1.0 / 64.0;
/// The share of a group that is not used: for signs of life.
const RESTING: f64 = 1.0 / 256.0;
/// Packets, up and down, beyond half of the small share's rate after which a group carries much.
const MUCH: f64 = 20.0;
/// The period of the coarse clock is drawn from these, in seconds, and each gap from these parts of the period.
const PERIOD_S: std::ops::Range<f64> = 10.0..20.0;
const JITTER: std::ops::Range<f64> = 0.75..1.25;
/// A group counts for so long, in seconds, after it carried much; drawn anew each time that it begins to.
const HOLD_S: std::ops::Range<f64> = 90.0..180.0;
/// And has its small share for so long after it was used.
const LINGER: Duration = Duration::from_secs(60);
/// Slots up that a group may take at once after it sent nothing: more than [`MUCH`], so that an upload soon counts.
const UP_BURST: f64 = 32.0;
/// And the least that it gets, slots/s: for a class of few slots.
const UP_LEAST: f64 = 0.5;
/// Strict: the part of the loops in payload slots that replies may take the place of.
const STRICT: f64 = 0.95;
/// Application bytes in a packet of a long download, of [`SERVICE_MTU`]: headers, and what else a service says.
const USEFUL: f64 = 0.98;

/// Packets/s that all services of a client of this class may send together.
pub fn whole_per_s(class: &Class, replies: Replies) -> f64 {
    match replies {
        Replies::Downlink => class.budget_per_s(),
        Replies::Resting => STRICT * loops_in_slots_per_s(class),
    }
}

/// Loops in payload slots, 1/s.
pub(super) fn loops_in_slots_per_s(class: &Class) -> f64 {
    class.loop_share * class.payload_per_s
}

/// Application bytes/s of a download while no other isolation group is in use.
pub fn download_bytes_per_s(class: &Class, replies: Replies) -> f64 {
    POOL * whole_per_s(class, replies) * USEFUL * f64::from(SERVICE_MTU)
}

/// Most SURBs that a service may have when replies are kept within the resting rate: what its share takes in a second, and
/// enough for a short answer.
pub(super) fn strict_stock(packets_per_s: f64) -> usize {
    6 + packets_per_s as usize
}

/// What one group has of the link.
struct GroupShare {
    /// Its part of the whole, 0 to 1; changes at instants of the coarse clock, but for its own first use.
    share: f64,
    /// When it was last used.
    used: Time,
    /// It has not been used for [`LINGER`], and has [`RESTING`] alone.
    rests: bool,
    /// What it carried lately, less half of the small share's rate.
    load: f64,
    /// When `load` was counted.
    loaded: Time,
    /// Until when it counts among those that carry much.
    counts_until: Time,
    /// For how long it counts after it carried much, as drawn.
    hold: Duration,
    /// Where `hold` is drawn from.
    holds: Stream,
    /// Tokens for slots up.
    up: f64,
    /// When `up` was counted.
    counted: Time,
}

impl GroupShare {
    /// How many slots up it gains a second, of so many that there are.
    fn up_per_s(&self, slots_per_s: f64) -> f64 {
        (self.share.max(LITTLE) * slots_per_s).max(UP_LEAST.min(slots_per_s))
    }
}

/// The shares of all groups of a client. Bounded by the groups.
pub(super) struct Shares {
    seed: Seed,
    instants: Stream,
    period: Duration,
    next: Time,
    /// Nobody has had any of the pool since the last instant.
    free: bool,
    /// Groups that have had the small share since the last instant.
    little: usize,
    groups: BTreeMap<GroupId, GroupShare>,
}

impl Shares {
    pub(super) fn new(now: Time, seed: Seed) -> Self {
        let mut instants = seed.stream("instants");
        let period = Duration::from_secs_f64(instants.random_range(PERIOD_S));
        let next = now + period.mul_f64(instants.random_range(0.0..1.0));
        let groups = BTreeMap::new();
        Self { seed, instants, period, next, free: true, little: 0, groups }
    }

    /// The next instant of the coarse clock: [`Shares::turn`] wants to be called then.
    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// A group is used, or begins.
    pub(super) fn uses(&mut self, now: Time, id: GroupId) {
        // Counted since the last instant, and not given back when a group ends: else the end of one would show in
        // another's share.
        let share = if self.little < MAX_LITTLE { LITTLE } else { LEAST };
        let group = self.group(now, id);
        group.used = now;
        if std::mem::take(&mut group.rests) {
            group.share = share;
            self.little += 1;
        }
    }

    /// A group carried a packet, up or down, of `whole_per_s` that all may have.
    pub(super) fn carried(&mut self, now: Time, id: GroupId, whole_per_s: f64) {
        let is_free = self.free;
        let group = self.group(now, id);
        let little = now.since(group.loaded).as_secs_f64() * whole_per_s * LITTLE / 2.0;
        (group.load, group.loaded) = ((group.load - little).max(0.0) + 1.0, now);
        if group.load < MUCH {
            return;
        }
        group.load = MUCH;
        // Drawn when it begins to count and kept while it goes on: a hold that was drawn at each packet would tend to
        // the longest.
        if group.counts_until <= now {
            group.hold = Duration::from_secs_f64(group.holds.random_range(HOLD_S));
        }
        group.counts_until = now + group.hold;
        // Nobody is there whose share could show it. All others wait for the instant.
        if is_free {
            (group.share, group.rests) = (POOL, false);
            self.free = false;
        }
    }

    /// A group takes the place of one that takes no more streams and has none: it goes on with that one's part, so that nobody
    /// else's moves.
    pub(super) fn succeed(&mut self, now: Time, old: GroupId, id: GroupId) {
        let Some(from) = self.groups.get_mut(&old).filter(|group| group.counts_until > now) else {
            return;
        };
        // The old one stops counting, so that the pool is not divided by one more.
        let (share, until) = (from.share, std::mem::replace(&mut from.counts_until, now));
        let group = self.group(now, id);
        (group.share, group.rests) = (share, false);
        (group.used, group.counts_until) = (now, until);
        group.hold = Duration::from_secs_f64(group.holds.random_range(HOLD_S));
    }

    /// A group ended. Nobody gets its share before the next instant.
    pub(super) fn remove(&mut self, id: GroupId) {
        self.groups.remove(&id);
    }

    /// An instant of the coarse clock, if it is due: the pool is divided anew.
    pub(super) fn turn(&mut self, now: Time) {
        if now < self.next {
            return;
        }
        let much = |group: &GroupShare| group.counts_until > now;
        let count = self.groups.values().filter(|group| much(group)).count();
        // A power of two, so that most changes of the number show in nobody's share.
        let share = POOL / count.next_power_of_two() as f64;
        self.free = count == 0;
        self.little = 0;
        for group in self.groups.values_mut() {
            group.rests = !much(group) && now.since(group.used) > LINGER;
            group.share = if much(group) {
                share
            } else if group.rests {
                RESTING
            } else {
                self.little += 1;
                if self.little <= MAX_LITTLE { LITTLE } else { LEAST }
            };
        }
        let gap = self.period.mul_f64(self.instants.random_range(JITTER));
        // After a standstill the clock starts anew.
        self.next = if self.next + gap > now { self.next + gap } else { now + gap };
    }

    /// The part of the whole that a group has.
    pub(super) fn share(&self, id: GroupId) -> f64 {
        self.groups.get(&id).map_or(RESTING, |group| group.share)
    }

    /// What the service of a group is told, in units of which [`BUDGET_UNITS`] are a packet per second.
    pub(super) fn told(&self, id: GroupId, whole_per_s: f64) -> u16 {
        (self.share(id) * whole_per_s * BUDGET_UNITS).clamp(1.0, 65_535.0) as u16
    }

    /// True if a group may take a slot up.
    pub(super) fn may_send(&mut self, now: Time, id: GroupId, slots_per_s: f64) -> bool {
        let group = self.group(now, id);
        let gained = now.since(group.counted).as_secs_f64() * group.up_per_s(slots_per_s);
        (group.up, group.counted) = ((group.up + gained).min(UP_BURST), now);
        group.up >= 1.0
    }

    /// It took one for SURBs alone. That is not the user's doing, so it does not count as carried.
    pub(super) fn refilled(&mut self, now: Time, id: GroupId) {
        self.group(now, id).up -= 1.0;
    }

    /// A group took a slot up for what the user has.
    pub(super) fn sent(&mut self, now: Time, id: GroupId, whole_per_s: f64) {
        self.group(now, id).up -= 1.0;
        self.carried(now, id, whole_per_s);
    }

    fn group(&mut self, now: Time, id: GroupId) -> &mut GroupShare {
        let seed = &self.seed;
        self.groups.entry(id).or_insert_with(|| GroupShare {
            share: RESTING,
            used: now,
            rests: true,
            load: 0.0,
            loaded: now,
            counts_until: Time::ZERO,
            hold: Duration::ZERO,
            // Of the group's own, so that no group moves what another one draws.
            holds: seed.part(&id.0.to_string()).stream("hold"),
            up: UP_BURST,
            counted: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_topology::Parameters;

    use super::super::resting::{RATION_BURST, Ration};
    use super::*;

    fn shares(seed: u64) -> Shares {
        Shares::new(Time::ZERO, Seed::from_u64(seed))
    }

    const A: GroupId = GroupId(1_000);
    const WHOLE: f64 = 100.0;

    /// What the other groups do in a step of 100 ms.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Uses(GroupId),
        /// So many packets.
        Carries(GroupId, u8),
        Ends(GroupId),
    }

    fn others(steps: u64) -> impl Strategy<Value = BTreeMap<u64, Does>> {
        let group = || (0..6_u64).prop_map(GroupId);
        let does = prop_oneof![
            3 => group().prop_map(Does::Uses),
            5 => (group(), 0..60_u8).prop_map(|(id, n)| Does::Carries(id, n)),
            1 => group().prop_map(Does::Ends),
        ];
        proptest::collection::btree_map(0..steps, does, 0..300)
    }

    fn act(shares: &mut Shares, now: Time, does: Does) {
        match does {
            Does::Uses(id) => shares.uses(now, id),
            Does::Carries(id, n) => {
                shares.uses(now, id);
                (0..n).for_each(|_| shares.carried(now, id, WHOLE));
            }
            Does::Ends(id) => shares.remove(id),
        }
    }

    /// The shares of A, who carries all it can, after each step.
    fn run(
        shares: &mut Shares,
        steps: std::ops::Range<u64>,
        others: &BTreeMap<u64, Does>,
    ) -> Vec<f64> {
        let step = |step| {
            let now = Time::from_millis(100 * step);
            shares.turn(now);
            if let Some(does) = others.get(&step) {
                act(shares, now, *does);
            }
            act(shares, now, Does::Carries(A, 8));
            shares.share(A)
        };
        steps.map(step).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn within_a_period_no_group_moves_the_share_of_another(seed: u64, others in others(400)) {
            let (mut alone, mut among) = (shares(seed), shares(seed));
            run(&mut alone, 0..5, &BTreeMap::new());
            run(&mut among, 0..5, &BTreeMap::new());
            let until = among.next().as_nanos().div_ceil(100_000_000);
            let a = run(&mut alone, 5..until, &BTreeMap::new());
            prop_assert_eq!(&a, &run(&mut among, 5..until, &others));
            prop_assert!(until < 60 || a.iter().all(|share| *share == POOL));
            prop_assert_eq!(alone.next(), among.next(), "the clock runs for itself");
        }

        /// Two that are there: what one does from then on, downloads and pauses of up to a minute, is not to be seen in the
        /// other's shares, whatever the time.
        #[test]
        fn pauses_shorter_than_the_hold_move_no_share(
            seed: u64, pauses in proptest::collection::vec(0..600_u64, 1..20),
        ) {
            let (mut busy, mut slow) = (shares(seed), shares(seed));
            let much = Does::Carries(GroupId(1), 60);
            let always = (0..3_000).map(|step| (step, much)).collect();
            let mut at = 0;
            let mut seldom = BTreeMap::from([(0, much)]);
            for pause in pauses.iter().cycle().take(3_000) {
                at += 1 + pause;
                seldom.insert(at, much);
            }
            prop_assert_eq!(run(&mut busy, 0..3_000, &always), run(&mut slow, 0..3_000, &seldom));
        }

        /// Who carries little never moves a share, however many they are and whenever they begin and end.
        #[test]
        fn small_use_moves_no_share_ever(seed: u64, others in others(3_000)) {
            let small = others.iter().map(|(at, does)| match does {
                Does::Carries(id, n) => (*at, Does::Carries(GroupId(10 * at + id.0), n % 20)),
                other => (*at, *other),
            });
            let (mut alone, mut among) = (shares(seed), shares(seed));
            let small = small.collect();
            prop_assert_eq!(run(&mut alone, 0..3_000, &BTreeMap::new()), run(&mut among, 0..3_000, &small));
        }

        #[test]
        fn shares_change_at_instants_alone_and_the_pool_is_never_exceeded(seed: u64, others in others(4_000)) {
            let mut shares = shares(seed);
            let mut before: BTreeMap<GroupId, f64> = BTreeMap::new();
            for step in 0..4_000 {
                let now = Time::from_millis(100 * step);
                let turned = shares.next() <= now;
                shares.turn(now);
                let does = others.get(&step).copied();
                if let Some(does) = does {
                    act(&mut shares, now, does);
                }
                let all: BTreeMap<_, _> = shares.groups.iter().map(|(id, group)| (*id, group.share)).collect();
                let pool: f64 = shares.groups.values().filter(|group| group.counts_until > now && group.share != LITTLE)
                    .map(|group| group.share).sum();
                prop_assert!(pool <= POOL + 1e-9, "{pool} at step {step}");
                prop_assert!(all.values().filter(|share| **share == LITTLE).count() <= MAX_LITTLE);
                for (id, share) in &before {
                    // What a group does itself is all that moves its share between instants.
                    let own = does.is_some_and(|does| {
                        matches!(does, Does::Uses(of) | Does::Carries(of, _) | Does::Ends(of) if of == *id)
                    });
                    let same = all.get(id) == Some(share);
                    prop_assert!(turned || own || same, "{id:?} at step {step}");
                }
                before = all;
            }
        }

        #[test]
        fn a_strict_client_gives_out_no_more_surbs_than_it_has_loops_in_slots(
            seed in proptest::collection::vec((0..2_000u64, 0..50usize), 1..300),
        ) {
            let class = Parameters::default().class("web").cloned().unwrap();
            let mut ration = Ration::new(Time::ZERO);
            let (mut now, mut given) = (Time::ZERO, 0);
            for (ms, wanted) in seed {
                now += Duration::from_millis(ms);
                given += ration.take(now, &class, wanted);
                let most = RATION_BURST + loops_in_slots_per_s(&class) * now.since(Time::ZERO).as_secs_f64();
                prop_assert!(given as f64 <= most + 1e-6, "{given} of {most}");
            }
        }
    }

    #[test]
    fn who_is_alone_has_the_pool_as_soon_as_it_carries_much() {
        let mut shares = shares(1);
        let now = Time::ZERO;
        let download = |shares: &mut Shares, n| act(shares, now, Does::Carries(GroupId(n), 60));
        // Small answers take nothing from anybody.
        (0..20).for_each(|n| act(&mut shares, now, Does::Carries(GroupId(n), 12)));
        let given: Vec<f64> = (0..20).map(|n| shares.share(GroupId(n))).collect();
        assert_eq!(given[..16], [LITTLE; 16]);
        assert_eq!(given[16..], [LEAST; 4]);
        download(&mut shares, 1);
        download(&mut shares, 2);
        assert_eq!([1, 2].map(|n| shares.share(GroupId(n))), [POOL, LITTLE]);
        // A share that becomes free is given to nobody before the instant.
        shares.remove(GroupId(1));
        download(&mut shares, 2);
        download(&mut shares, 3);
        assert_eq!([2, 3].map(|n| shares.share(GroupId(n))), [LITTLE; 2]);
        download(&mut shares, 4);
        let at = shares.next();
        shares.turn(at);
        for n in 2..5 {
            assert_eq!(shares.share(GroupId(n)), POOL / 4.0, "of three");
        }
        assert!((POOL + 4.0 * LITTLE - 1.0).abs() < 1e-9);
    }

    #[test]
    fn minutes_after_it_carried_much_a_group_leaves_its_part_to_the_others() {
        let mut shares = shares(2);
        act(&mut shares, Time::ZERO, Does::Carries(GroupId(1), 60));
        let mut seen: Vec<(u64, f64)> = Vec::new();
        for s in 0..300 {
            let now = Time::from_secs(s);
            shares.turn(now);
            act(&mut shares, now, Does::Carries(A, 60));
            if seen.last().is_none_or(|(_, share)| *share != shares.share(A)) {
                seen.push((s, shares.share(A)));
            }
        }
        let (times, given): (Vec<u64>, Vec<f64>) = seen.into_iter().unzip();
        assert_eq!(given, [LITTLE, POOL / 2.0, POOL]);
        assert!(times[1] <= 20 && (90..=205).contains(&times[2]), "{times:?}");
        assert_eq!(shares.share(GroupId(1)), RESTING);
    }

    #[test]
    fn two_clients_have_clocks_of_their_own() {
        let instants = |seed| {
            let mut shares = shares(seed);
            let mut all = Vec::new();
            while all.len() < 100 {
                all.push(shares.next());
                shares.turn(shares.next());
            }
            all
        };
        let (one, other) = (instants(1), instants(2));
        assert!(one.iter().all(|at| !other.contains(at)));
        for gaps in [one, other] {
            let gaps: Vec<f64> =
                gaps.windows(2).map(|two| two[1].since(two[0]).as_secs_f64()).collect();
            let (least, most) =
                gaps.iter().fold((f64::MAX, 0.0_f64), |(l, m), g| (l.min(*g), m.max(*g)));
            assert!(least >= 7.5 && most <= 25.0 && most > 1.3 * least, "{least} to {most}");
        }
    }

    #[test]
    fn slots_up_of_one_group_do_not_depend_on_what_another_sends() {
        // Both upload at first. Then B takes all that it may, or nothing for a minute at a time. A slot each 20 ms.
        let taken = |b_sends: &dyn Fn(u64) -> bool| {
            let mut shares = shares(3);
            let mut slots = Vec::new();
            for slot in 0..10_000_u64 {
                let now = Time::from_millis(20 * slot);
                shares.turn(now);
                for id in [A, GroupId(1)] {
                    if (id == A || b_sends(slot)) && shares.may_send(now, id, 50.0) {
                        shares.sent(now, id, WHOLE);
                        slots.extend((id == A).then_some(slot));
                    }
                }
            }
            slots
        };
        let always = taken(&|_| true);
        assert_eq!(always, taken(&|slot| slot < 1_500 || slot / 3_000 % 2 == 0));
        // 27/64 of 50 slots a second, but for the first period.
        assert!((3_900..4_800).contains(&always.len()), "{}", always.len());
    }

    /// THREAT-MODEL.md, "The exit", has the figures.
    #[test]
    fn the_budget_tells_a_service_the_class_of_its_client() {
        let parameters = Parameters::default();
        let parts = (0..=8).map(|n| POOL / f64::from(1 << n)).chain([LITTLE, LEAST, RESTING]);
        let parts: Vec<f64> = parts.collect();
        let told =
            |part: f64, whole: f64| (part * whole * BUDGET_UNITS).clamp(1.0, 65_535.0) as u16;
        let mut classes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for class in &parameters.classes {
            for replies in [Replies::Downlink, Replies::Resting] {
                let whole = whole_per_s(class, replies);
                for told in parts.iter().map(|part| told(*part, whole)) {
                    let names = classes.entry(told).or_default();
                    if !names.contains(&class.name.as_str()) {
                        names.push(&class.name);
                    }
                }
            }
        }
        // A lone download, and one of two: no other class has these.
        for class in &parameters.classes {
            for part in &parts[..2] {
                let told = told(*part, whole_per_s(class, Replies::Downlink));
                assert!(classes[&told] == [class.name.as_str()], "{told}: {:?}", classes[&told]);
            }
        }
        let shared: Vec<_> = classes.iter().filter(|(_, names)| names.len() > 1).collect();
        assert_eq!((shared.len(), classes.len()), (6, 68), "{shared:?}");
    }
}
