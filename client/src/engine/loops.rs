//! A client's own loops: which came back, and what that says of the mixes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::PacketId;
use shoal_topology::Time;

/// A loop that is not back after so long is lost: five times what 999 of 1,000 loops of class text take.
const LOST_AFTER: Duration = Duration::from_secs(12);
/// A loop that takes so many times as long as the median one, or a second if that is more, is late.
const LATE_FACTOR: u32 = 8;
const LATE_LEAST: Duration = Duration::from_secs(1);
/// A mix of which so many loops in a row are late is silent. Where another one in two loses every packet, an honest
/// mix looks like that once in 256 times.
const SILENT: u32 = 8;
/// Loops that are remembered.
const REMEMBERED: usize = 512;
/// Loops that stand ready or are under way.
const MAX_OPEN: usize = 4_096;

/// How the last loops fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoopCounts {
    /// Sent, in all.
    pub sent: u64,
    /// Came back, in all.
    pub returned: u64,
    /// Given up, in all.
    pub lost: u64,
    /// Of the last ones whose fate is known: how many, and how many of these came back.
    pub recent: (usize, usize),
    /// Median time from slot to return, milliseconds, of the recent ones.
    pub median_ms: u64,
}

#[derive(Default)]
pub(super) struct Loops {
    open: HashMap<PacketId, Open>,
    sent: VecDeque<(PacketId, Time)>,
    /// Those of `sent` that are not late yet.
    young: VecDeque<(PacketId, Time)>,
    recent: VecDeque<Option<Duration>>,
    /// What was seen of each mix.
    mixes: HashMap<usize, Seen>,
    counts: LoopCounts,
}

struct Open {
    sent: Option<Time>,
    mixes: Vec<usize>,
}

#[derive(Default)]
struct Seen {
    /// When the youngest of the loops left that came back.
    back: Time,
    /// How many that left since are late.
    late: u32,
}

impl Loops {
    pub(super) fn made(&mut self, id: PacketId, mixes: Vec<usize>) {
        if self.open.len() >= MAX_OPEN {
            // Loops made for an uplink that was cleared are never sent.
            self.open.retain(|_, open| open.sent.is_some());
        }
        self.open.insert(id, Open { sent: None, mixes });
    }

    pub(super) fn sent(&mut self, id: PacketId, at: Time) {
        if let Some(open) = self.open.get_mut(&id) {
            open.sent = Some(at);
            self.sent.push_back((id, at));
            self.young.push_back((id, at));
            self.counts.sent += 1;
        }
    }

    /// Whether this is a loop of ours; it counts once.
    pub(super) fn returned(&mut self, id: &PacketId, now: Time) -> bool {
        let Some(open) = self.open.remove(id) else { return false };
        self.counts.returned += 1;
        // A loop may be back before the uplink's report that it was sent is read.
        let took = open.sent.map_or(Duration::ZERO, |at| now.since(at));
        for mix in open.mixes {
            let seen = self.mixes.entry(mix).or_default();
            let sent = open.sent.unwrap_or(now);
            if sent >= seen.back {
                *seen = Seen { back: sent, late: 0 };
            }
        }
        self.remember(Some(took));
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
            if self.open.remove(&id).is_some() {
                self.counts.lost += 1;
                self.remember(None);
            }
        }
    }

    /// Counts a late loop against the mixes of its path: against those that are silent, if there are any.
    fn blame(&mut self, id: &PacketId, sent: Time) {
        let Some(open) = self.open.get(id) else { return };
        let silent = self.silent();
        let explained = open.mixes.iter().any(|mix| silent.contains(mix));
        for mix in &open.mixes {
            let seen = self.mixes.entry(*mix).or_default();
            if sent > seen.back && (!explained || silent.contains(mix)) {
                seen.late = seen.late.saturating_add(1);
            }
        }
    }

    /// Another document: places in the list mean other mixes.
    pub(super) fn forget_paths(&mut self) {
        self.mixes.clear();
        self.open.values_mut().for_each(|open| open.mixes.clear());
    }

    pub(super) fn counts(&self) -> LoopCounts {
        let median = self.median().unwrap_or_default();
        let back = self.recent.iter().flatten().count();
        LoopCounts {
            recent: (self.recent.len(), back),
            median_ms: u64::try_from(median.as_millis()).unwrap_or(u64::MAX),
            ..self.counts
        }
    }

    /// Mixes from which nothing comes back.
    pub(super) fn silent(&self) -> Vec<usize> {
        let silent = self.mixes.iter().filter(|(_, seen)| seen.late >= SILENT);
        let mut mixes: Vec<usize> = silent.map(|(mix, _)| *mix).collect();
        mixes.sort_unstable();
        mixes
    }

    /// How long the recent loops took that came back.
    fn median(&self) -> Option<Duration> {
        let mut took: Vec<Duration> = self.recent.iter().flatten().copied().collect();
        let middle = took.len() / 2;
        (!took.is_empty()).then(|| *took.select_nth_unstable(middle).1)
    }

    fn remember(&mut self, fate: Option<Duration>) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loops by two mixes in turn, ten a second; those by the second are lost between these instants (ms).
    fn run(loops: &mut Loops, lost: std::ops::Range<u64>, until: u64) {
        for at in (0..until).step_by(100) {
            let now = Time::from_millis(at);
            loops.expire(now);
            let id = u128::from(at).to_be_bytes();
            let mix = (at / 100 % 2) as usize;
            loops.made(id, vec![mix, 5]);
            loops.sent(id, now);
            if mix == 0 || !lost.contains(&at) {
                assert!(loops.returned(&id, now + Duration::from_millis(90)));
                assert!(!loops.returned(&id, now), "a loop counts once");
            }
        }
    }

    #[test]
    fn a_mix_that_returns_no_loop_is_named_within_seconds_and_cleared_when_it_does() {
        let mut loops = Loops::default();
        run(&mut loops, 10_000..100_000, 12_000);
        assert!(loops.silent().is_empty());
        let mut loops = Loops::default();
        run(&mut loops, 10_000..100_000, 13_000);
        assert_eq!(loops.silent(), [1]);
        let mut loops = Loops::default();
        run(&mut loops, 10_000..20_000, 20_200);
        assert!(loops.silent().is_empty());
    }

    #[test]
    fn loops_are_counted_when_their_fate_is_known() {
        let mut loops = Loops::default();
        run(&mut loops, 0..4_000, 4_000);
        loops.expire(Time::from_secs(16));
        let counts = loops.counts();
        assert_eq!((counts.sent, counts.returned, counts.lost), (40, 20, 20));
        assert_eq!(counts.recent, (40, 20));
        assert_eq!(counts.median_ms, 90);
    }
}
