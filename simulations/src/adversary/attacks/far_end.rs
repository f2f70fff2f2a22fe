//! Who is at the far end of a call of which one side alone changed its first mix?
//!
//! Of the other side both paths begin at one mix. But its frames leave that mix by another link from then on, and what comes to
//! its gateway comes by another: two links of each that rise and fall with the call, by as much as a call has.

use std::collections::BTreeMap;

use super::RebuiltRecord;
use super::calls::Interval;
use super::marks::{Followed, Marked};
use crate::trace::{Flow, Party, View};

/// Longest time on each side of a change that is counted, seconds.
const SPAN_S: f64 = 8.0;
/// What must stand out of a mix and of a gateway, standard deviations of two links together. Of ten links each that change
/// by chance the sum of the two that stand out most is 3, and 7 in one of 10^4.
const STANDS_OUT: f64 = 8.0;

/// Rows for intervals that have no partner: the likeliest one, and how many are as likely as that.
pub fn rows(
    view: &View,
    followed: &Followed,
    intervals: &[Interval],
    paired: &[RebuiltRecord],
) -> Vec<RebuiltRecord> {
    let alone = |interval: &&Interval| {
        !paired.iter().any(|row| {
            [row.caller, row.callee].contains(&interval.person)
                && (row.start_s - interval.start_s).abs() < 0.5
        })
    };
    let ends = FarEnds::new(view, followed);
    let mut found = Vec::new();
    for interval in intervals.iter().filter(alone) {
        let busy: Vec<u32> = intervals
            .iter()
            .filter(|other| other.start_s < interval.end_s && interval.start_s < other.end_s)
            .map(|other| other.person)
            .collect();
        let mut best: Option<(f64, Vec<u32>)> = None;
        for frames in followed.people.iter().filter(|frames| !busy.contains(&frames.person)) {
            let Some(score) = ends.score(followed, frames, interval) else { continue };
            match &mut best {
                Some((most, people)) if (score - *most).abs() < 1e-9 => people.push(frames.person),
                Some((most, _)) if score < *most => {}
                _ => best = Some((score, vec![frames.person])),
            }
        }
        if let Some((_, people)) = best
            && let Some(callee) = people.first()
        {
            found.push(RebuiltRecord {
                caller: interval.person,
                callee: *callee,
                start_s: interval.start_s,
                duration_s: interval.end_s - interval.start_s,
                score: 0.9 / people.len() as f64,
            });
        }
    }
    found
}

/// Flows between nodes by their ends.
struct FarEnds<'a> {
    out_of: BTreeMap<u32, Vec<&'a [u64]>>,
    into: BTreeMap<u32, Vec<&'a [u64]>>,
}

impl<'a> FarEnds<'a> {
    fn new(view: &'a View, followed: &Followed) -> Self {
        let mut ends = Self { out_of: BTreeMap::new(), into: BTreeMap::new() };
        for (link, flow) in &view.trace.links {
            let (Party::Node(from), Party::Node(to), Flow::Packets { times, .. }) =
                (link.from, link.to, flow)
            else {
                continue;
            };
            if followed.mixes.contains(&from) {
                ends.out_of.entry(from).or_default().push(times);
            }
            if followed.gateways.values().any(|gateway| *gateway == to) {
                ends.into.entry(to).or_default().push(times);
            }
        }
        ends
    }

    /// How much speaks for this person as the far end of a call in this interval. None where too little does.
    fn score(&self, followed: &Followed, frames: &Marked, interval: &Interval) -> Option<f64> {
        let gateway = followed.gateways.get(&frames.person)?;
        let mix = followed.mixes.get(usize::from(usual(frames, interval)?))?;
        let change = |links: Option<&Vec<&[u64]>>| {
            let changes = links.into_iter().flatten().map(|times| change(times, interval));
            let (least, most) = changes.fold((0.0f64, 0.0f64), |(least, most), change| {
                (least.min(change), most.max(change))
            });
            most - least
        };
        let (out, into) = (change(self.out_of.get(mix)), change(self.into.get(gateway)));
        (out > STANDS_OUT && into > STANDS_OUT).then_some(out + into)
    }
}

/// The first mix of most of somebody's frames in an interval.
fn usual(frames: &Marked, interval: &Interval) -> Option<u16> {
    let nanos = |seconds: f64| (seconds.max(0.0) * 1e9) as u64;
    let first = frames.times.partition_point(|at| *at < nanos(interval.start_s));
    let end = frames.times.partition_point(|at| *at < nanos(interval.end_s));
    let mut weights: BTreeMap<u16, f32> = BTreeMap::new();
    for (mark, weight) in (first..end).flat_map(|frame| frames.marks(frame)) {
        *weights.entry(*mark).or_default() += weight;
    }
    let (mark, most) = weights.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (most > 0.8 * (end - first) as f32).then_some(mark)
}

/// How much more a link has from the begin of an interval on and until its end, than before and after, in standard
/// deviations.
fn change(times: &[u64], interval: &Interval) -> f64 {
    let Interval { start_s, end_s, .. } = *interval;
    let span_s = SPAN_S.min(end_s - start_s);
    let count = |begin_s: f64| {
        let before = |seconds: f64| times.partition_point(|at| (*at as f64) < seconds * 1e9);
        (before(begin_s + span_s) - before(begin_s)) as f64
    };
    let within = count(start_s) + count(end_s - span_s);
    let around = count(start_s - span_s) + count(end_s);
    (within - around) / (within + around + 1.0).sqrt()
}
