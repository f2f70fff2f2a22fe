//! Per-message Bayes over deliveries: who can have sent what arrived.

use std::collections::BTreeMap;

use super::bursts::{Burst, bursts};
use super::delay::Delay;
use super::dense::{MOST_PEOPLE, Matrix, products};
use super::disclosure::answer;
use super::view_by_user::{MOST_BINS, Side, without_cover};
use super::{Answer, Attack, RebuiltRecord, Scored};
use crate::trace::View;

/// For each delivery, the posterior of each sender by the law of the delay; pairs by summed posteriors, a row for
/// each delivery (`reproduce`, section 3, Copenhagen records). Where cover hides single packets, the same over
/// bins: each packet down is divided among senders by what they sent in time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matching {
    /// Who is taken to have sent what somebody receives.
    pub senders: Senders,
}

/// Who is taken to have sent what somebody receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Senders {
    /// All but the recipient; a row names the person with the most weight in all.
    #[default]
    Others,
    /// Everybody, and a row names the sender of the single likeliest packet: the computation whose figures
    /// section 3 of `reproduce` has for the Copenhagen records.
    Everybody,
}

impl Attack for Matching {
    fn name(&self) -> &'static str {
        "matching"
    }

    fn run(&self, view: &View) -> Answer {
        if without_cover(view) { packets(view, self.senders) } else { counts(view) }
    }
}

/// Posteriors of pairs, and rows.
#[derive(Default)]
struct Attribution {
    senders: Senders,
    pairs: BTreeMap<(u32, u32), f64>,
    rows: Vec<RebuiltRecord>,
}

fn packets(view: &View, senders: Senders) -> Answer {
    let delay = Delay::new(&view.public);
    // Parts of a message arrive apart by jitter; behind mixes each packet goes its own way.
    let parts_s = if delay.mixes() { 0.0 } else { delay.mean_s().max(0.02) };
    let up = bursts(&Side::up(view), &view.public, parts_s);
    let down = bursts(&Side::down(view), &view.public, parts_s);
    let mut found = Attribution { senders, ..Attribution::default() };
    // What no delay explains may have come from anywhere: a posterior needs more than this density.
    let floor = 1e-4 / delay.sd_s();
    let starts = |u: &Burst, d: &Burst| delay.density(d.start_s - u.start_s);
    let both = |u: &Burst, d: &Burst| starts(u, d) * delay.density(d.end_s - u.end_s);
    found.attribute(&up.messages, &down.messages, &delay, floor, starts);
    let gap_s = if view.public.call_per_s > 0.0 { 1.0 / view.public.call_per_s } else { 0.0 };
    let rows = found.rows.len();
    found.attribute(&up.flows, &down.flows, &delay, floor * floor, both);
    found.rows.iter_mut().skip(rows).for_each(|row| row.duration_s += gap_s);
    let pairs = found.pairs.into_iter();
    let pairs = pairs.map(|((caller, callee), score)| Scored { caller, callee, score }).collect();
    Answer { pairs, rows: once(found.rows), ..Answer::default() }
}

impl Attribution {
    /// Divides each of `down` among those of `up` that it can come from. Both are in order of start.
    fn attribute(
        &mut self,
        up: &[Burst],
        down: &[Burst],
        delay: &Delay,
        floor: f64,
        density: impl Fn(&Burst, &Burst) -> f64,
    ) {
        let (least, most) = delay.support_s();
        for burst in down {
            let begin = up.partition_point(|u| u.start_s < burst.start_s - most);
            let candidates = up.iter().skip(begin);
            let weighed: Vec<(&Burst, f64)> = candidates
                .take_while(|u| u.start_s <= burst.start_s - least)
                .filter(|u| self.senders == Senders::Everybody || u.person != burst.person)
                .map(|u| (u, density(u, burst)))
                .collect();
            // The floor is the weight of a sender who is not seen.
            let sum: f64 = weighed.iter().map(|(_, weight)| weight).sum::<f64>() + floor;
            for (u, weight) in &weighed {
                *self.pairs.entry((u.person, burst.person)).or_default() += weight / sum;
            }
            let most = |a: &&(&Burst, f64), b: &&(&Burst, f64)| a.1.total_cmp(&b.1);
            let best = match self.senders {
                Senders::Everybody => weighed.iter().max_by(most),
                Senders::Others => {
                    // Several packets of one person speak for her together.
                    let mut people: BTreeMap<u32, f64> = BTreeMap::new();
                    for (u, weight) in &weighed {
                        *people.entry(u.person).or_default() += weight;
                    }
                    let person = people.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
                    let own = weighed.iter().filter(|(u, _)| Some(u.person) == person.map(|p| p.0));
                    own.max_by(most)
                }
            };
            if let Some((u, weight)) = best.filter(|(_, weight)| *weight > 0.0) {
                self.rows.push(RebuiltRecord {
                    caller: u.person,
                    callee: burst.person,
                    start_s: u.start_s,
                    duration_s: burst.end_s - burst.start_s,
                    score: weight / sum,
                });
            }
        }
    }
}

