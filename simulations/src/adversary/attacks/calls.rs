//! Flow correlation of calls: when rates change, and how they run.

use super::bursts::bursts;
use super::delay::Delay;
use super::dense::{MOST_PEOPLE, Matrix, products};
use super::disclosure::answer;
use super::view_by_user::{MOST_BINS, Side, without_cover};
use super::{Answer, Attack, RebuiltRecord, Scored};
use crate::trace::View;

/// A time in which a person's link carries more than at rest.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// The person whose link it is.
    pub person: u32,
    /// Its begin, seconds.
    pub start_s: f64,
    /// Its end, seconds.
    pub end_s: f64,
}

/// Calls by likelihood ratio: finds when each link's rate rises by that of a call and falls again (CUSUM of the
/// Poisson log-likelihood ratio), and pairs those whose rises and falls fall together.
///
/// A call runs both ways, so both parties' downlinks show it; uplinks are used where no downlink shows any.
pub struct FlowStarts;

impl Attack for FlowStarts {
    fn name(&self) -> &'static str {
        "flow_starts"
    }

    fn run(&self, view: &View) -> Answer {
        let (mut intervals, mut within_s, mut before_s) = changes(view, &Side::down(view));
        let delay = Delay::new(&view.public);
        if intervals.is_empty() {
            (intervals, within_s, _) = changes(view, &Side::up(view));
            before_s = 0.0;
        }
        pair_up(&intervals, within_s + delay.sd_s(), before_s)
    }
}

/// Alarms of the CUSUM: e^-16 is less than one false start in 10^7 bins.
const ALARM: f32 = 16.0;

/// Intervals of everybody; how exact their ends are, seconds; and how long after the sender's they come.
fn changes(view: &View, side: &Side<'_>) -> (Vec<Interval>, f64, f64) {
    let public = &view.public;
    let delay = Delay::new(public);
    if without_cover(view) {
        let flows = bursts(side, public, 0.0).flows.into_iter();
        let gap_s = if public.call_per_s > 0.0 { 1.0 / public.call_per_s } else { 0.0 };
        let interval = flows.map(|flow| Interval {
            person: flow.person,
            start_s: flow.start_s,
            end_s: flow.end_s + gap_s,
        });
        return (interval.collect(), 2.0 * gap_s, delay.mean_s());
    }
    let bin = side.bin(250_000_000, MOST_BINS);
    let bin_s = bin as f64 / 1e9;
    let (begin_s, call) = (public.begin.as_secs_f64(), (public.call_per_s * bin_s) as f32);
    let counts: Vec<Vec<f32>> = (0..side.people()).map(|person| side.counts(person, bin)).collect();
    let mut means: Vec<f32> = counts.iter().map(|row| mean(row)).collect();
    means.sort_by(f32::total_cmp);
    // Most people are at rest most of the time, whatever the class is said to rest at.
    let resting = means.get(means.len() / 2).copied().unwrap_or(0.0).max(0.02 * call);
    let mut all = Vec::new();
    for (person, row) in counts.iter().enumerate() {
        for (first, last) in raised(row, resting, call) {
            // Where a call begins or ends within a bin, that bin is full in part.
            let part = |index: usize| {
                let count = row.get(index).copied().unwrap_or(0.0);
                f64::from(((count - resting) / call.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0))
            };
            let start_s = begin_s + (first as f64 + 1.0 - part(first)) * bin_s;
            let end_s = begin_s + (last as f64 + part(last)) * bin_s;
            all.push(Interval { person: person as u32, start_s, end_s: end_s.max(start_s) });
        }
    }
    all.sort_by(|a, b| a.start_s.total_cmp(&b.start_s).then(a.person.cmp(&b.person)));
    (all, bin_s, delay.mean_s())
}

fn mean(row: &[f32]) -> f32 {
    (row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len().max(1) as f64) as f32
}

