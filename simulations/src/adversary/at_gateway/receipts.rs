//! Whether what arrives tells who wrote: a statistical disclosure at the gateways of a reader and of all who may have written.
//!
//! Members write to each other in a ring, each to the next, so that everybody writes and reads as much as everybody else. The
//! adversary has the gateways of all of them, and asks of each reader who wrote to him. Two things may tell: the receipt, behind
//! which more arrives for the writer than else; and the letter itself, in whose slot the writer sends no loop, so that less
//! arrives for him at the time at which it comes for the reader. He takes the one for whom it is so the most.
//!
//! Besides he is asked as if somebody had told him when messages came: how much there is to be found at all.

use std::time::Duration;

use shoal_topology::{Seed, Time, exponential};

use super::Seen;
use super::experiments::{SECOND, SETTLED_S};
use crate::stats::law;
use crate::workload::{Activity, Workload};
use crate::world::{self, Observed, Report, Settings};

/// What the adversary looks for at those who may have written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Hint {
    /// More than else arrives, so many seconds later on average: the receipt.
    Receipt(f64),
    /// Less does at the same time, within so many seconds: a loop that made room for the letter.
    Room(f64),
}

impl Hint {
    /// What is looked for: receipts that leave at once, those that wait for an hour, and the room of the letter.
    pub const ALL: [Self; 3] = [Self::Receipt(4.0), Self::Receipt(3_600.0), Self::Room(4.0)];
}

/// A ring of members.
#[derive(Clone, Debug)]
pub struct Ring {
    /// How many there are.
    pub people: u32,
    /// How many messages each writes.
    pub messages: u32,
    /// The mean time between two of somebody's, seconds.
    pub every_s: f64,
    /// What all is drawn from.
    pub seed: u64,
    /// The settings of the world.
    pub settings: Settings,
}

/// How often the writer was the first of all who may have written.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// What was looked for.
    pub hint: Hint,
    /// Whether the adversary was told when messages came.
    pub is_told: bool,
    /// How often he was: readers for whom several were it count in part.
    pub first: f64,
    /// Of so many readers for whom something came.
    pub readers: u64,
    /// The mean rank of the writer, from 0 for the first to 1 for the last.
    pub mean_rank: f64,
    /// The chance that one who guesses finds as many, or more: binomial, as if readers were independent.
    pub p: f64,
}

impl Ring {
    /// So many members of a class, each of whom writes so many messages.
    pub fn new(class: &str, (people, messages, every_s): (u32, u32, f64), seed: u64) -> Self {
        let mut settings = Settings { warm_up_s: 30.0, drain_s: 0.0, ..Settings::default() };
        settings.class.name = class.into();
        settings.network.mixes_per_layer = 2;
        settings.network.node_loops_per_s = 0.05;
        settings.observer.links = Observed::None;
        settings.observer.gateway_view = true;
        settings.people.members = true;
        let mut ring = Self { people, messages, every_s, seed, settings };
        let length_s = ring.length_s();
        // No new keys meanwhile, and no new document.
        ring.settings.people.key_period_s = (2.0 * length_s) as u32;
        ring.settings.network.epoch_s = (2.0 * length_s) as u32;
        ring
    }

    /// Messages that were written last have receipts, too.
    fn length_s(&self) -> f64 {
        f64::from(self.messages) * self.every_s + 4.0 * 3_600.0
    }

    fn workload(&self) -> Workload {
        let mut activities = Vec::new();
        let mean = Duration::from_secs_f64(self.every_s);
        for from in 0..self.people {
            let purpose = format!("ring {from}");
            let rng = &mut Seed::from_u64(self.seed).part("receipts").stream(&purpose);
            let mut at = Time::ZERO + Duration::from_secs_f64(SETTLED_S);
            for _ in 0..self.messages {
                at += exponential(rng, mean);
                activities.push(Activity::Message { from, to: (from + 1) % self.people, at });
            }
        }
        activities.sort_by_key(Activity::at);
        let end = Time::from_nanos((self.length_s() * SECOND) as u64);
        activities.retain(|activity| activity.at() < end);
        Workload { people: self.people, end, activities }
    }

