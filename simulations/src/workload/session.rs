//! Downloads, and sessions like those of a browser: pages of several objects, with time to read between them.
//!
//! The shape is that of SURGE (Barford and Crovella, SIGMETRICS 1998): Pareto numbers of objects, lognormal sizes
//! with a Pareto tail, Pareto times to think.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use super::{Activity, Workload};
use crate::experiment::Wrong;

/// Downloads of one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownloadSettings {
    /// How much, bytes.
    pub bytes: u64,
    /// Mean time between a person's downloads, seconds (Poisson).
    pub every_s: f64,
}

impl Default for DownloadSettings {
    fn default() -> Self {
        Self { bytes: 1 << 20, every_s: 60.0 }
    }
}

/// A browser-like session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrowseSettings {
    /// Mean number of objects of a page, the first one included.
    pub objects: f64,
    /// Exponent of its Pareto law.
    pub objects_exponent: f64,
    /// Median of an object's size, bytes.
    pub object_median_bytes: f64,
    /// Standard deviation of the logarithm of that size.
    pub object_log_sd: f64,
    /// Largest object, bytes.
    pub object_max_bytes: f64,
    /// Mean time between the requests of one page, seconds.
    pub between_objects_s: f64,
    /// Mean time to read a page, seconds.
    pub think_s: f64,
    /// Exponent of its Pareto law. More than 1.
    pub think_exponent: f64,
}

impl Default for BrowseSettings {
    fn default() -> Self {
        Self {
            objects: 8.0,
            objects_exponent: 2.43,
            object_median_bytes: 7_800.0,
            object_log_sd: 1.76,
            object_max_bytes: 1e7,
            between_objects_s: 0.1,
            think_s: 20.0,
            think_exponent: 1.5,
        }
    }
}

fn within(key: String, value: f64, low: f64, high: f64) -> Result<(), Wrong> {
    let wrong = || Wrong::new(&key, format!("must be {low} to {high}"));
    (low..=high).contains(&value).then_some(()).ok_or_else(wrong)
}

fn open_unit(rng: &mut impl Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

fn pareto(rng: &mut impl Rng, mean: f64, exponent: f64) -> f64 {
    mean * (exponent - 1.0) / exponent * open_unit(rng).powf(-1.0 / exponent)
}

fn in_order(people: u32, length_s: f64, mut activities: Vec<Activity>) -> Workload {
    activities.sort_by_key(Activity::at);
    Workload { people, end: Time::from_nanos((length_s * 1e9) as u64), activities }
}

impl DownloadSettings {
    /// Checks them; `table` is where they stand in the scenario file.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        within(format!("{table}.bytes"), self.bytes as f64, 1.0, 1e12)?;
        within(format!("{table}.every_s"), self.every_s, 1e-3, 1e9)
    }

    /// What so many people do in so many seconds.
    pub fn workload(&self, people: u32, length_s: f64, seed: u64) -> Workload {
        let seed = Seed::from_u64(seed).part("downloads");
        let mut activities = Vec::new();
        for person in 0..people {
            let mut rng = seed.stream(&format!("person {person}"));
            let mut at = -open_unit(&mut rng).ln() * self.every_s;
            while at < length_s {
                let time = Time::from_nanos((at * 1e9) as u64);
                activities.push(Activity::Download { person, at: time, bytes: self.bytes });
                at -= open_unit(&mut rng).ln() * self.every_s;
            }
        }
        in_order(people, length_s, activities)
    }
}

impl BrowseSettings {
    /// Checks them; `table` is where they stand in the scenario file.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        within(format!("{table}.objects"), self.objects, 1.0, 1e4)?;
        within(format!("{table}.objects_exponent"), self.objects_exponent, 1.01, 100.0)?;
        within(format!("{table}.object_median_bytes"), self.object_median_bytes, 1.0, 1e9)?;
        within(format!("{table}.object_log_sd"), self.object_log_sd, 0.0, 10.0)?;
        within(format!("{table}.object_max_bytes"), self.object_max_bytes, 1.0, 1e12)?;
        within(format!("{table}.between_objects_s"), self.between_objects_s, 0.0, 1e4)?;
        within(format!("{table}.think_s"), self.think_s, 0.01, 1e6)?;
        within(format!("{table}.think_exponent"), self.think_exponent, 1.01, 100.0)
    }

    /// What so many people do in so many seconds.
    pub fn workload(&self, people: u32, length_s: f64, seed: u64) -> Workload {
        let seed = Seed::from_u64(seed).part("browse");
        let mut activities = Vec::new();
        for person in 0..people {
            let mut rng = seed.stream(&format!("person {person}"));
            let mut at = rng.random::<f64>() * self.think_s;
            while at < length_s {
                at = self.page(person, at, length_s, &mut rng, &mut activities);
                at += pareto(&mut rng, self.think_s, self.think_exponent);
            }
        }
        in_order(people, length_s, activities)
    }

    /// One page from `at` on; when its last object was asked for.
    fn page(
        &self,
        person: u32,
        mut at: f64,
        end: f64,
        rng: &mut impl Rng,
        activities: &mut Vec<Activity>,
    ) -> f64 {
        let further = pareto(rng, (self.objects - 1.0).max(0.0), self.objects_exponent);
        for _ in 0..=(further.round() as u32).min(10_000) {
            let normal = (-2.0 * open_unit(rng).ln()).sqrt()
                * (std::f64::consts::TAU * rng.random::<f64>()).cos();
            let size = self.object_median_bytes * (self.object_log_sd * normal).exp();
            let bytes = size.clamp(1.0, self.object_max_bytes) as u64;
            if at < end {
                let at = Time::from_nanos((at * 1e9) as u64);
                activities.push(Activity::Download { person, at, bytes });
            }
            at -= open_unit(rng).ln() * self.between_objects_s;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_mean_number_of_objects() {
        // Between pages lies at least think_s/3: longer gaps are counted as the end of a page.
        let settings = BrowseSettings { between_objects_s: 1e-3, ..BrowseSettings::default() };
        let workload = settings.workload(1, 200_000.0, 1);
        let times: Vec<f64> = workload.activities.iter().map(|a| a.at().as_secs_f64()).collect();
        let gaps = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a);
        let pages = 1 + gaps.filter(|gap| *gap > 1.0).count();
        let objects = times.len() as f64 / pages as f64;
        assert!((objects - 8.0).abs() < 0.7, "{objects}");
    }

    #[test]
    fn downloads_come_at_their_rate_and_in_order() {
        let workload = DownloadSettings::default().workload(100, 6_000.0, 1);
        let number = workload.activities.len() as f64;
        assert!((number - 10_000.0).abs() < 400.0, "{number}");
        assert!(workload.activities.is_sorted_by_key(Activity::at));
    }
}
