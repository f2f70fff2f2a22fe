//! Long-term attacks that find whom a person writes to from many observations: statistical disclosure in batches
//! and in continuous time, least squares, and intersection under churn.

mod batch;
mod continuous;
mod intersection;
mod kernel;

pub use batch::{Disclosure, rounds_needed};
pub use continuous::DisclosureContinuous;
pub use intersection::Intersection;
pub use kernel::{MixDelay, exponential_s, poisson_times};

use crate::experiment::Wrong;
use crate::literature::check::{CheckJob, Effort};

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), Wrong> {
    let wrong = || Wrong::new(key, format!("must be {low} to {high}"));
    (low..=high).contains(&value).then_some(()).ok_or_else(wrong)
}

/// Checks of `reproduce`, section 2, on statistical disclosure.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    let mut jobs = batch::jobs(effort);
    jobs.extend(continuous::jobs(effort));
    jobs.extend(intersection::jobs(effort));
    jobs
}