/// First and last bins of the times in which counts are raised from `resting` by about `call`.
fn raised(row: &[f32], resting: f32, call: f32) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    if call <= 0.0 {
        return found;
    }
    let gain = ((resting + call) / resting).ln();
    let (mut sum, mut first, mut best, mut last) = (0.0f32, 0, 0.0f32, 0);
    for (index, count) in row.iter().enumerate() {
        // The ratio of a bin is bounded, so that a burst ends when it ends and leaves no debt.
        sum += (count * gain - call).min(4.0 * ALARM);
        if sum > best {
            (best, last) = (sum, index);
        }
        if sum <= 0.0 || sum < best - ALARM {
            if best > ALARM {
                found.push((first, last));
            }
            (sum, best, first) = (0.0, 0.0, index + 1);
        }
    }
    if best > ALARM {
        found.push((first, last));
    }
    found
}

/// Intervals of two people that begin and end together, to within `within_s`. They are in order of their begins.
pub fn pair_up(intervals: &[Interval], within_s: f64, before_s: f64) -> Answer {
    /// What is left for a partner who is not seen.
    const NOBODY: f64 = 1e-3;
    let square = |x: f64| 0.5 * (x / within_s).powi(2);
    let mut links: Vec<(usize, usize, f64)> = Vec::new();
    let mut sums = vec![NOBODY; intervals.len()];
    for (i, a) in intervals.iter().enumerate() {
        let later = intervals.iter().enumerate().skip(i + 1);
        // They are in order of begin, and beyond five deviations the weight is nothing.
        let near = later.take_while(|(_, b)| b.start_s - a.start_s < 5.0 * within_s);
        for (j, b) in near.filter(|(_, b)| b.person != a.person) {
            let weight = (-square(b.start_s - a.start_s) - square(b.end_s - a.end_s)).exp();
            if weight > 1e-12 {
                links.push((i, j, weight));
                for k in [i, j] {
                    if let Some(sum) = sums.get_mut(k) {
                        *sum += weight;
                    }
                }
            }
        }
    }
    let mut pairs = std::collections::BTreeMap::new();
    let mut rows = Vec::new();
    for (i, j, weight) in links {
        let (Some(a), Some(b), Some(x), Some(y)) =
            (intervals.get(i), intervals.get(j), sums.get(i), sums.get(j))
        else {
            continue;
        };
        let posterior = weight / x * (weight / y);
        // The mean of both, since each end saw its own begin and end.
        let length_s = (a.end_s - a.start_s + b.end_s - b.start_s) / 2.0;
        let (caller, callee) = (a.person, b.person);
        *pairs.entry((caller.min(callee), caller.max(callee))).or_insert(0.0) += posterior;
        if posterior > 0.05 {
            let start_s = (a.start_s + b.start_s) / 2.0 - before_s;
            rows.push(RebuiltRecord {
                caller,
                callee,
                start_s,
                duration_s: length_s,
                score: posterior,
            });
        }
    }
    let scored = |((caller, callee), score)| Scored { caller, callee, score };
    Answer { pairs: pairs.into_iter().map(scored).collect(), rows, ..Answer::default() }
}

/// Calls by shape: Pearson's correlation of binned counts, of both downlinks and of each uplink with the other's
/// downlink.
pub struct FlowShape;

impl Attack for FlowShape {
    fn name(&self) -> &'static str {
        "flow_shape"
    }

    fn run(&self, view: &View) -> Answer {
        let (up, down) = (Side::up(view), Side::down(view));
        let n = up.people();
        if n > MOST_PEOPLE {
            return Answer::default();
        }
        let delay = Delay::new(&view.public);
        let wanted = (2.0 * delay.mean_s()).max(1.0) * 1e9;
        let bin = down.bin(up.bin(wanted as u64, MOST_BINS), MOST_BINS);
        let up = Matrix::counts(&up, bin).delayed(&delay, bin).standardised();
        let down = Matrix::counts(&down, bin).standardised();
        let (across, downs) = (products(&up, &down), products(&down, &down));
        let at = |all: &[f64], i: usize, j: usize| all.get(i * n + j).copied().unwrap_or(0.0);
        // The way there counts more than the way back, so that the direction can be told.
        let score = |i, j| at(&downs, i, j) + at(&across, i, j) + 0.5 * at(&across, j, i);
        let scores: Vec<f64> = (0..n * n).map(|k| score(k / n, k % n)).collect();
        answer(&scores, n, (up.columns as f64).sqrt())
    }
}
