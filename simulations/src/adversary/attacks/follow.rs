//! Whose slots do the arrivals of a client follow?
//!
//! Each loop follows a slot of its own sender, after a delay whose law everybody knows. A corrupt gateway sees what
//! arrives for its clients; the likelihood of these instants, given somebody's slots, is that of a packet at each. At rest the
//! client's own slots explain them best, in a call those of the other side. Where slots are fixed and the law of
//! delay has a uniform part of a whole number of their periods, everybody's slots explain everything alike.

use std::collections::BTreeMap;

use super::delay::Delay;
use super::gateway::arrivals;
use super::marks::block_s;
use super::view_by_user::Side;
use super::{Answer, Attack, RebuiltRecord, Scored, Sign};
use crate::trace::{Public, View};

/// Log-likelihood of the arrivals at corrupt gateways given each person's slots.
pub struct Follow;

/// A step of the cumulative sums, seconds.
const STEP_S: f64 = 1.0;
/// What is held at a time, steps.
const STEPS: usize = 20;
/// Most look-ups: about a minute.
const MOST: f64 = 2e10;
/// A sum above this is a call: e^-25 is less than one in all pairs and seconds of a day.
const ALARM: f32 = 25.0;
/// What is left for an arrival that no slot explains.
const STRAY: f32 = 0.05;

impl Attack for Follow {
    fn name(&self) -> &'static str {
        "follow"
    }

    fn run(&self, view: &View) -> Answer {
        let arrivals = arrivals(view);
        let people = view.public.people as usize;
        let arrived: usize = arrivals.values().map(Vec::len).sum();
        if arrived == 0 || arrived as f64 * people as f64 > MOST {
            return Answer::default();
        }
        let arrivals: BTreeMap<u32, Vec<u64>> = arrivals
            .into_iter()
            .map(|(person, all)| (person, all.into_iter().map(|(at, _)| at).collect()))
            .collect();
        let side = Side::up(view);
        let slots: Vec<Vec<u64>> = (0..people).map(|person| side.times(person)).collect();
        let law = Law::new(&view.public, &slots, &arrivals);
        Sums::new(people).over(view, &law, &slots, &arrivals)
    }
}

/// The law of a packet's delay from its slot to its arrival at the gateway.
struct Law {
    /// The width of a bin, in nanoseconds.
    bin: u64,
    /// Shares of packets that come 0, 1, 2 ... bins after a slot and the offset.
    kernel: Vec<f32>,
    /// What every packet takes on links, nanoseconds.
    offset: u64,
}

impl Law {
    /// The offset is what explains best that people's arrivals are their own loops.
    fn new(public: &Public, slots: &[Vec<u64>], arrivals: &BTreeMap<u32, Vec<u64>>) -> Self {
        let mixing = Delay::new(&Public { latency_s: 0.0, ..public.clone() });
        let bin = ((mixing.sd_s() / 10.0 * 1e9) as u64).clamp(500_000, 50_000_000);
        let kernel = mixing.kernel(bin as f64 / 1e9);
        let mut law = Self { bin, kernel, offset: 0 };
        // Half a minute or some hundred slots of a few people are enough.
        let begin = public.begin.as_nanos();
        let rate = public.resting_up_per_s.max(0.1);
        let span = ((300.0 / rate).max(30.0) * 1e9) as u64;
        let bins = (span / bin) as usize;
        let steps = (public.latency_s * 1e9 / bin as f64).ceil() as usize + 1;
        let mut sums = vec![0.0f64; steps];
        for (person, times) in arrivals.iter().take(40) {
            let Some(slots) = slots.get(*person as usize) else { continue };
            let expected = law.expected(slots, begin, bins);
            for at in times.iter().filter(|at| **at >= begin && **at < begin + span) {
                let index = ((at - begin) / bin) as usize;
                for (step, sum) in sums.iter_mut().enumerate() {
                    let value = index.checked_sub(step).and_then(|index| expected.get(index));
                    *sum += f64::from(value.copied().unwrap_or(0.0));
                }
            }
        }
        let best = sums.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        law.offset = best.map_or(0, |(step, _)| step as u64) * bin;
        law
    }