/// A call shows in both directions; one row of it is enough, that which began first.
pub fn once(mut rows: Vec<RebuiltRecord>) -> Vec<RebuiltRecord> {
    const SAME_S: f64 = 0.5;
    let pair = |row: &RebuiltRecord| (row.caller.min(row.callee), row.caller.max(row.callee));
    rows.sort_by(|a, b| pair(a).cmp(&pair(b)).then(a.start_s.total_cmp(&b.start_s)));
    rows.dedup_by(|later, earlier| {
        let same = pair(later) == pair(earlier) && later.start_s - earlier.start_s < SAME_S;
        if same {
            earlier.score = earlier.score.max(later.score);
            earlier.duration_s = earlier.duration_s.max(later.duration_s);
        }
        same
    });
    rows
}

/// Standard deviations above the mean from which a bin counts as a delivery.
const DELIVERY: f32 = 4.0;
/// Deliveries of a person that get a row, those that stand out most.
const DELIVERIES: usize = 30;

fn counts(view: &View) -> Answer {
    let (up, down) = (Side::up(view), Side::down(view));
    if up.people() > MOST_PEOPLE {
        return Answer::default();
    }
    let delay = Delay::new(&view.public);
    let bin = down.bin(up.bin((delay.sd_s() * 1e9) as u64, MOST_BINS), MOST_BINS);
    let mut shares = Matrix::counts(&up, bin).delayed(&delay, bin);
    let mut sums = vec![0.0f32; shares.columns];
    for row in 0..shares.rows {
        sums.iter_mut().zip(shares.row(row)).for_each(|(sum, x)| *sum += x);
    }
    for row in 0..shares.rows {
        // Shares of a bin, so that each packet down is divided once, however many were sent.
        let own = shares.row_mut(row).iter_mut().zip(&sums);
        own.for_each(|(x, sum)| *x = if *sum > 0.0 { *x / sum } else { 0.0 });
    }
    let shares = shares.centred();
    let down = Matrix::counts(&down, bin).centred();
    let mut answer = answer(&products(&shares, &down), shares.rows, 1.0);
    let begin_s = view.public.begin.as_secs_f64();
    for callee in 0..down.rows {
        for (index, excess) in deliveries(down.row(callee)) {
            let share = |row: usize| shares.row(row).get(index).copied().unwrap_or(0.0);
            let others = (0..shares.rows).filter(|caller| *caller != callee);
            if let Some(caller) = others.max_by(|a, b| share(*a).total_cmp(&share(*b))) {
                answer.rows.push(RebuiltRecord {
                    caller: caller as u32,
                    callee: callee as u32,
                    start_s: begin_s + (index as f64 + 0.5) * bin as f64 / 1e9 - delay.mean_s(),
                    duration_s: 0.0,
                    score: f64::from(excess),
                });
            }
        }
    }
    answer
}

/// Bins that stand out of a person's own, with by how many standard deviations.
fn deliveries(row: &[f32]) -> Vec<(usize, f32)> {
    let variance = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len().max(1) as f64;
    // Less than one packet in a bin never stands out by itself.
    let sd = (variance.sqrt() as f32).max(0.25);
    let all = row.iter().enumerate().map(|(index, x)| (index, x / sd));
    let mut found: Vec<(usize, f32)> = all.filter(|(_, excess)| *excess >= DELIVERY).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(DELIVERIES);
    found
}
