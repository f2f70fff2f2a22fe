//! A client's own loops: which came back, and what that says of the mixes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::PacketId;
use shoal_topology::{Class, Identity, Time};

use super::gateways::Evidence;
use super::loss_test::{Ended, LossTest};
use super::returns::Returns;

/// A loop that is not back after so long is lost: five times what 999 of 1,000 loops of class text take.
const LOST_AFTER: Duration = Duration::from_secs(12);
/// A loop that takes so many times as long as the median one, or a second if that is more, is late.
const LATE_FACTOR: u32 = 8;
const LATE_LEAST: Duration = Duration::from_secs(1);
/// A loop is late for its link if the network took so many times longer for it than for three in four others, beside the
/// delays that were drawn for it and what it may have waited behind other packets at the gateway.
const EXCESS_FACTOR: u32 = 4;
/// But at least so much, and two instants of the downlink.
const EXCESS_LEAST: Duration = Duration::from_millis(400);
/// With fewer loops back nothing is late.
const EXCESS_KNOWN: usize = 64;
/// Loops stand still if for so many times what three in four took at least, or for so long if that is more, none is back
/// of so many that their all being lost has but this chance. (Where every other second is held up, the median is, too.)
const STILL_FACTOR: u32 = 6;
const STILL_LEAST: Duration = Duration::from_millis(600);
const STILL_CHANCE: f64 = 1e-3;
/// A mix is silent if so many loops by it are late, none that left since the first of them is back, and as many by
/// other mixes of its layer are. Without the others it is the gateway or the link that is silent.
const SILENT: usize = 8;
/// Loops of a layer that came back, and late ones of a mix, that are kept to tell.
const KEPT: usize = 64;
/// Loops that are remembered.
const REMEMBERED: usize = 512;
/// With fewer loops known their losses say nothing.
const FEW: usize = 64;
/// Loops that stand ready or are under way.
const MAX_OPEN: usize = 4_096;

/// How the last loops fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoopCounts {
    /// Loops that were sent, in all.
    pub sent: u64,
    /// Loops that came back, in all.
    pub returned: u64,
    /// Loops that were given up, in all.
    pub lost: u64,
    /// Of the last ones whose fate is known: how many, and how many of these came back.
    pub recent: (usize, usize),
    /// Median time from slot to return, milliseconds, of the recent ones.
    pub median_ms: u64,
}

/// The loops that are under way, and what the last ones showed.
#[derive(Default)]
pub(super) struct Loops {
    /// Loops that were made and are neither back nor lost.
    open: HashMap<PacketId, Open>,
    /// Those that were sent, in order; some of them may be back.
    sent: VecDeque<(PacketId, Time)>,
    /// Those of `sent` that are not late yet.
    young: VecDeque<(PacketId, Time)>,
    /// What became of the last [`REMEMBERED`]: how long each took, or that it was lost.
    recent: VecDeque<Option<Duration>>,
    /// The durations in `recent`, the shortest first.
    took: Vec<Duration>,
    /// The loops that came back lately, for each layer: when they left, and by which mix of the layer.
    back: Vec<VecDeque<(Time, Identity)>>,
    /// When the loops left that are late and that none followed back, for each layer and mix.
    late: BTreeMap<(usize, Identity), VecDeque<Time>>,
    /// Says whether the gateway loses or holds up loops.
    loss_test: LossTest,
    /// Which share of the loops by each mix comes back.
    returns: Returns,
    /// What the network took beside the drawn delays, for the last loops of this link: in order, and the shortest first.
    excess: VecDeque<Duration>,
    /// The durations in `excess`, the shortest first.
    excess_sorted: Vec<Duration>,
    /// Two instants of the downlink.
    paced: Duration,
    /// When the last loop of this link came back, and when those left that none followed back.
    last_back: Option<Time>,
    /// When those loops left that none followed back.
    waiting: VecDeque<Time>,
    /// Totals since the start.
    counts: LoopCounts,
}

struct Open {
    sent: Option<Time>,
    mixes: Vec<Identity>,
    /// The delays in mixes together, as drawn.
    delay: Duration,
}

impl Loops {
    /// A loop by these mixes, for which this delay in all was drawn.
    pub(super) fn made(&mut self, id: PacketId, mixes: Vec<Identity>, delay: Duration) {
        if self.open.len() >= MAX_OPEN {
            // Loops made for an uplink that was cleared are never sent.
            self.open.retain(|_, open| open.sent.is_some());
        }
        self.open.insert(id, Open { sent: None, mixes, delay });
    }

    pub(super) fn sent(&mut self, id: PacketId, at: Time) {
        self.counts.sent += 1;
        // A loop may be back before the uplink's report that it was sent is read.
        if let Some(open) = self.open.get_mut(&id) {
            open.sent = Some(at);
            self.sent.push_back((id, at));
            self.young.push_back((id, at));
            if self.waiting.len() < REMEMBERED {
                self.waiting.push_back(at);
            }
        }
    }