    /// The logarithm of what somebody's slots let expect in each bin from `begin` on, as a multiple of the mean.
    fn expected(&self, slots: &[u64], begin: u64, bins: usize) -> Vec<f32> {
        let reach = self.kernel.len() as u64 * self.bin + self.offset;
        let first = slots.partition_point(|at| *at < begin.saturating_sub(reach));
        let mut all = vec![0.0f32; bins];
        for slot in slots.iter().skip(first) {
            let at = slot + self.offset;
            let index = (at as i64 - begin as i64).div_euclid(self.bin as i64);
            if index >= bins as i64 {
                break;
            }
            for (lag, share) in self.kernel.iter().enumerate() {
                let index = usize::try_from(index + lag as i64).ok();
                if let Some(sum) = index.and_then(|index| all.get_mut(index)) {
                    *sum += share;
                }
            }
        }
        let mean = (all.iter().sum::<f32>() / bins.max(1) as f32).max(f32::MIN_POSITIVE);
        // Never the logarithm of zero: one arrival that no slot explains would rule a pair out for good.
        let log = |value: &f32| (STRAY + (1.0 - STRAY) * value / mean).ln();
        all.iter().map(log).collect()
    }
}

/// A cumulative sum of one pair.
#[derive(Clone, Copy, Default)]
struct Sum {
    now: f32,
    best: f32,
    /// The first and the last step of the present sum.
    first: u32,
    last: u32,
    /// The best of all.
    most: f32,
}

/// Cumulative sums of all pairs, by the smaller number and the greater.
struct Sums {
    people: usize,
    pairs: Vec<Sum>,
    rows: Vec<(u32, u32, Sum)>,
    /// By person: what each block's arrivals gain by their own slots, and how many they are.
    own: BTreeMap<u32, Vec<(f32, u32)>>,
}

impl Sums {
    fn new(people: usize) -> Self {
        let pairs = vec![Sum::default(); people * people];
        Self { people, pairs, rows: Vec::new(), own: BTreeMap::new() }
    }

    fn over(
        mut self,
        view: &View,
        law: &Law,
        slots: &[Vec<u64>],
        arrivals: &BTreeMap<u32, Vec<u64>>,
    ) -> Answer {
        let (begin, end) = (view.public.begin.as_nanos(), view.public.end.as_nanos());
        let bins = (STEP_S * 1e9 / law.bin as f64) as usize;
        let step = bins as u64 * law.bin;
        let steps = ((end - begin) / step) as usize;
        let block_s = block_s(&view.public);
        let mut gains = vec![0.0f32; self.people * self.people];
        for chunk in (0..steps).step_by(STEPS) {
            let from = begin + chunk as u64 * step;
            let here = STEPS.min(steps - chunk);
            let expected: Vec<Vec<f32>> =
                slots.iter().map(|slots| law.expected(slots, from, here * bins)).collect();
            for index in 0..here {
                let (from, number) = (from + index as u64 * step, (chunk + index) as u32);
                gains.fill(0.0);
                for (person, times) in arrivals {
                    let first = times.partition_point(|at| *at < from);
                    let now = times.iter().skip(first).take_while(|at| **at < from + step);
                    let indices: Vec<usize> =
                        now.map(|at| index * bins + ((at - from) / law.bin) as usize).collect();
                    let row = *person as usize * self.people;
                    let row = gains.get_mut(row..row + self.people).unwrap_or_default();
                    for (gain, expected) in row.iter_mut().zip(&expected) {
                        let at = |index: &usize| expected.get(*index).copied().unwrap_or(0.0);
                        *gain = indices.iter().map(at).sum();
                    }
                    let own = row.get(*person as usize).copied().unwrap_or(0.0);
                    let block = (f64::from(number) * step as f64 / 1e9 / block_s) as usize;
                    let blocks = self.own.entry(*person).or_default();
                    if blocks.len() <= block {
                        blocks.resize(block + 1, (0.0, 0));
                    }
                    if let Some((sum, count)) = blocks.get_mut(block) {
                        (*sum, *count) = (*sum + own, *count + indices.len() as u32);
                    }
                }
                self.add(&gains, number);
            }
        }
        self.answer(view, step as f64 / 1e9, steps as u32)
    }

