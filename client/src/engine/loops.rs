//! A client's own loops: which came back, and what that says of the mixes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::PacketId;
use shoal_topology::Time;

/// A loop that is not back after so long is lost: five times what 999 of 1,000 loops of class text take.
const LOST_AFTER: Duration = Duration::from_secs(12);
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
    recent: VecDeque<Fate>,
    counts: LoopCounts,
}

struct Open {
    sent: Option<Time>,
    mixes: Vec<usize>,
}

struct Fate {
    mixes: Vec<usize>,
    took: Option<Duration>,
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
            self.counts.sent += 1;
        }
    }

    /// Whether this is a loop of ours; it counts once.
    pub(super) fn returned(&mut self, id: &PacketId, now: Time) -> bool {
        let Some(open) = self.open.remove(id) else { return false };
        self.counts.returned += 1;
        // A loop may be back before the uplink's report that it was sent is read.
        let took = open.sent.map_or(Duration::ZERO, |at| now.since(at));
        self.remember(Fate { mixes: open.mixes, took: Some(took) });
        true
    }

    pub(super) fn expire(&mut self, now: Time) {
        while let Some((id, at)) = self.sent.front().copied()
            && now.since(at) > LOST_AFTER
        {
            self.sent.pop_front();
            if let Some(open) = self.open.remove(&id) {
                self.counts.lost += 1;
                self.remember(Fate { mixes: open.mixes, took: None });
            }
        }
    }

    /// Another document: places in the list mean other mixes.
    pub(super) fn forget_paths(&mut self) {
        self.recent.clear();
        self.open.values_mut().for_each(|open| open.mixes.clear());
    }

    pub(super) fn counts(&self) -> LoopCounts {
        let mut took: Vec<Duration> = self.recent.iter().filter_map(|fate| fate.took).collect();
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        LoopCounts {
            recent: (self.recent.len(), took.len()),
            median_ms: u64::try_from(median.as_millis()).unwrap_or(u64::MAX),
            ..self.counts
        }
    }

    /// Mixes of which at least eight of the last loops are known and none came back.
    pub(super) fn silent(&self) -> Vec<usize> {
        let mut seen: HashMap<usize, (u32, u32)> = HashMap::new();
        for fate in self.recent.iter().rev().take(128) {
            for mix in &fate.mixes {
                let (known, back) = seen.entry(*mix).or_default();
                *known += 1;
                *back += u32::from(fate.took.is_some());
            }
        }
        let silent = |(_, (known, back)): &(usize, (u32, u32))| *known >= 8 && *back == 0;
        let mut mixes: Vec<usize> = seen.into_iter().filter(silent).map(|(mix, _)| mix).collect();
        mixes.sort_unstable();
        mixes
    }

    fn remember(&mut self, fate: Fate) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_that_returns_no_loop_is_named() {
        let mut loops = Loops::default();
        for i in 0..40u8 {
            let id = [i; 16];
            let mix = usize::from(i % 2);
            loops.made(id, vec![mix, 5]);
            loops.sent(id, Time::ZERO);
            if mix == 0 {
                assert!(loops.returned(&id, Time::from_millis(90)));
                assert!(!loops.returned(&id, Time::from_millis(91)), "a loop counts once");
            }
        }
        loops.expire(Time::from_secs(16));
        assert_eq!(loops.silent(), [1]);
        let counts = loops.counts();
        assert_eq!((counts.sent, counts.returned, counts.lost), (40, 20, 20));
        assert_eq!(counts.recent, (40, 20));
        assert_eq!(counts.median_ms, 90);
    }
}
