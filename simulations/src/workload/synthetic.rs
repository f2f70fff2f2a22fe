//! A made-up list of calls or messages by the laws of recorded ones.
//!
//! Degrees and rates are Pareto; each directed edge is a two-state Markov-modulated Poisson process times a day
//! profile (Jiang et al., "Calling patterns in human communication dynamics", PNAS 110(5), 2013); durations of
//! calls are lognormal. [`super::fit`] says how near it comes to a recorded list; it is never a real one.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use super::csv::What;
use super::recorded::{Entry, Recorded};
use crate::experiment::Wrong;

/// What the rows of a synthetic list are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// The rows are calls.
    Calls,
    /// The rows are messages.
    Messages,
}

/// The laws of a synthetic list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticSettings {
    /// "calls" or "messages".
    pub rows: Rows,
    /// Number of people.
    pub people: u32,
    /// Length of the list, days.
    pub days: f64,
    /// Mean number of people whom a person calls or writes to.
    pub mean_contacts: f64,
    /// Exponent of the Pareto law of that number; the smaller, the heavier the tail. More than 1.
    pub contacts_exponent: f64,
    /// Share of contacts that answer with calls or messages of their own.
    pub mutual_share: f64,
    /// Rows a day of a directed edge, mean.
    pub edge_per_day: f64,
    /// Exponent of the Pareto law of that rate. More than 1.
    pub rate_exponent: f64,
    /// Share of time in which an edge is active, 0 to 1.
    pub active_share: f64,
    /// Mean length of an active time, seconds.
    pub active_mean_s: f64,
    /// Share of an edge's rows that fall outside active times.
    pub quiet_rows_share: f64,
    /// Weight of each hour of the day, 24 of them; only their ratios matter.
    pub day_profile: Vec<f64>,
    /// Mean of the logarithm of a call's seconds.
    pub duration_log_mean: f64,
    /// Its standard deviation.
    pub duration_log_sd: f64,
    /// Shortest call, seconds.
    pub duration_min_s: f64,
    /// Longest call, seconds.
    pub duration_max_s: f64,
    /// Share of calls that nobody takes.
    pub missed_share: f64,
}

impl Default for SyntheticSettings {
    fn default() -> Self {
        // Degrees, rates and shares are of the size that `fit` gives for the Copenhagen calls.
        Self {
            rows: Rows::Calls,
            people: 536,
            days: 28.0,
            mean_contacts: 1.7,
            contacts_exponent: 2.5,
            mutual_share: 0.5,
            edge_per_day: 0.14,
            rate_exponent: 1.5,
            active_share: 0.03,
            active_mean_s: 3_600.0,
            quiet_rows_share: 0.4,
            day_profile: vec![
                0.3, 0.15, 0.1, 0.05, 0.05, 0.1, 0.3, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.2, 1.3, 1.5,
                1.7, 1.8, 1.7, 1.5, 1.3, 1.1, 0.8, 0.5,
            ],
            duration_log_mean: 3.07,
            duration_log_sd: 1.66,
            duration_min_s: 1.0,
            duration_max_s: 10_800.0,
            missed_share: 0.1,
        }
    }
}