    /// One step of all pairs: what both sides' arrivals gain by the other's slots over their own.
    fn add(&mut self, gains: &[f32], number: u32) {
        let n = self.people;
        let gain = |i: usize, j: usize| gains.get(i * n + j).copied().unwrap_or(0.0);
        for i in 0..n {
            for j in i + 1..n {
                let Some(sum) = self.pairs.get_mut(i * n + j) else { continue };
                // Against their own slots, since at rest these explain the arrivals: only what the other's explain
                // better is a sign.
                sum.now += gain(i, j) + gain(j, i) - gain(i, i) - gain(j, j);
                if sum.now > sum.best {
                    (sum.best, sum.last) = (sum.now, number);
                    sum.most = sum.most.max(sum.best);
                }
                if sum.now <= 0.0 || sum.now < sum.best - ALARM {
                    if sum.best > ALARM {
                        self.rows.push((i as u32, j as u32, *sum));
                    }
                    // Begun anew at zero, so that hours of rest leave no debt that a call would have to pay off.
                    *sum = Sum { first: number + 1, most: sum.most, ..Sum::default() };
                }
            }
        }
    }

    fn answer(mut self, view: &View, step_s: f64, steps: u32) -> Answer {
        let n = self.people;
        let begin_s = view.public.begin.as_secs_f64();
        let mut found = Answer::default();
        for i in 0..n {
            for j in i + 1..n {
                let Some(sum) = self.pairs.get(i * n + j).copied() else { continue };
                if sum.best > ALARM {
                    self.rows.push((i as u32, j as u32, Sum { last: sum.last.min(steps), ..sum }));
                }
                if sum.most > 0.0 {
                    let score = f64::from(sum.most);
                    found.pairs.push(Scored { caller: i as u32, callee: j as u32, score });
                }
            }
        }
        for (caller, callee, sum) in self.rows {
            let start_s = begin_s + f64::from(sum.first) * step_s;
            let duration_s = f64::from(sum.last + 1 - sum.first) * step_s;
            let score = f64::from(sum.best);
            found.rows.push(RebuiltRecord { caller, callee, start_s, duration_s, score });
        }
        for (person, blocks) in self.own {
            let length_s = block_s(&view.public);
            let whole = (f64::from(steps) * step_s / length_s) as usize;
            for (block, (gain, count)) in blocks.into_iter().enumerate().take(whole) {
                found.signs.push(Sign {
                    person,
                    begin_s: begin_s + block as f64 * length_s,
                    length_s,
                    // What a sum of so many arrivals varies by at rest, so that busy and quiet blocks can be
                    // compared.
                    score: f64::from(-gain) / f64::from(count.max(1)).sqrt(),
                });
            }
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::attacks::generated::{Calls, view};
    use crate::score::scores::{self, RecordKind};

    #[test]
    fn arrivals_follow_slots_without_a_uniform_delay_of_a_period_and_with_it_they_do_not() {
        let scores = |settings: &Calls| {
            let (view, truth) = view(settings);
            let answer = Follow.run(&view);
            let people = view.public.people;
            scores::scores(&answer, &truth, people, RecordKind::Calls, &Seed::from_u64(1))
        };
        let erlang = scores(&Calls { uniform: false, ..Calls::default() });
        for name in ["r_precision", "told_from_rest"] {
            let score = erlang.iter().find(|score| score.name == name).unwrap();
            assert!(score.p < 1e-3 && score.value.value > 0.3, "{score:?}");
        }
        let uniform = scores(&Calls::default());
        assert!(uniform.iter().all(|score| score.p > 1e-3), "{uniform:?}");
    }
}