    /// True if this is a loop of ours; it counts once.
    pub(super) fn returned(&mut self, id: &PacketId, now: Time) -> bool {
        let Some(open) = self.open.remove(id) else { return false };
        self.counts.returned += 1;
        self.loss_test.packet();
        let sent = open.sent.unwrap_or(now);
        self.last_back = Some(now);
        // Those that left before it may be under way still, but one that followed them is back: the link does not
        // stand still.
        self.waiting.retain(|at| *at > sent);
        let end = self.lateness(now, sent, open.delay);
        if self.loss_test.add(open.mixes.clone(), (sent, now), end) {
            self.returns.add(&open.mixes, false);
        }
        // As many layers as paths have: the document says, and another one may have more.
        self.back.resize_with(self.back.len().max(open.mixes.len()), VecDeque::new);
        for (layer, (back, mix)) in self.back.iter_mut().zip(open.mixes).enumerate() {
            if let Some(late) = self.late.get_mut(&(layer, mix)) {
                late.retain(|at| *at > sent);
            }
            back.push_back((sent, mix));
            if back.len() > KEPT {
                back.pop_front();
            }
        }
        if let Some(sent) = open.sent {
            self.remember(Some(now.since(sent)));
        }
        true
    }

    pub(super) fn expire(&mut self, now: Time) {
        let late_after = match self.median() {
            Some(median) => (LATE_FACTOR * median).clamp(LATE_LEAST, LOST_AFTER),
            None => LOST_AFTER,
        };
        while let Some((id, at)) = self.young.front().copied()
            && now.since(at) > late_after
        {
            self.young.pop_front();
            self.blame(&id, at);
        }
        while let Some((id, at)) = self.sent.front().copied()
            && now.since(at) > LOST_AFTER
        {
            self.sent.pop_front();
            if let Some(open) = self.open.remove(&id) {
                if self.loss_test.add(open.mixes.clone(), (at, at + LOST_AFTER), Ended::Lost) {
                    self.returns.add(&open.mixes, true);
                }
                self.counts.lost += 1;
                self.remember(None);
            }
        }
    }

    /// Counts a late loop against the mixes of its path: against those that are silent, if there are any.
    fn blame(&mut self, id: &PacketId, sent: Time) {
        let Some(open) = self.open.get(id) else { return };
        let silent = self.silent();
        // A loop by a mix that is known to be silent says nothing of the others on its path.
        let explained = open.mixes.iter().any(|mix| silent.contains(mix));
        for (layer, mix) in open.mixes.iter().copied().enumerate() {
            let back = self.back.get(layer).into_iter().flatten();
            let one_followed = back.filter(|(at, by)| *by == mix && *at >= sent).count() > 0;
            if one_followed || (explained && !silent.contains(&mix)) {
                continue;
            }
            let late = self.late.entry((layer, mix)).or_default();
            if late.len() < KEPT {
                late.push_back(sent);
            }
        }
    }

    /// Says whether a loop that is back was late, for what its link took.
    fn lateness(&mut self, now: Time, sent: Time, delay: Duration) -> Ended {
        let queued = self.loss_test.queued(now);
        let excess = now.since(sent).saturating_sub(delay).saturating_sub(queued);
        if self.excess.len() == REMEMBERED
            && let Some(oldest) = self.excess.pop_front()
            && let Ok(at) = self.excess_sorted.binary_search(&oldest)
        {
            self.excess_sorted.remove(at);
        }
        // Late ones too: else a line that has become slower would be late for ever.
        self.excess.push_back(excess);
        let at = self.excess_sorted.partition_point(|other| *other < excess);
        self.excess_sorted.insert(at, excess);
        // The lower quartile: who holds up half of them does not move it.
        let usual = self.excess_sorted.get(self.excess_sorted.len() / 4).copied();
        let limit = (EXCESS_FACTOR * usual.unwrap_or_default()).max(EXCESS_LEAST) + self.paced;
        let known = self.excess_sorted.len() >= EXCESS_KNOWN;
        if known && excess > limit { Ended::Late } else { Ended::InTime }
    }

    /// True if the loops stand still: the link, or the gateway, holds everything. Not so where packets leave no room.
    pub(super) fn stand_still(&self, now: Time) -> bool {
        let (Some(back), Some(usual)) = (self.last_back, self.took.get(self.took.len() / 4)) else {
            return false;
        };
        let limit = (STILL_FACTOR * *usual).max(STILL_LEAST);
        // A full downlink brings packets instead of loops: it does not stand still.
        if now.since(back) <= limit || self.loss_test.is_full(now) {
            return false;
        }
        let lost = 1.0 - self.took.len() as f64 / self.recent.len().max(1) as f64;
        let expected = (STILL_CHANCE.ln() / lost.clamp(0.1, 0.9).ln()).ceil();
        let overdue = self.waiting.iter().take_while(|at| now.since(**at) > limit).count();
        overdue as f64 >= expected
    }

