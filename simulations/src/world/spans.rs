//! Numbers of a scenario file as spans and instants of the world.

use std::time::Duration;

use shoal_topology::Time;

/// Seconds as a time of the world.
pub(super) fn seconds(s: f64) -> Time {
    Time::ZERO + span(s)
}

/// Seconds as a span; what cannot be one is none.
pub(super) fn span(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX)
}

/// Milliseconds as a span.
pub(super) fn millis(ms: f64) -> Duration {
    span(ms / 1e3)
}
