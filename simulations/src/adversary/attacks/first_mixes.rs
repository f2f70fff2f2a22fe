//! Which mix each frame of a client goes to first, from the links alone.
//!
//! A gateway sends what it has from a client on at once and is no hop, so each frame on the link of a client is
//! followed, one latency later, by one on a link from its gateway to a mix of the first layer.

use std::collections::BTreeMap;

use super::marks::{self, Followed, Marked};
use super::{Answer, Attack, Scored, far_end};
use crate::trace::{Flow, Party, View};

/// Calls from a change of the first mixes of a client's frames, with those who change together.
pub struct FirstMixes;

impl Attack for FirstMixes {
    fn name(&self) -> &'static str {
        "first_mixes"
    }

    fn run(&self, view: &View) -> Answer {
        let followed = from_links(view);
        let gap_s = gap_s(view);
        let (mut found, intervals) =
            marks::answer(&followed.people, followed.mixes.len(), gap_s, &view.public);
        let alone = far_end::rows(view, &followed, &intervals, &found.rows);
        found.pairs.extend(alone.iter().map(|row| Scored {
            caller: row.caller,
            callee: row.callee,
            score: row.score,
        }));
        found.rows.extend(alone);
        found
    }
}

/// Time between two packets of a call, seconds.
pub fn gap_s(view: &View) -> f64 {
    if view.public.call_per_s > 0.0 { 1.0 / view.public.call_per_s } else { 0.0 }
}

/// Longest latency of a client's link that is looked for, nanoseconds.
const MOST: u64 = 250_000_000;
/// Bins in which it is looked for: coarse ones and fine ones.
const BINS: [u64; 2] = [1_000_000, 10_000];
/// Frames by which it is found.
const FRAMES: usize = 2_000;

/// What leaves a gateway for mixes, in order of time.
type Departures = Vec<(u64, u16)>;

/// Follows everybody's frames to their first mixes.
pub fn from_links(view: &View) -> Followed {
    let links = || {
        view.trace.links.iter().filter_map(|(link, flow)| match flow {
            Flow::Packets { times, .. } => Some((link, times)),
            Flow::Counts { .. } => None,
        })
    };
    let mut uplinks = Vec::new();
    let mut departing: BTreeMap<u32, Departures> = BTreeMap::new();
    for (link, times) in links() {
        if let (Party::Person(person), Party::Node(gateway)) = (link.from, link.to) {
            uplinks.push((person, gateway, times));
            departing.entry(gateway).or_default();
        }
    }
    let mut mixes: BTreeMap<u32, u16> = BTreeMap::new();
    for (link, times) in links() {
        if let (Party::Node(from), Party::Node(to)) = (link.from, link.to)
            && let Some(departures) = departing.get_mut(&from)
        {
            let next = mixes.len() as u16;
            let mark = *mixes.entry(to).or_insert(next);
            departures.extend(times.iter().map(|at| (*at, mark)));
        }
    }
    departing.values_mut().for_each(|departures| departures.sort_unstable());
    let marks = mixes.len();
    let followed = |(person, gateway, times): (u32, u32, &Vec<u64>)| {
        let departures = departing.get(&gateway).map_or(&[][..], Vec::as_slice);
        follow(person, times, departures, marks)
    };
    let gateways = uplinks.iter().map(|(person, gateway, _)| (*person, *gateway)).collect();
    let people = uplinks.into_iter().map(followed).collect();
    let mut nodes = vec![0; marks];
    for (node, mark) in mixes {
        if let Some(slot) = nodes.get_mut(usize::from(mark)) {
            *slot = node;
        }
    }
    Followed { people, mixes: nodes, gateways }
}