    /// A dummy came.
    pub(super) fn dummy(&mut self, now: Time) {
        self.loss_test.dummy(now);
    }

    /// A packet came that is no loop.
    pub(super) fn packet(&mut self) {
        self.loss_test.packet();
    }

    /// Says whether the gateway takes our packets, or holds them up.
    pub(super) fn blame_gateway(&mut self, now: Time) -> Option<Evidence> {
        let silent = self.silent();
        self.loss_test.blame_gateway(now, &silent)
    }

    /// Says whether the loops of this link are late; `None` while too few are known.
    pub(super) fn are_late(&self, now: Time) -> Option<bool> {
        self.loss_test.is_late(now)
    }

    /// Mixes that return fewer loops than others do, beyond chance, and the share that each returns.
    pub(super) fn lossy(&self) -> Vec<(Identity, f64)> {
        self.returns.lossy()
    }

    /// Another link, of a client of this class: what the old one swallowed says nothing of mixes.
    pub(super) fn forget_link(&mut self, now: Time, class: &Class) {
        self.loss_test.link(now, class);
        self.paced = Duration::from_secs_f64(2.0 / class.down_per_s);
        self.excess.clear();
        self.excess_sorted.clear();
        self.last_back = None;
        self.waiting.clear();
        self.young.clear();
        self.late.clear();
        self.back.clear();
    }

    /// Another epoch or document: what was learnt of mixes that stand in another layer now, or are gone, says nothing any
    /// more. `layer` is that of a mix, 1 to L.
    pub(super) fn keep(&mut self, layer: impl Fn(&Identity) -> Option<u8>) {
        let stays =
            |at: usize, mix: &Identity| layer(mix).is_some_and(|n| usize::from(n) == at + 1);
        self.late.retain(|(at, mix), _| stays(*at, mix));
        self.returns.keep(|mix| layer(mix).is_some());
        for (at, back) in self.back.iter_mut().enumerate() {
            back.retain(|(_, mix)| stays(at, mix));
        }
    }

    pub(super) fn counts(&self) -> LoopCounts {
        let median = self.median().unwrap_or_default();
        let back = self.took.len();
        LoopCounts {
            recent: (self.recent.len(), back),
            median_ms: u64::try_from(median.as_millis()).unwrap_or(u64::MAX),
            ..self.counts
        }
    }

    /// The share of the last loops that was lost, 0 to 1; zero while few are known.
    pub(super) fn lost_share(&self) -> f64 {
        match self.recent.len() {
            0..FEW => 0.0,
            known => (known - self.took.len()) as f64 / known as f64,
        }
    }

    /// Mixes from which nothing comes back, while loops by others of their layer do.
    pub(super) fn silent(&self) -> Vec<Identity> {
        let is_silent = |((layer, mix), late): &(&(usize, Identity), &VecDeque<Time>)| {
            let Some(since) = late.front().filter(|_| late.len() >= SILENT) else { return false };
            let back = self.back.get(*layer).into_iter().flatten();
            back.filter(|(at, by)| by != mix && at >= since).count() >= SILENT
        };
        self.late.iter().filter(is_silent).map(|((_, mix), _)| *mix).collect()
    }

    /// How long the recent loops took that came back.
    fn median(&self) -> Option<Duration> {
        self.took.get(self.took.len() / 2).copied()
    }