    /// Runs it, and asks of each reader who wrote to him.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn run(&self) -> anyhow::Result<(Vec<Ranked>, Report)> {
        let workload = self.workload();
        let report = world::run(&self.settings, &workload, self.seed, &|_| ())?;
        let rank = |is_told| {
            let came: Vec<_> =
                (0..self.people).map(|n| self.came(&workload, &report, n, is_told)).collect();
            Hint::ALL.map(|hint| self.rank(&report, &came, hint, is_told))
        };
        Ok(([false, true].map(rank).concat(), report))
    }

    /// In how many seconds something came for a reader: of all that did, or of messages alone.
    fn came(&self, workload: &Workload, report: &Report, reader: u32, is_told: bool) -> Vec<f64> {
        let bins = self.length_s() as usize;
        if !is_told {
            let seen = report.at_gateway.get(reader as usize);
            return seen.map(|seen| seen.counts(0, SECOND as u64, bins)).unwrap_or_default();
        }
        let warm_up = Duration::from_secs_f64(self.settings.warm_up_s);
        let mut counts = vec![0.0; bins];
        for (activity, at) in &report.service.read_at {
            let second = at.since(Time::ZERO + warm_up).as_secs() as usize;
            if let Some(Activity::Message { to, .. }) = workload.activities.get(*activity)
                && *to == reader
                && let Some(count) = counts.get_mut(second)
            {
                *count += 1.0;
            }
        }
        counts
    }

    fn rank(&self, report: &Report, came: &[Vec<f64>], hint: Hint, is_told: bool) -> Ranked {
        let (mut first, mut ranks, mut readers) = (0.0, 0.0, 0_u64);
        for (reader, came) in (0..self.people).zip(came) {
            if came.iter().all(|count| *count == 0.0) {
                continue;
            }
            let expected = expected(came, hint);
            let score = |person: u32| {
                let seen = report.at_gateway.get(person as usize)?;
                Some(goes_up(seen, &expected))
            };
            let writer = (reader + self.people - 1) % self.people;
            let own = score(writer).unwrap_or_default();
            let others = (0..self.people).filter(|one| ![reader, writer].contains(one));
            let others: Vec<f64> = others.filter_map(score).collect();
            let above = others.iter().filter(|other| **other > own).count() as f64;
            let equal = others.iter().filter(|other| **other == own).count() as f64;
            first += if above == 0.0 { 1.0 / (1.0 + equal) } else { 0.0 };
            ranks += (above + equal / 2.0) / f64::from(self.people - 2).max(1.0);
            readers += 1;
        }
        let prior = 1.0 / f64::from(self.people - 1);
        let (n, found) = (readers as f64, first.floor());
        // P(X >= k) = I_q(k, n - k + 1)
        let p = if found < 1.0 { 1.0 } else { law::beta_cdf(prior, found, n - found + 1.0) };
        Ranked { hint, is_told, first, readers, mean_rank: ranks / n.max(1.0), p }
    }
}

/// How much more, or less, is expected in each second around what came. Its mean is 0.
fn expected(came: &[f64], hint: Hint) -> Vec<f64> {
    let mut expected = match hint {
        Hint::Receipt(mean_s) => behind(came.iter(), mean_s),
        Hint::Room(within_s) => {
            let before = behind(came.iter().rev(), within_s);
            let around = behind(came.iter(), within_s).into_iter().zip(before.into_iter().rev());
            around.zip(came).map(|((behind, before), at)| -(behind + before + at)).collect()
        }
    };
    let mean = expected.iter().sum::<f64>() / expected.len().max(1) as f64;
    expected.iter_mut().for_each(|more| *more -= mean);
    expected
}

