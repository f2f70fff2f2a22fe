//! A limit on a rate, in integer time (the generic cell rate algorithm, ITU-T I.371).

use std::time::Duration;

use shoal_topology::Time;

/// Lets `rate` things a second pass, and a burst.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    interval: Duration,
    tolerance: Duration,
    /// When the next would be due if all came evenly.
    due: Time,
}

impl Limit {
    /// `per_s` things a second, and `burst` at once.
    pub(crate) fn new(per_s: f64, burst: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / per_s.clamp(0.001, 1e9));
        Self { interval, tolerance: interval.mul_f64(burst.clamp(0.0, 1e6)), due: Time::ZERO }
    }

    /// True if one may pass now; if so, it counts.
    pub(crate) fn pass(&mut self, now: Time) -> bool {
        if self.next() > now {
            return false;
        }
        self.due = self.due.max(now) + self.interval;
        true
    }

    /// True if all that passed is forgotten.
    pub(crate) fn is_idle(&self, now: Time) -> bool {
        self.due <= now
    }

    /// The instant at which the next one may pass.
    pub(crate) fn next(&self) -> Time {
        self.due - self.tolerance
    }
}