/// One client's frames and what left its gateway when they must have.
fn follow(person: u32, times: &[u64], departures: &[(u64, u16)], marks: usize) -> Marked {
    let mut frames = Marked::new(person);
    let Some((least, most)) = latency(times, departures) else { return frames };
    let mut counts = vec![1.0f32; marks];
    for (_, mark) in departures {
        if let Some(count) = counts.get_mut(usize::from(*mark)) {
            *count += 1.0;
        }
    }
    // A mix that gets much from everybody says less.
    let weight = |mark: u16| 1.0 / counts.get(usize::from(mark)).copied().unwrap_or(1.0);
    let mut first = 0;
    for at in times {
        while departures.get(first).is_some_and(|(left, _)| *left < at + least) {
            first += 1;
        }
        let near = departures.iter().skip(first).take_while(|(left, _)| *left <= at + most);
        frames.push(*at, near.map(|(_, mark)| (*mark, weight(*mark))));
    }
    frames
}

/// Between which delays what a client sent left its gateway again. Where links delay all packets alike, nearly all of its frames
/// have one; clients with the same fixed slots are always the same time apart, but loops are not. Else, where more
/// leave than at other delays. None where no delay stands out.
fn latency(times: &[u64], departures: &[(u64, u16)]) -> Option<(u64, u64)> {
    let [coarse, fine] = BINS;
    let step = (times.len() / FRAMES).max(1);
    let looked = times.len().div_ceil(step);
    let (peak, counts) = delays(times, departures, (step, fine))?;
    let most = counts.get(peak).copied().unwrap_or(0) as usize;
    if looked >= 20 && most * 10 > looked * 8 {
        let at = peak as u64 * fine;
        return Some((at.saturating_sub(fine), at + 2 * fine));
    }
    let (peak, counts) = delays(times, departures, (step, coarse))?;
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    let typical = f64::from(sorted.get(sorted.len() / 2).copied().unwrap_or(0));
    let high = (typical + 6.0 * typical.max(1.0).sqrt()).max(20.0);
    // Jitter spreads it over several bins: all those around that stand out.
    let stands = |index: &usize| counts.get(*index).is_some_and(|n| f64::from(*n) > high);
    let from = (0..=peak).rev().take_while(stands).last()? as u64;
    let to = (peak..counts.len()).take_while(stands).last()? as u64;
    Some(((from * coarse).saturating_sub(coarse), (to + 2) * coarse))
}

/// How many departures follow frames by each delay, in bins; and the fullest bin.
fn delays(
    times: &[u64],
    departures: &[(u64, u16)],
    (step, bin): (usize, u64),
) -> Option<(usize, Vec<u32>)> {
    let mut counts = vec![0u32; (MOST / bin) as usize];
    for at in times.iter().step_by(step) {
        let first = departures.partition_point(|(left, _)| left < at);
        let near = departures.iter().skip(first).take_while(|(left, _)| *left < at + MOST);
        for (left, _) in near {
            if let Some(count) = counts.get_mut(((left - at) / bin) as usize) {
                *count += 1;
            }
        }
    }
    let peak = counts.iter().enumerate().max_by_key(|(_, count)| **count)?.0;
    Some((peak, counts))
}

#[cfg(test)]
mod tests {
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::attacks::generated::{Calls, view};
    use crate::score::scores::{self, Claims, RecordKind};

    #[test]
    fn calls_over_kept_paths_are_rebuilt_from_links_and_over_fresh_ones_not() {
        let (kept, truth) = view(&Calls { kept: true, ..Calls::default() });
        let found = Claims::of(&FirstMixes.run(&kept), &truth);
        // Where both paths of somebody begin at one mix nothing shows: one in four of these calls.
        assert!(
            found.rebuilt * 2 > found.records && found.right * 4 > found.claims * 3,
            "{found:?}"
        );
        let (fresh, truth) = view(&Calls::default());
        let answer = FirstMixes.run(&fresh);
        assert_eq!(Claims::of(&answer, &truth).claims, 0);
        let people = fresh.public.people;
        for score in scores::scores(&answer, &truth, people, RecordKind::Calls, &Seed::from_u64(1))
        {
            assert!(score.p > 1e-3, "{score:?}");
        }
    }
}
