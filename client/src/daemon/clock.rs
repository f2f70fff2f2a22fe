//! The one clock of a client.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shoal_topology::Time;

/// Time since the program began, for engines.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// The instant that [`Time::ZERO`] stands for.
    pub(super) fn base(self) -> Instant {
        self.0
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO + self.0.elapsed()
    }

    /// Waits until `time`; at once if it has passed.
    pub(super) async fn sleep_until(self, time: Time) {
        if time == Time::NEVER {
            return std::future::pending().await;
        }
        tokio::time::sleep_until((self.0 + time.since(Time::ZERO)).into()).await;
    }
}

/// The present second of Unix time.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