    fn remember(&mut self, fate: Option<Duration>) {
        if self.recent.len() == REMEMBERED
            && let Some(Some(oldest)) = self.recent.pop_front()
            && let Ok(at) = self.took.binary_search(&oldest)
        {
            self.took.remove(at);
        }
        if let Some(took) = fate {
            let at = self.took.partition_point(|other| *other < took);
            self.took.insert(at, took);
        }
        self.recent.push_back(fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(n: u8) -> Identity {
        Identity([n; 32])
    }

    /// Loops by two layers of two mixes, ten a second; those whose path `loses` says so of do not come back.
    fn run(loops: &mut Loops, until_ms: u64, loses: impl Fn(u64, &[Identity]) -> bool) {
        for at in (0..until_ms).step_by(100) {
            let now = Time::from_millis(at);
            loops.expire(now);
            let (id, n) = (u128::from(at).to_be_bytes(), at / 100);
            let mixes = vec![mix((n % 2) as u8), mix((2 + n / 2 % 2) as u8)];
            let lost = loses(at, &mixes);
            loops.made(id, mixes, Duration::ZERO);
            loops.sent(id, now);
            if !lost {
                assert!(loops.returned(&id, now + Duration::from_millis(90)));
                assert!(!loops.returned(&id, now), "a loop counts once");
            }
        }
    }

    fn silent_after(until_ms: u64, loses: impl Fn(u64, &[Identity]) -> bool) -> Vec<Identity> {
        let mut loops = Loops::default();
        run(&mut loops, until_ms, loses);
        loops.silent()
    }

    #[test]
    fn a_mix_that_returns_no_loop_is_named_within_seconds_and_cleared_when_it_does() {
        let dead = |at, mixes: &[Identity]| at >= 10_000 && mixes.contains(&mix(1));
        assert!(silent_after(12_000, dead).is_empty());
        assert_eq!(silent_after(13_000, dead), [mix(1)]);
        // However long it lasts, the others are not named.
        for until in (14_000..60_000).step_by(500) {
            assert_eq!(silent_after(until, dead), [mix(1)], "{until}");
        }
        let back = |at, mixes: &[Identity]| at < 20_000 && dead(at, mixes);
        assert!(silent_after(20_300, back).is_empty());
    }

    #[test]
    fn two_dead_mixes_are_both_named() {
        let dead = |at, mixes: &[Identity]| at >= 10_000 && mixes != [mix(1), mix(2)];
        assert_eq!(silent_after(20_000, dead), [mix(0), mix(3)]);
    }

    #[test]
    fn when_nothing_comes_back_no_mix_is_named() {
        for until in (10_000..40_000).step_by(500) {
            assert!(silent_after(until, |at, _| at >= 10_000).is_empty(), "{until}");
        }
        // Nor after the link stood still for five seconds.
        for until in (15_000..30_000).step_by(300) {
            let stall = |at, _: &[Identity]| (10_000..15_000).contains(&at);
            assert!(silent_after(until, stall).is_empty(), "{until}");
        }
        // Nor when all loops go one way: nothing tells its mixes apart.
        let mut loops = Loops::default();
        for at in (0..30_000).step_by(100) {
            let (id, now) = (u128::from(at).to_be_bytes(), Time::from_millis(at));
            loops.expire(now);
            loops.made(id, vec![mix(0), mix(2)], Duration::ZERO);
            loops.sent(id, now);
            assert!(at >= 10_000 || loops.returned(&id, now + Duration::from_millis(90)));
            assert!(loops.silent().is_empty());
        }
    }

    #[test]
    fn what_is_known_of_mixes_lasts_as_long_as_they_stay_in_their_layer() {
        let mut loops = Loops::default();
        run(&mut loops, 20_000, |at, mixes| at >= 10_000 && mixes.contains(&mix(1)));
        loops.keep(|of| Some(1 + u8::from(of.0[0] > 1)));
        assert_eq!(loops.silent(), [mix(1)]);
        loops.keep(|of| (*of != mix(1)).then_some(1 + u8::from(of.0[0] > 1)));
        assert!(loops.silent().is_empty());
    }

    #[test]
    fn loops_are_counted_when_their_fate_is_known() {
        let mut loops = Loops::default();
        run(&mut loops, 4_000, |_, mixes| mixes.contains(&mix(1)));
        loops.expire(Time::from_secs(16));
        let counts = loops.counts();
        assert_eq!((counts.sent, counts.returned, counts.lost), (40, 20, 20));
        assert_eq!(counts.recent, (40, 20));
        assert_eq!(counts.median_ms, 90);
        // One that is back before the report that it was sent counts, but not for the median.
        loops.made([7; 16], vec![mix(0), mix(2)], Duration::ZERO);
        assert!(loops.returned(&[7; 16], Time::from_secs(16)));
        loops.sent([7; 16], Time::from_secs(16));
        let counts = loops.counts();
        assert_eq!((counts.sent, counts.returned, counts.median_ms), (41, 21, 90));
    }

    #[test]
    fn loops_that_are_made_and_never_sent_are_forgotten() {
        let mut loops = Loops::default();
        let id = |n: u32| (1 + u128::from(n)).to_be_bytes();
        for n in 0..20_000 {
            loops.made(id(n), vec![], Duration::ZERO);
            if n % 100 == 0 {
                loops.sent(id(n), Time::ZERO);
            }
            assert!(loops.open.len() <= 4_096, "{n}");
        }
        // Not so those that are under way.
        assert!((0..20_000).step_by(100).all(|n| loops.returned(&id(n), Time::from_secs(1))));
        // The fate of many is known; the last ones count.
        for n in 20_000..22_000 {
            loops.made(id(n), vec![], Duration::ZERO);
            loops.sent(id(n), Time::ZERO);
            loops.returned(&id(n), Time::from_secs(1));
        }
        assert_eq!((loops.counts().recent, loops.counts().returned), ((512, 512), 2_200));
    }
}