/// What follows that which came, at a mean distance, in each second; what comes in one is followed from the next one on.
fn behind<'a>(came: impl Iterator<Item = &'a f64>, mean_s: f64) -> Vec<f64> {
    let stays = (-1.0 / mean_s).exp();
    let mut sum = 0.0;
    let next = |came: &f64| {
        let now = sum * (1.0 - stays);
        sum = sum * stays + came;
        now
    };
    came.map(next).collect()
}

/// How far what arrives goes up with what is expected, in standard deviations of arrivals that know nothing of it.
fn goes_up(seen: &Seen, expected: &[f64]) -> f64 {
    let counts = seen.counts(0, SECOND as u64, expected.len());
    let mean = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
    let products = counts.iter().zip(expected).map(|(count, more)| (count - mean) * more);
    let square = |values: &[f64], mean: f64| values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let scale = (square(&counts, mean) * square(expected, 0.0) / counts.len().max(1) as f64).sqrt();
    products.sum::<f64>() / scale.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::super::PersonArrival;
    use super::*;

    fn seen(seconds: &mut dyn Iterator<Item = usize>) -> Seen {
        let came = |s| PersonArrival { at: s as u64 * SECOND as u64, from: 0, epoch: 0 };
        Seen { came: seconds.map(came).collect(), ..Seen::default() }
    }

    #[test]
    fn who_gets_more_behind_each_instant_or_less_around_it_goes_up_with_it_and_nobody_else_does() {
        let instants: Vec<usize> = (0..40).map(|n| 100 + n * 97 + n * n % 31).collect();
        let mut came = vec![0.0; 5_000];
        instants.iter().for_each(|at| came[*at] = 1.0);
        let even = || (0..2_500).map(|n| 2 * n);
        for (hint, with) in [
            (Hint::Receipt(20.0), even().chain(instants.iter().map(|at| at + 7)).collect()),
            (
                Hint::Room(4.0),
                even()
                    .filter(|s| !instants.iter().any(|at| at.abs_diff(*s) < 3))
                    .collect::<Vec<_>>(),
            ),
        ] {
            let expected = expected(&came, hint);
            assert!(expected.iter().sum::<f64>().abs() < 1e-6);
            let mut with = with;
            with.sort_unstable();
            let with = goes_up(&seen(&mut with.into_iter()), &expected);
            let without = goes_up(&seen(&mut even()), &expected);
            assert!(with > 2.5 && without.abs() < 1.0, "{hint:?}: {with} and {without}");
        }
    }

    #[test]
    fn receipts_that_leave_at_once_tell_who_wrote_and_those_that_wait_do_not() {
        let mut ring = Ring::new("text", (6, 150, 40.0), 1);
        let ranked = |ring: &Ring| {
            let (ranked, report) = ring.run().unwrap();
            let all = ring.people as usize * ring.messages as usize;
            assert!(report.service.message_delays_s.len() * 100 > 99 * all);
            ranked
        };
        let told = |all: &[Ranked]| {
            all.iter().find(|of| of.is_told && of.hint == Hint::Receipt(4.0)).map(|of| of.first)
        };
        let waiting = ranked(&ring);
        ring.settings.trial.letters_wait = false;
        let letters_at_once = ranked(&ring);
        ring.settings.trial.receipts_wait = false;
        let at_once = ranked(&ring);
        println!("waiting {waiting:?}\nletters at once {letters_at_once:?}\nat once {at_once:?}");
        assert_eq!(told(&at_once), Some(6.0), "{at_once:?}");
        // Receipts alone do it.
        assert!(told(&letters_at_once) <= Some(3.0), "{letters_at_once:?}");
        assert!(told(&waiting) <= Some(3.0), "{waiting:?}");
        // By chance 1.2 of six; four or more with each of these in one run of fifty.
        let not_told = waiting.iter().filter(|of| !of.is_told);
        assert!(not_told.clone().count() == 3 && not_told.clone().all(|of| of.first <= 3.0));
    }
}