/// A uniform number in (0, 1], whose logarithm is finite.
fn open_unit(rng: &mut impl Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Exponential with this mean.
fn exponential_s(rng: &mut impl Rng, mean: f64) -> f64 {
    -open_unit(rng).ln() * mean
}

/// Pareto with this mean.
fn pareto(rng: &mut impl Rng, mean: f64, exponent: f64) -> f64 {
    mean * (exponent - 1.0) / exponent * open_unit(rng).powf(-1.0 / exponent)
}

/// Standard normal (Box and Muller).
fn normal(rng: &mut impl Rng) -> f64 {
    (-2.0 * open_unit(rng).ln()).sqrt() * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

impl SyntheticSettings {
    /// Checks them; `table` is where they stand in the scenario file.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            let wrong =
                || Wrong::new(&format!("{table}.{name}"), format!("must be {low} to {high}"));
            (low..=high).contains(&value).then_some(()).ok_or_else(wrong)
        };
        within("people", f64::from(self.people), 2.0, 1e7)?;
        within("days", self.days, 1e-4, 3_650.0)?;
        within("mean_contacts", self.mean_contacts, 0.01, 1e4)?;
        within("contacts_exponent", self.contacts_exponent, 1.01, 100.0)?;
        within("mutual_share", self.mutual_share, 0.0, 1.0)?;
        within("edge_per_day", self.edge_per_day, 0.0, 1e6)?;
        within("rate_exponent", self.rate_exponent, 1.01, 100.0)?;
        within("active_share", self.active_share, 0.001, 0.999)?;
        within("active_mean_s", self.active_mean_s, 1.0, 1e7)?;
        within("quiet_rows_share", self.quiet_rows_share, 0.0, 1.0)?;
        within("duration_log_mean", self.duration_log_mean, -10.0, 20.0)?;
        within("duration_log_sd", self.duration_log_sd, 0.0, 10.0)?;
        within("duration_min_s", self.duration_min_s, 0.0, 1e7)?;
        within("duration_max_s", self.duration_max_s, self.duration_min_s, 1e7)?;
        within("missed_share", self.missed_share, 0.0, 1.0)?;
        let hours = &self.day_profile;
        if hours.len() != 24 || hours.iter().any(|h| !(0.0..1e9).contains(h)) || self.peak() <= 0.0
        {
            let why = "must be 24 weights from 0 on, not all 0";
            return Err(Wrong::new(&format!("{table}.day_profile"), why));
        }
        let edges = f64::from(self.people) * self.mean_contacts * (1.0 + self.mutual_share);
        if edges > 1e7 || edges * self.edge_per_day * self.days > 1e8 {
            let why = "must be fewer: 10^7 edges and 10^8 rows at most";
            return Err(Wrong::new(&format!("{table}.people"), why));
        }
        Ok(())
    }

    fn peak(&self) -> f64 {
        self.day_profile.iter().copied().fold(0.0, f64::max)
    }

    fn profile(&self, time_s: f64) -> f64 {
        let hour = (time_s / 3_600.0) as usize % 24;
        self.day_profile.get(hour).copied().unwrap_or(0.0)
    }

    /// The list for a seed. Each edge draws from a stream of its own.
    pub fn records(&self, seed: u64) -> Recorded {
        let seed = Seed::from_u64(seed).part("synthetic workload");
        let mut edges = Vec::new();
        for person in 0..self.people {
            let mut rng = seed.stream(&format!("contacts {person}"));
            self.contacts(person, &mut rng, &mut edges);
        }
        edges.sort_unstable();
        edges.dedup();
        let mut entries = Vec::new();
        for (from, to) in edges {
            let mut rng = seed.stream(&format!("edge {from} {to}"));
            self.edge(from, to, &mut rng, &mut entries);
        }
        entries.sort_by_key(|entry: &Entry| (entry.at, entry.from, entry.to));
        let end = Time::from_nanos((self.days * 86_400e9) as u64);
        let ids = (0..self.people).map(|id| id.to_string()).collect();
        Recorded { ids, entries, end, notes: Vec::new() }
    }

    fn contacts(&self, person: u32, rng: &mut impl Rng, edges: &mut Vec<(u32, u32)>) {
        // Whom a person calls accounts for this many; the answers make up the rest.
        let own = self.mean_contacts / (1.0 + self.mutual_share);
        let wanted = pareto(rng, own, self.contacts_exponent);
        let number = wanted.floor() + f64::from(u8::from(rng.random::<f64>() < wanted.fract()));
        for _ in 0..(number as u32).min(self.people - 1) {
            let other = rng.random_range(0..self.people - 1);
            let other = if other >= person { other + 1 } else { other };
            edges.push((person, other));
            if rng.random::<f64>() < self.mutual_share {
                edges.push((other, person));
            }
        }
    }

    /// Thinning: candidates at the highest rate, each kept with the share that the state and the hour leave.
    fn edge<R: Rng>(&self, from: u32, to: u32, rng: &mut R, entries: &mut Vec<Entry>) {
        let mean = pareto(rng, self.edge_per_day, self.rate_exponent).min(2_000.0) / 86_400.0;
        let hours = self.day_profile.len().max(1) as f64;
        let average = self.day_profile.iter().sum::<f64>() / hours;
        let active = mean * (1.0 - self.quiet_rows_share) / self.active_share / average;
        let quiet = mean * self.quiet_rows_share / (1.0 - self.active_share) / average;
        let quiet_mean_s = self.active_mean_s * (1.0 - self.active_share) / self.active_share;
        let end = self.days * 86_400.0;
        let mut on = rng.random::<f64>() < self.active_share;
        let mut begin = 0.0;
        while begin < end {
            let (length, rate) =
                if on { (self.active_mean_s, active) } else { (quiet_mean_s, quiet) };
            let stop = (begin + exponential_s(rng, length)).min(end);
            let mut at = begin;
            let mut next = |rng: &mut R| {
                at += exponential_s(rng, 1.0 / (rate * self.peak()));
                (at < stop).then_some(at)
            };
            while let Some(at) = next(rng) {
                if rng.random::<f64>() * self.peak() < self.profile(at) {
                    let at = Time::from_nanos((at * 1e9) as u64);
                    entries.push(Entry { at, from, to, what: self.what(rng) });
                }
            }
            (begin, on) = (stop, !on);
        }
    }

    fn what(&self, rng: &mut impl Rng) -> What {
        if self.rows == Rows::Messages {
            return What::Message;
        }
        if rng.random::<f64>() < self.missed_share {
            return What::Missed;
        }
        // Cut, not clamped: what lies outside is drawn again, a thousand times at most.
        let draw = |_| (self.duration_log_mean + self.duration_log_sd * normal(rng)).exp();
        let range = self.duration_min_s..=self.duration_max_s;
        let drawn = (0..1_000).map(draw).find(|seconds| range.contains(seconds));
        What::Call(drawn.unwrap_or(self.duration_min_s))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fit;
    use super::*;

    #[test]
    fn the_laws_come_out_of_a_long_list() {
        let settings = SyntheticSettings {
            people: 400,
            edge_per_day: 2.0,
            rate_exponent: 3.0,
            ..SyntheticSettings::default()
        };
        let fit = fit(&settings.records(1));
        assert!((fit.missed_share - 0.1).abs() < 0.01, "{fit:?}");
        assert!((fit.duration_log_mean - 3.18).abs() < 0.12, "cut below 1 s moves it: {fit:?}");
        assert!((fit.rows_per_edge / 28.0 / 2.0 - 1.0).abs() < 0.15, "{fit:?}");
        assert!(fit.burstiness > 0.1, "{fit:?}");
        let night = settings.records(1);
        let hour = |e: &&Entry| (e.at.as_secs_f64() / 3_600.0) as u64 % 24 == 3;
        let share = night.entries.iter().filter(hour).count() as f64 / night.entries.len() as f64;
        assert!(share < 0.01, "{share}");
    }

    #[test]
    fn the_same_seed_gives_the_same_list() {
        let settings = SyntheticSettings { people: 50, ..SyntheticSettings::default() };
        assert_eq!(settings.records(3), settings.records(3));
        assert_ne!(settings.records(3), settings.records(4));
    }
}
